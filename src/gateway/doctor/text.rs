//! The report for people: plain text, at most 100 columns; the answer stands first and last.

use super::knowledge::Class;
use super::report::{Feature, Finding, Level, Report, Row, Step, Verdict};
use std::fmt::Write;

/// Columns of a line. Commands are never broken.
pub(super) const COLUMNS_MAX: usize = 100;

/// The whole report.
pub(super) fn write(report: &Report) -> String {
    let mut page = Page(String::new());
    page.answer(report);
    let mut section = "";
    for finding in &report.findings {
        if finding.section != section {
            section = finding.section;
            page.line(&format!("\n{section}"));
        }
        page.finding(finding);
    }
    page.features(&report.io_uring);
    page.sysctls(&report.sysctls);
    if !report.unread.is_empty() {
        page.line("\nnot judged, because it could not be read");
        for unread in &report.unread {
            page.text(2, 4, unread);
        }
    }
    page.line("");
    page.answer(report);
    page.0
}

/// Digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line.trim_end_matches(' '));
        self.0.push('\n');
    }

    /// Words, broken into lines: the first behind `first` spaces, the others behind `rest`.
    fn text(&mut self, first: usize, rest: usize, text: &str) {
        self.words(&" ".repeat(first), rest, text);
    }

    fn words(&mut self, head: &str, rest: usize, text: &str) {
        let mut line = head.to_owned();
        let mut is_empty = true;
        for word in words_of(text) {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
                self.line(&line);
                line = " ".repeat(rest);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(&word);
            is_empty = false;
        }
        self.line(&line);
    }

    /// What everybody wants to know.
    fn answer(&mut self, report: &Report) {
        let server = &report.server;
        let shards = format!("{} shard{}", server.shards, if server.shards == 1 { "" } else { "s" });
        match server.driver {
            Some(driver) => {
                let held = grouped(report.connections);
                self.line(&format!("This host holds {held} idle connections now, on {driver} with {shards}."));
                self.line(&format!("The limit is {}.", report.limit));
            }
            None => self.line("The server does not start here: it is to run on io_uring, which is refused."),
        }
        if report.target.as_ref().is_none_or(|target| !target.holds) {
            self.line(&format!("To hold {}:", grouped(report.raise.connections)));
            for step in &report.raise.missing {
                if step.command.is_none() {
                    self.text(2, 6, &format!("{}: {}", step.subject, step.note));
                } else {
                    self.step(2, step);
                }
            }
        }
        for (class, verdict) in Class::ALL.into_iter().zip(&report.classes) {
            self.verdict(class.name(), verdict);
        }
        let is_class = |target: &&Verdict| Class::ALL.iter().any(|class| class.connections() == target.connections);
        if let Some(target) = report.target.as_ref().filter(|target| !is_class(target)) {
            self.verdict(&grouped(target.connections), target);
        }
    }

    fn verdict(&mut self, name: &str, verdict: &Verdict) {
        let mut says = if verdict.holds { "ok".to_owned() } else { "missing: ".to_owned() };
        let subjects: Vec<String> = verdict.missing.iter().map(subject).collect();
        says.push_str(&subjects.join(", "));
        if !verdict.advice.is_empty() {
            let subjects: Vec<&str> = verdict.advice.iter().map(|step| &*step.subject).collect();
            // To a string it is always written.
            let _ = write!(says, " (better with {})", subjects.join(", "));
        }
        self.words(&format!("  {name:>13}  "), 17, &says);
    }

    fn step(&mut self, indent: usize, step: &Step) {
        match &step.command {
            Some(command) => {
                self.line(&format!("{}{command}", " ".repeat(indent)));
                self.text(indent + 4, indent + 4, &step.note);
            }
            None => self.text(indent, indent, &step.note),
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let allows = finding.allows.map_or_else(String::new, |allows| format!(": {}", connections(allows)));
        let head = format!("  {:<6}  {:<27}  ", finding.level.name(), finding.subject);
        self.words(&head, head.len(), &format!("{}{allows}", finding.seen));
        self.text(TEXT_AT, TEXT_AT, &finding.why);
        if let Some(step) = &finding.step {
            self.step(TEXT_AT, step);
        }
    }

    fn features(&mut self, features: &[Feature]) {
        self.line("\nio_uring, each by doing it");
        for feature in features {
            let state = match (feature.state, feature.needed) {
                ("missing", true) => "needed",
                (state, _) => state,
            };
            let head = format!("  {state:<7} {:<5} {:<30}  ", feature.since, feature.name);
            let error = feature.error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
            self.words(&head, head.len(), &format!("{}{error}", feature.purpose));
        }
    }

    fn sysctls(&mut self, rows: &[Row]) {
        let columns: Vec<String> = Class::ALL.iter().map(|class| format!("{:>9}", class.name())).collect();
        self.line(&format!("\n{:<32}{:>11}{}  verdict", "kernel settings", "now", columns.concat()));
        for row in rows {
            let or_dash = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            let now = match row.current {
                Some(value) if value >= i64::MAX as u64 => "no limit".to_owned(),
                value => or_dash(value),
            };
            let wanted: Vec<String> = row.classes.iter().map(|cell| format!("{:>9}", or_dash(cell.wanted))).collect();
            let head = format!("  {:<30}{now:>11}{}  ", row.key, wanted.concat());
            self.words(&head, head.len(), &row.says);
            if let Some(step) = &row.step {
                self.text(TEXT_AT, TEXT_AT, row.why);
                self.step(TEXT_AT, step);
            } else if let Some(reason) = &row.unread {
                self.text(TEXT_AT, TEXT_AT, reason);
            } else if row.level == Level::Note {
                self.text(TEXT_AT, TEXT_AT, &format!("if that changes: {}", row.why));
            }
        }
    }
}

/// Where what is said about a finding stands.
const TEXT_AT: usize = 10;

/// The words of a text; a number is one, groups and all.
fn words_of(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let is_group = word.len() >= 3 && word.as_bytes()[..3].iter().all(u8::is_ascii_digit);
        match words.last_mut() {
            Some(last) if is_group && last.ends_with(|c: char| c.is_ascii_digit()) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

fn connections(allows: u64) -> String {
    if allows >= i64::MAX as u64 / 2 { "no limit".to_owned() } else { format!("{} connections", grouped(allows)) }
}

fn subject(step: &Step) -> String {
    let allows = step.allows.map_or_else(String::new, |allows| format!(" ({})", grouped(allows)));
    format!("{}{allows}", step.subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups() {
        for (number, shown) in [(0, "0"), (999, "999"), (1_000, "1 000"), (1_234_567, "1 234 567")] {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn words_are_broken_and_long_ones_are_not() {
        let mut page = Page(String::new());
        page.words("  head  ", 4, &format!("{} {} end", "a".repeat(80), "b".repeat(120)));
        assert_eq!(page.0, format!("  head  {}\n    {}\n    end\n", "a".repeat(80), "b".repeat(120)));
        assert_eq!(words_of("above 1 234 567, say"), ["above", "1 234 567,", "say"]);
    }
}
