//! `wmill sync pull` from a snapshot: the whole workspace into the repository's files or into an empty folder, or only
//! the items that changed.

mod marked;
mod search;

use std::fs;
use std::io;

use crate::backup::error::BackupError;
use crate::backup::run_context::RunContext;
use crate::backup::sync::pull::marked::MarkedFiles;
use crate::backup::sync::tip::RemoteTip;
use crate::git::ls_tree::{EntryCheck, GitPath, join, walk};
use crate::git::object::ObjectId;
use crate::git::tree_diff::printable;
use crate::git::{Git, GitError};
use crate::util::{Retry, files, retry};
use crate::windmill::api::WindmillError;
use crate::windmill::cli;
use crate::windmill::item_path::WMILL_LOCK;
use crate::windmill::narrow::{self, Changed};
use crate::windmill::snapshot::{Answer, Archive, FoundItem, SideAnswers, Snapshot, WrittenFiles};
use crate::windmill::snapshot_server::{Answers, SnapshotServer};
use crate::windmill::wmill_yaml::{Plan, WMILL_YAML};

/// With a larger `wmill-lock.yaml`, each pull is a full one. The file has 1 MB for 10,000 scripts.
const LOCK_BYTES_MAX: u64 = 32 << 20;

/// What the folder held before the pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullBase {
    /// The repository's regular files, or those of the items that changed, so that wmill changes only what changed.
    Repository,
    /// Nothing, since wmill could not work with the repository's files.
    Empty,
}

/// A pull of the whole workspace.
struct WholePull<'a> {
    run: RunContext<'a>,
    git: &'a Git<'a>,
    plan: &'a Plan,
    /// The tree that the folder holds before the pull.
    visible: Option<&'a ObjectId>,
    /// Items that earlier syncs found to be bad. They do not count towards the limit of bad items.
    suspects: &'a [FoundItem],
}

/// Pulls into a folder that holds `visible`, or into an empty one if these files stop wmill. Searches for items that
/// wmill cannot write, first among `suspects`, and leaves them out of the snapshot. Items that wmill did not write are
/// left out too. Then the pull is repeated without them, since wmill may have written some of their files.
///
/// # Errors
/// [`BackupError`] if wmill, git or the disk fails.
pub fn pull(
    run: RunContext<'_>,
    git: &Git<'_>,
    plan: &Plan,
    visible: Option<&ObjectId>,
    snapshot: &mut Snapshot,
    suspects: &[FoundItem],
) -> Result<PullBase, BackupError> {
    let whole = WholePull { run, git, plan, visible, suspects };
    let base = whole.pull(snapshot)?;
    let written = written_files(run, git)?;
    let lacks_items = snapshot.leave_out_missing(&written, plan)?;
    if lacks_items { whole.pull(snapshot) } else { Ok(base) }
}

fn written_files(run: RunContext<'_>, git: &Git<'_>) -> io::Result<WrittenFiles> {
    let mut written = WrittenFiles::default();
    for file in walk(git.tree_folder())? {
        let (path, _) = file?;
        if let Ok(path) = std::str::from_utf8(&path) {
            written.add(path, run.request.workspace.as_str());
        }
    }
    Ok(written)
}

impl WholePull<'_> {
    /// Pulls what the snapshot has, without a search for bad items.
    fn attempt(&self, snapshot: &Snapshot) -> Result<PullBase, BackupError> {
        let archive = snapshot.whole()?;
        match self.pull_archive(snapshot, &archive, self.visible, &self.plan.text) {
            Ok(()) => Ok(PullBase::Repository),
            Err(error) if error.retry == Retry::EmptyFolder && self.visible.is_some() => {
                log::warn!("pulling again, into an empty folder: {}", error.message);
                // Without patterns: an item that a pattern leaves out would look as if Windmill did not hold it.
                let configuration = &self.plan.text_without_patterns;
                self.pull_archive(snapshot, &archive, None, configuration).map(|()| PullBase::Empty)
            }
            Err(error) => Err(error),
        }
    }

    /// Pulls into a folder that holds `visible`. Each attempt begins with `visible` and nothing else.
    fn pull_archive(
        &self,
        snapshot: &Snapshot,
        archive: &Archive,
        visible: Option<&ObjectId>,
        configuration: &str,
    ) -> Result<(), BackupError> {
        let Self { run, git, .. } = self;
        retry::patiently(&git.run_env().deadline, || {
            git.check_out(visible)?;
            Ok(pull_once(*run, git, snapshot, archive.clone(), snapshot.sides.shared_ui.clone(), configuration)?)
        })
    }
}

fn pull_once(
    run: RunContext<'_>,
    git: &Git<'_>,
    snapshot: &Snapshot,
    archive: Archive,
    shared_ui: Answer,
    configuration: &str,
) -> Result<(), WindmillError> {
    let own = git.tree_folder().join(WMILL_YAML);
    files::write_file(&own, configuration.as_bytes())?;
    let marked = MarkedFiles::take(git.tree_folder())?;
    let format = git.format();
    let server = SnapshotServer::start(Answers {
        workspace: run.request.workspace.clone(),
        archive,
        query: snapshot.query.clone(),
        sides: SideAnswers { shared_ui, ..snapshot.sides.clone() },
    });
    let pulled = cli::pull(&run.request.workspace, server?, git.run_env(), git.tree_folder());
    git.configure(format).map_err(|_| io::Error::other("cannot write the checkout's settings"))?;
    files::remove_file(&own)?;
    marked.give_back()?;
    pulled
}

/// Pulls the items that changed, into a folder with their files and what they need. If it is not certain that a full
/// pull would have had the same result, returns the reason.
///
/// # Errors
/// [`BackupError`] if git or the disk fails, or the time runs out.
pub fn pull_narrowed(
    run: RunContext<'_>,
    git: &Git<'_>,
    tip: &RemoteTip,
    snapshot: &Snapshot,
    changed: &Changed,
) -> Result<Option<String>, BackupError> {
    let place = git.listing_place("narrowed.listing");
    let is_shown = |path: &[u8], entry: &_| changed.is_shown(path) && !tip.is_withheld(path, entry);
    let (visible, _) = tip.folder.sifted(place, is_shown)?;
    let tree = git.compose(&visible)?;
    files::open_folder(git.tree_folder());
    git.check_out(Some(&tree))?;
    let before = read_lock(git);
    // On a file system that ignores case, wmill compares the names of the whole workspace.
    if fs::symlink_metadata(git.tree_folder().join(WMILL_LOCK.to_uppercase())).is_ok() {
        return Ok(Some("the file system is not case-sensitive".to_owned()));
    }
    let archive = snapshot.part(|name| changed.has(name))?;
    // Without this endpoint, wmill does not touch the files of the shared UI.
    match pull_once(run, git, snapshot, archive, None, &tip.plan.text) {
        Ok(()) => {}
        Err(error) if error.is_end_of_run() => return Err(error.into()),
        Err(error) => return Ok(Some(error.message)),
    }
    let (Some(before), Some(after)) = (before, read_lock(git)) else {
        return Ok(Some("wmill-lock.yaml cannot be read".to_owned()));
    };
    if let Err(why) = narrow::check_lock(&before, &after, changed) {
        return Ok(Some(why.to_owned()));
    }
    let unexpected = unexpected_change(git, tip, changed)?;
    Ok(unexpected.map(|path| format!("`{}` does not belong to an item that changed", printable(&path))))
}

fn read_lock(git: &Git<'_>) -> Option<String> {
    let text = files::read_file(&git.tree_folder().join(WMILL_LOCK), LOCK_BYTES_MAX + 1).ok()?;
    String::from_utf8(text).ok().filter(|text| text.len() as u64 <= LOCK_BYTES_MAX)
}

/// Stages the pulled files. Returns a file that a narrowed pull should not have affected: a file of no changed item
/// that was added, changed or deleted, or a file of the repository that cannot stay beside the pulled files.
fn unexpected_change(git: &Git<'_>, tip: &RemoteTip, changed: &Changed) -> Result<Option<GitPath>, GitError> {
    let mut check = EntryCheck::default();
    for file in join(tip.folder.entries()?, git.stage()?.entries()?) {
        let (path, (before, after)) = file?;
        let kept = if path == WMILL_LOCK.as_bytes() || changed.has(&path) {
            after
        } else {
            let visible = before.as_ref().filter(|entry| changed.is_shown(&path) && !tip.is_withheld(&path, entry));
            if visible.map(|entry| &entry.object) != after.as_ref().map(|entry| &entry.object) {
                return Ok(Some(path));
            }
            before
        };
        if kept.is_some_and(|entry| !check.admits(&path, &entry)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
