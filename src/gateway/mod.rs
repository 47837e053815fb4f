//! Floor 5: the stand-alone server's application. It uses the library as anybody may.
//!
//! | path | what |
//! |---|---|
//! | `/echo` | a WebSocket that says back what it is told |
//! | `/ws?topic=a&topic=b` | a WebSocket on topics: their messages arrive as they are, what is sent goes to each of them |
//! | `/livez` | 200 while the process lives |
//! | `/` | a page to try it with |

pub(crate) mod args;
pub(crate) mod console;

use ringwave::base::limits::TOPIC_BYTES_MAX;
use ringwave::{Context, Handler, Message, Request, Response, Session, Upgrade, UpgradeRequest, upgrade_required};

const PAGE: &str = include_str!("page.html");
/// The page runs its own script and connects back to us; it loads nothing from anywhere.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// The application: one on each shard, without state of its own.
pub(crate) struct App;

/// What a session was opened for.
pub(crate) enum Client {
    /// `/echo`.
    Echo,
    /// `/ws`: the topics it publishes to, in the order it named them.
    Topics(Box<[String]>),
}

impl Handler for App {
    type Data = Client;

    fn on_upgrade(&mut self, _: &mut Context<'_, Client>, request: &UpgradeRequest<'_>) -> Upgrade<Client> {
        match request.path() {
            "/echo" => Upgrade::accept(Client::Echo),
            "/ws" => match topics_of(request.query().unwrap_or_default()) {
                Ok(topics) => Upgrade::accept(Client::Topics(topics)),
                Err(reason) => Upgrade::reject(Response::new(400).text(reason)),
            },
            _ => Upgrade::reject(Response::new(404).text("there is no WebSocket here: try /echo or /ws?topic=a\n")),
        }
    }

    fn on_open(&mut self, session: &mut Session<'_, Client>) {
        let Client::Topics(topics) = session.data_mut() else { return };
        let topics = std::mem::take(topics);
        for topic in &topics {
            session.subscribe(topic).expect("topics_of has checked names and count");
        }
        *session.data_mut() = Client::Topics(topics);
    }

    fn on_message(&mut self, session: &mut Session<'_, Client>, message: Message<'_>) {
        match session.data_mut() {
            Client::Echo => {
                session.send(message);
            }
            Client::Topics(topics) => {
                // Taken out for the call: publishing needs the whole shard.
                let topics = std::mem::take(topics);
                let message = session.prepare(message);
                for topic in &topics {
                    session.publish_prepared(topic, &message);
                }
                *session.data_mut() = Client::Topics(topics);
            }
        }
    }

    fn on_request(&mut self, _: &mut Context<'_, Client>, request: &Request<'_>) -> Response {
        let path = request.path();
        if !matches!(path, "/" | "/livez" | "/echo" | "/ws") {
            return Response::new(404).text("not found: try /, /livez, or a WebSocket on /echo or /ws?topic=a\n");
        }
        if !matches!(request.method(), "GET" | "HEAD") {
            return Response::new(405).header("Allow", "GET, HEAD").text("this is read with GET\n");
        }
        match path {
            "/" => Response::new(200)
                .header("Content-Security-Policy", PAGE_POLICY)
                .header("X-Content-Type-Options", "nosniff")
                .header("Referrer-Policy", "no-referrer")
                .body("text/html; charset=utf-8", PAGE),
            "/livez" => Response::new(200).header("Cache-Control", "no-store").text("ok\n"),
            _ => upgrade_required("this is a WebSocket: connect with ws://\n"),
        }
    }
}

/// Topics that one connection may name: the library allows more, a query line hardly does.
const TOPICS_MAX: usize = 64;

/// The topics that a query names, each once.
fn topics_of(query: &str) -> Result<Box<[String]>, &'static str> {
    let mut topics: Vec<String> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "topic" || topics.iter().any(|topic| *topic == value) {
            continue;
        }
        if value.is_empty() || value.len() > TOPIC_BYTES_MAX {
            return Err("a topic's name has 1 to 255 bytes\n");
        }
        if topics.len() == TOPICS_MAX {
            return Err("a connection names at most 64 topics\n");
        }
        topics.push(value.into_owned());
    }
    if topics.is_empty() { Err("name a topic: /ws?topic=a\n") } else { Ok(topics.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_the_query() {
        let topics = |query: &str| topics_of(query).map(Vec::from);
        assert_eq!(topics("topic=a&topic=b"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(topics("x=1&topic=a+b%2Fc&topic=a%20b/c"), Ok(vec!["a b/c".to_owned()]));
        assert!(topics("").is_err());
        assert!(topics("topic=").is_err());
        assert!(topics(&format!("topic={}", "x".repeat(256))).is_err());
        let many: String = (0..65).map(|number| format!("topic={number}&")).collect();
        assert!(topics(&many).is_err());
    }
}
