//! `wmill sync pull` from a snapshot: the whole workspace into the repository's files or into an empty folder, or only
//! the items that changed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::backup::{RemoteTip, RunContext};
use crate::git::{EntryCheck, Git, GitPath, ObjectId, join, walk};
use crate::model::{BackupError, Code, Result};
use crate::util::{Retry, files, hash, printable, retry};
use crate::windmill::{
    Answers, Archive, ChangedGroups, FoundItem, ItemId, Plan, Snapshot, SnapshotServer, WMILL_LOCK, WMILL_YAML,
    WrittenFiles, cli, narrow, snapshot,
};

/// With a larger `wmill-lock.yaml`, each pull is a full one. The file has 1 MB for 10,000 scripts.
const LOCK_BYTES_MAX: u64 = 32 << 20;
/// With more bad items than this, the cause is the export as a whole.
const BAD_ITEMS_MAX: usize = 20;
/// Length limit for wmill's error text in a result.
const REASON_CHARS_MAX: usize = 300;
/// The byte order mark. `wmill` ignores it when it compares, so it does not write a file of which only the mark was
/// removed. During a pull, the files that begin with the mark end in a random word, so that `wmill` writes them.
const MARK: &[u8] = "\u{feff}".as_bytes();
/// Files with these extensions get no word, since `wmill` parses them. They do not hold the content of an item.
const PARSED: [&str; 3] = ["yaml", "yml", "json"];

/// A pull of a workspace.
pub struct Pull<'a> {
    /// The run.
    pub run: RunContext<'a>,
    /// The checkout.
    pub git: &'a Git<'a>,
    /// What to pull.
    pub plan: &'a Plan,
    /// The tree that the folder holds before a pull of the whole workspace; `None` for an empty folder.
    pub visible: Option<&'a ObjectId>,
    /// Items that earlier syncs found to be bad. They do not count towards the limit of bad items.
    pub suspects: &'a [FoundItem],
}

impl Pull<'_> {
    /// Pulls the whole workspace into a folder that holds `visible`, or into an empty one if these files stop wmill.
    /// Returns whether the folder held `visible`. Searches for items that wmill cannot write, first among `suspects`,
    /// and leaves them out of the snapshot. Items that wmill did not write are left out too. Then the pull is repeated
    /// without them, since wmill may have written some of their files.
    ///
    /// # Errors
    /// [`BackupError`] if wmill, git or the disk fails.
    pub fn whole(&self, snapshot: &mut Snapshot) -> Result<bool> {
        let held_visible = self.pull_good_items(snapshot)?;
        let mut written = WrittenFiles::default();
        for file in walk(self.git.tree_folder())? {
            if let Ok(path) = std::str::from_utf8(&file?.0) {
                written.add(path, self.run.request.workspace.as_str());
            }
        }
        let lacks_items = snapshot.leave_out_missing(&written, self.plan)?;
        if lacks_items { self.pull_good_items(snapshot) } else { Ok(held_visible) }
    }

    /// Pulls. If wmill fails because of an item, pulls without it.
    fn pull_good_items(&self, snapshot: &mut Snapshot) -> Result<bool> {
        let first = match self.attempt(snapshot) {
            Err(error) if error.retry == Retry::EmptyFolder => error,
            other => return other,
        };
        match self.leave_out_bad_items(snapshot) {
            Ok(true) => return self.attempt(snapshot),
            Ok(false) => {}
            Err(error) if error.code == Code::ShuttingDown => return Err(error),
            // The first error says why there was a search.
            Err(BackupError { code, message, .. }) => {
                log::warn!("the search for items that wmill cannot write ended: {}: {message}", code.as_str());
            }
        }
        Err(first)
    }

    /// Pulls what the snapshot has, without a search for bad items.
    fn attempt(&self, snapshot: &Snapshot) -> Result<bool> {
        let answers = self.answers(snapshot, snapshot.whole()?);
        match self.pull_archive(&answers, self.visible, &self.plan.text) {
            Ok(()) => Ok(true),
            Err(error) if error.retry == Retry::EmptyFolder && self.visible.is_some() => {
                log::warn!("pulling again, into an empty folder: {}", error.message);
                // Without patterns: an item that a pattern leaves out would look as if Windmill did not hold it.
                self.pull_archive(&answers, None, &self.plan.text_without_patterns).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Pulls parts of the items into an empty folder, and splits what fails into halves, down to single items. Returns
    /// whether it found bad items, but not too many. If wmill also fails without any item, no item is the cause.
    fn leave_out_bad_items(&self, snapshot: &mut Snapshot) -> Result<bool> {
        log::info!("searching for the items that wmill cannot write");
        let known = snapshot.unchanged(self.suspects)?.into_iter().map(|(item, _)| item);
        let known: BTreeSet<_> = known.filter(|item| !snapshot.left_out.contains_key(item)).collect();
        let (mut found, mut new) = (0, 0);
        // The last part is pulled first.
        let mut pending = vec![snapshot.item_ids()?];
        pending.extend(known.iter().map(|item| vec![item.clone()]).chain([Vec::new()]));
        while let Some(mut items) = pending.pop() {
            let wanted: BTreeSet<&ItemId> = items.iter().collect();
            let archive = snapshot.part(|name| wanted.contains(&snapshot::item_of_entry(name)))?;
            // The configuration has no patterns, as for the pull into an empty folder.
            let answers = self.answers(snapshot, archive);
            let error = match self.pull_archive(&answers, None, &self.plan.text_without_patterns) {
                Ok(()) => continue,
                Err(error) if error.retry == Retry::EmptyFolder => error,
                Err(error) => return Err(error),
            };
            match items.as_slice() {
                [] => return Ok(false),
                [item] => {
                    let reason = format!("wmill cannot write it: {}", reason(&error.message));
                    log::warn!("{item} is left out: {reason}");
                    snapshot.leave_out(item, &reason);
                    found += 1;
                    new += usize::from(!known.contains(item));
                }
                _ => {
                    let right = items.split_off(items.len() / 2);
                    pending.extend([items, right]);
                }
            }
            if new > BAD_ITEMS_MAX {
                return Ok(false);
            }
        }
        Ok(found > 0)
    }

    fn answers(&self, snapshot: &Snapshot, archive: Archive) -> Answers {
        let (query, sides) = (snapshot.query.clone(), snapshot.sides.clone());
        Answers { workspace: self.run.request.workspace.clone(), archive, query, sides }
    }

    /// Pulls into a folder that holds `visible` and this `wmill.yaml`. Each attempt begins with nothing else.
    fn pull_archive(&self, answers: &Answers, visible: Option<&ObjectId>, yaml: &str) -> Result<()> {
        let git = self.git;
        let (run_env, folder) = (git.run_env(), git.tree_folder());
        let own = folder.join(WMILL_YAML);
        let pull = || {
            files::write_file(&own, yaml.as_bytes())?;
            let word = hash::random_word()
                .ok_or_else(|| BackupError::new(Code::Internal, "the system gives no random numbers"))?;
            let marked = append_to_marked(folder, &word)?;
            let format = git.format();
            let server = SnapshotServer::start(answers.clone()).map_err(|error| BackupError::of_system(&error))?;
            let pulled = cli::pull(&answers.workspace, server, run_env, folder);
            git.configure(format)?;
            files::remove_file(&own)?;
            cut_off(&marked, &word)?;
            pulled
        };
        retry::patiently(&run_env.deadline, || {
            git.check_out(visible)?;
            pull()
        })
    }

    /// Pulls the items that changed, into a folder with their files and what they need. If it is not certain that a
    /// pull of the whole workspace would have had the same result, returns the reason.
    ///
    /// # Errors
    /// [`BackupError`] if git or the disk fails, or the time runs out.
    pub fn narrowed(&self, tip: &RemoteTip, snapshot: &Snapshot, changed: &ChangedGroups) -> Result<Option<String>> {
        let git = self.git;
        let is_shown = |path: &[u8], entry: &_| changed.is_shown(path) && !tip.is_withheld(path, entry);
        let (visible, _) = tip.folder.sifted(git.listing_place("narrowed.listing"), is_shown)?;
        let tree = git.compose(&visible)?;
        git.check_out(Some(&tree))?;
        let lock = git.tree_folder().join(WMILL_LOCK);
        let read_lock = || {
            let text = files::read_file(&lock, LOCK_BYTES_MAX + 1).ok()?;
            String::from_utf8(text).ok().filter(|text| text.len() as u64 <= LOCK_BYTES_MAX)
        };
        let before = read_lock();
        // On a file system that ignores case, wmill compares the names of the whole workspace.
        if fs::symlink_metadata(lock.with_file_name(WMILL_LOCK.to_uppercase())).is_ok() {
            return Ok(Some("the file system is not case-sensitive".to_owned()));
        }
        let mut answers = self.answers(snapshot, snapshot.part(|name| changed.has(name))?);
        // Without this endpoint, wmill does not touch the files of the shared UI.
        answers.sides.shared_ui = None;
        match self.pull_archive(&answers, Some(&tree), &self.plan.text) {
            Err(error) if error.is_end_of_run() => return Err(error),
            Err(error) => return Ok(Some(error.message)),
            Ok(()) => {}
        }
        let (Some(before), Some(after)) = (before, read_lock()) else {
            return Ok(Some("wmill-lock.yaml cannot be read".to_owned()));
        };
        if let Err(why) = narrow::check_lock(&before, &after, changed) {
            return Ok(Some(why.to_owned()));
        }
        let unexpected = unexpected_change(git, tip, changed)?;
        Ok(unexpected.map(|path| format!("`{}` does not belong to an item that changed", printable(&path))))
    }
}

/// Returns the line of wmill's output that says what is wrong.
fn reason(message: &str) -> String {
    let printed = message.split_once(": ").map_or(message, |(_, printed)| printed);
    let is_error = |line: &&str| !line.is_empty() && !line.starts_with("at ") && !cli::is_progress(line);
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(is_error).collect();
    let line = lines.iter().find(|line| line.contains("Error") || line.contains("Refusing")).or(lines.last());
    line.unwrap_or(&printed.trim()).chars().take(REASON_CHARS_MAX).collect()
}

/// Appends the word to every file that begins with the mark. Returns these files with their former lengths.
fn append_to_marked(folder: &Path, word: &str) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut marked = Vec::new();
    for file in walk(folder)? {
        let (_, path) = file?;
        let is_parsed = path.extension().is_some_and(|end| PARSED.iter().any(|parsed| end == *parsed));
        if !is_parsed && files::read_file(&path, MARK.len() as u64)? == MARK {
            let mut file = files::open_regular(File::options().append(true), &path)?;
            marked.push((path, file.metadata()?.len()));
            file.write_all(word.as_bytes())?;
        }
    }
    Ok(marked)
}

/// Removes the word from the files that `wmill` did not write.
fn cut_off(marked: &[(PathBuf, u64)], word: &str) -> io::Result<()> {
    for (path, length) in marked {
        let whole = length + word.len() as u64;
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == whole)
            && files::read_file(path, whole)?.ends_with(word.as_bytes())
        {
            files::open_regular(File::options().write(true), path)?.set_len(*length)?;
        }
    }
    Ok(())
}

/// Stages the pulled files. Returns a file that a narrowed pull should not have affected: a file of no changed item
/// that was added, changed or deleted, or a file of the repository that cannot stay beside the pulled files.
fn unexpected_change(git: &Git<'_>, tip: &RemoteTip, changed: &ChangedGroups) -> Result<Option<GitPath>> {
    let mut check = EntryCheck::default();
    for file in join(tip.folder.entries()?, git.stage()?.entries()?) {
        let (path, (before, after)) = file?;
        let is_of_changed = path == WMILL_LOCK.as_bytes() || changed.has(&path);
        let visible = before.as_ref().filter(|entry| changed.is_shown(&path) && !tip.is_withheld(&path, entry));
        let is_same = visible.map(|entry| &entry.object) == after.as_ref().map(|entry| &entry.object);
        let kept = if is_of_changed { after } else { before };
        if !(is_of_changed || is_same) || kept.is_some_and(|entry| !check.admits(&path, &entry)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

// WASI cannot start `wmill`.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::util::RunDir;

    #[test]
    fn a_file_that_wmill_does_not_write_keeps_its_content() {
        let run = RunDir::for_test("marked").expect("a folder");
        let folder = run.path();
        let marked = |text: &str| [MARK, text.as_bytes()].concat();
        let contents =
            [("left.ts", marked("a")), ("written.ts", marked("b")), ("gone.ts", marked("c")), ("a.yaml", marked("d"))];
        for (name, content) in &contents {
            fs::write(folder.join(name), content).expect("written");
        }
        fs::write(folder.join("plain.ts"), "e").expect("written");
        let taken = append_to_marked(folder, "word").expect("taken");
        for (name, content) in &contents {
            assert_eq!(fs::read(folder.join(name)).expect("read") == *content, *name == "a.yaml", "{name}");
        }
        fs::write(folder.join("written.ts"), "b").expect("written");
        fs::remove_file(folder.join("gone.ts")).expect("removed");
        cut_off(&taken, "word").expect("given back");
        assert_eq!(fs::read(folder.join("left.ts")).expect("read"), contents[0].1);
        assert_eq!(fs::read(folder.join("written.ts")).expect("read"), b"b");
        assert_eq!(fs::read(folder.join("plain.ts")).expect("read"), b"e");
        assert!(!folder.join("gone.ts").exists());
    }
}
