//! Where peers come from: each connection's address until its upgrade is answered, and, where they are limited, how many
//! sessions each address has in this shard.

use crate::base::key::Key;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Whom an address stands for: an IPv4 address, or the first 64 bits of an IPv6 one, which a subscriber has to himself
/// (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subscriber {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Subscriber {
    fn of(peer: SocketAddr) -> Self {
        match peer.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&ip.octets()[..8]);
                Self::V6(prefix)
            }
        }
    }
}

/// Addresses of peers. They come from strangers: the maps' hashes are keyed.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Of connections that wait for their upgrade, each until it is answered.
    arrivals: HashMap<Key, SocketAddr>,
    /// Sessions by address.
    sessions: HashMap<Subscriber, u32>,
}

impl Addresses {
    /// A connection has come.
    pub(super) fn arrive(&mut self, link: Key, peer: SocketAddr) {
        self.arrivals.insert(link, peer);
    }

    /// Where a connection that waits for its upgrade comes from.
    pub(super) fn arrival(&self, link: Key) -> Option<SocketAddr> {
        self.arrivals.get(&link).copied()
    }

    /// A connection waits no more.
    pub(super) fn take_arrival(&mut self, link: Key) -> Option<SocketAddr> {
        self.arrivals.remove(&link)
    }

    /// Sessions of this address.
    pub(super) fn count(&self, peer: SocketAddr) -> u32 {
        self.sessions.get(&Subscriber::of(peer)).copied().unwrap_or(0)
    }

    /// One session more.
    pub(super) fn enter(&mut self, peer: SocketAddr) {
        *self.sessions.entry(Subscriber::of(peer)).or_default() += 1;
    }

    /// One session fewer.
    pub(super) fn leave(&mut self, peer: SocketAddr) {
        let subscriber = Subscriber::of(peer);
        let Some(count) = self.sessions.get_mut(&subscriber) else { return };
        *count -= 1;
        if *count == 0 {
            self.sessions.remove(&subscriber);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_do_not_count_and_an_ipv6_address_counts_by_its_first_half() {
        let peer = |text: &str| text.parse::<SocketAddr>().expect("sound");
        let mut addresses = Addresses::default();
        let texts = ["1.2.3.4:1", "[::ffff:1.2.3.4]:2", "1.2.3.5:1", "[2001:db8::1]:1", "[2001:db8:0:1::1]:1"];
        texts.iter().for_each(|text| addresses.enter(peer(text)));
        let counts = [("1.2.3.4:9", 2), ("1.2.3.5:9", 1), ("[2001:db8::ffff]:9", 1), ("[2001:db8:0:2::1]:9", 0)];
        for (text, count) in counts {
            assert_eq!(addresses.count(peer(text)), count, "{text}");
        }
        texts.iter().for_each(|text| addresses.leave(peer(text)));
        assert!(addresses.sessions.is_empty());
    }
}
