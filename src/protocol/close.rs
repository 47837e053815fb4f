//! Close codes and the payload of a close frame (RFC 6455 §5.5.1, §7.4).

use super::error::ProtocolError;
use crate::base::limits::CLOSE_REASON_BYTES_MAX;
use std::fmt;

/// A close code that may stand in a close frame (RFC 6455 §7.4 and its registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: done.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server shuts down, or the page is left.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that is not accepted here.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1007: data that is not what its kind demands, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: against our policy.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: too big.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the client needs an extension that the server did not choose.
    pub const EXTENSION_REQUIRED: Self = Self(1010);
    /// 1011: the server met a condition of its own that keeps it from going on.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts; come back.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: overloaded; try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// The code with this number, unless it must not stand in a frame: below 1000, 1004–1006, 1015–2999, 5000 and up.
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Why.
    pub code: CloseCode,
    /// Why, in words for whoever debugs it; often empty.
    pub reason: &'a str,
}

/// Reads a close frame's payload. `None`: the peer gave no code (1005 in the API's terms, never on the wire).
pub fn decode_close(payload: &[u8]) -> Result<Option<CloseFrame<'_>>, ProtocolError> {
    match payload {
        [] => Ok(None),
        [_] => Err(ProtocolError::ClosePayloadTooShort),
        [high, low, reason @ ..] => {
            let number = u16::from_be_bytes([*high, *low]);
            let code = CloseCode::new(number).ok_or(ProtocolError::CloseCodeInvalid(number))?;
            // RFC 6455 §5.5.1: the reason is UTF-8.
            let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::CloseReasonNotUtf8)?;
            Ok(Some(CloseFrame { code, reason }))
        }
    }
}

/// The longest start of `reason` that fits into a close frame, cut between characters.
pub fn truncated_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_judged_as_the_registry_says() {
        for number in 0..=u16::MAX {
            let sendable = matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(CloseCode::new(number).is_some(), sendable, "{number}");
            let verdict = decode_close(&number.to_be_bytes()).map(|frame| frame.map(|frame| frame.code.number()));
            let expected = if sendable { Ok(Some(number)) } else { Err(ProtocolError::CloseCodeInvalid(number)) };
            assert_eq!(verdict, expected);
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(decode_close(b""), Ok(None));
        assert_eq!(decode_close(b"\x03"), Err(ProtocolError::ClosePayloadTooShort));
        let frame = CloseFrame { code: CloseCode::NORMAL, reason: "bye ✓" };
        assert_eq!(decode_close("\x03\u{0}bye".as_bytes()).map(|_| ()), Err(ProtocolError::CloseCodeInvalid(0x300)));
        assert_eq!(decode_close(b"\x03\xe8bye \xe2\x9c\x93"), Ok(Some(frame)));
        assert_eq!(decode_close(b"\x03\xe8\xe2\x9c"), Err(ProtocolError::CloseReasonNotUtf8));
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(truncated_reason("short"), "short");
        let long = "é".repeat(100);
        assert_eq!(truncated_reason(&long).len(), 122);
    }
}
