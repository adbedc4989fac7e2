//! Functions of the library in a form that pays before it works, because their work or their result can be larger than
//! their arguments.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the library passes the arguments by value"
)]

use cel::common::functions::Function;
use cel::common::types::{CelInt, CelList, CelString, INT_TYPE, LIST_TYPE, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};

use super::budget::{METER_TYPE, Meter, meter};

/// Adds the functions to the environment.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let searches: [(&str, Function); 2] = [("@indexOf", index_of), ("@lastIndexOf", last_index_of)];
    let replace_all = vec![STRING_TYPE, STRING_TYPE, METER_TYPE];
    env.add_member_overload("@replace", "@replace", STRING_TYPE, replace_all, replace)?;
    let replace_some = vec![STRING_TYPE, STRING_TYPE, INT_TYPE, METER_TYPE];
    env.add_member_overload("@replace", "@replace_n", STRING_TYPE, replace_some, replace)?;
    env.add_member_overload("@join", "@join", LIST_TYPE, vec![METER_TYPE], join)?;
    let separated = vec![STRING_TYPE, METER_TYPE];
    env.add_member_overload("@join", "@join_with", LIST_TYPE, separated, join)?;
    for (name, search) in searches {
        env.add_member_overload(name, name, STRING_TYPE, vec![STRING_TYPE], search)?;
        let from = vec![STRING_TYPE, INT_TYPE];
        env.add_member_overload(name, &format!("{name}_from"), STRING_TYPE, from, search)?;
    }
    Ok(())
}

fn text<'b>(argument: &'b CowVal<'_, '_>) -> Result<&'b str, ExecutionError> {
    argument
        .downcast_ref::<CelString>()
        .map(CelString::inner)
        .ok_or_else(ExecutionError::missing_argument_or_target)
}

fn int(argument: &CowVal<'_, '_>) -> Result<i64, ExecutionError> {
    argument
        .downcast_ref::<CelInt>()
        .map(|int| *int.inner())
        .ok_or_else(ExecutionError::missing_argument_or_target)
}

fn of_text<'b, 'v>(text: String) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text))
}

/// `x.replace(old, new)`, and `x.replace(old, new, most)`. A negative number replaces all.
fn replace<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (this, old, new, most, budget) = match arguments.as_slice() {
        [this, old, new, budget] => (this, old, new, None, budget),
        [this, old, new, most, budget] => {
            (this, old, new, usize::try_from(int(most)?).ok(), budget)
        }
        _ => return Err(ExecutionError::missing_argument_or_target()),
    };
    let (this, old, new) = (text(this)?, text(old)?, text(new)?);
    let most = most.unwrap_or(usize::MAX);
    let budget = meter(budget.as_ref())?;
    budget.pay(this.len())?;
    let replaced = this.matches(old).take(most).count();
    let added = replaced.saturating_mul(new.len());
    let size = (this.len() - replaced * old.len()).saturating_add(added);
    budget.pay_result(size)?;
    Ok(of_text(this.replacen(old, new, most)))
}

/// `list.join()`, and `list.join(separator)`.
fn join<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (list, separator, budget) = match arguments.as_slice() {
        [list, budget] => (list, "", budget),
        [list, separator, budget] => (list, text(separator)?, budget),
        _ => return Err(ExecutionError::missing_argument_or_target()),
    };
    let list = list
        .downcast_ref::<CelList>()
        .ok_or_else(ExecutionError::missing_argument_or_target)?;
    let parts = texts_in(list, meter(budget.as_ref())?)?;
    let separators = parts
        .len()
        .saturating_sub(1)
        .saturating_mul(separator.len());
    let size = parts.iter().map(|part| part.len()).sum::<usize>();
    meter(budget.as_ref())?.pay_result(size.saturating_add(separators))?;
    Ok(of_text(parts.join(separator)))
}

fn texts_in<'l>(list: &'l CelList<'_>, budget: &Meter) -> Result<Vec<&'l str>, ExecutionError> {
    let elements = list.inner();
    budget.pay(elements.len())?;
    elements
        .iter()
        .map(|element| {
            let text = element.downcast_ref::<CelString>();
            text.map(CelString::inner)
                .ok_or_else(|| ExecutionError::UnexpectedType {
                    got: element.get_type().name().to_owned(),
                    want: STRING_TYPE.name().to_owned(),
                })
        })
        .collect()
}

/// `x.indexOf(part)`, and `x.indexOf(part, from)`, in characters.
fn index_of<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(number(match arguments.as_slice() {
        [this, part] => find(text(this)?, text(part)?, 0),
        [this, part, from] => match start("indexOf", text(this)?, text(part)?, int(from)?)? {
            Start::At(from) => find(text(this)?, text(part)?, from),
            Start::Found(index) => Some(index),
        },
        _ => return Err(ExecutionError::missing_argument_or_target()),
    }))
}

/// `x.lastIndexOf(part)`, and `x.lastIndexOf(part, from)`, in characters.
fn last_index_of<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(number(match arguments.as_slice() {
        [this, part] => find_last(text(this)?, text(part)?, usize::MAX),
        [this, part, from] => match start("lastIndexOf", text(this)?, text(part)?, int(from)?)? {
            Start::At(from) => find_last(text(this)?, text(part)?, from),
            Start::Found(index) => Some(index),
        },
        _ => return Err(ExecutionError::missing_argument_or_target()),
    }))
}

fn number<'b, 'v>(index: Option<usize>) -> CowVal<'b, 'v> {
    let index = index.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX));
    CowVal::owned(CelInt::from(index))
}

/// Where a search begins.
enum Start {
    /// At this character.
    At(usize),
    /// An empty text is at each place.
    Found(usize),
}

fn start(function: &str, this: &str, part: &str, from: i64) -> Result<Start, ExecutionError> {
    let length = this.chars().count();
    let out_of_range = || ExecutionError::function_error(function, "index out of range");
    let from = usize::try_from(from).map_err(|_| out_of_range())?;
    if part.is_empty() {
        return Ok(Start::Found(from.min(length)));
    }
    if from >= length {
        return Err(out_of_range());
    }
    Ok(Start::At(from))
}

/// Returns the first occurrence at or after a character.
fn find(this: &str, part: &str, from: usize) -> Option<usize> {
    let from = byte_of(this, from);
    let found = from + this[from..].find(part)?;
    Some(this[..found].chars().count())
}

/// Returns the last occurrence that begins at or before a character.
fn find_last(this: &str, part: &str, from: usize) -> Option<usize> {
    let end = byte_of(this, from)
        .saturating_add(part.len())
        .min(this.len());
    let end = this.floor_char_boundary(end);
    let found = this[..end].rfind(part)?;
    Some(this[..found].chars().count())
}

/// Returns the byte at which a character begins.
fn byte_of(this: &str, character: usize) -> usize {
    let mut starts = this.char_indices().map(|(start, _)| start);
    starts.nth(character).unwrap_or(this.len())
}
