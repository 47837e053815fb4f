//! What the simulated kernel knows and does: hosts, rings, operations in flight, connections, the clock.

use super::HostSizes;
use super::conn::{Pipe, ReadOutcome};
use crate::base::limits::SEND_BYTES_MAX;
use crate::driver::batch::Batch;
use crate::driver::buf_ring::BufRing;
use crate::driver::ring::{RingCompletion, Submission};
use crate::driver::token::{Operation, Token};
use crate::driver::waker::Waker;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many tokens of gone tenants are remembered for each slot, to come again.
const PAST_KEPT: usize = 4;

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
enum Task {
    Accept {
        many: bool,
    },
    Receive {
        slot: u32,
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

/// An operation in flight.
struct InFlight {
    token: Token,
    kind: Kind,
    /// It runs when this number comes up.
    planned: Option<u64>,
    /// A cancel has found it running.
    cancelled: bool,
}

enum Kind {
    Accept { many: bool },
    Receive { conn: usize },
    Send { conn: usize, bytes: Vec<u8>, done: usize },
    Shutdown { conn: usize },
    Close { conn: usize, slot: u32 },
    Poll { bell: Waker },
    Answer { result: i32 },
}

impl Kind {
    const fn conn(&self) -> Option<usize> {
        match self {
            Self::Receive { conn } | Self::Send { conn, .. } | Self::Shutdown { conn } | Self::Close { conn, .. } => {
                Some(*conn)
            }
            Self::Accept { .. } | Self::Poll { .. } | Self::Answer { .. } => None,
        }
    }
}

struct HostState {
    sizes: HostSizes,
    rings: Vec<usize>,
    listening: Arc<AtomicBool>,
    backlog: VecDeque<usize>,
    /// It waits in the kernel until then; `None`: it runs.
    waits_until: Option<u64>,
}

struct RingState {
    host: usize,
    submissions: VecDeque<(Task, Token)>,
    completions: VecDeque<RingCompletion>,
    operations: Slab<InFlight>,
    /// Operations that are to run: when, in which order, which.
    plan: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slots: Vec<Option<usize>>,
    past: Vec<VecDeque<Token>>,
    signal: Option<Waker>,
    buffers_out: usize,
}

struct ConnState {
    host: usize,
    place: Option<(usize, u32)>,
    peer: SocketAddr,
    window: usize,
    /// From the peer to the host.
    inward: Pipe,
    /// From the host to the peer.
    outward: Pipe,
    peer_closed: bool,
    host_closed: bool,
    reset_on_close: bool,
    /// The peer is to be told of something.
    touched: bool,
    /// The network broke it.
    was_broken: bool,
}

pub(super) struct World {
    random: fastrand::Rng,
    faults: Faults,
    now: u64,
    sequence: u64,
    hosts: Vec<HostState>,
    rings: Vec<RingState>,
    conns: Vec<ConnState>,
    touches: BinaryHeap<Reverse<(u64, u64, usize)>>,
    trace: DefaultHasher,
    tells: bool,
    violations: Vec<String>,
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

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random.u32(0..1000) < thousandths
    }

    /// From 1 to `max`, rather little or all of it.
    fn some_of(&mut self, max: usize) -> usize {
        match self.random.u8(0..4) {
            0 => 1,
            1 => max,
            _ => self.random.usize(1..=max),
        }
    }

    fn delay(&mut self) -> u64 {
        if self.chance(self.faults.late) {
            return self.random.u64(0..=nanos(self.faults.late_max));
        }
        if self.random.bool() { 0 } else { self.random.u64(0..=nanos(self.faults.delay_max)) }
    }

    const fn number(&mut self) -> u64 {
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

    fn record(&mut self, event: impl Hash + std::fmt::Debug) {
        (self.now, &event).hash(&mut self.trace);
        self.note(|| format!("{event:?}"));
    }

    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    fn violated(&mut self, what: String) {
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

    fn ring_is_due(&self, ring: usize) -> bool {
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
            Submission::Receive { slot, .. } => Task::Receive { slot },
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

    pub(super) fn wants_enter(&self, ring: usize) -> bool {
        let state = &self.rings[ring];
        !state.submissions.is_empty() || state.plan.peek().is_some_and(|Reverse((due, _, _))| *due <= self.now)
    }

    pub(super) fn enter(&mut self, ring: usize, buffers: &mut BufRing) {
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
                self.run(ring, key, buffers);
            }
        }
        self.ring_bells(ring);
        self.rings[ring].buffers_out = buffers.out();
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

    pub(super) fn reap(&mut self, ring: usize) -> Option<RingCompletion> {
        self.rings[ring].completions.pop_front()
    }

    // Operations

    fn begin(&mut self, ring: usize, task: Task, token: Token) {
        match task {
            Task::Accept { many } => {
                let key = self.start(ring, token, Kind::Accept { many });
                self.plan(ring, key);
            }
            Task::Receive { slot } => {
                if let Some(conn) = self.tenant(ring, slot, token) {
                    self.expect_no_other(ring, conn, token);
                    let key = self.start(ring, token, Kind::Receive { conn });
                    self.plan(ring, key);
                }
            }
            Task::Send { slot, bytes } => {
                if let Some(conn) = self.tenant(ring, slot, token) {
                    self.expect_no_other(ring, conn, token);
                    let key = self.start(ring, token, Kind::Send { conn, bytes, done: 0 });
                    self.plan(ring, key);
                }
            }
            Task::Shutdown { slot } => {
                if let Some(conn) = self.tenant(ring, slot, token) {
                    let key = self.start(ring, token, Kind::Shutdown { conn });
                    self.plan(ring, key);
                }
            }
            Task::Close { slot } => {
                if let Some(conn) = self.tenant(ring, slot, token) {
                    let busy = self.rings[ring].operations.iter().find(|(_, other)| other.kind.conn() == Some(conn));
                    if let Some((_, other)) = busy {
                        let what = format!("slot {slot} is closed while {:?} is in flight", other.token);
                        self.violated(what);
                    }
                    let key = self.start(ring, token, Kind::Close { conn, slot });
                    self.plan(ring, key);
                }
            }
            Task::CancelAll { target } => {
                let found = self.by_token(ring, target);
                if found.is_empty() {
                    self.tell(ring, token, -libc::ENOENT, false, None);
                }
                for key in found {
                    self.cancel(ring, key);
                }
            }
            Task::Cancel { target } => match self.by_token(ring, target).first() {
                Some(key) if self.chance(self.faults.missed_cancel) => {
                    if self.random.bool() {
                        return self.tell(ring, token, -libc::ENOENT, false, None);
                    }
                    self.rings[ring].operations[*key].cancelled = true;
                    self.plan(ring, *key);
                    self.tell(ring, token, -libc::EALREADY, false, None);
                }
                Some(key) => self.cancel(ring, *key),
                None => self.tell(ring, token, -libc::ENOENT, false, None),
            },
            Task::Poll { bell } => {
                self.start(ring, token, Kind::Poll { bell });
            }
            Task::ResetOnClose { slot } => {
                if let Some(conn) = self.rings[ring].slots[slot as usize] {
                    self.conns[conn].reset_on_close = true;
                }
            }
            Task::Answer { result } => {
                let key = self.start(ring, token, Kind::Answer { result });
                self.plan(ring, key);
            }
            Task::Silent => {}
        }
    }

    /// Whose slot it is; nobody's, and the operation ends.
    fn tenant(&mut self, ring: usize, slot: u32, token: Token) -> Option<usize> {
        let tenant = self.rings[ring].slots[slot as usize];
        if tenant.is_none() {
            self.violated(format!("{token:?} is submitted for slot {slot}, which has no tenant"));
            self.tell(ring, token, -libc::EBADF, false, None);
        }
        tenant
    }

    /// A link has one receive and one send in flight at most.
    fn expect_no_other(&mut self, ring: usize, conn: usize, token: Token) {
        let operations = &self.rings[ring].operations;
        let same = |other: &InFlight| other.kind.conn() == Some(conn) && other.token.operation == token.operation;
        if operations.iter().any(|(_, other)| same(other)) {
            self.violated(format!("{token:?} is submitted while another one is in flight"));
        }
    }

    fn start(&mut self, ring: usize, token: Token, kind: Kind) -> usize {
        self.rings[ring].operations.insert(InFlight { token, kind, planned: None, cancelled: false })
    }

    fn by_token(&self, ring: usize, token: Token) -> Vec<usize> {
        let operations = &self.rings[ring].operations;
        operations.iter().filter(|(_, operation)| operation.token == token).map(|(key, _)| key).collect()
    }

    /// Has an operation run after a while.
    fn plan(&mut self, ring: usize, key: usize) {
        if self.rings[ring].operations[key].planned.is_some() {
            return;
        }
        let (due, number) = (self.now.saturating_add(self.delay()), self.number());
        self.rings[ring].operations[key].planned = Some(number);
        self.rings[ring].plan.push(Reverse((due, number, key)));
    }

    /// Something has changed for the operations of this kind on a connection.
    fn wake(&mut self, conn: usize, operation: Operation) {
        let Some((ring, _)) = self.conns[conn].place else { return };
        let found = self.rings[ring]
            .operations
            .iter()
            .find(|(_, other)| other.kind.conn() == Some(conn) && other.token.operation == operation)
            .map(|(key, _)| key);
        if let Some(key) = found {
            self.plan(ring, key);
        }
    }

    fn wake_accept(&mut self, host: usize) {
        let mut accepts = Vec::new();
        for ring in &self.hosts[host].rings {
            let operations = self.rings[*ring].operations.iter();
            accepts.extend(
                operations
                    .filter(|(_, operation)| matches!(operation.kind, Kind::Accept { .. }))
                    .map(|(key, _)| (*ring, key)),
            );
        }
        if !accepts.is_empty() {
            let (ring, key) = accepts[self.random.usize(0..accepts.len())];
            self.plan(ring, key);
        }
    }

    fn cancel(&mut self, ring: usize, key: usize) {
        let result = match self.rings[ring].operations[key].kind {
            Kind::Send { done, .. } if done > 0 => done as i32,
            _ => -libc::ECANCELED,
        };
        self.complete(ring, key, result, false, None);
    }

    /// An operation tells something; it has ended unless there is more to come.
    fn complete(&mut self, ring: usize, key: usize, result: i32, more: bool, buffer: Option<u16>) {
        let token = self.rings[ring].operations[key].token;
        if !more {
            self.rings[ring].operations.remove(key);
        }
        self.tell(ring, token, result, more, buffer);
    }

    fn tell(&mut self, ring: usize, token: Token, result: i32, more: bool, buffer: Option<u16>) {
        self.record((ring, token.encode(), result, more, buffer));
        self.note(|| format!("  ring {ring}: {token:?} {result}"));
        self.rings[ring].completions.push_back(RingCompletion { token, result, more, buffer });
        if !more && matches!(token.operation, Operation::Receive | Operation::Send) {
            let slots = self.rings[ring].slots.len();
            let past = &mut self.rings[ring].past[token.key.index() % slots];
            past.push_back(token);
            if past.len() > PAST_KEPT {
                past.pop_front();
            }
        }
    }

    fn run(&mut self, ring: usize, key: usize, buffers: &mut BufRing) {
        if self.rings[ring].operations[key].cancelled {
            return self.cancel(ring, key);
        }
        match self.rings[ring].operations[key].kind {
            Kind::Accept { many } => self.run_accept(ring, key, many, buffers),
            Kind::Receive { conn } => self.run_receive(ring, key, conn, buffers),
            Kind::Send { conn, .. } => self.run_send(ring, key, conn),
            Kind::Shutdown { conn } => {
                let result = if self.conns[conn].inward.broken { -libc::ENOTCONN } else { 0 };
                self.conns[conn].outward.ended = true;
                self.touch(conn);
                self.complete(ring, key, result, false, None);
            }
            Kind::Close { conn, slot } => {
                self.host_closes(conn);
                self.rings[ring].slots[slot as usize] = None;
                self.complete(ring, key, 0, false, None);
            }
            Kind::Answer { result } => self.complete(ring, key, result, false, None),
            Kind::Poll { .. } => {}
        }
    }

    fn run_accept(&mut self, ring: usize, key: usize, many: bool, buffers: &mut BufRing) {
        let host = self.rings[ring].host;
        if !self.is_listening(host) {
            return;
        }
        let Some(conn) = self.hosts[host].backlog.pop_front() else { return };
        if self.chance(self.faults.refused_accept) {
            self.hosts[host].backlog.push_front(conn);
            let errno = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM][self.random.usize(0..4)];
            return self.complete(ring, key, -errno, false, None);
        }
        if self.conns[conn].inward.broken && self.random.bool() {
            self.conns[conn].host_closed = true;
            return self.complete(ring, key, -libc::ECONNABORTED, false, None);
        }
        let free: Vec<usize> = self.rings[ring]
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.is_none())
            .map(|(slot, _)| slot)
            .collect();
        let Some(slot) = free.first().copied() else {
            self.conns[conn].outward.broken = true;
            self.conns[conn].host_closed = true;
            self.touch(conn);
            return self.complete(ring, key, -libc::ENFILE, false, None);
        };
        // The lowest, as the kernel has it, or any.
        let slot = if self.random.bool() { slot } else { free[self.random.usize(0..free.len())] };
        self.rings[ring].slots[slot] = Some(conn);
        self.conns[conn].place = Some((ring, slot as u32));
        let more = many && !self.chance(self.faults.multishot_ends);
        self.complete(ring, key, slot as i32, more, None);
        if self.chance(self.faults.stale) {
            self.bring_stale(ring, slot, buffers);
        }
        if self.hosts[host].backlog.is_empty() {
            return;
        }
        if more {
            self.plan(ring, key);
        } else {
            self.wake_accept(host);
        }
    }

    /// A completion of the slot's last tenant comes, as if the kernel had kept it.
    fn bring_stale(&mut self, ring: usize, slot: usize, buffers: &mut BufRing) {
        let past = &self.rings[ring].past[slot];
        if past.is_empty() {
            return;
        }
        let token = past[self.random.usize(0..past.len())];
        let lent = if token.operation == Operation::Receive && self.random.bool() { buffers.take() } else { None };
        let completion = match lent {
            Some(id) => {
                let room = buffers.room(id);
                room.fill(0xee);
                RingCompletion { token, result: room.len() as i32, more: false, buffer: Some(id) }
            }
            None => RingCompletion { token, result: -libc::ECANCELED, more: false, buffer: None },
        };
        self.record(("stale", token.encode()));
        self.rings[ring].completions.push_back(completion);
    }

    fn run_receive(&mut self, ring: usize, key: usize, conn: usize, buffers: &mut BufRing) {
        if self.chance(self.faults.reset) {
            self.break_down(conn);
        }
        if !self.conns[conn].inward.is_readable() {
            return;
        }
        if self.chance(self.faults.again) {
            let errno = if self.random.bool() { libc::EAGAIN } else { libc::EINTR };
            return self.complete(ring, key, -errno, false, None);
        }
        let available = self.conns[conn].inward.bytes.len();
        if available == 0 {
            let result = if self.conns[conn].inward.broken { -libc::ECONNRESET } else { 0 };
            return self.complete(ring, key, result, false, None);
        }
        let Some(id) = buffers.take() else {
            return self.complete(ring, key, -libc::ENOBUFS, false, None);
        };
        let room = buffers.room(id);
        let most = available.min(room.len());
        let count = if self.chance(self.faults.short_read) { self.some_of(most) } else { most };
        let bytes = self.conns[conn].inward.take(count);
        room[..count].copy_from_slice(&bytes);
        bytes.hash(&mut self.trace);
        let more = !self.chance(self.faults.multishot_ends);
        self.complete(ring, key, count as i32, more, Some(id));
        if more && self.conns[conn].inward.is_readable() {
            self.plan(ring, key);
        }
        self.touch(conn);
    }

    fn run_send(&mut self, ring: usize, key: usize, conn: usize) {
        if self.chance(self.faults.reset) {
            self.break_down(conn);
        }
        let Kind::Send { bytes, done, .. } = &self.rings[ring].operations[key].kind else { return };
        let (total, done) = (bytes.len(), *done);
        let state = &self.conns[conn];
        if state.inward.broken || state.outward.broken {
            let result = match done {
                0 if self.random.bool() => -libc::EPIPE,
                0 => -libc::ECONNRESET,
                done => done as i32,
            };
            return self.complete(ring, key, result, false, None);
        }
        if state.peer_closed {
            // It leaves, and what comes back is a reset.
            self.conns[conn].inward.broken = true;
            self.wake(conn, Operation::Receive);
            return self.complete(ring, key, total as i32, false, None);
        }
        let room = state.window.saturating_sub(state.outward.bytes.len());
        let most = room.min(total - done);
        let is_short = self.chance(self.faults.short_write);
        let count = if is_short && most > 0 { self.some_of(most) } else { most };
        let Kind::Send { bytes, done, .. } = &mut self.rings[ring].operations[key].kind else { return };
        let part: Vec<u8> = bytes[*done..*done + count].to_vec();
        *done += count;
        let done = *done;
        self.conns[conn].outward.bytes.extend(part);
        if count > 0 {
            self.touch(conn);
        }
        if done == total || (is_short && done > 0 && self.random.bool()) {
            return self.complete(ring, key, done as i32, false, None);
        }
        if count < room {
            self.plan(ring, key);
        }
    }

    // Connections

    fn is_listening(&mut self, host: usize) -> bool {
        let listening = self.hosts[host].listening.load(Ordering::Relaxed);
        if !listening {
            for conn in std::mem::take(&mut self.hosts[host].backlog) {
                self.conns[conn].outward.broken = true;
                self.conns[conn].host_closed = true;
                self.touch(conn);
            }
        }
        listening
    }

    /// The host closes its socket: what the peer has not read stays, an end or a reset follows.
    fn host_closes(&mut self, conn: usize) {
        let state = &mut self.conns[conn];
        state.host_closed = true;
        state.place = None;
        if state.reset_on_close || !state.inward.bytes.is_empty() {
            state.outward.broken = true;
        } else {
            state.outward.ended = true;
        }
        if state.reset_on_close {
            // What was on its way is gone, however far it had come.
            let kept = self.random.usize(0..=self.conns[conn].outward.bytes.len());
            self.conns[conn].outward.bytes.truncate(kept);
        }
        self.touch(conn);
    }

    /// The network between them breaks.
    fn break_down(&mut self, conn: usize) {
        self.record(("reset", conn));
        let kept = self.random.usize(0..=self.conns[conn].outward.bytes.len());
        let state = &mut self.conns[conn];
        state.outward.bytes.truncate(kept);
        state.outward.broken = true;
        state.inward.broken = true;
        state.was_broken = true;
        self.wake(conn, Operation::Receive);
        self.wake(conn, Operation::Send);
        self.touch(conn);
    }

    /// The peer is told after a while that there is something for it.
    fn touch(&mut self, conn: usize) {
        if !std::mem::replace(&mut self.conns[conn].touched, true) {
            let (due, number) = (self.now.saturating_add(self.delay()), self.number());
            self.touches.push(Reverse((due, number, conn)));
        }
    }

    pub(super) fn next_touched(&mut self) -> Option<usize> {
        let Reverse((due, _, conn)) = self.touches.peek().copied()?;
        if due > self.now {
            return None;
        }
        self.touches.pop();
        self.conns[conn].touched = false;
        Some(conn)
    }

    pub(super) fn connect(&mut self, host: usize, peer: SocketAddr, window: usize) -> Option<usize> {
        if !self.is_listening(host) {
            return None;
        }
        let conn = self.conns.len();
        self.conns.push(ConnState {
            host,
            place: None,
            peer,
            window,
            inward: Pipe::default(),
            outward: Pipe::default(),
            peer_closed: false,
            host_closed: false,
            reset_on_close: false,
            touched: false,
            was_broken: false,
        });
        self.record(("connect", host, conn));
        self.hosts[host].backlog.push_back(conn);
        self.wake_accept(host);
        Some(conn)
    }

    pub(super) fn peer_writes(&mut self, conn: usize, bytes: &[u8]) -> Option<usize> {
        let state = &mut self.conns[conn];
        // A listener that is gone has reset those who waited.
        let waits_in_vain = state.place.is_none() && !state.host_closed && {
            let host = state.host;
            !self.is_listening(host)
        };
        let state = &mut self.conns[conn];
        if waits_in_vain || state.host_closed || state.outward.broken {
            state.outward.broken = true;
            self.touch(conn);
            return None;
        }
        let count = bytes.len().min(state.window.saturating_sub(state.inward.bytes.len()));
        state.inward.bytes.extend(&bytes[..count]);
        self.wake(conn, Operation::Receive);
        Some(count)
    }

    pub(super) fn peer_reads(&mut self, conn: usize, max: usize) -> ReadOutcome {
        let state = &mut self.conns[conn];
        let bytes = state.outward.take(max);
        if bytes.is_empty() {
            return match (state.outward.broken, state.outward.ended) {
                (true, _) => ReadOutcome::Reset,
                (false, true) => ReadOutcome::End,
                (false, false) => ReadOutcome::Nothing,
            };
        }
        bytes.hash(&mut self.trace);
        self.record(("read", conn, bytes.len()));
        self.wake(conn, Operation::Send);
        ReadOutcome::Bytes(bytes)
    }

    pub(super) fn peer_finishes(&mut self, conn: usize) {
        self.record(("finish", conn));
        self.conns[conn].inward.ended = true;
        self.wake(conn, Operation::Receive);
    }

    pub(super) fn peer_aborts(&mut self, conn: usize) {
        self.record(("abort", conn));
        let state = &mut self.conns[conn];
        state.peer_closed = true;
        state.inward.broken = true;
        state.outward.bytes.clear();
        self.wake(conn, Operation::Receive);
        self.wake(conn, Operation::Send);
    }

    pub(super) fn peer_closes(&mut self, conn: usize) {
        if !self.conns[conn].outward.bytes.is_empty() {
            return self.peer_aborts(conn);
        }
        self.peer_finishes(conn);
        self.conns[conn].peer_closed = true;
        self.wake(conn, Operation::Send);
    }
}

/// The bytes that a send carries: what the kernel would read of the batch.
fn submitted(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.submission_len());
    for part in batch.remaining() {
        let room = batch.submission_len() - bytes.len();
        bytes.extend_from_slice(&part[..part.len().min(room)]);
    }
    debug_assert!(bytes.len() <= SEND_BYTES_MAX);
    bytes
}
