//! Operations of the simulated kernel: how they begin, when they run, what they tell.

use super::world::{InFlight, Into, Kind, PAST_KEPT, Task, World};
use crate::driver::buf_ring::Pools;
use crate::driver::ring::RingCompletion;
use crate::driver::token::{Operation, Token};
use std::cmp::Reverse;
use std::hash::Hash;

impl World {
    pub(super) fn begin(&mut self, ring: usize, task: Task, token: Token) {
        match task {
            Task::Accept { many } => {
                let key = self.start(ring, token, Kind::Accept { many });
                self.plan(ring, key);
            }
            Task::Receive { slot, into } => {
                if let Some(conn) = self.tenant(ring, slot, token) {
                    self.expect_no_other(ring, conn, token);
                    let key = self.start(ring, token, Kind::Receive { conn, into });
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
    pub(super) fn tenant(&mut self, ring: usize, slot: u32, token: Token) -> Option<usize> {
        let tenant = self.rings[ring].slots[slot as usize];
        if tenant.is_none() {
            self.violated(format!("{token:?} is submitted for slot {slot}, which has no tenant"));
            self.tell(ring, token, -libc::EBADF, false, None);
        }
        tenant
    }

    /// A link has one receive and one send in flight at most.
    pub(super) fn expect_no_other(&mut self, ring: usize, conn: usize, token: Token) {
        let operations = &self.rings[ring].operations;
        let both_receive = |other: Operation| other.is_receive() && token.operation.is_receive();
        let same = |other: Operation| other == token.operation || both_receive(other);
        if operations.iter().any(|(_, other)| other.kind.conn() == Some(conn) && same(other.token.operation)) {
            self.violated(format!("{token:?} is submitted while another one is in flight"));
        }
    }

    pub(super) fn start(&mut self, ring: usize, token: Token, kind: Kind) -> usize {
        self.rings[ring].operations.insert(InFlight { token, kind, planned: None, cancelled: false })
    }

    pub(super) fn by_token(&self, ring: usize, token: Token) -> Vec<usize> {
        let operations = &self.rings[ring].operations;
        operations.iter().filter(|(_, operation)| operation.token == token).map(|(key, _)| key).collect()
    }

    /// Has an operation run after a while.
    pub(super) fn plan(&mut self, ring: usize, key: usize) {
        if self.rings[ring].operations[key].planned.is_some() {
            return;
        }
        let (due, number) = (self.now.saturating_add(self.delay()), self.number());
        self.rings[ring].operations[key].planned = Some(number);
        self.rings[ring].plan.push(Reverse((due, number, key)));
    }

    /// Something has changed for the receive of a connection.
    pub(super) fn wake_receive(&mut self, conn: usize) {
        self.wake(conn, |kind| matches!(kind, Kind::Receive { .. }));
    }

    /// Something has changed for the send of a connection.
    pub(super) fn wake_send(&mut self, conn: usize) {
        self.wake(conn, |kind| matches!(kind, Kind::Send { .. }));
    }

    fn wake(&mut self, conn: usize, is_meant: impl Fn(&Kind) -> bool) {
        let Some((ring, _)) = self.conns[conn].place else { return };
        let mut operations = self.rings[ring].operations.iter();
        let found = operations.find(|(_, other)| other.kind.conn() == Some(conn) && is_meant(&other.kind));
        if let Some((key, _)) = found {
            self.plan(ring, key);
        }
    }

    pub(super) fn wake_accept(&mut self, host: usize) {
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

    pub(super) fn cancel(&mut self, ring: usize, key: usize) {
        let result = match self.rings[ring].operations[key].kind {
            Kind::Send { done, .. } if done > 0 => done as i32,
            _ => -libc::ECANCELED,
        };
        self.complete(ring, key, result, false, None);
    }

    /// An operation tells something; it has ended unless there is more to come.
    pub(super) fn complete(&mut self, ring: usize, key: usize, result: i32, more: bool, buffer: Option<u16>) {
        let token = self.rings[ring].operations[key].token;
        if !more {
            self.rings[ring].operations.remove(key);
        }
        self.tell(ring, token, result, more, buffer);
    }

    pub(super) fn tell(&mut self, ring: usize, token: Token, result: i32, more: bool, buffer: Option<u16>) {
        self.record((ring, token.encode(), result, more, buffer));
        self.note(|| format!("  ring {ring}: {token:?} {result}"));
        self.rings[ring].completions.push_back(RingCompletion { token, result, more, buffer });
        if !more && (token.operation.is_receive() || token.operation == Operation::Send) {
            let slots = self.rings[ring].slots.len();
            let past = &mut self.rings[ring].past[token.key.index() % slots];
            past.push_back(token);
            if past.len() > PAST_KEPT {
                past.pop_front();
            }
        }
    }

    pub(super) fn run(&mut self, ring: usize, key: usize, pools: &mut Pools) {
        if self.rings[ring].operations[key].cancelled {
            return self.cancel(ring, key);
        }
        match self.rings[ring].operations[key].kind {
            Kind::Accept { many } => self.run_accept(ring, key, many, pools),
            Kind::Receive { conn, into } => self.run_receive(ring, key, conn, into, pools),
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

    pub(super) fn run_accept(&mut self, ring: usize, key: usize, many: bool, pools: &mut Pools) {
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
            .take(self.rings[ring].slots_end)
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
            self.bring_stale(ring, slot, pools);
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
    pub(super) fn bring_stale(&mut self, ring: usize, slot: usize, pools: &mut Pools) {
        let past = &self.rings[ring].past[slot];
        if past.is_empty() {
            return;
        }
        let token = past[self.random.usize(0..past.len())];
        let lent = token.operation.pool().filter(|_| self.random.bool()).map(|pool| pools.of(pool));
        let completion = match lent.and_then(|buffers| Some((buffers.hand_out()?, buffers))) {
            Some((id, buffers)) => {
                let room = buffers.room(id);
                room.fill(0xee);
                RingCompletion { token, result: room.len() as i32, more: false, buffer: Some(id) }
            }
            None => RingCompletion { token, result: -libc::ECANCELED, more: false, buffer: None },
        };
        self.record(("stale", token.encode()));
        self.rings[ring].completions.push_back(completion);
    }

    pub(super) fn run_receive(&mut self, ring: usize, key: usize, conn: usize, into: Into, pools: &mut Pools) {
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
        let (most, many) = match into {
            Into::Room(room) => (room.len as usize, false),
            Into::Pool { pool, many } => (pools.of(pool).bytes_each(), many),
        };
        let most = available.min(most);
        let count = if self.chance(self.faults.short_read) { self.some_of(most) } else { most };
        let buffer = match into {
            Into::Room(_) => None,
            Into::Pool { pool, .. } => match pools.of(pool).hand_out() {
                Some(id) => Some(id),
                None => return self.complete(ring, key, -libc::ENOBUFS, false, None),
            },
        };
        let bytes = self.conns[conn].inward.take(count);
        match (into, buffer) {
            (Into::Pool { pool, .. }, Some(id)) => pools.of(pool).room(id)[..count].copy_from_slice(&bytes),
            (Into::Room(room), _) => room.write(&bytes),
            (Into::Pool { .. }, None) => unreachable!("it has one, or has ended"),
        }
        bytes.hash(&mut self.trace);
        let more = many && !self.chance(self.faults.multishot_ends);
        self.complete(ring, key, count as i32, more, buffer);
        if more && self.conns[conn].inward.is_readable() {
            self.plan(ring, key);
        }
        self.touch(conn);
    }

    pub(super) fn run_send(&mut self, ring: usize, key: usize, conn: usize) {
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
            self.wake_receive(conn);
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
}
