//! The client of Kratos's admin API, against a real Kratos.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::base::clock::Clock;
use vestibule::base::telemetry::Metrics;
use vestibule::outbound::kratos_admin::{Error, KratosAdmin, PAGE, patch, service};
use vestibule::outbound::services::client::Services;

use crate::support::{TestEnv, company};

#[expect(
    clippy::too_many_lines,
    reason = "one identity through all calls of the admin API"
)]
pub async fn vestibule_finds_lists_and_changes_identities() {
    let env = TestEnv::start().await;
    let clock = Clock::system();
    let url = env.kratos.admin.parse().expect("a URL");
    let services = Services::new(
        vec![service(url, None)],
        clock.clone(),
        Arc::new(Metrics::new()),
    );
    let identities = KratosAdmin::new(Arc::new(services.expect("the HTTP client builds")), clock);

    // More than two pages.
    let number = usize::try_from(PAGE).expect("small") * 2 + 7;
    let created: Vec<Value> = (0..number)
        .map(|number| {
            let mut identity =
                json!({"schema_id": "company", "traits": company().nested()["traits"]});
            if number == 0 {
                identity["external_id"] = json!("theirs/1");
            }
            identity
        })
        .collect();
    env.kratos.import(&created).await;

    let mut seen = Vec::new();
    let mut from = None;
    for _ in 0..=number {
        let page = identities.page(from.as_deref()).await.expect("a page");
        seen.extend(page.identities);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(from, None, "the last page has no next one");
    let emails = |all: &[Value]| -> BTreeSet<String> {
        all.iter()
            .map(|identity| {
                identity["traits"]["email"]
                    .as_str()
                    .expect("an address")
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(seen.len(), number);
    assert_eq!(emails(&seen), emails(&created));

    // Kratos rejects a page token that it did not create or that has expired.
    let rejected = identities.page(Some("of-another-time")).await;
    assert_eq!(rejected, Err(Error::Status(400)));

    let external = identities
        .with_external_id("theirs/1")
        .await
        .expect("Kratos answers");
    let identity = external.expect("the identity exists");
    let id = Uuid::parse_str(identity["id"].as_str().expect("an id")).expect("a UUID");
    assert_eq!(identity["traits"], created[0]["traits"]);
    assert_eq!(identities.with_external_id("theirs/2").await, Ok(None));
    assert_eq!(identities.get(id).await, Ok(Some(identity.clone())));
    assert_eq!(identities.get(Uuid::from_u128(7)).await, Ok(None));

    // Kratos finds only identifiers of credentials, in any letter case. The imported identities have no credentials.
    let signed_up = env
        .visitor(crate::support::Client::Api)
        .sign_up(&company().by_password())
        .await;
    let email = signed_up["traits"]["email"].as_str().expect("an address");
    for written in [email.to_owned(), email.to_uppercase()] {
        let found = identities
            .with_identifier(&written)
            .await
            .expect("Kratos answers");
        assert_eq!(found.len(), 1, "{written}");
        assert_eq!(found[0]["id"], signed_up["id"]);
    }
    assert_eq!(
        identities.with_identifier("nobody+else@example.org").await,
        Ok(Vec::new())
    );

    // Twice, because the parent object exists the second time.
    for value in [json!(1), json!("two")] {
        let now = identities
            .get(id)
            .await
            .expect("Kratos answers")
            .expect("the identity exists");
        let operation = patch::add(&now, &["metadata_admin", "crm", "id"], &value);
        let operation = operation.expect("an operation");
        let patched = identities.patch(id, &[operation]).await;
        let patched = patched.expect("Kratos answers");
        let now = identities
            .get(id)
            .await
            .expect("Kratos answers")
            .expect("the identity exists");
        let patched = patched.expect("the identity exists");
        for part in ["id", "traits", "state", "schema_id", "updated_at"] {
            assert_eq!(patched[part], now[part], "{part}");
        }
        assert_eq!(now["metadata_admin"], json!({"crm": {"id": value}}));
        assert_eq!(now["traits"], identity["traits"]);
    }
    let inactive = patch::Operation::set(&["state"], json!("inactive"));
    let patched = identities.patch(id, std::slice::from_ref(&inactive)).await;
    assert!(matches!(patched, Ok(Some(_))), "{patched:?}");
    let now = identities
        .get(id)
        .await
        .expect("Kratos answers")
        .expect("the identity exists");
    assert_eq!(now["state"], "inactive");
    assert_eq!(
        identities.patch(Uuid::from_u128(7), &[inactive]).await,
        Ok(None)
    );
}
