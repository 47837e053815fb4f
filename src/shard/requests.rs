//! What becomes of a request: the answer of the application, or an upgrade, or the engine's own refusal.

use super::context::Context;
use super::core::Core;
use super::handler::{Handler, Verdict};
use super::session::{Flags, Stage};
use crate::base::key::Key;
use crate::base::limits::WORK_PER_REQUEST;
use crate::protocol::handshake::UpgradeRequest;
use crate::protocol::http1::Request;
use crate::protocol::response::{Response, ResponseFrame};

/// What a plain request or an upgrade leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The WebSocket is open: frames follow.
    Frames,
    /// Another request may follow.
    Request,
    /// The connection ends when the answer is out. The client may be sending more already.
    End,
}

/// Answers a request: opens the WebSocket, or sends a response.
pub(super) fn on_request<H: Handler>(
    core: &mut Core<H::Data>,
    handler: &mut H,
    link: Key,
    request: &Request<'_>,
) -> Next {
    let upgrade = match UpgradeRequest::of(request) {
        Ok(Some(upgrade)) => upgrade,
        Ok(None) => {
            let response = handler.on_request(&mut Context::new(core, Some(link)), request);
            // RFC 9112 §9.3.2: a client that pipelines takes an end before all is answered.
            let keep_alive = request.keeps_alive() && !response.closes() && !core.is_short_of_memory();
            core.answer(link, &response, request.method() == "HEAD", keep_alive);
            return if keep_alive { Next::Request } else { Next::End };
        }
        Err(error) => {
            let response = error.into();
            handler.on_refused(&mut Context::new(core, Some(link)), Some(request), &response);
            core.answer(link, &response, request.method() == "HEAD", false);
            return Next::End;
        }
    };
    let refused = match core.admit(link) {
        Ok(()) => match handler.on_upgrade(&mut Context::new(core, Some(link)), &upgrade).verdict {
            Verdict::Reject(response) => {
                core.give_handshake_back();
                response
            }
            Verdict::Accept { data, protocol, headers, options } => {
                let options = options.map_or(core.settings.session, |options| *options);
                let opened = core.options.enter(options).ok().filter(|number| {
                    let written = core.append(link, |_, out| upgrade.encode_accept(protocol.as_deref(), &headers, out));
                    let opened = matches!(written, Some(Ok(())));
                    if !opened {
                        core.options.leave(*number);
                    }
                    opened
                });
                if let Some(number) = opened {
                    core.open(link, data, number);
                    return Next::Frames;
                }
                core.give_handshake_back();
                // What the application wants to say must not be said: nothing was written.
                Response::new(500).text("the upgrade could not be answered\n")
            }
        },
        Err(response) => {
            handler.on_refused(&mut Context::new(core, Some(link)), Some(request), &response);
            response
        }
    };
    core.answer(link, &refused, false, false);
    Next::End
}

impl<T> Core<T> {
    // Upgrades

    /// Whether one more WebSocket is welcome. Asked before the application is: RFC 6455 §4.2.2, before 101 any answer will do.
    fn admit(&mut self, link: Key) -> Result<(), Response> {
        if self.counters().draining.get() > 0 {
            return Err(self.refusal(link, 503, "the server is about to end\n"));
        }
        if self.settings.sessions_max.is_some_and(|max| self.open_count >= max) {
            self.counters().refused_full.add(1);
            return Err(self.refusal(link, 503, "there are as many sessions as there may be\n"));
        }
        if let Some(max) = self.settings.sessions_per_address_max
            && let Some(peer) = self.addresses.arrival(link)
            && self.addresses.count(peer) >= max
        {
            self.counters().refused_address.add(1);
            return Err(self.refusal(link, 429, "there are as many sessions from your address as there may be\n"));
        }
        if let Some(rate) = self.settings.handshake_rate
            && self.handshakes.try_take(rate, self.uptime).is_err()
        {
            self.counters().refused_rate.add(1);
            return Err(self.refusal(link, 503, "too many come at once\n"));
        }
        Ok(())
    }

    /// No WebSocket has been opened after all: the next one may be.
    fn give_handshake_back(&mut self) {
        if let Some(rate) = self.settings.handshake_rate {
            self.handshakes.give_back(rate, 1);
        }
    }

    /// What tells a client to come back later. When differs from one to the next, lest all come back at once.
    pub(super) fn refusal(&self, link: Key, status: u16, text: &'static str) -> Response {
        // Whoever is told to wait for a century has understood.
        let wait = self.settings.retry_after.as_secs().clamp(1, u64::from(u32::MAX));
        let wait = wait + ((wait * u64::from(link.scattered())) >> 32);
        Response::new(status).header("Retry-After", wait.to_string()).text(text)
    }

    /// The 101 is queued: from here it is a WebSocket, with the options of this number.
    fn open(&mut self, key: Key, data: T, options: u16) {
        let (now, limited) = (self.now, self.settings.sessions_per_address_max.is_some());
        let has_lifetime = self.options.lifetime(options).is_some();
        let keeps_peer = self.options.get(options).keeps_peer_addr;
        let peer = self.addresses.take_arrival(key);
        if let Some(state) = self.sessions.get_mut(key) {
            state.enter(Stage::Open, now);
            state.last_message = now;
            state.options = options;
            state.data = Some(data);
            if let Some(peer) = peer.filter(|_| limited || keeps_peer) {
                let rare = state.rare_mut();
                rare.peer = Some(peer);
                rare.address_counted = limited;
                if limited {
                    self.addresses.enter(peer);
                }
            }
            if has_lifetime {
                state.rare_mut().opened_at = now;
            }
        }
        self.open_count += 1;
        self.counters().opened.add(1);
        self.counters().sessions.set(self.open_count as u64);
        self.arm_timer(key);
    }

    // Answers

    /// Queues a response. Where so many wait that nothing more is received, what has been received waits too: one read may hold
    /// requests for any number of answers.
    pub(super) fn answer(&mut self, key: Key, response: &Response, head_only: bool, keep_alive: bool) {
        if let Some(state) = self.sessions.get_mut(key) {
            state.since = self.now;
        }
        let date = self.dates.at(self.time);
        let frame = ResponseFrame { head_only, keep_alive, date: date.as_str() };
        let body = self.append(key, |_, out| response.encode(frame, out)).unwrap_or_default();
        self.change_queue(key, |queue, _, supplies| queue.append_shared(&mut supplies.batches, &body));
        // What waits behind a send in flight is flushed by none that would look.
        let options = self.settings.session;
        self.look_at_high_water(key, &options, None, None);
        self.stops_reading |= self.sessions.get(key).is_some_and(|state| state.flags.has(Flags::HIGH));
        self.work += WORK_PER_REQUEST;
        self.counters().responses.add(1);
    }
}
