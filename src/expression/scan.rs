//! Finds the end of an expression inside a text.
//!
//! The scanner only knows the necessary part of the language: texts in all their quotes, comments, brackets.

/// The reason why an expression has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unended {
    /// The bracket at this byte is never closed. `None` means the expression's own brace.
    Open(Option<usize>),
    /// The quoted text that begins at this byte is never closed.
    Quote(usize),
    /// The closing bracket at this byte has no opening bracket.
    Stray(usize),
}

/// Returns the byte of the brace that ends the expression at the start of `text`.
pub(super) fn end(text: &str) -> Result<usize, Unended> {
    let bytes = text.as_bytes();
    let mut open: Vec<(u8, usize)> = Vec::new();
    // The start of the word directly before the current byte.
    let mut word: Option<usize> = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let before = word.take();
        match byte {
            b'"' | b'\'' => {
                let prefix = before.map_or("", |start| &text[start..at]);
                let raw = ["r", "br", "rb"]
                    .iter()
                    .any(|raw| prefix.eq_ignore_ascii_case(raw));
                at = after_quotes(bytes, at, raw).ok_or(Unended::Quote(at))?;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                let rest = &bytes[at..];
                let line = rest.iter().position(|byte| *byte == b'\n');
                at += line.unwrap_or(rest.len());
                continue;
            }
            b'(' | b'[' | b'{' => open.push((byte, at)),
            b'}' if open.is_empty() => return Ok(at),
            b')' | b']' | b'}' => {
                let partner = open.pop().map(|(partner, _)| partner);
                let fits = matches!(
                    (partner, byte),
                    (Some(b'('), b')') | (Some(b'['), b']') | (Some(b'{'), b'}')
                );
                if !fits {
                    return Err(Unended::Stray(at));
                }
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => word = before.or(Some(at)),
            _ => {}
        }
        at += 1;
    }
    Err(Unended::Open(open.last().map(|(_, at)| *at)))
}

/// Returns the byte after the quoted text that begins at `start`, or `None` if the text does not end.
fn after_quotes(bytes: &[u8], start: usize, raw: bool) -> Option<usize> {
    let quote = bytes[start];
    let triple = [quote; 3];
    let (mark, lines) = if bytes[start..].starts_with(&triple) {
        (triple.as_slice(), true)
    } else {
        (&triple[..1], false)
    };
    let mut at = start + mark.len();
    loop {
        match *bytes.get(at)? {
            b'\\' if !raw => at += 2,
            b'\n' | b'\r' if !lines => return None,
            _ if bytes[at..].starts_with(mark) => return Some(at + mark.len()),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_ends_at_its_own_brace() {
        for (text, rest) in [
            ("value} and more}", " and more}"),
            (r#"{"a": 1}.a}x"#, "x"),
            ("\"}\"}x", "x"),
            ("'}'}x", "x"),
            (r#""a\"}"}x"#, "x"),
            (r#"r"\"}x"#, "x"),
            (r"R'\'}x", "x"),
            (r#"br"\"}x"#, "x"),
            (r#"b"\"}"}x"#, "x"),
            // The `r` is the end of a name and not a prefix. The language has the same rule.
            (r#"for"\"}"}x"#, "x"),
            (r#"""" " } """}x"#, "x"),
            ("''' ' } '''}x", "x"),
            ("'''a\n}'''}x", "x"),
            (r#"r""" \"""}x"#, "x"),
            ("\"\"}x", "x"),
            ("a // }\n}x", "x"),
            ("[{'a': [1, {'b': '}'}]}]}x", "x"),
            ("a / b}x", "x"),
            ("'ü}'}x", "x"),
        ] {
            let end = end(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!(&text[end + 1..], rest, "{text}");
        }
    }

    #[test]
    fn an_unended_expression_is_reported_with_the_start_of_the_open_part() {
        for (text, error) in [
            ("value", Unended::Open(None)),
            ("", Unended::Open(None)),
            ("f(a", Unended::Open(Some(1))),
            ("{'a': 1", Unended::Open(Some(0))),
            ("a + 'b}", Unended::Quote(4)),
            ("a + 'b\n'}", Unended::Quote(4)),
            (r#""a\"}"#, Unended::Quote(0)),
            (r#""a\"#, Unended::Quote(0)),
            ("'''a'}", Unended::Quote(0)),
            ("a)}", Unended::Stray(1)),
            ("(a]}", Unended::Stray(2)),
            ("(a}", Unended::Stray(2)),
            ("a // }", Unended::Open(None)),
        ] {
            assert_eq!(end(text), Err(error), "{text}");
        }
    }
}
