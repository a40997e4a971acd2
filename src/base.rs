//! What the remote holds when a round begins, brought into the checkout, and what of it wmill gets to see.

use crate::fault::Fault;
use crate::git::{self, BlobContent, Entry, Git, GitError, Listing, ObjectId, Tree};
use crate::items;
use crate::names::WorkspaceId;
use crate::scratch;
use crate::task::{Step, Task};
use crate::wmill_yaml::{self, Asked, Plan, WMILL_YAML};

/// What the remote held when the round began.
pub struct Base {
    /// The branch's tip; `None` where the branch is not there.
    pub tip: Option<ObjectId>,
    /// What the commit builds upon: the tip, or a tree without what is unsound in it.
    pub tree: Option<ObjectId>,
    /// What wmill gets to see.
    pub shown: Option<ObjectId>,
    /// All sound entries of the tip.
    pub whole: Tree,
    /// Paths of the tip that no checkout can hold.
    pub unsound: Vec<Vec<u8>>,
    /// Those in our folder, by their path in it.
    pub folder: Tree,
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

/// Reads the remote's tip into the checkout. A checkout that fails is made anew, once.
///
/// # Errors
/// [`Fault`]: the remote, or the disk.
pub fn refresh(task: Task<'_>, git: &Git<'_>) -> Result<Base, Fault> {
    let state = git.remote_state().map_err(|error| task.git_error(Step::Fetch, error))?;
    let base = match bring_here(task, git, &state) {
        Err(GitError::Checkout(why)) => {
            log::warn!("making the checkout anew: {why}");
            git.create(state.format).and_then(|()| bring_here(task, git, &state))
        }
        result => result,
    };
    base.map_err(|error| task.git_error(Step::Fetch, error))
}

fn bring_here(task: Task<'_>, git: &Git<'_>, state: &git::RemoteState) -> Result<Base, GitError> {
    scratch::open_folder(git.tree_folder());
    git.remove_stale_locks()?;
    // A remote without an object does not show its format, and may be another than last time.
    if !state.format.is_some_and(|format| git.exists(format)) || git.is_bloated() {
        git.create(state.format)?;
    }
    git.settle(git.format())?;
    let tip = match &state.tip {
        None => None,
        Some(tip) if git.is_at(tip)? => Some(tip.clone()),
        Some(shown) => match git.fetch_tip()? {
            // Moved between the two questions, or not brought here at all.
            Some(tip) if tip != *shown && git.remote_state()?.tip.as_ref() != Some(&tip) => {
                return Err(GitError::Checkout(format!("git brought {tip}, which the remote does not show")));
            }
            tip => tip,
        },
    };
    let Listing { tree: whole, unsound } = match &tip {
        Some(tip) => git.list(tip)?,
        None => Listing::default(),
    };
    let tree = match &tip {
        Some(_) if !unsound.is_empty() => Some(git.compose(None, [], every(&whole))?),
        tip => tip.clone(),
    };
    let folder = below(&whole, &task.request.subdir.prefix());
    let plan = plan(task, git, &folder)?;
    let workspace = task.request.workspace.clone();
    let mut base = Base { tip, tree, shown: None, whole, unsound, folder, plan, workspace };
    let shown = base.folder.iter().filter(|(path, entry)| !base.is_withheld(path, entry));
    let shown: Vec<_> = shown.map(|(path, entry)| (path.as_slice(), entry)).collect();
    base.shown = match &base.tree {
        Some(tree) if shown.len() == base.whole.len() => Some(tree.clone()),
        Some(_) => Some(git.compose(None, [], shown)?),
        None => None,
    };
    git.check_out(base.shown.as_ref())?;
    Ok(base)
}

fn plan(task: Task<'_>, git: &Git<'_>, folder: &Tree) -> Result<Plan, GitError> {
    let config = task.service.config;
    let asked = Asked {
        includes: config.kinds_included.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect()),
        skips: config.kinds_skipped.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect()),
    };
    let own = match folder.get(WMILL_YAML.as_bytes()) {
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

/// The file, link or submodule of the repository where our folder must be: there is no way to keep both.
#[must_use]
pub fn in_the_way(task: Task<'_>, base: &Base) -> Option<String> {
    let folders = ancestors(task.request.subdir.prefix().trim_end_matches('/'));
    folders.into_iter().find(|path| base.whole.contains_key(path.as_bytes()))
}

/// Whether the path is one of the workspace's shared UI.
#[must_use]
pub fn is_shared_ui(path: &[u8]) -> bool {
    path == b"ui" || path.starts_with(b"ui/")
}

/// Whether wmill takes the file for one that only this workspace has, as `x.shop.variable.yaml`.
fn is_for_one_workspace(path: &[u8], workspace: &WorkspaceId) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let mark = format!(".{workspace}.");
    name.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// The entries below a folder (`dir/`, or nothing for all), by their path in it.
fn below(whole: &Tree, prefix: &str) -> Tree {
    let mut folder = Tree::new();
    for (path, entry) in whole {
        if let Some(path) = path.strip_prefix(prefix.as_bytes()) {
            folder.insert(path.to_vec(), entry.clone());
        }
    }
    folder
}

fn every(tree: &Tree) -> impl Iterator<Item = (&[u8], &Entry)> {
    tree.iter().map(|(path, entry)| (path.as_slice(), entry))
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
