//! Pings, round trips and lifetimes as the clock has them; durations from a millisecond to for ever.

use crate::support::{Client, DEADLINE, Ended, Received, TICK, TestServer, eventually};
use ringwave::{CloseCause, CloseCode, Config, Drain, SessionOptions};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the scheduler of a busy machine may add.
const SLACK: Duration = Duration::from_millis(400);

/// The next thing is a ping of the engine's.
#[track_caller]
fn ping_of(client: &mut Client) -> Vec<u8> {
    match client.next() {
        Received::Ping(payload) => payload,
        other => panic!("a ping was expected, not {other:?}"),
    }
}

#[test]
fn sessions_opened_together_are_pinged_over_a_tenth_of_the_interval() {
    const INTERVAL: Duration = Duration::from_secs(1);
    let (server, _reports) = TestServer::rig(|config| config.settings.ping_interval = Some(INTERVAL));
    let pinged: Vec<(Duration, Instant)> = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let before = Instant::now();
                let mut client = server.client("/x");
                let after = Instant::now();
                scope.spawn(move || {
                    ping_of(&mut client);
                    let now = Instant::now();
                    // A hundred threads wake for that on a busy machine, and a shard that is late forgives itself.
                    assert!(after + INTERVAL + 5 * SLACK > now, "after {:?}", now - after);
                    (now - before, now)
                })
            })
            .collect();
        waiting.into_iter().map(|thread| thread.join().expect("it is pinged")).collect()
    });
    let earliest = pinged.iter().map(|(after, _)| *after).min().expect("a hundred");
    assert!(earliest + TICK >= INTERVAL * 9 / 10, "pinged after {earliest:?}");
    let at = || pinged.iter().map(|(_, at)| *at);
    let spread = at().max().expect("a hundred") - at().min().expect("a hundred");
    assert!(spread >= Duration::from_millis(60), "all within {spread:?}");
}

#[test]
fn a_session_lives_as_long_as_it_may() {
    const LIFE: Duration = Duration::from_secs(1);
    let (server, reports) = TestServer::rig_with(
        |config| {
            config.settings.ping_interval = Some(Duration::from_millis(150));
            config.settings.close_timeout = Duration::from_millis(200);
        },
        |name| (name == "mortal").then(|| SessionOptions { lifetime_max: Some(LIFE), ..SessionOptions::default() }),
    );
    let mut immortal = server.client("/immortal");
    let mut ends = Vec::new();
    std::thread::scope(|scope| {
        let lives: Vec<_> = (0..50)
            .map(|number| {
                let start = Instant::now();
                let mut client = server.client("/mortal");
                let opened = start.elapsed();
                scope.spawn(move || {
                    // Whatever it does meanwhile does not prolong its life.
                    loop {
                        match client.next() {
                            Received::Ping(payload) => client.put("x").put_pong(&payload).flush(),
                            Received::Text(_) => {}
                            other => {
                                assert_eq!(other, Received::close(1001, "it may not live longer"));
                                break;
                            }
                        }
                    }
                    let lived = start.elapsed();
                    if number % 2 == 0 {
                        client.put_close(None).flush();
                    }
                    assert_eq!(client.next(), Received::End(Ended::Orderly));
                    (lived, opened)
                })
            })
            .collect();
        ends.extend(lives.into_iter().map(|thread| thread.join().expect("it ends")));
    });
    for (lived, opened) in ends {
        assert!(lived + TICK >= LIFE * 9 / 10 && lived < LIFE + opened + SLACK, "{lived:?}");
    }
    for _ in 0..50 {
        let (name, ended) = reports.closed();
        assert_eq!(
            (name.as_str(), ended.cause, ended.code),
            ("mortal", CloseCause::LifetimeOver, Some(CloseCode::GOING_AWAY))
        );
    }
    assert_eq!(server.stats().ended_lifetime_over, 50);
    immortal.send("still here");
    while let Received::Ping(_) = immortal.next() {}
}

/// Every duration that a user may set.
fn set_all(config: &mut Config, duration: Duration) {
    let settings = &mut config.settings;
    settings.handshake_timeout = duration;
    settings.idle_timeout = Some(duration);
    settings.ping_interval = Some(duration);
    settings.pong_timeout = duration;
    settings.close_timeout = duration;
    settings.stall_timeout = duration;
    settings.user_timeout = Some(duration);
    settings.retry_after = duration;
    settings.session.lifetime_max = Some(duration);
}

#[test]
fn a_millisecond_is_a_duration() {
    let (server, _reports) = TestServer::rig(|config| set_all(config, Duration::from_millis(1)));
    for _ in 0..50 {
        let mut raw = server.raw();
        // Whatever comes first: an answer, its end, or the end before it.
        let _ = std::io::Write::write_all(&mut raw.stream, crate::support::upgrade_with("/x", "").as_bytes());
        let _ = raw.stream.read(&mut [0; 1_000]);
    }
    eventually("all are gone", || {
        let stats = server.stats();
        (stats.connections, stats.sessions, stats.queues, stats.timers) == (0, 0, 0, 0)
    });
    let before = server.stats().turns;
    std::thread::sleep(Duration::from_secs(1));
    assert!(server.stats().turns - before < 5, "nobody is there");
}
/// Half-open: the kernel of the peer takes whatever is sent, but nobody is there.
#[test]
fn a_peer_that_takes_everything_and_says_nothing_is_found_by_its_ping() {
    // Something is sent in nearly no turn, and in nearly every one.
    for every in [Duration::from_millis(50), Duration::from_micros(100)] {
        assert_is_found_by_its_ping(every);
    }
}

fn assert_is_found_by_its_ping(every: Duration) {
    let (server, reports) = TestServer::rig(|config| {
        config.settings.ping_interval = Some(Duration::from_millis(200));
        config.settings.pong_timeout = Duration::from_millis(500);
        config.settings.user_timeout = None;
    });
    let start = Instant::now();
    let mut client = server.client("/half-open");
    client.send("subscribe ticks");
    let stop = Arc::new(AtomicBool::new(false));
    let ticker = std::thread::spawn({
        let (handle, stop) = (server.handle(), stop.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                // A full mailbox is as good: something is sent.
                let _ = handle.publish("ticks", "tick");
                std::thread::sleep(every);
            }
        }
    });
    let (name, ended) = reports.closed();
    let passed = start.elapsed();
    stop.store(true, Ordering::Relaxed);
    ticker.join().expect("it does not panic");
    assert_eq!((name.as_str(), ended.cause), ("half-open", CloseCause::PongTimeout), "{every:?}");
    assert!(passed + TICK >= Duration::from_millis(680), "{passed:?}");
    assert!(passed < Duration::from_millis(700) + 2 * SLACK, "{passed:?}");
    assert!(ended.since_sent < Duration::from_millis(500), "it was sent to {:?} ago", ended.since_sent);
}

/// The microseconds of the session's last round trip, as its handler knows them; 0 before the first.
#[track_caller]
fn round_trip(client: &mut Client) -> Duration {
    client.send("round_trip");
    loop {
        match client.next() {
            Received::Text(micros) => return Duration::from_micros(micros.parse().expect("a number")),
            Received::Ping(_) => {}
            other => panic!("a text was expected, not {other:?}"),
        }
    }
}

#[test]
fn the_round_trip_is_that_of_the_engines_ping_and_no_other() {
    const DELAY: Duration = Duration::from_millis(100);
    let (server, _reports) = TestServer::rig(|config| {
        config.settings.ping_interval = Some(Duration::from_secs(1));
        config.settings.pong_timeout = DEADLINE;
    });
    let mut client = server.client("/timed");
    assert_eq!(round_trip(&mut client), Duration::ZERO);
    // Pongs that nobody asked for, of every length, before a ping and while it waits for its answer.
    let unsolicited = |client: &mut Client| {
        for length in 0..=16 {
            client.put_pong(&vec![0x55; length]);
        }
        client.flush();
        assert_eq!(round_trip(client), Duration::ZERO, "nothing was measured yet");
    };
    unsolicited(&mut client);
    let ping = ping_of(&mut client);
    unsolicited(&mut client);
    // A ping of the application's, as long as the engine's own.
    client.send(&format!("ping {}", "p".repeat(ping.len())));
    let own = ping_of(&mut client);
    client.put_pong(&own).flush();
    assert_eq!(round_trip(&mut client), Duration::ZERO);
    // The delay is what is measured.
    std::thread::sleep(DELAY);
    client.put_pong(&ping).flush();
    let measured = round_trip(&mut client);
    assert!((DELAY..DELAY + 2 * SLACK).contains(&measured), "{measured:?}");
    client.put_pong(&[1, 2, 3, 4]).put_pong(&ping).put_pong(b"").flush();
    assert_eq!(round_trip(&mut client), measured);
}
#[test]
fn for_ever_is_a_duration() {
    let (server, reports) = TestServer::rig(|config| {
        set_all(config, Duration::MAX);
        config.settings.sessions_max = Some(2);
    });
    let mut client = server.client("/patient");
    let mut stubborn = server.client("/stubborn");
    let mut refused = server.raw();
    let answer = refused.write(crate::support::upgrade_with("/late", "")).answer();
    assert_eq!(answer.status, 503);
    answer.header("Retry-After").expect("it says when").parse::<u64>().expect("a number of seconds");
    client.echo(&[7; 100_000]);
    stubborn.send("close 1000 bye");
    assert_eq!(stubborn.next(), Received::close(1000, "bye"));
    // Nothing is due: the shard sleeps.
    let rests = |what: &str| {
        let before = server.stats().turns;
        std::thread::sleep(Duration::from_secs(1));
        let turns = server.stats().turns - before;
        assert!(turns < 20, "{turns} turns in a second: {what}");
    };
    rests("two sessions and nothing to do");
    server.handle().drain(&Drain { window: Duration::MAX, deadline: Duration::MAX, ..Drain::default() });
    eventually("it drains", || server.stats().draining == 1);
    rests("it drains for ever");
    assert_eq!(server.stats().sessions, 2);
    server.handle().drain(&Drain { deadline: Duration::MAX, ..Drain::default() });
    assert_eq!(client.next(), Received::close(1001, "the server shuts down"));
    rests("it waits for an answer for ever");
    for client in [&mut client, &mut stubborn] {
        client.put_close(None).flush();
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        assert_eq!(reports.closed().1.cause, CloseCause::Closed);
    }
}
