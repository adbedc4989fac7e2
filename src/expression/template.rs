//! Templates: texts with `{expression}` in them.
//!
//! `{{` and `}}` are braces. So an expression that begins with a brace needs a space before it: `{ {"a": 1}.a }`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::scan::{self, Unended};
use super::{CompileError, EvaluationError, Expression, Scope, Variables, convert};

/// One piece of a text: written by the operator and read as a template, or inserted from the environment as it is.
#[derive(Clone, Debug)]
pub enum Piece {
    /// The operator wrote this text in the file.
    Written(String),
    /// `${env:…}` or `${file:…}` inserted this text. A brace in it is a brace.
    Inserted(String),
}

/// A text with `{expression}` filled in. `{{` and `}}` are braces.
#[derive(Clone, Debug)]
pub struct Template {
    /// The parts. No two texts are adjacent, and no text is empty.
    parts: Vec<Part>,
    /// Whether the template is a single path that may be absent. Then it is null where the path is absent.
    is_optional: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Filled(Expression),
}

/// A JSON value with templates in its strings.
#[derive(Clone, Debug)]
pub enum JsonTemplate {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number as written.
    Number(serde_json::Number),
    /// A text, or the value of a single expression.
    Text(Template),
    /// A list.
    List(Vec<JsonTemplate>),
    /// A map. Its keys are not templates.
    Map(Vec<(String, JsonTemplate)>),
}

/// The characters that are percent-encoded: all but those without a special meaning in a URL.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl Template {
    /// Parses the pieces of a text and compiles the expressions in it.
    ///
    /// An expression must be within one written piece. The [`CompileError::offset`] counts from the start of the
    /// piece [`CompileError::piece`].
    pub fn compile(pieces: &[Piece], scope: &Scope) -> Result<Self, CompileError> {
        let mut template = Self {
            parts: Vec::new(),
            is_optional: false,
        };
        for (index, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Inserted(text) => template.push(text),
                Piece::Written(text) => {
                    let inserted_next = matches!(pieces.get(index + 1), Some(Piece::Inserted(_)));
                    template
                        .read(text, inserted_next, scope)
                        .map_err(|error| CompileError {
                            piece: index,
                            ..error
                        })?;
                }
            }
        }
        if let [Part::Filled(expression)] = template.parts.as_slice() {
            let path = expression.only_path();
            template.is_optional =
                path.is_some_and(|path| path.may_be_absent(&scope.optional_paths));
        }
        Ok(template)
    }

    /// Renders the template. A template that is a single expression keeps the expression's type. Any other template
    /// becomes a string.
    ///
    /// A template that is nothing but one path of Kratos's data is null where the path is absent, if the path has an
    /// optional step (`{identity.traits.?phone}`) or the identity schema does not require the value.
    pub fn render(&self, variables: &Variables<'_>) -> Result<Value, EvaluationError> {
        match self.parts.as_slice() {
            _ if self.is_absent(variables) => Ok(Value::Null),
            [Part::Filled(expression)] => expression.evaluate(variables),
            _ => self.render_text(variables).map(Value::String),
        }
    }

    /// Renders the template as text. Strings stay as they are, numbers and bools as written. Null, lists and maps are
    /// errors.
    pub fn render_text(&self, variables: &Variables<'_>) -> Result<String, EvaluationError> {
        let mut rendered = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => rendered.push_str(text),
                Part::Filled(expression) => rendered.push_str(&filled(expression, variables)?),
            }
        }
        Ok(rendered)
    }

    /// Renders the template as text for a form or a query, where an absent value is left out: `None`. Absent is the same
    /// as in [`Self::render`].
    pub fn render_optional_text(
        &self,
        variables: &Variables<'_>,
    ) -> Result<Option<String>, EvaluationError> {
        if self.is_absent(variables) {
            return Ok(None);
        }
        self.render_text(variables).map(Some)
    }

    /// Returns whether the template is null because its only path is absent.
    fn is_absent(&self, variables: &Variables<'_>) -> bool {
        match self.parts.as_slice() {
            [Part::Filled(expression)] if self.is_optional => expression
                .only_path()
                .is_some_and(|path| path.is_absent(variables)),
            _ => false,
        }
    }

    /// Returns an error if the template would put a list or an object into the text, or uses one as a text.
    pub fn expects_texts(&self, variables: &Variables<'_>) -> Result<(), EvaluationError> {
        self.expressions().try_for_each(|expression| {
            expression.expects_texts(variables)?;
            expression.expects_text_result(variables)
        })
    }

    /// Renders the template as a URL path. The operator's text stays as it is, and each filled-in value is
    /// percent-encoded.
    ///
    /// Some values are errors, because the path would lead to another resource: an empty value, and a value that
    /// makes a path segment empty, `.` or `..`. Behind a `?` in the operator's text there are no segments.
    pub fn render_path(&self, variables: &Variables<'_>) -> Result<String, EvaluationError> {
        let mut path = String::new();
        let mut segment = Segment::default();
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    for character in text.chars() {
                        match character {
                            '/' | '?' if !segment.query => {
                                segment.end(&path)?;
                                path.push(character);
                                segment = Segment {
                                    start: path.len(),
                                    query: character == '?',
                                    filled: false,
                                };
                            }
                            _ => path.push(character),
                        }
                    }
                }
                Part::Filled(expression) => {
                    let value = filled(expression, variables)?;
                    if !segment.query && value.is_empty() {
                        return Err(EvaluationError::new(
                            "a value in the path is empty".to_owned(),
                        ));
                    }
                    path.extend(utf8_percent_encode(&value, ENCODED));
                    segment.filled = true;
                }
            }
        }
        segment.end(&path)?;
        Ok(path)
    }

    /// Returns the number of expressions in a path before its `?`.
    #[must_use]
    pub fn count_in_segments(&self) -> usize {
        let is_query = |part: &Part| matches!(part, Part::Text(text) if text.contains('?'));
        let segments = self.parts.iter().take_while(|part| !is_query(part));
        segments
            .filter(|part| matches!(part, Part::Filled(_)))
            .count()
    }

    /// Returns the text, if the template contains no expression.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the expression, if the template is nothing but one expression. Then it keeps the type of its value.
    #[must_use]
    pub fn only_expression(&self) -> Option<&Expression> {
        match self.parts.as_slice() {
            [Part::Filled(expression)] => Some(expression),
            _ => None,
        }
    }

    /// Returns the expressions, in order.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.parts.iter().filter_map(|part| match part {
            Part::Filled(expression) => Some(expression),
            Part::Text(_) => None,
        })
    }

    fn push(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    fn read(&mut self, text: &str, inserted_next: bool, scope: &Scope) -> Result<(), CompileError> {
        let mut at = 0;
        while let Some(brace) = text[at..].find(['{', '}']).map(|found| at + found) {
            self.push(&text[at..brace]);
            let rest = &text[brace..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                self.push(&rest[..1]);
                at = brace + 2;
                continue;
            }
            if rest.starts_with('}') {
                return Err(error("`}` has no opening bracket", brace)
                    .with_hint("a brace as text is written `}}`"));
            }
            let start = brace + 1;
            let source = match scan::end(&text[start..]) {
                Ok(end) => &text[start..start + end],
                Err(Unended::Stray(stray)) => {
                    let message = format!(
                        "`{}` has no opening bracket",
                        &text[start + stray..=start + stray]
                    );
                    return Err(error(message, start + stray));
                }
                Err(_) if inserted_next => {
                    return Err(error(
                        "an environment value cannot be inside an expression",
                        brace,
                    )
                    .with_hint("put the value beside the expression, or write `{{` for a brace"));
                }
                Err(Unended::Quote(quote)) => {
                    return Err(error("the quoted text is not closed", start + quote));
                }
                Err(Unended::Open(Some(open))) => {
                    let message = format!("`{}` is not closed", &text[start + open..=start + open]);
                    return Err(error(message, start + open));
                }
                Err(Unended::Open(None)) => {
                    return Err(error("`{` is not closed", brace)
                        .with_hint("a brace as text is written `{{`"));
                }
            };
            if source.trim().is_empty() {
                return Err(error("there is no expression between `{` and `}`", brace)
                    .with_hint("braces as text are written `{{` and `}}`"));
            }
            let expression = Expression::compile(source, scope).map_err(|error| CompileError {
                offset: Some(start + error.offset.unwrap_or(0)),
                ..error
            })?;
            self.parts.push(Part::Filled(expression));
            at = start + source.len() + 1;
        }
        self.push(&text[at..]);
        Ok(())
    }
}

/// The part of a path since the operator's last slash.
#[derive(Default)]
struct Segment {
    start: usize,
    /// Whether this part is the query and not a segment of the path.
    query: bool,
    /// Whether a value was filled in.
    filled: bool,
}

impl Segment {
    fn end(&self, path: &str) -> Result<(), EvaluationError> {
        if !self.filled || self.query {
            return Ok(());
        }
        // A client that reads the URL takes the operator's own `%2e` as a dot.
        let segment = path[self.start..].to_ascii_lowercase().replace("%2e", ".");
        match segment.as_str() {
            "" => Err(EvaluationError::new("a path segment is empty".to_owned())),
            "." | ".." => Err(EvaluationError::new(
                "a path segment is `.` or `..`, which would change the path".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

fn filled(expression: &Expression, variables: &Variables<'_>) -> Result<String, EvaluationError> {
    let value = expression.evaluate(variables)?;
    match (&value, expression.only_path()) {
        (Value::Null, Some(path)) => Err(EvaluationError::new(format!(
            "`{}` is absent or null, and cannot be put into a text",
            path.written(path.steps.len())
        ))),
        _ => convert::text(&value),
    }
}

fn error(message: impl Into<String>, offset: usize) -> CompileError {
    CompileError {
        message: message.into(),
        offset: Some(offset),
        hint: None,
        piece: 0,
    }
}

impl JsonTemplate {
    /// Renders the value with all expressions filled in.
    pub fn render(&self, variables: &Variables<'_>) -> Result<Value, EvaluationError> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(template) => template.render(variables)?,
            Self::List(list) => Value::Array(
                list.iter()
                    .map(|element| element.render(variables))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Map(map) => Value::Object(
                map.iter()
                    .map(|(key, value)| Ok((key.clone(), value.render(variables)?)))
                    .collect::<Result<_, EvaluationError>>()?,
            ),
        })
    }

    /// Returns an error if the template would put a list or an object into a text, or uses one as a text.
    ///
    /// A template that is a single expression keeps its type, so every value fits there.
    pub fn expects_texts(&self, variables: &Variables<'_>) -> Result<(), EvaluationError> {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => Ok(()),
            Self::Text(template) => match template.parts.as_slice() {
                [Part::Filled(expression)] => expression.expects_texts(variables),
                _ => template.expects_texts(variables),
            },
            Self::List(list) => list.iter().try_for_each(|one| one.expects_texts(variables)),
            Self::Map(map) => map
                .iter()
                .try_for_each(|(_, value)| value.expects_texts(variables)),
        }
    }

    /// Returns the paths that this value sets at `path`. A map has the paths of its members, as far as the members
    /// are written out.
    #[must_use]
    pub fn leaves(&self, path: &[String]) -> Vec<Vec<String>> {
        match self {
            Self::Map(map) if !map.is_empty() => map
                .iter()
                .flat_map(|(name, value)| {
                    let inner: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
                    value.leaves(&inner)
                })
                .collect(),
            _ => vec![path.to_vec()],
        }
    }

    /// Returns the expressions, in order.
    #[must_use]
    pub fn expressions(&self) -> Vec<&Expression> {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => Vec::new(),
            Self::Text(template) => template.expressions().collect(),
            Self::List(list) => list.iter().flat_map(Self::expressions).collect(),
            Self::Map(map) => map
                .iter()
                .flat_map(|(_, value)| value.expressions())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::conformance::TestCase;
    use super::*;

    fn written(text: &str) -> Vec<Piece> {
        vec![Piece::Written(text.to_owned())]
    }

    fn inserted(before: &str, text: &str, after: &str) -> Vec<Piece> {
        vec![
            Piece::Written(before.to_owned()),
            Piece::Inserted(text.to_owned()),
            Piece::Written(after.to_owned()),
        ]
    }

    #[test]
    fn expressions_are_filled_in_and_other_text_is_unchanged() {
        let case = TestCase::new();
        for (text, expected) in [
            ("", json!("")),
            ("plain", json!("plain")),
            ("{value}", json!("NL123")),
            ("<{value}>", json!("<NL123>")),
            ("{value}{value}", json!("NL123NL123")),
            ("{{value}}", json!("{value}")),
            ("{{{value}}}", json!("{NL123}")),
            ("}}{{", json!("}{")),
            ("{{\"a\": \"{value}\"}}", json!("{\"a\": \"NL123\"}")),
            ("{ value }", json!("NL123")),
            ("{identity.traits.born}", json!(1815)),
            (" {identity.traits.born}", json!(" 1815")),
            ("{identity.traits.height} m", json!("1.65 m")),
            ("{value == 'NL123'}!", json!("true!")),
            ("at {now}", json!("at 1970-01-01T00:00:00Z")),
            ("{identity.traits.tags}", json!(["a", "b", "b"])),
            ("{identity.traits.nick}", Value::Null),
            ("{identity.traits.?x}", Value::Null),
            ("{{'a': 1}}", json!("{'a': 1}")),
            ("{ {'a': 1} }", json!({"a": 1})),
            ("{[1].map(x, {'a': x})[0].a}", json!(1)),
            ("{'}' + \"}\"}", json!("}}")),
            ("{r'\\' + '\\'}'}", json!("\\'}")),
            ("{\"\"\"a}\"b\"\"\"}", json!("a}\"b")),
            ("ä{value}ö", json!("äNL123ö")),
        ] {
            let template = Template::compile(&written(text), &case.scope());
            let template = template.unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!(template.render(&case.variables()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn text_from_the_environment_is_never_parsed() {
        let case = TestCase::new();
        let pieces = inserted("a{value}", "{value}{{}}", "b{value}");
        let template = Template::compile(&pieces, &case.scope()).expect("compiles");
        assert_eq!(
            template.render_text(&case.variables()).as_deref(),
            Ok("aNL123{value}{{}}bNL123")
        );
        let constant = Template::compile(&inserted("a", "{", "b}}"), &case.scope());
        assert_eq!(constant.expect("compiles").constant(), Some("a{b}"));
    }

    #[test]
    fn a_text_without_expressions_is_constant() {
        let case = TestCase::new();
        for (text, constant) in [
            ("", Some("")),
            ("a{{b}}", Some("a{b}")),
            ("a{value}", None),
            ("{value}", None),
        ] {
            let template = Template::compile(&written(text), &case.scope()).expect(text);
            assert_eq!(template.constant(), constant, "{text}");
        }
    }

    #[test]
    fn a_template_error_has_its_position() {
        let case = TestCase::new();
        let stray = "`}` has no opening bracket";
        let inside = "an environment value cannot be inside an expression";
        for (pieces, piece, at, message, hint) in [
            (
                written("ä {value"),
                0,
                3,
                "`{` is not closed",
                Some("a brace as text is written `{{`"),
            ),
            (
                written("a } b"),
                0,
                2,
                stray,
                Some("a brace as text is written `}}`"),
            ),
            (
                written("{value}}"),
                0,
                7,
                stray,
                Some("a brace as text is written `}}`"),
            ),
            (
                written("a {} b"),
                0,
                2,
                "there is no expression between `{` and `}`",
                Some("braces as text are written `{{` and `}}`"),
            ),
            (written("{'a}"), 0, 1, "the quoted text is not closed", None),
            (written("{f(a}"), 0, 4, stray, None),
            (written("{f(a"), 0, 2, "`(` is not closed", None),
            (
                written("ä {valeu}"),
                0,
                4,
                "there is no name `valeu`",
                Some("did you mean `value`?"),
            ),
            (
                written("a {1 + valeu}"),
                0,
                7,
                "there is no name `valeu`",
                Some("did you mean `value`?"),
            ),
            (
                inserted("{", "value", "}"),
                0,
                0,
                inside,
                Some("put the value beside the expression, or write `{{` for a brace"),
            ),
            (
                inserted("a {value == '", "x", "'}"),
                0,
                2,
                inside,
                Some("put the value beside the expression, or write `{{` for a brace"),
            ),
            (
                inserted("a", "b", "c{x}"),
                2,
                2,
                "there is no name `x`",
                None,
            ),
            (
                inserted("a", "b", "}"),
                2,
                0,
                stray,
                Some("a brace as text is written `}}`"),
            ),
        ] {
            let error = Template::compile(&pieces, &case.scope()).expect_err(message);
            assert_eq!(error.message, message, "{pieces:?}");
            assert_eq!((error.piece, error.offset), (piece, Some(at)), "{pieces:?}");
            if hint.is_some() {
                assert_eq!(error.hint.as_deref(), hint, "{pieces:?}");
            }
        }
    }

    #[test]
    fn null_lists_and_maps_cannot_be_put_into_a_text() {
        let case = TestCase::new();
        for (text, expected) in [
            (
                "a{identity.traits.nick}",
                "`identity.traits.nick` is absent or null, and cannot be put into a text",
            ),
            (
                "a{identity.traits.?x}",
                "`identity.traits.?x` is absent or null, and cannot be put into a text",
            ),
            (
                "a{value == '' ? 'x' : null}",
                "null cannot be put into a text",
            ),
            (
                "a{identity.traits.tags}",
                "a list cannot be put into a text",
            ),
            ("{identity.traits.name}", "a map cannot be put into a text"),
            (
                "a{identity.traits.x}",
                "no such key `x` in `identity.traits`",
            ),
        ] {
            let template = Template::compile(&written(text), &case.scope()).expect(text);
            let error = template.render_text(&case.variables()).expect_err(text);
            assert_eq!(error.message, expected, "{text}");
        }
    }

    #[test]
    fn a_filled_in_value_cannot_change_the_structure_of_a_path() {
        let case = TestCase::new();
        let empty = Err("a value in the path is empty");
        let dots = Err("a path segment is `.` or `..`, which would change the path");
        for (text, value, expected) in [
            ("/m/{value}", "ada", Ok("/m/ada")),
            ("/m/{value}", "a/b?c#d%e", Ok("/m/a%2Fb%3Fc%23d%25e")),
            ("/m/{value}", "ä \\\n\0", Ok("/m/%C3%A4%20%5C%0A%00")),
            ("/m/{value}", "a-b._~", Ok("/m/a-b._~")),
            ("/m/{value}", ";=&+@:", Ok("/m/%3B%3D%26%2B%40%3A")),
            ("/m/{value}", "", empty),
            ("/m/{value}/x", "", empty),
            ("/{value}?a=b", "", empty),
            ("{value}", "", empty),
            ("/m/{value}{value}", "", empty),
            ("/m/{value}", ".", dots),
            ("/m/{value}", "..", dots),
            ("/m/{value}/x", "..", dots),
            ("/m/.{value}", ".", dots),
            ("/m/{value}{value}/x", ".", dots),
            ("/m/%2e{value}", ".", dots),
            ("/m/{value}%2E", ".", dots),
            ("/m/.{value}", "", empty),
            ("/m/{value}", "...", Ok("/m/...")),
            ("/m/{value}", "%2e%2e", Ok("/m/%252e%252e")),
            ("/m/x{value}", "", empty),
            ("/m/x{value}", "..", Ok("/m/x..")),
            ("/m/{value}.json", ".", Ok("/m/..json")),
            ("/m/{value}.json", "", empty),
            // The operator's text stays, right or wrong.
            ("/a//b/../c d?e={{}}", "", Ok("/a//b/../c d?e={}")),
            ("/a?b={value}", "", Ok("/a?b=")),
            ("/a?b={value}", "..", Ok("/a?b=..")),
            (
                "/a?b={value}&c=/{value}/",
                "x&y=z +",
                Ok("/a?b=x%26y%3Dz%20%2B&c=/x%26y%3Dz%20%2B/"),
            ),
        ] {
            let template = Template::compile(&written(text), &case.scope()).expect(text);
            let value = json!(value);
            let variables = Variables {
                value: Some(&value),
                ..case.variables()
            };
            let path = template
                .render_path(&variables)
                .map_err(|error| error.message);
            assert_eq!(
                path.as_deref().map_err(String::as_str),
                expected,
                "{text} {value}"
            );
        }
    }

    #[test]
    fn a_path_from_the_environment_is_not_encoded() {
        let case = TestCase::new();
        let template = Template::compile(&inserted("", "/base?k=%2F&v=", "{value}"), &case.scope());
        let path = template.expect("compiles").render_path(&case.variables());
        assert_eq!(path.as_deref(), Ok("/base?k=%2F&v=NL123"));
    }

    #[test]
    fn json_templates_are_filled_in_at_every_depth() {
        let case = TestCase::new();
        let text = |text: &str| {
            JsonTemplate::Text(Template::compile(&written(text), &case.scope()).expect(text))
        };
        let template = JsonTemplate::Map(vec![
            ("{value}".to_owned(), text("{value.substring(2)}")),
            ("born".to_owned(), text("{identity.traits.born}")),
            (
                "list".to_owned(),
                JsonTemplate::List(vec![
                    JsonTemplate::Null,
                    JsonTemplate::Bool(true),
                    JsonTemplate::Number(7.into()),
                    text("{checks.email.response.status} {checks.vat.?response.hasValue()}"),
                ]),
            ),
            ("again".to_owned(), text("{checks.email.response.status}")),
        ]);
        let read: Vec<&str> = template
            .expressions()
            .into_iter()
            .flat_map(Expression::checks_read)
            .map(String::as_str)
            .collect();
        assert_eq!(read, ["email", "vat", "email"]);
        let error = template.render(&case.variables()).expect_err("no response");
        assert!(error.missing_check);

        let JsonTemplate::Map(mut entries) = template else {
            unreachable!("it is a map")
        };
        entries.truncate(2);
        assert_eq!(
            JsonTemplate::Map(entries).render(&case.variables()),
            Ok(json!({"{value}": "123", "born": 1815}))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_a_template_or_an_error(text in "[ -~{}'\"\\\\ü\n]{0,40}") {
            let case = TestCase::new();
            if let Ok(template) = Template::compile(&[Piece::Written(text.clone())], &case.scope()) {
                let _ = template.render(&case.variables());
                let _ = template.render_path(&case.variables());
                if !text.contains(['{', '}']) {
                    prop_assert_eq!(template.constant(), Some(text.as_str()));
                }
            }
        }
    }
}
