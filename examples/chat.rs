//! Chat rooms: `cargo run --release --example chat [ADDRESS:PORT]`, then connect to `/?room=tea&name=ann`.
//!
//! A room is a topic. Text goes to everybody in the room, on whatever shard; who joins and who leaves is announced.

use ringwave::{
    CloseCode, Config, Context, Ended, Handler, Message, Response, Server, Session, Upgrade, UpgradeRequest,
};
use std::{io, rc::Rc};

struct Chat;

/// What is kept with each session. It never leaves its shard's thread, so it need not be `Send`.
#[derive(Clone)]
struct Member {
    room: Rc<str>,
    name: Rc<str>,
}

impl Handler for Chat {
    type Data = Member;

    fn on_upgrade(&mut self, _: &mut Context<'_, Member>, request: &UpgradeRequest<'_>) -> Upgrade<Member> {
        let pairs = request.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        // Taken as they stand in the URL: percent signs are not decoded.
        let value = |name: &str| pairs.clone().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        let (room, name) = (value("room"), value("name"));
        if room.is_empty() || room.len() > 255 || name.is_empty() {
            return Upgrade::reject(Response::new(400).text("connect to /?room=tea&name=ann\n"));
        }
        Upgrade::accept(Member { room: room.into(), name: name.into() })
    }

    fn on_open(&mut self, session: &mut Session<'_, Member>) {
        let Member { room, name } = session.data().clone();
        session.subscribe(&room).expect("on_upgrade has checked the name's length");
        session.publish(&room, &format!("{name} joins"));
    }

    fn on_message(&mut self, session: &mut Session<'_, Member>, message: Message<'_>) {
        let Member { room, name } = session.data().clone();
        match message {
            Message::Text(text) => _ = session.publish(&room, &format!("{name}: {text}")),
            Message::Binary(_) => session.close(CloseCode::UNSUPPORTED, "text only"),
        }
    }

    fn on_close(&mut self, context: &mut Context<'_, Member>, member: Member, _: &Ended) {
        context.publish(&member.room, &format!("{} leaves", member.name));
    }
}

fn main() -> io::Result<()> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen = address.parse().map_err(io::Error::other)?;
    }
    let server = Server::start(config, |_shard| Chat)?;
    println!("chat on ws://{}/?room=tea&name=ann", server.local_addr());
    server.join()
}
