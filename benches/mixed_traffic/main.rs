//! Runs the program for ten minutes beside hostile traffic, and reports what honest visitors notice: `just hostile`.
//!
//! A minute has three windows: honest traffic alone, the same beside hostile traffic, and the same while the database fails. All
//! hostile kinds run at the same time: values that an expression multiplies or loops over, answers that are slow, broken, endless or
//! huge, receivers with many errors, silent and slow connections, calls of the admin port by another site. The database is
//! locked, full, removed, and back.
//!
//! The run fails if an answer breaks the contract, if an accepted account is not delivered, if memory or threads do not come
//! back, or if the p99 of honest sign-ups beside hostile traffic is above 1.3 times that of honest traffic alone.
//!
//! In a virtual machine, the host may take a processor away for some milliseconds. The times of sign-ups that begin then do not
//! count, and their number is printed.
//!
//! `HOSTILE_MINUTES` changes the number of minutes. The database is on a file system of its own, of 64 MiB, if root runs this.

#![expect(clippy::disallowed_methods, reason = "benchmarks use the system clock")]

mod attacks;
mod database;
mod elsewhere;
mod honest;
mod process;
mod report;
mod service;
mod steal;

use std::time::Duration;

use attacks::Attacks;
use database::{FAULTS, Fault};
use elsewhere::Elsewhere;
use honest::Honest;
use process::Vestibule;
use report::{Report, Window};

/// The length of one window.
const WINDOW: Duration = Duration::from_secs(20);
/// How long the program may take to return to rest. A delivery whose result could not be stored is sent again after its lease
/// of three minutes.
const REST: Duration = Duration::from_mins(4);

fn main() {
    // `cargo test --benches` passes this; benchmarks are not tests.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let passed = runtime.block_on(measure());
    std::process::exit(i32::from(!passed));
}

async fn measure() -> bool {
    let minutes: usize =
        std::env::var("HOSTILE_MINUTES").map_or(10, |text| text.parse().expect("a number"));
    let elsewhere = Elsewhere::start();
    let service = service::start();
    let hostile_service = elsewhere
        .spawn(async { service::start() })
        .await
        .expect("the service that misbehaves starts");
    let mut vestibule = Vestibule::start(&service, &hostile_service).await;
    let mut report = Report::default();
    // The first window fills caches and pools, and is not counted.
    Honest::window(&vestibule, WINDOW).await;
    report.at_start(vestibule.usage());
    for minute in 0..minutes {
        println!("minute {} of {minutes}", minute + 1);
        let alone = Honest::window(&vestibule, WINDOW).await;
        report.add(Window::Alone, alone);

        let attacks = Attacks::begin(&vestibule, &elsewhere);
        let beside = Honest::window(&vestibule, WINDOW).await;
        report.peak(vestibule.usage());
        report.attacked(attacks.end().await, attacks::due_within(WINDOW));
        report.add(Window::BesideHostileTraffic, beside);

        let fault: Fault = FAULTS[minute % FAULTS.len()];
        let failing = vestibule
            .database
            .during(fault, Honest::window(&vestibule, WINDOW))
            .await;
        report.add(Window::DatabaseFault(fault), failing);
        report.peak(vestibule.usage());
    }
    report.deliveries(&service).await;
    for _ in 0..REST.as_secs() {
        if report.is_at_rest(vestibule.usage()) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    report.at_end(vestibule.usage());
    report.alarms(&vestibule.stop().await);
    report.print()
}
