//! The ports: free, or held by the Vestibule that these settings describe.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde_json::Value;

use super::Examined;
use super::report::{Finding, Section};
use crate::config::settings::Address;

const SECTION: Section = Section::Ports;
/// Below this, some hundred slow sign-ups at the same time can use up all connections.
const FEW_CONNECTIONS: usize = 500;

/// Which server answers on a port that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    /// A Vestibule, and whether it can use its database.
    Vestibule { has_database: bool },
    /// Another program.
    Other,
}

/// Examines both ports, and the limit of open files.
pub(super) async fn examine(examined: &Examined<'_>) -> Vec<Finding> {
    let settings = examined.settings;
    vec![
        port(examined, "hooks", settings.hooks_address).await,
        port(examined, "admin", settings.admin_address).await,
        connections(crate::app::max_connections_of_this_machine()),
    ]
}

async fn port(examined: &Examined<'_>, name: &'static str, address: Address) -> Finding {
    let subject = format!("serve.{name}");
    let at = examined.place(&["serve", name, "port"]);
    if address.port == 0 {
        return SECTION
            .ok("listen", "the system chooses a free port")
            .about(subject);
    }
    let socket = SocketAddr::new(address.host, address.port);
    let found = match TcpListener::bind(socket) {
        Ok(_) => SECTION.ok("listen", format!("{socket} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            judge(socket, &holder(examined, address).await)
        }
        Err(error) => not_bound(socket, &error),
    };
    found.about(subject).at(at)
}

fn not_bound(socket: SocketAddr, error: &std::io::Error) -> Finding {
    let found = SECTION.problem("listen", format!("cannot listen on {socket}: {error}"));
    match error.kind() {
        ErrorKind::AddrNotAvailable => {
            found.help("no network interface has this address; 0.0.0.0 is every interface")
        }
        ErrorKind::PermissionDenied => {
            found.help("ports below 1024 need a right of their own; choose a higher port")
        }
        _ => found,
    }
}

fn judge(socket: SocketAddr, holder: &Holder) -> Finding {
    match holder {
        Holder::Vestibule { has_database: true } => {
            SECTION.ok("listen", format!("a running Vestibule answers on {socket}"))
        }
        Holder::Vestibule {
            has_database: false,
        } => SECTION
            .problem(
                "listen",
                format!("a running Vestibule answers on {socket}, and reports that its database is down"),
            )
            .help("read its log; the section `database` shows whether the database can be used from here"),
        Holder::Other => SECTION
            .problem("listen", format!("another program listens on {socket}"))
            .help(format!(
                "find it with `ss -ltnp 'sport = :{}'` and end it, or choose another port",
                socket.port()
            )),
    }
}

/// Asks the health endpoint, which both ports have.
async fn holder(examined: &Examined<'_>, address: Address) -> Holder {
    let host = match address.host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    let url = format!("http://{}/", SocketAddr::new(host, address.port));
    let answer = examined.get_from(&url, "/health/ready").await;
    answer.map_or(Holder::Other, |answer| holder_of(&answer.response["body"]))
}

/// Only Vestibule reports the state of a database here. While it stops, it reports that.
fn holder_of(health: &Value) -> Holder {
    match (health["status"].as_str(), health["database"].as_str()) {
        (_, Some(database)) => Holder::Vestibule {
            has_database: database == "ok",
        },
        (Some("shutting down"), None) => Holder::Vestibule { has_database: true },
        _ => Holder::Other,
    }
}

fn connections(number: usize) -> Finding {
    let message = format!("`vestibule serve` may keep {number} connections of Kratos open");
    if number < FEW_CONNECTIONS {
        SECTION
            .warning("open files", message)
            .help("raise the limit of open files: `ulimit -Hn 65536`, or `LimitNOFILE=` of systemd")
    } else {
        SECTION.ok("open files", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;
    use serde_json::json;

    #[test]
    fn only_vestibule_reports_its_database() {
        for (health, expected) in [
            (json!({"status": "ok", "database": "ok"}), Level::Ok),
            (json!({"status": "ok", "database": "down"}), Level::Problem),
            (json!({"status": "shutting down"}), Level::Ok),
            // Kratos.
            (json!({"status": "ok"}), Level::Problem),
            (json!("<html>"), Level::Problem),
            (Value::Null, Level::Problem),
        ] {
            let socket = SocketAddr::from(([127, 0, 0, 1], 4480));
            let found = judge(socket, &holder_of(&health));
            assert_eq!(found.level, expected, "{health}");
        }
    }

    #[test]
    fn a_port_that_cannot_be_used_says_what_to_do() {
        let socket = SocketAddr::from(([192, 0, 2, 1], 80));
        for (kind, part) in [
            (ErrorKind::AddrNotAvailable, "interface"),
            (ErrorKind::PermissionDenied, "higher port"),
        ] {
            let found = not_bound(socket, &kind.into());
            assert!(found.help.unwrap_or_default().contains(part));
        }
    }

    #[test]
    fn few_open_files_are_a_warning() {
        for (number, expected) in [(64, Level::Warning), (500, Level::Ok)] {
            assert_eq!(connections(number).level, expected);
        }
    }
}
