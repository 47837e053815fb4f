//! Who is held back for whom: sessions that fill the queues of sessions with `Policy::PauseProducer`.
//!
//! Nothing stands here while nobody is held back.

use super::mailbox::SessionKey;
use crate::base::key::Key;
use std::collections::HashMap;
use std::sync::Arc;

/// What one consumer's long queue holds up.
#[derive(Debug, Default)]
pub(super) struct HeldUp {
    /// Sessions of any shard that filled it.
    pub(super) sessions: Vec<SessionKey>,
    /// Topics on which other threads filled it.
    pub(super) topics: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Producers {
    by_consumer: HashMap<Key, HeldUp>,
    /// For how many consumers each of this shard's sessions is held back.
    holds: HashMap<Key, u32>,
}

impl Producers {
    /// `producer` is to be held back for `consumer`. `false` if it is already.
    pub(super) fn hold_up(&mut self, consumer: Key, producer: SessionKey) -> bool {
        let sessions = &mut self.by_consumer.entry(consumer).or_default().sessions;
        let new = !sessions.contains(&producer);
        if new {
            sessions.push(producer);
        }
        new
    }

    /// Other threads are to hold back on `topic` for `consumer`. `None` if they do already.
    pub(super) fn hold_up_topic(&mut self, consumer: Key, topic: &str) -> Option<Arc<str>> {
        let topics = &mut self.by_consumer.entry(consumer).or_default().topics;
        if topics.iter().any(|held| **held == *topic) {
            return None;
        }
        topics.push(topic.into());
        topics.last().cloned()
    }

    /// Whether anybody is held back for a consumer of this shard.
    #[inline]
    pub(super) fn holds_up_any(&self) -> bool {
        !self.by_consumer.is_empty()
    }

    /// A consumer's queue is short again, or it is gone.
    pub(super) fn let_go(&mut self, consumer: Key) -> Option<HeldUp> {
        self.by_consumer.remove(&consumer)
    }

    /// One more consumer for which a session of this shard is held back.
    pub(super) fn hold(&mut self, producer: Key) {
        *self.holds.entry(producer).or_default() += 1;
    }

    /// One consumer fewer. Answers whether it was the last.
    pub(super) fn release(&mut self, producer: Key) -> bool {
        let Some(count) = self.holds.get_mut(&producer) else { return false };
        *count -= 1;
        if *count == 0 {
            self.holds.remove(&producer);
            return true;
        }
        false
    }

    /// A session of this shard is gone.
    pub(super) fn forget(&mut self, producer: Key) {
        if !self.holds.is_empty() {
            self.holds.remove(&producer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_held_once_for_each_consumer_and_free_after_the_last() {
        let key = |index| Key::new(index, 0);
        let producer = SessionKey { shard: 1, key: key(9) };
        let mut producers = Producers::default();
        assert!(producers.hold_up(key(1), producer));
        assert!(!producers.hold_up(key(1), producer));
        assert!(producers.hold_up(key(2), producer));
        producers.hold(key(9));
        producers.hold(key(9));
        assert_eq!(producers.let_go(key(1)).expect("held up").sessions, [producer]);
        assert!(!producers.release(key(9)));
        assert!(producers.let_go(key(1)).is_none());
        assert!(producers.release(key(9)));
        assert!(!producers.release(key(9)), "it is forgotten");
        assert!(producers.hold_up_topic(key(3), "a").is_some());
        assert!(producers.hold_up_topic(key(3), "a").is_none());
        assert_eq!(producers.let_go(key(3)).expect("held up").topics.len(), 1);
    }
}
