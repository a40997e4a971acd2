//! The integration tests, one binary: real `wmill`, real `git`, real HTTP, and a Windmill that answers as recorded.
//! Each module is a list of facts. All of them use the crate `support`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start programs and servers, and a panic is how a test fails"
)]

mod adapted_wmill;
mod alarms;
mod api;
mod authors;
mod ca_bundle;
mod check;
mod credentials;
mod curl;
mod docs;
mod drill;
mod edits;
mod example_scripts;
mod examples;
mod failures;
mod faults;
mod fuzz_corpus;
mod guards;
mod hostile;
mod image;
mod leaks;
mod left_out;
mod listener;
mod log;
mod log_sink_full;
mod man;
mod multi_workspace;
mod narrowed;
mod neighbours;
mod notifications;
mod openapi;
mod page;
#[allow(unreachable_pub, reason = "the fuzz targets use it from another crate")]
mod properties;
mod proxies;
mod push;
mod raw_bytes;
mod release;
mod restore;
mod restore_truth;
mod schedule;
mod signing;
mod skip_unchanged;
mod status;
mod support_works;
mod sync;
mod verify;
mod workspace_specific;
