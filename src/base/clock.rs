//! Time as a value. The driver reads the clock once a turn; everybody else is handed the result.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point of monotonic time: nanoseconds since an origin the driver chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`, zero if `earlier` lies ahead.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The tick this point lies in.
    pub const fn tick(self) -> Tick {
        // Truncation is the point: ticks count modulo 2³² and are compared as differences.
        Tick((self.0 / Tick::NANOS) as u32)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, duration: Duration) -> Time {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

/// A point of time in timer units of 8 ms, modulo 2³² (397 days): what a session stores in 4 bytes.
///
/// Two ticks are comparable while they lie less than 198 days apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(u32);

impl Tick {
    /// Nanoseconds in a tick.
    pub const NANOS: u64 = 8_000_000;
    /// The furthest that one tick may lie ahead of another and still compare as later.
    pub const SPAN_MAX: u32 = i32::MAX as u32;

    /// The tick with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The tick's number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Ticks passed since `earlier`, zero if `earlier` lies ahead.
    pub const fn since(self, earlier: Tick) -> u32 {
        let passed = self.0.wrapping_sub(earlier.0);
        if passed > Self::SPAN_MAX { 0 } else { passed }
    }

    /// Whether this tick is `other` or lies behind it.
    pub const fn reached(self, other: Tick) -> bool {
        self.0.wrapping_sub(other.0) <= Self::SPAN_MAX
    }

    /// The tick `ticks` later.
    #[must_use]
    pub const fn plus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }

    /// The tick `ticks` earlier.
    #[must_use]
    pub const fn minus(self, ticks: u32) -> Self {
        Self(self.0.wrapping_sub(ticks))
    }

    /// A duration in whole ticks, rounded up, at most [`Tick::SPAN_MAX`].
    pub fn count(duration: Duration) -> u32 {
        let ticks = duration.as_nanos().div_ceil(u128::from(Self::NANOS));
        u32::try_from(ticks).unwrap_or(Self::SPAN_MAX).min(Self::SPAN_MAX)
    }

    /// This many ticks as a duration.
    pub const fn duration(ticks: u32) -> Duration {
        Duration::from_nanos(ticks as u64 * Self::NANOS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_compare_across_the_wrap() {
        let before = Tick::new(u32::MAX - 1);
        let after = before.plus(3);
        assert_eq!(after.number(), 1);
        assert_eq!(after.since(before), 3);
        assert!(after.reached(before));
        assert!(!before.reached(after));
        assert_eq!(before.since(after), 0);
    }

    #[test]
    fn durations_round_up_to_ticks() {
        assert_eq!(Tick::count(Duration::ZERO), 0);
        assert_eq!(Tick::count(Duration::from_nanos(1)), 1);
        assert_eq!(Tick::count(Duration::from_millis(8)), 1);
        assert_eq!(Tick::count(Duration::from_millis(9)), 2);
        assert_eq!(Tick::count(Duration::MAX), Tick::SPAN_MAX);
    }
}
