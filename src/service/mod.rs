//! The parts of a running service: queue, scheduler, history, metrics, status and notifications. `api` and `cli` use
//! it. It starts runs through `backup`, and does not use `git` or `windmill`.

use std::time::Instant;

use crate::config::Config;
use crate::util::CancelToken;

pub mod history;
pub mod metrics;
pub mod notify;
pub mod queue;
pub mod recorder;
pub mod scheduler;
pub mod status;
pub mod token_check;

pub use history::{ALL, BackupStatus, History, OverdueAlert, Record, SavedHistory, WorkspaceList};
pub use metrics::{Metrics, OTHER};
pub use notify::{Notice, Sender, Subject, commit_page};
pub use queue::{Queue, Run};
pub use recorder::Recorder;
pub use status::Workspace;

/// The state that the parts of a running service share.
pub struct Service {
    /// The settings.
    pub config: Config,
    /// The runs in progress and the waiting runs.
    pub queue: Queue,
    /// Records ended runs, and holds the history.
    pub recorder: Recorder,
    /// Cancelled when the process ends.
    pub cancel: CancelToken,
    /// When the process started.
    pub started: Instant,
}

impl Service {
    /// Returns a service that starts now, without runs.
    pub fn new(config: Config) -> Self {
        let (recorder, queue, cancel) = (Recorder::new(&config), Queue::default(), CancelToken::default());
        Self { config, queue, recorder, cancel, started: Instant::now() }
    }

    /// Returns the status of the configured backups.
    pub fn workspaces(&self) -> Vec<Workspace> {
        self.recorder.history.read(|saved| status::configured_workspaces(&self.config, saved))
    }
}
