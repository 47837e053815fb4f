//! How values of flags are written: durations, sizes, counts, rates, choices.

use super::doctor::Class;
use bytesize::ByteSize;
use clap::ValueEnum;
use ringwave::{CloseCode, Policy, Rate, RateAnswer};
use std::str::FromStr;
use std::time::Duration;

/// A value, or `none`. (An `Option` would be a flag that may be left out.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Optional<T>(pub(crate) Option<T>);

impl<T> Optional<T> {
    fn read(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Self, String> {
        if text == "none" { Ok(Self(None)) } else { read(text).map(|value| Self(Some(value))) }
    }
}

/// A duration as people write it: 500ms, 30s, 1h 30m, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error} (write 500ms, 30s, 5m)")),
    }
}

/// A duration, or `none`.
pub(crate) fn optional_duration(text: &str) -> Result<Optional<Duration>, String> {
    Optional::read(text, duration)
}

/// A number of bytes: 4096, 64KiB, 16MiB.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let size = ByteSize::from_str(text).map_err(|_| "it is no size (write 4096, 64KiB, 16MiB)".to_owned())?;
    Ok(usize::try_from(size.as_u64()).unwrap_or(usize::MAX))
}

/// Most connections that can be asked for: more than a server takes.
const CONNECTIONS_MAX: u64 = 1 << 36;

/// A number of connections: 250000, 10k, 1m.
pub(crate) fn connections(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let count = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match count {
        Some(count @ 1..=CONNECTIONS_MAX) => Ok(count),
        Some(count) => Err(format!("{count} is not within 1 and {CONNECTIONS_MAX}")),
        None => Err("it is no number of connections (write 250000, 10k, 1m)".to_owned()),
    }
}

/// How many a second, and how many at once: `100`, `100/500`, or `none`.
pub(crate) fn count_rate(text: &str) -> Result<Optional<Rate>, String> {
    let count = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number up to {}", u32::MAX));
    Optional::read(text, |text| rate(text, count))
}

/// How many bytes a second, and how many at once: `64KiB`, `64KiB/1MiB`, or `none`.
pub(crate) fn byte_rate(text: &str) -> Result<Optional<Rate>, String> {
    let count = |text: &str| {
        let count = bytes(text)?;
        u32::try_from(count).map_err(|_| format!("{count} bytes are more than {}", u32::MAX))
    };
    Optional::read(text, |text| rate(text, count))
}

fn rate(text: &str, count: impl Fn(&str) -> Result<u32, String>) -> Result<Rate, String> {
    let rate = match text.split_once('/') {
        Some((per_second, burst)) => Rate { per_second: count(per_second)?, burst: count(burst)? },
        None => Rate::per_second(count(text)?),
    };
    if rate.per_second == 0 || rate.burst == 0 {
        return Err("a rate and its burst are 1 or more (none sets no limit)".to_owned());
    }
    Ok(rate)
}

/// `--slow-consumer`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SlowConsumer {
    Close,
    DropNew,
    DropOld,
    Conflate,
    PauseProducer,
}

impl From<SlowConsumer> for Policy {
    fn from(choice: SlowConsumer) -> Self {
        match choice {
            SlowConsumer::Close => Self::Close,
            SlowConsumer::DropNew => Self::DropNew,
            SlowConsumer::DropOld => Self::DropOld,
            SlowConsumer::Conflate => Self::Conflate,
            SlowConsumer::PauseProducer => Self::PauseProducer,
        }
    }
}

/// `--rate-answer`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RateChoice {
    Pause,
    Close,
}

impl From<RateChoice> for RateAnswer {
    fn from(choice: RateChoice) -> Self {
        match choice {
            RateChoice::Pause => Self::Pause,
            RateChoice::Close => Self::Close,
        }
    }
}

/// `--sysctl`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SysctlChoice {
    #[value(name = "10k")]
    TenThousand,
    #[value(name = "100k")]
    HundredThousand,
    #[value(name = "1m")]
    Million,
    Table,
}

impl SysctlChoice {
    /// The connections that a file is for; `None` for the table.
    pub(crate) const fn class(self) -> Option<Class> {
        match self {
            Self::TenThousand => Some(Class::TenThousand),
            Self::HundredThousand => Some(Class::HundredThousand),
            Self::Million => Some(Class::Million),
            Self::Table => None,
        }
    }
}

/// `--drain-code`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DrainCode {
    #[value(name = "1001")]
    GoingAway,
    #[value(name = "1012")]
    ServiceRestart,
}

impl DrainCode {
    /// What the close frames say.
    pub(crate) const fn code(self) -> (CloseCode, &'static str) {
        match self {
            Self::GoingAway => (CloseCode::GOING_AWAY, "the server shuts down"),
            Self::ServiceRestart => (CloseCode::SERVICE_RESTART, "the server restarts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("-1").is_err() && duration("soon").is_err() && duration("inf").is_err());
        assert_eq!(optional_duration("none"), Ok(Optional(None)));
    }

    #[test]
    fn a_rate_has_a_burst_of_a_second_unless_it_is_given() {
        let rate = |per_second, burst| Ok(Optional(Some(Rate { per_second, burst })));
        assert_eq!(count_rate("100"), rate(100, 100));
        assert_eq!(count_rate("100/5"), rate(100, 5));
        assert_eq!(byte_rate("64KiB/1MiB"), rate(65_536, 1 << 20));
        assert_eq!(byte_rate("none"), Ok(Optional(None)));
        for wrong in ["0", "1/0", "/", "1/", "-1", "1/2/3", "4294967296", "None", ""] {
            assert!(count_rate(wrong).is_err(), "{wrong}");
            assert!(byte_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn connections_are_counted_as_people_write_them() {
        assert_eq!(
            (connections("250000"), connections("10k"), connections("2M")),
            (Ok(250_000), Ok(10_000), Ok(2_000_000))
        );
        for wrong in ["", "0", "k", "-1", "1.5m", "10kk", "68719476737", "99999999999999999999"] {
            assert!(connections(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((bytes("4096"), bytes("64KiB"), bytes("1GiB")), (Ok(4096), Ok(65_536), Ok(1 << 30)));
        assert!(bytes("-1").is_err() && bytes("much").is_err() && bytes("").is_err());
    }
}
