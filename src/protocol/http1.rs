//! HTTP/1.1 heads (RFC 9112): where one ends, and what it says.
//!
//! `httparse` reads the grammar; the limits and the policy are ours. Two rules run through the file: a head is
//! scanned once however it is cut into reads ([`HeadScan`]), and whatever can be understood in two ways is refused
//! (request smuggling: RFC 9112 §11.2).

use super::error::{HeadError, ResponseError};
use super::fields::{Fields, Line, has_token};
use crate::base::limits::{HEADERS_MAX, Limits};
use std::mem::MaybeUninit;

/// Looks for the end of a head, line by line, never at a byte twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScan {
    /// Bytes looked at.
    scanned: usize,
    /// Where the line under way starts.
    line_start: usize,
    /// Lines ended that were not empty.
    lines: usize,
    /// An empty line stood before the first line (RFC 9112 §2.2 lets one pass).
    skipped_empty_line: bool,
}

impl HeadScan {
    /// Looks at what is new in `head`, which starts with all that was given before.
    ///
    /// Answers the length of the head once it is there.
    ///
    /// # Errors
    /// A limit passed (414, 431), a line end that is not CRLF or a first byte that no HTTP message starts with (400).
    pub fn scan(&mut self, head: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        while let Some(at) = memchr::memchr(b'\n', &head[self.scanned..]) {
            let end = self.scanned + at + 1;
            let line = &head[self.line_start..end];
            // In the order in which the bytes prove it, so that no cut changes the answer.
            self.check_start(line)?;
            self.check_size(end, limits)?;
            // RFC 9112 §2.2: a recipient may take a bare LF for a line end; we do not, other parsers differ.
            if !line.ends_with(b"\r\n") {
                return Err(HeadError::bad_request("a line ends without a carriage return"));
            }
            self.scanned = end;
            self.line_start = end;
            if line.len() > 2 {
                self.count_line(limits)?;
            } else if self.lines > 0 {
                return Ok(Some(end));
            } else if std::mem::replace(&mut self.skipped_empty_line, true) {
                return Err(HeadError::bad_request("empty lines before the request"));
            }
        }
        self.scanned = head.len();
        self.check_start(&head[self.line_start..])?;
        self.check_size(head.len(), limits)?;
        Ok(None)
    }

    fn count_line(&mut self, limits: &Limits) -> Result<(), HeadError> {
        self.lines += 1;
        // The first line is no header.
        if self.lines > limits.headers_max.min(HEADERS_MAX) + 1 {
            return Err(HeadError::new(431, "too many header lines"));
        }
        Ok(())
    }

    /// What cannot be HTTP (a TLS hello, say) is refused with its first byte.
    fn check_start(&self, line: &[u8]) -> Result<(), HeadError> {
        match line.first() {
            Some(first) if self.lines == 0 && *first != b'\r' && !is_token_byte(*first) => {
                Err(HeadError::bad_request("this is not HTTP"))
            }
            _ => Ok(()),
        }
    }

    /// Of the two limits, the one that is met first.
    fn check_size(&self, end: usize, limits: &Limits) -> Result<(), HeadError> {
        let line_end_max = self.line_start.saturating_add(limits.head_line_bytes_max);
        if end <= line_end_max.min(limits.head_bytes_max) {
            return Ok(());
        }
        Err(if limits.head_bytes_max < line_end_max {
            HeadError::new(431, "the head is too long")
        } else if self.lines == 0 {
            HeadError::new(414, "the request line is too long")
        } else {
            HeadError::new(431, "a header line is too long")
        })
    }
}

/// The header lines of a head that has been parsed: checked, so that they can be walked without errors.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    lines: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Name and value of each line, in order; values without the white space around them.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.split().filter_map(|(name, value)| {
            // A name is a token, so it is ASCII: httparse has checked it.
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    fn split(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.lines;
        std::iter::from_fn(move || {
            let end = memchr::memchr(b'\n', rest)?;
            let (line, behind) = rest.split_at(end);
            rest = &behind[1..];
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    /// The values of all lines with this name, whatever its case.
    pub fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.split().filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The value of the first line with this name, if it is ASCII or UTF-8.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of the only line with this name. `Err` if there are several or it is not text.
    pub fn only(self, name: &str) -> Result<Option<&'a str>, Ambiguous> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => std::str::from_utf8(value).map(Some).map_err(|_| Ambiguous),
            (Some(_), Some(_)) => Err(Ambiguous),
        }
    }

    /// Whether the comma-separated lists under `name` hold `token`, whatever its case (RFC 9110 §5.6.1).
    pub fn has_token(self, name: &str, token: &str) -> bool {
        self.all(name).any(|value| has_token(value, token))
    }
}

/// A header that must stand once stands several times, or is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

/// An HTTP/1 request: head parsed and judged, body whole.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    method: &'a str,
    target: &'a str,
    http_1_0: bool,
    headers: Headers<'a>,
    fields: Fields<'a>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Parses a head whose end [`HeadScan`] has found.
    ///
    /// # Errors
    /// Everything that is not a request of HTTP/1.0 or 1.1 that can be understood in exactly one way.
    pub fn parse(head: &'a [u8]) -> Result<Self, HeadError> {
        let mut storage = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let status =
            parsed.parse_with_uninit_headers(head, &mut storage).map_err(|error| refused_by_parser(error, head))?;
        if status.is_partial() {
            return Err(HeadError::bad_request("the head ends early"));
        }
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(HeadError::bad_request("the request line is incomplete"));
        };
        let (authority, target) = origin_form(method, target)?;
        let request = Self {
            method,
            target,
            http_1_0: minor == 0,
            headers: Headers { lines: after_first_line(head) },
            fields: Fields::of(parsed.headers),
            body: &[],
        };
        request.check_host(authority)?;
        Ok(request)
    }

    /// RFC 9112 §3.2: exactly one Host, or 400; HTTP/1.0 may do without.
    fn check_host(&self, authority: Option<&str>) -> Result<(), HeadError> {
        let host = self.fields.host.only().map_err(|_| HeadError::bad_request("more than one Host"))?;
        if host.is_none() && !self.http_1_0 {
            return Err(HeadError::bad_request("Host is missing"));
        }
        if [host, authority].into_iter().flatten().any(|host| !is_host(host)) {
            return Err(HeadError::bad_request("Host is not a host and a port"));
        }
        match (authority, host) {
            // RFC 9110 §4.2.1: a URI with an empty host is invalid.
            (Some(""), _) => Err(HeadError::bad_request("the request target is malformed")),
            // RFC 9112 §3.2: they are identical. Some servers go by the one and some by the other (§3.2.2).
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                Err(HeadError::bad_request("Host is not the request target's"))
            }
            _ => Ok(()),
        }
    }

    /// How many bytes of body follow the head (RFC 9112 §6).
    ///
    /// # Errors
    /// 400 where the length is not stated in exactly one way; 411 for a body in chunks; 501 for other codings.
    pub fn body_len(&self) -> Result<u64, HeadError> {
        let length =
            self.fields.content_length.only().map_err(|_| HeadError::bad_request("more than one Content-Length"))?;
        if let Line::Once(coding) | Line::Repeated(coding) = self.fields.transfer_encoding {
            // RFC 9112 §6.1: both together ought to be handled as an error.
            if length.is_some() {
                return Err(HeadError::bad_request("Content-Length and Transfer-Encoding together"));
            }
            if self.http_1_0 || matches!(self.fields.transfer_encoding, Line::Repeated(_)) {
                return Err(HeadError::bad_request("Transfer-Encoding cannot be understood in one way"));
            }
            return Err(if coding.eq_ignore_ascii_case(b"chunked") {
                HeadError::new(411, "a body needs a Content-Length")
            } else {
                HeadError::new(501, "this transfer coding is not spoken here")
            });
        }
        match length {
            None => Ok(0),
            // Digits only: `parse` alone would take a sign.
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| HeadError::bad_request("Content-Length is out of range"))
            }
            Some(_) => Err(HeadError::bad_request("Content-Length is not a number")),
        }
    }

    pub(crate) const fn with_body(mut self, body: &'a [u8]) -> Self {
        self.body = body;
        self
    }

    /// GET, POST, … as it was sent: methods are case-sensitive.
    pub const fn method(&self) -> &'a str {
        self.method
    }

    /// Path and query as they were sent, percent-encoding untouched.
    pub const fn target(&self) -> &'a str {
        self.target
    }

    /// The target up to the first `?`.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// The target after the first `?`, if there is one.
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The header lines.
    pub const fn headers(&self) -> Headers<'a> {
        self.headers
    }

    pub(super) const fn fields(&self) -> &Fields<'a> {
        &self.fields
    }

    /// The first header line with this name, whatever its case; `None` too where it is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)
    }

    /// The body, whole.
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether the version is HTTP/1.0.
    pub const fn is_http_1_0(&self) -> bool {
        self.http_1_0
    }

    /// Whether the connection may carry another request after this one (RFC 9112 §9.3).
    pub fn keeps_alive(&self) -> bool {
        !self.http_1_0 && !self.fields.connection_close
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        !self.http_1_0 && self.fields.expects_continue
    }
}

fn refused_by_parser(error: httparse::Error, head: &[u8]) -> HeadError {
    match error {
        httparse::Error::Version if names_other_version(head) => HeadError::new(505, "HTTP/1.1 is spoken here"),
        httparse::Error::TooManyHeaders => HeadError::new(431, "too many header lines"),
        httparse::Error::HeaderName => HeadError::bad_request("a header name is malformed"),
        httparse::Error::HeaderValue => HeadError::bad_request("a header value is malformed"),
        httparse::Error::NewLine => HeadError::bad_request("a line end is malformed"),
        httparse::Error::Version | httparse::Error::Token | httparse::Error::Status => {
            HeadError::bad_request("the request line is malformed")
        }
    }
}

/// Whether the request line is sound but for its version: `METHOD SP TARGET SP HTTP/d.d` (RFC 9112 §2.3).
fn names_other_version(head: &[u8]) -> bool {
    let line = head.trim_ascii_start().split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.nth(2).and_then(|word| word.strip_prefix(b"HTTP/"));
    let is_version = matches!(version, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit());
    is_version && words.next().is_none()
}

/// Whether this is a host and perhaps a port (RFC 3986 §3.2.2, §3.2.3): nothing in it that ends one in a URI, nothing that cuts a
/// list.
fn is_host(authority: &str) -> bool {
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    if let Some(literal) = authority.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else { return false };
        // An IPv6 address, or what else is written in brackets some day.
        let is_address = |byte: u8| byte.is_ascii_alphanumeric() || b":.-_~".contains(&byte);
        let port = rest.strip_prefix(':').unwrap_or(if rest.is_empty() { "" } else { "?" });
        return !address.is_empty() && address.bytes().all(is_address) && is_port(port);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@,#?[]\\\"<>^`{|}".contains(&byte)) && is_port(port)
}

/// The authority, if the target names one, and the target without it (RFC 9112 §3.2): what servers route by.
fn origin_form<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), HeadError> {
    if target.contains('#') || !target.is_ascii() {
        return Err(HeadError::bad_request("the request target is malformed"));
    }
    if target.starts_with('/') || (method == "OPTIONS" && target == "*") {
        return Ok((None, target));
    }
    if method == "CONNECT" {
        return Err(HeadError::new(501, "CONNECT is not served here"));
    }
    let rest = target
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
        .map(|(_, rest)| rest)
        .ok_or(HeadError::bad_request("the request target is malformed"))?;
    match rest.find(['/', '?']) {
        Some(at) if rest.as_bytes()[at] == b'/' => Ok((Some(&rest[..at]), &rest[at..])),
        Some(_) => Err(HeadError::bad_request("the request target is malformed")),
        None => Ok((Some(rest), "/")),
    }
}

/// The lines after the first, the closing empty line among them.
fn after_first_line(head: &[u8]) -> &[u8] {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    memchr::memchr(b'\n', head).map_or(&[], |end| &head[end + 1..])
}

/// A byte of a token (RFC 9110 §5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
        || byte.is_ascii_alphanumeric()
}

/// Whether `text` is a token: one or more of its bytes and nothing else.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// A response head, for the client role.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The status.
    pub status: u16,
    /// The header lines.
    pub headers: Headers<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Parses a head whose end [`HeadScan`] has found.
    pub fn parse(head: &'a [u8]) -> Result<Self, ResponseError> {
        let mut storage = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, head, &mut storage)
            .map_err(|_| ResponseError::Malformed("the head does not parse"))?;
        match (status, parsed.code, parsed.version) {
            (httparse::Status::Complete(_), Some(status), Some(1)) => {
                Ok(Self { status, headers: Headers { lines: after_first_line(head) } })
            }
            (_, _, Some(0)) => Err(ResponseError::Malformed("HTTP/1.0 cannot be upgraded")),
            _ => Err(ResponseError::Malformed("the head ends early")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_whole(head: &[u8]) -> Result<Option<usize>, HeadError> {
        HeadScan::default().scan(head, &Limits::default())
    }

    fn status_of(head: &[u8]) -> u16 {
        let verdict = scan_whole(head).and_then(|end| {
            let request = Request::parse(&head[..end.expect("the head is whole")])?;
            request.body_len()
        });
        verdict.map_or_else(|error| error.status, |_| 200)
    }

    #[test]
    fn a_scan_gives_the_same_answer_however_the_head_is_cut() {
        let heads: [&[u8]; 8] = [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest",
            b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"\x16\x03\x01\n\r\n\r\n",
            b"\n\n",
        ];
        for head in heads {
            let whole = scan_whole(head);
            for cut in 0..head.len() {
                let mut scan = HeadScan::default();
                let first = scan.scan(&head[..cut], &Limits::default());
                let both = match first {
                    Ok(None) => scan.scan(head, &Limits::default()),
                    other => other,
                };
                assert_eq!(both, whole, "cut at {cut} of {}", head.escape_ascii());
            }
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        let sound =
            ["a", "a.b-c_d~e", "a:80", "a:", "127.0.0.1:65535", "[::1]", "[::1]:8080", "[fe80::1]:", "%41", "", "*"];
        assert!(sound.iter().all(|host| is_host(host)), "{:?}", sound.map(is_host));
        let unsound = [
            "a:b", "a:80:90", "a:65536", "a:-1", "[::1", "::1", "[]", "[::1]x", "[::1]:x", "[a b]", "a[b]", "u@a",
            "a/b", "a,b",
        ];
        assert!(!unsound.iter().any(|host| is_host(host)), "{:?}", unsound.map(is_host));
    }

    #[test]
    fn limits_answer_with_their_status() {
        let limits = Limits::default();
        let line = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes));
        assert_eq!(status_of(line(1_000).as_bytes()), 200);
        assert_eq!(status_of(line(limits.head_line_bytes_max).as_bytes()), 414);
        let header = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes));
        assert_eq!(status_of(header(64 << 10).as_bytes()), 431);
        for count in [0, 1, 50, 99] {
            assert_eq!(status_of(many_headers(count).as_bytes()), 200, "{count} headers beside Host");
        }
        for count in [100, 101, 1_000, 10_000] {
            assert_eq!(status_of(many_headers(count).as_bytes()), 431, "{count} headers beside Host");
        }
        // An unended head is refused as soon as it passes the limit.
        let endless = vec![b'a'; limits.head_line_bytes_max + 1];
        assert_eq!(scan_whole(&endless).map_err(|error| error.status), Err(414));
    }

    fn many_headers(count: usize) -> String {
        let lines: String = (0..count).map(|index| format!("X-{index}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        let refused = [
            ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
            ("Content-Length: 1, 1\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length: -1\r\n", 400),
            ("Content-Length: 0x1\r\n", 400),
            ("Content-Length: \r\n", 400),
            ("Content-Length: 1 1\r\n", 400),
            ("Content-Length: 99999999999999999999\r\n", 400),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400),
            ("Transfer-Encoding: xchunked\r\n", 501),
            ("Transfer-Encoding: chunked\r\n", 411),
            ("X: a\r\n b\r\n", 400),
            ("X: a\r\n\tb\r\n", 400),
            (" X: a\r\n", 400),
            ("X : a\r\n", 400),
            ("X\t: a\r\n", 400),
            ("X a: b\r\n", 400),
            (": b\r\n", 400),
            ("X\r\n", 400),
            ("X: a\0b\r\n", 400),
            ("X: a\rb\r\n", 400),
            ("X: a\x7fb\r\n", 400),
            ("X: a\x01b\r\n", 400),
            ("X\0: a\r\n", 400),
            ("Host: b\r\n", 400),
            ("Content-Length : 1\r\n", 400),
            ("Transfer-Encoding : chunked\r\n", 400),
            ("Transfer-Encoding\u{b}: chunked\r\n", 400),
        ];
        for (line, status) in refused {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
            assert_eq!(status_of(head.as_bytes()), status, "{}", head.escape_debug());
        }
        let lines = [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
            ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://u@a/ HTTP/1.0\r\n\r\n", 400),
            ("GET http:///p HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
            ("GET /\r\nHost: a\r\n\r\n", 400),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ];
        for (head, status) in lines {
            assert_eq!(status_of(head.as_bytes()), status, "{}", head.escape_debug());
        }
        assert_eq!(status_of(b"GET / HTTP/1.0\r\n\r\n"), 200);
        assert_eq!(status_of(b"GET http://h:1/p?q HTTP/1.1\r\nHost: h:1\r\n\r\n"), 200);
    }

    #[test]
    fn requests_are_read() {
        let head = b"GET http://h/p/q?a=1&b=2 HTTP/1.1\r\nHOST: h\r\nAccept:  x \r\nConnection: Foo, UPGRADE\r\nX: \xff\r\n\r\n";
        let request = Request::parse(head).expect("sound");
        assert_eq!((request.method(), request.path(), request.query()), ("GET", "/p/q", Some("a=1&b=2")));
        assert_eq!((request.header("accept"), request.header("x"), request.header("y")), (Some("x"), None, None));
        assert!(request.headers().has_token("connection", "upgrade"));
        assert!(!request.headers().has_token("connection", "up"));
        assert!(request.keeps_alive());
        assert!(!Request::parse(b"GET / HTTP/1.0\r\n\r\n").expect("sound").keeps_alive());
        assert!(!Request::parse(b"GET / HTTP/1.1\r\nHost:\r\nconnection: Close\r\n\r\n").expect("sound").keeps_alive());
    }
}
