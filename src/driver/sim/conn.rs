//! Connections: as their peers hold them, and what becomes of their bytes.

use super::world::{ConnState, World};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::hash::Hash;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// One direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// Bytes on their way.
    pub(super) bytes: VecDeque<u8>,
    /// The writer has ended it: after these bytes comes the end.
    pub(super) ended: bool,
    /// It broke: after these bytes comes a reset.
    pub(super) broken: bool,
}

impl Pipe {
    /// Takes up to `count` bytes out.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.bytes.len());
        self.bytes.drain(..count).collect()
    }

    /// Whether a reader would not have to wait.
    pub(super) fn is_readable(&self) -> bool {
        !self.bytes.is_empty() || self.ended || self.broken
    }
}

/// What a peer's read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// These bytes, at least one.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The end of the stream.
    End,
    /// A reset.
    Reset,
}

/// A peer's end of a connection.
pub struct Conn {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) id: usize,
}

impl Conn {
    /// Its number: the first connection of a network is 0.
    pub const fn number(&self) -> usize {
        self.id
    }

    /// Writes as much as the window takes. `None` if the other side is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Option<usize> {
        self.world.borrow_mut().peer_writes(self.id, bytes)
    }

    /// Reads up to `max` bytes.
    pub fn read(&mut self, max: usize) -> ReadOutcome {
        self.world.borrow_mut().peer_reads(self.id, max)
    }

    /// Ends our side of the stream.
    pub fn finish(&mut self) {
        self.world.borrow_mut().peer_finishes(self.id);
    }

    /// Breaks the connection: the other side sees a reset.
    pub fn abort(&mut self) {
        self.world.borrow_mut().peer_aborts(self.id);
    }

    /// Closes the socket: an end of stream, or a reset where something has not been read.
    pub fn close(&mut self) {
        self.world.borrow_mut().peer_closes(self.id);
    }
}

impl World {
    pub(super) fn is_listening(&mut self, host: usize) -> bool {
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
    pub(super) fn host_closes(&mut self, conn: usize) {
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
    pub(super) fn break_down(&mut self, conn: usize) {
        self.record(("reset", conn));
        let kept = self.random.usize(0..=self.conns[conn].outward.bytes.len());
        let state = &mut self.conns[conn];
        state.outward.bytes.truncate(kept);
        state.outward.broken = true;
        state.inward.broken = true;
        state.was_broken = true;
        self.wake_receive(conn);
        self.wake_send(conn);
        self.touch(conn);
    }

    /// The peer is told after a while that there is something for it.
    pub(super) fn touch(&mut self, conn: usize) {
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
        self.wake_receive(conn);
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
        self.wake_send(conn);
        ReadOutcome::Bytes(bytes)
    }

    pub(super) fn peer_finishes(&mut self, conn: usize) {
        self.record(("finish", conn));
        self.conns[conn].inward.ended = true;
        self.wake_receive(conn);
    }

    pub(super) fn peer_aborts(&mut self, conn: usize) {
        self.record(("abort", conn));
        let state = &mut self.conns[conn];
        state.peer_closed = true;
        state.inward.broken = true;
        state.outward.bytes.clear();
        self.wake_receive(conn);
        self.wake_send(conn);
    }

    pub(super) fn peer_closes(&mut self, conn: usize) {
        if !self.conns[conn].outward.bytes.is_empty() {
            return self.peer_aborts(conn);
        }
        self.peer_finishes(conn);
        self.conns[conn].peer_closed = true;
        self.wake_send(conn);
    }
}
