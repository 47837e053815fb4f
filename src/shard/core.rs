//! A shard's world as handlers may touch it: sessions, topics, send queues, timers. Never the driver.
//!
//! Whatever is done here takes effect at the turn's end: queues become submissions, posts leave for other shards. What
//! becomes of messages stands in `sending`, topics in `publishing`.

use super::addresses::Addresses;
use super::closing::CloseCause;
use super::date::Dates;
use super::deadline::Deadlines;
use super::joins::Joins;
use super::mailbox::{Mailboxes, Outbox, Post, SessionKey};
use super::memory::Memory;
use super::options::OptionsTable;
use super::producers::Producers;
use super::publishing::Reached;
use super::queue::Queue;
use super::session::{Flags, SessionState, Stage};
use super::settings::ShardSettings;
use super::stats::{Counters, DropReason};
use super::topic::Topics;
use crate::base::bucket::Bucket;
use crate::base::clock::{Tick, Time};
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::base::limits::{CONTROL_PAYLOAD_BYTES_MAX, QUEUES_KEPT};
use crate::base::secret::Secret;
use crate::base::table::Table;
use crate::base::wheel::Wheel;
use crate::driver::BatchPool;
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::encoder::{Encoder, Server};
use crate::protocol::message::Prepared;

/// What queues are made of and share.
pub(super) struct Supplies {
    pub(super) batches: BatchPool,
    pub(super) joins: Joins,
}

/// One shard's world.
pub(super) struct Core<T> {
    pub(super) shard: u16,
    pub(super) settings: ShardSettings,
    pub(super) options: OptionsTable,
    pub(super) deadlines: Deadlines,
    pub(super) sessions: Table<SessionState<T>>,
    /// WebSockets among them.
    pub(super) open_count: usize,
    pub(super) topics: Topics,
    pub(super) reached: Reached,
    pub(super) mailboxes: Mailboxes,
    pub(super) wheel: Wheel<Key>,
    /// Since the shard's start.
    pub(super) time: Time,
    /// The same, less the time in which the shard did not run though it should have. All deadlines are of this clock.
    pub(super) uptime: Time,
    pub(super) now: Tick,
    /// When a whole stall was last taken out of it.
    pub(super) stalled_at: Option<Time>,
    /// Sessions with something to flush, each once.
    pub(super) dirty: Vec<Key>,
    /// Sessions to end at the turn's end, with the cause.
    pub(super) doomed: Vec<(Key, CloseCause)>,
    /// Sessions that may have to be read from now, or not any more.
    pub(super) reading: Vec<Key>,
    /// Sessions that are to be told of dropped messages, each once.
    pub(super) drops_untold: Vec<Key>,
    /// Sessions that keep too much and are to end at the turn's end, but not as those in `doomed` do; each once, and
    /// whether it was over already.
    pub(super) overfull: Vec<(Key, bool)>,
    /// Sessions whose bytes have come and were not all read, and may be now, each once.
    pub(super) behind: Vec<Key>,
    /// Deliveries so far, those to other shards among them.
    pub(super) work: u64,
    /// Whoever is being read has come ahead of other shards, or of the reader of its answers: the rest waits.
    pub(super) stops_reading: bool,
    pub(super) posts_taken: u64,
    pub(super) memory: Memory,
    pub(super) producers: Producers,
    pub(super) addresses: Addresses,
    pub(super) handshakes: Bucket,
    pub(super) dates: Dates,
    /// The message that the handler is called with, if it is a frame that can be sent on as it is.
    pub(super) lent: Option<Prepared>,
    /// What makes numbers of names for `Tag::slot`, and seals pings.
    pub(super) secret: Secret,
    /// Sessions that are held back until the outboxes are short again, each once.
    pub(super) ahead: Vec<Key>,
    /// Posts for other shards, by shard.
    pub(super) outboxes: Vec<Outbox>,
    pub(super) supplies: Supplies,
    #[expect(clippy::vec_box, reason = "a session holds one pointer, and the boxes are used again")]
    queues: Vec<Box<Queue>>,
}

impl<T> Core<T> {
    pub(super) fn new(shard: u16, settings: ShardSettings, mailboxes: Mailboxes) -> Self {
        let memory = Memory::new(settings.memory_bytes_max);
        Self {
            shard,
            options: OptionsTable::new(settings.session),
            deadlines: Deadlines::new(&settings),
            supplies: Supplies { batches: BatchPool::default(), joins: Joins::new(memory.shared.clone()) },
            memory,
            settings,
            sessions: Table::default(),
            open_count: 0,
            topics: Topics::default(),
            reached: Reached::default(),
            outboxes: (0..mailboxes.count()).map(|_| Outbox::default()).collect(),
            ahead: Vec::new(),
            mailboxes,
            wheel: Wheel::new(Tick::default()),
            time: Time::default(),
            uptime: Time::default(),
            now: Tick::default(),
            stalled_at: None,
            dirty: Vec::new(),
            doomed: Vec::new(),
            reading: Vec::new(),
            drops_untold: Vec::new(),
            overfull: Vec::new(),
            behind: Vec::new(),
            work: 0,
            stops_reading: false,
            posts_taken: 0,
            producers: Producers::default(),
            addresses: Addresses::default(),
            handshakes: Bucket::default(),
            dates: Dates::default(),
            lent: None,
            secret: Secret::random(),
            queues: Vec::new(),
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

    pub(super) fn is_open(&self, key: Key) -> bool {
        self.sessions.get(key).is_some_and(|state| state.stage == Stage::Open)
    }

    // Queues

    /// Changes a session's queue, which is made if there is none; the session is flushed at the turn's end.
    #[inline]
    pub(super) fn change_queue<R>(
        &mut self,
        key: Key,
        change: impl FnOnce(&mut Queue, &mut Encoder<Server>, &mut Supplies) -> R,
    ) -> Option<R> {
        self.change_queue_if(key, |_| true, change)
    }

    /// The same, unless `may` says no.
    #[inline]
    pub(super) fn change_queue_if<R>(
        &mut self,
        key: Key,
        may: impl FnOnce(&mut SessionState<T>) -> bool,
        change: impl FnOnce(&mut Queue, &mut Encoder<Server>, &mut Supplies) -> R,
    ) -> Option<R> {
        let state = self.sessions.get_mut(key)?;
        if !may(state) {
            return None;
        }
        let queue = match &mut state.queue {
            Some(queue) => queue,
            none => {
                self.mailboxes.of(self.shard).counters.queues.add(1);
                none.insert(self.queues.pop().unwrap_or_default())
            }
        };
        let before = queue.charged();
        let answer = change(queue, &mut state.encoder, &mut self.supplies);
        self.memory.recharge(before, queue.charged());
        if !state.flags.set(Flags::DIRTY, true) {
            self.dirty.push(key);
        }
        Some(answer)
    }

    /// Appends bytes that must leave in this order.
    pub(super) fn append<R>(
        &mut self,
        key: Key,
        write: impl FnOnce(&mut Encoder<Server>, &mut Vec<u8>) -> R,
    ) -> Option<R> {
        self.change_queue(key, |queue, encoder, supplies| {
            queue.append(&mut supplies.batches, |out| write(encoder, out))
        })
    }

    /// Takes a queue back that is empty, or whose session is gone.
    pub(super) fn put_queue(&mut self, mut queue: Box<Queue>) {
        self.memory.recharge(queue.charged(), 0);
        self.counters().queues.sub(1);
        queue.clear(&mut self.supplies.batches);
        if self.queues.len() < QUEUES_KEPT {
            self.queues.push(queue);
        }
    }

    /// A session's queue is given back once it is free: an idle session has none.
    pub(super) fn put_empty_queue(&mut self, key: Key) {
        let Some(state) = self.sessions.get_mut(key) else { return };
        if state.queue.as_ref().is_some_and(|queue| queue.is_free())
            && !planted(Fault::QueueKept)
            && let Some(queue) = state.queue.take()
        {
            self.put_queue(queue);
        }
    }

    // Control frames

    pub(super) fn ping(&mut self, key: Key, payload: &[u8]) -> SendOutcome {
        if !self.is_open(key) {
            return SendOutcome::Closed;
        }
        if payload.len() > CONTROL_PAYLOAD_BYTES_MAX {
            return SendOutcome::Dropped;
        }
        let taken = self.change_queue(key, |queue, encoder, supplies| {
            queue.push_control(&mut supplies.batches, |out| {
                let written = encoder.encode_ping((), payload, out);
                debug_assert!(written.is_ok(), "an open session has sent no close frame, and the payload is short");
            })
        });
        if taken == Some(true) { SendOutcome::Sent } else { SendOutcome::Dropped }
    }

    /// Begins the closing handshake. `false` if it has begun already, or there is nothing to close.
    pub(super) fn close(&mut self, key: Key, close: Option<CloseFrame<'_>>) -> bool {
        if !self.is_open(key) {
            return false;
        }
        let now = self.now;
        let abandoned = self.change_queue(key, |queue, encoder, supplies| {
            queue.clear_control();
            // Messages behind an unfinished one would stand inside of it.
            let abandoned = queue.abandon_fragments();
            let written = queue.append_close(&mut supplies.batches, |out| encoder.encode_close((), close, out));
            debug_assert!(written.is_ok(), "an open session has sent no close frame");
            abandoned
        });
        for message in abandoned.into_iter().flatten() {
            self.note_dropped(key, message.topic.is_some(), message, DropReason::Close);
        }
        if let Some(state) = self.sessions.get_mut(key) {
            state.enter(Stage::Closing, now);
        }
        // A peer that was not read from must be heard again.
        self.reading.push(key);
        self.arm_timer(key);
        true
    }

    /// Says goodbye with a code of our own, when a session is over for a reason of ours.
    pub(super) fn close_with(&mut self, key: Key, code: CloseCode, reason: &str) -> bool {
        self.close(key, Some(CloseFrame { code, reason }))
    }

    /// The same, and the code is told at the end.
    pub(super) fn close_and_remember(&mut self, key: Key, code: CloseCode, reason: &str) -> bool {
        let begun = self.close_with(key, code, reason);
        if begun && let Some(state) = self.sessions.get_mut(key) {
            state.rare_mut().close_code = Some(code);
        }
        begun
    }

    /// Ends a session at the turn's end, without a close frame. Nothing more is received or sent.
    pub(super) fn terminate(&mut self, key: Key) {
        self.doom(key, CloseCause::Closed);
    }

    /// Ends a session at the turn's end for this cause; the first one counts.
    pub(super) fn doom(&mut self, key: Key, cause: CloseCause) {
        if let Some(state) = self.sessions.get_mut(key)
            && state.stage <= Stage::Closing
        {
            state.enter(Stage::Doomed, self.now);
            self.memory.will_end(state.held_bytes());
            self.doomed.push((key, cause));
        }
    }

    // Receiving

    /// Holds a session back from being read, or does not any more, for one of the reasons in [`Flags`].
    pub(super) fn hold_back(&mut self, key: Key, reason: u16, on: bool) {
        if let Some(state) = self.sessions.get_mut(key)
            && state.flags.set(reason, on) != on
        {
            self.reading.push(key);
        }
    }

    // Posts

    /// Puts a post for a session of another shard on its way.
    pub(super) fn post_to(&mut self, session: SessionKey, post: Post) {
        self.post(session.shard, post);
    }

    pub(super) fn post(&mut self, shard: u16, post: Post) {
        // A key of another server may name a shard that this one has not.
        let Some(outbox) = self.outboxes.get_mut(usize::from(shard)) else { return };
        if !outbox.push(post) {
            self.counters().posts_dropped.add(1);
        }
    }

    /// Delivers what the outboxes hold, as far as the mailboxes take it. Answers whether something was left over.
    pub(super) fn deliver_posts(&mut self) -> bool {
        let mut left = false;
        for (shard, outbox) in self.outboxes.iter_mut().enumerate().filter(|(_, outbox)| !outbox.is_empty()) {
            let mailbox = self.mailboxes.of(shard as u16);
            outbox.deliver_to(mailbox);
            mailbox.ring();
            left |= !outbox.is_empty();
        }
        if !self.ahead.is_empty() && self.outboxes.iter().all(Outbox::is_low) {
            for key in std::mem::take(&mut self.ahead) {
                self.hold_back(key, Flags::AHEAD, false);
            }
        }
        left
    }

    // Time

    /// Puts a session's next deadline into the wheel, unless an earlier look is planned already.
    #[inline]
    pub(super) fn arm_timer(&mut self, key: Key) {
        if self.sessions.get(key).is_some_and(|state| !self.deadlines.are_planned(state)) {
            self.plan_look(key);
        }
    }

    fn plan_look(&mut self, key: Key) {
        let Some(state) = self.sessions.get_mut(key) else { return };
        let look = self.deadlines.look_at(self.now);
        let due = match self.deadlines.next(key, state, &self.options) {
            Some((due, _)) if look.reached(due) => due,
            _ => look,
        };
        let planned = state.flags.has(Flags::TIMED) && due.reached(state.timer_at);
        if planned {
            return;
        }
        let earlier_than = state.flags.set(Flags::TIMED, true).then_some(state.timer_at);
        if state.flags.has(Flags::THROTTLED) {
            state.rare_mut().later_look = earlier_than;
        } else if let Some(later) = state.take_later_look().filter(|at| due.reached(*at) && !self.now.reached(*at)) {
            // It stands in the wheel already: whoever is throttled again and again has one, and not one for each time.
            state.timer_at = later;
            return;
        }
        state.timer_at = due;
        self.wheel.insert(key, due);
    }
}

/// What became of a message given to `send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It leaves at this turn's end.
    Sent,
    /// It waits: for a send in flight, for the end of a message in fragments, for another shard.
    Queued,
    /// It was dropped: the queue is full, or the shard's memory is used up.
    Dropped,
    /// The session is closing or gone.
    Closed,
}

impl SendOutcome {
    /// Whether the session took the message.
    pub const fn is_taken(self) -> bool {
        matches!(self, Self::Sent | Self::Queued)
    }
}
