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
pub use cli::Program;
pub use deletions::Deletions;
pub use editors::Edits;
pub use item_path::{DEPENDENCIES, ItemId, ItemKind, KEY_FILE, SHARED_UI, WMILL_LOCK};
use json_digest::Hash;
pub use narrow::ChangedGroups;
pub use push_relay::{Permits, PushRelay};
pub use scope::Scope;
pub use secret_files::SETTINGS_FILE;
pub use snapshot::{Archive, Digests, ENTRIES_MAX, FoundItem, SideAnswers, Snapshot, WrittenFiles};
pub use snapshot_server::{Answers, SnapshotServer};
pub use wmill_yaml::{KindSettings, Kinds, Plan, WMILL_YAML};
