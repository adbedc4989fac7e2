//! What a running Kratos says about itself: its version, and the identity schemas that are in force.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use url::Url;

use super::{Error, KratosAdmin, encoded, get, is_identity_schema, list, next_page};
use crate::kratos::schema::Schemas;
use crate::outbound::services::Service;
use crate::outbound::services::client::{Answer, Services, TimeLimit};

/// The name of the public API among the services.
const PUBLIC: &str = "kratos public api";
/// The number of identity schemas on a page.
const PAGE: u32 = 250;
/// The maximum number of pages.
const MAX_PAGES: usize = 20;

/// Why the identity schemas cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemasError {
    /// The admin API gave no result.
    #[error(transparent)]
    Admin(#[from] Error),
    /// The public API, to which the admin API refers, gave no result.
    #[error("the identity schemas are at {url}, which {}", failure(*cause))]
    Public {
        /// The address: that of `serve.public.base_url` in kratos.yml, unless another was given.
        url: String,
        /// Why it gave no result.
        cause: Error,
    },
    /// Kratos has no identity schema.
    #[error("Kratos answers without an identity schema")]
    None,
}

/// Describes an error of the public API, for the end of a sentence.
fn failure(error: Error) -> String {
    match error {
        Error::CallError(cause) => format!("cannot be called: {cause}"),
        Error::Status(status) => format!("answers with status {status}"),
        Error::Concurrent | Error::NotUnderstood => "does not answer like Kratos".to_owned(),
    }
}

impl KratosAdmin {
    /// Returns the version, such as `v26.2.0`, and the response that has it.
    pub async fn version(&self) -> Result<(String, Answer), Error> {
        let answer = self.ask(get("/version".to_owned())).await?;
        match answer.status {
            200 => {
                let version = answer.response["body"]["version"].as_str();
                let version = version.ok_or(Error::NotUnderstood)?.to_owned();
                Ok((version, answer))
            }
            404 => Err(Error::NotUnderstood),
            status => Err(Error::Status(status)),
        }
    }

    /// Checks that the admin API lists identities: that it accepts the credentials, and that Kratos has its database.
    pub async fn check_access(&self) -> Result<(), Error> {
        let answer = self.ask(get("/admin/identities?page_size=1".to_owned()));
        list(answer.await?).map(drop)
    }

    /// Returns the identity schemas that are in force.
    ///
    /// Kratos serves them at its public API, and the admin API redirects to it. `public` is the address of the public API,
    /// if that of the redirect cannot be used. The credentials of the admin API are not sent there.
    pub async fn identity_schemas(&self, public: Option<&Url>) -> Result<Schemas, SchemasError> {
        let first = format!("/schemas?page_size={PAGE}&per_page={PAGE}");
        let base = match public {
            Some(public) => public.clone(),
            None => match self.schemas_or_redirect(&first).await? {
                Found::Schemas(schemas) => return Ok(schemas),
                Found::Elsewhere(base) => base,
            },
        };
        let shown = base.to_string();
        let api = PublicApi::new(&self.services, base);
        let all = api.pages(self, first).await;
        let all = all.map_err(|cause| SchemasError::Public { url: shown, cause })?;
        read(&all)
    }

    /// Asks the admin API. A proxy may serve the schemas there.
    async fn schemas_or_redirect(&self, path: &str) -> Result<Found, SchemasError> {
        let answer = self.ask(get(format!("/admin{path}"))).await?;
        match answer.status {
            200 => Ok(Found::Schemas(read(&entries(&answer)?)?)),
            301 | 302 | 307 | 308 => {
                let target = answer.response["headers"]["location"].as_str();
                let base = target.and_then(base_of).ok_or(Error::NotUnderstood)?;
                Ok(Found::Elsewhere(base))
            }
            404 => Err(Error::NotUnderstood.into()),
            status => Err(Error::Status(status).into()),
        }
    }
}

enum Found {
    Schemas(Schemas),
    Elsewhere(Url),
}

/// The public API of Kratos.
struct PublicApi(Services);

impl PublicApi {
    fn new(services: &Arc<Services>, url: Url) -> Self {
        let service = Service::without_credentials(PUBLIC.to_owned(), url);
        Self(services.alone(service))
    }

    async fn pages(&self, admin: &KratosAdmin, first: String) -> Result<Vec<Value>, Error> {
        let mut all = Vec::new();
        let mut next = Some(first);
        let until = admin.clock.deadline(admin.timeout);
        for _ in 0..MAX_PAGES {
            let Some(path) = next.take() else { break };
            let limit = TimeLimit {
                of_request: None,
                otherwise: admin.timeout,
                until,
            };
            let answer = self.0.call(PUBLIC, &get(path), &[], limit).await?;
            if answer.status != 200 {
                return Err(match answer.status {
                    404 => Error::NotUnderstood,
                    status => Error::Status(status),
                });
            }
            all.extend(entries(&answer)?);
            let link = answer.response["headers"]["link"].as_str();
            next = link
                .and_then(next_page)
                .map(|token| format!("/schemas?page_size={PAGE}&page_token={}", encoded(&token)));
        }
        Ok(all)
    }
}

/// Returns the address before `/schemas`.
fn base_of(location: &str) -> Option<Url> {
    let mut url: Url = location.parse().ok()?;
    let path = percent_decode_str(url.path()).decode_utf8().ok()?;
    let base = path
        .trim_end_matches('/')
        .strip_suffix("/schemas")?
        .to_owned();
    url.set_path(&base);
    url.set_query(None);
    url.set_fragment(None);
    // Credentials in an address are never sent or shown.
    (url.username().is_empty() && url.password().is_none()).then_some(url)
}

fn entries(answer: &Answer) -> Result<Vec<Value>, Error> {
    let entries = answer.response["body"].as_array();
    entries
        .filter(|entries| entries.iter().all(is_identity_schema))
        .cloned()
        .ok_or(Error::NotUnderstood)
}

fn read(entries: &[Value]) -> Result<Schemas, SchemasError> {
    let mut schemas = Schemas::default();
    for entry in entries {
        let id = entry["id"].as_str().unwrap_or_default().to_owned();
        schemas.add(id, entry["schema"].clone());
    }
    if schemas.is_empty() {
        return Err(SchemasError::None);
    }
    Ok(schemas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_address_of_the_public_api_is_what_precedes_the_schemas() {
        for (location, expected) in [
            (
                "http://127.0.0.1:4433/schemas",
                Some("http://127.0.0.1:4433/"),
            ),
            (
                "https://a.example/auth/schemas?page_size=2",
                Some("https://a.example/auth"),
            ),
            ("https://u:p@a.example/schemas", None),
            ("https://a.example/", None),
            ("/schemas", None),
        ] {
            let found = base_of(location).map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn only_a_list_of_schemas_comes_from_kratos() {
        let answer = |body: Value| Answer {
            status: 200,
            response: json!({"status": 200, "headers": {}, "body": body}),
            retry_after: None,
        };
        for (body, expected) in [
            (json!([{"id": "a", "schema": {}}]), Ok(1)),
            (json!([]), Ok(0)),
            (json!([{"id": "a"}]), Err(Error::NotUnderstood)),
            (json!({"id": "a"}), Err(Error::NotUnderstood)),
            (json!("<html>"), Err(Error::NotUnderstood)),
        ] {
            let found = entries(&answer(body.clone())).map(|entries| entries.len());
            assert_eq!(found, expected, "{body}");
        }
        assert_eq!(read(&[]).err(), Some(SchemasError::None));
    }
}
