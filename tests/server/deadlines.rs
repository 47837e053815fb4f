//! Timeouts: each comes, none comes early, and what keeps a session alive does.

use crate::support::{Client, DEADLINE, Ended, Received, TICK, TestServer, eventually, upgrade_with};
use ringwave::CloseCause;
use std::time::{Duration, Instant};

/// Long enough that a test's own delays are not mistaken for silence.
const LONG: Duration = Duration::from_secs(10 * 60);
const SHORT: Duration = Duration::from_millis(200);

/// At least this much has passed, as the server counts.
#[track_caller]
fn assert_passed(since: Instant, duration: Duration) {
    let passed = since.elapsed();
    assert!(passed + TICK >= duration, "after {passed:?}, not {duration:?}");
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let (server, _events) = TestServer::desk(|config| config.settings.handshake_timeout = SHORT);
    let start = Instant::now();
    server.raw().assert_end();
    assert_passed(start, SHORT);
    eventually("the connection is forgotten", || server.handle().stats().connections == 0);
}

#[test]
fn half_a_request_is_answered_with_408() {
    let (server, events) = TestServer::desk(|config| config.settings.handshake_timeout = SHORT);
    let upgrade = upgrade_with("/echo", "");
    let body = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab";
    for half in ["G", &upgrade[..upgrade.len() - 1], body] {
        let start = Instant::now();
        let mut raw = server.raw();
        let answer = raw.write(half).answer();
        assert_passed(start, SHORT);
        assert_eq!((answer.status, answer.header("Connection")), (408, Some("close")));
        // What comes too late is not heard.
        raw.write(upgrade_with("/echo", "")).assert_end();
    }
    drop(server);
    assert_eq!(events.rest(), []);
}

#[test]
fn a_connection_may_wait_as_long_for_its_next_request() {
    let (server, _events) = TestServer::desk(|config| config.settings.handshake_timeout = SHORT);
    let mut raw = server.raw();
    let start = Instant::now();
    let mut last = start;
    // Longer than the timeout altogether, never longer at a time than an answer takes.
    while start.elapsed() < 2 * SHORT {
        last = Instant::now();
        assert_eq!(raw.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").answer().status, 200);
    }
    raw.assert_end();
    assert_passed(last, SHORT);
}

/// The clock of the handshake stops with the 101.
#[test]
fn an_open_session_has_no_handshake_timeout() {
    let (server, _events) = TestServer::desk(|config| {
        config.settings.handshake_timeout = SHORT;
        config.settings.ping_interval = None;
    });
    let mut client = server.client("/echo");
    // Opened later: when this one is cut, the other one's time is up too.
    server.raw().assert_end();
    client.echo("still here");
}

#[test]
fn an_idle_session_is_closed_with_1001() {
    let (server, events) = TestServer::desk(|config| {
        config.settings.idle_timeout = Some(SHORT);
        config.settings.ping_interval = Some(SHORT / 4);
        config.settings.pong_timeout = LONG;
        config.settings.close_timeout = LONG;
    });
    let start = Instant::now();
    let mut client = server.client("/echo?idle");
    loop {
        match client.next() {
            // Answered pings prove that the peer is there, not that it has anything to say.
            Received::Ping(payload) => client.put_pong(&payload).flush(),
            other => {
                assert_eq!(other, Received::close(1001, "idle for too long"));
                break;
            }
        }
    }
    assert_passed(start, SHORT);
    assert_eq!(events.closed(), ("idle".to_owned(), CloseCause::IdleTimeout));
    // The session is over; the closing handshake is not.
    assert_eq!(server.handle().stats().sessions, 0);
    client.put_close(Some((1001, ""))).flush();
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    drop(server);
    assert!(!events.rest().iter().any(|event| matches!(event, crate::support::Event::Close(..))), "reported once");
}

/// In either direction, and a ping of the peer's too.
#[test]
fn messages_keep_a_session_from_being_idle() {
    const IDLE: Duration = Duration::from_millis(1_000);
    let (server, _events) = TestServer::desk(|config| {
        config.settings.idle_timeout = Some(IDLE);
        config.settings.ping_interval = None;
    });
    let mut listens = server.client("/desk?listens");
    assert_eq!(listens.ask("subscribe news"), "Ok(true)");
    let mut pings = server.client("/echo?pings");
    let mut speaks = server.client("/echo?speaks");
    let start = Instant::now();
    while start.elapsed() < 2 * IDLE {
        speaks.echo("x");
        pings.put_ping(b"x").flush();
        assert_eq!(pings.next(), Received::Pong(b"x".to_vec()));
        server.handle().publish("news", "x").expect("the mailbox has room");
        assert_eq!(listens.text(), "x");
    }
}

/// The next thing is a ping; what it carries is the engine's business.
#[track_caller]
fn pinged(client: &mut Client) -> Vec<u8> {
    match client.next() {
        Received::Ping(payload) => payload,
        other => panic!("a ping was expected, not {other:?}"),
    }
}

#[test]
fn a_silent_peer_is_pinged_and_stays_while_it_answers() {
    let (server, events) = TestServer::desk(|config| {
        config.settings.ping_interval = Some(SHORT / 4);
        config.settings.pong_timeout = DEADLINE;
    });
    let start = Instant::now();
    let mut client = server.client("/echo?pinged");
    for _ in 0..5 {
        let ping = pinged(&mut client);
        client.put_pong(&ping).flush();
    }
    assert_passed(start, 5 * SHORT / 4 * 9 / 10);
    assert!(start.elapsed() < DEADLINE, "an answered ping is not waited for until its deadline");
    // Whatever comes is an answer: it need not be a pong.
    pinged(&mut client);
    client.echo("I am here");
    pinged(&mut client);
    drop((client, server));
    assert_eq!(events.opened().0, "pinged");
}

#[test]
fn a_peer_that_answers_no_ping_is_ended() {
    let (server, events) = TestServer::desk(|config| {
        config.settings.ping_interval = Some(SHORT);
        config.settings.pong_timeout = SHORT;
    });
    let start = Instant::now();
    let mut client = server.client("/echo?deaf");
    pinged(&mut client);
    assert_passed(start, SHORT * 9 / 10);
    // Whatever the system still had for such a peer is dropped.
    assert_eq!(client.next(), Received::End(Ended::Reset), "one ping, and nothing after it");
    assert_passed(start, SHORT + SHORT * 9 / 10);
    assert_eq!(events.closed(), ("deaf".to_owned(), CloseCause::PongTimeout));
}

#[test]
fn a_peer_that_speaks_is_not_pinged() {
    let (server, _events) = TestServer::desk(|config| config.settings.ping_interval = Some(Duration::from_secs(1)));
    let mut client = server.client("/echo");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        client.echo("x");
    }
}

#[test]
fn a_peer_that_does_not_answer_our_close_is_ended() {
    let (server, events) = TestServer::desk(|config| {
        config.settings.close_timeout = SHORT;
        config.settings.ping_interval = Some(SHORT / 4);
    });
    let start = Instant::now();
    let mut client = server.client("/desk?stubborn");
    client.send("close 1000 please");
    assert_eq!(client.next(), Received::close(1000, "please"));
    // It may say whatever it wants, but not what is asked of it.
    client.send("send no");
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    assert_passed(start, SHORT);
    assert_eq!(events.closed(), ("stubborn".to_owned(), CloseCause::CloseTimeout));
}

/// Every deadline of a thousand at once, some of them changed on the way: nobody is forgotten, nobody is cut early.
#[test]
fn many_deadlines_at_once_are_kept() {
    let (server, events) = TestServer::desk(|config| {
        config.settings.idle_timeout = Some(Duration::from_secs(1));
        config.settings.ping_interval = None;
    });
    let mut clients: Vec<_> = (0..300).map(|_| server.client("/echo?many")).collect();
    let start = Instant::now();
    for client in &mut clients {
        client.echo("x");
    }
    for client in &mut clients {
        assert_eq!(client.next(), Received::close(1001, "idle for too long"));
        assert_passed(start, Duration::from_secs(1));
        client.put_close(None).flush();
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        assert_eq!(events.closed().1, CloseCause::IdleTimeout);
    }
}
