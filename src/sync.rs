//! The story of a sync: lock, refresh, pull, compare, guard, commit, push, confirm.
//!
//! It reads aloud, and leaves to `git` how git does it and to `windmill` how wmill does it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::checkouts;
use crate::code::Code;
use crate::comparison::{Comparison, listed, printable};
use crate::config::Config;
use crate::deadline::{Deadline, Expired, Interrupt};
use crate::digest;
use crate::git::{self, BlobContent, Entry, Git, GitError, Listing, ObjectId, Pushed, Tree};
use crate::items::{self, ItemId, TreeFile};
use crate::lock::{Lock, LockError};
use crate::names::WorkspaceId;
use crate::outcome::{Changed, SyncResult};
use crate::retry::Tries;
use crate::scratch::{self, Scratch};
use crate::secret::Scrubber;
use crate::signing::{self, SigningError};
use crate::staging::{self, StagingError};
use crate::sync_request::SyncRequest;
use crate::trust::{self, TrustError};
use crate::windmill::{self, Account, Cure, Windmill, WindmillError};
use crate::wmill_yaml::{self, Asked, Plan};
use crate::workplace::Workplace;

/// How often a sync starts over when another writer was first. A branch that moves five times within five pulls is
/// not one that a backup can be put upon.
const ROUNDS_MAX: u32 = 5;
/// Paths listed in a commit's body, in a dry run's message, or in a warning; the rest is counted.
const LISTED_IN_COMMIT_MAX: usize = 500;
const LISTED_IN_MESSAGE_MAX: usize = 50;
const LISTED_IN_WARNING_MAX: usize = 20;
/// A `wmill.yaml` beyond this is no configuration.
const WMILL_YAML_BYTES_MAX: usize = 256 << 10;
/// A variable beyond this is not looked into for plain secrets; Windmill's own limit is far less.
const VARIABLE_BYTES_MAX: u64 = 1 << 20;

/// The file of ours that wmill finds, and its lock file.
const WMILL_YAML: &str = "wmill.yaml";
const WMILL_LOCK: &str = "wmill-lock.yaml";
/// In the note of a success.
const SHARED_UI_NOTE: &str = "\"shared_ui\":";

/// A part of a sync, for progress, metrics and the message of a time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waiting for another sync of the same workspace.
    Queue,
    /// Bringing the checkout to the remote's tip.
    Fetch,
    /// Asking Windmill who we are.
    Probe,
    /// `wmill sync pull`.
    Pull,
    /// Staging, comparing, guarding, committing.
    Commit,
    /// Pushing, and seeing that it arrived.
    Push,
}

impl Step {
    /// The step's name in messages and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Fetch => "fetch",
            Self::Probe => "probe",
            Self::Pull => "pull",
            Self::Commit => "commit",
            Self::Push => "push",
        }
    }
}

/// Told as a sync goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A step begins.
    Started(Step),
    /// A step went well, and took so long.
    Ended(Step, Duration),
}

/// What a sync has from the process that it runs in.
pub struct Service<'a> {
    /// Guards, time-outs, kinds, folders.
    pub config: &'a Config,
    /// Our own program; see [`git::SSH_ENVIRONMENT`].
    pub own_program: &'a Path,
    /// Raised when the process ends.
    pub interrupt: &'a Interrupt,
    /// Told as it goes on.
    pub progress: &'a (dyn Fn(Event) + Sync),
}

/// Why a sync failed.
#[derive(Debug)]
struct SyncError {
    code: Code,
    message: String,
    remedy: Remedy,
}

/// What may help against a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Nothing that we can do.
    None,
    /// To try again, after the time that a server asks for.
    Time(Option<Duration>),
    /// A new checkout.
    NewCheckout,
}

impl SyncError {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: Remedy::None }
    }

    /// Says how often it was tried.
    fn after(mut self, tries: &Tries<'_>) -> Self {
        if tries.count() > 1 {
            self.message = format!("{} (tried {} times)", self.message, tries.count());
        }
        self
    }
}

/// What a sync that did not fail came to.
struct Success {
    code: Code,
    message: String,
    commit: Option<ObjectId>,
    changed: Changed,
}

/// A name for a run: unique among those of all processes, and without meaning.
#[must_use]
pub fn new_run_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let seed = format!("{now} {} {}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    digest::short_name(&seed)
}

/// Syncs, and tells how it went. It never panics on what others send, and never fails without saying why.
#[must_use]
pub fn run(request: &SyncRequest, service: &Service<'_>, run_id: &str) -> SyncResult {
    let started = Instant::now();
    log::info!(
        "run {run_id}: syncing workspace {} to {} (branch {})",
        request.workspace,
        request.remote,
        request.branch
    );
    let mut story = Story { request, service, warnings: Vec::new(), rejection: String::new() };
    let ended = story.tell();
    let mut result = SyncResult {
        code: Code::Internal,
        message: String::new(),
        run_id: run_id.to_owned(),
        workspace: request.workspace.to_string(),
        branch: request.branch.to_string(),
        commit: None,
        changed: Changed::default(),
        warnings: story.warnings,
        duration_ms: 0,
    };
    match ended {
        Ok(success) => {
            result.code = success.code;
            result.message = success.message;
            result.commit = success.commit.map(|commit| commit.to_string());
            result.changed = success.changed;
        }
        Err(error) => {
            result.code = error.code;
            // The last line of defence: each tool's output was scrubbed where it was read.
            result.message = Scrubber::new(&request.secrets()).scrub(&error.message);
        }
    }
    result.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    for warning in &result.warnings {
        log::warn!("run {run_id}: {warning}");
    }
    let level = if result.code.is_success() { log::Level::Info } else { log::Level::Error };
    log::log!(level, "run {run_id}: {} after {} ms: {}", result.code.as_str(), result.duration_ms, result.message);
    result
}

/// Where everything of ours lies. Never the top of the data folder: an older service had its checkout there.
#[must_use]
pub fn root(config: &Config) -> PathBuf {
    config.data_dir.join("windmill-git-sync")
}

/// Where a run of this workspace keeps what must not outlive it: a token, a key.
#[must_use]
pub fn run_folder(config: &Config, workspace: &WorkspaceId) -> PathBuf {
    root(config).join("runs").join(workspace.as_str())
}

struct Story<'a> {
    request: &'a SyncRequest,
    service: &'a Service<'a>,
    warnings: Vec<String>,
    /// Why the last push was rejected.
    rejection: String,
}

/// What the remote held when the round began.
struct Base {
    tip: Option<ObjectId>,
    /// What the commit builds upon: the tip, or a tree without what is unsound in it.
    tree: Option<ObjectId>,
    /// What wmill gets to see.
    shown: Option<ObjectId>,
    /// All sound entries of the tip.
    whole: Tree,
    /// Paths of the tip that no checkout can hold.
    unsound: Vec<Vec<u8>>,
    /// Those in our folder, by their path in it.
    folder: Tree,
    /// What this run takes out, by the settings and by what the repository may say.
    plan: Plan,
    /// Part of the names of files that wmill takes for this workspace's alone.
    workspace: WorkspaceId,
}

impl Base {
    /// Whether wmill does not get to see a file of the folder: a link would lead it elsewhere, a submodule hides what
    /// is below, the repository's configuration gives orders, one folder in the other layout stops a pull, what is in
    /// the way of the shared UI stops that alone, and a file for one workspace stays for ever.
    fn is_withheld(&self, path: &[u8], entry: &Entry) -> bool {
        !entry.is_file()
            || path.split(|byte| *byte == b'/').next() == Some(WMILL_YAML.as_bytes())
            || is_shared_ui(path)
            || is_for_one_workspace(path, &self.workspace)
            || std::str::from_utf8(path).is_ok_and(|path| items::is_in_other_layout(path, self.plan.non_dotted_paths))
    }
}

/// What came of a push.
enum Arrival {
    /// The commit was seen on the remote.
    Confirmed,
    /// Perhaps since another writer was first; what the server said.
    Rejected(String),
}

/// How the tree was made that wmill worked upon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Footing {
    /// The repository's regular files, so that wmill changes only what changed.
    Repository,
    /// Nothing: the repository's files stood in wmill's way.
    Empty,
}

impl Story<'_> {
    fn tell(&mut self) -> Result<Success, SyncError> {
        let root = self.root();
        let lock = self.wait_for_turn(&root)?;
        let scratch = Scratch::new(run_folder(self.service.config, &self.request.workspace))
            .map_err(|error| self.disk(&error))?;
        let environment =
            trust::for_run(&self.service.config.tool_environment, &scratch).map_err(|error| match error {
                TrustError::Bundle(why) => SyncError::new(Code::ConfigInvalid, why),
                TrustError::Disk(error) => self.disk(&error),
            })?;
        let place = Workplace {
            scratch,
            deadline: Deadline::after(self.service.config.sync_timeout, self.service.interrupt),
            scrubber: Scrubber::new(self.request.secrets().iter().chain(&self.service.config.proxy_secrets())),
            environment,
            lock,
        };
        let folder = root.join("checkouts").join(self.checkout_name());
        scratch::create_folder(&folder).map_err(|error| self.disk(&error))?;
        if !self.request.configured {
            checkouts::make_room(&folder).map_err(|error| self.disk(&error))?;
        }
        let signing_key = self.request.signing_key.as_ref().map(|key| signing::prepare(&place, key)).transpose();
        let signing_key = signing_key.map_err(|error| match error {
            SigningError::Setting(why) => SyncError::new(Code::ConfigInvalid, why),
            SigningError::Expired(expired) => self.expired(Step::Fetch, expired),
            SigningError::Disk(error) => self.disk(&error),
        })?;
        let git_place = git::Place {
            signing_key: signing_key.as_deref(),
            folder: &folder,
            own_program: self.service.own_program,
            accepted_hosts: &root.join("known_hosts"),
        };
        let request = self.request;
        let git = Git::new(&place, &git_place, &request.remote, &request.branch, &request.git)
            .map_err(|error| self.git_error(Step::Fetch, error))?;
        self.tell_about_old_volume();
        self.rounds(&place, &git, &folder)
    }

    /// Where everything of ours lies. Never the top of the data folder: an older service had its checkout there.
    fn root(&self) -> PathBuf {
        root(self.service.config)
    }

    fn wait_for_turn(&self, root: &Path) -> Result<Lock, SyncError> {
        let locks = root.join("locks");
        scratch::create_folder(&locks).map_err(|error| self.disk(&error))?;
        let path = locks.join(format!("{}.lock", self.request.workspace));
        let deadline = Deadline::after(self.service.config.sync_timeout, self.service.interrupt);
        self.step(Step::Queue, || {
            Lock::acquire(&path, &deadline).map_err(|error| match error {
                LockError::Expired(expired) => self.expired(Step::Queue, expired),
                LockError::Io(error) => self.disk(&error),
            })
        })
    }

    /// One folder for each thing that is backed up, so that another branch or remote than last time starts clean.
    fn checkout_name(&self) -> String {
        format!("{}@{}", self.request.workspace, self.request.destination())
    }

    fn tell_about_old_volume(&mut self) {
        let data = &self.service.config.data_dir;
        if fs::symlink_metadata(data.join(".git")).is_ok() {
            self.warnings.push(format!(
                "{} holds a checkout that another service left, perhaps with a token in its .git/config; it is neither \
                 used nor touched: revoke that token, and remove it when you no longer need it",
                data.display()
            ));
        }
    }

    fn rounds(&mut self, place: &Workplace, git: &Git<'_>, folder: &Path) -> Result<Success, SyncError> {
        let (mut base, account, version) = self.refresh_and_probe(place, git)?;
        let (mut round, mut last_tip, mut is_new) = (1, None, false);
        loop {
            match self.round(place, git, folder, base, &account, version.as_deref()) {
                Ok(Some(success)) => return Ok(success),
                Ok(None) if round == ROUNDS_MAX => return Err(self.outrun()),
                Ok(None) => {
                    round += 1;
                    log::info!(
                        "another writer was first; starting over on the new tip (round {round} of {ROUNDS_MAX})"
                    );
                }
                // Damage that no fetch has met: an object that was written half, of which git only sees that it is there.
                Err(error) if error.remedy == Remedy::NewCheckout && !is_new => {
                    log::warn!("starting over in a new checkout: {}", error.message);
                    git.discard().map_err(|error| self.git_error(Step::Fetch, error))?;
                    is_new = true;
                }
                Err(error) => return Err(error),
            }
            base = self.step(Step::Fetch, || self.patiently(Step::Fetch, place, || self.refresh(git)))?;
            if round > 2 && base.tip == last_tip {
                // Twice upon the same tip: nobody was first, the server just does not want it.
                return Err(self.refused(&self.rejection));
            }
            last_tip.clone_from(&base.tip);
        }
    }

    fn outrun(&self) -> SyncError {
        let message = format!(
            "cannot push to {} (branch `{}`): other writers were first {ROUNDS_MAX} times in a row ({})",
            self.request.remote, self.request.branch, self.rejection
        );
        SyncError::new(Code::GitRejected, message)
    }

    /// Does `work`, and does it again after a pause where it failed for a cause that may pass.
    fn patiently<T>(
        &self,
        step: Step,
        place: &Workplace,
        mut work: impl FnMut() -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        let mut tries = Tries::new(&place.deadline);
        loop {
            match work() {
                Err(error) => self.wait_out(step, &mut tries, error)?,
                done => return done,
            }
        }
    }

    /// Waits until what failed can be tried again; where it cannot, the failure.
    fn wait_out(&self, step: Step, tries: &mut Tries<'_>, error: SyncError) -> Result<(), SyncError> {
        let Remedy::Time(asked) = error.remedy else { return Err(error.after(tries)) };
        match tries.pause(asked, &error.message) {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.after(tries)),
            Err(expired) => Err(self.expired(step, expired)),
        }
    }

    /// The remote and Windmill are asked at the same time.
    fn refresh_and_probe(
        &mut self,
        place: &Workplace,
        git: &Git<'_>,
    ) -> Result<(Base, Account, Option<String>), SyncError> {
        let windmill = self.windmill(place);
        let is_default = self.request.workspace_is_default;
        let story = &*self;
        let (base, account, version) = std::thread::scope(|scope| {
            let account = scope.spawn(|| {
                let ask = || windmill.account(is_default).map_err(|error| story.windmill_error(Step::Probe, error));
                story.step(Step::Probe, || story.patiently(Step::Probe, place, ask))
            });
            let version = scope.spawn(|| windmill::wmill_version(place, &story.root().join("wmill-version")));
            let base = story.step(Step::Fetch, || story.patiently(Step::Fetch, place, || story.refresh(git)));
            (base, account.join(), version.join())
        });
        let crashed = |_| SyncError::new(Code::Internal, "a thread of the sync ended early");
        let (base, account, version) = (base?, account.map_err(crashed)??, version.map_err(crashed)?);
        self.tell_about_account(&account);
        Ok((base, account, version))
    }

    fn tell_about_account(&mut self, account: &Account) {
        if !account.is_admin {
            self.warnings.push(format!(
                "the token's user is no admin of workspace `{}`: what that user may not see is missing from the backup",
                self.request.workspace
            ));
        }
        for question in &account.refused {
            self.warnings
                .push(format!("Windmill refuses `{question}` to this token: what it tells is missing from the backup"));
        }
        if self.request.workspace_is_default {
            let seen = match &account.workspaces {
                Some(seen) => format!("the token sees: {}", seen.join(", ")),
                None => "the token may not tell which workspaces it sees".to_owned(),
            };
            self.warnings
                .push(format!("WINDMILL_WORKSPACE is not set, so `{}` was backed up; {seen}", self.request.workspace));
        }
    }

    fn windmill<'b>(&'b self, place: &'b Workplace) -> Windmill<'b> {
        Windmill {
            base_url: &self.request.base_url,
            workspace: &self.request.workspace,
            token: &self.request.windmill_token,
            deadline: &place.deadline,
            environment: &place.environment,
        }
    }

    /// Reads the remote's tip into the checkout. A checkout that fails is made anew, once.
    fn refresh(&self, git: &Git<'_>) -> Result<Base, SyncError> {
        let state = git.remote_state().map_err(|error| self.git_error(Step::Fetch, error))?;
        let base = match self.bring_here(git, &state) {
            Err(GitError::Checkout(why)) => {
                log::warn!("making the checkout anew: {why}");
                git.create(state.format).and_then(|()| self.bring_here(git, &state))
            }
            result => result,
        };
        base.map_err(|error| self.git_error(Step::Fetch, error))
    }

    fn bring_here(&self, git: &Git<'_>, state: &git::RemoteState) -> Result<Base, GitError> {
        scratch::open_folder(git.tree_folder());
        git.remove_stale_locks()?;
        // A remote without an object does not show its format, and may be another than last time.
        if !state.format.is_some_and(|format| git.exists(format)) || git.is_bloated() {
            git.create(state.format)?;
        }
        git.settle(git.format())?;
        let tip = match &state.tip {
            None => None,
            Some(tip) if git.is_at(tip)? => Some(tip.clone()),
            Some(shown) => match git.fetch_tip()? {
                // Moved between the two questions, or not brought here at all.
                Some(tip) if tip != *shown && git.remote_state()?.tip.as_ref() != Some(&tip) => {
                    return Err(GitError::Checkout(format!("git brought {tip}, which the remote does not show")));
                }
                tip => tip,
            },
        };
        let Listing { tree: whole, unsound } = match &tip {
            Some(tip) => git.list(tip)?,
            None => Listing::default(),
        };
        let tree = match &tip {
            Some(_) if !unsound.is_empty() => Some(git.compose(None, [], every(&whole))?),
            tip => tip.clone(),
        };
        let folder = below(&whole, &self.request.subdir.prefix());
        let plan = self.plan(git, &folder)?;
        let workspace = self.request.workspace.clone();
        let mut base = Base { tip, tree, shown: None, whole, unsound, folder, plan, workspace };
        let shown = base.folder.iter().filter(|(path, entry)| !base.is_withheld(path, entry));
        let shown: Vec<_> = shown.map(|(path, entry)| (path.as_slice(), entry)).collect();
        base.shown = match &base.tree {
            Some(tree) if shown.len() == base.whole.len() => Some(tree.clone()),
            Some(_) => Some(git.compose(None, [], shown)?),
            None => None,
        };
        git.check_out(base.shown.as_ref())?;
        Ok(base)
    }

    fn plan(&self, git: &Git<'_>, folder: &Tree) -> Result<Plan, GitError> {
        let config = self.service.config;
        let asked = Asked {
            includes: config.kinds_included.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect()),
            skips: config.kinds_skipped.as_ref().map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect()),
        };
        let own = match folder.get(WMILL_YAML.as_bytes()) {
            Some(entry) if entry.is_file() => git.read_blob(&entry.object, WMILL_YAML_BYTES_MAX)?,
            Some(_) => BlobContent::Strange("it is a link or a submodule"),
            None => return Ok(wmill_yaml::read(None, &asked)),
        };
        match own {
            BlobContent::Whole(content) => Ok(wmill_yaml::read(Some(&content), &asked)),
            BlobContent::Strange(why) => {
                let mut plan = wmill_yaml::read(None, &asked);
                plan.warnings.push(format!("nothing of the repository's wmill.yaml is heeded: {why}"));
                Ok(plan)
            }
        }
    }

    /// One way from the pull to the push; `None` when another writer was first.
    fn round(
        &mut self,
        place: &Workplace,
        git: &Git<'_>,
        folder: &Path,
        base: Base,
        account: &Account,
        version: Option<&str>,
    ) -> Result<Option<Success>, SyncError> {
        for warning in &base.plan.warnings {
            self.warn(warning);
        }
        if !base.unsound.is_empty() {
            let paths: Vec<_> = base.unsound.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            self.warn(&format!(
                "the repository has entries that git checks out nowhere, and a commit of ours is without them: {}",
                listed(&paths, LISTED_IN_WARNING_MAX)
            ));
        }
        self.refuse_the_key(&base.plan)?;
        let footing = self.step(Step::Pull, || self.pull(place, git, &base))?;
        if footing == Footing::Empty {
            let patterns = if base.plan.globs { ", whatever its patterns leave out" } else { "" };
            self.warn(&format!(
                "wmill could not work upon the repository's files, so the workspace was pulled anew from nothing{patterns}"
            ));
        }
        let is_first = !folder.join("state.json").exists();
        self.begin(Step::Commit);
        let begun = Instant::now();
        let owns_ui = match &account.shared_ui {
            None => false,
            Some(files) => !files.is_empty() || wrote_shared_ui(folder),
        };
        self.check_shared_ui(git, account)?;
        let comparison = self.compare(git, &base, footing, owns_ui, account)?;
        let changed = comparison.changed();
        self.guard(git, &base, &comparison)?;
        if is_first {
            self.tell_about_removed_files(&comparison);
        }
        if changed == Changed::default() {
            self.end(Step::Commit, begun);
            return Ok(Some(self.unchanged(folder, base.tip, account)));
        }
        if self.request.dry_run {
            self.end(Step::Commit, begun);
            return Ok(Some(self.shown(&comparison)));
        }
        let commit = self.commit(git, &base, &comparison, account, version)?;
        self.end(Step::Commit, begun);
        let message = format!("Successfully synced workspace '{}' to Git", self.request.workspace);
        match self.step(Step::Push, || self.push(place, git, &commit))? {
            Arrival::Confirmed => {
                self.remember(folder, &commit, account);
                Ok(Some(Success { code: Code::Pushed, message, commit: Some(commit), changed }))
            }
            Arrival::Rejected(why) => {
                log::info!("the push was rejected: {why}");
                self.rejection = why;
                Ok(None)
            }
        }
    }

    fn warn(&mut self, warning: &str) {
        if !self.warnings.iter().any(|known| known == warning) {
            self.warnings.push(warning.to_owned());
        }
    }

    fn refuse_the_key(&self, plan: &Plan) -> Result<(), SyncError> {
        if plan.kinds.include_key && !self.service.config.allow_plaintext_secrets {
            let message = "WMILL_INCLUDE asks for the workspace's encryption key: with it in the repository, all secrets \
                           in its history can be read. Set ALLOW_PLAINTEXT_SECRETS=true if that is what you want";
            return Err(SyncError::new(Code::PlaintextSecrets, message));
        }
        Ok(())
    }

    /// Pulls upon the repository's files; where these stand in wmill's way, upon nothing.
    fn pull(&self, place: &Workplace, git: &Git<'_>, base: &Base) -> Result<Footing, SyncError> {
        let failed = |error| self.windmill_error(Step::Pull, error);
        let mut is_folder_suspect = false;
        let pulled = self.pull_upon(place, git, base.shown.as_ref(), &base.plan.text, |error| {
            let is_suspect = matches!(error, WindmillError::Failed { cure: Cure::EmptyFolder, .. });
            is_folder_suspect = is_suspect && !base.folder.is_empty();
            failed(error)
        });
        match pulled {
            Ok(()) => Ok(Footing::Repository),
            Err(error) if is_folder_suspect => {
                log::warn!("pulling again, into an empty folder: {}", error.message);
                git.check_out(None).map_err(|error| self.git_error(Step::Pull, error))?;
                // All of it: what a pattern left out could not be told from what Windmill does not hold.
                self.pull_upon(place, git, None, &base.plan.text_without_patterns, failed).map(|()| Footing::Empty)
            }
            Err(error) => Err(error),
        }
    }

    /// Pulls into a folder that holds `shown`; each try begins with that and nothing else.
    fn pull_upon(
        &self,
        place: &Workplace,
        git: &Git<'_>,
        shown: Option<&ObjectId>,
        configuration: &str,
        mut failed: impl FnMut(WindmillError) -> SyncError,
    ) -> Result<(), SyncError> {
        let mut is_clean = true;
        self.patiently(Step::Pull, place, || {
            if !std::mem::take(&mut is_clean) {
                git.check_out(shown).map_err(|error| self.git_error(Step::Pull, error))?;
            }
            self.pull_once(place, git, configuration).map_err(&mut failed)
        })
    }

    fn pull_once(&self, place: &Workplace, git: &Git<'_>, configuration: &str) -> Result<(), WindmillError> {
        let machine = |error: std::io::Error| WindmillError::Machine(error.to_string());
        let own = git.tree_folder().join(WMILL_YAML);
        scratch::write_file(&own, configuration.as_bytes()).map_err(machine)?;
        let format = git.format();
        let pulled = self.windmill(place).pull(place, git.tree_folder());
        git.settle(format).map_err(|_| WindmillError::Machine("cannot write the checkout's settings".to_owned()))?;
        scratch::remove_file(&own).map_err(machine)?;
        pulled
    }

    /// Stages what was pulled, checks that it is what was pulled, and compares it with what the repository held.
    fn compare(
        &mut self,
        git: &Git<'_>,
        base: &Base,
        footing: Footing,
        owns_ui: bool,
        account: &Account,
    ) -> Result<Comparison, SyncError> {
        let unstorable = staging::withdraw_unstorable(git.tree_folder()).map_err(|error| self.disk(&error))?;
        if !unstorable.is_empty() {
            self.warn(&format!(
                "git holds no file named `.git`, so the backup is without: {}",
                listed(&unstorable, LISTED_IN_WARNING_MAX)
            ));
        }
        let staged = self.stage(git, base)?;
        let mut after = staged;
        // wmill leaves the file of an item alone that became this workspace's own, and writes another beside it.
        for (kind, path) in &account.own_items {
            if after.contains_key(format!("{path}.{}.{kind}.yaml", base.workspace).as_bytes()) {
                after.remove(format!("{path}.{kind}.yaml").as_bytes());
            }
        }
        let mut replaced = Vec::new();
        // With patterns, what was not pulled may lie outside them, so only what was pulled takes the place of another.
        let pulled = (base.plan.globs && footing == Footing::Repository).then(|| items_of(&after, &base.workspace));
        for (path, entry) in &base.folder {
            // What wmill saw and is not there any more, wmill deleted. Of the rest, what is Windmill's by its name goes.
            let was_seen = footing == Footing::Repository && !base.is_withheld(path, entry);
            let is_theirs = if is_shared_ui(path) { !owns_ui } else { !is_windmills(path, base, pulled.as_ref()) };
            let stays = !was_seen && is_theirs;
            if stays && !after.contains_key(path) && !git::collides(path, &after) {
                after.insert(path.clone(), entry.clone());
            } else if stays && !after.contains_key(path) || !entry.is_file() {
                replaced.push(String::from_utf8_lossy(path).into_owned());
            }
        }
        if !replaced.is_empty() {
            self.warn(&format!(
                "what stood in the repository in their place gave way to the workspace's files: {}",
                listed(&replaced, LISTED_IN_WARNING_MAX)
            ));
        }
        if let Some(path) = self.in_the_way(base) {
            self.warn(&format!(
                "`{}` in the repository is no folder and gave way to the one of this backup; it stays in the history",
                printable(&path)
            ));
        }
        Ok(Comparison::of(&base.folder, after))
    }

    fn stage(&self, git: &Git<'_>, base: &Base) -> Result<Tree, SyncError> {
        let failed = |error| self.git_error(Step::Commit, error);
        git.stage().map_err(failed)?;
        let staged = git.list_index().map_err(failed)?;
        staging::verify(&staged, git.tree_folder(), &base.folder).map_err(|error| match error {
            StagingError::Differs(message) => SyncError { code: Code::GitFailed, message, remedy: Remedy::NewCheckout },
            StagingError::Io(error) => self.disk(&error),
        })?;
        Ok(staged)
    }

    /// wmill exits with 0 where it could not write the shared UI, so what it wrote is compared with what Windmill said.
    fn check_shared_ui(&self, git: &Git<'_>, account: &Account) -> Result<(), SyncError> {
        for (name, content) in account.shared_ui.iter().flatten() {
            let path = git.tree_folder().join("ui").join(name);
            if fs::read(&path).map_err(|error| self.disk(&scratch::at(&path, &error)))? != content.as_bytes() {
                let message =
                    format!("wmill did not write `ui/{}` as Windmill has it; nothing was committed", printable(name));
                return Err(SyncError::new(Code::PullFailed, message));
            }
        }
        Ok(())
    }

    fn guard(&self, git: &Git<'_>, base: &Base, comparison: &Comparison) -> Result<(), SyncError> {
        if !self.service.config.allow_plaintext_secrets {
            self.guard_secrets(git, comparison)?;
        }
        if self.request.allow_mass_deletion {
            return Ok(());
        }
        let before = tree_files(&base.folder);
        let after = tree_files(&comparison.after);
        let deletions = items::deletions(&before, &after, &base.plan.kinds);
        if !deletions.exceeds(self.service.config.deletions_percent_max) {
            return Ok(());
        }
        let names: Vec<_> = deletions.deleted.iter().map(ToString::to_string).collect();
        Err(SyncError::new(
            Code::MassDeletion,
            format!(
                "the sync would delete {} of {} items of workspace `{}` from the backup ({}): is this the right workspace, \
                 and does the token still see everything? If this is right, allow it for one run \
                 (--allow-mass-deletion, or \"allow_mass_deletion\": true); nothing was committed",
                names.len(),
                deletions.total,
                self.request.workspace,
                listed(&names, LISTED_IN_WARNING_MAX)
            ),
        ))
    }

    fn guard_secrets(&self, git: &Git<'_>, comparison: &Comparison) -> Result<(), SyncError> {
        let mut plain = Vec::new();
        for path in comparison.added.iter().chain(&comparison.modified) {
            let is_plain = items::is_encryption_key(path) || {
                let file = git.tree_folder().join(path);
                // What cannot be read, or is larger than a variable can be, is not known to be safe.
                path.contains(".variable.")
                    && !scratch::read_file(&file, VARIABLE_BYTES_MAX + 1).is_ok_and(|content| {
                        content.len() as u64 <= VARIABLE_BYTES_MAX && !items::is_plaintext_secret(path, &content)
                    })
            };
            if is_plain {
                plain.push(path.clone());
            }
        }
        if plain.is_empty() {
            return Ok(());
        }
        let message = format!(
            "Windmill gave out secrets in plain text, which would stay in the repository's history for ever: {}; nothing \
             was committed. Set ALLOW_PLAINTEXT_SECRETS=true if that is what you want",
            listed(&plain, LISTED_IN_WARNING_MAX)
        );
        Err(SyncError::new(Code::PlaintextSecrets, message))
    }

    fn tell_about_removed_files(&mut self, comparison: &Comparison) {
        let removed: Vec<_> =
            comparison.deleted.iter().filter(|path| items::is_script_file_under_windmill(path)).cloned().collect();
        if !removed.is_empty() {
            self.warn(&format!(
                "this first sync removes files that Windmill does not hold (they stay in the history): {}",
                listed(&removed, LISTED_IN_WARNING_MAX)
            ));
        }
    }

    fn unchanged(&self, folder: &Path, tip: Option<ObjectId>, account: &Account) -> Success {
        if let (Some(tip), false) = (&tip, self.request.dry_run) {
            self.remember(folder, tip, account);
        }
        let message = format!("Workspace '{}' has not changed since the last commit", self.request.workspace);
        Success { code: Code::Unchanged, message, commit: tip, changed: Changed::default() }
    }

    fn shown(&self, comparison: &Comparison) -> Success {
        let changed = comparison.changed();
        let message = format!(
            "Would commit to {} (branch {}): {}",
            self.request.remote,
            self.request.branch,
            comparison.summary(LISTED_IN_MESSAGE_MAX)
        );
        Success { code: Code::DryRun, message, commit: None, changed }
    }

    fn commit(
        &self,
        git: &Git<'_>,
        base: &Base,
        comparison: &Comparison,
        account: &Account,
        version: Option<&str>,
    ) -> Result<ObjectId, SyncError> {
        let prefix = self.request.subdir.prefix();
        let whole_path = |path: &[u8]| [prefix.as_bytes(), path].concat();
        let removed: Vec<_> = base
            .folder
            .keys()
            .filter(|path| !comparison.after.contains_key(*path))
            .map(|path| whole_path(path))
            .collect();
        let in_the_way = self.in_the_way(base);
        let removed = removed.iter().map(Vec::as_slice).chain(in_the_way.as_deref().map(str::as_bytes));
        let added: Vec<_> = comparison
            .after
            .iter()
            .filter(|(path, entry)| base.folder.get(*path) != Some(entry))
            .map(|(path, entry)| (whole_path(path), entry))
            .collect();
        let added = added.iter().map(|(path, entry)| (path.as_slice(), *entry));
        let message = self.commit_message(comparison, account, version);
        git.compose(base.tree.as_ref(), removed, added)
            .and_then(|tree| git.commit(&tree, base.tip.as_ref(), &self.request.author, &message))
            .map_err(|error| self.git_error(Step::Commit, error))
    }

    /// The file, link or submodule of the repository where our folder must be: there is no way to keep both.
    fn in_the_way(&self, base: &Base) -> Option<String> {
        let folders = ancestors(self.request.subdir.prefix().trim_end_matches('/'));
        folders.into_iter().find(|path| base.whole.contains_key(path.as_bytes()))
    }

    fn commit_message(&self, comparison: &Comparison, account: &Account, version: Option<&str>) -> String {
        let unknown = "unknown";
        format!(
            "{}\n\n{}\n\nWindmill-Workspace: {}\nWindmill-Version: {}\nWmill-Version: {}\n",
            self.request.message,
            comparison.summary(LISTED_IN_COMMIT_MAX),
            self.request.workspace,
            account.server_version.as_deref().unwrap_or(unknown),
            version.unwrap_or(unknown),
        )
    }

    /// Brings the commit to the remote. Where the answer to a push was lost, the remote is asked before another.
    fn push(&self, place: &Workplace, git: &Git<'_>, commit: &ObjectId) -> Result<Arrival, SyncError> {
        let failed = |error| self.git_error(Step::Push, error);
        let mut may_be_there = false;
        let pushed = self.patiently(Step::Push, place, || {
            if std::mem::replace(&mut may_be_there, true) && self.is_there(git, commit).map_err(failed)? {
                return Ok(Arrival::Confirmed);
            }
            self.push_once(git, commit)
        });
        let arrival =
            match pushed {
                // The last answer of all may have been lost too.
                Err(error) if matches!(error.remedy, Remedy::Time(_)) => {
                    if self.is_there(git, commit).unwrap_or(false) { Arrival::Confirmed } else { return Err(error) }
                }
                other => other?,
            };
        if let (Arrival::Confirmed, Err(error)) = (&arrival, git.stand_at(commit)) {
            // It costs the next sync a fetch, and does not unmake this one.
            log::warn!("cannot note where the checkout stands: {}", self.git_error(Step::Push, error).message);
        }
        Ok(arrival)
    }

    fn push_once(&self, git: &Git<'_>, commit: &ObjectId) -> Result<Arrival, SyncError> {
        let failed = |error| self.git_error(Step::Push, error);
        match git.push(commit).map_err(failed)? {
            Pushed::Accepted => {}
            Pushed::Outrun(why) => return Ok(Arrival::Rejected(why)),
            Pushed::Refused(why) => return Err(self.refused(&why)),
        }
        if self.is_there(git, commit).map_err(failed)? {
            return Ok(Arrival::Confirmed);
        }
        Ok(Arrival::Rejected("the server took the commit, but the branch does not hold it now".to_owned()))
    }

    /// Whether the branch of the remote holds the commit.
    fn is_there(&self, git: &Git<'_>, commit: &ObjectId) -> Result<bool, GitError> {
        let state = git.remote_state()?;
        git.has_arrived(commit, state.tip.as_ref())
    }

    fn refused(&self, why: &str) -> SyncError {
        let message = format!("{} (branch `{}`) refuses the push: {why}", self.request.remote, self.request.branch);
        SyncError::new(Code::GitRejected, message)
    }

    /// Notes that a sync of this checkout succeeded. Losing the note costs a warning, so a failure is not one of the
    /// sync's.
    fn remember(&self, folder: &Path, commit: &ObjectId, account: &Account) {
        let has_ui = account.shared_ui.as_ref().is_some_and(|files| !files.is_empty());
        let state = format!("{{\"commit\":\"{commit}\",{SHARED_UI_NOTE}{has_ui}}}\n");
        if let Err(error) = scratch::replace_file(&folder.join("state.json"), state.as_bytes()) {
            log::warn!("cannot note the success: {error}");
        }
    }

    fn begin(&self, step: Step) {
        (self.service.progress)(Event::Started(step));
    }

    fn end(&self, step: Step, begun: Instant) {
        (self.service.progress)(Event::Ended(step, begun.elapsed()));
    }

    fn step<T>(&self, step: Step, work: impl FnOnce() -> Result<T, SyncError>) -> Result<T, SyncError> {
        self.begin(step);
        let begun = Instant::now();
        let result = work()?;
        self.end(step, begun);
        Ok(result)
    }

    fn expired(&self, step: Step, expired: Expired) -> SyncError {
        match expired {
            Expired::TimedOut => SyncError::new(
                Code::Timeout,
                format!(
                    "the sync of workspace `{}` was ended in step `{}`: it took longer than SYNC_TIMEOUT ({} s)",
                    self.request.workspace,
                    step.as_str(),
                    self.service.config.sync_timeout.as_secs()
                ),
            ),
            Expired::Interrupted => SyncError::new(
                Code::ShuttingDown,
                format!(
                    "the sync of workspace `{}` was ended in step `{}`: the service is ending",
                    self.request.workspace,
                    step.as_str()
                ),
            ),
        }
    }

    fn git_error(&self, step: Step, error: GitError) -> SyncError {
        match error {
            GitError::Remote { code, message, is_passing } => {
                SyncError { code, message, remedy: if is_passing { Remedy::Time(None) } else { Remedy::None } }
            }
            GitError::Checkout(message) => SyncError { code: Code::GitFailed, message, remedy: Remedy::NewCheckout },
            GitError::Expired(expired) => self.expired(step, expired),
            GitError::Machine(message) => SyncError::new(Code::GitFailed, message),
        }
    }

    fn windmill_error(&self, step: Step, error: WindmillError) -> SyncError {
        match error {
            WindmillError::Failed { code, message, cure } => {
                let remedy = if let Cure::Time(asked) = cure { Remedy::Time(asked) } else { Remedy::None };
                SyncError { code, message, remedy }
            }
            WindmillError::Expired(expired) => self.expired(step, expired),
            WindmillError::Machine(message) => SyncError::new(Code::PullFailed, message),
        }
    }

    fn disk(&self, error: &std::io::Error) -> SyncError {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) {
            let message = format!(
                "DATA_DIR cannot be written ({error}): give it to the user that the service runs as, e.g. \
                 `docker run --rm --volume windmill-workspace-data:/workspace debian:trixie-slim chown 65532:0 /workspace`"
            );
            return SyncError::new(Code::ConfigInvalid, message);
        }
        SyncError::new(Code::Internal, format!("cannot work in DATA_DIR: {error}"))
    }
}

fn is_shared_ui(path: &[u8]) -> bool {
    path == b"ui" || path.starts_with(b"ui/")
}

/// Whether our last sync found a shared UI, so that the files of `ui/` are ours to take away.
fn wrote_shared_ui(folder: &Path) -> bool {
    fs::read_to_string(folder.join("state.json")).is_ok_and(|state| state.contains(&format!("{SHARED_UI_NOTE}true")))
}

/// Whether wmill takes the file for one that only this workspace has, as `x.shop.variable.yaml`.
fn is_for_one_workspace(path: &[u8], workspace: &WorkspaceId) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let mark = format!(".{workspace}.");
    name.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// Whether a path that wmill did not get to see would be Windmill's. Where patterns narrow what was pulled, it has to
/// belong to an item that was `pulled`.
fn is_windmills(path: &[u8], base: &Base, pulled: Option<&BTreeSet<ItemId>>) -> bool {
    let Ok(path) = std::str::from_utf8(path) else { return false };
    let name = path.rsplit('/').next().unwrap_or(path);
    path == WMILL_LOCK
        || (name == "folder.meta.yaml" && pulled.is_none())
        || items::item_of(path).is_some_and(|item| {
            items::covers(&item, &base.plan.kinds)
                && pulled.is_none_or(|pulled| pulled.contains(&of_any_workspace(item, &base.workspace)))
        })
}

/// The items that a folder holds.
fn items_of(folder: &Tree, workspace: &WorkspaceId) -> BTreeSet<ItemId> {
    let items = folder.keys().filter_map(|path| items::item_of(std::str::from_utf8(path).ok()?));
    items.map(|item| of_any_workspace(item, workspace)).collect()
}

/// The item without the mark of being this workspace's alone.
fn of_any_workspace(mut item: ItemId, workspace: &WorkspaceId) -> ItemId {
    if let Some(path) = item.path.strip_suffix(&format!(".{workspace}")) {
        item.path = path.to_owned();
    }
    item
}

/// The entries below a folder (`dir/`, or nothing for all), by their path in it.
fn below(whole: &Tree, prefix: &str) -> Tree {
    let mut folder = Tree::new();
    for (path, entry) in whole {
        if let Some(path) = path.strip_prefix(prefix.as_bytes()) {
            folder.insert(path.to_vec(), entry.clone());
        }
    }
    folder
}

fn every(tree: &Tree) -> impl Iterator<Item = (&[u8], &Entry)> {
    tree.iter().map(|(path, entry)| (path.as_slice(), entry))
}

/// `a/b/c` and all that lead to it: `a`, `a/b`, `a/b/c`.
fn ancestors(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(index, _)| index).chain((!path.is_empty()).then_some(path.len()));
    ends.map(|end| path[..end].to_owned()).collect()
}

fn tree_files(tree: &Tree) -> Vec<TreeFile<'_>> {
    let file = |(path, entry)| {
        let path: &Vec<u8> = path;
        let entry: &Entry = entry;
        Some(TreeFile { path: std::str::from_utf8(path).ok()?, blob: entry.object.as_str() })
    };
    tree.iter().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_its_ancestors_in_the_way() {
        assert_eq!(ancestors("a/b/c"), ["a", "a/b", "a/b/c"]);
        assert!(ancestors("").is_empty());
    }
}
