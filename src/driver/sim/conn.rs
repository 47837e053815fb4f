//! A connection as its peer holds it.

use super::world::World;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

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
