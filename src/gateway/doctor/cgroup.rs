//! What control groups leave this process: memory and processor time, in version 2 and in version 1.
//!
//! A limit of any group above counts as well, so all of them are looked at, up to the root that is mounted here.

use super::host::{Proc, Read};

/// What the group with the least room leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryLimit {
    /// The file that sets it.
    pub(super) file: String,
    pub(super) limit: u64,
    /// What is in use, without file pages that the kernel gives back when it needs them.
    pub(super) used: u64,
}

impl MemoryLimit {
    pub(super) const fn room(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// Processor time that the group with the least of it has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CpuQuota {
    pub(super) file: String,
    /// Cores, as a fraction.
    pub(super) cores: f64,
}

/// No limit, as version 1 writes it: the largest number of pages, in bytes.
const NO_LIMIT: u64 = i64::MAX as u64 / 65_536 * 65_536;

/// How a version names things.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: file pages that are not in use.
    inactive: &'static str,
}

const VERSION_2: Names = Names { limit: "memory.max", used: "memory.current", inactive: "inactive_file" };
/// Above this the kernel holds processes back until they are below it.
const VERSION_2_HIGH: Names = Names { limit: "memory.high", ..VERSION_2 };
const VERSION_1: Names =
    Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", inactive: "total_inactive_file" };

/// The least room of all groups that this process is in.
pub(super) fn memory_limit(proc: &Proc<'_>) -> Read<Option<MemoryLimit>> {
    let hierarchies = Hierarchies::read(proc)?;
    let mut least: Option<MemoryLimit> = None;
    for (controller, names) in [(None, &VERSION_2), (None, &VERSION_2_HIGH), (Some("memory"), &VERSION_1)] {
        for folder in hierarchies.folders(controller) {
            let file = format!("{folder}/{}", names.limit);
            // The root has none, and "max" is no number: neither limits.
            let Ok(limit) = proc.parsed::<u64>(&file) else { continue };
            if limit >= NO_LIMIT {
                continue;
            }
            let used = proc.parsed::<u64>(&format!("{folder}/{}", names.used))?;
            let inactive =
                proc.field(&format!("{folder}/memory.stat"), &format!("{} ", names.inactive), 0).unwrap_or(0);
            let found = MemoryLimit { file: format!("/{file}"), limit, used: used.saturating_sub(inactive) };
            if least.as_ref().is_none_or(|least| found.room() < least.room()) {
                least = Some(found);
            }
        }
    }
    Ok(least)
}

/// The smallest quota of all groups that this process is in.
pub(super) fn cpu_quota(proc: &Proc<'_>) -> Read<Option<CpuQuota>> {
    let hierarchies = Hierarchies::read(proc)?;
    let mut quotas = Vec::new();
    for folder in hierarchies.folders(None) {
        let file = format!("{folder}/cpu.max");
        let (Ok(quota), Ok(period)) = (proc.field(&file, "", 0), proc.field(&file, "", 1)) else { continue };
        quotas.push((file, quota, period));
    }
    for folder in hierarchies.folders(Some("cpu")) {
        let file = format!("{folder}/cpu.cfs_quota_us");
        // -1 is none.
        let Ok(quota) = proc.parsed::<u64>(&file) else { continue };
        let Ok(period) = proc.parsed::<u64>(&format!("{folder}/cpu.cfs_period_us")) else { continue };
        quotas.push((file, quota, period));
    }
    let quotas = quotas.into_iter().filter(|(_, _, period)| *period > 0);
    let quotas =
        quotas.map(|(file, quota, period)| CpuQuota { file: format!("/{file}"), cores: quota as f64 / period as f64 });
    Ok(quotas.min_by(|a, b| a.cores.total_cmp(&b.cores)))
}

/// Where this process stands.
struct Hierarchies {
    groups: String,
    mounts: String,
}

impl Hierarchies {
    fn read(proc: &Proc<'_>) -> Read<Self> {
        Ok(Self { groups: proc.text("proc/self/cgroup")?, mounts: proc.text("proc/self/mountinfo")? })
    }

    /// The folders of this process's group and of all above it, as far as they are mounted; `None` asks for version 2.
    fn folders(&self, controller: Option<&str>) -> Vec<String> {
        let (Some(group), Some((root, mount))) = (self.group(controller), self.mount(controller)) else {
            return Vec::new();
        };
        let group = group.trim_matches('/');
        let root = root.trim_matches('/');
        // A group that is not below what is mounted is not to be seen from here; then what is mounted is ours.
        let below = match group.strip_prefix(root) {
            Some(below) if below.is_empty() || root.is_empty() || below.starts_with('/') => below.trim_matches('/'),
            _ => "",
        };
        let mount = mount.trim_matches('/');
        let mut folders = vec![mount.to_owned()];
        let mut folder = mount.to_owned();
        for part in below.split('/').filter(|part| !part.is_empty() && *part != "..") {
            folder = format!("{folder}/{part}");
            folders.push(folder.clone());
        }
        folders
    }

    /// `0::/a/b`, or `4:memory:/a/b`.
    fn group(&self, controller: Option<&str>) -> Option<&str> {
        self.groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let is_it = match controller {
                None => number == "0" && controllers.is_empty(),
                Some(name) => controllers.split(',').any(|other| other == name),
            };
            is_it.then_some(path)
        })
    }

    /// The root and the place of a mount: `35 31 0:32 ROOT PLACE rw … - cgroup cgroup rw,memory`.
    fn mount(&self, controller: Option<&str>) -> Option<(&str, &str)> {
        self.mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (root, place) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            let (kind, options) = (right.next()?, right.nth(1)?);
            let is_it = match controller {
                None => kind == "cgroup2",
                Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
            };
            is_it.then_some((root, place))
        })
    }
}
