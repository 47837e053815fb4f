//! The server as its users meet it: the library over loopback sockets, one file for each thing that it promises.
//!
//! | file | promises |
//! |---|---|
//! | `handshake` | upgrades accepted and refused |
//! | `requests` | plain HTTP on the same port |
//! | `messages` | what is sent comes back whole and in order, however it was cut |
//! | `fragments` | messages sent in fragments, and what stands between and behind them |
//! | `ending` | how sessions end, and that the application hears of it once, with the cause |
//! | `deadlines` | handshake, idle, ping and close timeouts |
//! | `topics` | publishing within a shard, across shards, and from other threads |
//! | `pressure` | peers that do not read |
//! | `policies` | messages for sessions that do not keep up: dropped, replaced, counted |
//! | `producers` | whoever fills a queue with `Policy::PauseProducer` waits for it |
//! | `reception` | sessions that are not read from for a while |
//! | `lifetime` | start and shutdown |

#[path = "../support/mod.rs"]
mod support;

mod deadlines;
mod ending;
mod fragments;
mod handshake;
mod lifetime;
mod messages;
mod policies;
mod pressure;
mod producers;
mod reception;
mod requests;
mod stalls;
mod topics;
