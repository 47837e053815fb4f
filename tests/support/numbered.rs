//! Messages that tell which they are, and that nothing happened to them.

use super::{Client, Received};

/// A binary message of so many bytes that carries a number: in its first eight bytes, and in each of the others.
pub(crate) fn numbered(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; bytes];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}

impl Client {
    /// The number of the message that comes next.
    #[track_caller]
    pub(crate) fn number(&mut self) -> u64 {
        match self.next() {
            Received::Binary(payload) => {
                let number = u64::from_be_bytes(payload[..8].try_into().expect("eight bytes"));
                // Not `assert_eq`: thousands of bytes are no help in a log.
                assert!(payload == numbered(number, payload.len()), "message {number} is not what was sent");
                number
            }
            other => panic!("a numbered message was expected, not {other:?}"),
        }
    }

    /// The numbers of the next messages.
    #[track_caller]
    pub(crate) fn numbers(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.number()).collect()
    }
}
