//! The application under simulation, and what it writes down.

use fastrand::Rng;
use ringwave::{
    Context, Ended, Handler, Message, MessageKind, Request, Response, Session, SessionKey, SessionOptions, Upgrade,
    UpgradeRequest,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What the application knows of one peer's session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) key: Option<SessionKey>,
    pub(crate) opened: u32,
    pub(crate) ended: Vec<Ended>,
    /// Messages that it was told were dropped.
    pub(crate) dropped_told: u64,
    pub(crate) messages: u64,
    /// Notices that were sent to it.
    pub(crate) notices: u32,
}

/// What the applications of all shards write down together.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) records: BTreeMap<usize, Record>,
    /// Messages published to each topic, by sessions …
    pub(crate) published: BTreeMap<String, u64>,
    /// When each was, by its text.
    pub(crate) published_at: BTreeMap<String, Duration>,
    /// … and what is wrong about that.
    pub(crate) wrong: Vec<String>,
    /// What each peer's session may do.
    pub(crate) options: BTreeMap<usize, SessionOptions>,
}

pub(crate) type Books = Rc<RefCell<Ledger>>;

/// Whose session it is, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    peer: usize,
    echoes: bool,
    /// The end of a notice that a full queue has refused so far.
    unsent: Option<Vec<u8>>,
}

/// One shard's application.
pub(crate) struct App {
    pub(crate) books: Books,
    pub(crate) random: Rng,
}

impl App {
    fn record<R>(&self, peer: usize, change: impl FnOnce(&mut Record) -> R) -> R {
        change(self.books.borrow_mut().records.entry(peer).or_default())
    }

    /// The end of a notice, whose beginning is out: it is offered until it is taken.
    fn send_rest(&self, session: &mut Session<'_, Purpose>) {
        let Some(rest) = session.data_mut().unsent.take() else { return };
        if session.send_next(&rest, true).is_taken() {
            let peer = session.data().peer;
            self.record(peer, |record| record.notices += 1);
        } else {
            session.data_mut().unsent = Some(rest);
        }
    }

    /// Says a message back, in one frame or in fragments.
    fn echo(&mut self, session: &mut Session<'_, Purpose>, message: Message<'_>) {
        let (kind, payload) = match message {
            Message::Text(text) => (MessageKind::Text, text.as_bytes()),
            Message::Binary(bytes) => (MessageKind::Binary, bytes),
        };
        // A fragment is refused where a queue is full; here nobody would offer it again.
        if session.buffered_bytes() == 0 && self.random.u8(0..4) == 0 {
            let cut = self.random.usize(0..=payload.len());
            let taken = session.send_first(kind, &payload[..cut]).is_taken();
            // For want of memory, of which there is enough where it matters; so below.
            if taken && !session.send_next(&payload[cut..], true).is_taken() {
                session.terminate();
            }
            if taken {
                return;
            }
        }
        if !session.send(message).is_taken() {
            session.terminate();
        }
    }
}

impl Handler for App {
    type Data = Purpose;

    fn on_upgrade(&mut self, _: &mut Context<'_, Purpose>, request: &UpgradeRequest<'_>) -> Upgrade<Purpose> {
        let mut path = request.path().trim_start_matches('/').split('/');
        let echoes = path.next() == Some("echo");
        let Some(peer) = path.next().and_then(|number| number.parse().ok()) else {
            return Upgrade::reject(Response::new(404).text("no such peer\n"));
        };
        let options = self.books.borrow().options.get(&peer).copied().unwrap_or_default();
        Upgrade::accept(Purpose { peer, echoes, unsent: None }).options(options)
    }

    fn on_open(&mut self, session: &mut Session<'_, Purpose>) {
        let (peer, key) = (session.data().peer, session.key());
        self.record(peer, |record| {
            record.opened += 1;
            record.key = Some(key);
        });
    }

    fn on_message(&mut self, session: &mut Session<'_, Purpose>, message: Message<'_>) {
        let Purpose { peer, echoes, .. } = *session.data();
        self.record(peer, |record| record.messages += 1);
        if echoes {
            return self.echo(session, message);
        }
        let Message::Text(order) = message else { return };
        let mut words = order.splitn(3, ' ');
        match (words.next(), words.next()) {
            (Some("subscribe"), Some(topic)) => {
                if session.subscribe(topic) != Ok(true) {
                    self.books.borrow_mut().wrong.push(format!("{peer} could not subscribe to {topic}"));
                }
                if !session.send(order).is_taken() {
                    session.terminate();
                }
            }
            (Some("publish"), Some(topic)) => {
                let mut books = self.books.borrow_mut();
                *books.published.entry(topic.to_owned()).or_default() += 1;
                books.published_at.insert(order.to_owned(), session.now());
                drop(books);
                session.publish(topic, message);
            }
            _ => {}
        }
    }

    fn on_ping(&mut self, session: &mut Session<'_, Purpose>, payload: &[u8]) {
        let Purpose { echoes, unsent, .. } = session.data();
        if *echoes || unsent.is_some() || payload == b"last" {
            return;
        }
        let taken = session.send_first(MessageKind::Text, b"notice ").is_taken();
        if taken {
            let filler = vec![b'.'; self.random.usize(0..400)];
            session.data_mut().unsent = Some([&filler, payload].concat());
            self.send_rest(session);
        }
    }

    fn on_drain(&mut self, session: &mut Session<'_, Purpose>) {
        self.send_rest(session);
    }

    fn on_dropped(&mut self, session: &mut Session<'_, Purpose>, count: u64) {
        let Purpose { peer, echoes, .. } = *session.data();
        self.record(peer, |record| record.dropped_told += count);
        if echoes {
            session.terminate();
        }
    }

    fn on_close(&mut self, _: &mut Context<'_, Purpose>, purpose: Purpose, ended: &Ended) {
        self.record(purpose.peer, |record| record.ended.push(ended.clone()));
    }

    fn on_request(&mut self, _: &mut Context<'_, Purpose>, _: &Request<'_>) -> Response {
        Response::new(200).text("hello\n")
    }
}
