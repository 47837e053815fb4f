//! Time in which the process did not run is held against nobody, and cannot be made longer by anybody.

use crate::support::{Client, DEADLINE, Ended, Received, Report, TICK, TestServer, eventually};
use ringwave::{CloseCause, Stats};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

const PEERS: usize = 50;
/// Both the interval of pings and the time for an answer.
const PONG: Duration = Duration::from_millis(300);

fn strict(config: &mut ringwave::Config) {
    config.settings.ping_interval = Some(PONG);
    config.settings.pong_timeout = PONG;
    config.settings.idle_timeout = None;
    // Fewer than there are peers: their pongs are not all read in one turn.
    config.receive_buffers = 16;
}

/// Peers that answer pings until the server says goodbye. Anything else that ends one is a failure.
struct Peers {
    threads: Vec<JoinHandle<()>>,
    pings: std::sync::Arc<AtomicU64>,
}

impl Peers {
    fn of(address: SocketAddr) -> Self {
        let pings = std::sync::Arc::<AtomicU64>::default();
        let threads = (0..PEERS).map(|_| {
            let (mut client, pings) = (Client::open(address, "/peer"), pings.clone());
            std::thread::spawn(move || {
                loop {
                    match client.next() {
                        Received::Ping(payload) => {
                            client.put_pong(&payload).flush();
                            pings.fetch_add(1, Ordering::Relaxed);
                        }
                        other => {
                            assert_eq!(other, Received::close(1001, "the server shuts down"));
                            break;
                        }
                    }
                }
                client.put_close(None).flush();
                assert_eq!(client.next(), Received::End(Ended::Orderly));
            })
        });
        Self { threads: threads.collect(), pings }
    }

    /// Each is pinged about so often from now on.
    fn wait_for_rounds(&self, rounds: usize) {
        let goal = self.pings.load(Ordering::Relaxed) + (rounds * PEERS) as u64;
        eventually("pings go on", || self.pings.load(Ordering::Relaxed) >= goal);
    }

    #[track_caller]
    fn assert_kept(self) {
        let ended: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        let lost = ended.iter().filter(|ended| ended.is_err()).count();
        assert_eq!(lost, 0, "of {PEERS}");
    }
}

/// The server of the test below, in a process of its own: this test, when it is told to be that.
const ROLE: &str = "RINGWAVE_TEST_SUSPENDED";

#[test]
fn a_suspended_process_loses_nobody() {
    if std::env::var_os(ROLE).is_some() {
        return serve();
    }
    let (mut child, lines) = start_child();
    let mut lines = lines.lines().map(|line| line.expect("it goes on"));
    let mut said = |name: &str| {
        // Whatever else stands there is the test harness's.
        let found = lines.find_map(|line| Some(line.split_once(name)?.1.trim().to_owned()));
        found.unwrap_or_else(|| panic!("the child does not say {name:?}"))
    };
    let address = said("address:").parse().expect("an address");
    let peers = Peers::of(address);
    peers.wait_for_rounds(2);
    for _ in 0..2 {
        signal(&child, "STOP");
        sleep(Duration::from_secs(2));
        signal(&child, "CONT");
        peers.wait_for_rounds(3);
    }
    drop(child.stdin.take());
    peers.assert_kept();
    assert_eq!(said("ended otherwise:"), "0");
    let stalls: u64 = said("stalls:").parse().expect("a number");
    assert!(stalls >= 2, "{stalls} stalls");
    assert!(child.wait().expect("it is ours").success());
}

fn start_child() -> (Child, BufReader<std::process::ChildStdout>) {
    let this = std::env::current_exe().expect("this test has a file");
    let mut child = Command::new(this)
        .args(["suspended::a_suspended_process_loses_nobody", "--exact", "--nocapture"])
        .env(ROLE, "server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let stdout = child.stdout.take().expect("it is piped");
    (child, BufReader::new(stdout))
}

/// Serves until its standard input ends.
fn serve() {
    let (server, _reports) = TestServer::rig(strict);
    println!("\naddress: {}", server.address());
    std::io::stdout().flush().expect("the parent reads it");
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let handle = server.handle();
    server.end(DEADLINE).expect("it ends in order");
    let Stats { opened, ended_closed, stalls, .. } = handle.stats();
    println!("\nended otherwise: {}\nstalls: {stalls}", opened - ended_closed);
}

fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
}

#[test]
fn a_handler_that_blocks_its_shard_loses_nobody() {
    let (server, _reports) = TestServer::rig(strict);
    let peers = Peers::of(server.address());
    peers.wait_for_rounds(2);
    let mut blocker = server.client("/blocker");
    for round in 1..=3 {
        blocker.put("sleep 1000").put("awake").flush();
        loop {
            match blocker.next() {
                Received::Ping(payload) => blocker.put_pong(&payload).flush(),
                other => {
                    assert_eq!(other, Received::Text("awake".to_owned()));
                    break;
                }
            }
        }
        eventually("it is noticed", || server.stats().stalls >= round);
    }
    drop(blocker);
    peers.wait_for_rounds(2);
    let stats = server.stats();
    assert_eq!((stats.ended_pong_timeout, stats.sessions), (0, PEERS as u64));
    drop(server);
    peers.assert_kept();
}

/// Whoever makes a shard slow does not gain time by it.
#[test]
fn deadlines_come_though_every_turn_is_long() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    // Turns that are not taken for a stall, and turns that are, one after the other: of two such one counts.
    for turn in [200, 300] {
        let (server, reports) = TestServer::rig(|config| {
            config.settings.handshake_timeout = TIMEOUT;
            // Somebody is looked at in every tick: there is always a timer that is due soon.
            config.settings.stall_timeout = Duration::from_millis(8);
        });
        let _many: Vec<_> = (0..10).map(|_| server.client("/x")).collect();
        let mut slow = server.client("/slow");
        let start = Instant::now();
        let mut dripping = server.raw();
        dripping.write("GET / HTTP/1.1\r\n");
        let answered = std::thread::spawn(move || (dripping.answer().status, start.elapsed()));
        while !answered.is_finished() {
            slow.put(&format!("sleep {turn}")).put("slept").flush();
            assert_eq!(slow.text(), "slept");
            // A short turn between two long ones makes no difference.
            slow.echo("x");
            assert!(start.elapsed() < DEADLINE, "after turns of {turn} ms");
        }
        let (status, after) = answered.join().expect("it is answered");
        assert_eq!(status, 408);
        let turn = Duration::from_millis(turn);
        assert!(after + TICK >= TIMEOUT && after < 5 * TIMEOUT, "{after:?} with turns of {turn:?}");
        assert_eq!(reports.so_far().iter().filter(|r| matches!(r, Report::Close(..))).count(), 0);
    }
}

/// It loses the time of the stall, and no more.
#[test]
fn a_peer_that_was_gone_before_the_stall_is_found_after_it() {
    let (server, reports) = TestServer::rig(strict);
    let _silent = server.client("/silent");
    let mut blocker = server.client("/blocker");
    let start = Instant::now();
    blocker.put("sleep 1000").flush();
    let ended = reports.find("the silent one's end", |report| match report {
        Report::Close(name, ended) if name == "silent" => Some(ended),
        _ => None,
    });
    assert_eq!(ended.cause, CloseCause::PongTimeout);
    let passed = start.elapsed();
    assert!(passed >= Duration::from_secs(1) && passed < Duration::from_secs(1) + 4 * PONG, "{passed:?}");
}
