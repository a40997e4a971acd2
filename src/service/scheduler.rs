//! The scheduler: starts the configured sync, or its verification, at the times of the schedule.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::Schedule;
use crate::request::{Draft, Flags, Purpose};
use crate::service::{Service, Workspace};

/// The clock is checked at least this often, because it may be changed, and a machine may sleep.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// Instances with the same expression should not start at once: each waits for a random part of a tenth of the time to
/// the next run, and no longer than this.
const DELAY_MAX: Duration = Duration::from_secs(30);
const DELAY_SHARE: u32 = 10;

/// Starts syncs or verifications at the times of `schedule`, until the process ends. If a time was missed since the
/// last run, because no service was running, starts one at once.
pub fn follow(service: &Arc<Service>, purpose: Purpose, schedule: &Schedule) {
    let mut handled = last_run(service, purpose).unwrap_or_else(SystemTime::now);
    while let Some((due, wait)) = next_run(schedule, &mut handled, SystemTime::now()) {
        if !wait.is_zero() {
            std::thread::park_timeout(wait);
            continue;
        }
        std::thread::park_timeout(random_delay(schedule, due));
        start(service, purpose);
        // One run is enough for all missed times.
        handled = SystemTime::now();
    }
}

/// Returns the oldest of the last runs of the configured workspaces. Workspaces without a run are ignored.
fn last_run(service: &Service, purpose: Purpose) -> Option<SystemTime> {
    let last = |of: &Workspace| {
        let status = if purpose == Purpose::Verify { &of.verified } else { &of.backup };
        status.last_run.as_ref()?.ended_at()
    };
    service.workspaces().iter().filter_map(last).min()
}

/// Starts the runs.
fn start(service: &Arc<Service>, purpose: Purpose) {
    let Service { config, recorder, cancel, .. } = &**service;
    let draft = Draft::from_config(config, Flags { purpose, ..Flags::default() });
    let noun = purpose.noun();
    let requests = match recorder.requests(&draft, config, cancel) {
        Ok(requests) => requests.list,
        Err(error) => return log::error!("the scheduled {noun}: {}", error.message),
    };
    for request in requests {
        let workspace = request.workspace.clone();
        match service.submit(request) {
            Ok(run) => log::info!("run {}: the schedule asks for it", run.id),
            Err(code) => {
                log::error!("the scheduled {noun} of workspace {workspace} was not accepted: {}", code.as_str());
            }
        }
    }
}

/// Returns when a run is due, if each run up to `handled` was started, and how long to wait until the next check; a run
/// that is due now does not wait. Returns `None` if the schedule has no further time.
fn next_run(schedule: &Schedule, handled: &mut SystemTime, now: SystemTime) -> Option<(SystemTime, Duration)> {
    // If the clock was set back, the times after `now` are not handled yet.
    *handled = (*handled).min(now);
    let due = schedule.next_after(*handled)?;
    Some((due, due.duration_since(now).unwrap_or_default().min(CHECK_INTERVAL)))
}

fn random_delay(schedule: &Schedule, due: SystemTime) -> Duration {
    let to_next = schedule.next_after(due).and_then(|next| next.duration_since(due).ok()).unwrap_or_default();
    let longest = (to_next / DELAY_SHARE).min(DELAY_MAX);
    // The keys of a hasher are the standard library's only randomness.
    let part = RandomState::new().hash_one(due) % 1_000;
    longest.mul_f64(part as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the time this many seconds after a minute began.
    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_040 + seconds)
    }

    #[track_caller]
    fn check(handled: SystemTime, now: SystemTime, due: SystemTime, wait: Duration) {
        let minutely = Schedule::parse("* * * * *").unwrap();
        assert_eq!(next_run(&minutely, &mut { handled }, now), Some((due, wait)));
    }

    #[test]
    fn a_run_is_due_when_its_minute_begins_and_not_before() {
        check(at(1), at(1), at(60), CHECK_INTERVAL);
        check(at(1), at(50), at(60), Duration::from_secs(10));
        check(at(1), at(59), at(60), Duration::from_secs(1));
        check(at(1), at(60), at(60), Duration::ZERO);
        check(at(1), at(61), at(60), Duration::ZERO);
    }

    #[test]
    fn a_missed_time_is_due_at_once_and_a_handled_one_is_not() {
        check(at(1), at(86_401), at(60), Duration::ZERO);
        check(at(86_401), at(86_401), at(86_460), CHECK_INTERVAL);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_delay_the_next_run() {
        check(at(86_400), at(30), at(60), CHECK_INTERVAL);
        let minutely = Schedule::parse("* * * * *").unwrap();
        let mut handled = at(86_400);
        next_run(&minutely, &mut handled, at(30));
        assert_eq!(next_run(&minutely, &mut handled, at(60)), Some((at(60), Duration::ZERO)));
    }

    #[test]
    fn instances_start_at_different_times() {
        let due = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_040);
        let delays = |expression| {
            let schedule = Schedule::parse(expression).unwrap();
            (0..100).map(|_| random_delay(&schedule, due)).collect::<Vec<_>>()
        };
        let (minutely, daily) = (delays("* * * * *"), delays("0 3 * * *"));
        assert!(minutely.iter().all(|delay| *delay < Duration::from_secs(6)));
        assert!(daily.iter().all(|delay| *delay < DELAY_MAX));
        assert!(daily.iter().max() > daily.iter().min(), "a hundred equal draws of a thousand");
        assert!(daily.iter().any(|delay| *delay > Duration::from_secs(6)));
    }
}
