//! Finds what an expression gives if a value of Kratos's data is absent, whatever all other values are.
//!
//! This answers whether a path is read without a guard: `has(x) && x == 'a'` is false without `x`, and `x == 'a'` fails.
//! The rules of the language hold: `&&` and `||` ignore an error on one side if the other side decides, `a ? b : c` reads
//! one branch, and everything else fails with its parts.

mod outcome;

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::Variable;
use super::compile::Compiled;
use super::path::{Key, Path, ReadPath};
use super::resolve::Slot;
use outcome::{Outcome, Shape, compared, contained, negated};

/// Functions that accept null and an empty optional.
const TOLERANT: [&str; 2] = ["dyn", "type"];

/// A value that is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    root: Variable,
    path: ReadPath,
    is_null: bool,
}

/// What an expression can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The evaluation can fail, because the value is absent.
    pub may_fail: bool,
    /// The expression can be true.
    pub may_hold: bool,
}

impl Absent {
    /// The value at this path is missing, and so is everything in it. An empty path is the variable itself.
    #[must_use]
    pub fn missing(root: Variable, path: ReadPath) -> Self {
        Self {
            root,
            path,
            is_null: false,
        }
    }

    /// The value at this path is null.
    #[must_use]
    pub fn null(root: Variable, path: ReadPath) -> Self {
        Self {
            root,
            path,
            is_null: true,
        }
    }
}

/// Returns what the expression can give without the value.
pub(super) fn effect(compiled: &Compiled, absent: &Absent) -> Effect {
    let outcome = Reader {
        slots: &compiled.slots,
        absent,
        bound: None,
    }
    .read(&compiled.tree);
    Effect {
        may_fail: outcome.fails,
        may_hold: outcome.truth().0,
    }
}

#[derive(Clone, Copy)]
struct Reader<'c> {
    slots: &'c [Slot],
    absent: &'c Absent,
    bound: Option<&'c Bound<'c>>,
}

/// A variable whose value is known.
struct Bound<'b> {
    name: &'b str,
    outcome: Outcome,
    outer: Option<&'b Bound<'b>>,
}

impl Reader<'_> {
    fn read(&self, node: &IdedExpr) -> Outcome {
        match &node.expr {
            Expr::Ident(name) => {
                let bound = std::iter::successors(self.bound, |bound| bound.outer);
                if let Some(bound) = bound.into_iter().find(|bound| bound.name == name) {
                    return bound.outcome.clone();
                }
                let index = name.strip_prefix('@').and_then(|index| index.parse().ok());
                let slot = index.and_then(|index: usize| self.slots.get(index));
                slot.map_or(Outcome::ANY, |slot| self.slot(slot))
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
        self.absent.root == Variable::Previous && self.absent.path.is_root()
    }

    /// Returns the number of steps to the absent value, if the path leads to it or through it.
    fn steps_to_absent(&self, path: &Path) -> Option<usize> {
        (path.root == self.absent.root)
            .then(|| self.absent.path.steps_within(&path.constant()))
            .flatten()
    }

    /// As `Path::walk` does.
    fn path(&self, path: &Path) -> Outcome {
        let Some(length) = self.steps_to_absent(path) else {
            return Outcome::ANY;
        };
        let is_optional = |end: usize| path.steps.iter().take(end).any(|step| step.optional);
        let found = if self.absent.is_null {
            match path.steps.get(length) {
                None if is_optional(length) => return Outcome::ANY,
                None => return Outcome::known(Value::Null),
                Some(step) => {
                    step.optional || is_optional(length) && !matches!(step.key, Key::Field(_))
                }
            }
        } else {
            // Without the variable, only its first step decides.
            is_optional(length.max(1))
        };
        if found {
            Outcome::EMPTY
        } else {
            Outcome::FAILED
        }
    }

    /// As `Path::exists` does.
    fn has(&self, path: &Path) -> Outcome {
        match self.steps_to_absent(path) {
            None => Outcome::ANY,
            Some(length) => Outcome::known(self.absent.is_null && length == path.steps.len()),
        }
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
            (operators::EQUALS, None, [one, other]) => compared(&self.read(one), &self.read(other)),
            (operators::NOT_EQUALS, None, [one, other]) => {
                negated(&compared(&self.read(one), &self.read(other)))
            }
            (operators::IN, None, [one, list]) => contained(&self.read(one), &self.read(list)),
            (name @ ("hasValue" | "value" | "or" | "orValue"), Some(target), _) => {
                self.optional(name, &self.read(target), args)
            }
            (name, target, _) => self.strict(name, target.as_deref(), args),
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
        match (&target.shape, name, other) {
            (Shape::EmptyOptional, "hasValue", _) => Outcome::known(false),
            (Shape::EmptyOptional, "or" | "orValue", Some(other)) => other,
            (Shape::Nothing | Shape::EmptyOptional, ..) => Outcome::FAILED,
            (_, _, other) => {
                Outcome::ANY.or_else_fails(target.fails || other.is_some_and(|other| other.fails))
            }
        }
        .or_else_fails(target.fails)
    }

    fn strict(&self, name: &str, target: Option<&IdedExpr>, args: &[IdedExpr]) -> Outcome {
        let parts: Vec<Outcome> = target
            .into_iter()
            .chain(args)
            .map(|part| self.read(part))
            .collect();
        let fails = parts.iter().any(|part| part.fails);
        let needs_values = !TOLERANT.contains(&name);
        let never =
            |part: &Outcome| part.shape == Shape::Nothing || needs_values && part.is_no_value();
        if parts.iter().any(never) {
            return Outcome::FAILED;
        }
        Outcome::ANY.or_else_fails(fails)
    }

    fn comprehension(&self, comprehension: &ComprehensionExpr) -> Outcome {
        let range = self.read(&comprehension.iter_range);
        if range.shape == Shape::Nothing || range.is_no_value() {
            return Outcome::FAILED;
        }
        let start = self.read(&comprehension.accu_init);
        let fails = range.fails || start.fails;
        let is_empty = matches!(&range.shape, Shape::Known(Value::Array(list)) if list.is_empty());
        if is_empty {
            // No round changes the accumulator. `optMap` binds a variable in this way.
            let bound = Bound {
                name: &comprehension.accu_var,
                outcome: start,
                outer: self.bound,
            };
            let inside = Reader {
                bound: Some(&bound),
                ..*self
            };
            return inside.read(&comprehension.result).or_else_fails(fails);
        }
        let parts = [
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ];
        let inside = parts.into_iter().any(|part| self.read(part).fails);
        Outcome::ANY.or_else_fails(fails || inside)
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

fn constant(literal: &LiteralValue) -> Option<Value> {
    match literal {
        LiteralValue::Boolean(bool) => Some((*bool.inner()).into()),
        LiteralValue::String(text) => Some(text.inner().into()),
        LiteralValue::Int(int) => Some((*int.inner()).into()),
        LiteralValue::Double(double) => Some((*double.inner()).into()),
        LiteralValue::Null => Some(Value::Null),
        LiteralValue::Bytes(_) | LiteralValue::UInt(_) => None,
    }
}
