//! Comparing ways to do the same work: they take turns, A B C A B C …, within one run, so that what the
//! machine does meanwhile (another process, a change of clock rate) meets all of them alike.
//!
//! A figure means something only beside the others of its table. Arguments: `--test` runs each thing once and
//! measures nothing, as does a run without the `--bench` that `cargo bench` adds; any other word keeps only
//! the tables whose title contains it.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Turns that each contender takes; odd, so that the median is one of them.
const ROUNDS: usize = 11;

/// What one turn of one contender lasts.
const TURN: Duration = Duration::from_millis(10);

/// What the command line asks of a benchmark.
pub(crate) struct Options {
    /// Run each contender once and measure nothing.
    test: bool,
    /// What the title of a table must contain.
    filter: Option<String>,
}

impl Options {
    pub(crate) fn from_arguments() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
        Self {
            test: given("--test") || !given("--bench"),
            filter: arguments.iter().find(|argument| !argument.starts_with("--")).cloned(),
        }
    }
}

/// What one iteration gets through.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// How many messages; a figure in nanoseconds is for one of them.
    pub(crate) messages: usize,
    /// How many bytes, in all messages together.
    pub(crate) bytes: usize,
}

/// One way to do the work.
pub(crate) struct Contender<'a> {
    name: &'a str,
    batch: Batch,
    /// Does the work so many times. The loop is in here so that it is compiled together with the work.
    iterate: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Contender<'a> {
    /// `work` gets through `batch` once. What it returns is kept from being optimized away.
    pub(crate) fn new<R>(name: &'a str, batch: Batch, mut work: impl FnMut() -> R + 'a) -> Self {
        let iterate = move |iterations| {
            for _ in 0..iterations {
                black_box(work());
            }
        };
        Self { name, batch, iterate: Box::new(iterate) }
    }

    /// How long so many iterations take, in nanoseconds.
    fn time(&mut self, iterations: u64) -> f64 {
        let start = Instant::now();
        (self.iterate)(iterations);
        start.elapsed().as_secs_f64() * 1e9
    }

    /// How many iterations fill a turn. As it finds out, caches and branch predictors warm up.
    fn iterations_per_turn(&mut self) -> u64 {
        let turn = TURN.as_secs_f64() * 1e9;
        let mut iterations = 1;
        loop {
            let elapsed = self.time(iterations);
            if elapsed >= turn / 4.0 {
                return (iterations as f64 * turn / elapsed).ceil() as u64;
            }
            iterations *= 2;
        }
    }
}

/// What one contender was measured to do.
pub(crate) struct Figure {
    /// The contender's name.
    pub(crate) name: String,
    /// Nanoseconds for one message.
    pub(crate) nanoseconds: Spread,
    /// 10⁹ bytes per second.
    pub(crate) gigabytes_per_second: Spread,
    /// Bytes per second, as a multiple of what the first contender did in the same round.
    pub(crate) ratio: Spread,
}

/// One number over all rounds: the middle and both ends.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2} ({:.2}–{:.2})", self.median, self.min, self.max))
    }
}

/// Lets the contenders take turns, prints a table and returns what it shows, in the same order.
///
/// The others are held against the first. Returns nothing if the command line asked for a mere test or for
/// other titles.
pub(crate) fn compare(options: &Options, title: &str, mut contenders: Vec<Contender>) -> Vec<Figure> {
    if options.filter.as_ref().is_some_and(|filter| !title.contains(filter)) {
        return Vec::new();
    }
    if options.test {
        for contender in &mut contenders {
            contender.time(1);
        }
        println!("{title}: ok");
        return Vec::new();
    }
    let figures = measure(&mut contenders);
    print_table(title, &figures);
    figures
}

fn measure(contenders: &mut [Contender]) -> Vec<Figure> {
    let iterations: Vec<u64> = contenders.iter_mut().map(Contender::iterations_per_turn).collect();
    // nanoseconds[contender][round], for one iteration
    let mut nanoseconds = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for (index, contender) in contenders.iter_mut().enumerate() {
            let turn = contender.time(iterations[index]);
            nanoseconds[index].push(turn / iterations[index] as f64);
        }
    }
    let speeds = |index: usize| {
        let bytes: f64 = contenders[index].batch.bytes as f64;
        nanoseconds[index].iter().map(move |nanoseconds| bytes / nanoseconds)
    };
    let figure = |(index, contender): (usize, &Contender)| Figure {
        name: contender.name.to_owned(),
        nanoseconds: Spread::of(nanoseconds[index].iter().map(|ns| ns / contender.batch.messages as f64)),
        gigabytes_per_second: Spread::of(speeds(index)),
        ratio: Spread::of(speeds(index).zip(speeds(0)).map(|(own, first)| own / first)),
    };
    contenders.iter().enumerate().map(figure).collect()
}

fn print_table(title: &str, figures: &[Figure]) {
    println!("{title}");
    println!("  {:<16}{:>30}{:>26}{:>22}", "median (min–max)", "ns per message", "GB/s", "ratio");
    for Figure { name, nanoseconds, gigabytes_per_second, ratio } in figures {
        println!("  {name:<16}{nanoseconds:>30}{gigabytes_per_second:>26}{ratio:>22}");
    }
    println!();
}
