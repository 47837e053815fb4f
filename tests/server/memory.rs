//! The memory of all sessions of a shard together: bounded, at the cost of those that need most of it, and of nobody else.

use crate::support::{Note, Puppet, Received, Theatre, eventually, numbered};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCause, MessageKind, Policy, Prepared, SendOutcome, SessionOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const BUDGET: usize = 8 * MIB;
const STALLED: usize = 200;

fn theatre(policy: Policy) -> Theatre {
    let options = move |name: &str| SessionOptions {
        policy: if name.starts_with("stalled") { policy } else { Policy::Close },
        queue_bytes_max: 1024 * MIB,
        high_water_bytes: 1024 * MIB,
        ..SessionOptions::default()
    };
    Theatre::open(|config| config.settings.memory_bytes_max = BUDGET, options)
}

/// The highest value of a counter while a test runs: it is looked at all the time.
fn highest_memory<R>(theatre: &Theatre, run: impl FnOnce() -> R) -> (R, usize) {
    let (over, highest) = (AtomicBool::new(false), AtomicU64::new(0));
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                highest.fetch_max(theatre.stats().memory_bytes, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let answer = run();
        over.store(true, Ordering::Relaxed);
        answer
    });
    (answer, highest.into_inner() as usize)
}

/// Stalled readers of a topic are many, and each may queue what it likes; the one that reads gets everything.
#[test]
fn stalled_readers_cost_no_more_than_the_budget_and_nobody_else() {
    // Small messages are copied into what leaves next, large ones are shared; so many are more than the budget.
    let table = [
        (Policy::DropNew, 100, 4_000),
        (Policy::DropOld, 1_000, 600),
        (Policy::Conflate, 10 * KIB, 400),
        (Policy::Close, 1_000, 600),
        (Policy::PauseProducer, 1_000, 600),
        (Policy::DropNew, 100 * KIB, 200),
    ];
    for (policy, bytes, count) in table {
        let theatre = theatre(policy);
        let mut stalled: Vec<_> = (0..STALLED).map(|number| theatre.sluggish(&format!("stalled{number}"))).collect();
        let (mut healthy, mut publisher) = (theatre.puppet("healthy"), theatre.puppet("publisher"));
        for puppet in stalled.iter_mut().chain([&mut healthy]) {
            puppet.run(|session| session.subscribe("news")).expect("a sound name");
        }
        // What is published in one turn is memory too, for everybody.
        let step = (4 * KIB / bytes).max(1);
        let ((), highest) = highest_memory(&theatre, || {
            for first in (0..count).step_by(step) {
                let numbers = first..count.min(first + step);
                let of_session = numbers.clone();
                publisher.run(move |session| {
                    for number in of_session {
                        let message = Prepared::new(&numbered(number as u64, bytes));
                        session.publish_keyed("news", number as u64, &message);
                    }
                });
                for number in numbers {
                    assert_eq!(healthy.client.number(), number as u64, "{policy:?}, {bytes} bytes");
                }
            }
        });
        let stats = theatre.stats();
        println!("{policy:?}, {bytes} bytes: {highest} at most, {} ended", stats.ended_out_of_memory);
        // It is looked at before a message is queued; beside messages there are headers and answers.
        assert!(highest > BUDGET / 2 && highest <= BUDGET + bytes + 4 * KIB, "{policy:?}, {bytes} bytes: {highest}");
        assert!(stats.publishes_dropped_memory > 0, "{policy:?}, {bytes} bytes");
        assert_eq!(stats.publishes_dropped_memory, stats.messages_dropped, "{policy:?}, {bytes} bytes");
        let keeps_all = matches!(policy, Policy::Close | Policy::PauseProducer);
        assert_eq!(stats.ended_out_of_memory > 0, keeps_all, "{policy:?}, {bytes} bytes");
        assert_eq!(healthy.run(|session| session.dropped_count()), 0);
        eventually("all are told", || {
            let told: u64 = stalled.iter().map(|puppet| theatre.told_dropped(&puppet.name)).sum();
            keeps_all || told == theatre.stats().messages_dropped
        });
    }
}

/// Has a session that does not read be sent so many bytes, in messages of this length, each in a turn of its own.
fn fill(puppet: &Puppet, sender: &mut Puppet, count: usize, bytes: usize) {
    let key = puppet.key();
    for _ in 0..count {
        sender.run(move |session| session.send_to(key, &vec![0; bytes]));
    }
}

#[test]
fn the_longest_queue_loses_first() {
    let theatre = theatre(Policy::DropOld);
    let stalled = [6, 2, 1].map(|mib| (mib, theatre.sluggish(&format!("stalled{mib}"))));
    let mut sender = theatre.puppet("sender");
    let dropped = || [0, 1, 2].map(|rank: usize| theatre.told_dropped(&stalled[rank].1.name));
    for (mib, puppet) in stalled.iter().rev() {
        fill(puppet, &mut sender, mib * 16, 64 * KIB);
    }
    eventually("something is dropped", || dropped() != [0; 3]);
    let [first, ..] = dropped();
    // Down to seven eighths, and no further.
    assert!((14..=40).contains(&first), "{first} dropped");
    fill(&stalled[2].1, &mut sender, 16, 64 * KIB);
    assert_eq!(dropped()[1..], [0, 0]);
    let stats = theatre.stats();
    assert_eq!((stats.sends_dropped_memory, stats.ended_out_of_memory), (stats.messages_dropped, 0));
}

/// What the kernel does not take is out of the policies' reach: the session ends, or its connection if it is over already.
#[test]
fn sends_that_nobody_takes_do_not_keep_the_memory_from_others() {
    for says_goodbye in [false, true] {
        let theatre = theatre(Policy::DropNew);
        let mut stalled: Vec<_> = (0..12).map(|number| theatre.sluggish(&format!("stalled{number}"))).collect();
        let (mut sender, mut healthy) = (theatre.puppet("sender"), theatre.puppet("healthy"));
        for puppet in &mut stalled {
            fill(puppet, &mut sender, 1, MIB);
            if says_goodbye {
                puppet.client.put_close(None).flush();
                eventually("it is over", || theatre.ended(&puppet.name).is_some());
            }
        }
        for number in 0..100 {
            let outcome = healthy.run(move |session| session.send(&numbered(number, 100 * KIB)));
            assert_eq!(outcome, SendOutcome::Sent);
            assert_eq!(healthy.client.number(), number);
        }
        let stats = theatre.stats();
        assert!(stats.memory_bytes <= BUDGET as u64);
        assert!((7..=10).contains(&stats.connections), "{} connections", stats.connections);
        assert_eq!(stats.ended_out_of_memory, if says_goodbye { 0 } else { 14 - stats.connections });
    }
}

/// A message of which something is missing is memory too. Who holds most ends, and not who asks for more.
#[test]
fn unfinished_messages_count_and_the_largest_ends() {
    let theatre = theatre(Policy::Close);
    let mut small: Vec<_> = (0..20).map(|number| theatre.puppet(&format!("small{number}"))).collect();
    for puppet in &mut small {
        puppet.client.put_first(MessageKind::Binary, &[5; 40 * KIB]).flush();
    }
    // Two that stop, and one that goes on until there is no room for all.
    let mut hogs = [5 * MIB, 500 * KIB].map(|bytes| {
        let mut hog = theatre.puppet(&format!("hog{bytes}"));
        hog.client.put_first(MessageKind::Binary, &vec![1; bytes]).flush();
        hog
    });
    let sent = (5 * MIB + 500 * KIB + 20 * 40 * KIB) as u64;
    eventually("it has come", || theatre.stats().bytes_received > sent);
    let mut other = theatre.puppet("other");
    other.client.put_first(MessageKind::Binary, &vec![2; 4 * MIB]).flush();
    assert_eq!(hogs[0].client.next(), Received::close(1013, "no memory for its message"));
    eventually("it is over", || theatre.ended(&hogs[0].name).is_some());
    assert_eq!(theatre.ended(&hogs[0].name).map(|ended| ended.cause), Some(CloseCause::OutOfMemory));
    // The others finish what they have begun.
    other.client.put_next(b"", true).flush();
    hogs[1].client.put_next(b"", true).flush();
    for puppet in &mut small {
        puppet.client.put_next(b"", true).flush();
    }
    for puppet in small.iter().chain([&other, &hogs[1]]) {
        eventually("its message is heard", || {
            theatre.notes(&puppet.name).iter().any(|note| matches!(note, Note::Message(_)))
        });
    }
    // Gauges are shown at the end of a turn.
    eventually("nothing is kept", || theatre.stats().memory_bytes == 0);
    assert_eq!(theatre.stats().ended_out_of_memory, 1);
}

/// Whoever announces much and sends little costs little: four times what has come, and a page at first. Where much comes in one
/// read, that is as if a quarter of a long buffer more had come; or a mebibyte, while three quarters of the memory are free.
#[test]
fn what_is_kept_for_bytes_to_come_is_in_proportion_to_those_that_came() {
    const QUARTER: usize = 65_568 / 4;
    let theatre = theatre(Policy::Close);
    let (mut loud, mut other) = (theatre.puppet("loud"), theatre.puppet("other"));
    // It has filled receive buffers before.
    loud.client.put(&vec![3; 200 * KIB]).flush();
    let heard = || theatre.notes("loud").iter().filter(|note| matches!(note, Note::Message(_))).count();
    eventually("it is heard", || heard() == 1 && theatre.stats().memory_bytes == 0);
    let mut hoarder = theatre.puppet("hoarder");
    for is_plentiful in [true, false] {
        if !is_plentiful {
            let received = theatre.stats().bytes_received;
            hoarder.client.put_first(MessageKind::Binary, &vec![2; BUDGET / 4]).flush();
            // With its header.
            eventually("it has come", || theatre.stats().bytes_received - received == BUDGET as u64 / 4 + 14);
        }
        (0..2).for_each(|_| other.run(|_| ()));
        let before = theatre.stats().memory_bytes as usize;
        let wire = loud.client.put(&vec![4; 2 * MIB]).take_out();
        let (mut sent, mut ahead, mut most) = (0, 0, 0);
        for step in [24, 10, 1_000, 3_000, 7_000, 30_000, 30_000, 100_000, 1_000, 100_000] {
            let received = theatre.stats().bytes_received;
            loud.client.stream.write_all(&wire[sent..sent + step]).expect("somebody reads");
            sent += step;
            if step >= QUARTER {
                (ahead, most) = (QUARTER, if is_plentiful { sent + MIB } else { 0 });
            }
            eventually("it has come", || theatre.stats().bytes_received - received == step as u64);
            // A gauge is shown at the end of a turn: this is the next one, and then one more.
            (0..2).for_each(|_| other.run(|_| ()));
            let kept = theatre.stats().memory_bytes as usize - before;
            assert!(kept >= sent - 14, "{kept} bytes kept for {sent}");
            let in_proportion = (4 * (sent + ahead)).max(4 * KIB);
            assert!(kept <= in_proportion.max(most) + 512, "{kept} bytes kept for {sent}");
        }
        let heard_before = heard();
        loud.client.stream.write_all(&wire[sent..]).expect("somebody reads");
        eventually("it is heard", || heard() == heard_before + 1);
    }
    hoarder.client.put_next(b"", true).flush();
}

/// It may be one alone that sends more than there is.
#[test]
fn a_message_that_is_more_than_all_memory_is_refused_and_small_ones_live() {
    let theatre = theatre(Policy::Close);
    let mut small = theatre.puppet("small");
    small.client.put_first(MessageKind::Binary, &[5; 40 * KIB]).flush();
    let mut hog = theatre.puppet("hog");
    let wire = hog.client.put_first(MessageKind::Binary, &vec![1; 60 * MIB]).take_out();
    let mut stream = hog.client.stream.try_clone().expect("a descriptor is free");
    let ((), highest) = highest_memory(&theatre, || {
        let writing = std::thread::spawn(move || stream.write_all(&wire));
        assert_eq!(hog.client.next(), Received::close(1013, "no memory for its message"));
        // It may be cut off by then.
        let _ = writing.join().expect("it does not panic");
    });
    // The message's room grows by a quarter, and is looked at after each read.
    assert!(highest <= BUDGET + BUDGET / 4, "{highest}");
    small.client.put_next(b"", true).flush();
    eventually("its message is heard", || theatre.notes("small").iter().any(|note| matches!(note, Note::Message(_))));
}
