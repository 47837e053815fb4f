//! A WebSocket connection without the network: both halves together, and the order in which to call them.
//!
//! 1. [`Connection::receive`] lends the bytes that a read brought.
//! 2. [`Events::next_event`] is pulled until it answers `None`; only then may the bytes be used again. After
//!    [`Event::Request`](super::decoder::Event::Request) the server says what follows
//!    ([`Events::accept_upgrade`] or [`Events::accept_next_request`]). While an event is looked at, the encoder
//!    stays at hand: `receive` lends it beside the events.
//! 3. `encode_*` writes frames into the caller's buffer at any time; the caller sends them in that order.
//! 4. After an error or a close event nothing more is read. Answer (a [`Failure`](super::error::Failure) says
//!    with what), then close the transport.
//!
//! Every split of the same input gives the same events; of a message that is handed out in chunks
//! ([`Delivery::Chunks`](crate::Delivery::Chunks)) it gives the same bytes at the same place among them.
//!
//! ```
//! use ringwave::protocol::connection::Connection;
//! use ringwave::protocol::decoder::Event;
//! use ringwave::protocol::encoder::Server;
//! use ringwave::protocol::message::Message;
//! use ringwave::Limits;
//!
//! let limits = Limits::default();
//! let mut connection = Connection::<Server>::open();
//! let mut out = Vec::new();
//! // RFC 6455 §5.7: a masked "Hello".
//! let mut wire = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
//! let (mut events, encoder) = connection.receive(&mut wire, &limits);
//! while let Some(event) = events.next_event()? {
//!     if let Event::Message(message) | Event::Assembled(message, _) = event {
//!         assert_eq!(message, Message::Text("Hello"));
//!         encoder.encode_message((), message, &mut out)?;
//!     }
//! }
//! assert_eq!(out, b"\x81\x05Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::decoder::{Decoder, Events};
use super::encoder::{Client, Encoder, Role, Server};
use super::handshake::{ClientRequest, ExpectedResponse};
use super::response::HeaderInvalid;
use crate::base::limits::Limits;

/// Both halves of one connection: 24 bytes, no buffer while it is idle.
#[derive(Debug)]
pub struct Connection<R> {
    /// The receiving half.
    pub decoder: Decoder<R>,
    /// The sending half.
    pub encoder: Encoder<R>,
}

const _: () = assert!(size_of::<Connection<Server>>() <= 24);

impl Default for Connection<Server> {
    /// A server's connection: the first thing it reads is a request.
    fn default() -> Self {
        Self { decoder: Decoder::default(), encoder: Encoder::default() }
    }
}

impl Connection<Client> {
    /// A client's connection: appends the request to `out`; the first thing it reads is the response.
    pub fn request(request: &ClientRequest<'_>, out: &mut Vec<u8>) -> Result<Self, HeaderInvalid> {
        let expected: ExpectedResponse = request.encode(out)?;
        Ok(Self { decoder: Decoder::expecting(expected), encoder: Encoder::default() })
    }
}

impl<R: Role> Connection<R> {
    /// A connection whose WebSocket is open already.
    pub fn open() -> Self {
        Self { decoder: Decoder::open(), encoder: Encoder::default() }
    }

    /// Lends bytes, and the encoder to answer with.
    pub fn receive<'a>(&'a mut self, bytes: &'a mut [u8], limits: &'a Limits) -> (Events<'a, R>, &'a mut Encoder<R>) {
        (self.decoder.receive(bytes, limits), &mut self.encoder)
    }
}
