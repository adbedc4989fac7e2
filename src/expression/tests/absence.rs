//! What an expression gives without a value: whether it can fail, and whether it can be true.

use proptest::prelude::*;
use serde_json::json;

use super::conformance::TestCase;
use super::*;

/// Returns the effect of an absent `identity.traits.nick`.
fn without_nick(source: &str) -> (bool, bool) {
    let absent = Assumption::missing(Variable::Identity, ReadPath::of_names(&["traits", "nick"]));
    effect(source, &absent)
}

fn effect(source: &str, absent: &Assumption) -> (bool, bool) {
    let expression = TestCase::new().compile(source).expect(source);
    let Effect {
        may_fail, may_hold, ..
    } = expression.under(absent);
    (may_fail, may_hold)
}

#[test]
fn an_expression_without_a_guard_can_fail() {
    let (fails, is_guarded) = ((true, false), (false, false));
    for (source, expected) in [
        ("identity.traits.nick == 'a'", fails),
        ("identity.traits['nick'] == 'a'", fails),
        ("identity.traits.nick.first == 'a'", fails),
        ("!(identity.traits.nick == 'a')", fails),
        ("identity.traits.nick == null", fails),
        ("size(identity.traits.nick) > 3", fails),
        ("identity.traits.nick in ['a']", fails),
        ("identity.traits.nick.startsWith('a')", fails),
        ("[identity.traits.nick] == ['a']", (true, true)),
        ("{'a': identity.traits.nick}.a == 'b'", (true, true)),
        ("identity.traits.nick == 'a' || value == 'b'", (true, true)),
        ("value == 'b' && identity.traits.nick == 'a'", (true, false)),
        (
            "value == 'b' ? identity.traits.nick == 'a' : true",
            (true, true),
        ),
        ("['a'].exists(x, x == identity.traits.nick)", (true, true)),
        ("identity.traits.?nick.value() == 'a'", fails),
        ("identity.traits.?nick.startsWith('a')", fails),
        (
            "has(identity.traits.nick) || identity.traits.nick == 'a'",
            fails,
        ),
        (
            "has(identity.traits.born) && identity.traits.nick == 'a'",
            (true, false),
        ),
        // Guards.
        ("has(identity.traits.nick)", is_guarded),
        ("has(identity.traits.nick.first)", is_guarded),
        (
            "has(identity.traits.nick) && identity.traits.nick == 'a'",
            is_guarded,
        ),
        (
            "identity.traits.nick == 'a' && has(identity.traits.nick)",
            is_guarded,
        ),
        (
            "!has(identity.traits.nick) || identity.traits.nick == 'a'",
            (false, true),
        ),
        (
            "has(identity.traits.nick) ? identity.traits.nick == 'a' : false",
            is_guarded,
        ),
        (
            "!has(identity.traits.nick) ? true : identity.traits.nick == 'a'",
            (false, true),
        ),
        ("identity.traits.?nick.orValue('') == 'a'", is_guarded),
        ("identity.traits.?nick.orValue('a') == 'a'", (false, true)),
        ("identity.traits.?nick == optional.of('a')", (false, true)),
        ("identity.traits.?nick == optional.none()", (false, true)),
        ("identity.traits.?nick != optional.none()", is_guarded),
        (
            "identity.traits.?nick.hasValue() && identity.traits.nick == 'a'",
            is_guarded,
        ),
        (
            "identity.traits.?nick.or(identity.traits.?email).hasValue()",
            (false, true),
        ),
        (
            "identity.traits.?nick.optMap(n, n == 'a').orValue(false)",
            is_guarded,
        ),
        (
            "identity.traits.?nick.orValue([]).exists(n, n == identity.traits.nick)",
            is_guarded,
        ),
        (
            "identity.traits.?nick.orValue('') in ['a', 'b'] && identity.traits.nick == 'a'",
            is_guarded,
        ),
        (
            "has(identity.traits.nick) && ['a'].all(x, x == identity.traits.nick)",
            is_guarded,
        ),
        ("false && identity.traits.nick == 'a'", is_guarded),
        ("true || identity.traits.nick == 'a'", (false, true)),
        ("1 == 1.0 || identity.traits.nick == 'a'", (false, true)),
        // Other paths do not matter.
        ("identity.traits.nickname == 'a'", (false, true)),
        ("has(identity.traits)", (false, true)),
        ("previous.traits.nick == 'a'", (false, true)),
    ] {
        assert_eq!(without_nick(source), expected, "{source}");
    }
}

#[test]
fn null_is_no_value_for_functions_and_steps() {
    let nick = ReadPath::of_names(&["traits", "nick"]);
    let null = Assumption::null(Variable::Identity, nick);
    for (source, may_fail) in [
        ("identity.traits.nick == 'a'", false),
        ("identity.traits.nick == null", false),
        (
            "identity.traits.nick != null && identity.traits.nick.startsWith('a')",
            false,
        ),
        (
            "has(identity.traits.nick.first) && identity.traits.nick.first == 'a'",
            false,
        ),
        (
            "type(identity.traits.nick) == string && identity.traits.nick == 'a'",
            false,
        ),
        ("identity.traits.nick in ['a']", false),
        ("identity.traits.nick.startsWith('a')", true),
        ("identity.traits.nick.first == 'a'", true),
        ("identity.traits.nick > 3", true),
        ("identity.traits.nick + 'a' == 'b'", true),
        ("size(identity.traits.nick) > 3", true),
        ("'a' in identity.traits.nick", true),
        ("identity.traits.nick.exists(x, x == 'a')", true),
        (
            "has(identity.traits.nick) && identity.traits.nick.startsWith('a')",
            true,
        ),
    ] {
        assert_eq!(effect(source, &null).0, may_fail, "{source}");
    }
}

#[test]
fn without_previous_the_first_step_decides() {
    let absent = Assumption::missing(Variable::Previous, ReadPath::of_names(&[]));
    for (source, may_fail) in [
        ("previous.traits.email == 'a'", true),
        ("previous.traits.?email.orValue('') == 'a'", true),
        ("previous.?traits.email.orValue('') == 'a'", false),
        ("previous.?traits.?email.orValue('') == 'a'", false),
        ("previous == null", true),
        (
            "has(previous.traits) && previous.traits.email == 'a'",
            false,
        ),
        (
            "has(previous.traits.email) && previous.traits.email == 'a'",
            false,
        ),
        ("method == 'profile' && previous.traits.email == 'a'", false),
        ("previous.traits.email == 'a' && 'totp' == method", false),
        (
            "method in ['profile', 'lookup_secret'] && previous.traits.email == 'a'",
            false,
        ),
        (
            "method in ['profile', 'password'] && previous.traits.email == 'a'",
            true,
        ),
        ("method != 'profile' || previous.traits.email == 'a'", false),
        ("method == 'password' && previous.traits.email == 'a'", true),
    ] {
        assert_eq!(effect(source, &absent).0, may_fail, "{source}");
    }
}

#[test]
fn what_is_known_about_a_value_decides_comparisons_of_its_size_and_type() {
    let list = Assumption::missing(
        Variable::Identity,
        ReadPath::of_dotted(&["traits", "tags", "1"]),
    );
    let present = Assumption::present(Variable::Identity, ReadPath::of_names(&["traits", "nick"]));
    for (assumed, source, may_hold) in [
        (&list, "size(identity.traits.tags) > 1", false),
        (&list, "identity.traits.tags.size() >= 2", false),
        (&list, "size(identity.traits.tags) == 2", false),
        (&list, "1 < size(identity.traits.?tags.orValue([]))", false),
        (&list, "size(identity.traits.tags) > 0", true),
        (
            &list,
            "size(identity.traits.?tags.orValue(['a', 'b'])) > 1",
            true,
        ),
        (&present, "identity.traits.nick == null", false),
        (&present, "identity.traits.nick == ''", false),
        (&present, "identity.traits.nick.trim() == ''", false),
        (&present, "size(identity.traits.nick) == 0", false),
        (&present, "!has(identity.traits.nick)", false),
        (&present, "!has(identity.traits)", false),
        (&present, "!('nick' in identity.traits)", false),
        (&present, "identity.traits.nick in ['', null]", false),
        (&present, "identity.traits.nick in ['', 'a']", true),
        (&present, "size(identity.traits.nick) < 3", true),
        (&present, "identity.traits.nick == 'a'", true),
        (&present, "has(identity.traits.nick.first)", true),
    ] {
        let expression = TestCase::new().compile(source).expect(source);
        assert_eq!(expression.under(assumed).may_hold, may_hold, "{source}");
    }
    for (source, expected) in [
        ("identity.traits.nick == '' || value == 'x'", true),
        ("value == 'x' || (identity.traits.nick == null)", true),
        ("identity.traits.nick != null && value == 'x'", false),
        ("value == 'x' || false", false),
    ] {
        let expression = TestCase::new().compile(source).expect(source);
        assert_eq!(
            expression.is_partly_excluded(&present),
            expected,
            "{source}"
        );
    }
}

#[test]
fn null_and_empty_results_are_known() {
    let nick = || ReadPath::of_names(&["traits", "nick"]);
    let missing = Assumption::missing(Variable::Identity, nick());
    let null = Assumption::null(Variable::Identity, nick());
    for (source, assumed, expected) in [
        ("identity.traits.?nick", &missing, Given::Nothing),
        ("identity.traits.?nick", &null, Given::Nothing),
        ("identity.traits.nick", &null, Given::Nothing),
        (
            "identity.traits.?nick.orValue('')",
            &missing,
            Given::EmptyText,
        ),
        ("identity.traits.?nick.orValue('')", &null, Given::Nothing),
        (
            "identity.traits.?nick.orValue('a')",
            &missing,
            Given::Anything,
        ),
        (
            "identity.traits.?nick.optMap(n, n.upperAscii())",
            &missing,
            Given::Nothing,
        ),
        (
            "['a'].map(n, [n].map(n, n)[0])[0]",
            &missing,
            Given::Anything,
        ),
        ("identity.traits.email", &missing, Given::Anything),
    ] {
        let expression = TestCase::new().compile(source).expect(source);
        assert_eq!(expression.under(assumed).gives, expected, "{source}");
    }
}

/// An expression of guards, reads and operators.
fn expressions() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "has(identity.traits.p)",
        "identity.traits.p == 'a'",
        "identity.traits.p.startsWith('a')",
        "identity.traits.?p.orValue('b') == 'a'",
        "identity.traits.?p.hasValue()",
        "identity.traits.?p == optional.of('a')",
        "identity.traits.?p.optMap(x, x == 'a').orValue(false)",
        "identity.traits.q == 'a'",
        "identity.traits.q in ['a', identity.traits.p]",
        "['a', 'b'].exists(x, x == identity.traits.q)",
        "['a'].all(x, x == identity.traits.p)",
        "'p' in identity.traits",
        "identity.traits.?p.orValue(null) != null",
        "identity.traits.?p.orValue('').startsWith('a')",
        "identity.traits.?p.orValue('') == ''",
        "size(identity.traits.?p.orValue('')) > 0",
        "size(identity.traits.p) < 1",
        "identity.traits.p.trim() == ''",
        "type(identity.traits.?p.orValue(null)) == string",
        "type(identity.traits.?p.orValue(null)) == null_type",
        "size(identity.traits.l) > 0 && identity.traits.l[0] == 'a'",
        "size(identity.traits.?l.orValue([])) >= 1",
        "identity.traits.l[0] == 'a'",
        "true",
        "false",
    ]);
    atom.prop_map(|atom| format!("({atom})"))
        .prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone())
                    .prop_map(|(one, other)| format!("({one} && {other})")),
                (inner.clone(), inner.clone())
                    .prop_map(|(one, other)| format!("({one} || {other})")),
                (inner.clone(), inner.clone())
                    .prop_map(|(one, other)| format!("({one} == {other})")),
                inner.clone().prop_map(|one| format!("!({one})")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(one, yes, no)| format!("({one} ? {yes} : {no})")),
            ]
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// If the analysis finds no failure, no evaluation fails.
    #[test]
    fn an_evaluation_gives_only_what_was_found(source in expressions(), q in "[ab]") {
        let case = TestCase::new();
        let Ok(expression) = case.compile(&source) else {
            return Ok(());
        };
        let p = || ReadPath::of_names(&["traits", "p"]);
        let first = ReadPath::of_dotted(&["traits", "l", "0"]);
        let root = Variable::Identity;
        for (identity, assumed) in [
            (json!({"traits": {"q": q, "l": ["a"]}}), Assumption::missing(root, p())),
            (json!({"traits": {"q": q, "l": ["a"], "p": null}}), Assumption::null(root, p())),
            (json!({"traits": {"q": q, "l": ["a"], "p": "ab"}}), Assumption::present(root, p())),
            (json!({"traits": {"q": q, "l": [], "p": "a"}}), Assumption::missing(root, first)),
        ] {
            let effect = expression.under(&assumed);
            let variables = Variables { identity: Some(&identity), ..case.variables() };
            match expression.holds(&variables) {
                Ok(true) => prop_assert!(effect.may_hold, "{source} holds"),
                Ok(false) => {}
                Err(error) => prop_assert!(effect.may_fail, "{source}: {error}"),
            }
        }
    }
}
