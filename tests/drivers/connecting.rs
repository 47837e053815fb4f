//! Connecting: from where, to whom, and what is told when it does not come about.

use crate::{
    EMFILE, WAIT, all_descriptors, assert_sleeps, short_tables, turn, turn_until, uring_with, with_few_descriptors,
};
use ringwave::driver::{Completion, Driver};
use socket2::{Domain, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

every_driver! {
    links_max: 3,
    a_connection_comes_from_the_source_it_is_given,
    a_refused_connection_says_so,
    connections_that_have_no_room_say_so,
}

fn plain_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

fn a_connection_comes_from_the_source_it_is_given<D: Driver>(mut driver: D) {
    let (listener, address) = plain_listener();
    let sources = ["127.0.0.7", "127.1.2.3"].map(|source| source.parse().expect("an address"));
    for (tag, source) in sources.into_iter().enumerate() {
        driver.connect(address, Some(source), tag as u64);
    }
    // 192.0.2.0/24 is nobody's (RFC 5737).
    driver.connect(address, Some("192.0.2.1".parse().expect("an address")), 9);
    let (mut connected, mut failed) = (0, None);
    turn_until(&mut driver, |_, completion| {
        match completion {
            Completion::Connected { .. } => connected += 1,
            Completion::ConnectFailed { tag: 9, error } => failed = Some(error.kind()),
            other => panic!("{other:?}"),
        }
        connected == 2 && failed.is_some()
    });
    assert_eq!(failed, Some(ErrorKind::AddrNotAvailable));
    let mut seen: Vec<IpAddr> = (0..2).map(|_| listener.accept().expect("it connected").1.ip()).collect();
    seen.sort_unstable();
    assert_eq!(seen, sources);
}

fn a_refused_connection_says_so<D: Driver>(mut driver: D) {
    // Bound, so that nobody else gets the port, and not listening.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
    let address = deaf.local_addr().expect("it is bound").as_socket().expect("an IP address");
    // More often than there is room: what has failed takes none.
    for tag in 0..10 {
        driver.connect(address, None, tag);
        let mut failed = Vec::new();
        turn_until(&mut driver, |_, completion| match completion {
            Completion::ConnectFailed { tag, error } => {
                failed.push((tag, error.kind()));
                true
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(failed, [(tag, ErrorKind::ConnectionRefused)]);
    }
    assert_sleeps(&mut driver, 2);
}

fn connections_that_have_no_room_say_so<D: Driver>(mut driver: D) {
    let (_listener, address) = plain_listener();
    for tag in 0..5 {
        driver.connect(address, None, tag);
    }
    let (mut tags, mut links) = (Vec::new(), Vec::new());
    turn_until(&mut driver, |_, completion| {
        match completion {
            Completion::Connected { link, tag } => {
                links.push(link);
                tags.push(tag);
            }
            Completion::ConnectFailed { tag, error } => {
                assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
                tags.push(tag);
            }
            other => panic!("{other:?}"),
        }
        tags.len() == 5
    });
    tags.sort_unstable();
    assert_eq!((tags, links.len()), (vec![0, 1, 2, 3, 4], 3));
    // One that has gone makes room for another.
    driver.close(links[0]);
    turn_until(&mut driver, |_, completion| matches!(completion, Completion::Closed { .. }));
    driver.connect(address, None, 5);
    turn_until(&mut driver, |_, completion| matches!(completion, Completion::Connected { tag: 5, .. }));
}

/// A further ring has no descriptor: that is told, not that a table is full. It is tried again after a rest.
#[test]
fn uring_says_why_there_is_no_further_ring() {
    with_few_descriptors("connecting::uring_says_why_there_is_no_further_ring", || {
        let mut driver = uring_with(short_tables());
        let (_listener, address) = plain_listener();
        let files = all_descriptors();
        driver.connect(address, None, 0);
        turn_until(&mut driver, |_, completion| matches!(completion, Completion::Connected { tag: 0, .. }));
        (1..50).for_each(|tag| driver.connect(address, None, tag));
        let mut refused = Vec::new();
        turn(&mut driver, WAIT, |driver, completion| match completion {
            Completion::ConnectFailed { tag, error } => {
                assert!(error.to_string().contains(EMFILE), "{error}");
                refused.push(tag);
                // A loop that tries again at once comes to the end of its turn.
                driver.connect(address, None, tag);
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(refused, (1..50).collect::<Vec<_>>());
        drop(files);
        turn_until(&mut driver, |driver, completion| match completion {
            Completion::ConnectFailed { tag, .. } if tag == 1 => {
                driver.connect(address, None, tag);
                false
            }
            Completion::ConnectFailed { .. } => false,
            Completion::Connected { tag, .. } => tag == 1,
            other => panic!("{other:?}"),
        });
    });
}
