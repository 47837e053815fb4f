//! What a shard's sessions keep in memory together, and its bound.
//!
//! Counted are the bytes that queues hold for themselves, what their lists take, messages that have not come whole, and
//! each published message once, for as long as any session's queue refers to it.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Memory {
    max: usize,
    /// Of single sessions.
    own: usize,
    /// Of published messages.
    pub(super) shared: SharedBytes,
    /// Whether relief was sought in this turn already.
    pub(super) relieved: bool,
}

/// Bytes that many sessions are sent, each piece counted once. The last reference to one may be dropped anywhere.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedBytes(Arc<AtomicUsize>);

impl SharedBytes {
    /// The same bytes, counted until the last reference to them is gone. Cost: one allocation.
    pub(super) fn count(&self, frame: Bytes) -> Bytes {
        self.0.fetch_add(frame.len(), Ordering::Relaxed);
        Bytes::from_owner(Counted { frame, shared: self.clone() })
    }

    pub(super) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A piece that says when it is gone.
struct Counted {
    frame: Bytes,
    shared: SharedBytes,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.0.fetch_sub(self.frame.len(), Ordering::Relaxed);
    }
}

impl Memory {
    pub(super) fn new(max: usize) -> Self {
        Self { max, own: 0, shared: SharedBytes::default(), relieved: false }
    }

    pub(super) fn used(&self) -> usize {
        self.own + self.shared.held()
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.used() > self.max
    }

    /// Relief goes on until so much is used, lest it be sought again at once.
    pub(super) const fn relieved_at(&self) -> usize {
        self.max - self.max / 8
    }

    /// Something that was charged for `before` is charged for `after` now.
    #[inline]
    pub(super) const fn recharge(&mut self, before: usize, after: usize) {
        self.own = self.own - before + after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Prepared;

    #[test]
    fn a_published_message_counts_once_and_until_its_last_reference_is_gone() {
        let mut memory = Memory::new(100);
        let message = Prepared::new(&[7; 98]);
        let first = memory.shared.count(message.frame().clone());
        let second = first.clone();
        assert_eq!((&first[..], memory.used()), (&message.frame()[..], 100));
        assert!(!memory.is_used_up());
        memory.recharge(0, 1);
        assert!(memory.is_used_up());
        drop(first);
        assert_eq!(memory.used(), 101);
        drop(second);
        memory.recharge(1, 0);
        assert_eq!(memory.used(), 0);
    }
}
