//! Churn: connections that come, shake hands and go, so many at one time or so many a second.

use crate::connections::{ConnectFailure, Connections, Gone, Leave, Peer, Talk};
use crate::meter::Meter;
use crate::pacing::{Pacing, Sweep};
use crate::plan::{Plan, RunPlan};
use crate::schedule::Share;
use crate::worker::Scenario;
use rand::rngs::SmallRng;
use ringwave::Message;
use ringwave::driver::Driver;
use std::collections::VecDeque;

/// A connection that was refused is tried again after this, nanoseconds.
const REST_NANOS: u64 = 100_000_000;
/// Failures in a row, with no success before, after which a run has nothing to measure.
const FUTILE_MAX: u64 = 64;

pub(crate) type Data = ();

pub(crate) struct Churn {
    thread: (usize, usize),
    leaves: Vec<Leave>,
    next_leave: usize,
    meter: Meter,
    pacing: Pacing,
    sweep: Sweep,
    /// Numbers that are free to be opened.
    free: Vec<u32>,
    /// Numbers that failed, and when they may be tried again.
    resting: VecDeque<(u64, u32)>,
    /// When each number's connection was meant to begin, by the thread's own number; 0 once that is answered.
    intended: Vec<u64>,
    /// When connections were meant to begin that found no number free.
    waiting: VecDeque<u64>,
    in_use: u64,
    succeeded: u64,
    failed: u64,
    random: SmallRng,
}

impl Churn {
    pub(crate) fn new(
        plan: &Plan,
        thread: (usize, usize),
        share: Share,
        at_once: u32,
        leaves: Vec<Leave>,
        random: SmallRng,
    ) -> Self {
        let (index, threads) = (thread.0 as u32, thread.1);
        let free: Vec<u32> = (index..at_once).step_by(threads).collect();
        Self {
            thread,
            leaves,
            next_leave: 0,
            meter: Meter::default(),
            pacing: Pacing::new(share),
            sweep: Sweep::new(plan.answer_timeout),
            intended: vec![0; free.len()],
            free,
            resting: VecDeque::new(),
            waiting: VecDeque::new(),
            in_use: 0,
            succeeded: 0,
            failed: 0,
            random,
        }
    }

    fn open<V: Driver>(&mut self, connections: &mut Connections<V, Data>, number: u32, intended: u64) {
        self.intended[number as usize / self.thread.1] = intended;
        self.in_use += 1;
        connections.open(number);
    }
}

impl Talk<Data> for Churn {
    fn on_open(&mut self, peer: &mut Peer<'_, Data>) {
        let intended = std::mem::take(&mut self.intended[peer.number() as usize / self.thread.1]);
        self.succeeded += 1;
        self.meter.received(intended, peer.now, 0);
        peer.leave(self.leaves[self.next_leave]);
        self.next_leave = (self.next_leave + 1) % self.leaves.len();
    }

    fn on_message(&mut self, _: &mut Peer<'_, Data>, _: Message<'_>) {}

    fn on_bytes(&mut self, _: &mut Peer<'_, Data>, _: &[u8]) {}

    fn on_pong(&mut self, _: &mut Peer<'_, Data>) {}

    fn on_sent(&mut self, _: &mut Peer<'_, Data>) {}

    fn on_failed(&mut self, number: u32, _: &ConnectFailure) {
        self.in_use -= 1;
        self.failed += 1;
        self.meter.errors().not_connected += 1;
        let intended = std::mem::take(&mut self.intended[number as usize / self.thread.1]);
        self.meter.waited_in_vain(intended, self.sweep.now());
        self.resting.push_back((self.sweep.now() + REST_NANOS, number));
    }

    fn on_gone(&mut self, number: u32, (): Data, gone: &Gone) {
        self.in_use -= 1;
        self.free.push(number);
        if !matches!(gone, Gone::Meant) {
            self.meter.errors().disconnected += 1;
        }
    }
}

impl Scenario<Data> for Churn {
    fn begin<V: Driver>(&mut self, run: &RunPlan, _: &mut Connections<V, Data>) {
        self.pacing.begin(run, &mut self.random);
    }

    fn on_turn<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        let now = connections.now();
        let _ = self.sweep.due(now);
        while let Some(&(until, number)) = self.resting.front()
            && until <= now
        {
            self.resting.pop_front();
            self.free.push(number);
        }
        while let Some(intended) = self.pacing.due(now) {
            self.meter.sent(intended, Some(now.saturating_sub(intended)));
            self.waiting.push_back(intended);
        }
        while let Some(number) = self.free.pop() {
            let intended =
                if self.pacing.is_open() { self.waiting.pop_front() } else { self.pacing.spend().then_some(now) };
            let Some(intended) = intended else {
                self.free.push(number);
                return;
            };
            if !self.pacing.is_open() {
                self.meter.sent(intended, None);
            }
            self.open(connections, number, intended);
        }
    }

    fn next_due(&self) -> Option<u64> {
        self.pacing.next_due()
    }

    fn stop<V: Driver>(&mut self, _: &mut Connections<V, Data>) {
        self.pacing.stop();
    }

    fn has_sent_all(&self) -> bool {
        self.pacing.is_spent()
    }

    fn is_futile(&self) -> bool {
        self.succeeded == 0 && self.failed >= FUTILE_MAX
    }

    fn is_quiet<V: Driver>(&self, _: &Connections<V, Data>) -> bool {
        self.in_use == 0 && self.waiting.is_empty()
    }

    fn give_up<V: Driver>(&mut self, connections: &mut Connections<V, Data>) {
        let now = connections.now();
        let under_way = self.intended.iter_mut().map(std::mem::take).filter(|intended| *intended > 0);
        for intended in self.waiting.drain(..).chain(under_way) {
            self.meter.lost(intended, now);
        }
    }

    fn grant(&mut self) {
        self.pacing.grant();
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}
