//! The report as programs read it: `ringload/1`, in JSON. `docs/ringload-report.md` says what each field means.
//!
//! Durations are in seconds where the name ends in `_s` and in nanoseconds where it ends in `_ns`. What was not measured
//! is `null`. Within version 1 fields are added and never change their meaning.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name and version of the format.
pub(crate) const SCHEMA: &str = "ringload/1";

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: String,
    /// Version of the program.
    pub(crate) ringload: String,
    /// RFC 3339, UTC.
    pub(crate) started: String,
    pub(crate) scenario: String,
    pub(crate) url: String,
    /// The command line.
    pub(crate) command: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) setup: Setup,
    pub(crate) connect: Connect,
    /// One or more, in the order they were made.
    pub(crate) runs: Vec<Run>,
    /// Memory of held connections (`idle`).
    pub(crate) held: Option<Held>,
    /// What the stalled readers met (`slow-reader`).
    pub(crate) stalled: Option<Stalled>,
    /// The answer of `find-rate`, and where a `ramp` ended.
    pub(crate) found: Option<Found>,
    pub(crate) assertions: Vec<Assertion>,
    /// What connections met first, in words, with what to do about it.
    #[serde(default)]
    pub(crate) troubles: Vec<String>,
    /// Whether it was ended by a signal: what was measured until then is here.
    pub(crate) interrupted: bool,
    /// No error in any run and no assertion broken.
    pub(crate) ok: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// The system's default for TCP.
    pub(crate) congestion_control: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Setup {
    pub(crate) connections: u64,
    pub(crate) threads: usize,
    /// `uring` or `epoll`.
    pub(crate) driver: String,
    /// `closed`: the next message waits for an answer. `open`: messages leave by a schedule.
    pub(crate) r#loop: String,
    /// `constant`, `poisson`; `null` in a closed loop.
    pub(crate) arrivals: Option<String>,
    /// Messages in flight on each connection (closed loop).
    pub(crate) in_flight: Option<u64>,
    pub(crate) size_bytes: u64,
    /// `binary` or `text`.
    pub(crate) kind: String,
    pub(crate) warm_up_s: f64,
    /// What else the scenario was told: publishers, bursts, steps.
    pub(crate) more: BTreeMap<String, String>,
}

/// How the connections came about.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Connect {
    pub(crate) asked: u64,
    pub(crate) established: u64,
    pub(crate) elapsed_s: f64,
    pub(crate) per_s: f64,
    /// From the connect to the answered handshake.
    pub(crate) latency: Latency,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    pub(crate) label: String,
    pub(crate) elapsed_s: f64,
    /// Messages a second that were asked for; `null` in a closed loop.
    pub(crate) offered_per_s: Option<f64>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) received_per_s: f64,
    pub(crate) received_bytes_per_s: f64,
    pub(crate) latency: Latency,
    /// The errors by name, all of them, and `total`.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) client: Client,
    pub(crate) server: Option<Server>,
    pub(crate) intervals: Vec<Interval>,
    /// The whole latency histogram: HDR V2 with deflate, in base64; runs can be merged by it.
    pub(crate) histogram: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) min_ns: u64,
    pub(crate) mean_ns: f64,
    pub(crate) stdev_ns: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p75_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p95_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) p9999_ns: u64,
    pub(crate) max_ns: u64,
}

/// What the run cost the client, and whether it was the limit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Client {
    /// Share of the time that the busiest thread was on a core, 0 to 1.
    pub(crate) busiest_thread: f64,
    /// Share of the time that the same thread was ready and waited for a core, most of all threads.
    pub(crate) longest_wait: f64,
    pub(crate) cpu_s: f64,
    /// How late the client itself was to send (open loop).
    pub(crate) lag_p99_ns: u64,
    pub(crate) lag_max_ns: u64,
    /// Why the figures may be the client's and not the server's; `null` if they are the server's.
    pub(crate) limit: Option<String>,
}

/// What the run cost the server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Server {
    pub(crate) pid: u32,
    pub(crate) cpu_user_s: f64,
    pub(crate) cpu_system_s: f64,
    /// CPU time over elapsed time: 1 is one full core.
    pub(crate) cores_used: f64,
    /// Share of the time that its busiest thread was on a core, 0 to 1.
    pub(crate) busiest_thread: f64,
    pub(crate) messages_per_cpu_s: Option<f64>,
    pub(crate) cpu_ns_per_message: Option<f64>,
    pub(crate) resident_bytes_before: u64,
    pub(crate) resident_bytes_after: u64,
    pub(crate) resident_bytes_max: u64,
    /// Growth of the memory from before the connections, by connection.
    pub(crate) resident_bytes_per_connection: Option<f64>,
    pub(crate) context_switches_voluntary: u64,
    pub(crate) context_switches_involuntary: u64,
    pub(crate) context_switches_per_message: Option<f64>,
    /// System calls, where the system lets us count them.
    pub(crate) syscalls: Option<u64>,
    pub(crate) syscalls_per_message: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Interval {
    /// From the start of the run.
    pub(crate) start_s: f64,
    pub(crate) length_s: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) received_per_s: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
    pub(crate) errors: u64,
    pub(crate) connections: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Held {
    pub(crate) connections: u64,
    pub(crate) held_s: f64,
    /// Connections that answered at the end.
    pub(crate) answered: u64,
    pub(crate) server_bytes_per_connection_held: Option<f64>,
    pub(crate) server_bytes_per_connection_answered: Option<f64>,
    /// Slab memory of the kernel on this machine, both ends if the server is here too: an estimate, others use it too.
    pub(crate) kernel_bytes_per_connection: Option<f64>,
    pub(crate) client_bytes_per_connection: f64,
    /// Of one message to all of them; `null` without `--broadcast`.
    #[serde(default)]
    pub(crate) broadcast: Option<Broadcast>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Broadcast {
    /// Connections that were to get it: all but the sender.
    pub(crate) due: u64,
    pub(crate) reached: u64,
    /// From the send until the first had it, and the last.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Stalled {
    pub(crate) readers: u64,
    /// Those that the server ended.
    pub(crate) ended_by_server: u64,
    /// Messages that were meant for them.
    pub(crate) expected: u64,
    /// Messages that they got in the end.
    pub(crate) received: u64,
    pub(crate) missed: u64,
    /// The others' p99 with the stalled readers over that without.
    pub(crate) p99_ratio: Option<f64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Found {
    pub(crate) promise: String,
    /// The highest rate that kept the promise; `null` if none did.
    pub(crate) rate_per_s: Option<f64>,
    /// The lowest rate that broke it; `null` if none did.
    pub(crate) broken_at_per_s: Option<f64>,
    /// Why the search ended there.
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Assertion {
    pub(crate) text: String,
    /// What was seen; `null` if the run did not measure it.
    pub(crate) seen: Option<f64>,
    pub(crate) holds: bool,
}
