//! The functions of expressions: the standard functions, the string and list extensions, and Vestibule's own.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelString, CelUInt, LIST_TYPE, STRING_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError, extensions};
use regex::{Captures, Regex, RegexBuilder};

use super::budget::{self, BYTES_PER_STEP, METER_TYPE, meter, size_up_to};
use super::lists::Entries;
use super::{bounded, texts};

/// The error of `domain` and `in_domains` for a value without a domain.
pub(super) const NO_DOMAIN: &str = "the argument is not an address or a domain";
/// The error of `distinct` for a list that would take too long.
pub(super) const TOO_MANY: &str = "the list has too many lists, maps or fractions";

/// The error of `in` for a list or a map that is looked up in one of the operator's lists.
pub(super) const NO_TEXT: &str = "the argument is a list or a map where a text is expected";

/// The name of Vestibule's own `distinct`. The time of the extension's `distinct` grows with the square of the list's
/// length, and a visitor may have sent the list.
pub(super) const DISTINCT: &str = "@distinct";

/// The maximum number of elements without a hash that `distinct` compares with each other.
const UNHASHED: usize = 1_000;

/// The maximum size of a compiled pattern, in bytes. The same limit applies to its cache.
const REGEX_BYTES: usize = 4 << 20;
/// Why a pattern is refused whose compiled form is larger.
pub(super) const TOO_BIG: &str = "it is too big";

/// The size of a compiled pattern that reads a byte of a text for one byte of the budget. A larger one can need as many
/// times longer.
const PATTERN_BYTES: usize = 1 << 10;

/// A byte of a domain that is not in ASCII costs as much as so many bytes of the budget.
const IDNA_BYTES: usize = 8;

/// The call syntax of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `f(x)`
    Global,
    /// `x.f()`
    Member,
}

/// A function that expressions may call, with its number of arguments (without the `x` of `x.f()`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub name: &'static str,
    pub style: Style,
    pub fewest: usize,
    pub most: usize,
}

const fn global(name: &'static str, arguments: usize) -> Function {
    Function {
        name,
        style: Style::Global,
        fewest: arguments,
        most: arguments,
    }
}

const fn member(name: &'static str, fewest: usize, most: usize) -> Function {
    Function {
        name,
        style: Style::Member,
        fewest,
        most,
    }
}

/// All functions. A function that is not in this table does not compile.
///
/// The library does not list its own functions. Its function `lists.range` keeps a short expression running for
/// minutes.
pub(super) const FUNCTIONS: &[Function] = &[
    global("base64_decode", 1),
    global("base64_encode", 1),
    global("bool", 1),
    global("bytes", 1),
    global("domain", 1),
    global("double", 1),
    global("duration", 1),
    global("dyn", 1),
    global("hmac_sha256", 2),
    global("in_domains", 2),
    global("int", 1),
    global("matches", 2),
    global("md5", 1),
    global("optional.none", 0),
    global("optional.of", 1),
    global("optional.ofNonZeroValue", 1),
    global("query_parameter", 2),
    global("sha256", 1),
    global("size", 1),
    global("string", 1),
    global("strings.quote", 1),
    global("timestamp", 1),
    global("type", 1),
    global("uint", 1),
    global("url_decode", 1),
    global("url_encode", 1),
    member("@sortByAssociatedKeys", 1, 1),
    member("charAt", 1, 1),
    member("contains", 1, 1),
    member("distinct", 0, 0),
    member("endsWith", 1, 1),
    member("flatten", 0, 1),
    member("format", 1, 1),
    member("getDate", 0, 1),
    member("getDayOfMonth", 0, 1),
    member("getDayOfWeek", 0, 1),
    member("getDayOfYear", 0, 1),
    member("getFullYear", 0, 1),
    member("getHours", 0, 1),
    member("getMilliseconds", 0, 1),
    member("getMinutes", 0, 1),
    member("getMonth", 0, 1),
    member("getSeconds", 0, 1),
    member("hasValue", 0, 0),
    member("indexOf", 1, 2),
    member("join", 0, 1),
    member("lastIndexOf", 1, 2),
    member("lowerAscii", 0, 0),
    member("matches", 1, 1),
    member("or", 1, 1),
    member("orValue", 1, 1),
    member("replace", 2, 3),
    member("reverse", 0, 0),
    member("size", 0, 0),
    member("slice", 2, 2),
    member("sort", 0, 0),
    member("split", 1, 2),
    member("startsWith", 1, 1),
    member("substring", 1, 2),
    member("trim", 0, 0),
    member("upperAscii", 0, 0),
    member("value", 0, 0),
];

/// The macros, each with its syntax. A macro looks like a function and is rewritten by the compiler.
pub(super) const MACROS: &[(&str, &str)] = &[
    ("all", "list.all(x, condition)"),
    ("exists", "list.exists(x, condition)"),
    ("existsOne", "list.existsOne(x, condition)"),
    ("exists_one", "list.exists_one(x, condition)"),
    ("filter", "list.filter(x, condition)"),
    ("has", "has(map.key)"),
    ("map", "list.map(x, result)"),
    ("optFlatMap", "optional.optFlatMap(x, result)"),
    ("optMap", "optional.optMap(x, result)"),
    ("sortBy", "list.sortBy(x, key)"),
];

/// Returns the one environment of the process.
pub(super) fn environment() -> Result<&'static Arc<Env>, &'static DeclarationError> {
    static ENVIRONMENT: LazyLock<Result<Arc<Env>, DeclarationError>> =
        LazyLock::new(|| declare().map(Arc::new));
    ENVIRONMENT.as_ref()
}

fn declare() -> Result<Env, DeclarationError> {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings)?;
    // An extension can only be added as a whole. `FUNCTIONS` excludes `lists.range`.
    env.add_extension(extensions::lists)?;
    env.add_member_overload(
        DISTINCT,
        "list_distinct_hashed",
        LIST_TYPE,
        vec![METER_TYPE],
        distinct,
    )?;
    env.add_overload(
        "domain",
        "domain_string",
        vec![STRING_TYPE, METER_TYPE],
        domain,
    )?;
    env.add_overload(
        "in_domains",
        "in_domains_string_list",
        vec![STRING_TYPE, LIST_TYPE, METER_TYPE],
        in_domains,
    )?;
    env.add_overload(
        "matches",
        "matches_pattern",
        vec![STRING_TYPE, PATTERN_TYPE, METER_TYPE],
        matches,
    )?;
    env.add_member_overload(
        "matches",
        "string_matches_pattern",
        STRING_TYPE,
        vec![PATTERN_TYPE, METER_TYPE],
        matches,
    )?;
    texts::declare(&mut env)?;
    bounded::declare(&mut env)?;
    budget::declare(&mut env)?;
    Ok(env)
}

const PATTERN_TYPE: Type = Type::new_unspecified_type("pattern");

/// A regular expression, compiled once, in place of the text that the operator wrote.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// How many bytes of the budget a byte of a text costs.
    cost: usize,
}

impl Pattern {
    /// Compiles a pattern, or returns the reason why the pattern is not valid.
    pub fn new(source: &str) -> Result<Self, String> {
        let mut limit = PATTERN_BYTES;
        loop {
            let regex = RegexBuilder::new(source)
                .size_limit(limit)
                .dfa_size_limit(REGEX_BYTES)
                .build();
            match regex {
                Ok(regex) => {
                    let cost = limit / PATTERN_BYTES;
                    return Ok(Self { regex, cost });
                }
                Err(regex::Error::CompiledTooBig(_)) if limit < REGEX_BYTES => limit *= 4,
                Err(regex::Error::CompiledTooBig(_)) => return Err(TOO_BIG.to_owned()),
                Err(error) => {
                    let text = error.to_string();
                    let last = text.lines().last().unwrap_or_default();
                    return Err(last.trim_start_matches("error: ").to_owned());
                }
            }
        }
    }

    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// Returns a pattern that is not too big, and differs only in that it does not limit how often something repeats.
    pub fn unlimited(source: &str) -> Option<String> {
        let limited = Regex::new(r"\{([0-9]+)(,[0-9]*)?\}").ok()?;
        let unlimited = limited.replace_all(source, |found: &Captures<'_>| match &found[1] {
            "0" => "*".to_owned(),
            "1" => "+".to_owned(),
            least if least.len() == 1 => format!("{{{least},}}"),
            _ => "+".to_owned(),
        });
        (unlimited != source && Self::new(&unlimited).is_ok()).then(|| unlimited.into_owned())
    }
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static PATTERN: Type = PATTERN_TYPE;
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern, budget] = take(arguments)?;
    match (
        text.downcast_ref::<CelString>(),
        pattern.downcast_ref::<Pattern>(),
    ) {
        (Some(text), Some(pattern)) => {
            let cost = text.inner().len().saturating_mul(pattern.cost);
            meter(budget.as_ref())?.pay(cost)?;
            Ok(bool(pattern.regex.is_match(text.inner())))
        }
        _ => Err(ExecutionError::missing_argument_or_target()),
    }
}

fn domain<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [address, budget] = take(arguments)?;
    pay_for_domain(budget.as_ref(), address.as_ref())?;
    address
        .downcast_ref::<CelString>()
        .and_then(|address| address.inner().rsplit_once('@'))
        .and_then(|(_, domain)| normal_domain(domain))
        .map(|domain| CowVal::owned(CelString::from(domain.into_owned())))
        .ok_or_else(|| ExecutionError::function_error("domain", NO_DOMAIN))
}

fn in_domains<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [address, list, budget] = take(arguments)?;
    pay_for_domain(budget.as_ref(), address.as_ref())?;
    let domain = address.downcast_ref::<CelString>().and_then(|address| {
        let address = address.inner();
        normal_domain(
            address
                .rsplit_once('@')
                .map_or(address, |(_, domain)| domain),
        )
    });
    let Some(domain) = domain else {
        return Err(ExecutionError::function_error("in_domains", NO_DOMAIN));
    };
    if let Some(entries) = list.downcast_ref::<Entries>() {
        let listed = entries.domains();
        return Ok(bool(
            with_parents(&domain).any(|domain| listed.contains(domain)),
        ));
    }
    let mut entries = list
        .as_iterable()
        .ok_or_else(ExecutionError::missing_argument_or_target)?
        .iter();
    while let Some(entry) = entries.next() {
        pay_for_domain(budget.as_ref(), entry)?;
        let listed = entry
            .downcast_ref::<CelString>()
            .and_then(|entry| listed_domain(entry.inner()));
        if listed.is_some_and(|listed| with_parents(&domain).any(|domain| domain == listed)) {
            return Ok(bool(true));
        }
    }
    Ok(bool(false))
}

/// Pays for the normal form of an address or a domain.
fn pay_for_domain(budget: &dyn Val, address: &dyn Val) -> Result<(), ExecutionError> {
    let length = address
        .downcast_ref::<CelString>()
        .map_or(0, |address| address.inner().len());
    meter(budget)?.pay(BYTES_PER_STEP + length.saturating_mul(IDNA_BYTES))
}

/// `a.b.c`, `b.c`, `c`.
fn with_parents(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(domain), |domain| {
        domain.split_once('.').map(|(_, parent)| parent)
    })
}

/// Normalises an entry of a list of domains to the form of the DNS, or returns `None` if the entry is not a domain.
pub(super) fn listed_domain(entry: &str) -> Option<Cow<'_, str>> {
    let entry = entry.trim();
    let entry = entry.strip_prefix('@').unwrap_or(entry);
    let entry = entry.strip_prefix('*').unwrap_or(entry);
    normal_domain(entry.strip_prefix('.').unwrap_or(entry))
}

/// Normalises a domain to lower case and ASCII, or returns `None` if the text is not a domain.
fn normal_domain(domain: &str) -> Option<Cow<'_, str>> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let plain = domain
        .bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
    let domain = if plain && !domain.contains("xn--") {
        Cow::Borrowed(domain)
    } else {
        // The limits of the DNS below apply to the ASCII form. This limit bounds the work.
        if domain.len() > 1_024 {
            return None;
        }
        let ascii = idna::domain_to_ascii(domain).ok()?;
        Cow::Owned(ascii.strip_suffix('.').map(str::to_owned).unwrap_or(ascii))
    };
    let sound = domain.len() <= 253
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
    sound.then_some(domain)
}

/// Returns the first of each set of equal elements, in order.
fn distinct<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [list, budget] = take(arguments)?;
    let budget = meter(budget.as_ref())?;
    let mut elements = list
        .as_iterable()
        .ok_or_else(ExecutionError::missing_argument_or_target)?
        .iter();
    let mut seen = HashSet::new();
    let mut others: Vec<&dyn Val> = Vec::new();
    let mut kept: Vec<Box<dyn Val + 'v>> = Vec::new();
    while let Some(element) = elements.next() {
        let new = match Hashed::of(element) {
            Some(hashed) => seen.insert(hashed),
            None if others.len() == UNHASHED => {
                return Err(ExecutionError::function_error("distinct", TOO_MANY));
            }
            None => {
                let size = BYTES_PER_STEP + size_up_to(budget::MAX_RESULT, element);
                budget.pay(others.len().saturating_mul(size))?;
                let new = !others.iter().any(|other| element.equals(*other));
                if new {
                    others.push(element);
                }
                new
            }
        };
        if new {
            kept.push(element.clone_as_boxed());
        }
    }
    Ok(CowVal::owned(CelList::from(kept)))
}

/// A value that is equal to another exactly if their keys are equal. Numbers are equal across their types.
#[derive(PartialEq, Eq, Hash)]
enum Hashed<'b> {
    Text(&'b str),
    Bool(bool),
    Whole(i128),
}

impl<'b> Hashed<'b> {
    fn of(value: &'b dyn Val) -> Option<Self> {
        if let Some(text) = value.downcast_ref::<CelString>() {
            Some(Self::Text(text.inner()))
        } else if let Some(bool) = value.downcast_ref::<CelBool>() {
            Some(Self::Bool(*bool.inner()))
        } else if let Some(int) = value.downcast_ref::<CelInt>() {
            Some(Self::Whole((*int.inner()).into()))
        } else if let Some(uint) = value.downcast_ref::<CelUInt>() {
            Some(Self::Whole((*uint.inner()).into()))
        } else {
            let double = *value.downcast_ref::<CelDouble>()?.inner();
            // Beyond 2^53 a double is not one whole number. Larger doubles are compared with each other.
            #[expect(clippy::cast_possible_truncation, reason = "it has no fraction")]
            (double.fract() == 0.0 && double.abs() < 9e15).then_some(Self::Whole(double as i128))
        }
    }
}

fn bool<'b, 'v>(value: bool) -> CowVal<'b, 'v> {
    static TRUE: CelBool = CelBool::TRUE;
    static FALSE: CelBool = CelBool::FALSE;
    CowVal::Borrowed(if value { &TRUE } else { &FALSE })
}

pub(super) fn take<'b, 'v, const N: usize>(
    arguments: Vec<CowVal<'b, 'v>>,
) -> Result<[CowVal<'b, 'v>; N], ExecutionError> {
    arguments
        .try_into()
        .map_err(|given: Vec<_>| ExecutionError::invalid_argument_count(N, given.len()))
}
