//! Stalled readers: what they miss and whom they hold up.

use crate::hub::{Delivery, Hub};
use crate::program::Load;
use crate::server::Server;

/// 150 messages of 128 KiB are more than the sockets between server and client hold.
fn slow_reader(server: &Server, words: &str) -> Load {
    Load::new("slow-reader", &server.url("/room"), "-c 8 --rate 100 -s 128KiB -d 1500ms --warm-up 200ms").and(words)
}

#[test]
fn a_server_with_a_queue_for_each_holds_nobody_up() {
    let (server, _) = Hub::start(Delivery::Queued);
    let report = slow_reader(&server, "--stalled 2").run().exits(0);
    assert_eq!(report.count("/stalled/readers"), 2);
    assert_eq!(report.count("/stalled/ended_by_server"), 0);
    let [expected, received, missed] =
        ["expected", "received", "missed"].map(|name| report.count(&format!("/stalled/{name}")));
    assert!(expected >= 2 * 145, "{expected}");
    assert_eq!(expected, received + missed);
    assert_eq!(missed, 0, "the server keeps all that a stalled reader has not read");
}

#[test]
fn a_server_that_drops_stalled_readers_is_seen_to() {
    let (server, hub) = Hub::start(Delivery::Bounded(20));
    let report = slow_reader(&server, "--stalled 2").run();
    assert!([0, 3].contains(&report.code), "{}", report.code);
    let report = crate::program::Report::parse(&report.stdout);
    assert_eq!(hub.dropped(), 2);
    assert_eq!(report.count("/stalled/ended_by_server"), 2);
    assert!(report.count("/stalled/missed") > 0);
}

#[test]
fn a_server_that_waits_for_its_slowest_reader_is_found_out() {
    let (server, _) = Hub::start(Delivery::InTurn);
    let done = slow_reader(&server, "--stalled 1 --answer-timeout 1s").run();
    let report = crate::program::Report::parse(&done.stdout);
    // All wait until the stalled one reads: their messages are late by seconds, or given up.
    let lost: u64 = (0..report.run_count()).map(|run| report.errors_of(run).get("lost").copied().unwrap_or(0)).sum();
    let ratio = report.at("/stalled/p99_ratio").as_f64();
    assert!(lost > 0 || ratio.is_some_and(|ratio| ratio > 10.0), "{lost} lost, p99 {ratio:?} times as long");
}

#[test]
fn deliveries_that_are_on_their_way_between_the_two_parts_are_no_errors() {
    let (server, hub) = Hub::start(Delivery::Queued);
    let words = "-c 2 --stalled 40 --rate 200 -s 4KiB -d 400ms --warm-up 100ms";
    for _ in 0..3 {
        let report = Load::new("slow-reader", &server.url("/room"), words).run().exits(0);
        assert!(report.errors_of(0).is_empty() && report.errors_of(1).is_empty());
        assert_eq!(report.count("/stalled/missed"), 0);
    }
    assert!(hub.published() > 3 * 200);
}
