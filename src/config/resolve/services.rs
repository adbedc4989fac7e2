//! Resolves services: the named ones, and those of whole URLs.

use std::time::Duration;

use url::Url;

use super::{Cursor, Resolver};
use crate::base::diagnostics::Problem;
use crate::base::secret::Secret;
use crate::config::file;
use crate::outbound::services::{ApiKeyLocation, Auth, Limit, Probe, Service, SigningKey};

/// Headers that Vestibule sets itself.
const OURS: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
];

impl Resolver<'_> {
    pub(super) fn named_services(&mut self) {
        let cursor = self.root.key("services");
        for entry in cursor.entries() {
            let cursor = cursor.key(&entry.key);
            self.name(&cursor, entry, "a service");
            let Some(file) = self.decode::<file::Service>(&cursor) else {
                continue;
            };
            if let Some(service) = self.named_service(&cursor, &entry.key, &file) {
                self.services.insert(entry.key.clone(), service);
            }
        }
    }

    fn named_service(
        &mut self,
        cursor: &Cursor<'_>,
        name: &str,
        file: &file::Service,
    ) -> Option<Service> {
        let url = self.service_url(&cursor.key("url"), &file.url);
        let timeout = self.timeout(cursor, file.timeout.as_ref());
        let headers = self.service_headers(&cursor.key("headers"), &file.headers);
        let auth = file.auth.as_ref();
        let auth = auth.and_then(|auth| self.auth(&cursor.key("auth").key("config"), auth));
        let sign = file.sign.as_ref();
        let signing_keys = sign.map(|sign| self.signing_keys(&cursor.key("sign"), sign));
        let limit = file.limit.as_ref();
        let limit = limit.map(|limit| self.limit(&cursor.key("limit"), limit));
        let probe = file.probe.as_ref();
        let probe = probe.and_then(|probe| self.probe(&cursor.key("probe"), probe));
        Some(Service {
            name: name.to_owned(),
            url: url?,
            timeout,
            headers,
            auth,
            limit: limit.unwrap_or_default(),
            signing_keys: signing_keys.unwrap_or_default(),
            probe,
        })
    }

    /// Resolves the key `timeout` of a section. Its default depends on what the call is for.
    pub(super) fn timeout(
        &mut self,
        cursor: &Cursor<'_>,
        timeout: Option<&file::Duration>,
    ) -> Option<Duration> {
        timeout?;
        Some(self.duration(&cursor.key("timeout"), timeout, "15s", ("1ms", "60s")))
    }

    pub(super) fn service_url(&mut self, cursor: &Cursor<'_>, text: &file::Text) -> Option<Url> {
        let written = &text.0;
        let has_expression = written.replace("${", "").contains('{');
        let text = self.text(text)?;
        if has_expression {
            self.report(
                cursor,
                "the address of a service cannot contain an expression",
                Some(
                    "write it in the path of the request, as in `get: \"/members/{value}\"`"
                        .to_owned(),
                ),
            );
            return None;
        }
        match service_url(&text) {
            Ok(url) => Some(url),
            Err((message, _)) if text.starts_with('$') && !text.starts_with("${") => {
                let hint = format!("write `${{env:{}}}`", text.trim_start_matches('$'));
                self.report(cursor, message, Some(hint));
                None
            }
            Err((message, _))
                if !text.contains("://") && service_url(&format!("http://{text}")).is_ok() =>
            {
                let hint = format!("write `http://{text}`");
                self.report(cursor, message, Some(hint));
                None
            }
            Err((message, hint)) => {
                self.report(cursor, message, hint);
                None
            }
        }
    }

    fn service_headers(
        &mut self,
        cursor: &Cursor<'_>,
        headers: &indexmap::IndexMap<String, file::Text>,
    ) -> Vec<(String, Secret)> {
        let mut read = Vec::new();
        for (name, value) in headers {
            let cursor = cursor.key(name);
            self.header_name(&cursor, name);
            self.warn_about_literal_braces(&cursor, &value.0);
            let Some(value) = self.text(value) else {
                continue;
            };
            self.header_value(&cursor, &value);
            read.push((name.clone(), Secret::new(value)));
        }
        read
    }

    pub(super) fn header_name(&mut self, cursor: &Cursor<'_>, name: &str) {
        if http::HeaderName::try_from(name).is_err() {
            self.report(cursor, format!("`{name}` is not a header name"), None);
        } else if OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            self.report(
                cursor,
                format!("`{name}` is set by Vestibule"),
                Some("remove it".to_owned()),
            );
        }
    }

    pub(super) fn header_value(&mut self, cursor: &Cursor<'_>, value: &str) {
        if http::HeaderValue::try_from(value).is_err() {
            self.report(
                cursor,
                "the value has a character that is not allowed in a header",
                None,
            );
        }
    }

    fn limit(&mut self, cursor: &Cursor<'_>, file: &file::Limit) -> Limit {
        let concurrent = file.concurrent.as_ref().map(|number| {
            let number = file::Decimal(number.0.clone());
            self.amount(&cursor.key("concurrent"), Some(&number), 8.0, (1.0, 1000.0))
        });
        let per_second = file.per_second.as_ref().map(|number| {
            self.amount(
                &cursor.key("per_second"),
                Some(number),
                1.0,
                (0.001, 10_000.0),
            )
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 1000"
        )]
        Limit {
            concurrent: concurrent.map(|number| number as usize),
            per_second,
        }
    }

    fn probe(&mut self, cursor: &Cursor<'_>, file: &file::Probe) -> Option<Probe> {
        let place = cursor.key("get");
        let path = self.text(&file.get)?;
        let mistake = if !path.starts_with('/') {
            Some((
                "expected a path of the service",
                "it begins with `/`, as in `/me`",
            ))
        } else if file.get.0.replace("${", "").contains('{') {
            Some((
                "a probe has no expressions",
                "there is no visitor; write a fixed path, as in `/me`",
            ))
        } else if path.contains('#') {
            let hint = "write `%23` for a `#` in a path";
            Some(("the part after `#` is never sent", hint))
        } else {
            None
        };
        if let Some((message, hint)) = mistake {
            self.report(&place, message, Some(hint.to_owned()));
        }
        let expect = cursor.key("expect");
        let expected = file.expect.iter().enumerate().map(|(index, number)| {
            let number = file::Decimal(number.0.clone());
            self.amount(&expect.item(index), Some(&number), 200.0, (100.0, 599.0))
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 100 and 599"
        )]
        let expected = expected.map(|status| status as u16).collect();
        Some(Probe { path, expected })
    }

    fn signing_keys(&mut self, cursor: &Cursor<'_>, sign: &file::Sign) -> Vec<SigningKey> {
        let secrets: Vec<(Cursor<'_>, &file::Text)> = match (&sign.secret, &sign.secrets) {
            (Some(secret), None) => vec![(cursor.key("secret"), secret)],
            (None, Some(secrets)) if !secrets.is_empty() => {
                let cursor = cursor.key("secrets");
                secrets
                    .iter()
                    .enumerate()
                    .map(|(index, secret)| (cursor.item(index), secret))
                    .collect()
            }
            _ => {
                self.report(
                    cursor,
                    "expected `secret`, or `secrets` with at least one entry",
                    Some("write `sign: {secret: \"${env:CRM_SECRET}\"}`".to_owned()),
                );
                return Vec::new();
            }
        };
        let mut keys = Vec::new();
        for (cursor, secret) in secrets {
            match self.text(secret).map(|text| SigningKey::parse(&text)) {
                Some(Ok(key)) => keys.push(key),
                Some(Err(error)) => self.report(
                    &cursor,
                    error.to_string(),
                    Some("generate one with `vestibule keygen --signing`".to_owned()),
                ),
                None => {}
            }
        }
        keys
    }

    pub(super) fn auth(&mut self, cursor: &Cursor<'_>, auth: &file::Auth) -> Option<Auth> {
        match auth {
            file::Auth::Bearer(file::Bearer { token }) => {
                let token = self.text(token)?;
                self.header_value(&cursor.key("token"), &token);
                self.bearer_token(&cursor.key("token"), &token);
                Some(Auth::Bearer {
                    token: Secret::new(token),
                })
            }
            file::Auth::BasicAuth(file::BasicAuth { user, password }) => {
                let (user, password) = (self.text(user)?, self.text(password)?);
                if user.contains(':') {
                    self.report(
                        &cursor.key("user"),
                        "a user name for basic auth cannot contain `:`",
                        None,
                    );
                }
                Some(Auth::BasicAuth {
                    user,
                    password: Secret::new(password),
                })
            }
            file::Auth::ApiKey(file::ApiKey {
                name,
                value,
                location,
            }) => {
                let (name, value) = (self.text(name)?, self.text(value)?);
                let location = match location {
                    file::ApiKeyLocation::Header => ApiKeyLocation::Header,
                    file::ApiKeyLocation::Query => ApiKeyLocation::Query,
                    file::ApiKeyLocation::Cookie => ApiKeyLocation::Cookie,
                };
                if location == ApiKeyLocation::Header {
                    self.header_name(&cursor.key("name"), &name);
                }
                if location != ApiKeyLocation::Query {
                    self.header_value(&cursor.key("value"), &value);
                }
                Some(Auth::ApiKey {
                    name,
                    value: Secret::new(value),
                    location,
                })
            }
        }
    }

    /// Reports a token with the word that is sent before it.
    fn bearer_token(&mut self, cursor: &Cursor<'_>, token: &str) {
        let word = token.split_whitespace().next().unwrap_or_default();
        if token.trim().is_empty() {
            let hint = "write `\"${env:TOKEN}\"`".to_owned();
            self.report(cursor, "the token is empty", Some(hint));
        } else if word.eq_ignore_ascii_case("bearer") && word.len() < token.trim().len() {
            self.report(
                cursor,
                "`Bearer` is sent before the token, and this token has it too",
                Some("write only what follows it".to_owned()),
            );
        }
    }

    /// Adds the service of a whole URL, named by its origin. `address` is the part before the path.
    pub(super) fn service_of_url(&mut self, cursor: &Cursor<'_>, address: &str) -> Option<String> {
        let url = match service_url(address) {
            Ok(url) => url,
            Err((message, hint)) => {
                self.problems
                    .push(Problem::new(cursor.path.clone(), cursor.at, message).with_hint(hint));
                return None;
            }
        };
        let name = address.trim_end_matches('/').to_owned();
        let service = Service::without_credentials(name.clone(), url);
        self.services.entry(name.clone()).or_insert(service);
        Some(name)
    }
}

/// Parses the address of a service. Errors never contain the address, because it can come from a secret.
fn service_url(text: &str) -> Result<Url, (String, Option<String>)> {
    let example = || Some("as in https://crm.example.com/api".to_owned());
    let url = Url::parse(text).map_err(|error| (format!("not a URL: {error}"), example()))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err((
            "expected an http or https URL with a host".to_owned(),
            example(),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err((
            "a URL cannot contain credentials, because logs would show them".to_owned(),
            Some(
                "add a service with `auth: {type: basic_auth, config: {user: …, password: …}}`"
                    .to_owned(),
            ),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err((
            "the address of a service cannot contain `?` or `#`".to_owned(),
            Some("move parameters to `query` of the request".to_owned()),
        ));
    }
    Ok(url)
}
