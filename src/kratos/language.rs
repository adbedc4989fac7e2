//! Chooses a language for a visitor: the lookup of `Accept-Language` by BCP 47 (RFC 4647 §3.4).

/// Returns the languages that `header` requests, best first, without those that have `q=0`.
#[must_use]
pub fn wanted(header: &str) -> Vec<&str> {
    let mut ranges: Vec<(&str, f32)> = header
        .split(',')
        .filter_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let range = parts.next().filter(|range| !range.is_empty())?;
            let quality = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(1.0, |quality| quality.trim().parse().unwrap_or(0.0));
            (quality > 0.0).then_some((range, quality))
        })
        .collect();
    // The sort is stable, so equal languages keep the order of the header.
    ranges.sort_by(|one, other| other.1.total_cmp(&one.1));
    ranges.into_iter().map(|(range, _)| range).collect()
}

/// Returns the first entry of `available` that `header` requests.
///
/// Each requested range is shortened from the end until the range equals an entry (`de-CH-1996`, `de-CH`, `de`). The
/// range `*` requests no language in particular, and is ignored.
#[must_use]
pub fn lookup<'a>(header: &str, available: &[&'a str]) -> Option<&'a str> {
    wanted(header)
        .into_iter()
        .filter(|range| *range != "*")
        .find_map(|range| {
            let mut range = range;
            loop {
                if let Some(found) = available.iter().find(|tag| tag.eq_ignore_ascii_case(range)) {
                    return Some(*found);
                }
                range = shortened(range)?;
            }
        })
}

/// Removes the last subtag of a range, and then a single letter or digit at the end of the range.
fn shortened(range: &str) -> Option<&str> {
    let mut shorter = &range[..range.rfind('-')?];
    while let Some((rest, last)) = shorter.rsplit_once('-') {
        if last.chars().count() > 1 {
            break;
        }
        shorter = rest;
    }
    Some(shorter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_follows_rfc_4647() {
        let available = ["en", "de", "pt-BR", "zh-Hant"];
        let cases = [
            ("de-DE,de;q=0.9,en;q=0.5", Some("de")),
            ("fr,en;q=0.1", Some("en")),
            ("EN-us", Some("en")),
            ("en;q=0.2, de;q=0.8", Some("de")),
            ("pt", None),
            ("pt-br", Some("pt-BR")),
            ("zh-Hant-CN-x-private", Some("zh-Hant")),
            ("zh-Hant-CN-x-1-wadegile", Some("zh-Hant")),
            ("de;q=0, en;q=0", None),
            ("*", None),
            ("*,de;q=0.5", Some("de")),
            ("", None),
            (",;q=,de;q=x", None),
            ("fr;q=NaN,en", Some("en")),
        ];
        for (header, expected) in cases {
            assert_eq!(lookup(header, &available), expected, "{header}");
        }
    }
}
