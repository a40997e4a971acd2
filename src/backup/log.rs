//! The history of a backup by item: which commit added, modified and deleted what. It needs only git.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use miniserde::Serialize;

use crate::backup::{Env, Pattern, Place, branch_history};
use crate::git::{Git, LoggedCommit, Mark};
use crate::model::Result;
use crate::util::{printable, time};
use crate::windmill::ItemId;
use crate::windmill::item_path::{item_of, proves_existence};

/// The default of `--limit`.
pub const LIMIT_DEFAULT: usize = 20;
/// The maximum of `--limit`. For a longer list there is `git log` in a clone.
pub const LIMIT_MAX: usize = 10_000;

/// Digits of a commit's id in the table.
const SHORT_ID: usize = 10;

/// After this many older commits in a row, no more of the history is fetched for `--since`. An older commit may have a
/// later time, if it was made on a machine with a wrong clock. This number is less than the first fetch brings, so that
/// a recent time needs no second fetch.
const OLDER_IN_A_ROW_MAX: usize = 32;

/// Which commits to list.
pub struct LogOptions {
    /// Only items that match one of these patterns; all items if empty.
    pub paths: Vec<Pattern>,
    /// Only commits of this time or later.
    pub since: Option<SystemTime>,
    /// Only commits of this time or earlier.
    pub until: Option<SystemTime>,
    /// The maximum number of commits.
    pub limit: usize,
}

/// The commits, newest first.
#[derive(Serialize)]
pub struct Log {
    /// Each commit that changed a chosen item.
    pub commits: Vec<Entry>,
    /// Whether the history was fetched to its beginning.
    pub complete: bool,
}

/// One commit.
#[derive(Serialize)]
pub struct Entry {
    /// Its id.
    pub commit: String,
    /// Its committer time, as in `2026-11-28T14:00:00Z`.
    pub time: String,
    /// Its author, as `Name <address>`.
    pub author: String,
    /// Items that this commit added, as `script f/ops/a`.
    pub added: Vec<String>,
    /// Items that it modified.
    pub modified: Vec<String>,
    /// Items that it deleted.
    pub deleted: Vec<String>,
}

impl Log {
    /// Returns the commits as a table for people.
    pub fn to_table(&self, now: SystemTime) -> String {
        let mut text = String::new();
        for Entry { commit, time: at, author, added, modified, deleted } in &self.commits {
            let age = time::from_text(at).and_then(|at| now.duration_since(at).ok());
            let age = age.map_or_else(String::new, |age| format!(" ({} ago)", in_words(age)));
            let shown = at.replace('T', " ").replace('Z', " UTC");
            let _ = writeln!(text, "{}  {shown}{age}  {author}", &commit[..commit.len().min(SHORT_ID)]);
            for (change, items) in [("added", added), ("modified", modified), ("deleted", deleted)] {
                for item in items {
                    let _ = writeln!(text, "    {change:<9} {item}");
                }
            }
        }
        if self.commits.is_empty() {
            text.push_str("no commit of the backup changed such an item\n");
        }
        if !self.complete {
            text.push_str("older commits were not read; --limit, --since and --path reach further back\n");
        }
        text
    }
}

/// Returns a time span in its largest unit.
fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Lists the commits of the configured backup.
///
/// # Errors
/// `BackupError` if the settings are wrong, the disk or git fails, or the time runs out.
pub fn run(env: &Env<'_>, options: &LogOptions) -> Result<Log> {
    let place = Place::of(env.config)?;
    let (prefix, mut commits) = (place.subdir.prefix(), Vec::new());
    let complete = branch_history::fetch_until(env, &place.branch, options.limit, &mut |git, _| {
        let (found, is_enough) = read(git, &prefix, options)?;
        commits = found;
        Ok(is_enough)
    })?;
    Ok(Log { commits, complete })
}

/// Returns the chosen commits among the fetched ones, and whether older commits cannot add anything.
fn read(git: &Git<'_>, prefix: &str, options: &LogOptions) -> Result<(Vec<Entry>, bool)> {
    let (mut commits, mut older_in_a_row, mut is_enough) = (Vec::new(), 0, false);
    // The times of all commits show where the history is old enough, even if few commits changed the folder.
    let folder = if options.since.is_some() { "" } else { prefix.trim_end_matches('/') };
    git.log(folder, &mut |commit| {
        if options.since.is_some_and(|since| commit.time < since) {
            older_in_a_row += 1;
            is_enough |= older_in_a_row == OLDER_IN_A_ROW_MAX;
            return true;
        }
        older_in_a_row = 0;
        if options.until.is_none_or(|until| commit.time <= until)
            && let Some(entry) = entry_of(&commit, prefix, &options.paths)
        {
            commits.push(entry);
        }
        let is_full = commits.len() >= options.limit;
        is_enough |= is_full;
        !is_full
    })?;
    Ok((commits, is_enough))
}

/// Returns what a commit changes in the chosen items; `None` if it changes nothing in them.
fn entry_of(commit: &LoggedCommit, prefix: &str, patterns: &[Pattern]) -> Option<Entry> {
    let mut items: BTreeMap<ItemId, Option<Mark>> = BTreeMap::new();
    for (change, path) in &commit.files {
        let Some(path) = path.strip_prefix(prefix) else { continue };
        let Some(item) = item_of(path) else { continue };
        let is_chosen = |pattern: &Pattern| pattern.matches(path) || pattern.matches(&item.path);
        if !patterns.is_empty() && !patterns.iter().any(is_chosen) {
            continue;
        }
        let of_item = items.entry(item).or_default();
        // An item does not exist without its main file. Other files that were added or deleted modify it.
        if *change == Mark::Modified || proves_existence(path) {
            let is_same = of_item.is_none_or(|other| other == *change);
            *of_item = Some(if is_same { *change } else { Mark::Modified });
        }
    }
    if items.is_empty() {
        return None;
    }
    let named = |wanted: Mark| {
        let of_kind = items.iter().filter(|(_, change)| change.unwrap_or(Mark::Modified) == wanted);
        of_kind.map(|(item, _)| printable(item.to_string().as_bytes())).collect()
    };
    Some(Entry {
        commit: commit.id.to_string(),
        time: time::to_text(commit.time),
        author: printable(commit.author.as_bytes()),
        added: named(Mark::Added),
        modified: named(Mark::Modified),
        deleted: named(Mark::Deleted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::ObjectId;

    fn commit(files: &[(Mark, &str)]) -> LoggedCommit {
        LoggedCommit {
            id: ObjectId::parse(&"1".repeat(40)).expect("40 digits"),
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000),
            author: "A <a@b>\n".to_owned(),
            files: files.iter().map(|(change, path)| (*change, (*path).to_owned())).collect(),
        }
    }

    #[test]
    fn changed_files_are_listed_by_item() {
        use Mark::{Added, Deleted, Modified};
        let commit = commit(&[
            (Added, "b/f/ops/a.py"),
            (Added, "b/f/ops/a.script.yaml"),
            (Modified, "b/f/ops/x.flow/flow.yaml"),
            (Deleted, "b/f/ops/x.flow/step.ts"),
            (Deleted, "b/f/ops/y.variable.yaml"),
            (Added, "b/f/ops/z.script.lock"),
            (Added, "b/README.md"),
            (Added, "f/ops/elsewhere.variable.yaml"),
        ]);
        let entry = entry_of(&commit, "b/", &[]).expect("items");
        assert_eq!(entry.added, ["script f/ops/a"]);
        assert_eq!(entry.modified, ["script f/ops/z", "flow f/ops/x"]);
        assert_eq!(entry.deleted, ["variable f/ops/y"]);
        assert!(!entry.author.contains('\n'), "{}", entry.author);
        let only = |pattern: &str| entry_of(&commit, "b/", &[Pattern::parse(pattern).expect("a pattern")]);
        assert_eq!(only("f/ops/y").expect("the variable").deleted, ["variable f/ops/y"]);
        assert_eq!(only("f/ops/**").expect("all").modified.len(), 2);
        assert!(only("f/other/**").is_none());
    }

    #[test]
    fn a_span_is_shown_in_its_largest_unit() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (60, "1 minute"),
            (3_599, "59 minutes"),
            (172_799, "47 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
