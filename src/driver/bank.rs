//! A bank: one ring, and which slots of its table are taken.
//!
//! A table is at most RLIMIT_NOFILE long, but its descriptors are not counted against that limit; so a shard that
//! wants more connections than one table holds has several banks in its one thread.

use super::Link;
use super::buf_ring::Pool;
use super::ring::{Kernel, Ring, RingConfig, Submission};
use super::token::Token;
use crate::base::limits::LISTEN_BACKLOG;
use std::collections::VecDeque;
use std::io;

/// Free slots within the range that the kernel hands them out from: a multishot accept may empty a whole backlog before the
/// first completion is seen, and what finds no slot is lost.
pub(super) const SLOTS_AHEAD: u32 = LISTEN_BACKLOG as u32 + LISTEN_BACKLOG as u32 / 2;
/// By so many the range grows.
const RANGE_STEP: u32 = 1024;
/// Tries to make room in a full submission queue.
const SUBMIT_TRIES_MAX: u32 = 1000;

/// One ring and what belongs to it.
pub(super) struct Bank<R> {
    pub(super) ring: R,
    /// Links whose receive ended for want of a buffer, by the pool that lacked it, in the order they came.
    pub(super) starved: [VecDeque<Link>; Pool::ALL.len()],
    slots: u32,
    /// The kernel hands out slots below this one. It goes upwards from where one was freed last, so without a bound it wanders
    /// over the whole table, and what is kept for each slot with it.
    range: u32,
    used: u32,
    /// Slots for operations in flight that will take one if they succeed.
    reserved: u32,
}

impl<R: Ring> Bank<R> {
    /// Sets a ring up. A bank that is waited for needs no signal; the others have one.
    pub(super) fn new<K: Kernel<Ring = R>>(kernel: &K, config: &RingConfig, signalled: bool) -> io::Result<Self> {
        let ring = kernel.set_up(config, signalled)?;
        let mut bank = Self { ring, starved: Default::default(), slots: config.slots, range: 0, used: 0, reserved: 0 };
        bank.widen_range();
        Ok(bank)
    }

    /// Keeps as many slots ahead as may be asked for before we hear of it.
    fn widen_range(&mut self) {
        let needed = self.used + self.reserved + SLOTS_AHEAD;
        if self.range < self.slots && self.range < needed {
            self.range = needed.next_multiple_of(RANGE_STEP).min(self.slots);
            if self.ring.limit_slots(self.range).is_err() {
                // It hands out any, then.
                self.range = self.slots;
            }
        }
    }

    /// Slots of the descriptor table that have no tenant and are promised to none.
    pub(super) const fn free_slots(&self) -> u32 {
        self.slots.saturating_sub(self.used + self.reserved)
    }

    /// Promises a slot to an operation that is submitted now.
    pub(super) fn reserve_slot(&mut self) {
        self.reserved += 1;
        self.widen_range();
    }

    /// The operation has ended; if it succeeded, [`Bank::occupy_slot`] follows.
    pub(super) fn release_slot(&mut self) {
        debug_assert!(self.reserved > 0);
        self.reserved -= 1;
    }

    pub(super) fn occupy_slot(&mut self) {
        self.used += 1;
        debug_assert!(self.used <= self.slots);
        self.widen_range();
    }

    pub(super) fn vacate_slot(&mut self) {
        debug_assert!(self.used > 0);
        self.used -= 1;
    }

    /// Queues one submission. A full queue is handed to the kernel first.
    #[inline]
    pub(super) fn push(&mut self, submission: &Submission<'_>, token: Token) {
        for _ in 0..SUBMIT_TRIES_MAX {
            if self.ring.try_push(submission, token) {
                return;
            }
            // The kernel refuses a submission only for a moment (EAGAIN, EBUSY); the next try tells.
            let _ = self.ring.submit();
        }
        panic!("the submission queue stays full: the kernel takes nothing");
    }
}
