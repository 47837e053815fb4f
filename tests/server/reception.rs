//! Sessions that are not read from for a while: because the handler says so, or because others are behind.

use crate::support::{DEADLINE, Ended, Note, Puppet, Received, Theatre, eventually};
use ringwave::base::limits::{KIB, MAILBOX_POSTS_MAX, MIB, OUTBOX_POSTS_HIGH};
use ringwave::{CloseCause, CloseCode, Config, Policy, SessionOptions};
use std::time::Duration;

/// Sessions are paused by their handler only; nothing ends them but a close.
fn theatre(change: impl FnOnce(&mut Config)) -> Theatre {
    let options = SessionOptions {
        policy: Policy::DropNew,
        high_water_bytes: MIB,
        low_water_bytes: 64 * KIB,
        ..SessionOptions::default()
    };
    let patient = move |config: &mut Config| {
        config.settings.close_timeout = 10 * DEADLINE;
        change(config);
    };
    Theatre::open(patient, move |_| options)
}

/// What the session was sent by its client, so far.
fn heard(theatre: &Theatre, name: &str) -> Vec<Received> {
    let notes = theatre.notes(name).into_iter();
    notes.filter_map(|note| if let Note::Message(message) = note { Some(message) } else { None }).collect()
}

/// Pauses a session until its client has read what this sends to it.
fn pause(puppet: &mut Puppet) -> usize {
    const BYTES: usize = 6 * MIB;
    puppet.run(|session| {
        session.pause_receiving();
        session.send(&vec![0; BYTES]);
    });
    BYTES
}

/// It stays with the kernel meanwhile, and its order is kept.
#[test]
fn what_is_sent_during_a_pause_arrives_after_it_in_order() {
    let theatre = theatre(|_| {});
    let (mut paused, mut other) = (theatre.sluggish("paused"), theatre.puppet("other"));
    let mut sent = Vec::new();
    for _ in 0..3 {
        let bytes = pause(&mut paused);
        let heard_before = theatre.stats().messages_received;
        for _ in 0..50 {
            let text = sent.len().to_string();
            paused.client.put(&text).put_ping(b"?").flush();
            sent.push(Received::Text(text));
        }
        for _ in 0..10 {
            other.run(|_| ());
        }
        assert_eq!(theatre.stats().messages_received, heard_before + 10, "of the paused one nothing is heard");
        assert!(paused.client.next() == Received::Binary(vec![0; bytes]));
        eventually("the rest is heard", || heard(&theatre, "paused").len() == sent.len());
        assert!(heard(&theatre, "paused") == sent);
        assert_eq!(paused.client.next(), Received::Pong(b"?".to_vec()));
        // Others may be on their way still; this one's is the last.
        paused.client.put_ping(b"!").flush();
        while let pong = paused.client.next()
            && pong != Received::Pong(b"!".to_vec())
        {
            assert_eq!(pong, Received::Pong(b"?".to_vec()));
        }
    }
}

/// A close frame of ours that nobody hears the answer to would hold the session until the timeout.
#[test]
fn a_paused_session_closes_in_order() {
    type Close = fn(&Theatre, &Puppet);
    let ways: [(&str, u16, Close); 2] = [
        ("by its key", 4000, |theatre, paused| {
            let code = CloseCode::new(4000).expect("one of the application's codes");
            theatre.server.handle().close(paused.key(), code, "").expect("the mailbox has room");
        }),
        ("by a drain", 1001, |theatre, _| theatre.server.handle().shutdown(10 * DEADLINE)),
    ];
    for (way, code, close) in ways {
        let theatre = theatre(|_| {});
        let mut paused = theatre.puppet("paused");
        paused.run(|session| session.pause_receiving());
        // What it has sent before its answer is passed over.
        paused.client.send("unheard");
        close(&theatre, &paused);
        let Received::Close(Some((received, _))) = paused.client.next() else { panic!("no close frame, closed {way}") };
        assert_eq!(received, code);
        paused.client.put_close(Some((code, ""))).flush();
        assert_eq!(paused.client.next(), Received::End(Ended::Orderly), "closed {way}");
        eventually("it is over", || theatre.ended("paused").is_some());
        assert_eq!(theatre.ended("paused").map(|ended| ended.cause), Some(CloseCause::Closed), "closed {way}");
        assert_eq!(heard(&theatre, "paused"), []);
    }
}

/// A session that publishes faster than another shard takes it is held back only until that has caught up.
#[test]
fn a_session_held_back_for_another_shard_goes_on_by_itself() {
    /// More than a mailbox takes at once: when the last of them goes, what its driver was told has long been done.
    const POSTS: usize = MAILBOX_POSTS_MAX + 2 * OUTBOX_POSTS_HIGH;
    let theatre = theatre(|config| {
        config.shards = 2;
        // Nothing else wakes the shard.
        config.settings.ping_interval = None;
    });
    let mut publisher = theatre.on_shard(0, "publisher", Theatre::puppet);
    let mut subscriber = theatre.on_shard(1, "subscriber", Theatre::puppet);
    subscriber.run(|session| session.subscribe("news")).expect("a sound name");
    for round in 0..3 {
        publisher.run(move |session| {
            for number in 0..POSTS {
                session.publish("news", &format!("{round} {number}"));
            }
        });
        let next = publisher.order(|session| session.shard());
        for number in 0..POSTS {
            assert_eq!(subscriber.client.text(), format!("{round} {number}"));
        }
        assert_eq!(next.recv_timeout(Duration::from_secs(5)), Ok(0), "it is read from again");
    }
    assert_eq!(theatre.stats().posts_dropped, 0);
}
