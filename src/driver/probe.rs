//! Whether io_uring serves here: asked once, before anything depends on it.
//!
//! A kernel may lack what we need, a sandbox may refuse the set-up (seccomp, `kernel.io_uring_disabled`) or allow it and
//! refuse what follows. So a small ring is set up, the kernel is asked which operations it knows, and a connection is
//! served through the driver itself.

use super::batch::Batch;
use super::socket::listen_on;
use super::uring::{Uring, UringConfig};
use super::{Completion, Driver};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long the connection that is served for a try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the io_uring driver serves here, and tells where peers come from if that is needed. Cost: a thread, a ring and a
/// connection over the loopback, a few milliseconds.
///
/// # Errors
/// What is missing or refused, in words.
pub fn probe_uring(needs_peers: bool) -> io::Result<()> {
    match try_uring(needs_peers)? {
        Some(Served { has_peer: false }) if needs_peers => {
            let text = "it does not tell where connections come from before Linux 6.7, and addresses are limited";
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
        _ => Ok(()),
    }
}

/// A connection that was served for a try.
pub(super) struct Served {
    /// Whether the driver told where it came from.
    pub(super) has_peer: bool,
}

/// Serves a connection through the io_uring driver; `None` if there is no loopback to try it on.
pub(super) fn try_uring(peer_addresses: bool) -> io::Result<Option<Served>> {
    // On a thread of its own: what the kernel does when a ring is gone interrupts system calls of the thread that had it.
    let probe = std::thread::Builder::new().name("probe".to_owned()).spawn(move || try_here(peer_addresses))?;
    probe.join().unwrap_or_else(|_| Err(io::Error::other("the driver panicked on a connection that it was to serve")))
}

fn try_here(peer_addresses: bool) -> io::Result<Option<Served>> {
    let config = UringConfig {
        links_max: 2,
        buffer_count: 2,
        buffer_bytes: 512,
        bulk_buffer_count: 1,
        bulk_buffer_bytes: 512,
        table_slots: 2,
        peer_addresses,
    };
    // The set-up asks for the operations too.
    let driver = Uring::new(config)?;
    serve_one(driver)
        .map_err(|error| io::Error::new(error.kind(), format!("a connection that it was to serve: {error}")))
}

/// Serves a connection of our own: accept, receive, send, close.
fn serve_one(mut driver: Uring) -> io::Result<Option<Served>> {
    let Ok(mut listeners) = listen_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1, None) else {
        // Without a loopback there is nothing to try it on, and that is not the ring's fault.
        return Ok(None);
    };
    let listener = listeners.remove(0);
    let address = listener.local_addr();
    driver.listen(listener);
    let mut peer = TcpStream::connect_timeout(&address, TRY_TIMEOUT)?;
    peer.set_read_timeout(Some(TRY_TIMEOUT))?;
    peer.write_all(b"?")?;
    let begin = Instant::now();
    let mut served = Served { has_peer: false };
    while begin.elapsed() < TRY_TIMEOUT {
        driver.wait(Some(TRY_TIMEOUT / 10))?;
        while let Some(completion) = driver.next_completion() {
            match completion {
                Completion::Accepted { link, peer } => {
                    served.has_peer = peer.is_some();
                    driver.recv_start(link);
                }
                Completion::Received { link, buffer } => {
                    let is_whole = driver.bytes(&buffer) == b"?";
                    driver.recycle(buffer);
                    if !is_whole {
                        return Err(io::Error::other("what came is not what was sent"));
                    }
                    let mut batch = Box::new(Batch::default());
                    batch.append(|out| out.push(b'!'));
                    driver.send(link, batch);
                }
                Completion::Sent { link, error: None, .. } => driver.close(link),
                Completion::Closed { .. } => {
                    let mut answer = Vec::new();
                    peer.read_to_end(&mut answer)?;
                    return if answer == b"!" {
                        Ok(Some(served))
                    } else {
                        Err(io::Error::other("the answer did not arrive"))
                    };
                }
                Completion::AcceptFailed { error }
                | Completion::Sent { error: Some(error), .. }
                | Completion::ReceiveEnded { error: Some(error), .. } => return Err(error),
                _ => {}
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
