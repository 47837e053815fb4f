//! epoll(7): what each descriptor is watched for, and which are ready; with it the few calls of the epoll driver that
//! no library makes safe.
//!
//! ```text
//!  63         56 55              32 31                0
//! ┌─────────────┬──────────────────┬───────────────────┐
//! │      0      │    generation    │       index       │   what a link's event carries; the waker and the
//! └─────────────┴──────────────────┴───────────────────┘   listener have numbers that no link can have
//! ```
#![allow(unsafe_code)]

use super::Link;
use super::peer::PeerAddress;
use super::socket::Listener;
use crate::base::key::Key;
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// Events taken in one turn; the kernel keeps the others and gives them first the next time.
const EVENTS_PER_TURN_MAX: usize = 1024;

/// An epoll descriptor and room for what it reports.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Box<[libc::epoll_event]>,
    /// The kernel has epoll_pwait2, which takes nanoseconds.
    precise: bool,
}

/// What a descriptor is watched for, level-triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Nothing. epoll reports a hang-up unasked: once then (edge-triggered), and not in every turn.
    Nothing,
    Read,
    Write,
    Both,
}

impl Interest {
    pub(super) const fn new(read: bool, write: bool) -> Self {
        match (read, write) {
            (false, false) => Self::Nothing,
            (true, false) => Self::Read,
            (false, true) => Self::Write,
            (true, true) => Self::Both,
        }
    }

    const fn events(self) -> i32 {
        match self {
            Self::Nothing => libc::EPOLLET,
            Self::Read => libc::EPOLLIN,
            Self::Write => libc::EPOLLOUT,
            Self::Both => libc::EPOLLIN | libc::EPOLLOUT,
        }
    }
}

/// Whose descriptor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Waker,
    Listener,
    Link(Link),
}

const WAKER: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
const _: () = assert!(LISTENER >> (32 + Key::GENERATION_BITS) != 0, "no link has this number");

impl Source {
    const fn encode(self) -> u64 {
        match self {
            Self::Waker => WAKER,
            Self::Listener => LISTENER,
            Self::Link(link) => (link.generation() as u64) << 32 | link.index() as u64,
        }
    }

    const fn decode(data: u64) -> Self {
        match data {
            WAKER => Self::Waker,
            LISTENER => Self::Listener,
            _ => Self::Link(Key::new(data as u32, (data >> 32) as u32)),
        }
    }
}

/// What a descriptor is ready for. One that failed or hung up is ready for both: the next call says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) source: Source,
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Poller {
    /// Watches `waker`, and nothing else yet.
    pub(super) fn new(waker: RawFd) -> io::Result<Self> {
        // SAFETY: takes an integer and touches no memory of ours.
        let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: epoll_create1 has just made this descriptor, and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_TURN_MAX].into_boxed_slice();
        let mut poller = Self { epoll, events, precise: false };
        // Each write to an eventfd is an edge, so nobody has to read the counter.
        poller.control(libc::EPOLL_CTL_ADD, waker, Source::Waker, libc::EPOLLIN | libc::EPOLLET)?;
        // Linux 5.11. ENOSYS before; where system calls are filtered, EPERM as well.
        poller.precise = poller.wait_nanoseconds(Some(Duration::ZERO)).is_ok();
        Ok(poller)
    }

    /// Begins to watch a descriptor. Closing it ends that.
    ///
    /// # Errors
    /// ENOMEM, or ENOSPC: the user watches as many as `fs.epoll.max_user_watches` allows.
    pub(super) fn add(&self, fd: RawFd, source: Source, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, source, interest.events())
    }

    /// Watches a descriptor for something else.
    pub(super) fn change(&self, fd: RawFd, source: Source, interest: Interest) {
        // It takes no memory, so the kernel has nothing to refuse.
        self.control(libc::EPOLL_CTL_MOD, fd, source, interest.events()).expect("a watched descriptor stays watched");
    }

    fn control(&self, operation: i32, fd: RawFd, source: Source, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: source.encode() };
        // SAFETY: the kernel reads the event during the call and keeps a copy.
        checked(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })?;
        Ok(())
    }

    /// Waits until something is ready, at most `timeout`. Answers how many events [`Poller::ready`] knows.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let result = match self.precise {
            true => self.wait_nanoseconds(timeout),
            false => self.wait_milliseconds(timeout),
        };
        match result {
            // A signal ends the wait and nothing else.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => other,
        }
    }

    /// By number: the C library has it only since glibc 2.35.
    fn wait_nanoseconds(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(KernelTimespec::from);
        let timeout_at = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (epoll, no_mask) = (self.epoll.as_raw_fd(), ptr::null::<libc::sigset_t>());
        let (events, room) = (self.events.as_mut_ptr(), self.events.len());
        // SAFETY: the kernel writes at most `room` events, which the slice has; `timeout_at` is null or points to a
        // value that outlives the call; the signal mask is null, for which its size is not looked at.
        let count = unsafe { libc::syscall(libc::SYS_epoll_pwait2, epoll, events, room, timeout_at, no_mask, 0usize) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Before Linux 5.11: rounded up, so that nothing due is found before its time.
    fn wait_milliseconds(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map_or(-1, |timeout| {
            let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
            i32::try_from(milliseconds).unwrap_or(i32::MAX)
        });
        let (events, room) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: the kernel writes at most `room` events, which the slice has.
        let count = checked(unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events, room, timeout) })?;
        Ok(count as usize)
    }

    /// An event of the last wait.
    pub(super) fn ready(&self, index: usize) -> Ready {
        let libc::epoll_event { events, u64: data } = self.events[index];
        let events = events.cast_signed();
        let ended = events & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
        Ready {
            source: Source::decode(data),
            read: ended || events & libc::EPOLLIN != 0,
            write: ended || events & libc::EPOLLOUT != 0,
        }
    }
}

/// `__kernel_timespec`: 64 bits each, wherever it is.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

impl From<Duration> for KernelTimespec {
    fn from(duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self { seconds, nanoseconds: i64::from(duration.subsec_nanos()) }
    }
}

/// The next connection of a listener that does not block, and where it comes from; the socket does not block either.
pub(super) fn accept(listener: &Listener) -> io::Result<(Socket, Option<SocketAddr>)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let peer = PeerAddress::default();
    let mut length = PeerAddress::BYTES as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `peer` has, and a length; both outlive the call.
    let answer = unsafe { libc::accept4(listener.as_raw_fd(), peer.as_ptr().cast(), &raw mut length, flags) };
    let fd = checked(answer)?;
    // SAFETY: accept4 has just made this descriptor, and nobody else owns it.
    let socket = unsafe { Socket::from_raw_fd(fd) };
    Ok((socket, peer.decode()))
}

/// An accept that finds no connection says so (EAGAIN) instead of waiting: what was announced may be gone again.
pub(super) fn set_nonblocking(listener: &Listener) -> io::Result<()> {
    // SAFETY: takes integers and touches no memory of ours.
    checked(unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok(())
}

/// The bind that follows takes an address only; the port is chosen by the connect, which knows the destination
/// (`IP_BIND_ADDRESS_NO_PORT`, Linux 4.2). Without it a port serves for one destination only.
pub(super) fn set_bind_address_only(socket: &Socket) -> io::Result<()> {
    let (on, name) = (1i32, libc::IP_BIND_ADDRESS_NO_PORT);
    let (value, length) = ((&raw const on).cast(), size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes of `on` during the call.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, name, value, length) })?;
    Ok(())
}

/// What a call answered, or the error that it left.
fn checked(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Waker;
    use std::time::Instant;

    fn poller() -> (Poller, Waker) {
        let waker = Waker::new().expect("an eventfd");
        (Poller::new(waker.as_raw_fd()).expect("an epoll descriptor"), waker)
    }

    #[test]
    fn sources_come_back_as_they_went() {
        for link in [Key::new(0, 0), Key::new(u32::MAX, 0xff_ffff), Key::new(19_990, 7)] {
            assert_eq!(Source::decode(Source::Link(link).encode()), Source::Link(link));
        }
        for source in [Source::Waker, Source::Listener] {
            assert_eq!(Source::decode(source.encode()), source);
        }
    }

    #[test]
    fn no_wait_ends_before_its_time() {
        let (mut poller, _waker) = poller();
        for precise in [poller.precise, false] {
            poller.precise = precise;
            for timeout in [0, 1, 300, 1_000, 1_500].map(Duration::from_micros) {
                let begin = Instant::now();
                assert_eq!(poller.wait(Some(timeout)).expect("it waits"), 0);
                assert!(begin.elapsed() >= timeout, "precise: {precise}, {timeout:?}");
            }
        }
    }

    #[test]
    fn both_waits_report_a_wake_up_once() {
        let (mut poller, waker) = poller();
        for precise in [poller.precise, false] {
            poller.precise = precise;
            waker.wake();
            waker.wake();
            assert_eq!(poller.wait(Some(Duration::MAX)).expect("it waits"), 1);
            assert_eq!(poller.ready(0), Ready { source: Source::Waker, read: true, write: false });
            assert_eq!(poller.wait(Some(Duration::ZERO)).expect("it waits"), 0);
        }
    }
}
