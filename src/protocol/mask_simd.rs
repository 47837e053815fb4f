//! Masking with the CPU's vector registers: the algorithm once, in safe code, and under it a thin shell
//! for each instruction set.
//!
//! Unsafe code does two things here: it calls what only some CPUs can run, and it moves a vector between
//! a register and an array of the same size. Its twin without unsafe code is
//! [`apply_mask_scalar`].
//!
//! ```text
//!  payload   |·······|=======|=======|=======|=======|=======|···|
//!  head      |#########|                                              read first, written last
//!  vectors           |=======|=======|=======|=======|=======|        aligned, in fours and then singly
//!  tail                                              |###########|    read first, written last
//! ```
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::mask::{MaskingKey, apply_mask_scalar, mask_short};

/// One way of masking that this CPU can run.
#[derive(Debug)]
pub struct InstructionSet {
    name: &'static str,
    /// To be called only where the CPU has the instruction set.
    apply: unsafe fn(&mut [u8], MaskingKey),
}

impl InstructionSet {
    /// What the instruction set is called: `scalar`, `sse2`, `avx2`, `avx512`, `neon`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Masks or unmasks `payload` in place, whatever its length.
    pub fn apply(&self, payload: &mut [u8], key: MaskingKey) {
        // SAFETY: a value leaves this file only through `available`, which holds back those
        // whose instruction set the CPU lacks.
        unsafe { (self.apply)(payload, key) }
    }
}

/// The instruction sets of this CPU, narrowest first.
pub(super) fn available() -> &'static [InstructionSet] {
    &INSTRUCTION_SETS[..available_count()]
}

/// How many of [`INSTRUCTION_SETS`] this CPU has; 0 until somebody asks.
static AVAILABLE_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Masks `payload` in place with the widest of the [`available`] instruction sets.
#[inline]
pub(super) fn mask_widest(payload: &mut [u8], key: MaskingKey) {
    match INSTRUCTION_SETS.get(AVAILABLE_COUNT.load(Relaxed).wrapping_sub(1)) {
        Some(widest) => widest.apply(payload, key),
        None => mask_first(payload, key),
    }
}

#[cold]
fn mask_first(payload: &mut [u8], key: MaskingKey) {
    let count = available_count();
    AVAILABLE_COUNT.store(count, Relaxed);
    INSTRUCTION_SETS[count - 1].apply(payload, key);
}

const SCALAR: InstructionSet = InstructionSet { name: "scalar", apply: apply_mask_scalar };

/// Masks `payload` with vectors of `N` bytes.
#[inline(always)]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code))]
fn mask_with<V: Vectors<N>, const N: usize>(vectors: V, payload: &mut [u8], key: MaskingKey) {
    let (Some(head), Some(tail)) = (payload.first_chunk(), payload.last_chunk()) else {
        return mask_short(payload, key);
    };
    // Both ends are read before a byte is written and written after all others are: what they share
    // with their neighbours is then masked once, and no length leaves single bytes over.
    let tail_key = key.rotated(payload.len() - N);
    let head = vectors.xor(vectors.load(head), vectors.repeat(key));
    let tail = vectors.xor(vectors.load(tail), vectors.repeat(tail_key));

    if payload.len() > 2 * N {
        let aligned_at = N - payload.as_ptr().addr() % N;
        let rest = &mut payload[aligned_at..];
        let key = vectors.repeat(key.rotated(aligned_at));
        let (fours, singles) = rest.as_chunks_mut::<N>().0.as_chunks_mut::<4>();
        for [a, b, c, d] in fours {
            let masked_a = vectors.xor(vectors.load(a), key);
            let masked_b = vectors.xor(vectors.load(b), key);
            let masked_c = vectors.xor(vectors.load(c), key);
            let masked_d = vectors.xor(vectors.load(d), key);
            vectors.store(a, masked_a);
            vectors.store(b, masked_b);
            vectors.store(c, masked_c);
            vectors.store(d, masked_d);
        }
        for bytes in singles {
            vectors.store(bytes, vectors.xor(vectors.load(bytes), key));
        }
    }

    vectors.store(payload.first_chunk_mut().expect("at least N bytes"), head);
    vectors.store(payload.last_chunk_mut().expect("at least N bytes"), tail);
}

/// The operations of one instruction set on vectors of `N` bytes.
///
/// A value is the proof that the CPU has the instruction set: making one is unsafe, using it is not.
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code))]
trait Vectors<const N: usize>: Copy {
    /// What a register holds.
    type Vector: Copy;

    /// The key over and over.
    fn repeat(self, key: MaskingKey) -> Self::Vector;
    fn load(self, bytes: &[u8; N]) -> Self::Vector;
    fn store(self, bytes: &mut [u8; N], vector: Self::Vector);
    fn xor(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

#[cfg(target_arch = "x86_64")]
use x86_64::{INSTRUCTION_SETS, available_count};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{InstructionSet, MaskingKey, SCALAR, Vectors, mask_with};

    pub(super) static INSTRUCTION_SETS: [InstructionSet; 4] = [
        SCALAR,
        InstructionSet { name: "sse2", apply: mask_sse2 },
        InstructionSet { name: "avx2", apply: mask_avx2 },
        InstructionSet { name: "avx512", apply: mask_avx512 },
    ];

    pub(super) fn available_count() -> usize {
        if !is_x86_feature_detected!("avx2") {
            2
        } else if !is_x86_feature_detected!("avx512f") {
            3
        } else {
            4
        }
    }

    macro_rules! shell {
        ($features:literal, $mask:ident, $Vectors:ident, $Vector:ident, $bytes:literal,
         $set1:ident, $load:ident, $store:ident, $xor:ident) => {
            #[target_feature(enable = $features)]
            fn $mask(payload: &mut [u8], key: MaskingKey) {
                mask_with($Vectors::new(), payload, key);
            }

            #[derive(Clone, Copy)]
            struct $Vectors(());

            impl $Vectors {
                #[target_feature(enable = $features)]
                fn new() -> Self {
                    Self(())
                }
            }

            impl Vectors<$bytes> for $Vectors {
                type Vector = $Vector;

                #[inline(always)]
                fn repeat(self, key: MaskingKey) -> $Vector {
                    let word = i32::from_ne_bytes(key.bytes());
                    // SAFETY: `self` proves that the CPU has the instruction set.
                    unsafe { $set1(word) }
                }

                #[inline(always)]
                fn load(self, bytes: &[u8; $bytes]) -> $Vector {
                    // SAFETY: `self` proves that the CPU has the instruction set; the array is
                    // as large as the vector, and the load asks for no alignment.
                    unsafe { $load(bytes.as_ptr().cast()) }
                }

                #[inline(always)]
                fn store(self, bytes: &mut [u8; $bytes], vector: $Vector) {
                    // SAFETY: `self` proves that the CPU has the instruction set; the array is
                    // as large as the vector, and the store asks for no alignment.
                    unsafe { $store(bytes.as_mut_ptr().cast(), vector) }
                }

                #[inline(always)]
                fn xor(self, a: $Vector, b: $Vector) -> $Vector {
                    // SAFETY: `self` proves that the CPU has the instruction set.
                    unsafe { $xor(a, b) }
                }
            }
        };
    }

    shell!("sse2", mask_sse2, Sse2, __m128i, 16, _mm_set1_epi32, _mm_loadu_si128, _mm_storeu_si128, _mm_xor_si128);
    shell!(
        "avx2",
        mask_avx2,
        Avx2,
        __m256i,
        32,
        _mm256_set1_epi32,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm256_xor_si256
    );
    shell!(
        "avx512f",
        mask_avx512,
        Avx512,
        __m512i,
        64,
        _mm512_set1_epi32,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_xor_si512
    );
}
