//! Peers that do not read: what is queued for them is bounded, and nobody else is worse off.

use crate::support::{Client, DEADLINE, Raw, Received, TestServer, eventually};
use ringwave::base::limits::{KIB, MIB};
use ringwave::{
    CloseCause, Config, Context, Handler, Message, Request, Response, Session, Stats, Upgrade, UpgradeRequest,
};
use socket2::SockRef;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A peer that takes nothing for this long has stopped. A wrong guess does no harm: the bounds hold at any time.
const STALL: Duration = Duration::from_millis(500);

/// An echo that keeps the longest queue it has seen; plain requests are answered with [`page`].
struct Gauge {
    queued_max: Arc<AtomicUsize>,
}

const PAGE_BYTES: usize = 8 * KIB;
/// With a head of at most so many bytes, of which some 50 may be missing.
const ANSWER_BYTES: usize = PAGE_BYTES + 150;

fn page() -> String {
    "p".repeat(PAGE_BYTES)
}

impl Handler for Gauge {
    type Data = ();

    fn on_upgrade(&mut self, _: &mut Context<'_, ()>, _: &UpgradeRequest<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn on_message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        session.send(message);
        self.queued_max.fetch_max(session.buffered_bytes(), Ordering::Relaxed);
    }

    fn on_request(&mut self, _: &mut Context<'_, ()>, _: &Request<'_>) -> Response {
        Response::new(200).text(page())
    }
}

/// Writes until the peer takes nothing more. Answers how many bytes it took.
fn write_until_stalled(stream: &mut TcpStream, wire: &[u8]) -> usize {
    stream.set_write_timeout(Some(STALL)).expect("a positive timeout");
    let mut written = 0;
    while written < wire.len() {
        match stream.write(&wire[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_write_timeout(Some(DEADLINE)).expect("a positive timeout");
    written
}

/// Sends without reading: it is paused, so what is queued stays bounded; once it reads, it gets every echo.
#[test]
fn a_client_that_sends_without_reading_is_paused_and_loses_nothing() {
    const HIGH: usize = 64 * KIB;
    const POOL: usize = 64 * 4_096;
    let queued_max = Arc::new(AtomicUsize::new(0));
    let gauge = queued_max.clone();
    let server = TestServer::start(
        |config| {
            config.settings.session.high_water_bytes = HIGH;
            config.settings.session.low_water_bytes = HIGH / 4;
            (config.receive_buffers, config.bulk_buffers) = (64, 4);
        },
        move |_| Gauge { queued_max: gauge.clone() },
    );
    let mut client = server.client("/");
    SockRef::from(&client.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
    let message = |number: usize| format!("{number} {}", "m".repeat(1_000 + number % 5_000));
    let count = 8_000;
    for number in 0..count {
        client.put(&message(number));
    }
    let wire = client.take_out();
    let mut stream = client.stream.try_clone().expect("a descriptor is free");
    let written = write_until_stalled(&mut stream, &wire);
    assert!(written < wire.len(), "all of {written} bytes were taken though nothing was read");
    // Another one is served meanwhile.
    server.client("/").echo("not paused");

    let writer = std::thread::spawn(move || stream.write_all(&wire[written..]));
    for number in 0..count {
        assert_eq!(client.text(), message(number));
    }
    writer.join().expect("it does not panic").expect("the server takes the rest");
    client.close();
    // Beyond the high water come at most two turns' receive buffers: what had been received before the pause was
    // asked for, and before it took effect. And one message, whose beginning had been gathered before.
    let queued = queued_max.load(Ordering::Relaxed);
    assert!(queued >= HIGH, "never paused: {queued} bytes queued at most");
    assert!(queued <= HIGH + 2 * POOL + 6_100, "{queued} bytes queued");
}

/// The same for plain requests: pipelined ones are answered no faster than the answers are read.
#[test]
fn a_client_that_asks_without_reading_is_paused_and_loses_nothing() {
    const HIGH: usize = 64 * KIB;
    const REQUESTS: usize = 8_000;
    let server = TestServer::start(
        |config| {
            config.settings.session.high_water_bytes = HIGH;
            config.settings.session.low_water_bytes = HIGH / 4;
            config.settings.handshake_timeout = DEADLINE;
            // What one turn may ask for, whole, on a driver that receives many requests at once.
            config.settings.session.queue_bytes_max = 64 * MIB;
            (config.receive_buffers, config.bulk_buffers) = (16, 1);
        },
        |_| Gauge { queued_max: Arc::default() },
    );
    let mut raw = server.raw();
    SockRef::from(&raw.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(4_000));
    let wire = request.repeat(REQUESTS);
    let mut stream = raw.stream.try_clone().expect("a descriptor is free");
    let written = write_until_stalled(&mut stream, wire.as_bytes());
    assert!(written < wire.len(), "all of {written} bytes were taken though no answer was read");
    let Stats { responses, bytes_sent, .. } = server.handle().stats();
    let queued = responses as usize * ANSWER_BYTES - bytes_sent as usize;
    // At most one request in each receive buffer and 16 in the long one, two turns of them, as above.
    assert!(queued <= HIGH + 2 * 16 * ANSWER_BYTES + 100 * responses as usize, "{queued} bytes queued");
    server.client("/").echo("not paused");

    let writer = std::thread::spawn(move || stream.write_all(&wire.as_bytes()[written..]));
    for _ in 0..REQUESTS {
        assert_eq!(raw.answer().body, page());
    }
    writer.join().expect("it does not panic").expect("the server takes the rest");
}

/// Many short requests in one read ask for more than may be queued: those behind wait until the answers before are taken.
#[test]
fn requests_wait_for_the_answers_to_those_before() {
    const REQUESTS: usize = 4_000;
    let server = TestServer::start(
        |config| {
            config.settings.session.queue_bytes_max = 64 * KIB;
            config.settings.session.high_water_bytes = 64 * KIB;
            config.settings.session.low_water_bytes = 0;
            config.receive_buffer_bytes = 64 * KIB as u32;
        },
        |_| Gauge { queued_max: Arc::default() },
    );
    let mut raw = server.raw();
    SockRef::from(&raw.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
    raw.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(REQUESTS));
    // What the sockets take, and one queue: 8 answers of 8 KiB.
    eventually("the queue is full", || server.handle().stats().responses >= 8);
    server.client("/").echo("others are served");
    let Stats { responses, bytes_sent, .. } = server.handle().stats();
    assert!((responses as usize) < REQUESTS, "all were answered though no answer was read");
    let queued = responses as usize * ANSWER_BYTES - bytes_sent as usize;
    assert!(queued <= 2 * (64 * KIB + PAGE_BYTES) + 100 * responses as usize, "{queued} bytes queued");
    for _ in 0..REQUESTS {
        let answer = raw.answer();
        assert_eq!(answer.header("Connection"), None);
        assert_eq!(answer.body, page());
    }
    // Nothing is left of that: the connection goes on.
    assert_eq!(raw.write("GET / HTTP/1.1\r\nHost: h\r\n\r\n").answer().body, page());
}

/// One that never reads is ended; the others get all that was published.
#[test]
fn a_slow_consumer_is_ended_and_the_others_get_everything() {
    const BYTES: usize = 64 * KIB;
    let (server, events) = TestServer::desk(|config| {
        config.settings.session.queue_bytes_max = MIB;
        config.settings.session.high_water_bytes = 256 * KIB;
        config.settings.session.low_water_bytes = 64 * KIB;
    });
    let mut slow = server.client("/desk?slow");
    SockRef::from(&slow.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
    assert_eq!(slow.ask("subscribe news"), "Ok(true)");
    let mut others: Vec<_> = (0..3).map(|number| server.client(&format!("/desk?{number}"))).collect();
    for other in &mut others {
        assert_eq!(other.ask("subscribe news"), "Ok(true)");
    }
    let mut payload = vec![0; BYTES];
    let mut ended = None;
    let mut published = 0u32;
    while ended.is_none() {
        // More than two sockets' buffers and the queue hold.
        assert!(published < 2_000, "{published} messages queued for one that does not read");
        payload[..4].copy_from_slice(&published.to_be_bytes());
        server.handle().publish("news", &payload).expect("the mailbox has room");
        published += 1;
        for other in &mut others {
            assert!(other.next() == Received::Binary(payload.clone()));
        }
        while let Some(event) = events.try_next() {
            if let crate::support::Event::Close(name, cause) = event {
                ended = Some((name, cause));
            }
        }
    }
    assert_eq!(ended, Some(("slow".to_owned(), CloseCause::SlowConsumer)));
    let stats = server.handle().stats();
    assert_eq!((stats.messages_dropped, stats.sessions), (1, 3));
    for other in &mut others {
        other.ask("count news").parse::<u32>().map(|count| assert_eq!(count, 3)).expect("a number");
    }
    // What was on its way still comes, in order and unbroken, and then the end without a close frame.
    let (bytes, _) = Raw::over(slow.stream).rest();
    for (number, frame) in bytes.chunks_exact(10 + BYTES).enumerate() {
        assert_eq!(frame[..14], [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &(number as u32).to_be_bytes()].concat());
    }
}

/// A limit must not make a legal message unsendable: an empty queue takes one of any length.
#[test]
fn one_message_may_be_longer_than_the_queue() {
    let (server, _events) = TestServer::desk(|config| {
        config.settings.session.queue_bytes_max = 10_000;
        config.settings.session.high_water_bytes = 10_000;
        config.settings.session.low_water_bytes = 0;
    });
    let mut client = server.client("/echo");
    for _ in 0..3 {
        client.echo(&vec![7; 3_000_000]);
    }
}

/// Pings that nobody takes the pongs of do not pile up. Of pings that come behind a send in flight only the newest is answered,
/// so it is the pongs of one long read that have to be more than may be queued.
#[test]
fn a_flood_of_pings_is_paused_too() {
    let (server, _events) = TestServer::desk(|config| {
        config.settings.session.high_water_bytes = 32 * KIB;
        config.settings.session.low_water_bytes = 16 * KIB;
        (config.receive_buffers, config.bulk_buffers) = (64, 4);
    });
    let mut client = server.client("/echo");
    SockRef::from(&client.stream).set_recv_buffer_size(64 * KIB).expect("a TCP socket");
    let ping = client.put_ping(&[b'p'; 125]).take_out();
    let wire = ping.repeat(300_000);
    let mut stream = client.stream.try_clone().expect("a descriptor is free");
    let written = write_until_stalled(&mut stream, &wire);
    assert!(written < wire.len(), "all of {written} bytes were taken though no pong was read");
    let Stats { bytes_received, bytes_sent, .. } = server.handle().stats();
    // A pong is 4 bytes shorter than its ping, so this is an upper bound, the handshake's few bytes aside.
    let queued = bytes_received as usize - bytes_sent as usize;
    assert!(queued <= 32 * KIB + 3 * 64 * 4_096 + (bytes_received as usize / 131) * 4, "{queued} bytes queued");
    server.client("/echo").echo("not paused");
}

/// One read may hold requests for millions of deliveries: the others have their turn in between, and nothing is lost.
#[test]
fn a_read_that_asks_for_too_much_work_is_read_in_turns() {
    const TOPICS: usize = 40;
    const LISTENERS: usize = 20;
    const MESSAGES: usize = 250;
    let server = TestServer::start(
        |config| config.receive_buffer_bytes = 64 * KIB as u32,
        |_| Loudspeaker { topics: (0..TOPICS).map(|number| number.to_string()).collect() },
    );
    let mut listeners: Vec<_> = (0..LISTENERS).map(|_| server.client("/listen")).collect();
    let mut other = server.client("/");
    let mut speaker = server.client("/");
    for number in 0..MESSAGES {
        speaker.put(&format!("{number}"));
    }
    let messages_before = server.handle().stats().messages_received;
    speaker.flush();
    other.send("x");
    // It hears itself before the speaker has said all.
    assert_eq!(other.next(), Received::Binary(b"x".to_vec()));
    let said = server.handle().stats().messages_received - messages_before;
    assert!(said < MESSAGES as u64, "all {said} messages were read at once");
    speaker.put_close(Some((1000, ""))).flush();
    for listener in &mut listeners {
        for number in 0..MESSAGES {
            for _ in 0..TOPICS {
                assert_eq!(listener.text(), number.to_string());
            }
        }
    }
    while speaker.next() != Received::close(1000, "") {}
}

/// Publishes each text to all topics; answers a text of one `x` with its bytes.
struct Loudspeaker {
    topics: Vec<String>,
}

impl Handler for Loudspeaker {
    type Data = bool;

    fn on_upgrade(&mut self, _: &mut Context<'_, bool>, request: &UpgradeRequest<'_>) -> Upgrade<bool> {
        Upgrade::accept(request.path() == "/listen")
    }

    fn on_open(&mut self, session: &mut Session<'_, bool>) {
        let topics = if *session.data() { &self.topics[..] } else { &[] };
        for topic in topics {
            session.subscribe(topic).expect("a sound name");
        }
    }

    fn on_message(&mut self, session: &mut Session<'_, bool>, message: Message<'_>) {
        if message.as_bytes() == b"x" {
            session.send(message.as_bytes());
            return;
        }
        for topic in &self.topics {
            session.publish(topic, message);
        }
    }
}

/// A peer that takes no pongs is owed one: the answer to its newest ping (RFC 6455 §5.5.3).
#[test]
fn a_million_pings_of_one_that_does_not_read_leave_one_pong_to_send() {
    const PINGS: u32 = 1_000_000;
    const READ_BYTES: usize = 16 * 4 * KIB;
    let few = |config: &mut Config| (config.receive_buffers, config.bulk_buffers) = (16, 1);
    let server = TestServer::start(few, |_| Gauge { queued_max: Arc::default() });
    let mut client = Client::over(crate::support::connected_narrowly(server.address()), "/", &[]);
    client.flush();
    assert_eq!(client.next(), Received::Open(None));
    let mut stream = client.stream;
    let mut wire = Vec::new();
    for first in (0..PINGS).step_by(10_000) {
        wire.clear();
        for number in first..first + 10_000 {
            wire.extend_from_slice(&[0x89, 0x84, 0, 0, 0, 0]);
            wire.extend_from_slice(&number.to_be_bytes());
        }
        stream.write_all(&wire).expect("the server takes it");
        // In flight is at most what one turn brought; beside it stands a queue's only pong.
        let memory = server.handle().stats().memory_bytes as usize;
        assert!(memory <= READ_BYTES, "{memory} bytes queued after {first} pings");
    }
    let received = u64::from(PINGS) * 10;
    eventually("all are heard", || server.handle().stats().bytes_received > received);
    let Stats { bytes_sent, .. } = server.handle().stats();
    assert!(bytes_sent < 2 * MIB as u64, "{bytes_sent} bytes of pongs were taken though none was read");
    let (mut reader, mut pongs, mut last) = (BufReader::new(stream), 0, None);
    while last != Some(PINGS - 1) {
        let mut pong = [0; 6];
        reader.read_exact(&mut pong).expect("a pong comes");
        assert_eq!(pong[..2], [0x8a, 4]);
        let number = u32::from_be_bytes(pong[2..].try_into().expect("four bytes"));
        assert!(last < Some(number), "{number} after {last:?}");
        (pongs, last) = (pongs + 1, Some(number));
    }
    eventually("nothing is left", || server.handle().stats().queues == 0);
    assert_eq!(pongs + server.handle().stats().pongs_coalesced, u64::from(PINGS));
}
