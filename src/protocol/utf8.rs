//! Validation of text as it arrives: UTF-8 (RFC 3629), required of text messages by RFC 6455 §8.1 and of
//! close reasons by §5.5.1.
//!
//! A message may be split anywhere, in fragments by its sender and in reads by the network, so a
//! character may begin in one slice and end in the next. Between slices [`Utf8Validator`] keeps what the
//! next byte must be, not the bytes it has seen: four bytes of state hold it all. It refuses a text
//! at the first byte that no valid text could have at its place. It never copies, allocates or panics.
//!
//! The one unsafe operation here turns bytes that were validated piece by piece into a `&str` without a second
//! pass ([`validated_str`]).
#![allow(unsafe_code)]

use std::error::Error;
use std::fmt;

/// The bytes that end no character but continue one.
const CONTINUATION_MIN: u8 = 0x80;
const CONTINUATION_MAX: u8 = 0xbf;

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
/// // 0xed begins U+D000 to U+D7FF; 0xa0 after it would make a surrogate.
/// let refused = validator.push(b"a\xed\xa0\x80").expect_err("a surrogate");
/// assert_eq!(refused.valid_up_to, 2);
/// ```
#[derive(Default, Clone, Copy, Debug)]
pub struct Utf8Validator {
    /// How many bytes the unfinished character lacks; 0 between characters.
    missing: u8,
    /// What the next byte must be, at least and at most. Means nothing if none is missing.
    next_min: u8,
    next_max: u8,
}

// One stands in every connection, idle ones too.
const _: () = assert!(size_of::<Utf8Validator>() <= 4);

/// A text is not UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Utf8Invalid {
    /// How many bytes of the refused push stand before the byte that proves the text invalid.
    ///
    /// So it is the index, in that push, of the first byte that no valid text could have there. The
    /// bytes before it may end with an unfinished character, unlike those before
    /// [`std::str::Utf8Error::valid_up_to`]: `e2 82 41` is refused at 2, where `std` says 0.
    pub valid_up_to: usize,
}

impl fmt::Display for Utf8Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text is not UTF-8 at byte {}", self.valid_up_to)
    }
}

impl Error for Utf8Invalid {}

impl Utf8Validator {
    /// What follows a refused byte: nothing may.
    const REFUSED: Self = Self { missing: 1, next_min: 1, next_max: 0 };

    /// Takes the next piece of the text, which may be empty.
    ///
    /// One pass, no copy. After an error every byte is refused until [`reset`](Self::reset).
    ///
    /// # Errors
    /// The piece holds a byte that no valid text could have at its place: RFC 6455 §8.1 wants the connection
    /// failed. That a text ends amid a character is no error here; ask [`is_complete`](Self::is_complete) at the end.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Utf8Invalid> {
        if self.missing == 0 && bytes.is_ascii() {
            return Ok(());
        }
        let head = self.step_while_missing(bytes)?;
        let Err(error) = simdutf8::compat::from_utf8(&bytes[head..]) else {
            return Ok(());
        };
        self.step_all(bytes, head + error.valid_up_to())
    }

    /// Whether the text may end here: no character is unfinished and nothing was refused.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Forgets the text; the next push begins another.
    #[inline]
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn step_while_missing(&mut self, bytes: &[u8]) -> Result<usize, Utf8Invalid> {
        let mut at = 0;
        while self.missing > 0 && at < bytes.len() {
            self.step(bytes, at)?;
            at += 1;
        }
        Ok(at)
    }

    fn step_all(&mut self, bytes: &[u8], from: usize) -> Result<(), Utf8Invalid> {
        for at in from..bytes.len() {
            self.step(bytes, at)?;
        }
        Ok(())
    }
    fn step(&mut self, bytes: &[u8], at: usize) -> Result<(), Utf8Invalid> {
        match self.after(bytes[at]) {
            Some(next) => {
                *self = next;
                Ok(())
            }
            None => {
                *self = Self::REFUSED;
                Err(Utf8Invalid { valid_up_to: at })
            }
        }
    }
    fn after(self, byte: u8) -> Option<Self> {
        if self.missing > 0 {
            return (self.next_min..=self.next_max).contains(&byte).then_some(Self {
                missing: self.missing - 1,
                next_min: CONTINUATION_MIN,
                next_max: CONTINUATION_MAX,
            });
        }
        let (missing, next_min, next_max) = match byte {
            0x00..=0x7f => (0, 0, 0),
            0xc2..=0xdf => (1, CONTINUATION_MIN, CONTINUATION_MAX),
            0xe0 => (2, 0xa0, CONTINUATION_MAX),
            0xe1..=0xec | 0xee..=0xef => (2, CONTINUATION_MIN, CONTINUATION_MAX),
            0xed => (2, CONTINUATION_MIN, 0x9f),
            0xf0 => (3, 0x90, CONTINUATION_MAX),
            0xf1..=0xf3 => (3, CONTINUATION_MIN, CONTINUATION_MAX),
            0xf4 => (3, CONTINUATION_MIN, 0x8f),
            _ => return None,
        };
        Some(Self { missing, next_min, next_max })
    }
}

/// The text that `bytes` are, or `None`.
pub fn validate_whole(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}

/// x
/// # Contract
/// x
pub(crate) fn validated_str(bytes: &[u8]) -> &str {
    debug_assert!(std::str::from_utf8(bytes).is_ok());
    // SAFETY: x
    unsafe { std::str::from_utf8_unchecked(bytes) }
}
