//! What differs between a folder of the repository and what is to take its place, counted and listed for people.
//! It does not know why it differs.

use std::fmt::Write as _;

use crate::git::Tree;
use crate::outcome::Changed;

/// The folder after the pull, compared with what it was.
pub struct Comparison {
    /// The folder as it is to be committed.
    pub after: Tree,
    /// Paths of new files.
    pub added: Vec<String>,
    /// Paths of files with another content or mode.
    pub modified: Vec<String>,
    /// Paths of files that are gone.
    pub deleted: Vec<String>,
}

impl Comparison {
    /// What `after` has otherwise than `before`.
    #[must_use]
    pub fn of(before: &Tree, after: Tree) -> Self {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let mut added = Vec::new();
        let mut modified = Vec::new();
        for (path, entry) in &after {
            match before.get(path) {
                None => added.push(text(path)),
                Some(old) if old != entry => modified.push(text(path)),
                Some(_) => {}
            }
        }
        let deleted = before.keys().filter(|path| !after.contains_key(*path)).map(|path| text(path)).collect();
        Self { after, added, modified, deleted }
    }

    /// How many files that is.
    #[must_use]
    pub fn changed(&self) -> Changed {
        Changed { added: self.added.len(), modified: self.modified.len(), deleted: self.deleted.len() }
    }

    /// Counts what changes, and lists at most `listed_max` of it.
    #[must_use]
    pub fn summary(&self, listed_max: usize) -> String {
        let mut text =
            format!("{} added, {} modified, {} deleted\n", self.added.len(), self.modified.len(), self.deleted.len());
        let all = [("A", &self.added), ("M", &self.modified), ("D", &self.deleted)];
        let lines = all.iter().flat_map(|(mark, paths)| paths.iter().map(move |path| (mark, path)));
        for (mark, path) in lines.clone().take(listed_max) {
            let _ = write!(text, "\n{mark} {}", printable(path));
        }
        let count = lines.count();
        if count > listed_max {
            let _ = write!(text, "\n... and {} more", count - listed_max);
        }
        text
    }
}

/// A path on one line, whatever is in it.
#[must_use]
pub fn printable(path: &str) -> String {
    path.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

/// The first `max` of a list, and how many more there are.
#[must_use]
pub fn listed(all: &[String], max: usize) -> String {
    let mut text = all.iter().take(max).map(|entry| printable(entry)).collect::<Vec<_>>().join(", ");
    if all.len() > max {
        let _ = write!(text, " and {} more", all.len() - max);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{Entry, ObjectId};

    fn tree(paths: &[&str]) -> Tree {
        let object = ObjectId::parse(&"a".repeat(40)).expect("40 digits");
        let entry = Entry { mode: 0o100_644, object };
        paths.iter().map(|path| (path.as_bytes().to_vec(), entry.clone())).collect()
    }

    #[test]
    fn a_summary_counts_all_and_lists_some() {
        let comparison = Comparison::of(&tree(&["a", "b\nc"]), tree(&["a", "d", "e"]));
        assert_eq!(comparison.changed(), Changed { added: 2, modified: 0, deleted: 1 });
        assert_eq!(comparison.summary(2), "2 added, 0 modified, 1 deleted\n\nA d\nA e\n... and 1 more");
        assert!(comparison.summary(9).ends_with("\nD b\u{fffd}c"));
    }
}
