//! Counts and lists the differences between a folder of the repository and its next version.

use std::fmt;
use std::fmt::Write as _;
use std::io;

use crate::git::ls_tree::{GitPath, Listing, Stream, join};
use crate::git::object::Entry;
use crate::model::Changed;
use crate::util::redact;

/// How many names a [`Sample`] keeps; the others are only counted.
const SAMPLE_MAX: usize = 20;
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

/// The first names of many, and the number of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    first: Vec<String>,
    count: usize,
}

impl Sample {
    /// Adds a name.
    pub fn add(&mut self, name: &[u8]) {
        self.count += 1;
        if self.first.len() < SAMPLE_MAX {
            self.first.push(printable(name));
        }
    }

    /// Returns whether it has no names.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<N: AsRef<[u8]>> FromIterator<N> for Sample {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let mut sample = Self::default();
        names.into_iter().for_each(|name| sample.add(name.as_ref()));
        sample
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

/// Returns a name on one line, with each invisible character replaced.
pub fn printable(name: &[u8]) -> String {
    redact::visible(&String::from_utf8_lossy(name)).replace(['\n', '\t'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::object::ObjectId;
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

    #[test]
    fn a_sample_names_a_few_and_counts_the_others() {
        assert_eq!(Sample::from_iter(["a\tb", "c"]).to_string(), "a\u{fffd}b, c");
        let many: Sample = (0..22).map(|number| number.to_string()).collect();
        assert!(many.to_string().ends_with("18, 19 and 2 more"), "{many}");
    }
}
