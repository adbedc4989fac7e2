//! What Kratos calls, and the health of it: the table of every URL of the hooks port and its handler.

pub mod answer;
pub mod answers;
pub mod door;
mod from_kratos;
mod hook;
pub mod open_flow;
mod pending;
mod post;
mod pre;
mod report;
mod sign_in;
mod writes;

use actix_web::web::{self, Data, ServiceConfig};

use crate::kratos::Flow;
use crate::server::health::{self, Health};

pub use door::Door;
pub use from_kratos::KEY_HEADER;
pub use pending::PendingPolicy;

/// What Kratos calls, and the health of it.
pub fn hooks(door: Data<Door>, health: Data<Health>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config.app_data(door).app_data(health);
        for flow in Flow::ALL {
            for &stage in flow.stages() {
                // A path without parameters is found without a regular expression.
                let path = format!("/hooks/{flow}/{stage}");
                config
                    .route(
                        &path,
                        web::post().to(move |request, payload, door| {
                            hook::answer(flow, stage, request, payload, door)
                        }),
                    )
                    .route(&path, web::route().to(hook::wrong_verb));
            }
        }
        config
            .route("/health/alive", web::get().to(health::alive))
            .route("/health/ready", web::get().to(health::ready))
            .default_service(web::route().to(hook::unknown));
    }
}
