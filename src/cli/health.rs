//! `vestibule health`: requests health endpoints, for container images without a shell and `curl`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use url::Url;

use crate::base::clock::Clock;
use crate::config::parse_duration;

/// The time limit of one request.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two requests.
const PAUSE: Duration = Duration::from_millis(500);

/// `vestibule health …`
#[derive(Debug, Args)]
pub struct Options {
    /// The URL to request; repeat the option for several URLs
    #[arg(long = "url", default_value = "http://127.0.0.1:4480/health/ready")]
    urls: Vec<Url>,
    /// How long to wait until every URL is healthy, such as 30s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    wait: Duration,
    /// The text to print when every URL is healthy
    #[arg(long = "say", value_name = "TEXT", default_value = "healthy")]
    message: String,
}

/// Requests all URLs. A URL is healthy if its status is 2xx.
#[expect(
    clippy::disallowed_methods,
    reason = "this request belongs to no sign-up, so it needs none of the limits of a service"
)]
pub async fn run(options: &Options, clock: &Clock) -> anyhow::Result<ExitCode> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()?;
    let end = clock.deadline(options.wait);
    for url in &options.urls {
        while let Err(failure) = check_url(&http, url).await {
            if clock.time_left(end).is_zero() {
                anyhow::bail!("{url}: {failure}");
            }
            clock.sleep(PAUSE).await;
        }
    }
    println!("{}", options.message);
    Ok(ExitCode::SUCCESS)
}

async fn check_url(http: &reqwest::Client, url: &Url) -> Result<(), String> {
    match http.get(url.clone()).send().await {
        Ok(answer) if answer.status().is_success() => Ok(()),
        Ok(answer) => Err(format!("status {}", answer.status())),
        Err(error) if error.is_timeout() => Err(format!("no response within {PATIENCE:?}")),
        Err(_) => Err("cannot connect".to_owned()),
    }
}
