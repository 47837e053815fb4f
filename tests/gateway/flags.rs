//! Flags: what is wrong is said; what they change is seen.

use crate::process::{Process, command};
use crate::support::{Received, upgrade_with};
use std::time::{Duration, Instant};

#[test]
fn a_wrong_flag_ends_it_with_2_and_is_named() {
    for flags in [
        &["--max-message", "0"][..],
        &["--max-frame", "0"],
        &["--memory", "lots"],
        &["--message-rate", "0"],
        &["--byte-rate", "1KiB/"],
        &["--max-per-address", "0"],
        &["--slow-consumer", "wait"],
        &["--drain-code", "1000"],
        &["--drain-window", "1m", "--shutdown-timeout", "30s"],
        &["--log", "everything"],
        &["--shards", "5000"],
        &["--listen", "0.0.0.0:0"],
    ] {
        let done = command(flags).output().expect("the binary has been built");
        let error = String::from_utf8(done.stderr).expect("text");
        assert_eq!(done.status.code(), Some(2), "{flags:?}: {error}");
        let named = if flags[0] == "--listen" { "--insecure" } else { flags[0] };
        assert!(error.starts_with("error: ") && error.contains(named), "{flags:?}: {error}");
        assert!(done.stdout.is_empty());
    }
}

#[test]
fn an_address_that_is_taken_ends_it_with_1() {
    let server = Process::start(&[]);
    let address = server.address().to_string();
    let done = command(&["--listen", &address]).output().expect("the binary has been built");
    let error = String::from_utf8(done.stderr).expect("text");
    assert_eq!(done.status.code(), Some(1), "{error}");
    assert!(error.starts_with("ringwave: ") && error.contains(&address), "{error}");
}

#[test]
fn variables_stand_for_flags() {
    let done = command(&[]).env("RINGWAVE_MESSAGE_RATE", "fast").output().expect("the binary has been built");
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("--message-rate"));
}

#[test]
fn a_switch_is_on_or_off_in_the_usual_words() {
    for (word, code) in [("1", 1), ("true", 1), ("yes", 1), ("on", 1), ("0", 2), ("false", 2), ("no", 2), ("maybe", 2)]
    {
        // An address that nobody can listen on: with the switch it is tried.
        let mut command = command(&["--listen", "192.0.2.1:1"]);
        let done = command.env("RINGWAVE_INSECURE", word).output().expect("the binary has been built");
        assert_eq!(done.status.code(), Some(code), "{word}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn half_a_head_may_be_one_line() {
    for (flags, bytes, status) in [
        (&[][..], 7_000, 200),
        (&[], 9_000, 431),
        (&["--max-head", "64KiB"], 30_000, 200),
        (&["--max-head", "64KiB"], 33_000, 431),
    ] {
        let server = Process::start(&[&["--shards", "1"], flags].concat());
        let wire = format!("GET /livez HTTP/1.1\r\nHost: h\r\nCookie: {}\r\n\r\n", "x".repeat(bytes));
        assert_eq!(server.raw().write(wire).answer().status, status, "{flags:?}, {bytes}");
    }
}

#[test]
fn wildcards_are_subscribed_to_where_they_are_allowed() {
    let refuses = Process::start(&["--shards", "1"]);
    for target in ["/ws?topic=a/%2B", "/ws?topic=%23"] {
        let answer = refuses.raw().write(upgrade_with(target, "")).answer();
        assert_eq!((answer.status, answer.body.contains("wildcards")), (400, true), "{target}");
    }
    let server = Process::start(&["--shards", "1", "--wildcards"]);
    let answer = server.raw().write(upgrade_with("/ws?topic=%23/a", "")).answer();
    assert_eq!(answer.status, 400);
    let mut listener = server.client("/ws?topic=a/%2B/c&topic=own");
    let mut publisher = server.client("/ws?topic=a/b/c&topic=a/b");
    publisher.send("x");
    assert_eq!(listener.text(), "x");
    // To its names only: nobody subscribed to the pattern's own text.
    listener.send("y");
    assert_eq!(listener.text(), "y");
    assert_eq!([publisher.text(), publisher.text()], ["x", "x"], "one for each of its topics");
    publisher.send("z");
    assert_eq!([publisher.text(), publisher.text(), listener.text()], ["z", "z", "z"]);
}

#[test]
fn a_frame_may_have_a_limit_of_its_own() {
    let server = Process::start(&["--shards", "1", "--max-frame", "1KiB"]);
    let mut client = server.client("/echo");
    client.put_first(ringwave::MessageKind::Binary, &[1; 1024]).put_next(&[2; 1024], true).flush();
    assert_eq!(client.next(), Received::Binary([[1; 1024], [2; 1024]].concat()));
    client.send(&[0; 1025][..]);
    assert!(matches!(client.next(), Received::Close(Some((1009, _)))));
}

#[test]
fn rates_hold_back_or_close() {
    let pauses = Process::start(&["--shards", "1", "--message-rate", "50/1"]);
    let mut client = pauses.client("/echo");
    let start = Instant::now();
    for _ in 0..11 {
        client.echo("x");
    }
    assert!(start.elapsed() > Duration::from_millis(150), "10 more at 50 a second, not {:?}", start.elapsed());
    assert!(pauses.metrics().get("ringwave_sessions_throttled_total") > 0);

    let closes = Process::start(&["--shards", "1", "--byte-rate", "1KiB", "--rate-answer", "close"]);
    let mut client = closes.client("/echo");
    client.echo("x");
    client.send(&[0; 2048][..]);
    let closed = std::iter::repeat_with(|| client.next()).find(|next| matches!(next, Received::Close(_)));
    assert!(matches!(closed, Some(Received::Close(Some((1008, _))))), "{closed:?}");
}

#[test]
fn a_session_lives_no_longer_than_it_may() {
    let server = Process::start(&["--shards", "1", "--lifetime", "100ms"]);
    assert_eq!(server.client("/echo").next(), Received::close(1001, "it may not live longer"));
}
