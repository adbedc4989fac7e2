//! `vestibule kratos`: prints the hooks for kratos.yml.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use url::Url;

use crate::config::{self, Environment};
use crate::kratos::snippet::{
    Body, EXAMPLE_URL, ExtraEvent, HookSnippet, LateRefusals, Method, TEMPLATE,
};

/// The placeholder for the key.
const NO_KEY: &str = "PUT-YOUR-KEY-HERE";

/// `vestibule kratos …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the hooks for kratos.yml: for every sign-up method, and for profile changes
    Hooks(Hooks),
}

/// `vestibule kratos hooks …`
#[derive(Debug, Args)]
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
    /// The settings file. If one of its checks can deactivate an existing account, also print the hooks that refuse the owner
    /// of such an account: for logins, recoveries and all settings
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    #[arg(long, exclusive = true)]
    template: bool,
}

impl Command {
    /// Prints the hooks.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Hooks(hooks) = self;
        let can_deactivate = match &hooks.config {
            None => false,
            Some(file) => match config::load(file, &Environment::of_process()) {
                Ok(settings) => settings.can_deactivate(),
                Err(problems) => {
                    eprintln!("{problems}");
                    return Ok(ExitCode::FAILURE);
                }
            },
        };
        let late_refusals = if can_deactivate || hooks.late_refusals {
            LateRefusals::Enforced
        } else {
            LateRefusals::None
        };
        hooks.print(late_refusals, &mut io::stdout().lock())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Hooks {
    /// Prints the hooks or the template.
    pub fn print(&self, late_refusals: LateRefusals, to: &mut impl Write) -> io::Result<()> {
        if self.template {
            return to.write_all(TEMPLATE.as_bytes());
        }
        let (hooked, open): (Vec<Method>, Vec<Method>) = Method::ALL
            .into_iter()
            .partition(|method| self.methods.contains(method));
        let body = if self.inline {
            Body::Inline
        } else {
            Body::At(self.body.clone())
        };
        let calls = HookSnippet {
            url: self.url.clone(),
            key: NO_KEY.to_owned(),
            body,
        };

        writeln!(
            to,
            "# Save this as a file of its own and start Kratos with both: kratos serve -c kratos.yml -c vestibule-hooks.yml\n\
             # A list of the second file replaces the list of the first, so add to each list below the hooks that kratos.yml has there."
        )?;
        if !open.is_empty() {
            writeln!(
                to,
                "#\n# These ways to sign up get around every check unless they are off:"
            )?;
            for method in open {
                writeln!(to, "#   selfservice.methods.{method}.enabled: false")?;
            }
        }
        if let Body::At(address) = &calls.body {
            writeln!(
                to,
                "#\n# The body's template belongs at {address}\n\
                 #   vestibule kratos hooks --template > vestibule.jsonnet"
            )?;
        }
        if late_refusals == LateRefusals::Enforced {
            writeln!(
                to,
                "#\n# A check can deactivate an account that exists. The hooks under `login`, `recovery` and `settings` refuse its\n\
                 # owner; with them, no one can sign in while Vestibule is down.\n\
                 # Put those under `login` and `recovery` before other hooks. Kratos runs `login.after.<method>.hooks` in place of `login.after.hooks`,\n\
                 # so repeat under each method what `login.after.hooks` holds, such as `require_verified_address`."
            )?;
        }
        writeln!(
            to,
            "#\n# The key is one of `hooks.keys` in vestibule.yaml (`vestibule keygen` makes one). Write it in once, in\n\
             # place of {NO_KEY}; or take `value` out and give it to Kratos in each of these variables,\n\
             # without which it then does not start. A number in a name is the position of the hook in its list, from 0.\n\
             # If hooks of yours precede these, print the names anew with `--behind NUMBER`:"
        )?;
        for variable in calls.key_variables(&hooked, &self.events, late_refusals, self.behind) {
            writeln!(to, "#   {variable}")?;
        }
        let hooks = calls.hooks(&hooked, &self.events, late_refusals);
        to.write_all(hooks.as_bytes())
    }
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

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        hooks: Hooks,
    }

    fn printed(arguments: &[&str]) -> String {
        let program = Program::parse_from([&["hooks"], arguments].concat());
        let mut printed = Vec::new();
        let late_refusals = if program.hooks.late_refusals {
            LateRefusals::Enforced
        } else {
            LateRefusals::None
        };
        program
            .hooks
            .print(late_refusals, &mut printed)
            .expect("it is printed");
        String::from_utf8(printed).expect("text")
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
        assert_eq!(printed(&["--template"]), TEMPLATE);
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
