//! Records an ended run: counts it, adds it to the history, and sends the notifications.

use std::sync::Arc;
use std::time::Duration;

use crate::backup::paths;
use crate::backup::run_context::new_run_id;
use crate::config::Config;
use crate::model::result_code::Code;
use crate::model::run_result::SyncResult;
use crate::service::history::{self, About, History, WorkspaceList};
use crate::service::metrics::{Metrics, OTHER};
use crate::service::notify::message::{Notice, Subject};
use crate::service::notify::sender::Sender;

/// How long to wait for other processes that write the history. They write for milliseconds, on a busy disk for
/// seconds.
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

    /// Records the end of a run, in memory. `link` is the web page of its commit.
    pub fn record(&self, about: &About, result: &SyncResult, link: Option<String>) {
        let subject = if about.verify { Subject::Verification } else { Subject::Backup };
        if !about.dry_run && !about.verify {
            let workspace = if about.configured { &result.workspace } else { OTHER };
            self.metrics.count_run(workspace, result.code, Duration::from_millis(result.duration_ms));
        }
        let Some((before, after)) = self.history.record(about, result) else { return };
        let is_success = result.code.is_success();
        let overdue = before.as_ref().and_then(|status| status.overdue.clone()).filter(|_| is_success);
        let failing = if is_success { before } else { Some(after) };
        let news = failing.as_ref().and_then(|status| status.failure_news.as_ref());
        self.notifier.tell(&Notice {
            tells_failure: news.is_some_and(|news| news.run_id == result.run_id),
            failures: failing.and_then(|status| Some((status.consecutive_failures, status.failing_since?))),
            overdue_since: overdue.map(|overdue| overdue.since),
            link,
            ..Notice::new(result.clone(), subject)
        });
    }

    /// Records that Windmill listed all workspaces. If a failure to list them was reported, its end is reported too.
    pub fn record_list(&self, list: WorkspaceList) {
        let Some(failures) = self.history.note_list(list) else { return };
        let workspace = history::ALL.to_owned();
        let result = SyncResult::bare(Code::Unchanged, String::new(), new_run_id(), workspace, String::new());
        self.notifier.tell(&Notice { failures: Some(failures), ..Notice::new(result, Subject::List) });
        self.flush();
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
