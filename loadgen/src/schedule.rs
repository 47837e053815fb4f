//! When messages are meant to leave: the schedule of an open loop, which no slow answer holds up.

use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::Exp1;
use std::time::Duration;

/// How arrivals follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrivals {
    /// At equal distances.
    #[default]
    Constant,
    /// Independently of each other, as those of many strangers do.
    Poisson,
}

impl Arrivals {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

/// A rate that changes: so many a second for so long, and then the next. The last one stays.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Steps(pub(crate) Vec<(f64, Duration)>);

impl std::str::FromStr for Steps {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let step = |item: &str| {
            let (rate, duration) =
                item.trim().split_once(':').ok_or_else(|| format!("{item:?} is not RATE:DURATION"))?;
            let duration = humantime::parse_duration(duration).map_err(|error| format!("{duration:?}: {error}"))?;
            if duration.is_zero() {
                return Err(format!("{item}: a step lasts longer than nothing"));
            }
            Ok((crate::units::parse_rate(rate)?, duration))
        };
        text.split(',').map(step).collect::<Result<_, _>>().map(Self)
    }
}

impl Steps {
    /// One rate for ever.
    pub(crate) fn constant(rate: f64) -> Self {
        Self(vec![(rate, Duration::MAX)])
    }

    /// The same over the same time, with each rate divided by `divisor`.
    pub(crate) fn slower(&self, divisor: f64) -> Self {
        Self(self.0.iter().map(|(rate, duration)| (rate / divisor, *duration)).collect())
    }

    /// How long all of them take.
    pub(crate) fn duration(&self) -> Duration {
        self.0.iter().fold(Duration::ZERO, |sum, (_, duration)| sum.saturating_add(*duration))
    }

    /// Over `duration` from the start.
    pub(crate) fn mean_rate(&self, duration: Duration) -> f64 {
        let (mut left, mut sum) = (duration.as_secs_f64(), 0.0);
        for (index, (rate, length)) in self.0.iter().enumerate() {
            let last = index + 1 == self.0.len();
            let span = if last { left } else { left.min(length.as_secs_f64()) };
            sum += rate * span;
            left -= span;
        }
        sum / duration.as_secs_f64().max(1e-9)
    }
}

/// A part of something that threads divide: `count` from `first` on, of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) of: u32,
}

impl Share {
    /// This share of `total` things; all shares together make the total.
    pub(crate) fn of_count(self, total: u64) -> u64 {
        let until = |end: u32| (u128::from(total) * u128::from(end) / u128::from(self.of)) as u64;
        until(self.first + self.count) - until(self.first)
    }
}

/// One thread's share of the arrivals: yields the time of each, in order.
#[derive(Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    /// Each rate with the time at which it ends, nanoseconds.
    steps: Vec<(f64, f64)>,
    at_step: usize,
    /// The next arrival; a fraction of a nanosecond counts over a million of them.
    next: f64,
    random: SmallRng,
}

impl Schedule {
    /// One share of the arrivals from `start` on, nanoseconds. Constant arrivals of the shares lie between each other.
    pub(crate) fn new(arrivals: Arrivals, steps: &Steps, start: u64, share: Share, random: SmallRng) -> Self {
        let mut end = start as f64;
        let part = f64::from(share.count) / f64::from(share.of);
        let share_of = |(rate, duration): &(f64, Duration)| {
            end += duration.as_nanos() as f64;
            (rate * part, end)
        };
        let steps: Vec<_> = steps.0.iter().map(share_of).collect();
        let mut schedule = Self { arrivals, steps, at_step: 0, next: start as f64, random };
        match arrivals {
            Arrivals::Constant => schedule.advance(f64::from(share.first) / f64::from(share.of)),
            Arrivals::Poisson => schedule.step_random(),
        }
        schedule
    }

    /// When the next message is meant to leave.
    pub(crate) fn next(&self) -> u64 {
        self.next as u64
    }

    /// The next one, if its time has come.
    pub(crate) fn due(&mut self, now: u64) -> Option<u64> {
        let next = self.next();
        if next > now {
            return None;
        }
        match self.arrivals {
            Arrivals::Constant => self.advance(1.0),
            Arrivals::Poisson => self.step_random(),
        }
        Some(next)
    }

    fn step_random(&mut self) {
        let distance = self.random.sample(Exp1);
        self.advance(distance);
    }

    /// Moves on by `distance`, counted in mean distances of whatever rate holds on the way.
    fn advance(&mut self, mut distance: f64) {
        loop {
            let (rate, end) = self.steps[self.at_step];
            let nanos = distance / rate * 1e9;
            let is_last = self.at_step + 1 == self.steps.len();
            if is_last || self.next + nanos <= end {
                self.next += nanos;
                return;
            }
            distance -= (end - self.next).max(0.0) / 1e9 * rate;
            self.next = end;
            self.at_step += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const SECOND: u64 = 1_000_000_000;

    fn schedule(arrivals: Arrivals, steps: &Steps, (first, of): (u32, u32)) -> Schedule {
        Schedule::new(arrivals, steps, 5 * SECOND, Share { first, count: 1, of }, SmallRng::seed_from_u64(7))
    }

    fn count_until(schedule: &mut Schedule, end: u64) -> usize {
        std::iter::from_fn(|| schedule.due(end - 1)).count()
    }

    #[test]
    fn constant_arrivals_are_evenly_spread_over_threads() {
        let steps = Steps::constant(1000.0);
        let mut times: Vec<u64> = Vec::new();
        for index in 0..4 {
            let mut schedule = schedule(Arrivals::Constant, &steps, (index, 4));
            times.extend(std::iter::from_fn(|| schedule.due(6 * SECOND - 1)));
        }
        times.sort_unstable();
        assert_eq!((times.len(), times[0]), (1000, 5 * SECOND));
        assert!(times.windows(2).all(|pair| (999_990..=1_000_010).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn shares_of_a_count_make_the_count() {
        let shares = [(0, 2), (2, 0), (2, 1), (3, 4)].map(|(first, count)| Share { first, count, of: 7 });
        for total in [0, 1, 6, 7, 100, u64::MAX] {
            assert_eq!(shares.iter().map(|share| u128::from(share.of_count(total))).sum::<u128>(), u128::from(total));
        }
    }

    #[test]
    fn a_constant_schedule_does_not_drift() {
        let steps = Steps::constant(333_333.0);
        let mut schedule = schedule(Arrivals::Constant, &steps, (0, 1));
        let count = count_until(&mut schedule, 15 * SECOND);
        assert!((3_333_329..=3_333_331).contains(&count), "{count}");
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let mut schedule = schedule(Arrivals::Poisson, &Steps::constant(10_000.0), (0, 2));
        let times: Vec<u64> = std::iter::from_fn(|| schedule.due(25 * SECOND)).collect();
        assert!((98_500..101_500).contains(&times.len()), "{}", times.len());
        let distances: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 200_000.0).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let variance = distances.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / distances.len() as f64;
        // Both are 1 for an exponential distribution.
        assert!((0.98..1.02).contains(&mean) && (0.95..1.05).contains(&variance), "{mean} {variance}");
    }

    #[test]
    fn steps_hold_their_rates_in_turn_and_the_last_one_stays() {
        let steps: Steps = "100:2s, 1k:1s,10:1s".parse().expect("sound");
        let mut schedule = schedule(Arrivals::Constant, &steps, (0, 1));
        let counts = [7, 8, 9, 10].map(|second| count_until(&mut schedule, second * SECOND));
        assert_eq!(counts[0], 200);
        assert!((999..=1001).contains(&counts[1]) && (9..=11).contains(&counts[2]) && (9..=11).contains(&counts[3]));
        assert_eq!(steps.duration(), Duration::from_secs(4));
        assert!((steps.mean_rate(Duration::from_secs(3)) - 400.0).abs() < 1e-6);
        for wrong in ["", "100", "100:", "x:1s", "100:0s", "100:1s,"] {
            assert!(wrong.parse::<Steps>().is_err(), "{wrong}");
        }
    }
}
