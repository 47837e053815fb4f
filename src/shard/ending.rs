//! How sessions end: in order, at their deadline, with the stream, by a panic, for want of anything.
//!
//! ```text
//!  Open ──close──▶ Closing ──peer's close──▶ Finishing ─────── flushed ──▶ close
//!   │                 └── close_timeout ──▶ gone
//!   ├─ peer breaks a rule ──▶ FinishingLong ── flushed ──▶ Lingering ── peer ends, or LINGER ──▶ close
//!   └─ terminated, too slow ──▶ Doomed ──── turn's end ──▶ gone
//! ```

use super::Shard;
use super::closing::{CloseCause, Ended};
use super::context::Context;
use super::deadline::Deadline;
use super::handler::Handler;
use super::session::{Flags, Stage};
use super::shielded;
use crate::base::clock::Tick;
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::driver::{Driver, Link};
use crate::protocol::close::CloseCode;
use crate::protocol::response::Response;
use std::io;

impl<D: Driver, H: Handler> Shard<D, H> {
    /// Nothing more is read: the session is over for the application, and the link closes once its queue is out.
    pub(super) fn finish(&mut self, key: Key, stage: Stage, cause: &CloseCause) {
        debug_assert!(matches!(stage, Stage::Finishing | Stage::FinishingLong));
        self.report_close(key, cause);
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        state.enter(stage, self.core.now);
        self.core.memory.recharge(state.decoder.held_bytes(), 0);
        state.decoder.end();
        // What was to be received into is not kept for a peer that has nothing to say any more.
        self.driver.drop_room(key);
        // The peer's end of stream must be seen.
        self.core.reading.push(key);
        self.core.arm_timer(key);
        self.finish_if_flushed(key);
    }

    /// Ends a session now: what is queued for it is lost.
    pub(super) fn end(&mut self, key: Key, cause: &CloseCause) {
        if !planted(Fault::EndNotTold) {
            self.report_close(key, cause);
        }
        let Some(state) = self.core.sessions.remove(key) else { return };
        self.core.addresses.take_arrival(key);
        let unread = state.rare().map_or(0, |rare| rare.unread.len());
        self.core.memory.recharge(state.decoder.held_bytes() + unread, 0);
        if let Some(queue) = state.queue {
            self.core.put_queue(queue);
        }
        if cause.resets() {
            // The system, too, lets go of what such a peer does not take.
            self.driver.reset(key);
        } else {
            self.driver.close(key);
        }
    }

    /// Tells the application, once, that a session of its is over.
    pub(super) fn report_close(&mut self, key: Key, cause: &CloseCause) {
        let core = &mut self.core;
        let Some(data) = core.sessions.get_mut(key).and_then(|state| state.data.take()) else { return };
        if !planted(Fault::SubscriptionKept) {
            core.unsubscribe_all(key);
        }
        if !planted(Fault::ProducerForgotten) {
            core.let_producers_go(key);
        }
        core.producers.forget(key);
        let session = core.global(key);
        let Some(state) = core.sessions.get_mut(key) else { return };
        // Not this session's any more, and perhaps soon others'.
        core.options.leave(std::mem::take(&mut state.options));
        let since = |time: Tick| Tick::duration(core.now.since(time));
        let rare = state.rare();
        let ended = Ended {
            session,
            cause: cause.clone(),
            // The application's came first if there is one: nothing follows a close frame.
            code: rare.and_then(|rare| rare.close_code).or_else(|| cause.code()),
            queued_bytes: state.queue.as_ref().map_or(0, |queue| queue.undelivered_bytes()),
            dropped: rare.map_or(0, |rare| rare.dropped),
            since_received: since(state.last_received),
            since_sent: since(state.last_sent),
            round_trip: state.round_trip(),
        };
        if let Some(peer) = rare.filter(|rare| rare.address_counted).and_then(|rare| rare.peer) {
            core.addresses.leave(peer);
        }
        core.open_count -= 1;
        core.counters().sessions.set(core.open_count as u64);
        core.counters().count_ended(cause);
        let handler = &mut self.handler;
        if shielded(|| handler.on_close(&mut Context::new(core, Some(key)), data, &ended)).is_none() {
            core.counters().handler_panics.add(1);
        }
    }

    /// The handler panicked while it was called for this session. A panic costs its session, and nobody else.
    pub(super) fn end_after_panic(&mut self, key: Key) {
        self.core.counters().handler_panics.add(1);
        match self.core.sessions.get(key).map(|state| state.stage) {
            Some(Stage::Head) => {
                self.core.answer(key, &Response::new(500).text("the server failed\n"), false, false);
            }
            Some(Stage::Open) => {
                self.core.close_with(key, CloseCode::INTERNAL_ERROR, "the server failed");
            }
            // It has said its goodbye already, or has none to say.
            Some(Stage::Closing) => {}
            _ => return,
        }
        self.finish(key, Stage::FinishingLong, &CloseCause::HandlerPanicked);
    }

    /// The last step of a session that finishes, when its queue is out.
    pub(super) fn finish_if_flushed(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        if !state.is_flushed() {
            return;
        }
        match state.stage {
            Stage::FinishingLong if !state.flags.has(Flags::PEER_ENDED) => {
                state.enter(Stage::Lingering, self.core.now);
                self.driver.shutdown(key);
                self.core.arm_timer(key);
            }
            Stage::Finishing | Stage::FinishingLong => self.end(key, &CloseCause::Closed),
            Stage::Head | Stage::Open | Stage::Closing | Stage::Doomed | Stage::Lingering => {}
        }
    }

    /// The peer has ended its side, or the stream broke.
    pub(super) fn on_receive_ended(&mut self, link: Link, error: Option<&io::Error>) {
        let Some(state) = self.core.sessions.get_mut(link) else { return };
        state.flags.set(Flags::PEER_ENDED, true);
        if state.flags.has(Flags::BEHIND) && error.is_none() {
            // What came before the end is read first.
            return;
        }
        let cause = match state.stage {
            Stage::Closing => CloseCause::Closed,
            _ => CloseCause::PeerGone(error.and_then(io::Error::raw_os_error)),
        };
        match state.stage {
            // At the turn's end, for the cause that doomed it.
            Stage::Doomed => {}
            _ if error.is_some() => self.end(link, &cause),
            Stage::Head | Stage::Open | Stage::Closing => self.finish(link, Stage::Finishing, &cause),
            Stage::Finishing | Stage::FinishingLong => self.finish_if_flushed(link),
            Stage::Lingering => self.end(link, &cause),
        }
    }

    // Deadlines

    pub(super) fn fire_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.core.wheel.advance(self.core.now, &mut fired);
        for key in fired.drain(..) {
            self.on_timer(key);
        }
        self.fired = fired;
    }

    /// Activity does not touch the wheel: whether a deadline has really come is seen only here.
    fn on_timer(&mut self, key: Key) {
        let now = self.core.now;
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        if !state.flags.has(Flags::TIMED) || !now.reached(state.timer_at) {
            return;
        }
        state.flags.set(Flags::TIMED, false);
        state.age(now);
        match self.core.deadlines.next(key, state, &self.core.options) {
            Some((due, deadline)) if now.reached(due) => self.on_deadline(key, deadline),
            _ if planted(Fault::TimerForgotten) => {}
            _ => self.core.arm_timer(key),
        }
    }

    fn on_deadline(&mut self, key: Key, deadline: Deadline) {
        let Some(state) = self.core.sessions.get(key) else { return };
        match deadline {
            Deadline::Stall => self.end(key, &CloseCause::Stalled),
            Deadline::Handshake if state.decoder.is_unfinished() => {
                let response = Response::new(408).text("the request did not come in time\n");
                self.core.answer(key, &response, false, false);
                self.finish(key, Stage::FinishingLong, &CloseCause::Closed);
            }
            Deadline::Close if state.stage == Stage::Closing => self.end(key, &CloseCause::CloseTimeout),
            Deadline::Handshake | Deadline::Close | Deadline::Linger => self.end(key, &CloseCause::Closed),
            Deadline::Idle => self.close_at_deadline(key, "idle for too long", &CloseCause::IdleTimeout),
            Deadline::Lifetime => self.close_at_deadline(key, "it may not live longer", &CloseCause::LifetimeOver),
            Deadline::Pong => self.end(key, &CloseCause::PongTimeout),
            Deadline::Ping => self.ping(key),
            Deadline::Resume => {
                self.core.hold_back(key, Flags::THROTTLED, false);
                self.core.arm_timer(key);
            }
        }
    }

    /// Over for the application; the handshake of closing goes on.
    fn close_at_deadline(&mut self, key: Key, reason: &str, cause: &CloseCause) {
        self.core.close_with(key, CloseCode::GOING_AWAY, reason);
        self.report_close(key, cause);
    }

    fn ping(&mut self, key: Key) {
        if let Some(state) = self.core.sessions.get_mut(key) {
            state.since = self.core.now;
            state.flags.set(Flags::PINGED, true);
            state.flags.set(Flags::PING_LEAVES, true);
        }
        self.core.ping_for_round_trip(key);
        self.core.arm_timer(key);
    }

    /// The deadline has come: whoever is left is told, and the links are closed with the driver.
    pub(super) fn end_all(&mut self) {
        for index in 0..self.core.sessions.slots() {
            if let Some(key) = self.core.sessions.key_at(index) {
                self.end(key, &CloseCause::Shutdown);
            }
        }
    }
}
