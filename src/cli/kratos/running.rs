//! Reads the version and the identity schemas of a running Kratos.

use std::sync::Arc;

use url::Url;

use crate::base::clock::Clock;
use crate::base::telemetry::{Metrics, error_chain};
use crate::lint::Running;
use crate::outbound::kratos_admin::in_force::SchemasError;
use crate::outbound::kratos_admin::{Error, KratosAdmin, service};
use crate::outbound::services::client::Services;

/// Asks the admin API at this address. `public` is the address of the public API, if the redirect to it cannot be used.
pub(super) async fn read(
    admin: &Url,
    public: Option<&Url>,
    clock: Clock,
) -> Result<Running, String> {
    let services = vec![service(admin.clone(), None)];
    let services = Services::new(services, clock.clone(), Arc::new(Metrics::new()))
        .map_err(|error| format!("the HTTP client cannot be created: {error}"))?;
    let kratos = KratosAdmin::new(Arc::new(services), clock);
    let not_read = |error| format!("cannot read from Kratos at {admin}: {}", explained(&error));
    let version = kratos.version().await;
    let (version, _) = version.map_err(|error| not_read(error.into()))?;
    let schemas = kratos.identity_schemas(public).await.map_err(not_read)?;
    Ok(Running { version, schemas })
}

/// Adds what to do to an error.
fn explained(error: &SchemasError) -> String {
    let help = match error {
        SchemasError::Admin(Error::CallError(_)) => {
            "check that Kratos runs, and the address of its admin API, by default port 4434"
        }
        SchemasError::Admin(Error::NotUnderstood | Error::Status(404)) => {
            "give the address of the admin API, by default port 4434; 4433 is the public API"
        }
        SchemasError::Admin(Error::Status(401 | 403 | 407)) => {
            "a proxy before Kratos needs credentials; give an address behind it"
        }
        SchemasError::Admin(_) => "look into the log of Kratos",
        SchemasError::Public { .. } => {
            "give an address of Kratos's public API that can be used from here: --kratos-public http://127.0.0.1:4433"
        }
        SchemasError::None => "set `identity.schemas` in kratos.yml",
    };
    let text = error_chain(error);
    format!("{text}\n  help: {help}")
}
