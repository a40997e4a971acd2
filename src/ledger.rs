//! What happens when a run has ended, whoever started it: it is counted and remembered. It does not know how a run goes,
//! nor how either is done.

use std::time::Duration;

use crate::history::{About, History};
use crate::metrics::{Metrics, OTHER};
use crate::outcome::SyncResult;

/// The counters and the history of a service.
pub struct Ledger {
    /// What is counted.
    pub metrics: Metrics,
    /// What is remembered.
    pub history: History,
}

impl Ledger {
    /// Takes the end of a run down, in memory.
    pub fn note(&self, about: About, result: &SyncResult) {
        if !about.dry_run {
            let workspace = if about.configured { &result.workspace } else { OTHER };
            self.metrics.count_run(workspace, result.code, Duration::from_millis(result.duration_ms));
        }
        self.history.record(about, result);
    }

    /// Does what takes time. Callers know the result already.
    pub fn settle(&self) {
        self.history.save();
    }
}
