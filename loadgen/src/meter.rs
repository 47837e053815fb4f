//! A thread's counting: into the second that runs, and only of what belongs to the measured time.

use crate::measure::{Errors, Window};

/// Counts for one thread and one run.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// What has been counted since it was last taken.
    pub(crate) window: Window,
    /// The measured time, nanoseconds: from here …
    start: u64,
    /// … to before here.
    end: u64,
    /// Whatever came, in the measured time or not, and when the last did.
    received_ever: u64,
    last_received: u64,
}

impl Meter {
    /// From now on only messages meant to leave between `start` and `end` are counted. Errors always are.
    pub(crate) fn measure(&mut self, start: u64, end: u64) {
        (self.start, self.end) = (start, end);
    }

    /// The measured time is over at `now`; what is answered later still counts for the latency.
    pub(crate) fn end(&mut self, now: u64) {
        self.end = self.end.min(now);
    }

    fn measures(&self, time: u64) -> bool {
        (self.start..self.end).contains(&time)
    }

    /// A message left. `late` is how long after it was meant to, where a schedule meant it to.
    #[inline]
    pub(crate) fn sent(&mut self, intended: u64, late: Option<u64>) {
        if self.measures(intended) {
            self.window.sent += 1;
            if let Some(late) = late {
                self.window.lag.saturating_record(late);
            }
        }
    }

    /// A message came as it should.
    #[inline]
    pub(crate) fn received(&mut self, intended: u64, now: u64, bytes: usize) {
        self.received_ever += 1;
        self.last_received = now;
        if self.measures(now) {
            self.window.received += 1;
            self.window.received_bytes += bytes as u64;
        }
        if self.measures(intended) {
            self.window.latency.saturating_record(now.saturating_sub(intended));
        }
    }

    /// A message is given up. Its latency is at least what it has waited: leaving it out would flatter the server.
    pub(crate) fn lost(&mut self, intended: u64, now: u64) {
        self.window.errors.lost += 1;
        self.waited_in_vain(intended, now);
    }

    /// Deliveries are given up of which only the number is known: they have waited for at least `waited`.
    pub(crate) fn lost_unseen(&mut self, count: u64, waited: u64) {
        self.window.errors.lost += count;
        // Recording none would still move the histogram's greatest value.
        if count > 0 && self.end > self.start {
            self.window.latency.saturating_record_n(waited, count);
        }
    }

    /// The same for one that another error stands for already.
    pub(crate) fn waited_in_vain(&mut self, intended: u64, now: u64) {
        if self.measures(intended) {
            self.window.latency.saturating_record(now.saturating_sub(intended));
        }
    }

    /// When the last message came, nanoseconds since the program's start.
    pub(crate) const fn last_received(&self) -> u64 {
        self.last_received
    }

    /// Messages that came as they should since the start.
    pub(crate) const fn received_ever(&self) -> u64 {
        self.received_ever
    }

    pub(crate) fn errors(&mut self) -> &mut Errors {
        &mut self.window.errors
    }

    /// Hands over what was counted and begins anew.
    pub(crate) fn take(&mut self, connections: u64) -> Window {
        self.window.connections = connections;
        std::mem::take(&mut self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_measured_time_counts_and_every_error() {
        let mut meter = Meter::default();
        meter.measure(100, 200);
        meter.sent(99, None);
        meter.received(99, 150, 7);
        meter.received(120, 150, 7);
        meter.received(150, 250, 7);
        meter.lost(160, 1160);
        meter.lost(10, 1160);
        let window = meter.take(3);
        assert_eq!((window.sent, window.received, window.received_bytes, window.connections), (0, 2, 14, 3));
        assert_eq!((window.latency.len(), window.latency.max(), window.errors.lost), (3, 1000, 2));
        assert_eq!(meter.take(3).latency.len(), 0);
    }

    #[test]
    fn no_delivery_given_up_leaves_no_latency() {
        let mut meter = Meter::default();
        meter.measure(100, 200);
        meter.received(120, 150, 7);
        meter.lost_unseen(0, 10_000);
        assert_eq!(meter.take(3).latency.max(), 30);
        meter.lost_unseen(2, 10_000);
        let window = meter.take(3);
        assert_eq!((window.latency.len(), window.errors.lost), (2, 2));
        assert!(window.latency.max() >= 10_000);
    }
}
