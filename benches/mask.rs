//! Unmasking beside `memcpy`: one big payload that lies in the L1, L2 or L3 cache, and many small
//! messages one behind the other, as a receive buffer holds them.
//!
//! ```text
//! cargo bench --bench mask
//! ```

mod support;

use std::hint::black_box;

use ringwave::protocol::mask::{MaskingKey, apply_mask, instruction_sets};
use support::{Contender, Options, compare};

const KEY: MaskingKey = MaskingKey::new([0x37, 0xfa, 0x21, 0x3d]);

/// Payloads that lie, with the copy that `memcpy` makes, in a cache of 32 KiB, 1 MiB and 16 MiB.
const CACHES: [(&str, usize); 3] = [("L1", 12 << 10), ("L2", 256 << 10), ("L3", 4 << 20)];

/// Payload sizes of messages, and the bytes of header before each (RFC 6455 §5.2, masked).
const MESSAGES: [(usize, usize); 5] = [(20, 6), (125, 6), (1 << 10, 8), (16 << 10, 8), (64 << 10, 14)];

/// The receive buffer that messages lie in.
const RECEIVED_BYTES: usize = 16 << 10;

fn main() {
    let options = Options::from_arguments();
    for (cache, bytes) in CACHES {
        compare_payload(&options, &format!("{cache}: one payload of {bytes} bytes"), bytes);
    }
    for (bytes, header) in MESSAGES {
        compare_messages(&options, bytes, header);
    }
}
fn compare_payload(options: &Options, title: &str, bytes: usize) {
    let _ = (options, title, bytes);
}
fn compare_messages(options: &Options, bytes: usize, header: usize) {
    let _ = (options, bytes, header);
}
