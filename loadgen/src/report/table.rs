//! The report for people at a terminal: plain text, no colours, about a hundred columns.

use super::model::Report;
use super::quantity::NO_BREAK;
use super::rows::{self, Cells, Fact, Grid};
use std::io::{self, Write};

/// Columns that a line of words may take.
const COLUMNS: usize = 100;
/// What stands left of everything but the title.
const INDENT: &str = "  ";
/// Columns of the names of facts.
const NAME_COLUMNS: usize = 11;
const GAP: &str = "  ";

/// Prints the table to standard output.
pub(crate) fn print(report: &Report) -> io::Result<()> {
    io::stdout().lock().write_all(spaced(&text(report)).as_bytes())
}

/// With spaces that every tool knows, once all lines are broken.
pub(crate) fn spaced(text: &str) -> String {
    text.replace(NO_BREAK, " ")
}

fn text(report: &Report) -> String {
    let mut text = format!("\n{}  {}\n", report.scenario, report.url);
    text += &facts(&rows::setup(report));
    text += "\n";
    if !report.runs.is_empty() {
        text += &grid(&rows::latencies(report));
    }
    if let [run] = report.runs.as_slice()
        && run.client.limit.is_none()
    {
        text += &wrapped(INDENT, &rows::volume(report, run));
    }
    if let Some(note) = rows::latency_note(report) {
        text += &wrapped(INDENT, note);
    }
    text += "\n";
    if let Some(costs) = rows::costs(report) {
        text += &grid(&costs);
        text += &wrapped(INDENT, &rows::costs_note(report));
        text += "\n";
    }
    text += &facts(&rows::limits(report));
    if let Some(aside) = rows::not_the_servers(report) {
        text += &format!("\n{}\n", grid(&aside));
    }
    if !report.runs.is_empty() {
        text += &facts(&[rows::client_at_worst(report)]);
    }
    for part in [rows::failures(report), rows::answers(report), rows::assertions(report)] {
        text += &facts(&part);
    }
    text + &facts(&[rows::verdict(report)])
}

fn facts(facts: &[Fact]) -> String {
    let line = |fact: &Fact| {
        let mark = if fact.alarm { "!" } else { " " };
        wrapped(&format!("{mark} {:NAME_COLUMNS$}", fact.name), &fact.text)
    };
    facts.iter().map(line).collect()
}

/// Lines of words, of which all but the first stand under the first one's beginning.
fn wrapped(head: &str, words: &str) -> String {
    let indent = columns(head);
    let mut text = head.to_owned();
    let mut used = indent;
    for (index, word) in words.split(' ').enumerate() {
        if index > 0 && used + 1 + columns(word) > COLUMNS {
            text += &format!("\n{:indent$}", "");
            used = indent;
        } else if index > 0 {
            text.push(' ');
            used += 1;
        }
        text += word;
        used += columns(word);
    }
    text.push('\n');
    text
}

/// Labels stand left, figures right.
pub(crate) fn grid(grid: &Grid) -> String {
    let mut widths: Vec<usize> = grid.head.iter().map(|name| columns(name)).collect();
    for row in &grid.rows {
        widths[0] = widths[0].max(columns(&row.label));
        if let Cells::Figures(cells) = &row.cells {
            for (width, cell) in widths[1..].iter_mut().zip(cells) {
                *width = (*width).max(columns(cell));
            }
        }
    }
    let figures = |cells: &[String]| -> String {
        cells.iter().zip(&widths[1..]).map(|(cell, width)| format!("{GAP}{cell:>width$}")).collect()
    };
    let label_width = widths[0];
    let line = |label: &str, rest: &str| format!("{INDENT}{label:label_width$}{rest}\n");
    let mut text = line(&grid.head[0], &figures(&grid.head[1..]));
    for row in &grid.rows {
        text += &match &row.cells {
            Cells::Figures(cells) => line(&row.label, &figures(cells)),
            Cells::Said(sentence) => line(&row.label, &format!("{GAP}{sentence}")),
        };
    }
    text
}

/// All that is written here is one column wide.
fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, Shape};

    #[test]
    fn no_line_is_longer_than_a_hundred_columns() {
        let single = sample::report("echo", &[sample::run(Shape { seconds: 2, ..Shape::default() })]);
        for report in [single, sample::full().0] {
            let text = text(&report);
            for line in text.lines() {
                assert!(columns(line) <= COLUMNS, "{} columns: {line}", columns(line));
            }
        }
    }

    #[test]
    fn no_figure_stands_at_the_head_of_a_run_that_the_client_limited() {
        let shape = Shape { seconds: 1, limit: Some("its busiest thread was full"), ..Shape::default() };
        let report = sample::report("echo", &[sample::run(shape)]);
        let text = text(&report);
        let rate = crate::report::quantity::rate(report.runs[0].received_per_s);
        let (before, after) = text.split_once("not the server's").expect("it says so");
        assert!(before.contains("the client was the limit: its busiest thread was full"), "{text}");
        assert!(!before.contains(&rate) && after.contains(&rate), "{text}");
    }

    #[test]
    fn a_report_without_runs_or_messages_has_a_table() {
        let mut report = sample::report("idle", &[sample::run(Shape { seconds: 0, ..Shape::default() })]);
        assert!(text(&report).contains('–'));
        report.runs.clear();
        assert!(text(&report).contains("verdict"));
    }

    #[test]
    fn words_wrap_under_their_beginning() {
        let text = wrapped("  name  ", &"word ".repeat(30));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("        word"), "{text}");
    }
}
