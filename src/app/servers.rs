//! The HTTP servers for hooks and for operators.

use std::future::ready;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::dev::{AppConfig, Server};
use actix_web::web::Data;
use actix_web::{App as Web, HttpServer};
use anyhow::Context as _;
use tokio::net::TcpStream;

use super::GRACE;
use super::thread_watch::ThreadWatch;
use crate::config::settings::Address;
use crate::http::{AdminState, Connections, Health, HookState, admin, hooks};

/// How long an idle connection is kept. Kratos keeps one for 90 s, so Vestibule never closes a connection under a call
/// of Kratos.
const KEEP_ALIVE: Duration = Duration::from_mins(2);
/// How long the end of a connection may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of connections to the admin port that may be open at the same time.
const MAX_ADMIN_CONNECTIONS: usize = 100;

/// Serves the hooks. The framework's own server would answer 408 to an unused connection.
pub(super) fn serve_hooks(
    listener: TcpListener,
    hook_state: Data<HookState>,
    health: Data<Health>,
    connections: Connections,
    thread_watch: ThreadWatch,
) -> std::io::Result<Server> {
    let workers = available_parallelism().map_or(2, NonZero::get);
    let builder = Server::build()
        .workers(workers)
        .max_concurrent_connections(connections.maximum().div_ceil(workers))
        .shutdown_timeout(GRACE.as_secs())
        .disable_signals();
    let stop = builder.graceful_shutdown_signal();
    // Each thread calls this once.
    let service = move || {
        tokio::spawn(thread_watch.clone().run("http"));
        let app = Web::new().configure(hooks(hook_state.clone(), health.clone()));
        let app = app
            .into_factory()
            .map_err(|error: actix_web::Error| error.error_response());
        let (connections, stop) = (connections.clone(), stop.clone());
        let http = HttpService::build()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .graceful_shutdown_signal(move || {
                let stop = stop.clone();
                async move { stop.notified().await }
            })
            .finish(map_config(app, |()| AppConfig::default()));
        let accept = move |io: TcpStream| {
            // A delayed segment would delay an answer, and an error shows at the next read.
            let _ = io.set_nodelay(true);
            let peer = io.peer_addr().ok();
            ready(Ok((connections.watch(io), Protocol::Http1, peer)))
        };
        fn_service(accept).and_then(http)
    };
    Ok(builder.listen("hooks", listener, service)?.run())
}

pub(super) fn serve_admin(
    listener: TcpListener,
    health: Data<Health>,
    admin_state: Data<AdminState>,
) -> std::io::Result<Server> {
    let server =
        HttpServer::new(move || Web::new().configure(admin(health.clone(), admin_state.clone())))
            .workers(1)
            .max_connections(MAX_ADMIN_CONNECTIONS)
            .listen(listener)?
            .shutdown_timeout(1)
            .disable_signals()
            .run();
    Ok(server)
}

pub(super) fn listen(address: Address, key: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(address.host, address.port);
    TcpListener::bind(address).with_context(|| {
        format!("`{key}`: cannot listen on {address}; if another program uses this port, choose another one")
    })
}
