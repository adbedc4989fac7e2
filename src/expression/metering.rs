//! Rewrites a compiled expression so that each part of it pays from the budget before it works.
//!
//! - A round of a loop pays a step for each operator and function in it.
//! - An operator or a function pays for the bytes that it reads: the argument `x` becomes `@read(x, @meter)`, or
//!   `@made(x, @meter)` if it is itself a result. Variables of Vestibule pay when they are resolved, and constants need
//!   not pay.
//! - A function whose result or work can be larger than its arguments gets the meter as its last argument.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, operators,
};

use super::budget::{MADE, READ, SORTED};
use super::functions::FUNCTIONS;
use super::resolve::{BORROWED, BUDGET, METER};

/// Functions that take the meter, with the name of the form that does.
const WITH_METER: &[(&str, &str)] = &[
    ("@distinct", "@distinct"),
    ("domain", "domain"),
    ("in_domains", "in_domains"),
    ("join", "@join"),
    ("matches", "matches"),
    ("replace", "@replace"),
];

/// Functions of the library whose work grows with the product of their arguments, and Vestibule's own.
const REPLACED: &[(&str, &str)] = &[("indexOf", "@indexOf"), ("lastIndexOf", "@lastIndexOf")];

/// Operators whose operands are passed on, or are true or false.
const PASS_ON: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_NOT,
    operators::LOGICAL_OR,
    operators::NOT_STRICTLY_FALSE,
];

/// Operators that return a part of their first operand, without reading the rest.
const PARTS: &[&str] = &[
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
];

/// Operators and functions whose result has a small constant size.
const SMALL: &[&str] = &[
    operators::DIVIDE,
    operators::EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::LOGICAL_AND,
    operators::LOGICAL_NOT,
    operators::LOGICAL_OR,
    operators::MODULO,
    operators::MULTIPLY,
    operators::NEGATE,
    operators::NOT_EQUALS,
    operators::NOT_STRICTLY_FALSE,
    operators::SUBSTRACT,
    "bool",
    "charAt",
    "contains",
    "domain",
    "double",
    "duration",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "hasValue",
    "hmac_sha256",
    "in_domains",
    "@indexOf",
    "int",
    "@lastIndexOf",
    "matches",
    "md5",
    "sha256",
    "size",
    "startsWith",
    "timestamp",
    "type",
    "uint",
];

/// Rewrites an expression.
pub(super) fn meter(tree: &mut IdedExpr) {
    let mut pass = Pass { steps: 0 };
    pass.node(tree);
    pay_for(tree);
}

struct Pass {
    /// The operators and functions so far, without those in loops.
    steps: usize,
}

impl Pass {
    fn node(&mut self, node: &mut IdedExpr) {
        self.steps += 1;
        match &mut node.expr {
            Expr::Select(select) => {
                self.node(&mut select.operand);
                if !select.test {
                    borrow(&mut select.operand);
                }
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.elements(list),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.argument(&mut entry.key);
                        self.argument(&mut entry.value);
                    }
                }
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
        }
    }

    fn elements(&mut self, list: &mut ListExpr) {
        for element in &mut list.elements {
            self.argument(element);
        }
    }

    /// Rewrites a node that is read as a whole.
    fn argument(&mut self, node: &mut IdedExpr) {
        self.node(node);
        pay_for(node);
    }

    fn call(&mut self, call: &mut CallExpr) {
        let name = call.func_name.as_str();
        if call.target.is_none() && PASS_ON.contains(&name) {
            call.args.iter_mut().for_each(|operand| self.node(operand));
            return;
        }
        if call.target.is_none() && PARTS.contains(&name) {
            if let [operand, key] = call.args.as_mut_slice() {
                self.node(operand);
                borrow(operand);
                self.argument(key);
            }
            return;
        }
        let keys_are_sorted = name == "@sortByAssociatedKeys";
        let is_sorted = name == "sort";
        if let Some(target) = &mut call.target
            && !is_namespace(target, &call.func_name)
        {
            self.argument(target);
            if is_sorted {
                wrap(target, SORTED);
            }
        }
        for argument in &mut call.args {
            self.argument(argument);
            if keys_are_sorted {
                wrap(argument, SORTED);
            }
        }
        give_meter(call);
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr) {
        self.argument(&mut comprehension.iter_range);
        self.argument(&mut comprehension.accu_init);
        let outside = std::mem::take(&mut self.steps);
        self.node(&mut comprehension.loop_cond);
        self.step_of_loop(&mut comprehension.loop_step, &comprehension.accu_var);
        let of_round = std::mem::replace(&mut self.steps, outside);
        count_rounds(comprehension, of_round);
        self.node(&mut comprehension.result);
    }

    /// Rewrites the step of a loop. The library runs `@result + [x]` fast only in this form, so only `x` is wrapped.
    fn step_of_loop(&mut self, step: &mut IdedExpr, accumulator: &str) {
        let is_accumulator =
            |node: &IdedExpr| matches!(&node.expr, Expr::Ident(name) if name == accumulator);
        match &mut step.expr {
            Expr::Call(CallExpr {
                func_name, args, ..
            }) => match (func_name.as_str(), args.as_mut_slice()) {
                (operators::ADD, [result, added]) if is_accumulator(result) => {
                    self.steps += 1;
                    self.node(added);
                }
                (operators::CONDITIONAL, [condition, then, otherwise])
                    if is_accumulator(otherwise) =>
                {
                    self.steps += 1;
                    self.node(condition);
                    self.step_of_loop(then, accumulator);
                }
                _ => self.node(step),
            },
            _ => self.node(step),
        }
    }
}

/// Lets a variable of Vestibule pay only once, if an operator only reads a part of it.
fn borrow(operand: &mut IdedExpr) {
    match &mut operand.expr {
        Expr::Ident(name) if is_slot(name) => *name = format!("{BORROWED}{}", &name[1..]),
        // The library copies the value of an optional.
        Expr::Call(call)
            if matches!(
                call.func_name.as_str(),
                operators::OPT_INDEX | operators::OPT_SELECT
            ) =>
        {
            wrap(operand, READ);
        }
        _ => {}
    }
}

/// Lets a node pay for its value, unless it is small or has paid already.
fn pay_for(node: &mut IdedExpr) {
    let is_constant = |element: &IdedExpr| matches!(element.expr, Expr::Literal(_));
    let function = match &node.expr {
        Expr::Literal(_) | Expr::Unspecified | Expr::Struct(_) => return,
        // Vestibule's variables, and those of the language itself.
        Expr::Ident(name) if name.starts_with(['@', '#']) => return,
        Expr::Select(select) if select.test => return,
        Expr::Ident(_) | Expr::Select(_) => READ,
        Expr::Call(call) => match call.func_name.as_str() {
            READ | MADE | SORTED => return,
            name if SMALL.contains(&name) => return,
            name if PARTS.contains(&name) => READ,
            _ => MADE,
        },
        Expr::List(list) if list.elements.iter().all(is_constant) => return,
        Expr::Map(map) if map.entries.is_empty() => return,
        Expr::List(_) | Expr::Map(_) | Expr::Comprehension(_) => MADE,
    };
    wrap(node, function);
}

fn wrap(node: &mut IdedExpr, function: &str) {
    let inner = std::mem::take(node);
    let id = inner.id;
    node.id = id;
    node.expr = Expr::Call(CallExpr {
        func_name: function.to_owned(),
        target: None,
        args: vec![inner, variable(id, METER)],
    });
}

fn give_meter(call: &mut CallExpr) {
    let of = |table: &[(&str, &'static str)]| {
        let found = table.iter().find(|(name, _)| *name == call.func_name);
        found.map(|(_, own)| (*own).to_owned())
    };
    if let Some(own) = of(REPLACED) {
        call.func_name = own;
    } else if let Some(own) = of(WITH_METER) {
        call.func_name = own;
        call.args.push(variable(0, METER));
    }
}

/// Returns whether a target is the first part of a function's name, as in `optional.of(x)`.
fn is_namespace(target: &IdedExpr, function: &str) -> bool {
    let Expr::Ident(namespace) = &target.expr else {
        return false;
    };
    let rest = |name: &'static str| name.strip_prefix(namespace.as_str())?.strip_prefix('.');
    FUNCTIONS
        .iter()
        .any(|known| rest(known.name) == Some(function))
}

fn variable(id: u64, name: impl Into<String>) -> IdedExpr {
    IdedExpr {
        id,
        expr: Expr::Ident(name.into()),
    }
}

fn is_slot(name: &str) -> bool {
    name.strip_prefix('@')
        .is_some_and(|index| index.starts_with(|first: char| first.is_ascii_digit()))
}

/// Makes each round of a loop pay its steps.
///
/// A conditional pays. An error in its condition ends a loop immediately, while `&&` and `||` may ignore the error.
fn count_rounds(comprehension: &mut ComprehensionExpr, steps: usize) {
    // `optMap` and `sortBy` bind a variable by a loop over an empty list.
    let is_binding =
        matches!(&comprehension.iter_range.expr, Expr::List(list) if list.elements.is_empty());
    if is_binding {
        return;
    }
    let plain = Expr::Literal(LiteralValue::Null);
    let no = Expr::Literal(LiteralValue::Boolean(false.into()));
    // The library runs `map` and `filter` fast if their condition is a literal. Then the element, or the condition of
    // the step, is wrapped instead.
    let step = match &mut comprehension.loop_step.expr {
        Expr::Call(step) if matches!(comprehension.loop_cond.expr, Expr::Literal(_)) => step,
        _ => return counted(&mut comprehension.loop_cond, steps, no),
    };
    match (step.func_name.as_str(), step.args.as_mut_slice()) {
        (operators::CONDITIONAL, [condition, ..]) => counted(condition, steps, no),
        (operators::ADD, [_, added]) => match &mut added.expr {
            Expr::List(ListExpr { elements, .. }) if elements.len() == 1 => {
                counted(&mut elements[0], steps, plain);
            }
            _ => counted(&mut comprehension.loop_cond, steps, no),
        },
        _ => counted(&mut comprehension.loop_cond, steps, no),
    }
}

/// Replaces `x` by `@budget7 ? x : otherwise`, which pays seven steps.
fn counted(node: &mut IdedExpr, steps: usize, otherwise: Expr) {
    let inner = std::mem::take(node);
    let id = inner.id;
    node.id = id;
    node.expr = Expr::Call(CallExpr {
        func_name: operators::CONDITIONAL.to_owned(),
        target: None,
        args: vec![
            variable(id, format!("{BUDGET}{steps}")),
            inner,
            IdedExpr {
                id,
                expr: otherwise,
            },
        ],
    });
}
