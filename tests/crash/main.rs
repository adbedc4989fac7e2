//! Runs the real program under load, kills it or disturbs its database, and checks that no acknowledged sign-up is lost.
//!
//! `cargo test --test crash` runs the short variants, `cargo test --test crash -- --ignored` the long ones. Each prints the
//! numbers of acknowledged sign-ups, received deliveries and duplicates, and its random seed. `CRASH_SEED` sets the seed.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests run outside the program, with the system clock and real clients"
)]

mod database_faults;
mod kills;
mod outage;
mod support;

use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use vestibule_testing::test_case;

/// The timeout of a test case, longer than any takes on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_mins(20);

fn main() {
    let mut arguments = Arguments::from_args();
    // One test case at a time: each has its own program, database and load.
    arguments.test_threads.get_or_insert(1);
    let trials = vec![
        short(
            "kills::vestibule_loses_no_acknowledged_sign_up_on_sqlite",
            || kills::vestibule_loses_no_acknowledged_sign_up_on_sqlite(kills::SHORT),
        ),
        short(
            "kills::vestibule_loses_no_acknowledged_sign_up_on_postgres",
            || kills::vestibule_loses_no_acknowledged_sign_up_on_postgres(kills::SHORT),
        ),
        short(
            "outage::vestibule_survives_an_outage_of_postgres_under_load",
            || outage::vestibule_survives_an_outage_of_postgres_under_load(outage::SHORT),
        ),
        long(
            "outage::vestibule_survives_silent_postgres_connections_under_load",
            || outage::vestibule_survives_silent_postgres_connections_under_load(outage::SHORT),
        ),
        short(
            "database_faults::vestibule_reports_and_survives_a_full_disk",
            database_faults::vestibule_reports_and_survives_a_full_disk,
        ),
        short(
            "database_faults::vestibule_reports_and_survives_a_read_only_file",
            database_faults::vestibule_reports_and_survives_a_read_only_file,
        ),
        short(
            "database_faults::vestibule_reports_and_survives_a_read_only_server",
            database_faults::vestibule_reports_and_survives_a_read_only_server,
        ),
        short(
            "database_faults::vestibule_reports_and_survives_a_locked_database",
            database_faults::vestibule_reports_and_survives_a_locked_database,
        ),
        long(
            "kills::vestibule_loses_no_acknowledged_sign_up_on_sqlite",
            || kills::vestibule_loses_no_acknowledged_sign_up_on_sqlite(kills::LONG),
        ),
        long(
            "kills::vestibule_loses_no_acknowledged_sign_up_on_postgres",
            || kills::vestibule_loses_no_acknowledged_sign_up_on_postgres(kills::LONG),
        ),
        long(
            "outage::vestibule_survives_an_outage_of_postgres_under_load",
            || outage::vestibule_survives_an_outage_of_postgres_under_load(outage::LONG),
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn short<F: Future<Output = ()>>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, || Ok(test_case::run(TEST_TIMEOUT, case)?))
}

/// A test case that takes minutes, so it runs only with `--ignored`.
fn long<F: Future<Output = ()>>(name: &str, case: impl FnOnce() -> F + Send + 'static) -> Trial {
    short(&format!("{name}::long"), case).with_ignored_flag(true)
}
