//! What a message costs in the core beside `memcpy` of the same payloads: reading its header, the whole way from
//! bytes to event, and the way back. `decode` does not touch the payloads: its bytes per second only say what is
//! left for everything else.
//!
//! ```text
//! taskset -c 1 cargo bench --bench frame
//! ```

mod support;

use std::hint::black_box;

use ringwave::Limits;
use ringwave::protocol::connection::Connection;
use ringwave::protocol::encoder::{Client, Encoder, Server};
use ringwave::protocol::frame::{Decoded, FrameHeader, HEADER_BYTES_MAX, Opcode};
use ringwave::protocol::mask::{MaskingKey, apply_mask};
use ringwave::protocol::message::Message;
use support::{Batch, Contender, Options, compare};

/// Changes the lowest bits only, so that text stays ASCII: unmasking in place masks it again for the next turn.
const KEY: MaskingKey = MaskingKey::new([1, 2, 3, 5]);

/// Bytes of a message's payload.
const MESSAGES: [usize; 4] = [20, 125, 1 << 10, 16 << 10];

/// Bytes of short messages that one receive buffer holds, one behind the other.
const RECEIVED_BYTES: usize = 12 << 10;

fn main() {
    let options = Options::from_arguments();
    for bytes in MESSAGES {
        let count = (RECEIVED_BYTES / (HEADER_BYTES_MAX + bytes)).max(1);
        compare_receiving(&options, bytes, count);
        compare_sending(&options, bytes, count);
    }
}

/// Frames as a client sends them, `count` of them in one receive buffer.
fn compare_receiving(options: &Options, bytes: usize, count: usize) {
    let batch = Batch { messages: count, bytes: bytes * count };
    let payload = vec![b'w'; bytes];
    let limits = Limits::default();

    let wire = frames(Opcode::Text, &payload, count);
    let frame_bytes = wire.len() / count;
    let halves = (wire.clone(), frame_bytes / 2);
    let (mut texts, mut binaries) = (wire.clone(), frames(Opcode::Binary, &payload, count));
    let contenders = vec![
        memcpy(&payload, batch),
        Contender::new("decode", batch, move || {
            let mut rest = &wire[..];
            while let Ok(Decoded::Header(header, header_len)) = FrameHeader::decode(black_box(rest)) {
                black_box(header);
                rest = &rest[header_len + header.payload_len as usize..];
            }
        }),
        Contender::new("binary", batch, {
            let mut connection = Connection::open();
            move || receive(&mut connection, &mut binaries, &limits, count)
        }),
        Contender::new("text", batch, {
            let mut connection = Connection::open();
            move || receive(&mut connection, &mut texts, &limits, count)
        }),
        Contender::new("text in halves", batch, {
            let mut connection = Connection::open();
            let (mut wire, half) = halves;
            move || {
                for frame in wire.chunks_exact_mut(frame_bytes) {
                    let (first, second) = frame.split_at_mut(half);
                    receive(&mut connection, first, &limits, 0);
                    receive(&mut connection, second, &limits, 1);
                }
            }
        }),
    ];
    compare(options, &format!("receive: messages of {bytes} bytes, {count} one behind the other"), contenders);
}

/// Pulls all events, which are `count` messages.
fn receive(connection: &mut Connection<Server>, wire: &mut [u8], limits: &Limits, count: usize) {
    let (mut events, _) = connection.receive(black_box(wire), limits);
    let mut said = 0;
    while let Some(event) = events.next_event().expect("sound frames") {
        black_box(event);
        said += 1;
    }
    assert_eq!(said, count);
}

/// The same messages on their way out, from a server and, masked, from a client.
fn compare_sending(options: &Options, bytes: usize, count: usize) {
    let batch = Batch { messages: count, bytes: bytes * count };
    let payload = vec![b'w'; bytes];
    let out = || Vec::with_capacity((HEADER_BYTES_MAX + bytes) * count);

    let (mut to_client, mut to_server) = (out(), out());
    let (mut server, mut client) = (Encoder::<Server>::default(), Encoder::<Client>::default());
    let contenders = vec![
        memcpy(&payload, batch),
        Contender::new("server", batch, || {
            to_client.clear();
            for _ in 0..count {
                server.encode_message((), Message::Binary(black_box(&payload)), &mut to_client).expect("open");
            }
            black_box(&to_client).len()
        }),
        Contender::new("client", batch, || {
            to_server.clear();
            for _ in 0..count {
                let key = black_box(KEY);
                client.encode_message(key, Message::Binary(black_box(&payload)), &mut to_server).expect("open");
            }
            black_box(&to_server).len()
        }),
    ];
    compare(options, &format!("encode_message: messages of {bytes} bytes, {count} one behind the other"), contenders);
}

/// The payloads, copied one by one from where they lie in a receive buffer.
fn memcpy(payload: &[u8], batch: Batch) -> Contender<'static> {
    let bytes = payload.len();
    let source = frames(Opcode::Binary, payload, batch.messages);
    let frame_bytes = source.len() / batch.messages;
    let mut copies = vec![0; batch.bytes];
    Contender::new("memcpy", batch, move || {
        for (frame, copy) in source.chunks_exact(frame_bytes).zip(copies.chunks_exact_mut(bytes)) {
            black_box(copy).copy_from_slice(black_box(&frame[frame_bytes - bytes..]));
        }
    })
}

fn frames(opcode: Opcode, payload: &[u8], count: usize) -> Vec<u8> {
    let header = FrameHeader { fin: true, opcode, mask: Some(KEY), payload_len: payload.len() as u64 };
    let mut bits = [0; HEADER_BYTES_MAX];
    let header_len = header.encode(&mut bits);
    let mut frame = [&bits[..header_len], payload].concat();
    apply_mask(&mut frame[header_len..], KEY);
    frame.repeat(count)
}
