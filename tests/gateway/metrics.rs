//! What `/metrics` and `/readyz` say, after traffic that is known.

use crate::process::Process;
use crate::support::{Received, upgrade_with};
use std::io::{Read, Write};
use std::net::Shutdown;

#[test]
fn metrics_count_what_happened() {
    let server = Process::start(&["--shards", "2"]);
    let mut stays = server.client("/echo");
    for _ in 0..5 {
        stays.echo("back to me");
    }
    server.client("/echo").close();
    let mut breaks_a_rule = server.client("/echo");
    // An opcode that is reserved.
    breaks_a_rule.put_ping(b"");
    let mut frame = breaks_a_rule.take_out();
    frame[0] = 0x8b;
    breaks_a_rule.stream.write_all(&frame).expect("the server takes it");
    assert_eq!(breaks_a_rule.next(), Received::close(1002, "reserved opcode"));
    let goes = server.client("/echo");
    goes.stream.shutdown(Shutdown::Both).expect("it is connected");
    let mut subscribers: Vec<_> = (0..8).map(|_| server.client("/ws?topic=news&topic=more")).collect();
    subscribers[0].send("to both topics");
    for subscriber in &mut subscribers {
        assert_eq!((subscriber.text(), subscriber.text()), ("to both topics".to_owned(), "to both topics".to_owned()));
    }

    server.await_metric("ringwave_sessions", 9);
    let metrics = server.metrics();
    assert_eq!(metrics.get("ringwave_sessions_opened_total"), 12);
    for (cause, count) in [("peer_closed", 1), ("protocol", 1), ("peer_gone", 1), ("closed", 0), ("slow_consumer", 0)] {
        assert_eq!(metrics.get(&format!("ringwave_sessions_ended_total{{cause=\"{cause}\"}}")), count, "{cause}");
    }
    assert_eq!(metrics.sum("ringwave_sessions_ended_total"), 3);
    assert_eq!(metrics.get("ringwave_messages_received_total"), 6);
    assert_eq!(metrics.get("ringwave_messages_sent_total"), 5 + 16);
    assert_eq!(metrics.sum("ringwave_messages_dropped_total"), 0);
    assert!((2..=4).contains(&metrics.get("ringwave_topics")), "two on each shard that has subscribers");
    assert!(metrics.get("ringwave_received_bytes_total") > 0 && metrics.get("ringwave_sent_bytes_total") > 0);
    assert_eq!(metrics.get("ringwave_draining"), 0);
    assert_eq!(metrics.get(&format!("ringwave_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1);
    assert!(metrics.get("process_resident_memory_bytes") > 1 << 20);
    assert!(metrics.get("process_start_time_seconds") > 1_700_000_000);
}

/// What a client publishes faster than another shard takes it waits, and pushes out nothing there.
#[test]
fn a_client_that_publishes_much_comes_ahead_of_no_other_shard() {
    const MESSAGES: usize = 4_000;
    const TOPICS: usize = 64;
    let server = Process::start(&["--shards", "2"]);
    let topics: String = (0..TOPICS).map(|number| format!("&topic={number}")).collect();
    let mut publisher = server.client(&format!("/ws?{topics}"));
    for _ in 0..MESSAGES {
        publisher.put("x");
    }
    let wire = publisher.take_out();
    let mut stream = publisher.stream.try_clone().expect("a descriptor is free");
    let writer = std::thread::spawn(move || stream.write_all(&wire).expect("the server takes it in time"));
    // Its own copies, three bytes each: when all have come, all has been published.
    let mut copies = vec![0; MESSAGES * TOPICS * 3];
    publisher.stream.read_exact(&mut copies).expect("it is subscribed to all of them");
    writer.join().expect("all of it is taken");
    assert_eq!(server.metrics().sum("ringwave_posts_dropped_total"), 0);
}

#[test]
fn what_a_full_queue_drops_is_counted_by_policy() {
    for (policy, reason) in [("drop-new", "new"), ("drop-old", "old"), ("conflate", "conflated")] {
        let server = Process::start(&["--shards", "1", "--send-queue", "64KiB", "--slow-consumer", policy]);
        let _does_not_read = server.client("/ws?topic=t");
        let mut publisher = server.client("/ws?topic=t");
        let message = vec![7; 32 * 1024];
        let dropped = format!("ringwave_messages_dropped_total{{via=\"publish\",reason=\"{reason}\"}}");
        let mut published = 0;
        while server.metrics().get(&dropped) == 0 {
            for _ in 0..64 {
                publisher.echo(&message);
                published += 1;
            }
            assert!(published < 100_000, "nothing is dropped");
        }
        let metrics = server.metrics();
        assert_eq!(metrics.sum("ringwave_messages_dropped_total"), metrics.get(&dropped), "{policy}");
        // One that was let go of later had been taken first.
        let refused = if policy == "drop-new" { metrics.get(&dropped) } else { 0 };
        assert_eq!(metrics.get("ringwave_messages_sent_total") + refused, 2 * published, "{policy}");
        assert_eq!(metrics.get("ringwave_sessions"), 2);
    }
}

#[test]
fn refusals_are_counted_by_reason() {
    for (flag, value, reason, status) in [
        ("--max-connections", "2", "full", 503),
        ("--max-per-address", "2", "address", 429),
        ("--handshake-rate", "1/2", "rate", 503),
    ] {
        let server = Process::start(&["--shards", "1", flag, value]);
        let _sessions = [server.client("/echo"), server.client("/echo")];
        let answer = server.raw().write(upgrade_with("/echo", "")).answer();
        assert_eq!(answer.status, status, "{flag}");
        assert!(answer.header("Retry-After").is_some(), "{flag}");
        let metrics = server.metrics();
        assert_eq!(metrics.get(&format!("ringwave_sessions_refused_total{{reason=\"{reason}\"}}")), 1);
        assert_eq!(metrics.sum("ringwave_sessions_refused_total"), 1);
    }
}

/// An upgrade that the application refuses opens nothing, and takes nothing from the rate.
#[test]
fn only_what_is_opened_counts_for_the_rate() {
    let server = Process::start(&["--shards", "1", "--handshake-rate", "1/2"]);
    for _ in 0..20 {
        assert_eq!(server.raw().write(upgrade_with("/nowhere", "")).answer().status, 404);
    }
    let _sessions = [server.client("/echo"), server.client("/echo")];
    assert_eq!(server.raw().write(upgrade_with("/echo", "")).answer().status, 503);
}

#[test]
fn readiness_ends_when_the_drain_begins_and_life_goes_on() {
    let server = Process::start(&["--shards", "1", "--drain-window", "2s"]);
    let _sessions: Vec<_> = (0..20).map(|_| server.client("/echo")).collect();
    let mut prober = server.raw();
    let mut probe = |path: &str| {
        let answer = prober.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).answer();
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        (answer.status, answer.body)
    };
    assert_eq!(probe("/readyz"), (200, "ready\n".to_owned()));
    server.signal("TERM");
    let mut ready = probe("/readyz");
    while ready.0 == 200 {
        ready = probe("/readyz");
    }
    assert_eq!(ready, (503, "draining\n".to_owned()));
    assert_eq!(probe("/livez"), (200, "ok\n".to_owned()));
}
