//! What a run measured: counts, latencies, and both again for each second.
//!
//! Each thread keeps a [`Window`] of its own and hands it over once a second; the main thread merges. Nothing here is
//! shared while messages fly.

use crate::usage::{ClientUsage, ServerUsage};
use hdrhistogram::Histogram;
use std::ops::AddAssign;
use std::time::Duration;

/// Longest latency that is told apart: ten minutes. A longer one is counted as this.
pub(crate) const LATENCY_NANOS_MAX: u64 = 600_000_000_000;
/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// An empty histogram of nanoseconds, for [`LATENCY_NANOS_MAX`] and three digits. Cost: about 250 KiB.
pub(crate) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, LATENCY_DIGITS).expect("the bounds are sound")
}

/// What went wrong. Any of it makes the run fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Messages that were not answered in time.
    pub(crate) lost: u64,
    /// Messages that came again.
    pub(crate) duplicated: u64,
    /// Messages that came after a later one of the same sender.
    pub(crate) reordered: u64,
    /// Messages of which length, kind or content is not what was sent.
    pub(crate) corrupted: u64,
    /// Connections that the server ended or reset, or on which it broke the protocol.
    pub(crate) disconnected: u64,
    /// Connections that did not come about: refused, timed out, or their handshake was answered by no.
    pub(crate) not_connected: u64,
}

impl Errors {
    /// With the names of the report.
    pub(crate) const fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("disconnected", self.disconnected),
            ("not_connected", self.not_connected),
        ]
    }

    pub(crate) fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }
}

impl AddAssign for Errors {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.disconnected += other.disconnected;
        self.not_connected += other.not_connected;
    }
}

/// What was counted in a span of time: a second, or a whole run.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Messages that left; for churn, connections begun.
    pub(crate) sent: u64,
    /// Messages that came as they should: answers, deliveries, handshakes.
    pub(crate) received: u64,
    /// Payload bytes of those.
    pub(crate) received_bytes: u64,
    /// From the intended send (open loop) or the send (closed loop) to the answer, nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// How late the client itself was: from the intended send to the moment it looked at the clock, nanoseconds.
    pub(crate) lag: Histogram<u64>,
    pub(crate) errors: Errors,
    /// Connections that stand at the end of the span.
    pub(crate) connections: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            sent: 0,
            received: 0,
            received_bytes: 0,
            latency: empty_histogram(),
            lag: empty_histogram(),
            errors: Errors::default(),
            connections: 0,
        }
    }
}

impl Window {
    /// Adds what another thread counted in the same span.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.append(other);
        self.connections += other.connections;
    }

    /// Adds what was counted in a later span.
    pub(crate) fn append(&mut self, later: &Self) {
        self.sent += later.sent;
        self.received += later.received;
        self.received_bytes += later.received_bytes;
        self.latency.add(&later.latency).expect("all histograms have the same bounds");
        self.lag.add(&later.lag).expect("all histograms have the same bounds");
        self.errors += later.errors;
    }
}

/// One second of a run.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// From the start of the run to the start of the interval.
    pub(crate) start: Duration,
    /// A second, or what was left.
    pub(crate) length: Duration,
    pub(crate) window: Window,
}

/// One measured stretch: the run of most scenarios, a step of a ramp, a trial of a search.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// `measured`, or what sets it apart from the others of the report.
    pub(crate) label: String,
    /// Messages a second that were asked for; `None` in a closed loop.
    pub(crate) offered_per_s: Option<f64>,
    pub(crate) elapsed: Duration,
    /// The whole of it.
    pub(crate) total: Window,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) client: ClientUsage,
    /// The server's process, if it was named.
    pub(crate) server: Option<ServerUsage>,
}

impl Run {
    pub(crate) fn received_per_s(&self) -> f64 {
        self.total.received as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up() {
        let mut first = Window { received: 3, connections: 5, ..Window::default() };
        first.latency.record(1_000_000).expect("in range");
        let mut second = Window { received: 4, connections: 5, ..Window::default() };
        second.errors.lost = 2;
        let mut whole = first.clone();
        whole.append(&second);
        assert_eq!((whole.received, whole.connections, whole.errors.total()), (7, 5, 2));
        let mut both = first;
        both.merge(&second);
        assert_eq!((both.connections, both.latency.len()), (10, 1));
    }
}
