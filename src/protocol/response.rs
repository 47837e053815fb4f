//! HTTP/1.1 responses (RFC 9112), and the header lines that we write. `encode_header` is the only place where one is written.

use super::error::HeadError;
use super::http1::is_token;
use bytes::Bytes;

/// A name or value that must not be written into a head: CR, LF, NUL or another control character in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderInvalid;

/// Appends one header line. The only place where one is written: nothing echoed gets around the check.
pub(crate) fn encode_header(name: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), HeaderInvalid> {
    // RFC 9110 §5.5: visible characters, space, tab and obs-text.
    let value_is_sound = value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    if !is_token(name.as_bytes()) || !value_is_sound {
        return Err(HeaderInvalid);
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// An answer to a plain request, or to an upgrade that is refused.
///
/// ```
/// use ringwave::Response;
/// let gone = Response::new(404).text("no such topic\n");
/// assert_eq!(gone.status(), 404);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Response {
    /// An answer with this status, no body yet.
    ///
    /// # Panics
    /// If the status is not within 200 … 599: interim answers and 101 are the engine's.
    pub fn new(status: u16) -> Self {
        assert!((200..600).contains(&status), "{status} is not the status of a final answer");
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// Adds a header line. A name or value that must not stand in a head, and the lines that say where the body ends,
    /// turn the whole answer into a 500.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header("Content-Type", content_type)
    }

    /// Sets a body of plain text.
    #[must_use]
    pub fn text(self, body: impl Into<Bytes>) -> Self {
        self.body("text/plain; charset=utf-8", body)
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether a header line of the answer ends the connection.
    pub(crate) fn closes(&self) -> bool {
        let is_close = |value: &str| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
        self.headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("connection") && is_close(value))
    }

    /// The body.
    pub const fn body_bytes(&self) -> &Bytes {
        &self.body
    }

    /// Appends the head, and answers the body that follows it. What may not be written becomes a 500.
    #[must_use = "the body follows the head"]
    pub fn encode(&self, frame: ResponseFrame<'_>, out: &mut Vec<u8>) -> Bytes {
        let start = out.len();
        self.try_encode(frame, out).unwrap_or_else(|_| {
            out.truncate(start);
            let failure = Self::new(500).text("an answer could not be written\n");
            let undated = ResponseFrame { date: "", ..frame };
            failure.try_encode(undated, out).expect("constant header lines are sound")
        })
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    fn try_encode(&self, frame: ResponseFrame<'_>, out: &mut Vec<u8>) -> Result<Bytes, HeaderInvalid> {
        let ResponseFrame { head_only, keep_alive, date } = frame;
        out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status)).as_bytes());
        for (name, value) in &self.headers {
            // Where the body ends is said once, by us.
            if ["content-length", "transfer-encoding"].iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
                return Err(HeaderInvalid);
            }
            encode_header(name, value.as_bytes(), out)?;
        }
        if !keep_alive && !self.closes() {
            encode_header("Connection", b"close", out)?;
        }
        if !date.is_empty() && !self.has("date") {
            encode_header("Date", date.as_bytes(), out)?;
        }
        // RFC 9110 §8.6: none in a 204; RFC 9110 §15.4.5: 304 has no body either.
        let has_body = self.status != 204 && self.status != 304;
        if has_body {
            encode_header("Content-Length", self.body.len().to_string().as_bytes(), out)?;
        }
        out.extend_from_slice(b"\r\n");
        Ok(if has_body && !head_only { self.body.clone() } else { Bytes::new() })
    }
}

/// What a response does not know by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseFrame<'a> {
    /// The request was HEAD: no body follows.
    pub head_only: bool,
    /// Another response may follow on the same connection.
    pub keep_alive: bool,
    /// The time as RFC 9110 §5.6.7 writes it; whoever has a clock says it (§6.6.1). Empty: none is said.
    pub date: &'a str,
}

/// The engine's own answer to a head that cannot be served.
impl From<HeadError> for Response {
    fn from(error: HeadError) -> Self {
        Self::new(error.status).text(format!("{}\n", error.reason))
    }
}

/// The words behind a status (RFC 9110 §15); they carry no meaning.
const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: ResponseFrame<'static> = ResponseFrame { head_only: false, keep_alive: true, date: "" };

    #[test]
    fn nothing_that_would_break_a_head_is_written_into_one() {
        for value in ["a\r\nSet-Cookie: x", "a\nb", "a\rb", "a\0b", "a\x7fb", "\x1b[31m"] {
            let mut out = Vec::new();
            assert_eq!(encode_header("X", value.as_bytes(), &mut out), Err(HeaderInvalid));
            assert_eq!(encode_header(value, b"x", &mut out), Err(HeaderInvalid));
            assert!(out.is_empty());
            let body = Response::new(200).header("X-Echo", value).encode(KEPT, &mut out);
            out.extend_from_slice(&body);
            let text = String::from_utf8(out).expect("ASCII");
            assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
            assert!(!text.contains(value) && !text.contains("X-Echo"));
        }
    }

    #[test]
    fn an_answer_says_once_where_it_ends() {
        for name in ["Content-Length", "transfer-encoding"] {
            let mut out = Vec::new();
            let body = Response::new(200).header(name, "0").text("x").encode(KEPT, &mut out);
            out.extend_from_slice(&body);
            assert!(out.starts_with(b"HTTP/1.1 500 "));
        }
        let mut out = Vec::new();
        let body = Response::new(200).header("Connection", "X").encode(ResponseFrame::default(), &mut out);
        out.extend_from_slice(&body);
        assert!(out.ends_with(b"\r\nConnection: X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
        assert!(Response::new(200).header("connection", "x, Close").closes());
        assert!(!Response::new(200).header("Connection", "Upgrade").closes());
    }

    #[test]
    fn an_answer_has_one_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let dated = |response: Response| {
            let mut out = Vec::new();
            let _ = response.encode(ResponseFrame { date, ..KEPT }, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert!(dated(Response::new(204)).contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
        let own = dated(Response::new(200).header("date", "yesterday"));
        assert!(own.contains("\r\ndate: yesterday\r\n") && !own.contains("Date"), "{own}");
    }

    #[test]
    fn answers_are_written_as_rfc_9112_wants_them() {
        let mut out = Vec::new();
        let body = Response::new(200).text("hi").encode(KEPT, &mut out);
        out.extend_from_slice(&body);
        let expected: &[u8] =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(out, expected);
        out.clear();
        let body = Response::new(200)
            .text("hi")
            .encode(ResponseFrame { head_only: true, ..ResponseFrame::default() }, &mut out);
        out.extend_from_slice(&body);
        assert!(out.ends_with(b"Connection: close\r\nContent-Length: 2\r\n\r\n"));
        out.clear();
        let body = Response::new(204).encode(KEPT, &mut out);
        out.extend_from_slice(&body);
        assert_eq!(out, b"HTTP/1.1 204 No Content\r\n\r\n");
    }
}
