//! Hostile frames: fragments without end, lengths without payload.

use crate::{FIXED_BYTES_MAX, Heap, feed};
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder::{Client, Role, Server};
use ringwave::protocol::error::{Failure, ProtocolError};
use ringwave::{Delivery, Limits};

/// The first allocation for a message: see `base/limits.rs`.
const FIRST_BYTES: usize = 4 << 10;
/// Room in front of it for the header that makes the message a frame.
const HEADER_ROOM: usize = 10;
/// Fragments in the flood.
const FLOOD: u32 = 131_000;

/// A fragment to a server, its masking key zero.
fn fragment(first: bool, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125);
    [&[if first { 0x02 } else { 0x00 }, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// `count` fragments of `payload` and no last one, as many a read as fit into one.
fn flood(count: u32, payload: &[u8], limits: &Limits) -> (Connection<Server>, Result<(), Failure>) {
    let mut connection = Connection::open();
    let first = fragment(true, payload);
    let wire = fragment(false, payload).repeat(500);
    let rest = count as usize - 1;
    let last = &wire[..rest % 500 * first.len()];
    let reads = [&first[..], last].into_iter().chain(std::iter::repeat_n(&wire[..], rest / 500));
    let (said, outcome) = feed(&mut connection, reads, limits, |_| {});
    assert_eq!(said, 0);
    (connection, outcome)
}

/// ws CVE-2026-48779: there is a cap on fragments, whether or not they carry anything.
#[test]
fn fragments_without_end_are_refused_and_their_memory_is_given_back() {
    let limits = Limits::default();
    for payload in [&b""[..], b"x"] {
        let (connection, outcome) = flood(limits.fragments_max, payload, &limits);
        assert_eq!(outcome, Ok(()));
        assert!(connection.decoder.is_unfinished());

        let ((connection, outcome), heap) = Heap::used_by(|| flood(limits.fragments_max + 1, payload, &limits));
        assert_eq!(outcome, Err(Failure::Frame(ProtocolError::FragmentsTooMany)));
        assert_eq!(heap.live, 0, "{} bytes each", payload.len());
        assert!(!connection.decoder.is_open());
    }
}

/// Below the cap, and above it where it is out of the way, real bytes are what is held; empty fragments hold nothing.
#[test]
fn fragments_hold_their_payload_and_no_more_than_4_kib_beside_it() {
    for limits in [Limits::default(), Limits { fragments_max: u32::MAX, ..Limits::default() }] {
        for payload in [&b""[..], b"x"] {
            let ((connection, outcome), heap) = Heap::used_by(|| flood(FLOOD, payload, &limits));
            assert_eq!(outcome, Ok(()));
            assert!(connection.decoder.is_unfinished());
            let gathered = payload.len() * FLOOD as usize;
            assert!(heap.live as usize <= gathered + FIRST_BYTES, "{heap:?} for {gathered} bytes");
        }
    }
}

/// One buffer that doubles while it is as small as here: at no time does it hold more than twice the bytes that came, or its first 4 KiB.
#[test]
fn an_unfinished_message_holds_at_most_twice_its_bytes() {
    let limits = Limits::default();
    let mut connection = Connection::<Server>::open();
    let mut gathered = 0;
    let chunk = [b'x'; 125];
    let (mut live, mut total) = (0, 0);
    for index in 0..2_000 {
        let wire = fragment(index == 0, &chunk[..1 + index % 125]);
        let ((_, outcome), heap) = Heap::used_by(|| feed(&mut connection, [&wire[..]], &limits, |_| {}));
        assert_eq!(outcome, Ok(()));
        gathered += 1 + index % 125;
        live += heap.live as usize;
        total += heap.total;
        assert!(live <= FIRST_BYTES.max(2 * gathered) + FIXED_BYTES_MAX, "{live} bytes for {gathered}");
    }
    // Growing was not quadratic either.
    assert!(total <= 4 * gathered + FIRST_BYTES + FIXED_BYTES_MAX, "{total} bytes asked for, {gathered} came");
}

/// A message of `bytes` in fragments of `fragment`, the last of them empty if `ends_empty`, to a client.
fn fragmented(bytes: usize, fragment: usize, ends_empty: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    for start in (0..bytes).step_by(fragment) {
        let length = fragment.min(bytes - start);
        let fin = !ends_empty && start + length == bytes;
        wire.extend(header((u8::from(fin) << 7) | if start == 0 { 0x02 } else { 0x00 }, length as u64, false));
        wire.extend((start..start + length).map(|index| index as u8));
    }
    if ends_empty {
        wire.extend(header(0x80, 0, false));
    }
    wire
}

/// The end of a gathered message allocates the count of its references, whatever its length; so does a handler that
/// keeps the frame. What is kept is the buffer it was gathered in, and little of that is spare.
#[test]
fn a_gathered_message_is_not_copied_again() {
    /// What `bytes` allocates for the count of references.
    const COUNT_BYTES: usize = 24;
    let limits = Limits::default();
    for (bytes, fragment) in [(126, 100), (5_000, 4_000), (131_072, 65_536), (3 << 20, 100_000), (6 << 20, 1 << 20)] {
        for ends_empty in [false, true] {
            let what = format!("{bytes} bytes in fragments of {fragment}, ends empty: {ends_empty}");
            let wire = fragmented(bytes, fragment, ends_empty);
            let (most, last) = wire.split_at(wire.len() - 1);
            let mut kept = None;
            let mut connection = Connection::<Client>::open();
            let ((_, outcome), gathering) = Heap::used_by(|| feed(&mut connection, [most], &limits, |_| {}));
            assert_eq!(outcome, Ok(()), "{what}");
            let ((said, outcome), ending) = Heap::used_by(|| {
                feed(&mut connection, [last], &limits, |event| {
                    let Event::Assembled(message, prepared) = event else { panic!("{what}: {event:?}") };
                    let frame = prepared.frame();
                    assert_eq!(message.as_bytes().as_ptr_range().end, frame.as_ptr_range().end, "{what}");
                    kept = Some(prepared.clone());
                })
            });
            assert_eq!((said, outcome), (1, Ok(())), "{what}");
            let frame_len = kept.as_ref().map_or(0, |kept| kept.frame().len());
            // A short one moves once more, into a block of its size.
            let moved = if frame_len < FIRST_BYTES / 2 { frame_len + HEADER_ROOM } else { 0 };
            assert!(ending.total <= COUNT_BYTES + moved, "{what}: {ending:?}");
            let held = (gathering.live + ending.live) as usize;
            let spare_max = if bytes < 1 << 20 { bytes } else { bytes / 4 };
            assert!(held <= frame_len + spare_max + HEADER_ROOM + COUNT_BYTES, "{what}: {held} bytes are kept");
            // Growing by a quarter moves a byte four times on average; the last size is the fifth.
            assert!(gathering.total <= 6 * bytes + FIRST_BYTES + FIXED_BYTES_MAX, "{what}: {gathering:?}");
            drop(kept);
        }
    }
}

/// The length of a message in one frame is known: nothing is spare at its end, though nothing was set aside for it.
#[test]
fn a_gathered_message_in_one_frame_holds_its_length() {
    let limits = Limits::default();
    for bytes in [126, 4_096, 5_000, 65_536, 3 << 20] {
        let wire = fragmented(bytes, bytes, false);
        let mut kept = None;
        let mut connection = Connection::<Client>::open();
        let ((said, outcome), heap) = Heap::used_by(|| {
            feed(&mut connection, [&wire[..20], &wire[20..]], &limits, |event| {
                kept = if let Event::Assembled(_, prepared) = event { Some(prepared.clone()) } else { None };
            })
        });
        assert_eq!((said, outcome, kept.is_some()), (1, Ok(()), true));
        assert!(heap.live as usize <= bytes + HEADER_ROOM + 24, "{heap:?} for {bytes} bytes");
    }
}

/// Where messages are handed out as they come, nothing of them is kept: neither of a frame that never ends, nor of
/// fragments that never end, of which there may be any number.
#[test]
fn a_message_in_chunks_holds_nothing_of_its_payload() {
    let limits = Limits { delivery: Delivery::Chunks, message_bytes_max: 1, ..Limits::default() };
    let one_frame = |first| (header(first, 1 << 40, true), vec![b'x'; 4_096], 2_000);
    let flood = |payload: &[u8]| (fragment(true, payload), fragment(false, payload).repeat(500), FLOOD as usize / 500);
    let pinged = [fragment(false, b"x"), header(0x89, 100, true), vec![b'p'; 100]].concat();
    for (what, (begin, read, reads), payload) in [
        ("a binary frame", one_frame(0x82), 2_000 * 4_096),
        ("a text frame", one_frame(0x01), 2_000 * 4_096),
        ("fragments of 100", flood(&[b'x'; 100]), 100 + FLOOD as usize / 500 * 500 * 100),
        ("empty fragments", flood(b""), 0),
        ("pings between", (fragment(true, b"x"), pinged, 5_000), 5_001),
    ] {
        let (mut handed_out, mut connection) = (0, Connection::<Server>::open());
        let wire = std::iter::once(&begin[..]).chain(std::iter::repeat_n(&read[..], reads));
        let ((_, outcome), heap) = Heap::used_by(|| {
            feed(&mut connection, wire, &limits, |event| match event {
                Event::Chunk(chunk) => {
                    assert!(!chunk.last && chunk.first == (handed_out == 0), "{what}");
                    handed_out += chunk.payload.len();
                }
                event => assert!(matches!(event, Event::Ping(_)), "{what}: {event:?}"),
            })
        });
        assert_eq!((outcome, handed_out), (Ok(()), payload), "{what}");
        // One state for the message, however long it is.
        assert!(heap.total <= FIXED_BYTES_MAX, "{what}: {heap:?}");
        assert_eq!(connection.decoder.held_bytes() as isize, heap.live, "{what}");
    }
}

/// What the decoder says that it holds is what it has of the heap, after every byte.
#[test]
fn held_bytes_are_the_heap() {
    let limits = Limits::default();
    let pinged = [header(0x02, 5, true), b"begun".to_vec(), header(0x89, 3, true), b"abc".to_vec()].concat();
    let ended = [&pinged[..], &header(0x80, 9_000, true), &[b'x'; 9_000]].concat();
    let endless = [fragment(true, &[b'x'; 125]), fragment(false, &[b'x'; 125]).repeat(100)].concat();
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let posted = ["POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n", &"x".repeat(5_000)].concat();
    for (what, wire, open) in [
        ("a message with a ping in it", &ended[..], true),
        ("fragments without an end", &endless[..], true),
        ("a broken frame", b"\x81\xfe\xff\xff\x00\x00\x00\x00\xff".as_slice(), true),
        ("an upgrade", upgrade.as_bytes(), false),
        ("a request with a body", posted.as_bytes(), false),
    ] {
        let mut connection = if open { Connection::<Server>::open() } else { Connection::default() };
        let mut live = 0;
        for (index, byte) in wire.iter().enumerate() {
            let (_, heap) = Heap::used_by(|| feed(&mut connection, [std::slice::from_ref(byte)], &limits, |_| {}));
            live += heap.live;
            let held = connection.decoder.held_bytes();
            assert_eq!(held as isize, live, "{what}, {index} bytes before");
            assert_eq!(held > 0, connection.decoder.is_unfinished(), "{what}, {index} bytes before");
        }
    }
}

/// A message byte by byte: no allocation for each.
#[test]
fn a_message_that_comes_byte_by_byte_is_gathered_in_linear_work() {
    let limits = Limits::default();
    let payload = vec![b'x'; 60_000];
    let wire = [&[0x82, 0xfe], &60_000u16.to_be_bytes()[..], &[0; 4], &payload].concat();
    let mut connection = Connection::<Server>::open();
    let mut messages = 0;
    let ((said, outcome), heap) = Heap::used_by(|| {
        feed(&mut connection, wire.chunks(1), &limits, |event| {
            messages += usize::from(matches!(event, Event::Assembled(message, _) if message.as_bytes() == payload));
        })
    });
    assert_eq!((said, outcome, messages), (1, Ok(()), 1));
    assert!(heap.total <= 4 * payload.len() + FIXED_BYTES_MAX, "{heap:?}");
    assert_eq!(heap.live, 0);
}

/// Lengths around which the header and the arithmetic change.
fn announced_lengths() -> impl Iterator<Item = u64> {
    [7, 16, 32, 63].into_iter().flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 1]).chain([u64::MAX])
}

/// A header that announces `length`, with the fewest bytes, or bits, that hold it.
fn header(first: u8, length: u64, masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let key: &[u8] = if masked { &[0; 4] } else { &[] };
    let length = match length {
        0..=125 => vec![bit | length as u8],
        126..=0xffff => [&[bit | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[bit | 127][..], &length.to_be_bytes()].concat(),
    };
    [&[first], &length[..], key].concat()
}

/// websocket CVE-2022-35922, NATS CVE-2026-27889, gorilla CVE-2020-27813, Tomcat CVE-2020-13935.
#[test]
fn nothing_is_allocated_on_an_announced_length() {
    announce_to::<Server>(true);
    announce_to::<Client>(false);
}

fn announce_to<R: Role>(masked: bool) {
    let by_default = Limits::default();
    let unlimited =
        Limits { message_bytes_max: usize::MAX, frame_bytes_max: usize::MAX, fragments_max: u32::MAX, ..by_default };
    let short_frames = Limits { frame_bytes_max: 1_000, ..by_default };
    let in_chunks = Limits {
        delivery: Delivery::Chunks,
        message_bytes_max: 1,
        frame_bytes_max: 1,
        fragments_max: 1,
        streamed_bytes_max: 1 << 32,
        ..by_default
    };
    for (limits, length) in [by_default, unlimited, short_frames, in_chunks]
        .into_iter()
        .flat_map(|l| announced_lengths().map(move |n| (l, n)))
    {
        for first in [0x81, 0x82, 0x01, 0x02, 0x80, 0x00] {
            // A continuation continues one byte, so that the sum is what overflows.
            let begun = if first & 0x0f == 0 { [header(0x02, 1, masked), vec![b'x']].concat() } else { Vec::new() };
            let announcement = header(first, length, masked);
            let (message_max, frame_max) = match limits.delivery {
                Delivery::Whole => (limits.message_bytes_max as u64, limits.frame_bytes_max as u64),
                Delivery::Chunks => (limits.streamed_bytes_max, u64::MAX),
            };
            let room = message_max - u64::from(!begun.is_empty());
            let expected = match length {
                length if length >= 1 << 63 => Err(Failure::Frame(ProtocolError::LengthSignBit)),
                length if length > room => Err(Failure::Frame(ProtocolError::MessageTooLong)),
                length if length > frame_max => Err(Failure::Frame(ProtocolError::FrameTooLong)),
                _ => Ok(()),
            };
            for cut in 0..=announcement.len() {
                let what = format!("{first:#04x}, {length} bytes, cut at {cut}");
                let mut connection = Connection::<R>::open();
                let pieces = [&begun[..], &announcement[..cut], &announcement[cut..]];
                let ((_, outcome), heap) = Heap::used_by(|| feed(&mut connection, pieces, &limits, |_| {}));
                assert_eq!(outcome, expected, "{what}");
                let held = if begun.is_empty() { 0 } else { FIRST_BYTES };
                assert!(heap.peak as usize <= FIXED_BYTES_MAX + held, "{what}: {heap:?}");
                if outcome.is_err() {
                    assert_eq!(heap.live, 0, "{what}");
                    // Nothing but the half of a header is ever set aside for a frame that is refused.
                    let header_is_whole = cut == 0 || cut == announcement.len();
                    assert!(!header_is_whole || !begun.is_empty() || heap.total == 0, "{what}: {heap:?}");
                    continue;
                }
                // One byte of all that was promised.
                let (_, heap) = Heap::used_by(|| feed(&mut connection, [&b"x"[..]], &limits, |_| {}));
                assert!(heap.peak as usize <= FIRST_BYTES - held, "{what}, then one byte: {heap:?}");
                assert!(connection.decoder.is_unfinished());
            }
        }
        for first in [0x88, 0x89, 0x8a] {
            let announcement = header(first, length, masked);
            for cut in 0..=announcement.len() {
                let mut connection = Connection::<R>::open();
                let pieces = [&announcement[..cut], &announcement[cut..]];
                let ((_, outcome), heap) = Heap::used_by(|| feed(&mut connection, pieces, &limits, |_| {}));
                assert_eq!(outcome, Err(Failure::Frame(ProtocolError::ControlTooLong)), "{first:#04x}, {length}");
                assert!(heap.peak as usize <= FIXED_BYTES_MAX && heap.live == 0, "{heap:?}");
            }
        }
    }
}

/// What each refusal is answered with.
#[test]
fn refused_frames_map_to_their_close_codes() {
    for (error, code) in [
        (ProtocolError::LengthSignBit, 1002),
        (ProtocolError::ControlTooLong, 1002),
        (ProtocolError::MessageTooLong, 1009),
        (ProtocolError::FrameTooLong, 1009),
        (ProtocolError::FragmentsTooMany, 1008),
        (ProtocolError::TextNotUtf8, 1007),
    ] {
        assert_eq!(error.close_code().number(), code, "{error}");
    }
}
