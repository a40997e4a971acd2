//! Makes the commits of a sync: one for all changes, or one for each item with its last editor.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use crate::backup::sync::Now;
use crate::backup::{RemoteTip, RunContext};
use crate::git::{Change, Git, ItemCommit, Mark, ObjectId, TreeDiff, join, summary};
use crate::model::{BackupError, Changed, Identity, Result, Warnings};
use crate::util::{Redactor, printable, redact};
use crate::windmill::{Edits, ItemId, api, editors, item_path};

/// How many paths a commit's body lists. The rest is counted.
const LISTED_MAX: usize = 500;
/// Up to this many items get a commit each, and only this many authors are requested. A larger change is a first sync
/// or a deployment, and its history is not read by item.
const ITEMS_MAX: usize = 500;
/// Up to this many changed files, items get a commit each. The list of these files is held in memory.
const FILES_MAX: usize = 10_000;

/// Commits what differs from the tip. Returns the last commit.
///
/// # Errors
/// [`BackupError`].
pub fn make(
    run: RunContext<'_>,
    git: &Git<'_>,
    tip: &RemoteTip,
    comparison: &TreeDiff,
    now: &Now,
    warnings: &mut Warnings,
) -> Result<ObjectId> {
    let (config, author, path) = (run.env.config, &run.request.author, run.request.subdir.as_str());
    let tree = wanted_tree(git, tip, comparison, path)?;
    let (by_item, of_no_item, is_all) = changes_by_item(comparison)?;
    let existing = by_item.iter().filter(|(_, changes)| still_exists(changes));
    let existing: Vec<_> = existing.map(|(item, _)| item).collect();
    let windmill = run.windmill(git.run_env());
    let edits =
        if config.commit_authors { editors::last_edits(&windmill, &now.account, &existing) } else { Edits::new() };
    let trailers = trailers(run, git, now, warnings);
    // The invalid entries belong to no item, so one commit for all changes removes them.
    let is_sound = tip.invalid_entries.is_empty();
    if config.commits_per_item && is_all && is_sound && !by_item.is_empty() {
        let by_item = in_order(by_item, of_no_item, &edits);
        let commits = by_item.iter().map(|(item, changes)| {
            let summary = summary(LISTED_MAX, changes.iter().map(|change| Ok((change.mark, change.path.clone()))))?;
            let message = format!("{}: {}\n\n{summary}\n\n{trailers}", run.request.message, name_of(item));
            let (message, edit) = (redact::visible(&message), edits.get(item));
            let author = edit.and_then(|edit| edit.author.as_ref()).unwrap_or(author);
            Ok(ItemCommit { author, time: edit.and_then(|edit| edit.time), message, changes })
        });
        let commits = commits.collect::<io::Result<Vec<_>>>()?;
        if let Some(commit) = git.commit_chain(tip.commit.as_ref(), path, author, &commits, &tree)? {
            return Ok(commit);
        }
        // For example, a file of one item replaces a folder of another. Each commit is right, but not in every order.
        log::warn!("the commits of single items do not add up to the whole change, so one commit is made");
    }
    let message = whole_message(run, comparison, &edits, &trailers)?;
    git.commit(&tree, tip.commit.as_ref(), author, &message)
}

/// Returns the tree to commit. The tree of our folder in it is read again and compared with the wanted files.
fn wanted_tree(git: &Git<'_>, tip: &RemoteTip, comparison: &TreeDiff, path: &str) -> Result<ObjectId> {
    let wanted = &comparison.after;
    let folder = git.compose(wanted)?;
    for file in join(wanted.entries()?, git.list(&folder, "commit.listing")?.entries()?) {
        let (_, (wanted, committed)) = file?;
        if wanted != committed {
            let message = "git did not put into the commit what was pulled; nothing was pushed";
            return Err(BackupError::damage(message.to_owned()));
        }
    }
    git.with_folder(tip.commit.as_ref(), path, &folder)
}

type ByItem = BTreeMap<ItemId, Vec<Change>>;

/// Returns the changes of at most `ITEMS_MAX` items, those of files that belong to no item, and whether these are all.
/// If more than `FILES_MAX` files changed, it returns one change of each item that still exists, and none of the others.
fn changes_by_item(comparison: &TreeDiff) -> io::Result<(ByItem, Vec<Change>, bool)> {
    let (mut by_item, mut of_no_item) = (ByItem::new(), Vec::new());
    let Changed { added, modified, deleted } = comparison.changed;
    let are_few = added + modified + deleted <= FILES_MAX;
    for change in comparison.changes()? {
        let change = change?;
        let changes = match std::str::from_utf8(&change.path).ok().and_then(item_path::item_of) {
            None => &mut of_no_item,
            Some(item) if by_item.len() == ITEMS_MAX && !by_item.contains_key(&item) => {
                return Ok((by_item, of_no_item, false));
            }
            Some(item) => by_item.entry(item).or_default(),
        };
        let is_first_of_existing = change.mark != Mark::Deleted && !still_exists(changes);
        changes.extend((are_few || is_first_of_existing).then_some(change));
    }
    Ok((by_item, of_no_item, are_few))
}

/// Returns the items in the order of their commits, the last edited item at the end. Deleted items come first, since
/// their time is not known, and they may block the paths of new files. Files that belong to no item, such as wmill's
/// lock file, are added to the last item.
fn in_order(by_item: ByItem, of_no_item: Vec<Change>, edits: &Edits) -> Vec<(ItemId, Vec<Change>)> {
    let mut by_item: Vec<_> = by_item.into_iter().collect();
    by_item.sort_by_cached_key(|(item, changes)| (still_exists(changes), edits.get(item).and_then(|edit| edit.time)));
    if let Some((_, changes)) = by_item.last_mut() {
        changes.extend(of_no_item);
    }
    by_item
}

/// Returns whether an item with these changes may still exist.
fn still_exists(changes: &[Change]) -> bool {
    changes.iter().any(|change| change.mark != Mark::Deleted)
}

/// Returns the trailers of every commit. The fingerprint of the key shows a restore whether a workspace can read the
/// secrets of the commit.
fn trailers(run: RunContext<'_>, git: &Git<'_>, now: &Now, warnings: &mut Warnings) -> String {
    let key = run.key(git.run_env()).unwrap_or_else(|error| {
        let why = Redactor::new(&run.request.secrets()).redact(&error.message);
        warnings.add(format!(
            "the commit has no fingerprint of the key that encrypted its secrets, so a restore needs --key-file for \
             them: {why}"
        ));
        None
    });
    let unknown = "unknown";
    format!(
        "Windmill-Workspace: {}\nWindmill-Version: {}\nWmill-Version: {}\n{}",
        run.request.workspace,
        now.account.server_version.as_deref().unwrap_or(unknown),
        now.wmill.as_ref().map_or(unknown, |wmill| &wmill.version),
        key.as_ref().map(api::key_trailer).unwrap_or_default(),
    )
}

/// Returns the message of a commit with all changes. Its body names the last editor of each item, and its trailers name
/// these editors as co-authors.
fn whole_message(run: RunContext<'_>, comparison: &TreeDiff, edits: &Edits, trailers: &str) -> io::Result<String> {
    let mut message = format!("{}\n\n{}\n", run.request.message, comparison.summary(LISTED_MAX)?);
    let named = edits.iter().filter_map(|(item, edit)| Some((item, edit.author.as_ref()?)));
    let heading = |index| if index == 0 { "\nLast edited by\n\n" } else { "" };
    let mut others: Vec<&Identity> = Vec::new();
    for (index, (item, author)) in named.enumerate() {
        let _ = writeln!(message, "{}{}: {author}", heading(index), name_of(item));
        if *author != run.request.author && !others.contains(&author) {
            others.push(author);
        }
    }
    let _ = write!(message, "\n{trailers}");
    message.extend(others.iter().map(|author| format!("Co-authored-by: {author}\n")));
    Ok(redact::visible(&message))
}

/// Returns the item's name on one line, in printable characters.
fn name_of(item: &ItemId) -> String {
    printable(item.to_string().as_bytes())
}
