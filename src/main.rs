//! The stand-alone server: flags, signals, exit codes. What it serves stands in `gateway`.

mod gateway;

use clap::Parser;
use gateway::App;
use gateway::args::{Cli, ServeArgs};
use ringwave::Server;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match serve(&Cli::parse().into_serve()) {
        Ok(()) => ExitCode::SUCCESS,
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

fn serve(args: &ServeArgs) -> io::Result<()> {
    let config = args.config()?;
    // Before the threads are started: a signal that comes early is not lost.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let server = Server::start(config.clone(), |_shard| App)?;
    gateway::console::announce(&server, &config);

    let handle = server.handle();
    let deadline = args.shutdown_timeout;
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            handle.shutdown(deadline);
            let time = humantime::format_duration(deadline);
            say(&format!("shutting down, at most {time}; once more to end now"));
        }
        if signals.next().is_some() {
            std::process::exit(130);
        }
    });
    server.join()
}
