//! Hostile peers over real sockets: a clear answer that arrives, no memory that grows, and nothing lost for anybody
//! else. What the protocol core makes of the same input is tested without sockets.
//!
//! Memory is that of this process, server and clients together; tests that measure it run alone, and what they write
//! is made before the first measurement.

mod support;

use ringwave::base::limits::{KIB, MIB};
use ringwave::{CloseCode, Context, Handler, Message, Request, Response, Session, Upgrade, UpgradeRequest};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use support::{
    Client, Ended, Event, Frame, Raw, Received, TICK, TestServer, eventually, sockets_at_once, upgrade_with,
};

/// Those who measure memory take it for themselves, all others share it.
static MEMORY: RwLock<()> = RwLock::new(());

fn together() -> RwLockReadGuard<'static, ()> {
    MEMORY.read().unwrap_or_else(PoisonError::into_inner)
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    MEMORY.write().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of one line of `/proc/self/status`.
fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the line is there");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * KIB
}

fn resident() -> usize {
    memory("VmRSS")
}

/// What the allocator and the kernel's page tables may move between two measurements of the same state.
const NOISE: usize = 2 * MIB;

/// A client that was there before the attack.
struct Bystander(Client);

impl Bystander {
    fn of(server: &TestServer) -> Self {
        let mut client = server.client("/echo?bystander");
        client.echo("before");
        Self(client)
    }

    /// It has been sent nothing but its echo, and a newcomer is served too.
    #[track_caller]
    fn assert_undisturbed(&mut self, server: &TestServer) {
        self.0.echo("undisturbed");
        server.client("/echo?newcomer").echo("served");
    }
}

/// A frame as a client sends it, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

// Too many header lines, too long ones (ws CVE-2024-37890)

/// A request with this many header lines, Host among them.
fn head_of(lines: usize) -> String {
    let more: String = (1..lines).map(|index| format!("X{index}: y\r\n")).collect();
    format!("GET / HTTP/1.1\r\nHost: h\r\n{more}\r\n")
}

#[test]
fn heads_beyond_the_limits_are_told_so_and_the_answer_arrives() {
    let _together = together();
    let (server, _events) = TestServer::desk(|_| {});
    let mut bystander = Bystander::of(&server);
    let many = [1, 2, 50, 99, 100, 101, 102, 150, 200, 500, 1_000, 2_000, 5_000, 9_999, 10_000];
    let mut table: Vec<(String, u16)> =
        many.iter().map(|lines| (head_of(*lines), if *lines <= 100 { 200 } else { 431 })).collect();
    for long in [9 * KIB, 64 * KIB, MIB] {
        let long = "l".repeat(long);
        table.push((upgrade_with("/echo", &format!("X: {long}\r\n")), 431));
        table.push((upgrade_with("/echo", &format!("{long}: x\r\n")), 431));
        table.push((upgrade_with(&format!("/{long}"), ""), 414));
    }
    table.push((upgrade_with("/echo", &format!("X: {}\r\n", "l".repeat(7 * KIB)).repeat(3)), 431));
    for (head, status) in table {
        let what = format!("{} lines, {} bytes", head.lines().count(), head.len());
        let mut raw = server.raw();
        // All of it is taken, though most of it is not read; then the answer is there, whole.
        let answer = raw.write(&head).answer();
        assert_eq!(answer.status, status, "{what}");
        if status != 200 {
            assert_eq!(answer.header("Connection"), Some("close"), "{what}");
            raw.assert_end();
        }
    }
    bystander.assert_undisturbed(&server);
}

/// One connection holds its head, 16 KiB at most, while it is gathered. Were that lost with each refusal, 400 of them
/// would show as 6.4 MB.
#[test]
fn refused_heads_leave_no_memory_behind() {
    let _alone = alone();
    let (server, _events) = TestServer::desk(|_| {});
    let mut bystander = Bystander::of(&server);
    let heads = [head_of(10_000), upgrade_with("/echo", &format!("X: {}\r\n", "l".repeat(7 * KIB)).repeat(3))];
    let attack = |rounds: usize| {
        for head in (0..rounds).flat_map(|_| &heads) {
            let mut raw = server.raw();
            assert_eq!(raw.write(head).answer().status, 431);
            raw.assert_end();
        }
    };
    attack(25);
    let before = resident();
    attack(200);
    let grown = resident().saturating_sub(before);
    assert!(grown <= NOISE, "{grown} bytes more after 400 refused heads");
    bystander.assert_undisturbed(&server);
}

// A handshake one byte at a time (tungstenite CVE-2023-43669, slowloris)

#[test]
fn a_dripping_handshake_is_cut_by_the_deadline_though_bytes_keep_coming() {
    let _together = together();
    const TIMEOUT: Duration = Duration::from_millis(500);
    let (server, events) = TestServer::desk(|config| config.settings.handshake_timeout = TIMEOUT);
    let mut bystander = Bystander::of(&server);
    let start = Instant::now();
    let mut raw = server.raw();
    raw.stream.set_read_timeout(Some(Duration::from_millis(5))).expect("a positive timeout");
    let mut first = [0; 1];
    for byte in upgrade_with("/echo", &format!("X: {}\r\n", "y".repeat(8_000))).bytes() {
        raw.write([byte]);
        // The pace of the drip is the wait for an answer.
        match raw.stream.peek(&mut first) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(_) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(start.elapsed() + TICK >= TIMEOUT, "{:?}", start.elapsed());
    raw.stream.set_read_timeout(Some(support::DEADLINE)).expect("a positive timeout");
    assert_eq!(raw.answer().status, 408);
    raw.assert_end();
    bystander.assert_undisturbed(&server);
    drop((raw, bystander, server));
    assert_eq!(events.rest().iter().filter(|event| matches!(event, Event::Open { .. })).count(), 2);
}

#[test]
fn a_dripping_head_is_refused_at_its_limit() {
    let _together = together();
    let (server, _events) = TestServer::desk(|config| {
        config.settings.limits.head_bytes_max = 2 * KIB;
        config.settings.limits.head_line_bytes_max = KIB;
    });
    let mut bystander = Bystander::of(&server);
    let mut raw = server.raw();
    let line = format!("X: {}\r\n", "y".repeat(91));
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\n{}", line.repeat(40));
    // One byte more than is allowed proves it; nothing is said before that.
    for byte in &endless.as_bytes()[..2 * KIB] {
        raw.write([*byte]);
    }
    eventually("all are read", || server.handle().stats().bytes_received > 2 * KIB as u64);
    raw.stream.set_nonblocking(true).expect("a socket");
    let early = raw.stream.read(&mut [0; 1]).expect_err("nothing is said yet");
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    raw.stream.set_nonblocking(false).expect("a socket");
    assert_eq!(raw.write("y").answer().status, 431);
    raw.assert_end();
    bystander.assert_undisturbed(&server);
}

/// An unfinished head is gathered in a buffer that doubles, so it holds at most twice its bytes; a second wave finds
/// the memory of the first.
#[test]
fn unfinished_heads_hold_what_came_and_no_more() {
    let _alone = alone();
    const COUNT: usize = 200;
    let (server, _events) = TestServer::desk(|_| {});
    let mut bystander = Bystander::of(&server);
    let line = format!("X: {}\r\n", "y".repeat(1_000));
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{}", line.repeat(16));
    assert!(head.len() < 16 * KIB);
    let wave = || {
        let arrived = server.handle().stats().bytes_received + (COUNT * head.len()) as u64;
        let held: Vec<Raw> = (0..COUNT)
            .map(|_| {
                let mut raw = server.raw();
                raw.write(&head);
                raw
            })
            .collect();
        eventually("all are read", || server.handle().stats().bytes_received >= arrived);
        let resident = resident();
        drop(held);
        eventually("all are gone", || server.handle().stats().connections == 1);
        resident
    };
    let before = resident();
    let first = wave();
    let grown = first.saturating_sub(before);
    assert!(grown <= COUNT * 2 * 16 * KIB + NOISE, "{grown} bytes for {COUNT} unfinished heads");
    let grown = wave().max(wave()).saturating_sub(first);
    assert!(grown <= NOISE, "{grown} bytes more in later waves");
    bystander.assert_undisturbed(&server);
}

// Announced lengths (websocket CVE-2022-35922, NATS CVE-2026-27889, gorilla CVE-2020-27813, Tomcat CVE-2020-13935)

/// A binary frame's header that announces this length in 16 or in 64 bits.
fn announced(length: u64, bits: u32) -> Vec<u8> {
    match bits {
        16 => [&[0x82, 0xfe][..], &(length as u16).to_be_bytes(), &[0; 4]].concat(),
        _ => [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat(),
    }
}

/// Each announces 1 TiB, which is allowed here, and sends a byte of it. Memory that is set aside and not touched would
/// not be resident, so the address space is measured too: one of them would be 1 TiB of it.
#[test]
fn nothing_is_allocated_on_an_announced_length() {
    let _alone = alone();
    const COUNT: usize = 100;
    let (server, events) = TestServer::desk(|config| {
        config.settings.limits.message_bytes_max = 1 << 40;
        config.settings.limits.frame_bytes_max = 1 << 40;
    });
    let mut bystander = Bystander::of(&server);
    let mut liars: Vec<Client> = (0..COUNT).map(|_| server.client("/echo?liar")).collect();
    let (resident_before, size_before) = (resident(), memory("VmPeak"));
    let header = [announced(1 << 40, 64), vec![0]].concat();
    let arrived = server.handle().stats().bytes_received + (COUNT * header.len()) as u64;
    for liar in &mut liars {
        liar.stream.write_all(&header).expect("the server takes it");
    }
    eventually("all are read", || server.handle().stats().bytes_received >= arrived);
    // An echo comes from a later turn: the headers have been judged.
    bystander.0.echo("judged");
    let (grown, size_grown) = (resident().saturating_sub(resident_before), memory("VmPeak") - size_before);
    // 4 KiB for the first byte of each.
    assert!(grown <= COUNT * 8 * KIB + NOISE, "{grown} bytes more");
    assert!(size_grown < 1 << 30, "{size_grown} bytes of address space more");

    // A length that may not be is refused at once, in the first frame and in the sum of two.
    for wire in
        [announced((1 << 63) - 1, 64), [frame(0x02, b"x"), vec![0x80, 0xff], [0x7f; 8].to_vec(), vec![0; 4]].concat()]
    {
        let mut client = server.client("/echo?liar");
        client.stream.write_all(&wire).expect("the server takes it");
        assert_eq!(client.next(), Received::close(1009, "the message is too long"));
        assert_eq!(client.next(), Received::End(Ended::Orderly));
    }
    drop(liars);
    for _ in 0..COUNT + 2 {
        assert_eq!(events.closed().0, "liar");
    }
    bystander.assert_undisturbed(&server);
}

/// Every bound of the length encodings ± 1, cut at every place.
#[test]
fn lengths_around_every_bound_are_judged_the_same_however_they_are_cut() {
    let _together = together();
    let (server, _events) = TestServer::desk(|_| {});
    let mut bystander = Bystander::of(&server);
    let around = |bit: u32| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1];
    let limit = 64 * MIB as u64;
    let mut table: Vec<(u64, u32)> =
        around(7).iter().chain(&[124, 125, 126, 65_535]).map(|length| (*length, 16)).collect();
    table.extend([7, 16, 26, 32, 63].iter().flat_map(|bit| around(*bit)).map(|length| (length, 64)));
    table.push((u64::MAX, 64));
    for (length, bits) in table {
        let minimal = if bits == 16 { length >= 126 } else { length > 0xffff };
        let expected = match length {
            _ if length > i64::MAX as u64 || !minimal => Some(1002),
            _ if length > limit => Some(1009),
            _ => None,
        };
        let header = announced(length, bits);
        for cut in 1..=header.len() {
            let mut client = server.client("/echo?length");
            let (first, second) = header.split_at(cut);
            let arrived = server.handle().stats().bytes_received + cut as u64;
            client.stream.write_all(first).expect("the server takes it");
            eventually("the first part is read", || server.handle().stats().bytes_received >= arrived);
            if second.is_empty() || client.stream.write_all(second).is_ok() {
                client.stream.shutdown(Shutdown::Write).expect("it is connected");
            }
            let what = format!("{length} in {bits} bits, cut at {cut}");
            match client.next() {
                Received::Close(Some((code, _))) => assert_eq!(Some(code), expected, "{what}"),
                other => assert_eq!((other, expected), (Received::End(Ended::Orderly), None), "{what}"),
            }
        }
    }
    bystander.assert_undisturbed(&server);
}

// Bytes behind an upgrade (pingora CVE-2026-2833)

#[test]
fn bytes_behind_a_refused_upgrade_are_neither_frames_nor_requests() {
    let _together = together();
    let (server, events) = TestServer::desk(|_| {});
    let mut bystander = Bystander::of(&server);
    let sound = upgrade_with("/echo?smuggled", "");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let refused = [
        (upgrade_with("/refused", ""), 403),
        (upgrade_with("/choose?unoffered", ""), 500),
        (sound.replace("Version: 13", "Version: 12"), 426),
        (sound.replace(key, "X: y"), 400),
        (sound.replace(key, "Sec-WebSocket-Key: short"), 400),
        (sound.replace("GET", "POST"), 405),
        (sound.replace("Connection: Upgrade", "Connection: close"), 400),
        (sound.replace("Host: test.example", "Host: h\r\nContent-Length: 0"), 400),
        (sound.replace("Host: test.example", "Host: h\r\nContent-Length: 11") + "eleven more", 400),
        (sound.replace("Host: test.example", "Host: h\r\nTransfer-Encoding: chunked"), 411),
        (sound.replace("Host: test.example", "Host: h\r\nHost: h"), 400),
        (sound.replace("Host: test.example\r\n", ""), 400),
        (sound.replace("HTTP/1.1", "HTTP/2.0"), 505),
        (sound.replace("\r\nHost", "\nHost"), 400),
    ];
    let text = frame(0x81, b"smuggled");
    let request = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let behind = [&text[..], request, sound.as_bytes(), &text.repeat(10_000)];
    for (head, status) in &refused {
        for behind in behind {
            // In one write with the request, and when the refusal is on its way already.
            for one_write in [true, false] {
                let mut raw = server.raw();
                let answer = if one_write {
                    raw.write([head.as_bytes(), behind].concat()).answer()
                } else {
                    let answer = raw.write(head).answer();
                    raw.write(behind);
                    answer
                };
                assert_eq!((answer.status, answer.head.contains("close")), (*status, true), "{head:?}");
                raw.assert_end();
            }
        }
    }
    bystander.assert_undisturbed(&server);
    drop((bystander, server));
    let smuggled = events.rest().into_iter().filter(|event| format!("{event:?}").contains("smuggled"));
    assert_eq!(smuggled.collect::<Vec<_>>(), []);
}

/// Behind a sound one they are frames from the first byte on, however often they look like requests.
#[test]
fn bytes_behind_an_accepted_upgrade_are_frames() {
    let _together = together();
    let (server, events) = TestServer::desk(|_| {});
    let mut bystander = Bystander::of(&server);
    let sound = upgrade_with("/echo?upgraded", "");
    let mut raw = server.raw();
    raw.write([sound.as_bytes(), &frame(0x81, b"one"), &frame(0x89, b"two")].concat());
    assert_eq!(raw.answer().status, 101);
    assert_eq!(raw.bytes(10), b"\x81\x03one\x8a\x03two");

    let mut raw = server.raw();
    let answer = raw.write([&sound[..], "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"].concat()).answer();
    assert_eq!(answer.status, 101);
    let (bytes, ended) = raw.rest();
    // "G" has reserved bits.
    assert_eq!((Frame::all(&bytes)[0].close_code(), ended), (Some(1002), Ended::Orderly));
    bystander.assert_undisturbed(&server);
    drop((raw, bystander, server));
    assert!(!events.rest().iter().any(|event| matches!(event, Event::Request(_))));
}

// Requests with two meanings (hyper, Undertow, pingora CVE-2026-2835)

#[test]
fn ambiguous_requests_are_refused_and_nothing_behind_them_is_heard() {
    let _together = together();
    let (server, events) = TestServer::desk(|_| {});
    let mut bystander = Bystander::of(&server);
    let with = |more: &str| format!("POST /x HTTP/1.1\r\nHost: h\r\n{more}\r\n");
    let line = |line: &str| format!("{line}\r\nHost: h\r\n\r\n");
    let table = [
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), 400),
        (with("Transfer-Encoding: chunked\r\n"), 411),
        (with("transfer-encoding: CHUNKED\r\n"), 411),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding: xchunked\r\n"), 501),
        (with("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (with("Transfer-Encoding: chunked, identity\r\n"), 501),
        (with("Transfer-Encoding:\r\n"), 501),
        (with("Transfer-Encoding : chunked\r\n"), 400),
        (with("Transfer-Encoding\t: chunked\r\n"), 400),
        (with(" Transfer-Encoding: chunked\r\n"), 400),
        (with("X: y\r\n Transfer-Encoding: chunked\r\n"), 400),
        (with("Transfer-Encoding:\r\n chunked\r\n"), 400),
        (with("Content-Length: 0\r\nContent-Length: 36\r\n"), 400),
        (with("Content-Length: 0\r\nContent-Length: 0\r\n"), 400),
        (with("Content-Length: 0, 0\r\n"), 400),
        (with("Content-Length: +0\r\n"), 400),
        (with("Content-Length: -0\r\n"), 400),
        (with("Content-Length: 0x0\r\n"), 400),
        (with("Content-Length: 0 0\r\n"), 400),
        (with("Content-Length: 0.\r\n"), 400),
        (with("Content-Length:\r\n"), 400),
        (with("Content-Length : 0\r\n"), 400),
        (with("Content-Length: 18446744073709551616\r\n"), 400),
        (with("Content-Length: 18446744073709551615\r\n"), 413),
        (with("Content-Length\0: 36\r\n"), 400),
        (with("X: a\0b\r\n"), 400),
        (with("X: a\rb\r\n"), 400),
        (with("X: a\nContent-Length: 36\r\n"), 400),
        (with("X\r\n"), 400),
        (with(": y\r\n"), 400),
        (with("Host: h\r\n"), 400),
        (with("Host: other\r\n"), 400),
        ("POST /x HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: h\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n".to_owned(), 400),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".to_owned(), 400),
        (line("GET  / HTTP/1.1"), 400),
        (line("GET /\tHTTP/1.1"), 400),
        (line("GET / x HTTP/1.1"), 400),
        (line("GET / http/1.1"), 400),
        (line("GET / HTTP/1.10"), 400),
        (line("GET /"), 400),
        (line("GET x HTTP/1.1"), 400),
        (line("GET /#x HTTP/1.1"), 400),
        (line("GET http://other/ HTTP/1.1"), 400),
        (line("CONNECT h:80 HTTP/1.1"), 501),
        (line("G@T / HTTP/1.1"), 400),
        (line("GET / HTTP/3.0"), 505),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
    ];
    for (wire, status) in &table {
        let mut raw = server.raw();
        raw.write([wire, "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        let answer = raw.answer();
        assert_eq!(answer.status, *status, "{wire:?}: {answer:?}");
        assert_eq!(answer.header("Connection"), Some("close"), "{wire:?}");
        raw.assert_end();
    }
    bystander.assert_undisturbed(&server);
    drop((bystander, server));
    assert!(!events.rest().iter().any(|event| matches!(event, Event::Request(_))), "none of them is heard");
}

// Bytes that break a head (uvicorn CVE-2020-7695)

/// Puts what a target's query says in hexadecimal where its path says, in an answer of every kind.
struct Parrot;

impl Parrot {
    fn heard<'r>(request: &Request<'r>) -> (&'r str, String) {
        let query = request.query().unwrap_or_default();
        let bytes = (0..query.len()).step_by(2).map(|at| u8::from_str_radix(&query[at..at + 2], 16).expect("hex"));
        (request.path(), String::from_utf8(bytes.collect()).expect("UTF-8"))
    }

    fn response(request: &Request<'_>) -> Response {
        let (place, said) = Self::heard(request);
        match place {
            "/value" => Response::new(200).header("X-Echo", said),
            "/name" => Response::new(200).header(format!("X{said}"), "echo"),
            "/type" => Response::new(200).body(&said, "x"),
            _ => Response::new(200).text(said),
        }
    }
}

impl Handler for Parrot {
    type Data = String;

    fn on_upgrade(&mut self, _: &mut Context<'_, String>, request: &UpgradeRequest<'_>) -> Upgrade<String> {
        let (place, said) = Self::heard(request);
        match place {
            "/accept-value" => Upgrade::accept(said.clone()).header("X-Echo", said),
            "/accept-name" => Upgrade::accept(said.clone()).header(format!("X{said}"), "echo"),
            "/accept-protocol" => Upgrade::accept(said.clone()).protocol(said),
            _ => Upgrade::reject(Self::response(request)),
        }
    }

    fn on_message(&mut self, session: &mut Session<'_, String>, _: Message<'_>) {
        let said = session.data().clone();
        session.close(CloseCode::NORMAL, &said);
    }

    fn on_request(&mut self, _: &mut Context<'_, String>, request: &Request<'_>) -> Response {
        Self::response(request)
    }
}

#[test]
fn nothing_echoed_breaks_a_head() {
    let _together = together();
    let server = TestServer::start(|_| {}, |_| Parrot);
    let breakers = ["\r\n", "\r", "\n", "\0", "\x0b", "\x0c", "\x1b[2J", "\x7f", "\r\n\r\n"];
    for breaker in breakers {
        let said = format!("a{breaker}Set-Cookie: b");
        let hex: String = said.bytes().map(|byte| format!("{byte:02x}")).collect();
        for place in ["accept-value", "accept-name", "accept-protocol", "value", "name", "type"] {
            let target = format!("/{place}?{hex}");
            let upgrade = upgrade_with(&target, "Sec-WebSocket-Protocol: a, Set-Cookie\r\n");
            let plain = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            let wires = if place.starts_with("accept") { vec![upgrade] } else { vec![upgrade, plain] };
            for wire in wires {
                let mut raw = server.raw();
                let answer = raw.write(&wire).answer();
                assert_eq!(answer.status, 500, "{said:?} at {place}: {answer:?}");
                assert_eq!(answer.header("Set-Cookie"), None);
                raw.assert_end();
            }
        }
        // A body and a close reason are no heads: they carry anything.
        let answer = server.raw().write(format!("GET /body?{hex} HTTP/1.1\r\nHost: h\r\n\r\n")).answer();
        assert_eq!((answer.status, answer.body), (200, said.clone()));
    }
    // The characters that a value may have come as they are.
    let said = "a\tb \"c\", d;é";
    let hex: String = said.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut raw = server.raw();
    let answer = raw.write(upgrade_with(&format!("/accept-value?{hex}"), "")).answer();
    assert_eq!((answer.status, answer.header("X-Echo")), (101, Some(said)));
    raw.write(frame(0x81, b"x"));
    let close = &Frame::all(&raw.bytes(2 + 2 + said.len()))[0];
    assert_eq!((close.close_code(), &close.payload[2..]), (Some(1000), said.as_bytes()));
}

// Silence (Tomcat CVE-2024-23672), and what is never sent

#[test]
fn a_thousand_silent_sockets_are_gone_by_the_deadline() {
    let _together = together();
    const TIMEOUT: Duration = Duration::from_secs(1);
    let count = sockets_at_once(1_000);
    let (server, _events) = TestServer::desk(|config| config.settings.handshake_timeout = TIMEOUT);
    let mut bystander = Bystander::of(&server);
    let mut silent = Vec::new();
    for _ in 0..count {
        // The time of each begins with its own connection.
        silent.push((Instant::now(), server.raw()));
    }
    for (start, raw) in &mut silent {
        raw.assert_end();
        assert!(start.elapsed() + TICK >= TIMEOUT, "{:?}", start.elapsed());
    }
    // All have waited by now, so what is left to the last of them is the test's own slowness.
    eventually("only the bystander is left", || server.handle().stats().connections == 1);
    assert_eq!(server.handle().stats().accepted, count as u64 + 1);
    bystander.assert_undisturbed(&server);
}

/// A handler that thinks until it is told to go on.
struct Thinker {
    asked: Sender<()>,
    answer: Receiver<bool>,
}

impl Handler for Thinker {
    type Data = ();

    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
        self.asked.send(()).expect("the test listens");
        match self.answer.recv().expect("the test answers") {
            true => Upgrade::accept(()),
            false => Upgrade::reject(Response::new(403)),
        }
    }

    fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        session.send(message);
    }
}

#[test]
fn nothing_is_sent_before_the_request_is_judged() {
    let _together = together();
    let (asked, was_asked) = channel();
    let (answer, is_answer) = channel();
    let parts = Mutex::new(Some((asked, is_answer)));
    let server = TestServer::start(
        |_| {},
        move |_| {
            let parts = parts.lock().expect("nobody panics with it").take();
            let (asked, answer) = parts.expect("there is one shard");
            Thinker { asked, answer }
        },
    );
    for verdict in [true, false] {
        let mut raw = server.raw();
        raw.write(upgrade_with("/", "")).write(frame(0x81, b"eager"));
        was_asked.recv().expect("the handler is asked");
        // It is being judged at this moment.
        raw.stream.set_nonblocking(true).expect("a socket");
        let early = raw.stream.read(&mut [0; 1]).expect_err("nothing is said yet");
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        raw.stream.set_nonblocking(false).expect("a socket");
        answer.send(verdict).expect("the handler waits");
        if verdict {
            assert_eq!(raw.answer().status, 101);
            assert_eq!(raw.bytes(7), b"\x81\x05eager");
        } else {
            assert_eq!(raw.answer().status, 403);
            raw.assert_end();
        }
    }
}

/// Whatever a peer says or does, our close frame carries a code that may be sent, or none where the peer gave none.
#[test]
fn close_1005_1006_and_1015_are_never_sent() {
    let _together = together();
    let (server, _events) = TestServer::desk(|config| {
        config.settings.limits.message_bytes_max = 1_000;
        config.settings.limits.fragments_max = 2;
    });
    let mut bystander = Bystander::of(&server);
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    let numbers = (0..=3).chain(995..=1_020).chain([1_100, 1_999, 2_000, 2_999, 3_000, 4_999, 5_000, 65_535]);
    let mut table: Vec<(Vec<u8>, Option<u16>)> = numbers
        .map(|number| {
            let sendable = CloseCode::new(number).is_some();
            (close(number, b"why"), Some(if sendable { number } else { 1002 }))
        })
        .collect();
    table.extend([
        (frame(0x88, b""), None),
        (frame(0x88, b"\x03"), Some(1002)),
        (close(1000, b"\xff"), Some(1007)),
        (frame(0x81, b"\xff"), Some(1007)),
        (frame(0x83, b""), Some(1002)),
        (announced(1_001, 16), Some(1009)),
        ([frame(0x01, b""), frame(0x00, b""), frame(0x00, b"")].concat(), Some(1008)),
        // Several reasons at once: the first one counts, and is told once.
        ([close(1005, b""), close(1006, b""), frame(0xff, b"")].concat(), Some(1002)),
        ([close(1000, b""), close(1015, b"")].concat(), Some(1000)),
    ]);
    for number in [1005, 1006, 1015] {
        assert_eq!(CloseCode::new(number), None, "an application cannot even name it");
    }
    for (wire, code) in table {
        let mut raw = server.raw();
        let what = wire.escape_ascii().to_string();
        assert_eq!(raw.write(upgrade_with("/echo?closes", "")).answer().status, 101);
        raw.write(wire);
        let (bytes, ended) = raw.rest();
        let frames = Frame::all(&bytes);
        assert_eq!((frames.len(), frames[0].close_code(), ended), (1, code, Ended::Orderly), "{what}");
    }
    // A peer that just goes is not sent anything.
    let mut raw = server.raw();
    assert_eq!(raw.write(upgrade_with("/echo?goes", "")).answer().status, 101);
    raw.stream.shutdown(Shutdown::Write).expect("it is connected");
    raw.assert_end();
    bystander.assert_undisturbed(&server);

    // And the codes that we choose ourselves, when time is up and when we go.
    let (server, _events) = TestServer::desk(|config| {
        config.settings.idle_timeout = Some(Duration::from_millis(50));
        config.settings.close_timeout = Duration::from_millis(50);
    });
    let mut raw = server.raw();
    assert_eq!(raw.write(upgrade_with("/echo?idle", "")).answer().status, 101);
    let (bytes, _) = raw.rest();
    assert_eq!(Frame::all(&bytes).iter().map(Frame::close_code).collect::<Vec<_>>(), [Some(1001)]);
}
