//! Servers that break off, break the rules, or make use of all that the rules allow.

use crate::answers::{Pinging, ending_after, honest};
use crate::program::{Done, Load};
use crate::server::{Arrival, Server, Session, lock, wait_for};
use std::io::{Read, Write};
use std::time::Duration;
use tungstenite::Message;

const FEW: &str = "-c 3 -d 1s --warm-up 0s --connect-timeout 700ms --answer-timeout 500ms";

fn echo(server: &Server, words: &str) -> Done {
    Load::new("echo", &server.url("/"), FEW).and(words).run()
}

fn refusing(status: u16) -> Server {
    Server::selective(move |_| Some(status), |_| unreachable!("nobody is let in"))
}

#[test]
fn a_server_that_refuses_every_handshake_is_not_loaded() {
    for (status, words) in [(404, ["404", "path|/"]), (503, ["503", "server"]), (401, ["401", "header|authoriz"])] {
        let server = refusing(status);
        for driver in ["auto", "epoll"] {
            echo(&server, &format!("--driver {driver}")).fails(&[1], &words);
        }
    }
}

#[test]
fn a_server_that_refuses_some_handshakes_is_reported() {
    let server = Server::selective(
        |arrival| (arrival.index == 1).then_some(503),
        |mut session| {
            while let Ok(message) = session.next() {
                session.outlet.send(&message);
            }
        },
    );
    let done = echo(&server, "");
    assert!([1, 3].contains(&done.code), "{}", done.code);
    done.fails(&[1, 3], &["503"]);
}

#[test]
fn a_server_that_accepts_and_never_answers_is_given_up() {
    let server = Server::bare(|stream, _| {
        // Reads until the client leaves.
        let _ = (&*stream).read_to_end(&mut Vec::new());
    });
    for driver in ["auto", "epoll"] {
        let done = echo(&server, &format!("--driver {driver}"));
        done.fails(&[1], &["in time|timed out|within", "handshake|answer"]);
        assert!(done.elapsed < Duration::from_secs(3), "{:?}", done.elapsed);
    }
}

#[test]
fn a_server_that_answers_with_something_else_is_told_from_a_websocket() {
    for answer in
        ["SSH-2.0-OpenSSH_9.6\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "\x16\x03\x01garbage\r\n\r\n"]
    {
        let server = Server::bare(move |stream, _| {
            // It may have left.
            let _ = (&*stream).read(&mut [0; 2048]);
            let _ = (&*stream).write_all(answer.as_bytes());
            let _ = (&*stream).read_to_end(&mut Vec::new());
        });
        echo(&server, "").fails(&[1], &["websocket|http|handshake|upgrade"]);
    }
}

#[test]
fn a_server_that_closes_instead_of_answering_is_named() {
    let server = Server::bare(|stream, _| {
        let _ = (&*stream).read(&mut [0; 2048]);
    });
    echo(&server, "").fails(&[1], &["closed|ended|reset", "handshake"]);
}

/// Runs an echo that does `after` after 20 answers on each of three connections.
fn assert_disconnected(after: impl Fn(Session) + Send + Sync + 'static) {
    let server = ending_after(20, after);
    let report = echo(&server, "").exits(3);
    assert_eq!(report.count("/runs/0/received"), 60);
    // Each connection may have sent one more message, which is then lost.
    let lost = report.count("/runs/0/sent") - 60;
    report.has_errors(&[("disconnected", 3), ("lost", lost)]);
}

#[test]
fn connections_that_the_server_ends_are_counted() {
    // Without a word, but with an end of stream.
    assert_disconnected(|session| session.outlet.shut());
    assert_disconnected(Session::reset);
    assert_disconnected(|mut session| {
        session.outlet.close(1001);
        session.read_to_end();
    });
}

#[test]
fn connections_on_which_the_server_breaks_the_rules_are_counted() {
    // A reserved opcode, a masked frame, a reserved bit, a fragmented ping, a continuation of nothing, an unsound
    // length of a control frame, and text that is no UTF-8.
    let breaches: [&[u8]; 7] = [
        &[0x83, 0x00],
        &[0x82, 0x81, 1, 2, 3, 4, 5],
        &[0xc2, 0x00],
        &[0x09, 0x00],
        &[0x80, 0x01, b'x'],
        &[0x89, 0x7e, 0x00, 0x7e],
        &[0x81, 0x02, 0xc3, 0x28],
    ];
    for breach in breaches {
        eprintln!("{breach:02x?}");
        assert_disconnected(move |mut session| {
            session.outlet.send_bytes(breach);
            session.read_to_end();
        });
    }
}

#[test]
fn a_connection_that_ends_right_after_the_handshake_is_counted() {
    for driver in ["auto", "epoll"] {
        let server = ending_after(0, drop);
        let done = echo(&server, &format!("--driver {driver}"));
        // Whether it had been established when it ended is a matter of microseconds.
        assert!([1, 3].contains(&done.code), "{}", done.code);
        assert!(done.elapsed < Duration::from_secs(5), "{:?}", done.elapsed);
    }
}

#[test]
fn the_others_go_on_when_one_connection_ends() {
    let server = Server::websocket(|mut session| {
        for count in 0.. {
            if session.index == 1 && count == 50 {
                return session.reset();
            }
            let Ok(message) = session.next() else { return };
            session.outlet.send(&message);
        }
    });
    let report = echo(&server, "--rate 900").exits(3);
    let lost = report.errors_of(0).get("lost").copied().unwrap_or(0);
    assert!(lost <= 20, "{lost} messages were on their way on the connection that ended");
    report.has_errors(&[("disconnected", 1), ("lost", lost)]);
    // Every message is answered or lost, and has waited for so long as it did.
    assert_eq!(report.count("/runs/0/latency/count"), report.count("/runs/0/sent"));
    let intervals = report.at("/runs/0/intervals").as_array().expect("a list");
    assert_eq!(intervals[intervals.len() - 1]["connections"], 2, "{intervals:?}");
    // 50 rounds of three, and then all that was still to be sent on two.
    let answered = report.count("/runs/0/latency/count") - lost;
    assert!((880..=900).contains(&answered), "{answered} messages were answered");
}

#[test]
fn a_message_that_nobody_asked_for_is_counted() {
    let server = Server::websocket(|mut session| {
        let mut count = 0;
        while let Ok(message) = session.next() {
            count += 1;
            if count == 10 {
                session.outlet.send(&Message::binary(vec![7; 20]));
            }
            session.outlet.send(&message);
        }
    });
    echo(&server, "").exits(3).has_errors(&[("corrupted", 3)]);
}

#[test]
fn pings_are_answered_even_between_fragments() {
    for words in ["-c 3 -w 2", "-c 3 --rate 1500", "-c 2 -s 300 --driver epoll"] {
        let pinging = Pinging::start(7);
        let words = format!("{words} --count 1000 --warm-up 0s");
        Load::new("echo", &pinging.server.url("/"), &words).run().exits(0).has_errors(&[]);
        let (pings, pongs) = pinging.counts();
        assert!(pings > 100, "{pings} pings");
        // The connections end while the last ping of each may be on its way.
        wait_for("the pongs", || pinging.counts().1 + 6 >= pings);
        let broken = lock(&pinging.server.seen().broken).clone();
        assert!(broken.is_empty(), "{pongs} of {pings} pings were answered, {broken:?}");
    }
}

#[test]
fn fragments_and_single_bytes_are_whole_messages() {
    for words in ["-c 2 -s 1KiB", "-c 2 -s 300 --text --driver epoll", "-c 2 -s 1"] {
        let server = Server::websocket(|mut session| {
            let mut count = 0;
            while let Ok(message) = session.next() {
                count += 1;
                if count % 2 == 0 {
                    session.outlet.send_fragments(&message, 1 + count % 9, &[]);
                } else {
                    session.outlet.send_bytewise(&message);
                }
            }
        });
        let words = format!("{words} --count 60 --warm-up 0s");
        let report = Load::new("echo", &server.url("/"), &words).run().exits(0);
        assert_eq!(report.count("/runs/0/received"), 60);
        report.has_errors(&[]);
    }
}

#[test]
fn our_own_messages_break_no_rule() {
    let server = honest();
    Load::new("echo", &server.url("/"), "-c 3 -w 5 -s 70000 --text --count 100 --warm-up 0s").run().exits(0);
    // The library refuses unmasked frames, unknown opcodes, wrong lengths and text that is no UTF-8.
    assert!(lock(&server.seen().broken).is_empty(), "{:?}", lock(&server.seen().broken));
}

#[test]
fn a_greeting_is_no_error() {
    let greet = |arrival: &Arrival| {
        arrival.outlet.send(&Message::text("hello, stranger"));
        None
    };
    let server = Server::selective(greet, |mut session| {
        while let Ok(message) = session.next() {
            session.outlet.send(&message);
        }
    });
    for words in ["-c 3 -w 2", "-c 3 --rate 1000", "-c 3 --driver epoll"] {
        let words = format!("{words} --count 300");
        Load::new("echo", &server.url("/"), &words).run().exits(0).has_errors(&[]);
    }
}
