//! The budget of one evaluation: steps, and bytes that are read and made.
//!
//! The language has no limit of its own, and a visitor decides the length of texts and lists. [`super::metering`]
//! rewrites a compiled expression so that every loop, operator and function pays from the budget before it works.

use std::any::Any;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use cel::common::types::{
    CelBytes, CelList, CelMap, CelMapKey, CelOptional, CelString, DYN_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::functions::take;

/// The maximum number of steps in an evaluation.
pub const MAX_STEPS: usize = 250_000;
/// The steps of an evaluation that is not moved to another thread: few enough not to delay other calls.
pub(super) const QUICK_STEPS: usize = 4_000;
/// The number of bytes that cost as much as one step.
pub const BYTES_PER_STEP: usize = 64;
/// The size of an element of a list or a map besides its texts, in bytes.
pub const ELEMENT_BYTES: usize = 32;
/// The maximum size of the result of an expression, a function or an operator, in bytes.
pub const MAX_RESULT: usize = 1024 * 1024;

/// The error of an evaluation that used up its steps.
pub(super) const TOO_MANY_STEPS: &str =
    "took too many steps: a text or a list is too long for this expression";
/// The error of an evaluation with a result above [`MAX_RESULT`].
pub(super) const TOO_LARGE: &str = "a result is larger than 1 MiB";

/// Pays for its first argument, a part of a value that exists already, and returns it: `@read(x, @meter)`.
pub(super) const READ: &str = "@read";
/// Pays for its first argument, the result of an operator or a function, and returns it: `@made(x, @meter)`.
pub(super) const MADE: &str = "@made";
/// Pays for sorting its first argument, and returns it: `@sorted(x, @meter)`.
pub(super) const SORTED: &str = "@sorted";

const WITHIN: u8 = 0;
const STEPS_USED_UP: u8 = 1;
const RESULT_TOO_LARGE: u8 = 2;

/// What is left of the budget of one evaluation. Once it is exceeded, nothing more is paid.
///
/// One evaluation stays on one thread. The values are atomic only because the library wants values that can be shared.
#[derive(Debug)]
pub(super) struct Meter {
    bytes_left: AtomicUsize,
    state: AtomicU8,
}

impl Meter {
    pub fn new(steps: usize) -> Self {
        Self {
            bytes_left: AtomicUsize::new(steps * BYTES_PER_STEP),
            state: AtomicU8::new(WITHIN),
        }
    }

    /// Returns the error if the budget is exceeded.
    pub fn exceeded(&self) -> Option<&'static str> {
        match self.state.load(Ordering::Relaxed) {
            WITHIN => None,
            RESULT_TOO_LARGE => Some(TOO_LARGE),
            _ => Some(TOO_MANY_STEPS),
        }
    }

    /// Pays for steps, and returns false if the budget is exceeded.
    pub fn pay_steps(&self, steps: usize) -> bool {
        self.pay(steps.saturating_mul(BYTES_PER_STEP)).is_ok()
    }

    /// Pays for bytes that are read or made.
    pub fn pay(&self, bytes: usize) -> Result<(), ExecutionError> {
        let left = self.bytes_left.load(Ordering::Relaxed);
        match left.checked_sub(bytes) {
            Some(left) if self.exceeded().is_none() => {
                self.bytes_left.store(left, Ordering::Relaxed);
                Ok(())
            }
            _ => self.exceed(STEPS_USED_UP),
        }
    }

    /// Pays for a result before it is made.
    pub fn pay_result(&self, bytes: usize) -> Result<(), ExecutionError> {
        if bytes > MAX_RESULT {
            return self.exceed(RESULT_TOO_LARGE);
        }
        self.pay(bytes)
    }

    /// Pays for reading a value `times` times.
    fn pay_value(&self, value: &dyn Val, times: usize) -> Result<(), ExecutionError> {
        let left = self.bytes_left.load(Ordering::Relaxed);
        self.pay(size_up_to(left, value).saturating_mul(times))
    }

    fn exceed<T>(&self, state: u8) -> Result<T, ExecutionError> {
        let _ = self
            .state
            .compare_exchange(WITHIN, state, Ordering::Relaxed, Ordering::Relaxed);
        let message = self.exceeded().unwrap_or(TOO_MANY_STEPS);
        Err(ExecutionError::function_error(READ, message))
    }
}

/// The size of a value, counted up to a limit.
struct Size {
    bytes: usize,
    limit: usize,
}

impl Size {
    fn add(&mut self, value: &dyn Val) {
        if let Some(text) = value.downcast_ref::<CelString>() {
            self.bytes += text.inner().len();
        } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
            self.bytes += bytes.inner().len();
        } else if let Some(list) = value.downcast_ref::<CelList>() {
            for element in list.inner() {
                self.add_element(element.as_ref());
                if self.bytes > self.limit {
                    return;
                }
            }
        } else if let Some(map) = value.downcast_ref::<CelMap>() {
            for (key, value) in map.inner() {
                if let CelMapKey::String(key) = key {
                    self.bytes += key.inner().len();
                }
                self.add_element(value.as_ref());
                if self.bytes > self.limit {
                    return;
                }
            }
        } else if let Some(value) = value
            .downcast_ref::<CelOptional>()
            .and_then(CelOptional::option)
        {
            self.add(value);
        }
    }

    fn add_element(&mut self, element: &dyn Val) {
        self.bytes += ELEMENT_BYTES;
        self.add(element);
    }
}

/// Returns the size of a value, in bytes, but not much more than the limit.
pub(super) fn size_up_to(limit: usize, value: &dyn Val) -> usize {
    let mut size = Size { bytes: 0, limit };
    size.add(value);
    size.bytes
}

pub(super) const METER_TYPE: Type = Type::new_unspecified_type("meter");

// The meter reaches functions as the value of a variable.
impl Val for Meter {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static METER: Type = METER_TYPE;
        &METER
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self {
            bytes_left: AtomicUsize::new(self.bytes_left.load(Ordering::Relaxed)),
            state: AtomicU8::new(self.state.load(Ordering::Relaxed)),
        })
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Meter {}

/// Returns the meter that is an argument of a function.
pub(super) fn meter(argument: &dyn Val) -> Result<&Meter, ExecutionError> {
    argument
        .downcast_ref::<Meter>()
        .ok_or_else(ExecutionError::missing_argument_or_target)
}

/// Adds the functions that only pay.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(READ, READ, vec![DYN_TYPE, METER_TYPE], read)?;
    env.add_overload(MADE, MADE, vec![DYN_TYPE, METER_TYPE], made)?;
    env.add_overload(SORTED, SORTED, vec![DYN_TYPE, METER_TYPE], sorted)
}

fn read<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [value, budget] = take(arguments)?;
    meter(budget.as_ref())?.pay_value(value.as_ref(), 1)?;
    Ok(value)
}

fn made<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [value, budget] = take(arguments)?;
    let size = size_up_to(MAX_RESULT, value.as_ref());
    meter(budget.as_ref())?.pay_result(size)?;
    Ok(value)
}

/// Sorting reads each element once for each time that the list can be halved.
fn sorted<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [value, budget] = take(arguments)?;
    let elements = value
        .downcast_ref::<CelList>()
        .map_or(0, |list| list.inner().len());
    let halvings = usize::BITS - elements.leading_zeros();
    meter(budget.as_ref())?.pay_value(value.as_ref(), 1 + halvings as usize)?;
    Ok(value)
}
