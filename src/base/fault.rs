//! Small wrong variants of the engine, each planted at one place, for the simulation to find.
//!
//! Without the feature `simulation` every question here is answered with `false` when the program is compiled, and nothing is
//! left of it.

macro_rules! faults {
    ($($(#[$doc:meta])+ $name:ident,)*) => {
        /// One wrong variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])+ $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

faults! {
    // The driver
    /// A token's generation is not compared.
    GenerationIgnored,
    /// What a short send has left over is taken for sent.
    ShortSendTakenForWhole,
    /// What a short send has sent already is sent once more.
    ShortSendRepeated,
    /// A multishot receive that ends with bytes is not armed again.
    RearmForgotten,
    /// A receive that ended for want of a buffer is not armed again.
    StarvedForgotten,
    /// A receive that ended with EAGAIN or ECANCELED is not armed again.
    InterruptedForgotten,
    /// A buffer goes back to the pool twice.
    BufferReturnedTwice,
    /// A buffer goes back to another pool than it came from.
    BufferToOtherPool,
    /// What is cancelled is a receive from the other pool.
    OtherPoolCancelled,
    /// What follows of a message is not received into the room that is there for it.
    RoomForgotten,
    /// A buffer that comes for a link that closes is kept.
    BufferLost,
    /// What a ring that nobody waits for refuses for the moment is not tried again.
    RefusalForgotten,
    /// The end of a stream beside a send that ended short is told as a reset.
    EndTakenForReset,
    /// A cancel that found nothing is not repeated.
    CancelNotRepeated,
    /// A link is closed while its send is in flight.
    ClosedUnderSend,
    /// An accept that was refused is the last one.
    AcceptNotArmedAgain,
    /// The slot of a closed link is not free again.
    SlotKept,
    // The shard
    /// A post does not ring.
    BellForgotten,
    /// A shard falls asleep without a look into its mailbox.
    SleepsWithMail,
    /// A full mailbox swallows a post.
    PostSwallowed,
    /// What gathered while a send was in flight is not flushed when that has ended.
    FlushForgotten,
    /// A session that was not read from while its queue was high stays so.
    StaysDeaf,
    /// A message that a full queue refused is not counted.
    DropNotCounted,
    /// A queue that is to drop its oldest message drops what may not be dropped.
    FixedFrameDropped,
    /// Of pongs that wait, the oldest is kept.
    OldestPongKept,
    /// A pong leaves before one that waits already.
    PongOvertakes,
    /// The end of a session whose stream broke is not told.
    EndNotTold,
    /// A session that has ended stays subscribed.
    SubscriptionKept,
    /// A producer that was held back is forgotten.
    ProducerForgotten,
    /// An emptied queue is not given back.
    QueueKept,
    /// What a queue held is not discharged.
    MemoryNotDischarged,
    /// A timer that fires before its session's deadline is the last one.
    TimerForgotten,
    /// A ping that is answered counts as not answered.
    PongIgnored,
    /// A time in which the process did not run is held against the peers.
    StallHeldAgainst,
    // The protocol
    /// A payload of 126 bytes announces its length in one byte.
    LengthOffByOne,
    /// The mask begins anew where a frame was cut.
    MaskPhaseLost,
    /// The mask begins anew behind what was received straight into a message.
    MaskPhaseLostInRoom,
    /// The end of a header that was cut is lost.
    CutHeaderLost,
    /// A control frame between fragments ends the message.
    ControlFrameEndsMessage,
    /// A peer's close frame is not answered.
    CloseNotAnswered,
}

#[cfg(feature = "simulation")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Whether the engine is to be wrong in this way, on this thread.
#[cfg(feature = "simulation")]
#[inline]
pub fn planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Never.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn planted(_: Fault) -> bool {
    false
}

/// Makes the engine wrong in this way, on this thread, or right again.
#[cfg(feature = "simulation")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}
