//! Counts and lists the differences between a folder of the repository and its next version.

use std::fmt::Write as _;
use std::io;

use crate::git::{Entry, GitPath, Listing, Stream, join};
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

/// The files of a folder before and after a change of it.
pub struct TreeDiff {
    before: Listing,
    /// The files after the change.
    pub after: Listing,
    /// How many files differ.
    pub changed: Changed,
}

impl TreeDiff {
    /// Compares the files before and after.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn of(before: Listing, after: Listing) -> io::Result<Self> {
        let mut diff = Self { before, after, changed: Changed::default() };
        for change in diff.changes()? {
            change?.mark.count_in(&mut diff.changed);
        }
        Ok(diff)
    }

    /// Returns each file with its old and its new entry.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn pairs(&self) -> io::Result<Stream<(Option<Entry>, Option<Entry>)>> {
        Ok(join(self.before.entries()?, self.after.entries()?))
    }

    /// Returns each file that differs, in the order of their paths.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn changes(&self) -> io::Result<impl Iterator<Item = io::Result<Change>> + use<>> {
        let change = |(path, pair)| {
            let (mark, entry) = match pair {
                (Some(before), Some(after)) if before != after => (Mark::Modified, after),
                (None, Some(after)) => (Mark::Added, after),
                (Some(before), None) => (Mark::Deleted, before),
                _ => return None,
            };
            Some(Change { mark, path, entry })
        };
        Ok(self.pairs()?.filter_map(move |pair| pair.map(change).transpose()))
    }

    /// Returns how many files change in each way, and a list of at most `listed_max` of them.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn summary(&self, listed_max: usize) -> io::Result<String> {
        summary(listed_max, self.changes()?.map(|change| change.map(|change| (change.mark, change.path))))
    }
}

/// Returns how many files change in each way, and a list of at most `listed_max` of them.
///
/// # Errors
/// Fails if `changes` does.
pub fn summary(listed_max: usize, changes: impl Iterator<Item = io::Result<(Mark, GitPath)>>) -> io::Result<String> {
    let (mut changed, mut listed) = (Changed::default(), [const { Vec::new() }; 3]);
    for change in changes {
        let (mark, path) = change?;
        mark.count_in(&mut changed);
        let of_mark = &mut listed[mark as usize];
        if of_mark.len() < listed_max {
            of_mark.push(format!("\n{} {}", LETTERS[mark as usize], printable(&path)));
        }
    }
    let Changed { added, modified, deleted } = changed;
    let mut text = format!("{added} added, {modified} modified, {deleted} deleted\n");
    text.extend(listed.into_iter().flatten().take(listed_max));
    let more = (added + modified + deleted).saturating_sub(listed_max);
    if more > 0 {
        let _ = write!(text, "\n... and {more} more");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::ObjectId;
    use crate::util::RunDir;

    #[test]
    fn a_summary_counts_all_and_lists_some() -> io::Result<()> {
        let scratch = RunDir::for_test("comparison")?;
        let object = ObjectId::parse(&"a".repeat(40)).expect("40 digits");
        let entry = Entry { mode: 0o100_644, object };
        let listing = |name: &str, paths: &[&str]| {
            let entries = paths.iter().map(|path| Ok((path.as_bytes().to_vec(), entry.clone())));
            Listing::write(scratch.path().join(name), entries)
        };
        let comparison = TreeDiff::of(listing("before", &["a", "b\nc"])?, listing("after", &["a", "d", "e"])?)?;
        assert_eq!(comparison.changed, Changed { added: 2, modified: 0, deleted: 1 });
        assert_eq!(comparison.summary(2)?, "2 added, 0 modified, 1 deleted\n\nA d\nA e\n... and 1 more");
        assert!(comparison.summary(9)?.ends_with("\nD b\u{fffd}c"));
        let marks: Vec<_> =
            comparison.changes()?.map(|change| change.map(|change| change.mark)).collect::<Result<_, _>>()?;
        assert_eq!(marks, [Mark::Deleted, Mark::Added, Mark::Added]);
        Ok(())
    }
}
