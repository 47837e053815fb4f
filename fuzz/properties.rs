//! What must hold for any bytes. Each property is a function that panics where it does not; cargo-fuzz looks for such bytes,
//! and the ordinary tests run over those that it has kept (`fuzz/corpus`).

use bytes::{Buf, BytesMut};
use ringwave::Limits;
use ringwave::protocol::close::decode_close;
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::{Assembled, Event};
use ringwave::protocol::encoder::{Client, Role, Server};
use ringwave::protocol::error::{Failure, ProtocolError};
use ringwave::protocol::handshake::{ClientRequest, UpgradeRequest};
use ringwave::protocol::http1::{Request, ResponseHead};
use ringwave::protocol::message::Message;
use std::io::{self, Cursor, Read, Write};

/// Bytes of a message at most, for both implementations.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What a connection may own beyond what it was sent: the state of what is unfinished, and the first allocation.
const HELD_BYTES_MAX: usize = 8 << 10;

/// A stream of frames ends when it is so long.
const STREAM_BYTES_MAX: usize = 64 << 10;

fn limits() -> Limits {
    Limits { message_bytes_max: MESSAGE_BYTES_MAX, frame_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() }
}

/// What a decoder says, as values of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Request(String),
    Upgraded,
    ContinueExpected,
}

impl Said {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Message(message) | Event::Assembled(message, _) => {
                Self::Message(matches!(message, Message::Text(_)), message.as_bytes().to_vec())
            }
            Event::Chunk(_) => unreachable!("messages are delivered whole"),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(close) => Self::Close(close.map(|close| (close.code.number(), close.reason.to_owned()))),
            Event::Request(request) => Self::Request(format!("{request:?}")),
            Event::Upgraded(_) => Self::Upgraded,
            Event::ContinueExpected => Self::ContinueExpected,
        }
    }
}

/// Cuts bytes as the first of them says, and answers the pieces of the rest.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (seed, mut rest) = data.split_first().map_or((1, data), |(seed, rest)| (*seed, rest));
    let mut state = u32::from(seed) | 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(0x915f_77f5).rotate_left(7);
        // Even seeds cut into single bytes.
        let length = if seed % 2 == 0 { 1 } else { (state >> 20) as usize % 40 + 1 };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        Some(piece)
    })
}

/// Reads pieces, and answers what was said and how it failed.
fn read<'a, R: Role>(
    mut connection: Connection<R>,
    pieces: impl Iterator<Item = &'a [u8]>,
    limits: &Limits,
) -> (Vec<Said>, Option<Failure>) {
    let (mut said, mut read) = (Vec::new(), 0);
    for piece in pieces {
        let mut lent = piece.to_vec();
        read += lent.len();
        let (mut events, _) = connection.receive(&mut lent, limits);
        loop {
            match events.next_event() {
                Ok(None) => break,
                Ok(Some(event)) => {
                    said.push(Said::of(&event));
                    if matches!(event, Event::Request(_)) {
                        events.accept_next_request();
                    }
                }
                Err(failure) => return (said, Some(failure)),
            }
        }
        let held = connection.decoder.held_bytes();
        assert!(held <= 4 * read + HELD_BYTES_MAX, "{held} bytes are held of {read} that came");
    }
    (said, None)
}

/// The same with memory that messages are taken out of where they have at least so many bytes, and with what follows of one put
/// straight into it.
fn read_taken<'a, R: Role>(
    mut connection: Connection<R>,
    pieces: impl Iterator<Item = &'a [u8]>,
    limits: &Limits,
    least: usize,
) -> (Vec<Said>, Option<Failure>) {
    let (mut said, mut read) = (Vec::new(), 0);
    let told = |assembled: &Assembled| {
        assert!(assembled.frame().is_of(assembled.message()));
        Said::Message(matches!(assembled.message(), Message::Text(_)), assembled.message().as_bytes().to_vec())
    };
    for mut piece in pieces {
        read += piece.len();
        while !piece.is_empty()
            && let Some((mut bytes, most)) =
                connection.decoder.lend_room(least, [0, 100, HELD_BYTES_MAX / 2][piece.len() % 3])
        {
            let (here, rest) = piece.split_at(piece.len().min(most).min(bytes.capacity() - bytes.len()));
            bytes.extend_from_slice(here);
            piece = rest;
            match connection.decoder.read_room(bytes, here.len()) {
                Ok(message) => said.extend(message.as_ref().map(told)),
                Err(failure) => return (said, Some(failure)),
            }
        }
        let mut block = BytesMut::from(piece);
        loop {
            let length = block.len();
            let (mut events, _) = connection.receive(&mut block, limits);
            events.stop_before_frames_of(least);
            loop {
                match events.next_event() {
                    Ok(None) => break,
                    Ok(Some(event)) => said.push(Said::of(&event)),
                    Err(failure) => return (said, Some(failure)),
                }
            }
            if !events.is_before_taken() {
                break;
            }
            let unread = events.unread();
            block.advance(length - unread);
            match connection.decoder.take_message(&mut block) {
                Ok(message) => said.push(told(&message)),
                Err(failure) => return (said, Some(failure)),
            }
        }
        let held = connection.decoder.held_bytes();
        assert!(held <= 4 * (read + least) + HELD_BYTES_MAX, "{held} bytes are held of {read} that came");
    }
    (said, None)
}

/// However requests are cut, they are read in the same way.
pub(crate) fn request_head(data: &[u8]) {
    let whole = read(Connection::<Server>::default(), data.get(1..).into_iter(), &limits());
    let cut = read(Connection::<Server>::default(), pieces(data), &limits());
    // What asks for our consent asks for it only where the body has not come yet.
    let without = |(said, failure): (Vec<Said>, Option<Failure>)| {
        let said: Vec<Said> = said.into_iter().filter(|said| *said != Said::ContinueExpected).collect();
        (said, failure)
    };
    assert_eq!(without(whole), without(cut));
}

/// However frames are cut, they are read in the same way, and in that of an independent implementation.
pub(crate) fn frame_bytes(data: &[u8]) {
    let bytes = data.get(1..).unwrap_or_default();
    let whole = read(Connection::<Server>::open(), std::iter::once(bytes), &limits());
    let cut = read(Connection::<Server>::open(), pieces(data), &limits());
    assert_eq!(whole, cut);
    for least in [1, 100, 5_000] {
        assert_eq!(read_taken(Connection::<Server>::open(), std::iter::once(bytes), &limits(), least), whole);
        assert_eq!(read_taken(Connection::<Server>::open(), pieces(data), &limits(), least), whole);
    }
    let (said, failure) = whole;
    let (independent, objects) = read_independently(bytes);
    match failure {
        None => {
            // It does not know a code that was registered after the RFC, and reads it as one that is refused.
            let unregistered = |said| match said {
                Said::Close(Some((1014, _))) => Said::Close(Some((1002, "Protocol violation".to_owned()))),
                said => said,
            };
            assert_eq!(said.into_iter().map(unregistered).collect::<Vec<_>>(), independent);
            assert!(!objects, "the independent decoder objects to what we read");
        }
        Some(Failure::Frame(error)) => {
            assert!(independent.starts_with(&said), "{said:?}, then {error}; independently {independent:?}");
            // These rules it does not know, or not all of them.
            let is_lax = matches!(
                error,
                ProtocolError::LengthNotMinimal
                    | ProtocolError::LengthSignBit
                    | ProtocolError::CloseCodeInvalid(_)
                    | ProtocolError::ClosePayloadTooShort
                    | ProtocolError::CloseReasonNotUtf8
                    | ProtocolError::FragmentsTooMany
                    // A short length that is not minimal says so as well.
                    | ProtocolError::ControlTooLong
            );
            assert!(is_lax || independent.len() == said.len(), "{error}, but independently {independent:?}");
        }
        Some(other) => panic!("frames fail with {other:?}"),
    }
}

/// The same for bytes that are told as frames: almost all of a random stream is refused at once.
pub(crate) fn frames(data: &[u8]) {
    let mut stream = vec![data.first().copied().unwrap_or(1)];
    let mut rest = data.get(1..).unwrap_or_default();
    // Byte by byte, what is longer takes seconds and says no more.
    while let [head, length, key, after @ ..] = rest
        && stream.len() < STREAM_BYTES_MAX
    {
        let opcode = [0, 1, 2, 8, 9, 10, 0, head >> 4][usize::from(head & 7)];
        let fin = head & 8 == 0;
        let length = match length {
            0..=199 => usize::from(*length % 140),
            200..=229 => usize::from(*length) * 7,
            230..=249 => 65_530 + usize::from(*length - 230),
            _ => usize::from(*length - 250),
        };
        // Its payload repeats what comes next, so that texts are found.
        let (pattern, after) = after.split_at(after.len().min(usize::from(key & 7)));
        rest = after;
        let payload: Vec<u8> = pattern.iter().chain(b"a").copied().cycle().take(length).collect();
        push_frame(&mut stream, fin, opcode, &payload, [*key, 1, 2, 3]);
    }
    frame_bytes(&stream);
}

fn push_frame(out: &mut Vec<u8>, fin: bool, opcode: u8, payload: &[u8], key: [u8; 4]) {
    out.push(u8::from(fin) << 7 | opcode & 0x0f);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// A stream of bytes that are there, into which one writes in vain.
struct Wire(Cursor<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of the same bytes, and whether it objects to them.
fn read_independently(bytes: &[u8]) -> (Vec<Said>, bool) {
    use tungstenite::error::{Error, ProtocolError};
    use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocket::from_raw_socket(Wire(Cursor::new(bytes.to_vec())), Role::Server, Some(config));
    let mut said = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => said.push(Said::Message(true, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => said.push(Said::Message(false, bytes.to_vec())),
            Ok(Message::Ping(payload)) => said.push(Said::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => said.push(Said::Pong(payload.to_vec())),
            Ok(Message::Close(close)) => {
                said.push(Said::Close(close.map(|close| (close.code.into(), close.reason.to_string()))));
                return (said, false);
            }
            Ok(Message::Frame(_)) => unreachable!("it reads messages"),
            Err(
                Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) | Error::ConnectionClosed,
            ) => return (said, false),
            Err(_) => return (said, true),
        }
    }
}

/// A close frame's payload is judged as RFC 6455 §5.5.1 and §7.4 have it.
pub(crate) fn close_payload(data: &[u8]) {
    let expected = match data {
        [] => Some(None),
        [_] => None,
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let may_be_sent = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            std::str::from_utf8(reason).ok().filter(|_| may_be_sent).map(|reason| Some((code, reason)))
        }
    };
    let found = decode_close(data).ok().map(|close| close.map(|close| (close.code.number(), close.reason)));
    assert_eq!(found, expected);
}

/// An upgrade that is accepted is one, and its answer is one that a client takes, with no line that we did not write.
pub(crate) fn handshake(data: &[u8]) {
    let mut fields = data.split(|byte| *byte == 0);
    let mut next = || String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    let (target, protocols, name, value, key) = (next(), next(), next(), next(), next());
    let offered: Vec<&str> = protocols.split(',').collect();
    let mut bits = [0; 16];
    bits.iter_mut().zip(key.as_bytes()).for_each(|(bit, byte)| *bit = *byte);
    let headers = [(name.as_str(), value.as_str())];
    let request =
        ClientRequest { host: "test.example", target: &target, key: bits, protocols: &offered, headers: &headers };
    let mut head = Vec::new();
    let Ok(expected) = request.encode(&mut head) else { return };
    // What our own client writes a server may refuse for what stands in it, but never misread.
    let Ok(parsed) = Request::parse(&head) else { return };
    let Ok(Some(upgrade)) = UpgradeRequest::of(&parsed) else { return };
    let chosen = upgrade.protocols().next().map(str::to_owned);
    let mut answer = Vec::new();
    let extra = [(name.clone(), value.clone())];
    if upgrade.encode_accept(chosen.as_deref(), &extra, &mut answer).is_err() {
        assert!(answer.is_empty(), "a refusal has written {}", answer.escape_ascii());
        return;
    }
    let lines = answer.windows(2).filter(|end| end == b"\r\n").count();
    assert_eq!(lines, 6 + usize::from(chosen.is_some()), "{}", answer.escape_ascii());
    let parsed = ResponseHead::parse(&answer).expect("our own answer");
    assert_eq!(expected.check(&parsed).map(|protocol| protocol.map(str::to_owned)), Ok(chosen));
}

/// However a response is cut, our client reads it in the same way.
pub(crate) fn client_response(data: &[u8]) {
    let client = || {
        let request =
            ClientRequest { host: "h", target: "/", key: *b"the sample nonce", protocols: &["a"], headers: &[] };
        Connection::<Client>::request(&request, &mut Vec::new()).expect("a sound request")
    };
    let whole = read(client(), data.get(1..).into_iter(), &limits());
    let cut = read(client(), pieces(data), &limits());
    assert_eq!(whole, cut);
}

/// What holds for any bytes, or panics.
pub(crate) type Property = fn(&[u8]);

/// The properties by the names of their corpora.
pub(crate) const PROPERTIES: &[(&str, Property)] = &[
    ("request_head", request_head),
    ("frame_bytes", frame_bytes),
    ("frames", frames),
    ("close_payload", close_payload),
    ("handshake", handshake),
    ("client_response", client_response),
];
