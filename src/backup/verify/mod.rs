//! The story of a verification: lock, fetch, probe, pull into nothing, compare by value. It changes nothing, not even
//! our own checkouts: all of it happens in the folder of the run.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::base::{self, Base};
use crate::by_value;
use crate::code::Code;
use crate::comparison::{Mark, Sample, printable};
use crate::composition::{self, Pulled};
use crate::fault::Fault;
use crate::git::{BlobContent, Git, GitError};
use crate::guards;
use crate::history::text_of;
use crate::listing::{Listing, join};
use crate::names::WorkspaceId;
use crate::object::{Entry, ObjectId};
use crate::outcome::{Changed, Difference, ListedResult, Warnings};
use crate::pull::{self, Footing};
use crate::scratch;
use crate::sync_request::SyncRequest;
use crate::task::{Service, Step, Task, Verdict};
use crate::windmill::Account;

/// Differences that are listed; the rest is counted.
const LISTED_MAX: usize = 500;
/// A larger file is told to differ without a word about how.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Compares the workspace with the remote's tip, and tells what differs.
#[must_use]
pub fn run(request: &SyncRequest, service: &Service<'_>, run_id: &str) -> ListedResult {
    let started = Instant::now();
    let (workspace, remote, branch) = (&request.workspace, &request.remote, &request.branch);
    log::info!("run {run_id}: verifying workspace {workspace} against {remote} (branch {branch})");
    let task = Task { request, service };
    let mut warnings = Warnings::default();
    let mut differences = Vec::new();
    let ended = compare(task, &mut warnings).map(|found| {
        let code = if found.differences.is_empty() { Code::Unchanged } else { Code::Differs };
        let message = found.message(workspace);
        differences = found.differences;
        Verdict { code, message, commit: found.tip, changed: found.changed }
    });
    let result = task.conclude(run_id, started, ended, warnings);
    ListedResult { result, differences, restore_point: None }
}

/// What a comparison came to.
pub struct Found {
    /// The commit that was compared with.
    pub tip: Option<ObjectId>,
    /// When it was made, UTC.
    pub committed: Option<String>,
    /// How many files differ, and how.
    pub changed: Changed,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl Found {
    /// One more.
    fn add(&mut self, mark: Mark, path: &[u8], diff: Vec<String>) {
        *match mark {
            Mark::Added => &mut self.changed.added,
            Mark::Modified => &mut self.changed.modified,
            Mark::Deleted => &mut self.changed.deleted,
        } += 1;
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
        let made = match (&self.tip, &self.committed) {
            (Some(tip), Some(time)) => format!("commit {} of {time}", short(tip)),
            (Some(tip), None) => format!("commit {}", short(tip)),
            (None, _) => return format!("There is no backup of workspace '{workspace}': the branch does not exist"),
        };
        match self.differences.len() {
            0 => format!("The backup is workspace '{workspace}': {made} has all that it holds"),
            _ => {
                let paths: Sample = self.differences.iter().map(|one| one.path.as_bytes()).collect();
                format!(
                    "Workspace '{workspace}' differs from its backup ({made}): {added} files are missing in the \
                     backup, {modified} differ, {deleted} are only in the backup: {paths}. What was changed since \
                     that commit differs rightly, until the next sync"
                )
            }
        }
    }
}

/// The first digits, by which a person tells commits apart.
#[must_use]
pub fn short(commit: &ObjectId) -> &str {
    commit.as_str().get(..10).unwrap_or(commit.as_str())
}

fn compare(task: Task<'_>, warnings: &mut Warnings) -> Result<Found, Fault> {
    let place = task.enter()?;
    let folder = place.scratch.path().join("checkout");
    scratch::create_folder(&folder).map_err(|error| task.disk(&error))?;
    let git = task.git(&place, &folder)?;
    let windmill = task.windmill(&place);
    let is_default = task.request.workspace_is_default;
    let base = task.step(Step::Fetch, || task.patiently(Step::Fetch, &place, || base::refresh(task, &git)))?;
    let ask = || windmill.account(is_default).map_err(|error| task.windmill_error(Step::Probe, error));
    let account = task.step(Step::Probe, || task.patiently(Step::Probe, &place, ask))?;
    for warning in &base.plan.warnings {
        warnings.add(warning.clone());
    }
    task.tell_about(&account, warnings);
    task.tell_about_default(&account, warnings);
    guards::refuse_the_key(task, &base.plan)?;
    against(task, &git, &base, &account, warnings)
}

/// Pulls the workspace, and compares it with what `base` holds.
///
/// # Errors
/// [`Fault`]: Windmill, git, or the disk.
pub fn against(
    task: Task<'_>,
    git: &Git<'_>,
    base: &Base,
    account: &Account,
    warnings: &mut Warnings,
) -> Result<Found, Fault> {
    let failed = |error: GitError| task.git_error(Step::Commit, error);
    let committed = base.tip.as_ref().map(|tip| git.commit_message(tip)).transpose().map_err(failed)?;
    let committed = committed.and_then(|commit| commit.time).map(text_of);
    let mut found = Found { tip: base.tip.clone(), committed, changed: Changed::default(), differences: Vec::new() };
    task.step(Step::Pull, || pull::pull_into_nothing(task, git, &base.plan.text))?;
    composition::check_shared_ui(task, git, account)?;
    composition::take_stock(task, git, warnings)?;
    let begun = Instant::now();
    task.begin(Step::Commit);
    let fresh = git.stage().map_err(failed)?.files;
    let only_in_backup = compare_files(git, base, &fresh, &mut found).map_err(failed)?;
    task.end(Step::Commit, begun);
    if !only_in_backup.is_empty() {
        for path in gone(task, git, base, account)? {
            if only_in_backup.contains(&path) {
                found.add(Mark::Deleted, &path, Vec::new());
            }
        }
    }
    Ok(found)
}

/// Compares what was pulled, by value; returns the files that only the backup has.
fn compare_files(
    git: &Git<'_>,
    base: &Base,
    fresh: &Listing,
    found: &mut Found,
) -> Result<BTreeSet<Vec<u8>>, GitError> {
    let mut only_in_backup = BTreeSet::new();
    for pair in join(base.folder.entries()?, fresh.entries()?) {
        let (path, sides) = pair?;
        match sides {
            (Some(backup), Some(workspace)) => {
                if backup.object == workspace.object && backup.is_file() {
                    continue;
                }
                let diff = diff(git, &path, &backup)?;
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

fn diff(git: &Git<'_>, path: &[u8], backup: &Entry) -> Result<Vec<String>, GitError> {
    if !backup.is_file() {
        return Ok(vec!["a link or a submodule in the backup".to_owned()]);
    }
    let name = String::from_utf8_lossy(path);
    let workspace = scratch::read_file(&git.tree_folder().join(&*name), FILE_BYTES_MAX as u64 + 1)?;
    match git.read_blob(&backup.object, FILE_BYTES_MAX)? {
        BlobContent::Whole(backup) if workspace.len() <= FILE_BYTES_MAX => {
            Ok(by_value::differences(&name, &backup, &workspace))
        }
        _ => Ok(vec!["too large to be shown".to_owned()]),
    }
}

/// What a sync would take out of the backup. Which of its files are Windmill's, and within the patterns of its
/// `wmill.yaml`, wmill knows best: it is shown them, and deletes what the workspace does not hold.
fn gone(task: Task<'_>, git: &Git<'_>, base: &Base, account: &Account) -> Result<Vec<Vec<u8>>, Fault> {
    let footing: Footing = {
        git.check_out(base.shown.as_ref()).map_err(|error| task.git_error(Step::Pull, error))?;
        task.step(Step::Pull, || pull::pull(task, git, base))?
    };
    let owns_ui = account.shared_ui.as_ref().is_some_and(|files| !files.is_empty());
    let pulled = Pulled { footing, account, owns_ui };
    let composed = composition::compose(task, git, base, &pulled, &mut Warnings::default())?;
    let failed = |error: std::io::Error| task.git_error(Step::Commit, GitError::from(error));
    let mut gone = Vec::new();
    for change in composed.comparison.changes().map_err(failed)? {
        let change = change.map_err(failed)?;
        if change.mark == Mark::Deleted {
            gone.push(change.path);
        }
    }
    Ok(gone)
}
