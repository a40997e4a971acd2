//! One run from the inside: its turn, the place where its programs work, and its steps with their patience.
//! It does not know what the steps are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::checkouts;
use crate::code::Code;
use crate::config::Config;
use crate::deadline::{Deadline, Expired, Interrupt};
use crate::digest;
use crate::fault::{Fault, Remedy};
use crate::git::{self, Git, GitError};
use crate::lock::{Lock, LockError};
use crate::names::WorkspaceId;
use crate::object::ObjectId;
use crate::outcome::{Changed, SyncResult, Warnings};
use crate::retry::Tries;
use crate::scratch::{self, Scratch};
use crate::scrubber::Scrubber;
use crate::secret::Secret;
use crate::signing::{self, SigningError};
use crate::sync_request::{Purpose, SyncRequest};
use crate::trust::{self, TrustError};
use crate::windmill::{Account, Cure, Windmill, WindmillError};
use crate::workplace::Workplace;

/// After this time, the key of a workspace is asked for no more.
const KEY_TIME_MAX: Duration = Duration::from_secs(10);

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
    /// `wmill sync push`.
    Restore,
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
            Self::Restore => "restore",
        }
    }
}

/// Told as a sync goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A step begins.
    Started(Step),
    /// Another process has the turn of the workspace.
    Waits,
    /// A step went well, and took so long.
    Ended(Step, Duration),
}

/// What a sync has from the process that it runs in.
pub struct Service<'a> {
    /// Guards, time-outs, kinds, folders.
    pub config: &'a Config,
    /// Our own program; see [`ssh`](crate::ssh).
    pub own_program: &'a Path,
    /// Raised when the process ends.
    pub interrupt: &'a Interrupt,
    /// Told as it goes on.
    pub progress: &'a (dyn Fn(Event) + Sync),
}

/// A name for a run: unique among those of all processes, and without meaning.
#[must_use]
pub fn new_run_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let seed = format!("{now} {} {}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    digest::short_name(&seed)
}

/// Where everything of ours lies. Never the top of the data folder: an older service had its checkout there.
#[must_use]
pub fn root(config: &Config) -> PathBuf {
    config.data_dir.join("windmill-git-sync")
}

/// Where a run of this workspace keeps what must not outlive it: a token, a key.
#[must_use]
pub fn run_folder(config: &Config, workspace: &WorkspaceId) -> PathBuf {
    run_folders(config).join(workspace.as_str())
}

fn run_folders(config: &Config) -> PathBuf {
    root(config).join("runs")
}

/// The file by which runs of this workspace take turns.
fn lock_path(config: &Config, workspace: &WorkspaceId) -> PathBuf {
    root(config).join("locks").join(format!("{workspace}.lock"))
}

/// Removes what killed runs of any workspace left in their folders. Its own next run would do so, and may never come.
pub fn remove_leftovers(config: &Config) {
    for entry in fs::read_dir(run_folders(config)).into_iter().flatten().flatten() {
        let workspace = entry.file_name().to_str().and_then(|name| WorkspaceId::parse(name).ok());
        if let Some(workspace) = workspace
            && let Some(_free) = Lock::acquire_if_free(&lock_path(config, &workspace))
            && let Err(error) = scratch::remove_folder(&entry.path())
        {
            log::warn!("what a killed run left stays: {error}");
        }
    }
}

/// What a run came to.
pub struct Verdict {
    /// Whether it went well, and how.
    pub code: Code,
    /// The same in words.
    pub message: String,
    /// The commit that the branch holds, where that is known.
    pub commit: Option<ObjectId>,
    /// What was changed.
    pub changed: Changed,
}

/// What is to be done, for a process.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// What was asked for.
    pub request: &'a SyncRequest,
    /// What the process gives.
    pub service: &'a Service<'a>,
}

impl Task<'_> {
    /// The result of the run that began at `started`, which is logged with its warnings.
    pub fn conclude(
        &self,
        run_id: &str,
        started: Instant,
        ended: Result<Verdict, Fault>,
        warnings: Warnings,
    ) -> SyncResult {
        let Verdict { code, message, commit, changed } = ended.unwrap_or_else(|fault| Verdict {
            code: fault.code,
            // The last line of defence: each tool's output was scrubbed where it was read.
            message: Scrubber::new(&self.request.secrets()).scrub(&fault.message),
            commit: None,
            changed: Changed::default(),
        });
        let result = SyncResult {
            code,
            message,
            run_id: run_id.to_owned(),
            workspace: self.request.workspace.to_string(),
            branch: self.request.branch.to_string(),
            commit: commit.map(|commit| commit.to_string()),
            changed,
            warnings: warnings.into_list(),
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        for warning in &result.warnings {
            log::warn!("run {run_id}: {warning}");
        }
        let level = if code.is_success() { log::Level::Info } else { log::Level::Error };
        log::log!(level, "run {run_id}: {} after {} ms: {}", code.as_str(), result.duration_ms, result.message);
        result
    }

    /// Tells that a step begins.
    pub fn begin(&self, step: Step) {
        (self.service.progress)(Event::Started(step));
    }

    /// Tells that a step went well.
    pub fn end(&self, step: Step, begun: Instant) {
        (self.service.progress)(Event::Ended(step, begun.elapsed()));
    }

    /// Does a step, and tells of it.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn step<T>(&self, step: Step, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        self.begin(step);
        let begun = Instant::now();
        let result = work()?;
        self.end(step, begun);
        Ok(result)
    }

    /// Does `work`, and does it again after a pause where it failed for a cause that may pass.
    ///
    /// # Errors
    /// The last one of `work`.
    pub fn patiently<T>(
        &self,
        step: Step,
        place: &Workplace,
        mut work: impl FnMut() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut tries = Tries::new(&place.deadline);
        loop {
            match work() {
                Err(error) => self.wait_out(step, &mut tries, error)?,
                done => return done,
            }
        }
    }

    /// Waits until what failed can be tried again; where it cannot, the failure.
    fn wait_out(&self, step: Step, tries: &mut Tries<'_>, error: Fault) -> Result<(), Fault> {
        let Remedy::Time(asked) = error.remedy else { return Err(error.after(tries)) };
        match tries.pause(asked, &error.message) {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.after(tries)),
            Err(expired) => Err(self.expired(step, expired)),
        }
    }

    /// A run that was ended in this step.
    #[must_use]
    pub fn expired(&self, step: Step, expired: Expired) -> Fault {
        match expired {
            Expired::TimedOut => Fault::new(
                Code::Timeout,
                format!(
                    "the {} of workspace `{}` was ended in step `{}`: it took longer than SYNC_TIMEOUT ({} s)",
                    self.request.purpose.noun(),
                    self.request.workspace,
                    step.as_str(),
                    self.service.config.sync_timeout.as_secs()
                ),
            ),
            Expired::Interrupted => Fault::new(
                Code::ShuttingDown,
                format!(
                    "the {} of workspace `{}` was ended in step `{}`: the service is ending",
                    self.request.purpose.noun(),
                    self.request.workspace,
                    step.as_str()
                ),
            ),
        }
    }

    /// What failed in git.
    #[must_use]
    pub fn git_error(&self, step: Step, error: GitError) -> Fault {
        match error {
            GitError::Remote { code, message, is_passing } => {
                Fault { code, message, remedy: if is_passing { Remedy::Time(None) } else { Remedy::None } }
            }
            GitError::Checkout(message) => Fault { code: Code::GitFailed, message, remedy: Remedy::NewCheckout },
            GitError::Expired(expired) => self.expired(step, expired),
            GitError::Machine(message) => Fault::new(Code::GitFailed, message),
        }
    }

    /// What failed with Windmill or wmill.
    #[must_use]
    pub fn windmill_error(&self, step: Step, error: WindmillError) -> Fault {
        match error {
            WindmillError::Failed { code, message, cure } => {
                let remedy = if let Cure::Time(asked) = cure { Remedy::Time(asked) } else { Remedy::None };
                Fault { code, message, remedy }
            }
            WindmillError::Expired(expired) => self.expired(step, expired),
            WindmillError::Machine(message) => Fault::new(Code::PullFailed, message),
        }
    }

    /// What failed on our own disk.
    #[must_use]
    pub fn disk(&self, error: &std::io::Error) -> Fault {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) {
            let message = format!(
                "DATA_DIR cannot be written ({error}): give it to the user that the service runs as, e.g. \
                 `docker run --rm --volume windmill-workspace-data:/workspace debian:trixie-slim chown 65532:0 /workspace`"
            );
            return Fault::new(Code::ConfigInvalid, message);
        }
        Fault::new(Code::Internal, format!("cannot work in DATA_DIR: {error}"))
    }

    /// Windmill as this run sees it.
    #[must_use]
    pub fn windmill<'b>(&'b self, place: &'b Workplace) -> Windmill<'b> {
        let request = self.request;
        Windmill::new(
            &request.base_url,
            &request.workspace,
            &request.windmill_token,
            &place.deadline,
            &place.environment,
        )
    }

    /// The key under which Windmill encrypts the secrets of the workspace, where it tells.
    ///
    /// # Errors
    /// [`Fault`]: no answer, or one of a server that may come back and did not.
    pub fn key(&self, step: Step, place: &Workplace) -> Result<Option<Secret>, Fault> {
        let (begun, windmill) = (Instant::now(), self.windmill(place));
        self.patiently(step, place, || {
            windmill.key().map_err(|error| {
                let fault = self.windmill_error(step, error);
                // A server that hangs is not asked again: a commit can do without.
                if begun.elapsed() > KEY_TIME_MAX { Fault { remedy: Remedy::None, ..fault } } else { fault }
            })
        })
    }

    /// Warns of what Windmill does not show to this run.
    pub fn tell_about(&self, account: &Account, warnings: &mut Warnings) {
        let SyncRequest { workspace, purpose, .. } = self.request;
        let lacks = match purpose {
            Purpose::Sync => "is missing from the backup",
            Purpose::Verify => "is not compared",
            Purpose::Restore => "is neither saved nor read back",
        };
        if !account.is_admin {
            warnings.add(format!(
                "the token's user is no admin of workspace `{workspace}`: what that user may not see {lacks}"
            ));
        }
        for question in &account.refused {
            warnings.add(format!("Windmill refuses `{question}` to this token: what it tells {lacks}"));
        }
    }

    /// Warns of a workspace that nobody chose.
    pub fn tell_about_default(&self, account: &Account, warnings: &mut Warnings) {
        let SyncRequest { workspace, purpose, workspace_is_default, .. } = self.request;
        if *workspace_is_default {
            let done = match purpose {
                Purpose::Sync => "was backed up",
                Purpose::Verify => "was verified",
                Purpose::Restore => "is where the backup is from",
            };
            let seen = match &account.workspaces {
                Some(seen) => format!("the token sees: {}", seen.join(", ")),
                None => "the token may not tell which workspaces it sees".to_owned(),
            };
            warnings.add(format!("WINDMILL_WORKSPACE is not set, so `{workspace}` {done}; {seen}"));
        }
    }

    /// Waits for the turn of this run's workspace.
    ///
    /// # Errors
    /// [`Fault`]: the disk, the time.
    pub fn wait_for_turn(&self) -> Result<Lock, Fault> {
        let path = lock_path(self.service.config, &self.request.workspace);
        path.parent().map_or(Ok(()), scratch::create_folder).map_err(|error| self.disk(&error))?;
        let deadline = Deadline::after(self.service.config.sync_timeout, self.service.interrupt);
        self.step(Step::Queue, || {
            let mut on_busy = || (self.service.progress)(Event::Waits);
            Lock::acquire(&path, &deadline, &mut on_busy).map_err(|error| match error {
                LockError::Expired(expired) => self.expired(Step::Queue, expired),
                LockError::Io(error) => self.disk(&error),
            })
        })
    }

    /// See [`root`].
    #[must_use]
    pub fn root(&self) -> PathBuf {
        root(self.service.config)
    }

    /// Waits for this run's turn, and makes the place where its programs work.
    ///
    /// # Errors
    /// [`Fault`]: the disk, the time, certificates that cannot be read.
    pub fn enter(&self) -> Result<Workplace, Fault> {
        let (request, config) = (self.request, self.service.config);
        let lock = self.wait_for_turn()?;
        let scratch = Scratch::new(run_folder(config, &request.workspace)).map_err(|error| self.disk(&error))?;
        remove_leftovers(config);
        let environment = trust::for_run(&config.tool_environment, &scratch).map_err(|error| match error {
            TrustError::Bundle(why) => Fault::new(Code::ConfigInvalid, why),
            TrustError::Disk(error) => self.disk(&error),
        })?;
        Ok(Workplace {
            scratch,
            deadline: Deadline::after(config.sync_timeout, self.service.interrupt),
            scrubber: Scrubber::new(request.secrets().iter().chain(&config.proxy_secrets())),
            environment,
            lock,
        })
    }

    /// The folder of the checkout that is kept for what is backed up here: one for each such thing, so that another
    /// branch or remote than last time starts clean. Called with the lock of the run's workspace.
    ///
    /// # Errors
    /// [`Fault`]: the disk.
    pub fn checkout_folder(&self) -> Result<PathBuf, Fault> {
        let (request, config) = (self.request, self.service.config);
        let folder = checkouts::folder(&self.root().join("checkouts"), &request.workspace, &request.destination());
        let opened = checkouts::open(&folder, request.configured, &|workspace| lock_path(config, workspace));
        opened.map_err(|error| self.disk(&error))?;
        Ok(folder)
    }

    /// git, over the checkout in `folder` and the remote of this run.
    ///
    /// # Errors
    /// [`Fault`]: the disk, or a key that cannot sign.
    pub fn git<'b>(&'b self, place: &'b Workplace, folder: &Path) -> Result<Git<'b>, Fault> {
        let request = self.request;
        let signing_key = request.signing_key.as_ref().map(|key| signing::prepare(place, key)).transpose();
        let signing_key = signing_key.map_err(|error| match error {
            SigningError::Setting(why) => Fault::new(Code::ConfigInvalid, why),
            SigningError::Expired(expired) => self.expired(Step::Fetch, expired),
            SigningError::Disk(error) => self.disk(&error),
        })?;
        let site = git::Site {
            signing_key: signing_key.as_deref(),
            folder,
            own_program: self.service.own_program,
            accepted_hosts: &self.root().join("known_hosts"),
        };
        Git::new(place, &site, &request.remote, &request.branch, &request.git)
            .map_err(|error| self.git_error(Step::Fetch, error))
    }
}
