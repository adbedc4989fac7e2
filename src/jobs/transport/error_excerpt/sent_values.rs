//! The values of a request, and where a text repeats them.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::model::request::Request;

/// The minimum length of a hidden value, in characters. Shorter values also occur in ordinary text.
const SHORTEST_VALUE: usize = 3;
/// The length of the pieces in which a longer value is hidden, in characters. So a value is also hidden where a text
/// ends within it.
const PIECE: usize = 64;
/// The maximum size of all values together, in bytes. The automaton needs about 50 times as much memory while it exists.
const MAX_BYTES: usize = 256 * 1024;

/// Finds the values of a request in texts, ignoring case.
pub(super) struct SentValues {
    automaton: AhoCorasick,
}

/// A text without differences of case, and for each of its bytes the character of the original that it comes from.
struct Folded {
    text: String,
    /// The start and the end of the character, in bytes of the original.
    origins: Vec<(usize, usize)>,
}

impl SentValues {
    /// Returns the values of the request. `None` if they are too many.
    pub fn of(request: &Request) -> Option<Self> {
        let mut values = Vec::new();
        values_of(request, &mut values);
        if values.iter().map(String::len).sum::<usize>() > MAX_BYTES {
            return None;
        }
        let pieces: BTreeSet<String> = values.iter().flat_map(|value| pieces(value)).collect();
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            .build(pieces);
        automaton.ok().map(|automaton| Self { automaton })
    }

    /// Returns the text with `…` for each value. If the text was cut, its end is hidden too, because it may be the
    /// beginning of a value.
    pub fn hide(&self, text: &str, is_cut: bool) -> String {
        let mut hidden = String::new();
        let mut shown_up_to = 0;
        for (start, end) in self.found_in(text, is_cut) {
            hidden.push_str(&text[shown_up_to..start]);
            hidden.push('…');
            shown_up_to = end;
        }
        hidden.push_str(&text[shown_up_to..]);
        hidden
    }

    /// Returns the parts of the text to hide, in order. Parts that overlap are one part.
    fn found_in(&self, text: &str, is_cut: bool) -> Vec<(usize, usize)> {
        let folded = Folded::of(text);
        let mut parts: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        while let Some(found) = self.automaton.find(Input::new(&folded.text).range(at..)) {
            let (start, _) = folded.origins[found.start()];
            let (_, end) = folded.origins[found.end() - 1];
            add(&mut parts, start, end);
            at = found.start() + 1;
        }
        if is_cut {
            let last = text.char_indices().rev().nth(PIECE - 1);
            add(&mut parts, last.map_or(0, |(start, _)| start), text.len());
        }
        parts
    }
}

/// Adds a part that does not begin before the last one, and joins parts that overlap.
fn add(parts: &mut Vec<(usize, usize)>, start: usize, end: usize) {
    match parts.last_mut() {
        Some(last) if start < last.1 => last.1 = last.1.max(end),
        _ => parts.push((start, end)),
    }
}

impl Folded {
    fn of(text: &str) -> Self {
        let mut folded = Self {
            text: String::with_capacity(text.len()),
            origins: Vec::with_capacity(text.len()),
        };
        for (start, character) in text.char_indices() {
            folded.text.extend(fold(character));
            let origin = (start, start + character.len_utf8());
            folded.origins.resize(folded.text.len(), origin);
        }
        folded
    }
}

/// Removes the case of a character. The upper case of `ß` is `SS`, so the result can be several characters.
fn fold(character: char) -> impl Iterator<Item = char> {
    character.to_uppercase().flat_map(char::to_lowercase)
}

/// Returns the value in pieces of at most [`PIECE`] characters.
fn pieces(value: &str) -> Vec<String> {
    let folded: Vec<char> = value.chars().flat_map(fold).collect();
    if folded.len() < SHORTEST_VALUE {
        return Vec::new();
    }
    let mut pieces: Vec<String> = folded
        .chunks(PIECE)
        .map(|piece| piece.iter().collect())
        .collect();
    // A short rest is hidden with what is before it.
    if folded.len() > PIECE && folded.len() % PIECE < SHORTEST_VALUE {
        pieces.pop();
        pieces.push(folded[folded.len() - PIECE..].iter().collect());
    }
    pieces
}

fn values_of(request: &Request, values: &mut Vec<String>) {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    for segment in path.split('/') {
        values.push(percent_decode_str(segment).decode_utf8_lossy().into_owned());
        // The segment as sent over the wire, because some services repeat it.
        values.push(segment.to_owned());
    }
    let raw = |text: &str| -> Vec<String> {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(_, value)| value.to_owned()).collect()
    };
    values.extend(raw(query));
    let form = |text: &str, values: &mut Vec<String>| {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        values.extend(pairs.map(|(_, value)| value.into_owned()));
    };
    form(query, values);
    values.extend(request.headers.iter().map(|(_, value)| value.clone()));
    if let Some(body) = &request.body {
        if let Ok(json) = serde_json::from_str(&body.text) {
            leaves(&json, values);
        } else {
            values.extend(raw(&body.text));
            form(&body.text, values);
        }
    }
}

fn leaves(json: &Value, values: &mut Vec<String>) {
    match json {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => values.push(number.to_string()),
        Value::String(text) => values.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, values)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, values)),
    }
}
