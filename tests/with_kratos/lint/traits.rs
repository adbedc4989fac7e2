//! Traits that grant rights.

use serde_json::json;

use super::scene::{Scene, Seen};
use crate::support::fields::Fields;
use crate::support::test_env::{KEY, NEXT_KEY};
use crate::support::{Client, company};

const IS_ADMIN: &str = "traits.is_admin";
const NOT_AN_ADMINISTRATOR: u64 = 4_900_106;

/// A visitor writes any trait of the schema, at sign-up and in settings, unless a check refuses.
pub async fn a_visitor_makes_itself_an_administrator_without_a_check() {
    let mut scene = Scene::start().await;
    scene.env.kratos.change_schema(|schema| {
        let traits = &mut schema["properties"]["traits"]["properties"];
        traits["is_admin"] = json!({"type": "boolean", "title": "Administrator"});
    });
    let said = scene.report().assert_reports("unchecked-right");
    assert!(said.contains("`traits.is_admin`"), "{said}");
    let as_admin = || company().with(IS_ADMIN, true);
    let mut visitor = scene.env.visitor(Client::Api);
    let identity = visitor.sign_up(&as_admin().by_password()).await;
    assert_eq!(identity["traits"]["is_admin"], true);
    let typed = company();
    let mut visitor = scene.env.visitor(Client::Api);
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let change: Fields = typed.clone().with(IS_ADMIN, true).by_profile();
    visitor
        .settings()
        .await
        .submit(&change)
        .await
        .assert_saved();
    let id = identity["id"].as_str().expect("an id");
    let stored = scene.env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["is_admin"], true);

    let vestibule = &mut scene.env.vestibule;
    let keys = [NEXT_KEY, KEY];
    vestibule
        .restart_with_settings("lint/rights.yaml", keys, None)
        .await;
    scene.report().assert_clean();
    let refused = Seen::Refused(vec![NOT_AN_ADMINISTRATOR]);
    assert_eq!(scene.sign_up(&as_admin()).await, refused);
    let typed = company();
    let mut visitor = scene.env.visitor(Client::Api);
    visitor.sign_up(&typed.clone().by_password()).await;
    let change = typed.with(IS_ADMIN, true).by_profile();
    let response = visitor.settings().await.submit(&change).await;
    assert_eq!(Seen::of(&response), refused);
}
