//! What `/metrics` says: the shards' counters and a little of the process, as OpenMetrics text (version 1.0.0).
//!
//! Reading stops nobody: shards count in numbers that any thread may read, and whichever shard is asked reads them all.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use ringwave::{Handle, Stats};
use std::fmt;
use std::time::SystemTime;

/// The type of that text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is read at a scrape.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// The server whose shards are asked.
    pub(crate) handle: Handle,
    /// When the process started to serve.
    pub(crate) started: SystemTime,
    /// Lines of the log that could not be written.
    pub(crate) log_lines_lost: u64,
}

impl Scrape {
    /// The whole text. Cost: some 60 lines a shard.
    pub(crate) fn into_text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry).expect("a String takes any text");
        out
    }
}

/// A metric with a sample for each shard, or several that labels tell apart.
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<&'static Unit>,
    kind: MetricType,
    samples: &'static [Sample],
}

/// Labels beside `shard`, and the number.
type Sample = (&'static [(&'static str, &'static str)], fn(&Stats) -> u64);

const fn gauge(name: &'static str, help: &'static str, samples: &'static [Sample]) -> Family {
    Family { name, help, unit: None, kind: MetricType::Gauge, samples }
}

/// The encoder appends `_total`.
const fn counter(name: &'static str, help: &'static str, samples: &'static [Sample]) -> Family {
    Family { name, help, unit: None, kind: MetricType::Counter, samples }
}

/// The encoder appends the unit.
const fn in_bytes(family: Family) -> Family {
    Family { unit: Some(&Unit::Bytes), ..family }
}

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    gauge("ringwave_connections", "Connections, in whatever stage", &[(&[], |s| s.connections)]),
    gauge("ringwave_sessions", "WebSockets", &[(&[], |s| s.sessions)]),
    gauge("ringwave_topics", "Topics that have subscribers in this shard", &[(&[], |s| s.topics)]),
    gauge("ringwave_queues", "Sessions for which something is queued or in flight", &[(&[], |s| s.queues)]),
    in_bytes(gauge("ringwave_memory", "Memory of what is queued and of messages that have not come whole", &[(&[], |s| s.memory_bytes)])),
    gauge("ringwave_timers", "Entries of the timing wheel", &[(&[], |s| s.timers)]),
    gauge("ringwave_draining", "1 once the shard was told to end", &[(&[], |s| s.draining)]),
    counter("ringwave_connections_accepted", "Connections accepted", &[(&[], |s| s.accepted)]),
    counter("ringwave_accept_errors", "Accepts that the system refused", &[(&[], |s| s.accept_errors)]),
    counter("ringwave_sessions_opened", "WebSockets opened", &[(&[], |s| s.opened)]),
    counter("ringwave_sessions_refused", "Upgrades refused: the shard is full, its rate or the address's share is used up", &[
        (&[("reason", "full")], |s| s.refused_full),
        (&[("reason", "rate")], |s| s.refused_rate),
        (&[("reason", "address")], |s| s.refused_address),
    ]),
    counter("ringwave_sessions_ended", "WebSockets ended, by cause", &[
        (&[("cause", "peer_closed")], |s| s.ended_peer_closed),
        (&[("cause", "closed")], |s| s.ended_closed),
        (&[("cause", "peer_gone")], |s| s.ended_peer_gone),
        (&[("cause", "protocol")], |s| s.ended_protocol),
        (&[("cause", "idle_timeout")], |s| s.ended_idle_timeout),
        (&[("cause", "pong_timeout")], |s| s.ended_pong_timeout),
        (&[("cause", "close_timeout")], |s| s.ended_close_timeout),
        (&[("cause", "stalled")], |s| s.ended_stalled),
        (&[("cause", "lifetime_over")], |s| s.ended_lifetime_over),
        (&[("cause", "slow_consumer")], |s| s.ended_slow_consumer),
        (&[("cause", "rate_exceeded")], |s| s.ended_rate_exceeded),
        (&[("cause", "out_of_memory")], |s| s.ended_out_of_memory),
        (&[("cause", "handler_panicked")], |s| s.ended_handler_panicked),
        (&[("cause", "shutdown")], |s| s.ended_shutdown),
    ]),
    counter("ringwave_http_responses", "Requests answered with a status other than 101", &[(&[], |s| s.responses)]),
    counter("ringwave_messages_received", "Messages received", &[(&[], |s| s.messages_received)]),
    counter("ringwave_messages_sent", "Messages taken into send queues, one for each receiver", &[(&[], |s| s.messages_sent)]),
    counter("ringwave_messages_dropped", "Messages dropped: the session closed for it, the new one, an old one, replaced by a newer one, for want of memory", &[
        (&[("via", "send"), ("reason", "close")], |s| s.sends_dropped_close),
        (&[("via", "send"), ("reason", "new")], |s| s.sends_dropped_new),
        (&[("via", "send"), ("reason", "old")], |s| s.sends_dropped_old),
        (&[("via", "send"), ("reason", "conflated")], |s| s.sends_conflated),
        (&[("via", "send"), ("reason", "memory")], |s| s.sends_dropped_memory),
        (&[("via", "publish"), ("reason", "close")], |s| s.publishes_dropped_close),
        (&[("via", "publish"), ("reason", "new")], |s| s.publishes_dropped_new),
        (&[("via", "publish"), ("reason", "old")], |s| s.publishes_dropped_old),
        (&[("via", "publish"), ("reason", "conflated")], |s| s.publishes_conflated),
        (&[("via", "publish"), ("reason", "memory")], |s| s.publishes_dropped_memory),
    ]),
    counter("ringwave_posts_dropped", "Posts for other shards dropped because their mailboxes stayed full", &[(&[], |s| s.posts_dropped)]),
    counter("ringwave_pongs_coalesced", "Pongs that a newer one took the place of", &[(&[], |s| s.pongs_coalesced)]),
    counter("ringwave_producers_paused", "Times that a session was held back for the queues it fills", &[(&[], |s| s.producers_paused)]),
    counter("ringwave_sessions_throttled", "Times that a session sent more than its rates allow", &[(&[], |s| s.sessions_throttled)]),
    in_bytes(counter("ringwave_received", "Received from the network", &[(&[], |s| s.bytes_received)])),
    in_bytes(counter("ringwave_sent", "Handed to the network", &[(&[], |s| s.bytes_sent)])),
    counter("ringwave_handler_panics", "Panics of the handler", &[(&[], |s| s.handler_panics)]),
    counter("ringwave_turns", "Turns of the loop", &[(&[], |s| s.turns)]),
    counter("ringwave_stalls", "Times that the shard did not run when it should have", &[(&[], |s| s.stalls)]),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shards: Vec<(String, Stats)> =
            self.handle.shard_stats().enumerate().map(|(number, stats)| (number.to_string(), stats)).collect();
        for family in FAMILIES {
            encode_family(family, &shards, &mut encoder)?;
        }
        let help = "Lines of the log that could not be written";
        encoder
            .encode_descriptor("ringwave_log_lines_lost", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&self.log_lines_lost, None)?;
        encoder
            .encode_descriptor("ringwave_build", "What is running", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let since_epoch = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        encoder
            .encode_descriptor("process_start_time", "When it started", Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&since_epoch.as_secs_f64())?;
        if let Some(bytes) = resident_bytes() {
            encoder
                .encode_descriptor("process_resident_memory", "Resident memory", Some(&Unit::Bytes), MetricType::Gauge)?
                .encode_gauge(&bytes)?;
        }
        Ok(())
    }
}

fn encode_family(
    family: &Family,
    shards: &[(String, Stats)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let Family { name, help, unit, kind, samples } = family;
    let mut encoder = encoder.encode_descriptor(name, help, *unit, *kind)?;
    for (number, stats) in shards {
        for (more, value) in *samples {
            let labels = [&[("shard", number.as_str())], *more].concat();
            let mut sample = encoder.encode_family(&labels)?;
            match kind {
                MetricType::Counter => sample.encode_counter::<NoLabelSet, _, u64>(&value(stats), None)?,
                _ => sample.encode_gauge(&value(stats))?,
            }
        }
    }
    Ok(())
}

/// From the one file of proc(5) that counts in bytes and not in pages.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kibibytes.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_counter_of_a_shard_is_told_once() {
        let samples = FAMILIES.iter().map(|family| family.samples.len()).sum::<usize>();
        // `messages_dropped` is the sum of ten others.
        assert_eq!(samples, size_of::<Stats>() / size_of::<u64>() - 1);
        let names: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn resident_memory_is_known_here() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 4096));
    }
}
