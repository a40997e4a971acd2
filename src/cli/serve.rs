//! The command `serve`: the listener, the schedules, the check at the start, and the shutdown.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::args::Serve;
use super::{PROGRAM, eprint_line, new_recorder, own_program, signals};
use crate::api::routes::App;
use crate::backup::paths;
use crate::backup::preflight;
use crate::backup::workspaces::WorkspaceList;
use crate::config::{Config, Environment, Options, Required};
use crate::http::server::{Draining, Server};
use crate::model::result_code::Code;
use crate::net::ca_bundle;
use crate::process::orphans;
use crate::request::Purpose;
use crate::service::overdue::OverdueWatch;
use crate::service::queue::Queue;
use crate::service::recorder::Recorder;
use crate::service::scheduler::Scheduler;
use crate::service::worker::{self, SyncWorker};
use crate::util::deadline::{CancelToken, Deadline};
use crate::util::logging;

/// How long a cancelled sync may take to end its programs.
const KILL_TIME_MAX: Duration = Duration::from_secs(5);
/// How long callers may take to read their last answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// How long an ending service waits for its last notifications to be sent.
const LAST_NOTICE_TIME_MAX: Duration = Duration::from_secs(2);
/// How often an ending service checks whether its start check has ended.
const CHECK_POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often a service removes what killed commands left in its data folder.
const LEFTOVERS_POLL_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn serve(options: &Serve, environment: &Environment) -> ExitCode {
    let options = Options::new([("--listen", &options.listen), ("--data-dir", &options.data_dir)]);
    let config = match Config::new(&options, environment, Required::Serve) {
        Ok(config) => Arc::new(config),
        Err(error) => {
            eprint_line(&format!("{PROGRAM}: {error}"));
            return ExitCode::from(Code::ConfigInvalid.exit_code());
        }
    };
    logging::start(config.log_level, config.log_format);
    warn_of_what_syncs_lack(&config);
    match Server::bind(&config.listen) {
        Ok(server) => serve_until_stopped(server, &config),
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(Code::Internal.exit_code())
        }
    }
}

fn warn_of_what_syncs_lack(config: &Config) {
    if let Some(why) = worker::NO_SYNCS {
        log::warn!("{why}");
    }
    for lack in config.lacking() {
        log::warn!("{lack}: a sync needs it, unless the request brings it");
    }
    if let Some(advice) = config.no_alarm() {
        log::info!("{advice}");
    }
    if let Err(why) = ca_bundle::bundle(&config.tool_environment) {
        log::warn!("{why}; until that is mended, syncs and notices fail");
    }
}

fn serve_until_stopped(server: Server, config: &Arc<Config>) -> ExitCode {
    let cancel = CancelToken::default();
    let exit_code = Arc::new(OnceLock::new());
    let recorder = Arc::new(new_recorder(config));
    let worker = SyncWorker {
        config: Arc::clone(config),
        own_program: own_program(),
        cancel: cancel.clone(),
        recorder: Arc::clone(&recorder),
    };
    let runs = Queue::new(Box::new(worker), config.sync_timeout);
    signals::stop_service(&server.stop_handle(), &runs, &cancel, &exit_code, config);
    if let Ok(address) = server.local_addr() {
        log::info!("{PROGRAM} {} listening on {address}", env!("CARGO_PKG_VERSION"));
    }
    let workspace_list = Arc::new(WorkspaceList::default());
    for purpose in [Purpose::Sync, Purpose::Verify] {
        start_scheduler(Scheduler {
            config: Arc::clone(config),
            runs: Arc::clone(&runs),
            recorder: Arc::clone(&recorder),
            workspace_list: Arc::clone(&workspace_list),
            cancel: cancel.clone(),
            purpose,
        });
    }
    start_overdue_watch(OverdueWatch {
        config: Arc::clone(config),
        recorder: Arc::clone(&recorder),
        workspace_list: Arc::clone(&workspace_list),
        started: Instant::now(),
        cancel: cancel.clone(),
    });
    let start_check = StartCheck::begin(config, &runs, &recorder);
    let app = App::new(Arc::clone(config), Arc::clone(&runs), Arc::clone(&recorder), workspace_list, cancel.clone());
    let draining = server.run(Arc::new(app));
    start_check.cancel.cancel();
    let deadline_of_check = Deadline::after(KILL_TIME_MAX, &CancelToken::default());
    drain(config, &runs, &cancel, &draining);
    start_check.finish(&deadline_of_check);
    // This ends the programs of a start check that did not end in time.
    orphans::end_all_programs();
    // Runs that were refused during the shutdown are not saved yet.
    recorder.flush_at_end();
    recorder.notifier.finish(LAST_NOTICE_TIME_MAX);
    log::info!("ended");
    ExitCode::from(*exit_code.get_or_init(|| 0))
}

fn start_scheduler(scheduler: Scheduler) {
    let is_verify = scheduler.purpose == Purpose::Verify;
    let config = &scheduler.config;
    let Some(schedule) = (if is_verify { &config.verify_schedule } else { &config.sync_schedule }).clone() else {
        return;
    };
    let noun = scheduler.purpose.noun();
    log::info!("a {noun} is scheduled for `{schedule}` (UTC)");
    let thread = std::thread::Builder::new().name("scheduler".to_owned());
    if let Err(error) = thread.spawn(move || scheduler.follow(&schedule)) {
        log::error!("no scheduled {noun} will start, since there is no thread for the schedule: {error}");
    }
}

fn start_overdue_watch(watch: OverdueWatch) {
    let Some(every) = watch.config.expect_sync_every else { return };
    let thread = std::thread::Builder::new().name("overdue".to_owned());
    if let Err(error) = thread.spawn(move || watch.run(every)) {
        log::error!("no notice of an overdue backup will be sent, since there is no thread for it: {error}");
    }
}

/// The thread that cleans up the data folder and, at the start of the service, checks the settings.
struct StartCheck {
    cancel: CancelToken,
    thread: Option<JoinHandle<()>>,
}

impl StartCheck {
    fn begin(config: &Arc<Config>, runs: &Arc<Queue>, recorder: &Arc<Recorder>) -> Self {
        let cancel = CancelToken::default();
        let (config, runs, own) = (Arc::clone(config), Arc::clone(runs), cancel.clone());
        let recorder = Arc::clone(recorder);
        let check = move || {
            paths::remove_leftovers(&config);
            let last_token_user =
                |workspace: &str, destination: &str| recorder.history.token_user(workspace, destination);
            preflight::at_start(&config, &own_program(), &own, &last_token_user, &|| runs.were_used());
            // Commands that run beside this service may be killed too, and leave files.
            while !own.is_cancelled() {
                std::thread::park_timeout(LEFTOVERS_POLL_INTERVAL);
                paths::remove_leftovers(&config);
            }
        };
        let thread = std::thread::Builder::new().name("check".to_owned()).spawn(check);
        let thread = thread.map_err(|error| log::warn!("nothing is checked, since there is no thread for it: {error}"));
        Self { cancel, thread: thread.ok() }
    }

    /// Waits until the programs and the scratch folder of the check are gone, at most until the deadline. The caller
    /// has cancelled the check before.
    fn finish(self, deadline: &Deadline) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        // A thread cannot be joined with a time limit, so this polls it.
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
            && let Ok(wait) = deadline.next_wait()
        {
            std::thread::sleep(wait.min(CHECK_POLL_INTERVAL));
        }
    }
}

/// Lets running syncs continue for `SHUTDOWN_GRACE`, then ends them. Every caller gets its answer.
fn drain(config: &Config, runs: &Queue, cancel: &CancelToken, draining: &Draining) {
    runs.close();
    if !runs.wait_until_idle(config.shutdown_grace) {
        log::warn!("ending the running sync: SHUTDOWN_GRACE ({} s) is over", config.shutdown_grace.as_secs());
        cancel.cancel();
        if !runs.wait_until_idle(KILL_TIME_MAX) {
            orphans::end_all_programs();
        }
    }
    let left = draining.wait(ANSWER_TIME_MAX);
    if left > 0 {
        log::warn!("{left} connections did not take their answers");
    }
}
