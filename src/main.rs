//! The stand-alone server: flags, signals, exit codes. What it serves stands in `gateway`.
//!
//! | exit code | when |
//! |---|---|
//! | 0 | it was told to end, and every session got its goodbye |
//! | 1 | it could not start, or a shard failed |
//! | 2 | a flag is wrong |
//! | 3 | it was told to end, and its deadline cut sessions off |
//! | 101 | a shard panicked: a mistake of the engine's |
//! | 130 | it was told to end once more |

mod gateway;

use clap::Parser;
use gateway::args::{Cli, ServeArgs};
use gateway::{App, Common};
use ringwave::{Drain, Handle, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::process::ExitCode;

/// The deadline cut sessions off.
const CUT_OFF: u8 = 3;
/// A second signal.
const AT_ONCE: i32 = 130;

fn main() -> ExitCode {
    match serve(&Cli::parse().into_serve()) {
        Ok(code) => code,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Says something to whoever reads our standard error: a server does not depend on there being anybody.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "ringwave: {text}");
}

fn serve(args: &ServeArgs) -> io::Result<ExitCode> {
    let (config, drain) = match args.config().and_then(|config| Ok((config, args.drain()?))) {
        Ok(sound) => sound,
        Err(error) => error.exit(),
    };
    // Before the threads are started: a signal that comes early is not lost.
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let common = Common { wildcards: args.wildcards() };
    let server = Server::start(config.clone(), move |_shard| App::new(common.clone()))?;
    gateway::console::announce(&server, &config);

    let handle = server.handle();
    let of_thread = handle.clone();
    std::thread::spawn(move || end_on_signals(signals, &of_thread, &drain));
    server.join()?;
    // What the shards have counted outlives them.
    let sessions_cut = handle.stats().ended_shutdown;
    if sessions_cut == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{sessions_cut} sessions were cut off"));
    Ok(ExitCode::from(CUT_OFF))
}

fn end_on_signals(mut signals: Signals, handle: &Handle, drain: &Drain) {
    let mut signals = signals.forever();
    if signals.next().is_some() {
        handle.drain(drain);
        let time = humantime::format_duration(drain.deadline);
        say(&format!("shutting down, at most {time}; once more to end now"));
    }
    if signals.next().is_some() {
        std::process::exit(AT_ONCE);
    }
}
