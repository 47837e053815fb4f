//! Floor 3: one core's world. Sessions, the turn, timers, topics, mailboxes, and the handler they serve.
//!
//! A turn is wait → all completions → mailbox → timers → flush; never a system call a message. Start reading at
//! [`Shard::turn`]; `receive` is what happens to bytes, `ending` how sessions end.

mod context;
mod core;
mod deadline;
mod ending;
mod handler;
mod mailbox;
#[allow(dead_code, reason = "patterns, counters and introspection wait for their callers in `core`")]
mod pattern;
mod receive;
mod session;
mod settings;
mod stats;
#[allow(dead_code, reason = "patterns, counters and introspection wait for their callers in `core`")]
mod topic;

pub use self::core::{SendOutcome, SubscribeError};
pub use context::{Context, Session};
pub use handler::{CloseCause, Handler, Upgrade};
pub use mailbox::{Handle, MailboxFull, Mailboxes, SessionKey};
pub use settings::ShardSettings;
pub use stats::Stats;

use self::core::Core;
use crate::base::clock::{Tick, Time};
use crate::base::key::Key;
use crate::base::limits::POSTS_PER_TURN_MAX;
use crate::driver::{Batch, Completion, Driver, Link, Listener};
use mailbox::Post;
use session::{Flags, SessionState, Stage};
use std::io;
use std::time::Duration;

/// How soon a shard tries again to deliver posts that a full mailbox refused.
const OUTBOX_RETRY: Duration = Duration::from_millis(1);

/// One core's world: a driver below, a handler above.
pub struct Shard<D, H: Handler> {
    driver: D,
    handler: H,
    core: Core<H::Data>,
    /// Links that the driver has and will say `Closed` of.
    links: usize,
    /// When everything ends, once the shard has been told to.
    ends_at: Option<Time>,
    fired: Vec<Key>,
    /// A full mailbox has refused posts: they are tried again soon.
    posts_left: bool,
}

impl<D: Driver, H: Handler> Shard<D, H> {
    /// A shard that accepts from `listener`. `number` is its place in `mailboxes`.
    pub fn new(
        number: u16,
        settings: ShardSettings,
        mut driver: D,
        listener: Option<Listener>,
        handler: H,
        mailboxes: Mailboxes,
    ) -> Self {
        if let Some(listener) = listener {
            driver.listen(listener);
        }
        let core = Core::new(number, settings, mailboxes);
        Self { driver, handler, core, links: 0, ends_at: None, fired: Vec::new(), posts_left: false }
    }

    /// Turns until it is told to shut down and all connections are gone, or the deadline has come.
    ///
    /// # Errors
    /// The kernel refuses the wait itself.
    pub fn run(mut self) -> io::Result<()> {
        let mut verdict = Ok(());
        while verdict.is_ok() && !self.has_ended() {
            verdict = self.turn(None);
        }
        self.end_all();
        self.core.deliver_posts();
        verdict
    }

    /// Whether the shard was told to end and nothing is left, or its deadline has passed.
    pub fn has_ended(&self) -> bool {
        self.ends_at.is_some_and(|at| self.links == 0 || self.core.time >= at)
    }

    /// One turn. Waits for something to happen, at most until the next deadline or `timeout`.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mailbox = self.core.mailboxes.of(self.core.shard);
        let timeout = match mailbox.fall_asleep() {
            true => self.wait_for(timeout),
            false => Some(Duration::ZERO),
        };
        self.core.time = self.driver.wait(timeout)?;
        self.core.now = self.core.time.tick();
        self.core.mailboxes.of(self.core.shard).awake();
        self.core.counters().turns.add(1);

        while let Some(completion) = self.driver.next_completion() {
            self.on_completion(completion);
        }
        self.take_posts();
        self.fire_timers();
        self.flush();
        self.posts_left = self.core.deliver_posts();
        Ok(())
    }

    /// How long the driver may wait.
    fn wait_for(&self, timeout: Option<Duration>) -> Option<Duration> {
        let timer = self.core.wheel.next_due().map(|due| {
            // From the time of the last turn; what has passed since makes the wait a little longer, never shorter.
            let ticks = due.since(self.core.now);
            Tick::duration(ticks).saturating_sub(Duration::from_nanos(self.core.time.as_nanos() % Tick::NANOS))
        });
        let retry = self.posts_left.then_some(OUTBOX_RETRY);
        let end = self.ends_at.map(|at| at - self.core.time);
        [timeout, timer, retry, end].into_iter().flatten().min()
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Received { link, buffer } => self.on_received(link, buffer),
            Completion::Sent { link, batch, error } => self.on_sent(link, batch, error.as_ref()),
            Completion::SentPart { link, remaining } => self.on_sent_part(link, remaining),
            Completion::Accepted { link, .. } => self.on_accepted(link),
            Completion::ReceiveEnded { link, error } => self.on_receive_ended(link, error.as_ref()),
            Completion::Closed { link } => {
                debug_assert!(self.core.sessions.get(link).is_none(), "{link:?} closed under its session");
                self.links -= 1;
                self.core.counters().connections.set(self.links as u64);
            }
            Completion::AcceptFailed { .. } => self.core.counters().accept_errors.add(1),
            // What rang stands in the mailbox, which every turn looks into.
            Completion::Woken => {}
            Completion::Connected { .. } | Completion::ConnectFailed { .. } => {
                unreachable!("a shard opens no connections")
            }
        }
    }

    fn on_accepted(&mut self, link: Link) {
        self.links += 1;
        self.core.counters().accepted.add(1);
        self.core.counters().connections.set(self.links as u64);
        if self.ends_at.is_some() {
            self.driver.close(link);
            return;
        }
        self.core.sessions.insert(link, SessionState::new(self.core.now));
        self.core.arm_timer(link);
        self.driver.recv_start(link);
    }

    // Mail

    fn take_posts(&mut self) {
        for _ in 0..POSTS_PER_TURN_MAX {
            match self.core.mailboxes.of(self.core.shard).take() {
                Some(post) => self.on_post(post),
                None => return self.take_shutdown(),
            }
        }
    }

    /// After the posts: what was posted before the end is delivered before it.
    fn take_shutdown(&mut self) {
        if let Some(deadline) = self.core.mailboxes.of(self.core.shard).take_shutdown() {
            self.begin_shutdown(deadline);
        }
    }

    fn on_post(&mut self, post: Post) {
        match post {
            Post::Publish { topic, message } => {
                self.core.publish_here(&topic, &message, None);
            }
            Post::Send { session, message } => {
                self.core.send_prepared(session, &message);
            }
            Post::Close { session, code, reason } => {
                self.core.close_with(session, code, &reason);
            }
        }
    }

    // Sending

    /// Hands every session's queue to the driver, ends what is to be ended, until nothing is left to do.
    fn flush(&mut self) {
        loop {
            while let Some((key, cause)) = self.core.doomed.pop() {
                self.end(key, &cause);
            }
            let Some(key) = self.core.dirty.pop() else { return };
            self.flush_session(key);
        }
    }

    fn flush_session(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        state.flags.set(Flags::DIRTY, false);
        if state.flags.has(Flags::SENDING) {
            self.pause_if_high(key);
            return;
        }
        match state.pending.take() {
            Some(batch) if !batch.is_empty() => {
                state.flags.set(Flags::SENDING, true);
                state.in_flight = u32::try_from(batch.len()).unwrap_or(u32::MAX);
                self.driver.send(key, batch);
                self.pause_if_high(key);
            }
            Some(batch) => {
                self.core.batches.put(batch);
                self.finish_if_flushed(key);
            }
            None => self.finish_if_flushed(key),
        }
    }

    fn on_sent(&mut self, link: Link, batch: Box<Batch>, error: Option<&io::Error>) {
        self.core.batches.put(batch);
        let Some(state) = self.core.sessions.get_mut(link) else { return };
        let sent = std::mem::take(&mut state.in_flight);
        state.flags.set(Flags::SENDING, false);
        if let Some(error) = error {
            let cause = CloseCause::PeerGone(error.raw_os_error());
            self.core.doomed.push((link, cause));
            return;
        }
        let more = state.pending.is_some() || state.stage >= Stage::Finishing;
        if more && !state.flags.set(Flags::DIRTY, true) {
            self.core.dirty.push(link);
        }
        state.last_alive = self.core.now;
        // What runs from the end of our last bytes (the wait for a request, for the answer to a ping or to our close)
        // begins now.
        if state.is_flushed() {
            if state.stage != Stage::Open || state.flags.has(Flags::PINGED) {
                state.since = self.core.now;
            }
            self.core.arm_timer(link);
        }
        self.core.counters().bytes_sent.add(u64::from(sent));
        self.resume_if_low(link);
    }

    fn on_sent_part(&mut self, link: Link, remaining: usize) {
        let Some(state) = self.core.sessions.get_mut(link) else { return };
        state.last_alive = self.core.now;
        let before = std::mem::replace(&mut state.in_flight, u32::try_from(remaining).unwrap_or(u32::MAX));
        let sent = before.saturating_sub(state.in_flight);
        self.core.counters().bytes_sent.add(u64::from(sent));
        self.resume_if_low(link);
    }

    /// A session that does not take what it is sent is not read from: what it asks for would only queue up.
    fn pause_if_high(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        let high = state.buffered_bytes() >= self.core.settings.high_water_bytes;
        if high && state.stage <= Stage::Open && !state.flags.set(Flags::RECEIVE_PAUSED, true) {
            self.driver.recv_stop(key);
        }
    }

    fn resume_if_low(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        let low = state.buffered_bytes() <= self.core.settings.low_water_bytes;
        if low && state.flags.has(Flags::RECEIVE_PAUSED) {
            state.flags.set(Flags::RECEIVE_PAUSED, false);
            state.last_alive = self.core.now;
            self.driver.recv_start(key);
        }
    }
}
