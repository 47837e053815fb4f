//! `Policy::PauseProducer`: whoever fills a queue waits for it, and nothing is lost.

use crate::support::{DEADLINE, Puppet, Received, Theatre, eventually, numbered};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCode, Policy, PostError, SessionKey, SessionOptions};
use socket2::SockRef;
use std::cell::Cell;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Payload bytes of a message: so many are more than the kernel and the queue of one that does not read take.
const BYTES: usize = 64 * KIB;
const COUNT: usize = 250;

fn options(name: &str) -> SessionOptions {
    let policy = if name.starts_with("consumer") { Policy::PauseProducer } else { Policy::Close };
    SessionOptions {
        policy,
        queue_bytes_max: 32 * MIB,
        high_water_bytes: 512 * KIB,
        low_water_bytes: 64 * KIB,
        wildcards: true,
        ..SessionOptions::default()
    }
}

fn theatre(shards: usize) -> Theatre {
    Theatre::open(|config| config.shards = shards, options)
}

/// A consumer that does not read by itself.
fn consumer(theatre: &Theatre, shard: usize, name: &str, topic: &'static str) -> Puppet {
    let mut consumer = theatre.on_shard(shard, name, Theatre::sluggish);
    consumer.run(move |session| session.subscribe(topic)).expect("a sound name");
    consumer
}

/// Where messages go.
#[derive(Clone, Copy, Debug)]
enum To {
    Topic(&'static str),
    Session(SessionKey),
}

/// What a publisher is told to publish, and what has come of it.
struct Publications {
    to: To,
    answers: Vec<Receiver<()>>,
    done: usize,
}

impl Publications {
    fn on(topic: &'static str) -> Self {
        Self::to(To::Topic(topic))
    }

    fn to(to: To) -> Self {
        Self { to, answers: Vec::new(), done: 0 }
    }

    /// Tells it to publish the next message.
    fn order(&mut self, publisher: &mut Puppet) {
        let (to, message) = (self.to, numbered(self.answers.len() as u64, BYTES));
        self.answers.push(publisher.order(move |session| match to {
            To::Topic(topic) => assert_eq!(session.publish(topic, &message).dropped, 0),
            To::Session(key) => assert!(session.send_to(key, &message).is_taken()),
        }));
    }

    /// How many are published.
    fn done(&mut self) -> usize {
        self.done += self.answers[self.done..].iter().take_while(|answer| answer.try_recv().is_ok()).count();
        self.done
    }

    /// Has it publish, message by message, until it is held back; then tells it to publish up to [`COUNT`].
    fn until_held(&mut self, theatre: &Theatre, publisher: &mut Puppet, bystanders: &mut [Puppet]) {
        let paused = theatre.stats().producers_paused;
        loop {
            assert!(self.answers.len() < COUNT, "all of {COUNT} were published though nobody read");
            self.order(publisher);
            let is_held = || theatre.stats().producers_paused > paused;
            eventually("it publishes or is held", || self.done() == self.answers.len() || is_held());
            // Its shard is told by a post, and what it has received by then it publishes.
            give_time(bystanders);
            if self.done() < self.answers.len() {
                break;
            }
        }
        while self.answers.len() < COUNT {
            self.order(publisher);
        }
        let done = self.done();
        give_time(bystanders);
        assert_eq!(self.done(), done, "it publishes on");
    }

    fn assert_done(&mut self) {
        for answer in &self.answers[self.done..] {
            answer.recv_timeout(DEADLINE).expect("the publisher goes on");
        }
    }
}

/// Time for some turns of each shard.
fn give_time(bystanders: &mut [Puppet]) {
    for _ in 0..10 {
        bystanders.iter_mut().for_each(|bystander| bystander.run(|_| ()));
    }
}

/// One session on each shard that has nothing to do with it.
fn bystanders(theatre: &Theatre, shards: usize) -> Vec<Puppet> {
    (0..shards).map(|shard| theatre.on_shard(shard, &format!("bystander{shard}"), Theatre::puppet)).collect()
}

/// Shards of the server, and the one on which the consumer is; the publisher is on shard 0.
const PLACES: [(usize, usize); 2] = [(1, 0), (2, 1)];

#[test]
fn a_publisher_waits_for_a_slow_consumer_and_nothing_is_lost() {
    for ((shards, shard), publishes) in PLACES.into_iter().flat_map(|place| [(place, true), (place, false)]) {
        let theatre = theatre(shards);
        let mut slow = consumer(&theatre, shard, "consumer", "news");
        let mut publisher = theatre.on_shard(0, "publisher", Theatre::puppet);
        let mut publications = Publications::to(if publishes { To::Topic("news") } else { To::Session(slow.key()) });
        publications.until_held(&theatre, &mut publisher, &mut bystanders(&theatre, shards));
        let queued = theatre.stats().memory_bytes as usize;
        // The other shard is told by a post, and what it publishes meanwhile comes too.
        assert!((512 * KIB - BYTES..2 * MIB).contains(&queued), "{queued} bytes are queued");
        // It still receives what others publish to it.
        let key = publisher.key();
        theatre.server.handle().send(key, "to the publisher").expect("the mailbox has room");
        assert_eq!(publisher.client.text(), "to the publisher");

        assert!(slow.client.numbers(COUNT) == (0..COUNT as u64).collect::<Vec<_>>(), "in order, each once");
        publications.assert_done();
        eventually("the last drain", || theatre.stats().queues == 0);
        let (stats, drains) = (theatre.stats(), theatre.drains(&slow.name));
        assert_eq!((stats.messages_dropped, stats.posts_dropped), (0, 0));
        assert!(!drains.is_empty() && drains.iter().all(|queued| *queued <= 64 * KIB), "{drains:?}");
        assert!(stats.producers_paused as usize <= drains.len(), "once for each time that the queue was high");
    }
}

/// However it ends: what it held up goes on.
#[test]
fn a_consumer_that_ends_lets_its_producers_go() {
    type End = fn(&Theatre, Puppet);
    let ways: [(&str, End); 3] = [
        ("reset", |_, consumer| {
            SockRef::from(&consumer.client.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
        }),
        ("closed and stalled", |theatre, consumer| {
            theatre.server.handle().close(consumer.key(), CloseCode::NORMAL, "").expect("the mailbox has room");
            // It does not read, so that it ends at the stall timeout.
            eventually("it stalls", || theatre.ended(&consumer.name).is_some());
        }),
        ("by its handler, when it is read from again", |theatre, mut consumer| {
            // It is not read from while its queue is high.
            consumer.order(|session| session.terminate());
            while !matches!(consumer.client.next(), Received::End(_)) {}
            eventually("it ends", || theatre.ended(&consumer.name).is_some());
        }),
    ];
    for (shards, shard) in PLACES {
        for (way, end) in ways {
            let theatre = Theatre::open(
                |config| {
                    config.shards = shards;
                    config.settings.stall_timeout = Duration::from_millis(300);
                },
                options,
            );
            let slow = consumer(&theatre, shard, "consumer", "news");
            let mut publisher = theatre.on_shard(0, "publisher", Theatre::puppet);
            let mut publications = Publications::on("news");
            publications.until_held(&theatre, &mut publisher, &mut bystanders(&theatre, shards));
            end(&theatre, slow);
            publications.assert_done();
            assert_eq!(theatre.stats().ended_slow_consumer, 0, "{way}");
        }
    }
}

#[test]
fn a_producer_held_for_two_consumers_goes_on_after_the_second() {
    for (shards, shard) in PLACES {
        let theatre = theatre(shards);
        let mut consumers = [consumer(&theatre, shard, "consumer1", "one"), consumer(&theatre, 0, "consumer2", "two")];
        let (mut fillers, mut bystanders) = (Vec::new(), bystanders(&theatre, shards));
        for (consumer, topic) in consumers.iter_mut().zip(["one", "two"]) {
            consumer.order(|session| session.subscribe("both"));
            let mut filler = theatre.on_shard(0, &format!("filler-{topic}"), Theatre::puppet);
            let mut publications = Publications::on(topic);
            publications.until_held(&theatre, &mut filler, &mut bystanders);
            fillers.push((filler, publications));
        }
        let mut publisher = theatre.on_shard(0, "publisher", Theatre::puppet);
        publisher.run(|session| session.publish("both", &numbered(COUNT as u64, BYTES)));
        eventually("it is held for both", || theatre.stats().producers_paused == 4);
        let order = publisher.order(|_| ());
        for (rank, consumer) in consumers.iter_mut().enumerate() {
            give_time(&mut bystanders);
            assert!(order.try_recv().is_err(), "it goes on though {} consumers hold it up", 2 - rank);
            let mut numbers = consumer.client.numbers(COUNT + 1);
            numbers.sort_unstable();
            assert!(numbers == (0..=COUNT as u64).collect::<Vec<_>>());
        }
        order.recv_timeout(DEADLINE).expect("it goes on");
        fillers.iter_mut().for_each(|(_, publications)| publications.assert_done());
        assert_eq!(theatre.stats().messages_dropped, 0);
    }
}

/// Other threads have no socket that could be left unread: they are told, for this topic, and lose nothing either.
#[test]
fn other_threads_are_told_of_a_slow_consumer() {
    // What the consumer subscribes to, and what is published.
    for (subscription, topic) in [("news", "news"), ("news/+", "news/today")] {
        for (shards, shard) in PLACES {
            let theatre = theatre(shards);
            let mut slow = consumer(&theatre, shard, "consumer", subscription);
            let mut quick = theatre.on_shard(0, "quick", Theatre::puppet);
            quick.run(move |session| session.subscribe(topic)).expect("a sound name");
            let handle = theatre.server.handle();
            let published = Cell::new(0);
            // One after the other, so that what is on its way to the shards is no part of this.
            let publish = || {
                let taken = handle.publish(topic, &numbered(published.get(), BYTES));
                if taken.is_ok() {
                    published.set(published.get() + 1);
                    eventually("both have it", || theatre.stats().messages_sent == 2 * published.get());
                }
                taken
            };
            while publish().is_ok() {
                assert_eq!(quick.client.number() + 1, theatre.stats().messages_sent / 2);
                assert!(theatre.stats().messages_sent < 2 * COUNT as u64, "all are published though nobody reads");
            }
            assert_eq!(publish(), Err(PostError::Congested));
            assert_eq!(handle.publish("sports", "elsewhere"), Ok(()));
            slow.client.receive_until("it drains", || !theatre.drains(&slow.name).is_empty());
            eventually("it may be published again", || publish().is_ok());
            let numbers = slow.client.numbers(published.get() as usize);
            assert_eq!(numbers, (0..published.get()).collect::<Vec<_>>(), "{subscription}");
            assert_eq!(theatre.stats().messages_dropped, 0);
        }
    }
}
