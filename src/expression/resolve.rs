//! Resolves the variables of an expression in one evaluation, and limits the work of the evaluation.

use std::collections::HashMap;
use std::sync::OnceLock;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString,
    CelTimestamp,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::Value;

use super::budget::{BYTES_PER_STEP, ELEMENT_BYTES, Meter};
use super::functions::Pattern;
use super::path::{Found, Miss, Path};
use super::{EvaluationError, Variable, Variables};

/// The beginning of the variable that each round of a loop reads: `@budget7` is true, and pays seven steps.
pub(super) const BUDGET: &str = "@budget";
/// The variable whose value is the meter.
pub(super) const METER: &str = "@meter";
/// The beginning of a variable of which only a part is read: `@of7` is `@7`, and pays only when it is converted.
pub(super) const BORROWED: &str = "@of";

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
    /// The lists and maps with their size in bytes. Each is converted once.
    converted: Vec<OnceLock<(Box<dyn Val + 'a>, usize)>>,
    meter: Meter,
}

impl<'a> Resolver<'a> {
    pub fn new(variables: Variables<'a>, slots: &'a [Slot], steps: usize) -> Self {
        Self {
            variables,
            slots,
            converted: slots.iter().map(|_| OnceLock::new()).collect(),
            meter: Meter::new(steps),
        }
    }

    /// Returns the error if the evaluation exceeded its budget.
    pub fn exceeded(&self) -> Option<&'static str> {
        self.meter.exceeded()
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
        let index = variable
            .strip_prefix(BORROWED)
            .or_else(|| variable.strip_prefix('@'))?;
        let index = index.parse().ok()?;
        self.slots.get(index).map(|slot| (index, slot))
    }

    fn path<'b>(
        &'b self,
        index: usize,
        path: &'b Path,
        is_borrowed: bool,
    ) -> Option<CowVal<'b, 'b>> {
        match path.root {
            Variable::Method => return Some(CowVal::owned(CelString::from(self.variables.method))),
            Variable::Now => {
                let now = CelTimestamp::from(self.variables.now.fixed_offset());
                return Some(CowVal::owned(now));
            }
            Variable::Lists => {
                let name = path.steps.first()?.name()?;
                let entries = self.variables.lists.get(name)?;
                let bytes = if is_borrowed {
                    BYTES_PER_STEP
                } else {
                    entries.bytes()
                };
                self.meter.pay(bytes).ok()?;
                return Some(CowVal::Borrowed(entries.as_list()));
            }
            _ => {}
        }
        let (value, optional) = match path.walk(&self.variables).ok()? {
            Found::Value { value, optional } => (value, optional),
            Found::Nothing => return Some(CowVal::owned(CelOptional::none())),
        };
        let convert = || {
            let mut bytes = 0;
            let value = to_cel(value, &mut bytes);
            let value: Box<dyn Val + 'a> = if optional {
                Box::new(CelOptional::of(value))
            } else {
                value
            };
            (value, bytes)
        };
        match value {
            Value::Array(_) | Value::Object(_) => {
                let place = self.converted.get(index)?;
                let is_new = place.get().is_none();
                let (converted, bytes) = place.get_or_init(convert);
                let is_read = is_new || !is_borrowed;
                let paid = if is_read { *bytes } else { BYTES_PER_STEP };
                self.meter.pay(paid).ok()?;
                Some(CowVal::Borrowed(converted.as_ref()))
            }
            Value::String(text) => {
                self.meter.pay(text.len()).ok()?;
                Some(CowVal::Owned(convert().0))
            }
            _ => Some(CowVal::Owned(convert().0)),
        }
    }
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        static TRUE: CelBool = CelBool::TRUE;
        static FALSE: CelBool = CelBool::FALSE;
        if let Some(steps) = variable.strip_prefix(BUDGET) {
            let steps = steps.parse().ok()?;
            return self
                .meter
                .pay_steps(steps)
                .then_some(CowVal::Borrowed(&TRUE));
        }
        if variable == METER {
            return Some(CowVal::Borrowed(&self.meter));
        }
        let (index, slot) = self.slot(variable)?;
        match slot {
            Slot::Path(path) => self.path(index, path, variable.starts_with(BORROWED)),
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

/// Converts a JSON value to CEL values, and adds up its size in bytes.
///
/// CEL values only contain each other, so the whole value is converted. Texts are borrowed. Whole numbers that fit
/// are `int`, all others `double`.
fn to_cel<'v>(value: &'v Value, bytes: &mut usize) -> Box<dyn Val + 'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(bool) => Box::new(CelBool::from(*bool)),
        Value::Number(number) => match number.as_i64() {
            Some(int) => Box::new(CelInt::from(int)),
            None => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => {
            *bytes += text.len();
            Box::new(CelString::from(text.as_str()))
        }
        Value::Array(list) => {
            *bytes += list.len() * ELEMENT_BYTES;
            let elements = list.iter().map(|element| to_cel(element, bytes));
            Box::new(CelList::from(elements.collect::<Vec<_>>()))
        }
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| {
                *bytes += key.len() + ELEMENT_BYTES;
                let key = CelMapKey::String(key.as_str().into());
                (key, to_cel(value, bytes))
            });
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}
