//! `load(path) -> Settings`: the only way in.

pub mod settings;
