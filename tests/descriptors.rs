//! A server that has run out of descriptors: those it serves notice nothing, it does not turn in vain, and whoever waits
//! is served as soon as somebody leaves.
//!
//! RLIMIT_NOFILE is a whole process's, so the server is this very program, started again with a lower one; the clients
//! stay here.

mod support;

use ringwave::driver::{Batch, Completion, Driver, Epoll, EpollConfig, Link};
use ringwave::{Context, Handler, Message, Session, Upgrade, UpgradeRequest};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use support::{DEADLINE, TestServer, sockets_at_once};

/// Says to this program that it is the server, and how many descriptors it leaves free for further rings.
const SERVER: &str = "DESCRIPTORS_TEST_SERVER";
/// Before the server's port on its standard output.
const PORT: &str = "port: ";
/// Clients that come at once, if this process may have as many: more than there is room for.
const CLIENTS_MAX: usize = 1_000;
/// How long nothing must have been answered before the server is taken to be full. A rest after a refusal is shorter.
const QUIET: Duration = Duration::from_millis(500);
/// How long the server's processor time is measured, and how much of it may be used.
const MEASURED: Duration = Duration::from_secs(2);
const USED_MAX: Duration = Duration::from_millis(100);
/// How soon after somebody left the next one must be served.
const SERVED_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn with_12_descriptors_whoever_waits_is_served_when_somebody_leaves() {
    // Whatever is free goes to further rings.
    serve_or_test("with_12_descriptors_whoever_waits_is_served_when_somebody_leaves", 12, usize::MAX);
}

#[test]
fn with_256_descriptors_whoever_waits_is_served_when_somebody_leaves() {
    // A further ring gets its eventfd and then no descriptor of its own.
    serve_or_test("with_256_descriptors_whoever_waits_is_served_when_somebody_leaves", 256, 1);
}

static ALONE: Mutex<()> = Mutex::new(());

fn serve_or_test(name: &str, limit: u32, free: usize) {
    if std::env::var_os(SERVER).is_some() {
        serve(free);
    } else {
        // One after the other: both want many sockets, and all the time they can have.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let server = Process::start(name, limit);
        Clients::new(server.address()).test(&server);
    }
}

struct Echo;

impl Handler for Echo {
    type Data = ();
    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }
    fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        session.send(message);
    }
}

/// The server, until its standard input ends.
fn serve(free: usize) {
    let server = TestServer::start(|_| {}, |_| Echo);
    let mut taken: Vec<File> = Vec::new();
    if free != usize::MAX {
        taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        taken.truncate(taken.len() - free);
    }
    println!("\n{PORT}{}", server.address().port());
    // Nothing is written to it: this waits for its end.
    let _ = stdin().read(&mut [0]);
}

/// The server's process.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    fn start(test: &str, limit: u32) -> Self {
        let this = std::env::current_exe().expect("this program");
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
            .arg(this)
            .args([test, "--exact", "--nocapture"])
            .env(SERVER, "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let port = lines.find_map(|line| line.expect("text").strip_prefix(PORT)?.parse().ok());
        // Nobody reads the rest, which is short.
        Self { child, port: port.expect("the server starts") }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Processor time of all its threads (proc_pid_stat(5), fields 14 and 15, in units of 10 ms).
    fn used(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // Behind the name, which may hold anything, comes the third field.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let ticks = fields.split(' ').skip(14 - 3).take(2).map(|field| field.parse::<u64>().expect("a number"));
        Duration::from_millis(10 * ticks.sum::<u64>())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by a failure of its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All clients, in one loop.
struct Clients {
    driver: Epoll,
    /// Connections asked for that do not stand yet.
    connecting: usize,
    /// What came behind the answer to the handshake, by client that has been answered.
    served: HashMap<Link, Vec<u8>>,
    waiting: HashSet<Link>,
    last_served: Instant,
}

impl Clients {
    fn new(server: SocketAddr) -> Self {
        let mut driver = Epoll::new(EpollConfig::default()).expect("a descriptor is free");
        let connecting = sockets_at_once(CLIENTS_MAX);
        for tag in 0..connecting {
            driver.connect(server, None, tag as u64);
        }
        Self { driver, connecting, served: HashMap::new(), waiting: HashSet::new(), last_served: Instant::now() }
    }

    fn test(mut self, server: &Process) {
        self.turn_until("the server is full", |clients| {
            clients.connecting == 0 && !clients.served.is_empty() && clients.last_served.elapsed() > QUIET
        });
        let room = self.served.len();
        assert!(!self.waiting.is_empty(), "there is room for everybody");

        let used_before = server.used();
        let begin = Instant::now();
        self.turn_until("time passes", |_| begin.elapsed() >= MEASURED);
        let used = server.used() - used_before;
        assert!(used < USED_MAX, "{used:?} of processor time in {:?}", begin.elapsed());
        assert_eq!(self.served.len(), room);

        // Nobody of those who are served has noticed anything.
        let links: Vec<Link> = self.served.keys().copied().collect();
        links.iter().for_each(|link| self.echo(*link));
        let mut links = links.into_iter();
        for link in links.by_ref().take(5) {
            self.assert_makes_room(link);
        }
        // Those who lost patience lie in the kernel's queue before those who have it: links are numbered as they come.
        let mut waiting: Vec<Link> = self.waiting.iter().copied().collect();
        waiting.sort_by_key(|link| link.index());
        waiting.truncate(waiting.len() / 3);
        for gone in waiting {
            self.waiting.remove(&gone);
            self.driver.close(gone);
        }
        for link in links.take(5) {
            self.assert_makes_room(link);
        }
    }

    /// Somebody leaves, and the next one is served.
    fn assert_makes_room(&mut self, link: Link) {
        let before = self.served.len();
        self.served.remove(&link);
        self.driver.close(link);
        let begin = Instant::now();
        self.turn_until("the next one is served", |clients| clients.served.len() == before);
        let waited = begin.elapsed();
        assert!(waited < SERVED_WITHIN, "the next one waited for {waited:?}");
    }

    fn echo(&mut self, link: Link) {
        // A text of two bytes, masked with zeros (RFC 6455 §5.2), and as it comes back.
        self.send(link, &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        self.turn_until("the echo comes", |clients| clients.served[&link] == [0x81, 2, b'h', b'i']);
    }

    fn send(&mut self, link: Link, bytes: &[u8]) {
        let mut batch = Box::new(Batch::default());
        batch.append(|out| out.extend_from_slice(bytes));
        self.driver.send(link, batch);
    }

    #[track_caller]
    fn turn_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !condition(self) {
            let served = self.served.len();
            assert!(begin.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}; {served} are served");
            self.driver.wait(Some(Duration::from_millis(10))).expect("the driver waits");
            while let Some(completion) = self.driver.next_completion() {
                self.on_completion(completion);
            }
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Connected { link, .. } => {
                self.connecting -= 1;
                self.waiting.insert(link);
                self.driver.recv_start(link);
                let request = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
                self.send(link, request.as_bytes());
            }
            Completion::Received { link, buffer } => {
                let bytes = self.driver.bytes(&buffer);
                if self.waiting.remove(&link) {
                    assert!(bytes.starts_with(b"HTTP/1.1 101 ") && bytes.ends_with(b"\r\n\r\n"));
                    self.served.insert(link, Vec::new());
                    self.last_served = Instant::now();
                } else {
                    self.served.get_mut(&link).expect("it has been answered").extend_from_slice(bytes);
                }
                self.driver.recycle(buffer);
            }
            Completion::Sent { error: None, .. } | Completion::Closed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}
