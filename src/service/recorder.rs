//! Records an ended run: counts it, adds it to the history, and sends the notifications.

use std::sync::Arc;
use std::time::Duration;

use crate::backup::run_context::new_run_id;
use crate::model::result_code::Code;
use crate::model::run_result::{Changed, SyncResult};
use crate::service::history::{self, About, BackupStatus, History};
use crate::service::metrics::{Metrics, OTHER};
use crate::service::notify::message::{Notice, Subject};
use crate::service::notify::sender::Sender;

/// How long to wait for other processes that write the history. They write for milliseconds, on a busy disk for
/// seconds.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(10);
const FLUSH_AT_END_TIME_MAX: Duration = Duration::from_secs(2);

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
    /// Records the end of a run, in memory. `link` is the web page of its commit.
    pub fn record(&self, about: About, result: &SyncResult, link: Option<String>) {
        let is_verification = about.verify;
        if !about.dry_run && !is_verification {
            let workspace = if about.configured { &result.workspace } else { OTHER };
            self.metrics.count_run(workspace, result.code, Duration::from_millis(result.duration_ms));
        }
        let Some(turn) = self.history.record(about, result) else { return };
        let overdue_since = turn.overdue_since.filter(|_| result.code.is_success());
        let failing = if result.code.is_success() { turn.before } else { Some(turn.after) };
        let tells_failure = failing
            .as_ref()
            .is_some_and(|status| status.failure_news.as_ref().is_some_and(|news| news.run_id == result.run_id));
        let failures = failing.and_then(|status| Some((status.consecutive_failures, status.failing_since?)));
        let result = result.clone();
        let subject = if is_verification { Subject::Verification } else { Subject::Backup };
        self.notifier.tell(Notice { result, subject, tells_failure, failures, overdue_since, link });
    }

    /// Records that Windmill listed all workspaces; see [`History::note_list`]. Chats that were told of a failure to list
    /// them are told of its end.
    pub fn record_list(&self, is_unlisted: impl Fn(&BackupStatus) -> bool) {
        let Some(failures) = self.history.note_list(is_unlisted) else { return };
        let result = SyncResult {
            code: Code::Unchanged,
            message: String::new(),
            run_id: new_run_id(),
            workspace: history::ALL.to_owned(),
            branch: String::new(),
            commit: None,
            changed: Changed::default(),
            warnings: Vec::new(),
            left_out: Vec::new(),
            items: None,
            duration_ms: 0,
        };
        let (subject, failures) = (Subject::List, Some(failures));
        self.notifier.tell(Notice { result, subject, tells_failure: false, failures, overdue_since: None, link: None });
        self.flush();
    }

    /// Writes the history to the file, which takes time. Callers have the result already.
    pub fn flush(&self) {
        self.history.save(FLUSH_TIME_MAX);
    }

    /// Does the same for a service that ends: its caller waits, so the time limit is shorter.
    pub fn flush_at_end(&self) {
        self.history.save(FLUSH_AT_END_TIME_MAX);
    }
}
