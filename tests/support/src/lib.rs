//! What the tests, the bench and the demo use: a Windmill that answers like the recorded one, git remotes over files,
//! HTTP and SSH, the real `wmill`, and a sandbox in which our binary runs. It uses `windmill-git-sync` only through its
//! public interface, like a user.
//!
//! | module | owns |
//! | --- | --- |
//! | [`outside`] | what a program in place of `wmill` does outside its confinement |
//! | [`process`] | programs with a deadline, killed with all their children |
//! | [`sandbox`] | a folder for each test, and what a test needs in it |
//! | [`http`] | a small HTTP/1.1 server with faults on demand, and a client for one request |
//! | [`workspace`] | the content of a Windmill workspace, recorded or made up |
//! | [`windmill`] | the stand-in for Windmill |
//! | [`deployed`] | the requests of `wmill sync push`, applied to a workspace |
//! | [`wmill`] | the real `wmill`, installed once, and its pull without our program |
//! | [`digest`] | SHA-256 in hexadecimal digits |
//! | [`replay`] | a `wmill` that replays what the real one wrote |
//! | [`git`] | bare repositories, read and written by the real `git` |
//! | [`git_http`] | git over smart HTTP with Basic authentication |
//! | [`sshd`] | git over SSH with a real `sshd` |
//! | [`proxy`] | an HTTP proxy that records its requests |
//! | [`receivers`] | receivers of notices: chats, a URL, a heartbeat |
//! | [`run`] | our own binary: one command, or the service |
//! | [`stack`] | the image in a compose file, on a real Docker Engine |
//! | [`chromium`] | a real browser, and what it shows |
//! | [`leaks`] | the search for planted secrets |
//! | [`tls`] | certificate authorities, and TLS in front of the plain stand-ins |
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

/// Returns the folder of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it lies in tests/support")
}
