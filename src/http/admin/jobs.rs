//! The handler that lists the background jobs.

use std::collections::BTreeMap;

use actix_web::web::{Data, Json};
use schemars::JsonSchema;
use serde::Serialize;

use super::AdminState;
use crate::base::telemetry::job_status::JobStatus;

/// The background jobs of this process.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Jobs {
    /// The status of each job, by name.
    jobs: BTreeMap<&'static str, JobStatus>,
}

/// `GET /jobs`
pub(super) async fn list(state: Data<AdminState>) -> Json<Jobs> {
    let jobs = state.jobs.all();
    Json(Jobs { jobs })
}
