//! What `vestibule kratos lint` reports about a kratos.yml, and what a Kratos with this kratos.yml does.

pub mod calls;
pub mod files;
pub mod form;
pub mod lists;
pub mod methods;
pub mod other_systems;
mod paste;
pub mod registration;
mod scene;
pub mod settings;
pub mod sign_in;
pub mod traits;
