//! The settings file as a tree with positions. A YAML reader that fills structures stops at the first error;
//! with a tree, every problem can be found.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

use crate::base::diagnostics::{Position, Problem, quoted};

/// The maximum depth. Settings need less, and this depth does not exhaust the stack.
const MAX_DEPTH: usize = 64;
/// The maximum number of values. Settings need fewer, but aliases can multiply the values of a file.
const MAX_NODES: usize = 200_000;

/// A value and its position.
#[derive(Clone, Debug)]
pub struct Node {
    /// The position of the beginning.
    pub at: Position,
    /// The kind and the content of the value.
    pub kind: Kind,
    /// The operator's text, if the value was inserted from elsewhere. Inserted values are never shown.
    pub written: Option<String>,
}

/// The kind and the content of a value.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, and its text.
    Number(Number, String),
    /// A text.
    Text {
        /// The text.
        text: String,
        /// Whether it is quoted.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in order.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The position of the key.
    pub at: Position,
    /// The value.
    pub value: Node,
}

impl Node {
    pub(super) fn new(at: Position, kind: Kind) -> Self {
        Self {
            at,
            kind,
            written: None,
        }
    }

    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }

    /// Returns the entries of a map, or none for another kind.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Converts the node to JSON, without positions.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(truth) => Value::Bool(*truth),
            Kind::Number(number, _) => Value::Number(number.clone()),
            Kind::Text { text, .. } => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Node::to_value).collect(),
            Kind::Map(entries) => {
                let pairs = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// Describes the node, for "found …".
    #[must_use]
    pub fn describe(&self) -> String {
        if let Some(written) = &self.written {
            return format!("the value of `{written}`");
        }
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(truth) => format!("`{truth}`"),
            Kind::Number(_, written) => format!("the number `{written}`"),
            Kind::Text { text, .. } if text.chars().count() <= 40 && !text.contains('\n') => {
                format!("the text `{text}`")
            }
            Kind::Text { .. } => "a text".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a section of keys".to_owned(),
        }
    }
}

/// A container that is not yet closed.
struct Open {
    at: Position,
    anchor: usize,
    kind: OpenKind,
    path: String,
}

enum OpenKind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// A map. The inner `None` is the place of a key that is not a text; that key is reported as a problem.
        key: Option<(Option<String>, Position)>,
    },
}

struct Builder<'a> {
    problems: &'a mut Vec<Problem>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

/// Parses YAML, and adds problems to `problems`. Returns `None` if the file cannot be checked further.
pub fn read(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut builder = Builder {
        problems,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        documents: 0,
    };
    let lines: Vec<&str> = text.lines().collect();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                let at = Position {
                    line: span.start.line(),
                    column: span.start.col() + 1,
                };
                if !builder.take(event, at) {
                    return None;
                }
            }
            Err(error) => {
                let mark = error.marker();
                let at = Position {
                    line: mark.line().max(1),
                    column: mark.col() + 1,
                };
                let line = lines.get(at.line - 1).copied().unwrap_or_default();
                let (message, hint) = syntax(error.info(), line, at.column);
                let path = builder.path();
                builder
                    .problems
                    .push(Problem::new(path, at, message).with_hint(hint));
                return None;
            }
        }
    }
    let root = builder.root.filter(|root| !matches!(root.kind, Kind::Null));
    if root.is_none() {
        // A file that was truncated or never written would admit every sign-up.
        let hint =
            "vestibule.example.yaml shows every key; `{}` means no checks and no subscriptions";
        let problem = Problem::new(
            String::new(),
            Position::default(),
            "the file is empty".to_owned(),
        );
        problems.push(problem.with_hint(Some(hint.to_owned())));
    }
    root
}

/// Explains common mistakes in YAML.
fn syntax(info: &str, line: &str, column: usize) -> (String, Option<String>) {
    let before: String = line.chars().take(column - 1).collect();
    let rest: String = line.chars().skip(column - 1).collect();
    let trap = rest
        .chars()
        .next()
        .filter(|first| "!&*%@`|>".contains(*first));
    let is_about_quotes = ["after double-quoted scalar", "unknown escape character"]
        .iter()
        .any(|part| info.contains(part));
    let hint = match trap {
        _ if is_about_quotes => Some(
            "put the expression into single quotes, in which YAML changes neither `\"` nor `\\`: 'value == \"NL\"'"
                .to_owned(),
        ),
        Some(first) => {
            let value = rest
                .split([',', '}', ']', '#'])
                .next()
                .unwrap_or_default()
                .trim_end();
            Some(format!(
                "`{first}` at the beginning of a value has a meaning in YAML; quote the value: {}",
                quoted(value)
            ))
        }
        // `{get: http://host/{value}}`, `{port: ${env:PORT}}`
        None if rest.starts_with('{') && begun(&before).is_some() => {
            let end = rest
                .find('}')
                .and_then(|close| Some(close + 1 + rest[close + 1..].find([',', '}', ']'])?));
            let value = format!(
                "{}{}",
                begun(&before).unwrap_or_default(),
                &rest[..end.unwrap_or(rest.len())]
            );
            Some(format!(
                "quote a value that contains `{{`: {}",
                quoted(value.trim_end())
            ))
        }
        None if info.starts_with("mapping values are not allowed") => {
            let value = line.split_once(": ").map(|(_, value)| value.trim());
            value
                .filter(|value| !value.starts_with(['"', '\'', '{', '[']))
                .map(|value| format!("quote a value that contains `:`: {}", quoted(value)))
        }
        None if line
            .trim_end()
            .chars()
            .take_while(|character| character.is_whitespace())
            .any(|character| character == '\t') =>
        {
            Some("indent with spaces, not with tabs".to_owned())
        }
        None if rest.starts_with(": ") && before.contains(": ") => {
            Some("quote a value that contains `: `".to_owned())
        }
        None if info.contains("flow") => {
            Some("is a `}`, a `]` or a comma missing in or above this line?".to_owned())
        }
        None => None,
    };
    (format!("this is not YAML: {info}"), hint)
}

/// Returns the beginning of an unquoted value at the end of this text.
fn begun(before: &str) -> Option<&str> {
    let start = before
        .rfind([' ', '{', '[', ','])
        .map_or(0, |last| last + 1);
    let value = &before[start..];
    (!value.is_empty() && !value.ends_with(':') && !value.starts_with(['"', '\''])).then_some(value)
}

impl Builder<'_> {
    /// Processes an event. Returns `false` if the rest of the file cannot be read.
    fn take(&mut self, event: Event<'_>, at: Position) -> bool {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problems.push(
                        Problem::new(
                            String::new(),
                            at,
                            "a second document begins here".to_owned(),
                        )
                        .with_hint(Some("remove the line `---`".to_owned())),
                    );
                    return false;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = self.scalar(&text, style, anchor, tag.as_deref(), at);
                return self.place(Node::new(at, kind), anchor);
            }
            Event::SequenceStart(anchor, tag) => {
                self.tagged(tag.as_deref(), "", at);
                return self.begin(at, anchor, OpenKind::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.tagged(tag.as_deref(), "", at);
                return self.begin(
                    at,
                    anchor,
                    OpenKind::Map {
                        entries: Vec::new(),
                        key: None,
                    },
                );
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let kind = match open.kind {
                        OpenKind::List(items) => Kind::List(items),
                        OpenKind::Map { entries, .. } => Kind::Map(entries),
                    };
                    return self.place(Node::new(open.at, kind), open.anchor);
                }
            }
            Event::Alias(anchor) => {
                let anchored = self.anchors.get(&anchor);
                let node = Node::new(at, anchored.map_or(Kind::Null, |node| node.kind.clone()));
                self.nodes += size(&node);
                return self.place(node, 0);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        true
    }

    fn begin(&mut self, at: Position, anchor: usize, kind: OpenKind) -> bool {
        let path = self.path();
        if self.open.len() >= MAX_DEPTH {
            self.problems.push(Problem::new(
                path,
                at,
                format!("nested more than {MAX_DEPTH} levels deep"),
            ));
            return false;
        }
        self.open.push(Open {
            at,
            anchor,
            kind,
            path,
        });
        true
    }

    fn place(&mut self, node: Node, anchor: usize) -> bool {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let path = self.path();
            self.problems.push(Problem::new(
                path,
                node.at,
                format!("the file has more than {MAX_NODES} values"),
            ));
            return false;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let path = self.path();
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, key }) => match key.take() {
                Some((None, _)) => {}
                Some((Some(key), at)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let message =
                            format!("`{key}` is set twice, first in line {}", first.at.line);
                        self.problems.push(Problem::new(path, at, message));
                    } else {
                        entries.push(Entry {
                            key,
                            at,
                            value: node,
                        });
                    }
                }
                None => {
                    if let Some(text) = key_text(&node) {
                        *key = Some((Some(text), node.at));
                    } else {
                        let message = format!("a key must be a text, this is {}", node.describe());
                        let hint = "if this is a text with an `{expression}`, quote it".to_owned();
                        self.problems
                            .push(Problem::new(path, node.at, message).with_hint(Some(hint)));
                        *key = Some((None, node.at));
                    }
                }
            },
        }
        true
    }

    /// Returns the path of the current position.
    fn path(&self) -> String {
        let Some(open) = self.open.last() else {
            return String::new();
        };
        match &open.kind {
            OpenKind::List(items) => format!("{}[{}]", open.path, items.len()),
            OpenKind::Map {
                key: Some((Some(key), _)),
                ..
            } => join(&open.path, key),
            OpenKind::Map { .. } => open.path.clone(),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: Position,
    ) -> Kind {
        let quoted = style != ScalarStyle::Plain;
        let known = self.tagged(tag, text, at);
        if anchor > 0 && text.is_empty() && !quoted {
            let message = "`&` at the beginning of a value is an anchor in YAML".to_owned();
            let path = self.path();
            self.problems
                .push(Problem::new(path, at, message).with_hint(Some("quote it".to_owned())));
        }
        if quoted || known == Some("str") {
            return Kind::Text {
                text: text.to_owned(),
                quoted: true,
            };
        }
        plain(text)
    }

    /// Reports a tag that YAML does not define: probably the operator meant `!` as "not".
    fn tagged<'t>(&mut self, tag: Option<&'t Tag>, text: &str, at: Position) -> Option<&'t str> {
        let tag = tag?;
        if tag.is_yaml_core_schema() {
            return Some(&tag.suffix);
        }
        let written = format!("{tag} {text}");
        let count = |sign: char| written.matches(sign).count();
        // In braces, YAML ends the value at a comma or a bracket.
        let hint = if count('(') == count(')') && count('"') % 2 == 0 {
            format!("quote it: {}", quoted(written.trim_end()))
        } else {
            "quote the whole value".to_owned()
        };
        let path = self.path();
        self.problems.push(
            Problem::new(
                path,
                at,
                "`!` at the beginning of a value is a tag in YAML".to_owned(),
            )
            .with_hint(Some(hint)),
        );
        None
    }
}

/// Appends `key` to `path`.
#[must_use]
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => {
            1 + entries
                .iter()
                .map(|entry| size(&entry.value))
                .sum::<usize>()
        }
        _ => 1,
    }
}

fn key_text(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text { text, .. } => Some(text.clone()),
        Kind::Number(_, written) => Some(written.clone()),
        Kind::Bool(truth) => Some(truth.to_string()),
        Kind::Null => Some("null".to_owned()),
        Kind::List(_) | Kind::Map(_) => None,
    }
}

/// Returns a value without quotes, by YAML's core schema.
pub(super) fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    let digits = text.trim_start_matches(['-', '+']);
    let number = if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        let unsigned = text.trim_start_matches('+');
        unsigned
            .parse::<i64>()
            .map(Number::from)
            .ok()
            .or_else(|| unsigned.parse::<u64>().map(Number::from).ok())
            .or_else(|| unsigned.parse::<f64>().ok().and_then(Number::from_f64))
    } else {
        None
    };
    match number {
        Some(number) => Kind::Number(number, text.to_owned()),
        None => Kind::Text {
            text: text.to_owned(),
            quoted: false,
        },
    }
}
