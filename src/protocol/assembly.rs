//! Frames to messages, or to chunks of them (RFC 6455 §5.4, §6.2): unmasking, order, reassembly, text, limits.
//!
//! A message that lies whole in the bytes at hand is unmasked and handed out where it lies. Of any other message each
//! part is, with [`Delivery::Chunks`]. With [`Delivery::Whole`] it is gathered in one flat buffer that grows with the
//! bytes that really came, never with a length that was announced; it exists only while something is unfinished, and
//! becomes the frame that sends the message on.

use super::encoder::Role;
use super::error::ProtocolError;
use super::frame::{Decoded, FrameHeader, HEADER_BYTES_MAX, Opcode};
use super::frame_buffer::FrameBuffer;
use super::mask::{MaskingKey, apply_mask};
use super::message::{MessageKind, Prepared};
use super::utf8::{self, Utf8Validator};
use crate::base::fault::{Fault, planted};
use crate::base::limits::{Delivery, Limits};
use bytes::{Buf, BytesMut};
use std::ops::Range;

/// The longest payload whose length stands in a header's second byte (RFC 6455 §5.2) …
const SHORT_PAYLOAD_BYTES_MAX: usize = 125;
/// … and that header, with a masking key.
const SHORT_HEADER_BYTES: usize = 6;
/// The first byte of a whole message's frame.
const FINAL_TEXT: u8 = 0x80 | Opcode::Text as u8;
const FINAL_BINARY: u8 = 0x80 | Opcode::Binary as u8;

/// Bytes lent to the core, and how far they have been read.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) at: usize,
    /// Messages in a frame that lies here whole and has at least so many bytes are not read …
    pub(super) taken_from: usize,
    /// … and one of them is next.
    pub(super) is_before_taken: bool,
}

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0, taken_from: usize::MAX, is_before_taken: false }
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Moves past the next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Range<usize> {
        let start = self.at;
        self.at += length;
        debug_assert!(self.at <= self.bytes.len());
        start..self.at
    }
}

/// Where the payload of a frame or message lies.
#[derive(Debug)]
pub(super) enum Payload<G> {
    /// Here, in the bytes that were lent.
    Lent(Range<usize>),
    /// In this, gathered from several reads or fragments.
    Gathered(G),
}

/// One thing the frame stream says.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole message; text has been validated.
    Message(MessageKind, Payload<Prepared>),
    /// The next part of a message; text has been validated so far.
    Chunk { kind: MessageKind, payload: Range<usize>, first: bool, last: bool },
    /// A whole control frame.
    Control(Opcode, Payload<Vec<u8>>),
    /// Nothing without more bytes.
    Starved,
}

/// What is left over between two reads. A connection that is between messages has none.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Assembly>,
}

impl Unfinished {
    fn is_empty(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Bytes of memory: its own, and what it has gathered or has room for.
    pub(super) const fn held_bytes(&self) -> usize {
        let message = match &self.message {
            Some(Assembly { payload: SoFar::Gathered { buffer, .. }, .. }) => buffer.capacity(),
            Some(Assembly { payload: SoFar::HandedOut { .. }, .. }) | None => 0,
        };
        size_of::<Self>() + self.control.capacity() + message
    }
}

/// A frame whose header has been read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    /// As seen by the next byte of payload.
    key: Option<MaskingKey>,
    remaining: u64,
}

/// A message whose last fragment has not come.
#[derive(Debug)]
struct Assembly {
    kind: MessageKind,
    /// Bytes that its frames have announced; those of all but the last frame have come.
    length: u64,
    utf8: Utf8Validator,
    payload: SoFar,
}

/// What has become of a message's payload so far.
#[derive(Debug)]
enum SoFar {
    /// With [`Delivery::Whole`].
    Gathered { buffer: FrameBuffer, fragments: u32 },
    /// With [`Delivery::Chunks`]. `first`: nothing has been handed out yet.
    HandedOut { first: bool },
}

impl Assembly {
    fn new(kind: MessageKind, delivery: Delivery) -> Self {
        let payload = match delivery {
            Delivery::Whole => SoFar::Gathered { buffer: FrameBuffer::default(), fragments: 0 },
            Delivery::Chunks => SoFar::HandedOut { first: true },
        };
        Self { kind, length: 0, utf8: Utf8Validator::default(), payload }
    }

    /// Admits another frame, by its header alone.
    fn begin_frame(&mut self, payload_len: u64, limits: &Limits) -> Result<(), ProtocolError> {
        match &mut self.payload {
            SoFar::HandedOut { .. } => check_length(payload_len, self.length, Delivery::Chunks, limits)?,
            SoFar::Gathered { fragments, .. } => {
                check_length(payload_len, self.length, Delivery::Whole, limits)?;
                if *fragments >= limits.fragments_max {
                    return Err(ProtocolError::FragmentsTooMany);
                }
                *fragments += 1;
            }
        }
        self.length += payload_len;
        Ok(())
    }

    fn validate(&mut self, bytes: &[u8], last: bool) -> Result<(), ProtocolError> {
        if self.kind == MessageKind::Text { validate(&mut self.utf8, bytes, last) } else { Ok(()) }
    }
}

/// The whole message. Text was validated as it came; where its memory was lent out since, that is no proof any more.
fn finish(kind: MessageKind, buffer: &mut FrameBuffer) -> Result<Prepared, ProtocolError> {
    let is_proven = kind == MessageKind::Binary || buffer.is_untouched();
    if !is_proven && utf8::validate_whole(buffer.payload()).is_none() {
        return Err(ProtocolError::TextNotUtf8);
    }
    Ok(std::mem::take(buffer).into_prepared(kind))
}

/// RFC 6455 §8.1: fails as soon as the text cannot become UTF-8 any more.
fn validate(utf8: &mut Utf8Validator, bytes: &[u8], last: bool) -> Result<(), ProtocolError> {
    match utf8.push(bytes) {
        Ok(()) if !last || utf8.is_complete() => Ok(()),
        _ => Err(ProtocolError::TextNotUtf8),
    }
}

/// Reads on until there is something to say.
#[inline]
pub(super) fn next_step<R: Role>(
    unfinished: &mut Option<Box<Unfinished>>,
    input: &mut Input<'_>,
    limits: &Limits,
) -> Result<Step, ProtocolError> {
    if unfinished.is_none() {
        if let Some(step) = short_step::<R>(input, limits)? {
            return Ok(step);
        }
        if let Some(step) = whole_message::<R>(input, limits)? {
            return Ok(step);
        }
    }
    if unfinished.is_none() && input.rest().is_empty() {
        return Ok(Step::Starved);
    }
    let step = unfinished.get_or_insert_default().next_step::<R>(input, limits);
    if unfinished.as_ref().is_some_and(|unfinished| unfinished.is_empty()) {
        *unfinished = None;
    }
    step
}

/// Reads what was written into the memory that was lent out: the last `count` bytes of it. Answers the message, if it has
/// ended.
pub(super) fn read_room(
    unfinished: &mut Option<Box<Unfinished>>,
    bytes: Vec<u8>,
    count: usize,
) -> Result<Option<(MessageKind, Prepared)>, ProtocolError> {
    let Some(some) = unfinished else { return Ok(None) };
    let message = some.read_room(bytes, count)?;
    if some.is_empty() {
        *unfinished = None;
    }
    Ok(message)
}

/// What limits let pass without another look, of messages in one frame.
#[inline]
pub(super) fn short_bytes_max(limits: &Limits) -> usize {
    let most = match limits.delivery {
        Delivery::Whole => limits.message_bytes_max.min(limits.frame_bytes_max),
        Delivery::Chunks => usize::try_from(limits.streamed_bytes_max).unwrap_or(usize::MAX),
    };
    most.min(SHORT_PAYLOAD_BYTES_MAX)
}

/// The commonest case of all: a message from a client in one frame with a header of six bytes, which lies whole in the input and
/// has at most `bytes_max` bytes of payload. Reads nothing in any other case.
#[inline(always)]
pub(super) fn short_message<R: Role>(
    input: &mut Input<'_>,
    bytes_max: usize,
) -> Result<Option<(MessageKind, Range<usize>)>, ProtocolError> {
    let Some((&[first, second, a, b, c, d], behind)) = input.rest().split_first_chunk() else { return Ok(None) };
    let kind = match first {
        FINAL_TEXT => MessageKind::Text,
        FINAL_BINARY => MessageKind::Binary,
        _ => return Ok(None),
    };
    // Without the bit that says it is masked the length is too much.
    let length = usize::from(second ^ 0x80);
    if !R::RECEIVES_MASKED || length > bytes_max.min(behind.len()) {
        return Ok(None);
    }
    if SHORT_HEADER_BYTES + length >= input.taken_from {
        return Ok(None);
    }
    input.take(SHORT_HEADER_BYTES);
    let payload = input.take(length);
    let bytes = &mut input.bytes[payload.clone()];
    apply_mask(bytes, MaskingKey::new([a, b, c, d]));
    if kind == MessageKind::Text && utf8::validate_whole(bytes).is_none() {
        return Err(ProtocolError::TextNotUtf8);
    }
    Ok(Some((kind, payload)))
}

/// The same as a step, for those who do not ask for it first. Out of line, so that it is in line where it is asked for first.
#[inline(never)]
fn short_step<R: Role>(input: &mut Input<'_>, limits: &Limits) -> Result<Option<Step>, ProtocolError> {
    let message = short_message::<R>(input, short_bytes_max(limits))?;
    Ok(message.map(|(kind, payload)| Step::Message(kind, Payload::Lent(payload))))
}

/// The common case: a message in one frame that lies whole in the input. Reads nothing in any other case.
#[inline]
fn whole_message<R: Role>(input: &mut Input<'_>, limits: &Limits) -> Result<Option<Step>, ProtocolError> {
    let Decoded::Header(header, header_len) = FrameHeader::decode(input.rest())? else { return Ok(None) };
    let Some(kind) = MessageKind::of(header.opcode) else { return Ok(None) };
    check_mask::<R>(&header)?;
    check_length(header.payload_len, 0, limits.delivery, limits)?;
    let available = (input.rest().len() - header_len) as u64;
    if !header.fin || header.payload_len > available {
        return Ok(None);
    }
    let payload_len = header.payload_len as usize;
    if header_len + payload_len >= input.taken_from {
        input.is_before_taken = true;
        return Ok(Some(Step::Starved));
    }
    input.take(header_len);
    let payload = input.take(payload_len);
    open(&header, kind, &mut input.bytes[payload.clone()])?;
    Ok(Some(Step::Message(kind, Payload::Lent(payload))))
}

/// Takes the message out of `block` that [`Input::is_before_taken`] spoke of: as a frame to be sent on, in the memory in which
/// it came.
pub(super) fn take_message(block: &mut BytesMut) -> Result<(MessageKind, Prepared), ProtocolError> {
    let Decoded::Header(header, header_len) = FrameHeader::decode(block)? else { unreachable!("it lies there whole") };
    let kind = MessageKind::of(header.opcode).expect("it is a message");
    let mut frame = block.split_to(header_len + header.payload_len as usize);
    open(&header, kind, &mut frame[header_len..])?;
    // A header without a masking key is no longer than one with.
    let mut bits = [0; HEADER_BYTES_MAX];
    let start = header_len - FrameHeader { mask: None, ..header }.encode(&mut bits);
    frame[start..header_len].copy_from_slice(&bits[..header_len - start]);
    frame.advance(start);
    Ok((kind, Prepared::of_frame(frame.freeze())))
}

/// Unmasks a whole message, and validates it if it is text.
#[inline]
fn open(header: &FrameHeader, kind: MessageKind, payload: &mut [u8]) -> Result<(), ProtocolError> {
    if let Some(key) = header.mask {
        apply_mask(payload, key);
    }
    if kind == MessageKind::Text && utf8::validate_whole(payload).is_none() {
        return Err(ProtocolError::TextNotUtf8);
    }
    Ok(())
}

/// RFC 6455 §5.1: a client masks, a server does not.
#[inline]
fn check_mask<R: Role>(header: &FrameHeader) -> Result<(), ProtocolError> {
    match (R::RECEIVES_MASKED, header.mask.is_some()) {
        (true, false) => Err(ProtocolError::MaskMissing),
        (false, true) => Err(ProtocolError::MaskPresent),
        _ => Ok(()),
    }
}

/// RFC 6455 §10.4: the limits on a data frame's length, behind `before` bytes of its message.
#[inline]
fn check_length(payload_len: u64, before: u64, delivery: Delivery, limits: &Limits) -> Result<(), ProtocolError> {
    let (message_max, frame_max) = match delivery {
        Delivery::Whole => (limits.message_bytes_max as u64, limits.frame_bytes_max as u64),
        // Also for a message that happens to lie whole in one read: the answer may not depend on how it was read.
        Delivery::Chunks => (limits.streamed_bytes_max, u64::MAX),
    };
    if payload_len > message_max.saturating_sub(before) {
        return Err(ProtocolError::MessageTooLong);
    }
    if payload_len > frame_max {
        return Err(ProtocolError::FrameTooLong);
    }
    Ok(())
}

impl Unfinished {
    fn next_step<R: Role>(&mut self, input: &mut Input<'_>, limits: &Limits) -> Result<Step, ProtocolError> {
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.next_header(input)? {
                    Some(header) => self.begin_frame::<R>(&header, limits)?,
                    None => return Ok(Step::Starved),
                },
            };
            let step =
                if frame.opcode.is_control() { self.read_control(frame, input) } else { self.read_data(frame, input)? };
            match step {
                Some(step) => return Ok(step),
                // A fragment has ended and its message has not: the next frame may lie here too.
                None if self.frame.is_none() => {}
                None => return Ok(Step::Starved),
            }
        }
    }

    /// Completes the header whose first bytes came with an earlier read, or reads one where it lies.
    fn next_header(&mut self, input: &mut Input<'_>) -> Result<Option<FrameHeader>, ProtocolError> {
        let had = usize::from(self.header_len);
        let rest = input.rest();
        let more = rest.len().min(HEADER_BYTES_MAX - had);
        self.header[had..had + more].copy_from_slice(&rest[..more]);
        match FrameHeader::decode(&self.header[..had + more])? {
            Decoded::Header(header, length) => {
                self.header_len = 0;
                input.take(length - had);
                Ok(Some(header))
            }
            Decoded::Incomplete => {
                input.take(more);
                self.header_len = if planted(Fault::CutHeaderLost) { had as u8 } else { (had + more) as u8 };
                Ok(None)
            }
        }
    }

    /// Checks what a header alone cannot break: the role, the order of fragments, the limits.
    fn begin_frame<R: Role>(&mut self, header: &FrameHeader, limits: &Limits) -> Result<Frame, ProtocolError> {
        check_mask::<R>(header)?;
        let message = match (header.opcode, &mut self.message) {
            (Opcode::Text, message @ None) => Some(message.insert(Assembly::new(MessageKind::Text, limits.delivery))),
            (Opcode::Binary, message @ None) => {
                Some(message.insert(Assembly::new(MessageKind::Binary, limits.delivery)))
            }
            // RFC 6455 §5.4: fragments of one message are not interleaved with those of another.
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(ProtocolError::MessageInsideMessage),
            (Opcode::Continuation, None) => return Err(ProtocolError::ContinuationWithoutMessage),
            (Opcode::Continuation, Some(message)) => Some(message),
            (Opcode::Ping, message) if planted(Fault::ControlFrameEndsMessage) => {
                *message = None;
                None
            }
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => None,
        };
        if let Some(message) = message {
            message.begin_frame(header.payload_len, limits)?;
        }
        Ok(Frame { opcode: header.opcode, fin: header.fin, key: header.mask, remaining: header.payload_len })
    }

    /// Control frames are short: whole where they lie, or gathered aside from the message they stand in.
    fn read_control(&mut self, frame: Frame, input: &mut Input<'_>) -> Option<Step> {
        let (payload, frame) = unmask_next(frame, input);
        if frame.remaining == 0 && self.control.is_empty() {
            return Some(Step::Control(frame.opcode, Payload::Lent(payload)));
        }
        self.control.extend_from_slice(&input.bytes[payload]);
        if frame.remaining == 0 {
            return Some(Step::Control(frame.opcode, Payload::Gathered(std::mem::take(&mut self.control))));
        }
        self.frame = Some(frame);
        None
    }

    /// Lends out the memory in which the frame at hand is gathered, with room for what it lacks: if that is at least `least`
    /// bytes, or the end of so many, lest the next message be cut where it need not be. Answers how many may be written.
    pub(super) fn lend_room(&mut self, least: usize, ahead: usize) -> Option<(Vec<u8>, usize)> {
        let frame = self.frame.filter(|frame| !frame.opcode.is_control())?;
        let Some(Assembly { payload: SoFar::Gathered { buffer, .. }, .. }) = &mut self.message else { return None };
        let lacking = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
        // Before the first byte there is no memory that a room would be in proportion to.
        let is_worth_while = buffer.capacity() > 0 && lacking.max(buffer.capacity()) >= least;
        let rest = frame.fin.then_some(frame.remaining);
        is_worth_while.then(|| (buffer.lend(least.min(lacking), rest, ahead), lacking))
    }

    fn read_room(&mut self, bytes: Vec<u8>, count: usize) -> Result<Option<(MessageKind, Prepared)>, ProtocolError> {
        let (Some(mut frame), Some(message)) = (self.frame.take(), &mut self.message) else { return Ok(None) };
        let SoFar::Gathered { buffer, .. } = &mut message.payload else { return Ok(None) };
        let payload = buffer.take_back(bytes, count);
        if let Some(key) = frame.key {
            apply_mask(payload, key);
            frame.key = Some(if planted(Fault::MaskPhaseLostInRoom) { key } else { key.rotated(count) });
        }
        frame.remaining -= count as u64;
        let last = frame.fin && frame.remaining == 0;
        if message.kind == MessageKind::Text {
            validate(&mut message.utf8, payload, last)?;
        }
        let kind = message.kind;
        let whole = if last { Some((kind, finish(kind, buffer)?)) } else { None };
        if last {
            self.message = None;
        } else if frame.remaining > 0 {
            self.frame = Some(frame);
        }
        Ok(whole)
    }

    fn read_data(&mut self, frame: Frame, input: &mut Input<'_>) -> Result<Option<Step>, ProtocolError> {
        let (payload, frame) = unmask_next(frame, input);
        let last = frame.fin && frame.remaining == 0;
        let message = self.message.as_mut().expect("a data frame belongs to a message: begin_frame saw to it");
        message.validate(&input.bytes[payload.clone()], last)?;
        let kind = message.kind;
        let step = match &mut message.payload {
            SoFar::Gathered { buffer, .. } => {
                buffer.push(&input.bytes[payload], frame.fin.then_some(frame.remaining));
                if last { Some(Step::Message(kind, Payload::Gathered(finish(kind, buffer)?))) } else { None }
            }
            // An empty fragment says nothing, unless it is the end.
            SoFar::HandedOut { .. } if payload.is_empty() && !last => None,
            SoFar::HandedOut { first } => Some(Step::Chunk { kind, payload, first: std::mem::take(first), last }),
        };
        if last {
            self.message = None;
        } else if frame.remaining > 0 {
            self.frame = Some(frame);
        }
        Ok(step)
    }
}

/// Unmasks as much of the frame's payload as is here.
fn unmask_next(mut frame: Frame, input: &mut Input<'_>) -> (Range<usize>, Frame) {
    let here = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.rest().len());
    let payload = input.take(here);
    if let Some(key) = frame.key {
        apply_mask(&mut input.bytes[payload.clone()], key);
        frame.key = Some(if planted(Fault::MaskPhaseLost) { key } else { key.rotated(here) });
    }
    frame.remaining -= here as u64;
    (payload, frame)
}
