//! Accepting: no more than there is room for, nobody lost, and a rest when the system refuses.

use crate::{
    EMFILE, WAIT, all_descriptors, assert_sleeps, batch_of, epoll, listener, next_accepted, peer_of, short_tables,
    turn, turn_until, uring_with, with_few_descriptors,
};
use ringwave::base::limits::ACCEPT_REST;
use ringwave::driver::{Completion, Driver};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

every_driver! {
    links_max: 2,
    connections_wait_until_there_is_room,
    verbs_for_a_link_that_is_gone_touch_nobody,
    connections_outlive_their_listener,
    nobody_is_accepted_once_the_loop_wants_no_more,
    one_listener_follows_another,
}

fn connections_wait_until_there_is_room<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    let _peers: Vec<_> = (0..4).map(|_| peer_of(address)).collect();
    let mut links = Vec::new();
    for round in 0..3 {
        turn_until(&mut driver, |_, completion| {
            match completion {
                Completion::Closed { .. } => {}
                Completion::Accepted { link, .. } => links.push(link),
                other => panic!("{other:?}"),
            }
            links.len() == 2
        });
        assert_sleeps(&mut driver, 3);
        if round < 2 {
            driver.close(links.remove(0));
        }
    }
}

fn verbs_for_a_link_that_is_gone_touch_nobody<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    let _peer = peer_of(address);
    let gone = next_accepted(&mut driver);
    let _neighbour_peer = peer_of(address);
    let neighbour = next_accepted(&mut driver);
    driver.close(gone);
    turn_until(&mut driver, |_, completion| matches!(completion, Completion::Closed { .. }));
    let mut peer = peer_of(address);
    let tenant = next_accepted(&mut driver);
    assert_eq!(tenant.index(), gone.index(), "there is one slot beside {neighbour:?}");

    driver.recv_start(tenant);
    driver.recv_stop(gone);
    driver.send(gone, batch_of(b"for nobody"));
    driver.shutdown(gone);
    driver.close(gone);
    driver.reset(gone);
    peer.write_all(b"question").expect("it is connected");
    let mut heard = false;
    turn_until(&mut driver, |driver, completion| match completion {
        Completion::Received { link, buffer } => {
            assert_eq!((link, &*driver.bytes(&buffer)), (tenant, &b"question"[..]));
            driver.recycle(buffer);
            driver.send(tenant, batch_of(b"answer"));
            heard = true;
            false
        }
        Completion::Sent { link, error, .. } => {
            assert!(link == tenant && error.is_none() && heard);
            true
        }
        other => panic!("{other:?}"),
    });
    let mut answer = [0; 6];
    peer.read_exact(&mut answer).expect("it is connected");
    assert_eq!(&answer, b"answer");
    assert_sleeps(&mut driver, 2);
}

fn connections_outlive_their_listener<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    let mut peer = peer_of(address);
    let link = next_accepted(&mut driver);
    driver.stop_listening();
    driver.recv_start(link);
    peer.write_all(b"still here").expect("it is connected");
    turn_until(&mut driver, |driver, completion| match completion {
        Completion::Received { buffer, .. } => {
            assert_eq!(driver.bytes(&buffer), b"still here");
            driver.recycle(buffer);
            true
        }
        other => panic!("{other:?}"),
    });
    assert_sleeps(&mut driver, 2);
}

fn nobody_is_accepted_once_the_loop_wants_no_more<D: Driver>(mut driver: D) {
    let (listener, address) = listener();
    driver.listen(listener);
    let (_first, mut second) = (peer_of(address), peer_of(address));
    let mut accepted = 0;
    turn_until(&mut driver, |driver, completion| {
        assert!(matches!(completion, Completion::Accepted { .. }), "{completion:?}");
        accepted += 1;
        driver.stop_listening();
        true
    });
    assert_eq!(accepted, 1);
    assert_sleeps(&mut driver, 3);
    // An end of stream or a reset: nobody is there.
    assert!(!matches!(second.read(&mut [0]), Ok(1)));
}

fn one_listener_follows_another<D: Driver>(mut driver: D) {
    for round in 0..6 {
        let (listener, address) = listener();
        if round % 2 == 1 {
            driver.stop_listening();
        }
        driver.listen(listener);
        assert_sleeps(&mut driver, 1);
        let peer = peer_of(address);
        let link = next_accepted(&mut driver);
        // Nobody knows of this one yet: it ends with its listener.
        let mut late = peer_of(address);
        driver.listen(crate::listener().0);
        assert_sleeps(&mut driver, 2);
        assert!(!matches!(late.read(&mut [0]), Ok(1)));
        drop(peer);
        driver.close(link);
        turn_until(&mut driver, |_, completion| matches!(completion, Completion::Closed { .. }));
    }
}

/// epoll: there is no descriptor for the connection.
#[test]
fn epoll_rests_after_the_system_refused() {
    with_few_descriptors("accepting::epoll_rests_after_the_system_refused", || {
        rests_after_the_system_refused(epoll(100), 0);
    });
}

/// io_uring: a descriptor in a ring's table is not counted, so one connection has room; there is none for a further ring.
#[test]
fn uring_rests_after_the_system_refused() {
    with_few_descriptors("accepting::uring_rests_after_the_system_refused", || {
        rests_after_the_system_refused(uring_with(short_tables()), 1);
    });
}

fn rests_after_the_system_refused<D: Driver>(mut driver: D, room: usize) {
    let (listener, address) = listener();
    driver.listen(listener);
    let _peers: Vec<_> = (0..=room).map(|_| peer_of(address)).collect();
    let mut files = all_descriptors();

    let (begin, mut accepted, mut refusals, mut turns) = (Instant::now(), 0, 0, 0);
    while begin.elapsed() < Duration::from_millis(500) {
        turns += 1;
        turn(&mut driver, WAIT, |_, completion| match completion {
            Completion::Accepted { .. } => accepted += 1,
            Completion::AcceptFailed { error } => {
                assert!(error.to_string().contains(EMFILE), "{error}");
                refusals += 1;
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(accepted, room);
    assert!((2..=6).contains(&refusals), "{refusals} refusals in half a second");
    assert!(turns <= 30, "{turns} turns in half a second");
    files.clear();
    next_accepted(&mut driver);
}

#[test]
fn epoll_rests_for_nobody_who_is_gone() {
    with_few_descriptors("accepting::epoll_rests_for_nobody_who_is_gone", || {
        rests_for_nobody_who_is_gone(epoll(100));
    });
}

#[test]
fn uring_rests_for_nobody_who_is_gone() {
    with_few_descriptors("accepting::uring_rests_for_nobody_who_is_gone", || {
        rests_for_nobody_who_is_gone(uring_with(short_tables()));
    });
}

/// There is room for one; before the one who still waits lie those who have left.
fn rests_for_nobody_who_is_gone<D: Driver>(mut driver: D) {
    const GONE: usize = 8;
    let (listener, address) = listener();
    driver.listen(listener);
    let _first = peer_of(address);
    let link = next_accepted(&mut driver);
    (0..GONE).for_each(|_| drop(peer_of(address)));
    let _last = peer_of(address);
    let _files = all_descriptors();
    let (mut refused_at, mut accepted) = (None, 0);
    turn_until(&mut driver, |driver, completion| {
        match completion {
            Completion::Accepted { link, .. } => {
                accepted += 1;
                driver.recv_start(link);
            }
            Completion::ReceiveEnded { link, .. } => driver.close(link),
            Completion::AcceptFailed { .. } if refused_at.is_none() => {
                refused_at = Some(Instant::now());
                driver.close(link);
            }
            Completion::AcceptFailed { .. } | Completion::Closed { .. } => {}
            other => panic!("{other:?}"),
        }
        accepted == GONE + 1
    });
    let waited = refused_at.expect("there is room for one").elapsed();
    assert!(waited < 3 * ACCEPT_REST, "{waited:?} for {GONE} who are gone");
}

/// Tables so short that accepts in flight promise all their slots.
#[test]
fn uring_makes_no_rings_ahead_of_connections() {
    with_few_descriptors("accepting::uring_makes_no_rings_ahead_of_connections", || {
        let mut driver = uring_with(short_tables());
        let (listener, address) = listener();
        driver.listen(listener);
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux has it").count();
        let before = descriptors();
        assert_sleeps(&mut driver, 5);
        assert_eq!(descriptors(), before);
        let _peer = peer_of(address);
        next_accepted(&mut driver);
        assert_sleeps(&mut driver, 5);
        // The peer, and one ring with its eventfd.
        assert_eq!(descriptors(), before + 3);
    });
}
