//! A backup of a Windmill workspace in a git repository, taken with `wmill` and proven to have arrived.
//!
//! The modules, from the ground up; each depends only on those above it:
//!
//! | module | owns |
//! | --- | --- |
//! | [`secret`] | a string that cannot be printed, and the removal of such strings from text |
//! | [`code`] | the result codes, their HTTP status and exit codes |
//! | [`digest`] | digests of content |
//! | [`names`] | workspace, branch, remote, folder and author, parsed once at the edge |
//! | [`http`] | bytes to a request head, with all rules of what is refused; an answer to bytes |
//! | [`schedule`] | a cron expression, and when it comes true |
//! | [`proxy`] | through which proxy a server is asked |
//! | [`config`] | options and environment to a `Config`, every fault told at once |
//! | [`sync_request`] | a request's JSON and the settings to a `Draft`, and with a workspace to a `SyncRequest`; which secret may serve it |
//! | [`wmill_yaml`] | what a repository's `wmill.yaml` may say, and the one written for a run |
//! | [`items`] | which Windmill object a path belongs to, what a change deletes, what in it is secret |
//! | [`outcome`] | the JSON of a result |
//! | [`logging`] | log lines, as text or JSON |
//! | [`deadline`] | how long a run may go on, and whether it was told to end |
//! | [`retry`] | how often a step is tried that failed for a cause that passes, and after which pauses |
//! | [`scratch`] | files that only we may read |
//! | [`trust`] | whom we trust over TLS: the system's certificates and those of `CA_BUNDLE_FILE` |
//! | [`web`] | the HTTP client for our own small questions |
//! | [`subprocess`] | one program under a deadline, its group gone at the end |
//! | [`lock`] | one sync of a workspace at a time, across processes |
//! | [`workplace`] | what every program of a run is given |
//! | [`signing`] | the key that signs commits |
//! | [`object`] | what git's objects are called |
//! | [`listing`] | sorted listings of files, on the disk, read as streams |
//! | [`git`] | git's verbs over one checkout and one remote |
//! | [`checkouts`] | which checkouts are kept |
//! | [`comparison`] | what differs between two trees, counted and listed |
//! | [`staging`] | whether git staged what lies in the folder |
//! | [`windmill`] | who the token is, and `wmill sync pull` |
//! | [`fault`] | why a step failed, and what may help |
//! | [`task`] | one run from the inside: its turn, its place, its steps |
//! | [`base`] | what the remote holds when a round begins, and what of it wmill gets to see |
//! | [`pull`] | `wmill sync pull` upon a base, with its tries |
//! | [`composition`] | what the folder is to hold after a pull |
//! | [`guards`] | what is refused although nothing failed |
//! | [`delivery`] | brings a commit to the remote, and sees that it is there |
//! | [`sync`] | the story of a sync |
//! | [`history`] | the last runs and how each backup stands, over restarts |
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
//! | [`app`] | routes: a request to an answer |
//! | [`server`] | listener, threads, deadlines, slots, shutdown |

pub mod app;
pub mod base;
pub mod check;
pub mod checkouts;
pub mod code;
pub mod comparison;
pub mod composition;
pub mod config;
pub mod deadline;
pub mod delivery;
pub mod digest;
pub mod fault;
pub mod git;
pub mod guards;
pub mod history;
pub mod http;
pub mod items;
pub mod ledger;
pub mod listing;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod names;
pub mod notice;
pub mod notifier;
pub mod object;
pub mod outcome;
pub mod page;
pub mod proxy;
pub mod pull;
pub mod report;
pub mod retry;
pub mod roster;
pub mod runs;
pub mod schedule;
pub mod scheduler;
pub mod scratch;
pub mod secret;
pub mod server;
pub mod signing;
pub mod staging;
pub mod subprocess;
pub mod sync;
pub mod sync_request;
pub mod task;
pub mod trust;
pub mod web;
pub mod windmill;
pub mod wmill_yaml;
pub mod work;
pub mod workplace;
