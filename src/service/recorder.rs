//! What happens when a run has ended, whoever started it: it is counted, remembered, and told to whom it concerns. It
//! does not know how a run goes, nor how any of the three is done.

use std::time::Duration;

use crate::history::{About, History};
use crate::metrics::{Metrics, OTHER};
use crate::notice::Notice;
use crate::notifier::Notifier;
use crate::outcome::SyncResult;

/// How long others may keep us from writing the history. They write for milliseconds, on a busy disk for seconds.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);
const SETTLE_AT_END_TIME_MAX: Duration = Duration::from_secs(2);

/// Counters, history and notifications of a process.
pub struct Ledger {
    /// What is counted.
    pub metrics: Metrics,
    /// What is remembered.
    pub history: History,
    /// Who is told.
    pub notifier: Notifier,
}

impl Ledger {
    /// Takes the end of a run down, in memory. `link` is where its commit can be looked at.
    pub fn note(&self, about: About, result: &SyncResult, link: Option<String>) {
        let is_verification = about.verify;
        if !about.dry_run && !is_verification {
            let workspace = if about.configured { &result.workspace } else { OTHER };
            self.metrics.count_run(workspace, result.code, Duration::from_millis(result.duration_ms));
        }
        let Some(turn) = self.history.record(about, result) else { return };
        let failing = if result.code.is_success() { turn.before } else { Some(turn.after) };
        let tells_failure = failing
            .as_ref()
            .is_some_and(|standing| standing.failure_news.as_ref().is_some_and(|news| news.run_id == result.run_id));
        let failures = failing.and_then(|standing| Some((standing.consecutive_failures, standing.failing_since?)));
        self.notifier.tell(Notice { result: result.clone(), is_verification, tells_failure, failures, link });
    }

    /// Does what takes time. Callers know the result already.
    pub fn settle(&self) {
        self.history.save(SETTLE_TIME_MAX);
    }

    /// The same for a service that ends, whose caller waits.
    pub fn settle_at_end(&self) {
        self.history.save(SETTLE_AT_END_TIME_MAX);
    }
}
