//! The servers of these tests, seen by `tungstenite`'s client: they do what they say, and as often as they say.

use crate::answers::{Delaying, Fault, Faulty, Pinging, ending_after, honest, stalling, throttled};
use crate::hub::{Delivery, Hub};
use crate::server::{Server, Session, wait_for};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tungstenite::{Error, Message, WebSocket};

type Client = WebSocket<TcpStream>;

fn connect(server: &Server, path: &str) -> Client {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("not zero");
    tungstenite::client(server.url(path), stream).expect("it upgrades").0
}

fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).expect("it listens");
}

fn hear(client: &mut Client) -> String {
    loop {
        match client.read().expect("a message") {
            Message::Text(text) => return text.to_string(),
            Message::Binary(bytes) => return format!("binary {}", String::from_utf8_lossy(&bytes)),
            _ => {}
        }
    }
}

/// Sends `one` to `four` on one connection and hears `expected`, after so many faults.
fn assert_heard(fault: Fault, expected: &str, injected: u64) {
    let faulty = Faulty::start(fault, 2);
    let mut client = connect(&faulty.server, "/");
    for word in ["one", "two", "three", "four"] {
        say(&mut client, word);
    }
    let heard: Vec<String> = expected.split(", ").map(|_| hear(&mut client)).collect();
    assert_eq!(heard.join(", "), expected, "{fault:?}");
    wait_for("the faults", || faulty.injected() == injected);
}

#[test]
fn each_fault_is_the_one_it_is_called() {
    assert_heard(Fault::Lose, "one, three", 2);
    assert_heard(Fault::Duplicate, "one, two, two, three, four, four", 2);
    // Only the second is overtaken: the fourth waits for a fifth in vain.
    assert_heard(Fault::Swap, "one, three, two, four", 1);
    assert_heard(Fault::Corrupt(1), "one, tvo, three, fnur", 2);
    assert_heard(Fault::Truncate, "one, tw, three, fou", 2);
    assert_heard(Fault::OtherKind, "one, binary two, three, binary four", 2);
}

#[test]
fn a_foreign_answer_comes_instead_of_the_own_or_before_it() {
    for (fault, expected) in [(Fault::Foreign, vec!["a"]), (Fault::Extra, vec!["a", "b"])] {
        let faulty = Faulty::start(fault, 1);
        let (mut a, mut b) = (connect(&faulty.server, "/"), connect(&faulty.server, "/"));
        say(&mut a, "a");
        assert_eq!(hear(&mut a), "a");
        say(&mut b, "b");
        let heard: Vec<String> = expected.iter().map(|_| hear(&mut b)).collect();
        assert_eq!((heard, faulty.injected()), (expected.into_iter().map(str::to_owned).collect(), 1));
    }
}

#[test]
fn delays_stalls_and_throttles_take_the_time_they_are_given() {
    let delaying = Delaying::start(vec![Duration::ZERO, Duration::from_millis(30)]);
    let mut client = connect(&delaying.server, "/");
    for _ in 0..2 {
        say(&mut client, "x");
        hear(&mut client);
    }
    wait_for("the second delay", || delaying.took().len() == 2);
    assert!(delaying.took()[1] >= Duration::from_millis(30), "{:?}", delaying.took());

    let server = stalling(2, Duration::from_millis(40));
    let (mut a, mut b) = (connect(&server, "/"), connect(&server, "/"));
    say(&mut a, "x");
    hear(&mut a);
    let begun = Instant::now();
    say(&mut a, "stalls");
    wait_for("both", || server.seen().messages.load(Ordering::SeqCst) == 2);
    say(&mut b, "stands behind it");
    hear(&mut b);
    assert!(begun.elapsed() >= Duration::from_millis(40), "{:?}", begun.elapsed());

    let server = throttled(100.0);
    let mut client = connect(&server, "/");
    let begun = Instant::now();
    (0..20).for_each(|_| say(&mut client, "x"));
    (0..20).for_each(|_| drop(hear(&mut client)));
    assert!(begun.elapsed() >= Duration::from_millis(180), "{:?}", begun.elapsed());
}

#[test]
fn a_hub_reaches_all_of_a_room_and_nobody_else() {
    let (server, hub) = Hub::start(Delivery::Queued);
    let [mut a, mut b, mut elsewhere] = ["/a", "/a", "/b"].map(|room| connect(&server, room));
    let mut publisher = connect(&server, "/a/publish");
    say(&mut elsewhere, "b");
    assert_eq!(hear(&mut elsewhere), "b");
    say(&mut a, "all");
    assert_eq!([hear(&mut a), hear(&mut b)], ["all", "all"]);
    say(&mut publisher, "a");
    assert_eq!([hear(&mut a), hear(&mut b)], ["a", "a"]);
    assert_eq!((hub.published(), hub.delivered()), (3, 5));
}

#[test]
fn a_hub_loses_doubles_and_swaps_single_deliveries() {
    for (fault, expected) in [
        (Fault::Lose, "one three five"),
        (Fault::Duplicate, "one two two three four four five"),
        (Fault::Swap, "one three two five four"),
    ] {
        let (server, hub) = Hub::faulty(fault, 2);
        let (mut subscriber, mut publisher) = (connect(&server, "/a"), connect(&server, "/a/publish"));
        for word in ["one", "two", "three", "four", "five"] {
            say(&mut publisher, word);
        }
        let heard: Vec<String> = expected.split(' ').map(|_| hear(&mut subscriber)).collect();
        assert_eq!((heard.join(" ").as_str(), hub.injected()), (expected, 2), "{fault:?}");
    }
}

#[test]
fn a_full_queue_ends_its_subscriber_and_nobody_else() {
    let (server, hub) = Hub::start(Delivery::Bounded(4));
    let stalled = connect(&server, "/a");
    let mut publisher = connect(&server, "/a/publish");
    let large = "x".repeat(1 << 20);
    for _ in 0..32 {
        say(&mut publisher, &large);
    }
    wait_for("the end of the stalled one", || hub.dropped() == 1);
    drop(stalled);
    wait_for("all of them", || hub.published() == 32);
    let mut other = connect(&server, "/a");
    say(&mut publisher, "after");
    assert_eq!(hear(&mut other), "after");
}

#[test]
fn pongs_are_counted_when_they_are_right() {
    let pinging = Pinging::start(1);
    let mut client = connect(&pinging.server, "/");
    for _ in 0..2 {
        say(&mut client, "message");
        assert_eq!(hear(&mut client), "message");
    }
    // The library's pongs leave with the next write.
    say(&mut client, "last");
    hear(&mut client);
    client.close(None).expect("open");
    while client.read().is_ok() {}
    wait_for("the pongs", || pinging.counts().1 >= 3);
    assert_eq!(pinging.counts().0, 4);
}

#[test]
fn connections_end_as_they_should_and_are_seen_to() {
    let server = ending_after(1, Session::reset);
    let mut client = connect(&server, "/");
    say(&mut client, "x");
    hear(&mut client);
    say(&mut client, "y");
    let ended = client.read().expect_err("it was reset");
    assert!(matches!(&ended, Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionReset), "{ended}");

    let server = honest();
    let seen = server.seen();
    let mut client = connect(&server, "/");
    client.close(None).expect("open");
    wait_for("the close", || seen.closed.load(Ordering::SeqCst) == 1);
    drop(connect(&server, "/"));
    wait_for("the end", || seen.dropped.load(Ordering::SeqCst) == 1);
    let mut client = connect(&server, "/");
    say(&mut client, "x");
    wait_for("the answer", || client.get_ref().peek(&mut [0]).is_ok());
    drop(client);
    wait_for("the reset", || seen.reset.load(Ordering::SeqCst) == 1);
}

#[test]
fn fragments_and_single_bytes_are_one_message() {
    let server = Server::websocket(|mut session| {
        while let Ok(message) = session.next() {
            session.outlet.send_fragments(&message, 4, &[]);
            session.outlet.send_bytewise(&message);
        }
    });
    let mut client = connect(&server, "/");
    for length in [1, 3, 4, 5, 200] {
        let text = "abcdefg".repeat(200)[..length].to_owned();
        say(&mut client, &text);
        assert_eq!([hear(&mut client), hear(&mut client)], [text.clone(), text]);
    }
}
