//! What lets the next message leave in one thread: an answer or a schedule, and what is left of a count.

use crate::plan::{Length, Pace, RunPlan};
use crate::schedule::{Schedule, Share};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::time::Duration;

/// One thread's share of a run's pace. Between runs nothing leaves.
#[derive(Debug)]
pub(crate) struct Pacing {
    share: Share,
    /// Messages that leave at each time the schedule names.
    burst: u32,
    sending: bool,
    /// Messages that may still leave …
    left: u64,
    /// … and how many those are from the start of the measured time on.
    granted: u64,
    in_flight: Option<u32>,
    schedule: Option<Schedule>,
}

impl Pacing {
    pub(crate) fn new(share: Share) -> Self {
        Self::in_bursts(share, 1)
    }

    /// The same for messages that leave `burst` at a time.
    pub(crate) fn in_bursts(share: Share, burst: u32) -> Self {
        Self { share, burst, sending: false, left: 0, granted: 0, in_flight: None, schedule: None }
    }

    pub(crate) fn begin(&mut self, run: &RunPlan, random: &mut SmallRng) {
        self.granted = match run.length {
            Length::Time(_) => u64::MAX,
            Length::Count(count) => self.share.of_count(count),
        };
        // The warm-up is not counted.
        self.left = if run.warm_up.is_zero() { self.granted } else { u64::MAX };
        self.sending = self.share.count > 0;
        (self.in_flight, self.schedule) = match &run.pace {
            Pace::Closed { in_flight } => (Some(*in_flight), None),
            Pace::Open { arrivals, steps } => {
                let random = SmallRng::from_rng(random);
                let steps = steps.slower(f64::from(self.burst));
                (None, Some(Schedule::new(*arrivals, &steps, run.start, self.share, random)))
            }
        };
    }

    /// The measured time begins.
    pub(crate) fn grant(&mut self) {
        self.left = self.granted;
    }

    /// Whether anything leaves from this thread at all.
    pub(crate) const fn has_share(&self) -> bool {
        self.share.count > 0
    }

    pub(crate) fn stop(&mut self) {
        self.sending = false;
    }

    /// Whether messages leave by a schedule.
    pub(crate) const fn is_open(&self) -> bool {
        self.schedule.is_some()
    }

    /// In a closed loop: messages on their way at one time.
    pub(crate) const fn closed_in_flight(&self) -> Option<u32> {
        self.in_flight
    }

    /// Takes leave for one more message.
    pub(crate) fn spend(&mut self) -> bool {
        let may = self.sending && self.left > 0;
        self.left -= u64::from(may);
        may
    }

    /// Whether the whole count has left.
    pub(crate) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// In an open loop: the next message that should have left by now.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        if !self.sending || self.left == 0 {
            return None;
        }
        let intended = self.schedule.as_mut()?.due(now)?;
        self.left -= 1;
        Some(intended)
    }

    /// When the next message is to leave by the schedule.
    pub(crate) fn next_due(&self) -> Option<u64> {
        if self.sending && self.left > 0 { self.schedule.as_ref().map(Schedule::next) } else { None }
    }
}

/// A turn that comes so much after the last one was held up: turns are at most 10 ms apart.
const STALL_NANOS: u64 = 50_000_000;

/// When to look for messages that are not answered in time.
#[derive(Debug)]
pub(crate) struct Sweep {
    timeout: u64,
    next: u64,
    now: u64,
}

impl Sweep {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX), next: 0, now: 0 }
    }

    /// Ten times in each timeout: what was sent before the answer is given up. To be asked in every turn: after a stall of
    /// the client's own the server gets the whole timeout once more, because what was meant to leave meanwhile leaves
    /// only now.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        let stalled = self.now > 0 && now - self.now > STALL_NANOS;
        self.now = now;
        if stalled {
            self.next = now + self.timeout;
        }
        if now < self.next {
            return None;
        }
        self.next = now + self.timeout / 10;
        now.checked_sub(self.timeout)
    }

    /// The longest wait for an answer, nanoseconds.
    pub(crate) const fn timeout(&self) -> u64 {
        self.timeout
    }

    /// The time of the last look.
    pub(crate) const fn now(&self) -> u64 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_of_the_clients_own_is_not_held_against_the_server() {
        const MS: u64 = 1_000_000;
        let mut sweep = Sweep::new(Duration::from_millis(400));
        assert_eq!(sweep.due(500 * MS), Some(100 * MS));
        assert_eq!(sweep.due(510 * MS), None);
        // The next turn comes 600 ms late: messages of that time leave now.
        for now in (1_110..1_510).step_by(10) {
            assert_eq!(sweep.due(now * MS), None, "at {now} ms");
        }
        assert_eq!(sweep.due(1_510 * MS), Some(1_110 * MS));
    }
}
