//! Sessions that end in every way there is, many of them: nothing is left of any.

use crate::support::{Client, Ended, Received, Report, TestServer, eventually, upgrade_with};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{MessageKind, Policy, Rate, SessionOptions};
use socket2::SockRef;
use std::collections::HashMap;
use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

/// What the sessions of a name may do: a few options that are different, used and let go of all the time.
fn options(name: &str) -> Option<SessionOptions> {
    let all = SessionOptions::default();
    let small = SessionOptions {
        queue_bytes_max: 100 * KIB,
        high_water_bytes: 100 * KIB,
        low_water_bytes: KIB,
        wildcards: true,
        ..all
    };
    Some(match name {
        "dropped" => SessionOptions { policy: Policy::DropOld, ..small },
        "conflated" => SessionOptions { policy: Policy::Conflate, ..small },
        "producer" => SessionOptions { policy: Policy::PauseProducer, ..small },
        "slow" => SessionOptions { policy: Policy::Close, ..small },
        "throttled" => SessionOptions { message_rate: Some(Rate { per_second: 1, burst: 1 }), ..all },
        "mortal" => SessionOptions { lifetime_max: Some(Duration::from_millis(50)), ..all },
        "streams" => SessionOptions { chunks: true, keeps_peer_addr: true, ..all },
        _ => return None,
    })
}

/// One session, from its beginning to one of the ends.
fn live(server: &TestServer, number: usize) {
    let names = ["clean", "dropped", "conflated", "producer", "slow", "throttled", "mortal", "streams"];
    let name = names[number % names.len()];
    let broken = match number % 11 {
        0 => "on_close",
        1 => "on_ping",
        _ => "",
    };
    if number.is_multiple_of(13) {
        // Never a session: refused, or it panicked first.
        let mut raw = server.raw();
        let target = if number.is_multiple_of(2) { "/x?on_upgrade" } else { "/x" };
        let version = if number.is_multiple_of(2) { "13" } else { "12" };
        raw.write(upgrade_with(target, "").replace("Version: 13", &format!("Version: {version}")));
        assert!(matches!(raw.answer().status, 500 | 426));
        return;
    }
    let mut client = server.client(&format!("/{name}?{broken}"));
    client.put("subscribe all").put(&format!("subscribe one/{number}"));
    if options(name).is_some_and(|options| options.wildcards) {
        client.put("subscribe one/+");
    }
    match name {
        "dropped" | "conflated" | "producer" | "slow" => {
            // It takes nothing of what it is sent.
            client.put(&format!("send {}", 6 * MIB));
            client.flush();
            for _ in 0..3 {
                client.put(&format!("publish one/{number} {}", "p".repeat(60 * KIB)));
            }
        }
        "streams" => drop(client.put_first(MessageKind::Text, b"begun").put_next(b"", true)),
        _ => drop(client.put("x").put("publish all hello")),
    }
    // From here on the server may have ended it already.
    let wire = client.put_ping(b"p").take_out();
    let _ = client.stream.write_all(&wire);
    match number % 7 {
        0 => {
            let close = client.put_close(Some((1000, "bye"))).take_out();
            let _ = client.stream.write_all(&close);
        }
        1 => SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket"),
        2 => {
            let _ = client.stream.shutdown(Shutdown::Write);
        }
        3 => {
            let _ = client.stream.write_all(b"\xff\x80\0\0\0\0");
        }
        4 => {
            // Half a message.
            let _ = client
                .stream
                .write_all(&[&[0x02, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0][..], &[7; 9_000]].concat());
        }
        5 => {
            let order = client.put("terminate").take_out();
            let _ = client.stream.write_all(&order);
        }
        _ => {
            let order = client.put("close 3000 x").take_out();
            let _ = client.stream.write_all(&order);
        }
    }
}

#[test]
fn nothing_is_left_of_sessions_however_they_end() {
    const SESSIONS: usize = 5_000;
    let (server, reports) = TestServer::rig_with(
        |config| {
            config.shards = 2;
            config.settings.sessions_per_address_max = Some(10_000);
            config.settings.handshake_rate = Some(Rate::per_second(1_000_000));
            config.settings.ping_interval = Some(Duration::from_millis(300));
            config.settings.stall_timeout = Duration::from_millis(300);
            config.settings.close_timeout = Duration::from_millis(300);
            config.settings.memory_bytes_max = 64 * MIB;
        },
        options,
    );
    // A few at a time, of every kind at once.
    std::thread::scope(|scope| {
        for part in 0..8 {
            let server = &server;
            scope.spawn(move || (0..SESSIONS).skip(part).step_by(8).for_each(|number| live(server, number)));
        }
    });
    eventually("nothing is left", || {
        let stats = server.stats();
        [stats.connections, stats.sessions, stats.topics, stats.queues, stats.memory_bytes] == [0; 5]
    });
    eventually("and no timer, once their ticks have passed", || server.stats().timers == 0);
    let stats = server.stats();
    assert_eq!(stats.accepted, SESSIONS as u64);
    let mut ends: HashMap<&str, usize> = HashMap::new();
    let (mut opened, mut closed) = (0, 0);
    for report in reports.so_far() {
        match report {
            Report::Open(..) => opened += 1,
            Report::Close(_, ended) => {
                closed += 1;
                *ends.entry(ended.cause.name()).or_default() += 1;
            }
            _ => {}
        }
    }
    println!("{opened} sessions: {ends:?}, {} dropped", stats.messages_dropped);
    assert_eq!((opened, closed), (stats.opened, stats.opened));
    for cause in ["peer_closed", "peer_gone", "closed", "protocol", "handler_panicked"] {
        assert!(ends.contains_key(cause), "none ended by {cause}");
    }
    // The tables are as they were: as many different options as before, and room for every address.
    let mut after: Vec<_> = (0..100).map(|_| server.client("/clean")).collect();
    for client in &mut after {
        client.echo("served");
    }
    // Those that are left when the server ends leave nothing either.
    let handle = server.handle();
    let (answer, silent) = after.split_at_mut(50);
    let ending = std::thread::spawn(move || server.end(Duration::from_millis(300)));
    for client in answer {
        assert_eq!(goodbye_of(client), Received::close(1001, "the server shuts down"));
        client.put_close(None).flush();
        assert_eq!(client.next(), Received::End(Ended::Orderly));
    }
    ending.join().expect("no panic").expect("it ends in order");
    let stats = handle.stats();
    assert_eq!((stats.sessions, stats.topics, stats.queues), (0, 0, 0));
    assert!(stats.ended_shutdown + stats.ended_close_timeout >= silent.len() as u64);
}

fn goodbye_of(client: &mut Client) -> Received {
    loop {
        match client.next() {
            Received::Ping(_) | Received::Text(_) => {}
            other => return other,
        }
    }
}
