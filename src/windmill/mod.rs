//! Everything about Windmill: its API, the `wmill` program, `wmill.yaml`, and which item a path belongs to. `backup`
//! uses it; it never imports `git`.

pub mod api;
pub mod cli;
pub mod deletions;
pub mod editors;
pub mod file_names;
pub mod item_path;
pub mod json_digest;
pub mod narrow;
pub mod push_relay;
pub mod scope;
pub mod secret_files;
pub mod snapshot;
pub mod snapshot_server;
pub mod wmill_yaml;
