//! Nothing that was acknowledged is lost, whatever breaks: the real program, killed and cut off from its database under load.
//!
//! `cargo test --test crash` plays the short forms, `cargo test --test crash -- --ignored` the long ones. Each prints what was
//! acknowledged, received and received twice, and the seed of its chance, which `CRASH_SEED` brings back.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests stand outside the program: real time, real clients"
)]

mod kills;
mod outage;
mod support;
mod trouble;

use std::pin::pin;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

/// Longer than any scene takes on a busy machine.
const BOUND: Duration = Duration::from_mins(20);

fn main() {
    let mut arguments = Arguments::from_args();
    // One scene after the other: each has a program, a database and a load of its own.
    arguments.test_threads.get_or_insert(1);
    let trials = vec![
        short("kills::nothing_acknowledged_is_lost_on_sqlite", || {
            kills::nothing_acknowledged_is_lost_on_sqlite(kills::SHORT)
        }),
        short("kills::nothing_acknowledged_is_lost_on_postgres", || {
            kills::nothing_acknowledged_is_lost_on_postgres(kills::SHORT)
        }),
        short("outage::postgres_is_away_and_comes_back_under_load", || {
            outage::postgres_is_away_and_comes_back_under_load(outage::SHORT)
        }),
        long(
            "outage::postgres_falls_silent_under_load_and_new_connections_work_again",
            || {
                outage::postgres_falls_silent_under_load_and_new_connections_work_again(
                    outage::SHORT,
                )
            },
        ),
        short(
            "trouble::a_full_disk_is_told_and_survived",
            trouble::a_full_disk_is_told_and_survived,
        ),
        short(
            "trouble::a_file_that_becomes_read_only_is_told_and_survived",
            trouble::a_file_that_becomes_read_only_is_told_and_survived,
        ),
        short(
            "trouble::a_server_that_becomes_read_only_is_told_and_survived",
            trouble::a_server_that_becomes_read_only_is_told_and_survived,
        ),
        short(
            "trouble::a_database_that_another_program_holds_is_told_and_survived",
            trouble::a_database_that_another_program_holds_is_told_and_survived,
        ),
        long("kills::nothing_acknowledged_is_lost_on_sqlite", || {
            kills::nothing_acknowledged_is_lost_on_sqlite(kills::LONG)
        }),
        long("kills::nothing_acknowledged_is_lost_on_postgres", || {
            kills::nothing_acknowledged_is_lost_on_postgres(kills::LONG)
        }),
        long("outage::postgres_is_away_and_comes_back_under_load", || {
            outage::postgres_is_away_and_comes_back_under_load(outage::LONG)
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn short<F: Future<Output = ()>>(name: &str, scene: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, || play(scene))
}

/// Left out unless asked for: it takes minutes.
fn long<F: Future<Output = ()>>(name: &str, scene: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(format!("{name}::long"), || play(scene)).with_ignored_flag(true)
}

fn play<F: Future<Output = ()>>(scene: impl FnOnce() -> F) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut scene = pin!(scene());
        tokio::time::timeout(BOUND, &mut scene)
            .await
            .expect("the scene ends");
    });
    Ok(())
}
