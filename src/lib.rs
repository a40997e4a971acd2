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
//! | [`sync_request`] | a request's JSON and the settings to a `SyncRequest`; which secret may serve it |

pub mod code;
pub mod deadline;
pub mod lock;
pub mod scratch;
pub mod secret;
pub mod subprocess;
pub mod config;
pub mod names;
pub mod secret;
pub mod sync_request;
//! | [`http`] | bytes to a request head, with all rules of what is refused; an answer to bytes |
//! | [`server`] | listener, threads, deadlines, slots, shutdown |

pub mod code;
pub mod http;
pub mod secret;
pub mod server;
//! | [`wmill_yaml`] | what a repository's `wmill.yaml` may say, and the one written for a run |
//! | [`items`] | which Windmill object a path belongs to, what a change deletes, what in it is secret |

pub mod code;
pub mod items;
pub mod secret;
pub mod wmill_yaml;
