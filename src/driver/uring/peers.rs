//! Questions for the addresses of peers: a multishot accept answers none, so each is asked for with a command of its own.

use crate::driver::Link;
use crate::driver::peer::PeerAddress;
use slab::Slab;
use std::net::SocketAddr;

/// Rooms for answers that are kept: as many as a busy listener has questions in one turn.
const ADDRESSES_KEPT: usize = 256;

/// The questions in flight.
pub(super) struct Peers {
    /// Addresses are wanted, and the kernel has not said that it knows no such question.
    asks: bool,
    /// The rooms for the answers stay here until they have come, whatever becomes of the links.
    asked: Slab<Asked>,
    #[expect(clippy::vec_box, reason = "the kernel is given pointers into them")]
    spare: Vec<Box<PeerAddress>>,
}

struct Asked {
    link: Link,
    listener: u32,
    address: Box<PeerAddress>,
}

impl Peers {
    pub(super) const fn new(wanted: bool) -> Self {
        Self { asks: wanted, asked: Slab::new(), spare: Vec::new() }
    }

    /// A question about `link`, which came from `listener`: its number, and the room for its answer. `None` if nothing is to be asked.
    pub(super) fn ask(&mut self, link: Link, listener: u32) -> Option<(u32, &PeerAddress)> {
        if !self.asks {
            return None;
        }
        let address = self.spare.pop().unwrap_or_default();
        let entry = self.asked.vacant_entry();
        let number = entry.key() as u32;
        Some((number, &entry.insert(Asked { link, listener, address }).address))
    }

    /// A question has been answered, with an errno below zero: whom it was about, and what is known now.
    pub(super) fn answered(&mut self, number: usize, result: i32) -> (Link, u32, Option<SocketAddr>) {
        let Asked { link, listener, address } = self.asked.remove(number);
        // No such command (before 6.7), or a security module that allows none: never again. Whatever else is wrong
        // concerns this connection.
        let refused = matches!(-result, libc::EOPNOTSUPP | libc::EACCES | libc::EPERM);
        self.asks &= !refused;
        let peer = if result < 0 { None } else { address.decode() };
        if self.spare.len() < ADDRESSES_KEPT {
            self.spare.push(address);
        }
        (link, listener, peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::key::Key;

    #[test]
    fn a_kernel_that_refuses_is_asked_no_more() {
        for (errno, asks_on) in [(libc::EOPNOTSUPP, false), (libc::EACCES, false), (libc::ENOTCONN, true)] {
            let mut peers = Peers::new(true);
            let links = [Key::new(3, 1), Key::new(4, 9)];
            let numbers = links.map(|link| peers.ask(link, 1).expect("a question").0 as usize);
            for (link, number) in links.into_iter().zip(numbers) {
                assert_eq!(peers.answered(number, -errno), (link, 1, None));
            }
            assert_eq!(peers.ask(links[0], 1).is_some(), asks_on);
        }
        assert!(Peers::new(false).ask(Key::new(0, 0), 1).is_none());
    }

    #[test]
    fn rooms_are_used_again_and_as_many_kept_as_may_be() {
        let mut peers = Peers::new(true);
        for _ in 0..2 {
            let numbers: Vec<u32> = (0..ADDRESSES_KEPT as u32 + 9)
                .map(|index| peers.ask(Key::new(index, 0), 1).expect("a question").0)
                .collect();
            assert!(peers.spare.is_empty());
            for number in numbers {
                assert_eq!(peers.answered(number as usize, 16).2, None);
            }
            assert_eq!((peers.asked.len(), peers.spare.len()), (0, ADDRESSES_KEPT));
        }
    }
}
