//! Topics: names and patterns of names, any number of subscribers, every change in constant time.
//!
//! ```text
//!  topic                              session
//!  subscribers[position] ──────────▶  subscriptions[slot]
//!     (session, slot)     ◀──────────    (topic, position)
//! ```
//! Each end knows its place in the other, so leaving is a swap with the last and one correction on each side. A pattern
//! is a topic like any other, but it is found through the tree in `pattern.rs` and not through the map of names.
//!
//! A subscription costs 12 bytes in the topic and 8 in the session. A topic costs 64 bytes in the slab and 25 in the
//! map, and 16 and its name on the heap; a pattern costs its levels in the tree instead of the map's 25. All these
//! tables double when they are full, so they may hold twice as much, the map 2.3 times; a session's first list has
//! room for four. A topic without subscribers is removed. Subscribers and the map give memory back when three quarters
//! are unused; the slab cannot, because sessions know the places in it: those of ended topics wait for the next ones,
//! until the last topic has ended.

use super::pattern::Patterns;
use super::queue::TopicRef;
use crate::base::key::Key;
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// A session's end of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    topic: u32,
    position: u32,
}

/// A topic's end of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) session: Key,
    slot: u32,
}

const _: () = assert!(size_of::<Subscription>() == 8 && size_of::<Subscriber>() == 12);

/// What subscribers share, whether its name is one topic's or a pattern.
#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    subscribers: Vec<Subscriber>,
    published: u64,
    dropped: u64,
    /// Tells it from earlier ones in the same place.
    serial: u32,
}

const _: () = assert!(size_of::<Topic>() == 64 && size_of::<(Arc<str>, u32)>() == 24);

/// What is known of a topic or a pattern, on this shard and since its first subscriber came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicStats<'a> {
    /// Its name; a pattern's has wildcards.
    pub name: &'a str,
    /// How many sessions are subscribed.
    pub subscribers: usize,
    /// Messages that were published to it, or to a topic that the pattern matches.
    pub published: u64,
    /// Deliveries of these that were dropped.
    pub dropped: u64,
}

/// The topics of one shard.
///
/// An id names a topic or a pattern until the next call that subscribes or unsubscribes.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// Names come from strangers: the map's hash is keyed.
    by_name: HashMap<Arc<str>, u32>,
    patterns: Patterns,
    topics: Slab<Topic>,
    /// Of the next topic.
    serial: u32,
}

/// Where a subscription that moved into another's place belongs: its session must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    session: Key,
    slot: u32,
    position: u32,
}

impl Moved {
    /// The session whose list is to be corrected.
    pub(super) const fn session(self) -> Key {
        self.session
    }

    /// Corrects that session's list.
    pub(super) fn correct(self, subscriptions: &mut [Subscription]) {
        subscriptions[self.slot as usize].position = self.position;
    }
}

impl Topics {
    // Subscribing

    /// Adds a subscription of `session` to its list and to the topic. `false` if it stands there already. The name is
    /// taken as it is, wildcards too.
    pub(super) fn subscribe(&mut self, name: &str, session: Key, list: &mut Vec<Subscription>) -> bool {
        let topic = match self.by_name.get(name) {
            Some(topic) => *topic,
            None => {
                let (topic, name) = self.add(name);
                self.by_name.insert(name, topic);
                topic
            }
        };
        self.join(topic, session, list)
    }

    /// The same for a pattern that passes [`check`](super::pattern::check).
    pub(super) fn subscribe_pattern(&mut self, pattern: &str, session: Key, list: &mut Vec<Subscription>) -> bool {
        let topic = match self.patterns.get(pattern) {
            Some(topic) => topic,
            None => {
                let (topic, _) = self.add(pattern);
                self.patterns.insert(pattern, topic);
                topic
            }
        };
        self.join(topic, session, list)
    }

    fn add(&mut self, name: &str) -> (u32, Arc<str>) {
        let name: Arc<str> = name.into();
        // Many topics never have a second subscriber; a vector's own first allocation is for four.
        let subscribers = Vec::with_capacity(1);
        let serial = self.serial;
        self.serial = serial.wrapping_add(1);
        let topic = self.topics.insert(Topic { name: name.clone(), subscribers, published: 0, dropped: 0, serial });
        (topic as u32, name)
    }

    fn join(&mut self, topic: u32, session: Key, list: &mut Vec<Subscription>) -> bool {
        if list.iter().any(|subscription| subscription.topic == topic) {
            return false;
        }
        let subscribers = &mut self.topics[topic as usize].subscribers;
        list.push(Subscription { topic, position: subscribers.len() as u32 });
        subscribers.push(Subscriber { session, slot: list.len() as u32 - 1 });
        true
    }

    /// The slot of a topic or a pattern in a session's list.
    pub(super) fn find(&self, name: &str, list: &[Subscription]) -> Option<usize> {
        let slot_of = |topic| list.iter().position(|subscription| subscription.topic == topic);
        let topic = self.by_name.get(name).and_then(|topic| slot_of(*topic));
        topic.or_else(|| slot_of(self.patterns.get(name)?))
    }

    /// Takes the subscription at `slot` out of a session's list and of its topic. Answers which other session's list
    /// must be corrected.
    pub(super) fn unsubscribe(&mut self, slot: usize, list: &mut Vec<Subscription>) -> Option<Moved> {
        let Subscription { topic, position } = list.swap_remove(slot);
        if let Some(moved) = list.get(slot) {
            self.topics[moved.topic as usize].subscribers[moved.position as usize].slot = slot as u32;
        }
        let subscribers = &mut self.topics[topic as usize].subscribers;
        subscribers.swap_remove(position as usize);
        let moved = subscribers.get(position as usize).map(|subscriber| Moved {
            session: subscriber.session,
            slot: subscriber.slot,
            position,
        });
        if subscribers.is_empty() {
            self.remove(topic);
        } else if subscribers.capacity() > 64 && subscribers.len() < subscribers.capacity() / 4 {
            subscribers.shrink_to(subscribers.len() * 2);
        }
        moved
    }

    fn remove(&mut self, topic: u32) {
        let name = self.topics.remove(topic as usize).name;
        // A topic may have a pattern's name: the map tells whose end this is.
        if self.by_name.get(&name) == Some(&topic) {
            self.by_name.remove(&name);
        } else {
            let removed = self.patterns.remove(&name);
            debug_assert_eq!(removed, Some(topic), "what is not in the map is in the tree");
        }
        if self.topics.is_empty() {
            self.topics = Slab::new();
        }
        if self.by_name.is_empty() || self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to(self.by_name.len() * 2);
        }
    }

    // Publishing

    /// The ids of all that match a topic, none twice: first that of its own name, if anybody is subscribed to it, then
    /// those of patterns, in no order. Answers how many places it looked at for that.
    pub(super) fn matching(&self, topic: &str, ids: &mut Vec<u32>) -> usize {
        ids.clear();
        ids.extend(self.by_name.get(topic));
        self.patterns.matching(topic, ids)
    }

    /// Whether there are patterns. If not, [`Topics::id`] answers all that matches a topic.
    #[inline]
    pub(super) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// The id of a topic's own name, or else of this very pattern.
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied().or_else(|| self.patterns.get(name))
    }

    /// The subscribers of a topic or a pattern, in no order.
    #[inline]
    pub(super) fn subscribers_of(&self, id: u32) -> &[Subscriber] {
        &self.topics[id as usize].subscribers
    }

    /// What a queued message remembers its topic by.
    pub(super) fn reference(&self, id: u32) -> TopicRef {
        TopicRef { id, serial: self.topics[id as usize].serial }
    }

    /// Counts a message that is delivered to a topic's or a pattern's subscribers.
    #[inline]
    pub(super) fn count_published(&mut self, id: u32) {
        self.topics[id as usize].published += 1;
    }

    /// Counts a delivery that was dropped, unless the topic has ended since.
    pub(super) fn count_dropped(&mut self, topic: TopicRef) {
        if let Some(found) = self.topics.get_mut(topic.id as usize).filter(|found| found.serial == topic.serial) {
            found.dropped += 1;
        }
    }

    /// The topic's name as it is shared, if anybody is subscribed to it.
    pub(super) fn shared_name(&self, topic: &str) -> Option<Arc<str>> {
        self.by_name.get_key_value(topic).map(|(name, _)| name.clone())
    }

    // Looking

    /// All topics and patterns that have subscribers, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = TopicStats<'_>> {
        self.topics.iter().map(|(_, topic)| topic.stats())
    }

    /// The same of one, found as by [`Topics::id`].
    pub(super) fn stats(&self, name: &str) -> Option<TopicStats<'_>> {
        self.id(name).map(|id| self.topics[id as usize].stats())
    }

    /// Number of topics and patterns that have subscribers.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }
}

impl Topic {
    fn stats(&self) -> TopicStats<'_> {
        let Self { name, subscribers, published, dropped, .. } = self;
        TopicStats { name, subscribers: subscribers.len(), published: *published, dropped: *dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::{has_wildcard, matches_by_definition};
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Topics and the sessions' lists, checked against a plain set after every step.
    #[derive(Default)]
    struct World {
        topics: Topics,
        lists: Vec<Vec<Subscription>>,
        expected: BTreeSet<(String, usize)>,
    }

    impl World {
        fn subscribe(&mut self, name: &str, session: usize) -> bool {
            let (key, list) = (Key::new(session as u32, 0), &mut self.lists[session]);
            match has_wildcard(name) {
                true => self.topics.subscribe_pattern(name, key, list),
                false => self.topics.subscribe(name, key, list),
            }
        }

        fn unsubscribe(&mut self, session: usize, slot: usize) {
            let moved = self.topics.unsubscribe(slot, &mut self.lists[session]);
            if let Some(moved) = moved {
                moved.correct(&mut self.lists[moved.session().index()]);
            }
        }

        fn check(&self, names: &[&str]) {
            let mut seen = BTreeSet::new();
            for name in names {
                let subscribers = self.topics.id(name).map_or(&[][..], |id| self.topics.subscribers_of(id));
                for (position, subscriber) in subscribers.iter().enumerate() {
                    let session = subscriber.session.index();
                    let back = self.lists[session][subscriber.slot as usize];
                    assert_eq!(back.position as usize, position);
                    assert_eq!(self.topics.topics[back.topic as usize].name.as_ref(), *name);
                    seen.insert(((*name).to_owned(), session));
                }
            }
            assert_eq!(seen, self.expected);
            let mut counts = BTreeMap::new();
            for (name, _) in &self.expected {
                *counts.entry(name.as_str()).or_insert(0) += 1;
            }
            assert_eq!(self.topics.len(), counts.len());
            assert_eq!(
                self.topics.iter().map(|stats| (stats.name, stats.subscribers)).collect::<BTreeMap<_, _>>(),
                counts
            );
            assert_eq!(self.topics.has_patterns(), counts.keys().any(|name| has_wildcard(name)));
        }

        /// Each session that is subscribed to something that matches gets it once, by the first list it stands in.
        fn check_publish(&self, topic: &str) {
            let (mut ids, mut receivers) = (vec![77], Vec::new());
            self.topics.matching(topic, &mut ids);
            let mut reached = BTreeSet::new();
            for id in &ids {
                for Subscriber { session, .. } in self.topics.subscribers_of(*id) {
                    if reached.insert(session.index()) {
                        receivers.push((*session, *id));
                    }
                }
            }
            receivers.sort_unstable_by_key(|(session, _)| session.index());
            let name_of = |id: u32| self.topics.topics[id as usize].name.as_ref();
            let matches = |name: &str| name == topic || has_wildcard(name) && matches_by_definition(name, topic);
            let matching: Vec<_> = self.expected.iter().filter(|(name, _)| matches(name)).collect();
            let names: BTreeSet<_> = matching.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(ids.iter().map(|id| name_of(*id)).collect::<BTreeSet<_>>(), names, "{topic}");
            assert_eq!(ids.len(), names.len(), "{topic}");
            let own = self.topics.by_name.get(topic);
            assert!(own.is_none() || own == ids.first(), "its own name is first");
            let sessions: BTreeSet<_> = matching.iter().map(|(_, session)| *session).collect();
            assert!(receivers.iter().map(|(session, _)| session.index()).eq(sessions), "{topic}: {receivers:?}");
            for (session, first) in receivers {
                let stands_in = |id: &&u32| self.expected.contains(&(name_of(**id).to_owned(), session.index()));
                assert_eq!(ids.iter().find(stands_in), Some(&first), "{topic}");
            }
        }

        fn assert_empty(&self) {
            let Topics { by_name, patterns, topics, .. } = &self.topics;
            assert_eq!((by_name.capacity(), topics.capacity(), patterns.is_empty()), (0, 0, true));
        }
    }

    #[test]
    fn random_changes_leave_both_ends_consistent() {
        let seed = 0x5eed_0001_u64;
        println!("seed {seed:#x}");
        let mut random = seed;
        let names = ["a", "a/b", "$a", "a/b/c", "c++", "+", "#", "a/+", "a/#", "+/b", "$a/#", "+/+/c", "a/b/#"];
        let published = ["a", "a/b", "$a", "a/b/c", "c++", "x", "x/y/c", "", "a/+", "$a/b"];
        let mut world = World { lists: vec![Vec::new(); 11], ..World::default() };
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let session = (random >> 33) as usize % world.lists.len();
            let name = names[(random >> 45) as usize % names.len()];
            match world.topics.find(name, &world.lists[session]) {
                Some(slot) => {
                    assert!(!world.subscribe(name, session));
                    world.unsubscribe(session, slot);
                    assert!(world.expected.remove(&(name.to_owned(), session)));
                }
                None => {
                    assert!(world.subscribe(name, session));
                    assert!(world.expected.insert((name.to_owned(), session)));
                }
            }
            world.check(&names);
            world.check_publish(published[(random >> 40) as usize % published.len()]);
        }
        for session in 0..world.lists.len() {
            while !world.lists[session].is_empty() {
                world.unsubscribe(session, world.lists[session].len() - 1);
            }
        }
        world.expected.clear();
        world.check(&names);
        world.assert_empty();
    }

    #[test]
    fn a_topic_with_a_patterns_name_is_another() {
        let mut world = World { lists: vec![Vec::new(); 2], ..World::default() };
        let [first, second] = [Key::new(0, 0), Key::new(1, 0)];
        assert!(world.topics.subscribe("a/+", first, &mut world.lists[0]));
        assert!(!world.topics.has_patterns());
        assert!(world.topics.subscribe_pattern("a/+", first, &mut world.lists[0]));
        assert!(world.topics.subscribe_pattern("a/+", second, &mut world.lists[1]));
        assert_eq!(world.topics.len(), 2);
        let mut ids = Vec::new();
        world.topics.matching("a/+", &mut ids);
        assert_eq!(ids, [0, 1]);
        world.topics.matching("a/b", &mut ids);
        assert_eq!(ids, [1]);
        // The topic goes first, and then the pattern.
        for left in ["a/+", "a/+"] {
            let slot = world.topics.find(left, &world.lists[0]).expect("it is subscribed");
            world.unsubscribe(0, slot);
            world.topics.matching("a/b", &mut ids);
            assert_eq!(ids, [1]);
        }
        assert_eq!(world.topics.find("a/+", &world.lists[0]), None);
        world.unsubscribe(1, 0);
        world.assert_empty();
    }

    #[test]
    fn counts_end_with_the_topic() {
        let mut world = World { lists: vec![Vec::new(); 1], ..World::default() };
        for round in 1..3 {
            assert!(world.subscribe("a/b", 0) && world.subscribe("a/#", 0));
            let mut ids = Vec::new();
            world.topics.matching("a/b", &mut ids);
            for id in &ids {
                world.topics.count_published(*id);
                world.topics.count_published(*id);
                let reference = world.topics.reference(*id);
                (0..3).for_each(|_| world.topics.count_dropped(reference));
                let ended = TopicRef { serial: reference.serial.wrapping_sub(9), ..reference };
                world.topics.count_dropped(ended);
            }
            world.topics.matching("a/c", &mut ids);
            world.topics.count_published(ids[0]);
            let stats = |name, published| Some(TopicStats { name, subscribers: 1, published, dropped: 3 });
            assert_eq!(world.topics.stats("a/b"), stats("a/b", 2), "in round {round}");
            assert_eq!(world.topics.stats("a/#"), stats("a/#", 3), "in round {round}");
            assert_eq!(world.topics.stats("a/c"), None);
            assert_eq!(world.topics.shared_name("a/b").as_deref(), Some("a/b"));
            assert_eq!(world.topics.shared_name("a/c"), None);
            world.unsubscribe(0, 1);
            world.unsubscribe(0, 0);
        }
        world.assert_empty();
    }

    /// As the slab keeps it.
    #[allow(dead_code, reason = "only its size is asked for")]
    enum Slot {
        Vacant(usize),
        Occupied(Topic),
    }
    const _: () = assert!(size_of::<Slot>() == 64);

    const COUNT: usize = 100_000;

    /// Bytes of the heap behind [`Topics`] without patterns, and behind the lists of subscribers and sessions.
    fn heap_bytes(world: &World) -> (usize, usize) {
        let Topics { by_name, topics, .. } = &world.topics;
        // A map holds 7 entries in 8 places of 25 bytes.
        let tables = topics.capacity() * size_of::<Slot>() + by_name.capacity() * 8 / 7 * 25;
        // Two counts before the name.
        let names: usize = topics.iter().map(|(_, topic)| (16 + topic.name.len()).next_multiple_of(8)).sum();
        let ends = topics.iter().map(|(_, topic)| topic.subscribers.capacity() * 12).sum::<usize>()
            + world.lists.iter().map(|list| list.capacity() * 8).sum::<usize>();
        (tables + names, ends)
    }

    #[test]
    fn memory_of_subscriptions_is_bounded_and_given_back() {
        let mut world = World { lists: vec![Vec::new(); COUNT], ..World::default() };
        for session in 0..COUNT {
            assert!(world.subscribe("news", session));
        }
        let (_, ends) = heap_bytes(&world);
        println!("{} bytes a subscription", ends / COUNT);
        assert!(ends <= COUNT * (2 * 12 + 4 * 8), "{ends}");
        for session in 0..COUNT {
            world.unsubscribe(session, 0);
            if session == COUNT - 1_000 {
                let capacity = world.topics.topics[0].subscribers.capacity();
                assert!(capacity <= 4_000, "{capacity} places for 1000");
            }
        }
        world.assert_empty();
    }

    #[test]
    fn memory_of_topics_is_bounded_and_given_back() {
        // One session with many: its list doubles.
        let mut world = World { lists: vec![Vec::new(); COUNT / 1_000], ..World::default() };
        let name = |number: usize| format!("user/{number:010}");
        for number in 0..COUNT {
            assert!(world.subscribe(&name(number), number / 1_000));
        }
        let (topics, ends) = heap_bytes(&world);
        println!("{} bytes a topic and its name, {} a subscription", topics / COUNT, ends / COUNT);
        assert!(topics <= COUNT * (2 * 56 + 25 * 16 / 7 + 16 + name(0).len().next_multiple_of(8)), "{topics}");
        assert!(ends <= COUNT * (12 + 2 * 8), "{ends}");
        for session in 0..world.lists.len() {
            while !world.lists[session].is_empty() {
                world.unsubscribe(session, 0);
            }
            if session == world.lists.len() - 2 {
                assert!(
                    world.topics.by_name.capacity() <= 4_000,
                    "{} places for 1000",
                    world.topics.by_name.capacity()
                );
            }
        }
        world.assert_empty();
    }
}
