//! The example services of the demo: a VAT register and a CRM. They print each request and response.

mod crm;
mod register;
pub mod request_log;
mod standalone;
mod switch;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::Mutex;

pub use self::crm::Crm;
pub use self::register::REGISTERED;
pub use self::request_log::RequestLog;
pub use self::standalone::serve as serve_standalone;
pub use self::switch::{Behaviour, Switch};
use crate::base::clock::Clock;

/// The data of an example service.
pub enum ServiceData {
    /// The registered VAT numbers.
    Register,
    /// The contacts that arrived.
    Crm(Crm),
}

/// An example service, shared by all its threads.
pub struct Service {
    /// The name for display.
    pub name: &'static str,
    /// The behaviour of the service.
    pub switch: Switch,
    data: ServiceData,
    request_log: Arc<RequestLog>,
    clock: Clock,
}

impl Service {
    /// Creates a VAT register that answers as VIES does.
    pub fn register(request_log: &Arc<RequestLog>) -> Data<Self> {
        Self::new("VAT register", ServiceData::Register, request_log)
    }

    /// Creates a CRM that stores contacts.
    pub fn crm(request_log: &Arc<RequestLog>) -> Data<Self> {
        Self::new("CRM", ServiceData::Crm(Crm::default()), request_log)
    }

    fn new(name: &'static str, data: ServiceData, request_log: &Arc<RequestLog>) -> Data<Self> {
        Data::new(Self {
            name,
            switch: Switch::default(),
            data,
            request_log: Arc::clone(request_log),
            clock: request_log.clock.clone(),
        })
    }

    /// Returns the response of a working service.
    fn answer(&self, method: &str, path: &str, request: &HttpRequest, body: &[u8]) -> (u16, Value) {
        match &self.data {
            ServiceData::Register => register::answer(method, path, body),
            ServiceData::Crm(crm) => crm.answer(method, path, request, body),
        }
    }
}

/// Handles any request to an example service. `path` is relative to the path of the service.
async fn serve(
    service: Data<Service>,
    path: String,
    request: HttpRequest,
    body: Bytes,
) -> HttpResponse {
    let method = request.method().as_str().to_owned();
    if method == "GET" {
        // A GET comes from a person who views the data, and not from Vestibule, so it is not recorded.
        let (status, answer) = service.answer(&method, &path, &request, &body);
        return http(status).json(answer);
    }
    // If the caller disconnects, this handler is dropped, and the entry records that.
    let entry = service
        .request_log
        .arrived(service.name, &method, &path, &request, &body);
    match service.switch.behaviour() {
        Behaviour::Works => {}
        Behaviour::Slow => service.clock.sleep(switch::SLOW).await,
        Behaviour::Busy => {
            let answer = register::busy();
            entry.answered(200, &answer);
            return HttpResponse::Ok().json(answer);
        }
        Behaviour::Broken => {
            let page = "<!doctype html><title>500</title><h1>Internal Server Error</h1>";
            entry.answered(500, &json!(page));
            return HttpResponse::InternalServerError()
                .content_type("text/html")
                .body(page);
        }
        Behaviour::Down => {
            drop(entry);
            return switch::cut_off();
        }
    }
    let (status, answer) = service.answer(&method, &path, &request, &body);
    entry.answered(status, &answer);
    http(status).json(answer)
}

fn http(status: u16) -> actix_web::HttpResponseBuilder {
    HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

/// An example service with its own port. While the service is down, nothing listens on the port.
pub struct Example {
    /// The address of the service.
    pub address: SocketAddr,
    /// The service.
    pub service: Data<Service>,
    server: Mutex<Option<ServerHandle>>,
}

impl Example {
    /// Starts the service on a free port of this machine.
    pub fn start(service: Data<Service>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .with_context(|| format!("cannot open a port for the example {}", service.name))?;
        let address = listener.local_addr()?;
        let server = listen(listener, service.clone())?;
        Ok(Self {
            address,
            service,
            server: Mutex::new(Some(server)),
        })
    }

    /// Sets the behaviour from now on.
    pub async fn switch(&self, to: Behaviour) -> anyhow::Result<()> {
        let mut server = self.server.lock().await;
        if to == Behaviour::Down {
            if let Some(server) = server.take() {
                server.stop(false).await;
            }
        } else if server.is_none() {
            let listener = TcpListener::bind(self.address)
                .with_context(|| format!("another program uses the port {} now", self.address))?;
            *server = Some(listen(listener, self.service.clone())?);
        }
        self.service.switch.set(to);
        Ok(())
    }

    /// Stops the service.
    pub async fn stop(&self) {
        if let Some(server) = self.server.lock().await.take() {
            server.stop(false).await;
        }
    }
}

fn listen(listener: TcpListener, service: Data<Service>) -> anyhow::Result<ServerHandle> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(service.clone())
            .default_service(web::to(
                |request: HttpRequest, body: Bytes, service: Data<Service>| {
                    let path = request.path().to_owned();
                    serve(service, path, request, body)
                },
            ))
    })
    .workers(1)
    .shutdown_timeout(1)
    // A disconnected caller is noticed and recorded immediately.
    .h1_allow_half_closed(false)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}
