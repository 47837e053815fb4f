//! The same bytes lead to the same calls of the application and to the same answers, on whichever driver.

use crate::support::{Raw, TestServer, upgrade_with};
use fastrand::Rng;
use ringwave::{Context, DriverChoice, Ended, Handler, Message, Request, Response, Session, Upgrade, UpgradeRequest};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};

/// Writes down what it is called with, and says messages back.
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn note(&self, call: String) {
        self.0.lock().expect("nobody panics").push(call);
    }
}

impl Handler for Recorder {
    type Data = ();

    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, request: &UpgradeRequest<'_>) -> Upgrade<()> {
        self.note(format!("upgrade {}", request.path()));
        Upgrade::accept(())
    }

    fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        self.note(format!("{:?} {}", message.kind(), message.as_bytes().escape_ascii()));
        session.send(message);
    }

    fn on_ping(&mut self, _: &mut Session<'_, ()>, payload: &[u8]) {
        self.note(format!("ping {}", payload.escape_ascii()));
    }

    fn on_pong(&mut self, _: &mut Session<'_, ()>, payload: &[u8]) {
        self.note(format!("pong {}", payload.escape_ascii()));
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, (): (), ended: &Ended) {
        self.note(format!("end {:?} {:?}", ended.cause, ended.code));
    }

    fn on_request(&mut self, _: &mut Context<'_, ()>, request: &Request<'_>) -> Response {
        self.note(format!("{} {}", request.method(), request.target()));
        Response::new(200).text("ok\n")
    }
}

/// What one client sends, drawn from a seed: an upgrade and frames, some of them wrong; or requests; or neither.
fn recorded(random: &mut Rng, number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.u8(0..8) == 0 {
        for _ in 0..random.usize(1..4) {
            bytes.extend_from_slice(format!("GET /page/{number} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        }
        return bytes;
    }
    bytes.extend_from_slice(upgrade_with(&format!("/{number}"), "").as_bytes());
    for _ in 0..random.usize(0..12) {
        let (fin, opcode) =
            [(true, 1), (true, 2), (false, 1), (true, 0), (true, 10), (true, 2), (true, 1), (true, random.u8(0..16))]
                [random.usize(0..8)];
        // How many pongs are coalesced is a matter of time.
        let opcode = if opcode == 9 { 10 } else { opcode };
        let length = if opcode >= 8 { random.usize(0..100) } else { random.usize(0..3_000) };
        let key = random.u32(..).to_be_bytes();
        bytes.push(u8::from(fin) << 7 | opcode);
        match length {
            0..=125 => bytes.push(0x80 | length as u8),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&key);
        bytes.extend((0..length).map(|index| (b'a' + (index % 26) as u8) ^ key[index % 4]));
    }
    bytes
}

/// The application's calls and the clients' answers, one client after the other.
fn trace(driver: DriverChoice) -> (Vec<String>, Vec<String>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let of_handler = calls.clone();
    let server = TestServer::start(|config| config.driver = driver, move |_| Recorder(of_handler.clone()));
    let mut random = Rng::with_seed(6455);
    let mut answers = Vec::new();
    for number in 0..200 {
        let bytes = recorded(&mut random, number);
        let mut client: Raw = server.raw();
        // Cut as the seed has it. What comes after an end that the server has seen is refused: nothing depends on it.
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(1_500)));
            client.write_while_it_is_read(piece);
            rest = after;
        }
        let _ = client.stream.shutdown(Shutdown::Write);
        let (answer, _) = client.rest();
        // What is answered a second later has another date.
        let lines = answer.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"Date: "));
        let undated: Vec<u8> = lines.flatten().copied().collect();
        answers.push(undated.escape_ascii().to_string());
        // Its end is told before the next one comes.
        crate::support::eventually("the connection is gone", || server.stats().connections == 0);
    }
    drop(server);
    let calls = std::mem::take(&mut *calls.lock().expect("nobody panics"));
    (calls, answers)
}

#[test]
fn a_recorded_input_has_the_same_trace_on_both_drivers() {
    let (uring, epoll) = (trace(DriverChoice::Uring), trace(DriverChoice::Epoll));
    assert!(uring.0.len() > 500, "{} calls", uring.0.len());
    for (one, other) in uring.0.iter().zip(&epoll.0).chain(uring.1.iter().zip(&epoll.1)) {
        assert_eq!(one, other);
    }
    assert_eq!((uring.0.len(), uring.1.len()), (epoll.0.len(), epoll.1.len()));
}
