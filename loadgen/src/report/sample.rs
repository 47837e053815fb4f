//! Made-up reports for the tests: lifelike, and the same each time.

use super::model::{Assertion, Broadcast, Connect, Found, Held, Machine, Report, SCHEMA, Setup, Stalled};
use super::{latency_of, run_of};
use crate::measure::{Errors, Interval, Run, Window, empty_histogram};
use crate::usage::{ClientUsage, ServerUsage};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a made-up run looks like.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) label: &'static str,
    pub(crate) seconds: u64,
    /// Messages a second that are answered.
    pub(crate) rate: u64,
    pub(crate) offered: Option<f64>,
    /// Median latency in nanoseconds.
    pub(crate) median: f64,
    /// The second in which the server stands still.
    pub(crate) stall: Option<u64>,
    pub(crate) errors: Errors,
    pub(crate) limit: Option<&'static str>,
    pub(crate) server: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            label: "measured",
            seconds: 10,
            rate: 100_000,
            offered: None,
            median: 90_000.0,
            stall: None,
            errors: Errors::default(),
            limit: None,
            server: true,
        }
    }
}

/// A run of that shape on 200 connections.
pub(crate) fn run(shape: Shape) -> Run {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut total = Window::default();
    let mut intervals = Vec::new();
    for second in 0..shape.seconds {
        let stalls = shape.stall == Some(second);
        let window = window(shape, &mut dice, stalls);
        total.append(&window);
        intervals.push(Interval {
            start: Duration::from_secs(second),
            length: Duration::from_millis(if second + 1 == shape.seconds { 997 } else { 1000 }),
            window,
        });
    }
    total.errors = shape.errors;
    if let Some(last) = intervals.last_mut() {
        last.window.errors = shape.errors;
    }
    let seconds = Duration::from_secs(shape.seconds);
    Run {
        label: shape.label.to_owned(),
        offered_per_s: shape.offered,
        elapsed: seconds,
        total,
        intervals,
        client: ClientUsage {
            cpu: seconds.mul_f64(0.62),
            busiest_thread: if shape.limit.is_some() { 0.993 } else { 0.61 },
            longest_wait: 0.012,
            limit: shape.limit.map(str::to_owned),
        },
        server: shape.server.then(|| ServerUsage {
            pid: 4711,
            user: seconds.mul_f64(0.21),
            system: seconds.mul_f64(0.66),
            busiest_thread: 0.87,
            resident_bytes_at_start: 6_402_048,
            resident_bytes_before: 7_380_992,
            resident_bytes_after: 7_401_472,
            resident_bytes_max: 7_512_064,
            context_switches_voluntary: shape.seconds * 812,
            context_switches_involuntary: shape.seconds * 31,
            syscalls: Some(shape.seconds * shape.rate / 9),
        }),
    }
}

fn window(shape: Shape, dice: &mut Dice, stalls: bool) -> Window {
    const DRAWS: u64 = 2000;
    let mut window = Window { connections: 200, ..Window::default() };
    let each = shape.rate / DRAWS;
    if each == 0 {
        return window;
    }
    for draw in 0..DRAWS {
        let mut nanos = shape.median * (0.28 * dice.normal()).exp();
        // One in three hundred meets something slow.
        if dice.uniform() < 0.003 {
            nanos *= 4.0 + 60.0 * dice.uniform();
        }
        // In an open loop those that were meant for the time of a stall wait for its end.
        if stalls && draw < DRAWS * 6 / 10 {
            nanos += 600e6 * (1.0 - draw as f64 / (DRAWS as f64 * 0.6));
        }
        window.latency.record_n(nanos as u64, each).expect("in range");
        window.lag.record_n((1500.0 * (0.5 * dice.normal()).exp()) as u64, each).expect("in range");
    }
    let jitter = if shape.offered.is_some() { 0 } else { (dice.uniform() * shape.rate as f64 * 0.04) as u64 };
    window.received = (each * DRAWS).saturating_sub(jitter);
    window.sent = window.received;
    window.received_bytes = window.received * 20;
    window
}

/// A report of that scenario with these runs.
pub(crate) fn report(scenario: &str, runs: &[Run]) -> Report {
    let open = runs.iter().any(|run| run.offered_per_s.is_some());
    let mut handshakes = empty_histogram();
    let mut dice = Dice(7);
    for _ in 0..200 {
        handshakes.record((900_000.0 * (0.4 * dice.normal()).exp()) as u64).expect("in range");
    }
    let runs: Vec<_> = runs.iter().map(|run| run_of(run, 200)).collect();
    let ok = runs.iter().all(|run| run.errors["total"] == 0);
    Report {
        schema: SCHEMA.to_owned(),
        ringload: env!("CARGO_PKG_VERSION").to_owned(),
        started: "2026-03-01T12:34:56Z".to_owned(),
        scenario: scenario.to_owned(),
        url: "ws://127.0.0.1:9000/echo?a=1&b=<2>".to_owned(),
        command: ["ringload", scenario, "-c", "200", "ws://127.0.0.1:9000/echo?a=1&b=<2>"].map(str::to_owned).into(),
        machine: Machine {
            kernel: "6.18.5".to_owned(),
            cpu: "AMD EPYC 9354 32-Core Processor".to_owned(),
            cores: 2,
            congestion_control: "cubic".to_owned(),
        },
        setup: Setup {
            connections: 200,
            threads: 2,
            driver: "uring".to_owned(),
            r#loop: if open { "open" } else { "closed" }.to_owned(),
            arrivals: open.then(|| "poisson".to_owned()),
            in_flight: (!open).then_some(1),
            size_bytes: 20,
            kind: "binary".to_owned(),
            warm_up_s: 1.0,
            more: BTreeMap::new(),
        },
        connect: Connect {
            asked: 200,
            established: 200,
            elapsed_s: 0.0123,
            per_s: 16260.0,
            latency: latency_of(&handshakes),
        },
        runs,
        troubles: Vec::new(),
        held: None,
        stalled: None,
        found: None,
        assertions: Vec::new(),
        interrupted: false,
        ok,
    }
}

/// A report in which nothing is left out, and the runs that it is made of.
pub(crate) fn full() -> (Report, Vec<Run>) {
    let errors = Errors { lost: 3, corrupted: 1, ..Errors::default() };
    let limit = Some("its busiest thread was on a core 99.3 % of the time");
    let runs = vec![
        run(Shape { label: "20 000/s", seconds: 2, rate: 20_000, offered: Some(20_000.0), ..Shape::default() }),
        run(Shape { label: "40 000/s", seconds: 2, rate: 40_000, offered: Some(4e4), errors, ..Shape::default() }),
        run(Shape { label: "80 000/s", seconds: 2, rate: 61_000, offered: Some(8e4), limit, ..Shape::default() }),
    ];
    let mut report = report("find-rate", &runs);
    report.setup.in_flight = Some(1);
    report.setup.more = BTreeMap::from([("precision".to_owned(), "5 %".to_owned())]);
    report.troubles = vec!["the server refused 3 connections: is it told to take so many?".to_owned()];
    report.held = Some(Held {
        connections: 200,
        held_s: 30.0,
        answered: 200,
        server_bytes_per_connection_held: Some(4892.0),
        server_bytes_per_connection_answered: Some(4999.0),
        kernel_bytes_per_connection: Some(7321.0),
        client_bytes_per_connection: 3211.0,
        broadcast: Some(Broadcast { due: 199, reached: 199, first_ns: 80_000, last_ns: 1_900_000 }),
    });
    report.stalled = Some(Stalled {
        readers: 1,
        ended_by_server: 1,
        expected: 1000,
        received: 800,
        missed: 200,
        p99_ratio: Some(1.07),
    });
    report.found = Some(Found {
        promise: "p99<10ms".to_owned(),
        rate_per_s: Some(20_000.0),
        broken_at_per_s: Some(40_000.0),
        reason: "the client was the limit at 80 000/s".to_owned(),
    });
    report.assertions = vec![
        Assertion { text: "p99<5ms".to_owned(), seen: Some(2_340_000.0), holds: true },
        Assertion { text: "errors==0".to_owned(), seen: Some(4.0), holds: false },
        Assertion { text: "server_rss<64MiB".to_owned(), seen: Some(7_512_064.0), holds: true },
    ];
    (report, runs)
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    /// 0 to 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal: a sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
