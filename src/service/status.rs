//! The state of the service and its backups at one moment, as JSON.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use miniserde::Serialize;

use crate::config::schedule::Schedule;
use crate::config::{Config, Workspaces};
use crate::model::names::{ADMINS, WorkspaceId};
use crate::model::result_code::Code;
use crate::request::{self, Purpose, verified};
use crate::service::Service;
use crate::service::history::{ALL, BackupStatus, Bar, Record, SavedHistory};
use crate::service::notify::message::commit_page;
use crate::service::queue::Run;
use crate::util::time;

/// How many workspaces are listed that only requests named. Further ones appear only in the runs.
const OTHERS_MAX: usize = 8;

/// The report of `/status`.
#[derive(Serialize)]
pub struct StatusReport {
    /// The version of this program.
    pub version: &'static str,
    /// The time of the report, UTC.
    pub time: String,
    /// The seconds since the process started.
    pub uptime_seconds: u64,
    /// Whether there is nothing that an alert should report.
    pub ready: bool,
    /// The configured workspaces first, then others that ran lately.
    pub workspaces: Vec<Workspace>,
    /// When `SYNC_SCHEDULE` starts the next runs.
    pub next: Vec<Next>,
    /// When `VERIFY_SCHEDULE` starts the next runs.
    pub next_verify: Vec<Next>,
    /// Runs in progress in this process.
    pub running: Vec<ActiveRun>,
    /// Runs that wait for the end of another.
    pub waiting: Vec<ActiveRun>,
    /// The last runs that ended, the newest first.
    pub runs: Vec<Record>,
}

/// One workspace.
#[derive(Serialize)]
pub struct Workspace {
    /// Its id.
    pub workspace: String,
    /// Whether it is in the settings; its runs here are then those with the configured settings.
    pub configured: bool,
    /// The last run.
    pub last_run: Option<Record>,
    /// The last run that succeeded.
    pub last_success: Option<Record>,
    /// When the last run ended that backed up the workspace, even if it left items out; UTC.
    pub last_backup: Option<String>,
    /// The web page of the last success's commit, if the remote is on a known forge.
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
    /// The last verification that found the backup equal to the workspace.
    pub last_verify_success: Option<Record>,
}

/// A planned run.
#[derive(Serialize)]
pub struct Next {
    /// The workspace.
    pub workspace: String,
    /// When its schedule is due, UTC. A random delay of up to half a minute is added.
    pub time: String,
}

/// One run that has not ended.
#[derive(Serialize)]
pub struct ActiveRun {
    /// The id of the run.
    pub run_id: String,
    /// The workspace.
    pub workspace: String,
    /// Whether it runs with the configured settings.
    pub configured: bool,
    /// Whether it is a dry run.
    pub dry_run: bool,
    /// Whether it is a verification.
    pub verify: bool,
    /// The current step: `queue`, `fetch`, `probe`, `pull`, `commit` or `push`.
    pub step: &'static str,
    /// How long ago it was requested.
    pub elapsed_ms: u64,
}

impl ActiveRun {
    fn new(run: &Run) -> Self {
        Self {
            run_id: run.id.clone(),
            workspace: run.request.workspace.to_string(),
            configured: run.request.configured,
            dry_run: run.request.flags.dry_run,
            verify: run.request.flags.purpose == Purpose::Verify,
            step: run.step(),
            elapsed_ms: run.age_ms(),
        }
    }
}

impl Workspace {
    pub(super) fn configured(workspace: &str, status: Option<&BackupStatus>, verified: Option<&BackupStatus>) -> Self {
        let (status, verified) = (status.cloned().unwrap_or_default(), verified.cloned().unwrap_or_default());
        // An earlier version did not write `last_backup`.
        let last_backup = status.last_backup.or_else(|| Some(status.last_success.as_ref()?.ended.clone()));
        Self {
            workspace: workspace.to_owned(),
            configured: true,
            last_run: status.last_run,
            last_success: status.last_success,
            last_backup,
            commit_url: None,
            last_failure: status.last_failure,
            consecutive_failures: status.consecutive_failures,
            failing_since: status.failing_since,
            last_runs: status.picture,
            last_verify: verified.last_run,
            last_verify_success: verified.last_success,
        }
    }

    /// Returns the entry for a workspace from its newest run with other settings than the configured ones. The status
    /// of such backups is not kept.
    fn other(run: &Record) -> Self {
        Self {
            configured: false,
            last_run: Some(run.clone()),
            last_success: run.success.then(|| run.clone()),
            last_backup: run.success.then(|| run.ended.clone()),
            last_failure: (!run.success).then(|| run.clone()),
            consecutive_failures: u64::from(!run.success),
            ..Self::configured(&run.workspace, None, None)
        }
    }
}

/// Returns a name of where the configured backups are from and go to, whichever the workspaces are.
pub fn place(config: &Config) -> String {
    WorkspaceId::parse(ADMINS).map_or_else(|_| String::new(), |any| request::configured_destination(config, &any))
}

/// Returns the status of the configured backups. If the settings choose all workspaces, these are those that Windmill
/// listed last, and those that were backed up since then, by name. Before Windmill was asked, they are those in the
/// history.
pub fn configured_workspaces(config: &Config, kept: &SavedHistory) -> Vec<Workspace> {
    let one = |workspace: &WorkspaceId| {
        let destination = request::configured_destination(config, workspace);
        let status = |destination: &str| kept.status(workspace.as_str(), destination);
        let mut one = Workspace::configured(workspace.as_str(), status(&destination), status(&verified(&destination)));
        let commit = one.last_success.as_ref().and_then(|run| run.commit.as_ref());
        one.commit_url = config.remote.as_ref().zip(commit).and_then(|(remote, commit)| commit_page(remote, commit));
        one
    };
    if let Workspaces::Listed(listed) = &config.workspaces {
        return listed.iter().map(one).collect();
    }
    let in_history = |status: &BackupStatus| {
        let id = WorkspaceId::parse(&status.workspace).ok()?;
        (status.destination == request::configured_destination(config, &id)).then_some(id)
    };
    let list = kept.list.as_ref().filter(|list| list.place == place(config));
    let is_since = |status: &&BackupStatus| {
        list.is_none_or(|list| status.last_run.as_ref().is_some_and(|run| run.ended > list.time))
    };
    let mut known: BTreeSet<_> = kept.standings.iter().filter(is_since).filter_map(in_history).collect();
    known.extend(list.iter().flat_map(|list| &list.workspaces).filter_map(|id| WorkspaceId::parse(id).ok()));
    let mut all: Vec<_> = known.iter().map(one).collect();
    // Without a list of the workspaces, none of them is backed up.
    let failing = kept.status(ALL, "");
    if failing.is_some_and(|status| status.last_run.is_some()) || all.is_empty() && config.expect_sync_every.is_some() {
        all.push(Workspace::configured(ALL, failing, None));
    }
    all
}

/// Returns what is wrong with the configured backups, or `None` if all is well: the code of the first fault, and all
/// faults in one line. It names no cause, because the caller needs no token. For a backup without a success, the time
/// counts from the start of the process.
pub fn fault_of(service: &Service, workspaces: &[Workspace], now: SystemTime) -> Option<(Code, String)> {
    let (config, started) = (&service.config, time::of(service.started, now));
    let fault_of = |workspace: &Workspace| {
        failure_of(workspace)
            .or_else(|| overdue(config, workspace, started, now).map(|(_, message)| (Code::Overdue, message)))
            .or_else(|| lateness_of(config, workspace, started, now))
    };
    let (codes, messages): (Vec<_>, Vec<_>) = workspaces.iter().filter_map(fault_of).unzip();
    Some((*codes.first()?, messages.join("; ")))
}

fn failure_of(workspace: &Workspace) -> Option<(Code, String)> {
    let run = workspace.last_run.as_ref().filter(|run| !run.success)?;
    let message = format!(
        "the last sync of workspace `{}` failed ({}); failures in a row since {}: {}",
        workspace.workspace,
        run.code,
        workspace.failing_since.as_deref().unwrap_or(&run.ended),
        workspace.consecutive_failures,
    );
    Some((Code::failure_of_name(&run.code).unwrap_or(Code::Internal), message))
}

/// Returns since when a backup is overdue, and a message about it, if it was not made for longer than
/// `EXPECT_SYNC_EVERY`. If it was never made, that time begins with the process. So it does if the last one lies in the
/// future: the clock was wrong.
pub fn overdue(
    config: &Config,
    workspace: &Workspace,
    started: SystemTime,
    now: SystemTime,
) -> Option<(SystemTime, String)> {
    let every = config.expect_sync_every?;
    let last = workspace.last_backup.as_deref();
    let passed = last.and_then(time::from_text).filter(|last| *last <= now);
    let since = passed.unwrap_or(started).checked_add(every)?;
    if now <= since {
        return None;
    }
    let message = format!(
        "workspace `{}` had no backup for longer than EXPECT_SYNC_EVERY ({} s): {}",
        workspace.workspace,
        every.as_secs(),
        last_in_words(last)
    );
    Some((since, message))
}

/// Returns a fault if, since the last success, two scheduled times and then the time of a sync have passed.
fn lateness_of(config: &Config, workspace: &Workspace, started: SystemTime, now: SystemTime) -> Option<(Code, String)> {
    let schedule = config.sync_schedule.as_ref()?;
    let success = workspace.last_success.as_ref();
    let passed = success.and_then(Record::ended_at).filter(|success| *success <= now);
    let second = schedule.next_after(schedule.next_after(passed.unwrap_or(started))?)?;
    if now <= second.checked_add(config.sync_timeout)? {
        return None;
    }
    let message = format!(
        "two scheduled times of workspace `{}` passed without a success: {}",
        workspace.workspace,
        last_in_words(success.map(|run| run.ended.as_str()))
    );
    Some((Code::Timeout, message))
}

fn last_in_words(time: Option<&str>) -> String {
    time.map_or_else(|| "there was none yet".to_owned(), |time| ["the last was ", time].concat())
}

impl StatusReport {
    /// Returns the current report.
    pub fn new(service: &Service, kept: &SavedHistory, (running, waiting): &(Vec<Arc<Run>>, Vec<Arc<Run>>)) -> Self {
        let Service { config, started, .. } = service;
        let now = SystemTime::now();
        let mut workspaces = configured_workspaces(config, kept);
        let ready = fault_of(service, &workspaces, now).is_none();
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
            uptime_seconds: started.elapsed().as_secs(),
            ready,
            workspaces,
            next,
            next_verify,
            running: running.iter().map(|run| ActiveRun::new(run)).collect(),
            waiting: waiting.iter().map(|run| ActiveRun::new(run)).collect(),
            runs: kept.runs.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Options, Required};

    #[test]
    fn a_success_in_the_future_counts_as_the_start_of_the_service() {
        let settings = [("EXPECT_SYNC_EVERY", "26h"), ("SYNC_SCHEDULE", "0 3 * * *")];
        let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
        let config = Config::new(&Options::default(), &environment, Required::Serve).expect("settings");
        let at = |text: &str| time::from_text(text).expect("a time");
        let started = at("2026-11-30T02:00:00Z");
        let mut workspace = Workspace::configured("shop", None, None);
        for last in [None, Some("2036-11-30T03:00:00Z")] {
            workspace.last_backup = last.map(str::to_owned);
            assert!(overdue(&config, &workspace, started, at("2026-12-01T04:00:00Z")).is_none(), "{last:?}");
            let (since, _) = overdue(&config, &workspace, started, at("2026-12-01T04:00:01Z")).expect("it is overdue");
            assert_eq!(since, at("2026-12-01T04:00:00Z"));
        }
        workspace.last_backup = Some("2026-12-01T03:00:00Z".to_owned());
        let future = "2036-11-30T03:00:00Z".to_owned();
        workspace.last_success = Some(Record { ended: future, ..Record::for_test("01", true) });
        for (now, is_late) in [("2026-12-01T03:30:00Z", false), ("2026-12-01T03:30:01Z", true)] {
            assert_eq!(lateness_of(&config, &workspace, started, at(now)).is_some(), is_late, "{now}");
        }
    }
}
