//! Merges what `wmill` wrote, as git staged it, with the files of the repository that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::backup::RemoteTip;
use crate::backup::sync::tip::is_shared_ui;
use crate::git::{Git, GitPath, Listing, TreeDiff, join};
use crate::model::{Result, Warnings, WorkspaceId};
use crate::util::{Sample, printable};
use crate::windmill::{ChangedGroups, ItemId, ItemKind, SHARED_UI, Snapshot, WMILL_LOCK, item_path};

/// What is known about a successful pull.
pub struct Pulled<'a> {
    /// Whether the folder held the repository's files before the pull.
    pub held_visible: bool,
    /// The groups of items that were pulled, if not all were.
    pub changed: Option<&'a ChangedGroups>,
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

/// Returns what a file belongs to, also if wmill does not look at that file: an item, the shared UI, or else its entry
/// in the export, such as `f/ops/folder.meta.json` for `f/ops/folder.meta.yaml`. For a workspace-specific item, the
/// workspace's name is removed from the path.
pub fn owner_of(path: &str, workspace: &WorkspaceId) -> ItemId {
    if is_shared_ui(path.as_bytes()) {
        return SHARED_UI;
    }
    let common = item_path::common_path(path, workspace.as_str());
    let path = common.as_deref().unwrap_or(path);
    match item_path::item_of(path).or_else(|| item_path::item_of_hidden_file(path)) {
        Some(ItemId { kind, path }) => {
            let common = path.strip_suffix(&format!(".{workspace}")).map(str::to_owned);
            ItemId { kind, path: common.unwrap_or(path) }
        }
        None => ItemId {
            kind: ItemKind::File,
            path: path.strip_suffix(".yaml").map_or_else(|| path.to_owned(), |base| [base, ".json"].concat()),
        },
    }
}

/// Stages the pulled files, checks that git staged exactly these, merges them with the repository's files that stay,
/// and compares the repository's folder before and after the sync.
///
/// # Errors
/// `BackupError`.
pub fn compose(git: &Git<'_>, tip: &RemoteTip, pulled: &Pulled<'_>, warnings: &mut Warnings) -> Result<TreeDiff> {
    let staged = git.stage_verified(&tip.folder)?;
    // wmill does not touch the old files of items that became workspace-specific, and writes new files beside them,
    // under another name.
    let own_items = pulled.snapshot.sides.own_items().into_iter().map(|(kind, path)| {
        let own = format!("{path}.{}.{kind}.yaml", tip.workspace);
        (own.into_bytes(), format!("{path}.{kind}.yaml").into_bytes())
    });
    let common: BTreeMap<GitPath, GitPath> = own_items.collect();
    let superseded = staged.entries()?.filter_map(|file| file.map(|(path, _)| common.get(&path)).transpose());
    let superseded: BTreeSet<_> = superseded.collect::<io::Result<_>>()?;
    let (staged, _) =
        staged.sifted(git.listing_place("pulled.listing"), |path, _| !superseded.contains(&path.to_vec()))?;
    let (kept, replaced) = kept_files(&staged, tip, pulled)?;
    if !replaced.is_empty() {
        warnings.add(format!("the workspace's files replaced these of the repository: {replaced}"));
    }
    if !tip.invalid_entries.is_empty() {
        warnings.add(format!(
            "the repository's folder has entries that git cannot check out, and the commit leaves them out: {}",
            tip.invalid_entries
        ));
    }
    if let Some(path) = &tip.path_conflict {
        warnings.add(format!(
            "`{}` in the repository is not a folder and was replaced by the folder of this backup; the history has it",
            printable(path)
        ));
    }
    let merged = join(tip.folder.entries()?, staged.entries()?).filter_map(|file| {
        let of_both = file.map(|(path, (before, after))| {
            let is_kept = kept.contains(&path) || !pulled.has(&path);
            Some((path, if is_kept { before } else { after }?))
        });
        of_both.transpose()
    });
    let after = Listing::write(git.listing_place("merged.listing"), merged)?;
    Ok(TreeDiff::of(tip.folder.clone(), after)?)
}

/// Returns the repository's files that stay, and those that would have stayed, but were replaced.
fn kept_files(staged: &Listing, tip: &RemoteTip, pull: &Pulled<'_>) -> io::Result<(BTreeSet<GitPath>, Sample)> {
    // With patterns, an item that was not pulled may lie outside of them, so only pulled items replace other files.
    let pulled = if !tip.plan.scope.is_all() && pull.held_visible { Some(items_of(staged, tip)?) } else { None };
    let (mut kept, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    for pair in join(tip.folder.entries()?, staged.entries()?) {
        let (path, (Some(entry), after)) = pair? else { continue };
        if !pull.has(&path) {
            continue;
        }
        // If wmill saw a file that is gone now, wmill deleted it. A file that wmill did not see is removed if its name
        // is one of Windmill's. A file that is there after the pull is what Windmill holds, also in the folder of an
        // item that was left out.
        let was_seen = pull.held_visible && !tip.is_withheld(&path, &entry);
        let is_theirs = || if is_shared_ui(&path) { !pull.owns_ui } else { !is_windmills(&path, tip, pulled.as_ref()) };
        if after.is_none() && (pull.is_left_out(&path, &tip.workspace) || (!was_seen && is_theirs())) {
            kept.insert(path);
        } else if !entry.is_file() {
            replaced.insert(path);
        }
    }
    // A file cannot stay if its path is a folder now, or if one of its parent folders is a file now.
    if !kept.is_empty() {
        for file in staged.entries()? {
            let (path, _) = file?;
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            replaced.extend(slashes.filter_map(|(slash, _)| kept.take(&path[..slash])));
            // In the order of bytes, `0` follows `/`.
            let below = [&path[..], b"/"].concat()..[&path[..], b"0"].concat();
            replaced.extend(kept.extract_if(below, |_| true));
        }
    }
    Ok((kept, replaced.iter().collect()))
}

/// Returns whether a path that wmill did not see is one of Windmill's. If patterns narrow the pull, the path has to
/// belong to an item in `pulled`.
fn is_windmills(path: &[u8], tip: &RemoteTip, pulled: Option<&BTreeSet<ItemId>>) -> bool {
    let Ok(path) = std::str::from_utf8(path) else { return false };
    let owner = owner_of(path, &tip.workspace);
    path == WMILL_LOCK
        || (path.rsplit('/').next() == Some("folder.meta.yaml") && pulled.is_none())
        || (owner.kind != ItemKind::File
            && item_path::covers(&owner, &tip.plan.kinds)
            && pulled.is_none_or(|pulled| pulled.contains(&owner)))
}

/// Returns the items that were pulled, or of which wmill deleted a file. They are within the patterns.
fn items_of(staged: &Listing, tip: &RemoteTip) -> io::Result<BTreeSet<ItemId>> {
    let mut found = BTreeSet::new();
    for file in join(tip.folder.entries()?, staged.entries()?) {
        let (path, (before, after)) = file?;
        let is_touched = after.is_some() || before.is_some_and(|entry| !tip.is_withheld(&path, &entry));
        if is_touched && let Ok(path) = std::str::from_utf8(&path) {
            found.insert(owner_of(path, &tip.workspace));
        }
    }
    Ok(found)
}
