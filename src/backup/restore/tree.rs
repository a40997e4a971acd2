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
use crate::windmill::item_path::ItemId;

/// Files by their path in the folder of the backup.
pub(super) type Tree = BTreeMap<String, Entry>;
/// The chosen files by their path.
pub(super) type WantedFiles = BTreeMap<String, Wanted>;

/// A file that was chosen.
#[derive(Clone)]
pub(super) struct Wanted {
    /// The item that it belongs to, if there is one.
    pub(super) item: Option<ItemId>,
    /// The file; `None` if there has to be no file.
    pub(super) entry: Option<Entry>,
    /// Whether wmill does not get it.
    pub(super) is_withheld: bool,
}

impl Wanted {
    pub(super) fn new(item: Option<&ItemId>, entry: Option<&Entry>) -> Self {
        Self { item: item.cloned(), entry: entry.cloned(), is_withheld: false }
    }
}

/// A file that is not as wanted.
pub(super) struct Change {
    /// The change that is needed.
    pub(super) mark: Mark,
    pub(super) path: String,
    pub(super) wanted: Wanted,
    /// How it differs, in a few lines without secrets.
    pub(super) diff: Vec<String>,
}

/// Returns the files that are not as wanted, in the order of their paths.
pub(super) fn changes(git: &Git<'_>, wanted: &WantedFiles, there: &Tree) -> Result<Vec<Change>, GitError> {
    let mut changes = Vec::new();
    for (path, wanted) in wanted {
        let (mark, diff) = match (&wanted.entry, there.get(path)) {
            (Some(entry), Some(found)) => {
                let diff = value_diff::of_entries(git, path, (entry, found), Purpose::Restore)?;
                if diff.is_empty() {
                    continue;
                }
                (Mark::Modified, diff)
            }
            (Some(_), None) => (Mark::Added, Vec::new()),
            (None, Some(_)) => (Mark::Deleted, Vec::new()),
            (None, None) => continue,
        };
        changes.push(Change { mark, path: path.clone(), wanted: wanted.clone(), diff });
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
