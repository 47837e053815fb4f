//! The binary, started on a port that the system chooses, and killed at the end of whoever started it.

use crate::support::{Client, DEADLINE, Raw};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A running server.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    /// Standard error, until somebody reads it.
    unread: Option<ChildStderr>,
}

/// The binary with these flags, and with nothing of this process's environment but the driver.
pub(crate) fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    command.args(flags).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The same tests for each driver.
    command.envs(std::env::var_os("RINGWAVE_DRIVER").map(|driver| ("RINGWAVE_DRIVER", driver)));
    command
}

impl Process {
    /// Starts a server with these flags. Nobody reads its log before [`Process::log`].
    #[track_caller]
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut child = command(&[&["--listen", "127.0.0.1:0", "--no-pin"], flags].concat())
            .spawn()
            .expect("the binary has been built");
        let mut says = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut first = String::new();
        says.read_line(&mut first).expect("text");
        let address = first.split_once("http://").and_then(|(_, rest)| rest.split_once('/')?.0.parse().ok());
        let Some(address) = address else {
            let mut error = String::new();
            let read = child.stderr.take().expect("it is piped").read_to_string(&mut error);
            panic!("{first:?} is no address; {read:?}: {error}");
        };
        // The rest of what it says fits into the pipe, which must stay open.
        let mut rest = String::new();
        for _ in 0..3 {
            says.read_line(&mut rest).expect("text");
        }
        Self { unread: child.stderr.take(), child, address }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a WebSocket.
    #[track_caller]
    pub(crate) fn client(&self, target: &str) -> Client {
        Client::open(self.address, target)
    }

    /// Opens a connection that says nothing yet.
    #[track_caller]
    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// What it says on standard error, from the first line on.
    #[track_caller]
    pub(crate) fn log(&mut self) -> Lines {
        let unread = BufReader::new(self.unread.take().expect("one reader"));
        let (lines, read) = channel();
        std::thread::spawn(move || {
            // Bytes, because a line of a log that is not UTF-8 would be a finding. Whoever has seen enough hangs up.
            for line in unread.split(b'\n').map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Lines(read)
    }

    /// Sends it a signal, by the name that kill(1) takes.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
    }

    /// Waits for its end and answers its exit code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status.code().expect("no signal ended it");
            }
            assert!(start.elapsed() < DEADLINE, "it has not ended within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Scrapes it.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        let mut raw = self.raw();
        let answer = raw.write("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").answer();
        assert_eq!(answer.status, 200);
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(answer.header("Content-Type"), Some(content_type));
        Metrics::read(&answer.body)
    }

    /// Waits until a sample has this value.
    #[track_caller]
    pub(crate) fn await_metric(&self, sample: &str, value: u64) {
        crate::support::eventually(sample, || self.metrics().get(sample) == value);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a log, as they come.
pub(crate) struct Lines(Receiver<Vec<u8>>);

impl Lines {
    /// The next line that holds this.
    #[track_caller]
    pub(crate) fn find(&self, part: &str) -> String {
        loop {
            let line =
                self.0.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no line with {part:?} within {DEADLINE:?}"));
            let line = String::from_utf8(line).expect("a log is text");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// All lines up to the end.
    #[track_caller]
    pub(crate) fn rest(&self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            match self.0.recv_timeout(DEADLINE) {
                Ok(line) => rest.push(String::from_utf8(line).expect("a log is text")),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return rest,
                Err(error) => panic!("{error}: the log does not end; so far {rest:?}"),
            }
        }
    }
}

/// The value of a field of a line.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// A scrape: samples by name and labels without `shard`, the shards' added up.
pub(crate) struct Metrics(HashMap<String, u64>);

impl Metrics {
    fn read(text: &str) -> Self {
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        let mut samples: HashMap<String, u64> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
            let name = match sample.split_once("{shard=\"") {
                Some((name, rest)) => {
                    let (_, labels) = rest.split_once('"').expect("a label ends");
                    let labels = labels.trim_start_matches(',');
                    if labels == "}" { name.to_owned() } else { format!("{name}{{{labels}") }
                }
                None => sample.to_owned(),
            };
            let value: f64 = value.parse().expect("a number");
            *samples.entry(name).or_default() += value as u64;
        }
        Self(samples)
    }

    #[track_caller]
    pub(crate) fn get(&self, sample: &str) -> u64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("no sample {sample}"))
    }

    /// The sum of all samples of a family.
    pub(crate) fn sum(&self, family: &str) -> u64 {
        let of_family = self.0.iter().filter(|(sample, _)| sample.split('{').next() == Some(family));
        of_family.map(|(_, value)| value).sum()
    }
}
