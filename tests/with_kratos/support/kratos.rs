//! A Kratos of its own for one scene, with the files of kratos-config/.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::Regex;
use reqwest::Response;
use reqwest::header::LINK;
use serde_json::{Value, json};
use vestibule::kratos::snippet::{
    Body, EXAMPLE_BODY, EXAMPLE_KEY, EXAMPLE_URL, ExtraEvent, HookSnippet, LateRefusals, Method,
};

use super::passkey::{ORIGIN, RELYING_PARTY};
use super::program::Program;
use super::{eventually, port};

/// What Kratos takes over from the `OpenID` provider.
const CLAIMS: &str =
    "local claims = std.extVar('claims'); {identity: {traits: {email: claims.email}}}";
/// Where browsers go after a sign-up; nobody answers there.
pub const RETURN_TO: &str = "http://127.0.0.1:4455/after";

/// Where Kratos is, if it is anywhere.
pub fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KRATOS_BIN").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("kratos"))
        .find(|file| file.is_file())
}

/// What a scene wants of kratos.yml.
#[derive(Clone, Debug)]
pub struct KratosOptions {
    /// `profile_first` asks in two steps, `unified` in one.
    pub style: &'static str,
    /// How long a registration may take.
    pub lifespan: &'static str,
    /// What else it shall tell of.
    pub besides: &'static [ExtraEvent],
    /// Whether people are kept out whose account was refused late.
    pub late_refusals: LateRefusals,
    /// Whether the `post` hooks of registration are taken out.
    pub without_post: bool,
    /// Whether sign-ups by password are told of as if by a passkey, of which hooks are not told the identifier.
    pub disguised: bool,
    /// An empty database; without it a SQLite file of its own.
    pub dsn: Option<String>,
    /// The address of an `OpenID` provider.
    pub provider: Option<String>,
    /// Whether people can sign up with a passkey.
    pub passkeys: bool,
}

impl Default for KratosOptions {
    fn default() -> Self {
        Self {
            style: "unified",
            lifespan: "1h",
            besides: &[],
            late_refusals: LateRefusals::None,
            without_post: false,
            disguised: false,
            dsn: None,
            provider: None,
            passkeys: false,
        }
    }
}

/// A running Kratos.
pub struct Kratos {
    pub public: String,
    pub admin: String,
    http: reqwest::Client,
    file: PathBuf,
    folder: PathBuf,
    _program: Program,
}

/// Where a Kratos will be: Vestibule, which starts first, is to know its admin API.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    public: u16,
    admin: u16,
}

impl Ports {
    /// Free ones.
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
    /// Starts one that calls its hooks at `hooks`, with this key.
    pub async fn start(
        folder: &Path,
        wishes: &KratosOptions,
        ports: Ports,
        hooks: &str,
        key: &str,
    ) -> Self {
        let public = format!("http://127.0.0.1:{}", ports.public);
        let admin = ports.admin_url();

        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("kratos-config");
        for name in ["identity.schema.json", "vestibule.jsonnet"] {
            std::fs::copy(checkout.join(name), folder.join(name))
                .unwrap_or_else(|error| panic!("kratos-config/{name}: {error}"));
        }
        let text =
            std::fs::read_to_string(checkout.join("kratos.yml")).expect("kratos-config/kratos.yml");
        let mut settings: Value = serde_saphyr::from_str(&text).expect("kratos.yml is YAML");
        tells_besides(&mut settings, wishes.besides, wishes.late_refusals);
        at_home(&mut settings, folder, hooks, key);
        if wishes.without_post {
            takes_out_post(&mut settings);
        }
        if wishes.disguised {
            let hooks = &mut settings["selfservice"]["flows"]["registration"]["after"]["password"];
            let told = hooks
                .to_string()
                .replace("method=password", "method=passkey");
            *hooks = serde_json::from_str(&told).expect("JSON");
        }
        if let Some(url) = &wishes.provider {
            settings["selfservice"]["methods"]["oidc"] = json!({
                "enabled": true,
                "config": {"providers": [{
                    "id": "directory", "provider": "generic", "client_id": "kratos", "client_secret": "a-secret-for-the-tests",
                    "issuer_url": url, "scope": ["openid", "email"],
                    "mapper_url": format!("base64://{}", BASE64_STANDARD.encode(CLAIMS)),
                }]},
            });
        }
        if wishes.passkeys {
            settings["selfservice"]["methods"]["passkey"] = json!({
                "enabled": true,
                "config": {"rp": {"id": RELYING_PARTY, "display_name": "The tests", "origins": [ORIGIN]}},
            });
        }
        let dsn = wishes.dsn.clone();
        settings["dsn"] = json!(dsn.unwrap_or_else(|| sqlite(folder)));
        settings["serve"]["public"]["port"] = json!(ports.public);
        settings["serve"]["public"]["base_url"] = json!(format!("{public}/"));
        settings["serve"]["admin"]["port"] = json!(ports.admin);
        settings["serve"]["admin"]["base_url"] = json!(format!("{admin}/"));
        for server in ["public", "admin"] {
            settings["serve"][server]["host"] = json!("127.0.0.1");
        }
        if wishes.late_refusals == LateRefusals::Enforced {
            let recovery = &mut settings["selfservice"]["flows"]["recovery"];
            recovery["enabled"] = json!(true);
            recovery["use"] = json!("code");
        }
        let registration = &mut settings["selfservice"]["flows"]["registration"];
        registration["style"] = json!(wishes.style);
        registration["lifespan"] = json!(wishes.lifespan);
        let file = folder.join("kratos.json");
        std::fs::write(&file, settings.to_string()).expect("kratos.json is written");

        if let Some(dsn) = &wishes.dsn {
            migrate(folder, dsn);
        }
        let mut command = Command::new(program().expect("kratos on PATH, or KRATOS_BIN"));
        command
            .args(["serve", "--dev", "--sqa-opt-out", "-c"])
            .arg(&file)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder)
            .current_dir(folder);
        let mut program = Program::start("kratos", &mut command, folder.join("kratos.log"));
        program.ready(&format!("{public}/health/ready")).await;
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        Self {
            public,
            admin,
            http,
            file,
            folder: folder.to_owned(),
            _program: program,
        }
    }

    /// Writes another key into kratos.yml, which Kratos reads again by itself, and lets a registration
    /// take longer from then on, so that one can see when it has.
    pub fn calls_with_key(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(&self.file).expect("kratos.json");
        assert!(text.contains(old));
        let mut settings: Value = serde_json::from_str(&text.replace(old, new)).expect("JSON");
        settings["selfservice"]["flows"]["registration"]["lifespan"] = json!("2h");
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, settings.to_string()).expect("kratos.json is written");
        std::fs::rename(beside, &self.file).expect("kratos.json is replaced");
    }

    /// An account as it is stored.
    pub async fn identity(&self, id: &str) -> Value {
        self.admin(&format!("/admin/identities/{id}")).await
    }

    /// All accounts.
    pub async fn identities(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut path = Some("/admin/identities?page_size=500".to_owned());
        while let Some(page) = path {
            let answer = self.get(&page).await;
            path = next_page(&answer);
            let identities: Value = answer.json().await.expect("JSON");
            all.extend_from_slice(identities.as_array().expect("a list"));
        }
        all
    }

    /// The code that was mailed to this address last, after `seen` earlier ones.
    pub async fn code_mailed_to(&self, address: &str, seen: usize) -> String {
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

    /// The code by which this address can recover its account, once it is mailed.
    pub async fn recovery_code(&self, address: &str) -> Option<String> {
        let digits = Regex::new(r"\b\d{6}\b").expect("a pattern");
        let messages = self.admin("/admin/courier/messages?page_size=250").await;
        let mine = messages.as_array()?.iter().find(|message| {
            message["recipient"] == address && message["template_type"] == "recovery_code_valid"
        })?;
        Some(digits.find(mine["body"].as_str()?)?.as_str().to_owned())
    }

    /// Makes identities by the admin API, past every hook.
    pub async fn import(&self, identities: &[Value]) {
        let creations: Vec<Value> = identities
            .iter()
            .map(|identity| json!({"create": identity}))
            .collect();
        let answer = self
            .http
            .patch(format!("{}/admin/identities", self.admin))
            .json(&json!({"identities": creations}))
            .send()
            .await
            .expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        let made: Value = answer.json().await.expect("JSON");
        let failed = made["identities"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|one| one["action"] != "create");
        assert_eq!(failed, None);
    }

    /// From now on the identity schema forbids the company names that people have. Kratos reads it anew for each request.
    pub fn forbids_company_names(&self) {
        let file = self.folder.join("identity.schema.json");
        let text = std::fs::read_to_string(&file).expect("the schema");
        let mut schema: Value = serde_json::from_str(&text).expect("JSON");
        schema["properties"]["traits"]["properties"]["company"]["maxLength"] = json!(1);
        std::fs::write(&file, schema.to_string()).expect("the schema is written");
    }

    /// An operator sets the state of an account.
    pub async fn set_state(&self, id: &str, state: &str) {
        let answer = self
            .http
            .patch(format!("{}/admin/identities/{id}", self.admin))
            .json(&json!([{"op": "replace", "path": "/state", "value": state}]))
            .send()
            .await
            .expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// The sessions of an account that are active.
    pub async fn active_sessions(&self, id: &str) -> usize {
        let url = format!("{}/admin/identities/{id}/sessions?active=true", self.admin);
        let answer = self.http.get(url).send().await.expect("an answer");
        if answer.status() == 404 {
            return 0;
        }
        let sessions: Value = answer.json().await.expect("JSON");
        sessions.as_array().map_or(0, Vec::len)
    }

    /// Deletes an account.
    pub async fn delete(&self, id: &str) {
        let url = format!("{}/admin/identities/{id}", self.admin);
        let answer = self.http.delete(url).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    async fn admin(&self, path: &str) -> Value {
        self.get(path).await.json().await.expect("JSON")
    }

    async fn get(&self, path: &str) -> Response {
        let request = self.http.get(format!("{}{path}", self.admin));
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer
    }
}

/// The path of the page after this one, if there is one.
fn next_page(answer: &Response) -> Option<String> {
    let links = answer.headers().get(LINK)?.to_str().expect("a text");
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let start = next.find("/admin/identities")?;
    let end = next.find('>')?;
    Some(next[start..end].to_owned())
}

/// A SQLite file with the tables of Kratos, a copy of one that is made once. In memory, Kratos answers parallel requests with
/// errors, because its connections share a cache whose tables they lock.
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
    let output = Command::new(program().expect("kratos on PATH, or KRATOS_BIN"))
        .args(["migrate", "sql", "-e", "--yes"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("DSN", dsn)
        .current_dir(folder)
        .output()
        .expect("kratos migrate");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kratos migrate: {complained}");
}

/// Adds what `vestibule kratos hooks --event …` prints, beside the hooks that are there.
fn tells_besides(settings: &mut Value, besides: &[ExtraEvent], late_refusals: LateRefusals) {
    let calls = HookSnippet {
        url: EXAMPLE_URL.to_owned(),
        key: EXAMPLE_KEY.to_owned(),
        body: Body::At(EXAMPLE_BODY.to_owned()),
    };
    let printed = calls.hooks(&Method::ALL, besides, late_refusals);
    let printed: Value = serde_saphyr::from_str(&printed).expect("YAML");
    let flows = printed["selfservice"]["flows"].as_object().expect("flows");
    for (flow, hooks) in flows {
        settings["selfservice"]["flows"][flow]["after"] = hooks["after"].clone();
    }
    let verification = besides.contains(&ExtraEvent::Verification);
    settings["selfservice"]["flows"]["verification"]["enabled"] = json!(verification);
}

/// Takes out what tells Vestibule of an account.
fn takes_out_post(settings: &mut Value) {
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

/// Puts our addresses, files and key in place of those of kratos-config/.
fn at_home(settings: &mut Value, folder: &Path, hooks: &str, key: &str) {
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
                .for_each(|value| at_home(value, folder, hooks, key));
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|value| at_home(value, folder, hooks, key)),
        Value::String(text) if text.starts_with("file://") => {
            let name = text.rsplit('/').next().unwrap_or_default();
            *text = format!("file://{}", folder.join(name).display());
        }
        _ => {}
    }
}
