//! The parts of kratos.yml that make Kratos call Vestibule: the hooks, and the template of the body.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hook::{Flow, Stage};
use super::template::{header_allowlist, template};

/// The header with the key.
pub const KEY_HEADER: &str = "X-Vestibule-Key";

/// Vestibule's address in kratos-config/kratos.yml.
pub const EXAMPLE_URL: &str = "http://127.0.0.1:4480";

/// The key in kratos-config/kratos.yml.
pub const EXAMPLE_KEY: &str = "a-key-for-development-only";

/// The address of the template in kratos-config/kratos.yml, relative to the folder in which Kratos starts.
pub const EXAMPLE_BODY: &str = "file://kratos-config/vestibule.jsonnet";

/// A sign-up method. Kratos has separate hooks for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A password.
    Password,
    /// Any social provider.
    Oidc,
    /// A code that Kratos sends by e-mail or text message.
    Code,
    /// A passkey.
    Passkey,
    /// A security key.
    Webauthn,
}

impl Method {
    /// All methods that can have hooks. A method without hooks bypasses all checks.
    pub const ALL: [Self; 5] = [
        Self::Password,
        Self::Oidc,
        Self::Code,
        Self::Passkey,
        Self::Webauthn,
    ];

    /// Returns the method's name in kratos.yml.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Oidc => "oidc",
            Self::Code => "code",
            Self::Passkey => "passkey",
            Self::Webauthn => "webauthn",
        }
    }

    /// Returns the method with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The events that Kratos can report in addition to sign-ups and profile changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraEvent {
    /// A visitor changed a password, a social sign-in or a second factor.
    Credentials,
    /// A visitor verified an address.
    Verification,
}

impl ExtraEvent {
    /// All extra events.
    pub const ALL: [Self; 2] = [Self::Credentials, Self::Verification];

    /// Returns the name of the event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials.changed",
            Self::Verification => "identity.verified",
        }
    }

    /// Returns the extra event with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extra| extra.as_str() == name)
    }
}

/// The credentials that a settings flow can change, in addition to the profile. Kratos has separate hooks for each.
const CREDENTIALS: [&str; 6] = [
    "password",
    "oidc",
    "totp",
    "webauthn",
    "passkey",
    "lookup_secret",
];

/// The login methods that can have separate hooks. Kratos runs these hooks instead of `login.after.hooks`.
const LOGINS: [&str; 7] = [
    "password",
    "oidc",
    "code",
    "passkey",
    "webauthn",
    "totp",
    "lookup_secret",
];

/// Whether Kratos calls Vestibule before a visitor signs in, recovers an account or changes a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateRefusals {
    /// No check can deactivate an account.
    #[default]
    None,
    /// A check can deactivate an existing account, so Vestibule must refuse its owner.
    Enforced,
}

/// Where Kratos finds the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The hooks contain the template, so nothing else must be copied.
    Inline,
    /// The template is at this address: `file:///etc/config/kratos/vestibule.jsonnet`.
    At(String),
}

/// The data from which the hooks are printed.
#[derive(Clone, Debug)]
pub struct HookSnippet {
    /// The address at which Kratos reaches Vestibule, without a slash at the end.
    pub url: String,
    /// The key, or a placeholder.
    pub key: String,
    /// Where Kratos finds the template.
    pub body: Body,
    /// The request headers that the settings need, in canonical form.
    pub headers: Vec<String>,
}

/// How a hook refers to key and template. The first hook contains both. The other hooks use YAML aliases.
#[derive(Clone, Copy)]
enum Anchor {
    First,
    Again,
}

impl HookSnippet {
    /// Returns the part of kratos.yml from `selfservice:` down, and `clients:` if Kratos must forward more headers.
    ///
    /// The part has hooks for sign-ups by these methods, for profile changes and for these events. With
    /// [`LateRefusals::Enforced`], other hooks refuse visitors whose account was refused late.
    #[must_use]
    pub fn hooks(
        &self,
        methods: &[Method],
        extra: &[ExtraEvent],
        late_refusals: LateRefusals,
    ) -> String {
        let mut yaml = self.clients();
        yaml.push_str("selfservice:\n  flows:\n");
        if !methods.is_empty() {
            yaml.push_str("    registration:\n");
            yaml.push_str(&self.registration(methods));
        }
        yaml.push_str("    settings:\n");
        yaml.push_str(&self.settings(if methods.is_empty() {
            Anchor::First
        } else {
            Anchor::Again
        }));
        let stages = credential_stages(extra, late_refusals);
        if !stages.is_empty() {
            for method in CREDENTIALS {
                yaml.extend(["        ", method, ":\n          hooks:\n"]);
                for stage in stages {
                    yaml.push_str(&self.call(Flow::Settings, *stage, method, Anchor::Again));
                }
            }
        }
        if extra.contains(&ExtraEvent::Verification) {
            let call = self.call(Flow::Verification, Stage::Post, "", Anchor::Again);
            yaml.extend(["    verification:\n      after:\n        hooks:\n", &call]);
        }
        if late_refusals == LateRefusals::Enforced {
            let any = self.call(Flow::Login, Stage::Pre, "", Anchor::Again);
            yaml.extend(["    login:\n      after:\n        hooks:\n", &any]);
            for method in LOGINS {
                let call = self.call(Flow::Login, Stage::Pre, method, Anchor::Again);
                yaml.extend(["        ", method, ":\n          hooks:\n", &call]);
            }
            let call = self.call(Flow::Recovery, Stage::Pre, "", Anchor::Again);
            yaml.extend(["    recovery:\n      after:\n        hooks:\n", &call]);
        }
        yaml
    }

    /// Returns the part that makes Kratos pass the request headers to the template.
    fn clients(&self) -> String {
        let Some(headers) = header_allowlist(&self.headers) else {
            return String::new();
        };
        let mut yaml = "clients:\n  web_hook:\n    header_allowlist:\n".to_owned();
        for header in headers {
            yaml.extend(["      - ", &quoted(header), "\n"]);
        }
        yaml
    }

    /// Returns the part under `registration:`.
    fn registration(&self, methods: &[Method]) -> String {
        let mut yaml = "      after:\n".to_owned();
        let mut anchor = Anchor::First;
        for method in methods {
            yaml.push_str(&self.pair(Flow::Registration, method.as_str(), anchor));
            // The hook `session` signs the visitor in. Kratos runs this hook last, at any position in the list.
            yaml.push_str("            - hook: session\n");
            anchor = Anchor::Again;
        }
        yaml
    }

    /// Returns the part under `settings:`.
    fn settings(&self, anchor: Anchor) -> String {
        format!(
            "      after:\n{}",
            self.pair(Flow::Settings, "profile", anchor)
        )
    }

    fn pair(&self, flow: Flow, method: &str, anchor: Anchor) -> String {
        let pre = self.call(flow, Stage::Pre, method, anchor);
        let post = self.call(flow, Stage::Post, method, Anchor::Again);
        format!("        {method}:\n          hooks:\n{pre}{post}")
    }

    fn call(&self, flow: Flow, stage: Stage, method: &str, anchor: Anchor) -> String {
        let query = if method.is_empty() {
            String::new()
        } else {
            format!("?method={method}")
        };
        let url = quoted(&format!("{}/hooks/{flow}/{stage}{query}", self.url));
        let (body, auth) = match anchor {
            Anchor::First => (
                format!("&vestibule_body {}", quoted(&self.address())),
                format!(
                    "&vestibule_key {{type: api_key, config: {{in: header, name: {KEY_HEADER}, value: {}}}}}",
                    quoted(&self.key)
                ),
            ),
            Anchor::Again => ("*vestibule_body".to_owned(), "*vestibule_key".to_owned()),
        };
        let mut lines = vec![
            "- hook: web_hook".to_owned(),
            "  config:".to_owned(),
            format!("    url: {url}"),
            "    method: POST".to_owned(),
            format!("    body: {body}"),
            format!("    auth: {auth}"),
        ];
        if stage == Stage::Pre {
            lines.push("    response: {parse: true}".to_owned());
        }
        // A list for all methods is indented less.
        let margin = " ".repeat(if method.is_empty() { 10 } else { 12 });
        lines
            .into_iter()
            .flat_map(|line| [margin.clone(), line, "\n".to_owned()])
            .collect()
    }

    /// Returns the address of the template.
    fn address(&self) -> String {
        match &self.body {
            Body::Inline => format!("base64://{}", STANDARD.encode(template(&self.headers))),
            Body::At(address) => address.clone(),
        }
    }

    /// Returns the environment variables that can hold the key instead of the file, one for each call. `behind` is the
    /// number of other hooks before these in each list.
    #[must_use]
    pub fn key_variables(
        &self,
        methods: &[Method],
        extra: &[ExtraEvent],
        late_refusals: LateRefusals,
        behind: usize,
    ) -> Vec<String> {
        let variable = |flow: Flow, after: &str, index: usize| {
            let position = behind + index;
            format!("SELFSERVICE_FLOWS_{flow}_{after}_HOOKS_{position}_CONFIG_AUTH_CONFIG_VALUE")
                .to_uppercase()
        };
        let after = |method: &str| format!("after_{method}");
        let pairs = methods
            .iter()
            .map(|method| (Flow::Registration, method.as_str()))
            .chain([(Flow::Settings, "profile")]);
        let mut variables: Vec<String> = pairs
            .flat_map(|(flow, method)| [0, 1].map(|index| variable(flow, &after(method), index)))
            .collect();
        for method in CREDENTIALS {
            let indexes = 0..credential_stages(extra, late_refusals).len();
            variables.extend(indexes.map(|index| variable(Flow::Settings, &after(method), index)));
        }
        if extra.contains(&ExtraEvent::Verification) {
            variables.push(variable(Flow::Verification, "after", 0));
        }
        if late_refusals == LateRefusals::Enforced {
            variables.push(variable(Flow::Login, "after", 0));
            variables.extend(LOGINS.map(|method| variable(Flow::Login, &after(method), 0)));
            variables.push(variable(Flow::Recovery, "after", 0));
        }
        variables
    }
}

/// Returns the stages of the calls for each change of a credential, in order.
///
/// Each `pre` has a `post`, which shows that the change is finished. Until then, Vestibule writes nothing into the
/// identity.
fn credential_stages(extra: &[ExtraEvent], late_refusals: LateRefusals) -> &'static [Stage] {
    match late_refusals {
        LateRefusals::Enforced => &[Stage::Pre, Stage::Post],
        LateRefusals::None if extra.contains(&ExtraEvent::Credentials) => &[Stage::Post],
        LateRefusals::None => &[],
    }
}

/// Quotes a text with YAML's double quotes, which support all escapes of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const KRATOS_YML: &str = include_str!("../../kratos-config/kratos.yml");

    fn example() -> HookSnippet {
        HookSnippet {
            url: EXAMPLE_URL.to_owned(),
            key: EXAMPLE_KEY.to_owned(),
            body: Body::At(EXAMPLE_BODY.to_owned()),
            headers: Vec::new(),
        }
    }

    fn read(yaml: &str) -> Value {
        serde_saphyr::from_str(yaml).expect("YAML")
    }

    #[test]
    fn kratos_yml_in_this_repository_has_exactly_the_printed_hooks() {
        for part in [
            example().registration(&Method::ALL),
            example().settings(Anchor::Again),
        ] {
            assert!(KRATOS_YML.contains(&part), "write this into it:\n{part}");
        }
        let (repository, printed) = (
            read(KRATOS_YML),
            read(&example().hooks(&Method::ALL, &[], LateRefusals::None)),
        );
        for flow in Flow::CHECKED.map(Flow::as_str) {
            let after = |file: &Value| file["selfservice"]["flows"][flow]["after"].clone();
            assert_eq!(after(&repository), after(&printed));
        }
        let enabled = &repository["selfservice"]["methods"];
        for method in enabled.as_object().expect("methods").keys() {
            assert!(Method::named(method).is_some(), "{method} has no hooks");
        }
    }

    /// The second file of the Kratos in docker-compose.yml replaces the lists of hooks in kratos.yml.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the developer who runs the tests sets it"
    )]
    fn the_hooks_of_docker_compose_are_up_to_date() {
        let hooks = HookSnippet {
            url: "http://vestibule:4480".to_owned(),
            ..example()
        }
        .hooks(&Method::ALL, &[], LateRefusals::None);
        let expected = format!(
            "# Generated by `UPDATE=1 cargo test --lib`: the hooks of kratos-config/kratos.yml with Vestibule's address in docker-compose.yml.\n\
             # For your own: vestibule kratos hooks --url http://vestibule:4480\n{hooks}"
        );
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/compose/kratos-hooks.yml");
        if std::env::var("UPDATE").is_ok() {
            std::fs::write(path, &expected).expect("the file is written");
        }
        let known = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(known, expected, "UPDATE=1 cargo test --lib");
    }

    #[test]
    fn each_call_has_its_own_address_the_key_and_the_template() {
        let yaml =
            read(&example().hooks(&[Method::Password, Method::Code], &[], LateRefusals::None));
        let flows = &yaml["selfservice"]["flows"];
        for (flow, method) in [
            ("registration", "password"),
            ("registration", "code"),
            ("settings", "profile"),
        ] {
            let hooks = &flows[flow]["after"][method]["hooks"];
            for (place, stage) in ["pre", "post"].into_iter().enumerate() {
                let mut config = json!({
                    "url": format!("{EXAMPLE_URL}/hooks/{flow}/{stage}?method={method}"),
                    "method": "POST",
                    "body": EXAMPLE_BODY,
                    "auth": {
                        "type": "api_key",
                        "config": {"in": "header", "name": "X-Vestibule-Key", "value": EXAMPLE_KEY},
                    },
                });
                if stage == "pre" {
                    config["response"] = json!({"parse": true});
                }
                assert_eq!(
                    hooks[place],
                    json!({"hook": "web_hook", "config": config}),
                    "{flow} {stage} {method}"
                );
            }
            let signs_in = (flow == "registration").then(|| json!({"hook": "session"}));
            assert_eq!(hooks.get(2), signs_in.as_ref());
        }
        assert_eq!(
            flows["registration"]["after"]
                .as_object()
                .map(serde_json::Map::len),
            Some(2)
        );
        assert_eq!(
            yaml["selfservice"]["flows"]
                .as_object()
                .map(serde_json::Map::len),
            Some(2)
        );
    }

    #[test]
    fn extra_events_have_post_calls_only() {
        let yaml =
            read(&example().hooks(&[Method::Password], &ExtraEvent::ALL, LateRefusals::None));
        let flows = &yaml["selfservice"]["flows"];
        let post = |path: &str| {
            json!([{"hook": "web_hook", "config": {
                "url": format!("{EXAMPLE_URL}/hooks/{path}"),
                "method": "POST",
                "body": EXAMPLE_BODY,
                "auth": {
                    "type": "api_key",
                    "config": {"in": "header", "name": "X-Vestibule-Key", "value": EXAMPLE_KEY},
                },
            }}])
        };
        for method in CREDENTIALS {
            assert_eq!(
                flows["settings"]["after"][method]["hooks"],
                post(&format!("settings/post?method={method}"))
            );
        }
        assert_eq!(
            flows["verification"]["after"]["hooks"],
            post("verification/post")
        );
    }

    #[test]
    fn an_inline_template_is_printed_once() {
        let calls = HookSnippet {
            body: Body::Inline,
            ..example()
        };
        for methods in [&Method::ALL[..], &[]] {
            let yaml = calls.hooks(methods, &ExtraEvent::ALL, LateRefusals::Enforced);
            assert_eq!(yaml.matches("base64://").count(), 1);
            let body = read(&yaml)["selfservice"]["flows"]["settings"]["after"]["profile"]["hooks"]
                [1]["config"]["body"]
                .clone();
            let encoded = body
                .as_str()
                .and_then(|body| body.strip_prefix("base64://"));
            let template = STANDARD.decode(encoded.expect("base64")).expect("base64");
            assert_eq!(template, super::template(&calls.headers).as_bytes());
        }
    }

    #[test]
    fn more_headers_are_in_the_allowlist_and_in_the_template() {
        let mut calls = HookSnippet {
            body: Body::Inline,
            ..example()
        };
        let print = |calls: &HookSnippet| calls.hooks(&[], &[], LateRefusals::None);
        for in_default in [&[][..], &["Origin"]] {
            calls.headers = in_default.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(read(&print(&calls)).get("clients"), None, "{in_default:?}");
        }
        calls.headers.push("X-Forwarded-For".to_owned());
        let yaml = print(&calls);
        let allowlist = read(&yaml)["clients"]["web_hook"]["header_allowlist"].clone();
        assert_eq!(json!(header_allowlist(&calls.headers)), allowlist);
        let printed = STANDARD.encode(template(&calls.headers));
        assert!(yaml.contains(&printed));
    }

    #[test]
    fn each_call_has_an_environment_variable_for_its_key() {
        let variables = example().key_variables(&[Method::Password], &[], LateRefusals::None, 0);
        assert_eq!(
            variables,
            [
                "SELFSERVICE_FLOWS_REGISTRATION_AFTER_PASSWORD_HOOKS_0_CONFIG_AUTH_CONFIG_VALUE",
                "SELFSERVICE_FLOWS_REGISTRATION_AFTER_PASSWORD_HOOKS_1_CONFIG_AUTH_CONFIG_VALUE",
                "SELFSERVICE_FLOWS_SETTINGS_AFTER_PROFILE_HOOKS_0_CONFIG_AUTH_CONFIG_VALUE",
                "SELFSERVICE_FLOWS_SETTINGS_AFTER_PROFILE_HOOKS_1_CONFIG_AUTH_CONFIG_VALUE",
            ]
        );
        let all = example().key_variables(&Method::ALL, &ExtraEvent::ALL, LateRefusals::None, 0);
        assert_eq!(all.len(), 12 + 7);
        assert_eq!(
            all.last().map(String::as_str),
            Some("SELFSERVICE_FLOWS_VERIFICATION_AFTER_HOOKS_0_CONFIG_AUTH_CONFIG_VALUE")
        );
    }

    #[test]
    fn the_variables_count_the_hooks_that_precede_these() {
        let variables = example().key_variables(&[Method::Password], &[], LateRefusals::None, 2);
        assert_eq!(
            variables,
            [
                "SELFSERVICE_FLOWS_REGISTRATION_AFTER_PASSWORD_HOOKS_2_CONFIG_AUTH_CONFIG_VALUE",
                "SELFSERVICE_FLOWS_REGISTRATION_AFTER_PASSWORD_HOOKS_3_CONFIG_AUTH_CONFIG_VALUE",
                "SELFSERVICE_FLOWS_SETTINGS_AFTER_PROFILE_HOOKS_2_CONFIG_AUTH_CONFIG_VALUE",
                "SELFSERVICE_FLOWS_SETTINGS_AFTER_PROFILE_HOOKS_3_CONFIG_AUTH_CONFIG_VALUE",
            ]
        );
    }

    #[test]
    fn enforced_late_refusals_add_hooks_to_login_recovery_and_settings() {
        let yaml = read(&example().hooks(&[], &[], LateRefusals::Enforced));
        let flows = &yaml["selfservice"]["flows"];
        let call = |path: &str| {
            let mut call = json!({"hook": "web_hook", "config": {
                "url": format!("{EXAMPLE_URL}/hooks/{path}"),
                "method": "POST",
                "body": EXAMPLE_BODY,
                "auth": {
                    "type": "api_key",
                    "config": {"in": "header", "name": "X-Vestibule-Key", "value": EXAMPLE_KEY},
                },
            }});
            if path.contains("/pre") {
                call["config"]["response"] = json!({"parse": true});
            }
            call
        };
        let login = &flows["login"]["after"];
        assert_eq!(login["hooks"], json!([call("login/pre")]));
        for method in LOGINS {
            let expected = json!([call(&format!("login/pre?method={method}"))]);
            assert_eq!(login[method]["hooks"], expected);
        }
        assert_eq!(
            flows["recovery"]["after"]["hooks"],
            json!([call("recovery/pre")])
        );
        for method in CREDENTIALS.into_iter().chain(["profile"]) {
            let expected = json!([
                call(&format!("settings/pre?method={method}")),
                call(&format!("settings/post?method={method}")),
            ]);
            assert_eq!(flows["settings"]["after"][method]["hooks"], expected);
        }
        let variables = example().key_variables(&[], &[], LateRefusals::Enforced, 0);
        assert_eq!(variables.len(), 14 + 8 + 1);
        assert!(variables.contains(
            &"SELFSERVICE_FLOWS_LOGIN_AFTER_HOOKS_0_CONFIG_AUTH_CONFIG_VALUE".to_owned()
        ));
    }
}
