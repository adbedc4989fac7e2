//! A fake of Kratos for sign-ups: the form, the account, the body that the template makes, and the effects of a
//! response.

pub mod account;
pub mod body;
pub mod flow;
pub mod form;
pub mod sign_up_input;

pub use account::Account;
pub use flow::Flow;
pub use form::Form;
pub use sign_up_input::{Method, SignUpInput, Steps, Traits};
