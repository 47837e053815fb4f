//! Receiving: nothing unasked, nothing lost, nobody starved, and buffers that stay as they are until they go back.

use crate::{
    PATIENCE, WAIT, accepted_link, assert_sleeps, listener, next_accepted, pattern, peer_of, turn, turn_until, uring,
    uring_with,
};
use ringwave::base::limits::SHORT_READS_MAX;
use ringwave::driver::{Buffer, Completion, Driver, Epoll, EpollConfig, Link, Uring, UringConfig};
use std::io::Write;
use std::net::TcpStream;
use std::thread::{JoinHandle, spawn};
use std::time::Instant;

every_driver! {
    nothing_is_received_before_it_is_asked_for,
    reception_that_stops_and_starts_loses_nothing,
    buffers_that_are_kept_stay_as_they_are,
    a_loop_that_keeps_all_buffers_sleeps,
}

/// Writes from a thread of its own, which answers the peer with its stream still open.
fn write_from_thread(mut peer: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    spawn(move || {
        peer.write_all(&bytes).expect("somebody receives");
        peer
    })
}

fn nothing_is_received_before_it_is_asked_for<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    peer.write_all(b"early").expect("there is room");
    assert_sleeps(&mut driver, 5);
    driver.recv_start(link);
    let mut received = Vec::new();
    turn_until(&mut driver, |driver, completion| {
        take(driver, link, completion, &mut received);
        received == b"early"
    });
}

/// Appends what was received, and gives the buffer back.
fn take<D: Driver>(driver: &mut D, expected: Link, completion: Completion, received: &mut Vec<u8>) {
    match completion {
        Completion::Received { link, buffer } if link == expected => {
            received.extend_from_slice(driver.bytes(&buffer));
            driver.recycle(buffer);
        }
        other => panic!("{other:?}"),
    }
}

fn reception_that_stops_and_starts_loses_nothing<D: Driver>(mut driver: D) {
    let (link, peer) = accepted_link(&mut driver);
    let payload = pattern(1 << 20);
    let writer = write_from_thread(peer, payload.clone());
    let mut received = Vec::new();
    let begin = Instant::now();
    for round in 0.. {
        if received.len() == payload.len() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{} bytes came", received.len());
        driver.recv_start(link);
        turn(&mut driver, WAIT, |driver, completion| {
            take(driver, link, completion, &mut received);
            driver.recv_stop(link);
            // Every other time at once, else after the turn.
            if round % 2 == 0 {
                driver.recv_start(link);
            }
        });
    }
    assert!(received == payload, "what came is not what was sent");
    writer.join().expect("it has written");
}

fn buffers_that_are_kept_stay_as_they_are<D: Driver>(mut driver: D) {
    let (link, peer) = accepted_link(&mut driver);
    let payload = pattern(3 << 20);
    let writer = write_from_thread(peer, payload.clone());
    let (mut kept, mut kept_most, mut received) = (Vec::<Buffer>::new(), 0, 0);
    let begin = Instant::now();
    driver.recv_start(link);
    while received < payload.len() {
        assert!(begin.elapsed() < PATIENCE, "{received} bytes came");
        if turn(&mut driver, WAIT / 5, |_, completion| kept.push(buffer_of(completion))) > 0 {
            continue;
        }
        // All buffers are out, or the writer is slow.
        kept_most = kept_most.max(kept.len());
        for buffer in kept.drain(..) {
            let expected = &payload[received..received + buffer.len()];
            assert!(driver.bytes(&buffer) == expected, "a buffer from byte {received} on has changed");
            received += buffer.len();
            driver.recycle(buffer);
        }
    }
    assert!(kept_most > 1, "no two buffers were out at one time");
    writer.join().expect("it has written");
}

fn buffer_of(completion: Completion) -> Buffer {
    match completion {
        Completion::Received { buffer, .. } => buffer,
        other => panic!("{other:?}"),
    }
}

fn a_loop_that_keeps_all_buffers_sleeps<D: Driver>(mut driver: D) {
    let (link, peer) = accepted_link(&mut driver);
    let payload = pattern(3 << 20);
    let writer = write_from_thread(peer, payload.clone());
    let (mut kept, mut received) = (Vec::<Buffer>::new(), 0);
    driver.recv_start(link);
    // Three times longer than any hiccup of the writer.
    let mut quiet = 0;
    let begin = Instant::now();
    while quiet < 3 {
        assert!(begin.elapsed() < PATIENCE, "{} buffers are not all", kept.len());
        let count = turn(&mut driver, WAIT, |_, completion| kept.push(buffer_of(completion)));
        quiet = if count == 0 { quiet + 1 } else { 0 };
    }
    assert_sleeps(&mut driver, 5);
    for buffer in kept {
        received += buffer.len();
        driver.recycle(buffer);
    }
    assert!(received < payload.len(), "there were buffers for everything");
    turn_until(&mut driver, |driver, completion| {
        let buffer = buffer_of(completion);
        received += buffer.len();
        driver.recycle(buffer);
        received == payload.len()
    });
    writer.join().expect("it has written");
}

#[test]
fn uring_hears_others_beside_a_link_with_much_to_say() {
    hears_others_beside_a_link_with_much_to_say(uring(2), 1 << 20);
}

/// Short turns, so that what a socket holds at one time is many of them.
#[test]
fn epoll_hears_others_beside_a_link_with_much_to_say() {
    let config = EpollConfig { links_max: 2, buffer_bytes: 512, turn_bytes: 8_192 };
    hears_others_beside_a_link_with_much_to_say(Epoll::new(config).expect("a descriptor is free"), 1 << 14);
}

fn hears_others_beside_a_link_with_much_to_say<D: Driver>(mut driver: D, loud_bytes_max: usize) {
    let (listener, address) = listener();
    driver.listen(listener);
    let mut loud_peer = peer_of(address);
    let loud = next_accepted(&mut driver);
    let mut quiet_peer = peer_of(address);
    let quiet = next_accepted(&mut driver);
    let queued = fill(&mut loud_peer);
    assert!(queued > 2 * loud_bytes_max, "{queued} bytes are not much");
    quiet_peer.write_all(b"x").expect("there is room");

    driver.recv_start(loud);
    driver.recv_start(quiet);
    let (mut loud_bytes, mut is_heard) = (0, false);
    turn_until(&mut driver, |driver, completion| {
        let (link, len) = received_from(driver, completion);
        is_heard |= link == quiet;
        loud_bytes += if is_heard { 0 } else { len };
        is_heard
    });
    assert!(loud_bytes <= loud_bytes_max, "{loud_bytes} bytes came before the other link was heard");
}

/// As many links as there are long buffers send without end; one more, which sends long messages too, is heard all the same.
#[test]
fn uring_gives_long_buffers_in_turns() {
    const GREEDY: usize = 2;
    let config = UringConfig {
        links_max: GREEDY + 1,
        bulk_buffer_count: GREEDY as u16,
        bulk_buffer_bytes: 8_192,
        ..UringConfig::default()
    };
    let (short, mut driver) = (config.buffer_bytes as usize, uring_with(config));
    let (listener, address) = listener();
    driver.listen(listener);
    let mut peers = Vec::new();
    for _ in 0..=GREEDY {
        peers.push(peer_of(address));
        let link = next_accepted(&mut driver);
        driver.recv_start(link);
        peers.last_mut().expect("it stands").write_all(&vec![7; 4 * short]).expect("the socket has room");
        let mut received = 0;
        turn_until(&mut driver, |driver, completion| {
            received += received_from(driver, completion).1;
            received == 4 * short
        });
    }
    // All have long buffers now. The first ones have enough to say for more turns than the last one may wait.
    let (mut last, mut queued) = (peers.pop().expect("there are some"), Vec::new());
    last.set_nodelay(true).expect("a TCP socket");
    for peer in &mut peers {
        queued.push(fill(peer));
    }
    let mut of_others = 0;
    for _ in 0..20 {
        last.write_all(&[9; 8_192]).expect("the socket has room");
        let mut of_last = 0;
        turn_until(&mut driver, |driver, completion| {
            let Completion::Received { buffer, .. } = completion else { panic!("{completion:?}") };
            let (len, is_last) = (buffer.len(), driver.bytes(&buffer)[0] == 9);
            driver.recycle(buffer);
            if is_last {
                of_last += len;
            } else {
                of_others += len;
            }
            of_last == 8_192
        });
    }
    let most = queued.iter().sum::<usize>();
    assert!(of_others < most / 2, "{of_others} of {most} bytes of others came before 20 messages of the last one");
}

/// The longest read while this many bytes come, written in one go while nobody reads.
fn longest_read(driver: &mut Uring, link: Link, peer: &mut TcpStream, count: usize) -> usize {
    driver.recv_stop(link);
    peer.write_all(&vec![7; count]).expect("the socket has room");
    // What was armed has ended when this turn has passed.
    turn(driver, WAIT / 5, |_, completion| panic!("{completion:?}"));
    driver.recv_start(link);
    let (mut longest, mut received) = (0, 0);
    turn_until(driver, |driver, completion| {
        let (_, len) = received_from(driver, completion);
        longest = longest.max(len);
        received += len;
        received == count
    });
    longest
}

#[test]
fn uring_gives_long_buffers_to_links_that_fill_short_ones_and_takes_them_back() {
    let config = UringConfig { links_max: 2, buffer_bytes: 512, ..UringConfig::default() };
    let (short, long) = (config.buffer_bytes as usize, config.bulk_buffer_bytes as usize);
    let mut driver = uring_with(config);
    let (link, mut peer) = accepted_link(&mut driver);
    assert_eq!(longest_read(&mut driver, link, &mut peer, short), short);
    assert_eq!(longest_read(&mut driver, link, &mut peer, 100), 100);
    // The first two of these speak for long buffers.
    longest_read(&mut driver, link, &mut peer, 8 * short);
    assert_eq!(longest_read(&mut driver, link, &mut peer, 2 * long), long);
    // All but one of what it takes, and then one that is long again.
    for _ in 1..SHORT_READS_MAX {
        assert_eq!(longest_read(&mut driver, link, &mut peer, 1), 1);
    }
    assert_eq!(longest_read(&mut driver, link, &mut peer, 2 * short), 2 * short);
    for _ in 0..SHORT_READS_MAX {
        assert_eq!(longest_read(&mut driver, link, &mut peer, 1), 1);
    }
    assert_eq!(longest_read(&mut driver, link, &mut peer, 2 * short - 1), short);
}

/// Writes as much as fits in while nobody reads.
fn fill(peer: &mut TcpStream) -> usize {
    peer.set_nonblocking(true).expect("a socket");
    let mut queued = 0;
    while let Ok(count) = peer.write(&[7; 65_536]) {
        queued += count;
    }
    queued
}

fn received_from<D: Driver>(driver: &mut D, completion: Completion) -> (Link, usize) {
    match completion {
        Completion::Received { link, buffer } => {
            let len = buffer.len();
            driver.recycle(buffer);
            (link, len)
        }
        other => panic!("{other:?}"),
    }
}
