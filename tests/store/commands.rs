//! The commands `vestibule deliveries …`.

use std::path::Path;

use uuid::Uuid;
use vestibule::cli::decisions;
use vestibule::cli::deliveries::{self, Confirmation};
use vestibule::config::{self, Environment};
use vestibule::model::delivery::{Outcome, State};
use vestibule::store::admin::{self, RetryWindows};
use vestibule::store::{Database, DecisionStore, DeliveryStore, Filter, sqlite};

use crate::fixtures::{
    DAY, DeliveryStoreExt as _, MINUTE, SECOND, TempFolder, at, decision, delivery, id_of, start,
    tried,
};

/// Stores a delivery that waits for its second attempt, and an abandoned one.
async fn two_failed_deliveries(temp: &TempFolder) -> Database {
    let store = sqlite::open(&temp.database()).await.unwrap();
    let (waiting, lost) = (delivery("crm_contact", 1), delivery("erp", 2));
    store.accept(vec![waiting, lost]).await.unwrap();
    for (subscription, status, outcome) in [
        ("crm_contact", 503, Outcome::RetryAt(at(5 * SECOND))),
        ("erp", 410, Outcome::Abandoned),
    ] {
        let held = store.claim(subscription, start(), MINUTE, 1).await.unwrap();
        let attempt = tried(status, start());
        store.settle(&held[0], &attempt, &outcome).await.unwrap();
    }
    store
}

/// Stores one delivery for each reason to skip a delivery, and an abandoned one.
async fn one_delivery_per_reason(temp: &TempFolder) -> (Database, [Uuid; 6]) {
    let store = sqlite::open(&temp.database()).await.unwrap();
    let mut unbuilt = delivery("unbuilt", 4);
    unbuilt.action = Err("the request could not be built: no such key".to_owned());
    let others = ["arrived", "gone", "held", "lost"];
    let mut all: Vec<_> = (1..)
        .zip(others)
        .map(|(number, subscription)| delivery(subscription, number))
        .collect();
    all.push(unbuilt);
    store.accept(all).await.unwrap();
    for (subscription, status, outcome) in [
        ("arrived", 204, Outcome::Delivered),
        ("lost", 410, Outcome::Abandoned),
    ] {
        let held = store.claim(subscription, start(), MINUTE, 1).await.unwrap();
        let attempt = tried(status, start());
        store.settle(&held[0], &attempt, &outcome).await.unwrap();
    }
    let to_discard = by_ids([id_of("gone", 2)]);
    assert_eq!(store.discard(&to_discard, start()).await.unwrap(), 1);
    store.claim("held", start(), MINUTE, 1).await.unwrap();
    let ids = [
        id_of("arrived", 1),
        id_of("gone", 2),
        id_of("held", 3),
        id_of("unbuilt", 4),
        id_of("lost", 4),
        Uuid::from_u128(404),
    ];
    (store, ids)
}

fn by_ids<const N: usize>(ids: [Uuid; N]) -> Filter {
    Filter {
        ids: ids.to_vec(),
        ..Filter::default()
    }
}

fn of_subscription(subscription: &str) -> Filter {
    Filter {
        subscription: Some(subscription.to_owned()),
        ..Filter::default()
    }
}

/// The retry windows of two subscriptions.
fn retry_windows() -> RetryWindows {
    let yaml = r#"
subscriptions:
  crm: {events: [identity.created], retry: {max_elapsed: 2d}, send: {post: "http://crm.svc/contacts"}}
  erp: {events: [identity.created], retry: {max_elapsed: 30d}, send: {post: "http://erp.svc/debtors"}}
"#;
    let settings = config::read(
        yaml,
        Path::new("vestibule.yaml"),
        &Environment::of(Vec::new()),
    );
    RetryWindows::of(&settings.unwrap().subscriptions)
}

async fn print_list(store: &Database, filter: &Filter, limit: u32, json: bool) -> String {
    let mut out = Vec::new();
    deliveries::list(store, filter, limit, json, &mut out)
        .await
        .unwrap();
    String::from_utf8(out).unwrap()
}

async fn print_decisions(store: &Database, arguments: &[&str]) -> anyhow::Result<String> {
    #[derive(clap::Parser)]
    struct Program {
        #[command(subcommand)]
        command: decisions::Command,
    }
    let program = <Program as clap::Parser>::parse_from([&["decisions"], arguments].concat());
    let mut out = Vec::new();
    program.command.print(store, at(SECOND), &mut out).await?;
    Ok(String::from_utf8(out)?)
}

async fn print_delivery(store: &Database, id: Uuid, payload: bool, json: bool) -> String {
    let mut out = Vec::new();
    deliveries::show(store, id, payload, json, &mut out)
        .await
        .unwrap();
    String::from_utf8(out).unwrap()
}

async fn run_retry(store: &Database, filter: &Filter) -> (bool, String) {
    let mut out = Vec::new();
    let all = deliveries::retry(
        store,
        filter,
        at(SECOND),
        &RetryWindows::default(),
        &mut out,
    )
    .await
    .unwrap();
    (all, String::from_utf8(out).unwrap())
}

async fn run_discard(
    store: &Database,
    filter: &Filter,
    sure: Confirmation,
) -> (anyhow::Result<bool>, String) {
    let mut out = Vec::new();
    let done = deliveries::discard(store, filter, at(SECOND), sure, &mut out).await;
    (done, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn deliveries_are_listed_as_a_table() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    insta::assert_snapshot!(print_list(&store, &Filter::default(), 100, false).await);
}

#[tokio::test]
async fn deliveries_are_listed_as_json() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    insta::assert_snapshot!(print_list(&store, &Filter::default(), 100, true).await);
}

#[tokio::test]
async fn an_empty_list_is_reported() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    let none = of_subscription("tax");
    assert_eq!(
        print_list(&store, &none, 100, false).await,
        "No deliveries.\n"
    );
    assert_eq!(print_list(&store, &none, 100, true).await, "[]\n");
}

#[tokio::test]
async fn a_long_list_ends_with_the_cursor_of_the_next_page() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    let first = print_list(&store, &Filter::default(), 1, false).await;
    let (newer, older) = (id_of("erp", 2), id_of("crm_contact", 1));
    assert!(
        first.ends_with(&format!("\nThere are more: --cursor {newer}\n")),
        "{first}"
    );
    assert!(!first.contains(&older.to_string()), "{first}");
    let next_page = Filter {
        cursor: Some(newer),
        ..Filter::default()
    };
    let second = print_list(&store, &next_page, 1, false).await;
    assert!(
        second.contains(&older.to_string()) && !second.contains("--cursor"),
        "{second}"
    );
}

#[tokio::test]
async fn a_delivery_is_shown_with_its_attempts_and_without_its_payload() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    insta::assert_snapshot!(print_delivery(&store, id_of("erp", 2), false, false).await);
}

#[tokio::test]
async fn a_delivery_is_shown_as_json() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    insta::assert_snapshot!(print_delivery(&store, id_of("crm_contact", 1), false, true).await);
}

#[tokio::test]
async fn the_payload_of_a_delivery_is_printed_on_request() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    let id = id_of("crm_contact", 1);
    insta::assert_snapshot!(print_delivery(&store, id, true, false).await);
    let json: serde_json::Value =
        serde_json::from_str(&print_delivery(&store, id, true, true).await).unwrap();
    assert_eq!(json["payload"]["send"]["path"], "/contacts?a=1");
}

#[tokio::test]
async fn a_missing_payload_is_explained() {
    let temp = TempFolder::new();
    let (store, [delivered, discarded, _, unbuilt, ..]) = one_delivery_per_reason(&temp).await;
    for (id, expected) in [
        (
            delivered,
            "No payload is stored: payloads are erased after delivery.",
        ),
        (
            discarded,
            "No payload is stored: payloads are erased when a delivery is discarded.",
        ),
        (unbuilt, "No payload is stored: there is nothing to send."),
    ] {
        for payload in [false, true] {
            let shown = print_delivery(&store, id, payload, false).await;
            assert!(shown.contains(expected), "{expected} in {shown}");
        }
    }
}

#[tokio::test]
async fn an_unknown_delivery_is_reported() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    let id = Uuid::from_u128(404);
    let error = deliveries::show(&store, id, false, false, &mut Vec::new())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "there is no delivery {id}\nhelp: list deliveries with `vestibule deliveries list`"
        )
    );
}

#[tokio::test]
async fn a_retry_reports_how_many_deliveries_are_due() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    for (filter, expected) in [
        (of_subscription("erp"), "1 delivery is due now.\n"),
        (Filter::default(), "2 deliveries are due now.\n"),
        (of_subscription("tax"), "0 deliveries are due now.\n"),
    ] {
        assert_eq!(
            run_retry(&store, &filter).await,
            (true, expected.to_owned())
        );
    }
}

#[tokio::test]
async fn skipped_deliveries_are_reported_with_the_reason() {
    let temp = TempFolder::new();
    let (store, ids) = one_delivery_per_reason(&temp).await;
    let (all, output) = run_retry(&store, &by_ids(ids)).await;
    assert!(!all);
    insta::assert_snapshot!(output);
    // The retried delivery can be discarded, and so can the one without a request.
    let (all, output) = run_discard(&store, &by_ids(ids), Confirmation::NoTerminal).await;
    assert!(!all.unwrap());
    insta::assert_snapshot!(output);
    let wrong_subscription = Filter {
        subscription: Some("erp".to_owned()),
        ..by_ids([ids[2]])
    };
    let (_, output) = run_retry(&store, &wrong_subscription).await;
    assert!(
        output.contains("of the subscription `held`") && output.contains("does not match"),
        "{output}"
    );
}

#[tokio::test]
async fn a_delivery_given_twice_is_retried_once() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    let id = id_of("erp", 2);
    let done = run_retry(&store, &by_ids([id, id])).await;
    assert_eq!(done, (true, "1 delivery is due now.\n".to_owned()));
}

#[tokio::test]
async fn an_abandoned_delivery_is_retried_for_the_max_elapsed_of_its_subscription_or_eight_days() {
    let retry_windows = retry_windows();
    let expected = [
        ("crm", 2),
        ("erp", 30),
        ("write-back:crm", 8),
        ("confirm:invite", 8),
    ];
    let named = by_ids(expected.map(|(subscription, _)| id_of(subscription, 1)));
    let by_subscription = expected.map(|(subscription, _)| of_subscription(subscription));
    for filters in [
        vec![Filter::default()],
        vec![named],
        by_subscription.to_vec(),
    ] {
        let temp = TempFolder::new();
        let store = sqlite::open(&temp.database()).await.unwrap();
        let new = expected.map(|(subscription, _)| delivery(subscription, 1));
        store.accept(new.to_vec()).await.unwrap();
        for (subscription, _) in expected {
            let held = store.claim(subscription, start(), MINUTE, 1).await.unwrap();
            let attempt = tried(410, start());
            let abandoned = Outcome::Abandoned;
            store.settle(&held[0], &attempt, &abandoned).await.unwrap();
        }
        let mut count = 0;
        for filter in &filters {
            let done = admin::retry(&store, filter, at(DAY), &retry_windows).await;
            count += done.unwrap().changed;
        }
        assert_eq!(count, 4, "each is counted once: {filters:?}");
        for (subscription, days) in expected {
            let shown = store.show(id_of(subscription, 1)).await.unwrap().unwrap();
            assert_eq!(shown.listed.state, State::Pending, "{subscription}");
            assert_eq!(
                shown.keep_trying_until,
                at((1 + days) * DAY),
                "{subscription}"
            );
        }
    }
}

#[tokio::test]
async fn a_retry_keeps_the_end_time_of_a_pending_delivery() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    run_retry(&store, &Filter::default()).await;
    let pending = store.show(id_of("crm_contact", 1)).await.unwrap().unwrap();
    assert_eq!(pending.listed.next_attempt_at, Some(at(SECOND)));
    assert_eq!(pending.keep_trying_until, at(DAY));
}

#[tokio::test]
async fn a_bulk_discard_without_a_terminal_needs_yes() {
    let temp = TempFolder::new();
    let store = two_failed_deliveries(&temp).await;
    let all = Filter::default();
    let (refused, output) = run_discard(&store, &all, Confirmation::NoTerminal).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "discarding 2 deliveries needs a confirmation, and there is no terminal to ask for it\nhelp: add `--yes`"
    );
    assert_eq!(output, "");
    let (_, output) = run_discard(&store, &all, Confirmation::DryRun).await;
    assert_eq!(output, "2 deliveries would be discarded.\n");
    assert_eq!(store.unfinished(&all).await.unwrap(), 2);

    let (done, output) = run_discard(&store, &all, Confirmation::Yes).await;
    assert_eq!(
        (done.unwrap(), output.as_str()),
        (true, "2 deliveries were discarded.\n")
    );
    assert_eq!(store.unfinished(&all).await.unwrap(), 0);
    // With no delivery to discard, no confirmation is needed.
    let (done, output) = run_discard(&store, &all, Confirmation::NoTerminal).await;
    assert_eq!(
        (done.unwrap(), output.as_str()),
        (true, "0 deliveries were discarded.\n")
    );
}

#[test]
fn only_yes_confirms() {
    for (answer, expected) in [
        ("y\n", true),
        ("Y\n", true),
        ("yes\r\n", true),
        ("n\n", false),
        ("\n", false),
        ("", false),
        ("yess\n", false),
    ] {
        let mut asked = Vec::new();
        let question = "Discard 2 deliveries? [y/N] ";
        let agreed = deliveries::agreed(question, &mut answer.as_bytes(), &mut asked).unwrap();
        assert_eq!(agreed, expected, "{answer:?}");
        assert_eq!(asked, question.as_bytes());
    }
}

#[tokio::test]
async fn decisions_are_listed_and_shown() {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    assert_eq!(
        print_decisions(&store, &["list"]).await.unwrap(),
        "No decisions.\n"
    );
    let mut admitted = decision(2);
    admitted.outcome = "admitted";
    admitted.checks[0].outcome = "unavailable";
    admitted.checks[0].kind = Some("timeout");
    admitted.checks[0].message_id = None;
    admitted.checks[0].observed = true;
    admitted.identity_id = Some(Uuid::from_u128(71));
    store.record(&[decision(1), admitted]).await.unwrap();
    let flow_id = Uuid::from_u128(2).to_string();
    let printed = [
        print_decisions(&store, &["list"]).await.unwrap(),
        print_decisions(&store, &["list", "--limit", "1"])
            .await
            .unwrap(),
        print_decisions(
            &store,
            &["list", "--since", "2h", "--outcome", "refused", "--json"],
        )
        .await
        .unwrap(),
        print_decisions(&store, &["show", &flow_id]).await.unwrap(),
        print_decisions(&store, &["show", &flow_id, "--json"])
            .await
            .unwrap(),
    ];
    insta::assert_snapshot!(printed.join("\n"));
    let unknown = Uuid::from_u128(404).to_string();
    let error = print_decisions(&store, &["show", &unknown]).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("there is no decision about the flow"),
        "{error}"
    );
}
