//! The seam between the io_uring driver and the kernel: what the driver asks of a ring, and what a ring answers.
//!
//! There are two: the system's, and a simulated one that answers from a seed.

use super::batch::Batch;
use super::block::RoomTarget;
use super::buf_ring::{Pool, PoolConfig, Pools};
use super::peer::PeerAddress;
use super::socket::Listener;
use super::token::Token;
use super::waker::Waker;
use crate::base::clock::Time;
use socket2::SockAddr;
use std::io;
use std::time::Duration;

/// What rings are made by.
pub(super) trait Kernel {
    /// What it makes.
    type Ring: Ring;

    /// Sets a ring up. One that nobody waits for is `signalled`: it has a bell, which rings when it has something to say.
    ///
    /// # Errors
    /// What the kernel says, with the operation that it refused.
    fn set_up(&self, config: &RingConfig, signalled: bool) -> io::Result<Self::Ring>;

    /// A bell that wakes from any thread whoever waits for a ring that polls it.
    fn waker(&self) -> io::Result<Waker>;

    /// The time.
    fn now(&self) -> Time;

    /// The length of the longest descriptor table of a ring.
    fn table_slots_max(&self) -> u32;
}

/// The sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingConfig {
    pub(super) submissions: u32,
    pub(super) completions: u32,
    pub(super) slots: u32,
    pub(super) standard: PoolConfig,
    pub(super) bulk: PoolConfig,
}

impl RingConfig {
    /// Bytes of an io_uring_sqe and an io_uring_cqe.
    const SUBMISSION_BYTES: u64 = 64;
    const COMPLETION_BYTES: u64 = 16;

    /// Bytes of its queues and receive buffers.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.submissions) * Self::SUBMISSION_BYTES
            + u64::from(self.completions) * Self::COMPLETION_BYTES
            + self.standard.bytes()
            + self.bulk.bytes()
    }
}

/// One ring: a queue of submissions, a queue of completions, a table of direct descriptors, pools of receive buffers.
pub(super) trait Ring {
    /// Queues a submission. `false` if the queue is full: submit, then try again.
    ///
    /// Whatever a submission refers to stays where it is and as it is until its completion has come. The caller sees to
    /// that.
    fn try_push(&mut self, submission: &Submission<'_>, token: Token) -> bool;

    /// Hands what is queued to the kernel and lets it run what it has deferred, without waiting. What the kernel refuses for
    /// the moment stays queued, which is no error.
    fn submit(&mut self) -> io::Result<()>;

    /// Like [`Ring::submit`], if there is any reason to.
    fn submit_if_needed(&mut self) -> io::Result<()>;

    /// Hands what is queued to the kernel and waits for `want` completions, at most `timeout`. That nothing came is no
    /// error, nor is a refusal for the moment, which ends the wait.
    fn submit_and_wait(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()>;

    /// Whether there is a completion to take.
    fn has_completions(&mut self) -> bool;

    /// Whether something is queued that the kernel has not taken yet.
    fn has_submissions(&mut self) -> bool;

    /// Moves all completions out, so that the kernel has room again.
    fn reap(&mut self, each: impl FnMut(RingCompletion));

    /// From now on only slots below `end` are handed out.
    fn limit_slots(&mut self, end: u32) -> io::Result<()>;

    /// The pools that receives are served from.
    fn pools(&mut self) -> &mut Pools;

    /// The bell of a ring that is signalled.
    fn signal(&self) -> Option<&Waker>;
}

/// One thing to do. Sockets are named by their slot in the ring's table.
pub(super) enum Submission<'a> {
    /// Accepts into free slots until it is cancelled, or refused.
    AcceptMany { listener: &'a Listener },
    /// Accepts one connection into a free slot.
    AcceptOne { listener: &'a Listener },
    /// Receives into buffers of a pool until the stream ends. `poll_first`: there is nothing to read yet, or no buffer was
    /// there to read it into.
    ReceiveMany { slot: u32, pool: Pool, poll_first: bool },
    /// Receives once into a buffer of a pool.
    ReceiveOne { slot: u32, pool: Pool, poll_first: bool },
    /// Receives once into memory of the loop's own.
    ReceiveInto { slot: u32, room: RoomTarget, poll_first: bool },
    /// Sends what remains of a batch, at most `SEND_PARTS_MAX` parts and `SEND_BYTES_MAX` bytes, or little more if that is all.
    Send { slot: u32, batch: &'a Batch },
    /// Ends our side of a stream.
    ShutdownWrite { slot: u32 },
    /// Closes a socket and frees its slot.
    Close { slot: u32 },
    /// Asks for the end of every operation with this token; each still completes by itself.
    CancelAll { target: Token },
    /// Asks for the end of the one operation with this token; it still completes by itself. Completes itself only where
    /// nothing was found to be ended (ENOENT): the operation has ended, or the kernel has it in hand at this moment, and
    /// then it goes on.
    Cancel { target: Token },
    /// Reports whenever a bell has rung.
    Poll { bell: &'a Waker },
    /// Makes a socket for connections to this address, in a free slot.
    Socket { address: &'a SockAddr },
    /// Sets `TCP_NODELAY`. Completes only if that fails; so do the next two.
    SetNoDelay { slot: u32 },
    /// The bind that follows takes an address only; the port is chosen by the connect, which knows the destination
    /// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)). Without it a port serves for one destination only.
    SetBindAddressOnly { slot: u32 },
    /// The close that follows drops what is not sent and answers with a reset (`SO_LINGER`, socket(7)).
    SetResetOnClose { slot: u32 },
    /// Asks for the peer's address. `length` is that of an address of the socket's family: more is refused with EINVAL, less
    /// is filled.
    PeerAddress { slot: u32, room: &'a PeerAddress, length: u32 },
    /// Binds. The next submission, the connect, follows only if that succeeds; if not, the bind alone completes: a failed
    /// submission that skips its success takes what is linked to it along in silence.
    Bind { slot: u32, address: &'a SockAddr },
    /// Connects.
    Connect { slot: u32, address: &'a SockAddr },
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingCompletion {
    pub(super) token: Token,
    /// What the operation answers; below zero an errno.
    pub(super) result: i32,
    /// Whether more completions of the same submission follow.
    pub(super) more: bool,
    /// The buffer that the kernel chose for a receive.
    pub(super) buffer: Option<u16>,
}

impl RingCompletion {
    /// The number that the operation answers, or its errno.
    pub(super) const fn answer(&self) -> Result<u32, i32> {
        if self.result < 0 { Err(-self.result) } else { Ok(self.result as u32) }
    }
}
