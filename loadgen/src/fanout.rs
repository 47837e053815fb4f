//! Fan-out: what publishers send reaches every subscriber, and is checked there.
//!
//! A message carries its publisher's number and the time it was meant to leave, so any thread can judge it. Publishers
//! and subscribers meet on a board of counters ([`crate::plan::FanoutBoard`]).

use crate::connections::{ConnectFailure, Connections, Gone, Peer, Talk};
use crate::flight::{Arrival, Track};
use crate::frames::Frames;
use crate::meter::Meter;
use crate::pacing::{Pacing, Sweep};
use crate::plan::{Control, FanoutPlan, Plan, RunKind, RunPlan};
use crate::stamp::{Stamp, StampForm};
use crate::worker::{Scenario, Stalls};
use rand::Rng;
use rand::rngs::SmallRng;
use ringwave::driver::Driver;
use ringwave::protocol::mask::MaskingKey;
use ringwave::{Message, MessageKind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Bytes that are written to a publisher at once when it has fallen behind.
const CATCH_UP_BYTES: usize = 1 << 20;
/// Messages of one publisher that wait to be written; what a schedule asks for beyond that is not published.
const WAITING_MAX: usize = 1 << 20;

/// When the stalled readers read again and nothing has come for so long, nothing more will.
const STALLS_SILENT_NANOS: u64 = 1_000_000_000;

/// What a connection remembers.
#[derive(Debug)]
pub(crate) enum Side {
    /// The publisher's index, and when messages were meant to leave that wait for the system to take others.
    Publisher { publisher: usize, waiting: VecDeque<u64> },
    /// What has come, by publisher.
    Subscriber { tracks: Box<[Track]>, received: u64 },
}

pub(crate) type Data = Option<Box<Side>>;

/// A publisher of this thread.
#[derive(Debug, Default)]
struct Publisher {
    number: u32,
    sequence: u64,
    /// Deliveries that its messages should lead to.
    expected: u64,
    /// When `delivered` last moved, and where it was.
    progress: (u64, u64),
    gone: bool,
}

pub(crate) struct Fanout {
    control: Arc<Control>,
    thread: (usize, usize),
    subscribers: u32,
    stalled_from: u32,
    burst: u32,
    on_open: Option<String>,
    frames: Frames,
    form: StampForm,
    meter: Meter,
    pacing: Pacing,
    sweep: Sweep,
    /// This thread's, by publisher index.
    publishers: Vec<(usize, Publisher)>,
    next_publisher: usize,
    /// Deliveries of this turn, by publisher.
    delivered: Vec<u64>,
    /// Subscribers of this thread that read and stand, and what they have got or are known to have lost.
    live: u64,
    accounted: u64,
    stalled: bool,
    /// How many of this thread's do.
    stalled_readers: u64,
    /// What had been published when the run began.
    stalled_owed: u64,
    stalls: Stalls,
    /// When the last delivery to a stalled one came.
    stalls_moved: u64,
    begun: bool,
    /// Whether the board counts this thread among those that publish.
    publishes: bool,
    random: SmallRng,
}

impl Fanout {
    pub(crate) fn new(
        plan: &Plan,
        fanout: &FanoutPlan,
        control: Arc<Control>,
        index: usize,
        mut random: SmallRng,
    ) -> Self {
        let publishers = fanout.publishers as usize;
        Self {
            thread: (index, plan.threads),
            subscribers: fanout.subscribers,
            stalled_from: fanout.stalled_from,
            burst: fanout.burst,
            on_open: fanout.on_open.clone(),
            frames: Frames::new(plan.size, plan.kind, false, &mut random),
            form: StampForm::long(plan.kind == MessageKind::Text, plan.nonce),
            meter: Meter::default(),
            pacing: Pacing::in_bursts(
                plan.share_of_numbers(index, fanout.subscribers, fanout.publishers),
                fanout.burst,
            ),
            sweep: Sweep::new(plan.answer_timeout),
            publishers: Vec::new(),
            next_publisher: 0,
            delivered: vec![0; publishers],
            live: 0,
            accounted: 0,
            stalled: false,
            stalled_readers: 0,
            stalled_owed: 0,
            stalls: Stalls::default(),
            stalls_moved: 0,
            begun: false,
            publishes: false,
            random,
            control,
        }
    }

    /// Whether a subscriber's deliveries count: those of the stalled ones are looked at apart, also in the run in which
    /// they read like all others.
    fn counts(&self, number: u32) -> bool {
        number < self.stalled_from.min(self.subscribers)
    }

    fn published(&self) -> u64 {
        self.control.fanout.published.iter().map(|count| count.0.load(SeqCst)).sum()
    }

    /// Publishes one burst that was meant to leave at `intended`, by the publisher whose turn it is.
    fn publish<V: Driver>(&mut self, connections: &mut Connections<V, Data>, at: usize, intended: u64) {
        let (index, number) = (self.publishers[at].0, self.publishers[at].1.number);
        let Some(mut peer) = connections.peer_at(number as usize / self.thread.1) else { return };
        let live = u64::from(self.control.fanout.live.load(SeqCst));
        if matches!(peer.data().as_deref(), Some(Side::Publisher { waiting, .. }) if waiting.len() >= WAITING_MAX) {
            for _ in 0..self.burst {
                self.meter.sent(intended, None);
            }
            self.meter.lost_unseen(u64::from(self.burst) * live, self.sweep.timeout());
            return;
        }
        for turn in 0..self.burst {
            if turn > 0 && !self.pacing.spend() {
                break;
            }
            self.publishers[at].1.expected += live;
            // Before the message leaves: whoever gets it finds it published.
            self.control.fanout.published[index].0.fetch_add(1, SeqCst);
            self.meter.sent(intended, self.pacing.is_open().then(|| peer.now.saturating_sub(intended)));
            let busy = peer.is_sending() || peer.gathered_bytes() >= CATCH_UP_BYTES;
            match peer.data().as_deref_mut() {
                Some(Side::Publisher { waiting, .. }) if self.pacing.is_open() && (busy || !waiting.is_empty()) => {
                    waiting.push_back(intended);
                }
                _ => self.write(&mut peer, at, intended),
            }
        }
    }

    fn write(&mut self, peer: &mut Peer<'_, Data>, at: usize, intended: u64) {
        let (index, publisher) = &mut self.publishers[at];
        let stamp = Stamp { sender: *index as u32, sequence: publisher.sequence, time: intended };
        publisher.sequence += 1;
        let wire = self.form.encode(stamp);
        let frames = &mut self.frames;
        peer.write(|_, batch| frames.append(&wire, batch));
    }

    /// In a closed loop: every publisher whose messages have arrived sends the next.
    fn publish_closed<V: Driver>(&mut self, connections: &mut Connections<V, Data>, in_flight: u32) {
        let now = connections.now();
        for at in 0..self.publishers.len() {
            loop {
                let (index, publisher) = &mut self.publishers[at];
                let board = &self.control.fanout;
                let delivered = board.delivered[*index].0.load(SeqCst);
                if delivered != publisher.progress.1 {
                    publisher.progress = (now, delivered);
                }
                let window = u64::from(in_flight - 1) * u64::from(self.burst) * u64::from(board.live.load(SeqCst));
                let wake_at = publisher.expected.saturating_sub(window);
                if publisher.gone || delivered < wake_at {
                    board.wake_at[*index].0.store(wake_at, SeqCst);
                    // What came between the look and the store would wake nobody.
                    if publisher.gone || board.delivered[*index].0.load(SeqCst) < wake_at {
                        break;
                    }
                }
                board.wake_at[*index].0.store(u64::MAX, SeqCst);
                // With nobody left to listen nothing would hold it back.
                if board.live.load(SeqCst) == 0 || !self.pacing.spend() {
                    break;
                }
                self.publish(connections, at, now);
            }
        }
    }

    /// Deliveries that do not come hold up nobody for longer than the answer timeout.
    fn write_off(&mut self, before: u64) {
        for (index, publisher) in &mut self.publishers {
            if publisher.progress.0 < before {
                publisher.expected = self.control.fanout.delivered[*index].0.load(SeqCst);
            }
        }
    }

    /// Puts this turn's deliveries on the board, and wakes the publishers that wait for them.
    fn show_deliveries(&mut self) {
        let board = &self.control.fanout;
        for (index, count) in self.delivered.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            let now = board.delivered[index].0.fetch_add(*count, SeqCst) + *count;
            *count = 0;
            if now >= board.wake_at[index].0.load(SeqCst) {
                let sleeper = board.sleeper[index].load(Relaxed) as usize;
                if sleeper != self.thread.0
                    && let Some(waker) = self.control.wakers[sleeper].get()
                {
                    waker.wake();
                }
            }
        }
    }

    fn deliver(&mut self, peer: &mut Peer<'_, Data>, message: Message<'_>) {
        let (now, number) = (peer.now, peer.number());
        let payload = message.as_bytes();
        let stamp = self.form.decode(payload);
        let sound = payload.len() == self.frames.size()
            && message.kind() == self.frames.kind()
            && payload[self.form.len()..] == *self.frames.body(self.form.len());
        let Some(Side::Subscriber { tracks, received }) = peer.data().as_deref_mut() else { return };
        let track = stamp.and_then(|stamp| tracks.get_mut(stamp.sender as usize));
        match track.map(|track| track.arrive(stamp.map_or(0, |stamp| stamp.sequence))) {
            // It was counted as lost, and came too late to be anything else.
            Some(Arrival::Late) => return,
            Some(Arrival::Duplicate) => {
                self.meter.errors().duplicated += 1;
                return;
            }
            Some(Arrival::Reordered) => self.meter.errors().reordered += 1,
            Some(Arrival::Sound) | None => {}
        }
        // Something wrong is taken for a delivery: it is not lost as well.
        *received += 1;
        let sound = stamp.filter(|_| sound);
        if sound.is_none() {
            self.meter.errors().corrupted += 1;
        }
        if self.counts(number) {
            self.accounted += 1;
            // Whose it was is known, or does not matter.
            let sender = stamp.map_or(0, |stamp| stamp.sender as usize);
            if let Some(delivered) = self.delivered.get_mut(sender) {
                *delivered += 1;
            }
            if let Some(stamp) = sound {
                self.meter.received(stamp.time, now, payload.len());
            }
        } else if self.stalled {
            self.stalls.received += 1;
            self.stalls_moved = now;
        }
    }

    /// What a subscriber has not got by now it never will. Answers how much that is, and how much more it got than was
    /// published.
    fn settle(published: &[u64], tracks: &mut [Track], received: &mut u64) -> (u64, u64) {
        let all = published.iter().sum::<u64>();
        let (lost, excess) = (all.saturating_sub(*received), received.saturating_sub(all));
        *received = all;
        for (track, count) in tracks.iter_mut().zip(published) {
            track.skip_to(*count);
        }
        (lost, excess)
    }

    /// Whether nothing more will be published from here in this run: the count has left, or its publishers are gone.
    fn has_published_all(&self) -> bool {
        self.pacing.is_spent() || self.publishers.iter().all(|(_, publisher)| publisher.gone)
    }

    /// This thread publishes no more in this run.
    fn end_publishing(&mut self) {
        if std::mem::take(&mut self.publishes) {
            self.control.fanout.publishing.fetch_sub(1, SeqCst);
        }
    }

    /// Messages of this run that the stalled ones of this thread were to get.
    fn stalls_expected(&self, published: u64) -> u64 {
        if self.stalled { self.stalled_readers * (published - self.stalled_owed) } else { 0 }
    }

    fn published_each(&self) -> Vec<u64> {
        self.control.fanout.published.iter().map(|count| count.0.load(SeqCst)).collect()
    }

    fn set_stalled_reading<V: Driver>(&self, connections: &mut Connections<V, Data>, reads: bool) {
        for index in 0..connections.indices() {
            let number = connections.peer_at(index).map(|peer| peer.number());
            if number.is_some_and(|number| number < self.subscribers && !self.counts(number)) {
                connections.set_reading(index, reads);
            }
        }
    }
}

impl Talk<Data> for Fanout {
    fn on_open(&mut self, peer: &mut Peer<'_, Data>) {
        let number = peer.number();
        if number >= self.subscribers {
            let publisher = (number - self.subscribers) as usize;
            self.control.fanout.sleeper[publisher].store(self.thread.0 as u32, Relaxed);
            self.publishers.push((publisher, Publisher { number, ..Publisher::default() }));
            *peer.data() = Some(Box::new(Side::Publisher { publisher, waiting: VecDeque::new() }));
            return;
        }
        let tracks = (0..self.delivered.len()).map(|_| Track::default()).collect();
        *peer.data() = Some(Box::new(Side::Subscriber { tracks, received: 0 }));
        if self.counts(number) {
            self.live += 1;
            self.control.fanout.live.fetch_add(1, SeqCst);
        } else {
            self.stalled_readers += 1;
        }
        if let Some(text) = &self.on_open {
            peer.write_text(text, MaskingKey::new(self.random.random()));
        }
    }

    fn on_message(&mut self, peer: &mut Peer<'_, Data>, message: Message<'_>) {
        // Greetings and answers to `--on-open` come before anything is published.
        if self.begun || self.published() > 0 {
            self.deliver(peer, message);
        }
    }

    fn on_bytes(&mut self, _: &mut Peer<'_, Data>, _: &[u8]) {}

    fn on_pong(&mut self, _: &mut Peer<'_, Data>) {}

    fn on_sent(&mut self, peer: &mut Peer<'_, Data>) {
        for _ in 0..(CATCH_UP_BYTES / self.frames.size()).max(1) {
            let Some(Side::Publisher { publisher, waiting }) = peer.data().as_deref_mut() else { return };
            let (publisher, Some(intended)) = (*publisher, waiting.pop_front()) else { return };
            let at = self.publishers.iter().position(|(index, _)| *index == publisher);
            self.write(peer, at.expect("it was listed when it opened"), intended);
        }
    }

    fn on_failed(&mut self, _: u32, _: &ConnectFailure) {
        self.meter.errors().not_connected += 1;
    }

    fn on_gone(&mut self, number: u32, data: Data, gone: &Gone) {
        let meant = matches!(gone, Gone::Meant);
        let counts = self.counts(number);
        if number < self.subscribers && !counts && self.stalled && !meant {
            self.stalls.ended_by_server += 1;
            return;
        }
        self.meter.errors().disconnected += u64::from(!meant);
        match data.as_deref() {
            Some(Side::Publisher { publisher, .. }) => {
                for (_, entry) in self.publishers.iter_mut().filter(|(index, _)| index == publisher) {
                    entry.gone = true;
                }
            }
            Some(Side::Subscriber { received, tracks }) if counts => {
                let published = self.published_each();
                let owed: Vec<u64> = tracks.iter().zip(&published).map(|(track, count)| track.owed(*count)).collect();
                if !meant {
                    let lost = published.iter().sum::<u64>().saturating_sub(*received);
                    self.meter.lost_unseen(lost, self.sweep.timeout());
                }
                self.live -= 1;
                self.accounted -= *received;
                self.control.fanout.live.fetch_sub(1, SeqCst);
                // The publishers do not wait for it.
                for (delivered, owed) in self.delivered.iter_mut().zip(owed) {
                    *delivered += owed;
                }
            }
            _ => {}
        }
    }
}

impl Scenario<Data> for Fanout {
    fn begin<V: Driver>(&mut self, run: &RunPlan, connections: &mut Connections<V, Data>) {
        self.stalled = run.kind == RunKind::Stalled;
        self.stalls = Stalls::default();
        self.stalled_owed = self.control.fanout.published_before.load(SeqCst);
        if self.stalled {
            self.set_stalled_reading(connections, false);
        }
        self.begun = true;
        self.stalls_moved = connections.now();
        for (index, publisher) in &mut self.publishers {
            // What the last run lost is settled.
            publisher.expected = self.control.fanout.delivered[*index].0.load(SeqCst);
            publisher.progress = (connections.now(), publisher.expected);
        }
        self.pacing.begin(run, &mut self.random);
        self.publishes = self.pacing.has_share();
    }

    fn on_turn<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        let now = connections.now();
        self.show_deliveries();
        if let Some(in_flight) = self.pacing.closed_in_flight() {
            self.publish_closed(connections, in_flight);
        }
        while !self.publishers.is_empty()
            && let Some(intended) = self.pacing.due(now)
        {
            self.next_publisher = (self.next_publisher + 1) % self.publishers.len();
            self.publish(connections, self.next_publisher, intended);
        }
        if let Some(before) = self.sweep.due(now) {
            self.write_off(before);
        }
        if self.has_published_all() {
            self.end_publishing();
        }
    }

    fn next_due(&self) -> Option<u64> {
        if self.publishers.is_empty() { None } else { self.pacing.next_due() }
    }

    fn stop<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        self.pacing.stop();
        if self.stalled {
            self.set_stalled_reading(connections, true);
            self.stalls_moved = connections.now();
        }
        self.end_publishing();
    }

    fn has_sent_all(&self) -> bool {
        self.control.fanout.publishing.load(SeqCst) == 0
    }

    fn is_quiet<V: Driver>(&self, connections: &Connections<V, Data>) -> bool {
        // Before what was published is looked at: nothing is added behind it.
        let publishing = self.control.fanout.publishing.load(SeqCst);
        let published = self.published();
        let stalls_over = self.stalls.received >= self.stalls_expected(published)
            || connections.now().saturating_sub(self.stalls_moved) > STALLS_SILENT_NANOS;
        publishing == 0 && self.accounted >= published * self.live && (!self.stalled || stalls_over)
    }

    fn give_up<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        let published = self.published_each();
        self.stalls.expected = self.stalls_expected(published.iter().sum());
        for index in 0..connections.indices() {
            let Some(mut peer) = connections.peer_at(index) else { continue };
            let counts = self.counts(peer.number());
            let (tracks, received) = match peer.data().as_deref_mut() {
                Some(Side::Subscriber { tracks, received }) => (tracks, received),
                Some(Side::Publisher { waiting, .. }) => {
                    waiting.clear();
                    continue;
                }
                None => continue,
            };
            let (lost, excess) = Self::settle(&published, tracks, received);
            if counts {
                self.accounted = self.accounted + lost - excess;
                self.meter.lost_unseen(lost, self.sweep.timeout());
            }
        }
        for (index, publisher) in &mut self.publishers {
            publisher.sequence = published[*index];
        }
        self.stalled = false;
    }

    fn is_futile(&self) -> bool {
        self.begun && self.control.fanout.live.load(SeqCst) == 0
    }

    fn grant(&mut self) {
        self.pacing.grant();
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    fn stalls(&self) -> Stalls {
        self.stalls
    }
}
