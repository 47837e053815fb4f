//! The status line: one line on a terminal, written over and over, and nothing where there is no terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two states of the line.
const PERIOD: Duration = Duration::from_millis(250);
/// Signs of the bar.
const BAR: usize = 20;

/// A line at the bottom of the terminal.
#[derive(Debug)]
pub(crate) struct Live {
    shown: bool,
    last: Option<Instant>,
    width: usize,
}

impl Live {
    /// On standard error, unless that is no terminal or nobody wants it.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { shown: !quiet && io::stderr().is_terminal(), last: None, width: 0 }
    }

    /// Shows how far something has come, 0 to 1, and what there is to say of it. Cost: nothing, four times out of five.
    pub(crate) fn show(&mut self, done: f64, text: impl FnOnce() -> String) {
        if !self.shown || self.last.is_some_and(|last| last.elapsed() < PERIOD) {
            return;
        }
        self.last = Some(Instant::now());
        let filled = (done.clamp(0.0, 1.0) * BAR as f64).round() as usize;
        let line = format!("[{}{}] {}", "#".repeat(filled), ".".repeat(BAR - filled), text());
        // Padded, so that nothing of the line before stays.
        let width = line.chars().count();
        self.write(&format!("\r{line}{}", " ".repeat(self.width.saturating_sub(width))));
        self.width = width;
    }

    /// Takes the line away: something else is to be printed.
    pub(crate) fn clear(&mut self) {
        if self.width > 0 {
            self.write(&format!("\r{}\r", " ".repeat(self.width)));
            self.width = 0;
        }
        self.last = None;
    }

    fn write(&self, text: &str) {
        let mut out = io::stderr().lock();
        // A terminal that is gone needs no status.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}
