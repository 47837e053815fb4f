//! One history: shards, peers and faults drawn from a seed, run to the end, and judged.

use super::app::{App, Books, Ledger, Record};
use super::peers::{self, Deed, Echo, Leave, Peer, Phase, Publisher, Role, Seen, Stage, Subscriber};
use fastrand::Rng;
use ringwave::base::fault::{Fault, plant};
use ringwave::driver::sim::{Faults, Host, HostSizes, Leftovers, Network, SimDriver};
use ringwave::driver::{Driver, UringConfig};
use ringwave::{CloseCause, CloseCode, Drain, Handle, Mailboxes, Policy, SessionOptions, Shard, ShardSettings, Stats};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// No history needs more.
const STEPS_MAX: u64 = 400_000;
/// Virtual time after the heal within which everything must come to its end.
const PATIENCE: u64 = 600 * SECOND;
/// How long a message may take to a peer that reads, on a line that is wide enough and not late.
const ON_ITS_WAY_MAX: Duration = Duration::from_millis(500);
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// What was seen of a history that holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) trace: u64,
    pub(crate) steps: u64,
    pub(crate) sessions: u64,
    pub(crate) messages: u64,
}

/// The draw of a seed.
struct Plan {
    shards: usize,
    sizes: HostSizes,
    config: UringConfig,
    settings: ShardSettings,
    mailbox_posts: usize,
    faults: Faults,
    /// All memory that anybody wants is there.
    has_memory: bool,
    stalls: bool,
    heals_at: u64,
    /// The server is told to end in the middle of it all.
    drains_at: Option<u64>,
}

impl Plan {
    fn draw(random: &mut Rng) -> Self {
        let pick = |random: &mut Rng, of: &[usize]| of[random.usize(0..of.len())];
        let intensity = |random: &mut Rng| [0, 0, 10, 50, 200][random.usize(0..5)];
        let has_memory = random.u8(0..5) != 0;
        let links_max = pick(random, &[4, 8, 16, 64, 64]);
        let table_slots = pick(random, &[2, 3, 8, 64, 64, 8192]) as u32;
        let queue_bytes_max = pick(random, &[3_000, 8_000, 40_000, 200_000]);
        let settings = ShardSettings {
            session: SessionOptions { queue_bytes_max, ..SessionOptions::default() },
            handshake_timeout: Duration::from_secs(4),
            idle_timeout: None,
            ping_interval: [None, Some(Duration::from_secs(1)), Some(Duration::from_secs(8))][random.usize(0..3)],
            pong_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(5),
            // A slow reader on a narrow and late line is not to be taken for one that stalls.
            stall_timeout: Duration::from_secs(60),
            memory_bytes_max: if has_memory { 1 << 30 } else { random.usize(4_000..200_000) },
            ..ShardSettings::default()
        };
        let faults = Faults {
            short_read: [0, 100, 500, 900][random.usize(0..4)],
            short_write: [0, 100, 500, 900][random.usize(0..4)],
            multishot_ends: intensity(random),
            again: intensity(random),
            refused_submit: intensity(random),
            missed_cancel: [0, 100, 700][random.usize(0..3)],
            refused_accept: intensity(random),
            refused_ring: intensity(random) * 4,
            stale: [0, 300, 900][random.usize(0..3)],
            reset: [0, 0, 1, 5][random.usize(0..4)],
            late: intensity(random),
            late_max: Duration::from_millis(random.u64(1..400)),
            delay_max: Duration::from_micros(random.u64(1..5_000)),
        };
        Self {
            shards: random.usize(1..=3),
            sizes: HostSizes { submissions: pick(random, &[4, 16, 4096]), table_slots, knows_peers: random.bool() },
            config: UringConfig {
                links_max,
                buffer_count: 1 << random.u32(0..5),
                buffer_bytes: pick(random, &[16, 100, 512, 4096, 4096]) as u32,
                bulk_buffer_count: 1 << random.u32(0..4),
                bulk_buffer_bytes: pick(random, &[16, 128, 1024, 16_384]) as u32,
                table_slots: 0,
                peer_addresses: random.bool(),
            },
            settings,
            mailbox_posts: pick(random, &[1, 4, 64, 1024]),
            faults,
            has_memory,
            stalls: random.u8(0..3) == 0,
            heals_at: random.u64(SECOND..15 * SECOND),
            drains_at: (random.u8(0..4) == 0).then(|| random.u64(0..8 * SECOND)),
        }
    }

    /// There are receive buffers for more than a few bytes: of one that has 100 all wait for all.
    fn receives_swiftly(&self) -> bool {
        u32::from(self.config.buffer_count) * self.config.buffer_bytes >= 1_000
    }

    fn options(&self, random: &mut Rng) -> SessionOptions {
        let queue_bytes_max = self.settings.session.queue_bytes_max;
        let high_water_bytes = random.usize(1..=queue_bytes_max);
        let policies = [Policy::Close, Policy::DropNew, Policy::DropOld, Policy::Conflate, Policy::PauseProducer];
        SessionOptions {
            policy: policies[random.usize(0..5)],
            queue_bytes_max,
            high_water_bytes,
            low_water_bytes: random.usize(0..=high_water_bytes),
            ..SessionOptions::default()
        }
    }
}

/// One shard where it runs.
struct Seat {
    host: Host,
    /// Until it has ended.
    shard: Option<Shard<SimDriver, App>>,
    is_doubly_awake: bool,
    /// It has found nothing to do, and falls asleep soon.
    is_sleepy: bool,
    left: Leftovers,
}

struct History {
    random: Rng,
    plan: Plan,
    network: Network,
    seats: Vec<Seat>,
    mailboxes: Mailboxes,
    handle: Handle,
    books: Books,
    peers: Vec<Peer>,
    /// Peers by the number of their connection.
    by_conn: BTreeMap<usize, usize>,
    window: usize,
    phase: Phase,
    healed_at: Option<u64>,
    /// When all that was said has arrived.
    quiet_at: Option<u64>,
    /// When all who are gone have been noticed to be.
    gone_at: Option<u64>,
    draining_at: Option<u64>,
    stalled_at: u64,
    steps: u64,
    wrong: Vec<String>,
}

/// Runs the history of a seed. What is wrong with it, if it does not hold.
pub(crate) fn run(seed: u64, fault: Option<Fault>, tells: bool) -> Result<Summary, Vec<String>> {
    run_with(seed, &[], fault, tells)
}

/// Runs a history in which somebody opens a WebSocket and writes these bytes; the first eight are the seed.
pub(crate) fn run_against(data: &[u8]) -> Result<Summary, Vec<String>> {
    let (seed, bytes) = data.split_at(data.len().min(8));
    let mut bits = [0; 8];
    bits[..seed.len()].copy_from_slice(seed);
    run_with(u64::from_be_bytes(bits), bytes, None, false)
}

fn run_with(seed: u64, hostile: &[u8], fault: Option<Fault>, tells: bool) -> Result<Summary, Vec<String>> {
    plant(fault);
    let judged = std::panic::catch_unwind(|| {
        let mut history = History::begin(seed, tells);
        if !hostile.is_empty() {
            let wait = Deed::Wait(Duration::from_secs(1));
            let deeds = [Deed::Upgrade, Deed::Write(hostile.to_vec()), wait];
            history.add(Role::Hostile(deeds.into()), SECOND);
        }
        history.run();
        history.judge()
    });
    plant(None);
    judged.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(vec![format!("a panic: {}", text.unwrap_or_default())])
    })
}

impl History {
    fn begin(seed: u64, tells: bool) -> Self {
        let mut random = Rng::with_seed(seed);
        let plan = Plan::draw(&mut random);
        let network = Network::new(random.u64(..), plan.faults);
        if tells {
            network.tell_trace();
        }
        let books = Books::new(RefCell::new(Ledger::default()));
        let hosts: Vec<(Host, SimDriver)> = (0..plan.shards)
            .map(|_| {
                let host = network.host(plan.sizes);
                let driver = network.driver(host, plan.config).expect("the first ring is never refused");
                (host, driver)
            })
            .collect();
        let mailboxes = Mailboxes::with_capacity(hosts.iter().map(|(_, driver)| driver.waker()), plan.mailbox_posts);
        let handle = Handle::new(mailboxes.clone());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9001));
        let seats = hosts
            .into_iter()
            .enumerate()
            .map(|(number, (host, driver))| {
                let app = App { books: books.clone(), random: random.fork() };
                let listener = network.listener(host, address);
                let mut shard =
                    Shard::new(number as u16, plan.settings.clone(), driver, Some(listener), app, mailboxes.clone());
                shard.seed(seed);
                Seat { host, shard: Some(shard), is_doubly_awake: false, is_sleepy: false, left: Leftovers::default() }
            })
            .collect();
        let window = [200, 2_000, 20_000, 100_000][random.usize(0..4)];
        let mut history = Self {
            random,
            plan,
            network,
            seats,
            mailboxes,
            handle,
            books,
            peers: Vec::new(),
            by_conn: BTreeMap::new(),
            window,
            phase: Phase::Gathering,
            healed_at: None,
            quiet_at: None,
            gone_at: None,
            draining_at: None,
            stalled_at: 0,
            steps: 0,
            wrong: Vec::new(),
        };
        history.cast();
        history
    }

    /// Draws the peers.
    fn cast(&mut self) {
        let topics: Vec<String> = (0..self.random.usize(1..4)).map(|number| format!("t{number}")).collect();
        let some_topics = |random: &mut Rng| {
            let mut some: Vec<String> = topics.iter().filter(|_| random.bool()).cloned().collect();
            if some.is_empty() {
                some.push(topics[0].clone());
            }
            some
        };
        let (echoes, subscribers, publishers) =
            (self.random.usize(0..5), self.random.usize(0..5), self.random.usize(0..3));
        // Those who wait for each other must all find a place, be it on one shard.
        let places = self.plan.config.links_max - 1;
        let subscribers = subscribers.min(places);
        let publishers = publishers.min(places - subscribers);
        let (hostile, readers) = (self.random.usize(0..5), self.random.usize(0..2));
        for _ in 0..subscribers {
            let topics = some_topics(&mut self.random);
            let role = Subscriber {
                topics,
                confirmed: 0,
                last: BTreeMap::new(),
                received: 0,
                arrivals: Vec::new(),
                pings: 0,
                notices: 0,
            };
            self.add(Role::Subscriber(role), 200 * MILLISECOND);
        }
        for _ in 0..publishers {
            let (topics, name) = (some_topics(&mut self.random), self.peers.len());
            let left = self.random.u64(1..60);
            let role =
                Publisher { name, topics, left, numbers: BTreeMap::new(), is_heard: false, last_ping_sent: false };
            self.add(Role::Publisher(role), 500 * MILLISECOND);
        }
        for _ in 0..echoes {
            // Half a queue, so that nothing is dropped that is not to be.
            let bytes_max = self.plan.settings.session.queue_bytes_max / 4;
            let count = self.random.usize(0..10);
            // What is alone in a queue may have any length, but for a shard that has no memory for it.
            let length_max = if self.random.bool() { bytes_max } else { 70_000 };
            let messages: VecDeque<_> = (0..count).map(|_| peers::message(&mut self.random, length_max)).collect();
            let role = Echo {
                messages,
                awaited: VecDeque::new(),
                awaited_bytes: 0,
                awaited_bytes_max: bytes_max,
                may_lose: !self.plan.has_memory,
                pings: 0,
                pong: 0,
            };
            self.add(Role::Echo(role), 3 * SECOND);
        }
        for _ in 0..readers {
            let requests = self.random.u32(1..6);
            let may_be_refused = !self.plan.has_memory;
            self.add(Role::Reader { requests, answers: 0, may_be_refused }, 3 * SECOND);
        }
        for _ in 0..hostile {
            let deeds = peers::deeds(&mut self.random);
            self.add(Role::Hostile(deeds), 3 * SECOND);
        }
    }

    fn add(&mut self, role: Role, begins_within: u64) {
        let number = self.peers.len();
        let leave = match self.random.u8(0..5) {
            0 => Leave::Finish,
            1 => Leave::Abort,
            _ => Leave::Close([1000, 1001, 3000, 4999][self.random.usize(0..4)]),
        };
        let lazy =
            matches!(role, Role::Subscriber(_) | Role::Echo(_)) && self.window >= 2_000 && self.random.u8(0..3) == 0;
        let laziness = if lazy { self.random.u32(10..400) } else { 0 };
        let options = self.plan.options(&mut self.random);
        self.books.borrow_mut().options.insert(number, options);
        let begins_at = self.random.u64(0..begins_within);
        self.peers.push(Peer::new(number, role, leave, laziness, begins_at, self.random.fork()));
    }

    // Running

    fn now(&self) -> u64 {
        self.network.now().as_nanos()
    }

    fn run(&mut self) {
        while !self.seats.iter().all(|seat| seat.shard.is_none()) {
            self.steps += 1;
            if self.steps > STEPS_MAX || self.is_out_of_time() {
                self.wrong.push(format!(
                    "it does not end: {} steps, at {:?}, quiet {:?} gone {:?}, {:?}",
                    self.steps,
                    self.network.now(),
                    self.quiet_at,
                    self.gone_at,
                    self.unfinished()
                ));
                return;
            }
            while let Some(conn) = self.network.next_touched() {
                let now = self.now();
                let peer = &mut self.peers[self.by_conn[&conn]];
                peer.acts_at = Some(peer.acts_at.map_or(now, |at| at.min(now)));
            }
            let now = self.now();
            let mut ready: Vec<usize> = Vec::new();
            ready.extend((0..self.seats.len()).filter(|seat| self.seat_is_due(*seat)));
            let shards = self.seats.len();
            ready.extend(
                (0..self.peers.len())
                    .filter(|peer| self.peers[*peer].acts_at.is_some_and(|at| at <= now))
                    .map(|peer| shards + peer),
            );
            if ready.is_empty() {
                if !self.pass_to_next_event() {
                    self.wrong.push(format!("nothing happens any more: {:?}", self.unfinished()));
                    return;
                }
                self.direct();
                continue;
            }
            match ready[self.random.usize(0..ready.len())] {
                seat if seat < shards => self.turn(seat),
                peer => self.let_act(peer - shards),
            }
            let passes = self.random.u64(0..20_000);
            self.network.pass(Duration::from_nanos(passes));
            self.stall_at_times();
            self.direct();
        }
    }

    fn seat_is_due(&self, seat: usize) -> bool {
        let seat = &self.seats[seat];
        seat.shard.is_some() && (seat.is_doubly_awake || seat.is_sleepy || self.network.host_is_due(seat.host))
    }

    fn turn(&mut self, number: usize) {
        let Seat { host, shard, is_doubly_awake, is_sleepy, left } = &mut self.seats[number];
        let Some(running) = shard else { return };
        let falls_asleep = std::mem::take(is_sleepy) && !self.network.host_is_due(*host);
        if falls_asleep {
            *is_doubly_awake = !running.doze();
            return;
        }
        *is_doubly_awake = false;
        running.turn(None).expect("the simulated kernel lets wait");
        if running.has_ended() {
            // What is on its way back comes back.
            for _ in 0..10 {
                self.network.pass(Duration::from_millis(1));
                running.turn(Some(Duration::ZERO)).expect("the simulated kernel lets wait");
            }
            *left = self.network.leftovers(*host);
            if let Some(shard) = shard.take() {
                shard.run().expect("it has ended");
                self.mailboxes.end(number as u16);
            }
            return;
        }
        // Others may post before it falls asleep, or after.
        *is_sleepy = !self.network.host_is_due(*host);
    }

    fn let_act(&mut self, number: usize) {
        let now = self.now();
        let peer = &mut self.peers[number];
        if peer.stage == Stage::Before {
            let host = self.seats[self.random.usize(0..self.seats.len())].host;
            let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 1_000 + number as u16));
            let conn = self.network.connect(host, from, self.window);
            if let Some(conn) = &conn {
                self.by_conn.insert(conn.number(), number);
            }
            peer.begin(conn);
        }
        self.network.note(|| format!("peer {number} acts, {:?}", peer.stage));
        peer.act(now, self.phase);
    }

    fn pass_to_next_event(&mut self) -> bool {
        let now = self.now();
        let peers = self.peers.iter().filter_map(|peer| peer.acts_at);
        let directed =
            [self.healed_at.is_none().then_some(self.plan.heals_at), self.quiet_at, self.gone_at, self.drains_at()];
        let hosts = self.network.next_event().map(|time| time.as_nanos());
        let next = peers.chain(hosts).chain(directed.into_iter().flatten()).filter(|at| *at > now).min();
        if let Some(next) = next {
            if next - now > 10 * MILLISECOND && self.handle.post_count() > 0 {
                self.wrong.push(format!("{} posts lie about while everybody sleeps", self.handle.post_count()));
            }
            self.network.pass(Duration::from_nanos(next - now));
        }
        next.is_some()
    }

    fn drains_at(&self) -> Option<u64> {
        self.plan.drains_at.filter(|_| self.draining_at.is_none())
    }

    /// The process does not run for a while.
    fn stall_at_times(&mut self) {
        let now = self.now();
        if self.plan.stalls
            && self.healed_at.is_none()
            && now > self.stalled_at + 2 * SECOND
            && self.random.u16(..) < 800
        {
            let stall = self.random.u64(300 * MILLISECOND..60 * SECOND);
            self.network.note(|| format!("nobody runs for {:?}", Duration::from_nanos(stall)));
            self.network.pass(Duration::from_nanos(stall));
            self.stalled_at = self.now();
        }
    }

    /// What happens to all together.
    fn direct(&mut self) {
        let now = self.now();
        if self.healed_at.is_none() && now >= self.plan.heals_at {
            self.heal();
        }
        if self.healed_at.is_some() && self.plan.settings.ping_interval.is_none() {
            // Nobody would find out, and others may want their places.
            self.peers.iter_mut().filter(|peer| peer.has_vanished()).for_each(Peer::give_up);
        }
        if self.drains_at().is_some_and(|at| now >= at) {
            return self.drain();
        }
        if self.phase == Phase::Gathering && self.subscribers_are_there() {
            self.enter(Phase::Working);
        }
        if self.phase == Phase::Working && self.draining_at.is_none() {
            match self.quiet_at {
                None if self.is_worked_off() => {
                    self.heal();
                    // Posts that a full mailbox refused are on their way without a trace.
                    self.quiet_at = Some(now + 5 * SECOND);
                }
                Some(at) if now >= at => {
                    self.expect_quiet();
                    self.enter(Phase::Leaving);
                }
                _ => {}
            }
        }
        if self.phase == Phase::Leaving && self.draining_at.is_none() {
            match self.gone_at {
                None if self.peers.iter().all(|peer| peer.is_over() || peer.has_vanished()) => {
                    self.peers.iter_mut().filter(|peer| peer.has_vanished()).for_each(Peer::give_up);
                    self.gone_at = Some(now + SECOND);
                }
                Some(at) if now >= at => self.drain(),
                _ => {}
            }
        }
    }

    /// Nothing is queued for anybody, where nobody is pinged or has stopped reading.
    fn expect_quiet(&mut self) {
        let queues = self.handle.stats().queues;
        let all_read = self.plan.settings.ping_interval.is_none() && !self.peers.iter().any(Peer::may_not_read);
        if all_read && queues > 0 {
            self.wrong.push(format!("{queues} queues though all is quiet"));
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        let now = self.now();
        for peer in &mut self.peers {
            if peer.stage > Stage::Before && !peer.is_over() {
                peer.acts_at = Some(peer.acts_at.map_or(now, |at| at.min(now)));
            }
        }
    }

    fn heal(&mut self) {
        if self.healed_at.is_none() {
            self.network.note(|| "heals".to_owned());
            self.network.heal();
            self.healed_at = Some(self.now());
        }
    }

    fn drain(&mut self) {
        self.network.note(|| "drains".to_owned());
        self.draining_at = Some(self.now());
        let window = if self.random.bool() { Duration::ZERO } else { Duration::from_secs(2) };
        self.handle.drain(&Drain { window, deadline: Duration::from_secs(30), ..Drain::default() });
        self.heal();
    }

    fn subscribers_are_there(&self) -> bool {
        self.peers.iter().all(|peer| match &peer.role {
            Role::Subscriber(subscriber) => peer.is_over() || subscriber.confirmed == subscriber.topics.len(),
            _ => true,
        })
    }

    /// Whether all that was to be said has been said.
    fn is_worked_off(&self) -> bool {
        self.peers.iter().all(|peer| match peer.role {
            Role::Subscriber(_) => true,
            Role::Hostile(_) => peer.is_over() || peer.has_vanished(),
            _ => peer.is_over(),
        })
    }

    fn is_out_of_time(&self) -> bool {
        self.healed_at.is_some_and(|at| self.now() > at + PATIENCE)
    }

    fn unfinished(&self) -> (Phase, Vec<String>, Stats) {
        let peers = self.peers.iter().filter(|peer| !peer.is_over()).map(Peer::state).collect();
        (self.phase, peers, self.handle.stats())
    }

    // Judging

    fn judge(mut self) -> Result<Summary, Vec<String>> {
        let mut wrong = std::mem::take(&mut self.wrong);
        wrong.extend(self.network.violations());
        wrong.extend(self.books.borrow().wrong.iter().cloned());
        for peer in &self.peers {
            let record = self.books.borrow().records.get(&peer.number).cloned().unwrap_or_default();
            let objections = self.judge_peer(peer, &record);
            wrong.extend(objections.into_iter().map(|what| format!("peer {}: {what}", peer.number)));
        }
        if wrong.is_empty() {
            wrong.extend(self.judge_rest());
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let stats = self.handle.stats();
        Ok(Summary {
            trace: self.network.trace_hash(),
            steps: self.steps,
            sessions: stats.opened,
            messages: stats.messages_received,
        })
    }

    fn judge_peer(&self, peer: &Peer, record: &Record) -> Vec<String> {
        let mut wrong = peer.verdict();
        if record.ended.len() as u32 != record.opened || record.opened > 1 {
            wrong.push(format!("opened {} times, ended {:?}", record.opened, record.ended));
        }
        let broken = peer.conn.as_ref().is_some_and(|conn| self.network.has_broken(conn.number()));
        let drained = self.plan.drains_at.is_some();
        let Some(ended) = record.ended.first() else {
            // Where there is no memory, a request may be refused before it has come whole.
            let may_be_refused = drained || !self.plan.has_memory;
            if peer.is_honest() && !broken && !may_be_refused && !matches!(peer.role, Role::Reader { .. }) {
                wrong.push(format!("it was never opened: {:?}, {:?}", peer.status, peer.seen));
            }
            return wrong;
        };
        if record.dropped_told > ended.dropped {
            wrong.push(format!("told of {} dropped messages of {}", record.dropped_told, ended.dropped));
        }
        if !peer.is_honest() {
            return wrong;
        }
        let options = self.books.borrow().options[&peer.number];
        let closes = matches!(options.policy, Policy::Close | Policy::PauseProducer);
        let may = match &ended.cause {
            CloseCause::PeerClosed(Some((code, _))) => {
                peer.leave == Leave::Close(code.number()) || (drained && *code == CloseCode::GOING_AWAY)
            }
            CloseCause::PeerGone(None) => peer.leave == Leave::Finish || broken,
            CloseCause::PeerGone(Some(_)) => peer.leave == Leave::Abort || broken,
            CloseCause::SlowConsumer => closes && matches!(peer.role, Role::Subscriber(_)),
            CloseCause::OutOfMemory => !self.plan.has_memory,
            // It leaves, and we do, at the same time.
            CloseCause::Closed => drained || !self.plan.has_memory,
            _ => false,
        };
        if !may {
            wrong.push(format!(
                "ended with {:?}; it leaves by {:?}, broken {broken}, drained {drained}",
                ended.cause, peer.leave
            ));
        }
        // Where there is no memory, a stream is cut short that does not take what is left for it.
        let untouched = !broken
            && !drained
            && self.plan.has_memory
            && matches!(ended.cause, CloseCause::PeerClosed(_) | CloseCause::PeerGone(_));
        if untouched && matches!(peer.leave, Leave::Close(_)) && peer.seen != Seen::End {
            wrong.push(format!("its stream ended with {:?}", peer.seen));
        }
        match (&peer.role, peer.leave) {
            (_, Leave::Close(code)) if untouched && peer.close_seen != Some(Some(code)) => {
                wrong.push(format!("close {code} was answered with {:?}", peer.close_seen));
            }
            (Role::Subscriber(subscriber), Leave::Close(_)) if untouched => {
                let books = self.books.borrow();
                let published: u64 =
                    subscriber.topics.iter().map(|topic| books.published.get(topic).copied().unwrap_or(0)).sum();
                if subscriber.notices != record.notices {
                    wrong.push(format!("{} notices came of {}", subscriber.notices, record.notices));
                }
                if subscriber.received + ended.dropped != published {
                    wrong.push(format!(
                        "{} came and {} were dropped of {published}",
                        subscriber.received, ended.dropped
                    ));
                }
            }
            _ => {}
        }
        if let Role::Subscriber(subscriber) = &peer.role
            && !peer.may_not_read()
            && self.window >= 20_000
            && !self.plan.stalls
            && self.plan.receives_swiftly()
            && self.plan.faults.late == 0
            && self.plan.faults.short_write <= 100
        {
            let books = self.books.borrow();
            let took = |(text, at): &(String, u64)| {
                let published_at = books.published_at.get(text).copied().unwrap_or_default();
                Duration::from_nanos(*at).saturating_sub(published_at)
            };
            let longest = subscriber.arrivals.iter().map(took).max().unwrap_or_default();
            if longest > ON_ITS_WAY_MAX {
                wrong.push(format!("a message was on its way for {longest:?}"));
            }
        }
        if drained
            && peer.leave != Leave::Abort
            && !broken
            && self.plan.has_memory
            && peer.seen == Seen::Reset
            && ended.cause != CloseCause::OutOfMemory
            && !matches!(ended.cause, CloseCause::SlowConsumer)
        {
            wrong.push(format!("a drained session saw a reset, ended {:?}", ended.cause));
        }
        wrong
    }

    /// What must hold once all is over.
    fn judge_rest(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let stats = self.handle.stats();
        let gone = Stats { draining: stats.draining, ..stats };
        for (name, left) in [
            ("connections", gone.connections),
            ("sessions", gone.sessions),
            ("queues", gone.queues),
            ("memory_bytes", gone.memory_bytes),
            ("topics", gone.topics),
        ] {
            if left > 0 {
                wrong.push(format!("{left} {name} are left"));
            }
        }
        if stats.posts_dropped > 0 {
            wrong.push(format!("{} posts were dropped", stats.posts_dropped));
        }
        for seat in &self.seats {
            if seat.left != Leftovers::default() {
                wrong.push(format!("a kernel is left with {:?}", seat.left));
            }
        }
        wrong
    }
}
