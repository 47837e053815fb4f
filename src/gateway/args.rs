//! Flags and environment variables of the server, and what they make: its configuration, or a question to the doctor.

use super::doctor::{Output, Question};
use super::log::Ends;
use super::values::{
    DrainCode, Optional, RateChoice, SlowConsumer, SysctlChoice, byte_rate, bytes, connections, count_rate, duration,
    optional_duration,
};
use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, value_parser};
use ringwave::{Config, Drain, DriverChoice, Limits, Rate, SessionOptions, ShardSettings};
use std::net::SocketAddr;
use std::time::Duration;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "ringwave",
    version,
    about = "Serves WebSockets: /echo, /ws?topic=a&topic=b, and a page at / to try it with",
    after_help = "Durations are written 500ms, 30s, 5m; sizes 4096, 64KiB, 16MiB; rates 100 or 100/500, the second \
                  number being how many may come at once.\n\n\
                  It ends on SIGTERM or SIGINT: with 0 if every session said goodbye, with 3 if --shutdown-timeout cut \
                  some off; with 130 on a second signal; with 1 if it could not serve, with 2 if a flag is wrong.",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (also the default)
    Serve(Box<ServeArgs>),
    /// Judge this host: how many connections it holds now, what limits them, and what to change for more
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
}

const DOCTOR_HELP: &str = "It changes nothing. It judges for a server that is started from here: with the limits, the \
                           control group and the environment of this shell.\n\n\
                           It ends with 0, or with 1 if something is missing for --connections, or if the driver that is \
                           asked for is not to be had; with 2 if a flag is wrong.";

/// What there is to do.
pub(crate) enum Action {
    /// Run the server.
    Serve(Box<ServeArgs>),
    /// Judge this host.
    Doctor(DoctorArgs),
}

impl Cli {
    /// What was asked for.
    pub(crate) fn into_action(self) -> Action {
        match self.command {
            Some(Command::Serve(args)) => Action::Serve(args),
            Some(Command::Doctor(args)) => Action::Doctor(args),
            None => Action::Serve(Box::new(self.serve)),
        }
    }
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Connections that this host is to hold: 10k, 1m, 250000
    #[arg(long, value_name = "N", value_parser = connections)]
    connections: Option<u64>,

    /// Answer as JSON
    #[arg(long)]
    json: bool,

    /// Judge nothing; print the kernel settings for a number of connections as sysctl/ has them, or its table
    #[arg(long, value_name = "10k|100k|1m|table", hide_possible_values = true, conflicts_with_all = ["connections", "json"])]
    sysctl: Option<SysctlChoice>,

    /// As the server is started
    #[arg(long, value_name = "auto|uring|epoll", default_value_t = DriverChoice::Auto, env = "RINGWAVE_DRIVER")]
    driver: DriverChoice,

    /// As the server is started; 0 takes one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u32).range(..=1024), env = "RINGWAVE_SHARDS")]
    shards: u32,

    /// As the server is started: WebSockets of a shard at most
    #[arg(long, value_name = "N", default_value_t = 1_048_576, value_parser = value_parser!(u32).range(1..=134_217_728), env = "RINGWAVE_MAX_CONNECTIONS")]
    max_connections: u32,
}

impl DoctorArgs {
    /// What the doctor is asked.
    pub(crate) fn question(&self) -> Question {
        Question {
            target: self.connections,
            driver: self.driver,
            shards: self.shards,
            connections_max: self.max_connections,
        }
    }

    /// What it is to answer with.
    pub(crate) fn output(&self) -> Output {
        match self.sysctl {
            Some(choice) => Output::Sysctl(choice.class()),
            None if self.json => Output::Json,
            None => Output::Text,
        }
    }
}

/// Options of `serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9001", env = "RINGWAVE_LISTEN")]
    listen: SocketAddr,

    /// Allow an address that other machines can reach although nothing asks them who they are
    #[arg(long, env = "RINGWAVE_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,

    /// Shards: one thread and one ring each, 1 to 1024; 0 takes one for each core
    #[arg(long, value_name = "N", default_value_t = 0, env = "RINGWAVE_SHARDS")]
    shards: usize,

    /// Do not keep each shard on a core of its own
    #[arg(long, env = "RINGWAVE_NO_PIN", value_parser = BoolishValueParser::new())]
    no_pin: bool,

    /// Kernel interface: auto takes the best that this host allows
    #[arg(long, value_name = "auto|uring|epoll", default_value_t = DriverChoice::Auto, env = "RINGWAVE_DRIVER")]
    driver: DriverChoice,

    /// WebSockets of a shard at most; one more is answered with status 503
    #[arg(long, value_name = "N", default_value_t = 1_048_576, env = "RINGWAVE_MAX_CONNECTIONS")]
    max_connections: usize,

    /// WebSockets of one address (of an IPv6 /64) at most, in each shard; one more is answered with status 429 [default: any number]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), env = "RINGWAVE_MAX_PER_ADDRESS")]
    max_per_address: Option<u32>,

    /// WebSockets that a shard opens in a second; one more is answered with status 503
    #[arg(long, value_name = "N[/BURST]|none", default_value = "none", value_parser = count_rate, env = "RINGWAVE_HANDSHAKE_RATE")]
    handshake_rate: Optional<Rate>,

    /// Longest message taken, all fragments together; a longer one is answered with close code 1009
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = bytes, env = "RINGWAVE_MAX_MESSAGE")]
    max_message: usize,

    /// Longest frame taken; a longer one is answered with close code 1009 [default: as --max-message]
    #[arg(long, value_name = "BYTES", value_parser = bytes, env = "RINGWAVE_MAX_FRAME")]
    max_frame: Option<usize>,

    /// Longest request head taken; a longer one is answered with status 431, and half as much for one line of it (414 for the request line)
    #[arg(long, value_name = "BYTES", default_value = "16KiB", value_parser = bytes, env = "RINGWAVE_MAX_HEAD")]
    max_head: usize,

    /// Messages that a session may send in a second
    #[arg(long, value_name = "N[/BURST]|none", default_value = "none", value_parser = count_rate, env = "RINGWAVE_MESSAGE_RATE")]
    message_rate: Optional<Rate>,

    /// Bytes that a session may send in a second
    #[arg(long, value_name = "BYTES[/BURST]|none", default_value = "none", value_parser = byte_rate, env = "RINGWAVE_BYTE_RATE")]
    byte_rate: Optional<Rate>,

    /// What happens to a session that sends more: it is not read from for a while, or closed with code 1008
    #[arg(
        long,
        value_name = "pause|close",
        hide_possible_values = true,
        default_value = "pause",
        env = "RINGWAVE_RATE_ANSWER"
    )]
    rate_answer: RateChoice,

    /// Most bytes that wait for one session behind a send in flight
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = bytes, env = "RINGWAVE_SEND_QUEUE")]
    send_queue: usize,

    /// What happens with more: close ends the session; drop-new and drop-old drop messages; conflate keeps of each topic the newest message only, then as drop-old; pause-producer stops reading from whoever publishes, from 1/16 of the queue down to 1/64
    #[arg(
        long,
        value_name = "close|drop-new|drop-old|conflate|pause-producer",
        hide_possible_values = true,
        default_value = "close",
        env = "RINGWAVE_SLOW_CONSUMER"
    )]
    slow_consumer: SlowConsumer,

    /// Memory of a shard for what is queued and for messages that have not come whole; with more, the sessions that need most of it lose messages, or end
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = bytes, env = "RINGWAVE_MEMORY")]
    memory: usize,

    /// Let + and # in /ws?topic= stand for any level and any rest (write %2B and %23): such a pattern is subscribed to, not published to
    #[arg(long, env = "RINGWAVE_WILDCARDS", value_parser = BoolishValueParser::new())]
    wildcards: bool,

    /// From the connection, or the last answer on it, to the end of the next request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "RINGWAVE_HANDSHAKE_TIMEOUT")]
    handshake_timeout: Duration,

    /// Close sessions that neither sent a message or ping nor were sent a message for this long
    #[arg(long, value_name = "DURATION|none", default_value = "none", value_parser = optional_duration, env = "RINGWAVE_IDLE_TIMEOUT")]
    idle_timeout: Optional<Duration>,

    /// Close sessions that have lived for this long, or for up to a tenth less
    #[arg(long, value_name = "DURATION|none", default_value = "none", value_parser = optional_duration, env = "RINGWAVE_LIFETIME")]
    lifetime: Optional<Duration>,

    /// Ping sessions that sent nothing at all for this long
    #[arg(long, value_name = "DURATION|none", default_value = "30s", value_parser = optional_duration, env = "RINGWAVE_PING_INTERVAL")]
    ping_interval: Optional<Duration>,

    /// End sessions that sent nothing at all for this long after a ping
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration, env = "RINGWAVE_PONG_TIMEOUT")]
    pong_timeout: Duration,

    /// Wait this long for the answer to a close frame
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, env = "RINGWAVE_CLOSE_TIMEOUT")]
    close_timeout: Duration,

    /// End connections that take neither 256 KiB nor all of what is queued for them in this time
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "RINGWAVE_STALL_TIMEOUT")]
    stall_timeout: Duration,

    /// End connections that do not acknowledge what was sent for this long (TCP_USER_TIMEOUT); none leaves it to the system
    #[arg(long, value_name = "DURATION|none", default_value = "60s", value_parser = optional_duration, env = "RINGWAVE_USER_TIMEOUT")]
    user_timeout: Optional<Duration>,

    /// After SIGTERM or SIGINT, end whoever is left after this long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "RINGWAVE_SHUTDOWN_TIMEOUT")]
    shutdown_timeout: Duration,

    /// Spread the goodbyes over this long, so that clients do not all come back at once
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration, env = "RINGWAVE_DRAIN_WINDOW")]
    drain_window: Duration,

    /// Close code of the goodbyes: the server goes away, or it restarts and clients may come back
    #[arg(
        long,
        value_name = "1001|1012",
        hide_possible_values = true,
        default_value = "1001",
        env = "RINGWAVE_DRAIN_CODE"
    )]
    drain_code: DrainCode,

    /// Which ends of sessions are logged, a line each on standard error: none, those that nobody asked for, all (and with them refused requests)
    #[arg(
        long,
        value_name = "off|problems|all",
        hide_possible_values = true,
        default_value = "problems",
        env = "RINGWAVE_LOG"
    )]
    log: Ends,
}

impl ServeArgs {
    /// The library's configuration.
    ///
    /// # Errors
    /// An address that is open to others without `--insecure`; a value out of its range.
    pub(crate) fn config(&self) -> Result<Config, clap::Error> {
        if !self.listen.ip().is_loopback() && !self.insecure {
            return Err(wrong(format!(
                "{} can be reached by other machines, and nothing asks who connects; \
                 listen on 127.0.0.1, or give --insecure if that is what you want",
                self.listen
            )));
        }
        let defaults = Limits::default();
        let limits = Limits {
            message_bytes_max: self.max_message,
            // A message in one frame may be as long as one in fragments.
            frame_bytes_max: self.max_frame.unwrap_or(self.max_message),
            head_bytes_max: self.max_head,
            head_line_bytes_max: (self.max_head / 2).max(1),
            ..defaults
        };
        let config = Config {
            listen: self.listen,
            shards: self.shards,
            pin: !self.no_pin,
            driver: self.driver,
            connections_max: self.max_connections,
            settings: ShardSettings {
                limits,
                handshake_timeout: self.handshake_timeout,
                idle_timeout: self.idle_timeout.0,
                ping_interval: self.ping_interval.0,
                pong_timeout: self.pong_timeout,
                close_timeout: self.close_timeout,
                stall_timeout: self.stall_timeout,
                user_timeout: self.user_timeout.0,
                sessions_per_address_max: self.max_per_address,
                // Nothing else says where somebody came from.
                peer_addresses: self.log == Ends::All,
                handshake_rate: self.handshake_rate.0,
                memory_bytes_max: self.memory,
                session: self.session(),
                ..ShardSettings::default()
            },
            ..Config::default()
        };
        config.check().map_err(|error| match flag_of(error.name()) {
            Some(flag) => wrong(format!("{flag}: {error}")),
            None => wrong(error.to_string()),
        })?;
        Ok(config)
    }

    fn session(&self) -> SessionOptions {
        SessionOptions {
            policy: self.slow_consumer.into(),
            queue_bytes_max: self.send_queue,
            high_water_bytes: (self.send_queue / 16).max(1),
            low_water_bytes: self.send_queue / 64,
            wildcards: self.wildcards,
            message_rate: self.message_rate.0,
            byte_rate: self.byte_rate.0,
            rate_answer: self.rate_answer.into(),
            lifetime_max: self.lifetime.0,
            ..SessionOptions::default()
        }
    }

    /// How the server ends when it is asked to.
    ///
    /// # Errors
    /// Goodbyes that would come after the end.
    pub(crate) fn drain(&self) -> Result<Drain, clap::Error> {
        let (window, deadline) = (self.drain_window, self.shutdown_timeout);
        if window > deadline {
            return Err(wrong(format!(
                "--drain-window is {}, which is longer than --shutdown-timeout, {}",
                humantime::format_duration(window),
                humantime::format_duration(deadline)
            )));
        }
        let (code, reason) = self.drain_code.code();
        Ok(Drain { window, deadline, code, reason: reason.to_owned() })
    }

    /// Which ends of sessions are logged.
    pub(crate) const fn logged(&self) -> Ends {
        self.log
    }

    /// Whether topics may be patterns.
    pub(crate) const fn wildcards(&self) -> bool {
        self.wildcards
    }
}

fn wrong(text: String) -> clap::Error {
    Cli::command().error(ErrorKind::ValueValidation, text)
}

/// The flag that sets an option of the library's.
fn flag_of(option: &str) -> Option<&'static str> {
    Some(match option {
        "shards" => "--shards",
        "connections_max" => "--max-connections",
        "head_bytes_max" | "head_line_bytes_max" => "--max-head",
        "message_bytes_max" => "--max-message",
        "frame_bytes_max" => "--max-frame",
        "stall_timeout in milliseconds" => "--stall-timeout",
        "memory_bytes_max" => "--memory",
        "session.queue_bytes_max" | "session.high_water_bytes" | "session.low_water_bytes" => "--send-queue",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwave::{CloseCode, Policy, RateAnswer};

    fn args(flags: &[&str]) -> Result<ServeArgs, String> {
        let cli = Cli::try_parse_from([&["ringwave"], flags].concat()).map_err(|error| error.to_string())?;
        match cli.into_action() {
            Action::Serve(args) => Ok(*args),
            Action::Doctor(_) => Err("it is the doctor that is asked".to_owned()),
        }
    }

    fn config(flags: &[&str]) -> Result<Config, String> {
        args(flags)?.config().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_librarys() {
        let config = |flags| config(flags).expect("sound");
        // Only a log that tells all says where somebody came from.
        assert_eq!(config(&["--log", "all"]), Config::default());
        let mut nobody_asks = Config::default();
        nobody_asks.settings.peer_addresses = false;
        assert_eq!([config(&[]), config(&["serve"])], [nobody_asks.clone(), nobody_asks]);
        assert_eq!(args(&[]).expect("sound").drain().expect("sound"), Drain::default());
    }

    #[test]
    fn flags_reach_the_configuration() {
        let flags = ["--listen", "[::1]:7", "--shards", "3", "--max-message", "16MiB", "--idle-timeout", "90s"];
        let reached = config(&flags).expect("sound");
        assert_eq!((reached.listen.port(), reached.shards), (7, 3));
        assert_eq!(reached.settings.limits.message_bytes_max, 16 << 20);
        assert_eq!(reached.settings.limits.frame_bytes_max, 16 << 20);
        assert_eq!(reached.settings.idle_timeout, Some(Duration::from_secs(90)));

        let flags = "--max-per-address 7 --handshake-rate 5/9 --memory 2MiB --user-timeout none --max-frame 1KiB \
                     --slow-consumer drop-old --message-rate 10 --byte-rate 1KiB/4KiB --rate-answer close --lifetime 1h \
                     --wildcards";
        let settings = config(&flags.split_whitespace().collect::<Vec<_>>()).expect("sound").settings;
        assert_eq!(settings.sessions_per_address_max, Some(7));
        assert_eq!(settings.handshake_rate, Some(Rate { per_second: 5, burst: 9 }));
        assert_eq!((settings.memory_bytes_max, settings.user_timeout), (2 << 20, None));
        assert_eq!((settings.limits.frame_bytes_max, settings.limits.message_bytes_max), (1024, 64 << 20));
        let session = settings.session;
        assert_eq!((session.policy, session.rate_answer), (Policy::DropOld, RateAnswer::Close));
        assert_eq!(session.message_rate, Some(Rate::per_second(10)));
        assert_eq!(session.byte_rate, Some(Rate { per_second: 1024, burst: 4096 }));
        assert_eq!((session.lifetime_max, session.wildcards), (Some(Duration::from_secs(3600)), true));
    }

    #[test]
    fn every_choice_is_the_librarys() {
        let policies = [
            ("close", Policy::Close),
            ("drop-new", Policy::DropNew),
            ("drop-old", Policy::DropOld),
            ("conflate", Policy::Conflate),
            ("pause-producer", Policy::PauseProducer),
        ];
        for (name, policy) in policies {
            assert_eq!(config(&["--slow-consumer", name]).expect("sound").settings.session.policy, policy);
        }
        let drain = |flags: &[&str]| args(flags)?.drain().map_err(|error| error.to_string());
        let restart = drain(&["--drain-code", "1012", "--drain-window", "3s", "--shutdown-timeout", "4s"]);
        let restart = restart.expect("sound");
        assert_eq!((restart.code, &*restart.reason), (CloseCode::SERVICE_RESTART, "the server restarts"));
        assert_eq!((restart.window, restart.deadline), (Duration::from_secs(3), Duration::from_secs(4)));
        let error = drain(&["--drain-window", "11s"]).expect_err("longer than the deadline");
        assert!(error.contains("--drain-window is 11s, which is longer than --shutdown-timeout, 10s"), "{error}");
        assert!(drain(&["--drain-code", "1000"]).expect_err("another code").contains("1001, 1012"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |flags: &[&str]| config(flags).expect_err("wrong");
        assert!(error(&["--listen", "0.0.0.0:9001"]).contains("--insecure"));
        assert!(config(&["--listen", "0.0.0.0:9001", "--insecure"]).is_ok());
        assert!(error(&["--driver", "kqueue"]).contains("choose auto, uring or epoll"));
        assert!(error(&["--idle-timeuot", "1s"]).contains("--idle-timeout"));
        // The flag that is out of range, the value and the range.
        for (flag, value, seen) in [
            ("--shards", "9999", "within 0 and 1024"),
            ("--max-connections", "0", "connections_max is 0"),
            ("--max-message", "0", "message_bytes_max is 0"),
            ("--max-frame", "0", "frame_bytes_max is 0"),
            ("--max-head", "1", "head_bytes_max is 1"),
            ("--send-queue", "0", "queue_bytes_max is 0"),
            ("--memory", "0", "memory_bytes_max is 0"),
            ("--stall-timeout", "0s", "stall_timeout in milliseconds is 0"),
            ("--max-per-address", "0", "1..=4294967295"),
            ("--message-rate", "0", "1 or more"),
            ("--byte-rate", "8GiB", "more than 4294967295"),
            ("--handshake-rate", "fast", "\"fast\" is no number"),
            ("--lifetime", "soon", "write 500ms, 30s, 5m"),
            ("--slow-consumer", "drop", "drop-new, drop-old"),
            ("--rate-answer", "drop", "pause, close"),
            ("--log", "some", "off, problems, all"),
        ] {
            let error = error(&[flag, value]);
            assert!(error.contains(flag) && error.contains(seen), "{error}");
        }
    }

    #[test]
    fn the_doctor_is_asked() {
        let doctor = |flags: &[&str]| {
            let cli = Cli::try_parse_from([&["ringwave", "doctor"], flags].concat());
            match cli.map_err(|error| error.to_string())?.into_action() {
                Action::Doctor(args) => Ok((args.question(), args.output())),
                Action::Serve(_) => Err("it is to serve".to_owned()),
            }
        };
        let (question, output) = doctor(&["--driver", "auto", "--shards", "0"]).expect("sound");
        let asked_nothing =
            Question { target: None, driver: DriverChoice::Auto, shards: 0, connections_max: 1_048_576 };
        assert_eq!((question, output), (asked_nothing, Output::Text));
        let (question, output) = doctor(&["--connections", "100k", "--json", "--max-connections", "7"]).expect("sound");
        assert_eq!((question.target, question.connections_max, output), (Some(100_000), 7, Output::Json));
        assert_eq!(doctor(&["--sysctl", "table"]).expect("sound").1, Output::Sysctl(None));
        for (flags, seen) in [
            (&["--connections", "0"][..], "--connections"),
            (&["--connections", "many"], "write 250000, 10k, 1m"),
            (&["--sysctl", "2m"], "10k, 100k, 1m, table"),
            (&["--sysctl", "1m", "--json"], "cannot be used with"),
            (&["--conections", "1m"], "--connections"),
            (&["--driver", "kqueue"], "choose auto, uring or epoll"),
            (&["--listen", "127.0.0.1:0"], "--listen"),
        ] {
            let error = doctor(flags).expect_err("wrong");
            assert!(error.contains(seen), "{error}");
        }
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in Cli::command().get_arguments().filter(|arg| arg.get_long().is_some()) {
            let long = arg.get_long().unwrap_or_default();
            if matches!(long, "help" | "version") {
                continue;
            }
            let variable = format!("RINGWAVE_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(&*variable));
        }
    }
}
