//! Merges what `wmill` wrote, as git staged it, with the files of the repository that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crate::backup::error::BackupError;
use crate::backup::progress::Step;
use crate::backup::run_context::RunContext;
use crate::backup::sync::pull::PullBase;
use crate::backup::sync::tip::{RemoteTip, is_shared_ui, item_behind_dots};
use crate::git::ls_tree::{GitPath, Listing, Stream, join};
use crate::git::object::{Entry, ObjectId};
use crate::git::tree_diff::{Change, Mark, Sample, TreeDiff, printable};
use crate::git::verify_index::PulledFiles;
use crate::git::{Git, GitError, Staged};
use crate::model::names::WorkspaceId;
use crate::model::result_code::Code;
use crate::model::run_result::Warnings;
use crate::util::retry::Retry;
use crate::windmill::item_path::{self, ItemId, WMILL_LOCK};
use crate::windmill::narrow::Changed;
use crate::windmill::snapshot::{LeftOutItems, SHARED_UI};

/// What is known about a successful pull.
pub struct Pulled<'a> {
    /// What the folder held before the pull.
    pub base: PullBase,
    /// The groups of items that were pulled, if not all were.
    pub changed: Option<&'a Changed>,
    /// Kind and path of the workspace-specific items. wmill writes them under another name than shared items.
    pub own_items: &'a [(String, String)],
    /// Whether the files of the shared UI in the repository belong to us.
    pub owns_ui: bool,
    /// The items that were left out of the pull, with the reason.
    pub left_out: &'a LeftOutItems,
}

impl Pulled<'_> {
    /// Returns whether a file belongs to an item that was left out, so that the repository's file stays as it is.
    fn is_left_out(&self, path: &[u8], workspace: &WorkspaceId) -> bool {
        let path = std::str::from_utf8(path).ok().filter(|_| !self.left_out.is_empty());
        path.is_some_and(|path| {
            let item = item_of(path).map(|item| of_any_workspace(item, workspace).to_string());
            // A file that belongs to no item has the name of its entry in the export.
            self.left_out.has(&item.unwrap_or_else(|| entry_of(path)), path)
        })
    }

    /// Returns whether a file belongs to an item that was left out since it lies in the folder of another script's
    /// modules.
    fn is_left_out_of_modules(&self, path: &[u8]) -> bool {
        let path = std::str::from_utf8(path).ok().filter(|_| !self.left_out.is_empty());
        path.is_some_and(|path| self.left_out.has_in_modules(path))
    }
}

/// Returns the item of a file, also if wmill does not look at that file.
fn item_of(path: &str) -> Option<ItemId> {
    item_path::item_of(path).or_else(|| item_behind_dots(path))
}

/// Returns the item of a file. For a workspace-specific item, the workspace's name is removed from the path.
#[must_use]
pub fn item_in_any_workspace(path: &str, workspace: &WorkspaceId) -> Option<ItemId> {
    item_of(path).map(|item| of_any_workspace(item, workspace))
}

/// Returns the name of what a file belongs to: an item, the shared UI, or an entry of the export.
#[must_use]
pub fn name_of_owner(path: &str, workspace: &WorkspaceId) -> String {
    if is_shared_ui(path.as_bytes()) {
        return SHARED_UI.to_owned();
    }
    let common = item_path::common_path(path, workspace.as_str());
    let path = common.as_deref().unwrap_or(path);
    item_in_any_workspace(path, workspace).map_or_else(|| entry_of(path), |item| item.to_string())
}

/// Returns `f/ops/folder.meta.json` for `f/ops/folder.meta.yaml`.
fn entry_of(path: &str) -> String {
    path.strip_suffix(".yaml").map_or_else(|| path.to_owned(), |base| [base, ".json"].concat())
}

/// The folder in the repository, and what will take its place.
pub struct Merged {
    /// The differences between both.
    pub comparison: TreeDiff,
    sides: MergeInputs,
    /// The tree of the pulled files.
    staged: ObjectId,
}

impl Merged {
    /// Returns each file with its old and its new entry.
    ///
    /// # Errors
    /// The error of the disk.
    pub fn pairs(&self) -> io::Result<Stream<(Option<Entry>, Option<Entry>)>> {
        self.sides.pairs()
    }

    /// Returns the tree to commit. A composed tree is read again and compared with the wanted files.
    ///
    /// # Errors
    /// [`BackupError`] if git or the disk fails.
    pub fn tree(&self, run: RunContext<'_>, git: &Git<'_>, tip: &RemoteTip) -> Result<Tree, BackupError> {
        let failed = |error| run.git_error(Step::Commit, error);
        // If nothing is dropped and no other file stays, the staged tree is the folder.
        let folder = if self.sides.has_all_files() { self.staged.clone() } else { self.composed(run, git, tip)? };
        let whole = git.with_folder(tip.commit.as_ref(), run.request.subdir.as_str(), &folder).map_err(failed)?;
        Ok(Tree { whole, folder: Some(folder).filter(|folder| !folder.is_empty_tree()) })
    }

    /// Composes the tree of our folder, then reads it again and compares it with the wanted files.
    fn composed(&self, run: RunContext<'_>, git: &Git<'_>, tip: &RemoteTip) -> Result<ObjectId, BackupError> {
        let failed = |error| run.git_error(Step::Commit, error);
        let changes = self.listing(git).map_err(|error| failed(error.into()))?;
        let folder = git.compose(tip.folder_tree.as_ref(), &changes).map_err(failed)?;
        let there = git.list(&folder, "commit.listing").map_err(failed)?;
        if self.sides.is_what_is_in(&there).map_err(|error| failed(error.into()))? {
            return Ok(folder);
        }
        let message = "git did not put into the commit what was pulled; nothing was pushed".to_owned();
        Err(BackupError { code: Code::GitFailed, message, retry: Retry::NewCheckout })
    }

    /// Writes the changes for git, deletions first: a file may become a folder, or a folder a file.
    fn listing(&self, git: &Git<'_>) -> io::Result<Listing> {
        Listing::write(git.listing_place("changes.index"), |lines| {
            for is_going in [true, false] {
                for change in self.comparison.changes()? {
                    let Change { mark, path, entry } = change?;
                    match (mark == Mark::Deleted, is_going) {
                        (true, true) => lines.nothing(&path, entry.object.as_str().len())?,
                        (false, false) => lines.put(&path, &entry, 0)?,
                        _ => {}
                    }
                }
            }
            Ok(())
        })
    }
}

/// The tree to commit, as git wrote it.
pub struct Tree {
    /// The tree of the whole repository.
    pub whole: ObjectId,
    /// The tree of our folder; `None` if the folder is empty.
    pub folder: Option<ObjectId>,
}

struct MergeInputs {
    before: Listing,
    staged: Listing,
    /// Files that wmill wrote and that are not committed.
    dropped: Arc<BTreeSet<GitPath>>,
    /// Files of the repository that stay although wmill did not see them.
    kept: Arc<BTreeSet<GitPath>>,
    /// The groups of items that were pulled, if not all were. All other files stay.
    changed: Option<Arc<Changed>>,
}

impl MergeInputs {
    /// Returns whether the staged files are exactly the files to commit.
    fn has_all_files(&self) -> bool {
        self.dropped.is_empty() && self.kept.is_empty() && self.changed.is_none()
    }

    /// Returns whether a file belongs to what was pulled.
    fn is_pulled(&self, path: &[u8]) -> bool {
        is_pulled(self.changed.as_deref(), path)
    }

    fn after(&self) -> io::Result<Stream<Entry>> {
        let (staged, dropped) = (self.staged.entries()?, Arc::clone(&self.dropped));
        if dropped.is_empty() {
            return Ok(staged);
        }
        Ok(Box::new(staged.filter(move |file| file.as_ref().map_or(true, |(path, _)| !dropped.contains(path)))))
    }

    /// Returns whether `there` holds exactly the wanted files.
    fn is_what_is_in(&self, there: &Listing) -> io::Result<bool> {
        let wanted = self.pairs()?.filter_map(|file| match file {
            Ok((path, (_, entry))) => entry.map(|entry| Ok((path, entry))),
            Err(error) => Some(Err(error)),
        });
        for file in join(Box::new(wanted), there.entries()?) {
            let (_, (wanted, there)) = file?;
            if wanted != there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pairs(&self) -> io::Result<Stream<(Option<Entry>, Option<Entry>)>> {
        let (kept, changed) = (Arc::clone(&self.kept), self.changed.clone());
        Ok(Box::new(join(self.before.entries()?, self.after()?).map(move |pair| {
            let (path, (before, after)) = pair?;
            let stays = kept.contains(&path) || !is_pulled(changed.as_deref(), &path);
            let after = if stays { before.clone() } else { after };
            Ok((path, (before, after)))
        })))
    }
}

fn is_pulled(changed: Option<&Changed>, path: &[u8]) -> bool {
    changed.is_none_or(|changed| path == WMILL_LOCK.as_bytes() || changed.has_bytes(path))
}

/// Stages the pulled files, checks that git staged exactly these, and compares them with what the repository held.
///
/// # Errors
/// [`BackupError`] if git or the disk fails.
pub fn compose(
    run: RunContext<'_>,
    git: &Git<'_>,
    tip: &RemoteTip,
    pulled: &Pulled<'_>,
    warnings: &mut Warnings,
) -> Result<Merged, BackupError> {
    let failed = |error: io::Error| run.git_error(Step::Commit, GitError::from(error));
    let stock = scan_pulled_files(run, git, warnings)?;
    let Staged { tree, files: staged } = stage(run, git, tip, &stock)?;
    let dropped = superseded(&staged, pulled.own_items, &tip.workspace).map_err(failed)?;
    let mut sides = MergeInputs {
        before: tip.folder.clone(),
        staged,
        dropped: Arc::new(dropped),
        kept: Arc::default(),
        changed: pulled.changed.cloned().map(Arc::new),
    };
    let replaced = keep(&mut sides, tip, pulled).map_err(failed)?;
    if !replaced.is_empty() {
        warnings.add(format!("the workspace's files replaced these of the repository: {replaced}"));
    }
    if let Some((path, _)) = &tip.path_conflict {
        warnings.add(format!(
            "`{}` in the repository is not a folder and was replaced by the folder of this backup; the history has it",
            printable(path)
        ));
    }
    let comparison = sides.pairs().and_then(|pairs| TreeDiff::of(git.listing_place("changes.listing"), pairs));
    Ok(Merged { comparison: comparison.map_err(failed)?, sides, staged: tree })
}

/// Returns the old files of items that became workspace-specific: wmill does not touch them, and writes new files
/// beside them.
fn superseded(
    staged: &Listing,
    own_items: &[(String, String)],
    workspace: &WorkspaceId,
) -> io::Result<BTreeSet<GitPath>> {
    let mut superseded = BTreeSet::new();
    if own_items.is_empty() {
        return Ok(superseded);
    }
    let own = |(kind, path): &(String, String)| {
        (format!("{path}.{workspace}.{kind}.yaml").into_bytes(), format!("{path}.{kind}.yaml").into_bytes())
    };
    let own: BTreeMap<_, _> = own_items.iter().map(own).collect();
    for file in staged.entries()? {
        if let Some(common) = own.get(&file?.0) {
            superseded.insert(common.clone());
        }
    }
    Ok(superseded)
}

/// Finds out which of the repository's files stay. Returns those that would have stayed, but were replaced.
fn keep(sides: &mut MergeInputs, tip: &RemoteTip, pull: &Pulled<'_>) -> io::Result<Sample> {
    // If wmill saw a file that is gone now, wmill deleted it.
    let is_on_repository = pull.base != PullBase::Empty;
    if is_on_repository && tip.is_all_visible && pull.left_out.is_empty() {
        return Ok(Sample::default());
    }
    // With patterns, what was not pulled may lie outside of them. So only pulled items replace other files.
    let pulled = if !tip.plan.scope.is_all() && is_on_repository { Some(items_of(sides, tip)?) } else { None };
    let (mut kept, mut replaced) = (BTreeSet::new(), Vec::new());
    for pair in join(sides.before.entries()?, sides.after()?) {
        let (path, (Some(entry), after)) = pair? else { continue };
        if !sides.is_pulled(&path) {
            continue;
        }
        // A file that wmill did not see is removed if its name is one of Windmill's.
        let was_seen = is_on_repository && !tip.is_withheld(&path, &entry);
        let is_theirs = if is_shared_ui(&path) { !pull.owns_ui } else { !is_windmills(&path, tip, pulled.as_ref()) };
        // A file in the folder of a script's modules may be one of these modules now.
        let stays = pull.is_left_out(&path, &tip.workspace) || (after.is_none() && pull.is_left_out_of_modules(&path));
        if stays || (!was_seen && is_theirs && after.is_none()) {
            kept.insert(path);
        } else if !entry.is_file() {
            replaced.push(path);
        }
    }
    // A file cannot stay where there is a folder now, nor below a path that is a file now.
    if !kept.is_empty() {
        let folders_of_kept: BTreeSet<_> = kept.iter().flat_map(|path| parents(path)).map(<[u8]>::to_vec).collect();
        let (mut folders, mut files) = (BTreeSet::new(), BTreeSet::new());
        for file in sides.after()? {
            let (path, _) = file?;
            folders.extend(parents(&path).filter(|folder| kept.contains(*folder)).map(<[u8]>::to_vec));
            if folders_of_kept.contains(&path) {
                files.insert(path);
            }
        }
        let gives_way = |path: &GitPath| folders.contains(path) || parents(path).any(|parent| files.contains(parent));
        replaced.extend(kept.extract_if(.., gives_way));
        replaced.sort_unstable();
    }
    sides.kept = Arc::new(kept);
    Ok(replaced.iter().collect())
}

/// Returns the parent folders of a path.
pub fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| &path[..index])
}

/// Lists the pulled files. Removes what git cannot hold, and warns about it.
///
/// # Errors
/// [`BackupError`] if the disk fails.
pub fn scan_pulled_files(
    run: RunContext<'_>,
    git: &Git<'_>,
    warnings: &mut Warnings,
) -> Result<PulledFiles, BackupError> {
    let stock =
        PulledFiles::take(git.tree_folder(), git.listing_place("stock.listing")).map_err(|error| run.disk(&error))?;
    if !stock.removed.is_empty() {
        warnings.add(format!("git holds no file named `.git`, so the backup is without: {}", stock.removed));
    }
    Ok(stock)
}

fn stage(run: RunContext<'_>, git: &Git<'_>, tip: &RemoteTip, stock: &PulledFiles) -> Result<Staged, BackupError> {
    let staged = git.stage().map_err(|error| run.git_error(Step::Commit, error))?;
    match stock.verify(&staged.files, &tip.folder).map_err(|error| run.disk(&error))? {
        None => Ok(staged),
        Some(message) => Err(BackupError { code: Code::GitFailed, message, retry: Retry::NewCheckout }),
    }
}

/// Returns whether a path that wmill did not see is one of Windmill's. If patterns narrow the pull, the path has to
/// belong to an item in `pulled`.
fn is_windmills(path: &[u8], tip: &RemoteTip, pulled: Option<&BTreeSet<ItemId>>) -> bool {
    let Ok(path) = std::str::from_utf8(path) else { return false };
    let name = path.rsplit('/').next().unwrap_or(path);
    path == WMILL_LOCK
        || (name == "folder.meta.yaml" && pulled.is_none())
        || item_of(path).is_some_and(|item| {
            item_path::covers(&item, &tip.plan.kinds)
                && pulled.is_none_or(|pulled| pulled.contains(&of_any_workspace(item, &tip.workspace)))
        })
}

/// Returns the items that were pulled, or that lost a file to wmill: these are within the patterns.
fn items_of(sides: &MergeInputs, tip: &RemoteTip) -> io::Result<BTreeSet<ItemId>> {
    let mut found = BTreeSet::new();
    for file in join(sides.before.entries()?, sides.after()?) {
        let (path, (before, after)) = file?;
        let is_touched = after.is_some() || before.is_some_and(|entry| !tip.is_withheld(&path, &entry));
        if !is_touched {
            continue;
        }
        let item = std::str::from_utf8(&path).ok().and_then(item_of);
        found.extend(item.map(|item| of_any_workspace(item, &tip.workspace)));
    }
    Ok(found)
}

/// Removes the workspace's name from the path of a workspace-specific item.
fn of_any_workspace(mut item: ItemId, workspace: &WorkspaceId) -> ItemId {
    if let Some(path) = item.path.strip_suffix(&format!(".{workspace}")) {
        item.path = path.to_owned();
    }
    item
}
