//! What a shard keeps of one connection. A million of them: every byte here is a megabyte.

use super::topic::Subscription;
use crate::base::clock::Tick;
use crate::driver::Batch;
use crate::protocol::decoder::Decoder;
use crate::protocol::encoder::{Encoder, Server};

/// Where a connection stands. It only ever moves down this list, but for plain requests, which stay at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Waiting for a request, or for the rest of one.
    Head,
    /// A WebSocket.
    Open,
    /// Our close frame is queued or out; the peer's is awaited.
    Closing,
    /// The last bytes are queued; when they are out the link is closed, nothing is read any more.
    Finishing,
    /// The same, but what still comes is read away first, so that no reset destroys our last bytes.
    FinishingLong,
    /// Our side of the stream has ended; what comes is thrown away until the peer ends too or time is up.
    Lingering,
}

/// Bits of a session's state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u8);

impl Flags {
    /// Stands in the list of sessions to flush.
    pub(super) const DIRTY: u8 = 1 << 0;
    /// A send is in flight.
    pub(super) const SENDING: u8 = 1 << 1;
    /// Nothing is received: too much is queued for the peer.
    pub(super) const RECEIVE_PAUSED: u8 = 1 << 2;
    /// The peer has ended its side of the stream.
    pub(super) const PEER_ENDED: u8 = 1 << 3;
    /// A ping is out and nothing has come since. `since` says from when.
    pub(super) const PINGED: u8 = 1 << 4;
    /// `timer_at` stands in the wheel.
    pub(super) const TIMED: u8 = 1 << 5;

    pub(super) const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Sets or clears a bit; answers what it was.
    pub(super) const fn set(&mut self, bit: u8, on: bool) -> bool {
        let was = self.has(bit);
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
        was
    }
}

/// One connection, from its accept to its close.
#[derive(Debug)]
pub(super) struct SessionState<T> {
    /// What has gathered and waits for the turn's end, or for the send in flight.
    pub(super) pending: Option<Box<Batch>>,
    pub(super) decoder: Decoder<Server>,
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 for the many that subscribe to nothing")]
    pub(super) subscriptions: Option<Box<Vec<Subscription>>>,
    /// Bytes of the send in flight.
    pub(super) in_flight: u32,
    /// When the stage, or the ping that is out, began.
    pub(super) since: Tick,
    /// When the peer last showed that it is there: bytes came, or bytes for it were taken.
    pub(super) last_alive: Tick,
    /// When a message came or went last.
    pub(super) last_message: Tick,
    /// When the wheel will look at this session.
    pub(super) timer_at: Tick,
    pub(super) stage: Stage,
    pub(super) flags: Flags,
    pub(super) encoder: Encoder<Server>,
    /// The user's value, from the upgrade to `on_close`.
    pub(super) data: Option<T>,
}

// The record behind an idle connection; ARCHITECTURE.md adds up the rest.
const _: () = assert!(size_of::<SessionState<()>>() <= 64);

impl<T> SessionState<T> {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            pending: None,
            decoder: Decoder::default(),
            subscriptions: None,
            in_flight: 0,
            since: now,
            last_alive: now,
            last_message: now,
            timer_at: now,
            stage: Stage::Head,
            flags: Flags::default(),
            encoder: Encoder::default(),
            data: None,
        }
    }

    /// Bytes that have been accepted for sending and are not with the kernel yet.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.in_flight as usize + self.pending.as_ref().map_or(0, |batch| batch.len())
    }

    /// Whether nothing is queued and nothing in flight.
    pub(super) fn is_flushed(&self) -> bool {
        !self.flags.has(Flags::SENDING) && self.pending.as_ref().is_none_or(|batch| batch.is_empty())
    }

    /// Enters a stage.
    pub(super) fn enter(&mut self, stage: Stage, now: Tick) {
        self.stage = stage;
        self.since = now;
        self.flags.set(Flags::PINGED, false);
    }
}
