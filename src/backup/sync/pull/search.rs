//! Finds the items that `wmill` cannot write, where it fails and does not say which these are.

use std::collections::BTreeSet;

use super::pull_archive;
use crate::backup::error::BackupError;
use crate::backup::run_context::RunContext;
use crate::git::Git;
use crate::model::result_code::Code;
use crate::util::retry::Retry;
use crate::windmill::snapshot::{self, Snapshot};
use crate::windmill::wmill_yaml::{self, KindSettings};

/// With more bad items than this, the export as a whole is what wmill does not take.
const BAD_ITEMS_MAX: usize = 20;
/// What a result says of why wmill failed.
const REASON_CHARS_MAX: usize = 300;
/// Stands before the entry of the export that wmill names.
const NAMES_ENTRY: &str = " at path: ";

/// Pulls; where wmill fails for an item, without that item. What is found is left out of the snapshot.
///
/// # Errors
/// Those of `pull`; where the items are too many, or are not found in time, the first of these.
pub(super) fn without_bad_items<T>(
    run: RunContext<'_>,
    git: &Git<'_>,
    snapshot: &mut Snapshot,
    pull: impl Fn(&Snapshot) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let first = match pull(snapshot) {
        Err(error) if error.retry == Retry::EmptyFolder => error,
        other => return other.map_err(settled),
    };
    let before = snapshot.left_out().clone();
    let mut error = BackupError { message: first.message.clone(), ..first };
    // wmill may name the item; where that is the last of them, nothing has to be searched.
    while let Some(item) = named_item(&error.message, snapshot) {
        if snapshot.left_out().len() - before.len() >= BAD_ITEMS_MAX {
            return Err(settled(first));
        }
        leave_out(snapshot, &item, &error.message);
        match pull(snapshot) {
            Err(next) if next.retry == Retry::EmptyFolder => error = next,
            Err(_) => return Err(settled(first)),
            pulled => return pulled,
        }
    }
    log::info!("searching for the items that wmill cannot write");
    match search(run, git, snapshot, &before) {
        Ok(true) => pull(snapshot).map_err(|_| settled(first)),
        Ok(false) => Err(settled(first)),
        Err(error) if error.code == Code::ShuttingDown => Err(error),
        Err(error) => {
            log::warn!("the search for items that wmill cannot write ended: {}", error.message);
            Err(settled(first))
        }
    }
}

/// No further attempt is made.
fn settled(error: BackupError) -> BackupError {
    if error.retry == Retry::EmptyFolder { BackupError { retry: Retry::Never, ..error } } else { error }
}

/// Pulls halves of what fails, until single items do; whether any was found, and not too many. Where wmill fails without
/// any item too, it is no item's fault.
fn search(
    run: RunContext<'_>,
    git: &Git<'_>,
    snapshot: &mut Snapshot,
    before: &std::collections::BTreeMap<String, String>,
) -> Result<bool, BackupError> {
    let configuration = wmill_yaml::read(None, &KindSettings::default()).text_without_patterns;
    let items = snapshot.names_of_items().map_err(|error| run.disk(&error))?;
    let mut suspects = vec![&items[..], &[]];
    // The last half first, so that single items are reached after few pulls.
    while let Some(some) = suspects.pop() {
        let only: BTreeSet<&str> = some.iter().map(String::as_str).collect();
        let archive = snapshot.only(&only).map_err(|error| run.disk(&error))?;
        match (pull_archive(run, git, snapshot, &archive, None, &configuration), some) {
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

/// The item that wmill names as what it could not read.
fn named_item(message: &str, snapshot: &Snapshot) -> Option<String> {
    let named = message.lines().filter_map(|line| line.split_once(NAMES_ENTRY));
    let items: Vec<_> = named.map(|(_, entry)| snapshot::item_of_entry(entry.trim())).collect();
    items.into_iter().find(|item| snapshot.names_of_items().is_ok_and(|items| items.contains(item)))
}

fn leave_out(snapshot: &mut Snapshot, item: &str, message: &str) {
    let printed = message.split_once(": ").map_or(message, |(_, printed)| printed);
    let mut lines = printed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("at "));
    let line = lines.find(|line| line.contains("Error") || line.contains("Refusing")).unwrap_or(printed.trim());
    let reason: String = line.chars().take(REASON_CHARS_MAX).collect();
    log::warn!("{item} is left out, since wmill cannot write it: {reason}");
    snapshot.leave_out_found(item, &format!("wmill cannot write it: {reason}"));
}
