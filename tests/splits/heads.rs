//! Vectors of HTTP heads: requests to a server, answers to a client, and what stands behind them in the same bytes.

use super::Stream;
use super::frames::{bytes_of, frame};
use ringwave::protocol::connection::Connection;
use ringwave::protocol::encoder::Client;
use ringwave::protocol::handshake::ClientRequest;
use ringwave::{Delivery, Limits};

/// The request of RFC 6455 §1.2.
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Limits that a test reaches with few bytes.
const SMALL: Limits = Limits {
    head_bytes_max: 256,
    head_line_bytes_max: 128,
    headers_max: 4,
    body_bytes_max: 64,
    delivery: Delivery::Whole,
    message_bytes_max: 100,
    frame_bytes_max: 100,
    fragments_max: 3,
    streamed_bytes_max: u64::MAX,
};

fn stream(name: &str, bytes: impl AsRef<[u8]>, limits: Limits, expected: &[&str]) -> Stream {
    let expected = expected.iter().map(|line| (*line).to_owned()).collect();
    Stream { name: name.to_owned(), bytes: bytes.as_ref().to_vec(), marks: Vec::new(), limits, expected }
}

pub(crate) fn request_streams() -> Vec<Stream> {
    let mut streams = sound_request_streams();
    streams.extend(refused_request_streams());
    streams
}

fn sound_request_streams() -> Vec<Stream> {
    let frames = bytes_of(&[frame(0x81, b"Hello"), frame(0x89, b"p"), frame(0x01, b"a"), frame(0x80, b"b")], true);
    let said = ["text \"Hello\"", "ping \"p\"", "text \"ab\""];
    let get = "GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\nGET / HTTP/1.1\r\nHost: evil\r\n\r\n";
    let told_post = "request POST /p \"GET / HTTP/1.1\\r\\nHost: evil\\r\\n\\r\\n\"";
    let upgrade = "request GET /chat upgrade";
    let behind = |head: &str| [head.as_bytes(), &frames].concat();
    let table: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("an upgrade", UPGRADE.into(), vec![upgrade]),
        ("an upgrade, frames behind it", behind(UPGRADE), [&[upgrade], &said[..]].concat()),
        ("an upgrade after an empty line", behind(&format!("\r\n{UPGRADE}")), [&[upgrade], &said[..]].concat()),
        (
            "an upgrade, half a frame behind it",
            [UPGRADE.as_bytes(), &frames[..8]].concat(),
            vec![upgrade, "unfinished"],
        ),
        (
            "an upgrade, a broken frame behind it",
            [UPGRADE.as_bytes(), b"\x81\x05Hello"].concat(),
            vec![upgrade, "failed 1002 MaskMissing"],
        ),
        ("a plain request", get.into(), vec!["request GET /a?b=c \"\""]),
        ("a request with a body", post.into(), vec![told_post]),
        ("an empty body", "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".into(), vec!["request PUT / \"\""]),
        (
            "requests in sequence, then frames",
            behind(&[get, post, "\r\n", get, UPGRADE].concat()),
            [&["request GET /a?b=c \"\"", told_post, "request GET /a?b=c \"\"", upgrade], &said[..]].concat(),
        ),
        (
            "the last request, one more behind it",
            ["GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", get].concat().into(),
            vec!["request GET /last \"\""],
        ),
        (
            "HTTP/1.0, one more behind it",
            ["GET /old HTTP/1.0\r\n\r\n", get].concat().into(),
            vec!["request GET /old \"\""],
        ),
        (
            "a target with its authority",
            "GET http://h:1/x?y HTTP/1.1\r\nHost: h:1\r\n\r\n".into(),
            vec!["request GET /x?y \"\""],
        ),
        (
            "an upgrade without a version, frames behind it",
            behind(&UPGRADE.replace("Sec-WebSocket-Version: 13\r\n", "")),
            vec!["request GET /chat refused 426"],
        ),
        (
            "an upgrade without a key, a request behind it",
            [&UPGRADE.replace("Sec-WebSocket-Key", "X"), get].concat().into(),
            vec!["request GET /chat refused 400"],
        ),
        (
            "an upgrade by POST, frames behind it",
            behind(&UPGRADE.replace("GET", "POST")),
            vec!["request POST /chat refused 405"],
        ),
        ("an upgrade with a body", behind(&UPGRADE.replace("Host", "Content-Length: 2\r\nHost")), vec!["failed 400"]),
        ("half a head", UPGRADE[..100].into(), vec!["unfinished"]),
        ("half a body", post[..post.len() - 5].into(), vec!["unfinished"]),
        ("half an empty line", "\r".into(), vec!["unfinished"]),
    ];
    let stream =
        |(name, bytes, expected): (&str, Vec<u8>, Vec<&str>)| stream(name, bytes, Limits::default(), &expected);
    table.into_iter().map(stream).collect()
}

/// Whatever is refused is refused for good: a sound upgrade and a frame stand behind each.
fn refused_request_streams() -> Vec<Stream> {
    let x = |bytes: usize| "x".repeat(bytes);
    let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n");
    let table: Vec<(&str, String, u16)> = vec![
        ("a TLS hello", "\x16\x03\x01\x02\0\x01\0".to_owned(), 400),
        ("a TLS hello with a line end in it", "\x16\x03\x01\n\r\n\r\n".to_owned(), 400),
        ("a TLS hello that is long", format!("\x16\x03\x01{}\r\n", x(200)), 400),
        ("a first byte of no token", "(GET / HTTP/1.1\n".to_owned(), 400),
        ("a frame instead of a request", "\u{1}\u{5}Hello".to_owned(), 400),
        ("empty lines", "\r\n\r\n".to_owned(), 400),
        ("bare line feed first", "\n".to_owned(), 400),
        ("bare line feed after the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n".to_owned(), 400),
        ("bare line feed after a header", "GET / HTTP/1.1\r\nHost: h\n\r\n".to_owned(), 400),
        ("bare line feed at the end", "GET / HTTP/1.1\r\nHost: h\r\n\n".to_owned(), 400),
        ("bare carriage return", "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n".to_owned(), 400),
        ("a carriage return first", "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("no version", "GET /\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("another version", "GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), 505),
        ("CONNECT", "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n".to_owned(), 501),
        ("no host", "GET / HTTP/1.1\r\nX: y\r\n\r\n".to_owned(), 400),
        ("two hosts", with("Host: h"), 400),
        ("a folded header", with("X: y\r\n z"), 400),
        ("a name with a space", with("X : y"), 400),
        ("two lengths", with("Content-Length: 1\r\nContent-Length: 1"), 400),
        ("a length and chunks", with("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400),
        ("chunks", with("Transfer-Encoding: chunked"), 411),
        ("another coding", with("Transfer-Encoding: gzip"), 501),
        ("a long body", with("Content-Length: 65"), 413),
        ("a body of 2^64 - 1", with("Content-Length: 18446744073709551615"), 413),
        ("a body of 2^64", with("Content-Length: 18446744073709551616"), 400),
        ("a long request line", format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", x(128)), 414),
        ("a long request line without an end", format!("GET /{}", x(300)), 414),
        ("a long request line, ended wrongly", format!("GET /{}\n", x(128)), 414),
        ("a long header line", with(&x(129)), 431),
        ("five headers", with("A: 1\r\nB: 2\r\nC: 3\r\nD: 4"), 431),
        ("a long head of short lines", with(&["A: ", &x(110), "\r\nB: ", &x(110)].concat()), 431),
        // The line would be too long as well, but the head is so first; and the other way round.
        ("a long head, then a long line", with(&["A: ", &x(110), "\r\nB: ", &x(200)].concat()), 431),
        ("a long line, then a long head", with(&["A: ", &x(200), "\r\nB: ", &x(110)].concat()), 431),
        ("a long head, then a bare line feed", with(&["A: ", &x(115), "\r\nB: ", &x(115), "\n"].concat()), 431),
    ];
    let behind = [UPGRADE.as_bytes(), &frame(0x81, b"Hello").wire(true)].concat();
    let refused = |(name, head, status): (&str, String, u16)| {
        stream(name, [head.as_bytes(), &behind].concat(), SMALL, &[&format!("failed {status}")])
    };
    table.into_iter().map(refused).collect()
}

/// The answer of RFC 6455 §1.3 to the key of [`asked`].
pub(crate) const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A client that has asked for a WebSocket.
pub(crate) fn asked() -> Connection<Client> {
    let protocols = &["mqtt", "chat.v2"];
    let request = ClientRequest {
        host: "server.example.com",
        target: "/chat",
        key: *b"the sample nonce",
        protocols,
        headers: &[],
    };
    Connection::request(&request, &mut Vec::new()).expect("sound")
}

pub(crate) fn response_streams() -> Vec<Stream> {
    let frames = bytes_of(&[frame(0x81, b"Hello"), frame(0x89, b"p"), frame(0x01, b"a"), frame(0x80, b"b")], false);
    let told = ["text \"Hello\"", "ping \"p\"", "text \"ab\""];
    let x = |bytes: usize| "x".repeat(bytes);
    let accepted_with = |line: &str| ACCEPTED.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
    let replaced = |from: &str, to: &str| {
        assert!(ACCEPTED.contains(from));
        ACCEPTED.replacen(from, to, 1)
    };
    let malformed = |reason: &str| format!("failed Malformed(\"{reason}\")");
    let mismatch = "failed AcceptMismatch".to_owned();
    let not_offered = "failed ProtocolNotOffered".to_owned();
    let table: Vec<(&str, String, String)> = vec![
        ("accepted", ACCEPTED.to_owned(), "upgraded -".to_owned()),
        ("accepted with a protocol", accepted_with("Sec-WebSocket-Protocol: chat.v2"), "upgraded chat.v2".to_owned()),
        ("accepted in other cases", replaced("Upgrade: websocket", "UPGRADE: WebSocket"), "upgraded -".to_owned()),
        (
            "not found",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "failed Status(404)".to_owned(),
        ),
        ("200", "HTTP/1.1 200 OK\r\n\r\n".to_owned(), "failed Status(200)".to_owned()),
        ("no upgrade", replaced("Upgrade: websocket\r\n", ""), "failed NotUpgraded".to_owned()),
        ("no connection", replaced("Connection: Upgrade\r\n", ""), "failed NotUpgraded".to_owned()),
        ("another key's answer", replaced("s3pP", "S3pP"), mismatch.clone()),
        ("no answer to the key", replaced("Sec-WebSocket-Accept", "X"), mismatch.clone()),
        ("two answers to the key", accepted_with("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), mismatch),
        ("a protocol of its own", accepted_with("Sec-WebSocket-Protocol: chat"), not_offered.clone()),
        ("two protocols", accepted_with("Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Protocol: mqtt"), not_offered),
        (
            "an extension",
            accepted_with("Sec-WebSocket-Extensions: permessage-deflate"),
            "failed ExtensionNotOffered".to_owned(),
        ),
        ("HTTP/1.0", replaced("HTTP/1.1", "HTTP/1.0"), malformed("HTTP/1.0 cannot be upgraded")),
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), malformed("the head does not parse")),
        ("a folded header", accepted_with("X: y\r\n z"), malformed("the head does not parse")),
        ("bare line feeds", ACCEPTED.replace("\r\n", "\n"), malformed("a line ends without a carriage return")),
        ("a long line", accepted_with(&x(8 << 10)), malformed("a header line is too long")),
    ];
    let mut streams = Vec::new();
    for (name, head, first) in table {
        let expected = if first.starts_with("upgraded") { [&[&*first], &told[..]].concat() } else { vec![&*first] };
        let bytes = [head.as_bytes(), &frames].concat();
        let mut one = stream(name, bytes, Limits::default(), &expected);
        one.marks.push(head.len());
        streams.push(one);
    }
    let masked = [ACCEPTED.as_bytes(), &frame(0x81, b"Hello").wire(true)].concat();
    let expected = ["upgraded -", "failed 1002 MaskPresent"];
    streams.push(stream("accepted, then a masked frame", masked, Limits::default(), &expected));
    streams.push(stream("half an answer", &ACCEPTED[..60], Limits::default(), &["unfinished"]));
    streams
}
