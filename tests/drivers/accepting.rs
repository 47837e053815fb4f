//! Accepting: no more than there is room for, nobody lost, and a rest when the system refuses.

use crate::{WAIT, assert_sleeps, batch_of, epoll, listener, next_accepted, peer_of, turn, turn_until};
use ringwave::driver::{Completion, Driver};
use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

every_driver! {
    links_max: 2,
    connections_wait_until_there_is_room,
    verbs_for_a_link_that_is_gone_touch_nobody,
    connections_outlive_their_listener,
    nobody_is_accepted_once_the_loop_wants_no_more,
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

/// Says to this very program, started again, that it is the one with few descriptors.
const FEW_DESCRIPTORS: &str = "DRIVERS_TEST_FEW_DESCRIPTORS";

/// Only epoll: a descriptor in a ring's table is not counted against RLIMIT_NOFILE. The limit is the whole process's,
/// so the test has one of its own.
#[test]
fn epoll_rests_after_the_system_refused() {
    if std::env::var_os(FEW_DESCRIPTORS).is_some() {
        rests_after_the_system_refused(&mut epoll(100));
        return;
    }
    let this = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(this)
        .args(["accepting::epoll_rests_after_the_system_refused", "--exact", "--nocapture"])
        .env(FEW_DESCRIPTORS, "")
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn rests_after_the_system_refused<D: Driver>(driver: &mut D) {
    let (listener, address) = listener();
    driver.listen(listener);
    let _peer = peer_of(address);
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(100).collect();
    assert!(files.len() < 100, "there are as many descriptors as before");

    let (begin, mut refusals, mut turns) = (Instant::now(), 0, 0);
    while begin.elapsed() < Duration::from_millis(500) {
        turns += 1;
        turn(driver, WAIT, |_, completion| match completion {
            Completion::AcceptFailed { error } => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                refusals += 1;
            }
            other => panic!("{other:?}"),
        });
    }
    assert!((2..=6).contains(&refusals), "{refusals} refusals in half a second");
    assert!(turns <= 30, "{turns} turns in half a second");
    files.clear();
    next_accepted(driver);
}
