//! The room of the report: from what was measured to what people and programs read.
//!
//! | file | owns |
//! |---|---|
//! | `model.rs` | the report as programs read it: JSON, `ringload/1` |
//! | `metric.rs` | the figures of a run that have a name |
//! | `quantity.rs` | how quantities are written |
//! | `rows.rs` | what the tables say, cell by cell |
//! | `table.rs` | the tables as text |
//! | `csv.rs` | the series, a line for each second |
//! | `hlog.rs` | the histograms, a line for each second |
//! | `html.rs`, `page.html` | one page with plots and tables |
//! | `figure.rs` | which plots a report has, and what they show |
//! | `plot.rs` | a plot in SVG |
//!
//! Nothing here measures. Everything but the `.hlog` is made from the model alone, so that a page or a table can be
//! made of a report that was read from a file.

#[cfg(test)]
mod contract;
pub(crate) mod csv;
pub(crate) mod figure;
pub(crate) mod hlog;
pub(crate) mod html;
pub(crate) mod metric;
pub(crate) mod model;
pub(crate) mod plot;
pub(crate) mod quantity;
pub(crate) mod rows;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod table;

use crate::measure;
use crate::usage::{ClientUsage, ServerUsage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file name that means standard output.
const STDOUT: &str = "-";

/// Where the report goes, beside the table.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Files {
    /// The report as JSON (docs/ringload-report.md); - for standard output, and then nothing else is printed there
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// The series by second as CSV
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// The report as one HTML file with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Latency histograms by second, as an HDR interval log (V2)
    #[arg(long, value_name = "FILE")]
    pub(crate) hlog: Option<PathBuf>,
}

impl Files {
    /// Fails before the load rather than after it: where a file cannot be written, or two are standard output.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.each().filter(|path| is_stdout(path)).count() > 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only one report can go to standard output"));
        }
        self.each().filter(|path| !is_stdout(path)).try_for_each(try_open)
    }

    /// Whether one of them is standard output: the table has no place there.
    pub(crate) fn takes_stdout(&self) -> bool {
        self.each().any(is_stdout)
    }

    /// Writes those that are asked for.
    pub(crate) fn write(&self, report: &model::Report, runs: &[measure::Run]) -> io::Result<()> {
        if let Some(path) = &self.json {
            write(path, json(report)?.as_bytes())?;
        }
        if let Some(path) = &self.csv {
            write(path, csv::text(report).as_bytes())?;
        }
        if let Some(path) = &self.html {
            write(path, html::page(report).as_bytes())?;
        }
        if let Some(path) = &self.hlog {
            write(path, &hlog::log(report, runs)?)?;
        }
        Ok(())
    }

    fn each(&self) -> impl Iterator<Item = &Path> {
        [&self.json, &self.csv, &self.html, &self.hlog].into_iter().flatten().map(PathBuf::as_path)
    }
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == STDOUT
}

/// Opens without changing what is there, and leaves nothing where nothing was.
fn try_open(path: &Path) -> io::Result<()> {
    let was_there = path.exists();
    OpenOptions::new().append(true).create(true).open(path).map_err(|error| at(path, &error))?;
    if was_there { Ok(()) } else { fs::remove_file(path).map_err(|error| at(path, &error)) }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if !is_stdout(path) {
        return fs::write(path, bytes).map_err(|error| at(path, &error));
    }
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| at(Path::new("standard output"), &error))
}

/// The error with the name of the file.
pub(crate) fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The report in JSON, with a line break at its end.
pub(crate) fn json(report: &model::Report) -> io::Result<String> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    // JSON has no infinity: it would be written as `null` where readers expect a number.
    debug_assert!(serde_json::from_str::<model::Report>(&text).is_ok(), "a figure of the report is not finite");
    Ok(text)
}

/// The quotient, where there is one: nothing is divided by nothing, and JSON knows no infinity.
pub(crate) fn over(numerator: f64, denominator: f64) -> Option<f64> {
    let quotient = numerator / denominator;
    (denominator > 0.0 && quotient.is_finite()).then_some(quotient)
}

/// A run as the report gives it; `connections` is by how many the server's growth is divided.
pub(crate) fn run_of(run: &measure::Run, connections: u64) -> model::Run {
    let total = &run.total;
    let elapsed_s = run.elapsed.as_secs_f64();
    let mut errors: std::collections::BTreeMap<String, u64> =
        total.errors.named().map(|(name, count)| (name.to_owned(), count)).into();
    errors.insert("total".to_owned(), total.errors.total());
    model::Run {
        label: run.label.clone(),
        elapsed_s,
        offered_per_s: run.offered_per_s.filter(|rate| rate.is_finite()),
        sent: total.sent,
        received: total.received,
        received_per_s: run.received_per_s(),
        received_bytes_per_s: over(total.received_bytes as f64, elapsed_s).unwrap_or(0.0),
        latency: latency_of(&total.latency),
        errors,
        client: client_of(&run.client, &total.lag),
        server: run.server.as_ref().map(|server| server_of(server, elapsed_s, total.received, connections)),
        intervals: run.intervals.iter().map(interval_of).collect(),
        histogram: encode_histogram(&total.latency),
    }
}

/// The summary of a histogram of nanoseconds; of an empty one, zeros.
pub(crate) fn latency_of(histogram: &Histogram<u64>) -> model::Latency {
    if histogram.is_empty() {
        return model::Latency::default();
    }
    let quantile = |quantile| histogram.value_at_quantile(quantile);
    model::Latency {
        count: histogram.len(),
        min_ns: histogram.min(),
        mean_ns: histogram.mean(),
        stdev_ns: histogram.stdev(),
        p50_ns: quantile(0.5),
        p75_ns: quantile(0.75),
        p90_ns: quantile(0.9),
        p95_ns: quantile(0.95),
        p99_ns: quantile(0.99),
        p999_ns: quantile(0.999),
        p9999_ns: quantile(0.9999),
        max_ns: histogram.max(),
    }
}

fn interval_of(interval: &measure::Interval) -> model::Interval {
    let window = &interval.window;
    let length_s = interval.length.as_secs_f64();
    model::Interval {
        start_s: interval.start.as_secs_f64(),
        length_s,
        sent: window.sent,
        received: window.received,
        received_per_s: over(window.received as f64, length_s).unwrap_or(0.0),
        p50_ns: window.latency.value_at_quantile(0.5),
        p99_ns: window.latency.value_at_quantile(0.99),
        max_ns: window.latency.max(),
        errors: window.errors.total(),
        connections: window.connections,
    }
}

fn client_of(client: &ClientUsage, lag: &Histogram<u64>) -> model::Client {
    model::Client {
        busiest_thread: share(client.busiest_thread),
        longest_wait: share(client.longest_wait),
        cpu_s: client.cpu.as_secs_f64(),
        lag_p99_ns: lag.value_at_quantile(0.99),
        lag_max_ns: lag.max(),
        limit: client.limit.clone(),
    }
}

fn server_of(server: &ServerUsage, elapsed_s: f64, received: u64, connections: u64) -> model::Server {
    let cpu_s = (server.user + server.system).as_secs_f64();
    // CPU time is told in steps of 10 ms: none is not nothing.
    let received = received as f64;
    let switches = (server.context_switches_voluntary + server.context_switches_involuntary) as f64;
    // A process that shrank says nothing about its connections, and neither does one that was not seen before them.
    let growth = server.resident_bytes_after.checked_sub(server.resident_bytes_at_start);
    let growth = growth.filter(|_| server.resident_bytes_at_start > 0);
    model::Server {
        pid: server.pid,
        cpu_user_s: server.user.as_secs_f64(),
        cpu_system_s: server.system.as_secs_f64(),
        cores_used: over(cpu_s, elapsed_s).unwrap_or(0.0),
        busiest_thread: share(server.busiest_thread),
        messages_per_cpu_s: over(received, cpu_s).filter(|rate| *rate > 0.0),
        cpu_ns_per_message: over(cpu_s * 1e9, received).filter(|nanos| *nanos > 0.0),
        resident_bytes_before: server.resident_bytes_before,
        resident_bytes_after: server.resident_bytes_after,
        resident_bytes_max: server.resident_bytes_max,
        resident_bytes_per_connection: growth.and_then(|bytes| over(bytes as f64, connections as f64)),
        context_switches_voluntary: server.context_switches_voluntary,
        context_switches_involuntary: server.context_switches_involuntary,
        context_switches_per_message: over(switches, received),
        syscalls: server.syscalls,
        syscalls_per_message: server.syscalls.and_then(|syscalls| over(syscalls as f64, received)),
    }
}

const fn share(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

/// HDR V2 with deflate, in base64: the same bytes as in a `.hlog`.
fn encode_histogram(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a buffer takes any histogram");
    STANDARD.encode(bytes)
}

/// `None` where it is no such histogram: a report may come from another hand.
pub(crate) fn decode_histogram(text: &str) -> Option<Histogram<u64>> {
    let bytes = STANDARD.decode(text).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_run_of_nothing_has_only_finite_figures() {
        let empty = measure::Run {
            label: "measured".to_owned(),
            offered_per_s: Some(f64::INFINITY),
            elapsed: Duration::ZERO,
            total: measure::Window::default(),
            intervals: vec![measure::Interval {
                start: Duration::ZERO,
                length: Duration::ZERO,
                window: measure::Window::default(),
            }],
            client: ClientUsage { busiest_thread: f64::NAN, ..ClientUsage::default() },
            server: Some(ServerUsage { busiest_thread: f64::INFINITY, ..ServerUsage::default() }),
        };
        let run = run_of(&empty, 0);
        let text = serde_json::to_string(&run).expect("it can be written");
        let back: model::Run = serde_json::from_str(&text).expect("no figure became null");
        let server = back.server.expect("it was named");
        assert_eq!((back.received_per_s, back.offered_per_s, back.client.busiest_thread), (0.0, None, 0.0));
        assert_eq!((server.messages_per_cpu_s, server.cpu_ns_per_message), (None, None));
        assert_eq!(server.resident_bytes_per_connection, None);
    }

    #[test]
    fn the_servers_cost_is_divided_by_messages_and_connections() {
        let server = ServerUsage {
            user: Duration::from_millis(1500),
            system: Duration::from_millis(500),
            resident_bytes_at_start: 1_000_000,
            resident_bytes_after: 3_000_000,
            context_switches_voluntary: 10,
            context_switches_involuntary: 10,
            syscalls: Some(1000),
            ..ServerUsage::default()
        };
        let server = server_of(&server, 4.0, 200, 100);
        assert_eq!(server.cores_used, 0.5);
        assert_eq!((server.messages_per_cpu_s, server.cpu_ns_per_message), (Some(100.0), Some(1e7)));
        assert_eq!((server.context_switches_per_message, server.syscalls_per_message), (Some(0.1), Some(5.0)));
        assert_eq!(server.resident_bytes_per_connection, Some(20_000.0));
    }

    #[test]
    fn the_growth_of_a_server_that_shrank_or_was_not_seen_before_is_not_known() {
        for (at_start, after) in [(0, 10), (20, 10)] {
            let server = ServerUsage {
                resident_bytes_at_start: at_start,
                resident_bytes_after: after,
                ..ServerUsage::default()
            };
            assert_eq!(server_of(&server, 1.0, 1, 1).resident_bytes_per_connection, None);
        }
    }

    #[test]
    fn a_histogram_survives_the_report() {
        let (report, runs) = sample::full();
        let back = decode_histogram(&report.runs[0].histogram).expect("it is one");
        assert_eq!(back, runs[0].total.latency);
        assert!(decode_histogram("no histogram").is_none());
    }

    #[test]
    fn a_report_survives_json() {
        let report = sample::full().0;
        let back: model::Report =
            serde_json::from_str(&json(&report).expect("it can be written")).expect("it can be read");
        let figures = |report: &model::Report| -> Vec<(u64, u64, String)> {
            let runs = report.runs.iter();
            runs.map(|run| (run.received, run.latency.p99_ns, run.histogram.clone())).collect()
        };
        assert!(figures(&back) == figures(&report));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_before_the_load() {
        let files = Files { html: Some("/nowhere/at/all.html".into()), ..Files::default() };
        let error = files.check().expect_err("there is no such directory");
        assert!(error.to_string().starts_with("/nowhere/at/all.html: "), "{error}");
        let files = Files { json: Some("-".into()), csv: Some("-".into()), ..Files::default() };
        assert!(files.check().is_err());
    }

    #[test]
    fn the_check_leaves_nothing_and_the_report_leaves_all_four_files() {
        let directory = std::env::temp_dir().join(format!("ringload-report-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("temporary directory");
        let at = |name| Some(directory.join(name));
        let files = Files { json: at("a.json"), csv: at("a.csv"), html: at("a.html"), hlog: at("a.hlog") };
        let count = || fs::read_dir(&directory).expect("it is there").count();
        files.check().expect("they can be written");
        assert_eq!((count(), files.takes_stdout()), (0, false));
        let (report, runs) = sample::full();
        files.write(&report, &runs).expect("they can be written");
        assert_eq!(count(), 4);
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
