//! Topics as sessions meet them: subscribing, publishing to the subscribers of this shard and of the others.

use super::core::{Core, SendOutcome};
use super::mailbox::{Outbox, Post};
use super::pattern;
use super::queue::Tag;
use super::sending::{Origin, Outgoing};
use super::session::{Flags, Stage};
use crate::base::key::Key;
use crate::base::limits::{PATTERN_LEVELS_MAX, PATTERNS_MAX, SUBSCRIPTIONS_MAX, TOPIC_BYTES_MAX};
use crate::protocol::message::Prepared;
use std::fmt;
use std::sync::Arc;

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// A topic's name has 1 to 255 bytes.
    NameLength,
    /// A level of the name is `+` or `#`, and the session's options do not allow wildcards.
    Wildcard,
    /// `#` stands anywhere but at the end, or there are more than 32 levels.
    Pattern,
    /// The session has 1 024 subscriptions already, or 64 and wants a pattern.
    TooMany,
    /// The session is closing or gone.
    Closed,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameLength => write!(f, "a topic's name has 1 to {TOPIC_BYTES_MAX} bytes"),
            Self::Wildcard => f.write_str("wildcards are not allowed here"),
            Self::Pattern => {
                write!(
                    f,
                    "# stands at the end of a pattern only, and a pattern has at most {PATTERN_LEVELS_MAX} levels"
                )
            }
            Self::TooMany => {
                write!(
                    f,
                    "a session has at most {SUBSCRIPTIONS_MAX} subscriptions, and patterns among the first {PATTERNS_MAX}"
                )
            }
            Self::Closed => f.write_str("the session is closed"),
        }
    }
}

impl std::error::Error for SubscribeError {}

/// What became of a published message in the publisher's own shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Sessions that took it.
    pub taken: usize,
    /// Sessions whose policy dropped it.
    pub dropped: usize,
}

impl<T> Core<T> {
    pub(super) fn subscribe(&mut self, key: Key, topic: &str) -> Result<bool, SubscribeError> {
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
            return Err(SubscribeError::NameLength);
        }
        let state = match self.sessions.get_mut(key) {
            Some(state) if state.stage == Stage::Open => state,
            _ => return Err(SubscribeError::Closed),
        };
        let is_pattern = pattern::has_wildcard(topic);
        if is_pattern && !self.options.get(state.options).wildcards {
            return Err(SubscribeError::Wildcard);
        }
        if is_pattern && pattern::check(topic).is_err() {
            return Err(SubscribeError::Pattern);
        }
        let list = &mut state.extra.get_or_insert_default().subscriptions;
        // A publish looks at every pattern on its way: patterns are dearer than names.
        let max = if is_pattern { PATTERNS_MAX } else { SUBSCRIPTIONS_MAX };
        if list.len() >= max && self.topics.find(topic, list).is_none() {
            return Err(SubscribeError::TooMany);
        }
        let new = match is_pattern {
            true => self.topics.subscribe_pattern(topic, key, list),
            false => self.topics.subscribe(topic, key, list),
        };
        self.counters().topics.set(self.topics.len() as u64);
        Ok(new)
    }

    pub(super) fn unsubscribe(&mut self, key: Key, topic: &str) -> bool {
        let Some(state) = self.sessions.get(key) else { return false };
        let slot = self.topics.find(topic, state.subscriptions());
        slot.is_some_and(|slot| self.unsubscribe_slot(key, slot))
    }

    /// Ends all subscriptions of a session.
    pub(super) fn unsubscribe_all(&mut self, key: Key) {
        while let Some(last) = self.sessions.get(key).and_then(|state| state.subscriptions().len().checked_sub(1)) {
            self.unsubscribe_slot(key, last);
        }
    }

    fn unsubscribe_slot(&mut self, key: Key, slot: usize) -> bool {
        let Some(state) = self.sessions.get_mut(key) else { return false };
        let Some(extra) = &mut state.extra else { return false };
        let moved = self.topics.unsubscribe(slot, &mut extra.subscriptions);
        state.trim();
        if let Some(moved) = moved {
            let other = self.sessions.get_mut(moved.session()).and_then(|state| state.extra.as_mut());
            moved.correct(&mut other.expect("a subscriber has a list").subscriptions);
        }
        self.counters().topics.set(self.topics.len() as u64);
        true
    }

    pub(super) fn subscribed(&self, key: Key, topic: &str) -> bool {
        self.sessions.get(key).is_some_and(|state| self.topics.find(topic, state.subscriptions()).is_some())
    }

    /// Sends to this shard's subscribers and posts to the other shards.
    pub(super) fn publish(&mut self, publication: &Publication<'_>, except: Option<Key>) -> Published {
        let published = self.publish_here(publication, except);
        if self.outboxes.len() > 1 {
            self.work += self.outboxes.len() as u64 - 1;
            let name = self.topics.shared_name(publication.topic).unwrap_or_else(|| Arc::from(publication.topic));
            let (here, Publication { message, key, origin, .. }) = (self.shard, publication);
            for shard in (0..self.mailboxes.count()).filter(|shard| *shard != here) {
                let post =
                    Post::Publish { topic: name.clone(), message: (*message).clone(), key: *key, origin: *origin };
                self.post(shard, post);
                self.hold_if_behind(shard, *origin);
            }
        }
        published
    }

    /// Another shard is behind with its mail: a session that fills its outbox is not read from until that is short.
    pub(super) fn hold_if_behind(&mut self, shard: u16, origin: Origin) {
        let is_high = self.outboxes.get(usize::from(shard)).is_some_and(Outbox::is_high);
        if is_high
            && let Some(producer) = origin.and_then(|origin| self.local(origin))
            && self.sessions.get(producer).is_some_and(|state| !state.flags.has(Flags::AHEAD))
        {
            self.hold_back(producer, Flags::AHEAD, true);
            self.ahead.push(producer);
            self.stops_reading = true;
        }
    }

    /// Sends to this shard's subscribers: one encoding, a reference each.
    pub(super) fn publish_here(&mut self, publication: &Publication<'_>, except: Option<Key>) -> Published {
        if self.topics.has_patterns() {
            return self.publish_to_matching(publication, except);
        }
        let Some(id) = self.topics.id(publication.topic) else { return Published::default() };
        let letter = self.letter(publication);
        let mut published = Published::default();
        self.topics.count_published(id);
        let tag = Tag { slot: letter.slot, topic: Some(self.topics.reference(id)) };
        self.work += self.topics.subscribers_of(id).len() as u64;
        // By position: sending changes sessions, never topics.
        for position in 0..self.topics.subscribers_of(id).len() {
            let session = self.topics.subscribers_of(id)[position].session;
            if Some(session) != except {
                let topic = Some(publication.topic);
                let message = Outgoing { frame: &letter.frame, own: false, tag, topic };
                published.count(self.send_frame(session, &message, publication.origin));
            }
        }
        published
    }

    /// The same where patterns may match too: whoever is reached by several of them gets the message once.
    fn publish_to_matching(&mut self, publication: &Publication<'_>, except: Option<Key>) -> Published {
        let mut ids = Vec::new();
        self.work += self.topics.matching(publication.topic, &mut ids) as u64;
        if ids.is_empty() {
            return Published::default();
        }
        let letter = self.letter(publication);
        let mut published = Published::default();
        for id in &ids {
            self.topics.count_published(*id);
            let tag = Tag { slot: letter.slot, topic: Some(self.topics.reference(*id)) };
            self.work += self.topics.subscribers_of(*id).len() as u64;
            for position in 0..self.topics.subscribers_of(*id).len() {
                let session = self.topics.subscribers_of(*id)[position].session;
                if Some(session) != except && (ids.len() == 1 || self.reached.add(session)) {
                    let topic = Some(publication.topic);
                    let message = Outgoing { frame: &letter.frame, own: false, tag, topic };
                    published.count(self.send_frame(session, &message, publication.origin));
                }
            }
        }
        self.reached.clear();
        published
    }

    fn letter(&self, publication: &Publication<'_>) -> Letter {
        Letter {
            frame: self.memory.shared.count(publication.message.frame().clone()),
            slot: self.slot_of(Some(publication.topic), publication.key),
        }
    }
}

/// A message for a topic.
pub(super) struct Publication<'a> {
    pub(super) topic: &'a str,
    pub(super) message: &'a Prepared,
    /// For `Policy::Conflate`: what tells messages of one topic apart.
    pub(super) key: u64,
    pub(super) origin: Origin,
}

/// Who has been reached by a publication that several topics match: a bit for each session's index. Cost: an eighth of a byte for
/// each index there has been, once anything was published that several match.
#[derive(Debug, Default)]
pub(super) struct Reached {
    words: Vec<u64>,
    /// Words that are not zero.
    changed: Vec<u32>,
}

impl Reached {
    /// Whether it was not reached before.
    fn add(&mut self, session: Key) -> bool {
        let (place, bit) = (session.index() / 64, 1 << (session.index() % 64));
        if place >= self.words.len() {
            self.words.resize(place + 1, 0);
        }
        let word = &mut self.words[place];
        if *word == 0 {
            self.changed.push(place as u32);
        }
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn clear(&mut self) {
        for place in self.changed.drain(..) {
            self.words[place as usize] = 0;
        }
    }
}

/// What is the same for all its receivers in a shard.
struct Letter {
    frame: bytes::Bytes,
    slot: u64,
}

impl Published {
    const fn count(&mut self, outcome: SendOutcome) {
        match outcome {
            SendOutcome::Sent | SendOutcome::Queued => self.taken += 1,
            SendOutcome::Dropped => self.dropped += 1,
            SendOutcome::Closed => {}
        }
    }
}
