//! The peers of a simulation: honest ones, each with what it must see, and hostile ones.

use super::wire::{self, BINARY, Item, Reader, TEXT};
use fastrand::Rng;
use ringwave::driver::sim::{Conn, ReadOutcome};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a peer is for.
pub(crate) enum Role {
    /// Sends messages and wants them back.
    Echo(Echo),
    /// Listens to topics.
    Subscriber(Subscriber),
    /// Publishes to topics.
    Publisher(Publisher),
    /// Asks for pages on one connection.
    Reader { requests: u32, answers: u32, may_be_refused: bool },
    /// Does what it should not: the rest of its deeds.
    Hostile(VecDeque<Deed>),
}

pub(crate) struct Echo {
    /// To be sent: opcode and payload.
    pub(crate) messages: VecDeque<(u8, Vec<u8>)>,
    /// Sent and not back yet.
    pub(crate) awaited: VecDeque<(u8, Vec<u8>)>,
    pub(crate) awaited_bytes: usize,
    /// Bytes that may be on their way at one time.
    pub(crate) awaited_bytes_max: usize,
    /// A shard without memory drops what it has queued, and then ends the session.
    pub(crate) may_lose: bool,
    pub(crate) pings: u32,
    pub(crate) pong: u32,
}

pub(crate) struct Subscriber {
    pub(crate) topics: Vec<String>,
    /// Subscriptions confirmed.
    pub(crate) confirmed: usize,
    /// The last number from each publisher on each topic.
    pub(crate) last: BTreeMap<(usize, String), u64>,
    pub(crate) received: u64,
    /// When each message came.
    pub(crate) arrivals: Vec<(String, u64)>,
    /// Each ping of its own is answered with a notice in fragments, which no policy drops …
    pub(crate) pings: u32,
    /// … unless the queue is full.
    pub(crate) notices: u32,
}

pub(crate) struct Publisher {
    pub(crate) name: usize,
    pub(crate) topics: Vec<String>,
    pub(crate) left: u64,
    /// The last number on each topic.
    pub(crate) numbers: BTreeMap<String, u64>,
    /// Its last ping has been answered: all it sent was handled.
    pub(crate) is_heard: bool,
    pub(crate) last_ping_sent: bool,
}

/// What hostile peers do, one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Upgrade,
    Write(Vec<u8>),
    /// One byte at a time.
    Trickle(Vec<u8>),
    Wait(Duration),
    /// Reads nothing from now on.
    StopReading,
    Finish,
    Abort,
    /// Does nothing more, and does not go.
    Vanish,
}

/// What all honest peers do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Subscribers come; nobody publishes yet.
    Gathering,
    Working,
    /// All is said: subscribers go.
    Leaving,
}

/// How an honest peer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    Close(u16),
    Finish,
    Abort,
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not connected yet.
    Before,
    /// Its request is on its way.
    Asking,
    Open,
    /// It has said its goodbye.
    Leaving,
    /// The connection is over.
    Over,
}

/// How a connection ended, as the peer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    End,
    Reset,
    /// Nobody listened.
    Refused,
}

pub(crate) struct Peer {
    pub(crate) number: usize,
    pub(crate) role: Role,
    pub(crate) leave: Leave,
    pub(crate) stage: Stage,
    pub(crate) seen: Seen,
    /// The code of the close frame that came: `Some(None)` for one without.
    pub(crate) close_seen: Option<Option<u16>>,
    pub(crate) status: Option<u16>,
    pub(crate) conn: Option<Conn>,
    /// When it acts by itself, nanoseconds.
    pub(crate) acts_at: Option<u64>,
    pub(crate) wrong: Vec<String>,
    random: Rng,
    out: VecDeque<u8>,
    reader: Reader,
    reads_from: u64,
    stopped_reading: bool,
    vanished: bool,
    /// How often a reader of messages stops for a while, in thousandths.
    laziness: u32,
}

const MILLISECOND: u64 = 1_000_000;
/// Bytes of one write.
const WRITE_BYTES_MAX: usize = 4096;

impl Peer {
    pub(crate) fn new(number: usize, role: Role, leave: Leave, laziness: u32, begins_at: u64, random: Rng) -> Self {
        Self {
            number,
            role,
            leave,
            stage: Stage::Before,
            seen: Seen::Nothing,
            close_seen: None,
            status: None,
            conn: None,
            acts_at: Some(begins_at),
            wrong: Vec::new(),
            random,
            out: VecDeque::new(),
            reader: Reader::default(),
            reads_from: 0,
            stopped_reading: false,
            vanished: false,
            laziness,
        }
    }

    pub(crate) const fn is_honest(&self) -> bool {
        !matches!(self.role, Role::Hostile(_))
    }

    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Whether something may wait for it.
    pub(crate) const fn may_not_read(&self) -> bool {
        self.vanished || self.laziness > 0 || (self.stopped_reading && !self.is_over())
    }

    pub(crate) const fn has_vanished(&self) -> bool {
        self.vanished
    }

    /// What it is about, in short.
    pub(crate) fn state(&self) -> String {
        let role = match &self.role {
            Role::Echo(echo) => format!(
                "echo, {} to send, {} awaited, pong {} of {}",
                echo.messages.len(),
                echo.awaited.len(),
                echo.pong,
                echo.pings
            ),
            Role::Subscriber(subscriber) => format!("subscriber, {} received", subscriber.received),
            Role::Publisher(publisher) => {
                format!("publisher, {} to send, last ping sent: {}", publisher.left, publisher.last_ping_sent)
            }
            Role::Reader { requests, answers, .. } => format!("reader, {answers} of {requests}"),
            Role::Hostile(deeds) => format!("hostile, {} deeds left", deeds.len()),
        };
        format!(
            "{}: {role}, {:?}, {} bytes to write{}",
            self.number,
            self.stage,
            self.out.len(),
            if self.vanished { ", vanished" } else { "" }
        )
    }

    /// It has a connection now, or has been refused.
    pub(crate) fn begin(&mut self, conn: Option<Conn>) {
        self.stage = if conn.is_some() { Stage::Asking } else { Stage::Over };
        self.seen = if conn.is_some() { Seen::Nothing } else { Seen::Refused };
        self.conn = conn;
        match &mut self.role {
            Role::Hostile(_) => {}
            Role::Reader { requests, .. } => {
                for _ in 0..*requests {
                    self.out.extend(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
                }
            }
            Role::Echo(_) => self.ask("echo"),
            Role::Subscriber(_) | Role::Publisher(_) => self.ask("talk"),
        }
    }

    fn ask(&mut self, what: &str) {
        let request = format!(
            "GET /{what}/{} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.number
        );
        self.out.extend(request.as_bytes());
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        // In fragments at times, with a ping between them.
        let cuts = if opcode < wire::CLOSE && self.random.u8(0..4) == 0 { self.random.usize(1..4) } else { 0 };
        let mut rest = payload;
        for part in 0..=cuts {
            let last = part == cuts;
            let count = if last { rest.len() } else { self.random.usize(0..=rest.len()) };
            let opcode = if part == 0 { opcode } else { 0 };
            let frame = wire::frame(&mut self.random, last, opcode, &rest[..count]);
            self.out.extend(frame);
            rest = &rest[count..];
            if !last && self.random.bool() {
                self.send_ping();
            }
        }
    }

    /// A ping whose pong somebody waits for, or, of those who do not, none.
    fn send_ping(&mut self) {
        if let Role::Echo(echo) = &mut self.role {
            echo.pings += 1;
            let payload = echo.pings.to_be_bytes();
            let frame = wire::frame(&mut self.random, true, wire::PING, &payload);
            self.out.extend(frame);
        }
    }

    /// Does what there is to do now.
    pub(crate) fn act(&mut self, now: u64, phase: Phase) {
        self.acts_at = None;
        if self.stage == Stage::Over || self.vanished {
            return;
        }
        self.write();
        self.read(now);
        match &self.role {
            Role::Hostile(_) => self.misbehave(now),
            _ => self.behave(now, phase),
        }
        self.write();
    }

    fn write(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        while !self.out.is_empty() {
            let chunk = match self.random.u8(0..8) {
                0 => 1,
                1 => self.random.usize(1..=64),
                _ => self.out.len().min(WRITE_BYTES_MAX),
            };
            let bytes: Vec<u8> = self.out.iter().take(chunk).copied().collect();
            match conn.write(&bytes) {
                Some(0) => return,
                Some(count) => drop(self.out.drain(..count)),
                // What was sent to us before the end can still be read.
                None => return self.out.clear(),
            }
        }
    }

    fn read(&mut self, now: u64) {
        if self.stopped_reading {
            return;
        }
        if now < self.reads_from {
            self.acts_at = Some(self.reads_from);
            return;
        }
        if self.laziness > 0 && self.random.u32(0..1000) < self.laziness {
            self.reads_from = now + self.random.u64(0..=600 * MILLISECOND);
            self.acts_at = Some(self.reads_from);
            return;
        }
        loop {
            let max = if self.random.u8(0..4) == 0 { self.random.usize(1..=300) } else { 1 << 16 };
            let Some(conn) = &mut self.conn else { return };
            match conn.read(max) {
                ReadOutcome::Bytes(bytes) => {
                    self.reader.push(&bytes);
                    self.understand(now);
                }
                ReadOutcome::Nothing => return,
                ReadOutcome::End => return self.end(Seen::End),
                ReadOutcome::Reset => return self.end(Seen::Reset),
            }
        }
    }

    fn end(&mut self, seen: Seen) {
        self.seen = seen;
        self.stage = Stage::Over;
        if let Some(conn) = &mut self.conn {
            conn.close();
        }
    }

    fn understand(&mut self, now: u64) {
        if !self.is_honest() {
            return;
        }
        if let Role::Reader { answers, may_be_refused, .. } = &mut self.role {
            while let Some((head, body)) = self.reader.next_response(6) {
                if *may_be_refused && head.starts_with("HTTP/1.1 503 ") {
                    self.status = Some(503);
                    return;
                }
                if !head.starts_with("HTTP/1.1 200 ") || body != b"hello\n" {
                    self.wrong.push(format!("not the answer: {head:?}"));
                }
                *answers += 1;
            }
            return;
        }
        if self.status.is_some_and(|status| status != 101) {
            return;
        }
        if self.stage == Stage::Asking {
            let Some(head) = self.reader.next_head() else { return };
            self.status = head.get(9..12).and_then(|status| status.parse().ok());
            if self.status != Some(101) {
                self.stage = Stage::Leaving;
                return;
            }
            if !head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
                self.wrong.push(format!("a wrong accept: {head:?}"));
            }
            self.stage = Stage::Open;
            if let Role::Subscriber(Subscriber { topics, .. }) = &self.role {
                for topic in topics.clone() {
                    self.send(TEXT, format!("subscribe {topic}").as_bytes());
                }
            }
        }
        loop {
            match self.reader.next_item() {
                Ok(Some(item)) => self.meet(item, now),
                Ok(None) => return,
                Err(what) => {
                    self.wrong.push(format!("the server sent {what}"));
                    return;
                }
            }
        }
    }

    fn meet(&mut self, item: Item, now: u64) {
        match item {
            Item::Ping(payload) => {
                if self.stage == Stage::Open {
                    self.send(wire::PONG, &payload);
                }
            }
            Item::Pong(payload) => self.meet_pong(&payload),
            Item::Close(code) => {
                self.close_seen = Some(code);
                if self.stage == Stage::Open {
                    let echo = code.map_or(Vec::new(), |code| wire::close_payload(code, ""));
                    self.send(wire::CLOSE, &echo);
                    self.stage = Stage::Leaving;
                }
            }
            Item::Message(opcode, payload) => self.meet_message(opcode, payload, now),
        }
    }

    fn meet_pong(&mut self, payload: &[u8]) {
        match &mut self.role {
            Role::Echo(echo) => {
                let number = payload.try_into().map_or(0, u32::from_be_bytes);
                if number <= echo.pong || number > echo.pings {
                    self.wrong.push(format!("pong {number} after {} of {} pings", echo.pong, echo.pings));
                }
                echo.pong = number;
            }
            Role::Publisher(publisher) => publisher.is_heard = payload == b"last",
            Role::Subscriber(_) => {}
            _ => self.wrong.push("a pong for nothing".to_owned()),
        }
    }

    fn meet_message(&mut self, opcode: u8, payload: Vec<u8>, now: u64) {
        match &mut self.role {
            Role::Echo(echo) => match echo.next_awaited(opcode, &payload) {
                Some((sent, expected)) if sent == opcode && expected == payload => {
                    echo.awaited_bytes -= payload.len();
                }
                Some((_, expected)) => self.wrong.push(format!(
                    "{} bytes {:.40} came instead of {} bytes {:.40}",
                    payload.len(),
                    payload.escape_ascii().to_string(),
                    expected.len(),
                    expected.escape_ascii().to_string()
                )),
                None => self.wrong.push(format!("{} bytes came back that were not sent", payload.len())),
            },
            Role::Subscriber(subscriber) => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                if let Err(what) = subscriber.meet(&text, now) {
                    self.wrong.push(what);
                }
            }
            _ => self.wrong.push("a message for nothing".to_owned()),
        }
    }

    fn behave(&mut self, now: u64, phase: Phase) {
        if self.stage != Stage::Open && !matches!(self.role, Role::Reader { .. }) {
            return;
        }
        let is_done = match &mut self.role {
            Role::Echo(echo) => {
                if let Some((opcode, payload)) = echo.next_message() {
                    if self.random.u8(0..8) == 0 {
                        self.send_ping();
                    }
                    self.send(opcode, &payload);
                    self.acts_soon(now);
                    return;
                }
                echo.messages.is_empty() && echo.awaited.is_empty() && echo.pong == echo.pings
            }
            Role::Publisher(publisher) => {
                if phase < Phase::Working {
                    return;
                }
                if let Some(text) = publisher.next_message(&mut self.random) {
                    self.send(TEXT, text.as_bytes());
                    self.acts_soon(now);
                    return;
                }
                if !std::mem::replace(&mut publisher.last_ping_sent, true) {
                    let frame = wire::frame(&mut self.random, true, wire::PING, b"last");
                    self.out.extend(frame);
                }
                publisher.is_heard
            }
            Role::Subscriber(subscriber) => {
                if phase == Phase::Working && subscriber.pings < 20 {
                    subscriber.pings += 1;
                    let payload = subscriber.pings.to_string();
                    let frame = wire::frame(&mut self.random, true, wire::PING, payload.as_bytes());
                    self.out.extend(frame);
                }
                phase == Phase::Leaving
            }
            Role::Reader { requests, answers, .. } => answers == requests,
            Role::Hostile(_) => false,
        };
        if is_done && self.stage < Stage::Leaving {
            self.say_goodbye();
        }
    }

    fn acts_soon(&mut self, now: u64) {
        let wait = if self.random.bool() { 0 } else { self.random.u64(0..=30 * MILLISECOND) };
        let at = now + wait;
        self.acts_at = Some(self.acts_at.map_or(at, |other| other.min(at)));
    }

    fn say_goodbye(&mut self) {
        self.stage = Stage::Leaving;
        match self.leave {
            _ if matches!(self.role, Role::Reader { .. }) => self.finish(),
            Leave::Close(code) => self.send(wire::CLOSE, &wire::close_payload(code, "done")),
            Leave::Finish => self.finish(),
            Leave::Abort => {
                if let Some(conn) = &mut self.conn {
                    conn.abort();
                }
                self.stage = Stage::Over;
            }
        }
    }

    /// Ends its side once all is written; nothing is left when an honest peer comes here.
    fn finish(&mut self) {
        self.write();
        if let Some(conn) = &mut self.conn {
            conn.finish();
        }
    }

    fn misbehave(&mut self, now: u64) {
        let Role::Hostile(deeds) = &mut self.role else { return };
        if self.reads_from > now {
            self.acts_at = Some(self.reads_from);
            return;
        }
        let Some(deed) = deeds.pop_front() else {
            return self.give_up();
        };
        match deed {
            Deed::Upgrade => self.ask("echo"),
            Deed::Write(bytes) => self.out.extend(bytes),
            Deed::Trickle(mut bytes) => {
                if !bytes.is_empty() {
                    self.out.push_back(bytes.remove(0));
                    deeds.push_front(Deed::Trickle(bytes));
                }
            }
            Deed::Wait(duration) => self.reads_from = now + duration.as_nanos() as u64,
            Deed::StopReading => self.stopped_reading = true,
            Deed::Finish => {
                if let Some(conn) = &mut self.conn {
                    conn.finish();
                }
            }
            Deed::Abort => return self.give_up(),
            Deed::Vanish => {
                self.vanished = true;
                return;
            }
        }
        self.acts_at = Some(self.reads_from.max(now + self.random.u64(0..=20 * MILLISECOND)));
    }

    /// Breaks the connection, whatever it was about.
    pub(crate) fn give_up(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.abort();
        }
        self.vanished = false;
        self.stage = Stage::Over;
    }

    /// What is wrong with what it has seen, at the end.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        // The body of a refusal is not read.
        let is_read = self.is_honest() && self.status.is_none_or(|status| status == 101);
        // Nor does a close frame wait for the last fragment.
        let is_cut_off = matches!(&self.role, Role::Echo(echo) if echo.may_lose);
        let is_whole = self.reader.is_empty() || self.close_seen.is_some() || is_cut_off;
        if is_read && self.seen == Seen::End && !is_whole {
            wrong.push("the stream ends within a message".to_owned());
        }
        wrong
    }
}

impl Echo {
    /// What should have come where this has.
    fn next_awaited(&mut self, opcode: u8, payload: &[u8]) -> Option<(u8, Vec<u8>)> {
        while let Some(next) = self.awaited.pop_front() {
            if !self.may_lose || (next.0 == opcode && next.1 == payload) {
                return Some(next);
            }
            self.awaited_bytes -= next.1.len();
        }
        None
    }

    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let (_, payload) = self.messages.front()?;
        if !self.awaited.is_empty() && self.awaited_bytes + payload.len() > self.awaited_bytes_max {
            return None;
        }
        let message = self.messages.pop_front()?;
        self.awaited_bytes += message.1.len();
        self.awaited.push_back(message.clone());
        Some(message)
    }
}

impl Subscriber {
    /// A message of a publisher's, or the confirmation of a subscription.
    fn meet(&mut self, text: &str, now: u64) -> Result<(), String> {
        if let Some(number) = text.strip_prefix("notice ") {
            self.notices += 1;
            let number = number.trim_start_matches('.').parse().unwrap_or(0);
            let is_sound = number >= self.notices && number <= self.pings;
            return if is_sound { Ok(()) } else { Err(format!("notice {number} after {} pings", self.pings)) };
        }
        if text.starts_with("subscribe ") {
            self.confirmed += 1;
            return Ok(());
        }
        let (topic, publisher, number) =
            parsed(text).ok_or_else(|| format!("{:.60} is nobody's message", text.escape_debug().to_string()))?;
        if !self.topics.contains(&topic) {
            return Err(format!("a message on {topic}, to which it is not subscribed"));
        }
        self.received += 1;
        self.arrivals.push((text.to_owned(), now));
        let last = self.last.entry((publisher, topic.clone())).or_default();
        if number <= *last {
            return Err(format!("message {number} of {publisher} on {topic} after {last}"));
        }
        *last = number;
        Ok(())
    }
}

impl Publisher {
    fn next_message(&mut self, random: &mut Rng) -> Option<String> {
        self.left = self.left.checked_sub(1)?;
        let topic = self.topics[random.usize(0..self.topics.len())].clone();
        let number = self.numbers.entry(topic.clone()).or_default();
        *number += 1;
        Some(published(&topic, self.name, *number))
    }
}

/// The text that a publisher sends.
pub(crate) fn published(topic: &str, publisher: usize, number: u64) -> String {
    let padding = "x".repeat((number * 37 % 700) as usize);
    format!("publish {topic} {publisher} {number} {padding}")
}

/// Topic, publisher and number of such a text, if it is whole and what was sent.
fn parsed(text: &str) -> Option<(String, usize, u64)> {
    let mut words = text.split(' ');
    let (order, topic) = (words.next()?, words.next()?);
    let (publisher, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_whole = order == "publish" && text == published(topic, publisher, number);
    is_whole.then(|| (topic.to_owned(), publisher, number))
}

/// A message for an echo: of a length where something changes, or of any.
pub(crate) fn message(random: &mut Rng, bytes_max: usize) -> (u8, Vec<u8>) {
    let length = match random.u8(0..10) {
        0 => [0, 1, 2, 3, 4, 124, 125, 126, 127, 128][random.usize(0..10)],
        1 => [65_534, 65_535, 65_536, 65_537][random.usize(0..4)],
        2 => random.usize(0..=20_000),
        _ => random.usize(0..=300),
    };
    let length = length.min(bytes_max);
    if random.bool() {
        return (BINARY, (0..length).map(|_| random.u8(..)).collect());
    }
    let mut text = String::new();
    while text.len() < length {
        text.push(['a', 'z', ' ', 'é', '€', '\u{1f30a}'][random.usize(0..6)]);
    }
    (TEXT, text.into_bytes())
}

/// The deeds of one hostile peer.
pub(crate) fn deeds(random: &mut Rng) -> VecDeque<Deed> {
    let mut deeds = VecDeque::new();
    let garbage = |random: &mut Rng| -> Vec<u8> { (0..random.usize(1..600)).map(|_| random.u8(..)).collect() };
    let wait = |random: &mut Rng| Deed::Wait(Duration::from_millis(random.u64(0..4_000)));
    let flood = |random: &mut Rng, opcode: u8, count: usize, bytes: usize| {
        let payload = vec![b'f'; bytes];
        Deed::Write((0..count).flat_map(|_| wire::frame(random, true, opcode, &payload)).collect())
    };
    match random.u8(0..12) {
        0 => deeds.extend([Deed::Write(garbage(random)), wait(random)]),
        1 => deeds.extend([Deed::Trickle(b"GET /echo/1 HTTP/1.1\r\nHost: h\r\nUpg".to_vec()), Deed::Vanish]),
        2 => deeds.extend([Deed::Upgrade, Deed::Write(garbage(random)), wait(random)]),
        3 => deeds.extend([Deed::Upgrade, Deed::StopReading, flood(random, BINARY, 200, 1_000), wait(random)]),
        4 => deeds.extend([Deed::Upgrade, Deed::StopReading, flood(random, wire::PING, 500, 20), wait(random)]),
        5 => deeds.extend([Deed::Upgrade, flood(random, BINARY, 3, 100), Deed::Finish, wait(random)]),
        6 => deeds.extend([Deed::Upgrade, flood(random, BINARY, 3, 3_000), Deed::Abort]),
        7 => deeds.extend([Deed::Upgrade, Deed::Vanish]),
        8 => deeds.extend([Deed::Vanish]),
        9 => {
            // A frame that announces more than comes.
            let mut bytes = wire::frame(random, true, BINARY, &[1; 400]);
            bytes.truncate(random.usize(1..bytes.len()));
            deeds.extend([Deed::Upgrade, Deed::Write(bytes), wait(random), Deed::Finish]);
        }
        10 => {
            // Fragments without an end, and a message between them.
            let mut bytes = wire::frame(random, false, TEXT, b"begun");
            bytes.extend(wire::frame(random, false, 0, b"on"));
            if random.bool() {
                bytes.extend(wire::frame(random, true, TEXT, b"another"));
            }
            deeds.extend([Deed::Upgrade, Deed::Write(bytes), wait(random)]);
        }
        _ => {
            // Bytes behind its close frame, which nobody reads.
            let mut bytes = wire::frame(random, true, wire::CLOSE, &wire::close_payload(1000, ""));
            bytes.extend(garbage(random));
            deeds.extend([Deed::Upgrade, Deed::Write(bytes), wait(random), Deed::Vanish]);
        }
    }
    deeds
}
