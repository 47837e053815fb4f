//! Latencies are those that the server gave: percentiles of a known distribution, and a stall that only an open loop
//! shows.
//!
//! # What is the truth
//! The server sleeps by a pattern, and a loaded machine makes it sleep longer. So the pattern says which percentile is
//! which delay, and what the server measured itself, from the read to the write of each message, is what the report is
//! held against: not below it by more than the histogram's three digits, and not above it by more than 2 % and
//! [`ON_THE_WAY`]: the message's way to the server's thread and the answer's way to the client's. No edge between two
//! delays of the pattern stands near a percentile that is compared, so a message or two that trade places move nothing.

use crate::answers::{Delaying, stalling};
use crate::program::{Load, Report, within_three_attempts};
use crate::server::Server;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Two wake-ups and the loopback, on two cores that others use too.
const ON_THE_WAY: Duration = Duration::from_micros(150);
/// The most by which a single message, the slowest, may have waited for a core on its way.
const ON_THE_WAY_MAX: Duration = Duration::from_millis(5);

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Of 1 000 messages 900 take 10 ms, 80 take 40 ms, 17 take 100 ms and 3 take 200 ms, well mixed: p50 is 10 ms, p95
/// 40 ms, p99 100 ms, p99.9 and the maximum 200 ms.
fn pattern() -> Vec<Duration> {
    // 389 and 1 000 have no common divisor: every place is met once.
    let place = |index: usize| match index * 389 % 1000 {
        0..900 => millis(10),
        900..980 => millis(40),
        980..997 => millis(100),
        _ => millis(200),
    };
    (0..1000).map(place).collect()
}

const PERCENTILES: [(&str, f64, u64); 4] =
    [("p50_ns", 0.5, 10), ("p95_ns", 0.95, 40), ("p99_ns", 0.99, 100), ("p999_ns", 0.999, 200)];

/// The report's figures are those of `took`, which is in ascending order.
fn assert_latency_is(report: &Report, took: &[Duration]) {
    assert_eq!(report.count("/runs/0/latency/count"), took.len() as u64, "latencies");
    let assert_close = |name: &str, seen: Duration, truth: Duration, on_the_way: Duration| {
        let (low, high) = (truth.mul_f64(0.999), truth.mul_f64(1.02) + on_the_way);
        assert!(low <= seen && seen <= high, "{name} is {seen:?}; the server took {truth:?}");
    };
    for (name, share, delay) in PERCENTILES {
        let truth = took[(share * took.len() as f64).ceil() as usize - 1];
        assert!((millis(delay)..millis(delay * 3 / 2)).contains(&truth), "{name}: the server took {truth:?}");
        assert_close(name, report.nanos(&format!("/runs/0/latency/{name}")), truth, ON_THE_WAY);
    }
    let (least, most) = (took[0], took[took.len() - 1]);
    assert_close("min_ns", report.nanos("/runs/0/latency/min_ns"), least, ON_THE_WAY);
    assert_close("max_ns", report.nanos("/runs/0/latency/max_ns"), most, ON_THE_WAY_MAX);
    let mean = took.iter().sum::<Duration>() / took.len() as u32;
    let seen = Duration::from_secs_f64(report.number("/runs/0/latency/mean_ns") / 1e9);
    assert_close("mean_ns", seen, mean, ON_THE_WAY);
}

#[test]
fn a_closed_loop_has_the_percentiles_that_the_server_had() {
    within_three_attempts(|| {
        let delaying = Delaying::start(pattern());
        // 24 messages at a time, 14.5 ms each: 1 600 a second.
        let load = Load::new("echo", &delaying.server.url("/"), "-c 24 --warm-up 0s --count 3000").alone();
        let report = load.run().exits(0);
        assert_eq!(report.text("/setup/loop"), "closed");
        report.has_errors(&[]);
        assert_latency_is(&report, &delaying.took());
    });
}

#[test]
fn an_open_loop_without_a_stall_has_the_percentiles_that_the_server_had() {
    within_three_attempts(|| {
        let delaying = Delaying::start(pattern());
        // Each connection has a message every 300 ms, which even the slowest answer does not hold up.
        let words = "-c 360 --rate 1200 --warm-up 0s --count 2400";
        let report = Load::new("echo", &delaying.server.url("/"), words).alone().run().exits(0);
        assert_eq!(report.text("/setup/loop"), "open");
        report.has_errors(&[]);
        assert_latency_is(&report, &delaying.took());
    });
}

/// One answer in 2 000 is 100 ms late, and all that stand behind it wait with it.
fn stalling_server() -> Server {
    stalling(2000, millis(100))
}

#[test]
fn an_open_loop_shows_a_stall_to_all_who_would_have_met_it() {
    within_three_attempts(|| {
        let server = stalling_server();
        // Three stalls, each of which 300 messages meet: 13.8 % of all. Their waits are evenly spread from 100 ms to
        // nothing, so that p95 is 64 ms, and p99.9 all but a hundredth of a stall.
        let words = "-c 1 --rate 3000 --warm-up 0s --count 6500";
        let report = Load::new("echo", &server.url("/"), words).alone().run().exits(0);
        report.has_errors(&[]);
        let [p50, p95, p999, max] =
            ["p50", "p95", "p999", "max"].map(|name| report.nanos(&format!("/runs/0/latency/{name}_ns")));
        assert!(p50 < millis(10), "p50 is {p50:?}");
        assert!((millis(58)..millis(74)).contains(&p95), "p95 is {p95:?}");
        assert!((millis(90)..millis(125)).contains(&p999), "p99.9 is {p999:?}");
        assert!((millis(99)..millis(150)).contains(&max), "the maximum is {max:?}");
    });
}

#[test]
fn a_closed_loop_hides_the_same_stall_and_says_that_it_may() {
    within_three_attempts(|| {
        let server = stalling_server();
        // One message in 2 000 meets a stall, however many there are: half of what p99.9 looks at.
        let load = Load::new("echo", &server.url("/"), "-c 1 --warm-up 0s --count 10500").alone();
        let report = load.run().exits(0);
        let p999 = report.nanos("/runs/0/latency/p999_ns");
        assert!(p999 < millis(25), "p99.9 is {p999:?}");
        assert!(report.nanos("/runs/0/latency/max_ns") >= millis(100));

        let done = Load::new("echo", &server.url("/"), "-c 1 -d 200ms --warm-up 0s").without_json().run();
        let said = format!("{}{}", done.stdout, done.stderr).to_lowercase();
        assert!(said.contains("closed loop"), "it does not say what kind of loop this is: {said}");
    });
}

#[test]
fn the_warm_up_is_not_measured() {
    within_three_attempts(|| {
        // Slow for the first 400 ms, as a server is that has yet to compile what it runs.
        let (began, came) = (OnceLock::new(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&came);
        let server = Server::websocket(move |mut session| {
            while let Ok(message) = session.next() {
                counted.fetch_add(1, Ordering::SeqCst);
                if began.get_or_init(Instant::now).elapsed() < millis(400) {
                    std::thread::sleep(millis(30));
                }
                session.outlet.send(&message);
            }
        });
        let words = "-c 40 --rate 1000 --warm-up 600ms -d 1s";
        let report = Load::new("echo", &server.url("/"), words).alone().run().exits(0);
        assert_eq!(report.count("/runs/0/sent"), 1000);
        let before = came.load(Ordering::SeqCst) - 1000;
        assert!((598..=602).contains(&before), "{before} messages in the warm-up");
        let max = report.nanos("/runs/0/latency/max_ns");
        assert!(max < millis(25), "the maximum is {max:?}");
    });
}
