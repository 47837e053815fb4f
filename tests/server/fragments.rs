//! Messages sent in fragments: what stands between them, what waits for the last one, what becomes of an unfinished one.

use crate::support::{DEADLINE, Ended, Frame, Puppet, Raw, Received, Theatre, numbered};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCode, MessageKind, Policy, Prepared, SendOutcome, SessionOptions};
use std::time::{Duration, Instant};

fn theatre() -> Theatre {
    Theatre::open(|_| {}, |_| SessionOptions::default())
}

fn subscriber(theatre: &Theatre, name: &str) -> Puppet {
    let mut puppet = theatre.puppet(name);
    puppet.run(|session| session.subscribe("news")).expect("a sound name");
    puppet
}

#[track_caller]
fn assert_binary(puppet: &mut Puppet, expected: &[u8]) {
    assert!(puppet.client.next() == Received::Binary(expected.to_vec()));
}

/// RFC 6455 §5.4: the fragments of one message must not be interleaved with those of another.
#[test]
fn messages_wait_for_the_last_fragment_though_those_before_have_left() {
    let theatre = theatre();
    let (mut reader, mut publisher) = (subscriber(&theatre, "reader"), theatre.puppet("publisher"));
    for bytes in [5, 100 * KIB] {
        assert!(reader.run(move |session| session.send_first(MessageKind::Binary, &vec![1; bytes])).is_taken());
        while reader.run(|session| session.buffered_bytes()) > 0 {}
        // Sent by the session, published to it, and sent to it by others: all of it waits.
        assert_eq!(reader.run(|session| session.send("sent")), SendOutcome::Queued);
        assert_eq!(publisher.run(|session| session.publish("news", "published")).taken, 1);
        let key = reader.key();
        assert_eq!(publisher.run(move |session| session.send_to(key, "from another")), SendOutcome::Queued);
        theatre.server.handle().send(key, &vec![3; bytes]).expect("the mailbox has room");
        assert_eq!(reader.run(|session| session.ping(b"between")), SendOutcome::Sent);
        assert_eq!(reader.client.next(), Received::Ping(b"between".to_vec()));
        assert!(reader.run(move |session| session.send_next(&vec![1; bytes], false)).is_taken());
        assert_eq!(reader.run(|session| session.send_first(MessageKind::Text, b"")), SendOutcome::Closed);
        assert!(reader.run(move |session| session.send_next(&vec![1; bytes], true)).is_taken());
        assert_eq!(reader.run(|session| session.send_next(b"", true)), SendOutcome::Closed);
        assert_binary(&mut reader, &vec![1; 3 * bytes]);
        assert_eq!((reader.client.text(), reader.client.text()), ("sent".into(), "published".into()));
        assert_eq!(reader.client.text(), "from another");
        assert_binary(&mut reader, &vec![3; bytes]);
    }
}

fn small_queue(policy: Policy) -> SessionOptions {
    SessionOptions {
        policy,
        queue_bytes_max: 64 * KIB,
        high_water_bytes: 16 * KIB,
        low_water_bytes: KIB,
        ..SessionOptions::default()
    }
}

const POLICIES: [Policy; 5] =
    [Policy::Close, Policy::DropNew, Policy::DropOld, Policy::Conflate, Policy::PauseProducer];

/// What waits behind an unfinished message is held up by us, and not by the peer: the next fragment does not wait for
/// it, the session is read from, and its peer is not taken for one that takes nothing.
#[test]
fn messages_behind_an_unfinished_one_hold_nothing_up() {
    std::thread::scope(|scope| {
        for policy in POLICIES {
            scope.spawn(move || assert_behind_holds_nothing_up(policy));
        }
    });
}

fn assert_behind_holds_nothing_up(policy: Policy) {
    let stall = Duration::from_millis(100);
    let theatre = Theatre::open(|config| config.settings.stall_timeout = stall, move |_| small_queue(policy));
    let (mut reader, mut publisher) = (subscriber(&theatre, "reader"), theatre.puppet("publisher"));
    reader.run(|session| session.send_first(MessageKind::Binary, b"first "));
    // Fifteen fit; with keys of their own none takes another's place.
    for number in 0..15 {
        let message = Prepared::new(&vec![number as u8; 4 * KIB]);
        let order = publisher.order(move |session| session.publish_keyed("news", number, &message).taken);
        if policy != Policy::PauseProducer {
            assert_eq!(order.recv_timeout(DEADLINE), Ok(1), "{policy:?}");
        }
    }
    // Longer than a stall, with nothing to wait for: it is to be seen that nothing happens.
    std::thread::sleep(3 * stall);
    let buffered = reader.run(|session| session.buffered_bytes());
    assert_eq!(buffered, 0, "{policy:?}: what the peer is to take next has been taken");
    assert!(reader.run(|session| session.send_next(&vec![b'n'; 60 * KIB], false)).is_taken(), "{policy:?}");
    while reader.run(|session| session.buffered_bytes()) > 0 {}
    assert!(reader.run(|session| session.send_next(b" last", true)).is_taken(), "{policy:?}");
    assert_binary(&mut reader, &[b"first ", &vec![b'n'; 60 * KIB][..], b" last"].concat());
    for number in 0..15 {
        assert_binary(&mut reader, &vec![number as u8; 4 * KIB]);
    }
    let stats = theatre.stats();
    assert_eq!((stats.messages_dropped, stats.producers_paused > 0), (0, policy == Policy::PauseProducer));
}

/// A fragment that is refused is offered again when the queue has drained, and that is told for certain.
#[test]
fn a_refused_fragment_is_asked_for_again() {
    // Water marks that what waits does not reach by itself.
    let options = SessionOptions { high_water_bytes: MIB, queue_bytes_max: MIB, ..small_queue(Policy::DropNew) };
    let theatre = Theatre::open(|_| {}, move |_| options);
    let mut reader = theatre.sluggish("reader");
    reader.run(|session| session.send_first(MessageKind::Binary, &[]));
    let mut fragments = 0;
    // Counted before each try: the kernel takes what it likes between them.
    let mut refused = 0;
    while refused < 3 {
        let drained = theatre.drains("reader").len();
        if reader.run(|session| session.send_next(&vec![7; 700 * KIB], false)).is_taken() {
            fragments += 1;
        } else {
            refused += 1;
            reader.client.receive_until("the queue drains", || theatre.drains("reader").len() > drained);
        }
    }
    loop {
        let drained = theatre.drains("reader").len();
        if reader.run(|session| session.send_next(b"last", true)).is_taken() {
            break;
        }
        reader.client.receive_until("the queue drains", || theatre.drains("reader").len() > drained);
    }
    assert_binary(&mut reader, &[&vec![7; fragments * 700 * KIB][..], b"last"].concat());
    assert_eq!((theatre.told_dropped("reader"), theatre.stats().messages_dropped), (0, 0));
}

/// RFC 6455 §5.4: a close frame may stand between fragments. Whole messages may not, and are counted.
#[test]
fn a_close_amid_a_message_ends_it_and_what_waits_behind_is_counted() {
    for wait in [false, true] {
        let theatre = theatre();
        let (mut reader, mut publisher) = (subscriber(&theatre, "reader"), theatre.puppet("publisher"));
        reader.run(|session| {
            session.send("before");
            session.send_first(MessageKind::Binary, &[0; 100])
        });
        while wait && reader.run(|session| session.buffered_bytes()) > 0 {}
        assert_eq!(publisher.run(|session| session.publish("news", "lost")).taken, 1);
        reader.run(|session| {
            session.send("lost too");
            session.close(CloseCode::NORMAL, "enough");
            assert_eq!(session.send_next(b"", true), SendOutcome::Closed);
            assert_eq!(session.dropped_count(), 2);
        });
        let answer = reader.client.put_close(Some((1000, ""))).take_out();
        let mut raw = Raw::over(reader.client.stream);
        let (bytes, ended) = raw.write(answer).rest();
        let frames = Frame::all(&bytes);
        assert_eq!(frames.iter().map(|frame| frame.first).collect::<Vec<_>>(), [0x81, 0x02, 0x88]);
        assert_eq!((&frames[2].payload[2..], ended), (&b"enough"[..], Ended::Orderly));
        let stats = theatre.stats();
        assert_eq!((stats.publishes_dropped_close, stats.sends_dropped_close, stats.messages_dropped), (1, 1, 2));
    }
}

/// Whatever is sent in between, and however slowly it is taken: the stream is one of RFC 6455 (the client's decoder says
/// so), and each message comes whole and in the order of those sent beside it.
#[test]
fn streams_mixed_with_everything_else_arrive_whole() {
    for seed in 0..4_u64 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let theatre =
            Theatre::open(|_| {}, |_| SessionOptions { policy: Policy::DropNew, ..SessionOptions::default() });
        let mut reader = if seed % 2 == 0 { theatre.puppet("reader") } else { theatre.sluggish("reader") };
        reader.run(|session| session.subscribe("news")).expect("a sound name");
        let (mut publisher, key) = (theatre.puppet("publisher"), reader.key());
        let (mut whole, mut streamed, mut under_way) = (Vec::new(), Vec::new(), None::<Vec<u8>>);
        let (mut pings, mut pongs) = (Vec::new(), 0_u8);
        for number in 0..300_u64 {
            let bytes = 8 + if random.below(10) == 0 { random.below(300 * KIB) } else { random.below(300) };
            let payload = numbered(number, bytes);
            match random.below(7) {
                0 => {
                    whole.push(payload.clone());
                    assert!(reader.run(move |session| session.send(&payload)).is_taken());
                }
                1 => {
                    whole.push(payload.clone());
                    let prepared = Prepared::new(&payload);
                    assert_eq!(publisher.run(move |session| session.publish_prepared("news", &prepared)).taken, 1);
                }
                2 => {
                    whole.push(payload.clone());
                    assert!(publisher.run(move |session| session.send_to(key, &payload)).is_taken());
                }
                3 => {
                    let ping = vec![number as u8; random.below(126)];
                    if reader.run({
                        let ping = ping.clone();
                        move |session| session.ping(&ping)
                    }) == SendOutcome::Sent
                    {
                        pings.push(Received::Ping(ping));
                    }
                }
                4 => {
                    pongs += 1;
                    reader.client.put_ping(&[pongs; 100]).flush();
                }
                _ => {
                    let last = random.below(4) == 0;
                    let mut message = match under_way.take() {
                        Some(message) => {
                            let payload = payload.clone();
                            assert!(reader.run(move |session| session.send_next(&payload, last)).is_taken());
                            message
                        }
                        None => {
                            let payload = payload.clone();
                            let taken = reader.run(move |session| session.send_first(MessageKind::Binary, &payload));
                            assert!(taken.is_taken());
                            if last {
                                reader.run(|session| session.send_next(&[], true));
                            }
                            Vec::new()
                        }
                    };
                    message.extend(payload);
                    if last { streamed.push(message) } else { under_way = Some(message) }
                }
            }
            if random.below(3) == 0 {
                let sent = theatre.stats().bytes_sent;
                let start = Instant::now();
                let enough = || theatre.stats().bytes_sent > sent || start.elapsed() > Duration::from_millis(1);
                reader.client.receive_until("some of it", enough);
            }
        }
        if let Some(mut message) = under_way {
            reader.run(|session| session.send_next(b"the end", true));
            message.extend(b"the end");
            streamed.push(message);
        }
        reader.run(|session| session.send("done"));
        let (mut received, mut heard_pings, mut last_pong) = (Vec::new(), Vec::new(), 0);
        loop {
            match reader.client.next() {
                Received::Binary(payload) => received.push(payload),
                Received::Text(text) => break assert_eq!(text, "done"),
                Received::Pong(payload) => {
                    assert!(payload[0] > last_pong, "answers come in the order of the pings");
                    last_pong = payload[0];
                }
                ping => heard_pings.push(ping),
            }
        }
        assert_eq!((last_pong, heard_pings == pings), (pongs, true));
        // Both kinds in the order in which they were sent.
        let is_streamed = |payload: &&Vec<u8>| streamed.contains(payload);
        assert!(received.iter().filter(is_streamed).eq(&streamed), "seed {seed}");
        assert!(received.iter().filter(|payload| !is_streamed(payload)).eq(&whole), "seed {seed}");
    }
}

/// Knuth's linear congruential generator: the high bits are random enough here.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}
