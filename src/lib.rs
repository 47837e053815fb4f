//! placeholder
pub mod base;
#[cfg(target_os = "linux")]
pub mod driver;
pub mod protocol;
pub use base::limits::Limits;
pub use protocol::http1::Response;
pub use protocol::message::Prepared;
