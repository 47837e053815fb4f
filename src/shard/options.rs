//! What one session may do, and what happens when it does not keep up. Chosen for each at its upgrade.
//!
//! Sessions share equal options: a session keeps two bytes, a shard keeps each value once while sessions use it.

use crate::base::bucket::Rate;
use crate::base::clock::Tick;
use crate::base::limits::{KIB, MIB, OPTIONS_MAX};
use std::collections::HashMap;
use std::time::Duration;

/// What happens to a message for a session whose queue is full. Control frames are never dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The session ends at once, with [`CloseCause::SlowConsumer`](super::CloseCause::SlowConsumer).
    #[default]
    Close,
    /// The new message is dropped.
    DropNew,
    /// The oldest messages that wait are dropped until the new one fits.
    DropOld,
    /// While messages wait, a new one takes the place of the one with the same key ([`Session::send_keyed`]; a published
    /// one without a key of its own: the same topic). Where that is not enough, as [`Policy::DropOld`].
    ///
    /// [`Session::send_keyed`]: super::Session::send_keyed
    Conflate,
    /// Whoever fills the queue is not read from, from high water to low water: sessions of any shard that published or
    /// sent; [`Handle::publish`](super::Handle::publish) says no. A queue that is full all the same ends its session.
    PauseProducer,
}

/// What happens to a session that sends more than its rates allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RateAnswer {
    /// It is not read from until its rate allows more: its own system holds it back, nothing is lost.
    #[default]
    Pause,
    /// It is closed with 1008, [`CloseCause::RateExceeded`](super::CloseCause::RateExceeded).
    Close,
}

/// What one session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionOptions {
    /// What happens when its queue is full.
    pub policy: Policy,
    /// Bytes that wait for it behind a send in flight, at most. Default: 16 MiB. An empty queue takes one message of any
    /// length; what gathers within one turn, before anything is in flight, is not counted.
    pub queue_bytes_max: usize,
    /// With this many bytes queued it is under pressure: with [`Policy::Close`] and [`Policy::PauseProducer`] nothing
    /// more is received from it … Default: 1 MiB. At most `queue_bytes_max`.
    pub high_water_bytes: usize,
    /// … until its queue is down to this; then [`Handler::on_drain`](super::Handler::on_drain) is called. Default: 256
    /// KiB. At most `high_water_bytes`.
    pub low_water_bytes: usize,
    /// Whether `+` and `#` are wildcards in what it subscribes to. If not, such a subscription is refused. Default: no.
    pub wildcards: bool,
    /// Whether a message that does not come in one piece is handed to
    /// [`Handler::on_chunk`](super::Handler::on_chunk) as it comes, instead of being gathered. Default: no.
    pub chunks: bool,
    /// Messages a second that it may send. Default: as many as it likes.
    pub message_rate: Option<Rate>,
    /// Bytes a second that it may send, frame headers counted. Default: as many as it likes.
    pub byte_rate: Option<Rate>,
    /// What happens when it sends more.
    pub rate_answer: RateAnswer,
    /// It is closed with 1001 when it has lived for so long, or for up to a tenth less: those that were opened together
    /// do not all come back together. Default, and what is longer than 198 days: never.
    pub lifetime_max: Option<Duration>,
    /// Whether [`Context::peer_addr`](super::Context::peer_addr) is known for as long as it lives, and not for the time
    /// of its upgrade only. About 100 bytes a session. Default: no.
    pub keeps_peer_addr: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            queue_bytes_max: 16 * MIB,
            high_water_bytes: MIB,
            low_water_bytes: 256 * KIB,
            wildcards: false,
            chunks: false,
            message_rate: None,
            byte_rate: None,
            rate_answer: RateAnswer::default(),
            lifetime_max: None,
            keeps_peer_addr: false,
        }
    }
}

impl SessionOptions {
    /// Whether it is not read from while its queue is high.
    pub(super) const fn pauses_when_high(&self) -> bool {
        matches!(self.policy, Policy::Close | Policy::PauseProducer)
    }

    /// What is out of order is put in order: water marks within the queue.
    fn sound(mut self) -> Self {
        self.queue_bytes_max = self.queue_bytes_max.max(1);
        self.high_water_bytes = self.high_water_bytes.clamp(1, self.queue_bytes_max);
        self.low_water_bytes = self.low_water_bytes.min(self.high_water_bytes);
        self
    }
}

/// The options in use in one shard.
#[derive(Debug)]
pub(super) struct OptionsTable {
    /// The first is the default and stays.
    entries: Vec<Entry>,
    by_value: HashMap<SessionOptions, u16>,
    free: Vec<u16>,
}

#[derive(Debug)]
struct Entry {
    options: SessionOptions,
    lifetime_ticks: Option<u32>,
    sessions: u32,
}

impl Entry {
    fn new(options: SessionOptions) -> Self {
        let ticks = options.lifetime_max.map(|life| Tick::count(life).max(1));
        // As long as ticks can tell is never.
        Self { options, lifetime_ticks: ticks.filter(|ticks| *ticks < Tick::SPAN_MAX), sessions: 0 }
    }
}

/// More than [`OPTIONS_MAX`] different options are in use.
#[derive(Debug)]
pub(super) struct TooManyOptions;

impl OptionsTable {
    pub(super) fn new(default: SessionOptions) -> Self {
        Self { entries: vec![Entry::new(default.sound())], by_value: HashMap::new(), free: Vec::new() }
    }

    #[inline]
    pub(super) fn get(&self, number: u16) -> &SessionOptions {
        &self.entries[usize::from(number)].options
    }

    /// Ticks that such a session lives at most.
    #[inline]
    pub(super) fn lifetime(&self, number: u16) -> Option<u32> {
        self.entries[usize::from(number)].lifetime_ticks
    }

    /// One more session with these options. Answers their number.
    pub(super) fn enter(&mut self, options: SessionOptions) -> Result<u16, TooManyOptions> {
        let options = options.sound();
        let number = if options == self.entries[0].options {
            0
        } else if let Some(number) = self.by_value.get(&options) {
            *number
        } else {
            let number = match self.free.pop() {
                Some(number) => {
                    self.entries[usize::from(number)] = Entry::new(options);
                    number
                }
                None if self.entries.len() < OPTIONS_MAX => {
                    self.entries.push(Entry::new(options));
                    (self.entries.len() - 1) as u16
                }
                None => return Err(TooManyOptions),
            };
            self.by_value.insert(options, number);
            number
        };
        self.entries[usize::from(number)].sessions += 1;
        Ok(number)
    }

    /// A session with these options is over.
    pub(super) fn leave(&mut self, number: u16) {
        let entry = &mut self.entries[usize::from(number)];
        debug_assert!(entry.sessions > 0);
        entry.sessions -= 1;
        if entry.sessions == 0 && number != 0 {
            self.by_value.remove(&entry.options);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_options_are_kept_once_and_only_while_they_are_used() {
        let default = SessionOptions::default();
        let mut table = OptionsTable::new(default);
        let other = |bytes: usize| SessionOptions { queue_bytes_max: bytes, ..default };
        assert_eq!(table.enter(default).expect("room"), 0);
        let one = table.enter(other(1)).expect("room");
        assert_eq!(table.enter(other(1)).expect("room"), one);
        assert_eq!(table.get(one).high_water_bytes, 1, "the water marks lie within the queue");
        table.leave(one);
        assert_ne!(table.enter(other(2)).expect("room"), one, "still in use");
        table.leave(one);
        assert_eq!(table.enter(other(3)).expect("room"), one);
        assert_eq!(table.get(one).queue_bytes_max, 3);
        for bytes in 3..OPTIONS_MAX {
            table.enter(other(1000 + bytes)).expect("room");
        }
        assert!(table.enter(other(7)).is_err());
        table.enter(other(3)).expect("it is there already");
    }
}
