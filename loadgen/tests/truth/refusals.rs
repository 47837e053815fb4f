//! What cannot be done is said in words that help: what was tried, what the system or the flag says, what to do.

use crate::answers::honest;
use crate::program::{BINARY, Load};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_port_where_nobody_listens_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    for driver in ["auto", "epoll"] {
        let load = Load::new("echo", &format!("ws://127.0.0.1:{port}/"), "-c 4 -d 5s --connect-timeout 2s --driver");
        let done = load.argument(driver).run();
        done.fails(&[1], &[&format!("127.0.0.1:{port}"), "refused", "running|listen|start"]);
        assert!(done.elapsed < Duration::from_secs(4), "{:?}", done.elapsed);
    }
}

#[test]
fn a_host_without_an_address_is_named() {
    let done = Load::new("echo", "ws://no-such-host.invalid:9001/", "-c 1 -d 1s").run();
    done.fails(&[1, 2], &["no-such-host.invalid"]);
}

#[test]
fn too_few_descriptors_are_said_with_the_limit() {
    let server = honest();
    // RLIMIT_NOFILE counts epoll's sockets; direct descriptors of io_uring are not counted.
    let load = Load::new("echo", &server.url("/"), "-c 100 -d 2s --connect-timeout 2s --driver epoll");
    let done = load.through(&["sh", "-c", "ulimit -n 32 && exec \"$@\"", "sh"]).run();
    done.fails(&[1], &["descriptor|open files", "ulimit -n|rlimit_nofile|limitnofile", "32"]);
    assert!(done.elapsed < Duration::from_secs(4), "{:?}", done.elapsed);
}

/// Set for this test's own binary within the namespace.
const WITHIN: &str = "RINGLOAD_TRUTH_WITHIN_NAMESPACE";

#[test]
fn exhausted_ports_are_said_with_what_gives_more() {
    if std::env::var_os(WITHIN).is_some() {
        return exhaust_ports();
    }
    // 32 ports, which only a network namespace of its own may have; the server must be in it too.
    let setup = "ip link set lo up && echo '32768 32799' > /proc/sys/net/ipv4/ip_local_port_range";
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net", "sh", "-c", &format!("{setup} && {command}")]);
        unshare
    };
    match unshare("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return println!("left out: no namespace: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return println!("left out: unshare: {error}"),
    }
    let name = "refusals::exhausted_ports_are_said_with_what_gives_more";
    let this = std::env::current_exe().expect("a test has a path");
    let mut within = unshare("exec \"$0\" --exact \"$1\" --nocapture");
    let output = within.arg(this).arg(name).env(WITHIN, "yes").output().expect("it ran before");
    eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the test within the namespace");
}

fn exhaust_ports() {
    let server = honest();
    for driver in ["auto", "epoll"] {
        let words = format!("-c 100 -d 1s --connect-timeout 2s --source 127.0.0.1 --driver {driver}");
        let done = Load::new("echo", &server.url("/"), &words).run();
        done.fails(&[1], &["port", "--source|--target|ip_local_port_range"]);
        assert!(done.elapsed < Duration::from_secs(4), "{:?}", done.elapsed);
    }
    // What the message proposes helps.
    let words = "-c 100 --count 100 --warm-up 0s --source 127.0.0.11-127.0.0.18";
    Load::new("echo", &server.url("/"), words).run().exits(0);
}

#[test]
fn what_is_not_spoken_yet_is_said_before_anything_is_tried() {
    let done = Load::new("echo", "wss://127.0.0.1:1/", "-c 1 -d 1s").run();
    done.fails(&[1, 2], &["wss|tls", "not"]);
    let server = honest();
    let done = Load::new("echo", &server.url("/"), "-c 1 -d 1s --deflate").run();
    done.fails(&[1, 2], &["deflate|compress", "not"]);
    assert_eq!(server.seen().connections.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn wrong_flags_are_usage_errors_that_name_the_flag() {
    let server = honest();
    let table = [
        ("--no-such-flag", "--no-such-flag"),
        ("-c 0", "connections"),
        ("-c many", "many"),
        ("-w 0", "in-flight"),
        ("-s 0", "size"),
        ("-s 1TiB", "size"),
        ("-d soon", "soon"),
        ("--rate -5", "5"),
        ("--rate fast", "fast"),
        ("--count 0", "count"),
        ("--arrivals sometimes", "sometimes"),
        ("--steps 100", "steps"),
        ("--driver kqueue", "kqueue"),
        ("--text --binary", "--binary"),
        ("--source nowhere", "nowhere"),
        ("--target 127.0.0.9-127.0.0.1", "127.0.0.9"),
        ("--header novalue", "novalue"),
        ("--assert p99", "p99"),
        ("--assert p98.7.6<5ms", "p98.7.6"),
        ("--assert p99<fast", "fast"),
        ("--assert p99<5", "5"),
        ("--assert nonsense<5ms", "nonsense"),
        ("--assert errors==0ms", "errors"),
    ];
    for (words, named) in table {
        eprintln!("{words}");
        let done = Load::new("echo", &server.url("/"), words).run();
        done.fails(&[2], &[named]);
        assert!(done.elapsed < Duration::from_secs(3), "{words}: {:?}", done.elapsed);
    }
    for url in ["http://127.0.0.1:1/", "127.0.0.1:1", "ws://", "ws:///path", "ws://127.0.0.1:99999/"] {
        Load::new("echo", url, "-c 1").run().fails(&[1, 2], &[url.trim_start_matches("ws://").trim_end_matches('/')]);
    }
    Load::new("fanout", "tcp://127.0.0.1:1", "-c 1").run().fails(&[1, 2], &["tcp|ws"]);
    Load::new("no-such-scenario", &server.url("/"), "").run().fails(&[2], &["no-such-scenario"]);
    for (promise, named) in [("p99", "p99"), ("p99>", "p99"), ("<5ms", "<"), ("p99<5parsecs", "parsecs")] {
        Load::new("find-rate", promise, &server.url("/")).run().fails(&[2], &[named]);
    }
    assert_eq!(server.seen().connections.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing was tried");
}

#[test]
fn a_server_process_that_is_not_there_is_named() {
    let server = honest();
    let mut gone = Command::new("true").spawn().expect("there is a shell's `true`");
    gone.wait().expect("it ends");
    let words = format!("-c 1 -d 1s --warm-up 0s --server-pid {}", gone.id());
    let done = Load::new("echo", &server.url("/"), &words).run();
    done.fails(&[1, 2], &[&gone.id().to_string()]);
}

#[test]
fn help_names_every_scenario_and_flag() {
    let output = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let help = output(&["--help"]);
    for scenario in ["echo", "fanout", "idle", "churn", "slow-reader", "ramp", "find-rate", "compare"] {
        assert!(help.contains(scenario), "{scenario}\n{help}");
        assert!(output(&[scenario, "--help"]).len() > 200, "{scenario}");
    }
    let help = output(&["echo", "--help"]);
    let flags = "--connections --in-flight --size --text --binary --duration --count --warm-up --rate --arrivals \
                 --steps --threads --no-pin --driver --repeat --source --target --connect-rate --connect-timeout \
                 --answer-timeout --header --protocol --server-pid --json --csv --html --hlog --assert --quiet";
    for flag in flags.split(' ') {
        assert!(help.contains(flag), "{flag}\n{help}");
    }
    assert!(output(&["--version"]).starts_with("ringload "));
}
