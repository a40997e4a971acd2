//! Does the syncs of a service: what a sync needs of the process, and whom its steps and its end are told.
//! How a sync goes is not its business, nor who waits for it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::code::Code;
use crate::config::Config;
use crate::deadline::Interrupt;
use crate::history::About;
use crate::ledger::Ledger;
use crate::notice;
use crate::outcome::SyncResult;
use crate::runs::{Run, Worker};
use crate::sync::{self, Event, Service};
use crate::sync_request::SyncRequest;

/// Does the syncs of a service.
pub struct Syncs {
    /// Guards, time-outs, kinds, folders.
    pub config: Arc<Config>,
    /// Our own program, which git starts as its ssh.
    pub own_program: PathBuf,
    /// Raised when the process ends.
    pub interrupt: Interrupt,
    /// Told of steps and ends.
    pub ledger: Arc<Ledger>,
}

impl Worker for Syncs {
    fn work(&self, run: &Run) -> SyncResult {
        let progress = |event| {
            log_step(event);
            match event {
                Event::Started(step) => run.enter(step.as_str()),
                Event::Ended(step, time) if !run.request.dry_run => self.ledger.metrics.count_step(step.as_str(), time),
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
        // What was turned away because the service ends says nothing of the backup.
        let counts = begun || result.code != Code::ShuttingDown;
        note(&self.ledger, &run.request, result, counts);
    }

    fn settle(&self) {
        self.ledger.settle();
    }
}

/// Has the end of a run taken down. Where it does not count, it says nothing of how the backup stands.
pub fn note(ledger: &Ledger, request: &SyncRequest, result: &SyncResult, counts: bool) {
    let is_counted = counts && request.configured && !request.dry_run;
    let about = About {
        configured: request.configured,
        dry_run: request.dry_run,
        destination: is_counted.then(|| request.destination()),
    };
    let link = result.commit.as_ref().and_then(|commit| notice::commit_page(&request.remote, commit));
    ledger.note(about, result, link);
}

/// A step as a log line.
pub fn log_step(event: Event) {
    match event {
        Event::Started(step) => log::debug!("step {} begins", step.as_str()),
        Event::Ended(step, time) => log::info!("step {} took {} ms", step.as_str(), time.as_millis()),
    }
}
