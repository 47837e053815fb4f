//! What is found on a host, one thing after another, each with what it means and what to do.

use super::bounds::{Bound, Driver, Plan, Subject, mebibytes, missing, set, value_of};
use super::host::{Facts, Read};
use super::knowledge::{
    Bounds, CONNECTION_BYTES, CONNTRACK_MAX, Class, FILE_MAX, KERNEL_BYTES, MEMORY_SPARED, SOMAXCONN, SYN_BACKLOG,
    SYSCTLS, Sysctl, USER_BYTES,
};
use super::report::{Cell, Finding, Level, Row, Step};
use super::text::grouped;
use ringwave::DriverChoice;
use std::io::ErrorKind;

const KERNEL: &str = "kernel and driver";
const DESCRIPTORS: &str = "descriptors";
const MEMORY: &str = "memory";
const SHARDS: &str = "shards";

/// All findings but the kernel settings.
pub(super) fn all(
    facts: &Facts,
    plan: &Plan,
    bounds: &[Bound],
    choice: DriverChoice,
    driver: Option<Driver>,
    reference: u64,
) -> Vec<Finding> {
    let context = Context { facts, plan, bounds, reference, missing: missing(facts, plan, reference) };
    let mut findings = vec![kernel(facts), uring_disabled(facts), uring(facts, choice, driver)];
    findings.extend(context.descriptors());
    findings.extend(context.memory());
    findings.extend(context.shards());
    findings
}

/// A finding without a bound.
fn plain(section: &'static str, subject: &'static str, level: Level, seen: String, why: impl Into<String>) -> Finding {
    Finding { section, subject, level, seen, allows: None, why: why.into(), step: None }
}

fn unread(section: &'static str, subject: &'static str, reason: &str) -> Finding {
    plain(section, subject, Level::Unread, reason.to_owned(), "so it was not judged")
}

fn kernel(facts: &Facts) -> Finding {
    const SUBJECT: &str = "Linux";
    let release = match &facts.kernel {
        Ok(release) => release,
        Err(reason) => return unread(KERNEL, SUBJECT, reason),
    };
    let (level, why) = match version(release) {
        (0..=5, _) | (6, 0) => {
            (Level::Advice, "older than 6.1, the first that the io_uring driver runs on: boot 6.1 or later")
        }
        (6, 1..=5) => (
            Level::Ok,
            "the io_uring driver runs from 6.1 on; 6.6 saves it an indirection, 6.7 tells it peers' addresses",
        ),
        (6, 6) => (Level::Ok, "the io_uring driver runs from 6.1 on; 6.7 tells it peers' addresses"),
        _ => (Level::Ok, "new enough for all that the io_uring driver uses"),
    };
    plain(KERNEL, SUBJECT, level, release.clone(), why)
}

/// `6.1.0-18-amd64` is 6.1.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn uring_disabled(facts: &Facts) -> Finding {
    const SUBJECT: &str = "kernel.io_uring_disabled";
    let value = match &facts.uring_disabled {
        Ok(value) => *value,
        // Absence means that nothing is forbidden by it; that is no gap in what is known.
        Err(reason) => {
            return plain(
                KERNEL,
                SUBJECT,
                Level::Note,
                reason.clone(),
                "kernels before 6.6 have none, and forbid nothing by it",
            );
        }
    };
    let group = || facts.uring_group.as_ref().map_or_else(Clone::clone, ToString::to_string);
    let why = match value {
        0 => "every user may set up rings".to_owned(),
        1 => format!("only privileged users and members of the group kernel.io_uring_group ({}) may", group()),
        _ => "nobody may set up rings".to_owned(),
    };
    let level = match (value, &facts.uring.refusal) {
        (0, _) => Level::Ok,
        (_, Some(_)) => Level::Advice,
        // It lets this user in; the server's may be another.
        (_, None) => Level::Note,
    };
    plain(KERNEL, SUBJECT, level, value.to_string(), why)
}

fn uring(facts: &Facts, choice: DriverChoice, driver: Option<Driver>) -> Finding {
    const SUBJECT: &str = "driver";
    let Some(refusal) = &facts.uring.refusal else {
        let (seen, why) = match driver {
            Some(Driver::Epoll) => {
                ("epoll, as asked for", "io_uring serves here too, without a descriptor for each connection")
            }
            _ => ("io_uring", "it was tried: a connection was accepted, read, answered and closed through it"),
        };
        let level = if driver == Some(Driver::Epoll) { Level::Note } else { Level::Ok };
        return plain(KERNEL, SUBJECT, level, seen.to_owned(), why);
    };
    let (seen, level) = match (driver, choice) {
        (None, _) => ("none: io_uring is asked for and refused", Level::Short),
        (_, DriverChoice::Epoll) => ("epoll, as asked for", Level::Note),
        _ => ("epoll, because io_uring is refused", Level::Advice),
    };
    let mut finding = plain(KERNEL, SUBJECT, level, seen.to_owned(), format!("io_uring is refused: {refusal}"));
    finding.step = allow_uring(facts);
    finding
}

/// With fewer descriptors a refusal may be for want of them.
const DESCRIPTORS_TRIED: u64 = 32;

/// How io_uring is had where it is refused.
pub(super) fn allow_uring(facts: &Facts) -> Option<Step> {
    facts.uring.refusal.as_ref()?;
    const POLICY: &str = "if the host's policy allows io_uring: that is a decision about security";
    let disabled = facts.uring_disabled.as_ref().ok().copied();
    if facts.descriptors.as_ref().is_ok_and(|limit| limit.soft < DESCRIPTORS_TRIED) {
        let note = "it was tried with too few descriptors: raise RLIMIT_NOFILE first, then ask again".to_owned();
        return Some(Step { subject: "io_uring".to_owned(), allows: None, command: None, note });
    }
    let is_old = facts.kernel.as_ref().is_ok_and(|release| version(release) < (6, 1));
    let (command, note) = match (facts.uring.setup_refusal, disabled) {
        (Some(ErrorKind::PermissionDenied), Some(2..)) => {
            (Some("sysctl -w kernel.io_uring_disabled=0".to_owned()), format!("as root, {POLICY}"))
        }
        (Some(ErrorKind::PermissionDenied), Some(1)) => {
            // There is one such group: another one in its place would take io_uring away from those who have it.
            let command = match facts.uring_group {
                Ok(group @ 0..) => format!("usermod -aG $(getent group {group} | cut -d: -f1) USER"),
                _ => "sysctl -w kernel.io_uring_group=$(id -g USER)".to_owned(),
            };
            (Some(command), format!("as root, with the server's USER, {POLICY}"))
        }
        _ if is_old => (None, "boot Linux 6.1 or later".to_owned()),
        _ if matches!(facts.seccomp, Ok(1..)) => {
            let note = "a seccomp filter stands over this process: let io_uring_setup, io_uring_enter and \
                        io_uring_register through in the container's profile";
            (None, format!("{note}, {POLICY}"))
        }
        (Some(ErrorKind::PermissionDenied), _) => {
            (None, format!("ask the sandbox or security module for it, {POLICY}"))
        }
        (Some(ErrorKind::Unsupported), _) => {
            (None, "the kernel has no io_uring: boot Linux 6.1 or later, built with CONFIG_IO_URING".to_owned())
        }
        _ => (None, "the list of features says what is missing; Linux 6.1 and later have all of it".to_owned()),
    };
    Some(Step { subject: "io_uring".to_owned(), allows: None, command, note })
}

struct Context<'a> {
    facts: &'a Facts,
    plan: &'a Plan,
    bounds: &'a [Bound],
    /// Connections that a bound is held against.
    reference: u64,
    /// What must be changed for so many.
    missing: Vec<Step>,
}

impl Context<'_> {
    /// A finding that bounds the connections, or that could not be read.
    fn bound(&self, section: &'static str, subject: Subject, seen: Read<String>, why: impl Into<String>) -> Finding {
        let seen = match seen {
            Ok(seen) => seen,
            Err(reason) => return unread(section, subject.name(), &reason),
        };
        let mut finding = plain(section, subject.name(), Level::Ok, seen, why);
        if let Some(bound) = self.bounds.iter().find(|bound| bound.subject == subject) {
            finding.allows = Some(bound.allows);
            let missing = self.missing.iter().find(|step| step.subject == subject.name());
            finding.level = match missing {
                Some(_) => Level::Short,
                // It will do once something else has been changed.
                None if bound.allows < self.reference => Level::Note,
                None => Level::Ok,
            };
            finding.step = missing.cloned();
        }
        finding
    }

    fn descriptors(&self) -> Vec<Finding> {
        let Self { facts, plan, .. } = self;
        let mut findings = Vec::new();
        let seen = facts.descriptors.as_ref().map_err(Clone::clone);
        let seen = seen.map(|limit| format!("{} (hard {})", number(limit.soft), number(limit.hard)));
        let why = match (plan.driver, &facts.descriptors) {
            (Driver::Uring, Ok(limit)) => format!(
                "connections take direct descriptors, which it does not count: it is the length of a ring's table ({}), \
                 and each further ring takes 2 of the process's own descriptors",
                grouped(plan.slots(limit.soft))
            ),
            _ => format!(
                "on epoll each connection is a descriptor, and the server itself takes about {}",
                plan.descriptors_taken()
            ),
        };
        let mut finding = self.bound(DESCRIPTORS, Subject::Descriptors, seen, why);
        self.advise_longer_tables(&mut finding);
        findings.push(finding);

        let why = "no process may have a higher RLIMIT_NOFILE";
        findings.push(match &facts.nr_open {
            Ok(value) => plain(DESCRIPTORS, "fs.nr_open", Level::Ok, number(*value), why),
            Err(reason) => unread(DESCRIPTORS, "fs.nr_open", reason),
        });

        let seen = match (facts.sysctl(FILE_MAX), &facts.files_used) {
            (Ok(max), Ok(used)) => Ok(format!("{} ({} in use)", number(*max), grouped(*used))),
            (Err(reason), _) | (_, Err(reason)) => Err(reason.clone()),
        };
        let why = "open files of the whole system; direct descriptors count, a client on this host takes as many, and \
                   a process with CAP_SYS_ADMIN is not held to it";
        findings.push(self.bound(DESCRIPTORS, Subject::Files, seen, why));

        if plan.driver == Driver::Epoll {
            let seen = facts.epoll_watches.as_ref().map(|value| number(*value)).map_err(Clone::clone);
            let why = "each connection is a watch of epoll; this is how many a user may have";
            findings.push(self.bound(DESCRIPTORS, Subject::Watches, seen, why));
        }
        findings
    }

    /// Short tables mean many rings, each with queues and buffers of its own.
    fn advise_longer_tables(&self, finding: &mut Finding) {
        let Self { facts, plan, bounds, reference, .. } = self;
        let Ok(limit) = facts.descriptors else { return };
        let share = plan.connection_bytes() - CONNECTION_BYTES;
        let has_further_rings = *reference > plan.shards * plan.slots(limit.soft);
        let bound = bounds.iter().find(|bound| bound.subject == Subject::Descriptors);
        let (true, true, Level::Ok, Some(bound)) =
            (has_further_rings, share > CONNECTION_BYTES / 10, finding.level, bound)
        else {
            return;
        };
        finding.level = Level::Advice;
        finding.why = format!(
            "{}. With tables as short as these {} connections take {} rings, and each connection {} bytes for its \
             share of them",
            finding.why,
            grouped(*reference),
            grouped(reference.div_ceil(plan.slots(limit.soft))),
            grouped(share)
        );
        finding.step = Some(bound.step(facts, plan, *reference));
    }

    fn memory(&self) -> Vec<Finding> {
        let Self { facts, plan, .. } = self;
        let mut findings = Vec::new();
        let seen = match (&facts.memory_available, &facts.memory_total) {
            (Ok(available), Ok(total)) => {
                Ok(format!("{} MiB available of {}", grouped(available >> 20), grouped(total >> 20)))
            }
            (Err(reason), _) | (_, Err(reason)) => Err(reason.clone()),
        };
        let why = format!(
            "an idle connection is reckoned at {} bytes: {} of the kernel's, half of the 9.5 KiB measured for both ends \
             over the loopback; up to {USER_BYTES} of the server's, measured; rounded up, and its share of further \
             rings. Messages on their way come on top; an eighth of the memory is spared for them",
            grouped(plan.connection_bytes()),
            grouped(KERNEL_BYTES)
        );
        const _: () = assert!(MEMORY_SPARED == 8);
        findings.push(self.bound(MEMORY, Subject::Memory, seen, why));

        findings.push(match &facts.memory_limit {
            Ok(Some(limit)) => {
                let room = format!("{} MiB left of {}", grouped(limit.room() >> 20), grouped(limit.limit >> 20));
                let why = format!("{}; the kernel's memory for connections counts", limit.file);
                self.bound(MEMORY, Subject::Group, Ok(room), why)
            }
            Ok(None) => {
                plain(MEMORY, "control group", Level::Ok, "no limit".to_owned(), "none of the groups above sets one")
            }
            Err(reason) => unread(MEMORY, "control group", reason),
        });
        findings.push(self.tcp_mem());
        findings
    }

    fn shards(&self) -> Vec<Finding> {
        let Self { facts, plan, .. } = self;
        let mut findings = processors(facts, plan);
        let shards =
            if plan.shards == 1 { "the one shard".to_owned() } else { format!("each of {} shards", plan.shards) };
        let seen = format!("{} of {shards}", grouped(plan.connections_max));
        let why = "the server's own limit. The kernel spreads connections over the shards by hash, not evenly: one \
                   may be full a little before the others";
        findings.push(self.bound(SHARDS, Subject::Server, Ok(seen), why));
        findings
    }

    /// Not a bound on idle connections, whose queues are empty, and left alone: the kernel sets it by the memory.
    fn tcp_mem(&self) -> Finding {
        const SUBJECT: &str = "net.ipv4.tcp_mem";
        let facts = self.facts;
        let (pages, page) = match (&facts.tcp_mem, &facts.page_bytes) {
            (Ok(pages), Ok(page)) => (pages, *page),
            (Err(reason), _) | (_, Err(reason)) => return unread(MEMORY, SUBJECT, reason),
        };
        let [_, pressure, most] = pages.map(|count| count.saturating_mul(page));
        let used = match &facts.tcp_mem_used {
            Ok(count) => format!("{} MiB in use", grouped(mebibytes(count.saturating_mul(page)))),
            Err(reason) => reason.clone(),
        };
        let why = format!(
            "bytes in the queues of all sockets: above {} MiB the kernel shrinks buffers, above {} it drops; with {} \
             connections that is {} bytes for each. Left alone: its default follows the memory",
            grouped(pressure >> 20),
            grouped(most >> 20),
            grouped(self.reference),
            grouped(most / self.reference.max(1))
        );
        plain(MEMORY, SUBJECT, Level::Note, used, why)
    }
}

fn processors(facts: &Facts, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(if facts.cores == 0 {
        unread(SHARDS, "cores", "the system does not say which cores this process may run on")
    } else {
        let seen = format!("{} for this process, {} shard{}", facts.cores, plan.shards, plural(plan.shards));
        let (level, why) = if plan.shards > facts.cores as u64 {
            (
                Level::Advice,
                "more shards than cores share them and are not kept on one each: start it with fewer --shards",
            )
        } else {
            (Level::Ok, "a shard is a thread on a core of its own")
        };
        plain(SHARDS, "cores", level, seen, why)
    });
    findings.push(match &facts.cpu_quota {
        Ok(None) => plain(SHARDS, "quota", Level::Ok, "none".to_owned(), "none of the control groups above sets one"),
        Ok(Some(quota)) => {
            let seen = format!("{:.2} cores", quota.cores);
            let shards = (quota.cores.ceil() as u64).max(1);
            let mut finding = plain(SHARDS, "quota", Level::Ok, seen, quota.file.clone());
            if shards < plan.shards {
                finding.level = Level::Advice;
                finding.why = format!("{}: with more shards than that all of them are halted at times", quota.file);
                finding.step = Some(Step {
                    subject: "quota".to_owned(),
                    allows: None,
                    command: Some(format!("ringwave --shards {shards}")),
                    note: "the server counts cores, not quotas".to_owned(),
                });
            }
            finding
        }
        Err(reason) => unread(SHARDS, "quota", reason),
    });
    findings
}

/// The kernel settings of the table.
pub(super) fn sysctls(facts: &Facts, target: Option<u64>) -> Vec<Row> {
    SYSCTLS.iter().map(|sysctl| row(sysctl, facts, target)).collect()
}

fn row(sysctl: &'static Sysctl, facts: &Facts, target: Option<u64>) -> Row {
    let current = facts.sysctl(sysctl.key);
    let asked = target.unwrap_or(Class::Million.connections());
    let used = match sysctl.key {
        FILE_MAX => &facts.files_used,
        _ => &facts.tracked,
    };
    let level_for = |connections: u64| {
        let wanted = value_of(sysctl.key, connections, &Ok(0));
        match (sysctl.bounds, current) {
            (_, Err(_)) => Level::Unread,
            (Bounds::Burst, Ok(value)) if *value >= wanted => Level::Ok,
            (Bounds::Burst, Ok(_)) => Level::Advice,
            (Bounds::Held, Ok(value)) => match used {
                Ok(used) if value.saturating_sub(*used) < connections => Level::Short,
                Ok(_) => Level::Ok,
                Err(_) => Level::Unread,
            },
        }
    };
    // What is not looked at here decides nothing.
    let idle = match (sysctl.key, current) {
        (SYN_BACKLOG, Ok(_)) if matches!(facts.syncookies, Ok(1..)) => Some("not used (tcp_syncookies on)"),
        (CONNTRACK_MAX, Ok(_)) if facts.tracks() == Some(false) => Some("not used (nothing tracked)"),
        (_, Err(reason)) => sysctl.absent.filter(|_| reason.starts_with("there is no")).map(|_| "not here"),
        _ => None,
    };
    let level = |connections| if idle.is_some() { Level::Note } else { level_for(connections) };
    let cell = |class: Class| Cell {
        class: class.name(),
        wanted: sysctl.wanted_for(class),
        level: level(class.connections()),
    };
    let verdict = level(asked);
    let says = match (idle, verdict) {
        (Some(idle), _) => idle.to_owned(),
        (None, Level::Short) => format!("short of {}", grouped(asked)),
        (None, Level::Advice) => "low: bursts wait".to_owned(),
        (None, Level::Unread) => "not judged".to_owned(),
        _ => "ok".to_owned(),
    };
    let unread = match (current, sysctl.bounds, used) {
        (Err(reason), _, _) => Some(reason.clone()),
        (Ok(_), Bounds::Held, Err(reason)) => Some(reason.clone()),
        _ => None,
    };
    let step = matches!(verdict, Level::Short | Level::Advice).then(|| {
        let (command, mut note) = set(sysctl.key, value_of(sysctl.key, asked, used));
        if sysctl.key == SOMAXCONN {
            note.push_str("; then start the server anew, which takes it up as it begins to listen");
        }
        Step { subject: sysctl.key.to_owned(), allows: None, command, note }
    });
    Row {
        key: sysctl.key,
        current: current.as_ref().ok().copied(),
        classes: Class::ALL.into_iter().map(cell).collect(),
        level: verdict,
        says,
        unread,
        why: sysctl.without,
        step,
    }
}

/// A limit, which may be none.
fn number(value: u64) -> String {
    // What the kernel and systemd write where they mean none.
    if value >= i64::MAX as u64 { "no limit".to_owned() } else { grouped(value) }
}

const fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
