//! `ringwave doctor`: what a host allows, and what to change for more.
//!
//! ```text
//!  host ──▶ facts ──▶ judge ──▶ report ──▶ text, json
//!                       │
//!                   knowledge ──▶ sysctl/*.conf, the table of sysctl/README.md
//! ```
//! `host` reads, everything behind it is a function of what was read. Nothing here changes anything on the host.

mod bounds;
mod cgroup;
mod findings;
mod host;
mod judge;
mod knowledge;
mod report;
mod sysctl_files;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use knowledge::Class;

use ringwave::DriverChoice;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// What the doctor is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Connections that the host is to hold; `None`: how many does it?
    pub(crate) target: Option<u64>,
    /// As the server is started: its driver,
    pub(crate) driver: DriverChoice,
    /// its shards, 0 for one on each core,
    pub(crate) shards: u32,
    /// and connections of each shard at most.
    pub(crate) connections_max: u32,
}

/// What it answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Json,
    /// Kernel settings for so many connections, or, without a number, the table of them.
    Sysctl(Option<Class>),
}

/// Judges this host and prints what there is to say.
///
/// # Errors
/// Standard output takes nothing.
pub(crate) fn answer(question: &Question, output: Output) -> io::Result<ExitCode> {
    if let Output::Sysctl(class) = output {
        print(&class.map_or_else(sysctl_files::table, sysctl_files::file))?;
        return Ok(ExitCode::SUCCESS);
    }
    let facts = host::Facts::read(Path::new("/"), host::Live::ask());
    let report = judge::judge(&facts, question);
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        _ => text::write(&report),
    })?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough; the exit code tells the rest.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
