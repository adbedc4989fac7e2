//! PostgreSQL goes away under load and comes back.

use std::time::Duration;

use crate::support::House;
use crate::support::line::Line;
use crate::support::load::{Answer, Callers};
use crate::support::postgres::Server;

const CALLERS: Callers = Callers { post: 8, pre: 4 };

/// How long it is away.
pub const SHORT: Duration = Duration::from_secs(3);
pub const LONG: Duration = Duration::from_secs(30);

/// Longer than a lease, and than the longest pause of a worker whose database was away.
const PATIENCE: Duration = Duration::from_mins(5);

pub async fn postgres_is_away_and_comes_back_under_load(away: Duration) {
    let Some(server) = Server::start() else {
        return;
    };
    let house = House::with(1, Some(server.database().await)).await;
    let (goes, comes) = (|| server.stop(), || server.start_again());
    seen_through(&house, "away", away, goes, comes).await;
}

/// As when its machine is gone, or a firewall has forgotten the connections: nothing says that they are dead.
pub async fn postgres_falls_silent_under_load_and_new_connections_work_again(silent: Duration) {
    let Some(server) = Server::start() else {
        return;
    };
    let line = Line::to(server.port).await;
    let address = server.database().await;
    let through_the_line =
        address.replace(&format!(":{}/", server.port), &format!(":{}/", line.port));
    let house = House::with(1, Some(through_the_line)).await;
    let (goes, comes) = (|| line.goes_dead(), || line.is_mended());
    seen_through(&house, "silent", silent, goes, comes).await;
}

/// Under load the database goes, and comes back after so long: nothing that was acknowledged is missing, and `pre` answered.
async fn seen_through(
    house: &House,
    how: &str,
    lasts: Duration,
    goes: impl FnOnce(),
    comes: impl FnOnce(),
) {
    let load = house.load(CALLERS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    goes();
    let before = load.posts(Answer::Status(204));
    tokio::time::sleep(lasts).await;
    comes();
    crate::support::eventually("`post` is answered with 204 again", PATIENCE, async || {
        (load.posts(Answer::Status(204)) > before + 50).then_some(())
    })
    .await;
    let noted = load.stop().await;
    house.all_has_arrived(&noted, PATIENCE).await;
    let longest = noted.longest_pre;
    house.account(
        &format!("PostgreSQL {how} for {lasts:?}, longest `pre` {longest:?}"),
        &noted,
    );
    noted.is_as_promised();
    assert!(before > 0, "something was acknowledged before");
}
