//! Finds the items that `wmill` cannot write, and leaves them out of the snapshot.

use std::collections::BTreeSet;
use std::io;

use super::{PullBase, WholePull};
use crate::backup::error::BackupError;
use crate::model::Code;
use crate::util::Retry;
use crate::windmill::cli;
use crate::windmill::item_path::ItemId;
use crate::windmill::snapshot::{self, Snapshot};

/// With more bad items than this, the cause is the export as a whole.
const BAD_ITEMS_MAX: usize = 20;
/// Length limit for wmill's error text in a result.
const REASON_CHARS_MAX: usize = 300;
/// The beginning of the reason for which such an item is left out.
const CANNOT_WRITE: &str = "wmill cannot write it: ";
/// What wmill prints before the kind and before the name of an entry that it cannot write.
const NAMES_ENTRY: [&str; 2] = ["Failed to ", " at path: "];

impl WholePull<'_> {
    /// Pulls. If wmill fails because of an item, pulls without it.
    ///
    /// # Errors
    /// The errors of the pull. If there are too many bad items, or they are not found in time, the first of these
    /// errors.
    pub(super) fn pull(&self, snapshot: &mut Snapshot) -> Result<PullBase, BackupError> {
        let first = match self.attempt(snapshot) {
            Err(error) if error.retry == Retry::EmptyFolder => error,
            other => return other,
        };
        let found = self.leave_out_bad_items(&first.message, snapshot);
        match found.and_then(|found| found.then(|| self.attempt(snapshot)).transpose()) {
            Ok(Some(base)) => return Ok(base),
            Ok(None) => {}
            Err(error) if error.code == Code::ShuttingDown => return Err(error),
            // The first error says why there was a search.
            Err(error) => {
                let why = self.run.in_last_step(error).message;
                log::warn!("the search for items that wmill cannot write ended: {why}");
            }
        }
        Err(BackupError { retry: Retry::Never, ..first })
    }

    /// Pulls the suspects, and splits what fails into parts, down to single items. Returns whether it found bad items,
    /// but not too many. If wmill also fails without any item, no item is the cause. `first` is the output of the first
    /// pull.
    fn leave_out_bad_items(&self, first: &str, snapshot: &mut Snapshot) -> Result<bool, BackupError> {
        log::info!("searching for the items that wmill cannot write");
        let known = self.unchanged_suspects(snapshot)?;
        let before = snapshot.left_out.len();
        let mut new = 0;
        let mut trusts_names = true;
        // The last entry is pulled first, so that the search reaches single items after few pulls.
        let mut pending = Vec::from(parts(snapshot.item_ids()?, named_item(first).as_ref()));
        pending.extend(known.iter().map(|item| vec![item.clone()]).chain([Vec::new()]));
        while let Some(items) = pending.pop() {
            let Err(why) = self.pull_only(&items, snapshot)? else {
                // The output may name a good item if the name is part of a file's content.
                trusts_names &= items.len() != 1;
                continue;
            };
            match items.as_slice() {
                [] => return Ok(false),
                [item] => {
                    leave_out(snapshot, item, &why);
                    new += usize::from(!known.contains(item));
                }
                _ => pending.extend(parts(items, named_item(&why).as_ref().filter(|_| trusts_names))),
            }
            if new > BAD_ITEMS_MAX {
                return Ok(false);
            }
        }
        Ok(snapshot.left_out.len() > before)
    }

    /// Returns the items that wmill could not write, if they have not changed since.
    fn unchanged_suspects(&self, snapshot: &Snapshot) -> io::Result<Vec<ItemId>> {
        let mut suspects = snapshot.unchanged(self.suspects)?;
        suspects
            .retain(|(item, found)| found.reason.starts_with(CANNOT_WRITE) && !snapshot.left_out.contains_key(item));
        Ok(suspects.into_iter().map(|(item, _)| item).collect())
    }

    /// Pulls only these items, into an empty folder. Returns the inner error if something in the export may have
    /// stopped wmill.
    fn pull_only(&self, items: &[ItemId], snapshot: &Snapshot) -> Result<Result<(), String>, BackupError> {
        let items: BTreeSet<&ItemId> = items.iter().collect();
        let archive = snapshot.part(|name| items.contains(&snapshot::item_of_entry(name)))?;
        // The configuration has no patterns, as for the pull into an empty folder.
        match self.pull_archive(snapshot, &archive, None, &self.plan.text_without_patterns) {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.retry == Retry::EmptyFolder => Ok(Err(error.message)),
            Err(error) => Err(error),
        }
    }
}

/// Returns the item that wmill names in its output.
fn named_item(message: &str) -> Option<ItemId> {
    let [start, before_name] = NAMES_ENTRY;
    let mut named = message.lines().filter_map(|line| line.strip_prefix(start)?.split_once(before_name));
    Some(snapshot::item_of_entry(named.next_back()?.1.trim()))
}

/// Returns two parts of the items: all others and the named one, or the halves.
fn parts(mut items: Vec<ItemId>, named: Option<&ItemId>) -> [Vec<ItemId>; 2] {
    if let Some(index) = items.iter().position(|item| Some(item) == named) {
        let named = items.remove(index);
        return [items, vec![named]];
    }
    let left = items.drain(..items.len() / 2).collect();
    [items, left]
}

fn leave_out(snapshot: &mut Snapshot, item: &ItemId, message: &str) {
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
