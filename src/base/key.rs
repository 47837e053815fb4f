//! Keys: which slot, and which of its tenants.
//!
//! A slot is used again and again; its generation tells one tenant from the next, so that whatever
//! arrives late finds nothing rather than a stranger.

use std::fmt;

/// A slot's index together with the generation of its tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

const _: () = assert!(size_of::<Key>() == 8);

impl Key {
    /// Bits of a generation: it travels in a 64-bit kernel token beside the index and a kind.
    pub const GENERATION_BITS: u32 = 24;
    const GENERATION_MASK: u32 = (1 << Self::GENERATION_BITS) - 1;

    /// The key of the tenant `generation` (taken modulo 2²⁴) of slot `index`.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation: generation & Self::GENERATION_MASK }
    }

    /// The slot, from 0.
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// Which tenant of the slot.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// 32 bits that look random and are the same for the same key: what spreads sessions over time.
    pub const fn scattered(self) -> u32 {
        // The finalizer of MurmurHash3 spreads each bit over all of them.
        let mut bits = self.index ^ self.generation.rotate_left(8);
        bits = (bits ^ (bits >> 16)).wrapping_mul(0x85eb_ca6b);
        bits = (bits ^ (bits >> 13)).wrapping_mul(0xc2b2_ae35);
        bits ^ (bits >> 16)
    }

    /// The key of the slot's next tenant.
    #[must_use]
    pub const fn next_tenant(self) -> Self {
        Self::new(self.index, self.generation.wrapping_add(1))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_wraps_within_its_bits() {
        let last = Key::new(7, Key::GENERATION_MASK);
        assert_eq!(last.next_tenant(), Key::new(7, 0));
        assert_eq!(last.next_tenant().index(), 7);
    }
}
