//! Every split of the same bytes gives the same events: the contract of `Connection::receive`, in both roles.
//!
//! Each vector is a named stream of bytes and what it must say. It is fed whole, byte by byte, cut into two at every
//! place and, if it is short, into three at every pair of places. After the events of a piece have been drained the
//! piece is overwritten, as a receive buffer would be. Vectors longer than [`EVERY_CUT_BYTES_MAX`] are cut at every
//! byte of and around each header, around both ends, and at every [`LONG_STRIDE`]th byte of what lies between.
//!
//! Where messages are handed out in chunks, the chunks that stand one behind the other are taken together: what they say
//! and where they stand between control frames is the same for every split. Only of a message that breaks a rule it
//! depends on the split how much is said just before the failure, and that is left out.
//!
//! And each is fed as memory of which messages may be taken, whatever lies whole: what is taken is the frame that would be sent
//! on. There the memory in which a message is gathered is asked for before each piece, and the piece is put into it.
//!
//! `Event::ContinueExpected` alone depends on the split, and must: it says that a body has *not* come yet
//! (RFC 9110 §10.1.1). It has a test of its own and stands in no trace.

mod frames;
mod heads;

use bytes::{Buf, BytesMut};
use frames::{
    Length, Part, announced, bytes_of, frame, frame_vectors, long_frame_vectors, streamed_vectors, wrongly_masked,
};
use heads::{ACCEPTED, asked, request_streams, response_streams};
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::{Assembled, Event};
use ringwave::protocol::encoder::{Client, Role, Server};
use ringwave::protocol::error::Failure;
use ringwave::protocol::handshake::UpgradeRequest;
use ringwave::protocol::message::{Chunk, Message, MessageKind, Prepared};
use ringwave::protocol::response::Response;
use ringwave::{Delivery, Limits};
use std::fmt;

/// The longest stream that is cut at every byte.
const EVERY_CUT_BYTES_MAX: usize = 800;
/// The longest stream that is cut at every pair of bytes.
const EVERY_PAIR_BYTES_MAX: usize = 64;
/// Bytes around a mark at which a longer stream is cut.
const AROUND: usize = 20;
/// Distance of the other cuts of a longer stream: no multiple of 4, so that every phase of the masking key is met.
const LONG_STRIDE: usize = 4_093;
/// The longest stream that Miri reads, and it reads each whole and byte by byte only.
const MIRI_BYTES_MAX: usize = 100;
/// What overwrites bytes that the core has been lent and has given back.
const SCRIBBLE: u8 = 0xa5;

#[test]
fn frames_to_a_server_say_the_same_however_they_are_cut() {
    for vector in frame_vectors() {
        check(&vector.stream(true), Connection::<Server>::open);
    }
}

#[test]
fn frames_to_a_client_say_the_same_however_they_are_cut() {
    for vector in frame_vectors() {
        check(&vector.stream(false), Connection::<Client>::open);
    }
}

#[test]
fn requests_say_the_same_however_they_are_cut() {
    for stream in request_streams() {
        check(&stream, Connection::<Server>::default);
    }
}

#[test]
fn responses_say_the_same_however_they_are_cut() {
    for stream in response_streams() {
        check(&stream, asked);
    }
}

#[test]
fn long_frames_say_the_same_however_they_are_cut() {
    for vector in long_frame_vectors() {
        check(&vector.stream(true), Connection::<Server>::open);
        check(&vector.stream(false), Connection::<Client>::open);
    }
}

#[test]
fn chunks_say_the_same_however_they_are_cut() {
    for vector in streamed_vectors() {
        check(&vector.stream(true), Connection::<Server>::open);
        check(&vector.stream(false), Connection::<Client>::open);
    }
}

/// Each chunk by itself: `[` before the first of a message, `]` behind its last.
#[test]
fn a_chunk_is_what_lies_there_of_a_frame() {
    // Frames; what is said of them lent whole, and lent byte by byte.
    type Row<'a> = (&'a str, Vec<Part>, &'a [&'a str], &'a [&'a str]);
    let table: &[Row<'_>] = &[
        ("a frame", vec![frame(0x81, b"ab")], &["text \"ab\""], &["[text \"a\"", "text \"b\"]"]),
        ("an empty frame", vec![frame(0x81, b"")], &["text \"\""], &["[text \"\"]"]),
        (
            "fragments, control frames between",
            vec![frame(0x02, b"ab"), frame(0x89, b"p"), frame(0x00, b"c"), frame(0x80, b"d"), frame(0x8a, b"q")],
            &["[binary \"ab\"", "ping \"p\"", "binary \"c\"", "binary \"d\"]", "pong \"q\""],
            &["[binary \"a\"", "binary \"b\"", "ping \"p\"", "binary \"c\"", "binary \"d\"]", "pong \"q\""],
        ),
        (
            "empty fragments: nothing is said before the first byte",
            vec![frame(0x01, b""), frame(0x89, b"p"), frame(0x00, b"x"), frame(0x00, b""), frame(0x80, b"")],
            &["ping \"p\"", "[text \"x\"", "text \"\"]"],
            &["ping \"p\"", "[text \"x\"", "text \"\"]"],
        ),
        (
            "nothing but empty fragments",
            vec![frame(0x02, b""), frame(0x00, b""), frame(0x80, b""), frame(0x81, b"")],
            &["[binary \"\"]", "text \"\""],
            &["[binary \"\"]", "[text \"\"]"],
        ),
        (
            "a character in two chunks",
            vec![frame(0x01, b"a\xc3"), frame(0x80, b"\xa9")],
            &["[text \"a\\xc3\"", "text \"\\xa9\"]"],
            &["[text \"a\"", "text \"\\xc3\"", "text \"\\xa9\"]"],
        ),
        (
            "a frame that is not whole",
            vec![announced(0x82, Length::In16(1_000), b"ab")],
            &["[binary \"ab\""],
            &["[binary \"a\"", "binary \"b\""],
        ),
        (
            "text that breaks the rule in its second fragment",
            vec![frame(0x01, b"ok"), frame(0x80, b"a\xff"), frame(0x81, b"after")],
            &["[text \"ok\"", "failed 1007 TextNotUtf8"],
            &["[text \"o\"", "text \"k\"", "text \"a\"", "failed 1007 TextNotUtf8"],
        ),
        (
            "text that breaks the rule and lies whole",
            vec![frame(0x81, b"ok\xff")],
            &["failed 1007 TextNotUtf8"],
            &["[text \"o\"", "text \"k\"", "failed 1007 TextNotUtf8"],
        ),
    ];
    let limits = Limits { delivery: Delivery::Chunks, ..Limits::default() };
    for (name, parts, whole, bytewise) in table {
        let (masked, unmasked) = (bytes_of(parts, true), bytes_of(parts, false));
        assert_eq!(&chunks_of(Connection::<Server>::open(), [&masked[..]], &limits), whole, "{name}");
        assert_eq!(&chunks_of(Connection::<Client>::open(), [&unmasked[..]], &limits), whole, "{name}");
        assert_eq!(&chunks_of(Connection::<Server>::open(), masked.chunks(1), &limits), bytewise, "{name}");
        assert_eq!(&chunks_of(Connection::<Client>::open(), unmasked.chunks(1), &limits), bytewise, "{name}");
    }
}

fn chunks_of<'a, R: Role>(
    mut connection: Connection<R>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Vec<String> {
    let mut said = Vec::new();
    for piece in pieces {
        let mut lent = piece.to_vec();
        let (mut events, _) = connection.receive(&mut lent, limits);
        loop {
            match events.next_event() {
                Ok(None) => break,
                Ok(Some(Event::Chunk(chunk))) => {
                    let (begin, end) = (if chunk.first { "[" } else { "" }, if chunk.last { "]" } else { "" });
                    said.push(format!("{begin}{}{end}", Said::piece(chunk)));
                }
                Ok(Some(event)) => said.extend(owned(event).map(|one| one.to_string())),
                Err(failure) => said.push(Said::Failed(failure).to_string()),
            }
        }
    }
    said
}

/// RFC 6455 §8.1, and every other rule: no byte is waited for beyond the one that proves it broken.
#[test]
fn a_broken_rule_is_told_with_the_byte_that_proves_it() {
    // Frames; bytes after which the failure comes: unmasked (to a client), masked (to a server).
    let table: &[(&str, Vec<Part>, usize, usize)] = &[
        ("a reserved bit", vec![frame(0xc1, b"abc")], 1, 1),
        ("a reserved opcode", vec![frame(0x83, b"abc")], 1, 1),
        ("a control frame in fragments", vec![frame(0x09, b"abc")], 1, 1),
        ("a long control frame", vec![frame(0x89, &[b'p'; 126])], 2, 2),
        ("16 bits for 125", vec![announced(0x82, Length::In16(125), b"")], 4, 4),
        ("64 bits for 65535", vec![announced(0x82, Length::In64(0xffff), b"")], 10, 10),
        ("the sign bit", vec![announced(0x82, Length::In64(1 << 63), b"")], 10, 10),
        ("a mask too many or too few", vec![wrongly_masked(0x82, b"abc")], 6, 2),
        ("nothing to continue", vec![frame(0x80, b"abc")], 2, 6),
        ("a text in a text", vec![frame(0x01, b"a"), frame(0x81, b"b")], 3 + 2, 7 + 6),
        ("a continuation byte first", vec![frame(0x81, b"abc\x80def")], 2 + 4, 6 + 4),
        ("an overlong character", vec![frame(0x81, b"\xc0\x80def")], 2 + 1, 6 + 1),
        ("a surrogate", vec![frame(0x81, b"\xed\xa0\x80def")], 2 + 2, 6 + 2),
        ("above U+10FFFF", vec![frame(0x81, b"\xf4\x90\x80\x80def")], 2 + 2, 6 + 2),
        ("a character cut short", vec![frame(0x81, b"\xe2\x82Adef")], 2 + 3, 6 + 3),
        ("a character cut short by the end", vec![frame(0x81, b"\xe2\x82")], 2 + 2, 6 + 2),
        ("a bad byte in a later fragment", vec![frame(0x01, b"\xe2"), frame(0x80, b"\x82\xffx")], 3 + 4, 7 + 8),
        ("a character that its last fragment leaves", vec![frame(0x01, b"\xe2"), frame(0x80, b"")], 3 + 2, 7 + 6),
        ("a close payload of one byte", vec![frame(0x88, b"\x03")], 3, 7),
    ];
    for (name, parts, unmasked, masked) in table {
        let failed_after = |wire: &[u8], failed: &dyn Fn(&[u8]) -> bool| {
            (0..=wire.len()).find(|end| failed(&wire[..*end])).unwrap_or_else(|| panic!("{name}: never fails"))
        };
        for delivery in [Delivery::Whole, Delivery::Chunks] {
            let limits = Limits { delivery, ..Limits::default() };
            let client_fails = |wire: &[u8]| fails(Connection::<Client>::open(), wire, &limits);
            let server_fails = |wire: &[u8]| fails(Connection::<Server>::open(), wire, &limits);
            let to_client = failed_after(&bytes_of(parts, false), &client_fails);
            let to_server = failed_after(&bytes_of(parts, true), &server_fails);
            assert_eq!((to_client, to_server), (*unmasked, *masked), "{name}, {delivery:?}");
        }
    }
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_of_once_and_only_before_its_body() {
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let wire = [head, "abc"].concat().into_bytes();
    let limits = Limits::default();
    for cut in 0..=wire.len() {
        let pieces = [&wire[..cut], &wire[cut..]];
        let trace = trace_of(Connection::<Server>::default(), pieces, &limits);
        assert_eq!(trace.continues_expected, usize::from(cut == head.len()), "cut at {cut}");
        assert_eq!(trace.lines(), ["request POST /a \"abc\""], "cut at {cut}");
    }
    let trace = trace_of(Connection::<Server>::default(), wire.chunks(1), &limits);
    assert_eq!(trace.continues_expected, 1);
}

/// A client is in the midst of something from the first byte of the answer to its end.
/// Whoever has the memory in which a text is gathered may write into it what is no text.
#[test]
fn what_was_lent_out_is_text_when_it_comes_back_or_fails() {
    for ends_by_room in [true, false] {
        let mut connection = Connection::<Server>::open();
        let mut wire = bytes_of(&[frame(0x81, &[b'a'; 100])], true);
        let (mut first, rest) = (wire[..50].to_vec(), wire.split_off(50));
        let limits = Limits::default();
        let (mut events, _) = connection.receive(&mut first, &limits);
        assert!(matches!(events.next_event(), Ok(None)));
        let (mut bytes, _) = connection.decoder.lend_room(1, 0).expect("some of it has come");
        let last = bytes.len() - 1;
        bytes[last] = 0xff;
        let (here, mut left) = if ends_by_room { (&rest[..], Vec::new()) } else { (&rest[..7], rest[7..].to_vec()) };
        bytes.extend_from_slice(here);
        let read = connection.decoder.read_room(bytes, here.len());
        if ends_by_room {
            assert!(read.is_err(), "{read:?}");
        } else {
            assert!(matches!(read, Ok(None)), "{read:?}");
            let (mut events, _) = connection.receive(&mut left, &limits);
            assert!(events.next_event().is_err());
        }
        assert!(!connection.decoder.is_open());
    }
}

#[test]
fn half_an_answer_is_unfinished() {
    let limits = Limits::default();
    let mut connection = asked();
    assert!(!connection.decoder.is_unfinished());
    let mut wire = ACCEPTED.as_bytes().to_vec();
    for byte in &mut wire[..ACCEPTED.len() - 1] {
        let (mut events, _) = connection.receive(std::slice::from_mut(byte), &limits);
        assert!(matches!(events.next_event(), Ok(None)));
        assert!(connection.decoder.is_unfinished());
    }
}

/// A stream of bytes, and what it must say.
struct Stream {
    name: String,
    bytes: Vec<u8>,
    /// Where headers and payloads begin: what a long stream is cut around.
    marks: Vec<usize>,
    limits: Limits,
    expected: Vec<String>,
}

/// Feeds the stream to fresh connections, whole and in pieces.
fn check<R: Role>(stream: &Stream, open: impl Fn() -> Connection<R>) {
    let Stream { name, bytes, limits, .. } = stream;
    if cfg!(miri) && bytes.len() > MIRI_BYTES_MAX {
        return;
    }
    let whole = trace_of(open(), [&bytes[..]], limits);
    assert_eq!(whole.lines(), stream.expected, "{name}");
    assert_eq!(trace_of_taken(open(), [&bytes[..]], limits), whole, "{name}: taken");

    assert_eq!(trace_of(open(), bytes.chunks(1), limits), whole, "{name}: byte by byte");
    assert_eq!(trace_of_taken(open(), bytes.chunks(1), limits), whole, "{name}: taken byte by byte");
    if cfg!(miri) {
        return;
    }
    for cut in stream.cuts() {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(trace_of(open(), [first, second], limits), whole, "{name}: cut at {cut}");
        assert_eq!(trace_of_taken(open(), [first, second], limits), whole, "{name}: taken, cut at {cut}");
    }
    if bytes.len() <= EVERY_PAIR_BYTES_MAX {
        for (a, b) in (0..bytes.len()).flat_map(|a| (a..bytes.len()).map(move |b| (a, b))) {
            let pieces = [&bytes[..a], &bytes[a..b], &bytes[b..]];
            assert_eq!(trace_of(open(), pieces, limits), whole, "{name}: cut at {a} and {b}");
        }
    }
}

impl Stream {
    fn cuts(&self) -> Vec<usize> {
        let length = self.bytes.len();
        if length <= EVERY_CUT_BYTES_MAX {
            return (0..=length).collect();
        }
        let marks = self.marks.iter().copied().chain([0, length]);
        let mut cuts: Vec<usize> = marks.flat_map(|mark| mark.saturating_sub(AROUND)..=mark + AROUND).collect();
        cuts.extend((0..length).step_by(LONG_STRIDE));
        cuts.retain(|cut| *cut <= length);
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

/// All that a connection said, owned.
#[derive(Debug, PartialEq)]
struct Trace {
    said: Vec<Said>,
    open: bool,
    unfinished: bool,
    continues_expected: usize,
}

impl Trace {
    /// What the expectations of the vectors are written in.
    fn lines(&self) -> Vec<String> {
        let unfinished = self.unfinished.then(|| "unfinished".to_owned());
        let mut lines = Vec::new();
        let mut begun = Vec::new();
        for said in &self.said {
            match said {
                Said::Piece { kind, payload, last, .. } => {
                    begun.extend_from_slice(payload);
                    if *last {
                        lines.push(Said::whole(*kind, std::mem::take(&mut begun)).to_string());
                    }
                }
                said => lines.push(said.to_string()),
            }
        }
        lines.extend(unfinished);
        lines
    }
}

#[derive(Debug, PartialEq)]
enum Said {
    Request {
        method: String,
        target: String,
        headers: Vec<(String, Vec<u8>)>,
        body: Vec<u8>,
        verdict: Verdict,
    },
    Upgraded(Option<String>),
    Text(String),
    Binary(Vec<u8>),
    /// Chunks of a message, one behind the other.
    Piece {
        kind: MessageKind,
        payload: Vec<u8>,
        first: bool,
        last: bool,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(Failure),
}

/// What a server makes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Upgrade,
    Refused(u16),
    Plain { keeps_alive: bool },
}

impl From<Message<'_>> for Said {
    fn from(message: Message<'_>) -> Self {
        Self::whole(message.kind(), message.as_bytes().to_vec())
    }
}

impl Said {
    fn whole(kind: MessageKind, payload: Vec<u8>) -> Self {
        match kind {
            MessageKind::Text => Self::Text(String::from_utf8(payload).expect("text is UTF-8")),
            MessageKind::Binary => Self::Binary(payload),
        }
    }

    fn piece(chunk: Chunk<'_>) -> Self {
        let Chunk { kind, payload, first, last } = chunk;
        Self::Piece { kind, payload: payload.to_vec(), first, last }
    }
}

/// Appends what is said next. Chunks become one piece, and a piece that is cut off by a failure is forgotten.
fn say(said: &mut Vec<Said>, next: Said) {
    let under_way = said.iter().rev().find_map(|said| match said {
        Said::Piece { kind, last, .. } => Some((*kind, !last)),
        _ => None,
    });
    let under_way = under_way.filter(|(_, begun)| *begun).map(|(kind, _)| kind);
    match (said.last_mut(), next) {
        (before, Said::Piece { kind, payload, first, last }) => {
            assert_eq!(under_way, (!first).then_some(kind), "a message has one first chunk, and all are of its kind");
            assert!(!payload.is_empty() || last, "an empty chunk that says nothing");
            match before {
                Some(Said::Piece { payload: before, last: ends, .. }) if !first => {
                    before.extend(payload);
                    *ends = last;
                }
                _ => said.push(Said::Piece { kind, payload, first, last }),
            }
        }
        (Some(Said::Piece { last: false, .. }), next @ Said::Failed(_)) => {
            said.pop();
            said.push(next);
        }
        (_, next) => said.push(next),
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { method, target, body, verdict, .. } => {
                write!(f, "request {method} {target}")?;
                match verdict {
                    Verdict::Upgrade => write!(f, " upgrade"),
                    Verdict::Refused(status) => write!(f, " refused {status}"),
                    Verdict::Plain { .. } => write!(f, " {}", shown(body)),
                }
            }
            Self::Upgraded(protocol) => write!(f, "upgraded {}", protocol.as_deref().unwrap_or("-")),
            Self::Text(text) => write!(f, "text {}", shown(text.as_bytes())),
            Self::Binary(bytes) => write!(f, "binary {}", shown(bytes)),
            Self::Piece { kind: MessageKind::Text, payload, .. } => write!(f, "text {}", shown(payload)),
            Self::Piece { kind: MessageKind::Binary, payload, .. } => write!(f, "binary {}", shown(payload)),
            Self::Ping(payload) => write!(f, "ping {}", shown(payload)),
            Self::Pong(payload) => write!(f, "pong {}", shown(payload)),
            Self::Close(None) => write!(f, "close"),
            Self::Close(Some((code, reason))) => write!(f, "close {code} {}", shown(reason.as_bytes())),
            Self::Failed(Failure::Frame(error)) => write!(f, "failed {} {error:?}", error.close_code()),
            Self::Failed(Failure::Head(error)) => write!(f, "failed {}", error.status),
            Self::Failed(Failure::Response(error)) => write!(f, "failed {error:?}"),
        }
    }
}

/// Short bytes as they are; of long ones the length and a hash (FNV-1a).
fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= 40 {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{} bytes, hash {hash:x}", bytes.len())
}

fn owned(event: Event<'_>) -> Option<Said> {
    Some(match event {
        Event::Request(request) => {
            let verdict = match UpgradeRequest::of(&request) {
                Ok(Some(_)) => Verdict::Upgrade,
                Ok(None) => Verdict::Plain { keeps_alive: request.keeps_alive() },
                Err(error) => Verdict::Refused(Response::from(error).status()),
            };
            let headers = request.headers().iter();
            Said::Request {
                method: request.method().to_owned(),
                target: request.target().to_owned(),
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
                body: request.body().to_vec(),
                verdict,
            }
        }
        Event::ContinueExpected => return None,
        Event::Upgraded(protocol) => Said::Upgraded(protocol.map(str::to_owned)),
        Event::Message(message) => message.into(),
        Event::Assembled(message, prepared) => {
            assert_eq!(*prepared, Prepared::new(message));
            message.into()
        }
        Event::Chunk(chunk) => Said::piece(chunk),
        Event::Ping(payload) => Said::Ping(payload.to_vec()),
        Event::Pong(payload) => Said::Pong(payload.to_vec()),
        Event::Close(None) => Said::Close(None),
        Event::Close(Some(frame)) => Said::Close(Some((frame.code.number(), frame.reason.to_owned()))),
    })
}

/// Lends the pieces one after the other, and notes all that is said; upgrades are accepted, requests taken in turn.
///
/// It goes on after an error and after a close frame: whatever would still be said is in the trace.
fn trace_of<'a, R: Role>(
    connection: Connection<R>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Trace {
    let mut tracing = Tracing { connection, limits, said: Vec::new(), continues_expected: 0 };
    let mut lent = Vec::new();
    for piece in pieces {
        lent.clear();
        lent.extend_from_slice(piece);
        assert_eq!(tracing.drain(&mut lent, usize::MAX), None);
        lent.fill(SCRIBBLE);
    }
    tracing.end()
}

/// The same with memory that messages are taken out of, and with what follows put straight into an unfinished message.
fn trace_of_taken<'a, R: Role>(
    connection: Connection<R>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Trace {
    let mut tracing = Tracing { connection, limits, said: Vec::new(), continues_expected: 0 };
    for piece in pieces {
        let mut piece = piece;
        while !piece.is_empty()
            && let Some((mut bytes, most)) =
                tracing.connection.decoder.lend_room(1, [0, 100, usize::MAX][piece.len() % 3])
        {
            let held = tracing.connection.decoder.held_bytes();
            assert!(held >= bytes.capacity() && bytes.capacity() > bytes.len(), "{held} bytes held, lent {bytes:?}");
            let (here, rest) = piece.split_at(piece.len().min(most).min(bytes.capacity() - bytes.len()));
            bytes.extend_from_slice(here);
            piece = rest;
            let message = tracing.connection.decoder.read_room(bytes, here.len());
            tracing.say_taken(message.transpose());
        }
        let mut block = BytesMut::from(piece);
        while let Some(unread) = tracing.drain(&mut block, 1) {
            block.advance(block.len() - unread);
            let message = tracing.connection.decoder.take_message(&mut block);
            tracing.say_taken(Some(message));
        }
        block.fill(SCRIBBLE);
    }
    tracing.end()
}

/// A connection, and what it has said.
struct Tracing<'a, R> {
    connection: Connection<R>,
    limits: &'a Limits,
    said: Vec<Said>,
    continues_expected: usize,
}

impl<R: Role> Tracing<'_, R> {
    /// Notes what is said of these bytes. Answers how many are unread where a message of at least `taken_from` is next.
    fn drain(&mut self, bytes: &mut [u8], taken_from: usize) -> Option<usize> {
        let Self { connection, limits, said, continues_expected } = self;
        let length = bytes.len();
        let (mut events, _) = connection.receive(bytes, limits);
        events.stop_before_frames_of(taken_from);
        // A frame takes two bytes at least, so more events than this are an endless loop.
        for turn in 0.. {
            assert!(turn <= length + 2, "more events than bytes");
            let one = match events.next_event() {
                Ok(None) => break,
                Ok(Some(Event::Message(message))) => Some(said_of(message, limits)),
                Ok(Some(event)) => owned(event),
                Err(failure) => Some(Said::Failed(failure)),
            };
            match &one {
                None => *continues_expected += 1,
                Some(Said::Request { verdict: Verdict::Upgrade, .. }) => events.accept_upgrade(),
                Some(Said::Request { verdict: Verdict::Plain { keeps_alive: true }, .. }) => {
                    events.accept_next_request();
                }
                // A refused upgrade and a last request: nothing more is read.
                Some(_) => {}
            }
            if let Some(one) = one {
                say(said, one);
            }
        }
        events.is_before_taken().then(|| events.unread())
    }

    fn say_taken(&mut self, message: Option<Result<Assembled, Failure>>) {
        let one = match message {
            None => return,
            Some(Ok(assembled)) => {
                assert_eq!(*assembled.frame(), Prepared::new(assembled.message()));
                assert!(assembled.frame().is_of(assembled.message()));
                said_of(assembled.message(), self.limits)
            }
            Some(Err(failure)) => Said::Failed(failure),
        };
        say(&mut self.said, one);
    }

    fn end(self) -> Trace {
        let Self { connection, said, continues_expected, .. } = self;
        let (open, unfinished) = (connection.decoder.is_open(), connection.decoder.is_unfinished());
        Trace { said, open, unfinished, continues_expected }
    }
}

/// A message that lay whole; where others come in chunks, it is one.
fn said_of(message: Message<'_>, limits: &Limits) -> Said {
    match limits.delivery {
        Delivery::Whole => message.into(),
        Delivery::Chunks => {
            Said::piece(Chunk { kind: message.kind(), payload: message.as_bytes(), first: true, last: true })
        }
    }
}

/// Whether these bytes, one by one, end in an error.
fn fails<R: Role>(connection: Connection<R>, bytes: &[u8], limits: &Limits) -> bool {
    let trace = trace_of(connection, bytes.chunks(1), limits);
    matches!(trace.said.last(), Some(Said::Failed(_)))
}
