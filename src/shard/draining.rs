//! A shard's end: no more connections, goodbyes spread over a window, and a deadline.

use super::Shard;
use super::closing::CloseCause;
use super::handler::Handler;
use super::mailbox::Drain;
use super::session::Stage;
use crate::base::clock::Time;
use crate::base::key::Key;
use crate::driver::Driver;
use std::time::Duration;

/// A shard that was told to end.
#[derive(Debug)]
pub(super) struct Draining {
    drain: Drain,
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
}

impl<D: Driver, H: Handler> Shard<D, H> {
    /// Stops accepting, and plans a goodbye for everybody. Told once more, the end comes no later.
    ///
    /// Whoever asks on a connection that stands is answered for as long as goodbyes are said: so those who look whether
    /// the server is ready learn that it is not.
    pub(super) fn begin_drain(&mut self, drain: Drain) {
        let now = self.core.time;
        let ends_at = now + drain.deadline;
        match &self.draining {
            Some(draining) if draining.ends_at <= ends_at && drain.window >= draining.drain.window => return,
            Some(_) => {}
            None => {
                self.driver.stop_listening();
                self.core.counters().draining.set(1);
            }
        }
        let ends_at = self.draining.as_ref().map_or(ends_at, |before| before.ends_at.min(ends_at));
        let mut farewells = Vec::new();
        for index in 0..self.core.sessions.slots() {
            let Some(key) = self.core.sessions.key_at(index) else { continue };
            match self.core.sessions.get(key).map(|state| state.stage) {
                Some(Stage::Open) => farewells.push((now + part_of(drain.window, key), key)),
                // Our last bytes have been out for a while: the end does not wait for what strangers still send.
                Some(Stage::Lingering) => self.end(key, &CloseCause::Closed),
                _ => {}
            }
        }
        farewells.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        self.draining = Some(Draining { drain, ends_at, farewells, requests_over: false });
        self.say_farewells();
    }

    /// Says goodbye to those whose time has come.
    pub(super) fn say_farewells(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        while let Some((_, key)) = draining.farewells.pop_if(|(at, _)| *at <= self.core.time) {
            let Drain { code, reason, .. } = &draining.drain;
            self.core.close_and_remember(key, *code, reason);
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
