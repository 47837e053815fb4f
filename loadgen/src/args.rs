//! Flags.

use crate::connections::Leave;
use crate::plan::{Ask, DriverKind};
use crate::promise::Promises;
use crate::report::Files;
use crate::route::{Sources, Targets};
use crate::schedule::{Arrivals, Steps};
use crate::target::Target;
use crate::units::{parse_rate, parse_size};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Connections at most: what a message's stamp can tell apart.
const CONNECTIONS_MAX: i64 = 16_000_000;

/// Puts load on a WebSocket server, checks every answer, and says what it saw and whether it was itself the limit.
#[derive(Debug, Parser)]
#[command(
    name = "ringload",
    version,
    about,
    after_help = "Exit codes: 0 fine; 1 it could not run; 2 wrong flags; 3 messages or connections were lost or wrong; \
                  4 an assertion did not hold, or no rate kept the promise."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Scenario {
    /// Send messages that come back: messages a second and latency, in a closed loop or at a rate
    Echo(EchoArgs),
    /// Publish messages that reach every subscriber: deliveries a second, and latency from publish to delivery
    Fanout(FanoutArgs),
    /// Open connections, hold them, see whether each still answers: what they cost the server
    Idle(IdleArgs),
    /// Open and end connections all the time: handshakes a second
    Churn(ChurnArgs),
    /// Let a few readers stall among many: what that costs the server's memory and the others' latency
    SlowReader(SlowReaderArgs),
    /// Raise the rate in steps
    Ramp(RampArgs),
    /// Find the highest rate that keeps a promise
    FindRate(FindRateArgs),
    /// Compare the reports of two servers, or of two versions of one
    Compare(CompareArgs),
}

/// How connections come about.
#[derive(Args, Debug)]
#[command(next_help_heading = "Connections")]
pub(crate) struct ConnectArgs {
    /// Source addresses: lists and ranges such as 127.0.0.1-127.0.0.20,10.0.0.7; on the loopback taken by itself as
    /// needed
    #[arg(long, value_name = "LIST")]
    pub(crate) source: Option<Sources>,

    /// Addresses to connect to instead of the URL's, with ports if wanted: 127.0.0.1-127.0.0.8:9001-9004
    #[arg(long, value_name = "LIST")]
    pub(crate) target: Option<Targets>,

    /// Connections opened a second at most; without it as fast as they come about
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) connect_rate: Option<f64>,

    /// Longest wait for the answer to a handshake
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) connect_timeout: Duration,

    /// A header of the handshake, such as 'Origin: http://localhost'; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) header: Vec<(String, String)>,

    /// A subprotocol to offer; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Vec<String>,

    /// Threads, each on a core of its own; 0 takes one for each core this process may use
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub(crate) threads: u32,

    /// Do not keep each thread on one core
    #[arg(long)]
    pub(crate) no_pin: bool,

    /// What the threads run on
    #[arg(long, value_enum, default_value_t = DriverKind::Auto)]
    pub(crate) driver: DriverKind,

    /// Offer permessage-deflate (not built yet: refused)
    #[arg(long)]
    pub(crate) deflate: bool,

    /// Certificates to trust for wss:// (not built yet: refused)
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Accept any certificate of a wss:// server (not built yet: refused)
    #[arg(long)]
    pub(crate) tls_insecure: bool,
}

/// What messages are like.
#[derive(Args, Debug)]
#[command(next_help_heading = "Messages")]
pub(crate) struct MessageArgs {
    /// Bytes of a message, such as 20, 1KiB, 64KiB [default: 20; fanout and --broadcast 100; slow-reader 1KiB]
    #[arg(short, long, value_name = "BYTES", value_parser = parse_size)]
    pub(crate) size: Option<usize>,

    /// Send text messages
    #[arg(long, conflicts_with = "binary")]
    pub(crate) text: bool,

    /// Send binary messages (the default)
    #[arg(long)]
    pub(crate) binary: bool,

    /// A message not answered for so long is lost
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) answer_timeout: Duration,
}

/// When messages leave, and for how long.
#[derive(Args, Debug)]
#[command(next_help_heading = "Pace")]
pub(crate) struct PaceArgs {
    /// Closed loop: messages on their way at one time, on each connection (fanout: bursts of each publisher) [default: 1]
    #[arg(short = 'w', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536),
        conflicts_with_all = ["rate", "steps"])]
    pub(crate) in_flight: Option<u32>,

    /// Open loop: messages a second over all connections, such as 500, 10k, 1.5M; latency counts from the intended send
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,

    /// Open loop at a rate that changes: 1k:10s,5k:10s; the last one stays
    #[arg(long, value_name = "RATE:DURATION,…", conflicts_with = "rate")]
    pub(crate) steps: Option<Steps>,

    /// Open loop: how messages follow each other [default: constant]
    #[arg(long, value_enum)]
    pub(crate) arrivals: Option<Arrivals>,

    #[command(flatten)]
    pub(crate) length: LengthArgs,
}

/// For how long, and how often.
#[derive(Args, Debug)]
#[command(next_help_heading = "Length")]
pub(crate) struct LengthArgs {
    /// How long to measure, after the warm-up [default: 10s, or as long as --steps]
    #[arg(short, long, value_name = "DURATION", value_parser = parse_length)]
    pub(crate) duration: Option<Duration>,

    /// Measure so many messages instead
    #[arg(short = 'n', long, value_name = "MESSAGES", conflicts_with = "duration",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// How long to load the server before anything is counted [default: 1s; with --count 0s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Option<Duration>,

    /// Measure so often; each time is a run of the report
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
}

/// What is written where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Report")]
pub(crate) struct OutputArgs {
    /// The server's process on this machine: its CPU time, memory and context switches go into the report
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,

    /// Count the server's system calls too, by `perf stat`, which slows each of them down
    #[arg(long, requires = "server_pid")]
    pub(crate) count_syscalls: bool,

    #[command(flatten)]
    pub(crate) files: Files,

    /// Fail unless this holds, such as 'p99<5ms,errors==0'
    #[arg(long, value_name = "PROMISES")]
    pub(crate) assert: Option<Promises>,

    /// Print no status line and no table
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct EchoArgs {
    /// ws://HOST:PORT/PATH of an echo, or tcp://HOST:PORT for a bare echo without WebSocket
    pub(crate) url: Target,

    /// Connections
    #[arg(short, long, default_value_t = 200, value_parser = connections())]
    pub(crate) connections: u32,

    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Who publishes to whom.
#[derive(Args, Debug)]
pub(crate) struct FanoutArgs {
    /// ws://HOST:PORT/PATH where subscribers hear what publishers send
    pub(crate) url: Target,

    /// Subscribers
    #[arg(short, long, default_value_t = 1000, value_parser = connections())]
    pub(crate) connections: u32,

    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How messages are published.
#[derive(Args, Debug)]
#[command(next_help_heading = "Publishing")]
pub(crate) struct PublishArgs {
    /// Publishers, each a connection of its own; what they get back is not looked at
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) publishers: u32,

    /// Messages that a publisher sends in one go
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) burst: u32,

    /// Where publishers connect to, if not where subscribers do
    #[arg(long, value_name = "URL")]
    pub(crate) publish_url: Option<Target>,

    /// A text message that each subscriber sends first, to subscribe
    #[arg(long, value_name = "TEXT")]
    pub(crate) on_open: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct IdleArgs {
    /// ws://HOST:PORT/PATH
    pub(crate) url: Target,

    /// Connections
    #[arg(short, long, default_value_t = 10_000, value_parser = connections())]
    pub(crate) connections: u32,

    /// How long to hold them before they are asked
    #[arg(short, long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    /// How each shows at the end that it still answers
    #[arg(long, value_enum, default_value_t = Ask::Ping)]
    pub(crate) ask: Ask,

    /// At last the first sends a message that all the others must get: the URL delivers what one sends to the others
    #[arg(long)]
    pub(crate) broadcast: bool,

    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// How churning connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Close {
    /// By the closing handshake
    Clean,
    /// By a TCP reset
    Reset,
    /// By the end of the TCP stream, without a close frame
    Drop,
    /// Each of these in turn
    Mix,
}

impl Close {
    pub(crate) fn leaves(self) -> Vec<Leave> {
        match self {
            Self::Clean => vec![Leave::Clean],
            Self::Reset => vec![Leave::Reset],
            Self::Drop => vec![Leave::Drop],
            Self::Mix => vec![Leave::Clean, Leave::Reset, Leave::Drop],
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Reset => "reset",
            Self::Drop => "drop",
            Self::Mix => "mix",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct ChurnArgs {
    /// ws://HOST:PORT/PATH
    pub(crate) url: Target,

    /// Connections at one time at most
    #[arg(short, long, default_value_t = 64, value_parser = connections())]
    pub(crate) connections: u32,

    /// Open loop: connections begun a second; latency counts from the intended begin
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,

    /// Open loop: how they follow each other [default: constant]
    #[arg(long, value_enum, requires = "rate")]
    pub(crate) arrivals: Option<Arrivals>,

    /// How they end
    #[arg(long, value_enum, default_value_t = Close::Clean)]
    pub(crate) close: Close,

    #[command(flatten)]
    pub(crate) length: LengthArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which of the two loads a scenario is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadKind {
    /// Messages that come back to their sender
    Echo,
    /// Messages that reach every subscriber
    Fanout,
}

#[derive(Args, Debug)]
pub(crate) struct SlowReaderArgs {
    /// ws://HOST:PORT/PATH: of an echo for --load echo, else one where subscribers hear what publishers send
    pub(crate) url: Target,

    /// Connections that read as they should
    #[arg(short, long, default_value_t = 100, value_parser = connections())]
    pub(crate) connections: u32,

    /// Connections that stop reading, and read again at the end
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) stalled: u32,

    /// What the messages do
    #[arg(long, value_enum, default_value_t = LoadKind::Fanout)]
    pub(crate) load: LoadKind,

    /// Messages a second
    #[arg(long, value_name = "RATE", default_value = "500", value_parser = parse_rate)]
    pub(crate) rate: f64,

    /// How messages follow each other
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    pub(crate) arrivals: Arrivals,

    /// How long to measure, without and then with the stalled readers
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = parse_length)]
    pub(crate) duration: Duration,

    /// How long to load the server before anything is counted
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,

    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What a search for a rate is made of.
#[derive(Args, Debug)]
pub(crate) struct SteppedArgs {
    /// Connections (fanout: subscribers)
    #[arg(short, long, default_value_t = 200, value_parser = connections())]
    pub(crate) connections: u32,

    /// What the messages do
    #[arg(long, value_enum, default_value_t = LoadKind::Echo)]
    pub(crate) load: LoadKind,

    /// How messages follow each other
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    pub(crate) arrivals: Arrivals,

    /// How long to load the server before each step counts
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,

    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RampArgs {
    /// ws://HOST:PORT/PATH
    pub(crate) url: Target,

    /// Messages a second of the first step
    #[arg(long, value_name = "RATE", default_value = "1k", value_parser = parse_rate)]
    pub(crate) from: f64,

    /// Messages a second of the last step
    #[arg(long, value_name = "RATE", default_value = "100k", value_parser = parse_rate)]
    pub(crate) to: f64,

    /// Steps, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(crate) step_count: u32,

    /// How long each step is measured
    #[arg(short = 'd', long, value_name = "DURATION", default_value = "5s", value_parser = parse_length)]
    pub(crate) step_duration: Duration,

    /// End when this comes true, such as 'p99>50ms'
    #[arg(long, value_name = "PROMISES")]
    pub(crate) until: Option<Promises>,

    #[command(flatten)]
    pub(crate) stepped: SteppedArgs,
}

#[derive(Args, Debug)]
pub(crate) struct FindRateArgs {
    /// The promise, such as 'p99<10ms', and the URL; in any order
    #[arg(num_args = 2, value_names = ["PROMISE", "URL"], required = true)]
    pub(crate) promise_and_url: Vec<String>,

    /// Where to begin, messages a second
    #[arg(long, value_name = "RATE", default_value = "1k", value_parser = parse_rate)]
    pub(crate) from: f64,

    /// Where to end at the latest, messages a second
    #[arg(long, value_name = "RATE", default_value = "10M", value_parser = parse_rate)]
    pub(crate) to: f64,

    /// How long each rate is tried
    #[arg(short = 'd', long, value_name = "DURATION", default_value = "3s", value_parser = parse_length)]
    pub(crate) trial: Duration,

    /// How close the rates that kept and broke the promise must lie, percent
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = parse_precision)]
    pub(crate) precision: f64,

    #[command(flatten)]
    pub(crate) stepped: SteppedArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// Report of the one, or several with commas between
    #[arg(value_name = "A.json,…", value_delimiter = ',', num_args = 1, required = true)]
    pub(crate) a: Vec<PathBuf>,

    /// Report of the other, or several with commas between
    #[arg(value_name = "B.json,…", value_delimiter = ',', num_args = 1, required = true)]
    pub(crate) b: Vec<PathBuf>,
}

fn connections() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=CONNECTIONS_MAX)
}

/// A duration that something can be measured in.
fn parse_length(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(10) { Err("at least 10ms".to_owned()) } else { Ok(duration) }
}

fn parse_precision(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse() {
        Ok(percent) if (0.1..=50.0).contains(&percent) => Ok(percent),
        _ => Err("0.1 to 50 percent".to_owned()),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is not NAME: VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_everyday_line_is_understood() {
        let line = "ringload echo ws://h:1/echo -c 20 -w 4 -s 1KiB -d 2s --threads 1 --json -";
        let Scenario::Echo(echo) = Cli::try_parse_from(line.split(' ')).expect("sound").scenario else { panic!() };
        assert_eq!((echo.connections, echo.pace.in_flight, echo.message.size), (20, Some(4), Some(1024)));
        let line = ["ringload", "echo", "ws://h:1/echo", "--rate", "10k", "-w", "4"];
        assert!(Cli::try_parse_from(line).is_err(), "an open loop has no messages in flight to hold to");
    }
}
