//! Sending: progress that is told, ends that are told once, and an end of stream behind all bytes.

use crate::{accepted_link, batch_of, pattern, reset, turn_until};
use ringwave::base::limits::SEND_BYTES_MAX;
use ringwave::driver::{Completion, Driver};
use std::io::{ErrorKind, Read, Write};
use std::thread::spawn;

every_driver! {
    a_long_batch_tells_of_its_parts,
    a_batch_in_many_parts_arrives_whole,
    the_stream_ends_behind_all_bytes,
    a_peer_that_is_gone_is_an_error,
}

fn a_long_batch_tells_of_its_parts<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    let payload = pattern(5 * SEND_BYTES_MAX + 1);
    let mut read = vec![0; payload.len()];
    let reader = spawn(move || peer.read_exact(&mut read).map(|()| read));
    driver.send(link, batch_of(&payload));
    let (mut left, mut parts) = (payload.len(), 0);
    turn_until(&mut driver, |_, completion| match completion {
        Completion::SentPart { remaining, .. } => {
            assert!((1..=SEND_BYTES_MAX).contains(&(left - remaining)), "{left} bytes, then {remaining}");
            (left, parts) = (remaining, parts + 1);
            false
        }
        Completion::Sent { error: None, batch, .. } => batch.is_empty(),
        other => panic!("{other:?}"),
    });
    assert!(left <= SEND_BYTES_MAX, "{left} bytes left at the last part");
    assert_eq!(parts, 5);
    assert!(reader.join().expect("it reads").expect("everything comes") == payload);
}

fn a_batch_in_many_parts_arrives_whole<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    let payload = pattern(1 << 20);
    let mut batch = batch_of(&payload[..10]);
    for (number, part) in payload[10..].chunks(2_999).enumerate() {
        match number % 3 {
            0 => batch.append(|out| out.extend_from_slice(part)),
            _ => batch.push_shared(&bytes::Bytes::copy_from_slice(part)),
        }
    }
    let mut read = vec![0; payload.len()];
    let reader = spawn(move || peer.read_exact(&mut read).map(|()| read));
    driver.send(link, batch);
    turn_until(&mut driver, |_, completion| match completion {
        Completion::SentPart { .. } => false,
        Completion::Sent { error: None, .. } => true,
        other => panic!("{other:?}"),
    });
    assert!(reader.join().expect("it reads").expect("everything comes") == payload);
}

fn the_stream_ends_behind_all_bytes<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    let payload = pattern(1 << 20);
    let reader = spawn(move || {
        let mut read = Vec::new();
        peer.read_to_end(&mut read).map(|_| (peer, read))
    });
    driver.send(link, batch_of(&payload));
    turn_until(&mut driver, |driver, completion| match completion {
        Completion::SentPart { .. } => false,
        Completion::Sent { error: None, .. } => {
            driver.shutdown(link);
            driver.recv_start(link);
            true
        }
        other => panic!("{other:?}"),
    });
    // A shutdown is handed over by the next turn at the latest; the peer may wait for that.
    let mut received = Vec::new();
    let answerer = spawn(move || {
        let (mut peer, read) = reader.join().expect("it reads").expect("the stream ends");
        peer.write_all(b"the other half").map(|()| read)
    });
    turn_until(&mut driver, |driver, completion| match completion {
        Completion::Received { buffer, .. } => {
            received.extend_from_slice(driver.bytes(&buffer));
            driver.recycle(buffer);
            false
        }
        Completion::ReceiveEnded { error, .. } => error.is_none(),
        other => panic!("{other:?}"),
    });
    assert_eq!(received, b"the other half");
    assert!(answerer.join().expect("it answers").expect("somebody receives") == payload);
}

fn a_peer_that_is_gone_is_an_error<D: Driver>(mut driver: D) {
    let (link, peer) = accepted_link(&mut driver);
    reset(peer);
    driver.send(link, batch_of(b"is anybody there?"));
    let mut told = None;
    turn_until(&mut driver, |_, completion| match completion {
        Completion::Sent { error, .. } => told.replace(error.map(|error| error.kind())).is_none(),
        other => panic!("{other:?}"),
    });
    assert!(matches!(told, Some(Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))), "{told:?}");
}
