//! Fan-out by a plain loop of send(2): the yardstick that our broadcast is compared with.
//!
//! One thread on epoll, level-triggered, with the engine's own protocol core. `/ws?topic=a&topic=b` is what it is in
//! the server: what a connection sends goes to every subscriber of its topics, itself included. A message is encoded
//! once and then given to the system by one call for each subscriber, without a copy. Nothing gathers, not even
//! messages that came in one read: that is what the comparison is about. What the system does not take at once is kept,
//! and follows when it has room.
//!
//! `cargo bench --bench send_loop -- --listen 127.0.0.1:9003` serves until it is ended; `scripts/bench-fanout` puts it
//! side by side with the server. Without arguments it serves two connections of its own and says that it works.

use bytes::{Buf, BytesMut};
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder::{Client, Server};
use ringwave::protocol::handshake::{ClientRequest, UpgradeRequest};
use ringwave::protocol::mask::MaskingKey;
use ringwave::{Limits, Message, Prepared, Request};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use slab::Slab;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

/// What the listener's event carries; no key of a slab comes near.
const LISTENER: u64 = u64::MAX;
/// As the server has it.
const LISTEN_BACKLOG: i32 = 4096;
const EVENTS_PER_TURN_MAX: usize = 1024;
const ACCEPTS_PER_TURN_MAX: usize = 1024;
const RECEIVE_BYTES: usize = 64 << 10;
/// As the server's `--send-queue`: a peer for which more is kept is ended.
const UNSENT_BYTES_MAX: usize = 16 << 20;

struct Peer {
    key: usize,
    socket: OwnedFd,
    connection: Connection<Server>,
    /// What it is subscribed and publishes to.
    topics: Vec<usize>,
    /// What the system has not taken yet. While there is some, the socket is watched for room.
    unsent: BytesMut,
}

impl Peer {
    fn watch(&self, epoll: &OwnedFd, flags: EventFlags) -> Result<(), Errno> {
        epoll::modify(epoll, &self.socket, EventData::new_u64(self.key as u64), flags)
    }

    /// One send; only the rest of it is copied. An error ends the peer.
    #[inline]
    fn deliver(&mut self, epoll: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
        let mut taken = 0;
        if self.unsent.is_empty() {
            taken = take(&self.socket, bytes)?;
            if taken == bytes.len() {
                return Ok(());
            }
            self.watch(epoll, EventFlags::IN | EventFlags::OUT)?;
        }
        let rest = &bytes[taken..];
        if self.unsent.len() + rest.len() > UNSENT_BYTES_MAX {
            return Err(Errno::NOBUFS);
        }
        self.unsent.extend_from_slice(rest);
        Ok(())
    }

    /// There is room again.
    fn flush(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        let taken = take(&self.socket, &self.unsent)?;
        self.unsent.advance(taken);
        if self.unsent.is_empty() {
            self.unsent = BytesMut::new();
            self.watch(epoll, EventFlags::IN)?;
        }
        Ok(())
    }
}

/// How much of `bytes` the system takes now.
#[inline]
fn take(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Err(Errno::AGAIN) => Ok(0),
        result => result,
    }
}

struct SendLoop {
    listener: Socket,
    epoll: OwnedFd,
    limits: Limits,
    peers: Slab<Peer>,
    topics: HashMap<String, usize>,
    /// Keys of peers, by topic.
    subscribers: Vec<Vec<usize>>,
    /// Peers to be removed at the turn's end, so that no event of the turn meets a stranger under its key.
    gone: Vec<usize>,
}

impl SendLoop {
    fn listen(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        // Accepted sockets inherit it.
        listener.set_tcp_nodelay(true)?;
        listener.set_nonblocking(true)?;
        listener.bind(&address.into())?;
        listener.listen(LISTEN_BACKLOG)?;
        let address = listener.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no IP address"))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let server = Self {
            listener,
            epoll,
            limits: Limits::default(),
            peers: Slab::new(),
            topics: HashMap::new(),
            subscribers: Vec::new(),
            gone: Vec::new(),
        };
        Ok((server, address))
    }

    /// Answers once `count` connections have ended.
    fn serve(mut self, mut count: usize) -> io::Result<()> {
        let mut bytes = vec![0; RECEIVE_BYTES];
        let mut events = Vec::with_capacity(EVENTS_PER_TURN_MAX);
        while count > 0 {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            for event in events.drain(..) {
                let (flags, data) = (event.flags, event.data.u64());
                if data == LISTENER {
                    self.accept()?;
                    continue;
                }
                let key = data as usize;
                if flags.contains(EventFlags::OUT) && self.peers[key].flush(&self.epoll).is_err() {
                    self.gone.push(key);
                }
                // An error or a hang-up is told by the receive.
                if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
                    self.receive(key, &mut bytes);
                }
            }
            count -= self.remove_gone().min(count);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                // The peer has gone before it was accepted.
                Err(Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            };
            let entry = self.peers.vacant_entry();
            let key = entry.key();
            epoll::add(&self.epoll, &socket, EventData::new_u64(key as u64), EventFlags::IN)?;
            let (connection, topics, unsent) = (Connection::default(), Vec::new(), BytesMut::new());
            entry.insert(Peer { key, socket, connection, topics, unsent });
        }
        Ok(())
    }

    fn receive(&mut self, key: usize, bytes: &mut [u8]) {
        match recv(&self.peers[key].socket, &mut *bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.gone.push(key),
            Ok((length, _)) => self.read(key, &mut bytes[..length]),
            Err(Errno::AGAIN) => {}
            Err(_) => self.gone.push(key),
        }
    }

    fn read(&mut self, key: usize, bytes: &mut [u8]) {
        // Taken out: publishing needs all peers while events are borrowed from this one's decoder.
        let mut connection = std::mem::take(&mut self.peers[key].connection);
        let limits = self.limits;
        let (mut events, encoder) = connection.receive(bytes, &limits);
        let mut answer = Vec::new();
        loop {
            match events.next_event() {
                Ok(Some(Event::Message(message))) => self.publish(key, &Prepared::new(message)),
                Ok(Some(Event::Assembled(_, frame))) => self.publish(key, &frame.clone()),
                Ok(Some(Event::Request(request))) => {
                    if !self.open(key, &request) {
                        self.gone.push(key);
                        break;
                    }
                    events.accept_upgrade();
                }
                Ok(Some(Event::Ping(payload))) => {
                    answer.clear();
                    encoder.encode_pong((), payload, &mut answer).expect("no close frame has gone out");
                    self.deliver(key, &answer);
                }
                Ok(Some(Event::Close(_))) => {
                    answer.clear();
                    encoder.encode_close((), None, &mut answer).expect("no close frame has gone out");
                    self.deliver(key, &answer);
                    self.gone.push(key);
                    break;
                }
                Ok(Some(Event::Chunk(_) | Event::Pong(_) | Event::ContinueExpected | Event::Upgraded(_))) => {}
                Ok(None) => break,
                Err(_) => {
                    self.gone.push(key);
                    break;
                }
            }
        }
        self.peers[key].connection = connection;
    }

    /// Answers a request; whether it opened a WebSocket.
    fn open(&mut self, key: usize, request: &Request<'_>) -> bool {
        let mut answer = Vec::new();
        // Names are taken as they are: whoever measures writes none that needs escapes.
        let names: Vec<&str> =
            request.query().unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("topic=")).collect();
        let opened = match UpgradeRequest::of(request) {
            Ok(Some(upgrade)) if upgrade.path() == "/ws" && !names.is_empty() => {
                upgrade.encode_accept(None, &[], &mut answer).is_ok()
            }
            _ => false,
        };
        if !opened {
            self.deliver(key, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return false;
        }
        for name in names {
            let next = self.subscribers.len();
            let topic = *self.topics.entry(name.to_owned()).or_insert(next);
            if topic == next {
                self.subscribers.push(Vec::new());
            }
            if !self.peers[key].topics.contains(&topic) {
                self.subscribers[topic].push(key);
                self.peers[key].topics.push(topic);
            }
        }
        self.deliver(key, &answer);
        true
    }

    /// The loop that this is about.
    fn publish(&mut self, from: usize, message: &Prepared) {
        let Self { epoll, peers, subscribers, gone, .. } = self;
        for index in 0..peers[from].topics.len() {
            for &key in &subscribers[peers[from].topics[index]] {
                if peers[key].deliver(epoll, message.frame()).is_err() {
                    gone.push(key);
                }
            }
        }
    }

    fn deliver(&mut self, key: usize, bytes: &[u8]) {
        if self.peers[key].deliver(&self.epoll, bytes).is_err() {
            self.gone.push(key);
        }
    }

    /// Closes whoever is gone, and answers how many that are.
    fn remove_gone(&mut self) -> usize {
        let mut removed = 0;
        for key in self.gone.drain(..) {
            // One that ended in several ways stands there several times.
            let Some(peer) = self.peers.try_remove(key) else { continue };
            for topic in peer.topics {
                let subscribers = &mut self.subscribers[topic];
                let at = subscribers.iter().position(|subscriber| *subscriber == key);
                subscribers.swap_remove(at.expect("it was subscribed when it opened"));
            }
            removed += 1;
        }
        removed
    }
}

/// A client that blocks, for the self-check.
struct Subscriber {
    stream: TcpStream,
    connection: Connection<Client>,
}

impl Subscriber {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        let host = address.to_string();
        let request = ClientRequest { host: &host, target: "/ws?topic=a", key: [7; 16], protocols: &[], headers: &[] };
        let mut out = Vec::new();
        let connection = Connection::request(&request, &mut out).map_err(|_| io::Error::other("the request"))?;
        stream.write_all(&out)?;
        let mut subscriber = Self { stream, connection };
        subscriber.wait_for(|event| matches!(event, Event::Upgraded(_)))?;
        Ok(subscriber)
    }

    fn wait_for(&mut self, is_it: impl Fn(&Event<'_>) -> bool) -> io::Result<()> {
        let mut bytes = vec![0; RECEIVE_BYTES];
        loop {
            let length = self.stream.read(&mut bytes)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let limits = Limits::default();
            let (mut events, _) = self.connection.receive(&mut bytes[..length], &limits);
            while let Some(event) = events.next_event().map_err(io::Error::other)? {
                if is_it(&event) {
                    return Ok(());
                }
            }
        }
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--listen") {
        let address = arguments.get(at + 1).and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("--listen takes ADDRESS:PORT"))?;
        let (server, address) = SendLoop::listen(address)?;
        println!("send loop listening on ws://{address}/ws?topic=NAME, process {}", std::process::id());
        return server.serve(usize::MAX);
    }
    let (server, address) = SendLoop::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let server = std::thread::spawn(move || server.serve(2));
    let mut reader = Subscriber::connect(address)?;
    let mut publisher = Subscriber::connect(address)?;
    // More than the sockets hold: the rest must follow when there is room.
    let payload = vec![b'x'; 8 << 20];
    let mut out = Vec::new();
    let message = Message::Binary(&payload);
    publisher
        .connection
        .encoder
        .encode_message(MaskingKey::new([1, 2, 3, 4]), message, &mut out)
        .map_err(io::Error::other)?;
    publisher.stream.write_all(&out)?;
    for subscriber in [&mut publisher, &mut reader] {
        subscriber.wait_for(|event| match event {
            Event::Message(message) | Event::Assembled(message, _) => message.as_bytes() == payload,
            _ => false,
        })?;
    }
    drop((reader, publisher));
    server.join().expect("the server thread ends")?;
    println!("send loop: works; see scripts/bench-fanout");
    Ok(())
}
