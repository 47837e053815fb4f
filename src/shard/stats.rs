//! Counters of one shard: written by its thread alone, read from any.

use super::closing::CloseCause;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and any thread reads. Changing it costs an addition: no lock, no bus.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn add(&self, count: u64) {
        // One writer: nothing is lost between load and store.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn sub(&self, count: u64) {
        self.add(count.wrapping_neg());
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one shard, as its thread writes them.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
        }

        /// What one shard, or all of them together, has counted.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Stats {
                Stats { $($name: self.$name.get(),)* }
            }
        }

        impl std::ops::AddAssign for Stats {
            fn add_assign(&mut self, other: Stats) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Connections now, in whatever stage.
    connections,
    /// WebSockets now.
    sessions,
    /// Topics that have subscribers, counted once a shard.
    topics,
    /// Sessions for which something is queued or in flight now.
    queues,
    /// Memory now of what is queued and of messages that have not come whole.
    memory_bytes,
    /// Entries of the timing wheel now, those of sessions that are gone and not yet due among them.
    timers,
    /// Whether the shard is told to end: 1 from then on.
    draining,
    /// Connections accepted.
    accepted,
    /// Accepts that the system refused.
    accept_errors,
    /// WebSockets opened.
    opened,
    /// Upgrades refused because the shard has `sessions_max` already.
    refused_full,
    /// Upgrades refused because there were more than `handshake_rate` allows.
    refused_rate,
    /// Upgrades refused because their address has `sessions_per_address_max` already.
    refused_address,
    /// Requests answered with an HTTP status other than 101.
    responses,
    /// Messages received.
    messages_received,
    /// Messages taken into send queues, one for each receiver.
    messages_sent,
    /// Messages of `send` and of `publish` that a full queue refused or let go of, together.
    messages_dropped,
    /// Sent, and refused by a full queue whose session ended for it, or behind an unfinished message of one that closed.
    sends_dropped_close,
    /// Sent, and refused by a full queue.
    sends_dropped_new,
    /// Sent, and let go of for a newer one.
    sends_dropped_old,
    /// Sent, and replaced by a newer one with the same key.
    sends_conflated,
    /// Sent, and refused or let go of because the shard's memory was used up.
    sends_dropped_memory,
    /// Published, and refused by a full queue whose session ended for it, or behind an unfinished message of one that
    /// closed.
    publishes_dropped_close,
    /// Published, and refused by a full queue.
    publishes_dropped_new,
    /// Published, and let go of for a newer one.
    publishes_dropped_old,
    /// Published, and replaced by a newer one of the same topic and key.
    publishes_conflated,
    /// Published, and refused or let go of because the shard's memory was used up.
    publishes_dropped_memory,
    /// Pongs that a newer one took the place of before they could leave.
    pongs_coalesced,
    /// Sessions held back because they filled queues that were high, counted each time.
    producers_paused,
    /// Sessions held back because they sent more than their rates allow, counted each time.
    sessions_throttled,
    /// Bytes received from the network.
    bytes_received,
    /// Bytes handed to the network.
    bytes_sent,
    /// Posts for other shards that were dropped because their mailboxes stayed full.
    posts_dropped,
    /// Panics of the handler.
    handler_panics,
    /// Turns of the loop.
    turns,
    /// Times that the shard did not run when it should have: the process was suspended or starved.
    stalls,
    /// Sessions ended by the peer's close frame.
    ended_peer_closed,
    /// Sessions ended by ours.
    ended_closed,
    /// Sessions whose stream ended or broke.
    ended_peer_gone,
    /// Sessions whose peer broke the protocol.
    ended_protocol,
    /// Sessions that were idle for too long.
    ended_idle_timeout,
    /// Sessions that did not answer a ping.
    ended_pong_timeout,
    /// Sessions that did not answer our close frame.
    ended_close_timeout,
    /// Sessions that took nothing of what was queued.
    ended_stalled,
    /// Sessions that lived as long as they may.
    ended_lifetime_over,
    /// Sessions whose queue was full.
    ended_slow_consumer,
    /// Sessions that sent more than they may.
    ended_rate_exceeded,
    /// Sessions that needed most of a shard's used up memory.
    ended_out_of_memory,
    /// Sessions whose handler panicked.
    ended_handler_panicked,
    /// Sessions that were left when the shard ended.
    ended_shutdown,
}

/// Why a message did not reach a session that was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    /// Its queue was full, and it ended for it; or it closed amid a message, and this one stood behind.
    Close,
    New,
    Old,
    Conflated,
    Memory,
}

impl Counters {
    /// Counts messages that were dropped, sent or published.
    pub(super) fn count_dropped(&self, reason: DropReason, published: bool, count: u64) {
        self.messages_dropped.add(count);
        let counter = match (reason, published) {
            (DropReason::Close, false) => &self.sends_dropped_close,
            (DropReason::New, false) => &self.sends_dropped_new,
            (DropReason::Old, false) => &self.sends_dropped_old,
            (DropReason::Conflated, false) => &self.sends_conflated,
            (DropReason::Memory, false) => &self.sends_dropped_memory,
            (DropReason::Close, true) => &self.publishes_dropped_close,
            (DropReason::New, true) => &self.publishes_dropped_new,
            (DropReason::Old, true) => &self.publishes_dropped_old,
            (DropReason::Conflated, true) => &self.publishes_conflated,
            (DropReason::Memory, true) => &self.publishes_dropped_memory,
        };
        counter.add(count);
    }

    /// Counts a session that ended.
    pub(super) fn count_ended(&self, cause: &CloseCause) {
        let counter = match cause {
            CloseCause::PeerClosed(_) => &self.ended_peer_closed,
            CloseCause::Closed => &self.ended_closed,
            CloseCause::PeerGone(_) => &self.ended_peer_gone,
            CloseCause::Protocol(_) => &self.ended_protocol,
            CloseCause::IdleTimeout => &self.ended_idle_timeout,
            CloseCause::PongTimeout => &self.ended_pong_timeout,
            CloseCause::CloseTimeout => &self.ended_close_timeout,
            CloseCause::Stalled => &self.ended_stalled,
            CloseCause::LifetimeOver => &self.ended_lifetime_over,
            CloseCause::SlowConsumer => &self.ended_slow_consumer,
            CloseCause::RateExceeded => &self.ended_rate_exceeded,
            CloseCause::OutOfMemory => &self.ended_out_of_memory,
            CloseCause::HandlerPanicked => &self.ended_handler_panicked,
            CloseCause::Shutdown => &self.ended_shutdown,
        };
        counter.add(1);
    }
}
