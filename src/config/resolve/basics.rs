//! Resolves the sections without expressions: serve, hooks, dsn, log, kratos, reconcile, retention.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oxilangtag::LanguageTag;

use super::durations::{self, written};
use super::{Cursor, Resolver};
use crate::base::clock::moment;
use crate::base::diagnostics::Position;
use crate::base::diagnostics::Problem;
use crate::base::secret::Secret;
use crate::base::telemetry::LogFormat;
use crate::config::file;
use crate::config::settings::{
    Address, AdminAccess, Dsn, Hooks, Kratos, Log, Reconcile, Retention,
};
use crate::kratos::BodyNeeds;
use crate::model::decision::KeptDecisions;
use crate::model::pending::ExternalId;
use crate::outbound::kratos_admin;
use crate::store::postgres::is_address as is_postgres_address;

/// The environment variable that holds the key if the file names none.
const KEY_VARIABLE: &str = "VESTIBULE_KEY";
/// The minimum length of a key. Shorter keys could be guessed.
const MIN_KEY_LENGTH: usize = 16;
pub(super) const KEY_RULES: &str =
    "a key needs at least 16 printable ASCII characters without spaces";
const SQLITE_EXAMPLE: &str = "as in sqlite:///var/lib/vestibule/vestibule.db";
const POSTGRES_EXAMPLE: &str = "as in postgres://user:password@host:5432/database";
const DSN_EXAMPLES: &str = "as in sqlite:///var/lib/vestibule/vestibule.db, or postgres://user:password@host:5432/database";
pub(super) const KEYGEN_HELP: &str = "generate one with `vestibule keygen`";

/// The sections without expressions.
pub(super) struct Basics {
    pub hooks_address: Option<Address>,
    pub admin_address: Option<Address>,
    pub admin_access: AdminAccess,
    pub shutdown_delay: Duration,
    pub hooks: Hooks,
    pub dsn: Option<Dsn>,
    pub log: Log,
    pub kratos: Kratos,
    pub reconcile: Reconcile,
    pub retention: Retention,
    pub decisions: KeptDecisions,
}

impl Resolver<'_> {
    pub(super) fn basics(&mut self) -> Basics {
        let serve = self.root.key("serve");
        let file: file::Serve = self.decode(&serve).unwrap_or_default();
        let hooks_address = self.address(
            &serve.key("hooks"),
            &file.hooks,
            IpAddr::from([0, 0, 0, 0]),
            4480,
        );
        let admin = serve.key("admin");
        let file::Admin {
            host,
            port,
            allowed_hosts,
            token,
        } = file.admin;
        let admin_access = self.admin_access(&admin, &allowed_hosts, token.as_ref());
        let admin_address = self.address(
            &admin,
            &file::Address { host, port },
            IpAddr::from([127, 0, 0, 1]),
            4481,
        );
        if let (Some(hooks), Some(admin)) = (&hooks_address, &admin_address)
            && hooks.port == admin.port
            && hooks.port != 0
            && (hooks.host == admin.host
                || hooks.host.is_unspecified()
                || admin.host.is_unspecified())
        {
            self.report(
                &serve.key("admin"),
                "`serve.hooks` uses the same port",
                Some("choose another port".to_owned()),
            );
        }
        let shutdown_delay = self.duration(
            &serve.key("shutdown_delay"),
            file.shutdown_delay.as_ref(),
            "0s",
            ("0s", "5m"),
        );
        Basics {
            hooks_address,
            admin_address,
            admin_access,
            shutdown_delay,
            hooks: self.hooks(),
            dsn: self.dsn(),
            log: self.log(),
            kratos: self.kratos(),
            reconcile: self.reconcile(),
            retention: self.retention(),
            decisions: self.decisions(),
        }
    }

    fn address(
        &mut self,
        cursor: &Cursor<'_>,
        file: &file::Address,
        host: IpAddr,
        port: u16,
    ) -> Option<Address> {
        let host = match &file.host {
            None => Some(host),
            Some(text) => {
                let text = self.text(text)?;
                let parsed = if text == "localhost" {
                    Ok(IpAddr::from([127, 0, 0, 1]))
                } else {
                    text.parse()
                };
                if parsed.is_err() {
                    let hint =
                        "as in 0.0.0.0 (every interface), 127.0.0.1 (only this machine) or [::]"
                            .replace(['[', ']'], "");
                    self.report(
                        &cursor.key("host"),
                        "expected the IP address of a network interface",
                        Some(hint),
                    );
                }
                parsed.ok()
            }
        };
        let port = match &file.port {
            None => Some(port),
            Some(file::Number(value)) => {
                let text = match value {
                    serde_json::Value::String(text) => self.text(&file::Text(text.clone()))?,
                    other => other.to_string(),
                };
                let parsed = text.parse().ok();
                if parsed.is_none() {
                    self.report(
                        &cursor.key("port"),
                        "expected a port, a number from 0 to 65535",
                        None,
                    );
                }
                parsed
            }
        };
        Some(Address {
            host: host?,
            port: port?,
        })
    }

    /// Returns a duration, or the default if the key is missing or its value is wrong. Reports a value outside of the
    /// bounds.
    pub(super) fn duration(
        &mut self,
        cursor: &Cursor<'_>,
        duration: Option<&file::Duration>,
        default: &str,
        (least, most): (&str, &str),
    ) -> Duration {
        let known = |text: &str| {
            durations::parse(&serde_json::Value::String(text.to_owned())).unwrap_or_default()
        };
        let Some(file::Duration(value)) = duration else {
            return known(default);
        };
        let value = match value {
            serde_json::Value::String(text) => match self.text(&file::Text(text.clone())) {
                Some(text) => serde_json::Value::String(text),
                None => return known(default),
            },
            other => other.clone(),
        };
        match durations::parse(&value) {
            Ok(duration) if (known(least)..=known(most)).contains(&duration) => duration,
            Ok(duration) => {
                self.report(
                    cursor,
                    format!("`{}` is not from {least} to {most}", written(duration)),
                    None,
                );
                known(default)
            }
            Err((message, hint)) => {
                let unit = with_unit(&value, default, |duration| {
                    (known(least)..=known(most)).contains(&duration)
                });
                self.report(cursor, message, unit.or(hint));
                known(default)
            }
        }
    }

    fn hooks(&mut self) -> Hooks {
        let cursor = self.root.key("hooks");
        let file: file::Hooks = self.decode(&cursor).unwrap_or_default();
        let keys = match file.keys {
            // `serve` reports a missing key, so that a file without keys can be validated
            // anywhere.
            None => match self.environment.value(KEY_VARIABLE) {
                Some(key) => {
                    if !is_key(&key) {
                        let message = format!(
                            "the environment variable `{KEY_VARIABLE}` is not a valid key: {KEY_RULES}"
                        );
                        self.problems.push(
                            Problem::new(cursor.key("keys").path, Position::default(), message)
                                .with_hint(Some(KEYGEN_HELP.to_owned())),
                        );
                    }
                    vec![Secret::new(key)]
                }
                None => Vec::new(),
            },
            Some(keys) => {
                if keys.is_empty() {
                    self.report(
                        &cursor.key("keys"),
                        "at least one key is required",
                        Some(KEYGEN_HELP.to_owned()),
                    );
                }
                let mut read = Vec::new();
                for (index, key) in keys.iter().enumerate() {
                    let Some(key) = self.text(key) else { continue };
                    if !is_key(&key) {
                        self.report(
                            &cursor.key("keys").item(index),
                            KEY_RULES,
                            Some(KEYGEN_HELP.to_owned()),
                        );
                    }
                    read.push(Secret::new(key));
                }
                read
            }
        };
        let default_language = file
            .default_language
            .and_then(|text| self.text(&text))
            .unwrap_or_else(|| "en".to_owned());
        if LanguageTag::parse(default_language.as_str()).is_err() {
            let hint = "as in `en`, `de` or `pt-BR`".to_owned();
            self.report(
                &cursor.key("default_language"),
                format!("`{default_language}` is not a BCP 47 language tag"),
                Some(hint),
            );
        }
        self.warn_about_language(&cursor.key("default_language"), &default_language);
        let client_ip = file
            .client_ip
            .as_ref()
            .and_then(|file| self.client_ip(&cursor.key("client_ip"), file));
        let headers = file.headers.unwrap_or_default();
        let headers = self.request_headers(&cursor.key("headers"), &headers, client_ip.as_ref());
        let deadline = self.duration(
            &cursor.key("deadline"),
            file.deadline.as_ref(),
            "5s",
            ("100ms", "20s"),
        );
        Hooks {
            keys,
            deadline,
            default_language,
            client_ip,
            body_needs: BodyNeeds {
                headers,
                // The sections with expressions complete this.
                key: None,
            },
        }
    }

    fn dsn(&mut self) -> Option<Dsn> {
        let cursor = self.root.key("dsn");
        let Some(node) = cursor.node else {
            return Some(Dsn::Sqlite(PathBuf::from("vestibule.db")));
        };
        let serde_json::Value::String(text) = node.to_value() else {
            return None;
        };
        let text = self.text(&file::Text(text))?;
        let Some((scheme, path)) = text.split_once("://") else {
            let hint = DSN_EXAMPLES.to_owned();
            self.report(&cursor, "expected the address of a database", Some(hint));
            return None;
        };
        match scheme {
            "sqlite" if path.starts_with(":memory:") || path.starts_with("file:") => {
                let hint = SQLITE_EXAMPLE.to_owned();
                self.report(
                    &cursor,
                    "the database must be a file, because deliveries must survive a restart",
                    Some(hint),
                );
                None
            }
            "sqlite" if !path.is_empty() && !path.ends_with('/') && !path.contains('?') => {
                Some(Dsn::Sqlite(PathBuf::from(path)))
            }
            "sqlite" => {
                let hint = SQLITE_EXAMPLE.to_owned();
                self.report(
                    &cursor,
                    "expected only the path of a file after `sqlite://`",
                    Some(hint),
                );
                None
            }
            "postgres" | "postgresql" if !path.is_empty() && is_postgres_address(&text) => {
                Some(Dsn::Postgres(Secret::new(text)))
            }
            "postgres" | "postgresql" => {
                let hint = POSTGRES_EXAMPLE.to_owned();
                self.report(
                    &cursor,
                    "not an address of a PostgreSQL database",
                    Some(hint),
                );
                None
            }
            _ => {
                let hint = DSN_EXAMPLES.to_owned();
                self.report(
                    &cursor,
                    "the database must be `sqlite://` or `postgres://`",
                    Some(hint),
                );
                None
            }
        }
    }

    fn log(&mut self) -> Log {
        let cursor = self.root.key("log");
        let file: file::Log = self.decode(&cursor).unwrap_or_default();
        let level = match file.level {
            Some(file::Level::Error) => tracing::Level::ERROR,
            Some(file::Level::Warn) => tracing::Level::WARN,
            Some(file::Level::Debug) => tracing::Level::DEBUG,
            Some(file::Level::Trace) => tracing::Level::TRACE,
            Some(file::Level::Info) | None => tracing::Level::INFO,
        };
        let format = match file.format {
            Some(file::Format::Text) => LogFormat::Text,
            Some(file::Format::Json) | None => LogFormat::Json,
        };
        Log { level, format }
    }

    fn kratos(&mut self) -> Kratos {
        let cursor = self.root.key("kratos");
        let file: file::Kratos = self.decode(&cursor).unwrap_or_default();
        let auth = file
            .auth
            .as_ref()
            .and_then(|auth| self.auth(&cursor.key("auth").key("config"), auth));
        let identifiers = self.identity_schemas(&cursor, &file);
        let external_id = match file.use_external_id {
            file::UseExternalId::Auto => ExternalId::Auto,
            file::UseExternalId::Always => ExternalId::Always,
            file::UseExternalId::Never => ExternalId::Never,
        };
        let Some(text) = &file.admin_url else {
            if file.auth.is_some() {
                self.report(&cursor.key("auth"), "`auth` needs `admin_url`", None);
            }
            return Kratos {
                admin: None,
                schemas: Arc::clone(&self.schemas),
                identifiers,
                external_id,
            };
        };
        let place = cursor.key("admin_url");
        let url = self.service_url(&place, text);
        let is_below = |url: &url::Url| url.path().trim_end_matches('/').ends_with("/admin");
        if url.as_ref().is_some_and(is_below) {
            self.warn(
                &place,
                "Vestibule adds `/admin` itself, as in `/admin/identities`",
                "remove `/admin` from the end, unless a proxy removes it",
            );
        }
        Kratos {
            admin: url.map(|url| kratos_admin::service(url, auth)),
            schemas: Arc::clone(&self.schemas),
            identifiers,
            external_id,
        }
    }

    /// Reports that a setting needs Kratos's admin API.
    pub(super) fn needs_admin_url(&mut self, cursor: &Cursor<'_>, what: &str) {
        self.report(
            cursor,
            format!("{what} needs Kratos's admin API"),
            Some("set `kratos: {admin_url: \"http://kratos:4434\"}`".to_owned()),
        );
    }

    /// Returns whether the file sets `kratos.admin_url`, valid or not.
    pub(super) fn has_admin_url(&self) -> bool {
        self.root.key("kratos").key("admin_url").node.is_some()
    }

    fn reconcile(&mut self) -> Reconcile {
        let cursor = self.root.key("reconcile");
        let file: file::Reconcile = self.decode(&cursor).unwrap_or_default();
        let every = file
            .every
            .as_ref()
            .map(|every| self.duration(&cursor.key("every"), Some(every), "1d", ("1m", "30d")));
        if every.is_some() && !self.has_admin_url() {
            self.needs_admin_url(&cursor.key("every"), "`reconcile`");
        }
        let since = file.since.as_ref().and_then(|since| {
            let text = self.text(since)?;
            let moment = moment(&text);
            if moment.is_none() {
                self.report(
                    &cursor.key("since"),
                    "expected a day or a time",
                    Some("as in 2026-11-01 or 2026-11-01T12:00:00Z".to_owned()),
                );
            }
            moment
        });
        let per_second = file.per_second.map(|number| file::Decimal(number.0));
        let per_second = self.amount(
            &cursor.key("per_second"),
            per_second.as_ref(),
            500.0,
            (1.0, 100_000.0),
        );
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 100000"
        )]
        Reconcile {
            every,
            since,
            per_second: per_second as u32,
        }
    }

    fn retention(&mut self) -> Retention {
        let cursor = self.root.key("retention");
        let file: file::Retention = self.decode(&cursor).unwrap_or_default();
        Retention {
            deliveries: self.duration(
                &cursor.key("deliveries"),
                file.deliveries.as_ref(),
                "90d",
                ("1d", "3650d"),
            ),
            decisions: self.duration(
                &cursor.key("decisions"),
                file.decisions.as_ref(),
                "30d",
                ("1h", "3650d"),
            ),
        }
    }

    fn decisions(&mut self) -> KeptDecisions {
        let cursor = self.root.key("decisions");
        let file: file::Decisions = self.decode(&cursor).unwrap_or_default();
        match file.keep {
            file::KeptDecisions::All => KeptDecisions::All,
            file::KeptDecisions::Refused => KeptDecisions::Refused,
        }
    }

    /// Returns a number, or the default if the key is missing or its value is wrong. Reports a value outside of the
    /// bounds.
    pub(super) fn amount(
        &mut self,
        cursor: &Cursor<'_>,
        number: Option<&file::Decimal>,
        default: f64,
        (least, most): (f64, f64),
    ) -> f64 {
        let Some(file::Decimal(value)) = number else {
            return default;
        };
        let text = match value {
            serde_json::Value::String(text) => match self.text(&file::Text(text.clone())) {
                Some(text) => text,
                None => return default,
            },
            other => other.to_string(),
        };
        match text.trim().parse::<f64>() {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.report(
                    cursor,
                    format!("expected a number from {least} to {most}"),
                    None,
                );
                default
            }
        }
    }
}

/// Returns a number with a unit that gives a permitted duration: that of the default, or else the shortest.
fn with_unit(
    value: &serde_json::Value,
    default: &str,
    is_permitted: impl Fn(Duration) -> bool,
) -> Option<String> {
    let number = value.to_string().trim_matches('"').to_owned();
    number.parse::<f64>().ok()?;
    let units = [
        ("s", "seconds"),
        ("m", "minutes"),
        ("h", "hours"),
        ("d", "days"),
    ];
    let usual = units.iter().filter(|(unit, _)| default.ends_with(unit));
    usual.chain(&units).find_map(|(unit, name)| {
        let written = format!("{number}{unit}");
        let parsed = durations::parse(&serde_json::Value::String(written.clone())).ok()?;
        is_permitted(parsed).then(|| format!("write `{written}` for {name}"))
    })
}

pub(super) fn is_key(text: &str) -> bool {
    text.len() >= MIN_KEY_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic())
}
