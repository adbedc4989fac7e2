//! Records from which time on the checks that reserve or defer are in force.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::{Timestamp, saturating_add};

/// The maximum time between a rule's start and the save of a sign-up that was accepted before the start.
const OLD_SIGN_UPS_END_WITHIN: Duration = Duration::from_mins(10);

/// The rules in force, by check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InForce(BTreeMap<String, Rule>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    /// The hash that distinguishes this rule from another rule of the same check.
    hash: String,
    since: Timestamp,
}

impl InForce {
    /// Creates these rules, by check name and hash, all in force since `now`.
    #[must_use]
    pub fn since(rules: &[(String, String)], now: Timestamp) -> Self {
        let rules = rules.iter().map(|(check, hash)| {
            let rule = Rule {
                hash: hash.clone(),
                since: now,
            };
            (check.clone(), rule)
        });
        Self(rules.collect())
    }

    /// Creates these rules as of `now`. A rule that `stored` has with the same hash keeps its time from `stored`.
    #[must_use]
    pub fn after(stored: Option<&str>, rules: &[(String, String)], now: Timestamp) -> Self {
        let mut in_force = Self::since(rules, now);
        let known = stored
            .map(|text| Self::read(text, rules))
            .unwrap_or_default();
        for (check, rule) in &mut in_force.0 {
            if let Some(known) = known.0.get(check)
                && known.hash == rule.hash
            {
                rule.since = known.since;
            }
        }
        in_force
    }

    /// Returns the text that the store keeps.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns whether the check's rule was in force when the sign-up of an identity created at `created_at` was
    /// evaluated.
    #[must_use]
    pub fn covers(&self, check: &str, created_at: Timestamp) -> bool {
        let rule = self.0.get(check);
        rule.is_some_and(|rule| created_at >= saturating_add(rule.since, OLD_SIGN_UPS_END_WITHIN))
    }

    /// Reads the stored text. Earlier versions stored one time and the names of the checks:
    /// `2026-11-26T12:00:00+00:00 vat,invite`. These checks count as unchanged.
    fn read(text: &str, rules: &[(String, String)]) -> Self {
        if let Ok(stored) = serde_json::from_str(text) {
            return stored;
        }
        let Some((Ok(since), names)) = text
            .split_once(' ')
            .map(|(since, names)| (since.parse::<Timestamp>(), names))
        else {
            return Self::default();
        };
        let names: Vec<&str> = names.split(',').collect();
        let known = rules
            .iter()
            .filter(|(check, _)| names.contains(&check.as_str()));
        Self::since(&known.cloned().collect::<Vec<_>>(), since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn rules(rules: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(check, hash): &(&str, &str)| ((*check).to_owned(), (*hash).to_owned());
        rules.iter().map(owned).collect()
    }

    #[test]
    fn a_rule_with_another_hash_is_in_force_from_now_and_the_others_keep_their_time() {
        let (first, second) = (at("2026-11-26T12:00:00Z"), at("2026-11-26T13:00:00Z"));
        let before = InForce::after(None, &rules(&[("vat", "1"), ("invite", "1")]), first);
        let now = rules(&[("vat", "1"), ("invite", "2"), ("new", "1")]);
        let after = InForce::after(Some(&before.text()), &now, second);
        for (check, created_at, covers) in [
            ("vat", "2026-11-26T12:09:59Z", false),
            ("vat", "2026-11-26T12:10:00Z", true),
            ("invite", "2026-11-26T13:09:59Z", false),
            ("invite", "2026-11-26T13:10:00Z", true),
            ("new", "2026-11-26T13:09:59Z", false),
            ("gone", "2026-11-26T14:00:00Z", false),
        ] {
            assert_eq!(
                after.covers(check, at(created_at)),
                covers,
                "{check} {created_at}"
            );
        }
    }

    #[test]
    fn text_stored_by_earlier_versions_is_read() {
        let now = at("2026-11-26T13:00:00Z");
        let all = rules(&[("vat", "1"), ("invite", "1")]);
        let old = "2026-11-26T12:00:00+00:00 vat,other";
        let after = InForce::after(Some(old), &all, now);
        assert!(after.covers("vat", at("2026-11-26T12:10:00Z")));
        assert!(!after.covers("invite", at("2026-11-26T13:09:59Z")));
        for unreadable in ["", "x", "yesterday vat", "{\"vat\":1}", "[]"] {
            let after = InForce::after(Some(unreadable), &all, now);
            assert_eq!(after, InForce::since(&all, now), "{unreadable}");
        }
    }
}
