//! Flags.

use crate::target::Target;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Puts load on a WebSocket server and says what it did.
#[derive(Debug, Parser)]
#[command(name = "ringload", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Send messages and wait for each to come back: a closed loop, so a stall of the server delays what would have
    /// been sent meanwhile, and the latencies do not show that
    Echo(EchoArgs),
    /// Open connections, hold them in silence, see whether each still answers: the server's memory per connection
    Idle(IdleArgs),
}

#[derive(Args, Debug)]
pub(crate) struct IdleArgs {
    /// ws://HOST:PORT/PATH of an echo
    pub(crate) url: Target,

    /// Connections, 1 to 1000000
    #[arg(short, long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// Destination addresses, counted up from the URL's (127.0.0.1, 127.0.0.2, …): one takes about 14000 connections
    /// at full speed and 28000 at most
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) destinations: u32,

    /// How long to hold them before they are asked
    #[arg(short, long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// Give up when the connections do not stand by then, or do not all answer within the same time
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// The server's process: its memory goes into the report
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    /// ws://HOST:PORT/PATH, or tcp://HOST:PORT for a bare echo without WebSocket
    pub(crate) url: Target,

    /// Connections, 1 to 18000
    #[arg(short, long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    pub(crate) connections: u32,

    /// Messages in flight on each connection, 1 to 1024
    #[arg(short = 'w', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) in_flight: u32,

    /// Bytes of a message, 1 to 16777216
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) size: u32,

    /// Send text instead of binary messages
    #[arg(long)]
    pub(crate) text: bool,

    /// How long to measure, after the warm-up
    #[arg(short, long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// How long to load the server before anything is counted
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,

    /// Give up when the connections do not stand by then
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// The server's process: its CPU time and memory go into the report
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,

    /// Write the report as JSON to this file as well; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
