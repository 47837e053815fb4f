//! Compares the reports of two sides, A and B: the same load on two servers, or on one before and after a change.
//!
//! Runs are paired by label and order. A ratio is that of the medians; beside it stands the spread of the ratios of the
//! pairs, and whether it says anything: by the clock, a quarter more or less is noise unless the rounds agree closely.

use crate::report::metric::Metric;
use crate::report::model::{Report, Run, SCHEMA};
use crate::report::quantity::{NOTHING, Unit, significant};
use crate::report::rows::{Cells, Grid, Row};
use crate::report::{at, over, table};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What is noise, for times and rates.
const NOISE: std::ops::RangeInclusive<f64> = 0.8..=1.25;
/// The greatest ratio of a pair over the least, where the rounds agree closely.
const TIGHT: f64 = 1.05;
/// Rounds below which agreement is an accident.
const ROUNDS_MIN: usize = 3;
/// Labels that are named, of those that only one side has.
const LABELS_NAMED_MAX: usize = 8;

/// A metric that is compared, whether more of it is better, and whether it is taken by the clock.
type Compared = (&'static str, bool, bool);
const COMPARED: [Compared; 9] = [
    ("rate", true, true),
    ("rate_per_server_cpu", true, false),
    ("p50", false, true),
    ("p99", false, true),
    ("p99.9", false, true),
    ("max", false, true),
    ("server_rss", false, false),
    ("server_bytes_per_connection", false, false),
    ("errors", false, false),
];

/// Figures of a report rather than of a run: name, unit, whether more is better, the figure.
type Whole = (&'static str, Unit, bool, fn(&Report) -> Option<f64>);
const WHOLE: [Whole; 3] = [
    ("rate found", Unit::Count, true, |report| report.found.as_ref()?.rate_per_s),
    ("server, each held", Unit::Bytes, false, |report| report.held.as_ref()?.server_bytes_per_connection_held),
    ("p99, some stalled", Unit::Ratio, false, |report| report.stalled.as_ref()?.p99_ratio),
];

/// Prints how B differs from A. Fails where a file is no report that this version knows.
pub(crate) fn run(a: &[PathBuf], b: &[PathBuf]) -> io::Result<()> {
    let [a, b] = [Side::read("A", a)?, Side::read("B", b)?];
    io::stdout().lock().write_all(table::spaced(&text(&a, &b)).as_bytes())
}

struct Side {
    name: &'static str,
    files: Vec<(PathBuf, Report)>,
}

impl Side {
    fn read(name: &'static str, paths: &[PathBuf]) -> io::Result<Self> {
        let files = paths.iter().map(|path| Ok((path.clone(), read(path)?))).collect::<io::Result<_>>()?;
        Ok(Self { name, files })
    }

    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.files.iter().map(|(_, report)| report)
    }

    /// By what they are, in the order of their first; rounds in order.
    fn runs(&self) -> Vec<(&str, Vec<&Run>)> {
        let mut groups: Vec<(&str, Vec<&Run>)> = Vec::new();
        for run in self.reports().flat_map(|report| &report.runs) {
            let name = group_of(&run.label);
            match groups.iter_mut().find(|(group, _)| *group == name) {
                Some((_, runs)) => runs.push(run),
                None => groups.push((name, vec![run])),
            }
        }
        groups
    }
}

fn read(path: &Path) -> io::Result<Report> {
    let text = fs::read_to_string(path).map_err(|error| at(path, &error))?;
    parse(&text).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", path.display())))
}

fn parse(text: &str) -> Result<Report, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    match value.get("schema").and_then(Value::as_str) {
        Some(SCHEMA) => serde_json::from_value(value).map_err(|error| format!("no report of `{SCHEMA}`: {error}")),
        Some(other) => Err(format!("its schema is `{other}`, and this version reads `{SCHEMA}`")),
        None => Err(format!("no report: it has no `schema`, which would be `{SCHEMA}`")),
    }
}

/// Repetitions are rounds of one thing: `measured 2` is `measured`.
fn group_of(label: &str) -> &str {
    match label.rsplit_once(' ') {
        Some(("measured", number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => "measured",
        _ => label,
    }
}

fn text(a: &Side, b: &Side) -> String {
    let mut text: String = [a, b].map(title).concat();
    text.push('\n');
    for doubt in differences(a, b).into_iter().chain(limits(a)).chain(limits(b)).chain(unpaired(a, b)) {
        text += &format!("! {doubt}\n");
    }
    for grid in grids(a, b) {
        let lines = table::grid(&grid);
        text.push('\n');
        text.extend(lines.lines().flat_map(|line| [line.trim_end(), "\n"]));
    }
    text += "\n  B/A: of the medians. spread: the ratios of the pairs. By the clock, 0.8 to 1.25 may be noise unless the\n  \
             spread is at most 5 % in three rounds or more.\n";
    text
}

fn title(side: &Side) -> String {
    let names: Vec<String> = side.files.iter().map(|(path, _)| path.display().to_string()).collect();
    let loads: BTreeSet<String> = side.reports().map(|report| format!("{} {}", report.scenario, report.url)).collect();
    let loads: Vec<String> = loads.into_iter().collect();
    format!("{}  {}  ({})\n", side.name, loads.join("; "), names.join(", "))
}

/// What the reports were made with that is not the same in all.
fn differences(a: &Side, b: &Side) -> Vec<String> {
    let [of_a, of_b] = [circumstances(a), circumstances(b)];
    let names: BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
    let values = |of: &BTreeMap<String, BTreeSet<String>>, name: &str| -> String {
        of.get(name)
            .map_or_else(|| NOTHING.to_owned(), |values| values.iter().cloned().collect::<Vec<_>>().join(" or "))
    };
    let differs = |name: &&String| of_a.get(*name) != of_b.get(*name) || of_a.get(*name).is_some_and(|of| of.len() > 1);
    let line = |name: &String| format!("{name} differs: A {}, B {}", values(&of_a, name), values(&of_b, name));
    names.into_iter().filter(differs).map(line).collect()
}

/// Name and values of all that the reports of a side were made with.
fn circumstances(side: &Side) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for report in side.reports() {
        let parts = [
            ("scenario", Value::from(report.scenario.as_str())),
            ("ringload", Value::from(report.ringload.as_str())),
            ("setup", serde_json::to_value(&report.setup).unwrap_or_default()),
            ("machine", serde_json::to_value(&report.machine).unwrap_or_default()),
        ];
        for (name, value) in parts {
            let fields = value.as_object().map(|fields| fields.iter().map(|(key, value)| (key.clone(), value.clone())));
            match fields {
                Some(fields) => fields.for_each(|(key, value)| {
                    all.entry(format!("{name}.{key}")).or_default().insert(plain(&value));
                }),
                None => {
                    all.entry(name.to_owned()).or_default().insert(plain(&value));
                }
            }
        }
    }
    all
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Where the client was the limit on this side, in a line.
fn limits(side: &Side) -> Option<String> {
    let limited = |(path, report): &(PathBuf, Report)| {
        let labels = report.runs.iter().filter(|run| run.client.limit.is_some()).map(|run| run.label.as_str());
        let labels = labels.collect::<Vec<_>>().join(", ");
        (!labels.is_empty()).then(|| format!("{}: {labels}", path.display()))
    };
    let files: Vec<String> = side.files.iter().filter_map(limited).collect();
    (!files.is_empty()).then(|| format!("the client was the limit in {} ({})", side.name, files.join("; ")))
}

/// What has no partner on the other side.
fn unpaired(a: &Side, b: &Side) -> Vec<String> {
    let [of_a, of_b] = [a.runs(), b.runs()];
    let rounds = |of: &[(&str, Vec<&Run>)], name: &str| {
        of.iter().find(|(group, _)| *group == name).map_or(0, |(_, runs)| runs.len())
    };
    let mut lines = Vec::new();
    for (side, own, other) in [(a.name, &of_a, &of_b), (b.name, &of_b, &of_a)] {
        let alone: Vec<&str> = own.iter().map(|(name, _)| *name).filter(|name| rounds(other, name) == 0).collect();
        if !alone.is_empty() {
            let more = alone.len().saturating_sub(LABELS_NAMED_MAX);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = &alone[..alone.len() - more];
            lines.push(format!("only {side} has {}{rest}", named.join(", ")));
        }
    }
    for (name, runs) in &of_a {
        let other = rounds(&of_b, name);
        if other > 0 && other != runs.len() {
            lines.push(format!("{name} has {} rounds in A and {other} in B: the rest has no pair", runs.len()));
        }
    }
    lines
}

/// A table for each pair of groups, and one for what belongs to whole reports.
fn grids(a: &Side, b: &Side) -> Vec<Grid> {
    let of_b = b.runs();
    let mut grids = Vec::new();
    for (name, of_a) in a.runs() {
        let Some((_, of_b)) = of_b.iter().find(|(group, _)| *group == name) else { continue };
        let limited = of_a.iter().chain(of_b).any(|run| run.client.limit.is_some());
        let rows = COMPARED.iter().filter_map(|(metric, more_is_better, by_clock)| {
            let metric = Metric::named(metric)?;
            let seen = |runs: &[&Run]| runs.iter().map(|run| (metric.of)(run)).collect::<Vec<_>>();
            let comparison = Comparison::of(&seen(&of_a), &seen(of_b))?;
            let judgement = if limited && *by_clock {
                "the client was the limit".to_owned()
            } else {
                comparison.judgement(*more_is_better, *by_clock)
            };
            Some(comparison.row(metric.name, metric.unit, judgement))
        });
        grids.extend(grid(name, rows.collect()));
    }
    let rows = WHOLE.iter().filter_map(|(name, unit, more_is_better, of)| {
        let seen = |side: &Side| side.reports().map(of).collect::<Vec<_>>();
        let comparison = Comparison::of(&seen(a), &seen(b))?;
        Some(comparison.row(name, *unit, comparison.judgement(*more_is_better, true)))
    });
    grids.extend(grid("whole", rows.collect()));
    grids
}

fn grid(name: &str, mut rows: Vec<Row>) -> Option<Grid> {
    let heads = ["A", "B", "B/A", "spread", "rounds", ""];
    // Words stand left.
    let last = |row: &Row| if let Cells::Figures(cells) = &row.cells { cells.last().cloned() } else { None };
    let width = rows.iter().filter_map(last).map(|word| word.chars().count()).max()?;
    for row in &mut rows {
        if let Cells::Figures(cells) = &mut row.cells
            && let Some(word) = cells.last_mut()
        {
            *word = format!("{word:width$}");
        }
    }
    Some(Grid { head: [name].into_iter().chain(heads).map(str::to_owned).collect(), rows })
}

/// A figure on both sides.
struct Comparison {
    median_a: f64,
    median_b: f64,
    ratio: Option<f64>,
    /// Least and greatest ratio of a pair.
    spread: Option<(f64, f64)>,
    rounds: usize,
}

impl Comparison {
    /// Of the rounds of which both sides know the figure; none without any.
    fn of(a: &[Option<f64>], b: &[Option<f64>]) -> Option<Self> {
        let pairs: Vec<(f64, f64)> = a.iter().zip(b).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
        let median_a = median(pairs.iter().map(|pair| pair.0))?;
        let median_b = median(pairs.iter().map(|pair| pair.1))?;
        let ratios: Option<Vec<f64>> = pairs.iter().map(|(a, b)| over(*b, *a)).collect();
        let spread = ratios.map(|ratios| {
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            (least, ratios.iter().copied().fold(0.0, f64::max))
        });
        Some(Self { median_a, median_b, ratio: over(median_b, median_a), spread, rounds: pairs.len() })
    }

    /// What the ratio says.
    fn judgement(&self, more_is_better: bool, by_clock: bool) -> String {
        if self.median_a == self.median_b {
            return "equal".to_owned();
        }
        let better = if (self.median_b > self.median_a) == more_is_better { "better" } else { "worse" };
        let (Some(ratio), Some((least, greatest))) = (self.ratio, self.spread) else { return better.to_owned() };
        let agree = least > 1.0 || greatest < 1.0;
        let tight = agree && self.rounds >= ROUNDS_MIN && greatest <= least * TIGHT;
        let small = NOISE.contains(&ratio);
        match self.rounds {
            1 if small => "one round: may be noise".to_owned(),
            1 => format!("{better}, but one round"),
            _ if !agree => "within the spread".to_owned(),
            _ if by_clock && small && !tight => "may be noise".to_owned(),
            _ => better.to_owned(),
        }
    }

    fn row(&self, name: &str, unit: Unit, judgement: String) -> Row {
        let ratio = |ratio: f64| format!("{ratio:.3}");
        let spread = self.spread.filter(|_| self.rounds > 1);
        let cells = vec![
            unit.show(self.median_a),
            unit.show(self.median_b),
            self.ratio.map_or_else(|| NOTHING.to_owned(), ratio),
            spread.map_or_else(|| NOTHING.to_owned(), |(least, most)| format!("{} … {}", ratio(least), ratio(most))),
            significant(self.rounds as f64),
            judgement,
        ];
        Row { label: name.to_owned(), cells: Cells::Figures(cells) }
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::json;
    use crate::report::sample::{self, Shape};

    fn side(name: &'static str, reports: Vec<Report>) -> Side {
        Side { name, files: reports.into_iter().map(|report| (PathBuf::from("x.json"), report)).collect() }
    }

    fn echo(shapes: &[Shape]) -> Report {
        sample::report("echo", &shapes.iter().map(|shape| sample::run(*shape)).collect::<Vec<_>>())
    }

    fn short(label: &'static str, rate: u64) -> Shape {
        Shape { label, seconds: 1, rate, ..Shape::default() }
    }

    fn words(of: &[(f64, f64)], more_is_better: bool, by_clock: bool) -> String {
        let (a, b): (Vec<_>, Vec<_>) = of.iter().map(|(a, b)| (Some(*a), Some(*b))).unzip();
        Comparison::of(&a, &b).expect("there are pairs").judgement(more_is_better, by_clock)
    }

    #[test]
    fn a_ratio_says_something_only_where_the_rounds_do() {
        for (pairs, more_is_better, by_clock, expected) in [
            (&[(100.0, 100.0)][..], true, true, "equal"),
            (&[(0.0, 0.0)], false, false, "equal"),
            (&[(0.0, 4.0)], false, false, "worse"),
            (&[(100.0, 120.0)], true, true, "one round: may be noise"),
            (&[(100.0, 300.0)], true, true, "better, but one round"),
            (&[(100.0, 300.0), (100.0, 90.0)], true, true, "within the spread"),
            (&[(100.0, 110.0), (100.0, 120.0), (100.0, 115.0)], true, true, "may be noise"),
            (&[(100.0, 114.0), (100.0, 116.0), (100.0, 115.0)], true, true, "better"),
            (&[(100.0, 114.0), (100.0, 116.0), (100.0, 115.0)], false, true, "worse"),
            (&[(100.0, 110.0), (100.0, 120.0), (100.0, 115.0)], true, false, "better"),
            (&[(100.0, 250.0), (100.0, 180.0)], true, true, "better"),
        ] {
            assert_eq!(words(pairs, more_is_better, by_clock), expected, "{pairs:?}");
        }
    }

    #[test]
    fn the_ratio_is_of_medians_and_the_spread_of_pairs() {
        let of = |values: &[f64]| values.iter().map(|value| Some(*value)).collect::<Vec<_>>();
        let comparison = Comparison::of(&of(&[1.0, 2.0, 4.0]), &of(&[2.0, 2.0, 2.0])).expect("pairs");
        assert_eq!((comparison.ratio, comparison.spread), (Some(1.0), Some((0.5, 2.0))));
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.5));
        assert!(Comparison::of(&[None], &of(&[1.0])).is_none());
    }

    #[test]
    fn repetitions_are_rounds_and_files_are_too() {
        let a = side("A", vec![echo(&[short("measured 1", 20_000), short("measured 2", 20_000)])]);
        let b = side("B", vec![echo(&[short("measured", 60_000)]), echo(&[short("measured", 60_000)])]);
        let text = text(&a, &b);
        let rate = text.lines().find(|line| line.trim_start().starts_with("rate ")).expect("a row");
        assert!(rate.ends_with("better"), "{rate}");
        assert!(rate.contains(" 2  "), "{rate}");
        assert!(!text.contains('!'), "{text}");
    }

    #[test]
    fn what_differs_and_what_is_alone_is_said() {
        let mut other = echo(&[short("20000/s", 20_000), short("b", 20_000)]);
        other.setup.connections = 7;
        other.machine.kernel = "5.4.1".to_owned();
        let a = side("A", vec![echo(&[short("20000/s", 20_000), short("a", 20_000)])]);
        let text = text(&a, &side("B", vec![other]));
        for expected in [
            "! setup.connections differs: A 200, B 7",
            "! machine.kernel differs: A 6.18.5, B 5.4.1",
            "! only A has a",
            "! only B has b",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn figures_that_the_client_limited_are_not_judged() {
        let limited = Shape { limit: Some("its busiest thread was full"), ..short("measured", 90_000) };
        let a = side("A", vec![echo(&[short("measured", 20_000)])]);
        let text = text(&a, &side("B", vec![echo(&[limited])]));
        assert!(text.contains("! the client was the limit in B (x.json: measured)"), "{text}");
        let judged: Vec<&str> = text.lines().filter(|line| line.ends_with("the client was the limit")).collect();
        assert_eq!(judged.len(), 5, "{text}");
    }

    #[test]
    fn searches_are_compared_by_what_they_found() {
        let found = |rate| {
            let mut report = sample::full().0;
            report.found.as_mut().expect("it is full").rate_per_s = Some(rate);
            report
        };
        let text = text(&side("A", vec![found(10_000.0)]), &side("B", vec![found(30_000.0)]));
        let line = text.lines().find(|line| line.contains("rate found")).expect("a row");
        assert!(line.contains("3.000") && line.ends_with("better, but one round"), "{line}");
    }

    #[test]
    fn only_this_schema_is_read_and_new_fields_are_passed_over() {
        let text = json(&sample::full().0).expect("it can be written");
        let newer = text.replacen("\"schema\"", "\"invented\": {\"later\": [1]}, \"schema\"", 1);
        assert_eq!(parse(&newer).expect("it is read").runs.len(), 3);
        for (text, expected) in [
            (text.replacen("ringload/1", "ringload/2", 1), "its schema is `ringload/2`"),
            ("{}".to_owned(), "no report: it has no `schema`"),
            ("{".to_owned(), "no JSON: "),
            ("{\"schema\": \"ringload/1\"}".to_owned(), "no report of `ringload/1`: missing field"),
        ] {
            let error = parse(&text).expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
        let error = read(Path::new("/nowhere.json")).expect_err("there is none");
        assert!(error.to_string().starts_with("/nowhere.json: "), "{error}");
    }
}
