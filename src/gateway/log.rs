//! The log: events on their way to standard error, which a thread of its own writes.
//!
//! A shard never waits for whoever reads that. What it says goes into a queue of [`EVENTS_MAX`]; with more, events are
//! lost, counted, and told of in one line when there is room again.

pub(crate) use super::line::Event;

use clap::ValueEnum;
use crossbeam_queue::ArrayQueue;
use ringwave::{CloseCause, Ended};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::Thread;
use std::time::{Duration, SystemTime};

/// Events that wait to be written.
const EVENTS_MAX: usize = 1024;
/// How long the process waits at its end for the lines that are left: nobody may be reading.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Which ends of sessions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ends {
    Off,
    Problems,
    All,
}

/// Where events are told, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    writer: Thread,
}

#[derive(Debug)]
struct Shared {
    ends: Ends,
    events: ArrayQueue<(SystemTime, Event)>,
    /// Events lost and not told of …
    lost_untold: AtomicU64,
    /// … and all that ever were.
    lost: AtomicU64,
    /// Nothing more comes.
    over: AtomicBool,
}

/// Keeps the log running. Dropped, it waits for the last lines, but not for ever.
#[derive(Debug)]
pub(crate) struct Running {
    log: Log,
    written: Receiver<()>,
}

impl Log {
    /// Starts the thread that writes to standard error.
    pub(crate) fn start(ends: Ends) -> io::Result<Running> {
        // One call for each line, so that lines stay whole. If nobody reads them, so be it.
        Self::start_to(ends, |line| drop(io::stderr().write_all(line.as_bytes())))
    }

    fn start_to(ends: Ends, write: impl FnMut(&str) + Send + 'static) -> io::Result<Running> {
        let shared = Arc::new(Shared {
            ends,
            events: ArrayQueue::new(EVENTS_MAX),
            lost_untold: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let (done, written) = channel();
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            of_thread.write_all(write);
            drop(done);
        })?;
        Ok(Running { log: Self { shared, writer: thread.thread().clone() }, written })
    }

    /// Tells of a session's end, if that is wanted.
    pub(crate) fn session_ended(&self, shard: usize, ended: &Ended) {
        let wanted = match self.shared.ends {
            Ends::Off => false,
            Ends::Problems => is_problem(&ended.cause),
            Ends::All => true,
        };
        if wanted {
            self.tell(Event::SessionEnded { shard, ended: ended.clone() });
        }
    }

    /// Whether what is no problem is told too.
    pub(crate) fn tells_all(&self) -> bool {
        self.shared.ends == Ends::All
    }

    /// Tells of an event. Never waits.
    pub(crate) fn tell(&self, event: Event) {
        if self.shared.events.push((SystemTime::now(), event)).is_err() {
            self.shared.lost_untold.fetch_add(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.writer.unpark();
    }

    /// Events that could not be written so far.
    pub(crate) fn lost_count(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// From now on panics are told here, in one line each.
    pub(crate) fn take_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| log.tell(panicked(panic))));
    }
}

/// Whether a session ended as nobody asked it to.
const fn is_problem(cause: &CloseCause) -> bool {
    !matches!(cause, CloseCause::PeerClosed(_) | CloseCause::Closed | CloseCause::PeerGone(None) | CloseCause::Shutdown)
}

fn panicked(panic: &PanicHookInfo<'_>) -> Event {
    Event::Panicked {
        thread: std::thread::current().name().unwrap_or("?").to_owned(),
        location: panic.location().map_or_else(|| "?".to_owned(), ToString::to_string),
        message: panic.payload_as_str().unwrap_or("?").to_owned(),
    }
}

impl Shared {
    fn write_all(&self, mut write: impl FnMut(&str)) {
        loop {
            // A bound, so that what was lost is told of however much comes.
            for _ in 0..EVENTS_MAX {
                let Some((at, event)) = self.events.pop() else { break };
                write(&event.line(at));
            }
            let count = self.lost_untold.swap(0, Ordering::Relaxed);
            if count > 0 {
                write(&Event::LinesLost { count }.line(SystemTime::now()));
            }
            if self.events.is_empty() {
                if self.over.load(Ordering::Acquire) {
                    return;
                }
                // Whoever told of something after that look has unparked us.
                std::thread::park();
            }
        }
    }
}

impl Running {
    pub(crate) const fn log(&self) -> &Log {
        &self.log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.log.shared.over.store(true, Ordering::Release);
        self.log.writer.unpark();
        // Nothing is ever sent: an end of the waiting is either that of the thread or that of our patience.
        let _ = self.written.recv_timeout(LAST_LINES_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::sync_channel;

    fn lost(count: u64) -> Event {
        Event::LinesLost { count }
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let running = Log::start_to(Ends::All, move |line| sink.lock().expect("whole").push(line.to_owned()));
        let running = running.expect("a thread");
        for number in 0..100 {
            running.log().tell(lost(number));
        }
        drop(running);
        let lines = lines.lock().expect("whole");
        assert_eq!(lines.len(), 100);
        assert!(lines[99].ends_with("event=lines_lost count=99\n"), "{}", lines[99]);
    }

    /// Lines and events that are told to be lost are all events there were.
    #[test]
    fn what_does_not_fit_is_counted_and_told_once() {
        let (lines, read) = sync_channel::<String>(0);
        let running = Log::start_to(Ends::All, move |line| drop(lines.send(line.to_owned()))).expect("a thread");
        let told = EVENTS_MAX as u64 + 500;
        for _ in 0..told {
            // Nobody reads yet, and still nobody waits.
            running.log().tell(Event::Drained { sessions_cut: 0 });
        }
        let lost_count = running.log().lost_count();
        assert!((498..=500).contains(&lost_count), "{lost_count} lost: the writer holds one");
        let mut written = 0;
        loop {
            let line = read.recv_timeout(Duration::from_secs(20)).expect("a line");
            if line.contains("event=lines_lost") {
                assert!(line.ends_with(&format!("count={lost_count}\n")), "{line}");
                break;
            }
            written += 1;
        }
        // The bound of a round lets it be told before the last lines.
        let rest = told - lost_count - written;
        for _ in 0..rest {
            assert!(read.recv_timeout(Duration::from_secs(20)).expect("a line").contains("event=drained"));
        }
        drop(running);
        assert!(read.try_recv().is_err(), "a line too many");
    }

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let (lines, read) = channel::<String>();
        let running = Log::start_to(Ends::Off, move |line| drop(lines.send(line.to_owned()))).expect("a thread");
        let before = std::panic::take_hook();
        running.log().take_panics();
        let caught = std::panic::catch_unwind(|| panic!("first line\nsecond \x1b[31mline"));
        std::panic::set_hook(before);
        assert!(caught.is_err());
        let line = read.recv_timeout(Duration::from_secs(20)).expect("a line");
        assert!(line.contains("level=error event=panicked thread="), "{line}");
        assert!(line.contains("log.rs:"), "{line}");
        assert!(line.ends_with("message=\"first line\\nsecond \\u{1b}[31mline\"\n"), "{line}");
    }

    #[test]
    fn ends_that_somebody_asked_for_are_no_problems() {
        let ordinary =
            [CloseCause::PeerClosed(None), CloseCause::Closed, CloseCause::PeerGone(None), CloseCause::Shutdown];
        assert!(!ordinary.iter().any(is_problem));
        let problems = [
            CloseCause::PeerGone(Some(104)),
            CloseCause::PongTimeout,
            CloseCause::SlowConsumer,
            CloseCause::OutOfMemory,
        ];
        assert!(problems.iter().all(is_problem));
    }
}
