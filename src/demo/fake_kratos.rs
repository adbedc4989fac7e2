//! The part of Kratos that a sign-up needs: the form, the account, the body that the template makes, and the effects of
//! a response.

pub mod account;
pub mod body;
pub mod flow;
pub mod form;
pub mod visit;

pub use account::Account;
pub use flow::Flow;
pub use form::Form;
pub use visit::{Method, SignUpInput, Steps, Traits};
