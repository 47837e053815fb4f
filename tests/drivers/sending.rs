//! Sending: progress that is told, ends that are told once, and an end of stream behind all bytes.

use crate::{PATIENCE, accepted_link, batch_of, epoll, listener, next_accepted, pattern, reset, turn, turn_until};
use ringwave::base::limits::{KIB, SEND_BYTES_MAX, SEND_BYTES_MORE};
use ringwave::driver::{Batch, Completion, Driver, Epoll};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::thread::spawn;
use std::time::{Duration, Instant};

every_driver! {
    a_long_batch_tells_of_its_parts,
    many_parts_are_told_by_their_bytes,
    a_batch_in_many_parts_arrives_whole,
    the_stream_ends_behind_all_bytes,
    a_peer_that_is_gone_is_an_error,
}

/// On epoll a send that fits ends at once. It is told of in the next turn; in this one if the loop has handed over what it started.
#[test]
fn what_has_left_is_told_of_after_a_submit() {
    let mut driver = epoll(10);
    let (link, mut peer) = accepted_link(&mut driver);
    turn(&mut driver, Duration::ZERO, |_, completion| panic!("{completion:?}"));
    let is_sent = |driver: &mut Epoll| match driver.next_completion() {
        Some(Completion::Sent { error: None, .. }) => true,
        None => false,
        other => panic!("{other:?}"),
    };
    driver.send(link, batch_of(b"one"));
    assert!(!is_sent(&mut driver));
    driver.submit().expect("there is nothing to refuse");
    assert!(is_sent(&mut driver) && !is_sent(&mut driver));
    driver.send(link, batch_of(b"two"));
    assert!(!is_sent(&mut driver));
    driver.wait(Some(PATIENCE)).expect("the driver waits");
    assert!(is_sent(&mut driver) && !is_sent(&mut driver));
    let mut read = [0; 6];
    peer.read_exact(&mut read).expect("both come");
    assert_eq!(&read, b"onetwo");
}

fn a_long_batch_tells_of_its_parts<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    let payload = pattern(5 * SEND_BYTES_MAX + SEND_BYTES_MORE + 1);
    let mut read = vec![0; payload.len()];
    let reader = spawn(move || peer.read_exact(&mut read).map(|()| read));
    driver.send(link, batch_of(&payload));
    let (mut left, mut parts) = (payload.len(), 0);
    turn_until(&mut driver, |_, completion| match completion {
        Completion::SentPart { remaining, .. } => {
            assert!(
                (SEND_BYTES_MAX..2 * SEND_BYTES_MAX).contains(&(left - remaining)),
                "{left} bytes, then {remaining}"
            );
            (left, parts) = (remaining, parts + 1);
            false
        }
        Completion::Sent { error: None, batch, .. } => batch.is_empty(),
        other => panic!("{other:?}"),
    });
    assert!((1..=SEND_BYTES_MORE + 1).contains(&left), "{left} bytes left at the last part");
    assert_eq!(parts, 5);
    assert!(reader.join().expect("it reads").expect("everything comes") == payload);
}

fn many_parts_are_told_by_their_bytes<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    // A submission takes 16 parts, so 48 KiB of these.
    tells_by_bytes(&mut driver, address, 64, 0..=0);
    tells_by_bytes(&mut driver, address, 400, 3..=4);
}

/// Sends parts of 3 KiB to a peer that takes a little, waits until nothing leaves, and takes a little more.
fn tells_by_bytes<D: Driver>(driver: &mut D, address: SocketAddr, count: usize, told: RangeInclusive<usize>) {
    let peer = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    peer.set_recv_buffer_size(8192).expect("a small window");
    peer.connect(&address.into()).expect("somebody listens");
    peer.set_nonblocking(true).expect("a socket");
    let link = next_accepted(driver);

    let payload = pattern(count * 3 * KIB);
    let mut batch = Box::new(Batch::default());
    for part in payload.chunks(3 * KIB) {
        batch.push_shared(&bytes::Bytes::copy_from_slice(part));
    }
    driver.send(link, batch);
    let (mut left, mut parts, mut is_sent) = (payload.len(), 0, false);
    let (mut read, mut piece) = (Vec::new(), [0; 16 * KIB]);
    let begin = Instant::now();
    while read.len() < payload.len() {
        assert!(begin.elapsed() < PATIENCE, "{} bytes of {} came", read.len(), payload.len());
        turn(driver, Duration::ZERO, |_, completion| match completion {
            Completion::SentPart { remaining, .. } => {
                assert!(left - remaining >= SEND_BYTES_MAX, "{left} bytes, then {remaining}");
                (left, parts) = (remaining, parts + 1);
            }
            Completion::Sent { error: None, batch, .. } => is_sent = batch.is_empty(),
            other => panic!("{other:?}"),
        });
        if let Ok(len) = (&peer).read(&mut piece) {
            read.extend_from_slice(&piece[..len]);
        }
    }
    if !is_sent {
        turn_until(driver, |_, completion| matches!(completion, Completion::Sent { error: None, .. }));
    }
    assert!(read == payload && told.contains(&parts), "{parts} parts are told");
    driver.close(link);
    turn_until(driver, |_, completion| matches!(completion, Completion::Closed { .. }));
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
