//! Addresses of peers: told with the accept, each with its own link.

use crate::{PATIENCE, assert_sleeps, listener, peer_of, reset, turn_until, uring_with};
use ringwave::driver::{Completion, Driver, Link, UringConfig, listen_on};
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

every_driver! {
    peers_on_ipv4_have_their_addresses,
    peers_on_ipv6_have_their_addresses,
    ipv4_peers_of_an_ipv6_listener_have_ipv4_addresses,
    a_peer_that_is_gone_has_an_address,
    nobody_is_told_who_was_accepted_while_the_listener_ended,
}

fn peers_on_ipv4_have_their_addresses<D: Driver>(driver: D) {
    peers_have_their_addresses(driver, "127.0.0.1:0", "127.0.0.1");
}

fn peers_on_ipv6_have_their_addresses<D: Driver>(driver: D) {
    peers_have_their_addresses(driver, "[::1]:0", "::1");
}

fn ipv4_peers_of_an_ipv6_listener_have_ipv4_addresses<D: Driver>(driver: D) {
    peers_have_their_addresses(driver, "[::]:0", "127.0.0.1");
}

/// Each link is told from the others by what its peer says: the address is that one's, in slots used again too.
fn peers_have_their_addresses<D: Driver>(mut driver: D, listen: &str, connect: &str) {
    let listener = listen_on(listen.parse().expect("an address"), 1, None).expect("a port is free").remove(0);
    let to = SocketAddr::new(connect.parse().expect("an address"), listener.local_addr().port());
    driver.listen(listener);
    for _ in 0..4 {
        let mut peers: Vec<TcpStream> = (0..40).map(|_| peer_of(to)).collect();
        for peer in &mut peers {
            let own = peer.local_addr().expect("it is connected");
            peer.write_all(own.to_string().as_bytes()).expect("it is connected");
        }
        let (mut told, mut heard, mut closed) = (HashMap::<Link, SocketAddr>::new(), 0, 0);
        turn_until(&mut driver, |driver, completion| {
            match completion {
                Completion::Accepted { link, peer } => {
                    told.insert(link, peer.expect("an address"));
                    driver.recv_start(link);
                }
                Completion::Received { link, buffer } => {
                    assert_eq!(driver.bytes(&buffer), told[&link].to_string().as_bytes());
                    driver.recycle(buffer);
                    driver.close(link);
                    heard += 1;
                }
                Completion::Closed { .. } => closed += 1,
                other => panic!("{other:?}"),
            }
            closed == peers.len()
        });
        assert_eq!((told.len(), heard), (peers.len(), peers.len()));
    }
    assert_sleeps(&mut driver, 2);
}

fn a_peer_that_is_gone_has_an_address<D: Driver>(mut driver: D) {
    let (listener, to) = listener();
    let gone = peer_of(to);
    let address = gone.local_addr().expect("it is connected");
    reset(gone);
    driver.listen(listener);
    turn_until(&mut driver, |_, completion| match completion {
        Completion::Accepted { peer, .. } => {
            assert_eq!(peer, Some(address));
            true
        }
        other => panic!("{other:?}"),
    });
}

/// Accepted by the kernel and not told yet: such a link ends in silence, and its peer hears of it.
fn nobody_is_told_who_was_accepted_while_the_listener_ended<D: Driver>(mut driver: D) {
    let (listener, to) = listener();
    driver.listen(listener);
    driver.wait(Some(Duration::ZERO)).expect("the driver waits");
    assert!(driver.next_completion().is_none());
    let peers: Vec<TcpStream> = (0..40).map(|_| peer_of(to)).collect();
    // The turn in which they are accepted; io_uring asks for their addresses now and tells in the next one.
    driver.wait(Some(PATIENCE)).expect("the driver waits");
    let mut told = 0;
    while let Some(completion) = driver.next_completion() {
        assert!(matches!(completion, Completion::Accepted { .. }), "{completion:?}");
        told += 1;
    }
    driver.stop_listening();
    assert_sleeps(&mut driver, 4);
    let mut ended = 0;
    for peer in &peers {
        peer.set_nonblocking(true).expect("a socket");
        // An end of stream or a reset; those that were told of stand.
        ended += usize::from(!matches!(peer.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock));
    }
    assert_eq!(told + ended, peers.len());
}

#[test]
fn uring_asks_for_no_addresses_that_nobody_wants() {
    let mut driver = uring_with(UringConfig { links_max: 100, peer_addresses: false, ..UringConfig::default() });
    let (listener, to) = listener();
    driver.listen(listener);
    let _peer = peer_of(to);
    turn_until(&mut driver, |_, completion| match completion {
        Completion::Accepted { peer, .. } => peer.is_none(),
        other => panic!("{other:?}"),
    });
}
