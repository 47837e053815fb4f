//! The driver's contract, over every driver: what is sent arrives whole and in order, every buffer and every link
//! comes back, and nothing is lost when tables and pools are small.

use ringwave::driver::{Batch, Completion, Driver, Link, Uring, UringConfig, listen_on};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Turns without progress before a test gives up; each waits at most 100 ms.
const IDLE_TURNS_MAX: u32 = 100;

/// Both ends in one driver: accepted links echo, connected links send `payload` once and count what comes back.
struct EchoWorld<D> {
    driver: D,
    payload: Vec<u8>,
    /// Bytes that came back, by connected link.
    clients: HashMap<Link, Vec<u8>>,
    /// Bytes that wait for the send in flight, by accepted link.
    servers: HashMap<Link, Side>,
    done: usize,
    failed: usize,
    accepted: usize,
    closed: usize,
}

#[derive(Default)]
struct Side {
    waiting: Vec<u8>,
    sending: bool,
}

impl<D: Driver> EchoWorld<D> {
    fn new(driver: D, payload: Vec<u8>) -> Self {
        Self {
            driver,
            payload,
            clients: HashMap::new(),
            servers: HashMap::new(),
            done: 0,
            failed: 0,
            accepted: 0,
            closed: 0,
        }
    }

    fn run_until(&mut self, finished: impl Fn(&Self) -> bool) {
        let mut idle = 0;
        while !finished(self) {
            self.driver.wait(Some(Duration::from_millis(100))).expect("the driver waits");
            idle += 1;
            while let Some(completion) = self.driver.next_completion() {
                idle = 0;
                self.on_completion(completion);
            }
            assert!(
                idle < IDLE_TURNS_MAX,
                "stuck: {} done, {} accepted, {} closed",
                self.done,
                self.accepted,
                self.closed
            );
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { link } => {
                self.accepted += 1;
                assert!(self.servers.insert(link, Side::default()).is_none(), "{link:?} is accepted twice");
                self.driver.recv_start(link);
            }
            Completion::Connected { link, .. } => {
                assert!(self.clients.insert(link, Vec::new()).is_none());
                self.driver.recv_start(link);
                let mut batch = Box::new(Batch::default());
                batch.append(|out| out.extend_from_slice(&self.payload));
                self.driver.send(link, batch);
            }
            Completion::Received { link, buffer } => {
                let bytes = self.driver.bytes(&buffer).to_vec();
                self.driver.recycle(buffer);
                self.on_bytes(link, &bytes);
            }
            Completion::ReceiveEnded { link, .. } => self.driver.close(link),
            Completion::Sent { link, error, .. } => {
                if let Some(side) = self.servers.get_mut(&link) {
                    side.sending = false;
                    assert!(error.is_none(), "{error:?}");
                    self.flush(link);
                }
            }
            Completion::Closed { link } => {
                self.closed += 1;
                assert!(self.servers.remove(&link).is_some() || self.clients.remove(&link).is_some());
            }
            Completion::ConnectFailed { .. } => self.failed += 1,
            Completion::AcceptFailed { error } => panic!("{error}"),
            Completion::Woken | Completion::SentPart { .. } => {}
        }
    }

    fn on_bytes(&mut self, link: Link, bytes: &[u8]) {
        if let Some(side) = self.servers.get_mut(&link) {
            side.waiting.extend_from_slice(bytes);
            self.flush(link);
        } else if let Some(echoed) = self.clients.get_mut(&link) {
            echoed.extend_from_slice(bytes);
            if echoed.len() == self.payload.len() {
                assert!(*echoed == self.payload, "the echo of {link:?} is not what was sent");
                self.done += 1;
            }
        } else {
            panic!("{} bytes for {link:?}, which nobody knows", bytes.len());
        }
    }

    fn flush(&mut self, link: Link) {
        let Some(side) = self.servers.get_mut(&link) else { return };
        if side.sending || side.waiting.is_empty() {
            return;
        }
        side.sending = true;
        let mut batch = Box::new(Batch::default());
        // Cut into shared parts too, so that vectors are sent as well as single buffers.
        for part in side.waiting.chunks(5_000) {
            batch.push_shared(&bytes::Bytes::copy_from_slice(part));
        }
        side.waiting.clear();
        self.driver.send(link, batch);
    }
}

fn echo_everything<D: Driver>(mut driver: D, connections: usize, payload_len: usize) {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let listener = listen_on(any, 1).expect("a port is free").remove(0);
    let address = listener.local_addr();
    driver.listen(listener);
    for tag in 0..connections {
        driver.connect(address, None, tag as u64);
    }
    let payload = (0..payload_len).map(|index| (index * 31 + index / 251) as u8).collect();
    let mut world = EchoWorld::new(driver, payload);
    world.run_until(|world| world.done == connections && world.accepted == connections);
    for link in world.clients.keys().copied().collect::<Vec<_>>() {
        world.driver.close(link);
    }
    world.run_until(|world| world.closed == 2 * connections);
    assert!(world.servers.is_empty() && world.clients.is_empty());
    world.driver.stop_listening();
    // What is armed on the listener holds it until its cancellation has come: within the next turns.
    for _ in 0..IDLE_TURNS_MAX {
        let closed = world.closed;
        world.driver.connect(address, None, 7);
        world.run_until(|world| world.failed > 0 || world.closed > closed);
    }
    assert!(world.failed > 0, "the listener still accepts");
}

fn uring(config: UringConfig) -> Uring {
    Uring::new(config).expect("io_uring is allowed here")
}

#[test]
fn uring_echoes_small_messages() {
    echo_everything(uring(UringConfig::default()), 300, 26);
}

#[test]
fn uring_echoes_large_messages() {
    echo_everything(uring(UringConfig::default()), 4, 3_000_000);
}

#[test]
fn uring_with_few_buffers_starves_nobody() {
    let config = UringConfig { buffer_count: 4, buffer_bytes: 512, ..UringConfig::default() };
    echo_everything(uring(config), 60, 20_000);
}

#[test]
fn uring_spreads_over_banks_when_tables_are_short() {
    let config = UringConfig { table_slots: 64, links_max: 1_000, ..UringConfig::default() };
    echo_everything(uring(config), 400, 5_000);
}

#[test]
fn uring_with_one_buffer_in_each_further_bank_starves_nobody() {
    let config = UringConfig { table_slots: 32, links_max: 320, buffer_count: 8, ..UringConfig::default() };
    echo_everything(uring(config), 120, 20_000);
}

#[test]
fn a_waker_ends_the_wait_from_another_thread() {
    let mut driver = uring(UringConfig::default());
    let waker = driver.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        let thread = std::thread::spawn(move || waker.wake());
        driver.wait(Some(Duration::from_secs(10))).expect("the driver waits");
        let mut woken = 0;
        while let Some(completion) = driver.next_completion() {
            assert!(matches!(completion, Completion::Woken));
            woken += 1;
        }
        assert_eq!(woken, 1);
        thread.join().expect("the waker ran");
    }
}

#[test]
fn a_slot_is_used_again_under_another_generation() {
    let mut driver = uring(UringConfig::default());
    let listener = listen_on("127.0.0.1:0".parse().expect("an address"), 1).expect("a port is free").remove(0);
    let address = listener.local_addr();
    driver.listen(listener);
    let mut links = Vec::new();
    for round in 0..3 {
        driver.connect(address, None, round);
        let mut closed = 0;
        while closed < 2 {
            driver.wait(Some(Duration::from_secs(10))).expect("the driver waits");
            while let Some(completion) = driver.next_completion() {
                match completion {
                    Completion::Accepted { link } => {
                        links.push(link);
                        driver.close(link);
                    }
                    Completion::Connected { link, .. } => driver.recv_start(link),
                    Completion::ReceiveEnded { link, .. } => driver.close(link),
                    Completion::Closed { .. } => closed += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    for (earlier, later) in [(0, 1), (1, 2), (0, 2)] {
        assert_ne!(links[earlier], links[later], "a key names one tenant");
    }
}

#[test]
fn a_reset_reaches_the_peer_as_one() {
    let mut driver = uring(UringConfig::default());
    let listener = listen_on("127.0.0.1:0".parse().expect("an address"), 1).expect("a port is free").remove(0);
    let address = listener.local_addr();
    driver.listen(listener);
    driver.connect(address, None, 0);
    let (mut seen, mut closed) = (None, 0);
    while closed < 2 {
        driver.wait(Some(Duration::from_secs(10))).expect("the driver waits");
        while let Some(completion) = driver.next_completion() {
            match completion {
                Completion::Accepted { link } => driver.recv_start(link),
                Completion::Connected { link, .. } => driver.reset(link),
                Completion::ReceiveEnded { link, error } => {
                    seen = error.map(|error| error.kind());
                    driver.close(link);
                }
                Completion::Closed { .. } => closed += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(seen, Some(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_connection_comes_from_the_source_it_is_given() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let mut driver = uring(UringConfig::default());
    let sources = ["127.0.0.7", "127.1.2.3"].map(|source| source.parse().expect("an address"));
    for (tag, source) in sources.into_iter().enumerate() {
        driver.connect(address, Some(source), tag as u64);
    }
    // 192.0.2.0/24 is nobody's (RFC 5737).
    driver.connect(address, Some("192.0.2.1".parse().expect("an address")), 9);
    let (mut connected, mut failed) = (0, None);
    while connected < 2 || failed.is_none() {
        driver.wait(Some(Duration::from_secs(10))).expect("the driver waits");
        while let Some(completion) = driver.next_completion() {
            match completion {
                Completion::Connected { .. } => connected += 1,
                Completion::ConnectFailed { tag: 9, error } => failed = Some(error.kind()),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(failed, Some(std::io::ErrorKind::AddrNotAvailable));
    let mut seen: Vec<std::net::IpAddr> = (0..2).map(|_| listener.accept().expect("it connected").1.ip()).collect();
    seen.sort_unstable();
    assert_eq!(seen, sources);
}
