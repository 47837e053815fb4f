//! What is known of a session that has ended: who ended it and why, with which code, and what was lost.

use crate::support::{Ended, Received, TestServer};
use ringwave::CloseCause;
use std::io::Write;

/// A frame as a client sends it, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

// What comes with or behind an end of ours

/// Two things in one read: what ends the session, and what would end it in another way.
#[test]
fn the_first_cause_counts_whatever_stands_behind_it_in_the_same_read() {
    let (server, reports) = TestServer::rig(|_| {});
    let behind = [
        frame(0x88, b"\x03\xe8"),
        frame(0xff, b""),
        frame(0x81, b"\xff"),
        frame(0x81, b"panic"),
        vec![0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
    ];
    for behind in behind {
        let mut client = server.client("/terminated");
        client.put("terminate");
        let wire = [client.take_out(), behind].concat();
        client.stream.write_all(&wire).expect("the server takes it");
        assert_eq!(client.next(), Received::End(Ended::Orderly), "no close frame");
        let (_, ended) = reports.closed();
        assert_eq!((ended.cause, ended.code), (CloseCause::Closed, None), "{}", wire.escape_ascii());
    }
    assert_eq!((server.stats().ended_closed, server.stats().handler_panics), (5, 0));
}
