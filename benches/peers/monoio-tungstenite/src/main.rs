//! The peer on monoio-tungstenite, the one on io_uring.
//!
//! The ring has room for a submission of each connection that has something to do in a turn. Answers to messages that
//! came together leave together; in a fan-out a message is encoded once, and all get the same bytes.

mod stream;

use bytes::Bytes;
use local_sync::mpsc::unbounded::{Rx, Tx, channel};
use monoio::io::stream::Stream;
use monoio::io::{AsyncWriteRentExt, Splitable};
use monoio::net::tcp::TcpOwnedWriteHalf;
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use monoio_tungstenite::handshake::server::{ErrorResponse, Request, Response};
use monoio_tungstenite::http::StatusCode;
use monoio_tungstenite::protocol::frame::Frame;
use monoio_tungstenite::protocol::frame::coding::{Data, OpCode};
use monoio_tungstenite::protocol::{Role, WebSocketConfig};
use monoio_tungstenite::{Error, Message, WebSocket, accept_hdr};
use peer::Service;
use slab::Slab;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use stream::{Answering, Reading, Unsent};

const SUBMISSIONS_MAX: u32 = 4096;
/// What is gathered for one write, as soon as it is longer.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// The queues of all that are in the fan-out.
type Room = Rc<RefCell<Slab<Tx<Bytes>>>>;

fn main() -> io::Result<()> {
    let listener = peer::listen()?;
    // The ring waits where others poll.
    listener.set_nonblocking(false)?;
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(SUBMISSIONS_MAX).build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let room = Room::default();
        loop {
            // A client that went away meanwhile is no reason to end; without descriptors there is nothing left to do.
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let room = Rc::clone(&room);
            monoio::spawn(async move {
                // How a connection ends is no matter here.
                let _ = serve(stream, room).await;
            });
        }
    })
}

async fn serve(stream: TcpStream, room: Room) -> Result<(), Error> {
    let mut service = None;
    let route = |request: &Request, response: Response| {
        service = Service::at(request.uri().path());
        if service.is_some() { Ok(response) } else { Err(not_found()) }
    };
    // Clients wait for the answer before they send, so nothing but the stream is to be kept.
    let stream = accept_hdr(stream, route).await?.into_inner();
    if service == Some(Service::FanOut) { fan_out(stream, &room).await } else { echo(stream).await }
}

fn not_found() -> Box<ErrorResponse> {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = StatusCode::NOT_FOUND;
    Box::new(response)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(peer::MESSAGE_BYTES_MAX))
        .max_frame_size(Some(peer::MESSAGE_BYTES_MAX))
        // Only control frames go through it.
        .write_buffer_size(0)
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    let unsent = Unsent::default();
    let stream = Answering::new(stream, Rc::clone(&unsent));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config()));
    while let Some(message) = socket.next().await {
        if let Some(frame) = data_frame(message?) {
            frame.format(&mut *unsent.borrow_mut())?;
        }
        if unsent.borrow().len() > GATHERED_BYTES_MAX {
            socket.get_mut().send().await?;
        }
    }
    Ok(())
}

/// Reading and writing are two tasks: a read that has begun must not be dropped.
async fn fan_out(stream: TcpStream, room: &Room) -> Result<(), Error> {
    let (read_half, write_half) = stream.into_split();
    let (own, queue) = channel();
    monoio::spawn(deliver(queue, write_half));
    let key = room.borrow_mut().insert(own.clone());
    let ended = publish(read_half, room, &own).await;
    // The last that holds on to the queue: what is in it is sent, and the other task ends.
    room.borrow_mut().remove(key);
    ended
}

async fn publish(read_half: monoio::net::tcp::TcpOwnedReadHalf, room: &Room, own: &Tx<Bytes>) -> Result<(), Error> {
    let mut socket = WebSocket::from_raw_socket(Reading(read_half), Role::Server, Some(config()));
    while let Some(message) = socket.next().await {
        match message? {
            Message::Ping(payload) => tell(own, encode(Frame::pong(payload))?),
            Message::Close(reason) => {
                tell(own, encode(Frame::close(reason))?);
                break;
            }
            message => {
                let Some(frame) = data_frame(message) else { continue };
                let frame = encode(frame)?;
                for (_, queue) in room.borrow().iter() {
                    tell(queue, frame.clone());
                }
            }
        }
    }
    Ok(())
}

fn tell(queue: &Tx<Bytes>, frame: Bytes) {
    // One whose other task has ended is about to leave.
    let _ = queue.send(frame);
}

async fn deliver(mut queue: Rx<Bytes>, mut output: TcpOwnedWriteHalf) -> io::Result<()> {
    let mut gathered = Vec::new();
    while let Some(frame) = queue.recv().await {
        gathered.extend_from_slice(&frame);
        while gathered.len() < GATHERED_BYTES_MAX
            && let Ok(frame) = queue.try_recv()
        {
            gathered.extend_from_slice(&frame);
        }
        let (result, sent) = output.write_all(gathered).await;
        result?;
        gathered = sent;
        gathered.clear();
    }
    Ok(())
}

fn data_frame(message: Message) -> Option<Frame> {
    match message {
        Message::Text(text) => Some(Frame::message(text, OpCode::Data(Data::Text), true)),
        Message::Binary(bytes) => Some(Frame::message(bytes, OpCode::Data(Data::Binary), true)),
        _ => None,
    }
}

fn encode(frame: Frame) -> Result<Bytes, Error> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes)?;
    Ok(bytes.into())
}
