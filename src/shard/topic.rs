//! Topics: flat names, any number of subscribers, every change in constant time.
//!
//! ```text
//!  topic                              session
//!  subscribers[position] ──────────▶  subscriptions[slot]
//!     (session, slot)     ◀──────────    (topic, position)
//! ```
//! Each end knows its place in the other, so leaving is a swap with the last and one correction on each side. A
//! subscription costs 12 bytes in the topic and 8 in the session; an empty topic costs nothing: it is removed.

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

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    subscribers: Vec<Subscriber>,
}

/// The topics of one shard.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// Names come from strangers: the map's hash is keyed.
    by_name: HashMap<Arc<str>, u32>,
    topics: Slab<Topic>,
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
    /// Adds a subscription of `session` to its list and to the topic. `false` if it stands there already.
    pub(super) fn subscribe(&mut self, name: &str, session: Key, list: &mut Vec<Subscription>) -> bool {
        let topic = match self.by_name.get(name) {
            Some(topic) => *topic,
            None => self.add(name),
        };
        if list.iter().any(|subscription| subscription.topic == topic) {
            return false;
        }
        let subscribers = &mut self.topics[topic as usize].subscribers;
        list.push(Subscription { topic, position: subscribers.len() as u32 });
        subscribers.push(Subscriber { session, slot: list.len() as u32 - 1 });
        true
    }

    fn add(&mut self, name: &str) -> u32 {
        let name: Arc<str> = name.into();
        let topic = self.topics.insert(Topic { name: name.clone(), subscribers: Vec::new() }) as u32;
        self.by_name.insert(name, topic);
        topic
    }

    /// The slot of `name` in a session's list.
    pub(super) fn find(&self, name: &str, list: &[Subscription]) -> Option<usize> {
        let topic = self.by_name.get(name)?;
        list.iter().position(|subscription| subscription.topic == *topic)
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
            let topic = self.topics.remove(topic as usize);
            self.by_name.remove(&topic.name);
        } else if subscribers.capacity() > 64 && subscribers.len() < subscribers.capacity() / 4 {
            subscribers.shrink_to(subscribers.len() * 2);
        }
        moved
    }

    /// The subscribers of a topic, in no order.
    pub(super) fn subscribers(&self, name: &str) -> &[Subscriber] {
        self.by_name.get(name).map_or(&[], |topic| &self.topics[*topic as usize].subscribers)
    }

    /// The topic's name as it is shared, if anybody is subscribed.
    pub(super) fn shared_name(&self, name: &str) -> Option<Arc<str>> {
        self.by_name.get_key_value(name).map(|(name, _)| name.clone())
    }

    /// Number of topics that have subscribers.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Topics and the sessions' lists, checked against a plain set after every step.
    #[derive(Default)]
    struct World {
        topics: Topics,
        lists: Vec<Vec<Subscription>>,
        expected: BTreeSet<(String, usize)>,
    }

    impl World {
        fn unsubscribe(&mut self, session: usize, slot: usize) {
            let moved = self.topics.unsubscribe(slot, &mut self.lists[session]);
            if let Some(moved) = moved {
                moved.correct(&mut self.lists[moved.session().index()]);
            }
        }

        fn check(&self, names: &[String]) {
            let mut seen = BTreeSet::new();
            for name in names {
                for (position, subscriber) in self.topics.subscribers(name).iter().enumerate() {
                    let session = subscriber.session.index();
                    let back = self.lists[session][subscriber.slot as usize];
                    assert_eq!(back.position as usize, position);
                    assert_eq!(self.topics.topics[back.topic as usize].name.as_ref(), name);
                    seen.insert((name.clone(), session));
                }
            }
            assert_eq!(seen, self.expected);
            let topics: BTreeSet<_> = self.expected.iter().map(|(name, _)| name).collect();
            assert_eq!(self.topics.len(), topics.len());
        }
    }

    #[test]
    fn random_changes_leave_both_ends_consistent() {
        let seed = 0x5eed_0001_u64;
        println!("seed {seed:#x}");
        let mut random = seed;
        let names: Vec<_> = (0..7).map(|number| format!("topic {number}")).collect();
        let mut world = World { lists: vec![Vec::new(); 11], ..World::default() };
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let session = (random >> 33) as usize % world.lists.len();
            let name = &names[(random >> 45) as usize % names.len()];
            match world.topics.find(name, &world.lists[session]) {
                Some(slot) => {
                    assert!(!world.topics.subscribe(name, Key::new(session as u32, 0), &mut world.lists[session]));
                    world.unsubscribe(session, slot);
                    assert!(world.expected.remove(&(name.clone(), session)));
                }
                None => {
                    assert!(world.topics.subscribe(name, Key::new(session as u32, 0), &mut world.lists[session]));
                    assert!(world.expected.insert((name.clone(), session)));
                }
            }
            world.check(&names);
        }
        for session in 0..world.lists.len() {
            while !world.lists[session].is_empty() {
                world.unsubscribe(session, world.lists[session].len() - 1);
            }
        }
        world.expected.clear();
        world.check(&names);
        assert_eq!(world.topics.by_name.len(), 0);
    }
}
