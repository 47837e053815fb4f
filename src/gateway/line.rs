//! How an event is written: as one line of `name=value` pairs, whatever strangers had a say in.
//!
//! Values that strangers wrote stand in quotes, with everything escaped that does not show itself or would end the
//! quotes, at most [`STRANGE_BYTES_MAX`] bytes of it. So an event is a line, and a line is an event.

use ringwave::{CloseCause, CloseCode, Ended};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Bytes of a value that a stranger wrote, as they stand in a line.
pub(super) const STRANGE_BYTES_MAX: usize = 128;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// It does not run on io_uring, for this reason.
    UringRefused { driver: &'static str, refusal: String },
    /// A session is over.
    SessionEnded { shard: usize, ended: Ended },
    /// Somebody asked for a WebSocket that there is not, or for one too many, or in words that cannot be understood; then there is no
    /// path.
    RequestRefused { shard: usize, peer: Option<SocketAddr>, status: u16, path: String },
    /// Code of ours panicked.
    Panicked { thread: String, location: String, message: String },
    /// The server was told to end.
    Draining { sessions: u64, window: Duration, deadline: Duration, code: CloseCode },
    /// It has ended, and cut so many sessions off.
    Drained { sessions_cut: u64 },
    /// So many events could not be written.
    LinesLost { count: u64 },
}

impl Event {
    const fn level(&self) -> &'static str {
        match self {
            Self::SessionEnded { ended, .. } => match ended.cause {
                CloseCause::HandlerPanicked => "error",
                CloseCause::Protocol(_)
                | CloseCause::SlowConsumer
                | CloseCause::Stalled
                | CloseCause::RateExceeded
                | CloseCause::OutOfMemory => "warn",
                _ => "info",
            },
            Self::Panicked { .. } => "error",
            Self::UringRefused { .. } | Self::LinesLost { .. } => "warn",
            Self::Drained { sessions_cut } if *sessions_cut > 0 => "warn",
            Self::RequestRefused { .. } | Self::Draining { .. } | Self::Drained { .. } => "info",
        }
    }

    /// The whole line, its end included.
    pub(super) fn line(&self, at: SystemTime) -> String {
        format!("time={} level={} {self}\n", humantime::format_rfc3339_millis(at), self.level())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UringRefused { driver, refusal } => {
                write!(f, "event=uring_refused driver={driver} reason={}", Quoted(refusal.as_bytes()))
            }
            Self::SessionEnded { shard, ended } => write_ended(*shard, ended, f),
            Self::RequestRefused { shard, peer, status, path } => {
                write!(f, "event=request_refused shard={shard} peer={} status={status} ", OrDash(*peer))?;
                write!(f, "path={}", Quoted(path.as_bytes()))
            }
            Self::Panicked { thread, location, message } => {
                write!(f, "event=panicked thread={} ", Quoted(thread.as_bytes()))?;
                write!(f, "location={} message={}", Quoted(location.as_bytes()), Quoted(message.as_bytes()))
            }
            Self::Draining { sessions, window, deadline, code } => {
                let (window, deadline) = (window.as_millis(), deadline.as_millis());
                write!(f, "event=draining sessions={sessions} window_ms={window} deadline_ms={deadline} code={code}")?;
                f.write_str(" say=\"a second signal ends it at once\"")
            }
            Self::Drained { sessions_cut } => write!(f, "event=drained sessions_cut={sessions_cut}"),
            Self::LinesLost { count } => write!(f, "event=lines_lost count={count}"),
        }
    }
}

fn write_ended(shard: usize, ended: &Ended, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Ended { session, cause, code, queued_bytes, dropped, since_received, since_sent, round_trip } = ended;
    write!(
        f,
        "event=session_ended shard={shard} session={session} cause={} by={} code={} errno={} queued_bytes={queued_bytes} \
         dropped={dropped} since_received_ms={} since_sent_ms={} rtt_us={}",
        cause.name(),
        cause.by(),
        OrDash(*code),
        OrDash(cause.errno()),
        since_received.as_millis(),
        since_sent.as_millis(),
        OrDash(round_trip.map(|time| time.as_micros())),
    )?;
    match cause {
        CloseCause::PeerClosed(Some((_, reason))) if !reason.is_empty() => {
            write!(f, " reason={}", Quoted(reason.as_bytes()))
        }
        CloseCause::Protocol(error) => write!(f, " rule={}", Quoted(error.rule().as_bytes())),
        _ => Ok(()),
    }
}

/// A value, or `-` where there is none.
struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_char('-'),
        }
    }
}

/// Bytes from anywhere, in quotes.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = STRANGE_BYTES_MAX;
        let mut piece = String::new();
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            // Unicode has more characters that move text about than the ASCII controls: this escapes all that do not
            // show themselves.
            let shown = chunk.valid().chars().map(|character| match character {
                '\'' => Escaped::Char(character),
                _ => Escaped::Debug(character),
            });
            for escaped in shown.chain(chunk.invalid().iter().map(|byte| Escaped::Byte(*byte))) {
                piece.clear();
                write!(piece, "{escaped}")?;
                let Some(rest) = left.checked_sub(piece.len()) else { return f.write_str("\"…") };
                left = rest;
                f.write_str(&piece)?;
            }
        }
        f.write_char('"')
    }
}

enum Escaped {
    Char(char),
    Debug(char),
    Byte(u8),
}

impl fmt::Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Char(character) => f.write_char(*character),
            Self::Debug(character) => character.escape_debug().fmt(f),
            Self::Byte(byte) => write!(f, "\\x{byte:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(bytes: impl AsRef<[u8]>) -> String {
        Quoted(bytes.as_ref()).to_string()
    }

    #[test]
    fn what_strangers_write_stays_within_its_quotes_and_its_line() {
        for (written, shown) in [
            (&b"good bye"[..], r#""good bye""#),
            (b"", r#""""#),
            (b"it's", r#""it's""#),
            ("grüße, 再见 😀".as_bytes(), r#""grüße, 再见 😀""#),
            (b"a\r\nlevel=error event=forged", r#""a\r\nlevel=error event=forged""#),
            (b"\x1b[31mred\x1b[0m", r#""\u{1b}[31mred\u{1b}[0m""#),
            (b"a\0b\tc\x7f", r#""a\0b\tc\u{7f}""#),
            (br#"x" event="y\"#, r#""x\" event=\"y\\""#),
            (b"a\xff\xfe\xc3", r#""a\xff\xfe\xc3""#),
            // A line separator, an override of direction, a soft hyphen, a byte order mark, NEL and CSI as C1 controls.
            (
                "\u{2028}\u{202e}\u{ad}\u{feff}\u{85}\u{9b}".as_bytes(),
                r#""\u{2028}\u{202e}\u{ad}\u{feff}\u{85}\u{9b}""#,
            ),
        ] {
            assert_eq!(quoted(written), shown);
        }
        for byte in 0..=255u8 {
            let shown = quoted([b'a', byte, b'z']);
            assert!(shown.starts_with("\"a") && shown.ends_with("z\""), "{shown}");
            assert!(!shown.chars().any(char::is_control), "{byte}");
        }
    }

    #[test]
    fn what_strangers_write_has_a_bound() {
        assert_eq!(quoted("x".repeat(128)), format!("\"{}\"", "x".repeat(128)));
        assert_eq!(quoted("x".repeat(129)), format!("\"{}\"…", "x".repeat(128)));
        // Escapes are counted as they are written, and are not cut.
        assert_eq!(quoted([0x1b; 123]), format!("\"{}\"…", "\\u{1b}".repeat(128 / 6)));
        assert_eq!(quoted("é".repeat(65)), format!("\"{}\"…", "é".repeat(64)));
    }

    #[test]
    fn a_line_says_what_happened_and_when() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let line = Event::LinesLost { count: 3 }.line(at);
        assert_eq!(line, "time=1970-01-01T00:00:01.500Z level=warn event=lines_lost count=3\n");
        let refused = Event::RequestRefused { shard: 1, peer: None, status: 404, path: "/a\"b\n".to_owned() };
        assert_eq!(refused.to_string(), r#"event=request_refused shard=1 peer=- status=404 path="/a\"b\n""#);
        let panicked =
            Event::Panicked { thread: "shard-0".into(), location: "src/a.rs:1:2".into(), message: "a\nb".into() };
        assert_eq!(panicked.to_string(), r#"event=panicked thread="shard-0" location="src/a.rs:1:2" message="a\nb""#);
    }
}
