//! The opening handshake (RFC 6455 §4): a request judged, an answer written; and the client's side of both.
//!
//! An answer depends on the request and nothing else. Keys of a client come from its caller: no randomness here.

use super::error::{HeadError, ResponseError};
use super::http1::{Ambiguous, Request, ResponseHead, is_token};
use super::response::{HeaderInvalid, Response, encode_header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};
use std::ops::Deref;

/// RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Characters of a key: 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// The lines of a 101 that the handshake itself writes, or that would change what it says.
const OWN_HEADERS: [&str; 9] = [
    "upgrade",
    "connection",
    "content-length",
    "transfer-encoding",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
];

/// A request that asks for a WebSocket and may have one.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'a> {
    request: Request<'a>,
    key: &'a str,
}

impl<'a> Deref for UpgradeRequest<'a> {
    type Target = Request<'a>;
    fn deref(&self) -> &Request<'a> {
        &self.request
    }
}

impl<'a> UpgradeRequest<'a> {
    /// Judges a request: `None` if it does not ask for a WebSocket at all.
    ///
    /// # Errors
    /// The answer to an upgrade that RFC 6455 §4.2.1 does not allow: 400, 405 or 426.
    pub fn of(request: &Request<'a>) -> Result<Option<Self>, UpgradeError> {
        let fields = request.fields();
        // RFC 9110 §7.8: Upgrade in HTTP/1.0 is ignored.
        if request.is_http_1_0() || !fields.upgrades_to_websocket {
            return Ok(None);
        }
        if !fields.connection_upgrade {
            return Err(UpgradeError::bad_request("Connection lacks the token Upgrade"));
        }
        if request.method() != "GET" {
            return Err(UpgradeError::Method);
        }
        if request.body_len() != Ok(0) || !fields.content_length.is_absent() {
            return Err(UpgradeError::bad_request("an upgrade has no body"));
        }
        match fields.websocket_version.only() {
            Ok(Some("13")) => {}
            Err(Ambiguous) => return Err(UpgradeError::bad_request("more than one Sec-WebSocket-Version")),
            Ok(_) => return Err(UpgradeError::Version),
        }
        let key = match fields.websocket_key.only() {
            Ok(Some(key)) if is_key(key) => key,
            Ok(Some(_)) => return Err(UpgradeError::bad_request("Sec-WebSocket-Key is not 16 bytes in base64")),
            Ok(None) => return Err(UpgradeError::bad_request("Sec-WebSocket-Key is missing")),
            Err(Ambiguous) => return Err(UpgradeError::bad_request("more than one Sec-WebSocket-Key")),
        };
        let upgrade = Self { request: *request, key };
        if fields.names_protocols && !upgrade.raw_protocols().all(is_token) {
            return Err(UpgradeError::bad_request("Sec-WebSocket-Protocol is malformed"));
        }
        Ok(Some(upgrade))
    }

    /// The subprotocols the client offers, most preferred first.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> {
        self.raw_protocols().filter_map(|protocol| std::str::from_utf8(protocol).ok())
    }

    fn raw_protocols(&self) -> impl Iterator<Item = &'a [u8]> {
        self.request
            .headers()
            .all("sec-websocket-protocol")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            // RFC 9110 §5.6.1.2: empty elements of a list are ignored.
            .filter(|protocol| !protocol.is_empty())
    }

    /// Appends the answer that opens the WebSocket.
    ///
    /// # Errors
    /// A subprotocol that the client did not offer, a header line that is the handshake's own, or one that must not be
    /// written. Nothing is appended.
    pub fn encode_accept(
        &self,
        protocol: Option<&str>,
        headers: &[(String, String)],
        out: &mut Vec<u8>,
    ) -> Result<(), HeaderInvalid> {
        let start = out.len();
        let written = self.try_encode_accept(protocol, headers, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn try_encode_accept(
        &self,
        protocol: Option<&str>,
        headers: &[(String, String)],
        out: &mut Vec<u8>,
    ) -> Result<(), HeaderInvalid> {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        encode_header("Sec-WebSocket-Accept", &accept_of(self.key), out)?;
        if let Some(protocol) = protocol {
            // RFC 6455 §4.2.2: one of those offered, or none.
            if !self.protocols().any(|offered| offered == protocol) {
                return Err(HeaderInvalid);
            }
            encode_header("Sec-WebSocket-Protocol", protocol.as_bytes(), out)?;
        }
        for (name, value) in headers {
            if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                return Err(HeaderInvalid);
            }
            encode_header(name, value.as_bytes(), out)?;
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// An upgrade that RFC 6455 §4.2.1 does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeError {
    /// 400.
    Malformed(HeadError),
    /// 405: the method is not GET.
    Method,
    /// 426: the version is not 13.
    Version,
}

impl UpgradeError {
    const fn bad_request(reason: &'static str) -> Self {
        Self::Malformed(HeadError::bad_request(reason))
    }
}

impl From<UpgradeError> for Response {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Malformed(error) => error.into(),
            UpgradeError::Method => Self::new(405).header("Allow", "GET").text("an upgrade uses GET\n"),
            // RFC 6455 §4.4: say which version is spoken.
            UpgradeError::Version => upgrade_required("this server speaks WebSocket version 13\n"),
        }
    }
}

/// 426: the answer to a plain request for what is only served as a WebSocket (RFC 9110 §15.5.22, RFC 6455 §4.4).
pub fn upgrade_required(text: &'static str) -> Response {
    Response::new(426)
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade, close")
        .header("Sec-WebSocket-Version", "13")
        .text(text)
}

/// 16 bytes in base64, nothing else (RFC 6455 §4.1).
fn is_key(key: &str) -> bool {
    let mut decoded = [0; KEY_CHARS];
    key.len() == KEY_CHARS && BASE64.decode_slice(key, &mut decoded) == Ok(16)
}

/// What `Sec-WebSocket-Accept` says to this key (RFC 6455 §4.2.2).
fn accept_of(key: &str) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    let mut accept = [0; 28];
    let length = BASE64.encode_slice(digest, &mut accept).expect("20 bytes take 28 characters");
    debug_assert_eq!(length, accept.len());
    accept
}

/// A client's request for a WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// Host and, unless it is the scheme's own, port.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// 16 fresh random bytes.
    pub key: [u8; 16],
    /// Subprotocols, most preferred first.
    pub protocols: &'a [&'a str],
    /// More header lines: Origin, Authorization, …
    pub headers: &'a [(&'a str, &'a str)],
}

impl ClientRequest<'_> {
    /// Appends the request, and answers what to hold the server's response against.
    ///
    /// # Errors
    /// A part that must not stand in a head. Nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<ExpectedResponse, HeaderInvalid> {
        let start = out.len();
        let written = self.try_encode(out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn try_encode(&self, out: &mut Vec<u8>) -> Result<ExpectedResponse, HeaderInvalid> {
        if !self.target.starts_with('/') || self.target.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
            return Err(HeaderInvalid);
        }
        let mut key = [0; KEY_CHARS];
        BASE64.encode_slice(self.key, &mut key).expect("16 bytes take 24 characters");
        out.extend_from_slice(format!("GET {} HTTP/1.1\r\n", self.target).as_bytes());
        encode_header("Host", self.host.as_bytes(), out)?;
        encode_header("Upgrade", b"websocket", out)?;
        encode_header("Connection", b"Upgrade", out)?;
        encode_header("Sec-WebSocket-Key", &key, out)?;
        encode_header("Sec-WebSocket-Version", b"13", out)?;
        // RFC 6455 §4.1: tokens.
        if !self.protocols.iter().all(|protocol| is_token(protocol.as_bytes())) {
            return Err(HeaderInvalid);
        }
        if !self.protocols.is_empty() {
            encode_header("Sec-WebSocket-Protocol", self.protocols.join(", ").as_bytes(), out)?;
        }
        for (name, value) in self.headers {
            encode_header(name, value.as_bytes(), out)?;
        }
        out.extend_from_slice(b"\r\n");
        let key = std::str::from_utf8(&key).expect("base64 is ASCII");
        Ok(ExpectedResponse {
            accept: accept_of(key),
            protocols: self.protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
        })
    }
}

/// What the server's response must say to open the WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedResponse {
    accept: [u8; 28],
    protocols: Box<[String]>,
}

impl ExpectedResponse {
    /// Judges a response (RFC 6455 §4.1, the numbered list) and answers the subprotocol chosen.
    pub fn check<'a>(&self, head: &ResponseHead<'a>) -> Result<Option<&'a str>, ResponseError> {
        if head.status != 101 {
            return Err(ResponseError::Status(head.status));
        }
        if !head.headers.has_token("upgrade", "websocket") || !head.headers.has_token("connection", "upgrade") {
            return Err(ResponseError::NotUpgraded);
        }
        match head.headers.only("sec-websocket-accept") {
            Ok(Some(accept)) if accept.as_bytes() == self.accept => {}
            _ => return Err(ResponseError::AcceptMismatch),
        }
        if head.headers.all("sec-websocket-extensions").any(|value| !value.is_empty()) {
            return Err(ResponseError::ExtensionNotOffered);
        }
        match head.headers.only("sec-websocket-protocol") {
            Ok(None) => Ok(None),
            Ok(Some(chosen)) if self.protocols.iter().any(|offered| offered == chosen) => Ok(Some(chosen)),
            _ => Err(ResponseError::ProtocolNotOffered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 §1.2 with one line replaced, removed or added.
    fn request(replace: &str, by: &str) -> String {
        let sound = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        assert!(sound.contains(replace));
        sound.replacen(replace, by, 1)
    }

    fn verdict(head: &str) -> Result<bool, u16> {
        let request = Request::parse(head.as_bytes()).map_err(|error| error.status)?;
        match UpgradeRequest::of(&request) {
            Ok(upgrade) => Ok(upgrade.is_some()),
            Err(error) => Err(Response::from(error).status()),
        }
    }

    #[test]
    fn upgrades_are_judged() {
        let end = "\r\n\r\n";
        let version = "Sec-WebSocket-Version: 13\r\n";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let table = [
            (request("", ""), Ok(true)),
            (request("Upgrade: websocket", "upgrade: h2c, WebSocket"), Ok(true)),
            (request("Connection: Upgrade", "connection: keep-alive, UPGRADE"), Ok(true)),
            (request("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"), Ok(true)),
            (request("Upgrade: websocket\r\n", ""), Ok(false)),
            (request("Upgrade: websocket", "Upgrade: websockets"), Ok(false)),
            (request("Upgrade: websocket", "Upgrade: h2c"), Ok(false)),
            (request("Connection: Upgrade", "Connection: keep-alive"), Err(400)),
            (request("Connection: Upgrade\r\n", ""), Err(400)),
            (request("GET", "POST"), Err(405)),
            (request("GET", "get"), Err(405)),
            (request("HTTP/1.1", "HTTP/1.0"), Ok(false)),
            (request(version, ""), Err(426)),
            (request(version, "Sec-WebSocket-Version: 12\r\n"), Err(426)),
            (request(version, "Sec-WebSocket-Version: 013\r\n"), Err(426)),
            (request(version, "Sec-WebSocket-Version: 13, 8\r\n"), Err(426)),
            (request(version, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"), Err(400)),
            (request(key, ""), Err(400)),
            (request(key, "Sec-WebSocket-Key: \r\n"), Err(400)),
            (request(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n"), Err(400)),
            (request(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n"), Err(400)),
            (request(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ!!\r\n"), Err(400)),
            (request(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMzQ1Ng==\r\n"), Err(400)),
            (request(key, &format!("{key}{key}")), Err(400)),
            (request(end, "\r\nContent-Length: 5\r\n\r\n"), Err(400)),
            (request(end, "\r\nContent-Length: 0\r\n\r\n"), Err(400)),
            (request(end, "\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400)),
            (request(end, "\r\nSec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n\r\n"), Ok(true)),
            (request(end, "\r\nSec-WebSocket-Protocol: a,, b,\r\n\r\n"), Ok(true)),
            (request(end, "\r\nSec-WebSocket-Protocol: a b\r\n\r\n"), Err(400)),
            (request(end, "\r\nSec-WebSocket-Protocol: \"a\"\r\n\r\n"), Err(400)),
            (request(end, "\r\nSec-WebSocket-Protocol:\r\n\r\n"), Ok(true)),
            (request(end, "\r\nSec-WebSocket-Extensions: permessage-deflate; ;,,\r\n\r\n"), Ok(true)),
            (request("Host: server.example.com\r\n", ""), Err(400)),
        ];
        for (head, expected) in table {
            assert_eq!(verdict(&head), expected, "{}", head.escape_debug());
        }
    }

    #[test]
    fn a_wrong_version_is_told_the_right_one() {
        let mut out = Vec::new();
        let _ =
            Response::from(UpgradeError::Version).encode(crate::protocol::response::ResponseFrame::default(), &mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    }

    #[test]
    fn the_sample_of_rfc_6455_section_1_3() {
        let head = request("", "");
        let parsed = Request::parse(head.as_bytes()).expect("sound");
        let upgrade = UpgradeRequest::of(&parsed).expect("allowed").expect("an upgrade");
        let mut out = Vec::new();
        upgrade.encode_accept(None, &[], &mut out).expect("sound");
        assert_eq!(
            String::from_utf8(out).expect("ASCII"),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn only_what_was_offered_is_chosen_and_nothing_breaks_the_head() {
        let head = request("\r\n\r\n", "\r\nSec-WebSocket-Protocol: mqtt, chat.v2\r\n\r\n");
        let parsed = Request::parse(head.as_bytes()).expect("sound");
        let upgrade = UpgradeRequest::of(&parsed).expect("allowed").expect("an upgrade");
        assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["mqtt", "chat.v2"]);
        let mut out = Vec::new();
        assert!(upgrade.encode_accept(Some("chat"), &[], &mut out).is_err());
        let split = [("X-Echo".to_owned(), "a\r\nSet-Cookie: b".to_owned())];
        assert!(upgrade.encode_accept(None, &split, &mut out).is_err());
        assert!(out.is_empty());
        upgrade.encode_accept(Some("chat.v2"), &[], &mut out).expect("offered");
        assert!(out.ends_with(b"\r\nSec-WebSocket-Protocol: chat.v2\r\n\r\n"));
    }

    #[test]
    fn client_and_server_agree() {
        let mut wire = Vec::new();
        let ask = ClientRequest {
            host: "h:1",
            target: "/p?q",
            key: [9; 16],
            protocols: &["a", "b"],
            headers: &[("Origin", "null")],
        };
        let expected = ask.encode(&mut wire).expect("sound");
        let request = Request::parse(&wire).expect("sound");
        assert_eq!((request.target(), request.header("origin")), ("/p?q", Some("null")));
        let upgrade = UpgradeRequest::of(&request).expect("allowed").expect("an upgrade");
        let answer = |protocol| {
            let mut out = Vec::new();
            upgrade.encode_accept(protocol, &[], &mut out).expect("sound");
            out
        };
        let forged = |line: &str| {
            assert!(upgrade.encode_accept(None, &[(line.to_owned(), "x".to_owned())], &mut Vec::new()).is_err());
            let head = String::from_utf8(answer(None)).expect("ASCII");
            head.replace("\r\n\r\n", &format!("\r\n{line}: x\r\n\r\n"))
        };
        let check = |head: &[u8]| {
            let head = ResponseHead::parse(head)?;
            expected.check(&head).map(|protocol| protocol.map(str::to_owned))
        };
        assert_eq!(check(&answer(None)), Ok(None));
        assert_eq!(check(&answer(Some("b"))), Ok(Some("b".to_owned())));
        let protocol = forged("Sec-WebSocket-Protocol");
        assert_eq!(check(protocol.as_bytes()), Err(ResponseError::ProtocolNotOffered));
        let extension = forged("Sec-WebSocket-Extensions");
        assert_eq!(check(extension.as_bytes()), Err(ResponseError::ExtensionNotOffered));
        assert_eq!(check(b"HTTP/1.1 404 No\r\n\r\n"), Err(ResponseError::Status(404)));
        assert_eq!(check(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"), Err(ResponseError::NotUpgraded));
        let mismatch = String::from_utf8(answer(None)).expect("ASCII").replace("Accept: ", "Accept: x");
        assert_eq!(check(mismatch.as_bytes()), Err(ResponseError::AcceptMismatch));
        assert!(matches!(check(b"HTTP/1.0 101 X\r\n\r\n"), Err(ResponseError::Malformed(_))));
        for target in ["p", "/a b", "/a\r\nX: y"] {
            assert!(ClientRequest { target, ..ask }.encode(&mut Vec::new()).is_err());
        }
        assert!(ClientRequest { protocols: &["a b"], ..ask }.encode(&mut Vec::new()).is_err());
        let mut out = Vec::new();
        assert!(ClientRequest { headers: &[("X", "a\r\nY: b")], ..ask }.encode(&mut out).is_err());
        assert!(out.is_empty());
    }
}
