//! The system's rings: io_uring as it was measured best (Linux 6.1 and later), and all that makes it unsafe.
#![allow(unsafe_code)]

use super::batch::Batch;
use super::buf_ring::{Pool, Pools};
use super::peer::PeerAddress;
use super::ring::{Kernel, Ring, RingCompletion, RingConfig, Submission};
use super::token::Token;
use super::waker::Waker;
use crate::base::clock::Time;
use crate::base::limits::{SEND_BYTES_MAX, SEND_PARTS_MAX};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::{Duration, Instant};

/// `IORING_RECVSEND_POLL_FIRST` (5.19): do not try before the socket polls ready.
const POLL_FIRST: u16 = 1 << 0;
/// `IORING_RECV_MULTISHOT` (6.0).
const RECEIVE_MULTISHOT: u16 = 1 << 1;
/// What options are set to; the kernel reads it while the command runs.
static ON: libc::c_int = 1;
static NO_LINGER: libc::linger = libc::linger { l_onoff: 1, l_linger: 0 };
/// `SOCKET_URING_OP_GETSOCKOPT` (6.7), and where a submission carries it: the third of its 16 words, `cmd_op`.
const GET_OPTION: u32 = 2;
const COMMAND_AT: usize = 2;
const _: () = assert!(size_of::<squeue::Entry>() == 64);
/// `IORING_REGISTER_FILE_ALLOC_RANGE` (6.0), which the library does not know.
const REGISTER_FILE_ALLOC_RANGE: libc::c_long = 25;

/// The kernel that this process runs on.
pub struct System {
    origin: Instant,
}

impl System {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Kernel for System {
    type Ring = SystemRing;

    fn set_up(&self, config: &RingConfig, signalled: bool) -> io::Result<SystemRing> {
        SystemRing::new(config, signalled)
    }

    fn waker(&self) -> io::Result<Waker> {
        Waker::new()
    }

    fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn table_slots_max(&self) -> u32 {
        descriptor_limit()
    }
}

/// One of the system's rings.
pub(super) struct SystemRing {
    /// Stands before the pools: it is dropped first.
    ring: IoUring,
    pools: Pools,
    /// Message headers of the sends that are queued and not submitted: the kernel copies them when it is entered
    /// (IORING_FEAT_SUBMIT_STABLE, 5.5).
    #[expect(clippy::vec_box, reason = "the kernel is given pointers into them, and the vector grows")]
    scatters: Vec<Box<Scatter>>,
    scatters_used: usize,
    signal: Option<Waker>,
}

/// `io_uring_file_index_range`.
#[repr(C)]
struct FileIndexRange {
    offset: u32,
    length: u32,
    reserved: u64,
}

/// A `sendmsg` header and the vector it points to; boxed, so that the pointer holds.
struct Scatter {
    header: libc::msghdr,
    parts: [libc::iovec; SEND_PARTS_MAX],
}

impl SystemRing {
    pub(super) fn new(config: &RingConfig, signalled: bool) -> io::Result<Self> {
        // First what is cheap to be refused.
        let signal = signalled.then(Waker::new).transpose().map_err(named("eventfd"))?;
        let ring = set_up(config)?;
        check_features(&ring)?;
        check_operations(&ring)?;
        ring.submitter().register_files_sparse(config.slots).map_err(named("register_files_sparse"))?;
        let pools = Pools::new(config.standard, config.bulk).map_err(named("mmap"))?;
        pools.register(&ring.submitter()).map_err(named("register_buf_ring"))?;
        // Only rare operations (shutdown) leave for worker threads; a flood of them must not become one of threads.
        ring.submitter().register_iowq_max_workers(&mut [4, 4]).map_err(named("register_iowq_max_workers"))?;
        if let Some(signal) = &signal {
            ring.submitter().register_eventfd(signal.as_raw_fd()).map_err(named("register_eventfd"))?;
        }
        Ok(Self { ring, pools, scatters: Vec::new(), scatters_used: 0, signal })
    }

    /// What the kernel is given for a submission.
    #[inline]
    fn entry(&mut self, submission: &Submission<'_>) -> squeue::Entry {
        match *submission {
            Submission::AcceptMany { listener } => {
                opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true).build()
            }
            Submission::AcceptOne { listener } => {
                opcode::Accept::new(Fd(listener.as_raw_fd()), ptr::null_mut(), ptr::null_mut())
                    .file_index(Some(DestinationSlot::auto_target()))
                    .build()
            }
            Submission::ReceiveMany { slot, pool, poll_first } => {
                receive_selected(slot, pool, RECEIVE_MULTISHOT | first(poll_first))
            }
            Submission::ReceiveOne { slot, pool, poll_first } => receive_selected(slot, pool, first(poll_first)),
            Submission::ReceiveInto { slot, room, poll_first } => {
                opcode::Recv::new(Fixed(slot), room.start.as_ptr(), room.len).ioprio(first(poll_first)).build()
            }
            Submission::Send { slot, batch } => self.send_entry(slot, batch),
            Submission::ShutdownWrite { slot } => opcode::Shutdown::new(Fixed(slot), libc::SHUT_WR).build(),
            Submission::Close { slot } => opcode::Close::new(Fixed(slot)).build(),
            // By user data: the kernel finds it by hash; by descriptor it would walk all that is armed.
            Submission::CancelAll { target } => {
                let builder = CancelBuilder::user_data(target.encode()).all();
                opcode::AsyncCancel2::new(builder).build().flags(squeue::Flags::SKIP_SUCCESS)
            }
            Submission::Cancel { target } => {
                let builder = CancelBuilder::user_data(target.encode());
                opcode::AsyncCancel2::new(builder).build().flags(squeue::Flags::SKIP_SUCCESS)
            }
            Submission::Poll { bell } => {
                opcode::PollAdd::new(Fd(bell.as_raw_fd()), libc::POLLIN as u32).multi(true).build()
            }
            Submission::Socket { address } => opcode::Socket::new(i32::from(address.family()), libc::SOCK_STREAM, 0)
                .file_index(Some(DestinationSlot::auto_target()))
                .build(),
            Submission::SetNoDelay { slot } => set_option(slot, libc::IPPROTO_TCP, libc::TCP_NODELAY, &ON),
            Submission::SetBindAddressOnly { slot } => {
                set_option(slot, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &ON)
            }
            Submission::SetResetOnClose { slot } => set_option(slot, libc::SOL_SOCKET, libc::SO_LINGER, &NO_LINGER),
            Submission::PeerAddress { slot, room, length } => peer_address(slot, room, length),
            // Linux 6.11.
            Submission::Bind { slot, address } => {
                opcode::Bind::new(Fixed(slot), address.as_ptr().cast(), address.len())
                    .build()
                    .flags(squeue::Flags::SKIP_SUCCESS | squeue::Flags::IO_LINK)
            }
            Submission::Connect { slot, address } => {
                opcode::Connect::new(Fixed(slot), address.as_ptr().cast(), address.len()).build()
            }
        }
    }

    #[inline]
    fn send_entry(&mut self, slot: u32, batch: &Batch) -> squeue::Entry {
        // MSG_WAITALL: the kernel finishes short sends itself.
        let flags = batch.flags() | libc::MSG_WAITALL;
        let mut parts = batch.remaining();
        let first = parts.next().unwrap_or_default();
        match parts.next() {
            None => {
                let length = first.len().min(batch.at_once(SEND_BYTES_MAX)) as u32;
                opcode::Send::new(Fixed(slot), first.as_ptr(), length).flags(flags).build()
            }
            Some(_) => {
                let header = self.scatter(batch);
                opcode::SendMsg::new(Fixed(slot), header).flags(flags as u32).build()
            }
        }
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

    fn after_submit(&mut self) {
        if self.ring.submission().is_empty() {
            self.scatters_used = 0;
        }
    }
}

impl Ring for SystemRing {
    #[inline]
    fn try_push(&mut self, submission: &Submission<'_>, token: Token) -> bool {
        if self.ring.submission().is_full() {
            return false;
        }
        let entry = self.entry(submission).user_data(token.encode());
        // SAFETY: whatever the entry points to lives until its completion: batches, addresses and rooms for them are
        // kept by the caller, message headers by `scatters` until the submission, `ON` for ever.
        unsafe { self.ring.submission().push(&entry) }.is_ok()
    }

    fn submit(&mut self) -> io::Result<()> {
        let result = self.ring.submit();
        self.after_submit();
        unless_momentary(result)
    }

    fn submit_if_needed(&mut self) -> io::Result<()> {
        let mut submission = self.ring.submission();
        submission.sync();
        let needed = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if needed { self.submit() } else { Ok(()) }
    }

    fn submit_and_wait(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            None => self.ring.submitter().submit_and_wait(want),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(want, &arguments)
            }
        };
        self.after_submit();
        unless_momentary(result)
    }

    fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    fn has_submissions(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    #[inline]
    fn reap(&mut self, mut each: impl FnMut(RingCompletion)) {
        for entry in self.ring.completion() {
            let flags = entry.flags();
            each(RingCompletion {
                token: Token::decode(entry.user_data()),
                result: entry.result(),
                more: cqueue::more(flags),
                buffer: cqueue::buffer_select(flags),
            });
        }
    }

    fn limit_slots(&mut self, end: u32) -> io::Result<()> {
        let range = FileIndexRange { offset: 0, length: end, reserved: 0 };
        let (ring, range_at) = (self.ring.as_raw_fd(), &raw const range);
        // SAFETY: the kernel reads the range during the call and touches no other memory of ours.
        let answer =
            unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_FILE_ALLOC_RANGE, range_at, 0usize) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn pools(&mut self) -> &mut Pools {
        &mut self.pools
    }

    fn signal(&self) -> Option<&Waker> {
        self.signal.as_ref()
    }
}

/// What ends an enter and nothing else. ETIME: nothing came in time. EINTR: a signal. EBUSY, EAGAIN: completions first,
/// then again.
fn unless_momentary(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

const fn first(poll_first: bool) -> u16 {
    if poll_first { POLL_FIRST } else { 0 }
}

/// Receives into a buffer that the kernel chooses; its length is the bound.
fn receive_selected(slot: u32, pool: Pool, ioprio: u16) -> squeue::Entry {
    opcode::Recv::new(Fixed(slot), ptr::null_mut(), 0)
        .ioprio(ioprio)
        .buf_group(pool as u16)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

/// By command (Linux 6.7): a direct descriptor is none that setsockopt(2) knows.
fn set_option<T>(slot: u32, level: i32, name: i32, value: &'static T) -> squeue::Entry {
    let value_at = (&raw const *value).cast();
    opcode::SetSockOpt::new(Fixed(slot), level as u32, name as u32, value_at, size_of::<T>() as u32)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
}

/// By command (Linux 6.7, which knows options of SOL_SOCKET only).
fn peer_address(slot: u32, room: &PeerAddress, length: u32) -> squeue::Entry {
    debug_assert!(length as usize <= PeerAddress::BYTES);
    let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_PEERNAME as u32);
    let mut entry = opcode::SetSockOpt::new(Fixed(slot), level, name, room.as_ptr().cast(), length).build();
    let words = (&raw mut entry).cast::<[u32; 16]>();
    // The library builds the setter only; the getter is the same but for this word.
    // SAFETY: an entry is an io_uring_sqe of 64 bytes (asserted), aligned for u64 and ours alone.
    unsafe { (*words)[COMMAND_AT] = GET_OPTION };
    entry
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
        let (mut count, mut room) = (0, batch.at_once(SEND_BYTES_MAX));
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

/// Whether a ring with these features does what we take for granted.
pub(super) fn check_features(ring: &IoUring) -> io::Result<()> {
    if ring.params().is_feature_submit_stable() && ring.params().is_feature_ext_arg() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "the ring lacks SUBMIT_STABLE or EXT_ARG"))
}

/// The ring as it was measured best: one issuer, task work deferred to our own enters, no indirection on submission.
fn set_up(config: &RingConfig) -> io::Result<IoUring> {
    // NO_SQARRAY came with 6.6; the rest with 6.1.
    build(config.submissions, config.completions, true)
        .or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => build(config.submissions, config.completions, false),
            _ => Err(error),
        })
        .map_err(named("io_uring_setup"))
}

pub(super) fn build(submissions: u32, completions: u32, without_array: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(completions);
    if without_array {
        builder.setup_no_sqarray();
    }
    builder.build(submissions)
}

/// Whether the kernel knows what every connection needs.
pub(super) fn check_operations(ring: &IoUring) -> io::Result<()> {
    const NEEDED: [(&str, u8); 8] = [
        ("ACCEPT", opcode::AcceptMulti::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
        ("SHUTDOWN", opcode::Shutdown::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel2::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
    ];
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(named("register_probe"))?;
    match NEEDED.iter().find(|(_, code)| !probe.is_supported(*code)) {
        Some((name, _)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel lacks IORING_OP_{name}")))
        }
        None => Ok(()),
    }
}

fn named(operation: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{operation}: {error}"))
}

/// RLIMIT_NOFILE: descriptors of this process, and the length of the longest descriptor table of a ring.
pub fn descriptor_limit() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the limit into a value of ours.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if answer == 0 { u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX).min(1 << 20) } else { 1024 }
}
