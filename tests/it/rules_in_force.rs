//! An account without a recorded sign-up is a fault only if the rule that could have reserved or deferred was in force then.

use std::time::Duration;

use vestibule::model::delivery::State;

use crate::support::invites::Invites;
use crate::support::{FakeKratos, TestApp, payload};

const INVITES: &str = r#"
checks:
  invite:
    field: traits.invite
    reserve:
      take: {post: "${env:INVITES}/invites/{value}/hold"}
      release: {delete: "${env:INVITES}/holds/{taken.body.hold_id}"}
    refuse: [{when: 404}, {when: 409}]
"#;
const ALARMS: &str = "vestibule_lost_posts_total{reason=\"not_recorded\"}";

async fn start(invites: &Invites, yaml: &str, before: Option<&TestApp>) -> TestApp {
    let mut builder = TestApp::with(yaml).env("INVITES", &invites.url());
    if let Some(before) = before {
        builder = builder.after(&before.folder, before.hand.now());
    }
    builder.start().await
}

/// An account of which `pre` never heard, and whether it is reported.
async fn is_reported(app: &TestApp) -> bool {
    let before = app.metric(ALARMS).await;
    let unseen = payload().saved();
    assert_eq!(app.post(&unseen).await.status, 204);
    app.metric(ALARMS).await > before + 0.5
}

#[tokio::test]
async fn a_check_of_the_same_name_with_another_rule_comes_into_force_anew() {
    let invites = Invites::with_uses(1);
    let app = start(&invites, INVITES, None).await;
    app.hand.advance(Duration::from_mins(11));
    assert!(is_reported(&app).await);
    app.delivery_in("confirm:invite", State::Abandoned).await;
    // The same rule, whatever its messages are.
    let same = INVITES.replace("{when: 404}", "{when: 404, message: We do not know it.}");
    let app = start(&invites, &same, Some(&app)).await;
    assert!(is_reported(&app).await);
    for (place, other) in [
        ("field: traits.invite", "field: traits.vat_number"),
        (
            "field: traits.invite",
            "field: traits.invite\n    when: identity.traits.company != \"\"",
        ),
        (
            "/invites/{value}/hold",
            "/invites/{value}/hold/{identity.schema_id}",
        ),
    ] {
        let changed = INVITES.replace(place, other);
        let app = start(&invites, &changed, Some(&app)).await;
        assert!(!is_reported(&app).await, "{other}");
        app.hand.advance(Duration::from_mins(11));
        assert!(is_reported(&app).await, "{other}");
    }
}

#[tokio::test]
async fn what_is_deferred_decides_about_the_rule_too() {
    let kratos = FakeKratos::start();
    let yaml = |unavailable: &str| {
        format!(
            "kratos: {{admin_url: \"${{env:KRATOS}}\"}}\nchecks:\n  vat:\n    field: traits.vat_number\n    \
             ask: {{get: \"${{env:KRATOS}}/{{value}}\"}}\n    on_unavailable: {unavailable}\n"
        )
    };
    let start = async |unavailable: &str, before: Option<&TestApp>| {
        let mut builder = TestApp::with(&yaml(unavailable)).kratos("KRATOS", &kratos);
        if let Some(before) = before {
            builder = builder.after(&before.folder, before.hand.now());
        }
        builder.start().await
    };
    let app = start("defer", None).await;
    app.hand.advance(Duration::from_mins(11));
    assert!(is_reported(&app).await);
    let app = start("{default: defer}", Some(&app)).await;
    assert!(is_reported(&app).await, "it means the same");
    let app = start("{timeout: defer}", Some(&app)).await;
    assert!(!is_reported(&app).await);
}

#[tokio::test]
async fn another_rule_of_one_check_leaves_the_others_in_force() {
    let invites = Invites::with_uses(1);
    let check = INVITES.trim_start_matches("\nchecks:\n");
    let second = check
        .replace("  invite:", "  second:")
        .replace("traits.invite", "traits.company");
    let app = start(&invites, &format!("{INVITES}{second}"), None).await;
    app.hand.advance(Duration::from_mins(11));
    let changed = second.replace("traits.company", "traits.vat_number");
    let app = start(&invites, &format!("{INVITES}{changed}"), Some(&app)).await;
    assert!(is_reported(&app).await);
    let dead = |plan: &'static str| app.deliveries(plan);
    assert_eq!(dead("confirm:invite").await.len(), 1);
    assert_eq!(dead("confirm:second").await.len(), 0);
}

#[tokio::test]
async fn the_moment_that_counts_is_when_kratos_created_the_account() {
    let invites = Invites::with_uses(1);
    let app = start(&invites, INVITES, None).await;
    app.hand.advance(Duration::from_mins(11));
    // Its `post` comes late: the account is older than the rule.
    let early = payload()
        .saved()
        .with("/identity/created_at", "2026-11-23T14:40:00Z");
    assert_eq!(app.post(&early).await.status, 204);
    assert!(app.metric(ALARMS).await < 0.1);
    let saturating_add = payload()
        .saved()
        .with("/identity/created_at", "2026-11-23T14:43:00Z");
    assert_eq!(app.post(&saturating_add).await.status, 204);
    assert!(app.metric(ALARMS).await > 0.5);
}

#[tokio::test]
async fn what_an_earlier_version_stored_counts() {
    let invites = Invites::with_uses(1);
    let app = start(&invites, INVITES, None).await;
    let old = "2026-11-23T12:00:00+00:00 invite";
    let store = &app.app.store;
    store
        .set_property("holding_checks", Some(old))
        .await
        .expect("it is stored");
    let app = start(&invites, INVITES, Some(&app)).await;
    assert!(is_reported(&app).await);
}
