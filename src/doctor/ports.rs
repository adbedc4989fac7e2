//! The ports: free, or held by a Vestibule.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde_json::Value;

use super::report::{Finding, Section};
use super::{Examined, NO_CLIENT};
use crate::config::settings::Address;
use crate::http::PORT_HEADER;

const SECTION: Section = Section::Ports;
/// Below this, some hundred slow sign-ups at the same time can use up all connections.
const FEW_CONNECTIONS: usize = 500;

/// Which server answers on a port that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    /// A Vestibule: its port of this name, and whether it can use its database.
    Vestibule { port: String, has_database: bool },
    /// Another program.
    Other,
    /// It could not be asked.
    Unknown,
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
            judge(name, socket, &holder(examined, address).await)
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

fn judge(name: &str, socket: SocketAddr, holder: &Holder) -> Finding {
    let problem = |message: String| SECTION.problem("listen", message);
    match holder {
        Holder::Vestibule { port, .. } if port != name => problem(format!(
            "{socket} is the {port} port of a running Vestibule"
        ))
        .help("another Vestibule uses this port, or the two ports are exchanged: correct `serve`"),
        Holder::Vestibule {
            has_database: true, ..
        } => SECTION.not_checked(
            "listen",
            format!(
                "a Vestibule answers on {socket}; whether it runs with these settings is not known"
            ),
        ),
        Holder::Vestibule { .. } => problem(format!(
            "a Vestibule answers on {socket}, and reports that its database is down"
        ))
        .help(
            "read its log; the section `database` shows whether the database can be used from here",
        ),
        Holder::Unknown => {
            SECTION.not_checked("listen", format!("{socket} is in use: {NO_CLIENT}"))
        }
        Holder::Other => problem(format!("another program listens on {socket}")).help(format!(
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
    let Ok(client) = &examined.client else {
        return Holder::Unknown;
    };
    let answer = examined.get_from(client, &url, "/health/ready").await;
    answer.map_or(Holder::Other, |answer| holder_of(&answer.response))
}

/// A Vestibule names the port in a header. While it stops, it does not report its database.
fn holder_of(response: &Value) -> Holder {
    let health = &response["body"];
    let Some(port) = response["headers"][PORT_HEADER].as_str() else {
        return Holder::Other;
    };
    let has_database = match (health["status"].as_str(), health["database"].as_str()) {
        (_, Some(database)) => database == "ok",
        (Some("shutting down"), None) => true,
        _ => return Holder::Other,
    };
    Holder::Vestibule {
        port: port.to_owned(),
        has_database,
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
    fn only_the_same_port_of_a_vestibule_may_hold_a_port() {
        use Level::{NotChecked, Problem};
        let ready = json!({"status": "ok", "database": "ok"});
        for (port, health, expected) in [
            (Some("hooks"), ready.clone(), NotChecked),
            (
                Some("hooks"),
                json!({"status": "shutting down"}),
                NotChecked,
            ),
            (
                Some("hooks"),
                json!({"status": "ok", "database": "down"}),
                Problem,
            ),
            (Some("admin"), ready.clone(), Problem),
            (Some("hooks"), json!("<html>"), Problem),
            // A server that is no Vestibule, and Kratos.
            (None, ready, Problem),
            (None, json!({"status": "ok"}), Problem),
            (None, Value::Null, Problem),
        ] {
            let headers = port.map_or(json!({}), |port| json!({PORT_HEADER: port}));
            let response = json!({"headers": headers, "body": health});
            let socket = SocketAddr::from(([127, 0, 0, 1], 4480));
            let found = judge("hooks", socket, &holder_of(&response));
            assert_eq!(found.level, expected, "{response}");
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
