//! The test bed: a Windmill that answers as the recorded one did, git remotes over files, HTTP and SSH, the real
//! `wmill`, and a sandbox to run our binary in. It knows the public interface of `windmill-git-sync`, and nothing of
//! its insides, so that the demo can stand on it too (`#[path = "../tests/it/bed/mod.rs"] mod bed;`).
//!
//! | module | owns |
//! | --- | --- |
//! | [`process`] | programs under a deadline, killed with all their children |
//! | [`sandbox`] | a folder of its own for each test, and what a test needs in it |
//! | [`http`] | a small HTTP/1.1 server with faults on demand, and a client for one request |
//! | [`workspace`] | what a Windmill workspace holds, recorded or made up |
//! | [`windmill`] | the stand-in for Windmill |
//! | [`deployed`] | what `wmill sync push` sends, taken into a workspace |
//! | [`wmill`] | the real `wmill`, installed once, and a pull by it alone |
//! | [`git`] | bare repositories, looked into and written to by the real `git` |
//! | [`git_http`] | git over smart HTTP with Basic authentication |
//! | [`sshd`] | git over SSH with a real `sshd` |
//! | [`proxy`] | an HTTP proxy that writes down what it is asked |
//! | [`receivers`] | whoever is told of runs: chats, a URL, a heartbeat |
//! | [`run`] | our own binary: one command, or the service |
//! | [`stack`] | the image in a compose file, on a real Docker Engine |
//! | [`leaks`] | the search for planted secrets |
//! | [`tls`] | certificate authorities, and TLS before the plain stand-ins |
//! | [`trees`] | folders as values, compared by bytes or by value |
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests and demo each use a part of it; it starts programs and servers; a panic is how a test fails"
)]

pub mod deployed;
pub mod git;
pub mod git_http;
pub mod http;
pub mod leaks;
pub mod process;
pub mod proxy;
pub mod receivers;
pub mod run;
pub mod sandbox;
pub mod sshd;
pub mod stack;
pub mod tls;
pub mod trees;
pub mod windmill;
pub mod wmill;
pub mod workspace;

pub use git::{BareRepository, Changes, Commit, Remote, Tree};
pub use git_http::{GIT_TOKEN, GIT_USERNAME, GitHttp, PushMoment, Times};
pub use http::{Answer, Fault, LoggedRequest};
pub use leaks::assert_nothing_leaked;
pub use process::{Finished, eventually, processes_below, processes_with_environment, side_by_side};
pub use run::{Outcome, Run, Running, Service};
pub use sandbox::{Invocation, Sandbox};
pub use sshd::GitSsh;
pub use stack::Stack;
pub use trees::{Files, assert_same_files, assert_same_values, files_below};
pub use windmill::{HeldExports, Role, TokenKind, WINDMILL_TOKEN, Windmill};
pub use wmill::{pull_alone, pulled_alone, push_alone, wmill};
pub use workspace::Workspace;
