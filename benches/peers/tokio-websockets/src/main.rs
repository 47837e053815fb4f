//! The peer on tokio-websockets.
//!
//! Frames wait as header and payload and leave in one vectored write. Messages are never split: others do not either.

use peer::Service;
use peer::room::Room;
use peer::socket::{echo, fan_out};
use tokio_websockets::{Config, Error, Limits, Message, ServerBuilder};

/// Its default, 8 KiB, would flush in the middle of a batch.
const FLUSH_THRESHOLD: usize = 64 << 10;

fn main() -> std::io::Result<()> {
    let room = Room::default();
    peer::serve(move |stream| {
        let room = room.clone();
        async move {
            let builder = ServerBuilder::new()
                .config(Config::default().frame_size(peer::MESSAGE_BYTES_MAX).flush_threshold(FLUSH_THRESHOLD))
                .limits(Limits::default().max_payload_len(Some(peer::MESSAGE_BYTES_MAX)));
            let Ok((request, socket)) = builder.accept(stream).await else { return };
            // How a connection ends is no matter here. It has its 101 already, so other paths can only be closed.
            let _ = match Service::at(request.uri().path()) {
                Some(Service::FanOut) => fan_out(socket, &room, answer).await,
                Some(Service::Echo) => echo(socket, answer).await,
                None => Ok(()),
            };
        }
    })
}

fn answer(message: Result<Message, Error>) -> Result<Option<Message>, Error> {
    Ok(Some(message?).filter(|message| message.is_text() || message.is_binary()))
}
