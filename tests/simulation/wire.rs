//! Frames as a client writes and reads them, after RFC 6455 and after nothing of the engine's: what both ends of one program
//! get wrong alike would go unnoticed.

use fastrand::Rng;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A masked frame (§5.2).
pub(crate) fn frame(random: &mut Rng, fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let key = random.u32(..).to_be_bytes();
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The payload of a close frame (§5.5.1).
pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// What a server says once the WebSocket is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A whole message: its opcode and payload.
    Message(u8, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// The code, if there is one.
    Close(Option<u16>),
}

/// What came and was not understood yet.
#[derive(Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    at: usize,
    /// The opcode and the bytes of a message of which fragments have come.
    unfinished: Option<(u8, Vec<u8>)>,
    closed: bool,
}

impl Reader {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.at > 4096 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing was left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len() && self.unfinished.is_none()
    }

    /// The next response head, without its empty line, if it has come.
    pub(crate) fn next_head(&mut self) -> Option<String> {
        let rest = &self.bytes[self.at..];
        let length = rest.windows(4).position(|end| end == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 4;
        Some(head)
    }

    /// The next response head and a body of so many bytes, if both have come.
    pub(crate) fn next_response(&mut self, body_bytes: usize) -> Option<(String, Vec<u8>)> {
        let before = self.at;
        let head = self.next_head()?;
        let body = self.bytes.get(self.at..self.at + body_bytes).map(<[u8]>::to_vec);
        self.at = if body.is_some() { self.at + body_bytes } else { before };
        Some((head, body?))
    }

    /// The next message or control frame, if it has come whole.
    pub(crate) fn next_item(&mut self) -> Result<Option<Item>, String> {
        while let Some((fin, opcode, payload)) = self.next_frame()? {
            if self.closed {
                return Err(format!("opcode {opcode} after the close frame"));
            }
            if opcode >= CLOSE {
                if !fin || payload.len() > 125 {
                    return Err(format!("a control frame of {} bytes, fin {fin}", payload.len()));
                }
                return Ok(Some(self.control(opcode, payload)?));
            }
            match (&mut self.unfinished, opcode) {
                (None, TEXT | BINARY) => self.unfinished = Some((opcode, payload)),
                (Some((_, gathered)), 0) => gathered.extend_from_slice(&payload),
                (unfinished, _) => {
                    return Err(format!("opcode {opcode} with a message unfinished: {}", unfinished.is_some()));
                }
            }
            if fin && let Some((opcode, payload)) = self.unfinished.take() {
                if opcode == TEXT && std::str::from_utf8(&payload).is_err() {
                    return Err("a text that is not UTF-8".to_owned());
                }
                return Ok(Some(Item::Message(opcode, payload)));
            }
        }
        Ok(None)
    }

    fn control(&mut self, opcode: u8, payload: Vec<u8>) -> Result<Item, String> {
        match opcode {
            PING => Ok(Item::Ping(payload)),
            PONG => Ok(Item::Pong(payload)),
            CLOSE => {
                self.closed = true;
                match payload[..] {
                    [] => Ok(Item::Close(None)),
                    [high, low, ..] => Ok(Item::Close(Some(u16::from_be_bytes([high, low])))),
                    [_] => Err("half a close code".to_owned()),
                }
            }
            other => Err(format!("opcode {other}")),
        }
    }

    fn next_frame(&mut self) -> Result<Option<(bool, u8, Vec<u8>)>, String> {
        let rest = &self.bytes[self.at..];
        let [first, second, ..] = rest else { return Ok(None) };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(format!("a frame that begins with {first:#x} {second:#x}"));
        }
        let (head, length) = match second {
            126 => match rest.get(2..4) {
                Some(bytes) => (4, u64::from(u16::from_be_bytes([bytes[0], bytes[1]]))),
                None => return Ok(None),
            },
            127 => match rest.get(2..10) {
                Some(bytes) => (10, u64::from_be_bytes(bytes.try_into().map_err(|_| "eight bytes")?)),
                None => return Ok(None),
            },
            short => (2, u64::from(*short)),
        };
        let shortest = match length {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        if head != shortest {
            return Err(format!("a length of {length} in a header of {head} bytes"));
        }
        let length = usize::try_from(length).map_err(|_| "a length beyond memory")?;
        let Some(payload) = rest.get(head..head + length) else { return Ok(None) };
        let frame = (first & 0x80 != 0, first & 0x0f, payload.to_vec());
        self.at += head + length;
        Ok(Some(frame))
    }
}
