//! Every bound of the engine, in one place, with the relations that must hold between them.
//!
//! What a user may tune stands in `config.rs` and starts from these; what is fixed stands only here.

use std::time::Duration;

/// How messages are handed out by the protocol core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Whole. What does not lie whole, in one frame, in the bytes of one read is gathered, up to `message_bytes_max`.
    #[default]
    Whole,
    /// As they come. What does not lie whole, in one frame, in the bytes of one read is handed out in chunks that
    /// borrow from those bytes; nothing is gathered, and memory does not grow with the message. Only
    /// `streamed_bytes_max` bounds a message then, whether it came in chunks or whole.
    Chunks,
}

/// What one connection may send us, and how it is told. Copied into each shard once, not into each connection.
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
    /// Whether messages are gathered or handed out as they come.
    pub delivery: Delivery,
    /// Payload bytes of one message, all fragments together. Answer: close code 1009.
    pub message_bytes_max: usize,
    /// Payload bytes of one frame: a fragment, or a whole message. Whoever raises `message_bytes_max` raises this too,
    /// or messages of that length must come in fragments. Answer: close code 1009.
    pub frame_bytes_max: usize,
    /// Fragments of one message, empty ones counted. Answer: close code 1008.
    pub fragments_max: u32,
    /// With [`Delivery::Chunks`], and in place of the three limits above: payload bytes of one message, all fragments
    /// together. Answer: close code 1009.
    pub streamed_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * KIB,
            head_line_bytes_max: 8 * KIB,
            headers_max: HEADERS_MAX,
            body_bytes_max: MIB,
            delivery: Delivery::Whole,
            message_bytes_max: 64 * MIB,
            frame_bytes_max: 64 * MIB,
            fragments_max: 131_072,
            streamed_bytes_max: u64::MAX,
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
/// Up to here that allocation doubles; from there it grows by this, or by a quarter if that is more.
pub const ASSEMBLY_STEP_BYTES_MIN: usize = 256 * KIB;
/// Where the message's end is known, so that nothing will be spare then, it is made four times as long below this …
pub const ASSEMBLY_QUADRUPLED_BYTES_MAX: usize = MIB;
/// … and twice as long below this.
pub const ASSEMBLY_DOUBLED_BYTES_MAX: usize = 8 * MIB;
/// After a long read there is room for so many bytes more of such a message at once, while a shard's memory is plentiful: what
/// has come of it is moved once.
pub const ASSEMBLY_BYTES_AHEAD: usize = MIB;
/// It is plentiful while less than one part of so many is used.
pub const MEMORY_PLENTIFUL_PARTS: usize = 4;
/// Most connections of a shard: an index has 32 bits, of which this leaves headroom.
pub const LINKS_MAX: usize = 1 << 27;
/// Ready connections that the kernel may queue on a listener.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Parts of one submission: what the kernel takes without allocating for the vector (UIO_FASTIOV is 8; 16 measured best).
pub const SEND_PARTS_MAX: usize = 16;
/// Connections that a shard may have beyond its limit, for the time it takes to refuse them.
pub const REFUSALS_MAX: usize = 1024;
/// Bytes of one submission, and of the progress that is told at once: so a slow peer that takes them is seen to.
pub const SEND_BYTES_MAX: usize = 256 * KIB;
/// When so many bytes have been received in a turn, what they cause leaves before more is read: they are still in the cache.
pub const FLUSH_BYTES: usize = 256 * KIB;
/// What little more is left goes along: four messages of 64 KiB with their headers are one submission.
pub const SEND_BYTES_MORE: usize = SEND_BYTES_MAX / 4;
/// A shared part smaller than this is copied beside its neighbours rather than referenced: a copy is cheaper than a part.
pub const SEND_SHARED_BYTES_MIN: usize = 2 * KIB;
/// Small published messages are joined into pieces of at most so many bytes.
pub const JOINED_BYTES_MAX: usize = 8 * KIB;
/// Send batches that a shard keeps for use again.
pub const SEND_BATCHES_KEPT: usize = 1024;
/// A batch that grew past this is not kept …
pub const SEND_BATCH_BYTES_KEPT: usize = 32 * KIB;
/// … nor is one that would make them more than this, all together: whoever answers a long message now and then would else
/// leave a long batch in each place.
pub const SEND_BATCHES_BYTES_KEPT: usize = MIB;

/// After so many reads in a row that filled their buffers, a connection is given longer ones …
pub const FULL_READS_MAX: u8 = 2;
/// … and after so many in a row that would not have filled a short one, short ones again.
pub const SHORT_READS_MAX: u8 = 64;

/// When a ring that nobody waits for has refused a submission for the moment, it is tried again.
pub const SUBMIT_RETRY: Duration = Duration::from_millis(1);
/// How soon links that wait for a receive buffer are looked at once more, where buffers are free that those before them turn out
/// not to need.
pub const STARVED_RETRY: Duration = Duration::from_millis(1);

/// Posts that a shard's mailbox holds.
pub const MAILBOX_POSTS_MAX: usize = 8192;
/// Bytes of messages among them, unless one alone has more.
pub const MAILBOX_BYTES_MAX: usize = 64 * MIB;
/// Posts for one other shard that wait here while its mailbox is full.
pub const OUTBOX_POSTS_MAX: usize = 65_536;
/// With so many, a session that adds to them is not read from …
pub const OUTBOX_POSTS_HIGH: usize = 4096;
/// … until there are no more than so many.
pub const OUTBOX_POSTS_LOW: usize = 1024;
/// The same for bytes of their messages …
pub const OUTBOX_BYTES_HIGH: usize = 16 * MIB;
/// … and the end of that.
pub const OUTBOX_BYTES_LOW: usize = 4 * MIB;
/// Posts handled in one turn, so that a flood of them does not starve the connections.
pub const POSTS_PER_TURN_MAX: usize = 4096;
/// Deliveries that one session's bytes, or the posts of one turn, may cause before others have their turn: some
/// milliseconds.
pub const WORK_MAX: u64 = 32_768;
/// Or as many as so many for each session that is sent to in this turn, if that is more: what gathers costs a twentieth of the
/// send that it is spared, so a message to very many waits for the others that have come with it.
pub const WORK_PER_SEND: u64 = 8;
/// A plain request counts as so many deliveries: its answer is made anew.
pub const WORK_PER_REQUEST: u64 = 64;
/// Most shards of a server.
pub const SHARDS_MAX: usize = 1024;

/// An unfinished message of up to so many bytes is not ended for want of memory: others hold more.
pub const HELD_BYTES_SPARED: usize = 64 * KIB;
/// A wait that ends so much later than it should have was no wait: the process was suspended or starved.
pub const STALL_MIN: Duration = Duration::from_millis(250);
/// Of stalls closer to each other than this, so much as [`STALL_MIN`] counts as time.
pub const STALLS_APART: Duration = Duration::from_secs(1);
/// Send queues that a shard keeps for use again.
pub const QUEUES_KEPT: usize = 1024;
/// Control frames other than pongs and closes that wait for one session; of pongs only the newest waits.
pub const CONTROL_FRAMES_WAITING_MAX: usize = 4;
/// Different options that the sessions of a shard may have at one time.
pub const OPTIONS_MAX: usize = 4096;

/// Topics that one session may be subscribed to.
pub const SUBSCRIPTIONS_MAX: usize = 1024;
/// Subscriptions of a session among which patterns may be.
pub const PATTERNS_MAX: usize = 64;
/// Bytes of a topic's name.
pub const TOPIC_BYTES_MAX: usize = 255;
/// Levels of a pattern of topics, a closing `#` counted: so deep is the tree of patterns.
pub const PATTERN_LEVELS_MAX: usize = 32;

/// How long a failed connection's remaining bytes are read and thrown away, so that our last answer is not
/// destroyed by a reset on its way (RFC 9112 §9.6).
pub const LINGER: Duration = Duration::from_secs(2);
/// How long a listener rests after the system refused an accept (EMFILE, ENFILE, ENOBUFS, ENOMEM).
pub const ACCEPT_REST: Duration = Duration::from_millis(100);

const _: () = assert!(CLOSE_REASON_BYTES_MAX == 123);
const _: () = assert!(SEND_PARTS_MAX <= 1024, "IOV_MAX");
const _: () = assert!(SEND_SHARED_BYTES_MIN <= SEND_BATCH_BYTES_KEPT);
const _: () = assert!(POSTS_PER_TURN_MAX <= MAILBOX_POSTS_MAX);
const _: () = assert!(PATTERN_LEVELS_MAX <= TOPIC_BYTES_MAX / 2, "such a pattern of wildcards fits a name");
