//! Comparing ways to do the same work: they take turns, A B C A B C …, within one run, so that what the
//! machine does meanwhile (another process, a change of clock rate) meets all of them alike.
//!
//! A figure from here means something only beside its neighbours in the same table. Arguments of a
//! benchmark: `--test` runs everything once and measures nothing; any other word is a filter on titles.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Turns that each contender takes; odd, so that the median is one of them.
const ROUNDS: usize = 11;

/// What one turn of one contender lasts.
const TURN: Duration = Duration::from_millis(10);

/// What the command line asks of a benchmark.
pub(crate) struct Options {
    /// Run each contender once, measure nothing.
    test: bool,
    /// Only tables whose title contains this.
    filter: Option<String>,
}

impl Options {
    /// Reads the arguments; cargo adds `--bench`, which says nothing.
    pub(crate) fn from_arguments() -> Self {
        let arguments = || std::env::args().skip(1);
        Self {
            test: arguments().any(|argument| argument == "--test"),
            filter: arguments().find(|argument| !argument.starts_with("--")),
        }
    }
}

/// One way to do the work.
pub(crate) struct Contender<'a> {
    name: String,
    bytes: usize,
    /// Does the work so many times; the loop is in here so that it is compiled with the work.
    repeat: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Contender<'a> {
    /// `work` does it once and gets through `bytes` bytes of payload.
    pub(crate) fn new<R>(name: impl Into<String>, bytes: usize, mut work: impl FnMut() -> R + 'a) -> Self {
        let repeat = Box::new(move |iterations| {
            for _ in 0..iterations {
                black_box(work());
            }
        });
        Self { name: name.into(), bytes, repeat }
    }

    fn time(&mut self, iterations: u64) -> Duration {
        let start = Instant::now();
        (self.repeat)(iterations);
        start.elapsed()
    }

    /// How many iterations fill one turn. Warms caches and branch predictors as it finds out.
    fn iterations_per_turn(&mut self) -> u64 {
        let mut iterations = 1;
        loop {
            let elapsed = self.time(iterations);
            if elapsed >= TURN / 4 {
                let turns = TURN.as_secs_f64() / elapsed.as_secs_f64();
                return ((iterations as f64 * turns) as u64).max(1);
            }
            iterations *= 2;
        }
    }
}

/// What one contender was measured to do, by median, least and most over all rounds.
pub(crate) struct Figure {
    /// The contender's name.
    pub(crate) name: String,
    /// Nanoseconds for one iteration.
    pub(crate) nanoseconds: Spread,
    /// Payload bytes per second, in units of 10⁹.
    pub(crate) gigabytes_per_second: Spread,
    /// Speed as a multiple of the first contender's in the same round.
    pub(crate) ratio: Spread,
}

/// The middle and the ends of one number over all rounds.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}

/// Lets the contenders take turns, prints a table and returns what it shows, in the same order.
///
/// The first contender is the one that the others are held against. Empty if the command line asked for
/// a mere test, or for other titles.
pub(crate) fn compare(options: &Options, title: &str, mut contenders: Vec<Contender>) -> Vec<Figure> {
    if let Some(filter) = &options.filter
        && !title.contains(filter.as_str())
    {
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
    println!("{}", table(title, &figures));
    figures
}

fn measure(contenders: &mut [Contender]) -> Vec<Figure> {
    let iterations: Vec<u64> = contenders.iter_mut().map(Contender::iterations_per_turn).collect();
    // nanoseconds[contender][round], for one iteration
    let mut nanoseconds = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        for (index, contender) in contenders.iter_mut().enumerate() {
            let elapsed = contender.time(iterations[index]);
            nanoseconds[index].push(elapsed.as_secs_f64() * 1e9 / iterations[index] as f64);
        }
    }
    let speeds: Vec<Vec<f64>> = contenders
        .iter()
        .zip(&nanoseconds)
        .map(|(contender, rounds)| rounds.iter().map(|ns| contender.bytes as f64 / ns).collect())
        .collect();
    contenders
        .iter()
        .enumerate()
        .map(|(index, contender)| Figure {
            name: contender.name.clone(),
            nanoseconds: Spread::of(nanoseconds[index].clone()),
            gigabytes_per_second: Spread::of(speeds[index].clone()),
            ratio: Spread::of(speeds[index].iter().zip(&speeds[0]).map(|(own, first)| own / first).collect()),
        })
        .collect()
}

fn table(title: &str, figures: &[Figure]) -> String {
    let mut text = format!("{title}\n  {:<18}{:>12}{:>26}{:>24}\n", "", "ns", "GB/s (min–max)", "ratio (min–max)");
    for Figure { name, nanoseconds, gigabytes_per_second: speed, ratio } in figures {
        let speed = format!("{:.2} ({:.2}–{:.2})", speed.median, speed.min, speed.max);
        let ratio = format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max);
        writeln!(text, "  {name:<18}{:>12.2}{speed:>26}{ratio:>24}", nanoseconds.median)
            .expect("a string takes all that is written to it");
    }
    text
}
