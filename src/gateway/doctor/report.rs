//! What the doctor says, before it is text or JSON. The names of fields are those of the JSON (`docs/doctor.md`).

use serde::Serialize;

/// Name and version of the JSON's form. It changes when a field goes or means something else.
pub(super) const SCHEMA: &str = "ringwave-doctor/1";

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) version: &'static str,
    /// Whether nothing must be changed: for the target if there is one, else for the server to start at all.
    pub(super) ok: bool,
    /// Idle connections that the host holds now.
    pub(super) connections: u64,
    /// What allows no more.
    pub(super) limit: String,
    /// What to do for more.
    pub(super) raise: Verdict,
    pub(super) target: Option<Verdict>,
    pub(super) classes: Vec<Verdict>,
    pub(super) server: Server,
    pub(super) io_uring: Vec<Feature>,
    pub(super) sysctls: Vec<Row>,
    pub(super) findings: Vec<Finding>,
    /// What could not be read, and so was not judged.
    pub(super) unread: Vec<String>,
}

/// The server that would be started here.
#[derive(Debug, Serialize)]
pub(super) struct Server {
    /// `io_uring` or `epoll`; none if the one that was asked for is not to be had.
    pub(super) driver: Option<&'static str>,
    /// What is wrong with io_uring.
    pub(super) refusal: Option<String>,
    pub(super) shards: u64,
    pub(super) connections_max: u64,
}

/// Whether the host holds so many connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) connections: u64,
    pub(super) holds: bool,
    /// What must be changed.
    pub(super) missing: Vec<Step>,
    /// What could be: it works without, but not as well.
    pub(super) advice: Vec<Step>,
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) subject: String,
    /// Connections that it allows as it is.
    pub(super) allows: Option<u64>,
    /// What to type, if there is a command for it.
    pub(super) command: Option<String>,
    /// Where and as whom, and what else there is.
    pub(super) note: String,
}

/// Something of io_uring.
#[derive(Debug, Serialize)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) since: &'static str,
    pub(super) needed: bool,
    pub(super) purpose: &'static str,
    /// `works`, `missing` or `untried`.
    pub(super) state: &'static str,
    pub(super) error: Option<String>,
}

/// A kernel setting of the table.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) key: &'static str,
    pub(super) current: Option<u64>,
    pub(super) classes: Vec<Cell>,
    pub(super) level: Level,
    /// What is seen, in a few words.
    pub(super) says: String,
    /// Why it, or what is in use of it, could not be read.
    pub(super) unread: Option<String>,
    pub(super) why: &'static str,
    pub(super) step: Option<Step>,
}

/// A kernel setting for one number of connections.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) class: &'static str,
    /// What the table wants; none where the default does.
    pub(super) wanted: Option<u64>,
    pub(super) level: Level,
}

/// Something that was seen.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) section: &'static str,
    pub(super) subject: &'static str,
    pub(super) level: Level,
    pub(super) seen: String,
    /// Connections that it allows, if it bounds them.
    pub(super) allows: Option<u64>,
    pub(super) why: String,
    pub(super) step: Option<Step>,
}

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing to do.
    Ok,
    /// Nothing to do; good to know.
    Note,
    /// It works without, but not as well.
    Advice,
    /// It could not be read, and so was not judged.
    Unread,
    /// It allows fewer connections than were asked for, or than a million if none were.
    Short,
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Advice => "advice",
            Self::Unread => "unread",
            Self::Short => "short",
        }
    }
}
