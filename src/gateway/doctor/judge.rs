//! The judgement: from what was read to what is said. A function of its arguments.

use super::Question;
use super::bounds::{self, Driver, Plan};
use super::findings;
use super::host::Facts;
use super::knowledge::{Class, TABLE_SLOTS_MAX};
use super::report::{Feature, Finding, Level, Report, Row, SCHEMA, Server, Step, Verdict};
use ringwave::DriverChoice;
use ringwave::driver::FeatureState;

/// Judges a host.
pub(super) fn judge(facts: &Facts, question: &Question) -> Report {
    let driver = driver_of(facts, question.driver);
    let plan = Plan {
        // What is said of a server that does not start is said for the driver that it was to have.
        driver: driver.unwrap_or(Driver::Uring),
        shards: if question.shards == 0 { facts.cores.max(1) as u64 } else { u64::from(question.shards) },
        connections_max: u64::from(question.connections_max),
        table: facts.descriptors.as_ref().map_or(TABLE_SLOTS_MAX, |limit| limit.soft),
    };
    let bounds = bounds::bounds(facts, &plan);
    let reference = question.target.unwrap_or(Class::Million.connections());
    let sysctls = findings::sysctls(facts, question.target);
    let findings = findings::all(facts, &plan, &bounds, question.driver, driver, reference);
    let low =
        findings.iter().filter(|finding| finding.level == Level::Advice).filter_map(|finding| finding.step.clone());
    let low_sysctls = sysctls.iter().filter(|row| row.level == Level::Advice).filter_map(|row| row.step.clone());
    let advice: Vec<Step> = low.chain(low_sysctls).collect();
    let judged = Judged { facts, plan: &plan, advice: &advice, starts: driver.is_some() };
    let tightest = bounds.first().expect("the server has a limit of its own");
    let connections = if driver.is_some() { tightest.allows } else { 0 };
    let next = |connections: u64| {
        let class = Class::ALL.into_iter().map(Class::connections).find(|class| *class > connections);
        class.unwrap_or(connections.saturating_mul(2))
    };
    let target = question.target.map(|target| judged.verdict(target));
    let raise = match &target {
        Some(target) if !target.holds => target.clone(),
        _ => judged.verdict(next(connections)),
    };
    Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        ok: target.as_ref().map_or(driver.is_some(), |target| target.holds),
        connections,
        limit: if driver.is_some() { tightest.subject.name() } else { "io_uring" }.to_owned(),
        raise,
        target,
        classes: Class::ALL.into_iter().map(|class| judged.verdict(class.connections())).collect(),
        server: Server {
            driver: driver.map(Driver::name),
            refusal: facts.uring.refusal.clone(),
            shards: plan.shards,
            connections_max: plan.connections_max,
        },
        io_uring: features(facts),
        unread: unread(&findings, &sysctls),
        sysctls,
        findings,
    }
}

/// What the server would run on; none if it would not start.
fn driver_of(facts: &Facts, choice: DriverChoice) -> Option<Driver> {
    match (choice, &facts.uring.refusal) {
        (DriverChoice::Epoll, _) | (DriverChoice::Auto, Some(_)) => Some(Driver::Epoll),
        (DriverChoice::Auto | DriverChoice::Uring, None) => Some(Driver::Uring),
        (DriverChoice::Uring, Some(_)) => None,
    }
}

struct Judged<'a> {
    facts: &'a Facts,
    plan: &'a Plan,
    advice: &'a [Step],
    starts: bool,
}

impl Judged<'_> {
    fn verdict(&self, connections: u64) -> Verdict {
        let mut missing: Vec<Step> = Vec::new();
        if !self.starts {
            missing.extend(findings::allow_uring(self.facts));
        }
        missing.extend(bounds::missing(self.facts, self.plan, connections));
        // What is missing is not advised besides.
        let is_missing = |step: &&Step| missing.iter().any(|other| other.subject == step.subject);
        let advice = self.advice.iter().filter(|step| !is_missing(step)).cloned().collect();
        Verdict { connections, holds: self.starts && missing.is_empty(), missing, advice }
    }
}

fn features(facts: &Facts) -> Vec<Feature> {
    let of = |feature: &ringwave::driver::UringFeature| {
        let (state, error) = match &feature.state {
            FeatureState::Works => ("works", None),
            FeatureState::Missing(error) => ("missing", Some(error.clone())),
            FeatureState::Untried => ("untried", None),
        };
        let (name, since, purpose) = (feature.name, feature.since, feature.purpose);
        Feature { name, since, needed: feature.is_needed, purpose, state, error }
    };
    facts.uring.features.iter().map(of).collect()
}

fn unread(findings: &[Finding], sysctls: &[Row]) -> Vec<String> {
    let of_findings = findings.iter().filter(|finding| finding.level == Level::Unread);
    let of_sysctls = sysctls.iter().filter(|row| row.level == Level::Unread);
    let of_findings = of_findings.map(|finding| format!("{}: {}", finding.subject, finding.seen));
    of_findings
        .chain(of_sysctls.map(|row| format!("{}: {}", row.key, row.unread.as_deref().unwrap_or("it says nothing"))))
        .collect()
}
