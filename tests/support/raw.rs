//! A client of bare bytes, and answers read by hand: what is on the wire, before any parser of ours has judged it.

use super::{DEADLINE, Ended};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A connection with deadlines on both directions, whose writes leave at once.
pub(super) fn connected(address: SocketAddr) -> TcpStream {
    with_deadlines(TcpStream::connect_timeout(&address, DEADLINE).expect("the server accepts"))
}

/// The same with a small receive buffer and small segments, so that little is on its way to a client that does not read:
/// how much a system queues for sending goes by the segments.
pub(crate) fn connected_narrowly(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
    let socket = socket.expect("a descriptor is free");
    socket.set_recv_buffer_size(16 * 1024).expect("a TCP socket");
    socket.set_tcp_mss(1_400).expect("a TCP socket");
    socket.connect_timeout(&address.into(), DEADLINE).expect("the server accepts");
    with_deadlines(socket.into())
}

fn with_deadlines(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(DEADLINE)).expect("a positive timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("a positive timeout");
    stream
}

/// One read. A process that is stopped and goes on finds its reads interrupted where they have a deadline (signal(7)).
pub(super) fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// The request of RFC 6455 §1.2 with more header lines, each with its end.
pub(crate) fn upgrade_with(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and header lines, without the empty line.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of the only header line with this name.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.split("\r\n").skip(1).filter_map(|line| {
            let (other, value) = line.split_once(':').expect("a header line has a colon");
            other.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice in {:?}", self.head);
        value
    }

    /// Takes the response at the front of `bytes`, and its body unless it has none.
    fn take(bytes: &mut Vec<u8>, has_body: bool) -> Option<Self> {
        let head_len = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..head_len].to_vec()).expect("heads are ASCII");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{head:?} is no response"));
        let mut answer = Self { status, head, body: String::new() };
        let mut total = head_len + 4;
        if has_body && status >= 200 {
            total += answer.header("Content-Length").map_or(0, |length| length.parse().expect("a number"));
        }
        let body = bytes.get(head_len + 4..total)?;
        answer.body = String::from_utf8(body.to_vec()).expect("bodies of these tests are text");
        bytes.drain(..total);
        Some(answer)
    }
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, reserved bits, opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Reads frames that are whole, unmasked and short.
    pub(crate) fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while let [first, length, rest @ ..] = bytes {
            assert!(*length < 126, "a short frame, not {}", bytes.escape_ascii());
            let (payload, rest) = rest.split_at(usize::from(*length));
            frames.push(Self { first: *first, payload: payload.to_vec() });
            bytes = rest;
        }
        assert!(bytes.is_empty(), "half a frame: {}", bytes.escape_ascii());
        frames
    }

    /// The code of a close frame; `None` if it carries none.
    pub(crate) fn close_code(&self) -> Option<u16> {
        assert_eq!(self.first, 0x88, "a close frame");
        match self.payload[..] {
            [] => None,
            [high, low, ..] => Some(u16::from_be_bytes([high, low])),
            [_] => panic!("half a close code"),
        }
    }
}

/// One client.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    /// What was read and not asked for yet.
    gathered: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(connected(address))
    }

    /// The same over a connection that stands.
    pub(crate) const fn over(stream: TcpStream) -> Self {
        Self { stream, gathered: Vec::new() }
    }

    /// Sends all of it; a reset on the way fails.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("the server takes it in time");
        self
    }

    /// Sends all of it, or as much as is taken by a server that has ended.
    pub(crate) fn write_while_it_is_read(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The next response.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_with(true)
    }

    /// The next response, which answers a HEAD: its Content-Length is another's.
    #[track_caller]
    pub(crate) fn answer_to_head(&mut self) -> Answer {
        self.answer_with(false)
    }

    #[track_caller]
    fn answer_with(&mut self, has_body: bool) -> Answer {
        loop {
            if let Some(answer) = Answer::take(&mut self.gathered, has_body) {
                return answer;
            }
            let ended = self.read();
            assert_eq!(ended, None, "the end instead of an answer, after {}", self.gathered.escape_ascii());
        }
    }

    /// The next `count` bytes.
    #[track_caller]
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.gathered.len() < count {
            assert_eq!(self.read(), None, "the end after {} of {count} bytes", self.gathered.len());
        }
        self.gathered.drain(..count).collect()
    }

    /// Everything that still comes, and how the stream ends.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Ended) {
        loop {
            if let Some(ended) = self.read() {
                return (std::mem::take(&mut self.gathered), ended);
            }
        }
    }

    /// The stream ends in order, and nothing comes before that.
    #[track_caller]
    pub(crate) fn assert_end(&mut self) {
        let (rest, ended) = self.rest();
        assert_eq!((rest.escape_ascii().to_string(), ended), (String::new(), Ended::Orderly));
    }

    fn read(&mut self) -> Option<Ended> {
        let mut bytes = [0; 16_384];
        match read(&mut self.stream, &mut bytes) {
            Ok(0) => Some(Ended::Orderly),
            Ok(count) => {
                self.gathered.extend_from_slice(&bytes[..count]);
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(Ended::Reset),
            Err(error) => panic!("nothing came within {DEADLINE:?}: {error}"),
        }
    }
}
