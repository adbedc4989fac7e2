//! Language tags that are well-formed and that no browser sends, with the tag that was probably meant.

/// The two-letter code of a language, and other names for the language or its country.
const LANGUAGES: [(&str, &[&str]); 30] = [
    ("ar", &["ara", "arabic"]),
    ("bg", &["bul", "bulgarian"]),
    ("cs", &["cz", "ces", "cze", "czech"]),
    ("da", &["dk", "dan", "danish", "dansk"]),
    ("de", &["at", "deu", "ger", "german", "deutsch"]),
    ("el", &["gr", "ell", "gre", "greek"]),
    ("en", &["us", "gb", "eng", "english"]),
    ("es", &["spa", "spanish", "espanol"]),
    ("et", &["est", "estonian"]),
    ("fi", &["fin", "finnish", "suomi"]),
    ("fr", &["fra", "fre", "french", "francais"]),
    ("he", &["heb", "hebrew"]),
    ("hi", &["hin", "hindi"]),
    ("hu", &["hun", "magyar"]),
    ("id", &["ind"]),
    ("it", &["ita", "italian", "italiano"]),
    ("ja", &["jp", "jpn", "japanese"]),
    ("ko", &["kr", "kor", "korean"]),
    ("nl", &["nld", "dut", "dutch"]),
    ("no", &["nor"]),
    ("pl", &["pol", "polish", "polski"]),
    ("pt", &["por"]),
    ("ro", &["ron", "rum", "romanian"]),
    ("ru", &["rus", "russian"]),
    ("sk", &["slk", "slo", "slovak"]),
    ("sv", &["swe", "swedish", "svenska"]),
    ("th", &["tha", "thai"]),
    ("tr", &["tur", "turkish"]),
    ("uk", &["ua", "ukr"]),
    ("zh", &["cn", "zho", "chi", "chinese"]),
];

/// Returns what to write in place of a tag that no browser sends. `None` if the tag is right.
pub(super) fn instead(tag: &str) -> Option<String> {
    let dashed = tag.replace('_', "-");
    let (primary, rest) = match dashed.split_once('-') {
        Some((primary, rest)) => (primary, Some(rest)),
        None => (dashed.as_str(), None),
    };
    let lower = primary.to_lowercase();
    let known = LANGUAGES
        .iter()
        .find(|(_, names)| names.contains(&lower.as_str()));
    let code = match known {
        Some((code, _)) => code,
        None if (2..=3).contains(&lower.len()) && dashed == tag => return None,
        None if (2..=3).contains(&lower.len()) => lower.as_str(),
        None => return Some("use the two-letter code of the language, as in `en`".to_owned()),
    };
    let tag = rest.map_or_else(|| code.to_owned(), |rest| format!("{code}-{rest}"));
    Some(format!("write `{tag}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_no_browser_sends_has_the_right_one_as_help() {
        for (tag, expected) in [
            ("en", None),
            ("de", None),
            ("pt-BR", None),
            ("zh-Hans-CN", None),
            ("gsw", None),
            ("uk", None),
            ("english", Some("write `en`")),
            ("English", Some("write `en`")),
            ("german", Some("write `de`")),
            ("Deutsch", Some("write `de`")),
            ("deu", Some("write `de`")),
            ("eng-US", Some("write `en-US`")),
            ("jp", Some("write `ja`")),
            ("us", Some("write `en`")),
            ("en_US", Some("write `en-US`")),
            ("deutsch_AT", Some("write `de-AT`")),
            (
                "klingon",
                Some("use the two-letter code of the language, as in `en`"),
            ),
            (
                "text",
                Some("use the two-letter code of the language, as in `en`"),
            ),
        ] {
            assert_eq!(instead(tag).as_deref(), expected, "{tag}");
        }
    }
}
