//! A backup of a Windmill workspace in a git repository, taken with `wmill` and proven to have arrived.
//!
//! The modules, from the ground up; each depends only on those above it:
//!
//! | module | owns |
//! | --- | --- |
//! | [`secret`] | a string that cannot be printed |
//! | [`code`] | the result codes, their HTTP status and exit codes |
//! | [`names`] | workspace, branch, remote, folder and author, parsed once at the edge |
//! | [`config`] | options and environment to a `Config`, every fault told at once |

pub mod code;
pub mod config;
pub mod names;
pub mod secret;
