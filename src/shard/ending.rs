//! How sessions end: in order, at their deadline, with the stream, with the shard.
//!
//! ```text
//!  Open ──close──▶ Closing ──peer's close──▶ Finishing ─────── flushed ──▶ close
//!   │                 └── close_timeout ──▶ gone
//!   └─ peer breaks a rule ──▶ FinishingLong ── flushed ──▶ Lingering ── peer ends, or LINGER ──▶ close
//! ```

use super::Shard;
use super::context::Context;
use super::handler::{CloseCause, Handler};
use super::session::{Flags, Stage};
use crate::base::key::Key;
use crate::driver::{Driver, Link};
use crate::protocol::http1::Response;
use std::io;
use std::time::Duration;

impl<D: Driver, H: Handler> Shard<D, H> {
    /// Nothing more is read: the session is over for the application, and the link closes once its queue is out.
    pub(super) fn finish(&mut self, key: Key, stage: Stage, cause: &CloseCause) {
        debug_assert!(matches!(stage, Stage::Finishing | Stage::FinishingLong));
        self.report_close(key, cause);
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        state.enter(stage, self.core.now);
        state.decoder.end();
        if state.flags.set(Flags::RECEIVE_PAUSED, false) {
            // The peer's end of stream must still be seen.
            self.driver.recv_start(key);
        }
        self.core.arm_timer(key);
        self.finish_if_flushed(key);
    }

    /// Ends a session now: what is queued for it is lost.
    pub(super) fn end(&mut self, key: Key, cause: &CloseCause) {
        self.report_close(key, cause);
        if let Some(state) = self.core.sessions.remove(key) {
            if let Some(batch) = state.pending {
                self.core.batches.put(batch);
            }
            self.driver.close(key);
        }
    }

    /// Tells the application, once, that a session of its is over.
    fn report_close(&mut self, key: Key, cause: &CloseCause) {
        let Some(data) = self.core.sessions.get_mut(key).and_then(|state| state.data.take()) else { return };
        self.core.unsubscribe_all(key);
        self.core.counters().sessions.sub(1);
        self.handler.on_close(&mut Context::new(&mut self.core), data, cause);
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
            Stage::Head | Stage::Open | Stage::Closing | Stage::Lingering => {}
        }
    }

    /// The peer has ended its side, or the stream broke.
    pub(super) fn on_receive_ended(&mut self, link: Link, error: Option<&io::Error>) {
        let Some(state) = self.core.sessions.get_mut(link) else { return };
        state.flags.set(Flags::PEER_ENDED, true);
        let cause = match state.stage {
            Stage::Closing => CloseCause::Closed,
            _ => CloseCause::PeerGone(error.and_then(io::Error::raw_os_error)),
        };
        match state.stage {
            _ if error.is_some() => self.end(link, &cause),
            Stage::Head | Stage::Open | Stage::Closing => self.finish(link, Stage::Finishing, &cause),
            Stage::Finishing | Stage::FinishingLong => self.finish_if_flushed(link),
            Stage::Lingering => self.end(link, &cause),
        }
    }

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
        match self.core.deadlines.next(state) {
            Some(due) if now.reached(due) => self.on_deadline(key),
            _ => self.core.arm_timer(key),
        }
    }

    fn on_deadline(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get(key) else { return };
        if !state.is_flushed() {
            self.end(key, &CloseCause::Stalled);
            return;
        }
        match state.stage {
            Stage::Head if state.decoder.is_unfinished() => {
                let response = Response::new(408).text("the request did not come in time\n");
                self.core.answer(key, &response, false, false);
                self.finish(key, Stage::FinishingLong, &CloseCause::Closed);
            }
            Stage::Head | Stage::Finishing | Stage::FinishingLong | Stage::Lingering => {
                self.end(key, &CloseCause::Closed);
            }
            Stage::Closing => self.end(key, &CloseCause::CloseTimeout),
            Stage::Open => self.on_open_deadline(key),
        }
    }

    /// Idle for too long, silent after a ping, or silent for so long that a ping is due.
    fn on_open_deadline(&mut self, key: Key) {
        let now = self.core.now;
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        let idle = self.core.deadlines.idle_at(state).is_some_and(|at| now.reached(at));
        if idle {
            self.core.close_for(key, &CloseCause::IdleTimeout);
            // Over for the application; the handshake of closing goes on.
            self.report_close(key, &CloseCause::IdleTimeout);
        } else if state.flags.has(Flags::PINGED) {
            self.end(key, &CloseCause::PongTimeout);
        } else {
            state.since = now;
            state.flags.set(Flags::PINGED, true);
            self.core.ping(key, b"");
            self.core.arm_timer(key);
        }
    }

    /// Stops accepting and says goodbye to everybody.
    pub(super) fn begin_shutdown(&mut self, deadline: Duration) {
        if self.ends_at.is_some() {
            return;
        }
        self.ends_at = Some(self.core.time + deadline);
        self.driver.stop_listening();
        for index in 0..self.core.sessions.slots() {
            let Some(key) = self.core.sessions.key_at(index) else { continue };
            match self.core.sessions.get(key).map(|state| state.stage) {
                Some(Stage::Open) => self.core.close_for(key, &CloseCause::Shutdown),
                Some(Stage::Head) => self.finish(key, Stage::Finishing, &CloseCause::Shutdown),
                // Our last bytes have been out for a while: the end does not wait for what strangers still send.
                Some(Stage::Lingering) => self.end(key, &CloseCause::Closed),
                _ => {}
            }
        }
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
