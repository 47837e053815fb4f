//! What the simulated kernel knows and does: hosts, rings, operations in flight, connections, the clock.

use super::HostSizes;
use super::conn::Pipe;
use crate::base::limits::{SEND_BYTES_MAX, SEND_BYTES_MORE};
use crate::driver::batch::Batch;
use crate::driver::block::RoomTarget;
use crate::driver::buf_ring::{Pool, Pools};
use crate::driver::ring::{RingCompletion, Submission};
use crate::driver::token::Token;
use crate::driver::waker::Waker;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How many tokens of gone tenants are remembered for each slot, to come again.
pub(super) const PAST_KEPT: usize = 4;

/// What goes wrong, and how often: chances are in thousandths of the occasions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A receive brings one byte, or some, of what is there.
    pub short_read: u32,
    /// A send ends, or pauses, with a part.
    pub short_write: u32,
    /// A multishot operation ends with a completion that is no error.
    pub multishot_ends: u32,
    /// A receive ends with EAGAIN or EINTR.
    pub again: u32,
    /// The kernel refuses to take submissions for the moment (EAGAIN).
    pub refused_submit: u32,
    /// A cancel does not find its target, which goes on (ENOENT), or finds it running (EALREADY).
    pub missed_cancel: u32,
    /// An accept is refused (EMFILE, ENFILE, ENOBUFS, ENOMEM).
    pub refused_accept: u32,
    /// A further ring is refused (EMFILE).
    pub refused_ring: u32,
    /// A completion of a gone tenant comes again when its slot has the next one.
    pub stale: u32,
    /// A connection breaks.
    pub reset: u32,
    /// Something happens late.
    pub late: u32,
    /// How late at most.
    pub late_max: Duration,
    /// How long it takes otherwise, at most.
    pub delay_max: Duration,
}

/// What a host has not given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Operations in flight, but for accepts and polls.
    pub operations: usize,
    /// Slots of descriptor tables that are taken.
    pub slots: usize,
    /// Receive buffers that are not with the kernel.
    pub buffers: usize,
    /// Completions that nobody has taken, submissions that nobody has handed over.
    pub queued: usize,
}

/// A submission without what it borrowed.
pub(super) enum Task {
    Accept {
        many: bool,
    },
    Receive {
        slot: u32,
        into: Into,
    },
    Send {
        slot: u32,
        bytes: Vec<u8>,
    },
    Shutdown {
        slot: u32,
    },
    Close {
        slot: u32,
    },
    CancelAll {
        target: Token,
    },
    Cancel {
        target: Token,
    },
    Poll {
        bell: Waker,
    },
    ResetOnClose {
        slot: u32,
    },
    /// Completes with this.
    Answer {
        result: i32,
    },
    /// Completes only if it fails, which it does not.
    Silent,
}

/// What a receive is served from.
#[derive(Clone, Copy)]
pub(super) enum Into {
    Pool { pool: Pool, many: bool },
    Room(RoomTarget),
}

/// An operation in flight.
pub(super) struct InFlight {
    pub(super) token: Token,
    pub(super) kind: Kind,
    /// It runs when this number comes up.
    pub(super) planned: Option<u64>,
    /// A cancel has found it running.
    pub(super) cancelled: bool,
}

pub(super) enum Kind {
    Accept { many: bool },
    Receive { conn: usize, into: Into },
    Send { conn: usize, bytes: Vec<u8>, done: usize },
    Shutdown { conn: usize },
    Close { conn: usize, slot: u32 },
    Poll { bell: Waker },
    Answer { result: i32 },
}

impl Kind {
    pub(super) const fn conn(&self) -> Option<usize> {
        match self {
            Self::Receive { conn, .. }
            | Self::Send { conn, .. }
            | Self::Shutdown { conn }
            | Self::Close { conn, .. } => Some(*conn),
            Self::Accept { .. } | Self::Poll { .. } | Self::Answer { .. } => None,
        }
    }
}

pub(super) struct HostState {
    pub(super) sizes: HostSizes,
    pub(super) rings: Vec<usize>,
    pub(super) listening: Arc<AtomicBool>,
    pub(super) backlog: VecDeque<usize>,
    /// It waits in the kernel until then; `None`: it runs.
    pub(super) waits_until: Option<u64>,
}

pub(super) struct RingState {
    pub(super) host: usize,
    pub(super) submissions: VecDeque<(Task, Token)>,
    pub(super) completions: VecDeque<RingCompletion>,
    pub(super) operations: Slab<InFlight>,
    /// Operations that are to run: when, in which order, which.
    pub(super) plan: BinaryHeap<Reverse<(u64, u64, usize)>>,
    pub(super) slots: Vec<Option<usize>>,
    /// Those from here on are not handed out.
    pub(super) slots_end: usize,
    pub(super) past: Vec<VecDeque<Token>>,
    pub(super) signal: Option<Waker>,
    pub(super) buffers_out: usize,
}

pub(super) struct ConnState {
    pub(super) host: usize,
    pub(super) place: Option<(usize, u32)>,
    pub(super) peer: SocketAddr,
    pub(super) window: usize,
    /// From the peer to the host.
    pub(super) inward: Pipe,
    /// From the host to the peer.
    pub(super) outward: Pipe,
    pub(super) peer_closed: bool,
    pub(super) host_closed: bool,
    pub(super) reset_on_close: bool,
    /// The peer is to be told of something.
    pub(super) touched: bool,
    /// The network broke it.
    pub(super) was_broken: bool,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) faults: Faults,
    pub(super) now: u64,
    pub(super) sequence: u64,
    pub(super) hosts: Vec<HostState>,
    pub(super) rings: Vec<RingState>,
    pub(super) conns: Vec<ConnState>,
    pub(super) touches: BinaryHeap<Reverse<(u64, u64, usize)>>,
    pub(super) trace: DefaultHasher,
    pub(super) tells: bool,
    pub(super) violations: Vec<String>,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            faults,
            now: 0,
            sequence: 0,
            hosts: Vec::new(),
            rings: Vec::new(),
            conns: Vec::new(),
            touches: BinaryHeap::new(),
            trace: DefaultHasher::new(),
            tells: false,
            violations: Vec::new(),
        }
    }

    // Chance, time, evidence

    pub(super) fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random.u32(0..1000) < thousandths
    }

    /// From 1 to `max`, rather little or all of it.
    pub(super) fn some_of(&mut self, max: usize) -> usize {
        match self.random.u8(0..4) {
            0 => 1,
            1 => max,
            _ => self.random.usize(1..=max),
        }
    }

    pub(super) fn delay(&mut self) -> u64 {
        if self.chance(self.faults.late) {
            return self.random.u64(0..=nanos(self.faults.late_max));
        }
        if self.random.bool() { 0 } else { self.random.u64(0..=nanos(self.faults.delay_max)) }
    }

    pub(super) const fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn pass(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(nanos(duration));
    }

    pub(super) fn heal(&mut self) {
        self.faults = Faults { delay_max: Duration::from_micros(50), ..Faults::default() };
        // What was put off comes now.
        for ring in &mut self.rings {
            ring.plan = ring
                .plan
                .drain()
                .map(|Reverse((due, number, key))| Reverse((due.min(self.now), number, key)))
                .collect();
        }
        let now = self.now;
        self.touches =
            self.touches.drain().map(|Reverse((due, number, conn))| Reverse((due.min(now), number, conn))).collect();
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }

    pub(super) const fn tell_trace(&mut self) {
        self.tells = true;
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>14.6}  {}", Duration::from_nanos(self.now).as_secs_f64(), what());
        }
    }

    pub(super) fn record(&mut self, event: impl Hash + std::fmt::Debug) {
        (self.now, &event).hash(&mut self.trace);
        self.note(|| format!("{event:?}"));
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(super) fn violated(&mut self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.violations.push(what);
    }

    // Hosts and rings

    pub(super) fn add_host(&mut self, sizes: HostSizes) -> usize {
        self.hosts.push(HostState {
            sizes,
            rings: Vec::new(),
            listening: Arc::default(),
            backlog: VecDeque::new(),
            waits_until: None,
        });
        self.hosts.len() - 1
    }

    pub(super) fn listen(&mut self, host: usize) -> Arc<AtomicBool> {
        let listening = Arc::new(AtomicBool::new(true));
        self.hosts[host].listening = listening.clone();
        listening
    }

    pub(super) fn table_slots(&self, host: usize) -> u32 {
        self.hosts[host].sizes.table_slots
    }

    pub(super) fn add_ring(&mut self, host: usize, slots: u32, signal: Option<Waker>) -> io::Result<usize> {
        if signal.is_some() && self.chance(self.faults.refused_ring) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let number = self.rings.len();
        self.rings.push(RingState {
            host,
            submissions: VecDeque::new(),
            completions: VecDeque::new(),
            operations: Slab::new(),
            plan: BinaryHeap::new(),
            slots: vec![None; slots as usize],
            slots_end: slots as usize,
            past: vec![VecDeque::new(); slots as usize],
            signal,
            buffers_out: 0,
        });
        self.hosts[host].rings.push(number);
        Ok(number)
    }

    /// The driver is gone, and its sockets with it.
    pub(super) fn end_ring(&mut self, ring: usize) {
        let conns: Vec<usize> = self.rings[ring].slots.iter().flatten().copied().collect();
        for conn in conns {
            self.host_closes(conn);
        }
        let host = self.rings[ring].host;
        self.hosts[host].rings.retain(|other| *other != ring);
        let state = &mut self.rings[ring];
        state.slots.fill(None);
        state.operations.clear();
        state.plan.clear();
        state.submissions.clear();
        state.completions.clear();
    }

    pub(super) fn ring_is_due(&self, ring: usize) -> bool {
        let state = &self.rings[ring];
        !state.completions.is_empty() || state.plan.peek().is_some_and(|Reverse((due, _, _))| *due <= self.now)
    }

    pub(super) fn host_is_due(&self, host: usize) -> bool {
        self.host_due_at(host).is_some_and(|due| due <= self.now)
    }

    pub(super) fn host_due_at(&self, host: usize) -> Option<u64> {
        let state = &self.hosts[host];
        let first = *state.rings.first()?;
        let Some(until) = state.waits_until else { return Some(self.now) };
        let rung = self.rings[first].operations.iter().any(|(_, operation)| match &operation.kind {
            Kind::Poll { bell } => bell.has_rung(),
            _ => false,
        });
        if rung || state.rings.iter().any(|ring| self.ring_is_due(*ring)) {
            return Some(self.now);
        }
        let planned =
            state.rings.iter().filter_map(|ring| self.rings[*ring].plan.peek().map(|Reverse((due, _, _))| *due));
        planned.chain((until < u64::MAX).then_some(until)).min()
    }

    pub(super) fn next_event(&self) -> Option<u64> {
        let hosts = (0..self.hosts.len()).filter_map(|host| self.host_due_at(host));
        hosts.chain(self.touches.peek().map(|Reverse((due, _, _))| *due)).min()
    }

    pub(super) fn leftovers(&self, host: usize) -> Leftovers {
        let mut left = Leftovers::default();
        for ring in self.hosts[host].rings.iter().map(|ring| &self.rings[*ring]) {
            let lasting = |operation: &InFlight| !matches!(operation.kind, Kind::Accept { .. } | Kind::Poll { .. });
            left.operations += ring.operations.iter().filter(|(_, operation)| lasting(operation)).count();
            left.slots += ring.slots.iter().flatten().count();
            left.buffers += ring.buffers_out;
            left.queued += ring.completions.len() + ring.submissions.len();
        }
        left
    }

    pub(super) fn has_broken(&self, conn: usize) -> bool {
        self.conns[conn].was_broken
    }

    // What the driver calls

    pub(super) fn push(&mut self, ring: usize, submission: &Submission<'_>, token: Token) -> bool {
        let host = self.rings[ring].host;
        if self.rings[ring].submissions.len() >= self.hosts[host].sizes.submissions {
            return false;
        }
        let task = self.task(ring, submission);
        self.rings[ring].submissions.push_back((task, token));
        true
    }

    fn task(&self, ring: usize, submission: &Submission<'_>) -> Task {
        match *submission {
            Submission::AcceptMany { .. } => Task::Accept { many: true },
            Submission::AcceptOne { .. } => Task::Accept { many: false },
            Submission::ReceiveMany { slot, pool, .. } => Task::Receive { slot, into: Into::Pool { pool, many: true } },
            Submission::ReceiveOne { slot, pool, .. } => Task::Receive { slot, into: Into::Pool { pool, many: false } },
            Submission::ReceiveInto { slot, room, .. } => Task::Receive { slot, into: Into::Room(room) },
            Submission::Send { slot, batch } => Task::Send { slot, bytes: submitted(batch) },
            Submission::ShutdownWrite { slot } => Task::Shutdown { slot },
            Submission::Close { slot } => Task::Close { slot },
            Submission::CancelAll { target } => Task::CancelAll { target },
            Submission::Cancel { target } => Task::Cancel { target },
            Submission::Poll { bell } => Task::Poll { bell: bell.clone() },
            Submission::SetResetOnClose { slot } => Task::ResetOnClose { slot },
            Submission::PeerAddress { slot, room, .. } => {
                let state = &self.rings[ring];
                let result = match state.slots[slot as usize] {
                    _ if !self.hosts[state.host].sizes.knows_peers => -libc::EOPNOTSUPP,
                    Some(conn) => room.write(self.conns[conn].peer) as i32,
                    None => -libc::EBADF,
                };
                Task::Answer { result }
            }
            Submission::SetNoDelay { .. } | Submission::SetBindAddressOnly { .. } => Task::Silent,
            // Nobody in a simulation opens connections from a host.
            Submission::Socket { .. } | Submission::Bind { .. } | Submission::Connect { .. } => {
                Task::Answer { result: -libc::EOPNOTSUPP }
            }
        }
    }

    pub(super) fn limit_slots(&mut self, ring: usize, end: u32) {
        self.rings[ring].slots_end = end as usize;
    }

    pub(super) fn wants_enter(&self, ring: usize) -> bool {
        let state = &self.rings[ring];
        !state.submissions.is_empty() || state.plan.peek().is_some_and(|Reverse((due, _, _))| *due <= self.now)
    }

    pub(super) fn enter(&mut self, ring: usize, pools: &mut Pools) {
        if !self.rings[ring].submissions.is_empty() && self.chance(self.faults.refused_submit) {
            // EAGAIN.
            return;
        }
        while let Some((task, token)) = self.rings[ring].submissions.pop_front() {
            self.begin(ring, task, token);
        }
        while let Some(Reverse((due, number, key))) = self.rings[ring].plan.peek().copied() {
            if due > self.now {
                break;
            }
            self.rings[ring].plan.pop();
            let operation =
                self.rings[ring].operations.get_mut(key).filter(|operation| operation.planned == Some(number));
            if let Some(operation) = operation {
                operation.planned = None;
                self.run(ring, key, pools);
            }
        }
        self.ring_bells(ring);
        self.rings[ring].buffers_out = pools.out();
    }

    fn ring_bells(&mut self, ring: usize) {
        let host = self.rings[ring].host;
        for other in self.hosts[host].rings.clone() {
            if other != ring
                && self.ring_is_due(other)
                && let Some(signal) = &self.rings[other].signal
            {
                signal.wake();
            }
        }
        let rung: Vec<usize> = self.rings[ring]
            .operations
            .iter()
            .filter(|(_, operation)| matches!(&operation.kind, Kind::Poll { bell } if bell.take_rung()))
            .map(|(key, _)| key)
            .collect();
        for key in rung {
            let more = !self.chance(self.faults.multishot_ends);
            self.complete(ring, key, i32::from(libc::POLLIN), more, None);
        }
    }

    pub(super) fn begin_wait(&mut self, ring: usize, want: usize, timeout: Option<Duration>) {
        let host = self.rings[ring].host;
        let has_completions = self.hosts[host].rings.iter().any(|ring| !self.rings[*ring].completions.is_empty());
        let was_refused = !self.rings[ring].submissions.is_empty();
        let runs_on = want == 0 || was_refused || has_completions || timeout == Some(Duration::ZERO);
        let until = timeout.map_or(u64::MAX, |timeout| self.now.saturating_add(nanos(timeout)));
        self.hosts[host].waits_until = (!runs_on).then_some(until);
    }

    pub(super) fn has_completions(&self, ring: usize) -> bool {
        !self.rings[ring].completions.is_empty()
    }

    pub(super) fn has_submissions(&self, ring: usize) -> bool {
        !self.rings[ring].submissions.is_empty()
    }

    pub(super) fn reap(&mut self, ring: usize) -> Option<RingCompletion> {
        self.rings[ring].completions.pop_front()
    }
}

/// The bytes that a send carries: what the kernel would read of the batch.
fn submitted(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.submission_len());
    for part in batch.remaining() {
        let room = batch.submission_len() - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(room)]);
    }
    debug_assert!(bytes.len() <= SEND_BYTES_MAX + SEND_BYTES_MORE);
    bytes
}
