//! `Ended` for every cause: who it was, which code, what the system said, what was lost, since when, and the counter.

use crate::support::{Client, DEADLINE, Ended, Received, TICK, TestServer, eventually};
use ringwave::base::limits::{KIB, MIB};
use ringwave::protocol::error::ProtocolError;
use ringwave::{CloseCause, CloseCode, ClosedBy, Config, Policy, Rate, RateAnswer, SessionKey, Stats};
use socket2::SockRef;
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(200);
/// More than the sockets between two peers take.
const LONG: usize = 20 * MIB;

/// How a session is brought to its end: on the way there, what the peer does and what we do.
type Act = fn(&TestServer, &mut Client, SessionKey);

/// One way to end, and what is to be known of it.
struct Case {
    name: &'static str,
    change: fn(&mut Config),
    act: Act,
    cause: CloseCause,
    by: ClosedBy,
    code: Option<u16>,
    /// Whether something was still to be sent.
    queued: bool,
    dropped: u64,
    /// How the peer's stream ends, where it is still there to see that.
    end: Option<Ended>,
    /// The least time since something was received, and sent.
    silent: Duration,
    unsent: Duration,
}

impl Case {
    const fn new(name: &'static str, cause: CloseCause, by: ClosedBy, act: Act) -> Self {
        Self {
            name,
            change: |_| {},
            act,
            cause,
            by,
            code: None,
            queued: false,
            dropped: 0,
            end: Some(Ended::Orderly),
            silent: Duration::ZERO,
            unsent: Duration::ZERO,
        }
    }

    fn peer_closed(code: u16, reason: &str) -> CloseCause {
        CloseCause::PeerClosed(CloseCode::new(code).map(|code| (code, reason.to_owned())))
    }
}

/// More is queued for a session than its peer takes: one message is on its way, another waits behind it.
fn fill(server: &TestServer, key: SessionKey) {
    server.handle().send(key, &vec![0; LONG]).expect("the mailbox has room");
    // What is sent in the same turn leaves together.
    eventually("it is on its way", || server.stats().bytes_sent > 100_000);
    server.handle().send(key, "waits").expect("the mailbox has room");
    eventually("the other waits", || server.stats().messages_sent == 3);
}

/// What ends the connection when its descriptor is closed.
fn reset(client: &Client) {
    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
}

/// Throws away what comes until the stream ends.
fn end_of(client: &mut Client) -> Ended {
    loop {
        if let Received::End(ended) = client.next() {
            return ended;
        }
    }
}

fn cases() -> Vec<Case> {
    use ClosedBy::{Peer, System, Us};
    let lost = CloseCause::PeerGone(Some(libc::ECONNRESET));
    vec![
        Case {
            code: Some(4001),
            ..Case::new("closed by the peer", Case::peer_closed(4001, "bye"), Peer, |_, client, _| {
                client.put_close(Some((4001, "bye"))).flush();
            })
        },
        Case::new("closed without a code", CloseCause::PeerClosed(None), Peer, |_, client, _| {
            client.put_close(None).flush();
        }),
        Case {
            code: Some(3000),
            ..Case::new("closed by the application", CloseCause::Closed, Us, |_, client, _| {
                client.send("close 3000 x");
                assert_eq!(client.next(), Received::close(3000, "x"));
                client.put_close(Some((3000, ""))).flush();
            })
        },
        Case {
            code: Some(3001),
            ..Case::new("closed from elsewhere, and gone then", CloseCause::Closed, Us, |server, client, key| {
                server.handle().close(key, CloseCode::new(3001).expect("sound"), "").expect("the mailbox has room");
                assert_eq!(client.next(), Received::close(3001, ""));
                client.stream.shutdown(Shutdown::Write).expect("it is connected");
            })
        },
        Case::new("terminated", CloseCause::Closed, Us, |_, client, _| client.send("terminate")),
        Case {
            queued: true,
            // The kernel had taken a part of it.
            end: None,
            ..Case::new("terminated with a long queue", CloseCause::Closed, Us, |_, client, _| {
                client.put(&format!("send {LONG}")).put("terminate").flush();
            })
        },
        Case::new("gone", CloseCause::PeerGone(None), Peer, |_, client, _| {
            client.stream.shutdown(Shutdown::Write).expect("it is connected");
        }),
        Case {
            queued: true,
            change: |config| config.settings.session.policy = Policy::DropNew,
            ..Case::new("gone with a long queue", CloseCause::PeerGone(None), Peer, |server, client, key| {
                fill(server, key);
                client.stream.shutdown(Shutdown::Write).expect("it is connected");
            })
        },
        Case { end: None, ..Case::new("reset", lost.clone(), System, |_, client, _| reset(client)) },
        Case {
            queued: true,
            end: None,
            ..Case::new("reset while it was not read from", lost.clone(), System, |server, client, key| {
                fill(server, key);
                reset(client);
            })
        },
        Case {
            queued: true,
            dropped: 2,
            end: None,
            change: |config| {
                config.settings.session.policy = Policy::DropNew;
                config.settings.session.queue_bytes_max = 100 * KIB;
                config.settings.session.high_water_bytes = 100 * KIB;
                config.settings.session.low_water_bytes = 0;
            },
            ..Case::new("reset after drops", lost, System, |server, client, key| {
                fill(server, key);
                for _ in 0..3 {
                    server.handle().send(key, &vec![0; 60 * KIB]).expect("the mailbox has room");
                }
                eventually("two were dropped", || server.stats().sends_dropped_new == 2);
                reset(client);
            })
        },
        Case {
            code: Some(1002),
            ..Case::new("broken", CloseCause::Protocol(ProtocolError::ReservedBits), Peer, |_, client, _| {
                client.stream.write_all(b"\xff\x80\0\0\0\0").expect("the server takes it");
            })
        },
        Case {
            code: Some(1009),
            change: |config| config.settings.limits.frame_bytes_max = 1_000,
            ..Case::new("too long a frame", CloseCause::Protocol(ProtocolError::FrameTooLong), Peer, |_, client, _| {
                client.send(&[0; 1_001]);
            })
        },
        Case {
            code: Some(1001),
            silent: SHORT,
            unsent: SHORT,
            change: |config| config.settings.idle_timeout = Some(SHORT),
            ..Case::new("idle", CloseCause::IdleTimeout, Us, |_, _, _| {})
        },
        Case {
            end: Some(Ended::Reset),
            silent: SHORT.saturating_mul(2).saturating_sub(Duration::from_millis(20)),
            change: |config| {
                config.settings.ping_interval = Some(SHORT);
                config.settings.pong_timeout = SHORT;
            },
            ..Case::new("no pong", CloseCause::PongTimeout, Us, |_, _, _| {})
        },
        Case {
            code: Some(3002),
            change: |config| config.settings.close_timeout = SHORT,
            silent: SHORT,
            unsent: SHORT,
            ..Case::new("no answer to our close", CloseCause::CloseTimeout, Us, |_, client, _| {
                client.send("close 3002 x");
            })
        },
        Case {
            queued: true,
            end: Some(Ended::Reset),
            unsent: SHORT,
            change: |config| config.settings.stall_timeout = SHORT,
            ..Case::new("stalled", CloseCause::Stalled, Us, |server, _, key| fill(server, key))
        },
        Case {
            code: Some(1001),
            change: |config| config.settings.session.lifetime_max = Some(SHORT),
            ..Case::new("over", CloseCause::LifetimeOver, Us, |_, _, _| {})
        },
        Case {
            queued: true,
            dropped: 1,
            end: Some(Ended::Reset),
            change: |config| {
                config.settings.session.queue_bytes_max = 100 * KIB;
                config.settings.session.high_water_bytes = 100 * KIB;
                config.settings.session.low_water_bytes = 0;
            },
            ..Case::new("too slow", CloseCause::SlowConsumer, Us, |server, _, key| {
                fill(server, key);
                server.handle().send(key, &vec![0; 100 * KIB]).expect("the mailbox has room");
            })
        },
        Case {
            code: Some(1008),
            queued: true,
            change: |config| {
                config.settings.session.message_rate = Some(Rate { per_second: 1, burst: 2 });
                config.settings.session.rate_answer = RateAnswer::Close;
            },
            ..Case::new("too fast", CloseCause::RateExceeded, Us, |_, client, _| client.put("x").put("y").flush())
        },
        Case {
            queued: true,
            end: Some(Ended::Reset),
            change: |config| config.settings.memory_bytes_max = MIB,
            ..Case::new("out of memory", CloseCause::OutOfMemory, Us, |server, _, key| {
                server.handle().send(key, &vec![0; LONG]).expect("the mailbox has room");
                eventually("it is on its way", || server.stats().bytes_sent > 100_000);
                server.handle().send(key, "refused").expect("the mailbox has room");
            })
        },
        Case {
            code: Some(1011),
            ..Case::new("panicked", CloseCause::HandlerPanicked, Us, |_, client, _| client.send("panic"))
        },
        Case {
            code: Some(1001),
            change: |config| config.settings.close_timeout = 10 * DEADLINE,
            ..Case::new("shut down", CloseCause::Shutdown, Us, |server, _, _| server.handle().shutdown(SHORT))
        },
    ]
}

/// All counters of ends, by the names of their causes.
const fn counters(stats: &Stats) -> [(&'static str, u64); 14] {
    [
        ("peer_closed", stats.ended_peer_closed),
        ("closed", stats.ended_closed),
        ("peer_gone", stats.ended_peer_gone),
        ("protocol", stats.ended_protocol),
        ("idle_timeout", stats.ended_idle_timeout),
        ("pong_timeout", stats.ended_pong_timeout),
        ("close_timeout", stats.ended_close_timeout),
        ("stalled", stats.ended_stalled),
        ("lifetime_over", stats.ended_lifetime_over),
        ("slow_consumer", stats.ended_slow_consumer),
        ("rate_exceeded", stats.ended_rate_exceeded),
        ("out_of_memory", stats.ended_out_of_memory),
        ("handler_panicked", stats.ended_handler_panicked),
        ("shutdown", stats.ended_shutdown),
    ]
}

/// What the kernel keeps for a port of the loopback: states as `/proc/net/tcp` has them, of our side, but for TIME_WAIT.
fn kept_by_the_kernel(port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let local = format!("0100007F:{port:04X}");
    let states = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        (address == local && state != LISTEN && state != TIME_WAIT).then(|| state.to_owned())
    });
    states.collect()
}

#[test]
fn every_end_is_told_with_all_that_is_known() {
    for case in cases() {
        println!("{}", case.name);
        let (server, reports) = TestServer::rig(case.change);
        let mut client = server.client("/ends");
        SockRef::from(&client.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
        let (_, key) = reports.opened();
        client.echo("x");
        let start = Instant::now();
        (case.act)(&server, &mut client, key);
        let mut client = Some(client);
        if case.cause.errno().is_some() {
            // The reset is the end of its descriptor.
            client = None;
        }
        let (_, ended) = reports.closed();
        let passed = start.elapsed() + 2 * TICK;
        let name = case.name;
        assert_eq!(ended.cause, case.cause, "{name}");
        assert_eq!(ended.cause.by(), case.by, "{name}");
        assert_eq!(ended.code.map(CloseCode::number), case.code, "{name}");
        assert_eq!(ended.queued_bytes > 0, case.queued, "{name}: {} bytes queued", ended.queued_bytes);
        assert_eq!(ended.dropped, case.dropped, "{name}");
        for (since, least) in [(ended.since_received, case.silent), (ended.since_sent, case.unsent)] {
            assert!(
                since + 2 * TICK >= least && since <= passed,
                "{name}: {since:?} of {passed:?}, at least {least:?}"
            );
        }
        let told = ended.to_string();
        assert!(told.contains(&format!("by {}", case.by)) && !told.chars().any(char::is_control), "{told}");
        let expected = counters(&Stats::default()).map(|(of, _)| (of, u64::from(of == ended.cause.name())));
        assert_eq!(counters(&server.stats()), expected, "{name}");
        assert_eq!((server.stats().sessions, server.stats().messages_dropped), (0, case.dropped), "{name}");
        if let Some(client) = &mut client
            && let Some(end) = case.end
        {
            if ended.code.is_some() && !matches!(ended.cause, CloseCause::PeerClosed(_)) {
                // Where the server waits for this side's end; where it does not, there may be none any more.
                let _ = client.stream.shutdown(Shutdown::Write);
            }
            assert_eq!(end_of(client), end, "{name}");
            if end == Ended::Reset {
                let port = server.address().port();
                assert_eq!(kept_by_the_kernel(port), Vec::<String>::new(), "{name}");
            }
        }
        drop(client);
        // A shard that has ended counts no more.
        if ended.cause != CloseCause::Shutdown {
            eventually(name, || server.stats().connections == 0 && server.stats().queues == 0);
        }
    }
}
