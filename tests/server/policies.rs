//! What happens to messages for a session that does not keep up, by each policy and on every way that a message takes:
//! what is received and what is counted as dropped is what was sent, in order, each once, and the right ones are missing.

use crate::support::{Puppet, Received, Theatre, eventually, numbered};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCause, Policy, Prepared, Published, SendOutcome, SessionOptions, Stats};

/// Payload bytes of a message; with its header it is 10 longer.
const BYTES: usize = 64 * KIB;
const FRAME: usize = BYTES + 10;
/// So many are more than the kernel and the queue take of a session whose client does not read.
const COUNT: u64 = 200;
/// Messages that fit into a queue.
const QUEUED: usize = 16;

fn options(policy: Policy) -> SessionOptions {
    SessionOptions {
        policy,
        queue_bytes_max: QUEUED * FRAME,
        high_water_bytes: QUEUED / 2 * FRAME,
        low_water_bytes: QUEUED / 8 * FRAME,
        ..SessionOptions::default()
    }
}

/// How a message comes to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Published by a session, of the same shard or another.
    Publish {
        across: bool,
    },
    /// Sent by another session.
    SendTo {
        across: bool,
    },
    /// Sent by itself.
    Send,
    /// Published, or sent, by another thread.
    HandlePublish,
    HandleSend,
}

const WAYS: [Way; 7] = [
    Way::Publish { across: false },
    Way::Publish { across: true },
    Way::SendTo { across: false },
    Way::SendTo { across: true },
    Way::Send,
    Way::HandlePublish,
    Way::HandleSend,
];

impl Way {
    fn is_across(self) -> bool {
        matches!(self, Self::Publish { across: true } | Self::SendTo { across: true })
    }

    fn publishes(self) -> bool {
        matches!(self, Self::Publish { .. } | Self::HandlePublish)
    }
}

/// A reader that does not read yet, another that does, and somebody who sends.
struct Scene {
    way: Way,
    slow: Puppet,
    /// Subscribed to the same topic, on the other shard if there is one.
    quick: Puppet,
    sender: Puppet,
    sent: u64,
    /// What the sender was told, where it is told at once: the numbers that were taken.
    taken: Vec<u64>,
    /// The last to be dropped: it waits for those that do not answer its goodbye.
    theatre: Theatre,
}

impl Scene {
    fn new(policy: Policy, way: Way) -> Self {
        let shards = if way.is_across() { 2 } else { 1 };
        let of_slow = move |name: &str| if name.starts_with("slow") { options(policy) } else { options(Policy::Close) };
        let theatre = Theatre::open(move |config| config.shards = shards, of_slow);
        let mut slow = theatre.on_shard(0, "slow", Theatre::sluggish);
        let mut quick = theatre.on_shard(shards - 1, "quick", Theatre::puppet);
        let sender = theatre.on_shard(shards - 1, "sender", Theatre::puppet);
        for reader in [&mut slow, &mut quick] {
            reader.run(|session| session.subscribe("news")).expect("a sound name");
        }
        Self { way, slow, quick, sender, sent: 0, taken: Vec::new(), theatre }
    }

    /// Sends the next messages, and has the quick one read what is published.
    fn send(&mut self, count: u64) {
        for _ in 0..count {
            let number = self.sent;
            self.sent += 1;
            let (key, payload) = (self.slow.key(), numbered(number, BYTES));
            let handle = self.theatre.server.handle();
            let is_open = !self.has_ended();
            let outcome = match self.way {
                Way::Publish { across: false } => {
                    let Published { taken, dropped } =
                        self.sender.run(move |session| session.publish("news", &payload));
                    assert_eq!(taken + dropped, 1 + usize::from(is_open), "of the publisher's shard");
                    Some(taken == 2)
                }
                Way::Publish { across: true } => {
                    let published = self.sender.run(move |session| session.publish("news", &payload));
                    assert_eq!(published, Published { taken: 1, dropped: 0 }, "of the publisher's shard");
                    None
                }
                Way::SendTo { across } => {
                    let outcome = self.sender.run(move |session| session.send_to(key, &payload));
                    assert!(!across || outcome == SendOutcome::Queued);
                    (!across).then_some(outcome.is_taken())
                }
                Way::Send => {
                    let outcome = self.slow.run(move |session| session.send(&payload));
                    Some(outcome.is_taken())
                }
                Way::HandlePublish => {
                    handle.publish("news", &payload).expect("the mailbox has room");
                    None
                }
                Way::HandleSend => {
                    handle.send(key, &payload).expect("the mailbox has room");
                    None
                }
            };
            if outcome == Some(true) {
                self.taken.push(number);
            }
            if self.way.publishes() {
                assert_eq!(self.quick.client.number(), number);
            }
            if outcome.is_none() {
                eventually("it has come", || self.accounted() >= self.sent || self.has_ended());
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.theatre.ended(&self.slow.name).is_some()
    }

    /// Messages for the slow one that were taken or refused.
    fn accounted(&self) -> u64 {
        let stats = self.theatre.stats();
        let refused = stats.sends_dropped_new + stats.publishes_dropped_new;
        let of_quick = if self.way.publishes() { self.sent } else { 0 };
        (stats.messages_sent + refused).saturating_sub(of_quick)
    }

    /// Asserts that all counters agree, and answers how many messages were dropped.
    fn assert_counters(&mut self, counter: fn(&Stats) -> [u64; 2]) -> u64 {
        let stats = self.theatre.stats();
        let dropped = stats.messages_dropped;
        let [sent, published] = counter(&stats);
        let expected = if self.way.publishes() { (0, dropped) } else { (dropped, 0) };
        assert_eq!((sent, published), expected, "{stats:?}");
        eventually("the handler is told", || self.theatre.told_dropped(&self.slow.name) == dropped);
        assert_eq!(self.slow.run(|session| session.dropped_count()), dropped);
        let of_topic =
            self.slow.run(|session| session.topic_stats("news").map(|stats| (stats.published, stats.dropped)));
        let expected = if self.way.publishes() { (self.sent, dropped) } else { (0, 0) };
        assert_eq!(of_topic, Some(expected));
        assert_eq!(self.quick.run(|session| session.dropped_count()), 0);
        dropped
    }

    /// Has the slow one read all that was not dropped, and nothing else.
    fn read_all(&mut self, dropped: u64) -> Vec<u64> {
        let numbers = self.slow.client.numbers((self.sent - dropped) as usize);
        self.slow.run(|session| session.send("the end"));
        assert_eq!(self.slow.client.text(), "the end");
        assert!(numbers.is_sorted_by(|one, next| one < next), "in order, each once: {numbers:?}");
        numbers
    }
}

/// Queues that drop: what is missing, given what was sent and what was received.
fn assert_dropping(policy: Policy, counter: fn(&Stats) -> [u64; 2], check: impl Fn(&Scene, &[u64]) + Sync) {
    std::thread::scope(|scope| {
        for way in WAYS {
            let check = &check;
            scope.spawn(move || {
                let mut scene = Scene::new(policy, way);
                scene.send(COUNT);
                let dropped = scene.assert_counters(counter);
                assert!(dropped > 0, "{way:?}: nothing was dropped of {COUNT}");
                let numbers = scene.read_all(dropped);
                println!("{policy:?}, {way:?}: {dropped} of {COUNT} dropped");
                check(&scene, &numbers);
                // It reads again: nothing more is lost.
                for number in COUNT..COUNT + 10 {
                    scene.send(1);
                    assert_eq!(scene.slow.client.number(), number);
                }
                assert_eq!(scene.assert_counters(counter), dropped);
            });
        }
    });
}

/// Only a reader that reads gets more: what stands in the queue stays, and the newest are refused.
#[test]
fn drop_new_refuses_what_does_not_fit() {
    let counter = |stats: &Stats| [stats.sends_dropped_new, stats.publishes_dropped_new];
    assert_dropping(Policy::DropNew, counter, |scene, numbers| {
        if !scene.taken.is_empty() {
            assert!(numbers == scene.taken, "{:?}: what was said to be taken came", scene.way);
        }
        // While nobody reads, room comes only as the kernel takes more, which it does at the beginning.
        let prefix = numbers.iter().zip(0..).take_while(|(number, index)| **number == *index).count();
        assert!(prefix >= QUEUED, "{:?}: {numbers:?}", scene.way);
    });
}

#[test]
fn drop_old_keeps_the_newest() {
    let counter = |stats: &Stats| [stats.sends_dropped_old, stats.publishes_dropped_old];
    assert_dropping(Policy::DropOld, counter, |scene, numbers| {
        assert_is_newest(scene, numbers);
        assert!(scene.taken.is_empty() || scene.taken.len() as u64 == COUNT, "{:?}: each is taken at first", scene.way);
    });
}

/// As many of the newest as fit, and before them only what was with the kernel already.
fn assert_is_newest(scene: &Scene, numbers: &[u64]) {
    let newest: Vec<_> = (COUNT - QUEUED as u64..COUNT).collect();
    assert!(numbers.ends_with(&newest), "{:?}: {numbers:?}", scene.way);
}

/// Without a key: published messages replace those of the same topic; sent ones are dropped as by [`Policy::DropOld`].
#[test]
fn conflate_keeps_the_newest_of_a_topic_and_of_what_has_no_key() {
    let counter = |stats: &Stats| [stats.sends_dropped_old, stats.publishes_conflated];
    assert_dropping(Policy::Conflate, counter, |scene, numbers| {
        if scene.way.publishes() {
            assert_eq!(numbers.last(), Some(&(COUNT - 1)), "{:?}", scene.way);
            // One waits at most, so what came before it was on its way already, and never much more than the kernel takes.
            assert!(numbers.len() < 100, "{:?}: {} received", scene.way, numbers.len());
        } else {
            assert_is_newest(scene, numbers);
        }
    });
}

/// It gets all that came before the one that did not fit, and then the end.
#[test]
fn close_ends_with_the_message_that_does_not_fit() {
    for way in WAYS.into_iter().filter(|way| *way != Way::Send) {
        let mut scene = Scene::new(Policy::Close, way);
        while !scene.has_ended() {
            assert!(scene.sent < COUNT, "{way:?}: all were taken");
            scene.send(1);
        }
        let name = scene.slow.name.clone();
        let ended = scene.theatre.ended(&name).expect("it has ended");
        assert_eq!((ended.cause, ended.dropped), (CloseCause::SlowConsumer, 1), "{way:?}");
        assert!(ended.queued_bytes > (QUEUED - 1) * FRAME, "{way:?}: {} bytes were queued", ended.queued_bytes);
        let stats = scene.theatre.stats();
        let closed = if way.publishes() { stats.publishes_dropped_close } else { stats.sends_dropped_close };
        assert_eq!((closed, stats.messages_dropped, stats.ended_slow_consumer), (1, 1, 1), "{way:?}");
        let mut received = 0;
        loop {
            match scene.slow.client.next() {
                Received::Binary(payload) => {
                    assert!(payload == numbered(received, BYTES), "{way:?}: message {received}");
                    received += 1;
                }
                other => break assert!(matches!(other, Received::End(_)), "{other:?}"),
            }
        }
        assert!(received < scene.sent, "{way:?}");
        assert_eq!(scene.theatre.told_dropped(&name), 0, "it hears of its end only");
    }
}

/// The newest of each key is there when all has been read, and at most one of each waited.
#[test]
fn conflate_keeps_the_newest_of_each_key() {
    type Send = fn(&mut Puppet, ringwave::SessionKey, u64, Vec<u8>);
    const KEYS: u64 = 5;
    let ways: [(&str, bool, Send); 4] = [
        ("publish by topic", true, |sender, _, key, payload| {
            sender.run(move |session| session.publish(&format!("topic {key}"), &payload));
        }),
        ("publish_keyed", true, |sender, _, key, payload| {
            sender.run(move |session| session.publish_keyed("topic 0", key, &Prepared::new(&payload)));
        }),
        ("send_keyed_to", false, |sender, to, key, payload| {
            sender.run(move |session| session.send_keyed_to(to, key, &payload));
        }),
        ("send_keyed", false, |sender, to, key, payload| {
            sender.run(move |session| session.send_keyed_to(to, key, &payload));
        }),
    ];
    for shards in [1, 2] {
        for (way, publishes, send) in ways {
            let theatre = Theatre::open(move |config| config.shards = shards, |_| options(Policy::Conflate));
            let mut slow = theatre.on_shard(0, "slow", Theatre::sluggish);
            let mut sender = theatre.on_shard(shards - 1, "sender", Theatre::puppet);
            slow.run(|session| (0..KEYS).for_each(|key| assert!(session.subscribe(&format!("topic {key}")).is_ok())));
            let key = slow.key();
            for number in 0..COUNT {
                send(&mut sender, key, number % KEYS, numbered(number, BYTES));
                eventually("it has come", || theatre.stats().messages_sent == number + 1);
            }
            let waiting = slow.run(|session| session.buffered_bytes());
            assert!(
                waiting <= KEYS as usize * FRAME + 4 * FRAME,
                "{way}: {waiting} bytes queued, in flight among them"
            );
            let stats = theatre.stats();
            let conflated = if publishes { stats.publishes_conflated } else { stats.sends_conflated };
            assert_eq!(conflated, stats.messages_dropped, "{way}");
            assert!(conflated > 0, "{way}");
            let numbers = slow.client.numbers((COUNT - conflated) as usize);
            slow.run(|session| session.send("the end"));
            assert_eq!(slow.client.text(), "the end", "{way}");
            eventually("the handler is told", || theatre.told_dropped(&slow.name) == conflated);
            // A message stands in the place of the one that it replaced, so only those of one key are in order.
            for key in 0..KEYS {
                let mut of_key = numbers.iter().filter(|number| **number % KEYS == key);
                assert!(of_key.clone().is_sorted_by(|one, next| one < next), "{way}: {numbers:?}");
                assert_eq!(of_key.next_back(), Some(&(COUNT - KEYS + key)), "{way}: {numbers:?}");
            }
        }
    }
}

/// `on_drain` belongs to a queue that was at high water and is down to low water: once for each time, and else never.
#[test]
fn a_drain_is_told_once_for_each_time_that_the_queue_was_high() {
    let high = options(Policy::DropNew).high_water_bytes;
    let theatre = Theatre::open(|_| {}, |_| options(Policy::DropNew));
    let mut reader = theatre.puppet("reader");
    let mut drains = 0;
    for (frame, is_high) in [(high - 1, false), (high, true), (high - 1, false), (6 * MIB, true), (11, false)] {
        for _ in 0..3 {
            let payload = vec![1; frame - if frame > 65_545 { 10 } else { 2 }];
            let expected = Received::Binary(payload.clone());
            reader.run(move |session| session.send(&payload));
            assert!(reader.client.next() == expected);
            drains += usize::from(is_high);
            eventually("all has left", || theatre.stats().queues == 0);
            assert_eq!(theatre.drains("reader").len(), drains, "after a frame of {frame} bytes");
        }
    }
    assert!(theatre.drains("reader").iter().all(|queued| *queued <= options(Policy::DropNew).low_water_bytes));
}

/// A longer message takes the place of a shorter one: it may fill the queue, and must not be the one that is dropped for it.
#[test]
fn a_longer_message_takes_its_place_and_what_that_costs_is_paid_by_others() {
    let theatre = Theatre::open(|_| {}, |_| options(Policy::Conflate));
    let (mut slow, mut sender) = (theatre.sluggish("slow"), theatre.puppet("sender"));
    let key = slow.key();
    let mut send = |slot: u64, number: u64, bytes| {
        sender.run(move |session| session.send_keyed_to(key, slot, &numbered(number, bytes)))
    };
    // More than the kernel takes; from here on all waits.
    assert_eq!(send(0, 0, 8 * MIB), SendOutcome::Sent);
    let queue = options(Policy::Conflate).queue_bytes_max;
    for (slot, number, bytes) in [(1, 1, 100), (2, 2, 200), (3, 3, 300), (2, 4, 2 * queue), (2, 5, 3 * queue)] {
        assert_eq!(send(slot, number, bytes), SendOutcome::Queued, "message {number}");
    }
    let stats = theatre.stats();
    assert_eq!((stats.sends_conflated, stats.sends_dropped_old), (2, 2));
    assert_eq!(slow.client.numbers(2), [0, 5]);
}
