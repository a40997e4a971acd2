//! A verification: lock, fetch, ask Windmill, pull into an empty folder, compare by value.
//!
//! It changes nothing outside of the run's folder.

pub mod value_diff;

use std::collections::BTreeSet;
use std::time::Instant;

use crate::backup::error::{self, BackupError};
use crate::backup::progress::Step;
use crate::backup::run_context::{Env, Outcome, RunContext};
use crate::backup::sync::merge::{self, Pulled};
use crate::backup::sync::pull::Pull;
use crate::backup::sync::tip::{self, RemoteTip};
use crate::backup::sync::{self, guards, last_sync};
use crate::git::ls_tree::{GitPath, Listing, join};
use crate::git::object::ObjectId;
use crate::git::tree_diff::{Change, Mark, Sample, printable};
use crate::git::{Git, GitError};
use crate::model::{Changed, Code, Difference, LeftOut, SyncResult, Warnings, WorkspaceId};
use crate::request::{Purpose, SyncRequest};
use crate::util::{files, logging, retry, time};
use crate::windmill::snapshot::Snapshot;

/// How many differences are listed. The rest is counted.
pub(super) const LISTED_MAX: usize = 500;

/// The kinds of differences, in the order of [`Mark`]: the backup lacks what was added to the workspace.
const KINDS: [&str; 3] = ["missing_in_backup", "differs", "only_in_backup"];

/// Compares the workspace with the remote's tip, and returns the differences.
pub fn run(request: &SyncRequest, env: &Env<'_>, run_id: &str) -> SyncResult {
    let started = Instant::now();
    let (workspace, remote, branch) = (&request.workspace, &request.remote, &request.branch);
    let _scope = logging::run_scope(run_id, workspace.as_str());
    log::info!("run {run_id}: verifying workspace {workspace} against {remote} (branch {branch})");
    let run = RunContext { request, env };
    let (mut warnings, mut differences) = (Warnings::default(), Vec::new());
    let ended = error::catch_panic(|| compare(run, &mut warnings, &mut differences));
    SyncResult { differences: Some(differences), ..run.conclude(run_id, started, ended, warnings) }
}

/// The differences that were found.
#[derive(Default)]
struct Found {
    /// How many files differ, and how.
    changed: Changed,
    /// The first differences.
    listed: Vec<Difference>,
}

impl Found {
    /// Counts a difference, and lists it if there is room.
    fn add(&mut self, mark: Mark, path: &[u8], diff: Vec<String>) {
        mark.count_in(&mut self.changed);
        if self.listed.len() < LISTED_MAX {
            self.listed.push(Difference { path: printable(path), kind: KINDS[mark as usize], diff });
        }
    }

    /// Returns the result in words. `commit` is the commit that was compared with.
    fn message(&self, workspace: &WorkspaceId, commit: &str, left_out: &[LeftOut]) -> String {
        let Changed { added, modified, deleted } = self.changed;
        let compared = if self.listed.is_empty() {
            format!("The backup matches workspace '{workspace}': commit {commit}")
        } else {
            let paths: Sample = self.listed.iter().map(|difference| difference.path.as_bytes()).collect();
            format!(
                "Workspace '{workspace}' differs from its backup (commit {commit}): {added} files are missing in the backup, \
                 {modified} differ, {deleted} are only in the backup: {paths}. What was changed since that commit differs \
                 until the next sync"
            )
        };
        match left_out {
            [] => compared,
            left_out => format!("{compared}. Not compared: {}", sync::in_words(left_out)),
        }
    }
}

/// Returns the first digits of a commit's id, and its time if it has one: `0d9170cb88 of 2026-11-24T15:00:00Z`.
///
/// # Errors
/// [`GitError`].
pub(super) fn with_time(git: &Git<'_>, commit: &ObjectId) -> Result<String, GitError> {
    let time = git.commit_message(commit)?.time.map(|time| format!(" of {}", time::to_text(time)));
    Ok(format!("{commit:.10}{}", time.unwrap_or_default()))
}

/// Pulls the workspace, and compares it with the folder at the tip. Sets the first differences.
fn compare(
    run: RunContext<'_>,
    warnings: &mut Warnings,
    differences: &mut Vec<Difference>,
) -> Result<Outcome, BackupError> {
    let run_env = run.enter()?;
    let folder = run_env.run_dir.path().join("checkout");
    files::create_folder(&folder)?;
    let git = run.git(&run_env, &folder)?;
    let tip = run.step(Step::Fetch, || retry::patiently(&run_env.deadline, || tip::refresh(run, &git)))?;
    guards::refuse_the_key(run.env.config)?;
    let (account, mut snapshot) =
        run.step(Step::Probe, || Ok((run.account(&run_env)?, run.snapshot(&run_env, &tip.plan.query)?)))?;
    tip.plan.warnings.iter().for_each(|warning| warnings.add(warning.clone()));
    run.warn_about_snapshot(&snapshot, warnings);
    run.warn_about_access(&account, warnings);
    run.warn_about_choice(&account, warnings);
    // What the last sync left out is left out here too.
    snapshot.leave_out_again(&last_sync::found(run))?;
    let commit = tip.commit.as_ref().map(|tip| with_time(&git, tip)).transpose()?;
    snapshot.judge_by(&tip.plan)?;
    let into_empty = Pull { run, git: &git, plan: &tip.plan, visible: None, suspects: &[] };
    run.step(Step::Pull, || into_empty.whole(&mut snapshot))?;
    let (mut found, left_out) = (Found::default(), snapshot.left_out_list());
    let only_in_backup = run.step(Step::Commit, || {
        let fresh = git.stage()?;
        Ok(compare_files(&git, &tip, &fresh, &mut found)?)
    })?;
    if !only_in_backup.is_empty() {
        add_deleted(run, &git, &tip, &mut snapshot, &only_in_backup, &mut found)?;
    }
    let workspace = &run.request.workspace;
    let is_same = found.listed.is_empty() && left_out.is_empty();
    let code = if is_same { Code::Unchanged } else { Code::Differs };
    let message = match &commit {
        Some(commit) => found.message(workspace, commit, &left_out),
        None => format!("There is no backup of workspace '{workspace}': the branch does not exist"),
    };
    *differences = found.listed;
    Ok(Outcome { code, message, commit: tip.commit, changed: found.changed, left_out })
}

/// Compares the pulled files by value. Returns the files that only the backup has.
fn compare_files(
    git: &Git<'_>,
    tip: &RemoteTip,
    fresh: &Listing,
    found: &mut Found,
) -> Result<BTreeSet<GitPath>, GitError> {
    let mut only_in_backup = BTreeSet::new();
    for pair in join(tip.folder.entries()?, fresh.entries()?) {
        let (path, sides) = pair?;
        match sides {
            (Some(backup), Some(workspace)) => {
                let (name, entries) = (String::from_utf8_lossy(&path), (&backup, &workspace));
                let diff = value_diff::of_entries(git, &name, entries, Purpose::Verify)?;
                if !diff.is_empty() {
                    found.add(Mark::Modified, &path, diff);
                }
            }
            (None, Some(_)) => found.add(Mark::Added, &path, Vec::new()),
            (Some(_), None) => {
                only_in_backup.insert(path);
            }
            (None, None) => {}
        }
    }
    Ok(only_in_backup)
}

/// Adds the files that a sync would delete from the backup. wmill itself decides which files are Windmill's and within
/// the patterns of `wmill.yaml`: it gets the files, and deletes those that the workspace does not hold.
fn add_deleted(
    run: RunContext<'_>,
    git: &Git<'_>,
    tip: &RemoteTip,
    snapshot: &mut Snapshot,
    only_in_backup: &BTreeSet<GitPath>,
    found: &mut Found,
) -> Result<(), BackupError> {
    let pull = Pull { run, git, plan: &tip.plan, visible: tip.visible_tree.as_ref(), suspects: &[] };
    let held_visible = run.step(Step::Pull, || pull.whole(snapshot))?;
    let owns_ui = snapshot.has_shared_ui() == Some(true);
    let pulled = Pulled { held_visible, changed: None, snapshot, owns_ui };
    let comparison = merge::compose(git, tip, &pulled, &mut Warnings::default())?;
    for change in comparison.changes().map_err(GitError::from)? {
        let Change { mark, path, .. } = change.map_err(GitError::from)?;
        if mark == Mark::Deleted && only_in_backup.contains(&path) {
            found.add(mark, &path, Vec::new());
        }
    }
    Ok(())
}
