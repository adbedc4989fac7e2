//! A template that is nothing but one path is null where the path is absent, if the path may be absent.

use std::collections::BTreeSet;

use serde_json::json;

use super::conformance::TestCase;
use super::*;

fn compile(case: &TestCase, text: &str, optional_paths: &[&[&str]]) -> Template {
    let paths = optional_paths.iter().map(|names| ReadPath::of_names(names));
    let scope = Scope {
        optional_paths: Arc::new(paths.collect::<BTreeSet<_>>()),
        ..case.scope()
    };
    Template::compile(&[Piece::Written(text.to_owned())], &scope).expect(text)
}

#[test]
fn an_optional_path_is_null_where_it_is_absent_and_is_left_out_of_a_form() {
    let case = TestCase::new();
    for (text, value) in [
        // The trait is absent, null, or has another type than the path expects.
        ("{identity.traits.?phone}", None),
        ("{ identity.traits.?phone }", None),
        ("{identity.?traits.phone}", None),
        ("{identity.traits[?'phone']}", None),
        ("{identity.traits.?address.city}", None),
        ("{identity.traits.address.?city}", None),
        ("{identity.traits.?nick}", None),
        ("{identity.traits.?email.domain}", None),
        ("{identity.traits.tags[?7]}", None),
        ("{identity.traits.?tags[7]}", None),
        ("{identity.?metadata_public.company.name}", None),
        ("{identity.metadata_public.?company}", None),
        // `previous` does not exist at registration.
        ("{previous.?traits.email}", None),
        ("{previous.traits.?email}", None),
        ("{previous.traits.?address.?city}", None),
        ("{flow.?return_to}", None),
        ("{flow.transient_payload.?invite}", None),
        ("{flow.transient_payload.?oauth2.client_id}", None),
        ("{request.headers[?'User-Agent']}", None),
        ("{request.?headers['User-Agent']}", None),
        // The value is there.
        ("{identity.traits.?vat_id}", Some(json!("NL123"))),
        ("{identity.traits.?born}", Some(json!(1815))),
        ("{identity.traits.?name.first}", Some(json!("Ada"))),
        ("{identity.traits.tags[?1]}", Some(json!("b"))),
        ("{flow.transient_payload.?captcha}", Some(json!("c"))),
        ("{request.?client_ip}", Some(json!("192.0.2.1"))),
    ] {
        let template = compile(&case, text, &[]);
        let variables = case.variables();
        let expected = value.clone().unwrap_or_default();
        assert_eq!(template.render(&variables), Ok(expected), "{text}");
        let in_form = value.map(|value| match value {
            Value::String(text) => text,
            value => value.to_string(),
        });
        assert_eq!(
            template.render_optional_text(&variables),
            Ok(in_form.clone()),
            "{text}"
        );
        // In a path, a header or a longer text, an absent value cannot be built.
        assert_eq!(template.render_text(&variables).ok(), in_form, "{text}");
        let path = compile(&case, &format!("/x/{text}"), &[]).render_path(&variables);
        assert_eq!(path.is_ok(), in_form.is_some(), "{text}");
        let longer = compile(&case, &format!("a {text}"), &[]).render(&variables);
        assert_eq!(longer.is_ok(), in_form.is_some(), "{text}");
    }
}

#[test]
fn a_path_that_may_not_be_absent_is_still_an_error() {
    let case = TestCase::new();
    for text in [
        "{identity.traits.phone}",
        "{identity.traits.tags[7]}",
        "{previous.traits.email}",
        "{flow.return_to}",
        "{request.headers['User-Agent']}",
        // More than a path.
        "{identity.traits.?phone.orValue(identity.traits.phone)}",
        "{identity.traits.?phone}{identity.traits.?phone}",
        "{identity.traits.?phone} ",
        // An answer of an unexpected shape is not an answer without the value.
        "{response.body.none.?id}",
        "{response.body.id.?name}",
        "{checks.vat.response.?body}",
        "{taken.body.?hold_id}",
    ] {
        let template = compile(&case, text, &[]);
        let variables = case.variables();
        assert!(template.render(&variables).is_err(), "{text}");
        assert!(template.render_optional_text(&variables).is_err(), "{text}");
    }
    // An optional value that is absent is null in JSON, wherever it comes from.
    let of_response = compile(&case, "{response.body.?id}", &[]);
    assert_eq!(of_response.render(&case.variables()), Ok(Value::Null));
    assert!(of_response.render_optional_text(&case.variables()).is_err());
}

#[test]
fn a_path_that_the_schema_does_not_require_needs_no_mark() {
    let case = TestCase::new();
    let phone: &[&str] = &["traits", "phone"];
    let address: &[&str] = &["traits", "address"];
    for (text, is_optional) in [
        ("{identity.traits.phone}", true),
        ("{previous.traits.phone}", true),
        ("{identity.traits.address.city}", true),
        ("{identity.traits.address}", true),
        ("{identity.traits['phone']}", true),
        ("{identity.traits.phones}", false),
        ("{identity.traits.fax}", false),
        ("{identity.metadata_public.phone}", false),
        ("{flow.transient_payload.phone}", false),
        ("{request.headers.phone}", false),
    ] {
        let template = compile(&case, text, &[phone, address]);
        let variables = case.variables();
        let expected = is_optional.then_some(Value::Null);
        assert_eq!(template.render(&variables).ok(), expected, "{text}");
        let left_out = is_optional.then_some(None);
        assert_eq!(
            template.render_optional_text(&variables).ok(),
            left_out,
            "{text}"
        );
        assert!(template.render_text(&variables).is_err(), "{text}");
    }
}
