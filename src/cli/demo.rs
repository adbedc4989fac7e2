//! Everything on one machine in one process, with example services.

mod kratos;
mod page;
mod services;
mod story;

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use uuid::Uuid;

use self::story::{Sender, say, sign_up};
use super::keygen;
use super::serve::told_to_stop;
use crate::app::{App, Surroundings};
use crate::config::{self, Environment};
use crate::telemetry;

/// The settings that the demo runs on.
const SETTINGS: &str = include_str!("../../examples/settings/company.yaml");

/// Options of the demo.
#[derive(Debug, Args)]
pub struct Options {
    /// Also start the `kratos` of PATH (or of `KRATOS_BIN`), and a page to sign up on
    #[arg(long)]
    kratos: bool,
    /// Stop after the example sign-ups instead of staying up
    #[arg(long)]
    once: bool,
}

/// Runs the demo until it is told to stop.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let register = services::vat_register()?;
    let crm = services::crm()?;
    let key = keygen::key()?;
    let app = start(
        folder.path(),
        &key,
        &format!("http://{}", register.address),
        &format!("http://{}", crm.address),
    )
    .await?;
    let hooks = format!("http://{}", app.hooks_address);
    say("Vestibule demo: a company signs up with a VAT number and an invite code.\n");
    say(&format!(
        "   Vestibule     {hooks}  (metrics: http://{}/metrics)",
        app.admin_address
    ));
    say(&format!(
        "   VAT register  http://{}  (an example service, in this process)",
        register.address
    ));
    say(&format!(
        "   CRM           http://{}  (an example service, in this process)",
        crm.address
    ));
    say(&format!(
        "   database      {}\n",
        folder.path().join("vestibule.db").display()
    ));

    let sender = Sender::new(hooks.clone(), key.clone())?;
    tell(&app, &sender).await?;

    if !options.once {
        let running = if options.kratos {
            Some(kratos::start(folder.path(), &hooks, &key).await?)
        } else {
            None
        };
        match &running {
            Some(kratos) => {
                let page = page::start(&kratos.public_url)?;
                say(&format!(
                    "\nA real Kratos runs at {}. Sign up here:\n\n   {page}/registration\n",
                    kratos.public_url
                ));
                say(&format!(
                    "VAT numbers that are registered: {}",
                    registered()
                ));
                say("Invite codes: WELCOME-2026, FRIENDS-2026, or none.");
            }
            None => try_more(&hooks, &key),
        }
        say("\nCtrl-C ends it.");
        told_to_stop().await?;
        if let Some(kratos) = running {
            kratos.stop().await;
        }
    }
    app.stop().await;
    register.handle.stop(false).await;
    crm.handle.stop(false).await;
    Ok(ExitCode::SUCCESS)
}

async fn start(folder: &Path, key: &str, register: &str, crm: &str) -> anyhow::Result<App> {
    let port = |wanted: u16| {
        if TcpListener::bind(("127.0.0.1", wanted)).is_ok() {
            wanted
        } else {
            0
        }
        .to_string()
    };
    let environment = Environment::of(
        [
            ("VESTIBULE_KEY", key.to_owned()),
            (
                "VESTIBULE_DSN",
                format!("sqlite://{}", folder.join("vestibule.db").display()),
            ),
            ("VESTIBULE_PORT", port(4480)),
            ("VESTIBULE_ADMIN_PORT", port(4481)),
            ("VAT_REGISTER", register.to_owned()),
            ("CRM", crm.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let settings = config::read(
        SETTINGS,
        Path::new("examples/settings/company.yaml"),
        &environment,
    )
    .map_err(|problems| anyhow::anyhow!("{problems}"))?;
    telemetry::log_to(std::io::stderr, settings.log.level, settings.log.format)
        .map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    App::start(settings, Surroundings::default()).await
}

/// Two sign-ups, one good and one bad.
async fn tell(app: &App, sender: &Sender) -> anyhow::Result<()> {
    say("1. A good sign-up. Before Kratos saves the account, it asks:\n");
    sender
        .call("pre", &sign_up("DE811115368", "WELCOME-2026", Uuid::nil()))
        .await?;
    say("\n   Kratos saves the account and tells:\n");
    sender
        .call(
            "post",
            &sign_up("DE811115368", "WELCOME-2026", Uuid::new_v4()),
        )
        .await?;
    delivered(app).await?;
    say("\n2. A bad sign-up: a VAT number that nobody has, an invite code that is none.\n");
    sender
        .call("pre", &sign_up("DE000000000", "LET-ME-IN", Uuid::nil()))
        .await?;
    say("\n   Kratos shows these words beside the fields and saves nothing.");
    say("\n3. Not even a VAT number: nobody is asked.\n");
    sender
        .call("pre", &sign_up("D", "FRIENDS-2026", Uuid::nil()))
        .await?;
    Ok(())
}

/// Waits until nothing is pending.
async fn delivered(app: &App) -> anyhow::Result<()> {
    let clock = crate::clock::Clock::system();
    for _ in 0..100 {
        if app.store.backlog().await?.pending == 0 {
            say("               delivered     nothing is left to do");
            return Ok(());
        }
        clock.sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("the delivery did not arrive within 5 s")
}

fn registered() -> String {
    services::REGISTERED.map(|(number, _)| number).join(", ")
}

/// Lines to be pasted into a shell.
fn try_more(hooks: &str, key: &str) {
    let curl = |vat_number: &str, invite: &str| {
        let body = sign_up(vat_number, invite, Uuid::nil()).to_string();
        format!(
            "   curl -i '{hooks}/hooks/registration/pre?method=password' \\\n     -H 'X-Vestibule-Key: {key}' -H 'Content-Type: application/json' \\\n     -d '{body}'\n"
        )
    };
    say(&format!(
        "\nTry more. VAT numbers that are registered: {}\n",
        registered()
    ));
    say(&curl("FR40303265045", "FRIENDS-2026"));
    say(&curl("XX1", ""));
    say(&format!("   curl -i '{hooks}/health/ready'"));
}
