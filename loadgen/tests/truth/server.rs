//! The WebSocket server that ringload is measured by: threads of the standard library, the protocol by `tungstenite`.
//!
//! It shares no code with the client that it judges. One thread accepts, each connection has a thread that runs the
//! handler of the test, and all of them have ended when the server is dropped.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::{Bytes, Error, Message, WebSocket};

/// Enough for a handler; some tests have hundreds of threads.
const STACK_BYTES: usize = 256 * 1024;
/// Longer than any wait of a test that goes well.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// Locks what no thread leaves half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this")
}

/// A server on a port of the loopback that the system chose; ends when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    /// The listening socket, as something that can be shut down.
    listening: TcpStream,
}

/// What the server saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// Connections accepted.
    pub(crate) connections: AtomicU64,
    /// Handshakes answered by 101.
    pub(crate) upgrades: AtomicU64,
    /// Handshakes answered otherwise.
    pub(crate) refused: AtomicU64,
    /// Text and binary messages of all connections.
    pub(crate) messages: AtomicU64,
    /// Connections by the way the client ended them.
    pub(crate) closed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) reset: AtomicU64,
    /// Connections on which the client broke the protocol, and how.
    pub(crate) broken: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    seen: Seen,
    /// To shut them down at the end. Weak, so that a handler that returns ends its connection.
    streams: Mutex<Vec<Weak<TcpStream>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    /// A server whose handler has the bare TCP connection and its number.
    pub(crate) fn bare(handler: impl Fn(Arc<TcpStream>, usize) + Send + Sync + 'static) -> Self {
        Self::start(Ipv4Addr::LOCALHOST, move |stream, index, _| handler(stream, index))
    }

    /// A server that upgrades every connection.
    pub(crate) fn websocket(handler: impl Fn(Session) + Send + Sync + 'static) -> Self {
        Self::selective(|_| None, handler)
    }

    /// A server that shows every handshake to `doorman` before it answers, and answers by the status that it gives.
    pub(crate) fn selective(
        doorman: impl Fn(&Arrival) -> Option<u16> + Send + Sync + 'static,
        handler: impl Fn(Session) + Send + Sync + 'static,
    ) -> Self {
        Self::selective_at(Ipv4Addr::LOCALHOST, doorman, handler)
    }

    /// The same on the given address; `0.0.0.0` listens on all of the loopback's.
    pub(crate) fn selective_at(
        ip: Ipv4Addr,
        doorman: impl Fn(&Arrival) -> Option<u16> + Send + Sync + 'static,
        handler: impl Fn(Session) + Send + Sync + 'static,
    ) -> Self {
        Self::start(ip, move |stream, index, shared| {
            if let Some(session) = Session::upgrade(&stream, index, &shared, &doorman) {
                drop(stream);
                handler(session);
            }
        })
    }

    fn start(ip: Ipv4Addr, handler: impl Fn(Arc<TcpStream>, usize, Arc<Shared>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("the system has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let listening = listener.try_clone().expect("the system has a descriptor");
        let shared = Arc::new(Shared::default());
        let accepting = spawn({
            let shared = Arc::clone(&shared);
            move || accept_all(&listener, &shared, &Arc::new(handler))
        });
        Self { address, shared, accepting: Some(accepting), listening: OwnedFd::from(listening).into() }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.shared.seen
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port())
    }

    pub(crate) fn tcp_url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, also where no port is left to connect from.
        let _ = self.listening.shutdown(Shutdown::Both);
        if let Some(accepting) = self.accepting.take() {
            // A panic of this thread was printed where it came about.
            let _ = accepting.join();
        }
        for stream in lock(&self.shared.streams).drain(..).filter_map(|stream| stream.upgrade()) {
            // It may have been ended by the peer meanwhile.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        for thread in threads {
            // As above.
            let _ = thread.join();
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("the system has a thread")
}

fn accept_all<H>(listener: &TcpListener, shared: &Arc<Shared>, handler: &Arc<H>)
where
    H: Fn(Arc<TcpStream>, usize, Arc<Shared>) + Send + Sync + 'static,
{
    for (index, stream) in listener.incoming().enumerate() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        // The peer may have left before it was accepted.
        let Ok(stream) = stream else { continue };
        shared.seen.connections.fetch_add(1, Ordering::SeqCst);
        // It may have left since.
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        lock(&shared.streams).push(Arc::downgrade(&stream));
        let (handler, of_thread) = (Arc::clone(handler), Arc::clone(shared));
        lock(&shared.threads).push(spawn(move || handler(stream, index, of_thread)));
    }
}

/// What the library reads and writes: reads go to the socket, writes wait until other threads' writes are whole.
struct Half {
    stream: Arc<TcpStream>,
    gate: Arc<Mutex<Gate>>,
}

impl Read for Half {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self.stream).read(into)
    }
}

impl Write for Half {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _whole = lock(&self.gate);
        (&*self.stream).write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A handshake that is to be answered.
pub(crate) struct Arrival<'a> {
    /// The connection's number, in the order they were accepted.
    pub(crate) index: usize,
    pub(crate) path: &'a str,
    /// What it is given before the answer leaves right after it.
    pub(crate) outlet: &'a Outlet,
}

/// How the client ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By the closing handshake.
    Closed,
    /// By the end of the stream alone.
    Dropped,
    Reset,
    /// By a breach of the protocol.
    Broken(String),
}

/// A connection that was upgraded.
pub(crate) struct Session {
    /// The connection's number, in the order they were accepted.
    pub(crate) index: usize,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) peer: SocketAddr,
    pub(crate) outlet: Outlet,
    /// Payloads of the pongs that came.
    pub(crate) pongs: Vec<Bytes>,
    socket: WebSocket<Half>,
    read_timeout: Option<Duration>,
    shared: Arc<Shared>,
}

impl Session {
    fn upgrade(
        stream: &Arc<TcpStream>,
        index: usize,
        shared: &Arc<Shared>,
        doorman: impl Fn(&Arrival) -> Option<u16>,
    ) -> Option<Self> {
        let gate = Gate { early: Some(Vec::new()) };
        let outlet = Outlet { stream: Arc::clone(stream), gate: Arc::new(Mutex::new(gate)) };
        let half = Half { stream: Arc::clone(stream), gate: Arc::clone(&outlet.gate) };
        let peer = stream.peer_addr().ok()?;
        let mut path = String::new();
        let mut headers = Vec::new();
        #[expect(clippy::result_large_err, reason = "the library's type")]
        let answer = |request: &Request, mut response: Response| {
            request.uri().to_string().clone_into(&mut path);
            let pairs = request.headers().iter();
            headers = pairs.map(|(name, value)| (name.to_string(), lossy(value))).collect();
            if let Some(status) = doorman(&Arrival { index, path: &path, outlet: &outlet }) {
                shared.seen.refused.fetch_add(1, Ordering::SeqCst);
                let mut refused = ErrorResponse::new(Some("no\n".to_owned()));
                *refused.status_mut() = status.try_into().expect("a status");
                return Err(refused);
            }
            // RFC 6455 §4.2.2: one of those that the client offered.
            if let Some(offered) = request.headers().get("sec-websocket-protocol") {
                let first = lossy(offered).split(',').next().expect("a split has a first part").trim().to_owned();
                let first = HeaderValue::from_str(&first).expect("a part of a header value is one");
                response.headers_mut().insert("sec-websocket-protocol", first);
            }
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(half, answer).ok()?;
        shared.seen.upgrades.fetch_add(1, Ordering::SeqCst);
        outlet.open();
        let shared = Arc::clone(shared);
        Some(Self { index, path, headers, peer, outlet, pongs: Vec::new(), socket, read_timeout: None, shared })
    }

    /// The next message, however long it takes.
    pub(crate) fn next(&mut self) -> Result<Message, End> {
        self.set_timeout(None);
        loop {
            if let Some(message) = self.read()? {
                return Ok(message);
            }
        }
    }

    /// The next message, if it comes within the time, to a few milliseconds.
    pub(crate) fn next_within(&mut self, time: Duration) -> Result<Option<Message>, End> {
        self.set_timeout(Some(time));
        self.read()
    }

    /// Reads until the client ends the connection.
    pub(crate) fn read_to_end(&mut self) -> End {
        loop {
            if let Err(end) = self.next() {
                return end;
            }
        }
    }

    /// Keeps the connection, reading nothing, until the server ends.
    pub(crate) fn hold(&self) {
        while !self.shared.stopping.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the connection by a reset. The system resets what is closed with bytes unread, so this waits for some.
    pub(crate) fn reset(self) {
        // The peer may be faster in leaving.
        let _ = self.outlet.stream.set_read_timeout(Some(WAIT_MAX));
        let _ = self.outlet.stream.peek(&mut [0]);
    }

    /// `None` when the read timed out.
    fn read(&mut self) -> Result<Option<Message>, End> {
        loop {
            match self.socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    self.shared.seen.messages.fetch_add(1, Ordering::SeqCst);
                    return Ok(Some(message));
                }
                Ok(Message::Pong(payload)) => self.pongs.push(payload),
                // The library answers pings and close frames with the next read.
                Ok(Message::Ping(_) | Message::Close(_) | Message::Frame(_)) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(self.on_end(&error)),
            }
        }
    }

    fn on_end(&self, error: &Error) -> End {
        let seen = &self.shared.seen;
        let (end, count) = match error {
            Error::ConnectionClosed | Error::AlreadyClosed => (End::Closed, &seen.closed),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => (End::Dropped, &seen.dropped),
            Error::Io(_) => (End::Reset, &seen.reset),
            other => {
                lock(&seen.broken).push(other.to_string());
                return End::Broken(other.to_string());
            }
        };
        count.fetch_add(1, Ordering::SeqCst);
        end
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) {
        if timeout != self.read_timeout {
            self.read_timeout = timeout;
            self.outlet.stream.set_read_timeout(timeout).expect("the timeout is not zero");
        }
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The writing side of a connection, for any thread. Every write is whole before the next begins.
#[derive(Clone)]
pub(crate) struct Outlet {
    stream: Arc<TcpStream>,
    gate: Arc<Mutex<Gate>>,
}

/// Whoever holds it writes.
struct Gate {
    /// Until the handshake is answered: what is to follow it.
    early: Option<Vec<u8>>,
}

impl Outlet {
    /// The handshake has been answered.
    fn open(&self) {
        let early = lock(&self.gate).early.take().unwrap_or_default();
        self.send_bytes(&early);
    }

    /// Sends a text or binary message in one frame. Answers whether the connection took it.
    pub(crate) fn send(&self, message: &Message) -> bool {
        self.send_bytes(&frame_bytes(message))
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8]) -> bool {
        let mut gate = lock(&self.gate);
        if let Some(early) = &mut gate.early {
            early.extend_from_slice(bytes);
            return true;
        }
        (&*self.stream).write_all(bytes).is_ok()
    }

    /// One byte to a write.
    pub(crate) fn send_bytewise(&self, message: &Message) -> bool {
        let _whole = lock(&self.gate);
        frame_bytes(message).chunks(1).all(|byte| (&*self.stream).write_all(byte).is_ok())
    }

    /// In at most `count` frames, with what `between` gives between them: control frames, as bytes.
    pub(crate) fn send_fragments(&self, message: &Message, count: usize, between: &[u8]) -> bool {
        let (kind, payload) = parts(message);
        let each = payload.len().div_ceil(count).max(1);
        let mut bytes = Vec::new();
        for (number, part) in payload.chunks(each).enumerate() {
            let data = if number == 0 { kind } else { Data::Continue };
            let is_last = (number + 1) * each >= payload.len();
            let frame = Frame::message(Bytes::copy_from_slice(part), OpCode::Data(data), is_last);
            frame.format(&mut bytes).expect("a vector takes all");
            if !is_last {
                bytes.extend_from_slice(between);
            }
        }
        self.send_bytes(&bytes)
    }

    pub(crate) fn ping(&self, payload: &[u8]) -> bool {
        self.send_bytes(&ping_bytes(payload))
    }

    /// Sends a close frame with the code.
    pub(crate) fn close(&self, code: u16) -> bool {
        let payload = Bytes::copy_from_slice(&code.to_be_bytes());
        let mut bytes = Vec::new();
        let frame = Frame::message(payload, OpCode::Control(Control::Close), true);
        frame.format(&mut bytes).expect("a vector takes all");
        self.send_bytes(&bytes)
    }

    /// Ends both directions; the handler's next read ends.
    pub(crate) fn shut(&self) {
        // It may have been ended by the peer.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

pub(crate) fn ping_bytes(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Frame::ping(Bytes::copy_from_slice(payload)).format(&mut bytes).expect("a vector takes all");
    bytes
}

fn parts(message: &Message) -> (Data, Bytes) {
    match message {
        Message::Text(text) => (Data::Text, Bytes::copy_from_slice(text.as_bytes())),
        Message::Binary(bytes) => (Data::Binary, bytes.clone()),
        other => panic!("{other:?} is no message of the application"),
    }
}

fn frame_bytes(message: &Message) -> Vec<u8> {
    let (kind, payload) = parts(message);
    let mut bytes = Vec::with_capacity(payload.len() + 10);
    Frame::message(payload, OpCode::Data(kind), true).format(&mut bytes).expect("a vector takes all");
    bytes
}

/// The same message with its payload changed; a text must stay one.
pub(crate) fn altered(message: &Message, alter: impl FnOnce(&mut Vec<u8>)) -> Message {
    let (kind, payload) = parts(message);
    let mut payload = payload.to_vec();
    alter(&mut payload);
    match kind {
        Data::Text => Message::text(String::from_utf8(payload).expect("the alteration keeps it UTF-8")),
        _ => Message::binary(payload),
    }
}

/// Waits until the condition holds. Panics with `what` when it does not in time.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT_MAX;
    while !holds() {
        assert!(Instant::now() < end, "waited {WAIT_MAX:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Counts, and strikes every so often, over all connections of a server.
pub(crate) struct Strikes {
    every: usize,
    asked: AtomicUsize,
}

impl Strikes {
    /// Every `every`th call strikes.
    pub(crate) const fn every(every: usize) -> Self {
        Self { every, asked: AtomicUsize::new(0) }
    }

    pub(crate) fn strikes(&self) -> bool {
        (self.asked.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(self.every)
    }
}
