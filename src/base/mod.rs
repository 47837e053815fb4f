//! Floor 0: words without a network. Limits, time as a value, keys, the timing wheel.
//!
//! Nothing here knows that this is a WebSocket server; nothing here reads a clock or calls the kernel.

pub mod bucket;
pub mod clock;
#[doc(hidden)]
pub mod fault;
pub mod key;
pub mod limits;
pub mod secret;
pub mod table;
pub mod wheel;
