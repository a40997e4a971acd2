//! Signals: what SIGTERM and SIGINT do to each command.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::backup::paths;
use crate::config::Config;
use crate::http::server::Stop;
use crate::process::orphans;
use crate::service::queue::Queue;
use crate::util::deadline::CancelToken;
use crate::util::files;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a second signal leaves a running sync, to end its programs; those that take longer are killed.
const SECOND_SIGNAL_TIME_MAX: Duration = Duration::from_millis(500);
/// As shells report a process that SIGTERM ended.
const ENDED_BY_SIGNAL: u8 = 143;

fn listen(handle: impl FnOnce(Signals) + Send + 'static) {
    // A terminal that closes sends SIGHUP; `nohup` has it ignored.
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let started = Signals::new([SIGTERM, SIGINT].into_iter().chain(hangup)).and_then(|signals| {
        std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(move || handle(signals))
    });
    if let Err(error) = started {
        log::warn!("cannot listen to signals, so they end the process at once: {error}");
    }
}

/// Whether this process ignores the signal, as the one that started it wanted.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The first signal stops the accepting; the caller that drains gives running syncs their grace. The second ends all: here,
/// or where the service is through with its end before, with the exit code that was decided first.
pub(super) fn stop_service(
    stop: &Stop,
    runs: &Arc<Queue>,
    cancel: &CancelToken,
    exit_code: &Arc<OnceLock<u8>>,
    config: &Arc<Config>,
) {
    let (stop, runs, config) = (stop.clone(), Arc::clone(runs), Arc::clone(config));
    let (cancel, exit_code) = (cancel.clone(), Arc::clone(exit_code));
    listen(move |mut signals| {
        let mut signals = signals.forever();
        signals.next();
        log::info!("asked to end; no more requests are taken");
        stop.stop();
        signals.next();
        let code = *exit_code.get_or_init(|| ENDED_BY_SIGNAL);
        cancel.cancel();
        let _ = runs.wait_until_idle(SECOND_SIGNAL_TIME_MAX);
        orphans::end_all_programs();
        // A run that did not end by itself did not remove its keys either.
        for run in runs.overview().running {
            let _ = files::remove_folder(&paths::run_folder(&config, &run.request));
        }
        std::process::exit(i32::from(code));
    });
}

/// The first signal ends it.
pub(super) fn cancel_on_signal(cancel: &CancelToken) {
    let cancel = cancel.clone();
    listen(move |mut signals| {
        signals.forever().next();
        cancel.cancel();
    });
}

/// Whether there is a thread that cancels after this time.
fn cancel_after(grace: Duration, cancel: CancelToken) -> bool {
    let thread = std::thread::Builder::new().name("grace".to_owned()).stack_size(64 * 1024);
    // A timer: the process may end earlier, and the thread with it.
    let wait = move || {
        std::thread::sleep(grace);
        cancel.cancel();
    };
    thread.spawn(wait).is_ok()
}

/// SIGTERM and SIGHUP leave a sync its grace; SIGINT, which is a person at a keyboard, ends it now; so does a second signal.
/// Once there is an `exit_code`, only notices are being sent, and any signal ends that.
pub(super) fn cancel_after_grace(cancel: &CancelToken, grace: Duration, exit_code: &Arc<OnceLock<u8>>) {
    let (cancel, exit_code) = (cancel.clone(), Arc::clone(exit_code));
    listen(move |mut signals| {
        let mut is_first = true;
        for signal in signals.forever() {
            if let Some(code) = exit_code.get() {
                std::process::exit(i32::from(*code));
            }
            if is_first && signal != SIGINT && cancel_after(grace, cancel.clone()) {
                log::info!("asked to end; the sync may go on for {} s", grace.as_secs());
            } else {
                cancel.cancel();
            }
            is_first = false;
        }
    });
}
