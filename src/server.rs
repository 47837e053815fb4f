//! A server: one thread, one listener, one shard for each core, started and ended together.

use crate::base::limits::REFUSALS_MAX;
use crate::config::{Config, DriverChoice};
use crate::driver::{
    Driver, Epoll, EpollConfig, Listener, Uring, UringConfig, Waker, cores, listen_on, pin_to, probe_uring,
};
use crate::shard::{Handle, Handler, Mailboxes, Shard};
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the other shards may take to say goodbye after one has failed.
const AFTER_FAILURE_DEADLINE: Duration = Duration::from_secs(10);

/// A running server. Dropping it leaves the threads running; [`Server::join`] waits for their end.
#[derive(Debug)]
pub struct Server {
    handle: Handle,
    local_addr: SocketAddr,
    interface: Interface,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// What the shards run on.
#[derive(Clone, Debug)]
enum Interface {
    Uring,
    /// With what is wrong with io_uring, if that was asked.
    Epoll(Option<String>),
}

impl Interface {
    fn choose(config: &Config) -> io::Result<Self> {
        // A limit that is not kept is none: where peers are counted by address, the driver has to tell it.
        let probe = || probe_uring(config.settings.sessions_per_address_max.is_some());
        match config.driver {
            DriverChoice::Epoll => Ok(Self::Epoll(None)),
            DriverChoice::Auto => {
                Ok(probe().map_or_else(|error| Self::Epoll(Some(error.to_string())), |()| Self::Uring))
            }
            DriverChoice::Uring => probe().map(|()| Self::Uring).map_err(|error| {
                let text = format!(
                    "io_uring is not to be had here ({error}); it takes Linux 6.1 and no sandbox that refuses it"
                );
                io::Error::new(error.kind(), text)
            }),
        }
    }
}

/// What a shard's thread is started with.
struct Seat {
    number: u16,
    core: Option<usize>,
    interface: Interface,
    listener: Listener,
    config: Arc<Config>,
}

impl Server {
    /// Starts the shards; `make_handler` is called on each shard's thread with the shard's number.
    ///
    /// # Errors
    /// An option out of range, an address that cannot be bound, io_uring refused, a thread that cannot be started.
    pub fn start<H, F>(config: Config, make_handler: F) -> io::Result<Self>
    where
        H: Handler + 'static,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        config.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let interface = Interface::choose(&config)?;
        let cores = cores();
        let count = if config.shards == 0 { cores.len().max(1) } else { config.shards };
        let listeners = listen_on(config.listen, count, config.settings.user_timeout)?;
        let local_addr = listeners[0].local_addr();
        let pin = config.pin && count <= cores.len();
        let config = Arc::new(config);
        let make_handler = Arc::new(make_handler);

        let mut threads = Vec::new();
        let mut starts = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let seat = Seat {
                number: number as u16,
                core: cores.get(number).copied().filter(|_| pin),
                interface: interface.clone(),
                listener,
                config: config.clone(),
            };
            let make_handler = make_handler.clone();
            let (ready, is_ready) = channel();
            let (mail, has_mail) = channel();
            threads.push(
                std::thread::Builder::new()
                    .name(format!("shard-{number}"))
                    .spawn(move || run_shard(seat, &*make_handler, &ready, &has_mail))?,
            );
            starts.push((is_ready, mail));
        }
        // Every shard says how to wake it, or why it cannot start; then all are told of each other.
        let mut wakers = Vec::new();
        for (is_ready, _) in &starts {
            wakers.push(is_ready.recv().map_err(|_| io::Error::other("a shard's thread ended before it began"))??);
        }
        let mailboxes = Mailboxes::new(wakers);
        for (_, mail) in starts {
            mail.send(mailboxes.clone()).map_err(|_| io::Error::other("a shard's thread ended before it began"))?;
        }
        Ok(Self { handle: Handle::new(mailboxes), local_addr, interface, threads })
    }

    /// The address it listens on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The kernel interface it runs on: `io_uring` or `epoll`.
    pub const fn driver(&self) -> &'static str {
        match self.interface {
            Interface::Uring => "io_uring",
            Interface::Epoll(_) => "epoll",
        }
    }

    /// What is wrong with io_uring, if it runs on epoll for that.
    pub fn uring_refusal(&self) -> Option<&str> {
        match &self.interface {
            Interface::Epoll(Some(refusal)) => Some(refusal),
            Interface::Uring | Interface::Epoll(None) => None,
        }
    }

    /// Number of shards.
    pub const fn shards(&self) -> usize {
        self.threads.len()
    }

    /// What other threads talk to it with.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until every shard has ended: after [`Handle::shutdown`], or when one fails.
    ///
    /// # Errors
    /// What ended the first shard that failed; the others are shut down.
    ///
    /// # Panics
    /// If a shard panicked: a mistake of the engine's, or a panic of the handler's.
    pub fn join(self) -> io::Result<()> {
        let mut verdict = Ok(());
        for thread in self.threads {
            match thread.join() {
                Ok(ended) => verdict = verdict.and(ended),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        verdict
    }
}

type Ready = Sender<io::Result<Waker>>;

fn run_shard<H: Handler>(
    seat: Seat,
    make_handler: &dyn Fn(usize) -> H,
    ready: &Ready,
    mail: &Receiver<Mailboxes>,
) -> io::Result<()> {
    if let Some(core) = seat.core {
        // A system that refuses costs speed only.
        pin_to(core);
    }
    match seat.interface {
        Interface::Uring => serve(seat, |config| Uring::new(uring_config(config)), make_handler, ready, mail),
        Interface::Epoll(_) => serve(seat, |config| Epoll::new(epoll_config(config)), make_handler, ready, mail),
    }
}

fn serve<D: Driver, H: Handler>(
    seat: Seat,
    make_driver: impl FnOnce(&Config) -> io::Result<D>,
    make_handler: &dyn Fn(usize) -> H,
    ready: &Ready,
    mail: &Receiver<Mailboxes>,
) -> io::Result<()> {
    let driver = match make_driver(&seat.config) {
        Ok(driver) => driver,
        Err(error) => {
            // If nobody listens any more, another shard has failed already.
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let _ = ready.send(Ok(driver.waker()));
    let Ok(mailboxes) = mail.recv() else { return Ok(()) };
    let mut settings = seat.config.settings.clone();
    settings.sessions_max.get_or_insert(seat.config.connections_max);
    let others = Handle::new(mailboxes.clone());
    // Nothing of the shard is used after a panic: it is unwound whole.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let handler = make_handler(usize::from(seat.number));
        Shard::new(seat.number, settings, driver, Some(seat.listener), handler, mailboxes.clone()).run()
    }));
    mailboxes.end(seat.number);
    if !matches!(ended, Ok(Ok(()))) {
        // A server that lost a shard serves a part of its users only: the others say goodbye in order.
        others.shutdown(AFTER_FAILURE_DEADLINE);
    }
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Connections beyond `connections_max`: whoever finds a server full is told so (503), and not left waiting.
const fn refusals(connections_max: usize) -> usize {
    let eighth = connections_max / 8 + 8;
    if eighth < REFUSALS_MAX { eighth } else { REFUSALS_MAX }
}

fn uring_config(config: &Config) -> UringConfig {
    UringConfig {
        links_max: config.connections_max + refusals(config.connections_max),
        buffer_count: config.receive_buffers,
        buffer_bytes: config.receive_buffer_bytes,
        bulk_buffer_count: config.bulk_buffers,
        bulk_buffer_bytes: config.bulk_buffer_bytes,
        table_slots: 0,
        peer_addresses: config.settings.peer_addresses || config.settings.sessions_per_address_max.is_some(),
    }
}

/// What one turn may bring is bounded by the same options as on io_uring.
fn epoll_config(config: &Config) -> EpollConfig {
    let standard = EpollConfig::default();
    let pool_bytes = u32::from(config.receive_buffers).saturating_mul(config.receive_buffer_bytes);
    EpollConfig {
        links_max: config.connections_max + refusals(config.connections_max),
        buffer_bytes: standard.buffer_bytes.min(pool_bytes),
        turn_bytes: standard.turn_bytes.min(pool_bytes),
    }
}
