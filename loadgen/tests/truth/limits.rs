//! What the figures cost, and whose they are: a client that was held up says so, and a server's cost is the system's
//! own count.

use crate::answers::{Noting, honest};
use crate::outputs::Folder;
use crate::program::{Load, Report, check_all, within_three_attempts};
use crate::server::wait_for;
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[test]
fn a_client_that_was_stopped_says_how_late_it_was_and_shows_no_figure() {
    let (server, folder) = (honest(), Folder::new());
    let load = Load::new("echo", &server.url("/"), "-c 4 --rate 1000 -d 2s --warm-up 0s");
    let load = load.and("--json").argument(folder.path("a.json"));
    let running = load.without_json().alone().start();
    wait_for("some messages", || server.seen().messages.load(Ordering::SeqCst) > 500);
    running.signal("STOP");
    std::thread::sleep(Duration::from_millis(400));
    running.signal("CONT");
    let done = running.wait();
    // In the place of the run's figures.
    let row = done.stdout.lines().find(|line| line.trim_start().starts_with("measured"));
    let row = row.unwrap_or_else(|| panic!("the run has no row:\n{}", done.stdout));
    assert!(row.contains("the client was the limit") && !row.contains("ms"), "{row}");

    assert_eq!(done.code, 0);
    let report = Report::parse(&folder.read("a.json"));
    // 400 of 2 000 messages were late, the latest by 400 ms.
    let (p99, max) = (report.nanos("/runs/0/client/lag_p99_ns"), report.nanos("/runs/0/client/lag_max_ns"));
    assert!(max >= Duration::from_millis(390), "the longest lag is {max:?}");
    assert!(p99 >= Duration::from_millis(300), "p99 of the lag is {p99:?}");
    assert!(!report.text("/runs/0/client/limit").is_empty());
    // They were sent all the same, and their latency counts from when they were meant to be.
    assert_eq!(report.count("/runs/0/sent"), 2000);
    assert!(report.nanos("/runs/0/latency/max_ns") >= Duration::from_millis(390));
}

#[test]
fn a_client_that_kept_up_does_not_blame_itself_and_one_that_did_not_does() {
    let server = honest();
    let mut kept_up = false;
    for _ in 0..3 {
        let report = Load::new("echo", &server.url("/"), "-c 4 --rate 300 -d 1s --warm-up 0s").alone().run().exits(0);
        let client = report.at("/runs/0/client");
        let lag = report.nanos("/runs/0/client/lag_p99_ns");
        let waited = report.number("/runs/0/client/longest_wait");
        kept_up = lag < Duration::from_millis(1) && waited < 0.1;
        assert!(!kept_up || report.at("/runs/0/client/limit").is_null(), "it kept up: {client}");
        assert!(waited < 0.1 || !report.at("/runs/0/client/limit").is_null(), "it did not: {client}");
        let cpu = report.number("/runs/0/client/cpu_s");
        assert!(cpu > 0.0 && cpu < 1.0, "{cpu} s of CPU time for 300 messages");
        if kept_up {
            break;
        }
    }
    if !kept_up {
        println!("left out in part: on this machine nobody keeps up");
    }
}

/// A process that takes what it gets of a core; killed when dropped.
struct Spinning(Child);

impl Spinning {
    fn start() -> Self {
        Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("there is a shell"))
    }

    /// CPU time so far: proc_pid_stat(5), fields 14 and 15, in hundredths of a second.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the name stands in parentheses");
        let field = |number: usize| -> f64 {
            fields.split_whitespace().nth(number - 3).expect("a field").parse().expect("a number")
        };
        (field(14) + field(15)) / 100.0
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        // It cannot have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_servers_cost_is_what_the_system_says() {
    within_three_attempts(|| {
        let (server, process) = (honest(), Spinning::start());
        let words = format!("-c 2 --rate 200 -d 1500ms --warm-up 0s --server-pid {}", process.0.id());
        let (cpu, begun) = (process.cpu(), Instant::now());
        let report = Load::new("echo", &server.url("/"), &words).alone().run().exits(0);
        let (cpu, elapsed) = (process.cpu() - cpu, begun.elapsed().as_secs_f64());
        let seen = report.number("/runs/0/server/cpu_user_s") + report.number("/runs/0/server/cpu_system_s");
        // The measured part is all but the start and the end.
        assert!(
            seen <= cpu + 0.02 && seen >= cpu * (1.5 / elapsed) * 0.8,
            "{seen} s in the report, {cpu} s in {elapsed} s"
        );
        let cores = report.number("/runs/0/server/cores_used");
        assert!((cores - seen / report.number("/runs/0/elapsed_s")).abs() < 0.02, "{cores} cores");
        let busiest = report.number("/runs/0/server/busiest_thread");
        assert!((busiest - cores).abs() < 0.1, "it has one thread: {busiest}");
        assert_eq!(report.count("/runs/0/server/pid"), u64::from(process.0.id()));
        let resident = report.count("/runs/0/server/resident_bytes_after");
        assert!((100_000..100_000_000).contains(&resident), "{resident} bytes");
        let each = report.number("/runs/0/server/cpu_ns_per_message");
        assert!((each / (seen * 1e9 / report.number("/runs/0/received")) - 1.0).abs() < 0.1, "{each} ns a message");
    });
}

#[test]
fn threads_share_the_schedule_and_the_connections() {
    check_all(&[1, 2, 3], |threads| {
        let noting = Noting::start();
        let words = format!("-c 7 --threads {threads} --no-pin --rate 700 -d 1s --warm-up 0s");
        let report = Load::new("echo", &noting.server.url("/"), &words).run().exits(0);
        assert_eq!(report.count("/setup/threads"), *threads);
        let came = noting.came().len();
        assert!((695..=705).contains(&came), "{came} messages with {threads} threads");
        assert_eq!(noting.server.seen().upgrades.load(Ordering::SeqCst), 7);
        report.has_errors(&[]);
    });
}

#[test]
fn both_drivers_are_named_in_the_report() {
    let server = honest();
    let report = Load::new("echo", &server.url("/"), "-c 2 --count 10 --warm-up 0s --driver epoll").run().exits(0);
    assert_eq!(report.text("/setup/driver"), "epoll");
    let report = Load::new("echo", &server.url("/"), "-c 2 --count 10 --warm-up 0s").run().exits(0);
    assert!(["uring", "epoll"].contains(&report.text("/setup/driver")), "{}", report.text("/setup/driver"));
}
