//! A restore: lock, fetch, ask Windmill, pull the current files, choose, show, save, push, read back.
//!
//! `wmill sync push` gets a folder that is made for it: what the workspace holds, with the chosen items replaced by
//! those of the commit. Our relay forwards changes of the chosen items that differ, and no other change. The folder has
//! no other file of the repository.

pub mod glob;
mod lay_out;
mod references;
mod restore_point;
mod secrets;
mod select;
mod switches;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::backup::restore::secrets::Key;
use crate::backup::restore::select::{Change, Choice, Tree, has_app_at, is_app};
use crate::backup::sync::{Pull, tip};
use crate::backup::verify::{self, LISTED_MAX};
use crate::backup::{Env, Pattern, RemoteTip, RunContext, Step};
use crate::git::{Entry, Git, Listing, Mark, ObjectId, tree_diff};
use crate::model::{BackupError, Changed, Code, Difference, Result, SyncResult, Warnings, WorkspaceId, error, names};
use crate::request::SyncRequest;
use crate::util::{Node, Redactor, Sample, Secret, files, printable, retry, time, yaml};
use crate::windmill::{
    Account, ItemId, ItemKind, KEY_FILE, Permits, SHARED_UI, WMILL_YAML, cli, item_path, wmill_yaml,
};

const LISTED_IN_MESSAGE_MAX: usize = 50;
/// The kinds of differences, in the order of [`Mark`].
const KINDS: [&str; 3] = ["missing", "differs", "not_deleted"];
/// Size limit for a key file. A key has 64 characters.
const KEY_BYTES_MAX: u64 = 4 << 10;
/// The fewest digits of a commit id that git accepts.
const COMMIT_DIGITS_MIN: usize = 4;

/// Size limit for the file of a user: a name, a role and a switch.
const USER_BYTES_MAX: usize = 64 << 10;

/// What to restore, apart from the source.
pub struct RestoreOptions {
    /// The workspace to restore into; by default, the workspace of the backup.
    pub target: Option<WorkspaceId>,
    /// The first digits of the commit; by default, the branch's tip.
    pub commit: Option<String>,
    /// Without `commit`: restores the newest commit that is not later than this time.
    pub at: Option<SystemTime>,
    /// Restores only what matches one of these patterns; everything if empty.
    pub paths: Vec<Pattern>,
    /// Whether to delete what the commit does not have.
    pub deletes: bool,
    /// Whether schedules and triggers keep their switches in another workspace.
    pub enables: bool,
    /// The key to set in the workspace first.
    pub key: Option<Secret>,
    /// Whether to save the workspace's files before the restore.
    pub saves: bool,
    /// Whether to restore, and not only to show the changes.
    pub applies: bool,
}

/// Checks the beginning of a commit id.
///
/// # Errors
/// The text has other characters than lower-case hexadecimal digits, or too few or too many.
pub fn parse_commit(digits: &str) -> Result<String, String> {
    let is_hex = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && (COMMIT_DIGITS_MIN..=64).contains(&digits.len()) {
        return Ok(digits.to_owned());
    }
    Err(format!("{} is not a commit id or the beginning of one", names::quoted(digits)))
}

/// Reads a key, in the form that Windmill shows or in the form of `encryption_key.yaml`.
///
/// # Errors
/// A message if the file cannot be read or holds no key. It does not contain the file's content.
pub fn read_key(path: &std::path::Path) -> Result<Secret, String> {
    let content = files::read_file(path, KEY_BYTES_MAX + 1).map_err(|error| format!("--key-file: {error}"))?;
    let text = String::from_utf8(content).unwrap_or_default();
    let key = text.trim().trim_matches(['"', '\'']);
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if !is_key || text.len() as u64 > KEY_BYTES_MAX {
        return Err(format!("--key-file: {} holds no key on one line", path.display()));
    }
    Ok(Secret::new(key))
}

/// Restores a commit, or shows what that would change.
pub fn run(request: &SyncRequest, env: &Env<'_>, run_id: &str, options: &RestoreOptions) -> SyncResult {
    let target = options.target.as_ref().unwrap_or(&request.workspace);
    let target_request = SyncRequest { workspace: target.clone(), ..request.clone() };
    let task = format!("restoring workspace {target} from {} (branch {})", request.remote, request.branch);
    let (source, target) = (RunContext { request, env }, RunContext { request: &target_request, env });
    target.report(run_id, format_args!("{task}"), |warnings| {
        let mut report = Report::default();
        let ended = error::catch_panic(|| restore(source, target, options, &mut report));
        let (code, mut message) = ended.unwrap_or_else(|error| {
            let (error, secrets) = (target.in_last_step(error), request.secrets());
            (error.code, Redactor::new(secrets.iter().chain(&options.key)).redact(&error.message))
        });
        let Report { warnings: found, named, commit, changed, mut differences, restore_point } = report;
        if let Some(point) = &restore_point {
            message += &format!("; what was there before is on branch `{point}`");
        }
        *warnings = found;
        for (what, names) in named {
            warnings.add(format!("{what}: {}", names.iter().collect::<Sample>()));
        }
        differences.truncate(LISTED_MAX);
        let (commit, differences) = (commit.map(|commit| commit.to_string()), Some(differences));
        Ok(SyncResult { code, message, commit, changed, differences, restore_point, ..SyncResult::default() })
    })
}

/// Restores from the workspace of `source` into the one of `target`. Returns the result code, and the same in words.
fn restore(
    source: RunContext<'_>,
    target: RunContext<'_>,
    options: &RestoreOptions,
    report: &mut Report,
) -> Result<(Code, String)> {
    let (from, to) = (&source.request.workspace, &target.request.workspace);
    // Both locks are taken in a fixed order, no matter which of the two is the source, to avoid a deadlock.
    let _early = (from.as_str() < to.as_str()).then(|| source.wait_for_turn()).transpose()?;
    let mut run_env = target.enter()?;
    let _late = (from.as_str() > to.as_str()).then(|| source.wait_for_turn()).transpose()?;
    let secrets = source.request.secrets();
    let proxies = source.env.config.proxy_secrets();
    run_env.redactor = Redactor::new(secrets.iter().chain(&proxies).chain(&options.key));
    let folder = run_env.run_dir.path().join("checkout");
    files::create_folder(&folder)?;
    let git = source.git(&run_env, &folder)?;
    let commit = source.step(Step::Fetch, || retry::patiently(&run_env.deadline, || fetch(source, &git, options)))?;
    report.commit = Some(commit.clone());
    let tip = tip::examine(source, &git, Some(commit.clone()))?;
    tip.plan.warnings.iter().for_each(|warning| report.warnings.add(warning.clone()));
    let account = target.step(Step::Probe, || target.account(&run_env))?;
    let (git, commit, tip, key) = (&git, &commit, &tip, Key::default());
    RestoreRun { source, target, options, git, commit, tip, key, report }.run(&account)
}

/// Fetches the history, and finds the commit in it.
fn fetch(source: RunContext<'_>, git: &Git<'_>, options: &RestoreOptions) -> Result<ObjectId> {
    let (remote, branch) = (&source.request.remote, &source.request.branch);
    let state = git.remote_state()?;
    git.create(state.format)?;
    let Some(tip) = git.fetch_branch(None, None)? else {
        return Err(BackupError::new(Code::GitFailed, format!("{remote} has no branch `{branch}` to restore from")));
    };
    match (&options.commit, options.at) {
        (None, None) => Ok(tip),
        (None, Some(at)) => commit_at(source, git, &tip, at),
        (Some(digits), _) => git.find_commit(digits)?.ok_or_else(|| {
            let message = format!("--commit: branch `{branch}` of {remote} has no commit that {digits} names");
            BackupError::new(Code::ConfigInvalid, message)
        }),
    }
}

/// Returns the newest commit on the branch that is not later than `at`.
fn commit_at(source: RunContext<'_>, git: &Git<'_>, tip: &ObjectId, at: SystemTime) -> Result<ObjectId> {
    if let Some(commit) = git.commit_at(tip, at)? {
        return Ok(commit);
    }
    let first = verify::with_time(git, &git.first_commit(tip)?)?;
    let SyncRequest { remote, branch, .. } = source.request;
    let message = format!(
        "--at: {} is earlier than the first commit of branch `{branch}` of {remote}: {first}",
        time::to_text(at)
    );
    Err(BackupError::new(Code::ConfigInvalid, message))
}

/// What is reported beside the result code, also if the restore fails.
#[derive(Default)]
struct Report {
    warnings: Warnings,
    /// More warnings, each with the names that it is about.
    named: BTreeMap<String, BTreeSet<String>>,
    commit: Option<ObjectId>,
    /// What was changed, or would be.
    changed: Changed,
    /// What still differs at the end.
    differences: Vec<Difference>,
    restore_point: Option<String>,
}

impl Report {
    /// Adds a name to a warning.
    fn warn_of(&mut self, what: &str, name: impl Into<String>) {
        self.named.entry(what.to_owned()).or_default().insert(name.into());
    }

    fn differing_paths(&self) -> Sample {
        self.differences.iter().map(|difference| difference.path.as_bytes()).collect()
    }
}

struct RestoreRun<'a> {
    /// The workspace of the backup.
    source: RunContext<'a>,
    /// The workspace to restore into.
    target: RunContext<'a>,
    options: &'a RestoreOptions,
    git: &'a Git<'a>,
    /// The commit to restore.
    commit: &'a ObjectId,
    /// The content of the commit.
    tip: &'a RemoteTip,
    /// The key of the commit's secrets.
    key: Key,
    report: &'a mut Report,
}

impl RestoreRun<'_> {
    /// Returns the workspace to restore into.
    fn workspace(&self) -> &WorkspaceId {
        &self.target.request.workspace
    }

    /// Chooses what to restore, shows it, and restores it if the options say so.
    fn run(&mut self, account: &Account) -> Result<(Code, String)> {
        let of_commit = read_tree(&self.tip.folder)?;
        let (current, has_shared_ui) = self.pull()?;
        let saved = self.options.saves.then(|| self.files_of_point(&current));
        self.key = self.find_key()?;
        let of_commit = self.files_of_commit(of_commit, has_shared_ui);
        let mut choice = self.choose(&of_commit, current)?;
        self.lay_out(&mut choice, &of_commit)?;
        choice.changes = select::changes(self.git, &choice.wanted, &choice.current)?;
        self.warn_about_withheld(&choice);
        self.warn_about_deleted_apps(&choice);
        self.warn_about_changes_by_wmill(&choice)?;
        if choice.pushed().next().is_none() && self.key.to_set.is_none() {
            self.compare(&choice, &choice.current)?;
            return Ok(self.nothing_to_push());
        }
        if let Some(saved) = &saved {
            self.warn_about_unsaved(&choice.current, saved);
        }
        if !self.options.applies {
            self.report.changed = select::counted(choice.pushed());
            return Ok((Code::DryRun, self.preview(&choice)?));
        }
        if let Some(saved) = saved {
            self.save(saved, account)?;
        }
        self.push_and_read_back(&choice)
    }

    /// Pulls what the workspace holds now. Also returns whether this Windmill has a shared UI.
    fn pull(&self) -> Result<(Tree, bool)> {
        let (target, plan) = (self.target, &self.tip.plan);
        let has_shared_ui = target.step(Step::Pull, || {
            let mut snapshot = target.snapshot(self.git.run_env(), &plan.query)?;
            snapshot.judge_by(plan)?;
            Pull { run: target, git: self.git, plan, visible: None, suspects: &[] }.whole(&mut snapshot)?;
            for (item, reason) in &snapshot.left_out {
                log::warn!("{item} of workspace {} cannot be pulled: {reason}", self.workspace());
            }
            Ok(snapshot.has_shared_ui().is_some())
        })?;
        Ok((self.staged()?, has_shared_ui))
    }

    /// Stages the files in the folder.
    fn staged(&self) -> Result<Tree> {
        read_tree(&self.git.stage()?)
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        Ok(files::write_file(&self.git.tree_folder().join(path), content)?)
    }

    fn nothing_to_push(&self) -> (Code, String) {
        let target = self.workspace();
        if self.report.differences.is_empty() {
            return (Code::Unchanged, format!("Workspace '{target}' already has everything that was chosen"));
        }
        let message = format!(
            "Workspace '{target}' differs from commit {:.10}, and a restore cannot change that; nothing was changed: {}",
            self.commit,
            self.report.differing_paths()
        );
        (if self.options.applies { Code::Differs } else { Code::DryRun }, message)
    }

    fn preview(&self, choice: &Choice) -> Result<String> {
        let commit = verify::with_time(self.git, self.commit)?;
        let key = self.key.to_set.as_ref().map(|_| (Mark::Modified, KEY_FILE.into()));
        let files = choice.pushed().map(|change| (change.mark, change.path.clone().into_bytes()));
        let listed = tree_diff::summary(LISTED_IN_MESSAGE_MAX, key.into_iter().chain(files).map(Ok))?;
        Ok(format!("Would restore commit {commit} into workspace '{}'; --yes does it: {listed}", self.workspace()))
    }

    /// Pushes, and reads back all chosen files, even if the push failed halfway.
    fn push_and_read_back(&mut self, choice: &Choice) -> Result<(Code, String)> {
        let target = self.target;
        let mut pushed = target.step(Step::Restore, || self.push(choice)).map_err(|error| target.in_last_step(error));
        let read = self.pull().and_then(|(fresh, _)| self.compare(choice, &fresh));
        let read = read.map_err(|error| target.in_last_step(error));
        if let (Err(error), Err(unread)) = (&mut pushed, &read) {
            error.message += &format!("; what it changed could not be read back: {}", unread.message);
        }
        pushed.and(read)?;
        let (target, commit) = (self.workspace(), self.commit);
        Ok(if self.report.differences.is_empty() {
            (Code::Restored, format!("Workspace '{target}' was read back and matches commit {commit:.10}"))
        } else {
            let paths = self.report.differing_paths();
            (Code::Differs, format!("Workspace '{target}' does not match commit {commit:.10}: {paths}"))
        })
    }

    /// Runs `wmill sync push` in the folder.
    fn push(&mut self, choice: &Choice) -> Result<()> {
        let mut plan = self.tip.plan.text.clone();
        if let Some(key) = &self.key.to_set {
            plan = plan.replace("includeKey: false", "includeKey: true");
            // Written after staging, so that no git object ever holds it.
            self.write(KEY_FILE, format!("\"{}\"\n", key.expose()).as_bytes())?;
        }
        let wanted = choice.wanted.keys();
        let own = wanted.filter_map(|path| item_path::common_path(path, self.workspace().as_str()));
        plan += &wmill_yaml::own_items(&own.collect());
        self.write(WMILL_YAML, plan.as_bytes())?;
        let windmill = self.target.windmill(self.git.run_env());
        let deletes = choice.pushed().any(|change| change.mark == Mark::Deleted);
        let pushed = cli::push(&windmill, self.git.run_env(), self.git.tree_folder(), self.permits(choice)?, deletes);
        if let Some(refusal) = pushed? {
            let warning = format!("Windmill did not accept {refusal}");
            self.report.warnings.add(self.git.run_env().redactor.redact(&warning));
        }
        Ok(())
    }

    /// Returns what the push may change: the items with a file that differs, and the key.
    fn permits(&self, choice: &Choice) -> Result<Permits> {
        let mut permits = Permits::default();
        if self.key.to_set.is_some() {
            permits.add(&ItemId { kind: ItemKind::Key, path: String::new() }, false);
        }
        let kept = self.kept_items(choice);
        for Change { path, .. } in choice.pushed() {
            let Some(item) = self.item(path) else {
                permits.add(&SHARED_UI, false);
                continue;
            };
            let deletes = !kept.contains(&item);
            match (item.kind, choice.current.get(path)) {
                _ if deletes && is_app(&item) && has_app_at(&kept, &item.path) => {}
                (ItemKind::User, Some(entry)) => {
                    self.username(entry)?.iter().for_each(|name| permits.add_user(name, deletes));
                }
                _ => permits.add(&item, deletes),
            }
        }
        Ok(permits)
    }

    /// Returns the name in the file of a user of the workspace. The file of the commit may name another user.
    fn username(&self, entry: &Entry) -> Result<Option<String>> {
        let Some(content) = self.git.read_blob(&entry.object, USER_BYTES_MAX)? else { return Ok(None) };
        let fields = yaml::fields(&content, USER_BYTES_MAX, |name| name == "username").unwrap_or_default();
        Ok(match Node::Fields(fields).field("username") {
            Some(Node::Text(name)) => Some(name.clone()),
            _ => None,
        })
    }

    /// Compares what was chosen with what the workspace holds now.
    fn compare(&mut self, choice: &Choice, fresh: &Tree) -> Result<()> {
        let left = select::changes(self.git, &choice.wanted, fresh)?;
        let is_left = |change: &Change| left.iter().any(|other| other.path == change.path);
        self.report.changed = select::counted(choice.changes.iter().filter(|change| !is_left(change)));
        let changes = left.into_iter().map(|Change { mark, path, diff }| difference(&path, KINDS[mark as usize], diff));
        let mut found: Vec<_> = changes.collect();
        for path in self.unreadable(choice, fresh)? {
            let diff = vec!["Windmill cannot decrypt its value".to_owned()];
            found.push(difference(&[&path, ".variable.yaml"].concat(), "unreadable", diff));
        }
        if let Some(key) = &self.key.to_set
            && self.target.key(self.git.run_env())?.is_none_or(|has| !has.matches(key.expose().as_bytes()))
        {
            let diff = vec!["the workspace has another key than that of --key-file".to_owned()];
            found.push(difference(KEY_FILE, "differs", diff));
        }
        self.report.differences = found;
        Ok(())
    }
}

fn difference(path: &str, kind: &'static str, diff: Vec<String>) -> Difference {
    Difference { path: printable(path.as_bytes()), kind, diff }
}

/// Returns the files of a listing. Windmill has no path that is not UTF-8.
fn read_tree(listing: &Listing) -> Result<Tree> {
    let mut tree = Tree::new();
    for file in listing.entries()? {
        let (path, entry) = file?;
        if let Ok(path) = String::from_utf8(path) {
            tree.insert(path, entry);
        }
    }
    Ok(tree)
}

fn write_tree(git: &Git<'_>, name: &str, tree: &Tree, prefix: &str) -> Result<Listing> {
    let entries = tree.iter().map(|(path, entry)| Ok(([prefix, path].concat().into_bytes(), entry.clone())));
    Ok(Listing::write(git.listing_place(name), entries)?)
}
