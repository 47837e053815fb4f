//! What happens to received bytes: requests and upgrades, messages, control frames, failures.

use super::Shard;
use super::context::{Context, Session};
use super::core::Core;
use super::handler::{CloseCause, Handler, Verdict};
use super::session::{Flags, SessionState, Stage};
use crate::base::key::Key;
use crate::base::limits::{Delivery, Limits};
use crate::driver::{Buffer, Driver, Link};
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::decoder::{Decoder, Event};
use crate::protocol::encoder::Server;
use crate::protocol::error::Failure;
use crate::protocol::handshake::UpgradeRequest;
use crate::protocol::http1::{Request, Response};

/// What a plain request or an upgrade leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The WebSocket is open: frames follow.
    Frames,
    /// Another request may follow.
    Request,
    /// The connection ends when the answer is out. The client may be sending more already.
    End,
}

/// How reading a buffer ended, where that ends the session.
#[derive(Debug)]
enum Ending {
    /// The peer's close frame has been answered, or answered ours.
    Closed(CloseCause),
    /// An answer with `Connection: close` is queued.
    Answered,
    Failed(Failure),
}

impl<D: Driver, H: Handler> Shard<D, H> {
    pub(super) fn on_received(&mut self, link: Link, buffer: Buffer) {
        self.core.counters().bytes_received.add(buffer.len() as u64);
        if let Some(state) = self.core.sessions.get_mut(link) {
            state.last_alive = self.core.now;
            let answers_ping = state.stage == Stage::Open && state.flags.set(Flags::PINGED, false);
            if state.stage <= Stage::Closing {
                // Taken out, so that the handler has the whole world while events are borrowed from the decoder.
                let mut decoder = std::mem::take(&mut state.decoder);
                let ending = self.read(link, &buffer, &mut decoder);
                if let Some(state) = self.core.sessions.get_mut(link) {
                    state.decoder = decoder;
                }
                if let Some(ending) = ending {
                    self.on_ending(link, ending);
                }
            }
            if answers_ping {
                // The next ping may be due before the deadline of this one.
                self.core.arm_timer(link);
            }
        }
        self.driver.recycle(buffer);
    }

    /// Pulls all events out of a buffer.
    fn read(&mut self, link: Link, buffer: &Buffer, decoder: &mut Decoder<Server>) -> Option<Ending> {
        let Self { driver, handler, core, .. } = self;
        // A handler is given whole messages.
        let limits = Limits { delivery: Delivery::Whole, ..core.settings.limits };
        let mut events = decoder.receive(driver.bytes(buffer), &limits);
        loop {
            let event = match events.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => return None,
                Err(failure) => return Some(Ending::Failed(failure)),
            };
            match event {
                Event::Message(message) | Event::Assembled(message, _) => {
                    if core.begin_message(link) {
                        handler.on_message(&mut Session::new(core, link), message);
                    }
                }
                Event::Ping(payload) => {
                    if core.answer_ping(link, payload) {
                        handler.on_ping(&mut Session::new(core, link), payload);
                    }
                }
                Event::Pong(payload) => {
                    if core.is_open(link) {
                        handler.on_pong(&mut Session::new(core, link), payload);
                    }
                }
                Event::Close(close) => return Some(Ending::Closed(core.on_close_frame(link, close))),
                Event::Request(request) => match on_request(core, handler, link, &request) {
                    Next::Frames => {
                        events.accept_upgrade();
                        handler.on_open(&mut Session::new(core, link));
                    }
                    Next::Request => events.accept_next_request(),
                    Next::End => {
                        events.end();
                        return Some(Ending::Answered);
                    }
                },
                Event::ContinueExpected => {
                    // RFC 9110 §10.1.1: the body is welcome.
                    core.queue(link, |_, batch| {
                        batch.append(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
                    });
                }
                Event::Chunk(_) => unreachable!("messages are delivered whole"),
                Event::Upgraded(_) => unreachable!("a server receives no response"),
            }
        }
    }

    fn on_ending(&mut self, link: Link, ending: Ending) {
        match ending {
            Ending::Closed(cause) => self.finish(link, Stage::Finishing, &cause),
            Ending::Answered => self.finish(link, Stage::FinishingLong, &CloseCause::Closed),
            Ending::Failed(Failure::Frame(error)) => {
                self.core.close(link, Some(CloseFrame { code: error.close_code(), reason: error.rule() }));
                self.finish(link, Stage::FinishingLong, &CloseCause::Protocol(error));
            }
            Ending::Failed(Failure::Head(error)) => {
                self.core.answer(link, &error.into(), false, false);
                self.finish(link, Stage::FinishingLong, &CloseCause::Closed);
            }
            Ending::Failed(Failure::Response(_)) => unreachable!("a server receives no response"),
        }
    }
}

/// Answers a request: opens the WebSocket, or sends a response.
fn on_request<H: Handler>(core: &mut Core<H::Data>, handler: &mut H, link: Key, request: &Request<'_>) -> Next {
    let upgrade = match UpgradeRequest::of(request) {
        Ok(Some(upgrade)) => upgrade,
        Ok(None) => {
            let response = handler.on_request(&mut Context::new(core), request);
            // RFC 9112 §9.3.2: a client that pipelines takes an end before all is answered.
            let keep_alive = request.keeps_alive() && !response.closes() && core.takes_more(link);
            core.answer(link, &response, request.method() == "HEAD", keep_alive);
            return if keep_alive { Next::Request } else { Next::End };
        }
        Err(error) => {
            core.answer(link, &error.into(), false, false);
            return Next::End;
        }
    };
    let response = match handler.on_upgrade(&mut Context::new(core), &upgrade).verdict {
        Verdict::Reject(response) => response,
        Verdict::Accept { data, protocol, headers } => {
            let written = core
                .queue(link, |_, batch| batch.append(|out| upgrade.encode_accept(protocol.as_deref(), &headers, out)));
            match written {
                Some(Ok(())) => {
                    core.open(link, data);
                    return Next::Frames;
                }
                // What the application wants to say must not be said: nothing was written.
                _ => Response::new(500).text("the upgrade could not be answered\n"),
            }
        }
    };
    core.answer(link, &response, false, false);
    Next::End
}

impl<T> Core<T> {
    fn is_open(&self, key: Key) -> bool {
        self.sessions.get(key).is_some_and(|state| state.stage == Stage::Open)
    }

    /// A message came: whether the application wants to hear of it. After our close frame it does not.
    #[inline]
    fn begin_message(&mut self, key: Key) -> bool {
        match self.sessions.get_mut(key) {
            Some(state) if state.stage == Stage::Open => {
                state.last_message = self.now;
                self.counters().messages_received.add(1);
                true
            }
            _ => false,
        }
    }

    /// RFC 6455 §5.5.2: a pong with the same payload, unless a close frame has gone out.
    fn answer_ping(&mut self, key: Key, payload: &[u8]) -> bool {
        if !self.is_open(key) {
            return false;
        }
        let now = self.now;
        self.queue(key, |state, batch| {
            state.last_message = now;
            let sent = batch.append(|out| state.encoder.encode_pong((), payload, out));
            debug_assert!(sent.is_ok(), "a ping's payload fits into a pong");
        });
        true
    }

    /// The peer's close frame: answered with the same code, unless it is the answer to ours (RFC 6455 §5.5.1).
    fn on_close_frame(&mut self, key: Key, close: Option<CloseFrame<'_>>) -> CloseCause {
        let echo = close.map(|CloseFrame { code, .. }| CloseFrame { code, reason: "" });
        if self.close(key, echo) {
            CloseCause::PeerClosed(close.map(|CloseFrame { code, reason }| (code, reason.to_owned())))
        } else {
            CloseCause::Closed
        }
    }

    /// Whether another answer may be queued behind what is: one read may hold requests for any number of them.
    fn takes_more(&self, key: Key) -> bool {
        let buffered = self.sessions.get(key).map_or(0, SessionState::buffered_bytes);
        buffered < self.settings.send_queue_bytes_max
    }

    /// Queues a response.
    pub(super) fn answer(&mut self, key: Key, response: &Response, head_only: bool, keep_alive: bool) {
        let now = self.now;
        self.queue(key, |state, batch| {
            state.since = now;
            batch.append(|out| response.encode(head_only, keep_alive, out));
        });
        self.counters().responses.add(1);
    }

    /// The 101 is queued: from here it is a WebSocket.
    fn open(&mut self, key: Key, data: T) {
        let now = self.now;
        if let Some(state) = self.sessions.get_mut(key) {
            state.enter(Stage::Open, now);
            state.last_message = now;
            state.data = Some(data);
        }
        self.counters().opened.add(1);
        self.counters().sessions.add(1);
        self.arm_timer(key);
    }

    /// A close code with a reason of ours, for a session that the engine ends.
    pub(super) fn close_for(&mut self, key: Key, cause: &CloseCause) {
        let (code, reason) = match cause {
            CloseCause::IdleTimeout => (CloseCode::GOING_AWAY, "idle for too long"),
            _ => (CloseCode::GOING_AWAY, "the server shuts down"),
        };
        self.close_with(key, code, reason);
    }
}
