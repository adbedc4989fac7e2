//! Kills instances with SIGKILL at random moments under load.

use std::time::Duration;

use crate::support::TestEnv;
use crate::support::load::{CallResult, Callers};
use crate::support::postgres::Server;

const CALLERS: Callers = Callers { post: 16, pre: 0 };

/// How often to kill, and how to wait for the leases of killed instances.
#[derive(Clone, Copy)]
pub struct KillOptions {
    pub rounds: u32,
    /// Whether leases expire in real time. Otherwise all instances are killed and the clock is set forward.
    pub wait_for_leases: bool,
}

pub const SHORT: KillOptions = KillOptions {
    rounds: 5,
    wait_for_leases: false,
};

pub const LONG: KillOptions = KillOptions {
    rounds: 100,
    wait_for_leases: true,
};

/// Longer than a lease, and than the longest pause of a dispatcher after an outage of its database.
const LEASE_TIMEOUT: Duration = Duration::from_mins(8);

pub async fn vestibule_loses_no_acknowledged_sign_up_on_sqlite(options: KillOptions) {
    let env = TestEnv::start(1, None).await;
    run("kills on SQLite", options, env).await;
}

pub async fn vestibule_loses_no_acknowledged_sign_up_on_postgres(options: KillOptions) {
    let Some(server) = Server::start() else {
        return;
    };
    let env = TestEnv::start(2, Some(server.database().await)).await;
    run("kills on PostgreSQL, two instances", options, env).await;
}

async fn run(name: &str, options: KillOptions, mut env: TestEnv) {
    let load = env.load(CALLERS);
    let mut acknowledged = 0;
    let mut busy_rounds = 0;
    for round in 0..options.rounds {
        let victim = round as usize % env.instances.len();
        tokio::time::sleep(env.rng.milliseconds(50, 900)).await;
        let instance = &mut env.instances[victim];
        instance.kill();
        instance.restart();
        let acknowledged_now = load.post_count(CallResult::Status(204));
        busy_rounds += u32::from(acknowledged_now > acknowledged);
        acknowledged = acknowledged_now;
    }
    for instance in &mut env.instances {
        instance.ready().await;
    }
    let results = load.stop().await;
    assert_eq!(
        results.post.get(&CallResult::TimedOut),
        None,
        "Vestibule answers every call"
    );
    if options.wait_for_leases {
        env.wait_for_deliveries(&results, LEASE_TIMEOUT).await;
    } else {
        // Kills the instances once more, with deliveries in progress.
        env.deliver_after_an_hour(&results).await;
    }
    let name = format!(
        "{name}, {} rounds, {busy_rounds} of them with a 204",
        options.rounds
    );
    env.report(&name, &results);
}
