//! `vestibule demo`: Vestibule and the example services in one process.

mod call;
pub mod fake_kratos;
mod kratos;
mod page;
mod services;
mod sign_up;
mod ui;
mod walkthrough;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use clap::Args;

use crate::app::{App, Overrides, ignore_hang_ups, shutdown_signal};
use crate::base::clock::{Clock, Timestamp};
use crate::base::secret::random_key;
use crate::base::telemetry;
use crate::config::{self, Environment};
use crate::demo::call::Sender;
use crate::demo::services::{Example, RequestLog, Service};
use crate::demo::sign_up::SignUps;
use crate::demo::walkthrough::say;

/// The settings of the demo.
const SETTINGS: &str = include_str!("../../examples/settings/company.yaml");

/// An address on which no program listens. The sign-ups of a demo without Kratos exist in no Kratos.
const NO_KRATOS: &str = "http://127.0.0.1:9";

/// The options of `vestibule demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Also start the `kratos` on PATH (or `KRATOS_BIN`), and a sign-up page
    #[arg(long)]
    kratos: bool,
    /// Stop after the example sign-ups
    #[arg(long, conflicts_with = "kratos")]
    once: bool,
    /// Run only the example services, for a Vestibule that runs elsewhere
    #[arg(long, conflicts_with_all = ["kratos", "once"])]
    services_only: bool,
    /// The address of the example services
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "services_only",
        default_value = "127.0.0.1:9400"
    )]
    listen: SocketAddr,
}

/// Runs the demo until a signal stops it.
pub async fn run(options: &Options, clock: &Clock) -> anyhow::Result<ExitCode> {
    ignore_hang_ups()?;
    if options.services_only {
        services::serve_standalone(options.listen, clock.clone()).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let request_log = RequestLog::new(clock.clone());
    let register = Arc::new(Example::start(Service::register(&request_log))?);
    let crm = Arc::new(Example::start(Service::crm(&request_log))?);
    let key = random_key()?;
    let app = start(
        folder.path(),
        &key,
        &format!("http://{}", register.address),
        &format!("http://{}", crm.address),
        if options.kratos {
            kratos::ADMIN_URL
        } else {
            NO_KRATOS
        },
    )
    .await?;
    let hooks = format!("http://{}", app.hooks_address);
    print_addresses(&app, &hooks, &register, &crm, folder.path());

    request_log.verbose.store(true, Ordering::Relaxed);
    let sender = Sender::new(hooks.clone(), key.clone(), clock.clone())?;
    walkthrough::run(&app, &sender, clock).await?;
    request_log.verbose.store(false, Ordering::Relaxed);

    if !options.once {
        let kratos = if options.kratos {
            Some(kratos::start(folder.path(), &hooks, &key, clock).await?)
        } else {
            None
        };
        let sign_up_page = kratos
            .as_ref()
            .map(|kratos| page::start(&kratos.public_url))
            .transpose()?;
        let real = sign_up_page.map(|page| format!("{page}/registration"));
        let page = ui::start(ui::AppState {
            sign_ups: SignUps::new(
                sender,
                Arc::clone(&request_log),
                app.store.clone(),
                clock.clone(),
            ),
            request_log,
            register: Arc::clone(&register),
            crm: Arc::clone(&crm),
            kratos: real.clone(),
            clock: clock.clone(),
        })?;
        print_curl(&hooks, &key, clock.now());
        say(&format!(
            "\nNow sign up yourself, and see the calls and the deliveries. Open this page:\n\n   http://{}/\n",
            page.address
        ));
        if let (Some(kratos), Some(real)) = (&kratos, &real) {
            say(&format!(
                "A real Kratos runs at {}. Sign up with it at {real}",
                kratos.public_url
            ));
        }
        say("Press Ctrl-C to stop.\n");
        shutdown_signal().await?;
        page.handle.stop(false).await;
        if let Some(kratos) = kratos {
            kratos.stop().await;
        }
    }
    app.stop().await;
    register.stop().await;
    crm.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn print_addresses(app: &App, hooks: &str, register: &Example, crm: &Example, folder: &Path) {
    say("Vestibule demo: a company signs up with a VAT number and an invite code.\n");
    say(&format!(
        "   Vestibule     {hooks}  (metrics: http://{}/metrics)",
        app.admin_address
    ));
    for example in [register, crm] {
        say(&format!(
            "   {:<12}  http://{}  (an example service, in this process)",
            example.service.name, example.address
        ));
    }
    say(&format!(
        "   database      {}\n",
        folder.join("vestibule.db").display()
    ));
}

async fn start(
    folder: &Path,
    key: &str,
    register: &str,
    crm: &str,
    admin: &str,
) -> anyhow::Result<App> {
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
            ("KRATOS_ADMIN", admin.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let settings = config::read(
        SETTINGS,
        Path::new("examples/settings/company.yaml"),
        &environment,
    )
    .map_err(|problems| anyhow::anyhow!("{problems}"))?;
    telemetry::init_logging(std::io::stderr, settings.log.level, settings.log.format)
        .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    App::start(settings, Overrides::default()).await
}

fn registered() -> String {
    services::REGISTERED.map(|(number, _)| number).join(", ")
}

/// Prints a `curl` command for the shell, and the valid values.
fn print_curl(hooks: &str, key: &str, now: Timestamp) {
    let sign_up_input = walkthrough::sign_up_input("FR40303265045", "FRIENDS-2026");
    let account = fake_kratos::Account::new(&sign_up_input.traits, sign_up_input.method, now);
    let ctx = fake_kratos::Flow::of(&sign_up_input, None, now).ctx(&account, &sign_up_input);
    let body = fake_kratos::body::body(&ctx);
    say("\n4. The same call from a shell:\n");
    say(&format!(
        "   curl -i '{hooks}/hooks/registration/pre?method=password' \\\n     -H 'X-Vestibule-Key: {key}' -H 'Content-Type: application/json' \\\n     -d '{body}'\n"
    ));
    say(&format!("   curl -i '{hooks}/health/ready'\n"));
    say(&format!("   Registered VAT numbers: {}", registered()));
    say("   Invite codes: WELCOME-2026, FRIENDS-2026, or none.");
}
