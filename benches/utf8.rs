//! Validation of text beside the standard library's, in bytes per second: a whole message, the same bytes as
//! a fragment pushed to a validator, and the same in pieces as small as a network may cut them.
//!
//! ```text
//! taskset -c 1 cargo bench --bench utf8
//! ```

mod support;

use std::hint::black_box;

use ringwave::protocol::utf8::{Utf8Validator, validate_whole};
use support::{Batch, Contender, Options, compare};

/// Texts by what most of their characters take: one byte, two, three, and all lengths mixed.
const TEXTS: [(&str, &str); 4] = [
    ("ASCII", "The quick brown fox jumps over the lazy dog. "),
    ("two-byte", "Съешь ещё этих мягких французских булок. "),
    ("CJK", "天地玄黃宇宙洪荒日月盈昃辰宿列張。"),
    ("CJK and emoji", "今日は🙂 naïve 東京 👍🏽 ok, 大丈夫です。🎉"),
];

/// Bytes of one message.
const MESSAGES: [usize; 6] = [20, 48, 125, 1 << 10, 16 << 10, 256 << 10];

/// Bytes of short messages validated one after the other in one iteration.
const RECEIVED_BYTES: usize = 12 << 10;

/// Bytes of a piece when a message arrives in pieces: no multiple of a character's length.
const PIECE_BYTES: usize = 1_000;

fn main() {
    let options = Options::from_arguments();
    for (script, unit) in TEXTS {
        for bytes in MESSAGES {
            compare_with_std(&options, script, unit, bytes);
        }
    }
}

fn compare_with_std(options: &Options, script: &str, unit: &str, bytes: usize) {
    let message = text_of(unit, bytes);
    let count = (RECEIVED_BYTES / message.len()).max(1);
    let received = message.repeat(count);
    let batch = Batch { messages: count, bytes: received.len() };
    let messages = || received.chunks_exact(message.len()).map(black_box);

    let mut contenders = vec![
        Contender::new("std", batch, || messages().all(|message| std::str::from_utf8(message).is_ok())),
        Contender::new("validate_whole", batch, || messages().all(|message| validate_whole(message).is_some())),
        Contender::new("push", batch, || {
            let mut validator = Utf8Validator::default();
            messages().all(|message| validator.push(message).is_ok())
        }),
    ];
    if message.len() > PIECE_BYTES {
        contenders.push(Contender::new("push in pieces", batch, || {
            let mut validator = Utf8Validator::default();
            messages().all(|message| message.chunks(PIECE_BYTES).all(|piece| validator.push(piece).is_ok()))
        }));
    }
    compare(options, &format!("{script}: messages of {} bytes", message.len()), contenders);
}

/// `unit` over and over, up to the last whole character within `bytes`.
fn text_of(unit: &str, bytes: usize) -> Vec<u8> {
    let text = unit.repeat(bytes / unit.len() + 1);
    let end = (0..=bytes).rfind(|end| text.is_char_boundary(*end)).expect("0 is a boundary");
    text.as_bytes()[..end].to_vec()
}
