//! What the server says at its start.

use ringwave::driver::descriptor_limit;
use ringwave::{Config, Server};
use std::io::{self, Write};

/// Prints the URL and what is open to whom, then what it runs on.
pub(crate) fn announce(server: &Server, config: &Config) {
    // A server whose output nobody reads serves all the same.
    let _ = write_announcement(server, config);
}

fn write_announcement(server: &Server, config: &Config) -> io::Result<()> {
    let address = server.local_addr();
    let reach = if address.ip().is_loopback() { "open to this machine" } else { "open to everybody who can reach it" };
    let shards = server.shards();
    let mut out = io::stdout().lock();
    writeln!(out, "ringwave {} listening on http://{address}/ ({reach})", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  WebSocket   ws://{address}/echo · ws://{address}/ws?topic=NAME")?;
    writeln!(
        out,
        "  runs on     {shards} shard{}, {} driver, process {}",
        if shards == 1 { "" } else { "s" },
        server.driver(),
        std::process::id()
    )?;
    write!(out, "  room for    {} connections a shard", config.connections_max)?;
    match server.driver() {
        "epoll" => writeln!(out, ", and no more than {} descriptors in all", descriptor_limit())?,
        _ => writeln!(
            out,
            ": tables of {} direct descriptors, another one whenever one is full",
            descriptor_limit().min(u32::try_from(config.connections_max).unwrap_or(u32::MAX))
        )?,
    }
    out.flush()
}
