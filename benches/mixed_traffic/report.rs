//! Collects the windows, and prints what came out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::attacks::Attacked;
use super::database::{FAULTS, Fault};
use super::honest::{Honest, percentile};
use super::process::Usage;
use super::service::Service;

/// The largest permitted ratio of the p99 beside hostile traffic to the p99 alone.
const MAX_RATIO: f64 = 1.3;
/// The largest permitted growth of memory, in KiB. The allocator keeps some pages for each thread.
const MAX_GROWTH: u64 = 32 * 1024;
/// The fewest sign-ups of a window that must count.
const MIN_COUNTED: usize = 1_000;
/// The share of hostile calls that must be made, in percent of those that are due.
const MIN_HOSTILE: usize = 90;
/// How many threads more than at the start are rest.
const SPARE_THREADS: u64 = 2;
/// How many open files more than at the start are rest: kept-alive connections.
const SPARE_FILES: usize = 40;

/// The kind of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Honest traffic only.
    Alone,
    /// Honest and hostile traffic.
    BesideHostileTraffic,
    /// Honest traffic while the database fails.
    DatabaseFault(Fault),
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    windows: Vec<(Window, Honest)>,
    attacked: Attacked,
    start: Usage,
    peak: Usage,
    end: Usage,
    undelivered: usize,
    problems: Vec<String>,
    alarms: BTreeMap<String, usize>,
}

impl Report {
    /// Notes what the process uses before the first window.
    pub fn at_start(&mut self, usage: Usage) {
        self.start = usage;
    }

    /// Notes what the process uses during the run.
    pub fn peak(&mut self, usage: Usage) {
        self.peak.memory = self.peak.memory.max(usage.memory);
        self.peak.threads = self.peak.threads.max(usage.threads);
        self.peak.files = self.peak.files.max(usage.files);
    }

    /// Notes what the process uses after the last window.
    pub fn at_end(&mut self, usage: Usage) {
        self.end = usage;
    }

    /// Returns whether the process uses as much as at the start.
    pub fn is_at_rest(&self, usage: Usage) -> bool {
        self.has_few_handles(usage) && self.growth(usage) <= MAX_GROWTH
    }

    fn has_few_handles(&self, usage: Usage) -> bool {
        usage.threads <= self.start.threads + SPARE_THREADS
            && usage.files <= self.start.files + SPARE_FILES
    }

    fn growth(&self, usage: Usage) -> u64 {
        usage.memory.saturating_sub(self.start.memory)
    }

    /// Adds a window.
    pub fn add(&mut self, window: Window, honest: Honest) {
        println!(
            "  {window:?}: {} sign-ups, p50 {:.2?}, p99 {:.2?} (all {:.2?}, {} beside steal), {} refused; {} saved, {} unavailable",
            honest.all_times.len(),
            percentile(&honest.times, 50),
            percentile(&honest.times, 99),
            percentile(&honest.all_times, 99),
            honest.stolen(),
            honest.refused,
            honest.accepted.len(),
            honest.unavailable
        );
        let is_fault = matches!(window, Window::DatabaseFault(_));
        if honest.refused > 0 {
            self.problems.push(format!(
                "{window:?}: {} honest sign-ups were refused",
                honest.refused
            ));
        }
        if honest.unavailable > 0 && !is_fault {
            self.problems.push(format!(
                "{window:?}: {} calls of post were answered 503",
                honest.unavailable
            ));
        }
        if is_fault
            && honest.unavailable == 0
            && !matches!(window, Window::DatabaseFault(Fault::Full))
        {
            self.problems
                .push(format!("{window:?}: no call of post was answered 503"));
        }
        self.problems.extend(
            honest
                .broken
                .iter()
                .map(|what| format!("{window:?}: {what}")),
        );
        self.windows.push((window, honest));
    }

    /// Adds the answers to hostile calls.
    pub fn attacked(&mut self, attacked: Attacked, due: usize) {
        if attacked.calls * 100 < due * MIN_HOSTILE {
            self.problems.push(format!(
                "only {} of {due} hostile calls were made",
                attacked.calls
            ));
        }
        println!(
            "  {} hostile calls, {} answers outside the contract",
            attacked.calls,
            attacked.broken.len()
        );
        self.attacked.calls += attacked.calls;
        self.attacked.broken.extend(attacked.broken);
    }

    /// Waits until every accepted identity has been delivered.
    pub async fn deliveries(&mut self, service: &Service) {
        let accepted: Vec<String> = self
            .windows
            .iter()
            .flat_map(|(_, honest)| honest.accepted.clone())
            .collect();
        let all =
            vestibule_testing::wait::within(Duration::from_mins(1), "deliveries", async || {
                (service.missing(&accepted) == 0).then_some(())
            });
        if futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(all))
            .await
            .is_err()
        {
            self.undelivered = service.missing(&accepted);
        }
        println!(
            "{} accounts accepted, {} not delivered",
            accepted.len(),
            self.undelivered
        );
    }

    /// Counts the alarms in the log by their text up to the first digit.
    pub fn alarms(&mut self, log: &str) {
        for line in log.lines().filter(|line| line.contains("ALARM")) {
            let text = line.split("ALARM").nth(1).unwrap_or_default();
            let short = text
                .split(|letter: char| letter.is_ascii_digit() || letter == '"')
                .next();
            *self
                .alarms
                .entry(short.unwrap_or_default().chars().take(90).collect())
                .or_default() += 1;
        }
    }

    /// Prints the figures. Returns whether all is as it must be.
    pub fn print(mut self) -> bool {
        let ratio = self.ratio();
        println!("\np99 of honest sign-ups, median over the minutes:");
        println!("  alone {:.2?}", self.p99(Window::Alone));
        println!(
            "  beside hostile traffic {:.2?}, ratio {ratio:.2}",
            self.p99(Window::BesideHostileTraffic)
        );
        for fault in FAULTS {
            println!(
                "  while the database is {fault:?}: {:.2?}",
                self.p99(Window::DatabaseFault(fault))
            );
        }
        println!("{} hostile calls", self.attacked.calls);
        for (name, usage) in [
            ("start", self.start),
            ("peak", self.peak),
            ("end", self.end),
        ] {
            println!(
                "{name:>5}: {} KiB, {} threads, {} files",
                usage.memory, usage.threads, usage.files
            );
        }
        for (alarm, count) in &self.alarms {
            println!("alarm, {count} times:{alarm}");
        }
        let growth = self.growth(self.end);
        self.problems
            .extend(std::mem::take(&mut self.attacked.broken));
        if ratio > MAX_RATIO {
            self.problems.push(format!(
                "the p99 beside hostile traffic is {ratio:.2} times that alone"
            ));
        }
        if ratio.is_nan() {
            self.problems.push(
                "no ratio: the host took processors away too often for a comparison".to_owned(),
            );
        }
        if growth > MAX_GROWTH {
            self.problems.push(format!(
                "{growth} KiB of memory more than at the start did not come back"
            ));
        }
        if !self.has_few_handles(self.end) {
            self.problems
                .push("threads or files did not come back".to_owned());
        }
        if self.undelivered > 0 {
            self.problems.push(format!(
                "{} accepted accounts were not delivered",
                self.undelivered
            ));
        }
        for problem in self.problems.iter().take(20) {
            println!("PROBLEM: {problem}");
        }
        println!("{} problems", self.problems.len());
        self.problems.is_empty()
    }

    /// The median over the minutes of the ratio within a minute. Minutes with too few sign-ups that count are left out.
    fn ratio(&self) -> f64 {
        let of = |wanted| {
            self.windows
                .iter()
                .filter(move |(window, _)| *window == wanted)
        };
        let pairs = of(Window::Alone).zip(of(Window::BesideHostileTraffic));
        let mut ratios: Vec<f64> = pairs
            .filter(|((_, alone), (_, beside))| {
                alone.times.len() >= MIN_COUNTED && beside.times.len() >= MIN_COUNTED
            })
            .map(|((_, alone), (_, beside))| {
                let p99 = |honest: &Honest| percentile(&honest.times, 99).as_secs_f64();
                p99(beside) / p99(alone)
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn p99(&self, wanted: Window) -> Duration {
        let of = self.windows.iter().filter(|(window, _)| *window == wanted);
        let mut times: Vec<Duration> = of
            .map(|(_, honest)| percentile(&honest.times, 99))
            .collect();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}
