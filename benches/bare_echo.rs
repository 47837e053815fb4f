//! A bare TCP echo on the engine's own driver: what a WebSocket echo can reach at most.
//!
//! `cargo bench --bench bare_echo -- --listen 127.0.0.1:9002` serves until it is ended; `scripts/bench-echo` puts it
//! side by side with the server. With `--handshakes` it opens and closes WebSockets instead, and does nothing else: what a
//! handshake costs at least. Without arguments it serves one connection of its own of each kind and says that it works.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ringwave::base::limits::FLUSH_BYTES;
use ringwave::driver::{Batch, BatchPool, Completion, Driver, Link, Uring, UringConfig, listen_on};
use sha1::{Digest, Sha1};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A link's answers that wait for the send in flight.
#[derive(Default)]
struct Side {
    sending: bool,
    waiting: Option<Box<Batch>>,
    /// It is closed when what waits has left.
    ends: bool,
}

/// What it does with the bytes that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Echo,
    Handshakes,
}

struct BareEcho {
    mode: Mode,
    driver: Uring,
    sides: Vec<Side>,
    batches: BatchPool,
    dirty: Vec<Link>,
}

impl BareEcho {
    fn listen(address: SocketAddr, mode: Mode) -> io::Result<(Self, SocketAddr)> {
        let mut driver = Uring::new(UringConfig { peer_addresses: false, ..UringConfig::default() })?;
        let listener = listen_on(address, 1, None)?.remove(0);
        let address = listener.local_addr();
        driver.listen(listener);
        Ok((Self { mode, driver, sides: Vec::new(), batches: BatchPool::default(), dirty: Vec::new() }, address))
    }

    /// Answers once `count` links have closed.
    fn serve(mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            self.driver.wait(None)?;
            let mut unsent = 0;
            while let Some(completion) = self.driver.next_completion() {
                // In time, as the server does it: while it is in the cache.
                if unsent >= FLUSH_BYTES {
                    unsent = 0;
                    self.flush();
                    self.driver.submit()?;
                }
                match completion {
                    Completion::Accepted { link, .. } => {
                        if link.index() >= self.sides.len() {
                            self.sides.resize_with(link.index() + 1, Side::default);
                        }
                        self.sides[link.index()] = Side::default();
                        self.driver.recv_start(link);
                    }
                    Completion::Received { link, buffer } => {
                        let side = &mut self.sides[link.index()];
                        let batch = side.waiting.get_or_insert_with(|| self.batches.take());
                        self.dirty.push(link);
                        unsent += buffer.len();
                        // What is long is sent on where it lies, as the server does it.
                        if self.mode == Mode::Echo
                            && let Some(mut block) = self.driver.take_bytes(&buffer)
                        {
                            batch.push_shared(&block.split().freeze());
                            self.driver.recycle_rest(buffer, block);
                            continue;
                        }
                        let bytes = self.driver.bytes(&buffer);
                        match self.mode {
                            Mode::Echo => batch.append(|out| out.extend_from_slice(bytes)),
                            Mode::Handshakes if batch.append(|out| shake_hands(bytes, out)) => {
                                batch.end_stream();
                                side.ends = true;
                            }
                            Mode::Handshakes => {}
                        }
                        self.driver.recycle(buffer);
                    }
                    Completion::Sent { link, batch, .. } => {
                        self.batches.put(batch);
                        let side = &mut self.sides[link.index()];
                        side.sending = false;
                        if side.ends && side.waiting.is_none() {
                            self.driver.close(link);
                        } else {
                            self.dirty.push(link);
                        }
                    }
                    Completion::ReceiveEnded { link, .. } => self.driver.close(link),
                    Completion::Closed { .. } => count -= 1,
                    _ => {}
                }
            }
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        for link in self.dirty.drain(..) {
            let side = &mut self.sides[link.index()];
            if let Some(batch) = side.waiting.take_if(|_| !side.sending) {
                side.sending = true;
                self.driver.send(link, batch);
            }
        }
    }
}

/// Answers a request, or else a close frame: no more is looked at than that takes. Whether it was the close frame.
fn shake_hands(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    const KEY: &[u8] = b"Sec-WebSocket-Key: ";
    let key = memchr::memmem::find(bytes, KEY).and_then(|at| bytes.get(at + KEY.len()..at + KEY.len() + 24));
    let Some(key) = key else {
        // Final, close, 1000.
        out.extend_from_slice(b"\x88\x02\x03\xe8");
        return true;
    };
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let mut accept = [0; 28];
    BASE64.encode_slice(digest, &mut accept).expect("20 bytes take 28 characters");
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    out.extend_from_slice(&accept);
    out.extend_from_slice(b"\r\n\r\n");
    false
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let mode = if arguments.iter().any(|word| word == "--handshakes") { Mode::Handshakes } else { Mode::Echo };
    if let Some(at) = arguments.iter().position(|argument| argument == "--listen") {
        let address = arguments.get(at + 1).and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("--listen takes ADDRESS:PORT"))?;
        let (echo, address) = BareEcho::listen(address, mode)?;
        println!("bare echo listening on tcp://{address}");
        return echo.serve(usize::MAX);
    }
    for (mode, question, answer) in [
        (Mode::Echo, &b"is anybody there?"[..], &b"is anybody there?"[..]),
        // The example of RFC 6455 §1.3.
        (
            Mode::Handshakes,
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        ),
    ] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            let (echo, address) = BareEcho::listen(SocketAddr::from(([127, 0, 0, 1], 0)), mode)?;
            let _ = sender.send(address);
            echo.serve(1)
        });
        let mut client = TcpStream::connect(receiver.recv().map_err(io::Error::other)?)?;
        client.write_all(question)?;
        let mut received = Vec::new();
        while !received.ends_with(answer) {
            let mut some = [0; 256];
            let count = client.read(&mut some)?;
            assert!(count > 0, "{mode:?}: it said {:?}", received.escape_ascii().to_string());
            received.extend_from_slice(&some[..count]);
        }
        drop(client);
        server.join().expect("the server thread ends")?;
    }
    println!("bare echo: works; see scripts/bench-echo");
    Ok(())
}
