//! The peer on sockudo-ws.
//!
//! The stream keeps its type (`accept_raw`), writes are batched (`write_coalescing`, the default), and no timer runs:
//! idle sessions stay, and nobody is pinged.

use peer::Service;
use peer::room::Room;
use peer::socket::{echo, fan_out};
use sockudo_ws::server::WebSocketServer;
use sockudo_ws::{Config, Error, Http1, Message};
use std::sync::Arc;

fn main() -> std::io::Result<()> {
    let config = Config::builder().max_payload_length(peer::MESSAGE_BYTES_MAX).idle_timeout(0).auto_ping(false).build();
    let server = Arc::new(WebSocketServer::<Http1>::new(config));
    let room = Room::default();
    peer::serve(move |stream| {
        let (server, room) = (Arc::clone(&server), room.clone());
        async move {
            let Ok((socket, request)) = server.accept_raw(stream).await else { return };
            // How a connection ends is no matter here. It has its 101 already, so other paths can only be closed.
            let _ = match Service::at(&request.path) {
                Some(Service::FanOut) => fan_out(socket, &room, answer).await,
                Some(Service::Echo) => echo(socket, answer).await,
                None => Ok(()),
            };
        }
    })
}

fn answer(message: Result<Message, Error>) -> Result<Option<Message>, Error> {
    Ok(Some(message?).filter(|message| matches!(message, Message::Text(_) | Message::Binary(_))))
}
