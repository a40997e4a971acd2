//! A backup of a Windmill workspace in a git repository, taken with `wmill` and proven to have arrived.
//!
//! This is the library behind the program `windmill-git-sync`, whose README says how it is used. It is made for that
//! program alone: what is stable are its commands, settings, HTTP interface and codes, not these modules. They are
//! public so that tests, benches and fuzzers reach them, and so that this page can show them.
//!
//! # How a sync goes
//!
//! 1. Options and environment become a [`config::Config`], or one error that names all that is wrong. With a request's
//!    JSON that becomes a [`sync_request::Draft`], and with a workspace a [`sync_request::SyncRequest`], in which
//!    nothing is open any more; which configured secret may serve which request is decided there, and nowhere else.
//! 2. [`runs`] has one sync of a workspace at a time, and lets those that ask for the same share one. The command line
//!    goes without it. Across processes, [`lock`] does the same.
//! 3. [`sync::run`] tells the story: fetch the branch's tip, ask Windmill who the token is, let `wmill` pull into a
//!    folder that holds the tip less all that could lead it astray, compare, let the guards refuse, commit, push, and
//!    look whether the branch holds the commit.
//! 4. It ends with an [`outcome::SyncResult`], whose [`code::Code`] decides HTTP status and exit code. The [`ledger`]
//!    has it counted, remembered and told.
//!
//! Around that, [`server`] turns bytes into requests for [`app`], and knows nothing of backups.
//!
//! # What can be had without a world
//!
//! Most modules are pure: they take values and give values, and are tested by that. A configured token, for instance,
//! serves only what it was configured for:
//!
//! ```
//! use windmill_git_sync::config::{Config, Environment, Need, Options};
//! use windmill_git_sync::names::WorkspaceId;
//! use windmill_git_sync::sync_request::Draft;
//!
//! let settings = [
//!     ("WINDMILL_WORKSPACE", "shop"),
//!     ("WINDMILL_TOKEN", "a token"),
//!     ("GIT_REMOTE_URL", "https://git.example.com/me/backup.git"),
//!     ("GIT_TOKEN", "another"),
//! ];
//! let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
//! let config = Config::new(&Options::default(), &environment, Need::Sync).unwrap();
//! let shop = WorkspaceId::parse("shop").unwrap();
//!
//! let request = Draft::from_json(b"", &config).unwrap().request(&shop).unwrap();
//! assert_eq!(request.branch.as_str(), "main");
//!
//! let elsewhere = Draft::from_json(br#"{"git_branch": "other"}"#, &config).unwrap();
//! let refused = elsewhere.request(&shop).err().unwrap();
//! assert!(refused.message.contains("lacks a `windmill_token` of its own"));
//! ```
//!
//! # The map
//!
//! The modules, from the ground up; each depends only on those above it. ARCHITECTURE.md says which of them touch the
//! world, and why all this is made as it is.
//!
//! | module | owns |
//! | --- | --- |
//! | [`percent`] | percent-encoding, there and back |
//! | [`secret`] | a string that cannot be printed |
//! | [`scrubber`] | the removal of known secrets from text |
//! | [`code`] | the result codes, their HTTP status and exit codes |
//! | [`digest`] | digests of content |
//! | [`names`] | workspace, branch, remote, folder and author, parsed once at the edge; which names no file in a repository can have |
//! | [`http`] | bytes to a request head, with all rules of what is refused; an answer to bytes |
//! | [`schedule`] | a cron expression, and when it comes true |
//! | [`proxy`] | through which proxy a server is asked |
//! | [`config`] | options and environment to a `Config`, every fault told at once |
//! | [`sync_request`] | a request's JSON and the settings to a `Draft`, and with a workspace to a `SyncRequest`; which secret may serve it |
//! | [`wmill_yaml`] | what a repository's `wmill.yaml` may say, and the one written for a run |
//! | [`items`] | which Windmill object a path belongs to, what a change deletes, what in it is secret |
//! | [`outcome`] | the JSON of a result |
//! | [`logging`] | log lines, as text or JSON |
//! | [`deadline`] | the point at which a run ends, by its time or by an interrupt |
//! | [`retry`] | how often a step is tried that failed for a cause that passes, and after which pauses |
//! | [`scratch`] | files that only we may read |
//! | [`trust`] | whom we trust over TLS: the system's certificates and those of `CA_BUNDLE_FILE` |
//! | [`web`] | the HTTP client for our own small questions |
//! | [`both`] | two things at the same time |
//! | [`mailbox`] | what one thread has for another, a few pieces at most |
//! | [`subprocess`] | one program under a deadline, its group gone at the end |
//! | [`lock`] | one sync of a workspace at a time, across processes |
//! | [`workplace`] | what every program of a run is given |
//! | [`signing`] | the key that signs commits |
//! | [`object`] | what git's objects are called |
//! | [`pushes`] | what pushes of ours leave in a repository on this machine |
//! | [`ssh`] | our own program as git's `ssh` |
//! | [`listing`] | sorted listings of files, on the disk, read as streams |
//! | [`git`] | git's verbs over one checkout and one remote |
//! | [`checkouts`] | which checkouts are kept |
//! | [`comparison`] | what differs between two trees, counted and listed |
//! | [`staging`] | whether git staged what lies in the folder |
//! | [`pattern`] | which paths a person means by `f/ops/**` |
//! | [`by_value`] | whether two files mean the same, and what differs, without secrets |
//! | [`windmill`] | what Windmill is asked: what it is, who the token is, what lies in a workspace |
//! | [`wmill`] | the `wmill` program: its pull, its push, its words |
//! | [`probe`] | the digest of all that wmill would read from Windmill |
//! | [`authors`] | who edited which item last, as far as Windmill tells |
//! | [`fault`] | why a step failed, and what may help |
//! | [`task`] | one run from the inside: its turn, its place, its steps |
//! | [`base`] | what the remote holds when a round begins, and what of it wmill gets to see |
//! | [`pull`] | `wmill sync pull` upon a base, with its tries |
//! | [`composition`] | what the folder is to hold after a pull |
//! | [`guards`] | what is refused although nothing failed |
//! | [`commits`] | what differs, in commits: one for all of it, or one for each item |
//! | [`delivery`] | brings a commit to the remote, and sees that it is there |
//! | [`shortcut`] | what was true at the last success, and whether it still is |
//! | [`proof`] | what a success rests on, noted for the next shortcut |
//! | [`opening`] | how a sync begins: everybody is asked at the same time, and whether anything changed |
//! | [`world`] | what a sync asks of the world, verb by verb |
//! | [`sync`] | the story of a sync |
//! | [`history`] | what past runs came to, for each backup, over restarts |
//! | [`verify`] | the story of a verification |
//! | [`restore`] | the story of a restore |
//! | [`roster`] | for which workspaces a draft is |
//! | [`check`] | what is tried before a sync, and what each finding means |
//! | [`runs`] | which syncs run, which wait, who shares one |
//! | [`metrics`] | what is counted, and its text for Prometheus |
//! | [`notice`] | what is said of a run that ended, to whom |
//! | [`notifier`] | sends it, without delaying a sync |
//! | [`ledger`] | what happens when a run has ended |
//! | [`report`] | how service and backups stand at one moment, as JSON |
//! | [`work`] | the syncs of a service |
//! | [`scheduler`] | starts the configured sync when the schedule says so |
//! | [`page`] | the same as a page to look at |
//! | [`server`] | listener, threads, deadlines, slots, shutdown |
//! | [`app`] | routes: a request to an answer |

// A function fits a screen. In a test, a table may be longer.
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

#[path = "api/routes.rs"]
pub mod app;
#[path = "windmill/editors.rs"]
pub mod authors;
#[path = "backup/sync/tip.rs"]
pub mod base;
#[path = "util/parallel.rs"]
pub mod both;
#[path = "backup/verify/value_diff.rs"]
pub mod by_value;
#[path = "backup/preflight.rs"]
pub mod check;
#[path = "git/checkout_cache.rs"]
pub mod checkouts;
#[path = "model/result_code.rs"]
pub mod code;
#[path = "backup/sync/commit.rs"]
pub mod commits;
#[path = "git/tree_diff.rs"]
pub mod comparison;
#[path = "backup/sync/merge.rs"]
pub mod composition;
#[path = "config/mod.rs"]
pub mod config;
#[path = "util/deadline.rs"]
pub mod deadline;
#[path = "backup/sync/push.rs"]
pub mod delivery;
#[path = "util/hash.rs"]
pub mod digest;
#[path = "backup/error.rs"]
pub mod fault;
pub mod git;
#[path = "backup/sync/guards.rs"]
pub mod guards;
#[path = "service/history.rs"]
pub mod history;
pub mod http;
#[path = "windmill/item_path.rs"]
pub mod items;
#[path = "service/recorder.rs"]
pub mod ledger;
#[path = "git/ls_tree.rs"]
pub mod listing;
#[path = "process/orphans.rs"]
pub mod lock;
#[path = "util/logging.rs"]
pub mod logging;
#[path = "util/mailbox.rs"]
pub mod mailbox;
#[path = "service/metrics.rs"]
pub mod metrics;
#[path = "model/urls.rs"]
pub mod names;
#[path = "service/notify/message.rs"]
pub mod notice;
#[path = "service/notify/sender.rs"]
pub mod notifier;
#[path = "git/object.rs"]
pub mod object;
#[path = "backup/sync/start.rs"]
pub mod opening;
#[path = "model/run_result.rs"]
pub mod outcome;
#[path = "api/page.rs"]
pub mod page;
#[path = "backup/restore/glob.rs"]
pub mod pattern;
#[path = "util/percent.rs"]
pub mod percent;
#[path = "windmill/probe.rs"]
pub mod probe;
#[path = "backup/sync/last_sync.rs"]
pub mod proof;
#[path = "net/proxy.rs"]
pub mod proxy;
#[path = "backup/sync/pull.rs"]
pub mod pull;
#[cfg(unix)]
#[path = "git/push_journal.rs"]
pub mod pushes;
#[path = "service/status.rs"]
pub mod report;
#[path = "backup/restore/mod.rs"]
pub mod restore;
#[path = "util/retry.rs"]
pub mod retry;
#[path = "backup/workspaces.rs"]
pub mod roster;
#[path = "service/queue.rs"]
pub mod runs;
#[path = "config/schedule.rs"]
pub mod schedule;
#[path = "service/scheduler.rs"]
pub mod scheduler;
#[path = "util/files.rs"]
pub mod scratch;
#[path = "util/redact.rs"]
pub mod scrubber;
#[path = "util/secret.rs"]
pub mod secret;
#[path = "http/server/mod.rs"]
pub mod server;
#[path = "backup/sync/shortcut.rs"]
pub mod shortcut;
#[path = "git/signing.rs"]
pub mod signing;
#[path = "git/ssh_helper.rs"]
pub mod ssh;
#[path = "git/verify_index.rs"]
pub mod staging;
#[path = "process/run.rs"]
pub mod subprocess;
#[path = "backup/sync/mod.rs"]
pub mod sync;
#[path = "request/mod.rs"]
pub mod sync_request;
#[path = "backup/run_context.rs"]
pub mod task;
#[path = "net/ca_bundle.rs"]
pub mod trust;
#[path = "backup/verify/mod.rs"]
pub mod verify;
#[path = "net/http_client.rs"]
pub mod web;
#[path = "windmill/api.rs"]
pub mod windmill;
#[path = "windmill/cli.rs"]
pub mod wmill;
#[path = "windmill/wmill_yaml.rs"]
pub mod wmill_yaml;
#[path = "service/worker.rs"]
pub mod work;
#[path = "process/run_env.rs"]
pub mod workplace;
#[path = "backup/sync/steps.rs"]
pub mod world;
