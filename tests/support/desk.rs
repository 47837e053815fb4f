//! An application that does as its clients tell it, and reports what its shard calls it for.
//!
//! | path | what |
//! |---|---|
//! | `/echo?NAME` | a WebSocket that says back what it is told |
//! | `/desk?NAME` | a WebSocket that takes orders (see [`Desk::obey`]); NAME stands in the reports |
//! | `/choose?PROTOCOL` | a WebSocket with this subprotocol and a header line more |
//! | `/refused` | 403 |
//! | others | a plain answer that says what was asked |

use super::DEADLINE;
use ringwave::{
    CloseCause, CloseCode, Context, Ended, Handler, Message, Request, Response, Session, SessionKey, Upgrade,
    UpgradeRequest,
};
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a [`Desk`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A plain request: method and target.
    Request(String),
    Open {
        name: String,
        shard: usize,
        key: SessionKey,
    },
    Message(String),
    Ping(String),
    Pong(String),
    Close(String, CloseCause),
}

/// The reports of all shards, as they come.
pub(crate) struct Events(Receiver<Event>);

impl Events {
    pub(crate) fn channel() -> (Sender<Event>, Self) {
        let (reports, events) = channel();
        (reports, Self(events))
    }

    /// The next report.
    #[track_caller]
    pub(crate) fn next(&self) -> Event {
        self.0.recv_timeout(DEADLINE).expect("a report comes")
    }

    /// The next report, if it has come already.
    pub(crate) fn try_next(&self) -> Option<Event> {
        self.0.try_recv().ok()
    }

    /// The next session opened; passes over other reports.
    #[track_caller]
    pub(crate) fn opened(&self) -> (String, SessionKey) {
        loop {
            if let Event::Open { name, key, .. } = self.next() {
                return (name, key);
            }
        }
    }

    /// The next session that is over; passes over other reports.
    #[track_caller]
    pub(crate) fn closed(&self) -> (String, CloseCause) {
        loop {
            if let Event::Close(name, cause) = self.next() {
                return (name, cause);
            }
        }
    }

    /// All that is left, once the server has ended.
    #[track_caller]
    pub(crate) fn rest(&self) -> Vec<Event> {
        let mut rest = Vec::new();
        loop {
            match self.0.try_recv() {
                Ok(event) => rest.push(event),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return rest,
                Err(std::sync::mpsc::TryRecvError::Empty) => panic!("a shard has not let go of its handler"),
            }
        }
    }
}

/// What is kept with a session.
pub(crate) struct Seat {
    name: String,
    echoes: bool,
}

/// The application of one shard.
pub(crate) struct Desk {
    shard: usize,
    reports: Sender<Event>,
}

impl Desk {
    pub(crate) const fn new(shard: usize, reports: Sender<Event>) -> Self {
        Self { shard, reports }
    }

    fn report(&self, event: Event) {
        // A test that does not listen any more has what it wants.
        let _ = self.reports.send(event);
    }

    /// Does what a text says: a verb, a word, and the rest of the line.
    fn obey(&self, session: &mut Session<'_, Seat>, order: &str) {
        let mut words = order.splitn(3, ' ');
        let (verb, word, rest) =
            (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let answer = match verb {
            "shard" => self.shard.to_string(),
            "subscribe" => format!("{:?}", session.subscribe(word)),
            "unsubscribe" => session.unsubscribe(word).to_string(),
            "subscribed" => session.subscribed(word).to_string(),
            "count" => session.subscriber_count(word).to_string(),
            "publish" => format!("{} took it", session.publish(word, rest).taken),
            "publish_except_self" => format!("{} took it", session.publish_except_self(word, rest).taken),
            "send" => {
                session.send(rest);
                return;
            }
            "ping" => {
                session.ping(word.as_bytes());
                return;
            }
            "close" => {
                let code = word.parse().ok().and_then(CloseCode::new).expect("a code that may be sent");
                session.close(code, rest);
                // What comes after it goes nowhere.
                format!("{:?}", session.send("too late"))
            }
            "terminate" => {
                session.terminate();
                return;
            }
            _ => panic!("{order:?} is no order"),
        };
        session.send(&answer);
    }
}

impl Handler for Desk {
    type Data = Seat;

    fn on_upgrade(&mut self, _: &mut Context<'_, Seat>, request: &UpgradeRequest<'_>) -> Upgrade<Seat> {
        let name = request.query().unwrap_or_default().to_owned();
        match request.path() {
            "/echo" => Upgrade::accept(Seat { name, echoes: true }),
            "/desk" => Upgrade::accept(Seat { name, echoes: false }),
            "/choose" => Upgrade::accept(Seat { name: name.clone(), echoes: true })
                .protocol(name)
                .header("X-Offered", request.protocols().collect::<Vec<_>>().join("+")),
            _ => Upgrade::reject(Response::new(403).header("X-Why", "a stranger").text("not for you\n")),
        }
    }

    fn on_open(&mut self, session: &mut Session<'_, Seat>) {
        let name = session.data().name.clone();
        self.report(Event::Open { name, shard: session.shard(), key: session.key() });
    }

    fn on_message(&mut self, session: &mut Session<'_, Seat>, message: Message<'_>) {
        self.report(Event::Message(session.data().name.clone()));
        match message {
            Message::Text(order) if !session.data().echoes => self.obey(session, order),
            message => {
                session.send(message);
            }
        }
    }

    fn on_ping(&mut self, session: &mut Session<'_, Seat>, _: &[u8]) {
        self.report(Event::Ping(session.data().name.clone()));
    }

    fn on_pong(&mut self, session: &mut Session<'_, Seat>, _: &[u8]) {
        self.report(Event::Pong(session.data().name.clone()));
    }

    fn on_close(&mut self, _: &mut Context<'_, Seat>, seat: Seat, ended: &Ended) {
        self.report(Event::Close(seat.name, ended.cause.clone()));
    }

    fn on_request(&mut self, _: &mut Context<'_, Seat>, request: &Request<'_>) -> Response {
        let line = format!("{} {}", request.method(), request.target());
        self.report(Event::Request(line.clone()));
        match request.path() {
            "/nothing" => Response::new(204),
            _ => Response::new(200).text(format!("{line} {}", String::from_utf8_lossy(request.body()))),
        }
    }
}
