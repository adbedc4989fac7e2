//! The way to a service: its name resolves, an address accepts a connection, and its certificate is trusted.

use std::net::SocketAddr;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use url::{Host, Url};

use super::Examined;
use super::report::{Finding, Level, Section};
use crate::base::diagnostics::Position;
use crate::outbound::services::diagnose::{self, Addresses, Connected, TlsError};

/// The way to one address of the settings.
pub(super) struct Way<'a> {
    pub(super) examined: &'a Examined<'a>,
    pub(super) section: Section,
    /// The name of the service, where the section has several.
    pub(super) subject: Option<&'a str>,
    pub(super) url: &'a Url,
    /// The keys and the position of the address in the settings.
    pub(super) at: Option<(String, Position)>,
}

/// Returns whether one of the findings is a problem.
pub(super) fn is_blocked(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.level == Level::Problem)
}

impl Way<'_> {
    /// Examines each step until one fails.
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(addresses) = self.resolve(&mut findings).await else {
            return findings;
        };
        let streams = self.connect(&addresses, &mut findings).await;
        if !streams.is_empty() && self.url.scheme() == "https" {
            self.handshakes(streams, &mut findings).await;
        }
        findings
    }

    fn placed(&self, finding: Finding) -> Finding {
        let finding = match self.subject {
            Some(subject) => finding.about(subject),
            None => finding,
        };
        match &self.at {
            Some(at) => finding.at(at.clone()),
            None => finding,
        }
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    async fn resolve(&self, findings: &mut Vec<Finding>) -> Option<Vec<SocketAddr>> {
        let (found, took) = self.examined.timed(diagnose::resolve(self.url)).await;
        let host = self.host();
        let failed = |message: String| {
            self.section
                .problem("resolve", message)
                .help("check the name in the settings, and the name service of this machine (/etc/resolv.conf)")
        };
        let (finding, addresses) = match found {
            None => (
                failed(format!(
                    "the name service did not answer for {host} in time"
                )),
                None,
            ),
            Some(Err(error)) => (failed(format!("{host} does not resolve: {error}")), None),
            Some(Ok(Addresses { allowed, forbidden })) => {
                let finding = self.judge_addresses(&allowed, &forbidden);
                (finding, Some(allowed).filter(|allowed| !allowed.is_empty()))
            }
        };
        findings.push(self.placed(finding.took(took)));
        addresses
    }

    fn judge_addresses(&self, allowed: &[SocketAddr], forbidden: &[SocketAddr]) -> Finding {
        let host = self.host();
        if allowed.is_empty() && forbidden.is_empty() {
            return self
                .section
                .problem("resolve", format!("{host} has no address"));
        }
        if !forbidden.is_empty() {
            let message = format!(
                "{host} has addresses that Vestibule never calls, because they are link-local or a cloud's metadata service: {}",
                addresses(forbidden)
            );
            let level = if allowed.is_empty() {
                Level::Problem
            } else {
                Level::Warning
            };
            let help = "name a host with another address";
            return self.section.finding("resolve", level, message).help(help);
        }
        let message = match self.url.host() {
            Some(Host::Domain(_)) => format!("{host} is {}", addresses(allowed)),
            _ => format!("{host} needs no look-up"),
        };
        self.section.ok("resolve", message)
    }

    async fn connect(
        &self,
        addresses: &[SocketAddr],
        findings: &mut Vec<Finding>,
    ) -> Vec<(SocketAddr, TcpStream)> {
        let clock = self.examined.clock;
        let started = clock.monotonic();
        let until = clock.deadline(self.examined.timeout);
        let Connected { streams, failed } = diagnose::connect(addresses, clock, until).await;
        let took = clock.monotonic().saturating_sub(started).as_millis();
        let peer = streams.first().map(|(address, _)| *address);
        let finding = self.judge_connections(peer, &failed);
        findings.push(self.placed(finding.took(u64::try_from(took).unwrap_or(u64::MAX))));
        streams
    }

    fn judge_connections(
        &self,
        peer: Option<SocketAddr>,
        failed: &[(SocketAddr, std::io::Error)],
    ) -> Finding {
        let reasons: Vec<String> = failed
            .iter()
            .map(|(address, error)| format!("{address}: {error}"))
            .collect();
        let reasons = reasons.join("; ");
        let Some(peer) = peer else {
            return self
                .section
                .problem("connect", format!("no connection: {reasons}"))
                .help("check that the service runs, its port in the settings, and firewalls between it and this machine");
        };
        // `localhost` is usually IPv4 and IPv6, and a program listens on one of them.
        if failed
            .iter()
            .any(|(address, _)| !address.ip().is_loopback())
        {
            let message = format!("{peer} accepts connections, but others do not: {reasons}");
            return self.section.warning("connect", message).help(
                "remove the address from the name service, or start what should listen on it",
            );
        }
        self.section
            .ok("connect", format!("{peer} accepts connections"))
    }

    /// Makes a handshake with each address, because a call can use any of them.
    async fn handshakes(&self, streams: Vec<(SocketAddr, TcpStream)>, findings: &mut Vec<Finding>) {
        let is_only_one = streams.len() == 1;
        let each = streams.into_iter().map(|(address, stream)| async move {
            let handshake = diagnose::handshake(self.url, stream);
            (address, self.examined.timed(handshake).await)
        });
        let mut fine = None;
        let mut failed = Vec::new();
        for (address, (done, took)) in join_all(each).await {
            let Some(finding) = self.judge_handshake(done) else {
                fine = Some(took.max(fine.unwrap_or_default()));
                continue;
            };
            let message = if is_only_one {
                finding.message.clone()
            } else {
                format!("{address}: {}", finding.message)
            };
            failed.push(Finding { message, ..finding }.took(took));
        }
        if let (Some(took), true) = (fine, failed.is_empty()) {
            let message = format!("the certificate is valid for {}", self.host());
            failed.push(self.section.ok("tls", message).took(took));
        }
        findings.extend(failed.into_iter().map(|finding| self.placed(finding)));
    }

    /// Returns the problem of a handshake, if it has one.
    fn judge_handshake(&self, done: Option<Result<(), TlsError>>) -> Option<Finding> {
        let problem = |message: String| self.section.problem("tls", message);
        match done {
            None => Some(problem("the handshake did not end in time".to_owned())),
            Some(Ok(())) => None,
            Some(Err(error)) => {
                let found = problem(error.to_string());
                Some(match tls_help(&error, self.host()) {
                    Some(help) => found.help(help),
                    None => found,
                })
            }
        }
    }
}

fn addresses(all: &[SocketAddr]) -> String {
    let mut texts: Vec<String> = all.iter().map(|one| one.ip().to_string()).collect();
    texts.dedup();
    texts.join(", ")
}

fn tls_help(error: &TlsError, host: &str) -> Option<String> {
    match error {
        TlsError::Expired | TlsError::Revoked => {
            Some(format!("renew the certificate of {host}"))
        }
        TlsError::NotYetValid => {
            Some("check the clock of this machine, and the dates of the certificate".to_owned())
        }
        TlsError::UnknownIssuer => Some(
            "add the certificate of its issuer to those of this machine (`update-ca-certificates`), or set SSL_CERT_FILE to a \
             file that has it"
                .to_owned(),
        ),
        TlsError::WrongName { .. } => Some(format!(
            "write a name of the certificate in the address, or use a certificate for {host}"
        )),
        TlsError::NotTls => {
            Some("write `http://`, or correct the port in the address".to_owned())
        }
        TlsError::NoAuthorities(_) => Some("install the package `ca-certificates`".to_owned()),
        TlsError::Closed | TlsError::Other(_) => None,
    }
}
