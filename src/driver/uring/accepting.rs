//! Accepting on io_uring: by multishot while there is room for a whole backlog ([`SLOTS_AHEAD`]), else by count; and the
//! rest that follows a refusal.

use super::{Flags, NoRoom, Uring};
use crate::base::clock::Time;
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::base::limits::ACCEPT_REST;
use crate::driver::bank::{Bank, SLOTS_AHEAD};
use crate::driver::peer::address_bytes;
use crate::driver::ring::{Kernel, Ring, RingCompletion, Submission};
use crate::driver::socket::Listener;
use crate::driver::token::{Operation, Token};
use crate::driver::{Completion, Driver, Link};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Accepts in flight when they are counted.
const ACCEPT_ONE_MAX: u32 = 64;

/// A listener and what is armed for it.
pub(super) struct Accepting {
    listener: Listener,
    /// Which listener it is: the generation in the tokens of its accepts. What is left of an earlier one ends in silence.
    number: u32,
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
    pub(super) const fn new(listener: Listener, number: u32) -> Self {
        let number = Key::new(0, number).generation();
        Self { listener, number, many: None, many_cancelled: false, ones: Vec::new(), rests_until: None }
    }

    const fn token(&self, operation: Operation, bank: u16) -> Token {
        Token::new(operation, Key::new(bank as u32, self.number))
    }
}

#[expect(private_bounds, reason = "sealed: kernels are this room's own")]
impl<K: Kernel> Uring<K> {
    /// Arms what is not armed: a multishot accept where there is room for a whole backlog, else accepts by count. If
    /// accepting rests, answers how long still: the wait must end then.
    pub(super) fn arm_accept(&mut self) -> Option<Duration> {
        let accepting = self.listener.as_mut()?;
        accepting.rests_until = accepting.rests_until.filter(|until| self.now < *until);
        if let Some(until) = accepting.rests_until {
            return Some(until - self.now);
        }
        if accepting.many.is_some() {
            return None;
        }
        let in_flight = accepting.ones.iter().sum();
        let bank = match self.bank_with_room() {
            Some(bank) => bank,
            // All slots are promised. A ring made now would be one for nobody, and short tables would eat up all
            // descriptors before the first connection.
            None if in_flight > 0 => return None,
            None => match self.further_bank() {
                Ok(bank) => bank,
                Err(no_room) => return self.rest_of(&no_room),
            },
        };
        self.arm_accept_on(bank, in_flight);
        None
    }

    fn arm_accept_on(&mut self, bank: u16, in_flight: u32) {
        let Some(accepting) = &mut self.listener else { return };
        accepting.ones.resize(self.banks.len(), 0);
        let ring = &mut self.banks[usize::from(bank)];
        if ring.free_slots() >= SLOTS_AHEAD {
            accepting.many = Some(bank);
            accepting.many_cancelled = false;
            // A close that is submitted before it frees its slot at once and is told when the whole submission has run. Older kernels
            // tell the accept that takes the slot before that, and it would be one with two tenants.
            if ring.ring.has_submissions() {
                // What is refused for the moment is handed over with the wait.
                let _ = ring.ring.submit();
            }
            let listener = &accepting.listener;
            ring.push(&Submission::AcceptMany { listener }, accepting.token(Operation::AcceptMany, bank));
            return;
        }
        for _ in 0..ring.free_slots().min(ACCEPT_ONE_MAX.saturating_sub(in_flight)) {
            accepting.ones[usize::from(bank)] += 1;
            ring.reserve_slot();
            let listener = &accepting.listener;
            ring.push(&Submission::AcceptOne { listener }, accepting.token(Operation::AcceptOne, bank));
        }
    }

    /// Without room nothing is armed: for a slot, which a close makes, or for the next try to make a bank. A slot that
    /// comes free meanwhile is used at once.
    fn rest_of(&mut self, no_room: &NoRoom) -> Option<Duration> {
        if matches!(no_room, NoRoom::Refused { just_now: true }) {
            let error = self.refusal_error();
            self.refused.push_back(Completion::AcceptFailed { error });
        }
        match (no_room, &self.refusal) {
            (NoRoom::Refused { .. }, Some(refusal)) => Some(refusal.until - self.now),
            _ => None,
        }
    }

    fn rest_accepting(&mut self) {
        if let Some(accepting) = &mut self.listener {
            accepting.rests_until = Some(self.now + ACCEPT_REST);
        }
    }

    /// What a link held is free again: what was refused for want of it may succeed. Were the rest kept, each of those
    /// who are gone when they are accepted at last would cost the next one a whole rest.
    pub(super) fn end_accept_rest(&mut self) {
        if let Some(accepting) = &mut self.listener {
            accepting.rests_until = None;
        }
    }

    /// The listener, if it is still this one.
    fn listening(&mut self, number: u32) -> Option<&mut Accepting> {
        self.listener.as_mut().filter(|accepting| accepting.number == number)
    }

    pub(super) fn accepted(&mut self, bank: u16, token: Token, entry: &RingCompletion) -> Option<Completion> {
        let many = token.operation == Operation::AcceptMany;
        let number = token.key.generation();
        if !many {
            self.banks[usize::from(bank)].release_slot();
        }
        if let Some(accepting) = self.listening(number) {
            if !many {
                let is_forgotten = planted(Fault::AcceptNotArmedAgain) && entry.result < 0;
                accepting.ones[usize::from(bank)] -= u32::from(!is_forgotten);
            } else if !entry.more && !planted(Fault::AcceptNotArmedAgain) {
                accepting.many = None;
            }
        }
        let slot = match entry.answer() {
            Ok(slot) => slot,
            // Whatever it says is our own doing.
            Err(_) if self.listening(number).is_none() => return None,
            Err(errno) => return self.accept_failed(errno),
        };
        let link = self.occupy(bank, slot);
        self.limit_accepting(bank);
        self.ask_for_peer(bank, slot, link, number)
    }

    /// A multishot accept answers no address. Where one is wanted the accept is told with it, in the next turn; until
    /// then nobody knows of the link, so nobody can end it.
    fn ask_for_peer(&mut self, bank: u16, slot: u32, link: Link, listener: u32) -> Option<Completion> {
        let length = self.listening(listener).map(|accepting| address_bytes(accepting.listener.local_addr()));
        if let Some(length) = length
            && let Some((number, room)) = self.peers.ask(link, listener)
        {
            let token = Token::number(Operation::Peer, number);
            self.banks[usize::from(bank)].push(&Submission::PeerAddress { slot, room, length }, token);
            return None;
        }
        self.tell_accepted(link, listener, None)
    }

    pub(super) fn peer_answered(&mut self, number: usize, entry: &RingCompletion) -> Option<Completion> {
        let (link, listener, peer) = self.peers.answered(number, entry.result);
        self.tell_accepted(link, listener, peer)
    }

    fn tell_accepted(&mut self, link: Link, listener: u32, peer: Option<SocketAddr>) -> Option<Completion> {
        if self.listening(listener).is_none() {
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
        if armed && ring.free_slots() < SLOTS_AHEAD {
            accepting.many_cancelled = true;
            cancel_accepts(ring, accepting.token(Operation::AcceptMany, bank));
        }
    }

    fn accept_failed(&mut self, errno: i32) -> Option<Completion> {
        match errno {
            // Ours; or the connection was gone before we took it (accept(2)), and the next one may be sound: it left the
            // backlog, so this comes to an end.
            libc::ECANCELED | libc::ECONNABORTED | libc::EPROTO => None,
            // Nothing is wrong. But nothing has left the backlog either: armed again at once it could say so for ever.
            libc::EAGAIN | libc::EINTR => {
                self.rest_accepting();
                None
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
            cancel_accepts(&mut self.banks[usize::from(bank)], accepting.token(Operation::AcceptMany, bank));
        }
        for (bank, _) in accepting.ones.iter().enumerate().filter(|(_, in_flight)| **in_flight > 0) {
            cancel_accepts(&mut self.banks[bank], accepting.token(Operation::AcceptOne, bank as u16));
        }
        // The listener is dropped here and listens no more; what is armed holds its socket until it is cancelled.
    }
}

/// Asks for the end of all accepts with this token.
fn cancel_accepts<R: Ring>(bank: &mut Bank<R>, target: Token) {
    bank.push(&Submission::CancelAll { target }, Token::new(Operation::CancelAccept, target.key));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{UringConfig, listen_on, poller};
    use std::net::TcpStream;
    use std::time::Instant;

    #[test]
    fn an_accept_that_finds_nobody_is_not_told_and_no_reason_to_turn() {
        // Each accept of such a listener ends with EAGAIN at once.
        let listener =
            listen_on("127.0.0.1:0".parse().expect("an address"), 1, None).expect("a port is free").remove(0);
        poller::set_nonblocking(&listener).expect("a socket");
        let address = listener.local_addr();
        let mut driver = Uring::new(UringConfig { links_max: 3, ..UringConfig::default() }).expect("io_uring");
        driver.listen(listener);
        let (begin, mut turns) = (Instant::now(), 0);
        while begin.elapsed() < 3 * ACCEPT_REST {
            driver.wait(Some(3 * ACCEPT_REST)).expect("the driver waits");
            assert!(driver.next_completion().is_none());
            turns += 1;
        }
        assert!(turns < 12, "{turns} turns in {:?}", begin.elapsed());
        let _peer = TcpStream::connect(address).expect("it listens");
        let accepted = (0..20).find_map(|_| {
            driver.wait(Some(ACCEPT_REST)).expect("the driver waits");
            driver.next_completion()
        });
        assert!(matches!(accepted, Some(Completion::Accepted { .. })), "{accepted:?}");
    }
}
