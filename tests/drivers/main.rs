//! The driver's contract, over every driver: what is sent arrives whole and in order, every buffer and every link
//! comes back, nothing is lost when tables and pools are small, and nobody turns for nothing.
//!
//! A contract is a function over the trait; `every_driver!` makes a test of it for each driver.

use ringwave::driver::{Batch, Completion, Driver, Epoll, EpollConfig, Link, Listener, Uring, UringConfig, listen_on};
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::panic;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Makes a test of each contract for each driver, with room for many links or for so few.
macro_rules! every_driver {
    (links_max: $links_max:literal, $($contract:ident),+ $(,)?) => {
        mod uring {
            $(#[test] fn $contract() { crate::within_patience(|| super::$contract(crate::uring($links_max))); })+
        }
        mod epoll {
            $(#[test] fn $contract() { crate::within_patience(|| super::$contract(crate::epoll($links_max))); })+
        }
    };
    ($($contract:ident),+ $(,)?) => { every_driver! { links_max: 10_000, $($contract),+ } };
}

mod accepting;
mod addresses;
mod connecting;
mod echo;
mod ending;
mod receiving;
mod rooms;
mod sending;
mod waiting;

/// When a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// One wait of a test that waits for something to happen.
const WAIT: Duration = Duration::from_millis(50);

/// Runs a test on a thread of its own: whatever waits for ever fails, even if it is the driver.
fn within_patience(test: impl FnOnce() + Send + 'static) {
    let (ended, end) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Dropped by a panic too.
        let _ended: Sender<()> = ended;
        test();
    });
    let verdict = end.recv_timeout(3 * PATIENCE);
    assert_eq!(verdict, Err(RecvTimeoutError::Disconnected), "the test does not end");
    if let Err(panic) = thread.join() {
        panic::resume_unwind(panic);
    }
}

fn uring(links_max: usize) -> Uring {
    uring_with(UringConfig { links_max, ..UringConfig::default() })
}

fn uring_with(config: UringConfig) -> Uring {
    Uring::new(config).expect("io_uring is allowed here")
}

fn epoll(links_max: usize) -> Epoll {
    Epoll::new(EpollConfig { links_max, buffer_bytes: 4096, ..EpollConfig::default() }).expect("a descriptor is free")
}

/// Rings for one link each, so that a second one takes another ring.
fn short_tables() -> UringConfig {
    UringConfig { links_max: 100, table_slots: 1, ..UringConfig::default() }
}

/// Says to this very program, started again, that it is the one with few descriptors.
const FEW_DESCRIPTORS: &str = "DRIVERS_TEST_FEW_DESCRIPTORS";
/// How the standard library writes it.
const EMFILE: &str = "(os error 24)";

/// Runs `run` in a process of its own, which has few descriptors: the limit is the whole process's. `test` is the path of
/// the test that calls this.
fn with_few_descriptors(test: &str, run: impl FnOnce()) {
    if std::env::var_os(FEW_DESCRIPTORS).is_some() {
        return run();
    }
    let this = std::env::current_exe().expect("this program");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(this)
        .args([test, "--exact", "--nocapture"])
        .env(FEW_DESCRIPTORS, "")
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Takes all descriptors that are left.
fn all_descriptors() -> Vec<File> {
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(100).collect();
    assert!(files.len() < 100, "there are as many descriptors as before");
    files
}

/// One turn: hands everything that ended to `on_completion`, and answers how much that was.
fn turn<D: Driver>(driver: &mut D, timeout: Duration, mut on_completion: impl FnMut(&mut D, Completion)) -> usize {
    driver.wait(Some(timeout)).expect("the driver waits");
    let mut count = 0;
    while let Some(completion) = driver.next_completion() {
        count += 1;
        assert!(count < 100_000, "a turn does not end");
        on_completion(driver, completion);
    }
    count
}

/// Turns until `on_completion` has answered `true`.
fn turn_until<D: Driver>(driver: &mut D, mut on_completion: impl FnMut(&mut D, Completion) -> bool) {
    let begin = Instant::now();
    let mut is_done = false;
    while !is_done {
        assert!(begin.elapsed() < PATIENCE, "what was waited for does not come");
        turn(driver, WAIT, |driver, completion| is_done |= on_completion(driver, completion));
    }
}

/// Turns for `turns` waits, in which nothing ends, and fails if more than a few of the waits were none.
fn assert_sleeps<D: Driver>(driver: &mut D, turns: u32) {
    let mut waits_in_vain = 0;
    for _ in 0..turns {
        let begin = Instant::now();
        turn(driver, WAIT, |_, completion| panic!("{completion:?} comes out of nothing"));
        waits_in_vain += u32::from(begin.elapsed() < WAIT);
    }
    // A driver may notice once that something does not matter to it.
    assert!(waits_in_vain <= 2, "{waits_in_vain} of {turns} waits returned with nothing");
}

fn listener() -> (Listener, SocketAddr) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let listener = listen_on(any, 1, None).expect("a port is free").remove(0);
    let address = listener.local_addr();
    (listener, address)
}

/// A peer on a plain socket that blocks, but not for ever.
fn peer_of(address: SocketAddr) -> TcpStream {
    let peer = TcpStream::connect(address).expect("somebody listens");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    peer.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    peer
}

/// A link that `driver` accepted, and its peer.
fn accepted_link<D: Driver>(driver: &mut D) -> (Link, TcpStream) {
    let (listener, address) = listener();
    driver.listen(listener);
    let peer = peer_of(address);
    (next_accepted(driver), peer)
}

fn next_accepted<D: Driver>(driver: &mut D) -> Link {
    let mut accepted = None;
    turn_until(driver, |_, completion| match completion {
        Completion::Accepted { link, .. } if accepted.is_none() => accepted.replace(link).is_none(),
        other => panic!("{other:?}"),
    });
    accepted.expect("it was waited for")
}

/// Closes a socket of ours so that the other end sees a reset.
fn reset(peer: TcpStream) {
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket that lingers");
}

/// Bytes that tell one place from another.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + index / 251) as u8).collect()
}

fn batch_of(bytes: &[u8]) -> Box<Batch> {
    let mut batch = Box::new(Batch::default());
    batch.append(|out| out.extend_from_slice(bytes));
    batch
}
