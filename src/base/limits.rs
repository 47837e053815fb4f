//! Every bound of the engine, in one place, with the relations that must hold between them.
//!
//! What a user may tune stands in `config.rs` and starts from these; what is fixed stands only here.

use std::time::Duration;

/// What one connection may send us. Copied into each shard once, not into each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an HTTP request or response head, its end included. 128 … 1 MiB. Answer: 431.
    pub head_bytes_max: usize,
    /// Bytes of one header line. At most `head_bytes_max`. Answer: 431, for the request line 414.
    pub head_line_bytes_max: usize,
    /// Header lines in a head, at most [`HEADERS_MAX`]. Answer: 431.
    pub headers_max: usize,
    /// Bytes of a plain HTTP request's body. Answer: 413.
    pub body_bytes_max: usize,
    /// Payload bytes of one message, all fragments together. Answer: close code 1009.
    pub message_bytes_max: usize,
    /// Fragments of one message, empty ones counted. Answer: close code 1008.
    pub fragments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * KIB,
            head_line_bytes_max: 8 * KIB,
            headers_max: HEADERS_MAX,
            body_bytes_max: MIB,
            message_bytes_max: 64 * MIB,
            fragments_max: 131_072,
        }
    }
}

/// 1 024 bytes.
pub const KIB: usize = 1024;
/// 1 024 KiB.
pub const MIB: usize = 1024 * KIB;

/// Most header lines that a head may have, whatever is configured: they are indexed on the stack.
pub const HEADERS_MAX: usize = 100;
/// Payload bytes of a control frame (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;
/// Bytes of a close frame's reason: its payload less the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;
/// The first allocation for a message that does not lie whole in one read; it grows with the bytes that really come.
pub const ASSEMBLY_BYTES_FIRST: usize = 4 * KIB;

/// Most connections of a shard: an index has 32 bits, of which this leaves headroom.
pub const LINKS_MAX: usize = 1 << 27;
/// Ready connections that the kernel may queue on a listener.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Parts of one submission: what the kernel takes without allocating for the vector (UIO_FASTIOV is 8; 16 measured best).
pub const SEND_PARTS_MAX: usize = 16;
/// Bytes of one submission, and of the progress that is told at once: so a slow peer that takes them is seen to.
pub const SEND_BYTES_MAX: usize = 256 * KIB;
/// A shared part smaller than this is copied beside its neighbours rather than referenced: a copy is cheaper than a part.
pub const SEND_SHARED_BYTES_MIN: usize = 2 * KIB;
/// Send batches that a shard keeps for use again.
pub const SEND_BATCHES_KEPT: usize = 1024;
/// A batch that grew past this gives its memory back before it is kept.
pub const SEND_BATCH_BYTES_KEPT: usize = 32 * KIB;

/// Posts that a shard's mailbox holds.
pub const MAILBOX_POSTS_MAX: usize = 8192;
/// Posts for one other shard that wait here while its mailbox is full.
pub const OUTBOX_POSTS_MAX: usize = 65_536;
/// Posts handled in one turn, so that a flood of them does not starve the connections.
pub const POSTS_PER_TURN_MAX: usize = 4096;
/// Most shards of a server.
pub const SHARDS_MAX: usize = 1024;

/// Topics that one session may be subscribed to.
pub const SUBSCRIPTIONS_MAX: usize = 1024;
/// Bytes of a topic's name.
pub const TOPIC_BYTES_MAX: usize = 255;

/// How long a failed connection's remaining bytes are read and thrown away, so that our last answer is not
/// destroyed by a reset on its way (RFC 9112 §9.6).
pub const LINGER: Duration = Duration::from_secs(2);
/// How long a listener rests after the system refused an accept (EMFILE, ENFILE, ENOBUFS, ENOMEM).
pub const ACCEPT_REST: Duration = Duration::from_millis(100);

const _: () = assert!(CLOSE_REASON_BYTES_MAX == 123);
const _: () = assert!(SEND_PARTS_MAX <= 1024, "IOV_MAX");
const _: () = assert!(SEND_SHARED_BYTES_MIN <= SEND_BATCH_BYTES_KEPT);
const _: () = assert!(POSTS_PER_TURN_MAX <= MAILBOX_POSTS_MAX);
