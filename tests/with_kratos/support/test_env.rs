//! Everything that one scene needs, running.

use std::sync::Arc;

use tempfile::TempDir;
use vestibule::kratos::snippet::{ExtraEvent, LateRefusals};

use super::kratos::{Kratos, KratosOptions, Ports};
use super::load_balancer::LoadBalancer;
use super::lossy_proxy::LossyProxy;
use super::postgres::Server;
use super::provider::Provider;
use super::service::{KNOWN_INVITE, Service, UNKNOWN_VAT_NUMBERS};
use super::vestibule::Vestibule;
use super::visitor::{Client, Visitor};

/// The key that Kratos calls with at first.
pub const KEY: &str = "the-first-key-0123456789";
/// The key that it may call with, too.
pub const NEXT_KEY: &str = "the-second-key-9876543210";

/// Vestibule, its Kratos, and the services around them.
pub struct TestEnv {
    pub kratos: Kratos,
    pub vestibule: Vestibule,
    /// Further instances on the same database.
    pub others: Vec<Vestibule>,
    pub vat_register: Service,
    pub invites: Service,
    pub crm: Service,
    _folder: Arc<TempDir>,
    _postgres: Option<Arc<Server>>,
}

/// A house that is not built yet.
#[derive(Default)]
pub struct TestEnvBuilder {
    wishes: KratosOptions,
    deadline: Option<&'static str>,
    settings: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
    postgres: Option<Arc<Server>>,
    other_instances: usize,
}

impl TestEnv {
    /// With everything on one form.
    pub async fn open() -> Self {
        Self::plan().open().await
    }

    /// To be changed before it opens.
    pub fn plan() -> TestEnvBuilder {
        TestEnvBuilder::default()
    }

    /// Somebody with this kind of client.
    pub fn visitor(&self, client: Client) -> Visitor {
        Visitor::new(&self.kratos.public, client)
    }

    /// What the register was asked so far.
    pub fn vat_numbers_asked(&self) -> Vec<String> {
        self.vat_register
            .received()
            .iter()
            .map(super::service::vat_number)
            .collect()
    }
}

impl Drop for TestEnv {
    /// Vestibule has logged nothing of what anybody typed, and no key.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let said = self.vestibule.said();
        assert!(
            said.contains("hooks_address"),
            "it says where it is open: {said}"
        );
        for secret in [
            "@example.org",
            "DE8111",
            UNKNOWN_VAT_NUMBERS,
            KNOWN_INVITE,
            KEY,
            NEXT_KEY,
        ] {
            let line = said.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a log line gives away {secret}");
        }
    }
}

impl TestEnvBuilder {
    /// Kratos asks for the traits first, and for the password on a second form.
    #[must_use]
    pub fn in_two_steps(mut self) -> Self {
        self.wishes.style = "profile_first";
        self
    }

    /// A registration may take this long.
    #[must_use]
    pub fn expiring_after(mut self, lifespan: &'static str) -> Self {
        self.wishes.lifespan = lifespan;
        self
    }

    /// Kratos tells of this as well.
    #[must_use]
    pub fn telling_of(mut self, besides: &'static [ExtraEvent]) -> Self {
        self.wishes.besides = besides;
        self
    }

    /// Kratos asks before it lets anybody in, and lets people recover their accounts.
    #[must_use]
    pub fn keeping_people_out(mut self) -> Self {
        self.wishes.late_refusals = LateRefusals::Enforced;
        self
    }

    /// Vestibule runs on this file beside the tests.
    #[must_use]
    pub fn on(mut self, settings: &'static str) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Sign-ups get no `external_id`, so a form that is sent many times can make several accounts.
    #[must_use]
    pub fn unguarded(mut self) -> Self {
        self.environment.push(("EXTERNAL_ID", "never".to_owned()));
        self
    }

    /// Sign-ups without a `post` are looked up this many times faster.
    #[must_use]
    pub fn looking_up_faster(mut self, times: u32) -> Self {
        let variable = "VESTIBULE_LOOK_UP_FASTER";
        self.environment.push((variable, times.to_string()));
        self
    }

    /// Sign-ups by password are told of as if by a passkey, of which hooks are not told the identifier.
    #[must_use]
    pub fn disguised(mut self) -> Self {
        self.wishes.disguised = true;
        self
    }

    /// Nobody tells Vestibule of an account that was made.
    #[must_use]
    pub fn without_post_hooks(mut self) -> Self {
        self.wishes.without_post = true;
        self
    }

    /// Vestibule answers by then.
    #[must_use]
    pub fn answering_within(mut self, deadline: &'static str) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Kratos and Vestibule use databases of this PostgreSQL server.
    #[must_use]
    pub fn on_postgres(mut self, server: Server) -> Self {
        self.postgres = Some(Arc::new(server));
        self
    }

    /// People can sign up with this `OpenID` provider.
    #[must_use]
    pub fn with_provider(mut self, provider: &Provider) -> Self {
        self.wishes.provider = Some(provider.url.clone());
        self
    }

    /// People can sign up with a passkey.
    #[must_use]
    pub fn with_passkeys(mut self) -> Self {
        self.wishes.passkeys = true;
        self
    }

    /// So many further instances of Vestibule run on the same database.
    #[must_use]
    pub fn with_other_instances(mut self, number: usize) -> Self {
        self.other_instances = number;
        self
    }

    /// Starts everything.
    pub async fn open(self) -> TestEnv {
        self.build(async |hooks| (hooks[0].clone(), ())).await.0
    }

    /// Starts everything, with a relay between Kratos and the instances of Vestibule.
    pub async fn open_behind_a_relay(self) -> (TestEnv, LoadBalancer) {
        self.build(async |hooks| {
            let relay = LoadBalancer::start(hooks);
            (relay.url.clone(), relay)
        })
        .await
    }

    /// Starts everything, with a network between Kratos and Vestibule that loses the first answer.
    pub async fn open_behind_a_bad_network(self) -> (TestEnv, LossyProxy) {
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
        between: impl AsyncFnOnce(Vec<String>) -> (String, T),
    ) -> (TestEnv, T) {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
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
                self.wishes.dsn = Some(format!("{}?sslmode=disable", server.database().await));
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
        let mut others = Vec::new();
        for _ in 0..self.other_instances {
            others.push(start().await);
        }
        let all = std::iter::once(&vestibule).chain(&others);
        let (hooks, between) = between(all.map(|one| one.hooks.clone()).collect()).await;
        let kratos = Kratos::start(folder.path(), &self.wishes, ports, &hooks, KEY).await;
        let house = TestEnv {
            kratos,
            vestibule,
            others,
            vat_register,
            invites,
            crm,
            _folder: folder,
            _postgres: self.postgres,
        };
        (house, between)
    }
}
