//! What a shard keeps of one connection. A million of them: every byte here is a megabyte.

use super::queue::Queue;
use super::topic::Subscription;
use crate::base::bucket::Bucket;
use crate::base::clock::Tick;
use crate::protocol::close::CloseCode;
use crate::protocol::decoder::Decoder;
use crate::protocol::encoder::{Encoder, Server};
use std::net::SocketAddr;
use std::time::Duration;

/// Where a connection stands. It only ever moves down this list, but for plain requests, which stay at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Waiting for a request, or for the rest of one.
    Head,
    /// A WebSocket.
    Open,
    /// Our close frame is queued or out; the peer's is awaited.
    Closing,
    /// It ends at this turn's end, without another word.
    Doomed,
    /// The last bytes are queued; when they are out the link is closed, nothing is read any more.
    Finishing,
    /// The same, but what still comes is read away first, so that no reset destroys our last bytes.
    FinishingLong,
    /// Our side of the stream has ended; what comes is thrown away until the peer ends too or time is up.
    Lingering,
}

/// Bits of a session's state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u16);

impl Flags {
    /// Stands in the list of sessions to flush.
    pub(super) const DIRTY: u16 = 1 << 0;
    /// Its queue has been above high water and not at low water since: not read from, if its policy says so.
    pub(super) const HIGH: u16 = 1 << 1;
    /// The handler asked for a pause.
    pub(super) const PAUSED: u16 = 1 << 2;
    /// Held back because it fills queues of others that are high (`Policy::PauseProducer`).
    pub(super) const HELD: u16 = 1 << 3;
    /// Held back because it has sent more than its rates allow; `Rare::resume_at` says until when.
    pub(super) const THROTTLED: u16 = 1 << 4;
    /// The driver has been told to stop receiving.
    pub(super) const DEAF: u16 = 1 << 5;
    /// The peer has ended its side of the stream.
    pub(super) const PEER_ENDED: u16 = 1 << 6;
    /// A ping is out and nothing has come since. `since` says from when.
    pub(super) const PINGED: u16 = 1 << 7;
    /// The pong that measures the round trip has not come.
    pub(super) const PONG_DUE: u16 = 1 << 8;
    /// `timer_at` stands in the wheel.
    pub(super) const TIMED: u16 = 1 << 9;
    /// Stands in the list of sessions that are to be told of dropped messages.
    pub(super) const DROPS_UNTOLD: u16 = 1 << 10;

    /// Held back because other shards are behind with what it publishes.
    pub(super) const AHEAD: u16 = 1 << 11;
    /// The send that carries our ping has not ended.
    pub(super) const PING_LEAVES: u16 = 1 << 12;

    /// What came has caused so much work that the rest waits in `Rare::unread`.
    pub(super) const BEHIND: u16 = 1 << 13;

    /// Stands in the list of sessions that are read on in the next turn.
    pub(super) const READS_ON: u16 = 1 << 14;

    /// Any of these, and nothing is read.
    const HELD_BACK: u16 = Self::PAUSED | Self::HELD | Self::THROTTLED | Self::AHEAD;

    pub(super) const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// Sets or clears a bit; answers what it was.
    pub(super) const fn set(&mut self, bit: u16, on: bool) -> bool {
        let was = self.has(bit);
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
        was
    }
}

/// One connection, from its accept to its close.
#[derive(Debug)]
pub(super) struct SessionState<T> {
    /// What is to be sent; none while nothing is.
    pub(super) queue: Option<Box<Queue>>,
    pub(super) decoder: Decoder<Server>,
    /// What most sessions do without.
    pub(super) extra: Option<Box<Extra>>,
    /// When the stage, or the ping that is out, began.
    pub(super) since: Tick,
    /// When bytes came last, or were welcome again.
    pub(super) last_received: Tick,
    /// When bytes were taken last, or began to be sent after nothing was.
    pub(super) last_sent: Tick,
    /// When a message came or went last.
    pub(super) last_message: Tick,
    /// When the wheel will look at this session.
    pub(super) timer_at: Tick,
    /// The last round trip of a ping, microseconds; 0 before the first.
    pub(super) round_trip_micros: u32,
    /// Its options' number.
    pub(super) options: u16,
    pub(super) flags: Flags,
    pub(super) stage: Stage,
    pub(super) encoder: Encoder<Server>,
    /// The user's value, from the upgrade to `on_close`.
    pub(super) data: Option<T>,
}

// The record behind an idle connection; ARCHITECTURE.md adds up the rest.
const _: () = assert!(size_of::<SessionState<()>>() <= 64);

/// What a session has that subscribes to something, or for which something rare is to be remembered.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<Extra>() <= 32);

/// What few sessions need.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// If the options keep it, or the peer's sessions are counted.
    pub(super) peer: Option<SocketAddr>,
    /// Messages dropped for this session …
    pub(super) dropped: u64,
    /// … and how many of them its handler has not been told of.
    pub(super) dropped_untold: u64,
    pub(super) messages: Bucket,
    pub(super) bytes: Bucket,
    /// When a throttled session is read from again.
    pub(super) resume_at: Tick,
    /// The look that was planned when it was throttled: it stands in the wheel behind that for its resumption.
    pub(super) later_look: Option<Tick>,
    /// When the upgrade was accepted, if the options limit the session's life.
    pub(super) opened_at: Tick,
    /// The code that the application closed with.
    pub(super) close_code: Option<CloseCode>,
    /// Bytes that came and wait for the next turn.
    pub(super) unread: Vec<u8>,
    /// Whether this session is counted for its peer's address.
    pub(super) address_counted: bool,
}

impl<T> SessionState<T> {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            queue: None,
            decoder: Decoder::default(),
            extra: None,
            since: now,
            last_received: now,
            last_sent: now,
            last_message: now,
            timer_at: now,
            round_trip_micros: 0,
            options: 0,
            flags: Flags::default(),
            stage: Stage::Head,
            encoder: Encoder::default(),
            data: None,
        }
    }

    /// Bytes that have been accepted for sending and are not with the kernel yet.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    /// The same without what waits for a fragment of ours: what the peer has not taken.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.leaving_bytes())
    }

    /// Memory that its end frees, if nobody else is sent what is in flight for it.
    pub(super) fn held_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.held_bytes()) + self.decoder.held_bytes()
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        let micros = u64::from(self.round_trip_micros);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Whether nothing is in flight and nothing could be.
    pub(super) fn is_flushed(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.is_flushed())
    }

    /// Whether something is in flight.
    pub(super) fn is_sending(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.is_sending())
    }

    /// Whether its bytes may be read. One that closes is read to its end, whatever held it back before: nothing that comes fills
    /// its queue any more.
    pub(super) fn may_be_read(&self, pauses_when_high: bool) -> bool {
        let high = (pauses_when_high || self.stage == Stage::Head) && self.flags.has(Flags::HIGH);
        self.stage >= Stage::Closing || !(high || self.flags.has(Flags::HELD_BACK))
    }

    /// Whether more bytes are to be received: not while there are some that wait.
    pub(super) fn is_read(&self, pauses_when_high: bool) -> bool {
        self.stage >= Stage::Closing || (self.may_be_read(pauses_when_high) && !self.flags.has(Flags::BEHIND))
    }

    pub(super) fn rare(&self) -> Option<&Rare> {
        self.extra.as_ref()?.rare.as_deref()
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.extra.get_or_insert_default().rare.get_or_insert_default()
    }

    pub(super) fn take_later_look(&mut self) -> Option<Tick> {
        self.extra.as_mut()?.rare.as_mut()?.later_look.take()
    }

    pub(super) fn subscriptions(&self) -> &[Subscription] {
        self.extra.as_ref().map_or(&[], |extra| &extra.subscriptions)
    }

    /// Lets go of what is empty.
    pub(super) fn trim(&mut self) {
        let Some(extra) = &mut self.extra else { return };
        if extra.subscriptions.is_empty() && extra.rare.is_none() {
            self.extra = None;
        }
    }

    /// Enters a stage.
    pub(super) fn enter(&mut self, stage: Stage, now: Tick) {
        self.stage = stage;
        self.since = now;
        self.flags.set(Flags::PINGED, false);
        self.flags.set(Flags::PING_LEAVES, false);
    }

    /// Moves times that lie further back than ticks can be compared up to where they still can: a session may stay
    /// silent for years.
    pub(super) fn age(&mut self, now: Tick) {
        const OLDEST: u32 = Tick::SPAN_MAX / 2;
        for time in [&mut self.since, &mut self.last_received, &mut self.last_sent, &mut self.last_message] {
            if now.since(*time) > OLDEST {
                *time = now.minus(OLDEST);
            }
        }
    }
}
