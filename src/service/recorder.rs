//! Records an ended run: counts it, adds it to the history, and sends the notifications. Does the same for a backup
//! that could not be requested, and for one that is overdue.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::backup::{Requests, new_run_id, paths, workspaces};
use crate::config::{Config, Workspaces};
use crate::model::{BackupError, Code, Result, SyncResult, WorkspaceId};
use crate::request::{self, Draft, Purpose, SyncRequest};
use crate::service::notify::message;
use crate::service::{
    BackupStatus, History, Metrics, Notice, OTHER, OverdueAlert, Record, Sender, Service, Subject, WorkspaceList,
    history, status,
};
use crate::util::{CancelToken, time};

/// The longest wait for other processes that write the history. A write takes milliseconds, or seconds on a busy disk.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(10);

/// The counters, history and notifications of a process.
pub struct Recorder {
    /// The counters.
    pub metrics: Metrics,
    /// The last runs and the status of the backups.
    pub history: Arc<History>,
    /// Sends the notices.
    pub notifier: Sender,
}

impl Recorder {
    /// Returns the recorder of a process with these settings.
    pub fn new(config: &Config) -> Self {
        let history = Arc::new(History::new(&paths::root(config)));
        Self { metrics: Metrics::default(), notifier: Sender::new(config, &history), history }
    }

    /// Records the end of a run, in memory. If `counts` is false, the run does not change the status of the backup.
    pub fn record(&self, request: &SyncRequest, result: &SyncResult, counts: bool) {
        let (configured, dry_run) = (request.configured, request.flags.dry_run);
        let record =
            Record { configured, dry_run, verify: request.flags.purpose == Purpose::Verify, ..Record::new(result) };
        let destination = (counts && configured && !dry_run).then(|| request.status_key());
        let link = result.commit.as_ref().and_then(|commit| message::commit_page(&request.remote, commit));
        self.add(record, destination, result, link);
    }

    /// Records a result for each configured workspace without a run, because its syncs could not even be requested.
    fn record_without_run(&self, config: &Config, error: &BackupError) {
        let workspaces = match &config.workspaces {
            Workspaces::Listed(listed) => listed.iter().map(WorkspaceId::as_str).collect(),
            Workspaces::All => vec![history::ALL],
        };
        for workspace in workspaces {
            let (result, destination) = result_without_run(config, workspace, error.code, error.message.clone());
            self.add(Record::new(&result), Some(destination), &result, None);
        }
        self.flush();
    }

    fn add(&self, record: Record, destination: Option<String>, result: &SyncResult, link: Option<String>) {
        let subject = if record.verify { Subject::Verification } else { Subject::Backup };
        if !record.dry_run && !record.verify {
            let workspace = if record.configured { &result.workspace } else { OTHER };
            self.metrics.count_run(workspace, result.code, Duration::from_millis(result.duration_ms));
        }
        let recorded = self.history.record(record, destination, result.token_user.clone());
        let Some([before, after]) = recorded else { return };
        let status = if result.code.is_success() { before } else { after };
        self.notifier.notify(&Notice { link, ..Notice::new(result.clone(), subject, &status) });
    }

    /// Returns the syncs that a draft asks for. If the draft comes from the settings and gives no syncs, because a
    /// secret cannot be read or Windmill does not list its workspaces, records this as a failure of the backup. When
    /// Windmill lists them again, reports the recovery.
    ///
    /// # Errors
    /// Returns the errors of [`workspaces::requests`].
    pub fn requests(&self, draft: &Draft<'_>, config: &Config, cancel: &CancelToken) -> Result<Requests> {
        let asked = workspaces::requests(draft, config, cancel);
        match &asked {
            _ if !draft.is_of_the_settings() => {}
            Ok(requests) if config.workspaces == Workspaces::All && !requests.is_single => {
                let workspaces = requests.list.iter().map(|request| request.workspace.to_string()).collect();
                // No backup was made yet, so this does not count as a run or a success.
                let list =
                    WorkspaceList { place: status::place(config), workspaces, time: time::to_text(SystemTime::now()) };
                if let Some(failing) = self.history.note_list(list) {
                    let (result, _) = result_without_run(config, history::ALL, Code::Unchanged, String::new());
                    self.notifier.notify(&Notice::new(result, Subject::List, &failing));
                    self.flush();
                }
            }
            Err(error) if !matches!(error.code, Code::ShuttingDown | Code::RequestInvalid) => {
                self.record_without_run(config, error);
            }
            _ => {}
        }
        asked
    }

    /// Waits until all notices are sent, at most `time`, and saves what is not saved yet: lost notices, and runs that
    /// were refused while the service ended.
    pub fn finish(&self, time: Duration) {
        self.notifier.finish(time);
        self.flush();
    }

    /// Writes the history to the file, which takes time. Callers have the result already.
    pub fn flush(&self) {
        self.history.save(FLUSH_TIME_MAX);
    }
}

/// Returns a result about a configured backup without a run, and the name of the backup's status. If `workspace` stands
/// for all workspaces, branch and name are empty.
fn result_without_run(config: &Config, workspace: &str, code: Code, message: String) -> (SyncResult, String) {
    let id = WorkspaceId::parse(workspace).ok();
    let branch = id.as_ref().and_then(|id| config.branch_for(id).ok()).map(|branch| branch.to_string());
    let destination = id.map(|id| request::configured_destination(config, &id)).unwrap_or_default();
    let workspace = workspace.to_owned();
    (SyncResult::bare(code, message, new_run_id(), workspace, branch.unwrap_or_default()), destination)
}

/// Sends a notice of each configured backup that was not made for longer than `EXPECT_SYNC_EVERY`, unless one was sent
/// within a day. It does not matter what should have started the backup. After a start, the notice waits for the first
/// run or for `SYNC_TIMEOUT`: the backup may be overdue because the service did not run.
pub fn report_overdue(service: &Service) {
    let Service { config, recorder, .. } = service;
    if config.expect_sync_every.is_none() {
        return;
    }
    let now = SystemTime::now();
    let started = time::of(service.started, now);
    let has_waited = service.started.elapsed() >= config.sync_timeout;
    // Times in the history are whole seconds.
    let since_start = time::to_text(started)..=time::to_text(now);
    for workspace in service.workspaces() {
        let has_run = workspace.backup.last_run.as_ref().is_some_and(|run| since_start.contains(&run.ended));
        let overdue = status::overdue(config, &workspace, started, now).filter(|_| has_run || has_waited);
        let Some((since, message)) = overdue else { continue };
        let (result, destination) = result_without_run(config, &workspace.id, Code::Overdue, message);
        let alert = OverdueAlert { since: time::to_text(since), sent: time::to_text(now) };
        if recorder.history.note_overdue(&workspace.id, destination, alert) {
            // The history is saved before the notice is sent, so that a service that is killed in between does not send
            // it twice.
            recorder.flush();
            log::error!("overdue: {}", result.message);
            recorder.notifier.notify(&Notice::new(result, Subject::Backup, &BackupStatus::default()));
        }
    }
}
