//! What becomes of messages: they leave, wait, or are let go of by a session's policy; each that is dropped is counted.

use super::closing::CloseCause;
use super::core::{Core, SendOutcome, Supplies};
use super::mailbox::{Post, SessionKey};
use super::options::{Policy, SessionOptions};
use super::queue::{DroppedMessage, Queue, Tag};
use super::session::{Flags, SessionState, Stage};
use super::stats::DropReason;
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::protocol::encoder::{Encoder, Server};
use crate::protocol::message::{Message, MessageKind, Prepared};
use bytes::Bytes;
use std::hash::BuildHasher;

/// Whose message it is: a session of this shard or another, or another thread's.
pub(super) type Origin = Option<SessionKey>;

/// A message on its way to one session.
pub(super) struct Outgoing<'a> {
    pub(super) frame: &'a Bytes,
    /// Not shared with other sessions, and not counted otherwise.
    pub(super) own: bool,
    pub(super) tag: Tag,
    /// What it was published to. Its tag tells by which subscription it came, which may be a pattern's.
    pub(super) topic: Option<&'a str>,
}

impl<T> Core<T> {
    /// Sends a message to one session.
    #[inline]
    pub(super) fn send(&mut self, key: Key, message: Message<'_>, slot: u64, origin: Origin) -> SendOutcome {
        if let Some(frame) = self.lent.as_ref().filter(|lent| lent.is_of(message)).map(|lent| lent.frame().clone()) {
            return self.send_frame(key, &Outgoing::of_one(&frame, slot), origin);
        }
        let written = self.write_if_open(key, |queue, encoder, supplies| {
            let written = queue
                .write(&mut supplies.batches, |batch| batch.append(|out| encoder.encode_message((), message, out)));
            debug_assert!(written.is_ok(), "its readiness was asked");
        });
        match written {
            Readiness::Open => SendOutcome::Sent,
            Readiness::Short => self.refuse_for_memory(key, &own_tag(slot)),
            Readiness::Waits => {
                let frame = Prepared::new(message);
                self.let_wait(key, &Outgoing::of_one(frame.frame(), slot), origin)
            }
            Readiness::Closed => SendOutcome::Closed,
        }
    }

    /// Sends a message that is encoded already.
    #[inline]
    pub(super) fn send_frame(&mut self, key: Key, message: &Outgoing<'_>, origin: Origin) -> SendOutcome {
        let written = self.write_if_open(key, |queue, _, Supplies { batches, joins }| {
            queue.write_shared(batches, joins, message.frame, message.own);
        });
        match written {
            Readiness::Open => SendOutcome::Sent,
            Readiness::Short => self.refuse_for_memory(key, &message.tag),
            Readiness::Waits => self.let_wait(key, message, origin),
            Readiness::Closed => SendOutcome::Closed,
        }
    }

    /// Writes a message to where it leaves from, if it may, and counts it. With one look at the session: a short message is
    /// echoed in 50 ns.
    #[inline]
    fn write_if_open(
        &mut self,
        key: Key,
        write: impl FnOnce(&mut Queue, &mut Encoder<Server>, &mut Supplies),
    ) -> Readiness {
        if self.memory.is_used_up() {
            match self.sessions.get(key).map_or(Readiness::Closed, readiness) {
                Readiness::Open if self.is_short_of_memory() => return Readiness::Short,
                Readiness::Open => {}
                other => return other,
            }
        }
        let (now, mut answer) = (self.now, Readiness::Closed);
        let may = |state: &mut SessionState<T>| {
            answer = readiness(state);
            state.last_message = if answer == Readiness::Open { now } else { state.last_message };
            answer == Readiness::Open
        };
        if self.change_queue_if(key, may, write).is_some() {
            self.counters().messages_sent.add(1);
        }
        answer
    }

    #[inline]
    fn count_taken(&mut self, key: Key) {
        if let Some(state) = self.sessions.get_mut(key) {
            state.last_message = self.now;
        }
        self.counters().messages_sent.add(1);
    }

    /// A message for a session that is being sent to already.
    fn let_wait(&mut self, key: Key, message: &Outgoing<'_>, origin: Origin) -> SendOutcome {
        let Some(state) = self.sessions.get(key) else { return SendOutcome::Closed };
        let options = *self.options.get(state.options);
        let bytes = message.frame.len();
        if options.policy == Policy::Conflate
            && let Some(before) = state.queue.as_ref().and_then(|queue| queue.bytes_in(message.tag.slot))
        {
            if bytes > before && self.is_short_of_memory() {
                return self.refuse(key, &message.tag, DropReason::Memory);
            }
            let replaced = self.change_queue(key, |queue, _, _| queue.replace(message.frame, message.tag, message.own));
            if let Some(Some(old)) = replaced {
                self.note_dropped(key, old.topic.is_some(), old, DropReason::Conflated);
                // Where it is longer than the one before, others make room; alone it may have any length.
                self.drop_old(key, options.queue_bytes_max, Some(message.tag.slot));
                self.count_taken(key);
                self.look_at_high_water(key, &options, message.topic, origin);
                return SendOutcome::Queued;
            }
        }
        if !self.fits(key, bytes, &options) {
            match options.policy {
                Policy::Close | Policy::PauseProducer => {
                    self.doom(key, CloseCause::SlowConsumer);
                    return self.refuse(key, &message.tag, DropReason::Close);
                }
                Policy::DropNew => return self.refuse(key, &message.tag, DropReason::New),
                Policy::DropOld | Policy::Conflate => {
                    self.drop_old(key, options.queue_bytes_max.saturating_sub(bytes), None);
                    if !self.fits(key, bytes, &options) {
                        return self.refuse(key, &message.tag, DropReason::New);
                    }
                }
            }
        }
        if self.is_short_of_memory() {
            return self.refuse_for_memory(key, &message.tag);
        }
        if !self.is_open(key) {
            // Others got their memory by its end.
            return SendOutcome::Closed;
        }
        // Only who may be replaced is to be found again.
        let slot = if options.policy == Policy::Conflate { message.tag.slot } else { 0 };
        let tag = Tag { slot, ..message.tag };
        self.change_queue(key, |queue, _, _| queue.push(message.frame, tag, message.own));
        self.count_taken(key);
        self.look_at_high_water(key, &options, message.topic, origin);
        SendOutcome::Queued
    }

    /// An empty queue takes any message: a limit must not make a legal one unsendable.
    fn fits(&self, key: Key, bytes: usize, options: &SessionOptions) -> bool {
        let queue = self.sessions.get(key).and_then(|state| state.queue.as_ref());
        queue.is_none_or(|queue| !queue.has_waiting() || queue.waiting_bytes() + bytes <= options.queue_bytes_max)
    }

    /// Drops the oldest messages that wait, but for the one in the slot `spared`, until at most `bytes` do.
    fn drop_old(&mut self, key: Key, bytes: usize, spared: Option<u64>) {
        let next = |queue: &mut Queue| if queue.waiting_bytes() > bytes { queue.drop_oldest(spared) } else { None };
        while let Some(Some(old)) = self.change_queue(key, |queue, _, _| next(queue)) {
            self.note_dropped(key, old.topic.is_some(), old, DropReason::Old);
        }
    }

    pub(super) fn look_at_high_water(
        &mut self,
        key: Key,
        options: &SessionOptions,
        topic: Option<&str>,
        origin: Origin,
    ) {
        let Some(state) = self.sessions.get_mut(key) else { return };
        let holds_up = options.policy == Policy::PauseProducer && state.queued_bytes() >= options.high_water_bytes;
        // What waits for a fragment of ours is held against those who sent it, and not against the peer.
        if state.buffered_bytes() >= options.high_water_bytes {
            self.rise(key);
        }
        if holds_up {
            self.hold_up(key, topic, origin);
        }
    }

    /// A session is under pressure, until its queue is down to low water.
    fn rise(&mut self, key: Key) {
        if let Some(state) = self.sessions.get_mut(key)
            && !state.flags.set(Flags::HIGH, true)
        {
            self.reading.push(key);
        }
    }

    // Producers

    /// Whoever fills this session's queue is to pause.
    fn hold_up(&mut self, consumer: Key, topic: Option<&str>, origin: Origin) {
        match origin {
            // Its own queue holds a session back by itself.
            Some(producer) if producer == self.global(consumer) => {}
            Some(producer) => {
                if self.producers.hold_up(consumer, producer) {
                    self.counters().producers_paused.add(1);
                    match self.local(producer) {
                        Some(key) => self.hold_producer(key),
                        None => self.post_to(producer, Post::Hold { session: producer.key }),
                    }
                }
            }
            None => {
                if let Some(topic) = topic.and_then(|topic| self.producers.hold_up_topic(consumer, topic)) {
                    self.counters().producers_paused.add(1);
                    self.mailboxes.of(self.shard).congest(topic);
                }
            }
        }
    }

    /// A session of this shard is held back for one consumer more.
    pub(super) fn hold_producer(&mut self, key: Key) {
        if self.sessions.get(key).is_some() {
            self.producers.hold(key);
            self.hold_back(key, Flags::HELD, true);
        }
    }

    /// A session of this shard is held back for one consumer fewer.
    pub(super) fn release_producer(&mut self, key: Key) {
        if self.producers.release(key) {
            self.hold_back(key, Flags::HELD, false);
        }
    }

    /// A consumer's queue is short again, or the consumer is gone.
    #[inline]
    pub(super) fn let_producers_go(&mut self, consumer: Key) {
        if self.producers.holds_up_any() {
            self.release_producers_of(consumer);
        }
    }

    fn release_producers_of(&mut self, consumer: Key) {
        let Some(held_up) = self.producers.let_go(consumer) else { return };
        for producer in held_up.sessions {
            match self.local(producer) {
                Some(key) => self.release_producer(key),
                None => self.post_to(producer, Post::Release { session: producer.key }),
            }
        }
        for topic in held_up.topics {
            self.mailboxes.of(self.shard).relieve(&topic);
        }
    }

    // Dropping

    /// Counts a message that was not taken.
    fn refuse(&mut self, key: Key, tag: &Tag, reason: DropReason) -> SendOutcome {
        if planted(Fault::DropNotCounted) && reason == DropReason::New {
            return SendOutcome::Dropped;
        }
        self.note_dropped(key, tag.topic.is_some(), DroppedMessage { topic: tag.topic }, reason);
        SendOutcome::Dropped
    }

    fn refuse_for_memory(&mut self, key: Key, tag: &Tag) -> SendOutcome {
        let Some(state) = self.sessions.get(key) else { return SendOutcome::Closed };
        if self.options.get(state.options).pauses_when_high() {
            // It was promised every message, or its end.
            self.doom(key, CloseCause::OutOfMemory);
        }
        self.refuse(key, tag, DropReason::Memory)
    }

    pub(super) fn note_dropped(&mut self, key: Key, published: bool, dropped: DroppedMessage, reason: DropReason) {
        self.counters().count_dropped(reason, published, 1);
        if let Some(topic) = dropped.topic {
            self.topics.count_dropped(topic);
        }
        let Some(state) = self.sessions.get_mut(key) else { return };
        let rare = state.rare_mut();
        rare.dropped += 1;
        rare.dropped_untold += 1;
        if !state.flags.set(Flags::DROPS_UNTOLD, true) {
            self.drops_untold.push(key);
        }
    }

    // Messages in fragments

    /// Sends a message's first fragment. Messages sent meanwhile wait for its last one.
    pub(super) fn send_first(&mut self, key: Key, kind: MessageKind, payload: &[u8]) -> SendOutcome {
        match self.sessions.get(key) {
            Some(state) if state.stage == Stage::Open && !state.encoder.is_fragmented() => {}
            _ => return SendOutcome::Closed,
        }
        self.send_fragment(key, payload.len(), |queue, encoder, supplies| {
            queue.append_fragment(&mut supplies.batches, false, |out| {
                let written = encoder.encode_first((), kind, payload, out);
                debug_assert!(written.is_ok(), "no message is under way");
            });
        })
    }

    /// Sends the next fragment, or the last one.
    pub(super) fn send_next(&mut self, key: Key, payload: &[u8], last: bool) -> SendOutcome {
        match self.sessions.get(key) {
            Some(state) if state.stage == Stage::Open && state.encoder.is_fragmented() => {}
            _ => return SendOutcome::Closed,
        }
        let outcome = self.send_fragment(key, payload.len(), |queue, encoder, supplies| {
            queue.append_fragment(&mut supplies.batches, last, |out| {
                let written = encoder.encode_next((), payload, last, out);
                debug_assert!(written.is_ok(), "a message is under way");
            });
        });
        if last && outcome.is_taken() {
            self.counters().messages_sent.add(1);
        }
        outcome
    }

    fn send_fragment(
        &mut self,
        key: Key,
        bytes: usize,
        append: impl FnOnce(&mut Queue, &mut Encoder<Server>, &mut Supplies),
    ) -> SendOutcome {
        let Some(state) = self.sessions.get(key) else { return SendOutcome::Closed };
        let options = *self.options.get(state.options);
        let front = state.queue.as_ref().map_or(0, |queue| queue.front_bytes());
        let waits = front > 0 || state.is_sending();
        let is_full = front > 0 && front + bytes > options.queue_bytes_max;
        // Who has taken all that there was takes the next fragment: nothing else would ever make room.
        if !state.is_flushed() && (is_full || self.is_short_of_memory()) {
            // Nothing is lost: the caller offers the same fragment again when it is told that the queue has drained.
            self.rise(key);
            return SendOutcome::Dropped;
        }
        self.change_queue(key, append);
        if let Some(state) = self.sessions.get_mut(key) {
            state.last_message = self.now;
        }
        self.look_at_high_water(key, &options, None, Some(self.global(key)));
        if waits { SendOutcome::Queued } else { SendOutcome::Sent }
    }

    /// A number for a message's key, and for its topic if it was published.
    pub(super) fn slot_of(&self, topic: Option<&str>, key: u64) -> u64 {
        self.secret.hash_one((topic, key)).max(1)
    }
}

impl<'a> Outgoing<'a> {
    /// A message for one session alone.
    pub(super) const fn of_one(frame: &'a Bytes, slot: u64) -> Self {
        Self { frame, own: true, tag: own_tag(slot), topic: None }
    }
}

const fn own_tag(slot: u64) -> Tag {
    Tag { slot, topic: None }
}

/// Whether a session takes a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// It leaves at the turn's end.
    Open,
    /// It waits.
    Waits,
    /// There is no memory for it.
    Short,
    Closed,
}

#[inline]
fn readiness<T>(state: &SessionState<T>) -> Readiness {
    match &state.queue {
        _ if state.stage != Stage::Open => Readiness::Closed,
        Some(queue) if !queue.is_open() => Readiness::Waits,
        _ => Readiness::Open,
    }
}
