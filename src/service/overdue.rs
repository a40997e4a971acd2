//! Tells of a configured backup that had no success for longer than `EXPECT_SYNC_EVERY`, whatever was to start it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::backup::run_context::new_run_id;
use crate::backup::workspaces::WorkspaceList;
use crate::config::Config;
use crate::model::names::WorkspaceId;
use crate::model::result_code::Code;
use crate::model::run_result::{Changed, SyncResult};
use crate::request;
use crate::service::history;
use crate::service::notify::message::Notice;
use crate::service::recorder::Recorder;
use crate::service::status::{self, Overdue, Workspace};
use crate::util::deadline::CancelToken;
use crate::util::time;

/// How often the clock is looked at: a tenth of the expected time, within these bounds. The clock may be set, and a
/// machine may sleep.
const LOOK_SHARE: u32 = 10;
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(200);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(20);

/// What looks.
pub struct OverdueWatch {
    /// Whose backups, and how often they are expected.
    pub config: Arc<Config>,
    /// Knows when the last success was, and sends the notice.
    pub recorder: Arc<Recorder>,
    /// Knows for which workspaces.
    pub workspace_list: Arc<WorkspaceList>,
    /// When the process began.
    pub started: SystemTime,
    /// Raised when the process ends.
    pub cancel: CancelToken,
}

impl OverdueWatch {
    /// Looks until the process ends.
    pub fn run(&self, every: Duration) {
        let interval = (every / LOOK_SHARE).clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX);
        while !self.cancel.is_cancelled() {
            std::thread::park_timeout(interval);
            self.look(SystemTime::now());
        }
    }

    fn look(&self, now: SystemTime) {
        let Self { config, workspace_list, recorder, started, .. } = self;
        let workspaces = recorder.history.read(|kept| status::configured_workspaces(config, workspace_list, kept));
        for workspace in workspaces {
            if self.may_tell(&workspace, now)
                && let Some(overdue) = status::overdue(config, &workspace, *started, now)
            {
                self.tell(workspace.workspace, overdue, now);
            }
        }
    }

    /// After a start, a backup that was not made while nothing ran is given the time of a run.
    fn may_tell(&self, workspace: &Workspace, now: SystemTime) -> bool {
        // Times in the history are whole seconds.
        let ran = workspace.last_run.as_ref().is_some_and(|run| run.ended >= time::to_text(self.started));
        ran || self.started.checked_add(self.config.sync_timeout).is_none_or(|end| now >= end)
    }

    fn tell(&self, workspace: String, overdue: Overdue, now: SystemTime) {
        let id = WorkspaceId::parse(&workspace).ok();
        let destination = id.as_ref().map(|id| request::configured_destination(&self.config, id)).unwrap_or_default();
        let (since, told) = (time::to_text(overdue.since), time::to_text(now));
        let is_news = self.recorder.history.note_overdue(history::Overdue {
            workspace: workspace.clone(),
            destination,
            since,
            told,
        });
        if !is_news {
            return;
        }
        // Before the notice, so that a service that is killed then does not tell it twice.
        self.recorder.flush();
        log::error!("overdue: {}", overdue.fault.message);
        let branch = id.and_then(|id| self.config.branch_for(&id).ok());
        let result = SyncResult {
            code: Code::Overdue,
            message: overdue.fault.message,
            run_id: new_run_id(),
            workspace,
            branch: branch.map(|branch| branch.to_string()).unwrap_or_default(),
            commit: None,
            changed: Changed::default(),
            warnings: Vec::new(),
            left_out: Vec::new(),
            items: None,
            duration_ms: 0,
        };
        self.recorder.notifier.tell(Notice {
            result,
            is_verification: false,
            tells_failure: true,
            failures: None,
            overdue_since: None,
            link: None,
        });
    }
}
