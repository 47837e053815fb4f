//! The log: a line is an event and an event is a line, whatever strangers write; and nobody waits for its reader.

use crate::process::{Process, field};
use crate::support::{Received, upgrade_with};
use std::io::Write;

/// A close frame with this payload, masked with zeros.
fn close_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x88, 0x80 | u8::try_from(payload.len()).expect("short"), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn an_event_is_a_line_whatever_strangers_write() {
    let mut server = Process::start(&["--shards", "1", "--log", "all"]);
    let long = "\u{1b}".repeat(123);
    let forged = "bye\r\ntime=now level=error event=session_ended";
    let table = [
        (forged, r#"reason="bye\r\ntime=now level=error event=session_ended""#),
        ("\u{1b}[2J\u{1b}]0;title\u{7}", r#"reason="\u{1b}[2J\u{1b}]0;title\u{7}""#),
        ("nul\0 nl\n tab\t", r#"reason="nul\0 nl\n tab\t""#),
        (r#"" cause=closed \"#, r#"reason="\" cause=closed \\""#),
        ("\u{202e}\u{2028}", r#"reason="\u{202e}\u{2028}""#),
        (&long, "\\u{1b}\"…"),
    ];
    let mut events = 0;
    for (reason, _) in &table {
        let mut client = server.client("/echo");
        client.put_close(Some((1000, reason))).flush();
        assert_eq!(client.next(), Received::close(1000, ""));
        events += 1;
    }
    // A reason that is not UTF-8 breaks a rule, and the line tells which.
    let mut client = server.client("/echo");
    client.stream.write_all(&close_frame(b"\x03\xe8\xff\xfe\n")).expect("the server takes it");
    assert!(matches!(client.next(), Received::Close(Some((1007, _)))));
    events += 1;
    // Paths of upgrades that are refused; what cannot stand in a request line is refused by the engine and has none.
    let paths = ["/x%0d%0alevel=error", "/\"quoted\"\\", "/caf\u{e9}\u{202e}"];
    for path in paths {
        assert!(matches!(server.raw().write(upgrade_with(path, "")).answer().status, 400 | 404));
        events += 1;
    }
    // What is wrong with an upgrade, or stands against it, is the engine's to say as well.
    let other_version = upgrade_with("/echo", "").replace("Version: 13", "Version: 12");
    assert_eq!(server.raw().write(other_version).answer().status, 426);
    events += 1;
    server.await_metric("ringwave_sessions", 0);
    server.signal("TERM");
    assert_eq!(server.exit_code(), 0);
    let lines = server.log().rest();
    for line in &lines {
        assert!(line.starts_with("time=20") && !line.chars().any(char::is_control), "{line:?}");
        assert!(field(line, "level").is_some() && field(line, "event").is_some(), "{line:?}");
    }
    assert_eq!(lines.len(), events as usize + 2, "and the drain's beginning and end: {lines:#?}");
    for (_, shown) in table {
        let found = lines.iter().filter(|line| line.contains(" cause=peer_closed by=peer code=1000 errno=- "));
        assert_eq!(found.filter(|line| line.ends_with(shown)).count(), 1, "{shown} in {lines:#?}");
    }
    let broken = lines.iter().find(|line| line.contains("cause=protocol")).expect("one broke a rule");
    assert!(broken.contains("level=warn event=session_ended shard=0 session=0-") && broken.contains(" rule=\""));
    assert!(lines.iter().any(|line| line.ends_with(r#"status=404 path="/x%0d%0alevel=error""#)), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with(r#"status=426 path="/echo""#)), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with(r#"status=400 path="""#)), "{lines:#?}");
}

#[test]
fn only_problems_are_told_unless_more_is_wanted() {
    for (flags, told) in [(&[][..], 1), (&["--log", "problems"], 1), (&["--log", "off"], 0), (&["--log", "all"], 2)] {
        let mut server = Process::start(&[&["--shards", "1"], flags].concat());
        let log = server.log();
        server.client("/echo").close();
        let mut client = server.client("/echo");
        client.stream.write_all(&close_frame(b"\x03")).expect("the server takes it");
        assert!(matches!(client.next(), Received::Close(Some((1002, _)))));
        drop(client);
        server.await_metric("ringwave_sessions", 0);
        server.signal("INT");
        let lines = log.rest();
        let of = |event: &str| lines.iter().filter(|line| field(line, "event") == Some(event)).count();
        assert_eq!((of("session_ended"), of("draining"), of("drained")), (told, 1, 1), "{flags:?}: {lines:#?}");
        assert_eq!(server.exit_code(), 0);
    }
}

#[test]
fn a_full_pipe_stops_nobody_and_every_event_is_a_line_or_counted() {
    const SESSIONS: u64 = 2_000;
    let mut server = Process::start(&["--shards", "2", "--log", "all"]);
    for _ in 0..SESSIONS {
        server.client("/echo").close();
    }
    server.client("/echo").echo("it still serves");
    server.await_metric("ringwave_sessions", 0);
    assert!(server.metrics().get("ringwave_log_lines_lost_total") > 0, "the pipe is not full: this tests nothing");
    let log = server.log();
    server.signal("TERM");
    let lines = log.rest();
    assert_eq!(server.exit_code(), 0);
    let (told_lost, told): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains("event=lines_lost"));
    let lost = told_lost.iter().filter_map(|line| field(line, "count")?.parse::<u64>().ok()).sum::<u64>();
    let events = SESSIONS + 1 + 2;
    assert_eq!(told.len() as u64 + lost, events, "the sessions, one more, the drain's beginning and end");
}

/// Nobody reads, and it ends all the same.
#[test]
fn a_full_pipe_does_not_keep_it_from_ending() {
    let mut server = Process::start(&["--shards", "1", "--log", "all"]);
    for _ in 0..2_000 {
        server.client("/echo").close();
    }
    assert!(server.metrics().get("ringwave_log_lines_lost_total") > 0, "the pipe is not full: this tests nothing");
    server.signal("TERM");
    assert_eq!(server.exit_code(), 0);
}
