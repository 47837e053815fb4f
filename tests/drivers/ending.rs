//! Ends: what a close tells and what it does not, what the peer sees, and when a key may come again.

use crate::{WAIT, accepted_link, assert_sleeps, batch_of, listener, next_accepted, peer_of, reset, turn, turn_until};
use ringwave::driver::{Completion, Driver, Link};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::spawn;

every_driver! {
    a_slot_is_used_again_under_another_generation,
    a_close_gives_back_the_batch_in_flight_and_then_ends,
    a_reset_gives_back_the_batch_in_flight_and_then_ends,
    a_batch_that_has_left_comes_back_once,
    no_part_is_told_behind_a_close,
    nothing_is_received_behind_a_close,
    a_close_ends_the_stream_of_the_peer,
    the_last_bytes_travel_with_the_end_of_the_stream,
    last_bytes_that_no_end_follows_arrive_all_the_same,
    a_reset_reaches_the_peer_as_one,
    a_reset_of_the_peer_is_told_as_one_whatever_is_in_flight,
    a_close_ends_whatever_the_peer_does_at_that_moment,
}

fn a_slot_is_used_again_under_another_generation<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    let (mut keys, mut slots_in_use) = (HashSet::new(), HashSet::new());
    for round in 0..3 {
        driver.connect(address, None, round);
        let mut closed = 0;
        turn_until(&mut driver, |driver, completion| {
            if let Completion::Accepted { link, .. } | Completion::Connected { link, .. } = completion {
                assert!(keys.insert(link), "{link:?} names two tenants");
                assert!(slots_in_use.insert(link.index()), "{link:?} has a slot that is in use");
            }
            match completion {
                Completion::Accepted { link, .. } => driver.close(link),
                Completion::Connected { link, .. } => driver.recv_start(link),
                Completion::ReceiveEnded { link, .. } => driver.close(link),
                Completion::Closed { link } => {
                    assert!(slots_in_use.remove(&link.index()));
                    closed += 1;
                }
                other => panic!("{other:?}"),
            }
            closed == 2
        });
    }
    assert_eq!(keys.len(), 6);
}

fn a_close_gives_back_the_batch_in_flight_and_then_ends<D: Driver>(driver: D) {
    gives_back_the_batch_in_flight_and_then_ends(driver, D::close);
}

fn a_reset_gives_back_the_batch_in_flight_and_then_ends<D: Driver>(driver: D) {
    gives_back_the_batch_in_flight_and_then_ends(driver, D::reset);
}

fn gives_back_the_batch_in_flight_and_then_ends<D: Driver>(mut driver: D, end: impl Fn(&mut D, Link)) {
    let (link, _peer) = accepted_link(&mut driver);
    driver.recv_start(link);
    // More than sockets hold, and a peer that does not read.
    driver.send(link, batch_of(&vec![7; 32 << 20]));
    let mut quiet = false;
    for _ in 0..100 {
        let parts = turn(&mut driver, WAIT, |_, completion| match completion {
            Completion::SentPart { .. } => {}
            other => panic!("{other:?}"),
        });
        quiet = parts == 0;
        if quiet {
            break;
        }
    }
    assert!(quiet, "somebody takes everything");

    end(&mut driver, link);
    let mut told = Vec::new();
    turn_until(&mut driver, |_, completion| match completion {
        Completion::Sent { batch, error, .. } => {
            assert!(error.is_some() && !batch.is_empty());
            told.push("sent");
            false
        }
        Completion::Closed { .. } => {
            told.push("closed");
            true
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(told, ["sent", "closed"]);
    assert_sleeps(&mut driver, 2);
}

fn a_batch_that_has_left_comes_back_once<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    driver.send(link, batch_of(b"the last words"));
    // The peer has them, so they have left; that they did is told after the close.
    driver.wait(Some(WAIT)).expect("the driver waits");
    let mut read = [0; 14];
    peer.read_exact(&mut read).expect("they come");
    driver.close(link);
    let (mut sent, mut closed) = (0, 0);
    let mut count = |completion: Completion| match completion {
        Completion::Sent { batch, .. } => {
            assert!(batch.is_empty());
            assert_eq!(closed, 0, "something comes behind the end");
            sent += 1;
        }
        Completion::Closed { .. } => closed += 1,
        other => panic!("{other:?}"),
    };
    while let Some(completion) = driver.next_completion() {
        count(completion);
    }
    for _ in 0..3 {
        turn(&mut driver, WAIT, |_, completion| count(completion));
    }
    assert_eq!((sent, closed), (1, 1));
}

fn no_part_is_told_behind_a_close<D: Driver>(mut driver: D) {
    let (link, _peer) = accepted_link(&mut driver);
    // A part of it may leave at once.
    driver.send(link, batch_of(&vec![7; 32 << 20]));
    driver.close(link);
    let mut told = Vec::new();
    turn_until(&mut driver, |_, completion| {
        told.push(match completion {
            Completion::Sent { .. } => "sent",
            Completion::Closed { .. } => "closed",
            other => panic!("{other:?}"),
        });
        told.len() == 2
    });
    assert_eq!(told, ["sent", "closed"]);
    assert_sleeps(&mut driver, 2);
}

fn nothing_is_received_behind_a_close<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    driver.recv_start(link);
    let writer = spawn(move || while peer.write_all(&[7; 65_536]).is_ok() {});
    let (mut received, mut is_closing) = (0, false);
    turn_until(&mut driver, |driver, completion| match completion {
        Completion::Received { buffer, .. } => {
            assert!(!is_closing, "the loop has closed this link");
            driver.recycle(buffer);
            received += 1;
            if received == 100 {
                driver.close(link);
                is_closing = true;
            }
            false
        }
        Completion::Closed { .. } => true,
        other => panic!("{other:?}"),
    });
    writer.join().expect("it is told by an error");
    assert_sleeps(&mut driver, 2);
}

fn a_close_ends_the_stream_of_the_peer<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    driver.recv_start(link);
    driver.close(link);
    turn_until(&mut driver, |_, completion| matches!(completion, Completion::Closed { .. }));
    assert_eq!(peer.read(&mut [0]).expect("no error"), 0);
    // Once more is nothing more.
    driver.close(link);
    driver.reset(link);
    assert_sleeps(&mut driver, 2);
}

fn the_last_bytes_travel_with_the_end_of_the_stream<D: Driver>(mut driver: D) {
    for (ends_stream, segments) in [(true, 1), (false, 2)] {
        let (link, mut peer) = accepted_link(&mut driver);
        let before = segments_in(&peer);
        let mut batch = batch_of(b"goodbye");
        if ends_stream {
            batch.end_stream();
        }
        driver.send(link, batch);
        turn_until(&mut driver, |driver, completion| match completion {
            Completion::Sent { link, error: None, .. } => {
                driver.close(link);
                false
            }
            Completion::Closed { .. } => true,
            other => panic!("{other:?}"),
        });
        let mut received = Vec::new();
        peer.read_to_end(&mut received).expect("no error");
        assert_eq!((&received[..], segments_in(&peer) - before), (&b"goodbye"[..], segments));
    }
}

fn last_bytes_that_no_end_follows_arrive_all_the_same<D: Driver>(mut driver: D) {
    let (link, mut peer) = accepted_link(&mut driver);
    let mut batch = batch_of(b"goodbye");
    batch.end_stream();
    driver.send(link, batch);
    turn_until(&mut driver, |_, completion| matches!(completion, Completion::Sent { error: None, .. }));
    let mut received = [0; 7];
    peer.read_exact(&mut received).expect("no error");
    assert_eq!(&received, b"goodbye");
}

/// Segments that this socket has received since it was made.
#[expect(unsafe_code, reason = "no library gives TCP_INFO")]
fn segments_in(socket: &TcpStream) -> u32 {
    let mut info = [0u32; 64];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into a value of ours, any of which are valid.
    let answer = unsafe {
        let room = (&raw mut info).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, room, &raw mut length)
    };
    assert_eq!(answer, 0);
    // `tcpi_segs_in` of struct tcp_info (linux/tcp.h), since Linux 4.2.
    info[140 / size_of::<u32>()]
}

fn a_reset_reaches_the_peer_as_one<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    driver.connect(address, None, 0);
    let (mut seen, mut closed) = (None, 0);
    turn_until(&mut driver, |driver, completion| {
        match completion {
            Completion::Accepted { link, .. } => driver.recv_start(link),
            Completion::Connected { link, .. } => driver.reset(link),
            Completion::ReceiveEnded { link, error } => {
                seen = error.map(|error| error.kind());
                driver.close(link);
            }
            Completion::Closed { .. } => closed += 1,
            other => panic!("{other:?}"),
        }
        closed == 2
    });
    assert_eq!(seen, Some(ErrorKind::ConnectionReset));
    // It accepts as before.
    let _peer = peer_of(address);
    next_accepted(&mut driver);
}

/// What the first completion says that tells of it at all: a send in flight and a receive both come to know.
fn a_reset_of_the_peer_is_told_as_one_whatever_is_in_flight<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    for (receives, sends) in [(true, false), (false, true), (true, true)] {
        let peer = peer_of(address);
        let link = next_accepted(&mut driver);
        if receives {
            driver.recv_start(link);
        }
        if sends {
            driver.send(link, batch_of(&vec![7; 32 << 20]));
            // Until it takes no more.
            while turn(&mut driver, WAIT, |_, completion| assert!(matches!(completion, Completion::SentPart { .. })))
                > 0
            {}
        }
        reset(peer);
        let mut told = None;
        turn_until(&mut driver, |_, completion| {
            let error = match completion {
                Completion::SentPart { .. } => None,
                Completion::Sent { error, .. } | Completion::ReceiveEnded { error, .. } => {
                    Some(error.map(|error| error.kind()))
                }
                other => panic!("{other:?}"),
            };
            told = told.or(error);
            told.is_some()
        });
        assert_eq!(told, Some(Some(ErrorKind::ConnectionReset)), "receives: {receives}, sends: {sends}");
        driver.close(link);
        turn_until(&mut driver, |_, completion| matches!(completion, Completion::Closed { .. }));
    }
}

/// Many peers end their side while they are sent to, and take nothing: a close does not wait for them.
fn a_close_ends_whatever_the_peer_does_at_that_moment<D: Driver>(mut driver: D) {
    const LINKS: usize = 200;
    let (listener, address) = listener();
    driver.listen(listener);
    // The close comes with the first end of a stream, or after more of them.
    for ends_before_close in [1, 2, 10, 50, 100, LINKS] {
        let peers: Vec<_> = (0..LINKS).map(|_| peer_of(address)).collect();
        let mut links = HashSet::new();
        turn_until(&mut driver, |driver, completion| {
            match completion {
                Completion::Accepted { link, .. } => {
                    links.insert(link);
                    driver.recv_start(link);
                    driver.send(link, batch_of(&vec![7; 8 << 20]));
                }
                Completion::SentPart { .. } => {}
                other => panic!("{other:?}"),
            }
            links.len() == LINKS
        });
        while turn(&mut driver, WAIT, |_, completion| assert!(matches!(completion, Completion::SentPart { .. }))) > 0 {}
        for peer in &peers {
            peer.shutdown(Shutdown::Write).expect("it is connected");
        }
        let mut ends = 0;
        turn_until(&mut driver, |_, completion| {
            ends += usize::from(matches!(completion, Completion::ReceiveEnded { .. }));
            ends >= ends_before_close
        });
        links.iter().for_each(|link| driver.close(*link));
        turn_until(&mut driver, |_, completion| {
            if let Completion::Closed { link } = completion {
                links.remove(&link);
            }
            links.is_empty()
        });
    }
}
