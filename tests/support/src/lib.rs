//! What the tests, the bench and the demo stand on: a Windmill that answers as the recorded one did, git remotes over
//! files, HTTP and SSH, the real `wmill`, and a sandbox to run our binary in. It meets `windmill-git-sync` as its users
//! do, by its public interface.
//!
//! | module | owns |
//! | --- | --- |
//! | [`outside`] | what a program in place of `wmill` does outside of its confinement |
//! | [`process`] | programs under a deadline, killed with all their children |
//! | [`sandbox`] | a folder of its own for each test, and what a test needs in it |
//! | [`http`] | a small HTTP/1.1 server with faults on demand, and a client for one request |
//! | [`workspace`] | what a Windmill workspace holds, recorded or made up |
//! | [`windmill`] | the stand-in for Windmill |
//! | [`deployed`] | what `wmill sync push` sends, taken into a workspace |
//! | [`wmill`] | the real `wmill`, installed once, and a pull by it alone |
//! | [`digest`] | SHA-256, in digits |
//! | [`replay`] | a `wmill` that replays what the real one wrote |
//! | [`git`] | bare repositories, looked into and written to by the real `git` |
//! | [`git_http`] | git over smart HTTP with Basic authentication |
//! | [`sshd`] | git over SSH with a real `sshd` |
//! | [`proxy`] | an HTTP proxy that writes down what it is asked |
//! | [`receivers`] | receivers of notices: chats, a URL, a heartbeat |
//! | [`run`] | our own binary: one command, or the service |
//! | [`stack`] | the image in a compose file, on a real Docker Engine |
//! | [`chromium`] | a real browser, and what it shows |
//! | [`leaks`] | the search for planted secrets |
//! | [`tls`] | certificate authorities, and TLS before the plain stand-ins |
//! | [`trees`] | folders as values, compared by bytes or by value |
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "names say what a test needs; it starts programs and servers; a panic is how a test fails"
)]

pub mod chromium;
pub mod deployed;
pub mod digest;
pub mod git;
pub mod git_http;
pub mod http;
pub mod leaks;
pub mod outside;
pub mod process;
pub mod proxy;
pub mod receivers;
pub mod replay;
pub mod run;
pub mod sandbox;
pub mod sshd;
pub mod stack;
pub mod tls;
pub mod trees;
pub mod windmill;
pub mod wmill;
pub mod workspace;

use std::path::Path;

pub use chromium::{Chromium, View};
pub use git::{BareRepository, Changes, Commit, Remote, Tree};
pub use git_http::{GIT_TOKEN, GIT_USERNAME, GitHttp, PushMoment, Times};
pub use http::{Answer, Fault, LoggedRequest};
pub use leaks::assert_nothing_leaked;
pub use process::{Finished, eventually, processes_below, processes_with_environment, side_by_side};
pub use replay::{Replay, State};
pub use run::{Outcome, Run, Running, Service};
pub use sandbox::{Invocation, Sandbox};
pub use sshd::GitSsh;
pub use stack::Stack;
pub use trees::{Files, assert_same_files, assert_same_values, files_below};
pub use windmill::{HeldExports, Role, TokenKind, WINDMILL_TOKEN, Windmill};
pub use wmill::{OUR_DEFAULTS, pull_alone, pulled_alone, push_alone, wmill};
pub use workspace::Workspace;

/// The folder of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it lies in tests/support")
}
