//! Compiles a source to a tree that is safe to evaluate, with checked and resolved names.
//!
//! The library parses and evaluates by recursion without a limit. So the whole compilation runs on a thread with a
//! large stack, and only a tree of limited depth leaves that thread. Each of Vestibule's names, with the steps behind
//! the name, becomes one variable (`@0`, `@1`, …). [`super::resolve`] resolves these variables.

use std::collections::BTreeSet;
use std::thread;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo,
    operators,
};
use cel::{Env, ParseError};

use super::functions::{DISTINCT, FUNCTIONS, MACROS, Pattern, Style, TOO_BIG, environment};
use super::lists::Entries;
use super::path::{Key, Path, Step};
use super::resolve::Slot;
use super::{CompileError, Scope, Variable, foreign, metering, roots};

/// The maximum length of a source, in bytes.
const MAX_BYTES: usize = 2 * 1024;
/// The maximum depth of a tree. Without a limit, an evaluation overflows a stack of 2 MB at a depth of about 1,000.
const MAX_DEPTH: usize = 200;
/// The maximum number of nested loops.
const LOOPS: usize = 2;
/// The stack of the thread that compiles, in bytes. Parsing 2 KB of `a.a.a…` takes a few MB of it.
const STACK: usize = 64 * 1024 * 1024;

/// An expression that is ready for evaluation.
#[derive(Debug)]
pub(super) struct Compiled {
    /// The expression as it is written.
    pub tree: IdedExpr,
    /// The expression as it is evaluated: each part pays from the budget before it works.
    pub metered: IdedExpr,
    pub slots: Vec<Slot>,
    /// For each slot, the byte of the source at which it first begins.
    pub starts: Vec<Option<usize>>,
    /// The checks that the expression reads, each once.
    pub checks: Vec<String>,
    /// The variables that the expression reads, each once.
    pub roots: BTreeSet<Variable>,
    /// Whether the expression has a loop.
    pub loops: bool,
    /// The slots that hold the visitor's input and are used as a text.
    pub texts: BTreeSet<usize>,
    /// The keys that the operator wrote. Other keys must not be printed.
    pub keys: BTreeSet<String>,
}

impl Compiled {
    /// Returns the path, if the expression is a single path.
    pub fn only_path(&self) -> Option<&Slot> {
        slot_of(&self.tree).and_then(|index| self.slots.get(index))
    }
}

/// Returns the slot of a visited node, if the node is one of Vestibule's variables.
fn slot_of(node: &IdedExpr) -> Option<usize> {
    match &node.expr {
        Expr::Ident(name) => name.strip_prefix('@')?.parse().ok(),
        _ => None,
    }
}

pub(super) fn compile(source: &str, scope: &Scope) -> Result<Compiled, CompileError> {
    if source.len() > MAX_BYTES {
        return Err(error(format!(
            "the expression is {} bytes long, at most {MAX_BYTES} are read",
            source.len()
        )));
    }
    if source.trim().is_empty() {
        return Err(error("an expression is missing here"));
    }
    let env = environment().map_err(|cause| error(cause.to_string()))?;
    thread::scope(|threads| {
        thread::Builder::new()
            .name("compile".to_owned())
            .stack_size(STACK)
            .spawn_scoped(threads, || read(source, scope, env))
            .map_err(|cause| {
                error(format!(
                    "cannot start a thread to compile the expression: {cause}"
                ))
            })?
            .join()
            .unwrap_or_else(|_| Err(error("the expression cannot be read")))
    })
}

fn read(source: &str, scope: &Scope, env: &Env) -> Result<Compiled, CompileError> {
    let (mut tree, info) = env
        .parser()
        .parse_with_source_info(source)
        .map_err(|errors| unreadable(source, errors.errors.first()))?;
    let mut checker = Checker {
        scope,
        env,
        source,
        info: &info,
        locals: Vec::new(),
        loops: 0,
        has_loops: false,
        slots: Vec::new(),
        starts: Vec::new(),
        checks: Vec::new(),
        roots: BTreeSet::new(),
        keys: BTreeSet::new(),
        branches: 0,
        texts: BTreeSet::new(),
        asks_for_type: false,
    };
    checker.visit(&mut tree, 1)?;
    let Checker {
        slots,
        starts,
        checks,
        roots,
        has_loops: loops,
        keys,
        texts,
        asks_for_type,
        ..
    } = checker;
    let mut metered = tree.clone();
    metering::meter(&mut metered);
    Ok(Compiled {
        tree,
        metered,
        slots,
        starts,
        checks,
        roots,
        loops,
        texts: if asks_for_type {
            BTreeSet::new()
        } else {
            texts
        },
        keys,
    })
}

/// One pass over the tree, which checks and rewrites the nodes.
struct Checker<'s> {
    scope: &'s Scope,
    env: &'s Env,
    source: &'s str,
    info: &'s SourceInfo,
    /// The variables of the loops around the current node.
    locals: Vec<String>,
    /// The number of loops around the current node.
    loops: usize,
    /// Whether there is a loop anywhere in the tree.
    has_loops: bool,
    slots: Vec<Slot>,
    starts: Vec<Option<usize>>,
    checks: Vec<String>,
    roots: BTreeSet<Variable>,
    keys: BTreeSet<String>,
    /// The number of branches of `a ? b : c` around the current node.
    branches: usize,
    /// The slots that hold the visitor's input and are used as a text.
    texts: BTreeSet<usize>,
    /// Whether the expression calls `type(…)`. Then the operator distinguishes texts from lists.
    asks_for_type: bool,
}

/// A name with the steps behind it, as found in the tree.
struct Chain<'t> {
    name: &'t str,
    id: u64,
    steps: Vec<Step>,
    /// Whether the chain is the argument of `has(…)`.
    test: bool,
}

/// The meaning of a chain.
enum Resolved {
    /// One of Vestibule's names, and the node at which it begins.
    Slot(Slot, u64),
    /// The name of a type.
    Type,
    /// Neither, or only the beginning of the chain has a meaning.
    Other,
}

impl<'t> Chain<'t> {
    fn of(node: &'t IdedExpr) -> Option<Self> {
        let test = matches!(&node.expr, Expr::Select(select) if select.test);
        let mut steps = Vec::new();
        let mut at = node;
        loop {
            at = match &at.expr {
                Expr::Ident(name) => {
                    steps.reverse();
                    return Some(Self {
                        name,
                        id: at.id,
                        steps,
                        test,
                    });
                }
                Expr::Select(SelectExpr {
                    operand,
                    field,
                    test: inner,
                }) if !*inner || std::ptr::eq(at, node) => {
                    steps.push(Step {
                        key: Key::Field(field.clone()),
                        optional: false,
                    });
                    operand
                }
                Expr::Call(CallExpr {
                    func_name,
                    target: None,
                    args,
                }) => {
                    let [operand, index] = args.as_slice() else {
                        return None;
                    };
                    let Expr::Literal(literal) = &index.expr else {
                        return None;
                    };
                    let key = match (func_name.as_str(), literal) {
                        (operators::OPT_SELECT, LiteralValue::String(name)) => {
                            Key::Field(name.inner().to_owned())
                        }
                        (operators::INDEX | operators::OPT_INDEX, LiteralValue::String(name)) => {
                            Key::Text(name.inner().to_owned())
                        }
                        (operators::INDEX | operators::OPT_INDEX, LiteralValue::Int(index)) => {
                            Key::Index(*index.inner())
                        }
                        _ => return None,
                    };
                    steps.push(Step {
                        key,
                        optional: func_name != operators::INDEX,
                    });
                    operand
                }
                _ => return None,
            };
        }
    }

    /// Returns the chain as `a.b.c`, if it only has names.
    fn dotted(&self) -> Option<String> {
        let mut dotted = self.name.to_owned();
        for step in &self.steps {
            match &step.key {
                Key::Field(name) if !step.optional => {
                    dotted.push('.');
                    dotted.push_str(name);
                }
                _ => return None,
            }
        }
        (!self.test).then_some(dotted)
    }
}

impl Checker<'_> {
    fn visit(&mut self, node: &mut IdedExpr, depth: usize) -> Result<(), CompileError> {
        if depth > MAX_DEPTH {
            return Err(self.error(
                node.id,
                format!("the expression is nested more than {MAX_DEPTH} deep"),
            ));
        }
        match self.name(node, depth)? {
            Resolved::Slot(slot, start) => {
                node.expr = self.variable(slot, start);
                return Ok(());
            }
            Resolved::Type => return Ok(()),
            Resolved::Other => {}
        }
        let id = node.id;
        match &mut node.expr {
            Expr::Ident(_) => Ok(()),
            Expr::Literal(literal) => {
                if let LiteralValue::String(text) = literal {
                    self.keys.insert(text.inner().to_owned());
                }
                Ok(())
            }
            Expr::Select(select) => {
                self.keys.insert(select.field.clone());
                self.visit(&mut select.operand, depth + 1)
            }
            Expr::Call(call) => self.call(id, call, depth),
            Expr::List(list) => {
                let mut elements = list.elements.iter_mut();
                elements.try_for_each(|element| self.visit(element, depth + 1))
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else {
                        return Err(self.error(id, "the map cannot be read"));
                    };
                    self.visit(&mut entry.key, depth + 1)?;
                    self.visit(&mut entry.value, depth + 1)?;
                }
                Ok(())
            }
            Expr::Comprehension(comprehension) => self.comprehension(id, comprehension, depth),
            Expr::Struct(message) => Err(self
                .error(id, format!("there is no type `{}`", message.type_name))
                .with_hint("a map is written `{\"key\": value}`")),
            Expr::Unspecified => Err(self.error(id, "the expression cannot be read")),
        }
    }

    /// Resolves a name and the steps behind it.
    fn name(&mut self, node: &IdedExpr, depth: usize) -> Result<Resolved, CompileError> {
        let Some(chain) = Chain::of(node) else {
            return Ok(Resolved::Other);
        };
        if depth + chain.steps.len() > MAX_DEPTH {
            return Err(self.error(
                node.id,
                format!("the expression is nested more than {MAX_DEPTH} deep"),
            ));
        }
        // The name belongs to the language: an accumulator, or the variable of a binding.
        if chain.name.starts_with(['@', '#']) {
            return Ok(Resolved::Other);
        }
        let name = chain.name.trim_start_matches('.');
        if name == chain.name && self.locals.iter().any(|local| local == name) {
            return Ok(Resolved::Other);
        }
        let Some(root) = Variable::named(name) else {
            let types = self.env.types();
            let is_type = |name: &str| types.find_type(name).is_some();
            return if chain.dotted().is_some_and(|dotted| is_type(&dotted)) {
                Ok(Resolved::Type)
            } else if is_type(name) {
                Ok(Resolved::Other)
            } else {
                Err(self.unknown_name(chain.id, name))
            };
        };
        if !self.scope.roots.contains(&root) {
            return Err(self
                .error(chain.id, format!("`{name}` does not exist here"))
                .with_hint(root.where_it_exists()));
        }
        self.roots.insert(root);
        match root {
            // These variables are not JSON, so the language evaluates the steps behind them.
            Variable::Method | Variable::Now if !chain.steps.is_empty() => {
                return Ok(Resolved::Other);
            }
            Variable::Lists => {
                self.list(&chain)?;
                if chain.steps.len() > 1 {
                    return Ok(Resolved::Other);
                }
            }
            Variable::Checks => self.check(&chain)?,
            Variable::Request => self.request(&chain)?,
            _ => self.member(root, &chain)?,
        }
        self.response_header(root, &chain)?;
        let start = chain.id;
        let path = Path {
            root,
            steps: chain.steps,
        };
        let slot = if chain.test {
            Slot::Has(path)
        } else {
            Slot::Path(path)
        };
        Ok(Resolved::Slot(slot, start))
    }

    /// Checks a list's name. `lists` is only the first part of a name: `lists.name`.
    fn list(&self, chain: &Chain<'_>) -> Result<(), CompileError> {
        let lists = self.scope.lists.names();
        let Some(Step {
            key: Key::Field(name),
            optional: false,
        }) = chain.steps.first()
        else {
            return Err(self
                .error(chain.id, "`lists` is only the first part of a name")
                .with_hint("write `lists.name`"));
        };
        if lists.contains(&name.as_str()) {
            return Ok(());
        }
        let hint = did_you_mean(name, lists.iter().copied())
            .unwrap_or_else(|| "lists are named under `lists:`".to_owned());
        Err(self
            .error(chain.id, format!("no list is named `{name}`"))
            .with_hint(hint))
    }

    /// Checks a check's name. `checks` is only the first part of a name: `checks.name.response`.
    fn check(&mut self, chain: &Chain<'_>) -> Result<(), CompileError> {
        let Some(name) = chain.steps.first().and_then(Step::name) else {
            return Err(self
                .error(chain.id, "`checks` is only the first part of a name")
                .with_hint("write `checks.name.response`"));
        };
        if !self.scope.checks.iter().any(|check| check == name) {
            let checks = self.scope.checks.iter().map(String::as_str);
            let hint = did_you_mean(name, checks)
                .unwrap_or_else(|| "only the response of another check can be read".to_owned());
            return Err(self
                .error(chain.id, format!("no check `{name}` can be read here"))
                .with_hint(hint));
        }
        self.part(chain, 1, &["response"])?;
        if chain.steps.get(1).is_some() {
            self.part(chain, 2, &["status", "headers", "body"])?;
        }
        if !self.checks.iter().any(|check| check == name) {
            self.checks.push(name.to_owned());
        }
        Ok(())
    }

    fn request(&self, chain: &Chain<'_>) -> Result<(), CompileError> {
        self.member(Variable::Request, chain)?;
        let first = chain.steps.first().and_then(Step::name);
        if first == Some("client_ip") && !self.scope.client_ip {
            return Err(self
                .error(chain.id, "`request.client_ip` is not known")
                .with_hint("set hooks.client_ip"));
        }
        if first == Some("headers") && !self.scope.has_other_headers {
            self.request_header(chain)?;
        }
        Ok(())
    }

    /// Checks the name of a header. Kratos passes only listed headers, so any other name would never have a value.
    fn request_header(&self, chain: &Chain<'_>) -> Result<(), CompileError> {
        let known: Vec<&str> = self.scope.headers.iter().map(String::as_str).collect();
        self.part(chain, 1, &known).map_err(|error| {
            let Some(name) = chain.steps.get(1).and_then(Step::name) else {
                return error;
            };
            let add = format!("add `{name}` to `hooks.headers`");
            error.with_hint(match did_you_mean(name, known.iter().copied()) {
                Some(other) => format!("{other} Otherwise {add}"),
                None => add,
            })
        })
    }

    /// Checks the name of a response's header. The names are in lower case, so any other name never has a value.
    fn response_header(&self, root: Variable, chain: &Chain<'_>) -> Result<(), CompileError> {
        let at = match root {
            Variable::Response | Variable::Taken => 0,
            Variable::Checks => 2,
            _ => return Ok(()),
        };
        let is_headers = chain.steps.get(at).and_then(Step::name) == Some("headers");
        let name = chain.steps.get(at + 1).and_then(Step::name);
        let Some(name) = name.filter(|_| is_headers) else {
            return Ok(());
        };
        let lower = name.to_lowercase();
        if lower == name {
            return Ok(());
        }
        Err(self
            .error(
                chain.id,
                format!(
                    "the names of a response's headers are in lower case, so there is no `{name}`"
                ),
            )
            .with_hint(format!("write `headers['{lower}']`")))
    }

    /// Checks that the first step leads to a member that the variable has.
    fn member(&self, root: Variable, chain: &Chain<'_>) -> Result<(), CompileError> {
        let Some(members) = roots::members(root) else {
            return Ok(());
        };
        let checked = self.part(chain, 0, members);
        let name = chain.steps.first().and_then(Step::name).unwrap_or_default();
        checked.map_err(|error| {
            if name.is_empty() {
                return error;
            }
            let known = || format!("`{}` has {}", root.name(), listed(members));
            let near = did_you_mean(name, members.iter().copied())
                .filter(|_| !roots::HIDDEN.contains(&name));
            match (near, roots::instead(root, name)) {
                (Some(near), Some(_)) => error.with_hint(format!("{near} {}", known())),
                (None, Some(instead)) => error.with_hint(format!("{instead}; {}", known())),
                (_, None) => error,
            }
        })
    }

    /// Checks that a step leads to one of the known `parts`.
    fn part(&self, chain: &Chain<'_>, at: usize, parts: &[&str]) -> Result<(), CompileError> {
        let Some(step) = chain.steps.get(at) else {
            return Ok(());
        };
        if step.name().is_some_and(|name| parts.contains(&name)) {
            return Ok(());
        }
        let mut whole = chain.name.to_owned();
        for step in &chain.steps[..at] {
            whole.push('.');
            whole.push_str(step.name().unwrap_or_default());
        }
        let hint = did_you_mean(step.name().unwrap_or_default(), parts.iter().copied())
            .unwrap_or_else(|| format!("it has {}", listed(parts)));
        let message = match step.name() {
            Some(name) => format!("`{whole}` has no `{name}`"),
            None => format!("`{whole}` is not a list"),
        };
        Err(self.error(chain.id, message).with_hint(hint))
    }

    fn call(&mut self, id: u64, call: &mut CallExpr, depth: usize) -> Result<(), CompileError> {
        if OPERATORS.contains(&call.func_name.as_str()) && call.target.is_none() {
            if let (operators::IN, [_, list]) = (call.func_name.as_str(), call.args.as_mut_slice())
            {
                self.look_up(list, |entries| {
                    entries.texts();
                });
            }
            let is_choice = call.func_name == operators::CONDITIONAL;
            for (index, operand) in call.args.iter_mut().enumerate() {
                let in_branch = usize::from(is_choice && index > 0);
                self.branches += in_branch;
                let visited = self.visit(operand, depth + 1);
                self.branches -= in_branch;
                visited?;
            }
            self.note_operands(call);
            return Ok(());
        }
        let qualified = call.target.as_deref().and_then(|target| {
            let name = format!("{}.{}", Chain::of(target)?.dotted()?, call.func_name);
            FUNCTIONS.iter().find(|function| function.name == name)
        });
        if qualified.is_none()
            && let Some(target) = &mut call.target
        {
            // The object comes first: the error of `foo.bar()` with an unknown `foo` is about `foo`.
            self.visit(target, depth + 1)?;
        }
        let style = if qualified.is_none() && call.target.is_some() {
            Style::Member
        } else {
            Style::Global
        };
        let name = qualified.map_or(call.func_name.trim_start_matches('.'), |known| known.name);
        let Some(function) = FUNCTIONS
            .iter()
            .find(|known| known.name == name && known.style == style)
        else {
            return Err(self.at_name(self.unknown_function(id, name, style), &call.func_name));
        };
        let name = function.name;
        let given = call.args.len();
        if given < function.fewest || given > function.most {
            let wanted = match (function.fewest, function.most) {
                (fewest, most) if fewest == most => fewest.to_string(),
                (fewest, most) => format!("{fewest} or {most}"),
            };
            let message =
                format!("wrong number of arguments for `{name}`: {wanted} expected, {given} given");
            return Err(self.at_name(self.error(id, message), &call.func_name));
        }
        match (name, call.args.as_mut_slice()) {
            ("matches", [.., pattern]) => self.pattern(pattern)?,
            ("in_domains", [_, list]) => self.look_up(list, |entries| {
                entries.domains();
            }),
            ("duration", [argument]) => self.duration(argument)?,
            ("distinct", []) => DISTINCT.clone_into(&mut call.func_name),
            _ => {}
        }
        let mut arguments = call.args.iter_mut();
        arguments.try_for_each(|argument| self.visit(argument, depth + 1))?;
        self.asks_for_type |= name == "type";
        match style {
            Style::Member if OF_TEXTS.contains(&name) => self.note_text(call.target.as_deref()),
            Style::Member if name == "format" => {
                if let [
                    IdedExpr {
                        expr: Expr::List(values),
                        ..
                    },
                ] = call.args.as_slice()
                {
                    for value in &values.elements {
                        self.note_text(Some(value));
                    }
                }
            }
            Style::Global if WITH_TEXT.contains(&name) => self.note_text(call.args.first()),
            _ => {}
        }
        Ok(())
    }

    /// Records the operands of `x in lists.name` and `x + "…"` that must be texts.
    fn note_operands(&mut self, call: &CallExpr) {
        let is_list = |node: &IdedExpr| {
            let slot = slot_of(node).and_then(|index| self.slots.get(index));
            matches!(slot, Some(Slot::List(_)))
        };
        let is_text =
            |node: &IdedExpr| matches!(&node.expr, Expr::Literal(LiteralValue::String(_)));
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::IN, [word, list]) if is_list(list) => self.note_text(Some(word)),
            (operators::ADD, [path, text] | [text, path]) if is_text(text) => {
                self.note_text(Some(path));
            }
            _ => {}
        }
    }

    /// Records that a visited node is used as a text.
    ///
    /// In a branch of `a ? b : c` nothing is recorded, because the condition may check the type.
    fn note_text(&mut self, node: Option<&IdedExpr>) {
        if self.branches > 0 {
            return;
        }
        let Some(index) = node.and_then(slot_of) else {
            return;
        };
        if let Some(Slot::Path(path)) = self.slots.get(index)
            && matches!(path.root, Variable::Identity | Variable::Value)
        {
            self.texts.insert(index);
        }
    }

    /// Replaces `lists.name` by a prepared list where the expression only looks up values in the list.
    fn look_up(&mut self, node: &mut IdedExpr, prepare: impl FnOnce(&Entries)) {
        let Some(chain) = Chain::of(node) else {
            return;
        };
        let list = match (chain.name, chain.steps.as_slice()) {
            (
                "lists",
                [
                    Step {
                        key: Key::Field(name),
                        optional: false,
                    },
                ],
            ) if !chain.test
                && self.scope.roots.contains(&Variable::Lists)
                && !self.locals.iter().any(|local| local == "lists") =>
            {
                name.clone()
            }
            _ => return,
        };
        // The visit reports an unknown list.
        if let Some(entries) = self.scope.lists.get(&list) {
            // The list is prepared now and not in the first sign-up.
            prepare(entries);
            node.expr = self.variable(Slot::List(list), node.id);
        }
    }

    /// Checks a duration that the expression writes out.
    fn duration(&self, node: &IdedExpr) -> Result<(), CompileError> {
        let Expr::Literal(LiteralValue::String(text)) = &node.expr else {
            return Ok(());
        };
        if is_duration(text.inner()) {
            return Ok(());
        }
        let hint = match text.inner().strip_suffix('d').map(str::parse::<u32>) {
            Some(Ok(days)) => format!("write `duration('{}h')`", days.saturating_mul(24)),
            _ => "write hours, minutes or seconds, as in `duration('24h')`".to_owned(),
        };
        Err(self
            .error(node.id, format!("`{}` is not a duration", text.inner()))
            .with_hint(hint))
    }

    /// Compiles a pattern, which must be a constant.
    fn pattern(&mut self, node: &mut IdedExpr) -> Result<(), CompileError> {
        let Expr::Literal(LiteralValue::String(source)) = &node.expr else {
            return Err(self
                .error(node.id, "the pattern of `matches` is not a constant text")
                .with_hint("write the pattern as a quoted text: `value.matches(\"^[A-Z]{2}\")`"));
        };
        let pattern = Pattern::new(source.inner()).map_err(|reason| {
            let message = format!("`{}` is not a regular expression: {reason}", source.inner());
            let error = self.error(node.id, message);
            match Pattern::unlimited(source.inner()) {
                Some(pattern) if reason == TOO_BIG => error.with_hint(format!(
                    "write `{pattern}`, and limit the length with `size(…)`, as in `size(value) <= 100`"
                )),
                _ => error,
            }
        })?;
        node.expr = self.variable(Slot::Pattern(pattern), node.id);
        Ok(())
    }

    fn comprehension(
        &mut self,
        id: u64,
        comprehension: &mut ComprehensionExpr,
        depth: usize,
    ) -> Result<(), CompileError> {
        self.visit(&mut comprehension.iter_range, depth + 1)?;
        self.visit(&mut comprehension.accu_init, depth + 1)?;
        // `optMap` and `sortBy` bind a variable by a loop over an empty list.
        let binding =
            matches!(&comprehension.iter_range.expr, Expr::List(list) if list.elements.is_empty());
        let outer = self.locals.len();
        self.locals.push(comprehension.accu_var.clone());
        if !binding {
            self.loops += 1;
            self.has_loops = true;
            if self.loops > LOOPS {
                return Err(self.error(
                    id,
                    format!("more than {LOOPS} nested loops (`all`, `exists`, `map`, `filter`)"),
                ));
            }
            self.locals.push(comprehension.iter_var.clone());
            self.locals.extend(comprehension.iter_var2.clone());
        }
        self.visit(&mut comprehension.loop_cond, depth + 1)?;
        self.visit(&mut comprehension.loop_step, depth + 1)?;
        if !binding {
            self.loops -= 1;
        }
        self.visit(&mut comprehension.result, depth + 1)?;
        self.locals.truncate(outer);
        Ok(())
    }

    /// Returns the variable of a slot. Equal paths share a slot, so that the value is converted once.
    fn variable(&mut self, slot: Slot, start: u64) -> Expr {
        let same = self.slots.iter().position(|known| match (known, &slot) {
            (Slot::Path(one), Slot::Path(other)) | (Slot::Has(one), Slot::Has(other)) => {
                one == other
            }
            (Slot::List(one), Slot::List(other)) => one == other,
            (Slot::Pattern(one), Slot::Pattern(other)) => one.as_str() == other.as_str(),
            _ => false,
        });
        let index = same.unwrap_or_else(|| {
            self.slots.push(slot);
            self.starts.push(self.offset_of(start));
            self.slots.len() - 1
        });
        Expr::Ident(format!("@{index}"))
    }

    fn unknown_name(&self, id: u64, name: &str) -> CompileError {
        let known = self.scope.roots.iter().map(|root| root.name());
        let locals = self.locals.iter().map(String::as_str);
        let known = known.chain(locals.filter(|local| !local.starts_with(['@', '#'])));
        let error = self.error(id, format!("there is no name `{name}`"));
        if let Some(hint) = foreign::name(name) {
            return error.with_hint(hint);
        }
        let hint = did_you_mean(name, known.clone()).unwrap_or_else(|| {
            let known = listed(&known.collect::<Vec<_>>());
            format!("the names here are {known}; write a text in quotes")
        });
        error.with_hint(hint)
    }

    fn unknown_function(&self, id: u64, name: &str, style: Style) -> CompileError {
        if let Some(hint) = foreign::function(name, style) {
            return self
                .error(id, format!("there is no function `{name}`"))
                .with_hint(hint);
        }
        if let Some((_, way)) = MACROS.iter().find(|(known, _)| *known == name) {
            return self
                .error(id, format!("`{name}` has another form"))
                .with_hint(format!("write `{way}`"));
        }
        if FUNCTIONS.iter().any(|known| known.name == name) {
            let (message, hint) = match style {
                Style::Global => ("is called on a value", format!("write `x.{name}(…)`")),
                Style::Member => ("is not called on a value", format!("write `{name}(…)`")),
            };
            return self
                .error(id, format!("`{name}` {message}"))
                .with_hint(hint);
        }
        let known = FUNCTIONS.iter().map(|known| known.name);
        let macros = MACROS.iter().map(|(name, _)| *name);
        let error = self.error(id, format!("there is no function `{name}`"));
        match did_you_mean(
            name,
            known.chain(macros).filter(|name| !name.starts_with('@')),
        ) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// Moves the position of an error from the bracket of a call, as the library reports it, to the function's name.
    fn at_name(&self, error: CompileError, name: &str) -> CompileError {
        let before = error.offset.and_then(|offset| self.source.get(..offset));
        let start = before.and_then(|before| before.trim_end().strip_suffix(name));
        CompileError {
            offset: start.map(str::len).or(error.offset),
            ..error
        }
    }

    fn error(&self, id: u64, message: impl Into<String>) -> CompileError {
        CompileError {
            offset: self.offset_of(id),
            ..error(message)
        }
    }

    /// Returns the byte of the source at which a node begins.
    fn offset_of(&self, id: u64) -> Option<usize> {
        let start = self.info.offset_for(id).map(|(start, _)| start);
        start
            .and_then(|start| usize::try_from(start).ok())
            .filter(|start| self.source.is_char_boundary(*start))
    }
}

/// Returns whether the language reads a text as a duration: `1h30m`, `-1.5s`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == '.');
        let units = ["ms", "us", "µs", "ns", "h", "m", "s"];
        let behind = units.iter().find_map(|name| unit.strip_prefix(name));
        match behind {
            Some(behind) if unit.len() < rest.len() => rest = behind,
            _ => return false,
        }
    }
    !text.is_empty() && !text.ends_with(['-', '+'])
}

/// Functions that are called on a text.
const OF_TEXTS: &[&str] = &[
    "charAt",
    "contains",
    "endsWith",
    "indexOf",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "replace",
    "split",
    "startsWith",
    "substring",
    "trim",
    "upperAscii",
];

/// Functions whose first argument is a text, or another value that is neither a list nor a map.
const WITH_TEXT: &[&str] = &[
    "base64_decode",
    "base64_encode",
    "bool",
    "bytes",
    "domain",
    "double",
    "duration",
    "hmac_sha256",
    "in_domains",
    "int",
    "matches",
    "md5",
    "query_parameter",
    "sha256",
    "string",
    "strings.quote",
    "timestamp",
    "uint",
    "url_decode",
    "url_encode",
];

const OPERATORS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
    operators::NOT_STRICTLY_FALSE,
    operators::IN,
];

/// Converts the parser's first error to a message that needs no knowledge of the grammar.
fn unreadable(source: &str, first: Option<&ParseError>) -> CompileError {
    let Some(first) = first else {
        return error("the expression cannot be read");
    };
    let offset = offset(source, first.pos);
    let text = first
        .msg
        .strip_prefix("Syntax error: ")
        .unwrap_or(&first.msg);
    let text = text.split(" expecting ").next().unwrap_or(text);
    let (found, message) = if text.contains("<EOF>") {
        ("", "the expression ends too early".to_owned())
    } else if let Some(found) = quoted(text, "token recognition error at: ") {
        (found, format!("`{found}` is not valid in an expression"))
    } else if let Some(found) = quoted(text, "mismatched input ")
        .or_else(|| quoted(text, "extraneous input "))
        .or_else(|| quoted(text, "no viable alternative at input "))
    {
        (found, format!("`{found}` is not expected here"))
    } else if text.to_lowercase().contains("recursion") {
        ("", "the expression is nested too deeply".to_owned())
    } else {
        let mut characters = text.chars();
        let lower = characters
            .next()
            .map(|first| first.to_lowercase().to_string());
        ("", lower.unwrap_or_default() + characters.as_str())
    };
    let hint = match found.trim() {
        _ if text.contains("has()") => Some(
            "`has(…)` needs a path, as in `has(identity.traits.x)`; for `value`, write `value != null`",
        ),
        "and" => Some("write `&&`"),
        "or" => Some("write `||`"),
        "not" => Some("write `!`"),
        found if found.starts_with('=') => Some("equality is written `==`"),
        found if found.starts_with('&') => Some("write `&&`"),
        found if found.starts_with('|') => Some("write `||`"),
        found if found.starts_with(['"', '\'']) => Some("the text has no closing quote"),
        _ => None,
    };
    CompileError {
        offset,
        hint: hint.map(str::to_owned),
        ..error(message)
    }
}

/// Returns the quoted text behind the prefix.
fn quoted<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let found = text.strip_prefix(prefix)?.trim();
    let found = found.strip_prefix('\'').unwrap_or(found);
    Some(found.strip_suffix('\'').unwrap_or(found))
}

/// Returns the byte at a line (from 1) and a column (in characters, from 1).
fn offset(source: &str, (line, column): (isize, isize)) -> Option<usize> {
    let line = usize::try_from(line).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let lines = source.split_inclusive('\n');
    let start: usize = lines.clone().take(line).map(str::len).sum();
    let text = lines.clone().nth(line)?;
    let within = text.char_indices().map(|(offset, _)| offset).nth(column);
    Some(start + within.unwrap_or(text.len()))
}

/// Returns the nearest known name as a hint, if one is near enough.
fn did_you_mean<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<String> {
    let lower = name.to_lowercase();
    known
        .map(|known| {
            (
                strsim::damerau_levenshtein(&lower, &known.to_lowercase()),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= (known.len().max(name.len()) / 3).max(1))
        .min()
        .map(|(_, known)| format!("did you mean `{known}`?"))
}

/// Formats names as `a`, `b` and `c`.
fn listed(names: &[&str]) -> String {
    let names = names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn error(message: impl Into<String>) -> CompileError {
    CompileError {
        message: message.into(),
        offset: None,
        hint: None,
        piece: 0,
    }
}
