//! The HTTP servers for hooks and for operators.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::Data;
use actix_web::{App as Web, HttpServer};
use anyhow::Context as _;

use super::GRACE;
use crate::config::settings::Address;
use crate::http::{AdminState, Health, HookState, admin, hooks};

/// The limit for the head of a request. Kratos ends an attempt after 30 s, and then reads no error for a slow head.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(35);
/// How long an idle connection is kept. Kratos keeps one for 90 s, so Vestibule never closes a connection under a call
/// of Kratos.
const KEEP_ALIVE: Duration = Duration::from_mins(2);

pub(super) fn serve_hooks(
    listener: TcpListener,
    hook_state: Data<HookState>,
    health: Data<Health>,
) -> std::io::Result<Server> {
    let server =
        HttpServer::new(move || Web::new().configure(hooks(hook_state.clone(), health.clone())))
            .listen(listener)?
            .client_request_timeout(REQUEST_HEAD_TIMEOUT)
            .keep_alive(KEEP_ALIVE)
            .shutdown_timeout(GRACE.as_secs())
            .disable_signals()
            .run();
    Ok(server)
}

pub(super) fn serve_admin(
    listener: TcpListener,
    health: Data<Health>,
    admin_state: Data<AdminState>,
) -> std::io::Result<Server> {
    let server =
        HttpServer::new(move || Web::new().configure(admin(health.clone(), admin_state.clone())))
            .workers(1)
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
