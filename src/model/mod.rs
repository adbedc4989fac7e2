//! The data that Vestibule decides and records, without a database or a network: requests, messages, verdicts, pending
//! sign-ups, reservations, late refusals, known identities and deliveries.

pub mod decision;
pub mod delivery;
pub mod identity_write;
pub mod known_identity;
pub mod late_refusal;
pub mod message;
pub mod pending;
pub mod request;
pub mod reservation;
pub mod verdict;
