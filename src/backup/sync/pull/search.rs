//! Finds the items that `wmill` cannot write, if it fails and does not name them.

use std::collections::{BTreeMap, BTreeSet};

use super::pull_archive;
use crate::backup::error::BackupError;
use crate::backup::run_context::RunContext;
use crate::git::Git;
use crate::model::result_code::Code;
use crate::util::retry::Retry;
use crate::windmill::cli;
use crate::windmill::snapshot::{self, FoundItem, Snapshot};

/// With more bad items than this, the cause is the export as a whole.
const BAD_ITEMS_MAX: usize = 20;
/// Length limit for wmill's error text in a result.
const REASON_CHARS_MAX: usize = 300;
/// The beginning of the reason for which such an item is left out.
const CANNOT_WRITE: &str = "wmill cannot write it: ";
/// The texts around what wmill could not do, in its message about an entry of the export. The entry's name follows.
const NAMES_ENTRY: [&str; 2] = ["Failed to ", " at path: "];

/// A search for the items that wmill cannot write. It leaves them out of the snapshot.
pub(super) struct Search<'a> {
    pub(super) run: RunContext<'a>,
    pub(super) git: &'a Git<'a>,
    /// The `wmill.yaml` for pulls of single items. It has to ask for the same export as the pull that failed.
    pub(super) configuration: &'a str,
    /// Items that earlier syncs found. They do not count as too many.
    pub(super) suspects: &'a [FoundItem],
}

impl Search<'_> {
    /// Pulls. If wmill fails because of an item, pulls without it.
    ///
    /// # Errors
    /// The errors of `pull`. If there are too many bad items, or they are not found in time, the first of these errors.
    pub(super) fn pull<T>(
        &self,
        snapshot: &mut Snapshot,
        pull: impl Fn(&Snapshot) -> Result<T, BackupError>,
    ) -> Result<T, BackupError> {
        let first = match pull(snapshot) {
            Err(error) if error.retry == Retry::EmptyFolder => error,
            other => return other,
        };
        match self.pull_without_bad_items(&first.message, snapshot, pull) {
            Ok(Some(pulled)) => return Ok(pulled),
            Ok(None) => {}
            Err(error) if error.code == Code::ShuttingDown => return Err(error),
            // The first error says why there was a search.
            Err(error) => log::warn!("the search for items that wmill cannot write ended: {}", error.message),
        }
        Err(BackupError { retry: Retry::Never, ..first })
    }

    /// Returns `None` if it does not find the bad items, or if there are too many.
    fn pull_without_bad_items<T>(
        &self,
        first: &str,
        snapshot: &mut Snapshot,
        pull: impl Fn(&Snapshot) -> Result<T, BackupError>,
    ) -> Result<Option<T>, BackupError> {
        let mut named = named_item(first, snapshot);
        if self.try_suspects(snapshot)? {
            match written(pull(snapshot))? {
                Ok(pulled) => return Ok(Some(pulled)),
                Err(why) => named = named_item(&why, snapshot),
            }
        }
        let before = snapshot.left_out.named.len();
        // wmill may name the item. If it was the last bad one, no search is needed.
        while let Some(item) = named {
            if snapshot.left_out.named.len() - before >= BAD_ITEMS_MAX {
                return Ok(None);
            }
            // The contents of files are among wmill's output, and may look like its message.
            let Err(why) = self.pull_only(&[&item], snapshot)? else { break };
            leave_out(snapshot, &item, &why);
            match written(pull(snapshot))? {
                Ok(pulled) => return Ok(Some(pulled)),
                Err(why) => named = named_item(&why, snapshot),
            }
        }
        log::info!("searching for the items that wmill cannot write");
        if self.halve(snapshot, before)? { Ok(pull(snapshot).ok()) } else { Ok(None) }
    }

    /// Leaves out those of the suspects that have not changed and fail again. Returns whether there are any.
    fn try_suspects(&self, snapshot: &mut Snapshot) -> Result<bool, BackupError> {
        let suspects = self.suspects.iter().filter(|one| one.reason.starts_with(CANNOT_WRITE));
        let suspects: BTreeMap<&str, &str> = suspects.map(|one| (&*one.item, &*one.digest)).collect();
        let items = suspects.keys().map(|item| (*item).to_owned()).collect();
        let now = snapshot.digests_of(&items).map_err(|error| self.run.disk(&error))?;
        let before = snapshot.left_out.named.len();
        for (item, digest) in suspects {
            if now.get(item).is_none_or(|now| now != digest) || snapshot.left_out.named.contains_key(item) {
                continue;
            }
            if let Err(why) = self.pull_only(&[item], snapshot)? {
                leave_out(snapshot, item, &why);
            }
        }
        Ok(snapshot.left_out.named.len() > before)
    }

    /// Pulls halves of what fails, down to single items. Returns whether it found bad items, and not too many. If
    /// wmill also fails without any item, no item is the cause. `before` is the number of items that were left out
    /// earlier.
    fn halve(&self, snapshot: &mut Snapshot, before: usize) -> Result<bool, BackupError> {
        let items = snapshot.names_of_items().map_err(|error| self.run.disk(&error))?;
        let mut suspects = vec![&items[..], &[]];
        // The last half comes first, so that the search reaches single items after few pulls.
        while let Some(some) = suspects.pop() {
            let only: Vec<&str> = some.iter().map(String::as_str).collect();
            match (self.pull_only(&only, snapshot)?, some) {
                (Ok(()), _) => {}
                (Err(_), []) => return Ok(false),
                (Err(why), [item]) => leave_out(snapshot, item, &why),
                (Err(_), _) => {
                    let (left, right) = some.split_at(some.len() / 2);
                    suspects.extend([right, left]);
                }
            }
            if snapshot.left_out.named.len() - before > BAD_ITEMS_MAX {
                return Ok(false);
            }
        }
        Ok(snapshot.left_out.named.len() > before)
    }

    /// Pulls only these items, into an empty folder. See [`written`].
    fn pull_only(&self, items: &[&str], snapshot: &Snapshot) -> Result<Result<(), String>, BackupError> {
        let items: BTreeSet<&str> = items.iter().copied().collect();
        let archive = snapshot.part(|name| items.contains(&*snapshot::item_of_entry(name)));
        let archive = archive.map_err(|error| self.run.disk(&error))?;
        written(pull_archive(self.run, self.git, snapshot, &archive, None, self.configuration))
    }
}

/// Returns the inner error if something in the export may have stopped wmill.
fn written<T>(pulled: Result<T, BackupError>) -> Result<Result<T, String>, BackupError> {
    match pulled {
        Ok(pulled) => Ok(Ok(pulled)),
        Err(error) if error.retry == Retry::EmptyFolder => Ok(Err(error.message)),
        Err(error) => Err(error),
    }
}

/// Returns the item that wmill names as unreadable, in the last of its messages.
fn named_item(message: &str, snapshot: &Snapshot) -> Option<String> {
    let [start, before_name] = NAMES_ENTRY;
    let mut named = message.lines().filter_map(|line| line.strip_prefix(start)?.split_once(before_name));
    let item = snapshot::item_of_entry(named.next_back()?.1.trim());
    snapshot.names_of_items().is_ok_and(|items| items.contains(&item)).then_some(item)
}

fn leave_out(snapshot: &mut Snapshot, item: &str, message: &str) {
    let reason = reason(message);
    log::warn!("{item} is left out, since wmill cannot write it: {reason}");
    snapshot.leave_out(item, &[CANNOT_WRITE, &*reason].concat());
}

/// Returns the line of wmill's output that says what is wrong.
fn reason(message: &str) -> String {
    let printed = message.split_once(": ").map_or(message, |(_, printed)| printed);
    let is_error = |line: &&str| !line.is_empty() && !line.starts_with("at ") && !cli::is_progress(line);
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(is_error).collect();
    let line = lines.iter().find(|line| line.contains("Error") || line.contains("Refusing")).or(lines.last());
    line.unwrap_or(&printed.trim()).chars().take(REASON_CHARS_MAX).collect()
}
