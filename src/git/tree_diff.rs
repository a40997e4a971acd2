//! Counts and lists the differences between a folder of the repository and its next version.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::git::{Entry, GitPath, Listing};
use crate::model::Changed;
use crate::util::printable;

/// git's letter for each [`Mark`].
const LETTERS: [char; 3] = ['A', 'M', 'D'];

/// How a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is new.
    Added,
    /// It has another content or mode.
    Modified,
    /// It is deleted.
    Deleted,
}

impl Mark {
    /// Counts one more file of this kind.
    pub fn count_in(self, changed: &mut Changed) {
        match self {
            Self::Added => changed.added += 1,
            Self::Modified => changed.modified += 1,
            Self::Deleted => changed.deleted += 1,
        }
    }
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How it changes.
    pub mark: Mark,
    /// Its path in the folder of the backup.
    pub path: GitPath,
    /// The entry after the change, or before it if the file is deleted.
    pub entry: Entry,
}

impl Change {
    /// Returns the entry after the change.
    fn after(&self) -> Option<&Entry> {
        (self.mark != Mark::Deleted).then_some(&self.entry)
    }
}

/// The files of a folder before and after a change of it.
pub struct TreeDiff {
    before: Arc<Listing>,
    /// The files that differ, in the order of their paths.
    pub changes: Vec<Change>,
    /// How many files differ.
    pub changed: Changed,
}

impl TreeDiff {
    /// Takes the files before, and each path with its old and its new entry, in the order of the paths.
    pub fn of<'p>(before: Arc<Listing>, pairs: impl Iterator<Item = (&'p GitPath, [Option<&'p Entry>; 2])>) -> Self {
        let change = |(path, pair): (&GitPath, [Option<&Entry>; 2])| {
            let (mark, entry) = match pair {
                [Some(before), Some(after)] if before != after => (Mark::Modified, after),
                [None, Some(after)] => (Mark::Added, after),
                [Some(before), None] => (Mark::Deleted, before),
                _ => return None,
            };
            Some(Change { mark, path: path.clone(), entry: entry.clone() })
        };
        let (changes, mut changed) = (pairs.filter_map(change).collect::<Vec<_>>(), Changed::default());
        changes.iter().for_each(|change| change.mark.count_in(&mut changed));
        Self { before, changes, changed }
    }

    /// Returns each file with its old and its new entry, those that differ at the end.
    pub fn pairs(&self) -> impl Iterator<Item = (&GitPath, [Option<&Entry>; 2])> {
        let same = self.before.iter().filter(|(path, _)| self.change_of(path).is_none());
        let same = same.map(|(path, entry)| (path, [Some(entry); 2]));
        same.chain(self.changes.iter().map(|of| (&of.path, [self.before.get(&of.path), of.after()])))
    }

    /// Returns the files after the change.
    pub fn after(&self) -> impl Iterator<Item = (&GitPath, &Entry)> {
        self.pairs().filter_map(|(path, [_, after])| Some((path, after?)))
    }

    /// Returns the entry at a path after the change.
    pub fn after_at(&self, path: &[u8]) -> Option<&Entry> {
        self.change_of(path).map_or_else(|| self.before.get(path), Change::after)
    }

    fn change_of(&self, path: &[u8]) -> Option<&Change> {
        let place = self.changes.binary_search_by(|change| (*change.path).cmp(path));
        place.ok().map(|place| &self.changes[place])
    }

    /// Returns how many files change in each way, and a list of at most `listed_max` of them.
    pub fn summary(&self, listed_max: usize) -> String {
        summary(listed_max, self.changes.iter().map(|change| (change.mark, &change.path)))
    }
}

/// Returns how many files change in each way, and a list of at most `listed_max` of them.
pub fn summary(listed_max: usize, changes: impl Iterator<Item = (Mark, impl AsRef<[u8]>)>) -> String {
    let (mut changed, mut listed) = (Changed::default(), [const { Vec::new() }; 3]);
    for (mark, path) in changes {
        mark.count_in(&mut changed);
        let of_mark = &mut listed[mark as usize];
        if of_mark.len() < listed_max {
            of_mark.push(format!("\n{} {}", LETTERS[mark as usize], printable(path.as_ref())));
        }
    }
    let Changed { added, modified, deleted } = changed;
    let mut text = format!("{added} added, {modified} modified, {deleted} deleted\n");
    text.extend(listed.into_iter().flatten().take(listed_max));
    let more = (added + modified + deleted).saturating_sub(listed_max);
    if more > 0 {
        let _ = write!(text, "\n... and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{ObjectId, join};

    #[test]
    fn a_summary_counts_all_and_lists_some() {
        let object = ObjectId::parse(&"a".repeat(40)).expect("40 digits");
        let listing = |paths: &[&str]| -> Listing {
            let entry = || Entry { mode: 0o100_644, object: object.clone() };
            paths.iter().map(|path| (path.as_bytes().into(), entry())).collect()
        };
        let (before, after) = (Arc::new(listing(&["a", "b\nc"])), listing(&["a", "d", "e"]));
        let pairs = join(&before, &after).map(|(path, before, after)| (path, [before, after]));
        let comparison = TreeDiff::of(Arc::clone(&before), pairs);
        assert_eq!(comparison.changed, Changed { added: 2, modified: 0, deleted: 1 });
        assert_eq!(comparison.summary(2), "2 added, 0 modified, 1 deleted\n\nA d\nA e\n... and 1 more");
        assert!(comparison.summary(9).ends_with("\nD b\u{fffd}c"));
        let marks: Vec<_> = comparison.changes.iter().map(|change| change.mark).collect();
        assert_eq!(marks, [Mark::Deleted, Mark::Added, Mark::Added]);
    }
}
