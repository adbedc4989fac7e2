//! The data that Kratos sends and accepts. This folder uses only `base`.

pub mod client_ip;
pub mod field;
pub mod fingerprint;
pub mod form;
pub mod hook;
pub mod identifiers;
pub mod language;
pub mod message;
pub mod payload;
pub mod reply;
pub mod schema;
pub mod snippet;
pub mod template;

pub use client_ip::ClientIpHeader;
pub use field::Field;
pub use form::Form;
pub use hook::{Flow, Hook, Stage};
pub use identifiers::Identifiers;
pub use message::Message;
pub use payload::Payload;
pub use reply::Reply;
pub use template::BodyNeeds;
