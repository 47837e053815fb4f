//! What a shard is told at its start.

use crate::base::limits::{Limits, MIB};
use std::time::Duration;

/// How a shard treats its connections. `None` stands for "never" or "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSettings {
    /// What one connection may send.
    pub limits: Limits,
    /// From the accept, or the end of the last answer, to the end of the next request, its body included. Answer: 408, or close if
    /// nothing came.
    pub handshake_timeout: Duration,
    /// With neither a message nor a ping from the peer nor a message to it for this long, the session is closed
    /// with 1001. Pongs do not count.
    pub idle_timeout: Option<Duration>,
    /// With nothing at all from the peer for this long, it is pinged.
    pub ping_interval: Option<Duration>,
    /// With nothing at all for this long after a ping, the session ends.
    pub pong_timeout: Duration,
    /// From our close frame to the peer's, once it has been sent.
    pub close_timeout: Duration,
    /// A session ends when bytes are queued for it and its peer takes neither 256 KiB of them nor all for this long: it
    /// is unreachable or does not read. Found at most twice this long after. While bytes are queued, no other deadline
    /// runs. At least 1 ms.
    pub stall_timeout: Duration,
    /// Bytes that wait for one session behind a send in flight, at most; with more it ends. An empty queue takes one
    /// message of any length.
    pub send_queue_bytes_max: usize,
    /// With this many bytes queued for a session, nothing more is received from it …
    pub high_water_bytes: usize,
    /// … until its queue is down to this. At most `high_water_bytes`.
    pub low_water_bytes: usize,
}

impl Default for ShardSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: None,
            ping_interval: Some(Duration::from_secs(30)),
            pong_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            send_queue_bytes_max: 16 * MIB,
            high_water_bytes: MIB,
            low_water_bytes: MIB / 4,
        }
    }
}
