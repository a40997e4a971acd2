//! The context of one run: its request, its lock, the environment of its programs, its steps and their attempts.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use crate::backup::paths::{self, lock_path};
use crate::backup::{Event, Step};
use crate::config::Config;
use crate::git::{self, Git, RemoteState, checkout_cache, ssh_key};
use crate::model::{
    ADMINS, BackupError, BranchName, Changed, Code, LeftOut, RemoteUrl, Result, SyncResult, TokenUser, Warnings, error,
    names,
};
use crate::net::ca_bundle;
use crate::process::{Lock, RunEnv};
use crate::request::SyncRequest;
use crate::util::{
    CancelToken, Deadline, Redactor, Retry, RunDir, Secret, Volume, files, hash, lock, logging, redact, retry, time,
};
use crate::windmill::{Account, Snapshot, Windmill};

/// After this time, a failed request for the workspace's key is not repeated.
const KEY_TIME_MAX: Duration = Duration::from_secs(10);

/// What a run gets from the process that it runs in.
pub struct Env<'a> {
    /// The settings.
    pub config: &'a Config,
    /// Cancelled when the process ends.
    pub cancel: &'a CancelToken,
    /// Called with each event of a run.
    pub progress: &'a (dyn Fn(Event) + Sync),
    /// Returns whose token made the last success; see [`LastTokenUser`].
    pub last_token_user: LastTokenUser<'a>,
    /// What the current run has found out.
    pub notes: Mutex<Notes>,
}

/// Returns whose token made the last success of a workspace to a destination, if that is known.
pub type LastTokenUser<'a> = &'a (dyn Fn(&str, &str) -> Option<TokenUser> + Sync);

/// What a run finds out besides its result.
#[derive(Default)]
pub struct Notes {
    /// What Windmill reports about the token, if the run asked for it.
    account: Option<Account>,
    /// How many items Windmill exported, if the run asked for them.
    items: Option<usize>,
    /// The step that began last.
    step: Option<Step>,
    /// The steps that succeeded, and how long each took.
    steps: Vec<(Step, Duration)>,
    /// Whether the branch exists, but the remote's HEAD names another branch that does not exist.
    head_is_missing: bool,
}

impl<'a> Env<'a> {
    /// Returns the environment of runs that report their progress to no one.
    pub fn new(config: &'a Config, cancel: &'a CancelToken, last_token_user: LastTokenUser<'a>) -> Self {
        Self { config, cancel, progress: &|_| {}, last_token_user, notes: Mutex::default() }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }
}

/// Returns a new run id. It is unique among all processes, and has no meaning.
pub fn new_run_id() -> String {
    // Each hasher has other keys, which are random.
    hash::short_name(&format!("{:?} {}", SystemTime::now(), RandomState::new().hash_one(())))
}

/// Makes the folder of a run, removes what killed runs left in theirs, and prepares the environment of the run's
/// programs. `lock` is the lock on the folder.
///
/// # Errors
/// [`Code::ConfigInvalid`] if `CA_BUNDLE_FILE` cannot be used; an error of the disk.
pub(super) fn open(
    config: &Config,
    lock: Lock,
    folder: PathBuf,
    deadline: Deadline,
    redactor: Redactor,
) -> Result<RunEnv> {
    let run_dir = RunDir::new(folder)?;
    paths::remove_leftovers(config);
    let own = ca_bundle::bundle(&config.tool_environment);
    let own = own.map_err(|why| BackupError::new(Code::ConfigInvalid, why))?;
    let environment = ca_bundle::for_run(&config.tool_environment, &own, &run_dir)?;
    Ok(RunEnv { run_dir, deadline, redactor, environment, lock })
}

/// Returns the warning about a remote whose HEAD names a branch that does not exist.
pub fn missing_head(remote: &RemoteUrl, branch: &BranchName) -> String {
    format!(
        "the HEAD of {remote} names a branch that is not there, so a clone checks nothing out: make `{branch}` its \
         default branch (in a bare repository: `git symbolic-ref HEAD refs/heads/{branch}`)"
    )
}

/// Logs the warnings of a run, and one line about its end.
fn log_end(result: &SyncResult, steps: &[(Step, Duration)]) {
    let SyncResult { code, message, run_id, changed, duration_ms, .. } = result;
    for warning in &result.warnings {
        log::warn!("run {run_id}: {warning}");
    }
    let _scope = logging::scope(|fields| {
        fields.step = None;
        fields.code = Some(code.as_str());
        fields.duration_ms = Some(*duration_ms);
    });
    let level = if code.is_success() { log::Level::Info } else { log::Level::Error };
    let commit = result.commit.as_deref().unwrap_or("none");
    let Changed { added, modified, deleted } = changed;
    let steps: Vec<_> = steps.iter().map(|(step, took)| format!("{} {} ms", step.as_str(), took.as_millis())).collect();
    log::log!(
        level,
        "run {run_id}: {} after {duration_ms} ms: {message}; {added} added, {modified} modified, {deleted} deleted; \
         commit {commit}; {}",
        code.as_str(),
        steps.join(", ")
    );
}

/// A request, and the process that it runs in.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// The request.
    pub request: &'a SyncRequest,
    /// What the process provides.
    pub env: &'a Env<'a>,
}

impl RunContext<'_> {
    /// Does the `work` of a run, and returns its completed result. `work` gets the warnings, and sets what is special
    /// about its result. A panic is an internal error. `task` describes the run in the log.
    pub fn report(
        &self,
        run_id: &str,
        task: fmt::Arguments<'_>,
        work: impl FnOnce(&mut Warnings) -> Result<SyncResult>,
    ) -> SyncResult {
        let (started, SyncRequest { workspace, remote, branch, .. }) = (Instant::now(), self.request);
        let _scope = logging::run_scope(run_id, workspace.as_str());
        log::info!("run {run_id}: {task}");
        let mut warnings = Warnings::default();
        let ended = error::catch_panic(|| work(&mut warnings)).unwrap_or_else(|error| {
            let error = self.in_last_step(error);
            // The last line of defence: the output of each tool was already redacted when it was read.
            let message = Redactor::new(&self.request.secrets()).redact(&self.failure_message(&error, run_id));
            SyncResult { code: error.code, message, ..SyncResult::default() }
        });
        let Notes { account, items, steps, head_is_missing, .. } = std::mem::take(&mut *self.env.notes());
        let token_user = account.map(|account| {
            self.warn_about_token(&account, &mut warnings);
            TokenUser { name: account.user.map(|(name, _)| name).unwrap_or_default(), admin: account.is_admin }
        });
        if head_is_missing {
            warnings.add(missing_head(remote, branch));
        }
        let result = SyncResult {
            message: redact::visible(&ended.message),
            run_id: run_id.to_owned(),
            workspace: workspace.to_string(),
            branch: branch.to_string(),
            warnings: warnings.list().iter().map(|warning| redact::visible(warning)).collect(),
            left_out: LeftOut::first_of(ended.left_out),
            items,
            token_user,
            duration_ms: time::millis(started.elapsed()),
            ..ended
        };
        log_end(&result, &steps);
        result
    }

    /// Returns the message of a failure. If the request names its own remote, the text of that server is only logged:
    /// otherwise a caller could read in the answer what only this machine can reach.
    fn failure_message(&self, fault: &BackupError, run_id: &str) -> String {
        let SyncRequest { remote, branch, .. } = self.request;
        let what = match fault.code {
            _ if self.env.config.remote.as_ref() == Some(remote) => return fault.message.clone(),
            Code::GitUnreachable => "cannot be reached, or is not a git server",
            Code::GitUnauthorized => "refused the credentials",
            Code::GitRejected => "rejected the push",
            Code::GitFailed => "failed, or git did",
            _ => return fault.message.clone(),
        };
        log::warn!("run {run_id}: {}", Redactor::new(&self.request.secrets()).redact(&fault.message));
        format!(
            "the git remote {remote} (branch `{branch}`), which the request names, {what}; the service's log has more"
        )
    }

    /// Runs a step, and reports its beginning and its success.
    ///
    /// # Errors
    /// The errors of `work`.
    pub fn step<T>(&self, step: Step, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.env.notes().step = Some(step);
        logging::set_step(step.as_str());
        log::debug!("step {} begins", step.as_str());
        (self.env.progress)(Event::Started(step));
        let begun = Instant::now();
        let result = work()?;
        let took = begun.elapsed();
        let duration_ms = time::millis(took);
        let _scope = logging::scope(|fields| fields.duration_ms = Some(duration_ms));
        log::debug!("step {} took {duration_ms} ms", step.as_str());
        self.env.notes().steps.push((step, took));
        (self.env.progress)(Event::Ended(step, took));
        Ok(result)
    }

    /// Explains the error of a run that was ended in this step.
    pub fn in_step(&self, step: Step, error: BackupError) -> BackupError {
        let SyncRequest { flags, workspace, .. } = self.request;
        let (noun, step, limit) = (flags.purpose.noun(), step.as_str(), self.env.config.sync_timeout.as_secs());
        let what = format!("the {noun} of workspace `{workspace}` was ended in step `{step}`");
        let timed_out = format!("{what}: it took longer than SYNC_TIMEOUT ({limit} s)");
        error.explained(timed_out, format!("{what}: the service is shutting down"))
    }

    /// Explains the error of a run that was ended in its last step.
    pub fn in_last_step(&self, error: BackupError) -> BackupError {
        let step = self.env.notes().step.unwrap_or(Step::Queue);
        self.in_step(step, error)
    }

    /// Returns a client for Windmill with the token of the request and the deadline of the run.
    pub fn windmill<'b>(&'b self, run_env: &'b RunEnv) -> Windmill<'b> {
        let SyncRequest { base_url, workspace, windmill_token: token, windmill_headers: headers, .. } = self.request;
        Windmill::new(base_url, workspace, token, headers, &run_env.deadline, &run_env.environment)
    }

    /// Asks Windmill who the user of the token is.
    ///
    /// # Errors
    /// [`BackupError`] if Windmill does not answer or refuses.
    pub fn account(&self, run_env: &RunEnv) -> Result<Account> {
        let (windmill, is_default) = (self.windmill(run_env), self.request.workspace_is_default);
        let account = retry::patiently(&run_env.deadline, || windmill.account(is_default));
        // The remote is asked at the same time, in another step.
        let account = account.map_err(|error| self.in_step(Step::Probe, error))?;
        self.env.notes().account = Some(account.clone());
        Ok(account)
    }

    /// Exports the workspace from Windmill into the folder of the run.
    ///
    /// # Errors
    /// [`BackupError`] if Windmill does not answer or refuses, or the disk fails.
    pub fn snapshot(&self, run_env: &RunEnv, query: &str) -> Result<Snapshot> {
        let (windmill, folder) = (self.windmill(run_env), run_env.run_dir.path().join("snapshot"));
        let snapshot = retry::patiently(&run_env.deadline, || windmill.snapshot(query, &folder))?;
        self.env.notes().items = Some(snapshot.items);
        Ok(snapshot)
    }

    /// Returns the key under which Windmill encrypts the secrets of the workspace; `None` if Windmill does not show it.
    ///
    /// # Errors
    /// [`BackupError`] if there is no answer, or if a temporary error of the server persists.
    pub fn key(&self, run_env: &RunEnv) -> Result<Option<Secret>> {
        let (begun, windmill) = (Instant::now(), self.windmill(run_env));
        retry::patiently(&run_env.deadline, || {
            windmill.key().map_err(|error| {
                // A server that hangs is not asked again, since a commit can do without the key.
                if begun.elapsed() > KEY_TIME_MAX { BackupError { retry: Retry::Never, ..error } } else { error }
            })
        })
    }

    /// Records whether a clone of the remote checks out a branch that exists.
    pub fn note_head(&self, state: &RemoteState) {
        // If each workspace has its own branch, no branch is the right HEAD for everyone.
        let is_one_branch = !self.env.config.branch.contains(names::WORKSPACE_MARK);
        self.env.notes().head_is_missing =
            self.request.configured && is_one_branch && state.tip.is_some() && !state.has_head;
    }

    /// Warns if the token is not an admin's, since Windmill may not show it everything; if `*` leaves workspaces out;
    /// and if the workspace is only the default.
    fn warn_about_token(&self, account: &Account, warnings: &mut Warnings) {
        let SyncRequest { workspace, workspace_is_default, list_warnings, .. } = self.request;
        if !account.is_admin {
            warnings.add(format!(
                "the token is not an admin's in workspace `{workspace}`: what its user may not see is left out"
            ));
        }
        list_warnings.iter().for_each(|warning| warnings.add(warning.clone()));
        if *workspace_is_default {
            let seen = match &account.workspaces {
                Some(seen) => format!("the token sees: {}", seen.join(", ")),
                None => "the token may not tell which workspaces it sees".to_owned(),
            };
            warnings.add(format!("WINDMILL_WORKSPACE is not set, so `{ADMINS}` is where the backup is from; {seen}"));
        }
    }

    /// Warns about numbers that wmill rounds, as JavaScript does, and about files that it does not write.
    pub fn warn_about_snapshot(&self, snapshot: &Snapshot, warnings: &mut Warnings) {
        let rounded = "wmill rounds whole numbers above 2^53, so the backup has other numbers in these items; store such \
                       numbers as text";
        let passed_over =
            "wmill does not write some files of raw apps and dbt projects, so these are not in the backup";
        for (items, what) in [(&snapshot.rounded, rounded), (&snapshot.passed_over, passed_over)] {
            if !items.is_empty() {
                warnings.add(format!("{what}: {items}"));
            }
        }
    }

    /// Waits for the lock of this run's backup.
    ///
    /// # Errors
    /// [`BackupError`] if the disk fails or the time runs out.
    pub fn wait_for_turn(&self) -> Result<Lock> {
        let path = lock_path(self.env.config, &self.request.backup_id());
        path.parent().map_or(Ok(()), files::create_folder)?;
        let deadline = Deadline::after(self.env.config.sync_timeout, self.env.cancel);
        let on_busy = &mut || {
            log::info!("waiting for another process that works on this workspace");
            (self.env.progress)(Event::Waits);
        };
        self.step(Step::Queue, || Ok(Lock::acquire(&path, &deadline, on_busy)??))
    }

    /// Waits for the lock of this run's backup, and prepares the environment of its programs.
    ///
    /// # Errors
    /// [`BackupError`] if the disk fails, the time runs out, or the certificates cannot be read.
    pub fn enter(&self) -> Result<RunEnv> {
        let (request, config) = (self.request, self.env.config);
        let lock = self.wait_for_turn()?;
        let deadline = Deadline::after(config.sync_timeout, self.env.cancel);
        let redactor = Redactor::new(request.secrets().iter().chain(&config.proxy_secrets()));
        open(config, lock, paths::run_folder(config, request), deadline, redactor)
    }

    /// Returns the folder of the checkout that is kept for this backup. It may not exist.
    pub fn checkout_place(&self) -> PathBuf {
        let request = self.request;
        let name = if request.configured {
            format!("{}@{}", request.workspace, request.destination())
        } else {
            request.backup_id()
        };
        paths::root(self.env.config).join("checkouts").join(name)
    }

    /// Opens the folder of the checkout that is kept for this backup. Each workspace and destination has its own, so
    /// that a new branch or remote starts clean. The caller holds the lock of the run's backup.
    ///
    /// # Errors
    /// [`BackupError`] if the disk fails.
    pub fn checkout_folder(&self) -> Result<PathBuf> {
        let (request, config) = (self.request, self.env.config);
        let folder = self.checkout_place();
        checkout_cache::open(&folder, request.configured, &|name| lock_path(config, name))?;
        if let Err(error) = Volume::of(&folder).check() {
            log::warn!("making the checkout again: {error}");
            checkout_cache::discard(&folder)?;
        }
        Ok(folder)
    }

    /// Removes the checkout that is kept for this backup, so that the next run makes it again. What is known about the
    /// last success stays. A failure is logged.
    pub fn discard_checkout(&self) {
        if let Err(error) = checkout_cache::discard(&self.checkout_place()) {
            log::warn!("a checkout that cannot be used stays: {error}");
        }
    }

    /// Removes the checkouts that this workspace does not use any more, if this run made a configured backup. The run
    /// still has its lock.
    pub fn remove_unused_checkouts(&self) {
        if self.request.configured && !self.request.flags.dry_run {
            checkout_cache::remove_unused(&self.checkout_place(), SystemTime::now());
        }
    }

    /// Returns git for the checkout in `folder` and the remote of this run.
    ///
    /// # Errors
    /// [`BackupError`] if the disk fails, or the key cannot sign.
    pub fn git<'b>(&'b self, run_env: &'b RunEnv, folder: &Path) -> Result<Git<'b>> {
        let request = self.request;
        let signing_key = request.signing_key.as_ref().map(|key| ssh_key::prepare_signing(run_env, key)).transpose();
        let signing_key = signing_key.map_err(|error| self.in_step(Step::Fetch, error))?;
        let accepted_hosts = &paths::root(self.env.config).join("known_hosts");
        let site = git::RepositoryPaths { folder, accepted_hosts, signing_key: signing_key.as_deref() };
        Git::new(run_env, &site, &request.remote, &request.branch, &request.git)
    }
}
