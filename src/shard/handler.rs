//! The application's side: what a shard calls, and what it answers.

use super::context::{Context, Session};
use crate::protocol::close::CloseCode;
use crate::protocol::error::ProtocolError;
use crate::protocol::handshake::UpgradeRequest;
use crate::protocol::http1::{Request, Response};
use crate::protocol::message::Message;
use std::fmt;

/// An application. Each shard has one of its own, made on the shard's thread, so it needs no lock and no `Send`.
///
/// Its methods are called by static dispatch, one at a time. They must not block: a shard is one thread.
///
/// ```
/// use ringwave::{Handler, Message, Session, Upgrade, UpgradeRequest, Context};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     type Data = ();
///     fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
///         Upgrade::accept(())
///     }
///     fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
///         session.send(message);
///     }
/// }
/// ```
pub trait Handler: Sized {
    /// What the application keeps with each session.
    type Data;

    /// A client asks for a WebSocket. Nothing has been answered yet.
    fn on_upgrade(
        &mut self,
        context: &mut Context<'_, Self::Data>,
        request: &UpgradeRequest<'_>,
    ) -> Upgrade<Self::Data>;

    /// The WebSocket is open; the 101 stands in the send queue.
    fn on_open(&mut self, session: &mut Session<'_, Self::Data>) {
        let _ = session;
    }

    /// A whole message.
    fn on_message(&mut self, session: &mut Session<'_, Self::Data>, message: Message<'_>);

    /// A ping. It has been answered.
    fn on_ping(&mut self, session: &mut Session<'_, Self::Data>, payload: &[u8]) {
        let _ = (session, payload);
    }

    /// A pong.
    fn on_pong(&mut self, session: &mut Session<'_, Self::Data>, payload: &[u8]) {
        let _ = (session, payload);
    }

    /// The session is over; called once for each [`Handler::on_open`]. Its subscriptions are gone already.
    fn on_close(&mut self, context: &mut Context<'_, Self::Data>, data: Self::Data, cause: &CloseCause) {
        let _ = (context, data, cause);
    }

    /// A request that asks for no WebSocket.
    fn on_request(&mut self, context: &mut Context<'_, Self::Data>, request: &Request<'_>) -> Response {
        let _ = (context, request);
        Response::new(404).text("not found\n")
    }
}

/// The answer to a client that asks for a WebSocket.
#[derive(Debug)]
pub struct Upgrade<T> {
    pub(super) verdict: Verdict<T>,
}

#[derive(Debug)]
pub(super) enum Verdict<T> {
    Accept { data: T, protocol: Option<String>, headers: Vec<(String, String)> },
    Reject(Response),
}

impl<T> Upgrade<T> {
    /// Opens the WebSocket and keeps `data` with it.
    pub const fn accept(data: T) -> Self {
        Self { verdict: Verdict::Accept { data, protocol: None, headers: Vec::new() } }
    }

    /// Answers with this response and closes.
    pub const fn reject(response: Response) -> Self {
        Self { verdict: Verdict::Reject(response) }
    }

    /// Chooses a subprotocol. One that the client did not offer turns the answer into a 500.
    #[must_use]
    pub fn protocol(mut self, name: impl Into<String>) -> Self {
        if let Verdict::Accept { protocol, .. } = &mut self.verdict {
            *protocol = Some(name.into());
        }
        self
    }

    /// Adds a header line to the 101. One that must not stand in a head turns the answer into a 500.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Verdict::Accept { headers, .. } = &mut self.verdict {
            headers.push((name.into(), value.into()));
        }
        self
    }
}

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
    /// More than `send_queue_bytes_max` were queued.
    SlowConsumer,
    /// The shard ended before the session did.
    Shutdown,
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
            Self::SlowConsumer => f.write_str("the peer reads too slowly"),
            Self::Shutdown => f.write_str("the server shut down"),
        }
    }
}
