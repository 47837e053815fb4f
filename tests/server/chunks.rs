//! Messages that are handed out as they come, to sessions whose options say so: in order, in little memory, and sent on
//! as they come.

use crate::support::{Client, Received, TestServer, eventually, upgrade_with};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{
    Chunk, Context, Handler, Message, MessageKind, Policy, SendOutcome, Session, SessionOptions, Upgrade,
    UpgradeRequest,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A part of a message as the handler was given it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    kind: MessageKind,
    payload: Vec<u8>,
    /// `None` for a whole message.
    first_last: Option<(bool, bool)>,
}

/// Sends on what comes as it comes: whole messages whole, and chunks as fragments.
struct Relay {
    parts: Option<Arc<Mutex<Vec<Part>>>>,
}

/// Fragments that the queue had no room for, and how far the outgoing message is.
#[derive(Default)]
struct Backlog {
    refused: Vec<(MessageKind, Vec<u8>, bool)>,
    is_under_way: bool,
}

/// With so much on its way to the client, no more is read from it.
const ENOUGH: usize = 64 * KIB;

impl Relay {
    fn note(&self, kind: MessageKind, payload: &[u8], first_last: Option<(bool, bool)>) {
        if let Some(parts) = &self.parts {
            parts.lock().expect("no other panic").push(Part { kind, payload: payload.to_vec(), first_last });
        }
    }

    fn send(session: &mut Session<'_, Backlog>, kind: MessageKind, payload: &[u8], last: bool) -> SendOutcome {
        let outcome = match (session.data().is_under_way, last) {
            (true, _) => session.send_next(payload, last),
            (false, false) => session.send_first(kind, payload),
            // A message whose only chunk is its first and last.
            (false, true) => match session.send_first(kind, payload) {
                SendOutcome::Sent | SendOutcome::Queued => session.send_next(b"", true),
                refused => return refused,
            },
        };
        if outcome.is_taken() {
            session.data_mut().is_under_way = !last;
        }
        outcome
    }
}

impl Handler for Relay {
    type Data = Backlog;

    fn on_upgrade(&mut self, _: &mut Context<'_, Backlog>, request: &UpgradeRequest<'_>) -> Upgrade<Backlog> {
        let options = SessionOptions {
            chunks: request.path() == "/chunks",
            policy: Policy::DropNew,
            queue_bytes_max: 4 * ENOUGH,
            high_water_bytes: ENOUGH,
            low_water_bytes: ENOUGH / 2,
            ..SessionOptions::default()
        };
        Upgrade::accept(Backlog::default()).options(options)
    }

    fn on_message(&mut self, session: &mut Session<'_, Backlog>, message: Message<'_>) {
        self.note(message.kind(), message.as_bytes(), None);
        session.send(message);
    }

    fn on_chunk(&mut self, session: &mut Session<'_, Backlog>, chunk: Chunk<'_>) {
        let Chunk { kind, payload, first, last } = chunk;
        self.note(kind, payload, Some((first, last)));
        let backlog = !session.data().refused.is_empty();
        if backlog || !Self::send(session, kind, payload, last).is_taken() {
            session.data_mut().refused.push((kind, payload.to_vec(), last));
        }
        if session.buffered_bytes() >= ENOUGH {
            session.pause_receiving();
        }
    }

    fn on_drain(&mut self, session: &mut Session<'_, Backlog>) {
        let mut refused = std::mem::take(&mut session.data_mut().refused).into_iter().peekable();
        while let Some((kind, payload, last)) = refused.peek() {
            if !Self::send(session, *kind, payload, *last).is_taken() {
                break;
            }
            refused.next();
        }
        session.data_mut().refused = refused.collect();
        if session.data().refused.is_empty() {
            session.resume_receiving();
        }
    }
}

fn relay() -> (TestServer, Arc<Mutex<Vec<Part>>>) {
    let parts = Arc::<Mutex<Vec<Part>>>::default();
    let of_shards = parts.clone();
    (TestServer::start(|_| {}, move |_| Relay { parts: Some(of_shards.clone()) }), parts)
}

fn taken(parts: &Mutex<Vec<Part>>) -> Vec<Part> {
    std::mem::take(&mut parts.lock().expect("no other panic"))
}

/// The options chosen at the upgrade hold for what stands behind the request in the same packet.
#[test]
fn what_follows_the_request_at_once_is_delivered_as_the_options_say() {
    for (path, chunks) in [("/chunks", true), ("/whole", false)] {
        let (server, parts) = relay();
        let mut raw = server.raw();
        // A whole message, and the first half of another.
        let wire = [upgrade_with(path, "").as_bytes(), b"\x82\x83\0\0\0\0one", b"\x82\x86\0\0\0\0two"].concat();
        raw.write(wire);
        eventually("the whole one is there", || parts.lock().expect("no other panic").len() == 1 + usize::from(chunks));
        raw.write("six");
        eventually("the other is there", || parts.lock().expect("no other panic").len() == 2 + usize::from(chunks));
        let part =
            |payload: &[u8], first_last| Part { kind: MessageKind::Binary, payload: payload.to_vec(), first_last };
        let expected = match chunks {
            true => vec![part(b"one", None), part(b"two", Some((true, false))), part(b"six", Some((false, true)))],
            false => vec![part(b"one", None), part(b"twosix", None)],
        };
        assert_eq!(taken(&parts), expected, "{path}");
    }
}

/// A text is validated as it comes, wherever it is cut.
#[test]
fn texts_may_be_cut_inside_a_character_and_must_be_texts() {
    let (server, parts) = relay();
    let mut client = server.client("/chunks");
    let text = "aé€😀".repeat(3);
    for cut in 1..text.len() {
        client.put_first(MessageKind::Text, &text.as_bytes()[..cut]).flush();
        eventually("the first chunk is there", || !parts.lock().expect("no other panic").is_empty());
        client.put_next(&text.as_bytes()[cut..], true).flush();
        assert_eq!(client.text(), text, "cut at {cut}");
        let parts = taken(&parts);
        assert!(parts.iter().all(|part| part.kind == MessageKind::Text));
        assert_eq!(parts.iter().flat_map(|part| part.payload.clone()).collect::<Vec<_>>(), text.as_bytes());
        let places: Vec<_> = parts.iter().filter_map(|part| part.first_last).collect();
        assert_eq!((places[0].0, places[places.len() - 1].1), (true, true));
        assert_eq!(places.iter().filter(|(first, last)| *first || *last).count(), 2);
    }
    // The fault is in the second chunk, or it is that nothing follows.
    for (second, last) in [(&b"\xff"[..], false), (b"", true), (b"\xa9 \xc3", true)] {
        let mut client = server.client("/chunks");
        client.put_first(MessageKind::Text, b"sound \xc3").put_next(second, last).flush();
        let sound = client.next();
        // What has been sent on of a message that breaks a rule ends without its last fragment.
        assert!(matches!(sound, Received::Close(Some((1007, _)))), "{sound:?}");
    }
}

/// The byte at a place of the stream.
fn byte_at(place: u64) -> u8 {
    ((place.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32) as u8
}

/// Writes a message of so many bytes, in frames of `frame` bytes each. The key is 0: masking is not what is tested.
fn write_message(stream: &mut TcpStream, bytes: u64, frame: u64) {
    let mut block = vec![0; 256 * KIB];
    let mut place = 0;
    while place < bytes {
        let length = frame.min(bytes - place);
        let opcode = if place == 0 { 2 } else { 0 };
        let fin = if place + length == bytes { 0x80 } else { 0 };
        // RFC 6455 §5.2: the shortest length that does.
        let mut header = match length {
            0..=125 => vec![fin | opcode, 0x80 | length as u8],
            126..=65_535 => [&[fin | opcode, 0xfe], &(length as u16).to_be_bytes()[..]].concat(),
            _ => [&[fin | opcode, 0xff], &length.to_be_bytes()[..]].concat(),
        };
        header.extend([0; 4]);
        stream.write_all(&header).expect("the server takes it");
        let end = place + length;
        while place < end {
            let count = block.len().min((end - place) as usize);
            for (index, byte) in block[..count].iter_mut().enumerate() {
                *byte = byte_at(place + index as u64);
            }
            stream.write_all(&block[..count]).expect("the server takes it");
            place += count as u64;
        }
    }
}

/// Reads such a message, in whatever frames it comes.
fn read_message(stream: &mut TcpStream, bytes: u64) -> u64 {
    let mut reader = BufReader::with_capacity(256 * KIB, stream);
    let (mut place, mut frames) = (0, 0);
    loop {
        let mut header = [0; 2];
        reader.read_exact(&mut header).expect("a header");
        assert_eq!(header[0] & 0x7f, if frames == 0 { 2 } else { 0 }, "frame {frames}");
        let mut long = [0; 8];
        let long_bytes = match header[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        reader.read_exact(&mut long[8 - long_bytes..]).expect("the length");
        let mut left = if long_bytes == 0 { u64::from(header[1]) } else { u64::from_be_bytes(long) };
        while left > 0 {
            let part = reader.fill_buf().expect("the payload");
            let count = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            assert_ne!(count, 0, "the end after {place} of {bytes} bytes");
            let wrong = part[..count].iter().zip(place..).position(|(byte, place)| *byte != byte_at(place));
            assert_eq!(wrong, None, "behind byte {place}");
            reader.consume(count);
            (left, place) = (left - count as u64, place + count as u64);
        }
        frames += 1;
        if header[0] & 0x80 != 0 {
            assert_eq!(place, bytes);
            return frames;
        }
    }
}

/// Set for a process that is to be the server.
const SERVER: &str = "RINGWAVE_TEST_SERVER";
/// Bytes of the message; 128 MiB if it is not set.
const BYTES: &str = "RINGWAVE_TEST_STREAM_BYTES";

/// The server of the next test, in a process of its own; it ends with its input.
fn serve() {
    let server = TestServer::start(|config| config.receive_buffers = 64, |_| Relay { parts: None });
    println!("\naddress {}", server.address());
    let mut input = String::new();
    // An error is an end too.
    let _ = std::io::stdin().read_line(&mut input);
}

/// A server in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a test has a file"))
            .args(["--exact", "chunks::a_message_longer_than_all_memory_is_relayed", "--nocapture"])
            .env(SERVER, "yes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("address ")?.parse().ok());
        Self { child, address: address.expect("it says where it listens") }
    }

    /// Its memory that the system backs.
    fn resident_bytes(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("it lives");
        let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("proc_pid_statm(5)");
        pages * 4 * KIB
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In one frame or in many: it is relayed as it comes, no faster than it is taken, in memory that does not grow with it.
#[test]
fn a_message_longer_than_all_memory_is_relayed() {
    if std::env::var_os(SERVER).is_some() {
        return serve();
    }
    let bytes = std::env::var(BYTES).ok().map_or(128 * MIB as u64, |bytes| bytes.parse().expect("a number of bytes"));
    let process = Process::start();
    for frame in [bytes, MIB as u64 - 7] {
        let mut client = Client::open(process.address, "/chunks");
        client.echo(b"ready");
        let before = process.resident_bytes();
        let mut writer = client.stream.try_clone().expect("a descriptor is free");
        let start = Instant::now();
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || write_message(&mut writer, bytes, frame));
            let reading = scope.spawn(|| read_message(&mut client.stream, bytes));
            let mut highest = before;
            while !(writing.is_finished() && reading.is_finished()) {
                highest = highest.max(process.resident_bytes());
                std::thread::sleep(Duration::from_millis(1));
            }
            let frames = reading.join().expect("it reads what was sent");
            let grown = highest - before;
            println!("{frames} frames, {grown} bytes more, {:?}", start.elapsed());
            assert!(grown <= 2 * MIB, "{grown} bytes more in memory");
        });
        client.echo(b"still there");
    }
}
