//! From flags to a plan: what is checked before anything is opened.

use crate::args::{ConnectArgs, MessageArgs, PublishArgs};
use crate::connections::{Endpoint, Opening};
use crate::plan::{DriverKind, FanoutPlan, Load, Plan};
use crate::report::model;
use crate::route::Routes;
use crate::stamp::StampForm;
use crate::target::Target;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ringwave::MessageKind;
use ringwave::driver::{cores, probe_uring};
use ringwave::protocol::handshake::ClientRequest;
use std::fs;
use std::io;

/// Longest message that a server may send, if ours are shorter.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Connections that churn makes in about a minute, the time a port rests after its connection: so many ports are wanted.
const CHURN_PORTS: u32 = 100_000;

/// Builds the plan of a scenario that opens `connections`, before anything is loaded.
pub(crate) fn plan(
    url: &Target,
    connect: &ConnectArgs,
    message: &MessageKindAndSize,
    load: Load,
    connections: u32,
) -> io::Result<Plan> {
    refuse_what_is_not_built(connect)?;
    let churns = matches!(load, Load::Churn { .. });
    if url.path.is_none() && !matches!(load, Load::Echo { .. }) {
        return Err(invalid("tcp:// is a bare echo: only the echo scenario loads it"));
    }
    let needed = if churns { CHURN_PORTS } else { connections };
    let address = url.resolve()?;
    let routes = Routes::new(address, connect.source.as_ref(), connect.target.as_ref(), needed)?;
    let driver = driver(connect.driver)?;
    let opening = Opening {
        endpoint: Endpoint { target: url.clone(), routes },
        publishers: None,
        headers: connect.header.clone(),
        protocols: connect.protocol.clone(),
        message_bytes_max: message.size.max(MESSAGE_BYTES_MAX),
        timeout: connect.connect_timeout,
        reads_late: driver == DriverKind::Epoll,
    };
    check_request(url, connect)?;
    let at_once = if let Load::Churn { at_once, .. } = load { at_once } else { connections };
    let threads = if connect.threads == 0 { cores().len() } else { connect.threads as usize };
    Ok(Plan {
        opening,
        load,
        connections: if churns { 0 } else { connections },
        threads: threads.clamp(1, at_once as usize),
        pin: !connect.no_pin,
        driver,
        connect_rate: connect.connect_rate,
        all_must_connect: !churns,
        size: message.size,
        kind: message.kind,
        answer_timeout: message.answer_timeout,
        nonce: SmallRng::from_os_rng().random(),
    })
}

/// What all messages of a scenario have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageKindAndSize {
    pub(crate) kind: MessageKind,
    pub(crate) size: usize,
    pub(crate) answer_timeout: std::time::Duration,
}

impl MessageKindAndSize {
    pub(crate) fn new(args: &MessageArgs, default_size: usize) -> Self {
        let kind = if args.text { MessageKind::Text } else { MessageKind::Binary };
        Self { kind, size: args.size.unwrap_or(default_size), answer_timeout: args.answer_timeout }
    }
}

/// The load of a fan-out, and how many connections it takes.
pub(crate) fn fanout(
    args: &PublishArgs,
    message: &MessageKindAndSize,
    readers: u32,
    stalled: u32,
) -> io::Result<(Load, u32)> {
    check_published_size(message)?;
    let subscribers = readers + stalled;
    let load = Load::Fanout(FanoutPlan {
        subscribers,
        publishers: args.publishers,
        burst: args.burst,
        stalled_from: readers,
        on_open: args.on_open.clone(),
    });
    Ok((load, subscribers + args.publishers))
}

/// Whether a message that others get has room for its stamp.
pub(crate) fn check_published_size(message: &MessageKindAndSize) -> io::Result<()> {
    let stamp = StampForm::long(message.kind == MessageKind::Text, 0).len();
    if message.size < stamp {
        return Err(invalid(&format!(
            "-s {}: a published message says who sent it and when, which takes {stamp} bytes",
            message.size
        )));
    }
    Ok(())
}

/// Lets publishers go where `--publish-url` says.
pub(crate) fn separate_publishers(plan: &mut Plan, args: &PublishArgs, connect: &ConnectArgs) -> io::Result<()> {
    let (Some(url), Load::Fanout(FanoutPlan { subscribers, publishers, .. })) = (&args.publish_url, &plan.load) else {
        return Ok(());
    };
    if url.path.is_none() {
        return Err(invalid("--publish-url is a ws:// URL"));
    }
    check_request(url, connect)?;
    let routes = Routes::new(url.resolve()?, connect.source.as_ref(), None, *publishers)?;
    plan.opening.publishers = Some((*subscribers, Endpoint { target: url.clone(), routes }));
    Ok(())
}

/// Flags that would do nothing are an error.
pub(crate) fn refuse_publishing(args: &PublishArgs) -> io::Result<()> {
    if args.publishers != 1 || args.burst != 1 || args.publish_url.is_some() || args.on_open.is_some() {
        return Err(invalid("--publishers, --burst, --publish-url and --on-open are for --load fanout"));
    }
    Ok(())
}

fn refuse_what_is_not_built(connect: &ConnectArgs) -> io::Result<()> {
    if connect.deflate {
        return Err(invalid("--deflate is not built yet: leave it out, and messages travel uncompressed"));
    }
    if connect.tls_ca.is_some() || connect.tls_insecure {
        return Err(invalid("TLS is not built yet: leave --tls-ca and --tls-insecure out and take a ws:// URL"));
    }
    Ok(())
}

/// Whether a request can be made of the flags at all.
fn check_request(url: &Target, connect: &ConnectArgs) -> io::Result<()> {
    let Some(path) = &url.path else { return Ok(()) };
    let protocols: Vec<&str> = connect.protocol.iter().map(String::as_str).collect();
    let headers: Vec<(&str, &str)> = connect.header.iter().map(|(name, value)| (&**name, &**value)).collect();
    let request =
        ClientRequest { host: &url.authority, target: path, key: [0; 16], protocols: &protocols, headers: &headers };
    request
        .encode(&mut Vec::new())
        .map(drop)
        .map_err(|_| invalid("the URL, a --header or a --protocol has characters that must not stand in a request"))
}

/// io_uring if it can be had and is not forbidden by a flag, else epoll.
fn driver(kind: DriverKind) -> io::Result<DriverKind> {
    match kind {
        DriverKind::Epoll => Ok(DriverKind::Epoll),
        DriverKind::Uring => probe_uring(false).map(|()| DriverKind::Uring),
        DriverKind::Auto => Ok(match probe_uring(false) {
            Ok(()) => DriverKind::Uring,
            Err(error) => {
                eprintln!("ringload: runs on epoll, because io_uring is refused: {error}");
                DriverKind::Epoll
            }
        }),
    }
}

pub(crate) fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.to_owned())
}

/// What this machine is.
pub(crate) fn machine() -> model::Machine {
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let cpuinfo = line("/proc/cpuinfo");
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model::Machine {
        kernel: line("/proc/sys/kernel/osrelease"),
        cpu: cpu.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
    }
}
