//! The receiving half: bytes → events. First an HTTP head, then frames.
//!
//! An idle connection owns no buffer: this is two words, and what is unfinished stands behind the second.
#![allow(unsafe_code)]

use super::assembly::{self, Input, Payload, Step, Unfinished};
use super::close::{CloseFrame, decode_close};
use super::encoder::{Client, Role, Server};
use super::error::{Failure, HeadError, ResponseError};
use super::frame::Opcode;
use super::handshake::ExpectedResponse;
use super::http1::{HeadScan, Request, ResponseHead};
use super::message::{Chunk, Message, MessageKind, Prepared};
use super::utf8;
use crate::base::limits::{Delivery, Limits};
use bytes::BytesMut;
use std::marker::PhantomData;
use std::ops::Range;

/// What the peer said. Borrows from the bytes that were lent wherever the whole thing lies in them.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Server: a request. Say [`Events::accept_upgrade`] or [`Events::accept_next_request`], or nothing more is read.
    Request(Request<'a>),
    /// Server: the client waits for `100 Continue` before it sends its request's body.
    ContinueExpected,
    /// Client: the server has opened the WebSocket, with this subprotocol.
    Upgraded(Option<&'a str>),
    /// A whole message that lies in the bytes lent.
    Message(Message<'a>),
    /// A whole message that came in several reads or fragments and was gathered; and the same as a frame that may be
    /// sent on by reference, unmasked as a server sends it. Whoever does not care takes both alike:
    /// `Event::Message(message) | Event::Assembled(message, _)`.
    Assembled(Message<'a>, &'a Prepared),
    /// With [`Delivery::Chunks`]: the next part of a message that does not lie whole, in one
    /// frame, in the bytes lent. Control frames may come between two chunks, another message may not.
    Chunk(Chunk<'a>),
    /// Answer it with a pong of the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping, or a sign of life that nobody asked for.
    Pong(&'a [u8]),
    /// The peer closes. Nothing follows.
    Close(Option<CloseFrame<'a>>),
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Decoder<R> {
    state: State,
    role: PhantomData<R>,
}

const _: () = assert!(size_of::<Decoder<Server>>() == 2 * size_of::<usize>());

#[derive(Debug, Default)]
enum State {
    /// Server: the next thing is a request.
    Request(Option<Box<Gathering>>),
    /// Client: the next thing is the answer to our request.
    Response(Box<(Gathering, ExpectedResponse)>),
    /// Server: a request has been handed out and nobody has said what follows it.
    Undecided,
    /// The WebSocket is open.
    Frames(Option<Box<Unfinished>>),
    /// Nothing more is read: the peer closed, or failed.
    #[default]
    Ended,
}

/// A head (and its body) that did not come whole.
#[derive(Debug, Default)]
struct Gathering {
    bytes: Vec<u8>,
    scan: HeadScan,
    /// Length of the head and of head and body, once the head is there.
    lengths: Option<(usize, usize)>,
}

impl Default for Decoder<Server> {
    /// A server's connection: the first thing it reads is a request.
    fn default() -> Self {
        Self { state: State::Request(None), role: PhantomData }
    }
}

impl Decoder<Client> {
    /// A client's connection that has sent its request: the first thing it reads is the response.
    pub fn expecting(response: ExpectedResponse) -> Self {
        Self { state: State::Response(Box::new((Gathering::default(), response))), role: PhantomData }
    }
}

impl<R: Role> Decoder<R> {
    /// A connection whose WebSocket is open already.
    pub const fn open() -> Self {
        Self { state: State::Frames(None), role: PhantomData }
    }

    /// Lends bytes. Pull [`Events::next_event`] until it answers `None`; then they may be used again.
    #[inline]
    pub fn receive<'a>(&'a mut self, bytes: &'a mut [u8], limits: &'a Limits) -> Events<'a, R> {
        let short_bytes_max = assembly::short_bytes_max(limits);
        Events {
            decoder: self,
            input: Input::new(bytes),
            limits: *limits,
            short_bytes_max,
            gathered: Vec::new(),
            assembled: None,
        }
    }

    /// Takes the message that the last [`Events`] [stopped before](Events::is_before_taken) out of the front of `block`, without
    /// a copy: the rest of its bytes are what comes next.
    ///
    /// # Errors
    /// It is text and not UTF-8. It is the last thing said: everything after it is passed over.
    pub fn take_message(&mut self, block: &mut BytesMut) -> Result<Assembled, Failure> {
        match assembly::take_message(block) {
            Ok((kind, frame)) => Ok(Assembled { kind, frame }),
            Err(error) => {
                self.end();
                Err(error.into())
            }
        }
    }

    /// Lends out the memory in which the message at hand is gathered, so that more of it is received straight into that: behind
    /// what is there, as far as there is capacity, and not more than the number of bytes that comes with it. Only if some of the
    /// message has come, and at least `least` bytes of it are here or lacking of the frame at hand. The memory grows as if so many
    /// had come: call it only when so many have. Where memory is plentiful it may grow by as many as `ahead` bytes that the frame
    /// lacks, so that what has come is moved less. Until [`Decoder::read_room`] nothing may be received.
    pub fn lend_room(&mut self, least: usize, ahead: usize) -> Option<(Vec<u8>, usize)> {
        match &mut self.state {
            State::Frames(Some(unfinished)) => unfinished.lend_room(least, ahead),
            _ => None,
        }
    }

    /// Reads the last `count` bytes of the memory that was lent out. Answers the message, if it has ended.
    ///
    /// # Errors
    /// As [`Events::next_event`].
    pub fn read_room(&mut self, bytes: Vec<u8>, count: usize) -> Result<Option<Assembled>, Failure> {
        let State::Frames(unfinished) = &mut self.state else { return Ok(None) };
        match assembly::read_room(unfinished, bytes, count) {
            Ok(message) => Ok(message.map(|(kind, frame)| Assembled { kind, frame })),
            Err(error) => {
                self.end();
                Err(error.into())
            }
        }
    }

    /// Whether something has begun and not ended: a head, a frame, a message.
    pub const fn is_unfinished(&self) -> bool {
        match &self.state {
            State::Request(gathering) => gathering.is_some(),
            State::Response(awaited) => !awaited.0.bytes.is_empty(),
            State::Frames(unfinished) => unfinished.is_some(),
            State::Undecided | State::Ended => false,
        }
    }

    /// Bytes of memory that what has begun and not ended holds: what is reserved, not what has come. 0 when there is
    /// no such thing. A client that waits for its response holds none before the first byte of it.
    pub const fn held_bytes(&self) -> usize {
        match &self.state {
            State::Request(Some(gathering)) => size_of::<Gathering>() + gathering.bytes.capacity(),
            State::Response(awaited) => awaited.0.bytes.capacity(),
            State::Frames(Some(unfinished)) => unfinished.held_bytes(),
            State::Request(None) | State::Frames(None) | State::Undecided | State::Ended => 0,
        }
    }

    /// Whether the WebSocket is open and the peer's close frame has not come.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Frames(_))
    }

    /// Reads nothing more: whatever comes is passed over.
    pub fn end(&mut self) {
        self.state = State::Ended;
    }
}

/// The events in the bytes that were lent.
#[derive(Debug)]
pub struct Events<'a, R> {
    decoder: &'a mut Decoder<R>,
    input: Input<'a>,
    limits: Limits,
    short_bytes_max: usize,
    /// Keeps what was gathered while the event that borrows from it is looked at.
    gathered: Vec<u8>,
    /// The same for a message.
    assembled: Option<Prepared>,
}

impl<R> Events<'_, R> {
    /// Server, after [`Event::Request`]: what follows are frames. Call it when 101 is on its way, not before.
    pub fn accept_upgrade(&mut self) {
        debug_assert!(matches!(self.decoder.state, State::Undecided));
        self.decoder.state = State::Frames(None);
    }

    /// How messages are delivered that begin from here on.
    pub fn deliver(&mut self, delivery: Delivery) {
        self.limits.delivery = delivery;
        self.short_bytes_max = assembly::short_bytes_max(&self.limits);
    }

    /// Server, after [`Event::Request`]: what follows is another request on the same connection.
    pub fn accept_next_request(&mut self) {
        debug_assert!(matches!(self.decoder.state, State::Undecided));
        self.decoder.state = State::Request(None);
    }

    /// Reads nothing more: whatever follows is passed over.
    pub fn end(&mut self) {
        self.decoder.state = State::Ended;
    }

    /// Leaves messages for [`Decoder::take_message`] that lie whole in the bytes lent, in one frame of at least so many bytes.
    pub const fn stop_before_frames_of(&mut self, bytes: usize) {
        self.input.taken_from = bytes;
    }

    /// Whether there is no event because such a message is next, at the front of what is [unread](Events::unread).
    pub const fn is_before_taken(&self) -> bool {
        self.input.is_before_taken
    }

    /// Bytes lent that no event has covered yet.
    pub fn unread(&self) -> usize {
        self.input.rest().len()
    }
}

impl<R: Role> Events<'_, R> {
    /// The next event, if it is a message from a client that lies whole in the bytes lent, in one frame of at most 125 bytes: what
    /// most events are, without the detour through [`Event`]. `None` says nothing of what is next: ask [`Events::next_event`].
    ///
    /// # Errors
    /// As [`Events::next_event`].
    #[inline]
    pub fn next_short_message(&mut self) -> Result<Option<Message<'_>>, Failure> {
        if !matches!(self.decoder.state, State::Frames(None)) {
            return Ok(None);
        }
        match assembly::short_message::<R>(&mut self.input, self.short_bytes_max) {
            Ok(Some((kind, payload))) => Ok(Some(message_of(kind, &self.input.bytes[payload]))),
            Ok(None) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The next event; `None` once there is none without more bytes.
    ///
    /// # Errors
    /// The rule that the peer broke. It is the last thing said: everything after it is passed over.
    #[inline]
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Failure> {
        match &mut self.decoder.state {
            State::Frames(unfinished) => match assembly::next_step::<R>(unfinished, &mut self.input, &self.limits) {
                Ok(Step::Starved) => Ok(None),
                Ok(Step::Message(kind, payload)) => Ok(Some(self.message(kind, payload))),
                Ok(Step::Chunk { kind, payload, first, last }) => {
                    Ok(Some(Event::Chunk(Chunk { kind, payload: &self.input.bytes[payload], first, last })))
                }
                Ok(Step::Control(opcode, payload)) => Ok(Some(self.control(opcode, payload)?)),
                Err(error) => Err(self.failed(error)),
            },
            State::Request(_) => self.next_request(),
            State::Response(_) => self.next_response(),
            State::Undecided | State::Ended => Ok(None),
        }
    }

    #[inline]
    fn message(&mut self, kind: MessageKind, payload: Payload<Prepared>) -> Event<'_> {
        let (payload, prepared) = match payload {
            Payload::Lent(range) => (&self.input.bytes[range], None),
            Payload::Gathered(prepared) => {
                let prepared = &*self.assembled.insert(prepared);
                (prepared.payload(), Some(prepared))
            }
        };
        let message = message_of(kind, payload);
        match prepared {
            None => Event::Message(message),
            Some(prepared) => Event::Assembled(message, prepared),
        }
    }

    fn control(&mut self, opcode: Opcode, payload: Payload<Vec<u8>>) -> Result<Event<'_>, Failure> {
        if opcode == Opcode::Close {
            // RFC 6455 §5.5.1: nothing follows a close frame.
            self.decoder.state = State::Ended;
        }
        let payload = match payload {
            Payload::Lent(range) => &self.input.bytes[range],
            Payload::Gathered(bytes) => {
                self.gathered = bytes;
                &self.gathered
            }
        };
        match opcode {
            Opcode::Close => Ok(Event::Close(decode_close(payload)?)),
            Opcode::Ping => Ok(Event::Ping(payload)),
            _ => Ok(Event::Pong(payload)),
        }
    }

    #[cold]
    fn failed(&mut self, error: impl Into<Failure>) -> Failure {
        self.decoder.state = State::Ended;
        error.into()
    }

    fn next_request(&mut self) -> Result<Option<Event<'_>>, Failure> {
        let State::Request(gathering) = &mut self.decoder.state else { return Ok(None) };
        let found = match gathering {
            None => find_request(&mut self.input, &self.limits, gathering),
            Some(gathered) => gathered.find_request(&mut self.input, &self.limits),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(self.failed(error)),
        };
        match found {
            Found::Nothing => Ok(None),
            Found::ContinueExpected => Ok(Some(Event::ContinueExpected)),
            Found::Lent(range, head_len) => {
                self.decoder.state = State::Undecided;
                request_event(&self.input.bytes[range], head_len)
            }
            Found::Gathered(bytes, head_len) => {
                self.decoder.state = State::Undecided;
                self.gathered = bytes;
                request_event(&self.gathered, head_len)
            }
        }
    }

    fn next_response(&mut self) -> Result<Option<Event<'_>>, Failure> {
        let State::Response(awaited) = std::mem::take(&mut self.decoder.state) else { return Ok(None) };
        let (mut gathering, expected) = *awaited;
        let head_len = gathering
            .gather_head(&mut self.input, &self.limits)
            .map_err(|error| ResponseError::Malformed(error.reason))?;
        if head_len.is_none() {
            self.decoder.state = State::Response(Box::new((gathering, expected)));
            return Ok(None);
        }
        self.gathered = gathering.bytes;
        let protocol = expected.check(&ResponseHead::parse(&self.gathered)?)?;
        self.decoder.state = State::Frames(None);
        Ok(Some(Event::Upgraded(protocol)))
    }
}

/// A message that is a frame to be sent on, as a server sends it.
#[derive(Clone, Debug)]
pub struct Assembled {
    kind: MessageKind,
    frame: Prepared,
}

impl Assembled {
    /// The message.
    pub fn message(&self) -> Message<'_> {
        message_of(self.kind, self.frame.payload())
    }

    /// The frame.
    pub const fn frame(&self) -> &Prepared {
        &self.frame
    }
}

/// A message that the assembly has let pass.
#[inline]
fn message_of(kind: MessageKind, payload: &[u8]) -> Message<'_> {
    match kind {
        // SAFETY: what the assembly hands out as text it has validated whole, by `validate_whole` or by a validator that was
        // complete at its end; nothing has touched it since.
        MessageKind::Text => Message::Text(unsafe { utf8::validated_str(payload) }),
        MessageKind::Binary => Message::Binary(payload),
    }
}

/// How far a request has come.
#[derive(Debug)]
enum Found {
    Nothing,
    ContinueExpected,
    /// Whole in the bytes lent: head and body, and the head's length.
    Lent(Range<usize>, usize),
    /// Whole in a buffer.
    Gathered(Vec<u8>, usize),
}

/// The common case: a request that lies whole in the input. What does not is gathered.
fn find_request(
    input: &mut Input<'_>,
    limits: &Limits,
    gathering: &mut Option<Box<Gathering>>,
) -> Result<Found, HeadError> {
    if input.rest().is_empty() {
        return Ok(Found::Nothing);
    }
    let mut scan = HeadScan::default();
    if let Some(head_len) = scan.scan(input.rest(), limits)? {
        let (total, _) = request_len(&input.rest()[..head_len], limits)?;
        if total <= input.rest().len() {
            return Ok(Found::Lent(input.take(total), head_len));
        }
    }
    gathering.get_or_insert_default().find_request(input, limits)
}

impl Gathering {
    fn find_request(&mut self, input: &mut Input<'_>, limits: &Limits) -> Result<Found, HeadError> {
        let mut continue_expected = false;
        let (head_len, total) = match self.lengths {
            Some(lengths) => lengths,
            None => match self.gather_head(input, limits)? {
                None => return Ok(Found::Nothing),
                Some(head_len) => {
                    let (total, expects) = request_len(&self.bytes, limits)?;
                    continue_expected = expects && input.rest().is_empty();
                    *self.lengths.insert((head_len, total))
                }
            },
        };
        let body = input.take((total - self.bytes.len()).min(input.rest().len()));
        self.bytes.extend_from_slice(&input.bytes[body]);
        Ok(if self.bytes.len() == total {
            Found::Gathered(std::mem::take(&mut self.bytes), head_len)
        } else if continue_expected {
            Found::ContinueExpected
        } else {
            Found::Nothing
        })
    }

    /// Takes bytes of the head, and only of the head. Answers its length when it is whole.
    fn gather_head(&mut self, input: &mut Input<'_>, limits: &Limits) -> Result<Option<usize>, HeadError> {
        let had = self.bytes.len();
        // One byte more than allowed is enough for the scan to refuse it.
        let more = input.rest().len().min(limits.head_bytes_max + 1 - had);
        self.bytes.extend_from_slice(&input.rest()[..more]);
        match self.scan.scan(&self.bytes, limits)? {
            Some(head_len) => {
                self.bytes.truncate(head_len);
                input.take(head_len - had);
                Ok(Some(head_len))
            }
            None => {
                input.take(more);
                Ok(None)
            }
        }
    }
}

/// Length of head and body, and whether the client waits for our consent before it sends the body.
fn request_len(head: &[u8], limits: &Limits) -> Result<(usize, bool), HeadError> {
    let request = Request::parse(head)?;
    let body_len = request.body_len()?;
    if body_len > 0 && !request.is_http_1_0() && request.fields().upgrades_to_websocket {
        // Not read first and refused then: RFC 6455 §4.1, the request is a GET without a body.
        return Err(HeadError::bad_request("an upgrade has no body"));
    }
    match usize::try_from(body_len) {
        Ok(body_len) if body_len <= limits.body_bytes_max => {
            Ok((head.len() + body_len, body_len > 0 && request.expects_continue()))
        }
        _ => Err(HeadError::new(413, "the body is too long")),
    }
}

/// The head is parsed a second time, now to be borrowed from: 0.3 µs beside the handshake's tens of them.
fn request_event(bytes: &[u8], head_len: usize) -> Result<Option<Event<'_>>, Failure> {
    let (head, body) = bytes.split_at(head_len);
    Ok(Some(Event::Request(Request::parse(head)?.with_body(body))))
}
