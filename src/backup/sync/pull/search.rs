//! Finds the items that `wmill` cannot write, if it fails and does not name them.

use std::collections::BTreeMap;

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

/// Pulls. If wmill fails because of an item, pulls without it. The items found are left out of the snapshot.
/// `configuration` is the `wmill.yaml` for pulls of single items. It has to ask for the same export as `pull`.
/// `suspects` were found by earlier syncs, and do not count as too many.
///
/// # Errors
/// The errors of `pull`. If there are too many bad items, or they are not found in time, the first of these errors.
pub(super) fn without_bad_items<T>(
    run: RunContext<'_>,
    git: &Git<'_>,
    snapshot: &mut Snapshot,
    configuration: &str,
    suspects: &[FoundItem],
    pull: impl Fn(&Snapshot) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let first = match pull(snapshot) {
        Err(error) if error.retry == Retry::EmptyFolder => error,
        other => return other.map_err(settled),
    };
    let mut named = named_item(&first.message, snapshot);
    match try_suspects(run, git, snapshot, configuration, suspects) {
        Ok(false) => {}
        Ok(true) => match pull(snapshot) {
            Err(next) if next.retry == Retry::EmptyFolder => named = named_item(&next.message, snapshot),
            Err(error) => return Err(ended(first, error)),
            pulled => return pulled,
        },
        Err(error) => return Err(ended(first, error)),
    }
    let before = snapshot.left_out().clone();
    // wmill may name the item. If it was the last bad one, no search is needed.
    while let Some(item) = named {
        if snapshot.left_out().len() - before.len() >= BAD_ITEMS_MAX {
            return Err(settled(first));
        }
        // The contents of files are among wmill's output, and may look like its message.
        match pull_only(run, git, snapshot, &[&item], configuration) {
            Ok(()) => break,
            Err(error) if error.retry == Retry::EmptyFolder => leave_out(snapshot, &item, &error.message),
            Err(error) => return Err(ended(first, error)),
        }
        match pull(snapshot) {
            Err(next) if next.retry == Retry::EmptyFolder => named = named_item(&next.message, snapshot),
            Err(error) => return Err(ended(first, error)),
            pulled => return pulled,
        }
    }
    log::info!("searching for the items that wmill cannot write");
    match search(run, git, snapshot, configuration, &before) {
        Ok(true) => pull(snapshot).map_err(|_| settled(first)),
        Ok(false) => Err(settled(first)),
        Err(error) => Err(ended(first, error)),
    }
}

/// Returns the error of a search that ended with an error of its own. The first one says why there was a search.
fn ended(first: BackupError, error: BackupError) -> BackupError {
    if error.code == Code::ShuttingDown {
        return error;
    }
    log::warn!("the search for items that wmill cannot write ended: {}", error.message);
    settled(first)
}

/// Makes an error final, so that no further attempt follows.
fn settled(error: BackupError) -> BackupError {
    if error.retry == Retry::EmptyFolder { BackupError { retry: Retry::Never, ..error } } else { error }
}

/// Leaves out those of the items found earlier that have not changed and fail again. Returns whether there are any.
fn try_suspects(
    run: RunContext<'_>,
    git: &Git<'_>,
    snapshot: &mut Snapshot,
    configuration: &str,
    suspects: &[FoundItem],
) -> Result<bool, BackupError> {
    let suspects = suspects.iter().filter(|one| one.reason.starts_with(CANNOT_WRITE));
    let suspects: BTreeMap<&str, &str> = suspects.map(|one| (&*one.item, &*one.digest)).collect();
    let items = suspects.keys().map(|item| (*item).to_owned()).collect();
    let (now, before) = (snapshot.digests_of(&items).map_err(|error| run.disk(&error))?, snapshot.left_out().len());
    for (item, digest) in suspects {
        if now.get(item).is_none_or(|now| now != digest) || snapshot.left_out().contains_key(item) {
            continue;
        }
        match pull_only(run, git, snapshot, &[item], configuration) {
            Ok(()) => {}
            Err(error) if error.retry == Retry::EmptyFolder => leave_out(snapshot, item, &error.message),
            Err(error) => return Err(error),
        }
    }
    Ok(snapshot.left_out().len() > before)
}

/// Pulls halves of what fails, down to single items. Returns whether it found bad items, and not too many. If wmill
/// also fails without any item, no item is the cause.
fn search(
    run: RunContext<'_>,
    git: &Git<'_>,
    snapshot: &mut Snapshot,
    configuration: &str,
    before: &BTreeMap<String, String>,
) -> Result<bool, BackupError> {
    let items = snapshot.names_of_items().map_err(|error| run.disk(&error))?;
    let mut suspects = vec![&items[..], &[]];
    // The last half comes first, so that the search reaches single items after few pulls.
    while let Some(some) = suspects.pop() {
        let only: Vec<&str> = some.iter().map(String::as_str).collect();
        match (pull_only(run, git, snapshot, &only, configuration), some) {
            (Ok(()), _) => {}
            (Err(error), []) if error.retry == Retry::EmptyFolder => return Ok(false),
            (Err(error), [item]) if error.retry == Retry::EmptyFolder => leave_out(snapshot, item, &error.message),
            (Err(error), _) if error.retry == Retry::EmptyFolder => {
                let (left, right) = some.split_at(some.len() / 2);
                suspects.extend([right, left]);
            }
            (Err(error), _) => return Err(error),
        }
        if snapshot.left_out().len() - before.len() > BAD_ITEMS_MAX {
            return Ok(false);
        }
    }
    Ok(snapshot.left_out().len() > before.len())
}

/// Pulls only these items, into an empty folder.
fn pull_only(
    run: RunContext<'_>,
    git: &Git<'_>,
    snapshot: &Snapshot,
    items: &[&str],
    configuration: &str,
) -> Result<(), BackupError> {
    let archive = snapshot.only(&items.iter().copied().collect()).map_err(|error| run.disk(&error))?;
    pull_archive(run, git, snapshot, &archive, None, configuration)
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
    snapshot.leave_out_found(item, &[CANNOT_WRITE, &*reason].concat());
}

/// Returns the line of wmill's output that says what is wrong.
fn reason(message: &str) -> String {
    let printed = message.split_once(": ").map_or(message, |(_, printed)| printed);
    let is_error = |line: &&str| !line.is_empty() && !line.starts_with("at ") && !cli::is_progress(line);
    let lines: Vec<&str> = printed.lines().map(str::trim).filter(is_error).collect();
    let line = lines.iter().find(|line| line.contains("Error") || line.contains("Refusing")).or(lines.last());
    line.unwrap_or(&printed.trim()).chars().take(REASON_CHARS_MAX).collect()
}
