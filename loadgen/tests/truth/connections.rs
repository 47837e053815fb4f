//! Connections are counted as the server counts them: how they came about, how they ended, which still answer.

use crate::answers::{Fault, Faulty, honest};
use crate::hub::Hub;
use crate::program::{Load, check_all, within_three_attempts};
use crate::server::{Arrival, Server, wait_for};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn of(count: &AtomicU64) -> u64 {
    count.load(Ordering::SeqCst)
}

/// Runs a churn. Answers the handshakes that it counted, and connections that ended by close, end of stream and reset.
fn churn(server: &Server, words: &str) -> (u64, [u64; 3]) {
    let report = Load::new("churn", &server.url("/"), "-c 8 --count 200 --warm-up 0s").and(words).run().exits(0);
    report.has_errors(&[]);
    let seen = server.seen();
    let ended = || [of(&seen.closed), of(&seen.dropped), of(&seen.reset)];
    wait_for("the end of all connections", || ended().iter().sum::<u64>() == of(&seen.upgrades));
    assert_eq!(report.count("/runs/0/sent"), 200);
    (report.count("/runs/0/received"), ended())
}

#[test]
fn churn_ends_its_connections_as_it_was_told() {
    for (words, place) in
        [("--close clean", 0), ("--close drop", 1), ("--close reset", 2), ("--close reset --driver epoll", 2)]
    {
        let server = honest();
        let (received, ended) = churn(&server, words);
        assert_eq!((received, of(&server.seen().upgrades)), (200, 200), "{words}");
        let mut expected = [0; 3];
        expected[place] = 200;
        assert_eq!(ended, expected, "{words}: closed, dropped, reset");
    }
}

#[test]
fn churn_mixes_all_ways_to_end() {
    let server = honest();
    let (_, ended) = churn(&server, "--close mix");
    assert!(ended.iter().all(|count| *count >= 20), "{ended:?} closed, dropped, reset");
}

#[test]
fn churn_keeps_its_rate() {
    let server = honest();
    let words = "-c 8 --rate 200 -d 1s --warm-up 0s";
    let report = Load::new("churn", &server.url("/"), words).run().exits(0);
    let began = of(&server.seen().connections);
    assert!((195..=205).contains(&began), "{began} connections in a second of 200");
    // One or two may begin between the end of the measured time and the end of the loop.
    assert!((0..=2).contains(&(began as i64 - report.count("/runs/0/sent") as i64)), "{began} connections");
}

#[test]
fn churn_counts_the_handshakes_that_were_refused() {
    let server = Server::selective(
        |arrival| (arrival.index % 10 == 9).then_some(503),
        |mut session| drop(session.read_to_end()),
    );
    let words = "-c 4 --count 205 --warm-up 0s";
    let report = Load::new("churn", &server.url("/"), words).run().exits(3);
    assert_eq!(of(&server.seen().refused), 20);
    report.has_errors(&[("not_connected", 20)]);
    assert_eq!(report.count("/runs/0/received"), 185);
}

#[test]
fn idle_connections_are_held_and_then_all_answer() {
    check_all(&[("echo", 50), ("ping", 0)], |(ask, messages)| {
        let server = honest();
        let done = Load::new("idle", &server.url("/"), "-c 50 -d 1s --ask").argument(ask).run();
        assert!(done.elapsed >= Duration::from_secs(1));
        let report = done.exits(0);
        assert_eq!([report.count("/held/connections"), report.count("/held/answered")], [50, 50]);
        assert_eq!([report.count("/connect/asked"), report.count("/connect/established")], [50, 50]);
        assert_eq!([of(&server.seen().upgrades), of(&server.seen().messages)], [50, *messages]);
        assert!((1.0..2.0).contains(&report.number("/held/held_s")), "{}", report.at("/held"));
    });
}

#[test]
fn a_broadcast_reaches_all_that_are_held() {
    within_three_attempts(|| {
        let delay = Duration::from_millis(30);
        let (server, hub) = Hub::delaying(delay);
        let words = "-c 50 -d 100ms --threads 3 --no-pin --broadcast";
        let report = Load::new("idle", &server.url("/room"), words).alone().run().exits(0);
        let [answered, due, reached] =
            ["answered", "broadcast/due", "broadcast/reached"].map(|name| report.count(&format!("/held/{name}")));
        // Its sender gets it too here; that is not looked at.
        assert_eq!((answered, due, reached, hub.published(), hub.delivered()), (50, 49, 49, 1, 50));
        let [first, last] = ["first", "last"].map(|name| report.nanos(&format!("/held/broadcast/{name}_ns")));
        assert!(first >= delay.mul_f64(0.999) && first <= last && last <= 2 * delay, "{first:?} … {last:?}");
    });
}

#[test]
fn whom_a_broadcast_does_not_reach_is_counted() {
    // 49 are due it; the 10th, 20th, … delivery is spoilt, and the sender's may be one of them.
    for (fault, name) in [(Fault::Lose, "lost"), (Fault::Corrupt(3), "corrupted"), (Fault::Corrupt(90), "corrupted")] {
        let (server, hub) = Hub::faulty(fault, 10);
        let words = "-c 50 -d 100ms --broadcast --answer-timeout 500ms";
        let report = Load::new("idle", &server.url("/room"), words).run().exits(3);
        let reached = report.count("/held/broadcast/reached");
        assert_eq!(hub.injected(), 5, "{fault:?}");
        assert!((44..=45).contains(&reached), "{fault:?}: {reached} reached");
        // Each once, and under one name.
        let errors = [name, "total"].map(|name| report.count(&format!("/runs/1/errors/{name}")));
        assert_eq!(errors, [49 - reached; 2], "{fault:?}: {}", report.at("/runs/1/errors"));
    }
    let server = honest();
    let words = "-c 5 -d 100ms --broadcast --answer-timeout 500ms";
    let report = Load::new("idle", &server.url("/"), words).run().exits(3);
    assert_eq!([report.count("/held/broadcast/due"), report.count("/held/broadcast/reached")], [4, 0]);
}

#[test]
fn idle_connections_that_do_not_answer_are_counted() {
    let faulty = Faulty::start(Fault::Lose, 10);
    let words = "-c 40 -d 300ms --ask echo --answer-timeout 500ms";
    let report = Load::new("idle", &faulty.server.url("/"), words).run().exits(3);
    assert_eq!([report.count("/held/connections"), report.count("/held/answered")], [40, 36]);
    assert_eq!(faulty.injected(), 4);
    report.has_errors(&[("lost", 4)]);
}

#[test]
fn idle_connections_that_the_server_ends_are_counted() {
    // Every tenth is ended while it is held.
    let server = Server::websocket(|mut session| {
        if session.index % 10 == 9 {
            std::thread::sleep(Duration::from_millis(300));
            return;
        }
        while let Ok(message) = session.next() {
            session.outlet.send(&message);
        }
    });
    let report = Load::new("idle", &server.url("/"), "-c 40 -d 1s --answer-timeout 1s").run().exits(3);
    assert_eq!(report.count("/held/answered"), 36);
    report.has_errors(&[("disconnected", 4)]);
}

#[test]
fn connections_are_opened_no_faster_than_asked() {
    let server = honest();
    let words = "-c 100 --connect-rate 100 --count 100 --warm-up 0s";
    let report = Load::new("echo", &server.url("/"), words).run().exits(0);
    let elapsed = report.number("/connect/elapsed_s");
    assert!((0.9..3.0).contains(&elapsed), "{elapsed} s");
    assert_eq!(report.count("/connect/established"), 100);
    assert_eq!(report.count("/connect/latency/count"), 100);
}

#[test]
fn handshakes_have_the_latency_that_the_server_gave_them() {
    within_three_attempts(|| {
        let slept = Duration::from_millis(40);
        let doorman = move |_: &Arrival| {
            std::thread::sleep(slept);
            None
        };
        let server = Server::selective(doorman, |mut session| drop(session.read_to_end()));
        let report = Load::new("churn", &server.url("/"), "-c 8 --count 100 --warm-up 0s").alone().run().exits(0);
        let [min, p50] = ["min", "p50"].map(|name| report.nanos(&format!("/runs/0/latency/{name}_ns")));
        assert!(min >= slept.mul_f64(0.999), "the least latency is {min:?}");
        assert!(p50 <= slept.mul_f64(1.02) + Duration::from_millis(2), "p50 is {p50:?}");
        let report = Load::new("idle", &server.url("/"), "-c 8 -d 100ms --ask none").alone().run().exits(0);
        let p50 = report.nanos("/connect/latency/p50_ns");
        assert!(p50 >= slept.mul_f64(0.999) && p50 <= slept.mul_f64(1.02) + Duration::from_millis(2), "p50 is {p50:?}");
    });
}
