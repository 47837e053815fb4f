//! The driver on epoll: for hosts that forbid io_uring or do not have it.
//!
//! Level-triggered. Batches are sent at once, and what does not fit follows when there is room. Bytes are received when
//! the loop asks for the next completion, so that one hot buffer serves all links; they may be a little younger than the
//! turn's time.
//!
//! ```text
//!  verbs ──▶ whatever they end at once ──▶ told in the next turn, or, behind a `submit`, in this one
//!  wait  ──▶ writable: sends on, finishes connecting; accepts ──▶ told in this turn
//!        └─▶ readable: received when the loop asks ─────────────▶ told in this turn
//! ```
//!
//! What epoll watches a link for grows with what the loop wants, and shrinks only when an event shows that something
//! is watched in vain: a link that changes its mind costs no system call.

use super::batch::Batch;
use super::block::{self, BLOCK_SHARES};
use super::buf_ring::Pool;
use super::links::{LinkState, Links, Outgoing};
use super::poller::{self, Interest, Poller, Ready, Source};
use super::pool::BufferPool;
use super::socket::Listener;
use super::waker::Waker;
use super::{Buffer, Completion, Driver, Link, Room};
use crate::base::clock::Time;
use crate::base::limits::{ACCEPT_REST, LINKS_MAX, SEND_PARTS_MAX};
use bytes::BytesMut;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Accepts in one turn: whoever always has more does not starve the others.
const ACCEPTS_PER_TURN_MAX: u32 = 64;

/// What a shard's epoll driver may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollConfig {
    /// Connections at most, those just accepted and those closing among them. RLIMIT_NOFILE bounds them too.
    pub links_max: usize,
    /// Bytes of a receive buffer. A loop that recycles at once uses one for all its links.
    pub buffer_bytes: u32,
    /// Bytes after which a link has received enough in one turn, whatever its last receive brought: whoever always has more does
    /// not starve the others, and a loop that wants no more is heard soon. No receive is cut short for that: what lies whole in a
    /// buffer is cheaper.
    pub turn_bytes: u32,
}

impl Default for EpollConfig {
    fn default() -> Self {
        Self { links_max: 1 << 20, buffer_bytes: 65_568, turn_bytes: 262_144 }
    }
}

/// The driver on epoll.
pub struct Epoll {
    poller: Poller,
    links: Links,
    listener: Option<Accepting>,
    /// Tags of the connections that are being opened.
    connects: HashMap<Link, u64>,
    buffers: BufferPool,
    /// Memory of the loop's own that links receive into next.
    rooms: HashMap<Link, Room>,
    /// Links that found no buffer, in the order they came.
    starved: VecDeque<Link>,
    /// What ended and has not been told.
    ended: VecDeque<Completion>,
    /// How many of these are this turn's. What a verb ends waits for the next, or for a `submit`: a loop that always has
    /// something more to send comes to the end of its turn.
    ended_before: usize,
    /// Links that can be received from in this turn.
    readable: VecDeque<Link>,
    /// Bytes that the first of these may still receive …
    bytes_left: usize,
    /// … and may in a whole turn.
    turn_bytes: usize,
    waker: Waker,
    origin: Instant,
    now: Time,
}

/// A listener and what it waits for.
struct Accepting {
    listener: Listener,
    /// None: not registered yet.
    watched: Option<Interest>,
    /// Nothing is accepted before: the system refused.
    rests_until: Option<Time>,
}

impl Epoll {
    /// Sets up an epoll descriptor.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn new(config: EpollConfig) -> io::Result<Self> {
        let waker = Waker::new()?;
        Ok(Self {
            poller: Poller::new(waker.as_raw_fd())?,
            links: Links::new(config.links_max.clamp(1, LINKS_MAX)),
            listener: None,
            connects: HashMap::new(),
            buffers: BufferPool::new(config.buffer_bytes.max(1) as usize),
            rooms: HashMap::new(),
            starved: VecDeque::new(),
            ended: VecDeque::new(),
            ended_before: 0,
            readable: VecDeque::new(),
            bytes_left: config.turn_bytes.max(1) as usize,
            turn_bytes: config.turn_bytes.max(1) as usize,
            waker,
            origin: Instant::now(),
            now: Time::default(),
        })
    }

    fn clock(&self) -> Time {
        Time::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A new link for a socket that does not block.
    fn open(&mut self, socket: Socket, outgoing: Outgoing, watched: Interest) -> io::Result<Link> {
        let fd = socket.as_raw_fd();
        let link = self.links.open(LinkState::new(socket, outgoing, watched));
        let added = self.poller.add(fd, Source::Link(link), watched);
        if added.is_err() {
            self.links.discard(link);
        }
        added.map(|()| link)
    }

    /// Makes epoll watch a link for what it wants.
    fn watch(&mut self, link: Link) {
        let Some(state) = self.links.get(link) else { return };
        let interest = state.interest();
        if state.watched != interest {
            state.watched = interest;
            self.poller.change(state.socket.as_raw_fd(), Source::Link(link), interest);
        }
    }

    fn on_ready(&mut self, ready: Ready) {
        match ready.source {
            Source::Waker => self.ended.push_back(Completion::Woken),
            Source::Listener => self.accept_some(),
            Source::Link(link) => {
                if ready.read {
                    self.readable.push_back(link);
                }
                if ready.write {
                    self.on_writable(link);
                }
                // Here it shows what is watched in vain.
                self.watch(link);
            }
        }
    }

    fn on_writable(&mut self, link: Link) {
        let Some(state) = self.links.get(link) else { return };
        if state.outgoing == Outgoing::Connecting {
            self.finish_connecting(link);
        } else if state.sending.is_some() {
            self.send_on(link);
        }
    }

    /// What is told of something that ended, now that its turn has come.
    fn tell(&mut self, completion: Completion) -> Option<Completion> {
        match completion {
            Completion::Sent { link, .. } => {
                if let Some(state) = self.links.get(link) {
                    state.outgoing = Outgoing::Nothing;
                }
            }
            // It was accepted in this turn, before the loop wanted no more.
            Completion::Accepted { link, .. } if self.listener.is_none() => {
                self.links.discard(link);
                return None;
            }
            // After a close only the batch comes back.
            Completion::SentPart { link, .. } if self.links.get(link).is_none() => return None,
            Completion::Closed { link } => self.links.vacate(link),
            _ => {}
        }
        Some(completion)
    }

    // Accepting

    /// Watches the listener while there is room for a connection and the system has not just refused one.
    fn watch_listener(&mut self) {
        let has_room = self.links.has_room();
        let Some(accepting) = &mut self.listener else { return };
        accepting.rests_until = accepting.rests_until.filter(|until| self.now < *until);
        let interest = Interest::new(has_room && accepting.rests_until.is_none(), false);
        let fd = accepting.listener.as_raw_fd();
        let added = match accepting.watched {
            Some(watched) if watched == interest => return,
            None if interest == Interest::Nothing => return,
            None => poller::set_nonblocking(&accepting.listener)
                .and_then(|()| self.poller.add(fd, Source::Listener, interest)),
            Some(_) => {
                self.poller.change(fd, Source::Listener, interest);
                Ok(())
            }
        };
        match added {
            Ok(()) => accepting.watched = Some(interest),
            Err(error) => self.accept_failed(error),
        }
    }

    /// Accepts what there is room for. At once, and not when the loop asks: the time that a connection has for its first
    /// words begins with the turn's time.
    fn accept_some(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let accepting = self.listener.as_ref().filter(|accepting| accepting.rests_until.is_none());
            let Some(accepting) = accepting.filter(|_| self.links.has_room()) else { return };
            let accepted = poller::accept(&accepting.listener);
            // A loop that accepts wants to receive next; if it does not, the first event in vain shows that.
            let opened = accepted.and_then(|(socket, peer)| {
                let link = self.open(socket, Outgoing::Nothing, Interest::Read)?;
                Ok(Completion::Accepted { link, peer })
            });
            match opened {
                Ok(accepted) => self.ended.push_back(accepted),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The connection was gone before we took it (accept(2)): the next one may be sound.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EPROTO | libc::EINTR)) => {
                }
                Err(error) => return self.accept_failed(error),
            }
        }
    }

    /// EMFILE, ENFILE, ENOBUFS, ENOMEM, or something that will not pass by itself: no busy loop.
    fn accept_failed(&mut self, error: io::Error) {
        let until = self.clock() + ACCEPT_REST;
        if let Some(accepting) = &mut self.listener {
            accepting.rests_until = Some(until);
        }
        self.ended.push_back(Completion::AcceptFailed { error });
    }

    /// What is left of the rest after a refused accept.
    fn accept_timeout(&self) -> Option<Duration> {
        let until = self.listener.as_ref()?.rests_until?;
        Some(until - self.now)
    }

    // Receiving

    /// Receives from what is readable, one link after another.
    fn next_received(&mut self) -> Option<Completion> {
        while let Some(link) = self.readable.front().copied() {
            if self.bytes_left > 0 {
                let completion = self.receive(link);
                if completion.is_some() {
                    return completion;
                }
            }
            self.readable.pop_front();
            self.bytes_left = self.turn_bytes;
        }
        None
    }

    fn receive(&mut self, link: Link) -> Option<Completion> {
        let state = self.links.get(link).filter(|state| state.receive_wanted)?;
        if let Some(room) = self.rooms.get_mut(&link) {
            let most = room.len();
            return match room.receive(&state.socket) {
                Ok(count @ 1..) => {
                    self.bytes_left = if count < most { 0 } else { self.bytes_left.saturating_sub(count) };
                    self.rooms.remove(&link).map(|room| Completion::Filled { link, room, count })
                }
                Ok(0) => self.receive_ended(link, None),
                Err(error) => self.receive_ended(link, Some(error)),
            };
        }
        let Some(id) = self.buffers.lend() else {
            if !std::mem::replace(&mut state.starved, true) {
                self.starved.push_back(link);
            }
            return None;
        };
        let buffer = self.buffers.buffer(id);
        let most = buffer.capacity();
        let error = match block::receive(&state.socket, buffer) {
            Ok(len @ 1..) => {
                // Less than there is room for was all there is.
                self.bytes_left = if len < most { 0 } else { self.bytes_left.saturating_sub(len) };
                return Some(Completion::Received {
                    link,
                    buffer: Buffer { bank: 0, pool: Pool::Bulk, id, len: len as u32 },
                });
            }
            Ok(0) => None,
            Err(error) => Some(error),
        };
        self.buffers.put(id);
        self.receive_ended(link, error)
    }

    /// A receive brought nothing: for the moment, or for good.
    fn receive_ended(&mut self, link: Link, error: Option<io::Error>) -> Option<Completion> {
        if error.as_ref().is_some_and(is_momentary) {
            return None;
        }
        let state = self.links.get(link)?;
        state.receive_wanted = false;
        self.rooms.remove(&link);
        Some(Completion::ReceiveEnded { link, error })
    }

    /// Lets as many starved links receive as there are buffers again: more would only starve once more.
    fn feed_starved(&mut self) {
        for _ in 0..self.buffers.available() {
            let Some(link) = self.starved.pop_front() else { return };
            if let Some(state) = self.links.get(link) {
                state.starved = false;
                self.watch(link);
            }
        }
    }

    // Sending

    /// Sends the next part of the batch in flight; whatever is left then follows when there is room for it.
    fn send_on(&mut self, link: Link) {
        let Some(state) = self.links.get(link) else { return };
        let batch = state.sending.as_mut().expect("a link that sends has a batch");
        let sent = send_part(&state.socket, batch);
        let remaining = batch.len();
        let ended = match sent {
            Ok(()) if remaining > 0 => batch.take_progress().then_some(Completion::SentPart { link, remaining }),
            Ok(()) => state.sending.take().map(|batch| Completion::Sent { link, batch, error: None }),
            Err(error) => state.sending.take().map(|batch| Completion::Sent { link, batch, error: Some(error) }),
        };
        if let Some(ended) = ended {
            self.ended.push_back(ended);
        }
        self.watch(link);
    }

    // Connecting

    fn begin_connecting(&mut self, address: SocketAddr, source: Option<IpAddr>) -> io::Result<Link> {
        if !self.links.has_room() {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            poller::set_bind_address_only(&socket)?;
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        match socket.connect(&SockAddr::from(address)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            // Writable, either way, once it is known how that ended.
            _ => self.open(socket, Outgoing::Connecting, Interest::Write),
        }
    }

    fn finish_connecting(&mut self, link: Link) {
        let tag = self.connects.remove(&link).expect("a link that connects has a tag");
        let Some(state) = self.links.get(link) else { return };
        state.outgoing = Outgoing::Nothing;
        let completion = match state.socket.take_error() {
            Ok(None) => Completion::Connected { link, tag },
            Ok(Some(error)) | Err(error) => {
                self.links.discard(link);
                Completion::ConnectFailed { tag, error }
            }
        };
        self.ended.push_back(completion);
    }
}

/// Sends a part of a batch: all of it, as much as the loop is told of at once, or what the socket takes for now.
fn send_part(socket: &Socket, batch: &mut Batch) -> io::Result<()> {
    loop {
        let most = batch.at_once(batch.bytes_until_told());
        if most == 0 {
            return Ok(());
        }
        match send_once(socket, batch, most) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => batch.advance(count),
            Err(error) if is_momentary(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// One system call: at most `room` bytes and [`SEND_PARTS_MAX`] parts.
fn send_once(socket: &Socket, batch: &Batch, room: usize) -> io::Result<usize> {
    let mut parts = batch.remaining();
    match (parts.next(), parts.next()) {
        (Some(only), None) => socket.send_with_flags(&only[..only.len().min(room)], batch.flags()),
        _ => send_parts(socket, batch, room),
    }
}

/// The same for a batch of several parts.
fn send_parts(socket: &Socket, batch: &Batch, mut room: usize) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SEND_PARTS_MAX];
    let mut count = 0;
    for (slice, part) in slices.iter_mut().zip(batch.remaining()) {
        let part = &part[..part.len().min(room)];
        *slice = IoSlice::new(part);
        room -= part.len();
        count += 1;
        if room == 0 {
            break;
        }
    }
    socket.send_vectored_with_flags(&slices[..count], batch.flags())
}

/// Nothing is wrong: there was nothing to do, and epoll says when there is.
fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Driver for Epoll {
    fn listen(&mut self, listener: Listener) {
        self.listener = Some(Accepting { listener, watched: None, rests_until: None });
    }

    fn stop_listening(&mut self) {
        self.listener = None;
    }

    fn connect(&mut self, address: SocketAddr, source: Option<IpAddr>, tag: u64) {
        match self.begin_connecting(address, source) {
            Ok(link) => drop(self.connects.insert(link, tag)),
            Err(error) => self.ended.push_back(Completion::ConnectFailed { tag, error }),
        }
    }

    fn recv_start(&mut self, link: Link) {
        if let Some(state) = self.links.get(link) {
            state.receive_wanted = true;
            self.watch(link);
        }
    }

    fn takes_room(&mut self, link: Link) -> Option<usize> {
        let least = (self.buffers.bytes_each() / BLOCK_SHARES).max(1);
        self.links.get(link).filter(|state| state.receive_wanted && !self.rooms.contains_key(&link)).map(|_| least)
    }

    fn recv_into(&mut self, link: Link, room: Room) {
        assert!(self.takes_room(link).is_some(), "{link:?} takes no room now");
        self.rooms.insert(link, room);
    }

    fn drop_room(&mut self, link: Link) {
        self.rooms.remove(&link);
    }

    fn recv_stop(&mut self, link: Link) {
        if let Some(state) = self.links.get(link) {
            state.receive_wanted = false;
        }
    }

    fn send(&mut self, link: Link, batch: Box<Batch>) {
        let Some(state) = self.links.get(link) else { return };
        assert!(state.outgoing == Outgoing::Nothing, "{link:?} has a send in flight already");
        debug_assert!(!batch.is_empty());
        state.outgoing = Outgoing::Batch;
        state.sending = Some(batch);
        self.send_on(link);
    }

    fn shutdown(&mut self, link: Link) {
        let Some(state) = self.links.get(link) else { return };
        debug_assert!(state.outgoing == Outgoing::Nothing);
        // It fails only where the connection has ended already, which a receive tells.
        let _ = state.socket.shutdown(Shutdown::Write);
    }

    fn close(&mut self, link: Link) {
        // With its state the socket is dropped, which closes it and ends what epoll watches.
        let Some(state) = self.links.close(link) else { return };
        self.rooms.remove(&link);
        if let Some(accepting) = &mut self.listener {
            // A descriptor is free again: what was refused for want of one may succeed. Were the rest kept, each of
            // those who are gone when they are accepted at last would cost the next one a whole rest.
            accepting.rests_until = None;
        }
        if let Some(batch) = state.sending {
            let error = Some(io::Error::from_raw_os_error(libc::ECANCELED));
            self.ended.push_back(Completion::Sent { link, batch, error });
        }
        self.ended.push_back(Completion::Closed { link });
    }

    fn reset(&mut self, link: Link) {
        if let Some(state) = self.links.get(link) {
            // If it failed, the peer would see an ordinary end.
            let _ = state.socket.set_linger(Some(Duration::ZERO));
            self.close(link);
        }
    }

    fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.buffers.buffer(buffer.id)
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.buffers.put(buffer.id);
    }

    fn take_bytes(&mut self, buffer: &Buffer) -> Option<BytesMut> {
        self.buffers.take(buffer.id)
    }

    fn recycle_rest(&mut self, buffer: Buffer, rest: BytesMut) {
        self.buffers.put_rest(buffer.id, rest);
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn submit(&mut self) -> io::Result<()> {
        // Everything was handed over as soon as it was asked for. Whoever has sent may send again what comes in this turn: were
        // it kept for the next, all that comes from all links would leave the cache before it is sent.
        self.ended_before = self.ended.len();
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Time> {
        debug_assert!(self.ended_before == 0 && self.readable.is_empty(), "the last turn left completions behind");
        self.feed_starved();
        self.watch_listener();
        let timeout = match (timeout, self.accept_timeout()) {
            _ if !self.ended.is_empty() => Some(Duration::ZERO),
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let count = self.poller.wait(timeout)?;
        for index in 0..count {
            self.on_ready(self.poller.ready(index));
        }
        self.now = self.clock();
        self.ended_before = self.ended.len();
        Ok(self.now)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        while let Some(left) = self.ended_before.checked_sub(1) {
            self.ended_before = left;
            let completion = self.ended.pop_front().and_then(|completion| self.tell(completion));
            if completion.is_some() {
                return completion;
            }
        }
        self.next_received()
    }
}
