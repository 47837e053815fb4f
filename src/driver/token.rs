//! What travels with a submission and comes back with its completion.
//!
//! ```text
//!  63      56 55              32 31                0
//! ┌──────────┬──────────────────┬───────────────────┐
//! │   kind   │    generation    │       index       │
//! └──────────┴──────────────────┴───────────────────┘
//! ```

use super::buf_ring::Pool;
use crate::base::key::Key;

/// Which operation a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    AcceptMany = 1,
    AcceptOne,
    Receive,
    Send,
    Shutdown,
    Close,
    CancelAccept,
    CancelReceive,
    CancelSend,
    Wake,
    BankReady,
    Socket,
    Option,
    Bind,
    Connect,
    Peer,
    ReceiveBulk,
    ReceiveInto,
}

impl Operation {
    /// A receive that is served from this pool.
    pub(super) const fn receive(pool: Pool) -> Self {
        match pool {
            Pool::Standard => Self::Receive,
            Pool::Bulk => Self::ReceiveBulk,
        }
    }

    /// Whether it receives.
    #[cfg(feature = "simulation")]
    pub(super) const fn is_receive(self) -> bool {
        matches!(self, Self::Receive | Self::ReceiveBulk | Self::ReceiveInto)
    }

    /// The pool that a receive is served from; none for what is no such receive.
    #[cfg(feature = "simulation")]
    pub(super) const fn pool(self) -> Option<Pool> {
        match self {
            Self::Receive => Some(Pool::Standard),
            Self::ReceiveBulk => Some(Pool::Bulk),
            _ => None,
        }
    }

    const ALL: [Self; 18] = [
        Self::AcceptMany,
        Self::AcceptOne,
        Self::Receive,
        Self::Send,
        Self::Shutdown,
        Self::Close,
        Self::CancelAccept,
        Self::CancelReceive,
        Self::CancelSend,
        Self::Wake,
        Self::BankReady,
        Self::Socket,
        Self::Option,
        Self::Bind,
        Self::Connect,
        Self::Peer,
        Self::ReceiveBulk,
        Self::ReceiveInto,
    ];
}

/// An operation and whom it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) operation: Operation,
    pub(super) key: Key,
}

const KIND_SHIFT: u32 = 32 + Key::GENERATION_BITS;
const _: () = assert!(KIND_SHIFT == 56);

impl Token {
    pub(super) const fn new(operation: Operation, key: Key) -> Self {
        Self { operation, key }
    }

    /// The token of something that belongs to no link.
    pub(super) const fn number(operation: Operation, number: u32) -> Self {
        Self { operation, key: Key::new(number, 0) }
    }

    pub(super) const fn encode(self) -> u64 {
        (self.operation as u64) << KIND_SHIFT | (self.key.generation() as u64) << 32 | self.key.index() as u64
    }

    /// # Panics
    /// If the kernel brings a token that we did not make.
    pub(super) fn decode(bits: u64) -> Self {
        let kind = (bits >> KIND_SHIFT) as usize;
        let operation = *Operation::ALL.get(kind.wrapping_sub(1)).expect("a token that we made");
        Self { operation, key: Key::new(bits as u32, (bits >> 32) as u32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for operation in Operation::ALL {
            for key in [Key::new(0, 0), Key::new(u32::MAX, 0xff_ffff), Key::new(19_990, 7)] {
                let token = Token::new(operation, key);
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
    }
}
