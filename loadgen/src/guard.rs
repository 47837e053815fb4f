//! Whether the client was the limit: then its figures are its own and not the server's.

use crate::measure::Window;
use crate::usage::{ServerUsage, ThreadTimes};
use std::time::Duration;

/// With less of a core to spare than this leaves, a thread cannot send more.
const BUSY: f64 = 0.92;
/// A thread that waited longer for its core shared it with something else.
const WAITED: f64 = 0.10;
/// A client that is late by more than this, and by more than a part of the latency it reports, measures itself.
const LAG: Duration = Duration::from_millis(1);
const LAG_PART: f64 = 0.2;

/// Why the client was the limit, if it was.
///
/// A full core of the client's says nothing while the server's is full as well: then the server can give no more either.
pub(crate) fn limit(
    threads: &[ThreadTimes],
    elapsed: Duration,
    total: &Window,
    is_open_loop: bool,
    server: Option<&ServerUsage>,
) -> Option<String> {
    let share = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
    let busiest = threads.iter().map(|times| share(times.on_core)).fold(0.0, f64::max);
    let longest_wait = threads.iter().map(|times| share(times.waited)).fold(0.0, f64::max);
    let server_is_full = server.is_some_and(|server| server.busiest_thread >= BUSY);
    if longest_wait >= WAITED {
        return Some(format!(
            "a thread of the client waited {:.0} % of the time for a core that something else was using; taskset gives \
             each side cores of its own",
            longest_wait * 100.0
        ));
    }
    if busiest >= BUSY && !server_is_full {
        let server = if server.is_some() { ", and no thread of the server was" } else { "" };
        return Some(format!("a thread of the client was busy {:.0} % of the time{server}", busiest * 100.0));
    }
    let lag = Duration::from_nanos(total.lag.value_at_quantile(0.99));
    let latency = Duration::from_nanos(total.latency.value_at_quantile(0.99));
    if is_open_loop && lag > LAG && lag.as_secs_f64() > LAG_PART * latency.as_secs_f64() {
        return Some(format!("the client sent late: by {lag:.1?} at the 99th percentile"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(on_core: f64, waited: f64, lag: Duration, server: Option<f64>) -> Option<String> {
        let mut total = Window::default();
        total.lag.record(lag.as_nanos() as u64).expect("in range");
        total.latency.record(10_000_000).expect("in range");
        let times = ThreadTimes { on_core: Duration::from_secs_f64(on_core), waited: Duration::from_secs_f64(waited) };
        let server = server.map(|busiest_thread| ServerUsage { busiest_thread, ..ServerUsage::default() });
        limit(&[ThreadTimes::default(), times], Duration::from_secs(1), &total, true, server.as_ref())
    }

    #[test]
    fn a_full_core_a_stolen_core_and_a_late_send_are_seen() {
        assert_eq!(verdict(0.8, 0.01, Duration::from_micros(100), None), None);
        assert!(verdict(0.95, 0.0, Duration::ZERO, None).is_some());
        assert!(verdict(0.95, 0.0, Duration::ZERO, Some(0.5)).is_some());
        assert_eq!(verdict(0.95, 0.0, Duration::ZERO, Some(0.97)), None);
        assert!(verdict(0.3, 0.3, Duration::ZERO, Some(0.97)).is_some());
        assert!(verdict(0.3, 0.0, Duration::from_millis(5), None).is_some());
    }
}
