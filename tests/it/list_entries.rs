//! `write_back` into an entry of a list changes the entry only if it is still the entry of the event.

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::model::delivery::State;

use crate::support::{FakeKratos, FakeService, TestApp, payload};

struct TestEnv {
    app: TestApp,
    kratos: FakeKratos,
    id: Uuid,
}

/// Signs up with these projects. When the CRM answers, the identity has `projects_now`.
async fn signed_up(write_back: &str, projects: &Value, projects_now: &Value) -> TestEnv {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    crm.respond_with(200, &json!({"id": "s-7", "plan": {"name": "gold"}}));
    let yaml = format!(
        "kratos: {{admin_url: \"${{env:KRATOS}}\"}}\n\
         subscriptions: {{crm: {{events: [identity.created], send: {{post: \"${{env:CRM}}/x\"}}, write_back: {write_back}}}}}"
    );
    let app = TestApp::with(&yaml)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    let id = kratos.add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    kratos.set_value(id, "/traits/projects", projects_now.clone());
    let body = payload()
        .saved_as(id)
        .with_trait("projects", projects.clone());
    assert_eq!(app.post(&body).await.status, 204);
    TestEnv { app, kratos, id }
}

#[tokio::test]
async fn an_entry_as_in_the_event_gets_the_key() {
    let one = json!({"name": "canary-a"});
    let two = json!({"name": "canary-b", "tags": ["x"], "size": 9_007_199_254_740_993_i64});
    // Jsonnet rounds the numbers of the event.
    let two_in_event =
        json!({"name": "canary-b", "tags": ["x"], "size": 9_007_199_254_740_992_i64});
    for (write_back, expected) in [
        (
            r#"{traits.projects.0.subject_id: "{response.body.id}"}"#,
            json!([{"name": "canary-a", "subject_id": "s-7"}, two]),
        ),
        (
            r#"{traits.projects.1.subject_id: "{response.body.id}"}"#,
            json!([one, {"name": "canary-b", "tags": ["x"], "size": 9_007_199_254_740_993_i64, "subject_id": "s-7"}]),
        ),
        (
            r#"{traits.projects.0.crm.id: "{response.body.id}", traits.projects.0.plan: "{response.body.plan}"}"#,
            json!([{"name": "canary-a", "crm": {"id": "s-7"}, "plan": {"name": "gold"}}, two]),
        ),
        (
            r#"{traits.projects.1.tags.0: "{response.body.id}"}"#,
            json!([one, {"name": "canary-b", "tags": ["s-7"], "size": 9_007_199_254_740_993_i64}]),
        ),
        (
            r#"{traits.projects.0: {id: "{response.body.id}"}, metadata_admin.crm: "{response.body.id}"}"#,
            json!([{"id": "s-7"}, two]),
        ),
    ] {
        let (in_event, now) = (json!([one, two_in_event]), json!([one, two]));
        let env = signed_up(write_back, &in_event, &now).await;
        env.app
            .wait_for_delivery("write-back:crm", State::Delivered)
            .await;
        assert_eq!(
            env.kratos.identity(env.id)["traits"]["projects"],
            expected,
            "{write_back}"
        );
        let crm = &env.kratos.identity(env.id)["metadata_admin"]["crm"];
        assert_eq!(
            *crm == "s-7",
            write_back.contains("metadata_admin"),
            "{write_back}"
        );
    }
}

#[tokio::test]
async fn another_entry_at_this_place_is_left_alone() {
    let in_event = json!([{"name": "canary-a"}, {"name": "canary-b"}]);
    for now in [
        // Changed, moved, removed, not a list any more.
        json!([{"name": "canary-a", "size": 2}, {"name": "canary-b"}]),
        json!([{"name": "canary-b"}, {"name": "canary-a"}]),
        json!([]),
        json!({"0": {"name": "canary-a"}}),
        json!([{"name": "canary-a", "subject_id": "of another"}, {"name": "canary-b"}]),
        json!(["canary-a"]),
        Value::Null,
    ] {
        let write_back = r#"{traits.projects.0.subject_id: "{response.body.id}"}"#;
        let env = signed_up(write_back, &in_event, &now).await;
        let kept = env
            .app
            .wait_for_delivery("write-back:crm", State::Abandoned)
            .await;
        let error = kept.last_error.expect("a reason");
        assert!(
            error.contains("the entry `traits.projects.0` is not the entry of the event any more"),
            "{error}"
        );
        assert_eq!(env.kratos.identity(env.id)["traits"]["projects"], now);
        assert_eq!(env.kratos.patch_count(env.id), 0);
    }
}

#[tokio::test]
async fn an_entry_that_the_event_does_not_have_is_reported() {
    for (in_event, write_back) in [
        (
            json!([{"name": "canary-a"}]),
            "traits.projects.1.subject_id",
        ),
        (json!([]), "traits.projects.0.subject_id"),
        (json!(["canary-a"]), "traits.projects.0.subject_id"),
    ] {
        let keys = format!("{{{write_back}: \"{{response.body.id}}\"}}");
        let env = signed_up(&keys, &in_event, &in_event).await;
        let kept = env
            .app
            .wait_for_delivery("write-back:crm", State::Abandoned)
            .await;
        let error = kept.last_error.expect("a reason");
        assert!(
            error.contains("the identity of the event has no entry"),
            "{error}"
        );
        assert_eq!(env.kratos.identity(env.id)["traits"]["projects"], in_event);
    }
}

#[tokio::test]
async fn a_list_is_never_replaced_by_an_object() {
    // The event has no list, and the identity has one now.
    for (write_back, in_event) in [
        ("traits.projects.0.subject_id", Value::Null),
        ("traits.projects.0.subject_id", json!({})),
        ("traits.projects.subject_id", json!([{"name": "canary-a"}])),
    ] {
        let now = json!([{"name": "canary-a"}]);
        let keys = format!("{{{write_back}: \"{{response.body.id}}\"}}");
        let env = signed_up(&keys, &in_event, &now).await;
        env.app
            .wait_for_delivery("write-back:crm", State::Abandoned)
            .await;
        assert_eq!(env.kratos.identity(env.id)["traits"]["projects"], now);
    }
}
