//! The use cases: sync, verify, restore and the preflight checks, each for one run. `service`, `api` and `cli` start
//! them; everything they need lies in the folders above.

mod branch_history;
pub mod key_check;
pub mod log;
pub mod paths;
pub mod preflight;
mod private_run;
pub mod progress;
pub mod restore;
pub mod run_context;
pub mod sync;
pub mod verify;
pub mod workspaces;

use branch_history::Place;
use private_run::PrivateRun;
pub use progress::{Event, Step};
pub use restore::glob::Pattern;
pub use run_context::{Env, RunContext, new_run_id};
pub use sync::RemoteTip;
pub use workspaces::Requests;
