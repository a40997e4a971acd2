//! The story of a restore: lock, fetch, probe, see what is there, choose, show, save, push, read back.
//!
//! What wmill pushes is made up for it: what the workspace holds now, with the chosen items of the commit in their
//! place. So wmill finds just those to differ, and nothing of the repository that is no item gets near it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime};

use crate::base::{self, Base};
use crate::by_value;
use crate::code::Code;
use crate::comparison::{Sample, printable};
use crate::composition;
use crate::delivery::{self, Arrival};
use crate::fault::Fault;
use crate::git::{BlobContent, Git, GitError};
use crate::items::{self, ItemId, ItemKind, KEY_FILE, WMILL_LOCK};
use crate::listing::{GitPath, Listing};
use crate::names::{BranchName, WorkspaceId};
use crate::object::{Entry, ObjectId};
use crate::outcome::{Changed, Difference, ListedResult, Warnings};
use crate::pattern::Pattern;
use crate::pull;
use crate::scratch;
use crate::scrubber::Scrubber;
use crate::secret::Secret;
use crate::sync_request::SyncRequest;
use crate::task::{Service, Step, Task, Verdict};
use crate::verify::short;
use crate::windmill::{self, Account, KEY_TRAILER};
use crate::wmill::{self, Deletions, Extent};
use crate::wmill_yaml::WMILL_YAML;

const FOLDER_META: &str = "folder.meta.yaml";
/// A larger file is told to differ without a word about how.
const FILE_BYTES_MAX: usize = 4 << 20;
/// A variable, schedule or trigger beyond this is none that Windmill made.
const ITEM_BYTES_MAX: usize = 1 << 20;
/// Differences and changes that are listed; the rest is counted.
const LISTED_MAX: usize = 500;
const LISTED_IN_MESSAGE_MAX: usize = 50;
/// Fewer digits name no commit.
const COMMIT_DIGITS_MIN: usize = 4;
/// A key has 64 characters.
const KEY_BYTES_MAX: u64 = 4 << 10;

/// What is asked for, beside from where.
pub struct Wish {
    /// The workspace to put it into; that of the backup where none is named.
    pub target: Option<WorkspaceId>,
    /// Digits of the commit; the branch's tip where there are none.
    pub commit: Option<String>,
    /// Only what one of these means; all where there are none.
    pub paths: Vec<Pattern>,
    /// Whether to delete what the commit does not have.
    pub deletes: bool,
    /// Whether schedules and triggers arrive in another workspace as they were.
    pub enables: bool,
    /// The key to give the workspace first.
    pub key: Option<Secret>,
    /// Whether to save what is there.
    pub saves: bool,
    /// Whether to do it, and not only to show it.
    pub applies: bool,
}

impl Wish {
    fn admits(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path))
    }
}

/// Reads a key as Windmill shows it, or as `encryption_key.yaml` has it.
///
/// # Errors
/// When the file cannot be read or is no key; the file's content is not in it.
pub fn read_key(path: &std::path::Path) -> Result<Secret, String> {
    let content = scratch::read_file(path, KEY_BYTES_MAX + 1).map_err(|error| format!("--key-file: {error}"))?;
    let text = String::from_utf8(content).unwrap_or_default();
    let key = text.trim().trim_matches(['"', '\'']);
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if !is_key || text.len() as u64 > KEY_BYTES_MAX {
        return Err(format!("--key-file: {} holds no key on one line", path.display()));
    }
    Ok(Secret::new(key))
}

/// Restores, or shows what that would change.
#[must_use]
pub fn run(request: &SyncRequest, service: &Service<'_>, run_id: &str, wish: &Wish) -> ListedResult {
    let started = Instant::now();
    let target = wish.target.as_ref().unwrap_or(&request.workspace);
    let target_request = SyncRequest { workspace: target.clone(), ..request.clone() };
    log::info!("run {run_id}: restoring workspace {target} from {} (branch {})", request.remote, request.branch);
    let mut story = Story {
        source: Task { request, service },
        target: Task { request: &target_request, service },
        wish,
        warnings: Warnings::default(),
        commit: None,
        restore_point: None,
    };
    let End { code, message, changed, differences } = story.tell().unwrap_or_else(|fault| story.failed(&fault));
    let Story { target, warnings, commit, restore_point, .. } = story;
    let result = target.conclude(run_id, started, Ok(Verdict { code, message, commit, changed }), warnings);
    ListedResult { result, differences, restore_point }
}

/// How a restore ended.
struct End {
    code: Code,
    message: String,
    changed: Changed,
    differences: Vec<Difference>,
}

struct Story<'a> {
    /// The workspace of the backup.
    source: Task<'a>,
    /// The workspace to put it into.
    target: Task<'a>,
    wish: &'a Wish,
    warnings: Warnings,
    commit: Option<ObjectId>,
    restore_point: Option<String>,
}

/// The files of items, and of nothing else.
type Items = BTreeMap<ItemId, Vec<(String, Entry)>>;
/// A tree in the making.
type Tree = BTreeMap<GitPath, Entry>;

/// What is to be pushed.
struct Choice {
    tree: Tree,
    /// The paths, in Windmill, of the secret variables in it that come from the commit.
    secrets: Vec<String>,
    /// The files of schedules and triggers in it that come from the commit.
    switches: Vec<String>,
    /// The key that the workspace gets.
    key: Option<Secret>,
}

/// Of what is not as it should be, as much as is listed.
#[derive(Default)]
struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, path: &str, kind: &'static str, diff: Vec<String>) {
        if self.0.len() < LISTED_MAX {
            self.0.push(Difference { path: printable(path.as_bytes()), kind, diff });
        }
    }
}

impl Story<'_> {
    fn tell(&mut self) -> Result<End, Fault> {
        let (source, target, wish) = (self.source, self.target, self.wish);
        let (from, to) = (&source.request.workspace, &target.request.workspace);
        // Who waits for two turns takes them in one order, whoever it is.
        let early = (from.as_str() < to.as_str()).then(|| source.wait_for_turn()).transpose()?;
        let mut place = target.enter()?;
        let late = (from.as_str() > to.as_str()).then(|| source.wait_for_turn()).transpose()?;
        let secrets = source.request.secrets();
        let proxies = source.service.config.proxy_secrets();
        place.scrubber = Scrubber::new(secrets.iter().chain(&proxies).chain(&wish.key));
        let folder = place.scratch.path().join("checkout");
        scratch::create_folder(&folder).map_err(|error| target.disk(&error))?;
        let git = source.git(&place, &folder)?;
        let base = source.step(Step::Fetch, || source.patiently(Step::Fetch, &place, || self.fetch(&git)))?;
        self.commit.clone_from(&base.tip);
        for warning in &base.plan.warnings {
            self.warnings.add(warning.clone());
        }
        let windmill = target.windmill(&place);
        let is_default = source.request.workspace_is_default;
        let ask = || windmill.account(is_default).map_err(|error| target.windmill_error(Step::Probe, error));
        let account = target.step(Step::Probe, || target.patiently(Step::Probe, &place, ask))?;
        target.tell_about(&account, &mut self.warnings);
        source.tell_about_default(&account, &mut self.warnings);
        let end = self.put(&git, &base, &account);
        drop((early, late));
        end
    }

    fn failed(&self, fault: &Fault) -> End {
        let secrets = self.source.request.secrets();
        let mut message = Scrubber::new(secrets.iter().chain(&self.wish.key)).scrub(&fault.message);
        if let Some(point) = &self.restore_point {
            message += &format!("; what was there before is on branch `{point}`");
        }
        End { code: fault.code, message, changed: Changed::default(), differences: Vec::new() }
    }

    /// The one to put it into.
    fn workspace(&self) -> &WorkspaceId {
        &self.target.request.workspace
    }

    /// Brings the history, and finds the commit in it.
    fn fetch(&self, git: &Git<'_>) -> Result<Base, Fault> {
        let failed = |error| self.source.git_error(Step::Fetch, error);
        let (remote, branch) = (&self.source.request.remote, &self.source.request.branch);
        let state = git.remote_state().map_err(failed)?;
        git.create(state.format).map_err(failed)?;
        let Some(tip) = git.fetch_history().map_err(failed)? else {
            return Err(Fault::new(Code::GitFailed, format!("{remote} has no branch `{branch}` to restore from")));
        };
        let commit = match &self.wish.commit {
            None => tip,
            Some(digits) => git.find_commit(digits).map_err(failed)?.ok_or_else(|| {
                let message = format!("--commit: branch `{branch}` of {remote} has no commit that {digits} names");
                Fault::new(Code::ConfigInvalid, message)
            })?,
        };
        base::at(self.source, git, &commit)
    }

    fn put(&mut self, git: &Git<'_>, base: &Base, account: &Account) -> Result<End, Fault> {
        let target = self.target;
        // The key goes only where it is asked for, by a file of its own.
        let plan = base.plan.text.replace("includeKey: true", "includeKey: false");
        target.step(Step::Pull, || pull::pull_into_nothing(target, git, &plan))?;
        composition::check_shared_ui(target, git, account)?;
        let there = self.staged(git)?;
        let choice = self.choose(git, base, &there, account)?;
        self.lay_out(git, &choice)?;
        let expected = self.staged(git)?;
        let mut orders = plan.clone();
        if let Some(key) = &choice.key {
            orders = orders.replace("includeKey: false", "includeKey: true");
            // After staging: no object of git's ever holds it.
            let text = format!("\"{}\"\n", key.expose());
            self.write(git, KEY_FILE, text.as_bytes())?;
        }
        self.write(git, WMILL_YAML, orders.as_bytes())?;
        let changes = self.push(git, Extent::Show)?;
        self.refuse_what_was_made_meanwhile(&there, &expected, &changes)?;
        let changed = counted(&changes);
        if changes.is_empty() {
            let message = format!("Workspace '{}' has all that was asked for already", self.workspace());
            return Ok(End { code: Code::Unchanged, message, changed, differences: Vec::new() });
        }
        if !self.wish.applies {
            let message = self.shown(base, &changes);
            return Ok(End { code: Code::DryRun, message, changed, differences: Vec::new() });
        }
        if self.wish.saves {
            self.save(git, base, &there, account)?;
        }
        let pushed = target.step(Step::Restore, || self.push(git, Extent::Apply))?;
        let unforeseen: Vec<_> = pushed.iter().filter(|change| !changes.contains(change)).collect();
        if !unforeseen.is_empty() {
            let named: Sample = unforeseen.iter().map(|(_, path)| path.as_bytes()).collect();
            // Also where it cannot be read back.
            self.warnings.add(format!(
                "these were changed too, since somebody else changed the workspace meanwhile; they are not among what was \
                 saved: {named}"
            ));
        }
        let mut differences = self.read_back(git, &plan, &choice, &expected, &changes)?;
        for (kind, path) in unforeseen {
            differences.add(path, "unforeseen", vec![format!("{kind} by the restore, which had not shown it")]);
        }
        Ok(self.done(base, changed, differences.0))
    }

    /// wmill deletes what the folder does not have, and what was made since the pull is not in it, nor in what is saved.
    fn refuse_what_was_made_meanwhile(
        &self,
        there: &Tree,
        expected: &Tree,
        changes: &[(String, String)],
    ) -> Result<(), Fault> {
        let is_foreseen =
            |path: &String| there.contains_key(path.as_bytes()) && !expected.contains_key(path.as_bytes());
        let deleted = changes.iter().filter(|(kind, path)| kind == "deleted" && !is_foreseen(path));
        let unforeseen: Sample = deleted.map(|(_, path)| path.as_bytes()).collect();
        if unforeseen.is_empty() {
            return Ok(());
        }
        let message = format!(
            "somebody changed workspace `{}` while the restore was being prepared, and these would be deleted unasked: \
             {unforeseen}; nothing was changed: try again when nobody edits it",
            self.workspace()
        );
        Err(Fault::new(Code::PullFailed, message))
    }

    /// What lies in the folder, staged.
    fn staged(&self, git: &Git<'_>) -> Result<Tree, Fault> {
        let failed = |error: GitError| self.target.git_error(Step::Commit, error);
        composition::take_stock(self.target, git, &mut Warnings::default())?;
        let staged = git.stage().map_err(failed)?;
        read(&staged.files).map_err(failed)
    }

    fn write(&self, git: &Git<'_>, path: &str, content: &[u8]) -> Result<(), Fault> {
        scratch::write_file(&git.tree_folder().join(path), content).map_err(|error| self.target.disk(&error))
    }

    /// Puts the chosen items of the commit in the place of the workspace's.
    fn choose(&mut self, git: &Git<'_>, base: &Base, there: &Tree, account: &Account) -> Result<Choice, Fault> {
        let of_commit = self.seen_of_commit(base)?;
        let (held, not_covered) = items_in(&of_commit, base);
        if !not_covered.is_empty() {
            self.warnings.add(format!("the settings leave these kinds out, and they do not come back: {not_covered}"));
        }
        let (has, _) = items_in(there, base);
        let mut chosen = Items::new();
        for (id, files) in held.iter().filter(|(id, files)| self.means(id, files)) {
            chosen.insert(id.clone(), files.clone());
        }
        let wants_ui = account.shared_ui.is_some();
        let is_ui = |path: &str| wants_ui && base::is_shared_ui(path.as_bytes()) && self.wish.admits(path);
        let ui: Vec<_> = of_commit.iter().filter(|(path, _)| text(path).is_some_and(is_ui)).collect();
        if chosen.is_empty() && ui.is_empty() && !self.wish.paths.is_empty() {
            let paths: Vec<_> = self.wish.paths.iter().map(Pattern::as_str).collect();
            let message = format!("--path: nothing in the commit is called like {}", paths.join(", "));
            return Err(Fault::new(Code::ConfigInvalid, message));
        }
        let key = self.key(git, base)?;
        let secrets = self.sort_out_secrets(git, &mut chosen, &has, key.is_known)?;
        let gone = self.gone(&has, &held, &chosen);
        let mut tree = Tree::new();
        let mut put = |path: &[u8], entry: &Entry| {
            tree.insert(path.to_vec(), entry.clone());
        };
        there.iter().filter(|(path, _)| !gone.contains(*path)).for_each(|(path, entry)| put(path, entry));
        chosen.values().flatten().for_each(|(path, entry)| put(path.as_bytes(), entry));
        ui.into_iter().for_each(|(path, entry)| put(path, entry));
        // The hashes of what is pushed; of what is not, the workspace's own are as good.
        for (path, entry) in &of_commit {
            if path.starts_with(b"locks/") || path == WMILL_LOCK.as_bytes() && self.wish.paths.is_empty() {
                put(path, entry);
            }
        }
        let tree = self.with_folders(tree, &of_commit, base);
        Ok(Choice { tree, secrets, switches: switches_in(&chosen), key: key.to_set })
    }

    /// What of the commit wmill may see, and the shared UI.
    fn seen_of_commit(&mut self, base: &Base) -> Result<Tree, Fault> {
        let (mut seen, mut withheld) = (Tree::new(), Sample::default());
        for (path, entry) in read(&base.folder).map_err(|error| self.source.git_error(Step::Commit, error))? {
            let is_ui = base::is_shared_ui(&path) && entry.is_file();
            if is_ui || !base.is_withheld(&path, &entry) {
                seen.insert(path, entry);
            } else if text(&path).is_some_and(|path| items::item_of(path).is_some()) {
                withheld.add(&path);
            }
        }
        if !withheld.is_empty() {
            self.warnings.add(format!("these do not come back, since wmill may not see them: {withheld}"));
        }
        Ok(seen)
    }

    /// What does not stay of the workspace: what is replaced, or is to go.
    fn gone(&self, has: &Items, held: &Items, chosen: &Items) -> BTreeSet<GitPath> {
        let mut gone = BTreeSet::new();
        for (id, files) in has {
            if chosen.contains_key(id) || self.wish.deletes && !held.contains_key(id) && self.means(id, files) {
                for (path, _) in files {
                    gone.insert(path.clone().into_bytes());
                }
            }
        }
        gone
    }

    /// Whether an item is asked for.
    fn means(&self, id: &ItemId, files: &[(String, Entry)]) -> bool {
        self.wish.admits(&id.path) || files.iter().any(|(path, _)| self.wish.admits(path))
    }

    /// The same with the folders of Windmill in which the items lie, as the commit has them.
    fn with_folders(&self, mut tree: Tree, of_commit: &Tree, base: &Base) -> Tree {
        let mut used = BTreeSet::new();
        for path in tree.keys().filter(|path| !is_meta(path)) {
            if let Some(meta) = text(path).and_then(meta_of) {
                used.insert(meta.into_bytes());
            }
        }
        for (path, entry) in of_commit.iter().filter(|(path, _)| is_meta(path)) {
            let is_needed = used.contains(path) && !tree.contains_key(path);
            let is_meant = || !base.plan.kinds.skip_folders && text(path).is_some_and(|path| self.wish.admits(path));
            if is_needed || is_meant() {
                tree.insert(path.clone(), entry.clone());
            }
        }
        if !self.wish.deletes || !self.wish.paths.is_empty() {
            return tree;
        }
        let mut kept = Tree::new();
        for (path, entry) in tree {
            if !is_meta(&path) || of_commit.contains_key(&path) || used.contains(&path) {
                kept.insert(path, entry);
            }
        }
        kept
    }

    /// Takes out of `chosen` the secrets that the workspace could not read; the paths of those that stay.
    fn sort_out_secrets(
        &mut self,
        git: &Git<'_>,
        chosen: &mut Items,
        has: &Items,
        is_key_known: bool,
    ) -> Result<Vec<String>, Fault> {
        let (mut stay, mut left, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for (id, files) in &*chosen {
            let (ItemKind::Variable, [(path, entry)]) = (id.kind, &files[..]) else { continue };
            let content = match git.read_blob(&entry.object, ITEM_BYTES_MAX) {
                Ok(BlobContent::Whole(content)) => content,
                Ok(BlobContent::Strange(_)) => Vec::new(),
                Err(error) => return Err(self.source.git_error(Step::Commit, error)),
            };
            if content.is_empty() || items::is_plaintext_secret(path, &content) {
                plain.push(id.clone());
            } else if items::is_secret_variable(&content) {
                if is_key_known { stay.push(id.path.clone()) } else { left.push(id.clone()) }
            }
        }
        // What is there just so needs no words.
        let differs = |id: &&ItemId| has.get(*id) != chosen.get(*id);
        let named: Sample = left.iter().filter(differs).map(|id| id.path.as_bytes()).collect();
        if !named.is_empty() {
            self.warnings.add(format!(
                "these secrets are left alone, since it is not known that workspace `{}` has the key that encrypted them; \
                 --key-file sets that key first: {named}",
                self.workspace()
            ));
        }
        let named: Sample = plain.iter().map(|id| id.path.as_bytes()).collect();
        if !named.is_empty() {
            self.warnings
                .add(format!("these secrets are left alone, since they are not encrypted in the commit: {named}"));
        }
        let mut rest = Items::new();
        for (id, files) in std::mem::take(chosen) {
            if !left.contains(&id) && !plain.contains(&id) {
                rest.insert(id, files);
            }
        }
        *chosen = rest;
        Ok(stay)
    }

    /// Which key the secrets of the commit need, and whether the workspace has it or gets it.
    fn key(&mut self, git: &Git<'_>, base: &Base) -> Result<Key, Fault> {
        let failed = |error| self.source.git_error(Step::Commit, error);
        // The last commit of the workspace, also where it tells no key: what an earlier one tells may be the key before.
        let of_workspace = format!("Windmill-Workspace: {}$", self.source.request.workspace);
        let last = match &base.tip {
            Some(tip) => git.last_with(tip, &of_workspace).map_err(failed)?,
            None => None,
        };
        let wanted = last.as_ref().and_then(|commit| commit.trailer(KEY_TRAILER)).map(str::to_owned);
        let has = self.target.key(Step::Probe, git.place())?.map(|key| windmill::fingerprint(&key));
        let Some(key) = &self.wish.key else {
            return Ok(Key { is_known: wanted.is_some() && wanted == has, to_set: None });
        };
        let given = windmill::fingerprint(key);
        if wanted.as_ref().is_some_and(|wanted| *wanted != given) {
            let message =
                "--key-file: this is not the key that encrypted the secrets of the commit; nothing was changed";
            return Err(Fault::new(Code::ConfigInvalid, message));
        }
        if has.as_ref() == Some(&given) {
            return Ok(Key { is_known: true, to_set: None });
        }
        if has.is_none() {
            let message = "--key-file: Windmill does not tell this token the key of the workspace, so it cannot be seen \
                           whether it was set; it needs an admin's token; nothing was changed";
            return Err(Fault::new(Code::WindmillUnauthorized, message));
        }
        self.warnings.add(format!(
            "workspace `{}` gets the key of --key-file; Windmill encrypts its own secrets anew under it, and the key that \
             it has now is kept nowhere",
            self.workspace()
        ));
        Ok(Key { is_known: true, to_set: Some(key.clone()) })
    }

    /// Puts the tree into the folder, with the switches of schedules and triggers off where they are to be.
    fn lay_out(&mut self, git: &Git<'_>, choice: &Choice) -> Result<(), Fault> {
        let failed = |error: GitError| self.target.git_error(Step::Commit, error);
        let listing = listed(git, "push.listing", &choice.tree, "").map_err(failed)?;
        let tree = git.compose(None, &listing).map_err(failed)?;
        git.check_out(Some(&tree)).map_err(failed)?;
        if self.source.request.workspace == *self.workspace() || self.wish.enables || choice.switches.is_empty() {
            return Ok(());
        }
        let mut left = Sample::default();
        for path in &choice.switches {
            let file = git.tree_folder().join(path);
            let content = scratch::read_file(&file, ITEM_BYTES_MAX as u64).map_err(|error| self.target.disk(&error))?;
            match items::disabled(&content) {
                Some(content) => self.write(git, path, &content)?,
                None => {
                    left.add(path.as_bytes());
                    scratch::remove_file(&file).map_err(|error| self.target.disk(&error))?;
                }
            }
        }
        let named: Sample = choice.switches.iter().collect();
        self.warnings.add(format!(
            "schedules and triggers arrive disabled in another workspace, unless --enable is given: {named}"
        ));
        if !left.is_empty() {
            self.warnings.add(format!("these are left out, since their switch could not be found: {left}"));
        }
        Ok(())
    }

    /// `wmill sync push` of what lies in the folder.
    fn push(&self, git: &Git<'_>, extent: Extent) -> Result<Vec<(String, String)>, Fault> {
        let deletions = if self.wish.deletes { Deletions::Apply } else { Deletions::Keep };
        let pushed = wmill::push(&self.target.windmill(git.place()), git.place(), git.tree_folder(), extent, deletions);
        pushed.map_err(|error| self.target.windmill_error(Step::Restore, error))
    }

    fn shown(&self, base: &Base, changes: &[(String, String)]) -> String {
        let commit = base.tip.as_ref().map(short).unwrap_or_default();
        let Changed { added, modified, deleted } = counted(changes);
        let mut text = format!(
            "Would restore commit {commit} into workspace '{}': {added} files created, {modified} changed, {deleted} \
             deleted; --yes does it\n",
            self.workspace()
        );
        for (kind, path) in changes.iter().take(LISTED_IN_MESSAGE_MAX) {
            let mark = match kind.as_str() {
                "added" => 'A',
                "deleted" => 'D',
                _ => 'M',
            };
            text.push_str(&format!("\n{mark} {}", printable(path.as_bytes())));
        }
        if changes.len() > LISTED_IN_MESSAGE_MAX {
            text.push_str(&format!("\n... and {} more", changes.len() - LISTED_IN_MESSAGE_MAX));
        }
        text
    }

    /// Saves what is there on a branch of its own, so that a restore can be undone.
    fn save(&mut self, git: &Git<'_>, base: &Base, there: &Tree, account: &Account) -> Result<(), Fault> {
        if there.is_empty() {
            log::info!("the workspace is empty: there is nothing to save");
            return Ok(());
        }
        let target = self.target;
        let failed = |error: GitError| target.git_error(Step::Push, error);
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let name = format!("restore-point/{}/{}", self.workspace(), time.replace(['-', ':'], ""));
        let branch = BranchName::parse(&name).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        let mut tree = there.clone();
        // Its layout is that of the repository, which says so here.
        let of_commit = read(&base.folder).map_err(failed)?;
        if let Some(own) = of_commit.get(WMILL_YAML.as_bytes()).filter(|entry| entry.is_file()) {
            tree.insert(WMILL_YAML.into(), own.clone());
        }
        let prefix = self.source.request.subdir.prefix();
        let listing = listed(git, "point.listing", &tree, &prefix).map_err(failed)?;
        let key = self.target.key(Step::Probe, git.place())?;
        let message = self.message_of_point(&name, account, key.as_ref());
        let point_request = SyncRequest { branch, ..target.request.clone() };
        let point = Task { request: &point_request, service: target.service };
        let git_of_point = point.git(git.place(), git.tree_folder().parent().unwrap_or(git.tree_folder()))?;
        let commit = git
            .compose(None, &listing)
            .and_then(|tree| git.commit(&tree, None, &target.request.author, &message))
            .map_err(failed)?;
        match point.step(Step::Push, || delivery::deliver(point, &git_of_point, &commit))? {
            Arrival::Confirmed => {
                log::info!("what is there is saved on branch `{name}`, commit {commit}");
                self.restore_point = Some(name);
                Ok(())
            }
            Arrival::Rejected(why) => Err(delivery::refused(point, &why)),
        }
    }

    fn message_of_point(&self, name: &str, account: &Account, key: Option<&Secret>) -> String {
        format!(
            "Workspace {} before a restore\n\nWhat is here can be put back by `restore --branch {name}`.\n\n\
             Windmill-Workspace: {}\nWindmill-Workspace: {}\nWindmill-Version: {}\n{}",
            self.workspace(),
            // As one of the two it is looked for when it is put back.
            self.source.request.workspace,
            self.workspace(),
            account.server_version.as_deref().unwrap_or("unknown"),
            key.map(windmill::key_trailer).unwrap_or_default(),
        )
    }

    /// Pulls the workspace anew, and names what is not as it should be.
    fn read_back(
        &self,
        git: &Git<'_>,
        plan: &str,
        choice: &Choice,
        expected: &Tree,
        changes: &[(String, String)],
    ) -> Result<Differences, Fault> {
        let target = self.target;
        target.step(Step::Pull, || pull::pull_into_nothing(target, git, plan))?;
        let fresh = self.staged(git)?;
        let mut found = Differences::default();
        for (_, path) in changes.iter().filter(|(_, path)| path != KEY_FILE && path != WMILL_LOCK) {
            match (expected.get(path.as_bytes()), fresh.get(path.as_bytes())) {
                (Some(wanted), Some(got)) if wanted.object != got.object => {
                    let diff = self.difference(git, path, wanted)?;
                    if !diff.is_empty() {
                        found.add(path, "differs", diff);
                    }
                }
                (Some(_), None) => found.add(path, "missing", Vec::new()),
                (None, Some(_)) => found.add(path, "not_deleted", Vec::new()),
                _ => {}
            }
        }
        let windmill = target.windmill(git.place());
        let secrets = if choice.key.is_some() { self.secrets_in(git, &fresh)? } else { choice.secrets.clone() };
        if let Some(key) = &choice.key
            && target.key(Step::Probe, git.place())?.is_none_or(|has| !has.matches(key.expose().as_bytes()))
        {
            found.add(KEY_FILE, "differs", vec!["the workspace has another key than that of --key-file".to_owned()]);
        }
        for path in secrets {
            let answer = windmill.can_read_variable(&path);
            if !answer.map_err(|error| target.windmill_error(Step::Probe, error))? {
                let why = vec!["Windmill cannot decrypt its value".to_owned()];
                found.add(&format!("{path}.variable.yaml"), "unreadable", why);
            }
        }
        Ok(found)
    }

    /// In what a file in the folder is not what was wanted.
    fn difference(&self, git: &Git<'_>, path: &str, wanted: &Entry) -> Result<Vec<String>, Fault> {
        let found = scratch::read_file(&git.tree_folder().join(path), FILE_BYTES_MAX as u64);
        let found = found.map_err(|error| self.target.disk(&error))?;
        let wanted = git.read_blob(&wanted.object, FILE_BYTES_MAX);
        Ok(match wanted.map_err(|error| self.target.git_error(Step::Commit, error))? {
            BlobContent::Whole(wanted) => by_value::differences(path, &wanted, &found),
            BlobContent::Strange(why) => vec![why.to_owned()],
        })
    }

    /// The paths, in Windmill, of the secret variables in the folder.
    fn secrets_in(&self, git: &Git<'_>, tree: &Tree) -> Result<Vec<String>, Fault> {
        let mut secrets = Vec::new();
        for path in tree.keys().filter_map(|path| text(path)) {
            let Some(id) = items::item_of(path).filter(|id| id.kind == ItemKind::Variable) else { continue };
            let file = git.tree_folder().join(path);
            let content = scratch::read_file(&file, ITEM_BYTES_MAX as u64).map_err(|error| self.target.disk(&error))?;
            if items::is_secret_variable(&content) {
                secrets.push(id.path);
            }
        }
        Ok(secrets)
    }

    fn done(&self, base: &Base, changed: Changed, differences: Vec<Difference>) -> End {
        let commit = base.tip.as_ref().map(short).unwrap_or_default();
        let target = self.workspace();
        let saved = match &self.restore_point {
            Some(point) => format!("; what was there before is on branch `{point}`"),
            None => String::new(),
        };
        let (code, message) = if differences.is_empty() {
            (Code::Restored, format!("Workspace '{target}' was read back, and is as commit {commit}{saved}"))
        } else {
            let paths: Sample = differences.iter().map(|one| one.path.as_bytes()).collect();
            (Code::Differs, format!("Workspace '{target}' is not in all as commit {commit}: {paths}{saved}"))
        };
        End { code, message, changed, differences }
    }
}

/// What is known of the key that a commit's secrets need.
struct Key {
    /// Whether the workspace has it, or gets it.
    is_known: bool,
    /// It, where the workspace gets it.
    to_set: Option<Secret>,
}

/// The files of schedules and triggers.
fn switches_in(items: &Items) -> Vec<String> {
    let mut switches = Vec::new();
    for (id, files) in items {
        if matches!(id.kind, ItemKind::Schedule | ItemKind::Trigger(_)) {
            switches.extend(files.iter().map(|(path, _)| path.clone()));
        }
    }
    switches
}

/// The items of a tree that are covered, but the key, and a few of those that are not.
fn items_in(tree: &Tree, base: &Base) -> (Items, Sample) {
    let (mut found, mut not_covered) = (Items::new(), BTreeSet::new());
    for (path, entry) in tree {
        let Some((path, id)) = text(path).and_then(|path| Some((path, items::item_of(path)?))) else { continue };
        if id.kind == ItemKind::Key {
            continue;
        }
        if items::covers(&id, &base.plan.kinds) {
            found.entry(id).or_default().push((path.to_owned(), entry.clone()));
        } else {
            not_covered.insert(id.kind.to_string());
        }
    }
    (found, not_covered.into_iter().collect())
}

fn listed(git: &Git<'_>, name: &str, tree: &Tree, prefix: &str) -> Result<Listing, GitError> {
    Ok(Listing::write(git.listing_place(name), |lines| {
        tree.iter().try_for_each(|(path, entry)| lines.put(&[prefix.as_bytes(), path].concat(), entry, b'0'))
    })?)
}

fn text(path: &GitPath) -> Option<&str> {
    std::str::from_utf8(path).ok()
}

/// A listing as a tree. A stream would do for the sync's; here a person waits, and memory is not counted.
fn read(listing: &Listing) -> Result<Tree, GitError> {
    let mut tree = Tree::new();
    for file in listing.entries()? {
        let (path, entry) = file?;
        tree.insert(path, entry);
    }
    Ok(tree)
}

/// Whether it is the file of a Windmill folder.
fn is_meta(path: &GitPath) -> bool {
    text(path).is_some_and(|path| meta_of(path).as_deref() == Some(path))
}

/// The file of the Windmill folder that a path lies in.
fn meta_of(path: &str) -> Option<String> {
    let mut parts = path.split('/');
    let (top, name) = (parts.next()?, parts.next()?);
    (top == "f" && parts.next().is_some()).then(|| format!("f/{name}/{FOLDER_META}"))
}

fn counted(changes: &[(String, String)]) -> Changed {
    let count = |kind: &str| changes.iter().filter(|(of, _)| of == kind).count();
    let (added, deleted) = (count("added"), count("deleted"));
    Changed { added, modified: changes.len() - added - deleted, deleted }
}

/// What `--commit` may be.
///
/// # Errors
/// When it is no part of a commit's id.
pub fn check_commit(digits: &str) -> Result<(), String> {
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_hex && (COMMIT_DIGITS_MIN..=64).contains(&digits.len()) {
        return Ok(());
    }
    Err(format!("--commit: {} is no id of a commit, whole or its first digits", crate::names::quoted(digits)))
}
