//! A bare TCP echo on the engine's own driver: what a WebSocket echo can reach at most.
//!
//! `cargo bench --bench bare_echo -- --listen 127.0.0.1:9002` serves until it is ended; `scripts/bench-echo` puts it
//! side by side with the server. Without arguments it serves one connection of its own and says that it works.

use ringwave::driver::{Batch, BatchPool, Completion, Driver, Link, Uring, UringConfig, listen_on};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A link's answers that wait for the send in flight.
#[derive(Default)]
struct Side {
    sending: bool,
    waiting: Option<Box<Batch>>,
}

struct BareEcho {
    driver: Uring,
    sides: Vec<Side>,
    batches: BatchPool,
    dirty: Vec<Link>,
}

impl BareEcho {
    fn listen(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let mut driver = Uring::new(UringConfig::default())?;
        let listener = listen_on(address, 1, None)?.remove(0);
        let address = listener.local_addr();
        driver.listen(listener);
        Ok((Self { driver, sides: Vec::new(), batches: BatchPool::default(), dirty: Vec::new() }, address))
    }

    /// Answers once `count` links have closed.
    fn serve(mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            self.driver.wait(None)?;
            while let Some(completion) = self.driver.next_completion() {
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
                        let bytes = self.driver.bytes(&buffer);
                        batch.append(|out| out.extend_from_slice(bytes));
                        self.driver.recycle(buffer);
                        self.dirty.push(link);
                    }
                    Completion::Sent { link, batch, .. } => {
                        self.batches.put(batch);
                        self.sides[link.index()].sending = false;
                        self.dirty.push(link);
                    }
                    Completion::ReceiveEnded { link, .. } => self.driver.close(link),
                    Completion::Closed { .. } => count -= 1,
                    _ => {}
                }
            }
            for link in self.dirty.drain(..) {
                let side = &mut self.sides[link.index()];
                if let Some(batch) = side.waiting.take_if(|_| !side.sending) {
                    side.sending = true;
                    self.driver.send(link, batch);
                }
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--listen") {
        let address = arguments.get(at + 1).and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| io::Error::other("--listen takes ADDRESS:PORT"))?;
        let (echo, address) = BareEcho::listen(address)?;
        println!("bare echo listening on tcp://{address}");
        return echo.serve(usize::MAX);
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (echo, address) = BareEcho::listen(any)?;
        let _ = sender.send(address);
        echo.serve(1)
    });
    let mut client = TcpStream::connect(receiver.recv().map_err(io::Error::other)?)?;
    client.write_all(b"is anybody there?")?;
    let mut answer = [0; 17];
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"is anybody there?");
    drop(client);
    server.join().expect("the server thread ends")?;
    println!("bare echo: works; see scripts/bench-echo");
    Ok(())
}
