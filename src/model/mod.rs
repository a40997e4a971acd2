//! The plain values of a backup: names, URLs, credentials, result codes and run results, with no input or output.
//! Every folder above `util` may use it; it uses `util` alone.

pub mod git_credentials;
pub mod names;
pub mod result_code;
pub mod run_result;
pub mod urls;
