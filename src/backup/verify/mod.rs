//! A verification: lock, fetch, ask Windmill, pull into an empty folder, compare by value.
//!
//! It changes nothing: all of it happens in the folder of the run.

pub mod value_diff;

use std::collections::BTreeSet;
use std::time::Instant;

use crate::backup::error::{self, BackupError};
use crate::backup::progress::Step;
use crate::backup::run_context::{Env, Outcome, RunContext};
use crate::backup::sync::merge::{self, Pulled};
use crate::backup::sync::pull;
use crate::backup::sync::tip::{self, RemoteTip};
use crate::backup::sync::{self, guards, last_sync};
use crate::git::ls_tree::{Listing, join};
use crate::git::object::ObjectId;
use crate::git::tree_diff::{Mark, Sample, printable};
use crate::git::{Git, GitError};
use crate::model::names::WorkspaceId;
use crate::model::result_code::Code;
use crate::model::run_result::{Changed, Difference, LeftOut, SyncResult, Warnings};
use crate::request::SyncRequest;
use crate::util::files;
use crate::util::logging;
use crate::util::retry;
use crate::util::time;
use crate::windmill::snapshot::Snapshot;

/// How many differences are listed. The rest is counted.
pub(super) const LISTED_MAX: usize = 500;

/// Compares the workspace with the remote's tip, and returns the differences.
pub fn run(request: &SyncRequest, env: &Env<'_>, run_id: &str) -> SyncResult {
    let started = Instant::now();
    let (workspace, remote, branch) = (&request.workspace, &request.remote, &request.branch);
    let _scope = logging::run_scope(run_id, workspace.as_str());
    log::info!("run {run_id}: verifying workspace {workspace} against {remote} (branch {branch})");
    let run = RunContext { request, env };
    let mut warnings = Warnings::default();
    let mut differences = Vec::new();
    let ended = error::catch_panic(|| compare(run, &mut warnings)).map(|found| {
        let is_same = found.differences.is_empty() && found.left_out.is_empty();
        let code = if is_same { Code::Unchanged } else { Code::Differs };
        let message = found.message(workspace);
        differences = found.differences;
        Outcome { code, message, commit: found.tip, changed: found.changed, left_out: found.left_out }
    });
    SyncResult { differences: Some(differences), ..run.conclude(run_id, started, ended, warnings) }
}

/// The result of a comparison.
struct Found {
    /// The commit that was compared with.
    tip: Option<ObjectId>,
    /// ` of ` and when it was made, UTC; empty if it does not say.
    committed: String,
    /// How many files differ, and how.
    changed: Changed,
    /// The first of them.
    differences: Vec<Difference>,
    /// The items that cannot be backed up, and were not compared.
    left_out: Vec<LeftOut>,
}

impl Found {
    /// Counts a difference, and lists it if there is room.
    fn add(&mut self, mark: Mark, path: &[u8], diff: Vec<String>) {
        mark.count_in(&mut self.changed);
        if self.differences.len() < LISTED_MAX {
            let kind = match mark {
                Mark::Added => "missing_in_backup",
                Mark::Modified => "differs",
                Mark::Deleted => "only_in_backup",
            };
            self.differences.push(Difference { path: printable(path), kind, diff });
        }
    }

    fn message(&self, workspace: &WorkspaceId) -> String {
        let Changed { added, modified, deleted } = self.changed;
        let Some(tip) = &self.tip else {
            return format!("There is no backup of workspace '{workspace}': the branch does not exist");
        };
        let made = format!("commit {}{}", short(tip), self.committed);
        let compared = match self.differences.len() {
            0 if !self.left_out.is_empty() => {
                format!("The backup matches workspace '{workspace}' ({made}), except for what cannot be backed up")
            }
            0 => format!("The backup matches workspace '{workspace}': {made}"),
            _ => {
                let paths: Sample = self.differences.iter().map(|one| one.path.as_bytes()).collect();
                format!(
                    "Workspace '{workspace}' differs from its backup ({made}): {added} files are missing in the \
                     backup, {modified} differ, {deleted} are only in the backup: {paths}. What was changed since \
                     that commit differs until the next sync"
                )
            }
        };
        match self.left_out.is_empty() {
            true => compared,
            false => format!("{compared}. Not compared: {}", sync::in_words(&self.left_out)),
        }
    }
}

/// Returns the first digits of a commit id, for people.
pub fn short(commit: &ObjectId) -> &str {
    commit.as_str().get(..10).unwrap_or(commit.as_str())
}

/// Pulls the workspace, and compares it with the folder at the tip.
fn compare(run: RunContext<'_>, warnings: &mut Warnings) -> Result<Found, BackupError> {
    let run_env = run.enter()?;
    let folder = run_env.run_dir.path().join("checkout");
    files::create_folder(&folder)?;
    let git = run.git(&run_env, &folder)?;
    let tip = run.step(Step::Fetch, || retry::patiently(&run_env.deadline, || tip::refresh(run, &git)))?;
    guards::refuse_the_key(run.env.config)?;
    let (account, mut snapshot) =
        run.step(Step::Probe, || Ok((run.account(&run_env)?, run.snapshot(&run_env, &tip.plan.query)?)))?;
    for warning in &tip.plan.warnings {
        warnings.add(warning.clone());
    }
    run.warn_about_snapshot(&snapshot, warnings);
    run.warn_about_access(&account, warnings);
    run.warn_about_choice(&account, warnings);
    // What the last sync left out is left out here too.
    snapshot.leave_out_again(&last_sync::found(run))?;
    let committed = tip.commit.as_ref().map(|tip| git.commit_message(tip)).transpose()?;
    let committed = committed.and_then(|commit| commit.time);
    let committed = committed.map(|made| format!(" of {}", time::to_text(made))).unwrap_or_default();
    snapshot.judge_by(&tip.plan)?;
    run.step(Step::Pull, || pull::pull(run, &git, &tip.plan, None, &mut snapshot, &[]))?;
    let mut found = Found {
        tip: tip.commit.clone(),
        committed,
        changed: Changed::default(),
        differences: Vec::new(),
        left_out: snapshot.left_out_list(),
    };
    let only_in_backup = run.step(Step::Commit, || {
        let fresh = git.stage()?;
        Ok(compare_files(&git, &tip, &fresh, &mut found)?)
    })?;
    if !only_in_backup.is_empty() {
        for path in gone(run, &git, &tip, &mut snapshot)? {
            if only_in_backup.contains(&path) {
                found.add(Mark::Deleted, &path, Vec::new());
            }
        }
    }
    Ok(found)
}

/// Compares the pulled files by value. Returns the files that only the backup has.
fn compare_files(
    git: &Git<'_>,
    tip: &RemoteTip,
    fresh: &Listing,
    found: &mut Found,
) -> Result<BTreeSet<Vec<u8>>, GitError> {
    let mut only_in_backup = BTreeSet::new();
    for pair in join(tip.folder.entries()?, fresh.entries()?) {
        let (path, sides) = pair?;
        match sides {
            (Some(backup), Some(workspace)) => {
                let (name, entries) = (String::from_utf8_lossy(&path), (&backup, &workspace));
                let diff = value_diff::of_entries(git, &name, entries, value_diff::differences)?;
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

/// Returns the files that a sync would delete from the backup. wmill knows best which files are Windmill's and within
/// the patterns of `wmill.yaml`: it gets the files, and deletes what the workspace does not hold.
fn gone(
    run: RunContext<'_>,
    git: &Git<'_>,
    tip: &RemoteTip,
    snapshot: &mut Snapshot,
) -> Result<Vec<Vec<u8>>, BackupError> {
    let base = run.step(Step::Pull, || pull::pull(run, git, &tip.plan, tip.visible_tree.as_ref(), snapshot, &[]))?;
    let owns_ui = snapshot.has_shared_ui() == Some(true);
    let pulled = Pulled { base, changed: None, snapshot, owns_ui };
    let comparison = merge::compose(git, tip, &pulled, &mut Warnings::default())?;
    let mut gone = Vec::new();
    for change in comparison.changes().map_err(GitError::from)? {
        let change = change.map_err(GitError::from)?;
        if change.mark == Mark::Deleted {
            gone.push(change.path);
        }
    }
    Ok(gone)
}
