//! The steps of a sync, as a trait that the tests script, and the live steps between Windmill and the remote.

use std::fs;

use crate::backup::error::BackupError;
use crate::backup::progress::Step;
use crate::backup::run_context::RunContext;
use crate::backup::sync::commit;
use crate::backup::sync::guards;
use crate::backup::sync::last_sync::{LastSync, Now};
use crate::backup::sync::merge::{self, Pulled};
use crate::backup::sync::pull::{self, PullBase};
use crate::backup::sync::push::{self, NotPushed};
use crate::backup::sync::tip::{self, RemoteTip};
use crate::git::object::ObjectId;
use crate::git::tree_diff::TreeDiff;
use crate::git::{Git, RemoteState};
use crate::model::{LeftOut, Warnings};
use crate::process::run_env::RunEnv;
use crate::util::parallel::both;
use crate::util::retry;
use crate::windmill::cli;
use crate::windmill::item_path::ItemId;
use crate::windmill::narrow::Changed;

/// After this many refusals, a sync leaves out all items that were refused in earlier syncs, not only the named ones.
/// It is less than the limit of refusals for a whole sync.
const REFUSALS_ONE_BY_ONE_MAX: u32 = 5;

/// The steps of a full sync. Each returns its error; `sync` decides whether to try anything else.
pub trait SyncSteps {
    /// Returns what the branch held at the last request.
    fn tip(&self) -> &RemoteTip;
    /// Returns whether no earlier success is known.
    fn is_first(&self) -> bool;
    /// Returns the items that the pull leaves out.
    fn left_out(&self) -> Vec<LeftOut>;
    /// Leaves out the items that these files belong to, by their paths in the repository. Returns `false`, and leaves
    /// out nothing, if a file belongs to no item, or to one that was left out before. `refusals` is how often the
    /// remote refused files in this sync.
    fn leave_out(&mut self, paths: &[String], refusals: u32) -> bool;
    /// Lets wmill pull into a folder with the tip's files.
    ///
    /// # Errors
    /// [`BackupError`] if Windmill, wmill, git or the disk fails.
    fn pull(&mut self) -> Result<PullBase, BackupError>;
    /// Merges the pulled files with the repository's files. Does not commit.
    ///
    /// # Errors
    /// [`BackupError`] if wmill did not write what Windmill has, or git or the disk fails.
    fn compose(&mut self, base: PullBase, warnings: &mut Warnings) -> Result<TreeDiff, BackupError>;
    /// Refuses what must not be committed.
    ///
    /// # Errors
    /// [`BackupError`] if it refuses.
    fn guard(&mut self, comparison: &TreeDiff) -> Result<(), BackupError>;
    /// Commits on top of the tip. Does not push.
    ///
    /// # Errors
    /// [`BackupError`] if git or the disk fails.
    fn commit(&mut self, comparison: &TreeDiff, warnings: &mut Warnings) -> Result<ObjectId, BackupError>;
    /// Pushes a commit to the branch, and checks whether it arrived. Returns `None` if it did.
    ///
    /// # Errors
    /// [`BackupError`] if the remote refuses the commit or does not answer.
    fn push(&mut self, commit: &ObjectId) -> Result<Option<NotPushed>, BackupError>;
    /// Saves a success with all its warnings.
    fn remember(&mut self, commit: &ObjectId, warnings: &Warnings);
    /// Fetches the tip again.
    ///
    /// # Errors
    /// [`BackupError`] if the remote or the disk fails.
    fn refresh(&mut self) -> Result<(), BackupError>;
    /// Discards the checkout; the next refresh creates it again.
    ///
    /// # Errors
    /// [`BackupError`] if the disk fails.
    fn discard(&mut self) -> Result<(), BackupError>;
}

/// Whether a pull is needed.
pub enum Start<T> {
    /// Nothing changed.
    Unchanged {
        /// The branch's tip.
        tip: ObjectId,
        /// The items that the last pull left out.
        left_out: Vec<LeftOut>,
    },
    /// Something changed or may have changed, so wmill has to pull.
    Pull(T),
}

/// Windmill, the remote, and a checkout between them.
pub struct LiveSteps<'a> {
    run: &'a RunContext<'a>,
    git: Git<'a>,
    /// The last success.
    last: LastSync,
    now: Now,
    tip: RemoteTip,
    /// The groups of items that the last pull was narrowed to.
    changed: Option<Changed>,
    /// The number of warnings before the first attempt.
    warnings: usize,
}

impl<'a> LiveSteps<'a> {
    /// Asks the remote, wmill and Windmill, takes the snapshot, and finds out whether anything changed since the last
    /// success. A sync usually takes only this one snapshot. Its query depends on the repository, so the remote is
    /// asked first.
    ///
    /// # Errors
    /// [`BackupError`] if the remote, Windmill or the disk fails, the key cannot sign, or a guard refuses.
    pub fn start(
        run: &'a RunContext<'a>,
        run_env: &'a RunEnv,
        warnings: &mut Warnings,
    ) -> Result<Start<Self>, BackupError> {
        let folder = run.checkout_folder()?;
        let git = run.git(run_env, &folder)?;
        warn_about_old_volume(*run, warnings);
        let last = LastSync::open(*run, &folder);
        let ((state, tip), (wmill, account)) = run.step(Step::Fetch, || {
            // The slowest task starts first: the fetch, a program that asks a server.
            let (fetched, (wmill, account)) = both(
                "fetch",
                || fetch(*run, &git, &last),
                || both("version", || cli::program(run_env, last.state.wmill.as_ref()), || run.account(run_env)),
            );
            Ok((fetched?, (wmill, account?)))
        })?;
        run.note_token_user(&account);
        guards::refuse_lost_rights(*run, &account)?;
        run.warn_about_access(&account, warnings);
        run.warn_about_choice(&account, warnings);
        let query = tip.as_ref().map_or(&last.state.query, |tip| &tip.plan.query);
        let snapshot = run.step(Step::Probe, || run.snapshot(run_env, query))?;
        run.warn_about_snapshot(&snapshot, warnings);
        let now = Now { account, wmill, snapshot };
        let commit = tip.as_ref().map_or(&state.tip, |tip| &tip.commit).as_ref();
        match last.unchanged(&now, commit, tip.as_ref()) {
            Ok((commit, pull)) => {
                log::info!("unchanged since the last sync, pull skipped");
                pull.warnings.iter().for_each(|warning| warnings.add(warning.clone()));
                if !run.request.flags.dry_run {
                    last.follow(commit);
                }
                return Ok(Start::Unchanged { tip: commit.clone(), left_out: pull.left_out.clone() });
            }
            Err(why) => log::debug!("wmill has to pull: {why}"),
        }
        let bring = || retry::patiently(&run_env.deadline, || tip::bring(*run, &git, &state));
        let tip = tip.map_or_else(|| run.step(Step::Fetch, bring), Ok)?;
        guards::refuse_a_public_repository(*run, *run, run_env, &tip, warnings)?;
        // The warnings so far are not saved with a success, since every sync that pulls gives them again.
        let warnings = warnings.list().len();
        Ok(Start::Pull(Self { run, git, last, now, tip, changed: None, warnings }))
    }
}

/// Asks the remote for its tip. Fetches it, unless it is the tip of the last success: then there may be nothing to
/// pull.
fn fetch(run: RunContext<'_>, git: &Git<'_>, last: &LastSync) -> Result<(RemoteState, Option<RemoteTip>), BackupError> {
    retry::patiently(&git.run_env().deadline, || {
        let state = tip::ask(run, git)?;
        let tip = if last.is_at(state.tip.as_ref()) { None } else { Some(tip::bring(run, git, &state)?) };
        Ok((state, tip))
    })
}

fn warn_about_old_volume(run: RunContext<'_>, warnings: &mut Warnings) {
    let data = &run.env.config.data_dir;
    if fs::symlink_metadata(data.join(".git")).is_ok() {
        warnings.add(format!(
            "{} holds a checkout that another service left, perhaps with a token in its .git/config; it is neither \
             used nor changed: revoke that token, and remove the checkout when you no longer need it",
            data.display()
        ));
    }
}

impl SyncSteps for LiveSteps<'_> {
    fn tip(&self) -> &RemoteTip {
        &self.tip
    }

    fn is_first(&self) -> bool {
        self.last.is_first()
    }

    fn left_out(&self) -> Vec<LeftOut> {
        self.now.snapshot.left_out_list()
    }

    fn leave_out(&mut self, paths: &[String], refusals: u32) -> bool {
        let prefix = self.run.request.subdir.prefix();
        let snapshot = &mut self.now.snapshot;
        let owner = |path: &String| Some(merge::owner_of(path.strip_prefix(&prefix)?, &self.tip.workspace));
        let Some(items) = paths.iter().map(owner).collect::<Option<Vec<_>>>() else { return false };
        let known = snapshot.digests_of(items.iter().map(ToString::to_string)).unwrap_or_default();
        let is_new = |item: &ItemId| known.contains_key(&item.to_string()) && !snapshot.left_out.contains_key(item);
        if !items.iter().all(is_new) {
            return false;
        }
        for (item, path) in items.iter().zip(paths) {
            let reason = format!("the remote refuses `{path}`: it is too large, or has a secret in it");
            log::warn!("{item} is left out: {reason}");
            snapshot.leave_out(item, &reason);
        }
        if refusals >= REFUSALS_ONE_BY_ONE_MAX {
            let again = snapshot.leave_out_again(&self.last.state.found);
            again.unwrap_or_else(|error| log::warn!("cannot read which items were refused before: {error}"));
        }
        true
    }

    fn pull(&mut self) -> Result<PullBase, BackupError> {
        let (run, git, tip) = (*self.run, &self.git, &self.tip);
        if tip.plan.query != self.now.snapshot.query {
            // The `wmill.yaml` of another writer changes the query. It was not known when the snapshot was taken.
            self.now.snapshot = run.snapshot(git.run_env(), &tip.plan.query)?;
        }
        self.now.snapshot.judge_by(&tip.plan)?;
        let refused = self.last.refused(&self.now);
        self.now.snapshot.leave_out_again(refused)?;
        let changed = self.last.changed_groups(&self.now, tip);
        self.changed = changed.inspect_err(|why| log::debug!("the whole workspace is pulled: {why}")).ok();
        if let Some(changed) = &self.changed {
            log::debug!("groups of items that changed: {}", changed.count());
            match pull::pull_narrowed(run, git, tip, &self.now.snapshot, changed)? {
                None => return Ok(PullBase::Repository),
                Some(why) => log::info!("pulling the whole workspace: {why}"),
            }
            self.changed = None;
        }
        pull::pull(run, git, &tip.plan, tip.visible_tree.as_ref(), &mut self.now.snapshot, &self.last.state.found)
    }

    fn compose(&mut self, base: PullBase, warnings: &mut Warnings) -> Result<TreeDiff, BackupError> {
        let snapshot = &self.now.snapshot;
        let owns_ui = snapshot.has_shared_ui().is_some_and(|has_files| has_files || self.last.state.shared_ui);
        let pulled = Pulled { base, changed: self.changed.as_ref(), snapshot, owns_ui };
        Ok(merge::compose(&self.git, &self.tip, &pulled, warnings)?)
    }

    fn guard(&mut self, comparison: &TreeDiff) -> Result<(), BackupError> {
        guards::check(*self.run, &self.git, comparison, &self.tip.plan.kinds)
    }

    fn commit(&mut self, comparison: &TreeDiff, warnings: &mut Warnings) -> Result<ObjectId, BackupError> {
        Ok(commit::make(*self.run, &self.git, &self.tip, comparison, &self.now, warnings)?)
    }

    fn push(&mut self, commit: &ObjectId) -> Result<Option<NotPushed>, BackupError> {
        push::deliver(*self.run, &self.git, commit)
    }

    fn remember(&mut self, commit: &ObjectId, warnings: &Warnings) {
        // After a sync that changed something, the next sync may not give all warnings again, unless it is a full one.
        let new_warnings = &warnings.list()[self.warnings..];
        let will_be_repeated = self.tip.commit.as_ref() == Some(commit)
            || new_warnings.iter().all(|warning| self.tip.plan.warnings.contains(warning));
        let tree = self.git.tree_at(commit, self.run.request.subdir.as_str()).ok().filter(|_| will_be_repeated);
        self.last.save(commit, &self.now, tree.as_ref(), new_warnings, self.changed.is_none());
    }

    fn refresh(&mut self) -> Result<(), BackupError> {
        self.tip = retry::patiently(&self.git.run_env().deadline, || tip::refresh(*self.run, &self.git))?;
        Ok(())
    }

    fn discard(&mut self) -> Result<(), BackupError> {
        Ok(self.git.discard()?)
    }
}
