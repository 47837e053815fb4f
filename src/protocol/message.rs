//! Messages: what applications exchange (RFC 6455 §5.6), whole or in chunks, and messages encoded once for many
//! receivers.

use super::frame::{FrameHeader, HEADER_BYTES_MAX, Opcode};
use bytes::{BufMut, Bytes, BytesMut};

/// Text or binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Anything.
    Binary,
}

impl MessageKind {
    /// The kind of a message that begins with a frame of this opcode, if one does.
    pub(super) const fn of(opcode: Opcode) -> Option<Self> {
        match opcode {
            Opcode::Text => Some(Self::Text),
            Opcode::Binary => Some(Self::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        }
    }

    /// The opcode of such a message's first frame.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// A whole message, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text: UTF-8 already proven.
    Text(&'a str),
    /// Binary data.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Text or binary.
    pub const fn kind(self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// The payload.
    pub const fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Bytes of payload.
    pub const fn len(self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A part of a message that is handed out as it comes ([`Delivery::Chunks`](crate::Delivery::Chunks)), borrowed from
/// the bytes of one read.
///
/// Where a message is cut depends on how it was read; its chunks one behind the other are its payload. Of a message
/// that breaks a rule some chunks may have been handed out, and none of them is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// What the message is.
    pub kind: MessageKind,
    /// The next bytes of the message; empty only in the last chunk. They are bytes for text too: a chunk may begin and
    /// end inside a character. But all bytes of a text up to here may begin a UTF-8 text, and after the last chunk
    /// they are one.
    pub payload: &'a [u8],
    /// Whether the message begins with this chunk. One chunk of each message is the first.
    pub first: bool,
    /// Whether it ends with this chunk, which may be the first too. One chunk of each message is the last.
    pub last: bool,
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

/// A message encoded once as an unmasked frame, for any number of receivers: header and payload contiguous
/// and counted by reference. Cloning costs an increment, no copy.
///
/// ```
/// use ringwave::Prepared;
/// let tick = Prepared::new("42.00");
/// assert_eq!(&tick.frame()[..], b"\x81\x0542.00");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    frame: Bytes,
}

impl Prepared {
    /// Encodes `message`. Cost: one allocation and one copy of the payload.
    pub fn new<'a>(message: impl Into<Message<'a>>) -> Self {
        let message = message.into();
        let header =
            FrameHeader { fin: true, opcode: message.kind().opcode(), mask: None, payload_len: message.len() as u64 };
        let mut bits = [0; HEADER_BYTES_MAX];
        let header_len = header.encode(&mut bits);
        let mut frame = BytesMut::with_capacity(header_len + message.len());
        frame.put_slice(&bits[..header_len]);
        frame.put_slice(message.as_bytes());
        Self { frame: frame.freeze() }
    }

    /// A frame that has been encoded already: unmasked and final.
    pub(super) const fn of_frame(frame: Bytes) -> Self {
        Self { frame }
    }

    /// What stands behind the header.
    pub(super) fn payload(&self) -> &[u8] {
        // RFC 6455 §5.2: the second byte tells how long the length is; there is no masking key.
        let header_len = match self.frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        &self.frame[header_len..]
    }

    /// Whether this is that very message: not one that is equal, but the same bytes in memory, of the same kind.
    pub fn is_of(&self, message: Message<'_>) -> bool {
        std::ptr::eq(self.payload(), message.as_bytes()) && self.frame[0] & 0x0f == message.kind().opcode() as u8
    }

    /// The frame as it goes onto the wire.
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_is_header_and_payload_in_one_piece() {
        for length in [0usize, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![7u8; length];
            let prepared = Prepared::new(&payload);
            let header_len = match length {
                0..=125 => 2,
                126..=65_535 => 4,
                _ => 10,
            };
            assert_eq!(prepared.frame().len(), header_len + length);
            assert_eq!(prepared.frame()[header_len..], payload[..]);
            assert_eq!(prepared.payload(), payload);
        }
    }
}
