//! What the tests over sockets share: a server on a port of its own, a WebSocket client, a client of bare bytes, and
//! an application that does as it is told.
//!
//! Nothing here sleeps where it could wait for what it wants; every wait ends at [`DEADLINE`] with a panic that says
//! what did not come.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of it")]

mod client;
mod desk;
mod numbered;
mod puppet;
mod raw;
mod rig;

pub(crate) use client::{Client, Received};
pub(crate) use desk::{Desk, Event, Events};
pub(crate) use numbered::numbered;
pub(crate) use puppet::{Doll, Note, Puppet, Theatre};
pub(crate) use raw::{Frame, Raw, connected_narrowly, upgrade_with};
pub(crate) use rig::{Options, Report, Reports, Rig};

use ringwave::driver::descriptor_limit;
use ringwave::{Config, DriverChoice, Handle, Handler, Server, SessionOptions, Stats};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails. Nothing that works comes near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// How early a deadline of the server's may seem to come: it counts in ticks of 8 ms from the turn's start.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// In order, after all that was sent.
    Orderly,
    /// By a reset, which may have destroyed what was on its way.
    Reset,
}

/// A server on a port of its own, shut down and joined at its end.
pub(crate) struct TestServer {
    server: Option<Server>,
    handle: Handle,
    address: SocketAddr,
}

/// What most tests start from: one shard on the loopback, any core, a port that the system chooses.
pub(crate) fn local_config() -> Config {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // The same tests for each of them: RINGWAVE_DRIVER=epoll.
    let driver = std::env::var("RINGWAVE_DRIVER").map_or(DriverChoice::Auto, |name| name.parse().expect("a driver"));
    Config { listen, driver, shards: 1, pin: false, ..Config::default() }
}

impl TestServer {
    /// Starts a server with an application of the test's own.
    pub(crate) fn start<H, F>(change: impl FnOnce(&mut Config), make_handler: F) -> Self
    where
        H: Handler + 'static,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        let mut config = local_config();
        change(&mut config);
        let server = Server::start(config, make_handler).expect("the server starts");
        Self { handle: server.handle(), address: server.local_addr(), server: Some(server) }
    }

    /// Starts a server whose application is a [`Desk`], and answers what it reports.
    pub(crate) fn desk(change: impl FnOnce(&mut Config)) -> (Self, Events) {
        let (reports, events) = Events::channel();
        let server = Self::start(change, move |shard| Desk::new(shard, reports.clone()));
        (server, events)
    }

    /// Starts a server whose application is a [`Rig`], and answers what it reports.
    pub(crate) fn rig(change: impl FnOnce(&mut Config)) -> (Self, Reports) {
        Self::rig_with(change, |_| None)
    }

    /// The same with options for each session, by its name.
    pub(crate) fn rig_with(
        change: impl FnOnce(&mut Config),
        options: impl Fn(&str) -> Option<SessionOptions> + Send + Sync + 'static,
    ) -> (Self, Reports) {
        let (maker, reports) = Rig::maker(Arc::new(options));
        (Self::start(change, maker), reports)
    }

    /// What all shards have counted.
    pub(crate) fn stats(&self) -> Stats {
        self.handle.stats()
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Opens a WebSocket.
    pub(crate) fn client(&self, target: &str) -> Client {
        Client::open(self.address, target)
    }

    /// Opens a connection that says nothing yet.
    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// Shuts down and waits for the end: what [`Server::join`] answers.
    pub(crate) fn end(mut self, patience: Duration) -> io::Result<()> {
        self.handle.shutdown(patience);
        join(self.server.take().expect("it ends once"))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        if std::thread::panicking() {
            // The test has failed already; a second panic would hide why.
            return self.handle.shutdown(Duration::ZERO);
        }
        self.handle.shutdown(Duration::from_secs(2));
        join(server).expect("the server ends without an error");
    }
}

/// [`Server::join`] with a deadline.
fn join(server: Server) -> io::Result<()> {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || done.send(server.join()));
    is_done.recv_timeout(DEADLINE).expect("the server ends in time and without a panic")
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        // Between two looks others get the core, which may be the only one.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As many sockets as wanted, or as this process may have.
pub(crate) fn sockets_at_once(wanted: usize) -> usize {
    wanted.min(descriptor_limit() as usize / 2)
}
