//! Signals: what SIGTERM and SIGINT do to each command.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::backup::paths;
use crate::http::server::Stop;
use crate::process::orphans;
use crate::service::Service;
use crate::util::{CancelToken, files};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The longest time in which a running sync ends its programs after a second signal. Programs that take longer are
/// killed.
const SECOND_SIGNAL_TIME_MAX: Duration = Duration::from_millis(500);
/// The exit code with which shells report a process that SIGTERM ended.
const ENDED_BY_SIGNAL: u8 = 143;

fn listen(handle: impl FnOnce(Signals) + Send + 'static) {
    // A terminal that closes sends SIGHUP, which `nohup` makes a process ignore.
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let started = Signals::new([SIGTERM, SIGINT].into_iter().chain(hangup)).and_then(|signals| {
        std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(move || handle(signals))
    });
    if let Err(error) = started {
        log::warn!("cannot listen to signals, so they end the process at once: {error}");
    }
}

/// Returns whether this process ignores the signal. It inherits this from the process that started it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// On the first signal, stops accepting connections; the caller then lets running syncs continue for the grace period.
/// On the second, ends everything here, unless the service ends before. The exit code that was decided first is used.
pub(super) fn stop_service(stop: &Stop, service: &Arc<Service>, exit_code: &Arc<OnceLock<u8>>) {
    let (stop, service, exit_code) = (stop.clone(), Arc::clone(service), Arc::clone(exit_code));
    listen(move |mut signals| {
        let mut signals = signals.forever();
        signals.next();
        log::info!("shutting down; no more requests are accepted");
        stop.stop();
        signals.next();
        let code = *exit_code.get_or_init(|| ENDED_BY_SIGNAL);
        service.cancel.cancel();
        let _ = service.queue.wait_until_idle(SECOND_SIGNAL_TIME_MAX);
        orphans::end_all_programs();
        // A run that is still in progress has not removed its keys.
        for run in service.queue.overview().0 {
            let _ = files::remove_folder(&paths::run_folder(&service.config, &run.request));
        }
        std::process::exit(i32::from(code));
    });
}

/// Cancels the token `grace` after SIGTERM or SIGHUP. On SIGINT, which comes from a person at a keyboard, and on a
/// second signal, it is cancelled at once. After there is an `exit_code`, only notifications are being sent, and any
/// signal ends the process.
pub(super) fn cancel_after_grace(grace: Duration, cancel: &CancelToken, exit_code: &Arc<OnceLock<u8>>) {
    let (cancel, exit_code) = (cancel.clone(), Arc::clone(exit_code));
    listen(move |mut signals| {
        let mut is_first = true;
        for signal in signals.forever() {
            if let Some(code) = exit_code.get() {
                std::process::exit(i32::from(*code));
            }
            let has_grace = is_first && signal != SIGINT && !grace.is_zero();
            is_first = false;
            let timer = cancel.clone();
            // This thread is only a timer. If the process ends earlier, the thread ends with it.
            let wait = move || {
                std::thread::sleep(grace);
                timer.cancel();
            };
            if has_grace && std::thread::Builder::new().stack_size(64 * 1024).spawn(wait).is_ok() {
                log::info!("shutting down; the sync may continue for {} s", grace.as_secs());
            } else {
                cancel.cancel();
            }
        }
    });
}
