//! Servers that answer each message to its sender: honestly, late, or wrongly in one way that they count.

use crate::server::{Outlet, Server, Session, Strikes, altered, lock, ping_bytes};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tungstenite::Message;

/// How long an answer that is to be overtaken waits for another one.
const SWAP_PATIENCE: Duration = Duration::from_millis(50);

/// What an echo does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No answer.
    Lose,
    /// The answer twice.
    Duplicate,
    /// The answer after the next one of the same connection.
    Swap,
    /// One bit of the byte at this place is another.
    Corrupt(usize),
    /// The last byte is missing.
    Truncate,
    /// The same bytes as the other kind of message.
    OtherKind,
    /// Instead of the answer, a message of another connection.
    Foreign,
    /// Before the answer, a message of another connection.
    Extra,
}

/// The message with the fault in it, for those faults that are in the message.
pub(crate) fn spoilt(message: &Message, fault: Fault) -> Option<Message> {
    match fault {
        // A letter of a text stays one.
        Fault::Corrupt(at) => Some(altered(message, |payload| payload[at] ^= 1)),
        Fault::Truncate => Some(altered(message, |payload| payload.truncate(payload.len() - 1))),
        Fault::OtherKind => Some(match message {
            Message::Text(text) => Message::binary(text.as_bytes().to_vec()),
            other => Message::text(String::from_utf8(altered(other, to_letters).into_data().to_vec()).expect("ASCII")),
        }),
        _ => None,
    }
}

/// What is no UTF-8 could not be sent as text.
fn to_letters(payload: &mut Vec<u8>) {
    for byte in payload {
        *byte &= 0x7f;
    }
}

/// An echo that does what it should.
pub(crate) fn honest() -> Server {
    Server::websocket(|mut session| {
        while let Ok(message) = session.next() {
            session.outlet.send(&message);
        }
    })
}

/// An echo with a fault in every so many answers of the whole server.
pub(crate) struct Faulty {
    pub(crate) server: Server,
    injected: Arc<AtomicU64>,
}

impl Faulty {
    pub(crate) fn start(fault: Fault, every: usize) -> Self {
        let strikes = Strikes::every(every);
        let injected = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&injected);
        // The latest message of each connection, for `Foreign` and `Extra`.
        let latest: Mutex<HashMap<usize, Message>> = Mutex::default();
        let server = Server::websocket(move |session| {
            answer_faultily(session, fault, &strikes, &counted, &latest);
        });
        Self { server, injected }
    }

    /// Faults so far.
    pub(crate) fn injected(&self) -> u64 {
        self.injected.load(Ordering::SeqCst)
    }
}

fn answer_faultily(
    mut session: Session,
    fault: Fault,
    strikes: &Strikes,
    injected: &AtomicU64,
    latest: &Mutex<HashMap<usize, Message>>,
) {
    let count = || injected.fetch_add(1, Ordering::SeqCst);
    let outlet = session.outlet.clone();
    while let Ok(message) = session.next() {
        if matches!(fault, Fault::Foreign | Fault::Extra) {
            let mut latest = lock(latest);
            latest.insert(session.index, message.clone());
            let other = latest.iter().find(|(other, _)| **other != session.index).map(|(_, message)| message.clone());
            let foreign = other.filter(|_| strikes.strikes());
            if let Some(foreign) = &foreign {
                count();
                outlet.send(foreign);
            }
            if foreign.is_none() || fault == Fault::Extra {
                outlet.send(&message);
            }
            continue;
        }
        if !strikes.strikes() {
            outlet.send(&message);
            continue;
        }
        match fault {
            Fault::Swap => match session.next_within(SWAP_PATIENCE) {
                Ok(Some(overtakes)) => {
                    count();
                    outlet.send(&overtakes);
                    outlet.send(&message);
                }
                Ok(None) => {
                    outlet.send(&message);
                }
                Err(_) => return,
            },
            Fault::Lose => {
                count();
            }
            Fault::Duplicate => {
                count();
                outlet.send(&message);
                outlet.send(&message);
            }
            _ => {
                count();
                outlet.send(&spoilt(&message, fault).expect("the other faults stand above"));
            }
        }
    }
}

/// An echo that pauses before every so many answers of the whole server, and answers nobody meanwhile: as a server
/// does whose garbage collector stops the world.
pub(crate) fn stalling(every: usize, pause: Duration) -> Server {
    let strikes = Strikes::every(every);
    let world = Mutex::new(());
    Server::websocket(move |mut session| {
        while let Ok(message) = session.next() {
            let _stopped = lock(&world);
            if strikes.strikes() {
                std::thread::sleep(pause);
            }
            session.outlet.send(&message);
        }
    })
}

/// An echo whose answers take as long as a pattern says, one after the other over the whole server, and that notes how
/// long each really took. A connection's answers wait for each other, so it is for one message at a time on each.
pub(crate) struct Delaying {
    pub(crate) server: Server,
    took: Arc<Mutex<Vec<Duration>>>,
}

impl Delaying {
    pub(crate) fn start(pattern: Vec<Duration>) -> Self {
        let took: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let noted = Arc::clone(&took);
        let asked = AtomicU64::new(0);
        let server = Server::websocket(move |mut session| {
            while let Ok(message) = session.next() {
                let since = Instant::now();
                let number = asked.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(pattern[number as usize % pattern.len()]);
                let delay = since.elapsed();
                session.outlet.send(&message);
                lock(&noted).push(delay);
            }
        });
        Self { server, took }
    }

    /// From the read to the write of each message, in ascending order.
    pub(crate) fn took(&self) -> Vec<Duration> {
        let mut took = lock(&self.took).clone();
        took.sort_unstable();
        took
    }
}

/// An echo that notes when its messages come.
pub(crate) struct Noting {
    pub(crate) server: Server,
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Noting {
    pub(crate) fn start() -> Self {
        let came: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = Arc::clone(&came);
        let server = Server::websocket(move |mut session| {
            while let Ok(message) = session.next() {
                lock(&noted).push(Instant::now());
                session.outlet.send(&message);
            }
        });
        Self { server, came }
    }

    /// In seconds from the first.
    pub(crate) fn came(&self) -> Vec<f64> {
        let mut came = lock(&self.came).clone();
        came.sort_unstable();
        let first = came.first().copied().expect("a message came");
        came.iter().map(|at| (*at - first).as_secs_f64()).collect()
    }
}

/// An echo that answers so many messages a second and no more. What comes meanwhile waits, however much it is.
pub(crate) fn throttled(per_second: f64) -> Server {
    let (queue, waiting) = channel();
    std::thread::spawn(move || answer_by_schedule(&waiting, Duration::from_secs_f64(1.0 / per_second)));
    Server::websocket(move |mut session| {
        let outlet = session.outlet.clone();
        while let Ok(message) = session.next() {
            // Its thread ends after the last handler.
            let _ = queue.send((outlet.clone(), message));
        }
    })
}

/// A time may be late by this much and the next ones make up for it: sleeping is no more exact.
const CATCH_UP: Duration = Duration::from_millis(10);

fn answer_by_schedule(waiting: &Receiver<(Outlet, Message)>, distance: Duration) {
    let mut next = Instant::now();
    while let Ok((outlet, message)) = waiting.recv() {
        let now = Instant::now();
        next = (next + distance).max(now.checked_sub(CATCH_UP).unwrap_or(now));
        if next > now {
            std::thread::sleep(next - now);
        }
        if !outlet.send(&message) {
            // The connection has ended: what else waits for it costs no time.
            next -= distance;
        }
    }
}

/// An echo that sends a ping before every so many answers and, every so many again, one in the middle of an answer's
/// fragments; it counts the pongs that carry their pings' payloads, in order.
pub(crate) struct Pinging {
    pub(crate) server: Server,
    pings: Arc<AtomicU64>,
    pongs: Arc<AtomicU64>,
}

impl Pinging {
    pub(crate) fn start(every: usize) -> Self {
        let (pings, pongs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (pinged, ponged) = (Arc::clone(&pings), Arc::clone(&pongs));
        let server = Server::websocket(move |mut session| {
            let mut sent = Vec::new();
            let mut answers = 0;
            while let Ok(message) = session.next() {
                answers += 1;
                if answers % every == 0 {
                    let payload = format!("{} {answers} {}", session.index, "x".repeat(answers % 100)).into_bytes();
                    if answers % (2 * every) == 0 {
                        session.outlet.send_fragments(&message, 3, &ping_bytes(&payload));
                        // Between three fragments are two places.
                        sent.push(payload.clone());
                        pinged.fetch_add(1, Ordering::SeqCst);
                    } else {
                        session.outlet.ping(&payload);
                        session.outlet.send(&message);
                    }
                    sent.push(payload);
                    pinged.fetch_add(1, Ordering::SeqCst);
                } else {
                    session.outlet.send(&message);
                }
            }
            let right = session.pongs.iter().zip(&sent).filter(|(pong, ping)| pong.as_ref() == ping.as_slice());
            ponged.fetch_add(right.count() as u64, Ordering::SeqCst);
        });
        Self { server, pings, pongs }
    }

    /// Pings sent, and pongs that answered them. Complete once the connections have ended.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.pings.load(Ordering::SeqCst), self.pongs.load(Ordering::SeqCst))
    }
}

/// An echo that answers so many messages of each connection and then does with it what `after` does.
pub(crate) fn ending_after(count: usize, after: impl Fn(Session) + Send + Sync + 'static) -> Server {
    Server::websocket(move |mut session| {
        for _ in 0..count {
            let Ok(message) = session.next() else { return };
            session.outlet.send(&message);
        }
        after(session);
    })
}

/// An echo over bare TCP, which changes one bit of the byte at each of the places of each connection's stream.
pub(crate) fn bare_echo(corrupt_at: &'static [usize]) -> Server {
    use std::io::{Read, Write};
    Server::bare(move |stream, _| {
        let mut bytes = [0; 4096];
        let mut passed = 0;
        while let Ok(count @ 1..) = (&*stream).read(&mut bytes) {
            for at in corrupt_at.iter().filter(|at| (passed..passed + count).contains(at)) {
                bytes[at - passed] ^= 1;
            }
            passed += count;
            if (&*stream).write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    })
}
