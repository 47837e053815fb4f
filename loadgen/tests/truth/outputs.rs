//! What is left behind: exit codes, files, and a report however the run ended.

use crate::answers::{Fault, Faulty, ending_after, honest};
use crate::program::{Done, Load, Report, check_all, within_three_attempts};
use crate::server::{Server, wait_for};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A folder that is removed when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringload-truth-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a writable folder for temporary files");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The system's own sweep finds what is left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BRIEF: &str = "-c 4 --rate 1000 -d 1500ms --warm-up 100ms";

/// RFC 4648 §4.
fn from_base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{:?} in base64", char::from(other)),
    };
    let letters: Vec<u8> = text.trim().bytes().filter(|letter| *letter != b'=').map(value).collect();
    let bits = |group: &[u8]| group.iter().fold(0_u32, |bits, letter| bits << 6 | u32::from(*letter));
    let bytes = |group: &[u8]| {
        let bits = bits(group) << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    letters.chunks(4).flat_map(bytes).collect()
}

fn histogram(encoded: &str) -> Histogram<u64> {
    let bytes = from_base64(encoded);
    Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram in the V2 format")
}

/// The report's percentiles are those of its histogram.
fn assert_is_the_histogram(report: &Report, run: usize, histogram: &Histogram<u64>) {
    let at = |name: &str| report.count(&format!("/runs/{run}/latency/{name}"));
    assert_eq!(histogram.len(), at("count"));
    for (name, share) in [("p50_ns", 0.5), ("p99_ns", 0.99), ("p999_ns", 0.999)] {
        let (seen, truth) = (at(name), histogram.value_at_quantile(share));
        assert!(seen.abs_diff(truth) <= truth / 500, "{name}: {seen} in the report, {truth} in the histogram");
    }
    assert!(at("max_ns").abs_diff(histogram.max()) <= histogram.max() / 500);
}

#[test]
fn all_files_are_written_and_agree() {
    let (server, folder) = (honest(), Folder::new());
    let [json, csv, html, hlog] = ["a.json", "a.csv", "a.html", "a.hlog"].map(|name| folder.path(name));
    let files = format!("--json {json} --csv {csv} --html {html} --hlog {hlog}");
    let done = Load::new("echo", &server.url("/"), BRIEF).and(&files).without_json().run();
    assert_eq!(done.code, 0);
    assert!(!done.stdout.trim().is_empty(), "the table is printed when the JSON goes to a file");

    let report = Report::parse(&folder.read("a.json"));
    assert_is_the_histogram(&report, 0, &histogram(report.text("/runs/0/histogram")));
    assert_csv(&folder.read("a.csv"), &report);
    assert_html(&folder.read("a.html"), &report);
    assert_hlog(&folder.read("a.hlog"), &report);
}

fn assert_csv(csv: &str, report: &Report) {
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let intervals = report.at("/runs/0/intervals").as_array().expect("a list");
    assert_eq!(rows.len(), 1 + intervals.len(), "a header and a line for each interval:\n{csv}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "as many fields in each line:\n{csv}");
    for name in ["sent", "received"] {
        let column = rows[0].iter().position(|title| *title == name).unwrap_or_else(|| panic!("no {name}:\n{csv}"));
        let sum: u64 = rows[1..].iter().map(|row| row[column].parse::<u64>().expect("a count")).sum();
        assert_eq!(sum, report.count(&format!("/runs/0/{name}")), "{name}");
        let of_report: u64 = intervals.iter().map(|interval| interval[name].as_u64().expect("a count")).sum();
        assert_eq!(of_report, sum, "{name}");
    }
}

fn assert_html(html: &str, report: &Report) {
    let lower = html.to_lowercase();
    assert!(lower.trim_start().starts_with("<!doctype html>") && lower.trim_end().ends_with("</html>"));
    for tag in ["svg", "table", "body"] {
        let (opened, closed) = (lower.matches(&format!("<{tag}")).count(), lower.matches(&format!("</{tag}>")).count());
        assert!(opened > 0 && opened == closed, "{opened} times <{tag}>, {closed} times </{tag}>");
    }
    // One file: it loads nothing.
    for foreign in ["src=", "<link", "@import", "url(http", "fetch("] {
        assert!(!lower.contains(foreign), "it has {foreign}");
    }
    assert!(html.contains(report.text("/url")), "it does not name the server");
    assert!(!lower.contains("nan") || !lower.contains("\"nan"), "a coordinate is not a number");
}

fn assert_hlog(hlog: &str, report: &Report) {
    let mut total = 0;
    let mut all: Option<Histogram<u64>> = None;
    for entry in IntervalLogIterator::new(hlog.as_bytes()) {
        let entry = entry.unwrap_or_else(|error| panic!("{error:?} in\n{hlog}"));
        if let LogEntry::Interval(interval) = entry {
            let histogram = histogram(interval.encoded_histogram());
            total += histogram.len();
            match &mut all {
                None => all = Some(histogram),
                Some(all) => all.add(histogram).expect("the same bounds"),
            }
        }
    }
    assert_eq!(total, report.count("/runs/0/latency/count"), "latencies in the log");
    assert_is_the_histogram(report, 0, &all.expect("an interval"));
}

#[test]
fn json_on_standard_output_is_all_that_stands_there() {
    let server = honest();
    let done = Load::new("echo", &server.url("/"), BRIEF).run();
    // The parse refuses whatever is not the report.
    let report = done.exits(0);
    assert_eq!(report.text("/scenario"), "echo");
    assert_eq!(report.text("/url"), server.url("/"));
    assert_eq!(*report.at("/interrupted"), false);
    assert!(report.number("/runs/0/elapsed_s") >= 1.5);
    assert!(report.at("/runs/0/server").is_null() && report.at("/held").is_null());
}

#[test]
fn quiet_says_nothing() {
    let server = honest();
    let done = Load::new("echo", &server.url("/"), "-c 2 --count 10 --warm-up 0s -q").without_json().run();
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, "", ""));
}

#[test]
fn the_table_has_the_figures_of_the_report() {
    within_three_attempts(|| {
        let (server, folder) = (honest(), Folder::new());
        let json = folder.path("a.json");
        let load =
            Load::new("echo", &server.url("/"), "-c 4 --rate 1234 -d 1s --warm-up 0s").and("--json").argument(&json);
        let done = load.without_json().alone().run();
        let report = Report::parse(&folder.read("a.json"));
        assert_eq!(report.count("/runs/0/sent"), 1234);
        assert!(
            report.at("/runs/0/client/limit").is_null(),
            "the client was the limit: {}",
            report.at("/runs/0/client")
        );
        let digits: String = done.stdout.chars().filter(|letter| !" ,_'".contains(*letter)).collect();
        assert!(digits.contains("1234"), "{}", done.stdout);
    });
}

#[test]
fn an_assertion_that_holds_changes_nothing() {
    let server = honest();
    let report = Load::new("echo", &server.url("/"), BRIEF).and("--assert p99<10s,errors==0").run().exits(0);
    let assertions = report.at("/assertions").as_array().expect("a list");
    assert_eq!(assertions.len(), 2, "{assertions:?}");
    assert!(assertions.iter().all(|assertion| assertion["holds"] == true), "{assertions:?}");
    assert_eq!(assertions[1]["seen"], 0.0);
}

#[test]
fn an_assertion_that_does_not_hold_is_exit_code_4() {
    let server = honest();
    for broken in ["p99<1us", "p50<1us,errors==0", "errors==0,max<1us"] {
        let load = || Load::new("echo", &server.url("/"), "-c 2 --count 100").and("--assert").argument(broken);
        let report = load().run().exits(4);
        let assertions = report.at("/assertions").as_array().expect("a list");
        let count = assertions.iter().filter(|assertion| assertion["holds"] == false).count();
        assert_eq!(count, 1, "{assertions:?}");
        let done = load().without_json().run();
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(done.code == 4 && said.contains("1us"), "which one does not hold is said:\n{said}");
    }
}

#[test]
fn a_failure_is_said_on_standard_error_when_the_report_goes_elsewhere() {
    let server = honest();
    for words in ["--json -", "-q"] {
        let load = Load::new("echo", &server.url("/"), "-c 2 --count 100 --assert p99<1us").and(words);
        load.without_json().run().fails(&[4], &["p99<1us"]);
    }
}

#[test]
fn errors_are_asserted_as_they_are_counted() {
    let faulty = Faulty::start(Fault::Duplicate, 10);
    let load = Load::new("echo", &faulty.server.url("/"), "-c 2 --count 105 --warm-up 0s --assert errors==0");
    let done = load.run();
    assert!([3, 4].contains(&done.code), "{}", done.code);
    let report = Report::parse(&done.stdout);
    assert_eq!(report.number("/assertions/0/seen"), 10.0);
    assert_eq!((report.at("/assertions/0/holds"), report.at("/ok")), (&false.into(), &false.into()));
}

/// Starts a long run, sends it a signal once it is well under way, and waits for its end.
fn interrupted(server: &Server, words: &str, signal: &str) -> Done {
    let running = Load::new("echo", &server.url("/"), "-c 4 -d 60s --warm-up 0s").and(words).start();
    wait_for("some messages", || server.seen().messages.load(Ordering::SeqCst) > 300);
    running.signal(signal);
    let done = running.wait();
    assert!(done.elapsed < Duration::from_secs(8), "{:?}", done.elapsed);
    done
}

#[test]
fn a_signal_ends_the_run_with_a_report_of_what_was_measured() {
    check_all(&[("--rate 1000", "INT"), ("", "INT"), ("--rate 1000 --driver epoll", "TERM")], |(words, signal)| {
        let server = honest();
        let report = interrupted(&server, words, signal).exits(0);
        assert_eq!(*report.at("/interrupted"), true);
        assert!(report.count("/runs/0/received") > 200, "{words}");
        assert!(report.number("/runs/0/elapsed_s") < 8.0);
        report.has_errors(&[]);
    });
}

#[test]
fn a_signal_does_not_excuse_errors() {
    let faulty = Faulty::start(Fault::Duplicate, 100);
    let report = interrupted(&faulty.server, "--rate 1000", "INT").exits(3);
    assert_eq!(*report.at("/interrupted"), true);
}

#[test]
fn a_signal_during_the_warm_up_ends_the_run_too() {
    let server = honest();
    let running = Load::new("echo", &server.url("/"), "-c 4 -d 60s --warm-up 60s --rate 1000").start();
    wait_for("some messages", || server.seen().messages.load(Ordering::SeqCst) > 100);
    running.signal("INT");
    let done = running.wait();
    assert!(done.elapsed < Duration::from_secs(8), "{:?}", done.elapsed);
    assert!([0, 1].contains(&done.code), "{}", done.code);
}

#[test]
fn a_signal_does_not_wait_for_answers_that_do_not_come() {
    let server = ending_after(100, |session| session.hold());
    let running = Load::new("echo", &server.url("/"), "-c 4 -d 60s --warm-up 0s --answer-timeout 60s").start();
    wait_for("all answers", || server.seen().messages.load(Ordering::SeqCst) == 400);
    running.signal("INT");
    let done = running.wait();
    assert!(done.elapsed < Duration::from_secs(8), "{:?}", done.elapsed);
    let report = Report::parse(&done.stdout);
    assert_eq!((report.at("/interrupted"), report.count("/runs/0/received")), (&true.into(), 400));
}

#[test]
fn a_signal_while_connections_are_opened_ends_the_program() {
    let server = Server::bare(|stream, _| {
        // Until the client leaves.
        let _ = (&*stream).read_to_end(&mut Vec::new());
    });
    let running = Load::new("echo", &server.url("/"), "-c 4 -d 60s --connect-timeout 60s").start();
    wait_for("the connections", || server.seen().connections.load(Ordering::SeqCst) == 4);
    running.signal("INT");
    let done = running.wait();
    assert!(done.elapsed < Duration::from_secs(8), "{:?}", done.elapsed);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_the_run() {
    let server = honest();
    for flag in ["--json", "--csv", "--html", "--hlog"] {
        let load = Load::new("echo", &server.url("/"), "-c 2 -d 8s").and(flag).argument("/no/such/folder/file");
        let done = load.without_json().run();
        done.fails(&[1, 2], &["/no/such/folder/file", "no such file"]);
        assert!(done.elapsed < Duration::from_secs(4), "{flag} is seen only after {:?}", done.elapsed);
    }
}

#[test]
fn two_reports_are_compared() {
    let folder = Folder::new();
    let slow = crate::answers::Delaying::start(vec![Duration::from_millis(5)]);
    let fast = honest();
    for (server, name) in [(&fast, "fast.json"), (&slow.server, "slow.json")] {
        let json = folder.path(name);
        let load = Load::new("echo", &server.url("/"), "-c 4 -d 500ms --warm-up 100ms -q --json").argument(json);
        assert_eq!(load.without_json().run().code, 0);
    }
    let done =
        Load::new("compare", &folder.path("fast.json"), "").argument(folder.path("slow.json")).without_json().run();
    assert_eq!(done.code, 0);
    assert!(done.stdout.contains("p99"), "{}", done.stdout);
    let missing = Load::new("compare", &folder.path("fast.json"), "").argument(folder.path("none.json")).without_json();
    missing.run().fails(&[1, 2], &["none.json"]);
    fs::write(folder.path("other.json"), "{\"schema\": \"other/1\"}").expect("a writable folder");
    let other = Load::new("compare", &folder.path("fast.json"), "").argument(folder.path("other.json")).without_json();
    other.run().fails(&[1, 2], &["other.json"]);
}
