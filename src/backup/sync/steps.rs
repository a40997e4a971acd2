//! The steps of a sync, as a trait that the tests script, and the live steps between Windmill and the remote.

use std::fs;
use std::ops::ControlFlow;

use crate::backup::sync::{self, LastSync, Now, Pull, Pulled, commit, guards, merge, push, tip};
use crate::backup::{RemoteTip, RunContext, Step};
use crate::git::{Git, ObjectId, Pushed, TreeDiff};
use crate::model::{BackupError, LeftOut, Result, SyncResult, Warnings};
use crate::process::RunEnv;
use crate::util::{both, retry};
use crate::windmill::{ChangedGroups, cli};

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
    /// Leaves out the items that these files belong to, by their paths in the repository. Returns `false` if a file is
    /// not in our folder, or all of these items were left out before. `refusals` is how often the remote refused files
    /// in this sync.
    fn leave_out(&mut self, paths: &[String], refusals: u32) -> bool;
    /// Lets wmill pull into a folder with the tip's files.
    ///
    /// # Errors
    /// [`BackupError`] if Windmill, wmill, git or the disk fails.
    fn pull(&mut self, warnings: &mut Warnings) -> Result<()>;
    /// Merges the pulled files with the repository's files. Does not commit.
    ///
    /// # Errors
    /// [`BackupError`] if wmill did not write what Windmill has, or git or the disk fails.
    fn compose(&mut self, warnings: &mut Warnings) -> Result<TreeDiff>;
    /// Refuses what must not be committed.
    ///
    /// # Errors
    /// [`BackupError`] if it refuses.
    fn guard(&mut self, comparison: &TreeDiff) -> Result<()>;
    /// Commits on top of the tip. Does not push.
    ///
    /// # Errors
    /// [`BackupError`] if git or the disk fails.
    fn commit(&mut self, comparison: &TreeDiff, warnings: &mut Warnings) -> Result<ObjectId>;
    /// Pushes a commit to the branch. The commit counts as accepted only if it was then seen there.
    ///
    /// # Errors
    /// [`BackupError`] if the remote does not answer, or git or the disk fails.
    fn push(&mut self, commit: &ObjectId) -> Result<Pushed>;
    /// Saves a success with all its warnings.
    fn remember(&mut self, commit: &ObjectId, warnings: &Warnings);
    /// Fetches the tip again, into a new checkout if the current one is damaged.
    ///
    /// # Errors
    /// [`BackupError`] if the remote or the disk fails.
    fn refresh(&mut self, in_new_checkout: bool) -> Result<()>;
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
    changed: Option<ChangedGroups>,
    /// Whether the folder held the repository's files before the last pull.
    held_visible: bool,
    /// The number of warnings before the first attempt.
    warnings: usize,
}

impl<'a> LiveSteps<'a> {
    /// Asks the remote, wmill and Windmill, takes the snapshot, and finds out whether anything changed since the last
    /// success: if not, the sync ends here. A sync usually takes only this one snapshot. Its query depends on the
    /// repository, so the remote is asked first.
    ///
    /// # Errors
    /// [`BackupError`] if the remote, Windmill or the disk fails, the key cannot sign, or a guard refuses.
    pub fn start(
        run: &'a RunContext<'a>,
        run_env: &'a RunEnv,
        warnings: &mut Warnings,
    ) -> Result<ControlFlow<SyncResult, Self>> {
        let folder = run.checkout_folder()?;
        let git = run.git(run_env, &folder)?;
        warn_about_old_volume(*run, warnings);
        let last = LastSync::open(*run, &folder);
        let ((state, tip), account) = run.step(Step::Fetch, || {
            let fetch = || {
                retry::patiently(&run_env.deadline, || {
                    let state = tip::ask(*run, &git)?;
                    // At the tip of the last success, there may be nothing to pull, so it is not fetched yet.
                    let is_known = last.is_at(state.tip.as_ref());
                    let tip = if is_known { None } else { Some(tip::bring(*run, &git, &state)?) };
                    Ok::<_, BackupError>((state, tip))
                })
            };
            let (fetched, account) = both("fetch", fetch, || run.account(run_env));
            Ok((fetched?, account?))
        })?;
        let wmill = cli::program(run_env, last.state.wmill.as_ref());
        guards::refuse_lost_rights(*run, &account)?;
        let query = tip.as_ref().map_or(&last.state.query, |tip| &tip.plan.query);
        let snapshot = run.step(Step::Probe, || run.snapshot(run_env, query))?;
        run.warn_about_snapshot(&snapshot, warnings);
        let now = Now { account, wmill, snapshot };
        match last.unchanged(&now, tip.as_ref()) {
            Ok(known) => {
                log::info!("unchanged since the last sync, pull skipped");
                known.warnings.iter().for_each(|warning| warnings.add(warning.clone()));
                let commit = tip.map_or(state.tip, |tip| tip.commit);
                if let (Some(commit), false) = (&commit, run.request.flags.dry_run) {
                    last.follow(commit);
                }
                return Ok(ControlFlow::Break(sync::unchanged(*run, commit, known.left_out.clone())));
            }
            Err(why) => log::debug!("wmill has to pull: {why}"),
        }
        let bring = || retry::patiently(&run_env.deadline, || tip::bring(*run, &git, &state));
        let tip = tip.map_or_else(|| run.step(Step::Fetch, bring), Ok)?;
        guards::refuse_a_public_repository(*run, *run, run_env, &tip, warnings)?;
        // The warnings so far are not saved with a success, since every sync that pulls gives them again.
        let warnings = warnings.list().len();
        Ok(ControlFlow::Continue(Self { run, git, last, now, tip, changed: None, held_visible: true, warnings }))
    }
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
        let (prefix, snapshot) = (self.run.request.subdir.prefix(), &mut self.now.snapshot);
        let before = snapshot.left_out.len();
        for path in paths {
            let Some(path_in_folder) = path.strip_prefix(&prefix) else { return false };
            let item = merge::owner_of(path_in_folder, &self.tip.workspace);
            let reason = format!("the remote refuses `{path}`: it is too large, or has a secret in it");
            log::warn!("{item} is left out: {reason}");
            snapshot.leave_out(&item, &reason);
        }
        if snapshot.left_out.len() == before {
            return false;
        }
        if refusals >= REFUSALS_ONE_BY_ONE_MAX {
            let again = snapshot.leave_out_again(&self.last.state.found);
            again.unwrap_or_else(|error| log::warn!("cannot read which items were refused before: {error}"));
        }
        true
    }

    fn pull(&mut self, warnings: &mut Warnings) -> Result<()> {
        let (run, git, tip) = (*self.run, &self.git, &self.tip);
        if tip.plan.query != self.now.snapshot.query {
            // The `wmill.yaml` of another writer changes the query. It was not known when the snapshot was taken.
            self.now.snapshot = run.snapshot(git.run_env(), &tip.plan.query)?;
        }
        self.now.snapshot.judge_by(&tip.plan)?;
        let refused = self.last.refused(&self.now);
        self.now.snapshot.leave_out_again(refused)?;
        // All hashes in wmill-lock.yaml depend on `dependencies/`. If wmill finds the old files, it computes only the
        // hashes of edited items.
        let computes_all = tip.plan.scope.is_all() && self.last.is_of_other_dependencies(&self.now);
        let visible = tip.visible_tree.as_ref().filter(|_| !computes_all);
        let (plan, suspects) = (&tip.plan, &self.last.state.found);
        let pull = Pull { run, git, plan, visible, suspects };
        self.held_visible = true;
        let changed = self.last.changed_groups(&self.now, tip);
        self.changed = changed.inspect_err(|why| log::debug!("the whole workspace is pulled: {why}")).ok();
        if let Some(changed) = &self.changed {
            log::debug!("groups of items that changed: {}", changed.count());
            match pull.narrowed(tip, &self.now.snapshot, changed)? {
                None => return Ok(()),
                Some(why) => log::info!("pulling the whole workspace: {why}"),
            }
            self.changed = None;
        }
        let is_as_asked = pull.whole(&mut self.now.snapshot)?;
        self.held_visible = is_as_asked && visible.is_some();
        if !is_as_asked {
            let patterns = if tip.plan.scope.is_all() { "" } else { ", whatever its patterns leave out" };
            warnings.add(format!(
                "wmill cannot work with the repository's files, so the workspace was pulled again into an empty \
                 folder{patterns}"
            ));
        }
        Ok(())
    }

    fn compose(&mut self, warnings: &mut Warnings) -> Result<TreeDiff> {
        let snapshot = &self.now.snapshot;
        let owns_ui = snapshot.has_shared_ui().is_some_and(|has_files| has_files || self.last.state.shared_ui);
        let pulled = Pulled { held_visible: self.held_visible, changed: self.changed.as_ref(), snapshot, owns_ui };
        merge::compose(&self.git, &self.tip, &pulled, warnings)
    }

    fn guard(&mut self, comparison: &TreeDiff) -> Result<()> {
        guards::check(*self.run, &self.git, comparison, &self.tip.plan.kinds)
    }

    fn commit(&mut self, comparison: &TreeDiff, warnings: &mut Warnings) -> Result<ObjectId> {
        commit::make(*self.run, &self.git, &self.tip, comparison, &self.now, warnings)
    }

    fn push(&mut self, commit: &ObjectId) -> Result<Pushed> {
        push::deliver(*self.run, &self.git, commit)
    }

    fn remember(&mut self, commit: &ObjectId, warnings: &Warnings) {
        // After a sync that changed something, the next sync may not give all warnings again, unless it is a full one.
        let new_warnings = &warnings.list()[self.warnings..];
        let will_be_repeated = self.tip.commit.as_ref() == Some(commit)
            || new_warnings.iter().all(|warning| self.tip.plan.warnings.contains(warning));
        let tree = self.git.tree_at(commit, self.run.request.subdir.as_str()).ok().filter(|_| will_be_repeated);
        self.last.save(commit, &self.now, tree.as_ref(), new_warnings);
    }

    fn refresh(&mut self, in_new_checkout: bool) -> Result<()> {
        if in_new_checkout {
            self.git.discard()?;
        }
        self.tip = retry::patiently(&self.git.run_env().deadline, || tip::refresh(*self.run, &self.git))?;
        Ok(())
    }
}
