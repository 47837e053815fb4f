//! What the tables say, cell by cell: the same words and figures on a terminal and on a page.
//!
//! Where the client was the limit, a run's row says so in place of its figures; they are only given as what they are,
//! not the server's, in [`not_the_servers`].

use super::model::{Assertion, Found, Held, Latency, Report, Run, Server};
use super::quantity::{self, NOTHING, Unit, bytes, count, duration, percent, rate, significant};
use crate::promise;

/// A table: the first column holds labels.
pub(crate) struct Grid {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) cells: Cells,
}

pub(crate) enum Cells {
    Figures(Vec<String>),
    /// A sentence in place of all figures.
    Said(String),
}

/// A thing that is known, and its name.
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    /// Whether it is a reason for doubt.
    pub(crate) alarm: bool,
}

impl Fact {
    fn plain(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, text: text.into(), alarm: false }
    }

    fn alarm(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, text: text.into(), alarm: true }
    }
}

/// What arrives, as the scenario calls it.
pub(crate) fn noun(scenario: &str) -> &'static str {
    match scenario {
        "fanout" | "slow-reader" => "deliveries",
        "churn" => "handshakes",
        "idle" => "answers",
        _ => "messages",
    }
}

/// Rates, latencies, errors: a row for each run.
pub(crate) fn latencies(report: &Report) -> Grid {
    let offered = report.runs.iter().any(|run| run.offered_per_s.is_some());
    let rate_name = format!("{}/s", noun(&report.scenario));
    let mut head: Vec<String> = vec!["run".to_owned()];
    head.extend(offered.then(|| "offered/s".to_owned()));
    head.extend([&rate_name, "p50", "p90", "p99", "p99.9", "max", "errors"].map(str::to_owned));
    let row = |run: &Run| {
        let cells = if run.client.limit.is_some() {
            let asked = run.offered_per_s.map_or_else(String::new, |offered| format!(" ({}/s offered)", rate(offered)));
            Cells::Said(format!("the client was the limit{asked}: no figures of the server"))
        } else {
            let offered = offered.then(|| run.offered_per_s.map_or_else(|| NOTHING.to_owned(), rate));
            let latency = &run.latency;
            let nanos = [latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.p999_ns, latency.max_ns];
            let times = nanos.map(|nanos| time(latency, nanos));
            Cells::Figures(
                offered
                    .into_iter()
                    .chain([rate(run.received_per_s)])
                    .chain(times)
                    .chain([count(errors(run))])
                    .collect(),
            )
        };
        Row { label: run.label.clone(), cells }
    };
    Grid { head, rows: report.runs.iter().map(row).collect() }
}

/// The whole summary of the latencies: a row for each run.
pub(crate) fn percentiles(report: &Report) -> Grid {
    let head = "run count min mean stdev p50 p75 p90 p95 p99 p99.9 p99.99 max";
    let row = |run: &Run| {
        let latency = &run.latency;
        let cells = if run.client.limit.is_some() {
            Cells::Said("the client was the limit".to_owned())
        } else if latency.count == 0 {
            Cells::Said("nothing was measured".to_owned())
        } else {
            let low = [latency.min_ns as f64, latency.mean_ns, latency.stdev_ns];
            let middle = [latency.p50_ns, latency.p75_ns, latency.p90_ns, latency.p95_ns];
            let high = [latency.p99_ns, latency.p999_ns, latency.p9999_ns, latency.max_ns];
            let times = low.into_iter().chain(middle.into_iter().chain(high).map(|nanos| nanos as f64)).map(duration);
            Cells::Figures([count(latency.count)].into_iter().chain(times).collect())
        };
        Row { label: run.label.clone(), cells }
    };
    Grid { head: head.split(' ').map(str::to_owned).collect(), rows: report.runs.iter().map(row).collect() }
}

/// A column of what a server costs: its name, and the cell.
type Cost = (&'static str, fn(&Server) -> Option<String>);
const COSTS: [Cost; 8] = [
    ("cores", |server| Some(significant(server.cores_used))),
    ("busiest", |server| Some(percent(server.busiest_thread))),
    ("per CPU-s", |server| server.messages_per_cpu_s.map(rate)),
    ("CPU each", |server| server.cpu_ns_per_message.map(duration)),
    ("RSS", |server| Some(bytes(server.resident_bytes_max as f64))),
    ("RSS/conn.", |server| server.resident_bytes_per_connection.map(bytes)),
    ("switches", |server| server.context_switches_per_message.map(significant)),
    ("syscalls", |server| server.syscalls_per_message.map(significant)),
];

/// What the server spent: a row for each run, without the columns of which nothing is known. `None` if no server was
/// named.
pub(crate) fn costs(report: &Report) -> Option<Grid> {
    let servers: Vec<(&Run, &Server)> =
        report.runs.iter().filter_map(|run| Some((run, run.server.as_ref()?))).collect();
    if servers.is_empty() {
        return None;
    }
    let columns: Vec<Cost> =
        COSTS.into_iter().filter(|(_, cell)| servers.iter().any(|(_, server)| cell(server).is_some())).collect();
    let head = ["server"].into_iter().chain(columns.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    let row = |(run, server): &(&Run, &Server)| {
        let mark = if run.client.limit.is_some() { " *" } else { "" };
        let cells = columns.iter().map(|(_, cell)| cell(server).unwrap_or_else(|| NOTHING.to_owned())).collect();
        Row { label: format!("{}{mark}", run.label), cells: Cells::Figures(cells) }
    };
    Some(Grid { head, rows: servers.iter().map(row).collect() })
}

/// What the heads of [`costs`] mean.
pub(crate) fn costs_note(report: &Report) -> String {
    let noun = noun(&report.scenario);
    let limited = report.runs.iter().any(|run| run.client.limit.is_some() && run.server.is_some());
    let mark = if limited { " * At a load that the client limited." } else { "" };
    format!(
        "Busiest thread's share of a core; {noun} per second of CPU time; CPU time, context switches and system calls \
         for each of the {noun}; the most memory.{mark}"
    )
}

/// What the client spent: a row for each run.
pub(crate) fn client(report: &Report) -> Grid {
    let head = ["client", "busiest thread", "waited for a core", "cores", "late p99", "late max"];
    let open = report.runs.iter().any(|run| run.offered_per_s.is_some());
    let columns = if open { head.len() } else { head.len() - 2 };
    let row = |run: &Run| {
        let client = &run.client;
        let mut cells = vec![
            percent(client.busiest_thread),
            percent(client.longest_wait),
            super::over(client.cpu_s, run.elapsed_s).map_or_else(|| NOTHING.to_owned(), significant),
        ];
        if open {
            cells.extend([client.lag_p99_ns, client.lag_max_ns].map(|nanos| duration(nanos as f64)));
        }
        Row { label: run.label.clone(), cells: Cells::Figures(cells) }
    };
    Grid {
        head: head[..columns].iter().map(|&name| name.to_owned()).collect(),
        rows: report.runs.iter().map(row).collect(),
    }
}

/// What was asked for, and how the connections came about.
pub(crate) fn setup(report: &Report) -> Vec<Fact> {
    let setup = &report.setup;
    let connect = &report.connect;
    let in_flight = setup.in_flight.map(|in_flight| format!("{} in flight each", count(in_flight)));
    let arrivals = setup.arrivals.as_ref().map(|arrivals| format!("{arrivals} arrivals"));
    let words: Vec<String> = [format!("{} connections", count(setup.connections))]
        .into_iter()
        .chain([format!("{} {}", bytes(setup.size_bytes as f64), setup.kind), format!("{} loop", setup.r#loop)])
        .chain(in_flight)
        .chain(arrivals)
        .chain([format!("{} threads", setup.threads), setup.driver.clone()])
        .chain(setup.more.iter().map(|(name, value)| format!("{name} {value}")))
        .collect();
    let mut facts = vec![Fact::plain("setup", words.join(", "))];
    // There the connections are what is measured.
    if report.scenario == "churn" {
        return facts;
    }
    let mut text = format!(
        "{} of {} in {} ({}/s)",
        count(connect.established),
        count(connect.asked),
        duration(connect.elapsed_s * 1e9),
        rate(connect.per_s)
    );
    if connect.latency.count > 0 {
        let [p50, p99, max] = [connect.latency.p50_ns, connect.latency.p99_ns, connect.latency.max_ns]
            .map(|nanos| duration(nanos as f64));
        text += &format!("; handshake p50 {p50}, p99 {p99}, max {max}");
    }
    facts.push(Fact { name: "connected", text, alarm: connect.established < connect.asked });
    facts
}

/// From when latency counts, if any was measured.
pub(crate) fn latency_note(report: &Report) -> Option<&'static str> {
    // Those that were idle are asked once.
    if report.scenario == "idle" || report.runs.iter().all(|run| run.latency.count == 0) {
        return None;
    }
    Some(if report.setup.r#loop == "open" {
        "Open loop: latency counts from the intended send, so waiting behind a stall is in it."
    } else {
        "Closed loop: latency counts from the send, and while the server stalls nothing is sent: its stalls hide in \
         these latencies (coordinated omission). An open loop shows them."
    })
}

/// Why the client was the limit, for each run of which it was.
pub(crate) fn limits(report: &Report) -> Vec<Fact> {
    let fact = |run: &Run| {
        let why = run.client.limit.as_ref()?;
        Some(Fact::alarm("limit", format!("{}: the client was the limit: {why}", run.label)))
    };
    report.runs.iter().filter_map(fact).collect()
}

/// What those runs measured all the same. `None` if there is none.
pub(crate) fn not_the_servers(report: &Report) -> Option<Grid> {
    let head = ["not the server's", &format!("{}/s", noun(&report.scenario)), "p50", "p99", "max"].map(str::to_owned);
    let row = |run: &Run| {
        let latency = &run.latency;
        let times = [latency.p50_ns, latency.p99_ns, latency.max_ns].map(|nanos| time(latency, nanos));
        let cells = [rate(run.received_per_s)].into_iter().chain(times).collect();
        Row { label: run.label.clone(), cells: Cells::Figures(cells) }
    };
    let rows: Vec<Row> = report.runs.iter().filter(|run| run.client.limit.is_some()).map(row).collect();
    (!rows.is_empty()).then(|| Grid { head: head.into(), rows })
}

/// Of latencies, if there are any.
fn time(latency: &Latency, nanos: u64) -> String {
    if latency.count > 0 { duration(nanos as f64) } else { NOTHING.to_owned() }
}

/// The client in one line: the worst of all runs.
pub(crate) fn client_at_worst(report: &Report) -> Fact {
    let most = |of: fn(&Run) -> f64| report.runs.iter().map(of).fold(0.0, f64::max);
    let mut text = format!(
        "busiest thread on a core {} of the time, waited for one {}",
        percent(most(|run| run.client.busiest_thread)),
        percent(most(|run| run.client.longest_wait))
    );
    if report.runs.iter().any(|run| run.offered_per_s.is_some()) {
        let lag = [most(|run| run.client.lag_p99_ns as f64), most(|run| run.client.lag_max_ns as f64)].map(duration);
        text += &format!("; late to send by p99 {}, max {}", lag[0], lag[1]);
    }
    Fact::plain("client", text)
}

/// What went wrong, by name, for each run in which something did.
pub(crate) fn failures(report: &Report) -> Vec<Fact> {
    let fact = |run: &Run| {
        let named = run.errors.iter().filter(|(name, count)| *name != "total" && **count > 0);
        let words: Vec<String> = named.map(|(name, errors)| format!("{} {name}", count(*errors))).collect();
        (errors(run) > 0).then(|| Fact::alarm("errors", format!("{}: {}", run.label, words.join(", "))))
    };
    report.runs.iter().filter_map(fact).collect()
}

/// What only some scenarios answer.
pub(crate) fn answers(report: &Report) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(held) = &report.held {
        facts.extend(held_facts(held, report.setup.more.get("ask").is_some_and(|ask| ask == "none")));
    }
    if let Some(stalled) = &report.stalled {
        let ratio = stalled.p99_ratio.map_or_else(String::new, |ratio| {
            format!("; the others' p99 is {} times what it was without them", significant(ratio))
        });
        let text = format!(
            "{} stalled, {} of them ended by the server; of {} messages for them {} came in the end, {} did not{ratio}",
            count(stalled.readers),
            count(stalled.ended_by_server),
            count(stalled.expected),
            count(stalled.received),
            count(stalled.missed)
        );
        facts.push(Fact::plain("stalled", text));
    }
    if let Some(found) = &report.found {
        let least = if found_is_limited(report, found) { "at least " } else { "" };
        facts.push(Fact::plain("found", format!("{least}{}", found_text(&report.scenario, found))));
    }
    facts
}

fn held_facts(held: &Held, unasked: bool) -> Vec<Fact> {
    let answered =
        if unasked { "none was asked".to_owned() } else { format!("{} answered at the end", count(held.answered)) };
    let time = duration(held.held_s * 1e9);
    let text = format!("{} connections for {time}; {answered}", count(held.connections));
    let alarm = !unasked && held.answered < held.connections;
    let each = |figure: Option<f64>| figure.map_or_else(|| NOTHING.to_owned(), bytes);
    let memory = format!(
        "of the server {} held, {} after it answered; of the kernel about {}; of this client {}",
        each(held.server_bytes_per_connection_held),
        each(held.server_bytes_per_connection_answered),
        each(held.kernel_bytes_per_connection),
        bytes(held.client_bytes_per_connection)
    );
    let mut facts = vec![Fact { name: "held", text, alarm }, Fact::plain("per conn.", memory)];
    if let Some(broadcast) = &held.broadcast {
        let [first, last] = [broadcast.first_ns, broadcast.last_ns].map(|nanos| duration(nanos as f64));
        let (due, reached) = (count(broadcast.due), count(broadcast.reached));
        let text = format!("one message reached {reached} of {due}: the first after {first}, the last after {last}");
        facts.push(Fact { name: "broadcast", text, alarm: broadcast.reached < broadcast.due });
    }
    facts
}

/// Whether the client was the limit at the rate that was found: the server may do better.
pub(crate) fn found_is_limited(report: &Report, found: &Found) -> bool {
    let at_that = |run: &&Run| found.rate_per_s.is_some() && run.offered_per_s == found.rate_per_s;
    report.runs.iter().filter(at_that).any(|run| run.client.limit.is_some())
}

/// Of a ramp the promise is what ends it, if anything but the last rate does; of a search what is to be kept.
fn found_text(scenario: &str, found: &Found) -> String {
    let Found { promise, reason, .. } = found;
    let [last, broken] = [found.rate_per_s, found.broken_at_per_s].map(|at| at.map(|at| format!("{}/s", rate(at))));
    match (scenario, last, broken) {
        ("ramp", Some(last), Some(broken)) => format!("{promise} at {broken}, not yet at {last}"),
        ("ramp", None, Some(broken)) => format!("{promise} at {broken}, the first rate"),
        ("ramp", Some(last), None) => format!("up to {last}: {reason}"),
        ("ramp", None, None) => reason.clone(),
        (_, Some(last), Some(broken)) => format!("{last} keeps {promise}, {broken} breaks it: {reason}"),
        (_, Some(last), None) => format!("{last} keeps {promise}: {reason}"),
        (_, None, _) => format!("no rate keeps {promise}: {reason}"),
    }
}

/// What was asserted, and what was seen.
pub(crate) fn assertions(report: &Report) -> Vec<Fact> {
    report.assertions.iter().map(asserted).collect()
}

fn asserted(assertion: &Assertion) -> Fact {
    let seen = assertion.seen.map_or_else(
        || "not measured".to_owned(),
        |seen| format!("{} seen", promise::unit_of(&assertion.text).unwrap_or(Unit::Ratio).show(seen)),
    );
    let verdict = if assertion.holds { "holds" } else { "does not hold" };
    Fact { name: "asserted", text: format!("{}  {verdict}: {seen}", assertion.text), alarm: !assertion.holds }
}

/// The last line.
pub(crate) fn verdict(report: &Report) -> Fact {
    let failed: u64 = report.runs.iter().map(errors).sum();
    let broken = report.assertions.iter().filter(|assertion| !assertion.holds).count();
    let limited = report.runs.iter().filter(|run| run.client.limit.is_some()).count();
    let words: Vec<String> = [
        report.interrupted.then(|| "ended early by a signal".to_owned()),
        (failed > 0).then(|| format!("{} errors", count(failed))),
        (broken > 0).then(|| format!("{broken} of {} assertions broken", report.assertions.len())),
        (limited > 0).then(|| format!("{limited} of {} runs limited by the client", report.runs.len())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let word = if report.ok { "ok" } else { "not ok" };
    let text = if words.is_empty() { word.to_owned() } else { format!("{word}: {}", words.join(", ")) };
    Fact { name: "verdict", text, alarm: !report.ok || !words.is_empty() }
}

pub(crate) fn errors(run: &Run) -> u64 {
    run.errors.get("total").copied().unwrap_or_default()
}

/// Messages and bytes of a run, in a line.
pub(crate) fn volume(report: &Report, run: &Run) -> String {
    format!(
        "{} {} in {}, {}/s of payload",
        count(run.received),
        noun(&report.scenario),
        duration(run.elapsed_s * 1e9),
        quantity::bytes(run.received_bytes_per_s)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, Shape};

    #[test]
    fn a_run_that_the_client_limited_has_no_figures_in_its_row() {
        let report = sample::full().0;
        let grid = latencies(&report);
        assert!(matches!(&grid.rows[0].cells, Cells::Figures(cells) if cells.len() + 1 == grid.head.len()));
        assert!(matches!(&grid.rows[2].cells, Cells::Said(text) if text.contains("client was the limit")));
        let limits = limits(&report);
        assert_eq!(limits.len(), 1);
        let aside = not_the_servers(&report).expect("one was limited");
        assert_eq!((aside.rows.len(), aside.rows[0].label.as_str()), (1, "80 000/s"));
    }

    #[test]
    fn what_nobody_measured_has_no_column() {
        let mut report = sample::full().0;
        let with = costs(&report).expect("the server was named").head;
        for server in report.runs.iter_mut().filter_map(|run| run.server.as_mut()) {
            server.syscalls_per_message = None;
        }
        let without = costs(&report).expect("the server was named").head;
        assert_eq!(with.len(), without.len() + 1);
        report.runs.iter_mut().for_each(|run| run.server = None);
        assert!(costs(&report).is_none());
    }

    #[test]
    fn both_loops_say_from_when_latency_counts() {
        let closed = sample::report("echo", &[sample::run(Shape { seconds: 1, ..Shape::default() })]);
        assert!(latency_note(&closed).expect("it was measured").contains("coordinated omission"));
        let shape = Shape { seconds: 1, offered: Some(1e5), ..Shape::default() };
        let open = sample::report("echo", &[sample::run(shape)]);
        assert!(latency_note(&open).expect("it was measured").contains("intended send"));
        let none = sample::report("idle", &[sample::run(Shape { seconds: 0, ..Shape::default() })]);
        assert!(latency_note(&none).is_none());
    }

    #[test]
    fn a_rate_at_which_the_client_was_the_limit_is_the_least() {
        let mut report = sample::full().0;
        let found = |report: &Report| answers(report).pop().expect("it is full").text;
        assert!(found(&report).starts_with("20"));
        report.found.as_mut().expect("it is full").rate_per_s = Some(80_000.0);
        assert!(found(&report).starts_with("at least 80"));
    }

    #[test]
    fn connections_that_nobody_asked_are_no_reason_for_doubt() {
        let mut report = sample::full().0;
        report.held.as_mut().expect("it is full").answered = 0;
        assert!(answers(&report)[0].alarm);
        report.setup.more.insert("ask".to_owned(), "none".to_owned());
        assert!(!answers(&report)[0].alarm);
    }

    #[test]
    fn a_broadcast_that_misses_somebody_is_an_alarm() {
        let mut report = sample::full().0;
        let broadcast = |report: &Report| answers(report).into_iter().find(|fact| fact.name == "broadcast");
        assert!(broadcast(&report).is_some_and(|fact| !fact.alarm && fact.text.contains("199 of 199")));
        let held = report.held.as_mut().expect("it is full");
        held.broadcast.as_mut().expect("it is full").reached = 198;
        assert!(broadcast(&report).is_some_and(|fact| fact.alarm));
    }

    #[test]
    fn a_ramp_and_a_search_say_where_they_ended() {
        let found = |rate_per_s, broken_at_per_s| Found {
            promise: "p99>5ms".to_owned(),
            rate_per_s,
            broken_at_per_s,
            reason: "the last step is done".to_owned(),
        };
        for (scenario, last, broken, expected) in [
            ("ramp", Some(10.0), Some(20.0), "p99>5ms at 20/s, not yet at 10/s"),
            ("ramp", None, Some(20.0), "p99>5ms at 20/s, the first rate"),
            ("ramp", Some(10.0), None, "up to 10/s: the last step is done"),
            ("ramp", None, None, "the last step is done"),
            ("find-rate", Some(10.0), Some(20.0), "10/s keeps p99>5ms, 20/s breaks it: the last step is done"),
            ("find-rate", Some(10.0), None, "10/s keeps p99>5ms: the last step is done"),
            ("find-rate", None, Some(20.0), "no rate keeps p99>5ms: the last step is done"),
        ] {
            assert_eq!(found_text(scenario, &found(last, broken)), expected);
        }
    }

    #[test]
    fn errors_and_assertions_stand_by_name() {
        let report = sample::full().0;
        let failures = failures(&report);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].text, "40 000/s: 1 corrupted, 3 lost");
        let texts: Vec<String> = assertions(&report).into_iter().map(|fact| fact.text).collect();
        let texts: Vec<String> = texts.into_iter().map(|text| text.replace(quantity::NO_BREAK, " ")).collect();
        assert_eq!(texts[0], "p99<5ms  holds: 2.34 ms seen");
        assert_eq!(texts[1], "errors==0  does not hold: 4 seen");
        assert_eq!(texts[2], "server_rss<64MiB  holds: 7.16 MiB seen");
        let verdict = verdict(&report);
        assert_eq!(verdict.text, "not ok: 4 errors, 1 of 3 assertions broken, 1 of 3 runs limited by the client");
    }
}
