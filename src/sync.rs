//! The story of a sync: lock, fetch, probe, pull, compare, guard, commit, push, confirm.
//!
//! It reads aloud, and leaves to others how each of these is done.

use std::fs;
use std::io;
use std::time::Instant;

use crate::base::{self, Base};
use crate::code::Code;
use crate::commits::{self, Material};
use crate::comparison::{Change, Comparison, Mark, Sample};
use crate::composition::{self, Pulled};
use crate::delivery::{self, Arrival};
use crate::fault::{Fault, Remedy};
use crate::git::{Git, GitError};
use crate::guards;
use crate::items;
use crate::object::ObjectId;
use crate::opening::{self, Known, Opening};
use crate::outcome::{Changed, SyncResult, Warnings};
use crate::pull::{self, Footing};
use crate::secret::Scrubber;
use crate::shortcut::Shortcut;
use crate::sync_request::SyncRequest;
use crate::task::{Service, Step, Task};
use crate::workplace::Workplace;

/// How often a sync starts over when another writer was first. A branch that moves five times within five pulls is
/// not one that a backup can be put upon.
const ROUNDS_MAX: u32 = 5;
/// Paths listed in a dry run's message; the rest is counted.
const LISTED_IN_MESSAGE_MAX: usize = 50;

/// What a sync that did not fail came to.
struct Success {
    code: Code,
    message: String,
    commit: Option<ObjectId>,
    changed: Changed,
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
    let mut story = Story { task: Task { request, service }, warnings: Warnings::default(), rejection: String::new() };
    let ended = story.tell();
    let mut result = SyncResult {
        code: Code::Internal,
        message: String::new(),
        run_id: run_id.to_owned(),
        workspace: request.workspace.to_string(),
        branch: request.branch.to_string(),
        commit: None,
        changed: Changed::default(),
        warnings: story.warnings.into_list(),
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

struct Story<'a> {
    task: Task<'a>,
    warnings: Warnings,
    /// Why the last push was rejected.
    rejection: String,
}

impl Story<'_> {
    fn tell(&mut self) -> Result<Success, Fault> {
        let task = self.task;
        let place = task.enter()?;
        let folder = task.checkout_folder()?;
        let git = task.git(&place, &folder)?;
        self.tell_about_old_volume();
        match opening::open(task, &place, &git, Shortcut::open(task, &folder), &mut self.warnings)? {
            Opening::Unchanged(tip) => Ok(self.unchanged(Some(tip))),
            Opening::Full(full) => {
                let (known, base) = *full;
                self.rounds(&place, &git, &known, base)
            }
        }
    }

    fn tell_about_old_volume(&mut self) {
        let data = &self.task.service.config.data_dir;
        if fs::symlink_metadata(data.join(".git")).is_ok() {
            self.warnings.add(format!(
                "{} holds a checkout that another service left, perhaps with a token in its .git/config; it is neither \
                 used nor touched: revoke that token, and remove it when you no longer need it",
                data.display()
            ));
        }
    }

    fn rounds(&mut self, place: &Workplace, git: &Git<'_>, known: &Known, mut base: Base) -> Result<Success, Fault> {
        let (mut round, mut last_tip, mut is_new) = (1, None, false);
        loop {
            match self.round(place, git, known, base) {
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
                    git.discard().map_err(|error| self.task.git_error(Step::Fetch, error))?;
                    is_new = true;
                }
                Err(error) => return Err(error),
            }
            base = self
                .task
                .step(Step::Fetch, || self.task.patiently(Step::Fetch, place, || base::refresh(self.task, git)))?;
            if round > 2 && base.tip == last_tip {
                // Twice upon the same tip: nobody was first, the server just does not want it.
                return Err(delivery::refused(self.task, &self.rejection));
            }
            last_tip.clone_from(&base.tip);
        }
    }

    fn outrun(&self) -> Fault {
        let message = format!(
            "cannot push to {} (branch `{}`): other writers were first {ROUNDS_MAX} times in a row ({})",
            self.task.request.remote, self.task.request.branch, self.rejection
        );
        Fault::new(Code::GitRejected, message)
    }

    /// One way from the pull to the push; `None` when another writer was first.
    fn round(&mut self, place: &Workplace, git: &Git<'_>, known: &Known, base: Base) -> Result<Option<Success>, Fault> {
        let account = &known.account;
        for warning in &base.plan.warnings {
            self.warnings.add(warning.clone());
        }
        if !base.unsound.is_empty() {
            self.warnings.add(format!(
                "the repository has entries that git checks out nowhere, and a commit of ours is without them: {}",
                base.unsound
            ));
        }
        guards::refuse_the_key(self.task, &base.plan)?;
        let footing = self.task.step(Step::Pull, || pull::pull(self.task, place, git, &base))?;
        let reading = known.read_again(self.task, place, &base);
        if footing == Footing::Empty {
            let patterns = if base.plan.globs { ", whatever its patterns leave out" } else { "" };
            self.warnings.add(format!(
                "wmill could not work upon the repository's files, so the workspace was pulled anew from nothing{patterns}"
            ));
        }
        self.task.begin(Step::Commit);
        let begun = Instant::now();
        let owns_ui = match &account.shared_ui {
            None => false,
            Some(files) => !files.is_empty() || known.shortcut.wrote_shared_ui(),
        };
        composition::check_shared_ui(self.task, git, account)?;
        let pulled = Pulled { footing, account, owns_ui };
        let composition = composition::compose(self.task, git, &base, &pulled, &mut self.warnings)?;
        guards::check(self.task, git, &composition, &base.plan.kinds)?;
        let comparison = &composition.comparison;
        let changed = comparison.changed();
        if known.shortcut.is_first() {
            self.tell_about_removed_files(comparison).map_err(|error| self.of_a_listing(error))?;
        }
        if changed == Changed::default() {
            self.task.end(Step::Commit, begun);
            if let (Some(tip), false) = (&base.tip, self.task.request.dry_run) {
                let success = opening::Success { commit: tip, reading, tree: base::folder_of(self.task, git, tip) };
                known.remember(self.task, &base, success, &self.warnings);
            }
            return Ok(Some(self.unchanged(base.tip)));
        }
        if self.task.request.dry_run {
            self.task.end(Step::Commit, begun);
            return self.shown(comparison).map(Some).map_err(|error| self.of_a_listing(error));
        }
        let version = known.version.as_deref();
        let material =
            Material { task: self.task, place, git, base: &base, composition: &composition, account, version };
        let commit = commits::make(material)?;
        self.task.end(Step::Commit, begun);
        let message = format!("Successfully synced workspace '{}' to Git", self.task.request.workspace);
        let task = self.task;
        // While the server works, there is time to look whether the commit is what it is to be.
        let (arrival, tree) = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("check".to_owned());
            let check = || opening::tree_as_composed(task, git, &commit, &composition);
            let tree = thread.spawn_scoped(scope, check);
            let arrival = task.step(Step::Push, || delivery::deliver(task, place, git, &commit));
            (arrival, tree.ok().and_then(|thread| thread.join().ok()).flatten())
        });
        match arrival? {
            Arrival::Confirmed => {
                let success = opening::Success { commit: &commit, reading, tree };
                known.remember(self.task, &base, success, &self.warnings);
                Ok(Some(Success { code: Code::Pushed, message, commit: Some(commit), changed }))
            }
            Arrival::Rejected(why) => {
                log::info!("the push was rejected: {why}");
                self.rejection = why;
                Ok(None)
            }
        }
    }

    fn tell_about_removed_files(&mut self, comparison: &Comparison) -> io::Result<()> {
        let mut removed = Sample::default();
        for change in comparison.changes()? {
            let Change { mark, path, .. } = change?;
            if mark == Mark::Deleted && std::str::from_utf8(&path).is_ok_and(items::is_script_file_under_windmill) {
                removed.add(&path);
            }
        }
        if !removed.is_empty() {
            self.warnings.add(format!(
                "this first sync removes files that Windmill does not hold (they stay in the history): {removed}"
            ));
        }
        Ok(())
    }

    /// What failed in a file that says what git or we have listed.
    fn of_a_listing(&self, error: io::Error) -> Fault {
        self.task.git_error(Step::Commit, GitError::from(error))
    }

    fn unchanged(&self, tip: Option<ObjectId>) -> Success {
        let message = format!("Workspace '{}' has not changed since the last commit", self.task.request.workspace);
        Success { code: Code::Unchanged, message, commit: tip, changed: Changed::default() }
    }

    fn shown(&self, comparison: &Comparison) -> io::Result<Success> {
        let changed = comparison.changed();
        let message = format!(
            "Would commit to {} (branch {}): {}",
            self.task.request.remote,
            self.task.request.branch,
            comparison.summary(LISTED_IN_MESSAGE_MAX)?
        );
        Ok(Success { code: Code::DryRun, message, commit: None, changed })
    }
}
