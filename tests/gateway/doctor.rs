//! `ringwave doctor` on this host, as it is, without io_uring, with few descriptors; and the files of `sysctl/`, which
//! are what its table says.

use crate::drivers::without_io_uring;
use crate::process::command;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Asks for the driver that this host allows, whatever the tests run on.
fn doctor(flags: &[&str]) -> Output {
    command(&[&["doctor", "--driver", "auto"], flags].concat()).output().expect("the binary has been built")
}

fn text(done: &Output) -> String {
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout.clone()).expect("text");
    for line in text.lines() {
        assert!(line.chars().count() <= 100 || line.contains("$$"), "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }
    text
}

fn json(done: &Output) -> Value {
    let value: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(value["schema"], "ringwave-doctor/1");
    value
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The doctor with at most so many descriptors.
fn with_descriptors(limit: u32, flags: &[&str]) -> Output {
    let script = format!("ulimit -n {limit} && exec \"$0\" doctor \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_ringwave")]).args(flags);
    shell.env_clear().stdin(Stdio::null()).output().expect("there is a shell")
}

#[test]
fn it_says_how_many_connections_this_host_holds() {
    let done = doctor(&[]);
    assert_eq!(done.status.code(), Some(0));
    let text = text(&done);
    let answer = text.split("\n\n").next().expect("a first part");
    assert!(answer.starts_with("This host holds ") && answer.contains(" idle connections now, on "), "{text}");
    for said in ["\nThe limit is ", "\nTo hold ", "\n            10k  ", "\n           100k  ", "\n             1m  "] {
        assert!(answer.contains(said), "{text}");
    }
    assert!(text.trim_end().ends_with(answer), "{text}");
    for said in ["\nkernel and driver\n", "\ndescriptors\n", "\nmemory\n", "\nshards\n", "\nkernel settings "] {
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn its_json_says_the_same() {
    let done = doctor(&["--json", "--connections", "1"]);
    let report = json(&done);
    assert_eq!((done.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)));
    assert_eq!(number(&report["target"]["connections"]), 1);
    let classes = report["classes"].as_array().expect("a list");
    assert_eq!(
        classes.iter().map(|class| number(&class["connections"])).collect::<Vec<_>>(),
        [10_000, 100_000, 1_000_000]
    );
    for class in classes {
        let holds = number(&report["connections"]) >= number(&class["connections"]);
        assert_eq!((&class["holds"], class["missing"] == Value::Array(Vec::new())), (&Value::Bool(holds), holds));
    }
    // What limits is the bound that allows the fewest.
    let allows = report["findings"].as_array().expect("a list").iter().filter_map(|finding| finding["allows"].as_u64());
    assert!(allows.min().is_none_or(|fewest| number(&report["connections"]) <= fewest), "{report}");
    assert_eq!(report["sysctls"].as_array().map(Vec::len), Some(4));
    assert_eq!(report["io_uring"].as_array().map(Vec::len), Some(10));
}

#[test]
fn what_no_host_holds_ends_it_with_1() {
    let done = doctor(&["--connections", "9000m"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done).contains("\n  9 000 000 000  missing: "), "{}", text(&done));
}

#[test]
fn where_io_uring_is_refused_it_judges_for_epoll() {
    let report = json(&without_io_uring(libc::EPERM, || doctor(&["--json"])));
    assert_eq!(report["server"]["driver"], "epoll");
    assert!(report["server"]["refusal"].as_str().is_some_and(|said| said.starts_with("io_uring_setup: ")), "{report}");
    assert_eq!(
        (&report["io_uring"][0]["state"], &report["io_uring"][3]["state"]),
        (&"missing".into(), &"untried".into())
    );
    let said = text(&without_io_uring(libc::EPERM, || doctor(&[])));
    // However it is broken into lines.
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(" idle connections now, on epoll with "), "{said}");
    assert!(said.contains("epoll, because io_uring is refused io_uring is refused: io_uring_setup: "), "{said}");
    // The filter that refuses it is seen, and named with what to let through.
    assert!(
        said.contains("a seccomp filter stands over this process: let io_uring_setup, io_uring_enter and "),
        "{said}"
    );
    assert!(said.contains("10k ok (better with io_uring)") || said.contains("10k missing: "), "{said}");

    let asked = without_io_uring(libc::ENOSYS, || command(&["doctor", "--driver", "uring"]).output());
    let asked = asked.expect("the binary has been built");
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked).starts_with("The server does not start here: "), "{}", text(&asked));
}

#[test]
fn few_descriptors_are_the_limit_on_epoll_and_not_on_io_uring() {
    let flags = ["--shards", "1", "--connections", "10k"];
    let done = with_descriptors(256, &[&flags[..], &["--driver", "epoll"]].concat());
    let said = text(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.starts_with("This host holds 236 idle connections now, on epoll with 1 shard.\n"), "{said}");
    assert!(said.contains("The limit is RLIMIT_NOFILE.\nTo hold 10 000:\n"), "{said}");
    assert!(said.contains("--nofile=10240:10240") || said.contains("ulimit -Sn 10240"), "{said}");

    let done = with_descriptors(256, &[&flags[..], &["--json"]].concat());
    let report = json(&done);
    if report["server"]["driver"] == "epoll" {
        return;
    }
    // A table of 256 for the first ring, and for one more for every 2 descriptors that are left.
    let findings = report["findings"].as_array().expect("a list");
    let limit = findings.iter().find(|finding| finding["subject"] == "RLIMIT_NOFILE").expect("it is looked at");
    assert_eq!(number(&limit["allows"]), (1 + 236 / 2) * 256);
    assert_eq!((done.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)));
}

#[test]
fn unknown_flags_and_values_are_named() {
    for (flags, named) in [
        (&["--conections", "1m"][..], "--connections"),
        (&["--connections", "lots"], "--connections"),
        (&["--sysctl", "5k"], "--sysctl"),
        (&["--port", "1"], "--port"),
        (&["now"], "now"),
    ] {
        let done = doctor(flags);
        let error = String::from_utf8(done.stderr).expect("text");
        assert_eq!((done.status.code(), done.stdout.is_empty()), (Some(2), true), "{flags:?}: {error}");
        assert!(error.starts_with("error: ") && error.contains(named), "{flags:?}: {error}");
    }
}

#[test]
fn the_files_of_sysctl_are_what_the_table_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sysctl");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it is committed");
    for class in ["10k", "100k", "1m"] {
        let says = text_of_file(&doctor(&["--sysctl", class]));
        assert_eq!(read(&format!("{class}.conf")), says, "ringwave doctor --sysctl {class} > sysctl/{class}.conf");
    }
    let table = text_of_file(&doctor(&["--sysctl", "table"]));
    assert!(read("README.md").contains(&format!("\n\n{table}\n")), "sysctl/README.md has another table than:\n{table}");
}

fn text_of_file(done: &Output) -> String {
    assert_eq!(done.status.code(), Some(0));
    String::from_utf8(done.stdout.clone()).expect("text")
}
