//! What a run cost: this process by its threads, and the server's process, both as /proc shows them (proc(5)).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

/// The client's own share, over a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientUsage {
    /// CPU time of all threads that load.
    pub(crate) cpu: Duration,
    /// Share of the time that the busiest thread was on a core.
    pub(crate) busiest_thread: f64,
    /// Share of the time that a thread was ready and waited for a core; the most of all.
    pub(crate) longest_wait: f64,
    /// Why the figures may be the client's and not the server's.
    pub(crate) limit: Option<String>,
}

/// The server's share, over a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerUsage {
    pub(crate) pid: u32,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) busiest_thread: f64,
    /// Before the connections were opened.
    pub(crate) resident_bytes_at_start: u64,
    pub(crate) resident_bytes_before: u64,
    pub(crate) resident_bytes_after: u64,
    pub(crate) resident_bytes_max: u64,
    pub(crate) context_switches_voluntary: u64,
    pub(crate) context_switches_involuntary: u64,
    pub(crate) syscalls: Option<u64>,
}

/// What a thread has had of its core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadTimes {
    pub(crate) on_core: Duration,
    /// Ready to run, and something else ran.
    pub(crate) waited: Duration,
}

impl ThreadTimes {
    /// Of the calling thread; nothing if the kernel does not say (CONFIG_SCHED_INFO).
    pub(crate) fn now() -> Self {
        fs::read_to_string("/proc/thread-self/schedstat").ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(schedstat: &str) -> Option<Self> {
        let mut fields = schedstat.split_ascii_whitespace().map(|field| field.parse().ok().map(Duration::from_nanos));
        Some(Self { on_core: fields.next()??, waited: fields.next()?? })
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            on_core: self.on_core.saturating_sub(earlier.on_core),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// A process at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessSample {
    user: Duration,
    system: Duration,
    pub(crate) resident_bytes: u64,
    switches_voluntary: u64,
    switches_involuntary: u64,
    threads: HashMap<u32, Duration>,
}

impl ProcessSample {
    /// Of the process with this number. Cost: three files and two for each thread.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut sample = Self { resident_bytes: resident_bytes(pid)?, ..Self::default() };
        let stat = read(format!("/proc/{pid}/stat"))?;
        (sample.user, sample.system) =
            cpu_times(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))?;
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let Some(thread) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            // A thread that has ended meanwhile is none of this moment's.
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            sample.switches_voluntary += number_after(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            sample.switches_involuntary += number_after(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
            let times = fs::read_to_string(path.join("schedstat")).ok().and_then(|text| ThreadTimes::parse(&text));
            sample.threads.insert(thread, times.unwrap_or_default().on_core);
        }
        Ok(sample)
    }

    /// What was used from `earlier` until now, `elapsed` later.
    pub(crate) fn since(&self, earlier: &Self, pid: u32, elapsed: Duration) -> ServerUsage {
        let share = |(thread, on_core): (&u32, &Duration)| {
            let before = earlier.threads.get(thread).copied().unwrap_or_default();
            on_core.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64().max(1e-9)
        };
        ServerUsage {
            pid,
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            busiest_thread: self.threads.iter().map(share).fold(0.0, f64::max),
            resident_bytes_at_start: earlier.resident_bytes,
            resident_bytes_before: earlier.resident_bytes,
            resident_bytes_after: self.resident_bytes,
            resident_bytes_max: self.resident_bytes.max(earlier.resident_bytes),
            context_switches_voluntary: self.switches_voluntary.saturating_sub(earlier.switches_voluntary),
            context_switches_involuntary: self.switches_involuntary.saturating_sub(earlier.switches_involuntary),
            syscalls: None,
        }
    }
}

/// Resident memory of a process.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = read(format!("/proc/{pid}/status"))?;
    let kilobytes = number_after(&status, "VmRSS:");
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other(format!("process {pid} has ended")))
}

/// Slab memory of the kernel: sockets are most of it when there are many.
pub(crate) fn kernel_slab_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    Some(number_after(&meminfo, "Slab:")? * 1024)
}

fn read(path: String) -> io::Result<String> {
    fs::read_to_string(&path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// The number in the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time from /proc/PID/stat.
fn cpu_times(stat: &str) -> Option<(Duration, Duration)> {
    // The second field is the name in parentheses, which may hold anything; user time is the 14th.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    // USER_HZ is 100 on every architecture Linux shows this to.
    let mut time = || fields.next()?.parse().ok().map(|ticks: u64| Duration::from_millis(ticks * 10));
    Some((time()?, time()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_understood() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 250 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_times(stat), Some((Duration::from_millis(1_500), Duration::from_millis(2_500))));
        assert_eq!(number_after("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12));
        let times = ThreadTimes { on_core: Duration::from_nanos(5), waited: Duration::from_nanos(7) };
        assert_eq!(ThreadTimes::parse("5 7 9\n"), Some(times));
        assert!(resident_bytes(std::process::id()).expect("we run") > 0);
    }

    #[test]
    fn a_busy_thread_is_seen() {
        let pid = std::process::id();
        let before = ProcessSample::of(pid).expect("we run");
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let usage = ProcessSample::of(pid).expect("we run").since(&before, pid, start.elapsed());
        assert!(usage.busiest_thread > 0.0 && usage.resident_bytes_after > 0);
    }
}
