//! Receiving: what a link receives into, how receives are armed, and the links that starve for want of a buffer.
//!
//! Every link begins with a multishot receive that is served from the pool of short buffers. One that fills them is cancelled and
//! armed again with the pool of long ones, and back when it has not filled a short one for a while: a buffer serves one read at
//! a time, so long ones that hold short reads are wasted. From the long ones it receives one by one: before the next receive
//! the loop is asked whether it has room of its own for what follows.
#![allow(unsafe_code)]

use super::{Flags, LinkState, Uring};
use crate::base::fault::{Fault, planted};
use crate::base::limits::{FULL_READS_MAX, SHORT_READS_MAX};
use crate::driver::buf_ring::Pool;
use crate::driver::ring::{Kernel, Ring, RingCompletion, Submission};
use crate::driver::token::{Operation, Token};
use crate::driver::{Buffer, Completion, Driver, Link, Room};
use std::io;

impl LinkState {
    /// The pool that its receives are to be served from.
    const fn pool(&self) -> Pool {
        if self.flags.has(Flags::BULK) { Pool::Bulk } else { Pool::Standard }
    }

    /// The armed receive.
    const fn armed_operation(&self) -> Operation {
        if self.flags.has(Flags::ROOM_ARMED) {
            Operation::ReceiveInto
        } else if self.flags.has(Flags::BULK_ARMED) {
            Operation::ReceiveBulk
        } else {
            Operation::Receive
        }
    }
}

/// What a receive is served from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Pool(Pool),
    /// Memory of the loop's own.
    Room,
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
        let (pool, has_room) = (state.pool(), state.flags.has(Flags::ROOM) && !planted(Fault::RoomForgotten));
        state.flags.set(Flags::RECEIVE_ARMED);
        state.flags.clear(Flags::RECEIVE_CANCELLED | Flags::BULK_ARMED | Flags::ROOM_ARMED);
        let submission = match pool {
            _ if has_room => {
                state.flags.set(Flags::ROOM_ARMED);
                let room = self.rooms.get_mut(&link).expect("the flag says that it has a room").target();
                Submission::ReceiveInto { slot, room, poll_first }
            }
            Pool::Standard => Submission::ReceiveMany { slot, pool, poll_first },
            Pool::Bulk => {
                state.flags.set(Flags::BULK_ARMED);
                Submission::ReceiveOne { slot, pool, poll_first }
            }
        };
        let operation = if has_room { Operation::ReceiveInto } else { Operation::receive(pool) };
        self.banks[bank].push(&submission, Token::new(operation, link));
        true
    }

    /// Arms what was received from once, now that the loop has said whether it has room of its own. Where others wait for a long
    /// buffer, whoever has just had one stands behind them: its receive would find data at once, and theirs would find no buffer.
    pub(super) fn arm_unarmed(&mut self) {
        for index in 0..self.unarmed.len() {
            let (link, poll_first) = self.unarmed[index];
            let others_wait = !self.banks[self.bank_of(link)].starved[Pool::Bulk as usize].is_empty();
            let takes_buffer = |state: &LinkState| state.pool() == Pool::Bulk && !state.flags.has(Flags::ROOM);
            if others_wait && self.state(link).is_some_and(|state| takes_buffer(state)) {
                self.park(link, Pool::Bulk);
            } else {
                self.arm_receive(link, poll_first);
            }
        }
        self.unarmed.clear();
    }

    /// Has a link wait for a buffer.
    fn park(&mut self, link: Link, pool: Pool) {
        let bank = self.bank_of(link);
        if let Some(state) = self.state(link)
            && !state.flags.has(Flags::STARVED)
        {
            state.flags.set(Flags::STARVED);
            self.banks[bank].starved[pool as usize].push_back(link);
        }
    }

    /// Arms at most as many starved links as there are buffers: more would only end for want of one again. Answers whether
    /// others are left that could be armed if those turned out to have nothing to read.
    pub(super) fn arm_starved(&mut self) -> bool {
        let mut are_left = false;
        for bank in 0..self.banks.len() {
            for pool in Pool::ALL {
                let free = self.banks[bank].ring.pools().of(pool).free();
                let mut budget = free;
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
                are_left |= free > 0 && !self.banks[bank].starved[pool as usize].is_empty();
            }
        }
        are_left
    }

    pub(super) fn received(
        &mut self,
        bank: u16,
        source: Source,
        link: Link,
        entry: &RingCompletion,
    ) -> Option<Completion> {
        let buffer = match (source, entry.buffer) {
            (Source::Pool(pool), Some(id)) => {
                self.banks[usize::from(bank)].ring.pools().of(pool).lend(id);
                Some(Buffer { bank, pool, id, len: entry.answer().unwrap_or(0) })
            }
            _ => None,
        };
        let Some(state) = self.state(link) else {
            // A stranger's: the rules above keep it from happening, the generation from mattering.
            return self.discard(buffer);
        };
        let is_forgotten = planted(Fault::RearmForgotten) && entry.result > 0;
        if !entry.more && !is_forgotten {
            state.flags.clear(Flags::RECEIVE_ARMED);
        }
        if state.flags.has(Flags::CLOSING) {
            self.let_room_go(link);
            self.close_if_quiet(link);
            if planted(Fault::BufferLost) {
                return None;
            }
            return self.discard(buffer);
        }
        match (entry.result, buffer) {
            (1.., Some(buffer)) => {
                self.choose_pool(link, &buffer);
                self.go_on_receiving(link, source, buffer.len < self.config.bulk_buffer_bytes);
                Some(Completion::Received { link, buffer })
            }
            (count @ 1.., None) => {
                let room = self.fill_room(link, count as usize)?;
                self.go_on_receiving(link, source, room.len() > 0);
                Some(Completion::Filled { link, room, count: count as usize })
            }
            (0, buffer) => {
                let is_doubtful = state.flags.has(Flags::BROKEN) && state.sending.is_some();
                let is_misjudged = is_doubtful && planted(Fault::EndTakenForReset);
                let is_untold = is_doubtful && !is_misjudged;
                if is_untold {
                    state.flags.set(Flags::END_UNTOLD);
                }
                self.stop_wanting(link);
                self.let_room_go(link);
                let _ = self.discard(buffer);
                let error = is_misjudged.then(|| io::Error::from_raw_os_error(libc::ECONNRESET));
                (!is_untold).then_some(Completion::ReceiveEnded { link, error })
            }
            (result, buffer) => {
                let _ = self.discard(buffer);
                self.receive_failed(source, link, -result)
            }
        }
    }

    /// Arms the next receive, where the last one has ended: at once, or where the loop may have room of its own for what comes
    /// next, when it has been asked.
    fn go_on_receiving(&mut self, link: Link, source: Source, poll_first: bool) {
        if source == Source::Pool(Pool::Standard) {
            self.arm_receive(link, false);
        } else {
            self.unarmed.push((link, poll_first));
        }
    }

    /// Takes the room back that so many bytes were received into.
    fn fill_room(&mut self, link: Link, count: usize) -> Option<Room> {
        let state = self.state(link)?;
        state.flags.clear(Flags::ROOM | Flags::ROOM_ARMED | Flags::ROOM_UNWANTED);
        state.misfits = 0;
        let mut room = self.rooms.remove(&link).expect("it was received into");
        // SAFETY: says the completion of the receive, which was for one time.
        unsafe { room.received(count) };
        Some(room)
    }

    /// Lets the room go that a link was to receive into, unless the kernel has it still.
    pub(super) fn let_room_go(&mut self, link: Link) {
        let Some(state) = self.state(link) else { return };
        if state.flags.has(Flags::ROOM) && !state.flags.has(Flags::RECEIVE_ARMED) {
            state.flags.clear(Flags::ROOM | Flags::ROOM_UNWANTED);
            self.rooms.remove(&link);
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
        let armed = state.armed_operation();
        let armed = if planted(Fault::OtherPoolCancelled) { Operation::receive(state.pool()) } else { armed };
        let target = Token::new(armed, link);
        self.banks[bank].push(&Submission::Cancel { target }, Token::new(Operation::CancelReceive, link));
    }

    fn receive_failed(&mut self, source: Source, link: Link, errno: i32) -> Option<Completion> {
        match (errno, source) {
            (libc::ENOBUFS, Source::Pool(pool)) => {
                self.park(link, pool);
                None
            }
            // Ours, or the kernel's under pressure: armed again if it is wanted.
            (libc::ECANCELED | libc::EINTR | libc::EAGAIN, _) => {
                if planted(Fault::InterruptedForgotten) {
                    return None;
                }
                if self.state(link)?.flags.has(Flags::ROOM_UNWANTED) {
                    self.let_room_go(link);
                }
                self.arm_receive(link, true);
                None
            }
            _ => {
                self.stop_wanting(link);
                self.let_room_go(link);
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
