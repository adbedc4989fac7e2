//! Names of other languages, and what to write in their place.

use super::functions::Style;

/// Functions of other languages that are called on a value, and how CEL writes them.
const MEMBERS: &[(&str, &str)] = &[
    ("toUpperCase", "x.upperAscii()"),
    ("toLocaleUpperCase", "x.upperAscii()"),
    ("upper", "x.upperAscii()"),
    ("upcase", "x.upperAscii()"),
    ("toUpper", "x.upperAscii()"),
    ("toLowerCase", "x.lowerAscii()"),
    ("toLocaleLowerCase", "x.lowerAscii()"),
    ("lower", "x.lowerAscii()"),
    ("downcase", "x.lowerAscii()"),
    ("toLower", "x.lowerAscii()"),
    ("length", "size(x)"),
    ("len", "size(x)"),
    ("count", "size(x)"),
    ("isEmpty", "size(x) == 0"),
    ("includes", "x.contains(\"…\"), or `\"…\" in list`"),
    ("include", "x.contains(\"…\"), or `\"…\" in list`"),
    ("startswith", "x.startsWith(\"…\")"),
    ("start_with", "x.startsWith(\"…\")"),
    ("hasPrefix", "x.startsWith(\"…\")"),
    ("endswith", "x.endsWith(\"…\")"),
    ("end_with", "x.endsWith(\"…\")"),
    ("hasSuffix", "x.endsWith(\"…\")"),
    ("strip", "x.trim()"),
    ("trimStart", "x.trim()"),
    ("trimEnd", "x.trim()"),
    ("substr", "x.substring(start, end)"),
    ("replaceAll", "x.replace(\"old\", \"new\")"),
    ("gsub", "x.replace(\"old\", \"new\")"),
    ("match", "x.matches(\"^[A-Z]{2}\")"),
    ("test", "x.matches(\"^[A-Z]{2}\")"),
    ("regexMatch", "x.matches(\"^[A-Z]{2}\")"),
    ("some", "list.exists(x, condition)"),
    ("any", "list.exists(x, condition)"),
    ("every", "list.all(x, condition)"),
    ("concat", "x + y"),
    ("append", "x + y"),
    ("equals", "x == y"),
    ("equalsIgnoreCase", "x.lowerAscii() == y.lowerAscii()"),
    ("toString", "string(x)"),
    ("toFixed", "string(x)"),
];

/// Functions of other languages that are not called on a value.
const GLOBALS: &[(&str, &str)] = &[
    ("upper", "x.upperAscii()"),
    ("lower", "x.lowerAscii()"),
    ("len", "size(x)"),
    ("length", "size(x)"),
    ("strlen", "size(x)"),
    ("count", "size(x)"),
    ("parseInt", "int(x)"),
    ("parseFloat", "double(x)"),
    ("Number", "double(x)"),
    ("String", "string(x)"),
    ("str", "string(x)"),
    ("float", "double(x)"),
    ("number", "double(x)"),
    ("regex_match", "x.matches(\"^[A-Z]{2}\")"),
    ("defined", "has(x.key)"),
    ("isset", "has(x.key)"),
    ("empty", "size(x) == 0"),
    ("coalesce", "x.?key.orValue(\"…\")"),
    ("default", "x.?key.orValue(\"…\")"),
];

/// Names of other languages that are not functions.
const NAMES: &[(&str, &str)] = &[
    ("undefined", "null"),
    ("None", "null"),
    ("nil", "null"),
    ("NULL", "null"),
    ("Null", "null"),
    ("True", "true"),
    ("TRUE", "true"),
    ("False", "false"),
    ("FALSE", "false"),
    ("self", "identity"),
    ("this", "identity"),
    ("user", "identity"),
    ("ctx", "identity"),
    ("traits", "identity.traits"),
    ("metadata_public", "identity.metadata_public"),
    ("transient_payload", "flow.transient_payload"),
    ("headers", "request.headers"),
    ("body", "response.body"),
    ("status", "response.status"),
];

/// Returns what to write in place of a function of another language.
pub(super) fn function(name: &str, style: Style) -> Option<String> {
    let table = match style {
        Style::Member => MEMBERS,
        Style::Global => GLOBALS,
    };
    hint(table, name)
}

/// Returns what to write in place of a name of another language.
pub(super) fn name(name: &str) -> Option<String> {
    hint(NAMES, name)
}

fn hint(table: &[(&str, &str)], name: &str) -> Option<String> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, way)| format!("write `{way}`"))
}
