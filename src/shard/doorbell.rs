//! Whether a shard sleeps. Whoever leaves it something asks, so that a busy shard costs nobody a system call.
//!
//! The shard says that it sleeps and then looks once more whether something was left; whoever leaves something leaves it and
//! then looks whether the shard sleeps. With a sequentially consistent fence between the two steps of each, one of them sees
//! the other: nothing is left lying. What is said and looked at needs no order of its own.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One shard's doorbell.
#[derive(Debug)]
pub(super) struct Doorbell {
    sleeping: AtomicBool,
}

impl Doorbell {
    pub(super) fn new() -> Self {
        Self { sleeping: AtomicBool::new(false) }
    }

    /// The owner's: says that it is about to wait. Answers whether it may, which `nothing_is_left` says.
    pub(super) fn fall_asleep(&self, nothing_is_left: impl FnOnce() -> bool) -> bool {
        // A swap stands behind whatever a visitor has left here, in loom's eyes too; with the fence a store costs no less.
        self.sleeping.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        nothing_is_left()
    }

    /// The owner's: it has waited.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// After something was left: whether the owner must be woken. Of those who ask at one time one is told so.
    pub(super) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed)
    }
}

/// All orders in which threads can run: `scripts/loom`.
#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    #[test]
    fn nothing_is_left_lying() {
        loom::model(|| {
            let (bell, left) = (Arc::new(Doorbell::new()), Arc::new(AtomicUsize::new(0)));
            let visitors: Vec<_> = (0..2)
                .map(|_| {
                    let (bell, left) = (bell.clone(), left.clone());
                    thread::spawn(move || {
                        left.fetch_add(1, Ordering::Release);
                        bell.must_wake()
                    })
                })
                .collect();
            let sleeps = bell.fall_asleep(|| left.load(Ordering::Acquire) == 0);
            let rung: Vec<bool> = visitors.into_iter().map(|visitor| visitor.join().expect("it ends")).collect();
            let count = rung.iter().filter(|rung| **rung).count();
            assert!(!sleeps || count == 1, "it sleeps, and {count} woke it");
        });
    }

    #[test]
    fn whoever_is_awake_is_woken_at_most_once_more() {
        loom::model(|| {
            let (bell, left) = (Arc::new(Doorbell::new()), Arc::new(AtomicUsize::new(0)));
            let visitor = {
                let (bell, left) = (bell.clone(), left.clone());
                thread::spawn(move || {
                    let mut rung = 0;
                    for _ in 0..2 {
                        left.fetch_add(1, Ordering::Release);
                        rung += usize::from(bell.must_wake());
                    }
                    rung
                })
            };
            // It looked, woke for whatever reason, took what it saw, and sleeps again.
            bell.fall_asleep(|| left.load(Ordering::Acquire) == 0);
            bell.awake();
            let taken = left.swap(0, Ordering::AcqRel);
            let sleeps = bell.fall_asleep(|| left.load(Ordering::Acquire) == 0);
            let rung = visitor.join().expect("it ends");
            assert!(!sleeps || taken == 2 || rung > 0, "it sleeps, {taken} were taken, and nobody woke it");
        });
    }
}
