//! What the protocol core answers to hostile input, and what that costs us: memory, counted byte by byte, and work.
//!
//! Every test names the advisory that its input comes from. What needs a socket or a clock (deadlines, slow readers,
//! floods) is tested where there is one.

mod ambiguous;
mod frames;
mod heads;
mod heap;

use heap::Heap;
use ringwave::Limits;
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder::Role;
use ringwave::protocol::error::Failure;
use std::time::{Duration, Instant};

/// What a connection may own beyond the bytes it gathers: the state of what is unfinished.
const FIXED_BYTES_MAX: usize = 512;

/// Lends `pieces` one after the other, copied into one buffer as a read would, until nothing or an error is said.
///
/// Answers how many events were said, and the error.
fn feed<'a, R: Role>(
    connection: &mut Connection<R>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
    mut on_event: impl FnMut(Event<'_>),
) -> (usize, Result<(), Failure>) {
    let mut lent = [0; 4_096];
    let mut said = 0;
    for piece in pieces {
        for part in piece.chunks(lent.len()) {
            let lent = &mut lent[..part.len()];
            lent.copy_from_slice(part);
            let (mut events, _) = connection.receive(lent, limits);
            loop {
                match events.next_event() {
                    Ok(None) => break,
                    Ok(Some(event)) => {
                        said += 1;
                        on_event(event);
                    }
                    Err(failure) => return (said, Err(failure)),
                }
            }
        }
    }
    (said, Ok(()))
}

/// Asserts that the work grows with its size, not with the square of it.
///
/// Work [`GROWTH`] times as large takes that much longer if it is linear, [`GROWTH`]² if it is quadratic; the line is
/// drawn at the geometric mean of the two. Both sizes are measured in turns and the fastest of each counts; a machine
/// that is busy with other things is given more turns, not more time.
fn assert_linear(what: &str, mut work: impl FnMut(usize) -> Duration) {
    let limit = (GROWTH as f64).powf(1.5);
    let (mut short, mut long) = (Duration::MAX, Duration::MAX);
    for _ in 0..20 {
        short = short.min(work(LONG_BYTES / GROWTH));
        long = long.min(work(LONG_BYTES));
        if long.as_secs_f64() < limit * short.as_secs_f64() {
            return;
        }
    }
    panic!("{what}: {GROWTH} times the bytes take {:.0} times as long", long.as_secs_f64() / short.as_secs_f64());
}

/// The larger of the two sizes that [`assert_linear`] compares.
const LONG_BYTES: usize = 64 << 10;
/// How many times the smaller one is contained in it.
const GROWTH: usize = 16;

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The counting itself: a test that measures nothing would pass whatever happens.
#[test]
fn the_heap_is_counted() {
    let (kept, heap) = Heap::used_by(|| {
        let mut kept = vec![0u8; 1_000];
        kept.reserve_exact(9_000);
        drop(vec![0u8; 50_000]);
        kept
    });
    assert_eq!(heap, Heap { live: 10_000, peak: 60_000, total: 61_000 });
    drop(kept);
}

#[test]
fn quadratic_work_is_told_from_linear() {
    assert_linear("linear", |size| Duration::from_micros(size as u64));
    let quadratic = || assert_linear("quadratic", |size| Duration::from_nanos(size as u64 * size as u64));
    assert!(std::panic::catch_unwind(quadratic).is_err());
}
