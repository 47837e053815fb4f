//! The key of a hash that strangers cannot predict.

use siphasher::sip::SipHasher13;
use std::hash::{BuildHasher, RandomState};

/// Makes hashers of SipHash-1-3 with one secret key.
#[derive(Clone, Copy)]
pub struct Secret {
    keys: [u64; 2],
}

impl Secret {
    /// A key of its own, from the system's randomness.
    pub fn random() -> Self {
        let random = RandomState::new();
        Self { keys: [random.hash_one(0), random.hash_one(1)] }
    }

    /// A key that is no secret: what is to happen again in the same way hashes in the same way.
    #[cfg(feature = "simulation")]
    pub const fn from_seed(seed: u64) -> Self {
        Self { keys: [seed, !seed] }
    }
}

impl BuildHasher for Secret {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        let [first, second] = self.keys;
        SipHasher13::new_with_keys(first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_hashes_alike_and_none_like_another() {
        let (one, other) = (Secret::random(), Secret::random());
        assert_eq!(one.hash_one("topic"), one.hash_one("topic"));
        assert_ne!(one.hash_one("topic"), other.hash_one("topic"));
        assert_ne!(one.hash_one("topic"), one.hash_one("topik"));
    }
}
