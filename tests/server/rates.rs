//! Rates of messages and bytes: whoever sends more is held back without loss, or closed.

use crate::support::{Client, Ended, Received, TestServer};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCause, CloseCode, Rate, RateAnswer, SessionOptions};
use std::io::Write;
use std::time::{Duration, Instant};

/// What one turn may have received before it sees that it is too much: it is owed, and over a longer time it evens out.
const AHEAD_BYTES: usize = 512 * KIB;

fn server(options: SessionOptions) -> (TestServer, crate::support::Reports) {
    TestServer::rig(|config| {
        config.settings.session = options;
        config.settings.ping_interval = Some(Duration::from_millis(200));
        config.settings.pong_timeout = Duration::from_millis(400);
    })
}

/// Sends all that is ready from another thread, which is held back with it.
fn pour(client: &mut Client) -> std::thread::JoinHandle<()> {
    let wire = client.take_out();
    let mut stream = client.stream.try_clone().expect("a descriptor is free");
    std::thread::spawn(move || stream.write_all(&wire).expect("the server takes it in time"))
}

/// Reads the echo of each, in order. Answers when each came.
#[track_caller]
fn echoes(client: &mut Client, count: usize, bytes: usize) -> Vec<Instant> {
    let mut times = Vec::new();
    while times.len() < count {
        match client.next() {
            Received::Binary(echo) => {
                let number = times.len() as u32;
                assert!(echo.len() == bytes && echo[..4] == number.to_be_bytes(), "not the echo of {number}");
                times.push(Instant::now());
            }
            Received::Ping(payload) => client.put_pong(&payload).flush(),
            other => panic!("an echo was expected, not {other:?}"),
        }
    }
    times
}

fn put_numbered(client: &mut Client, count: usize, bytes: usize) {
    let mut message = vec![0; bytes];
    for number in 0..count as u32 {
        message[..4].copy_from_slice(&number.to_be_bytes());
        client.put(&message);
    }
}

#[test]
fn whoever_is_held_back_loses_nothing_and_is_no_faster_than_its_rate() {
    let messages = Rate { per_second: 1_000, burst: 100 };
    let bytes = Rate { per_second: 2 * MIB as u32, burst: 256 * KIB as u32 };
    let table = [
        // Messages of so many bytes, limited by one rate or the other; how many pass in two seconds, and at once.
        (Some(messages), None, 2_000, 2_000, 100 + AHEAD_BYTES / 2_000),
        (None, Some(bytes), 4_000, 2 * (2 * MIB) / 4_008, (256 * KIB + AHEAD_BYTES) / 4_008),
    ];
    for (message_rate, byte_rate, size, in_two_seconds, at_once) in table {
        let (server, _reports) = server(SessionOptions { message_rate, byte_rate, ..SessionOptions::default() });
        let mut client = server.client("/eager");
        // In three seconds, so that in two it is not at its end.
        let count = in_two_seconds * 3 / 2;
        put_numbered(&mut client, count, size);
        let start = Instant::now();
        let writer = pour(&mut client);
        // Another one has its own bucket, and is not held back.
        let mut other = server.client("/other");
        for _ in 0..20 {
            other.echo("x");
        }
        let other_took = start.elapsed();
        drop(other);
        let times = echoes(&mut client, count, size);
        writer.join().expect("all of it is taken");
        let in_time = times.iter().filter(|at| **at - start <= Duration::from_secs(2)).count();
        println!(
            "{in_time} of {in_two_seconds} in two seconds, all {count} in {:?}",
            *times.last().expect("many") - start
        );
        assert!(in_time >= in_two_seconds * 9 / 10, "{in_time} messages");
        assert!(in_time <= in_two_seconds * 11 / 10 + at_once, "{in_time} messages");
        assert!(other_took < Duration::from_secs(1), "{other_took:?}");
        let stats = server.stats();
        assert!(stats.sessions_throttled > 0);
        assert_eq!(stats.ended_pong_timeout, 0, "whoever is not listened to may be silent");
    }
}

#[test]
fn a_burst_passes_at_once() {
    let rate = Rate { per_second: 10, burst: 50 };
    let (server, _reports) = server(SessionOptions { message_rate: Some(rate), ..SessionOptions::default() });
    let mut client = server.client("/burst");
    put_numbered(&mut client, 50, 10);
    client.flush();
    echoes(&mut client, 50, 10);
    assert_eq!(server.stats().sessions_throttled, 0);
}

#[test]
fn whoever_may_not_wait_is_closed_with_1008() {
    let rate = Rate { per_second: 10, burst: 20 };
    let all = SessionOptions { rate_answer: RateAnswer::Close, ..SessionOptions::default() };
    let table = [
        (SessionOptions { message_rate: Some(rate), ..all }, 10),
        (SessionOptions { byte_rate: Some(Rate { per_second: 1_000, burst: 2_000 }), ..all }, 200),
    ];
    for (options, size) in table {
        let (server, reports) = server(options);
        let mut within = server.client("/within");
        put_numbered(&mut within, 8, size);
        within.flush();
        echoes(&mut within, 8, size);
        let mut beyond = server.client("/beyond");
        put_numbered(&mut beyond, 40, size);
        beyond.flush();
        let mut echoed = 0;
        loop {
            match beyond.next() {
                Received::Binary(_) => echoed += 1,
                other => {
                    assert_eq!(other, Received::close(1008, "more than its rate allows"));
                    break;
                }
            }
        }
        assert!(echoed <= 40);
        beyond.put_close(None).flush();
        assert_eq!(beyond.next(), Received::End(Ended::Orderly));
        let (name, ended) = reports.closed();
        assert_eq!(
            (name.as_str(), ended.cause, ended.code),
            ("beyond", CloseCause::RateExceeded, Some(CloseCode::POLICY_VIOLATION))
        );
        let stats = server.stats();
        assert_eq!((stats.ended_rate_exceeded, stats.sessions_throttled, stats.sessions), (1, 1, 1));
    }
}

/// Each time it is held back, the shard plans to look at it again: one such plan is left, not one for each time.
#[test]
fn whoever_is_held_back_again_and_again_leaves_nothing_behind() {
    let rate = Rate { per_second: 500, burst: 1 };
    let (server, _reports) = TestServer::rig(|config| {
        config.settings.session.message_rate = Some(rate);
        config.settings.ping_interval = None;
    });
    let mut client = server.client("/eager");
    // The second of two that come together is held back, however slow the client is.
    for _ in 0..100 {
        put_numbered(&mut client, 2, 10);
        client.flush();
        echoes(&mut client, 2, 10);
    }
    let stats = server.stats();
    assert!(stats.sessions_throttled >= 100, "held back {} times", stats.sessions_throttled);
    assert!(stats.timers <= 4, "{} timers", stats.timers);
}
