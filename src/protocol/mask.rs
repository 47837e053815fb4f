//! Masking of payloads (RFC 6455 §5.3): every byte a client sends is xored with one of the four bytes
//! of the frame's masking key, and unmasking is the same operation.
//!
//! ```text
//!  payload  p0  p1  p2  p3  p4  p5  p6 …
//!  key      k0  k1  k2  k3  k0  k1  k2 …      masked[i] = payload[i] ^ key[i mod 4]
//! ```
//!
//! It works in place, knows nothing of frames, and never allocates or fails. Short payloads are masked here,
//! inline and whatever the CPU; longer ones by the widest instruction set that the CPU has
//! ([`instruction_sets`]). No unsafe code stands in this file.

use super::mask_simd;

pub use super::mask_simd::InstructionSet;

/// The longest payload that [`apply_mask`] masks inline: what the widest vector, and so every shell, leaves
/// to [`mask_short`].
const SHORT_BYTES_MAX: usize = 64;

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
    if payload.len() <= SHORT_BYTES_MAX {
        mask_short(payload, key);
    } else {
        mask_simd::mask_widest(payload, key);
    }
}

/// Masks a payload of at most [`SHORT_BYTES_MAX`] bytes.
#[inline]
pub(super) fn mask_short(payload: &mut [u8], key: MaskingKey) {
    debug_assert!(payload.len() <= SHORT_BYTES_MAX);
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
/// Where the two overlap they hold the same masked bytes, because both are read before either is written.
/// So no length needs a loop or leaves a rest. Words of 8, 4 and 1 bytes one after the other were tried and
/// lost: up to a quarter slower.
#[inline]
fn mask_ends<const N: usize>(payload: &mut [u8], key: MaskingKey) {
    debug_assert!((N..=2 * N).contains(&payload.len()));
    let tail_key = key.rotated(payload.len() - N);
    let at_least_n = "the caller chose N by the payload's length";
    let head = key.masked(*payload.first_chunk::<N>().expect(at_least_n));
    let tail = tail_key.masked(*payload.last_chunk::<N>().expect(at_least_n));
    *payload.first_chunk_mut().expect(at_least_n) = head;
    *payload.last_chunk_mut().expect(at_least_n) = tail;
}

#[inline]
fn mask_bytes(payload: &mut [u8], key: MaskingKey) {
    for (byte, key_byte) in payload.iter_mut().zip(key.0) {
        *byte ^= key_byte;
    }
}

/// Masks or unmasks `payload` in place, byte after byte as the RFC writes it down: the twin that every
/// faster variant is compared with, and what [`apply_mask`] falls back on where no other is known.
pub fn apply_mask_scalar(payload: &mut [u8], key: MaskingKey) {
    let (fours, rest) = payload.as_chunks_mut::<4>();
    for four in fours {
        mask_bytes(four, key);
    }
    mask_bytes(rest, key);
}

/// All that this CPU can mask with, narrowest first: `scalar`, then one entry for each instruction set.
///
/// [`apply_mask`] takes the last. Tests and benchmarks exercise every one.
pub fn instruction_sets() -> &'static [InstructionSet] {
    mask_simd::available()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: MaskingKey = MaskingKey::new([0x37, 0xfa, 0x21, 0x3d]);

    /// Where a payload may begin: at, just before and just after what 4 to 64 divide.
    const ALIGNMENTS: [usize; 10] = [0, 1, 2, 4, 6, 15, 16, 31, 33, 63];

    /// Lengths around which the variants turn from short to long, and from single vectors to fours.
    const LONG_BYTES: [usize; 8] = [383, 511, 513, 769, 1_023, 4_097, 65_535, 262_147];

    /// All short lengths; under Miri, which takes a thousand times as long, some.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..=300).step_by(if cfg!(miri) { 29 } else { 1 })
    }

    fn payload(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|index| (index * 151 + index / 256) as u8).collect()
    }

    /// The formula of RFC 6455 §5.3.
    fn masked_by_formula(payload: &[u8], key: MaskingKey) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, octet)| octet ^ key.bytes()[i % 4]).collect()
    }

    type Mask<'a> = &'a dyn Fn(&mut [u8], MaskingKey);

    /// Runs `check` for each variant, by name.
    fn for_each_variant(check: impl Fn(&str, Mask)) {
        check("apply_mask", &apply_mask);
        for set in instruction_sets() {
            check(set.name(), &|payload, key| set.apply(payload, key));
        }
    }

    /// Masks `bytes` bytes at `alignment` and compares them with the twin, and what lies around them with itself.
    #[track_caller]
    fn assert_like_twin(name: &str, mask: Mask, bytes: usize, alignment: usize, key: MaskingKey) {
        const MARGIN: usize = 64;
        let mut memory = payload(MARGIN + alignment + bytes + MARGIN + 64);
        let start = MARGIN + memory[MARGIN..].as_ptr().align_offset(64) + alignment;
        let mut expected = memory.clone();
        apply_mask_scalar(&mut expected[start..start + bytes], key);
        mask(&mut memory[start..start + bytes], key);
        assert!(memory == expected, "{name}: {bytes} bytes at {alignment} with {key:?}");
    }

    #[test]
    fn hello_of_rfc_6455_5_7_is_unmasked() {
        for_each_variant(|name, mask| {
            let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
            mask(&mut payload, KEY);
            assert_eq!(&payload, b"Hello", "{name}");
        });
    }

    #[test]
    fn twin_is_the_formula() {
        for bytes in lengths() {
            let mut masked = payload(bytes);
            apply_mask_scalar(&mut masked, KEY);
            assert_eq!(masked, masked_by_formula(&payload(bytes), KEY), "{bytes} bytes");
        }
    }

    #[test]
    fn every_variant_is_like_the_twin_at_every_length_phase_and_alignment() {
        let alignment_step = if cfg!(miri) { 4 } else { 1 };
        for_each_variant(|name, mask| {
            for bytes in lengths() {
                for phase in 0..4 {
                    for alignment in ALIGNMENTS.into_iter().step_by(alignment_step) {
                        assert_like_twin(name, mask, bytes, alignment, KEY.rotated(phase));
                    }
                }
            }
        });
    }

    #[test]
    fn every_variant_is_like_the_twin_at_long_odd_lengths() {
        let count = if cfg!(miri) { 3 } else { LONG_BYTES.len() };
        for_each_variant(|name, mask| {
            for bytes in &LONG_BYTES[..count] {
                for alignment in [0, 1, 6, 8, 14] {
                    assert_like_twin(name, mask, *bytes, alignment, KEY);
                }
            }
        });
    }

    #[test]
    fn masking_twice_gives_the_payload_back() {
        for_each_variant(|name, mask| {
            for bytes in [0, 1, 20, 64, 65, 125, 126, 1_000] {
                let mut masked = payload(bytes);
                mask(&mut masked, KEY);
                assert!(bytes == 0 || masked != payload(bytes), "{name}: {bytes} bytes");
                mask(&mut masked, KEY);
                assert_eq!(masked, payload(bytes), "{name}: {bytes} bytes");
            }
        });
    }

    #[test]
    fn payload_split_anywhere_is_masked_as_the_whole() {
        for_each_variant(|name, mask| {
            for bytes in if cfg!(miri) { &[20, 70][..] } else { &[20, 125, 300] } {
                let bytes = *bytes;
                let whole = masked_by_formula(&payload(bytes), KEY);
                for split_at in 0..=bytes {
                    let mut parts = payload(bytes);
                    let (first, second) = parts.split_at_mut(split_at);
                    mask(first, KEY);
                    mask(second, KEY.rotated(split_at));
                    assert_eq!(parts, whole, "{name}: {bytes} bytes split at {split_at}");
                }
            }
        });
    }

    #[test]
    fn rotation_counts_by_four_and_adds_up() {
        assert_eq!(KEY.rotated(0), KEY);
        assert_eq!(KEY.rotated(1).bytes(), [0xfa, 0x21, 0x3d, 0x37]);
        assert_eq!(KEY.rotated(usize::MAX), KEY.rotated(3));
        for (a, b) in (0..9).flat_map(|a| (0..9).map(move |b| (a, b))) {
            assert_eq!(KEY.rotated(a).rotated(b), KEY.rotated(a + b), "{a} + {b}");
        }
    }

    #[test]
    fn instruction_sets_begin_with_scalar_and_differ() {
        let names: Vec<_> = instruction_sets().iter().map(InstructionSet::name).collect();
        println!("this CPU: {names:?}");
        assert_eq!(names[0], "scalar");
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} is listed twice");
        }
    }
}
