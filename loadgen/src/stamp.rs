//! What a message carries so that whoever gets it can say whether it is right: who sent it, which one it is, a check
//! over both, and, for messages that travel to others, when it was meant to leave.
//!
//! ```text
//!  0           5        8           12               18
//! ┌───────────┬────────┬───────────┬────────────────┐
//! │ sequence  │ sender │   check   │ time, ns       │   little-endian; in text messages the same in base64
//! └───────────┴────────┴───────────┴────────────────┘
//!  short: 12 bytes, 16 characters             long: 18 bytes, 24 characters
//! ```
//! A message too short for a stamp carries as much of it as fits: its answer can be compared, but not told apart from a
//! lost or doubled one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ringwave::protocol::mask::MaskingKey;

const SHORT_BYTES: usize = 12;
const LONG_BYTES: usize = 18;
/// Longest stamp on the wire: the long one as text.
const WIRE_BYTES_MAX: usize = 24;
const SEQUENCE_MAX: u64 = (1 << 40) - 1;
const SENDER_MAX: u32 = (1 << 24) - 1;
const TIME_MAX: u64 = (1 << 48) - 1;

/// Who sent which message when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// A connection's or a publisher's number, below 2²⁴.
    pub(crate) sender: u32,
    /// From 0, below 2⁴⁰.
    pub(crate) sequence: u64,
    /// Nanoseconds since the program's start, below 2⁴⁸ (three days); 0 in a short stamp.
    pub(crate) time: u64,
}

/// How stamps stand in a scenario's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StampForm {
    long: bool,
    text: bool,
    /// Of this program's run: the check of somebody else's message does not agree.
    nonce: u64,
}

/// A stamp as it stands in a message.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    bytes: [u8; WIRE_BYTES_MAX],
    len: usize,
}

impl Wire {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// As it stands in a payload that begins with it and is masked with `key`.
    #[inline]
    pub(crate) fn masked(mut self, key: MaskingKey) -> Self {
        let key = u32::from_ne_bytes(key.bytes());
        for word in self.bytes.as_chunks_mut().0 {
            *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        self
    }
}

impl StampForm {
    /// For messages that come back to their sender, which remembers when they left.
    pub(crate) const fn short(text: bool, nonce: u64) -> Self {
        Self { long: false, text, nonce }
    }

    /// For messages that others get.
    pub(crate) const fn long(text: bool, nonce: u64) -> Self {
        Self { long: true, text, nonce }
    }

    /// Bytes of a message that the stamp takes.
    #[inline]
    pub(crate) const fn len(self) -> usize {
        let bytes = if self.long { LONG_BYTES } else { SHORT_BYTES };
        if self.text { bytes / 3 * 4 } else { bytes }
    }

    #[inline]
    pub(crate) fn encode(self, stamp: Stamp) -> Wire {
        debug_assert!(stamp.sender <= SENDER_MAX && stamp.sequence <= SEQUENCE_MAX && stamp.time <= TIME_MAX);
        let mut wire = Wire { bytes: [0; WIRE_BYTES_MAX], len: self.len() };
        wire.bytes[..8].copy_from_slice(&stamp.name().to_le_bytes());
        wire.bytes[8..12].copy_from_slice(&self.check(stamp).to_le_bytes());
        if self.long {
            wire.bytes[12..20].copy_from_slice(&stamp.time.to_le_bytes());
        }
        if self.text {
            let raw = wire.bytes;
            let raw = &raw[..if self.long { LONG_BYTES } else { SHORT_BYTES }];
            BASE64.encode_slice(raw, &mut wire.bytes).expect("3 bytes take 4 characters");
        }
        wire
    }

    /// The stamp at the start of a payload; `None` if it is too short or its check does not agree.
    #[inline]
    pub(crate) fn decode(self, payload: &[u8]) -> Option<Stamp> {
        let wire = payload.get(..self.len())?;
        let mut raw = [0; LONG_BYTES + 2];
        if self.text {
            BASE64.decode_slice(wire, &mut raw).ok()?;
        } else {
            raw[..wire.len()].copy_from_slice(wire);
        }
        let [name, check, time] = [0..8, 8..12, 12..20].map(|range| {
            let mut bytes = [0; 8];
            bytes[..range.len()].copy_from_slice(&raw[range]);
            u64::from_le_bytes(bytes)
        });
        let stamp = Stamp { sequence: name & SEQUENCE_MAX, sender: (name >> 40) as u32, time };
        (u64::from(self.check(stamp)) == check).then_some(stamp)
    }

    /// 32 bits over all of a stamp; any bit of it changes about half of them.
    #[inline]
    fn check(self, stamp: Stamp) -> u32 {
        let name = mix(stamp.name() ^ self.nonce);
        (if self.long { name ^ mix(stamp.time ^ 0x9e37_79b9_7f4a_7c15) } else { name }) as u32
    }
}

impl Stamp {
    /// Sequence and sender in one number.
    const fn name(self) -> u64 {
        self.sequence | (self.sender as u64) << 40
    }
}

/// The finalizer of SplitMix64.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_the_wire_in_every_form() {
        for (long, time) in [(false, 0), (true, TIME_MAX)] {
            for text in [false, true] {
                let form = StampForm { long, text, nonce: 7 };
                for (sender, sequence) in [(0, 0), (SENDER_MAX, SEQUENCE_MAX), (7, 1 << 33)] {
                    let stamp = Stamp { sender, sequence, time };
                    let wire = form.encode(stamp);
                    assert_eq!(wire.as_bytes().len(), form.len());
                    assert_eq!(form.decode(wire.as_bytes()), Some(stamp));
                    assert!(!text || std::str::from_utf8(wire.as_bytes()).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_seen() {
        let form = StampForm::long(false, 7);
        let wire = form.encode(Stamp { sender: 3, sequence: 5, time: 9 });
        for bit in 0..8 * form.len() {
            let mut bytes = wire.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(form.decode(&bytes), None, "bit {bit}");
        }
        assert_eq!(form.decode(&wire.as_bytes()[1..]), None);
        assert_eq!(StampForm::long(false, 8).decode(wire.as_bytes()), None, "another program's");
    }
}
