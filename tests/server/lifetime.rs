//! Start and shutdown: what is refused, who is told, and that everything ends.

use crate::support::{DEADLINE, Desk, Ended, Event, Events, Received, TestServer, local_config, upgrade_with};
use ringwave::{CloseCause, Config, Drain, DriverChoice, Server};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn shutdown_tells_every_session_and_join_answers_ok() {
    for shards in [1, 2] {
        let (server, events) = TestServer::desk(|config| config.shards = shards);
        let address = server.address();
        let mut clients: Vec<_> = (0..100).map(|number| server.client(&format!("/desk?{number}"))).collect();
        let mut idle = server.raw();
        let mut half = server.raw();
        half.write("GET / HT");
        // Both are with the server before it is told to end.
        crate::support::eventually("all are accepted", || server.handle().stats().connections == 102);
        let ending = std::thread::spawn(move || server.end(DEADLINE));
        for client in &mut clients {
            assert_eq!(client.next(), Received::close(1001, "the server shuts down"));
        }
        // Nothing but the answers is missing: those who wait for a request are not waited for.
        assert_eq!(idle.rest().0, b"");
        assert_eq!(half.rest().0, b"");
        assert!(!ending.is_finished(), "sessions are let go in order");
        for client in &mut clients {
            client.put_close(Some((1001, ""))).flush();
            assert_eq!(client.next(), Received::End(Ended::Orderly));
        }
        ending.join().expect("no panic").expect("the server ends without an error");
        let refused = TcpStream::connect(address).expect_err("nobody listens any more");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let closed = events.rest().into_iter().filter(|event| matches!(event, Event::Close(_, CloseCause::Closed)));
        assert_eq!(closed.count(), 100);
    }
}

#[test]
fn what_was_sent_before_the_shutdown_arrives_before_its_close_frame() {
    let (server, events) = TestServer::desk(|_| {});
    let mut client = server.client("/echo?x");
    let (_, key) = events.opened();
    let handle = server.handle();
    let large = vec![9; 2_000_000];
    handle.send(key, &large).expect("the mailbox has room");
    handle.send(key, "last").expect("the mailbox has room");
    let ending = std::thread::spawn(move || server.end(DEADLINE));
    assert!(client.next() == Received::Binary(large));
    assert_eq!(client.text(), "last");
    assert_eq!(client.next(), Received::close(1001, "the server shuts down"));
    client.put_close(Some((1001, ""))).flush();
    assert_eq!(client.next(), Received::End(Ended::Orderly));
    ending.join().expect("no panic").expect("the server ends without an error");
}

#[test]
fn requests_are_answered_for_as_long_as_goodbyes_are_said() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut clients: Vec<_> = (0..20).map(|number| server.client(&format!("/desk?{number}"))).collect();
    let mut prober = server.raw();
    prober.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(prober.answer().status, 200);
    let mut late = server.raw();
    crate::support::eventually("all are accepted", || server.handle().stats().connections == 22);
    let drain = Drain { window: Duration::from_secs(1), deadline: DEADLINE, ..Drain::default() };
    server.handle().drain(&drain);
    crate::support::eventually("it drains", || server.handle().stats().draining == 1);
    prober.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(prober.answer().status, 200);
    late.write(upgrade_with("/echo", ""));
    assert_eq!(late.answer().status, 503);
    let told = clients.iter_mut().map(|client| {
        assert_eq!(client.next(), Received::close(1001, "the server shuts down"));
        client.put_close(Some((1001, ""))).flush();
    });
    assert_eq!(told.count(), 20);
    prober.assert_end();
}

#[test]
fn shutdown_does_not_wait_longer_than_told() {
    let (server, events) = TestServer::desk(|config| config.settings.close_timeout = 10 * DEADLINE);
    let _silent = server.client("/echo?silent");
    let patience = Duration::from_millis(200);
    let start = Instant::now();
    server.end(patience).expect("it ends without an error");
    assert!(start.elapsed() >= patience, "{:?}", start.elapsed());
    assert!(events.rest().contains(&Event::Close("silent".to_owned(), CloseCause::Shutdown)));
}

#[test]
fn a_second_server_on_the_same_port_is_refused() {
    for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let (server, _events) = TestServer::desk(|config| config.shards = first);
        let (reports, _other_events) = Events::channel();
        let config = Config { listen: server.address(), shards: second, ..local_config() };
        let started = Server::start(config, move |shard| Desk::new(shard, reports.clone()));
        let error = started.map(|_| ()).expect_err("the port is taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{first} and {second} shards");
        let text = error.to_string();
        assert!(text.contains(&server.address().to_string()), "{text:?} does not say which address");
        server.client("/echo").echo("the first is not disturbed");
    }
}

/// A port is free again at once, though connections of before linger in TIME_WAIT.
#[test]
fn a_port_may_be_taken_again_after_the_end() {
    for shards in [1, 2] {
        let (server, _events) = TestServer::desk(|config| config.shards = shards);
        let address = server.address();
        let mut client = server.client("/echo");
        client.echo("before");
        // The server closes first: it is its port that waits.
        client.close();
        server.end(DEADLINE).expect("it ends");
        let (again, _events) = TestServer::desk(|config| {
            config.listen = address;
            config.shards = shards;
        });
        assert_eq!(again.address(), address);
        again.client("/echo").echo("after");
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    type Change = fn(&mut Config);
    let table: [(&str, Change); 7] = [
        ("shards", |config| config.shards = 1_025),
        ("connections_max", |config| config.connections_max = 0),
        ("receive_buffers", |config| config.receive_buffers = 3),
        ("head_bytes_max", |config| config.settings.limits.head_bytes_max = 1),
        ("message_bytes_max", |config| config.settings.limits.message_bytes_max = 0),
        ("frame_bytes_max", |config| config.settings.limits.frame_bytes_max = 0),
        ("session.high_water_bytes", |config| config.settings.session.high_water_bytes = usize::MAX),
    ];
    for (name, change) in table {
        let mut config = local_config();
        change(&mut config);
        let (reports, _events) = Events::channel();
        let started = Server::start(config, move |shard| Desk::new(shard, reports.clone()));
        let error = started.map(|_| ()).expect_err("out of range");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[test]
fn a_server_says_what_it_is() {
    let (reports, _events) = Events::channel();
    let config = Config { shards: 2, ..local_config() };
    let server = Server::start(config, move |shard| Desk::new(shard, reports.clone())).expect("it starts");
    let driver = if local_config().driver == DriverChoice::Epoll { "epoll" } else { "io_uring" };
    assert_eq!((server.shards(), server.driver(), server.uring_refusal()), (2, driver, None));
    assert_ne!(server.local_addr().port(), 0);
    server.handle().shutdown(Duration::ZERO);
    server.join().expect("it ends without an error");
}
