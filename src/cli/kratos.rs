//! `vestibule kratos`: prints the hooks for kratos.yml.

mod lint;
mod running;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use url::Url;

use crate::base::clock::Clock;
use crate::config::{self, Environment, Settings};
use crate::kratos::snippet::{Body, EXAMPLE_URL, ExtraEvent, HookSnippet, LateRefusals, Method};
use crate::kratos::template::{header_allowlist, template};
use crate::model::delivery::Event;

/// The placeholder for the key.
const NO_KEY: &str = "PUT-YOUR-KEY-HERE";
const ALLOWLIST: &str = "\
#
# The settings read request headers that Kratos does not pass to hooks by default. `clients.web_hook.header_allowlist` replaces
# Kratos's default and the list in kratos.yml, so add the entries that kratos.yml has there.";
const LATE_REFUSALS: &str = "\
#
# A check can deactivate an account that exists. The hooks under `login`, `recovery` and `settings` refuse its
# owner; with them, no one can sign in while Vestibule is down.
# Put those under `login` and `recovery` before other hooks. Kratos runs `login.after.<method>.hooks` in place of `login.after.hooks`,
# so repeat under each method what `login.after.hooks` holds, such as `require_verified_address`.";

/// `vestibule kratos …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the hooks for kratos.yml: for every sign-up method, and for profile changes
    Hooks(Hooks),
    /// Check kratos.yml, identity schemas and settings against each other
    Lint(lint::Lint),
}

/// `vestibule kratos hooks …`
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub struct Hooks {
    /// The URL at which Kratos reaches Vestibule
    #[arg(long, default_value = EXAMPLE_URL, value_parser = base)]
    url: String,
    /// Only these sign-up methods; all others must be disabled in kratos.yml
    #[arg(
        long = "method",
        value_name = "METHOD",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(Method::ALL.map(Method::as_str))
            .try_map(|name| Method::named(&name).ok_or("this method has no hooks")),
        default_values = Method::ALL.map(Method::as_str),
    )]
    methods: Vec<Method>,
    /// Also print the hooks of these events; `identity.created`, `identity.updated`, `registration.failed` and `check.refused` need no
    /// extra hooks
    #[arg(
        long = "event",
        value_name = "EVENT",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(ExtraEvent::ALL.map(ExtraEvent::as_str))
            .try_map(|name| ExtraEvent::named(&name).ok_or("this event needs no extra hooks")),
    )]
    events: Vec<ExtraEvent>,
    /// The settings file. Prints what its settings need: the template with the request headers that they read, the headers that
    /// Kratos must pass to it, the hooks of their events, and, if a check can deactivate an existing account, the hooks that refuse
    /// the owner of such an account (for logins, recoveries and all settings)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read the settings file where its environment variables and secret files are missing, as in CI
    #[arg(long, requires = "config")]
    allow_missing_env: bool,
    /// Also print the hooks that refuse the owners of accounts that a late refusal deactivated, without reading a settings file
    #[arg(long)]
    late_refusals: bool,
    /// Put the template of the body into the hooks, so that Kratos needs no other file
    #[arg(long)]
    inline: bool,
    /// The address at which Kratos finds the template of the body
    #[arg(
        long,
        value_name = "URI",
        default_value = "file:///etc/config/kratos/vestibule.jsonnet",
        conflicts_with = "inline"
    )]
    body: String,
    /// The number of other hooks before these in each list. The names of the key's environment variables depend on it
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    behind: usize,
    /// Print only the template of the body
    #[arg(
        long,
        conflicts_with_all = ["url", "methods", "events", "late_refusals", "inline", "body", "behind"]
    )]
    template: bool,
}

/// What must be printed for the settings.
#[derive(Debug, Default)]
struct Needs {
    /// The request headers besides those that every template sends.
    headers: Vec<String>,
    /// The extra events of the subscriptions.
    events: Vec<ExtraEvent>,
    late_refusals: LateRefusals,
}

impl Needs {
    fn of(settings: &Settings) -> Self {
        let wants = |event: &Event| {
            let mut subscriptions = settings.subscriptions.iter();
            subscriptions.any(|subscription| subscription.events.contains(event))
        };
        let events = [
            (ExtraEvent::Credentials, Event::CredentialsChanged),
            (ExtraEvent::Verification, Event::IdentityVerified),
        ];
        let events = events.into_iter().filter(|(_, event)| wants(event));
        Self {
            headers: settings.hooks.body_needs.headers.clone(),
            events: events.map(|(extra, _)| extra).collect(),
            late_refusals: if settings.can_deactivate() {
                LateRefusals::Enforced
            } else {
                LateRefusals::None
            },
        }
    }
}

impl Command {
    /// Runs the command.
    pub async fn run(self, clock: Clock) -> anyhow::Result<ExitCode> {
        let hooks = match self {
            Self::Hooks(hooks) => hooks,
            Self::Lint(lint) => return Ok(lint.run(clock).await),
        };
        let needs = match &hooks.config {
            None => Needs::default(),
            Some(file) => match config::load(file, &hooks.environment()) {
                Ok(settings) => Needs::of(&settings),
                Err(problems) => {
                    eprintln!("{problems}");
                    return Ok(ExitCode::FAILURE);
                }
            },
        };
        hooks.print(needs, &mut io::stdout().lock())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Hooks {
    fn environment(&self) -> Environment {
        let environment = Environment::of_process();
        if self.allow_missing_env {
            environment.allowing_missing()
        } else {
            environment
        }
    }

    /// Prints the hooks or the template.
    fn print(&self, mut needs: Needs, to: &mut impl Write) -> io::Result<()> {
        if self.template {
            return to.write_all(template(&needs.headers).as_bytes());
        }
        if self.late_refusals {
            needs.late_refusals = LateRefusals::Enforced;
        }
        let wanted =
            |event: &ExtraEvent| self.events.contains(event) || needs.events.contains(event);
        needs.events = ExtraEvent::ALL.into_iter().filter(wanted).collect();
        let methods = Method::ALL.into_iter();
        let hooked: Vec<Method> = methods.filter(|one| self.methods.contains(one)).collect();
        let calls = HookSnippet {
            url: self.url.clone(),
            key: NO_KEY.to_owned(),
            body: if self.inline {
                Body::Inline
            } else {
                Body::At(self.body.clone())
            },
            headers: needs.headers,
        };
        self.print_instructions(&calls, needs.late_refusals, to)?;
        let variables =
            calls.key_variables(&hooked, &needs.events, needs.late_refusals, self.behind);
        for variable in variables {
            writeln!(to, "#   {variable}")?;
        }
        let hooks = calls.hooks(&hooked, &needs.events, needs.late_refusals);
        to.write_all(hooks.as_bytes())
    }

    /// Prints what the operator must do, up to the list of the key's variables.
    fn print_instructions(
        &self,
        calls: &HookSnippet,
        late_refusals: LateRefusals,
        to: &mut impl Write,
    ) -> io::Result<()> {
        writeln!(
            to,
            "# Save this as a file of its own and start Kratos with both: kratos serve -c kratos.yml -c vestibule-hooks.yml\n\
             # A list of the second file replaces the list of the first, so add to each list below the hooks that kratos.yml has there."
        )?;
        let methods = Method::ALL.into_iter();
        let open: Vec<Method> = methods.filter(|one| !self.methods.contains(one)).collect();
        if !open.is_empty() {
            writeln!(
                to,
                "#\n# These ways to sign up get around every check unless they are off:"
            )?;
            for method in open {
                writeln!(to, "#   selfservice.methods.{method}.enabled: false")?;
                if method == Method::Code {
                    // It enables the method, whatever `enabled` is.
                    writeln!(
                        to,
                        "#   selfservice.methods.{method}.passwordless_enabled: false"
                    )?;
                }
            }
        }
        if let Body::At(address) = &calls.body {
            let config = if calls.headers.is_empty() {
                ""
            } else {
                " --config vestibule.yaml"
            };
            writeln!(
                to,
                "#\n# The body's template belongs at {address}\n\
                 #   vestibule kratos hooks --template{config} > vestibule.jsonnet"
            )?;
        }
        if header_allowlist(&calls.headers).is_some() {
            writeln!(to, "{ALLOWLIST}")?;
        }
        if late_refusals == LateRefusals::Enforced {
            writeln!(to, "{LATE_REFUSALS}")?;
        }
        writeln!(
            to,
            "#\n# The key is one of `hooks.keys` in vestibule.yaml (`vestibule keygen` makes one). Write it in once, in\n\
             # place of the placeholder; or take `value` out and give it to Kratos in each of these variables,\n\
             # without which it then does not start. A number in a name is the position of the hook in its list, from 0.\n\
             # If hooks of yours precede these, print the names anew with `--behind NUMBER`:"
        )
    }
}

/// Parses the address of an API of Kratos.
pub(super) fn api_address(text: &str) -> Result<Url, String> {
    Url::parse(&base(text)?).map_err(|error| error.to_string())
}

/// Parses an address to which paths can be appended.
fn base(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("a URL must begin with http:// or https://".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL must end with the host, the port or a path".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Kratos shows the address to visitors when a call fails.
        return Err("the URL must not contain credentials".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::path::Path;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        hooks: Hooks,
    }

    fn printed(arguments: &[&str]) -> String {
        printed_for(Needs::default(), arguments)
    }

    fn printed_for(needs: Needs, arguments: &[&str]) -> String {
        let program = Program::parse_from([&["hooks"], arguments].concat());
        let mut printed = Vec::new();
        program
            .hooks
            .print(needs, &mut printed)
            .expect("it is printed");
        String::from_utf8(printed).expect("text")
    }

    fn needs(settings: &str) -> Needs {
        let environment = Environment::of([]);
        let settings = config::read(settings, Path::new("vestibule.yaml"), &environment);
        Needs::of(&settings.unwrap_or_else(|problems| panic!("{problems}")))
    }

    #[test]
    fn the_settings_decide_what_is_printed() {
        let crm = |events: &str| {
            format!(
                "subscriptions: {{crm: {{events: [{events}], send: {{post: \"http://crm/\"}}}}}}"
            )
        };
        for (settings, headers, events, late_refusals) in [
            ("{}".to_owned(), vec![], vec![], LateRefusals::None),
            (
                "hooks: {headers: [x-country, User-Agent, DNT], client_ip: {header: X-Forwarded-For}}".to_owned(),
                vec!["Dnt", "X-Country", "X-Forwarded-For"],
                vec![],
                LateRefusals::None,
            ),
            (
                crm("identity.verified, credentials.changed"),
                vec![],
                vec![ExtraEvent::Credentials, ExtraEvent::Verification],
                LateRefusals::None,
            ),
            (crm("identity.created, identity.updated"), vec![], vec![], LateRefusals::None),
            (
                "kratos: {admin_url: \"http://k\"}\nchecks: {a: {field: traits.a, ask: {get: \"http://s/\"}, on_unavailable: defer, refuse: [{when: 404}]}}".to_owned(),
                vec![],
                vec![],
                LateRefusals::Enforced,
            ),
        ] {
            let needs = needs(&settings);
            assert_eq!(needs.headers, headers, "{settings}");
            assert_eq!(needs.events, events, "{settings}");
            assert_eq!(needs.late_refusals, late_refusals, "{settings}");
        }
    }

    #[test]
    fn the_headers_of_the_settings_are_printed_into_allowlist_and_template() {
        const SETTINGS: &str =
            "hooks: {headers: [X-Country], client_ip: {header: X-Forwarded-For}}";
        let hooks = printed_for(needs(SETTINGS), &["--method", "password"]);
        insta::assert_snapshot!(hooks);
        let printed = printed_for(
            needs(SETTINGS),
            &["--template", "--config", "vestibule.yaml"],
        );
        let headers = ["X-Country", "X-Forwarded-For"].map(ToOwned::to_owned);
        assert_eq!(printed, template(&headers));
    }

    #[test]
    fn events_of_arguments_and_settings_are_both_printed() {
        let needs = Needs {
            events: vec![ExtraEvent::Verification],
            ..Needs::default()
        };
        let printed = printed_for(needs, &["--event", "credentials.changed"]);
        assert!(printed.contains("/hooks/verification/post"));
        assert!(printed.contains("/hooks/settings/post?method=totp"));
    }

    #[test]
    fn the_hooks_for_kratos_yml_are_printed() {
        insta::assert_snapshot!(printed(&[
            "--url",
            "https://vestibule.example.com/",
            "--method",
            "code,password"
        ]));
    }

    /// `sed` puts the key in place of the placeholder, and a key does not belong into a comment.
    #[test]
    fn no_comment_contains_the_placeholder_of_the_key() {
        for arguments in [
            &["--inline"][..],
            &["--late-refusals"],
            &["--method", "password"],
        ] {
            let printed = printed(arguments);
            assert_eq!(printed.matches(NO_KEY).count(), 1, "{printed}");
            let mut comments = printed.lines().filter(|line| line.starts_with('#'));
            assert!(!comments.any(|line| line.contains(NO_KEY)), "{printed}");
        }
    }

    #[test]
    fn all_methods_are_hooked_by_default_and_the_template_can_be_inline() {
        let printed = printed(&["--inline"]);
        for method in Method::ALL {
            assert!(printed.contains(&format!("/hooks/registration/pre?method={method}")));
        }
        assert!(printed.contains("body: &vestibule_body \"base64://"));
        assert!(!printed.contains("file://") && !printed.contains("enabled: false"));
    }

    #[test]
    fn the_hooks_for_late_refusals_are_printed_with_instructions() {
        insta::assert_snapshot!(printed(&[
            "--url",
            "http://v:4480",
            "--method",
            "password",
            "--late-refusals"
        ]));
    }

    #[test]
    fn only_the_template_is_printed() {
        assert_eq!(printed(&["--template"]), template(&[]));
    }

    #[test]
    fn an_address_that_paths_cannot_follow_is_refused() {
        assert_eq!(base("http://v:4480/in/").as_deref(), Ok("http://v:4480/in"));
        for wrong in [
            "vestibule:4480",
            "ftp://v",
            "http://v/?a=b",
            "http://v/#a",
            "http://key@v",
            "http://",
        ] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }
}
