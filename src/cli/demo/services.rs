//! The example services of the demo: a VAT register and a CRM. They say aloud what they are asked.

use std::net::{SocketAddr, TcpListener};

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Json};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::Context as _;
use serde_json::{Value, json};

use super::story::say;

/// The VAT numbers that the register knows, and whose they are.
pub const REGISTERED: [(&str, &str); 3] = [
    ("DE811115368", "Muster GmbH"),
    ("FR40303265045", "Exemple SA"),
    ("NL123456782B12", "Voorbeeld BV"),
];

/// A running example service.
pub struct Example {
    /// Where it listens.
    pub address: SocketAddr,
    /// To stop it.
    pub handle: ServerHandle,
}

/// A register that answers as VIES does.
pub fn vat_register() -> anyhow::Result<Example> {
    start("VAT register", |config| {
        config.route("/check-vat-number", web::post().to(check_vat_number));
    })
}

/// A CRM that takes contacts.
pub fn crm() -> anyhow::Result<Example> {
    start("CRM", |config| {
        config.route("/contacts", web::post().to(take_contact));
    })
}

fn start(name: &str, routes: fn(&mut web::ServiceConfig)) -> anyhow::Result<Example> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .with_context(|| format!("the example {name} has no port"))?;
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || App::new().configure(routes))
        .workers(1)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Example { address, handle })
}

async fn check_vat_number(question: Json<Value>) -> HttpResponse {
    let part = |name: &str| question[name].as_str().unwrap_or_default().to_owned();
    let number = format!("{}{}", part("countryCode"), part("vatNumber"));
    let holder = REGISTERED
        .iter()
        .find(|(known, _)| *known == number)
        .map(|(_, name)| *name);
    let answer = json!({"valid": holder.is_some(), "name": holder});
    say(&format!(
        "      asks     VAT register  POST /check-vat-number {}",
        question.0
    ));
    say(&format!("      answers  VAT register  200 {answer}"));
    HttpResponse::Ok().json(answer)
}

async fn take_contact(contact: Json<Value>) -> HttpResponse {
    say(&format!(
        "      delivers CRM           POST /contacts {}",
        contact.0
    ));
    say("      answers  CRM           201");
    HttpResponse::Created().json(json!({"id": "c-1"}))
}
