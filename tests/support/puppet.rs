//! An application whose sessions do what a test tells them: an order is a closure that runs on the session's shard, and
//! what it answers comes back to the test.

use super::{Client, DEADLINE, Received, TestServer, raw};
use ringwave::{
    Config, Context, Ended, Handler, Message, Session, SessionKey, SessionOptions, Stats, Upgrade, UpgradeRequest,
};
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A session that does as it is told; its value is its name.
pub(crate) type Doll<'a> = Session<'a, String>;
type Order = Box<dyn FnOnce(&mut Doll<'_>) + Send>;

/// The text that has a session carry out its next order.
const CUE: &str = "cue";

/// What a session's handler was called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Open {
        key: SessionKey,
        shard: usize,
    },
    Message(Received),
    Ping(Vec<u8>),
    Dropped(u64),
    /// With the bytes that were queued then.
    Drain(usize),
    Closed(Ended),
}

/// What the shards share with the test.
#[derive(Default)]
struct Desk {
    orders: Mutex<HashMap<String, VecDeque<Order>>>,
    notes: Mutex<Vec<(String, Note)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that fails has said why already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    fn note(&self, name: &str, note: Note) {
        lock(&self.notes).push((name.to_owned(), note));
    }
}

/// The application of one shard.
struct Puppeteer {
    desk: Arc<Desk>,
    options: Arc<dyn Fn(&str) -> SessionOptions + Send + Sync>,
}

impl Handler for Puppeteer {
    type Data = String;

    fn on_upgrade(&mut self, _: &mut Context<'_, String>, request: &UpgradeRequest<'_>) -> Upgrade<String> {
        let name = request.query().unwrap_or_default().to_owned();
        let options = (self.options)(&name);
        Upgrade::accept(name).options(options)
    }

    fn on_open(&mut self, session: &mut Doll<'_>) {
        let note = Note::Open { key: session.key(), shard: session.shard() };
        self.desk.note(&session.data().clone(), note);
    }

    fn on_message(&mut self, session: &mut Doll<'_>, message: Message<'_>) {
        let name = session.data().clone();
        if message == Message::Text(CUE) {
            let order = lock(&self.desk.orders).get_mut(&name).and_then(VecDeque::pop_front);
            order.expect("a cue stands for an order")(session);
        } else {
            self.desk.note(&name, Note::Message(message.into()));
        }
    }

    fn on_ping(&mut self, session: &mut Doll<'_>, payload: &[u8]) {
        self.desk.note(&session.data().clone(), Note::Ping(payload.to_vec()));
    }

    /// A session that has an order to pause goes on when its queue has drained.
    fn on_drain(&mut self, session: &mut Doll<'_>) {
        session.resume_receiving();
        let note = Note::Drain(session.buffered_bytes());
        self.desk.note(&session.data().clone(), note);
    }

    fn on_dropped(&mut self, session: &mut Doll<'_>, count: u64) {
        self.desk.note(&session.data().clone(), Note::Dropped(count));
    }

    fn on_close(&mut self, _: &mut Context<'_, String>, name: String, ended: &Ended) {
        self.desk.note(&name, Note::Closed(ended.clone()));
    }
}

/// A server of such sessions.
pub(crate) struct Theatre {
    pub(crate) server: TestServer,
    desk: Arc<Desk>,
}

impl Theatre {
    /// `options` tells by its name what a session may do.
    pub(crate) fn open(
        change: impl FnOnce(&mut Config),
        options: impl Fn(&str) -> SessionOptions + Send + Sync + 'static,
    ) -> Self {
        let (desk, options) = (Arc::<Desk>::default(), Arc::new(options));
        let of_shards = desk.clone();
        let server =
            TestServer::start(change, move |_| Puppeteer { desk: of_shards.clone(), options: options.clone() });
        Self { server, desk }
    }

    /// Opens a session with a name of its own.
    #[track_caller]
    pub(crate) fn puppet(&self, name: &str) -> Puppet {
        self.over(raw::connected(self.server.address()), name)
    }

    /// The same; its system takes little that is not read.
    #[track_caller]
    pub(crate) fn sluggish(&self, name: &str) -> Puppet {
        self.over(raw::connected_narrowly(self.server.address()), name)
    }

    /// Opens sessions until one is on this shard; the others are closed.
    #[track_caller]
    pub(crate) fn on_shard(&self, shard: usize, name: &str, open: impl Fn(&Self, &str) -> Puppet) -> Puppet {
        for number in 0..1_000 {
            let mut puppet = open(self, &if number == 0 { name.to_owned() } else { format!("{name}-{number}") });
            if puppet.run(|session| session.shard()) == shard {
                return puppet;
            }
            puppet.client.close();
        }
        panic!("of 1000 connections none is on shard {shard}");
    }

    #[track_caller]
    fn over(&self, stream: std::net::TcpStream, name: &str) -> Puppet {
        let mut client = Client::over(stream, &format!("/?{name}"), &[]);
        client.flush();
        assert_eq!(client.next(), Received::Open(None));
        let mut puppet = Puppet { client, name: name.to_owned(), desk: self.desk.clone(), key: None };
        puppet.key = Some(puppet.run(|session| session.key()));
        puppet
    }

    pub(crate) fn stats(&self) -> Stats {
        self.server.handle().stats()
    }

    /// What the handler was called for on behalf of this session, so far.
    pub(crate) fn notes(&self, name: &str) -> Vec<Note> {
        lock(&self.desk.notes).iter().filter(|(other, _)| other == name).map(|(_, note)| note.clone()).collect()
    }

    /// The messages dropped for this session that its handler was told of.
    pub(crate) fn told_dropped(&self, name: &str) -> u64 {
        self.notes(name).iter().map(|note| if let Note::Dropped(count) = note { *count } else { 0 }).sum()
    }

    /// The bytes queued at each `on_drain`.
    pub(crate) fn drains(&self, name: &str) -> Vec<usize> {
        let notes = self.notes(name).into_iter();
        notes.filter_map(|note| if let Note::Drain(bytes) = note { Some(bytes) } else { None }).collect()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self, name: &str) -> Option<Ended> {
        self.notes(name).into_iter().find_map(|note| if let Note::Closed(ended) = note { Some(ended) } else { None })
    }
}

/// A client, and the strings to its session.
pub(crate) struct Puppet {
    pub(crate) client: Client,
    pub(crate) name: String,
    desk: Arc<Desk>,
    key: Option<SessionKey>,
}

impl Puppet {
    pub(crate) fn key(&self) -> SessionKey {
        self.key.expect("it was asked for at the beginning")
    }

    /// Has the session do something, as soon as it is read from.
    pub(crate) fn order<R: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Doll<'_>) -> R + Send + 'static,
    ) -> Receiver<R> {
        let (answer, answers) = channel();
        let order: Order = Box::new(move |session| {
            // A test that does not wait for it does not want it.
            let _ = answer.send(act(session));
        });
        lock(&self.desk.orders).entry(self.name.clone()).or_default().push_back(order);
        self.client.send(CUE);
        answers
    }

    /// Has the session do something, and answers what that answers.
    #[track_caller]
    pub(crate) fn run<R: Send + 'static>(&mut self, act: impl FnOnce(&mut Doll<'_>) -> R + Send + 'static) -> R {
        self.order(act).recv_timeout(DEADLINE).expect("the order is carried out")
    }
}
