//! Trees in memory, and the comparison of what is wanted with what is there. A sync works with streams; here a person
//! waits, and memory does not matter.

use std::collections::BTreeMap;

use crate::backup::verify::value_diff;
use crate::git::ls_tree::Listing;
use crate::git::object::Entry;
use crate::git::tree_diff::Mark;
use crate::git::{Git, GitError};
use crate::model::run_result::Changed;
use crate::request::Purpose;

/// Files by their path in the folder of the backup.
pub(super) type Tree = BTreeMap<String, Entry>;
/// The wanted file at each path; `None` if there has to be no file.
pub(super) type TargetTree = BTreeMap<String, Option<Entry>>;

/// A file that is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The change that is needed.
    pub(super) mark: Mark,
    pub(super) path: String,
    /// How it differs, in a few lines without secrets.
    pub(super) diff: Vec<String>,
}

/// Returns the files that are not as wanted, in the order of their paths.
pub(super) fn changes(git: &Git<'_>, wanted: &TargetTree, there: &Tree) -> Result<Vec<Change>, GitError> {
    let mut changes = Vec::new();
    for (path, wanted) in wanted {
        let (mark, diff) = match (wanted, there.get(path)) {
            (Some(wanted), Some(found)) => {
                (Mark::Modified, value_diff::of_entries(git, path, (wanted, found), Purpose::Restore)?)
            }
            (Some(_), None) => (Mark::Added, Vec::new()),
            (None, Some(_)) => (Mark::Deleted, Vec::new()),
            (None, None) => continue,
        };
        if mark == Mark::Modified && diff.is_empty() {
            continue;
        }
        changes.push(Change { mark, path: path.clone(), diff });
    }
    Ok(changes)
}

pub(super) fn counted<'c>(changes: impl IntoIterator<Item = &'c Change>) -> Changed {
    let mut count = Changed::default();
    changes.into_iter().for_each(|change| change.mark.count_in(&mut count));
    count
}

/// Returns the files of a listing. Windmill has no path that is not UTF-8.
pub(super) fn read(listing: &Listing) -> Result<Tree, GitError> {
    let mut tree = Tree::new();
    for file in listing.entries()? {
        let (path, entry) = file?;
        if let Ok(path) = String::from_utf8(path) {
            tree.insert(path, entry);
        }
    }
    Ok(tree)
}

pub(super) fn write(git: &Git<'_>, name: &str, tree: &Tree, prefix: &str) -> Result<Listing, GitError> {
    Ok(Listing::write(git.listing_place(name), |lines| {
        tree.iter().try_for_each(|(path, entry)| lines.put([prefix, path].concat().as_bytes(), entry))
    })?)
}
