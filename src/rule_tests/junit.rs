//! The report for CI systems, in the XML format of `JUnit`.

use std::fmt::Write as _;
use std::path::Path;

use super::CaseResult;

/// Returns the report about these test files.
#[must_use]
pub fn report(files: &[(&Path, &[CaseResult])]) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for (path, results) in files {
        let name = escaped(&path.display().to_string());
        let failures = results
            .iter()
            .filter(|one| !one.problems.is_empty())
            .count();
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\">",
            results.len()
        );
        for result in *results {
            let case = escaped(&result.name);
            if result.problems.is_empty() {
                let _ = writeln!(xml, "    <testcase classname=\"{name}\" name=\"{case}\"/>");
            } else {
                let text = escaped(&result.problems.join("\n"));
                let _ = writeln!(
                    xml,
                    "    <testcase classname=\"{name}\" name=\"{case}\">\n      <failure>{text}</failure>\n    </testcase>"
                );
            }
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// Escapes a text for XML. Characters that XML does not allow become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_case_and_its_problems() {
        let results = [
            CaseResult {
                name: "a \"good\" one".to_owned(),
                problems: Vec::new(),
                notes: Vec::new(),
            },
            CaseResult {
                name: "b < c".to_owned(),
                problems: vec!["- 1\n+ 2\u{7}".to_owned(), "& more".to_owned()],
                notes: Vec::new(),
            },
        ];
        insta::assert_snapshot!(report(&[(Path::new("tests/vat.yaml"), &results)]));
    }
}
