//! Does the syncs of a service: what a sync needs of the process, and whom its steps and its end are told.
//! How a sync goes is not its business, nor who waits for it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::code::Code;
use crate::config::{Config, Workspaces};
use crate::deadline::Interrupt;
use crate::history::{About, Kept};
use crate::ledger::Ledger;
use crate::names::WorkspaceId;
use crate::notice;
use crate::outcome::{Changed, SyncResult};
use crate::report;
use crate::roster::{Asked, Roster};
use crate::runs::{Run, Worker};
use crate::subprocess;
use crate::sync;
use crate::sync_request::{self, Draft, Purpose, RequestError, SyncRequest};
use crate::task::{Event, Service, new_run_id};
use crate::verify;

/// Why no sync can be made here, where none can.
pub const NO_SYNCS: Option<&str> = if subprocess::CAN_START {
    None
} else {
    Some("this is WebAssembly, where neither wmill nor git can be started, so no backups are made")
};

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
            match event {
                Event::Started(step) => run.enter(step.as_str()),
                Event::Waits => run.wait_for_others(),
                Event::Ended(step, time) if run.request.purpose == Purpose::Sync && !run.request.dry_run => {
                    self.ledger.metrics.count_step(step.as_str(), time);
                }
                Event::Ended(..) => {}
            }
            log_step(event);
        };
        let service = Service {
            config: &self.config,
            own_program: &self.own_program,
            interrupt: &self.interrupt,
            progress: &progress,
        };
        match run.request.purpose {
            Purpose::Sync => sync::run(&run.request, &service, &run.id),
            Purpose::Verify => verify::run(&run.request, &service, &run.id).result,
            Purpose::Restore => run.failure(Code::Internal, "a service makes no restores".to_owned()),
        }
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
        verify: request.purpose == Purpose::Verify,
        destination: is_counted.then(|| request.standing()),
    };
    let link = result.commit.as_ref().and_then(|commit| notice::commit_page(&request.remote, commit));
    ledger.note(about, result, link);
}

/// The syncs that a draft asks for. Where it is what the settings ask for and there is none, because a secret cannot be
/// read or Windmill does not say which workspaces there are, that is a failure of the backup; that Windmill says so again
/// is its end.
///
/// # Errors
/// Those of [`Roster::requests`].
pub fn requests(
    roster: &Roster,
    ledger: &Ledger,
    draft: &Draft<'_>,
    config: &Config,
    interrupt: &Interrupt,
) -> Result<Asked, RequestError> {
    let asked = roster.requests(draft, config, interrupt);
    let is_all = config.workspaces == Workspaces::All;
    match &asked {
        Ok(Asked::Several(_)) if is_all && draft.is_of_the_settings() => {
            let was_failing = |kept: &Kept| kept.standing(report::ALL, "").is_some_and(|one| !one.last_run.success);
            if ledger.history.read(was_failing) {
                note_without_run(ledger, config, Code::Unchanged, "Windmill names its workspaces again");
            }
        }
        Err(error)
            if draft.is_of_the_settings() && !matches!(error.code, Code::ShuttingDown | Code::RequestInvalid) =>
        {
            note_without_run(ledger, config, error.code, &error.message);
        }
        _ => {}
    }
    asked
}

/// Takes down what became of syncs that could not even be asked for, as a run of each configured workspace.
pub fn note_without_run(ledger: &Ledger, config: &Config, code: Code, message: &str) {
    let all = [report::ALL.to_owned()];
    let listed: Vec<_> = match &config.workspaces {
        Workspaces::Listed(listed) => listed.iter().map(ToString::to_string).collect(),
        Workspaces::All => all.into(),
    };
    for workspace in listed {
        let id = WorkspaceId::parse(&workspace).ok();
        let result = SyncResult {
            code,
            message: message.to_owned(),
            run_id: new_run_id(),
            workspace,
            branch: id.as_ref().and_then(|id| Some(config.branch_for(id).ok()?.to_string())).unwrap_or_default(),
            commit: None,
            changed: Changed::default(),
            warnings: Vec::new(),
            duration_ms: 0,
        };
        let destination = id.map(|id| sync_request::configured_destination(config, &id)).unwrap_or_default();
        ledger.note(
            About { configured: true, dry_run: false, verify: false, destination: Some(destination) },
            &result,
            None,
        );
    }
    ledger.settle();
}

/// A step as a log line.
pub fn log_step(event: Event) {
    match event {
        Event::Started(step) => log::debug!("step {} begins", step.as_str()),
        Event::Waits => log::info!("another process works on this workspace, and is waited for"),
        Event::Ended(step, time) => log::info!("step {} took {} ms", step.as_str(), time.as_millis()),
    }
}
