//! Programs: how they are started, what environment they get, how they end, and the lock that one of them holds per
//! backup. `git`, `windmill` and `backup` use it; it alone may start a program.

pub mod command;
#[cfg(unix)]
pub mod confine;
pub mod lock;
pub mod orphans;
pub mod output;
pub mod run;
pub mod run_env;

pub use command::{Invocation, own_program};
pub use lock::Lock;
pub use run::{Ending, Failure, Finished};
pub use run_env::RunEnv;
