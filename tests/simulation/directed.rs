//! Histories of the driver alone, each in one situation that whole shards come into too rarely for chance to rely on: both
//! were found after some hundred thousand seeds.

use fastrand::Rng;
use ringwave::base::fault::{Fault, plant};
use ringwave::driver::sim::{Conn, Faults, Host, HostSizes, Network, ReadOutcome, SimDriver};
use ringwave::driver::{Batch, Completion, Driver, Link, UringConfig};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A history: what does not hold in it.
type History = fn(u64) -> Result<(), String>;

/// Each with the fault that it is to find.
const HISTORIES: [(Fault, History); 2] =
    [(Fault::RefusalForgotten, refused_submissions), (Fault::EndTakenForReset, end_beside_a_short_send)];

/// The situation that this fault is planted in, if it has one of its own.
pub(crate) fn history_for(fault: Fault) -> Option<History> {
    HISTORIES.iter().find(|(own, _)| *own == fault).map(|(_, history)| *history)
}

/// All of them with one seed.
pub(crate) fn run_all(seed: u64) -> Result<(), String> {
    HISTORIES.iter().try_for_each(|(_, history)| history(seed))
}

/// One of them with the engine made wrong.
pub(crate) fn run_with(seed: u64, fault: Fault, history: History) -> Result<(), String> {
    plant(Some(fault));
    let held = history(seed);
    plant(None);
    held
}

/// A driver on its host, and the peers of its links.
struct Scene {
    network: Network,
    host: Host,
    driver: SimDriver,
}

/// Turns within which anything that is waited for must come.
const TURNS_MAX: usize = 10_000;

impl Scene {
    fn new(seed: u64, faults: Faults, table_slots: u32) -> Self {
        let network = Network::new(seed, faults);
        let host = network.host(HostSizes { submissions: 16, table_slots, knows_peers: false });
        let config = UringConfig {
            links_max: 2,
            buffer_count: 2,
            buffer_bytes: 64,
            bulk_buffer_count: 1,
            bulk_buffer_bytes: 64,
            peer_addresses: false,
            ..UringConfig::default()
        };
        let mut driver = network.driver(host, config).expect("it has room for a ring");
        driver.listen(network.listener(host, SocketAddr::from((Ipv4Addr::LOCALHOST, 80))));
        Self { network, host, driver }
    }

    /// A peer, and the link that it is accepted as.
    fn connect(&mut self, window: usize) -> Result<(Conn, Link), String> {
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1_000));
        let conn = self.network.connect(self.host, from, window).expect("somebody listens");
        let mut accepted = None;
        self.until("an accept", |_, completion| {
            if let Completion::Accepted { link, .. } = completion {
                accepted = Some(link);
            }
            Ok(accepted.is_some())
        })?;
        Ok((conn, accepted.expect("it was waited for")))
    }

    /// Turns the driver, as a shard does that has nothing else to do, until `step` has what it wants.
    fn until(
        &mut self,
        wanted: &str,
        mut step: impl FnMut(&mut SimDriver, Completion) -> Result<bool, String>,
    ) -> Result<(), String> {
        for _ in 0..TURNS_MAX {
            self.driver.wait(None).expect("the simulated kernel lets wait");
            let mut is_there = false;
            while let Some(completion) = self.driver.next_completion() {
                is_there |= step(&mut self.driver, completion)?;
            }
            if is_there {
                return Ok(());
            }
            // Peers do what they are told, and nothing of their own accord.
            while self.network.next_touched().is_some() {}
            if !self.network.host_is_due(self.host) {
                let next =
                    self.network.next_event().ok_or_else(|| format!("nothing happens, and {wanted} is missing"))?;
                self.network.pass(Duration::from_nanos(next.as_nanos() - self.network.now().as_nanos()));
            }
        }
        Err(format!("{wanted} has not come after {TURNS_MAX} turns"))
    }
}

/// Two links on rings of their own, and a kernel that does not always take what it is given. Of the second ring nobody hears
/// while the first is waited for.
fn refused_submissions(seed: u64) -> Result<(), String> {
    let faults = Faults { refused_submit: 500, again: 500, delay_max: Duration::from_millis(1), ..Faults::default() };
    let mut scene = Scene::new(seed, faults, 1);
    let mut peers = [scene.connect(1_000)?, scene.connect(1_000)?];
    for (_, link) in &peers {
        scene.driver.recv_start(*link);
    }
    for round in 0..10 {
        for (conn, expected) in &mut peers {
            conn.write(&[round]).ok_or("the driver has closed a link")?;
            scene.until("a byte", |driver, completion| match completion {
                Completion::Received { link, buffer } => {
                    let is_right = link == *expected && driver.bytes(&buffer) == [round];
                    driver.recycle(buffer);
                    if is_right { Ok(true) } else { Err("a byte came that nobody sent".to_owned()) }
                }
                _ => Ok(false),
            })?;
        }
    }
    Ok(())
}

/// A peer that ends its side reads on, and sends that end short go on: it gets everything, and nobody speaks of a reset.
fn end_beside_a_short_send(seed: u64) -> Result<(), String> {
    let mut random = Rng::with_seed(seed);
    let faults = Faults { short_write: 700, delay_max: Duration::from_millis(1), ..Faults::default() };
    let mut scene = Scene::new(seed, faults, 8);
    let (mut conn, link) = scene.connect(10_000)?;
    scene.driver.recv_start(link);
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(2_000).collect();
    let mut batch = Box::<Batch>::default();
    batch.append(|owned| owned.extend_from_slice(&bytes));
    scene.driver.send(link, batch);
    conn.finish();
    let (mut is_sent, mut has_ended) = (false, false);
    scene.until("the end of both sides", |_, completion| {
        match completion {
            Completion::Sent { error: None, .. } => is_sent = true,
            Completion::ReceiveEnded { error: None, .. } => has_ended = true,
            Completion::SentPart { .. } => {}
            other => return Err(format!("{other:?}")),
        }
        Ok(is_sent && has_ended)
    })?;
    match conn.read(usize::MAX) {
        ReadOutcome::Bytes(read) if read == bytes => Ok(()),
        other => Err(format!("the peer has read {other:?}")),
    }
}
