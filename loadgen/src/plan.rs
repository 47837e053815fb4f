//! What the threads are to do: fixed for the program's run, and for each measured stretch of it.

use crate::connections::{Leave, Opening};
use crate::schedule::{Arrivals, Share, Steps};
use ringwave::MessageKind;
use ringwave::driver::Waker;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// What holds from start to end.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) opening: Opening,
    pub(crate) load: Load,
    /// Connections that are opened before anything is measured; their numbers are 0 and up.
    pub(crate) connections: u32,
    pub(crate) threads: usize,
    pub(crate) pin: bool,
    pub(crate) driver: DriverKind,
    pub(crate) connect_rate: Option<f64>,
    /// Whether connections that do not come about end the program.
    pub(crate) all_must_connect: bool,
    pub(crate) size: usize,
    pub(crate) kind: MessageKind,
    pub(crate) answer_timeout: Duration,
    /// Tells this program's messages from those of another one.
    pub(crate) nonce: u64,
}

impl Plan {
    /// Connections that stand at one time at most.
    pub(crate) const fn at_once(&self) -> u32 {
        if let Load::Churn { at_once, .. } = self.load { at_once } else { self.connections }
    }

    /// A thread's share of what all threads do alike.
    pub(crate) fn share_of(&self, index: usize) -> Share {
        Share { first: index as u32, count: 1, of: self.threads as u32 }
    }

    /// The share of a thread in what the numbers from `first` on do, `count` of them.
    pub(crate) fn share_of_numbers(&self, index: usize, first: u32, count: u32) -> Share {
        let threads = self.threads as u32;
        let on = |thread: u32| (first..first + count).filter(|number| number % threads == thread).count() as u32;
        Share { first: (0..index as u32).map(on).sum(), count: on(index as u32), of: count }
    }
}

/// What the connections do.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    /// Each sends and gets its messages back; those from `stalled_from` on stop reading where a run says so.
    Echo { stalled_from: u32 },
    /// Some publish what all the others get.
    Fanout(FanoutPlan),
    /// They are held, asked at the end, and hear of a broadcast where a run says so.
    Hold { ask: Ask },
    /// They come and go, at most `at_once` at one time.
    Churn { at_once: u32, leaves: Vec<Leave> },
}

/// Who publishes to whom: the numbers below `subscribers` listen, the others publish.
#[derive(Clone, Debug)]
pub(crate) struct FanoutPlan {
    pub(crate) subscribers: u32,
    pub(crate) publishers: u32,
    /// Messages that a publisher sends in one go.
    pub(crate) burst: u32,
    /// Subscribers from this number on stop reading where a run says so.
    pub(crate) stalled_from: u32,
    /// What each subscriber sends first.
    pub(crate) on_open: Option<String>,
}

/// How a held connection shows that it still answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ask {
    /// By a pong to our ping: every server must (RFC 6455 §5.5.2).
    Ping,
    /// By a message that comes back: the URL must be an echo.
    Echo,
    /// Not at all.
    None,
}

/// Which driver the threads run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DriverKind {
    /// io_uring, or epoll where that is refused.
    Auto,
    /// io_uring (Linux 6.1).
    Uring,
    /// epoll: connections count against RLIMIT_NOFILE.
    Epoll,
}

/// One measured stretch.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    pub(crate) label: String,
    /// Nanoseconds since the program's start.
    pub(crate) start: u64,
    pub(crate) warm_up: Duration,
    pub(crate) length: Length,
    pub(crate) pace: Pace,
    pub(crate) kind: RunKind,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunKind {
    /// The scenario's load.
    Plain,
    /// The same, and the connections that may stall do.
    Stalled,
    /// One message to all connections.
    Broadcast,
}

/// When a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Time(Duration),
    /// Messages sent, over all threads.
    Count(u64),
}

/// What decides when the next message leaves.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// An answer to the one before; so many are on their way at one time.
    Closed { in_flight: u32 },
    /// A schedule.
    Open { arrivals: Arrivals, steps: Steps },
}

/// One number on a cache line of its own: threads write theirs without disturbing each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Alone<T>(pub(crate) T);

/// What one thread shows of itself while it runs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Gauge {
    pub(crate) open: AtomicU32,
    pub(crate) failed: AtomicU32,
    /// Messages received since the start.
    pub(crate) received: AtomicU64,
}

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Control {
    /// Where everybody's clock begins.
    pub(crate) origin: Instant,
    /// The run is to end now, with what was measured.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) gauges: Vec<Gauge>,
    pub(crate) wakers: Vec<OnceLock<Waker>>,
    pub(crate) fanout: FanoutBoard,
    /// Threads that look out for the broadcast.
    pub(crate) listening: AtomicU32,
}

/// How far the publishers and the deliveries have come, by publisher.
#[derive(Debug, Default)]
pub(crate) struct FanoutBoard {
    /// Messages each has published since the start.
    pub(crate) published: Vec<Alone<AtomicU64>>,
    /// Deliveries of its messages, of those that count.
    pub(crate) delivered: Vec<Alone<AtomicU64>>,
    /// The publisher on this thread wants to be woken …
    pub(crate) sleeper: Vec<AtomicU32>,
    /// … when `delivered` has come this far.
    pub(crate) wake_at: Vec<Alone<AtomicU64>>,
    /// What all of them had published when the run began.
    pub(crate) published_before: AtomicU64,
    /// Threads that may still publish in this run.
    pub(crate) publishing: AtomicU32,
    /// Subscribers that count.
    pub(crate) live: AtomicU32,
}

impl Control {
    pub(crate) fn new(threads: usize, publishers: usize, stop: Arc<AtomicBool>) -> Self {
        let board = FanoutBoard {
            published: (0..publishers).map(|_| Alone::default()).collect(),
            delivered: (0..publishers).map(|_| Alone::default()).collect(),
            sleeper: (0..publishers).map(|_| AtomicU32::default()).collect(),
            wake_at: (0..publishers).map(|_| Alone(AtomicU64::new(u64::MAX))).collect(),
            ..FanoutBoard::default()
        };
        Self {
            origin: Instant::now(),
            stop,
            gauges: (0..threads).map(|_| Gauge::default()).collect(),
            wakers: (0..threads).map(|_| OnceLock::new()).collect(),
            fanout: board,
            listening: AtomicU32::new(0),
        }
    }

    /// Nanoseconds since the program's start.
    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }
}
