//! The front door: the table of every URL and its handler.

pub mod admin;
pub mod answer;
pub mod answers;
pub mod door;
mod from_kratos;
mod health;
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

pub use admin::{Operator, admin};
pub use door::Door;
pub use from_kratos::KEY_HEADER;
pub use health::Health;
pub use pending::{ExternalId, PendingPolicy};

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
