//! What the server runs on, and that it says so: io_uring, or epoll where that is refused.

use crate::process::{Process, command};
use crate::support::Received;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::collections::BTreeMap;
use std::thread;

/// Calls something on a thread to which the kernel refuses io_uring, with this errno; so it is for whatever is started there.
pub(crate) fn without_io_uring<R: Send>(errno: i32, call: impl FnOnce() -> R + Send) -> R {
    let refuse = || {
        let rules = BTreeMap::from([
            (libc::SYS_io_uring_setup, Vec::new()),
            (libc::SYS_io_uring_enter, Vec::new()),
            (libc::SYS_io_uring_register, Vec::new()),
        ]);
        let arch = std::env::consts::ARCH.try_into().expect("an architecture that has filters");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()), arch);
        let program: BpfProgram = filter.expect("sound rules").try_into().expect("a short program");
        seccompiler::apply_filter(&program).expect("a thread may give up what it can do");
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse();
            call()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn where_io_uring_is_refused_it_runs_on_epoll_and_says_why() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut server = without_io_uring(errno, || Process::start(&["--driver", "auto"]));
        let log = server.log();
        let line = log.find("event=uring_refused");
        assert!(line.contains("level=warn event=uring_refused driver=epoll reason=\"io_uring_setup: "), "{line}");
        let mut client = server.client("/echo");
        client.send("over epoll");
        assert_eq!(client.next(), Received::Text("over epoll".to_owned()));
    }
}

#[test]
fn a_driver_that_is_asked_for_is_had_or_not() {
    let refused = without_io_uring(libc::EPERM, || {
        command(&["--listen", "127.0.0.1:0", "--driver", "uring"]).output().expect("the binary has been built")
    });
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("io_uring is not to be had here (io_uring_setup: "), "{said}");

    let server = Process::start(&["--driver", "epoll"]);
    let mut client = server.client("/echo");
    client.send("asked for");
    assert_eq!(client.next(), Received::Text("asked for".to_owned()));
}
