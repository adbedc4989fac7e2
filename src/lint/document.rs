//! kratos.yml as a tree: each value knows its keys, its file and its position. Several files are layered as Kratos does.

use crate::base::diagnostics::Position;
use crate::config::tree::{self, Entry};

/// A position in one of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The index of the file in the report.
    pub file: usize,
    /// The position in this file.
    pub at: Position,
}

/// A value, its keys and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// The keys that lead to the value: `selfservice.flows.login`.
    pub path: String,
    /// The place of the value; of a section or a list, the place of its key.
    pub place: Place,
    /// The content.
    pub kind: Kind,
}

/// The content of a value.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A text, or a number as written.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// An empty section.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            path: String::new(),
            place: Place::default(),
            kind: Kind::Map(Vec::new()),
        }
    }

    /// Converts the tree of a file.
    #[must_use]
    pub fn of_file(file: usize, root: &tree::Node) -> Self {
        Self::convert(file, String::new(), root.at, root)
    }

    fn convert(file: usize, path: String, key: Position, node: &tree::Node) -> Self {
        let (at, kind) = match &node.kind {
            tree::Kind::Null => (key, Kind::Null),
            tree::Kind::Bool(truth) => (node.at, Kind::Bool(*truth)),
            tree::Kind::Number(_, written) => (node.at, Kind::Text(written.clone())),
            tree::Kind::Text { text, .. } => (node.at, Kind::Text(text.clone())),
            tree::Kind::List(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    Self::convert(file, format!("{path}[{index}]"), item.at, item)
                });
                (key, Kind::List(items.collect()))
            }
            tree::Kind::Map(entries) => {
                let entries = merged(entries).into_iter().map(|entry| {
                    let inner = tree::join(&path, &entry.key);
                    let value = Self::convert(file, inner, entry.at, &entry.value);
                    (entry.key.clone(), value)
                });
                (key, Kind::Map(entries.collect()))
            }
        };
        Self {
            path,
            place: Place { file, at },
            kind,
        }
    }

    /// Puts another file over this one: sections are merged, everything else is replaced, lists included.
    pub fn layer(&mut self, over: Self) {
        match (&mut self.kind, over.kind) {
            (Kind::Map(entries), Kind::Map(others)) => {
                for (key, other) in others {
                    match entries.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, value)) => value.layer(other),
                        None => entries.push((key, other)),
                    }
                }
            }
            (_, kind) => {
                self.kind = kind;
                self.place = over.place;
            }
        }
    }

    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let mut entries = self.entries().iter();
        entries
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Returns the value at the end of these keys.
    #[must_use]
    pub fn find(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Returns the value at the end of as many of these keys as exist.
    #[must_use]
    pub fn nearest(&self, keys: &[&str]) -> &Self {
        let mut node = self;
        for key in keys {
            match node.get(key) {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node
    }

    /// Returns the keys and values of a section, or none for another kind.
    #[must_use]
    pub fn entries(&self) -> &[(String, Self)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the entries of a list, or none for another kind.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the text at the end of these keys.
    #[must_use]
    pub fn text_at(&self, keys: &[&str]) -> Option<&str> {
        self.find(keys).and_then(Self::text)
    }

    /// Returns `true` or `false` at the end of these keys.
    #[must_use]
    pub fn bool_at(&self, keys: &[&str]) -> Option<bool> {
        match self.find(keys)?.kind {
            Kind::Bool(truth) => Some(truth),
            _ => None,
        }
    }
}

/// Returns the entries of a section, with those of its YAML merge keys (`<<`) behind its own.
fn merged(entries: &[Entry]) -> Vec<&Entry> {
    let (merges, own): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.key == "<<");
    let mut all = own;
    for merge in merges {
        let sections: Vec<&tree::Node> = match &merge.value.kind {
            tree::Kind::List(items) => items.iter().collect(),
            _ => vec![&merge.value],
        };
        for entry in sections.into_iter().flat_map(|node| merged(node.entries())) {
            if !all.iter().any(|known| known.key == entry.key) {
                all.push(entry);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: usize, text: &str) -> Node {
        let mut problems = Vec::new();
        let root = tree::read(text, &mut problems).expect("YAML");
        assert!(problems.is_empty(), "{problems:?}");
        Node::of_file(file, &root)
    }

    #[test]
    fn a_second_file_replaces_lists_and_merges_sections() {
        let mut node = read(0, "a: {b: 1, c: [x, y]}\nd: true\n");
        node.layer(read(1, "a:\n  c: [z]\n  e: 2\n"));
        assert_eq!(node.text_at(&["a", "b"]), Some("1"));
        let list = node.find(&["a", "c"]).expect("a list");
        assert_eq!(list.items().len(), 1);
        assert_eq!((list.place.file, list.place.at.line), (1, 2));
        assert_eq!(list.items()[0].path, "a.c[0]");
        assert_eq!(node.text_at(&["a", "e"]), Some("2"));
        assert_eq!(node.bool_at(&["d"]), Some(true));
    }

    #[test]
    fn a_merge_key_adds_what_the_section_lacks() {
        let node = read(
            0,
            "one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\nthree: {<<: [*one]}\n",
        );
        assert_eq!(node.text_at(&["two", "a"]), Some("1"));
        assert_eq!(node.text_at(&["two", "b"]), Some("3"));
        assert_eq!(node.text_at(&["three", "b"]), Some("2"));
    }

    #[test]
    fn a_section_has_the_place_of_its_key() {
        let node = read(0, "a:\n  b:\n    c: 1\n");
        let line = |keys: &[&str]| node.nearest(keys).place.at.line;
        assert_eq!(line(&["a", "b"]), 2);
        assert_eq!(line(&["a", "b", "c"]), 3);
        assert_eq!(line(&["a", "b", "x", "y"]), 2);
    }
}
