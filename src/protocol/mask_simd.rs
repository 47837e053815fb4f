//! Masking with the CPU's vector registers: the algorithm once, in safe code, and under it a thin shell
//! for each instruction set.
//!
//! ```text
//!  head      |#########|                                           read first, written last
//!  payload   |····|=========|=========|=========|=========|·····|  aligned, in fours, then singly
//!  tail                                               |#########|  read first, written last
//! ```
//!
//! Unsafe code is here for two things only: to call what not every CPU can run, and to move a vector
//! between a register and an array of the same size. What it buys, on a Zen 4 (`benches/mask.rs`): four
//! times the speed of the safe twin, [`apply_mask_scalar`], from 1 KiB on. The same algorithm over
//! plain arrays, left to the compiler to vectorize, was tried and lost: with AVX-512 it chose gathers
//! and was twenty times as slow.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::mask::{MaskingKey, apply_mask_scalar, mask_short};

/// One way of masking that this CPU can run.
#[derive(Debug)]
pub struct InstructionSet {
    name: &'static str,
    /// To be called only where the CPU has the instruction set.
    mask: unsafe fn(&mut [u8], MaskingKey),
}

impl InstructionSet {
    /// What the instruction set is called: `scalar`, `sse2`, `avx2`, `avx512` or `neon`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Masks or unmasks `payload` in place, whatever its length.
    #[inline]
    pub fn apply(&self, payload: &mut [u8], key: MaskingKey) {
        // SAFETY: values stand only in `INSTRUCTION_SETS`, and `available` and `WIDEST_INDEX`, the two ways to
        // one of them, reach none whose instruction set the CPU lacks.
        unsafe { (self.mask)(payload, key) }
    }
}

/// The instruction sets of this CPU, narrowest first; never empty.
pub(super) fn available() -> &'static [InstructionSet] {
    &INSTRUCTION_SETS[..available_count()]
}

/// Where in [`INSTRUCTION_SETS`] the widest of [`available`] stands; past its end until it was asked for.
///
/// The standard library remembers what the CPU has, but to ask it takes half as long as to mask 125 bytes.
static WIDEST_INDEX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Masks `payload` in place with the widest of [`available`].
#[inline]
pub(super) fn mask_widest(payload: &mut [u8], key: MaskingKey) {
    // Relaxed: the index is all there is to see, and every thread finds the same one.
    match INSTRUCTION_SETS.get(WIDEST_INDEX.load(Ordering::Relaxed)) {
        Some(widest) => widest.apply(payload, key),
        None => mask_and_find_widest(payload, key),
    }
}

#[cold]
fn mask_and_find_widest(payload: &mut [u8], key: MaskingKey) {
    let widest_index = available_count() - 1;
    WIDEST_INDEX.store(widest_index, Ordering::Relaxed);
    INSTRUCTION_SETS[widest_index].apply(payload, key);
}

const SCALAR: InstructionSet = InstructionSet { name: "scalar", mask: apply_mask_scalar };

/// Masks `payload` with vectors of `N` bytes.
#[inline(always)]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "this CPU has no shell")
)]
fn mask_with<V: Vectors<N>, const N: usize>(vectors: V, payload: &mut [u8], key: MaskingKey) {
    let (Some(head), Some(tail)) = (payload.first_chunk(), payload.last_chunk()) else {
        return mask_short(payload, key);
    };
    // Both ends are read before anything is written and written after everything else, so a byte they share
    // with their neighbours is masked once, and no length leaves single bytes over.
    let tail_key = key.rotated(payload.len() - N);
    let head = vectors.xor(vectors.load(head), vectors.repeat(key));
    let tail = vectors.xor(vectors.load(tail), vectors.repeat(tail_key));

    if payload.len() > 2 * N {
        // A header's length leaves the payload at any address. A vector that crosses a cache line costs
        // two accesses, so the vectors between the ends begin where N divides the address.
        let aligned_at = N - payload.as_ptr().addr() % N;
        let key = vectors.repeat(key.rotated(aligned_at));
        let (aligned, _in_tail) = payload[aligned_at..].as_chunks_mut::<N>();
        let (fours, singles) = aligned.as_chunks_mut::<4>();
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
        for single in singles {
            let masked = vectors.xor(vectors.load(single), key);
            vectors.store(single, masked);
        }
    }

    let at_least_n = "a payload of fewer than N bytes is masked above";
    vectors.store(payload.first_chunk_mut().expect(at_least_n), head);
    vectors.store(payload.last_chunk_mut().expect(at_least_n), tail);
}

/// The operations of one instruction set on vectors of `N` bytes.
///
/// A value is the proof that the CPU has the instruction set: only a function that is compiled for the
/// instruction set makes one, and only the CPU that has it may run such a function.
trait Vectors<const N: usize>: Copy {
    /// What a register holds.
    type Vector: Copy;

    /// The key, over and over.
    fn repeat(self, key: MaskingKey) -> Self::Vector;
    fn load(self, bytes: &[u8; N]) -> Self::Vector;
    fn store(self, bytes: &mut [u8; N], vector: Self::Vector);
    fn xor(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
}

/// Writes the shell of one instruction set: `$mask` is what [`InstructionSet`] calls.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! shell {
    (
        $mask:ident, $features:literal, $Vectors:ident, [$Vector:ident; $bytes:literal bytes],
        $repeat:ident, $load:ident, $store:ident, $xor:ident
    ) => {
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
                let key = i32::from_ne_bytes(key.bytes());
                // SAFETY: `self` proves that the CPU has the instruction set.
                unsafe { $repeat(key) }
            }

            #[inline(always)]
            fn load(self, bytes: &[u8; $bytes]) -> $Vector {
                // SAFETY: `self` proves that the CPU has the instruction set. The array is as long
                // as the vector and may be read, and the load asks for no alignment.
                unsafe { $load(bytes.as_ptr().cast()) }
            }

            #[inline(always)]
            fn store(self, bytes: &mut [u8; $bytes], vector: $Vector) {
                // SAFETY: `self` proves that the CPU has the instruction set. The array is as long
                // as the vector and is lent to us alone, and the store asks for no alignment.
                unsafe { $store(bytes.as_mut_ptr().cast(), vector) }
            }

            #[inline(always)]
            fn xor(self, a: $Vector, b: $Vector) -> $Vector {
                // SAFETY: `self` proves that the CPU has the instruction set.
                unsafe { $xor(a, b) }
            }
        }

        const _: () = assert!(size_of::<$Vector>() == $bytes);
    };
}

#[cfg(target_arch = "x86_64")]
use x86_64::{INSTRUCTION_SETS, available_count};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{InstructionSet, MaskingKey, SCALAR, Vectors, mask_with};

    /// Each entry's CPUs have all entries before it too.
    pub(super) static INSTRUCTION_SETS: [InstructionSet; 4] = [
        SCALAR,
        InstructionSet { name: "sse2", mask: mask_sse2 },
        InstructionSet { name: "avx2", mask: mask_avx2 },
        InstructionSet { name: "avx512", mask: mask_avx512 },
    ];

    /// How many of [`INSTRUCTION_SETS`] this CPU can run.
    pub(super) fn available_count() -> usize {
        // SSE2 is part of x86-64. The CPUs that have AVX-512 without VBMI2 lower their clock, for every
        // program on the core, as soon as they see a vector of 64 bytes: those stay with AVX2.
        let avx2 = is_x86_feature_detected!("avx2");
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vbmi2");
        match (avx2, avx512) {
            (false, _) => 2,
            (true, false) => 3,
            (true, true) => 4,
        }
    }

    shell! {
        mask_sse2, "sse2", Sse2, [__m128i; 16 bytes],
        _mm_set1_epi32, _mm_loadu_si128, _mm_storeu_si128, _mm_xor_si128
    }
    shell! {
        mask_avx2, "avx2", Avx2, [__m256i; 32 bytes],
        _mm256_set1_epi32, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_xor_si256
    }
    shell! {
        mask_avx512, "avx512f", Avx512, [__m512i; 64 bytes],
        _mm512_set1_epi32, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_xor_si512
    }
}

#[cfg(target_arch = "aarch64")]
use aarch64::{INSTRUCTION_SETS, available_count};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;

    use super::{InstructionSet, MaskingKey, SCALAR, Vectors, mask_with};

    pub(super) static INSTRUCTION_SETS: [InstructionSet; 2] =
        [SCALAR, InstructionSet { name: "neon", mask: mask_neon }];

    /// How many of [`INSTRUCTION_SETS`] this CPU can run.
    pub(super) fn available_count() -> usize {
        if std::arch::is_aarch64_feature_detected!("neon") { 2 } else { 1 }
    }

    shell! {
        mask_neon, "neon", Neon, [uint8x16_t; 16 bytes],
        repeat, vld1q_u8, vst1q_u8, veorq_u8
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn repeat(key: i32) -> uint8x16_t {
        vreinterpretq_u8_s32(vdupq_n_s32(key))
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use portable::{INSTRUCTION_SETS, available_count};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod portable {
    use super::{InstructionSet, SCALAR};

    pub(super) static INSTRUCTION_SETS: [InstructionSet; 1] = [SCALAR];

    /// How many of [`INSTRUCTION_SETS`] this CPU can run.
    pub(super) fn available_count() -> usize {
        1
    }
}
