//! The connections of one thread: opening, the handshake, frames in and out, pings answered, closing.
//!
//! What they are for is a scenario's business: it implements [`Talk`] and writes through [`Peer::write`]; what is
//! written within a turn leaves together at its end, one submission for each connection.
//!
//! ```text
//!  open ─▶ connecting ─▶ handshaking ─▶ open ─▶ closing (our close frame is out) ─▶ gone
//!                └────────────┴─ failed: on_failed        └─ whoever ends it: on_gone
//! ```

use crate::route::Routes;
use crate::target::Target;
use hdrhistogram::Histogram;
use rand::Rng;
use rand::rngs::SmallRng;
use ringwave::driver::{Batch, BatchPool, Buffer, Completion, Driver, Link};
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder::{self, Encoder};
use ringwave::protocol::error::Failure;
use ringwave::protocol::handshake::ClientRequest;
use ringwave::protocol::mask::MaskingKey;
use ringwave::{CloseCode, CloseFrame, Limits, Message};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// Pings are not answered while so many bytes wait to be sent.
const PONGS_BYTES_MAX: usize = 1 << 20;

/// What a scenario does with connections. `D` is what it keeps with each.
pub(crate) trait Talk<D> {
    /// The handshake is answered (a bare connection: it stands).
    fn on_open(&mut self, peer: &mut Peer<'_, D>);
    /// A whole message came.
    fn on_message(&mut self, peer: &mut Peer<'_, D>, message: Message<'_>);
    /// Bytes came on a bare connection.
    fn on_bytes(&mut self, peer: &mut Peer<'_, D>, bytes: &[u8]);
    /// An answer to our ping.
    fn on_pong(&mut self, peer: &mut Peer<'_, D>);
    /// All that was written has left.
    fn on_sent(&mut self, peer: &mut Peer<'_, D>);
    /// A connection did not come about.
    fn on_failed(&mut self, number: u32, failure: &ConnectFailure);
    /// A connection is gone.
    fn on_gone(&mut self, number: u32, data: D, gone: &Gone);
}

/// Why a connection did not come about.
#[derive(Debug)]
pub(crate) enum ConnectFailure {
    /// The system refused the connect, or the connection broke before the handshake was answered.
    System(io::Error),
    /// The handshake was answered by something else than a WebSocket.
    Handshake(Failure),
    /// The server closed instead of answering the handshake.
    Closed,
    /// No answer to the handshake in time.
    TimedOut,
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Handshake(failure) => failure.fmt(f),
            Self::Closed => f.write_str("the server closed the connection instead of answering the handshake"),
            Self::TimedOut => f.write_str("the server did not answer the handshake in time"),
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Gone {
    /// We wanted it to.
    Meant,
    /// The server sent a close frame that we had not asked for.
    CloseFrame(Option<(CloseCode, String)>),
    /// The server's end of stream or its reset, without a close frame.
    Ended(Option<io::Error>),
    /// The server broke the protocol.
    Protocol(Failure),
    /// The server did not answer our close frame in time.
    CloseUnanswered,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meant => f.write_str("closed by us"),
            Self::CloseFrame(None) => f.write_str("the server closed it and gave no code"),
            Self::CloseFrame(Some((code, reason))) if reason.is_empty() => {
                write!(f, "the server closed it with {code}")
            }
            Self::CloseFrame(Some((code, reason))) => {
                // Whatever it says, it does not steer the terminal.
                write!(f, "the server closed it with {code}: {}", reason.escape_debug())
            }
            Self::Ended(None) => f.write_str("the server ended it without a close frame"),
            Self::Ended(Some(error)) => write!(f, "it broke: {error}"),
            Self::CloseUnanswered => f.write_str("the server did not answer our close frame in time"),
            Self::Protocol(failure) => write!(f, "the server broke the protocol: {failure}"),
        }
    }
}

/// How we end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// By the closing handshake (RFC 6455 §7.1.2).
    Clean,
    /// By an end of stream without a close frame.
    Drop,
    /// By a TCP reset, as after a crash.
    Reset,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshaking,
    Open,
    /// Our close frame is written; the server's is awaited.
    Closing,
    /// Both are; the server's end of stream is awaited.
    Closed,
    /// The server closed first, the scenario knows, and our answer is on its way.
    Answering,
}

/// One connection: its protocol, `None` for bare TCP, beside all else, so that it can be written to while an event is
/// looked at. About 70 bytes and what `D` needs.
struct Slot<D> {
    websocket: Option<Connection<encoder::Client>>,
    side: Side<D>,
}

struct Side<D> {
    link: Link,
    number: u32,
    stage: Stage,
    sending: bool,
    /// Stands in `dirty`.
    listed: bool,
    leave: Option<Leave>,
    /// When its connect began.
    began: u64,
    gathered: Option<Box<Batch>>,
    data: D,
}

/// A connection as a scenario sees it.
pub(crate) struct Peer<'a, D> {
    side: &'a mut Side<D>,
    encoder: Option<&'a mut Encoder<encoder::Client>>,
    batches: &'a mut BatchPool,
    dirty: &'a mut Vec<Link>,
    /// The turn's time.
    pub(crate) now: u64,
}

impl<D> Peer<'_, D> {
    pub(crate) fn data(&mut self) -> &mut D {
        &mut self.side.data
    }

    pub(crate) fn number(&self) -> u32 {
        self.side.number
    }

    /// Whether what was written last is still on its way into the system: what is written now waits for it.
    pub(crate) fn is_sending(&self) -> bool {
        self.side.sending
    }

    /// Bytes written that wait for the turn's end, or for what is on its way.
    pub(crate) fn gathered_bytes(&self) -> usize {
        self.side.gathered.as_ref().map_or(0, |batch| batch.len())
    }

    /// Appends frames; they leave at the turn's end, or when what is on its way has left.
    pub(crate) fn write(&mut self, append: impl FnOnce(&mut D, &mut Batch)) {
        if self.side.stage != Stage::Open {
            return;
        }
        let batch = self.side.gathered.get_or_insert_with(|| self.batches.take());
        append(&mut self.side.data, batch);
        self.list();
    }

    /// Sends a text message of the caller's.
    pub(crate) fn write_text(&mut self, text: &str, key: MaskingKey) {
        self.write_control(|encoder, out| encoder.encode_message(key, Message::Text(text), out));
    }

    /// Sends a ping without a payload.
    pub(crate) fn write_ping(&mut self, key: MaskingKey) {
        self.write_control(|encoder, out| encoder.encode_ping(key, &[], out));
    }

    fn write_control<E>(&mut self, encode: impl FnOnce(&mut Encoder<encoder::Client>, &mut Vec<u8>) -> Result<(), E>) {
        let Some(encoder) = &mut self.encoder else { return };
        let batch = self.side.gathered.get_or_insert_with(|| self.batches.take());
        // Refused only behind our close frame, where it has no business any more.
        let _ = batch.append(|out| encode(encoder, out));
        self.list();
    }

    /// Ends it at the turn's end.
    pub(crate) fn leave(&mut self, how: Leave) {
        self.side.leave = Some(how);
        self.list();
    }

    fn list(&mut self) {
        if !self.side.listed {
            self.side.listed = true;
            self.dirty.push(self.side.link);
        }
    }
}

/// What every connection of a thread is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) endpoint: Endpoint,
    /// Connections from this number on go elsewhere.
    pub(crate) publishers: Option<(u32, Endpoint)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) protocols: Vec<String>,
    /// Longest message that the server may send.
    pub(crate) message_bytes_max: usize,
    /// Longest wait for the answer to a handshake.
    pub(crate) timeout: Duration,
    /// Whether the driver reads bytes as they are asked for (epoll), and not before the turn's time.
    pub(crate) reads_late: bool,
}

/// Whom to connect to, and by which addresses.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    pub(crate) routes: Routes,
}

impl Opening {
    fn endpoint_of(&self, number: u32) -> &Endpoint {
        match &self.publishers {
            Some((first, endpoint)) if number >= *first => endpoint,
            _ => &self.endpoint,
        }
    }
}

/// Many connections on one driver.
pub(crate) struct Connections<V, D> {
    driver: V,
    opening: Opening,
    limits: Limits,
    slots: Vec<Option<Slot<D>>>,
    roll: Roll,
    dirty: Vec<Link>,
    batches: BatchPool,
    random: SmallRng,
    /// What the program's clock shows when the driver's shows 0.
    clock_offset: u64,
    /// The program's clock, for a driver that reads bytes after the turn's time.
    late_clock: Option<Instant>,
    now: u64,
    connecting: u32,
}

/// Which connections are on their way, and which are open.
struct Roll {
    /// This thread, and how many there are: connection `n` belongs to thread `n % count`.
    thread: (usize, usize),
    /// The link of each open connection, by the thread's own number.
    links: Vec<Option<Link>>,
    open: u32,
    handshaking: u32,
    /// Handshakes and closing handshakes under way, oldest first, and some that are over.
    pending: VecDeque<(u64, Link)>,
    /// From the connect to the answered handshake.
    latency: Histogram<u64>,
}

impl Roll {
    const fn index_of(&self, number: u32) -> usize {
        number as usize / self.thread.1
    }

    fn enter<D>(&mut self, side: &mut Side<D>, now: u64) {
        side.stage = Stage::Open;
        let index = self.index_of(side.number);
        if index >= self.links.len() {
            self.links.resize(index + 1, None);
        }
        self.links[index] = Some(side.link);
        self.open += 1;
        self.handshaking = self.handshaking.saturating_sub(1);
        self.latency.saturating_record(now.saturating_sub(side.began));
    }

    fn leave(&mut self, number: u32) {
        self.open -= 1;
        let index = self.index_of(number);
        self.links[index] = None;
    }
}

impl<V: Driver, D: Default> Connections<V, D> {
    /// `thread` is this thread's index and the number of all.
    pub(crate) fn new(
        mut driver: V,
        opening: Opening,
        thread: (usize, usize),
        origin: Instant,
        random: SmallRng,
    ) -> io::Result<Self> {
        let (now, clock_offset) = set_clock(&mut driver, origin)?;
        let most = opening.message_bytes_max;
        let limits = Limits { message_bytes_max: most, frame_bytes_max: most, ..Limits::default() };
        Ok(Self {
            late_clock: opening.reads_late.then_some(origin),
            driver,
            opening,
            limits,
            slots: Vec::new(),
            roll: Roll {
                thread,
                links: Vec::new(),
                open: 0,
                handshaking: 0,
                pending: VecDeque::new(),
                latency: crate::measure::empty_histogram(),
            },
            dirty: Vec::new(),
            batches: BatchPool::default(),
            random,
            clock_offset,
            now: now + clock_offset,
            connecting: 0,
        })
    }

    /// The turn's time, nanoseconds since the program's start.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Connections that stand.
    pub(crate) const fn open_count(&self) -> u32 {
        self.roll.open
    }

    /// From the connect to the answered handshake, of all so far.
    pub(crate) const fn handshake_latency(&self) -> &Histogram<u64> {
        &self.roll.latency
    }

    /// Connections that are being opened.
    pub(crate) fn opening_count(&self) -> u32 {
        self.connecting + self.roll.handshaking
    }

    /// Opens connection `number`, which this thread has not open.
    pub(crate) fn open(&mut self, number: u32) {
        let (source, destination) = self.opening.endpoint_of(number).routes.of(number);
        // The number and, in microseconds, the time: 40 bits last for twelve days.
        let tag = (self.now / 1000) << 24 | u64::from(number);
        self.driver.connect(destination, source, tag);
        self.connecting += 1;
    }

    /// The open connection with this number of the thread's own.
    pub(crate) fn peer_at(&mut self, index: usize) -> Option<Peer<'_, D>> {
        let link = self.roll.links.get(index).copied().flatten()?;
        self.peer(link)
    }

    /// The open connection that comes after the thread's own number `index`, round and round; `index` if there is none.
    pub(crate) fn next_open(&self, index: usize) -> usize {
        let count = self.roll.links.len();
        let others = (1..=count).map(|step| (index + step) % count);
        others.into_iter().find(|other| self.roll.links[*other].is_some()).unwrap_or(index)
    }

    /// Connection numbers of this thread that have been open, counted from 0: some of them may be gone.
    pub(crate) fn indices(&self) -> usize {
        self.roll.links.len()
    }

    fn peer(&mut self, link: Link) -> Option<Peer<'_, D>> {
        let Slot { websocket, side } =
            self.slots.get_mut(link.index())?.as_mut().filter(|slot| slot.side.link == link)?;
        let encoder = websocket.as_mut().map(|connection| &mut connection.encoder);
        Some(Peer { side, encoder, batches: &mut self.batches, dirty: &mut self.dirty, now: self.now })
    }

    /// Reads from a connection, or stops reading.
    pub(crate) fn set_reading(&mut self, index: usize, reads: bool) {
        if let Some(link) = self.roll.links.get(index).copied().flatten() {
            if reads {
                self.driver.recv_start(link);
            } else {
                self.driver.recv_stop(link);
            }
        }
    }

    /// Waits at most `timeout`, then tells `talk` all that happened.
    pub(crate) fn turn(&mut self, timeout: Duration, talk: &mut impl Talk<D>) -> io::Result<()> {
        self.now = self.driver.wait(Some(timeout))?.as_nanos() + self.clock_offset;
        while let Some(completion) = self.driver.next_completion() {
            match completion {
                Completion::Connected { link, tag } => self.on_connected(link, tag, talk),
                Completion::ConnectFailed { tag, error } => {
                    self.connecting -= 1;
                    talk.on_failed(number_of(tag), &ConnectFailure::System(error));
                }
                Completion::Received { link, buffer } => {
                    if let Some(origin) = self.late_clock {
                        self.now = origin.elapsed().as_nanos() as u64;
                    }
                    self.on_received(link, buffer, talk);
                }
                Completion::Sent { link, batch, error } => {
                    self.batches.put(batch);
                    // With an error the receiving side ends too and says why.
                    self.on_sent(link, error.is_none(), talk);
                }
                Completion::ReceiveEnded { link, error } => self.on_receive_ended(link, error, talk),
                Completion::Closed { .. }
                | Completion::SentPart { .. }
                | Completion::Filled { .. }
                | Completion::Woken
                | Completion::Accepted { .. }
                | Completion::AcceptFailed { .. } => {}
            }
        }
        self.time_out(talk);
        Ok(())
    }

    /// Hands to the driver what was written in the turn, and ends what is to end.
    pub(crate) fn flush(&mut self, talk: &mut impl Talk<D>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for link in dirty.drain(..) {
            let Some(Peer { side, encoder, .. }) = self.peer(link) else { continue };
            side.listed = false;
            // The server may have been faster: then its close is answered first.
            match side.leave.take().filter(|_| side.stage != Stage::Answering) {
                Some(Leave::Clean) if encoder.is_some() && side.stage == Stage::Open => {
                    self.begin_close(link, Some(CloseFrame { code: CloseCode::NORMAL, reason: "" }));
                }
                Some(Leave::Reset) => {
                    self.forget(link, talk, &Gone::Meant);
                    self.driver.reset(link);
                    continue;
                }
                Some(_) => {
                    self.forget(link, talk, &Gone::Meant);
                    self.driver.close(link);
                    continue;
                }
                None => {}
            }
            self.send_gathered(link);
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn send_gathered(&mut self, link: Link) {
        let Some(Peer { side, .. }) = self.peer(link) else { return };
        if !side.sending
            && let Some(batch) = side.gathered.take_if(|batch| !batch.is_empty())
        {
            side.sending = true;
            self.driver.send(link, batch);
        }
    }

    fn begin_close(&mut self, link: Link, close: Option<CloseFrame<'_>>) {
        let key = MaskingKey::new(self.random.random());
        let Some(mut peer) = self.peer(link) else { return };
        peer.write_control(|encoder, out| encoder.encode_close(key, close, out));
        peer.side.stage = Stage::Closing;
        self.roll.pending.push_back((self.now, link));
    }

    /// Takes a connection out of all lists and tells `talk`. Its link is the caller's to close.
    fn forget(&mut self, link: Link, talk: &mut impl Talk<D>, gone: &Gone) {
        let taken = self.slots.get_mut(link.index()).and_then(|slot| slot.take_if(|slot| slot.side.link == link));
        let Some(Slot { side, .. }) = taken else { return };
        if let Some(batch) = side.gathered {
            self.batches.put(batch);
        }
        match side.stage {
            Stage::Handshaking => self.roll.handshaking -= 1,
            Stage::Answering => {}
            Stage::Open | Stage::Closing | Stage::Closed => {
                self.roll.leave(side.number);
                talk.on_gone(side.number, side.data, gone);
            }
        }
    }

    fn on_connected(&mut self, link: Link, tag: u64, talk: &mut impl Talk<D>) {
        self.connecting -= 1;
        let number = number_of(tag);
        let mut batch = self.batches.take();
        let target = &self.opening.endpoint_of(number).target;
        let websocket = target.path.as_ref().map(|path| {
            let request = ClientRequest {
                host: &target.authority,
                target: path,
                key: self.random.random(),
                protocols: &self.opening.protocols.iter().map(String::as_str).collect::<Vec<_>>(),
                headers: &self.opening.headers.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(),
            };
            batch.append(|out| Connection::request(&request, out)).expect("the flags were checked by a first request")
        });
        if link.index() >= self.slots.len() {
            self.slots.resize_with(link.index() + 1, || None);
        }
        let is_bare = websocket.is_none();
        let side = Side {
            link,
            number,
            stage: Stage::Handshaking,
            sending: !is_bare,
            listed: false,
            leave: None,
            began: (tag >> 24) * 1000,
            gathered: None,
            data: D::default(),
        };
        self.slots[link.index()] = Some(Slot { websocket, side });
        self.driver.recv_start(link);
        if !is_bare {
            self.roll.handshaking += 1;
            self.roll.pending.push_back((self.now, link));
            self.driver.send(link, batch);
            return;
        }
        self.batches.put(batch);
        if let Some(Slot { side, .. }) = &mut self.slots[link.index()] {
            self.roll.enter(side, self.now);
        }
        if let Some(mut peer) = self.peer(link) {
            talk.on_open(&mut peer);
        }
    }

    fn on_sent(&mut self, link: Link, whole: bool, talk: &mut impl Talk<D>) {
        let Some(mut peer) = self.peer(link) else { return };
        peer.side.sending = false;
        if !whole {
            peer.side.gathered = None;
            return;
        }
        if peer.side.gathered.is_some() {
            peer.list();
        }
        if peer.side.stage == Stage::Open {
            talk.on_sent(&mut peer);
        }
    }

    fn on_receive_ended(&mut self, link: Link, error: Option<io::Error>, talk: &mut impl Talk<D>) {
        let Some(peer) = self.peer(link) else { return };
        let (stage, number) = (peer.side.stage, peer.side.number);
        let gone = if stage == Stage::Closed { Gone::Meant } else { Gone::Ended(None) };
        match (stage, error) {
            (Stage::Handshaking, error) => {
                self.forget(link, talk, &gone);
                talk.on_failed(number, &error.map_or(ConnectFailure::Closed, ConnectFailure::System));
            }
            (Stage::Open, Some(error)) => self.forget(link, talk, &Gone::Ended(Some(error))),
            _ => self.forget(link, talk, &gone),
        }
        self.driver.close(link);
    }

    fn on_received(&mut self, link: Link, buffer: Buffer, talk: &mut impl Talk<D>) {
        let gone = self.read(link, &buffer, talk);
        self.driver.recycle(buffer);
        if let Some(gone) = gone {
            self.on_ended(link, gone, talk);
        }
    }

    /// Tells `talk` what the bytes bring. Answers what ended the stream, if something did.
    fn read(&mut self, link: Link, buffer: &Buffer, talk: &mut impl Talk<D>) -> Option<Gone> {
        let Self { driver, slots, roll, dirty, batches, random, limits, now, .. } = self;
        let Slot { websocket, side } = slots.get_mut(link.index())?.as_mut().filter(|slot| slot.side.link == link)?;
        let bytes = driver.bytes(buffer);
        let Some(connection) = websocket else {
            talk.on_bytes(&mut Peer { side, encoder: None, batches, dirty, now: *now }, bytes);
            return None;
        };
        let (mut events, encoder) = connection.receive(bytes, limits);
        let mut peer = Peer { side, encoder: Some(encoder), batches, dirty, now: *now };
        loop {
            match events.next_event() {
                Ok(None) => return None,
                Ok(Some(Event::Message(message) | Event::Assembled(message, _))) => talk.on_message(&mut peer, message),
                Ok(Some(Event::Upgraded(_))) => {
                    roll.enter(peer.side, *now);
                    talk.on_open(&mut peer);
                }
                // A server that pings and does not read is owed no endless row of pongs.
                Ok(Some(Event::Ping(_))) if peer.gathered_bytes() > PONGS_BYTES_MAX => {}
                Ok(Some(Event::Ping(payload))) => {
                    let key = MaskingKey::new(random.random());
                    peer.write_control(|encoder, out| encoder.encode_pong(key, payload, out));
                }
                Ok(Some(Event::Pong(_))) => talk.on_pong(&mut peer),
                Ok(Some(Event::Close(close))) => {
                    return Some(Gone::CloseFrame(close.map(|close| (close.code, close.reason.to_owned()))));
                }
                Ok(Some(Event::Chunk(_))) => unreachable!("messages are delivered whole"),
                Ok(Some(Event::Request(_) | Event::ContinueExpected)) => {
                    unreachable!("a client's connection reads no requests")
                }
                Err(failure) => return Some(Gone::Protocol(failure)),
            }
        }
    }

    /// What ended the stream of frames: an answer to our close, a close of the server's, a broken rule.
    fn on_ended(&mut self, link: Link, gone: Gone, talk: &mut impl Talk<D>) {
        let Some(peer) = self.peer(link) else { return };
        let (stage, number) = (peer.side.stage, peer.side.number);
        match (stage, gone) {
            (Stage::Handshaking, Gone::Protocol(failure)) => {
                self.forget(link, talk, &Gone::Meant);
                talk.on_failed(number, &ConnectFailure::Handshake(failure));
            }
            // RFC 6455 §7.1.1: the server closes TCP first; its end of stream comes next.
            (Stage::Closing, Gone::CloseFrame(_)) => {
                if let Some(Peer { side, .. }) = self.peer(link) {
                    side.stage = Stage::Closed;
                }
                return;
            }
            (Stage::Open, Gone::CloseFrame(close)) => return self.answer_close(link, close, talk),
            (_, gone) => self.forget(link, talk, &gone),
        }
        self.driver.close(link);
    }

    /// RFC 6455 §5.5.1: a close frame is answered by one.
    fn answer_close(&mut self, link: Link, close: Option<(CloseCode, String)>, talk: &mut impl Talk<D>) {
        let answer = close.as_ref().map(|(code, _)| CloseFrame { code: *code, reason: "" });
        self.begin_close(link, answer);
        let Some(Peer { side, .. }) = self.peer(link) else { return };
        side.stage = Stage::Answering;
        let (number, data) = (side.number, std::mem::take(&mut side.data));
        self.roll.leave(number);
        talk.on_gone(number, data, &Gone::CloseFrame(close));
    }

    /// Ends what the server has not answered in time: handshakes, and ours of closing.
    fn time_out(&mut self, talk: &mut impl Talk<D>) {
        let timeout = u64::try_from(self.opening.timeout.as_nanos()).unwrap_or(u64::MAX);
        while let Some(&(since, link)) = self.roll.pending.front() {
            let stage = self.peer(link).map(|peer| (peer.side.stage, peer.side.number));
            if !matches!(stage, None | Some((Stage::Open, _))) && self.now.saturating_sub(since) <= timeout {
                return;
            }
            self.roll.pending.pop_front();
            match stage {
                None | Some((Stage::Open, _)) => continue,
                Some((Stage::Handshaking, number)) => {
                    self.forget(link, talk, &Gone::Meant);
                    talk.on_failed(number, &ConnectFailure::TimedOut);
                }
                Some((Stage::Closing | Stage::Answering, _)) => self.forget(link, talk, &Gone::CloseUnanswered),
                Some((Stage::Closed, _)) => self.forget(link, talk, &Gone::Meant),
            }
            self.driver.close(link);
        }
    }
}

/// What the driver's clock shows, and what is to be added to it. Of several looks at both clocks the closest counts:
/// whatever comes between the two looks makes the difference larger.
fn set_clock(driver: &mut impl Driver, origin: Instant) -> io::Result<(u64, u64)> {
    let mut best = (0, u64::MAX);
    for _ in 0..5 {
        let now = driver.wait(Some(Duration::ZERO))?.as_nanos();
        // Nothing was started yet: the main thread may have called, which the first turn sees anyway.
        while driver.next_completion().is_some() {}
        let offset = (origin.elapsed().as_nanos() as u64).saturating_sub(now);
        best = (now, offset.min(best.1));
    }
    Ok(best)
}

/// The number in a connect's tag.
const fn number_of(tag: u64) -> u32 {
    (tag & 0xff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwave::driver::{Epoll, EpollConfig, Uring, UringConfig};

    /// A driver like this panics in debug builds when a turn leaves completions behind.
    #[test]
    fn the_clock_is_set_even_if_the_thread_was_called_before() {
        fn set(origin: Instant, mut driver: impl Driver) {
            driver.waker().wake();
            let (now, offset) = set_clock(&mut driver, origin).expect("the driver waits");
            assert!(now + offset <= origin.elapsed().as_nanos() as u64);
        }
        let origin = Instant::now();
        set(origin, Uring::new(UringConfig { links_max: 8, ..UringConfig::default() }).expect("io_uring"));
        set(
            origin,
            Epoll::new(EpollConfig { links_max: 8, buffer_bytes: 4096, ..EpollConfig::default() }).expect("epoll"),
        );
    }
}
