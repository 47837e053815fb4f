//! What is sent comes back: whole, of the same kind, in order, however it was cut and however many speak at once.

use crate::support::{Client, Raw, Received, TestServer, sockets_at_once};
use ringwave::base::limits::KIB;
use ringwave::{Context, Handler, Message, MessageKind, Prepared, Session, Upgrade, UpgradeRequest};
use std::io::Write;

/// A text of `length` bytes, with characters of one to four bytes where they fit.
fn text_of(length: usize) -> String {
    let characters = "aé€😀";
    characters.repeat(length / characters.len()) + &"x".repeat(length % characters.len())
}

fn bytes_of(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}

/// The bounds of the three length encodings (RFC 6455 §5.2), and messages of many reads.
#[test]
fn messages_of_every_length_come_back_the_same() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = server.client("/echo");
    for length in [0, 1, 125, 126, 4_082, 4_096, 65_535, 65_536, 1_000_000] {
        client.echo(&text_of(length));
        client.echo(&bytes_of(length));
    }
    client.close();
}

#[test]
fn frames_behind_the_request_are_answered_behind_the_101() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = Client::offering(server.address(), "/echo", &[]);
    client.put("first").put_ping(b"?").put(&bytes_of(10_000)).put("last").put_close(Some((1000, "")));
    client.flush();
    let expected = [
        Received::Open(None),
        Received::Text("first".to_owned()),
        Received::Pong(b"?".to_vec()),
        Received::Binary(bytes_of(10_000)),
        Received::Text("last".to_owned()),
        Received::close(1000, ""),
    ];
    for expected in expected {
        assert_eq!(client.next(), expected);
    }
}

#[test]
fn everything_may_come_one_byte_at_a_time() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = Client::offering(server.address(), "/echo", &[]);
    client.put("aé€😀").put(&bytes_of(130)).put("").put_ping(b"?");
    client.put_first(MessageKind::Text, "a€".as_bytes()).put_ping(b"!").put_next(b"", false).put_next(b"z", true);
    client.put_close(Some((4999, "done")));
    for byte in client.take_out() {
        client.stream.write_all(&[byte]).expect("the server takes it");
    }
    let expected = [
        Received::Open(None),
        Received::Text("aé€😀".to_owned()),
        Received::Binary(bytes_of(130)),
        Received::Text(String::new()),
        Received::Pong(b"?".to_vec()),
        Received::Pong(b"!".to_vec()),
        Received::Text("a€z".to_owned()),
        Received::close(4999, ""),
    ];
    for expected in expected {
        assert_eq!(client.next(), expected);
    }
}

/// RFC 6455 §5.4: control frames stand between fragments, and are answered before the message is whole.
#[test]
fn a_ping_between_fragments_is_answered_before_the_message() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = server.client("/echo");
    for (kind, split) in [(MessageKind::Binary, 0), (MessageKind::Binary, 5_000), (MessageKind::Text, 3)] {
        let payload = text_of(12_000).into_bytes();
        let (first, rest) = payload.split_at(split);
        client.put_first(kind, first).put_ping(b"between").flush();
        // The message is not finished: what comes is the pong.
        assert_eq!(client.next(), Received::Pong(b"between".to_vec()));
        client.put_next(&rest[..7], false).put_ping(&[b'p'; 125]).put_next(&rest[7..], true).flush();
        assert_eq!(client.next(), Received::Pong(vec![b'p'; 125]));
        let whole = match kind {
            MessageKind::Text => Received::Text(String::from_utf8(payload).expect("it was a text")),
            MessageKind::Binary => Received::Binary(payload),
        };
        assert!(client.next() == whole);
    }
}

#[test]
fn pipelined_messages_come_back_in_order() {
    const COUNT: usize = 10_000;
    let (server, _events) = TestServer::desk(|_| {});
    let mut client = server.client("/echo");
    let message = |number: usize| format!("{number} {}", "x".repeat(number % 300));
    for number in 0..COUNT {
        client.put(&message(number));
    }
    let wire = client.take_out();
    let mut stream = client.stream.try_clone().expect("a descriptor is free");
    // Written beside the reading: both directions hold less than all of it.
    let writer = std::thread::spawn(move || stream.write_all(&wire));
    for number in 0..COUNT {
        assert_eq!(client.text(), message(number));
    }
    writer.join().expect("it does not panic").expect("the server takes it in time");
    client.close();
}

/// One thread opens them all, writes to them all, reads from them all.
#[test]
fn thousands_open_at_once_and_each_gets_its_own() {
    let count = sockets_at_once(2_000);
    let (server, _events) = TestServer::desk(|config| config.shards = 2);
    let mut clients: Vec<Client> =
        (0..count).map(|number| Client::offering(server.address(), &format!("/echo?{number}"), &[])).collect();
    for client in &mut clients {
        client.flush();
    }
    for client in &mut clients {
        assert_eq!(client.next(), Received::Open(None));
    }
    assert_eq!(server.handle().stats().sessions, count as u64);
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&format!("{number} in round {round}"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.text(), format!("{number} in round {round}"));
        }
    }
    let stats = server.handle().stats();
    assert_eq!(
        (stats.opened, stats.messages_received, stats.messages_sent),
        (count as u64, 3 * count as u64, 3 * count as u64)
    );
}

/// Few and small receive buffers: whoever finds none waits, and loses nothing.
#[test]
fn few_receive_buffers_starve_nobody() {
    let (server, _events) = TestServer::desk(|config| {
        config.receive_buffers = 2;
        config.receive_buffer_bytes = 512;
    });
    let mut clients: Vec<Client> = (0..30).map(|_| server.client("/echo")).collect();
    let payload = bytes_of(20_000);
    for client in &mut clients {
        client.send(&payload);
    }
    for client in &mut clients {
        assert!(client.next() == Message::Binary(&payload).into());
    }
}

/// What the server sends is not masked, and takes as few bytes as it can (RFC 6455 §5.1, §5.2).
#[test]
fn frames_from_the_server_are_as_the_rfc_wants_them() {
    let (server, _events) = TestServer::desk(|_| {});
    for (length, header) in [
        (0usize, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut client = server.client("/echo");
        client.send(&bytes_of(length));
        let mut raw = Raw::over(client.stream);
        assert_eq!(raw.bytes(header.len()), header);
        assert!(raw.bytes(length) == bytes_of(length));
    }
}

/// Says of each message whether it is prepared where it lies, by itself and as the other kind.
struct Copyist;

impl Handler for Copyist {
    type Data = ();

    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        let payload = message.as_bytes();
        let lies_there = |prepared: &Prepared| prepared.frame()[prepared.frame().len() - payload.len()..].as_ptr();
        let prepared = session.prepare(message);
        let is_shared = lies_there(&prepared) == payload.as_ptr();
        // Prepared again it is the very same; a part of it, an equal one, or the other kind is not.
        assert_eq!(lies_there(&session.prepare(message)) == payload.as_ptr(), is_shared);
        let other = match message {
            Message::Text(text) => Message::Binary(text.as_bytes()),
            Message::Binary(bytes) => std::str::from_utf8(bytes).map_or(Message::Binary(b"no text"), Message::Text),
        };
        let equal = payload.to_vec();
        let copies = [session.prepare(other), session.prepare(&payload[..payload.len() - 1]), session.prepare(&equal)];
        for copy in copies {
            assert!(!prepared.frame().as_ptr_range().contains(&copy.frame().as_ptr()));
        }
        assert_eq!(session.prepare(other).frame()[2..], Prepared::new(other).frame()[2..]);
        session.subscribe("all").expect("a sound name");
        // The frame that is sent and published outlives the call.
        session.send(message);
        session.publish("all", message);
        session.send(&is_shared.to_string());
    }
}

#[test]
fn a_message_that_was_gathered_is_sent_on_without_a_copy() {
    let server = TestServer::start(|_| {}, |_| Copyist);
    let mut client = server.client("/");
    for (bytes, fragments, is_shared) in [(10, 1, false), (10, 2, true), (100 * KIB, 1, true), (100 * KIB, 3, true)] {
        let text = "text ".repeat(bytes / 5);
        for kind in [MessageKind::Text, MessageKind::Binary] {
            let pieces: Vec<_> = text.as_bytes().chunks(bytes.div_ceil(fragments)).collect();
            match pieces[..] {
                [whole] if kind == MessageKind::Binary => client.put(whole),
                [_] => client.put(&text),
                [first, ref rest @ ..] => {
                    client.put_first(kind, first);
                    rest.iter().enumerate().for_each(|(index, next)| {
                        client.put_next(next, index + 1 == rest.len());
                    });
                    &mut client
                }
                [] => unreachable!("it is not empty"),
            };
            client.flush();
            let expected = match kind {
                MessageKind::Text => Received::Text(text.clone()),
                MessageKind::Binary => Received::Binary(text.clone().into_bytes()),
            };
            assert!(client.next() == expected && client.next() == expected);
            assert_eq!(client.text(), is_shared.to_string(), "{bytes} bytes in {fragments} frames, {kind:?}");
        }
    }
}
