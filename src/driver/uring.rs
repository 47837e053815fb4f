//! The io_uring driver (Linux 6.1 and later).
//!
//! Multishot accepts and receives, direct descriptors, provided buffers, one `io_uring_enter` a turn. A link's index
//! is `bank × slots + slot of the bank's table`, and the kernel hands the slots out.
//!
//! ```text
//!            recv_start                 close                 both ended
//!  accepted ───────────▶ receiving ────────────▶ cancelling ─────────────▶ close(2) ──▶ Closed, next generation
//!                 ▲  │ ENOBUFS: parked, armed again when buffers came back
//!                 └──┘
//! ```

mod accepting;
mod peers;
mod receiving;

use self::accepting::Accepting;
use self::peers::Peers;
use self::receiving::Source;
use super::bank::Bank;
use super::batch::Batch;
use super::block::BLOCK_SHARES;
use super::buf_ring::{Pool, PoolConfig};
use super::ring::{Kernel, Ring, RingCompletion, RingConfig, Submission};
use super::socket::Listener;
use super::system_ring::System;
use super::token::{Operation, Token};
use super::waker::Waker;
use super::{Buffer, Completion, Driver, Link, Room};
use crate::base::clock::Time;
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::base::limits::{ACCEPT_REST, LINKS_MAX, STARVED_RETRY, SUBMIT_RETRY};
use bytes::BytesMut;
use slab::Slab;
use socket2::SockAddr;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a shard's rings may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringConfig {
    /// Connections at most, those just accepted and those closing among them.
    pub links_max: usize,
    /// Receive buffers of the first ring: a power of two, at most 32 768. As many as connections speak at one time.
    pub buffer_count: u16,
    /// Bytes of a receive buffer.
    pub buffer_bytes: u32,
    /// Longer buffers of the first ring, for connections that fill those: a power of two, at most 32 768. A few: a ring hands
    /// them out in turns, and all have to stay in the cache. Their memory is taken when they are used first.
    pub bulk_buffer_count: u16,
    /// Bytes of a longer buffer. No connection is given one if it is no longer than the others.
    pub bulk_buffer_bytes: u32,
    /// Length of one ring's descriptor table; 0 takes as many as RLIMIT_NOFILE allows.
    pub table_slots: u32,
    /// Whether [`Completion::Accepted`] tells the peer's address: one command and one turn more for each accept.
    pub peer_addresses: bool,
}

impl Default for UringConfig {
    fn default() -> Self {
        Self {
            links_max: 1 << 20,
            buffer_count: 512,
            buffer_bytes: 4096,
            bulk_buffer_count: 8,
            bulk_buffer_bytes: 65_568,
            table_slots: 0,
            peer_addresses: true,
        }
    }
}

impl UringConfig {
    /// Length of each ring's descriptor table where RLIMIT_NOFILE is `descriptors`: connections that one ring serves.
    pub fn slots_with(&self, descriptors: u32) -> u32 {
        self.slots(descriptors)
    }

    /// Bytes of the queues and receive buffers of a shard's first ring, and of each further one.
    pub fn ring_bytes(&self) -> (u64, u64) {
        (self.first_bank(0).bytes(), self.further_bank(0).bytes())
    }

    fn slots(&self, table_slots_max: u32) -> u32 {
        let wanted = u32::try_from(self.links_max.clamp(1, LINKS_MAX)).unwrap_or(u32::MAX);
        let table = if self.table_slots == 0 { u32::MAX } else { self.table_slots };
        wanted.min(table).min(table_slots_max)
    }

    fn first_bank(&self, slots: u32) -> RingConfig {
        RingConfig {
            submissions: 4096,
            completions: 65_536,
            slots,
            standard: PoolConfig { count: self.buffer_count, bytes_each: self.buffer_bytes },
            bulk: PoolConfig { count: self.bulk_buffer_count, bytes_each: self.bulk_buffer_bytes },
        }
    }

    /// Further banks hold connections that are mostly silent: smaller queues, an eighth of the buffers.
    fn further_bank(&self, slots: u32) -> RingConfig {
        let first = self.first_bank(slots);
        let eighth = |pool: PoolConfig| PoolConfig { count: (pool.count / 8).max(1), ..pool };
        RingConfig {
            submissions: 1024,
            completions: 32_768,
            standard: eighth(first.standard),
            bulk: eighth(first.bulk),
            ..first
        }
    }
}

/// The driver on io_uring.
#[expect(private_bounds, reason = "sealed: kernels are this room's own")]
pub struct Uring<K: Kernel = System> {
    kernel: K,
    config: UringConfig,
    /// Slots of each bank's table, asked for once.
    slots: u32,
    banks: Vec<Bank<K::Ring>>,
    banks_max: usize,
    links: Vec<LinkState>,
    listener: Option<Accepting>,
    /// Listeners there have been.
    listeners: u32,
    peers: Peers,
    connects: Slab<Connecting>,
    /// Memory of the loop's own that links receive into next. Stands behind the banks: a ring is dropped before what it writes to.
    rooms: HashMap<Link, Room>,
    /// Links whose receive was for one time and has ended, and whether there may be nothing to read. They are armed again when
    /// the loop has had its say.
    unarmed: Vec<(Link, bool)>,
    completions: VecDeque<(u16, RingCompletion)>,
    /// Why there is no further bank.
    refusal: Option<Refusal>,
    /// Refusals that no completion of the kernel tells of.
    refused: VecDeque<Completion>,
    /// How many of these are told in this turn. What a verb is refused waits for the next: a loop that always tries
    /// again comes to the end of its turn.
    refused_before: usize,
    waker: Waker,
    now: Time,
}

/// Why no bank has room.
enum NoRoom {
    /// There are as many links as are allowed.
    Full,
    /// The system refused a further bank, now or a moment ago.
    Refused { just_now: bool },
}

/// A refusal to make a further bank. It stands for a while: a ring that cannot be had is not cheap to try.
struct Refusal {
    error: io::Error,
    until: Time,
}

/// A connection that is being opened.
struct Connecting {
    tag: u64,
    address: Box<SockAddr>,
    source: Option<Box<SockAddr>>,
    link: Option<Link>,
}

/// What the driver knows of a link. Slots without a tenant keep their generation.
#[derive(Default)]
struct LinkState {
    /// The batch in flight: the kernel reads it until its completion has come.
    sending: Option<Box<Batch>>,
    generation: u32,
    flags: Flags,
    /// Reads in a row that speak for another pool than the one they were served from.
    misfits: u8,
}

const _: () = assert!(size_of::<LinkState>() == 16);

/// Bits of a link's state.
#[derive(Clone, Copy, Default)]
struct Flags(u16);

impl Flags {
    const OCCUPIED: u16 = 1 << 0;
    const RECEIVE_WANTED: u16 = 1 << 1;
    const RECEIVE_ARMED: u16 = 1 << 2;
    const RECEIVE_CANCELLED: u16 = 1 << 3;
    const STARVED: u16 = 1 << 4;
    const SHUTTING_DOWN: u16 = 1 << 5;
    const CLOSING: u16 = 1 << 6;
    const CLOSE_SUBMITTED: u16 = 1 << 7;
    /// Never announced to the loop: a connection that did not come about.
    const SILENT: u16 = 1 << 8;
    /// A send has ended short. With MSG_WAITALL that is an error that the kernel told of by the count alone: the next
    /// operation finds an end of stream, or EPIPE.
    const BROKEN: u16 = 1 << 9;
    /// Receives are to be served from the pool of longer buffers …
    const BULK: u16 = 1 << 10;
    /// … and the one that is armed is.
    const BULK_ARMED: u16 = 1 << 11;
    /// The stream has ended beside a send that ended short. Whether that is the peer's end or a break is told by the send that
    /// goes on.
    const END_UNTOLD: u16 = 1 << 12;
    /// There is a room to receive into next …
    const ROOM: u16 = 1 << 13;
    /// … and the receive that is armed does.
    const ROOM_ARMED: u16 = 1 << 14;
    /// The loop does not want that room any more: it goes as soon as the kernel has let go of it.
    const ROOM_UNWANTED: u16 = 1 << 15;

    const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    fn set(&mut self, bits: u16) {
        self.0 |= bits;
    }

    fn clear(&mut self, bits: u16) {
        self.0 &= !bits;
    }
}

impl Uring<System> {
    /// Sets up the first ring. To be called on the thread that will use it (SINGLE_ISSUER).
    ///
    /// # Errors
    /// io_uring is older than 6.1, forbidden here (seccomp, `kernel.io_uring_disabled`), or out of memory.
    pub fn new(config: UringConfig) -> io::Result<Self> {
        Self::on(System::new(), config)
    }
}

#[expect(private_bounds, reason = "sealed: kernels are this room's own")]
impl<K: Kernel> Uring<K> {
    /// Sets up the first ring of this kernel.
    pub(super) fn on(kernel: K, mut config: UringConfig) -> io::Result<Self> {
        config.links_max = config.links_max.clamp(1, LINKS_MAX);
        let slots = config.slots(kernel.table_slots_max());
        let mut first = Bank::new(&kernel, &config.first_bank(slots), false)?;
        let waker = kernel.waker()?;
        first.push(&Submission::Poll { bell: &waker }, Token::number(Operation::Wake, 0));
        let banks_max = config.links_max.div_ceil(slots as usize);
        Ok(Self {
            kernel,
            config,
            slots,
            banks: vec![first],
            banks_max,
            links: Vec::new(),
            listener: None,
            listeners: 0,
            peers: Peers::new(config.peer_addresses),
            connects: Slab::new(),
            rooms: HashMap::new(),
            unarmed: Vec::new(),
            completions: VecDeque::new(),
            refusal: None,
            refused: VecDeque::new(),
            refused_before: 0,
            waker,
            now: Time::default(),
        })
    }

    fn bank_of(&self, link: Link) -> usize {
        link.index() / self.slots as usize
    }

    fn slot_of(&self, link: Link) -> u32 {
        (link.index() % self.slots as usize) as u32
    }

    /// The state of a link that is still this tenant's.
    fn state(&mut self, link: Link) -> Option<&mut LinkState> {
        self.links
            .get_mut(link.index())
            .filter(|state| state.flags.has(Flags::OCCUPIED))
            .filter(|state| state.generation == link.generation() || planted(Fault::GenerationIgnored))
    }

    /// The kernel put a socket into a slot: a new tenant.
    fn occupy(&mut self, bank: u16, slot: u32) -> Link {
        let index = usize::from(bank) * self.slots as usize + slot as usize;
        if index >= self.links.len() {
            self.links.resize_with(index + 1, LinkState::default);
        }
        self.banks[usize::from(bank)].occupy_slot();
        let state = &mut self.links[index];
        assert!(!state.flags.has(Flags::OCCUPIED), "slot {index} is handed out while it has a tenant");
        (state.flags, state.misfits) = (Flags(Flags::OCCUPIED), 0);
        Key::new(index as u32, state.generation)
    }

    /// The first bank with a free slot.
    fn bank_with_room(&self) -> Option<u16> {
        self.banks.iter().position(|bank| bank.free_slots() > 0).map(|bank| bank as u16)
    }

    /// One more bank, if it is allowed and to be had.
    fn further_bank(&mut self) -> Result<u16, NoRoom> {
        if self.banks.len() >= self.banks_max {
            return Err(NoRoom::Full);
        }
        if self.refusal.as_ref().is_some_and(|refusal| self.now < refusal.until) {
            return Err(NoRoom::Refused { just_now: false });
        }
        let made = self.make_bank();
        made.map_err(|error| {
            self.refusal = Some(Refusal { error, until: self.now + ACCEPT_REST });
            NoRoom::Refused { just_now: true }
        })
    }

    fn make_bank(&mut self) -> io::Result<u16> {
        // The last one is only as long as is left.
        let left = self.config.links_max - self.banks.len() * self.slots as usize;
        let slots = self.slots.min(u32::try_from(left).unwrap_or(u32::MAX));
        let bank = Bank::new(&self.kernel, &self.config.further_bank(slots), true)?;
        let number = self.banks.len() as u16;
        self.banks.push(bank);
        self.poll_bank(usize::from(number));
        Ok(number)
    }

    /// Has the first bank, which is waited for, report when a further one has something to say.
    fn poll_bank(&mut self, number: usize) {
        let bell = self.banks[number].ring.signal().expect("a further bank has a signal").clone();
        self.banks[0].push(&Submission::Poll { bell: &bell }, Token::number(Operation::BankReady, number as u32));
    }

    /// What is told of a further bank that was refused. [`io::Error`] knows no copy of itself.
    fn refusal_error(&self) -> io::Error {
        match &self.refusal {
            Some(Refusal { error, .. }) => io::Error::new(error.kind(), error.to_string()),
            None => io::Error::from_raw_os_error(libc::ENFILE),
        }
    }

    // Sending and closing

    fn submit_send(&mut self, link: Link) {
        let (bank, slot) = (self.bank_of(link), self.slot_of(link));
        // Not through `state`: the batch stays borrowed beside the bank.
        let batch = self.links[link.index()].sending.as_ref().expect("a send has a batch");
        self.banks[bank].push(&Submission::Send { slot, batch }, Token::new(Operation::Send, link));
    }

    fn sent(&mut self, bank: u16, link: Link, entry: &RingCompletion) -> Option<Completion> {
        let state = self.state(link)?;
        let closing = state.flags.has(Flags::CLOSING);
        let batch = state.sending.as_mut().expect("a send that completes is in flight");
        let error = match entry.answer() {
            Ok(count) => {
                let count = match count as usize {
                    _ if planted(Fault::ShortSendTakenForWhole) => batch.submission_len(),
                    count if planted(Fault::ShortSendRepeated) && count < batch.submission_len() => count.div_ceil(2),
                    count => count,
                };
                let is_short = count < batch.submission_len();
                batch.advance(count);
                let remaining = batch.len();
                let goes_on = remaining > 0 && !closing && count > 0;
                let is_told = goes_on && batch.take_progress();
                if is_short {
                    state.flags.set(Flags::BROKEN);
                } else {
                    state.flags.clear(Flags::BROKEN);
                    self.tell_end(bank, link);
                }
                if goes_on {
                    self.submit_send(link);
                    return is_told.then_some(Completion::SentPart { link, remaining });
                }
                (remaining > 0).then(|| io::Error::from(io::ErrorKind::WriteZero))
            }
            Err(libc::EPIPE) if state.flags.has(Flags::BROKEN) => Some(io::Error::from_raw_os_error(libc::ECONNRESET)),
            Err(errno) => Some(io::Error::from_raw_os_error(errno)),
        };
        let batch = self.state(link)?.sending.take().expect("checked above");
        if closing {
            self.close_if_quiet(link);
        }
        Some(Completion::Sent { link, batch, error })
    }

    /// Closes a link that has nothing in flight any more.
    fn close_if_quiet(&mut self, link: Link) {
        let (bank, slot) = (self.bank_of(link), self.slot_of(link));
        let Some(state) = self.state(link) else { return };
        let sends = state.sending.is_some() && !planted(Fault::ClosedUnderSend);
        let busy = state.flags.has(Flags::RECEIVE_ARMED | Flags::SHUTTING_DOWN) || sends;
        if busy || state.flags.has(Flags::CLOSE_SUBMITTED) {
            return;
        }
        state.flags.set(Flags::CLOSE_SUBMITTED);
        self.banks[bank].push(&Submission::Close { slot }, Token::new(Operation::Close, link));
    }

    fn closed(&mut self, bank: u16, link: Link) -> Option<Completion> {
        let state = self.state(link)?;
        debug_assert!(state.sending.is_none() || planted(Fault::ClosedUnderSend));
        let silent = state.flags.has(Flags::SILENT);
        state.generation = link.next_tenant().generation();
        state.flags = Flags::default();
        if !planted(Fault::SlotKept) {
            self.banks[usize::from(bank)].vacate_slot();
        }
        self.end_accept_rest();
        (!silent).then_some(Completion::Closed { link })
    }

    fn cancel_send(&mut self, link: Link) {
        let (bank, target) = (self.bank_of(link), Token::new(Operation::Send, link));
        self.banks[bank].push(&Submission::Cancel { target }, Token::new(Operation::CancelSend, link));
    }

    /// An operation between two tries of the kernel's, on its list of work to be resumed, is not found and goes on; so it
    /// is for many tries when the peer of a send has ended its side. It is asked once more in the next turn.
    fn cancel_failed(&mut self, token: Token, result: i32) {
        let link = token.key;
        let Some(state) = self.state(link) else { return };
        if -result != libc::ENOENT || planted(Fault::CancelNotRepeated) {
            // EALREADY: it is about to end.
            return;
        }
        let receives_on = state.flags.has(Flags::RECEIVE_ARMED) && state.flags.has(Flags::RECEIVE_CANCELLED);
        let sends_on = state.sending.is_some() && state.flags.has(Flags::CLOSING);
        match token.operation {
            Operation::CancelReceive if receives_on => self.cancel_receive(link),
            Operation::CancelSend if sends_on => self.cancel_send(link),
            _ => {}
        }
    }

    // Connecting

    fn socket_made(&mut self, bank: u16, number: usize, entry: &RingCompletion) -> Option<Completion> {
        self.banks[usize::from(bank)].release_slot();
        let slot = match entry.answer() {
            Ok(slot) => slot,
            Err(errno) => return self.connect_failed(number, errno),
        };
        let link = self.occupy(bank, slot);
        let connecting = &mut self.connects[number];
        connecting.link = Some(link);
        let bank = &mut self.banks[usize::from(bank)];
        let option = Token::new(Operation::Option, link);
        bank.push(&Submission::SetNoDelay { slot }, option);
        if let Some(source) = &connecting.source {
            bank.push(&Submission::SetBindAddressOnly { slot }, option);
            bank.push(&Submission::Bind { slot, address: source }, Token::number(Operation::Bind, number as u32));
        }
        let connect = Submission::Connect { slot, address: &connecting.address };
        bank.push(&connect, Token::number(Operation::Connect, number as u32));
        None
    }

    fn connected(&mut self, number: usize, entry: &RingCompletion) -> Option<Completion> {
        if let Err(errno) = entry.answer() {
            return self.connect_failed(number, errno);
        }
        let Connecting { tag, link, .. } = self.connects.remove(number);
        Some(Completion::Connected { link: link.expect("it had a socket to connect"), tag })
    }

    fn connect_failed(&mut self, number: usize, errno: i32) -> Option<Completion> {
        let Connecting { tag, link, .. } = self.connects.remove(number);
        if let Some(link) = link
            && let Some(state) = self.state(link)
        {
            state.flags.set(Flags::SILENT);
            self.close(link);
        }
        Some(Completion::ConnectFailed { tag, error: io::Error::from_raw_os_error(errno) })
    }

    fn translate(&mut self, bank: u16, entry: &RingCompletion) -> Option<Completion> {
        let token = entry.token;
        let link = token.key;
        match token.operation {
            Operation::Receive => self.received(bank, Source::Pool(Pool::Standard), link, entry),
            Operation::ReceiveBulk => self.received(bank, Source::Pool(Pool::Bulk), link, entry),
            Operation::ReceiveInto => self.received(bank, Source::Room, link, entry),
            Operation::Send => self.sent(bank, link, entry),
            Operation::AcceptMany | Operation::AcceptOne => self.accepted(bank, token, entry),
            Operation::Peer => self.peer_answered(link.index(), entry),
            Operation::Close => self.closed(bank, link),
            Operation::Shutdown => {
                self.state(link)?.flags.clear(Flags::SHUTTING_DOWN);
                if self.state(link)?.flags.has(Flags::CLOSING) {
                    self.close_if_quiet(link);
                }
                None
            }
            Operation::Wake => {
                if !entry.more {
                    self.banks[0].push(&Submission::Poll { bell: &self.waker }, token);
                }
                Some(Completion::Woken)
            }
            Operation::BankReady => {
                if !entry.more {
                    self.poll_bank(link.index());
                }
                None
            }
            Operation::Socket => self.socket_made(bank, link.index(), entry),
            Operation::Bind => self.connect_failed(link.index(), -entry.result),
            Operation::Connect => self.connected(link.index(), entry),
            Operation::CancelReceive | Operation::CancelSend => {
                self.cancel_failed(token, entry.result);
                None
            }
            // Both are answered by what they act on: an option that fails costs latency only.
            Operation::CancelAccept | Operation::Option => None,
        }
    }
}

impl<K: Kernel> Driver for Uring<K> {
    fn listen(&mut self, listener: Listener) {
        self.end_accepting();
        self.listeners = self.listeners.wrapping_add(1);
        self.listener = Some(Accepting::new(listener, self.listeners));
    }

    fn stop_listening(&mut self) {
        self.end_accepting();
    }

    fn connect(&mut self, address: SocketAddr, source: Option<IpAddr>, tag: u64) {
        let bank = match self.bank_with_room().map_or_else(|| self.further_bank(), Ok) {
            Ok(bank) => bank,
            Err(no_room) => {
                let error = match no_room {
                    // What the kernel says of a table without a free slot.
                    NoRoom::Full => io::Error::from_raw_os_error(libc::ENFILE),
                    NoRoom::Refused { .. } => self.refusal_error(),
                };
                self.refused.push_back(Completion::ConnectFailed { tag, error });
                return;
            }
        };
        let address = Box::new(SockAddr::from(address));
        let source = source.map(|source| Box::new(SockAddr::from(SocketAddr::new(source, 0))));
        let entry = self.connects.vacant_entry();
        let token = Token::number(Operation::Socket, entry.key() as u32);
        let bank = &mut self.banks[usize::from(bank)];
        bank.reserve_slot();
        bank.push(&Submission::Socket { address: &address }, token);
        entry.insert(Connecting { tag, address, source, link: None });
    }

    fn recv_start(&mut self, link: Link) {
        if let Some(state) = self.state(link) {
            state.flags.set(Flags::RECEIVE_WANTED);
            self.arm_receive(link, false);
        }
    }

    fn takes_room(&mut self, link: Link) -> Option<usize> {
        let may_not = Flags::RECEIVE_ARMED | Flags::CLOSING | Flags::STARVED | Flags::END_UNTOLD | Flags::ROOM;
        let wants = |flags: Flags| flags.has(Flags::RECEIVE_WANTED) && flags.has(Flags::BULK) && !flags.has(may_not);
        let least = (self.config.bulk_buffer_bytes as usize / BLOCK_SHARES).max(1);
        self.state(link).filter(|state| wants(state.flags)).map(|_| least)
    }

    fn recv_into(&mut self, link: Link, room: Room) {
        // The kernel may be writing into the one before.
        assert!(self.takes_room(link).is_some(), "{link:?} takes no room now");
        if let Some(state) = self.state(link) {
            state.flags.set(Flags::ROOM);
            self.rooms.insert(link, room);
        }
    }

    fn drop_room(&mut self, link: Link) {
        let Some(state) = self.state(link) else { return };
        if state.flags.has(Flags::ROOM_ARMED) && state.flags.has(Flags::RECEIVE_ARMED) {
            state.flags.set(Flags::ROOM_UNWANTED);
            self.end_receive(link);
        } else {
            self.let_room_go(link);
        }
    }

    fn recv_stop(&mut self, link: Link) {
        self.stop_wanting(link);
        self.end_receive(link);
    }

    fn send(&mut self, link: Link, batch: Box<Batch>) {
        let Some(state) = self.state(link) else { return };
        assert!(state.sending.is_none(), "{link:?} has a send in flight already");
        debug_assert!(!batch.is_empty() && !state.flags.has(Flags::CLOSING));
        state.sending = Some(batch);
        self.submit_send(link);
    }

    fn shutdown(&mut self, link: Link) {
        let (bank, slot) = (self.bank_of(link), self.slot_of(link));
        let Some(state) = self.state(link) else { return };
        debug_assert!(state.sending.is_none());
        state.flags.set(Flags::SHUTTING_DOWN);
        self.banks[bank].push(&Submission::ShutdownWrite { slot }, Token::new(Operation::Shutdown, link));
    }

    fn close(&mut self, link: Link) {
        self.recv_stop(link);
        let Some(state) = self.state(link) else { return };
        if state.flags.has(Flags::CLOSING) {
            return;
        }
        state.flags.set(Flags::CLOSING);
        if state.sending.is_some() {
            self.cancel_send(link);
        }
        self.let_room_go(link);
        self.close_if_quiet(link);
    }

    fn reset(&mut self, link: Link) {
        let (bank, slot) = (self.bank_of(link), self.slot_of(link));
        if self.state(link).is_some_and(|state| !state.flags.has(Flags::CLOSE_SUBMITTED)) {
            self.banks[bank].push(&Submission::SetResetOnClose { slot }, Token::new(Operation::Option, link));
            self.close(link);
        }
    }

    fn bytes(&mut self, buffer: &Buffer) -> &mut [u8] {
        self.banks[usize::from(buffer.bank)].ring.pools().of(buffer.pool).bytes(buffer.id, buffer.len)
    }

    fn recycle(&mut self, buffer: Buffer) {
        let pool = if planted(Fault::BufferToOtherPool) { Pool::Standard } else { buffer.pool };
        self.banks[usize::from(buffer.bank)].ring.pools().of(pool).recycle(buffer.id);
    }

    fn take_bytes(&mut self, buffer: &Buffer) -> Option<BytesMut> {
        self.banks[usize::from(buffer.bank)].ring.pools().of(buffer.pool).take(buffer.id, buffer.len)
    }

    fn recycle_rest(&mut self, buffer: Buffer, rest: BytesMut) {
        self.banks[usize::from(buffer.bank)].ring.pools().of(buffer.pool).recycle_rest(buffer.id, rest);
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn submit(&mut self) -> io::Result<()> {
        // What has been given back may be what the receives that are submitted here need.
        self.banks.iter_mut().try_for_each(|bank| {
            bank.ring.pools().publish();
            bank.ring.submit_if_needed()
        })
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Time> {
        debug_assert!(self.completions.is_empty() && self.refused_before == 0, "the last turn left completions behind");
        for bank in &mut self.banks {
            bank.ring.pools().publish();
        }
        self.arm_unarmed();
        let starved_rest = self.arm_starved().then_some(STARVED_RETRY);
        let accept_rest = self.arm_accept();
        let mut timeout = match self.refused.is_empty() {
            true => [timeout, accept_rest, starved_rest].into_iter().flatten().min(),
            false => Some(Duration::ZERO),
        };
        let mut something_is_there = false;
        for bank in &mut self.banks[1..] {
            bank.ring.submit_if_needed()?;
            something_is_there |= bank.ring.has_completions();
            if bank.ring.has_submissions() && !planted(Fault::RefusalForgotten) {
                // The wait is for the first bank: of this one nothing would be heard.
                timeout = Some(timeout.map_or(SUBMIT_RETRY, |timeout| timeout.min(SUBMIT_RETRY)));
            }
        }
        self.banks[0].ring.submit_and_wait(usize::from(!something_is_there), timeout)?;
        self.now = self.kernel.now();
        // Whatever became ready meanwhile, on the first bank too if it was not waited for.
        for bank in &mut self.banks {
            bank.ring.submit_if_needed()?;
        }
        for (number, bank) in self.banks.iter_mut().enumerate() {
            bank.ring.reap(|entry| self.completions.push_back((number as u16, entry)));
        }
        self.refused_before = self.refused.len();
        Ok(self.now)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        if let Some(left) = self.refused_before.checked_sub(1) {
            self.refused_before = left;
            return self.refused.pop_front();
        }
        while let Some((bank, entry)) = self.completions.pop_front() {
            let completion = self.translate(bank, &entry);
            if completion.is_some() {
                return completion;
            }
        }
        None
    }
}
