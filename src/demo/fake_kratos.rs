//! What Kratos does around its two calls of Vestibule, as far as a sign-up shows it: the form, the account, the body
//! made by the template, and what an answer does to them.

pub mod account;
pub mod body;
pub mod flow;
pub mod form;
pub mod visit;

pub use account::Account;
pub use flow::Flow;
pub use form::Form;
pub use visit::{Method, SignUpInput, Steps, Traits};
