//! Both example services at one address, without Vestibule, for a composition of containers.

use std::net::{SocketAddr, TcpListener};

use actix_web::web::{self, Bytes, Data, Json};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;

use super::{Behaviour, RequestLog, Service};
use crate::app::shutdown_signal;
use crate::base::clock::Clock;
use crate::demo::walkthrough::say;

struct Both {
    register: Data<Service>,
    crm: Data<Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchRequest {
    register: Option<Behaviour>,
    crm: Option<Behaviour>,
}

/// Serves both services until a signal stops the program.
pub async fn serve(address: SocketAddr, clock: Clock) -> anyhow::Result<()> {
    let request_log = RequestLog::new(clock);
    let both = Data::new(Both {
        register: Service::register(&request_log),
        crm: Service::crm(&request_log),
    });
    let listener = TcpListener::bind(address).with_context(|| {
        format!("`--listen`: cannot listen on {address}; if another program uses this port, choose another one")
    })?;
    let at = listener.local_addr()?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(both.clone())
            .route("/health/alive", web::get().to(alive))
            .route("/switch", web::get().to(show_switch))
            .route("/switch", web::put().to(set_switch))
            .route("/vat/{path:.*}", web::to(register))
            .route("/crm/{path:.*}", web::to(crm))
            .default_service(web::to(not_found))
    })
    .workers(2)
    .shutdown_timeout(1)
    // A disconnected caller is noticed and recorded immediately.
    .h1_allow_half_closed(false)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    let serving = tokio::spawn(server);
    say(&format!("Example services at http://{at}"));
    say("  POST /vat/check-vat-number   the VAT register");
    say("  POST /crm/contacts           the CRM; GET lists the contacts");
    say(
        "  PUT  /switch                 {\"register\": \"works|slow|busy|broken|down\"}, the same for \"crm\"",
    );
    shutdown_signal().await?;
    handle.stop(false).await;
    let _ = serving.await;
    Ok(())
}

async fn register(
    request: HttpRequest,
    body: Bytes,
    path: web::Path<String>,
    both: Data<Both>,
) -> HttpResponse {
    super::serve(both.register.clone(), format!("/{path}"), request, body).await
}

async fn crm(
    request: HttpRequest,
    body: Bytes,
    path: web::Path<String>,
    both: Data<Both>,
) -> HttpResponse {
    super::serve(both.crm.clone(), format!("/{path}"), request, body).await
}

async fn set_switch(wanted: Json<SwitchRequest>, both: Data<Both>) -> HttpResponse {
    for (service, wanted) in [(&both.register, wanted.register), (&both.crm, wanted.crm)] {
        if let Some(wanted) = wanted {
            service.switch.set(wanted);
            say(&format!(
                "{:<12}  switched to {}",
                service.name,
                json!(wanted)
            ));
        }
    }
    show_switch(both).await
}

async fn show_switch(both: Data<Both>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "register": both.register.switch.behaviour(),
        "crm": both.crm.switch.behaviour(),
    }))
}

async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

async fn not_found() -> HttpResponse {
    HttpResponse::NotFound()
        .json(json!({"error": "the paths are /vat/check-vat-number, /crm/contacts and /switch"}))
}
