//! Listening sockets: one per shard on the same address (`SO_REUSEPORT`), options set once and inherited. A simulated
//! kernel has its own.

use crate::base::limits::LISTEN_BACKLOG;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
#[cfg(feature = "simulation")]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    local_addr: SocketAddr,
}

#[derive(Debug)]
enum Endpoint {
    Socket(Socket),
    /// It listens while this is set.
    #[cfg(feature = "simulation")]
    Simulated(Arc<AtomicBool>),
}

impl Listener {
    /// The address it is bound to: the port is the one the system chose where 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    #[cfg(feature = "simulation")]
    pub(super) const fn simulated(local_addr: SocketAddr, listening: Arc<AtomicBool>) -> Self {
        Self { endpoint: Endpoint::Simulated(listening), local_addr }
    }
}

impl Drop for Listener {
    /// Accepts that are armed hold the socket a little longer than we do. It stops listening now: the port is free
    /// for the next server, and nobody waits in a queue that nobody looks into.
    fn drop(&mut self) {
        match &self.endpoint {
            // It cannot fail for a socket that listens, and there is nothing to do if it did.
            Endpoint::Socket(socket) => drop(socket.shutdown(Shutdown::Both)),
            #[cfg(feature = "simulation")]
            Endpoint::Simulated(listening) => listening.store(false, Ordering::SeqCst),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match &self.endpoint {
            Endpoint::Socket(socket) => socket.as_raw_fd(),
            #[cfg(feature = "simulation")]
            Endpoint::Simulated(_) => unreachable!("a simulated listener has no descriptor"),
        }
    }
}

/// Binds `count` listeners to one address; the kernel spreads connections over them by a hash of the address pair.
///
/// `user_timeout` is `TCP_USER_TIMEOUT` (tcp(7)) of whatever they accept: how long what was sent may remain
/// unacknowledged, or the peer's window closed, before the kernel ends the connection with ETIMEDOUT. To the millisecond,
/// at least one; `None` leaves that to the kernel's retransmissions.
///
/// # Errors
/// What the system says, with the operation and the address.
pub fn listen_on(address: SocketAddr, count: usize, user_timeout: Option<Duration>) -> io::Result<Vec<Listener>> {
    if count > 1 {
        // Two servers of one user could share a port unnoticed, each with half the connections: a socket that does not
        // share finds out whether somebody is there.
        drop(bind(address, false, user_timeout)?);
    }
    let first = bind(address, count > 1, user_timeout)?;
    let address = first.local_addr;
    let mut listeners = vec![first];
    while listeners.len() < count {
        listeners.push(bind(address, true, user_timeout)?);
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, shared: bool, user_timeout: Option<Duration>) -> io::Result<Listener> {
    let named = |operation: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{operation} {address}: {error}"))
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(named("cannot make a socket for"))?;
    socket.set_reuse_address(true).map_err(named("cannot set SO_REUSEADDR for"))?;
    if shared {
        socket.set_reuse_port(true).map_err(named("cannot set SO_REUSEPORT for"))?;
    }
    // Accepted sockets inherit both. Small frames leave at once, coalescing is the send queue's work.
    socket.set_tcp_nodelay(true).map_err(named("cannot set TCP_NODELAY for"))?;
    if let Some(timeout) = user_timeout {
        // 0 would be the kernel's default, and it counts in an int.
        let timeout = timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64));
        socket.set_tcp_user_timeout(Some(timeout)).map_err(named("cannot set TCP_USER_TIMEOUT for"))?;
    }
    socket.bind(&SockAddr::from(address)).map_err(named("cannot bind"))?;
    socket.listen(LISTEN_BACKLOG).map_err(named("cannot listen on"))?;
    let local_addr =
        socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("a TCP socket has no IP address"))?;
    Ok(Listener { endpoint: Endpoint::Socket(socket), local_addr })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn accepted_sockets_inherit_the_options_of_their_listener() {
        let cases = [
            (None, None),
            (Some(Duration::from_secs(7)), Some(Duration::from_secs(7))),
            (Some(Duration::from_nanos(1)), Some(Duration::from_millis(1))),
            (Some(Duration::MAX), Some(Duration::from_millis(i32::MAX as u64))),
        ];
        for (asked, expected) in cases {
            let address = "127.0.0.1:0".parse().expect("an address");
            for listener in listen_on(address, 1, asked).expect("a port is free") {
                let _peer = TcpStream::connect(listener.local_addr()).expect("it listens");
                let (accepted, _) = match &listener.endpoint {
                    Endpoint::Socket(socket) => socket.accept().expect("somebody connected"),
                    #[cfg(feature = "simulation")]
                    Endpoint::Simulated(_) => unreachable!("it is a socket"),
                };
                assert_eq!(accepted.tcp_user_timeout().expect("an option"), expected);
                assert!(accepted.tcp_nodelay().expect("an option"));
            }
        }
    }
}
