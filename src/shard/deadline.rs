//! When a session must be looked at: the settings' durations in ticks, and the earliest of a stage's deadlines.
//!
//! Asked at every end of a send, so it is all additions: durations are converted once, at the shard's start.

use super::session::{Flags, SessionState, Stage};
use super::settings::ShardSettings;
use crate::base::clock::Tick;
use crate::base::limits::LINGER;
use std::time::Duration;

/// The settings' durations, in ticks of at least 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    handshake: u32,
    idle: Option<u32>,
    ping_interval: Option<u32>,
    pong: u32,
    close: u32,
    stall: u32,
    linger: u32,
}

impl Deadlines {
    pub(super) fn new(settings: &ShardSettings) -> Self {
        let ticks = |duration: Duration| Tick::count(duration).max(1);
        Self {
            handshake: ticks(settings.handshake_timeout),
            idle: settings.idle_timeout.map(ticks),
            ping_interval: settings.ping_interval.map(ticks),
            pong: ticks(settings.pong_timeout),
            close: ticks(settings.close_timeout),
            stall: ticks(settings.stall_timeout),
            linger: ticks(LINGER),
        }
    }

    /// The earliest deadline of a session.
    #[inline]
    pub(super) fn next<T>(&self, state: &SessionState<T>) -> Option<Tick> {
        if !state.is_flushed() {
            // Nothing else runs while the peer is still being sent to.
            return Some(state.last_alive.plus(self.stall));
        }
        match state.stage {
            Stage::Head => Some(state.since.plus(self.handshake)),
            Stage::Closing | Stage::Finishing | Stage::FinishingLong => Some(state.since.plus(self.close)),
            Stage::Lingering => Some(state.since.plus(self.linger)),
            Stage::Open => {
                let idle = self.idle_at(state);
                let alive = match state.flags.has(Flags::PINGED) {
                    true => Some(state.since.plus(self.pong)),
                    false => self.ping_interval.map(|interval| state.last_alive.plus(interval)),
                };
                match (idle, alive) {
                    (Some(idle), Some(alive)) => Some(if alive.reached(idle) { idle } else { alive }),
                    (one, other) => one.or(other),
                }
            }
        }
    }

    /// When a session will have been idle for too long.
    pub(super) fn idle_at<T>(&self, state: &SessionState<T>) -> Option<Tick> {
        self.idle.map(|timeout| state.last_message.plus(timeout))
    }

    /// When to look at a session again at the latest: whether something is queued then and not taken is seen only there.
    #[inline]
    pub(super) const fn look_at(&self, now: Tick) -> Tick {
        now.plus(self.stall)
    }
}
