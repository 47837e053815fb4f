//! ringload as its users meet it: a process with a command line, two streams, an exit code and a report.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest life of a process; a test that goes well is far from it.
const LIFE_MAX: Duration = Duration::from_secs(20);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ringload");

/// Held for reading by every process, and for writing by those whose latencies are compared to the millisecond: they
/// have the machine to themselves, as far as this crate goes.
static MACHINE: RwLock<()> = RwLock::new(());

enum Hold {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// Tries up to three times: a machine that others use too may spoil one measurement, a wrong figure spoils all. Where
/// the system permits it, what the attempt starts goes before what others run.
pub(crate) fn within_three_attempts(attempt: impl Fn()) {
    take_precedence();
    for left in [2, 1] {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(&attempt)).is_ok() {
            return;
        }
        eprintln!("once more, {left} attempts are left");
    }
    attempt();
}

/// Checks each row of a table, a few at a time: they wait for the most part.
pub(crate) fn check_all<T: Sync>(rows: &[T], check: impl Fn(&T) + Sync) {
    for rows in rows.chunks(4) {
        std::thread::scope(|scope| rows.iter().for_each(|row| drop(scope.spawn(|| check(row)))));
    }
}

/// Lowers the nice value of this thread, which what it starts inherits: the server's threads and ringload.
fn take_precedence() {
    let link = std::fs::read_link("/proc/thread-self").expect("Linux 3.17");
    let thread = link.file_name().expect("it ends with the thread's number");
    let mut renice = Command::new("renice");
    renice.args(["-n", "-15", "-p"]).arg(thread).stdout(Stdio::null()).stderr(Stdio::null());
    // Only root may.
    let _ = renice.status();
}

/// A command line that grows.
pub(crate) struct Load {
    words: Vec<String>,
    before: Vec<String>,
    with_json: bool,
    alone: bool,
}

impl Load {
    /// The scenario and the URL, then `words`, cut at white space.
    pub(crate) fn new(scenario: &str, url: &str, words: &str) -> Self {
        Self { words: vec![scenario.into(), url.into()], before: Vec::new(), with_json: true, alone: false }.and(words)
    }

    /// Adds words, cut at white space.
    pub(crate) fn and(mut self, words: &str) -> Self {
        self.words.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds one argument as it is.
    pub(crate) fn argument(mut self, argument: impl Display) -> Self {
        self.words.push(argument.to_string());
        self
    }

    /// Runs it by another program: these words come before the binary.
    pub(crate) fn through(mut self, words: &[&str]) -> Self {
        self.before = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Without `--json -`.
    pub(crate) fn without_json(mut self) -> Self {
        self.with_json = false;
        self
    }

    /// While no other process of these tests runs.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(crate) fn run(self) -> Done {
        self.start().wait()
    }

    pub(crate) fn start(self) -> Running {
        let hold = if self.alone {
            Hold::Alone { _guard: MACHINE.write().unwrap_or_else(PoisonError::into_inner) }
        } else {
            Hold::Shared { _guard: MACHINE.read().unwrap_or_else(PoisonError::into_inner) }
        };
        let mut words = self.before;
        words.push(BINARY.to_owned());
        words.extend(self.words);
        if self.with_json {
            words.extend(["--json".to_owned(), "-".to_owned()]);
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", words[0]));
        let stdout = read_all(child.stdout.take().expect("it is piped"));
        let stderr = read_all(child.stderr.take().expect("it is piped"));
        Running { child, stdout, stderr, words, begun: Instant::now(), _hold: hold }
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> Option<JoinHandle<String>> {
    Some(std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }))
}

/// A process; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    words: Vec<String>,
    begun: Instant,
    _hold: Hold,
}

impl Running {
    /// Sends a signal by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is a shell").success(), "cannot send SIG{name}");
    }

    /// Waits for its end. What it wrote to standard error is printed, which the test's runner shows if the test fails.
    pub(crate) fn wait(mut self) -> Done {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break Some(status);
            }
            if self.begun.elapsed() > LIFE_MAX {
                self.end();
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let text = |thread: Option<JoinHandle<String>>| thread.expect("taken once").join().expect("it does not panic");
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        let command = self.words.join(" ");
        eprintln!("$ {command}\n{stderr}{status:?} after {:.2?}", self.begun.elapsed());
        let status = status.unwrap_or_else(|| panic!("{command} did not end within {LIFE_MAX:?}; it said:\n{stdout}"));
        let code = status.code().unwrap_or_else(|| panic!("{command} was ended by a signal: {status}"));
        Done { code, stdout, stderr, elapsed: self.begun.elapsed() }
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process that ended.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
}

impl Done {
    /// Panics unless it ended with this code. Answers its report.
    pub(crate) fn exits(self, code: i32) -> Report {
        assert_eq!(self.code, code, "exit code; standard output:\n{}", self.stdout);
        let report = Report::parse(&self.stdout);
        assert_eq!(*report.at("/ok"), Value::Bool(code == 0), "`ok` and the exit code agree");
        report
    }

    /// Panics unless it ended with one of these codes and said each of the words on standard error, in any case.
    /// Words with `|` between them are alternatives.
    pub(crate) fn fails(&self, codes: &[i32], words: &[&str]) {
        assert!(codes.contains(&self.code), "exit code {}, not of {codes:?}", self.code);
        let said = self.stderr.to_lowercase();
        for word in words {
            let holds = word.to_lowercase().split('|').any(|word| said.contains(word));
            assert!(holds, "the message does not say `{word}`:\n{}", self.stderr);
        }
        assert!(!said.contains("panicked"), "it panicked:\n{}", self.stderr);
    }
}

/// A report in `ringload/1`.
pub(crate) struct Report(Value);

impl Report {
    /// Panics unless the text is one report and nothing else.
    pub(crate) fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in the report:\n{text}"));
        assert_eq!(value["schema"], "ringload/1", "{text}");
        Self(value)
    }

    /// By JSON pointer (RFC 6901).
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or_else(|| panic!("the report has no {pointer}: {:#}", self.0))
    }

    pub(crate) fn count(&self, pointer: &str) -> u64 {
        self.at(pointer).as_u64().unwrap_or_else(|| panic!("{pointer} is no count: {}", self.at(pointer)))
    }

    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.at(pointer).as_f64().unwrap_or_else(|| panic!("{pointer} is no number: {}", self.at(pointer)))
    }

    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_else(|| panic!("{pointer} is no text: {}", self.at(pointer)))
    }

    /// A duration whose name ends in `_ns`.
    pub(crate) fn nanos(&self, pointer: &str) -> Duration {
        Duration::from_nanos(self.count(pointer))
    }

    pub(crate) fn run_count(&self) -> usize {
        self.at("/runs").as_array().expect("runs are a list").len()
    }

    /// The errors of a run that are not zero, by name. Panics unless they add up to `total`.
    pub(crate) fn errors_of(&self, run: usize) -> BTreeMap<String, u64> {
        let errors = self.at(&format!("/runs/{run}/errors")).as_object().expect("errors are a map");
        let count = |value: &Value| value.as_u64().expect("errors are counts");
        let named = errors.iter().filter(|(name, _)| *name != "total");
        let named: BTreeMap<String, u64> = named.map(|(name, value)| (name.clone(), count(value))).collect();
        assert_eq!(count(&errors["total"]), named.values().sum::<u64>(), "{errors:?}");
        named.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Panics unless the report has one run, and in it these errors and no others.
    pub(crate) fn has_errors(&self, expected: &[(&str, u64)]) {
        assert_eq!(self.run_count(), 1, "runs");
        let expected = expected.iter().filter(|(_, count)| *count > 0);
        let expected: BTreeMap<String, u64> = expected.map(|&(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(self.errors_of(0), expected, "errors seen by ringload, and those that there were");
    }
}
