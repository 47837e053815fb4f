//! A bank: one ring, its table of direct descriptors, its pool of receive buffers.
//!
//! A table is at most RLIMIT_NOFILE long, but its descriptors are not counted against that limit; so a shard that
//! wants more connections than one table holds has several banks in its one thread. Here stand the submissions and
//! all that makes them unsafe; what they are for is the driver's business.
#![allow(unsafe_code)]

use super::Link;
use super::batch::Batch;
use super::buf_ring::BufRing;
use super::peer::PeerAddress;
use super::token::{Operation, Token};
use super::waker::Waker;
use crate::base::limits::{SEND_BYTES_MAX, SEND_PARTS_MAX};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::SockAddr;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

/// The only buffer group of a ring.
const BUFFER_GROUP: u16 = 0;
/// `IORING_RECVSEND_POLL_FIRST` (5.19): do not try before the socket polls ready.
const POLL_FIRST: u16 = 1 << 0;
/// `IORING_RECV_MULTISHOT` (6.0).
const RECEIVE_MULTISHOT: u16 = 1 << 1;
/// MSG_WAITALL: the kernel finishes short sends itself. MSG_NOSIGNAL: an error instead of SIGPIPE.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// Tries to make room in a full submission queue.
const SUBMIT_TRIES_MAX: u32 = 1000;
/// What options are set to; the kernel reads it while the command runs.
static ON: libc::c_int = 1;
static NO_LINGER: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
/// `SOCKET_URING_OP_GETSOCKOPT` (6.7), and where a submission carries it: the third of its 16 words, `cmd_op`.
const GET_OPTION: u32 = 2;
const COMMAND_AT: usize = 2;
const _: () = assert!(size_of::<squeue::Entry>() == 64);

/// The sizes of a bank.
#[derive(Clone, Copy, Debug)]
pub(super) struct BankConfig {
    pub(super) submissions: u32,
    pub(super) completions: u32,
    pub(super) slots: u32,
    pub(super) buffer_count: u16,
    pub(super) buffer_bytes: u32,
}

/// One ring and what belongs to it.
pub(super) struct Bank {
    /// Stands before the pool: it is dropped first.
    ring: IoUring,
    pub(super) buffers: BufRing,
    /// Links whose receive ended for want of a buffer, in the order they came.
    pub(super) starved: VecDeque<Link>,
    slots: u32,
    used: u32,
    /// Slots for operations in flight that will take one if they succeed.
    reserved: u32,
    /// Message headers of the sends that are queued and not submitted: the kernel copies them when it is entered
    /// (IORING_FEAT_SUBMIT_STABLE, 5.5).
    #[expect(clippy::vec_box, reason = "the kernel is given pointers into them, and the vector grows")]
    scatters: Vec<Box<Scatter>>,
    scatters_used: usize,
    /// Signalled when a bank that nobody waits for has something to say.
    signal: Option<Waker>,
}

/// A `sendmsg` header and the vector it points to; boxed, so that the pointer holds.
struct Scatter {
    header: libc::msghdr,
    parts: [libc::iovec; SEND_PARTS_MAX],
}

impl Bank {
    /// Sets a ring up. A bank that is waited for needs no signal; the others have one.
    pub(super) fn new(config: &BankConfig, signalled: bool) -> io::Result<Self> {
        // First what is cheap to be refused.
        let signal = signalled.then(Waker::new).transpose().map_err(named("eventfd"))?;
        let ring = set_up(config)?;
        if !ring.params().is_feature_submit_stable() || !ring.params().is_feature_ext_arg() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the ring lacks SUBMIT_STABLE or EXT_ARG"));
        }
        ring.submitter().register_files_sparse(config.slots).map_err(named("register_files_sparse"))?;
        let buffers = BufRing::register(&ring.submitter(), BUFFER_GROUP, config.buffer_count, config.buffer_bytes)
            .map_err(named("register_buf_ring"))?;
        // Only rare operations (shutdown) leave for worker threads; a flood of them must not become one of threads.
        ring.submitter().register_iowq_max_workers(&mut [4, 4]).map_err(named("register_iowq_max_workers"))?;
        if let Some(signal) = &signal {
            ring.submitter().register_eventfd(signal.as_raw_fd()).map_err(named("register_eventfd"))?;
        }
        Ok(Self {
            ring,
            buffers,
            starved: VecDeque::new(),
            slots: config.slots,
            used: 0,
            reserved: 0,
            scatters: Vec::new(),
            scatters_used: 0,
            signal,
        })
    }

    pub(super) fn signal(&self) -> Option<RawFd> {
        self.signal.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Slots of the descriptor table that have no tenant and are promised to none.
    pub(super) const fn free_slots(&self) -> u32 {
        self.slots.saturating_sub(self.used + self.reserved)
    }

    /// Promises a slot to an operation that is submitted now.
    pub(super) fn reserve_slot(&mut self) {
        self.reserved += 1;
    }

    /// The operation has ended; if it succeeded, [`Bank::occupy_slot`] follows.
    pub(super) fn release_slot(&mut self) {
        debug_assert!(self.reserved > 0);
        self.reserved -= 1;
    }

    pub(super) fn occupy_slot(&mut self) {
        self.used += 1;
        debug_assert!(self.used <= self.slots);
    }

    pub(super) fn vacate_slot(&mut self) {
        debug_assert!(self.used > 0);
        self.used -= 1;
    }

    pub(super) fn accept_many(&mut self, listener: RawFd, token: Token) {
        let entry = opcode::AcceptMulti::new(Fd(listener)).allocate_file_index(true).build();
        self.push(entry, token);
    }

    pub(super) fn accept_one(&mut self, listener: RawFd, token: Token) {
        let entry = opcode::Accept::new(Fd(listener), ptr::null_mut(), ptr::null_mut())
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push(entry, token);
    }

    /// `poll_first`: there is nothing to read yet, or no buffer was there to read it into.
    pub(super) fn receive(&mut self, slot: u32, poll_first: bool, token: Token) {
        let ioprio = if poll_first { RECEIVE_MULTISHOT | POLL_FIRST } else { RECEIVE_MULTISHOT };
        let entry = opcode::Recv::new(Fixed(slot), ptr::null_mut(), 0)
            .ioprio(ioprio)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, token);
    }

    /// Sends what remains of `batch`, at most [`SEND_PARTS_MAX`] parts and [`SEND_BYTES_MAX`] bytes. The caller keeps
    /// the batch where it is and untouched until the completion has come.
    pub(super) fn send(&mut self, slot: u32, batch: &Batch, token: Token) {
        let mut parts = batch.remaining();
        let first = parts.next().unwrap_or_default();
        let entry = match parts.next() {
            None => {
                let length = first.len().min(SEND_BYTES_MAX) as u32;
                opcode::Send::new(Fixed(slot), first.as_ptr(), length).flags(SEND_FLAGS).build()
            }
            Some(_) => {
                let header = self.scatter(batch);
                opcode::SendMsg::new(Fixed(slot), header).flags(SEND_FLAGS as u32).build()
            }
        };
        self.push(entry, token);
    }

    /// Describes the first parts of a batch in a header that lives until the next submission.
    fn scatter(&mut self, batch: &Batch) -> *const libc::msghdr {
        if self.scatters_used == self.scatters.len() {
            self.scatters.push(Box::new(Scatter::empty()));
        }
        let scatter = &mut self.scatters[self.scatters_used];
        self.scatters_used += 1;
        scatter.describe(batch);
        &raw const scatter.header
    }

    pub(super) fn shutdown_write(&mut self, slot: u32, token: Token) {
        self.push(opcode::Shutdown::new(Fixed(slot), libc::SHUT_WR).build(), token);
    }

    pub(super) fn close(&mut self, slot: u32, token: Token) {
        self.push(opcode::Close::new(Fixed(slot)).build(), token);
    }

    /// Asks for the end of every accept with this token; each still completes by itself.
    pub(super) fn cancel_accept(&mut self, target: Token) {
        // By user data: the kernel finds it by hash; by descriptor it would walk all that is armed.
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target.encode()).all()).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), Token::new(Operation::CancelAccept, target.key));
    }

    /// Asks for the end of the one operation with this token, a receive or a send; it still completes by itself. `answer`
    /// completes only where nothing was found to be ended, [`ENOENT`](libc::ENOENT): the operation has ended, or the kernel
    /// has it in hand at this moment, and then it goes on.
    pub(super) fn cancel(&mut self, target: Token, answer: Operation) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target.encode())).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), Token::new(answer, target.key));
    }

    /// Reports whenever `fd` becomes readable.
    pub(super) fn poll(&mut self, fd: RawFd, token: Token) {
        self.push(opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true).build(), token);
    }

    pub(super) fn socket(&mut self, address: &SockAddr, token: Token) {
        let entry = opcode::Socket::new(i32::from(address.family()), libc::SOCK_STREAM, 0)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        self.push(entry, token);
    }

    pub(super) fn set_no_delay(&mut self, slot: u32, token: Token) {
        self.set_option(slot, libc::IPPROTO_TCP, libc::TCP_NODELAY, &ON, token);
    }

    /// The bind that follows takes an address only; the port is chosen by the connect, which knows the destination
    /// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)). Without it a port serves for one destination only.
    pub(super) fn set_bind_address_only(&mut self, slot: u32, token: Token) {
        self.set_option(slot, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &ON, token);
    }

    /// The close that follows drops what is not sent and answers with a reset (`SO_LINGER`, socket(7)).
    pub(super) fn set_reset_on_close(&mut self, slot: u32, token: Token) {
        self.set_option(slot, libc::SOL_SOCKET, libc::SO_LINGER, &NO_LINGER, token);
    }

    /// By command (Linux 6.7): a direct descriptor is none that setsockopt(2) knows.
    fn set_option<T>(&mut self, slot: u32, level: i32, name: i32, value: &'static T, token: Token) {
        let value_at = (&raw const *value).cast();
        let entry =
            opcode::SetSockOpt::new(Fixed(slot), level as u32, name as u32, value_at, size_of::<T>() as u32).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), token);
    }

    /// Asks for the peer's address by command (Linux 6.7, which knows options of SOL_SOCKET only). `length` is that of
    /// an address of the socket's family: more is refused with EINVAL, less is filled. The caller keeps the room where
    /// it is until the completion has come.
    pub(super) fn peer_address(&mut self, slot: u32, room: &PeerAddress, length: u32, token: Token) {
        debug_assert!(length as usize <= PeerAddress::BYTES);
        let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_PEERNAME as u32);
        let mut entry = opcode::SetSockOpt::new(Fixed(slot), level, name, room.as_ptr().cast(), length).build();
        let words = (&raw mut entry).cast::<[u32; 16]>();
        // The library builds the setter only; the getter is the same but for this word.
        // SAFETY: an entry is an io_uring_sqe of 64 bytes (asserted), aligned for u64 and ours alone.
        unsafe { (*words)[COMMAND_AT] = GET_OPTION };
        self.push(entry, token);
    }

    /// Binds (Linux 6.11). The next submission, the connect, follows only if that succeeds; if not, the bind alone
    /// completes: a failed submission that skips its success takes what is linked to it along in silence. The caller
    /// keeps the address where it is until one of the two has completed.
    pub(super) fn bind(&mut self, slot: u32, address: &SockAddr, token: Token) {
        let entry = opcode::Bind::new(Fixed(slot), address.as_ptr().cast(), address.len()).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS | squeue::Flags::IO_LINK), token);
    }

    /// The caller keeps the address where it is until the completion has come.
    pub(super) fn connect(&mut self, slot: u32, address: &SockAddr, token: Token) {
        self.push(opcode::Connect::new(Fixed(slot), address.as_ptr().cast(), address.len()).build(), token);
    }

    /// Queues one submission. A full queue is handed to the kernel first.
    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.encode());
        for _ in 0..SUBMIT_TRIES_MAX {
            // SAFETY: whatever the entry points to lives until its completion: batches, addresses and rooms for them are
            // kept by the driver, message headers by `scatters` until the submission, `ON` for ever.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The kernel refuses a submission only for a moment (EAGAIN, EBUSY); the next try tells.
            let _ = self.submit();
        }
        panic!("the submission queue stays full: the kernel takes nothing");
    }

    /// Hands what is queued to the kernel and lets it run what it has deferred, without waiting.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        let result = self.ring.submit().map(drop);
        self.after_submit();
        result
    }

    /// Like [`Bank::submit`], if there is any reason to.
    pub(super) fn submit_if_needed(&mut self) -> io::Result<()> {
        let mut submission = self.ring.submission();
        submission.sync();
        let needed = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if needed { self.submit() } else { Ok(()) }
    }

    /// Hands what is queued to the kernel and waits for `want` completions, at most `timeout`.
    pub(super) fn submit_and_wait(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            None => self.ring.submitter().submit_and_wait(want),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(want, &arguments)
            }
        };
        self.after_submit();
        match result {
            Ok(_) => Ok(()),
            // ETIME: nothing came in time. EINTR: a signal. EBUSY, EAGAIN: completions first, then again.
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn after_submit(&mut self) {
        if self.ring.submission().is_empty() {
            self.scatters_used = 0;
        }
    }

    pub(super) fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Moves all completions out, so that the kernel has room again.
    pub(super) fn reap(&mut self, bank: u16, into: &mut VecDeque<(u16, cqueue::Entry)>) {
        into.extend(self.ring.completion().map(|entry| (bank, entry)));
    }
}

impl Scatter {
    const fn empty() -> Self {
        Self {
            // SAFETY: a msghdr of zeros is a valid one: null pointers and lengths of 0.
            header: unsafe { MaybeUninit::zeroed().assume_init() },
            parts: [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SEND_PARTS_MAX],
        }
    }

    fn describe(&mut self, batch: &Batch) {
        let (mut count, mut room) = (0, SEND_BYTES_MAX);
        for (entry, part) in self.parts.iter_mut().zip(batch.remaining()) {
            let length = part.len().min(room);
            *entry = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: length };
            count += 1;
            room -= length;
            if room == 0 {
                break;
            }
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = count;
    }
}

/// The ring as it was measured best: one issuer, task work deferred to our own enters, no indirection on submission.
fn set_up(config: &BankConfig) -> io::Result<IoUring> {
    let build = |without_array: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(config.completions);
        if without_array {
            builder.setup_no_sqarray();
        }
        builder.build(config.submissions)
    };
    // NO_SQARRAY came with 6.6; the rest with 6.1.
    build(true)
        .or_else(|error| if error.raw_os_error() == Some(libc::EINVAL) { build(false) } else { Err(error) })
        .map_err(named("io_uring_setup"))
}

fn named(operation: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{operation}: {error}"))
}

/// Whether more completions of the same submission follow.
pub(super) fn more_follow(entry: &cqueue::Entry) -> bool {
    cqueue::more(entry.flags())
}

/// The buffer that the kernel chose for a receive.
pub(super) fn chosen_buffer(entry: &cqueue::Entry) -> Option<u16> {
    cqueue::buffer_select(entry.flags())
}

/// RLIMIT_NOFILE: descriptors of this process, and the length of the longest descriptor table of a ring.
pub fn descriptor_limit() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the limit into a value of ours.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if answer == 0 { u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX).min(1 << 20) } else { 1024 }
}
