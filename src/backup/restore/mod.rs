//! A restore: lock, fetch, ask Windmill, pull what is there, choose, show, save, push, read back.
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
mod tree;

use std::time::{Instant, SystemTime};

use crate::backup::error::{self, BackupError};
use crate::backup::progress::Step;
use crate::backup::restore::glob::Pattern;
use crate::backup::restore::select::{Choice, has_app_at, is_app};
use crate::backup::restore::tree::{Change, Tree};
use crate::backup::run_context::{Env, Outcome, RunContext};
use crate::backup::sync::merge;
use crate::backup::sync::pull;
use crate::backup::sync::tip::{self, RemoteTip};
use crate::backup::verify::{LISTED_MAX, short};
use crate::git::object::{Entry, ObjectId};
use crate::git::tree_diff::{Mark, Sample, printable};
use crate::git::{BlobContent, Git};
use crate::model::names::WorkspaceId;
use crate::model::result_code::Code;
use crate::model::run_result::{Changed, Difference, SyncResult, Warnings};
use crate::request::SyncRequest;
use crate::util::files;
use crate::util::logging;
use crate::util::redact::Redactor;
use crate::util::retry;
use crate::util::secret::Secret;
use crate::util::time;
use crate::util::yaml::{self, Node};
use crate::windmill::api::Account;
use crate::windmill::cli;
use crate::windmill::item_path::{ItemId, ItemKind, KEY_FILE};
use crate::windmill::push_relay::Permits;
use crate::windmill::wmill_yaml::{self, Plan, WMILL_YAML};

const LISTED_IN_MESSAGE_MAX: usize = 50;
/// A commit needs at least this many digits.
const COMMIT_DIGITS_MIN: usize = 4;
/// Size limit for a key file. A key has 64 characters.
const KEY_BYTES_MAX: u64 = 4 << 10;

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
    /// Whether to save what the workspace holds before.
    pub saves: bool,
    /// Whether to restore, and not only to show the changes.
    pub applies: bool,
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
    let started = Instant::now();
    let target = options.target.as_ref().unwrap_or(&request.workspace);
    let target_request = SyncRequest { workspace: target.clone(), ..request.clone() };
    let _scope = logging::run_scope(run_id, target.as_str());
    log::info!("run {run_id}: restoring workspace {target} from {} (branch {})", request.remote, request.branch);
    let (source, target) = (RunContext { request, env }, RunContext { request: &target_request, env });
    let mut report = Report::default();
    let outcome = error::catch_panic(|| restore(source, target, options, &mut report))
        .unwrap_or_else(|fault| report.failed(target, options, fault));
    let Report { warnings, mut differences, restore_point, .. } = report;
    differences.truncate(LISTED_MAX);
    let result = target.conclude(run_id, started, Ok(outcome), warnings);
    SyncResult { differences: Some(differences), restore_point, ..result }
}

/// Restores from the workspace of `source` into the one of `target`.
fn restore(
    source: RunContext<'_>,
    target: RunContext<'_>,
    options: &RestoreOptions,
    report: &mut Report,
) -> Result<Outcome, BackupError> {
    let (from, to) = (&source.request.workspace, &target.request.workspace);
    // Both locks are taken in a fixed order, no matter which of the two is the source, to avoid a deadlock.
    let early = (from.as_str() < to.as_str()).then(|| source.wait_for_turn()).transpose()?;
    let mut run_env = target.enter()?;
    let late = (from.as_str() > to.as_str()).then(|| source.wait_for_turn()).transpose()?;
    let secrets = source.request.secrets();
    let proxies = source.env.config.proxy_secrets();
    run_env.redactor = Redactor::new(secrets.iter().chain(&proxies).chain(&options.key));
    let folder = run_env.run_dir.path().join("checkout");
    files::create_folder(&folder)?;
    let git = source.git(&run_env, &folder)?;
    let tip = source.step(Step::Fetch, || retry::patiently(&run_env.deadline, || fetch(source, &git, options)))?;
    report.commit.clone_from(&tip.commit);
    for warning in &tip.plan.warnings {
        report.warnings.add(warning.clone());
    }
    let account = target.step(Step::Probe, || target.account(&run_env))?;
    target.warn_about_access(&account, &mut report.warnings);
    source.warn_about_choice(&account, &mut report.warnings);
    let outcome = RestoreRun { source, target, options, git: &git, tip: &tip, report }.put(&account);
    drop((early, late));
    outcome
}

/// Fetches the history, and finds the commit in it.
fn fetch(source: RunContext<'_>, git: &Git<'_>, options: &RestoreOptions) -> Result<RemoteTip, BackupError> {
    let (remote, branch) = (&source.request.remote, &source.request.branch);
    let state = git.remote_state()?;
    git.create(state.format)?;
    let Some(tip) = git.fetch_history()? else {
        return Err(BackupError::new(Code::GitFailed, format!("{remote} has no branch `{branch}` to restore from")));
    };
    let commit = match (&options.commit, options.at) {
        (None, None) => tip,
        (None, Some(at)) => commit_at(source, git, &tip, at)?,
        (Some(digits), _) => git.find_commit(digits)?.ok_or_else(|| {
            let message = format!("--commit: branch `{branch}` of {remote} has no commit that {digits} names");
            BackupError::new(Code::ConfigInvalid, message)
        })?,
    };
    tip::at(source, git, &commit)
}

/// Returns the newest commit on the branch that is not later than `at`.
fn commit_at(source: RunContext<'_>, git: &Git<'_>, tip: &ObjectId, at: SystemTime) -> Result<ObjectId, BackupError> {
    if let Some(commit) = git.commit_at(tip, at)? {
        return Ok(commit);
    }
    let first = git.first_commit(tip)?;
    let made = git.commit_message(&first)?.time.map(time::to_text).unwrap_or_default();
    let SyncRequest { remote, branch, .. } = source.request;
    let message = format!(
        "--at: {} is earlier than the first commit of branch `{branch}` of {remote}: {} of {made}",
        time::to_text(at),
        short(&first)
    );
    Err(BackupError::new(Code::ConfigInvalid, message))
}

/// What is reported beside the outcome.
#[derive(Default)]
struct Report {
    warnings: Warnings,
    commit: Option<ObjectId>,
    /// What is not as wanted at the end.
    differences: Vec<Difference>,
    restore_point: Option<String>,
}

impl Report {
    fn failed(&self, target: RunContext<'_>, options: &RestoreOptions, error: BackupError) -> Outcome {
        let (error, secrets) = (target.in_last_step(error), target.request.secrets());
        let message = Redactor::new(secrets.iter().chain(&options.key)).redact(&error.message);
        self.outcome(error.code, message + &self.saved(), Changed::default())
    }

    fn outcome(&self, code: Code, message: String, changed: Changed) -> Outcome {
        Outcome { code, message, commit: self.commit.clone(), changed, left_out: Vec::new() }
    }

    /// Says where the previous content of the workspace is, if it was saved.
    fn saved(&self) -> String {
        match &self.restore_point {
            Some(point) => format!("; what was there before is on branch `{point}`"),
            None => String::new(),
        }
    }

    fn short_commit(&self) -> &str {
        self.commit.as_ref().map(short).unwrap_or_default()
    }

    fn differing_paths(&self) -> Sample {
        self.differences.iter().map(|one| one.path.as_bytes()).collect()
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
    tip: &'a RemoteTip,
    report: &'a mut Report,
}

impl RestoreRun<'_> {
    /// Warns about these, if there are any.
    fn warn(&mut self, what: &str, names: &Sample) {
        if !names.is_empty() {
            self.report.warnings.add(format!("{what}: {names}"));
        }
    }

    /// Returns the workspace to restore into.
    fn workspace(&self) -> &WorkspaceId {
        &self.target.request.workspace
    }

    /// Chooses what to restore, shows it, and restores it if that is asked for.
    fn put(&mut self, account: &Account) -> Result<Outcome, BackupError> {
        let all_of_commit = tree::read(&self.tip.folder)?;
        let (there, has_shared_ui) = self.pull()?;
        let point = self.options.saves.then(|| self.files_of_point(&there));
        let key = self.key()?;
        let of_commit = self.files_of_commit(all_of_commit);
        let mut choice = self.choose(&of_commit, Choice { there, has_shared_ui, key, ..Choice::default() })?;
        self.lay_out(&mut choice)?;
        choice.changes = tree::changes(self.git, &choice.wanted, &choice.there)?;
        self.warn_about_withheld(&choice);
        self.warn_about_own_items(&choice);
        self.warn_about_deleted_apps(&choice);
        self.warn_about_changes_by_wmill(&choice)?;
        if choice.pushed().next().is_none() && choice.key.to_set.is_none() {
            let unreadable = self.unreadable(&choice.secrets)?;
            return Ok(self.nothing_to_push(&choice.changes, &unreadable));
        }
        if let Some((_, left_out)) = &point {
            self.warn(
                "these are not saved in the restore point, since Windmill gave out secrets in plain text, which would stay \
                 in the repository's history for ever; a restore of the point with --delete would delete them",
                left_out,
            );
        }
        if !self.options.applies {
            let message = self.shown(&choice);
            return Ok(self.report.outcome(Code::DryRun, message, tree::counted(choice.pushed())));
        }
        if let Some((saved, _)) = point {
            self.save(saved, account)?;
        }
        self.push_and_read_back(&choice)
    }

    /// Pulls what the workspace holds now. Also returns whether this Windmill has a shared UI.
    fn pull(&self) -> Result<(Tree, bool), BackupError> {
        let target = self.target;
        // The key is written only if that is asked for, with a file of its own.
        let without_key = |text: &str| text.replace("includeKey: true", "includeKey: false");
        let plan = Plan {
            text: without_key(&self.tip.plan.text),
            text_without_patterns: without_key(&self.tip.plan.text_without_patterns),
            query: self.tip.plan.query.replace("include_key=true", "include_key=false"),
            ..self.tip.plan.clone()
        };
        let has_shared_ui = target.step(Step::Pull, || {
            let mut snapshot = target.snapshot(self.git.run_env(), &plan.query)?;
            snapshot.judge_by(&plan)?;
            pull::pull(target, self.git, &plan, None, &mut snapshot, &[])?;
            for (item, reason) in &snapshot.left_out.named {
                log::warn!("{item} of workspace {} cannot be pulled: {reason}", self.workspace());
            }
            Ok(snapshot.has_shared_ui().is_some())
        })?;
        Ok((self.staged()?, has_shared_ui))
    }

    /// Stages the files in the folder.
    fn staged(&self) -> Result<Tree, BackupError> {
        merge::remove_git_folders(self.git, &mut Warnings::default())?;
        Ok(tree::read(&self.git.stage()?)?)
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<(), BackupError> {
        Ok(files::write_file(&self.git.tree_folder().join(path), content)?)
    }

    fn warn_about_own_items(&mut self, choice: &Choice) {
        let (source, target) = (&self.source.request.workspace, self.workspace());
        if source != target {
            let what = format!("these are specific to workspace `{source}`; they become specific to `{target}`");
            self.warn(&what, &choice.own.iter().collect());
        }
    }

    fn nothing_to_push(&mut self, planned: &[Change], unreadable: &[String]) -> Outcome {
        self.report.differences = differences(planned, unreadable);
        let (target, changed) = (self.workspace(), Changed::default());
        if self.report.differences.is_empty() {
            let message = format!("Workspace '{target}' already has everything that was chosen");
            return self.report.outcome(Code::Unchanged, message, changed);
        }
        let code = if self.options.applies { Code::Differs } else { Code::DryRun };
        let message = format!(
            "Workspace '{target}' differs from commit {}, and a restore cannot change that; nothing was changed: {}",
            self.report.short_commit(),
            self.report.differing_paths()
        );
        self.report.outcome(code, message, changed)
    }

    fn shown(&self, choice: &Choice) -> String {
        let made = self.report.commit.as_ref().and_then(|commit| self.git.commit_message(commit).ok()?.time);
        let made = made.map(|made| format!(" of {}", time::to_text(made))).unwrap_or_default();
        let Changed { added, modified, deleted } = tree::counted(choice.pushed());
        let mut text = format!(
            "Would restore commit {}{made} into workspace '{}': {added} files created, {modified} changed, {deleted} \
             deleted; --yes does it\n",
            self.report.short_commit(),
            self.workspace()
        );
        if choice.key.to_set.is_some() {
            text.push_str(&format!("\nM {KEY_FILE}"));
        }
        for change in choice.pushed().take(LISTED_IN_MESSAGE_MAX) {
            text.push_str(&format!("\n{} {}", char::from(change.mark.letter()), printable(change.path.as_bytes())));
        }
        let more = choice.pushed().count().saturating_sub(LISTED_IN_MESSAGE_MAX);
        if more > 0 {
            text.push_str(&format!("\n... and {more} more"));
        }
        text
    }

    /// Pushes, and reads back everything that is wanted, even if the push failed halfway.
    fn push_and_read_back(&mut self, choice: &Choice) -> Result<Outcome, BackupError> {
        let target = self.target;
        let pushed = target.step(Step::Restore, || self.push(choice));
        if let Err(error @ BackupError { code: Code::Timeout | Code::ShuttingDown, .. }) = pushed {
            return Err(error);
        }
        match (pushed, self.read_back(choice)) {
            (Ok(()), Ok(changed)) => Ok(self.done(changed)),
            (Ok(()), Err(error)) => Err(error),
            (Err(error), Ok(changed)) => {
                let done = changed.added + changed.modified + changed.deleted;
                let Outcome { code, message, .. } = self.report.failed(target, self.options, error);
                let message = format!("{message}; {done} of {} files match the commit now", choice.pushed().count());
                Ok(self.report.outcome(code, message, changed))
            }
            (Err(error), Err(unread)) => {
                let unread = self.target.in_last_step(unread).message;
                let message = format!("{}; it could not be read back: {unread}", error.message);
                Err(BackupError { message, ..error })
            }
        }
    }

    /// Runs `wmill sync push` in the folder.
    fn push(&mut self, choice: &Choice) -> Result<(), BackupError> {
        let mut plan = self.tip.plan.text.replace("includeKey: true", "includeKey: false");
        if let Some(key) = &choice.key.to_set {
            plan = plan.replace("includeKey: false", "includeKey: true");
            // Written after staging, so that no git object ever holds it.
            self.write(KEY_FILE, format!("\"{}\"\n", key.expose()).as_bytes())?;
        }
        plan += &wmill_yaml::own_items(&choice.own);
        self.write(WMILL_YAML, plan.as_bytes())?;
        let windmill = self.target.windmill(self.git.run_env());
        let deletes = choice.pushed().any(|change| change.mark == Mark::Deleted);
        let deletes = if deletes { cli::Deletions::Push } else { cli::Deletions::Skip };
        let pushed = cli::push(&windmill, self.git.run_env(), self.git.tree_folder(), self.permits(choice)?, deletes);
        if let Some(refusal) = pushed? {
            let said = format!("Windmill refused {}: {}", refusal.what, refusal.reason);
            self.report.warnings.add(self.git.run_env().redactor.redact(&said));
        }
        Ok(())
    }

    /// Returns what the push may change: the items with a file that is not as wanted, and the key.
    fn permits(&self, choice: &Choice) -> Result<Permits, BackupError> {
        let mut permits = Permits::default();
        if choice.key.to_set.is_some() {
            permits.add(&ItemId { kind: ItemKind::Key, path: String::new() }, false);
        }
        let stay = choice.items_that_stay();
        for Change { path, mark, .. } in choice.pushed() {
            let id = choice.items.get(path);
            let deletes = id.map_or(*mark == Mark::Deleted, |id| !stay.contains(id));
            match (id, choice.there.get(path)) {
                (Some(id), _) if deletes && is_app(id) && has_app_at(&stay, &id.path) => {}
                (Some(ItemId { kind: ItemKind::User, .. }), Some(entry)) => {
                    self.username(entry)?.iter().for_each(|name| permits.add_user(name, deletes));
                }
                (Some(id), _) => permits.add(id, deletes),
                (None, _) if tip::is_shared_ui(path.as_bytes()) => permits.add_shared_ui(),
                (None, _) => {
                    let name = path.strip_prefix("f/").and_then(|name| name.split('/').next());
                    name.iter().for_each(|name| permits.add_folder(name, deletes));
                }
            }
        }
        Ok(permits)
    }

    /// Returns the name in the file of a user of the workspace. The file of the commit may have another user's.
    fn username(&self, entry: &Entry) -> Result<Option<String>, BackupError> {
        let content = self.git.read_blob(&entry.object, USER_BYTES_MAX);
        let BlobContent::Whole(content) = content? else {
            return Ok(None);
        };
        let fields = yaml::fields(&content, USER_BYTES_MAX).unwrap_or_default();
        Ok(fields.into_iter().find_map(|(name, value)| match value {
            Node::Text(value) if name == "username" => Some(value),
            _ => None,
        }))
    }

    /// Pulls the workspace again, and finds what is not as wanted. Returns what was changed.
    fn read_back(&mut self, choice: &Choice) -> Result<Changed, BackupError> {
        let target = self.target;
        let (fresh, _) = self.pull()?;
        let left = tree::changes(self.git, &choice.wanted, &fresh)?;
        let is_left = |change: &Change| left.iter().any(|other| other.path == change.path);
        let changed = tree::counted(choice.changes.iter().filter(|change| !is_left(change)));
        let unreadable = self.unreadable(&self.secrets_to_read(&fresh, choice)?)?;
        let mut found = differences(&left, &unreadable);
        if let Some(key) = &choice.key.to_set
            && target.key(self.git.run_env())?.is_none_or(|has| !has.matches(key.expose().as_bytes()))
        {
            let diff = vec!["the workspace has another key than that of --key-file".to_owned()];
            found.push(Difference { path: KEY_FILE.to_owned(), kind: "differs", diff });
        }
        self.report.differences = found;
        Ok(changed)
    }

    fn done(&self, changed: Changed) -> Outcome {
        let (target, commit, saved) = (self.workspace(), self.report.short_commit(), self.report.saved());
        let (code, message) = if self.report.differences.is_empty() {
            (Code::Restored, format!("Workspace '{target}' was read back and matches commit {commit}{saved}"))
        } else {
            let paths = self.report.differing_paths();
            (Code::Differs, format!("Workspace '{target}' does not match commit {commit}: {paths}{saved}"))
        };
        self.report.outcome(code, message, changed)
    }
}

fn differences(changes: &[Change], unreadable: &[String]) -> Vec<Difference> {
    let mut found = Vec::new();
    for Change { mark, path, diff } in changes {
        let kind = match mark {
            Mark::Added => "missing",
            Mark::Modified => "differs",
            Mark::Deleted => "not_deleted",
        };
        // Of the others, only the number is shown.
        let diff = if found.len() < LISTED_MAX { diff.clone() } else { Vec::new() };
        found.push(Difference { path: printable(path.as_bytes()), kind, diff });
    }
    for path in unreadable {
        let path = printable(format!("{path}.variable.yaml").as_bytes());
        found.push(Difference { path, kind: "unreadable", diff: vec!["Windmill cannot decrypt its value".to_owned()] });
    }
    found
}

/// Checks the value of `--commit`.
///
/// # Errors
/// A message if it is not the beginning of a commit id.
pub fn check_commit(digits: &str) -> Result<(), String> {
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if is_hex && (COMMIT_DIGITS_MIN..=64).contains(&digits.len()) {
        return Ok(());
    }
    Err(format!("--commit: {} is not a commit id or the beginning of one", crate::model::names::quoted(digits)))
}
