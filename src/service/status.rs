//! The state of the service and its backups at one moment, as JSON.

use std::collections::BTreeSet;
use std::time::SystemTime;

use miniserde::{Serialize, json};

use crate::backup::workspaces::WorkspaceList;
use crate::config::schedule::Schedule;
use crate::config::{Config, Workspaces};
use crate::model::names::WorkspaceId;
use crate::model::result_code::Code;
use crate::request::{self, Purpose, verified};
use crate::service::history::{BackupStatus, Bar, Record, SavedHistory};
use crate::service::notify::message::commit_page;
use crate::service::queue::{Overview, Run};
use crate::util::time;

/// Workspaces that only requests named; of further ones the runs tell.
const OTHERS_MAX: usize = 8;

/// The whole of it.
#[derive(Serialize)]
pub struct StatusReport {
    /// Of this program.
    pub version: &'static str,
    /// When this is, UTC.
    pub time: String,
    /// Since the process began.
    pub uptime_seconds: u64,
    /// Whether nothing is wrong that an alert should tell.
    pub ready: bool,
    /// The configured workspaces first, then others that ran lately.
    pub workspaces: Vec<Workspace>,
    /// When `SYNC_SCHEDULE` starts the next ones.
    pub next: Vec<Next>,
    /// When `VERIFY_SCHEDULE` starts the next ones.
    pub next_verify: Vec<Next>,
    /// Runs in progress in this process.
    pub running: Vec<Going>,
    /// Runs that wait for the end of another.
    pub waiting: Vec<Going>,
    /// The last runs that ended, the newest first.
    pub runs: Vec<Record>,
}

/// One workspace.
#[derive(Serialize)]
pub struct Workspace {
    /// Its id.
    pub workspace: String,
    /// Whether it is one of the settings, run with the settings.
    pub configured: bool,
    /// The last run.
    pub last_run: Option<Record>,
    /// The last run that went well.
    pub last_success: Option<Record>,
    /// When the last run ended that brought to the remote what Windmill held, items that were left out aside; UTC.
    pub last_backup: Option<String>,
    /// Where the commit of the last success can be looked at, if the remote is of a known forge.
    pub commit_url: Option<String>,
    /// The last run that failed.
    pub last_failure: Option<Record>,
    /// Failures since the last success.
    pub consecutive_failures: u64,
    /// When the first of these ended, UTC.
    pub failing_since: Option<String>,
    /// The last runs, the oldest first.
    pub last_runs: Vec<Bar>,
    /// The last verification.
    pub last_verify: Option<Record>,
    /// The last verification that found the backup to be the workspace.
    pub last_verify_success: Option<Record>,
}

/// A run to come.
#[derive(Serialize)]
pub struct Next {
    /// The workspace.
    pub workspace: String,
    /// When its schedule comes true, UTC; a random delay of up to half a minute is added.
    pub time: String,
}

/// One run that has not ended.
#[derive(Serialize)]
pub struct Going {
    /// Names the run.
    pub run_id: String,
    /// The workspace.
    pub workspace: String,
    /// Whether it runs with the settings.
    pub configured: bool,
    /// Whether it only shows.
    pub dry_run: bool,
    /// Whether it is a verification.
    pub verify: bool,
    /// What it is at: `queue`, `fetch`, `probe`, `pull`, `commit` or `push`.
    pub step: &'static str,
    /// How long ago it was asked for.
    pub elapsed_ms: u64,
}

impl Going {
    fn new(run: &Run) -> Self {
        Self {
            run_id: run.id.clone(),
            workspace: run.request.workspace.to_string(),
            configured: run.request.configured,
            dry_run: run.request.dry_run,
            verify: run.request.purpose == Purpose::Verify,
            step: run.step(),
            elapsed_ms: u64::try_from(run.age().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Workspace {
    fn configured(workspace: &str, status: Option<&BackupStatus>, verified: Option<&BackupStatus>) -> Self {
        Self {
            workspace: workspace.to_owned(),
            configured: true,
            last_run: status.map(|known| known.last_run.clone()),
            last_success: status.and_then(|known| known.last_success.clone()),
            last_backup: status.and_then(|known| {
                known.last_backup.clone().or_else(|| known.last_success.as_ref().map(|run| run.ended.clone()))
            }),
            commit_url: None,
            last_failure: status.and_then(|known| known.last_failure.clone()),
            consecutive_failures: status.map_or(0, |known| known.consecutive_failures),
            failing_since: status.and_then(|known| known.failing_since.clone()),
            last_runs: status.map_or_else(Vec::new, |known| known.picture.clone()),
            last_verify: verified.map(|known| known.last_run.clone()),
            last_verify_success: verified.and_then(|known| known.last_success.clone()),
        }
    }

    /// From its newest run, with other settings than the configured ones; how those backups stand is not kept.
    fn other(run: &Record) -> Self {
        Self {
            workspace: run.workspace.clone(),
            configured: false,
            last_run: Some(run.clone()),
            last_success: run.success.then(|| run.clone()),
            last_backup: run.success.then(|| run.ended.clone()),
            commit_url: None,
            last_failure: (!run.success).then(|| run.clone()),
            consecutive_failures: u64::from(!run.success),
            failing_since: None,
            last_runs: Vec::new(),
            last_verify: None,
            last_verify_success: None,
        }
    }

    /// When the last success ended.
    #[must_use]
    pub fn last_success_time(&self) -> Option<SystemTime> {
        time::from_text(&self.last_success.as_ref()?.ended)
    }

    /// When the last verification ended.
    #[must_use]
    pub fn last_verify_time(&self) -> Option<SystemTime> {
        time::from_text(&self.last_verify.as_ref()?.ended)
    }

    /// When the last one ended that found the backup to be the workspace.
    #[must_use]
    pub fn last_verify_success_time(&self) -> Option<SystemTime> {
        time::from_text(&self.last_verify_success.as_ref()?.ended)
    }

    /// When the last run ended.
    #[must_use]
    pub fn last_run_time(&self) -> Option<SystemTime> {
        time::from_text(&self.last_run.as_ref()?.ended)
    }
}

/// How the configured backups stand. Where the setting says all, they are those that Windmill named last, and before
/// it was asked, those that are remembered.
#[must_use]
pub fn configured_workspaces(config: &Config, workspace_list: &WorkspaceList, kept: &SavedHistory) -> Vec<Workspace> {
    let one = |workspace: &WorkspaceId| {
        let destination = request::configured_destination(config, workspace);
        let status = |destination: &str| kept.status(workspace.as_str(), destination);
        let mut one = Workspace::configured(workspace.as_str(), status(&destination), status(&verified(&destination)));
        let commit = one.last_success.as_ref().and_then(|run| run.commit.as_ref());
        one.commit_url = config.remote.as_ref().zip(commit).and_then(|(remote, commit)| commit_page(remote, commit));
        one
    };
    let listed = match &config.workspaces {
        Workspaces::Listed(listed) => return listed.iter().map(one).collect(),
        Workspaces::All => workspace_list.last(),
    };
    let mut all: Vec<_> = match listed {
        Some(listed) => listed.iter().map(one).collect(),
        None => {
            let names: BTreeSet<&str> = kept.standings.iter().map(|status| status.workspace.as_str()).collect();
            let ids = names.into_iter().filter_map(|name| WorkspaceId::parse(name).ok());
            ids.map(|id| one(&id)).filter(|known| known.last_run.is_some()).collect()
        }
    };
    // Without an answer to which they are, none of them is backed up.
    let unlisted = kept.status(ALL, "").filter(|status| !status.last_run.success);
    if unlisted.is_some() || all.is_empty() && config.expect_sync_every.is_some() {
        all.push(Workspace::configured(ALL, unlisted, None));
    }
    all
}

/// In place of a workspace's name for the question which there are.
pub const ALL: &str = "*";

/// What an alert should tell.
pub struct LastFailure {
    /// Of the first backup that failed.
    pub code: Code,
    /// All that failed, in one line. It names no cause, because the caller needs no token.
    pub message: String,
}

/// What is wrong with the configured backups; nothing where all is well. `started` is when the process began: a backup
/// that never went well is late from then on.
#[must_use]
pub fn fault_of(
    config: &Config,
    workspaces: &[Workspace],
    started: SystemTime,
    now: SystemTime,
) -> Option<LastFailure> {
    let mut fault: Option<LastFailure> = None;
    for workspace in workspaces {
        let one = failure_of(workspace)
            .or_else(|| overdue(config, workspace, started, now).map(|overdue| overdue.fault))
            .or_else(|| lateness_of(config, workspace, started, now));
        let Some(one) = one else { continue };
        match &mut fault {
            Some(fault) => fault.message = [&fault.message, "; ", &one.message].concat(),
            None => fault = Some(one),
        }
    }
    fault
}

fn failure_of(workspace: &Workspace) -> Option<LastFailure> {
    let run = workspace.last_run.as_ref().filter(|run| !run.success)?;
    let message = format!(
        "the last sync of workspace `{}` failed ({}); failures in a row since {}: {}",
        workspace.workspace,
        run.code,
        workspace.failing_since.as_deref().unwrap_or(&run.ended),
        workspace.consecutive_failures,
    );
    Some(LastFailure { code: Code::failure_of_name(&run.code).unwrap_or(Code::Internal), message })
}

/// A backup that had no success for longer than expected.
pub struct Overdue {
    /// Since when.
    pub since: SystemTime,
    /// What an alert tells.
    pub fault: LastFailure,
}

/// Whether a backup had no success for longer than `EXPECT_SYNC_EVERY`. Where there was none at all, that time begins
/// with the process.
#[must_use]
pub fn overdue(config: &Config, workspace: &Workspace, started: SystemTime, now: SystemTime) -> Option<Overdue> {
    let every = config.expect_sync_every?;
    let last = workspace.last_backup.as_deref();
    let since = last.and_then(time::from_text).unwrap_or(started).checked_add(every)?;
    if now <= since {
        return None;
    }
    let last = last.map_or_else(|| "there was none yet".to_owned(), |time| ["the last was ", time].concat());
    let message = format!(
        "workspace `{}` had no backup for longer than EXPECT_SYNC_EVERY ({} s): {last}",
        workspace.workspace,
        every.as_secs()
    );
    Some(Overdue { since, fault: LastFailure { code: Code::Overdue, message } })
}

/// Two scheduled times have passed, and a sync could have taken its time since.
fn lateness_of(config: &Config, workspace: &Workspace, started: SystemTime, now: SystemTime) -> Option<LastFailure> {
    let schedule = config.sync_schedule.as_ref()?;
    let success = workspace.last_success_time();
    let second = schedule.next_after(schedule.next_after(success.unwrap_or(started))?)?;
    if now <= second.checked_add(config.sync_timeout)? {
        return None;
    }
    let last = success
        .map_or_else(|| "there was none yet".to_owned(), |time| ["the last was ", &time::to_text(time)].concat());
    let message =
        format!("the schedule of workspace `{}` came true twice without a success: {last}", workspace.workspace);
    Some(LastFailure { code: Code::Timeout, message })
}

impl StatusReport {
    /// What holds now.
    #[must_use]
    pub fn new(
        config: &Config,
        workspace_list: &WorkspaceList,
        kept: &SavedHistory,
        overview: &Overview,
        started: SystemTime,
    ) -> Self {
        let now = SystemTime::now();
        let mut workspaces = configured_workspaces(config, workspace_list, kept);
        let ready = fault_of(config, &workspaces, started, now).is_none();
        let next_by = |schedule: Option<&Schedule>| -> Vec<Next> {
            let Some(time) = schedule.and_then(|schedule| schedule.next_after(now)) else { return Vec::new() };
            let next = |of: &Workspace| Next { workspace: of.workspace.clone(), time: time::to_text(time) };
            workspaces.iter().map(next).collect()
        };
        let next = next_by(config.sync_schedule.as_ref());
        let next_verify = next_by(config.verify_schedule.as_ref());
        for run in kept.runs.iter().filter(|run| !run.configured && !run.dry_run && !run.verify) {
            let others = || workspaces.iter().filter(|known| !known.configured);
            if others().count() < OTHERS_MAX && !others().any(|known| known.workspace == run.workspace) {
                workspaces.push(Workspace::other(run));
            }
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            time: time::to_text(now),
            uptime_seconds: now.duration_since(started).map_or(0, |time| time.as_secs()),
            ready,
            workspaces,
            next,
            next_verify,
            running: overview.running.iter().map(|run| Going::new(run)).collect(),
            waiting: overview.waiting.iter().map(|run| Going::new(run)).collect(),
            runs: kept.runs.clone(),
        }
    }

    /// As one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }
}
