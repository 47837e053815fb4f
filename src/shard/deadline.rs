//! When a session must be looked at: the settings' durations in ticks, and the earliest of a stage's deadlines.
//!
//! Asked at every end of a send, so it is all additions: durations are converted once, at the shard's start.

use super::options::OptionsTable;
use super::session::{Flags, SessionState, Stage};
use super::settings::ShardSettings;
use crate::base::clock::Tick;
use crate::base::key::Key;
use crate::base::limits::LINGER;
use std::time::Duration;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// The peer has taken too little of what is queued.
    Stall,
    /// A request has not come.
    Handshake,
    /// The peer has not answered our close frame, or our last bytes are not out.
    Close,
    /// The peer has not ended its side.
    Linger,
    /// Neither side has said anything.
    Idle,
    /// A ping is due.
    Ping,
    /// The pong has not come.
    Pong,
    /// It has lived long enough.
    Lifetime,
    /// It may be read from again.
    Resume,
}

/// The settings' durations, in ticks of at least 1; `None` is never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    handshake: Option<u32>,
    idle: Option<u32>,
    ping_interval: Option<u32>,
    pong: Option<u32>,
    close: Option<u32>,
    stall: u32,
    linger: u32,
    /// The shortest ping interval that chance makes of it, and the idle timeout; so long that neither comes if there is none.
    ping_least: u32,
    idle_least: u32,
}

impl Deadlines {
    pub(super) fn new(settings: &ShardSettings) -> Self {
        let ticks = |duration: Duration| Tick::count(duration).max(1);
        let unless_never = |duration: Duration| Some(ticks(duration)).filter(|ticks| *ticks < Tick::SPAN_MAX);
        let idle = settings.idle_timeout.and_then(unless_never);
        let ping_interval = settings.ping_interval.and_then(unless_never);
        Self {
            handshake: unless_never(settings.handshake_timeout),
            idle,
            ping_interval,
            pong: unless_never(settings.pong_timeout),
            close: unless_never(settings.close_timeout),
            // It is also how often a session is looked at.
            stall: ticks(settings.stall_timeout).min(Tick::SPAN_MAX / 4),
            linger: ticks(LINGER),
            ping_least: ping_interval.map_or(Tick::SPAN_MAX / 2, |interval| interval - interval / 10),
            idle_least: idle.unwrap_or(Tick::SPAN_MAX / 2),
        }
    }

    /// Whether it is certain that no deadline comes before the look that is planned: so it is at nearly every end of a send, and the
    /// deadlines need not be compared.
    #[inline]
    pub(super) fn are_planned<T>(&self, state: &SessionState<T>) -> bool {
        let is_behind = |since: Tick, ticks: u32| since.plus(ticks).reached(state.timer_at);
        let is_ordinary = state.stage == Stage::Open && state.extra.is_none();
        is_ordinary
            && state.flags.has(Flags::TIMED)
            && !state.flags.has(Flags::PINGED | Flags::THROTTLED)
            && is_behind(state.last_sent, self.stall)
            && is_behind(state.last_received, self.ping_least)
            && is_behind(state.last_message, self.idle_least)
    }

    /// The earliest deadline of a session.
    #[inline]
    pub(super) fn next<T>(
        &self,
        key: Key,
        state: &SessionState<T>,
        options: &OptionsTable,
    ) -> Option<(Tick, Deadline)> {
        let resume = match state.flags.has(Flags::THROTTLED) {
            true => state.rare().map(|rare| (rare.resume_at, Deadline::Resume)),
            false => None,
        };
        if state.is_sending() {
            // Nothing else runs while the peer is still being sent to. What has gathered in this turn leaves at its end, and
            // what waits for the end of a message of ours waits for us.
            return earliest([Some((state.last_sent.plus(self.stall), Deadline::Stall)), resume]);
        }
        let after = |since: Tick, ticks: Option<u32>, what| ticks.map(|ticks| (since.plus(ticks), what));
        match state.stage {
            Stage::Head => after(state.since, self.handshake, Deadline::Handshake),
            Stage::Closing | Stage::Doomed | Stage::Finishing | Stage::FinishingLong => {
                after(state.since, self.close, Deadline::Close)
            }
            Stage::Lingering => after(state.since, Some(self.linger), Deadline::Linger),
            Stage::Open => {
                let alive = match (state.flags.has(Flags::DEAF), state.flags.has(Flags::PINGED)) {
                    // Whoever is not listened to may be silent.
                    (true, _) => None,
                    (false, true) => after(state.since, self.pong, Deadline::Pong),
                    (false, false) => {
                        let interval = self.ping_interval.map(|interval| jittered(interval, key));
                        after(state.last_received, interval, Deadline::Ping)
                    }
                };
                let idle = after(state.last_message, self.idle, Deadline::Idle);
                let lifetime = options.lifetime(state.options).and_then(|lifetime| {
                    state.rare().map(|rare| (rare.opened_at.plus(jittered(lifetime, key)), Deadline::Lifetime))
                });
                earliest([idle, alive, lifetime, resume])
            }
        }
    }

    /// When to look at a session again at the latest: whether something is queued then and not taken is seen only there.
    #[inline]
    pub(super) const fn look_at(&self, now: Tick) -> Tick {
        now.plus(self.stall)
    }
}

/// Up to a tenth less, as the session's key wants it: the same each time, and spread evenly over all sessions.
fn jittered(ticks: u32, key: Key) -> u32 {
    let less = (u64::from(ticks / 10) * u64::from(key.scattered())) >> 32;
    (ticks - less as u32).max(1)
}

#[inline]
fn earliest<const N: usize>(deadlines: [Option<(Tick, Deadline)>; N]) -> Option<(Tick, Deadline)> {
    deadlines.into_iter().flatten().reduce(|first, other| if other.0.reached(first.0) { first } else { other })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::options::SessionOptions;

    #[test]
    fn pings_of_sessions_that_came_together_are_spread_over_a_tenth_of_the_interval() {
        let times: Vec<u32> = (0..1_000).map(|index| jittered(10_000, Key::new(index, 0))).collect();
        assert!(times.iter().all(|ticks| (9_000..=10_000).contains(ticks)), "{times:?}");
        for tenth in 0..10 {
            let low = 9_000 + tenth * 100;
            let count = times.iter().filter(|ticks| (low..low + 100).contains(*ticks)).count();
            assert!((60..140).contains(&count), "{count} of 1000 in {low}..{}", low + 100);
        }
        assert_eq!(jittered(1, Key::new(7, 7)), 1);
    }

    #[test]
    fn any_duration_is_a_deadline_or_never() {
        let never = Duration::MAX;
        let options = OptionsTable::new(SessionOptions { lifetime_max: Some(never), ..SessionOptions::default() });
        let settings = ShardSettings {
            handshake_timeout: never,
            idle_timeout: Some(never),
            ping_interval: Some(never),
            pong_timeout: never,
            close_timeout: never,
            ..ShardSettings::default()
        };
        let deadlines = Deadlines::new(&settings);
        let key = Key::new(1, 1);
        let mut state = SessionState::<()>::new(Tick::new(5));
        // Whatever is limited in its life knows when it began.
        state.rare_mut().opened_at = Tick::new(5);
        for stage in [Stage::Head, Stage::Closing, Stage::Open] {
            state.stage = stage;
            assert_eq!(deadlines.next(key, &state, &options), None, "{stage:?}");
        }
        let settings = ShardSettings { idle_timeout: Some(Duration::ZERO), ping_interval: None, ..settings };
        let soon = Some((Tick::new(6), Deadline::Idle));
        assert_eq!(Deadlines::new(&settings).next(key, &state, &options), soon);
    }
}
