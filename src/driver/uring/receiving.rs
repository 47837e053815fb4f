//! Receiving: multishot receives, the links that starve for want of a buffer, and which pool a link is served from.
//!
//! Every link begins with the pool of short buffers. One that fills them is cancelled and armed again with the pool of long
//! ones, and back when it has not filled a short one for a while: a buffer serves one read at a time, so long ones that hold
//! short reads are wasted.

use super::{Flags, LinkState, Uring};
use crate::base::fault::{Fault, planted};
use crate::base::limits::{FULL_READS_MAX, SHORT_READS_MAX};
use crate::driver::buf_ring::Pool;
use crate::driver::ring::{Kernel, Ring, RingCompletion, Submission};
use crate::driver::token::{Operation, Token};
use crate::driver::{Buffer, Completion, Driver, Link};
use std::io;

impl LinkState {
    /// The pool that its receives are to be served from.
    const fn pool(&self) -> Pool {
        if self.flags.has(Flags::BULK) { Pool::Bulk } else { Pool::Standard }
    }

    /// The one that the armed receive is served from.
    const fn armed_pool(&self) -> Pool {
        if self.flags.has(Flags::BULK_ARMED) { Pool::Bulk } else { Pool::Standard }
    }
}

#[expect(private_bounds, reason = "sealed: kernels are this room's own")]
impl<K: Kernel> Uring<K> {
    /// Answers whether a receive was armed: it was wanted and was not.
    pub(super) fn arm_receive(&mut self, link: Link, poll_first: bool) -> bool {
        let (bank, slot) = (self.bank_of(link), self.slot_of(link));
        let Some(state) = self.state(link) else { return false };
        let wanted = state.flags.has(Flags::RECEIVE_WANTED);
        let may_not = Flags::RECEIVE_ARMED | Flags::CLOSING | Flags::STARVED | Flags::END_UNTOLD;
        if !wanted || state.flags.has(may_not) {
            return false;
        }
        let pool = state.pool();
        state.flags.set(Flags::RECEIVE_ARMED);
        state.flags.clear(Flags::RECEIVE_CANCELLED | Flags::BULK_ARMED);
        if pool == Pool::Bulk {
            state.flags.set(Flags::BULK_ARMED);
        }
        let token = Token::new(Operation::receive(pool), link);
        self.banks[bank].push(&Submission::Receive { slot, pool, poll_first }, token);
        true
    }

    /// Arms at most as many starved links as buffers came back: more would only end for want of one again.
    pub(super) fn arm_starved(&mut self) {
        for bank in 0..self.banks.len() {
            for pool in Pool::ALL {
                let mut budget = self.banks[bank].ring.pools().of(pool).take_returned();
                while budget > 0
                    && let Some(link) = self.banks[bank].starved[pool as usize].pop_front()
                {
                    if planted(Fault::StarvedForgotten) {
                        continue;
                    }
                    if let Some(state) = self.state(link) {
                        state.flags.clear(Flags::STARVED);
                        budget -= usize::from(self.arm_receive(link, true));
                    }
                }
            }
        }
    }

    pub(super) fn received(&mut self, bank: u16, pool: Pool, link: Link, entry: &RingCompletion) -> Option<Completion> {
        let buffer = entry.buffer.map(|id| {
            self.banks[usize::from(bank)].ring.pools().of(pool).lend(id);
            Buffer { bank, pool, id, len: entry.answer().unwrap_or(0) }
        });
        let Some(state) = self.state(link) else {
            // A stranger's: the rules above keep it from happening, the generation from mattering.
            return self.discard(buffer);
        };
        let is_forgotten = planted(Fault::RearmForgotten) && entry.result > 0;
        if !entry.more && !is_forgotten {
            state.flags.clear(Flags::RECEIVE_ARMED);
        }
        if state.flags.has(Flags::CLOSING) {
            self.close_if_quiet(link);
            if planted(Fault::BufferLost) {
                return None;
            }
            return self.discard(buffer);
        }
        match (entry.result, buffer) {
            (1.., Some(buffer)) => {
                self.choose_pool(link, &buffer);
                self.arm_receive(link, false);
                Some(Completion::Received { link, buffer })
            }
            (0, buffer) => {
                let is_doubtful = state.flags.has(Flags::BROKEN) && state.sending.is_some();
                let is_misjudged = is_doubtful && planted(Fault::EndTakenForReset);
                let is_untold = is_doubtful && !is_misjudged;
                if is_untold {
                    state.flags.set(Flags::END_UNTOLD);
                }
                self.stop_wanting(link);
                let _ = self.discard(buffer);
                let error = is_misjudged.then(|| io::Error::from_raw_os_error(libc::ECONNRESET));
                (!is_untold).then_some(Completion::ReceiveEnded { link, error })
            }
            (result, buffer) => {
                let _ = self.discard(buffer);
                self.receive_failed(pool, link, -result)
            }
        }
    }

    /// Has the link served from the other pool, if its last reads speak for that.
    #[inline]
    fn choose_pool(&mut self, link: Link, buffer: &Buffer) {
        let short = self.config.buffer_bytes;
        let has_longer = self.config.bulk_buffer_bytes > short;
        let Some(state) = self.state(link) else { return };
        let (is_misfit, misfits_max) = match buffer.pool {
            Pool::Standard => (has_longer && buffer.len == short, FULL_READS_MAX),
            Pool::Bulk => (buffer.len < short, SHORT_READS_MAX),
        };
        // What was read from the pool that it leaves says nothing.
        if !is_misfit || buffer.pool != state.pool() {
            state.misfits = 0;
            return;
        }
        state.misfits += 1;
        if state.misfits == misfits_max {
            state.misfits = 0;
            match buffer.pool {
                Pool::Standard => state.flags.set(Flags::BULK),
                Pool::Bulk => state.flags.clear(Flags::BULK),
            }
            // It is armed again when it has ended.
            self.end_receive(link);
        }
    }

    /// Asks for the end of the armed receive, if there is one.
    pub(super) fn end_receive(&mut self, link: Link) {
        let Some(state) = self.state(link) else { return };
        if state.flags.has(Flags::RECEIVE_ARMED) && !state.flags.has(Flags::RECEIVE_CANCELLED) {
            state.flags.set(Flags::RECEIVE_CANCELLED);
            self.cancel_receive(link);
        }
    }

    pub(super) fn cancel_receive(&mut self, link: Link) {
        let bank = self.bank_of(link);
        let Some(state) = self.state(link) else { return };
        let pool = if planted(Fault::OtherPoolCancelled) { state.pool() } else { state.armed_pool() };
        let target = Token::new(Operation::receive(pool), link);
        self.banks[bank].push(&Submission::Cancel { target }, Token::new(Operation::CancelReceive, link));
    }

    fn receive_failed(&mut self, pool: Pool, link: Link, errno: i32) -> Option<Completion> {
        match errno {
            libc::ENOBUFS => {
                self.state(link)?.flags.set(Flags::STARVED);
                let bank = self.bank_of(link);
                self.banks[bank].starved[pool as usize].push_back(link);
                None
            }
            // Ours, or the kernel's under pressure: armed again if it is wanted.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {
                if planted(Fault::InterruptedForgotten) {
                    return None;
                }
                self.arm_receive(link, true);
                None
            }
            _ => {
                self.stop_wanting(link);
                Some(Completion::ReceiveEnded { link, error: Some(io::Error::from_raw_os_error(errno)) })
            }
        }
    }

    /// The send beside which the stream has ended goes on: the peer has ended its side, and nothing is broken.
    pub(super) fn tell_end(&mut self, bank: u16, link: Link) {
        let Some(state) = self.state(link) else { return };
        if state.flags.has(Flags::END_UNTOLD) {
            state.flags.clear(Flags::END_UNTOLD);
            let token = Token::new(Operation::Receive, link);
            self.completions.push_front((bank, RingCompletion { token, result: 0, more: false, buffer: None }));
        }
    }

    pub(super) fn stop_wanting(&mut self, link: Link) {
        if let Some(state) = self.state(link) {
            state.flags.clear(Flags::RECEIVE_WANTED);
        }
    }

    fn discard(&mut self, buffer: Option<Buffer>) -> Option<Completion> {
        if let Some(buffer) = buffer {
            self.recycle(buffer);
        }
        None
    }
}
