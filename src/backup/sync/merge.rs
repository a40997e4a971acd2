//! What the folder is to hold after a pull: what wmill wrote, as git staged it, and what of the repository stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::iter;
use std::sync::Arc;

use crate::base::{Base, is_shared_ui};
use crate::code::Code;
use crate::comparison::{Change, Comparison, Mark, Sample, printable};
use crate::fault::{Fault, Remedy};
use crate::git::{Git, GitError, Staged};
use crate::items::{self, ItemId, WMILL_LOCK};
use crate::listing::{GitPath, Listing, Stream, join};
use crate::names::WorkspaceId;
use crate::object::{Entry, ObjectId};
use crate::outcome::Warnings;
use crate::pull::Footing;
use crate::scratch;
use crate::staging::{StagingError, Stock};
use crate::task::{Step, Task};
use crate::windmill::Account;

/// What is known of a pull that went well.
pub struct Pulled<'a> {
    /// What wmill worked upon.
    pub footing: Footing,
    /// What Windmill said beside it.
    pub account: &'a Account,
    /// Whether the files of the shared UI in the repository are ours.
    pub owns_ui: bool,
}

/// The folder of the repository, and what is to take its place.
pub struct Composition {
    /// What differs.
    pub comparison: Comparison,
    sides: Sides,
    /// The tree of what was pulled.
    staged: ObjectId,
}

impl Composition {
    /// Each file with what it was and what it is to be.
    ///
    /// # Errors
    /// What the disk says.
    pub fn pairs(&self) -> io::Result<Stream<(Option<Entry>, Option<Entry>)>> {
        self.sides.pairs()
    }

    /// The tree of all that is to be committed. One that is composed is read again and held against what it is to be.
    ///
    /// # Errors
    /// [`Fault`]: git, or the disk.
    pub fn tree(&self, task: Task<'_>, git: &Git<'_>, base: &Base) -> Result<Tree, Fault> {
        let failed = |error| task.git_error(Step::Commit, error);
        let prefix = task.request.subdir.prefix();
        // Where our folder is all, and nothing is left out or stays beside it, what is staged is what is to be.
        if prefix.is_empty() && self.sides.dropped.is_empty() && self.sides.kept.is_empty() {
            return Ok(Tree { whole: self.staged.clone(), folder: Some(self.staged.clone()) });
        }
        let changes = self.listing(git, base, &prefix).map_err(|error| failed(error.into()))?;
        let whole = git.compose(base.builds_upon.as_ref(), &changes).map_err(failed)?;
        let folder = git.tree_at(&whole, prefix.trim_end_matches('/')).ok();
        let there = folder.as_ref().map(|folder| git.list(folder, "commit.listing")).transpose().map_err(failed)?;
        if self.sides.is_what_is_in(there.as_ref()).map_err(|error| failed(error.into()))? {
            return Ok(Tree { whole, folder });
        }
        let message = "git did not put into the commit what was pulled; nothing was pushed".to_owned();
        Err(Fault { code: Code::GitFailed, message, remedy: Remedy::NewCheckout })
    }

    /// The changes, for git. What goes comes first: a file may become a folder, or a folder a file.
    fn listing(&self, git: &Git<'_>, base: &Base, prefix: &str) -> io::Result<Listing> {
        let whole = |path: &[u8]| [prefix.as_bytes(), path].concat();
        Listing::write(git.listing_place("commit.listing"), |lines| {
            if let Some((path, entry)) = &base.in_the_way {
                lines.nothing(path, entry.object.as_str().len())?;
            }
            for is_going in [true, false] {
                for change in self.comparison.changes()? {
                    let Change { mark, path, entry } = change?;
                    match (mark == Mark::Deleted, is_going) {
                        (true, true) => lines.nothing(&whole(&path), entry.object.as_str().len())?,
                        (false, false) => lines.put(&whole(&path), &entry, b'0')?,
                        _ => {}
                    }
                }
            }
            Ok(())
        })
    }
}

/// What is to be committed, as git wrote it.
pub struct Tree {
    /// All of the repository.
    pub whole: ObjectId,
    /// Our folder; `None` where nothing is in it.
    pub folder: Option<ObjectId>,
}

struct Sides {
    before: Listing,
    staged: Listing,
    /// What wmill wrote and is not to be committed.
    dropped: Arc<BTreeSet<GitPath>>,
    /// What stays of the repository although wmill did not get to see it.
    kept: Arc<BTreeSet<GitPath>>,
}

impl Sides {
    fn after(&self) -> io::Result<Stream<Entry>> {
        let (staged, dropped) = (self.staged.entries()?, Arc::clone(&self.dropped));
        if dropped.is_empty() {
            return Ok(staged);
        }
        Ok(Box::new(staged.filter(move |file| file.as_ref().map_or(true, |(path, _)| !dropped.contains(path)))))
    }

    /// Whether these are the files that are to be in the folder, and all of them.
    fn is_what_is_in(&self, there: Option<&Listing>) -> io::Result<bool> {
        let wanted = self.pairs()?.filter_map(|file| match file {
            Ok((path, (_, entry))) => entry.map(|entry| Ok((path, entry))),
            Err(error) => Some(Err(error)),
        });
        let there = match there {
            Some(there) => there.entries()?,
            None => Box::new(iter::empty()),
        };
        for file in join(Box::new(wanted), there) {
            let (_, (wanted, there)) = file?;
            if wanted != there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pairs(&self) -> io::Result<Stream<(Option<Entry>, Option<Entry>)>> {
        let kept = Arc::clone(&self.kept);
        Ok(Box::new(join(self.before.entries()?, self.after()?).map(move |pair| {
            let (path, (before, after)) = pair?;
            let after = if kept.contains(&path) { before.clone() } else { after };
            Ok((path, (before, after)))
        })))
    }
}

/// Stages what was pulled, checks that it is what was pulled, and compares it with what the repository held.
///
/// # Errors
/// [`Fault`]: git, or the disk.
pub fn compose(
    task: Task<'_>,
    git: &Git<'_>,
    base: &Base,
    pulled: &Pulled<'_>,
    warnings: &mut Warnings,
) -> Result<Composition, Fault> {
    let failed = |error: io::Error| task.git_error(Step::Commit, GitError::from(error));
    let stock = take_stock(task, git, warnings)?;
    let Staged { tree, files: staged } = stage(task, git, base, &stock)?;
    let dropped = superseded(&staged, pulled.account, &base.workspace).map_err(failed)?;
    let mut sides = Sides { before: base.folder.clone(), staged, dropped: Arc::new(dropped), kept: Arc::default() };
    let replaced = keep(&mut sides, base, pulled).map_err(failed)?;
    if !replaced.is_empty() {
        warnings
            .add(format!("what stood in the repository in their place gave way to the workspace's files: {replaced}"));
    }
    if let Some((path, _)) = &base.in_the_way {
        warnings.add(format!(
            "`{}` in the repository is no folder and gave way to the one of this backup; it stays in the history",
            printable(path)
        ));
    }
    let comparison = sides.pairs().and_then(|pairs| Comparison::of(git.listing_place("changes.listing"), pairs));
    Ok(Composition { comparison: comparison.map_err(failed)?, sides, staged: tree })
}

/// wmill leaves the file of an item alone that became this workspace's own, and writes another beside it.
fn superseded(staged: &Listing, account: &Account, workspace: &WorkspaceId) -> io::Result<BTreeSet<GitPath>> {
    let mut superseded = BTreeSet::new();
    if account.own_items.is_empty() {
        return Ok(superseded);
    }
    let own = |(kind, path): &(String, String)| {
        (format!("{path}.{workspace}.{kind}.yaml").into_bytes(), format!("{path}.{kind}.yaml").into_bytes())
    };
    let own: BTreeMap<_, _> = account.own_items.iter().map(own).collect();
    for file in staged.entries()? {
        if let Some(common) = own.get(&file?.0) {
            superseded.insert(common.clone());
        }
    }
    Ok(superseded)
}

/// Finds out which of the repository's files stay; returns those that would have, and gave way.
fn keep(sides: &mut Sides, base: &Base, pull: &Pulled<'_>) -> io::Result<Sample> {
    // What wmill saw and is not there any more, it deleted.
    let is_upon_repository = pull.footing == Footing::Repository;
    if is_upon_repository && base.is_all_shown {
        return Ok(Sample::default());
    }
    // With patterns, what was not pulled may lie outside them, so only what was pulled takes the place of another.
    let pulled = if base.plan.globs && is_upon_repository { Some(items_of(sides, base)?) } else { None };
    let (mut kept, mut replaced) = (BTreeSet::new(), Vec::new());
    for pair in join(sides.before.entries()?, sides.after()?) {
        let (path, (Some(entry), after)) = pair? else { continue };
        // Of the rest, what is Windmill's by its name goes.
        let was_seen = is_upon_repository && !base.is_withheld(&path, &entry);
        let is_theirs = if is_shared_ui(&path) { !pull.owns_ui } else { !is_windmills(&path, base, pulled.as_ref()) };
        if !was_seen && is_theirs && after.is_none() {
            kept.insert(path);
        } else if !entry.is_file() {
            replaced.push(path);
        }
    }
    // A file cannot stay where there is a folder now, nor below what is a file now.
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

/// The folders that a path leads through.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| &path[..index])
}

/// What was pulled, without what git cannot hold; a warning tells of that.
///
/// # Errors
/// [`Fault`]: the disk.
pub fn take_stock(task: Task<'_>, git: &Git<'_>, warnings: &mut Warnings) -> Result<Stock, Fault> {
    let stock =
        Stock::take(git.tree_folder(), git.listing_place("stock.listing")).map_err(|error| task.disk(&error))?;
    if !stock.withdrawn.is_empty() {
        warnings.add(format!("git holds no file named `.git`, so the backup is without: {}", stock.withdrawn));
    }
    Ok(stock)
}

fn stage(task: Task<'_>, git: &Git<'_>, base: &Base, stock: &Stock) -> Result<Staged, Fault> {
    let staged = git.stage().map_err(|error| task.git_error(Step::Commit, error))?;
    stock.verify(&staged.files, &base.folder).map_err(|error| match error {
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
            let message = format!(
                "wmill did not write `ui/{}` as Windmill has it; nothing was committed",
                printable(name.as_bytes())
            );
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

/// The items that were pulled.
fn items_of(sides: &Sides, base: &Base) -> io::Result<BTreeSet<ItemId>> {
    let mut found = BTreeSet::new();
    for file in sides.after()? {
        let (path, _) = file?;
        let item = std::str::from_utf8(&path).ok().and_then(items::item_of);
        found.extend(item.map(|item| of_any_workspace(item, &base.workspace)));
    }
    Ok(found)
}

/// The item without the mark of being this workspace's alone.
fn of_any_workspace(mut item: ItemId, workspace: &WorkspaceId) -> ItemId {
    if let Some(path) = item.path.strip_suffix(&format!(".{workspace}")) {
        item.path = path.to_owned();
    }
    item
}
