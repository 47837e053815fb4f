//! Unmasking (RFC 6455 §5.3) beside `memcpy`, in payload bytes per second: one large payload that stays in a
//! cache, and messages one behind the other, as a receive buffer holds them.
//!
//! ```text
//! taskset -c 1 cargo bench --bench mask
//! ```

mod support;

use std::hint::black_box;

use ringwave::protocol::mask::{MaskingKey, apply_mask, instruction_sets};
use support::{Batch, Contender, Options, compare};

const KEY: MaskingKey = MaskingKey::new([0x37, 0xfa, 0x21, 0x3d]);

/// Payloads that lie, together with the copy that `memcpy` makes, in a cache of the size that the name tells.
const CACHES: [(&str, usize); 3] = [("L1 (32 KiB)", 12 << 10), ("L2 (1 MiB)", 256 << 10), ("L3 (32 MiB)", 4 << 20)];

/// Bytes of a message's payload, and of the header before it (RFC 6455 §5.2, with a masking key).
const MESSAGES: [(usize, usize); 5] = [(20, 6), (125, 6), (1 << 10, 8), (16 << 10, 8), (64 << 10, 14)];

/// Bytes of short messages that lie one behind the other. A loop over one message would read in each turn
/// what it wrote in the turn before, and so measure the CPU's store buffer.
const RECEIVED_BYTES: usize = 12 << 10;

fn main() {
    let options = Options::from_arguments();
    for (cache, bytes) in CACHES {
        compare_with_memcpy(&options, &format!("payload of {bytes} bytes in {cache}"), bytes, 14, 1);
    }
    for (bytes, header_bytes) in MESSAGES {
        let count = (RECEIVED_BYTES / (header_bytes + bytes)).max(1);
        let title = format!("messages of {bytes} bytes, {count} one behind the other");
        compare_with_memcpy(&options, &title, bytes, header_bytes, count);
    }
}

/// Lets `memcpy` and every way of masking work on `count` payloads of `bytes` bytes, each behind a header.
///
/// The payloads begin wherever the headers before them end. `memcpy` reads from there too, and writes
/// without headers between, from an aligned address on.
fn compare_with_memcpy(options: &Options, title: &str, bytes: usize, header_bytes: usize, count: usize) {
    let frame_bytes = header_bytes + bytes;
    let batch = Batch { messages: count, bytes: bytes * count };
    let received = || AlignedBytes::new(frame_bytes * count);

    let (mut source, mut copies) = (received(), AlignedBytes::new(batch.bytes));
    let mut contenders = vec![Contender::new("memcpy", batch, move || {
        let frames = source.as_mut().chunks_exact(frame_bytes);
        for (frame, copy) in frames.zip(copies.as_mut().chunks_exact_mut(bytes)) {
            black_box(copy).copy_from_slice(black_box(&frame[header_bytes..]));
        }
    })];
    let mut received_frames = received();
    contenders.push(Contender::new("apply_mask", batch, move || {
        for frame in received_frames.as_mut().chunks_exact_mut(frame_bytes) {
            apply_mask(black_box(&mut frame[header_bytes..]), black_box(KEY));
        }
    }));
    for set in instruction_sets() {
        let mut received_frames = received();
        contenders.push(Contender::new(set.name(), batch, move || {
            for frame in received_frames.as_mut().chunks_exact_mut(frame_bytes) {
                set.apply(black_box(&mut frame[header_bytes..]), black_box(KEY));
            }
        }));
    }
    compare(options, title, contenders);
}

/// Bytes that begin with a cache line, so that no run is luckier with its addresses than another.
struct AlignedBytes {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBytes {
    const ALIGNMENT: usize = 64;

    fn new(bytes: usize) -> Self {
        let memory = vec![b'w'; bytes + Self::ALIGNMENT];
        let start = memory.as_ptr().align_offset(Self::ALIGNMENT);
        Self { memory, start, bytes }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}
