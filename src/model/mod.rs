//! The data that Vestibule decides and records, without a database or a network: requests, messages, verdicts, pending
//! sign-ups, reservations, late refusals and deliveries.

pub mod decision;
pub mod delivery;
pub mod identity_write;
pub mod late_refusal;
pub mod message;
pub mod pending;
pub mod request;
pub mod reservation;
pub mod verdict;
