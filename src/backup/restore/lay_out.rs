//! Lays out the folder that `wmill` pushes, and checks what it is about to push: which switches to turn off, what would
//! lead out of an item, what would not come back as it was.

use std::collections::BTreeSet;
use std::path::Path;

use crate::backup::error::BackupError;
use crate::backup::restore::select::Choice;
use crate::backup::restore::tree::Change;
use crate::backup::restore::{RestoreRun, references, switches, tree};
use crate::git::tree_diff::Sample;
use crate::util::files;
use crate::windmill::item_path::ItemKind;

/// A larger file is not checked, and its item is left out.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Above this number, JavaScript cannot represent every whole number.
const WHOLE_MAX: u128 = 1 << 53;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl RestoreRun<'_> {
    /// Checks the tree out into the folder, and removes from the folder what must not be pushed. The files that remain
    /// become the wanted ones.
    pub(super) fn lay_out(&mut self, choice: &mut Choice) -> Result<(), BackupError> {
        let listing = tree::write(self.git, "push.listing", &choice.tree, "")?;
        let laid_out = self.git.compose(&listing)?;
        self.git.check_out(Some(&laid_out))?;
        if self.source.request.workspace != *self.workspace() && !self.options.enables {
            self.turn_off(choice)?;
        }
        let mut leading_out = BTreeSet::new();
        for path in choice.laid_out() {
            let Some(item) = choice.items.get(&path) else { continue };
            let has_file = |path: &str| is_readable_for_wmill(&self.git.tree_folder().join(path));
            let leads_out =
                |content: Vec<u8>| references::leads_out(item, &path, &String::from_utf8_lossy(&content), has_file);
            if self.content(&path)?.is_none_or(leads_out) {
                leading_out.insert(item.clone());
            }
        }
        let of_items = choice.items.iter().filter(|(_, id)| leading_out.contains(*id));
        for path in of_items.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.withhold(choice, path)?;
        }
        self.warn(
            "these are left out, since they refer to a file outside of the item, or have a reference that cannot be \
             checked",
            &leading_out.iter().map(ToString::to_string).collect(),
        );
        let staged = self.staged()?;
        for path in choice.laid_out() {
            let entry = staged.get(&path).cloned();
            choice.wanted.insert(path, entry);
        }
        Ok(())
    }

    /// Turns off the switches of the chosen schedules and triggers.
    fn turn_off(&mut self, choice: &mut Choice) -> Result<(), BackupError> {
        let (mut named, mut left) = (Sample::default(), Sample::default());
        for path in choice.laid_out() {
            let kind = choice.items.get(&path).map(|id| id.kind);
            if !matches!(kind, Some(ItemKind::Schedule | ItemKind::Trigger(_))) {
                continue;
            }
            named.add(path.as_bytes());
            match self.content(&path)?.and_then(|content| switches::disabled(&content)) {
                Some(content) => self.write(&path, &content)?,
                None => {
                    left.add(path.as_bytes());
                    self.withhold(choice, path)?;
                }
            }
        }
        self.warn("schedules and triggers arrive disabled in another workspace, unless --enable is given", &named);
        self.warn("these are left out, since their switch could not be found", &left);
        Ok(())
    }

    /// Warns about the files to push that wmill would change on the way.
    pub(super) fn warn_about_changes_by_wmill(&mut self, choice: &Choice) -> Result<(), BackupError> {
        let (mut rounded, mut marked) = (Sample::default(), Sample::default());
        for Change { path, .. } in choice.pushed() {
            let Some(content) = self.content(path)? else { continue };
            let is_yaml = path.ends_with(".yaml");
            if is_yaml && has_number_to_be_rounded(&String::from_utf8_lossy(&content)) {
                rounded.add(path.as_bytes());
            } else if !is_yaml && content.starts_with(BYTE_ORDER_MARK) {
                marked.add(path.as_bytes());
            }
        }
        self.warn("wmill drops the byte order mark that these begin with", &marked);
        self.warn(
            "wmill rounds whole numbers above 2^53, at a backup and at a restore, so those in these files may not be the \
             ones that Windmill had",
            &rounded,
        );
        Ok(())
    }

    /// Removes a file from the folder, so that wmill does not get it.
    fn withhold(&self, choice: &mut Choice, path: String) -> Result<(), BackupError> {
        let file = self.git.tree_folder().join(&path);
        choice.withheld.insert(path);
        Ok(files::remove_file(&file)?)
    }

    /// Returns a file in the folder; `None` if there is no such file, or if it is too large.
    fn content(&self, path: &str) -> Result<Option<Vec<u8>>, BackupError> {
        match files::read_file(&self.git.tree_folder().join(path), FILE_BYTES_MAX + 1) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(read?).filter(|content| content.len() as u64 <= FILE_BYTES_MAX)),
        }
    }
}

impl Choice {
    /// Returns the changes that wmill gets.
    pub(super) fn pushed(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| !self.withheld.contains(&change.path))
    }

    /// Returns the wanted files that wmill gets.
    pub(super) fn laid_out(&self) -> Vec<String> {
        let wanted = self.wanted.iter().filter(|(path, entry)| entry.is_some() && !self.withheld.contains(*path));
        wanted.map(|(path, _)| path.clone()).collect()
    }
}

/// Returns whether this is a file that `wmill` can read, which is not one in UTF-16 or UTF-32.
fn is_readable_for_wmill(file: &Path) -> bool {
    let marks: [&[u8]; 3] = [b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"];
    files::read_file(file, 4).is_ok_and(|start| !marks.iter().any(|mark| start.starts_with(mark)))
}

/// Returns whether the text has a whole number that wmill rounds, or has rounded in the backup.
fn has_number_to_be_rounded(content: &str) -> bool {
    content.lines().any(|line| {
        let value = line.rsplit([' ', ',', '[', ':']).find(|part| !part.is_empty()).unwrap_or_default();
        let digits = value.strip_prefix('-').unwrap_or(value).trim_end_matches([',', ']', '}']);
        digits.len() >= 16
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && digits.parse::<u128>().ok().is_none_or(|whole| whole > WHOLE_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_javascript_rounds_or_has_rounded_is_seen() {
        for (text, expected) in [
            ("channel: 175928847299117063", true),
            ("  - -1001234567890123457", true),
            ("a: [1, 9007199254740993]", true),
            ("channel: 175928847299117060", true),
            ("channel: 1000000000000000000000000000000000000000000", true),
            ("channel: 9007199254740992", false),
            ("channel: '175928847299117063'", false),
            ("channel: 12", false),
        ] {
            assert_eq!(has_number_to_be_rounded(text), expected, "{text}");
        }
    }
}
