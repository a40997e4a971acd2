//! A backup of a Windmill workspace in a git repository, taken with `wmill` and proven to have arrived.
//!
//! The modules, from the ground up; each depends only on those above it:
//!
//! | module | owns |
//! | --- | --- |
//! | [`secret`] | a string that cannot be printed |
//! | [`code`] | the result codes, their HTTP status and exit codes |
//! | [`wmill_yaml`] | what a repository's `wmill.yaml` may say, and the one written for a run |
//! | [`items`] | which Windmill object a path belongs to, what a change deletes, what in it is secret |

pub mod code;
pub mod items;
pub mod secret;
pub mod wmill_yaml;
