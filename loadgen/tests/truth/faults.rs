//! Every wrong answer is counted once, under its own name; nothing else is; and the run fails.
//!
//! The server counts what it does wrong. Faults end well before the last message, so that each is met.

use crate::answers::{Fault, Faulty, bare_echo, ending_after};
use crate::program::{Load, check_all};

/// Loads a server with a fault in every 100th answer, 2 050 messages of the given shape.
fn assert_counted(fault: Fault, name: &str, words: &str) {
    let faulty = Faulty::start(fault, 100);
    let words = format!("{words} --count 2050 --warm-up 0s --answer-timeout 400ms");
    let report = Load::new("echo", &faulty.server.url("/"), &words).run().exits(3);
    let injected = faulty.injected();
    assert!(injected >= 10, "{fault:?}: only {injected} faults");
    eprintln!("{fault:?}, {words}: {injected} faults");
    report.has_errors(&[(name, injected)]);
    assert_eq!(report.count("/runs/0/sent"), 2050);
    let sound = match fault {
        // They came, once each; the extra message came beside the own.
        Fault::Duplicate | Fault::Extra | Fault::Swap => 2050,
        _ => 2050 - injected,
    };
    assert_eq!(report.count("/runs/0/received"), sound, "{fault:?}, {words}: messages that came as they should");
}

/// One message in flight on each of four connections.
const CLOSED: &str = "-c 4";
/// Several in flight on each.
const DEEP: &str = "-c 3 -w 4";
const OPEN: &str = "-c 4 --rate 2000";

#[test]
fn lost_answers_are_counted() {
    check_all(&[CLOSED, DEEP, OPEN], |words| assert_counted(Fault::Lose, "lost", words));
}

#[test]
fn answers_that_come_twice_are_counted() {
    check_all(&[CLOSED, DEEP, OPEN, "-c 4 --text"], |words| assert_counted(Fault::Duplicate, "duplicated", words));
}

#[test]
fn answers_that_overtake_each_other_are_counted() {
    check_all(&[DEEP, OPEN, "-c 3 -w 4 --text"], |words| assert_counted(Fault::Swap, "reordered", words));
}

#[test]
fn answers_with_a_wrong_byte_in_the_stamp_are_counted() {
    check_all(&[0, 3, 6, 9, 11], |at| assert_counted(Fault::Corrupt(*at), "corrupted", CLOSED));
    check_all(&[DEEP, OPEN, "-c 4 --text"], |words| assert_counted(Fault::Corrupt(2), "corrupted", words));
}

#[test]
fn answers_with_a_wrong_byte_in_the_body_are_counted() {
    for words in [CLOSED, DEEP, OPEN] {
        assert_counted(Fault::Corrupt(19), "corrupted", words);
        assert_counted(Fault::Corrupt(3000), "corrupted", &format!("{words} -s 4KiB"));
    }
    assert_counted(Fault::Corrupt(4095), "corrupted", "-c 4 -s 4KiB --text");
}

#[test]
fn answers_of_the_wrong_length_are_counted() {
    check_all(&[CLOSED, DEEP, OPEN, "-c 4 -s 4KiB", "-c 4 --text"], |words| {
        assert_counted(Fault::Truncate, "corrupted", words)
    });
}

#[test]
fn answers_of_the_other_kind_are_counted() {
    check_all(&[CLOSED, OPEN, "-c 4 --text", "-c 3 -w 4 --text"], |words| {
        assert_counted(Fault::OtherKind, "corrupted", words)
    });
}

#[test]
fn messages_of_another_connection_are_counted() {
    check_all(&[CLOSED, DEEP, OPEN, "-c 4 --text"], |words| assert_counted(Fault::Foreign, "corrupted", words));
}

#[test]
fn messages_of_another_connection_beside_the_own_are_counted() {
    check_all(&[CLOSED, DEEP, OPEN], |words| assert_counted(Fault::Extra, "corrupted", words));
}

#[test]
fn messages_too_short_for_a_stamp_are_compared_all_the_same() {
    assert_counted(Fault::Corrupt(0), "corrupted", "-c 4 -s 1");
    assert_counted(Fault::Corrupt(3), "corrupted", "-c 4 -s 4");
}

#[test]
fn both_drivers_count_the_same() {
    assert_counted(Fault::Lose, "lost", "-c 4 --driver epoll");
    assert_counted(Fault::Corrupt(3000), "corrupted", "-c 4 -s 4KiB --driver epoll");
}

#[test]
fn a_lost_message_is_not_missing_from_the_latency() {
    let faulty = Faulty::start(Fault::Lose, 20);
    let words = "-c 4 --rate 1000 --count 1010 --warm-up 0s --answer-timeout 500ms";
    let report = Load::new("echo", &faulty.server.url("/"), words).run().exits(3);
    // A twentieth waited in vain for half a second: to leave them out would flatter the server.
    assert!(report.count("/runs/0/latency/p99_ns") >= 499_000_000, "{}", report.at("/runs/0/latency"));
}

#[test]
fn messages_that_the_server_does_not_take_are_lost_too() {
    // It answers five messages of each connection and then reads no more: what the sockets hold is a few dozen.
    let server = ending_after(5, |session| session.hold());
    let words = "-c 2 -s 512KiB --rate 100 --count 100 --warm-up 0s --answer-timeout 700ms";
    check_all(&["auto", "epoll"], |driver| {
        let report = Load::new("echo", &server.url("/"), words).and("--driver").argument(driver).run().exits(3);
        report.has_errors(&[("lost", 90)]);
        assert_eq!([report.count("/runs/0/sent"), report.count("/runs/0/received")], [100, 10]);
        assert_eq!(report.count("/runs/0/latency/count"), 100, "none is missing from the latency");
        assert!(report.count("/runs/0/latency/p50_ns") >= 699_000_000, "{}", report.at("/runs/0/latency"));
    });
}

#[test]
fn a_bare_echo_is_compared_byte_by_byte() {
    let server = bare_echo(&[]);
    let words = "-c 3 -s 100 --count 900 --warm-up 0s";
    let report = Load::new("echo", &server.tcp_url(), words).run().exits(0);
    assert_eq!(report.count("/runs/0/received"), 900);

    // Three connections, two messages of each with a wrong bit.
    let server = bare_echo(&[250, 10_050]);
    let report = Load::new("echo", &server.tcp_url(), words).run().exits(3);
    report.has_errors(&[("corrupted", 6)]);
}
