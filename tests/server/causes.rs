//! What is known of a session that has ended: who ended it and why, with which code, and what was lost.

use crate::support::{Ended, Received, TestServer, eventually};
use ringwave::base::limits::{KIB, MIB};
use ringwave::protocol::error::ProtocolError;
use ringwave::{CloseCause, CloseCode};
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

/// What the application closed with is what was on the wire, however the session ends then.
#[test]
fn the_code_is_that_of_the_close_frame_which_was_sent() {
    let (server, reports) = TestServer::rig(|_| {});
    let behind: [(&[u8], CloseCause); 3] = [
        (&frame(0xff, b""), CloseCause::Protocol(ProtocolError::ReservedBits)),
        (&frame(0x88, b"\x0f\xa0"), CloseCause::Closed),
        (b"", CloseCause::HandlerPanicked),
    ];
    for (behind, cause) in behind {
        let mut client = server.client("/closed");
        client.put(if behind.is_empty() { "close+panic 3456 x" } else { "close 3456 x" });
        let wire = [&client.take_out(), behind].concat();
        client.stream.write_all(&wire).expect("the server takes it");
        assert_eq!(client.next(), Received::close(3456, "x"));
        assert_eq!(client.next(), Received::End(Ended::Orderly));
        let (_, ended) = reports.closed();
        assert_eq!((ended.cause, ended.code), (cause, CloseCode::new(3456)));
    }
}

/// An unfinished message that is too much for the shard, where nothing else could be let go of.
#[test]
fn whoever_sends_more_than_there_is_memory_for_is_told_to_come_back() {
    let (server, reports) = TestServer::rig(|config| config.settings.memory_bytes_max = 200 * KIB);
    let mut client = server.client("/long");
    let wire = client.put(&vec![0; MIB]).take_out();
    // The rest is not taken any more, or thrown away.
    let _ = client.stream.write_all(&wire[..wire.len() - 1]);
    assert_eq!(client.next(), Received::close(1013, "no memory for its message"));
    let (_, ended) = reports.closed();
    assert_eq!((ended.cause, ended.code), (CloseCause::OutOfMemory, Some(CloseCode::TRY_AGAIN_LATER)));
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    eventually("nothing is held", || server.stats().memory_bytes == 0);
}
