//! An application that fails where its clients tell it to, and reports every end in full.
//!
//! A session's path, without the slash, is its name; a query names the calls in which the application panics for it
//! (`/broken?on_open`). A text is an order (see [`Rig::obey`]), anything else comes back. Requests to `/panic` panic.

use super::DEADLINE;
use ringwave::{
    Chunk, CloseCode, Context, Ended, Handler, Message, MessageKind, Request, Response, Session, SessionKey,
    SessionOptions, Upgrade, UpgradeRequest,
};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Once};
use std::time::Duration;

/// What a panic of the rig's says.
const TOLD: &str = "as told";

/// What a [`Rig`] reports.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    /// It was asked for an upgrade.
    Asked(String),
    Open(String, SessionKey),
    Dropped(String, u64),
    Drained(String),
    Close(String, Ended),
}

/// The reports of all shards, as they come.
pub(crate) struct Reports(Receiver<Report>);

impl Reports {
    /// The next report that `wanted` makes something of.
    #[track_caller]
    pub(crate) fn find<R>(&self, what: &str, mut wanted: impl FnMut(Report) -> Option<R>) -> R {
        loop {
            match self.0.recv_timeout(DEADLINE) {
                Ok(report) => {
                    if let Some(found) = wanted(report) {
                        return found;
                    }
                }
                Err(error) => panic!("no report of {what}: {error}"),
            }
        }
    }

    /// The next session that is opened.
    #[track_caller]
    pub(crate) fn opened(&self) -> (String, SessionKey) {
        self.find("a beginning", |report| match report {
            Report::Open(name, key) => Some((name, key)),
            _ => None,
        })
    }

    /// The next end.
    #[track_caller]
    pub(crate) fn closed(&self) -> (String, Ended) {
        self.find("an end", |report| match report {
            Report::Close(name, ended) => Some((name, ended)),
            _ => None,
        })
    }

    /// All that has come so far.
    pub(crate) fn so_far(&self) -> Vec<Report> {
        self.0.try_iter().collect()
    }

    /// All that is left, once the server has ended.
    #[track_caller]
    pub(crate) fn rest(&self) -> Vec<Report> {
        let mut rest = Vec::new();
        loop {
            match self.0.recv_timeout(DEADLINE) {
                Ok(report) => rest.push(report),
                Err(RecvTimeoutError::Disconnected) => return rest,
                Err(RecvTimeoutError::Timeout) => panic!("a shard has not let go of its handler"),
            }
        }
    }

    /// The ends that are left, once the server has ended.
    #[track_caller]
    pub(crate) fn ends(&self) -> Vec<(String, Ended)> {
        let ends = self.rest().into_iter().filter_map(|report| match report {
            Report::Close(name, ended) => Some((name, ended)),
            _ => None,
        });
        ends.collect()
    }
}

/// What is kept with a session.
pub(crate) struct Wires {
    name: String,
    /// The calls in which the application panics.
    broken: String,
}

/// What the session of this name may do.
pub(crate) type Options = Arc<dyn Fn(&str) -> Option<SessionOptions> + Send + Sync>;

/// The application of one shard.
pub(crate) struct Rig {
    reports: Sender<Report>,
    options: Options,
}

impl Rig {
    /// What makes the application of each shard, and its reports.
    pub(crate) fn maker(options: Options) -> (impl Fn(usize) -> Self + Send + Sync + 'static, Reports) {
        silence();
        let (reports, receiver) = channel();
        (move |_| Self { reports: reports.clone(), options: options.clone() }, Reports(receiver))
    }

    fn report(&self, report: Report) {
        // A test that does not listen any more has what it wants.
        let _ = self.reports.send(report);
    }

    /// Panics if the session was opened for that.
    fn meet(session: &Session<'_, Wires>, call: &str) {
        if session.data().broken.split('+').any(|broken| broken == call) {
            panic!("{TOLD}");
        }
    }

    /// Does what a text says: a verb, a number, and the rest of the line.
    fn obey(session: &mut Session<'_, Wires>, order: &str) {
        let mut words = order.splitn(3, ' ');
        let (verb, word, rest) =
            (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let number = || word.parse::<usize>().expect("a number");
        match verb {
            "panic" => panic!("{TOLD}"),
            "subscribe" => drop(session.subscribe(word).expect("a sound topic")),
            "publish" => drop(session.publish(word, rest)),
            "publish+panic" => {
                session.publish(word, rest);
                panic!("{TOLD}");
            }
            "fragment+panic" => {
                session.send_first(MessageKind::Text, word.as_bytes());
                panic!("{TOLD}");
            }
            "send" => drop(session.send(&vec![b's'; number()])),
            "begin" => drop(session.send_first(MessageKind::Text, word.as_bytes())),
            "finish" => drop(session.send_next(word.as_bytes(), true)),
            "ping" => drop(session.ping(word.as_bytes())),
            "sleep" => std::thread::sleep(Duration::from_millis(number() as u64)),
            "pause" => session.pause_receiving(),
            "terminate" => session.terminate(),
            "close" | "close+panic" => {
                session.close(CloseCode::new(number() as u16).expect("a code that may be sent"), rest);
                assert!(verb == "close", "{TOLD}");
            }
            "round_trip" => {
                let micros = session.round_trip().map_or(0, |time| time.as_micros());
                session.send(&micros.to_string());
            }
            "queued" => {
                let bytes = session.buffered_bytes().to_string();
                session.send(&bytes);
            }
            _ => drop(session.send(order)),
        }
    }
}

impl Handler for Rig {
    type Data = Wires;

    fn on_upgrade(&mut self, _: &mut Context<'_, Wires>, request: &UpgradeRequest<'_>) -> Upgrade<Wires> {
        let name = request.path().trim_start_matches('/').to_owned();
        let broken = request.query().unwrap_or_default().to_owned();
        self.report(Report::Asked(name.clone()));
        assert!(broken != "on_upgrade", "{TOLD}");
        let options = (self.options)(&name);
        let upgrade = Upgrade::accept(Wires { name, broken });
        match options {
            Some(options) => upgrade.options(options),
            None => upgrade,
        }
    }

    fn on_open(&mut self, session: &mut Session<'_, Wires>) {
        self.report(Report::Open(session.data().name.clone(), session.key()));
        Self::meet(session, "on_open");
    }

    fn on_message(&mut self, session: &mut Session<'_, Wires>, message: Message<'_>) {
        Self::meet(session, "on_message");
        match message {
            Message::Text(order) => Self::obey(session, order),
            message => drop(session.send(message)),
        }
    }

    fn on_chunk(&mut self, session: &mut Session<'_, Wires>, _: Chunk<'_>) {
        Self::meet(session, "on_chunk");
    }

    fn on_drain(&mut self, session: &mut Session<'_, Wires>) {
        self.report(Report::Drained(session.data().name.clone()));
        Self::meet(session, "on_drain");
    }

    fn on_dropped(&mut self, session: &mut Session<'_, Wires>, count: u64) {
        self.report(Report::Dropped(session.data().name.clone(), count));
        Self::meet(session, "on_dropped");
    }

    fn on_ping(&mut self, session: &mut Session<'_, Wires>, _: &[u8]) {
        Self::meet(session, "on_ping");
    }

    fn on_pong(&mut self, session: &mut Session<'_, Wires>, _: &[u8]) {
        Self::meet(session, "on_pong");
    }

    fn on_close(&mut self, _: &mut Context<'_, Wires>, wires: Wires, ended: &Ended) {
        self.report(Report::Close(wires.name, ended.clone()));
        assert!(!wires.broken.split('+').any(|call| call == "on_close"), "{TOLD}");
    }

    fn on_request(&mut self, _: &mut Context<'_, Wires>, request: &Request<'_>) -> Response {
        assert!(request.path() != "/panic", "{TOLD}");
        Response::new(200).text("here\n")
    }
}

/// Panics that were asked for are not printed.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some(TOLD) {
                before(panic);
            }
        }));
    });
}
