//! Prepares the folder that `wmill` pushes: turns switches off, leaves out items that refer to files outside of them,
//! and finds files that `wmill` would change.

use std::collections::BTreeSet;
use std::path::Path;

use crate::backup::restore::select::{CANNOT_PUSH, Change, Choice, Tree};
use crate::backup::restore::{RestoreRun, references, switches, write_tree};
use crate::git::Mark;
use crate::model::Result;
use crate::util::{Node, files, yaml};
use crate::windmill::{ItemKind, item_path};

/// A larger file is not checked, and its item is left out.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Above this number, JavaScript cannot represent every whole number.
const WHOLE_MAX: u128 = 1 << 53;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl RestoreRun<'_> {
    /// Checks the files for wmill out into the folder, turns switches off, and removes what must not be pushed. The
    /// files that remain become the wanted ones.
    pub(super) fn lay_out(&mut self, choice: &mut Choice, of_commit: &Tree) -> Result<()> {
        let listing = write_tree(self.git, "push.listing", &self.files_for_wmill(choice, of_commit), "")?;
        self.git.check_out(Some(&self.git.compose(&listing)?))?;
        let disables = self.source.request.workspace != *self.workspace() && !self.options.enables;
        let mut leading_out = BTreeSet::new();
        let paths: Vec<String> = choice.files_to_push().map(|(path, _)| path.clone()).collect();
        for path in &paths {
            let Some(item) = self.item(path) else { continue };
            let mut content = self.content(path)?;
            if disables && matches!(item.kind, ItemKind::Schedule | ItemKind::Trigger(_)) {
                let what = "schedules and triggers arrive disabled in another workspace, unless --enable is given";
                self.report.warn_of(what, path);
                content = content.and_then(|content| switches::disabled(&content, item.kind));
                let Some(content) = &content else {
                    let why = "these are left out, since their switch could not be found";
                    choice.withheld.insert(path.clone(), why);
                    continue;
                };
                self.write(path, content)?;
            }
            if let Some(why) = self.why_it_stops_a_push(choice, path, content.as_deref()) {
                choice.withheld.insert(path.clone(), why);
                continue;
            }
            let has_file = |path: &str| is_readable_for_wmill(&self.git.tree_folder().join(path));
            let leads_out =
                |content: Vec<u8>| references::leads_out(&item, path, &String::from_utf8_lossy(&content), has_file);
            if content.is_none_or(leads_out) {
                leading_out.insert(item);
            }
        }
        let paths = choice.wanted.keys().filter(|path| self.item(path).is_some_and(|item| leading_out.contains(&item)));
        choice.withheld.extend(paths.map(|path| (path.clone(), CANNOT_PUSH)));
        for item in leading_out {
            let what = "these are left out, since they refer to a file outside of the item, or have a reference that cannot \
                        be checked";
            self.report.warn_of(what, item.to_string());
        }
        for path in choice.withheld.keys() {
            files::remove_file(&self.git.tree_folder().join(path))?;
        }
        let staged = self.staged()?;
        for (path, entry) in choice.wanted.iter_mut().filter(|(path, _)| !choice.withheld.contains_key(*path)) {
            if entry.is_some() {
                *entry = staged.get(path).cloned();
            }
        }
        Ok(())
    }

    /// Warns about the files to push that wmill would change.
    pub(super) fn warn_about_changes_by_wmill(&mut self, choice: &Choice) -> Result<()> {
        for Change { path, .. } in choice.pushed().filter(|change| change.mark != Mark::Deleted) {
            let Some(content) = self.content(path)? else { continue };
            let is_yaml = path.ends_with(".yaml");
            if is_yaml && has_number_to_be_rounded(&String::from_utf8_lossy(&content)) {
                let what = "wmill rounds whole numbers above 2^53, at a backup and at a restore, so those in these files may \
                            not be the ones that Windmill had";
                self.report.warn_of(what, path);
            } else if !is_yaml && content.starts_with(BYTE_ORDER_MARK) {
                self.report.warn_of("wmill drops the byte order mark that these begin with", path);
            }
        }
        Ok(())
    }

    /// Returns the reason if wmill would end with an error at this file, and push nothing more.
    fn why_it_stops_a_push(&self, choice: &Choice, path: &str, content: Option<&[u8]>) -> Option<&'static str> {
        let (current, wanted) = (choice.current.get(path), choice.wanted.get(path).and_then(Option::as_ref));
        let is_own = item_path::common_path(path, self.workspace().as_str()).is_some();
        if current == wanted {
            None
        } else if path.ends_with(".resource.yaml") && content.is_some_and(has_no_value) {
            Some("these resources have no value, and wmill cannot push them")
        } else if path.contains(".resource.file.") && is_own && current.is_some() {
            Some(
                "wmill cannot push a changed file of a resource of one workspace, so these do not come back; they do if the \
                 resource is deleted in Windmill first",
            )
        } else {
            None
        }
    }

    /// Returns a file in the folder; `None` if there is no such file, or if it is too large.
    fn content(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match files::read_file(&self.git.tree_folder().join(path), FILE_BYTES_MAX + 1) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(read?).filter(|content| content.len() as u64 <= FILE_BYTES_MAX)),
        }
    }
}

/// Returns whether `wmill` can read this file. It cannot read UTF-16 and UTF-32.
fn is_readable_for_wmill(file: &Path) -> bool {
    let marks: [&[u8]; 3] = [b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"];
    files::read_file(file, 4).is_ok_and(|start| !marks.iter().any(|mark| start.starts_with(mark)))
}

/// Returns whether the file of a resource has no value, or null.
fn has_no_value(content: &[u8]) -> bool {
    let fields = yaml::fields(content, content.len(), |key| key == "value");
    fields.is_ok_and(|fields| fields.iter().all(|(key, value)| key != "value" || *value == Node::Null))
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
    fn a_number_that_javascript_rounds_or_has_rounded_is_found() {
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
