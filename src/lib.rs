//! placeholder
pub mod base;
pub mod protocol;
pub use base::limits::Limits;
pub use protocol::http1::Response;
pub use protocol::message::Prepared;
