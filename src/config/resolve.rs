//! Resolves a settings file: looks up names, reads secrets, compiles expressions, and collects every problem.

mod absent;
mod acceptance;
mod admin_access;
mod basics;
mod body_needs;
mod checks;
mod deletions;
pub mod durations;
mod headers;
mod identity_schemas;
mod messages;
mod no_effect;
mod order;
mod paths;
mod requests;
mod rounds;
mod services;
mod subscriptions;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::expand::Expander;
use super::interpolation::{Environment, joined, pieces};
use super::placeholder::{Inserted, Placeholders};
use super::read_file::{MAX_DATA, read_text};
use super::settings::Settings;
use super::tree::{Entry, Kind, Node, join};
use super::{file, renamed, schema, validate};
use crate::base::diagnostics::Position;
use crate::base::diagnostics::{Problem, Problems};
use crate::expression::{CompileError, Expression, Lists, Piece, ReadPath, Scope, Template};
use crate::kratos::Flow;
use crate::kratos::schema::Schemas;
use crate::outbound::services::Service;
use paths::{Place, Use, Write};

/// Reserved words of CEL, which cannot follow `lists.` and `checks.`.
const RESERVED: [&str; 4] = ["false", "in", "null", "true"];

/// A value of the file, and the keys that lead to it.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    node: Option<&'a Node>,
    at: Position,
    path: String,
}

impl<'a> Cursor<'a> {
    fn root(node: &'a Node) -> Self {
        Self {
            node: Some(node),
            at: node.at,
            path: String::new(),
        }
    }

    /// Moves to the value of this key. Without a value, the position is that of the section.
    fn key(&self, key: &str) -> Self {
        let node = self.node.and_then(|node| node.get(key));
        Self {
            node,
            at: node.map_or(self.at, |node| node.at),
            path: join(&self.path, key),
        }
    }

    /// Moves to an item of a list.
    fn item(&self, index: usize) -> Self {
        let node = match self.node.map(|node| &node.kind) {
            Some(Kind::List(items)) => items.get(index),
            _ => None,
        };
        Self {
            node,
            at: node.map_or(self.at, |node| node.at),
            path: format!("{}[{index}]", self.path),
        }
    }

    fn entries(&self) -> &'a [Entry] {
        self.node.map_or(&[], Node::entries)
    }

    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.path.clone(), self.at, message.into())
    }
}

/// Resolves a file section by section, and collects its problems.
pub(super) struct Resolver<'a> {
    root: Cursor<'a>,
    lines: Vec<&'a str>,
    folder: &'a Path,
    environment: &'a Environment,
    problems: Vec<Problem>,
    /// Settings that are valid, but probably a mistake.
    warnings: Vec<Problem>,
    /// The paths of values that are missing in the environment, and have a placeholder.
    placeholders: BTreeSet<String>,
    /// The identity schemas. None if the file names none, or if one of them cannot be read.
    schemas: Arc<Schemas>,
    /// Whether an identity schema cannot be read.
    lacks_a_schema: bool,
    /// The traits that the schemas know as optional.
    optional_paths: Arc<BTreeSet<ReadPath>>,
    /// What the section that is being resolved reads.
    uses: Vec<Use>,
    /// The paths that the section writes.
    writes: Vec<Write>,
    /// Paths of values that do not match the schema and cannot be decoded.
    invalid_paths: Vec<String>,
    services: BTreeMap<String, Service>,
    lists: Arc<Lists>,
    /// Whether `request.client_ip` exists.
    client_ip: bool,
    /// The names in `request.headers`.
    request_headers: Vec<String>,
    /// A key of version 2 of the body that an expression reads.
    body_key: Option<String>,
    /// The flows of each check.
    flows: BTreeMap<String, Vec<Flow>>,
    /// The part of `flow` that a check reads, itself or through another check, and that settings lack.
    registration_data: BTreeMap<String, &'static str>,
    /// The ids of messages.
    numbers: BTreeMap<u32, messages::Numbered>,
}

/// What a file gives: settings unless it has a problem, and every problem and warning.
#[derive(Default)]
pub(super) struct Resolved {
    pub settings: Option<Settings>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

/// Resolves the whole file.
pub(super) fn resolve(
    node: &Node,
    text: &str,
    folder: &Path,
    environment: &Environment,
    problems: Vec<Problem>,
) -> Resolved {
    if !environment.allows_missing() {
        return resolve_with(node, text, folder, environment, problems, 0).0;
    }
    rounds::common(|round| resolve_with(node, text, folder, environment, problems.clone(), round))
}

/// Resolves the file, with one of the choices that missing values have. Also returns how many rounds try all of them.
fn resolve_with(
    node: &Node,
    text: &str,
    folder: &Path,
    environment: &Environment,
    mut problems: Vec<Problem>,
    round: usize,
) -> (Resolved, usize) {
    let schema = schema::of_the_file();
    let mut filled = node.clone();
    let renamed = renamed::rename(&mut filled);
    let mut inserted = Inserted::default();
    if environment.allows_missing() {
        let mut placeholders = Placeholders::new(&schema, environment, &filled, round);
        placeholders.fill(&mut filled, &schema, "");
        inserted = placeholders.inserted;
    }
    let mut filling = Expander {
        root: &schema,
        environment,
        unknown: Vec::new(),
    };
    filling.fill(&mut filled, &schema, "");
    let mut invalid_paths = filling.unknown;
    validate::Validator {
        root: &schema,
        problems: &mut problems,
        unknown: &invalid_paths,
    }
    .check(&filled, &schema, "");
    invalid_paths.extend(problems.iter().map(|problem| problem.path.clone()));
    let mut resolver = Resolver {
        root: Cursor::root(&filled),
        lines: text.lines().collect(),
        folder,
        environment,
        problems,
        warnings: Vec::new(),
        placeholders: inserted.paths,
        schemas: Arc::default(),
        lacks_a_schema: false,
        optional_paths: Arc::default(),
        uses: Vec::new(),
        writes: Vec::new(),
        invalid_paths,
        services: BTreeMap::new(),
        lists: Arc::default(),
        client_ip: false,
        request_headers: Vec::new(),
        body_key: None,
        flows: BTreeMap::new(),
        registration_data: BTreeMap::new(),
        numbers: BTreeMap::new(),
    };
    let root = resolver.root.clone();
    resolver.look_up_everything(&root);
    let settings = resolver.settings();
    resolver.problems.extend(renamed);
    let result = Resolved {
        settings: settings.filter(|_| resolver.problems.is_empty()),
        problems: resolver.problems,
        warnings: resolver.warnings,
    };
    (result, inserted.rounds)
}

impl<'a> Resolver<'a> {
    fn settings(&mut self) -> Option<Settings> {
        let mut basics = self.basics();
        self.client_ip = self.root.key("hooks").key("client_ip").node.is_some();
        self.request_headers = self.known_headers();
        self.lists = Arc::new(self.lists());
        self.named_services();
        let messages = self.messages();
        let checks = self.checks(&messages);
        let subscriptions = self.subscriptions();
        self.order(&checks);
        self.late_refusals(&checks, &subscriptions);
        self.warn_about_checks(&checks);
        basics.hooks.body_needs.key = self.body_key.take();
        Some(Settings {
            hooks_address: basics.hooks_address?,
            admin_address: basics.admin_address?,
            admin_access: basics.admin_access,
            shutdown_delay: basics.shutdown_delay,
            hooks: basics.hooks,
            dsn: basics.dsn?,
            log: basics.log,
            kratos: basics.kratos,
            services: std::mem::take(&mut self.services).into_values().collect(),
            builtin: messages.builtin?,
            lists: Arc::clone(&self.lists),
            checks: checks.into_iter().map(|(check, _)| check).collect(),
            subscriptions,
            reconcile: basics.reconcile,
            retention: basics.retention,
            decisions: basics.decisions,
            warnings: Problems::default(),
        })
    }

    /// Reports every `${…}` that cannot be looked up, also in entries with other problems.
    fn look_up_everything(&mut self, cursor: &Cursor<'a>) {
        match cursor.node.map(|node| &node.kind) {
            // An inserted value can contain anything.
            Some(Kind::Text { text, .. })
                if cursor.node.is_some_and(|node| node.written.is_none()) =>
            {
                if let Err(error) = pieces(text, self.environment)
                    && !(error.is_missing && self.environment.allows_missing())
                {
                    let at = self.inside(cursor, text, error.offset);
                    self.problems.push(
                        Problem::new(cursor.path.clone(), at, error.message).with_hint(error.hint),
                    );
                }
            }
            Some(Kind::List(items)) => {
                for index in 0..items.len() {
                    self.look_up_everything(&cursor.item(index));
                }
            }
            Some(Kind::Map(entries)) => {
                for entry in entries {
                    self.look_up_everything(&cursor.key(&entry.key));
                }
            }
            _ => {}
        }
    }

    /// Decodes a section, unless it has a problem already.
    fn decode<T: DeserializeOwned>(&mut self, cursor: &Cursor<'_>) -> Option<T> {
        let inside = |path: &String| {
            path.strip_prefix(&cursor.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.invalid_paths.iter().any(inside) {
            return None;
        }
        let value = cursor.node.map(Node::to_value).unwrap_or_default();
        // A section without a value is an empty section.
        let value = if value.is_null() {
            serde_json::Value::Object(serde_json::Map::new())
        } else {
            value
        };
        serde_json::from_value(value)
            .map_err(|error| {
                self.problems
                    .push(cursor.problem(format!("cannot decode this value: {error}")));
            })
            .ok()
    }

    fn report(&mut self, cursor: &Cursor<'_>, message: impl Into<String>, hint: Option<String>) {
        let message = self.redact(cursor, message.into());
        let hint = hint.map(|hint| self.redact(cursor, hint));
        self.problems.push(cursor.problem(message).with_hint(hint));
    }

    /// Reports a warning. Vestibule uses the settings in spite of warnings.
    fn warn(&mut self, cursor: &Cursor<'_>, message: impl Into<String>, hint: impl Into<String>) {
        let message = self.redact(cursor, message.into());
        let hint = self.redact(cursor, hint.into());
        self.warnings
            .push(cursor.problem(message).with_hint(Some(hint)));
    }

    /// Removes inserted values from a message: they can be secrets.
    fn redact(&self, cursor: &Cursor<'_>, message: String) -> String {
        let Some(node) = cursor.node else {
            return message;
        };
        if node.written.is_some() {
            return match &node.kind {
                Kind::Text { text, .. } | Kind::Number(_, text) => message.replace(text, "…"),
                _ => message,
            };
        }
        let Kind::Text { text, .. } = &node.kind else {
            return message;
        };
        let Some(pieces) = self.pieces(text) else {
            return message;
        };
        if !pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Inserted(_)))
        {
            return message;
        }
        let inserted = pieces.iter().filter_map(|piece| match piece {
            Piece::Inserted(value) if value.len() > 2 => Some(value.clone()),
            _ => None,
        });
        std::iter::once(joined(&pieces))
            .chain(inserted)
            .fold(message, |message, value| message.replace(&value, "…"))
    }

    /// Returns a text with all values inserted. `None` if a lookup fails, which is reported elsewhere.
    fn text(&self, text: &file::Text) -> Option<String> {
        pieces(&text.0, self.environment)
            .ok()
            .map(|pieces| joined(&pieces))
    }

    fn pieces(&self, text: &str) -> Option<Vec<Piece>> {
        pieces(text, self.environment).ok()
    }

    fn expression(
        &mut self,
        cursor: &Cursor<'_>,
        source: &file::Expression,
        scope: &Scope,
    ) -> Option<Expression> {
        let inserts = match pieces(&source.0, self.environment) {
            Ok(pieces) => pieces
                .iter()
                .any(|piece| matches!(piece, Piece::Inserted(_))),
            Err(error) if error.is_missing && self.environment.allows_missing() => true,
            Err(_) => return None,
        };
        if inserts {
            self.report(
                cursor,
                "an expression cannot contain `${…}`",
                Some("put the value into a list and read `lists.<name>`".to_owned()),
            );
            return None;
        }
        match Expression::compile(&source.0, scope) {
            Ok(expression) => {
                self.note_body_key(&expression);
                let place = Place::Condition;
                let read = std::iter::once(&expression);
                self.uses.push(Use::new(cursor, &source.0, place, read));
                Some(expression)
            }
            Err(error) => {
                self.compile_error(cursor, &source.0, 0, &error);
                None
            }
        }
    }

    fn template(&mut self, cursor: &Cursor<'_>, text: &str, scope: &Scope) -> Option<Template> {
        let pieces = self.pieces(text)?;
        self.compiled(cursor, text, &pieces, scope)
    }

    fn compiled(
        &mut self,
        cursor: &Cursor<'_>,
        text: &str,
        pieces: &[Piece],
        scope: &Scope,
    ) -> Option<Template> {
        match Template::compile(pieces, scope) {
            Ok(template) => {
                for expression in template.expressions() {
                    self.note_body_key(expression);
                }
                let place = match template.only_expression() {
                    Some(_) => Place::Value,
                    None => Place::Text,
                };
                let read = template.expressions();
                self.uses.push(Use::new(cursor, text, place, read));
                self.warn_about_braces(cursor, text, scope);
                self.warn_about_missing_braces(cursor, &template, scope);
                Some(template)
            }
            Err(error) => {
                let before = match pieces.get(error.piece) {
                    Some(Piece::Written(written)) => text.find(written.as_str()).unwrap_or(0),
                    _ => 0,
                };
                self.compile_error(cursor, text, before, &error);
                None
            }
        }
    }

    fn compile_error(
        &mut self,
        cursor: &Cursor<'_>,
        text: &str,
        before: usize,
        error: &CompileError,
    ) {
        let at = self.inside(cursor, text, before + error.offset.unwrap_or(0));
        let problem = Problem::new(cursor.path.clone(), at, error.message.clone());
        let lacks_previous = error.message == "`previous` does not exist here";
        let hint = if lacks_previous && cursor.path.starts_with("subscriptions.") {
            Some(
                "`previous` exists only for the events `identity.updated` and `credentials.changed`"
                    .to_owned(),
            )
        } else {
            error.hint.clone()
        };
        self.problems.push(problem.with_hint(hint));
    }

    /// Returns the position of a byte of a text, if its line contains the text unchanged.
    fn inside(&self, cursor: &Cursor<'_>, text: &str, offset: usize) -> Position {
        let line: &str = self
            .lines
            .get(cursor.at.line.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        let start: String = line
            .chars()
            .skip(cursor.at.column.saturating_sub(1))
            .collect();
        let characters = text
            .get(..offset)
            .map_or(0, |before| before.chars().count());
        let quote = usize::from(start.starts_with(['"', '\'']));
        let is_literal = start
            .chars()
            .skip(quote)
            .collect::<String>()
            .starts_with(text);
        if is_literal {
            return Position {
                column: cursor.at.column + quote + characters,
                ..cursor.at
            };
        }
        // A block text after `|` has one indented line for each of its lines.
        let before = text.get(..offset).unwrap_or_default();
        let within = before.matches('\n').count();
        let number = cursor.at.line + within;
        let source = self.lines.get(number.saturating_sub(1)).copied();
        let indented = source.map(|line| (line, line.trim_start()));
        match (indented, text.split('\n').nth(within)) {
            (Some((line, trimmed)), Some(written))
                if within > 0 && trimmed.trim_end() == written.trim() =>
            {
                let last = before.rsplit('\n').next().unwrap_or_default();
                let indent = line.chars().count() - trimmed.chars().count();
                let skipped = written.chars().count() - written.trim_start().chars().count();
                Position {
                    line: number,
                    column: 1 + indent + last.chars().count().saturating_sub(skipped),
                }
            }
            _ => cursor.at,
        }
    }

    fn lists(&mut self) -> Lists {
        let cursor = self.root.key("lists");
        let mut lists = BTreeMap::new();
        for entry in cursor.entries() {
            let cursor = cursor.key(&entry.key);
            self.name(&cursor, entry, "a list");
            // Expressions can name a list that has a problem.
            let entries = self.list(&cursor).unwrap_or_default();
            lists.insert(entry.key.clone(), entries);
        }
        Lists::new(lists)
    }

    fn list(&mut self, cursor: &Cursor<'_>) -> Option<Vec<String>> {
        match self.decode(cursor)? {
            file::List::Inline(entries) => entries.iter().map(|entry| self.text(entry)).collect(),
            file::List::File(file::ListFile { file }) => {
                let path = self.folder.join(self.text(&file)?);
                match read_text(&path, MAX_DATA) {
                    Ok(text) => Some(
                        text.lines()
                            .map(str::trim)
                            .filter(|line| !line.is_empty() && !line.starts_with('#'))
                            .map(ToOwned::to_owned)
                            .collect(),
                    ),
                    Err(cause) => {
                        self.report(
                            &cursor.key("file"),
                            format!("cannot read the file {}: {cause}", path.display()),
                            None,
                        );
                        None
                    }
                }
            }
        }
    }

    /// Checks a name, which expressions, metrics and logs use.
    fn name(&mut self, cursor: &Cursor<'_>, entry: &Entry, what: &str) {
        let plain = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_'
        };
        let starts = entry
            .key
            .starts_with(|first: char| first.is_ascii_lowercase());
        if RESERVED.contains(&entry.key.as_str()) {
            let message = format!(
                "`{}` is a reserved word of expressions and cannot be a name",
                entry.key
            );
            self.problems
                .push(Problem::new(cursor.path.clone(), entry.at, message));
        } else if !starts || !entry.key.chars().all(plain) {
            let message = format!("`{}` is not a valid name for {what}", entry.key);
            let hint = "use lower-case letters, digits and `_`, and begin with a letter".to_owned();
            self.problems
                .push(Problem::new(cursor.path.clone(), entry.at, message).with_hint(Some(hint)));
        }
    }
}
