//! The status of the service and its backups at one moment, as JSON.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use miniserde::ser::Fragment;
use miniserde::{Serialize, json};

use crate::config::{Config, Schedule, Workspaces};
use crate::model::{ADMINS, Code, WorkspaceId, run_result};
use crate::request::{self, verified};
use crate::service::{ALL, BackupStatus, Record, Run, SavedHistory, Service, commit_page};
use crate::util::time;

/// The most listed workspaces that are only in requests. Further ones appear only in the runs.
const OTHERS_MAX: usize = 8;

/// One workspace. The members of `/status` are in its [`Serialize`].
pub struct Workspace {
    /// Its id.
    pub id: String,
    /// Whether it is in the settings; its status is then of the runs with the configured settings.
    pub configured: bool,
    /// The status of its backup.
    pub backup: BackupStatus,
    /// The status of its verifications.
    pub verified: BackupStatus,
    /// The web page of the last success's commit, if the remote is on a known forge.
    pub commit_url: Option<String>,
}

/// A planned run.
#[derive(Serialize)]
struct Next {
    /// The workspace.
    workspace: String,
    /// When its schedule is due, UTC. A random delay of up to half a minute is added.
    time: String,
}

impl Workspace {
    pub(super) fn configured(id: &str, mut backup: BackupStatus, verified: BackupStatus) -> Self {
        // Earlier versions did not write it.
        backup.last_backup = backup.last_backup.or_else(|| Some(backup.last_success.as_ref()?.ended.clone()));
        Self { id: id.to_owned(), configured: true, backup, verified, commit_url: None }
    }

    /// Returns the entry for a workspace from its newest run with other settings than the configured ones. The status
    /// of such backups is not saved.
    fn other(run: &Record) -> Self {
        let mut backup = BackupStatus::default();
        backup.add(run, None);
        Self { configured: false, ..Self::configured(&run.workspace, backup, BackupStatus::default()) }
    }
}

impl Serialize for Workspace {
    fn begin(&self) -> Fragment<'_> {
        let Self { id, configured, backup, verified, commit_url } = self;
        run_result::object(vec![
            ("workspace", Box::new(id)),
            ("configured", Box::new(configured)),
            ("last_run", Box::new(&backup.last_run)),
            ("last_success", Box::new(&backup.last_success)),
            ("last_backup", Box::new(&backup.last_backup)),
            ("commit_url", Box::new(commit_url)),
            ("last_failure", Box::new(&backup.last_failure)),
            ("consecutive_failures", Box::new(backup.consecutive_failures)),
            ("failing_since", Box::new(&backup.failing_since)),
            ("last_runs", Box::new(&backup.picture)),
            ("last_verify", Box::new(&verified.last_run)),
            ("last_verify_success", Box::new(&verified.last_success)),
        ])
    }
}

/// Returns a name for the source and the destination of the configured backups, which does not depend on the
/// workspaces.
pub fn place(config: &Config) -> String {
    WorkspaceId::parse(ADMINS).map_or_else(|_| String::new(), |any| request::configured_destination(config, &any))
}

/// Returns the status of the configured backups. If the settings choose all workspaces, these are those that Windmill
/// listed last, and those that were backed up since then, by name. Before Windmill was asked, they are those in the
/// history.
pub fn configured_workspaces(config: &Config, saved: &SavedHistory) -> Vec<Workspace> {
    let with_status = |workspace: &WorkspaceId| {
        let destination = request::configured_destination(config, workspace);
        let status = |destination: &str| saved.status(workspace.as_str(), destination);
        let mut entry =
            Workspace::configured(workspace.as_str(), status(&destination), status(&verified(&destination)));
        let commit = entry.backup.last_success.as_ref().and_then(|run| run.commit.as_ref());
        entry.commit_url = config.remote.as_ref().zip(commit).and_then(|(remote, commit)| commit_page(remote, commit));
        entry
    };
    if let Workspaces::Listed(listed) = &config.workspaces {
        return listed.iter().map(with_status).collect();
    }
    let list = saved.list.as_ref().filter(|list| list.place == place(config));
    let backed_up = saved.statuses.iter().filter_map(|status| {
        let id = WorkspaceId::parse(&status.workspace).ok()?;
        let is_since = list.is_none_or(|list| status.last_run.as_ref().is_some_and(|run| run.ended > list.time));
        (is_since && status.destination == request::configured_destination(config, &id)).then_some(id)
    });
    let listed = list.iter().flat_map(|list| &list.workspaces).filter_map(|id| WorkspaceId::parse(id).ok());
    let known: BTreeSet<_> = backed_up.chain(listed).collect();
    let mut all: Vec<_> = known.iter().map(with_status).collect();
    // If the workspaces cannot be listed, none of them is backed up.
    let failing = saved.status(ALL, "");
    if failing.last_run.is_some() || all.is_empty() && config.expect_sync_every.is_some() {
        all.push(Workspace::configured(ALL, failing, BackupStatus::default()));
    }
    all
}

/// Returns the code of the first fault of the configured backups, and all faults in one line, or `None` if there is no
/// fault. The text names no cause, because the caller needs no token. For a backup without a success, the time counts
/// from the start of the process.
pub fn fault_of(service: &Service, workspaces: &[Workspace], now: SystemTime) -> Option<(Code, String)> {
    let (config, started) = (&service.config, time::of(service.started, now));
    let faults = workspaces.iter().filter_map(|workspace| fault_of_one(config, workspace, started, now));
    let (codes, messages): (Vec<_>, Vec<_>) = faults.unzip();
    Some((*codes.first()?, messages.join("; ")))
}

/// Returns a fault of a backup if its last run failed, if it is overdue, or if two scheduled times and then the time of
/// a sync have passed since its last success.
fn fault_of_one(
    config: &Config,
    workspace: &Workspace,
    started: SystemTime,
    now: SystemTime,
) -> Option<(Code, String)> {
    let (id, status) = (&workspace.id, &workspace.backup);
    if let Some(run) = status.last_run.as_ref().filter(|run| !run.success) {
        let since = status.failing_since.as_deref().unwrap_or(&run.ended);
        let (code, count) = (&run.code, status.consecutive_failures);
        let message =
            format!("the last sync of workspace `{id}` failed ({code}); failures in a row since {since}: {count}");
        return Some((Code::failure_of_name(code).unwrap_or(Code::Internal), message));
    }
    if let Some((_, message)) = overdue(config, workspace, started, now) {
        return Some((Code::Overdue, message));
    }
    let schedule = config.sync_schedule.as_ref()?;
    let success = status.last_success.as_ref().and_then(Record::ended_at).filter(|success| *success <= now);
    let second = schedule.next_after(schedule.next_after(success.unwrap_or(started))?)?;
    let is_late = now > second.checked_add(config.sync_timeout)?;
    is_late.then(|| (Code::Timeout, format!("two scheduled times of workspace `{id}` passed without a success")))
}

/// Returns since when a backup is overdue, and a message about it, if it was not made for longer than
/// `EXPECT_SYNC_EVERY`. That time begins with the process if the backup was never made, or if the last one is in the
/// future because the clock was wrong.
pub fn overdue(
    config: &Config,
    workspace: &Workspace,
    started: SystemTime,
    now: SystemTime,
) -> Option<(SystemTime, String)> {
    let every = config.expect_sync_every?;
    let last = workspace.backup.last_backup.as_deref();
    let passed = last.and_then(time::from_text).filter(|last| *last <= now);
    let since = passed.unwrap_or(started).checked_add(every)?;
    if now <= since {
        return None;
    }
    let (id, seconds) = (&workspace.id, every.as_secs());
    let last = last.map_or_else(|| "there was none yet".to_owned(), |last| format!("the last was {last}"));
    Some((since, format!("workspace `{id}` had no backup for longer than EXPECT_SYNC_EVERY ({seconds} s): {last}")))
}

/// The content of `/status`.
struct Report<'a>(&'a Service, &'a SavedHistory, (Vec<Arc<Run>>, Vec<Arc<Run>>));

/// Returns the report of `/status`. Only one report is made at a time, which limits the memory if there are many
/// requests at once.
pub fn report(service: &Service) -> String {
    // Runs are recorded while the queue is locked, so the queue is asked before the history is locked.
    let runs = service.queue.overview();
    service.recorder.history.read(|saved| json::to_string(&Report(service, saved, runs)))
}

impl Serialize for Report<'_> {
    fn begin(&self) -> Fragment<'_> {
        let Self(service, saved, (running, waiting)) = self;
        let (config, now) = (&service.config, SystemTime::now());
        let mut workspaces = configured_workspaces(config, saved);
        let is_ready = fault_of(service, &workspaces, now).is_none();
        let next_by = |schedule: Option<&Schedule>| -> Vec<Next> {
            let Some(time) = schedule.and_then(|schedule| schedule.next_after(now)) else { return Vec::new() };
            workspaces.iter().map(|of| Next { workspace: of.id.clone(), time: time::to_text(time) }).collect()
        };
        let next = next_by(config.sync_schedule.as_ref());
        let next_verify = next_by(config.verify_schedule.as_ref());
        for run in saved.runs.iter().filter(|run| !run.configured && !run.dry_run && !run.verify) {
            let others = || workspaces.iter().filter(|known| !known.configured);
            if others().count() < OTHERS_MAX && !others().any(|known| known.id == run.workspace) {
                workspaces.push(Workspace::other(run));
            }
        }
        run_result::object(vec![
            ("version", Box::new(env!("CARGO_PKG_VERSION"))),
            ("time", Box::new(time::to_text(now))),
            ("uptime_seconds", Box::new(service.started.elapsed().as_secs())),
            ("ready", Box::new(is_ready)),
            ("workspaces", Box::new(workspaces)),
            ("next", Box::new(next)),
            ("next_verify", Box::new(next_verify)),
            ("running", Box::new(running.iter().map(|run| &**run).collect::<Vec<_>>())),
            ("waiting", Box::new(waiting.iter().map(|run| &**run).collect::<Vec<_>>())),
            ("runs", Box::new(&saved.runs)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Options, Required};
    use crate::service::WorkspaceList;

    #[test]
    fn a_success_in_the_future_counts_as_the_start_of_the_service() {
        let settings = [("EXPECT_SYNC_EVERY", "26h"), ("SYNC_SCHEDULE", "0 3 * * *")];
        let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
        let config = Config::new(&Options::default(), &environment, Required::Serve).expect("settings");
        let at = |text: &str| time::from_text(text).expect("a time");
        let started = at("2026-11-30T02:00:00Z");
        let mut workspace = Workspace::configured("shop", BackupStatus::default(), BackupStatus::default());
        for last in [None, Some("2036-11-30T03:00:00Z")] {
            workspace.backup.last_backup = last.map(str::to_owned);
            assert!(overdue(&config, &workspace, started, at("2026-12-01T04:00:00Z")).is_none(), "{last:?}");
            let (since, _) = overdue(&config, &workspace, started, at("2026-12-01T04:00:01Z")).expect("it is overdue");
            assert_eq!(since, at("2026-12-01T04:00:00Z"));
        }
        workspace.backup.last_backup = Some("2026-12-01T03:00:00Z".to_owned());
        let future = "2036-11-30T03:00:00Z".to_owned();
        workspace.backup.last_success = Some(Record { ended: future, ..Record::for_test("01", true) });
        for (now, is_late) in [("2026-12-01T03:30:00Z", false), ("2026-12-01T03:30:01Z", true)] {
            assert_eq!(fault_of_one(&config, &workspace, started, at(now)).is_some(), is_late, "{now}");
        }
    }

    #[test]
    fn a_list_of_workspaces_counts_only_for_its_own_windmill() {
        let config = |base_url: &str| {
            let settings = [
                ("WINDMILL_WORKSPACE", "*"),
                ("GIT_BRANCH", "{workspace}"),
                ("GIT_REMOTE_URL", "file:///backup.git"),
                ("WINDMILL_BASE_URL", base_url),
            ];
            let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
            Config::new(&Options::default(), &environment, Required::Serve).expect("settings")
        };
        let (here, elsewhere) = (config("http://here:8000"), config("http://elsewhere:8000"));
        let list = WorkspaceList { place: place(&here), workspaces: vec!["shop".to_owned()], time: String::new() };
        let saved = SavedHistory { list: Some(list), ..SavedHistory::default() };
        let names = |config: &Config| -> Vec<_> {
            configured_workspaces(config, &saved).iter().map(|workspace| workspace.id.clone()).collect()
        };
        assert_eq!(names(&here), ["shop"]);
        assert!(names(&elsewhere).is_empty());
    }
}
