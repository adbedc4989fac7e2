//! A real Kratos for one test case, with the files of kratos-config/.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use reqwest::Response;
use reqwest::header::LINK;
use serde_json::{Value, json};
use vestibule::kratos::snippet::{
    Body, EXAMPLE_BODY, EXAMPLE_KEY, EXAMPLE_URL, ExtraEvent, HookSnippet, LateRefusals, Method,
};
use vestibule::kratos::template::template;
use vestibule_testing::Program;
use vestibule_testing::http::client_with_timeout;
use vestibule_testing::program::output;

use super::passkey::{ORIGIN, RELYING_PARTY};
use super::{eventually, port};

/// The Jsonnet mapper: Kratos copies only the address from the `OpenID` provider.
const CLAIMS: &str =
    "local claims = std.extVar('claims'); {identity: {traits: {email: claims.email}}}";
/// Where Kratos sends browsers after a sign-up. Nothing listens there.
pub const RETURN_TO: &str = "http://127.0.0.1:4455/after";

/// The number of pages of identities that no test case reaches.
const MAX_PAGES: usize = 100;

/// The path of the Kratos binary, if there is one.
pub fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KRATOS_BIN").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("kratos"))
        .find(|file| file.is_file())
}

/// The options of kratos.yml.
#[derive(Clone, Debug)]
pub struct KratosOptions {
    /// `profile_first` for a form in two steps, `unified` for one step.
    pub style: &'static str,
    /// The lifespan of registration flows.
    pub lifespan: &'static str,
    /// The extra events with hooks.
    pub extra_events: &'static [ExtraEvent],
    /// Whether hooks enforce late refusals.
    pub late_refusals: LateRefusals,
    /// Whether to remove the `post` hooks of registration.
    pub without_post: bool,
    /// Whether hooks report sign-ups by password with the method `passkey`, so that they contain no identifier.
    pub reported_as_passkey: bool,
    /// An empty database. Without it, Kratos gets a SQLite file.
    pub dsn: Option<String>,
    /// The address of an `OpenID` provider.
    pub provider: Option<String>,
    /// Whether visitors can sign up with a passkey.
    pub passkeys: bool,
    /// The request headers for which hooks and template are printed.
    pub headers: &'static [&'static str],
    /// Changes the identity schema.
    pub schema: Option<fn(&mut Value)>,
}

impl Default for KratosOptions {
    fn default() -> Self {
        Self {
            style: "unified",
            lifespan: "1h",
            extra_events: &[],
            late_refusals: LateRefusals::None,
            without_post: false,
            reported_as_passkey: false,
            dsn: None,
            provider: None,
            passkeys: false,
            headers: &[],
            schema: None,
        }
    }
}

/// A running Kratos.
pub struct Kratos {
    pub public: String,
    pub admin: String,
    pub folder: PathBuf,
    http: reqwest::Client,
    file: PathBuf,
    program: Program,
}

/// The ports of a Kratos. Vestibule starts first and needs the address of the admin API.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    public: u16,
    admin: u16,
}

impl Ports {
    /// Reserves free ports.
    pub fn free() -> Self {
        Self {
            public: port::free(),
            admin: port::free(),
        }
    }

    /// The address of the admin API.
    pub fn admin_url(self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }
}

impl Kratos {
    /// Starts a Kratos that calls hooks at `hooks` with this key.
    pub async fn start(
        folder: &Path,
        kratos_options: &KratosOptions,
        ports: Ports,
        hooks: &str,
        key: &str,
    ) -> Self {
        let public = format!("http://127.0.0.1:{}", ports.public);
        let admin = ports.admin_url();

        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("kratos-config");
        let name = "identity.schema.json";
        std::fs::copy(checkout.join(name), folder.join(name))
            .unwrap_or_else(|error| panic!("kratos-config/{name}: {error}"));
        let headers: Vec<String> = kratos_options
            .headers
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        std::fs::write(folder.join("vestibule.jsonnet"), template(&headers))
            .expect("the template is written");
        if let Some(change) = kratos_options.schema {
            change_schema(folder, change);
        }
        let text =
            std::fs::read_to_string(checkout.join("kratos.yml")).expect("kratos-config/kratos.yml");
        let mut settings: Value = serde_saphyr::from_str(&text).expect("kratos.yml is YAML");
        add_extra_hooks(
            &mut settings,
            kratos_options.extra_events,
            kratos_options.late_refusals,
            kratos_options.headers,
        );
        set_addresses(&mut settings, folder, hooks, key);
        if kratos_options.without_post {
            remove_post_hooks(&mut settings);
        }
        if kratos_options.reported_as_passkey {
            let hooks = &mut settings["selfservice"]["flows"]["registration"]["after"]["password"];
            let replaced = hooks
                .to_string()
                .replace("method=password", "method=passkey");
            *hooks = serde_json::from_str(&replaced).expect("JSON");
        }
        if let Some(url) = &kratos_options.provider {
            settings["selfservice"]["methods"]["oidc"] = json!({
                "enabled": true,
                "config": {"providers": [{
                    "id": "directory", "provider": "generic", "client_id": "kratos", "client_secret": "a-secret-for-the-tests",
                    "issuer_url": url, "scope": ["openid", "email"],
                    "mapper_url": format!("base64://{}", BASE64_STANDARD.encode(CLAIMS)),
                }]},
            });
        }
        if kratos_options.passkeys {
            settings["selfservice"]["methods"]["passkey"] = json!({
                "enabled": true,
                "config": {"rp": {"id": RELYING_PARTY, "display_name": "The tests", "origins": [ORIGIN]}},
            });
        }
        let dsn = kratos_options.dsn.clone();
        settings["dsn"] = json!(dsn.unwrap_or_else(|| sqlite(folder)));
        settings["serve"]["public"]["port"] = json!(ports.public);
        settings["serve"]["public"]["base_url"] = json!(format!("{public}/"));
        settings["serve"]["admin"]["port"] = json!(ports.admin);
        settings["serve"]["admin"]["base_url"] = json!(format!("{admin}/"));
        for server in ["public", "admin"] {
            settings["serve"][server]["host"] = json!("127.0.0.1");
        }
        if kratos_options.late_refusals == LateRefusals::Enforced {
            let recovery = &mut settings["selfservice"]["flows"]["recovery"];
            recovery["enabled"] = json!(true);
            recovery["use"] = json!("code");
        }
        let registration = &mut settings["selfservice"]["flows"]["registration"];
        registration["style"] = json!(kratos_options.style);
        registration["lifespan"] = json!(kratos_options.lifespan);
        let file = folder.join("kratos.json");
        std::fs::write(&file, settings.to_string()).expect("kratos.json is written");

        if let Some(dsn) = &kratos_options.dsn {
            migrate(folder, dsn);
        }
        let mut command = serve(folder, &[&file], &[]);
        let mut program = Program::start("kratos", &mut command, folder.join("kratos.log"));
        program.ready(&format!("{public}/health/ready")).await;
        let http = client_with_timeout(Duration::from_mins(1));
        Self {
            public,
            admin,
            http,
            file,
            folder: folder.to_owned(),
            program,
        }
    }

    /// Stops Kratos, and starts it again with these files in place of kratos.yml, and with these environment variables.
    pub async fn restart(&mut self, files: &[&Path], environment: &[(String, String)]) {
        self.program.kill();
        let mut command = serve(&self.folder, files, environment);
        self.program = Program::start("kratos", &mut command, self.folder.join("kratos.log"));
        let ready = format!("{}/health/ready", self.public);
        self.program.ready(&ready).await;
    }

    /// Runs Kratos with its file and these environment variables, with which it ends by itself. Returns what it printed.
    pub fn refusal_to_start(&mut self, environment: &[(String, String)]) -> String {
        self.program.kill();
        let output = output(&mut serve(&self.folder, &[&self.file], environment));
        assert!(!output.status.success(), "{output:?}");
        let streams =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        streams.concat()
    }

    /// The path of kratos.yml, which is JSON.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The content of kratos.yml.
    pub fn settings(&self) -> Value {
        let text = std::fs::read_to_string(&self.file).expect("kratos.json");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Replaces kratos.yml, which Kratos reloads by itself.
    pub fn replace_settings(&self, settings: &Value) {
        let temporary = self.file.with_extension("new");
        let text = serde_json::to_string_pretty(settings).expect("JSON");
        std::fs::write(&temporary, text).expect("kratos.json is written");
        std::fs::rename(temporary, &self.file).expect("kratos.json is replaced");
    }

    /// Replaces the key in kratos.yml. Also extends the lifespan of registration flows, which shows when Kratos has
    /// reloaded the file.
    pub fn replace_key(&self, old: &str, new: &str) {
        let text = self.settings().to_string();
        assert!(text.contains(old));
        let mut settings: Value = serde_json::from_str(&text.replace(old, new)).expect("JSON");
        settings["selfservice"]["flows"]["registration"]["lifespan"] = json!("2h");
        self.replace_settings(&settings);
    }

    /// Changes the identity schema, which Kratos reads for each request.
    pub fn change_schema(&self, change: impl FnOnce(&mut Value)) {
        change_schema(&self.folder, change);
    }

    /// Replaces the template of the body, which Kratos reads at each call. Returns the previous one.
    pub fn replace_template(&self, template: &str) -> String {
        let file = self.folder.join("vestibule.jsonnet");
        let previous = std::fs::read_to_string(&file).expect("the template");
        std::fs::write(&file, template).expect("the template is written");
        previous
    }

    /// The stored identity.
    pub async fn identity(&self, id: &str) -> Value {
        self.admin(&format!("/admin/identities/{id}")).await
    }

    /// All stored identities.
    pub async fn identities(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut path = Some("/admin/identities?page_size=500".to_owned());
        for _ in 0..MAX_PAGES {
            let Some(page) = path else { return all };
            let response = self.get(&page).await;
            path = next_page(&response);
            let identities: Value = response.json().await.expect("JSON");
            all.extend_from_slice(identities.as_array().expect("a list"));
        }
        panic!("Kratos has more than {MAX_PAGES} pages of identities")
    }

    /// Waits for the code that Kratos mails to this address after `seen` earlier ones.
    pub async fn mailed_code(&self, address: &str, seen: usize) -> String {
        let digits = Regex::new(r"\b\d{6}\b").expect("a pattern");
        eventually(&format!("code {} for {address}", seen + 1), async || {
            let path = format!("/admin/courier/messages?page_size=250&recipient={address}");
            let messages = self.admin(&path).await;
            let mut mine: Vec<&Value> = messages.as_array()?.iter().collect();
            mine.sort_by_key(|message| message["created_at"].as_str().map(str::to_owned));
            let body = mine.get(seen)?["body"].as_str()?;
            Some(digits.find(body)?.as_str().to_owned())
        })
        .await
    }

    /// The recovery code that Kratos has mailed to this address, if any.
    pub async fn recovery_code(&self, address: &str) -> Option<String> {
        let digits = Regex::new(r"\b\d{6}\b").expect("a pattern");
        let messages = self.admin("/admin/courier/messages?page_size=250").await;
        let mine = messages.as_array()?.iter().find(|message| {
            message["recipient"] == address && message["template_type"] == "recovery_code_valid"
        })?;
        Some(digits.find(mine["body"].as_str()?)?.as_str().to_owned())
    }

    /// Creates identities with the admin API, without any hook.
    pub async fn import(&self, identities: &[Value]) {
        let creations: Vec<Value> = identities
            .iter()
            .map(|identity| json!({"create": identity}))
            .collect();
        let response = self
            .http
            .patch(format!("{}/admin/identities", self.admin))
            .json(&json!({"identities": creations}))
            .send()
            .await
            .expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
        let created: Value = response.json().await.expect("JSON");
        let failed = created["identities"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|one| one["action"] != "create");
        assert_eq!(failed, None);
    }

    /// Changes the identity schema so that the existing company names violate it.
    pub fn forbid_company_names(&self) {
        self.change_schema(|schema| {
            schema["properties"]["traits"]["properties"]["company"]["maxLength"] = json!(1);
        });
    }

    /// Removes an optional trait from the identity schema.
    pub fn remove_trait(&self, name: &str) {
        self.change_schema(|schema| {
            let traits = schema["properties"]["traits"]["properties"].as_object_mut();
            let removed = traits.expect("traits").remove(name);
            assert!(removed.is_some(), "{name} is a trait");
        });
    }

    /// The path of kratos.yml, which is JSON here.
    pub fn settings_file(&self) -> &str {
        self.file.to_str().expect("a path")
    }

    /// Sets the state of an identity, as an operator does.
    pub async fn set_state(&self, id: &str, state: &str) {
        let response = self
            .http
            .patch(format!("{}/admin/identities/{id}", self.admin))
            .json(&json!([{"op": "replace", "path": "/state", "value": state}]))
            .send()
            .await
            .expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
    }

    /// Sets a trait of an identity, as an operator does.
    pub async fn set_trait(&self, id: &str, name: &str, value: &str) {
        let path = format!("/traits/{name}");
        let response = self
            .http
            .patch(format!("{}/admin/identities/{id}", self.admin))
            .json(&json!([{"op": "replace", "path": path, "value": value}]))
            .send()
            .await
            .expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
    }

    /// The number of active sessions of an identity.
    pub async fn active_sessions(&self, id: &str) -> usize {
        let url = format!("{}/admin/identities/{id}/sessions?active=true", self.admin);
        let response = self.http.get(url).send().await.expect("a response");
        if response.status() == 404 {
            return 0;
        }
        let sessions: Value = response.json().await.expect("JSON");
        sessions.as_array().map_or(0, Vec::len)
    }

    /// Deletes an identity.
    pub async fn delete(&self, id: &str) {
        let url = format!("{}/admin/identities/{id}", self.admin);
        let response = self.http.delete(url).send().await.expect("a response");
        assert!(response.status().is_success(), "{}", response.status());
    }

    async fn admin(&self, path: &str) -> Value {
        self.get(path).await.json().await.expect("JSON")
    }

    async fn get(&self, path: &str) -> Response {
        let request = self.http.get(format!("{}{path}", self.admin));
        let response = request.send().await.expect("a response");
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        response
    }
}

/// The command that starts Kratos with these files in place of kratos.yml.
fn serve(folder: &Path, files: &[&Path], environment: &[(String, String)]) -> Command {
    let mut command = Command::new(program().expect("kratos on PATH, or KRATOS_BIN"));
    command.args(["serve", "--dev", "--sqa-opt-out"]);
    for file in files {
        command.arg("-c").arg(file);
    }
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(folder);
    command
}

/// Changes the identity schema in this folder.
fn change_schema(folder: &Path, change: impl FnOnce(&mut Value)) {
    let file = folder.join("identity.schema.json");
    let text = std::fs::read_to_string(&file).expect("the schema");
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut schema);
    std::fs::write(&file, schema.to_string()).expect("the schema is written");
}

/// The path of the next page, if there is one.
fn next_page(response: &Response) -> Option<String> {
    let links = response.headers().get(LINK)?.to_str().expect("a text");
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let start = next.find("/admin/identities")?;
    let end = next.find('>')?;
    Some(next[start..end].to_owned())
}

/// Copies a SQLite file with the tables of Kratos and returns its DSN. With a database in memory, Kratos answers parallel requests
/// with errors, because its connections share a cache whose tables they lock.
fn sqlite(folder: &Path) -> String {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = scratch.join(format!("kratos-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&file);
        migrate(
            scratch,
            &format!("sqlite://{}?_fk=true&mode=rwc", file.display()),
        );
        let template = scratch.join("kratos.db");
        std::fs::rename(&file, &template).expect("the file is renamed");
        template
    });
    let file = folder.join("kratos.db");
    std::fs::copy(template, &file).expect("the file is copied");
    format!(
        "sqlite://{}?_fk=true&_journal_mode=WAL&_busy_timeout=20000&_txlock=immediate",
        file.display()
    )
}

/// Creates the tables of Kratos in an empty database.
fn migrate(folder: &Path, dsn: &str) {
    let mut command = Command::new(program().expect("kratos on PATH, or KRATOS_BIN"));
    command
        .args(["migrate", "sql", "-e", "--yes"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("DSN", dsn)
        .current_dir(folder);
    let output = output(&mut command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kratos migrate: {errors}");
}

/// Replaces the hooks with the output of `vestibule kratos hooks --event …`.
fn add_extra_hooks(
    settings: &mut Value,
    extra_events: &[ExtraEvent],
    late_refusals: LateRefusals,
    headers: &[&str],
) {
    let snippet = HookSnippet {
        url: EXAMPLE_URL.to_owned(),
        key: EXAMPLE_KEY.to_owned(),
        body: Body::At(EXAMPLE_BODY.to_owned()),
        headers: headers.iter().map(|name| (*name).to_owned()).collect(),
    };
    let printed = snippet.hooks(&Method::ALL, extra_events, late_refusals);
    let printed: Value = serde_saphyr::from_str(&printed).expect("YAML");
    let flows = printed["selfservice"]["flows"].as_object().expect("flows");
    for (flow, hooks) in flows {
        settings["selfservice"]["flows"][flow]["after"] = hooks["after"].clone();
    }
    if printed["clients"].is_object() {
        settings["clients"] = printed["clients"].clone();
    }
    let verification = extra_events.contains(&ExtraEvent::Verification);
    settings["selfservice"]["flows"]["verification"]["enabled"] = json!(verification);
}

/// Removes the `post` hooks of registration.
fn remove_post_hooks(settings: &mut Value) {
    let after = &mut settings["selfservice"]["flows"]["registration"]["after"];
    for method in after.as_object_mut().expect("methods").values_mut() {
        let Some(hooks) = method["hooks"].as_array_mut() else {
            continue;
        };
        hooks.retain(|hook| {
            let url = hook["config"]["url"].as_str().unwrap_or_default();
            !url.contains("/registration/post")
        });
    }
}

/// Replaces the addresses, files and key of kratos-config/ with those of the test case.
fn set_addresses(settings: &mut Value, folder: &Path, hooks: &str, key: &str) {
    match settings {
        Value::Object(map) => {
            if map.get("hook").is_some_and(|kind| kind == "web_hook") {
                let config = &mut map["config"];
                let url = config["url"].as_str().expect("a hook has a url");
                let path = url
                    .find("/hooks/")
                    .map(|at| &url[at..])
                    .expect("a hook of Vestibule");
                config["url"] = json!(format!("{hooks}{path}"));
                config["auth"]["config"]["value"] = json!(key);
            }
            map.values_mut()
                .for_each(|value| set_addresses(value, folder, hooks, key));
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|value| set_addresses(value, folder, hooks, key)),
        Value::String(text) if text.starts_with("file://") => {
            let name = text.rsplit('/').next().unwrap_or_default();
            *text = format!("file://{}", folder.join(name).display());
        }
        _ => {}
    }
}
