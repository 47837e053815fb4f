//! The server as its users meet it: the library over loopback sockets, one file for each thing that it promises.
//!
//! | file | promises |
//! |---|---|
//! | `handshake` | upgrades accepted and refused |
//! | `requests` | plain HTTP on the same port |
//! | `messages` | what is sent comes back whole and in order, however it was cut |
//! | `ending` | how sessions end, and that the application hears of it once, with the cause |
//! | `ended` | what is known of each end |
//! | `deadlines` | handshake, idle, ping and close timeouts |
//! | `causes` | ends that come together: which one counts, and which code |
//! | `clocks` | pings, round trips, lifetimes; durations of any length |
//! | `draining` | ends in order |
//! | `stuck` | sockets that get stuck, in every state |
//! | `suspended` | time in which the process did not run |
//! | `topics` | publishing within a shard, across shards, and from other threads |
//! | `pressure` | peers that do not read |
//! | `panics` | a handler that panics costs one session |
//! | `limits` | as many sessions as there may be, and as fast |
//! | `rates` | as many messages and bytes as there may be |
//! | `leaks` | nothing is left of sessions, however they ended |
//! | `lifetime` | start and shutdown |

#[path = "../support/mod.rs"]
mod support;

mod causes;
mod clocks;
mod deadlines;
mod draining;
mod ended;
mod ending;
mod handshake;
mod leaks;
mod lifetime;
mod limits;
mod messages;
mod panics;
mod pressure;
mod rates;
mod requests;
mod stalls;
mod stuck;
mod suspended;
mod topics;
