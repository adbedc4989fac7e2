//! Kept-alive connections that a service closes while a request is on its way.

use vestibule_testing::ClosingService;

use crate::support::{TestApp, payload};

const GET: &str = "checks: {c: {ask: {get: \"${env:SERVICE}/a\"}}}";
const POST: &str = "checks: {c: {ask: {post: \"${env:SERVICE}/a\", json: {invite: x}}}}";

async fn app(settings: &str, service: &ClosingService) -> TestApp {
    TestApp::with(settings)
        .env("SERVICE", &service.url())
        .start()
        .await
}

async fn sign_up(app: &TestApp) -> bool {
    let visitor = payload().with("/flow/id", crate::support::app::uuid());
    app.pre(&visitor).await.is_admitted()
}

fn idempotency_key(request: &str) -> Option<&str> {
    let mut lines = request.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
    key.map(|(_, value)| value)
}

#[tokio::test]
async fn no_sign_up_is_refused_because_a_service_closes_kept_alive_connections() {
    for settings in [GET, POST] {
        let service = ClosingService::answering(1).await;
        let app = app(settings, &service).await;
        for number in 0..6 {
            assert!(sign_up(&app).await, "sign-up {number} with {settings}");
        }
        let requests = service.requests();
        let closed: Vec<_> = requests.iter().filter(|of| of.len() == 2).collect();
        assert!(!closed.is_empty(), "{requests:?}");
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let expected = closed.len() as f64;
        let name = service.url();
        let repeated = format!("vestibule_service_reconnects_total{{service=\"{name}\"}}");
        let repeated = app.metric(&repeated).await;
        assert!((repeated - expected).abs() < 0.1, "{repeated} {requests:?}");
    }
}

#[tokio::test]
async fn a_repeated_question_has_the_same_idempotency_key() {
    let service = ClosingService::answering(1).await;
    let app = app(POST, &service).await;
    assert!(sign_up(&app).await);
    assert!(sign_up(&app).await);
    let requests = service.requests();
    let [first, second] = &requests[..] else {
        panic!("two connections: {requests:?}");
    };
    let keys = |of: &[String]| -> Vec<String> {
        let keys = of.iter().map(|request| idempotency_key(request));
        keys.map(|key| key.expect("a key").to_owned()).collect()
    };
    let (first, second) = (keys(first), keys(second));
    assert_eq!(first.len(), 2);
    assert_ne!(first[0], first[1], "another question");
    assert_eq!(first[1..], second[..], "the same question");
}

#[tokio::test]
async fn an_idempotency_key_of_the_settings_is_sent_as_it_is() {
    let service = ClosingService::answering(1).await;
    let settings =
        "checks: {c: {ask: {post: \"${env:SERVICE}/a\", headers: {Idempotency-Key: \"own\"}}}}";
    let app = app(settings, &service).await;
    assert!(sign_up(&app).await);
    assert_eq!(idempotency_key(&service.requests()[0][0]), Some("own"));
}

#[tokio::test]
async fn a_question_on_a_new_connection_that_breaks_is_not_repeated() {
    let service = ClosingService::answering(0).await;
    let app = app(GET, &service).await;
    assert!(!sign_up(&app).await);
    let requests = service.requests();
    assert_eq!(
        requests.iter().map(Vec::len).sum::<usize>(),
        1,
        "{requests:?}"
    );
}
