//! Plain HTTP on the same port (RFC 9110, RFC 9112): order, bodies, and when a connection ends.

use crate::support::{Client, Event, Received, TestServer, upgrade_with};

/// A request with more header lines, each with its end.
fn request(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: test.example\r\n{more}\r\n")
}

#[test]
fn a_connection_carries_many_requests_and_then_a_websocket() {
    let (server, events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    for number in 0..5 {
        let target = format!("/{number}?x");
        let answer = raw.write(request("GET", &target, "")).answer();
        assert_eq!((answer.status, answer.body), (200, format!("GET {target} ")));
        assert_eq!(answer.head.matches("Connection").count(), 0, "HTTP/1.1 goes on unless it says otherwise");
        assert_eq!(events.next(), Event::Request(format!("GET {target}")));
    }
    let mut client = Client::over(raw.stream, "/echo", &[]);
    client.flush();
    assert_eq!(client.next(), Received::Open(None));
    client.echo("after five requests");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    let mut wire = String::new();
    for number in 0..300 {
        wire += &match number % 4 {
            0 => request("GET", &format!("/{number}"), ""),
            1 => request("HEAD", &format!("/{number}"), ""),
            2 => request("POST", &format!("/{number}"), "Content-Length: 4\r\n") + "body",
            _ => request("GET", "/nothing", ""),
        };
    }
    wire += &upgrade_with("/echo", "");
    raw.write(&wire);
    for number in 0..300 {
        let (answer, body) = match number % 4 {
            0 => (raw.answer(), format!("GET /{number} ")),
            1 => (raw.answer_to_head(), String::new()),
            2 => (raw.answer(), format!("POST /{number} body")),
            _ => (raw.answer(), String::new()),
        };
        assert_eq!((answer.status, answer.body), (if number % 4 == 3 { 204 } else { 200 }, body), "{number}");
    }
    assert_eq!(raw.answer().status, 101);
}

#[test]
fn head_is_answered_with_the_length_of_the_body_and_without_it() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    let of_get = raw.write(request("GET", "/page", "")).answer();
    let of_head = raw.write(request("HEAD", "/page", "")).answer_to_head();
    assert_eq!(of_get.header("Content-Length"), Some("10"));
    // One character more: HEAD's own name stands in the body that is not sent.
    assert_eq!((of_head.status, of_head.header("Content-Length")), (200, Some("11")));
    // Nothing of the body was sent: the next answer begins where it should.
    assert_eq!(raw.write(request("GET", "/page", "")).answer(), of_get);
    // RFC 9110 §8.6: a 204 has neither.
    assert_eq!(raw.write(request("GET", "/nothing", "")).answer().header("Content-Length"), None);
}

/// RFC 9110 §9.3.2: also where the engine refuses it.
#[test]
fn a_head_that_is_refused_has_no_body() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    let of_head = raw.write(upgrade_with("/echo", "").replacen("GET", "HEAD", 1)).answer_to_head();
    assert_eq!((of_head.status, of_head.header("Content-Length").is_some()), (405, true));
    raw.assert_end();
}

#[test]
fn a_connection_ends_when_the_client_says_so_or_speaks_1_0() {
    let (server, _events) = TestServer::desk(|_| {});
    let table = [
        request("GET", "/x", "Connection: close\r\n"),
        request("GET", "/x", "Connection: foo, Close\r\n"),
        request("GET", "/x", "Connection: keep-alive\r\nConnection: close\r\n"),
        "GET /x HTTP/1.0\r\n\r\n".to_owned(),
        "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        // RFC 9110 §7.8: an upgrade in HTTP/1.0 is ignored.
        upgrade_with("/x", "").replace("HTTP/1.1", "HTTP/1.0"),
    ];
    for wire in table {
        let mut raw = server.raw();
        // What is pipelined behind it is not answered.
        raw.write(wire.clone() + &request("GET", "/behind", ""));
        let answer = raw.answer();
        assert_eq!((answer.status, answer.body.as_str()), (200, "GET /x "), "{wire:?}");
        assert_eq!(answer.header("Connection"), Some("close"));
        raw.assert_end();
    }
}

#[test]
fn a_client_that_ends_its_side_still_gets_its_answer() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    raw.write(request("GET", "/last", "")).stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
    assert_eq!(raw.answer().body, "GET /last ");
    raw.assert_end();
}

#[test]
fn a_body_is_as_long_as_its_content_length_says() {
    let (server, _events) = TestServer::desk(|config| config.settings.limits.body_bytes_max = 100_000);
    let mut raw = server.raw();
    for length in [0, 1, 4_096, 70_000, 100_000] {
        let body = "b".repeat(length);
        let head = request("POST", "/up", &format!("Content-Length: {length}\r\n"));
        // In one write, and with the body on its own.
        raw.write([&head, &body[..]].concat());
        assert_eq!(raw.answer().body, format!("POST /up {body}"));
        raw.write(head).write(&body);
        assert_eq!(raw.answer().body, format!("POST /up {body}"));
    }
    raw.write(request("POST", "/up", "Content-Length: 100001\r\n")).write("b".repeat(100_001));
    let answer = raw.answer();
    assert_eq!((answer.status, answer.header("Connection")), (413, Some("close")));
    raw.assert_end();
}

/// RFC 9110 §10.1.1.
#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    for _ in 0..2 {
        let head = request("PUT", "/up", "Expect: 100-continue\r\nContent-Length: 5\r\n");
        let interim = raw.write(head).answer();
        assert_eq!((interim.status, interim.head.as_str()), (100, "HTTP/1.1 100 Continue"));
        assert_eq!(raw.write("12345").answer().body, "PUT /up 12345");
    }
    // One that does not wait needs no telling; one that would send too much is told at once.
    raw.write(request("PUT", "/up", "Expect: 100-continue\r\nContent-Length: 5\r\n") + "12345");
    assert_eq!(raw.answer().body, "PUT /up 12345");
    raw.write(request("PUT", "/up", "Expect: 100-continue\r\nContent-Length: 1048577\r\n"));
    assert_eq!(raw.answer().status, 413);
    raw.assert_end();
}
