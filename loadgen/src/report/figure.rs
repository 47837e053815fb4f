//! Which plots a report has, and which lines they show.
//!
//! Over time, several runs stand one after another; by percentile they lie over each other; if they were offered
//! different rates there are plots by rate as well.

use super::model::{Interval, Report, Run};
use super::plot::{Axis, Band, Line, Plot, Style, colour};
use super::quantity::{NO_BREAK, short};
use super::{decode_histogram, rows};

/// Points of a line over time at most; more seconds than that are drawn together.
const POINTS_MAX: usize = 600;
/// Distance of the points by percentile.
const NINES_STEP: f64 = 0.02;
/// An interval shorter than this share of the first is too short for a rate: the rest at the end of a run.
const REST_MAX: f64 = 0.25;

pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) plot: Plot,
    pub(crate) note: Option<String>,
}

pub(crate) fn figures(report: &Report) -> Vec<Figure> {
    let mut figures: Vec<Figure> = by_percentile(report).into_iter().chain(by_rate(report)).collect();
    let time = Time::of(report);
    if time.end > 0.0 {
        figures.extend(over_time(report, &time));
    }
    figures
}

fn by_percentile(report: &Report) -> Option<Figure> {
    let many = report.runs.len();
    let (mut lines, mut values, mut lowest, mut highest) = (Vec::new(), 0, f64::INFINITY, 0f64);
    for (index, run) in by_offered(report).into_iter().enumerate() {
        let Some(histogram) = decode_histogram(&run.histogram).filter(|histogram| !histogram.is_empty()) else {
            continue;
        };
        let (from, to) = Axis::percentile(histogram.len()).ends();
        let count = ((to - from) / NINES_STEP).floor() as u32;
        let points: Vec<(f64, f64)> = (0..=count)
            .map(|step| from + f64::from(step) * NINES_STEP)
            .chain([to])
            .map(|nines| (nines, histogram.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64))
            .collect();
        values = values.max(histogram.len());
        lowest = points.iter().map(|point| point.1).fold(lowest, f64::min);
        highest = points.iter().map(|point| point.1).fold(highest, f64::max);
        let limited = run.client.limit.is_some();
        let name = if limited { format!("{} (client was the limit)", run.label) } else { run.label.clone() };
        let style = if limited { Style::Dashed } else { Style::Solid };
        lines.push(Line { name, colour: colour(index, many), style, points: vec![points] });
    }
    (!lines.is_empty()).then(|| Figure {
        title: "Latency by percentile".to_owned(),
        plot: Plot { x: Axis::percentile(values), y: Axis::latency(lowest, highest), lines, bands: Vec::new() },
        note: None,
    })
}

/// By offered rate where there is one, else in their order.
fn by_offered(report: &Report) -> Vec<&Run> {
    let mut runs: Vec<&Run> = report.runs.iter().collect();
    let offered = |run: &Run| run.offered_per_s.unwrap_or(0.0);
    runs.sort_by(|one, other| offered(one).total_cmp(&offered(other)));
    runs
}

/// A latency of a run.
type Nanos = fn(&Run) -> u64;

/// Latency and what was answered by what was offered; none unless at least two rates were.
fn by_rate(report: &Report) -> Vec<Figure> {
    let offered = |run: &Run| run.offered_per_s.filter(|rate| *rate > 0.0);
    let runs: Vec<(f64, &Run)> = by_offered(report).into_iter().filter_map(|run| Some((offered(run)?, run))).collect();
    let (Some(&(low, _)), Some(&(high, _))) = (runs.first(), runs.last()) else { return Vec::new() };
    if high <= low * 1.001 {
        return Vec::new();
    }
    let noun = rows::noun(&report.scenario);
    let line = |name: &str, index: usize, limited: bool, of: &dyn Fn(&Run) -> Option<f64>| {
        let of_these = runs.iter().filter(|(_, run)| run.client.limit.is_some() == limited);
        let points: Vec<(f64, f64)> = of_these.filter_map(|(offered, run)| Some((*offered, of(run)?))).collect();
        let style = if limited { Style::Rings } else { Style::Dotted };
        Line { name: name.to_owned(), colour: colour(index, 8), style, points: vec![points] }
    };
    let times: [(&str, Nanos); 4] = [
        ("p50", |run| run.latency.p50_ns),
        ("p99", |run| run.latency.p99_ns),
        ("p99.9", |run| run.latency.p999_ns),
        ("max", |run| run.latency.max_ns),
    ];
    let seen = |of: Nanos| move |run: &Run| (run.latency.count > 0).then(|| of(run) as f64);
    let limited = runs.iter().any(|(_, run)| run.client.limit.is_some());
    let mut latencies: Vec<Line> =
        times.iter().enumerate().map(|(index, (name, of))| line(name, index, false, &seen(*of))).collect();
    let mut answered = vec![line("answered", 0, false, &|run| Some(run.received_per_s))];
    if limited {
        // One name for the rings of all.
        let rings = times.iter().enumerate().map(|(index, (_, of))| line("", index, true, &seen(*of)));
        latencies.extend(rings);
        answered.push(line("", 0, true, &|run| Some(run.received_per_s)));
    }
    let diagonal = vec![vec![(low, low), (high, high)]];
    answered.push(Line { name: "offered".to_owned(), colour: colour(7, 8), style: Style::Dashed, points: diagonal });
    let note = limited.then(|| "Rings: the client was the limit, not the server.".to_owned());
    let x = Axis::rate(low, high);
    let mut figures = Vec::new();
    if let Some((least, most)) = extent(&latencies) {
        figures.push(Figure {
            title: format!("Latency by offered {noun}/s"),
            plot: Plot { x: x.clone(), y: Axis::latency(least, most), lines: latencies, bands: Vec::new() },
            note: note.clone(),
        });
    }
    let (least, most) = extent(&answered).unwrap_or((0.0, 0.0));
    figures.push(Figure {
        title: format!("Answered by offered {noun}/s"),
        plot: Plot { x, y: Axis::rate(least, most), lines: answered, bands: Vec::new() },
        note,
    });
    figures
}

/// The lowest and the highest value of all lines.
fn extent(lines: &[Line]) -> Option<(f64, f64)> {
    let values = || lines.iter().flat_map(|line| line.points.iter().flatten().map(|point| point.1));
    values().next()?;
    Some((values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max)))
}

/// The runs one after another, and their seconds drawn together where there are too many.
struct Time {
    /// When each run begins.
    starts: Vec<f64>,
    intervals: Vec<Vec<Interval>>,
    end: f64,
    /// Seconds that are drawn as one.
    together: usize,
}

impl Time {
    fn of(report: &Report) -> Self {
        let count: usize = report.runs.iter().map(|run| run.intervals.len()).sum();
        let together = count.div_ceil(POINTS_MAX).max(1);
        let mut time = Self { starts: Vec::new(), intervals: Vec::new(), end: 0.0, together };
        for run in &report.runs {
            time.starts.push(time.end);
            let last = run.intervals.last().map_or(0.0, |last| last.start_s + last.length_s);
            time.end += last.max(run.elapsed_s);
            time.intervals.push(run.intervals.chunks(together).filter_map(merged).collect());
        }
        time
    }

    fn bands(&self, report: &Report) -> Vec<Band> {
        let band = |(run, start): (&Run, &f64)| Band { start: *start, label: run.label.clone() };
        report.runs.iter().zip(&self.starts).map(band).collect()
    }

    /// A stretch for each run, or more where `of` has no value. A value stands in the middle of its interval.
    fn line(&self, name: &str, index: usize, of: fn(&Interval) -> Option<f64>) -> Line {
        let mut points = Vec::new();
        for (intervals, start) in self.intervals.iter().zip(&self.starts) {
            for stretch in intervals.split(|interval| of(interval).is_none()) {
                let middle = |interval: &Interval| start + interval.start_s + interval.length_s / 2.0;
                points.push(stretch.iter().filter_map(|interval| Some((middle(interval), of(interval)?))).collect());
            }
        }
        Line { name: name.to_owned(), colour: colour(index, 8), style: Style::Solid, points }
    }
}

/// One interval of many: sums of counts, the worst of latencies.
fn merged(intervals: &[Interval]) -> Option<Interval> {
    let mut whole = intervals.first()?.clone();
    for next in &intervals[1..] {
        whole.length_s = next.start_s + next.length_s - whole.start_s;
        whole.sent += next.sent;
        whole.received += next.received;
        whole.errors += next.errors;
        whole.connections = whole.connections.min(next.connections);
        whole.p50_ns = whole.p50_ns.max(next.p50_ns);
        whole.p99_ns = whole.p99_ns.max(next.p99_ns);
        whole.max_ns = whole.max_ns.max(next.max_ns);
    }
    whole.received_per_s = super::over(whole.received as f64, whole.length_s).unwrap_or(0.0);
    Some(whole)
}

fn over_time(report: &Report, time: &Time) -> Vec<Figure> {
    let noun = rows::noun(&report.scenario);
    let figure = |title: String, y: Axis, lines: Vec<Line>| Figure {
        title,
        plot: Plot { x: Axis::time(time.end), y, lines, bands: time.bands(report) },
        note: note(report, time),
    };
    let mut figures = Vec::new();
    let rates = rates(report, time);
    if let Some((_, most)) = extent(&rates).filter(|(_, most)| *most > 0.0) {
        figures.push(figure(format!("{noun}/s over time"), Axis::from_zero(most, short), rates));
    }
    let latencies = vec![
        time.line("p50", 0, |interval| (interval.max_ns > 0).then_some(interval.p50_ns as f64)),
        time.line("p99", 1, |interval| (interval.max_ns > 0).then_some(interval.p99_ns as f64)),
        time.line("max", 3, |interval| (interval.max_ns > 0).then_some(interval.max_ns as f64)),
    ];
    if let Some((least, most)) = extent(&latencies) {
        figures.push(figure("Latency over time".to_owned(), Axis::latency(least, most), latencies));
    }
    let connections = vec![time.line("connections", 0, |interval| Some(interval.connections as f64))];
    if let Some((_, most)) = extent(&connections) {
        figures.push(figure("Connections over time".to_owned(), Axis::from_zero(most, short), connections));
    }
    let errors = vec![time.line("errors", 6, |interval| Some(interval.errors as f64))];
    if let Some((_, most)) = extent(&errors).filter(|(_, most)| *most > 0.0) {
        figures.push(figure("Errors over time".to_owned(), Axis::from_zero(most, short), errors));
    }
    figures
}

/// What was answered and, if it was by a schedule, what was offered.
fn rates(report: &Report, time: &Time) -> Vec<Line> {
    let mut answered = time.line("answered", 0, |interval| Some(interval.received_per_s));
    for (points, intervals) in answered.points.iter_mut().zip(&time.intervals) {
        if let [first, .., last] = intervals.as_slice()
            && last.length_s < first.length_s * REST_MAX
        {
            points.pop();
        }
    }
    let ends = time.starts.iter().skip(1).copied().chain([time.end]);
    let runs = report.runs.iter().zip(time.starts.iter().copied().zip(ends));
    let offered: Vec<Vec<(f64, f64)>> = runs
        .filter_map(|(run, (start, end))| run.offered_per_s.map(|offered| vec![(start, offered), (end, offered)]))
        .collect();
    let mut lines = vec![answered];
    if !offered.is_empty() {
        let name = "offered".to_owned();
        lines.insert(0, Line { name, colour: colour(7, 8), style: Style::Dashed, points: offered });
    }
    lines
}

fn note(report: &Report, time: &Time) -> Option<String> {
    let limited = report.runs.iter().filter(|run| run.client.limit.is_some());
    let limited: Vec<String> = limited.map(|run| run.label.replace(' ', &NO_BREAK.to_string())).collect();
    let mut notes = Vec::new();
    if report.runs.len() > 1 {
        notes.push("Runs one after another.".to_owned());
    }
    if !limited.is_empty() {
        notes.push(format!("Not the server's where the client was the limit: {}.", limited.join("; ")));
    }
    if time.together > 1 {
        notes.push(format!("{} intervals are drawn as one, with the worst of their latencies.", time.together));
    }
    (!notes.is_empty()).then(|| notes.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, Shape};

    fn titles(report: &Report) -> Vec<String> {
        figures(report).into_iter().map(|figure| figure.title).collect()
    }

    #[test]
    fn a_single_run_has_a_line_and_a_series() {
        let report = sample::report("echo", &[sample::run(Shape { seconds: 3, ..Shape::default() })]);
        let expected = ["Latency by percentile", "messages/s over time", "Latency over time", "Connections over time"];
        assert_eq!(titles(&report), expected);
        let figures = figures(&report);
        assert_eq!(figures[1].plot.lines[0].points[0].len(), 3);
    }

    #[test]
    fn runs_at_several_rates_have_plots_by_rate_and_one_time() {
        let report = sample::full().0;
        let figures = figures(&report);
        assert!(figures.iter().any(|figure| figure.title == "Latency by offered messages/s"));
        let rings = &figures[1].plot.lines[4];
        assert_eq!((rings.style, rings.points[0].len()), (Style::Rings, 1));
        let over_time = &figures[3].plot;
        assert_eq!(over_time.bands.len(), 3);
        assert_eq!(over_time.lines[1].points.len(), 3);
    }

    #[test]
    fn a_run_of_nothing_has_no_latency_to_draw() {
        let mut report = sample::report("echo", &[sample::run(Shape { seconds: 0, ..Shape::default() })]);
        assert!(titles(&report).is_empty());
        report.runs[0].elapsed_s = 1.0;
        report.runs[0].histogram = "broken".to_owned();
        assert!(titles(&report).is_empty());
    }

    #[test]
    fn seconds_without_an_answer_are_gaps() {
        let mut report = sample::report("echo", &[sample::run(Shape { seconds: 5, ..Shape::default() })]);
        let silent = &mut report.runs[0].intervals[2];
        (silent.received, silent.p50_ns, silent.p99_ns, silent.max_ns) = (0, 0, 0, 0);
        let lines = figures(&report).remove(2).plot.lines;
        assert_eq!(lines[0].points.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_long_run_is_drawn_with_a_bounded_number_of_points() {
        let mut report = sample::report("echo", &[sample::run(Shape { seconds: 1, ..Shape::default() })]);
        let one = report.runs[0].intervals[0].clone();
        let second = |index: u32| Interval { start_s: f64::from(index), max_ns: u64::from(index), ..one.clone() };
        report.runs[0].intervals = (0..10_000).map(second).collect();
        let figure = figures(&report).remove(2);
        let points = &figure.plot.lines[2].points[0];
        assert!(points.len() <= POINTS_MAX && points.last().is_some_and(|point| point.1 == 9999.0));
        assert!(figure.note.expect("it says so").contains("drawn as one"));
    }

    #[test]
    fn the_rest_at_the_end_of_a_run_gives_no_rate() {
        let mut report = sample::report("echo", &[sample::run(Shape { seconds: 3, ..Shape::default() })]);
        report.runs[0].intervals[2].length_s = 0.01;
        assert_eq!(figures(&report)[1].plot.lines[0].points[0].len(), 2);
    }
}
