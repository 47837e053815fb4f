//! Subscriptions to patterns of topics, where a session's options allow them.

use crate::support::{Puppet, Theatre, eventually};
use ringwave::{Prepared, Published, SessionOptions, SubscribeError};
use std::time::Duration;

/// Only sessions whose name says so may use wildcards.
fn theatre(shards: usize) -> Theatre {
    let options = |name: &str| SessionOptions { wildcards: name.starts_with("wild"), ..SessionOptions::default() };
    Theatre::open(move |config| config.shards = shards, options)
}

fn subscribe(puppet: &mut Puppet, topics: &'static [&'static str]) {
    for topic in topics {
        assert_eq!(puppet.run(move |session| session.subscribe(topic)), Ok(true), "{topic}");
    }
}

#[test]
fn wildcards_are_refused_unless_the_options_allow_them() {
    let theatre = theatre(1);
    let (mut tame, mut wild) = (theatre.puppet("tame"), theatre.puppet("wild"));
    let deep = vec!["+"; 33].join("/");
    type Answer = Result<bool, SubscribeError>;
    let table: [(String, Answer, Answer); 9] = [
        ("a/b".into(), Ok(true), Ok(true)),
        ("c++/#general".into(), Ok(true), Ok(true)),
        ("a/+".into(), Err(SubscribeError::Wildcard), Ok(true)),
        ("#".into(), Err(SubscribeError::Wildcard), Ok(true)),
        ("a/#".into(), Err(SubscribeError::Wildcard), Ok(true)),
        ("#/a".into(), Err(SubscribeError::Wildcard), Err(SubscribeError::Pattern)),
        (deep, Err(SubscribeError::Wildcard), Err(SubscribeError::Pattern)),
        (String::new(), Err(SubscribeError::NameLength), Err(SubscribeError::NameLength)),
        ("+/".repeat(128), Err(SubscribeError::NameLength), Err(SubscribeError::NameLength)),
    ];
    for (topic, of_tame, of_wild) in table {
        for (puppet, expected) in [(&mut tame, of_tame), (&mut wild, of_wild)] {
            let name = topic.clone();
            assert_eq!(puppet.run(move |session| session.subscribe(&name)), expected, "{} {topic:?}", puppet.name);
            let (name, again) = (topic.clone(), if expected == Ok(true) { Ok(false) } else { expected });
            assert_eq!(puppet.run(move |session| session.subscribe(&name)), again, "{} {topic:?}", puppet.name);
        }
    }
    // Patterns are for the first 64 subscriptions, names for the first 1024.
    for number in 6..70 {
        let taken = wild.run(move |session| session.subscribe(&format!("{number}/+")));
        let expected = if number < 65 { Ok(true) } else { Err(SubscribeError::TooMany) };
        assert_eq!(taken, expected, "pattern {number}");
    }
    assert_eq!(wild.run(|session| session.subscribe("a name")), Ok(true));
}

/// However many of its subscriptions match, and wherever the publisher is.
#[test]
fn a_message_comes_once_to_each_session_that_any_pattern_matches() {
    for shards in [1, 2] {
        let theatre = theatre(shards);
        let last = shards - 1;
        let mut all = theatre.on_shard(0, "wild-all", Theatre::puppet);
        let mut some = theatre.on_shard(last, "wild-some", Theatre::puppet);
        let mut exact = theatre.on_shard(0, "exact", Theatre::puppet);
        let mut none = theatre.on_shard(last, "none", Theatre::puppet);
        let mut publisher = theatre.on_shard(last, "publisher", Theatre::puppet);
        subscribe(&mut all, &["#", "a/#", "a/+", "a/b", "+/b"]);
        subscribe(&mut some, &["a/+", "+/b/#"]);
        subscribe(&mut exact, &["a/b"]);
        subscribe(&mut none, &["b/a"]);
        // The topic, and who hears it.
        let table =
            [("a/b", [1, 1, 1]), ("a/c", [1, 1, 0]), ("x/b/c/d", [1, 1, 0]), ("z", [1, 0, 0]), ("$a", [0, 0, 0])];
        for (topic, heard) in table {
            for keyed in [false, true] {
                let Published { taken, dropped } = publisher.run(move |session| match keyed {
                    true => session.publish_keyed(topic, 7, &Prepared::new(topic)),
                    false => session.publish(topic, topic),
                });
                let [of_all, of_some, of_exact] = heard;
                let here = if shards == 1 { of_all + of_some + of_exact } else { of_some };
                assert_eq!((taken, dropped), (here, 0), "{topic}");
                for (puppet, count) in [(&mut all, of_all), (&mut some, of_some), (&mut exact, of_exact)] {
                    (0..count).for_each(|_| assert_eq!(puppet.client.text(), topic, "{}", puppet.name));
                }
            }
            theatre.server.handle().publish(topic, topic).expect("the mailboxes have room");
            for (puppet, count) in [&mut all, &mut some, &mut exact].into_iter().zip(heard) {
                (0..count).for_each(|_| assert_eq!(puppet.client.text(), topic, "{}", puppet.name));
            }
        }
        // Itself excepted, though several of its own match.
        assert_eq!(some.run(|session| session.publish_except_self("a/b", "others")).dropped, 0);
        assert_eq!((all.client.text(), exact.client.text()), ("others".into(), "others".into()));

        // What is left of its subscriptions still matches, once.
        for (topic, was) in [("a/b", true), ("a/b", false), ("#", true), ("a/+", true), ("no/+", false)] {
            assert_eq!(all.run(move |session| session.unsubscribe(topic)), was, "{topic}");
            assert!(!all.run(move |session| session.subscribed(topic)), "{topic}");
        }
        publisher.run(|session| (session.publish("a/b", "once"), session.publish("z", "never")));
        for puppet in [&mut all, &mut some, &mut exact] {
            assert_eq!(puppet.client.text(), "once", "{}", puppet.name);
        }
        // Nothing has come twice, and to none anything.
        let puppets = [&mut all, &mut some, &mut exact, &mut none];
        for puppet in puppets {
            puppet.run(|session| session.send("the end"));
            assert_eq!(puppet.client.text(), "the end", "{}", puppet.name);
        }
    }
}

#[test]
fn topics_and_patterns_are_listed_with_their_subscribers() {
    let theatre = theatre(2);
    let mut first = theatre.on_shard(0, "wild-first", Theatre::puppet);
    let mut second = theatre.on_shard(1, "wild-second", Theatre::puppet);
    subscribe(&mut first, &["a/#", "a/b", "c"]);
    subscribe(&mut second, &["a/#", "d"]);
    first.run(|session| session.publish("a/b", "x"));
    assert_eq!((first.client.text(), second.client.text()), ("x".into(), "x".into()));
    let of_shard = |puppet: &mut Puppet| {
        let mut topics = puppet.run(|session| {
            let topics = session.topics().map(|stats| (stats.name.to_owned(), stats.subscribers, stats.published));
            topics.collect::<Vec<_>>()
        });
        topics.sort();
        topics
    };
    assert_eq!(of_shard(&mut first), [("a/#".into(), 1, 1), ("a/b".into(), 1, 1), ("c".into(), 1, 0)]);
    assert_eq!(of_shard(&mut second), [("a/#".into(), 1, 1), ("d".into(), 1, 0)]);
    assert_eq!(first.run(|session| session.subscriber_count("a/#")), 1);
    let listed = || {
        let mut topics = theatre.server.handle().topics(Duration::from_secs(5)).expect("the mailboxes have room");
        topics.sort();
        topics.into_iter().map(|(name, count)| (name.to_string(), count)).collect::<Vec<_>>()
    };
    assert_eq!(listed(), [("a/#".into(), 2), ("a/b".into(), 1), ("c".into(), 1), ("d".into(), 1)]);
    assert!(first.run(|session| session.unsubscribe("a/#")));
    assert_eq!(listed(), [("a/#".into(), 1), ("a/b".into(), 1), ("c".into(), 1), ("d".into(), 1)]);
    // A subscriber that is gone has none.
    second.client.close();
    eventually("it is gone", || theatre.ended(&second.name).is_some());
    assert_eq!(listed(), [("a/b".into(), 1), ("c".into(), 1)]);
    assert_eq!(theatre.stats().topics, 2);
}
