//! A WebSocket client on a blocking socket: the protocol core in the client role, nothing hidden, nothing answered
//! by itself.

use super::{DEADLINE, Ended};
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder;
use ringwave::protocol::handshake::ClientRequest;
use ringwave::protocol::mask::MaskingKey;
use ringwave::{CloseCode, CloseFrame, Limits, Message, MessageKind};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Masking and handshake keys: the same in every run, different for every seed (splitmix64).
pub(crate) struct Keys(u64);

impl Keys {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn masking_key(&mut self) -> MaskingKey {
        MaskingKey::new((self.next() as u32).to_le_bytes())
    }
}

/// What a client received, in the order it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Open(Option<String>),
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    End(Ended),
}

impl From<Message<'_>> for Received {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
        }
    }
}

impl Received {
    fn of(event: Event<'_>) -> Self {
        match event {
            Event::Upgraded(protocol) => Self::Open(protocol.map(str::to_owned)),
            Event::Message(message) | Event::Assembled(message, _) => message.into(),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(close) => {
                Self::Close(close.map(|CloseFrame { code, reason }| (code.number(), reason.to_owned())))
            }
            Event::Chunk(_) => unreachable!("messages are delivered whole"),
            Event::Request(_) | Event::ContinueExpected => unreachable!("a client receives no request"),
        }
    }

    /// A close frame with this code and reason.
    pub(crate) fn close(code: u16, reason: &str) -> Self {
        Self::Close(Some((code, reason.to_owned())))
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    connection: Connection<encoder::Client>,
    keys: Keys,
    received: VecDeque<Received>,
    /// Bytes that wait for [`Client::flush`].
    out: Vec<u8>,
}

impl Client {
    /// Connects and opens a WebSocket.
    #[track_caller]
    pub(crate) fn open(address: SocketAddr, target: &str) -> Self {
        let mut client = Self::offering(address, target, &[]);
        client.flush();
        assert_eq!(client.next(), Received::Open(None));
        client
    }

    /// Connects, and has the request for a WebSocket ready to be sent.
    pub(crate) fn offering(address: SocketAddr, target: &str, protocols: &[&str]) -> Self {
        Self::over(super::raw::connected(address), target, protocols)
    }

    /// The same over a connection that stands.
    pub(crate) fn over(stream: TcpStream, target: &str, protocols: &[&str]) -> Self {
        let port = stream.local_addr().map_or(0, |address| address.port());
        let mut keys = Keys::new(u64::from(port));
        let mut key = [0; 16];
        key[..8].copy_from_slice(&keys.next().to_le_bytes());
        key[8..].copy_from_slice(&keys.next().to_le_bytes());
        let request = ClientRequest { host: "test.example", target, key, protocols, headers: &[] };
        let mut out = Vec::new();
        let connection = Connection::request(&request, &mut out).expect("a sound request");
        Self { stream, connection, keys, received: VecDeque::new(), out }
    }

    // Sending

    /// Has a message ready to be sent.
    pub(crate) fn put<'m>(&mut self, message: impl Into<Message<'m>>) -> &mut Self {
        let key = self.keys.masking_key();
        self.connection.encoder.encode_message(key, message.into(), &mut self.out).expect("it has not closed");
        self
    }

    /// Has a fragment ready: the first, or one that follows, or the last.
    pub(crate) fn put_first(&mut self, kind: MessageKind, payload: &[u8]) -> &mut Self {
        let key = self.keys.masking_key();
        self.connection.encoder.encode_first(key, kind, payload, &mut self.out).expect("no message is under way");
        self
    }

    pub(crate) fn put_next(&mut self, payload: &[u8], last: bool) -> &mut Self {
        let key = self.keys.masking_key();
        self.connection.encoder.encode_next(key, payload, last, &mut self.out).expect("a message is under way");
        self
    }

    pub(crate) fn put_ping(&mut self, payload: &[u8]) -> &mut Self {
        let key = self.keys.masking_key();
        self.connection.encoder.encode_ping(key, payload, &mut self.out).expect("a short payload");
        self
    }

    pub(crate) fn put_pong(&mut self, payload: &[u8]) -> &mut Self {
        let key = self.keys.masking_key();
        self.connection.encoder.encode_pong(key, payload, &mut self.out).expect("a short payload");
        self
    }

    pub(crate) fn put_close(&mut self, close: Option<(u16, &str)>) -> &mut Self {
        let key = self.keys.masking_key();
        let close = close
            .map(|(code, reason)| CloseFrame { code: CloseCode::new(code).expect("a code that may be sent"), reason });
        self.connection.encoder.encode_close(key, close, &mut self.out).expect("it closes once");
        self
    }

    /// The bytes that wait to be sent, for a test that sends them in its own way.
    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Sends what is ready, in one write.
    #[track_caller]
    pub(crate) fn flush(&mut self) {
        let out = self.take_out();
        self.stream.write_all(&out).expect("the server takes it in time");
    }

    #[track_caller]
    pub(crate) fn send<'m>(&mut self, message: impl Into<Message<'m>>) {
        self.put(message).flush();
    }

    // Receiving

    /// The next thing that comes.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.received.pop_front() {
                return received;
            }
            if let Some(ended) = self.read() {
                return Received::End(ended);
            }
        }
    }

    /// The next thing, which is a text.
    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        match self.next() {
            Received::Text(text) => text,
            other => panic!("a text was expected, not {other:?}"),
        }
    }

    /// Sends a text and answers the text that comes next.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.text()
    }

    /// Sends a message that must come back next, the same.
    #[track_caller]
    pub(crate) fn echo<'m>(&mut self, message: impl Into<Message<'m>>) {
        let message = message.into();
        self.send(message);
        // Not `assert_eq`: a million bytes are no help in a log.
        assert!(self.next() == message.into(), "the echo of {} bytes is not what was sent", message.len());
    }

    /// Closes in order and waits for the end.
    #[track_caller]
    pub(crate) fn close(&mut self) {
        self.put_close(Some((1000, ""))).flush();
        assert_eq!(self.next(), Received::close(1000, ""));
        assert_eq!(self.next(), Received::End(Ended::Orderly));
    }

    /// Receives until `condition` holds; what comes is kept for [`Client::next`].
    #[track_caller]
    pub(crate) fn receive_until(&mut self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a positive timeout");
        while !condition() {
            assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
            if let Ok(Some(ended)) = self.try_read() {
                panic!("the end ({ended:?}) instead of: {what}");
            }
        }
        self.stream.set_read_timeout(Some(DEADLINE)).expect("a positive timeout");
    }

    /// Whether something has come that [`Client::next`] has not answered.
    pub(crate) fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    fn read(&mut self) -> Option<Ended> {
        self.try_read().unwrap_or_else(|error| panic!("nothing came within {DEADLINE:?}: {error}"))
    }

    /// Reads once; how the stream ended, if it has. An error if nothing comes in time.
    fn try_read(&mut self) -> io::Result<Option<Ended>> {
        let mut bytes = [0; 16_384];
        let count = match super::raw::read(&mut self.stream, &mut bytes) {
            Ok(0) => return Ok(Some(Ended::Orderly)),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Some(Ended::Reset)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
            Err(error) => panic!("{error}"),
        };
        let limits = Limits::default();
        let (mut events, _) = self.connection.receive(&mut bytes[..count], &limits);
        while let Some(event) = events.next_event().expect("the server keeps to the protocol") {
            self.received.push_back(Received::of(event));
        }
        // RFC 6455 §5.5.1: nothing follows a close frame.
        assert_eq!(events.unread(), 0, "bytes behind a close frame");
        Ok(None)
    }
}
