//! Hosts made up, and what is said of them.

use super::host::{Facts, Live};
use super::judge::judge;
use super::knowledge::{CONNECTION_BYTES, CONNTRACK_MAX, FILE_MAX, SOMAXCONN, SYN_BACKLOG};
use super::report::{Finding, Level, Report, Row, Verdict};
use super::text::{self, COLUMNS_MAX};
use super::{Question, host::Descriptors};
use ringwave::DriverChoice;
use ringwave::driver::{FeatureState, UringFeature, UringSurvey};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A host: files below a folder of its own, which goes with it.
struct Host {
    root: PathBuf,
    uring: UringSurvey,
    cores: usize,
}

const GIB: u64 = 1 << 30;

impl Host {
    /// A new kernel, 32 GiB, 4 cores, and defaults as distributions have them.
    fn new() -> Self {
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("ringwave-doctor-{}-{number}", std::process::id()));
        let host = Self { root, uring: serves(), cores: 4 };
        host.file("proc/sys/kernel/osrelease", "6.12.9-amd64\n")
            .file("proc/sys/kernel/io_uring_disabled", "0\n")
            .file("proc/sys/kernel/io_uring_group", "-1\n")
            .file("proc/self/status", "Name:\tringwave\nSeccomp:\t0\n")
            .descriptors(1_048_576, 1_048_576)
            .file("proc/sys/fs/nr_open", "1048576\n")
            .file("proc/sys/fs/file-max", "9223372036854775807\n")
            .file("proc/sys/fs/file-nr", "1234\t0\t9223372036854775807\n")
            .file("proc/sys/fs/epoll/max_user_watches", "7000000\n")
            .available(32 * GIB)
            .file("proc/self/smaps", "0-1 r-xp 0 00:00 0\nSize: 4 kB\nKernelPageSize:        4 kB\n")
            .file("proc/sys/net/ipv4/tcp_mem", "380000\t500000\t760000\n")
            .file("proc/net/sockstat", "sockets: used 9\nTCP: inuse 2 orphan 0 tw 0 alloc 2 mem 22\n")
            .file("proc/sys/net/ipv4/tcp_syncookies", "1\n")
            .file("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n")
            .file("proc/sys/net/core/somaxconn", "4096\n")
            .file("proc/self/cgroup", "0::/system.slice/ringwave.service\n")
            .file("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n")
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a writable folder");
        fs::write(path, text).expect("a writable folder");
        self
    }

    fn without(self, path: &str) -> Self {
        fs::remove_file(self.root.join(path)).expect("it is there");
        self
    }

    fn descriptors(self, soft: u64, hard: u64) -> Self {
        let limits = format!(
            "Limit                     Soft Limit           Hard Limit           Units\n\
             Max open files            {soft}                 {hard}               files\n"
        );
        self.file("proc/self/limits", &limits)
    }

    fn available(self, bytes: u64) -> Self {
        let (total, free) = (bytes / 1024 * 5 / 4, bytes / 1024);
        self.file("proc/meminfo", &format!("MemTotal:  {total} kB\nMemFree:  1 kB\nMemAvailable:  {free} kB\n"))
    }

    fn refused(mut self, setup: Option<ErrorKind>, refusal: &str) -> Self {
        self.uring = UringSurvey { refusal: Some(refusal.to_owned()), setup_refusal: setup, features: Vec::new() };
        self
    }

    fn facts(&self) -> Facts {
        Facts::read(&self.root, Live::made_up(self.uring.clone(), self.cores))
    }

    fn asked(&self, question: &Question) -> Report {
        let report = judge(&self.facts(), question);
        // What is said of any host fits, and begins and ends with the same answer.
        let text = text::write(&report);
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
        }
        let answer = text.split("\n\n").next().expect("a first part");
        assert!(text.trim_end().ends_with(answer), "{text}");
        report
    }

    fn judged(&self) -> Report {
        self.asked(&ANY)
    }

    fn judged_for(&self, target: u64) -> Report {
        self.asked(&Question { target: Some(target), ..ANY })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A temporary folder that stays does no harm.
        let _ = fs::remove_dir_all(&self.root);
    }
}

const ANY: Question = Question { target: None, driver: DriverChoice::Auto, shards: 0, connections_max: 1 << 20 };

fn serves() -> UringSurvey {
    let feature =
        |name| UringFeature { name, since: "6.1", is_needed: true, purpose: "all of it", state: FeatureState::Works };
    UringSurvey { refusal: None, setup_refusal: None, features: vec![feature("io_uring_setup")] }
}

fn finding<'a>(report: &'a Report, subject: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.subject == subject);
    found.unwrap_or_else(|| panic!("no finding about {subject}"))
}

fn row<'a>(report: &'a Report, key: &str) -> &'a Row {
    report.sysctls.iter().find(|row| row.key == key).expect("a key of the table")
}

fn command(verdict: &Verdict) -> &str {
    let [step] = &*verdict.missing else { panic!("not one thing is missing: {verdict:?}") };
    step.command.as_deref().expect("there is a command for it")
}

fn holds(report: &Report) -> [bool; 3] {
    [0, 1, 2].map(|class| report.classes[class].holds)
}

#[test]
fn a_good_host_is_bounded_by_the_server_itself() {
    let report = Host::new().judged_for(1_000_000);
    assert_eq!((report.ok, report.connections, &*report.limit), (true, 4 << 20, "--max-connections"));
    assert_eq!((report.server.driver, report.server.shards), (Some("io_uring"), 4));
    assert_eq!(holds(&report), [true; 3]);
    // There is no connection tracking, which is said and no gap.
    let absent = row(&report, CONNTRACK_MAX);
    assert_eq!(absent.unread.as_deref(), Some("there is no /proc/sys/net/netfilter/nf_conntrack_max"));
    assert_eq!(absent.says, "not here");
    assert_eq!((report.unread.len(), row(&report, CONNTRACK_MAX).level), (0, Level::Note));
    assert!(text::write(&report).contains("no limit (1 234 in use): no limit"));
}

#[test]
fn an_old_kernel_runs_on_epoll() {
    let host = Host::new()
        .file("proc/sys/kernel/osrelease", "5.4.0-150-generic\n")
        .without("proc/sys/kernel/io_uring_disabled")
        .file("proc/sys/net/core/somaxconn", "128\n")
        .refused(None, "io_uring_setup: Invalid argument (os error 22)");
    let report = host.judged_for(100_000);
    assert_eq!((report.server.driver, report.ok), (Some("epoll"), true));
    assert_eq!(finding(&report, "Linux").level, Level::Advice);
    assert_eq!(finding(&report, "kernel.io_uring_disabled").level, Level::Note);
    let driver = finding(&report, "driver");
    assert_eq!((driver.level, &*driver.seen), (Level::Advice, "epoll, because io_uring is refused"));
    assert_eq!(driver.step.as_ref().expect("advice").note, "boot Linux 6.1 or later");
    // The queue is short: that costs time in a burst, no connection for good.
    let somaxconn = row(&report, SOMAXCONN);
    assert_eq!((somaxconn.level, &*somaxconn.says), (Level::Advice, "low: bursts wait"));
    let step = somaxconn.step.as_ref().expect("advice");
    assert_eq!(step.command.as_deref(), Some("sysctl -w net.core.somaxconn=4096"));
    assert!(step.note.contains("start the server anew"), "{}", step.note);
    let advised = report.target.as_ref().expect("asked for").advice.iter().map(|step| &*step.subject);
    assert_eq!(advised.collect::<Vec<_>>(), ["io_uring", SOMAXCONN]);
}

#[test]
fn why_io_uring_is_refused_decides_what_to_do() {
    let denied = || Host::new().refused(Some(ErrorKind::PermissionDenied), "io_uring_setup: EPERM");
    let step = |host: Host| finding(&host.judged(), "driver").step.clone().expect("advice");
    let off = step(denied().file("proc/sys/kernel/io_uring_disabled", "2\n"));
    assert_eq!(off.command.as_deref(), Some("sysctl -w kernel.io_uring_disabled=0"));
    assert!(off.note.contains("security"), "{}", off.note);
    let grouped =
        denied().file("proc/sys/kernel/io_uring_disabled", "1\n").file("proc/sys/kernel/io_uring_group", "99\n");
    assert!(finding(&grouped.judged(), "kernel.io_uring_disabled").why.contains("(99)"));
    assert_eq!(step(grouped).command.as_deref(), Some("usermod -aG $(getent group 99 | cut -d: -f1) USER"));
    let nobody = denied().file("proc/sys/kernel/io_uring_disabled", "1\n");
    assert_eq!(step(nobody).command.as_deref(), Some("sysctl -w kernel.io_uring_group=$(id -g USER)"));
    let filtered = step(denied().file("proc/self/status", "Seccomp:\t2\n"));
    assert!(filtered.command.is_none() && filtered.note.contains("seccomp"), "{}", filtered.note);
    let none = step(Host::new().refused(Some(ErrorKind::Unsupported), "io_uring_setup: ENOSYS"));
    assert!(none.note.contains("CONFIG_IO_URING"), "{}", none.note);
}

#[test]
fn a_driver_that_is_not_to_be_had_holds_nothing() {
    let host = Host::new().refused(Some(ErrorKind::PermissionDenied), "io_uring_setup: EPERM");
    let report = host.asked(&Question { driver: DriverChoice::Uring, ..ANY });
    assert_eq!((report.ok, report.connections, &*report.limit), (false, 0, "io_uring"));
    assert_eq!((report.server.driver, holds(&report)), (None, [false; 3]));
    assert!(text::write(&report).starts_with("The server does not start here"));
}

#[test]
fn on_epoll_descriptors_are_the_limit() {
    let question = Question { target: Some(10_000), driver: DriverChoice::Epoll, ..ANY };
    let host = Host::new().descriptors(1024, 524_288);
    let report = host.asked(&question);
    // 16 of the process and 4 of each of 4 shards.
    assert_eq!((report.ok, report.connections, &*report.limit), (false, 992, "RLIMIT_NOFILE"));
    assert_eq!(command(report.target.as_ref().expect("asked for")), "ulimit -Sn 10240");
    // What it asks for is enough, and no more is said of it.
    assert!(host.descriptors(10_240, 524_288).asked(&question).ok);
    // Where the hard limit does, it is enough.
    let short = Host::new().descriptors(64, 4096).judged_for(100_000);
    assert_eq!(command(short.target.as_ref().expect("asked for")), "ulimit -Sn 4096");
    // Beyond the hard limit it takes root, and beyond fs.nr_open that comes first.
    let host = Host::new().descriptors(1024, 4096);
    assert_eq!(command(&host.asked(&question).classes[0]), "prlimit --pid $$ --nofile=10240:10240");
    let host = host.file("proc/sys/fs/nr_open", "8192\n");
    let report = host.asked(&question);
    assert_eq!(command(&report.raise), "sysctl -w fs.nr_open=10240 && prlimit --pid $$ --nofile=10240:10240");
}

#[test]
fn on_io_uring_the_same_descriptors_are_not() {
    let host = Host::new().descriptors(1024, 524_288);
    let report = host.judged_for(10_000);
    // 4 rings, and one more for every 2 of the 992 that are left: tables of 1 024.
    assert_eq!((report.ok, report.connections), (true, (4 + 992 / 2) * 1024));
    let limit = finding(&report, "RLIMIT_NOFILE");
    assert_eq!((limit.level, limit.allows), (Level::Advice, Some(512_000)));
    assert_eq!(limit.step.as_ref().and_then(|step| step.command.as_deref()), Some("ulimit -Sn 16384"));
    // With one shard's tables for all of them there is nothing to say.
    assert_eq!(finding(&host.judged_for(4096), "RLIMIT_NOFILE").level, Level::Ok);
    // It is the limit in the end, and the same command helps.
    let report = host.judged_for(1_000_000);
    assert_eq!((report.ok, &*report.limit), (false, "RLIMIT_NOFILE"));
    assert_eq!(command(report.target.as_ref().expect("asked for")), "ulimit -Sn 16384");
    assert!(host.descriptors(16_384, 524_288).judged_for(1_000_000).ok);
}

#[test]
fn small_memory_is_the_limit() {
    let host = Host::new().available(GIB);
    let report = host.judged_for(1_000_000);
    assert_eq!((report.ok, &*report.limit, holds(&report)), (false, "memory", [true, true, false]));
    // An eighth is spared, and the rings of 4 shards are there first.
    let most = (GIB - GIB / 8) / CONNECTION_BYTES;
    assert!((most - 6_000..most).contains(&report.connections), "{}", report.connections);
    let [step] = &*report.raise.missing else { panic!("one thing: {:?}", report.raise) };
    assert_eq!((step.command.as_deref(), step.allows), (None, Some(report.connections)));
    assert!(step.note.contains("MiB of available memory"), "{}", step.note);
}

#[test]
fn a_control_groups_limit_counts_and_its_idle_pages_do_not() {
    let group = "sys/fs/cgroup/system.slice";
    let host = Host::new()
        .file(&format!("{group}/memory.max"), &format!("{}\n", 2 * GIB))
        .file(&format!("{group}/memory.current"), &format!("{GIB}\n"))
        .file(&format!("{group}/memory.stat"), &format!("anon 5\ninactive_file {}\n", GIB / 2))
        .file(&format!("{group}/ringwave.service/memory.max"), "max\n");
    let report = host.judged_for(1_000_000);
    let subject = "memory of the control group";
    assert_eq!((report.ok, &*report.limit), (false, subject));
    assert_eq!(finding(&report, subject).seen, "1 536 MiB left of 2 048");
    let most = (GIB + GIB / 2) / 8 * 7 / CONNECTION_BYTES;
    assert!((most - 6_000..most).contains(&report.connections), "{}", report.connections);
    let command = command(&report.raise);
    assert!(
        command.starts_with("echo ") && command.ends_with(" > /sys/fs/cgroup/system.slice/memory.max"),
        "{command}"
    );
    // What it asks for is enough.
    let bytes = command.split(' ').nth(1).expect("a number");
    assert!(host.file(&format!("{group}/memory.max"), bytes).judged_for(1_000_000).ok);
}

#[test]
fn where_a_control_group_is_held_back_counts_as_its_limit() {
    let group = "sys/fs/cgroup/system.slice";
    let host = Host::new()
        .file(&format!("{group}/memory.max"), &format!("{}\n", 2 * GIB))
        .file(&format!("{group}/memory.high"), &format!("{GIB}\n"))
        .file(&format!("{group}/memory.current"), "0\n");
    let report = host.judged_for(1_000_000);
    let [step] = &*report.raise.missing else { panic!("one thing: {:?}", report.raise) };
    assert!(step.command.as_ref().is_some_and(|command| command.ends_with("/system.slice/memory.high")), "{step:?}");
    assert!(step.note.contains("MemoryHigh="), "{}", step.note);
}

#[test]
fn what_longer_tables_save_is_not_missing() {
    // With tables of 64 the rings take more memory than the connections; with longer ones there is enough.
    let host = Host::new().descriptors(64, 524_288).available(8 * GIB);
    let report = host.judged_for(1_000_000);
    assert_eq!(command(report.target.as_ref().expect("asked for")), "ulimit -Sn 16384");
    let memory = finding(&report, "memory");
    assert_eq!(memory.level, Level::Note);
    assert!(memory.allows.is_some_and(|allows| allows < 1_000_000), "{memory:?}");
    assert!(host.descriptors(16_384, 524_288).judged_for(1_000_000).ok);
}

#[test]
fn a_refusal_for_want_of_descriptors_is_told_from_others() {
    let host = Host::new().descriptors(6, 6).refused(None, "eventfd: Too many open files (os error 24)");
    let step = finding(&host.judged(), "driver").step.clone().expect("advice");
    assert!(step.note.contains("too few descriptors"), "{}", step.note);
}

#[test]
fn control_groups_of_version_1_count_too() {
    let mounts = "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                  35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let host = Host::new()
        .file("proc/self/cgroup", "4:memory:/docker/ab/in\n1:cpu,cpuacct:/docker/ab\n0::/\n")
        .file("proc/self/mountinfo", mounts)
        .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
        .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "123\n")
        .file("sys/fs/cgroup/memory/in/memory.limit_in_bytes", &format!("{GIB}\n"))
        .file("sys/fs/cgroup/memory/in/memory.usage_in_bytes", "0\n")
        .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n")
        .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    let report = host.judged();
    assert_eq!(&*report.limit, "memory of the control group");
    assert!(finding(&report, "memory of the control group").why.contains("/memory/in/memory.limit_in_bytes"));
    let quota = finding(&report, "quota");
    assert_eq!((&*quota.seen, quota.level), ("1.50 cores", Level::Advice));
    assert_eq!(quota.step.as_ref().and_then(|step| step.command.as_deref()), Some("ringwave --shards 2"));
    // -1 is no quota.
    assert_eq!(finding(&host.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n").judged(), "quota").seen, "none");
}

#[test]
fn a_quota_of_version_2_is_found_above() {
    let host = Host::new()
        .file("sys/fs/cgroup/cpu.max", "400000 100000\n")
        .file("sys/fs/cgroup/system.slice/ringwave.service/cpu.max", "max 100000\n");
    let quota = host.judged();
    assert_eq!((&*finding(&quota, "quota").seen, finding(&quota, "quota").level), ("4.00 cores", Level::Ok));
}

#[test]
fn connection_tracking_bounds_where_it_tracks() {
    let host = Host::new()
        .file("proc/sys/net/netfilter/nf_conntrack_max", "65536\n")
        .file("proc/sys/net/netfilter/nf_conntrack_count", "536\n");
    let report = host.judged_for(100_000);
    assert_eq!((report.ok, report.connections, &*report.limit), (false, 65_000, CONNTRACK_MAX));
    assert_eq!(command(report.target.as_ref().expect("asked for")), "sysctl -w net.netfilter.nf_conntrack_max=262144");
    assert_eq!(command(&report.classes[2]), "sysctl -w net.netfilter.nf_conntrack_max=1310720");
    let cells = row(&report, CONNTRACK_MAX).classes.iter().map(|cell| cell.level);
    assert_eq!(cells.collect::<Vec<_>>(), [Level::Ok, Level::Short, Level::Short]);
    // Loaded and idle, it bounds nothing.
    let host = host.file("proc/sys/net/netfilter/nf_conntrack_count", "0\n");
    let report = host.judged_for(100_000);
    assert_eq!((report.ok, row(&report, CONNTRACK_MAX).level), (true, Level::Note));
}

#[test]
fn open_files_of_the_system_bound_both_drivers() {
    let host = Host::new().file("proc/sys/fs/file-max", "200000\n").file("proc/sys/fs/file-nr", "50000\t0\t200000\n");
    for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
        let report = host.asked(&Question { target: Some(200_000), driver, ..ANY });
        assert_eq!((report.ok, report.connections, &*report.limit), (false, 150_000, FILE_MAX));
        assert_eq!(command(report.target.as_ref().expect("asked for")), "sysctl -w fs.file-max=4194304");
        assert_eq!(row(&report, FILE_MAX).level, Level::Short);
    }
    // More than the table has: as many and a quarter more.
    let report = host.asked(&Question { target: Some(4_200_000), connections_max: 1 << 27, ..ANY });
    let more = report.raise.missing.iter().find(|step| step.subject == FILE_MAX).expect("short of it");
    assert_eq!(more.command.as_deref(), Some("sysctl -w fs.file-max=5373952"));
}

#[test]
fn half_open_connections_are_bounded_without_cookies_only() {
    let host = Host::new();
    assert_eq!(row(&host.judged(), SYN_BACKLOG).level, Level::Note);
    let host = host.file("proc/sys/net/ipv4/tcp_syncookies", "0\n");
    let report = host.judged_for(10_000);
    let step = row(&report, SYN_BACKLOG).step.as_ref().expect("advice");
    assert_eq!(step.command.as_deref(), Some("sysctl -w net.ipv4.tcp_max_syn_backlog=4096"));
    assert!(report.ok, "the connections are held all the same");
}

#[test]
fn what_cannot_be_read_is_said_and_not_guessed() {
    let host = Host::new()
        .without("proc/sys/fs/file-max")
        .without("proc/self/limits")
        .without("proc/meminfo")
        .file("proc/sys/net/core/somaxconn", "many\n");
    let report = host.judged();
    assert_eq!((report.ok, &*report.limit), (true, "--max-connections"));
    for said in [
        "RLIMIT_NOFILE: there is no /proc/self/limits",
        "fs.file-max: there is no /proc/sys/fs/file-max",
        "memory: there is no /proc/meminfo",
        "net.core.somaxconn: /proc/sys/net/core/somaxconn says \"many\"",
    ] {
        assert!(report.unread.iter().any(|unread| unread == said), "{:?}", report.unread);
    }
    assert_eq!(host.facts().descriptors.ok(), None::<Descriptors>);
    assert!(text::write(&report).contains("not judged, because it could not be read"));
}

#[test]
fn a_host_without_any_files_is_judged_by_what_is_known() {
    let empty = Host { root: std::env::temp_dir().join("ringwave-doctor-none"), uring: serves(), cores: 0 };
    let report = empty.judged();
    assert_eq!((report.server.shards, report.connections), (1, 1 << 20));
    assert!(report.unread.len() > 8, "{:?}", report.unread);
}
