//! An account without a recorded sign-up is reported only if its check was in force when the account was created.

use std::time::Duration;

use vestibule::model::delivery::State;

use crate::support::fake_invites::FakeInvites;
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

async fn start(invites: &FakeInvites, yaml: &str, before: Option<&TestApp>) -> TestApp {
    let mut builder = TestApp::with(yaml).env("INVITES", &invites.url());
    if let Some(before) = before {
        builder = builder.in_folder(&before.folder, before.clock.now());
    }
    builder.start().await
}

/// Sends a `post` without a `pre`, and returns whether it is reported.
async fn is_reported(app: &TestApp) -> bool {
    let before = app.metric(ALARMS).await;
    let unseen = payload().saved();
    assert_eq!(app.post(&unseen).await.status, 204);
    app.metric(ALARMS).await > before + 0.5
}

#[tokio::test]
async fn a_changed_check_comes_into_force_anew() {
    let invites = FakeInvites::with_uses(1);
    let app = start(&invites, INVITES, None).await;
    app.clock.advance(Duration::from_mins(11));
    assert!(is_reported(&app).await);
    app.wait_for_delivery("confirm:invite", State::Abandoned)
        .await;
    // The same check with another message.
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
        app.clock.advance(Duration::from_mins(11));
        assert!(is_reported(&app).await, "{other}");
    }
}

#[tokio::test]
async fn a_changed_on_unavailable_comes_into_force_anew() {
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
            builder = builder.in_folder(&before.folder, before.clock.now());
        }
        builder.start().await
    };
    let app = start("defer", None).await;
    app.clock.advance(Duration::from_mins(11));
    assert!(is_reported(&app).await);
    let app = start("{default: defer}", Some(&app)).await;
    assert!(is_reported(&app).await, "the same policy");
    let app = start("{timeout: defer}", Some(&app)).await;
    assert!(!is_reported(&app).await);
}

#[tokio::test]
async fn a_change_of_one_check_leaves_the_others_in_force() {
    let invites = FakeInvites::with_uses(1);
    let check = INVITES.trim_start_matches("\nchecks:\n");
    let second = check
        .replace("  invite:", "  second:")
        .replace("traits.invite", "traits.company");
    let app = start(&invites, &format!("{INVITES}{second}"), None).await;
    app.clock.advance(Duration::from_mins(11));
    let changed = second.replace("traits.company", "traits.vat_number");
    let app = start(&invites, &format!("{INVITES}{changed}"), Some(&app)).await;
    assert!(is_reported(&app).await);
    let dead_letters = |subscription: &'static str| app.deliveries(subscription);
    assert_eq!(dead_letters("confirm:invite").await.len(), 1);
    assert_eq!(dead_letters("confirm:second").await.len(), 0);
}

#[tokio::test]
async fn the_creation_time_of_the_account_decides_whether_a_check_was_in_force() {
    let invites = FakeInvites::with_uses(1);
    let app = start(&invites, INVITES, None).await;
    app.clock.advance(Duration::from_mins(11));
    // The `post` is late: the account is older than the check.
    let early = payload()
        .saved()
        .with("/identity/created_at", "2026-11-23T14:40:00Z");
    assert_eq!(app.post(&early).await.status, 204);
    app.assert_metric(ALARMS, 0).await;
    let late = payload()
        .saved()
        .with("/identity/created_at", "2026-11-23T14:43:00Z");
    assert_eq!(app.post(&late).await.status, 204);
    assert!(app.metric(ALARMS).await > 0.5);
}

#[tokio::test]
async fn the_property_of_an_earlier_version_is_read() {
    let invites = FakeInvites::with_uses(1);
    let app = start(&invites, INVITES, None).await;
    let old = "2026-11-23T12:00:00+00:00 invite";
    let store = &app.app.store;
    store
        .set_property("holding_checks", Some(old))
        .await
        .expect("the delivery is stored");
    let app = start(&invites, INVITES, Some(&app)).await;
    assert!(is_reported(&app).await);
}
