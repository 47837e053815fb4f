//! The scenarios, each as a sequence of what the threads are told, and the report that comes of it.

use crate::args::{
    ChurnArgs, EchoArgs, FanoutArgs, FindRateArgs, IdleArgs, LengthArgs, LoadKind, OutputArgs, PaceArgs, RampArgs,
    SlowReaderArgs, SteppedArgs,
};
use crate::fleet::{Fleet, RunSpec};
use crate::measure::{Run, empty_histogram};
use crate::plan::{Ask, Control, Length, Load, Pace, Plan, RunKind};
use crate::promise::Promises;
use crate::report::{self, model};
use crate::schedule::{Arrivals, Steps};
use crate::search::Search;
use crate::setup::{self, MessageKindAndSize, invalid};
use crate::target::Target;
use crate::usage::{kernel_slab_bytes, resident_bytes};
use crate::worker::Stalls;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a scenario came to.
pub(crate) struct Outcome {
    pub(crate) report: model::Report,
    /// As they were measured, with all their histograms.
    pub(crate) runs: Vec<Run>,
}

/// Time for subscriptions to take effect that are asked for by a message.
const SUBSCRIBING: Duration = Duration::from_millis(300);
const WARM_UP: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_secs(10);
const ONE_BY_ONE: Pace = Pace::Closed { in_flight: 1 };

/// Sends and gets back.
pub(crate) fn echo(args: &EchoArgs, control: Stop) -> io::Result<Outcome> {
    let message = MessageKindAndSize::new(&args.message, 20);
    let load = Load::Echo { stalled_from: u32::MAX };
    let plan = setup::plan(&args.url, &args.connect, &message, load, args.connections)?;
    let mut conductor = Conductor::start("echo", &args.url, plan, &args.output, control)?;
    conductor.connect()?;
    conductor.repeat(&args.pace)?;
    conductor.end(Verdict::default())
}

/// Publishes and delivers.
pub(crate) fn fanout(args: &FanoutArgs, control: Stop) -> io::Result<Outcome> {
    let message = MessageKindAndSize::new(&args.message, 100);
    let (load, connections) = setup::fanout(&args.publish, &message, args.connections, 0)?;
    let mut plan = setup::plan(&args.url, &args.connect, &message, load, connections)?;
    setup::separate_publishers(&mut plan, &args.publish, &args.connect)?;
    let mut conductor = Conductor::start("fanout", &args.url, plan, &args.output, control)?;
    conductor.connect()?;
    conductor.repeat(&args.pace)?;
    conductor.end(Verdict::default())
}

/// Holds and asks.
pub(crate) fn idle(args: &IdleArgs, control: Stop) -> io::Result<Outcome> {
    let message = MessageKindAndSize::new(&args.message, if args.broadcast { 100 } else { 20 });
    if args.broadcast {
        setup::check_published_size(&message)?;
    }
    let load = Load::Hold { ask: args.ask };
    let mut plan = setup::plan(&args.url, &args.connect, &message, load, args.connections)?;
    plan.all_must_connect = false;
    let own = || resident_bytes(std::process::id());
    let (own_before, slab_before) = (own()?, kernel_slab_bytes());
    let mut conductor = Conductor::start("idle", &args.url, plan, &args.output, control)?;
    conductor.connect()?;
    let held_for = conductor.fleet.hold(args.duration)?;
    let connections = conductor.fleet.open_count();
    if connections == 0 && !conductor.fleet.is_stopped() {
        return Err(conductor.no_connection());
    }
    let each = |bytes: f64| bytes / connections.max(1) as f64;
    let server =
        |conductor: &Conductor<'_>| conductor.fleet.resident().map(|(now, before)| each(now as f64 - before as f64));
    let mut held = model::Held {
        connections,
        held_s: held_for.as_secs_f64(),
        answered: 0,
        server_bytes_per_connection_held: server(&conductor),
        server_bytes_per_connection_answered: None,
        kernel_bytes_per_connection: kernel_slab_bytes()
            .zip(slab_before)
            .map(|(now, then)| each(now as f64 - then as f64)),
        client_bytes_per_connection: each(own()? as f64 - own_before as f64),
        broadcast: None,
    };
    if args.ask != Ask::None && connections > 0 && !conductor.fleet.is_stopped() {
        conductor.run("asked", Duration::ZERO, Length::Count(connections), ONE_BY_ONE, RunKind::Plain)?;
        held.answered = conductor.runs.last().map_or(0, |run| run.total.received);
        held.server_bytes_per_connection_answered = server(&conductor);
    }
    if args.broadcast && connections > 1 && !conductor.fleet.is_stopped() {
        conductor.run("broadcast", Duration::ZERO, Length::Count(1), ONE_BY_ONE, RunKind::Broadcast)?;
        held.broadcast = conductor.runs.last().map(|run| model::Broadcast {
            due: connections - 1,
            reached: run.total.received,
            first_ns: run.total.latency.min(),
            last_ns: run.total.latency.max(),
        });
    }
    let short = connections < u64::from(args.connections);
    conductor.end(Verdict { held: Some(held), short, ..Verdict::default() })
}

/// Comes and goes.
pub(crate) fn churn(args: &ChurnArgs, control: Stop) -> io::Result<Outcome> {
    let message = MessageKindAndSize {
        kind: ringwave::MessageKind::Binary,
        size: 1,
        answer_timeout: args.connect.connect_timeout,
    };
    let load = Load::Churn { at_once: args.connections, leaves: args.close.leaves() };
    let plan = setup::plan(&args.url, &args.connect, &message, load, args.connections)?;
    let mut conductor = Conductor::start("churn", &args.url, plan, &args.output, control)?;
    conductor.note("close", args.close.name());
    conductor.connect()?;
    let pace = match args.rate {
        Some(rate) => open(args.arrivals.unwrap_or_default(), Steps::constant(rate)),
        None => Pace::Closed { in_flight: 1 },
    };
    conductor.repeat_with(&args.length, &pace, DURATION)?;
    let came: u64 = conductor.runs.iter().map(|run| run.total.received).sum();
    if came == 0 && !conductor.fleet.is_stopped() {
        return Err(conductor.no_connection());
    }
    conductor.end(Verdict::default())
}

/// Lets some stall.
pub(crate) fn slow_reader(args: &SlowReaderArgs, control: Stop) -> io::Result<Outcome> {
    let message = MessageKindAndSize::new(&args.message, 1024);
    let plan = match args.load {
        LoadKind::Echo => {
            setup::refuse_publishing(&args.publish)?;
            let load = Load::Echo { stalled_from: args.connections };
            setup::plan(&args.url, &args.connect, &message, load, args.connections + args.stalled)?
        }
        LoadKind::Fanout => {
            let (load, connections) = setup::fanout(&args.publish, &message, args.connections, args.stalled)?;
            let mut plan = setup::plan(&args.url, &args.connect, &message, load, connections)?;
            setup::separate_publishers(&mut plan, &args.publish, &args.connect)?;
            plan
        }
    };
    let mut conductor = Conductor::start("slow-reader", &args.url, plan, &args.output, control)?;
    conductor.note("stalled", args.stalled);
    conductor.connect()?;
    let pace = Pace::Open { arrivals: args.arrivals, steps: Steps::constant(args.rate) };
    let length = Length::Time(args.duration);
    conductor.run("all read", args.warm_up, length, pace.clone(), RunKind::Plain)?;
    let mut stalls = Stalls::default();
    if !conductor.fleet.is_stopped() {
        stalls = conductor.run("some stalled", args.warm_up, length, pace, RunKind::Stalled)?;
    }
    let p99 = |run: &Run| run.total.latency.value_at_quantile(0.99) as f64;
    let p99_ratio = match &conductor.runs[..] {
        [without, with] if !without.total.latency.is_empty() => Some(p99(with) / p99(without).max(1.0)),
        _ => None,
    };
    let stalled = model::Stalled {
        readers: u64::from(args.stalled),
        ended_by_server: stalls.ended_by_server,
        expected: stalls.expected,
        received: stalls.received,
        missed: stalls.expected.saturating_sub(stalls.received),
        p99_ratio,
    };
    conductor.end(Verdict { stalled: Some(stalled), asserted: Asserted::Last, ..Verdict::default() })
}

/// Raises the rate step by step.
pub(crate) fn ramp(args: &RampArgs, control: Stop) -> io::Result<Outcome> {
    if args.to <= args.from {
        return Err(invalid("--to is higher than --from"));
    }
    let mut conductor = stepped("ramp", &args.url, &args.stepped, control)?;
    let step = (args.to - args.from) / f64::from(args.step_count - 1);
    let mut reason = "the last step is done".to_owned();
    let (mut kept, mut broken) = (None, None);
    for index in 0..args.step_count {
        let rate = args.from + step * f64::from(index);
        conductor.step(&args.stepped, rate, args.step_duration)?;
        let run = conductor.last_run();
        if run.received == 0 {
            broken = Some(rate);
            reason = "no answer came".to_owned();
            break;
        }
        let is_over = args.until.as_ref().is_some_and(|until| until.hold_on(run));
        if is_over {
            broken = Some(rate);
            reason = format!("{} came true", args.until.as_ref().map(ToString::to_string).unwrap_or_default());
            break;
        }
        if conductor.fleet.is_stopped() {
            reason = "it was interrupted".to_owned();
            break;
        }
        kept = Some(rate);
    }
    let promise = args.until.as_ref().map(ToString::to_string).unwrap_or_default();
    let found = model::Found { promise, rate_per_s: kept, broken_at_per_s: broken, reason };
    conductor.end(Verdict { found: Some(found), ..Verdict::default() })
}

/// Searches for the highest rate that keeps a promise.
pub(crate) fn find_rate(args: &FindRateArgs, control: Stop) -> io::Result<Outcome> {
    let (promise, url) = promise_and_url(&args.promise_and_url)?;
    if args.to < args.from {
        return Err(invalid("--to is not below --from"));
    }
    let mut conductor = stepped("find-rate", &url, &args.stepped, control)?;
    let mut search = Search::new(args.from, args.to, args.precision / 100.0);
    let mut best = None;
    while let Some(rate) = search.next_rate() {
        conductor.step(&args.stepped, rate, args.trial)?;
        let run = conductor.last_run();
        if conductor.fleet.is_stopped() {
            search.end("it was interrupted".to_owned());
        } else if promise.hold_on(run) {
            best = Some(conductor.runs.len() - 1);
            search.kept(rate);
        } else {
            // What the client's own lateness explains is not held against the server.
            let late = run.client.lag_p99_ns as f64 > LATE * run.latency.p99_ns as f64;
            match run.client.limit.as_ref().filter(|_| late) {
                Some(limit) => search.missed(rate, &format!("the client was the limit at {rate:.0}/s: {limit}")),
                None => search.broke(rate, run.received_per_s < LAGGED * rate),
            }
        }
    }
    let found = model::Found {
        promise: promise.to_string(),
        rate_per_s: search.highest_kept(),
        broken_at_per_s: search.lowest_broken(),
        reason: search.reason().to_owned(),
    };
    conductor.end(Verdict { found: Some(found), asserted: Asserted::One(best), searched: true, ..Verdict::default() })
}

/// A client that is late by less than this part of the latency is not what broke the promise.
const LATE: f64 = 0.2;

/// A server that answers less than this part of what it is asked does not keep up: that is no accident.
const LAGGED: f64 = 0.95;

fn promise_and_url(both: &[String]) -> io::Result<(Promises, Target)> {
    let [first, second] = both else { return Err(invalid("find-rate wants a promise and a URL")) };
    let (promise, url) = if first.contains("://") { (second, first) } else { (first, second) };
    let named = |text: &str| {
        let text = text.to_owned();
        move |error: String| invalid(&format!("{text:?}: {error}"))
    };
    Ok((promise.parse().map_err(named(promise))?, url.parse().map_err(named(url))?))
}

fn stepped<'a>(
    scenario: &'static str,
    url: &Target,
    args: &'a SteppedArgs,
    control: Stop,
) -> io::Result<Conductor<'a>> {
    let plan = match args.load {
        LoadKind::Echo => {
            setup::refuse_publishing(&args.publish)?;
            let message = MessageKindAndSize::new(&args.message, 20);
            let load = Load::Echo { stalled_from: u32::MAX };
            setup::plan(url, &args.connect, &message, load, args.connections)?
        }
        LoadKind::Fanout => {
            let message = MessageKindAndSize::new(&args.message, 100);
            let (load, connections) = setup::fanout(&args.publish, &message, args.connections, 0)?;
            let mut plan = setup::plan(url, &args.connect, &message, load, connections)?;
            setup::separate_publishers(&mut plan, &args.publish, &args.connect)?;
            plan
        }
    };
    let mut conductor = Conductor::start(scenario, url, plan, &args.output, control)?;
    conductor.connect()?;
    Ok(conductor)
}

/// Set by a signal: end with what there is.
pub(crate) type Stop = Arc<std::sync::atomic::AtomicBool>;

/// What a scenario adds to its runs.
#[derive(Default)]
struct Verdict {
    held: Option<model::Held>,
    stalled: Option<model::Stalled>,
    found: Option<model::Found>,
    asserted: Asserted,
    /// Whether there were fewer connections than asked for.
    short: bool,
    /// Whether messages may be lost: a search goes beyond what the server can do.
    searched: bool,
}

/// Which runs the assertions are about.
#[derive(Clone, Copy, Default)]
enum Asserted {
    #[default]
    All,
    Last,
    One(Option<usize>),
}

/// Conducts the threads and keeps what they measured.
struct Conductor<'a> {
    fleet: Fleet,
    output: &'a OutputArgs,
    report: model::Report,
    setup_connections: u64,
    runs: Vec<Run>,
}

impl<'a> Conductor<'a> {
    fn start(scenario: &str, url: &Target, plan: Plan, output: &'a OutputArgs, stop: Stop) -> io::Result<Self> {
        output.files.check()?;
        let publishers = if let Load::Fanout(fanout) = &plan.load { fanout.publishers } else { 0 };
        let control = Arc::new(Control::new(plan.threads, publishers as usize, stop));
        let report = empty_report(scenario, url, &plan);
        let setup_connections = u64::from(plan.connections);
        let fleet = Fleet::start(plan, output, control)?;
        Ok(Self { fleet, output, report, setup_connections, runs: Vec::new() })
    }

    fn note(&mut self, name: &str, value: impl ToString) {
        self.report.setup.more.insert(name.to_owned(), value.to_string());
    }

    fn connect(&mut self) -> io::Result<()> {
        let connected = self.fleet.connect()?;
        let seconds = connected.elapsed.as_secs_f64();
        self.report.connect = model::Connect {
            asked: self.setup_connections,
            established: connected.established,
            elapsed_s: seconds,
            per_s: connected.established as f64 / seconds.max(1e-9),
            latency: report::latency_of(&connected.latency),
        };
        if self.report.setup.more.contains_key("on_open") {
            self.fleet.hold(SUBSCRIBING)?;
        }
        Ok(())
    }

    fn no_connection(&self) -> io::Error {
        let trouble = self.fleet.troubles.first().map_or("no connection came about", String::as_str);
        io::Error::other(format!("{}: {trouble}", self.report.url))
    }

    /// All runs of a scenario that measures the same thing again and again.
    fn repeat(&mut self, args: &PaceArgs) -> io::Result<()> {
        let (pace, duration) = match (&args.rate, &args.steps) {
            (Some(rate), _) => (open(args.arrivals.unwrap_or_default(), Steps::constant(*rate)), DURATION),
            (None, Some(steps)) => (open(args.arrivals.unwrap_or_default(), steps.clone()), steps.duration()),
            (None, None) if args.arrivals.is_some() => {
                return Err(invalid(
                    "--arrivals says how messages of a schedule follow each other: give --rate or --steps",
                ));
            }
            (None, None) => (Pace::Closed { in_flight: args.in_flight.unwrap_or(1) }, DURATION),
        };
        self.repeat_with(&args.length, &pace, duration)
    }

    fn repeat_with(&mut self, args: &LengthArgs, pace: &Pace, duration: Duration) -> io::Result<()> {
        let length = args.count.map_or(Length::Time(args.duration.unwrap_or(duration)), Length::Count);
        let warm_up = args.warm_up.unwrap_or(if args.count.is_some() { Duration::ZERO } else { WARM_UP });
        for index in 0..args.repeat {
            let label = if args.repeat == 1 { "measured".to_owned() } else { format!("measured {}", index + 1) };
            self.run(&label, warm_up, length, pace.clone(), RunKind::Plain)?;
            if self.fleet.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// One step of a ramp, one trial of a search.
    fn step(&mut self, args: &SteppedArgs, rate: f64, duration: Duration) -> io::Result<()> {
        let pace = open(args.arrivals, Steps::constant(rate));
        self.run(&format!("{rate:.0}/s"), args.warm_up, Length::Time(duration), pace, RunKind::Plain).map(drop)
    }

    fn run(&mut self, label: &str, warm_up: Duration, length: Length, pace: Pace, kind: RunKind) -> io::Result<Stalls> {
        let setup = &mut self.report.setup;
        setup.warm_up_s = warm_up.as_secs_f64();
        match &pace {
            Pace::Closed { in_flight } => {
                setup.r#loop = "closed".to_owned();
                setup.in_flight = Some(u64::from(*in_flight));
            }
            Pace::Open { arrivals, .. } => {
                setup.r#loop = "open".to_owned();
                setup.arrivals = Some(arrivals.name().to_owned());
            }
        }
        let (run, stalls) = self.fleet.run(RunSpec { label: label.to_owned(), warm_up, length, pace, kind })?;
        self.report.runs.push(report::run_of(&run, self.setup_connections));
        self.runs.push(run);
        Ok(stalls)
    }

    /// The report's version of the last run; there is one.
    fn last_run(&self) -> &model::Run {
        self.report.runs.last().expect("a run was made before")
    }

    fn end(mut self, verdict: Verdict) -> io::Result<Outcome> {
        let interrupted = self.fleet.is_stopped();
        let mut report = self.report;
        report.troubles = std::mem::take(&mut self.fleet.troubles);
        if report.scenario == "fanout" && self.runs.iter().all(|run| run.total.received == 0) && !interrupted {
            report.troubles.push(DEAF.to_owned());
        }
        self.fleet.finish();
        let asserted: Vec<&model::Run> = match verdict.asserted {
            Asserted::All => report.runs.iter().collect(),
            Asserted::Last => report.runs.last().into_iter().collect(),
            Asserted::One(index) => index.and_then(|index| report.runs.get(index)).into_iter().collect(),
        };
        if let Some(promises) = &self.output.assert {
            report.assertions = promises.check_all(&asserted);
        }
        let errors = |run: &Run| {
            let lost = if verdict.searched { run.total.errors.lost } else { 0 };
            run.total.errors.total() - lost
        };
        let sound = !verdict.short && self.runs.iter().all(|run| errors(run) == 0);
        let kept = !verdict.searched || verdict.found.as_ref().is_some_and(|found| found.rate_per_s.is_some());
        report.ok = sound && kept && report.assertions.iter().all(|assertion| assertion.holds);
        report.interrupted = interrupted;
        (report.held, report.stalled, report.found) = (verdict.held, verdict.stalled, verdict.found);
        Ok(Outcome { report, runs: self.runs })
    }
}

const fn open(arrivals: Arrivals, steps: Steps) -> Pace {
    Pace::Open { arrivals, steps }
}

/// What a fan-out without deliveries calls for.
const DEAF: &str = "no subscriber got anything: does this URL deliver what one connection sends to the others? \
                    A server that wants to be asked gets --on-open TEXT; --publish-url says where to publish";

/// A report before anything has happened.
fn empty_report(scenario: &str, url: &Target, plan: &Plan) -> model::Report {
    let mut more = BTreeMap::new();
    if let Load::Fanout(fanout) = &plan.load {
        more.insert("subscribers".to_owned(), fanout.subscribers.to_string());
        more.insert("publishers".to_owned(), fanout.publishers.to_string());
        more.insert("burst".to_owned(), fanout.burst.to_string());
        more.extend(fanout.on_open.clone().map(|text| ("on_open".to_owned(), text)));
    }
    if let Load::Hold { ask } = plan.load {
        more.insert("ask".to_owned(), format!("{ask:?}").to_lowercase());
    }
    let nothing: Histogram<u64> = empty_histogram();
    model::Report {
        schema: model::SCHEMA.to_owned(),
        ringload: env!("CARGO_PKG_VERSION").to_owned(),
        started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        scenario: scenario.to_owned(),
        url: url.to_string(),
        command: std::env::args().collect(),
        machine: setup::machine(),
        setup: model::Setup {
            connections: u64::from(plan.connections.max(plan.at_once())),
            threads: plan.threads,
            driver: format!("{:?}", plan.driver).to_lowercase(),
            r#loop: "closed".to_owned(),
            arrivals: None,
            in_flight: None,
            size_bytes: plan.size as u64,
            kind: format!("{:?}", plan.kind).to_lowercase(),
            warm_up_s: 0.0,
            more,
        },
        connect: model::Connect {
            asked: 0,
            established: 0,
            elapsed_s: 0.0,
            per_s: 0.0,
            latency: report::latency_of(&nothing),
        },
        runs: Vec::new(),
        held: None,
        stalled: None,
        found: None,
        assertions: Vec::new(),
        troubles: Vec::new(),
        interrupted: false,
        ok: false,
    }
}
