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

pub use api::{Account, KEY_TRAILER, ServerInfo, Windmill, fingerprint};
pub use item_path::{DEPENDENCIES, ItemId, ItemKind, KEY_FILE, SHARED_UI, WMILL_LOCK};
pub use narrow::ChangedGroups;
pub use push_relay::Permits;
pub use snapshot::{ENTRIES_MAX, FoundItem, Snapshot, WrittenFiles};
pub use wmill_yaml::{KindSettings, Kinds, Plan, WMILL_YAML};
