//! Reports a configured backup that was not made for longer than `EXPECT_SYNC_EVERY`, no matter what should start it.

use std::time::SystemTime;

use crate::model::result_code::Code;
use crate::service::Service;
use crate::service::notify::message::{Notice, Subject};
use crate::service::recorder::result_without_run;
use crate::service::status::{self, Workspace};

use crate::util::time;

/// Sends a notice of each backup that is overdue, unless one was sent within a day.
pub fn report(service: &Service) {
    let now = SystemTime::now();
    let started = time::of(service.started, now);
    for workspace in service.workspaces() {
        if may_tell(service, &workspace, started, now)
            && let Some((since, message)) = status::overdue(&service.config, &workspace, started, now)
        {
            tell(service, &workspace.workspace, since, message);
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
    let (result, destination) = result_without_run(config, workspace, Code::Overdue, message);
    if !recorder.history.note_overdue(workspace, destination, since) {
        return;
    }
    // Saved before the notice, so that a service that is killed in between does not send the notice twice.
    recorder.flush();
    log::error!("overdue: {}", result.message);
    recorder.notifier.tell(&Notice { tells_failure: true, ..Notice::new(result, Subject::Backup) });
}
