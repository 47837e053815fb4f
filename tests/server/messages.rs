//! What is sent comes back: whole, of the same kind, in order, however it was cut and however many speak at once.

use crate::support::{Client, Raw, Received, TestServer, sockets_at_once};
use ringwave::{Message, MessageKind};
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
