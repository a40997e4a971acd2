//! The properties that the targets try to break. `cargo test` uses the same file to check the corpus.

#[path = "../../tests/it/properties.rs"]
mod properties;

pub use properties::{body_is_read_in_one_way, head_is_read_in_one_way};
