//! Listening sockets: one per shard on the same address (`SO_REUSEPORT`), options set once and inherited.

use crate::base::limits::LISTEN_BACKLOG;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    local_addr: SocketAddr,
}

impl Listener {
    /// The address it is bound to: the port is the one the system chose where 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Drop for Listener {
    /// Accepts that are armed hold the socket a little longer than we do. It stops listening now: the port is free
    /// for the next server, and nobody waits in a queue that nobody looks into.
    fn drop(&mut self) {
        // It cannot fail for a socket that listens, and there is nothing to do if it did.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Binds `count` listeners to one address; the kernel spreads connections over them by a hash of the address pair.
///
/// # Errors
/// What the system says, with the operation and the address.
pub fn listen_on(address: SocketAddr, count: usize) -> io::Result<Vec<Listener>> {
    if count > 1 {
        // Two servers of one user could share a port unnoticed, each with half the connections: a socket that does not
        // share finds out whether somebody is there.
        drop(bind(address, false)?);
    }
    let first = bind(address, count > 1)?;
    let address = first.local_addr;
    let mut listeners = vec![first];
    while listeners.len() < count {
        listeners.push(bind(address, true)?);
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Listener> {
    let named = |operation: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{operation} {address}: {error}"))
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(named("cannot make a socket for"))?;
    socket.set_reuse_address(true).map_err(named("cannot set SO_REUSEADDR for"))?;
    if shared {
        socket.set_reuse_port(true).map_err(named("cannot set SO_REUSEPORT for"))?;
    }
    // Accepted sockets inherit it: small frames leave at once, coalescing is the send queue's work.
    socket.set_tcp_nodelay(true).map_err(named("cannot set TCP_NODELAY for"))?;
    socket.bind(&SockAddr::from(address)).map_err(named("cannot bind"))?;
    socket.listen(LISTEN_BACKLOG).map_err(named("cannot listen on"))?;
    let local_addr =
        socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("a TCP socket has no IP address"))?;
    Ok(Listener { socket, local_addr })
}
