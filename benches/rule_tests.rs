//! Compares the time of `vestibule test` with 1,000 cases to that with one case, and to reading the 1,000 cases alone. The cases
//! are those of examples/rule-tests/company.yaml with a number in their names. Rounds alternate.
//!
//! `cargo bench --bench rule_tests`

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vestibule::rule_tests::RuleTests;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: vestibule_allocator::Allocator = vestibule_allocator::Allocator;

const CASES: usize = 1_000;
const ROUNDS: usize = 9;
const EXAMPLE: &str = include_str!("../examples/rule-tests/company.yaml");
/// The start of each case in the example.
const START: &str = "\n  - name: ";

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, cases: usize| {
        let path = folder.path().join(name);
        std::fs::write(&path, file_with(cases)).expect("the file is written");
        path
    };
    let (all, one) = (write("all.yaml", CASES), write("one.yaml", 1));
    println!("{CASES} cases, {ROUNDS} rounds");
    // One warm-up round.
    program(&all, CASES);
    let (mut took, mut to_one, mut to_reading) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=ROUNDS {
        let with_all = program(&all, CASES);
        let with_one = program(&one, 1);
        let reading = read(&all);
        took.push(with_all.as_secs_f64());
        to_one.push(with_all.as_secs_f64() / with_one.as_secs_f64());
        to_reading.push(with_all.as_secs_f64() / reading.as_secs_f64());
        println!(
            "round {number}: {CASES} cases {with_all:>8.2?}   one case {with_one:>8.2?}   reading alone {reading:>8.2?}"
        );
    }
    println!(
        "{CASES} cases, median of {ROUNDS}: {:.0} ms; ratio to one case: {:.2}; ratio to reading alone: {:.2}",
        median(took) * 1000.0,
        median(to_one),
        median(to_reading)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns a test file with this number of cases.
fn file_with(cases: usize) -> String {
    let (head, rest) = EXAMPLE.split_once("\ncases:").expect("cases");
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/settings/company.yaml");
    let settings = format!("settings: {}", settings.display());
    let mut text = head.replace("settings: ../settings/company.yaml", &settings);
    assert!(text.contains(&settings), "{text}");
    text.push_str("\ncases:");
    let each = rest.split(START).skip(1).collect::<Vec<_>>();
    for (number, case) in each.iter().cycle().take(cases).enumerate() {
        let (name, body) = case.split_once('\n').expect("a case");
        write!(text, "{START}{name} ({number})\n{body}").expect("a text");
    }
    text
}

/// Runs `vestibule test`, and returns how long it took.
fn program(file: &PathBuf, cases: usize) -> Duration {
    let begin = now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command.arg("test").arg(file).stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let took = begin.elapsed();
    let printed = String::from_utf8_lossy(&output.stdout);
    let last = printed.lines().last().unwrap_or_default();
    let passed = format!(
        "{cases} case{} passed, 0 failed",
        if cases == 1 { "" } else { "s" }
    );
    assert_eq!(last, passed, "{printed}");
    took
}

/// Reads a test file and its settings in this process, and returns how long it took.
fn read(file: &Path) -> Duration {
    let begin = now();
    let tests = RuleTests::load(file).unwrap_or_else(|error| panic!("{error}"));
    let took = begin.elapsed();
    assert_eq!(tests.file.cases.len(), CASES);
    took
}

#[expect(clippy::disallowed_methods, reason = "benchmarks use the system clock")]
fn now() -> Instant {
    Instant::now()
}
