//! Messages sent in fragments: what stands between them, what waits for the last one, what becomes of an unfinished one.

use crate::support::{Puppet, Received, Theatre};
use ringwave::base::limits::KIB;
use ringwave::{MessageKind, SendOutcome, SessionOptions};

fn theatre() -> Theatre {
    Theatre::open(|_| {}, |_| SessionOptions::default())
}

fn subscriber(theatre: &Theatre, name: &str) -> Puppet {
    let mut puppet = theatre.puppet(name);
    puppet.run(|session| session.subscribe("news")).expect("a sound name");
    puppet
}

#[track_caller]
fn assert_binary(puppet: &mut Puppet, expected: &[u8]) {
    assert!(puppet.client.next() == Received::Binary(expected.to_vec()));
}

/// RFC 6455 §5.4: the fragments of one message must not be interleaved with those of another.
#[test]
fn messages_wait_for_the_last_fragment_though_those_before_have_left() {
    let theatre = theatre();
    let (mut reader, mut publisher) = (subscriber(&theatre, "reader"), theatre.puppet("publisher"));
    for bytes in [5, 100 * KIB] {
        assert!(reader.run(move |session| session.send_first(MessageKind::Binary, &vec![1; bytes])).is_taken());
        while reader.run(|session| session.buffered_bytes()) > 0 {}
        // Sent by the session, published to it, and sent to it by others: all of it waits.
        assert_eq!(reader.run(|session| session.send("sent")), SendOutcome::Queued);
        assert_eq!(publisher.run(|session| session.publish("news", "published")).taken, 1);
        let key = reader.key();
        theatre.server.handle().send(key, &vec![3; bytes]).expect("the mailbox has room");
        assert_eq!(publisher.run(move |session| session.send_to(key, "from another")), SendOutcome::Queued);
        assert_eq!(reader.run(|session| session.ping(b"between")), SendOutcome::Sent);
        assert_eq!(reader.client.next(), Received::Ping(b"between".to_vec()));
        assert!(reader.run(move |session| session.send_next(&vec![1; bytes], false)).is_taken());
        assert_eq!(reader.run(|session| session.send_first(MessageKind::Text, b"")), SendOutcome::Closed);
        assert!(reader.run(move |session| session.send_next(&vec![1; bytes], true)).is_taken());
        assert_eq!(reader.run(|session| session.send_next(b"", true)), SendOutcome::Closed);
        assert_binary(&mut reader, &vec![1; 3 * bytes]);
        assert_eq!((reader.client.text(), reader.client.text()), ("sent".into(), "published".into()));
        assert_binary(&mut reader, &vec![3; bytes]);
        assert_eq!(reader.client.text(), "from another");
    }
}
