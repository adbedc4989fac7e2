//! Diagnoses the way to a service step by step: the name, the connection, TLS.
//!
//! A call reports only that its connection failed. Here each step is made alone, with the address rules of a call and
//! with the same trust in certificates. No HTTP request is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::address::is_forbidden;
use crate::base::clock::{Clock, Deadline};

/// The addresses of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Those that Vestibule calls.
    pub allowed: Vec<SocketAddr>,
    /// Those that Vestibule never calls: link-local addresses, and the metadata services of clouds.
    pub forbidden: Vec<SocketAddr>,
}

/// The connections, and the addresses that accepted none.
#[derive(Debug)]
pub struct Connected {
    /// A connection to each address that accepted one, in the order of the addresses.
    pub streams: Vec<(SocketAddr, TcpStream)>,
    /// The addresses that accepted none, and why.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

/// Why a TLS handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The certificate has expired.
    #[error("the certificate has expired")]
    Expired,
    /// The certificate is not valid yet.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// No trusted authority has issued the certificate.
    #[error("the certificate is self-signed, or its issuer is unknown on this machine")]
    UnknownIssuer,
    /// The certificate is for other names.
    #[error("the certificate is for another name{}", listed(names))]
    WrongName {
        /// The names in the certificate, if they are known.
        names: Vec<String>,
    },
    /// The certificate was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// The server does not speak TLS.
    #[error("the server does not speak TLS at this port")]
    NotTls,
    /// The server closed the connection.
    #[error("the server closed the connection during the handshake")]
    Closed,
    /// No certificate of an authority was found on this machine.
    #[error("this machine has no certificates of authorities: {0}")]
    NoAuthorities(String),
    /// Another reason.
    #[error("the handshake failed: {0}")]
    Other(String),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(": {}", names.join(", "))
}

/// Resolves the host of a service as a call does, and sorts its addresses.
pub async fn resolve(url: &Url) -> io::Result<Addresses> {
    let port = url.port_or_known_default().unwrap_or_default();
    let found: Vec<SocketAddr> = match url.host() {
        Some(Host::Domain(name)) => tokio::net::lookup_host((name, port)).await?.collect(),
        Some(Host::Ipv4(address)) => vec![(IpAddr::from(address), port).into()],
        Some(Host::Ipv6(address)) => vec![(IpAddr::from(address), port).into()],
        None => Vec::new(),
    };
    let (forbidden, allowed) = found
        .into_iter()
        .partition(|address| is_forbidden(address.ip()));
    Ok(Addresses { allowed, forbidden })
}

/// Connects to all addresses at the same time, until this moment at the latest. A call uses the first one that accepts, and
/// does not wait long for the others.
pub async fn connect(addresses: &[SocketAddr], clock: &Clock, until: Deadline) -> Connected {
    let attempts = addresses.iter().map(|address| async move {
        let connected = clock.timeout_at(until, TcpStream::connect(address)).await;
        let timed_out = || Err(io::ErrorKind::TimedOut.into());
        (*address, connected.unwrap_or_else(timed_out))
    });
    let mut result = Connected {
        streams: Vec::new(),
        failed: Vec::new(),
    };
    for (address, connected) in join_all(attempts).await {
        match connected {
            Ok(stream) => result.streams.push((address, stream)),
            Err(error) => result.failed.push((address, error)),
        }
    }
    result
}

/// Makes a TLS handshake for the host of the service, and closes the connection.
pub async fn handshake(url: &Url, stream: TcpStream) -> Result<(), TlsError> {
    let host = url.host_str().unwrap_or_default();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| TlsError::Other(error.to_string()))?;
    let connector = TlsConnector::from(Arc::new(client()?));
    match connector.connect(name, stream).await {
        Ok(_) => Ok(()),
        Err(error) => Err(classify(&error)),
    }
}

/// The TLS client of a call: the certificates of the system, HTTP/2 and HTTP/1.1.
fn client() -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| TlsError::NoAuthorities(error.to_string()))?
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(client)
}

fn classify(error: &io::Error) -> TlsError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => of_certificate(why),
        Some(rustls::Error::InvalidMessage(_)) => TlsError::NotTls,
        Some(other) => TlsError::Other(other.to_string()),
        None if matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) =>
        {
            TlsError::Closed
        }
        None => TlsError::Other(error.to_string()),
    }
}

fn of_certificate(why: &CertificateError) -> TlsError {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsError::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsError::NotYetValid
        }
        // The signature does not match if an authority was made again with the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsError::UnknownIssuer,
        CertificateError::Revoked => TlsError::Revoked,
        CertificateError::NotValidForName => TlsError::WrongName { names: Vec::new() },
        CertificateError::NotValidForNameContext { presented, .. } => TlsError::WrongName {
            names: presented.iter().map(|name| plain(name)).collect(),
        },
        // A self-signed certificate is usually one of an authority.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => TlsError::UnknownIssuer,
        other => TlsError::Other(format!("{other:?}")),
    }
}

/// `DnsName("crm.example.com")` becomes `crm.example.com`.
fn plain(name: &str) -> String {
    name.split('"').nth(1).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_address_that_accepts_gets_its_connection() {
        let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, other, closed) = (listener(), listener(), listener());
        let address = |listener: &std::net::TcpListener| listener.local_addr().unwrap();
        let addresses = [address(&one), address(&closed), address(&other)];
        drop(closed);
        let clock = Clock::system();
        let until = clock.deadline(std::time::Duration::from_secs(20));
        let found = connect(&addresses, &clock, until).await;
        let accepted: Vec<SocketAddr> = found.streams.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(accepted, [addresses[0], addresses[2]]);
        assert_eq!(found.failed.len(), 1);
        assert_eq!(found.failed[0].0, addresses[1]);
    }

    async fn resolved(url: &str) -> Addresses {
        resolve(&url.parse().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn addresses_are_sorted_as_for_a_call() {
        for (url, allowed, forbidden) in [
            ("http://10.1.2.3:8080/a", &["10.1.2.3:8080"][..], &[][..]),
            ("https://[::1]/", &["[::1]:443"], &[]),
            ("http://169.254.169.254/", &[], &["169.254.169.254:80"]),
        ] {
            let Addresses {
                allowed: called,
                forbidden: never,
            } = resolved(url).await;
            let texts = |list: Vec<SocketAddr>| -> Vec<String> {
                list.iter().map(ToString::to_string).collect()
            };
            assert_eq!(texts(called), allowed, "{url}");
            assert_eq!(texts(never), forbidden, "{url}");
        }
    }

    #[test]
    fn each_reason_of_a_failed_handshake_has_its_name() {
        let certificate = |why| io::Error::other(rustls::Error::InvalidCertificate(why));
        let context = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.test").unwrap(),
            presented: vec!["DnsName(\"b.test\")".to_owned()],
        };
        for (error, expected) in [
            (certificate(CertificateError::Expired), "has expired"),
            (certificate(CertificateError::NotValidYet), "not valid yet"),
            (certificate(CertificateError::UnknownIssuer), "self-signed"),
            (certificate(CertificateError::BadSignature), "self-signed"),
            (certificate(CertificateError::Revoked), "revoked"),
            (
                certificate(CertificateError::NotValidForName),
                "another name",
            ),
            (certificate(context), "another name: b.test"),
            (
                io::Error::other(rustls::Error::InvalidMessage(
                    rustls::InvalidMessage::InvalidContentType,
                )),
                "does not speak TLS",
            ),
            (io::ErrorKind::UnexpectedEof.into(), "closed the connection"),
            (io::Error::other("unknown"), "the handshake failed: unknown"),
        ] {
            let found = classify(&error).to_string();
            assert!(found.contains(expected), "{found}");
        }
    }
}
