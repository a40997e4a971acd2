//! Makes the commits of a sync: one for all changes, or one for each item with its last editor.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

use crate::backup::run_context::RunContext;
use crate::backup::sync::last_sync::Now;
use crate::backup::sync::tip::RemoteTip;
use crate::git::ls_tree::join;
use crate::git::object::ObjectId;
use crate::git::tree_diff::{Change, Mark, TreeDiff, printable, summary};
use crate::git::{Git, GitError, ItemCommit};
use crate::model::{Changed, Identity, Warnings};
use crate::util::parallel::both;
use crate::util::{Redactor, Secret, redact};
use crate::windmill::api;
use crate::windmill::editors::{self, Edits};
use crate::windmill::item_path::{self, ItemId};

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
/// [`GitError`].
pub fn make(
    run: RunContext<'_>,
    git: &Git<'_>,
    tip: &RemoteTip,
    comparison: &TreeDiff,
    now: &Now,
    warnings: &mut Warnings,
) -> Result<ObjectId, GitError> {
    let (items, is_all) = changed_items(comparison)?;
    // Windmill answers while git works.
    let ask_windmill = || {
        let windmill = run.windmill(git.run_env());
        let asks_for_editors = run.env.config.commit_authors;
        let edits = if asks_for_editors { editors::last_edits(&windmill, &now.account, &items) } else { Edits::new() };
        (edits, run.key(git.run_env()))
    };
    let ((edits, key), tree) = both("ask", ask_windmill, || wanted_tree(run, git, tip, comparison));
    let key = key.unwrap_or_else(|error| {
        let why = Redactor::new(&run.request.secrets()).redact(&error.message);
        warnings.add(format!(
            "the commit has no fingerprint of the key that encrypted its secrets, so a restore needs --key-file for \
             them: {why}"
        ));
        None
    });
    let trailers = trailers(run, now, key.as_ref());
    let builder = CommitBuilder { run, comparison, edits, trailers };
    let tree = tree?;
    // The invalid entries belong to no item, so one commit for all changes removes them.
    let is_sound = tip.invalid_entries.is_empty();
    if run.env.config.commits_per_item && is_all && is_sound && !items.is_empty() {
        let by_item = builder.changes_by_item()?;
        let commits = by_item.iter().map(|(item, changes)| builder.item_commit(item, changes));
        let commits = commits.collect::<io::Result<Vec<_>>>()?;
        let (path, author) = (run.request.subdir.as_str(), &run.request.author);
        if let Some(commit) = git.commit_chain(tip.commit.as_ref(), path, author, &commits, &tree)? {
            return Ok(commit);
        }
        // For example, a file of one item replaces a folder of another. Each commit is right, but not in every order.
        log::warn!("the commits of single items do not add up to the whole change, so one commit is made");
    }
    let message = builder.whole_message()?;
    git.commit(&tree, tip.commit.as_ref(), &run.request.author, &message)
}

/// Returns the tree to commit. The tree of our folder in it is read again and compared with the wanted files.
fn wanted_tree(
    run: RunContext<'_>,
    git: &Git<'_>,
    tip: &RemoteTip,
    comparison: &TreeDiff,
) -> Result<ObjectId, GitError> {
    let wanted = &comparison.after;
    let folder = git.compose(wanted)?;
    for file in join(wanted.entries()?, git.list(&folder, "commit.listing")?.entries()?) {
        let (_, (wanted, committed)) = file?;
        if wanted != committed {
            let message = "git did not put into the commit what was pulled; nothing was pushed";
            return Err(GitError::Checkout(message.to_owned()));
        }
    }
    git.with_folder(tip.commit.as_ref(), run.request.subdir.as_str(), &folder)
}

fn item_of(change: &Change) -> Option<ItemId> {
    item_path::item_of(std::str::from_utf8(&change.path).ok()?)
}

/// Returns the items that differ, at most `ITEMS_MAX`, and whether these are all items and at most `FILES_MAX` files
/// changed.
fn changed_items(comparison: &TreeDiff) -> io::Result<(BTreeSet<ItemId>, bool)> {
    let (Changed { added, modified, deleted }, mut first) = (comparison.changed, BTreeSet::new());
    for change in comparison.changes()? {
        let Some(item) = item_of(&change?) else { continue };
        if first.len() == ITEMS_MAX && !first.contains(&item) {
            return Ok((first, false));
        }
        first.insert(item);
    }
    Ok((first, added + modified + deleted <= FILES_MAX))
}

/// Returns the trailers of every commit. The fingerprint of the key shows a restore whether a workspace can read the
/// secrets of the commit.
fn trailers(run: RunContext<'_>, now: &Now, key: Option<&Secret>) -> String {
    let unknown = "unknown";
    format!(
        "Windmill-Workspace: {}\nWindmill-Version: {}\nWmill-Version: {}\n{}",
        run.request.workspace,
        now.account.server_version.as_deref().unwrap_or(unknown),
        now.wmill.as_ref().map_or(unknown, |wmill| &wmill.version),
        key.map(api::key_trailer).unwrap_or_default(),
    )
}

struct CommitBuilder<'a> {
    run: RunContext<'a>,
    comparison: &'a TreeDiff,
    edits: Edits,
    trailers: String,
}

impl CommitBuilder<'_> {
    /// Returns the message of a commit with all changes. Its body names the last editor of each item, and its trailers
    /// name these editors as co-authors.
    fn whole_message(&self) -> io::Result<String> {
        let mut message = format!("{}\n\n{}\n", self.run.request.message, self.comparison.summary(LISTED_MAX)?);
        let named: Vec<_> = self.edits.iter().filter_map(|(item, edit)| Some((item, edit.author.as_ref()?))).collect();
        if !named.is_empty() {
            message.push_str("\nLast edited by\n\n");
        }
        for (item, author) in &named {
            let _ = writeln!(message, "{}: {author}", name_of(item));
        }
        let _ = write!(message, "\n{}", self.trailers);
        let mut others: Vec<&Identity> = Vec::new();
        for (_, author) in named {
            if *author != self.run.request.author && !others.contains(&author) {
                others.push(author);
                let _ = writeln!(message, "Co-authored-by: {author}");
            }
        }
        Ok(redact::visible(&message))
    }

    /// Returns the changes of each item, the last edited item at the end. Deleted items come first, since their time is
    /// not known, and they may block the paths of new files. Files that belong to no item, such as wmill's lock file,
    /// are added to the last item.
    fn changes_by_item(&self) -> io::Result<Vec<(ItemId, Vec<Change>)>> {
        let (mut by_item, mut of_no_item) = (BTreeMap::<ItemId, Vec<Change>>::new(), Vec::new());
        for change in self.comparison.changes()? {
            let change = change?;
            match item_of(&change) {
                Some(item) => by_item.entry(item).or_default().push(change),
                None => of_no_item.push(change),
            }
        }
        let mut all: Vec<_> = by_item.into_iter().collect();
        let time_of = |item: &ItemId| self.edits.get(item).and_then(|edit| edit.time);
        let still_exists = |changes: &[Change]| changes.iter().any(|change| change.mark != Mark::Deleted);
        all.sort_by_cached_key(|(item, changes)| (still_exists(changes), time_of(item)));
        if let Some((_, changes)) = all.last_mut() {
            changes.extend(of_no_item);
        }
        Ok(all)
    }

    fn item_commit<'c>(&'c self, item: &ItemId, changes: &'c [Change]) -> io::Result<ItemCommit<'c>> {
        let summary = summary(LISTED_MAX, changes.iter().map(|change| Ok((change.mark, change.path.clone()))))?;
        let message = format!("{}: {}\n\n{summary}\n\n{}", self.run.request.message, name_of(item), self.trailers);
        let edit = self.edits.get(item);
        Ok(ItemCommit {
            author: edit.and_then(|edit| edit.author.as_ref()).unwrap_or(&self.run.request.author),
            time: edit.and_then(|edit| edit.time),
            message: redact::visible(&message),
            changes,
        })
    }
}

/// Returns the item's name on one line, in printable characters.
fn name_of(item: &ItemId) -> String {
    printable(item.to_string().as_bytes())
}
