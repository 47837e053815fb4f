//! Upgrades: accepted with what the application adds, refused with what it says.

use crate::support::{Client, Ended, Raw, Received, TestServer, upgrade_with};

/// RFC 6455 §1.3 has the key and its answer.
#[test]
fn an_upgrade_is_answered_with_the_accept_of_its_key_and_nothing_unasked() {
    let (server, _events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    let answer = raw.write(upgrade_with("/echo", "")).answer();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("Upgrade"), Some("websocket"));
    assert_eq!(answer.header("Connection"), Some("Upgrade"));
    for unasked in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Content-Length"] {
        assert_eq!(answer.header(unasked), None);
    }
    // No key and no offer of the client's changes what the next one is told.
    let offers = "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let answer = server.raw().write(upgrade_with("/echo", offers)).answer();
    assert_eq!((answer.status, answer.header("Sec-WebSocket-Protocol")), (101, None));
    assert_eq!(answer.header("Sec-WebSocket-Extensions"), None);
}

#[test]
fn the_application_chooses_the_subprotocol_and_adds_header_lines() {
    let (server, _events) = TestServer::desk(|_| {});
    let offered = "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\nSec-WebSocket-Protocol: mqtt\r\n";
    let answer = server.raw().write(upgrade_with("/choose?chat.v2", offered)).answer();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("chat.v2"));
    assert_eq!(answer.header("X-Offered"), Some("chat.v1+chat.v2+mqtt"));

    let mut client = Client::offering(server.address(), "/choose?mqtt", &["chat.v1", "mqtt"]);
    client.flush();
    assert_eq!(client.next(), Received::Open(Some("mqtt".to_owned())));
    client.echo("spoken");
}

#[test]
fn a_subprotocol_that_was_not_offered_is_a_500_and_no_websocket() {
    let (server, events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    let answer = raw.write(upgrade_with("/choose?mqtt", "Sec-WebSocket-Protocol: chat\r\n")).answer();
    assert_eq!((answer.status, answer.header("Connection")), (500, Some("close")));
    raw.assert_end();
    drop((raw, server));
    assert_eq!(events.rest(), []);
}

#[test]
fn a_rejected_upgrade_gets_the_applications_answer_and_the_end() {
    let (server, events) = TestServer::desk(|_| {});
    let mut raw = server.raw();
    let answer = raw.write(upgrade_with("/refused", "")).answer();
    assert_eq!((answer.status, answer.body.as_str()), (403, "not for you\n"));
    assert_eq!(answer.header("X-Why"), Some("a stranger"));
    assert_eq!(answer.header("Connection"), Some("close"));
    raw.assert_end();
    drop((raw, server));
    assert_eq!(events.rest(), [], "the application hears of no session");
}

#[test]
fn upgrades_that_the_rfc_forbids_are_answered_and_ended() {
    let (server, events) = TestServer::desk(|_| {});
    let sound = upgrade_with("/echo", "");
    let table = [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
        ("Connection: Upgrade\r\n", "", 400),
        ("GET", "POST", 405),
        ("GET", "get", 405),
    ];
    for (replace, by, status) in table {
        let mut raw = server.raw();
        let answer = raw.write(sound.replacen(replace, by, 1)).answer();
        assert_eq!(answer.status, status, "{by:?} for {replace:?}");
        match status {
            // RFC 6455 §4.4, RFC 9110 §15.5.22.
            426 => {
                assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
                assert_eq!(answer.header("Upgrade"), Some("websocket"));
            }
            405 => assert_eq!(answer.header("Allow"), Some("GET")),
            _ => assert_eq!(answer.header("Connection"), Some("close")),
        }
        raw.assert_end();
    }
    drop(server);
    assert_eq!(events.rest(), []);
}

/// A refusal must arrive though the client goes on talking: what it says behind the request comes when the answer is
/// under way already.
#[test]
fn a_refusal_is_not_destroyed_by_what_comes_after_it() {
    let (server, _events) = TestServer::desk(|_| {});
    for _ in 0..20 {
        let mut raw = server.raw();
        let answer = raw.write(upgrade_with("/refused", "")).answer();
        assert_eq!(answer.status, 403);
        for _ in 0..10 {
            raw.write([0x5a; 10_000]);
        }
        raw.assert_end();
    }
}

/// The same, where the first read ends with the request: nothing behind it has been seen when it is judged.
#[test]
fn a_refusal_is_not_destroyed_when_a_read_ends_with_the_request() {
    let (server, _events) = TestServer::desk(|config| config.receive_buffer_bytes = 512);
    let fill = "x".repeat(512 - upgrade_with("/refused", "X: \r\n").len());
    let head = upgrade_with("/refused", &format!("X: {fill}\r\n"));
    assert_eq!(head.len(), 512);
    for _ in 0..20 {
        let mut raw: Raw = server.raw();
        raw.write([head.as_bytes(), &[0x5a; 100_000]].concat());
        assert_eq!(raw.answer().status, 403);
        assert_eq!(raw.rest(), (Vec::new(), Ended::Orderly));
    }
}
