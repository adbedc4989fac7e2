//! Writes into identities last.
