//! Peers that take what they are sent slowly, or not at all.

use crate::support::{Raw, TestServer, eventually};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCause, Context, Handler, Message, Request, Response, Session, Upgrade, UpgradeRequest};
use std::io::{Read, Write};
use std::time::Duration;

const LONG_ANSWER: usize = 64 * MIB;
const SHORT: Duration = Duration::from_millis(50);

/// Answers every request at length.
struct Library;

impl Handler for Library {
    type Data = ();
    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }
    fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        session.send(message);
    }
    fn on_request(&mut self, _: &mut Context<'_, ()>, _: &Request<'_>) -> Response {
        Response::new(200).text(vec![b'b'; LONG_ANSWER])
    }
}

/// It takes longer than a handshake or a close may, but its reader never pauses.
#[test]
fn a_long_answer_to_a_steady_reader_arrives_whole() {
    for connection in ["keep-alive", "close"] {
        let server = TestServer::start(
            |config| {
                config.settings.handshake_timeout = SHORT;
                config.settings.close_timeout = SHORT;
            },
            |_| Library,
        );
        let mut raw: Raw = server.raw();
        socket2::SockRef::from(&raw.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
        raw.write(format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\n\r\n"));
        let (mut total, mut bytes) = (0, [0; 4 * KIB]);
        while total < LONG_ANSWER {
            let count = raw.stream.read(&mut bytes).expect("the answer goes on");
            assert_ne!(count, 0, "{connection}: the end after {total} of {LONG_ANSWER} bytes");
            total += count;
        }
    }
}

/// It sends and never reads: what is queued for it is bounded, and so is the time that it is held.
#[test]
fn a_peer_that_takes_nothing_is_ended() {
    let (server, events) = TestServer::desk(|config| {
        config.settings.session.high_water_bytes = 64 * KIB;
        config.settings.session.low_water_bytes = 16 * KIB;
        config.settings.stall_timeout = Duration::from_millis(500);
    });
    let mut client = server.client("/echo?stalled");
    client.stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a positive timeout");
    let wire = client.put(&vec![0; MIB]).take_out();
    // Nothing more is taken; then the reset comes.
    let error = loop {
        if let Err(error) = client.stream.write_all(&wire) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(events.closed(), ("stalled".to_owned(), CloseCause::Stalled));
}

/// Silent for longer than a peer may take nothing, then sent to in the very turn in which they are looked at.
#[test]
fn what_is_queued_in_the_turn_of_a_look_is_not_held_against_the_peer() {
    const STALL: Duration = Duration::from_millis(150);
    let (server, _reports) = TestServer::rig(|config| {
        config.settings.ping_interval = None;
        config.settings.stall_timeout = STALL;
    });
    let mut clients: Vec<_> = (0..100).map(|_| server.client("/silent")).collect();
    for client in &mut clients {
        client.put("subscribe news").put("subscribed").flush();
        assert_eq!(client.text(), "subscribed");
    }
    let (mut slow, mut publisher) = (server.client("/slow"), server.client("/publisher"));
    std::thread::sleep(2 * STALL);
    // Long enough that everybody's look is due in the next turn, too short for a stall of the process.
    slow.send("sleep 200");
    eventually("it is at work", || server.stats().messages_received == 201);
    publisher.send("publish news x");
    for client in &mut clients {
        assert_eq!(client.text(), "x");
    }
    assert_eq!(server.stats().ended_stalled, 0);
}

/// A message that waits for the end of one in fragments waits for us, not for the peer.
#[test]
fn a_pause_between_our_own_fragments_is_no_stall() {
    const STALL: Duration = Duration::from_millis(100);
    let (server, _reports) = TestServer::rig(|config| {
        config.settings.ping_interval = None;
        config.settings.stall_timeout = STALL;
    });
    let mut client = server.client("/pieces");
    client.put("begin a").put("behind").flush();
    std::thread::sleep(4 * STALL);
    client.put("finish b").flush();
    assert_eq!(client.text(), "ab");
    assert_eq!(client.text(), "behind");
}
