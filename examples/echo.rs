//! Says back what it is told: `cargo run --release --example echo [ADDRESS:PORT]`, then connect to the URL it prints.

use ringwave::{Config, Context, Handler, Message, Server, Session, Upgrade, UpgradeRequest};
use std::io;

struct Echo;

impl Handler for Echo {
    /// Nothing is kept with a session.
    type Data = ();

    /// Everybody gets a WebSocket, whatever the path.
    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    /// Text comes back as text, binary as binary.
    fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        session.send(message);
    }
}

fn main() -> io::Result<()> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen = address.parse().map_err(io::Error::other)?;
    }
    // One handler for each shard, made on the shard's own thread.
    let server = Server::start(config, |_shard| Echo)?;
    println!("echo on ws://{}/", server.local_addr());
    server.join()
}
