//! A verification: lock, fetch, ask Windmill, pull into an empty folder, compare by value.
//!
//! It changes nothing outside of the run's folder.

pub mod value_diff;

use std::collections::BTreeSet;

use crate::backup::sync::{self, Pull, Pulled, guards, last_sync, merge, tip};
use crate::backup::{Env, RemoteTip, RunContext, Step};
use crate::git::{Change, Git, GitPath, Listing, Mark, ObjectId, join};
use crate::model::{Changed, Code, Difference, Result, SyncResult, Warnings, WorkspaceId};
use crate::request::{Purpose, SyncRequest};
use crate::util::{Sample, files, printable, retry, time};
use crate::windmill::Snapshot;

/// How many differences are listed. The rest is counted.
pub(super) const LISTED_MAX: usize = 500;

/// The kinds of differences, in the order of [`Mark`]: the backup lacks what was added to the workspace.
const KINDS: [&str; 3] = ["missing_in_backup", "differs", "only_in_backup"];

/// Compares the workspace with the remote's tip, and returns the differences.
pub fn run(request: &SyncRequest, env: &Env<'_>, run_id: &str) -> SyncResult {
    let (SyncRequest { workspace, remote, branch, .. }, run) = (request, RunContext { request, env });
    let task = format_args!("verifying workspace {workspace} against {remote} (branch {branch})");
    let mut result = run.report(run_id, task, |warnings| compare(run, warnings));
    result.differences.get_or_insert_default();
    result
}

/// Counts a difference, and lists it if there is room.
fn add(result: &mut SyncResult, mark: Mark, path: &[u8], diff: Vec<String>) {
    mark.count_in(&mut result.changed);
    let listed = result.differences.get_or_insert_default();
    if listed.len() < LISTED_MAX {
        listed.push(Difference { path: printable(path), kind: KINDS[mark as usize], diff });
    }
}

/// Returns the result in words. `commit` is the commit that was compared with.
fn message(workspace: &WorkspaceId, commit: &str, result: &SyncResult) -> String {
    let Changed { added, modified, deleted } = result.changed;
    let paths: Sample = result.differences.iter().flatten().map(|difference| difference.path.as_bytes()).collect();
    let compared = if paths.is_empty() {
        let what = if result.left_out.is_empty() { "The backup" } else { "The backup of what could be compared" };
        format!("{what} matches workspace '{workspace}': commit {commit}")
    } else {
        format!(
            "Workspace '{workspace}' differs from its backup (commit {commit}): {added} files are missing in the backup, \
             {modified} differ, {deleted} are only in the backup: {paths}. What was changed since that commit differs \
             until the next sync"
        )
    };
    match &*result.left_out {
        [] => compared,
        left_out => format!("{compared}. Not compared: {}", sync::in_words(left_out)),
    }
}

/// Returns the first digits of a commit's id, and its time if it has one: `0d9170cb88 of 2026-11-24T15:00:00Z`.
///
/// # Errors
/// `BackupError`.
pub(super) fn with_time(git: &Git<'_>, commit: &ObjectId) -> Result<String> {
    let time = git.commit_text(commit, None)?.and_then(|commit| commit.time);
    let time = time.map(|time| format!(" of {}", time::to_text(time)));
    Ok(format!("{commit:.10}{}", time.unwrap_or_default()))
}

/// Pulls the workspace, and compares it with the folder at the tip.
fn compare(run: RunContext<'_>, warnings: &mut Warnings) -> Result<SyncResult> {
    let run_env = run.enter()?;
    let folder = run_env.run_dir.path().join("checkout");
    files::create_folder(&folder)?;
    let git = run.git(&run_env, &folder)?;
    let tip = run.step(Step::Fetch, || retry::patiently(&run_env.deadline, || tip::refresh(run, &git)))?;
    guards::refuse_the_key(run.env.config)?;
    let mut snapshot = run.step(Step::Probe, || {
        run.account(&run_env)?;
        run.snapshot(&run_env, &tip.plan.query)
    })?;
    tip.plan.warnings.iter().for_each(|warning| warnings.add(warning.clone()));
    run.warn_about_snapshot(&snapshot, warnings);
    // What the last sync left out is left out here too.
    snapshot.leave_out_again(&last_sync::found(run))?;
    let commit = tip.commit.as_ref().map(|tip| with_time(&git, tip)).transpose()?;
    snapshot.judge_by(&tip.plan)?;
    let into_empty = Pull { run, git: &git, plan: &tip.plan, visible: None, suspects: &[] };
    run.step(Step::Pull, || into_empty.whole(&mut snapshot))?;
    let mut result = SyncResult { left_out: snapshot.left_out_list(), ..SyncResult::default() };
    let only_in_backup = run.step(Step::Commit, || {
        let fresh = git.stage()?;
        compare_files(&git, &tip, &fresh, &mut result)
    })?;
    if !only_in_backup.is_empty() {
        add_deleted(run, &git, &tip, &mut snapshot, &only_in_backup, &mut result)?;
    }
    let workspace = &run.request.workspace;
    let is_same = result.differences.is_none() && result.left_out.is_empty();
    let code = if is_same { Code::Unchanged } else { Code::Differs };
    let message = match &commit {
        Some(commit) => message(workspace, commit, &result),
        None => format!("There is no backup of workspace '{workspace}': the branch does not exist"),
    };
    Ok(SyncResult { code, message, commit: tip.commit.map(|commit| commit.to_string()), ..result })
}

/// Compares the pulled files by value. Returns the files that only the backup has.
fn compare_files(
    git: &Git<'_>,
    tip: &RemoteTip,
    fresh: &Listing,
    result: &mut SyncResult,
) -> Result<BTreeSet<GitPath>> {
    let mut only_in_backup = BTreeSet::new();
    for pair in join(tip.folder.entries()?, fresh.entries()?) {
        let (path, sides) = pair?;
        match sides {
            (Some(backup), Some(workspace)) => {
                let (name, entries) = (String::from_utf8_lossy(&path), (&backup, &workspace));
                let diff = value_diff::of_entries(git, &name, entries, Purpose::Verify)?;
                if !diff.is_empty() {
                    add(result, Mark::Modified, &path, diff);
                }
            }
            (None, Some(_)) => add(result, Mark::Added, &path, Vec::new()),
            (Some(_), None) => _ = only_in_backup.insert(path),
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
    result: &mut SyncResult,
) -> Result<()> {
    let pull = Pull { run, git, plan: &tip.plan, visible: tip.visible_tree.as_ref(), suspects: &[] };
    let held_visible = run.step(Step::Pull, || pull.whole(snapshot))?;
    let owns_ui = snapshot.has_shared_ui() == Some(true);
    let pulled = Pulled { held_visible, changed: None, snapshot, owns_ui };
    let comparison = merge::compose(git, tip, &pulled, &mut Warnings::default())?;
    for change in comparison.changes()? {
        let Change { mark, path, .. } = change?;
        if mark == Mark::Deleted && only_in_backup.contains(&path) {
            add(result, mark, &path, Vec::new());
        }
    }
    Ok(())
}
