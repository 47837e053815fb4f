//! A ticker: `cargo run --release --example ticker [ADDRESS:PORT]`, then connect to `/`.
//!
//! A thread of its own publishes ten times a second to whoever is connected. Each price takes the place of the one before
//! in the queue of a client that reads slowly, so that what it gets is never old.

use ringwave::{
    Config, Context, Handler, Message, Policy, PostError, Prepared, Server, Session, SessionOptions, Upgrade,
    UpgradeRequest,
};
use std::time::{Duration, Instant};
use std::{io, thread};

struct Ticker;

impl Handler for Ticker {
    type Data = ();

    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
        Upgrade::accept(()).options(SessionOptions { policy: Policy::Conflate, ..SessionOptions::default() })
    }

    fn on_open(&mut self, session: &mut Session<'_, ()>) {
        session.subscribe("prices").expect("a sound name, and the session's first");
    }

    fn on_message(&mut self, _: &mut Session<'_, ()>, _: Message<'_>) {}
}

fn main() -> io::Result<()> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen = address.parse().map_err(io::Error::other)?;
    }
    let server = Server::start(config, |_shard| Ticker)?;
    println!("prices on ws://{}/", server.local_addr());
    let handle = server.handle();
    thread::spawn(move || {
        let start = Instant::now();
        loop {
            for (key, name) in ["gold", "silver", "copper"].into_iter().enumerate() {
                let price = 100.0 + (start.elapsed().as_secs_f64() + key as f64).sin();
                // Encoded once, however many listen; one key for each metal.
                let message = Prepared::new(&format!("{{\"metal\":\"{name}\",\"price\":{price:.2}}}"));
                match handle.publish_keyed("prices", key as u64, &message) {
                    // The next one comes soon.
                    Ok(()) | Err(PostError::MailboxFull | PostError::Congested) => {}
                }
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    server.join()
}
