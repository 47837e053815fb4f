//! What the peer can do wrong: each broken rule with its section and the one answer to it.
//!
//! Never used for our own mistakes (those are assertions) nor for the system's refusals (`io::Error`).

use super::close::CloseCode;
use std::fmt;

/// A rule of RFC 6455's framing that the peer broke. The connection fails with [`ProtocolError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// RSV1–3 set without an extension that gives them a meaning.
    ReservedBits,
    /// An opcode that nobody has defined.
    ReservedOpcode(u8),
    /// A close, ping or pong frame without FIN.
    ControlFragmented,
    /// A close, ping or pong frame with more than 125 bytes of payload.
    ControlTooLong,
    /// A payload length in more bytes than it needs.
    LengthNotMinimal,
    /// A 64-bit payload length with its most significant bit set.
    LengthSignBit,
    /// A client's frame without a masking key.
    MaskMissing,
    /// A server's frame with a masking key.
    MaskPresent,
    /// A continuation frame, but no message is under way.
    ContinuationWithoutMessage,
    /// A new message while another one is unfinished.
    MessageInsideMessage,
    /// A close frame with one byte of payload: half a code.
    ClosePayloadTooShort,
    /// A close code that must not be sent.
    CloseCodeInvalid(u16),
    /// A close reason that is not UTF-8.
    CloseReasonNotUtf8,
    /// Text that is not UTF-8.
    TextNotUtf8,
    /// A message longer than `message_bytes_max`.
    MessageTooLong,
    /// A frame longer than `frame_bytes_max`, in a message that is not too long.
    FrameTooLong,
    /// A message of more fragments than `fragments_max`.
    FragmentsTooMany,
}

impl ProtocolError {
    /// The code that our close frame carries.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::MessageTooLong | Self::FrameTooLong => CloseCode::MESSAGE_TOO_BIG,
            Self::FragmentsTooMany => CloseCode::POLICY_VIOLATION,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// The section of RFC 6455 that states the rule.
    pub const fn section(self) -> &'static str {
        match self {
            Self::ReservedBits | Self::ReservedOpcode(_) | Self::LengthNotMinimal | Self::LengthSignBit => "5.2",
            Self::ControlFragmented | Self::ControlTooLong => "5.5",
            Self::MaskMissing | Self::MaskPresent => "5.1",
            Self::ContinuationWithoutMessage | Self::MessageInsideMessage => "5.4",
            Self::ClosePayloadTooShort | Self::CloseReasonNotUtf8 => "5.5.1",
            Self::CloseCodeInvalid(_) => "7.4",
            Self::TextNotUtf8 => "8.1",
            Self::MessageTooLong | Self::FrameTooLong | Self::FragmentsTooMany => "10.4",
        }
    }

    /// The rule in a few words; it is sent as the close reason.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits must be zero",
            Self::ReservedOpcode(_) => "reserved opcode",
            Self::ControlFragmented => "control frames must not be fragmented",
            Self::ControlTooLong => "control frames carry at most 125 bytes",
            Self::LengthNotMinimal => "the payload length must use as few bytes as possible",
            Self::LengthSignBit => "the most significant bit of a payload length must be zero",
            Self::MaskMissing => "frames from a client must be masked",
            Self::MaskPresent => "frames from a server must not be masked",
            Self::ContinuationWithoutMessage => "continuation without a message to continue",
            Self::MessageInsideMessage => "a new message inside an unfinished one",
            Self::ClosePayloadTooShort => "a close payload is empty or at least 2 bytes",
            Self::CloseCodeInvalid(_) => "this close code must not be sent",
            Self::CloseReasonNotUtf8 => "the close reason must be UTF-8",
            Self::TextNotUtf8 => "text must be UTF-8",
            Self::MessageTooLong => "the message is too long",
            Self::FrameTooLong => "the frame is too long",
            Self::FragmentsTooMany => "the message has too many fragments",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (RFC 6455 section {}", self.rule(), self.section())?;
        match self {
            Self::ReservedOpcode(opcode) => write!(f, "; saw {opcode:#x})"),
            Self::CloseCodeInvalid(code) => write!(f, "; saw {code})"),
            _ => write!(f, ")"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// A request head that is not answered by the application: the HTTP status and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadError {
    /// The HTTP status to answer with.
    pub status: u16,
    /// What is wrong, for the answer's body.
    pub reason: &'static str,
}

impl HeadError {
    /// 400: the head cannot be understood, or can be understood in two ways.
    pub(crate) const fn bad_request(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }

    pub(crate) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

impl std::error::Error for HeadError {}

/// Why a client's handshake did not lead to a WebSocket (RFC 6455 §4.1, the list at its end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The answer is not an HTTP/1.1 response head within the limits.
    Malformed(&'static str),
    /// The server answered with another status than 101.
    Status(u16),
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing.
    NotUpgraded,
    /// `Sec-WebSocket-Accept` is missing or not the hash of our key.
    AcceptMismatch,
    /// A subprotocol that was not offered.
    ProtocolNotOffered,
    /// An extension that was not offered.
    ExtensionNotOffered,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => write!(f, "the answer is not an HTTP response: {reason}"),
            Self::Status(status) => write!(f, "the server answered {status} instead of 101"),
            Self::NotUpgraded => f.write_str("the answer lacks Upgrade: websocket or Connection: Upgrade"),
            Self::AcceptMismatch => f.write_str("Sec-WebSocket-Accept does not answer our key"),
            Self::ProtocolNotOffered => f.write_str("the server chose a subprotocol that was not offered"),
            Self::ExtensionNotOffered => f.write_str("the server chose an extension that was not offered"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// Why a connection's input ended in an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A frame broke a rule: answer with a close frame.
    Frame(ProtocolError),
    /// A request head is refused: answer with its status.
    Head(HeadError),
    /// The server's answer to our handshake is refused: close.
    Response(ResponseError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::Head(error) => error.fmt(f),
            Self::Response(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Self::Frame(error)
    }
}

impl From<HeadError> for Failure {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

impl From<ResponseError> for Failure {
    fn from(error: ResponseError) -> Self {
        Self::Response(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::CLOSE_REASON_BYTES_MAX;

    /// Every rule, the code that its breach is answered with, and what is logged.
    const RULES: [(ProtocolError, u16, &str); 17] = [
        (ProtocolError::ReservedBits, 1002, "reserved bits must be zero (RFC 6455 section 5.2)"),
        (ProtocolError::ReservedOpcode(0xb), 1002, "reserved opcode (RFC 6455 section 5.2; saw 0xb)"),
        (ProtocolError::ControlFragmented, 1002, "control frames must not be fragmented (RFC 6455 section 5.5)"),
        (ProtocolError::ControlTooLong, 1002, "control frames carry at most 125 bytes (RFC 6455 section 5.5)"),
        (
            ProtocolError::LengthNotMinimal,
            1002,
            "the payload length must use as few bytes as possible (RFC 6455 section 5.2)",
        ),
        (
            ProtocolError::LengthSignBit,
            1002,
            "the most significant bit of a payload length must be zero (RFC 6455 section 5.2)",
        ),
        (ProtocolError::MaskMissing, 1002, "frames from a client must be masked (RFC 6455 section 5.1)"),
        (ProtocolError::MaskPresent, 1002, "frames from a server must not be masked (RFC 6455 section 5.1)"),
        (
            ProtocolError::ContinuationWithoutMessage,
            1002,
            "continuation without a message to continue (RFC 6455 section 5.4)",
        ),
        (ProtocolError::MessageInsideMessage, 1002, "a new message inside an unfinished one (RFC 6455 section 5.4)"),
        (
            ProtocolError::ClosePayloadTooShort,
            1002,
            "a close payload is empty or at least 2 bytes (RFC 6455 section 5.5.1)",
        ),
        (
            ProtocolError::CloseCodeInvalid(1005),
            1002,
            "this close code must not be sent (RFC 6455 section 7.4; saw 1005)",
        ),
        (ProtocolError::CloseReasonNotUtf8, 1007, "the close reason must be UTF-8 (RFC 6455 section 5.5.1)"),
        (ProtocolError::TextNotUtf8, 1007, "text must be UTF-8 (RFC 6455 section 8.1)"),
        (ProtocolError::MessageTooLong, 1009, "the message is too long (RFC 6455 section 10.4)"),
        (ProtocolError::FrameTooLong, 1009, "the frame is too long (RFC 6455 section 10.4)"),
        (ProtocolError::FragmentsTooMany, 1008, "the message has too many fragments (RFC 6455 section 10.4)"),
    ];

    #[test]
    fn every_broken_rule_has_its_code_and_says_which_it_is() {
        for (error, code, text) in RULES {
            assert_eq!((error.close_code().number(), error.to_string().as_str()), (code, text));
            assert_eq!(Failure::from(error).to_string(), text);
            assert!(error.rule().len() <= CLOSE_REASON_BYTES_MAX, "{text}: it is sent as a close reason");
        }
    }

    #[test]
    fn refused_heads_and_responses_say_why() {
        let refused = Failure::from(HeadError::new(431, "the head is too long"));
        assert_eq!(refused.to_string(), "431: the head is too long");
        for (error, text) in [
            (ResponseError::Malformed("no status"), "the answer is not an HTTP response: no status"),
            (ResponseError::Status(403), "the server answered 403 instead of 101"),
            (ResponseError::NotUpgraded, "the answer lacks Upgrade: websocket or Connection: Upgrade"),
            (ResponseError::AcceptMismatch, "Sec-WebSocket-Accept does not answer our key"),
            (ResponseError::ProtocolNotOffered, "the server chose a subprotocol that was not offered"),
            (ResponseError::ExtensionNotOffered, "the server chose an extension that was not offered"),
        ] {
            assert_eq!(Failure::from(error).to_string(), text);
        }
    }
}
