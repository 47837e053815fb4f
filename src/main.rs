//! The stand-alone server: flags, signals, exit codes. What it serves, and how it judges a host, stands in `gateway`.
//!
//! | exit code | when |
//! |---|---|
//! | 0 | it was told to end, and every session got its goodbye; `doctor`: nothing must be changed |
//! | 1 | it could not start, or a shard failed; `doctor`: something is missing |
//! | 2 | a flag is wrong |
//! | 3 | it was told to end, and its deadline cut sessions off |
//! | 101 | a shard panicked: a mistake of the engine's |
//! | 130 | it was told to end once more |

mod gateway;

use clap::Parser;
use gateway::args::{Action, Cli, ServeArgs};
use gateway::log::{Event, Log};
use gateway::{App, Common};
use ringwave::{Drain, Handle, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

/// The deadline cut sessions off.
const CUT_OFF: u8 = 3;
/// A second signal.
const AT_ONCE: i32 = 130;

fn main() -> ExitCode {
    let done = match Cli::parse().into_action() {
        Action::Serve(args) => serve(&args),
        Action::Doctor(args) => gateway::doctor::answer(&args.question(), args.output()),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // A server does not depend on there being anybody who reads this.
            let _ = writeln!(io::stderr(), "ringwave: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ServeArgs) -> io::Result<ExitCode> {
    let (config, drain) = match args.config().and_then(|config| Ok((config, args.drain()?))) {
        Ok(sound) => sound,
        Err(error) => error.exit(),
    };
    // Before the threads are started: a signal that comes early is not lost.
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let running = Log::start(args.logged())?;
    let log = running.log();
    log.take_panics();
    let common = Common { log: log.clone(), wildcards: args.wildcards(), started: SystemTime::now() };
    let server = Server::start(config.clone(), move |_shard| App::new(common.clone()))?;
    gateway::console::announce(&server, &config);
    if let Some(refusal) = server.uring_refusal() {
        log.tell(Event::UringRefused { driver: server.driver(), refusal: refusal.to_owned() });
    }

    let handle = server.handle();
    let (of_thread, log_of_thread) = (handle.clone(), log.clone());
    std::thread::spawn(move || end_on_signals(signals, &of_thread, &drain, &log_of_thread));
    server.join()?;
    // What the shards have counted outlives them.
    let sessions_cut = handle.stats().ended_shutdown;
    log.tell(Event::Drained { sessions_cut });
    Ok(if sessions_cut == 0 { ExitCode::SUCCESS } else { ExitCode::from(CUT_OFF) })
}

fn end_on_signals(mut signals: Signals, handle: &Handle, drain: &Drain, log: &Log) {
    let mut signals = signals.forever();
    if signals.next().is_some() {
        let sessions = handle.stats().sessions;
        log.tell(Event::Draining { sessions, window: drain.window, deadline: drain.deadline, code: drain.code });
        handle.drain(drain);
    }
    if signals.next().is_some() {
        std::process::exit(AT_ONCE);
    }
}
