//! What the targets try to break. It is one file with what `cargo test` holds of the corpus.

#[path = "../../tests/it/properties.rs"]
mod properties;

pub use properties::{body_is_read_in_one_way, head_is_read_in_one_way};
