//! `ringload`: puts load on a WebSocket server and says what it did.
//!
//! So far it has one scenario, `echo`, in a closed loop on one thread. It reuses the engine's driver and its
//! protocol core in the client role.

mod args;
mod echo;
mod report;
mod server_process;
mod target;

use args::{Cli, Scenario};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Scenario::Echo(args) = Cli::parse().scenario;
    match echo::run(&args).and_then(|outcome| report::print(&args, &outcome)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("ringload: {error}");
            ExitCode::FAILURE
        }
    }
}
