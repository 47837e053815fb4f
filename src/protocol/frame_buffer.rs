//! The buffer in which a message is gathered: its payload, and in front of it room for the header that makes it a
//! frame to be sent on (RFC 6455 §5.2).
//!
//! ```text
//!  0         10 − n      10                  length      capacity
//! ┌───────────┬───────────┬────────────────────┬────────────┐
//! │  unused   │ n: header │      payload       │   spare    │
//! └───────────┴───────────┴────────────────────┴────────────┘
//!             └───────── Prepared ─────────────┘
//! ```
//!
//! It never allocates by a length that was announced; such a length only keeps it from growing further.

use super::frame::{FrameHeader, HEADER_BYTES_MAX};
use super::message::{MessageKind, Prepared};
use crate::base::limits::{
    ASSEMBLY_BYTES_FIRST, ASSEMBLY_DOUBLED_BYTES_MAX, ASSEMBLY_QUADRUPLED_BYTES_MAX, ASSEMBLY_STEP_BYTES_MIN,
};
use bytes::{Buf, Bytes};

/// Room for the longest header without a masking key: 2 bytes and 8 of length.
const HEADER_ROOM: usize = 10;

/// Payload that grows. Owns no memory before its first byte.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: Vec<u8>,
    /// Bytes of memory that are lent out, with all that they hold.
    lent: usize,
    /// They were, so that others have had what stood there.
    was_lent: bool,
}

impl FrameBuffer {
    /// Appends payload. `rest` is how much the message still lacks, if that is known.
    pub(super) fn push(&mut self, payload: &[u8], rest: Option<u64>) {
        if payload.is_empty() {
            return;
        }
        if self.bytes.is_empty() {
            self.grow(HEADER_ROOM + payload.len(), rest);
            self.bytes.resize(HEADER_ROOM, 0);
        } else {
            self.grow(payload.len(), rest);
        }
        self.bytes.extend_from_slice(payload);
    }

    /// Makes room for `more` bytes.
    ///
    /// What is spare when the message ends stays with its frame, for as long as that lies in a queue. So the buffer
    /// doubles while it is small, then grows by [`ASSEMBLY_STEP_BYTES_MIN`], then, beyond four times that, by a quarter:
    /// of a long message's memory at most a fifth is spare, and its bytes are moved four times on average instead of
    /// once (where the allocator cannot move pages instead, as it does with large blocks). Nothing is spare of a
    /// message in one frame, nor of one whose last fragment was the one that needed room: then its end is known. So such a
    /// one grows faster, from the first read on to four times what has come, and is moved less: a quarter of its bytes, up
    /// to 1 MiB.
    fn grow(&mut self, more: usize, rest: Option<u64>) {
        let needed = self.bytes.len() + more;
        let capacity = self.bytes.capacity();
        if needed <= capacity {
            return;
        }
        let grown = match capacity {
            ..ASSEMBLY_QUADRUPLED_BYTES_MAX if rest.is_some() => 4 * needed,
            ..ASSEMBLY_DOUBLED_BYTES_MAX if rest.is_some() => 2 * capacity,
            _ => capacity + capacity.min(ASSEMBLY_STEP_BYTES_MIN.max(capacity / 4)),
        };
        let grown = grown.max(ASSEMBLY_BYTES_FIRST);
        let rest = rest.and_then(|rest| usize::try_from(rest).ok()).unwrap_or(usize::MAX);
        let enough = needed.saturating_add(rest);
        self.bytes.reserve_exact(grown.clamp(needed, enough) - self.bytes.len());
    }

    /// Bytes of memory that it holds, those lent out too.
    pub(super) const fn capacity(&self) -> usize {
        if self.lent > 0 { self.lent } else { self.bytes.capacity() }
    }

    const fn spare(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Lends its memory out, so that what follows is written behind what is there: at least `least` bytes, of the `rest` that the
    /// message lacks if that is known. Where it grows for that, or is lent for the first time, then up to `ahead` bytes of those.
    /// Nothing may be done with it until that has come back.
    pub(super) fn lend(&mut self, least: usize, rest: Option<u64>, ahead: usize) -> Vec<u8> {
        debug_assert!(self.lent == 0 && !self.bytes.is_empty());
        let has_room = self.spare() >= least;
        if !has_room {
            self.grow(least, rest.map(|rest| rest - least as u64));
        }
        let ahead = rest.map_or(0, |rest| usize::try_from(rest).unwrap_or(usize::MAX).min(ahead));
        if self.spare() < ahead && !(self.was_lent && has_room) {
            // Where memory is reallocated, what is spare of it may be moved too.
            let mut bytes = Vec::with_capacity(self.bytes.len() + ahead);
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
        self.lent = self.bytes.capacity();
        self.was_lent = true;
        std::mem::take(&mut self.bytes)
    }

    /// Takes its memory back. Answers the payload that was written: the last `count` bytes.
    pub(super) fn take_back(&mut self, bytes: Vec<u8>, count: usize) -> &mut [u8] {
        debug_assert_eq!(self.lent, bytes.capacity());
        self.lent = 0;
        self.bytes = bytes;
        let start = self.bytes.len() - count;
        &mut self.bytes[start..]
    }

    /// Whether its bytes are those that were put here, and nobody else has had them since.
    pub(super) const fn is_untouched(&self) -> bool {
        !self.was_lent
    }

    /// What has come of the payload.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER_ROOM..).unwrap_or_default()
    }

    /// The message, complete, as a frame to be sent on: the header is written in front of the payload where it lies.
    pub(super) fn into_prepared(mut self, kind: MessageKind) -> Prepared {
        if self.bytes.is_empty() {
            self.bytes.resize(HEADER_ROOM, 0);
        }
        let payload_len = (self.bytes.len() - HEADER_ROOM) as u64;
        let mut bits = [0; HEADER_BYTES_MAX];
        let header_len = FrameHeader { fin: true, opcode: kind.opcode(), mask: None, payload_len }.encode(&mut bits);
        let start = HEADER_ROOM - header_len;
        self.bytes[start..HEADER_ROOM].copy_from_slice(&bits[..header_len]);
        // Only the first allocation can be less than half full. Many short messages may wait in a queue.
        if self.bytes.len() < self.bytes.capacity() / 2 {
            self.bytes.shrink_to_fit();
        }
        // Since 1.4 `bytes` takes a vector over with its spare capacity; before, it moved the payload.
        let mut frame = Bytes::from(self.bytes);
        frame.advance(start);
        Prepared::of_frame(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;
    use crate::base::limits::{KIB, MIB};

    #[test]
    fn what_was_gathered_is_the_frame_that_would_be_encoded() {
        for length in [0, 1, 125, 126, 4_085, 4_086, 4_087, 65_535, 65_536, 300_000] {
            let payload: Vec<u8> = (0..length).map(|index| b'a' + (index % 23) as u8).collect();
            let text = std::str::from_utf8(&payload).expect("ASCII");
            for (kind, message) in [(MessageKind::Text, text.into()), (MessageKind::Binary, Message::Binary(&payload))]
            {
                for piece in [1, 7, 4_096, 1 << 20] {
                    let mut buffer = FrameBuffer::default();
                    payload.chunks(piece).for_each(|piece| buffer.push(piece, None));
                    let prepared = buffer.into_prepared(kind);
                    assert_eq!(prepared, Prepared::new(message), "{length} bytes in pieces of {piece}");
                    assert_eq!(prepared.payload(), payload);
                }
            }
        }
    }

    #[test]
    fn little_is_spare_and_growing_is_linear() {
        for piece in [1_000, 4_096, 65_536, MIB - 10, MIB + 1] {
            let mut buffer = FrameBuffer::default();
            let piece = vec![b'x'; piece];
            let (mut pushed, mut moved, mut before) = (0, 0, 0);
            while pushed < 40 * MIB {
                buffer.push(&piece, None);
                pushed += piece.len();
                if buffer.capacity() != before {
                    moved += before;
                    before = buffer.capacity();
                }
                let spare = buffer.capacity() - pushed - HEADER_ROOM;
                let spare_max = match pushed {
                    ..=4_096 => 4_096,
                    4_097..MIB => pushed.min(256 * KIB),
                    _ => pushed / 4,
                };
                assert!(spare <= spare_max, "{spare} bytes spare of {pushed}");
            }
            assert!(moved <= 5 * pushed, "{moved} bytes moved for {pushed}");
        }
    }

    /// The end of the message bounds the buffer; the beginning of the growth does not depend on it.
    #[test]
    fn an_announced_length_bounds_the_buffer_and_allocates_nothing() {
        for length in [1, 4_000, 5_000, 100_000, 3 * MIB] {
            let mut buffer = FrameBuffer::default();
            for pushed in (0..length).step_by(1_000) {
                let piece = vec![b'x'; 1_000.min(length - pushed)];
                buffer.push(&piece, Some((length - pushed - piece.len()) as u64));
                assert!(buffer.capacity() <= length + HEADER_ROOM);
                assert!(buffer.capacity() <= 4 * (pushed + piece.len() + HEADER_ROOM).max(ASSEMBLY_BYTES_FIRST / 4));
            }
            assert_eq!(buffer.capacity(), length + HEADER_ROOM);
        }
        let mut buffer = FrameBuffer::default();
        buffer.push(b"x", Some(u64::MAX));
        assert_eq!(buffer.capacity(), ASSEMBLY_BYTES_FIRST);
    }

    /// What is ahead is given at once, of what the message lacks; and again only when that is full.
    #[test]
    fn where_memory_is_plentiful_it_grows_ahead_of_what_comes() {
        const FIRST: usize = 64 * KIB;
        for (length, capacities) in [
            (100_000, &[100_000][..]),
            (MIB, &[MIB]),
            // As far ahead; twice that; and what is left.
            (4 * MIB, &[FIRST + MIB, 2 * (FIRST + MIB + HEADER_ROOM) - HEADER_ROOM, 4 * MIB]),
        ] {
            let mut buffer = FrameBuffer::default();
            buffer.push(&[b'x'; FIRST], Some((length - FIRST) as u64));
            let mut expected = capacities.iter().map(|bytes| bytes + HEADER_ROOM);
            let (mut came, mut capacity) = (FIRST, 0);
            while came < length {
                let mut bytes = buffer.lend((16 * KIB).min(length - came), Some((length - came) as u64), MIB);
                assert_eq!(buffer.capacity(), bytes.capacity());
                if bytes.capacity() != capacity {
                    capacity = bytes.capacity();
                    assert_eq!(Some(capacity), expected.next(), "{came} of {length}");
                }
                let count = (200 * KIB).min(bytes.capacity() - bytes.len());
                bytes.resize(bytes.len() + count, b'y');
                assert_eq!(buffer.take_back(bytes, count).len(), count);
                came += count;
            }
            assert_eq!(expected.next(), None);
            assert_eq!(buffer.payload()[FIRST - 1..=FIRST], *b"xy");
        }
    }

    #[test]
    fn a_short_message_gives_back_what_it_does_not_fill() {
        let mut buffer = FrameBuffer::default();
        buffer.push(b"short", None);
        assert_eq!(buffer.capacity(), ASSEMBLY_BYTES_FIRST);
        let vector = Vec::from(buffer.into_prepared(MessageKind::Text).frame().clone());
        assert_eq!(vector, b"\x81\x05short");
    }
}
