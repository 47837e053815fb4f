//! The heap, counted for each thread: what a piece of work keeps, what it held at most, what it asked for.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    // Without a destructor and without a first allocation: an allocator may use it.
    static HEAP: Cell<Heap> = const { Cell::new(Heap { live: 0, peak: 0, total: 0 }) };
}

/// Bytes of heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heap {
    /// Still held when the work was done, less what it freed of others'.
    pub(crate) live: isize,
    /// Held at most.
    pub(crate) peak: isize,
    /// Asked for, all in all. A buffer that grows counts with each of its sizes.
    pub(crate) total: usize,
}

impl Heap {
    /// Runs `work` and answers what it used, on this thread.
    pub(crate) fn used_by<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let before = HEAP.get();
        HEAP.set(Heap { peak: before.live, ..before });
        let result = work();
        let after = HEAP.get();
        HEAP.set(Heap { peak: before.peak.max(after.peak), ..after });
        let used =
            Self { live: after.live - before.live, peak: after.peak - before.live, total: after.total - before.total };
        (result, used)
    }

    fn count(asked: usize, freed: usize) {
        let Heap { live, peak, total } = HEAP.get();
        let live = live + asked as isize - freed as isize;
        HEAP.set(Heap { live, peak: peak.max(live), total: total + asked });
    }
}

struct Counting;

// SAFETY: every call is handed on to `System` as it came, so its contract is kept; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Heap::count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Heap::count(0, layout.size());
        // SAFETY: `block` came from `alloc` or `realloc` above, so from `System`, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Heap::count(size, layout.size());
        // SAFETY: `block` came from `alloc` or `realloc` above, so from `System`, with this layout.
        unsafe { System.realloc(block, layout, size) }
    }
}
