//! Hostile heads: too many lines, too long ones, one byte at a time; what stands behind a refused upgrade; what a
//! request would like to have echoed into an answer.

use crate::{FIXED_BYTES_MAX, Heap, LONG_BYTES, assert_linear, feed, time};
use ringwave::Limits;
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder::Server;
use ringwave::protocol::error::Failure;
use ringwave::protocol::handshake::{ClientRequest, UpgradeRequest};
use ringwave::protocol::http1::{HeadScan, Request, ResponseHead};
use ringwave::protocol::response::Response;
use std::hint::black_box;

/// What a sound upgrade says; `more` are further lines, each with its end.
fn upgrade_with(more: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// Feeds a head in reads of 4 KiB: the status of its refusal, or 200; and the heap.
fn judged(head: &[u8]) -> (u16, Heap) {
    let limits = Limits::default();
    let mut connection = Connection::<Server>::default();
    let ((said, outcome), heap) = Heap::used_by(|| feed(&mut connection, [head], &limits, |_| {}));
    match outcome {
        Ok(()) => assert_eq!(said, 1, "a whole head is a request or a refusal"),
        Err(Failure::Head(error)) => return (error.status, heap),
        Err(other) => panic!("{other}"),
    }
    (200, heap)
}

/// A head is gathered in a buffer that doubles, up to one byte more than is allowed.
fn head_heap_max() -> usize {
    2 * (Limits::default().head_bytes_max + 1) + FIXED_BYTES_MAX
}

/// ws CVE-2024-37890.
#[test]
fn too_many_header_lines_are_refused_with_431() {
    for count in (0..=120).chain([200, 500, 1_000, 2_000, 5_000, 9_999, 10_000]) {
        let lines: String = (0..count).map(|index| format!("X{index}: y\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let (status, heap) = judged(head.as_bytes());
        assert_eq!(status, if count < 100 { 200 } else { 431 }, "{count} lines beside Host");
        assert!(heap.peak as usize <= head_heap_max(), "{count} lines: {heap:?}");
        assert_eq!(heap.live, 0);
    }
}

#[test]
fn a_header_line_of_64_kib_is_refused_with_431_and_never_held() {
    for (bytes, filler) in [(64 << 10, "x"), (64 << 10, " "), (64 << 10, ","), (9_000, "x"), (1 << 20, "x")] {
        for line in [format!("X: {}\r\n", filler.repeat(bytes)), format!("{}: x\r\n", "y".repeat(bytes))] {
            let head = upgrade_with(&line);
            let (status, heap) = judged(head.as_bytes());
            assert_eq!(status, 431);
            assert!(heap.peak as usize <= head_heap_max(), "{heap:?}");
            assert_eq!(heap.live, 0);
        }
        let (status, heap) = judged(format!("GET /{} HTTP/1.1\r\n", "x".repeat(bytes)).as_bytes());
        assert_eq!((status, heap.live), (414, 0));
    }
    // Short lines, but all together too long.
    let lines: String = (0..90).map(|index| format!("X{index}: {}\r\n", "y".repeat(300))).collect();
    assert_eq!(judged(upgrade_with(&lines).as_bytes()).0, 431);
}

/// tungstenite CVE-2023-43669: byte by byte, a head is gathered once and never looked at again.
#[test]
fn a_head_one_byte_at_a_time_is_linear() {
    let limits = Limits::default();
    let lines: String = (0..90).map(|index| format!("X{index}: {}\r\n", "y".repeat(150))).collect();
    let head = upgrade_with(&lines);
    let mut connection = Connection::<Server>::default();
    let ((said, outcome), heap) = Heap::used_by(|| feed(&mut connection, head.as_bytes().chunks(1), &limits, |_| {}));
    assert_eq!((said, outcome), (1, Ok(())));
    // All the sizes of the buffer together: it doubles, it does not grow byte by byte.
    assert!(heap.total <= 4 * head.len() + FIXED_BYTES_MAX, "{heap:?} for {} bytes", head.len());
}

/// The same for the scan alone, proven without a clock: all that it has seen is overwritten with what it would refuse.
///
/// Two bytes stay, whatever the length: the first of the line under way, and the one before the newest.
#[test]
fn a_head_is_never_scanned_twice() {
    let limits = Limits::default();
    let head = upgrade_with(&format!("X: {}\r\n", "y".repeat(5_000))).into_bytes();
    let mut scan = HeadScan::default();
    let mut seen = Vec::new();
    let mut line_start = 0;
    for (index, byte) in head.iter().enumerate() {
        seen.push(*byte);
        let answer = scan.scan(&seen, &limits);
        assert_eq!(answer, Ok((index + 1 == head.len()).then_some(head.len())), "at {index}");
        if *byte == b'\n' {
            line_start = index + 1;
        }
        if index > 0 && index - 1 != line_start {
            seen[index - 1] = b'\n';
        }
    }
    // And the poison is one.
    assert!(HeadScan::default().scan(&seen, &limits).is_err());
}

#[test]
fn a_head_without_an_end_is_refused_at_the_byte_that_passes_the_limit() {
    let limits = Limits::default();
    let line = format!("X: {}\r\n", "y".repeat(1_000));
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\n{}", line.repeat(17));
    for (head, bytes, status) in [
        (endless.as_bytes(), limits.head_bytes_max + 1, 431),
        (&vec![b'G'; 20_000], limits.head_line_bytes_max + 1, 414),
        (format!("GET / HTTP/1.1\r\n{}", "y".repeat(20_000)).as_bytes(), 16 + limits.head_line_bytes_max + 1, 431),
    ] {
        let mut connection = Connection::<Server>::default();
        let refused = head.chunks(1).position(|byte| {
            let (_, outcome) = feed(&mut connection, [byte], &limits, |_| {});
            outcome.is_err_and(|failure| matches!(failure, Failure::Head(error) if error.status == status))
        });
        assert_eq!(refused, Some(bytes - 1));
    }
}

/// However much a read brings behind half a head, what is copied is no more than a head may have.
#[test]
fn what_stands_behind_a_head_is_not_gathered_with_it() {
    let limits = Limits::default();
    let upgrade = upgrade_with("");
    for first in [1, upgrade.len() / 2, upgrade.len() - 1] {
        let mut wire = [upgrade.as_bytes(), &vec![b'x'; 1 << 20]].concat();
        let (first, second) = wire.split_at_mut(first);
        let mut connection = Connection::<Server>::default();
        let (unread, heap) = Heap::used_by(|| {
            let (mut events, _) = connection.receive(first, &limits);
            assert!(matches!(events.next_event(), Ok(None)));
            let (mut events, _) = connection.receive(second, &limits);
            assert!(matches!(events.next_event(), Ok(Some(Event::Request(_)))));
            events.unread()
        });
        assert_eq!(unread, 1 << 20);
        assert!(heap.peak as usize <= head_heap_max(), "{heap:?}");
    }
}

/// ws CVE-2021-32640: the values that are lists, and all that are looked at, filled with what parsers stumble over.
#[test]
fn heads_are_read_in_linear_time() {
    let limits = Limits { head_bytes_max: 2 * LONG_BYTES, head_line_bytes_max: 2 * LONG_BYTES, ..Limits::default() };
    let names = [
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Connection",
        "Upgrade",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Expect",
        "Origin",
    ];
    let fillers = [" ", "\t", ",", "\"", ", ", "a,", "a;b=\"\\\",", "; ", "0", "%", "a ", "\u{e9}"];
    for name in names {
        for filler in fillers {
            assert_linear(&format!("{name}: {filler:?}"), |bytes| {
                let value = filler.repeat(bytes / filler.len());
                let mut head = upgrade_with(&format!("{name}: a{value}a\r\n")).into_bytes();
                time(|| judge_all(&mut head, &limits))
            });
        }
    }
    for filler in ["/", "?", "%2e", "/.", "//", "a"] {
        assert_linear(&format!("target {filler:?}"), |bytes| {
            let target = filler.repeat(bytes / filler.len());
            let mut head = upgrade_with("").replacen("/chat", &format!("/{target}"), 1).into_bytes();
            time(|| judge_all(&mut head, &limits))
        });
    }
}

/// Everything that the core does with a request's header lines, and with an answer's.
fn judge_all(head: &mut [u8], limits: &Limits) {
    let mut connection = Connection::<Server>::default();
    let (mut events, _) = connection.receive(head, limits);
    if let Ok(Some(Event::Request(request))) = events.next_event() {
        black_box((request.path(), request.query(), request.keeps_alive()));
        if let Ok(Some(upgrade)) = UpgradeRequest::of(&request) {
            let mut out = Vec::new();
            let last = upgrade.protocols().last();
            black_box(upgrade.encode_accept(last, &[], &mut out)).ok();
        }
        black_box(request.headers().has_token("sec-websocket-extensions", "permessage-deflate"));
    }
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    answer.extend(head.split_inclusive(|byte| *byte == b'\n').skip(1).flatten());
    let request = ClientRequest { host: "h", target: "/", key: [0; 16], protocols: &["a"], headers: &[] };
    let expected = request.encode(&mut Vec::new()).expect("sound");
    if let Ok(head) = ResponseHead::parse(&answer) {
        black_box(expected.check(&head)).ok();
    }
}

/// A body is not allocated because its length was told, nor held beyond what came.
#[test]
fn nothing_is_allocated_on_an_announced_body() {
    let limits = Limits::default();
    let around = |bits: u32| [(1u128 << bits) - 1, 1 << bits, (1 << bits) + 1];
    for length in [7, 16, 20, 32, 63, 64].into_iter().flat_map(around) {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        let expected = match length {
            length if length <= limits.body_bytes_max as u128 => None,
            length if length <= u128::from(u64::MAX) => Some(413),
            _ => Some(400),
        };
        for cut in 0..=head.len() {
            let (first, second) = head.as_bytes().split_at(cut);
            let mut connection = Connection::<Server>::default();
            let pieces = [first, second, b"x"];
            let ((said, outcome), heap) = Heap::used_by(|| feed(&mut connection, pieces, &limits, |_| {}));
            let status = outcome.err().map(|failure| match failure {
                Failure::Head(error) => error.status,
                other => panic!("{other}"),
            });
            assert_eq!((said, status), (0, expected), "{length}, cut at {cut}");
            assert!(heap.peak as usize <= 2 * (head.len() + 1) + FIXED_BYTES_MAX, "{length}, cut at {cut}: {heap:?}");
        }
    }
}

/// pingora CVE-2026-2833: bytes behind an upgrade are frames once we have said 101, and nothing at all otherwise.
#[test]
fn bytes_behind_a_refused_upgrade_are_never_events() {
    let limits = Limits::default();
    let sound = upgrade_with("");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let refused = [
        // Sound, but the application says 403.
        sound.clone(),
        sound.replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"),
        sound.replace(key, "X: y"),
        sound.replace(key, "Sec-WebSocket-Key: short"),
        sound.replace("GET", "POST"),
        sound.replace("Connection: Upgrade", "Connection: close"),
        sound.replace("Host: h", "Host: h\r\nContent-Length: 0"),
        sound.replace("Host: h", "X: y"),
        sound.replace("Host: h", "Host: h\r\nTransfer-Encoding: chunked"),
        sound.replace("Host: h", "Host: h\r\nHost: h"),
        sound.replace("HTTP/1.1", "HTTP/2.0"),
        sound.replace("\r\nHost", "\nHost"),
    ];
    let frame = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let behind = [&frame[..], sound.as_bytes(), b"\x89\x80\0\0\0\0", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"];
    for head in &refused {
        for behind in behind {
            let wire = [head.as_bytes(), behind, behind].concat();
            for cut in 0..=wire.len() {
                let mut connection = Connection::<Server>::default();
                let pieces = [&wire[..cut], &wire[cut..], frame];
                let mut requests = 0;
                let (said, outcome) = feed(&mut connection, pieces, &limits, |event| {
                    requests += usize::from(matches!(event, Event::Request(_)));
                });
                let what = format!("cut at {cut} of {}", wire.escape_ascii());
                assert_eq!(said, requests, "{what}");
                assert_eq!(requests, usize::from(outcome.is_ok()), "{what}");
                // Nor later, when the refusal is on its way.
                let later = feed(&mut connection, [&frame[..], sound.as_bytes()], &limits, |_| {});
                assert_eq!(later, (0, Ok(())), "{what}");
            }
        }
    }
    // After 101 the same bytes are a message.
    let mut wire = [sound.as_bytes(), frame].concat();
    let mut connection = Connection::<Server>::default();
    let (mut events, _) = connection.receive(&mut wire, &limits);
    assert!(matches!(events.next_event(), Ok(Some(Event::Request(_)))));
    assert_eq!(events.unread(), frame.len());
    events.accept_upgrade();
    assert!(matches!(events.next_event(), Ok(Some(Event::Message(_)))));
}

/// uvicorn CVE-2020-7695: no byte that ends a line, or is none of a header's, gets from a value into a head.
#[test]
fn nothing_echoed_breaks_a_head() {
    let wire = upgrade_with("Sec-WebSocket-Protocol: mqtt, chat\r\n");
    let request = Request::parse(wire.as_bytes()).expect("sound");
    let upgrade = UpgradeRequest::of(&request).expect("allowed").expect("an upgrade");
    // Every character of one byte, and three of more.
    for byte in (0u8..=0x7f).map(char::from).chain(['\u{85}', '\u{2028}', '\u{560a}']) {
        let hostile = format!("a{byte}Set-Cookie: b");
        let allowed = byte == '\t' || !byte.is_ascii_control();
        let lines = |head: &[u8]| {
            assert!(head.ends_with(b"\r\n\r\n"));
            assert_eq!(head.iter().filter(|b| **b == b'\n').count(), head.windows(2).filter(|b| b == b"\r\n").count());
            ResponseHead::parse(head).expect("sound").headers.iter().count()
        };

        let mut out = b"before".to_vec();
        let written = upgrade.encode_accept(None, &[("X-Echo".to_owned(), hostile.clone())], &mut out);
        assert_eq!(written.is_ok(), allowed, "{byte:?} in a value");
        if allowed {
            assert_eq!(lines(&out[6..]), 4, "{byte:?} in a value");
        } else {
            assert_eq!(out, b"before", "{byte:?} in a value");
        }

        let mut out = Vec::new();
        let name = format!("X{byte}");
        let token = byte.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(byte);
        let written = upgrade.encode_accept(None, &[(name, "x".to_owned())], &mut out);
        assert_eq!((written.is_ok(), out.is_empty()), (token, !token), "{byte:?} in a name");

        // RFC 6455 §4.2.2: only what was offered, and what is offered is a token.
        assert!(upgrade.encode_accept(Some(&hostile), &[], &mut out).is_err(), "{byte:?} in a protocol");
        let offer = upgrade_with(&format!("Sec-WebSocket-Protocol: x{byte}x\r\n"));
        if byte != ',' && !token {
            let refused = match Request::parse(offer.as_bytes()) {
                Ok(request) => UpgradeRequest::of(&request).is_err_and(|error| Response::from(error).status() == 400),
                Err(error) => error.status == 400,
            };
            assert!(refused, "{byte:?} in an offer");
        }

        let sound = ClientRequest { host: "h", target: "/", key: [0; 16], protocols: &[], headers: &[] };
        for (what, request) in [
            ("a host", ClientRequest { host: &hostile, ..sound }),
            ("a protocol", ClientRequest { protocols: &["x", &hostile], ..sound }),
            ("a value", ClientRequest { headers: &[("X", &hostile)], ..sound }),
            ("a name", ClientRequest { headers: &[(&hostile, "x")], ..sound }),
            ("a target", ClientRequest { target: &format!("/{hostile}"), ..sound }),
        ] {
            let mut out = Vec::new();
            let written = request.encode(&mut out);
            assert!(allowed || written.is_err(), "{byte:?} in {what}");
            if written.is_err() {
                assert!(out.is_empty(), "{byte:?} in {what}");
                continue;
            }
            let text = String::from_utf8(out).expect("UTF-8");
            let lines: Vec<&str> = text.split("\r\n").collect();
            assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "{byte:?} in {what}");
            assert!(!lines.iter().any(|line| line.starts_with("Set-Cookie")), "{byte:?} in {what}");
        }
    }
}
