//! Patterns of topics: names with wildcards, and the tree that finds those which match a topic.
//!
//! The wildcards are MQTT's (OASIS MQTT 3.1.1 §4.7). Levels are separated by `/`. A level that is exactly `+` matches
//! any one level, an empty one too; a last level that is exactly `#` matches its parent and all that lies below. A
//! level that only contains one of them (`c++`, `#general`) is ordinary text.
//!
//! ```text
//!  root ── a ─┬─ + ── c         hash of a:      a/#
//!             │                 exact of c:     a/+/c
//!             └─ b ── +         exact of b's +: a/b/+
//! ```
//!
//! The ways from all nodes lie in one hash map: a map for each node would cost more than the node. A level that a
//! pattern shares with no other costs 32 bytes as a node and 33 in the map, a level of text that text as well; both
//! tables double when they are full, so they may hold 2 and 2.3 times as much. `#` is no node of its own. With a
//! pattern go the levels that it alone had, with the last pattern all memory.
//!
//! A topic of n levels can match 2ⁿ patterns without `#` (each level as it is, or `+`). But the walk visits only nodes
//! that exist, each at most once and with one look into the map: its work is bounded by the nodes of those patterns
//! whose beginning matches, at most 32 for each, whatever else there is and however deep the topic.

use crate::base::limits::{PATTERN_LEVELS_MAX, TOPIC_BYTES_MAX};
use slab::Slab;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Why a name cannot be a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatternError {
    /// A level `#` stands before the last.
    HashNotLast,
    /// It has more than 32 levels.
    TooManyLevels,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HashNotLast => f.write_str("`#` can only be a pattern's last level"),
            Self::TooManyLevels => write!(f, "a pattern has at most {PATTERN_LEVELS_MAX} levels"),
        }
    }
}

impl std::error::Error for PatternError {}

/// Whether any level of a name is a wildcard.
pub(super) fn has_wildcard(name: &str) -> bool {
    name.split('/').any(|level| level == "+" || level == "#")
}

/// Whether a name can be a pattern. One without a wildcard can: it matches itself.
pub(super) fn check(name: &str) -> Result<(), PatternError> {
    if name.split('/').nth(PATTERN_LEVELS_MAX).is_some() {
        return Err(PatternError::TooManyLevels);
    }
    // MQTT 3.1.1 §4.7.1.2: `#` must be the last character.
    if name.split('/').rev().skip(1).any(|level| level == "#") {
        return Err(PatternError::HashNotLast);
    }
    Ok(())
}

/// What stands before a closing level `#`, if anything does, and whether there is one.
fn split_hash(pattern: &str) -> (Option<&str>, bool) {
    match pattern.strip_suffix("/#") {
        Some(parent) => (Some(parent), true),
        None => ((pattern != "#").then_some(pattern), pattern == "#"),
    }
}

/// The levels that are nodes.
fn levels_of(before_hash: Option<&str>) -> impl Iterator<Item = &str> {
    before_hash.into_iter().flat_map(|levels| levels.split('/'))
}

/// The root's place in the slab: it is made first.
const ROOT: u32 = 0;

/// A level of at least one pattern.
#[derive(Debug, Default)]
struct Node {
    /// The pattern that ends here.
    exact: Option<u32>,
    /// The pattern that ends here with a further level `#`.
    hash: Option<u32>,
    /// The node of a further level `+`.
    plus: Option<u32>,
    /// How many further levels of text there are.
    texts: u32,
}

const _: () = assert!(size_of::<Node>() == 28);

impl Node {
    const fn is_bare(&self) -> bool {
        self.exact.is_none() && self.hash.is_none() && self.plus.is_none() && self.texts == 0
    }

    const fn end(&mut self, with_hash: bool) -> &mut Option<u32> {
        if with_hash { &mut self.hash } else { &mut self.exact }
    }
}

/// The way from a node by a level of text.
#[derive(Debug)]
struct Edge {
    from: u32,
    level: Box<str>,
}

const _: () = assert!(size_of::<(Edge, u32)>() == 32);

/// An edge, whether it owns its level or not: a map of owned ones is asked without allocating.
trait AnyEdge {
    fn parts(&self) -> (u32, &str);
}

impl AnyEdge for Edge {
    fn parts(&self) -> (u32, &str) {
        (self.from, &self.level)
    }
}

impl AnyEdge for (u32, &str) {
    fn parts(&self) -> (u32, &str) {
        *self
    }
}

impl Hash for dyn AnyEdge + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn AnyEdge + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn AnyEdge + '_ {}

impl Hash for Edge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for Edge {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Edge {}

impl<'a> Borrow<dyn AnyEdge + 'a> for Edge {
    fn borrow(&self) -> &(dyn AnyEdge + 'a) {
        self
    }
}

/// Patterns, each with the number that its owner gave it.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// Empty, or a tree below [`ROOT`] in which every leaf ends a pattern.
    nodes: Slab<Node>,
    /// Levels come from strangers: the map's hash is keyed.
    edges: HashMap<Edge, u32>,
}

impl Patterns {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of a pattern.
    pub(super) fn get(&self, pattern: &str) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let (before_hash, with_hash) = split_hash(pattern);
        let mut node = ROOT;
        for level in levels_of(before_hash) {
            node = self.child(node, level)?;
        }
        let node = self.node(node);
        if with_hash { node.hash } else { node.exact }
    }

    /// Adds a pattern that passes [`check`] and is not there yet.
    pub(super) fn insert(&mut self, pattern: &str, number: u32) {
        debug_assert!(check(pattern).is_ok() && pattern.len() <= TOPIC_BYTES_MAX, "{pattern:?} was checked");
        if self.is_empty() {
            let root = self.nodes.insert(Node::default());
            assert!(root == ROOT as usize, "a new slab begins at 0");
        }
        let (before_hash, with_hash) = split_hash(pattern);
        let mut node = ROOT;
        for level in levels_of(before_hash) {
            node = self.child(node, level).unwrap_or_else(|| self.add_child(node, level));
        }
        let before = self.nodes[node as usize].end(with_hash).replace(number);
        debug_assert!(before.is_none(), "{pattern:?} was not there");
    }

    /// Removes a pattern, and the nodes that stood there for it alone.
    pub(super) fn remove(&mut self, pattern: &str) -> Option<u32> {
        let (before_hash, with_hash) = split_hash(pattern);
        let mut way = [(ROOT, ""); PATTERN_LEVELS_MAX];
        let mut depth = 0;
        let mut node = ROOT;
        for level in levels_of(before_hash) {
            *way.get_mut(depth)? = (node, level);
            depth += 1;
            node = self.child(node, level)?;
        }
        let number = self.nodes.get_mut(node as usize)?.end(with_hash).take()?;
        for &(parent, level) in way[..depth].iter().rev() {
            if !self.node(node).is_bare() {
                break;
            }
            self.nodes.remove(node as usize);
            self.remove_child(parent, level);
            node = parent;
        }
        if self.node(ROOT).is_bare() {
            // New rather than emptied: memory goes back, and the next root is 0 again.
            *self = Self::default();
        } else if self.edges.len() < self.edges.capacity() / 4 {
            self.edges.shrink_to(self.edges.len() * 2);
        }
        Some(number)
    }

    /// Appends the numbers of all patterns that match a topic. Answers how many nodes were visited.
    pub(super) fn matching(&self, topic: &str, numbers: &mut Vec<u32>) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut levels = [""; PATTERN_LEVELS_MAX];
        let mut rest = topic.split('/');
        let mut depth_max = 0;
        for (place, level) in levels.iter_mut().zip(&mut rest) {
            *place = level;
            depth_max += 1;
        }
        // No node is deeper than the levels kept; what is deeper in the topic can be matched by `#` only.
        let whole = depth_max < PATTERN_LEVELS_MAX || rest.next().is_none();
        // MQTT 3.1.1 §4.7.2: a wildcard in the first level does not match a topic that begins with `$`.
        let hidden = topic.starts_with('$');

        // Depth first: a visit takes one node and adds at most two of the next level, so besides these at most one of
        // each level waits. (Breadth first would visit the same nodes, with queues that may grow to all of them.)
        let mut waiting = [(ROOT, 0); PATTERN_LEVELS_MAX + 1];
        let mut waiting_count = 1;
        let mut visited = 0;
        while waiting_count > 0 {
            visited += 1;
            waiting_count -= 1;
            let (index, depth) = waiting[waiting_count];
            let node = self.node(index);
            let wild = depth > 0 || !hidden;
            numbers.extend(node.hash.filter(|_| wild));
            if depth == depth_max {
                numbers.extend(node.exact.filter(|_| whole));
                continue;
            }
            let level = levels[depth];
            let plus = node.plus.filter(|_| wild);
            // A topic that is published may be long; a level of a pattern is not.
            let text = (node.texts > 0 && level.len() <= TOPIC_BYTES_MAX).then(|| self.text_child(index, level));
            for child in plus.into_iter().chain(text.flatten()) {
                waiting[waiting_count] = (child, depth + 1);
                waiting_count += 1;
            }
        }
        visited
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn child(&self, from: u32, level: &str) -> Option<u32> {
        if level == "+" { self.nodes.get(from as usize)?.plus } else { self.text_child(from, level) }
    }

    fn text_child(&self, from: u32, level: &str) -> Option<u32> {
        self.edges.get(&(from, level) as &dyn AnyEdge).copied()
    }

    fn add_child(&mut self, from: u32, level: &str) -> u32 {
        let child = self.nodes.insert(Node::default()) as u32;
        let parent = &mut self.nodes[from as usize];
        if level == "+" {
            parent.plus = Some(child);
        } else {
            parent.texts += 1;
            self.edges.insert(Edge { from, level: level.into() }, child);
        }
        child
    }

    fn remove_child(&mut self, from: u32, level: &str) {
        let parent = &mut self.nodes[from as usize];
        if level == "+" {
            parent.plus = None;
        } else {
            parent.texts -= 1;
            self.edges.remove(&(from, level) as &dyn AnyEdge);
        }
    }
}

/// Whether a pattern matches a topic, level by level: what the tree is compared with.
#[cfg(test)]
pub(super) fn matches_by_definition(pattern: &str, topic: &str) -> bool {
    let [pattern, levels] = [pattern, topic].map(|name| name.split('/').collect::<Vec<_>>());
    if topic.starts_with('$') && ["+", "#"].contains(&pattern[0]) {
        return false;
    }
    for (index, level) in pattern.iter().enumerate() {
        match (*level, levels.get(index)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (text, Some(level)) if text == *level => {}
            _ => return false,
        }
    }
    pattern.len() == levels.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The matching numbers, in order, and the nodes visited.
    fn walk(patterns: &Patterns, topic: &str) -> (Vec<u32>, usize) {
        let mut numbers = Vec::new();
        let visited = patterns.matching(topic, &mut numbers);
        numbers.sort_unstable();
        (numbers, visited)
    }

    fn assert_empty(patterns: &Patterns) {
        assert!(patterns.is_empty());
        assert_eq!((patterns.nodes.capacity(), patterns.edges.len(), patterns.edges.capacity()), (0, 0, 0));
    }

    #[test]
    fn wildcards_are_whole_levels() {
        for name in ["+", "#", "a/+", "+/a", "a/#", "/+", "+/", "/#", "a/+/b", "#/a", "c++/+", "a//+"] {
            assert!(has_wildcard(name), "{name}");
        }
        for name in ["", "/", "a", "a/b", "c++", "#general", "a/b+", "a/+b", "a#", "a/##", "++", "a/ +", "$a/b"] {
            assert!(!has_wildcard(name), "{name}");
        }
    }

    #[test]
    fn hash_stands_last_and_levels_are_bounded() {
        let levels = |level: &str, count: usize| vec![level; count].join("/");
        let deepest = levels("a", PATTERN_LEVELS_MAX - 1);
        let allowed = ["#", "+", "a", "", "/", "a/#", "+/#", "/#", "#general/+", "a#/#", "+/+/+", "##/#"];
        for name in allowed.into_iter().chain([&*levels("+", PATTERN_LEVELS_MAX), &*format!("{deepest}/#")]) {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["#/", "#/a", "a/#/b", "#/#", "a/#/#", "/#/", "+/#/+"] {
            assert_eq!(check(name), Err(PatternError::HashNotLast), "{name}");
        }
        for name in [levels("+", PATTERN_LEVELS_MAX + 1), format!("{deepest}/+/#"), levels("", 255)] {
            assert_eq!(check(&name), Err(PatternError::TooManyLevels), "{name}");
        }
        assert_eq!(PatternError::TooManyLevels.to_string(), "a pattern has at most 32 levels");
    }

    #[test]
    fn patterns_match_as_mqtt_says() {
        let deep = |level: &str, count: usize| vec![level; count].join("/");
        let (full, over) = (deep("a", PATTERN_LEVELS_MAX), deep("a", PATTERN_LEVELS_MAX + 1));
        let (pluses, hash) = (deep("+", PATTERN_LEVELS_MAX), format!("{}/#", deep("a", PATTERN_LEVELS_MAX - 1)));
        let long = "x".repeat(100_000);
        let rows = [
            // One level.
            ("+", "a", true),
            ("+", "", true),
            ("+", "a/b", false),
            ("+", "/", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("a/+", "b/b", false),
            ("+/b", "a/b", true),
            ("+/b", "/b", true),
            ("+/b", "b", false),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a//c", true),
            ("a/+/c", "a/c", false),
            ("a/+/c", "a/b/d", false),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/+/+", "//", true),
            ("+", &long, true),
            ("a/+", "A/b", false),
            // Any levels.
            ("#", "a", true),
            ("#", "", true),
            ("#", "/", true),
            ("#", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "a/", true),
            ("a/#", "a/b", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("a/#", "", false),
            ("a/#", "/a", false),
            ("/#", "/a", true),
            ("/#", "", true),
            ("/#", "a", false),
            ("+/#", "a", true),
            ("+/#", "a/b/c", true),
            ("+/b/#", "a/b", true),
            ("+/b/#", "a/c", false),
            ("a/+/#", "a", false),
            ("a/+/#", "a/", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            // Topics that begin with `$`.
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("+", "$", false),
            ("+/#", "$SYS", false),
            ("$SYS/#", "$SYS/a", true),
            ("$SYS/+", "$SYS/a", true),
            ("$SYS/#", "$SYS", true),
            ("a/+", "a/$b", true),
            ("a/#", "a/$b", true),
            ("#", "/$a", true),
            // Wildcards that are none.
            ("c++/+", "c++/x", true),
            ("c++/+", "cxx/x", false),
            ("#general/+", "#general/x", true),
            ("#general/+", "general/x", false),
            ("a+/#", "a+", true),
            ("a+/#", "ab", false),
            // Topics that look like patterns.
            ("+/b", "+/b", true),
            ("a/#", "a/#", true),
            ("a/+", "a/#", true),
            ("a/b", "a/+", false),
            // As deep as it goes, and deeper.
            (&pluses, &full, true),
            (&full, &full, true),
            (&pluses, &over, false),
            (&full, &over, false),
            (&hash, &full, true),
            (&hash, &over, true),
            ("a/#", &over, true),
        ];
        let mut all = Patterns::default();
        let mut numbers = BTreeMap::new();
        for (pattern, topic, matches) in rows {
            assert_eq!(matches_by_definition(pattern, topic), matches, "{pattern} {topic}");
            let mut alone = Patterns::default();
            alone.insert(pattern, 7);
            assert_eq!((alone.get(pattern), alone.get(topic)), (Some(7), (pattern == topic).then_some(7)));
            assert_eq!(walk(&alone, topic).0, [7].repeat(usize::from(matches)), "{pattern} {topic}");
            assert_eq!(alone.remove(pattern), Some(7));
            assert_empty(&alone);
            if all.get(pattern).is_none() {
                all.insert(pattern, numbers.len() as u32);
                numbers.insert(pattern, numbers.len() as u32);
            }
        }
        for (_, topic, _) in rows {
            let matching = numbers.iter().filter(|(pattern, _)| matches_by_definition(pattern, topic));
            let mut expected: Vec<_> = matching.map(|(_, number)| *number).collect();
            expected.sort_unstable();
            assert_eq!(walk(&all, topic).0, expected, "{topic}");
        }
    }

    #[test]
    fn the_tree_agrees_with_the_definition() {
        let seed = 0x5eed_0002_u64;
        println!("seed {seed:#x}");
        let mut random = Random(seed);
        let mut patterns = Patterns::default();
        let mut there = BTreeMap::new();
        for round in 0..10_000 {
            let pattern = random.name(&["a", "b", "", "$", "+", "+", "#", "c++"], 5);
            if check(&pattern).is_ok() {
                match there.remove(&pattern) {
                    Some(number) => assert_eq!(patterns.remove(&pattern), Some(number)),
                    None => {
                        patterns.insert(&pattern, round);
                        there.insert(pattern.clone(), round);
                    }
                }
                assert_eq!(patterns.get(&pattern), there.get(&pattern).copied());
            }
            let topic = random.name(&["a", "b", "", "$", "c++", "+", "d"], 6);
            let matching = there.iter().filter(|(pattern, _)| matches_by_definition(pattern, &topic));
            let mut expected: Vec<_> = matching.map(|(_, number)| *number).collect();
            expected.sort_unstable();
            let (numbers, visited) = walk(&patterns, &topic);
            assert_eq!(numbers, expected, "{topic} in {there:?}");
            assert!(visited <= patterns.nodes.len());
            // From many to none and back.
            if round % 2_500 == 2_499 {
                for (pattern, number) in std::mem::take(&mut there) {
                    assert_eq!(patterns.remove(&pattern), Some(number));
                    assert_eq!(patterns.remove(&pattern), None);
                }
                assert_empty(&patterns);
            }
        }
    }

    #[test]
    fn nodes_stand_only_for_patterns() {
        let mut patterns = Patterns::default();
        let mut nodes = Vec::new();
        for (number, pattern) in ["a/b/c/+", "a/b/#", "a/+", "a/b", "#"].iter().enumerate() {
            patterns.insert(pattern, number as u32);
            nodes.push(patterns.nodes.len());
        }
        assert_eq!(nodes, [5, 5, 6, 6, 6]);
        let removed = ["a/b/c/+", "a/+", "a/b/#", "a/b", "#"].map(|pattern| {
            assert!(patterns.remove(pattern).is_some());
            (patterns.nodes.len(), patterns.edges.len())
        });
        assert_eq!(removed, [(4, 2), (3, 2), (3, 2), (1, 0), (0, 0)]);
        assert_empty(&patterns);
        assert_eq!(["a", "#", "+", "a/+", "a/#"].map(|pattern| patterns.remove(pattern)), [None; 5]);
    }

    /// What strangers may subscribe to so that a publish has much to do: it never visits more than there is.
    #[test]
    fn hostile_patterns_cost_what_they_are() {
        const COUNT: usize = 10_000;
        let deep = vec!["a"; 1_000].join("/");
        let full = vec!["a"; PATTERN_LEVELS_MAX].join("/");
        // Every mixture of `a` and `+` on the first 14 levels, then `tail`: all begin as the topic does.
        let mixture = |number: usize, tail: &str| {
            let levels = (0..14).rev().map(|bit| if number >> bit & 1 == 0 { "+" } else { "a" });
            levels.chain([tail]).collect::<Vec<_>>().join("/")
        };
        let rest = vec!["a"; PATTERN_LEVELS_MAX - 14].join("/");
        type Shape<'a> = (&'a str, Box<dyn Fn(usize) -> String + 'a>, usize, usize);
        let shapes: [Shape<'_>; 4] = [
            // Ways of pluses that part only at the end: the shared nodes and one look for the last level.
            ("common way", Box::new(|number| format!("{}/{number}", vec!["+"; 31].join("/"))), 32, 32),
            // Of all roots only one matches.
            ("other roots", Box::new(|number| format!("{number}/+/+/+/+/#")), 1, 1),
            // All match at first: each node once, the shared ones too. A tree of 2¹⁴ ways has fewer than 2¹⁵ nodes.
            ("mixtures", Box::new(|number| mixture(number, "x")), 2 * COUNT + 32, 2 * COUNT + 32),
            ("deep mixtures", Box::new(|number| mixture(number, &rest)), 32 * COUNT, 32 * COUNT),
        ];
        for (shape, pattern, of_deep, of_full) in shapes {
            let mut patterns = Patterns::default();
            for number in 0..COUNT {
                patterns.insert(&pattern(number), number as u32);
            }
            for (topic, visited_max) in [(&deep, of_deep), (&full, of_full)] {
                let (numbers, visited) = walk(&patterns, topic);
                println!("{shape}: {visited} of {} nodes visited, {} match", patterns.nodes.len(), numbers.len());
                assert!(visited <= visited_max.min(patterns.nodes.len()), "{shape}: {visited}");
                let expected = if shape == "deep mixtures" && topic == &full { COUNT } else { 0 };
                assert_eq!(numbers.len(), expected, "{shape}");
            }
            for number in 0..COUNT {
                assert_eq!(patterns.remove(&pattern(number)), Some(number as u32));
            }
            assert_empty(&patterns);
        }
    }

    #[test]
    fn memory_of_patterns_is_bounded_by_their_levels() {
        /// As the slab keeps it.
        #[allow(dead_code, reason = "only its size is asked for")]
        enum Slot {
            Vacant(usize),
            Occupied(Node),
        }
        assert_eq!(size_of::<Slot>(), 32);
        let mut patterns = Patterns::default();
        let pattern = |number: usize| format!("{number}/{number}/{number}/+");
        for number in 0..20_000 {
            patterns.insert(&pattern(number), number as u32);
        }
        assert_eq!((patterns.nodes.len(), patterns.edges.len()), (80_001, 60_000));
        // A map holds 7 entries in 8 places of 33 bytes.
        let bytes = patterns.nodes.capacity() * size_of::<Slot>() + patterns.edges.capacity() * 8 / 7 * 33;
        println!("{} bytes a level", bytes / 80_000);
        assert!(bytes <= 80_001 * 2 * 32 + 60_000 * 33 * 16 / 7, "{bytes}");
        for number in 0..19_990 {
            assert!(patterns.remove(&pattern(number)).is_some());
        }
        assert!(patterns.edges.capacity() <= 30 * 4, "{}", patterns.edges.capacity());
        for number in 19_990..20_000 {
            assert!(patterns.remove(&pattern(number)).is_some());
        }
        assert_empty(&patterns);
    }

    /// Knuth's linear congruential generator: the high bits are random enough for names.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % end
        }

        fn name(&mut self, levels: &[&str], count_max: usize) -> String {
            let count = 1 + self.below(count_max);
            (0..count).map(|_| levels[self.below(levels.len())]).collect::<Vec<_>>().join("/")
        }
    }
}
