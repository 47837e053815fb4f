//! What is known of a host: read once, from below one folder, so that a test can make a host up.
//!
//! A value that cannot be read is told as such, with the file and what the system said. Nothing is guessed.

use super::cgroup::{self, CpuQuota, MemoryLimit};
use super::knowledge::SYSCTLS;
use ringwave::driver::{UringSurvey, cores, survey_uring};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

/// A value, or why it is not known.
pub(super) type Read<T> = Result<T, String>;

/// What only the running system answers, by being asked.
pub(super) struct Live {
    pub(super) uring: UringSurvey,
    /// Cores that this process may run on; 0 if the system does not say.
    pub(super) cores: usize,
    /// A connection over the loopback that stands while the rest is read: it shows whether netfilter tracks.
    connection: Option<(TcpListener, TcpStream)>,
}

impl Live {
    /// Asks the system that this runs on.
    pub(super) fn ask() -> Self {
        let connection = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok().and_then(|listener| {
            let stream = TcpStream::connect(listener.local_addr().ok()?).ok()?;
            Some((listener, stream))
        });
        Self { uring: survey_uring(), cores: cores().len(), connection }
    }

    /// A system made up.
    #[cfg(test)]
    pub(super) const fn made_up(uring: UringSurvey, cores: usize) -> Self {
        Self { uring, cores, connection: None }
    }
}

/// RLIMIT_NOFILE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// Everything that the judgement is made of.
pub(super) struct Facts {
    pub(super) uring: UringSurvey,
    pub(super) cores: usize,
    /// Version of Linux.
    pub(super) kernel: Read<String>,
    pub(super) uring_disabled: Read<u64>,
    pub(super) uring_group: Read<i64>,
    /// 0: none, 1: strict, 2: a filter.
    pub(super) seccomp: Read<u64>,
    pub(super) descriptors: Read<Descriptors>,
    pub(super) nr_open: Read<u64>,
    /// Open files of the whole system.
    pub(super) files_used: Read<u64>,
    /// Watches of epoll that a user may have.
    pub(super) epoll_watches: Read<u64>,
    /// Bytes.
    pub(super) memory_total: Read<u64>,
    pub(super) memory_available: Read<u64>,
    /// The control group with the least room; `None` where none limits.
    pub(super) memory_limit: Read<Option<MemoryLimit>>,
    pub(super) cpu_quota: Read<Option<CpuQuota>>,
    /// Pages: below the first nothing is done about TCP's memory, from the second on it is saved, above the third refused.
    pub(super) tcp_mem: Read<[u64; 3]>,
    /// Pages in use.
    pub(super) tcp_mem_used: Read<u64>,
    pub(super) page_bytes: Read<u64>,
    pub(super) syncookies: Read<u64>,
    /// Connections that netfilter tracks, one of ours among them if it tracks any.
    pub(super) tracked: Read<u64>,
    /// The values of [`SYSCTLS`], in its order.
    pub(super) sysctls: [Read<u64>; SYSCTLS.len()],
}

impl Facts {
    /// Reads what stands below `root`.
    pub(super) fn read(root: &Path, live: Live) -> Self {
        let proc = Proc { root };
        let facts = Self {
            kernel: proc.text("proc/sys/kernel/osrelease"),
            uring_disabled: proc.sysctl("kernel.io_uring_disabled"),
            uring_group: proc.parsed("proc/sys/kernel/io_uring_group"),
            seccomp: proc.field("proc/self/status", "Seccomp:", 0),
            descriptors: descriptors(&proc),
            nr_open: proc.sysctl("fs.nr_open"),
            files_used: proc.field("proc/sys/fs/file-nr", "", 0),
            epoll_watches: proc.sysctl("fs.epoll.max_user_watches"),
            memory_total: proc.kib("proc/meminfo", "MemTotal:"),
            memory_available: proc.kib("proc/meminfo", "MemAvailable:"),
            memory_limit: cgroup::memory_limit(&proc),
            cpu_quota: cgroup::cpu_quota(&proc),
            tcp_mem: tcp_mem(&proc),
            tcp_mem_used: tcp_mem_used(&proc),
            page_bytes: proc.kib("proc/self/smaps", "KernelPageSize:"),
            syncookies: proc.sysctl("net.ipv4.tcp_syncookies"),
            tracked: proc.sysctl("net.netfilter.nf_conntrack_count"),
            sysctls: SYSCTLS.each_ref().map(|sysctl| proc.sysctl(sysctl.key)),
            uring: live.uring,
            cores: live.cores,
        };
        // It has stood until everything was read.
        drop(live.connection);
        facts
    }

    /// The value of a key of [`SYSCTLS`].
    pub(super) fn sysctl(&self, key: &str) -> &Read<u64> {
        let index = SYSCTLS.iter().position(|sysctl| sysctl.key == key).expect("a key of the table");
        &self.sysctls[index]
    }

    /// Whether netfilter tracks connections here; `None` if that is not known.
    pub(super) fn tracks(&self) -> Option<bool> {
        self.tracked.as_ref().ok().map(|count| *count > 0)
    }
}

/// The files of a system, below its root.
pub(super) struct Proc<'a> {
    root: &'a Path,
}

impl Proc<'_> {
    /// The text of a file, without space around it.
    pub(super) fn text(&self, path: &str) -> Read<String> {
        match fs::read_to_string(self.root.join(path)) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!("there is no /{path}")),
            Err(error) => Err(format!("/{path}: {error}")),
        }
    }

    /// A file that is one value.
    pub(super) fn parsed<T: std::str::FromStr>(&self, path: &str) -> Read<T> {
        let text = self.text(path)?;
        text.parse().map_err(|_| format!("/{path} says {text:?}"))
    }

    /// A kernel setting.
    fn sysctl(&self, key: &str) -> Read<u64> {
        self.parsed(&format!("proc/sys/{}", key.replace('.', "/")))
    }

    /// A word of the line that begins with `name`, counted from behind the name.
    pub(super) fn field(&self, path: &str, name: &str, index: usize) -> Read<u64> {
        let text = self.text(path)?;
        let word = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(index));
        let word =
            word.ok_or_else(|| format!("/{path} does not say {}", if name.is_empty() { "enough" } else { name }))?;
        if word == "unlimited" {
            return Ok(u64::MAX);
        }
        word.parse().map_err(|_| format!("/{path} says {name} {word}"))
    }

    /// Such a word that counts KiB, in bytes.
    fn kib(&self, path: &str, name: &str) -> Read<u64> {
        Ok(self.field(path, name, 0)?.saturating_mul(1024))
    }
}

fn descriptors(proc: &Proc<'_>) -> Read<Descriptors> {
    let limit = |index| proc.field("proc/self/limits", "Max open files", index);
    Ok(Descriptors { soft: limit(0)?, hard: limit(1)? })
}

fn tcp_mem(proc: &Proc<'_>) -> Read<[u64; 3]> {
    let pages = |index| proc.field("proc/sys/net/ipv4/tcp_mem", "", index);
    Ok([pages(0)?, pages(1)?, pages(2)?])
}

/// `TCP: inuse 2 orphan 0 tw 0 alloc 2 mem 22`.
fn tcp_mem_used(proc: &Proc<'_>) -> Read<u64> {
    proc.field("proc/net/sockstat", "TCP:", 9)
}
