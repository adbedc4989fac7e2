//! `kill -9` at random moments under load.

use std::time::Duration;

use crate::support::House;
use crate::support::load::{Answer, Callers};
use crate::support::postgres::Server;

const CALLERS: Callers = Callers { post: 16, pre: 0 };

/// How a scene is played.
#[derive(Clone, Copy)]
pub struct Form {
    pub rounds: u32,
    /// Whether leases run out in real time, or the time is moved once all are killed.
    pub waits: bool,
}

pub const SHORT: Form = Form {
    rounds: 5,
    waits: false,
};

pub const LONG: Form = Form {
    rounds: 100,
    waits: true,
};

/// Longer than a lease, and than the longest pause of a worker whose database was away.
const LEASES_END: Duration = Duration::from_mins(8);

pub async fn nothing_acknowledged_is_lost_on_sqlite(form: Form) {
    let house = House::with(1, None).await;
    play("kills on SQLite", form, house).await;
}

pub async fn nothing_acknowledged_is_lost_on_postgres(form: Form) {
    let Some(server) = Server::start() else {
        return;
    };
    let house = House::with(2, Some(server.database().await)).await;
    play("kills on PostgreSQL, two instances", form, house).await;
}

async fn play(scene: &str, form: Form, mut house: House) {
    let load = house.load(CALLERS);
    let mut acknowledged = 0;
    let mut busy_rounds = 0;
    for round in 0..form.rounds {
        let victim = round as usize % house.instances.len();
        tokio::time::sleep(house.chance.milliseconds(50, 900)).await;
        let instance = &mut house.instances[victim];
        instance.kill();
        instance.start_again();
        let so_far = load.posts(Answer::Status(204));
        busy_rounds += u32::from(so_far > acknowledged);
        acknowledged = so_far;
    }
    for instance in &mut house.instances {
        instance.ready().await;
    }
    let noted = load.stop().await;
    assert_eq!(
        noted.post.get(&Answer::Hangs),
        None,
        "every call is answered"
    );
    if form.waits {
        house.all_has_arrived(&noted, LEASES_END).await;
    } else {
        // The last ones to be killed, with all that they have under way.
        house.an_hour_later(&noted).await;
    }
    let scene = format!(
        "{scene}, {} rounds, {busy_rounds} of them with a 204",
        form.rounds
    );
    house.account(&scene, &noted);
}
