//! The server's binary as whoever runs it meets it: a process with flags, signals, an exit code, standard error, and
//! what it says on plain paths.
//!
//! | file | promises |
//! |---|---|
//! | `flags` | what is wrong is said, with exit code 2; what flags change is seen on the wire |
//! | `drivers` | io_uring, or epoll where that is refused |
//! | `doctor` | `ringwave doctor` judges this host; `sysctl/` is what its table says |
//! | `metrics` | `/metrics` counts what happened; `/readyz` |
//! | `drain` | SIGTERM: goodbyes, what is delivered before them, exit codes |
//! | `log` | a line is an event, and nobody waits for its reader |

#[path = "../support/mod.rs"]
mod support;

mod doctor;
mod drain;
mod drivers;
mod flags;
mod log;
mod metrics;
mod process;
