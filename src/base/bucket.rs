//! A token bucket: how often something may happen, on average and in a burst.
//!
//! Kept as one point of time, the one at which the bucket will be full again (the generic cell rate algorithm, ITU-T
//! I.371): 8 bytes each, nothing to refill.

use super::clock::Time;
use std::time::Duration;

/// So much a second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// What comes back each second: 1 or more.
    pub per_second: u32,
    /// What a full bucket holds: 1 or more.
    pub burst: u32,
}

impl Rate {
    /// So much a second, and a second's worth at once.
    pub const fn per_second(per_second: u32) -> Self {
        Self { per_second, burst: per_second }
    }

    /// How long it takes until `count` have come back.
    const fn time_of(self, count: u64) -> u64 {
        let per_second = if self.per_second == 0 { 1 } else { self.per_second };
        let nanos = count as u128 * 1_000_000_000 / per_second as u128;
        if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
    }
}

/// One bucket of a [`Rate`]; full at first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Time,
}

impl Bucket {
    /// Takes `count`, also more than there is. Answers how long to wait until nothing is owed any more.
    pub fn take(&mut self, rate: Rate, count: u64, now: Time) -> Duration {
        self.full_at = self.full_at.max(now) + Duration::from_nanos(rate.time_of(count));
        let capacity = Duration::from_nanos(rate.time_of(u64::from(rate.burst)));
        self.full_at.since(now).saturating_sub(capacity)
    }

    /// Gives `count` back that were taken and not used.
    pub fn give_back(&mut self, rate: Rate, count: u64) {
        let earlier = self.full_at.as_nanos().saturating_sub(rate.time_of(count));
        self.full_at = Time::from_nanos(earlier);
    }

    /// Takes one, if there is one. If not, answers how long it takes until there is.
    pub fn try_take(&mut self, rate: Rate, now: Time) -> Result<(), Duration> {
        let mut after = *self;
        let wait = after.take(rate, 1, now);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        *self = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let rate = Rate { per_second: 100, burst: 5 };
        let mut bucket = Bucket::default();
        for start in [0, 10_000, 1_000_000] {
            for _ in 0..5 {
                assert_eq!(bucket.try_take(rate, at(start)), Ok(()));
            }
            assert_eq!(bucket.try_take(rate, at(start)), Err(Duration::from_millis(10)));
            assert_eq!(bucket.try_take(rate, at(start + 9)), Err(Duration::from_millis(1)));
            let passed = (10..1_010).filter(|after| bucket.try_take(rate, at(start + after)).is_ok()).count();
            assert_eq!(passed, 100, "in a second");
        }
    }

    #[test]
    fn what_is_taken_beyond_what_there_is_is_owed() {
        let rate = Rate::per_second(1_000);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(rate, 900, at(0)), Duration::ZERO);
        assert_eq!(bucket.take(rate, 2_100, at(0)), Duration::from_secs(2));
        assert_eq!(bucket.take(rate, 0, at(1_500)), Duration::from_millis(500));
        assert_eq!(bucket.take(rate, 0, at(2_000)), Duration::ZERO);
    }

    #[test]
    fn what_is_given_back_may_be_taken_again() {
        let rate = Rate { per_second: 1, burst: 2 };
        let mut bucket = Bucket::default();
        for _ in 0..10 {
            assert_eq!(bucket.try_take(rate, at(500)), Ok(()));
            bucket.give_back(rate, 1);
        }
        assert_eq!([bucket.try_take(rate, at(500)), bucket.try_take(rate, at(500))], [Ok(()); 2]);
        assert!(bucket.try_take(rate, at(500)).is_err());
        Bucket::default().give_back(rate, u64::MAX);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let slowest = Rate { per_second: 1, burst: 1 };
        let mut bucket = Bucket::default();
        assert!(bucket.take(slowest, u64::MAX, at(u64::MAX / 2_000_000)) > Duration::from_secs(1 << 30));
        assert!(bucket.try_take(slowest, at(0)).is_err());
        let fastest = Rate::per_second(u32::MAX);
        assert_eq!(Bucket::default().take(fastest, 1 << 20, at(1)), Duration::ZERO);
    }
}
