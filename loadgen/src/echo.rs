//! The echo scenario: every connection keeps a number of messages in flight, in a closed loop.

use crate::args::EchoArgs;
use crate::client::{Client, Errors, Plan};
use crate::server_process::Usage;
use hdrhistogram::Histogram;
use std::io;
use std::time::{Duration, Instant};

/// What a run measured.
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    pub(crate) messages: u64,
    pub(crate) latency: Histogram<u64>,
    pub(crate) errors: Errors,
    pub(crate) connect_elapsed: Duration,
    /// Share of the measured time that this process was on the CPU.
    pub(crate) client_cpu: f64,
    /// The server's usage over the measured time: CPU time, and memory at the end.
    pub(crate) server: Option<Usage>,
}

/// Connects, warms up, measures.
pub(crate) fn run(args: &EchoArgs) -> io::Result<Outcome> {
    let mut client = Client::new(Plan {
        url: args.url.clone(),
        connections: args.connections,
        in_flight: args.in_flight,
        size: args.size,
        text: args.text,
        goes_on: true,
        destinations: 1,
        connect_timeout: args.connect_timeout,
    })?;
    let connect_elapsed = client.connect()?;
    client.begin();
    client.run(args.warm_up, |_| false)?;
    client.reset();

    let server_before = args.server_pid.map(Usage::of).transpose()?;
    let client_before = Usage::of(std::process::id())?;
    let start = Instant::now();
    client.run(args.duration, |_| false)?;
    let elapsed = start.elapsed();
    let client_usage = Usage::of(std::process::id())?.since(client_before);
    let server_after = args.server_pid.map(Usage::of).transpose()?;
    Ok(Outcome {
        elapsed,
        messages: client.messages,
        latency: client.latency,
        errors: client.errors,
        connect_elapsed,
        client_cpu: client_usage.cpu().as_secs_f64() / elapsed.as_secs_f64(),
        server: server_after.zip(server_before).map(|(after, before)| after.since(before)),
    })
}
