//! Whole shards on a simulated kernel: their peers, their network and their clock come from a seed.
//!
//! ```text
//! cargo test --profile simulation --features simulation --test simulation -- [OPTIONS]
//!
//! (nothing)          20 000 seeds; the same trace twice; every planted fault is found; the corpus of `fuzz/`
//! --seeds N          so many seeds, with progress
//! --first SEED       from this one on (0)
//! --replay SEED      one seed, told event by event
//! --fault NAME       with the engine made wrong in this way (see src/base/fault.rs)
//! --directed         only the driver in the situations of `directed`
//! --faults           only the planted faults: how many seeds each takes
//! ```
//!
//! | file | what |
//! |---|---|
//! | `directed` | the driver alone, in situations that chance meets too rarely |
//! | `history` | one seed: what is drawn, how it runs, what must hold |
//! | `peers` | who connects, and what each must see |
//! | `app` | the application |
//! | `wire` | frames, written and read after the RFC alone |

mod app;
mod directed;
mod history;
mod peers;
mod wire;

use history::{Summary, run, run_against};
use ringwave::base::fault::Fault;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SEEDS: u64 = 20_000;
/// Of these each runs twice; and each directed history runs with them.
const SEEDS_TWICE: u64 = 1_000;
/// Seeds within which a planted fault is found.
const SEEDS_FOR_FAULT: u64 = 5_000;
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

struct Options {
    seeds: Option<u64>,
    first: u64,
    replay: Option<u64>,
    fault: Option<Fault>,
    directed: bool,
    faults: bool,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut options = Self { seeds: None, first: 0, replay: None, fault: None, directed: false, faults: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} takes a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text:?} is no number"));
            match word.as_str() {
                "--seeds" => options.seeds = Some(number(value()?)?),
                "--first" => options.first = number(value()?)?,
                "--replay" => options.replay = Some(number(value()?)?),
                "--fault" => {
                    let name = value()?;
                    let fault = Fault::ALL.iter().find(|fault| format!("{fault:?}") == name);
                    options.fault = Some(*fault.ok_or_else(|| format!("there is no fault {name:?}"))?);
                }
                "--directed" => options.directed = true,
                "--faults" => options.faults = true,
                _ => return Err(format!("unknown option {word:?}; tests/simulation/main.rs lists them")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(what) => {
            eprintln!("simulation: {what}");
            return ExitCode::from(2);
        }
    };
    // A history that panics says so itself.
    std::panic::set_hook(Box::new(|_| {}));
    let holds = if let Some(seed) = options.replay {
        replay(seed, options.fault)
    } else if options.directed {
        holds_as_directed()
    } else if options.faults {
        find_faults()
    } else if let Some(seeds) = options.seeds {
        run_seeds(options.first, seeds, options.fault)
    } else {
        run_seeds(options.first, SEEDS, None)
            && runs_twice_alike()
            && holds_as_directed()
            && find_faults()
            && holds_over_corpus()
    };
    println!("simulation: {}", if holds { "ok" } else { "FAILED" });
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64, fault: Option<Fault>) -> bool {
    match run(seed, fault, true) {
        Ok(summary) => {
            println!("seed {seed} holds: {summary:?}");
            true
        }
        Err(wrong) => {
            report(seed, fault, &wrong);
            false
        }
    }
}

fn report(seed: u64, fault: Option<Fault>, wrong: &[String]) {
    println!("seed {seed} does not hold:");
    for what in wrong {
        println!("  {what}");
    }
    let with = fault.map_or(String::new(), |fault| format!(" --fault {fault:?}"));
    println!("again: cargo test --profile simulation --features simulation --test simulation -- --replay {seed}{with}");
}

/// Runs `count` seeds on all cores; `each` answers whether to go on.
fn for_seeds(first: u64, count: u64, each: impl Fn(u64) -> bool + Sync) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if offset >= count {
                        return;
                    }
                    let seed = first.wrapping_add(offset);
                    if !each(seed) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn run_seeds(first: u64, count: u64, fault: Option<Fault>) -> bool {
    let begin = Instant::now();
    let totals = Mutex::new((0u64, Summary::default(), begin, 0u64));
    for_seeds(first, count, |seed| {
        let result = run(seed, fault, false);
        let mut totals = totals.lock().expect("nobody panics here");
        match result {
            Ok(summary) => {
                totals.0 += 1;
                totals.1.steps += summary.steps;
                totals.1.sessions += summary.sessions;
                totals.1.messages += summary.messages;
            }
            Err(wrong) => {
                totals.3 += 1;
                report(seed, fault, &wrong);
            }
        }
        if totals.2.elapsed() >= PROGRESS_EVERY {
            totals.2 = Instant::now();
            println!("  {} of {count} seeds, {:.0}/s", totals.0, totals.0 as f64 / begin.elapsed().as_secs_f64());
        }
        totals.3 < 5
    });
    let (held, sum, _, failed) = *totals.lock().expect("nobody panics here");
    let elapsed = begin.elapsed().as_secs_f64();
    println!(
        "{held} seeds held, {failed} did not, {elapsed:.1} s, {:.0} seeds/s: {} steps, {} sessions, {} messages",
        held as f64 / elapsed,
        sum.steps,
        sum.sessions,
        sum.messages
    );
    failed == 0 && held == count
}

/// The same seeds have the same traces.
fn runs_twice_alike() -> bool {
    let traces = || {
        let traces = Mutex::new(vec![0; SEEDS_TWICE as usize]);
        for_seeds(0, SEEDS_TWICE, |seed| {
            let trace = run(seed, None, false).map_or(0, |summary| summary.trace);
            traces.lock().expect("nobody panics here")[seed as usize] = trace;
            true
        });
        traces.into_inner().expect("nobody panics here")
    };
    let (one, other) = (traces(), traces());
    let different = one.iter().zip(&other).filter(|(one, other)| one != other).count();
    let all = one.iter().fold(0u64, |all, trace| all.rotate_left(1) ^ trace);
    println!("{SEEDS_TWICE} seeds twice: {different} traces differ, all together {all:016x}");
    different == 0
}

/// What fuzzing has kept of bytes that one peer writes.
fn holds_over_corpus() -> bool {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/shard");
    let (mut count, mut all_hold) = (0, true);
    for entry in std::fs::read_dir(corpus).expect("it is a part of the repository") {
        let path = entry.expect("a directory that can be read").path();
        let holds = run_against(&std::fs::read(&path).expect("a file"));
        if let Err(wrong) = holds {
            println!("{} does not hold: {wrong:?}", path.display());
            all_hold = false;
        }
        count += 1;
    }
    println!("{count} files of the corpus");
    all_hold && count > 0
}

/// What shows, with this seed, that the engine is wrong in this way.
fn find_fault(seed: u64, fault: Fault) -> Option<String> {
    match directed::history_for(fault) {
        Some(history) => directed::run_with(seed, fault, history).err(),
        None => run(seed, Some(fault), false).err().map(|wrong| wrong[0].clone()),
    }
}

fn holds_as_directed() -> bool {
    let failed = (0..SEEDS_TWICE).find_map(|seed| directed::run_all(seed).err().map(|wrong| (seed, wrong)));
    if let Some((seed, wrong)) = &failed {
        println!("directed, seed {seed}: {wrong}");
    }
    failed.is_none()
}

/// Every planted fault is found.
fn find_faults() -> bool {
    let mut all_found = true;
    for fault in Fault::ALL {
        let found = Mutex::new(None::<(u64, String)>);
        for_seeds(0, SEEDS_FOR_FAULT, |seed| {
            let Some(wrong) = find_fault(seed, *fault) else { return true };
            let mut found = found.lock().expect("nobody panics here");
            if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                *found = Some((seed, wrong));
            }
            false
        });
        match found.into_inner().expect("nobody panics here") {
            Some((seed, what)) => {
                println!("  {:<26} {:>5} seeds  {what:.90}", format!("{fault:?}"), seed + 1);
            }
            None => {
                println!("  {:<26} not found within {SEEDS_FOR_FAULT} seeds", format!("{fault:?}"));
                all_found = false;
            }
        }
    }
    println!("{} planted faults", Fault::ALL.len());
    all_found
}
