//! Flags and environment variables of the server, and the configuration they make.

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use ringwave::{Config, DriverChoice, Limits, SessionOptions, ShardSettings};
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "ringwave",
    version,
    about = "Serves WebSockets: /echo, /ws?topic=a&topic=b, and a page at / to try it with",
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
    Serve(ServeArgs),
}

impl Cli {
    /// The options of the only thing there is to do.
    pub(crate) fn into_serve(self) -> ServeArgs {
        match self.command {
            Some(Command::Serve(args)) => args,
            None => self.serve,
        }
    }
}

/// A duration as people write it: 500ms, 30s, 1h 30m, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error} (write 500ms, 30s, 5m)")),
    }
}

/// A duration, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Optional(Option<Duration>);

impl FromStr for Optional {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self(None)) } else { duration(text).map(|duration| Self(Some(duration))) }
    }
}

/// Options of `serve`. Durations are written 500ms, 30s, 5m; sizes 4096, 64KiB, 16MiB.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9001", env = "RINGWAVE_LISTEN")]
    listen: SocketAddr,

    /// Allow an address that other machines can reach although nothing asks them who they are
    #[arg(long, env = "RINGWAVE_INSECURE")]
    insecure: bool,

    /// Shards: one thread and one ring each, 1 to 1024; 0 takes one for each core
    #[arg(long, value_name = "N", default_value_t = 0, env = "RINGWAVE_SHARDS")]
    shards: usize,

    /// Do not keep each shard on a core of its own
    #[arg(long, env = "RINGWAVE_NO_PIN")]
    no_pin: bool,

    /// Kernel interface: auto takes the best that this host allows
    #[arg(long, value_name = "auto|uring", default_value_t = DriverChoice::Auto, env = "RINGWAVE_DRIVER")]
    driver: DriverChoice,

    /// Connections of a shard at most
    #[arg(long, value_name = "N", default_value_t = 1_048_576, env = "RINGWAVE_MAX_CONNECTIONS")]
    max_connections: usize,

    /// Longest message taken, all fragments together; a longer one is answered with close code 1009
    #[arg(long, value_name = "BYTES", default_value = "64MiB", env = "RINGWAVE_MAX_MESSAGE")]
    max_message: ByteSize,

    /// Longest request head taken; a longer one is answered with status 431
    #[arg(long, value_name = "BYTES", default_value = "16KiB", env = "RINGWAVE_MAX_HEAD")]
    max_head: ByteSize,

    /// Most bytes that wait for one session behind a send in flight; with more it ends at once. At 1/16 of it nothing more is read from the session
    #[arg(long, value_name = "BYTES", default_value = "16MiB", env = "RINGWAVE_SEND_QUEUE")]
    send_queue: ByteSize,

    /// From the connection, or the last answer on it, to the end of the next request
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "RINGWAVE_HANDSHAKE_TIMEOUT")]
    handshake_timeout: Duration,

    /// Close sessions that neither sent a message or ping nor were sent a message for this long; none never does
    #[arg(long, value_name = "DURATION|none", default_value = "none", env = "RINGWAVE_IDLE_TIMEOUT")]
    idle_timeout: Optional,

    /// Ping sessions that sent nothing at all for this long; none never does
    #[arg(long, value_name = "DURATION|none", default_value = "30s", env = "RINGWAVE_PING_INTERVAL")]
    ping_interval: Optional,

    /// End sessions that sent nothing at all for this long after a ping
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration, env = "RINGWAVE_PONG_TIMEOUT")]
    pong_timeout: Duration,

    /// Wait this long for the answer to a close frame
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration, env = "RINGWAVE_CLOSE_TIMEOUT")]
    close_timeout: Duration,

    /// End connections that take neither 256 KiB nor all of what is queued for them in this time
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, env = "RINGWAVE_STALL_TIMEOUT")]
    stall_timeout: Duration,

    /// After SIGTERM or SIGINT, let sessions say goodbye for at most this long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "RINGWAVE_SHUTDOWN_TIMEOUT")]
    pub(crate) shutdown_timeout: Duration,
}

impl ServeArgs {
    /// The library's configuration.
    ///
    /// # Errors
    /// An address that is open to others without `--insecure`; a value out of its range.
    pub(crate) fn config(&self) -> io::Result<Config> {
        if !self.listen.ip().is_loopback() && !self.insecure {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} can be reached by other machines, and nothing asks who connects; \
                     listen on 127.0.0.1, or give --insecure if that is what you want",
                    self.listen
                ),
            ));
        }
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let defaults = Limits::default();
        let limits = Limits {
            message_bytes_max: bytes(self.max_message),
            // A message in one frame may be as long as one in fragments.
            frame_bytes_max: bytes(self.max_message),
            head_bytes_max: bytes(self.max_head),
            head_line_bytes_max: defaults.head_line_bytes_max.min(bytes(self.max_head)),
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
                session: SessionOptions {
                    queue_bytes_max: bytes(self.send_queue),
                    high_water_bytes: (bytes(self.send_queue) / 16).max(1),
                    low_water_bytes: bytes(self.send_queue) / 64,
                    ..SessionOptions::default()
                },
                ..ShardSettings::default()
            },
            ..Config::default()
        };
        config.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let cli = Cli::try_parse_from([&["ringwave"], flags].concat()).map_err(|error| error.to_string())?;
        cli.into_serve().config().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_librarys() {
        assert_eq!(config(&[]), Ok(Config::default()));
        assert_eq!(config(&["serve"]), Ok(Config::default()));
    }

    #[test]
    fn flags_reach_the_configuration() {
        let flags = ["--listen", "[::1]:7", "--shards", "3", "--max-message", "16MiB", "--idle-timeout", "90s"];
        let config = config(&flags).expect("sound");
        assert_eq!((config.listen.port(), config.shards), (7, 3));
        assert_eq!(config.settings.limits.message_bytes_max, 16 << 20);
        assert_eq!(config.settings.limits.frame_bytes_max, 16 << 20);
        assert_eq!(config.settings.idle_timeout, Some(Duration::from_secs(90)));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("-1").is_err() && duration("soon").is_err() && duration("inf").is_err());
        assert_eq!("none".parse(), Ok(Optional(None)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |flags: &[&str]| config(flags).expect_err("wrong");
        assert!(error(&["--listen", "0.0.0.0:9001"]).contains("--insecure"));
        assert!(config(&["--listen", "0.0.0.0:9001", "--insecure"]).is_ok());
        assert!(error(&["--driver", "kqueue"]).contains("choose auto or uring"));
        assert!(error(&["--shards", "9999"]).contains("shards is 9999"));
        assert!(error(&["--idle-timeuot", "1s"]).contains("--idle-timeout"));
    }
}
