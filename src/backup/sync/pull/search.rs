//! Finds the items that `wmill` cannot write, and leaves them out of the snapshot.

use std::collections::BTreeSet;
use std::io;
use std::slice;

use super::{PullBase, WholePull};
use crate::backup::error::BackupError;
use crate::model::result_code::Code;
use crate::util::retry::Retry;
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
    /// The errors of the pull. If there are too many bad items, or they are not found in time, the first of these errors.
    pub(super) fn pull(&self, snapshot: &mut Snapshot) -> Result<PullBase, BackupError> {
        let first = match self.attempt(snapshot) {
            Err(error) if error.retry == Retry::EmptyFolder => error,
            other => return other,
        };
        match self.pull_without_bad_items(&first.message, snapshot) {
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

    /// Returns `None` if it does not find the bad items, or if there are too many.
    fn pull_without_bad_items(&self, first: &str, snapshot: &mut Snapshot) -> Result<Option<PullBase>, BackupError> {
        let before = snapshot.left_out.named.len();
        let mut named = named_item(first, snapshot);
        // wmill may name the item. Contents of files are among its output too, so the item is pulled alone before.
        while let Some(item) = named {
            if snapshot.left_out.named.len() - before >= BAD_ITEMS_MAX {
                return Ok(None);
            }
            let Err(why) = self.pull_only(slice::from_ref(&item), snapshot)? else { break };
            leave_out(snapshot, &item, &why);
            match self.attempt(snapshot) {
                Err(error) if error.retry == Retry::EmptyFolder => named = named_item(&error.message, snapshot),
                other => return other.map(Some),
            }
        }
        log::info!("searching for the items that wmill cannot write");
        if self.leave_out_bad_items(snapshot)? { self.attempt(snapshot).map(Some) } else { Ok(None) }
    }

    /// Pulls the suspects, and halves of what fails, down to single items. Returns whether it found bad items, and not
    /// too many. If wmill also fails without any item, no item is the cause.
    fn leave_out_bad_items(&self, snapshot: &mut Snapshot) -> Result<bool, BackupError> {
        let known = self.unchanged_suspects(snapshot)?;
        let items = snapshot.item_ids()?;
        let (before, mut new) = (snapshot.left_out.named.len(), 0);
        // The last one comes first, so that the search reaches single items after few pulls.
        let mut pending = vec![&items[..]];
        pending.extend(known.chunks(1).chain([&[][..]]));
        while let Some(some) = pending.pop() {
            match (self.pull_only(some, snapshot)?, some) {
                (Ok(()), _) => {}
                (Err(_), []) => return Ok(false),
                (Err(why), [item]) => {
                    leave_out(snapshot, item, &why);
                    new += usize::from(!known.contains(item));
                }
                (Err(_), _) => {
                    let (left, right) = some.split_at(some.len() / 2);
                    pending.extend([right, left]);
                }
            }
            if new > BAD_ITEMS_MAX {
                return Ok(false);
            }
        }
        Ok(snapshot.left_out.named.len() > before)
    }

    /// Returns the items that wmill could not write, if they have not changed since.
    fn unchanged_suspects(&self, snapshot: &Snapshot) -> io::Result<Vec<ItemId>> {
        let mut suspects = snapshot.unchanged(self.suspects)?;
        suspects.retain(|(item, found)| {
            found.reason.starts_with(CANNOT_WRITE) && !snapshot.left_out.named.contains_key(item)
        });
        Ok(suspects.into_iter().map(|(item, _)| item).collect())
    }

    /// Pulls only these items, into an empty folder. Returns the inner error if something in the export may have stopped
    /// wmill.
    fn pull_only(&self, items: &[ItemId], snapshot: &Snapshot) -> Result<Result<(), String>, BackupError> {
        let items: BTreeSet<&ItemId> = items.iter().collect();
        let archive = snapshot.part(|name| items.contains(&snapshot::item_of_entry(name)))?;
        // Without patterns, as for the pull into an empty folder.
        match self.pull_archive(snapshot, &archive, None, &self.plan.text_without_patterns) {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.retry == Retry::EmptyFolder => Ok(Err(error.message)),
            Err(error) => Err(error),
        }
    }
}

/// Returns the item that wmill names in its output.
fn named_item(message: &str, snapshot: &Snapshot) -> Option<ItemId> {
    let [start, before_name] = NAMES_ENTRY;
    let mut named = message.lines().filter_map(|line| line.strip_prefix(start)?.split_once(before_name));
    let item = snapshot::item_of_entry(named.next_back()?.1.trim());
    snapshot.item_ids().is_ok_and(|items| items.contains(&item)).then_some(item)
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
