//! What compiling an expression shows: the paths that it reads, and the values that it uses as a text.

use serde_json::json;

use super::conformance::TestCase;
use super::*;

#[test]
fn paths_returns_the_constant_beginning_of_each_path() {
    let case = TestCase::new();
    for (source, expected) in [
        ("identity.traits.email == 'x'", vec!["traits.email"]),
        ("identity.traits['odd key'] == 'x'", vec!["traits.odd key"]),
        (
            "identity.traits.?name.?first.orValue('x') == 'x'",
            vec!["traits.name.first"],
        ),
        ("has(identity.traits.nick)", vec!["traits.nick"]),
        ("identity.traits.tags[0] == 'a'", vec!["traits.tags[0]"]),
        (
            "identity.traits.tags[size(value)] == 'a'",
            vec!["traits.tags"],
        ),
        (
            "identity.traits.tags.exists(tag, tag == value)",
            vec!["traits.tags"],
        ),
        ("identity.traits[method] == 'a'", vec!["traits"]),
        ("identity[method] == 'a'", vec![""]),
        ("size(identity) > 1", vec![""]),
        (
            "identity.traits.exists(key, identity.traits[key] == 'a')",
            vec!["traits"],
        ),
        (
            "identity.traits.born + identity.traits.height > 1.0 && identity.traits.born > 1",
            vec!["traits.born", "traits.height"],
        ),
        (
            "true || identity.metadata_public.plan == 'a'",
            vec!["metadata_public.plan"],
        ),
        (
            "value == previous.traits.email && flow.id == 'x' && response.status == 200",
            vec![],
        ),
        ("['identity'].exists(identity, identity == 'a')", vec![]),
    ] {
        let expression = case.compile(source).expect(source);
        let mut paths: Vec<String> = expression
            .paths(Variable::Identity)
            .map(|path| path.to_string())
            .collect();
        paths.sort();
        assert_eq!(paths, expected, "{source}");
    }
}

#[test]
fn a_list_or_a_map_is_an_error_where_a_text_is_used() {
    let case = TestCase::new();
    let list = json!(["a"]);
    let map = json!({"a": 1});
    for (source, expects) in [
        ("value.startsWith('x')", true),
        ("value.contains('x')", true),
        ("value.lowerAscii() == 'x'", true),
        ("value.matches('x')", true),
        ("matches(value, 'x')", true),
        ("in_domains(value, lists.throwaway)", true),
        ("domain(value) == 'x'", true),
        ("value in lists.plans", true),
        ("!(value in lists.plans)", true),
        ("'x' + value == 'x'", true),
        ("value + 'x' == 'x'", true),
        ("'no. %s'.format([value]) == 'x'", true),
        ("int(value) == 1", true),
        ("string(value) == 'x'", true),
        ("value == 'x' || value.endsWith('y')", true),
        (
            "response.body.name == value.upperAscii() && response.body.valid",
            true,
        ),
        ("['x'].exists(one, value.startsWith(one))", true),
        // A list fits, or the operator checks the type.
        ("value == 'x'", false),
        ("size(value) == 1", false),
        ("value.size() == 1", false),
        ("'x' in value", false),
        ("value in ['x']", false),
        ("value.exists(one, one in lists.plans)", false),
        ("dyn(value) == 'x'", false),
        ("type(value) == string && value.startsWith('x')", false),
        ("size(value) == 1 ? false : value.startsWith('x')", false),
        ("has(value.a) || value[0] == 'x'", false),
        (
            "response.body.name.startsWith('x') || previous.traits.email.startsWith('x')",
            false,
        ),
    ] {
        let expression = case.compile(source).expect(source);
        for (found, kind) in [(&list, "a list"), (&map, "a map")] {
            let variables = Variables {
                value: Some(found),
                ..case.variables()
            };
            let expected = expects.then(|| format!("`value` is {kind} where a text is expected"));
            let error = expression.expects_texts(&variables).err();
            assert_eq!(error.map(|error| error.message), expected, "{source}");
        }
        for scalar in [json!("x"), json!(1), json!(true), json!(null)] {
            let variables = Variables {
                value: Some(&scalar),
                ..case.variables()
            };
            assert_eq!(expression.expects_texts(&variables), Ok(()), "{source}");
        }
    }
}

#[test]
fn looking_up_a_list_or_a_map_in_a_list_of_texts_is_an_error() {
    let case = TestCase::new();
    for source in [
        "identity.traits.tags in lists.plans",
        "[value] in lists.plans",
        "{'a': value} in lists.plans",
    ] {
        let error = case.evaluate(source).expect_err(source);
        assert!(
            error.message.contains("a list or a map where a text"),
            "{source}: {error}"
        );
    }
    for (source, expected) in [
        ("'gold' in lists.plans", true),
        ("1 in lists.plans", false),
        ("null in lists.plans", false),
    ] {
        assert_eq!(case.evaluate(source), Ok(json!(expected)), "{source}");
    }
}
