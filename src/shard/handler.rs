//! The application's side: what a shard calls, and what it answers.

use super::closing::Ended;
use super::context::{Context, Session};
use super::options::SessionOptions;
use crate::protocol::handshake::UpgradeRequest;
use crate::protocol::http1::Request;
use crate::protocol::message::{Chunk, Message};
use crate::protocol::response::Response;

/// An application. Each shard has one of its own, made on the shard's thread, so it needs no lock and no `Send`.
///
/// Its methods are called by static dispatch, one at a time. They must not block: a shard is one thread.
///
/// A method that panics costs the session that it was called for its life: a 1011, or a 500 before the upgrade
/// ([`CloseCause::HandlerPanicked`](super::CloseCause::HandlerPanicked)). The shard and all others go on, with the handler
/// as the panic left it. (With `panic = "abort"` the process ends, as that says.)
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

    /// A part of a message that did not come in one piece, for sessions whose options say
    /// [`chunks`](super::SessionOptions::chunks): as it comes, in order, memory for the rest is not needed. A message that
    /// comes in one piece is an [`on_message`](Handler::on_message) there too.
    fn on_chunk(&mut self, session: &mut Session<'_, Self::Data>, chunk: Chunk<'_>) {
        let _ = (session, chunk);
    }

    /// The engine refuses a request by itself, before [`Handler::on_upgrade`] or [`Handler::on_request`] was asked: it is malformed,
    /// there are too many sessions, or the server ends. `request` is `None` where it could not be read.
    fn on_refused(
        &mut self,
        context: &mut Context<'_, Self::Data>,
        request: Option<&Request<'_>>,
        response: &Response,
    ) {
        let _ = (context, request, response);
    }

    /// The queue has been at `high_water_bytes` and is down to `low_water_bytes`.
    fn on_drain(&mut self, session: &mut Session<'_, Self::Data>) {
        let _ = session;
    }

    /// So many messages were dropped for this session in this turn: by its policy, or for want of memory. Whoever closed
    /// for it is told by [`Handler::on_close`] only.
    fn on_dropped(&mut self, session: &mut Session<'_, Self::Data>, count: u64) {
        let _ = (session, count);
    }

    /// A ping. It has been answered.
    fn on_ping(&mut self, session: &mut Session<'_, Self::Data>, payload: &[u8]) {
        let _ = (session, payload);
    }

    /// A pong.
    fn on_pong(&mut self, session: &mut Session<'_, Self::Data>, payload: &[u8]) {
        let _ = (session, payload);
    }

    /// The session is over; called once for each [`Handler::on_open`]. Its subscriptions are gone already.
    fn on_close(&mut self, context: &mut Context<'_, Self::Data>, data: Self::Data, ended: &Ended) {
        let _ = (context, data, ended);
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
    Accept { data: T, protocol: Option<String>, headers: Vec<(String, String)>, options: Option<Box<SessionOptions>> },
    Reject(Response),
}

impl<T> Upgrade<T> {
    /// Opens the WebSocket and keeps `data` with it.
    pub const fn accept(data: T) -> Self {
        Self { verdict: Verdict::Accept { data, protocol: None, headers: Vec::new(), options: None } }
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

    /// What this session may do, if it is not what [`ShardSettings::session`](super::ShardSettings::session) says. At most
    /// 4 096 different ones in a shard at one time; one more turns the answer into a 500.
    #[must_use]
    pub fn options(mut self, new: SessionOptions) -> Self {
        if let Verdict::Accept { options, .. } = &mut self.verdict {
            *options = Some(Box::new(new));
        }
        self
    }
}
