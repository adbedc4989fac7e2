//! What happens through the admin API of a real Kratos, without a hook.

use serde_json::{Value, json};

use crate::support::fields::{EMAIL, VAT_NUMBER};
use crate::support::visitor::Visitor;
use crate::support::{Client, TestEnv, company, eventually};

/// What `write_back` writes into every identity.
const WRITTEN: &str = "Muster GmbH & Co. KG";

/// Signs a visitor up, and waits until Vestibule has written into the identity.
async fn sign_up(env: &TestEnv) -> (Visitor, Value) {
    let mut visitor = env.visitor(Client::Api);
    let id = visitor.sign_up(&company().by_password()).await["id"].clone();
    let created = env.crm.next().await.body;
    assert_eq!(created["type"], "identity.created");
    assert_eq!(created["data"]["identity"]["id"], id);
    eventually("Vestibule writes into the identity", async || {
        let identity = env.kratos.identity(text(&id)).await;
        (identity["traits"]["company"] == WRITTEN).then_some(())
    })
    .await;
    (visitor, id)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

pub async fn vestibule_delivers_changes_and_deletions_of_the_admin_api_once() {
    let env = TestEnv::builder()
        .with_settings("unreported.yaml")
        .start()
        .await;
    eventually("the first round has ended", async || {
        let log_text = env.vestibule.log_text();
        log_text.contains("are known now").then_some(())
    })
    .await;
    let (visitor, saved) = sign_up(&env).await;
    let (_, changed) = sign_up(&env).await;
    let (_, deactivated) = sign_up(&env).await;
    let (_, deleted) = sign_up(&env).await;

    // A visitor saves a change, which its hook reports.
    let typed = company();
    let by_profile = env.kratos.identity(text(&saved)).await;
    let by_profile = company()
        .with(EMAIL, text(&by_profile["traits"]["email"]))
        .with(VAT_NUMBER, typed.text(VAT_NUMBER))
        .by_profile();
    let mut flow = visitor.settings().await;
    flow.submit(&by_profile).await.assert_saved();
    let updated = env.crm.next().await.body;
    assert_eq!(updated["type"], "identity.updated");
    assert_eq!(updated["data"]["identity"]["id"], saved);

    let number = company();
    let number = number.text(VAT_NUMBER);
    env.kratos
        .set_trait(text(&changed), "vat_number", number)
        .await;
    env.kratos.set_state(text(&deactivated), "inactive").await;
    env.kratos.delete(text(&deleted)).await;

    // Reconciliation leaves a change of the last seconds to its hook. What Vestibule wrote itself is not reported.
    let listed = eventually("reconciliation finds what no hook reported", async || {
        let listed = env.vestibule.run_command(&["reconcile", "--dry-run"]);
        let expected = "Would store 0 deliveries that Vestibule missed, 2 deliveries of changes that no hook reported, 1 delivery \
                        of `identity.deleted`, and";
        listed.contains(expected).then_some(listed)
    })
    .await;
    for line in [
        format!("changed  {}  crm", text(&changed)),
        format!("changed  {}  crm", text(&deactivated)),
        format!("deletion  {}  erasure", text(&deleted)),
    ] {
        assert!(listed.contains(&line), "{line} in {listed}");
    }
    let output = env.vestibule.run_command(&["reconcile"]);
    assert!(
        output.contains("Stored 2 deliveries of changes that no hook reported. Stored 1 delivery of `identity.deleted`."),
        "{output}"
    );
    let output = env.vestibule.run_command(&["reconcile"]);
    assert!(output.ends_with("Nothing was missing.\n"), "{output}");

    // The running program claims them within a minute, or immediately when another delivery is stored.
    env.visitor(Client::Api)
        .sign_up(&company().by_password())
        .await;
    let mut events = Vec::new();
    for _ in 0..4 {
        let body = env.crm.next().await.body;
        events.push((text(&body["type"]).to_owned(), body["data"].clone()));
    }
    let of = |event: &str, id: &Value| {
        let mut events = events.iter();
        let found = events.find(|(name, data)| name == event && data["identity"]["id"] == *id);
        found.expect("an event").1.clone()
    };
    let traits = of("identity.updated", &changed)["identity"]["traits"].clone();
    assert_eq!((&traits["vat_number"], &traits["company"]), (&json!(number), &json!(WRITTEN)));
    let state = of("identity.updated", &deactivated)["identity"]["state"].clone();
    assert_eq!(state, "inactive");
    assert_eq!(
        of("identity.deleted", &deleted),
        json!({"identity": {"id": deleted}, "previous": null})
    );
    assert_eq!(env.crm.received().len(), 4 + 1 + 4, "each event once");
}
