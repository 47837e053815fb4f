//! The queue against a model that keeps every frame in a list, after each of many random steps.

use super::super::memory::SharedBytes;
use super::*;
use crate::base::limits::{KIB, SEND_SHARED_BYTES_MIN};

/// Knuth's linear congruential generator: the high bits are random enough here.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Lengths on both sides of every line that the queue draws.
    fn length(&mut self) -> usize {
        match self.below(100) {
            0 => SEND_BYTES_MAX + self.below(10),
            1..=4 => 40 * KIB + self.below(40 * KIB),
            5..=9 => SEND_SHARED_BYTES_MIN - 20 + self.below(40),
            _ => 5 + self.below(200),
        }
    }
}

/// A frame that tells itself from all others.
fn frame_of(number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; length];
    frame[..4].copy_from_slice(&number.to_le_bytes());
    frame
}

#[derive(Clone, Debug)]
struct Frame {
    bytes: Vec<u8>,
    slot: u64,
    is_message: bool,
    own: bool,
}

/// What the queue says that it does, with a list for each place where something may stand.
#[derive(Default)]
struct Model {
    in_flight: usize,
    next: Vec<u8>,
    /// Waits and may leave.
    front: Vec<Frame>,
    /// Waits for the last fragment of a message under way.
    behind: Vec<Frame>,
    fragmented: bool,
    control: Vec<Vec<u8>>,
    pong: Option<Vec<u8>>,
}

impl Model {
    fn waiting(&self) -> impl Iterator<Item = &Frame> {
        self.front.iter().chain(&self.behind)
    }

    fn waiting_bytes(&self) -> usize {
        self.waiting().map(|frame| frame.bytes.len()).sum()
    }

    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.front.is_empty()
    }

    fn has_no_control(&self) -> bool {
        self.control.is_empty() && self.pong.is_none()
    }

    fn push(&mut self, frame: Frame) {
        if self.fragmented { &mut self.behind } else { &mut self.front }.push(frame);
    }

    /// The newest that waits in this slot.
    fn in_slot(&mut self, slot: u64) -> Option<&mut Frame> {
        self.behind.iter_mut().rev().chain(self.front.iter_mut().rev()).find(|frame| frame.slot == slot)
    }

    fn drop_oldest(&mut self, spared: Option<u64>) -> bool {
        for list in [&mut self.front, &mut self.behind] {
            if let Some(at) = list.iter().position(|frame| frame.is_message && Some(frame.slot) != spared) {
                list.remove(at);
                return true;
            }
        }
        false
    }

    fn take_next(&mut self) -> Option<Vec<u8>> {
        if self.in_flight > 0 {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.next);
        bytes.extend(self.control.drain(..).chain(self.pong.take()).flatten());
        while !self.front.is_empty() && (bytes.is_empty() || bytes.len() + self.front[0].bytes.len() <= SEND_BYTES_MAX)
        {
            bytes.extend(self.front.remove(0).bytes);
        }
        self.in_flight = bytes.len();
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// A queue and its model, which must agree.
struct Pair {
    queue: Queue,
    model: Model,
    batches: BatchPool,
    joins: Joins,
    in_flight: Option<Box<Batch>>,
    number: u32,
}

impl Pair {
    fn new() -> Self {
        Self {
            queue: Queue::default(),
            model: Model::default(),
            batches: BatchPool::default(),
            joins: Joins::new(SharedBytes::default()),
            in_flight: None,
            number: 0,
        }
    }

    fn next_frame(&mut self, length: usize) -> Vec<u8> {
        self.number += 1;
        frame_of(self.number, length)
    }

    /// One step that the shard could take in this state.
    fn step(&mut self, random: &mut Random) {
        let length = random.length();
        match random.below(20) {
            0..=1 => self.write(random, length),
            2 => self.append(length),
            3..=5 => self.fragment(random.once_in(4), length),
            6..=9 => self.push(random, length),
            10..=11 => self.replace(random, length),
            12 => {
                let spared = random.once_in(2).then(|| 1 + random.below(4) as u64);
                let dropped = self.queue.drop_oldest(spared).is_some();
                assert_eq!(dropped, self.model.drop_oldest(spared));
            }
            13 => self.push_control(),
            14 => self.push_pong(random.below(CONTROL_PAYLOAD_BYTES_MAX - 3) + 4),
            15..=16 => self.take_next(),
            17 => self.sent_part(random),
            18 => self.sent(),
            _ => match random.below(30) {
                0 => self.close(),
                1 => self.clear(),
                _ => self.leave_all(),
            },
        }
        self.check();
    }

    /// A message of a session to which nothing is being sent.
    fn write(&mut self, random: &mut Random, length: usize) {
        if !self.queue.is_open() {
            return;
        }
        let bytes = self.next_frame(length);
        self.model.next.extend_from_slice(&bytes);
        match random.below(3) {
            0 => self.queue.write(&mut self.batches, |batch| batch.append(|out| out.extend_from_slice(&bytes))),
            own => self.queue.write_shared(&mut self.batches, &mut self.joins, &bytes.into(), own == 1),
        }
    }

    /// An answer; none is given while a message is under way.
    fn append(&mut self, length: usize) {
        if self.model.fragmented {
            return;
        }
        let bytes = self.next_frame(length);
        self.queue.append(&mut self.batches, |out| out.extend_from_slice(&bytes));
        if self.model.is_idle() {
            self.model.next.extend(bytes);
        } else {
            self.model.front.push(Frame { bytes, slot: 0, is_message: false, own: true });
        }
    }

    fn fragment(&mut self, last: bool, length: usize) {
        let bytes = self.next_frame(length);
        self.queue.append_fragment(&mut self.batches, last, |out| out.extend_from_slice(&bytes));
        if self.model.in_flight == 0 && self.model.front.is_empty() {
            self.model.next.extend(bytes);
        } else {
            self.model.front.push(Frame { bytes, slot: 0, is_message: false, own: true });
        }
        self.model.fragmented = !last;
        if last {
            self.model.front.append(&mut self.model.behind);
        }
    }

    fn push(&mut self, random: &mut Random, length: usize) {
        if self.queue.is_open() {
            return;
        }
        let (bytes, slot, own) = (self.next_frame(length), random.below(4) as u64, random.once_in(2));
        self.queue.push(&bytes.clone().into(), Tag { slot, topic: None }, own);
        self.model.push(Frame { bytes, slot, is_message: true, own });
    }

    fn replace(&mut self, random: &mut Random, length: usize) {
        let (bytes, slot, own) = (self.next_frame(length), 1 + random.below(4) as u64, random.once_in(2));
        let before = self.queue.bytes_in(slot);
        let replaced = self.queue.replace(&bytes.clone().into(), Tag { slot, topic: None }, own).is_some();
        let place = self.model.in_slot(slot);
        assert_eq!(replaced, place.is_some());
        assert_eq!(before, place.as_ref().map(|frame| frame.bytes.len()));
        if let Some(place) = place {
            *place = Frame { bytes, slot, is_message: true, own };
        }
    }

    fn push_control(&mut self) {
        let bytes = self.next_frame(10);
        let taken = self.queue.push_control(&mut self.batches, |out| out.extend_from_slice(&bytes));
        let overtakes_none = self.model.is_idle() && self.model.has_no_control();
        assert_eq!(taken, overtakes_none || self.model.control.len() < CONTROL_FRAMES_WAITING_MAX);
        if overtakes_none {
            self.model.next.extend(bytes);
        } else if taken {
            self.model.control.push(bytes);
        }
    }

    fn push_pong(&mut self, length: usize) {
        let bytes = self.next_frame(length);
        let coalesced = self.queue.push_pong(&mut self.batches, &bytes, |out| out.extend_from_slice(&bytes));
        assert_eq!(coalesced, self.model.pong.is_some());
        if self.model.is_idle() && self.model.has_no_control() {
            self.model.next.extend(bytes);
        } else {
            self.model.pong = Some(bytes);
        }
    }

    fn take_next(&mut self) {
        let gathered = self.model.next.len() + self.model.control.iter().flatten().count();
        let expected = self.model.take_next();
        let batch =
            self.queue.take_next(&mut self.batches, &mut self.joins, |payload, out| out.extend_from_slice(payload));
        let bytes = batch.as_ref().map(|batch| batch.remaining().flatten().copied().collect::<Vec<_>>());
        // Not `assert_eq`: many thousand bytes are no help in a log.
        assert!(
            bytes == expected,
            "{:?} instead of {:?} bytes left",
            bytes.map(|b| b.len()),
            expected.map(|b| b.len())
        );
        if let (Some(batch), Some(bytes)) = (batch, bytes) {
            let first = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let alone = bytes == frame_of(first, bytes.len());
            let pong = CONTROL_PAYLOAD_BYTES_MAX;
            assert!(bytes.len() <= SEND_BYTES_MAX || alone || bytes.len() <= gathered + pong, "{}", bytes.len());
            self.in_flight = Some(batch);
        }
    }

    fn sent_part(&mut self, random: &mut Random) {
        if self.model.in_flight > 1 {
            let remaining = 1 + random.below(self.model.in_flight - 1);
            assert_eq!(self.queue.sent_part(remaining), self.model.in_flight - remaining);
            self.model.in_flight = remaining;
        }
    }

    fn sent(&mut self) {
        if let Some(batch) = self.in_flight.take() {
            assert_eq!(self.queue.sent(), std::mem::take(&mut self.model.in_flight));
            self.batches.put(batch);
        }
    }

    /// A close frame is the last thing that leaves.
    fn close(&mut self) {
        self.queue.clear_control();
        let abandoned = self.queue.abandon_fragments();
        assert_eq!(abandoned.len(), self.model.behind.len());
        self.model.behind.clear();
        self.model.control.clear();
        self.model.pong = None;
        self.model.fragmented = false;
        self.append(6);
        self.leave_all();
        assert!(self.queue.is_free());
        self.clear();
    }

    /// The session is gone; what is in flight has no queue any more.
    fn clear(&mut self) {
        self.queue.clear(&mut self.batches);
        self.in_flight = None;
        self.model = Model::default();
    }

    /// Everything leaves that may.
    fn leave_all(&mut self) {
        self.sent();
        self.take_next();
        while self.in_flight.is_some() {
            self.check();
            self.sent();
            self.take_next();
        }
        assert!(self.model.front.is_empty() && self.model.next.is_empty());
        if self.model.behind.is_empty() {
            assert_eq!(self.queue.charged(), 0, "all has left");
        }
    }

    fn check(&self) {
        let Self { queue, model, .. } = self;
        let waiting_bytes = model.waiting_bytes();
        let control: usize = model.control.iter().map(Vec::len).sum();
        assert_eq!(queue.bytes(), model.in_flight + model.next.len() + waiting_bytes + control);
        assert_eq!(queue.waiting_bytes(), waiting_bytes);
        let behind_bytes: usize = model.behind.iter().map(|frame| frame.bytes.len()).sum();
        assert_eq!(queue.front_bytes(), waiting_bytes - behind_bytes);
        assert_eq!(queue.leaving_bytes(), queue.bytes() - behind_bytes);
        assert_eq!(queue.has_waiting(), model.waiting().next().is_some());
        assert_eq!(queue.is_sending(), model.in_flight > 0);
        assert_eq!(queue.is_open(), model.is_idle() && !model.fragmented);
        let leaves = model.in_flight + model.next.len() + model.front.len() + model.control.len();
        assert_eq!(queue.is_flushed(), leaves == 0 && model.pong.is_none());
        assert_eq!(queue.is_free(), queue.is_flushed() && model.behind.is_empty() && !model.fragmented);
        // What waits is charged at least for what is its own, and nothing is charged for nothing.
        let own: usize = model.waiting().filter(|frame| frame.own).map(|frame| frame.bytes.len()).sum();
        let lists = model.waiting().count() * WAITING_BYTES;
        assert!(queue.charged() >= own + lists, "{} charged for {own} and {lists}", queue.charged());
        let slots: Vec<u64> = queue.slots.iter().flat_map(|slots| slots.keys().copied()).collect();
        assert!(slots.iter().all(|slot| model.waiting().any(|frame| frame.slot == *slot)), "{slots:?}");
    }
}

#[test]
fn the_queue_agrees_with_a_model_after_every_step() {
    const SEEDS: u64 = 50;
    const STEPS: usize = 2_000;
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut random, mut pair) = (Random(seed), Pair::new());
        for _ in 0..STEPS {
            pair.step(&mut random);
        }
        pair.close();
    }
}

/// Whether a message is under way or not, one is queued, replaced or dropped at the cost of one, and not of all that wait: this
/// takes less than a second, or minutes.
#[test]
fn work_does_not_grow_with_the_messages_that_wait() {
    const COUNT: u64 = 30_000;
    const FRAGMENTS: u64 = 500;
    let frame = Bytes::from_static(b"message");
    let (mut queue, mut batches) = (Queue::default(), BatchPool::default());
    queue.write(&mut batches, |batch| batch.append(|out| out.push(0)));
    let batch =
        queue.take_next(&mut batches, &mut Joins::new(SharedBytes::default()), |_, _| ()).expect("something is there");
    let tag = |slot| Tag { slot, topic: None };
    for round in 0..2 {
        for slot in 1..=COUNT {
            queue.push(&frame, tag(slot + round * COUNT), false);
            if slot % (COUNT / FRAGMENTS) == 0 {
                queue.append_fragment(&mut batches, false, |out| out.push(1));
            }
        }
        for slot in 1..=COUNT {
            assert!(queue.replace(&frame, tag(slot + round * COUNT), false).is_some());
        }
    }
    for _ in 0..COUNT {
        assert!(queue.drop_oldest(None).is_some());
    }
    queue.append_fragment(&mut batches, true, |out| out.push(1));
    for _ in 0..COUNT {
        assert!(queue.drop_oldest(None).is_some());
    }
    assert!(queue.drop_oldest(None).is_none());
    batches.put(batch);
}
