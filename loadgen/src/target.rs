//! What is loaded: an address, and how to talk to it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A server's address and, for a WebSocket, its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    /// `None` for a bare TCP echo.
    pub(crate) path: Option<String>,
}

impl Target {
    /// The address `number` further than the URL's: 127.0.0.1, 127.0.0.2, … on the loopback.
    pub(crate) fn destination(&self, number: u32) -> io::Result<SocketAddr> {
        match self.address {
            SocketAddr::V4(address) if number > 0 => {
                let ip = u32::from(*address.ip()).checked_add(number);
                let ip = ip.ok_or_else(|| io::Error::other("the destinations pass the end of the address space"))?;
                Ok(SocketAddr::from((Ipv4Addr::from(ip), address.port())))
            }
            SocketAddr::V6(_) if number > 0 => Err(io::Error::other("several destinations are IPv4 only")),
            address => Ok(address),
        }
    }
}

impl FromStr for Target {
    type Err = String;
    fn from_str(url: &str) -> Result<Self, String> {
        let (websocket, rest) = match url.split_once("://") {
            Some(("ws", rest)) => (true, rest),
            Some(("tcp", rest)) => (false, rest),
            Some(("wss", _)) => return Err("wss:// is not spoken yet".to_owned()),
            _ => return Err("the URL starts with ws:// or tcp://".to_owned()),
        };
        let (authority, path) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
        let with_port = if authority.contains("]:") || (!authority.ends_with(']') && authority.contains(':')) {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| format!("{authority}: {error}"))?
            .next()
            .ok_or_else(|| format!("{authority} has no address"))?;
        let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
        Ok(Self { address, authority: authority.to_owned(), path: websocket.then_some(path) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "ws://{}{path}", self.authority),
            None => write!(f, "tcp://{}", self.authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let target: Target = "ws://127.0.0.1:9001/echo?x=1".parse().expect("sound");
        assert_eq!((target.address.port(), target.path.as_deref()), (9001, Some("/echo?x=1")));
        assert_eq!(target.to_string(), "ws://127.0.0.1:9001/echo?x=1");
        let target: Target = "ws://[::1]".parse().expect("sound");
        assert_eq!((target.address.port(), target.path.as_deref()), (80, Some("/")));
        let target: Target = "tcp://127.0.0.1:7".parse().expect("sound");
        assert_eq!(target.path, None);
        let third = target.destination(2);
        assert!(third.is_ok_and(|address| address.to_string() == "127.0.0.3:7"));
        assert!("http://127.0.0.1".parse::<Target>().is_err());
        assert!("wss://127.0.0.1".parse::<Target>().is_err());
    }
}
