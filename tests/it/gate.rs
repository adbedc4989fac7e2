//! The one-identity guard: a flow with many submissions gets no more from a check than one account needs.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::kratos::fingerprint::guard_id;
use vestibule::model::delivery::State;
use vestibule::model::pending::PendingState;
use vestibule::store::DeliverySummary;

use crate::support::app::Reply;
use crate::support::failing_store::FailingStore;
use crate::support::fake_invites::FakeInvites;
use crate::support::fake_service::Behaviour;
use crate::support::logs::lines_with;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const TRY_AGAIN: u64 = 4_900_001;
const NOT_VALID: u64 = 4_900_002;
const FORM_USED: u64 = 4_900_006;

const INVITES: &str = r#"
checks:
  invite:
    field: traits.invite
    reserve:
      take: {post: "${env:INVITES}/invites/{value}/hold"}
      confirm: {post: "${env:INVITES}/holds/{taken.body.hold_id}/confirm", json: {account: "{identity.id}"}}
      release: {delete: "${env:INVITES}/holds/{taken.body.hold_id}"}
    refuse: [{when: 404, message: "We do not know this invite."}, {when: 409, message: "This invite is used up."}]
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:INVITES}/crm"}}
"#;

const DEFERS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  vat_number:
    field: traits.vat_number
    ask: {post: "${env:VIES}/check", json: {number: "{value}"}}
    on_unavailable: defer
    refuse: [{when: "!response.body.valid"}]
"#;

/// Starts an app with reservations of invites, and a service with this number of uses per invite.
async fn app_with_invites(uses: usize) -> (TestApp, FakeInvites) {
    let invites = FakeInvites::with_uses(uses);
    let app = TestApp::with(INVITES)
        .env("INVITES", &invites.url())
        .start()
        .await;
    (app, invites)
}

/// The same with the admin API of Kratos.
async fn app_with_invites_and_kratos(uses: usize) -> (TestApp, FakeInvites, FakeKratos) {
    let (invites, kratos) = (FakeInvites::with_uses(uses), FakeKratos::start());
    let invites_yaml = INVITES.replace(
        "[identity.created]",
        "[identity.created, registration.failed]",
    );
    let yaml = format!("kratos: {{admin_url: \"${{env:KRATOS}}\"}}\n{invites_yaml}");
    let app = TestApp::with(&yaml)
        .env("INVITES", &invites.url())
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    (app, invites, kratos)
}

fn invited_visitor(email: &str) -> Payload {
    payload()
        .with_trait("invite", "gold")
        .with_trait("email", email)
        .with("/identity/state_changed_at", "2026-11-23T14:32:53.1Z")
        .with(
            "/identity/verifiable_addresses",
            json!([{"value": email, "via": "email"}]),
        )
}

#[tokio::test]
async fn every_submission_of_a_flow_gets_the_same_hashed_external_id() {
    let (app, _) = app_with_invites(9).await;
    let visitor = invited_visitor("a@example.org");
    for method in ["password", "oidc", "code", "passkey", "webauthn"] {
        let path = format!("/hooks/registration/pre?method={method}");
        let reply = app.call(&path, payload().to_string()).await;
        assert!(reply.is_admitted(), "{method}: {reply:?}");
        let id = reply.json()["identity"]["external_id"].clone();
        assert!(id.as_str().unwrap().starts_with("vestibule:"), "{method}");
    }
    let expected = json!({"identity": {"external_id": guard_id(visitor.flow_id())}});
    assert_eq!(app.pre(&visitor).await.json(), expected);
    // Vestibule does not replace an id that another hook has set.
    let other = payload().with("/identity/external_id", "crm-7");
    assert_eq!(app.pre(&other).await.status, 204);
    // A settings call returns no id.
    let change = payload().changed_from(&json!({"email": "canary@example.org"}));
    let reply = app.settings(&change).await;
    assert_eq!(reply.status, 204, "{reply:?}");
}

#[tokio::test]
async fn use_external_id_controls_the_external_id() {
    for (setting, holds, expected) in [
        ("auto", true, true),
        ("auto", false, false),
        ("always", false, true),
        ("never", true, false),
    ] {
        let invites = FakeInvites::with_uses(9);
        let checks = if holds { INVITES } else { "" };
        let app = TestApp::with(&format!("kratos: {{use_external_id: {setting}}}\n{checks}"))
            .env("INVITES", &invites.url())
            .start()
            .await;
        let status = app.pre(&payload()).await.status;
        assert_eq!(status == 200, expected, "{setting} {holds}: {status}");
    }
}

#[tokio::test]
async fn twelve_submissions_of_a_guarded_flow_use_one_invite_and_confirm_it_once() {
    let (app, invites) = app_with_invites(1).await;
    app.prove_guard().await;
    let before = app.deliveries("crm").await.len();
    let first = invited_visitor("taken@example.org");
    assert!(app.pre(&first).await.is_admitted());
    // Kratos refused the address. The visitor submits the same form with twelve other addresses at the same time.
    let all: Vec<Payload> = (0..12)
        .map(|number| {
            first
                .clone()
                .with_trait("email", format!("{number}@example.org"))
        })
        .collect();
    let replies = futures_util::future::join_all(all.iter().map(|one| app.pre(one))).await;
    let admitted = replies.iter().filter(|reply| reply.is_admitted()).count();
    assert_eq!(admitted, 12, "Kratos creates one account");
    assert_eq!(invites.held_and_confirmed(), (1, 0));
    // Kratos has created one account, and refuses the other submissions.
    let winner = all[7].clone().saved().guarded();
    assert_eq!(app.post(&winner).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
    assert_eq!(app.deliveries("crm").await.len(), before + 1);
    // The flow is closed, so the next submission is refused before the service is asked.
    let hold_requests = invites.hold_requests();
    let reply = app.pre(&all[3]).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), FORM_USED)]);
    assert_eq!(invites.hold_requests(), hold_requests);
    app.clock.advance(Duration::from_hours(30));
    assert_eq!(app.deliveries("release:invite").await, []);
}

#[tokio::test]
async fn a_refused_submission_does_not_release_the_reservation_of_an_accepted_one() {
    for guarded in [true, false] {
        let (app, invites) = app_with_invites(1).await;
        if guarded {
            app.prove_guard().await;
        }
        let visitor = invited_visitor("a@example.org");
        assert!(app.pre(&visitor).await.is_admitted());
        let garbage = visitor.clone().with_trait("invite", "garbage");
        assert_eq!(app.pre(&garbage).await.status, 400);
        let saved = visitor.saved();
        let saved = if guarded { saved.guarded() } else { saved };
        assert_eq!(app.post(&saved).await.status, 204);
        app.wait_for_delivery("confirm:invite", State::Delivered)
            .await;
        assert_eq!(invites.held_and_confirmed(), (1, 1), "guarded: {guarded}");
        assert_eq!(app.deliveries("release:invite").await, []);
    }
}

#[tokio::test]
async fn the_post_releases_the_reservations_of_other_submissions() {
    let (app, invites) = app_with_invites(1).await;
    app.prove_guard().await;
    let gold = invited_visitor("a@example.org");
    let silver = gold.clone().with_trait("invite", "silver");
    assert!(app.pre(&gold).await.is_admitted());
    assert!(app.pre(&silver).await.is_admitted());
    assert_eq!(invites.held_and_confirmed(), (2, 0));
    app.clock.advance(Duration::from_secs(6));
    assert_eq!(app.post(&silver.saved().guarded()).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn without_a_proven_guard_a_reservation_belongs_to_one_submission() {
    let (app, invites) = app_with_invites(1).await;
    let first = invited_visitor("a@example.org");
    let second = first.clone().with_trait("email", "b@example.org");
    assert!(app.pre(&first).await.is_admitted());
    // Kratos may or may not refuse the first submission, so both can become accounts.
    let reply = app.pre(&second).await;
    assert_eq!(reply.refused()[0].1, TRY_AGAIN);
    // No look-up is possible, so the reservation is not taken over before the flow expires.
    app.clock.advance(Duration::from_mins(30));
    assert_eq!(app.pre(&second).await.refused()[0].1, TRY_AGAIN);
    app.clock.advance(Duration::from_mins(32));
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (0, 0));
}

#[tokio::test]
async fn without_a_proven_guard_a_corrected_form_is_accepted_after_a_look_up() {
    let (app, invites, kratos) = app_with_invites_and_kratos(1).await;
    // An earlier account has this address, so Kratos refuses.
    kratos.add_identity("taken@example.org", "2025-11-23T14:32:52.9Z");
    let taken = invited_visitor("taken@example.org");
    assert!(app.pre(&taken).await.is_admitted());
    let corrected = taken
        .clone()
        .with_trait("email", "free@example.org")
        .with("/identity/verifiable_addresses/0/value", "free@example.org");
    assert_eq!(app.pre(&corrected).await.refused()[0].1, TRY_AGAIN);
    app.clock.advance(Duration::from_secs(11));
    app.wait_for_lookups().await;
    assert!(app.pre(&corrected).await.is_admitted());
    assert_eq!(invites.held_and_confirmed(), (1, 0));
    assert_eq!(app.post(&corrected.saved()).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
    app.clock.advance(Duration::from_hours(3));
    app.wait_for_lookups().await;
    assert_eq!(app.deliveries("release:invite").await, []);
}

#[tokio::test]
async fn an_existing_account_keeps_its_invite_when_the_form_is_submitted_again() {
    let (app, invites, kratos) = app_with_invites_and_kratos(1).await;
    let first = invited_visitor("first@example.org");
    assert!(app.pre(&first).await.is_admitted());
    let id = kratos.add_identity("first@example.org", "2026-11-23T14:32:53.2Z");
    kratos.set_value(id, "/traits/invite", json!("gold"));
    let second = first.clone().with_trait("email", "second@example.org");
    app.clock.advance(Duration::from_secs(11));
    assert_eq!(app.pre(&second).await.status, 400);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn each_submission_has_its_own_deferred_check() {
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    vies.respond_with(503, &json!({}));
    let app = TestApp::with(DEFERS)
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .start()
        .await;
    let bad = |number: &str| {
        payload()
            .with_trait("vat_number", number)
            .with("/identity/state_changed_at", "2026-11-23T14:32:53.1Z")
    };
    let first = bad("BAD1");
    let second = Payload(first.0.clone()).with_trait("vat_number", "BAD2");
    for one in [&first, &second] {
        assert!(app.pre(one).await.is_admitted());
    }
    // Both became accounts, because an old Kratos ignores external ids.
    for one in [&first, &second] {
        let id = kratos.add_identity("x@example.org", "2026-11-23T14:32:54Z");
        let number = one.0["identity"]["traits"]["vat_number"].clone();
        kratos.set_value(id, "/traits/vat_number", number);
        assert_eq!(app.post(&one.clone().saved_as(id)).await.status, 204);
    }
    let mut questions = app.deliveries("deferred-check:vat_number").await;
    assert_eq!(questions.len(), 2);
    questions.dedup_by_key(|one| one.identity_id);
    assert_eq!(questions.len(), 2, "one for each account");
}

#[tokio::test]
async fn each_change_of_a_settings_flow_has_its_own_deferred_check() {
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    vies.respond_with(503, &json!({}));
    let app = TestApp::with(DEFERS)
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .start()
        .await;
    let id = kratos.add_identity("x@example.org", "2026-11-23T14:32:54Z");
    let before = json!({"email": "canary@example.org", "vat_number": "GOOD"});
    let first = payload()
        .changed_from(&before)
        .with_trait("vat_number", "BAD1")
        .saved_as(id);
    let second = Payload(first.0.clone()).with_trait("vat_number", "BAD2");
    for one in [&first, &second] {
        assert!(app.settings(one).await.is_admitted());
    }
    let post = "/hooks/settings/post?method=profile";
    for one in [&first, &second] {
        assert_eq!(app.call(post, one.to_string()).await.status, 204);
    }
    assert_eq!(app.deliveries("deferred-check:vat_number").await.len(), 2);
}

#[tokio::test]
async fn the_twenty_first_submission_of_a_flow_is_refused() {
    let (app, _) = app_with_invites(99).await;
    let visitor = payload();
    for number in 0..20 {
        let one = visitor
            .clone()
            .with_trait("email", format!("{number}@example.org"))
            .with_trait("invite", format!("invite-{number}"));
        assert!(app.pre(&one).await.is_admitted(), "{number}");
    }
    let reply = app.pre(&visitor).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), FORM_USED)]);
    // Another form is accepted.
    assert!(app.pre(&payload()).await.is_admitted());
}

#[tokio::test]
async fn calls_that_kratos_retries_count_as_one_submission() {
    let (app, _) = app_with_invites(99).await;
    let visitor = payload();
    let trigger = Uuid::new_v4().to_string();
    let headers = [
        ("X-Vestibule-Key", crate::support::app::KEY),
        ("Ory-Webhook-Trigger-ID", trigger.as_str()),
    ];
    let path = "/hooks/registration/pre?method=password";
    for _ in 0..3 {
        let reply = app.call_with(path, visitor.to_string(), &headers).await;
        assert!(reply.is_admitted(), "{reply:?}");
    }
    let state = app.app.store.flow(visitor.flow_id()).await.unwrap();
    assert_eq!(state.pending.len(), 1);
}

#[tokio::test]
async fn traits_with_u_0000_are_refused() {
    let app = TestApp::with("checks: {}").start().await;
    for visitor in [
        payload().with_trait("email", "a\u{0}b@example.org"),
        payload().with_trait("address", json!({"city": ["\u{0}"]})),
    ] {
        let reply = app.pre(&visitor).await;
        assert_eq!(reply.refused(), [("#/".to_owned(), NOT_VALID)]);
    }
}

#[tokio::test]
async fn a_look_up_recovers_a_lost_post_within_seconds() {
    let (app, invites, kratos) = app_with_invites_and_kratos(1).await;
    let visitor = invited_visitor("lost@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    let id = kratos.add_identity("lost@example.org", "2026-11-23T14:32:53.2Z");
    kratos.set_value(id, "/external_id", json!(guard_id(visitor.flow_id())));
    kratos.set_value(id, "/traits/invite", json!("gold"));
    app.clock.advance(Duration::from_secs(5));
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
    let deliveries = app.deliveries("crm").await;
    assert_eq!((deliveries.len(), deliveries[0].identity_id), (1, id));
    // The flow is closed, so a late `post` changes nothing.
    assert_eq!(app.pre(&visitor).await.refused()[0].1, FORM_USED);
    let late = visitor.saved_as(id).guarded();
    assert_eq!(app.post(&late).await.status, 204);
    assert_eq!(app.deliveries("crm").await.len(), 1);
    assert_eq!(app.deliveries("confirm:invite").await.len(), 1);
}

#[tokio::test]
async fn an_invite_of_a_guarded_flow_is_released_after_ten_minutes_without_an_account() {
    let (app, invites, kratos) = app_with_invites_and_kratos(1).await;
    app.prove_guard().await;
    let visitor = invited_visitor("missing@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    for step in [5, 25, 90] {
        app.clock.advance(Duration::from_secs(step));
        app.wait_for_lookups().await;
    }
    assert_eq!(invites.held_and_confirmed(), (1, 0));
    kratos.set_down(true);
    app.clock.advance(Duration::from_mins(9));
    app.wait_for_lookups().await;
    assert_eq!(
        invites.held_and_confirmed(),
        (1, 0),
        "Kratos did not answer"
    );
    kratos.set_down(false);
    app.clock.advance(Duration::from_mins(2));
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (0, 0));
}

#[tokio::test]
async fn a_failed_registration_is_delivered_once_for_all_its_submissions() {
    let (app, _invites, _kratos) = app_with_invites_and_kratos(9).await;
    app.prove_guard().await;
    let first = invited_visitor("a@example.org");
    for email in ["a@example.org", "b@example.org", "c@example.org"] {
        let one = first.clone().with_trait("email", email);
        assert!(app.pre(&one).await.is_admitted());
    }
    let crm = app.deliveries("crm").await.len();
    app.clock.advance(Duration::from_mins(11));
    app.wait_for_lookups().await;
    assert_eq!(
        app.deliveries("crm").await.len(),
        crm,
        "the form still works"
    );
    app.clock.advance(Duration::from_mins(55));
    app.eventually("the failure is delivered", async || {
        (app.deliveries("crm").await.len() > crm).then_some(())
    })
    .await;
    app.clock.advance(Duration::from_hours(25));
    app.wait_for_lookups().await;
    assert_eq!(app.deliveries("crm").await.len(), crm + 1);
}

#[tokio::test]
async fn a_post_without_the_external_id_ends_the_proof_of_the_guard() {
    let (app, _) = app_with_invites(9).await;
    app.prove_guard().await;
    let visitor = invited_visitor("a@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    assert_eq!(app.post(&visitor.saved()).await.status, 204);
    assert!(!lines_with("did not return the `external_id`").is_empty());
    // An invite belongs to one submission again.
    let (one, other) = (
        invited_visitor("b@example.org"),
        invited_visitor("c@example.org").with_trait("invite", "gold"),
    );
    let other = other.with("/flow/id", one.flow_id().to_string());
    assert!(app.pre(&one).await.is_admitted());
    assert_eq!(app.pre(&other).await.refused()[0].1, TRY_AGAIN);
}

/// Submits a second time with a `take` that hangs until the account of the first submission is saved. Returns the response.
async fn submit_second_while_first_is_saved(app: &TestApp, invites: &FakeService) -> Reply {
    let hold = json!({"hold_id": "h1"}).to_string();
    invites.set_behaviour_for("POST /invites/gold", Behaviour::Answers(201, hold));
    app.prove_guard().await;
    let first = invited_visitor("a@example.org");
    assert!(app.pre(&first).await.is_admitted());
    invites.set_behaviour_for("POST /invites/silver", Behaviour::Hangs);
    let second = first
        .clone()
        .with_trait("email", "b@example.org")
        .with_trait("invite", "silver");
    let (reply, ()) = tokio::join!(app.pre(&second), async {
        app.eventually("the service is asked", async || {
            let targets = invites.request_lines();
            let is_asked = targets.iter().any(|one| one.contains("silver"));
            is_asked.then_some(())
        })
        .await;
        assert_eq!(app.post(&first.saved().guarded()).await.status, 204);
        // The call that hung is answered with 200.
        invites.release_hanging_calls();
    });
    reply
}

#[tokio::test]
async fn a_submission_releases_its_reservation_if_the_flow_closes_during_its_checks() {
    let invites = FakeService::start();
    let yaml = INVITES.replace("/holds/{taken.body.hold_id}\"}", "/invites/{value}/hold\"}");
    let app = TestApp::with(&yaml)
        .service("INVITES", &invites)
        .start()
        .await;
    let reply = submit_second_while_first_is_saved(&app, &invites).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), FORM_USED)]);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    let step = Duration::from_secs(6);
    app.advance_until("the second invite is released", step, async || {
        let targets = invites.request_lines();
        targets
            .contains(&"DELETE /invites/silver/hold".to_owned())
            .then_some(())
    })
    .await;
}

/// As after a double click: the form itself has used the invite.
#[tokio::test]
async fn a_refusal_after_the_account_is_saved_has_the_message_of_a_used_form() {
    let invites = FakeService::start();
    let app = TestApp::with(&INVITES.replace("{when: 409,", "{when: 200,"))
        .service("INVITES", &invites)
        .start()
        .await;
    let reply = submit_second_while_first_is_saved(&app, &invites).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), FORM_USED)]);
}

#[tokio::test]
async fn only_sign_ups_that_must_be_recorded_are_refused_while_the_database_fails() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let invites = FakeInvites::with_uses(9);
    let app = TestApp::with(INVITES)
        .env("INVITES", &invites.url())
        .store(store.clone())
        .start()
        .await;
    store.set_failing(true);
    let hold_requests = invites.hold_requests();
    assert_eq!(
        app.pre(&invited_visitor("a@example.org")).await.refused()[0].1,
        TRY_AGAIN
    );
    assert_eq!(
        invites.hold_requests(),
        hold_requests,
        "nothing is reserved without a record"
    );
    // Without an invite nothing must be recorded.
    let plain = payload().without("/identity/traits/invite");
    assert!(app.pre(&plain).await.is_admitted());
}

#[tokio::test]
async fn an_account_without_a_recorded_sign_up_raises_an_alarm_and_leaves_a_dead_letter() {
    let (app, _) = app_with_invites(9).await;
    let alarms = "vestibule_lost_posts_total{reason=\"not_recorded\"}";
    // A sign-up from before the check came into force is not reported.
    assert_eq!(
        app.post(&invited_visitor("old@example.org").saved())
            .await
            .status,
        204
    );
    assert!(app.metric(alarms).await < 0.1);
    app.clock.advance(Duration::from_mins(11));
    let unseen = invited_visitor("unseen@example.org").saved();
    assert_eq!(app.post(&unseen).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Abandoned)
        .await;
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
    // The check is not applicable to this sign-up.
    let plain = payload().without("/identity/traits/invite").saved();
    assert_eq!(app.post(&plain).await.status, 204);
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_post_with_traits_that_a_later_hook_changed_is_attributed_to_the_only_submission() {
    let (app, invites) = app_with_invites(1).await;
    app.prove_guard().await;
    let visitor = invited_visitor("a@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    let changed = visitor.with_trait("company", "another").saved().guarded();
    assert_eq!(app.post(&changed).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn no_reservation_is_released_if_the_traits_match_none_of_several_submissions() {
    let (app, invites) = app_with_invites(1).await;
    app.prove_guard().await;
    let gold = invited_visitor("a@example.org");
    let silver = gold.clone().with_trait("invite", "silver");
    assert!(app.pre(&gold).await.is_admitted());
    assert!(app.pre(&silver).await.is_admitted());
    let changed = gold.clone().with_trait("company", "another");
    assert_eq!(app.post(&changed.saved().guarded()).await.status, 204);
    let dead = app.deliveries("confirm:invite").await;
    assert_eq!(dead.len(), 2);
    assert!(dead.iter().all(|one| one.state == State::Abandoned));
    app.clock.advance(Duration::from_hours(30));
    assert_eq!(app.deliveries("release:invite").await, []);
    assert_eq!(invites.held_and_confirmed(), (2, 0));
}

#[tokio::test]
async fn a_post_repeated_after_a_restart_changes_nothing() {
    for guarded in [true, false] {
        let (app, invites) = app_with_invites(1).await;
        if guarded {
            app.prove_guard().await;
        }
        let visitor = invited_visitor("a@example.org");
        assert!(app.pre(&visitor).await.is_admitted());
        let saved = visitor.saved();
        let saved = if guarded { saved.guarded() } else { saved };
        assert_eq!(app.post(&saved).await.status, 204);
        app.wait_for_delivery("confirm:invite", State::Delivered)
            .await;
        let crm = app.deliveries("crm").await.len();
        let (folder, now) = app.stop().await;
        let app = TestApp::with(INVITES)
            .env("INVITES", &invites.url())
            .in_folder(&folder, now + Duration::from_mins(20))
            .start()
            .await;
        assert_eq!(app.post(&saved).await.status, 204);
        assert_eq!(app.deliveries("crm").await.len(), crm);
        assert_eq!(app.deliveries("confirm:invite").await.len(), 1);
        assert_eq!(invites.held_and_confirmed(), (1, 1), "guarded: {guarded}");
        let alarms = app.admin_get("/metrics").await.text;
        let alarms = alarms
            .lines()
            .filter(|line| line.starts_with("vestibule_lost_posts_total"));
        assert_eq!(alarms.count(), 0);
    }
}

#[tokio::test]
async fn a_second_tab_gets_the_invite_after_the_first_one_is_released() {
    let (app, invites, _kratos) = app_with_invites_and_kratos(1).await;
    app.prove_guard().await;
    let (one, other) = (
        invited_visitor("a@example.org"),
        invited_visitor("b@example.org"),
    );
    assert!(app.pre(&one).await.is_admitted());
    let reply = app.pre(&other).await;
    assert_eq!(reply.messages()[0].2, "This invite is used up.");
    for step in [5, 25, 90, 481] {
        app.clock.advance(Duration::from_secs(step));
        app.wait_for_lookups().await;
    }
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    let state = app.app.store.flow(one.flow_id()).await.unwrap();
    assert_eq!(state.pending[0].state, PendingState::NeverCreated);
    assert!(app.pre(&other).await.is_admitted());
    assert_eq!(invites.held_and_confirmed(), (1, 0));
}

/// Without an `external_id`, the address of a visitor leads the look-up of one submission to the account of another one.
#[tokio::test]
async fn an_account_of_another_submission_of_the_form_ends_this_one() {
    let (app, invites, _kratos) = {
        let (invites, kratos) = (FakeInvites::with_uses(1), FakeKratos::start());
        let yaml = format!(
            "kratos: {{admin_url: \"${{env:KRATOS}}\", use_external_id: never}}\n{INVITES}"
        );
        let app = TestApp::with(&yaml)
            .env("INVITES", &invites.url())
            .kratos("KRATOS", &kratos)
            .start()
            .await;
        let id = kratos.add_identity("a@example.org", "2026-11-23T14:32:53.2Z");
        kratos.set_value(id, "/traits/invite", json!("gold"));
        let gold = invited_visitor("a@example.org");
        let silver = gold.clone().with_trait("invite", "silver");
        assert!(app.pre(&gold).await.is_admitted());
        assert!(app.pre(&silver).await.is_admitted());
        assert_eq!(app.post(&gold.saved_as(id)).await.status, 204);
        (app, invites, kratos)
    };
    assert_eq!(invites.held_and_confirmed().0, 2);
    // A running attempt would time out when the clock advances.
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    app.clock.advance(Duration::from_mins(70));
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
}

/// A hook behind Vestibule's replaces the id of some accounts only.
#[tokio::test]
async fn a_post_with_the_external_id_proves_nothing_for_a_day_after_one_without_it() {
    let (app, _) = app_with_invites(99).await;
    app.prove_guard().await;
    let company = invited_visitor("company@example.org");
    assert!(app.pre(&company).await.is_admitted());
    assert_eq!(app.post(&company.saved()).await.status, 204);
    let mut number = 0;
    let mut shares_a_reservation = async || {
        app.prove_guard().await;
        number += 1;
        let one =
            invited_visitor("one@example.org").with_trait("invite", format!("invite-{number}"));
        let other = one.clone().with_trait("email", "other@example.org");
        assert!(app.pre(&one).await.is_admitted());
        app.pre(&other).await.is_admitted()
    };
    assert!(!shares_a_reservation().await);
    app.clock.advance(Duration::from_hours(23));
    assert!(!shares_a_reservation().await);
    app.clock.advance(Duration::from_hours(2));
    assert!(shares_a_reservation().await);
}

/// Lets Kratos save a visitor without the `external_id` of Vestibule. Returns the body of `post`.
fn save_unguarded(kratos: &FakeKratos, visitor: &Payload) -> (Uuid, Payload) {
    let traits = visitor.0["identity"]["traits"].clone();
    let email = traits["email"].as_str().expect("an address");
    let id = kratos.add_identity(email, "2026-11-23T14:32:53.5Z");
    kratos.set_value(id, "/traits", traits);
    (id, visitor.clone().saved_as(id))
}

/// As with a Kratos before v25.4.0, or with a hook behind Vestibule's that replaces the id.
#[tokio::test]
async fn every_submission_is_looked_up_by_its_own_address_until_the_guard_is_proven() {
    for saved_is_second in [true, false] {
        let (app, invites, kratos) = app_with_invites_and_kratos(9).await;
        let first = invited_visitor("first@example.org");
        let second = invited_visitor("second@example.org")
            .with("/flow/id", first.flow_id().to_string())
            .with_trait("invite", "silver");
        for one in [&first, &second] {
            assert!(app.pre(one).await.is_admitted());
            app.clock.advance(Duration::from_millis(10));
        }
        save_unguarded(&kratos, if saved_is_second { &second } else { &first });
        for step in [6, 25, 90, 500] {
            app.clock.advance(Duration::from_secs(step));
            app.wait_for_lookups().await;
        }
        app.wait_for_delivery("confirm:invite", State::Delivered)
            .await;
        // Kratos can still save the other submission.
        assert_eq!(invites.held_and_confirmed(), (2, 1));
        app.clock.advance(Duration::from_secs(4000));
        app.wait_for_delivery("release:invite", State::Delivered)
            .await;
        assert_eq!(invites.held_and_confirmed(), (1, 1));
        let events: Vec<_> = app.deliveries("crm").await;
        let events: Vec<_> = events.iter().map(|one| one.event.as_str()).collect();
        assert_eq!(events, ["identity.created"], "second: {saved_is_second}");
    }
}

#[tokio::test]
async fn an_account_is_reported_once_although_its_write_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let invites = FakeInvites::with_uses(9);
    let app = TestApp::with(INVITES)
        .env("INVITES", &invites.url())
        .store(store.clone())
        .start()
        .await;
    app.clock.advance(Duration::from_mins(11));
    store.set_conflicts(2);
    let unseen = invited_visitor("unseen@example.org").saved();
    assert_eq!(app.post(&unseen).await.status, 204);
    let alarms = "vestibule_lost_posts_total{reason=\"not_recorded\"}";
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
    let id = unseen.0["identity"]["id"].as_str().unwrap();
    let alarms = lines_with(id);
    let alarms = alarms.iter().filter(|line| line.contains("ALARM"));
    assert_eq!(alarms.count(), 1);
}

/// Without an `external_id`, a look-up of an earlier form of the same visitor can find the account before its `post` arrives.
#[tokio::test]
async fn a_post_confirms_nothing_more_for_an_account_that_belongs_to_another_form() {
    let (invites, kratos) = (FakeInvites::with_uses(2), FakeKratos::start());
    let yaml = INVITES.replace(
        "[identity.created]",
        "[identity.created, registration.failed]",
    );
    let yaml =
        format!("kratos: {{admin_url: \"${{env:KRATOS}}\", use_external_id: never}}\n{yaml}");
    let app = TestApp::with(&yaml)
        .env("INVITES", &invites.url())
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    let abandoned = invited_visitor("a@example.org");
    let saved = abandoned
        .clone()
        .with("/flow/id", Uuid::new_v4().to_string());
    assert!(app.pre(&abandoned).await.is_admitted());
    app.clock.advance(Duration::from_secs(3));
    assert!(app.pre(&saved).await.is_admitted());
    let (_, saved) = save_unguarded(&kratos, &saved);
    app.clock.advance(Duration::from_millis(2500));
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    assert_eq!(app.post(&saved).await.status, 204);
    app.clock.advance(Duration::from_mins(70));
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    app.wait_for_lookups().await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
    assert_eq!(app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn a_shared_reservation_is_confirmed_for_an_account_without_the_external_id() {
    let (app, invites, kratos) = app_with_invites_and_kratos(1).await;
    app.prove_guard().await;
    let first = invited_visitor("taken@example.org");
    let second = invited_visitor("free@example.org").with("/flow/id", first.flow_id().to_string());
    assert!(app.pre(&first).await.is_admitted());
    assert!(app.pre(&second).await.is_admitted());
    // A hook behind Vestibule's replaces the id since a moment ago.
    let (id, saved) = save_unguarded(&kratos, &second);
    kratos.set_value(id, "/external_id", json!("crm-7"));
    let saved = saved.with("/identity/external_id", "crm-7");
    assert_eq!(app.post(&saved).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    for step in [6, 25, 90, 500, 4000] {
        app.clock.advance(Duration::from_secs(step));
        app.wait_for_lookups().await;
    }
    assert_eq!(app.deliveries("release:invite").await, []);
    assert_eq!(invites.held_and_confirmed(), (1, 1));
    let deliveries = app.deliveries("crm").await;
    let of_account = deliveries.iter().filter(|one| one.identity_id == id);
    assert_eq!(of_account.count(), 1);
    // The guard is no longer proven.
    let (one, other) = (
        invited_visitor("b@example.org").with_trait("invite", "silver"),
        invited_visitor("c@example.org").with_trait("invite", "silver"),
    );
    let other = other.with("/flow/id", one.flow_id().to_string());
    assert!(app.pre(&one).await.is_admitted());
    assert_eq!(app.pre(&other).await.refused()[0].1, TRY_AGAIN);
}

#[tokio::test]
async fn a_second_account_that_used_a_shared_reservation_leaves_a_dead_letter() {
    let (app, invites, kratos) = app_with_invites_and_kratos(1).await;
    app.prove_guard().await;
    let first = invited_visitor("first@example.org");
    let second =
        invited_visitor("second@example.org").with("/flow/id", first.flow_id().to_string());
    for one in [&first, &second] {
        assert!(app.pre(one).await.is_admitted());
    }
    // Kratos saves both, because a hook behind Vestibule's removes the id.
    for one in [&first, &second] {
        let (_, saved) = save_unguarded(&kratos, one);
        assert_eq!(app.post(&saved).await.status, 204);
    }
    app.eventually(
        "one account has the invite, the other one is reported",
        async || {
            let all = app.deliveries("confirm:invite").await;
            let count = |state: State| all.iter().filter(|one| one.state == state).count();
            (count(State::Abandoned) == 1 && count(State::Delivered) == 1).then_some(())
        },
    )
    .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn a_second_account_of_a_closed_form_is_delivered_and_raises_an_alarm() {
    let (app, invites, kratos) = app_with_invites_and_kratos(1).await;
    app.prove_guard().await;
    let first = invited_visitor("first@example.org");
    let second =
        invited_visitor("second@example.org").with("/flow/id", first.flow_id().to_string());
    for one in [&first, &second] {
        assert!(app.pre(one).await.is_admitted());
    }
    let (_, saved) = save_unguarded(&kratos, &first);
    assert_eq!(app.post(&saved.guarded()).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    // Another system replaces the `external_id` of the account, so Kratos saves the second submission too.
    let (id, saved) = save_unguarded(&kratos, &second);
    assert_eq!(app.post(&saved.guarded()).await.status, 204);
    let deliveries = app.deliveries("crm").await;
    let of_account = deliveries.iter().filter(|one| one.identity_id == id);
    assert_eq!(of_account.count(), 1);
    let alarms = lines_with(&id.to_string());
    assert!(alarms.iter().any(|line| line.contains("ALARM")));
    let alarms = "vestibule_lost_posts_total{reason=\"second_identity\"}";
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
    let confirmations = app.deliveries("confirm:invite").await;
    let of_second = |one: &&DeliverySummary| one.identity_id == id;
    let states: Vec<State> = confirmations
        .iter()
        .filter(of_second)
        .map(|one| one.state)
        .collect();
    assert_eq!(states, [State::Abandoned]);
    assert_eq!(invites.held_and_confirmed(), (1, 1));
}

/// Without a check that reserves, the record of the form is not read before the account is stored.
#[tokio::test]
async fn a_second_account_of_a_closed_form_is_delivered_without_reservations() {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let yaml = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:CRM}/created"}}
"#;
    let app = TestApp::with(yaml)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    let form = payload();
    for _ in 0..2 {
        let saved = form.clone().saved().guarded();
        assert_eq!(app.post(&saved).await.status, 204);
    }
    assert_eq!(app.deliveries("crm").await.len(), 2);
}
