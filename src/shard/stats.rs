//! Counters of one shard: written by its thread alone, read from any.

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

    fn get(&self) -> u64 {
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
    /// Connections accepted.
    accepted,
    /// Accepts that the system refused.
    accept_errors,
    /// WebSockets opened.
    opened,
    /// Requests answered with an HTTP status other than 101.
    responses,
    /// Messages received.
    messages_received,
    /// Messages taken into send queues, one for each receiver.
    messages_sent,
    /// Messages that a full send queue refused.
    messages_dropped,
    /// Bytes received from the network.
    bytes_received,
    /// Bytes handed to the network.
    bytes_sent,
    /// Posts for other shards that were dropped because their mailboxes stayed full.
    posts_dropped,
    /// Turns of the loop.
    turns,
}
