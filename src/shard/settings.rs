//! What a shard is told at its start.

use super::options::SessionOptions;
use crate::base::bucket::Rate;
use crate::base::limits::{Limits, MIB};
use std::time::Duration;

/// How a shard treats its connections. `None` stands for "never" or "no". A duration has any length; what is longer than
/// 198 days is never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSettings {
    /// What one connection may send.
    pub limits: Limits,
    /// What a session may do whose upgrade says nothing else.
    pub session: SessionOptions,
    /// From the accept, or the end of the last answer, to the end of the next request, its body included. Answer: 408, or close if
    /// nothing came.
    pub handshake_timeout: Duration,
    /// With neither a message nor a ping from the peer nor a message to it for this long, the session is closed
    /// with 1001. Pongs do not count.
    pub idle_timeout: Option<Duration>,
    /// With nothing at all from the peer for this long, or for up to a tenth less, it is pinged: those that came
    /// together are not all pinged together.
    pub ping_interval: Option<Duration>,
    /// With nothing at all for this long after a ping, the session ends.
    pub pong_timeout: Duration,
    /// From our close frame to the peer's, once it has been sent.
    pub close_timeout: Duration,
    /// A session ends when bytes are queued for it and its peer takes neither 256 KiB of them nor all for this long: it
    /// is unreachable or does not read. Found at most twice this long after. While bytes are queued, no other deadline
    /// runs. At least 1 ms; more than 49 days are 49 days.
    pub stall_timeout: Duration,
    /// How long the system tries to deliver what a peer does not acknowledge before it gives the connection up
    /// (TCP_USER_TIMEOUT, tcp(7)): what finds a peer that has vanished while something was sent to it.
    pub user_timeout: Option<Duration>,
    /// WebSockets of this shard at most; with more, upgrades are answered with 503 and `Retry-After`. Default: as many
    /// as `connections_max` allows.
    pub sessions_max: Option<usize>,
    /// WebSockets of one peer's address at most, in this shard; with more, upgrades are answered with 429 and
    /// `Retry-After`. An IPv6 address counts by its first 64 bits: they are one subscriber's.
    pub sessions_per_address_max: Option<u32>,
    /// Whether handlers are told where peers come from ([`Context::peer_addr`](super::Context::peer_addr)). On io_uring that
    /// is a command and a turn more for each connection, 5 % of what a handshake costs; with `sessions_per_address_max` it is
    /// done in any case, and on epoll it costs nothing.
    pub peer_addresses: bool,
    /// Upgrades a second; with more, they are answered with 503 and `Retry-After`.
    pub handshake_rate: Option<Rate>,
    /// What `Retry-After` says, or up to twice that: those that were refused together do not all come back together.
    /// In whole seconds, at least 1.
    pub retry_after: Duration,
    /// Memory for what is queued and for messages that have not come whole, of all sessions of this shard together.
    /// With more, the sessions that need most of it lose what their policies let go of, or end.
    pub memory_bytes_max: usize,
}

impl Default for ShardSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            session: SessionOptions::default(),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: None,
            ping_interval: Some(Duration::from_secs(30)),
            pong_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            user_timeout: Some(Duration::from_secs(60)),
            sessions_max: None,
            sessions_per_address_max: None,
            peer_addresses: true,
            handshake_rate: None,
            retry_after: Duration::from_secs(5),
            memory_bytes_max: 1024 * MIB,
        }
    }
}
