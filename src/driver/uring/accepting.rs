//! Accepting on io_uring: by multishot while there is room for a whole backlog, else by count; and the rest that follows
//! a refusal.

use super::{Flags, Uring};
use crate::base::clock::Time;
use crate::base::limits::{ACCEPT_REST, LISTEN_BACKLOG};
use crate::driver::peer::address_bytes;
use crate::driver::socket::Listener;
use crate::driver::token::{Operation, Token};
use crate::driver::{Completion, Driver, Link, bank};
use io_uring::cqueue;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A multishot accept may empty a whole backlog before we see the first completion; what finds no slot is lost. With
/// fewer free slots than this, connections are accepted by count.
const ACCEPT_MANY_SLOTS_MIN: u32 = LISTEN_BACKLOG as u32 + LISTEN_BACKLOG as u32 / 2;
/// Accepts in flight when they are counted.
const ACCEPT_ONE_MAX: u32 = 64;

/// A listener and what is armed for it.
pub(super) struct Accepting {
    listener: Listener,
    /// The bank that a multishot accept is armed on.
    many: Option<u16>,
    /// That accept has been asked to end.
    many_cancelled: bool,
    /// Single accepts in flight, by bank.
    ones: Vec<u32>,
    /// Nothing is armed before: the system refused.
    rests_until: Option<Time>,
}

impl Accepting {
    pub(super) const fn new(listener: Listener) -> Self {
        Self { listener, many: None, many_cancelled: false, ones: Vec::new(), rests_until: None }
    }
}

impl Uring {
    /// Arms what is not armed: a multishot accept where there is room for a whole backlog, else accepts by count.
    pub(super) fn arm_accept(&mut self) {
        let Some(accepting) = &mut self.listener else { return };
        if accepting.rests_until.is_some_and(|until| self.now < until) || accepting.many.is_some() {
            return;
        }
        accepting.rests_until = None;
        let bank = match self.bank_with_room() {
            Ok(Some(bank)) => bank,
            Ok(None) => return,
            Err(error) => {
                self.rest_accepting();
                self.accept_errors.push_back(error);
                return;
            }
        };
        let Some(accepting) = &mut self.listener else { return };
        let listener = accepting.listener.as_raw_fd();
        accepting.ones.resize(self.banks.len(), 0);
        let in_flight = &mut accepting.ones[usize::from(bank)];
        let ring = &mut self.banks[usize::from(bank)];
        if ring.free_slots() >= ACCEPT_MANY_SLOTS_MIN {
            accepting.many = Some(bank);
            accepting.many_cancelled = false;
            ring.accept_many(listener, Token::number(Operation::AcceptMany, u32::from(bank)));
            return;
        }
        for _ in 0..ring.free_slots().min(ACCEPT_ONE_MAX.saturating_sub(*in_flight)) {
            *in_flight += 1;
            ring.reserve_slot();
            ring.accept_one(listener, Token::number(Operation::AcceptOne, u32::from(bank)));
        }
    }

    fn rest_accepting(&mut self) {
        if let Some(accepting) = &mut self.listener {
            accepting.rests_until = Some(self.now + ACCEPT_REST);
        }
    }

    pub(super) fn accepted(&mut self, bank: u16, entry: &cqueue::Entry, many: bool) -> Option<Completion> {
        if !many {
            self.banks[usize::from(bank)].release_slot();
        }
        if let Some(accepting) = &mut self.listener {
            if !many {
                accepting.ones[usize::from(bank)] -= 1;
            } else if !bank::more_follow(entry) {
                accepting.many = None;
            }
        }
        let slot = match u32::try_from(entry.result()) {
            Ok(slot) => slot,
            // Whatever it says is our own doing.
            Err(_) if self.listener.is_none() => return None,
            Err(_) => return self.accept_failed(-entry.result()),
        };
        let link = self.occupy(bank, slot);
        self.limit_accepting(bank);
        self.ask_for_peer(bank, slot, link)
    }

    /// A multishot accept answers no address. Where one is wanted the accept is told with it, in the next turn; until
    /// then nobody knows of the link, so nobody can end it.
    fn ask_for_peer(&mut self, bank: u16, slot: u32, link: Link) -> Option<Completion> {
        let length = self.listener.as_ref().map(|accepting| address_bytes(accepting.listener.local_addr()));
        if let Some(length) = length
            && let Some((number, room)) = self.peers.ask(link)
        {
            let token = Token::number(Operation::Peer, number);
            self.banks[usize::from(bank)].peer_address(slot, room, length, token);
            return None;
        }
        self.tell_accepted(link, None)
    }

    pub(super) fn peer_answered(&mut self, number: usize, entry: &cqueue::Entry) -> Option<Completion> {
        let (link, peer) = self.peers.answered(number, entry.result());
        self.tell_accepted(link, peer)
    }

    fn tell_accepted(&mut self, link: Link, peer: Option<SocketAddr>) -> Option<Completion> {
        if self.listener.is_none() {
            // It was on its way when we stopped listening.
            self.state(link)?.flags.set(Flags::SILENT);
            self.close(link);
            return None;
        }
        Some(Completion::Accepted { link, peer })
    }

    /// Ends a multishot accept before its table runs full.
    fn limit_accepting(&mut self, bank: u16) {
        let Some(accepting) = &mut self.listener else { return };
        let ring = &mut self.banks[usize::from(bank)];
        let armed = accepting.many == Some(bank) && !accepting.many_cancelled;
        if armed && ring.free_slots() < ACCEPT_MANY_SLOTS_MIN {
            accepting.many_cancelled = true;
            ring.cancel(Token::number(Operation::AcceptMany, u32::from(bank)));
        }
    }

    fn accept_failed(&mut self, errno: i32) -> Option<Completion> {
        match errno {
            libc::ECANCELED => None,
            // The connection was gone before we took it (accept(2)): the next one may be sound.
            libc::ECONNABORTED | libc::EPROTO | libc::EINTR | libc::EAGAIN => {
                Some(Completion::AcceptFailed { error: io::Error::from_raw_os_error(errno) })
            }
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, or something that will not pass by itself: no busy loop.
            _ => {
                self.rest_accepting();
                Some(Completion::AcceptFailed { error: io::Error::from_raw_os_error(errno) })
            }
        }
    }

    /// Accepts no more. What is on its way is closed when it comes.
    pub(super) fn end_accepting(&mut self) {
        let Some(accepting) = self.listener.take() else { return };
        if let Some(bank) = accepting.many {
            self.banks[usize::from(bank)].cancel(Token::number(Operation::AcceptMany, u32::from(bank)));
        }
        for (bank, _) in accepting.ones.iter().enumerate().filter(|(_, in_flight)| **in_flight > 0) {
            self.banks[bank].cancel(Token::number(Operation::AcceptOne, bank as u32));
        }
        // The listener is dropped here and listens no more; what is armed holds its socket until it is cancelled.
    }

    /// What is left of the rest after a refused accept.
    pub(super) fn accept_timeout(&self) -> Option<Duration> {
        let until = self.listener.as_ref()?.rests_until?;
        Some(until - self.now)
    }
}
