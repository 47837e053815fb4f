//! What to do about an error that people meet, in a sentence to stand behind it.

use crate::connections::{ConnectFailure, Gone};
use ringwave::driver::descriptor_limit;
use ringwave::protocol::error::{Failure, ResponseError};
use std::io;

/// About a connection that did not come about.
pub(crate) fn on_connect(failure: &ConnectFailure) -> String {
    match failure {
        ConnectFailure::System(error) => on_system(error),
        ConnectFailure::Handshake(Failure::Response(ResponseError::Status(status))) => on_status(*status).to_owned(),
        ConnectFailure::Handshake(Failure::Response(ResponseError::ProtocolNotOffered)) => {
            ": name the one it wants by --protocol".to_owned()
        }
        ConnectFailure::Handshake(Failure::Response(ResponseError::Malformed(_))) => {
            ": is this a WebSocket server, and does it speak without TLS on this port?".to_owned()
        }
        ConnectFailure::Handshake(_) => ": is there a WebSocket server behind this URL?".to_owned(),
        ConnectFailure::Closed => {
            ": does the port want TLS, does the server limit connections by address, or is it full?".to_owned()
        }
        ConnectFailure::TimedOut => {
            ": is there a WebSocket server behind this URL? More time: --connect-timeout; a gentler start: --connect-rate"
                .to_owned()
        }
    }
}

fn on_status(status: u16) -> &'static str {
    match status {
        404 => ": there is no WebSocket at this path; look at what stands behind the port",
        401 | 403 => ": it wants to know who asks; send what it wants by --header 'Authorization: …' or 'Origin: …'",
        400 | 426 => ": there is no WebSocket at this path, or the server wants a subprotocol (--protocol)",
        429 | 503 => ": the server takes no more; fewer connections (-c) or slower ones (--connect-rate)",
        301..=308 => ": it points elsewhere; give the URL it points to",
        _ => ": there is something else than a WebSocket at this path",
    }
}

fn on_system(error: &io::Error) -> String {
    use io::ErrorKind;
    let advice = match error.kind() {
        ErrorKind::ConnectionRefused => "nothing listens there; start the server, or check address and port",
        ErrorKind::AddrNotAvailable => {
            "no free port is left from this source to this destination, or --source names an address that is not this \
             machine's; give more by --source and --target, or widen net.ipv4.ip_local_port_range"
        }
        ErrorKind::ConnectionReset => {
            "the server dropped it; is it full, or its backlog (net.core.somaxconn)? A gentler start: --connect-rate"
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "the address does not answer; check it, and what lies between"
        }
        ErrorKind::PermissionDenied => "a firewall or a policy forbids it",
        _ => match error.raw_os_error() {
            Some(EMFILE | ENFILE) => {
                return format!(
                    ": out of descriptors, of which the limit allows {}; raise `ulimit -n`, open fewer (-c), or use \
                     io_uring (--driver uring), which needs none",
                    descriptor_limit()
                );
            }
            Some(ENOMEM | ENOBUFS) => "the system is out of memory for sockets; look at net.ipv4.tcp_mem",
            _ => return String::new(),
        },
    };
    format!(": {advice}")
}

/// Error numbers of Linux, which are the same on every architecture (errno(3)).
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

/// About a connection that the server ended.
pub(crate) fn on_end(gone: &Gone) -> &'static str {
    match gone {
        Gone::CloseFrame(Some((code, _))) => match code.number() {
            1001 | 1012 => ": the server is going away",
            1009 => ": the message is longer than the server takes; smaller ones by -s",
            1003 | 1007 => ": the server wants the other kind of messages; --text or --binary",
            1008 => ": the server's policy forbids what we do there",
            1013 => ": the server is overloaded",
            _ => "",
        },
        Gone::Ended(_) => ": the server's log may say why",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_meet_comes_with_what_to_do() {
        for (errno, word) in [(111, "listens"), (99, "--source"), (24, "ulimit"), (23, "ulimit"), (104, "backlog")] {
            let advice = on_connect(&ConnectFailure::System(io::Error::from_raw_os_error(errno)));
            assert!(advice.contains(word), "{errno}: {advice}");
        }
        for (status, word) in [(404, "path"), (403, "--header"), (503, "-c")] {
            let failure = Failure::Response(ResponseError::Status(status));
            assert!(on_connect(&ConnectFailure::Handshake(failure)).contains(word), "{status}");
        }
    }
}
