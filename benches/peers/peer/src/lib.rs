//! What the Rust peers have in common: the flag `--listen`, the line that says where they listen, the paths, and for
//! those on tokio the runtime and the loops around a connection.
//!
//! It never touches a frame: that is what is compared. A peer is ended by the default action of SIGTERM or SIGINT.

#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "tokio")]
pub mod room;
#[cfg(feature = "tokio")]
pub mod socket;

use socket2::{Domain, Socket, Type};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

/// As ours has it.
const LISTEN_BACKLOG: i32 = 4096;
/// Longest message that a peer takes, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Messages that a connection takes up before what they lead to is flushed.
pub const BATCH_MAX: usize = 64;

/// What a path stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Each message comes back.
    Echo,
    /// Each message goes to every connection of this kind, the sender's included.
    FanOut,
}

impl Service {
    /// `path` may have a query.
    pub fn at(path: &str) -> Option<Service> {
        if path.starts_with("/ws") {
            Some(Service::FanOut)
        } else if path.split('?').next() == Some("/echo") {
            Some(Service::Echo)
        } else {
            None
        }
    }
}

/// Listens where `--listen` says, and tells it in a line on standard output.
pub fn listen() -> io::Result<TcpListener> {
    let mut arguments = std::env::args().skip(1);
    let (Some("--listen"), Some(address), None) = (arguments.next().as_deref(), arguments.next(), arguments.next())
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: --listen ADDRESS:PORT"));
    };
    let address: SocketAddr = address
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not an address with a port")))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    let listener = TcpListener::from(socket);
    let mut output = io::stdout().lock();
    writeln!(output, "listening on {}", listener.local_addr()?)?;
    output.flush()?;
    Ok(listener)
}

/// Serves on a tokio runtime of one thread, with a task for each connection, until the process is ended.
#[cfg(feature = "tokio")]
pub fn serve<F>(connection: impl Fn(tokio::net::TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = listen()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            // A client that went away meanwhile is no reason to end; without descriptors there is nothing left to do.
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            tokio::spawn(connection(stream));
        }
    })
}
