//! Reports problems between checks: circles, and two checks that set the same path.

use std::collections::BTreeMap;

use super::{Cursor, Resolver};
use crate::checks::Check;

impl<'a> Resolver<'a> {
    pub(super) fn order(&mut self, checks: &[(Check, Cursor<'a>)]) {
        self.circles(checks);
        self.same_paths(checks);
    }

    fn circles(&mut self, checks: &[(Check, Cursor<'a>)]) {
        let waits: BTreeMap<&str, Vec<String>> = checks
            .iter()
            .map(|(check, _)| (check.name.as_str(), check.waits_for()))
            .collect();
        let mut reported: Vec<&str> = Vec::new();
        for (check, cursor) in checks {
            if reported.contains(&check.name.as_str()) {
                continue;
            }
            if let Some(circle) = circle(&check.name, &waits) {
                let names: Vec<String> = circle.iter().map(|name| format!("`{name}`")).collect();
                self.report(
                    cursor,
                    format!(
                        "checks wait for each other in a circle: {}",
                        names.join(" → ")
                    ),
                    Some("remove `after`, or the expression that reads `checks.….response`, from one of them".to_owned()),
                );
                reported.extend(
                    waits
                        .keys()
                        .filter(|name| circle.iter().any(|in_circle| in_circle == *name)),
                );
            }
        }
    }

    fn same_paths(&mut self, checks: &[(Check, Cursor<'a>)]) {
        let sets: Vec<(&Check, &Cursor<'a>, &Vec<String>)> = checks
            .iter()
            .flat_map(|(check, cursor)| check.set.iter().map(move |set| (check, cursor, &set.path)))
            .collect();
        for (index, (check, cursor, path)) in sets.iter().enumerate() {
            for (earlier, _, other) in &sets[..index] {
                let shorter = path.len().min(other.len());
                if path[..shorter] == other[..shorter] {
                    let written = path.join(".");
                    let message = if path == other {
                        format!("`{written}` is already set by `{}`", earlier.name)
                    } else {
                        format!(
                            "`{written}` and `{}`, set by `{}`, overlap",
                            other.join("."),
                            earlier.name
                        )
                    };
                    let cursor = cursor.key("set").key(&written);
                    let hint = (check.name != earlier.name).then(|| {
                        "choose another path; one of the two values would be lost".to_owned()
                    });
                    self.report(&cursor, message, hint);
                }
            }
        }
    }
}

/// Finds a path from `start` back to itself.
fn circle(start: &str, waits: &BTreeMap<&str, Vec<String>>) -> Option<Vec<String>> {
    let mut way = vec![start.to_owned()];
    let mut seen = Vec::new();
    search(start, start, waits, &mut way, &mut seen).then_some(way)
}

fn search<'w>(
    at: &str,
    start: &str,
    waits: &'w BTreeMap<&str, Vec<String>>,
    way: &mut Vec<String>,
    seen: &mut Vec<&'w str>,
) -> bool {
    for next in waits.get(at).into_iter().flatten() {
        if next == start {
            way.push(next.clone());
            return true;
        }
        if seen.contains(&next.as_str()) {
            continue;
        }
        seen.push(next);
        way.push(next.clone());
        if search(next, start, waits, way, seen) {
            return true;
        }
        way.pop();
    }
    false
}
