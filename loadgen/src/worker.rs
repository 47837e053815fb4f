//! One thread: its connections, the scenario on them, and the run under way.
//!
//! ```text
//!  Open ─▶ connections come about ─▶ Run ─▶ warm-up │ measured │ answers that are still due ─▶ Run … ─▶ Finish
//! ```
//! The main thread sends [`Command`]s and gets [`Note`]s. Counts travel once a second, so nothing is shared in between.

use crate::advice;
use crate::connections::{ConnectFailure, Connections, Gone, Leave, Peer, Talk};
use crate::measure::{Interval, Window};
use crate::meter::Meter;
use crate::plan::{Control, Length, Plan, RunPlan};
use crate::schedule::{Arrivals, Schedule, Steps};
use crate::usage::ThreadTimes;
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ringwave::Message;
use ringwave::driver::Driver;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Longest wait of a turn: how late a command or Ctrl-C may be seen.
const TURN_MAX: Duration = Duration::from_millis(10);
/// Connections that one thread opens at one time.
const OPENING_MAX: u32 = 128;
/// Failures in a row after which a thread opens no more: the next would fail too.
const FAILURES_IN_A_ROW_MAX: u32 = 64;
/// Time for closing handshakes at the end, and how much more of it for each connection: whoever is still there then is reset.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_EACH: Duration = Duration::from_micros(50);
const SECOND: u64 = 1_000_000_000;

/// What the main thread asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open the connections of the plan.
    Open,
    /// Load and measure.
    Run(RunPlan),
    /// Close all and end.
    Finish,
}

/// What a thread says.
#[derive(Debug)]
pub(crate) enum Note {
    /// All connections stand, or have failed.
    Opened { established: u64, latency: Box<Histogram<u64>> },
    /// Why the first connection of this thread failed or ended, with what to do about it.
    Trouble { text: String },
    /// A second of the measured time is over.
    Interval { index: usize, interval: Box<Interval> },
    /// The run is over.
    Done(Box<Done>),
    /// The thread is over.
    Ended { error: Option<io::Error> },
}

/// What the end of a run brings beside its intervals.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) elapsed: Duration,
    /// What came after the measured time: latencies and errors.
    pub(crate) tail: Window,
    pub(crate) times: ThreadTimes,
    pub(crate) stalls: Stalls,
}

/// What stalled readers met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stalls {
    pub(crate) expected: u64,
    pub(crate) received: u64,
    pub(crate) ended_by_server: u64,
}

/// What connections are for, in one thread.
pub(crate) trait Scenario<D>: Talk<D> {
    /// A run begins: warm-up first.
    fn begin<V: Driver>(&mut self, run: &RunPlan, connections: &mut Connections<V, D>);
    /// The turn's completions have been told: send what is due.
    fn on_turn<V: Driver>(&mut self, connections: &mut Connections<V, D>);
    /// When something is due next, nanoseconds since the program's start.
    fn next_due(&self) -> Option<u64>;
    /// Send nothing more.
    fn stop<V: Driver>(&mut self, connections: &mut Connections<V, D>);
    /// Whether a run by count has sent its share.
    fn has_sent_all(&self) -> bool;
    /// Whether nothing is awaited any more.
    fn is_quiet<V: Driver>(&self, connections: &Connections<V, D>) -> bool;
    /// What has not come will not: count it.
    fn give_up<V: Driver>(&mut self, connections: &mut Connections<V, D>);
    fn meter(&mut self) -> &mut Meter;
    /// The warm-up is over: a run by count counts from here.
    fn grant(&mut self) {}
    /// Whether going on will not measure anything.
    fn is_futile(&self) -> bool {
        false
    }
    fn stalls(&self) -> Stalls {
        Stalls::default()
    }
}

/// What a thread is started with.
pub(crate) struct Post {
    pub(crate) plan: Arc<Plan>,
    pub(crate) control: Arc<Control>,
    /// This thread's index.
    pub(crate) index: usize,
    pub(crate) commands: Receiver<Command>,
    pub(crate) notes: Sender<(usize, Note)>,
}

/// The run under way.
struct Running {
    plan: RunPlan,
    stage: Stage,
    /// The measured time.
    measured_from: u64,
    measured_to: u64,
    times: ThreadTimes,
    /// When the last message had left: from then on answers are awaited.
    awaiting_since: Option<u64>,
    intervals: usize,
    interval_from: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    WarmingUp,
    Measuring,
    Draining,
}

struct Worker<V, D, S> {
    post: Post,
    connections: Connections<V, D>,
    reporter: Reporter<S>,
    opener: Option<Opener>,
    running: Option<Running>,
    /// Whether connections of the plan came about.
    opened_some: bool,
    /// Set by `Finish`: when it is over at last.
    farewell_until: Option<u64>,
}

/// Passes on to the scenario what happens, and to the main thread the first trouble.
struct Reporter<S> {
    scenario: S,
    index: usize,
    notes: Sender<(usize, Note)>,
    failed: u32,
    failures_in_a_row: u32,
    told_failure: bool,
    told_end: bool,
}

/// Which connections are still to be opened.
struct Opener {
    next: u32,
    schedule: Option<Schedule>,
}

/// Runs until it is told to finish.
pub(crate) fn run<V, D, S>(post: Post, driver: V, scenario: S) -> io::Result<()>
where
    V: Driver,
    D: Default,
    S: Scenario<D>,
{
    let _ = post.control.wakers[post.index].set(driver.waker());
    let thread = (post.index, post.plan.threads);
    let random = SmallRng::from_os_rng();
    let connections = Connections::new(driver, post.plan.opening.clone(), thread, post.control.origin, random)?;
    let reporter = Reporter {
        scenario,
        index: post.index,
        notes: post.notes.clone(),
        failed: 0,
        failures_in_a_row: 0,
        told_failure: false,
        told_end: false,
    };
    let worker =
        Worker { post, connections, reporter, opener: None, running: None, opened_some: false, farewell_until: None };
    worker.run()
}

impl<V: Driver, D: Default, S: Scenario<D>> Worker<V, D, S> {
    fn run(mut self) -> io::Result<()> {
        loop {
            while let Ok(command) = self.post.commands.try_recv() {
                self.obey(command);
            }
            let timeout = self.timeout();
            self.connections.turn(timeout, &mut self.reporter)?;
            self.open_more();
            self.reporter.scenario.on_turn(&mut self.connections);
            self.step_run();
            self.connections.flush(&mut self.reporter);
            self.show();
            let now = self.connections.now();
            if self.farewell_until.is_some_and(|until| self.connections.open_count() == 0 || now >= until) {
                return Ok(());
            }
        }
    }

    fn note(&self, note: Note) {
        // The main thread is gone only when the program ends.
        let _ = self.post.notes.send((self.post.index, note));
    }

    fn obey(&mut self, command: Command) {
        let now = self.connections.now();
        match command {
            Command::Open => {
                let schedule = self.post.plan.connect_rate.map(|rate| {
                    let steps = Steps::constant(rate);
                    let share = self.post.plan.share_of(self.post.index);
                    Schedule::new(Arrivals::Constant, &steps, now, share, SmallRng::seed_from_u64(0))
                });
                self.opener = Some(Opener { next: self.post.index as u32, schedule });
            }
            Command::Run(plan) => {
                let measured_from = plan.start + plan.warm_up.as_nanos() as u64;
                let measured_to = match plan.length {
                    Length::Time(length) => measured_from.saturating_add(length.as_nanos() as u64),
                    Length::Count(_) => u64::MAX,
                };
                self.reporter.scenario.meter().measure(measured_from, measured_to);
                self.running = Some(Running {
                    plan,
                    stage: Stage::Waiting,
                    measured_from,
                    measured_to,
                    times: ThreadTimes::default(),
                    awaiting_since: None,
                    intervals: 0,
                    interval_from: measured_from,
                });
            }
            Command::Finish => {
                self.running = None;
                self.opener = None;
                let farewell = FAREWELL + FAREWELL_EACH * self.connections.open_count();
                self.farewell_until = Some(now + farewell.as_nanos() as u64);
                for index in 0..self.connections.indices() {
                    if let Some(mut peer) = self.connections.peer_at(index) {
                        peer.leave(Leave::Clean);
                    }
                }
                self.connections.flush(&mut self.reporter);
            }
        }
    }

    fn timeout(&self) -> Duration {
        let now = self.post.control.now();
        let opening = self.opener.as_ref().and_then(|opener| opener.schedule.as_ref()).map(Schedule::next);
        let running = self.running.as_ref().map(|running| match running.stage {
            Stage::Waiting => running.plan.start,
            Stage::WarmingUp => running.measured_from,
            Stage::Measuring => running.measured_to,
            Stage::Draining => u64::MAX,
        });
        let next = [self.reporter.scenario.next_due(), opening, running].into_iter().flatten().min();
        next.map_or(TURN_MAX, |next| Duration::from_nanos(next.saturating_sub(now)).min(TURN_MAX))
    }

    fn open_more(&mut self) {
        let Some(opener) = &mut self.opener else { return };
        let now = self.connections.now();
        let hopeless = self.reporter.failures_in_a_row >= FAILURES_IN_A_ROW_MAX;
        let all = if hopeless { 0 } else { self.post.plan.connections };
        while opener.next < all && self.connections.opening_count() < OPENING_MAX {
            if opener.schedule.as_mut().is_some_and(|schedule| schedule.due(now).is_none()) {
                return;
            }
            self.connections.open(opener.next);
            opener.next += self.post.plan.threads as u32;
        }
        if opener.next >= all && self.connections.opening_count() == 0 {
            self.opener = None;
            self.opened_some = self.connections.open_count() > 0;
            let latency = Box::new(self.connections.handshake_latency().clone());
            let established = u64::from(self.connections.open_count());
            self.note(Note::Opened { established, latency });
        }
    }

    /// Moves the run on to where the clock is.
    fn step_run(&mut self) {
        let now = self.connections.now();
        let stopped = self.post.control.stop.load(Relaxed);
        let Some(running) = &mut self.running else { return };
        let scenario = &mut self.reporter.scenario;
        if running.stage == Stage::Waiting && now >= running.plan.start {
            running.stage = Stage::WarmingUp;
            scenario.begin(&running.plan, &mut self.connections);
        }
        if running.stage == Stage::WarmingUp && now >= running.measured_from {
            running.stage = Stage::Measuring;
            running.times = ThreadTimes::now();
            if !running.plan.warm_up.is_zero() {
                scenario.grant();
            }
        }
        if running.stage == Stage::Measuring {
            self.measure(now, stopped);
        } else if stopped && running.stage == Stage::WarmingUp {
            // Nothing was measured: a run of no length.
            running.stage = Stage::Measuring;
            running.measured_from = now;
            running.interval_from = now;
            running.times = ThreadTimes::now();
            scenario.meter().measure(now, now);
            self.measure(now, true);
        }
        if self.running.as_ref().is_some_and(|running| running.stage == Stage::Draining) {
            self.drain(now);
        }
    }

    fn measure(&mut self, now: u64, stopped: bool) {
        let Some(running) = &mut self.running else { return };
        let scenario = &mut self.reporter.scenario;
        let open = u64::from(self.connections.open_count());
        let by_count = matches!(running.plan.length, Length::Count(_));
        let mut all_sent = by_count && scenario.has_sent_all();
        if all_sent && !scenario.is_quiet(&self.connections) {
            // What does not come is waited for as long as at the end of a run by time.
            let since = *running.awaiting_since.get_or_insert(now);
            all_sent = now.saturating_sub(since) >= self.post.plan.answer_timeout.as_nanos() as u64;
        }
        let deserted = self.opened_some && open == 0;
        let over = stopped || all_sent || deserted || scenario.is_futile() || now >= running.measured_to;
        // A run by count lasts until its last answer.
        let end = match running.plan.length {
            Length::Time(_) => now.min(running.measured_to),
            Length::Count(_) if all_sent => scenario.meter().last_received().clamp(running.interval_from, now),
            Length::Count(_) => now,
        };
        while end - running.interval_from >= SECOND || (over && end > running.interval_from) {
            let length = SECOND.min(end - running.interval_from);
            let interval = Interval {
                start: Duration::from_nanos(running.interval_from - running.measured_from),
                length: Duration::from_nanos(length),
                window: scenario.meter().take(open),
            };
            let note = Note::Interval { index: running.intervals, interval: Box::new(interval) };
            running.intervals += 1;
            running.interval_from += length;
            let _ = self.post.notes.send((self.post.index, note));
        }
        if over {
            running.measured_to = end;
            running.awaiting_since.get_or_insert(now);
            running.stage = Stage::Draining;
            running.times = ThreadTimes::now().since(running.times);
            scenario.meter().end(end);
            scenario.stop(&mut self.connections);
        }
    }

    fn drain(&mut self, now: u64) {
        let Some(running) = &self.running else { return };
        let scenario = &mut self.reporter.scenario;
        let timeout = self.post.plan.answer_timeout.as_nanos() as u64;
        let timeout = if self.post.control.stop.load(Relaxed) { timeout.min(SECOND) } else { timeout };
        let since = running.awaiting_since.unwrap_or(running.measured_to);
        let patient = now.saturating_sub(since) < timeout;
        if patient && !scenario.is_quiet(&self.connections) {
            return;
        }
        scenario.give_up(&mut self.connections);
        let done = Done {
            elapsed: Duration::from_nanos(running.measured_to - running.measured_from),
            tail: scenario.meter().take(u64::from(self.connections.open_count())),
            times: running.times,
            stalls: scenario.stalls(),
        };
        self.running = None;
        self.note(Note::Done(Box::new(done)));
    }

    /// For the status line.
    fn show(&mut self) {
        let gauge = &self.post.control.gauges[self.post.index];
        gauge.open.store(self.connections.open_count(), Relaxed);
        gauge.failed.store(self.reporter.failed, Relaxed);
        gauge.received.store(self.reporter.scenario.meter().received_ever(), Relaxed);
    }
}

impl<S> Reporter<S> {
    fn tell(&self, text: String) {
        let _ = self.notes.send((self.index, Note::Trouble { text }));
    }
}

impl<D, S: Scenario<D>> Talk<D> for Reporter<S> {
    fn on_open(&mut self, peer: &mut Peer<'_, D>) {
        self.failures_in_a_row = 0;
        self.scenario.on_open(peer);
    }

    fn on_message(&mut self, peer: &mut Peer<'_, D>, message: Message<'_>) {
        self.scenario.on_message(peer, message);
    }

    fn on_bytes(&mut self, peer: &mut Peer<'_, D>, bytes: &[u8]) {
        self.scenario.on_bytes(peer, bytes);
    }

    fn on_pong(&mut self, peer: &mut Peer<'_, D>) {
        self.scenario.on_pong(peer);
    }

    fn on_sent(&mut self, peer: &mut Peer<'_, D>) {
        self.scenario.on_sent(peer);
    }

    fn on_failed(&mut self, number: u32, failure: &ConnectFailure) {
        self.failed += 1;
        self.failures_in_a_row += 1;
        if !self.told_failure {
            self.told_failure = true;
            self.tell(format!("connection {number}: {failure}{}", advice::on_connect(failure)));
        }
        self.scenario.on_failed(number, failure);
    }

    fn on_gone(&mut self, number: u32, data: D, gone: &Gone) {
        if !matches!(gone, Gone::Meant) && !self.told_end {
            self.told_end = true;
            self.tell(format!("connection {number} ended: {gone}{}", advice::on_end(gone)));
        }
        self.scenario.on_gone(number, data, gone);
    }
}
