//! Limits on how many sessions there are and how fast they come, with the answers to those that are too many.

use crate::support::{Client, Ended, Raw, Received, Report, Reports, TestServer, eventually, upgrade_with};
use ringwave::base::limits::OPTIONS_MAX;
use ringwave::{Config, Policy, Rate, SessionOptions};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A connection from this address.
fn connect_from(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a descriptor is free");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of the loopback");
    socket.connect(&to.into()).expect("the server accepts");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a positive timeout");
    stream
}

/// Asks for a WebSocket: the status, and what `Retry-After` says.
#[track_caller]
fn ask(raw: &mut Raw, target: &str) -> (u16, Option<u64>) {
    let answer = raw.write(upgrade_with(target, "")).answer();
    let wait = answer.header("Retry-After").map(|wait| wait.parse().expect("a number of seconds"));
    if answer.status != 101 {
        assert_eq!(answer.header("Connection"), Some("close"));
        raw.assert_end();
    }
    (answer.status, wait)
}

/// The names for which an upgrade was asked of the application.
fn asked(reports: &Reports) -> Vec<String> {
    let asked = reports.so_far().into_iter().filter_map(|report| match report {
        Report::Asked(name) => Some(name),
        _ => None,
    });
    asked.collect()
}

#[test]
fn a_full_server_says_when_to_come_back() {
    type Change = fn(&mut Config);
    let table: [(&str, Change); 2] = [
        ("sessions_max", |config| config.settings.sessions_max = Some(5)),
        ("connections_max", |config| config.connections_max = 5),
    ];
    for (limit, change) in table {
        let (server, reports) = TestServer::rig(|config| {
            config.settings.retry_after = Duration::from_secs(10);
            change(config);
        });
        let mut inside: Vec<_> = (0..5).map(|_| server.client("/inside")).collect();
        let mut waits = BTreeSet::new();
        for _ in 0..20 {
            let (status, wait) = ask(&mut server.raw(), "/outside");
            assert_eq!(status, 503, "{limit}");
            waits.insert(wait.expect("it says when"));
            // Others are served, and on the same connection before it asks for more.
            let mut raw = server.raw();
            assert_eq!(raw.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").answer().status, 200, "{limit}");
            assert_eq!(ask(&mut raw, "/outside").0, 503);
        }
        assert!(waits.iter().all(|wait| (10..=20).contains(wait)) && waits.len() > 3, "{limit}: {waits:?}");
        inside[2].close();
        eventually("one has left", || server.stats().sessions == 4);
        server.client("/inside").echo("room again");
        assert_eq!(server.stats().refused_full, 40);
        assert_eq!(asked(&reports), ["inside"; 6], "{limit}: the application is not asked for the others");
    }
}

#[test]
fn no_sessions_at_all_is_a_limit() {
    let (server, _reports) = TestServer::rig(|config| config.settings.sessions_max = Some(0));
    assert_eq!(ask(&mut server.raw(), "/x").0, 503);
    assert_eq!(server.raw().write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").answer().status, 200);
}

#[test]
fn an_address_has_as_many_sessions_as_it_may() {
    let localhost = |number| IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
    let ipv6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    // Where it listens, and from where the clients come: each address counts by itself, an IPv4 one that comes over IPv6 as
    // what it is.
    let table = [
        (localhost(1), vec![localhost(1), localhost(2), localhost(3)]),
        (ipv6, vec![ipv6]),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), vec![ipv6, localhost(1), localhost(2)]),
    ];
    for (listen, sources) in table {
        if listen.is_ipv6() && std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            continue;
        }
        let (server, reports) = TestServer::rig(|config| {
            config.listen = SocketAddr::new(listen, 0);
            config.settings.sessions_per_address_max = Some(3);
            config.settings.retry_after = Duration::ZERO;
        });
        let to = |source: IpAddr| {
            let ip = if source.is_ipv4() { localhost(1) } else { ipv6 };
            SocketAddr::new(ip, server.address().port())
        };
        let mut kept = Vec::new();
        for source in &sources {
            for _ in 0..3 {
                let mut client = Client::over(connect_from(*source, to(*source)), "/inside", &[]);
                client.flush();
                assert_eq!(client.next(), Received::Open(None), "from {source} to {listen}");
                kept.push(client);
            }
            for kept_alive in [false, true] {
                let mut raw = Raw::over(connect_from(*source, to(*source)));
                if kept_alive {
                    raw.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").answer();
                }
                let (status, wait) = ask(&mut raw, "/outside");
                assert_eq!(status, 429, "from {source} to {listen}");
                assert!(matches!(wait, Some(1..=2)), "{wait:?}");
            }
        }
        let sessions = 3 * sources.len() as u64;
        assert_eq!(server.stats().refused_address, 2 * sources.len() as u64);
        // In order, without a word, by a panic: each makes room for one of the same address.
        kept[0].close();
        drop(kept.remove(1));
        kept[1].send("panic");
        kept[1].put_close(None).flush();
        eventually("three have left", || server.stats().sessions == sessions - 3);
        for _ in 0..3 {
            let mut client = Client::over(connect_from(sources[0], to(sources[0])), "/inside", &[]);
            client.flush();
            assert_eq!(client.next(), Received::Open(None));
            kept.push(client);
        }
        assert_eq!(ask(&mut Raw::over(connect_from(sources[0], to(sources[0]))), "/outside").0, 429);
        assert!(!asked(&reports).contains(&"outside".to_owned()));
    }
}

/// All those who lost their connection at once come back at once: some are let in, the others are told to wait.
#[test]
fn handshakes_beyond_the_rate_are_told_to_come_back_at_once() {
    const RATE: Rate = Rate { per_second: 200, burst: 100 };
    let count = crate::support::sockets_at_once(2_000);
    let (server, _reports) = TestServer::rig(|config| config.settings.handshake_rate = Some(RATE));
    let mut herd: Vec<_> = (0..count).map(|_| server.raw()).collect();
    eventually("all are accepted", || server.stats().accepted == count as u64);
    let start = Instant::now();
    let request = upgrade_with("/herd", "");
    for raw in &mut herd {
        raw.write(&request);
    }
    let (mut inside, mut waits) = (0, Vec::new());
    for raw in &mut herd {
        let answer = raw.answer();
        match answer.status {
            101 => inside += 1,
            503 => waits.push(answer.header("Retry-After").expect("it says when").parse::<u64>().expect("a number")),
            other => panic!("{other} is no answer to that"),
        }
    }
    let passed = start.elapsed();
    println!("{count} handshakes at once: {inside} let in, {} refused, all told within {passed:?}", waits.len());
    let most = RATE.burst as usize + (passed.as_secs_f64() * f64::from(RATE.per_second)) as usize + 1;
    assert!((RATE.burst as usize..=most).contains(&inside), "{inside} were let in within {passed:?}");
    assert!(waits.iter().all(|wait| (5..=10).contains(wait)), "{waits:?}");
    let stats = server.stats();
    assert_eq!((stats.opened, stats.refused_rate), (inside as u64, waits.len() as u64));
    // Who comes back when there is room is let in. Each try costs nothing.
    let again = (0..200).filter(|_| {
        std::thread::sleep(Duration::from_millis(1000 / u64::from(RATE.per_second) + 1));
        ask(&mut server.raw(), "/again").0 == 101
    });
    assert_eq!(again.count(), 200);
}

#[test]
fn a_table_of_options_that_is_full_refuses_and_breaks_nothing() {
    let (server, _reports) = TestServer::rig_with(
        |_| {},
        |name| {
            let number: usize = name.parse().ok()?;
            Some(SessionOptions { queue_bytes_max: 1_000_000 + number, ..SessionOptions::default() })
        },
    );
    // The default is one of them.
    let mut different: Vec<_> = (1..OPTIONS_MAX).map(|number| server.client(&format!("/{number}"))).collect();
    let refused = |number: usize| {
        let mut raw = server.raw();
        let answer = raw.write(upgrade_with(&format!("/{number}"), "")).answer();
        assert_eq!((answer.status, answer.header("Connection")), (500, Some("close")));
        raw.assert_end();
    };
    for number in 0..20 {
        refused(OPTIONS_MAX + number);
        // What is there already may be used again, and by as many as like.
        server.client("/default").echo("served");
        server.client(&format!("/{}", 1 + number)).echo("served");
    }
    different[9].close();
    eventually("one has left", || server.stats().sessions == (OPTIONS_MAX - 2) as u64);
    let mut late = server.client(&format!("/{}", OPTIONS_MAX + 20));
    refused(OPTIONS_MAX + 21);
    late.echo("room again");
    for client in different.iter_mut().enumerate().filter(|(index, _)| *index != 9).map(|(_, client)| client) {
        client.echo("undisturbed");
    }
    let stats = server.stats();
    assert_eq!((stats.responses, stats.handler_panics, stats.sessions), (21, 0, (OPTIONS_MAX - 1) as u64));
}

#[test]
fn each_session_has_the_options_of_its_own_upgrade() {
    let (server, reports) = TestServer::rig_with(
        |config| config.settings.session.queue_bytes_max = 2_000_000,
        |name| {
            let all = SessionOptions::default();
            match name {
                "slow" => Some(SessionOptions { message_rate: Some(Rate { per_second: 1, burst: 1 }), ..all }),
                "streams" => Some(SessionOptions { chunks: true, ..all }),
                "mortal" => Some(SessionOptions { lifetime_max: Some(Duration::from_millis(300)), ..all }),
                "drops" => Some(SessionOptions { policy: Policy::DropOld, ..all }),
                _ => None,
            }
        },
    );
    let names = ["slow", "streams", "mortal", "drops", "default"];
    let mut clients: Vec<_> = names.iter().map(|name| server.client(&format!("/{name}"))).collect();
    for client in &mut clients {
        client.put_first(ringwave::MessageKind::Text, b"a").put_next(b"b", true).put("c").flush();
    }
    for (name, client) in names.iter().zip(&mut clients) {
        // One that streams has its pieces in on_chunk.
        if *name != "streams" {
            assert_eq!(client.text(), "ab", "{name}");
        }
        assert_eq!(client.text(), "c", "{name}");
    }
    assert_eq!(clients[2].next(), Received::close(1001, "it may not live longer"));
    clients[2].put_close(None).flush();
    assert_eq!(clients[2].next(), Received::End(Ended::Orderly));
    assert_eq!(reports.closed().0, "mortal");
    for at in [1, 3, 4] {
        clients[at].echo("others live on");
    }
    assert_eq!(server.stats().sessions_throttled, 1);
}
