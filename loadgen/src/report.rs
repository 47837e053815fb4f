//! What is said at the end: a table for people, JSON for programs.

use crate::args::EchoArgs;
use crate::echo::Outcome;
use serde_json::json;
use std::fs;
use std::io;
use std::time::Duration;

/// With a busier client than this, the figure may be the client's and not the server's.
const CLIENT_CPU_MAX: f64 = 0.92;

/// Prints the report. Answers whether the run was without errors.
pub(crate) fn print(args: &EchoArgs, outcome: &Outcome) -> io::Result<bool> {
    let seconds = outcome.elapsed.as_secs_f64();
    let rate = outcome.messages as f64 / seconds;
    let saturated = outcome.client_cpu > CLIENT_CPU_MAX;
    let per_cpu_second = outcome.server.map(|server| outcome.messages as f64 / server.cpu().as_secs_f64().max(1e-9));
    let to_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");

    if !to_stdout {
        let quantile = |q| Duration::from_nanos(outcome.latency.value_at_quantile(q));
        println!("{}: {} connections × {} in flight, {} bytes", args.url, args.connections, args.in_flight, args.size);
        println!("  connected   {:?}", outcome.connect_elapsed);
        println!("  messages    {} in {seconds:.2} s: {rate:.0}/s", outcome.messages);
        println!(
            "  latency     p50 {:?}, p99 {:?}, p99.9 {:?}, most {:?} (closed loop: stalls of the server hide in it)",
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            Duration::from_nanos(outcome.latency.max())
        );
        println!("  client      {:.0} % of a core", outcome.client_cpu * 100.0);
        if let (Some(server), Some(per_cpu_second)) = (outcome.server, per_cpu_second) {
            println!(
                "  server      {:.0} % of a core ({:?} user, {:?} system), {per_cpu_second:.0} messages a CPU-second, {} KiB resident",
                server.cpu().as_secs_f64() / seconds * 100.0,
                server.user,
                server.system,
                server.resident_bytes / 1024
            );
        }
        if saturated {
            println!("  warning     this client was the limit: the rate is not the server's");
        }
        if outcome.errors.any() {
            println!("  errors      {} corrupted, {} connections lost", outcome.errors.corrupted, outcome.errors.lost);
        }
    }
    if let Some(path) = &args.json {
        let nanos = |q| outcome.latency.value_at_quantile(q);
        let report = json!({
            "schema": "ringload-echo-0",
            "url": args.url.to_string(),
            "connections": args.connections,
            "in_flight": args.in_flight,
            "size_bytes": args.size,
            "elapsed_s": seconds,
            "messages": outcome.messages,
            "messages_per_s": rate,
            "latency_ns": { "p50": nanos(0.5), "p99": nanos(0.99), "p999": nanos(0.999), "max": outcome.latency.max() },
            "client_cpu": outcome.client_cpu,
            "client_was_the_limit": saturated,
            "messages_per_server_cpu_s": per_cpu_second,
            "server_cpu_s": outcome.server.map(|server| server.cpu().as_secs_f64()),
            "server_resident_bytes": outcome.server.map(|server| server.resident_bytes),
            "errors": { "corrupted": outcome.errors.corrupted, "lost": outcome.errors.lost },
        });
        let text = format!("{report:#}\n");
        if to_stdout {
            print!("{text}");
        } else {
            fs::write(path, text)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        }
    }
    Ok(!outcome.errors.any())
}
