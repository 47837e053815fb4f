//! Waits: what ends them, what does not, and the time they answer.

use crate::{PATIENCE, accepted_link, assert_sleeps, batch_of, reset, turn, turn_until};
use ringwave::driver::{Completion, Driver};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

every_driver! {
    a_waker_ends_the_wait_from_another_thread,
    short_waits_are_short_and_never_shorter,
    what_ended_already_is_not_waited_for,
    a_peer_that_ended_is_no_reason_to_turn,
    a_peer_that_reset_is_no_reason_to_turn,
}

fn a_waker_ends_the_wait_from_another_thread<D: Driver>(mut driver: D) {
    let waker = driver.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        let thread = std::thread::spawn(move || waker.wake());
        let mut woken = 0;
        turn(&mut driver, PATIENCE, |_, completion| {
            assert!(matches!(completion, Completion::Woken));
            woken += 1;
        });
        assert_eq!(woken, 1);
        thread.join().expect("the waker ran");
        assert_sleeps(&mut driver, 1);
    }
}

fn short_waits_are_short_and_never_shorter<D: Driver>(mut driver: D) {
    let timeout = Duration::from_micros(300);
    let mut shortest = Duration::MAX;
    let mut before = driver.wait(Some(Duration::ZERO)).expect("the driver waits");
    assert!(driver.next_completion().is_none());
    for _ in 0..50 {
        let now = driver.wait(Some(timeout)).expect("the driver waits");
        assert!(driver.next_completion().is_none());
        shortest = shortest.min(now - before);
        before = now;
    }
    assert!((timeout..Duration::from_millis(1)).contains(&shortest), "{shortest:?}");
}

fn what_ended_already_is_not_waited_for<D: Driver>(mut driver: D) {
    let (link, _peer) = accepted_link(&mut driver);
    driver.send(link, batch_of(b"hello"));
    let begin = Instant::now();
    let mut sent = 0;
    turn(&mut driver, PATIENCE, |_, completion| match completion {
        Completion::Sent { error: None, batch, .. } => sent += usize::from(batch.is_empty()),
        other => panic!("{other:?}"),
    });
    assert_eq!(sent, 1);
    assert!(begin.elapsed() < PATIENCE / 2);
}

fn a_peer_that_ended_is_no_reason_to_turn<D: Driver>(driver: D) {
    nobody_turns_for_a_peer_that_is_gone(driver, false);
}

fn a_peer_that_reset_is_no_reason_to_turn<D: Driver>(driver: D) {
    nobody_turns_for_a_peer_that_is_gone(driver, true);
}

fn nobody_turns_for_a_peer_that_is_gone<D: Driver>(mut driver: D, by_reset: bool) {
    let (link, peer) = accepted_link(&mut driver);
    driver.recv_start(link);
    assert_sleeps(&mut driver, 1);
    driver.recv_stop(link);
    assert_sleeps(&mut driver, 1);
    if by_reset {
        reset(peer);
    } else {
        drop(peer);
    }
    assert_sleeps(&mut driver, 5);

    driver.recv_start(link);
    let mut end = None;
    turn_until(&mut driver, |_, completion| match completion {
        Completion::ReceiveEnded { error, .. } => end.replace(error.map(|error| error.kind())).is_none(),
        other => panic!("{other:?}"),
    });
    assert_eq!(end, Some(by_reset.then_some(ErrorKind::ConnectionReset)));
    // It has been told, and nobody has closed yet.
    assert_sleeps(&mut driver, 5);
}
