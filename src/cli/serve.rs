//! The command `serve`: the listener, the schedules, the check at the start, and the shutdown; and the command
//! `healthcheck`, which asks the listener.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ureq::http::HeaderMap;

use super::args::{Healthcheck, Serve};
use super::{PROGRAM, config};
use crate::api::routes::App;
use crate::backup::{Env, paths, preflight};
use crate::config::{Config, Environment, Options, Required};
use crate::http::server::{Draining, Server};
use crate::model::{BackupError, Code, Result};
use crate::net::{ca_bundle, http_client};
use crate::process::{orphans, own_program};
use crate::request::Purpose;
use crate::service::{Service, recorder, scheduler};
use crate::util::{CancelToken, logging, wait_while};

/// The longest time in which a cancelled sync ends its programs.
const KILL_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest time in which callers read their last answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// The longest wait of an ending service until its last notifications are sent.
const LAST_NOTICE_TIME_MAX: Duration = Duration::from_secs(2);
/// The interval at which a service looks for overdue backups, and for files that killed commands left in its data
/// folder. The clock may be changed, and a machine may sleep.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);
/// A service that takes longer to answer is unhealthy.
const HEALTHCHECK_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) fn serve(options: &Serve, environment: &Environment) -> Result<u8> {
    let options =
        Options::new([("--listen", "LISTEN_ADDR", &options.listen), ("--data-dir", "DATA_DIR", &options.data_dir)]);
    let config = config(&options, environment, Required::Serve)?;
    logging::start(config.log_level, config.log_format);
    // It is remembered, in case an update replaces the file while the service runs.
    own_program();
    for lack in config.lacking() {
        log::warn!("{lack}: a sync needs it, unless the request brings it");
    }
    if let Some(advice) = config.no_alarm() {
        log::info!("{advice}");
    }
    if let Err(why) = ca_bundle::bundle(&config.tool_environment) {
        log::warn!("{why}; until that is mended, syncs and notices fail");
    }
    match Server::bind(&config.listen.to_string()) {
        Ok(server) => Ok(serve_until_stopped(server, config)),
        Err(error) => {
            log::error!("{error}");
            Ok(Code::Internal.exit_code())
        }
    }
}

fn serve_until_stopped(server: Server, config: Config) -> u8 {
    let service = Arc::new(Service::new(config));
    let exit_code = Arc::new(OnceLock::new());
    #[cfg(unix)]
    super::signals::stop_service(&server.stop_handle(), &service, &exit_code);
    if let Ok(address) = server.local_addr() {
        log::info!("{PROGRAM} {} listening on {address}", env!("CARGO_PKG_VERSION"));
    }
    start_schedules(&service);
    start_housekeeping(&service);
    let stopped = CancelToken::default();
    let check = start_check(&service, &stopped);
    let draining = server.run(Arc::new(App::new(Arc::clone(&service))));
    stopped.cancel();
    let check_end = Instant::now() + KILL_TIME_MAX;
    drain(&service, &draining);
    // The start check must have ended its programs and removed its scratch folder.
    let left = check_end.saturating_duration_since(Instant::now());
    wait_while(left, || check.as_ref().is_some_and(|check| !check.is_finished()));
    // This ends the programs of a start check that did not end in time.
    orphans::end_all_programs();
    service.recorder.finish(LAST_NOTICE_TIME_MAX);
    log::info!("ended");
    *exit_code.get_or_init(|| 0)
}

/// Starts the threads of the schedules.
fn start_schedules(service: &Arc<Service>) {
    let config = &service.config;
    for (purpose, schedule) in [(Purpose::Sync, &config.sync_schedule), (Purpose::Verify, &config.verify_schedule)] {
        let Some(schedule) = schedule.clone() else { continue };
        let (noun, service) = (purpose.noun(), Arc::clone(service));
        log::info!("a {noun} is scheduled for `{schedule}` (UTC)");
        let lack = format!("no scheduled {noun} will start, since there is no thread for the schedule");
        spawn("scheduler", &lack, move || scheduler::follow(&service, purpose, &schedule));
    }
}

/// Starts a thread. `lack` describes what does not work without it.
fn spawn(name: &str, lack: &str, work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| log::error!("{lack}: {error}")).ok()
}

/// Starts the thread that reports overdue backups, and cleans up the data folder: commands that run beside this service
/// may be killed too, and leave files.
fn start_housekeeping(service: &Arc<Service>) {
    let service = Arc::clone(service);
    let lack = "files of killed commands stay and overdue backups cause no notice, since there is no thread for it";
    spawn("housekeeping", lack, move || {
        while !service.cancel.is_cancelled() {
            // After a panic, only this check is missing. The text of the panic is in the log.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                paths::remove_leftovers(&service.config);
                recorder::report_overdue(&service);
            }));
            std::thread::park_timeout(HOUSEKEEPING_INTERVAL);
        }
    });
}

/// Starts the thread that checks the settings at the start of the service.
fn start_check(service: &Arc<Service>, stopped: &CancelToken) -> Option<JoinHandle<()>> {
    let (service, stopped) = (Arc::clone(service), stopped.clone());
    spawn("check", "nothing is checked at the start, since there is no thread for it", move || {
        let Service { config, queue, recorder, .. } = &*service;
        let last_token_user = |workspace: &str, destination: &str| recorder.history.token_user(workspace, destination);
        let env = Env::new(config, &stopped, &last_token_user);
        preflight::at_start(&env, &|| queue.was_used());
    })
}

/// Lets running syncs continue for `SHUTDOWN_GRACE`, then ends them. Every caller gets its answer.
fn drain(service: &Service, draining: &Draining) {
    let (queue, grace) = (&service.queue, service.config.shutdown_grace);
    queue.close();
    if !queue.wait_until_idle(grace) {
        log::warn!("ending the running sync: SHUTDOWN_GRACE ({} s) is over", grace.as_secs());
        service.cancel.cancel();
        if !queue.wait_until_idle(KILL_TIME_MAX) {
            orphans::end_all_programs();
        }
    }
    let left = draining.wait(ANSWER_TIME_MAX);
    if left > 0 {
        log::warn!("{left} connections did not read their answers");
    }
}

/// Asks the local listener for `/health`.
pub(super) fn healthcheck(options: &Healthcheck, environment: &Environment) -> Result<u8> {
    let unhealthy = |why: String| BackupError::new(Code::Internal, why);
    let options = Options::new([("--listen", "LISTEN_ADDR", &options.listen)]);
    let config = config(&options, environment, Required::Serve).map_err(|error| unhealthy(error.message))?;
    // If the service listens on all addresses (0.0.0.0), this sends the request to the machine itself, without a proxy.
    let url = format!("http://{}/health", config.listen);
    let client = http_client::client(&url, HEALTHCHECK_TIME_MAX, HeaderMap::new(), &[]);
    let why = match client.get(&url).header("Host", "localhost").call() {
        Ok(answer) if answer.status() == 200 => return Ok(0),
        Ok(answer) => format!("unhealthy ({})", answer.status()),
        Err(error) => error.to_string(),
    };
    Err(unhealthy(format!("{} does not answer: {why}", config.listen)))
}
