//! The contract with programs that read the report, held against what is written: `docs/ringload-report.md` names every
//! field, and `docs/ringload-report.schema.json` describes every one and nothing else.
//!
//! The walk over the schema knows the keywords that the schema uses and refuses others. A validator from a registry
//! would bring fifty packages, and would not object to a field that the schema does not know.

use super::sample;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const TEXT: &str = include_str!("../../../docs/ringload-report.md");
const SCHEMA: &str = include_str!("../../../docs/ringload-report.schema.json");
/// What says nothing about a value that this walk could check.
const NOTES: [&str; 7] =
    ["$schema", "$defs", "title", "description", "format", "contentEncoding", "additionalProperties"];

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}

fn full() -> Value {
    serde_json::to_value(sample::full().0).expect("it can be written")
}

/// A report in which all that may be null is.
fn bare() -> Value {
    let (mut report, _) = sample::full();
    (report.held, report.stalled, report.found) = (None, None, None);
    report.setup.arrivals = None;
    report.setup.in_flight = None;
    for run in &mut report.runs {
        run.offered_per_s = None;
        run.client.limit = None;
        run.server = None;
    }
    for assertion in &mut report.assertions {
        assertion.seen = None;
    }
    serde_json::to_value(report).expect("it can be written")
}

/// What a schema has against a value, each with its place.
fn objections(root: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let empty = Map::new();
    let schema = schema.as_object().unwrap_or(&empty);
    for (keyword, of) in schema {
        match keyword.as_str() {
            "$ref" => {
                let name = of.as_str().and_then(|of| of.strip_prefix("#/$defs/")).expect("a definition of this file");
                objections(root, &root["$defs"][name], value, place, found);
            }
            "anyOf" => {
                let fits = |choice: &Value| {
                    let mut against = Vec::new();
                    objections(root, choice, value, place, &mut against);
                    against
                };
                let against: Vec<Vec<String>> = of.as_array().into_iter().flatten().map(fits).collect();
                if !against.iter().any(Vec::is_empty) {
                    found.extend(against.into_iter().flatten());
                }
            }
            "type" => {
                let is = |name: &Value| match name.as_str() {
                    Some("integer") => value.is_u64() || value.is_i64(),
                    Some("number") => value.is_number(),
                    Some("string") => value.is_string(),
                    Some("boolean") => value.is_boolean(),
                    Some("array") => value.is_array(),
                    Some("object") => value.is_object(),
                    Some("null") => value.is_null(),
                    other => panic!("type {other:?}"),
                };
                if !of.as_array().map_or_else(|| is(of), |names| names.iter().any(is)) {
                    found.push(format!("{place} is {value}, not {of}"));
                }
            }
            "const" if of != value => found.push(format!("{place} is {value}, not {of}")),
            "enum" if !of.as_array().is_some_and(|values| values.contains(value)) => {
                found.push(format!("{place} is {value}, none of {of}"));
            }
            "minimum" if value.as_f64().is_some_and(|value| Some(value) < of.as_f64()) => {
                found.push(format!("{place} is {value}, less than {of}"));
            }
            "const" | "enum" | "minimum" => {}
            "required" => {
                let names = of.as_array().into_iter().flatten().filter_map(Value::as_str);
                let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                found.extend(missing.map(|name| format!("{place}.{name} is missing")));
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match of.get(name) {
                        Some(schema) => objections(root, schema, value, &format!("{place}.{name}"), found),
                        None => found.push(format!("{place}.{name} is not described")),
                    }
                }
                let unknown = of.as_object().into_iter().flatten().filter(|(name, _)| value.get(name).is_none());
                found.extend(unknown.map(|(name, _)| format!("{place}.{name} is described and not written")));
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    objections(root, of, value, &format!("{place}[{index}]"), found);
                }
            }
            known if NOTES.contains(&known) => {}
            other => panic!("the walk does not know {other}"),
        }
    }
}

fn against(value: &Value) -> Vec<String> {
    let schema = schema();
    let mut found = Vec::new();
    objections(&schema, &schema, value, "report", &mut found);
    found
}

/// The names of all fields; not those of `more`, which are the scenario's.
fn names(value: &Value, names_found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                names_found.insert(name.clone());
                if name != "more" {
                    names(value, names_found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, names_found)),
        _ => {}
    }
}

#[test]
fn the_document_names_every_field() {
    let mut fields = BTreeSet::new();
    names(&full(), &mut fields);
    assert!(fields.len() > 90, "{} fields", fields.len());
    let missing: Vec<_> = fields.iter().filter(|name| !TEXT.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/ringload-report.md does not name {missing:?}");
}

#[test]
fn the_document_names_every_metric_and_column() {
    for metric in &super::metric::METRICS {
        assert!(TEXT.contains(&format!("`{}`", metric.name)), "{}", metric.name);
    }
    let csv = super::csv::text(&sample::full().0);
    for column in csv.lines().next().expect("a head").split(',') {
        assert!(TEXT.contains(&format!("`{column}`")), "{column}");
    }
}

#[test]
fn a_report_is_what_the_schema_says_and_all_of_it() {
    assert_eq!(against(&full()), [""; 0]);
    assert_eq!(against(&bare()), [""; 0]);
}

#[test]
fn the_walk_objects() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 6] = [
        (|report| report["schema"] = "ringload/2".into(), "report.schema is"),
        (|report| report["ok"] = Value::Null, "report.ok is null"),
        (|report| report["setup"]["loop"] = "half".into(), "report.setup.loop is"),
        (|report| report["runs"][0]["sent"] = (-1).into(), "report.runs[0].sent is -1"),
        (|report| report["runs"][0]["client"]["new"] = 1.into(), "report.runs[0].client.new is not described"),
        (|report| report["connect"]["asked"] = 1.5.into(), "report.connect.asked is 1.5"),
    ];
    for (change, expected) in changes {
        let mut report = full();
        change(&mut report);
        let found = against(&report);
        assert!(found.iter().any(|objection| objection.starts_with(expected)), "{expected}: {found:?}");
    }
    let mut report = full();
    report["runs"][1].as_object_mut().expect("a run").remove("errors");
    assert!(against(&report).contains(&"report.runs[1].errors is missing".to_owned()));
}
