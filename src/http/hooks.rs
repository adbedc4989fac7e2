//! Serves the hooks port: the table of every URL that Kratos calls, with its handler, and the health endpoints.

mod auth;
pub(super) mod body;
mod call;
mod endpoint;
pub mod idempotency;
mod identity_activity;
pub mod log_limits;
pub mod open_flow;
mod pending;
mod post;
mod pre;
mod report;
pub mod response;
mod sign_in;
pub mod state;

use actix_web::Route;
use actix_web::middleware::DefaultHeaders;
use actix_web::web::{self, Data, ServiceConfig};

use crate::http::health::{self, Health};
use crate::http::hooks::endpoint::Endpoint;
use crate::kratos::Flow;

pub use auth::KEY_HEADER;
pub use pending::PendingPolicy;
pub use state::HookState;

/// Configures every route of the hooks port.
pub fn hooks(state: Data<HookState>, health: Data<Health>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config.app_data(state).app_data(health);
        for flow in Flow::ALL {
            for &stage in flow.stages() {
                // A path without parameters is matched without a regular expression.
                let path = format!("/hooks/{flow}/{stage}");
                let endpoint = Endpoint { flow, stage };
                config.service(
                    web::resource(&path)
                        .app_data(endpoint)
                        .route(web::post().to(call::handle))
                        .route(web::route().to(move |request, payload, state| {
                            call::method_not_allowed(endpoint, request, payload, state)
                        })),
                );
            }
        }
        let with_get = |path: &str, get: Route| {
            let other_verbs = web::route().to(call::not_found);
            let resource = web::resource(path).route(get);
            resource
                .default_service(other_verbs)
                .wrap(DefaultHeaders::new().add((health::PORT_HEADER, "hooks")))
        };
        config
            .service(with_get("/health/alive", web::get().to(health::alive)))
            .service(with_get("/health/ready", web::get().to(health::ready)))
            .default_service(web::route().to(call::not_found));
    }
}
