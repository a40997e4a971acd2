//! A backup of a Windmill workspace in a git repository, taken with `wmill` and proven to have arrived.
//!
//! This is the library behind the program `windmill-git-sync`, whose README says how to use it. The program's commands,
//! settings, HTTP interface and codes are stable. The modules are public so that tests, benches and fuzzers can use
//! them, and so that this page can show them; they change with every version.
//!
//! # The map
//!
//! Each folder owns one thing. It imports only from the folders in the last column; a test checks these rows.
//!
//! | folder | owns | may import |
//! | --- | --- | --- |
//! | [`util`] | secrets, redaction, percent-encoding, hashes, deadlines, retries, files, time, logging | – |
//! | [`model`] | result code, run result, the error of a run, names, URLs, git credentials: plain values | util |
//! | [`net`] | the outgoing HTTP client, TLS, the CA bundle, proxies | util |
//! | [`process`] | programs, their environment and confinement, locks, orphans; it alone starts programs | util |
//! | [`config`] | settings: variables, sources of secrets, parsing, the cron expression | util, model, net |
//! | [`request`] | settings and a body to a `SyncRequest`; which secret may serve which request | util, model, config |
//! | [`http`] | request, response, listener: sockets and bytes; it alone binds | util, model |
//! | [`git`] | fetch, tree, commit, push, and what git prints | util, model, process, net |
//! | [`windmill`] | the API client, the `wmill` program, `wmill.yaml`, item paths, editors | util, model, process, net, http |
//! | [`backup`] | the use cases: sync, verify, restore, preflight checks, and the context of a run | all above |
//! | [`service`] | queue, scheduler, history, metrics, status, notifications | all above but git and windmill |
//! | [`api`] | routes, the status page | request, service, backup, http, config, model, util |
//! | [`cli`] | arguments, environment, terminal output, exit codes; it alone prints | everything |
//!
//! # How a sync goes
//!
//! 1. [`cli`] turns options and environment into a [`config::Config`], or one error that names everything that is
//!    wrong. [`request`] turns that, and a request's JSON, into a complete [`request::SyncRequest`]. It decides which
//!    configured secret may serve which request, and refuses the others.
//! 2. [`service::queue`] runs one sync of a workspace at a time and lets equal requests share one. [`process::lock`]
//!    does the same across processes.
//! 3. [`backup::sync`] is the sync itself: fetch the branch's tip, read Windmill, let `wmill` pull, compare, apply the
//!    guards, commit, push ([`backup::sync::push`]), and read the branch back.
//! 4. The run ends with a [`model::run_result::SyncResult`], whose [`model::result_code::Code`] decides the HTTP status
//!    and the exit code. [`service::recorder`] counts it, remembers it and sends notifications.
//!
//! [`http::server`] turns bytes into requests for [`api::routes`]. The schedules are in [`service::scheduler`], their
//! cron expressions in [`config::schedule`].
//!
//! # An example
//!
//! A configured token serves only what it was configured for:
//!
//! ```
//! use windmill_git_sync::config::{Config, Environment, Required, Options};
//! use windmill_git_sync::model::names::WorkspaceId;
//! use windmill_git_sync::request::Draft;
//!
//! let settings = [
//!     ("WINDMILL_WORKSPACE", "shop"),
//!     ("WINDMILL_TOKEN", "a-token"),
//!     ("GIT_REMOTE_URL", "https://git.example.com/me/backup.git"),
//!     ("GIT_TOKEN", "another-token"),
//!     ("SYNC_API_TOKEN", "a-third-token"),
//! ];
//! let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
//! let config = Config::new(&Options::default(), &environment, Required::Sync).unwrap();
//! let shop = WorkspaceId::parse("shop").unwrap();
//!
//! let request = Draft::from_json(b"", &config).unwrap().request(&shop).unwrap();
//! assert_eq!(request.branch.as_str(), "main");
//!
//! let elsewhere = Draft::from_json(br#"{"git_branch": "other"}"#, &config).unwrap();
//! let refused = elsewhere.request(&shop).err().unwrap();
//! assert!(refused.message.contains("lacks a `windmill_token` of its own"));
//! ```

// A function has to fit on a screen. In a test, a table may be longer.
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

pub mod api;
pub mod backup;
pub mod cli;
pub mod config;
pub mod git;
pub mod http;
pub mod model;
pub mod net;
pub mod process;
pub mod request;
pub mod service;
pub mod util;
pub mod windmill;
