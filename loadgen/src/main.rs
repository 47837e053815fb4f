//! `ringload`: puts load on a WebSocket server and says what it saw, and whether it was itself the limit.
//!
//! From the flags to the figures: `args` and `setup` make a plan, `conduct` says what happens in which order, `fleet`
//! does it with all threads at once. In each thread `worker` runs a scenario (`echo`, `fanout`, `hold`, `churn`) on its
//! `connections`, which are the engine's driver and its protocol core in the client's role. `measure` is what they
//! count, `guard` says whether to believe it, `report` tells it.

mod advice;
mod args;
mod churn;
mod compare;
mod conduct;
mod connections;
mod echo;
mod fanout;
mod fleet;
mod flight;
mod frames;
mod guard;
mod hold;
mod live;
mod measure;
mod meter;
mod pacing;
mod plan;
mod promise;
mod report;
mod route;
mod schedule;
mod search;
mod setup;
mod stamp;
mod syscalls;
mod target;
mod units;
mod usage;
mod worker;

use args::{Cli, OutputArgs, Scenario};
use clap::Parser;
use conduct::{Outcome, Stop};
use report::model::Report;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::process::ExitCode;

/// It could not run.
const FAILED: u8 = 1;
/// Wrong flags: what clap answers too.
const USAGE: u8 = 2;
/// Messages or connections were lost or wrong.
const WRONG: u8 = 3;
/// An assertion did not hold, or no rate kept the promise.
const BROKEN: u8 = 4;

fn main() -> ExitCode {
    match run(&Cli::parse().scenario) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ringload: {error}");
            // From us and not from the system: flags that do not go together.
            let usage = error.kind() == io::ErrorKind::InvalidInput && error.raw_os_error().is_none();
            ExitCode::from(if usage { USAGE } else { FAILED })
        }
    }
}

fn run(scenario: &Scenario) -> io::Result<u8> {
    if let Scenario::Compare(args) = scenario {
        return compare::run(&args.a, &args.b).map(|()| 0);
    }
    let stop = stop_on_signals()?;
    let (outcome, output) = match scenario {
        Scenario::Echo(args) => (conduct::echo(args, stop)?, &args.output),
        Scenario::Fanout(args) => (conduct::fanout(args, stop)?, &args.output),
        Scenario::Idle(args) => (conduct::idle(args, stop)?, &args.output),
        Scenario::Churn(args) => (conduct::churn(args, stop)?, &args.output),
        Scenario::SlowReader(args) => (conduct::slow_reader(args, stop)?, &args.output),
        Scenario::Ramp(args) => (conduct::ramp(args, stop)?, &args.stepped.output),
        Scenario::FindRate(args) => (conduct::find_rate(args, stop)?, &args.stepped.output),
        Scenario::Compare(_) => unreachable!("it was answered above"),
    };
    tell(&outcome, output)?;
    Ok(verdict(&outcome))
}

/// The first SIGINT or SIGTERM ends the run with what was measured, the second ends the program.
fn stop_on_signals() -> io::Result<Stop> {
    let stop = Stop::default();
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second signal finds the flag set.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn tell(outcome: &Outcome, output: &OutputArgs) -> io::Result<()> {
    if output.quiet || output.files.takes_stdout() {
        tell_failures(&outcome.report);
    } else {
        report::table::print(&outcome.report)?;
    }
    for trouble in &outcome.report.troubles {
        eprintln!("ringload: {trouble}");
    }
    output.files.write(&outcome.report, &outcome.runs)
}

/// What decides the exit code is said in words too, where no table says it.
fn tell_failures(report: &Report) {
    for run in &report.runs {
        for (name, count) in run.errors.iter().filter(|(name, count)| **count > 0 && *name != "total") {
            eprintln!("ringload: {}: {count} {name}", run.label);
        }
    }
    for assertion in report.assertions.iter().filter(|assertion| !assertion.holds) {
        eprintln!("ringload: {} does not hold", assertion.text);
    }
}

fn verdict(outcome: &Outcome) -> u8 {
    let report = &outcome.report;
    match report.ok {
        true => 0,
        false if report.assertions.iter().any(|assertion| !assertion.holds) => BROKEN,
        false
            if report.scenario == "find-rate"
                && report.found.as_ref().is_some_and(|found| found.rate_per_s.is_none()) =>
        {
            BROKEN
        }
        false => WRONG,
    }
}
