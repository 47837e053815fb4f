//! The peer on yawc.
//!
//! The buffers are those of its own benchmarks. Text is checked, which it leaves out unless it is asked, since all the
//! others check it.

use peer::Service;
use peer::room::Room;
use peer::socket::{echo, fan_out};
use yawc::{Frame, HttpWebSocket, OpCode, Options, Role, WebSocket, WebSocketError};

const READ_BUFFER_BYTES: usize = 128 << 10;
const WRITE_BOUNDARY_BYTES: usize = 64 << 10;

fn main() -> std::io::Result<()> {
    let room = Room::default();
    peer::serve(move |stream| {
        let room = room.clone();
        async move {
            let upgrade = |request: &mut _| HttpWebSocket::upgrade_with_options(request, options()).map(|(it, _)| it);
            let Some((stream, service)) = peer::hyper::accept(stream, upgrade).await else { return };
            let Ok(socket) = WebSocket::from_stream(stream, Role::Server, options()) else { return };
            // How a connection ends is no matter here.
            let _ = match service {
                Service::FanOut => fan_out(socket, &room, answer).await,
                Service::Echo => echo(socket, answer).await,
            };
        }
    })
}

fn options() -> Options {
    Options::default()
        .without_compression()
        .with_utf8()
        .with_limits(peer::MESSAGE_BYTES_MAX, peer::MESSAGE_BYTES_MAX)
        .with_read_buffer_capacity(READ_BUFFER_BYTES)
        .with_backpressure_boundary(WRITE_BOUNDARY_BYTES)
}

fn answer(frame: Frame) -> Result<Option<Frame>, WebSocketError> {
    Ok(Some(frame).filter(|frame| matches!(frame.opcode(), OpCode::Text | OpCode::Binary)))
}
