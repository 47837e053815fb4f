//! `ringwave`: a WebSocket server engine for Linux. One shard a core, each an io_uring loop with its own
//! connections; nothing is shared between shards but mailboxes.
//!
//! ```no_run
//! use ringwave::{Config, Context, Handler, Message, Server, Session, Upgrade, UpgradeRequest};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Data = ();
//!     fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
//!         Upgrade::accept(())
//!     }
//!     fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
//!         session.send(message);
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let server = Server::start(Config::default(), |_shard| Echo)?;
//!     println!("ws://{}", server.local_addr());
//!     server.join()
//! }
//! ```
//!
//! # Floors
//! A file stands on one floor and imports only from lower ones: [`base`] (0), [`protocol`] (1), [`driver`] (2),
//! the shard (3), this file, `server` and `config` (4), the server binary (5). The floors 0 and 1 are pure:
//! they build for wasm32.
//!
//! # Unsafe code
//! It stands in these files and is denied everywhere else:
//! - `src/protocol/mask_simd.rs`: SIMD intrinsics
//! - `src/protocol/utf8.rs`: one conversion of validated bytes
//! - `src/protocol/decoder.rs`: the one place that asks for it
//! - `src/driver/block.rs`: how much of what is received into has been written
//! - `src/driver/buf_ring.rs`: the receive buffers shared with the kernel
//! - `src/driver/poller.rs`: epoll, and calls that no library makes safe
//! - `src/driver/system_ring.rs`: submissions to a ring
//! - `src/driver/uring/receiving.rs`: the kernel's word for that, where a completion brings it
//! - `src/driver/waker.rs`: an eventfd

pub mod base;
pub mod protocol;

#[cfg(target_os = "linux")]
mod config;
#[cfg(target_os = "linux")]
pub mod driver;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod shard;

pub use base::bucket::Rate;
pub use base::limits::{Delivery, Limits};
pub use protocol::close::{CloseCode, CloseFrame};
pub use protocol::handshake::{UpgradeRequest, upgrade_required};
pub use protocol::http1::Request;
pub use protocol::message::{Chunk, Message, MessageKind, Prepared};
pub use protocol::response::Response;

#[cfg(target_os = "linux")]
pub use config::{Config, ConfigError, DriverChoice};
#[cfg(target_os = "linux")]
pub use server::Server;
#[cfg(target_os = "linux")]
pub use shard::{
    CloseCause, ClosedBy, Context, Drain, Ended, Handle, Handler, Mailboxes, Policy, PostError, Published, RateAnswer,
    SendOutcome, Session, SessionKey, SessionOptions, Shard, ShardSettings, Stats, SubscribeError, TopicStats, Upgrade,
};
