//! Counting another process's system calls, by `perf stat` on the tracepoint `raw_syscalls:sys_enter`.
//!
//! The kernel counts no system calls by itself. The tracepoint needs tracefs and the right to trace (root, or
//! `kernel.perf_event_paranoid` at −1), and it slows each call down a little: so only who asks for it gets it.

use rustix::process::{Pid, Signal, kill_process};
use std::io;
use std::process::{Child, Command, Stdio};

/// A count under way.
#[derive(Debug)]
pub(crate) struct Counter {
    perf: Child,
}

impl Counter {
    /// Begins to count.
    pub(crate) fn start(pid: u32) -> io::Result<Self> {
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("--count-syscalls needs the program perf: {error}"))
            })?;
        Ok(Self { perf })
    }

    /// Ends the count and answers it.
    pub(crate) fn stop(self) -> io::Result<u64> {
        // It may have ended by itself, with a reason that is read below.
        let _ = kill_process(Pid::from_child(&self.perf), Signal::INT);
        let output = self.perf.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        parse(&text).ok_or_else(|| io::Error::other(format!("perf does not count system calls here: {}", text.trim())))
    }
}

/// The first field of the line that names the event.
fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_is_understood() {
        assert_eq!(parse("# started\n\n29,,raw_syscalls:sys_enter,929203,100.00,,\n"), Some(29));
        assert_eq!(parse("<not counted>,,raw_syscalls:sys_enter,0,0.00,,"), None);
        assert_eq!(parse("event syntax error: 'raw_syscalls:sys_enter'"), None);
    }
}
