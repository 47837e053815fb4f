//! A server that sends what anybody says to everybody on the same path.
//!
//! `/room` subscribes and publishes; `/room/publish` publishes to `/room` and hears nothing.

use crate::answers::{Fault, spoilt};
use crate::server::{Arrival, Outlet, Server, Session, Strikes, lock};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tungstenite::Message;

/// How deliveries reach the subscribers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Delivery {
    /// Through a queue for each, however long it grows: nobody waits for a slow reader.
    Queued,
    /// Through a queue of at most so many messages; whose queue is full is dropped.
    Bounded(usize),
    /// By the thread that received the message, so that all wait for the slowest.
    InTurn,
}

#[derive(Clone)]
pub(crate) struct Hub {
    state: Arc<State>,
}

struct State {
    delivery: Delivery,
    fault: Option<(Fault, Strikes)>,
    /// From the receipt of a message to its delivery.
    delay: Duration,
    rooms: Mutex<HashMap<String, Vec<Subscriber>>>,
    published: AtomicU64,
    delivered: AtomicU64,
    injected: AtomicU64,
    dropped: AtomicU64,
    /// Texts with which subscribers opened.
    greetings: Mutex<Vec<String>>,
}

struct Subscriber {
    index: usize,
    outlet: Outlet,
    queue: Sender<Message>,
    waiting: Arc<AtomicU64>,
    /// A delivery that the same publisher's next one overtakes, and that publisher's number.
    held: Option<(usize, Message)>,
}

impl Hub {
    pub(crate) fn start(delivery: Delivery) -> (Server, Self) {
        Self::with(delivery, None, Duration::ZERO)
    }

    /// Delivers each message so long after it came. The publisher's next one waits.
    pub(crate) fn delaying(delay: Duration) -> (Server, Self) {
        Self::with(Delivery::Queued, None, delay)
    }

    /// With a fault in every so many deliveries.
    pub(crate) fn faulty(fault: Fault, every: usize) -> (Server, Self) {
        Self::with(Delivery::Queued, Some((fault, Strikes::every(every))), Duration::ZERO)
    }

    fn with(delivery: Delivery, fault: Option<(Fault, Strikes)>, delay: Duration) -> (Server, Self) {
        let state = State {
            delivery,
            fault,
            delay,
            rooms: Mutex::default(),
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            greetings: Mutex::default(),
        };
        let hub = Self { state: Arc::new(state) };
        let (joining, serving) = (hub.clone(), hub.clone());
        // Before the handshake is answered: whoever is connected hears everything from then on.
        let doorman = move |arrival: &Arrival| {
            if publishes_to(arrival.path).is_none() {
                joining.join(arrival);
            }
            None
        };
        (Server::selective(doorman, move |session| serving.serve(session)), hub)
    }

    /// Messages that were published.
    pub(crate) fn published(&self) -> u64 {
        self.state.published.load(Ordering::SeqCst)
    }

    /// Messages that subscribers were sent or are yet to be sent.
    pub(crate) fn delivered(&self) -> u64 {
        self.state.delivered.load(Ordering::SeqCst)
    }

    /// Faults so far.
    pub(crate) fn injected(&self) -> u64 {
        self.state.injected.load(Ordering::SeqCst)
    }

    /// Subscribers dropped because their queue was full.
    pub(crate) fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::SeqCst)
    }

    /// Texts with which subscribers opened: those that begin with `hello`, which are not published.
    pub(crate) fn greetings(&self) -> Vec<String> {
        lock(&self.state.greetings).clone()
    }

    fn serve(&self, mut session: Session) {
        let path = session.path.clone();
        let room = publishes_to(&path);
        while let Ok(message) = session.next() {
            match &message {
                Message::Text(text) if text.starts_with("hello") => {
                    lock(&self.state.greetings).push(text.to_string());
                }
                _ => self.publish(room.unwrap_or(&path), session.index, &message),
            }
        }
        if room.is_none() {
            self.leave(&path, session.index);
            session.outlet.shut();
        }
    }

    fn join(&self, arrival: &Arrival) {
        let (queue, messages) = channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let outlet = arrival.outlet.clone();
        let subscriber = Subscriber {
            index: arrival.index,
            outlet: outlet.clone(),
            queue,
            waiting: Arc::clone(&waiting),
            held: None,
        };
        lock(&self.state.rooms).entry(arrival.path.to_owned()).or_default().push(subscriber);
        // Ends when the subscriber has left the room.
        std::thread::spawn(move || write_all(&messages, &outlet, &waiting));
    }

    fn leave(&self, room: &str, index: usize) {
        if let Some(subscribers) = lock(&self.state.rooms).get_mut(room) {
            subscribers.retain(|subscriber| subscriber.index != index);
        }
    }

    fn publish(&self, room: &str, publisher: usize, message: &Message) {
        self.state.published.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.state.delay);
        let mut rooms = lock(&self.state.rooms);
        let Some(subscribers) = rooms.get_mut(room) else { return };
        for subscriber in subscribers {
            self.deliver(subscriber, publisher, message);
        }
    }

    fn deliver(&self, subscriber: &mut Subscriber, publisher: usize, message: &Message) {
        let state = &*self.state;
        let fault = state.fault.as_ref().and_then(|(fault, strikes)| strikes.strikes().then_some(*fault));
        let Some(fault) = fault else {
            self.hand_over(subscriber, message);
            if let Some((_, held)) = subscriber.held.take_if(|(held_of, _)| *held_of == publisher) {
                self.hand_over(subscriber, &held);
            }
            return;
        };
        state.injected.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::Lose => {}
            Fault::Duplicate => {
                self.hand_over(subscriber, message);
                self.hand_over(subscriber, message);
            }
            Fault::Swap => subscriber.held = Some((publisher, message.clone())),
            _ => self.hand_over(subscriber, &spoilt(message, fault).expect("a fault in the message")),
        }
    }

    fn hand_over(&self, subscriber: &Subscriber, message: &Message) {
        let state = &*self.state;
        state.delivered.fetch_add(1, Ordering::SeqCst);
        let bound = match state.delivery {
            Delivery::InTurn => {
                // It may have left; its thread takes it out of the room.
                let _ = subscriber.outlet.send(message);
                return;
            }
            Delivery::Queued => u64::MAX,
            Delivery::Bounded(bound) => bound as u64,
        };
        match subscriber.waiting.fetch_add(1, Ordering::SeqCst) {
            waiting if waiting == bound => {
                state.dropped.fetch_add(1, Ordering::SeqCst);
                subscriber.outlet.shut();
            }
            // It was dropped before.
            waiting if waiting > bound => {}
            _ => {
                // As above.
                let _ = subscriber.queue.send(message.clone());
            }
        }
    }
}

/// The room of a path that only publishes.
fn publishes_to(path: &str) -> Option<&str> {
    path.strip_suffix("/publish")
}

/// Sends what is in a queue until the connection ends or the subscriber has left.
fn write_all(messages: &Receiver<Message>, outlet: &Outlet, waiting: &AtomicU64) {
    while let Ok(message) = messages.recv() {
        if !outlet.send(&message) {
            return;
        }
        waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
