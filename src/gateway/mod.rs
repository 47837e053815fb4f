//! Floor 5: the stand-alone server's application. It uses the library as anybody may.
//!
//! | path | what |
//! |---|---|
//! | `/echo` | a WebSocket that says back what it is told |
//! | `/ws?topic=a&topic=b` | a WebSocket on topics: their messages arrive as they are, what is sent goes to each of them |
//! | `/livez` | 200 while the process lives |
//! | `/readyz` | 200 while it wants connections, 503 once it was told to end |
//! | `/metrics` | counters as OpenMetrics text |
//! | `/` | a page to try it with |

pub(crate) mod args;
pub(crate) mod console;
pub(crate) mod doctor;
mod line;
pub(crate) mod log;
mod metrics;
mod values;

use log::{Event, Log};
use metrics::Scrape;
use ringwave::base::limits::{PATTERN_LEVELS_MAX, TOPIC_BYTES_MAX};
use ringwave::{
    Context, Ended, Handler, Message, Request, Response, Session, Upgrade, UpgradeRequest, upgrade_required,
};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::SystemTime;

const PAGE: &str = include_str!("page.html");
/// The page runs its own script and connects back to us; it loads nothing from anywhere.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// What the applications of all shards share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) log: Log,
    /// Whether a topic may be a pattern.
    pub(crate) wildcards: bool,
    pub(crate) started: SystemTime,
}

/// The application: one on each shard.
pub(crate) struct App {
    common: Common,
    echo: Client,
    recent: Recent,
}

/// Who named which topics last, each at a place that its topics' hash gives: where many come for the same they share one
/// list of them.
struct Recent {
    places: Vec<Option<Client>>,
    hashes: RandomState,
}

/// What a session was opened for. Sessions for the same share it: a million of them cost their pointers.
#[derive(Clone)]
pub(crate) struct Client(Rc<Purpose>);

// With more, the engine's record of a session grows beyond 64 and 8 bytes.
const _: () = assert!(size_of::<Option<Client>>() == 8);

enum Purpose {
    /// `/echo`.
    Echo,
    /// `/ws`.
    Topics(Topics),
}

impl Client {
    fn is_on(&self, topics: &Topics) -> bool {
        matches!(&*self.0, Purpose::Topics(known) if known == topics)
    }
}

impl Recent {
    const PLACES: usize = 256;

    fn client_on(&mut self, topics: Topics) -> Client {
        let place = self.hashes.hash_one(&topics) as usize % Self::PLACES;
        let place = &mut self.places[place];
        place.take_if(|client| !client.is_on(&topics));
        place.get_or_insert_with(|| Client(Rc::new(Purpose::Topics(topics)))).clone()
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self { places: vec![None; Self::PLACES], hashes: RandomState::new() }
    }
}

impl App {
    pub(crate) fn new(common: Common) -> Self {
        Self { common, echo: Client(Rc::new(Purpose::Echo)), recent: Recent::default() }
    }

    fn tell_refused(&self, context: &Context<'_, Client>, status: u16, path: &str) {
        let log = &self.common.log;
        if log.tells_all() {
            let (shard, peer) = (context.shard(), context.peer_addr());
            log.tell(Event::RequestRefused { shard, peer, status, path: path.to_owned() });
        }
    }

    fn client_for(&mut self, request: &UpgradeRequest<'_>) -> Result<Client, Response> {
        match request.path() {
            "/echo" => Ok(self.echo.clone()),
            "/ws" => match Topics::of(request.query().unwrap_or_default(), self.common.wildcards) {
                Ok(topics) => Ok(self.recent.client_on(topics)),
                Err(reason) => Err(Response::new(400).text(reason)),
            },
            _ => Err(Response::new(404).text("there is no WebSocket here: try /echo or /ws?topic=a\n")),
        }
    }
}

impl Handler for App {
    type Data = Client;

    fn on_upgrade(&mut self, context: &mut Context<'_, Client>, request: &UpgradeRequest<'_>) -> Upgrade<Client> {
        match self.client_for(request) {
            Ok(client) => Upgrade::accept(client),
            Err(response) => {
                self.tell_refused(context, response.status(), request.path());
                Upgrade::reject(response)
            }
        }
    }

    fn on_refused(&mut self, context: &mut Context<'_, Client>, request: Option<&Request<'_>>, response: &Response) {
        self.tell_refused(context, response.status(), request.map_or("", Request::path));
    }

    fn on_open(&mut self, session: &mut Session<'_, Client>) {
        let client = session.data().clone();
        if let Purpose::Topics(topics) = &*client.0 {
            for topic in topics.names.iter().chain(&topics.patterns) {
                session.subscribe(topic).expect("Topics::of has checked names and count");
            }
        }
    }

    fn on_message(&mut self, session: &mut Session<'_, Client>, message: Message<'_>) {
        if let Purpose::Echo = *session.data().0 {
            session.send(message);
            return;
        }
        let client = session.data().clone();
        if let Purpose::Topics(topics) = &*client.0 {
            let message = session.prepare(message);
            for topic in &topics.names {
                session.publish_prepared(topic, &message);
            }
        }
    }

    fn on_close(&mut self, context: &mut Context<'_, Client>, _: Client, ended: &Ended) {
        self.common.log.session_ended(context.shard(), ended);
    }

    fn on_request(&mut self, context: &mut Context<'_, Client>, request: &Request<'_>) -> Response {
        let path = request.path();
        if !matches!(path, "/" | "/livez" | "/readyz" | "/metrics" | "/echo" | "/ws") {
            return Response::new(404)
                .text("not found: try /, /livez, /readyz, /metrics, or a WebSocket on /echo or /ws?topic=a\n");
        }
        if !matches!(request.method(), "GET" | "HEAD") {
            return Response::new(405).header("Allow", "GET, HEAD").text("this is read with GET\n");
        }
        let fresh = |status| Response::new(status).header("Cache-Control", "no-store");
        match path {
            "/" => Response::new(200)
                .header("Content-Security-Policy", PAGE_POLICY)
                .header("X-Content-Type-Options", "nosniff")
                .header("Referrer-Policy", "no-referrer")
                .body("text/html; charset=utf-8", PAGE),
            "/livez" => fresh(200).text("ok\n"),
            "/readyz" if context.handle().is_draining() => fresh(503).text("draining\n"),
            "/readyz" => fresh(200).text("ready\n"),
            "/metrics" => {
                let Common { log, started, .. } = &self.common;
                let scrape = Scrape { handle: context.handle(), started: *started, log_lines_lost: log.lost_count() };
                fresh(200).body(metrics::CONTENT_TYPE, scrape.into_text())
            }
            _ => upgrade_required("this is a WebSocket: connect with ws://\n"),
        }
    }
}

/// Topics that one connection may name: the library allows more, a query line hardly does.
const TOPICS_MAX: usize = 64;

/// The topics of a session, each once, in the order in which it named them.
#[derive(Debug, Hash, PartialEq, Eq)]
struct Topics {
    /// What it sends goes to these.
    names: Vec<String>,
    /// It only listens to these.
    patterns: Vec<String>,
}

impl Topics {
    /// The topics that a query names.
    fn of(query: &str, wildcards: bool) -> Result<Self, &'static str> {
        let mut topics = Self { names: Vec::new(), patterns: Vec::new() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let list = if is_pattern(&value) { &topics.patterns } else { &topics.names };
            if name != "topic" || list.iter().any(|topic| *topic == value) {
                continue;
            }
            if value.is_empty() || value.len() > TOPIC_BYTES_MAX {
                return Err("a topic's name has 1 to 255 bytes\n");
            }
            if topics.names.len() + topics.patterns.len() == TOPICS_MAX {
                return Err("a connection names at most 64 topics\n");
            }
            if !is_pattern(&value) {
                topics.names.push(value.into_owned());
                continue;
            }
            if !wildcards {
                return Err("a level of a topic is not + or #: this server knows no wildcards\n");
            }
            // MQTT 3.1.1 §4.7.1.2: `#` is the last level.
            if value.split('/').rev().skip(1).any(|level| level == "#") {
                return Err("# stands at the end of a topic only\n");
            }
            if value.split('/').count() > PATTERN_LEVELS_MAX {
                return Err("a topic with wildcards has at most 32 levels\n");
            }
            topics.patterns.push(value.into_owned());
        }
        let is_empty = topics.names.is_empty() && topics.patterns.is_empty();
        if is_empty { Err("name a topic: /ws?topic=a\n") } else { Ok(topics) }
    }
}

/// Whether the engine takes this for a pattern.
fn is_pattern(topic: &str) -> bool {
    topic.split('/').any(|level| matches!(level, "+" | "#"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_the_query() {
        let names = |query: &str| Topics::of(query, false).map(|topics| topics.names);
        assert_eq!(names("topic=a&topic=b"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(names("x=1&topic=a+b%2Fc&topic=a%20b/c"), Ok(vec!["a b/c".to_owned()]));
        assert_eq!(names("topic=a%2Bb/c%23"), Ok(vec!["a+b/c#".to_owned()]));
        assert!(names("").is_err());
        assert!(names("topic=").is_err());
        assert!(names(&format!("topic={}", "x".repeat(256))).is_err());
        let many: String = (0..65).map(|number| format!("topic={number}&")).collect();
        assert!(names(&many).is_err());
        assert!(names("topic=a/%2B").is_err() && names("topic=%23").is_err());
    }

    #[test]
    fn sessions_on_the_same_topics_share_them() {
        let mut recent = Recent::default();
        let mut on = |query: &str| recent.client_on(Topics::of(query, false).expect("sound"));
        let [first, second, other] = ["topic=a&topic=b", "topic=a&topic=b", "topic=b&topic=a"].map(&mut on);
        assert!(Rc::ptr_eq(&first.0, &second.0) && !Rc::ptr_eq(&first.0, &other.0));
        for number in 0..10 * Recent::PLACES {
            let topic = format!("topic={number}");
            assert!(on(&topic).is_on(&Topics::of(&topic, false).expect("sound")));
        }
    }

    #[test]
    fn patterns_are_told_from_names_where_they_are_allowed() {
        let topics = Topics::of("topic=a/%2B&topic=b&topic=%23&topic=a/%2B", true).expect("sound");
        assert_eq!(topics.names, ["b"]);
        assert_eq!(topics.patterns, ["a/+", "#"]);
        assert!(Topics::of("topic=a/%23/b", true).is_err());
        let levels = |count: usize| format!("topic={}%2B", "a/".repeat(count - 1));
        assert!(Topics::of(&levels(32), true).is_ok());
        assert!(Topics::of(&levels(33), true).is_err());
    }
}
