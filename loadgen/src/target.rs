//! What is loaded: an address, and how to talk to it.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A server's address and, for a WebSocket, its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    /// `None` for a bare TCP echo.
    pub(crate) path: Option<String>,
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
        assert_eq!("tcp://127.0.0.1:7".parse::<Target>().expect("sound").path, None);
        assert!("http://127.0.0.1".parse::<Target>().is_err());
        assert!("wss://127.0.0.1".parse::<Target>().is_err());
    }
}
