//! Merges what `wmill` wrote, as git staged it, with the files of the repository that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::backup::sync::pull::PullBase;
use crate::backup::sync::tip::{RemoteTip, is_shared_ui};
use crate::git::ls_tree::{GitPath, Listing, join, walk};
use crate::git::tree_diff::{Sample, TreeDiff, printable};
use crate::git::verify_index;
use crate::git::{Git, GitError};
use crate::model::{Warnings, WorkspaceId};
use crate::util::files;
use crate::windmill::item_path::{self, ItemId, ItemKind, SHARED_UI, WMILL_LOCK};
use crate::windmill::narrow::Changed;
use crate::windmill::snapshot::Snapshot;

/// What is known about a successful pull.
pub struct Pulled<'a> {
    /// What the folder held before the pull.
    pub base: PullBase,
    /// The groups of items that were pulled, if not all were.
    pub changed: Option<&'a Changed>,
    /// What was pulled, without the items that are left out.
    pub snapshot: &'a Snapshot,
    /// Whether the files of the shared UI in the repository belong to us.
    pub owns_ui: bool,
}

impl Pulled<'_> {
    /// Returns whether a file belongs to an item that was left out, so that the repository's file stays as it is.
    fn is_left_out(&self, path: &[u8], workspace: &WorkspaceId) -> bool {
        !self.snapshot.left_out.is_empty()
            && std::str::from_utf8(path).is_ok_and(|path| self.snapshot.leaves_out(&owner_of(path, workspace), path))
    }

    /// Returns whether a file belongs to what was pulled.
    fn has(&self, path: &[u8]) -> bool {
        self.changed.is_none_or(|changed| path == WMILL_LOCK.as_bytes() || changed.has(path))
    }
}

/// Returns the item of a file, also if wmill does not look at that file. For a workspace-specific item, the workspace's
/// name is removed from the path.
fn item_of(path: &str, workspace: &WorkspaceId) -> Option<ItemId> {
    let mut item = item_path::item_of(path).or_else(|| item_path::item_of_hidden_file(path))?;
    if let Some(path) = item.path.strip_suffix(&format!(".{workspace}")) {
        item.path = path.to_owned();
    }
    Some(item)
}

/// Returns what a file belongs to: an item, the shared UI, or else its entry in the export.
pub fn owner_of(path: &str, workspace: &WorkspaceId) -> ItemId {
    if is_shared_ui(path.as_bytes()) {
        return SHARED_UI;
    }
    let common = item_path::common_path(path, workspace.as_str());
    let path = common.as_deref().unwrap_or(path);
    item_of(path, workspace).unwrap_or_else(|| ItemId { kind: ItemKind::File, path: entry_of(path) })
}

/// Returns `f/ops/folder.meta.json` for `f/ops/folder.meta.yaml`.
fn entry_of(path: &str) -> String {
    path.strip_suffix(".yaml").map_or_else(|| path.to_owned(), |base| [base, ".json"].concat())
}

/// Stages the pulled files, checks that git staged exactly these, and compares the repository's folder before and after
/// the sync.
///
/// # Errors
/// [`GitError`].
pub fn compose(
    git: &Git<'_>,
    tip: &RemoteTip,
    pulled: &Pulled<'_>,
    warnings: &mut Warnings,
) -> Result<TreeDiff, GitError> {
    remove_superseded(git.tree_folder(), &pulled.snapshot.sides.own_items(), &tip.workspace)?;
    let staged = git.stage()?;
    if let Some(message) = verify_index::verify(git.tree_folder(), &staged, &tip.folder)? {
        return Err(GitError::Checkout(message));
    }
    let (comparison, replaced) = merge(git, tip, pulled, &staged)?;
    if !replaced.is_empty() {
        warnings.add(format!("the workspace's files replaced these of the repository: {replaced}"));
    }
    if let Some((path, _)) = &tip.path_conflict {
        warnings.add(format!(
            "`{}` in the repository is not a folder and was replaced by the folder of this backup; the history has it",
            printable(path)
        ));
    }
    Ok(comparison)
}

/// Removes the old files of items that became workspace-specific: wmill does not touch them, and writes new files
/// beside them, under another name.
fn remove_superseded(folder: &Path, own_items: &[(String, String)], workspace: &WorkspaceId) -> io::Result<()> {
    if own_items.is_empty() {
        return Ok(());
    }
    let own = |(kind, path): &(String, String)| {
        (format!("{path}.{workspace}.{kind}.yaml").into_bytes(), format!("{path}.{kind}.yaml"))
    };
    let own: BTreeMap<_, _> = own_items.iter().map(own).collect();
    for file in walk(folder)? {
        // Only the paths that the walk returns are certain to lie in the folder.
        let common = own.get(&file?.0).map(|common| folder.join(common));
        if let Some(common) = common.filter(|common| common.is_file()) {
            files::remove_file(&common)?;
        }
    }
    Ok(())
}

/// Merges the staged files with the repository's files that stay. Also returns the files that were replaced.
fn merge(git: &Git<'_>, tip: &RemoteTip, pulled: &Pulled<'_>, staged: &Listing) -> io::Result<(TreeDiff, Sample)> {
    let (kept, replaced) = kept_files(staged, tip, pulled)?;
    let merged = join(tip.folder.entries()?, staged.entries()?).filter_map(|file| {
        let of_both = file.map(|(path, (before, after))| {
            let is_kept = kept.contains(&path) || !pulled.has(&path);
            Some((path, if is_kept { before } else { after }?))
        });
        of_both.transpose()
    });
    let after = Listing::write(git.listing_place("merged.listing"), merged)?;
    Ok((TreeDiff::of(tip.folder.clone(), after)?, replaced))
}

/// Returns the repository's files that stay, and those that would have stayed, but were replaced.
fn kept_files(staged: &Listing, tip: &RemoteTip, pull: &Pulled<'_>) -> io::Result<(BTreeSet<GitPath>, Sample)> {
    // If wmill saw a file that is gone now, wmill deleted it.
    let is_on_repository = pull.base != PullBase::Empty;
    // With patterns, an item that was not pulled may lie outside of them, so only pulled items replace other files.
    let pulled = if !tip.plan.scope.is_all() && is_on_repository { Some(items_of(staged, tip)?) } else { None };
    let (mut kept, mut replaced) = (BTreeSet::new(), Vec::new());
    for pair in join(tip.folder.entries()?, staged.entries()?) {
        let (path, (Some(entry), after)) = pair? else { continue };
        if !pull.has(&path) {
            continue;
        }
        // A file that wmill did not see is removed if its name is one of Windmill's. A file that is there after the pull
        // is what Windmill holds, also in the folder of an item that was left out.
        let was_seen = is_on_repository && !tip.is_withheld(&path, &entry);
        let is_theirs = || if is_shared_ui(&path) { !pull.owns_ui } else { !is_windmills(&path, tip, pulled.as_ref()) };
        if after.is_none() && (pull.is_left_out(&path, &tip.workspace) || (!was_seen && is_theirs())) {
            kept.insert(path);
        } else if !entry.is_file() {
            replaced.push(path);
        }
    }
    // A file cannot stay if its path is a folder now, or if one of its parent folders is a file now.
    if !kept.is_empty() {
        for file in staged.entries()? {
            let (path, _) = file?;
            replaced.extend(parents(&path).filter_map(|folder| kept.take(folder)));
            // In the order of bytes, `0` follows `/`.
            let below = [&path[..], b"/"].concat()..[&path[..], b"0"].concat();
            replaced.extend(kept.extract_if(below, |_| true));
        }
        replaced.sort_unstable();
    }
    let replaced = replaced.iter().collect();
    Ok((kept, replaced))
}

/// Returns the parent folders of a path.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| &path[..index])
}

/// Returns whether a path that wmill did not see is one of Windmill's. If patterns narrow the pull, the path has to
/// belong to an item in `pulled`.
fn is_windmills(path: &[u8], tip: &RemoteTip, pulled: Option<&BTreeSet<ItemId>>) -> bool {
    let Ok(path) = std::str::from_utf8(path) else { return false };
    let name = path.rsplit('/').next().unwrap_or(path);
    path == WMILL_LOCK
        || (name == "folder.meta.yaml" && pulled.is_none())
        || item_of(path, &tip.workspace).is_some_and(|item| {
            item_path::covers(&item, &tip.plan.kinds) && pulled.is_none_or(|pulled| pulled.contains(&item))
        })
}

/// Returns the items that were pulled, or of which wmill deleted a file. They are within the patterns.
fn items_of(staged: &Listing, tip: &RemoteTip) -> io::Result<BTreeSet<ItemId>> {
    let mut found = BTreeSet::new();
    for file in join(tip.folder.entries()?, staged.entries()?) {
        let (path, (before, after)) = file?;
        let is_touched = after.is_some() || before.is_some_and(|entry| !tip.is_withheld(&path, &entry));
        if is_touched && let Ok(path) = std::str::from_utf8(&path) {
            found.extend(item_of(path, &tip.workspace));
        }
    }
    Ok(found)
}
