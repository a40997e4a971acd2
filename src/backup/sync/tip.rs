//! What the remote holds when a round begins, brought into the checkout, and what of it wmill gets to see.

use std::io;
use std::path::PathBuf;

use crate::comparison::Sample;
use crate::config::Config;
use crate::fault::Fault;
use crate::git::{BlobContent, Git, GitError, RemoteState};
use crate::items;
use crate::listing::{Listing, Soundness};
use crate::names::WorkspaceId;
use crate::object::{Entry, ObjectId};
use crate::scratch;
use crate::task::{Step, Task};
use crate::wmill_yaml::{self, Asked, Plan, WMILL_YAML};

const TIP_LISTING: &str = "tip.listing";

/// What the remote held when the round began.
pub struct Base {
    /// The branch's tip; `None` where the branch is not there.
    pub tip: Option<ObjectId>,
    /// What the commit builds upon: the tip, or a tree without what is unsound in it.
    pub builds_upon: Option<ObjectId>,
    /// What wmill gets to see.
    pub shown: Option<ObjectId>,
    /// The sound files in our folder, by their path in it.
    pub folder: Listing,
    /// Whether there are any.
    pub is_empty: bool,
    /// Whether wmill gets to see them all.
    pub is_all_shown: bool,
    /// Paths of the tip that no checkout can hold.
    pub unsound: Sample,
    /// The file, link or submodule of the repository where our folder must be: there is no way to keep both.
    pub in_the_way: Option<(Vec<u8>, Entry)>,
    /// What this run takes out, by the settings and by what the repository may say.
    pub plan: Plan,
    /// Part of the names of files that wmill takes for this workspace's alone.
    pub workspace: WorkspaceId,
}

impl Base {
    /// Whether wmill does not get to see a file of the folder: a link would lead it elsewhere, a submodule hides what
    /// is below, the repository's configuration gives orders, one folder in the other layout stops a pull, what is in
    /// the way of the shared UI stops that alone, and a file for one workspace stays for ever.
    #[must_use]
    pub fn is_withheld(&self, path: &[u8], entry: &Entry) -> bool {
        !entry.is_file()
            || path.split(|byte| *byte == b'/').next() == Some(WMILL_YAML.as_bytes())
            || is_shared_ui(path)
            || is_for_one_workspace(path, &self.workspace)
            || std::str::from_utf8(path).is_ok_and(|path| items::is_in_other_layout(path, self.plan.non_dotted_paths))
    }
}

/// Asks the remote for its tip.
///
/// # Errors
/// [`Fault`]: the remote.
pub fn ask(task: Task<'_>, git: &Git<'_>) -> Result<RemoteState, Fault> {
    git.remote_state().map_err(|error| task.git_error(Step::Fetch, error))
}

/// Asks the remote for its tip, and brings it into the checkout.
///
/// # Errors
/// [`Fault`]: the remote, or the disk.
pub fn refresh(task: Task<'_>, git: &Git<'_>) -> Result<Base, Fault> {
    bring(task, git, &ask(task, git)?)
}

/// Brings what the remote showed into the checkout. A checkout that fails is made anew, once.
///
/// # Errors
/// [`Fault`]: the remote, or the disk.
pub fn bring(task: Task<'_>, git: &Git<'_>, state: &RemoteState) -> Result<Base, Fault> {
    let base = match lay_out(task, git, state) {
        Err(GitError::Checkout(why)) => {
            log::warn!("making the checkout anew: {why}");
            git.create(state.format).and_then(|()| lay_out(task, git, state))
        }
        result => result,
    };
    base.map_err(|error| task.git_error(Step::Fetch, error))
}

/// What a commit that is here holds; nothing is checked out.
///
/// # Errors
/// [`Fault`]: git, or the disk.
pub fn at(task: Task<'_>, git: &Git<'_>, commit: &ObjectId) -> Result<Base, Fault> {
    examine(task, git, Some(commit.clone())).map_err(|error| task.git_error(Step::Fetch, error))
}

/// The tree of our folder at the tip that the remote showed, brought here without being checked out; `None` where there
/// is none, and where anything fails.
#[must_use]
pub fn folder_at(task: Task<'_>, git: &Git<'_>, state: &RemoteState) -> Option<ObjectId> {
    let tip = fetch(git, state).ok().flatten().filter(|tip| state.tip.as_ref() == Some(tip))?;
    folder_of(task, git, &tip)
}

/// The tree of our folder in a commit that is here.
#[must_use]
pub fn folder_of(task: Task<'_>, git: &Git<'_>, commit: &ObjectId) -> Option<ObjectId> {
    git.tree_at(commit, task.request.subdir.prefix().trim_end_matches('/')).ok()
}

/// Brings the objects of the tip here.
fn fetch(git: &Git<'_>, state: &RemoteState) -> Result<Option<ObjectId>, GitError> {
    scratch::open_folder(git.tree_folder());
    git.remove_stale_locks()?;
    // A remote without an object does not show its format, and may be another than last time.
    if !state.format.is_some_and(|format| git.exists(format)) || git.is_bloated() {
        git.create(state.format)?;
    }
    git.settle(git.format())?;
    match &state.tip {
        None => Ok(None),
        Some(tip) if git.is_at(tip)? => Ok(Some(tip.clone())),
        Some(shown) => match git.fetch_tip()? {
            // Moved between the two questions, or not brought here at all.
            Some(tip) if tip != *shown && git.remote_state()?.tip.as_ref() != Some(&tip) => {
                Err(GitError::Checkout(format!("git brought {tip}, which the remote does not show")))
            }
            tip => Ok(tip),
        },
    }
}

fn lay_out(task: Task<'_>, git: &Git<'_>, state: &RemoteState) -> Result<Base, GitError> {
    let tip = fetch(git, state)?;
    let base = examine(task, git, tip)?;
    git.check_out(base.shown.as_ref())?;
    Ok(base)
}

/// Reads the tip's listing: what is sound, what is ours, what wmill may see.
fn examine(task: Task<'_>, git: &Git<'_>, tip: Option<ObjectId>) -> Result<Base, GitError> {
    let whole = match &tip {
        Some(tip) => git.list(tip, TIP_LISTING)?,
        None => Listing::write(git.listing_place(TIP_LISTING), |_| Ok(()))?,
    };
    let prefix = task.request.subdir.prefix();
    let (wmill_yaml, folders) = ([&prefix, WMILL_YAML].concat(), ancestors(prefix.trim_end_matches('/')));
    let (mut soundness, mut unsound, mut in_the_way, mut own) = (Soundness::default(), Sample::default(), None, None);
    let (sound, of_all) = whole.sifted(git.listing_place("sound.listing"), |path, entry| {
        if !soundness.admits(path, entry) {
            unsound.add(path);
            return false;
        }
        if path == wmill_yaml.as_bytes() {
            own = Some(entry.clone());
        } else if folders.iter().any(|folder| folder.as_bytes() == path) {
            in_the_way = Some((path.to_vec(), entry.clone()));
        }
        true
    })?;
    let builds_upon = if unsound.is_empty() { tip.clone() } else { Some(git.compose(None, &sound)?) };
    let folder = if prefix.is_empty() { sound } else { below(&prefix, &sound, git.listing_place("folder.listing"))? };
    let plan = plan(task, git, own.as_ref())?;
    let workspace = task.request.workspace.clone();
    // Until it is known.
    let (is_empty, is_all_shown) = (false, false);
    let mut base =
        Base { tip, builds_upon, shown: None, folder, is_empty, is_all_shown, unsound, in_the_way, plan, workspace };
    show(git, &mut base, prefix.is_empty().then_some(of_all))?;
    Ok(base)
}

/// Finds out what wmill gets to see of the folder; with the number of the whole's files, where that is our folder.
fn show(git: &Git<'_>, base: &mut Base, of_whole: Option<usize>) -> Result<(), GitError> {
    let mut of_folder = 0;
    let (shown, of_shown) = base.folder.sifted(git.listing_place("shown.listing"), |path, entry| {
        of_folder += 1;
        !base.is_withheld(path, entry)
    })?;
    base.shown = match &base.builds_upon {
        // Below a folder, paths are others than in the whole, also where there is nothing else.
        Some(tree) if of_whole == Some(of_shown) => Some(tree.clone()),
        Some(_) => Some(git.compose(None, &shown)?),
        None => None,
    };
    base.is_empty = of_folder == 0;
    base.is_all_shown = of_shown == of_folder;
    Ok(())
}

/// What lies below a folder, by the paths there.
fn below(prefix: &str, whole: &Listing, place: PathBuf) -> io::Result<Listing> {
    Listing::write(place, |lines| {
        for file in whole.entries()? {
            let (path, entry) = file?;
            if let Some(path) = path.strip_prefix(prefix.as_bytes()) {
                lines.put(path, &entry, b'0')?;
            }
        }
        Ok(())
    })
}

/// The kinds that the settings ask for.
#[must_use]
pub fn asked_kinds(config: &Config) -> Asked {
    Asked {
        includes: config.kinds_included.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect()),
        skips: config.kinds_skipped.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect()),
    }
}

/// What a run takes out where the repository says nothing.
#[must_use]
pub fn plan_without_file(config: &Config) -> Plan {
    wmill_yaml::read(None, &asked_kinds(config))
}

fn plan(task: Task<'_>, git: &Git<'_>, own: Option<&Entry>) -> Result<Plan, GitError> {
    let asked = asked_kinds(task.service.config);
    let own = match own {
        Some(entry) if entry.is_file() => git.read_blob(&entry.object, wmill_yaml::FILE_BYTES_MAX)?,
        Some(_) => BlobContent::Strange("it is a link or a submodule"),
        None => return Ok(wmill_yaml::read(None, &asked)),
    };
    match own {
        BlobContent::Whole(content) => Ok(wmill_yaml::read(Some(&content), &asked)),
        BlobContent::Strange(why) => {
            let mut plan = wmill_yaml::read(None, &asked);
            plan.warnings.push(format!("nothing of the repository's wmill.yaml is heeded: {why}"));
            Ok(plan)
        }
    }
}

/// Whether the path is one of the workspace's shared UI.
#[must_use]
pub fn is_shared_ui(path: &[u8]) -> bool {
    path == b"ui" || path.starts_with(b"ui/")
}

/// Whether wmill takes the file for one that only this workspace has, as `x.shop.variable.yaml`.
fn is_for_one_workspace(path: &[u8], workspace: &WorkspaceId) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let id = workspace.as_str().as_bytes();
    name.windows(id.len() + 2).any(|window| {
        let inner = window.strip_prefix(b".").and_then(|window| window.strip_suffix(b"."));
        inner == Some(id)
    })
}

/// `a/b/c` and all that lead to it: `a`, `a/b`, `a/b/c`.
fn ancestors(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(index, _)| index).chain((!path.is_empty()).then_some(path.len()));
    ends.map(|end| path[..end].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_its_ancestors_in_the_way() {
        assert_eq!(ancestors("a/b/c"), ["a", "a/b", "a/b/c"]);
        assert!(ancestors("").is_empty());
    }
}
