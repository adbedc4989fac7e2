//! Everything that the rules read: kratos.yml, its hooks, the identity schemas and Vestibule's settings.

use super::address::{self, Mapping};
use super::document::{Kind, Node};
use super::finding::Findings;
use super::hooks::{List, lists};
use super::{Input, environment_index};
use crate::config::Settings;
use crate::kratos::schema::Schemas;
use crate::kratos::{Flow, Stage};

/// Vestibule's settings, and their file as a tree.
pub struct SettingsFile {
    /// The settings.
    pub settings: Settings,
    /// The tree, for positions.
    pub tree: Node,
    /// Whether every key in `hooks.keys` can be read here. If not, a placeholder is in its place.
    pub has_all_keys: bool,
}

/// What the rules read.
pub struct Context<'k> {
    /// All layers of kratos.yml.
    pub kratos: &'k Node,
    /// All lists of hooks.
    pub lists: Vec<List<'k>>,
    /// The identity schemas. `None` if one of them cannot be read.
    pub schemas: Option<Schemas>,
    /// Vestibule's settings, if they are given.
    pub settings: Option<&'k SettingsFile>,
    /// The paths of containers.
    pub mappings: &'k [Mapping],
    /// The version that a running Kratos reports.
    pub version: Option<&'k str>,
    /// The index of the file with the environment of Kratos, if it is known.
    pub environment_file: Option<usize>,
}

/// Whether visitors can use a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// They can.
    Yes,
    /// They cannot.
    No,
    /// The value in kratos.yml is neither true nor false.
    Unknown,
}

impl<'k> Context<'k> {
    /// Reads the hooks and the identity schemas.
    #[must_use]
    pub fn new(
        kratos: &'k Node,
        settings: Option<&'k SettingsFile>,
        input: &'k Input,
        findings: &mut Findings,
    ) -> Self {
        Self {
            kratos,
            lists: lists(kratos),
            schemas: match &input.running {
                Some(running) => Some(running.schemas.clone()),
                None => schemas(kratos, &input.schemas, &input.mappings, findings),
            },
            settings,
            mappings: &input.mappings,
            version: input
                .running
                .as_ref()
                .map(|running| running.version.as_str()),
            environment_file: environment_index(input),
        }
    }

    /// Returns the settings, if they are given.
    #[must_use]
    pub fn settings(&self) -> Option<&'k Settings> {
        self.settings.map(|file| &file.settings)
    }

    /// Returns the list of this method under `after`; `None` is the list for all methods.
    #[must_use]
    pub fn after(&self, flow: Flow, method: Option<&str>) -> Option<&List<'k>> {
        let mut lists = self.lists.iter();
        lists.find(|list| !list.is_before && list.flow == flow && list.method == method)
    }

    /// Returns whether the list of this method under `after` has this hook of Vestibule.
    #[must_use]
    pub fn calls(&self, flow: Flow, method: Option<&str>, stage: Stage) -> bool {
        self.after(flow, method).is_some_and(|list| list.has(stage))
    }

    /// Returns whether kratos.yml has a hook of Vestibule.
    #[must_use]
    pub fn has_hooks(&self) -> bool {
        self.lists.iter().any(|list| list.ours().next().is_some())
    }

    /// Returns whether a method has a `pre` of Vestibule at registration.
    #[must_use]
    pub fn checks_registrations(&self) -> bool {
        let mut lists = self.lists.iter();
        lists.any(|list| list.flow == Flow::Registration && list.has(Stage::Pre))
    }

    /// Returns whether the method is enabled. Kratos enables `password` and `code` by default, and `code` also with
    /// `passwordless_enabled: true`, whatever `enabled` is.
    #[must_use]
    pub fn enabled(&self, method: &str) -> Enabled {
        let by_default = matches!(method, "password" | "code");
        let enabled = self.truth(&["selfservice", "methods", method, "enabled"], by_default);
        if method == "code" && enabled != Enabled::Yes {
            let key = ["selfservice", "methods", "code", "passwordless_enabled"];
            let passwordless = self.truth(&key, false);
            return if passwordless == Enabled::No {
                enabled
            } else {
                passwordless
            };
        }
        enabled
    }

    /// Returns the value at the end of these keys, or the default of Kratos.
    #[must_use]
    pub fn truth(&self, keys: &[&str], by_default: bool) -> Enabled {
        let truth = match self.kratos.find(keys).map(|node| &node.kind) {
            None | Some(Kind::Null) => by_default,
            Some(Kind::Bool(truth)) => *truth,
            Some(_) => return Enabled::Unknown,
        };
        if truth { Enabled::Yes } else { Enabled::No }
    }

    /// Returns whether visitors can sign up by this method.
    #[must_use]
    pub fn signs_up(&self, method: &str) -> Enabled {
        let enabled = self.enabled(method);
        if enabled == Enabled::No {
            return Enabled::No;
        }
        match method {
            "code" => match &self.schemas {
                None => Enabled::Unknown,
                Some(schemas) if has_code_identifier(schemas) => enabled,
                Some(_) => Enabled::No,
            },
            "webauthn" => {
                let key = [
                    "selfservice",
                    "methods",
                    "webauthn",
                    "config",
                    "passwordless",
                ];
                match self.kratos.bool_at(&key) {
                    Some(true) => enabled,
                    _ => Enabled::No,
                }
            }
            _ => enabled,
        }
    }

    /// Returns whether visitors can sign up at all.
    #[must_use]
    pub fn has_registration(&self) -> bool {
        let key = ["selfservice", "flows", "registration", "enabled"];
        self.kratos.bool_at(&key) != Some(false)
    }

    /// Returns the deepest existing section of these keys under `selfservice.flows`, for a finding about a missing hook.
    #[must_use]
    pub fn flow_section(&self, keys: &[&str]) -> &'k Node {
        self.kratos
            .nearest(&[&["selfservice", "flows"], keys].concat())
    }
}

fn has_code_identifier(schemas: &Schemas) -> bool {
    let is_marked = |schema: &serde_json::Value| {
        schema["ory.sh/kratos"]["credentials"]["code"]["identifier"] == true
    };
    !schemas.paths_where(&is_marked).is_empty()
}

/// Reads the identity schemas that kratos.yml names. `None` if it names none, or one cannot be read.
fn schemas(
    kratos: &Node,
    given: &[(String, String)],
    mappings: &[Mapping],
    findings: &mut Findings,
) -> Option<Schemas> {
    let listed = kratos.find(&["identity", "schemas"]).map(Node::items);
    let mut schemas = Schemas::default();
    let mut is_complete = true;
    for (id, text) in given {
        is_complete &= add(&mut schemas, id, text, findings);
    }
    for entry in listed.unwrap_or_default() {
        let (Some(id), Some(url)) = (entry.text_at(&["id"]), entry.text_at(&["url"])) else {
            continue;
        };
        if given.iter().any(|(name, _)| name == id) {
            continue;
        }
        match address::read(url, mappings) {
            Ok(text) => is_complete &= add(&mut schemas, id, &text, findings),
            Err(reason) => {
                is_complete = false;
                findings.not_checked(format!(
                    "the identity schema `{id}` at {}: {reason} (give it with --schema {id}=FILE, or --map its folder)",
                    address::shown(url)
                ));
            }
        }
    }
    if schemas.is_empty() && is_complete {
        findings.not_checked("the identity schemas: kratos.yml names none (--schema ID=FILE)");
    }
    (is_complete && !schemas.is_empty()).then_some(schemas)
}

fn add(schemas: &mut Schemas, id: &str, text: &str, findings: &mut Findings) -> bool {
    match serde_json::from_str(text) {
        Ok(schema) => {
            schemas.add(id.to_owned(), schema);
            true
        }
        Err(error) => {
            findings.not_checked(format!(
                "the identity schema `{id}`: it is not JSON: {error}"
            ));
            false
        }
    }
}
