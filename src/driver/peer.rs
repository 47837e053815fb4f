//! A peer's address: room for the kernel to write it, and what it wrote.
//!
//! ```text
//!  0       2       4         8                24       28
//! ┌────────┬───────┬─────────┬────────────────┬────────┐
//! │ family │ port  │ address │                               sockaddr_in, 16 bytes
//! │        │ (BE)  │ flow    │ address        │ scope  │      sockaddr_in6, 28 bytes
//! └────────┴───────┴─────────┴────────────────┴────────┘
//! ```

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for an address of either family. A cell: the kernel writes it while we look elsewhere.
#[derive(Default)]
pub(super) struct PeerAddress(Cell<[u8; Self::BYTES]>);

impl PeerAddress {
    pub(super) const BYTES: usize = size_of::<libc::sockaddr_in6>();

    /// Where the kernel may write [`PeerAddress::BYTES`].
    pub(super) const fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast()
    }

    /// Writes an address as the kernel does. Answers its bytes.
    #[cfg(feature = "simulation")]
    pub(super) fn write(&self, address: SocketAddr) -> usize {
        let mut bytes = [0; Self::BYTES];
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => bytes[4..8].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes[8..24].copy_from_slice(&ip.octets()),
        }
        self.0.set(bytes);
        address_bytes(address) as usize
    }

    /// What was written; `None` if that is no IP address. An IPv4 peer of an IPv6 listener is told as IPv4.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let bytes = self.0.get();
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let port = u16::from_be_bytes([head[2], head[3]]);
        match i32::from(u16::from_ne_bytes([head[0], head[1]])) {
            libc::AF_INET => {
                let (address, _) = rest.split_first_chunk::<4>()?;
                Some(SocketAddr::from((Ipv4Addr::from(*address), port)))
            }
            libc::AF_INET6 => {
                let (flow, rest) = rest.split_first_chunk::<4>()?;
                let (address, rest) = rest.split_first_chunk::<16>()?;
                let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
                let address = Ipv6Addr::from(*address);
                Some(match address.to_canonical() {
                    IpAddr::V4(address) => SocketAddr::from((address, port)),
                    IpAddr::V6(address) => SocketAddrV6::new(address, port, u32::from_ne_bytes(*flow), scope).into(),
                })
            }
            _ => None,
        }
    }
}

/// Bytes of the address of whoever connects to `local`.
pub(super) const fn address_bytes(local: SocketAddr) -> u32 {
    match local {
        SocketAddr::V4(_) => size_of::<libc::sockaddr_in>() as u32,
        SocketAddr::V6(_) => PeerAddress::BYTES as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(family: i32, rest: &[u8]) -> Option<SocketAddr> {
        let mut bytes = [0; PeerAddress::BYTES];
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        bytes[2..2 + rest.len()].copy_from_slice(rest);
        PeerAddress(Cell::new(bytes)).decode()
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let v4 = [0x1f, 0x90, 192, 0, 2, 7];
        assert_eq!(written(libc::AF_INET, &v4), "192.0.2.7:8080".parse().ok());
        let mut v6 = [0; 26];
        v6[..2].copy_from_slice(&[0x1f, 0x90]);
        v6[6..10].copy_from_slice(&[0xfe, 0x80, 0, 0]);
        v6[21] = 9;
        v6[22..].copy_from_slice(&3u32.to_ne_bytes());
        assert_eq!(written(libc::AF_INET6, &v6), "[fe80::9%3]:8080".parse().ok());
        assert_eq!(written(0, &[]), None);
        assert_eq!(written(libc::AF_UNIX, &v4), None);
    }

    #[test]
    fn an_ipv4_peer_of_an_ipv6_listener_is_one() {
        let mut mapped = [0; 26];
        mapped[16..22].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        assert_eq!(written(libc::AF_INET6, &mapped), "192.0.2.7:0".parse().ok());
    }
}
