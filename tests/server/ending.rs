//! How sessions end, and what the application hears of it: once, with the cause.

use crate::support::{Ended, Event, Raw, Received, TestServer};
use ringwave::protocol::error::ProtocolError;
use ringwave::{CloseCause, CloseCode};
use socket2::SockRef;
use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

fn peer_closed(code: CloseCode, reason: &str) -> CloseCause {
    CloseCause::PeerClosed(Some((code, reason.to_owned())))
}

/// RFC 6455 §5.5.1: the answer carries the code that came.
#[test]
fn a_close_frame_is_answered_with_its_code() {
    let (server, events) = TestServer::desk(|_| {});
    let application = CloseCode::new(4999).expect("one of the application's codes");
    for (code, reason) in [(CloseCode::NORMAL, ""), (CloseCode::GOING_AWAY, "bye ✓"), (application, "x")] {
        let mut client = server.client("/echo?c");
        client.put_close(Some((code.number(), reason))).flush();
        assert_eq!(client.next(), Received::close(code.number(), ""));
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        assert_eq!(events.closed(), ("c".to_owned(), peer_closed(code, reason)));
    }
    let mut client = server.client("/echo?c");
    client.put_close(None).flush();
    assert_eq!(client.next(), Received::Close(None));
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    assert_eq!(events.closed(), ("c".to_owned(), CloseCause::PeerClosed(None)));
}

#[test]
fn what_came_before_the_close_frame_is_answered_before_it() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = server.client("/echo");
    let large = vec![b'l'; 3_000_000];
    client.put(&large).put("small").put_close(Some((1000, ""))).flush();
    assert!(client.next() == Received::Binary(large));
    assert_eq!(client.text(), "small");
    assert_eq!(client.next(), Received::close(1000, ""));
    assert_eq!(client.next(), Received::End(Ended::Orderly));
}

#[test]
fn the_application_closes_with_code_and_reason() {
    let (server, events) = TestServer::desk(|_| {});
    let long = "é".repeat(100);
    for (reason, received) in [("", ""), ("go away", "go away"), (&long, &long[..122])] {
        let mut client = server.client("/desk?c");
        // What comes behind it in the same read is not heard.
        client.put(&format!("close 3000 {reason}")).put("send unheard").put_ping(b"unanswered").flush();
        assert_eq!(client.next(), Received::close(3000, received));
        client.put("send unheard").put_close(Some((3000, ""))).flush();
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        assert_eq!(events.closed(), ("c".to_owned(), CloseCause::Closed));
    }
    drop(server);
    assert_eq!(events.rest(), []);
}

#[test]
fn terminate_ends_without_a_close_frame() {
    let (server, events) = TestServer::desk(|_| {});
    let mut client = server.client("/desk?t");
    client.send("terminate");
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    assert_eq!(events.closed(), ("t".to_owned(), CloseCause::Closed));
}

#[test]
fn a_peer_that_goes_without_a_word_is_gone() {
    let (server, events) = TestServer::desk(|_| {});
    // The end of the stream, between messages and within one; a half-open stream is over too.
    drop(server.client("/echo?between"));
    assert_eq!(events.closed(), ("between".to_owned(), CloseCause::PeerGone(None)));
    let mut within = server.client("/echo?within");
    within.stream.write_all(&[0x82, 0xff]).expect("the server takes it");
    drop(within);
    assert_eq!(events.closed(), ("within".to_owned(), CloseCause::PeerGone(None)));
    let mut half = server.client("/echo?half");
    half.send("last words");
    half.stream.shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(half.text(), "last words");
    assert_eq!(half.next(), Received::End(Ended::Orderly));
    assert_eq!(events.closed(), ("half".to_owned(), CloseCause::PeerGone(None)));
    // A reset.
    let reset = server.client("/echo?reset");
    SockRef::from(&reset.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    drop(reset);
    assert_eq!(events.closed(), ("reset".to_owned(), CloseCause::PeerGone(Some(libc::ECONNRESET))));
}

#[test]
fn a_broken_rule_is_answered_with_its_code_and_reported() {
    let (server, events) = TestServer::desk(|config| {
        config.settings.limits.message_bytes_max = 1_000;
        config.settings.limits.frame_bytes_max = 500;
        config.settings.limits.fragments_max = 2;
    });
    let masked = |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat();
    let table: [(Vec<u8>, ProtocolError); 14] = [
        (masked(0xc1, b""), ProtocolError::ReservedBits),
        (masked(0x83, b""), ProtocolError::ReservedOpcode(3)),
        (vec![0x81, 0x00], ProtocolError::MaskMissing),
        (masked(0x09, b""), ProtocolError::ControlFragmented),
        (vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], ProtocolError::ControlTooLong),
        (vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], ProtocolError::LengthNotMinimal),
        (masked(0x80, b""), ProtocolError::ContinuationWithoutMessage),
        ([masked(0x01, b"a"), masked(0x81, b"b")].concat(), ProtocolError::MessageInsideMessage),
        (masked(0x88, b"\x03"), ProtocolError::ClosePayloadTooShort),
        (masked(0x88, b"\x03\xed"), ProtocolError::CloseCodeInvalid(1005)),
        (masked(0x81, b"\xff"), ProtocolError::TextNotUtf8),
        (vec![0x82, 0xfe, 0x03, 0xe9, 0, 0, 0, 0], ProtocolError::MessageTooLong),
        (vec![0x82, 0xfe, 0x01, 0xf5, 0, 0, 0, 0], ProtocolError::FrameTooLong),
        ([masked(0x01, b""), masked(0x00, b""), masked(0x80, b"")].concat(), ProtocolError::FragmentsTooMany),
    ];
    for (wire, error) in table {
        let mut client = server.client("/echo?broken");
        // What came before is answered, what comes behind is not read.
        client.put("sound");
        let wire = [client.take_out(), wire, masked(0x81, b"behind")].concat();
        client.stream.write_all(&wire).expect("the server takes it");
        assert_eq!(client.text(), "sound");
        assert_eq!(client.next(), Received::close(error.close_code().number(), error.rule()), "{error}");
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        assert_eq!(events.closed(), ("broken".to_owned(), CloseCause::Protocol(error)));
    }
}

/// The peer is told why though it is in the middle of a long message, which nobody reads any more.
#[test]
fn the_reason_is_not_destroyed_by_what_the_peer_goes_on_sending() {
    let (server, _events) = TestServer::desk(|config| config.settings.limits.message_bytes_max = 1_000);
    for _ in 0..10 {
        let mut client = server.client("/echo");
        client.put(&vec![0; 2_000_000]).flush();
        assert_eq!(client.next(), Received::close(1009, "the message is too long"));
        assert_eq!(client.next(), Received::End(Ended::Orderly));
    }
}

/// Every way at once, one after the other on the same server: a report of the end for each report of the beginning.
#[test]
fn the_end_is_reported_once_for_each_session() {
    let (server, events) = TestServer::desk(|config| config.settings.close_timeout = Duration::from_millis(50));
    let orders = ["close 1000 bye", "terminate", "send stay"];
    for (number, order) in (0..60).map(|number| (number, orders[number % orders.len()])) {
        let mut client = server.client(&format!("/desk?{number}"));
        client.put(order);
        match number % 5 {
            0 => client.flush(),
            1 => client.put_close(None).flush(),
            2 => client.put_close(Some((1000, ""))).flush(),
            3 => {
                client.flush();
                SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
            }
            _ => {}
        }
        drop(client);
    }
    // One that is never asked anything, and one that has not upgraded.
    let silent = server.client("/desk?silent");
    let waiting = server.raw();
    drop(server);
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for event in events.rest() {
        match event {
            Event::Open { name, .. } => open.push(name),
            Event::Close(name, _) => closed.push(name),
            _ => {}
        }
    }
    assert_eq!(open.len(), 61);
    open.sort();
    closed.sort();
    assert_eq!(open, closed);
    drop((silent, waiting));
}

/// The application's close wins over a close frame of the peer's that stands in the same read, and is answered by it.
#[test]
fn closes_that_cross_are_one_handshake() {
    let (server, events) = TestServer::desk(|_| {});
    let mut client = server.client("/desk?crossing");
    client.put("close 3001 mine").put_close(Some((3002, "yours"))).flush();
    assert_eq!(client.next(), Received::close(3001, "mine"));
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    assert_eq!(events.closed(), ("crossing".to_owned(), CloseCause::Closed));
}

/// A peer may stop reading and close: the close frame that answers it is the last thing on the wire.
#[test]
fn nothing_follows_the_close_frame_on_the_wire() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = server.client("/echo");
    for _ in 0..50 {
        client.put("before");
    }
    client.put_close(Some((1000, "")));
    let wire = client.take_out();
    let mut raw = Raw::over(client.stream);
    raw.write(wire);
    let (bytes, ended) = raw.rest();
    assert_eq!(ended, Ended::Orderly);
    assert_eq!(bytes.len(), 50 * 8 + 4);
    assert!(bytes.ends_with(b"\x88\x02\x03\xe8"));
}
