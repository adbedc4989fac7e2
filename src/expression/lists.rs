//! The operator's lists, prepared for look-ups.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use cel::ExecutionError;
use cel::common::traits::Container;
use cel::common::types::{CelList, CelString, LIST_TYPE, Type};
use cel::common::value::{StaticVal, Val};

use super::budget::ELEMENT_BYTES;
use super::functions::{self, NO_TEXT};

/// The operator's lists, prepared for expressions.
///
/// `x in lists.name` and `in_domains(x, lists.name)` are hash look-ups, however long the list is.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    by_name: BTreeMap<String, Entries>,
}

/// The entries of one list. Each form is built when the first expression that needs it is compiled.
#[derive(Clone)]
pub(super) struct Entries(Arc<Forms>);

struct Forms {
    written: Vec<String>,
    list: OnceLock<CelList<'static>>,
    texts: OnceLock<HashSet<Box<str>>>,
    domains: OnceLock<HashSet<Box<str>>>,
}

impl Lists {
    /// Creates lists by name, with their entries as written.
    #[must_use]
    pub fn new(lists: BTreeMap<String, Vec<String>>) -> Self {
        let by_name = lists
            .into_iter()
            .map(|(name, written)| {
                let forms = Forms {
                    written,
                    list: OnceLock::new(),
                    texts: OnceLock::new(),
                    domains: OnceLock::new(),
                };
                (name, Entries(Arc::new(forms)))
            })
            .collect();
        Self { by_name }
    }

    /// Returns the names of the lists, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }

    /// Returns the entries of a list as written.
    #[must_use]
    pub fn entries(&self, name: &str) -> Option<&[String]> {
        self.by_name
            .get(name)
            .map(|entries| entries.0.written.as_slice())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entries> {
        self.by_name.get(name)
    }
}

impl Entries {
    /// Returns the entries as a CEL list.
    pub fn as_list(&self) -> &CelList<'static> {
        self.0.list.get_or_init(|| {
            let entries = self.0.written.iter();
            CelList::from(
                entries
                    .map(|entry| Box::new(CelString::from(entry.clone())) as Box<dyn Val>)
                    .collect::<Vec<_>>(),
            )
        })
    }

    /// Returns the exact entries, for `in`.
    pub fn texts(&self) -> &HashSet<Box<str>> {
        self.0.texts.get_or_init(|| {
            self.0
                .written
                .iter()
                .map(|entry| entry.as_str().into())
                .collect()
        })
    }

    /// Returns the entries that are domains, in the form of the DNS, for `in_domains`.
    pub fn domains(&self) -> &HashSet<Box<str>> {
        self.0.domains.get_or_init(|| {
            let entries = self.0.written.iter();
            entries
                .filter_map(|entry| functions::listed_domain(entry))
                .map(|domain| domain.into_owned().into_boxed_str())
                .collect()
        })
    }

    pub fn len(&self) -> usize {
        self.0.written.len()
    }

    /// Returns the size of the list, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = self.0.written.iter().map(String::len);
        texts.map(|length| length + ELEMENT_BYTES).sum()
    }
}

impl fmt::Debug for Entries {
    /// Prints the number of entries only, because the entries are confidential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entries({})", self.len())
    }
}

// The compiler passes this value to `in` and `in_domains` in place of the list. No operator of the language gets the
// value, because operators do not support this type.
impl Val for Entries {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static LIST: Type = LIST_TYPE;
        &LIST
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Entries {}

impl Container for Entries {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        // A list or an object is never in a list of texts. Without the error, a visitor could bypass a list of
        // forbidden values.
        if value.as_iterable().is_some() {
            return Err(ExecutionError::function_error("@in", NO_TEXT));
        }
        Ok(value
            .downcast_ref::<CelString>()
            .is_some_and(|word| self.texts().contains(word.inner())))
    }
}
