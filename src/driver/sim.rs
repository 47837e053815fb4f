//! A simulated kernel: the completions of io_uring from a seed and a virtual clock.
//!
//! Several drivers, each on a [`Host`] of its own, share one [`Network`] and run in one thread, together with the peers that
//! connect to them. Nothing here waits: a driver that finds nothing in its wait comes back at once, and whoever runs the
//! simulation looks at [`Network::host_is_due`] before it is turned again.
//!
//! ```text
//!   peers                 Network (clock, seed, faults)             hosts
//!  connect  ──▶ backlog ─────────────────▶ accept ─┐
//!  write    ──▶ pipe in  ── delay ──▶ receive op ──┼─▶ completions ──▶ Uring ──▶ Shard
//!  read     ◀── pipe out ◀── delay ── send op ◀────┘◀── submissions ◀──
//! ```
//!
//! What the kernel promises holds: one socket's bytes keep their order, a multishot operation reports its end, what was
//! submitted completes once, linked and skipped completions follow io_uring(7). Everything else is up to the seed: how much
//! a receive or a send moves, when it is found to be possible, in which order different operations end, whether a cancel
//! finds its target between two tries, when descriptors or buffers are used up, what arrives long after its time.
//!
//! It stands under the real driver, not in its place: the driver that is simulated is the one that runs.

mod conn;
mod operations;
mod ring;
mod world;

pub use conn::{Conn, ReadOutcome};
pub use world::{Faults, Leftovers};

use super::socket::Listener;
use super::uring::{Uring, UringConfig};
use crate::base::clock::Time;
use ring::SimKernel;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use world::World;

/// The driver on a simulated kernel.
pub type SimDriver = Uring<SimKernel>;

/// A machine of the simulated network: the kernel under one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(usize);

/// The sizes of a simulated kernel, small so that everything runs full.
#[derive(Clone, Copy, Debug)]
pub struct HostSizes {
    /// Entries of a submission queue.
    pub submissions: usize,
    /// Slots of a ring's descriptor table.
    pub table_slots: u32,
    /// Whether the kernel tells peers' addresses (as from Linux 6.7).
    pub knows_peers: bool,
}

/// A network, its hosts and its clock. Cloning shares it.
#[derive(Clone)]
pub struct Network {
    world: Rc<RefCell<World>>,
}

impl Network {
    /// An empty network, at time 0. The same seed and the same calls make the same history.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { world: Rc::new(RefCell::new(World::new(seed, faults))) }
    }

    // Hosts

    /// One more host.
    pub fn host(&self, sizes: HostSizes) -> Host {
        Host(self.world.borrow_mut().add_host(sizes))
    }

    /// A driver on this host, one at most.
    ///
    /// # Errors
    /// Never: the simulated kernel has room for the first ring.
    pub fn driver(&self, host: Host, config: UringConfig) -> io::Result<SimDriver> {
        Uring::on(SimKernel::new(self.world.clone(), host.0), config)
    }

    /// What the host's driver accepts from. While nobody holds it, connections are refused.
    pub fn listener(&self, host: Host, address: SocketAddr) -> Listener {
        Listener::simulated(address, self.world.borrow_mut().listen(host.0))
    }

    /// Whether the host's driver has something to do: it has not finished its turn, a completion has come, a bell has rung,
    /// or its time is up.
    pub fn host_is_due(&self, host: Host) -> bool {
        self.world.borrow_mut().host_is_due(host.0)
    }

    /// What is in flight and taken on a host.
    pub fn leftovers(&self, host: Host) -> Leftovers {
        self.world.borrow_mut().leftovers(host.0)
    }

    // Peers

    /// Connects to a host. `None` if nobody listens there. `window`: bytes that each side may be ahead of the other.
    pub fn connect(&self, host: Host, from: SocketAddr, window: usize) -> Option<Conn> {
        self.world.borrow_mut().connect(host.0, from, window).map(|id| Conn { world: self.world.clone(), id })
    }

    /// The number of a connection on which something has happened for its peer since this was asked last.
    pub fn next_touched(&self) -> Option<usize> {
        self.world.borrow_mut().next_touched()
    }

    // Time

    /// The time.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.world.borrow().now())
    }

    /// Lets time pass.
    pub fn pass(&self, duration: Duration) {
        self.world.borrow_mut().pass(duration);
    }

    /// Whether the network broke a connection.
    pub fn has_broken(&self, conn: usize) -> bool {
        self.world.borrow().has_broken(conn)
    }

    /// When something happens next by itself: to a host, or to a connection's peer.
    pub fn next_event(&self) -> Option<Time> {
        self.world.borrow().next_event().map(Time::from_nanos)
    }

    /// From now on nothing goes wrong, and everything happens soon.
    pub fn heal(&self) {
        self.world.borrow_mut().heal();
    }

    // Evidence

    /// A hash of everything that has happened.
    pub fn trace_hash(&self) -> u64 {
        self.world.borrow().trace_hash()
    }

    /// Prints from now on what happens.
    pub fn tell_trace(&self) {
        self.world.borrow_mut().tell_trace();
    }

    /// Adds to the trace.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.world.borrow_mut().note(what);
    }

    /// What a driver has done that no driver may do.
    pub fn violations(&self) -> Vec<String> {
        self.world.borrow().violations().to_vec()
    }
}
