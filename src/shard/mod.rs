//! Floor 3: one core's world. Sessions, the turn, timers, topics, mailboxes, and the handler they serve.
//!
//! A turn is wait → all completions → mailbox → timers → flush; never a system call a message. Start reading at
//! [`Shard::turn`]; `receive` is what happens to bytes, `sending` and `queue` what happens to messages, `ending` how
//! sessions end.

mod addresses;
mod closing;
mod context;
mod core;
mod date;
mod deadline;
mod doorbell;
mod draining;
mod ending;
mod handler;
mod joins;
mod mailbox;
mod memory;
mod options;
mod pattern;
mod producers;
mod publishing;
mod queue;
mod receive;
mod requests;
mod sending;
mod session;
mod settings;
mod stats;
mod topic;

pub use self::core::SendOutcome;
pub use closing::{CloseCause, ClosedBy, Ended};
pub use context::{Context, Session};
pub use handler::{Handler, Upgrade};
pub use mailbox::{Drain, Handle, Mailboxes, PostError, SessionKey};
pub use options::{Policy, RateAnswer, SessionOptions};
pub use publishing::{Published, SubscribeError};
pub use settings::ShardSettings;
pub use stats::Stats;
pub use topic::TopicStats;

use self::core::{Core, Supplies};
use crate::base::clock::{Tick, Time};
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::base::limits::{FLUSH_BYTES, POSTS_PER_TURN_MAX, STALL_MIN, STALLS_APART, WORK_MAX, WORK_PER_SEND};
use crate::driver::{Batch, Completion, Driver, Link, Listener};
use draining::Draining;
use mailbox::Post;
use publishing::Publication;
use sending::Outgoing;
use session::{Flags, SessionState, Stage};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// Once the shard has been told to end.
    draining: Option<Draining>,
    /// After how many posts the drain begins that it was told of.
    drain_begins_at: Option<u64>,
    fired: Vec<Key>,
    /// Bytes received since what they caused was handed to the driver.
    unflushed: usize,
    /// So many of them are the most.
    flush_bytes: usize,
    /// A full mailbox has refused posts: they are tried again soon.
    posts_left: bool,
}

/// Calls what the application wrote. `None` if it panicked, which the panic hook has reported: its state is its own
/// business, and ours is whole, since whatever it may touch is changed by calls that do not panic.
fn shielded<R>(call: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(call)).ok()
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
        Self {
            driver,
            handler,
            core,
            links: 0,
            draining: None,
            drain_begins_at: None,
            fired: Vec::new(),
            unflushed: 0,
            flush_bytes: FLUSH_BYTES,
            posts_left: false,
        }
    }

    /// Turns until it is told to end and all connections are gone, or the deadline has come.
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
        self.draining.as_ref().is_some_and(|draining| self.links == 0 || self.core.time >= draining.ends_at)
    }

    /// One turn. Waits for something to happen, at most until the next deadline or `timeout`.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mailbox = self.core.mailboxes.of(self.core.shard);
        let timeout = match mailbox.fall_asleep() {
            true => self.wait_for(timeout),
            false => Some(Duration::ZERO),
        };
        let time = self.driver.wait(timeout)?;
        self.core.mailboxes.of(self.core.shard).awake();
        self.core.pass_time(time, timeout);
        self.core.counters().turns.add(1);

        // Before what has come since.
        self.read_on();
        while let Some(completion) = self.driver.next_completion() {
            self.on_completion(completion);
            if self.unflushed >= self.flush_bytes {
                self.flush();
                self.driver.submit()?;
            }
        }
        self.take_posts();
        self.fire_timers();
        self.say_farewells();
        self.flush();
        self.posts_left = self.core.deliver_posts();
        self.core.show_gauges();
        Ok(())
    }

    /// How long the driver may wait.
    fn wait_for(&self, timeout: Option<Duration>) -> Option<Duration> {
        let timer = self.core.wheel.next_due().map(|due| {
            // From the time of the last turn; what has passed since makes the wait a little longer, never shorter.
            let ticks = due.since(self.core.now);
            Tick::duration(ticks).saturating_sub(Duration::from_nanos(self.core.uptime.as_nanos() % Tick::NANOS))
        });
        let retry = self.posts_left.then_some(OUTBOX_RETRY);
        // What the last turn found out when it had flushed already, or left for this one. Drops that the handler caused
        // when it was told of others are no such thing: it would be told of them without end.
        let left_over = !self.core.reading.is_empty() || !self.core.behind.is_empty();
        let at_once = left_over.then_some(Duration::ZERO);
        let end = self.draining.as_ref().map(|draining| {
            let next = draining.next_farewell().unwrap_or(draining.ends_at);
            next.min(draining.ends_at) - self.core.time
        });
        [timeout, timer, retry, at_once, end].into_iter().flatten().min()
    }

    /// Takes its secrets from a seed, so that a history can be had once more; and how much it receives before it flushes.
    #[cfg(feature = "simulation")]
    pub fn seed(&mut self, seed: u64) {
        self.flush_bytes = 1 << (seed % 20);
        self.core.secret = crate::base::secret::Secret::from_seed(seed);
        self.core.dates = date::Dates::of_the_shards_clock();
    }

    /// Says that it waits, between two turns: a simulated wait comes back at once, and what is posted meanwhile shall ring.
    /// `false` if there is mail already.
    #[cfg(feature = "simulation")]
    pub fn doze(&self) -> bool {
        self.core.mailboxes.of(self.core.shard).fall_asleep()
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Received { link, buffer } => {
                self.unflushed += buffer.len();
                self.on_received(link, buffer);
            }
            Completion::Filled { link, room, count } => {
                self.unflushed += count;
                self.on_filled(link, room, count);
            }
            Completion::Sent { link, batch, error } => self.on_sent(link, batch, error.as_ref()),
            Completion::SentPart { link, remaining } => self.on_sent_part(link, remaining),
            Completion::Accepted { link, peer } => self.on_accepted(link, peer),
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

    fn on_accepted(&mut self, link: Link, peer: Option<SocketAddr>) {
        self.links += 1;
        self.core.counters().accepted.add(1);
        self.core.counters().connections.set(self.links as u64);
        if self.draining.is_some() {
            self.driver.close(link);
            return;
        }
        self.core.sessions.insert(link, SessionState::new(self.core.now));
        if let Some(peer) = peer {
            self.core.addresses.arrive(link, peer);
        }
        self.core.arm_timer(link);
        self.driver.recv_start(link);
    }

    // Mail

    fn take_posts(&mut self) {
        let work_before = self.core.work;
        for _ in 0..POSTS_PER_TURN_MAX {
            self.take_drain();
            if !self.core.may_work_on(work_before) {
                return;
            }
            match self.core.mailboxes.of(self.core.shard).take() {
                Some(post) => {
                    self.core.posts_taken += 1;
                    self.on_post(post);
                }
                None => break,
            }
        }
    }

    /// After the posts that were there when it was told to end: what was posted before is delivered before.
    fn take_drain(&mut self) {
        let mailbox = self.core.mailboxes.of(self.core.shard);
        if !mailbox.has_drain() {
            return;
        }
        let taken = self.core.posts_taken;
        let begins_at = *self.drain_begins_at.get_or_insert(taken + mailbox.post_count() as u64);
        if taken >= begins_at
            && let Some(drain) = mailbox.take_drain()
        {
            self.drain_begins_at = None;
            self.begin_drain(drain);
        }
    }

    fn on_post(&mut self, post: Post) {
        let core = &mut self.core;
        match post {
            Post::Publish { topic, message, key, origin } => {
                core.publish_here(&Publication { topic: &topic, message: &message, key, origin }, None);
            }
            Post::Send { session, message, key, origin } => {
                let slot = key.map_or(0, |key| core.slot_of(None, key));
                core.send_frame(session, &Outgoing::of_one(message.frame(), slot), origin);
            }
            Post::Close { session, code, reason } => {
                core.close_and_remember(session, code, &reason);
            }
            Post::Hold { session } => core.hold_producer(session),
            Post::Release { session } => core.release_producer(session),
            Post::ListTopics { answer } => {
                let topics = core.topics.iter().map(|topic| (topic.name.into(), topic.subscribers)).collect();
                // Who asked may have stopped waiting.
                let _ = answer.send(topics);
            }
        }
    }

    // Flushing

    /// Delivers posts, ends what is to be ended, hands every session's queue to the driver, reads on or not, until nothing is left
    /// to do.
    fn flush(&mut self) {
        self.unflushed = 0;
        // Before anything leaves: with a driver that sends at once, whoever sees a message here may tell another shard of it.
        self.core.deliver_posts();
        self.tell_of_drops();
        loop {
            if let Some((key, cause)) = self.core.doomed.pop() {
                self.end(key, &cause);
            } else if let Some((key, is_over)) = self.core.overfull.pop() {
                if is_over {
                    self.end(key, &CloseCause::OutOfMemory);
                } else {
                    self.end_overfull(key);
                }
            } else if let Some(key) = self.core.dirty.pop() {
                self.flush_session(key);
            } else if let Some(key) = self.core.reading.pop() {
                self.read_or_not(key);
            } else {
                self.core.supplies.joins.clear();
                return self.core.memory.have_ended();
            }
        }
    }

    fn flush_session(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        state.flags.set(Flags::DIRTY, false);
        let encoder = &mut state.encoder;
        let Some(queue) = &mut state.queue else { return self.finish_if_flushed(key) };
        if queue.is_sending() {
            return;
        }
        let before = queue.charged();
        let Supplies { batches, joins } = &mut self.core.supplies;
        let batch = queue.take_next(batches, joins, |payload, out| {
            let written = encoder.encode_pong((), payload, out);
            debug_assert!(written.is_ok(), "pongs that wait are let go of before a close frame");
        });
        self.core.memory.recharge(before, queue.charged());
        let Some(mut batch) = batch else {
            self.core.put_empty_queue(key);
            return self.finish_if_flushed(key);
        };
        state.last_sent = self.core.now;
        if matches!(state.stage, Stage::Finishing | Stage::FinishingLong) && !queue.has_waiting() {
            batch.end_stream();
        }
        let high = queue.leaving_bytes() >= self.core.options.get(state.options).high_water_bytes;
        if high && !state.flags.set(Flags::HIGH, true) {
            self.core.reading.push(key);
        }
        self.driver.send(key, batch);
    }

    fn on_sent(&mut self, link: Link, batch: Box<Batch>, error: Option<&io::Error>) {
        self.core.supplies.batches.put(batch);
        let Some(state) = self.core.sessions.get_mut(link) else { return };
        if let Some(error) = error {
            let cause = CloseCause::PeerGone(error.raw_os_error());
            return match state.stage {
                // What was in flight stays in the queue, as a part of what is lost.
                Stage::Head | Stage::Open | Stage::Closing => self.core.doom(link, cause),
                Stage::Doomed => {}
                // Nothing is received any more that would tell of it.
                Stage::Finishing | Stage::FinishingLong | Stage::Lingering => self.end(link, &cause),
            };
        }
        let queue = state.queue.as_mut().expect("what is sent stands in a queue");
        let before = queue.charged();
        let sent = queue.sent();
        let is_flushed = queue.is_flushed();
        if !planted(Fault::MemoryNotDischarged) {
            self.core.memory.recharge(before, queue.charged());
        }
        state.last_sent = self.core.now;
        // What runs from the end of our last bytes (the wait for a request, for the answer to our close) begins now. The
        // wait for a pong begins when the ping is out: what follows it proves nothing about the peer.
        let ping_left = state.flags.set(Flags::PING_LEAVES, false);
        if ping_left || (is_flushed && state.stage != Stage::Open) {
            state.since = self.core.now;
        }
        let more = (!is_flushed || state.stage >= Stage::Finishing) && !planted(Fault::FlushForgotten);
        if more && !state.flags.set(Flags::DIRTY, true) {
            self.core.dirty.push(link);
        }
        if is_flushed {
            self.core.put_empty_queue(link);
            self.core.arm_timer(link);
        }
        self.core.counters().bytes_sent.add(sent as u64);
        self.look_at_low_water(link);
    }

    fn on_sent_part(&mut self, link: Link, remaining: usize) {
        let Some(state) = self.core.sessions.get_mut(link) else { return };
        state.last_sent = self.core.now;
        let sent = state.queue.as_mut().map_or(0, |queue| queue.sent_part(remaining));
        self.core.counters().bytes_sent.add(sent as u64);
        self.look_at_low_water(link);
    }

    /// A queue that was high is low again: whoever was held back for it goes on.
    fn look_at_low_water(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        let low = self.core.options.get(state.options).low_water_bytes;
        let is_drained = state.flags.has(Flags::HIGH) && state.buffered_bytes() <= low;
        let is_open = state.stage == Stage::Open;
        if is_drained {
            state.flags.set(Flags::HIGH, planted(Fault::StaysDeaf));
            self.core.reading.push(key);
        }
        if state.queued_bytes() <= low && !planted(Fault::ProducerForgotten) {
            self.core.let_producers_go(key);
        }
        if is_drained && is_open {
            let Self { handler, core, .. } = self;
            if shielded(|| handler.on_drain(&mut Session::new(core, key))).is_none() {
                self.end_after_panic(key);
            }
        }
    }

    /// Each once a turn: what the handler sends for it may be dropped too.
    fn tell_of_drops(&mut self) {
        for key in std::mem::take(&mut self.core.drops_untold) {
            let Some(state) = self.core.sessions.get_mut(key) else { continue };
            state.flags.set(Flags::DROPS_UNTOLD, false);
            let count = std::mem::take(&mut state.rare_mut().dropped_untold);
            if state.stage == Stage::Open {
                let Self { handler, core, .. } = self;
                if shielded(|| handler.on_dropped(&mut Session::new(core, key), count)).is_none() {
                    self.end_after_panic(key);
                }
            }
        }
    }

    /// Has bytes that wait read in the next turn, and tells the driver to receive, or not, where that has changed.
    fn read_or_not(&mut self, key: Key) {
        let Some(state) = self.core.sessions.get_mut(key) else { return };
        let pauses_when_high = self.core.options.get(state.options).pauses_when_high();
        let reads_on = state.flags.has(Flags::BEHIND) && state.may_be_read(pauses_when_high);
        if reads_on && !state.flags.set(Flags::READS_ON, true) {
            self.core.behind.push(key);
        }
        let reads = state.is_read(pauses_when_high);
        if reads != state.flags.has(Flags::DEAF) || state.flags.has(Flags::PEER_ENDED) {
            return;
        }
        state.flags.set(Flags::DEAF, !reads);
        if reads {
            // Whoever was not listened to was silent for a good reason.
            state.last_received = self.core.now;
            if state.stage == Stage::Open && state.flags.has(Flags::PINGED) {
                // Its pong may have come long since.
                state.since = self.core.now;
            }
            self.driver.recv_start(key);
            self.core.arm_timer(key);
        } else {
            self.driver.recv_stop(key);
        }
    }
}

impl<T> Core<T> {
    /// The wait is over. If it took much longer than it was to, the process did not run, and could neither hear nor say
    /// anything: that time is held against nobody. Soon after one such time some of the next one counts: a shard that is
    /// late all the time is under load, and whoever makes it so is not to be given time.
    fn pass_time(&mut self, time: Time, timeout: Option<Duration>) {
        let passed = time - self.time;
        let late = timeout.map_or(Duration::ZERO, |timeout| passed.saturating_sub(timeout));
        let mut stalled =
            if planted(Fault::StallHeldAgainst) { Duration::ZERO } else { late.saturating_sub(STALL_MIN) };
        if stalled > Duration::ZERO {
            self.counters().stalls.add(1);
            if self.stalled_at.is_none_or(|at| self.uptime - at >= STALLS_APART) {
                stalled = late;
                self.stalled_at = Some(self.uptime);
            }
        }
        self.time = time;
        self.uptime = self.uptime + (passed - stalled);
        self.now = self.uptime.tick();
        self.memory.begin_turn();
    }

    /// Whether what has caused work since `before` may cause more in this turn.
    #[inline]
    pub(super) fn may_work_on(&self, before: u64) -> bool {
        self.work - before < WORK_MAX.max(WORK_PER_SEND * self.dirty.len() as u64)
    }

    fn show_gauges(&self) {
        self.counters().memory_bytes.set(self.memory.used() as u64);
        self.counters().timers.set(self.wheel.len() as u64);
    }
}
