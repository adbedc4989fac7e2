//! Hostile sources and payloads: each is an error, and none ends the process.

use proptest::prelude::*;
use serde_json::json;

use super::budget::TOO_MANY_STEPS;
use super::conformance::TestCase;
use super::*;

/// Runs `work` on a stack of 2 MB, like that of a server thread.
fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new()
        .stack_size(2 * 1024 * 1024)
        .spawn(work)
        .expect("a thread")
        .join()
        .expect("no panic")
}

fn repeated(begin: &str, middle: &str, end: &str, bytes: usize) -> String {
    let times = (bytes - begin.len() - end.len()) / middle.len();
    format!("{begin}{}{end}", middle.repeat(times))
}

#[test]
fn a_deep_source_is_an_error_and_not_a_crash() {
    let shapes: &'static [(&str, &str, &str)] = &[
        ("1", "+1", ""),
        ("1", "-1", ""),
        ("true", "&&true", ""),
        ("false", "||false", ""),
        ("1", "==1", ""),
        ("a", ".a", ""),
        ("identity", ".a", ""),
        ("identity", ".?a", ""),
        ("{}", ".a", ""),
        ("value", "[0]", ""),
        ("[]", "[0]", ""),
        ("[]", "[?0]", ""),
        ("''", ".trim()", ""),
        ("", "[", ""),
        ("", "[", "]"),
        ("", "(", ""),
        ("", "(1,", ""),
        ("", "{", ""),
        ("", "{1:", ""),
        ("", "!", "true"),
        ("", "-", "1"),
        ("", "true?1:", "1"),
        ("", "true?", "1"),
        ("", "int(", "1"),
        ("", "has(", ")"),
        ("", "[1].map(x,", "x"),
        ("", "a.b.c(d)(", ")"),
        ("", "'", ""),
        ("", "\"\"\"", ""),
        ("'", "\\", ""),
        ("'", "\\x", "'"),
        ("", "`", ""),
        ("", ".", ""),
        ("", "\u{0}", ""),
        ("", "ü", ""),
        ("", "9", ""),
        ("", "0x", ""),
        ("1", "e9", ""),
        ("", "//", ""),
        ("", "\n", "!"),
        ("[", "1,", "1]"),
        ("value.matches('", "(", "')"),
        ("value.matches('", "(a|b)*", "')"),
        ("value.matches('a", "{9}", "')"),
        ("value.replace('', ", "value + ", "'')"),
    ];
    let compiled = on_a_small_stack(move || {
        let mut compiled = 0;
        for (begin, middle, end) in shapes {
            for bytes in [40, 120, 400, 1_000, 2_040, 2_100, 100_000] {
                let source = repeated(begin, middle, end, bytes);
                let case = TestCase::new();
                let Ok(expression) = case.compile(&source) else {
                    continue;
                };
                compiled += 1;
                let copy = expression.clone();
                let _ = copy.evaluate(&case.variables());
                let _ = format!("{copy:?}");
                drop((expression, copy));
            }
        }
        compiled
    });
    // Without compiled sources, the loop would prove nothing.
    assert!(compiled > 40, "{compiled} compiled");
}

#[test]
fn a_source_of_the_maximum_depth_is_evaluated_and_a_deeper_one_is_refused() {
    on_a_small_stack(|| {
        let case = TestCase::new();
        let chain = |terms: usize| format!("1{}", "+1".repeat(terms));
        assert_eq!(case.evaluate(&chain(199)), Ok(json!(200)));
        let error = case.compile(&chain(200)).expect_err("too deep");
        assert_eq!(error.message, "the expression is nested more than 200 deep");

        let nested = |terms: usize| format!("[[1]].map(x, x.map(y, y{}))", "+1".repeat(terms));
        assert_eq!(case.evaluate(&nested(190)), Ok(json!([[191]])));

        let fields = |count: usize| format!("has(identity.traits{})", ".a".repeat(count - 1));
        assert_eq!(case.evaluate(&fields(199)), Ok(json!(false)));
        assert!(case.compile(&fields(200)).is_err());
        let calls = |count: usize| format!("''{}", ".trim()".repeat(count));
        assert_eq!(case.evaluate(&calls(199)), Ok(json!("")));
        assert!(case.compile(&calls(200)).is_err());
        // The parser builds a balanced tree of connectives.
        let many = format!("true{}", " && true".repeat(200));
        assert_eq!(case.evaluate(&many), Ok(json!(true)));
    });
}

#[test]
fn a_source_has_at_most_2_kilobytes() {
    let case = TestCase::new();
    let text = |bytes: usize| format!("'{}'", "a".repeat(bytes - 2));
    assert!(case.compile(&text(2_048)).is_ok());
    let error = case.compile(&text(2_049)).expect_err("too long");
    assert_eq!(
        error.message,
        "the expression is 2049 bytes long, at most 2048 are read"
    );
}

#[test]
fn loops_over_a_visitors_input_end() {
    for source in [
        "value.all(x, value.all(y, x == x))",
        "value.map(x, value.map(y, y)).size() > 0",
        "value.exists_one(x, value.exists_one(y, false))",
        "value.all(x, !(-1 in value))",
        "value.map(x, value).size() > 0",
        "value.map(x, identity.traits.bio).size() > 0",
        "value.map(x, size(value) > 0, x).all(x, value.all(y, true))",
        "value.sortBy(x, value.all(y, true)).size() > 0",
        "true || value.all(x, value.all(y, true)) && value.all(x, value.all(y, true))",
    ] {
        let case = TestCase::new();
        let value = serde_json::Value::Array((0..20_000).map(Into::into).collect());
        let identity = json!({"traits": {"bio": "a".repeat(100_000)}});
        let expression = case.compile(source).expect(source);
        let result = expression.evaluate(&Variables {
            value: Some(&value),
            identity: Some(&identity),
            ..case.variables()
        });
        match result {
            Ok(_) => assert!(source.starts_with("true ||"), "{source}"),
            Err(error) => assert_eq!(error.message, TOO_MANY_STEPS, "{source}"),
        }
    }
}

#[test]
fn distinct_takes_time_proportional_to_the_list() {
    let case = TestCase::new();
    let value = serde_json::Value::Array((0..30_000).map(Into::into).collect());
    let others = serde_json::Value::Array((0..30_000).map(|number| json!([number])).collect());
    let expression = case.compile("value.distinct().size()").expect("compiles");
    let evaluate = |value| {
        expression.evaluate(&Variables {
            value: Some(value),
            ..case.variables()
        })
    };
    assert_eq!(evaluate(&value), Ok(json!(30_000)));
    assert!(evaluate(&others).is_err());
}

#[test]
fn a_deep_payload_is_converted() {
    on_a_small_stack(|| {
        let case = TestCase::new();
        let text = format!("{}{}", "[".repeat(126), "]".repeat(126));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let variables = Variables {
            value: Some(&value),
            ..case.variables()
        };
        let evaluate = |source: &str| case.compile(source).expect(source).evaluate(&variables);
        assert_eq!(evaluate("value"), Ok(value.clone()));
        assert_eq!(evaluate("value == [value][0]"), Ok(json!(true)));
    });
}

const TOKENS: &[&str] = &[
    "identity",
    "value",
    "response",
    "checks",
    "lists",
    "now",
    "method",
    "previous",
    ".traits",
    ".vat_id",
    ".tags",
    ".email",
    ".response",
    ".plans",
    ".?x",
    "[0]",
    "[?0]",
    "['a']",
    "x",
    "y",
    "1",
    "-1",
    "0u",
    "1.5",
    "1e400",
    "9223372036854775807",
    "'a'",
    "\"b\"",
    "b'c'",
    "r'\\'",
    "'''d'''",
    "''",
    "null",
    "true",
    "false",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    "?",
    ":",
    " in ",
    ",",
    ".",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "has(",
    "size(",
    "int(",
    "double(",
    "string(",
    "timestamp(",
    "duration('1h')",
    "duration('9223372036s')",
    "type(",
    "domain(",
    "in_domains(",
    "matches(",
    ".all(x,",
    ".exists(x,",
    ".map(x,",
    ".filter(y,",
    ".exists_one(x,",
    ".sortBy(x,",
    ".optMap(x,",
    ".orValue(",
    ".hasValue()",
    ".value()",
    "optional.of(",
    "optional.none()",
    ".matches('a')",
    ".substring(",
    ".charAt(",
    ".indexOf(",
    ".split(",
    ".join(",
    ".replace(",
    ".format([",
    ".trim()",
    ".slice(",
    ".flatten(",
    ".sort()",
    ".distinct()",
    ".reverse()",
    ".getHours(",
    ".getFullYear()",
    ".lowerAscii()",
    ".startsWith(",
    "{'a':",
    "{1:",
    "//",
    "\n",
    "ü",
    "`",
    "@0",
    "@budget",
    "@result",
    "#unused",
    "Foo{",
    "google.protobuf.Timestamp",
    ".a",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_tokens_are_an_error_and_not_a_panic(tokens in prop::collection::vec(prop::sample::select(TOKENS), 1..24)) {
        let case = TestCase::new();
        let source = tokens.concat();
        // The compiler catches a panic and reports it with the text below.
        match case.compile(&source) {
            Ok(expression) => {
                if let Err(error) = expression.evaluate(&case.variables()) {
                    prop_assert!(!error.message.contains('@'), "{source}: {error}");
                }
            }
            Err(error) => {
                prop_assert_ne!(&error.message, "the expression cannot be read");
                if let Some(offset) = error.offset {
                    prop_assert!(source.is_char_boundary(offset), "{}: {}", source, offset);
                }
            }
        }
    }

    #[test]
    fn random_well_formed_expressions_are_evaluated_without_a_panic(
        operands in prop::collection::vec(prop::sample::select(OPERANDS), 6),
        shape in prop::sample::select(SHAPES),
    ) {
        let case = TestCase::new();
        let mut source = shape.to_owned();
        for operand in operands {
            source = source.replacen('§', operand, 1);
        }
        if let Ok(expression) = case.compile(&source)
            && let Err(error) = expression.evaluate(&case.variables())
        {
            prop_assert!(!error.message.contains("s3cr3t"), "{source}: {error}");
        }
    }
}

const OPERANDS: &[&str] = &[
    "identity.traits.secret",
    "identity.traits.tags",
    "identity.traits.name",
    "identity",
    "value",
    "identity.traits.nick",
    "identity.traits.born",
    "identity.traits.height",
    "identity.traits.big",
    "now",
    "method",
    "previous",
    "response.body",
    "response.body.errors",
    "lists.plans",
    "identity.traits.?x",
    "identity.?traits",
    "1",
    "-1",
    "0",
    "9223372036854775807",
    "(-9223372036854775807 - 1)",
    "18446744073709551615u",
    "0u",
    "0.0",
    "-0.0",
    "1e308",
    "1e-308",
    "(0.0/0.0)",
    "(1.0/0.0)",
    "''",
    "'a'",
    "'äöü'",
    "b''",
    "b'\\xff'",
    "[]",
    "[1, 'a', null]",
    "{}",
    "{1: 2, 'a': now}",
    "null",
    "true",
    "false",
    "type(1)",
    "int",
    "duration('1h')",
    "duration('9223372036s')",
    "timestamp('9999-12-31T23:59:59Z')",
    "timestamp('0001-01-01T00:00:00Z')",
    "optional.none()",
    "optional.of(1)",
    "optional.of(optional.none())",
];

const SHAPES: &[&str] = &[
    "§ + §",
    "§ - §",
    "§ * §",
    "§ / §",
    "§ % §",
    "-§",
    "!§",
    "§ == §",
    "§ != §",
    "§ < §",
    "§ >= §",
    "§ in §",
    "§[§]",
    "§[?§]",
    "§.a",
    "§.?a",
    "has(§.a)",
    "§ && § || §",
    "§ ? § : §",
    "[§, §]",
    "{§: §}",
    "{?'a': §}",
    "[?§]",
    "§.map(x, x)",
    "§.filter(x, x == §)",
    "§.all(x, x > §)",
    "§.exists(x, x < §)",
    "§.sortBy(x, x)",
    "§.sort()",
    "§.distinct()",
    "§.flatten(§)",
    "§.reverse()",
    "§.slice(§, §)",
    "§.substring(§)",
    "§.substring(§, §)",
    "§.charAt(§)",
    "§.indexOf(§, §)",
    "§.lastIndexOf(§, §)",
    "§.split(§)",
    "§.split(§, §)",
    "§.join(§)",
    "§.replace(§, §)",
    "§.replace(§, §, §)",
    "§.format(§)",
    "'%s %d %f %e %b %x %o %.3f'.format([§, §, §, §, §, §, §, §])",
    "'%s'.format([§])",
    "'%d'.format([§])",
    "'%x'.format([§])",
    "'%e'.format([§])",
    "§.trim()",
    "§.lowerAscii()",
    "strings.quote(§)",
    "§.contains(§)",
    "§.startsWith(§)",
    "§.endsWith(§)",
    "§.matches('a+')",
    "size(§)",
    "§.size()",
    "int(§)",
    "uint(§)",
    "double(§)",
    "string(§)",
    "bytes(§)",
    "bool(§)",
    "timestamp(§)",
    "duration(§)",
    "type(§)",
    "dyn(§)",
    "§.getFullYear()",
    "§.getHours(§)",
    "§.getDayOfYear('+25:99')",
    "§.getDate('Europe/Berlin')",
    "§.getMilliseconds()",
    "§ + duration('9223372036s')",
    "§ - now",
    "now - §",
    "now + §",
    "§.orValue(§)",
    "§.or(§)",
    "§.value()",
    "§.hasValue()",
    "§.optMap(x, x)",
    "optional.ofNonZeroValue(§)",
    "domain(§)",
    "in_domains(§, §)",
    "in_domains(§, lists.throwaway)",
];
