//! Memory that leaves the driver, or comes from the loop: bytes that are taken out of a buffer stay as they are, and what is
//! received into a room stands behind what was there.

use crate::{PATIENCE, WAIT, accepted_link, assert_sleeps, pattern, reset, turn, turn_until};
use bytes::Bytes;
use ringwave::driver::{BLOCK_SHARES, Buffer, Completion, Driver, Link, Room};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{JoinHandle, spawn};
use std::time::Instant;

every_driver! {
    bytes_that_are_taken_stay_as_they_are,
    short_reads_are_not_taken,
    a_buffer_whose_bytes_are_kept_serves_again,
    a_room_is_received_into_behind_what_is_there,
    a_room_outlasts_a_pause,
    the_end_of_the_stream_is_told_beside_a_room,
    a_reset_is_told_beside_a_room,
    a_link_with_a_room_is_closed,
    a_room_that_is_dropped_is_not_received_into,
}

/// What the peer writes: many times what a buffer holds.
const LONG: usize = 3 << 20;

/// Writes from a thread of its own, which answers the peer with its stream still open.
fn write_from_thread(mut peer: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    spawn(move || {
        peer.write_all(&bytes).expect("somebody receives");
        peer
    })
}

fn bytes_that_are_taken_stay_as_they_are<D: Driver>(mut driver: D) {
    let (link, peer) = accepted_link(&mut driver);
    let payload = pattern(LONG);
    let writer = write_from_thread(peer, payload.clone());
    let (mut kept, mut received, mut taken) = (Vec::<Bytes>::new(), 0, 0);
    driver.recv_start(link);
    turn_until(&mut driver, |driver, completion| {
        let Completion::Received { buffer, .. } = completion else { panic!("{completion:?}") };
        received += buffer.len();
        match driver.take_bytes(&buffer) {
            Some(mut bytes) => {
                assert_eq!(bytes.len(), buffer.len());
                taken += 1;
                // Nothing of every third is kept, all of the next ones, or all but the last byte.
                match taken % 3 {
                    0 => kept.push(Bytes::copy_from_slice(&bytes)),
                    1 => kept.push(bytes.split().freeze()),
                    _ => {
                        kept.push(bytes.split_to(bytes.len() - 1).freeze());
                        kept.push(Bytes::copy_from_slice(&bytes));
                    }
                }
                driver.recycle_rest(buffer, bytes);
            }
            None => {
                kept.push(Bytes::copy_from_slice(driver.bytes(&buffer)));
                driver.recycle(buffer);
            }
        }
        received == payload.len()
    });
    assert!(taken > 10, "{taken} buffers were taken");
    assert!(kept.concat() == payload, "what was kept has changed");
    writer.join().expect("it has written");
}

fn a_buffer_whose_bytes_are_kept_serves_again<D: Driver>(mut driver: D) {
    let (link, peer) = accepted_link(&mut driver);
    let payload = pattern(LONG);
    let writer = write_from_thread(peer, payload.clone());
    let (mut kept, mut received) = (Vec::new(), 0);
    driver.recv_start(link);
    turn_until(&mut driver, |driver, completion| {
        let Completion::Received { buffer, .. } = completion else { panic!("{completion:?}") };
        received += buffer.len();
        let taken = driver.take_bytes(&buffer).map(|bytes| bytes.to_vec());
        kept.extend(taken.unwrap_or_else(|| driver.bytes(&buffer).to_vec()));
        // Nothing is given back of what was taken.
        driver.recycle(buffer);
        received == payload.len()
    });
    assert!(kept == payload, "what came is not what was sent");
    writer.join().expect("it has written");
}

fn short_reads_are_not_taken<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    let count = 4096 / BLOCK_SHARES - 1;
    peer.write_all(&pattern(count)).expect("there is room");
    driver.recv_start(link);
    turn_until(&mut driver, |driver, completion| {
        let Completion::Received { buffer, .. } = completion else { panic!("{completion:?}") };
        assert!(driver.take_bytes(&buffer).is_none());
        assert_eq!(driver.bytes(&buffer), pattern(count));
        driver.recycle(buffer);
        true
    });
}

/// Everything that is received, in a row, and in rooms as far as the driver takes them.
#[derive(Default)]
struct Gathering {
    bytes: Vec<u8>,
    /// Rooms that have come back.
    filled: usize,
    is_lent: bool,
}

impl Gathering {
    /// Takes what came, and gives a room for `room` bytes more.
    fn take<D: Driver>(&mut self, driver: &mut D, link: Link, completion: Completion, room: usize) {
        match completion {
            Completion::Received { buffer, .. } => self.take_buffer(driver, buffer),
            Completion::Filled { link: filled, room, count } => {
                assert_eq!(filled, link);
                assert!(std::mem::take(&mut self.is_lent) && count > 0);
                let before = self.bytes.len();
                self.bytes.extend_from_slice(&room.into_bytes());
                assert_eq!(self.bytes.len(), before + "before".len() + count);
                self.bytes.drain(before..before + "before".len());
                self.filled += 1;
            }
            other => panic!("{other:?}"),
        }
        if driver.takes_room(link).is_some() {
            let mut bytes = Vec::with_capacity(10 + room);
            bytes.extend_from_slice(b"before");
            driver.recv_into(link, Room::behind(bytes, room));
            self.is_lent = true;
            assert!(driver.takes_room(link).is_none(), "it has one");
        }
    }

    fn take_buffer<D: Driver>(&mut self, driver: &mut D, buffer: Buffer) {
        assert!(!self.is_lent, "a buffer comes though there is a room");
        self.bytes.extend_from_slice(driver.bytes(&buffer));
        driver.recycle(buffer);
    }
}

fn a_room_is_received_into_behind_what_is_there<D: Driver>(mut driver: D) {
    let (link, peer) = accepted_link(&mut driver);
    let payload = pattern(LONG);
    let writer = write_from_thread(peer, payload.clone());
    let mut gathering = Gathering::default();
    driver.recv_start(link);
    for room in [101, 4_096, 65_536, 1 << 20].into_iter().cycle() {
        if gathering.bytes.len() == payload.len() {
            break;
        }
        turn(&mut driver, WAIT, |driver, completion| gathering.take(driver, link, completion, room));
    }
    assert!(gathering.filled > 5, "{} rooms were filled", gathering.filled);
    assert!(gathering.bytes == payload, "what came is not what was sent");
    let mut peer = writer.join().expect("it has written");
    assert_sleeps(&mut driver, 3);
    // What comes next is received into it.
    peer.write_all(b"more").expect("there is room");
    turn_until(&mut driver, |driver, completion| {
        gathering.take(driver, link, completion, 100);
        gathering.bytes.ends_with(b"more")
    });
}

/// A link that has said much and has a room for `room` bytes, and the bytes that came; its peer is silent now.
fn link_with_room<D: Driver>(driver: &mut D, room: usize) -> (Link, TcpStream, Gathering) {
    let (link, peer) = accepted_link(driver);
    let payload = pattern(LONG);
    let writer = write_from_thread(peer, payload.clone());
    let mut gathering = Gathering::default();
    driver.recv_start(link);
    turn_until(driver, |driver, completion| {
        gathering.take(driver, link, completion, room);
        gathering.bytes.len() == payload.len()
    });
    assert!(gathering.is_lent);
    turn(driver, WAIT, |_, completion| panic!("{completion:?}"));
    (link, writer.join().expect("it has written"), gathering)
}

fn a_room_outlasts_a_pause<D: Driver>(mut driver: D) {
    let (link, mut peer, mut gathering) = link_with_room(&mut driver, 100);
    driver.recv_stop(link);
    turn(&mut driver, WAIT / 5, |_, completion| panic!("{completion:?}"));
    peer.write_all(b"after a pause").expect("there is room");
    assert_sleeps(&mut driver, 3);
    assert!(driver.takes_room(link).is_none());
    driver.recv_start(link);
    let before = gathering.filled;
    turn_until(&mut driver, |driver, completion| {
        gathering.take(driver, link, completion, 100);
        gathering.bytes.ends_with(b"after a pause")
    });
    assert!(gathering.filled > before, "it came into something else");
}

fn a_room_that_is_dropped_is_not_received_into<D: Driver>(mut driver: D) {
    let (link, mut peer, _) = link_with_room(&mut driver, 100);
    driver.drop_room(link);
    turn(&mut driver, WAIT / 5, |_, completion| panic!("{completion:?}"));
    peer.write_all(b"after it").expect("there is room");
    turn_until(&mut driver, |driver, completion| {
        let Completion::Received { buffer, .. } = completion else { panic!("{completion:?}") };
        assert_eq!(driver.bytes(&buffer), b"after it");
        driver.recycle(buffer);
        true
    });
    // Without one there is nothing to drop.
    driver.drop_room(link);
    closes(&mut driver, link);
    driver.drop_room(link);
}

fn the_end_of_the_stream_is_told_beside_a_room<D: Driver>(mut driver: D) {
    let (link, peer, _) = link_with_room(&mut driver, 100);
    peer.shutdown(Shutdown::Write).expect("it stands");
    turn_until(&mut driver, |_, completion| match completion {
        Completion::ReceiveEnded { link: ended, error: None } => ended == link,
        other => panic!("{other:?}"),
    });
    closes(&mut driver, link);
}

fn a_reset_is_told_beside_a_room<D: Driver>(mut driver: D) {
    let (link, peer, _) = link_with_room(&mut driver, 100);
    reset(peer);
    turn_until(&mut driver, |_, completion| match completion {
        Completion::ReceiveEnded { link: ended, error: Some(_) } => ended == link,
        other => panic!("{other:?}"),
    });
    closes(&mut driver, link);
}

fn a_link_with_a_room_is_closed<D: Driver>(mut driver: D) {
    let (link, mut peer, _) = link_with_room(&mut driver, 100);
    closes(&mut driver, link);
    assert_eq!(peer.read(&mut [0; 1]).ok(), Some(0));
    // Nor does one that the kernel has not been given yet keep it from being closed.
    let (link, peer) = accepted_link(&mut driver);
    let writer = write_from_thread(peer, pattern(LONG));
    let (mut gathering, mut is_closed) = (Gathering::default(), false);
    driver.recv_start(link);
    let begin = Instant::now();
    while !is_closed {
        assert!(begin.elapsed() < PATIENCE);
        turn(&mut driver, WAIT, |driver, completion| match completion {
            Completion::Closed { link: closed } => is_closed = closed == link,
            // Closed with the last completion of the turn, and told nothing after that.
            completion if !gathering.is_lent => {
                gathering.take(driver, link, completion, 1 << 20);
                if gathering.is_lent {
                    driver.close(link);
                }
            }
            other => panic!("{other:?}"),
        });
    }
    drop(writer);
}

fn closes<D: Driver>(driver: &mut D, link: Link) {
    driver.close(link);
    turn_until(driver, |_, completion| match completion {
        Completion::Closed { link: closed } => closed == link,
        other => panic!("{other:?}"),
    });
}
