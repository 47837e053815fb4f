//! What must hold for any sequence of calls: the table and the wheel against plain models, with sequences that shrink to
//! the shortest one that fails. The send queue has its model beside it (`src/shard/queue/tests.rs`).

use proptest::collection::vec;
use proptest::prelude::*;
use ringwave::base::clock::Tick;
use ringwave::base::key::Key;
use ringwave::base::table::Table;
use ringwave::base::wheel::Wheel;
use std::collections::{BTreeMap, HashMap};

/// Indices are few, so that slots have many tenants.
const SLOTS: u32 = 8;

proptest! {
    #[test]
    fn a_table_is_a_map_whose_old_keys_find_nothing(
        steps in vec((0..SLOTS, any::<bool>(), any::<u8>()), 1..200),
    ) {
        let mut table = Table::default();
        let mut model: HashMap<Key, u8> = HashMap::new();
        let mut tenants = vec![Key::new(0, 0); SLOTS as usize];
        let mut gone = Vec::new();
        for (index, key) in tenants.iter_mut().enumerate() {
            *key = Key::new(index as u32, 0xff_fffe);
        }
        for (index, inserts, value) in steps {
            let key = tenants[index as usize];
            match (inserts, model.contains_key(&key)) {
                (true, false) => {
                    table.insert(key, value);
                    model.insert(key, value);
                }
                (true, true) => {
                    *table.get_mut(key).expect("it is there") = value;
                    model.insert(key, value);
                }
                (false, _) => {
                    prop_assert_eq!(table.remove(key), model.remove(&key));
                    gone.push(key);
                    tenants[index as usize] = key.next_tenant();
                }
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.is_empty(), model.is_empty());
            for key in &tenants {
                prop_assert_eq!(table.get(*key), model.get(key));
                let at = table.key_at(key.index());
                prop_assert_eq!(at, model.contains_key(key).then_some(*key));
            }
            prop_assert!(gone.iter().all(|key| table.get(*key).is_none()));
        }
    }

    #[test]
    fn a_wheel_fires_each_entry_once_and_at_its_tick(
        start in any::<u32>(),
        steps in vec((prop_oneof![1u32..70, 1u32..5_000, 1u32..300_000, 1u32..20_000_000], 0u32..6_000), 1..120),
    ) {
        let mut now = Tick::new(start);
        let mut wheel = Wheel::new(now);
        let mut model: BTreeMap<u32, Tick> = BTreeMap::new();
        for (id, (delay, pause)) in steps.into_iter().enumerate() {
            let id = id as u32;
            wheel.insert(id, now.plus(delay));
            model.insert(id, now.plus(delay));
            prop_assert_eq!(wheel.len(), model.len());
            let earliest = model.values().map(|due| due.since(now)).min();
            let next = wheel.next_due().map(|due| due.since(now));
            prop_assert!(next.is_some_and(|next| next >= 1 && Some(next) <= earliest), "{next:?} of {earliest:?}");
            // Whatever is due by then fires, in the order of its ticks, and nothing else.
            now = now.plus(pause);
            let mut fired = Vec::new();
            wheel.advance(now, &mut fired);
            let ages: Vec<u32> = fired.iter().map(|id| now.since(model[id])).collect();
            prop_assert!(ages.is_sorted_by(|one, next| one >= next), "{ages:?}");
            prop_assert!(fired.iter().all(|id| now.reached(model[id])));
            for id in &fired {
                model.remove(id);
            }
            prop_assert!(model.values().all(|due| !now.reached(*due)));
        }
        prop_assert_eq!(wheel.len(), model.len());
    }
}
