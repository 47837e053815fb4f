//! A shard's world as handlers may touch it: sessions, topics, send queues, timers. Never the driver.
//!
//! Whatever is done here takes effect at the turn's end: queues become submissions, posts leave for other shards.

use super::deadline::Deadlines;
use super::handler::CloseCause;
use super::mailbox::{Mailboxes, Post, SessionKey};
use super::session::{Flags, SessionState, Stage};
use super::settings::ShardSettings;
use super::stats::Counters;
use super::topic::Topics;
use crate::base::clock::{Tick, Time};
use crate::base::key::Key;
use crate::base::limits::{OUTBOX_POSTS_MAX, SUBSCRIPTIONS_MAX, TOPIC_BYTES_MAX};
use crate::base::table::Table;
use crate::base::wheel::Wheel;
use crate::driver::{Batch, BatchPool};
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::message::{Message, Prepared};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// What became of a message given to `send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It leaves at this turn's end.
    Sent,
    /// It waits behind a send in flight.
    Queued,
    /// The queue is full: it was dropped, and the session ends.
    Dropped,
    /// The session is closing or gone.
    Closed,
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// A topic's name has 1 to 255 bytes.
    NameLength,
    /// The session has 1 024 subscriptions already.
    TooMany,
    /// The session is closing or gone.
    Closed,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameLength => write!(f, "a topic's name has 1 to {TOPIC_BYTES_MAX} bytes"),
            Self::TooMany => write!(f, "a session has at most {SUBSCRIPTIONS_MAX} subscriptions"),
            Self::Closed => f.write_str("the session is closed"),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// One shard's world.
pub(super) struct Core<T> {
    pub(super) shard: u16,
    pub(super) settings: ShardSettings,
    pub(super) deadlines: Deadlines,
    pub(super) sessions: Table<SessionState<T>>,
    pub(super) topics: Topics,
    pub(super) mailboxes: Mailboxes,
    pub(super) wheel: Wheel<Key>,
    pub(super) time: Time,
    pub(super) now: Tick,
    /// Sessions with something to flush, each once.
    pub(super) dirty: Vec<Key>,
    /// Sessions to end at the turn's end, with the cause.
    pub(super) doomed: Vec<(Key, CloseCause)>,
    /// Posts for other shards, by shard.
    outboxes: Vec<VecDeque<Post>>,
    pub(super) batches: BatchPool,
}

impl<T> Core<T> {
    pub(super) fn new(shard: u16, settings: ShardSettings, mailboxes: Mailboxes) -> Self {
        Self {
            shard,
            deadlines: Deadlines::new(&settings),
            settings,
            sessions: Table::default(),
            topics: Topics::default(),
            outboxes: (0..mailboxes.count()).map(|_| VecDeque::new()).collect(),
            mailboxes,
            wheel: Wheel::new(Tick::default()),
            time: Time::default(),
            now: Tick::default(),
            dirty: Vec::new(),
            doomed: Vec::new(),
            batches: BatchPool::default(),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.mailboxes.of(self.shard).counters
    }

    /// The name of one of this shard's sessions for other threads.
    pub(super) const fn global(&self, key: Key) -> SessionKey {
        SessionKey { shard: self.shard, key }
    }

    /// One of this shard's sessions by its global name.
    pub(super) fn local(&self, key: SessionKey) -> Option<Key> {
        (key.shard == self.shard).then_some(key.key)
    }

    // Sending

    /// Appends to what a session sends next.
    #[inline]
    pub(super) fn queue<R>(
        &mut self,
        key: Key,
        write: impl FnOnce(&mut SessionState<T>, &mut Batch) -> R,
    ) -> Option<R> {
        let state = self.sessions.get_mut(key)?;
        let mut batch = state.pending.take().unwrap_or_else(|| self.batches.take());
        let answer = write(state, &mut batch);
        state.pending = Some(batch);
        if !state.flags.set(Flags::DIRTY, true) {
            self.dirty.push(key);
        }
        Some(answer)
    }

    #[inline]
    pub(super) fn send(&mut self, key: Key, message: Message<'_>) -> SendOutcome {
        let outcome = self.admit(key, message.len());
        if outcome == SendOutcome::Sent || outcome == SendOutcome::Queued {
            self.queue(key, |state, batch| batch.append(|out| state.encoder.encode_message((), message, out)));
        }
        outcome
    }

    pub(super) fn send_prepared(&mut self, key: Key, message: &Prepared) -> SendOutcome {
        let outcome = self.admit(key, message.frame().len());
        if outcome == SendOutcome::Sent || outcome == SendOutcome::Queued {
            self.queue(key, |_, batch| batch.push_shared(message.frame()));
        }
        outcome
    }

    /// Whether a session takes a message of this length now; counts and dooms accordingly.
    #[inline]
    fn admit(&mut self, key: Key, bytes: usize) -> SendOutcome {
        let Some(state) = self.sessions.get_mut(key) else { return SendOutcome::Closed };
        if state.stage != Stage::Open || state.encoder.check_message_start().is_err() {
            return SendOutcome::Closed;
        }
        // What waits behind a send in flight: an empty queue takes any message (a limit must not make a legal message
        // unsendable), and what gathers before anything is in flight says nothing of how fast the peer reads.
        let waiting = state.pending.as_ref().map_or(0, |batch| batch.len());
        let behind = state.flags.has(Flags::SENDING) && waiting > 0;
        if behind && waiting + bytes > self.settings.send_queue_bytes_max {
            self.doomed.push((key, CloseCause::SlowConsumer));
            self.counters().messages_dropped.add(1);
            return SendOutcome::Dropped;
        }
        state.last_message = self.now;
        let sending = state.flags.has(Flags::SENDING);
        self.counters().messages_sent.add(1);
        if sending { SendOutcome::Queued } else { SendOutcome::Sent }
    }

    pub(super) fn ping(&mut self, key: Key, payload: &[u8]) -> SendOutcome {
        match self.sessions.get(key) {
            Some(state) if state.stage == Stage::Open => {}
            _ => return SendOutcome::Closed,
        }
        match self.queue(key, |state, batch| batch.append(|out| state.encoder.encode_ping((), payload, out))) {
            Some(Ok(())) => SendOutcome::Sent,
            Some(Err(_)) => SendOutcome::Dropped,
            None => SendOutcome::Closed,
        }
    }

    /// Begins the closing handshake. `false` if it has begun already, or there is nothing to close.
    pub(super) fn close(&mut self, key: Key, close: Option<CloseFrame<'_>>) -> bool {
        match self.sessions.get(key) {
            Some(state) if state.stage == Stage::Open => {}
            _ => return false,
        }
        let now = self.now;
        self.queue(key, |state, batch| {
            let sent = batch.append(|out| state.encoder.encode_close((), close, out));
            debug_assert!(sent.is_ok(), "an open session has sent no close frame");
            state.enter(Stage::Closing, now);
        });
        self.arm_timer(key);
        true
    }

    /// Ends a session at the turn's end, without a close frame. Nothing more is received or sent.
    pub(super) fn terminate(&mut self, key: Key) {
        if let Some(state) = self.sessions.get_mut(key)
            && state.stage <= Stage::Closing
        {
            state.enter(Stage::Closing, self.now);
            self.doomed.push((key, CloseCause::Closed));
        }
    }

    // Topics

    pub(super) fn subscribe(&mut self, key: Key, topic: &str) -> Result<bool, SubscribeError> {
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
            return Err(SubscribeError::NameLength);
        }
        let state = match self.sessions.get_mut(key) {
            Some(state) if state.stage == Stage::Open => state,
            _ => return Err(SubscribeError::Closed),
        };
        let list = state.subscriptions.get_or_insert_default();
        if list.len() >= SUBSCRIPTIONS_MAX {
            return Err(SubscribeError::TooMany);
        }
        let new = self.topics.subscribe(topic, key, list);
        self.counters().topics.set(self.topics.len() as u64);
        Ok(new)
    }

    pub(super) fn unsubscribe(&mut self, key: Key, topic: &str) -> bool {
        let Some(state) = self.sessions.get(key) else { return false };
        let slot = state.subscriptions.as_ref().and_then(|list| self.topics.find(topic, list));
        slot.is_some_and(|slot| self.unsubscribe_slot(key, slot))
    }

    /// Ends all subscriptions of a session.
    pub(super) fn unsubscribe_all(&mut self, key: Key) {
        while let Some(last) =
            self.sessions.get(key).and_then(|state| state.subscriptions.as_ref()?.len().checked_sub(1))
        {
            self.unsubscribe_slot(key, last);
        }
    }

    fn unsubscribe_slot(&mut self, key: Key, slot: usize) -> bool {
        let Some(state) = self.sessions.get_mut(key) else { return false };
        let Some(mut list) = state.subscriptions.take() else { return false };
        let moved = self.topics.unsubscribe(slot, &mut list);
        state.subscriptions = (!list.is_empty()).then_some(list);
        if let Some(moved) = moved {
            let other = self.sessions.get_mut(moved.session()).and_then(|state| state.subscriptions.as_mut());
            moved.correct(other.expect("a subscriber has a list"));
        }
        self.counters().topics.set(self.topics.len() as u64);
        true
    }

    pub(super) fn subscribed(&self, key: Key, topic: &str) -> bool {
        let list = self.sessions.get(key).and_then(|state| state.subscriptions.as_ref());
        list.is_some_and(|list| self.topics.find(topic, list).is_some())
    }

    /// Sends to this shard's subscribers and posts to the other shards.
    pub(super) fn publish(&mut self, topic: &str, message: &Prepared, except: Option<Key>) -> usize {
        let count = self.publish_here(topic, message, except);
        if self.outboxes.len() > 1 {
            let name = self.topics.shared_name(topic).unwrap_or_else(|| Arc::from(topic));
            let here = self.shard;
            for shard in (0..self.mailboxes.count()).filter(|shard| *shard != here) {
                self.post(shard, Post::Publish { topic: name.clone(), message: message.clone() });
            }
        }
        count
    }

    /// Sends to this shard's subscribers: one encoding, a reference each. Answers how many took it.
    pub(super) fn publish_here(&mut self, topic: &str, message: &Prepared, except: Option<Key>) -> usize {
        let mut taken = 0;
        // By position: sending changes sessions, never topics.
        for position in 0..self.topics.subscribers(topic).len() {
            let session = self.topics.subscribers(topic)[position].session;
            if Some(session) != except {
                let outcome = self.send_prepared(session, message);
                taken += usize::from(matches!(outcome, SendOutcome::Sent | SendOutcome::Queued));
            }
        }
        taken
    }

    // Posts

    fn post(&mut self, shard: u16, post: Post) {
        // A key of another server may name a shard that this one has not.
        let Some(outbox) = self.outboxes.get_mut(usize::from(shard)) else { return };
        if outbox.len() < OUTBOX_POSTS_MAX {
            outbox.push_back(post);
        } else {
            self.counters().posts_dropped.add(1);
        }
    }

    /// Puts a post for a session of any shard on its way.
    pub(super) fn post_to(&mut self, session: SessionKey, post: Post) {
        self.post(session.shard, post);
    }

    /// Delivers what the outboxes hold, as far as the mailboxes take it. Answers whether something was left over.
    pub(super) fn deliver_posts(&mut self) -> bool {
        let mut left = false;
        for (shard, outbox) in self.outboxes.iter_mut().enumerate().filter(|(_, outbox)| !outbox.is_empty()) {
            let mailbox = self.mailboxes.of(shard as u16);
            while let Some(post) = outbox.pop_front() {
                if let Err(post) = mailbox.put(post) {
                    outbox.push_front(post);
                    break;
                }
            }
            mailbox.ring();
            left |= !outbox.is_empty();
        }
        left
    }

    // Time

    /// Puts a session's next deadline into the wheel, unless an earlier look is planned already.
    pub(super) fn arm_timer(&mut self, key: Key) {
        let Some(state) = self.sessions.get_mut(key) else { return };
        let look = self.deadlines.look_at(self.now);
        let due = match self.deadlines.next(state) {
            Some(due) if look.reached(due) => due,
            _ => look,
        };
        let planned = state.flags.has(Flags::TIMED) && due.reached(state.timer_at);
        if planned {
            return;
        }
        state.flags.set(Flags::TIMED, true);
        state.timer_at = due;
        self.wheel.insert(key, due);
    }

    /// Says goodbye with a code of our own, when a session is over for a reason of ours.
    pub(super) fn close_with(&mut self, key: Key, code: CloseCode, reason: &str) -> bool {
        self.close(key, Some(CloseFrame { code, reason }))
    }
}
