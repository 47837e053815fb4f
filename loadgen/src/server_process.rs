//! What the kernel says of a process: CPU time and memory, from /proc (proc(5)).

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) resident_bytes: u64,
}

impl Usage {
    /// Of the process with this number.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        let stat = read("stat")?;
        let status = read("status")?;
        Self::parse(&stat, &status).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The second field is the name in parentheses, which may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        for _ in 0..11 {
            let _ = ticks();
        }
        // USER_HZ is 100 on every architecture Linux shows this to.
        let time = |ticks: u64| Duration::from_millis(ticks * 10);
        let (user, system) = (time(ticks()?), time(ticks()?));
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self { user, system, resident_bytes: kilobytes * 1024 })
    }

    /// What was used from `earlier` to now: the CPU time between, the memory of now.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system, ..self }
    }

    /// CPU time, of user space and kernel together.
    pub(crate) fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_understood() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 250 0 0 20 0 1 0 5 6 7";
        let usage = Usage::parse(stat, "Name:\tx\nVmRSS:\t    12 kB\n").expect("sound");
        assert_eq!(usage.user, Duration::from_millis(1_500));
        assert_eq!(usage.system, Duration::from_millis(2_500));
        assert_eq!(usage.resident_bytes, 12 << 10);
        assert!(Usage::of(std::process::id()).expect("we run").resident_bytes > 0);
    }
}
