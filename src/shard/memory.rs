//! What a shard's sessions keep in memory together, and its bound.
//!
//! Counted are the bytes that queues hold for themselves, what their lists take, messages that have not come whole, and
//! each published message once, for as long as any session's queue refers to it.
//!
//! Relief comes in two steps. First the longest queues lose what their policies let go of. Where that is not enough, the
//! sessions end that keep most of what is out of reach: a send that its peer does not take, a message that does not come
//! whole. It goes on down to seven eighths, so that it is paid for by what has been queued since it was sought last.

use super::closing::CloseCause;
use super::core::Core;
use super::session::Stage;
use super::stats::DropReason;
use crate::base::key::Key;
use crate::base::limits::MEMORY_PLENTIFUL_PARTS;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Memory {
    max: usize,
    /// Of single sessions.
    own: usize,
    /// Of these, what sessions keep that end at the turn's end.
    ending: usize,
    /// Of published messages.
    pub(super) shared: SharedBytes,
    /// Whether relief was sought in this turn, and there was none.
    is_hopeless: bool,
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
        Self { max, own: 0, ending: 0, shared: SharedBytes::default(), is_hopeless: false }
    }

    pub(super) fn used(&self) -> usize {
        // What ends may have shrunk since.
        self.own.saturating_sub(self.ending) + self.shared.held()
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.used() > self.max
    }

    pub(super) fn is_plentiful(&self) -> bool {
        self.used() < self.max / MEMORY_PLENTIFUL_PARTS
    }

    /// Relief goes on until so much is used, lest it be sought again at once.
    const fn relieved_at(&self) -> usize {
        self.max - self.max / 8
    }

    /// A turn begins.
    pub(super) const fn begin_turn(&mut self) {
        self.is_hopeless = false;
    }

    /// A session that keeps so much ends at the turn's end …
    pub(super) const fn will_end(&mut self, bytes: usize) {
        self.ending += bytes;
    }

    /// … and all such have ended.
    pub(super) const fn have_ended(&mut self) {
        self.ending = 0;
    }

    /// Something that was charged for `before` is charged for `after` now.
    #[inline]
    pub(super) const fn recharge(&mut self, before: usize, after: usize) {
        self.own = self.own - before + after;
    }
}

impl<T> Core<T> {
    /// Whether the shard's memory is used up, and stays so after those that need most have been relieved of it.
    #[inline]
    pub(super) fn is_short_of_memory(&mut self) -> bool {
        self.memory.is_used_up() && !self.relieve_memory()
    }

    /// Seeks relief, once a turn. Answers whether it is enough.
    #[cold]
    fn relieve_memory(&mut self) -> bool {
        if !self.memory.is_hopeless {
            self.drop_from_longest_queues();
            self.end_largest();
            self.memory.is_hopeless = self.memory.is_used_up();
        }
        !self.memory.is_used_up()
    }

    fn is_relieved(&self) -> bool {
        self.memory.used() <= self.memory.relieved_at()
    }

    /// Takes from the sessions with the longest queues what their policies let go of, or ends them.
    fn drop_from_longest_queues(&mut self) {
        for (_, key) in self.by_size(|core, key| {
            let queue = core.sessions.get(key).and_then(|state| state.queue.as_ref());
            queue.map_or(0, |queue| queue.waiting_bytes())
        }) {
            if self.is_relieved() {
                return;
            }
            let ends = self.sessions.get(key).is_some_and(|state| self.options.get(state.options).pauses_when_high());
            while (ends || !self.is_relieved())
                && let Some(Some(old)) = self.change_queue(key, |queue, _, _| queue.drop_oldest(None))
            {
                self.note_dropped(key, old.topic.is_some(), old, DropReason::Memory);
            }
            if ends {
                self.doom(key, CloseCause::OutOfMemory);
            }
        }
    }

    /// Ends the sessions that keep most of what no policy reaches.
    fn end_largest(&mut self) {
        for (bytes, key) in self.by_size(|core, key| {
            let [queued, held] = core.out_of_reach(key);
            queued + held
        }) {
            if self.is_relieved() {
                return;
            }
            let [queued, held] = self.out_of_reach(key);
            let lives_on = self.sessions.get(key).is_some_and(|state| state.stage <= Stage::Closing);
            if lives_on && queued >= held {
                self.doom(key, CloseCause::OutOfMemory);
            } else if self.overfull.iter().all(|(other, _)| *other != key) {
                self.memory.will_end(bytes);
                self.overfull.push((key, !lives_on));
            }
        }
    }

    /// What a session keeps in a send that its peer does not take, and of a message that has not come whole.
    fn out_of_reach(&self, key: Key) -> [usize; 2] {
        let Some(state) = self.sessions.get(key).filter(|state| state.stage != Stage::Doomed) else { return [0, 0] };
        let sending = state.queue.as_ref().filter(|queue| queue.is_sending());
        [sending.map_or(0, |queue| queue.held_bytes()), state.decoder.held_bytes()]
    }

    /// All sessions of which `size` answers anything, the largest first.
    fn by_size(&self, size: impl Fn(&Self, Key) -> usize) -> Vec<(usize, Key)> {
        let keys = (0..self.sessions.slots()).filter_map(|index| self.sessions.key_at(index));
        let mut by_size: Vec<_> = keys.map(|key| (size(self, key), key)).filter(|(size, _)| *size > 0).collect();
        by_size.sort_unstable_by_key(|(size, _)| std::cmp::Reverse(*size));
        by_size
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
