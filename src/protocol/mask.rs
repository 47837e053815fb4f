//! Masking of payloads (RFC 6455 §5.3): every byte a client sends is xored with one of the four bytes
//! of the frame's masking key, and unmasking is the same operation.
//!
//! ```text
//!  payload  p0  p1  p2  p3  p4  p5  p6 …
//!  key      k0  k1  k2  k3  k0  k1  k2 …      masked[i] = payload[i] ^ key[i mod 4]
//! ```
//!
//! It works in place, knows nothing of frames, and never allocates, fails or panics. Short payloads are
//! masked here, inline and without a branch on the CPU; longer ones by the widest instruction set
//! the CPU has ([`instruction_sets`]). No unsafe code stands in this file.

use super::mask_simd;

pub use super::mask_simd::InstructionSet;

/// Longest payload that [`apply_mask`] masks inline.
///
/// At 64 bytes a call through a pointer costs as much as it saves (`benches/mask.rs`).
const INLINE_BYTES_MAX: usize = 64;

/// The masking key of one frame (RFC 6455 §5.2), in the order its bytes have on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaskingKey([u8; 4]);

impl MaskingKey {
    /// The key whose bytes are `bytes`, first on the wire first.
    pub const fn new(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes, first on the wire first.
    pub const fn bytes(self) -> [u8; 4] {
        self.0
    }

    /// The key as seen by a part of the payload that begins `offset` bytes into it.
    ///
    /// ```
    /// use ringwave::protocol::mask::{MaskingKey, apply_mask};
    ///
    /// let key = MaskingKey::new([0x37, 0xfa, 0x21, 0x3d]);
    /// let mut first = *b"Hel";
    /// let mut second = *b"lo";
    /// apply_mask(&mut first, key);
    /// apply_mask(&mut second, key.rotated(first.len()));
    /// assert_eq!((first, second), ([0x7f, 0x9f, 0x4d], [0x51, 0x58]));
    /// ```
    #[inline]
    pub const fn rotated(self, offset: usize) -> Self {
        let bits = 8 * (offset % 4) as u32;
        Self(u32::from_le_bytes(self.0).rotate_right(bits).to_le_bytes())
    }

    /// `bytes` xored with the key over and over, the first byte with the key's first.
    #[inline]
    fn masked<const N: usize>(self, mut bytes: [u8; N]) -> [u8; N] {
        const { assert!(N.is_multiple_of(4)) };
        let key = u32::from_ne_bytes(self.0);
        for word in bytes.as_chunks_mut().0 {
            *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        bytes
    }
}

/// Masks or unmasks `payload` in place.
///
/// `payload` begins where the frame's payload begins; for a later part of it give the
/// [rotated](MaskingKey::rotated) key. No allocation, one pass.
///
/// ```
/// use ringwave::protocol::mask::{MaskingKey, apply_mask};
///
/// // The masked "Hello" of RFC 6455 §5.7.
/// let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// apply_mask(&mut payload, MaskingKey::new([0x37, 0xfa, 0x21, 0x3d]));
/// assert_eq!(&payload, b"Hello");
/// ```
#[inline]
pub fn apply_mask(payload: &mut [u8], key: MaskingKey) {
    if payload.len() <= INLINE_BYTES_MAX {
        mask_short(payload, key);
    } else {
        mask_simd::mask_widest(payload, key);
    }
}

/// Masks a payload of at most [`INLINE_BYTES_MAX`] bytes.
#[inline]
pub(super) fn mask_short(payload: &mut [u8], key: MaskingKey) {
    debug_assert!(payload.len() <= INLINE_BYTES_MAX);
    match payload.len() {
        0..4 => mask_bytes(payload, key),
        4..8 => mask_ends::<4>(payload, key),
        8..16 => mask_ends::<8>(payload, key),
        16..32 => mask_ends::<16>(payload, key),
        _ => mask_ends::<32>(payload, key),
    }
}

/// Masks `N..=2 * N` bytes as the first `N` and the last `N`.
///
/// Where the two overlap both hold the same masked bytes, because both are read before either is
/// written. So no length needs a loop, and none needs a rest.
#[inline]
fn mask_ends<const N: usize>(payload: &mut [u8], key: MaskingKey) {
    debug_assert!((N..=2 * N).contains(&payload.len()));
    let tail_key = key.rotated(payload.len() - N);
    let head = key.masked(*payload.first_chunk::<N>().expect("at least N bytes"));
    let tail = tail_key.masked(*payload.last_chunk::<N>().expect("at least N bytes"));
    *payload.first_chunk_mut().expect("at least N bytes") = head;
    *payload.last_chunk_mut().expect("at least N bytes") = tail;
}

#[inline]
fn mask_bytes(payload: &mut [u8], key: MaskingKey) {
    for (byte, key_byte) in payload.iter_mut().zip(key.0) {
        *byte ^= key_byte;
    }
}

/// Masks or unmasks `payload` in place, as the RFC writes it down: the twin that every faster variant
/// is compared with.
///
/// Also what [`apply_mask`] runs on a CPU for which no instruction set is known.
pub fn apply_mask_scalar(payload: &mut [u8], key: MaskingKey) {
    let (fours, rest) = payload.as_chunks_mut::<4>();
    for four in fours {
        mask_bytes(four, key);
    }
    mask_bytes(rest, key);
}

/// All that this CPU can mask with, narrowest first: `scalar`, then one entry for each instruction
/// set. [`apply_mask`] takes the last. For tests and benchmarks, which exercise every one.
pub fn instruction_sets() -> &'static [InstructionSet] {
    mask_simd::available()
}
