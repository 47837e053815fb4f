//! The peer on fastwebsockets.
//!
//! Fragments are collected, writes of more than 1 KiB are vectored (its default), tasks are not interrupted by tokio's
//! budget, as in its own examples. In a fan-out a message is encoded once, and all get the same bytes.

mod gather;

use bytes::Bytes;
use fastwebsockets::upgrade::upgrade;
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocket, WebSocketError,
    after_handshake_split,
};
use gather::{GATHERED_BYTES_MAX, Gather};
use peer::Service;
use peer::room::{Member, Room};
use std::future::ready;
use std::pin::pin;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::unconstrained;

/// The longest header of a frame that is not masked.
const HEADER_BYTES_MAX: usize = 16;
/// How an encoded close begins: it is final, of opcode 8.
const CLOSE: u8 = 0x88;

fn main() -> std::io::Result<()> {
    let room = Room::default();
    peer::serve(move |stream| {
        let room = room.clone();
        async move {
            let upgrade = |request: &mut _| upgrade(request).map(|(response, _)| response);
            let Some((stream, service)) = peer::hyper::accept(stream, upgrade).await else { return };
            // How a connection ends is no matter here.
            let _ = match service {
                Service::Echo => unconstrained(echo(stream)).await,
                Service::FanOut => fan_out(stream, &room).await,
            };
        }
    })
}

async fn echo(stream: TcpStream) -> Result<(), WebSocketError> {
    let mut socket = WebSocket::after_handshake(Gather::new(stream), Role::Server);
    socket.set_max_message_size(peer::MESSAGE_BYTES_MAX);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            // It has answered by itself; what it wrote is still in the buffer.
            OpCode::Close => return Ok(socket.into_inner().flush().await?),
            _ => {}
        }
    }
}

/// Two loops side by side: a read that has begun must not be dropped, as a bare `select!` between reading and receiving
/// would do.
async fn fan_out(stream: TcpStream, room: &Room<Bytes>) -> Result<(), WebSocketError> {
    let (read_half, write_half) = stream.into_split();
    let (mut reader, _) = after_handshake_split(read_half, tokio::io::sink(), Role::Server);
    reader.set_max_message_size(peer::MESSAGE_BYTES_MAX);
    let mut reader = FragmentCollectorRead::new(reader);
    let (mut member, own) = room.join();
    let publish = async {
        loop {
            // Pongs and the answer to a close go the way of all that is sent.
            let mut control = |frame| ready(own.send(encode(frame)));
            let frame = reader.read_frame(&mut control).await?;
            match frame.opcode {
                OpCode::Text | OpCode::Binary => room.publish(&encode(frame)),
                OpCode::Close => return Ok::<(), WebSocketError>(()),
                _ => {}
            }
        }
    };
    let mut deliver = pin!(deliver(&mut member, BufWriter::with_capacity(GATHERED_BYTES_MAX, write_half)));
    tokio::select! {
        ended = publish => ended?,
        ended = &mut deliver => return Ok(ended?),
    }
    // The answer to a close is in the queue.
    Ok(deliver.await?)
}

/// Ends when it has sent a close.
async fn deliver(member: &mut Member<Bytes>, mut output: BufWriter<OwnedWriteHalf>) -> std::io::Result<()> {
    let mut batch = Vec::new();
    loop {
        member.receive(&mut batch).await;
        for frame in batch.drain(..) {
            output.write_all(&frame).await?;
            if frame.first() == Some(&CLOSE) {
                return output.flush().await;
            }
        }
        output.flush().await?;
    }
}

fn encode(frame: Frame<'_>) -> Bytes {
    // What was read still has its masking key; what is sent must have none.
    let mut frame = Frame::new(true, frame.opcode, None, Payload::Borrowed(&frame.payload));
    let mut bytes = Vec::with_capacity(frame.payload.len() + HEADER_BYTES_MAX);
    let written = frame.write(&mut bytes).len();
    bytes.truncate(written);
    bytes.into()
}
