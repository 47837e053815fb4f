//! The date that answers carry (RFC 9110 §6.6.1), written anew at most once a second.

use crate::base::clock::Time;
use std::time::{Duration, SystemTime};

/// How long a date is good for: it names seconds.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Its length: `Sun, 06 Nov 1994 08:49:37 GMT`.
const BYTES: usize = 29;

/// A date as a header line has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpDate([u8; BYTES]);

impl HttpDate {
    fn of(time: SystemTime) -> Self {
        let text = httpdate::fmt_http_date(time);
        Self(text.as_bytes().try_into().unwrap_or([b' '; BYTES]))
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The date of this second.
#[derive(Debug, Default)]
pub(super) struct Dates {
    written: Option<(Time, HttpDate)>,
    /// The time is the shard's, from 1970 on: the same history has the same dates.
    #[cfg(feature = "simulation")]
    is_simulated: bool,
}

impl Dates {
    #[cfg(feature = "simulation")]
    pub(super) fn of_the_shards_clock() -> Self {
        Self { written: None, is_simulated: true }
    }

    /// The date at a time of the shard's clock, at most a second old.
    pub(super) fn at(&mut self, now: Time) -> HttpDate {
        match self.written {
            Some((at, date)) if now - at < GOOD_FOR => date,
            _ => {
                let date = HttpDate::of(self.system_time(now));
                self.written = Some((now, date));
                date
            }
        }
    }

    fn system_time(&self, now: Time) -> SystemTime {
        #[cfg(feature = "simulation")]
        if self.is_simulated {
            return SystemTime::UNIX_EPOCH + Duration::from_nanos(now.as_nanos());
        }
        let _ = now;
        SystemTime::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_rfc_9110_wants_it() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(HttpDate::of(time).as_str(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_date_is_kept_for_a_second() {
        let mut dates = Dates::default();
        let first = dates.at(Time::from_nanos(5)).0;
        dates.written = Some((Time::from_nanos(5), HttpDate([b'x'; BYTES])));
        assert_eq!(dates.at(Time::from_nanos(999_999_999)).as_str(), "x".repeat(BYTES));
        assert!(dates.at(Time::from_nanos(1_000_000_005)).as_str().ends_with(" GMT") && first.ends_with(b" GMT"));
    }
}
