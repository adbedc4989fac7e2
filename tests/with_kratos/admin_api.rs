//! The identities that Kratos keeps, as its admin API tells of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::base::clock::Clock;
use vestibule::base::telemetry::Metrics;
use vestibule::outbound::kratos_admin::{Error, KratosAdmin, PAGE, patch, service};
use vestibule::outbound::services::client::Services;

use crate::support::{TestEnv, company};

pub async fn identities_are_looked_up_paged_through_and_written_to() {
    let house = TestEnv::open().await;
    let clock = Clock::system();
    let url = house.kratos.admin.parse().expect("a URL");
    let services = Services::new(
        vec![service(url, None)],
        clock.clone(),
        Arc::new(Metrics::new()),
    );
    let identities = KratosAdmin::new(Arc::new(services.expect("a client")), clock);

    // More than two pages.
    let number = usize::try_from(PAGE).expect("small") * 2 + 7;
    let made: Vec<Value> = (0..number)
        .map(|number| {
            let mut identity =
                json!({"schema_id": "company", "traits": company().nested()["traits"]});
            if number == 0 {
                identity["external_id"] = json!("theirs/1");
            }
            identity
        })
        .collect();
    house.kratos.import(&made).await;

    let mut seen = Vec::new();
    let mut from = None;
    loop {
        let page = identities.page(from.as_deref()).await.expect("a page");
        seen.extend(page.identities);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let emails = |all: &[Value]| -> BTreeSet<String> {
        all.iter()
            .map(|one| {
                one["traits"]["email"]
                    .as_str()
                    .expect("an address")
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(seen.len(), number);
    assert_eq!(emails(&seen), emails(&made));

    // A token that it did not make, or does not know any more.
    let lost = identities.page(Some("of-another-time")).await;
    assert_eq!(lost, Err(Error::Status(400)));

    let external = identities.with_external_id("theirs/1").await.expect("told");
    let one = external.expect("it is there");
    let id = Uuid::parse_str(one["id"].as_str().expect("an id")).expect("a UUID");
    assert_eq!(one["traits"], made[0]["traits"]);
    assert_eq!(identities.with_external_id("theirs/2").await, Ok(None));
    assert_eq!(identities.get(id).await, Ok(Some(one.clone())));
    assert_eq!(identities.get(Uuid::from_u128(7)).await, Ok(None));

    // Only identifiers of credentials are found, however they are written; these identities have none yet.
    let person = house
        .visitor(crate::support::Client::Api)
        .signs_up(&company().by_password())
        .await;
    let email = person["traits"]["email"].as_str().expect("an address");
    for written in [email.to_owned(), email.to_uppercase()] {
        let found = identities.with_identifier(&written).await.expect("told");
        assert_eq!(found.len(), 1, "{written}");
        assert_eq!(found[0]["id"], person["id"]);
    }
    assert_eq!(
        identities.with_identifier("nobody+else@example.org").await,
        Ok(Vec::new())
    );

    // Twice, because the second time the way is there already.
    for value in [json!(1), json!("two")] {
        let now = identities
            .get(id)
            .await
            .expect("told")
            .expect("it is there");
        let step = patch::add(&now, &["metadata_admin", "crm", "id"], &value);
        let step = step.expect("something to do");
        assert_eq!(identities.patch(id, &[step]).await, Ok(true));
        let now = identities
            .get(id)
            .await
            .expect("told")
            .expect("it is there");
        assert_eq!(now["metadata_admin"], json!({"crm": {"id": value}}));
        assert_eq!(now["traits"], one["traits"]);
    }
    let inactive = patch::Operation::put(&["state"], json!("inactive"));
    assert_eq!(
        identities.patch(id, std::slice::from_ref(&inactive)).await,
        Ok(true)
    );
    let now = identities
        .get(id)
        .await
        .expect("told")
        .expect("it is there");
    assert_eq!(now["state"], "inactive");
    assert_eq!(
        identities.patch(Uuid::from_u128(7), &[inactive]).await,
        Ok(false)
    );
}
