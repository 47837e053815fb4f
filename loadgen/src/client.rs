//! The client that all scenarios share: many connections on one thread, each of which sends prepared messages and
//! checks what comes back.

use crate::target::Target;
use bytes::Bytes;
use hdrhistogram::Histogram;
use ringwave::driver::{BatchPool, Completion, Driver, Link, Uring, UringConfig};
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder::{self, Encoder};
use ringwave::protocol::handshake::ClientRequest;
use ringwave::protocol::mask::MaskingKey;
use ringwave::{Limits, Message};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Longest latency that is told apart: a minute.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// Connections that are being opened at one time.
const CONNECTS_IN_FLIGHT: u32 = 64;

/// What went wrong; any of it makes the run fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Answers that are not what was sent.
    pub(crate) corrupted: u64,
    /// Connections that the server ended or that broke the protocol.
    pub(crate) lost: u64,
}

impl Errors {
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

/// One connection: how it talks, and when what is in flight was sent.
struct Peer {
    link: Link,
    /// `None` for a bare TCP echo.
    websocket: Option<Connection<encoder::Client>>,
    /// Bytes of a message that have come back, for a bare echo.
    echoed: usize,
    sent_at: VecDeque<u64>,
    sending: bool,
    /// Messages that are to be sent once the send in flight has ended.
    owed: u32,
}

/// What the connections are to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) url: Target,
    pub(crate) connections: u32,
    /// Messages that each connection sends at once.
    pub(crate) in_flight: u32,
    /// Bytes of a message.
    pub(crate) size: u32,
    pub(crate) text: bool,
    /// Whether every answer is followed by another message.
    pub(crate) goes_on: bool,
    /// Destination addresses, counted up from the URL's: each gives another range of ports.
    pub(crate) destinations: u32,
    pub(crate) connect_timeout: Duration,
}

/// Many connections to one server.
pub(crate) struct Client {
    plan: Plan,
    driver: Uring,
    limits: Limits,
    /// By link index.
    peers: Vec<Option<Peer>>,
    /// `in_flight` frames in a row, masked with keys of their own.
    frames: Bytes,
    frame_len: usize,
    payload: Vec<u8>,
    connected: u32,
    now: u64,
    pub(crate) messages: u64,
    pub(crate) latency: Histogram<u64>,
    pub(crate) errors: Errors,
    batches: BatchPool,
}

impl Client {
    pub(crate) fn new(plan: Plan) -> io::Result<Self> {
        let config = UringConfig {
            links_max: plan.connections as usize + 1,
            buffer_count: 512,
            buffer_bytes: if plan.size <= 1024 { 4096 } else { 32_768 },
            table_slots: 0,
        };
        let payload = payload(&plan);
        let (frames, frame_len) = frames(&plan, &payload)?;
        Ok(Self {
            plan,
            driver: Uring::new(config)?,
            limits: Limits::default(),
            peers: Vec::new(),
            frames,
            frame_len,
            payload,
            connected: 0,
            now: 0,
            messages: 0,
            latency: Histogram::new_with_max(LATENCY_NANOS_MAX, 3).map_err(io::Error::other)?,
            errors: Errors::default(),
            batches: BatchPool::default(),
        })
    }

    /// Opens all connections, at most 64 at a time. Answers how long it took.
    pub(crate) fn connect(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        let mut asked = 0;
        while self.connected < self.plan.connections {
            while asked < self.plan.connections && asked < self.connected + CONNECTS_IN_FLIGHT {
                self.driver.connect(self.plan.url.destination(asked % self.plan.destinations)?, None, u64::from(asked));
                asked += 1;
            }
            self.turn()?;
            if self.errors.lost > 0 {
                return Err(io::Error::other(format!("{} lost a connection while opening them", self.plan.url)));
            }
            if start.elapsed() > self.plan.connect_timeout {
                let text = format!("{} of {asked} connections stand after {:?}", self.connected, start.elapsed());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
        Ok(start.elapsed())
    }

    /// Lets every connection send its messages.
    pub(crate) fn begin(&mut self) {
        let mut links = Vec::new();
        for peer in self.peers.iter_mut().flatten() {
            peer.owed = self.plan.in_flight;
            links.push(peer.link);
        }
        for link in links {
            self.send_owed(link);
        }
    }

    /// Goes on until `finished` or the time is up. Answers which.
    pub(crate) fn run(&mut self, duration: Duration, finished: impl Fn(&Self) -> bool) -> io::Result<bool> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.turn()?;
            if finished(self) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets what was counted so far.
    pub(crate) fn reset(&mut self) {
        self.messages = 0;
        self.latency.reset();
    }

    fn turn(&mut self) -> io::Result<()> {
        self.now = self.driver.wait(Some(Duration::from_millis(10)))?.as_nanos();
        while let Some(completion) = self.driver.next_completion() {
            match completion {
                Completion::Connected { link, .. } => self.on_connected(link)?,
                Completion::ConnectFailed { error, .. } => {
                    let text = format!("cannot connect to {}: {error}", self.plan.url);
                    return Err(io::Error::new(error.kind(), text));
                }
                Completion::Received { link, buffer } => {
                    let answers = self.read(link, &buffer);
                    self.driver.recycle(buffer);
                    self.on_answers(link, answers);
                }
                Completion::Sent { link, batch, .. } => {
                    self.batches.put(batch);
                    if let Some(peer) = self.peer(link) {
                        peer.sending = false;
                        self.send_owed(link);
                    }
                }
                Completion::ReceiveEnded { link, .. } => {
                    self.errors.lost += 1;
                    self.peers[link.index()] = None;
                    self.driver.close(link);
                }
                Completion::Closed { .. } => {}
                Completion::Woken
                | Completion::SentPart { .. }
                | Completion::Accepted { .. }
                | Completion::AcceptFailed { .. } => {}
            }
        }
        Ok(())
    }

    fn peer(&mut self, link: Link) -> Option<&mut Peer> {
        self.peers.get_mut(link.index())?.as_mut().filter(|peer| peer.link == link)
    }

    fn on_connected(&mut self, link: Link) -> io::Result<()> {
        let mut batch = self.batches.take();
        let websocket = match &self.plan.url.path {
            None => None,
            Some(path) => {
                let mut key = [0; 16];
                getrandom::fill(&mut key).map_err(io::Error::other)?;
                let request =
                    ClientRequest { host: &self.plan.url.authority, target: path, key, protocols: &[], headers: &[] };
                let connection = batch.append(|out| Connection::request(&request, out));
                Some(connection.map_err(|_| io::Error::other("the URL cannot be asked for"))?)
            }
        };
        let is_bare = websocket.is_none();
        if link.index() >= self.peers.len() {
            self.peers.resize_with(link.index() + 1, || None);
        }
        self.peers[link.index()] =
            Some(Peer { link, websocket, echoed: 0, sent_at: VecDeque::new(), sending: !is_bare, owed: 0 });
        self.driver.recv_start(link);
        if is_bare {
            self.batches.put(batch);
            self.connected += 1;
        } else {
            self.driver.send(link, batch);
        }
        Ok(())
    }

    /// Sends all that a peer owes in one batch.
    fn send_owed(&mut self, link: Link) {
        let (frames, frame_len, now) = (&self.frames, self.frame_len, self.now);
        let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) else { return };
        if peer.sending || peer.owed == 0 {
            return;
        }
        let count = std::mem::take(&mut peer.owed);
        peer.sending = true;
        peer.sent_at.extend(std::iter::repeat_n(now, count as usize));
        let mut batch = self.batches.take();
        batch.push_shared(&frames.slice(..frame_len * count as usize));
        self.driver.send(link, batch);
    }

    /// Checks what came. Answers how many messages of ours have come back whole.
    fn read(&mut self, link: Link, buffer: &ringwave::driver::Buffer) -> u32 {
        let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) else { return 0 };
        let bytes = self.driver.bytes(buffer);
        let Some(connection) = &mut peer.websocket else {
            // The payload comes round and round, wherever a read begins in it.
            let (rest, whole) = bytes.split_at(bytes.len().min(self.payload.len() - peer.echoed));
            let sound = self.payload[peer.echoed..].starts_with(rest)
                && whole.chunks(self.payload.len()).all(|chunk| self.payload.starts_with(chunk));
            if !sound {
                self.errors.corrupted += 1;
            }
            peer.echoed += bytes.len();
            let whole = peer.echoed / self.frame_len;
            peer.echoed %= self.frame_len;
            return whole as u32;
        };
        let mut answers = 0;
        let mut opened = false;
        let (mut events, _) = connection.receive(bytes, &self.limits);
        let failed = loop {
            match events.next_event() {
                Ok(None) => break false,
                Ok(Some(Event::Message(message))) => {
                    answers += 1;
                    if message.as_bytes() != self.payload || matches!(message, Message::Text(_)) != self.plan.text {
                        self.errors.corrupted += 1;
                    }
                }
                Ok(Some(Event::Upgraded(_))) => opened = true,
                // Pings of the server's are rare here and its pong timeout longer than a run between messages.
                Ok(Some(Event::Ping(_) | Event::Pong(_))) => {}
                Ok(Some(_)) | Err(_) => break true,
            }
        };
        if failed {
            // Nothing more is sent to it, whatever came before.
            self.errors.lost += 1;
            self.peers[link.index()] = None;
            self.driver.close(link);
        } else if opened {
            self.connected += 1;
        }
        answers
    }

    fn on_answers(&mut self, link: Link, count: u32) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(link.index()).and_then(Option::as_mut) else { return };
        let mut answered = 0;
        for _ in 0..count {
            match peer.sent_at.pop_front() {
                Some(sent_at) => {
                    answered += 1;
                    self.latency.saturating_record(now - sent_at);
                }
                // More answers than messages: a duplicate.
                None => self.errors.corrupted += 1,
            }
        }
        self.messages += u64::from(answered);
        if self.plan.goes_on {
            peer.owed += answered;
            self.send_owed(link);
        }
    }
}

/// A payload that is text as well, and not all the same byte.
fn payload(plan: &Plan) -> Vec<u8> {
    (0..plan.size).map(|index| b'a' + (index % 26) as u8).collect()
}

/// As many messages as are in flight, one after the other as they go onto the wire, and the length of one.
fn frames(plan: &Plan, payload: &[u8]) -> io::Result<(Bytes, usize)> {
    if plan.url.path.is_none() {
        return Ok((Bytes::from(payload.repeat(plan.in_flight as usize)), payload.len()));
    }
    let text = std::str::from_utf8(payload).map_err(io::Error::other)?;
    let message = if plan.text { Message::Text(text) } else { Message::Binary(payload) };
    let mut encoder = Encoder::<encoder::Client>::default();
    let mut frames = Vec::new();
    for _ in 0..plan.in_flight {
        // RFC 6455 §5.3: a fresh, unpredictable key a frame; here one for each place in the row.
        let mut key = [0; 4];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        encoder.encode_message(MaskingKey::new(key), message, &mut frames).map_err(io::Error::other)?;
    }
    let frame_len = frames.len() / plan.in_flight as usize;
    Ok((Bytes::from(frames), frame_len))
}
