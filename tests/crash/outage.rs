//! PostgreSQL is unreachable under load for a while.

use std::time::Duration;

use crate::support::TestEnv;
use crate::support::load::{CallResult, Callers};
use crate::support::postgres::Server;
use crate::support::tcp_proxy::TcpProxy;

const CALLERS: Callers = Callers { post: 8, pre: 4 };

/// How long PostgreSQL is unreachable.
pub const SHORT: Duration = Duration::from_secs(3);
pub const LONG: Duration = Duration::from_secs(30);

/// Longer than a lease, and than the longest pause of a dispatcher after an outage of its database.
const TIMEOUT: Duration = Duration::from_mins(5);

pub async fn vestibule_survives_an_outage_of_postgres_under_load(outage: Duration) {
    let Some(server) = Server::start() else {
        return;
    };
    let env = TestEnv::start(1, Some(server.database().await)).await;
    let (start_fault, end_fault) = (|| server.stop(), || server.start_again());
    run(&env, "stopped", outage, start_fault, end_fault).await;
}

/// Connections stay open but transfer nothing, as after a machine fails or a firewall drops their state.
pub async fn vestibule_survives_silent_postgres_connections_under_load(outage: Duration) {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = TcpProxy::start(([127, 0, 0, 1], server.port).into()).await;
    let address = server.database().await;
    let proxied = address.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port));
    let env = TestEnv::start(1, Some(proxied)).await;
    let (start_fault, end_fault) = (|| proxy.block(), || proxy.unblock());
    run(&env, "silent", outage, start_fault, end_fault).await;
}

/// Starts the fault under load, ends it after `outage`, and checks that all acknowledged sign-ups are delivered and that `pre`
/// answered in time.
async fn run(
    env: &TestEnv,
    fault: &str,
    outage: Duration,
    start_fault: impl FnOnce(),
    end_fault: impl FnOnce(),
) {
    let load = env.load(CALLERS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    start_fault();
    let before = load.post_count(CallResult::Status(204));
    tokio::time::sleep(outage).await;
    end_fault();
    crate::support::within(
        TIMEOUT,
        "Vestibule answers `post` with 204 again",
        async || (load.post_count(CallResult::Status(204)) > before + 50).then_some(()),
    )
    .await;
    let results = load.stop().await;
    env.wait_for_deliveries(&results, TIMEOUT).await;
    let longest = results.longest_pre;
    env.report(
        &format!("PostgreSQL {fault} for {outage:?}, longest `pre` {longest:?}"),
        &results,
    );
    results.assert_responses();
    assert!(
        before > 0,
        "Vestibule acknowledged sign-ups before the fault"
    );
}
