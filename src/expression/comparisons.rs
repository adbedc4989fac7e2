//! What an expression compares with the values that it reads, to find comparisons that are never true.

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::path::ReadPath;
use super::resolve::Slot;
use super::{Expression, Variable};

/// A value that an expression compares by `==`, `!=` or `in`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The variable.
    pub root: Variable,
    /// The path of the value.
    pub path: ReadPath,
    /// The byte of the source at which the path first begins.
    pub offset: Option<usize>,
    /// Whether the path has an optional step, so that its value is an optional.
    pub is_optional: bool,
    /// What the value is compared with.
    pub with: Compared,
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Compared {
    /// A value that the expression writes out.
    Constant(Value),
    /// The value of a path without an optional step, or the entries of a list.
    Read,
    /// Another expression.
    Other,
}

impl Expression {
    /// Returns the comparisons, in order.
    #[must_use]
    pub fn comparisons(&self) -> Vec<Comparison> {
        let mut found = Vec::new();
        self.collect(&self.compiled.tree, &mut found);
        found
    }

    fn collect(&self, node: &IdedExpr, found: &mut Vec<Comparison>) {
        if let Expr::Call(call) = &node.expr
            && let [one, other] = call.args.as_slice()
        {
            match call.func_name.as_str() {
                operators::EQUALS | operators::NOT_EQUALS => {
                    self.add(one, other, found);
                    self.add(other, one, found);
                }
                operators::IN => match &other.expr {
                    Expr::List(list) => {
                        for entry in &list.elements {
                            self.add(one, entry, found);
                        }
                    }
                    _ => self.add(one, other, found),
                },
                _ => {}
            }
        }
        for part in parts(node) {
            self.collect(part, found);
        }
    }

    fn add(&self, one: &IdedExpr, with: &IdedExpr, found: &mut Vec<Comparison>) {
        let Some((index, Slot::Path(path))) = self.slot(one) else {
            return;
        };
        let is_optional = |path: &super::path::Path| path.steps.iter().any(|step| step.optional);
        let with = match (&with.expr, self.slot(with)) {
            (Expr::Literal(literal), _) => {
                constant(literal).map_or(Compared::Other, Compared::Constant)
            }
            (_, Some((_, Slot::Path(other)))) if !is_optional(other) => Compared::Read,
            (_, Some((_, Slot::List(_)))) => Compared::Read,
            _ => Compared::Other,
        };
        found.push(Comparison {
            root: path.root,
            path: path.constant(),
            offset: self.compiled.starts.get(index).copied().flatten(),
            is_optional: is_optional(path),
            with,
        });
    }

    fn slot(&self, node: &IdedExpr) -> Option<(usize, &Slot)> {
        let Expr::Ident(name) = &node.expr else {
            return None;
        };
        let index = name.strip_prefix('@')?.parse().ok()?;
        Some((index, self.compiled.slots.get(index)?))
    }
}

/// Returns the parts of a node.
fn parts(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some([&entry.key, &entry.value]),
                EntryExpr::StructField(_) => None,
            });
            entries.flatten().collect()
        }
        Expr::Comprehension(comprehension) => vec![
            &comprehension.iter_range,
            &comprehension.accu_init,
            &comprehension.loop_cond,
            &comprehension.loop_step,
            &comprehension.result,
        ],
        _ => Vec::new(),
    }
}

/// Returns a literal as JSON.
pub(super) fn constant(literal: &LiteralValue) -> Option<Value> {
    match literal {
        LiteralValue::Boolean(bool) => Some((*bool.inner()).into()),
        LiteralValue::String(text) => Some(text.inner().into()),
        LiteralValue::Int(int) => Some((*int.inner()).into()),
        LiteralValue::Double(double) => Some((*double.inner()).into()),
        LiteralValue::Null => Some(Value::Null),
        LiteralValue::Bytes(_) | LiteralValue::UInt(_) => None,
    }
}
