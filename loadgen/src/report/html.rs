//! The report as one page: no script, no network, no file beside it.
//!
//! The style stands in `page.html`. All text goes through [`escaped`]: URL, command and labels come from outside.

use super::figure::{self, Figure};
use super::model::{Held, Report, Run};
use super::plot::{self, Style, css, escaped};
use super::quantity::{bytes, count, duration, rate};
use super::rows::{self, Cells, Fact, Grid};
use std::fmt::Write;

const PAGE: &str = include_str!("page.html");
const TITLE: &str = "{{title}}";
const BODY: &str = "{{body}}";

pub(crate) fn page(report: &Report) -> String {
    let title = escaped(&format!("{} {}", report.scenario, report.url));
    // The body last: what stands in it is not filled again.
    PAGE.replace(TITLE, &title).replacen(BODY, &body(report), 1)
}

fn body(report: &Report) -> String {
    let mut body = header(report);
    body += &alarms(report);
    body += &tiles(report);
    if let Some(note) = rows::latency_note(report) {
        body += &paragraph(note);
    }
    if !report.runs.is_empty() {
        body += &section("Runs", &grid(&rows::latencies(report)));
    }
    let figures: String = figure::figures(report).iter().map(figure).collect();
    if !figures.is_empty() {
        body += &format!("<div class=figures>{figures}</div>\n");
    }
    let answers = rows::answers(report);
    if !answers.is_empty() {
        body += &section("Answers", &facts(&answers));
    }
    let assertions = rows::assertions(report);
    if !assertions.is_empty() {
        body += &section("Assertions", &facts(&assertions));
    }
    if let Some(costs) = rows::costs(report) {
        body += &section("Cost of the server", &(grid(&costs) + &paragraph(&rows::costs_note(report))));
    }
    if let Some(aside) = rows::not_the_servers(report) {
        body += &section("Where the client was the limit", &grid(&aside));
    }
    if !report.runs.is_empty() {
        body += &section("Cost of the client", &grid(&rows::client(report)));
        body += &section("All percentiles", &grid(&rows::percentiles(report)));
    }
    body + &section("Setup", &setup(report))
}

fn header(report: &Report) -> String {
    let verdict = rows::verdict(report);
    let class = if verdict.alarm { "verdict alarm" } else { "verdict" };
    format!(
        "<header><h1>{} <span class=url>{}</span></h1>\n<p class=muted>{}, ringload {}</p>\n<p class='{class}'>{}</p>\
         </header>\n",
        escaped(&report.scenario),
        escaped(&report.url),
        escaped(&report.started),
        escaped(&report.ringload),
        escaped(&verdict.text)
    )
}

/// What a reader must know before any figure.
fn alarms(report: &Report) -> String {
    let facts = [rows::limits(report), rows::failures(report)].into_iter().flatten().map(|fact| fact.text);
    let texts = facts.chain(report.troubles.iter().cloned());
    let list: String = texts.map(|text| format!("<li>{}</li>\n", escaped(&text))).collect();
    if list.is_empty() { list } else { format!("<ul class=alarms>\n{list}</ul>\n") }
}

/// The headline: of a single run that was the server's, of connections that were held, or of a search.
fn tiles(report: &Report) -> String {
    let figures = match (report.runs.as_slice(), &report.found, &report.held) {
        (_, Some(found), _) if report.scenario != "ramp" && !rows::found_is_limited(report, found) => {
            found.rate_per_s.map(|found| ("highest rate that kept it".to_owned(), rate(found))).into_iter().collect()
        }
        (_, _, Some(held)) => held_headline(held),
        ([run], None, None) if run.client.limit.is_none() => headline(report, run),
        _ => Vec::new(),
    };
    let tile = |(name, value): &(String, String)| {
        format!("<div class=tile><span>{}</span><b>{}</b></div>\n", escaped(name), escaped(value))
    };
    let tiles: String = figures.iter().map(tile).collect();
    if tiles.is_empty() { tiles } else { format!("<div class=tiles>\n{tiles}</div>\n") }
}

fn held_headline(held: &Held) -> Vec<(String, String)> {
    let mut figures = vec![
        ("connections held".to_owned(), count(held.connections)),
        ("answered at the end".to_owned(), count(held.answered)),
    ];
    let each = held.server_bytes_per_connection_held;
    figures.extend(each.map(|each| ("of the server's memory each".to_owned(), bytes(each))));
    figures
}

fn headline(report: &Report, run: &Run) -> Vec<(String, String)> {
    let latency = &run.latency;
    let mut figures = vec![(format!("{}/s", rows::noun(&report.scenario)), rate(run.received_per_s))];
    if latency.count > 0 {
        let times =
            [("p50", latency.p50_ns), ("p99", latency.p99_ns), ("p99.9", latency.p999_ns), ("max", latency.max_ns)];
        figures.extend(times.map(|(name, nanos)| (name.to_owned(), duration(nanos as f64))));
    }
    if let Some(per_cpu) = run.server.as_ref().and_then(|server| server.messages_per_cpu_s) {
        figures.push(("per CPU-second of the server".to_owned(), rate(per_cpu)));
    }
    figures.push(("errors".to_owned(), count(rows::errors(run))));
    figures
}

fn figure(figure: &Figure) -> String {
    let mut html = format!("<figure><figcaption>{}</figcaption>\n", escaped(&figure.title));
    html += &plot::svg(&figure.title, &figure.plot);
    let named: Vec<_> = figure.plot.lines.iter().filter(|line| !line.name.is_empty()).collect();
    if named.len() > 1 {
        html += "<ul class=legend>";
        for line in named {
            let class = if line.style == Style::Dashed { "dashed" } else { "solid" };
            write!(html, "<li><i class={class} style='color:{}'></i>{}</li>", css(line.colour), escaped(&line.name))
                .expect("a string takes any text");
        }
        html += "</ul>\n";
    }
    if let Some(note) = &figure.note {
        html += &paragraph(note);
    }
    html + "</figure>\n"
}

fn setup(report: &Report) -> String {
    let machine = &report.machine;
    let mut rows = facts(&rows::setup(report));
    let cores = format!("{} cores", machine.cores);
    let linux = format!("Linux {}", machine.kernel);
    let machine = [machine.cpu.clone(), cores, linux, format!("TCP {}", machine.congestion_control)];
    // The kernel names no CPU on every architecture.
    let machine = machine.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join(", ");
    let warm_up = duration(report.setup.warm_up_s * 1e9);
    for (name, text) in [("machine", machine), ("warm-up", warm_up)] {
        rows += &format!("<dl><dt>{name}</dt><dd>{}</dd></dl>\n", escaped(&text));
    }
    let words: Vec<String> = report.command.iter().map(|word| shell_word(word)).collect();
    rows + &format!("<pre>{}</pre>\n", escaped(&words.join(" ")))
}

/// As a shell reads it back.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn section(title: &str, content: &str) -> String {
    format!("<section><h2>{}</h2>\n{content}</section>\n", escaped(title))
}

fn paragraph(text: &str) -> String {
    format!("<p class=note>{}</p>\n", escaped(text))
}

fn facts(facts: &[Fact]) -> String {
    let row = |fact: &Fact| {
        let class = if fact.alarm { " class=alarm" } else { "" };
        format!("<dl{class}><dt>{}</dt><dd>{}</dd></dl>\n", escaped(fact.name), escaped(&fact.text))
    };
    facts.iter().map(row).collect()
}

fn grid(grid: &Grid) -> String {
    let head: String = grid.head.iter().map(|name| format!("<th scope=col>{}</th>", escaped(name))).collect();
    let mut rows = String::new();
    for row in &grid.rows {
        let cells: String = match &row.cells {
            Cells::Figures(cells) => cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect(),
            Cells::Said(text) => format!("<td class=said colspan={}>{}</td>", grid.head.len() - 1, escaped(text)),
        };
        rows += &format!("<tr><th scope=row>{}</th>{cells}</tr>\n", escaped(&row.label));
    }
    format!("<div class=scroll><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, Shape};

    #[test]
    fn nothing_from_outside_is_markup() {
        let (mut report, _) = sample::full();
        let evil = "<script>alert('\"1&2\"')</script>{{body}}{{title}}";
        report.url = evil.to_owned();
        report.scenario = evil.to_owned();
        report.started = evil.to_owned();
        report.ringload = evil.to_owned();
        report.command = vec![evil.to_owned()];
        report.troubles = vec![evil.to_owned()];
        report.machine.cpu = evil.to_owned();
        report.machine.kernel = evil.to_owned();
        report.machine.congestion_control = evil.to_owned();
        report.setup.more.insert(evil.to_owned(), evil.to_owned());
        report.setup.kind = evil.to_owned();
        report.assertions[0].text = evil.to_owned();
        for run in &mut report.runs {
            run.label = evil.to_owned();
            run.client.limit = Some(evil.to_owned());
            run.errors.insert(evil.to_owned(), 1);
        }
        if let Some(found) = &mut report.found {
            found.reason = evil.to_owned();
            found.promise = evil.to_owned();
        }
        let page = page(&report);
        assert!(!page.contains("<script"), "markup came through");
        assert!(page.contains("&lt;script&gt;"));
        // A title that holds the name of the body's place must not take the body in.
        assert_eq!(page.matches("<header>").count(), 1);
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page(&sample::full().0);
        for word in ["<script", "<link", "@import", "url(", "src=", "href="] {
            assert!(!page.contains(word), "{word}");
        }
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http:") && !outside.contains("https:"));
    }

    #[test]
    fn the_headline_is_missing_where_the_client_was_the_limit() {
        let page_of = |limit| {
            let shape = Shape { seconds: 1, limit, ..Shape::default() };
            page(&sample::report("echo", &[sample::run(shape)]))
        };
        assert!(page_of(None).contains("<div class=tiles>"));
        let limited = page_of(Some("its busiest thread was full"));
        assert!(!limited.contains("<div class=tiles>"));
        assert!(limited.contains("the client was the limit: its busiest thread was full"));
    }

    #[test]
    fn a_report_of_nothing_is_a_page() {
        let mut report = sample::report("idle", &[sample::run(Shape { seconds: 0, ..Shape::default() })]);
        assert!(!page(&report).contains("<svg"));
        report.runs.clear();
        assert!(page(&report).ends_with("</html>\n"));
    }

    #[test]
    fn the_neutral_colours_of_the_plots_are_known_to_the_style() {
        for colour in plot::NEUTRAL {
            let name = css(colour).to_uppercase();
            assert!(PAGE.contains(&format!("\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn a_command_can_be_given_to_a_shell_again() {
        for (word, text) in [("-c", "-c"), ("ws://a:1/b", "ws://a:1/b"), ("p99<5ms", "'p99<5ms'"), ("", "''")] {
            assert_eq!(shell_word(word), text);
        }
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }
}
