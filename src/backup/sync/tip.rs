//! The remote's tip: fetched into the checkout, checked, and reduced to what `wmill` may see.

use crate::backup::RunContext;
use crate::config::Config;
use crate::git::{Entry, EntryCheck, Git, Listing, ObjectId, RemoteState};
use crate::model::{BackupError, Code, Result, WorkspaceId};
use crate::request::Purpose;
use crate::util::{Retry, Sample, files};
use crate::windmill::{ENTRIES_MAX, KindSettings, Plan, WMILL_YAML, item_path, wmill_yaml};

/// The longest path in our folder that is checked out. Systems accept 4,096 bytes; the rest is for the checkout's own
/// path and for the names that `wmill` derives from a file's name.
pub const PATH_BYTES_MAX: usize = 3072;
/// How many bytes of a longer path a warning shows.
const PATH_BYTES_NAMED: usize = 100;

/// What the remote held when the round began.
pub struct RemoteTip {
    /// The commit at the branch's tip; `None` if the branch does not exist.
    pub commit: Option<ObjectId>,
    /// The tree of our folder, if there is such a folder.
    pub tree: Option<ObjectId>,
    /// The tree that `wmill` sees: our folder without everything that could mislead it.
    pub visible_tree: Option<ObjectId>,
    /// The valid files in our folder, by their path in it.
    pub folder: Listing,
    /// Paths in our folder that no checkout can hold.
    pub invalid_entries: Sample,
    /// The path of a file, link or submodule in the repository in the place of our folder or of a parent folder. It
    /// cannot stay.
    pub path_conflict: Option<Vec<u8>>,
    /// What this run exports, according to the settings and the repository's `wmill.yaml`.
    pub plan: Plan,
    /// The workspace. Its id is part of the names of workspace-specific files.
    pub workspace: WorkspaceId,
}

impl RemoteTip {
    /// Returns whether a file of the folder is hidden from wmill. The reasons: a link would lead wmill out of the
    /// folder; a submodule hides what is below it; the repository's `wmill.yaml` would configure wmill; a single folder
    /// in the other layout stops a pull; a file in the place of the shared UI stops the pull of that UI; a path may be
    /// too long for the system; a workspace-specific file, or a file of an item below a folder that wmill does not walk
    /// into, would stay forever; and a text that wmill compares by value would keep its old comments and notation.
    pub fn is_withheld(&self, path: &[u8], entry: &Entry) -> bool {
        !entry.is_file()
            || path.len() > PATH_BYTES_MAX
            || path.split(|byte| *byte == b'/').next() == Some(WMILL_YAML.as_bytes())
            || is_shared_ui(path)
            || std::str::from_utf8(path).is_ok_and(|path| {
                item_path::common_path(path, self.workspace.as_str()).is_some()
                    || item_path::item_of_hidden_file(path).is_some()
                    || item_path::is_text_compared_by_value(path)
                    || item_path::is_in_other_layout(path, self.plan.non_dotted_paths)
            })
    }
}

/// Asks the remote for its tip.
///
/// # Errors
/// [`BackupError`] if the remote fails.
pub fn ask(run: RunContext<'_>, git: &Git<'_>) -> Result<RemoteState> {
    let state = git.remote_state()?;
    run.note_head(&state);
    Ok(state)
}

/// Asks the remote for its tip, and fetches it. Nothing is checked out.
///
/// # Errors
/// [`BackupError`] if the remote or the disk fails.
pub fn refresh(run: RunContext<'_>, git: &Git<'_>) -> Result<RemoteTip> {
    bring(run, git, &ask(run, git)?)
}

/// Fetches the tip that the remote showed. A damaged checkout is created again, once.
///
/// # Errors
/// [`BackupError`] if the remote or the disk fails.
pub fn bring(run: RunContext<'_>, git: &Git<'_>, state: &RemoteState) -> Result<RemoteTip> {
    let fetch_and_examine = || fetch(git, state).and_then(|tip| examine(run, git, tip));
    match fetch_and_examine() {
        Err(error) if error.retry == Retry::NewCheckout => {
            log::warn!("creating the checkout again: {}", error.message);
            git.create(state.format)?;
            fetch_and_examine()
        }
        result => result,
    }
}

/// Fetches the objects of the tip.
fn fetch(git: &Git<'_>, state: &RemoteState) -> Result<Option<ObjectId>> {
    files::open_folder(git.tree_folder());
    git.remove_leftovers()?;
    // A remote without objects does not show its object format, which may have changed since the last sync.
    if state.format.is_none() || state.format != git.format() || git.is_bloated() {
        git.create(state.format)?;
    }
    git.configure(git.format())?;
    let Some(expected) = &state.tip else { return Ok(None) };
    if git.is_at(expected)? {
        return Ok(state.tip.clone());
    }
    let fetched = git.fetch_branch(Some(1), None)?;
    // If the tip moved between the two requests, the remote shows the new one now. Otherwise git brought something
    // else.
    match &fetched {
        Some(tip) if tip != expected && git.remote_state()?.tip != fetched => {
            Err(BackupError::damage(format!("git brought {tip}, which the remote does not show")))
        }
        _ => Ok(fetched),
    }
}

/// Lists our folder at a fetched tip, and finds out which entries are valid and which of them wmill may see. Does not
/// read the rest of the repository, and does not check files out.
///
/// # Errors
/// [`BackupError`].
pub fn examine(run: RunContext<'_>, git: &Git<'_>, commit: Option<ObjectId>) -> Result<RemoteTip> {
    let path = run.request.subdir.as_str();
    let (tree, path_conflict) = match &commit {
        Some(commit) => git.folder_at(commit, path)?,
        None => (None, None),
    };
    let listing = git.list(&tree.clone().map_or_else(|| git.empty_tree(), Ok)?, "tip.listing")?;
    let (mut check, mut invalid_entries, mut own, mut count) = (EntryCheck::default(), Sample::default(), None, 0);
    let (folder, _) = listing.sifted(git.listing_place("folder.listing"), |path, entry| {
        count += 1;
        if !check.admits(path, entry) {
            invalid_entries.add(path);
            return false;
        }
        if path == WMILL_YAML.as_bytes() {
            own = Some(entry.clone());
        }
        true
    })?;
    if count > ENTRIES_MAX {
        let folder = if path.is_empty() { "/" } else { path };
        let message = format!(
            "`{folder}` in the repository has {count} entries, and a backup holds at most {ENTRIES_MAX}: give each \
             workspace a folder or a branch of its own"
        );
        return Err(BackupError::new(Code::PullFailed, message));
    }
    let (plan, workspace) = (plan(run, git, own.as_ref())?, run.request.workspace.clone());
    let visible_tree = tree.clone();
    let mut tip = RemoteTip { commit, tree, visible_tree, folder, invalid_entries, path_conflict, plan, workspace };
    let mut too_long = Sample::default();
    let (visible, visible_count) = tip.folder.sifted(git.listing_place("visible.listing"), |path, entry| {
        if path.len() > PATH_BYTES_MAX {
            let start = String::from_utf8_lossy(&path[..PATH_BYTES_NAMED]);
            too_long.add(format!("{start}… ({} bytes)", path.len()).as_bytes());
        }
        !tip.is_withheld(path, entry)
    })?;
    if visible_count < count {
        tip.visible_tree = Some(git.compose(&visible)?);
    }
    if !too_long.is_empty() {
        tip.plan.warnings.push(format!(
            "files with a path of more than {PATH_BYTES_MAX} bytes are not checked out, and wmill does not see them: \
             {too_long}"
        ));
    }
    Ok(tip)
}

/// Returns the kinds that the settings ask for.
pub fn asked_kinds(config: &Config) -> KindSettings {
    KindSettings { includes: config.kinds_included.clone(), skips: config.kinds_skipped.clone() }
}

fn plan(run: RunContext<'_>, git: &Git<'_>, own: Option<&Entry>) -> Result<Plan> {
    let mut kinds = asked_kinds(run.env.config);
    if let (Purpose::Restore, Some(includes)) = (run.request.flags.purpose, &mut kinds.includes) {
        // A restore reads the key only from --key-file.
        includes.retain(|kind| *kind != "key");
    }
    let (content, why_ignored) = match own {
        None => (None, None),
        Some(entry) if entry.is_file() => match git.read_blob(&entry.object, wmill_yaml::FILE_BYTES_MAX)? {
            Some(content) => (Some(content), None),
            None => (None, Some("it is too large")),
        },
        Some(_) => (None, Some("it is a link or a submodule")),
    };
    let mut plan = wmill_yaml::read(content.as_deref(), &kinds);
    plan.warnings.extend(why_ignored.map(|why| format!("the repository's wmill.yaml is ignored: {why}")));
    Ok(plan)
}

/// Returns whether the path belongs to the workspace's shared UI.
pub fn is_shared_ui(path: &[u8]) -> bool {
    path == b"ui" || path.starts_with(b"ui/")
}
