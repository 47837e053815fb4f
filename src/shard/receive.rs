//! What happens to received bytes: messages, control frames, failures; of requests `requests` knows more.

use super::Shard;
use super::closing::CloseCause;
use super::context::{Context, Session};
use super::core::Core;
use super::handler::Handler;
use super::options::{RateAnswer, SessionOptions};
use super::requests::{Next, on_request};
use super::session::{Flags, Stage};
use super::shielded;
use crate::base::clock::Tick;
use crate::base::fault::{Fault, planted};
use crate::base::key::Key;
use crate::base::limits::{ASSEMBLY_BYTES_AHEAD, Delivery, HELD_BYTES_SPARED, Limits};
use crate::driver::{BLOCK_SHARES, Buffer, Driver, Link, Room};
use crate::protocol::close::{CloseCode, CloseFrame};
use crate::protocol::decoder::{Decoder, Event, Events};
use crate::protocol::encoder::Server;
use crate::protocol::error::Failure;
use crate::protocol::message::{Message, Prepared};
use crate::protocol::response::Response;
use bytes::{Buf, BytesMut};
use std::hash::BuildHasher;
use std::time::Duration;

/// How reading a buffer ended, where that ends the session.
#[derive(Debug)]
enum Ending {
    /// The peer's close frame has been answered, or answered ours.
    Closed(CloseCause),
    /// An answer with `Connection: close` is queued.
    Answered,
    Failed(Failure),
    Panicked,
    /// It sent more than it may.
    RateExceeded,
    /// Its unfinished message is too much for the shard.
    OutOfMemory,
}

impl<D: Driver, H: Handler> Shard<D, H> {
    pub(super) fn on_received(&mut self, link: Link, buffer: Buffer) {
        let Some(heard) = self.core.hear(link, buffer.len()) else { return self.driver.recycle(buffer) };
        let Self { driver, handler, core, .. } = self;
        if heard.is_behind {
            core.keep_unread(link, driver.bytes(&buffer));
            driver.recycle(buffer);
        } else if let Some(mut block) = driver.take_bytes(&buffer) {
            let count = block.len();
            let ending = read_some(core, handler, link, &mut Input::Block(&mut block));
            driver.recycle_rest(buffer, block);
            self.on_read(link, count, ending);
        } else {
            let ending = read_some(core, handler, link, &mut Input::Lent(driver.bytes(&buffer)));
            driver.recycle(buffer);
            self.on_ending(link, ending);
        }
        if heard.answers_ping {
            // The next ping may be due before the deadline of this one.
            self.core.arm_timer(link);
        }
    }

    /// More of a message has come into the memory in which it is gathered.
    pub(super) fn on_filled(&mut self, link: Link, room: Room, count: usize) {
        let Some(heard) = self.core.hear(link, count) else { return };
        debug_assert!(!heard.is_behind, "nothing else was received meanwhile");
        let mut input = Input::Room(room.into_bytes(), count);
        let ending = read_some(&mut self.core, &mut self.handler, link, &mut input);
        self.on_read(link, count, ending);
        if heard.answers_ping {
            self.core.arm_timer(link);
        }
    }

    /// All of so many bytes was read, or has ended the session. Where they were many, and more of the same message is to come,
    /// that is received into it: so what is kept for bytes to come is in proportion to those that came, unless memory is plentiful.
    fn on_read(&mut self, link: Link, count: usize, ending: Option<Ending>) {
        if ending.is_some() {
            self.on_ending(link, ending);
        } else if let Some(least) = self.driver.takes_room(link)
            && count >= least
            && let Some((bytes, most)) = self.core.lend_room(link, least)
        {
            self.driver.recv_into(link, Room::behind(bytes, most));
        }
    }

    /// Reads on where the last turn left off.
    pub(super) fn read_on(&mut self) {
        for link in std::mem::take(&mut self.core.behind) {
            let Some(mut unread) = self.core.take_unread(link) else { continue };
            let ending = read_some(&mut self.core, &mut self.handler, link, &mut Input::Lent(&mut unread));
            self.on_ending(link, ending);
            let state = self.core.sessions.get(link);
            if state.is_some_and(|state| state.flags.has(Flags::PEER_ENDED) && !state.flags.has(Flags::BEHIND)) {
                self.on_receive_ended(link, None);
            }
        }
    }

    fn on_ending(&mut self, link: Link, ending: Option<Ending>) {
        let Some(ending) = ending else { return };
        let is_doomed = self.core.sessions.get(link).is_some_and(|state| state.stage == Stage::Doomed);
        match ending {
            Ending::Panicked => self.end_after_panic(link),
            // By what stood before it in the same read: the first cause counts, and nothing more is said.
            _ if is_doomed => {}
            Ending::Closed(cause) => self.finish(link, Stage::Finishing, &cause),
            Ending::Answered => self.finish(link, Stage::FinishingLong, &CloseCause::Closed),
            Ending::Failed(Failure::Frame(error)) => {
                self.core.close(link, Some(CloseFrame { code: error.close_code(), reason: error.rule() }));
                self.finish(link, Stage::FinishingLong, &CloseCause::Protocol(error));
            }
            Ending::Failed(Failure::Head(error)) => {
                let response = Response::from(error);
                let Self { handler, core, .. } = self;
                if shielded(|| handler.on_refused(&mut Context::new(core, Some(link)), None, &response)).is_none() {
                    return self.end_after_panic(link);
                }
                self.core.answer(link, &response, false, false);
                self.finish(link, Stage::FinishingLong, &CloseCause::Closed);
            }
            Ending::Failed(Failure::Response(_)) => unreachable!("a server receives no response"),
            Ending::RateExceeded => {
                self.core.close_with(link, CloseCode::POLICY_VIOLATION, "more than its rate allows");
                self.finish(link, Stage::FinishingLong, &CloseCause::RateExceeded);
            }
            Ending::OutOfMemory => self.end_overfull(link),
        }
    }

    /// There is no memory for what has come of a message, or of a request.
    pub(super) fn end_overfull(&mut self, key: Key) {
        match self.core.sessions.get(key).map(|state| state.stage) {
            Some(Stage::Head) => {
                let response = self.core.refusal(key, 503, "there is no memory for another request\n");
                self.core.answer(key, &response, false, false);
            }
            // The cause tells no code: where it ends a session for its queue, there is no close frame.
            Some(Stage::Open | Stage::Closing) => {
                self.core.close_and_remember(key, CloseCode::TRY_AGAIN_LATER, "no memory for its message");
            }
            // It has ended since for another cause.
            _ => return,
        }
        self.finish(key, Stage::FinishingLong, &CloseCause::OutOfMemory);
    }
}

/// Bytes to read.
enum Input<'a> {
    Lent(&'a mut [u8]),
    /// Of which messages may be taken out.
    Block(&'a mut BytesMut),
    /// The last so many bytes of what the decoder has lent out.
    Room(Vec<u8>, usize),
}

impl Input<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Lent(bytes) => bytes.len(),
            Self::Block(block) => block.len(),
            Self::Room(_, count) => *count,
        }
    }

    /// The last so many bytes, which were not read.
    fn last(&self, count: usize) -> &[u8] {
        let bytes: &[u8] = match self {
            Self::Lent(bytes) => bytes,
            Self::Block(block) => block,
            Self::Room(..) => unreachable!("what is a part of one message is read whole"),
        };
        &bytes[bytes.len() - count..]
    }
}

/// Reads bytes as far as they may cause work, keeps the rest, and accounts for what was read.
fn read_some<H: Handler>(
    core: &mut Core<H::Data>,
    handler: &mut H,
    link: Link,
    input: &mut Input<'_>,
) -> Option<Ending> {
    let state = core.sessions.get_mut(link).filter(|state| state.stage <= Stage::Closing)?;
    // Taken out, so that the handler has the whole world while events are borrowed from the decoder.
    let mut decoder = std::mem::take(&mut state.decoder);
    core.stops_reading = false;
    let messages_before = core.counters().messages_received.get();
    let (held_before, length) = (decoder.held_bytes(), input.len());
    let read = shielded(|| match input {
        Input::Lent(bytes) => read(core, handler, link, bytes, &mut decoder),
        Input::Block(block) => read_block(core, handler, link, block, &mut decoder),
        Input::Room(bytes, count) => read_room(core, handler, link, std::mem::take(bytes), *count, &mut decoder),
    });
    let (ending, unread) = match read {
        Some(Read::All) => (None, 0),
        Some(Read::Unread(unread)) => (None, unread),
        Some(Read::End(ending)) => (Some(ending), 0),
        None => (Some(Ending::Panicked), 0),
    };
    core.lent = None;
    let held = decoder.held_bytes();
    core.memory.recharge(held_before, held);
    if let Some(state) = core.sessions.get_mut(link) {
        state.decoder = decoder;
    }
    if ending.is_some() {
        return ending;
    }
    if unread > 0 {
        core.keep_unread(link, input.last(unread));
    }
    if held > held_before && held > HELD_BYTES_SPARED && core.is_short_of_memory() {
        return Some(Ending::OutOfMemory);
    }
    let messages = core.counters().messages_received.get() - messages_before;
    core.apply_rates(link, (length - unread) as u64, messages)
}

/// How far bytes were read.
enum Read {
    All,
    /// So many of them are left, which would be too much work for this turn.
    Unread(usize),
    End(Ending),
}

/// Pulls events out of bytes.
fn read<H: Handler>(
    core: &mut Core<H::Data>,
    handler: &mut H,
    link: Link,
    bytes: &mut [u8],
    decoder: &mut Decoder<Server>,
) -> Read {
    let limits = core.limits_of(link);
    let work_before = core.work;
    read_events(core, handler, link, &mut decoder.receive(bytes, &limits), work_before)
}

/// Reads a block. What lies whole in it and is no small part of it is taken out of it, so that it may be sent on without a
/// copy.
fn read_block<H: Handler>(
    core: &mut Core<H::Data>,
    handler: &mut H,
    link: Link,
    block: &mut BytesMut,
    decoder: &mut Decoder<Server>,
) -> Read {
    let work_before = core.work;
    let taken_from = block.capacity() / BLOCK_SHARES;
    loop {
        let limits = core.limits_of(link);
        let length = block.len();
        let mut events = decoder.receive(block, &limits);
        events.stop_before_frames_of(taken_from);
        let read = read_events(core, handler, link, &mut events, work_before);
        if !events.is_before_taken() {
            return read;
        }
        let unread = events.unread();
        block.advance(length - unread);
        match decoder.take_message(block) {
            Ok(assembled) => on_assembled(core, handler, link, assembled.message(), assembled.frame()),
            Err(failure) => return Read::End(Ending::Failed(failure)),
        }
    }
}

/// Reads what has come of a message into the memory in which it is gathered.
fn read_room<H: Handler>(
    core: &mut Core<H::Data>,
    handler: &mut H,
    link: Link,
    bytes: Vec<u8>,
    count: usize,
    decoder: &mut Decoder<Server>,
) -> Read {
    match decoder.read_room(bytes, count) {
        Ok(Some(assembled)) => on_assembled(core, handler, link, assembled.message(), assembled.frame()),
        Ok(None) => {}
        Err(failure) => return Read::End(Ending::Failed(failure)),
    }
    Read::All
}

/// Pulls events until there are none, or they have caused enough work.
fn read_events<H: Handler>(
    core: &mut Core<H::Data>,
    handler: &mut H,
    link: Link,
    events: &mut Events<'_, Server>,
    work_before: u64,
) -> Read {
    while core.may_work_on(work_before) && !core.stops_reading {
        match events.next_short_message() {
            Ok(Some(message)) => {
                if core.begin_message(link) {
                    handler.on_message(&mut Session::new(core, link), message);
                }
                continue;
            }
            Ok(None) => {}
            Err(failure) => return Read::End(Ending::Failed(failure)),
        }
        let event = match events.next_event() {
            Ok(Some(event)) => event,
            Ok(None) => return Read::All,
            Err(failure) => return Read::End(Ending::Failed(failure)),
        };
        match event {
            Event::Message(message) => {
                if core.begin_message(link) {
                    handler.on_message(&mut Session::new(core, link), message);
                }
            }
            Event::Assembled(message, frame) => on_assembled(core, handler, link, message, frame),
            Event::Chunk(chunk) => {
                if core.begin_chunk(link, chunk.last) {
                    handler.on_chunk(&mut Session::new(core, link), chunk);
                }
            }
            Event::Ping(payload) => {
                if core.answer_ping(link, payload) {
                    handler.on_ping(&mut Session::new(core, link), payload);
                }
            }
            Event::Pong(payload) => {
                if core.is_open(link) {
                    core.measure_round_trip(link, payload);
                    handler.on_pong(&mut Session::new(core, link), payload);
                }
            }
            Event::Close(close) => return Read::End(Ending::Closed(core.on_close_frame(link, close))),
            Event::Request(request) => match on_request(core, handler, link, &request) {
                Next::Frames => {
                    events.accept_upgrade();
                    // What stands behind the request is read as the session's options say.
                    events.deliver(core.limits_of(link).delivery);
                    handler.on_open(&mut Session::new(core, link));
                }
                Next::Request => events.accept_next_request(),
                Next::End => {
                    events.end();
                    return Read::End(Ending::Answered);
                }
            },
            Event::ContinueExpected => {
                // RFC 9110 §10.1.1: the body is welcome.
                core.append(link, |_, out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
            Event::Upgraded(_) => unreachable!("a server receives no response"),
        }
    }
    Read::Unread(events.unread())
}

/// A message that is a frame to be sent on.
fn on_assembled<H: Handler>(
    core: &mut Core<H::Data>,
    handler: &mut H,
    link: Link,
    message: Message<'_>,
    frame: &Prepared,
) {
    if core.begin_message(link) {
        core.lent = Some(frame.clone());
        handler.on_message(&mut Session::new(core, link), message);
        core.lent = None;
    }
}

/// What is known of a session when bytes have come.
struct Heard {
    /// They stand behind others that have not been read.
    is_behind: bool,
    answers_ping: bool,
}

impl<T> Core<T> {
    // Bytes

    /// Notes that bytes have come. `None` if nobody is here for them.
    fn hear(&mut self, link: Link, count: usize) -> Option<Heard> {
        self.counters().bytes_received.add(count as u64);
        let state = self.sessions.get_mut(link)?;
        state.last_received = self.now;
        let answers_ping =
            state.stage == Stage::Open && !planted(Fault::PongIgnored) && state.flags.set(Flags::PINGED, false);
        Some(Heard { is_behind: state.flags.has(Flags::BEHIND), answers_ping })
    }

    /// The memory in which a session's message is gathered, if at least so much of it is still to come; and how much.
    fn lend_room(&mut self, link: Link, least: usize) -> Option<(Vec<u8>, usize)> {
        let state = self.sessions.get_mut(link).filter(|state| state.stage <= Stage::Closing)?;
        // Where memory is short it is read as anything else, and so ended if it needs more.
        if state.flags.has(Flags::BEHIND) || self.memory.is_used_up() {
            return None;
        }
        let before = state.decoder.held_bytes();
        let ahead = if self.memory.is_plentiful() { ASSEMBLY_BYTES_AHEAD } else { 0 };
        let room = state.decoder.lend_room(least, ahead);
        let held = state.decoder.held_bytes();
        self.memory.recharge(before, held);
        room
    }

    // Bytes that wait for the next turn, or until nothing holds the session back

    /// Keeps bytes; until they are read nothing more is received.
    fn keep_unread(&mut self, key: Key, bytes: &[u8]) {
        let Some(state) = self.sessions.get_mut(key) else { return };
        state.rare_mut().unread.extend_from_slice(bytes);
        self.memory.recharge(0, bytes.len());
        self.hold_back(key, Flags::BEHIND, true);
    }

    /// The bytes that waited, unless what they wait for has not come, or something else has held the session back since.
    fn take_unread(&mut self, key: Key) -> Option<Vec<u8>> {
        let state = self.sessions.get_mut(key)?;
        state.flags.set(Flags::READS_ON, false);
        if !state.may_be_read(self.options.get(state.options).pauses_when_high()) {
            return None;
        }
        let unread = std::mem::take(&mut state.rare_mut().unread);
        self.memory.recharge(unread.len(), 0);
        self.hold_back(key, Flags::BEHIND, false);
        Some(unread)
    }

    // Messages

    /// What a connection may send, and how its messages are delivered.
    fn limits_of(&self, key: Key) -> Limits {
        let chunks = self.sessions.get(key).is_some_and(|state| self.options.get(state.options).chunks);
        let delivery = if chunks { Delivery::Chunks } else { Delivery::Whole };
        Limits { delivery, ..self.settings.limits }
    }

    /// A message came: whether the application wants to hear of it. After our close frame it does not.
    #[inline]
    fn begin_message(&mut self, key: Key) -> bool {
        match self.sessions.get_mut(key) {
            Some(state) if state.stage == Stage::Open => {
                state.last_message = self.now;
                self.counters().messages_received.add(1);
                true
            }
            _ => false,
        }
    }

    /// The same for a part of one; the last part counts.
    fn begin_chunk(&mut self, key: Key, last: bool) -> bool {
        if last {
            return self.begin_message(key);
        }
        let Some(state) = self.sessions.get_mut(key) else { return false };
        state.last_message = self.now;
        state.stage == Stage::Open
    }

    /// Takes what came from what the session's rates allow.
    #[inline]
    fn apply_rates(&mut self, key: Key, bytes: u64, messages: u64) -> Option<Ending> {
        let options = self.options.get(self.sessions.get(key)?.options);
        if options.message_rate.is_none() && options.byte_rate.is_none() {
            return None;
        }
        self.take_from_rates(key, bytes, messages)
    }

    fn take_from_rates(&mut self, key: Key, bytes: u64, messages: u64) -> Option<Ending> {
        let state = self.sessions.get_mut(key).filter(|state| state.stage == Stage::Open)?;
        let SessionOptions { message_rate, byte_rate, rate_answer, .. } = *self.options.get(state.options);
        let rare = state.rare_mut();
        let messages = message_rate.map(|rate| rare.messages.take(rate, messages, self.uptime));
        let bytes = byte_rate.map(|rate| rare.bytes.take(rate, bytes, self.uptime));
        let wait = messages.max(bytes).filter(|wait| *wait > Duration::ZERO)?;
        self.counters().sessions_throttled.add(1);
        match rate_answer {
            RateAnswer::Close => Some(Ending::RateExceeded),
            RateAnswer::Pause => {
                if let Some(state) = self.sessions.get_mut(key) {
                    state.rare_mut().resume_at = self.now.plus(Tick::count(wait).max(1));
                }
                self.hold_back(key, Flags::THROTTLED, true);
                self.arm_timer(key);
                None
            }
        }
    }

    // Control frames

    /// RFC 6455 §5.5.2: a pong with the same payload, unless a close frame has gone out. While earlier pongs wait for the
    /// peer to take them, only the newest is kept (§5.5.3).
    fn answer_ping(&mut self, key: Key, payload: &[u8]) -> bool {
        if !self.is_open(key) {
            return false;
        }
        let coalesced = self.change_queue(key, |queue, encoder, supplies| {
            queue.push_pong(&mut supplies.batches, payload, |out| {
                let written = encoder.encode_pong((), payload, out);
                debug_assert!(written.is_ok(), "a ping's payload fits into a pong");
            })
        });
        if coalesced == Some(true) {
            self.counters().pongs_coalesced.add(1);
        }
        if let Some(state) = self.sessions.get_mut(key) {
            state.last_message = self.now;
        }
        true
    }

    /// A pong tells how long it and its ping were on their way, if it answers one of ours.
    fn measure_round_trip(&mut self, key: Key, payload: &[u8]) {
        let Some((sent, _)) = payload.split_first_chunk() else { return };
        let sent = u32::from_be_bytes(*sent);
        if *payload != self.ping_payload(key, sent) {
            return;
        }
        let now = self.now_micros();
        if let Some(state) = self.sessions.get_mut(key)
            && state.flags.set(Flags::PONG_DUE, false)
        {
            state.round_trip_micros = now.wrapping_sub(sent).max(1);
        }
    }

    /// A ping that measures the round trip.
    pub(super) fn ping_for_round_trip(&mut self, key: Key) {
        if let Some(state) = self.sessions.get_mut(key) {
            state.flags.set(Flags::PONG_DUE, true);
        }
        let payload = self.ping_payload(key, self.now_micros());
        self.ping(key, &payload);
    }

    /// When it was sent, and what tells it from pings of the application's and from what a peer makes up.
    fn ping_payload(&self, key: Key, sent: u32) -> [u8; 8] {
        let seal = self.secret.hash_one((key, sent)) as u32;
        (u64::from(sent) << 32 | u64::from(seal)).to_be_bytes()
    }

    /// Microseconds of the shard's clock, modulo 2³² (71 minutes).
    const fn now_micros(&self) -> u32 {
        (self.time.as_nanos() / 1_000) as u32
    }

    /// The peer's close frame: answered with the same code, unless it is the answer to ours (RFC 6455 §5.5.1).
    fn on_close_frame(&mut self, key: Key, close: Option<CloseFrame<'_>>) -> CloseCause {
        if planted(Fault::CloseNotAnswered) {
            return CloseCause::PeerClosed(close.map(|CloseFrame { code, reason }| (code, reason.to_owned())));
        }
        let echo = close.map(|CloseFrame { code, .. }| CloseFrame { code, reason: "" });
        if self.close(key, echo) {
            CloseCause::PeerClosed(close.map(|CloseFrame { code, reason }| (code, reason.to_owned())))
        } else {
            CloseCause::Closed
        }
    }
}
