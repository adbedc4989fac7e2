//! The running environment of a test case.

use std::sync::Arc;

use tempfile::TempDir;
use vestibule::kratos::snippet::{ExtraEvent, LateRefusals};

use super::kratos::{Kratos, KratosOptions, Ports};
use super::load_balancer::LoadBalancer;
use super::lossy_proxy::LossyProxy;
use super::postgres::Server;
use super::provider::Provider;
use super::service::{KNOWN_INVITE, Service, UNKNOWN_VAT_PREFIX};
use super::vestibule::Vestibule;
use super::visitor::{Client, Visitor};

/// The first key of the hooks.
pub const KEY: &str = "the-first-key-0123456789";
/// The second key of the hooks, which Vestibule accepts too.
pub const NEXT_KEY: &str = "the-second-key-9876543210";

/// Vestibule, Kratos and the external services.
pub struct TestEnv {
    pub kratos: Kratos,
    pub vestibule: Vestibule,
    /// Further instances of Vestibule on the same database.
    pub extra_instances: Vec<Vestibule>,
    pub vat_register: Service,
    pub invites: Service,
    pub crm: Service,
    _folder: Arc<TempDir>,
    _postgres: Option<Arc<Server>>,
}

/// The options of a [`TestEnv`].
#[derive(Default)]
pub struct TestEnvBuilder {
    kratos_options: KratosOptions,
    deadline: Option<&'static str>,
    settings: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
    postgres: Option<Arc<Server>>,
    extra_instances: usize,
}

impl TestEnv {
    /// Starts an environment with default options.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Returns a builder with default options.
    pub fn builder() -> TestEnvBuilder {
        TestEnvBuilder::default()
    }

    /// A new visitor with this kind of client.
    pub fn visitor(&self, client: Client) -> Visitor {
        Visitor::new(&self.kratos.public, client)
    }

    /// The VAT numbers that Vestibule has checked so far.
    pub fn checked_vat_numbers(&self) -> Vec<String> {
        self.vat_register
            .received()
            .iter()
            .map(super::service::vat_number)
            .collect()
    }
}

impl Drop for TestEnv {
    /// Asserts that Vestibule has logged no typed value and no key.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log_text = self.vestibule.log_text();
        assert!(
            log_text.contains("hooks_address"),
            "Vestibule logs its address: {log_text}"
        );
        for secret in [
            "@example.org",
            "DE8111",
            UNKNOWN_VAT_PREFIX,
            KNOWN_INVITE,
            KEY,
            NEXT_KEY,
        ] {
            let line = log_text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a log line contains {secret}");
        }
    }
}

impl TestEnvBuilder {
    /// Kratos asks for the traits first, and for the password in a second step.
    #[must_use]
    pub fn in_two_steps(mut self) -> Self {
        self.kratos_options.style = "profile_first";
        self
    }

    /// Sets the lifespan of registration flows.
    #[must_use]
    pub fn with_flow_lifespan(mut self, lifespan: &'static str) -> Self {
        self.kratos_options.lifespan = lifespan;
        self
    }

    /// Adds hooks for these events to kratos.yml.
    #[must_use]
    pub fn with_extra_events(mut self, extra_events: &'static [ExtraEvent]) -> Self {
        self.kratos_options.extra_events = extra_events;
        self
    }

    /// Adds the hooks that enforce late refusals to kratos.yml, and enables recovery.
    #[must_use]
    pub fn enforcing_late_refusals(mut self) -> Self {
        self.kratos_options.late_refusals = LateRefusals::Enforced;
        self
    }

    /// Starts Vestibule with this settings file of `tests/with_kratos/`.
    #[must_use]
    pub fn with_settings(mut self, settings: &'static str) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Disables the one-identity guard, so a form that is sent many times can create several accounts.
    #[must_use]
    pub fn without_guard(mut self) -> Self {
        self.environment.push(("EXTERNAL_ID", "never".to_owned()));
        self
    }

    /// Looks up sign-ups without a `post` this many times faster.
    #[must_use]
    pub fn with_faster_lookups(mut self, times: u32) -> Self {
        let variable = "VESTIBULE_LOOK_UP_FASTER";
        self.environment.push((variable, times.to_string()));
        self
    }

    /// Reports sign-ups by password with the method `passkey`, so that the hooks contain no identifier.
    #[must_use]
    pub fn reported_as_passkey(mut self) -> Self {
        self.kratos_options.reported_as_passkey = true;
        self
    }

    /// Removes the `post` hooks of registration from kratos.yml.
    #[must_use]
    pub fn without_post_hooks(mut self) -> Self {
        self.kratos_options.without_post = true;
        self
    }

    /// Sets the deadline of hooks.
    #[must_use]
    pub fn with_deadline(mut self, deadline: &'static str) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Starts Kratos and Vestibule on databases of this PostgreSQL server.
    #[must_use]
    pub fn on_postgres(mut self, server: Server) -> Self {
        self.postgres = Some(Arc::new(server));
        self
    }

    /// Enables sign-ups with this `OpenID` provider.
    #[must_use]
    pub fn with_provider(mut self, provider: &Provider) -> Self {
        self.kratos_options.provider = Some(provider.url.clone());
        self
    }

    /// Prints hooks and template for these request headers.
    #[must_use]
    pub fn with_headers(mut self, headers: &'static [&'static str]) -> Self {
        self.kratos_options.headers = headers;
        self
    }

    /// Enables sign-ups with a passkey.
    #[must_use]
    pub fn with_passkeys(mut self) -> Self {
        self.kratos_options.passkeys = true;
        self
    }

    /// Starts this number of extra instances of Vestibule on the same database.
    #[must_use]
    pub fn with_extra_instances(mut self, number: usize) -> Self {
        self.extra_instances = number;
        self
    }

    /// Starts the environment.
    pub async fn start(self) -> TestEnv {
        self.build(async |hooks| (hooks[0].clone(), ())).await.0
    }

    /// Starts the environment with a load balancer between Kratos and the instances of Vestibule.
    pub async fn start_behind_load_balancer(self) -> (TestEnv, LoadBalancer) {
        self.build(async |hooks| {
            let balancer = LoadBalancer::start(hooks);
            (balancer.url.clone(), balancer)
        })
        .await
    }

    /// Starts the environment with a proxy between Kratos and Vestibule that loses the first response.
    pub async fn start_behind_lossy_proxy(self) -> (TestEnv, LossyProxy) {
        self.build(async |hooks| {
            let address = hooks[0]
                .trim_start_matches("http://")
                .parse()
                .expect("an address");
            let proxy = LossyProxy::start(address).await;
            (proxy.url.clone(), proxy)
        })
        .await
    }

    async fn build<T>(
        mut self,
        start_proxy: impl AsyncFnOnce(Vec<String>) -> (String, T),
    ) -> (TestEnv, T) {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let (vat_register, invites, crm) = (
            Service::vat_register().await,
            Service::invites().await,
            Service::crm().await,
        );
        let ports = Ports::free();
        let mut environment = vec![
            ("DEADLINE", self.deadline.unwrap_or("5s").to_owned()),
            ("VAT_REGISTER", vat_register.url()),
            ("INVITES", invites.url()),
            ("CRM", crm.url()),
            ("KRATOS_ADMIN", ports.admin_url()),
        ];
        let dsn = match &self.postgres {
            Some(server) => {
                self.kratos_options.dsn =
                    Some(format!("{}?sslmode=disable", server.database().await));
                server.database().await
            }
            None => format!("sqlite://{}/vestibule.db", folder.path().display()),
        };
        environment.push(("DSN", dsn));
        environment.extend(self.environment);
        let start = async || {
            Vestibule::start(
                folder.path(),
                self.settings.unwrap_or("vestibule.yaml"),
                [NEXT_KEY, KEY],
                environment.clone(),
            )
            .await
        };
        let vestibule = start().await;
        let mut extra_instances = Vec::new();
        for _ in 0..self.extra_instances {
            extra_instances.push(start().await);
        }
        let all = std::iter::once(&vestibule).chain(&extra_instances);
        let (hooks, proxy) = start_proxy(all.map(|one| one.hooks.clone()).collect()).await;
        let kratos = Kratos::start(folder.path(), &self.kratos_options, ports, &hooks, KEY).await;
        let env = TestEnv {
            kratos,
            vestibule,
            extra_instances,
            vat_register,
            invites,
            crm,
            _folder: folder,
            _postgres: self.postgres,
        };
        (env, proxy)
    }
}
