//! Floor 2b: the kernel. Sockets, rings, buffers, cores; nobody above names a syscall or an errno.
//!
//! A [`Driver`] is completion-shaped: about ten verbs start things, [`Driver::wait`] enters the kernel once a turn,
//! [`Driver::next_completion`] tells what ended. The rules that every driver keeps:
//!
//! - one send in flight per link, so order is kept; what gathers meanwhile leaves in the next one;
//! - a received [`Buffer`] belongs to the loop until [`Driver::recycle`];
//! - memory lent to the kernel is owned by the driver until its completion has come, whatever becomes of the link;
//! - every token carries kind, generation and index: a late completion finds nothing rather than a stranger;
//! - a link's key is given to another tenant only after [`Completion::Closed`].

mod affinity;
mod bank;
mod batch;
mod block;
mod buf_ring;
mod epoll;
mod links;
mod peer;
mod poller;
mod pool;
mod probe;
mod ring;
#[cfg(feature = "simulation")]
pub mod sim;
mod socket;
mod survey;
mod system_ring;
mod token;
mod uring;
mod waker;

pub use affinity::{cores, pin_to};
pub use batch::{Batch, BatchPool};
pub use block::{BLOCK_SHARES, Room};
pub use epoll::{Epoll, EpollConfig};
pub use probe::probe_uring;
pub use socket::{Listener, listen_on};
pub use survey::{FeatureState, UringFeature, UringSurvey, survey_uring};
pub use system_ring::descriptor_limit;
pub use uring::{Uring, UringConfig};
pub use waker::Waker;

use crate::base::clock::Time;
use crate::base::key::Key;
#[cfg(doc)]
use crate::base::limits::SEND_BYTES_MAX;
use bytes::BytesMut;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A connected socket, as the driver names it.
pub type Link = Key;

/// Received bytes: a part of the driver's pool, lent until it is recycled.
#[derive(Debug)]
#[must_use = "a buffer that is not recycled is lost to the pool"]
pub struct Buffer {
    bank: u16,
    pool: buf_ring::Pool,
    id: u16,
    len: u32,
}

impl Buffer {
    /// Bytes received, at least 1.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Never: a buffer is handed out only with bytes in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What ended. The set is closed: a loop matches all of it.
#[derive(Debug)]
pub enum Completion {
    /// A connection was accepted. Nothing is received before [`Driver::recv_start`].
    Accepted {
        /// Its link.
        link: Link,
        /// Where it comes from; `None` if nobody asked, or the kernel does not say (io_uring before Linux 6.7). An
        /// IPv4 peer of an IPv6 listener has its IPv4 address.
        peer: Option<SocketAddr>,
    },
    /// The system refused an accept, or room for more of them (EMFILE, ENFILE, ENOBUFS, ENOMEM, …). The driver rests and
    /// goes on by itself. What concerns one connection alone is not told.
    AcceptFailed {
        /// What the system said.
        error: io::Error,
    },
    /// A connection asked for by [`Driver::connect`] stands.
    Connected {
        /// Its link.
        link: Link,
        /// What the caller gave.
        tag: u64,
    },
    /// A connection asked for by [`Driver::connect`] does not stand.
    ConnectFailed {
        /// What the caller gave.
        tag: u64,
        /// What the system said.
        error: io::Error,
    },
    /// Bytes came.
    Received {
        /// From here.
        link: Link,
        /// Read them by [`Driver::bytes`], give them back by [`Driver::recycle`].
        buffer: Buffer,
    },
    /// Bytes came into the room that was given by [`Driver::recv_into`].
    Filled {
        /// From here.
        link: Link,
        /// The room.
        room: Room,
        /// Bytes received, at least 1: the last ones in it.
        count: usize,
    },
    /// Nothing more comes: the peer's end of stream, or an error.
    ReceiveEnded {
        /// The link; it still wants to be closed.
        link: Link,
        /// `None` at the end of stream.
        error: Option<io::Error>,
    },
    /// At least [`SEND_BYTES_MAX`] bytes of a batch are with the kernel that were not when the last such word came, or at
    /// the start, and the rest is on its way: the peer takes what it is sent.
    SentPart {
        /// The link.
        link: Link,
        /// Bytes of the batch that are left.
        remaining: usize,
    },
    /// A send ended; with an error, part of it may have left.
    Sent {
        /// The link.
        link: Link,
        /// The batch, to be used again.
        batch: Box<Batch>,
        /// `None` if every byte is with the kernel.
        error: Option<io::Error>,
    },
    /// The link is gone; its key may come again with the next generation.
    Closed {
        /// The link that was.
        link: Link,
    },
    /// Somebody called [`Waker::wake`].
    Woken,
}

/// One core's kernel.
pub trait Driver {
    /// Accepts connections from now on. A listener that was there before is closed.
    fn listen(&mut self, listener: Listener);
    /// Accepts no more and closes the listener; connections that stand are not touched.
    fn stop_listening(&mut self);
    /// Opens a connection, from `source` if one is given and else from the address the system chooses. The port is the
    /// system's choice, and one port serves for many destinations. [`Completion::Connected`] or
    /// [`Completion::ConnectFailed`] answers with `tag`.
    fn connect(&mut self, address: SocketAddr, source: Option<IpAddr>, tag: u64);
    /// Receives until [`Driver::recv_stop`] or the end.
    fn recv_start(&mut self, link: Link);
    /// Whether [`Driver::recv_into`] may be called, and for how many bytes at least it is worth while: the link receives much, and
    /// nothing is on its way from it. So it is at most between a completion that brought bytes and the end of the turn.
    fn takes_room(&mut self, link: Link) -> Option<usize>;
    /// Receives what comes next into this, once, and not into buffers of its own. [`Completion::Filled`] gives it back. With the
    /// end of the stream, and with that of the link, it is gone.
    ///
    /// # Panics
    /// If the link takes none now.
    fn recv_into(&mut self, link: Link, room: Room);
    /// Lets the room go that was given by [`Driver::recv_into`], if there is one: what comes next is received into buffers of the
    /// driver's own. Where bytes come at this very moment, [`Completion::Filled`] may still give it back.
    fn drop_room(&mut self, link: Link);
    /// Stops receiving. What the kernel had taken already still arrives.
    fn recv_stop(&mut self, link: Link);
    /// Sends a batch. The link has none in flight.
    fn send(&mut self, link: Link, batch: Box<Batch>);
    /// Ends our side of the stream. The link has no send in flight.
    fn shutdown(&mut self, link: Link);
    /// Ends everything that is in flight, then closes; [`Completion::Closed`] follows, nothing else for this link but
    /// the batch that was in flight.
    fn close(&mut self, link: Link);
    /// Like [`Driver::close`], but the peer is told by a reset (RFC 9293 §3.5.2), bytes that it has not got are dropped
    /// and nothing of the connection stays with the system.
    fn reset(&mut self, link: Link);
    /// The bytes of a buffer.
    fn bytes(&mut self, buffer: &Buffer) -> &mut [u8];
    /// Gives a buffer back to the pool.
    fn recycle(&mut self, buffer: Buffer);
    /// The same bytes as memory that parts may be split off and shared of, if the buffer is one of the longer ones and they are
    /// no small part of it ([`BLOCK_SHARES`]). What is left of them comes back by [`Driver::recycle_rest`].
    fn take_bytes(&mut self, buffer: &Buffer) -> Option<BytesMut>;
    /// Gives a buffer back to the pool whose bytes were taken. What is shared of them stays as it is.
    fn recycle_rest(&mut self, buffer: Buffer, rest: BytesMut);
    /// What wakes this driver's [`Driver::wait`] from any thread.
    fn waker(&self) -> Waker;
    /// Hands to the kernel what was started, in the middle of a turn: what is to be sent is still in the cache. What ends by that
    /// may be told in this turn already: a loop that does it for each send does not come to the turn's end.
    ///
    /// # Errors
    /// As [`Driver::wait`].
    fn submit(&mut self) -> io::Result<()>;
    /// Hands everything to the kernel and waits for a completion, at most `timeout`. Answers the turn's time.
    ///
    /// # Errors
    /// The kernel refuses the wait itself; the driver cannot go on.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Time>;
    /// The next thing that ended. Only this turn's: `None` until the next [`Driver::wait`].
    fn next_completion(&mut self) -> Option<Completion>;
}
