//! What io_uring can do here, one feature at a time, each by doing it.
//!
//! [`probe_uring`] decides whether the driver serves; this tells somebody who wants to know why, and what else there is.

use super::buf_ring::{Pool, PoolConfig, Pools};
use super::probe::{probe_uring, try_uring};
use super::ring::{Ring, RingConfig};
use super::system_ring::{SystemRing, build, check_features, check_operations};
use io_uring::IoUring;
use std::io;

/// What io_uring can do on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringSurvey {
    /// Why the driver does not serve, in the words of [`probe_uring`]; `None` if it does.
    pub refusal: Option<String>,
    /// What the kernel said to the plainest set-up there is; `None` if it agreed.
    pub setup_refusal: Option<io::ErrorKind>,
    /// What the driver uses, from what a ring begins with to what serves a connection.
    pub features: Vec<UringFeature>,
}

/// Something that the driver uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringFeature {
    /// What the kernel calls it.
    pub name: &'static str,
    /// The first version of Linux that has it.
    pub since: &'static str,
    /// Whether the driver does not serve without it.
    pub is_needed: bool,
    /// What the driver has of it.
    pub purpose: &'static str,
    /// Whether it is here.
    pub state: FeatureState,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureState {
    /// It was used.
    Works,
    /// It was refused, with these words.
    Missing(String),
    /// It was not tried, because something that it takes is missing.
    Untried,
}

impl FeatureState {
    fn of<T>(result: io::Result<T>) -> Self {
        result.map_or_else(|error| Self::Missing(error.to_string()), |_| Self::Works)
    }
}

/// Tries each feature. Cost: as [`probe_uring`], twice, and a few rings.
pub fn survey_uring() -> UringSurvey {
    let refusal = probe_uring(false).err().map(|error| error.to_string());
    // On a thread of its own, as the probe.
    let survey = std::thread::Builder::new().name("survey".to_owned()).spawn(survey_rings);
    let (setup_refusal, mut features) =
        survey.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| (None, Vec::new()));
    features.extend(survey_serving());
    UringSurvey { refusal, setup_refusal, features }
}

/// A ring that costs nothing.
const SMALL: RingConfig =
    RingConfig { submissions: 2, completions: 4, slots: 2, standard: SMALL_POOL, bulk: SMALL_POOL };
const SMALL_POOL: PoolConfig = PoolConfig { count: 2, bytes_each: 512 };

fn survey_rings() -> (Option<io::ErrorKind>, Vec<UringFeature>) {
    let plain = IoUring::new(SMALL.submissions);
    let setup_refusal = plain.as_ref().err().map(io::Error::kind);
    let on_plain = |try_it: &dyn Fn(&IoUring) -> io::Result<()>| {
        plain.as_ref().map_or(FeatureState::Untried, |ring| FeatureState::of(try_it(ring)))
    };
    let on_any = |state| if plain.is_ok() { state } else { FeatureState::Untried };
    let buffers = |ring: &IoUring| {
        let buffers = Pools::new(SMALL.standard, SMALL.bulk)?;
        buffers.register(&ring.submitter())?;
        // The ring gives up the buffers before they are unmapped.
        Pool::ALL.into_iter().try_for_each(|pool| ring.submitter().unregister_buf_ring(pool as u16))
    };
    let feature = |name, since, is_needed, purpose, state| UringFeature { name, since, is_needed, purpose, state };
    let features = vec![
        feature(
            "io_uring_setup",
            "5.1",
            true,
            "a ring",
            plain.as_ref().map_or_else(|error| FeatureState::Missing(error.to_string()), |_| FeatureState::Works),
        ),
        feature(
            "SUBMIT_STABLE, EXT_ARG",
            "5.11",
            true,
            "one system call a turn, with its timeout",
            on_plain(&check_features),
        ),
        feature("operations", "5.11", true, "accept, receive, send, cancel, close, poll", on_plain(&check_operations)),
        feature(
            "direct descriptors",
            "5.19",
            true,
            "connections that RLIMIT_NOFILE does not count",
            on_plain(&|ring| ring.submitter().register_files_sparse(SMALL.slots)),
        ),
        feature("provided buffers", "5.19", true, "idle connections without a receive buffer", on_plain(&buffers)),
        feature(
            "SINGLE_ISSUER, DEFER_TASKRUN",
            "6.1",
            true,
            "completions when the shard asks for them",
            on_any(FeatureState::of(build(SMALL.submissions, SMALL.completions, false))),
        ),
        feature(
            "FILE_ALLOC_RANGE",
            "6.0",
            false,
            "slots of a table kept together",
            on_any(match SystemRing::new(&SMALL, false) {
                Ok(mut ring) => FeatureState::of(ring.limit_slots(1)),
                Err(_) => FeatureState::Untried,
            }),
        ),
        feature(
            "NO_SQARRAY",
            "6.6",
            false,
            "submissions without an indirection",
            on_any(FeatureState::of(build(SMALL.submissions, SMALL.completions, true))),
        ),
    ];
    (setup_refusal, features)
}

/// What only a connection shows.
fn survey_serving() -> [UringFeature; 2] {
    let (multishot, address) = match try_uring(true) {
        Ok(Some(served)) if served.has_peer => (FeatureState::Works, FeatureState::Works),
        Ok(Some(_)) => (FeatureState::Works, FeatureState::Missing("the kernel did not tell the address".to_owned())),
        Ok(None) | Err(_) => (FeatureState::Untried, FeatureState::Untried),
    };
    [
        UringFeature {
            name: "multishot accept and receive",
            since: "6.0",
            is_needed: true,
            purpose: "a connection accepted, read and answered through the driver",
            state: multishot,
        },
        UringFeature {
            name: "socket options by command",
            since: "6.7",
            is_needed: false,
            purpose: "the address of a peer, and limits by address",
            state: address,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_serves_has_all_that_is_needed() {
        let survey = survey_uring();
        assert_eq!(survey.features.len(), 10);
        if survey.refusal.is_none() {
            assert_eq!(survey.setup_refusal, None);
            let missing = |feature: &&UringFeature| feature.is_needed && feature.state != FeatureState::Works;
            assert_eq!(survey.features.iter().find(missing), None);
        }
    }
}
