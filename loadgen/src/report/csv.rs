//! The series as CSV (RFC 4180, but lines end as they do on this system): a line for each second of each run.

use super::model::Report;
use std::fmt::Write;

/// The columns. Those of the report's `intervals`, after the label of the run.
const HEAD: &str = "run,start_s,length_s,sent,received,received_per_s,p50_ns,p99_ns,max_ns,errors,connections";

pub(crate) fn text(report: &Report) -> String {
    let mut text = format!("{HEAD}\n");
    for run in &report.runs {
        let label = quoted(&run.label);
        for interval in &run.intervals {
            writeln!(
                text,
                "{label},{:.3},{:.3},{},{},{:.1},{},{},{},{},{}",
                interval.start_s,
                interval.length_s,
                interval.sent,
                interval.received,
                interval.received_per_s,
                interval.p50_ns,
                interval.p99_ns,
                interval.max_ns,
                interval.errors,
                interval.connections
            )
            .expect("a string takes any text");
        }
    }
    text
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, Shape};

    #[test]
    fn a_line_for_each_second_of_each_run() {
        let runs = ["1", "2"].map(|label| sample::run(Shape { label, seconds: 3, ..Shape::default() }));
        let text = text(&sample::report("echo", &runs));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (7, HEAD));
        assert!(lines[1].starts_with("1,0.000,1.000,"), "{}", lines[1]);
        assert!(lines[6].starts_with("2,2.000,0.997,"), "{}", lines[6]);
        assert!(lines.iter().all(|line| line.split(',').count() == HEAD.split(',').count()));
    }

    #[test]
    fn the_columns_are_the_reports_intervals() {
        let report = sample::full().0;
        let interval = serde_json::to_value(&report.runs[0].intervals[0]).expect("it can be written");
        let mut keys: Vec<_> = interval.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut columns: Vec<_> = HEAD.split(',').filter(|column| *column != "run").collect();
        keys.sort_unstable();
        columns.sort_unstable();
        assert_eq!(columns, keys);
    }

    #[test]
    fn a_label_with_a_comma_is_one_field() {
        assert_eq!(quoted("a"), "a");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
