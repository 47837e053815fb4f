//! The peer on tokio-tungstenite.
//!
//! The buffers are its default, 128 KiB each way, which its manual has for high load; writes leave when a batch is fed.

use peer::Service;
use peer::room::Room;
use peer::socket::{echo, fan_out};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

fn main() -> std::io::Result<()> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(peer::MESSAGE_BYTES_MAX))
        .max_frame_size(Some(peer::MESSAGE_BYTES_MAX));
    let room = Room::default();
    peer::serve(move |stream| {
        let room = room.clone();
        async move {
            let mut service = None;
            let Ok(socket) = accept_hdr_async_with_config(stream, route(&mut service), Some(config)).await else {
                return;
            };
            // How a connection ends is no matter here.
            let _ = match service {
                Some(Service::FanOut) => fan_out(socket, &room, answer).await,
                _ => echo(socket, answer).await,
            };
        }
    })
}

#[expect(clippy::result_large_err, reason = "the crate wants it so")]
fn route(service: &mut Option<Service>) -> impl FnOnce(&Request, Response) -> Result<Response, ErrorResponse> {
    |request, response| {
        *service = Service::at(request.uri().path());
        if service.is_some() { Ok(response) } else { Err(not_found()) }
    }
}

fn not_found() -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::NOT_FOUND;
    response
}

fn answer(message: Result<Message, Error>) -> Result<Option<Message>, Error> {
    Ok(Some(message?).filter(|message| message.is_text() || message.is_binary()))
}
