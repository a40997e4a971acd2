//! Reports a configured backup that was not made for longer than `EXPECT_SYNC_EVERY`, no matter what should start it.

use std::time::{Duration, SystemTime};

use crate::model::result_code::Code;
use crate::service::notify::message::{Notice, Subject};
use crate::service::status::{self, Workspace};
use crate::service::{Service, worker};
use crate::util::time;

/// How often the clock is checked: ten times in the expected time, within these bounds. The clock may be changed,
/// and a machine may sleep.
const LOOK_SHARE: u32 = 10;
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(200);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(20);

/// Checks for overdue backups until the process ends.
pub fn watch(service: &Service, every: Duration) {
    let interval = (every / LOOK_SHARE).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX);
    loop {
        std::thread::park_timeout(interval);
        if service.cancel.is_cancelled() {
            return;
        }
        let now = SystemTime::now();
        let started = time::of(service.started, now);
        for workspace in service.workspaces() {
            if may_tell(service, &workspace, started, now)
                && let Some((since, fault)) = status::overdue(&service.config, &workspace, started, now)
            {
                tell(service, &workspace.workspace, since, fault.message);
            }
        }
    }
}

/// Whether a notice may be sent. After a start, it waits for the first run or for `SYNC_TIMEOUT`: the backup may be
/// overdue because the service did not run.
fn may_tell(service: &Service, workspace: &Workspace, started: SystemTime, now: SystemTime) -> bool {
    // Times in the history are whole seconds.
    let since_start = time::to_text(started)..=time::to_text(now);
    let ran = workspace.last_run.as_ref().is_some_and(|run| since_start.contains(&run.ended));
    ran || service.started.elapsed() >= service.config.sync_timeout
}

fn tell(service: &Service, workspace: &str, since: SystemTime, message: String) {
    let Service { config, recorder, .. } = service;
    let (result, destination) = worker::result_without_run(config, workspace, Code::Overdue, message);
    if !recorder.history.note_overdue(workspace, destination, since) {
        return;
    }
    // Saved before the notice, so that a service that is killed in between does not send the notice twice.
    recorder.flush();
    log::error!("overdue: {}", result.message);
    recorder.notifier.tell(&Notice { tells_failure: true, ..Notice::new(result, Subject::Backup) });
}
