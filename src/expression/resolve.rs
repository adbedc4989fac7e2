//! Resolves the variables of an expression in one evaluation, and limits the work of the evaluation.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString,
    CelTimestamp,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::Value;

use super::functions::Pattern;
use super::path::{Found, Miss, Path};
use super::{EvaluationError, Variable, Variables};

/// The variable that each round of a loop reads. The variable has a value until the evaluation has used up its
/// rounds.
pub(super) const BUDGET: &str = "@budget";

/// The maximum number of loop rounds in an evaluation. One round takes about half a microsecond.
///
/// The language has no limit of its own, and a visitor decides the length of the lists. A list of 256 KiB would keep
/// two nested loops running for hours.
const ROUNDS: u64 = 1_000_000;

/// The number of parts of a list or a map that cost as much as one round.
///
/// A loop may search or copy the list in each round, so this limit also bounds the memory.
const PARTS_PER_ROUND: usize = 8;

/// The number of bytes of a text that cost as much as one round.
const BYTES_PER_ROUND: usize = 256;

/// The meaning of a variable `@0`, `@1`, … of a compiled expression.
#[derive(Debug)]
pub(super) enum Slot {
    /// The value at the end of a path.
    Path(Path),
    /// `has(path)`
    Has(Path),
    /// A list for look-ups.
    List(String),
    /// A constant regular expression.
    Pattern(Pattern),
}

impl Slot {
    /// Returns an error if the slot is a path to a list or an object.
    pub fn expects_text(&self, variables: &Variables<'_>) -> Result<(), EvaluationError> {
        let Self::Path(path) = self else {
            return Ok(());
        };
        let kind = match path.walk(variables) {
            Ok(Found::Value {
                value: Value::Array(_),
                ..
            }) => "a list",
            Ok(Found::Value {
                value: Value::Object(_),
                ..
            }) => "a map",
            _ => return Ok(()),
        };
        let written = path.written(path.steps.len());
        Err(EvaluationError::new(format!(
            "`{written}` is {kind} where a text is expected"
        )))
    }
}

/// Resolves the variables of one evaluation.
pub(super) struct Resolver<'a> {
    variables: Variables<'a>,
    slots: &'a [Slot],
    /// The lists and maps with their number of parts. Each is converted once.
    converted: Vec<OnceLock<(Box<dyn Val + 'a>, usize)>>,
    rounds: AtomicU64,
}

impl<'a> Resolver<'a> {
    pub fn new(variables: Variables<'a>, slots: &'a [Slot]) -> Self {
        Self {
            variables,
            slots,
            converted: slots.iter().map(|_| OnceLock::new()).collect(),
            rounds: AtomicU64::new(ROUNDS),
        }
    }

    /// Returns whether the evaluation used up its rounds.
    pub fn exhausted(&self) -> bool {
        self.rounds.load(Ordering::Relaxed) == 0
    }

    /// Returns the reason why a variable of a path has no value.
    pub fn miss(&self, variable: &str) -> Option<(&'a Path, Miss)> {
        match self.slot(variable)?.1 {
            Slot::Path(path) => path.walk(&self.variables).err().map(|miss| (path, miss)),
            Slot::Has(path) => path.exists(&self.variables).err().map(|miss| (path, miss)),
            Slot::List(_) | Slot::Pattern(_) => None,
        }
    }

    fn slot(&self, variable: &str) -> Option<(usize, &'a Slot)> {
        let index = variable.strip_prefix('@')?.parse().ok()?;
        self.slots.get(index).map(|slot| (index, slot))
    }

    /// Subtracts the rounds from the budget, and returns false if the budget is used up.
    fn spend(&self, rounds: u64) -> bool {
        // One evaluation stays on one thread, so no other thread writes this value.
        let left = self.rounds.load(Ordering::Relaxed).saturating_sub(rounds);
        self.rounds.store(left, Ordering::Relaxed);
        left > 0
    }

    /// Subtracts the cost of reading something of this size, as [`Self::spend`] does.
    fn spend_on(&self, size: usize, per_round: usize) -> bool {
        self.spend(u64::try_from(size / per_round).unwrap_or(ROUNDS))
    }

    fn path<'b>(&'b self, index: usize, path: &'b Path) -> Option<CowVal<'b, 'b>> {
        match path.root {
            Variable::Method => return Some(CowVal::owned(CelString::from(self.variables.method))),
            Variable::Now => {
                let now = CelTimestamp::from(self.variables.now.fixed_offset());
                return Some(CowVal::owned(now));
            }
            Variable::Lists => {
                let name = path.steps.first()?.name()?;
                let entries = self.variables.lists.get(name)?;
                return self
                    .spend_on(entries.len(), PARTS_PER_ROUND)
                    .then(|| CowVal::Borrowed(entries.as_list()));
            }
            _ => {}
        }
        let (value, optional) = match path.walk(&self.variables).ok()? {
            Found::Value { value, optional } => (value, optional),
            Found::Nothing => return Some(CowVal::owned(CelOptional::none())),
        };
        let convert = || {
            let mut parts = 0;
            let value = to_cel(value, &mut parts);
            let value: Box<dyn Val + 'a> = if optional {
                Box::new(CelOptional::of(value))
            } else {
                value
            };
            (value, parts)
        };
        match value {
            Value::Array(_) | Value::Object(_) => {
                let (converted, parts) = self.converted.get(index)?.get_or_init(convert);
                self.spend_on(*parts, PARTS_PER_ROUND)
                    .then(|| CowVal::Borrowed(converted.as_ref()))
            }
            Value::String(text) if !self.spend_on(text.len(), BYTES_PER_ROUND) => None,
            _ => Some(CowVal::Owned(convert().0)),
        }
    }
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        static TRUE: CelBool = CelBool::TRUE;
        static FALSE: CelBool = CelBool::FALSE;
        if variable == BUDGET {
            return self.spend(1).then_some(CowVal::Borrowed(&TRUE));
        }
        let (index, slot) = self.slot(variable)?;
        match slot {
            Slot::Path(path) => self.path(index, path),
            Slot::Has(path) => {
                let exists = match path.root {
                    Variable::Lists => true,
                    _ => path.exists(&self.variables).ok()?,
                };
                Some(CowVal::Borrowed(if exists { &TRUE } else { &FALSE }))
            }
            Slot::List(name) => Some(CowVal::Borrowed(self.variables.lists.get(name)?)),
            Slot::Pattern(pattern) => Some(CowVal::Borrowed(pattern)),
        }
    }
}

/// Converts a JSON value to CEL values, and counts its parts.
///
/// CEL values only contain each other, so the whole value is converted. Texts are borrowed. Whole numbers that fit
/// are `int`, all others `double`.
fn to_cel<'v>(value: &'v Value, parts: &mut usize) -> Box<dyn Val + 'v> {
    *parts += 1;
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(bool) => Box::new(CelBool::from(*bool)),
        Value::Number(number) => match number.as_i64() {
            Some(int) => Box::new(CelInt::from(int)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(list) => {
            let elements = list.iter().map(|element| to_cel(element, parts));
            Box::new(CelList::from(elements.collect::<Vec<_>>()))
        }
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| {
                let key = CelMapKey::String(key.as_str().into());
                (key, to_cel(value, parts))
            });
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}
