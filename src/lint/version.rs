//! The version of Kratos that settings need.

use crate::config::Settings;

/// The first version of Kratos that stores the `external_id` of an answer.
const EXTERNAL_ID_SINCE: [u32; 3] = [25, 4, 0];

/// What a version of Kratos means for settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KratosVersion {
    /// The settings work with it.
    Sufficient,
    /// It is too old, for this reason.
    TooOld(String),
    /// The text is not a version, as that of a Kratos that was built from source.
    Unknown,
}

/// Compares a version of Kratos, such as `v26.2.0`, with what the settings need.
///
/// Before v25.4.0, Kratos ignores the `external_id` by which Vestibule finds what became of a sign-up.
#[must_use]
pub fn kratos_version(settings: &Settings, version: &str) -> KratosVersion {
    let numbers: Vec<u32> = version
        .trim_start_matches('v')
        .split(['.', '-', '+'])
        .map_while(|part| part.parse().ok())
        .take(3)
        .collect();
    if numbers.is_empty() {
        return KratosVersion::Unknown;
    }
    let needing = settings.checks.iter().find(|check| check.can_refuse_late());
    match needing {
        Some(check) if numbers.as_slice() < EXTERNAL_ID_SINCE.as_slice() => {
            KratosVersion::TooOld(format!(
                "the check `{}` reserves or defers, which needs `external_id`; Kratos stores it since v25.4.0",
                check.name
            ))
        }
        _ => KratosVersion::Sufficient,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Environment};

    #[test]
    fn only_checks_that_reserve_or_defer_need_a_version() {
        let defers = "on_unavailable: defer, ";
        for (behaviour, version, expected) in [
            (defers, "v25.3.9", false),
            (defers, "25.3", false),
            (defers, "v1.3.1", false),
            (defers, "v25.4.0", true),
            (defers, "v26.2.0-pre.1", true),
            ("", "v1.3.1", true),
        ] {
            let text = format!(
                "kratos: {{admin_url: \"http://k\"}}\nchecks: {{vat: {{field: traits.vat, ask: {{get: \"http://s/\"}}, \
                 {behaviour}refuse: [{{when: 404}}]}}}}"
            );
            let settings = config::read(&text, Path::new("v.yaml"), &Environment::of([]))
                .unwrap_or_else(|problems| panic!("{problems}"));
            let found = kratos_version(&settings, version);
            let is_sufficient = found == KratosVersion::Sufficient;
            assert_eq!(is_sufficient, expected, "{behaviour} {version}: {found:?}");
            assert_eq!(kratos_version(&settings, "master"), KratosVersion::Unknown);
        }
    }
}
