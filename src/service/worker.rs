//! The worker of the queue: executes the runs with the settings of this process, and records their ends.

use std::sync::Mutex;

use crate::backup::progress::Event;
use crate::backup::run_context::{Env, new_run_id};
use crate::backup::sync;
use crate::backup::verify;
use crate::backup::workspaces::{self, Requests};
use crate::config::{Config, Workspaces};
use crate::model::names::WorkspaceId;
use crate::model::result_code::Code;
use crate::model::run_result::SyncResult;
use crate::process::run;
use crate::request::{self, Draft, Purpose, RequestError, SyncRequest};
use crate::service::Service;
use crate::service::history::{self, About, WorkspaceList};
use crate::service::notify::message;
use crate::service::queue::Run;
use crate::service::recorder::Recorder;
use crate::service::status;
use crate::util::deadline::CancelToken;
use crate::util::logging;
use crate::util::time;

/// Why no sync can be made on this platform; `None` if syncs can be made.
pub const NO_SYNCS: Option<&str> = if run::CAN_START {
    None
} else {
    Some("this is WebAssembly, where neither wmill nor git can be started, so no backups are made")
};

impl Service {
    /// Executes the run, and returns its result. It may take minutes, and may panic.
    pub fn work(&self, run: &Run) -> SyncResult {
        let progress = |event| {
            match event {
                Event::Started(step) => run.enter(step.as_str()),
                Event::Waits => run.wait_for_others(),
                Event::Ended(step, time) if run.request.purpose == Purpose::Sync && !run.request.dry_run => {
                    self.recorder.metrics.count_step(step.as_str(), time);
                }
                Event::Ended(..) => {}
            }
            log_step(event);
        };
        let env = Env {
            config: &self.config,
            own_program: &self.own_program,
            cancel: &self.cancel,
            progress: &progress,
            last_token_user: &|workspace, destination| self.recorder.history.token_user(workspace, destination),
            notes: Mutex::default(),
        };
        match run.request.purpose {
            Purpose::Sync => sync::run(&run.request, &env, &run.id),
            Purpose::Verify => verify::run(&run.request, &env, &run.id),
            Purpose::Restore => run.failure(Code::Internal, "a service makes no restores".to_owned()),
        }
    }
}

/// Records the end of a run. If `counts` is false, the run does not change the status of the backup.
pub fn note(recorder: &Recorder, request: &SyncRequest, result: &SyncResult, counts: bool) {
    let is_counted = counts && request.configured && !request.dry_run;
    let about = About {
        configured: request.configured,
        dry_run: request.dry_run,
        verify: request.purpose == Purpose::Verify,
        destination: is_counted.then(|| request.status_key()),
    };
    let link = result.commit.as_ref().and_then(|commit| message::commit_page(&request.remote, commit));
    recorder.record(&about, result, link);
}

/// Returns the syncs that a draft asks for. If the draft comes from the settings and gives no syncs, because a secret
/// cannot be read or Windmill does not list its workspaces, records this as a failure of the backup. When Windmill lists
/// them, ends that failure.
///
/// # Errors
/// The same as those of [`workspaces::requests`].
pub fn requests(
    recorder: &Recorder,
    draft: &Draft<'_>,
    config: &Config,
    cancel: &CancelToken,
) -> Result<Requests, RequestError> {
    let asked = workspaces::requests(draft, config, cancel);
    let is_all = config.workspaces == Workspaces::All;
    match &asked {
        Ok(requests) if is_all && !requests.is_single && draft.is_of_the_settings() => {
            let workspaces = requests.list.iter().map(|request| request.workspace.to_string()).collect();
            // No backup was made yet, so this counts as no run and as no success.
            let time = time::to_text(std::time::SystemTime::now());
            recorder.record_list(WorkspaceList { place: status::place(config), workspaces, time });
        }
        Err(error)
            if draft.is_of_the_settings() && !matches!(error.code, Code::ShuttingDown | Code::RequestInvalid) =>
        {
            note_without_run(recorder, config, error.code, &error.message);
        }
        _ => {}
    }
    asked
}

/// Records a result for each configured workspace without a run, because its syncs could not even be requested.
fn note_without_run(recorder: &Recorder, config: &Config, code: Code, message: &str) {
    let workspaces = match &config.workspaces {
        Workspaces::Listed(listed) => listed.iter().map(WorkspaceId::as_str).collect(),
        Workspaces::All => vec![history::ALL],
    };
    for workspace in workspaces {
        let (result, destination) = result_without_run(config, workspace, code, message.to_owned());
        let about = About { configured: true, dry_run: false, verify: false, destination: Some(destination) };
        recorder.record(&about, &result, None);
    }
    recorder.flush();
}

/// Returns a result about a configured backup that no run had, and the name of the backup's status. Where `workspace`
/// stands for all workspaces, branch and name are empty.
pub(super) fn result_without_run(
    config: &Config,
    workspace: &str,
    code: Code,
    message: String,
) -> (SyncResult, String) {
    let id = WorkspaceId::parse(workspace).ok();
    let branch = id.as_ref().and_then(|id| config.branch_for(id).ok()).map(|branch| branch.to_string());
    let destination = id.map(|id| request::configured_destination(config, &id)).unwrap_or_default();
    let workspace = workspace.to_owned();
    (SyncResult::bare(code, message, new_run_id(), workspace, branch.unwrap_or_default()), destination)
}

/// Writes a step to the log.
pub fn log_step(event: Event) {
    match event {
        Event::Started(step) => log::debug!("step {} begins", step.as_str()),
        Event::Waits => log::info!("waiting for another process that works on this workspace"),
        Event::Ended(step, time) => {
            let duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let _scope = logging::scope(|fields| {
                fields.step = Some(step.as_str());
                fields.duration_ms = Some(duration_ms);
            });
            log::debug!("step {} took {duration_ms} ms", step.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::{Environment, Options, Required};
    use crate::service::queue::Queue;

    impl Service {
        /// Returns a service without settings, whose history is in memory only.
        pub(in crate::service) fn for_test() -> Self {
            let environment = Environment::new([("DATA_DIR".into(), "/nowhere".into())]);
            let config = Config::new(&Options::default(), &environment, Required::Serve).expect("settings");
            let recorder = Recorder::new(&config);
            let (own_program, cancel) = ("".into(), CancelToken::default());
            Self { config, own_program, queue: Queue::default(), recorder, cancel, started: Instant::now() }
        }
    }
}
