//! All threads as one: started together, told together what to do, their counts put together.

use crate::churn::Churn;
use crate::echo::Echo;
use crate::fanout::Fanout;
use crate::guard;
use crate::hold::Hold;
use crate::live::Live;
use crate::measure::{Interval, Run, Window, empty_histogram};
use crate::plan::{Control, DriverKind, Length, Load, Pace, Plan, RunKind, RunPlan};
use crate::syscalls::Counter;
use crate::usage::{ClientUsage, ProcessSample, ServerUsage, ThreadTimes, resident_bytes};
use crate::worker::{self, Command, Done, Note, Post, Stalls};
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ringwave::driver::{Driver, Epoll, EpollConfig, Uring, UringConfig, cores, pin_to};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// From the command to the start of a run: all threads have seen it by then.
const LEAD: Duration = Duration::from_millis(30);
/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How much later than a thread the main thread gives up.
const GRACE_OF_HANDSHAKES: Duration = Duration::from_secs(1);
/// Longer than a thread may take to answer in the end.
const GRACE: Duration = Duration::from_secs(30);

/// The threads and what they have said.
pub(crate) struct Fleet {
    plan: Arc<Plan>,
    pub(crate) control: Arc<Control>,
    threads: Vec<(Sender<Command>, JoinHandle<()>)>,
    notes: Receiver<(usize, Note)>,
    live: Live,
    server_pid: Option<u32>,
    count_syscalls: bool,
    /// The server's memory before there were connections.
    resident_at_start: Option<u64>,
    /// The first trouble of each thread, in words.
    pub(crate) troubles: Vec<String>,
}

/// How the connections came about.
pub(crate) struct Connected {
    pub(crate) established: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Histogram<u64>,
}

/// What a run is to be, but for its start.
pub(crate) struct RunSpec {
    pub(crate) label: String,
    pub(crate) warm_up: Duration,
    pub(crate) length: Length,
    pub(crate) pace: Pace,
    pub(crate) kind: RunKind,
}

impl Fleet {
    /// Starts the threads. Nothing is connected yet.
    pub(crate) fn start(plan: Plan, output: &crate::args::OutputArgs, control: Arc<Control>) -> io::Result<Self> {
        let plan = Arc::new(plan);
        let (note_sender, notes) = mpsc::channel();
        let cores = cores();
        let mut threads = Vec::new();
        for index in 0..plan.threads {
            let (command_sender, commands) = mpsc::channel();
            let post =
                Post { plan: plan.clone(), control: control.clone(), index, commands, notes: note_sender.clone() };
            let core = if plan.pin && !cores.is_empty() { Some(cores[index % cores.len()]) } else { None };
            let body = move || {
                // A core that may not be had is none to insist on.
                let _ = core.map(pin_to);
                let mut farewell = Farewell { index, notes: post.notes.clone(), error: None };
                farewell.error = work(post).err();
            };
            threads.push((command_sender, thread::Builder::new().name(format!("load-{index}")).spawn(body)?));
        }
        let server_pid = output.server_pid;
        Ok(Self {
            plan,
            control,
            threads,
            notes,
            live: Live::new(output.quiet),
            server_pid,
            count_syscalls: output.count_syscalls,
            resident_at_start: server_pid.map(resident_bytes).transpose()?,
            troubles: Vec::new(),
        })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.control.stop.load(Relaxed)
    }

    /// The server's resident memory now, and at the start.
    pub(crate) fn resident(&self) -> Option<(u64, u64)> {
        Some((resident_bytes(self.server_pid?).ok()?, self.resident_at_start?))
    }

    pub(crate) fn open_count(&self) -> u64 {
        self.control.gauges.iter().map(|gauge| u64::from(gauge.open.load(Relaxed))).sum()
    }

    fn failed_count(&self) -> u64 {
        self.control.gauges.iter().map(|gauge| u64::from(gauge.failed.load(Relaxed))).sum()
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for (index, (sender, _)) in self.threads.iter().enumerate() {
            // A thread that has ended has said why.
            let _ = sender.send(command());
            if let Some(waker) = self.control.wakers[index].get() {
                waker.wake();
            }
        }
    }

    /// The next note of what concerns a run; troubles are kept, an ended thread is an error.
    fn next_note(&mut self, timeout: Duration) -> io::Result<Option<(usize, Note)>> {
        match self.notes.recv_timeout(timeout) {
            Ok((_, Note::Trouble { text })) => {
                self.troubles.push(text);
                Ok(None)
            }
            Ok((index, Note::Ended { error })) => {
                Err(error.unwrap_or_else(|| io::Error::other(format!("thread {index} ended before its time"))))
            }
            Ok(note) => Ok(Some(note)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("all threads have ended")),
        }
    }

    /// Opens all connections of the plan. Where all must stand, the first that does not is an error.
    pub(crate) fn connect(&mut self) -> io::Result<Connected> {
        let begun = Instant::now();
        self.tell(|| Command::Open);
        let mut latency = empty_histogram();
        let (mut ready, mut established) = (0, 0);
        let mut progress = (0, begun);
        let wanted = u64::from(self.plan.connections);
        while ready < self.threads.len() {
            if let Some((_, Note::Opened { established: of_thread_count, latency: of_thread })) =
                self.next_note(LOOK)?
            {
                ready += 1;
                established += of_thread_count;
                latency.add(&*of_thread).map_err(io::Error::other)?;
            }
            let open = self.open_count();
            if open != progress.0 {
                progress = (open, Instant::now());
            }
            if self.plan.all_must_connect && !self.troubles.is_empty() {
                return Err(self.cannot_connect());
            }
            let failed = self.failed_count();
            self.live.show(open as f64 / wanted as f64, || {
                let rate = open as f64 / begun.elapsed().as_secs_f64();
                format!("connecting: {open} of {wanted}, {rate:.0}/s, {failed} failed")
            });
            // A connect that nobody answers is no completion: the system tries for two minutes.
            // A handshake that nobody answers is told by its thread first.
            let idle = progress.1.elapsed() > self.plan.opening.timeout + GRACE_OF_HANDSHAKES;
            if idle && self.plan.all_must_connect {
                let limit = humantime::format_duration(self.plan.opening.timeout);
                self.troubles.push(format!(
                    "{open} of {wanted} connections stand, and no more came within {limit}: the address does not answer"
                ));
                return Err(self.cannot_connect());
            }
            if idle || self.is_stopped() {
                break;
            }
        }
        self.live.clear();
        if ready < self.threads.len() {
            established = self.open_count();
        }
        Ok(Connected { established, elapsed: begun.elapsed(), latency })
    }

    fn cannot_connect(&mut self) -> io::Error {
        self.live.clear();
        let trouble = self.troubles.first().cloned().unwrap_or_default();
        io::Error::other(format!("{}: {trouble}", self.plan.opening.endpoint.target))
    }

    /// Does nothing for a while but watch. Answers how long that was.
    pub(crate) fn hold(&mut self, duration: Duration) -> io::Result<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < duration && !self.is_stopped() {
            let left = duration.saturating_sub(begun.elapsed());
            let _ = self.next_note(left.min(LOOK))?;
            let open = self.open_count();
            self.live.show(begun.elapsed().as_secs_f64() / duration.as_secs_f64(), || format!("holding {open}"));
        }
        self.live.clear();
        Ok(begun.elapsed())
    }

    /// Loads and measures.
    pub(crate) fn run(&mut self, spec: RunSpec) -> io::Result<(Run, Stalls)> {
        let start = self.control.now() + LEAD.as_nanos() as u64;
        let plan = RunPlan {
            label: spec.label,
            start,
            warm_up: spec.warm_up,
            length: spec.length,
            pace: spec.pace,
            kind: spec.kind,
        };
        self.control.listening.store(0, SeqCst);
        if let Load::Fanout(fanout) = &self.plan.load {
            let share = |index| self.plan.share_of_numbers(index, fanout.subscribers, fanout.publishers).count;
            let publishing = (0..self.threads.len()).filter(|index| share(*index) > 0).count();
            self.control.fanout.publishing.store(publishing as u32, SeqCst);
            let published = self.control.fanout.published.iter().map(|count| count.0.load(SeqCst)).sum();
            self.control.fanout.published_before.store(published, SeqCst);
        }
        self.tell(|| Command::Run(plan.clone()));
        Gathering::new(self, &plan).gather()
    }

    /// Closes all connections and ends the threads.
    pub(crate) fn finish(mut self) {
        self.live.clear();
        self.tell(|| Command::Finish);
        for (_, thread) in self.threads.drain(..) {
            // A thread's panic has been printed where it happened.
            let _ = thread.join();
        }
    }
}

/// A run as it comes together.
struct Gathering<'a> {
    fleet: &'a mut Fleet,
    plan: &'a RunPlan,
    measured_from: u64,
    measured_to: u64,
    intervals: Vec<Interval>,
    done: Vec<Done>,
    sample_before: Option<ProcessSample>,
    server: Option<ServerUsage>,
    sampled_at: u64,
    resident_max: u64,
    syscalls: Option<Counter>,
    received_before: u64,
}

impl<'a> Gathering<'a> {
    fn new(fleet: &'a mut Fleet, plan: &'a RunPlan) -> Self {
        let measured_from = plan.start + plan.warm_up.as_nanos() as u64;
        let measured_to = match plan.length {
            Length::Time(length) => measured_from.saturating_add(length.as_nanos() as u64),
            Length::Count(_) => u64::MAX,
        };
        let received_before = fleet.control.gauges.iter().map(|gauge| gauge.received.load(Relaxed)).sum();
        Self {
            fleet,
            plan,
            measured_from,
            measured_to,
            intervals: Vec::new(),
            done: Vec::new(),
            sample_before: None,
            server: None,
            sampled_at: 0,
            resident_max: 0,
            syscalls: None,
            received_before,
        }
    }

    fn gather(mut self) -> io::Result<(Run, Stalls)> {
        let threads = self.fleet.threads.len();
        let patience = self.fleet.plan.answer_timeout + GRACE;
        let mut silence = Duration::ZERO;
        while self.done.len() < threads {
            self.watch_server()?;
            let timeout = self.next_look();
            let looked_at = Instant::now();
            match self.fleet.next_note(timeout)? {
                Some((_, Note::Interval { index, interval })) => {
                    self.add_interval(index, *interval);
                    silence = Duration::ZERO;
                }
                Some((_, Note::Done(done))) => {
                    self.done.push(*done);
                    silence = Duration::ZERO;
                }
                // A process that was suspended has heard nothing either: a look counts for no more than it was to take.
                _ if self.fleet.control.now() >= self.measured_from => silence += looked_at.elapsed().min(timeout),
                _ => {}
            }
            self.show();
            // A thread that measures says so each second, and waits for answers no longer than the timeout.
            if silence > patience {
                return Err(io::Error::other("a thread neither measures nor ends its run"));
            }
        }
        self.end_watch()?;
        self.fleet.live.clear();
        Ok(self.conclude())
    }

    fn next_look(&self) -> Duration {
        let now = self.fleet.control.now();
        let next = if now < self.measured_from { self.measured_from } else { self.measured_to };
        // A moment that has passed is no reason to hurry.
        let until = if next > now { Duration::from_nanos(next - now) } else { LOOK };
        until.min(LOOK)
    }

    /// Looks at the server when the measured time begins, while it lasts, and when it ends.
    fn watch_server(&mut self) -> io::Result<()> {
        let Some(pid) = self.fleet.server_pid else { return Ok(()) };
        let now = self.fleet.control.now();
        if now < self.measured_from || self.server.is_some() {
            return Ok(());
        }
        if self.sample_before.is_none() {
            self.sample_before = Some(ProcessSample::of(pid)?);
            self.sampled_at = self.fleet.control.now();
            if self.fleet.count_syscalls {
                self.syscalls = Some(Counter::start(pid)?);
            }
        }
        if now >= self.measured_to {
            return self.end_watch();
        }
        self.resident_max = self.resident_max.max(resident_bytes(pid)?);
        Ok(())
    }

    fn end_watch(&mut self) -> io::Result<()> {
        let (Some(pid), Some(before), None) = (self.fleet.server_pid, &self.sample_before, &self.server) else {
            return Ok(());
        };
        let after = ProcessSample::of(pid)?;
        let elapsed = Duration::from_nanos(self.fleet.control.now() - self.sampled_at);
        let mut usage = after.since(before, pid, elapsed);
        usage.resident_bytes_at_start = self.fleet.resident_at_start.unwrap_or(usage.resident_bytes_before);
        usage.syscalls = self.syscalls.take().map(Counter::stop).transpose()?;
        self.server = Some(usage);
        Ok(())
    }

    fn add_interval(&mut self, index: usize, interval: Interval) {
        match self.intervals.get_mut(index) {
            Some(there) => {
                there.window.merge(&interval.window);
                there.length = there.length.max(interval.length);
            }
            // A thread's intervals come in order.
            None => self.intervals.push(interval),
        }
    }

    fn show(&mut self) {
        let Fleet { live, control, .. } = &mut *self.fleet;
        let (now, plan) = (control.now(), self.plan);
        let received: u64 = control.gauges.iter().map(|gauge| gauge.received.load(Relaxed)).sum::<u64>();
        let received = received.saturating_sub(self.received_before);
        let elapsed = now.saturating_sub(plan.start) as f64 / 1e9;
        let done = match plan.length {
            Length::Time(length) => elapsed / (plan.warm_up + length).as_secs_f64(),
            Length::Count(count) => received as f64 / count as f64,
        };
        let stage = if now < self.measured_from {
            "warming up"
        } else if now < self.measured_to {
            "measuring"
        } else {
            "waiting for answers"
        };
        let last = self.intervals.last();
        live.show(done, || {
            let detail = last.map_or_else(String::new, |interval| {
                let rate = interval.window.received as f64 / interval.length.as_secs_f64().max(1e-9);
                let p99 = Duration::from_nanos(interval.window.latency.value_at_quantile(0.99));
                format!(", {rate:.0}/s, p99 {p99:.2?}, {} errors", interval.window.errors.total())
            });
            format!("{} ({stage}): {elapsed:.0} s, {received} messages{detail}", plan.label)
        });
    }

    fn conclude(mut self) -> (Run, Stalls) {
        let elapsed = self.done.iter().map(|done| done.elapsed).max().unwrap_or_default();
        let mut tail = Window::default();
        let mut stalls = Stalls::default();
        for done in &self.done {
            tail.merge(&done.tail);
            stalls.expected += done.stalls.expected;
            stalls.received += done.stalls.received;
            stalls.ended_by_server += done.stalls.ended_by_server;
        }
        // What came after the measured time belongs to its last second.
        match self.intervals.last_mut() {
            Some(last) => last.window.append(&tail),
            None => self.intervals.push(Interval { start: Duration::ZERO, length: elapsed, window: tail }),
        }
        let mut total = Window::default();
        for interval in &self.intervals {
            total.append(&interval.window);
            total.connections = interval.window.connections;
        }
        if let Some(server) = &mut self.server {
            server.resident_bytes_max = server.resident_bytes_max.max(self.resident_max);
        }
        let times: Vec<ThreadTimes> = self.done.iter().map(|done| done.times).collect();
        let share = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        let offered_per_s = match &self.plan.pace {
            Pace::Closed { .. } => None,
            Pace::Open { steps, .. } => Some(steps.mean_rate(elapsed)),
        };
        let client = ClientUsage {
            cpu: times.iter().map(|times| times.on_core).sum(),
            busiest_thread: times.iter().map(|times| share(times.on_core)).fold(0.0, f64::max),
            longest_wait: times.iter().map(|times| share(times.waited)).fold(0.0, f64::max),
            limit: guard::limit(&times, elapsed, &total, offered_per_s.is_some(), self.server.as_ref()),
        };
        let label = self.plan.label.clone();
        let run = Run { label, offered_per_s, elapsed, total, intervals: self.intervals, client, server: self.server };
        (run, stalls)
    }
}

/// Says that a thread is over, whichever way it ends: a main thread that waits for one that panicked waits for ever.
struct Farewell {
    index: usize,
    notes: Sender<(usize, Note)>,
    error: Option<io::Error>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if thread::panicking() {
            self.error = Some(io::Error::other(format!("thread {} panicked: a bug in ringload", self.index)));
        }
        // The main thread is gone only when the program ends.
        let _ = self.notes.send((self.index, Note::Ended { error: self.error.take() }));
    }
}

/// A thread's work, on the driver that it can have.
fn work(post: Post) -> io::Result<()> {
    let plan = post.plan.clone();
    let connections = (plan.connections.max(plan.at_once()) as usize).div_ceil(plan.threads) + 1024;
    let bulk = plan.size > 4096;
    if plan.driver == DriverKind::Epoll {
        return load(post, Epoll::new(EpollConfig { links_max: connections, ..EpollConfig::default() })?);
    }
    let config = UringConfig {
        links_max: connections,
        // Few large buffers stay in the cache; for small messages there is no difference.
        buffer_count: if bulk { 64 } else { 512 },
        buffer_bytes: if bulk { 65_536 } else { 4096 },
        table_slots: 0,
        ..UringConfig::default()
    };
    load(post, Uring::new(config)?)
}

fn load<V: Driver>(post: Post, driver: V) -> io::Result<()> {
    let plan = post.plan.clone();
    let control = post.control.clone();
    let thread = (post.index, plan.threads);
    let share = plan.share_of(post.index);
    let random = SmallRng::from_os_rng();
    match &plan.load {
        Load::Echo { stalled_from } => worker::run(post, driver, Echo::new(&plan, share, *stalled_from, random)),
        Load::Fanout(fanout) => {
            let fanout = Fanout::new(&plan, fanout, control, post.index, random);
            worker::run(post, driver, fanout)
        }
        Load::Hold { ask } => {
            let hold = Hold::new(&plan, *ask, control, post.index, random);
            worker::run(post, driver, hold)
        }
        Load::Churn { at_once, leaves } => {
            worker::run(post, driver, Churn::new(&plan, thread, share, *at_once, leaves.clone(), random))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_is_told_of() {
        let (sender, notes) = mpsc::channel();
        let panicking = thread::spawn(move || {
            let _farewell = Farewell { index: 3, notes: sender, error: None };
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panicking.join().is_err());
        let Ok((3, Note::Ended { error: Some(error) })) = notes.recv() else { panic!("the third thread has ended") };
        assert!(error.to_string().contains("panicked"));
    }
}
