//! The rules, in groups.

mod body;
mod call;
mod events;
mod key;
mod late_refusals;
mod lists;
mod methods;
mod traits;
mod url;

use super::context::Context;
use super::finding::Findings;

pub use traits::{UncheckedRight, unchecked_rights};

/// The names of all rules, as in docs/kratos-lint.md. They are stable.
pub const NAMES: [&str; 42] = [
    "admin-port",
    "analytics-off",
    "before-hook",
    "blocking-hook-behind",
    "body-changed",
    "body-headers",
    "body-missing",
    "body-not-ours",
    "body-outdated",
    "event-not-hooked",
    "foreign-post",
    "header-allowlist",
    "http-method",
    "key-in-clear",
    "key-missing",
    "key-of-example",
    "key-placeholder",
    "key-unknown",
    "language-header",
    "late-refusals",
    "method-parameter",
    "never-called",
    "no-hooks",
    "old-kratos",
    "post-ignored",
    "post-missing",
    "post-with-parse",
    "pre-can-interrupt",
    "pre-ignored",
    "pre-without-parse",
    "schema-ids",
    "settings-file",
    "shadowed-list",
    "tokenizer-subject",
    "two-step",
    "unchecked-right",
    "unhooked-method",
    "unhooked-profile",
    "unknown-field",
    "unreadable",
    "wrong-flow",
    "wrong-path",
];

/// The credentials that a settings flow can change. Kratos has separate hooks for each.
const CREDENTIALS: [&str; 6] = [
    "password",
    "oidc",
    "totp",
    "webauthn",
    "passkey",
    "lookup_secret",
];

/// Applies all rules.
pub fn apply(context: &Context<'_>, findings: &mut Findings) {
    for check in [
        url::check,
        call::check,
        key::check,
        body::check,
        lists::check,
        methods::check,
        events::check,
        late_refusals::check,
        traits::check,
    ] {
        check(context, findings);
    }
}
