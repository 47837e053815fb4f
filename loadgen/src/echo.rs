//! Echo: what a connection sends comes back to it, and is checked.

use crate::connections::{ConnectFailure, Connections, Gone, Peer, Talk};
use crate::flight::{Answer, Flight};
use crate::frames::Frames;
use crate::meter::Meter;
use crate::pacing::{Pacing, Sweep};
use crate::plan::{Plan, RunKind, RunPlan};
use crate::schedule::Share;
use crate::stamp::{Stamp, StampForm};
use crate::worker::{Scenario, Stalls};
use rand::rngs::SmallRng;
use ringwave::driver::Driver;
use ringwave::{Message, MessageKind};
use std::collections::VecDeque;

/// Bytes that are written to a connection at once when it has fallen behind.
const CATCH_UP_BYTES: usize = 1 << 20;

/// Messages of one thread that wait for answers; what a schedule asks for beyond that is lost at once.
const ON_THEIR_WAY_MAX: u64 = 1 << 24;

/// What an echoing connection remembers.
#[derive(Debug, Default)]
pub(crate) struct Side {
    flight: Flight,
    /// When messages were meant to leave that wait because the system has not taken the ones before.
    waiting: VecDeque<u64>,
    /// Bytes of an answer that have come, on a bare connection.
    come: usize,
    /// Whether those were right.
    wrong: bool,
}

/// The boxes are made when a connection first sends.
pub(crate) type Data = Option<Box<Side>>;

pub(crate) struct Echo {
    frames: Frames,
    form: StampForm,
    meter: Meter,
    pacing: Pacing,
    sweep: Sweep,
    /// Messages sent and not answered, of connections that read.
    on_their_way: u64,
    /// Connections from this number on stop reading …
    stalled_from: u32,
    /// … in this run.
    stalled: bool,
    stalls: Stalls,
    /// Whose turn it is in an open loop.
    next_index: usize,
    random: SmallRng,
}

impl Echo {
    pub(crate) fn new(plan: &Plan, share: Share, stalled_from: u32, mut random: SmallRng) -> Self {
        let bare = plan.opening.endpoint.target.path.is_none();
        Self {
            frames: Frames::new(plan.size, plan.kind, bare, &mut random),
            form: StampForm::short(plan.kind == MessageKind::Text, plan.nonce),
            meter: Meter::default(),
            pacing: Pacing::new(share),
            sweep: Sweep::new(plan.answer_timeout),
            on_their_way: 0,
            stalled_from,
            stalled: false,
            stalls: Stalls::default(),
            next_index: 0,
            random,
        }
    }

    fn is_stalled(&self, number: u32) -> bool {
        self.stalled && number >= self.stalled_from
    }

    /// Sends a message that was meant to leave at `intended`, or remembers it until the connection takes it.
    fn send(&mut self, peer: &mut Peer<'_, Data>, intended: u64) {
        if self.is_stalled(peer.number()) {
            self.stalls.expected += 1;
        } else {
            self.meter.sent(intended, self.pacing.is_open().then(|| peer.now.saturating_sub(intended)));
            self.on_their_way += 1;
        }
        let busy = peer.is_sending() || peer.gathered_bytes() >= CATCH_UP_BYTES;
        let waiting = &mut peer.data().get_or_insert_default().waiting;
        if self.pacing.is_open() && (busy || !waiting.is_empty()) {
            waiting.push_back(intended);
        } else {
            self.write(peer, intended);
        }
    }

    fn write(&mut self, peer: &mut Peer<'_, Data>, intended: u64) {
        let sender = peer.number();
        let Self { frames, form, .. } = self;
        peer.write(|data, batch| {
            let sequence = data.get_or_insert_default().flight.send(intended);
            frames.append(&form.encode(Stamp { sender, sequence, time: 0 }), batch);
        });
    }

    /// Which message this is the answer to; `None` if it is not right.
    fn judge(&self, flight: &Flight, number: u32, message: Message<'_>) -> Option<u64> {
        let payload = message.as_bytes();
        if payload.len() != self.frames.size() || message.kind() != self.frames.kind() {
            return None;
        }
        if payload.len() < self.form.len() {
            // Too short to say which it is: it must be the one that comes next.
            let sequence = flight.oldest()?;
            let wire = self.form.encode(Stamp { sender: number, sequence, time: 0 });
            return wire.as_bytes().starts_with(payload).then_some(sequence);
        }
        let stamp = self.form.decode(payload)?;
        let sound = stamp.sender == number && payload[self.form.len()..] == *self.frames.body(self.form.len());
        sound.then_some(stamp.sequence)
    }

    /// Counts what came: the answer to message `sequence`, or something wrong.
    fn count(&mut self, peer: &mut Peer<'_, Data>, sequence: Option<u64>) {
        let (now, size, number) = (peer.now, self.frames.size(), peer.number());
        let stalled = self.is_stalled(number);
        let Some(side) = peer.data() else { return };
        let Some(sequence) = sequence else {
            self.meter.errors().corrupted += 1;
            if side.flight.doubt() {
                self.on_their_way -= u64::from(!stalled);
                self.go_on(peer, 1);
            }
            return;
        };
        let answer = side.flight.answer(sequence);
        match answer {
            Answer::Sound(sent_at) | Answer::Reordered(sent_at) => {
                if answer == Answer::Reordered(sent_at) {
                    self.meter.errors().reordered += 1;
                }
                if stalled {
                    self.stalls.received += 1;
                } else {
                    self.on_their_way -= 1;
                    self.meter.received(sent_at, now, size);
                }
                self.go_on(peer, 1);
            }
            Answer::Doubted(_) if stalled => self.stalls.received += 1,
            Answer::Doubted(sent_at) => self.meter.received(sent_at, now, size),
            // It was counted as lost, and came too late to be anything else.
            Answer::Late => {}
            Answer::Duplicate => self.meter.errors().duplicated += 1,
            Answer::Unknown => self.meter.errors().corrupted += 1,
        }
    }

    /// In a closed loop every answer is followed by a message.
    fn go_on(&mut self, peer: &mut Peer<'_, Data>, count: u64) {
        for _ in 0..count {
            if self.pacing.is_open() || !self.pacing.spend() {
                return;
            }
            self.send(peer, peer.now);
        }
    }

    /// Gives up what a connection has sent before `before`. Answers how many those were.
    fn give_up_side(&mut self, number: u32, side: &mut Side, before: u64, now: u64) -> u64 {
        let stalled = self.is_stalled(number);
        let mut lost = 0;
        side.flight.give_up(before, |sent_at| {
            lost += 1;
            if !stalled {
                self.meter.lost(sent_at, now);
            }
        });
        while let Some(&intended) = side.waiting.front()
            && intended < before
        {
            side.waiting.pop_front();
            lost += 1;
            if !stalled {
                self.meter.lost(intended, now);
            }
        }
        if !stalled {
            self.on_their_way -= lost;
        }
        lost
    }

    fn give_up_before<V: Driver>(&mut self, connections: &mut Connections<V, Data>, before: u64) {
        for index in 0..connections.indices() {
            let Some(mut peer) = connections.peer_at(index) else { continue };
            let (number, now) = (peer.number(), peer.now);
            // Those that stall are owed answers until the run is over.
            if self.is_stalled(number) && before != u64::MAX {
                continue;
            }
            let Some(side) = peer.data() else { continue };
            let lost = self.give_up_side(number, side, before, now);
            self.go_on(&mut peer, lost);
        }
    }

    fn set_stalled_reading<V: Driver>(&self, connections: &mut Connections<V, Data>, reads: bool) {
        for index in 0..connections.indices() {
            if connections.peer_at(index).is_some_and(|peer| peer.number() >= self.stalled_from) {
                connections.set_reading(index, reads);
            }
        }
    }
}

impl Talk<Data> for Echo {
    fn on_open(&mut self, _: &mut Peer<'_, Data>) {}

    fn on_message(&mut self, peer: &mut Peer<'_, Data>, message: Message<'_>) {
        let number = peer.number();
        // Whatever a server says before it was asked is its greeting.
        let Some(side) = peer.data() else { return };
        let sequence = self.judge(&side.flight, number, message);
        self.count(peer, sequence);
    }

    fn on_bytes(&mut self, peer: &mut Peer<'_, Data>, mut bytes: &[u8]) {
        let (number, size) = (peer.number(), self.frames.size());
        while !bytes.is_empty() {
            let Some(side) = peer.data() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(size - side.come));
            let sequence = side.flight.oldest();
            let wire = self.form.encode(Stamp { sender: number, sequence: sequence.unwrap_or(0), time: 0 });
            let stamp = &wire.as_bytes()[..wire.as_bytes().len().min(size)];
            // Part of it may lie in the stamp, part behind it.
            let in_stamp = now.len().min(stamp.len().saturating_sub(side.come));
            let body_at = (side.come + in_stamp) - stamp.len().min(side.come + in_stamp);
            let right = stamp[side.come.min(stamp.len())..].starts_with(&now[..in_stamp])
                && self.frames.body(stamp.len())[body_at..].starts_with(&now[in_stamp..]);
            side.wrong |= !right;
            side.come += now.len();
            bytes = later;
            if side.come == size {
                side.come = 0;
                let sound = !std::mem::take(&mut side.wrong);
                self.count(peer, sequence.filter(|_| sound));
            }
        }
    }

    fn on_pong(&mut self, _: &mut Peer<'_, Data>) {}

    fn on_sent(&mut self, peer: &mut Peer<'_, Data>) {
        let mut room = (CATCH_UP_BYTES / self.frames.size()).max(1);
        while room > 0
            && let Some(intended) = peer.data().as_mut().and_then(|side| side.waiting.pop_front())
        {
            self.write(peer, intended);
            room -= 1;
        }
    }

    fn on_failed(&mut self, _: u32, _: &ConnectFailure) {
        self.meter.errors().not_connected += 1;
    }

    fn on_gone(&mut self, number: u32, data: Data, gone: &Gone) {
        if self.is_stalled(number) && !matches!(gone, Gone::Meant) {
            self.stalls.ended_by_server += 1;
            return;
        }
        if !matches!(gone, Gone::Meant) {
            self.meter.errors().disconnected += 1;
        }
        if let Some(mut side) = data {
            let now = self.sweep.now();
            self.give_up_side(number, &mut side, u64::MAX, now);
        }
    }
}

impl Scenario<Data> for Echo {
    fn begin<V: Driver>(&mut self, run: &RunPlan, connections: &mut Connections<V, Data>) {
        self.stalled = run.kind == RunKind::Stalled;
        self.stalls = Stalls::default();
        if self.stalled {
            self.set_stalled_reading(connections, false);
        }
        self.pacing.begin(run, &mut self.random);
        let Some(in_flight) = self.pacing.closed_in_flight() else { return };
        for index in 0..connections.indices() {
            if let Some(mut peer) = connections.peer_at(index) {
                self.go_on(&mut peer, u64::from(in_flight));
            }
        }
    }

    fn on_turn<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        let now = connections.now();
        while connections.open_count() > 0
            && let Some(intended) = self.pacing.due(now)
        {
            self.next_index = connections.next_open(self.next_index);
            let Some(mut peer) = connections.peer_at(self.next_index) else { return };
            if self.on_their_way < ON_THEIR_WAY_MAX {
                self.send(&mut peer, intended);
            } else {
                self.meter.sent(intended, None);
                self.meter.lost(intended, now);
            }
        }
        if let Some(before) = self.sweep.due(now) {
            self.give_up_before(connections, before);
        }
    }

    fn next_due(&self) -> Option<u64> {
        self.pacing.next_due()
    }

    fn stop<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        self.pacing.stop();
        if self.stalled {
            self.set_stalled_reading(connections, true);
        }
    }

    fn has_sent_all(&self) -> bool {
        self.pacing.is_spent()
    }

    fn is_quiet<V: Driver>(&self, _: &Connections<V, Data>) -> bool {
        self.on_their_way == 0 && (!self.stalled || self.stalls.received >= self.stalls.expected)
    }

    fn give_up<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        self.give_up_before(connections, u64::MAX);
        self.stalled = false;
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
