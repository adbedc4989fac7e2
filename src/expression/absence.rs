//! Finds what an expression gives if a value of Kratos's data is absent, or present, whatever all other values are.
//!
//! This answers whether a path is read without a guard: `has(x) && x == 'a'` is false without `x`, and `x == 'a'` fails.
//! The rules of the language hold: `&&` and `||` ignore an error on one side if the other side decides, `a ? b : c` reads
//! one branch, and everything else fails with its parts.

mod outcome;
mod sizes;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::Variable;
use super::comparisons::constant;
use super::compile::Compiled;
use super::path::{Key, Path, ReadPath, ReadStep};
use super::resolve::Slot;
use outcome::{Outcome, Shape, compared, contained, negated};

/// Functions that accept null and an empty optional.
const TOLERANT: [&str; 2] = ["dyn", "type"];
/// A function that gives null for null.
const OF_NULL: &str = "query_parameter";
/// Functions whose result for a text with visible characters has visible characters.
const KEEPS_TEXT: [&str; 4] = ["lowerAscii", "string", "trim", "upperAscii"];
/// The type of null, as `type(x)` gives it.
const NULL_TYPE: &str = "null_type";
/// The other types that expressions compare `type(x)` with.
const TYPES: [&str; 8] = [
    "bool", "bytes", "double", "int", "list", "map", "string", "uint",
];

/// What is assumed about the value at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption {
    root: Variable,
    path: ReadPath,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Null,
    Present,
}

/// What an expression can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The evaluation can fail.
    pub may_fail: bool,
    /// The expression can be true.
    pub may_hold: bool,
    /// The result, as far as it is known.
    pub gives: Given,
}

/// A result that may have no use in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Null or an empty optional, which has no text.
    Nothing,
    /// An empty text.
    EmptyText,
    /// Any other value, or an unknown one.
    Anything,
}

impl Assumption {
    /// The value at this path is missing, and so is everything in it. An empty path is the variable itself.
    #[must_use]
    pub fn missing(root: Variable, path: ReadPath) -> Self {
        let state = State::Missing;
        Self { root, path, state }
    }

    /// The value at this path is null.
    #[must_use]
    pub fn null(root: Variable, path: ReadPath) -> Self {
        let state = State::Null;
        Self { root, path, state }
    }

    /// The value at this path is there, and is not empty: it is no null, no empty list or object, and no text without
    /// visible characters.
    #[must_use]
    pub fn present(root: Variable, path: ReadPath) -> Self {
        let state = State::Present;
        Self { root, path, state }
    }
}

/// Returns what the expression can give under the assumption.
pub(super) fn effect(compiled: &Compiled, assumed: &Assumption) -> Effect {
    let reader = Reader {
        slots: &compiled.slots,
        assumed: Some(assumed),
        local: None,
    };
    let outcome = reader.read(&compiled.tree);
    Effect {
        may_fail: outcome.fails,
        may_hold: outcome.truth().0,
        gives: match &outcome.shape {
            _ if outcome.is_no_value() => Given::Nothing,
            Shape::Known(Value::String(text)) if text.is_empty() => Given::EmptyText,
            _ => Given::Anything,
        },
    }
}

/// Returns whether the expression, or an operand of its `||`, is never true under the assumption, and without it can be.
pub(super) fn is_partly_excluded(compiled: &Compiled, assumed: &Assumption) -> bool {
    let reader = |assumed| Reader {
        slots: &compiled.slots,
        assumed,
        local: None,
    };
    let (with, without) = (reader(Some(assumed)), reader(None));
    operands(&compiled.tree)
        .into_iter()
        .any(|operand| !with.read(operand).truth().0 && without.read(operand).truth().0)
}

/// Returns the operands of the outermost `||`.
fn operands(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_OR => {
            call.args.iter().flat_map(operands).collect()
        }
        _ => vec![node],
    }
}

struct Reader<'c> {
    slots: &'c [Slot],
    assumed: Option<&'c Assumption>,
    /// The innermost variable of a loop or a binding.
    local: Option<&'c Local<'c>>,
}

/// A variable of a loop or a binding, such as that of `optMap`.
struct Local<'c> {
    name: &'c str,
    outcome: Outcome,
    outer: Option<&'c Local<'c>>,
}

impl<'c> Local<'c> {
    fn any(name: &'c str, outer: Option<&'c Local<'c>>) -> Self {
        Self {
            name,
            outcome: Outcome::ANY,
            outer,
        }
    }
}

impl Reader<'_> {
    fn read(&self, node: &IdedExpr) -> Outcome {
        match &node.expr {
            Expr::Ident(name) => {
                let index = name.strip_prefix('@').and_then(|index| index.parse().ok());
                let slot = index.and_then(|index: usize| self.slots.get(index));
                slot.map_or_else(|| self.local(name), |slot| self.slot(slot))
            }
            Expr::Literal(literal) => constant(literal).map_or(Outcome::ANY, Outcome::known),
            Expr::Select(select) => {
                let operand = self.read(&select.operand);
                match operand.shape {
                    Shape::Nothing | Shape::EmptyOptional => operand,
                    _ if operand.is_no_value() => Outcome::FAILED,
                    _ => Outcome::ANY.or_else_fails(operand.fails),
                }
            }
            Expr::List(list) => self.list(&list.elements),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Map(map) => {
                let fails = map.entries.iter().any(|entry| match &entry.expr {
                    cel::common::ast::EntryExpr::MapEntry(entry) => {
                        self.read(&entry.key).fails || self.read(&entry.value).fails
                    }
                    cel::common::ast::EntryExpr::StructField(_) => false,
                });
                Outcome::ANY.or_else_fails(fails)
            }
            Expr::Struct(_) | Expr::Unspecified => Outcome::ANY,
        }
    }

    fn local(&self, name: &str) -> Outcome {
        let mut locals = std::iter::successors(self.local, |local| local.outer);
        let found = locals.find(|local| local.name == name);
        found.map_or(Outcome::ANY, |local| local.outcome.clone())
    }

    /// Reads a node in which this variable exists.
    fn read_with(&self, name: &str, outcome: Outcome, node: &IdedExpr) -> Outcome {
        let local = Local {
            name,
            outcome,
            outer: self.local,
        };
        Reader {
            local: Some(&local),
            ..*self
        }
        .read(node)
    }

    fn slot(&self, slot: &Slot) -> Outcome {
        match slot {
            Slot::Path(path) if path.root == Variable::Method && self.lacks_previous() => Outcome {
                fails: false,
                shape: Shape::Method,
            },
            Slot::Path(path) => self.path(path),
            Slot::Has(path) => self.has(path),
            Slot::List(_) | Slot::Pattern(_) => Outcome::ANY,
        }
    }

    fn lacks_previous(&self) -> bool {
        self.assumed.is_some_and(|assumed| {
            assumed.root == Variable::Previous
                && assumed.path.is_root()
                && assumed.state == State::Missing
        })
    }

    /// Returns the assumption, if it is about a value of the same variable.
    fn assumed_about(&self, path: &Path) -> Option<&Assumption> {
        self.assumed.filter(|assumed| assumed.root == path.root)
    }

    /// As `Path::walk` does.
    fn path(&self, path: &Path) -> Outcome {
        let Some(assumed) = self.assumed_about(path) else {
            return Outcome::ANY;
        };
        let Some(length) = assumed.path.steps_within(&path.constant()) else {
            return assumed
                .length_of(path)
                .map_or(Outcome::ANY, |length| Outcome {
                    fails: false,
                    shape: Shape::Short(length),
                });
        };
        let is_optional = |end: usize| path.steps.iter().take(end).any(|step| step.optional);
        let found = match (assumed.state, path.steps.get(length)) {
            (State::Present, None) => {
                return Outcome {
                    fails: false,
                    shape: Shape::Present,
                };
            }
            (State::Present, Some(_)) => return Outcome::ANY,
            (State::Null, None) if is_optional(length) => {
                return Outcome {
                    fails: false,
                    shape: Shape::NullOptional,
                };
            }
            (State::Null, None) => return Outcome::known(Value::Null),
            (State::Null, Some(step)) => {
                step.optional || is_optional(length) && !matches!(step.key, Key::Field(_))
            }
            // Without the variable, only its first step decides.
            (State::Missing, _) => is_optional(length.max(1)),
        };
        if found {
            Outcome::EMPTY
        } else {
            Outcome::FAILED
        }
    }

    /// As `Path::exists` does.
    fn has(&self, path: &Path) -> Outcome {
        let Some(assumed) = self.assumed_about(path) else {
            return Outcome::ANY;
        };
        let constant = path.constant();
        let is_around = constant.steps_within(&assumed.path).is_some();
        let within = assumed.path.steps_within(&constant);
        match (assumed.state, within) {
            (State::Present, _) if is_around => Outcome::known(true),
            (State::Present, _) | (_, None) => Outcome::ANY,
            (State::Missing, Some(_)) => Outcome::known(false),
            (State::Null, Some(length)) => Outcome::known(length == path.steps.len()),
        }
    }

    /// Returns the outcome of `'name' in path`, if that is the value of the assumption.
    fn has_key(&self, one: &IdedExpr, list: &IdedExpr) -> Option<Outcome> {
        let Expr::Literal(LiteralValue::String(name)) = &one.expr else {
            return None;
        };
        let Expr::Ident(slot) = &list.expr else {
            return None;
        };
        let index: usize = slot.strip_prefix('@')?.parse().ok()?;
        let Slot::Path(path) = self.slots.get(index)? else {
            return None;
        };
        let assumed = self.assumed_about(path)?;
        let is_there = assumed.state != State::Missing;
        assumed
            .is_member(path, name.inner())
            .then(|| Outcome::known(is_there))
    }

    fn list(&self, elements: &[IdedExpr]) -> Outcome {
        let read: Vec<Outcome> = elements.iter().map(|element| self.read(element)).collect();
        let fails = read.iter().any(|element| element.fails);
        let known: Option<Vec<Value>> = read
            .into_iter()
            .map(|element| match element.shape {
                Shape::Known(value) => Some(value),
                _ => None,
            })
            .collect();
        known
            .map_or(Outcome::ANY, |values| Outcome::known(Value::Array(values)))
            .or_else_fails(fails)
    }

    fn call(&self, call: &CallExpr) -> Outcome {
        let args = &call.args;
        if let Some(name) = of_optional(call) {
            let fails = args.iter().any(|argument| self.read(argument).fails);
            let result = if name == "none" {
                Outcome::EMPTY
            } else {
                Outcome::ANY
            };
            return result.or_else_fails(fails);
        }
        match (call.func_name.as_str(), &call.target, args.as_slice()) {
            (operators::LOGICAL_AND, None, [one, other]) => self.both(one, other, |truth| truth),
            (operators::LOGICAL_OR, None, [one, other]) => {
                // `a || b` is `!(!a && !b)`.
                negated(&self.both(one, other, |(holds, not)| (not, holds)))
            }
            (operators::LOGICAL_NOT, None, [operand]) => negated(&self.read(operand)),
            (operators::NOT_STRICTLY_FALSE, ..) => Outcome::ANY,
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                self.choice(&self.read(condition), yes, no)
            }
            (operators::EQUALS, None, [one, other]) => {
                compared(&self.operand(one), &self.operand(other))
            }
            (operators::NOT_EQUALS, None, [one, other]) => {
                negated(&compared(&self.operand(one), &self.operand(other)))
            }
            (operators::IN, None, [one, list]) => self
                .has_key(one, list)
                .unwrap_or_else(|| contained(&self.read(one), &self.read(list))),
            (name, None, [one, other]) if sizes::is_comparison(name) => {
                sizes::ordered(name, &self.read(one), &self.read(other))
                    .unwrap_or_else(|| self.strict(name, None, args))
            }
            (name @ ("hasValue" | "value" | "or" | "orValue"), Some(target), _) => {
                self.optional(name, &self.read(target), args)
            }
            (name, target, _) => self.strict(name, target.as_deref(), args),
        }
    }

    /// Returns the outcome of an operand of `==`, which can be the name of a type.
    fn operand(&self, node: &IdedExpr) -> Outcome {
        match &node.expr {
            Expr::Ident(name) if name == NULL_TYPE => Outcome {
                fails: false,
                shape: Shape::Type(true),
            },
            Expr::Ident(name) if TYPES.contains(&name.as_str()) => Outcome {
                fails: false,
                shape: Shape::Type(false),
            },
            _ => self.read(node),
        }
    }

    /// Returns the outcome of `one && other`. `view` swaps true and false for `||`.
    fn both(
        &self,
        one: &IdedExpr,
        other: &IdedExpr,
        view: impl Fn((bool, bool)) -> (bool, bool),
    ) -> Outcome {
        let (one, other) = (self.read(one), self.read(other));
        let ((one_holds, one_not), (other_holds, other_not)) =
            (view(one.truth()), view(other.truth()));
        let (one_fails, other_fails) = (one.is_failure(), other.is_failure());
        Outcome::condition(
            one_holds && other_holds,
            one_not || other_not,
            one_fails && (other_holds || other_fails) || other_fails && (one_holds || one_fails),
        )
    }

    fn choice(&self, condition: &Outcome, yes: &IdedExpr, no: &IdedExpr) -> Outcome {
        let (holds, not) = condition.truth();
        let branches = [(holds, yes), (not, no)];
        let mut read = branches
            .into_iter()
            .filter(|(is_possible, _)| *is_possible)
            .map(|(_, branch)| self.read(branch));
        let Some(first) = read.next() else {
            return Outcome::FAILED;
        };
        let both = match read.next() {
            None => first,
            Some(second) => {
                let fails = first.fails || second.fails;
                let shape = match (first.shape, second.shape) {
                    (one, other) if one == other => one,
                    (Shape::Nothing, other) => other,
                    (one, Shape::Nothing) => one,
                    _ => Shape::Any,
                };
                Outcome { fails, shape }
            }
        };
        both.or_else_fails(condition.is_failure())
    }

    fn optional(&self, name: &str, target: &Outcome, args: &[IdedExpr]) -> Outcome {
        let other = args.first().map(|other| self.read(other));
        let other_fails = other.as_ref().is_some_and(|other| other.fails);
        let is_empty_list = |other: &Outcome| other.shape == Shape::Known(Value::Array(Vec::new()));
        match (&target.shape, name, other) {
            (Shape::EmptyOptional, "hasValue", _) => Outcome::known(false),
            (Shape::NullOptional | Shape::Present, "hasValue", _) => Outcome::known(true),
            (Shape::EmptyOptional, "or" | "orValue", Some(other)) => other,
            (Shape::NullOptional, "value" | "orValue", _) => Outcome::known(Value::Null),
            (Shape::NullOptional | Shape::Present, ..) | (Shape::Short(_), "value", _) => {
                target.clone()
            }
            (Shape::Short(_), "orValue", Some(other)) if is_empty_list(&other) => target.clone(),
            (Shape::Nothing | Shape::EmptyOptional, ..) => Outcome::FAILED,
            _ => Outcome::ANY,
        }
        .or_else_fails(target.fails || other_fails)
    }

    fn strict(&self, name: &str, target: Option<&IdedExpr>, args: &[IdedExpr]) -> Outcome {
        let parts: Vec<Outcome> = target
            .into_iter()
            .chain(args)
            .map(|part| self.read(part))
            .collect();
        let fails = parts.iter().any(|part| part.fails);
        let needs_values = !TOLERANT.contains(&name);
        if let (OF_NULL, [first, ..]) = (name, parts.as_slice())
            && first.shape == Shape::Known(Value::Null)
        {
            return first.clone().or_else_fails(fails);
        }
        let never =
            |part: &Outcome| part.shape == Shape::Nothing || needs_values && part.is_no_value();
        if parts.iter().any(never) {
            return Outcome::FAILED;
        }
        let result = match (name, parts.as_slice()) {
            ("size", [part]) => sizes::size(part),
            ("type", [part]) if part.shape == Shape::Known(Value::Null) => Outcome {
                fails: false,
                shape: Shape::Type(true),
            },
            (name, [part]) if KEEPS_TEXT.contains(&name) && part.shape == Shape::Present => {
                part.clone()
            }
            _ => Outcome::ANY,
        };
        result.or_else_fails(fails)
    }

    fn comprehension(&self, comprehension: &ComprehensionExpr) -> Outcome {
        let range = self.read(&comprehension.iter_range);
        if range.shape == Shape::Nothing || range.is_no_value() {
            return Outcome::FAILED;
        }
        let start = self.read(&comprehension.accu_init);
        let gives_accumulator = matches!(&comprehension.result.expr, Expr::Ident(name) if *name == comprehension.accu_var);
        let is_empty = matches!(&range.shape, Shape::Known(Value::Array(list)) if list.is_empty());
        if is_empty && gives_accumulator {
            return start.or_else_fails(range.fails);
        }
        let name = &comprehension.accu_var;
        let fails = range.fails || start.fails;
        if is_empty {
            return self
                .read_with(name, start, &comprehension.result)
                .or_else_fails(fails);
        }
        let rest = [
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ];
        let inside = rest
            .into_iter()
            .any(|part| self.in_loop(comprehension, part));
        Outcome::ANY.or_else_fails(fails || inside)
    }

    /// Returns whether a part of a loop can fail, whatever its variables are.
    fn in_loop(&self, comprehension: &ComprehensionExpr, part: &IdedExpr) -> bool {
        let sum = Local::any(&comprehension.accu_var, self.local);
        let first = Local::any(&comprehension.iter_var, Some(&sum));
        let second = comprehension.iter_var2.as_deref();
        let second = Local::any(second.unwrap_or_default(), Some(&first));
        Reader {
            local: Some(&second),
            ..*self
        }
        .read(part)
        .fails
    }
}

impl Assumption {
    /// Returns the maximum length of the list at the path, if the assumption is that one of its entries is missing.
    fn length_of(&self, list: &Path) -> Option<i64> {
        let before = self.path.steps().count().checked_sub(1)?;
        match self.path.steps().last()? {
            ReadStep::Index(index)
                if self.state == State::Missing
                    && self.path.beginning(before) == list.constant() =>
            {
                Some(index)
            }
            _ => None,
        }
    }

    /// Returns whether the value is the member of this name of the object at the path.
    fn is_member(&self, object: &Path, name: &str) -> bool {
        let Some(last) = self.path.steps().count().checked_sub(1) else {
            return false;
        };
        self.path.steps().last() == Some(ReadStep::Name(name))
            && self.path.beginning(last) == object.constant()
            && !object.steps.iter().any(|step| step.optional)
    }
}

/// Returns the name of a function that makes an optional: `optional.of(x)`.
fn of_optional(call: &CallExpr) -> Option<&str> {
    let is_optional =
        |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if name == "optional");
    match &call.target {
        Some(target) => is_optional(target).then_some(call.func_name.as_str()),
        // `optMap` is rewritten to this form.
        None => call.func_name.strip_prefix("optional."),
    }
}
