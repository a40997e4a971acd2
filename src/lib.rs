//! A backup of a Windmill workspace in a git repository, taken with `wmill` and proven to have arrived.
//!
//! The modules, from the ground up; each depends only on those above it:
//!
//! | module | owns |
//! | --- | --- |
//! | [`secret`] | a string that cannot be printed |
//! | [`code`] | the result codes, their HTTP status and exit codes |
//! | [`http`] | bytes to a request head, with all rules of what is refused; an answer to bytes |
//! | [`server`] | listener, threads, deadlines, slots, shutdown |

pub mod code;
pub mod http;
pub mod secret;
pub mod server;
