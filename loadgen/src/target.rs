//! What is loaded: an address, and how to talk to it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// Wait for one of several addresses of a name.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A server's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) authority: String,
    host_and_port: String,
    /// `None` for a bare TCP echo.
    pub(crate) path: Option<String>,
}

impl Target {
    /// The address behind the name. Where a name has several, such as `localhost`, the first that takes a connection.
    pub(crate) fn resolve(&self) -> io::Result<SocketAddr> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.authority));
        let addresses: Vec<SocketAddr> = self.host_and_port.to_socket_addrs().map_err(named)?.collect();
        let takes = |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok();
        let first = addresses.first().copied();
        let best = if addresses.len() > 1 { addresses.iter().find(takes).copied().or(first) } else { first };
        best.ok_or_else(|| io::Error::other(format!("{} has no address", self.authority)))
    }
}

impl FromStr for Target {
    type Err = String;
    fn from_str(url: &str) -> Result<Self, String> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| format!("{url:?} is no URL: ws://HOST:PORT/PATH is"))?;
        let websocket = match scheme.to_ascii_lowercase().as_str() {
            "ws" => true,
            "tcp" => false,
            "wss" => return Err("wss:// (TLS) is not spoken yet: load the server behind its TLS by ws://".to_owned()),
            _ => return Err(format!("{scheme}:// is not spoken: the URL starts with ws:// or tcp://")),
        };
        // RFC 6455 §3: no fragment.
        if rest.contains('#') {
            return Err("a WebSocket URL has no #fragment".to_owned());
        }
        let (authority, path) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
        if authority.is_empty() || authority.contains('@') {
            return Err(format!("{url:?} names no host, or a user with it; ws://HOST:PORT/PATH is wanted"));
        }
        let has_port = authority.contains("]:") || (!authority.contains(']') && authority.contains(':'));
        let host_and_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        if !websocket && !has_port {
            return Err("tcp:// needs a port".to_owned());
        }
        let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
        if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
            return Err(format!("{path:?}: what is not plain ASCII stands in a URL as %XX"));
        }
        Ok(Self { authority: authority.to_owned(), host_and_port, path: websocket.then_some(path) })
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
        assert_eq!(target.path.as_deref(), Some("/echo?x=1"));
        assert_eq!(target.to_string(), "ws://127.0.0.1:9001/echo?x=1");
        assert_eq!(target.resolve().expect("numeric").port(), 9001);
        let target: Target = "WS://[::1]".parse().expect("sound");
        assert_eq!((target.resolve().expect("numeric").port(), target.path.as_deref()), (80, Some("/")));
        assert_eq!("ws://h?t=1".parse::<Target>().expect("sound").path.as_deref(), Some("/?t=1"));
        assert_eq!("tcp://127.0.0.1:7".parse::<Target>().expect("sound").path, None);
        for wrong in
            ["http://h", "wss://h", "h:1", "ws://", "ws:///x", "ws://u@h/", "ws://h/#x", "ws://h/a b", "tcp://h"]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
