//! The latencies of each second as an HDR histogram interval log, version 2: what HdrHistogram's own tools read and
//! merge.
//!
//! Values are nanoseconds; the largest of an interval, which stands beside it for people, is in milliseconds. Several
//! runs stand one after another, each with its label as the tag; the time between them is left out.

use super::model::Report;
use crate::measure::Run;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};
use std::io;
use std::time::Duration;

const NANOS_PER_MS: f64 = 1e6;

/// The log of these runs, of which `report` tells the start.
pub(crate) fn log(report: &Report, runs: &[Run]) -> io::Result<Vec<u8>> {
    let started = humantime::parse_rfc3339(&report.started)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", report.started)))?;
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[ringload {}: {} {}]", report.ringload, report.scenario, report.url))
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(NANOS_PER_MS)
        .begin_log_with(&mut log, &mut serializer)?;
    writer
        .write_comment("\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"")?;
    let mut run_start = Duration::ZERO;
    for run in runs {
        let name = tag_of(&run.label);
        let tag = if runs.len() > 1 { Tag::new(&name) } else { None };
        for interval in &run.intervals {
            let start = run_start + interval.start;
            writer.write_histogram(&interval.window.latency, start, interval.length, tag).map_err(io_error)?;
        }
        run_start += run.elapsed;
    }
    Ok(log)
}

/// A tag ends at a comma, and has no white space.
fn tag_of(label: &str) -> String {
    label.chars().map(|c| if c == ',' || c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

fn io_error<E: std::fmt::Display>(error: IntervalLogWriterError<E>) -> io::Error {
    match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::empty_histogram;
    use crate::report::decode_histogram;
    use crate::report::sample::{self, Shape};
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::collections::BTreeMap;

    /// By tag, the sum of what an iterator of the crate reads.
    fn read(log: &[u8]) -> (usize, BTreeMap<String, Histogram<u64>>) {
        let (mut lines, mut sums) = (0, BTreeMap::new());
        for entry in IntervalLogIterator::new(log) {
            if let LogEntry::Interval(interval) = entry.expect("it can be read") {
                let tag = interval.tag().map_or("", |tag| tag.as_str()).to_owned();
                let text = interval.encoded_histogram();
                let sum = sums.entry(tag).or_insert_with(empty_histogram);
                sum.add(decode_histogram(text).expect("it is one")).expect("all have the same bounds");
                lines += 1;
            }
        }
        (lines, sums)
    }

    #[test]
    fn the_sum_of_the_intervals_is_the_whole() {
        let run = sample::run(Shape { seconds: 4, stall: Some(2), ..Shape::default() });
        let runs = [run];
        let log = log(&sample::report("echo", &runs), &runs).expect("it can be written");
        let (lines, sums) = read(&log);
        assert_eq!((lines, sums.len()), (4, 1));
        assert_eq!(sums[""], runs[0].total.latency);
    }

    #[test]
    fn several_runs_stand_one_after_another_under_their_labels() {
        let (report, runs) = sample::full();
        let log = log(&report, &runs).expect("it can be written");
        let (lines, sums) = read(&log);
        assert_eq!(lines, 6);
        for run in &runs {
            assert_eq!(sums[&tag_of(&run.label)], run.total.latency, "{}", run.label);
        }
        let text = String::from_utf8(log).expect("it is text");
        let starts: Vec<f64> =
            text.lines().filter_map(|line| line.strip_prefix("Tag=")?.split(',').nth(1)?.parse().ok()).collect();
        assert!(starts.is_sorted() && starts.len() == 6, "{starts:?}");
    }

    #[test]
    fn a_label_becomes_a_tag() {
        assert_eq!(tag_of("step 1, 20 000/s"), "step_1__20_000/s");
        assert!(Tag::new(&tag_of("a\u{a0}b\r\n,c")).is_some());
    }
}
