//! Searches find the rate that a server really has.

use crate::answers::{honest, throttled};
use crate::program::{Load, Report, within_three_attempts};

#[test]
fn find_rate_finds_the_rate_of_a_throttled_server() {
    within_three_attempts(|| {
        let server = throttled(1500.0);
        let load = Load::new("find-rate", "p99<20ms", &server.url("/"));
        // A trial above the rate by a twentieth ends with a queue of 20 ms.
        let load = load.and("-c 20 --from 1000 --to 20000 --trial 400ms --warm-up 50ms").alone();
        let report = load.run().exits(0);
        let found = report.number("/found/rate_per_s");
        assert!((found / 1500.0 - 1.0).abs() < 0.1, "{found} messages a second; the server answers 1500");
        let broken_at = report.number("/found/broken_at_per_s");
        assert!(broken_at > found && broken_at < found * 1.06, "kept at {found}, broken at {broken_at}");
        assert_eq!(report.text("/found/promise"), "p99<20ms");
    });
}

#[test]
fn find_rate_takes_the_url_first_too_and_says_when_nothing_breaks_the_promise() {
    let server = honest();
    let load = Load::new("find-rate", &server.url("/"), "p99<10s -c 4 --from 200 --to 400 --trial 300ms --warm-up 0s");
    let report = load.run().exits(0);
    assert_eq!(report.number("/found/rate_per_s"), 400.0);
    assert!(report.at("/found/broken_at_per_s").is_null());
    assert!(!report.text("/found/reason").is_empty());
}

#[test]
fn find_rate_goes_below_its_first_rate_when_that_breaks_the_promise() {
    within_three_attempts(|| {
        let server = throttled(300.0);
        let load = Load::new("find-rate", "p99<30ms", &server.url("/"));
        let report = load.and("-c 4 --from 500 --trial 400ms --warm-up 0s --precision 10").alone().run().exits(0);
        let found = report.number("/found/rate_per_s");
        assert!((found / 300.0 - 1.0).abs() < 0.15, "{found} messages a second; the server answers 300");
    });
}

#[test]
fn find_rate_says_when_no_rate_keeps_the_promise() {
    let server = honest();
    let load = Load::new("find-rate", "p99<1us", &server.url("/"));
    let done = load.and("-c 4 --from 10 --to 20 --trial 200ms --warm-up 0s").run();
    let report = Report::parse(&done.stdout);
    assert!(report.at("/found/rate_per_s").is_null(), "{}", report.at("/found"));
    assert!(!report.text("/found/reason").is_empty());
    assert_eq!(done.code, 4);
}

#[test]
fn a_ramp_ends_where_its_promise_does() {
    within_three_attempts(|| {
        let server = throttled(1500.0);
        let load =
            Load::new("ramp", &server.url("/"), "-c 10 --from 500 --to 2500 --step-count 5 --step-duration 500ms");
        let report = load.and("--warm-up 100ms --until p99>50ms").alone().run().exits(0);
        let offered: Vec<f64> =
            (0..report.run_count()).map(|run| report.number(&format!("/runs/{run}/offered_per_s"))).collect();
        assert_eq!(offered.len(), 4, "2 000 a second is too much: {offered:?}");
        for (offered, rate) in offered.into_iter().zip([500.0, 1000.0, 1500.0, 2000.0]) {
            assert!((offered - rate).abs() < 1e-6, "{offered} messages a second of {rate}");
        }
        assert_eq!(report.number("/found/rate_per_s"), 1500.0);
        assert_eq!(report.number("/found/broken_at_per_s"), 2000.0);
    });
}

#[test]
fn a_ramp_without_a_promise_goes_all_its_steps() {
    within_three_attempts(|| {
        let server = honest();
        let load = Load::new(
            "ramp",
            &server.url("/"),
            "-c 5 --from 200 --to 600 --step-count 3 --step-duration 400ms --warm-up 100ms",
        );
        let report = load.alone().run().exits(0);
        for (run, rate) in [200.0, 400.0, 600.0].into_iter().enumerate() {
            let offered = report.number(&format!("/runs/{run}/offered_per_s"));
            assert!((offered - rate).abs() < 1e-6, "{offered} messages a second of {rate}");
            let seen = report.number(&format!("/runs/{run}/received_per_s"));
            assert!((seen / rate - 1.0).abs() < 0.15, "{seen} messages a second of {rate}");
        }
        assert_eq!(report.run_count(), 3);
    });
}

#[test]
fn a_measurement_is_repeated_as_often_as_asked() {
    let server = honest();
    let words = "-c 4 --rate 500 -d 300ms --warm-up 100ms --repeat 3";
    let report = Load::new("echo", &server.url("/"), words).run().exits(0);
    assert_eq!(report.run_count(), 3);
    for run in 0..3 {
        let sent = report.count(&format!("/runs/{run}/sent"));
        assert!((140..=160).contains(&sent), "{sent} messages in run {run}");
        assert!(report.errors_of(run).is_empty());
    }
}

#[test]
fn the_rate_of_answers_is_the_servers_and_not_the_schedules() {
    within_three_attempts(|| {
        let server = throttled(500.0);
        // Twice as many as are answered: the second half of them waits.
        let words = "-c 10 --rate 1000 -d 1s --warm-up 0s";
        let report = Load::new("echo", &server.url("/"), words).alone().run().exits(0);
        let rate = report.number("/runs/0/received_per_s");
        assert!((450.0..560.0).contains(&rate), "{rate} answers a second");
        assert_eq!(report.number("/runs/0/offered_per_s"), 1000.0);
        // What waited longest waited as long again as the run took.
        assert!(report.count("/runs/0/latency/max_ns") > 900_000_000, "{}", report.at("/runs/0/latency"));
    });
}
