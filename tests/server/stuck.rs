//! Sockets that get stuck, in every state that a connection has: all are gone by their deadlines, and nothing stays.

use crate::support::{Client, Received, Report, TestServer, eventually, sockets_at_once, upgrade_with};
use ringwave::CloseCode;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(1);
/// More than the sockets between two peers of [`connect`] take.
const LONG: usize = 1_000_000;

/// A connection with short segments and a small window: neither side buffers much.
fn connect(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a descriptor is free");
    socket.set_tcp_mss(1_000).expect("a TCP socket");
    socket.set_recv_buffer_size(4_096).expect("a TCP socket");
    socket.connect(&to.into()).expect("the server accepts");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a positive timeout");
    stream
}

fn open(to: SocketAddr, name: &str) -> Client {
    let mut client = Client::over(connect(to), &format!("/{name}"), &[]);
    client.flush();
    assert_eq!(client.next(), Received::Open(None));
    client
}

/// Opens sessions and has more sent to them than they take.
fn fill(server: &TestServer, name: &str, count: usize, held: &mut Vec<TcpStream>) {
    let long = vec![0; LONG];
    for group in 0..count.div_ceil(50) {
        let topic = format!("{name}-{group}");
        for _ in 0..(count - 50 * group).min(50) {
            let mut client = open(server.address(), name);
            client.put(&format!("subscribe {topic}")).put("subscribed").flush();
            assert_eq!(client.text(), "subscribed");
            held.push(client.stream);
        }
        server.handle().publish(&topic, &long).expect("the mailbox has room");
    }
}

/// A peer may be stuck at any time, and none of them says or takes anything from there on.
#[test]
fn sockets_stuck_in_any_state_are_gone_by_their_deadlines() {
    const STATES: usize = 8;
    let count = sockets_at_once(STATES * 2_000) / STATES;
    let (server, reports) = TestServer::rig(|config| {
        config.settings.handshake_timeout = TIMEOUT;
        config.settings.ping_interval = Some(TIMEOUT);
        config.settings.pong_timeout = TIMEOUT;
        config.settings.close_timeout = TIMEOUT;
        config.settings.stall_timeout = TIMEOUT;
    });
    let address = server.address();
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(connect(address));
        let mut half = connect(address);
        half.write_all(&upgrade_with("/half", "").as_bytes()[..60]).expect("the server takes it");
        held.push(half);
    }
    held.extend((0..count).map(|_| open(address, "silent").stream));
    fill(&server, "unread", count, &mut held);
    let mut causes: HashMap<(String, &str), usize> = HashMap::new();
    for _ in 0..count {
        held.push(open(address, "closing").stream);
        // What it is told of has been reported; the first of the others may have ended by now.
        for report in reports.so_far() {
            match report {
                Report::Close(name, ended) => *causes.entry((name, ended.cause.name())).or_default() += 1,
                Report::Open(name, key) if name == "closing" => {
                    server.handle().close(key, CloseCode::NORMAL, "").expect("the mailbox has room");
                }
                _ => {}
            }
        }
    }
    for _ in 0..count {
        let mut broken = open(address, "broken");
        broken.stream.write_all(b"\xff\x80\0\0\0\0").expect("the server takes it");
        held.push(broken.stream);
        let ended = open(address, "half-closed");
        ended.stream.shutdown(Shutdown::Write).expect("it is connected");
        held.push(ended.stream);
    }
    let before = held.len();
    fill(&server, "half-closed+unread", count, &mut held);
    for stream in &held[before..] {
        // It may have been cut for what it does not take.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let start = Instant::now();
    eventually("all are gone", || server.stats().connections == 0);
    let passed = start.elapsed();
    println!("{count} of each, {} in all: gone after {passed:?}", held.len());
    // The longest way: an answer that is not waited for, and then the time to linger; or a stall that is seen late.
    assert!(passed < 4 * TIMEOUT + Duration::from_secs(2), "{passed:?}");
    eventually("no timer is left", || server.stats().timers == 0);
    let stats = server.stats();
    assert_eq!((stats.sessions, stats.queues, stats.topics, stats.memory_bytes), (0, 0, 0, 0));
    server.client("/new").echo("served");

    for report in reports.so_far() {
        if let Report::Close(name, ended) = report {
            *causes.entry((name, ended.cause.name())).or_default() += 1;
        }
    }
    // Those in the middle of a handshake were no sessions.
    for name in ["silent", "closing", "broken", "half-closed", "unread", "half-closed+unread"] {
        let of_name: Vec<_> =
            causes.iter().filter(|((of, _), _)| of == name).map(|((_, cause), n)| (*cause, *n)).collect();
        let expected = match name {
            "silent" => "pong_timeout",
            "closing" => "close_timeout",
            "broken" => "protocol",
            "half-closed" => "peer_gone",
            "unread" => "stalled",
            // As the end of its stream came before or after that.
            _ => {
                assert_eq!(of_name.iter().map(|(_, n)| n).sum::<usize>(), count, "{name}: {of_name:?}");
                continue;
            }
        };
        assert_eq!(of_name, [(expected, count)], "{name}");
    }
    drop(held);
}
