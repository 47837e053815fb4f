//! What bounds the connections of a host: how many each thing allows, and how to make it allow more.

use super::host::{Descriptors, Facts};
use super::knowledge::{
    CONNECTION_BYTES, CONNTRACK_MAX, FILE_MAX, MEMORY_SPARED, PROCESS_DESCRIPTORS, RING_DESCRIPTORS, SHARD_DESCRIPTORS,
    SYSCTLS, TABLE_SLOTS_MAX, TABLE_SLOTS_WANTED,
};
use super::report::Step;
use ringwave::driver::UringConfig;

/// The server that would be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) driver: Driver,
    pub(super) shards: u64,
    /// Of each shard.
    pub(super) connections_max: u64,
    /// RLIMIT_NOFILE as it bounds the length of a ring's table.
    pub(super) table: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    Uring,
    Epoll,
}

impl Driver {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// What bounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// `--max-connections`.
    Server,
    /// RLIMIT_NOFILE: descriptors on epoll, rings on io_uring.
    Descriptors,
    Files,
    Tracked,
    Watches,
    Memory,
    /// The memory of a control group.
    Group,
}

impl Subject {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Server => "--max-connections",
            Self::Descriptors => "RLIMIT_NOFILE",
            Self::Files => FILE_MAX,
            Self::Tracked => CONNTRACK_MAX,
            Self::Watches => "fs.epoll.max_user_watches",
            Self::Memory => "memory",
            Self::Group => "memory of the control group",
        }
    }
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) subject: Subject,
    pub(super) allows: u64,
}

/// All that bounds the connections here, as far as it could be read; the tightest first.
pub(super) fn bounds(facts: &Facts, plan: &Plan) -> Vec<Bound> {
    let descriptors = facts.descriptors.as_ref().ok();
    let sysctl = |key| facts.sysctl(key).as_ref().ok();
    let mut bounds = vec![(Subject::Server, Some(plan.shards.saturating_mul(plan.connections_max)))];
    bounds.push((Subject::Descriptors, descriptors.map(|limit| plan.with_descriptors(limit.soft))));
    let files = sysctl(FILE_MAX).zip(facts.files_used.as_ref().ok());
    bounds.push((Subject::Files, files.map(|(max, used)| max.saturating_sub(*used))));
    if let (Some(max), Ok(count @ 1..)) = (sysctl(CONNTRACK_MAX), &facts.tracked) {
        bounds.push((Subject::Tracked, Some(max.saturating_sub(*count))));
    }
    if plan.driver == Driver::Epoll {
        bounds.push((Subject::Watches, facts.epoll_watches.as_ref().ok().copied()));
    }
    let memory = facts.memory_available.as_ref().ok();
    bounds.push((Subject::Memory, memory.map(|room| plan.with_memory(*room))));
    if let Ok(Some(limit)) = &facts.memory_limit {
        bounds.push((Subject::Group, Some(plan.with_memory(limit.room()))));
    }
    let known = |(subject, allows): (Subject, Option<u64>)| Some(Bound { subject, allows: allows? });
    let mut bounds: Vec<Bound> = bounds.into_iter().filter_map(known).collect();
    bounds.sort_by_key(|bound| bound.allows);
    bounds
}

/// What must be changed, so that so many are held.
pub(super) fn missing(facts: &Facts, plan: &Plan, connections: u64) -> Vec<Step> {
    let plan = plan.raised_for(facts, connections);
    let short = bounds(facts, &plan).into_iter().filter(|bound| bound.allows < connections);
    short.map(|bound| bound.step(facts, &plan, connections)).collect()
}

impl Plan {
    /// The same, with tables as long as they are once RLIMIT_NOFILE has been raised for so many, if it must be: longer ones
    /// cost less memory.
    fn raised_for(&self, facts: &Facts, connections: u64) -> Self {
        match (self.driver, facts.descriptors.as_ref()) {
            (Driver::Uring, Ok(now)) if self.with_descriptors(now.soft) < connections => {
                Self { table: self.descriptors_for(connections, *now), ..*self }
            }
            _ => *self,
        }
    }

    /// Connections of one ring where RLIMIT_NOFILE is `limit`.
    pub(super) fn slots(&self, limit: u64) -> u64 {
        let links_max = usize::try_from(self.connections_max).unwrap_or(usize::MAX);
        let limit = u32::try_from(limit.min(TABLE_SLOTS_MAX)).unwrap_or(u32::MAX);
        u64::from(UringConfig { links_max, ..UringConfig::default() }.slots_with(limit)).max(1)
    }

    /// Descriptors that the process takes whatever is connected.
    pub(super) const fn descriptors_taken(&self) -> u64 {
        PROCESS_DESCRIPTORS + SHARD_DESCRIPTORS * self.shards
    }

    /// Rings that so many descriptors allow.
    pub(super) const fn rings(&self, limit: u64) -> u64 {
        self.shards.saturating_add(limit.saturating_sub(self.descriptors_taken()) / RING_DESCRIPTORS)
    }

    /// Connections that so many descriptors allow.
    pub(super) fn with_descriptors(&self, limit: u64) -> u64 {
        match self.driver {
            // Direct descriptors are not counted: the limit is the length of a table, and each further ring takes some.
            Driver::Uring => self.rings(limit).saturating_mul(self.slots(limit)),
            Driver::Epoll => limit.saturating_sub(self.descriptors_taken()),
        }
    }

    /// Descriptors that so many connections take.
    fn descriptors_for(&self, connections: u64, now: Descriptors) -> u64 {
        match self.driver {
            Driver::Epoll => connections.saturating_add(self.descriptors_taken()).next_multiple_of(1024),
            Driver::Uring => {
                let mut limit = now.soft.max(self.descriptors_taken()).max(TABLE_SLOTS_WANTED);
                while self.with_descriptors(limit) < connections && limit < u64::MAX / 2 {
                    limit = (limit * 2).next_power_of_two();
                }
                // What takes no root is better than longer tables.
                if now.hard > now.soft && self.with_descriptors(now.hard) >= connections {
                    limit.min(now.hard)
                } else {
                    limit
                }
            }
        }
    }

    /// Bytes that the rings of all shards take at the start, and the share of further ones in each connection.
    fn ring_bytes(&self) -> (u64, u64) {
        let Driver::Uring = self.driver else { return (0, 0) };
        let (first, further) = UringConfig::default().ring_bytes();
        (first * self.shards, further.div_ceil(self.slots(self.table)))
    }

    /// Bytes of one connection.
    pub(super) fn connection_bytes(&self) -> u64 {
        CONNECTION_BYTES + self.ring_bytes().1
    }

    /// Connections that so much memory holds.
    fn with_memory(&self, room: u64) -> u64 {
        let (first, _) = self.ring_bytes();
        (room - room / MEMORY_SPARED).saturating_sub(first) / self.connection_bytes()
    }

    /// Memory that so many connections want.
    pub(super) fn memory_for(&self, connections: u64) -> u64 {
        let (first, _) = self.ring_bytes();
        let bytes = connections.saturating_mul(self.connection_bytes()).saturating_add(first);
        bytes.saturating_add(bytes.div_ceil(MEMORY_SPARED - 1))
    }
}

impl Bound {
    /// What to do, so that it allows so many.
    pub(super) fn step(&self, facts: &Facts, plan: &Plan, connections: u64) -> Step {
        let (command, note) = match self.subject {
            Subject::Server => {
                // The kernel spreads connections by hash: some shards get more than their part.
                let part = connections.div_ceil(plan.shards.max(1));
                let command =
                    format!("ringwave --max-connections {}", part + if plan.shards > 1 { part / 16 } else { 0 });
                (Some(command), "the server's own limit, for each shard".to_owned())
            }
            Subject::Descriptors => more_descriptors(facts, plan, connections),
            Subject::Files => set(FILE_MAX, value_of(FILE_MAX, connections, &facts.files_used)),
            Subject::Tracked => {
                let (command, note) = set(CONNTRACK_MAX, value_of(CONNTRACK_MAX, connections, &facts.tracked));
                (command, format!("{note}; or let the firewall not track the server's port (notrack)"))
            }
            Subject::Watches => set(self.subject.name(), (connections + connections / 4).next_multiple_of(65_536)),
            Subject::Memory => {
                let wanted = mebibytes(plan.memory_for(connections));
                (None, format!("so many take {wanted} MiB of available memory: free some, or add some"))
            }
            Subject::Group => more_of_the_group(facts, plan, connections),
        };
        Step { subject: self.subject.name().to_owned(), allows: Some(self.allows), command, note }
    }
}

/// A command, if there is one, and what to know about it.
type Remedy = (Option<String>, String);

fn more_descriptors(facts: &Facts, plan: &Plan, connections: u64) -> Remedy {
    let Ok(now) = facts.descriptors else { return (None, String::new()) };
    let wanted = plan.descriptors_for(connections, now);
    if wanted <= now.hard {
        // The soft limit alone: without -S a shell lowers the hard one as well, for good.
        let note = format!("in the shell that starts the server; in a systemd unit LimitNOFILE={wanted}:{}", now.hard);
        return (Some(format!("ulimit -Sn {wanted}")), note);
    }
    // No process may have a higher limit than fs.nr_open.
    let first = match facts.nr_open {
        Ok(most) if wanted > most => format!("sysctl -w fs.nr_open={wanted} && "),
        _ => String::new(),
    };
    let note = format!("as root, in the shell that starts the server; in a systemd unit LimitNOFILE={wanted}");
    (Some(format!("{first}prlimit --pid $$ --nofile={wanted}:{wanted}")), note)
}

fn more_of_the_group(facts: &Facts, plan: &Plan, connections: u64) -> Remedy {
    let Ok(Some(limit)) = &facts.memory_limit else { return (None, String::new()) };
    let wanted = mebibytes(limit.used.saturating_add(plan.memory_for(connections)));
    let note = if limit.file.ends_with("memory.high") {
        format!("as root; in a systemd unit MemoryHigh={wanted}M")
    } else {
        format!("as root; in a systemd unit MemoryMax={wanted}M; for a container --memory {wanted}m")
    };
    (Some(format!("echo {} > {}", wanted << 20, limit.file)), note)
}

/// What a key of the table is to be set to.
pub(super) fn value_of(key: &str, connections: u64, others: &Result<u64, String>) -> u64 {
    let others = others.as_ref().map_or(0, |count| *count);
    SYSCTLS.iter().find(|sysctl| sysctl.key == key).expect("a key of the table").value_for(connections, others)
}

/// How to set a key.
pub(super) fn set(key: &str, value: u64) -> Remedy {
    let note = format!("as root; it stays over a restart with {key} = {value} in a file of /etc/sysctl.d/");
    (Some(format!("sysctl -w {key}={value}")), note)
}

/// Whole MiB, rounded up.
pub(super) const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
