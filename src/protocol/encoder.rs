//! The sending half: messages and control frames into the caller's buffer (RFC 6455 §5, §6.1).
//!
//! It stores no bytes, only what must be known to refuse what may not be sent: whether a close frame has gone
//! out (nothing may follow it, §5.5.1) and whether a fragmented message is under way (§5.4).

use super::close::{CloseFrame, truncated_reason};
use super::frame::{FrameHeader, HEADER_BYTES_MAX, Opcode};
use super::mask::{MaskingKey, apply_mask};
use super::message::{Message, MessageKind};
use crate::base::limits::CONTROL_PAYLOAD_BYTES_MAX;
use std::fmt;
use std::marker::PhantomData;

/// Which end of the connection we are (RFC 6455 §5.1): a client masks what it sends, a server does not.
pub trait Role: 'static {
    /// What each outgoing frame needs: a fresh, unpredictable key from a client, nothing from a server.
    type FrameKey: Copy;
    /// Whether incoming frames are masked: if and only if we are the server.
    const RECEIVES_MASKED: bool;
    /// The key as a frame header carries it.
    fn mask(key: Self::FrameKey) -> Option<MaskingKey>;
}

/// The end that accepted the connection.
#[derive(Clone, Copy, Debug)]
pub enum Server {}

/// The end that opened the connection.
#[derive(Clone, Copy, Debug)]
pub enum Client {}

impl Role for Server {
    type FrameKey = ();
    const RECEIVES_MASKED: bool = true;
    fn mask((): ()) -> Option<MaskingKey> {
        None
    }
}

impl Role for Client {
    type FrameKey = MaskingKey;
    const RECEIVES_MASKED: bool = false;
    fn mask(key: MaskingKey) -> Option<MaskingKey> {
        Some(key)
    }
}

/// What may not be sent now. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// A close frame has gone out; nothing may follow (RFC 6455 §5.5.1).
    CloseSent,
    /// A control frame carries at most 125 bytes (§5.5).
    ControlTooLong,
    /// Another message is unfinished, or there is none to go on with (§5.4).
    FragmentOrder,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CloseSent => "nothing may be sent after a close frame",
            Self::ControlTooLong => "a control frame carries at most 125 bytes",
            Self::FragmentOrder => "fragments of one message must follow each other",
        })
    }
}

impl std::error::Error for EncodeError {}

/// The sending half of a connection.
#[derive(Debug)]
pub struct Encoder<R> {
    close_sent: bool,
    fragmented: bool,
    role: PhantomData<R>,
}

const _: () = assert!(size_of::<Encoder<Server>>() == 2);

impl<R> Default for Encoder<R> {
    fn default() -> Self {
        Self { close_sent: false, fragmented: false, role: PhantomData }
    }
}

impl<R: Role> Encoder<R> {
    /// Whether our close frame has been written.
    pub const fn close_sent(&self) -> bool {
        self.close_sent
    }

    /// Whether a fragmented message is under way: its next fragment may be written, and control frames, but no other
    /// message. A close frame ends it.
    pub const fn is_fragmented(&self) -> bool {
        self.fragmented && !self.close_sent
    }

    /// Appends `message` as one frame.
    #[inline]
    pub fn encode_message(
        &mut self,
        key: R::FrameKey,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.check_message_start()?;
        append_frame::<R>(key, true, message.kind().opcode(), message.as_bytes(), out);
        Ok(())
    }

    /// Whether a whole message may be written now: the question for frames that are encoded elsewhere.
    #[inline]
    pub const fn check_message_start(&self) -> Result<(), EncodeError> {
        if self.close_sent {
            return Err(EncodeError::CloseSent);
        }
        if self.fragmented {
            return Err(EncodeError::FragmentOrder);
        }
        Ok(())
    }

    /// Appends the first fragment of a message. More follow by [`Encoder::encode_next`], control frames may stand
    /// between them (RFC 6455 §5.4). All fragments of a text together are UTF-8, which nobody checks here; one alone
    /// may end inside a character.
    pub fn encode_first(
        &mut self,
        key: R::FrameKey,
        kind: MessageKind,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.check_message_start()?;
        self.fragmented = true;
        append_frame::<R>(key, false, kind.opcode(), payload, out);
        Ok(())
    }

    /// Appends the next fragment of the message under way; `last` ends it.
    pub fn encode_next(
        &mut self,
        key: R::FrameKey,
        payload: &[u8],
        last: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if self.close_sent {
            return Err(EncodeError::CloseSent);
        }
        if !self.fragmented {
            return Err(EncodeError::FragmentOrder);
        }
        self.fragmented = !last;
        append_frame::<R>(key, last, Opcode::Continuation, payload, out);
        Ok(())
    }

    /// Appends a ping.
    pub fn encode_ping(&mut self, key: R::FrameKey, payload: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_control(key, Opcode::Ping, payload, out)
    }

    /// Appends a pong.
    pub fn encode_pong(&mut self, key: R::FrameKey, payload: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_control(key, Opcode::Pong, payload, out)
    }

    /// Appends a close frame; `None` says nothing about why. A reason too long for a frame is cut.
    pub fn encode_close(
        &mut self,
        key: R::FrameKey,
        close: Option<CloseFrame<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let mut payload = [0; CONTROL_PAYLOAD_BYTES_MAX];
        let mut length = 0;
        if let Some(CloseFrame { code, reason }) = close {
            let reason = truncated_reason(reason).as_bytes();
            length = 2 + reason.len();
            payload[..2].copy_from_slice(&code.number().to_be_bytes());
            payload[2..length].copy_from_slice(reason);
        }
        self.encode_control(key, Opcode::Close, &payload[..length], out)?;
        self.close_sent = true;
        Ok(())
    }

    fn encode_control(
        &mut self,
        key: R::FrameKey,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if self.close_sent {
            return Err(EncodeError::CloseSent);
        }
        // RFC 6455 §5.5: at most 125 bytes.
        if payload.len() > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(EncodeError::ControlTooLong);
        }
        append_frame::<R>(key, true, opcode, payload, out);
        Ok(())
    }
}

#[inline]
fn append_frame<R: Role>(key: R::FrameKey, fin: bool, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let mask = R::mask(key);
    let header = FrameHeader { fin, opcode, mask, payload_len: payload.len() as u64 };
    if mask.is_none() && payload.len() <= INLINE_BYTES_MAX {
        return append_short(&header, payload, out);
    }
    out.reserve(HEADER_BYTES_MAX + payload.len());
    header.append_to(out);
    let payload_start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[payload_start..], key);
    }
}

/// The longest payload that is copied inline.
const INLINE_BYTES_MAX: usize = 64;
/// A header without a masking key, of a payload that is no longer.
const INLINE_HEADER_BYTES: usize = 2;

/// Appends a short frame. Into room of a length that the compiler knows, of which what is too much is taken back: an ordinary copy is
/// a call, which costs as much as all else that is written of a short message.
#[inline]
fn append_short(header: &FrameHeader, payload: &[u8], out: &mut Vec<u8>) {
    let end = out.len() + INLINE_HEADER_BYTES + payload.len();
    out.extend_from_slice(&[0; INLINE_HEADER_BYTES + INLINE_BYTES_MAX]);
    let room: &mut [u8; INLINE_HEADER_BYTES + INLINE_BYTES_MAX] = out.last_chunk_mut().expect("just appended");
    [room[0], room[1]] = header.short();
    let room = &mut room[INLINE_HEADER_BYTES..][..payload.len()];
    match payload.len() {
        0..4 => room.iter_mut().zip(payload).for_each(|(to, from)| *to = *from),
        4..8 => copy_ends::<4>(room, payload),
        8..16 => copy_ends::<8>(room, payload),
        16..32 => copy_ends::<16>(room, payload),
        _ => copy_ends::<32>(room, payload),
    }
    out.truncate(end);
}

/// Copies `N..=2 * N` bytes as the first `N` and the last `N`, which may overlap.
#[inline]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    let at_least_n = "the caller chose N by the payload's length";
    *to.first_chunk_mut().expect(at_least_n) = *from.first_chunk::<N>().expect(at_least_n);
    *to.last_chunk_mut().expect(at_least_n) = *from.last_chunk::<N>().expect(at_least_n);
}

#[cfg(test)]
mod tests {
    use super::super::close::CloseCode;
    use super::*;

    #[test]
    fn the_examples_of_rfc_6455_section_5_7() {
        let mut out = Vec::new();
        let mut server = Encoder::<Server>::default();
        server.encode_message((), Message::Text("Hello"), &mut out).expect("open");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);

        out.clear();
        let key = MaskingKey::new([0x37, 0xfa, 0x21, 0x3d]);
        Encoder::<Client>::default().encode_message(key, Message::Text("Hello"), &mut out).expect("open");
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);

        out.clear();
        server.encode_first((), MessageKind::Text, b"Hel", &mut out).expect("open");
        server.encode_next((), b"lo", true, &mut out).expect("under way");
        assert_eq!(out, [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f]);
    }

    #[test]
    fn frames_of_any_length_stand_one_behind_the_other() {
        let payload: Vec<u8> = (0..300).map(|index| index as u8).collect();
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        let mut server = Encoder::<Server>::default();
        for length in (0..=300).chain((0..=300).rev()) {
            server.encode_message((), Message::Binary(&payload[..length]), &mut out).expect("open");
            let mut bits = [0; HEADER_BYTES_MAX];
            let header = FrameHeader { fin: true, opcode: Opcode::Binary, mask: None, payload_len: length as u64 };
            let header_len = header.encode(&mut bits);
            expected.extend_from_slice(&bits[..header_len]);
            expected.extend_from_slice(&payload[..length]);
            assert_eq!(out, expected, "{length}");
        }
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let mut out = Vec::new();
        let mut encoder = Encoder::<Server>::default();
        encoder.encode_close((), Some(CloseFrame { code: CloseCode::NORMAL, reason: "bye" }), &mut out).expect("open");
        assert_eq!(out, b"\x88\x05\x03\xe8bye");
        assert_eq!(encoder.encode_message((), Message::Text(""), &mut out), Err(EncodeError::CloseSent));
        assert_eq!(encoder.encode_pong((), b"", &mut out), Err(EncodeError::CloseSent));
        assert_eq!(encoder.encode_close((), None, &mut out), Err(EncodeError::CloseSent));
        assert_eq!(out.len(), 7);
    }

    #[test]
    fn control_frames_pass_between_fragments_and_messages_do_not() {
        let mut out = Vec::new();
        let mut encoder = Encoder::<Server>::default();
        assert_eq!(encoder.encode_next((), b"", true, &mut out), Err(EncodeError::FragmentOrder));
        assert!(!encoder.is_fragmented());
        encoder.encode_first((), MessageKind::Binary, b"1", &mut out).expect("open");
        assert!(encoder.is_fragmented());
        assert_eq!(encoder.encode_message((), Message::Text(""), &mut out), Err(EncodeError::FragmentOrder));
        let first_again = encoder.encode_first((), MessageKind::Binary, b"1", &mut out);
        assert_eq!(first_again, Err(EncodeError::FragmentOrder));
        assert_eq!(encoder.encode_ping((), &[0; 126], &mut out), Err(EncodeError::ControlTooLong));
        encoder.encode_ping((), b"?", &mut out).expect("control frames may be interjected");
        encoder.encode_next((), b"", false, &mut out).expect("under way");
        assert!(encoder.is_fragmented());
        encoder.encode_next((), b"2", true, &mut out).expect("under way");
        assert!(!encoder.is_fragmented());
        encoder.encode_message((), Message::Text("t"), &mut out).expect("the message is finished");
        assert_eq!(out, b"\x02\x011\x89\x01?\x00\x00\x80\x012\x81\x01t");
    }

    #[test]
    fn a_close_frame_ends_a_fragmented_message() {
        let mut out = Vec::new();
        let mut encoder = Encoder::<Server>::default();
        encoder.encode_first((), MessageKind::Text, b"1", &mut out).expect("open");
        encoder.encode_close((), None, &mut out).expect("control frames may be interjected");
        assert!(!encoder.is_fragmented());
        assert_eq!(encoder.encode_next((), b"2", true, &mut out), Err(EncodeError::CloseSent));
        assert_eq!(encoder.encode_first((), MessageKind::Text, b"", &mut out), Err(EncodeError::CloseSent));
        assert_eq!(out, b"\x01\x011\x88\x00");
    }

    /// RFC 6455 §5.3: each frame has a key of its own, and the first byte of each meets the key's first.
    #[test]
    fn fragments_of_a_client_are_masked_each_for_itself() {
        let mut out = Vec::new();
        let mut client = Encoder::<Client>::default();
        let [first, ping, last] = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]].map(MaskingKey::new);
        client.encode_first(first, MessageKind::Binary, &[0; 3], &mut out).expect("open");
        client.encode_ping(ping, &[0], &mut out).expect("control frames may be interjected");
        client.encode_next(last, &[0; 5], true, &mut out).expect("under way");
        assert_eq!(out[..9], [0x02, 0x83, 1, 2, 3, 4, 1, 2, 3]);
        assert_eq!(out[9..16], [0x89, 0x81, 5, 6, 7, 8, 5]);
        assert_eq!(out[16..], [0x80, 0x85, 9, 8, 7, 6, 9, 8, 7, 6, 9]);
    }

    #[test]
    fn a_long_reason_is_cut_to_fit() {
        let mut out = Vec::new();
        let reason = "é".repeat(200);
        Encoder::<Server>::default()
            .encode_close((), Some(CloseFrame { code: CloseCode::NORMAL, reason: &reason }), &mut out)
            .expect("open");
        assert_eq!(out.len(), 2 + 2 + 122);
    }
}
