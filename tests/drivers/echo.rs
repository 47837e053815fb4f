//! Both ends in one driver: whatever is sent comes back whole and in order, however small tables and pools are.

use crate::{batch_of, listener, pattern, uring_with};
use ringwave::driver::{Batch, Completion, Driver, Link, UringConfig};
use std::collections::HashMap;
use std::time::Duration;

every_driver! {
    small_messages_come_back,
    large_messages_come_back,
}

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
            Completion::Accepted { link, .. } => {
                self.accepted += 1;
                assert!(self.servers.insert(link, Side::default()).is_none(), "{link:?} is accepted twice");
                self.driver.recv_start(link);
            }
            Completion::Connected { link, .. } => {
                assert!(self.clients.insert(link, Vec::new()).is_none());
                self.driver.recv_start(link);
                self.driver.send(link, batch_of(&self.payload));
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
            Completion::Filled { .. } => unreachable!("nobody gives a room"),
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
    let (listener, address) = listener();
    driver.listen(listener);
    for tag in 0..connections {
        driver.connect(address, None, tag as u64);
    }
    let mut world = EchoWorld::new(driver, pattern(payload_len));
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

fn small_messages_come_back<D: Driver>(driver: D) {
    echo_everything(driver, 300, 26);
}

fn large_messages_come_back<D: Driver>(driver: D) {
    echo_everything(driver, 4, 3_000_000);
}

#[test]
fn uring_with_few_buffers_starves_nobody() {
    let config = UringConfig { buffer_count: 4, buffer_bytes: 512, ..UringConfig::default() };
    echo_everything(uring_with(config), 60, 20_000);
}

#[test]
fn uring_spreads_over_banks_when_tables_are_short() {
    let config = UringConfig { table_slots: 64, links_max: 1_000, ..UringConfig::default() };
    echo_everything(uring_with(config), 400, 5_000);
}

#[test]
fn uring_with_one_buffer_in_each_further_bank_starves_nobody() {
    let config = UringConfig { table_slots: 32, links_max: 320, buffer_count: 8, ..UringConfig::default() };
    echo_everything(uring_with(config), 120, 20_000);
}
