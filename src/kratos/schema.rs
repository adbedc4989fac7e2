//! Identity schemas: which traits they name, which traits may be absent, and which types they give.

mod part;
mod types;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::diagnostics::nearest;
use part::{Document, Part};

pub use types::Types;

/// The maximum number of traits that are compared with a misspelt one.
const MAX_PATHS: usize = 500;
/// The maximum number of nested objects in which traits are searched for a misspelt one.
const MAX_NESTING: usize = 6;

/// The identity schemas of the settings, by id.
#[derive(Clone, Debug, Default)]
pub struct Schemas(Vec<Schema>);

#[derive(Clone, Debug)]
struct Schema {
    id: String,
    root: Value,
}

/// One step of a path into an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'p> {
    /// A member of an object.
    Name(&'p str),
    /// An entry of a list.
    Index(usize),
    /// A step of a dotted path: in a list, a number is the index of an entry.
    Dotted(&'p str),
}

/// Whether a part of a path can be absent, although Kratos accepts the identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// The schema does not require it.
    pub may_be_missing: bool,
    /// The schema allows null.
    pub may_be_null: bool,
}

/// What all schemas say about a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Knowledge<'s> {
    /// The ids of the schemas that name the path, or that say nothing about its parent's members.
    pub named_in: Vec<&'s str>,
    /// The ids of the schemas that do not name the path, but allow it with `additionalProperties: true`.
    pub allowed_in: Vec<&'s str>,
    /// The ids of the schemas that do not name the path. Kratos's form has no such field.
    pub unknown_in: Vec<&'s str>,
    /// The ids of the schemas with which Kratos refuses an identity that has the path.
    pub forbidden_in: Vec<&'s str>,
    /// The types that the schemas allow. All types if no schema gives a type.
    pub types: Types,
    /// The allowed values, if every schema lists them.
    pub values: Option<Vec<Value>>,
    /// For each step, whether it can be absent in one of the schemas that name the path.
    pub steps: Vec<Presence>,
    /// The first steps that a schema knows, if no schema names the whole path.
    pub known_steps: usize,
    /// The types of the value at the end of these steps.
    pub known_types: Types,
}

/// What one schema says about a path.
enum LookUp {
    Named(Named),
    Allowed,
    Unknown {
        known: usize,
        types: Types,
        is_forbidden: bool,
    },
}

struct Named {
    steps: Vec<Presence>,
    is_forbidden: bool,
    types: Types,
    values: Option<Vec<Value>>,
}

impl<'p> Step<'p> {
    /// Returns the steps of a dotted path.
    pub fn of_names(names: impl IntoIterator<Item = &'p str>) -> Vec<Self> {
        names.into_iter().map(Self::Dotted).collect()
    }
}

impl Schemas {
    /// Adds a schema.
    pub fn add(&mut self, id: String, root: Value) {
        self.0.push(Schema { id, root });
    }

    /// Returns whether the settings name no schema.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ids, in the order of the settings.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|schema| schema.id.as_str())
    }

    /// Returns the ids and the documents, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|one| (one.id.as_str(), &one.root))
    }

    /// Returns whether every schema describes `traits`, or refers to another document that may.
    #[must_use]
    pub fn all_describe_traits(&self) -> bool {
        self.0.iter().all(|schema| {
            let document = Document::of(&schema.root);
            let whole = document.whole();
            document.member(&whole, Step::Name("traits")).is_some()
                || document.refers_elsewhere(&whole)
        })
    }

    /// Returns what the schemas say about a path. Its first step is `traits`.
    #[must_use]
    pub fn look_up(&self, path: &[Step<'_>]) -> Knowledge<'_> {
        let mut sum = Knowledge {
            named_in: Vec::new(),
            allowed_in: Vec::new(),
            unknown_in: Vec::new(),
            forbidden_in: Vec::new(),
            types: Types::NONE,
            values: None,
            steps: vec![Presence::default(); path.len()],
            known_steps: 0,
            known_types: Types::NONE,
        };
        let mut values = Some(Vec::new());
        for Schema { id, root } in &self.0 {
            match look_up(&Document::of(root), path) {
                LookUp::Named(named) => {
                    sum.named_in.push(id);
                    sum.forbidden_in
                        .extend(named.is_forbidden.then_some(id.as_str()));
                    sum.add(&named);
                    values = values.zip(named.values).map(|(mut all, more)| {
                        all.extend(more);
                        all
                    });
                }
                LookUp::Allowed => sum.allowed_in.push(id),
                LookUp::Unknown {
                    known,
                    types,
                    is_forbidden,
                } => {
                    sum.unknown_in.push(id);
                    sum.forbidden_in.extend(is_forbidden.then_some(id.as_str()));
                    if known >= sum.known_steps {
                        sum.known_steps = known;
                        sum.known_types = types;
                    }
                }
            }
        }
        if sum.named_in.is_empty() {
            sum.types = Types::ALL;
        } else {
            sum.values = values;
        }
        sum
    }

    /// Returns the known path that is nearest to a path that no schema names.
    #[must_use]
    pub fn nearest(&self, path: &[Step<'_>]) -> Option<String> {
        // A misspelt name in a known object or list comes first.
        let known = self.look_up(path).known_steps.min(path.len());
        let (before, rest) = path.split_at(known);
        if let Some((Step::Name(wrong) | Step::Dotted(wrong), after)) = rest.split_first() {
            let beside = self.members(before);
            let beside = || beside.iter().map(String::as_str);
            if let Some(name) = nearest(wrong, beside()).or_else(|| begun_by(wrong, beside())) {
                let corrected: Vec<Step<'_>> = before
                    .iter()
                    .chain([&Step::Name(name)])
                    .chain(after)
                    .copied()
                    .collect();
                if !self.look_up(&corrected).named_in.is_empty() {
                    return Some(dotted(&corrected));
                }
            }
        }
        let all = self.paths();
        let inside = |path: &str| path.strip_prefix("traits.").map(ToOwned::to_owned);
        let names: Vec<String> = all.iter().filter_map(|path| inside(path)).collect();
        let near = nearest(&inside(&dotted(path))?, names.iter().map(String::as_str))?;
        Some(format!("traits.{near}"))
    }

    /// Returns the paths of all traits, as far as they are outside of lists.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.paths_where(&|_| true)
    }

    /// Returns the paths of the traits that can be absent although the object around them is there, as far as they are
    /// outside of lists. A trait that only some schemas have is one of them.
    #[must_use]
    pub fn optional_paths(&self) -> Vec<String> {
        let mut paths = self.paths();
        paths.retain(|path| {
            let knowledge = self.look_up(&Step::of_names(path.split('.')));
            let last = knowledge.steps.last().copied().unwrap_or_default();
            last.may_be_missing
                || last.may_be_null
                || !knowledge.unknown_in.is_empty()
                || !knowledge.allowed_in.is_empty()
        });
        paths
    }

    /// Returns the paths of the traits whose schema satisfies a rule, as far as they are outside of lists.
    #[must_use]
    pub fn paths_where(&self, rule: &dyn Fn(&Value) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for schema in &self.0 {
            let document = Document::of(&schema.root);
            if let Some(traits) = document.member(&document.whole(), Step::Name("traits")) {
                let mut collector = Collector {
                    document,
                    rule,
                    found: &mut found,
                };
                collector.collect(&traits, "traits", MAX_NESTING);
            }
        }
        found
    }

    /// Returns the names of the members at a path.
    fn members(&self, path: &[Step<'_>]) -> Vec<String> {
        let mut names = BTreeSet::new();
        for schema in &self.0 {
            let document = Document::of(&schema.root);
            let end = path.iter().try_fold(document.whole(), |part, step| {
                document.member(&part, document.settle(&part, *step))
            });
            let end = end.map(|part| document.names(&part)).unwrap_or_default();
            names.extend(end.into_iter().map(ToOwned::to_owned));
        }
        names.into_iter().collect()
    }
}

impl Knowledge<'_> {
    fn add(&mut self, named: &Named) {
        self.types = self.types.or(named.types);
        for (sum, one) in self.steps.iter_mut().zip(&named.steps) {
            sum.may_be_missing |= one.may_be_missing;
            sum.may_be_null |= one.may_be_null;
        }
    }

    /// Returns whether no schema names the path or allows it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.named_in.is_empty() && self.allowed_in.is_empty()
    }

    /// Returns whether the value at the path can be absent: missing or null, itself or a part of the path to it.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        !(self.unknown_in.is_empty() && self.allowed_in.is_empty())
            || self
                .steps
                .iter()
                .any(|step| step.may_be_missing || step.may_be_null)
    }
}

/// Returns the only name that begins with a part of it.
fn begun_by<'n>(beginning: &str, mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const MIN_LENGTH: usize = 3;
    let begins = |name: &&str| beginning.len() >= MIN_LENGTH && name.starts_with(beginning);
    let found = names.find(begins)?;
    names.find(begins).is_none().then_some(found)
}

/// Returns the path as text: `traits.emails.0`.
#[must_use]
pub fn dotted(path: &[Step<'_>]) -> String {
    let names: Vec<String> = path
        .iter()
        .map(|step| match step {
            Step::Name(name) | Step::Dotted(name) => (*name).to_owned(),
            Step::Index(index) => index.to_string(),
        })
        .collect();
    names.join(".")
}

fn look_up(document: &Document<'_>, path: &[Step<'_>]) -> LookUp {
    let mut part = document.whole();
    let mut steps = Vec::with_capacity(path.len());
    let mut is_forbidden = false;
    for (at, step) in path.iter().enumerate() {
        let step = document.settle(&part, *step);
        let Some(member) = document.member(&part, step) else {
            if document.says_nothing_about(&part, step) {
                return LookUp::Named(anything(steps, path.len()));
            }
            if document.allows_more(&part, step) {
                return LookUp::Allowed;
            }
            return LookUp::Unknown {
                known: at,
                types: document.types(&part),
                is_forbidden: document.forbids(&part, step),
            };
        };
        let types = document.types(&member);
        // A name in `then` does not help against `additionalProperties: false` beside it.
        is_forbidden |= document.forbids(&part, step);
        steps.push(Presence {
            // Hooks always see `traits`.
            may_be_missing: at > 0 && !document.requires(&part, step),
            may_be_null: types.is_given() && types.contains(Types::NULL),
        });
        part = member;
    }
    LookUp::Named(Named {
        steps,
        is_forbidden,
        types: document.types(&part),
        values: document.values(&part),
    })
}

/// Returns what a schema says that does not restrict the members at the end of `steps`.
fn anything(mut steps: Vec<Presence>, length: usize) -> Named {
    let optional = Presence {
        may_be_missing: true,
        may_be_null: false,
    };
    steps.resize(length, optional);
    Named {
        steps,
        is_forbidden: false,
        types: Types::ALL,
        values: None,
    }
}

/// Collects the paths of traits.
struct Collector<'c, 's> {
    document: Document<'s>,
    rule: &'c dyn Fn(&Value) -> bool,
    found: &'c mut Vec<String>,
}

impl<'s> Collector<'_, 's> {
    fn collect(&mut self, part: &Part<'s>, path: &str, nesting: usize) {
        for name in self.document.names(part) {
            let inner = format!("{path}.{name}");
            let Some(member) = self.document.member(part, Step::Name(name)) else {
                continue;
            };
            if self.found.len() >= MAX_PATHS {
                return;
            }
            if self.document.has(&member, self.rule) && !self.found.contains(&inner) {
                self.found.push(inner.clone());
            }
            if nesting > 0 {
                self.collect(&member, &inner, nesting - 1);
            }
        }
    }
}
