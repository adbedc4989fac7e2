//! The results of expressions, row by row. These tests must pass unchanged with each new version of the library.

use serde_json::{Value, json};

use super::*;

/// All variables of an expression, with values.
pub(in crate::expression) struct TestCase {
    identity: Value,
    previous: Option<Value>,
    value: Value,
    flow: Value,
    request: Value,
    response: Option<Value>,
    checks: BTreeMap<String, Arc<Value>>,
    lists: Arc<Lists>,
}

impl TestCase {
    pub fn new() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let lists = [
            (
                "throwaway",
                texts(&[
                    "mailinator.com",
                    "*.Trash.example",
                    "@münchen.example",
                    " .dot.example ",
                ]),
            ),
            ("plans", texts(&["gold", "silver"])),
        ];
        let lists = lists.map(|(name, texts): (&str, Vec<String>)| (name.to_owned(), texts));
        Self {
            identity: json!({
                "id": "00000000-0000-0000-0000-000000000000",
                "traits": {
                    "email": "Ada@Mail.Example",
                    "vat_id": "NL123",
                    "name": {"first": "Ada", "last": "Lovelace"},
                    "tags": ["a", "b", "b"],
                    "born": 1815,
                    "height": 1.65,
                    "big": 18_446_744_073_709_551_615_u64,
                    "nick": null,
                    "odd key": "odd",
                    "secret": "s3cr3t-v4lue",
                },
                "metadata_public": null,
                "verifiable_addresses": [{"value": "ada@mail.example", "verified": false}],
            }),
            previous: None,
            value: json!("NL123"),
            flow: json!({"id": "f", "type": "browser", "transient_payload": {"captcha": "c"}}),
            request: json!({"headers": {"Accept-Language": "de"}, "client_ip": "192.0.2.1"}),
            response: Some(json!({
                "status": 200,
                "headers": {"content-type": "application/json"},
                "body": {"valid": true, "name": "ACME", "errors": [{"error": "BUSY", "code": 3}], "nothing": null},
            })),
            checks: BTreeMap::from([(
                "email".to_owned(),
                Arc::new(
                    json!({"response": {"status": 204, "headers": {}, "body": {"score": 0.5}}}),
                ),
            )]),
            lists: Arc::new(Lists::new(BTreeMap::from(lists))),
        }
    }

    pub fn scope(&self) -> Scope {
        Scope {
            roots: Variable::ALL.to_vec(),
            checks: vec!["email".to_owned(), "vat".to_owned()],
            lists: Arc::clone(&self.lists),
            client_ip: true,
            headers: ["Accept-Language", "X-Forwarded-For"]
                .map(ToOwned::to_owned)
                .into(),
            ..Scope::default()
        }
    }

    pub fn variables(&self) -> Variables<'_> {
        Variables {
            identity: Some(&self.identity),
            previous: self.previous.as_ref(),
            value: Some(&self.value),
            flow: Some(&self.flow),
            request: Some(&self.request),
            method: "password",
            now: Timestamp::UNIX_EPOCH,
            response: self.response.as_ref(),
            checks: Some(&self.checks),
            taken: None,
            lists: &self.lists,
        }
    }

    pub fn compile(&self, source: &str) -> Result<Expression, CompileError> {
        Expression::compile(source, &self.scope())
    }

    pub fn evaluate(&self, source: &str) -> Result<Value, EvaluationError> {
        self.compile(source)
            .unwrap_or_else(|error| panic!("{source}: {error:?}"))
            .evaluate(&self.variables())
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn expressions_have_the_results_that_the_language_defines() {
    let case = TestCase::new();
    for (source, expected) in [
        // Names
        ("identity.traits.vat_id", json!("NL123")),
        (
            "identity.traits.name",
            json!({"first": "Ada", "last": "Lovelace"}),
        ),
        ("identity.traits.name.last", json!("Lovelace")),
        (r#"identity.traits["odd key"]"#, json!("odd")),
        ("identity.traits.tags[1]", json!("b")),
        ("identity.traits.nick", Value::Null),
        ("identity.traits.nick == null", json!(true)),
        ("value", json!("NL123")),
        (".value", json!("NL123")),
        ("flow.transient_payload.captcha", json!("c")),
        (r#"request.headers["Accept-Language"]"#, json!("de")),
        ("request.client_ip", json!("192.0.2.1")),
        ("method", json!("password")),
        ("method.startsWith('pass')", json!(true)),
        ("response.status == 200", json!(true)),
        ("response.body.errors[0].error", json!("BUSY")),
        ("checks.email.response.status", json!(204)),
        ("checks.email.response.body.score < 0.6", json!(true)),
        ("lists.plans", json!(["gold", "silver"])),
        ("lists.plans.size() + lists.throwaway.size()", json!(6)),
        ("lists.plans[0]", json!("gold")),
        // Missing values
        ("has(identity.traits.vat_id)", json!(true)),
        ("has(identity.traits.x)", json!(false)),
        ("has(identity.traits.nick)", json!(true)),
        ("has(identity.traits.company.name)", json!(false)),
        ("has(identity.metadata_public.company)", json!(false)),
        ("has(previous.traits.x)", json!(false)),
        ("has(previous.traits)", json!(false)),
        ("has(response.body.x)", json!(false)),
        ("has(checks.vat.response)", json!(false)),
        ("has(checks.email.response)", json!(true)),
        ("has(lists.plans)", json!(true)),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", json!(true)),
        ("identity.traits.?x.orValue('none')", json!("none")),
        ("identity.traits.?vat_id.orValue('none')", json!("NL123")),
        (
            "identity.?metadata_public.?company.orValue('none')",
            json!("none"),
        ),
        ("identity.?traits.name.first.orValue('none')", json!("Ada")),
        ("identity.traits[?'x'].hasValue()", json!(false)),
        ("identity.traits.tags[?7].orValue('none')", json!("none")),
        ("previous.?traits.hasValue()", json!(false)),
        ("checks.?vat.response.status.orValue(0)", json!(0)),
        (
            "response.body.?errorWrappers.orValue([]).exists(e, e.error in ['A'])",
            json!(false),
        ),
        ("identity.traits.?x", Value::Null),
        ("identity.traits.?vat_id", json!("NL123")),
        ("identity.traits.x == 1 || true", json!(true)),
        ("false && identity.traits.x == 1", json!(false)),
        // Types
        ("type(identity.traits.born) == int", json!(true)),
        ("type(identity.traits.height) == double", json!(true)),
        ("type(identity.traits.big) == double", json!(true)),
        ("type(now) == google.protobuf.Timestamp", json!(true)),
        ("type(1)", json!("int")),
        ("identity.traits.born + 1", json!(1816)),
        ("identity.traits.born == 1815.0", json!(true)),
        ("identity.traits.vat_id == 3", json!(false)),
        ("1.5 + 1.5", json!(3.0)),
        ("7u", json!(7)),
        ("b'abc'", json!("YWJj")),
        ("now", json!("1970-01-01T00:00:00Z")),
        (
            "now + duration('1h30m1.5s')",
            json!("1970-01-01T01:30:01.500Z"),
        ),
        ("duration('1h1.5s')", json!("3601.5s")),
        ("duration('-1.5s')", json!("-1.5s")),
        ("duration('2m')", json!("120s")),
        ("now.getFullYear()", json!(1970)),
        ("now.getHours('Asia/Tokyo')", json!(9)),
        ("timestamp('2026-01-02T03:04:05+02:00') > now", json!(true)),
        (
            "{'b': 1, 'a': [now]}",
            json!({"a": ["1970-01-01T00:00:00Z"], "b": 1}),
        ),
        ("{2: 'b', true: 'a'}", json!({"2": "b", "true": "a"})),
        // Operators and functions
        ("identity.traits.tags + ['c']", json!(["a", "b", "b", "c"])),
        ("['a', 'b', 'b'] == identity.traits.tags", json!(true)),
        ("identity.traits.tags == ['a', 'b', 'b']", json!(true)),
        (
            "{'first': 'Ada', 'last': 'Lovelace'} == identity.traits.name",
            json!(true),
        ),
        ("'a' in identity.traits.tags", json!(true)),
        ("'first' in identity.traits.name", json!(true)),
        ("value in lists.plans", json!(false)),
        ("'gold' in lists.plans", json!(true)),
        ("'Gold' in lists.plans", json!(false)),
        ("3 in lists.plans", json!(false)),
        ("identity.traits.tags.all(x, x in ['a', 'b'])", json!(true)),
        ("identity.traits.tags.exists(x, x == 'c')", json!(false)),
        ("identity.traits.tags.exists_one(x, x == 'b')", json!(false)),
        ("identity.traits.tags.exists_one(x, x == 'a')", json!(true)),
        (
            "identity.traits.tags.map(x, x + '!')",
            json!(["a!", "b!", "b!"]),
        ),
        ("identity.traits.tags.filter(x, x != 'b')", json!(["a"])),
        (
            "identity.traits.tags.map(x, x == 'b', x + '!')",
            json!(["b!", "b!"]),
        ),
        (
            "[[1, 2], [3]].map(x, x.map(y, y * 2))",
            json!([[2, 4], [6]]),
        ),
        (
            "identity.verifiable_addresses.exists(a, !a.verified && a.value.endsWith('.example'))",
            json!(true),
        ),
        ("[1].map(identity, identity)", json!([1])),
        ("[{'traits': 1}].map(identity, identity.traits)", json!([1])),
        ("[1].map(x, [2].map(x, x))", json!([[2]])),
        (
            "identity.traits.name.map(k, k).sort()",
            json!(["first", "last"]),
        ),
        ("value.substring(0, 2) + value.substring(2)", json!("NL123")),
        (
            "' A,b '.trim().lowerAscii().split(',').join('-')",
            json!("a-b"),
        ),
        ("'%s is %d'.format(['x', 3])", json!("x is 3")),
        ("strings.quote('a')", json!("\"a\"")),
        ("value.matches('^NL[0-9]+$')", json!(true)),
        ("matches(value, '^DE')", json!(false)),
        ("'{'.matches('^[{]$')", json!(true)),
        ("[3, 1, 2].sort().reverse()", json!([3, 2, 1])),
        ("[{'n': 2}, {'n': 1}].sortBy(e, e.n)[0].n", json!(1)),
        (
            "[1, 1u, 1.0, 'a', 'a', [1], [1], true].distinct()",
            json!([1, "a", [1], true]),
        ),
        ("[[1], [2]].flatten()", json!([1, 2])),
        ("[1, 2, 3].slice(1, 2)", json!([2])),
        ("optional.of(1).optMap(x, x + 1).value()", json!(2)),
        ("optional.none().or(optional.of(2)).orValue(3)", json!(2)),
        (
            "identity.traits.?born.optMap(x, x + 1).orValue(0)",
            json!(1816),
        ),
        ("size('äöü')", json!(3)),
        // Domains
        ("domain(identity.traits.email)", json!("mail.example")),
        (
            "domain('a@b@Bücher.example.')",
            json!("xn--bcher-kva.example"),
        ),
        (
            "in_domains('x@mailinator.com', lists.throwaway)",
            json!(true),
        ),
        (
            "in_domains('x@A.B.MAILINATOR.com', lists.throwaway)",
            json!(true),
        ),
        ("in_domains('mailinator.com', lists.throwaway)", json!(true)),
        (
            "in_domains('x@notmailinator.com', lists.throwaway)",
            json!(false),
        ),
        ("in_domains('x@com', lists.throwaway)", json!(false)),
        (
            "in_domains('x@trash.example', lists.throwaway)",
            json!(true),
        ),
        (
            "in_domains('x@MÜNCHEN.example', lists.throwaway)",
            json!(true),
        ),
        (
            "in_domains('x@xn--mnchen-3ya.example', lists.throwaway)",
            json!(true),
        ),
        (
            "in_domains('x@a。dot。example', lists.throwaway)",
            json!(true),
        ),
        (
            "in_domains('x@sub.a.example', ['b.example', '*.A.example'])",
            json!(true),
        ),
        ("in_domains('x@a.example', ['b.example', 3])", json!(false)),
        ("in_domains('x@gold', lists.plans + ['c'])", json!(true)),
        (
            "['mailinator.com'].all(d, in_domains(d, lists.throwaway))",
            json!(true),
        ),
    ] {
        assert_eq!(case.evaluate(source), Ok(expected), "{source}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn an_evaluation_error_names_its_place_and_contains_no_value() {
    let case = TestCase::new();
    for (source, expected) in [
        (
            "identity.traits.vat",
            "no such key `vat` in `identity.traits`",
        ),
        (
            "identity.traits.vat.x",
            "no such key `vat` in `identity.traits`",
        ),
        (
            "identity.traits['vat']",
            "no such key `vat` in `identity.traits`",
        ),
        (
            "identity.traits.vat_id.x",
            "`identity.traits.vat_id` is a string, so there is no `identity.traits.vat_id.x`",
        ),
        (
            "identity.metadata_public.x",
            "`identity.metadata_public` is null, so there is no `identity.metadata_public.x`",
        ),
        (
            "identity.traits.tags[3]",
            "index out of range: `identity.traits.tags[3]`",
        ),
        (
            "identity.traits.tags[-1]",
            "index out of range: `identity.traits.tags[-1]`",
        ),
        (
            "identity.?traits.vat_id.x",
            "`identity.?traits.vat_id` is a string, so there is no `identity.?traits.vat_id.x`",
        ),
        ("previous.traits", "`previous` has no value here"),
        (
            "has(response.body.valid.x)",
            "`response.body.valid` is a bool, so there is no `response.body.valid.x`",
        ),
        (
            "has(response.body.data.x)",
            "no such key `data` in `response.body`",
        ),
        (
            "has(response.body.nothing.x)",
            "`response.body.nothing` is null, so there is no `response.body.nothing.x`",
        ),
        ("checks.vat.response.status", "`checks.vat` has no response"),
        (
            "checks.email.response.body.x",
            "no such key `x` in `checks.email.response.body`",
        ),
        (
            "identity.traits.name[identity.traits.secret]",
            "no such key",
        ),
        (
            "identity.traits.tags[identity.traits.secret]",
            "a list has no element by a string",
        ),
        (
            "identity.traits.tags[identity.traits.born]",
            "index out of range",
        ),
        (
            "identity.verifiable_addresses.map(a, a.vat)",
            "no such key `vat`",
        ),
        (
            "identity.verifiable_addresses.map(a, a.value.x)",
            "a string has no keys",
        ),
        (
            "identity.traits.secret + 1",
            "`+` does not work on a string and an int",
        ),
        (
            "identity.traits.secret - 1",
            "`-` does not work on a string and an int",
        ),
        (
            "identity.traits.secret < 1",
            "`<` does not work on a string and an int",
        ),
        ("-identity.traits.secret", "`-` does not work on a string"),
        ("!identity.traits.secret", "`!` does not work on a string"),
        (
            "identity.traits.secret && true",
            "`&&` does not work on a string and a bool",
        ),
        (
            "identity.traits.secret ? 1 : 2",
            "a string is used where true or false is needed",
        ),
        (
            "'a' in identity.traits.secret",
            "`in` does not work on a string and a string",
        ),
        (
            "identity.traits.secret.map(x, x)",
            "a string is used where a list is needed",
        ),
        (
            "identity.traits.secret.getFullYear()",
            "`getFullYear` does not work on a string",
        ),
        (
            "identity.traits.born.startsWith('a')",
            "`startsWith` does not work on an int and a string",
        ),
        (
            "identity.traits.born.matches('a')",
            "`matches` does not work on an int and a pattern",
        ),
        (
            "int(identity.traits.secret)",
            "`int` cannot convert its argument",
        ),
        (
            "timestamp(identity.traits.secret)",
            "`timestamp` cannot convert its argument",
        ),
        (
            "duration(identity.traits.secret)",
            "`duration` cannot convert its argument",
        ),
        (
            "identity.traits.secret.substring(99)",
            "`substring`: the text or list is not that long",
        ),
        (
            "identity.traits.tags.slice(1, 99)",
            "`slice`: the text or list is not that long",
        ),
        (
            "'%d'.format([identity.traits.secret])",
            "`format` cannot use its arguments",
        ),
        (
            "now.getHours(identity.traits.secret)",
            "a function cannot use its arguments",
        ),
        (
            "optional.none().value()",
            "`value`: the optional value is empty",
        ),
        ("identity.traits.born / 0", "division by zero"),
        (
            "identity.traits.born % 0",
            "remainder of a division by zero",
        ),
        (
            "identity.traits.born * 9223372036854775807",
            "the result of `*` is too large",
        ),
        (
            "{identity.traits.secret: 1, 's3cr3t-v4lue': 2}",
            "a map has the same key twice",
        ),
        (
            "{identity.traits.height: 1}",
            "a double cannot be the key of a map",
        ),
        (
            "0.0 / 0.0",
            "gave a double that is not a number, like 0.0 / 0.0",
        ),
        (
            "domain(identity.traits.secret)",
            "`domain`: the argument is not an address or a domain",
        ),
        (
            "domain('a@')",
            "`domain`: the argument is not an address or a domain",
        ),
        (
            "domain('a@b..c')",
            "`domain`: the argument is not an address or a domain",
        ),
        (
            "domain('a@b c')",
            "`domain`: the argument is not an address or a domain",
        ),
        (
            "domain('a@b＠c')",
            "`domain`: the argument is not an address or a domain",
        ),
        (
            "domain('a@[192.0.2.1]')",
            "`domain`: the argument is not an address or a domain",
        ),
        (
            "in_domains('a b', lists.throwaway)",
            "`in_domains`: the argument is not an address or a domain",
        ),
        (
            "in_domains('', lists.throwaway)",
            "`in_domains`: the argument is not an address or a domain",
        ),
        (
            "in_domains(identity.traits.born, lists.throwaway)",
            "`in_domains` does not work on an int and a list",
        ),
        (
            "in_domains('a.b', identity.traits.secret)",
            "`in_domains` does not work on a string and a string",
        ),
    ] {
        let error = case.evaluate(source).expect_err(source);
        assert_eq!(error.message, expected, "{source}");
        assert!(!error.message.contains("s3cr3t"), "{source}");
        assert_eq!(
            error.missing_check,
            source == "checks.vat.response.status",
            "{source}"
        );
    }
}

#[test]
fn a_condition_must_be_a_bool() {
    let case = TestCase::new();
    let holds = |source: &str| case.compile(source).expect(source).holds(&case.variables());
    assert_eq!(holds("value == 'NL123'"), Ok(true));
    assert_eq!(holds("value == 'x'"), Ok(false));
    let error = holds("value").expect_err("a string");
    assert_eq!(error.message, "gave a string, not true or false");
}

#[test]
fn missing_check_is_set_only_for_a_missing_response_of_a_check() {
    let case = TestCase::new();
    for (source, missing) in [
        ("checks.vat.response.body.valid", true),
        ("[1].all(x, checks.vat.response.status == x)", true),
        (
            "checks.vat.response.status == 1 || identity.traits.vat == 1",
            false,
        ),
        ("checks.email.response.body.valid", false),
    ] {
        let error = case.evaluate(source).expect_err(source);
        assert_eq!(error.missing_check, missing, "{source}: {error}");
    }
    let mut variables = case.variables();
    variables.checks = None;
    let expression = case
        .compile("checks.email.response.status")
        .expect("compiles");
    assert!(
        expression
            .evaluate(&variables)
            .expect_err("none")
            .missing_check
    );
}

#[test]
fn checks_read_returns_the_checks_that_an_expression_reads() {
    let case = TestCase::new();
    for (source, expected) in [
        ("value == 'a'", vec![]),
        (
            "checks.vat.response.status == 200 && has(checks.vat.response)",
            vec!["vat"],
        ),
        (
            "[1].exists(x, checks.email.response.status == x) || checks.?vat.response.hasValue()",
            vec!["email", "vat"],
        ),
    ] {
        assert_eq!(
            case.compile(source).expect(source).checks_read(),
            expected,
            "{source}"
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn unknown_names_are_compile_errors() {
    let case = TestCase::new();
    let narrow = Scope {
        roots: vec![
            Variable::Identity,
            Variable::Value,
            Variable::Request,
            Variable::Lists,
        ],
        lists: Arc::clone(&case.lists),
        ..Scope::default()
    };
    for (source, at, message, hint) in [
        (
            "identiy.traits",
            0,
            "there is no name `identiy`",
            "did you mean `identity`?",
        ),
        (
            "1 + valeu",
            4,
            "there is no name `valeu`",
            "did you mean `value`?",
        ),
        (
            "hello",
            0,
            "there is no name `hello`",
            "the names here are `identity`, `value`, `request` and `lists`; write a text in quotes",
        ),
        (
            "'ä' + response.body",
            7,
            "`response` does not exist here",
            "`response` exists only after an `ask`",
        ),
        (
            "previous.traits",
            0,
            "`previous` does not exist here",
            "`previous` exists only in the flow `settings`",
        ),
        (
            "checks.email",
            0,
            "`checks` does not exist here",
            "the response of another check cannot be read at this place",
        ),
        (
            "now",
            0,
            "`now` does not exist here",
            "it has no value at this place",
        ),
        (
            "value in lists.throwawy",
            9,
            "no list is named `throwawy`",
            "did you mean `throwaway`?",
        ),
        (
            "has(lists.x)",
            4,
            "no list is named `x`",
            "lists are named under `lists:`",
        ),
        (
            "lists",
            0,
            "`lists` is only the first part of a name",
            "write `lists.name`",
        ),
        (
            "lists[value]",
            0,
            "`lists` is only the first part of a name",
            "write `lists.name`",
        ),
        (
            "lists['plans']",
            0,
            "`lists` is only the first part of a name",
            "write `lists.name`",
        ),
        (
            "lists.range(3)",
            0,
            "`lists` is only the first part of a name",
            "write `lists.name`",
        ),
        (
            "request.client_ip",
            0,
            "`request.client_ip` is not known",
            "set hooks.client_ip",
        ),
        (
            "request['client_ip']",
            0,
            "`request.client_ip` is not known",
            "set hooks.client_ip",
        ),
        (
            "request.header",
            0,
            "`request` has no `header`",
            "did you mean `headers`?",
        ),
        (
            "value.startWith('a')",
            6,
            "there is no function `startWith`",
            "did you mean `startsWith`?",
        ),
        (
            "1 + startsWith(value, 'a')",
            4,
            "`startsWith` is called on a value",
            "write `x.startsWith(…)`",
        ),
        (
            "value.domain()",
            6,
            "`domain` is not called on a value",
            "write `domain(…)`",
        ),
        (
            "value.exists(x)",
            6,
            "`exists` has another form",
            "write `list.exists(x, condition)`",
        ),
        (
            "value.matches(identity.traits.p)",
            0,
            "the pattern of `matches` is not a constant text",
            "",
        ),
        (
            "value.matches('[a')",
            14,
            "`[a` is not a regular expression: unclosed character class",
            "",
        ),
        (
            "value.matches('((a{100}){100}){100}')",
            14,
            "`((a{100}){100}){100}` is not a regular expression: it is too big",
            "write `((a+)+)+`, and limit the length with `size(…)`, as in `size(value) <= 100`",
        ),
        (
            "value.matches('^\\\\p{L}{2,100}$')",
            14,
            "`^\\p{L}{2,100}$` is not a regular expression: it is too big",
            "write `^\\p{L}{2,}$`, and limit the length with `size(…)`, as in `size(value) <= 100`",
        ),
        (
            "value.substring ()",
            6,
            "wrong number of arguments for `substring`: 1 or 2 expected, 0 given",
            "",
        ),
        (
            "Foo{a: 1}",
            3,
            "there is no type `Foo`",
            "a map is written `{\"key\": value}`",
        ),
        (
            "value = 'a'",
            6,
            "`= ` is not valid in an expression",
            "equality is written `==`",
        ),
        (
            "value == 'a' and true",
            13,
            "`and` is not expected here",
            "write `&&`",
        ),
        ("value ==", 8, "the expression ends too early", ""),
        (
            "value == \"a",
            9,
            "`\"a` is not valid in an expression",
            "the text has no closing quote",
        ),
        ("", 0, "an expression is missing here", ""),
        ("'ä' + )", 7, "`)` is not expected here", ""),
        (
            "[1].all(x, y)",
            11,
            "there is no name `y`",
            "did you mean `x`?",
        ),
        ("[1].all(x, true) && x", 20, "there is no name `x`", ""),
        (
            "[1].map(x, [1].map(y, [1].map(z, z)))",
            0,
            "more than 2 nested loops (`all`, `exists`, `map`, `filter`)",
            "",
        ),
    ] {
        let error = Expression::compile(source, &narrow).expect_err(source);
        assert_eq!(error.message, message, "{source}");
        if !hint.is_empty() {
            assert_eq!(error.hint.as_deref(), Some(hint), "{source}");
        }
        if let (Some(offset), true) = (error.offset, at > 0) {
            assert_eq!(offset, at, "{source}: {message}");
        }
    }
    for (source, message, hint) in [
        (
            "checks.emial.response",
            "no check `emial` can be read here",
            "did you mean `email`?",
        ),
        (
            "checks.self.response",
            "no check `self` can be read here",
            "only the response of another check can be read",
        ),
        (
            "checks",
            "`checks` is only the first part of a name",
            "write `checks.name.response`",
        ),
        (
            "checks[value]",
            "`checks` is only the first part of a name",
            "write `checks.name.response`",
        ),
        (
            "checks.map(c, c)",
            "`checks` is only the first part of a name",
            "write `checks.name.response`",
        ),
        (
            "checks.email.status",
            "`checks.email` has no `status`",
            "it has `response`",
        ),
        (
            "checks.email.response.code",
            "`checks.email.response` has no `code`",
            "it has `status`, `headers` and `body`",
        ),
        (
            "response.sttus",
            "`response` has no `sttus`",
            "did you mean `status`?",
        ),
        (
            "response[0]",
            "`response` is not a list",
            "it has `status`, `headers` and `body`",
        ),
    ] {
        let error = case.compile(source).expect_err(source);
        assert_eq!(error.message, message, "{source}");
        assert_eq!(error.hint.as_deref(), Some(hint), "{source}");
    }
}

#[test]
fn exactly_the_functions_of_the_table_can_be_called() {
    let case = TestCase::new();
    for function in functions::FUNCTIONS {
        if function.name.starts_with('@') {
            continue;
        }
        for count in function.fewest..=function.most {
            let arguments = if function.name == "matches" {
                match function.style {
                    functions::Style::Global => "'a', 'a'".to_owned(),
                    functions::Style::Member => "'a'".to_owned(),
                }
            } else {
                vec!["null"; count].join(", ")
            };
            let source = match function.style {
                functions::Style::Global => format!("{}({arguments})", function.name),
                functions::Style::Member => format!("b''.{}({arguments})", function.name),
            };
            // Most functions do not accept null. But the library knows every function of the table: the error of an
            // unknown function would have the text below.
            if let Err(error) = case.evaluate(&source) {
                assert_ne!(error.message, "cannot be evaluated", "{source}");
            }
        }
    }
    for source in [
        "lists.range(2)",
        "math.greatest(1, 2)",
        "base64.encode(b'a')",
        "cel.bind(x, 1, x)",
        "max(1, 2)",
    ] {
        assert!(case.compile(source).is_err(), "{source}");
    }
}

#[test]
fn a_look_up_in_a_long_list_is_fast() {
    let entries = (0..200_000)
        .map(|number| format!("d{number}.example"))
        .collect();
    let mut case = TestCase::new();
    case.lists = Arc::new(Lists::new(BTreeMap::from([("long".to_owned(), entries)])));
    // A linear search would need 2·10⁹ comparisons, and the test would not end.
    let members = vec![json!("d199999.example"); 10_000];
    case.value = Value::Array(members);
    assert_eq!(
        case.evaluate("value.all(v, v in lists.long && in_domains('x@a.' + v, lists.long))"),
        Ok(json!(true))
    );
}
