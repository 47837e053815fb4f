//! The figures of a run that have a name: what can be promised and what can be compared.

use super::model::{Latency, Run, Server};
use super::quantity::Unit;

/// A figure of a run.
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// What is seen in a run; `None` where it was not measured.
    pub(crate) of: fn(&Run) -> Option<f64>,
}

/// All of them, in the order in which they are listed to people.
pub(crate) const METRICS: [Metric; 25] = [
    Metric { name: "min", unit: Unit::Duration, of: |run| latency(run, |latency| latency.min_ns as f64) },
    Metric { name: "mean", unit: Unit::Duration, of: |run| latency(run, |latency| latency.mean_ns) },
    Metric { name: "p50", unit: Unit::Duration, of: |run| latency(run, |latency| latency.p50_ns as f64) },
    Metric { name: "p75", unit: Unit::Duration, of: |run| latency(run, |latency| latency.p75_ns as f64) },
    Metric { name: "p90", unit: Unit::Duration, of: |run| latency(run, |latency| latency.p90_ns as f64) },
    Metric { name: "p95", unit: Unit::Duration, of: |run| latency(run, |latency| latency.p95_ns as f64) },
    Metric { name: "p99", unit: Unit::Duration, of: |run| latency(run, |latency| latency.p99_ns as f64) },
    Metric { name: "p99.9", unit: Unit::Duration, of: |run| latency(run, |latency| latency.p999_ns as f64) },
    Metric { name: "p99.99", unit: Unit::Duration, of: |run| latency(run, |latency| latency.p9999_ns as f64) },
    Metric { name: "max", unit: Unit::Duration, of: |run| latency(run, |latency| latency.max_ns as f64) },
    Metric { name: "rate", unit: Unit::Count, of: |run| Some(run.received_per_s) },
    Metric { name: "errors", unit: Unit::Count, of: |run| error(run, "total") },
    Metric { name: "lost", unit: Unit::Count, of: |run| error(run, "lost") },
    Metric { name: "duplicated", unit: Unit::Count, of: |run| error(run, "duplicated") },
    Metric { name: "reordered", unit: Unit::Count, of: |run| error(run, "reordered") },
    Metric { name: "corrupted", unit: Unit::Count, of: |run| error(run, "corrupted") },
    Metric { name: "disconnected", unit: Unit::Count, of: |run| error(run, "disconnected") },
    Metric { name: "not_connected", unit: Unit::Count, of: |run| error(run, "not_connected") },
    // Those that stand when the run ends.
    Metric { name: "connections", unit: Unit::Count, of: |run| Some(run.intervals.last()?.connections as f64) },
    Metric { name: "server_rss", unit: Unit::Bytes, of: |run| Some(server(run)?.resident_bytes_max as f64) },
    Metric {
        name: "server_bytes_per_connection",
        unit: Unit::Bytes,
        of: |run| server(run)?.resident_bytes_per_connection,
    },
    Metric { name: "server_cpu", unit: Unit::Ratio, of: |run| Some(server(run)?.cores_used) },
    Metric { name: "rate_per_server_cpu", unit: Unit::Count, of: |run| server(run)?.messages_per_cpu_s },
    Metric { name: "client_cpu", unit: Unit::Ratio, of: |run| super::over(run.client.cpu_s, run.elapsed_s) },
    Metric { name: "client_limit", unit: Unit::Flag, of: |run| Some(f64::from(u8::from(run.client.limit.is_some()))) },
];

impl Metric {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.name == name)
    }
}

/// Of a run without messages nothing is known: not that it was fast.
fn latency(run: &Run, of: fn(&Latency) -> f64) -> Option<f64> {
    (run.received > 0 && run.latency.count > 0).then(|| of(&run.latency))
}

fn error(run: &Run, name: &str) -> Option<f64> {
    run.errors.get(name).map(|count| *count as f64)
}

const fn server(run: &Run) -> Option<&Server> {
    run.server.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Errors;
    use std::collections::BTreeSet;

    #[test]
    fn every_error_has_a_metric_and_no_name_stands_twice() {
        for (name, _) in Errors::default().named() {
            assert!(Metric::named(name).is_some(), "{name}");
        }
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
    }

    #[test]
    fn a_full_run_has_every_metric() {
        let run = crate::report::sample::full().0.runs.remove(0);
        for metric in &METRICS {
            assert!((metric.of)(&run).is_some(), "{}", metric.name);
        }
    }
}
