//! Messages leave when they were meant to, from and to the addresses that were named, with what was to go with them.

use crate::answers::{Noting, honest};
use crate::program::{Load, check_all, within_three_attempts};
use crate::server::{Server, Session, lock, wait_for};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Variance over mean of the number of arrivals in slices of 20 ms: 0 for even arrivals, 1 for Poisson's.
fn dispersion(came: &[f64], seconds: f64) -> f64 {
    let slices = (seconds / 0.02) as usize;
    let mut counts = vec![0.0; slices];
    for at in came {
        // The last may be a little late.
        if let Some(count) = counts.get_mut((at / 0.02) as usize) {
            *count += 1.0;
        }
    }
    let mean = counts.iter().sum::<f64>() / slices as f64;
    counts.iter().map(|count| (count - mean) * (count - mean)).sum::<f64>() / slices as f64 / mean
}

#[test]
fn constant_arrivals_are_even_and_as_many_as_asked_for() {
    within_three_attempts(|| {
        let noting = Noting::start();
        let words = "-c 7 --rate 1000 --warm-up 0s -d 2s";
        let report = Load::new("echo", &noting.server.url("/"), words).alone().run().exits(0);
        let came = noting.came();
        assert!((1990..=2010).contains(&came.len()), "{} messages", came.len());
        // One or two may leave between the end of the measured time and the end of the loop.
        assert!((0..=2).contains(&(came.len() as i64 - report.count("/runs/0/sent") as i64)), "{} came", came.len());
        assert_eq!(report.number("/runs/0/offered_per_s"), 1000.0);
        assert_eq!(report.text("/setup/arrivals"), "constant");
        let dispersion = dispersion(&came, 2.0);
        assert!(dispersion < 0.3, "{dispersion}");
    });
}

#[test]
fn poisson_arrivals_are_as_irregular_as_strangers() {
    within_three_attempts(|| {
        let noting = Noting::start();
        let words = "-c 7 --rate 1000 --arrivals poisson --warm-up 0s -d 2s";
        let report = Load::new("echo", &noting.server.url("/"), words).alone().run().exits(0);
        let came = noting.came();
        // 2 000 ± 4 standard deviations, and the dispersion of 100 slices likewise.
        assert!((1820..=2180).contains(&came.len()), "{} messages", came.len());
        assert_eq!(report.text("/setup/arrivals"), "poisson");
        let dispersion = dispersion(&came, 2.0);
        assert!((0.4..1.7).contains(&dispersion), "{dispersion}");
    });
}

#[test]
fn steps_hold_their_rates_in_turn() {
    within_three_attempts(|| {
        let noting = Noting::start();
        let words = "-c 4 --steps 500:600ms,2000:600ms,200:500ms --warm-up 0s";
        let report = Load::new("echo", &noting.server.url("/"), words).alone().run().exits(0);
        report.has_errors(&[]);
        let came = noting.came();
        assert!((1590..=1610).contains(&came.len()), "{} messages", came.len());
        let within = |from: f64, to: f64| came.iter().filter(|at| (from..to).contains(at)).count();
        let seen = [within(0.0, 0.6), within(0.6, 1.2), within(1.2, 1.8)];
        for (seen, meant) in seen.into_iter().zip([300_usize, 1200, 100]) {
            assert!(seen.abs_diff(meant) <= 30, "{seen} messages in the step of {meant}");
        }
    });
}

#[test]
fn a_count_is_exact_in_both_loops() {
    check_all(&["-c 8 -w 3", "-c 8 --rate 4000", "-c 3 --threads 2", "-c 5 --driver epoll"], |words| {
        let server = honest();
        let words = format!("{words} --count 1001 --warm-up 0s");
        let report = Load::new("echo", &server.url("/"), &words).run().exits(0);
        assert_eq!(server.seen().messages.load(Ordering::SeqCst), 1001, "{words}");
        assert_eq!([report.count("/runs/0/sent"), report.count("/runs/0/received")], [1001, 1001], "{words}");
        assert_eq!(report.count("/runs/0/latency/count"), 1001, "{words}");
        report.has_errors(&[]);
    });
}

#[test]
fn messages_of_every_size_and_kind_come_back_sound() {
    let server = honest();
    let sizes = ["1", "11", "12", "13", "16", "125", "126", "65535", "64KiB", "1MiB"];
    check_all(&sizes, |size| {
        for kind in ["--binary", "--text"] {
            let words = format!("-c 2 -w 2 -s {size} {kind} --count 20 --warm-up 0s");
            let report = Load::new("echo", &server.url("/"), &words).run().exits(0);
            assert_eq!(report.count("/runs/0/received"), 20, "{words}");
            assert_eq!(report.text("/setup/kind"), &kind[2..]);
        }
    });
    assert_eq!(*lock(&server.seen().broken), [""; 0]);
}

#[test]
fn messages_have_the_size_and_kind_that_they_should() {
    let lengths: Arc<Mutex<BTreeSet<(usize, bool)>>> = Arc::default();
    let noted = Arc::clone(&lengths);
    let server = Server::websocket(move |mut session| {
        while let Ok(message) = session.next() {
            lock(&noted).insert((message.len(), message.is_text()));
            session.outlet.send(&message);
        }
    });
    Load::new("echo", &server.url("/"), "-c 2 -s 1KiB --text --count 50 --warm-up 0s").run().exits(0);
    assert_eq!(*lock(&lengths), BTreeSet::from([(1024, true)]));
}

/// Remembers the handshakes and how the connections came.
type Visits = Arc<Mutex<Vec<(String, Vec<(String, String)>, std::net::SocketAddr)>>>;

fn noting_visits(ip: Ipv4Addr) -> (Server, Visits) {
    let visits: Visits = Arc::default();
    let noted = Arc::clone(&visits);
    let handler = move |mut session: Session| {
        lock(&noted).push((session.path.clone(), session.headers.clone(), session.peer));
        while let Ok(message) = session.next() {
            session.outlet.send(&message);
        }
    };
    (Server::selective_at(ip, |_| None, handler), visits)
}

#[test]
fn the_handshake_carries_the_path_the_headers_and_the_subprotocols() {
    let (server, visits) = noting_visits(Ipv4Addr::LOCALHOST);
    let load = Load::new("echo", &server.url("/a/b?c=d"), "-c 1 --count 1 --warm-up 0s");
    let load = load.and("--header").argument("Authorization: Bearer 1 2").and("--header").argument("x-more: yes");
    load.and("--protocol chat.v2 --protocol chat.v1").run().exits(0);
    let visits = lock(&visits);
    let (path, headers, _) = &visits[0];
    assert_eq!(path, "/a/b?c=d");
    let has = |name: &str, value: &str| headers.iter().any(|(key, is)| key == name && is.replace(", ", ",") == value);
    assert!(has("authorization", "Bearer 1 2") && has("x-more", "yes"), "{headers:?}");
    assert!(has("sec-websocket-protocol", "chat.v2,chat.v1"), "{headers:?}");
    assert!(has("host", &format!("127.0.0.1:{}", server.port())), "{headers:?}");
}

#[test]
fn connections_come_from_all_sources_and_go_to_all_targets() {
    let (server, visits) = noting_visits(Ipv4Addr::UNSPECIFIED);
    for driver in ["auto", "epoll"] {
        lock(&visits).clear();
        let words = format!("-c 12 --count 120 --warm-up 0s --driver {driver} --source 127.0.0.2-127.0.0.3,127.0.0.9");
        Load::new("echo", &server.url("/"), &words).run().exits(0);
        let sources: Vec<String> = lock(&visits).iter().map(|(_, _, peer)| peer.ip().to_string()).collect();
        for source in ["127.0.0.2", "127.0.0.3", "127.0.0.9"] {
            let count = sources.iter().filter(|seen| *seen == source).count();
            assert_eq!(count, 4, "{source} of {sources:?}");
        }
    }

    let elsewhere = honest();
    let counts = |server: &Server| server.seen().connections.load(Ordering::SeqCst);
    let before = counts(&server);
    let targets = format!("--target 127.0.0.1:{},127.0.0.1:{}", server.port(), elsewhere.port());
    let load = Load::new("echo", &server.url("/"), "-c 8 --count 80 --warm-up 0s");
    load.and(&targets).run().exits(0);
    wait_for("the connections", || counts(&server) - before == 4 && counts(&elsewhere) == 4);
}
