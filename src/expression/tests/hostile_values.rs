//! The budget of an evaluation: hostile values for every function, operator and macro.

use serde_json::{Value, json};

use super::budget::{MAX_RESULT, TOO_LARGE, TOO_MANY_STEPS};
use super::conformance::TestCase;
use super::functions::{FUNCTIONS, MACROS};
use super::*;

/// Expressions that an operator may write, at least one for each function, operator and macro.
const SOURCES: &[&str] = &[
    "value + value",
    "value.map(x, x + x)",
    "value == value",
    "value != [value]",
    "value < value",
    "value in [value]",
    "value.exists(x, x in value)",
    "value[size(value) - 1]",
    "value[?0].hasValue()",
    "value.?a.orValue('b')",
    "{'a': value}.?a.or(optional.none()).hasValue()",
    "has(value.a)",
    "[value, value, value].flatten()",
    "{'a': value, 'b': value}",
    "value.all(x, x != '' && x >= '' || !(x <= 'a'))",
    "value.all(x, value.all(y, x == y))",
    "value.exists_one(x, value.exists_one(y, y == x))",
    "value.existsOne(x, x == value)",
    "value.filter(x, value.filter(y, x == y).size() > 0)",
    "value.map(x, value)",
    "value.map(x, value.map(y, [x, y]))",
    "value.sortBy(x, x)",
    "value.split('').sortBy(x, x)",
    "optional.of(value).optMap(x, x + x).orValue(value)",
    "optional.of(value).optFlatMap(x, optional.of(x)).value()",
    "optional.ofNonZeroValue(value)",
    "value.replace('a', value)",
    "value.replace('', value)",
    "value.replace('a', value, 5)",
    "value.split('')",
    "value.split('').join(value)",
    "value.split('').join()",
    "value.split(' ').exists(w, w.size() > 3 && w.split('').all(c, w.replace(c, '') == ''))",
    "value.split('', 20000).map(x, value)",
    "value.join(value[0])",
    "value.indexOf(value.substring(1) + 'b')",
    "value.indexOf('aab', 5)",
    "value.lastIndexOf('b' + value.substring(1))",
    "value.lastIndexOf('baa', 5)",
    "value.split('').all(c, value.contains(c + 'b') || value.startsWith(c) || value.endsWith(c))",
    "value.split('').map(c, value.trim() + value.lowerAscii() + value.upperAscii())",
    "value.split('').map(c, value.reverse())",
    "value.split('').all(c, value.charAt(29) == c)",
    "value.matches('^([a-z]|[a-z0-9])*[ab]{50}c')",
    "value.split('').all(c, matches(value, '^(a|b|ab)*c$'))",
    "value.matches('[\\\\p{L}\\\\p{M}]{2,20}$')",
    "value.all(x, x.matches('[ab]*a[ab]{100}c'))",
    "'%s%s%s'.format([value, value, value])",
    "value.map(x, '%s %.100f'.format([value, 1e300]))",
    "value.format([value])",
    "strings.quote(value)",
    "value.split('').map(c, strings.quote(value))",
    "value.sort()",
    "value.split('').sort()",
    "value.distinct()",
    "value.map(x, [x]).distinct()",
    "value.map(x, value.slice(0, 10))",
    "value.reverse().slice(0, size(value))",
    "value.flatten(100)",
    "[[value]].map(x, x.flatten())",
    "value.split('').all(c, string(value) == string(bytes(value)))",
    "value.all(x, int(x) == 1 || uint(x) == 1u || double(x) == 1.0 || bool(x))",
    "value.all(x, timestamp(x) < now || duration(x) > duration('1h'))",
    "type(value) == type(dyn(value))",
    "domain('a@' + value)",
    "value.map(x, 'ä' + x).exists(x, in_domains(x, value))",
    "value.split('').all(c, domain('a@' + value) == c)",
    "base64_encode(base64_decode(value))",
    "value.split('').map(c, base64_encode(value))",
    "value.split('').map(c, sha256(value) + md5(value) + hmac_sha256(value, value))",
    "value.split('').map(c, url_encode(value) + url_decode(value))",
    "value.split('').map(c, query_parameter('?' + value, 'a'))",
    "value.all(x, now.getDate(x) + now.getDayOfMonth(x) + now.getDayOfWeek(x) + now.getDayOfYear(x) > 0)",
    "value.all(x, now.getFullYear(x) + now.getHours(x) + now.getMilliseconds(x) + now.getMinutes(x) > 0)",
    "value.all(x, now.getMonth(x) + now.getSeconds(x) - 1 * 2 / 3 % 4 > -size(x))",
];

/// Values that a visitor may send. Kratos passes at most 64 KiB to a hook.
fn hostile_values() -> Vec<Value> {
    let entries = |entry: &str, count: usize| json!(vec![entry; count]);
    let mut nested = json!("a");
    for _ in 0..100 {
        nested = json!([nested]);
    }
    vec![
        json!("a".repeat(30_000)),
        json!("ab".repeat(15_000)),
        json!("aaaa ".repeat(6_000)),
        json!("ä".repeat(15_000)),
        json!(" ".repeat(30_000)),
        json!(".".repeat(30_000)),
        json!("\u{0}".repeat(10_000)),
        entries("a", 10_000),
        entries("xn--bcher-kva.example", 2_000),
        entries(&"ab".repeat(500), 30),
        json!((0..10_000).collect::<Vec<_>>()),
        json!(
            (0..5_000)
                .map(|number| json!([number, 0.5]))
                .collect::<Vec<_>>()
        ),
        json!(
            (0..3_000)
                .map(|number| (format!("k{number}"), json!(number)))
                .collect::<serde_json::Map<_, _>>()
        ),
        json!(vec![nested; 300]),
    ]
}

fn evaluate(source: &str, value: &Value) -> Result<Value, EvaluationError> {
    let case = TestCase::new();
    let expression = case
        .compile(source)
        .unwrap_or_else(|error| panic!("{source}: {error}"));
    expression.evaluate(&Variables {
        value: Some(value),
        ..case.variables()
    })
}

#[test]
fn every_function_operator_and_macro_has_a_hostile_case() {
    let all = SOURCES.join("\n");
    for function in FUNCTIONS
        .iter()
        .filter(|known| !known.name.starts_with('@'))
    {
        assert!(
            all.contains(&format!("{}(", function.name)),
            "{}",
            function.name
        );
    }
    for (name, _) in MACROS {
        assert!(all.contains(&format!("{name}(")), "{name}");
    }
}

/// A result is an error, or is small. Without a budget, the test would end neither in time nor in memory.
#[test]
fn hostile_values_use_no_more_than_the_budget() {
    for source in SOURCES {
        for value in hostile_values() {
            match evaluate(source, &value) {
                // Texts in JSON have quotes and escapes besides their bytes.
                Ok(result) => assert!(result.to_string().len() <= 7 * MAX_RESULT, "{source}"),
                Err(error) if error.is_over_budget => {
                    assert!([TOO_LARGE, TOO_MANY_STEPS].contains(&error.message.as_str()));
                }
                Err(_) => {}
            }
        }
    }
}

#[test]
fn the_faults_that_were_found_are_errors() {
    let text = json!(format!("{} bbbb", "a".repeat(30_000)));
    let doubled = format!("[value]{}", ".map(x, x + x)".repeat(14));
    for (source, expected) in [
        (
            "value.split(' ').exists(w, w.size() > 3 && w.split('').all(c, w.replace(c, '') == ''))",
            TOO_MANY_STEPS,
        ),
        ("value.replace('a', value)", TOO_LARGE),
        ("value.split('').join(value)", TOO_LARGE),
        (doubled.as_str(), TOO_LARGE),
    ] {
        let error = evaluate(source, &text).expect_err(source);
        assert_eq!(error.message, expected, "{source}");
        assert!(error.is_over_budget);
    }
}

#[test]
fn an_exceeded_budget_is_never_ignored() {
    let value = json!((0..20_000).collect::<Vec<_>>());
    let endless = "value.all(x, value.all(y, x == x))";
    for source in [
        format!("{endless} || true"),
        format!("!({endless} && false)"),
        format!("optional.of({endless}).hasValue() || true"),
        format!("[{endless}].size() == 1 || true"),
    ] {
        let error = evaluate(&source, &value).expect_err(&source);
        assert_eq!(error.message, TOO_MANY_STEPS, "{source}");
    }
    assert_eq!(
        evaluate(&format!("true || {endless}"), &value),
        Ok(json!(true))
    );
}

/// The budget is part of the contract, so these figures stay.
#[test]
fn ordinary_expressions_are_far_within_the_budget() {
    let rows: Vec<Value> = (0..1_000)
        .map(|number| json!({"name": format!("name-{number}"), "plan": "team", "seats": number}))
        .collect();
    for (source, value, expected) in [
        (
            "value.size()",
            json!("a".repeat(64 * 1024)),
            json!(64 * 1024),
        ),
        (
            "value + '!' != value",
            json!("a".repeat(64 * 1024)),
            json!(true),
        ),
        (
            "value.exists(row, row.name == 'name-999' && row.seats > 10)",
            json!(rows),
            json!(true),
        ),
        (
            "value.filter(row, row.seats > 500).size()",
            json!(rows),
            json!(499),
        ),
        (
            "value.map(row, row.name).sort()[0]",
            json!(rows),
            json!("name-0"),
        ),
        (
            "value.split(' ').all(word, word.matches('^[a-z]+$'))",
            json!(vec!["word"; 5_000].join(" ")),
            json!(true),
        ),
        (
            "value.all(x, value.exists(y, y == x))",
            json!((0..200).collect::<Vec<_>>()),
            json!(true),
        ),
        (
            "value.matches('^[\\\\p{L} ]{2,20}$')",
            json!("Ä ".repeat(9)),
            json!(true),
        ),
    ] {
        assert_eq!(evaluate(source, &value), Ok(expected), "{source}");
    }
}

#[test]
fn searches_find_what_the_library_finds() {
    for (source, expected) in [
        ("'hällo'.indexOf('l')", 2),
        ("'hällo'.indexOf('l', 3)", 3),
        ("'hällo'.indexOf('x')", -1),
        ("'hällo'.indexOf('')", 0),
        ("'hällo'.indexOf('', 9)", 5),
        ("'hällo'.lastIndexOf('l')", 3),
        ("'hällo'.lastIndexOf('l', 2)", 2),
        ("'hällo'.lastIndexOf('l', 1)", -1),
        ("'hällo'.lastIndexOf('')", 5),
        ("'ääää'.lastIndexOf('ää', 1)", 1),
        ("'aaaa'.lastIndexOf('aaaaa')", -1),
        ("''.indexOf('')", 0),
    ] {
        assert_eq!(
            evaluate(source, &Value::Null),
            Ok(json!(expected)),
            "{source}"
        );
    }
    for source in [
        "'abc'.indexOf('c', 3)",
        "'abc'.indexOf('c', -1)",
        "'abc'.lastIndexOf('c', 3)",
    ] {
        assert!(evaluate(source, &Value::Null).is_err(), "{source}");
    }
}
