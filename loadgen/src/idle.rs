//! The idle scenario: how many connections a server holds, what each costs it, and whether all still answer.

use crate::args::IdleArgs;
use crate::client::{Client, Plan};
use crate::server_process::Usage;
use std::io;

/// Bytes of the message that every connection sends at the end.
const MESSAGE_BYTES: u32 = 20;

/// Connects, holds, asks. Prints what it saw and answers whether every connection was there at the end.
pub(crate) fn run(args: &IdleArgs) -> io::Result<bool> {
    let resident = || args.server_pid.map(|pid| Usage::of(pid).map(|usage| usage.resident_bytes)).transpose();
    let mut client = Client::new(Plan {
        url: args.url.clone(),
        connections: args.connections,
        in_flight: 1,
        size: MESSAGE_BYTES,
        text: false,
        goes_on: false,
        destinations: args.destinations,
        connect_timeout: args.connect_timeout,
    })?;
    let before = resident()?;
    let elapsed = client.connect()?;
    let rate = f64::from(args.connections) / elapsed.as_secs_f64();
    println!("{}: {} connections in {elapsed:.2?}: {rate:.0}/s", args.url, args.connections);
    client.run(args.duration, |_| false)?;
    let report = |when: &str| -> io::Result<()> {
        if let (Some(before), Some(now)) = (before, resident()?) {
            let each = (now as f64 - before as f64) / f64::from(args.connections);
            println!(
                "  {when:<11} {} KiB resident, {} KiB before: {each:.0} bytes a connection",
                now / 1024,
                before / 1024
            );
        }
        Ok(())
    };
    report("held")?;

    client.begin();
    let all = u64::from(args.connections);
    client.run(args.connect_timeout, |client| client.messages >= all)?;
    println!("  answered    {} of {all}", client.messages);
    report("after that")?;
    if client.errors.any() {
        println!("  errors      {} corrupted, {} connections lost", client.errors.corrupted, client.errors.lost);
    }
    Ok(client.messages == all && !client.errors.any())
}
