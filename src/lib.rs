//! A backup of a Windmill workspace in a git repository, taken with `wmill` and proven to have arrived.
//!
//! The modules, from the ground up; each depends only on those above it:
//!
//! | module | owns |
//! | --- | --- |
//! | [`secret`] | a string that cannot be printed |
//! | [`code`] | the result codes, their HTTP status and exit codes |

pub mod code;
pub mod deadline;
pub mod lock;
pub mod scratch;
pub mod secret;
pub mod subprocess;
