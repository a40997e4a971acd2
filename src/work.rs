//! What this process does around each sync: it times the steps, counts how runs end, and has them remembered.
//! How a sync goes is not its business, nor who waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::code::Code;
use crate::config::Config;
use crate::deadline::Interrupt;
use crate::history::History;
use crate::metrics::{Metrics, OTHER};
use crate::outcome::SyncResult;
use crate::runs::{Run, Worker};
use crate::sync::{self, Event, Service};

/// Does the syncs of a service.
pub struct Syncs {
    /// Guards, time-outs, kinds, folders.
    pub config: Arc<Config>,
    /// Our own program, which git starts as its ssh.
    pub own_program: PathBuf,
    /// Raised when the process ends.
    pub interrupt: Interrupt,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is remembered.
    pub history: Arc<History>,
}

impl Worker for Syncs {
    fn work(&self, run: &Run) -> SyncResult {
        let progress = |event| {
            log_step(event);
            match event {
                Event::Started(step) => run.enter(step.as_str()),
                Event::Ended(step, time) if !run.request.dry_run => self.metrics.count_step(step.as_str(), time),
                Event::Ended(..) => {}
            }
        };
        let service = Service {
            config: &self.config,
            own_program: &self.own_program,
            interrupt: &self.interrupt,
            progress: &progress,
        };
        sync::run(&run.request, &service, &run.id)
    }

    fn ended(&self, run: &Run, result: &SyncResult, begun: bool) {
        if !run.request.dry_run {
            let workspace = if run.request.configured { run.request.workspace.as_str() } else { OTHER };
            self.metrics.count_run(workspace, result.code, Duration::from_millis(result.duration_ms));
        }
        // What was turned away because the service ends says nothing of the backup.
        let counts = begun || result.code != Code::ShuttingDown;
        self.history.record(&run.request, result, counts);
    }

    fn settle(&self) {
        self.history.save();
    }
}

/// A step as a log line.
pub fn log_step(event: Event) {
    match event {
        Event::Started(step) => log::debug!("step {} begins", step.as_str()),
        Event::Ended(step, time) => log::info!("step {} took {} ms", step.as_str(), time.as_millis()),
    }
}
