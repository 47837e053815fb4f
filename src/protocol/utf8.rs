//! Validation of text as it arrives: UTF-8 (RFC 3629), which RFC 6455 §8.1 requires of text messages and
//! §5.5.1 of close reasons.
//!
//! A message may be cut anywhere, into fragments by its sender and into reads by the network, so a character
//! may begin in one piece and end in another. Between pieces [`Utf8Validator`] keeps not the bytes it has
//! seen but what the next one may be:
//!
//! ```text
//!  e2 | 82 ac     after e2: two missing, the next from 80 to bf      U+20AC
//!  ed | 9f bf     after ed: two missing, the next from 80 to 9f      U+D7FF, and no surrogate
//!  f4 | 8f bf bf  after f4: three missing, the next from 80 to 8f    U+10FFFF, and nothing above
//! ```
//!
//! A text is refused at the first byte that no valid text could have in that place. Nothing is copied but short
//! pieces, nothing is allocated, and no input panics.
#![allow(unsafe_code)]

use std::error::Error;
use std::fmt;

/// Validates one text given in any number of pieces.
///
/// ```
/// use ringwave::protocol::utf8::Utf8Validator;
///
/// let mut validator = Utf8Validator::default();
/// assert!(validator.push(b"na\xc3").is_ok());
/// assert!(!validator.is_complete());
/// assert!(validator.push(b"\xafve").is_ok());
/// assert!(validator.is_complete());
///
/// // After ed, a0 would make a surrogate.
/// let invalid = validator.push(b" \xed\xa0\x80").expect_err("a surrogate is no character");
/// assert_eq!(invalid.valid_up_to, 2);
/// ```
#[derive(Default, Clone, Copy, Debug)]
pub struct Utf8Validator {
    /// Bytes that the unfinished character lacks; 0 between characters.
    missing: u8,
    /// The least that the next byte may be, if one is missing.
    next_min: u8,
    /// The most that the next byte may be, if one is missing.
    next_max: u8,
}

// Every connection has one, idle or not.
const _: () = assert!(size_of::<Utf8Validator>() <= 4);

/// What a byte that continues a character is, at least and at most.
const CONTINUATION: (u8, u8) = (0x80, 0xbf);

impl Utf8Validator {
    /// After a refused byte: one is missing, and none will do.
    const REFUSED: Self = Self { missing: 1, next_min: 1, next_max: 0 };

    /// Takes the next piece of the text, which may be empty.
    ///
    /// One pass. After an error every further byte is refused, until [`reset`](Self::reset).
    ///
    /// # Errors
    /// The piece has a byte that no valid text could have in that place (RFC 6455 §8.1: close code 1007). A
    /// text that ends amid a character is no error here; whoever knows the end asks
    /// [`is_complete`](Self::is_complete).
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Utf8Invalid> {
        let mut at = 0;
        while self.missing > 0 && at < bytes.len() {
            self.step(bytes, at)?;
            at += 1;
        }
        at += whole_characters(&bytes[at..]);
        // At most four turns: what stands here is either invalid, which its fourth byte shows at the latest,
        // or the up to three bytes of a character that the piece does not finish.
        while at < bytes.len() {
            self.step(bytes, at)?;
            at += 1;
        }
        Ok(())
    }

    /// Whether the text may end here: no character is unfinished and no byte was refused.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Forgets the text; the next push begins another.
    #[inline]
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn step(&mut self, bytes: &[u8], at: usize) -> Result<(), Utf8Invalid> {
        let next = self.after(bytes[at]);
        *self = next.unwrap_or(Self::REFUSED);
        match next {
            Some(_) => Ok(()),
            None => Err(Utf8Invalid { valid_up_to: at }),
        }
    }

    /// The state after `byte`; `None` if it may not stand here.
    fn after(self, byte: u8) -> Option<Self> {
        if self.missing > 0 {
            let fits = (self.next_min..=self.next_max).contains(&byte);
            return fits.then_some(Self::expecting(self.missing - 1, CONTINUATION));
        }
        // The Unicode Standard, table 3-7 (well-formed UTF-8 byte sequences).
        let (missing, next) = match byte {
            0x00..=0x7f => (0, CONTINUATION),
            0xc2..=0xdf => (1, CONTINUATION),
            0xe0 => (2, (0xa0, 0xbf)),
            0xe1..=0xec => (2, CONTINUATION),
            0xed => (2, (0x80, 0x9f)),
            0xee..=0xef => (2, CONTINUATION),
            0xf0 => (3, (0x90, 0xbf)),
            0xf1..=0xf3 => (3, CONTINUATION),
            0xf4 => (3, (0x80, 0x8f)),
            _ => return None,
        };
        Some(Self::expecting(missing, next))
    }

    const fn expecting(missing: u8, (next_min, next_max): (u8, u8)) -> Self {
        Self { missing, next_min, next_max }
    }
}

/// A text is not UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Utf8Invalid {
    /// How many bytes of the refused piece stand before the byte that proves the text invalid.
    ///
    /// In other words the index, in that piece, of the first byte that no valid text could have in its place.
    /// What stands before it may end with an unfinished character. So it is not
    /// [`Utf8Error::valid_up_to`](std::str::Utf8Error::valid_up_to), which does not count such a
    /// character: for `e2 82 41` that is 0, and this is 2.
    pub valid_up_to: usize,
}

impl fmt::Display for Utf8Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text is not UTF-8: byte {} may not stand there", self.valid_up_to)
    }
}

impl Error for Utf8Invalid {}

/// `bytes` as text if they are a whole one, in one pass: for a message that lies in one piece.
///
/// ```
/// use ringwave::protocol::utf8::validate_whole;
///
/// assert_eq!(validate_whole("½ 🙂".as_bytes()), Some("½ 🙂"));
/// assert_eq!(validate_whole(b"cut \xf0\x9f\x99"), None);
/// ```
#[inline]
pub fn validate_whole(bytes: &[u8]) -> Option<&str> {
    (whole_characters(bytes) == bytes.len()).then(|| {
        // SAFETY: all of them are whole, valid characters.
        unsafe { validated_str(bytes) }
    })
}

/// `bytes` as text without a second pass over them.
///
/// # Safety
/// A [`Utf8Validator`] has taken exactly these bytes since it was new or last reset, refused none, and is
/// complete; or [`validate_whole`] has accepted them. Debug builds look again.
#[inline]
pub(super) unsafe fn validated_str(bytes: &[u8]) -> &str {
    debug_assert!(std::str::from_utf8(bytes).is_ok(), "text that was not validated");
    // SAFETY: the bytes are UTF-8: the caller has had them validated.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

/// How many bytes at the front of `bytes` are whole, valid characters; as many as there are.
#[inline]
fn whole_characters(bytes: &[u8]) -> usize {
    if is_short_ascii(bytes) { bytes.len() } else { whole_characters_of_any(bytes) }
}

/// What `simdutf8` takes in one step. It leaves a shorter text to the standard library, which goes byte by byte.
const STEP_BYTES: usize = 64;

/// The shortest text that is validated faster when it is filled up to a step.
const FILLED_UP_BYTES_MIN: usize = 32;

fn whole_characters_of_any(bytes: &[u8]) -> usize {
    let valid_up_to = match bytes.len() {
        0..FILLED_UP_BYTES_MIN => std::str::from_utf8(bytes).map_err(|error| error.valid_up_to()).err(),
        FILLED_UP_BYTES_MIN..STEP_BYTES => {
            // NULs add whole characters at the end and finish none, so the first error stays where it is.
            let mut filled_up = [0; STEP_BYTES];
            filled_up[..bytes.len()].copy_from_slice(bytes);
            simdutf8::compat::from_utf8(&filled_up).map_err(|error| error.valid_up_to()).err()
        }
        STEP_BYTES.. => simdutf8::compat::from_utf8(bytes).map_err(|error| error.valid_up_to()).err(),
    };
    valid_up_to.unwrap_or(bytes.len())
}

/// Whether `bytes` are few and all of them ASCII.
///
/// Most messages are, and this tells it in half to a third of the time that validation takes (`benches/utf8.rs`).
#[inline]
fn is_short_ascii(bytes: &[u8]) -> bool {
    match bytes.len() {
        0..4 => bytes.is_ascii(),
        4..8 => are_ends_ascii::<4>(bytes),
        8..16 => are_ends_ascii::<8>(bytes),
        16..32 => are_ends_ascii::<16>(bytes),
        32..64 => are_ends_ascii::<32>(bytes),
        64..=128 => are_ends_ascii::<64>(bytes),
        _ => false,
    }
}

/// Whether `N..=2 * N` bytes are ASCII, as the first `N` and the last `N`, which may overlap.
#[inline]
fn are_ends_ascii<const N: usize>(bytes: &[u8]) -> bool {
    debug_assert!((N..=2 * N).contains(&bytes.len()));
    let (Some(head), Some(tail)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        return false;
    };
    let any = head.iter().zip(tail).fold(0, |any, (a, b)| any | a | b);
    any.is_ascii()
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    /// First and last of each row of the Unicode Standard's table 3-7, and some text.
    const VALID: &[&str] = &[
        "",
        "\u{0}\u{7f}",
        "\u{80}\u{7ff}",
        "\u{800}\u{fff}",
        "\u{1000}\u{cfff}",
        "\u{d000}\u{d7ff}",
        "\u{e000}\u{ffff}",
        "\u{10000}\u{3ffff}",
        "\u{40000}\u{fffff}",
        "\u{100000}\u{10ffff}",
        "κόσμε",
        "日本語 🙂👍🏽 naïve",
        "\u{feff}a byte order mark is text",
    ];

    /// Bytes, and the index of the one that proves them invalid.
    const INVALID: &[(&[u8], usize)] = &[
        // A continuation with nothing to continue.
        (b"\x80", 0),
        (b"\xbf", 0),
        (b"\xc2\x80\x80", 2),
        (b"\xe1\x80\x80\x80", 3),
        (b"\xf1\x80\x80\x80\x80", 4),
        // Bytes that begin nothing.
        (b"\xc0\x80", 0),
        (b"\xc1\xbf", 0),
        (b"\xf5\x80\x80\x80", 0),
        (b"\xf8\x88\x80\x80\x80", 0),
        (b"\xfc\x84\x80\x80\x80\x80", 0),
        (b"\xfe", 0),
        (b"\xff", 0),
        // Overlong.
        (b"\xe0\x80\x80", 1),
        (b"\xe0\x9f\xbf", 1),
        (b"\xf0\x80\x80\x80", 1),
        (b"\xf0\x8f\xbf\xbf", 1),
        // Surrogates.
        (b"\xed\xa0\x80", 1),
        (b"\xed\xad\xbf", 1),
        (b"\xed\xae\x80", 1),
        (b"\xed\xbf\xbf", 1),
        (b"\xed\xa0\xbd\xed\xb8\x80", 1),
        // Above U+10FFFF.
        (b"\xf4\x90\x80\x80", 1),
        (b"\xf4\xbf\xbf\xbf", 1),
        // A character cut short by what comes next.
        (b"\xc2\x7f", 1),
        (b"\xc2\xc2\x80", 1),
        (b"\xdf\xc0", 1),
        (b"\xe0\xa0\x7f", 2),
        (b"\xe0\xa0\xc0", 2),
        (b"\xe1\x7f", 1),
        (b"\xe2\x82A", 2),
        (b"\xec\xbf\xe2", 2),
        (b"\xed\x9f\x7f", 2),
        (b"\xee\xc0", 1),
        (b"\xef\xbf\xf0", 2),
        (b"\xf0\x90\x7f", 2),
        (b"\xf0\x90\x80\x7f", 3),
        (b"\xf1\x7f", 1),
        (b"\xf3\xbf\xbf\xc0", 3),
        (b"\xf4\x8f\xff", 2),
        (b"\xf4\x8f\xbf\x00", 3),
        // The Unicode Standard, tables 3-8 to 3-11.
        (b"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82A", 0),
        (b"\xed\xa0\x80\xed\xbf\xbf\xed\xafA", 1),
        (b"\xf4\x91\x92\x93\xffA\x80\xbfB", 1),
        (b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbfA", 2),
    ];

    /// What may stand before and after a vector; by its length, each way of validating meets the vector.
    fn surroundings() -> Vec<(String, String)> {
        const LENGTHS: [usize; 11] = [0, 1, 3, 15, 30, 61, 63, 64, 90, 127, 200];
        const UNITS: [(&str, &str); 5] = [("a", ""), ("é", ""), ("🙂", ""), ("", "a"), ("a", "é")];
        let fill = |unit: &str, bytes: usize| unit.repeat(bytes / unit.len().max(1));
        if cfg!(miri) {
            return vec![(fill("a", 35), String::new())];
        }
        let of_length = |bytes| UNITS.map(|(before, after)| (fill(before, bytes), fill(after, bytes)));
        LENGTHS.into_iter().flat_map(of_length).collect()
    }

    fn surrounded(bytes: &[u8], (before, after): &(String, String)) -> Vec<u8> {
        [before.as_bytes(), bytes, after.as_bytes()].concat()
    }

    /// What became of a text: where it was refused, counted from its beginning, or whether it is complete.
    #[derive(PartialEq, Eq, Debug)]
    enum Verdict {
        RefusedAt(usize),
        Unfinished,
        Complete,
    }

    fn verdict<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
        let mut validator = Utf8Validator::default();
        let mut taken = 0;
        for piece in pieces {
            if let Err(Utf8Invalid { valid_up_to }) = validator.push(piece) {
                return Verdict::RefusedAt(taken + valid_up_to);
            }
            taken += piece.len();
        }
        if validator.is_complete() { Verdict::Complete } else { Verdict::Unfinished }
    }

    /// The verdict that follows from the standard library's: it knows of each prefix whether more could mend it.
    fn verdict_of_std(bytes: &[u8]) -> Verdict {
        let Err(error) = std::str::from_utf8(bytes) else {
            return Verdict::Complete;
        };
        if error.error_len().is_none() {
            return Verdict::Unfinished;
        }
        let beyond_mending =
            |end: &usize| std::str::from_utf8(&bytes[..*end]).is_err_and(|error| error.error_len().is_some());
        let shortest = (error.valid_up_to() + 1..=bytes.len()).find(beyond_mending);
        Verdict::RefusedAt(shortest.expect("the whole is beyond mending") - 1)
    }

    /// Whole, cut into two anywhere, and byte by byte, the bytes meet with `expected`.
    #[track_caller]
    fn assert_verdict(bytes: &[u8], expected: &Verdict) {
        assert_eq!(verdict([bytes]), *expected, "{bytes:02x?}");
        assert_eq!(verdict(bytes.chunks(1)), *expected, "byte by byte: {bytes:02x?}");
        for split_at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(split_at);
            assert_eq!(verdict([first, second]), *expected, "split at {split_at}: {bytes:02x?}");
        }
        assert_eq!(validate_whole(bytes).is_some(), *expected == Verdict::Complete, "{bytes:02x?}");
    }

    #[test]
    fn valid_text_is_complete_however_it_is_split() {
        for around in surroundings() {
            for text in VALID {
                assert_verdict(&surrounded(text.as_bytes(), &around), &Verdict::Complete);
            }
        }
    }

    #[test]
    fn invalid_text_is_refused_at_the_byte_that_proves_it_however_it_is_split() {
        for around in surroundings() {
            for (bytes, proof) in INVALID {
                let expected = Verdict::RefusedAt(around.0.len() + proof);
                assert_verdict(&surrounded(bytes, &around), &expected);
            }
        }
    }

    #[test]
    fn text_that_ends_amid_a_character_is_unfinished() {
        for around in surroundings() {
            for unfinished in ["\u{80}", "\u{800}", "\u{d7ff}", "\u{10000}", "\u{10ffff}"].map(str::as_bytes) {
                for end in 1..unfinished.len() {
                    let bytes = [around.0.as_bytes(), &unfinished[..end]].concat();
                    assert_verdict(&bytes, &Verdict::Unfinished);
                }
            }
        }
    }

    #[test]
    fn every_sequence_of_boundary_bytes_meets_with_the_verdict_of_std() {
        const BOUNDARIES: [u8; 11] = [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xff];
        for lead in (0..=0xff).step_by(if cfg!(miri) { 97 } else { 1 }) {
            for second in BOUNDARIES {
                for third in BOUNDARIES {
                    for fourth in BOUNDARIES {
                        let bytes = [lead, second, third, fourth];
                        let expected = verdict_of_std(&bytes);
                        assert_eq!(verdict([&bytes[..]]), expected, "{bytes:02x?}");
                        assert_eq!(verdict(bytes.chunks(1)), expected, "byte by byte: {bytes:02x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn random_text_meets_with_the_verdict_of_std() {
        let mut random = Random::seeded();
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let bytes = random.damaged_text();
            let expected = verdict_of_std(&bytes);
            assert_eq!(verdict([&bytes[..]]), expected, "{bytes:02x?}");
            let pieces = random.pieces(&bytes);
            assert_eq!(verdict(pieces.iter().copied()), expected, "{pieces:02x?}");
            assert_eq!(validate_whole(&bytes), std::str::from_utf8(&bytes).ok(), "{bytes:02x?}");
        }
    }

    #[test]
    fn refused_text_stays_refused_until_reset() {
        let mut validator = Utf8Validator::default();
        assert_eq!(validator.push(b"a\xffb"), Err(Utf8Invalid { valid_up_to: 1 }));
        assert!(!validator.is_complete());
        assert_eq!(validator.push(b""), Ok(()));
        for byte in 0..=0xff {
            assert_eq!(validator.push(&[byte]), Err(Utf8Invalid { valid_up_to: 0 }), "{byte:02x}");
        }
        assert!(!validator.is_complete());
        validator.reset();
        assert!(validator.is_complete());
        assert_eq!(validator.push("é".as_bytes()), Ok(()));
    }

    #[test]
    fn validated_bytes_become_text() {
        let bytes = "déjà vu".as_bytes();
        assert_eq!(verdict([bytes]), Verdict::Complete);
        // SAFETY: the validator has just taken all of them and is complete.
        assert_eq!(unsafe { validated_str(bytes) }, "déjà vu");
    }

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        /// Another seed each time, printed; `RINGWAVE_TEST_SEED` repeats one.
        fn seeded() -> Self {
            let given = std::env::var("RINGWAVE_TEST_SEED").ok();
            let seed = given.map_or_else(
                || RandomState::new().hash_one(0),
                |seed| seed.parse().expect("RINGWAVE_TEST_SEED is a number"),
            );
            println!("RINGWAVE_TEST_SEED={seed}");
            Self(seed)
        }

        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % bound as u64) as usize
        }

        /// Up to some hundred bytes of text, mostly of one script, in which a few bytes may be changed or missing.
        fn damaged_text(&mut self) -> Vec<u8> {
            let ceiling = [0x80, 0x800, 0x1_0000, 0x11_0000][self.below(4)];
            let characters = self.below(100);
            let text: String = (0..characters).filter_map(|_| char::from_u32(self.below(ceiling) as u32)).collect();
            let mut bytes = text.into_bytes();
            for _ in 0..self.below(3) {
                if !bytes.is_empty() {
                    let at = self.below(bytes.len());
                    bytes[at] = self.below(256) as u8;
                }
            }
            bytes.truncate(bytes.len() - self.below(5).min(bytes.len()));
            bytes
        }

        /// `bytes` cut into pieces of up to 39, some of them empty.
        fn pieces<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
            let mut pieces = Vec::new();
            while !bytes.is_empty() {
                let (piece, rest) = bytes.split_at(self.below(40).min(bytes.len()));
                pieces.push(piece);
                bytes = rest;
            }
            pieces
        }
    }
}
