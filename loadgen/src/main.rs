//! `ringload`: puts load on a WebSocket server and says what it did.
//!
//! So far it has two scenarios, `echo` in a closed loop and `idle`, on one thread. It reuses the engine's driver and
//! its protocol core in the client role.

mod args;
mod client;
mod echo;
mod idle;
mod report;
mod server_process;
mod target;

use args::{Cli, Scenario};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let verdict = match Cli::parse().scenario {
        Scenario::Echo(args) => echo::run(&args).and_then(|outcome| report::print(&args, &outcome)),
        Scenario::Idle(args) => idle::run(&args),
    };
    match verdict {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("ringload: {error}");
            ExitCode::FAILURE
        }
    }
}
