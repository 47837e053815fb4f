//! What one session is to be sent: bytes with the driver, bytes that leave next, messages that wait.
//!
//! ```text
//!  nothing in flight:   send ─▶ next ──────────────────────────────▶ driver, at the turn's end
//!  a send in flight:    send ─▶ waiting ─┐
//!                       ping ─▶ control ─┴─ at most one submission ─▶ driver, when the send has ended
//!  amid a message:      send ─▶ behind ──▶ waiting, at its last fragment
//! ```
//! Messages wait one by one, so that a policy may drop or replace them; what the driver has is out of reach. Control
//! frames have a lane of their own: they wait for the send in flight and for nothing else, and of pongs only the newest
//! waits (RFC 6455 §5.5.3). An idle session has no queue at all.

use super::joins::Joins;
use crate::base::fault::{Fault, planted};
use crate::base::limits::{
    CONTROL_FRAMES_WAITING_MAX, CONTROL_PAYLOAD_BYTES_MAX, SEND_BYTES_MAX, SEND_SHARED_BYTES_MIN,
};
use crate::driver::{Batch, BatchPool};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// A topic, told from others that had the same number before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicRef {
    pub(super) id: u32,
    pub(super) serial: u32,
}

/// What a message is, for the policies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tag {
    /// Messages with the same slot replace each other; 0 stands for none.
    pub(super) slot: u64,
    /// The topic by which it was published.
    pub(super) topic: Option<TopicRef>,
}

/// A frame that waits.
#[derive(Debug)]
struct Waiting {
    frame: Bytes,
    tag: Tag,
    kind: Kind,
    /// A message has a number of its own, higher than those before it; what is fixed has that of the message before it.
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A message of this session alone: its bytes are this queue's.
    Own,
    /// A message that others may share.
    Shared,
    /// Bytes that must leave and must not be moved: a fragment, a close frame.
    Fixed,
}

/// The charge for one that waits, beside its bytes.
const WAITING_BYTES: usize = size_of::<Waiting>();
/// Places that an emptied list keeps.
const WAITING_KEPT: usize = 16;

/// Control frames that wait behind a send in flight.
#[derive(Debug, Default)]
struct Control {
    /// Encoded frames other than pongs.
    frames: Vec<u8>,
    count: usize,
    /// The newest pong's payload, and its length.
    pong: Option<(u8, [u8; CONTROL_PAYLOAD_BYTES_MAX])>,
}

/// One session's queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Bytes with the driver.
    in_flight: usize,
    /// What leaves with the next submission. Nothing is in flight while it stands here.
    next: Option<Box<Batch>>,
    /// What leaves after that.
    waiting: VecDeque<Waiting>,
    /// While a message is sent in fragments: what waits for the last one.
    behind: VecDeque<Waiting>,
    fragmented: bool,
    /// Of both lists …
    waiting_bytes: usize,
    /// … and of the second alone.
    behind_bytes: usize,
    control: Option<Box<Control>>,
    /// Bytes of our close frame, which stands at the very end.
    farewell_bytes: usize,
    /// The number of the message that waits in each slot. Empty until a message with a slot waits.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 48 for the many queues without slots")]
    slots: Option<Box<HashMap<u64, u64>>>,
    last_number: u64,
    /// Memory of this session's own: of what waits …
    charged_waiting: usize,
    /// … and of what leaves next or is in flight.
    charged_leaving: usize,
}

/// A message that a policy dropped.
#[derive(Debug)]
pub(super) struct DroppedMessage {
    pub(super) topic: Option<TopicRef>,
}

impl Queue {
    /// Bytes accepted and not with the kernel yet.
    pub(super) fn bytes(&self) -> usize {
        let control = self.control.as_ref().map_or(0, |control| control.frames.len());
        self.in_flight + self.next.as_ref().map_or(0, |batch| batch.len()) + self.waiting_bytes + control
    }

    /// The same without our close frame: what the peer does not get if nothing more leaves.
    pub(super) fn undelivered_bytes(&self) -> usize {
        self.bytes().saturating_sub(self.farewell_bytes)
    }

    /// The same without what waits for the last fragment of a message under way: what the peer is to take next.
    pub(super) fn leaving_bytes(&self) -> usize {
        self.bytes() - self.behind_bytes
    }

    /// Bytes of messages that wait behind a send in flight.
    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Of these, bytes in front of the next fragment.
    pub(super) const fn front_bytes(&self) -> usize {
        self.waiting_bytes - self.behind_bytes
    }

    pub(super) fn has_waiting(&self) -> bool {
        !(self.waiting.is_empty() && self.behind.is_empty())
    }

    /// Memory that is held by this queue alone, and what its lists take.
    pub(super) const fn charged(&self) -> usize {
        self.charged_waiting + self.charged_leaving
    }

    /// The same, and what is in flight as if it were this queue's alone.
    pub(super) const fn held_bytes(&self) -> usize {
        let charged = self.charged();
        if charged > self.in_flight { charged } else { self.in_flight }
    }

    pub(super) const fn is_sending(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether all that may leave has left: what still waits then waits for a fragment.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_idle() && self.next.is_none() && self.control.is_none()
    }

    /// Whether nothing stands here, and no fragment is to come: another session may have it.
    pub(super) fn is_free(&self) -> bool {
        self.is_flushed() && !self.fragmented
    }

    /// Whether a message would leave at this turn's end.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.is_idle() && !self.fragmented
    }

    /// Whether what is written now leaves at this turn's end.
    #[inline]
    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.waiting.is_empty()
    }

    // In order

    /// Appends a message that is to be written where it leaves from. Only while the queue [is open](Queue::is_open).
    #[inline]
    pub(super) fn write<R>(&mut self, batches: &mut BatchPool, write: impl FnOnce(&mut Batch) -> R) -> R {
        debug_assert!(self.in_flight == 0);
        let batch = self.next.get_or_insert_with(|| batches.take());
        let before = batch.owned_len();
        let answer = write(batch);
        self.charged_leaving += batch.owned_len() - before;
        answer
    }

    /// The same for a message that is encoded already: this session's own, or one that others share.
    pub(super) fn write_shared(&mut self, batches: &mut BatchPool, joins: &mut Joins, frame: &Bytes, own: bool) {
        if !own {
            return self.write(batches, |batch| batch.push_joined(frame, |left, right| joins.join(left, right)));
        }
        self.write_own(batches, frame);
    }

    fn write_own(&mut self, batches: &mut BatchPool, bytes: &Bytes) {
        let copied = self.write(batches, |batch| {
            let before = batch.owned_len();
            batch.push_shared(bytes);
            batch.owned_len() > before
        });
        if !copied {
            self.charged_leaving += bytes.len();
        }
    }

    /// Appends bytes that must leave in this order: an answer, a close frame. Not amid a message.
    pub(super) fn append<R>(&mut self, batches: &mut BatchPool, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        debug_assert!(!self.fragmented);
        if self.is_idle() {
            return self.write(batches, |batch| batch.append(write));
        }
        let mut bytes = Vec::new();
        let answer = write(&mut bytes);
        self.add(bytes.into(), Tag::default(), Kind::Fixed);
        answer
    }

    /// The same for bytes that others may share.
    pub(super) fn append_shared(&mut self, batches: &mut BatchPool, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        if !self.is_idle() {
            return self.add(bytes.clone(), Tag::default(), Kind::Fixed);
        }
        self.write_own(batches, bytes);
    }

    /// Appends our close frame, behind which nothing stands.
    pub(super) fn append_close<R>(&mut self, batches: &mut BatchPool, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let before = self.bytes();
        let answer = self.append(batches, write);
        self.farewell_bytes = self.bytes() - before;
        answer
    }

    /// Appends a fragment of a message: behind the fragment before it, or, the first one, behind all that waits.
    pub(super) fn append_fragment(&mut self, batches: &mut BatchPool, last: bool, write: impl FnOnce(&mut Vec<u8>)) {
        self.fragmented = true;
        if self.is_idle() {
            self.write(batches, |batch| batch.append(write));
        } else {
            let mut bytes = Vec::new();
            write(&mut bytes);
            self.add(bytes.into(), Tag::default(), Kind::Fixed);
        }
        if last {
            self.fragmented = false;
            self.waiting.append(&mut std::mem::take(&mut self.behind));
            self.behind_bytes = 0;
        }
    }

    /// No more fragments come, and the message is unfinished: what waits behind it must not follow. Answers what that was.
    pub(super) fn abandon_fragments(&mut self) -> Vec<DroppedMessage> {
        self.fragmented = false;
        let behind = std::mem::take(&mut self.behind);
        self.behind_bytes = 0;
        behind.iter().for_each(|waiting| self.discount(waiting));
        behind.iter().map(Waiting::dropped).collect()
    }

    // Messages that wait

    /// Puts a message behind all that waits: this session's own, or one that others share.
    pub(super) fn push(&mut self, frame: &Bytes, tag: Tag, own: bool) {
        self.add(frame.clone(), tag, if own { Kind::Own } else { Kind::Shared });
    }

    /// Takes out the message that waits in this slot, and puts `frame` into its place: this session's own, or one that
    /// others share.
    pub(super) fn replace(&mut self, frame: &Bytes, tag: Tag, own: bool) -> Option<DroppedMessage> {
        let (is_behind, at) = self.place_of(tag.slot)?;
        let place = if is_behind { &mut self.behind[at] } else { &mut self.waiting[at] };
        self.waiting_bytes = self.waiting_bytes - place.frame.len() + frame.len();
        if is_behind {
            self.behind_bytes = self.behind_bytes - place.frame.len() + frame.len();
        }
        let kind = if own { Kind::Own } else { Kind::Shared };
        let new = Waiting { frame: frame.clone(), tag, kind, number: place.number };
        let old = std::mem::replace(place, new);
        self.charged_waiting = self.charged_waiting - old.charge() + place.charge();
        Some(old.dropped())
    }

    /// Bytes of the message that waits in this slot.
    pub(super) fn bytes_in(&self, slot: u64) -> Option<usize> {
        let (is_behind, at) = self.place_of(slot)?;
        Some(if is_behind { &self.behind[at] } else { &self.waiting[at] }.frame.len())
    }

    /// Where the message of a slot waits: whether behind a message under way, and at which place there.
    fn place_of(&self, slot: u64) -> Option<(bool, usize)> {
        let number = *self.slots.as_ref()?.get(&slot)?;
        let is_behind = self.behind.front().is_some_and(|first| first.number <= number);
        let list = if is_behind { &self.behind } else { &self.waiting };
        Some((is_behind, list.partition_point(|waiting| waiting.number < number)))
    }

    /// Takes out the oldest message that may be dropped and is not the one in the slot `spared`.
    pub(super) fn drop_oldest(&mut self, spared: Option<u64>) -> Option<DroppedMessage> {
        let may_go = |waiting: &Waiting| waiting.kind != Kind::Fixed && Some(waiting.tag.slot) != spared;
        let dropped = if let Some(at) = self.waiting.iter().position(may_go) {
            let at = if planted(Fault::FixedFrameDropped) { 0 } else { at };
            self.waiting.remove(at)?
        } else {
            let dropped = self.behind.iter().position(may_go).and_then(|at| self.behind.remove(at))?;
            self.behind_bytes -= dropped.frame.len();
            dropped
        };
        self.discount(&dropped);
        Some(dropped.dropped())
    }

    /// Puts a frame at the end: messages behind one under way, what is fixed in front of them.
    fn add(&mut self, frame: Bytes, tag: Tag, kind: Kind) {
        let number = if kind == Kind::Fixed {
            self.waiting.back().map_or(0, |last| last.number)
        } else {
            self.last_number += 1;
            self.last_number
        };
        if tag.slot != 0 {
            self.slots.get_or_insert_default().insert(tag.slot, number);
        }
        let waiting = Waiting { frame, tag, kind, number };
        self.waiting_bytes += waiting.frame.len();
        self.charged_waiting += waiting.charge();
        if self.fragmented && kind != Kind::Fixed {
            self.behind_bytes += waiting.frame.len();
            self.behind.push_back(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
    }

    /// Does not count a frame any more that was taken out.
    fn discount(&mut self, waiting: &Waiting) {
        self.waiting_bytes -= waiting.frame.len();
        self.charged_waiting -= waiting.charge();
        if let Some(slots) = &mut self.slots
            && slots.get(&waiting.tag.slot) == Some(&waiting.number)
        {
            slots.remove(&waiting.tag.slot);
        }
    }

    // Control frames

    /// Whether a control frame that is written now leaves before none that waits: the send that those waited for may have
    /// ended in this very turn.
    fn takes_control(&self) -> bool {
        self.is_idle() && (self.control.is_none() || planted(Fault::PongOvertakes))
    }

    /// Queues a control frame other than a pong or a close. `false` if too many wait already.
    pub(super) fn push_control(&mut self, batches: &mut BatchPool, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.takes_control() {
            self.write(batches, |batch| batch.append(write));
            return true;
        }
        let control = self.control.get_or_insert_default();
        if control.count >= CONTROL_FRAMES_WAITING_MAX {
            return false;
        }
        control.count += 1;
        write(&mut control.frames);
        true
    }

    /// Queues a pong; one that waits already is replaced. Answers whether that was so.
    ///
    /// RFC 6455 §5.5.3: whoever has not answered earlier pings yet may answer the most recent one only.
    pub(super) fn push_pong(
        &mut self,
        batches: &mut BatchPool,
        payload: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if self.takes_control() {
            self.write(batches, |batch| batch.append(write));
            return false;
        }
        if planted(Fault::OldestPongKept) && self.control.as_ref().is_some_and(|control| control.pong.is_some()) {
            return true;
        }
        let mut kept = [0; CONTROL_PAYLOAD_BYTES_MAX];
        kept[..payload.len()].copy_from_slice(payload);
        self.control.get_or_insert_default().pong.replace((payload.len() as u8, kept)).is_some()
    }

    /// Nothing may follow our close frame: control frames that wait are let go.
    pub(super) fn clear_control(&mut self) {
        self.control = None;
    }

    // Leaving

    /// What leaves now, if anything does and nothing is in flight. `encode_pong` writes a pong's frame.
    pub(super) fn take_next(
        &mut self,
        batches: &mut BatchPool,
        joins: &mut Joins,
        encode_pong: impl FnOnce(&[u8], &mut Vec<u8>),
    ) -> Option<Box<Batch>> {
        if self.in_flight > 0 {
            return None;
        }
        let mut batch = match self.next.take() {
            Some(batch) => batch,
            None if self.is_flushed() => return None,
            None => batches.take(),
        };
        if let Some(control) = self.control.take() {
            let bytes = batch.append(|out| {
                let before = out.len();
                out.extend_from_slice(&control.frames);
                if let Some((length, payload)) = control.pong {
                    encode_pong(&payload[..usize::from(length)], out);
                }
                out.len() - before
            });
            self.charged_leaving += bytes;
        }
        while let Some(next) = self.waiting.front()
            && (batch.is_empty() || batch.len() + next.frame.len() <= SEND_BYTES_MAX)
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.discount(&waiting);
            let before = batch.owned_len();
            match waiting.kind {
                Kind::Shared => batch.push_joined(&waiting.frame, |left, right| joins.join(left, right)),
                Kind::Own | Kind::Fixed => batch.push_shared(&waiting.frame),
            }
            // By reference it is this queue's memory still; copied, it is once more.
            let copied = batch.owned_len() - before;
            let referenced = if copied == 0 && waiting.kind != Kind::Shared { waiting.frame.len() } else { 0 };
            self.charged_leaving += copied + referenced;
        }
        if self.waiting.is_empty() {
            // A queue that was long once does not stay so.
            self.waiting.shrink_to(WAITING_KEPT);
            if self.behind.is_empty() {
                self.slots = None;
            }
        }
        if batch.is_empty() {
            batches.put(batch);
            return None;
        }
        self.in_flight = batch.len();
        Some(batch)
    }

    /// The driver has handed some of its bytes to the kernel. Answers how many.
    pub(super) fn sent_part(&mut self, remaining: usize) -> usize {
        let sent = self.in_flight.saturating_sub(remaining);
        self.in_flight = remaining;
        sent
    }

    /// Nothing is in flight any more. Answers the bytes that were.
    pub(super) fn sent(&mut self) -> usize {
        self.charged_leaving = 0;
        std::mem::take(&mut self.in_flight)
    }

    /// Lets all go but what is in flight, for a queue that will be used by another session.
    pub(super) fn clear(&mut self, batches: &mut BatchPool) {
        if let Some(batch) = self.next.take() {
            batches.put(batch);
        }
        if self.is_bare() {
            (self.in_flight, self.fragmented, self.farewell_bytes) = (0, false, 0);
            (self.last_number, self.charged_leaving) = (0, 0);
        } else {
            *self = Self::default();
        }
    }

    /// Whether nothing waits and no list has memory: so it is with most queues that are given back.
    fn is_bare(&self) -> bool {
        let has_lists = self.waiting.capacity() > 0 || self.behind.capacity() > 0;
        !has_lists && self.control.is_none() && self.slots.is_none()
    }
}

impl Waiting {
    const fn dropped(&self) -> DroppedMessage {
        DroppedMessage { topic: self.tag.topic }
    }

    /// What it costs the session alone. A small one is copied when it leaves, though it is shared, and is paid for
    /// beforehand: the memory is looked at when a message is queued, and not when it leaves.
    fn charge(&self) -> usize {
        let is_shared = self.kind == Kind::Shared && self.frame.len() >= SEND_SHARED_BYTES_MIN;
        WAITING_BYTES + if is_shared { 0 } else { self.frame.len() }
    }
}

#[cfg(test)]
mod tests;
