//! Vestibule's own functions: results, wrong arguments, and the examples of the reference.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::conformance::TestCase;
use super::*;

/// The global functions of the language itself.
const OF_THE_LANGUAGE: [&str; 12] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "matches",
    "size",
    "string",
    "timestamp",
    "type",
    "uint",
];

const INVITE_LINK: &str =
    "http://127.0.0.1:4433/self-service/registration/browser?invite=A%20B%2Bc&x=1&x=2&empty=&a+b=ü";

fn evaluate(source: &str, value: &Value) -> Result<Value, EvaluationError> {
    let case = TestCase::new();
    let variables = Variables {
        value: Some(value),
        ..case.variables()
    };
    case.compile(source).expect(source).evaluate(&variables)
}

#[test]
fn every_own_function_is_in_the_reference_and_its_example_is_true() {
    let mut documented = BTreeSet::new();
    for function in FUNCTION_REFERENCE {
        let result: Value = serde_json::from_str(function.result).expect(function.result);
        assert_eq!(
            evaluate(function.example, &Value::Null),
            Ok(result),
            "{}",
            function.example
        );
        let name = function.call.split('(').next().unwrap_or_default();
        assert!(function.example.starts_with(name), "{name}");
        documented.insert(name);
    }
    let own = functions::FUNCTIONS.iter().filter(|function| {
        function.style == functions::Style::Global
            && !function.name.contains('.')
            && !OF_THE_LANGUAGE.contains(&function.name)
    });
    let own: BTreeSet<&str> = own.map(|function| function.name).collect();
    assert_eq!(documented, own);
}

#[test]
fn the_parameters_of_a_url_are_read() {
    for (url, name, expected) in [
        (json!(INVITE_LINK), "invite", json!("A B+c")),
        (json!(INVITE_LINK), "x", json!("1")),
        (json!(INVITE_LINK), "empty", json!("")),
        (json!(INVITE_LINK), "a b", json!("ü")),
        (json!(INVITE_LINK), "Invite", Value::Null),
        (json!(INVITE_LINK), "", Value::Null),
        (
            json!("https://example.com/?a=1#?invite=2"),
            "invite",
            Value::Null,
        ),
        (
            json!("https://example.com/#?invite=2"),
            "invite",
            Value::Null,
        ),
        (
            json!("https://example.com/?a?invite=2"),
            "a?invite",
            json!("2"),
        ),
        (json!("/relative?invite=a&invite=b"), "invite", json!("a")),
        (json!("?invite"), "invite", json!("")),
        (json!("?&&=&invite=a+b"), "invite", json!("a b")),
        (json!("?invite=%FF%4"), "invite", json!("\u{fffd}%4")),
        (json!("invite=a"), "invite", Value::Null),
        (json!(""), "invite", Value::Null),
        (Value::Null, "invite", Value::Null),
    ] {
        let source = format!("query_parameter(value, '{name}')");
        assert_eq!(evaluate(&source, &url), Ok(expected), "{url} {name}");
    }
    let guarded = "query_parameter(flow.?request_url.orValue(null), 'invite') == null";
    assert_eq!(evaluate(guarded, &Value::Null), Ok(json!(true)));
}

#[test]
fn texts_and_bytes_are_hashed_and_encoded() {
    for (source, expected) in [
        (
            "sha256('')",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            "sha256('ü')",
            "607474ca475a9724d7360aba71a56d5df77e61350e3f724cfa1f46e857e2d85f",
        ),
        (
            "sha256(b'\\xff')",
            "a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89",
        ),
        ("md5('')", "d41d8cd98f00b204e9800998ecf8427e"),
        // As Mailchimp and Gravatar want it.
        (
            "md5(' Ada@Example.COM '.trim().lowerAscii())",
            "3e3417d7ef77d5932a6734b916515ed5",
        ),
        // RFC 4231, test case 2.
        (
            "hmac_sha256('what do ya want for nothing?', 'Jefe')",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            "hmac_sha256('a', '')",
            "9615a95d4a336118c435b9cd54c5e8644ab956b573aa2926274a1280b6674713",
        ),
        ("base64_encode('')", ""),
        ("base64_encode('a?>')", "YT8+"),
        ("base64_encode(b'\\xff')", "/w=="),
        ("base64_decode('')", ""),
        ("base64_decode('YT8+')", "a?>"),
        ("base64_decode('YT8-')", "a?>"),
        ("base64_decode('YQ==')", "a"),
        ("base64_decode('YQ')", "a"),
        (
            "url_encode('a b/c?d=ü&e.f~g_h-i')",
            "a%20b%2Fc%3Fd%3D%C3%BC%26e.f~g_h-i",
        ),
        ("url_encode(b'\\xff')", "%FF"),
        ("url_decode('a%20b%2Fc%C3%BC+%4')", "a b/cü+%4"),
        ("url_decode(url_encode(base64_encode('a?>')))", "YT8+"),
    ] {
        assert_eq!(
            evaluate(source, &Value::Null),
            Ok(json!(expected)),
            "{source}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong_arguments_are_errors_without_a_value() {
    let secret = "s3cr3t";
    let long = "a".repeat(16 * 1024);
    for (source, value, expected) in [
        (
            "sha256(value)",
            json!(1),
            "`sha256` does not work on an int",
        ),
        (
            "sha256(value)",
            Value::Null,
            "`sha256` does not work on null",
        ),
        (
            "sha256(value)",
            json!([secret]),
            "`sha256` does not work on a list",
        ),
        ("md5(value)", json!(true), "`md5` does not work on a bool"),
        (
            "md5(identity.traits.?nothing)",
            json!(1),
            "`md5` does not work on an optional value",
        ),
        (
            "hmac_sha256(value, 1)",
            json!(secret),
            "`hmac_sha256` does not work on a string and an int",
        ),
        (
            "hmac_sha256('a', value)",
            Value::Null,
            "`hmac_sha256` does not work on a string and null",
        ),
        (
            "base64_encode(value)",
            json!(1.5),
            "`base64_encode` does not work on a double",
        ),
        (
            "base64_decode(value)",
            json!({"a": secret}),
            "`base64_decode` does not work on a map",
        ),
        (
            "base64_decode(value)",
            json!("s3cr3t!"),
            "`base64_decode`: the argument is not base64",
        ),
        (
            "base64_decode(value)",
            json!("s"),
            "`base64_decode`: the argument is not base64",
        ),
        (
            "base64_decode(value)",
            json!("YT8+-"),
            "`base64_decode`: the argument is not base64",
        ),
        (
            "base64_decode(value)",
            json!("/w=="),
            "`base64_decode`: the decoded bytes are not a text in UTF-8",
        ),
        (
            "url_decode(value)",
            json!("s3cr3t%FF"),
            "`url_decode`: the decoded bytes are not a text in UTF-8",
        ),
        (
            "url_encode(value)",
            json!(7),
            "`url_encode` does not work on an int",
        ),
        (
            "query_parameter(value, 'a')",
            json!(7),
            "`query_parameter` does not work on an int and a string",
        ),
        (
            "query_parameter(value, null)",
            json!(secret),
            "`query_parameter` does not work on a string and null",
        ),
        (
            "sha256(value + '!')",
            json!(long),
            "`sha256`: an argument is longer than 16384 bytes",
        ),
        (
            "md5(value + '!')",
            json!(long),
            "`md5`: an argument is longer than 16384 bytes",
        ),
        (
            "hmac_sha256(value + '!', 'a')",
            json!(long),
            "`hmac_sha256`: an argument is longer than 16384 bytes",
        ),
        (
            "hmac_sha256('a', value + '!')",
            json!(long),
            "`hmac_sha256`: an argument is longer than 16384 bytes",
        ),
        (
            "base64_encode(value + '!')",
            json!(long),
            "`base64_encode`: an argument is longer than 16384 bytes",
        ),
        (
            "base64_decode(value + '!')",
            json!(long),
            "`base64_decode`: an argument is longer than 16384 bytes",
        ),
        (
            "url_encode(value + '!')",
            json!(long),
            "`url_encode`: an argument is longer than 16384 bytes",
        ),
        (
            "url_decode(value + '!')",
            json!(long),
            "`url_decode`: an argument is longer than 16384 bytes",
        ),
        (
            "query_parameter(value + '!', 'a')",
            json!(long),
            "`query_parameter`: an argument is longer than 16384 bytes",
        ),
    ] {
        let error = evaluate(source, &value).expect_err(source);
        assert_eq!(error.message, expected, "{source}");
    }
    for source in ["sha256(value)", "url_encode(value)", "base64_encode(value)"] {
        assert!(evaluate(source, &json!(long)).is_ok(), "{source}");
    }
}

#[test]
fn a_list_in_place_of_a_text_is_refused_before_a_service_is_asked() {
    let case = TestCase::new();
    let value = json!(["a"]);
    let variables = Variables {
        value: Some(&value),
        ..case.variables()
    };
    for source in [
        "sha256(value)",
        "hmac_sha256(value, 'a')",
        "md5(value)",
        "base64_encode(value)",
        "base64_decode(value)",
        "url_encode(value)",
        "url_decode(value)",
        "query_parameter(value, 'a')",
    ] {
        let expression = case.compile(source).expect(source);
        let error = expression.expects_texts(&variables).expect_err(source);
        assert_eq!(error.message, "`value` is a list where a text is expected");
    }
}

#[test]
fn a_wrong_number_of_arguments_or_a_wrong_form_is_a_compile_error() {
    let case = TestCase::new();
    for (source, message, hint) in [
        (
            "sha256()",
            "wrong number of arguments for `sha256`: 1 expected, 0 given",
            None,
        ),
        (
            "hmac_sha256(value)",
            "wrong number of arguments for `hmac_sha256`: 2 expected, 1 given",
            None,
        ),
        (
            "value.sha256()",
            "`sha256` is not called on a value",
            Some("write `sha256(…)`"),
        ),
        (
            "sha_256(value)",
            "there is no function `sha_256`",
            Some("did you mean `sha256`?"),
        ),
        (
            "query_param(value, 'a')",
            "there is no function `query_param`",
            Some("did you mean `query_parameter`?"),
        ),
    ] {
        let error = case.compile(source).expect_err(source);
        assert_eq!(error.message, message);
        assert_eq!(error.hint.as_deref(), hint, "{source}");
    }
}
