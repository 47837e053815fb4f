//! The server as its users meet it: the library over loopback sockets, one file for each thing that it promises.
//!
//! | file | promises |
//! |---|---|
//! | `handshake` | upgrades accepted and refused |
//! | `requests` | plain HTTP on the same port |
//! | `memory` | the bound of all sessions together, and who pays for it |
//! | `messages` | what is sent comes back whole and in order, however it was cut |
//! | `fragments` | messages sent in fragments, and what stands between and behind them |
//! | `chunks` | messages handed out as they come |
//! | `ending` | how sessions end, and that the application hears of it once, with the cause |
//! | `ended` | what is known of each end |
//! | `deadlines` | handshake, idle, ping and close timeouts |
//! | `causes` | ends that come together: which one counts, and which code |
//! | `clocks` | pings, round trips, lifetimes; durations of any length |
//! | `draining` | ends in order |
//! | `stuck` | sockets that get stuck, in every state |
//! | `suspended` | time in which the process did not run |
//! | `traces` | the same input, the same calls of the application, on whichever driver |
//! | `topics` | publishing within a shard, across shards, and from other threads |
//! | `wildcards` | subscriptions to patterns of topics |
//! | `pressure` | peers that do not read |
//! | `panics` | a handler that panics costs one session |
//! | `policies` | messages for sessions that do not keep up: dropped, replaced, counted |
//! | `producers` | whoever fills a queue with `Policy::PauseProducer` waits for it |
//! | `reception` | sessions that are not read from for a while |
//! | `limits` | as many sessions as there may be, and as fast |
//! | `rates` | as many messages and bytes as there may be |
//! | `leaks` | nothing is left of sessions, however they ended |
//! | `lifetime` | start and shutdown |

#[path = "../support/mod.rs"]
mod support;

mod causes;
mod chunks;
mod clocks;
mod deadlines;
mod draining;
mod ended;
mod ending;
mod fragments;
mod handshake;
mod leaks;
mod lifetime;
mod limits;
mod memory;
mod messages;
mod panics;
mod policies;
mod pressure;
mod producers;
mod rates;
mod reception;
mod requests;
mod stalls;
mod stuck;
mod suspended;
mod topics;
mod traces;
mod wildcards;
