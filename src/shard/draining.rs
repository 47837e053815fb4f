//! A shard's end: no more connections, goodbyes spread over a window, and a deadline.

use super::Shard;
use super::closing::CloseCause;
use super::handler::Handler;
use super::mailbox::Drain;
use super::session::Stage;
use crate::base::clock::Time;
use crate::base::key::Key;
use crate::driver::Driver;
use crate::protocol::close::CloseCode;
use std::cmp::Reverse;
use std::time::Duration;

/// A shard that was told to end.
#[derive(Debug)]
pub(super) struct Draining {
    code: CloseCode,
    reason: String,
    /// When whoever is left is ended.
    pub(super) ends_at: Time,
    /// Who is to be told goodbye and when, the next one last.
    farewells: Vec<(Time, Key)>,
    /// Whether nobody is waited for any more who has no WebSocket: since the last goodbye.
    requests_over: bool,
}

impl Draining {
    pub(super) fn next_farewell(&self) -> Option<Time> {
        self.farewells.last().map(|(at, _)| *at)
    }

    /// Told to end once more: whatever was to come sooner still does.
    fn hasten(&mut self, drain: Drain, now: Time) {
        self.ends_at = self.ends_at.min(now + drain.deadline);
        for (at, key) in &mut self.farewells {
            *at = (*at).min(now + part_of(drain.window, *key));
        }
        (self.code, self.reason) = (drain.code, drain.reason);
    }
}

impl<D: Driver, H: Handler> Shard<D, H> {
    /// Stops accepting, and plans a goodbye for everybody. Told once more, nothing comes later than planned.
    ///
    /// Whoever asks on a connection that stands is answered for as long as goodbyes are said: so those who look whether
    /// the server is ready learn that it is not.
    pub(super) fn begin_drain(&mut self, drain: Drain) {
        let now = self.core.time;
        let mut draining = match self.draining.take() {
            Some(mut draining) => {
                draining.hasten(drain, now);
                draining
            }
            None => {
                self.driver.stop_listening();
                let farewells = self.plan_farewells(drain.window);
                Draining {
                    code: drain.code,
                    reason: drain.reason,
                    ends_at: now + drain.deadline,
                    farewells,
                    requests_over: false,
                }
            }
        };
        draining.farewells.sort_unstable_by_key(|(at, _)| Reverse(*at));
        self.draining = Some(draining);
        self.say_farewells();
    }

    /// Who is open, and when each is told goodbye.
    fn plan_farewells(&mut self, window: Duration) -> Vec<(Time, Key)> {
        let mut farewells = Vec::new();
        for index in 0..self.core.sessions.slots() {
            let Some(key) = self.core.sessions.key_at(index) else { continue };
            match self.core.sessions.get(key).map(|state| state.stage) {
                Some(Stage::Open) => farewells.push((self.core.time + part_of(window, key), key)),
                // Our last bytes have been out for a while: the end does not wait for what strangers still send.
                Some(Stage::Lingering) => self.end(key, &CloseCause::Closed),
                _ => {}
            }
        }
        farewells
    }

    /// Says goodbye to those whose time has come.
    pub(super) fn say_farewells(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        while let Some((_, key)) = draining.farewells.pop_if(|(at, _)| *at <= self.core.time) {
            self.core.close_and_remember(key, draining.code, &draining.reason);
        }
        if draining.farewells.is_empty() && !std::mem::replace(&mut draining.requests_over, true) {
            self.end_requests();
        }
    }

    /// Ends the connections that wait for a request, or for the rest of one.
    fn end_requests(&mut self) {
        for index in 0..self.core.sessions.slots() {
            let Some(key) = self.core.sessions.key_at(index) else { continue };
            if self.core.sessions.get(key).is_some_and(|state| state.stage == Stage::Head) {
                self.finish(key, Stage::Finishing, &CloseCause::Shutdown);
            }
        }
    }
}

/// The same share of the window for the same session, all shares alike.
fn part_of(window: Duration, key: Key) -> Duration {
    let nanos = (window.as_nanos() * u128::from(key.scattered())) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
