//! The frame header (RFC 6455 §5.2): bits to a value and back, with the rules that the header alone can break.
//!
//! ```text
//!  byte 0            byte 1            then
//! ┌───┬─────┬──────┐┌──────┬─────────┐┌──────────────────────┬─────────────────┐
//! │FIN│RSV  │opcode││ MASK │ length  ││ 16 or 64 bits more of │ masking key,    │
//! │ 1 │1 1 1│  4   ││  1   │    7    ││ length: 126, 127      │ 32 bits: if MASK│
//! └───┴─────┴──────┘└──────┴─────────┘└──────────────────────┴─────────────────┘
//! ```

use super::error::ProtocolError;
use super::mask::MaskingKey;
use crate::base::fault::{Fault, planted};
use crate::base::limits::CONTROL_PAYLOAD_BYTES_MAX;

/// Bytes of the longest header: 2 + 8 of length + 4 of masking key.
pub const HEADER_BYTES_MAX: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0x0,
    /// The first fragment of a text.
    Text = 0x1,
    /// The first fragment of binary data.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// Are you there?
    Ping = 0x9,
    /// I am.
    Pong = 0xa,
}

impl Opcode {
    const fn decode(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping or pong (RFC 6455 §5.5).
    pub const fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// A frame's header. The reserved bits are zero: no extension is spoken that uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The last fragment of its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The key its payload is masked with, on the way from client to server.
    pub mask: Option<MaskingKey>,
    /// Bytes of payload, at most 2⁶³ − 1.
    pub payload_len: u64,
}

/// What [`FrameHeader::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A header, and the number of bytes it took.
    Header(FrameHeader, usize),
    /// The start of one: call again with more bytes.
    Incomplete,
}

impl FrameHeader {
    /// Reads the header at the front of `bytes`.
    ///
    /// # Errors
    /// The first rule broken, in the order of the bytes, as soon as its byte is there.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Decoded, ProtocolError> {
        let Some(&first) = bytes.first() else { return Ok(Decoded::Incomplete) };
        let (fin, opcode) = Self::decode_first(first)?;
        let Some(&second) = bytes.get(1) else { return Ok(Decoded::Incomplete) };
        let masked = second & 0x80 != 0;
        let short_len = second & 0x7f;
        // RFC 6455 §5.5: at most 125 bytes.
        if opcode.is_control() && usize::from(short_len) > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(ProtocolError::ControlTooLong);
        }
        let (payload_len, length_end) = match short_len {
            126 => match bytes.get(2..4) {
                Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
                _ => return Ok(Decoded::Incomplete),
            },
            127 => match bytes.get(2..10).and_then(|eight| eight.try_into().ok()) {
                Some(eight) => (u64::from_be_bytes(eight), 10),
                None => return Ok(Decoded::Incomplete),
            },
            _ => (u64::from(short_len), 2),
        };
        // RFC 6455 §5.2: the most significant bit MUST be 0, the minimal number of bytes MUST be used.
        if payload_len > i64::MAX as u64 {
            return Err(ProtocolError::LengthSignBit);
        }
        if (short_len == 126 && payload_len < 126) || (short_len == 127 && payload_len <= 0xffff) {
            return Err(ProtocolError::LengthNotMinimal);
        }
        if !masked {
            return Ok(Decoded::Header(Self { fin, opcode, mask: None, payload_len }, length_end));
        }
        match bytes.get(length_end..length_end + 4) {
            Some(&[a, b, c, d]) => {
                let mask = Some(MaskingKey::new([a, b, c, d]));
                Ok(Decoded::Header(Self { fin, opcode, mask, payload_len }, length_end + 4))
            }
            _ => Ok(Decoded::Incomplete),
        }
    }

    #[inline]
    fn decode_first(first: u8) -> Result<(bool, Opcode), ProtocolError> {
        let fin = first & 0x80 != 0;
        // RFC 6455 §5.2: MUST be 0 unless an extension is negotiated that defines them.
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::decode(first & 0x0f).ok_or(ProtocolError::ReservedOpcode(first & 0x0f))?;
        // RFC 6455 §5.5: control frames MUST NOT be fragmented.
        if opcode.is_control() && !fin {
            return Err(ProtocolError::ControlFragmented);
        }
        Ok((fin, opcode))
    }

    /// Writes the header to the front of `out` and answers how many bytes it took.
    #[inline]
    pub fn encode(&self, out: &mut [u8; HEADER_BYTES_MAX]) -> usize {
        let mut length = 0;
        self.put(|bytes| {
            out[length..length + bytes.len()].copy_from_slice(bytes);
            length += bytes.len();
        });
        length
    }

    /// Appends it.
    #[inline]
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        self.put(|bytes| out.extend_from_slice(bytes));
    }

    /// Its bytes, if there is no masking key and the payload is short: two.
    #[inline]
    pub(super) fn short(&self) -> [u8; 2] {
        debug_assert!(self.mask.is_none() && self.payload_len <= 125);
        [(u8::from(self.fin) << 7) | self.opcode as u8, self.payload_len as u8]
    }

    /// Gives its bytes in pieces of a length that the compiler knows: such a copy is a store, and one of a length that is only
    /// known when it runs is a call that waits for the bytes to be written one by one (9 ns of a short message's 65).
    #[inline]
    fn put(&self, mut put: impl FnMut(&[u8])) {
        debug_assert!(self.payload_len <= i64::MAX as u64);
        let first = (u8::from(self.fin) << 7) | self.opcode as u8;
        let mask_bit = u8::from(self.mask.is_some()) << 7;
        match self.payload_len {
            126 if planted(Fault::LengthOffByOne) => put(&[first, mask_bit | 125]),
            0..=125 => put(&[first, mask_bit | self.payload_len as u8]),
            126..=0xffff => {
                let [high, low] = (self.payload_len as u16).to_be_bytes();
                put(&[first, mask_bit | 126, high, low]);
            }
            _ => {
                put(&[first, mask_bit | 127]);
                put(&self.payload_len.to_be_bytes());
            }
        }
        if let Some(key) = self.mask {
            put(&key.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [u64; 14] = [
        0,
        1,
        124,
        125,
        126,
        127,
        128,
        0xfffe,
        0xffff,
        0x1_0000,
        0x1_0001,
        0xffff_ffff,
        0x1_0000_0000,
        i64::MAX as u64,
    ];
    const OPCODES: [Opcode; 6] =
        [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];

    fn encoded(header: FrameHeader) -> Vec<u8> {
        let mut out = [0; HEADER_BYTES_MAX];
        let length = header.encode(&mut out);
        out[..length].to_vec()
    }

    #[test]
    fn what_is_encoded_decodes_to_itself_and_every_prefix_is_incomplete() {
        for payload_len in LENGTHS {
            for opcode in OPCODES {
                for mask in [None, Some(MaskingKey::new([1, 2, 3, 4]))] {
                    for fin in [true, false] {
                        if opcode.is_control() && (!fin || payload_len > 125) {
                            continue;
                        }
                        let header = FrameHeader { fin, opcode, mask, payload_len };
                        let bytes = encoded(header);
                        assert_eq!(FrameHeader::decode(&bytes), Ok(Decoded::Header(header, bytes.len())));
                        for end in 0..bytes.len() {
                            assert_eq!(FrameHeader::decode(&bytes[..end]), Ok(Decoded::Incomplete));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_pair_of_first_bytes_is_judged() {
        let step = if cfg!(miri) { 17 } else { 1 };
        for first in (0..=255u8).step_by(step) {
            for second in (0..=255u8).step_by(step) {
                let mut bytes = vec![first, second];
                bytes.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
                let control = first & 0x08 != 0;
                let expected = if first & 0x70 != 0 {
                    Err(ProtocolError::ReservedBits)
                } else if matches!(first & 0x0f, 3..=7 | 0xb..=0xf) {
                    Err(ProtocolError::ReservedOpcode(first & 0x0f))
                } else if control && first & 0x80 == 0 {
                    Err(ProtocolError::ControlFragmented)
                } else if control && second & 0x7f > 125 {
                    Err(ProtocolError::ControlTooLong)
                } else {
                    Ok(())
                };
                assert_eq!(FrameHeader::decode(&bytes).map(|_| ()), expected, "{first:#x} {second:#x}");
            }
        }
    }

    #[test]
    fn lengths_must_be_minimal_and_positive() {
        let with_64 = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
        let with_16 = |length: u16| [&[0x82, 0xfe][..], &length.to_be_bytes(), &[0; 4]].concat();
        for length in [0, 1, 125] {
            assert_eq!(FrameHeader::decode(&with_16(length)), Err(ProtocolError::LengthNotMinimal));
        }
        assert!(FrameHeader::decode(&with_16(126)).is_ok());
        for length in [0, 125, 126, 0xffff] {
            assert_eq!(FrameHeader::decode(&with_64(length)), Err(ProtocolError::LengthNotMinimal));
        }
        assert!(FrameHeader::decode(&with_64(0x1_0000)).is_ok());
        assert!(FrameHeader::decode(&with_64((1 << 63) - 1)).is_ok());
        for length in [1 << 63, (1 << 63) + 1, u64::MAX] {
            assert_eq!(FrameHeader::decode(&with_64(length)), Err(ProtocolError::LengthSignBit));
        }
    }
}
