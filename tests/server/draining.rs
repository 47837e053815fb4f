//! Ends in order: goodbyes over a window, a deadline for those who do not answer, and nobody else let in.

use crate::support::{Client, DEADLINE, Ended, Received, Report, TestServer, eventually, upgrade_with};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCause, CloseCode, Drain};
use socket2::SockRef;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What the scheduler of a busy machine may add.
const SLACK: Duration = Duration::from_millis(400);

const REASON: &str = "back in a minute";

/// An end with nothing left to chance: each test changes what it is about.
fn drain() -> Drain {
    Drain { window: Duration::ZERO, deadline: DEADLINE, code: CloseCode::SERVICE_RESTART, reason: REASON.to_owned() }
}

/// Waits for the goodbye of each, and answers after how long each came; those that `answer` answer it.
#[track_caller]
fn goodbyes(clients: &mut [Client], start: Instant, answer: bool) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let waiting: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    assert_eq!(client.next(), Received::close(1012, REASON));
                    let after = start.elapsed();
                    if answer {
                        client.put_close(Some((1012, ""))).flush();
                        assert_eq!(client.next(), Received::End(Ended::Orderly));
                    }
                    after
                })
            })
            .collect();
        waiting.into_iter().map(|thread| thread.join().expect("it is told")).collect()
    })
}

#[test]
fn goodbyes_are_spread_over_the_window_on_every_shard() {
    const WINDOW: Duration = Duration::from_secs(2);
    let (server, reports) = TestServer::rig(|config| config.shards = 2);
    let mut clients: Vec<_> = (0..100).map(|_| server.client("/x")).collect();
    assert!(server.handle().shard_stats().all(|shard| shard.sessions > 0), "both shards have some");
    assert!(!server.handle().is_draining());
    let start = Instant::now();
    server.handle().drain(&Drain { window: WINDOW, ..drain() });
    assert!(server.handle().is_draining());
    let times = goodbyes(&mut clients, start, true);
    assert!(times.iter().all(|after| *after < WINDOW + SLACK), "{times:?}");
    // In halves: a machine that others use too may hold everything up for a good while.
    let early = times.iter().filter(|after| **after < WINDOW / 2).count();
    assert!((20..80).contains(&early), "{early} of 100 within the first half of {WINDOW:?}");
    assert!(server.handle().is_draining());
    for _ in 0..100 {
        let (_, ended) = reports.closed();
        assert_eq!((ended.cause, ended.code), (CloseCause::Closed, Some(CloseCode::SERVICE_RESTART)));
    }
    let stats = server.stats();
    assert_eq!((stats.ended_closed, stats.draining), (100, 2), "both shards");
}

#[test]
fn a_later_call_brings_everything_nearer_and_puts_nothing_off() {
    let long = Duration::from_secs(600);
    let table = [
        // The window and the deadline of the first call, those of the second, and when all have heard.
        ((long, DEADLINE), (Duration::ZERO, 2 * DEADLINE), Duration::ZERO),
        ((Duration::from_millis(600), 2 * DEADLINE), (long, DEADLINE), Duration::from_millis(600)),
        ((long, 2 * DEADLINE), (Duration::from_millis(500), 2 * DEADLINE), Duration::from_millis(500)),
    ];
    for ((window, deadline), (later_window, later_deadline), heard) in table {
        let (server, _reports) = TestServer::rig(|_| {});
        let mut clients: Vec<_> = (0..40).map(|_| server.client("/x")).collect();
        let start = Instant::now();
        server.handle().drain(&Drain { window, deadline, ..drain() });
        eventually("it has seen the first", || server.stats().draining == 1);
        server.handle().drain(&Drain { window: later_window, deadline: later_deadline, ..drain() });
        let times = goodbyes(&mut clients, start, true);
        assert!(times.iter().all(|after| *after < heard + SLACK), "{heard:?}: {times:?}");
    }
}

#[test]
fn a_later_call_does_not_undo_one_that_was_not_seen_yet() {
    let (server, reports) = TestServer::rig(|config| config.settings.close_timeout = 10 * DEADLINE);
    let mut client = server.client("/silent");
    client.send("sleep 300");
    eventually("it is asleep", || server.stats().messages_received == 1);
    let start = Instant::now();
    server.handle().drain(&Drain { deadline: Duration::from_millis(500), ..drain() });
    server.handle().shutdown(10 * DEADLINE);
    assert_eq!(reports.closed().1.cause, CloseCause::Shutdown);
    assert!(start.elapsed() < Duration::from_millis(800) + SLACK, "{:?}", start.elapsed());
}

#[test]
fn the_deadline_cuts_those_who_do_not_answer_and_close_timeout_may_before_it() {
    let patience = Duration::from_millis(500);
    let table = [
        // close_timeout, and what becomes of the silent: after how long.
        (10 * DEADLINE, CloseCause::Shutdown, patience),
        (Duration::from_millis(100), CloseCause::CloseTimeout, Duration::from_millis(100)),
    ];
    for (close_timeout, cause, after) in table {
        let (server, reports) = TestServer::rig(|config| {
            config.shards = 2;
            config.settings.close_timeout = close_timeout;
        });
        let handle = server.handle();
        let mut silent: Vec<_> = (0..20).map(|_| server.client("/silent")).collect();
        let mut polite: Vec<_> = (0..20).map(|_| server.client("/polite")).collect();
        let start = Instant::now();
        handle.drain(&Drain { deadline: patience, ..drain() });
        goodbyes(&mut polite, start, true);
        goodbyes(&mut silent, start, false);
        for client in &mut silent {
            assert!(matches!(client.next(), Received::End(_)));
        }
        let passed = start.elapsed();
        assert!(passed + Duration::from_millis(10) >= after && passed < after + SLACK, "{passed:?}");
        server.end(DEADLINE).expect("it ends in order");
        for (name, ended) in reports.ends() {
            let expected = if name == "silent" { &cause } else { &CloseCause::Closed };
            assert_eq!((&ended.cause, ended.code), (expected, Some(CloseCode::SERVICE_RESTART)), "{name}");
        }
        let stats = handle.stats();
        let cut = stats.ended_shutdown + stats.ended_close_timeout;
        assert_eq!((stats.ended_closed, cut, stats.sessions), (20, 20, 0));
        assert_eq!(stats.ended_shutdown > 0, cause == CloseCause::Shutdown);
    }
}

#[test]
fn a_long_queue_is_sent_before_the_goodbye() {
    const BYTES: usize = 20 * MIB;
    let (server, reports) = TestServer::rig(|_| {});
    let mut client = server.client("/busy");
    SockRef::from(&client.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
    client.put(&format!("send {BYTES}")).put("send 3").put("x").flush();
    eventually("all is queued", || server.stats().messages_sent == 3);
    server.handle().drain(&drain());
    eventually("it drains", || server.stats().draining == 1);
    assert!(server.stats().bytes_sent < BYTES as u64, "it was all sent already");
    assert!(client.next() == Received::Binary(vec![b's'; BYTES]));
    assert_eq!(client.next(), Received::Binary(vec![b's'; 3]));
    assert_eq!(client.text(), "x");
    assert_eq!(client.next(), Received::close(1012, REASON));
    client.put_close(None).flush();
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    assert_eq!(reports.closed().1.cause, CloseCause::Closed);
}

#[test]
fn nobody_is_let_in_and_those_who_wait_for_a_request_are_let_go() {
    for shards in [1, 2] {
        let (server, reports) = TestServer::rig(|config| config.shards = shards);
        let handle = server.handle();
        let mut open = [server.client("/open"), server.client("/paused")];
        open[1].send("pause");
        let upgrade = upgrade_with("/late", "");
        let mut waiting: Vec<_> = (0..5).map(|_| server.raw()).collect();
        for (number, raw) in waiting.iter_mut().enumerate() {
            match number {
                0 => {}
                1 => drop(raw.write(&upgrade[..upgrade.len() - 1])),
                2 => drop(raw.write("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf")),
                // It is kept alive.
                _ => assert_eq!(raw.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").answer().status, 200),
            }
        }
        eventually("all are accepted", || server.stats().connections == 7);
        eventually("and have been read", || server.stats().messages_received == 1);
        handle.drain(&drain());
        for raw in &mut waiting {
            let (bytes, _) = raw.rest();
            assert_eq!(bytes, b"");
        }
        goodbyes(&mut open[..], Instant::now(), false);
        eventually("every shard has heard", || handle.stats().draining == shards as u64);
        let refused = TcpStream::connect(server.address()).expect_err("nobody listens any more");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(handle.stats().sessions, 2);
        let start = Instant::now();
        for client in &mut open {
            client.put_close(None).flush();
            assert_eq!(client.next(), Received::End(Ended::Orderly));
        }
        server.end(DEADLINE).expect("it ends in order");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?} for nobody", start.elapsed());
        let reports = reports.rest();
        assert!(!reports.iter().any(|report| matches!(report, Report::Asked(name) if name == "late")));
        let causes = reports.iter().filter_map(|report| match report {
            Report::Close(_, ended) => Some(&ended.cause),
            _ => None,
        });
        assert_eq!(causes.collect::<Vec<_>>(), [&CloseCause::Closed; 2]);
    }
}
