//! Floor 1: the WebSocket protocol, pure. RFC 6455 in both roles, and the HTTP/1.1 that leads into it.
//!
//! No I/O, no clock, no thread, no randomness, no unbounded memory: bytes in, events and bytes out. Start
//! reading at [`connection`]; [`decoder`] is its receiving half, [`encoder`] its sending half.
//!
//! | file | owns | source |
//! |---|---|---|
//! | [`connection`] | both halves, and the order in which to call them | RFC 6455 |
//! | [`decoder`] | bytes → events: heads, then frames | §4, §6.2 |
//! | `assembly` | frames → messages, or chunks of them: order, unmasking, limits | §5.4, §6.2 |
//! | `frame_buffer` | a message that is gathered, with room for a header | §5.2 |
//! | [`encoder`] | messages → frames, and what may be sent when | §5, §6.1 |
//! | [`frame`] | the frame header's bits | §5.2 |
//! | [`mask`], [`mask_simd`] | masking | §5.3 |
//! | [`utf8`] | text, validated as it comes | §8.1, Unicode table 3-7 |
//! | [`message`] | messages, and messages encoded once | §5.6 |
//! | [`close`] | close codes and payloads | §5.5.1, §7.4 |
//! | [`http1`] | request and response heads, read | RFC 9112, RFC 9110 |
//! | [`response`] | responses, written | RFC 9112, RFC 9110 |
//! | [`handshake`] | the upgrade, both roles | §4 |
//! | [`error`] | what the peer can do wrong, and the answer to it | §7.4.1 |

mod assembly;
pub mod close;
pub mod connection;
pub mod decoder;

pub mod encoder;
pub mod error;
mod fields;
pub mod frame;
mod frame_buffer;
pub mod handshake;
pub mod http1;
pub mod mask;
pub mod mask_simd;
pub mod message;
pub mod response;
pub mod utf8;
