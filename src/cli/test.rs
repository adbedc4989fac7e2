//! `vestibule test`: runs tests of an operator's rules.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use regex::Regex;

use super::counted;
use crate::rule_tests::{CaseResult, Coverage, RuleTests, junit, run};

const AFTER_HELP: &str = "\
Examples:
  vestibule test tests/*.yaml
  vestibule test --coverage --fail-under 100 tests/sign-up.yaml
  vestibule test --run 'VAT' --junit report.xml tests/sign-up.yaml

Exit codes:
  0  every case passed, and the coverage is high enough
  1  a case failed, the coverage is too low, or a file has a problem";

/// `vestibule test`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    /// The test files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only cases whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    run: Option<Regex>,
    /// List the outcomes of each check that no case reached, with a total
    #[arg(long)]
    coverage: bool,
    /// Exit with code 1 if fewer outcomes were reached, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    fail_under: Option<u8>,
    /// Write a report in the XML format of `JUnit` to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Runs the tests, and prints what failed.
pub fn test(options: &Options) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut all = Vec::new();
    let mut is_complete = true;
    for path in &options.files {
        let tests = match RuleTests::load(path) {
            Ok(tests) => tests,
            Err(problems) => {
                eprint!("{problems}");
                is_complete = false;
                continue;
            }
        };
        let (results, coverage) = run(&tests, options.run.as_ref());
        print_results(path, &results, &mut out)?;
        if options.coverage {
            print_coverage(&coverage, &mut out)?;
        }
        is_complete &= is_enough(&coverage, options.fail_under, &mut out)?;
        all.push((path.as_path(), results));
    }
    if let Some(path) = &options.junit {
        write_junit(path, &all)?;
    }
    let passed = print_total(&all, &mut out)?;
    Ok(if passed && is_complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print_results(path: &Path, results: &[CaseResult], out: &mut impl Write) -> std::io::Result<()> {
    for result in results {
        let verdict = if result.problems.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        writeln!(out, "{}: {} ... {verdict}", path.display(), result.name)?;
        for problem in &result.problems {
            writeln!(out, "    {}", problem.replace('\n', "\n    "))?;
        }
        for note in &result.notes {
            writeln!(out, "    note: {note}")?;
        }
    }
    Ok(())
}

fn print_coverage(coverage: &Coverage, out: &mut impl Write) -> std::io::Result<()> {
    for check in &coverage.checks {
        for outcome in check.outcomes.iter().filter(|one| one.cases == 0) {
            writeln!(out, "not reached: {}: {}", check.name, outcome.name)?;
        }
    }
    let (reached, all) = coverage.total();
    writeln!(
        out,
        "coverage: {reached} of {all} outcomes ({} %)",
        percent(reached, all)
    )
}

fn percent(reached: usize, all: usize) -> usize {
    (reached * 100).checked_div(all).unwrap_or(100)
}

fn is_enough(
    coverage: &Coverage,
    fail_under: Option<u8>,
    out: &mut impl Write,
) -> std::io::Result<bool> {
    let (reached, all) = coverage.total();
    let least = usize::from(fail_under.unwrap_or(0));
    let is_enough = percent(reached, all) >= least;
    if !is_enough {
        writeln!(
            out,
            "the coverage is below {least} %; `--coverage` lists what no case reached"
        )?;
    }
    Ok(is_enough)
}

fn write_junit(path: &Path, all: &[(&Path, Vec<CaseResult>)]) -> anyhow::Result<()> {
    let files: Vec<(&Path, &[CaseResult])> = all
        .iter()
        .map(|(path, results)| (*path, results.as_slice()))
        .collect();
    std::fs::write(path, junit::report(&files))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the last line. Returns whether all cases passed and there was at least one.
fn print_total(all: &[(&Path, Vec<CaseResult>)], out: &mut impl Write) -> std::io::Result<bool> {
    let results = || all.iter().flat_map(|(_, results)| results);
    let passed = results().filter(|one| one.problems.is_empty()).count();
    let failed = results().count() - passed;
    if passed + failed == 0 {
        writeln!(out, "no case ran")?;
        return Ok(false);
    }
    let passed = u64::try_from(passed).unwrap_or(u64::MAX);
    writeln!(
        out,
        "{} passed, {failed} failed",
        counted(passed, "case", "cases")
    )?;
    Ok(failed == 0)
}
