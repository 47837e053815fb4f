//! The header lines that a server goes by, gathered in one walk over a head: a handshake asks for a dozen of them.

use super::http1::Ambiguous;

/// A line that may stand once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Line<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    /// Several times; the first.
    Repeated(&'a [u8]),
}

/// What a request says in these lines. Values are without the white space around them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) host: Line<'a>,
    pub(super) content_length: Line<'a>,
    pub(super) transfer_encoding: Line<'a>,
    pub(super) websocket_key: Line<'a>,
    pub(super) websocket_version: Line<'a>,
    /// `Upgrade: websocket`.
    pub(super) upgrades_to_websocket: bool,
    /// `Connection: upgrade`.
    pub(super) connection_upgrade: bool,
    /// `Connection: close`.
    pub(super) connection_close: bool,
    /// `Expect: 100-continue`.
    pub(super) expects_continue: bool,
    /// `Sec-WebSocket-Protocol`, whatever it says.
    pub(super) names_protocols: bool,
}

impl<'a> Line<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match *self {
            Self::Absent => Self::Once(value),
            Self::Once(first) | Self::Repeated(first) => Self::Repeated(first),
        };
    }

    pub(super) const fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Its value, if it stands. `Err` if it stands several times or is not text.
    pub(super) fn only(self) -> Result<Option<&'a str>, Ambiguous> {
        match self {
            Self::Absent => Ok(None),
            Self::Once(value) => std::str::from_utf8(value).map(Some).map_err(|_| Ambiguous),
            Self::Repeated(_) => Err(Ambiguous),
        }
    }
}

impl<'a> Fields<'a> {
    /// Of the lines of a head.
    pub(super) fn of(lines: &[httparse::Header<'a>]) -> Self {
        let mut fields = Self::default();
        for line in lines {
            fields.add(line.name.as_bytes(), line.value.trim_ascii());
        }
        fields
    }

    fn add(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // By length first: most lines are none of these.
        match name.len() {
            4 if is("host") => self.host.add(value),
            6 if is("expect") => self.expects_continue |= has_token(value, "100-continue"),
            7 if is("upgrade") => self.upgrades_to_websocket |= has_token(value, "websocket"),
            10 if is("connection") => {
                self.connection_upgrade |= has_token(value, "upgrade");
                self.connection_close |= has_token(value, "close");
            }
            14 if is("content-length") => self.content_length.add(value),
            17 if is("transfer-encoding") => self.transfer_encoding.add(value),
            17 if is("sec-websocket-key") => self.websocket_key.add(value),
            21 if is("sec-websocket-version") => self.websocket_version.add(value),
            22 if is("sec-websocket-protocol") => self.names_protocols = true,
            _ => {}
        }
    }
}

/// Whether a comma-separated list holds `token`, whatever its case (RFC 9110 §5.6.1).
pub(super) fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>(lines: &[(&'a str, &'a [u8])]) -> Fields<'a> {
        let lines: Vec<_> = lines.iter().map(|(name, value)| httparse::Header { name, value }).collect();
        Fields::of(&lines)
    }

    #[test]
    fn every_line_is_known_in_any_case_and_by_its_whole_name() {
        let of = fields(&[
            ("HOST", b"h"),
            ("content-LENGTH", b" 7\t"),
            ("Transfer-Encoding", b"chunked"),
            ("Sec-WebSocket-Key", b"k"),
            ("Sec-WebSocket-Version", b"13"),
            ("Sec-WebSocket-Protocol", b""),
            ("Expect", b"100-Continue"),
        ]);
        let lines = [of.host, of.content_length, of.transfer_encoding, of.websocket_key, of.websocket_version];
        assert_eq!(lines, [&b"h"[..], b"7", b"chunked", b"k", b"13"].map(Line::Once));
        assert!(of.names_protocols && of.expects_continue && !of.connection_close && !of.upgrades_to_websocket);
        let strangers = fields(&[("hose", b"h"), ("expecu", b"100-continue"), ("sec-websocket-kez", b"k")]);
        assert!(strangers.host.is_absent() && strangers.websocket_key.is_absent() && !strangers.expects_continue);
    }

    #[test]
    fn tokens_add_up_over_lines_and_values_do_not() {
        let of = fields(&[
            ("connection", b"keep-alive"),
            ("Connection", b"x, Upgrade ,close"),
            ("upgrade", b"h2c,\twebsocket"),
            ("host", b"a"),
            ("Host", b"b"),
        ]);
        assert!(of.connection_upgrade && of.connection_close && of.upgrades_to_websocket);
        assert_eq!((of.host, of.host.only()), (Line::Repeated(b"a"), Err(Ambiguous)));
        assert!(!fields(&[("connection", b"upgraded, xclose")]).connection_upgrade);
        assert_eq!(fields(&[("host", b"\xff")]).host.only(), Err(Ambiguous));
    }
}
