//! Idle connections: held in silence, then asked one by one whether they still answer; at last, where that is wanted, one
//! of them says something that all the others must hear.

use crate::connections::{ConnectFailure, Connections, Gone, Peer, Talk};
use crate::frames::Frames;
use crate::meter::Meter;
use crate::pacing::Sweep;
use crate::plan::{Ask, Control, Plan, RunKind, RunPlan};
use crate::stamp::{Stamp, StampForm};
use crate::worker::Scenario;
use rand::Rng;
use rand::rngs::SmallRng;
use ringwave::driver::Driver;
use ringwave::protocol::mask::MaskingKey;
use ringwave::{Message, MessageKind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Connections of one thread that are asked at one time.
const ASKED_MAX: u64 = 256;

/// From when a connection is waited for, nanoseconds since the program's start; 0 if it is not, or has answered.
pub(crate) type Data = u64;

pub(crate) struct Hold {
    ask: Ask,
    frames: Frames,
    form: StampForm,
    broadcast_form: StampForm,
    control: Arc<Control>,
    /// Which thread of how many.
    thread: (usize, usize),
    kind: RunKind,
    meter: Meter,
    sweep: Sweep,
    /// The next connection to ask; `None` between runs.
    next_index: Option<usize>,
    /// What this thread is to send has left.
    all_asked: bool,
    /// Connections that are waited for.
    asked: u64,
    random: SmallRng,
}

impl Hold {
    pub(crate) fn new(plan: &Plan, ask: Ask, control: Arc<Control>, index: usize, mut random: SmallRng) -> Self {
        Self {
            ask,
            frames: Frames::new(plan.size, plan.kind, false, &mut random),
            form: StampForm::short(plan.kind == MessageKind::Text, plan.nonce),
            broadcast_form: StampForm::long(plan.kind == MessageKind::Text, plan.nonce),
            control,
            thread: (index, plan.threads),
            kind: RunKind::Plain,
            meter: Meter::default(),
            sweep: Sweep::new(plan.answer_timeout),
            next_index: None,
            all_asked: false,
            asked: 0,
            random,
        }
    }

    fn ask(&mut self, peer: &mut Peer<'_, Data>) {
        *peer.data() = peer.now;
        self.asked += 1;
        self.meter.sent(peer.now, None);
        if self.ask == Ask::Ping {
            peer.write_ping(MaskingKey::new(self.random.random()));
            return;
        }
        let wire = self.form.encode(Stamp { sender: peer.number(), sequence: 0, time: 0 });
        let frames = &mut self.frames;
        peer.write(|_, batch| frames.append(&wire, batch));
    }

    fn answered(&mut self, peer: &mut Peer<'_, Data>, sound: bool) {
        let now = peer.now;
        let asked_at = std::mem::take(peer.data());
        if asked_at == 0 {
            // A greeting, or what the server says by itself.
            return;
        }
        self.asked -= 1;
        if sound {
            let bytes = if self.ask == Ask::Echo { self.frames.size() } else { 0 };
            self.meter.received(asked_at, now, bytes);
        } else {
            self.meter.errors().corrupted += 1;
        }
    }

    /// Waits for all connections of this thread, and lets the others know that it does.
    fn listen<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        for index in 0..connections.indices() {
            if let Some(mut peer) = connections.peer_at(index) {
                *peer.data() = peer.now;
                self.asked += 1;
            }
        }
        self.control.listening.fetch_add(1, SeqCst);
    }

    /// Has the first connection say something, once all threads wait for it. What it gets back itself is not looked at: some
    /// servers leave the sender out.
    fn broadcast<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        if self.control.listening.load(SeqCst) < self.thread.1 as u32 {
            return;
        }
        self.all_asked = true;
        let first = (0..connections.indices()).find(|index| connections.peer_at(*index).is_some());
        let Some(mut peer) = first.and_then(|index| connections.peer_at(index)) else { return };
        *peer.data() = 0;
        self.asked -= 1;
        self.meter.sent(peer.now, None);
        let wire = self.broadcast_form.encode(Stamp { sender: peer.number(), sequence: 0, time: peer.now });
        let frames = &mut self.frames;
        peer.write(|_, batch| frames.append(&wire, batch));
    }

    fn heard(&mut self, peer: &mut Peer<'_, Data>, message: Message<'_>) {
        let now = peer.now;
        // The sender's own, or one more than there should be.
        if std::mem::take(peer.data()) == 0 {
            return;
        }
        self.asked -= 1;
        let (stamp_len, payload) = (self.broadcast_form.len(), message.as_bytes());
        match self.broadcast_form.decode(payload) {
            Some(stamp)
                if message.kind() == self.frames.kind() && payload[stamp_len..] == *self.frames.body(stamp_len) =>
            {
                self.meter.received(stamp.time, now, self.frames.size());
            }
            _ => self.meter.errors().corrupted += 1,
        }
    }

    fn give_up_before<V: Driver>(&mut self, connections: &mut Connections<V, Data>, before: u64) {
        for index in 0..connections.indices() {
            let Some(mut peer) = connections.peer_at(index) else { continue };
            let now = peer.now;
            let asked_at = *peer.data();
            if asked_at != 0 && asked_at < before {
                *peer.data() = 0;
                self.asked -= 1;
                self.meter.lost(asked_at, now);
            }
        }
    }
}

impl Talk<Data> for Hold {
    fn on_open(&mut self, _: &mut Peer<'_, Data>) {}

    fn on_message(&mut self, peer: &mut Peer<'_, Data>, message: Message<'_>) {
        if self.kind == RunKind::Broadcast {
            self.heard(peer, message);
        } else if self.ask == Ask::Echo {
            let payload = message.as_bytes();
            let stamp = Stamp { sender: peer.number(), sequence: 0, time: 0 };
            let wire = self.form.encode(stamp);
            let stamp_len = wire.as_bytes().len().min(self.frames.size());
            let sound = payload.len() == self.frames.size()
                && message.kind() == self.frames.kind()
                && payload[..stamp_len] == wire.as_bytes()[..stamp_len]
                && payload[stamp_len..] == *self.frames.body(stamp_len);
            self.answered(peer, sound);
        }
    }

    fn on_bytes(&mut self, _: &mut Peer<'_, Data>, _: &[u8]) {}

    fn on_pong(&mut self, peer: &mut Peer<'_, Data>) {
        if self.ask == Ask::Ping && self.kind == RunKind::Plain {
            self.answered(peer, true);
        }
    }

    fn on_sent(&mut self, _: &mut Peer<'_, Data>) {}

    fn on_failed(&mut self, _: u32, _: &ConnectFailure) {
        self.meter.errors().not_connected += 1;
    }

    fn on_gone(&mut self, _: u32, asked_at: Data, gone: &Gone) {
        if !matches!(gone, Gone::Meant) {
            self.meter.errors().disconnected += 1;
        }
        if asked_at != 0 {
            self.asked -= 1;
            self.meter.lost(asked_at, self.sweep.now());
        }
    }
}

impl Scenario<Data> for Hold {
    fn begin<V: Driver>(&mut self, run: &RunPlan, connections: &mut Connections<V, Data>) {
        self.kind = run.kind;
        if self.kind == RunKind::Broadcast {
            self.all_asked = self.thread.0 > 0;
            return self.listen(connections);
        }
        self.all_asked = self.ask == Ask::None;
        self.next_index = (!self.all_asked).then_some(0);
    }

    fn on_turn<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        if self.kind == RunKind::Broadcast && !self.all_asked {
            self.broadcast(connections);
        }
        while self.asked < ASKED_MAX
            && let Some(index) = self.next_index
        {
            self.next_index = (index + 1 < connections.indices()).then_some(index + 1);
            self.all_asked = self.next_index.is_none();
            if let Some(mut peer) = connections.peer_at(index) {
                self.ask(&mut peer);
            }
        }
        if let Some(before) = self.sweep.due(connections.now()) {
            self.give_up_before(connections, before);
        }
    }

    fn next_due(&self) -> Option<u64> {
        None
    }

    fn stop<V: Driver>(&mut self, _: &mut Connections<V, Data>) {
        self.next_index = None;
    }

    fn has_sent_all(&self) -> bool {
        self.all_asked
    }

    fn is_quiet<V: Driver>(&self, _: &Connections<V, Data>) -> bool {
        self.asked == 0
    }

    fn give_up<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        self.give_up_before(connections, u64::MAX);
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}
