//! The rules that the sources keep between them, which no compiler knows: who may import whom, where unsafe code may
//! stand, what a file owes its reader.
//!
//! Each rule is a function over a file's path and text that answers what it objects to, and each is shown to object
//! by a test on a text made up for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A room of the library, and the rooms it may import from beside itself. A file stands in the room that its path
/// begins with; [`ROOT`] is `lib.rs` and all that it re-exports.
const ROOMS: [(&str, &[&str]); 8] = [
    ("base", &[]),
    ("protocol", &["base"]),
    ("transport", &["base", "protocol"]),
    ("driver", &["base"]),
    ("shard", &["base", "protocol", "transport", "driver"]),
    ("config", &["base", "protocol", "transport", "driver", "shard", "server", ROOT]),
    ("server", &["base", "protocol", "transport", "driver", "shard", "config", ROOT]),
    (ROOT, &["base", "protocol", "transport", "driver", "shard", "config", "server"]),
];
const ROOT: &str = "lib";

/// What the pure rooms have no business with: the kernel and all ways to it, clocks, threads.
const IMPURE: [&str; 12] = [
    "libc",
    "io_uring",
    "socket2",
    "core_affinity",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
];
/// Rooms, and the names from outside that must not stand in them.
const FOREIGN: [(&str, &[&str]); 4] = [
    ("base", &IMPURE),
    ("protocol", &IMPURE),
    ("transport", &IMPURE),
    ("shard", &["libc", "io_uring", "socket2", "core_affinity", "std::os", "std::time::Instant"]),
];

/// Lines of a file.
const LINES_MAX: usize = 800;

/// What a rule objects to: the line and the reason.
type Objection = (usize, String);

/// A file stands on one floor and imports only from lower ones.
fn upward_imports(path: &str, text: &str) -> Vec<Objection> {
    if outside_library(path) {
        return Vec::new();
    }
    let module = module_of(path);
    let room = module.first().map_or(ROOT, String::as_str);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![(1, format!("`{room}` stands on no floor"))];
    };
    let room_of = |target: &[String]| {
        let first = target.first().map(String::as_str);
        ROOMS.iter().map(|(name, _)| *name).find(|name| Some(*name) == first && *name != ROOT).unwrap_or(ROOT)
    };
    let mut objections = Vec::new();
    for (line, target) in crate_paths(text, &module) {
        let to = room_of(&target);
        if to != room && !allowed.contains(&to) {
            objections.push((line, format!("`{room}` imports `{}` from `{to}`, above it", target.join("::"))));
        }
    }
    objections
}

/// A room names nothing from outside that its floor has no business with.
fn foreign_names(path: &str, text: &str) -> Vec<Objection> {
    let module = if outside_library(path) { Vec::new() } else { module_of(path) };
    let Some((room, names)) = FOREIGN.iter().find(|(room, _)| module.first().is_some_and(|first| first == room)) else {
        return Vec::new();
    };
    let is_at = |path: &[String], name: &&&str| {
        let parts: Vec<&str> = name.split("::").collect();
        path.len() >= parts.len() && path.iter().zip(parts).all(|(part, other)| part == other)
    };
    let found = |(line, path): (usize, Vec<String>)| {
        let name = names.iter().find(|name| is_at(&path, name))?;
        Some((line, format!("`{room}` names `{name}`")))
    };
    let paths = paths_at(&without_tests(tokens_of(text)));
    paths.into_iter().map(|path| (path.line, path.parts)).filter_map(found).collect()
}

/// The binaries use the library as everybody does: by its name, never by taking its files in or by reaching into a
/// shard.
fn around_the_public_api(path: &str, text: &str) -> Vec<Objection> {
    let tokens = tokens_of(text);
    let mut objections = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let next = |offset: usize| tokens.get(index + offset).map_or("", |token| &token.text);
        let is_attribute = index > 1 && tokens[index - 1].text == "[" && tokens[index - 2].text == "#";
        // For the library too: such a file stands on another floor than its path says.
        if (token.text == "path" && is_attribute && next(1) == "=") || (token.text == "include" && next(1) == "!") {
            objections.push((token.line, format!("`{}` takes in a file from elsewhere", token.text)));
        }
        if !outside_library(path) {
            continue;
        }
        if token.text == "mod" && ROOMS.iter().any(|(room, _)| *room == next(1)) && next(2) == ";" {
            objections.push((token.line, format!("`{}` is the library's", next(1))));
        }
    }
    if outside_library(path) {
        let reaches =
            |parts: &[String]| matches!(parts, [library, room, ..] if library == "ringwave" && room == "shard");
        let paths = paths_at(&tokens).into_iter().filter(|path| reaches(&path.parts));
        objections.extend(paths.map(|path| (path.line, "reaches into a shard".to_owned())));
    }
    objections
}

/// Unsafe code stands in the files that `lib.rs` lists, and a file that is listed has some.
fn unsafe_code(path: &str, text: &str, listed: &BTreeSet<String>) -> Vec<Objection> {
    let stands_at: Vec<usize> = tokens_of(text).iter().filter(|t| t.text == "unsafe").map(|t| t.line).collect();
    match (listed.contains(path), stands_at.is_empty()) {
        (true, true) => vec![(1, "is listed in lib.rs but has no unsafe code".to_owned())],
        (false, false) => {
            stands_at.into_iter().map(|line| (line, "unsafe code, not listed in lib.rs".into())).collect()
        }
        _ => Vec::new(),
    }
}

/// The files that the header of `lib.rs` lists: lines of the form `` //! - `path`: reason ``.
fn unsafe_files(lib: &str) -> BTreeSet<String> {
    let line = |line: &str| {
        let (path, reason) = line.strip_prefix("//! - `")?.split_once("`: ")?;
        (path.ends_with(".rs") && !reason.trim().is_empty()).then(|| path.to_owned())
    };
    lib.lines().take_while(|line| line.starts_with("//!")).filter_map(line).collect()
}

/// A file says first what it owns.
fn missing_header(_: &str, text: &str) -> Vec<Objection> {
    let says =
        text.lines().next().and_then(|first| first.strip_prefix("//!")).is_some_and(|says| !says.trim().is_empty());
    if says { Vec::new() } else { vec![(1, "does not begin with `//!` and what it owns".to_owned())] }
}

fn too_long(_: &str, text: &str) -> Vec<Objection> {
    let lines = text.lines().count();
    if lines <= LINES_MAX { Vec::new() } else { vec![(lines, format!("{lines} lines, {LINES_MAX} are the limit"))] }
}

/// `expect` states the invariant, `unwrap` none; tests may.
fn unwraps(path: &str, text: &str) -> Vec<Objection> {
    if path.starts_with("tests/") || path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let tokens = without_tests(tokens_of(text));
    let calls = tokens.windows(3).filter(|t| t[0].text == "." && t[1].text == "unwrap" && t[2].text == "(");
    calls.map(|t| (t[1].line, "unwraps".to_owned())).collect()
}

/// What is to be done is done, or stands where such things are kept.
fn notes_to_self(_: &str, text: &str) -> Vec<Objection> {
    let words = ["TODO", "FIXME"];
    let is_note = |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word));
    let noted = text.lines().enumerate().filter(|(_, line)| is_note(line));
    noted.map(|(index, _)| (index + 1, "a note to ourselves".to_owned())).collect()
}

type Rule<'a> = &'a dyn Fn(&str, &str) -> Vec<Objection>;

/// Applies a rule to the files below `roots`, and fails with all that it objects to.
fn assert_kept(roots: &[&str], extension: &str, rule: Rule) {
    let mut objections = Vec::new();
    let mut files = 0;
    for (path, text) in roots.iter().flat_map(|root| files_below(root, extension)) {
        files += 1;
        objections.extend(rule(&path, &text).iter().map(|(line, reason)| format!("{path}:{line}: {reason}\n")));
    }
    assert!(files > 0, "no file below {roots:?}");
    assert!(objections.is_empty(), "\n{}", objections.concat());
}

/// Paths, relative to the repository's root, and texts of the files whose name ends with `extension`.
fn files_below(root: &str, extension: &str) -> Vec<(String, String)> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder that this checkout does not have yet has no files.
        let Ok(entries) = fs::read_dir(repository.join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.expect("a readable folder");
            let name = entry.file_name().into_string().expect("UTF-8");
            let path = format!("{folder}/{name}");
            if name.starts_with('.') || name == "node_modules" || name == "target" {
                continue;
            }
            if entry.file_type().expect("a file or a folder").is_dir() {
                folders.push(path);
            } else if name.ends_with(extension)
                && let Ok(text) = fs::read_to_string(repository.join(&path))
            {
                files.push((path, text));
            }
        }
    }
    files.sort();
    files
}

const ALL: [&str; 5] = ["src", "loadgen/src", "benches", "examples", "tests"];

#[test]
fn files_import_from_lower_floors_only() {
    assert_kept(&["src"], ".rs", &upward_imports);
}

#[test]
fn rooms_name_nothing_foreign_to_them() {
    assert_kept(&["src"], ".rs", &foreign_names);
}

#[test]
fn binaries_use_the_public_api_only() {
    assert_kept(&["src", "loadgen/src"], ".rs", &around_the_public_api);
}

#[test]
fn unsafe_code_stands_in_the_listed_files_only() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let listed = unsafe_files(&lib);
    let roots = ["src", "loadgen/src", "examples"];
    let there: Vec<String> = roots.iter().flat_map(|root| files_below(root, ".rs")).map(|(path, _)| path).collect();
    assert!(listed.iter().all(|path| there.contains(path)), "lib.rs lists a file that is not there: {listed:?}");
    assert_kept(&roots, ".rs", &|path, text| unsafe_code(path, text, &listed));
}

#[test]
fn files_begin_with_what_they_own() {
    assert_kept(&ALL, ".rs", &missing_header);
}

#[test]
fn files_are_no_longer_than_they_may_be() {
    assert_kept(&ALL, ".rs", &too_long);
}

#[test]
fn nothing_unwraps_outside_tests() {
    assert_kept(&ALL, ".rs", &unwraps);
}

#[test]
fn no_notes_to_self() {
    // This file names the words that it looks for.
    assert_kept(
        &["src", "loadgen/src", "benches", "examples", "tests", "scripts", "sysctl", "docs"],
        "",
        &|path, text| {
            if path == "tests/floors.rs" { Vec::new() } else { notes_to_self(path, text) }
        },
    );
}

/// Whether a file of `src` belongs to the binary, or a file to another package.
fn outside_library(path: &str) -> bool {
    path == "src/main.rs" || path.starts_with("src/gateway/") || !path.starts_with("src/")
}

/// `src/shard/mod.rs` → `shard`; `src/shard/topic.rs` → `shard`, `topic`; `src/lib.rs` → nothing.
fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The paths in `text` that lead into this crate, from its root on, whatever they start with: `crate`, `super`,
/// `self`, or the crate's name.
fn crate_paths(text: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let resolved = |PathAt { line, inner, parts }: PathAt| {
        let mut at = [module, &inner].concat();
        let mut parts = parts.into_iter().peekable();
        match parts.next()?.as_str() {
            "crate" | "ringwave" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            _ => return None,
        }
        while parts.next_if(|part| part == "super").is_some() {
            at.pop();
        }
        at.extend(parts);
        Some((line, at))
    };
    paths_at(&tokens_of(text)).into_iter().filter_map(resolved).collect()
}

/// A path as it is written, and the modules of this file that it is written in.
struct PathAt {
    line: usize,
    inner: Vec<String>,
    parts: Vec<String>,
}

/// Finds paths in `use` declarations, and elsewhere those of two parts and more; groups (`a::{b, c::d}`) are taken apart.
fn paths_at(tokens: &[Token]) -> Vec<PathAt> {
    let mut paths = Vec::new();
    // Names of inline modules, and the depth of braces within each.
    let mut modules: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let text = |index: usize| tokens.get(index).map_or("", |token: &Token| token.text.as_str());
        match token.text.as_str() {
            "mod" if text(index + 2) == "{" => modules.push((text(index + 1).to_owned(), depth + 1)),
            "{" => depth += 1,
            "}" => {
                if modules.last().is_some_and(|(_, inside)| *inside == depth) {
                    modules.pop();
                }
                depth = depth.saturating_sub(1);
            }
            // `pub(in path)` and `pub(crate)` import nothing.
            "(" if index > 0 && text(index - 1) == "pub" => {
                while index < tokens.len() && text(index) != ")" {
                    index += 1;
                }
            }
            name if is_name(name)
                && (text(index + 1) == "::" || matches!(text(index.wrapping_sub(1)), "use" | "crate")) =>
            {
                let inner: Vec<String> = modules.iter().map(|(name, _)| name.clone()).collect();
                let mut found = Vec::new();
                index = path_tree(tokens, index, &[], &mut found);
                paths.extend(found.into_iter().map(|(line, parts)| PathAt { line, inner: inner.clone(), parts }));
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    paths
}

/// Reads one path or group that begins at `index`, and answers where it ends.
fn path_tree(tokens: &[Token], mut index: usize, before: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |token: &Token| token.text.as_str());
    let mut parts = before.to_vec();
    let mut is_self = false;
    let line = tokens[index].line;
    loop {
        match text(index) {
            "{" if !parts.is_empty() => {
                index += 1;
                while !matches!(text(index), "}" | "") {
                    let end = if text(index) == "," { index } else { path_tree(tokens, index, &parts, found) };
                    index = end.max(index + 1);
                }
                return index + 1;
            }
            "*" => {
                found.push((line, parts));
                return index + 1;
            }
            // `a::{self}` is `a`.
            "self" if !before.is_empty() && parts.len() == before.len() => (is_self, index) = (true, index + 1),
            name if is_name(name) => {
                parts.push(name.to_owned());
                index += 1;
            }
            _ => {}
        }
        if text(index) == "::" {
            index += 1;
            if text(index) == "{" || text(index) == "*" || is_name(text(index)) {
                continue;
            }
        }
        if text(index) == "as" {
            index += 2;
        }
        if is_self || parts.len() > before.len() {
            found.push((line, parts));
        }
        return index;
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// A name, a number, `::`, or one other character of code.
struct Token {
    line: usize,
    text: String,
}

/// The code of a Rust file: no comments, no literals.
fn tokens_of(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let (mut line, mut before) = (1, ' ');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for c in without_literals(text).chars() {
        let joins = (is_word(c) && is_word(before)) || (c == ':' && before == ':');
        match tokens.last_mut() {
            Some(last) if joins => last.text.push(c),
            _ if !c.is_whitespace() => tokens.push(Token { line, text: c.to_string() }),
            _ => {}
        }
        line += usize::from(c == '\n');
        before = c;
    }
    tokens
}

/// Comments, strings and characters made blank; line ends stay.
fn without_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut code = String::with_capacity(text.len());
    let mut index = 0;
    while index < chars.len() {
        let after_word = index > 0 && (at(index - 1).is_alphanumeric() || at(index - 1) == '_');
        let end = match at(index) {
            '/' if at(index + 1) == '/' => (index..chars.len()).find(|i| at(*i) == '\n').unwrap_or(chars.len()),
            '/' if at(index + 1) == '*' => end_of_block_comment(&chars, index),
            '"' => end_of_string(&chars, index + 1),
            'r' | 'b' | 'c' if !after_word => end_of_prefixed_string(&chars, index),
            // A character, not a lifetime.
            '\'' if at(index + 1) == '\\' => (index + 3..chars.len()).find(|i| at(*i) == '\'').unwrap_or(index) + 1,
            '\'' if at(index + 2) == '\'' => index + 3,
            _ => index,
        };
        if end == index {
            code.push(at(index));
            index += 1;
        } else {
            code.extend(chars[index..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            index = end;
        }
    }
    code
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut index, mut depth) = (start, 0);
    while index < chars.len() {
        match chars[index..] {
            ['/', '*', ..] => (depth, index) = (depth + 1, index + 2),
            ['*', '/', ..] => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index.min(chars.len())
}

/// From behind the opening quote to behind the closing one.
fn end_of_string(chars: &[char], mut index: usize) -> usize {
    while index < chars.len() {
        match chars[index] {
            '"' => return index + 1,
            '\\' => index += 2,
            _ => index += 1,
        }
    }
    chars.len()
}

/// The end of `b""`, `r""`, `r#""#`, `br""`, `c""` …; `start` itself if none of these begins there.
fn end_of_prefixed_string(chars: &[char], start: usize) -> usize {
    let prefix = chars[start..].iter().take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    let hashes = chars[start + prefix..].iter().take_while(|c| **c == '#').count();
    let quote = start + prefix + hashes;
    if prefix > 2 || chars.get(quote) != Some(&'"') {
        return start;
    }
    if !chars[start..start + prefix].contains(&'r') {
        return if hashes == 0 { end_of_string(chars, quote + 1) } else { start };
    }
    let is_end =
        |index: &usize| chars[*index] == '"' && chars[index + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (quote + 1..chars.len()).find(is_end).map_or(chars.len(), |index| index + 1 + hashes)
}

/// Leaves out what `#[cfg(test)]` and `#[test]` stand before.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let starts = |index: usize, words: &[&str]| {
        words.iter().enumerate().all(|(offset, word)| tokens.get(index + offset).is_some_and(|t| t.text == *word))
    };
    let mut skip = BTreeSet::new();
    for index in 0..tokens.len() {
        let is_test = [
            &["#", "[", "cfg", "(", "test", ")", "]"][..],
            &["#", "[", "cfg", "(", "all", "(", "test"],
            &["#", "[", "test", "]"],
        ];
        if !is_test.iter().any(|words| starts(index, words)) {
            continue;
        }
        // To the end of the item: a semicolon, or the brace that closes its first.
        let mut depth = 0;
        for (end, token) in tokens.iter().enumerate().skip(index) {
            skip.insert(end);
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(token.text.as_str(), "}" | ";") {
                break;
            }
        }
    }
    tokens.into_iter().enumerate().filter(|(index, _)| !skip.contains(index)).map(|(_, token)| token).collect()
}

/// Each rule on texts made up for it: what it objects to, and what it lets pass.
#[cfg(test)]
mod tests {
    use super::*;

    fn lines(objections: &[Objection]) -> Vec<usize> {
        objections.iter().map(|(line, _)| *line).collect()
    }

    #[test]
    fn upward_imports_are_refused() {
        let refused = [
            ("src/base/key.rs", "use crate::protocol::frame::Opcode;"),
            ("src/base/key.rs", "use super::super::driver::Link;"),
            ("src/base/mod.rs", "use super::shard;"),
            ("src/base/mod.rs", "use super::*;"),
            ("src/protocol/frame.rs", "use crate::driver::Buffer;"),
            ("src/protocol/frame.rs", "use crate::{base::limits::Limits, shard::{topic::Topic}};"),
            ("src/protocol/frame.rs", "use crate::Limits;"),
            ("src/protocol/frame.rs", "use crate::*;"),
            ("src/protocol/frame.rs", "use crate as all;"),
            ("src/protocol/frame.rs", "use ringwave::Limits;"),
            ("src/protocol/frame.rs", "fn f() { crate::shard::run() }"),
            ("src/protocol/frame.rs", "fn f() -> super::super::shard::Turn { g() }"),
            ("src/protocol/frame.rs", "mod tests { use super::super::super::driver::Batch; }"),
            (
                "src/protocol/frame.rs",
                "mod tests { mod more { fn f() {} } fn g() { super::super::super::shard::f() } }",
            ),
            ("src/protocol/frame.rs", "fn f() { if a { crate :: shard :: run() } }"),
            ("src/driver/uring.rs", "use crate::protocol::frame::FrameHeader;"),
            ("src/driver/uring.rs", "pub(crate) use crate::shard::Turn;"),
            ("src/transport/tls.rs", "use crate::driver::Link;"),
            ("src/shard/mod.rs", "use crate::server::Server;"),
            ("src/shard/mod.rs", "use crate::config::{self as settings};"),
            ("src/cellar/mod.rs", ""),
            ("src/attic.rs", "use crate::base::key::Key;"),
        ];
        for (path, text) in refused {
            assert_eq!(upward_imports(path, &format!("//! x\n{text}")).len(), 1, "{path}: {text}");
        }
        let two = "use crate::driver::Link;\n\nfn f() { crate::server::g() }";
        assert_eq!(lines(&upward_imports("src/protocol/frame.rs", two)), [1, 3]);

        let allowed = [
            ("src/base/key.rs", "use super::limits::Limits; use std::fmt; use self::inner::X;"),
            ("src/protocol/frame.rs", "use crate::base::limits::{self, Limits}; use super::{mask, super::base};"),
            ("src/protocol/frame.rs", "mod tests { use super::super::close::CloseCode; use super::*; }"),
            ("src/protocol/frame.rs", "pub(in crate::protocol) fn f() {} pub(crate) fn g() {} pub(super) fn h() {}"),
            (
                "src/protocol/frame.rs",
                "// use crate::shard::x;\nfn f() { g(\"crate::shard::x\", 'c', r#\"crate::shard\"#) }",
            ),
            ("src/protocol/frame.rs", "/// See crate::shard::x and `ringwave::Server`.\nfn f<'a>(x: &'a str) {}"),
            ("src/shard/mod.rs", "use crate::{base, driver::{self, Link}, protocol};"),
            ("src/server.rs", "use crate::{Limits, config::Config, shard::Shard};"),
            ("src/lib.rs", "pub use shard::Handler; pub use crate::server::Server;"),
            ("src/main.rs", "use crate::gateway::App; use ringwave::Server;"),
        ];
        for (path, text) in allowed {
            assert_eq!(upward_imports(path, &format!("//! x\n{text}")), [], "{path}: {text}");
        }
    }

    #[test]
    fn foreign_names_are_refused() {
        let refused = [
            ("src/base/clock.rs", "use std::time::{Duration, Instant};"),
            ("src/protocol/frame.rs", "fn f() { std::thread::yield_now() }"),
            ("src/protocol/frame.rs", "use std::{fmt, net::SocketAddr};"),
            ("src/shard/mod.rs", "fn f() { libc::close(3) }"),
            ("src/shard/mod.rs", "use io_uring::IoUring;"),
            ("src/shard/mod.rs", "use libc;"),
        ];
        for (path, text) in refused {
            assert_eq!(foreign_names(path, text).len(), 1, "{path}: {text}");
        }
        for (path, text) in [
            ("src/base/clock.rs", "use std::time::Duration; // std::time::Instant"),
            ("src/base/clock.rs", "#[cfg(test)]\nmod tests { use std::time::Instant; }"),
            ("src/driver/uring.rs", "use io_uring::IoUring; use std::time::Instant; fn f() { libc::close(3) }"),
            ("src/gateway/mod.rs", "use std::fs;"),
        ] {
            assert_eq!(foreign_names(path, text), [], "{path}: {text}");
        }
    }

    #[test]
    fn ways_around_the_public_api_are_refused() {
        let refused = [
            ("src/main.rs", "mod gateway;\nmod shard;"),
            ("src/gateway/mod.rs", "\n#[path = \"../shard/mod.rs\"] mod inner;"),
            ("src/gateway/mod.rs", "\ninclude!(\"../shard/topic.rs\");"),
            ("src/gateway/mod.rs", "\nuse ringwave::shard::topic::Topics;"),
            ("loadgen/src/main.rs", "\nuse ringwave::{shard::topic, Limits};"),
            ("src/protocol/mod.rs", "\n#[path = \"../shard/topic.rs\"] mod topic;"),
        ];
        for (path, text) in refused {
            assert_eq!(lines(&around_the_public_api(path, text)), [2], "{path}: {text}");
        }
        for (path, text) in [
            ("src/main.rs", "mod gateway; use ringwave::{Server, protocol::close::CloseCode};"),
            ("src/gateway/console.rs", "const PAGE: &str = include_str!(\"page.html\"); fn f(path: &str) {}"),
            ("src/lib.rs", "mod shard; mod server;"),
        ] {
            assert_eq!(around_the_public_api(path, text), [], "{path}: {text}");
        }
    }

    #[test]
    fn unsafe_code_is_refused_outside_the_list() {
        let lib = "//! ringwave\n//!\n//! - `src/driver/bank.rs`: the ring\n//! - `src/driver/waker.rs`:\n//! - base\n\
                   pub mod x;\n//! - `src/late.rs`: not in the header";
        let listed = unsafe_files(lib);
        assert_eq!(listed.iter().map(String::as_str).collect::<Vec<_>>(), ["src/driver/bank.rs"]);
        let code = "fn f() {\n    unsafe { g() }\n}";
        assert_eq!(lines(&unsafe_code("src/shard/mod.rs", code, &listed)), [2]);
        assert_eq!(lines(&unsafe_code("src/driver/bank.rs", "fn f() {}", &listed)), [1]);
        assert_eq!(unsafe_code("src/driver/bank.rs", code, &listed), []);
        let words = "//! unsafe\n#![deny(unsafe_code)]\n/* unsafe */ fn f() { g(\"unsafe\") }";
        assert_eq!(unsafe_code("src/shard/mod.rs", words, &listed), []);
    }

    #[test]
    fn files_without_a_header_are_refused() {
        for text in ["", "use std::fmt;", "// Frames.", "\n//! Frames.", "//!", "//! \nfn f() {}"] {
            assert_eq!(missing_header("src/x.rs", text).len(), 1, "{text:?}");
        }
        assert_eq!(missing_header("src/x.rs", "//! Frames.\n"), []);
    }

    #[test]
    fn long_files_are_refused() {
        assert_eq!(too_long("src/x.rs", &"\n".repeat(LINES_MAX)), []);
        assert_eq!(lines(&too_long("src/x.rs", &"\n".repeat(LINES_MAX + 1))), [LINES_MAX + 1]);
    }

    #[test]
    fn unwraps_are_refused_outside_tests() {
        let text =
            "fn f() { a.unwrap() }\n#[cfg(test)]\nmod tests {\n fn g() { b.unwrap() }\n}\nfn h() { c\n.unwrap() }";
        assert_eq!(lines(&unwraps("src/x.rs", text)), [1, 7]);
        for text in [
            "fn f() { a.unwrap_or(0); b.unwrap_or_default(); unwrap(c) } // d.unwrap()",
            "#[test]\nfn f() { a.unwrap() }",
            "#[cfg(all(test, unix))]\nuse x;\n#[cfg(test)]\nfn g() { if a { b.unwrap() } }",
        ] {
            assert_eq!(unwraps("src/x.rs", text), [], "{text}");
        }
        assert_eq!(unwraps("tests/x.rs", "fn f() { a.unwrap() }"), []);
        let after = "#[cfg(test)]\nuse x;\nfn g() { a.unwrap() }";
        assert_eq!(lines(&unwraps("src/x.rs", after)), [3]);
    }

    #[test]
    fn notes_to_self_are_refused() {
        for text in ["\n// TODO: x", "\nlet a = \"FIXME\";", "\n# TODO(me)"] {
            assert_eq!(lines(&notes_to_self("src/x.rs", text)), [2], "{text:?}");
        }
        assert_eq!(notes_to_self("src/x.rs", "// METHODOLOGY, todo!"), []);
    }

    #[test]
    fn literals_are_no_code() {
        for literal in [
            "\"a\\\"b\"",
            "b\"a\"",
            "r\"a\\\"",
            "r##\"a\"#b\"##",
            "br#\"a\"#",
            "c\"a\"",
            "'a'",
            "'\\''",
            "b'\\\\'",
            "/* /* a */ */",
        ] {
            let tokens = tokens_of(&format!("x {literal} y"));
            let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).filter(|text| *text != "b").collect();
            assert_eq!(words, ["x", "y"], "{literal}");
        }
        let tokens = tokens_of("fn f<'a>(b: &'a r#type::X)");
        let words: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(words.concat(), "fnf<'a>(b:&'ar#type::X)");
    }
}
