//! What the folder is to hold after a pull: what wmill wrote, as git staged it, and what of the repository stays.

use std::collections::BTreeSet;
use std::fs;

use crate::base::{self, Base, is_shared_ui};
use crate::code::Code;
use crate::comparison::{Comparison, listed, printable};
use crate::fault::{Fault, Remedy};
use crate::git::{self, Git, Tree};
use crate::items::{self, ItemId};
use crate::names::WorkspaceId;
use crate::outcome::{LISTED_IN_WARNING_MAX, Warnings};
use crate::pull::Footing;
use crate::scratch;
use crate::staging::{self, StagingError};
use crate::task::{Step, Task};
use crate::windmill::Account;

const WMILL_LOCK: &str = "wmill-lock.yaml";

/// Stages what was pulled, checks that it is what was pulled, and compares it with what the repository held.
///
/// # Errors
/// [`Fault`]: git, or the disk.
pub fn compose(
    task: Task<'_>,
    git: &Git<'_>,
    base: &Base,
    footing: Footing,
    owns_ui: bool,
    account: &Account,
    warnings: &mut Warnings,
) -> Result<Comparison, Fault> {
    let unstorable = staging::withdraw_unstorable(git.tree_folder()).map_err(|error| task.disk(&error))?;
    if !unstorable.is_empty() {
        warnings.add(format!(
            "git holds no file named `.git`, so the backup is without: {}",
            listed(&unstorable, LISTED_IN_WARNING_MAX)
        ));
    }
    let staged = stage(task, git, base)?;
    let mut after = staged;
    // wmill leaves the file of an item alone that became this workspace's own, and writes another beside it.
    for (kind, path) in &account.own_items {
        if after.contains_key(format!("{path}.{}.{kind}.yaml", base.workspace).as_bytes()) {
            after.remove(format!("{path}.{kind}.yaml").as_bytes());
        }
    }
    let mut replaced = Vec::new();
    // With patterns, what was not pulled may lie outside them, so only what was pulled takes the place of another.
    let pulled = (base.plan.globs && footing == Footing::Repository).then(|| items_of(&after, &base.workspace));
    for (path, entry) in &base.folder {
        // What wmill saw and is not there any more, wmill deleted. Of the rest, what is Windmill's by its name goes.
        let was_seen = footing == Footing::Repository && !base.is_withheld(path, entry);
        let is_theirs = if is_shared_ui(path) { !owns_ui } else { !is_windmills(path, base, pulled.as_ref()) };
        let stays = !was_seen && is_theirs;
        if stays && !after.contains_key(path) && !git::collides(path, &after) {
            after.insert(path.clone(), entry.clone());
        } else if stays && !after.contains_key(path) || !entry.is_file() {
            replaced.push(String::from_utf8_lossy(path).into_owned());
        }
    }
    if !replaced.is_empty() {
        warnings.add(format!(
            "what stood in the repository in their place gave way to the workspace's files: {}",
            listed(&replaced, LISTED_IN_WARNING_MAX)
        ));
    }
    if let Some(path) = base::in_the_way(task, base) {
        warnings.add(format!(
            "`{}` in the repository is no folder and gave way to the one of this backup; it stays in the history",
            printable(&path)
        ));
    }
    Ok(Comparison::of(&base.folder, after))
}

fn stage(task: Task<'_>, git: &Git<'_>, base: &Base) -> Result<Tree, Fault> {
    let failed = |error| task.git_error(Step::Commit, error);
    git.stage().map_err(failed)?;
    let staged = git.list_index().map_err(failed)?;
    staging::verify(&staged, git.tree_folder(), &base.folder).map_err(|error| match error {
        StagingError::Differs(message) => Fault { code: Code::GitFailed, message, remedy: Remedy::NewCheckout },
        StagingError::Io(error) => task.disk(&error),
    })?;
    Ok(staged)
}

/// wmill exits with 0 where it could not write the shared UI, so what it wrote is compared with what Windmill said.
///
/// # Errors
/// [`Fault`]: a file differs, or is not there.
pub fn check_shared_ui(task: Task<'_>, git: &Git<'_>, account: &Account) -> Result<(), Fault> {
    for (name, content) in account.shared_ui.iter().flatten() {
        let path = git.tree_folder().join("ui").join(name);
        if fs::read(&path).map_err(|error| task.disk(&scratch::at(&path, &error)))? != content.as_bytes() {
            let message =
                format!("wmill did not write `ui/{}` as Windmill has it; nothing was committed", printable(name));
            return Err(Fault::new(Code::PullFailed, message));
        }
    }
    Ok(())
}

/// Whether a path that wmill did not get to see would be Windmill's. Where patterns narrow what was pulled, it has to
/// belong to an item that was `pulled`.
fn is_windmills(path: &[u8], base: &Base, pulled: Option<&BTreeSet<ItemId>>) -> bool {
    let Ok(path) = std::str::from_utf8(path) else { return false };
    let name = path.rsplit('/').next().unwrap_or(path);
    path == WMILL_LOCK
        || (name == "folder.meta.yaml" && pulled.is_none())
        || items::item_of(path).is_some_and(|item| {
            items::covers(&item, &base.plan.kinds)
                && pulled.is_none_or(|pulled| pulled.contains(&of_any_workspace(item, &base.workspace)))
        })
}

/// The items that a folder holds.
fn items_of(folder: &Tree, workspace: &WorkspaceId) -> BTreeSet<ItemId> {
    let items = folder.keys().filter_map(|path| items::item_of(std::str::from_utf8(path).ok()?));
    items.map(|item| of_any_workspace(item, workspace)).collect()
}

/// The item without the mark of being this workspace's alone.
fn of_any_workspace(mut item: ItemId, workspace: &WorkspaceId) -> ItemId {
    if let Some(path) = item.path.strip_suffix(&format!(".{workspace}")) {
        item.path = path.to_owned();
    }
    item
}
