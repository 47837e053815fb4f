//! The server's end, asked for by a signal: who is told and when, what is delivered before, and the exit code.

use crate::process::{Process, field};
use crate::support::{Client, DEADLINE, Ended, Received, eventually, sockets_at_once};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Publishes numbers from 0 on, the next one when the last has come back, until it is told goodbye.
struct Publisher {
    /// Numbers that have come back.
    back: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Publisher {
    fn start(mut client: Client) -> Self {
        let back = Arc::new(AtomicU64::new(0));
        let counter = back.clone();
        let thread = std::thread::spawn(move || {
            for number in 0u64.. {
                client.send(&*number.to_string());
                match client.next() {
                    Received::Text(text) => assert_eq!(text, number.to_string()),
                    goodbye => return answer(&mut client, &goodbye),
                }
                counter.store(number + 1, Ordering::SeqCst);
            }
        });
        Self { back, thread }
    }

    /// Waits until so many numbers are back: whatever the server accepted before has been published.
    fn await_back(&self, count: u64) -> u64 {
        eventually("enough is published", || self.back.load(Ordering::SeqCst) >= count);
        self.back.load(Ordering::SeqCst)
    }
}

/// Receives numbers from 0 on, none missing, until the goodbye. Answers how many, and the goodbye.
fn numbers_until_goodbye(client: &mut Client) -> (u64, Received) {
    for number in 0u64.. {
        match client.next() {
            Received::Text(text) => assert_eq!(text, number.to_string(), "one is missing, or came twice"),
            goodbye => return (number, goodbye),
        }
    }
    unreachable!("the numbers do not end")
}

/// Answers a goodbye, and sees the end.
fn answer(client: &mut Client, goodbye: &Received) {
    let Received::Close(Some((code, _))) = goodbye else { panic!("a goodbye, not {goodbye:?}") };
    client.put_close(Some((*code, ""))).flush();
    assert_eq!(client.next(), Received::End(Ended::Orderly));
}

#[test]
fn goodbyes_under_load_are_spread_and_nothing_accepted_before_is_lost() {
    const SESSIONS: usize = 500;
    let window = Duration::from_secs(1);
    let mut server = Process::start(&["--shards", "2", "--drain-window", "1s", "--drain-code", "1012"]);
    let log = server.log();
    let readers: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let mut client = server.client("/ws?topic=load");
            let read = move || {
                let (received, goodbye) = numbers_until_goodbye(&mut client);
                let at = Instant::now();
                assert_eq!(goodbye, Received::close(1012, "the server restarts"));
                answer(&mut client, &goodbye);
                (received, at)
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn(read).expect("a thread")
        })
        .collect();
    let publisher = Publisher::start(server.client("/ws?topic=load"));
    let before = publisher.await_back(20);
    server.signal("TERM");
    let told: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("it kept to its order")).collect();
    publisher.thread.join().expect("it was told goodbye");
    assert_eq!(server.exit_code(), 0);

    let fewest = told.iter().map(|(received, _)| *received).min().expect("there are some");
    assert!(fewest >= before, "{before} were accepted before the signal, and somebody received {fewest}");
    let first = told.iter().map(|(_, at)| *at).min().expect("there are some");
    let last = told.iter().map(|(_, at)| *at).max().expect("there are some");
    assert!(last - first > window / 2, "{:?} from the first goodbye to the last", last - first);
    // And not in two heaps: every fifth of the window has its share.
    for fifth in 0..5 {
        let (from, to) = (first + window * fifth / 5, first + window * (fifth + 1) / 5);
        let count = told.iter().filter(|(_, at)| (from..to).contains(at)).count();
        assert!(count > SESSIONS / 20, "{count} goodbyes in fifth {fifth} of the window");
    }
    let draining = log.find("event=draining");
    assert_eq!((field(&draining, "window_ms"), field(&draining, "code")), (Some("1000"), Some("1012")));
    assert_eq!(field(&draining, "sessions"), Some("501"));
    assert_eq!(field(&log.find("event=drained"), "sessions_cut"), Some("0"));
}

#[test]
fn five_thousand_sessions_receive_all_that_was_published_and_then_their_goodbye() {
    const MESSAGES: u64 = 10;
    let sessions = sockets_at_once(5_000);
    let timeout = format!("{}s", DEADLINE.as_secs());
    let mut server = Process::start(&["--shards", "2", "--shutdown-timeout", &timeout, "--close-timeout", &timeout]);
    let log = server.log();
    let mut clients: Vec<_> = (0..sessions).map(|_| server.client("/ws?topic=all")).collect();
    let publisher = Publisher::start(server.client("/ws?topic=all"));
    let before = publisher.await_back(MESSAGES);
    let start = Instant::now();
    server.signal("TERM");
    for client in &mut clients {
        let (received, goodbye) = numbers_until_goodbye(client);
        assert!(received >= before, "{received} of {before}");
        assert_eq!(goodbye, Received::close(1001, "the server shuts down"));
        client.put_close(Some((1001, ""))).flush();
    }
    for client in &mut clients {
        assert_eq!(client.next(), Received::End(Ended::Orderly));
    }
    publisher.thread.join().expect("it was told goodbye");
    assert_eq!(server.exit_code(), 0);
    println!("{sessions} sessions, {before} messages each: ended {:?} after the signal", start.elapsed());
    assert_eq!(field(&log.find("event=drained"), "sessions_cut"), Some("0"));
}

#[test]
fn the_exit_code_tells_whether_the_deadline_cut_somebody_off() {
    let mut server = Process::start(&["--shards", "1", "--shutdown-timeout", "200ms"]);
    let log = server.log();
    let mut answers = server.client("/echo");
    let mut silent = [server.client("/echo"), server.client("/echo")];
    server.signal("TERM");
    let goodbye = answers.next();
    answer(&mut answers, &goodbye);
    for client in &mut silent {
        assert_eq!(client.next(), Received::close(1001, "the server shuts down"));
    }
    assert_eq!(server.exit_code(), 3);
    let drained = log.find("event=drained");
    assert_eq!((field(&drained, "level"), field(&drained, "sessions_cut")), (Some("warn"), Some("2")));
}

#[test]
fn nobody_there_is_no_reason_to_wait() {
    for name in ["TERM", "INT"] {
        let mut server = Process::start(&["--drain-window", "10s"]);
        let start = Instant::now();
        server.signal(name);
        assert_eq!(server.exit_code(), 0);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Process::start(&["--shards", "1", "--shutdown-timeout", "1h"]);
    let log = server.log();
    let _silent = server.client("/echo");
    server.signal("TERM");
    log.find("event=draining");
    server.signal("INT");
    assert_eq!(server.exit_code(), 130);
}
