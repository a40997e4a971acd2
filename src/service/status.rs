//! How the service and its backups stand at one moment, and the JSON of that. It gathers what others know, and does not
//! know how a page or a metric is written.

use std::time::SystemTime;

use miniserde::{Serialize, json};

use crate::code::Code;
use crate::config::{Config, Workspaces};
use crate::history::{Bar, Kept, Record, Standing, text_of, time_of};
use crate::names::WorkspaceId;
use crate::roster::Roster;
use crate::runs::{Overview, Run};
use crate::sync_request::{self, Purpose, verified};

/// Workspaces that only requests named; of further ones the runs tell.
const OTHERS_MAX: usize = 8;

/// The whole of it.
#[derive(Serialize)]
pub struct Report {
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
    /// When the schedule starts the next ones.
    pub next: Vec<Next>,
    /// Runs that go on in this process.
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
    fn configured(workspace: &str, standing: Option<&Standing>, verified: Option<&Standing>) -> Self {
        Self {
            workspace: workspace.to_owned(),
            configured: true,
            last_run: standing.map(|known| known.last_run.clone()),
            last_success: standing.and_then(|known| known.last_success.clone()),
            last_failure: standing.and_then(|known| known.last_failure.clone()),
            consecutive_failures: standing.map_or(0, |known| known.consecutive_failures),
            failing_since: standing.and_then(|known| known.failing_since.clone()),
            last_runs: standing.map_or_else(Vec::new, |known| known.picture.clone()),
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
        time_of(&self.last_success.as_ref()?.ended)
    }

    /// When the last verification ended.
    #[must_use]
    pub fn last_verify_time(&self) -> Option<SystemTime> {
        time_of(&self.last_verify.as_ref()?.ended)
    }

    /// When the last one ended that found the backup to be the workspace.
    #[must_use]
    pub fn last_verify_success_time(&self) -> Option<SystemTime> {
        time_of(&self.last_verify_success.as_ref()?.ended)
    }

    /// When the last run ended.
    #[must_use]
    pub fn last_run_time(&self) -> Option<SystemTime> {
        time_of(&self.last_run.as_ref()?.ended)
    }
}

/// How the configured backups stand. Where the setting says all, they are those that Windmill named last, and before
/// it was asked, those that are remembered.
#[must_use]
pub fn configured_workspaces(config: &Config, roster: &Roster, kept: &Kept) -> Vec<Workspace> {
    let one = |workspace: &WorkspaceId| {
        let destination = sync_request::configured_destination(config, workspace);
        let standing = |destination: &str| kept.standing(workspace.as_str(), destination);
        Workspace::configured(workspace.as_str(), standing(&destination), standing(&verified(&destination)))
    };
    let listed = match &config.workspaces {
        Workspaces::Listed(listed) => return listed.iter().map(one).collect(),
        Workspaces::All => roster.last(),
    };
    let mut all: Vec<_> = match listed {
        Some(listed) => listed.iter().map(one).collect(),
        None => {
            let ids = kept.standings.iter().filter_map(|standing| WorkspaceId::parse(&standing.workspace).ok());
            let mut known: Vec<_> = ids.map(|id| one(&id)).filter(|known| known.last_run.is_some()).collect();
            known.sort_by(|one, other| one.workspace.cmp(&other.workspace));
            known.dedup_by(|one, other| one.workspace == other.workspace);
            known
        }
    };
    // Without an answer to which they are, none of them is backed up.
    let unlisted = kept.standing(ALL, "").filter(|standing| !standing.last_run.success);
    all.extend(unlisted.map(|standing| Workspace::configured(ALL, Some(standing), None)));
    all
}

/// In place of a workspace's name for the question which there are.
pub const ALL: &str = "*";

/// What an alert should tell.
pub struct Fault {
    /// Of the first backup that failed.
    pub code: Code,
    /// All that failed, in one line. It names no cause, because whoever asks brings no token.
    pub message: String,
}

/// What is wrong with the configured backups; nothing where all is well. `started` is when the process began: a backup
/// that never went well is late from then on.
#[must_use]
pub fn fault_of(config: &Config, workspaces: &[Workspace], started: SystemTime, now: SystemTime) -> Option<Fault> {
    let mut fault: Option<Fault> = None;
    for workspace in workspaces {
        let Some(one) = failure_of(workspace).or_else(|| lateness_of(config, workspace, started, now)) else {
            continue;
        };
        match &mut fault {
            Some(fault) => fault.message = [&fault.message, "; ", &one.message].concat(),
            None => fault = Some(one),
        }
    }
    fault
}

fn failure_of(workspace: &Workspace) -> Option<Fault> {
    let run = workspace.last_run.as_ref().filter(|run| !run.success)?;
    let message = format!(
        "the last sync of workspace `{}` failed ({}); failures in a row since {}: {}",
        workspace.workspace,
        run.code,
        workspace.failing_since.as_deref().unwrap_or(&run.ended),
        workspace.consecutive_failures,
    );
    Some(Fault { code: Code::failure_of_name(&run.code).unwrap_or(Code::Internal), message })
}

/// Two scheduled times have passed, and a sync could have taken its time since.
fn lateness_of(config: &Config, workspace: &Workspace, started: SystemTime, now: SystemTime) -> Option<Fault> {
    let schedule = config.sync_schedule.as_ref()?;
    let success = workspace.last_success_time();
    let second = schedule.next_after(schedule.next_after(success.unwrap_or(started))?)?;
    if now <= second.checked_add(config.sync_timeout)? {
        return None;
    }
    let last =
        success.map_or_else(|| "there was none yet".to_owned(), |time| ["the last was ", &text_of(time)].concat());
    let message =
        format!("the schedule of workspace `{}` came true twice without a success: {last}", workspace.workspace);
    Some(Fault { code: Code::Timeout, message })
}

impl Report {
    /// What holds now.
    #[must_use]
    pub fn new(config: &Config, roster: &Roster, kept: &Kept, overview: &Overview, started: SystemTime) -> Self {
        let now = SystemTime::now();
        let mut workspaces = configured_workspaces(config, roster, kept);
        let ready = fault_of(config, &workspaces, started, now).is_none();
        let next = workspaces.iter().filter_map(|workspace| {
            let time = text_of(config.sync_schedule.as_ref()?.next_after(now)?);
            Some(Next { workspace: workspace.workspace.clone(), time })
        });
        let next = next.collect();
        for run in kept.runs.iter().filter(|run| !run.configured && !run.dry_run && !run.verify) {
            let others = || workspaces.iter().filter(|known| !known.configured);
            if others().count() < OTHERS_MAX && !others().any(|known| known.workspace == run.workspace) {
                workspaces.push(Workspace::other(run));
            }
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            time: text_of(now),
            uptime_seconds: now.duration_since(started).map_or(0, |time| time.as_secs()),
            ready,
            workspaces,
            next,
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
