//! What one session is to be sent: bytes with the driver, bytes that leave next, messages that wait.
//!
//! ```text
//!  nothing in flight:   send ─▶ next ──────────────────────────────▶ driver, at the turn's end
//!  a send in flight:    send ─▶ waiting ─┐
//!                       ping ─▶ control ─┴─ at most one submission ─▶ driver, when the send has ended
//! ```
//! Messages wait one by one, so that a policy may drop or replace them; what the driver has is out of reach. Control
//! frames have a lane of their own: they wait for the send in flight and for nothing else, and of pongs only the newest
//! waits (RFC 6455 §5.5.3). An idle session has no queue at all.

use crate::base::limits::{CONTROL_FRAMES_WAITING_MAX, CONTROL_PAYLOAD_BYTES_MAX, SEND_BYTES_MAX};
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
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Of these, what waits for the last fragment of a message under way.
    behind_bytes: usize,
    control: Option<Box<Control>>,
    /// While a message is sent in fragments: where the next one goes. What stands behind waits for the last one.
    fragments_at: Option<usize>,
    /// Where the message of each slot waits, counted from `front`. Empty until a message with a slot waits.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 48 for the many queues without slots")]
    slots: Option<Box<HashMap<u64, u64>>>,
    /// The number of the first that waits.
    front: u64,
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
        !self.waiting.is_empty()
    }

    /// Memory that is held by this queue alone, and what its lists take.
    pub(super) const fn charged(&self) -> usize {
        self.charged_waiting + self.charged_leaving
    }

    pub(super) const fn is_sending(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether all that may leave has left: what still waits then waits for a fragment.
    pub(super) fn is_flushed(&self) -> bool {
        let none_may_leave = self.waiting.is_empty() || self.fragments_at == Some(0);
        self.in_flight == 0 && self.next.is_none() && self.control.is_none() && none_may_leave
    }

    /// Whether nothing stands here, not even the place of a message's next fragment: another session may have it.
    pub(super) fn is_free(&self) -> bool {
        self.is_flushed() && self.fragments_at.is_none()
    }

    /// Whether a message would leave at this turn's end.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.in_flight == 0 && self.waiting.is_empty() && self.fragments_at.is_none()
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

    /// The same for a message that is encoded already.
    pub(super) fn write_shared(&mut self, batches: &mut BatchPool, frame: &Bytes, own: bool) {
        let copied = self.write(batches, |batch| {
            let before = batch.owned_len();
            batch.push_shared(frame);
            batch.owned_len() > before
        });
        if own && !copied {
            self.charged_leaving += frame.len();
        }
    }

    /// Appends bytes that must leave in this order: an answer, a close frame.
    pub(super) fn append<R>(&mut self, batches: &mut BatchPool, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if self.in_flight == 0 && self.waiting.is_empty() {
            return self.write(batches, |batch| batch.append(write));
        }
        let mut bytes = Vec::new();
        let answer = write(&mut bytes);
        self.insert(self.waiting.len(), bytes.into(), Tag::default(), Kind::Fixed);
        answer
    }

    /// Appends a fragment of a message: behind the fragment before it, or, the first one, behind all that waits.
    pub(super) fn append_fragment(&mut self, batches: &mut BatchPool, last: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let at = *self.fragments_at.get_or_insert(self.waiting.len());
        if self.in_flight == 0 && at == 0 {
            self.write(batches, |batch| batch.append(write));
        } else {
            let mut bytes = Vec::new();
            write(&mut bytes);
            self.insert(at, bytes.into(), Tag::default(), Kind::Fixed);
            self.fragments_at = Some(at + 1);
        }
        if last {
            self.fragments_at = None;
            self.behind_bytes = 0;
        }
    }

    /// No more fragments come, and the message is unfinished: what waits behind it must not follow. Answers what that was.
    pub(super) fn abandon_fragments(&mut self) -> Vec<DroppedMessage> {
        let Some(at) = self.fragments_at.take() else { return Vec::new() };
        self.behind_bytes = 0;
        (at..self.waiting.len()).rev().map(|last| self.remove(last).dropped()).collect()
    }

    // Messages that wait

    /// Puts a message behind all that waits: this session's own, or one that others share.
    pub(super) fn push(&mut self, frame: &Bytes, tag: Tag, own: bool) {
        let kind = if own { Kind::Own } else { Kind::Shared };
        if self.fragments_at.is_some() {
            self.behind_bytes += frame.len();
        }
        self.insert(self.waiting.len(), frame.clone(), tag, kind);
    }

    /// Takes out the message that waits in this slot, and puts `frame` into its place: this session's own, or one that
    /// others share.
    pub(super) fn replace(&mut self, frame: &Bytes, tag: Tag, own: bool) -> Option<DroppedMessage> {
        let at = self.place_of(tag.slot)?;
        let place = &mut self.waiting[at];
        self.waiting_bytes = self.waiting_bytes - place.frame.len() + frame.len();
        if self.fragments_at.is_some_and(|fragments_at| at >= fragments_at) {
            self.behind_bytes = self.behind_bytes - place.frame.len() + frame.len();
        }
        let kind = if own { Kind::Own } else { Kind::Shared };
        let old = std::mem::replace(place, Waiting { frame: frame.clone(), tag, kind });
        self.charged_waiting = self.charged_waiting - old.charge() + place.charge();
        Some(old.dropped())
    }

    /// Bytes of the message that waits in this slot.
    pub(super) fn bytes_in(&self, slot: u64) -> Option<usize> {
        self.place_of(slot).map(|at| self.waiting[at].frame.len())
    }

    fn place_of(&self, slot: u64) -> Option<usize> {
        let number = *self.slots.as_ref()?.get(&slot)?;
        Some((number - self.front) as usize)
    }

    /// Takes out the oldest message that may be dropped and is not the one in the slot `spared`.
    pub(super) fn drop_oldest(&mut self, spared: Option<u64>) -> Option<DroppedMessage> {
        let may_go = |waiting: &Waiting| waiting.kind != Kind::Fixed && Some(waiting.tag.slot) != spared;
        let at = self.waiting.iter().position(may_go)?;
        Some(self.remove(at).dropped())
    }

    fn insert(&mut self, at: usize, frame: Bytes, tag: Tag, kind: Kind) {
        let waiting = Waiting { frame, tag, kind };
        self.waiting_bytes += waiting.frame.len();
        self.charged_waiting += waiting.charge();
        let at_end = at == self.waiting.len();
        self.waiting.insert(at, waiting);
        if !at_end {
            self.number_slots();
        } else if tag.slot != 0 {
            self.slots.get_or_insert_default().insert(tag.slot, self.front + at as u64);
        }
    }

    fn remove(&mut self, at: usize) -> Waiting {
        let waiting = self.waiting.remove(at).expect("the caller has counted");
        self.waiting_bytes -= waiting.frame.len();
        self.charged_waiting -= waiting.charge();
        match &mut self.fragments_at {
            Some(fragments_at) if at < *fragments_at => *fragments_at -= 1,
            Some(_) => self.behind_bytes -= waiting.frame.len(),
            None => {}
        }
        if at > 0 {
            self.number_slots();
            return waiting;
        }
        if let Some(slots) = &mut self.slots
            && slots.get(&waiting.tag.slot) == Some(&self.front)
        {
            slots.remove(&waiting.tag.slot);
        }
        self.front += 1;
        waiting
    }

    /// Numbers all anew: something came or went between them, which only fragments do.
    fn number_slots(&mut self) {
        let Some(slots) = &mut self.slots else { return };
        slots.clear();
        let numbered = (self.front..).zip(&self.waiting).filter(|(_, waiting)| waiting.tag.slot != 0);
        slots.extend(numbered.map(|(number, waiting)| (waiting.tag.slot, number)));
    }

    // Control frames

    /// Queues a control frame other than a pong or a close. `false` if too many wait already.
    pub(super) fn push_control(&mut self, batches: &mut BatchPool, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.in_flight == 0 && self.waiting.is_empty() {
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
        if self.in_flight == 0 && self.waiting.is_empty() {
            self.write(batches, |batch| batch.append(write));
            return false;
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
        encode_pong: impl FnOnce(&[u8], &mut Vec<u8>),
    ) -> Option<Box<Batch>> {
        if self.in_flight > 0 {
            return None;
        }
        let mut batch = match self.next.take() {
            Some(batch) => batch,
            None if self.waiting.is_empty() && self.control.is_none() => return None,
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
        while let Some(waiting) = self.waiting.front()
            && self.fragments_at != Some(0)
            && (batch.is_empty() || batch.len() + waiting.frame.len() <= SEND_BYTES_MAX)
        {
            let waiting = self.remove(0);
            let before = batch.owned_len();
            batch.push_shared(&waiting.frame);
            // By reference it is this queue's memory still; copied, it is once more.
            let copied = batch.owned_len() - before;
            let referenced = if copied == 0 && waiting.kind != Kind::Shared { waiting.frame.len() } else { 0 };
            self.charged_leaving += copied + referenced;
        }
        if self.waiting.is_empty() {
            // A queue that was long once does not stay so.
            self.slots = None;
            self.waiting.shrink_to(WAITING_KEPT);
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
        *self = Self::default();
    }
}

impl Waiting {
    const fn dropped(&self) -> DroppedMessage {
        DroppedMessage { topic: self.tag.topic }
    }

    /// What it costs the session alone.
    fn charge(&self) -> usize {
        WAITING_BYTES + if self.kind == Kind::Shared { 0 } else { self.frame.len() }
    }
}

#[cfg(test)]
mod tests;
