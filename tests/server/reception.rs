//! Sessions that are not read from for a while: because the handler says so, or because others are behind.

use crate::support::{DEADLINE, Ended, Note, Puppet, Received, Theatre, eventually};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCause, CloseCode, Config, Policy, SessionOptions};

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
        paused.client.receive_until("all pongs", || theatre.stats().queues == 0);
        while paused.client.has_received() {
            assert_eq!(paused.client.next(), Received::Pong(b"?".to_vec()));
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
