//! Every delivery is counted, every wrong one once and under its own name, and nobody sends what he was not told to.

use crate::answers::Fault;
use crate::hub::{Delivery, Hub};
use crate::program::{Load, check_all, within_three_attempts};
use crate::server::{Server, wait_for};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn fanout(server: &Server, words: &str) -> Load {
    let publish = format!("--publish-url {}", server.url("/room/publish"));
    Load::new("fanout", &server.url("/room"), "--warm-up 0s").and(&publish).and(words)
}

#[test]
fn every_delivery_is_counted() {
    let table = [
        (10, 300, "--rate 1000"),
        (10, 300, "--publishers 3 --text"),
        (6, 302, "--burst 5"),
        (7, 300, "--publishers 4 -w 3 --driver epoll"),
        (3, 100, "--publishers 2 --rate 300 --arrivals poisson --threads 3"),
    ];
    for (subscribers, count, words) in table {
        let (server, hub) = Hub::start(Delivery::Queued);
        let load = fanout(&server, &format!("-c {subscribers} --count {count}"));
        let report = load.and(words).run().exits(0);
        report.has_errors(&[]);
        assert_eq!((hub.published(), report.count("/runs/0/sent")), (count, count), "{words}");
        let deliveries = subscribers * count;
        assert_eq!((hub.delivered(), report.count("/runs/0/received")), (deliveries, deliveries), "{words}");
        assert_eq!(report.count("/runs/0/latency/count"), deliveries, "{words}");
    }
}

#[test]
fn publishers_may_be_on_the_subscribers_path() {
    let (server, hub) = Hub::start(Delivery::Queued);
    let words = "-c 5 --publishers 2 --count 200 --rate 500 --warm-up 0s";
    let report = Load::new("fanout", &server.url("/room"), words).run().exits(0);
    assert_eq!((hub.published(), report.count("/runs/0/received")), (200, 1000));
    report.has_errors(&[]);
}

#[test]
fn wrong_deliveries_are_counted_by_name() {
    let table = [
        (Fault::Lose, "lost"),
        (Fault::Duplicate, "duplicated"),
        (Fault::Swap, "reordered"),
        (Fault::Corrupt(3), "corrupted"),
        (Fault::Corrupt(90), "corrupted"),
        (Fault::Truncate, "corrupted"),
        (Fault::OtherKind, "corrupted"),
    ];
    let rows: Vec<_> =
        ["--publishers 1", "--publishers 3 --text"].iter().flat_map(|words| table.map(|row| (words, row))).collect();
    check_all(&rows, |(words, (fault, name))| {
        // 3 030 deliveries, 29 with a fault; none of them among the last.
        let (server, hub) = Hub::faulty(*fault, 103);
        let load = fanout(&server, "-c 10 --rate 600 --count 303 --answer-timeout 700ms").and(words);
        let report = load.run().exits(3);
        eprintln!("{fault:?}, {words}: {} faults", hub.injected());
        assert_eq!(hub.injected(), 29, "{fault:?}");
        report.has_errors(&[(name, 29)]);
    });
}

#[test]
fn deliveries_have_the_latency_that_the_server_gave_them() {
    within_three_attempts(|| {
        let (server, _) = Hub::delaying(Duration::from_millis(30));
        // From two publishers, each with a message every 50 ms.
        let load = fanout(&server, "-c 4 --publishers 2 --rate 40 --count 60").alone();
        let report = load.run().exits(0);
        assert_eq!(report.text("/setup/loop"), "open");
        let [min, p50, p95] = ["min", "p50", "p95"].map(|name| report.nanos(&format!("/runs/0/latency/{name}_ns")));
        let slept = Duration::from_millis(30);
        assert!(min >= slept.mul_f64(0.999), "the least latency is {min:?}");
        assert!(p50 <= slept.mul_f64(1.02) + Duration::from_millis(1), "p50 is {p50:?}");
        assert!(p95 <= slept.mul_f64(1.02) + Duration::from_millis(5), "p95 is {p95:?}");
    });
}

#[test]
fn every_subscriber_says_what_it_was_told_to_say_first() {
    let (server, hub) = Hub::start(Delivery::Queued);
    let load = fanout(&server, "-c 7 --count 50 --rate 200").and("--on-open").argument("hello from a subscriber");
    load.run().exits(0);
    assert_eq!(hub.greetings(), vec!["hello from a subscriber"; 7]);
    wait_for("the end of all", || {
        let seen = server.seen();
        let ended = [&seen.closed, &seen.dropped, &seen.reset].map(|count| count.load(Ordering::SeqCst));
        ended.iter().sum::<u64>() == seen.upgrades.load(Ordering::SeqCst)
    });
}
