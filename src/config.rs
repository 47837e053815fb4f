//! What a user of the library may set: every option with its unit, its range and its default.

use crate::base::limits::SHARDS_MAX;
use crate::shard::ShardSettings;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Which of the kernel's interfaces a server runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where this host allows it, else epoll. Found out once, by serving a connection through it.
    #[default]
    Auto,
    /// io_uring (Linux 6.1), or an error that says what is missing.
    Uring,
    /// epoll: for hosts without io_uring, and to compare. Every connection takes a descriptor of the process
    /// (RLIMIT_NOFILE).
    Epoll,
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

impl FromStr for DriverChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            other => Err(format!("there is no driver {other:?}: choose auto, uring or epoll")),
        }
    }
}

/// A server's options.
///
/// ```
/// use ringwave::Config;
/// use std::time::Duration;
///
/// let mut config = Config::default();
/// config.listen = "127.0.0.1:0".parse()?;
/// config.settings.idle_timeout = Some(Duration::from_secs(60));
/// config.settings.limits.message_bytes_max = 1 << 20;
/// assert!(config.check().is_ok());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen. Default: 127.0.0.1:9001. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Number of shards, 1 … 1 024: one thread, one ring each. 0, the default, takes one for each core.
    pub shards: usize,
    /// Whether each shard's thread is kept on a core of its own. Default: yes, if there are cores enough.
    pub pin: bool,
    /// The kernel interface. Default: the best one.
    pub driver: DriverChoice,
    /// Connections of each shard at most, 1 … 134 217 728. Default: 1 048 576. The kernel spreads connections over the
    /// shards by hash, not evenly. Beyond one descriptor table (RLIMIT_NOFILE) a shard adds rings as it needs them.
    pub connections_max: usize,
    /// Receive buffers of each shard, a power of two, 1 … 32 768. Default: 512. As many as connections speak at once. On
    /// epoll one buffer of up to 64 KiB serves them all, and together these bound what one connection brings in a turn.
    pub receive_buffers: u16,
    /// Bytes of a receive buffer, 512 … 1 048 576. Default: 4 096.
    pub receive_buffer_bytes: u32,
    /// Longer buffers of each shard, for connections that fill those: a power of two, 1 … 32 768. Default: 8. Few are faster
    /// than many, because a ring hands them out in turns and all have to stay in the cache; whoever finds none waits for one.
    /// One connection brings one of them in a turn, or as much as its unfinished message has room for. Their memory is taken when
    /// they are used first. Not on epoll.
    pub bulk_buffers: u16,
    /// Bytes of a longer buffer, 512 … 1 048 576. Default: 65 568, one message of 64 KiB or four of 16 KiB with their headers: what
    /// lies whole in one, and is a quarter of it or more, is sent on without a copy. There are none if they would be no longer
    /// than `receive_buffer_bytes`.
    pub bulk_buffer_bytes: u32,
    /// How each shard treats its connections.
    pub settings: ShardSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9001)),
            shards: 0,
            pin: true,
            driver: DriverChoice::Auto,
            connections_max: 1 << 20,
            receive_buffers: 512,
            receive_buffer_bytes: 4096,
            bulk_buffers: 8,
            bulk_buffer_bytes: 65_568,
            settings: ShardSettings::default(),
        }
    }
}

impl Config {
    /// Whether all options are within their ranges.
    ///
    /// # Errors
    /// The first one that is not, with its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        let limits = &settings.limits;
        let session = &settings.session;
        let range = |name, value: usize, low, high| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(ConfigError { name, value, low, high }) }
        };
        range("shards", self.shards, 0, SHARDS_MAX)?;
        range("connections_max", self.connections_max, 1, crate::base::limits::LINKS_MAX)?;
        for (name, power_name, count) in [
            ("receive_buffers", "receive_buffers (a power of two)", self.receive_buffers),
            ("bulk_buffers", "bulk_buffers (a power of two)", self.bulk_buffers),
        ] {
            let (count, power) = (usize::from(count), usize::from(count).next_power_of_two());
            range(name, count, 1, 32_768)?;
            range(power_name, count, power, power)?;
        }
        range("receive_buffer_bytes", self.receive_buffer_bytes as usize, 512, 1 << 20)?;
        range("bulk_buffer_bytes", self.bulk_buffer_bytes as usize, 512, 1 << 20)?;
        range("head_bytes_max", limits.head_bytes_max, 128, 1 << 20)?;
        range("head_line_bytes_max", limits.head_line_bytes_max, 64, limits.head_bytes_max)?;
        range("headers_max", limits.headers_max, 1, crate::base::limits::HEADERS_MAX)?;
        range("body_bytes_max", limits.body_bytes_max, 0, 1 << 40)?;
        range("message_bytes_max", limits.message_bytes_max, 1, 1 << 40)?;
        range("frame_bytes_max", limits.frame_bytes_max, 1, 1 << 40)?;
        range("fragments_max", limits.fragments_max as usize, 1, u32::MAX as usize)?;
        let streamed_bytes_max = usize::try_from(limits.streamed_bytes_max).unwrap_or(usize::MAX);
        range("streamed_bytes_max", streamed_bytes_max, 1, usize::MAX)?;
        let stall_millis = usize::try_from(settings.stall_timeout.as_millis()).unwrap_or(usize::MAX);
        range("stall_timeout in milliseconds", stall_millis, 1, usize::MAX)?;
        range("memory_bytes_max", settings.memory_bytes_max, 1, 1 << 50)?;
        range("sessions_max", settings.sessions_max.unwrap_or(0), 0, self.connections_max)?;
        for (name, rate) in [
            ("handshake_rate", settings.handshake_rate),
            ("session.message_rate", session.message_rate),
            ("session.byte_rate", session.byte_rate),
        ] {
            let lowest = rate.map_or(1, |rate| rate.per_second.min(rate.burst));
            range(name, lowest as usize, 1, u32::MAX as usize)?;
        }
        range("session.queue_bytes_max", session.queue_bytes_max, 1, 1 << 40)?;
        range("session.high_water_bytes", session.high_water_bytes, 1, session.queue_bytes_max)?;
        range("session.low_water_bytes", session.low_water_bytes, 0, session.high_water_bytes)
    }
}

/// An option that is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    name: &'static str,
    value: usize,
    low: usize,
    high: usize,
}

impl ConfigError {
    /// The option, as it is named in [`Config`].
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, which is not within {} and {}", self.name, self.value, self.low, self.high)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_and_named() {
        assert_eq!(Config::default().check(), Ok(()));
        let wrong = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().expect_err("out of range").to_string()
        };
        assert!(wrong(|config| config.shards = 5_000).starts_with("shards is 5000"));
        assert!(wrong(|config| config.receive_buffers = 500).contains("a power of two"));
        assert!(
            wrong(|config| config.settings.session.low_water_bytes = usize::MAX).starts_with("session.low_water_bytes")
        );
        assert!(wrong(|config| config.settings.limits.headers_max = 101).starts_with("headers_max"));
    }
}
