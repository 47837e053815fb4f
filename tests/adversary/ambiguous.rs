//! Requests that two parsers understand differently (hyper, Undertow, pingora CVE-2026-2835): refused, every one.
//!
//! Two ways: a list of known ambiguities, made by combining them, each of which must be refused; and every edit of
//! sound requests, where whatever is still taken for a request must mean the same to more lenient parsers.

use ringwave::Limits;
use ringwave::protocol::connection::Connection;
use ringwave::protocol::decoder::Event;
use ringwave::protocol::encoder::Server;
use ringwave::protocol::error::Failure;
use ringwave::protocol::handshake::UpgradeRequest;
use ringwave::protocol::response::Response;

/// What a parser makes of a request.
#[derive(Debug, PartialEq)]
struct Understood {
    method: Vec<u8>,
    target: Vec<u8>,
    /// In lower case.
    host: Vec<u8>,
    /// Names in lower case.
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    /// What is left for the next request, or for frames.
    rest: usize,
}

/// What the core makes of it: a request, a refusal's status, or nothing yet.
fn judged(wire: &[u8]) -> Result<Option<Understood>, u16> {
    let limits = Limits::default();
    let mut lent = wire.to_vec();
    let mut connection = Connection::<Server>::default();
    let (mut events, _) = connection.receive(&mut lent, &limits);
    let mut understood = match events.next_event() {
        Ok(Some(Event::Request(request))) => {
            UpgradeRequest::of(&request).map_err(|error| Response::from(error).status())?;
            let headers = request.headers().iter();
            Understood {
                method: request.method().into(),
                target: request.target().into(),
                host: request.header("host").unwrap_or_default().to_ascii_lowercase().into(),
                // What is white space to some may end a value here: where that matters, host and body tell.
                headers: headers
                    .map(|(name, value)| (name.to_ascii_lowercase().into(), trimmed(value).into()))
                    .collect(),
                body: request.body().into(),
                rest: 0,
            }
        }
        Ok(_) => return Ok(None),
        Err(Failure::Head(error)) => return Err(error.status),
        Err(other) => panic!("{other}"),
    };
    understood.rest = events.unread();
    Ok(Some(understood))
}

#[test]
fn ambiguous_requests_are_refused() {
    let requests = ambiguous_requests();
    assert!(requests.len() >= 200, "{}", requests.len());
    for request in &requests {
        let status = judged(request).expect_err(&request.escape_ascii().to_string());
        let refusals = [400, 411, 414, 417, 431, 501, 505];
        assert!(refusals.contains(&status), "{status} to {}", request.escape_ascii());
    }
    let mut different = requests.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), requests.len(), "each stands in the list once");
}

fn ambiguous_requests() -> Vec<Vec<u8>> {
    let mut requests: Vec<Vec<u8>> = Vec::new();
    let mut with_lines = |lines: &str| {
        requests.push(format!("POST /p HTTP/1.1\r\nHost: h\r\n{lines}\r\nabcdeGET / HTTP/1.1\r\n\r\n").into());
    };
    // Lengths that are none, alone and beside a sound one.
    let bad_lengths = [
        "",
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5,5",
        "5;5",
        "5.0",
        "5e0",
        "\"5\"",
        "5a",
        "a5",
        "5_0",
        "０",
        "٥",
        "5\u{a0}",
        "18446744073709551616",
        "99999999999999999999999",
        "5,",
        ",5",
        "--5",
        "5-",
    ];
    for value in bad_lengths {
        with_lines(&format!("Content-Length: {value}\r\n"));
        with_lines(&format!("Content-Length: 5\r\nContent-Length: {value}\r\n"));
        with_lines(&format!("Content-Length: {value}\r\nContent-Length: 5\r\n"));
    }
    for (first, second) in [("5", "5"), ("5", "0"), ("0", "5"), ("5", "05"), ("6", "5")] {
        with_lines(&format!("Content-Length: {first}\r\nContent-Length: {second}\r\n"));
        with_lines(&format!("Content-Length: {first}\r\nX: y\r\ncontent-length: {second}\r\n"));
        with_lines(&format!("Content-Length: {first}, {second}\r\n"));
    }
    // Codings, alone and beside a length on either side.
    let codings = [
        "chunked",
        "Chunked",
        "CHUNKED",
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "identity",
        "chunked;q=1",
        "\"chunked\"",
        "chunked,",
        ", chunked",
        "",
        " ",
        "\tchunked",
        "chunked\t",
        "cow",
        "c hunked",
        "chun\u{e9}ked",
        "trailers",
    ];
    for coding in codings {
        with_lines(&format!("Transfer-Encoding: {coding}\r\n"));
        with_lines(&format!("Content-Length: 5\r\nTransfer-Encoding: {coding}\r\n"));
        with_lines(&format!("Transfer-Encoding: {coding}\r\nContent-Length: 5\r\n"));
        with_lines(&format!("Transfer-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n"));
    }
    // Names that some trim and some do not.
    for name in ["Content-Length", "Transfer-Encoding", "Host", "X"] {
        let value = if name == "Transfer-Encoding" { "chunked" } else { "5" };
        for bent in [
            format!("{name} : {value}"),
            format!("{name}\t: {value}"),
            format!(" {name}: {value}"),
            format!("\t{name}: {value}"),
            format!("{name}\u{b}: {value}"),
            format!("{name}\0: {value}"),
            format!("\u{feff}{name}: {value}"),
            format!("{name}\u{a0}: {value}"),
            format!("{name}\r: {value}"),
            format!("X: y\r\n {name}: {value}"),
            format!("X: y\r\n\t{name}: {value}"),
            format!("X: y\n{name}: {value}"),
            format!("X: y\r{name}: {value}"),
            format!("X: y\0{name}: {value}"),
            format!("X: y\r\r\n{name}: {value}"),
            format!("X: y\n\r{name}: {value}"),
            format!("{name}:\r\n {value}"),
            format!("{name}: {value}\r\n "),
            format!("{name}: {value}\0"),
            format!("{name}: \u{b}{value}"),
            format!("{name}: \u{c}{value}"),
            format!("{name}: {value}\u{7f}"),
            format!("{name} {value}"),
            name.to_owned(),
            format!("({name}): {value}"),
            format!("{name}\r\n: {value}"),
        ] {
            with_lines(&format!("{bent}\r\n"));
        }
    }
    // Hosts.
    for hosts in [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nhost: a\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a#b\r\n",
        "Host: a?b\r\n",
        "Host: a\tb\r\n",
        "Host: \u{a0}a\r\nHost: a\r\n",
    ] {
        requests.push(format!("GET / HTTP/1.1\r\n{hosts}\r\n").into());
    }
    // Request lines.
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / x HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET /",
        "GET",
        "GET  HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / HTTP/1.",
        "GET / HTTP/1",
        "GET / HTTP/1,1",
        "GET / HTTP/0.9",
        "GET / HTTP/3.0",
        "GET / ICY/1.1",
        "GET / HTTP /1.1",
        "G\u{b}ET / HTTP/1.1",
        "GET\u{c}/ HTTP/1.1",
        "GET /\u{b} HTTP/1.1",
        "GET /a\0b HTTP/1.1",
        "GET /a\rb HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET h:80 HTTP/1.1",
        "CONNECT h:80 HTTP/1.1",
        "GET ftp://h/ HTTP/1.1",
        "GET http:/h/ HTTP/1.1",
        "GET http://evil/ HTTP/1.1",
        "GET http://h:81/ HTTP/1.1",
        "GET http://evil@h/ HTTP/1.1",
        "GET http://h@evil/ HTTP/1.1",
        "GET http:///p HTTP/1.1",
        "GET http://h?q HTTP/1.1",
        "\r\n\r\nGET / HTTP/1.1",
        "\nGET / HTTP/1.1",
        "\rGET / HTTP/1.1",
        "\0GET / HTTP/1.1",
    ] {
        requests.push(format!("{line}\r\nHost: h\r\n\r\n").into());
    }
    // Bodies on upgrades.
    let upgrade = "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    for lines in [
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 00\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Sec-WebSocket-Version: 13\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Sec-WebSocket-Protocol: a b\r\n",
    ] {
        requests.push(format!("{upgrade}{lines}\r\nabcde").into());
    }
    // Each line end in turn, bent.
    let ends: Vec<usize> = upgrade.match_indices("\r\n").map(|(at, _)| at).collect();
    for at in ends {
        for bent in ["\n", "\r", "\r\r\n", "\n\r", "\r\n ", "\r\n\t", " \n", "\0\r\n", "\u{b}\r\n"] {
            requests.push(format!("{}{bent}{}\r\n\r\n", &upgrade[..at], &upgrade[at + 2..]).into());
        }
    }
    requests
}

/// How other parsers are more lenient than ours.
#[derive(Clone, Copy, Debug)]
struct Lenience {
    /// A carriage return alone ends a line; otherwise it is dropped from the ends of lines.
    bare_cr_ends_a_line: bool,
    /// Of several values the last counts, not the first.
    last_wins: bool,
    /// Lines that begin with white space belong to the line before; otherwise they are lines.
    folds: bool,
}

/// White space to somebody: what C's `isspace` and Python's `strip` know, and NUL.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, 0 | b'\t'..=b'\r' | 0x1c..=0x20 | 0x85 | 0xa0)
}

fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// The next line, and what is behind it.
fn next_line(wire: &[u8], lenience: Lenience) -> Option<(&[u8], &[u8])> {
    let end = wire.iter().position(|byte| *byte == b'\n' || (lenience.bare_cr_ends_a_line && *byte == b'\r'))?;
    let behind = if wire[end..].starts_with(b"\r\n") { end + 2 } else { end + 1 };
    Some((wire[..end].strip_suffix(b"\r").unwrap_or(&wire[..end]), &wire[behind..]))
}

/// A parser that takes what it can get. `None`: even it refuses, or waits for more.
fn second_parser(mut wire: &[u8], lenience: Lenience) -> Option<Understood> {
    while let [b'\r' | b'\n', rest @ ..] = wire {
        wire = rest;
    }
    let (request_line, mut wire) = next_line(wire, lenience)?;
    let words: Vec<&[u8]> = request_line.split(|byte| is_blank(*byte)).filter(|word| !word.is_empty()).collect();
    let [method, target, version] = words[..] else { return None };
    version.strip_prefix(b"HTTP/1.")?;

    let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    loop {
        let (line, behind) = next_line(wire, lenience)?;
        wire = behind;
        if line.is_empty() {
            break;
        }
        if lenience.folds
            && line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'))
            && let Some((_, value)) = headers.last_mut()
        {
            value.extend_from_slice(line);
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        headers.push((trimmed(&line[..colon]).to_ascii_lowercase(), trimmed(&line[colon + 1..]).to_vec()));
    }
    let value_of = |name: &[u8]| {
        let mut values = headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone());
        if lenience.last_wins { values.next_back() } else { values.next() }
    };

    let mut host = value_of(b"host").unwrap_or_default();
    let mut target = target.to_vec();
    if let Some(at) = target.windows(3).position(|three| three == b"://")
        && target[0] != b'/'
    {
        let rest = target.split_off(at + 3);
        let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        host = rest[..end].to_vec();
        target = if end < rest.len() { rest[end..].to_vec() } else { b"/".to_vec() };
    }
    let body = if value_of(b"transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().ends_with(b"chunked"))
    {
        // Whatever it would make of the chunks, it is another body than ours.
        b"chunks".to_vec()
    } else {
        let digits = value_of(b"content-length").unwrap_or_default();
        let digits = digits.iter().skip_while(|byte| **byte == b'+').take_while(|byte| byte.is_ascii_digit());
        let length =
            digits.fold(0usize, |length, digit| length.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
        let body = wire.get(..length)?;
        wire = &wire[length..];
        body.to_vec()
    };
    let host = host.to_ascii_lowercase();
    Some(Understood { method: method.to_vec(), target, host, headers, body, rest: wire.len() })
}

/// Sound requests, each with another behind it.
const SOUND: [&str; 3] = [
    "POST /p?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX: a b\r\n\r\nabcdeGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET http://h/p HTTP/1.1\r\nhost:h\r\nConnection: keep-alive\r\nTE: trailers\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /chat HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x01\x05Hello",
];

/// What is put into sound requests, at every place.
fn edits() -> Vec<Vec<u8>> {
    let strings = [
        "\r\n",
        "\r\n ",
        "\r\n\t",
        "\n ",
        "\r ",
        " \r\n",
        "\r\r\n",
        "\n\r",
        "\r\n\r\n",
        "\n\n",
        "X:",
        "\r\nHost: evil",
        "\r\nX: y",
        "\r\nContent-Length: 1",
        "\r\nTransfer-Encoding: chunked",
        "\r\n Content-Length: 1",
        "\nContent-Length: 1",
        " HTTP/1.1",
        "http://evil",
        "@evil",
        "\u{2028}",
        "\u{10a}",
    ];
    (0..=255u8).map(|byte| vec![byte]).chain(strings.map(|text| text.as_bytes().to_vec())).chain([Vec::new()]).collect()
}

#[test]
fn what_is_taken_means_the_same_to_more_lenient_parsers() {
    let mut leniences = Vec::new();
    for bits in 0..8 {
        let [bare_cr_ends_a_line, last_wins, folds] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
        leniences.push(Lenience { bare_cr_ends_a_line, last_wins, folds });
    }
    let (mut taken, mut refused) = (0, 0);
    for sound in SOUND.map(str::as_bytes) {
        assert!(judged(sound).is_ok_and(|request| request.is_some()));
        for edit in edits() {
            for at in 0..=sound.len() {
                // Put in, and put in the place of one byte.
                for behind in [at, at + 1] {
                    let wire = [&sound[..at], &edit, sound.get(behind..).unwrap_or_default()].concat();
                    match judged(&wire) {
                        Ok(Some(ours)) => {
                            taken += 1;
                            for lenience in &leniences {
                                let theirs = second_parser(&wire, *lenience);
                                let same = theirs.as_ref().is_none_or(|theirs| *theirs == ours);
                                assert!(same, "{}\n{ours:?}\n{theirs:?}\n{lenience:?}", wire.escape_ascii());
                            }
                        }
                        Ok(None) => {}
                        Err(_) => refused += 1,
                    }
                }
            }
        }
    }
    // The test would pass as well if all, or nothing, were refused.
    assert!(taken > 10_000 && refused > 10_000, "{taken} taken, {refused} refused");
}

/// The second parser sees the differences that it is there to see.
#[test]
fn lenient_parsers_differ_where_they_should() {
    let strict = Lenience { bare_cr_ends_a_line: false, last_wins: false, folds: false };
    let lenient = [
        Lenience { bare_cr_ends_a_line: true, ..strict },
        Lenience { last_wins: true, ..strict },
        Lenience { folds: true, ..strict },
    ];
    let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\nabcde");
    let pairs =
        [head("X: y\rContent-Length: 5"), head("Content-Length: 5\r\nContent-Length: 0"), head("X: y\r\n Host: z")];
    for (wire, lenience) in pairs.iter().zip(lenient) {
        let (one, other) = (second_parser(wire.as_bytes(), strict), second_parser(wire.as_bytes(), lenience));
        assert!(one.is_some() && other.is_some() && one != other, "{wire:?}");
    }
}
