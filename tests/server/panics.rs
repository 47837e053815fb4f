//! A handler that panics costs the session that it was called for, and nobody else.

use crate::support::{Client, Ended, Frame, Received, Report, TestServer, eventually, upgrade_with};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCause, CloseCode, MessageKind, Policy, SessionOptions};
use socket2::SockRef;
use std::io::{Read, Write};

const SORRY: &str = "the server failed";

/// Nothing of anybody is left.
#[track_caller]
fn assert_empty(server: &TestServer) {
    eventually("nothing is left", || {
        let stats = server.stats();
        [stats.connections, stats.sessions, stats.queues, stats.topics, stats.memory_bytes] == [0; 5]
    });
}

/// Reads on until something else than what the session may have been sent comes.
#[track_caller]
fn end_of(client: &mut Client) -> Received {
    loop {
        match client.next() {
            Received::Binary(_) | Received::Text(_) | Received::Pong(_) => {}
            other => return other,
        }
    }
}

#[test]
fn each_call_costs_its_session_alone() {
    let (server, reports) = TestServer::rig_with(
        |_| {},
        |name| match name {
            "chunks" => Some(SessionOptions { chunks: true, ..SessionOptions::default() }),
            "drops" => Some(SessionOptions {
                policy: Policy::DropNew,
                queue_bytes_max: 64 * KIB,
                high_water_bytes: 64 * KIB,
                low_water_bytes: KIB,
                ..SessionOptions::default()
            }),
            _ => None,
        },
    );
    let mut bystanders: Vec<_> = (0..200).map(|_| server.client("/bystander")).collect();
    type Act = fn(&TestServer, &mut Client);
    // More than sockets hold, and, while it is on its way, what is refused.
    let overflow = |server: &TestServer, client: &mut Client| {
        SockRef::from(&client.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
        let begun = server.stats().bytes_sent + 100_000;
        client.send("send 20000000");
        eventually("it is on its way", || server.stats().bytes_sent > begun);
        for _ in 0..4 {
            client.put("send 60000");
        }
        client.flush();
    };
    let table: [(&str, &str, Act); 8] = [
        ("x", "on_open", |_, _| {}),
        ("x", "on_message", |_, client| client.send("x")),
        ("chunks", "on_chunk", |_, client| client.put_first(MessageKind::Text, b"x").put_next(b"y", true).flush()),
        ("x", "on_ping", |_, client| client.put_ping(b"x").flush()),
        ("x", "on_pong", |_, client| client.put_pong(b"x").flush()),
        ("drops", "on_drain", overflow),
        ("drops", "on_dropped", overflow),
        ("x", "on_open+on_close", |_, _| {}),
    ];
    let mut panics = 0;
    for (name, broken, act) in table {
        let mut client = server.client(&format!("/{name}?{broken}"));
        act(&server, &mut client);
        assert_eq!(end_of(&mut client), Received::close(1011, SORRY), "{broken}");
        // What it says now is not heard; its end is.
        client.put_close(None).flush();
        assert_eq!(client.next(), Received::End(Ended::Orderly), "{broken}");
        let (_, ended) = reports.closed();
        assert_eq!((&ended.cause, ended.code), (&CloseCause::HandlerPanicked, Some(CloseCode::INTERNAL_ERROR)));
        panics += 1 + u64::from(broken.contains("on_close"));
        assert_eq!(server.stats().handler_panics, panics, "{broken}");
        for bystander in &mut bystanders {
            bystander.echo("undisturbed");
        }
    }
    // In on_close alone, there is no session left to end for it.
    let mut client = server.client("/x?on_close");
    client.close();
    let (_, ended) = reports.closed();
    assert!(matches!(ended.cause, CloseCause::PeerClosed(Some(_))), "{ended}");
    assert_eq!(server.stats().handler_panics, panics + 1);
    let stats = server.stats();
    assert_eq!((stats.ended_handler_panicked, stats.ended_peer_closed, stats.sessions), (8, 1, 200));
    drop(bystanders);
    assert_empty(&server);
    drop(server);
    assert_eq!(reports.ends().len(), 200, "once each");
}

#[test]
fn before_the_101_it_is_a_500_and_no_session() {
    let (server, reports) = TestServer::rig(|_| {});
    let plain = "GET /panic HTTP/1.1\r\nHost: h\r\n\r\n".to_owned();
    for request in [upgrade_with("/x?on_upgrade", ""), plain] {
        let mut raw = server.raw();
        // What was asked before is answered before, and what stands behind it is not heard.
        raw.write(format!("GET / HTTP/1.1\r\nHost: h\r\n\r\n{request}GET /behind HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(raw.answer().status, 200);
        let answer = raw.answer();
        assert_eq!((answer.status, answer.header("Connection")), (500, Some("close")));
        assert!(!answer.body.contains("told"), "{answer:?}");
        raw.assert_end();
        assert_empty(&server);
    }
    let stats = server.stats();
    assert_eq!((stats.handler_panics, stats.opened, stats.ended_handler_panicked), (2, 0, 0));
    drop(server);
    assert!(!reports.rest().iter().any(|report| matches!(report, Report::Open(..) | Report::Close(..))));
}

/// What was done before the panic stands: it was done.
#[test]
fn what_is_half_done_stays_sound() {
    let (server, reports) = TestServer::rig(|config| config.shards = 2);
    let mut subscribers: Vec<_> = (0..40).map(|_| server.client("/subscriber")).collect();
    for client in &mut subscribers {
        client.put("subscribe news").put("subscribed").flush();
        assert_eq!(client.text(), "subscribed");
    }
    let mut publisher = server.client("/publisher");
    publisher.put("subscribe news").put("publish+panic news extra").flush();
    // It is a subscriber itself: the message is before the close frame.
    assert_eq!(publisher.text(), "extra");
    assert_eq!(publisher.next(), Received::close(1011, SORRY));
    for client in &mut subscribers {
        assert_eq!(client.text(), "extra");
    }
    // The first fragment of a message that will have no end: the close frame may follow it (RFC 6455 §5.4).
    let mut pieces = server.client("/pieces");
    pieces.put("fragment+panic begun");
    let wire = pieces.take_out();
    pieces.stream.write_all(&wire).expect("the server takes it");
    let mut bytes = Vec::new();
    pieces.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
    pieces.stream.read_to_end(&mut bytes).expect("it ends in order");
    let frames = Frame::all(&bytes);
    assert_eq!((frames[0].first, &frames[0].payload[..]), (0x01, &b"begun"[..]));
    assert_eq!((frames.len(), frames[1].close_code()), (2, Some(1011)));
    // Half a message that came: what was gathered of it is let go of.
    let mut half = server.client("/half");
    let long = vec![b'x'; MIB];
    half.put_first(MessageKind::Text, &long).put_ping(b"").flush();
    assert_eq!(half.next(), Received::Pong(Vec::new()));
    eventually("it is held", || server.stats().memory_bytes > MIB as u64);
    drop(half);
    for name in ["publisher", "pieces", "half"] {
        assert_eq!(reports.closed().0, name);
    }
    drop((publisher, subscribers));
    assert_empty(&server);
}

/// One message in a thousand, all at once and on every shard.
#[test]
fn under_load_exactly_those_sessions_end_for_which_it_panicked() {
    const SESSIONS: usize = 200;
    const MESSAGES: usize = 100;
    let (server, reports) = TestServer::rig(|config| config.shards = 2);
    std::thread::scope(|scope| {
        for group in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut clients: Vec<_> =
                    (0..SESSIONS / 4).map(|number| server.client(&format!("/{group}-{number}"))).collect();
                for round in 0..MESSAGES {
                    for (number, client) in clients.iter_mut().enumerate() {
                        // 20 of 20 000, each for another session.
                        let fatal = round == number + 20 && number % 10 == 0;
                        client.put(if fatal { "panic" } else { "echo" });
                        let done = number % 10 == 0 && round > number + 20;
                        if done {
                            client.take_out();
                        } else {
                            client.flush();
                        }
                    }
                    for (number, client) in
                        clients.iter_mut().enumerate().filter(|(n, _)| n % 10 > 0 || round <= n + 20)
                    {
                        match number % 10 == 0 && round == number + 20 {
                            true => assert_eq!(client.next(), Received::close(1011, SORRY)),
                            false => assert_eq!(client.text(), "echo"),
                        }
                    }
                }
                for (number, client) in clients.iter_mut().enumerate() {
                    if number % 10 == 0 {
                        client.put_close(None).flush();
                        assert_eq!(client.next(), Received::End(Ended::Orderly));
                    } else {
                        client.close();
                    }
                }
            });
        }
    });
    let stats = server.stats();
    assert_eq!((stats.handler_panics, stats.ended_handler_panicked), (20, 20));
    assert_eq!(stats.ended_peer_closed, (SESSIONS - 20) as u64);
    assert_empty(&server);
    drop(server);
    for (name, ended) in reports.ends() {
        let fatal = name.ends_with('0');
        assert_eq!(ended.cause == CloseCause::HandlerPanicked, fatal, "{name}: {ended}");
    }
}

#[test]
fn many_panics_leave_nothing_behind() {
    let (server, reports) = TestServer::rig(|config| {
        config.settings.sessions_per_address_max = Some(5);
        config.settings.sessions_max = Some(5);
    });
    let calls = ["on_open", "on_message", "on_upgrade", "on_ping", "on_open+on_close", "on_message+on_close"];
    for round in 0..100 {
        for call in calls {
            let mut raw = server.raw();
            raw.write(upgrade_with(&format!("/{round}?{call}"), ""));
            raw.write(b"\x89\x80\0\0\0\0\x81\x8c\0\0\0\0subscribe ab");
            let (bytes, _) = raw.rest();
            assert!(!bytes.is_empty(), "{call}");
        }
    }
    assert_empty(&server);
    let stats = server.stats();
    assert_eq!((stats.handler_panics, stats.ended_handler_panicked), (800, 500));
    drop(server);
    assert_eq!(reports.ends().len(), 500);
}
