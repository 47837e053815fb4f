//! A hierarchical timing wheel: insertion in constant time, 12 bytes an entry.
//!
//! ```text
//! level 0   64 slots of 1 tick          the next 64 ticks
//! level 1   64 slots of 64 ticks        … 4 096
//! level 2   64 slots of 4 096 ticks     … 262 144
//! level 3   64 slots of 262 144 ticks   … 16 777 216 (37 hours of 8 ms)
//! ```
//! What lies further ahead is put into the last slot and sorted in again when that comes up. Nothing is ever
//! removed before its time: whoever put an entry in decides, when it fires, whether it still means anything.
//!
//! A slot is a chain of chunks, all of one size: entries come and go by the thousand every second, and lists that grow
//! and shrink by themselves leave holes in the heap that nothing else fits.

use super::clock::Tick;

const LEVELS: usize = 4;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Entries of a chunk: 256 bytes in all with pointers of 8.
const CHUNK_ENTRIES: usize = 20;
/// Emptied chunks that are kept for use again, beside as many as the entries would fill: who fires sets the next timer.
const CHUNKS_KEPT: usize = 256;

/// Entries of type `K` (8 bytes or fewer), each due at a [`Tick`].
#[derive(Debug)]
pub struct Wheel<K> {
    /// `LEVELS × SLOTS` chains.
    slots: Vec<Option<Box<Chunk<K>>>>,
    spare: Vec<Box<Chunk<K>>>,
    /// One bit for each slot that has entries, by level.
    occupied: [u64; LEVELS],
    now: Tick,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    key: K,
    due: Tick,
}

const _: () = assert!(size_of::<Entry<super::key::Key>>() == 12);

/// Some entries of a slot, and the others.
#[derive(Debug)]
struct Chunk<K> {
    next: Option<Box<Chunk<K>>>,
    len: usize,
    entries: [Entry<K>; CHUNK_ENTRIES],
}

const _: () = assert!(size_of::<Chunk<super::key::Key>>() <= 256);

impl<K> Drop for Wheel<K> {
    /// One chunk after the other: dropped as they stand, a long chain would need a long stack.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let mut chain = slot.take();
            while let Some(mut chunk) = chain {
                chain = chunk.next.take();
            }
        }
    }
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel that stands at `now`.
    pub fn new(now: Tick) -> Self {
        const { assert!(size_of::<K>() <= 8) };
        Self {
            slots: (0..LEVELS * SLOTS).map(|_| None).collect(),
            spare: Vec::new(),
            occupied: [0; LEVELS],
            now,
            count: 0,
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts `key` in, to fire at `due`, or with the next tick if that has passed. Cost: one push.
    pub fn insert(&mut self, key: K, due: Tick) {
        let due = if self.now.reached(due) { self.now.plus(1) } else { due };
        self.place(Entry { key, due });
        self.count += 1;
    }

    /// The earliest tick at which [`Wheel::advance`] has work to do (it may turn out to be sorting only).
    pub fn next_due(&self) -> Option<Tick> {
        let now = self.now.number();
        (0..LEVELS as u32)
            .filter(|&level| self.occupied[level as usize] != 0)
            .map(|level| {
                let shift = level * SLOT_BITS;
                let position = (now >> shift) % SLOTS as u32;
                // Slots come up in order after the position; the position's own slot comes up last.
                let ahead = self.occupied[level as usize].rotate_right((position + 1) % 64).trailing_zeros() + 1;
                Tick::new(((now >> shift).wrapping_add(ahead)) << shift)
            })
            .min_by_key(|tick| tick.number().wrapping_sub(now))
    }

    /// Moves to `now` and appends the keys of all entries that have come due to `fired`, in the order of their ticks.
    pub fn advance(&mut self, now: Tick, fired: &mut Vec<K>) {
        while let Some(due) = self.next_due() {
            if !now.reached(due) {
                break;
            }
            self.now = due;
            self.turn_to(due, fired);
        }
        if now.reached(self.now) {
            self.now = now;
        }
        self.spare.truncate(CHUNKS_KEPT + self.count / CHUNK_ENTRIES);
    }

    /// Handles the slots that come up exactly at `tick`: coarse ones are sorted into finer ones, the finest fires.
    fn turn_to(&mut self, tick: Tick, fired: &mut Vec<K>) {
        for level in (0..LEVELS as u32).rev() {
            let shift = level * SLOT_BITS;
            if tick.number() & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = (tick.number() >> shift) as usize % SLOTS;
            let mut chain = self.take_slot(level as usize, slot);
            while let Some(mut chunk) = chain {
                for entry in &chunk.entries[..chunk.len] {
                    if tick.reached(entry.due) {
                        self.count -= 1;
                        fired.push(entry.key);
                    } else {
                        self.place(*entry);
                    }
                }
                chain = chunk.next.take();
                self.spare.push(chunk);
            }
        }
    }

    fn place(&mut self, entry: Entry<K>) {
        let ahead = entry.due.since(self.now).max(1);
        let level =
            (0..LEVELS as u32 - 1).find(|level| ahead < 1 << ((level + 1) * SLOT_BITS)).unwrap_or(LEVELS as u32 - 1);
        let shift = level * SLOT_BITS;
        let reach = ((SLOTS as u32) << shift) - 1;
        let at = self.now.plus(ahead.min(reach)).number();
        let slot = (at >> shift) as usize % SLOTS;
        self.occupied[level as usize] |= 1 << slot;
        let chain = &mut self.slots[level as usize * SLOTS + slot];
        match chain {
            Some(chunk) if chunk.len < CHUNK_ENTRIES => {
                chunk.entries[chunk.len] = entry;
                chunk.len += 1;
            }
            _ => {
                let next = chain.take();
                let mut chunk = self
                    .spare
                    .pop()
                    .unwrap_or_else(|| Box::new(Chunk { next: None, len: 0, entries: [entry; CHUNK_ENTRIES] }));
                chunk.entries[0] = entry;
                (chunk.len, chunk.next) = (1, next);
                *chain = Some(chunk);
            }
        }
    }

    fn take_slot(&mut self, level: usize, slot: usize) -> Option<Box<Chunk<K>>> {
        self.occupied[level] &= !(1 << slot);
        self.slots[level * SLOTS + slot].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(wheel: &mut Wheel<u32>, now: Tick) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.advance(now, &mut fired);
        fired
    }

    #[test]
    fn every_entry_fires_at_its_tick_and_once() {
        for start in [0, 63, 4_095, u32::MAX - 70_000, u32::MAX] {
            let start = Tick::new(start);
            let delays = [1, 2, 63, 64, 65, 127, 128, 4_095, 4_096, 4_097, 70_000, 262_143, 262_144, 300_001];
            let mut wheel = Wheel::new(start);
            for delay in delays {
                wheel.insert(delay, start.plus(delay));
            }
            let mut seen = Vec::new();
            for step in 1..=300_001 {
                for key in fire(&mut wheel, start.plus(step)) {
                    assert_eq!(key, step, "fired at the wrong tick, start {start:?}");
                    seen.push(key);
                }
            }
            assert_eq!(seen, delays);
            assert!(wheel.is_empty());
            assert_eq!(wheel.next_due(), None);
        }
    }

    #[test]
    fn a_long_stall_fires_everything_in_order() {
        let mut wheel = Wheel::new(Tick::new(10));
        for delay in [9_000, 3, 500, 40_000_000, 70] {
            wheel.insert(delay, Tick::new(10).plus(delay));
        }
        assert_eq!(fire(&mut wheel, Tick::new(1_000_000)), [3, 70, 500, 9_000]);
        assert_eq!(wheel.len(), 1);
        assert_eq!(fire(&mut wheel, Tick::new(40_000_009)), []);
        assert_eq!(fire(&mut wheel, Tick::new(40_000_010)), [40_000_000]);
    }

    #[test]
    fn next_due_never_lies_behind_the_true_deadline() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut now = Tick::new(u32::MAX - 5_000);
        let mut wheel = Wheel::new(now);
        let mut due = std::collections::BTreeMap::new();
        for id in 0..20_000u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let delay = 1 + (random % 10_000) as u32;
            wheel.insert(id, now.plus(delay));
            due.insert(id, now.plus(delay));
            let next = wheel.next_due().expect("an entry is there");
            now = if random.is_multiple_of(3) { next } else { now.plus(1) };
            for key in fire(&mut wheel, now) {
                let at = due.remove(&key).expect("fires once");
                assert!(now.reached(at), "{key} fired early");
            }
            assert!(due.values().all(|at| !now.reached(*at)) || id % 64 != 0, "one was missed by {now:?}");
        }
        assert_eq!(wheel.len(), due.len());
    }

    #[test]
    fn what_is_due_already_fires_with_the_next_tick() {
        let mut wheel = Wheel::new(Tick::new(100));
        wheel.insert(1, Tick::new(90));
        assert_eq!(wheel.next_due(), Some(Tick::new(101)));
        assert_eq!(fire(&mut wheel, Tick::new(101)), [1]);
    }

    #[test]
    fn a_slot_holds_any_number_and_is_dropped_without_a_deep_stack() {
        let mut wheel = Wheel::new(Tick::new(0));
        for key in 0..1_000_000 {
            wheel.insert(key, Tick::new(5));
        }
        let mut fired = fire(&mut wheel, Tick::new(5));
        fired.sort_unstable();
        assert!(fired.into_iter().eq(0..1_000_000));
        assert!(wheel.spare.len() <= CHUNKS_KEPT);
        for key in 0..1_000_000 {
            wheel.insert(key, Tick::new(70));
        }
        drop(wheel);
    }
}
