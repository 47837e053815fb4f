//! Small published messages that leave one session together are joined once for all sessions that get the same ones.
//!
//! Whoever gets the second message of a turn behind the first has the two of them in one piece already: the copy is made
//! for the first subscriber, the others refer to it. Without that each subscriber would have a copy of its own: ten
//! thousand of them with eight messages of a kilobyte each are 80 MB in a turn, written once and read once.

use super::memory::SharedBytes;
use crate::base::limits::JOINED_BYTES_MAX;
use bytes::{Bytes, BytesMut};

/// Joins made lately. They are let go of at the turn's end.
#[derive(Debug)]
pub(super) struct Joins {
    /// What is joined counts as the shard's memory.
    shared: SharedBytes,
    recent: [Option<Join>; RECENT],
    next: usize,
}

/// Sessions whose last messages differ take turns: so many different ones are remembered.
const RECENT: usize = 4;

/// Two pieces, kept so that their place in memory is nobody else's, and the joined one.
#[derive(Debug)]
struct Join {
    left: Bytes,
    right: Bytes,
    joined: Bytes,
}

impl Joins {
    pub(super) fn new(shared: SharedBytes) -> Self {
        Self { shared, recent: Default::default(), next: 0 }
    }

    /// Both pieces in one. `None` if that would be too long: each join copies what has been joined before.
    pub(super) fn join(&mut self, left: &Bytes, right: &Bytes) -> Option<Bytes> {
        let length = left.len() + right.len();
        if length > JOINED_BYTES_MAX {
            return None;
        }
        let same = |one: &Bytes, other: &Bytes| std::ptr::eq(&one[..], &other[..]);
        let known = self.recent.iter().flatten().find(|join| same(&join.left, left) && same(&join.right, right));
        if let Some(known) = known {
            return Some(known.joined.clone());
        }
        let mut joined = BytesMut::with_capacity(length);
        joined.extend_from_slice(left);
        joined.extend_from_slice(right);
        let joined = self.shared.count(joined.freeze());
        let join = Join { left: left.clone(), right: right.clone(), joined: joined.clone() };
        self.recent[self.next] = Some(join);
        self.next = (self.next + 1) % RECENT;
        Some(joined)
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        self.recent = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_pieces_are_joined_once() {
        let shared = SharedBytes::default();
        let mut joins = Joins::new(shared.clone());
        let [one, two, three] = ["one", "two", "three"].map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let first = joins.join(&one, &two).expect("short");
        let again = joins.join(&one, &two).expect("short");
        assert_eq!(&first[..], b"onetwo");
        assert!(std::ptr::eq(&first[..], &again[..]));
        assert_eq!(&joins.join(&first, &three).expect("short")[..], b"onetwothree");
        // Equal bytes in another place are another message.
        let other = joins.join(&Bytes::copy_from_slice(b"one"), &two).expect("short");
        assert!(!std::ptr::eq(&first[..], &other[..]));
        assert_eq!(shared.held(), 6 + 11 + 6, "what is joined is counted once");
        let long = Bytes::from(vec![0; JOINED_BYTES_MAX]);
        assert_eq!(joins.join(&long, &one), None);
        joins.clear();
        drop((first, again, other));
        assert_eq!(shared.held(), 0);
    }
}
