//! Promises: `p99<5ms,errors==0`, read from a command line and held against a run.
//!
//! A promise about what was not measured does not hold.

use crate::report::metric::{METRICS, Metric};
use crate::report::model::{Assertion, Run};
use crate::report::quantity::Unit;
use std::fmt;
use std::str::FromStr;

/// One promise: a metric, an operator, a bound.
#[derive(Clone)]
pub(crate) struct Promise {
    metric: &'static Metric,
    operator: Operator,
    /// In the metric's unit.
    bound: f64,
    /// As it was written.
    bound_text: String,
}

/// Promises with commas between them; at least one.
#[derive(Clone)]
pub(crate) struct Promises(Vec<Promise>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Unequal,
}

/// The longer before those that they begin with.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<", Operator::Less),
    (">", Operator::More),
];

/// Between a run's label and the promise, where there are several runs.
const LABEL_END: &str = ": ";

const DURATIONS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9)];
const BYTES: [(&str, f64); 5] =
    [("", 1.0), ("B", 1.0), ("KiB", 1024.0), ("MiB", 1024.0 * 1024.0), ("GiB", 1024.0 * 1024.0 * 1024.0)];
const COUNTS: [(&str, f64); 3] = [("", 1.0), ("k", 1e3), ("M", 1e6)];
const PLAIN: [(&str, f64); 1] = [("", 1.0)];

impl Promise {
    /// What a run shows of it.
    pub(crate) fn check(&self, run: &Run) -> Assertion {
        let seen = (self.metric.of)(run).filter(|seen| seen.is_finite());
        let holds = seen.is_some_and(|seen| self.operator.holds(seen, self.bound));
        Assertion { text: self.to_string(), seen, holds }
    }
}

impl Promises {
    /// Whether a run keeps all of them.
    pub(crate) fn hold_on(&self, run: &Run) -> bool {
        self.0.iter().all(|promise| promise.check(run).holds)
    }

    /// What each run shows of each promise; of no run, that nothing was measured.
    pub(crate) fn check_all(&self, runs: &[&Run]) -> Vec<Assertion> {
        let unseen = |promise: &Promise| Assertion { text: promise.to_string(), seen: None, holds: false };
        match runs {
            [] => self.0.iter().map(unseen).collect(),
            [run] => self.0.iter().map(|promise| promise.check(run)).collect(),
            runs => {
                let labelled = |run: &Run, promise: &Promise| {
                    let assertion = promise.check(run);
                    Assertion { text: format!("{}{LABEL_END}{}", run.label, assertion.text), ..assertion }
                };
                runs.iter().flat_map(|run| self.0.iter().map(|promise| labelled(run, promise))).collect()
            }
        }
    }
}

/// The unit of what was seen of an assertion, by its text.
pub(crate) fn unit_of(assertion: &str) -> Option<Unit> {
    let promise = assertion.rsplit(LABEL_END).next()?.parse::<Promise>().ok()?;
    Some(promise.metric.unit)
}

impl Operator {
    fn holds(self, seen: f64, bound: f64) -> bool {
        match self {
            Self::Less => seen < bound,
            Self::AtMost => seen <= bound,
            Self::More => seen > bound,
            Self::AtLeast => seen >= bound,
            Self::Equal => seen == bound,
            Self::Unequal => seen != bound,
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator).map_or("", |(sign, _)| *sign);
        write!(f, "{}{sign}{}", self.metric.name, self.bound_text)
    }
}

impl fmt::Display for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, promise) in self.0.iter().enumerate() {
            write!(f, "{}{promise}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promise({self})")
    }
}

impl fmt::Debug for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Promises({self})")
    }
}

impl FromStr for Promises {
    /// Where the text is no promise, and why.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut promises = Vec::new();
        let mut column = 1;
        for part in text.split(',') {
            promises.push(Promise::at(column, part)?);
            column += part.chars().count() + 1;
        }
        Ok(Self(promises))
    }
}

impl FromStr for Promise {
    /// Where the text is no promise, and why.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::at(1, text)
    }
}

impl Promise {
    /// Of a text that begins at a column: name, operator and bound, with or without blanks around them.
    fn at(column: usize, text: &str) -> Result<Self, String> {
        let text = text.trim_end();
        let column_of = |rest: &str| column + text.chars().count() - rest.chars().count();
        let error = |rest: &str, reason: String| format!("column {}: {reason}", column_of(rest));
        let start = text.trim_start();
        let is_name = |c: char| c.is_alphanumeric() || c == '.' || c == '_';
        let (name, rest) = start.split_at(start.find(|c| !is_name(c)).unwrap_or(start.len()));
        if name.is_empty() {
            return Err(error(start, "a metric is missing, as in `p99<5ms`".to_owned()));
        }
        let metric = Metric::named(name).ok_or_else(|| error(start, unknown(name)))?;
        let rest = rest.trim_start();
        let Some((sign, operator)) = OPERATORS.into_iter().find(|(sign, _)| rest.starts_with(sign)) else {
            return Err(error(rest, format!("one of < <= > >= == != is missing after `{name}`")));
        };
        let bound_text = rest[sign.len()..].trim_start();
        let bound = bound(metric, bound_text).map_err(|reason| error(bound_text, reason))?;
        Ok(Self { metric, operator, bound, bound_text: bound_text.to_owned() })
    }
}

fn unknown(name: &str) -> String {
    let near = METRICS.iter().min_by_key(|metric| strsim::damerau_levenshtein(metric.name, name));
    let near = near.map_or("", |metric| metric.name);
    format!("there is no metric `{name}`; the nearest is `{near}`")
}

/// The bound of a metric in the metric's unit.
fn bound(metric: &Metric, text: &str) -> Result<f64, String> {
    let name = metric.name;
    let digits_end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    let number: f64 =
        digits.replace('_', "").parse().map_err(|_| format!("`{text}` is no number: `{name}` needs one"))?;
    let suffix = suffix.trim_start();
    let units: &[(&str, f64)] = match metric.unit {
        Unit::Duration => &DURATIONS,
        Unit::Bytes => &BYTES,
        Unit::Count => &COUNTS,
        Unit::Ratio | Unit::Flag => &PLAIN,
    };
    if let Some((_, factor)) = units.iter().find(|(unit, _)| *unit == suffix) {
        let bound = number * factor;
        return match metric.unit {
            Unit::Flag if bound != 0.0 && bound != 1.0 => Err(format!("`{name}` is 0 or 1, not {number}")),
            _ => Ok(bound),
        };
    }
    let known: Vec<&str> = units.iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
    Err(match (suffix.is_empty(), known.is_empty()) {
        (true, _) => format!("`{name}` is a duration and needs a unit: `{digits}ms`?"),
        (false, true) => format!("`{name}` has no unit: `{digits}`, not `{digits}{suffix}`"),
        (false, false) => format!("`{suffix}` is no unit of `{name}`: it has {}", known.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, Shape};

    fn run() -> Run {
        sample::full().0.runs.remove(1)
    }

    #[test]
    fn promises_are_held_against_what_was_seen() {
        let mut run = run();
        run.latency.p99_ns = 5_000_000;
        run.received_per_s = 40_000.0;
        for (text, holds) in [
            ("p99<5ms", false),
            ("p99<=5ms", true),
            ("p99 <= 5000 us", true),
            ("p99<=5000µs", true),
            ("p99==0.005s", true),
            ("p99>4_999_999ns", true),
            ("p99<1m", true),
            ("rate>=40k", true),
            ("rate>0.04M", false),
            ("errors==0", false),
            ("lost==3", true),
            ("lost!=3", false),
            ("duplicated==0", true),
            ("connections>=200", true),
            ("server_rss<8MiB", true),
            ("server_rss<7512064", false),
            ("server_bytes_per_connection<1GiB", true),
            ("server_cpu<=1.5", true),
            ("rate_per_server_cpu>1k", true),
            ("client_cpu<1", true),
            ("client_limit==0", true),
        ] {
            let promise: Promise = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let assertion = promise.check(&run);
            assert_eq!(assertion.holds, holds, "{text}: {:?} seen", assertion.seen);
            assert!(assertion.seen.is_some(), "{text}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_kept() {
        let mut run = run();
        run.server = None;
        run.received = 0;
        for text in ["p99<1m", "p99>0ns", "p99!=1s", "max<1m", "server_rss<1GiB", "server_cpu<9"] {
            let assertion = text.parse::<Promise>().expect("a promise").check(&run);
            assert_eq!((assertion.seen, assertion.holds), (None, false), "{text}");
        }
    }

    #[test]
    fn errors_say_where_and_what_instead() {
        for (text, error) in [
            ("", "column 1: a metric is missing, as in `p99<5ms`"),
            ("p99<5ms,", "column 9: a metric is missing, as in `p99<5ms`"),
            ("p99<5ms, eror==0", "column 10: there is no metric `eror`; the nearest is `errors`"),
            ("p9<5ms", "column 1: there is no metric `p9`; the nearest is `p90`"),
            ("p99=5ms", "column 4: one of < <= > >= == != is missing after `p99`"),
            ("p99", "column 4: one of < <= > >= == != is missing after `p99`"),
            ("p99<5", "column 5: `p99` is a duration and needs a unit: `5ms`?"),
            ("p99<5 mss", "column 5: `mss` is no unit of `p99`: it has ns, us, µs, μs, ms, s, m"),
            ("p99<", "column 5: `` is no number: `p99` needs one"),
            ("p99<-5ms", "column 5: `-5ms` is no number: `p99` needs one"),
            ("p99<1.2.3ms", "column 5: `1.2.3ms` is no number: `p99` needs one"),
            ("rate>10kk", "column 6: `kk` is no unit of `rate`: it has k, M"),
            ("server_rss<1KB", "column 12: `KB` is no unit of `server_rss`: it has B, KiB, MiB, GiB"),
            ("server_cpu<150%", "column 12: `server_cpu` has no unit: `150`, not `150%`"),
            ("client_limit==2", "column 15: `client_limit` is 0 or 1, not 2"),
        ] {
            let seen = text.parse::<Promises>().expect_err(text);
            assert_eq!(seen, error, "{text}");
        }
    }

    #[test]
    fn a_list_is_written_as_it_was_read() {
        let promises: Promises = " p99 < 5 ms,errors==0 , rate>=1.5M".parse().expect("promises");
        assert_eq!(promises.to_string(), "p99<5 ms,errors==0,rate>=1.5M");
        assert_eq!(promises.to_string().parse::<Promises>().expect("promises").to_string(), promises.to_string());
        let texts: Vec<String> = promises.check_all(&[&run()]).into_iter().map(|assertion| assertion.text).collect();
        assert_eq!(texts, ["p99<5 ms", "errors==0", "rate>=1.5M"]);
    }

    #[test]
    fn several_runs_are_told_apart_and_no_run_keeps_nothing() {
        let report = sample::full().0;
        let promises: Promises = "p99<1ms,errors==0".parse().expect("promises");
        let runs: Vec<&Run> = report.runs.iter().collect();
        let assertions = promises.check_all(&runs[..2]);
        let texts: Vec<(&str, bool)> = assertions.iter().map(|one| (one.text.as_str(), one.holds)).collect();
        let expected = [
            ("20 000/s: p99<1ms", true),
            ("20 000/s: errors==0", true),
            ("40 000/s: p99<1ms", true),
            ("40 000/s: errors==0", false),
        ];
        assert_eq!(texts, expected);
        assert!(promises.hold_on(runs[0]) && !promises.hold_on(runs[1]));
        assert!(promises.check_all(&[]).iter().all(|one| !one.holds && one.seen.is_none()));
    }

    #[test]
    fn any_text_is_a_promise_or_an_error() {
        for text in [",", ",,", "<", "µ", "p99<µs", "p99<1µ", "p99.<1ms", "\u{0}", "é<1", "p99<\u{a0}5ms"] {
            // Only that it answers.
            drop(text.parse::<Promises>());
        }
    }

    #[test]
    fn the_unit_of_an_assertion_is_its_metrics() {
        assert_eq!(unit_of("p99<5ms"), Some(Unit::Duration));
        assert_eq!(unit_of("step 2: server_rss<1MiB"), Some(Unit::Bytes));
        assert_eq!(unit_of("whatever"), None);
    }

    #[test]
    fn a_run_without_connections_in_its_series_has_none() {
        let run = sample::report("echo", &[sample::run(Shape { seconds: 0, ..Shape::default() })]).runs.remove(0);
        assert!(!"connections>=0".parse::<Promise>().expect("a promise").check(&run).holds);
    }
}
