//! Vestibule stands between Ory Kratos and the systems around it. Before an identity exists it checks
//! sign-up fields with external services; once the identity exists it delivers it to external services
//! and keeps trying until it arrives.
//!
//! Imports follow this line from left to right and never back, so a part may be read knowing only what
//! stands to its right:
//!
//! `main → cli → app → config → server, courier, sweeper, reconcile → worker, resolution, retention → check, identities →
//! service, store → decision, pending, reservation, late_refusal, identity_write → delivery → verdict, request, message →
//! expression → kratos → telemetry, secret, clock`

pub mod app;
pub mod base;
pub mod checks;
pub mod cli;
pub mod config;
pub mod demo;
pub mod expression;
pub mod http;
pub mod jobs;
pub mod kratos;
pub mod model;
pub mod outbound;
pub mod store;
