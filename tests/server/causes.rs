//! Ends that come together, or find their session at a bad time: which one counts, and what is told of it.

use crate::support::{DEADLINE, Ended, Received, TestServer, eventually};
use ringwave::base::limits::{KIB, MIB};
use ringwave::protocol::error::ProtocolError;
use ringwave::{CloseCause, CloseCode, Policy, Rate, SessionOptions};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// A frame as a client sends it, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

// What comes with or behind an end of ours

/// Two things in one read: what ends the session, and what would end it in another way.
#[test]
fn the_first_cause_counts_whatever_stands_behind_it_in_the_same_read() {
    let (server, reports) = TestServer::rig(|_| {});
    let behind = [
        frame(0x88, b"\x03\xe8"),
        frame(0xff, b""),
        frame(0x81, b"\xff"),
        frame(0x81, b"panic"),
        vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
    ];
    for behind in behind {
        let mut client = server.client("/terminated");
        client.put("terminate");
        let wire = [client.take_out(), behind].concat();
        client.stream.write_all(&wire).expect("the server takes it");
        assert_eq!(client.next(), Received::End(Ended::Orderly), "no close frame");
        let (_, ended) = reports.closed();
        assert_eq!((ended.cause, ended.code), (CloseCause::Closed, None), "{}", wire.escape_ascii());
    }
    assert_eq!((server.stats().ended_closed, server.stats().handler_panics), (5, 0));
}

/// What the application closed with is what was on the wire, however the session ends then.
#[test]
fn the_code_is_that_of_the_close_frame_which_was_sent() {
    let (server, reports) = TestServer::rig(|_| {});
    let behind: [(&[u8], CloseCause); 3] = [
        (&frame(0xff, b""), CloseCause::Protocol(ProtocolError::ReservedBits)),
        (&frame(0x88, b"\x0f\xa0"), CloseCause::Closed),
        (b"", CloseCause::HandlerPanicked),
    ];
    for (behind, cause) in behind {
        let mut client = server.client("/closed");
        client.put(if behind.is_empty() { "close+panic 3456 x" } else { "close 3456 x" });
        let wire = [&client.take_out(), behind].concat();
        client.stream.write_all(&wire).expect("the server takes it");
        assert_eq!(client.next(), Received::close(3456, "x"));
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        let (_, ended) = reports.closed();
        assert_eq!((ended.cause, ended.code), (cause, CloseCode::new(3456)));
    }
}

/// An unfinished message that is too much for the shard, where nothing else could be let go of.
#[test]
fn whoever_sends_more_than_there_is_memory_for_is_told_to_come_back() {
    let (server, reports) = TestServer::rig(|config| config.settings.memory_bytes_max = 200 * KIB);
    let mut client = server.client("/long");
    let wire = client.put(&vec![0; MIB]).take_out();
    // The rest is not taken any more, or thrown away.
    let _ = client.stream.write_all(&wire[..wire.len() - 1]);
    assert_eq!(client.next(), Received::close(1013, "no memory for its message"));
    let (_, ended) = reports.closed();
    assert_eq!((ended.cause, ended.code), (CloseCause::OutOfMemory, Some(CloseCode::TRY_AGAIN_LATER)));
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    eventually("nothing is held", || server.stats().memory_bytes == 0);
}

/// Memory is sought for somebody, and a request that has not come whole keeps most of it.
#[test]
fn a_request_that_there_is_no_memory_for_is_told_to_come_back() {
    let (server, _reports) = TestServer::rig(|config| config.settings.memory_bytes_max = 24 * KIB);
    let mut asks: Vec<_> = (0..4).map(|_| TcpStream::connect(server.address()).expect("it listens")).collect();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(7 * KIB));
    for stream in &mut asks {
        stream.write_all(head.as_bytes()).expect("there is room");
    }
    eventually("all are heard", || server.stats().memory_bytes > 24 * KIB as u64);
    server.client("/echo").echo("as ever");
    let is_refused = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.is_empty() || answer.contains("\r\nRetry-After: "), "{answer}");
        !answer.is_empty()
    };
    let refused = asks.iter_mut().map(is_refused).filter(|refused| *refused).count();
    assert!((1..4).contains(&refused), "{refused} of 4 were refused");
}

// Sessions that are not read from

/// Whatever held a session back before, the answer to our close frame is heard.
#[test]
fn a_close_of_ours_is_answered_by_a_session_that_was_held_back() {
    let slow = SessionOptions { message_rate: Some(Rate { per_second: 1, burst: 1 }), ..SessionOptions::default() };
    let (server, reports) = TestServer::rig_with(
        |config| config.settings.close_timeout = 10 * DEADLINE,
        move |name| (name == "throttled").then_some(slow),
    );
    for name in ["paused", "throttled"] {
        let mut client = server.client(&format!("/{name}"));
        let (_, key) = reports.opened();
        match name {
            "paused" => client.send("pause"),
            // It owes the time of nine.
            _ => {
                for _ in 0..10 {
                    client.put("x");
                }
                client.flush();
            }
        }
        let mut raw = server.raw();
        // What was sent before has been read when this is answered: one shard serves both.
        raw.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").answer();
        let start = Instant::now();
        server.handle().close(key, CloseCode::NORMAL, "over").expect("the mailbox has room");
        loop {
            match client.next() {
                Received::Text(_) => {}
                other => {
                    assert_eq!(other, Received::close(1000, "over"));
                    break;
                }
            }
        }
        client.put_close(Some((1000, ""))).flush();
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        assert_eq!(reports.closed().1.cause, CloseCause::Closed, "{name}");
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: after {:?}", start.elapsed());
    }
}

/// It ended its side, was still to be sent something, and broke: nobody waits for a deadline.
#[test]
fn a_peer_that_breaks_while_the_last_bytes_are_sent_is_forgotten_at_once() {
    let (server, reports) = TestServer::rig(|config| {
        config.settings.close_timeout = 10 * DEADLINE;
        config.settings.stall_timeout = 10 * DEADLINE;
        // It is read from though its queue is long: the end of its stream is seen.
        config.settings.session.policy = Policy::DropNew;
    });
    let mut client = server.client("/breaks");
    // More than the sockets' buffers hold.
    client.put("send 30000000").put("x").flush();
    client.stream.shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(reports.closed().1.cause, CloseCause::PeerGone(None));
    assert_eq!(server.stats().connections, 1);
    SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    drop(client);
    eventually("it is gone", || server.stats().connections == 0);
}

/// Our own close frame is nothing that the peer misses.
#[test]
fn nothing_is_left_of_a_session_that_is_closed_in_order() {
    let (server, reports) = TestServer::rig(|_| {});
    let mut client = server.client("/orderly");
    client.echo("x");
    client.close();
    let (_, ended) = reports.closed();
    assert_eq!((ended.queued_bytes, ended.dropped), (0, 0), "{ended}");
}
