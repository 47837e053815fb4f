//! A table of values under keys that somebody else hands out.
//!
//! The driver numbers the links; the shard keeps a session under the same number. One number, one
//! generation check, no map between them.

use super::key::Key;

/// Values by [`Key`]. Memory: one `Option<(generation, T)>` for each index up to the largest seen.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<Slot<T>>>,
    count: usize,
}

// The generation and its padding: what a table adds to a value.
const _: () = assert!(size_of::<Option<Slot<std::num::NonZero<u64>>>>() == 8 + 8);

#[derive(Debug)]
struct Slot<T> {
    value: T,
    generation: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), count: 0 }
    }
}

impl<T> Table<T> {
    /// Puts `value` under `key`.
    ///
    /// # Panics
    /// If the index still has a tenant: whoever hands out keys freed it too early.
    pub fn insert(&mut self, key: Key, value: T) {
        if key.index() >= self.slots.len() {
            self.slots.resize_with(key.index() + 1, || None);
        }
        let slot = &mut self.slots[key.index()];
        assert!(slot.is_none(), "slot {key:?} is handed out while it has a tenant");
        *slot = Some(Slot { value, generation: key.generation() });
        self.count += 1;
    }

    /// The value under `key`, if that very tenant is still there.
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index()) {
            Some(Some(slot)) if slot.generation == key.generation() => Some(&slot.value),
            _ => None,
        }
    }

    /// The value under `key`, to change.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index()) {
            Some(Some(slot)) if slot.generation == key.generation() => Some(&mut slot.value),
            _ => None,
        }
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        self.count -= 1;
        self.slots[key.index()].take().map(|slot| slot.value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of slots: one more than the largest index seen.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The key of the tenant at `index`, if there is one.
    pub fn key_at(&self, index: usize) -> Option<Key> {
        let slot = self.slots.get(index)?.as_ref()?;
        // An index came in as part of a key, so it fits.
        Some(Key::new(index as u32, slot.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut table = Table::default();
        let first = Key::new(3, 9);
        table.insert(first, 'a');
        assert_eq!(table.remove(first), Some('a'));
        table.insert(first.next_tenant(), 'b');
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(first.next_tenant()), Some(&'b'));
        assert_eq!((table.len(), table.slots()), (1, 4));
        assert_eq!(table.key_at(3), Some(first.next_tenant()));
        assert_eq!(table.key_at(0), None);
    }

    #[test]
    #[should_panic(expected = "has a tenant")]
    fn a_slot_has_one_tenant_at_a_time() {
        let mut table = Table::default();
        table.insert(Key::new(0, 0), ());
        table.insert(Key::new(0, 1), ());
    }
}
