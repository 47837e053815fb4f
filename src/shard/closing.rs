//! Why sessions end, and what is known of one that has ended.

use super::mailbox::SessionKey;
use crate::protocol::close::CloseCode;
use crate::protocol::error::ProtocolError;
use std::fmt;
use std::time::Duration;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer sent a close frame, with this code and reason or without one.
    PeerClosed(Option<(CloseCode, String)>),
    /// We ended it: the peer answered our close frame or ended its stream after it, or the handler terminated it.
    Closed,
    /// The stream ended without a close frame: the peer is gone. With what the system said, if it said anything.
    PeerGone(Option<i32>),
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// Neither side said anything for `idle_timeout`.
    IdleTimeout,
    /// Nothing came for `pong_timeout` after a ping.
    PongTimeout,
    /// The peer did not answer our close frame within `close_timeout`.
    CloseTimeout,
    /// The peer took too little of what was queued for it within `stall_timeout`.
    Stalled,
    /// It lived for `lifetime_max`.
    LifetimeOver,
    /// More than `queue_bytes_max` were queued, and the session's policy says to end it then.
    SlowConsumer,
    /// The peer sent more than its rates allow, and its options say to end it then.
    RateExceeded,
    /// All sessions of the shard together needed more than `memory_bytes_max`, and this one needed most.
    OutOfMemory,
    /// The handler panicked while it was called for this session.
    HandlerPanicked,
    /// The shard ended before the session did.
    Shutdown,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// The peer: by a close frame, by the end of its stream, or by breaking a rule.
    Peer,
    /// This side.
    Us,
    /// The system: the connection broke.
    System,
}

impl fmt::Display for ClosedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::Us => "us",
            Self::System => "system",
        })
    }
}

impl CloseCause {
    /// One word for logs and counters.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PeerClosed(_) => "peer_closed",
            Self::Closed => "closed",
            Self::PeerGone(_) => "peer_gone",
            Self::Protocol(_) => "protocol",
            Self::IdleTimeout => "idle_timeout",
            Self::PongTimeout => "pong_timeout",
            Self::CloseTimeout => "close_timeout",
            Self::Stalled => "stalled",
            Self::LifetimeOver => "lifetime_over",
            Self::SlowConsumer => "slow_consumer",
            Self::RateExceeded => "rate_exceeded",
            Self::OutOfMemory => "out_of_memory",
            Self::HandlerPanicked => "handler_panicked",
            Self::Shutdown => "shutdown",
        }
    }

    /// Who ended it.
    pub const fn by(&self) -> ClosedBy {
        match self {
            Self::PeerClosed(_) | Self::PeerGone(None) | Self::Protocol(_) => ClosedBy::Peer,
            Self::PeerGone(Some(_)) => ClosedBy::System,
            _ => ClosedBy::Us,
        }
    }

    /// The code that follows from the cause; which one an application closed with stands in [`Ended::code`].
    pub const fn code(&self) -> Option<CloseCode> {
        match self {
            Self::PeerClosed(Some((code, _))) => Some(*code),
            Self::Protocol(error) => Some(error.close_code()),
            Self::IdleTimeout | Self::LifetimeOver => Some(CloseCode::GOING_AWAY),
            Self::RateExceeded => Some(CloseCode::POLICY_VIOLATION),
            Self::HandlerPanicked => Some(CloseCode::INTERNAL_ERROR),
            _ => None,
        }
    }

    /// What the system said, as errno(3) numbers it.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::PeerGone(errno) => *errno,
            _ => None,
        }
    }

    /// Whether the peer is beyond reach, or takes nothing: what is queued for it is dropped, also by the system.
    pub(super) const fn resets(&self) -> bool {
        matches!(self, Self::PongTimeout | Self::Stalled | Self::SlowConsumer | Self::OutOfMemory)
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed(None) => f.write_str("the peer closed"),
            // Whatever the peer wrote is shown escaped: a reason must not forge a line of a log.
            Self::PeerClosed(Some((code, reason))) => write!(f, "the peer closed: {code} {reason:?}"),
            Self::Closed => f.write_str("closed by us"),
            Self::PeerGone(None) => f.write_str("the peer is gone"),
            Self::PeerGone(Some(errno)) => write!(f, "the peer is gone: {}", std::io::Error::from_raw_os_error(*errno)),
            Self::Protocol(error) => error.fmt(f),
            Self::IdleTimeout => f.write_str("idle for too long"),
            Self::PongTimeout => f.write_str("the peer does not answer pings"),
            Self::CloseTimeout => f.write_str("the peer does not answer our close"),
            Self::Stalled => f.write_str("the peer takes nothing"),
            Self::LifetimeOver => f.write_str("it lived as long as it may"),
            Self::SlowConsumer => f.write_str("the peer reads too slowly"),
            Self::RateExceeded => f.write_str("the peer sends too much"),
            Self::OutOfMemory => f.write_str("the shard's memory is used up"),
            Self::HandlerPanicked => f.write_str("the handler panicked"),
            Self::Shutdown => f.write_str("the server shut down"),
        }
    }
}

/// A session that has ended: why, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which session it was.
    pub session: SessionKey,
    /// Why. Who it was and what the system said stand in its methods.
    pub cause: CloseCause,
    /// The code of the close frame that ended it: the peer's, or ours. `None` where no close frame did.
    pub code: Option<CloseCode>,
    /// Bytes that were queued for the peer and had not all gone to the system, our close frame not counted.
    pub queued_bytes: usize,
    /// Messages dropped for this session over its life.
    pub dropped: u64,
    /// Since bytes came from the peer last.
    pub since_received: Duration,
    /// Since the system took bytes for the peer last.
    pub since_sent: Duration,
    /// The last round trip of a ping, if there was one.
    pub round_trip: Option<Duration>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, queued_bytes, dropped, since_received, since_sent, .. } = self;
        write!(
            f,
            "{cause}; by {}, {queued_bytes} bytes queued, {dropped} messages dropped, received {since_received:.1?} ago, \
             sent {since_sent:.1?} ago",
            cause.by()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_and_which_code_follow_from_the_cause() {
        let closed = CloseCause::PeerClosed(Some((CloseCode::NORMAL, "a\nb\u{1b}[31m".to_owned())));
        assert_eq!((closed.by(), closed.code(), closed.errno()), (ClosedBy::Peer, Some(CloseCode::NORMAL), None));
        assert!(!closed.to_string().chars().any(char::is_control), "{closed}");
        let broken = CloseCause::PeerGone(Some(104));
        assert_eq!((broken.by(), broken.code(), broken.errno()), (ClosedBy::System, None, Some(104)));
        assert_eq!(CloseCause::Protocol(ProtocolError::MessageTooLong).code(), Some(CloseCode::MESSAGE_TOO_BIG));
        assert_eq!(CloseCause::SlowConsumer.by(), ClosedBy::Us);
    }
}
