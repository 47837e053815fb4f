//! Frames prepared ahead: one message, masked under many keys, to be stamped when it leaves.
//!
//! RFC 6455 §5.3 wants a fresh, unpredictable key for each frame. Keys come from a generator seeded by the system; a
//! frame is sent again under the same key only after all the others of the row.

use crate::stamp::Wire;
use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use ringwave::driver::Batch;
use ringwave::protocol::encoder::{Client, Encoder};
use ringwave::protocol::mask::MaskingKey;
use ringwave::{Message, MessageKind};

/// Bytes of all prepared frames together, about.
const PREPARED_BYTES: usize = 1 << 20;
/// Frames that are prepared at most and at least.
const PREPARED_MAX: usize = 1024;
const PREPARED_MIN: usize = 4;
/// Up to this length a frame is copied into its batch; beyond it only its head is, and the rest is shared.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// A message of which only the stamp changes.
pub(crate) struct Frames {
    payload: Vec<u8>,
    kind: MessageKind,
    prepared: Vec<Prepared>,
    next: usize,
}

struct Prepared {
    key: MaskingKey,
    /// Header and masked payload; without a header and a mask for a bare echo.
    frame: Bytes,
}

impl Frames {
    /// Messages of `size` bytes, as WebSocket frames or, `bare`, as they are.
    pub(crate) fn new(size: usize, kind: MessageKind, bare: bool, random: &mut SmallRng) -> Self {
        // Letters: text as well, and not all the same byte.
        let payload: Vec<u8> = (0..size).map(|index| b'a' + (index % 26) as u8).collect();
        let count = if bare { 1 } else { (PREPARED_BYTES / size.max(1)).clamp(PREPARED_MIN, PREPARED_MAX) };
        let prepare = |_| {
            let key = if bare { MaskingKey::new([0; 4]) } else { MaskingKey::new(random.random()) };
            let frame = if bare { payload.clone() } else { encoded(key, kind, &payload) };
            Prepared { key, frame: Bytes::from(frame) }
        };
        let prepared = (0..count).map(prepare).collect();
        Self { payload, kind, prepared, next: 0 }
    }

    /// Appends the next frame with this stamp, or with as much of it as the message has room for.
    #[inline]
    pub(crate) fn append(&mut self, stamp: &Wire, batch: &mut Batch) {
        let Prepared { key, frame } = &self.prepared[self.next];
        self.next += 1;
        if self.next == self.prepared.len() {
            self.next = 0;
        }
        let stamp = stamp.masked(*key);
        let stamp_len = stamp.as_bytes().len().min(self.payload.len());
        let header_len = frame.len() - self.payload.len();
        let stamped_len = header_len + stamp_len;
        let copied_len = if frame.len() <= COPIED_BYTES_MAX { frame.len() } else { stamped_len };
        batch.append(|out| {
            let start = out.len();
            out.extend_from_slice(&frame[..copied_len]);
            out[start + header_len..start + stamped_len].copy_from_slice(&stamp.as_bytes()[..stamp_len]);
        });
        if copied_len < frame.len() {
            // By reference, and as far from a page's start as in one piece: the kernel copies whole pages fastest.
            batch.push_shared(&frame.slice(copied_len..));
        }
    }

    /// What comes after the stamp.
    pub(crate) fn body(&self, stamp_len: usize) -> &[u8] {
        self.payload.get(stamp_len..).unwrap_or_default()
    }

    /// Bytes of a message.
    pub(crate) fn size(&self) -> usize {
        self.payload.len()
    }

    pub(crate) fn kind(&self) -> MessageKind {
        self.kind
    }
}

fn encoded(key: MaskingKey, kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let message = match kind {
        MessageKind::Text => Message::Text(std::str::from_utf8(payload).expect("letters are UTF-8")),
        MessageKind::Binary => Message::Binary(payload),
    };
    let mut frame = Vec::new();
    Encoder::<Client>::default().encode_message(key, message, &mut frame).expect("nothing was sent before it");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Stamp, StampForm};
    use rand::SeedableRng;
    use ringwave::Limits;
    use ringwave::protocol::connection::Connection;
    use ringwave::protocol::decoder::Event;
    use ringwave::protocol::encoder::Server;

    #[test]
    fn a_server_reads_the_stamp_and_the_body_whatever_the_size() {
        for kind in [MessageKind::Text, MessageKind::Binary] {
            for size in [1, 11, 12, 16, 20, 125, 126, 65_535, 65_536, 100_000] {
                let form = StampForm::short(kind == MessageKind::Text, 0);
                let mut frames = Frames::new(size, kind, false, &mut SmallRng::seed_from_u64(1));
                let mut batch = Batch::default();
                for sequence in 0..3 {
                    frames.append(&form.encode(Stamp { sender: 9, sequence, time: 0 }), &mut batch);
                }
                let mut wire: Vec<u8> = batch.remaining().flatten().copied().collect();
                let limits = Limits::default();
                let mut connection = Connection::<Server>::open();
                let (mut events, _) = connection.receive(&mut wire, &limits);
                for sequence in 0..3 {
                    let Ok(Some(Event::Message(message))) = events.next_event() else { panic!("{size} bytes") };
                    assert_eq!((message.kind(), message.len()), (kind, size));
                    let stamp = form.decode(message.as_bytes());
                    assert_eq!(stamp.map(|stamp| stamp.sequence), (size >= form.len()).then_some(sequence));
                    assert_eq!(message.as_bytes().get(form.len()..).unwrap_or_default(), frames.body(form.len()));
                }
            }
        }
    }

    #[test]
    fn keys_differ_from_frame_to_frame() {
        let frames = Frames::new(20, MessageKind::Binary, false, &mut SmallRng::seed_from_u64(1));
        let mut keys: Vec<_> = frames.prepared.iter().map(|prepared| prepared.key.bytes()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert!(keys.len() >= PREPARED_MAX - 1);
    }
}
