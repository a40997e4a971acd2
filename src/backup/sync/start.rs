//! The start of a sync: asks the remote and Windmill, takes the snapshot, and finds out whether anything changed since
//! the last success.

use std::time::{Duration, Instant};

use crate::backup::error::BackupError;
use crate::backup::progress::Step;
use crate::backup::run_context::RunContext;
use crate::backup::sync::guards;
use crate::backup::sync::last_sync::{LastSync, Now};
use crate::backup::sync::tip::{self, RemoteTip};
use crate::git::object::ObjectId;
use crate::git::{Git, RemoteState};
use crate::model::run_result::{LeftOut, Warnings};
use crate::util::parallel::both;
use crate::windmill::api::Account;
use crate::windmill::cli::{self, Program};

/// Whether anything changed.
pub enum Start<T> {
    /// Nothing changed.
    Unchanged {
        /// The branch's tip.
        tip: ObjectId,
        /// The items that the last pull left out.
        left_out: Vec<LeftOut>,
    },
    /// Something changed, or this is not known, so wmill has to pull.
    Pull(T),
}

/// What the remote answered so far.
struct Fetched {
    state: RemoteState,
    /// Our folder at the tip, if the tip is not the one of the last success.
    tree: Option<ObjectId>,
    took: Duration,
}

/// Asks the remote, wmill and Windmill, and takes the snapshot. A sync usually takes only this one snapshot. Its query
/// depends on the repository, so the remote is asked first.
///
/// # Errors
/// [`BackupError`] if the remote, Windmill or the disk fails, or a guard refuses the token or the export of the
/// encryption key.
pub fn start(
    run: RunContext<'_>,
    git: &Git<'_>,
    last: &LastSync,
    warnings: &mut Warnings,
) -> Result<Start<(Now, RemoteTip)>, BackupError> {
    run.begin(Step::Probe);
    let begun = Instant::now();
    let (mut fetched, account, wmill) = ask_all(run, git, last)?;
    run.note_token_user(&account);
    guards::refuse_lost_rights(run, &account)?;
    run.warn_about_access(&account, warnings);
    run.warn_about_default_workspace(&account, warnings);
    let (query, tip) = match last.query_at(fetched.state.tip.as_ref(), fetched.tree.as_ref()) {
        Ok(query) => (query.to_owned(), None),
        Err(why) => {
            log::debug!("wmill has to pull: {why}");
            let tip = fetched.bring(run, git)?;
            (tip.plan.query.clone(), Some(tip))
        }
    };
    // Only the settings can ask for the key.
    guards::refuse_the_key(run, &tip::plan_without_file(run.env.config))?;
    // The fetch has set the current step meanwhile.
    run.begin(Step::Probe);
    let snapshot = run.snapshot(Step::Probe, git.run_env(), &query)?;
    run.warn_about_snapshot(&snapshot, warnings);
    run.end(Step::Probe, begun);
    let now = Now { account, wmill, snapshot };
    if let (None, Some(commit)) = (&tip, &fetched.state.tip)
        && let Some(left_out) = unchanged(last, &now, warnings)
    {
        run.end_after(Step::Fetch, fetched.took);
        if !run.request.dry_run {
            last.follow(commit);
        }
        return Ok(Start::Unchanged { tip: commit.clone(), left_out });
    }
    let tip = match tip {
        Some(tip) => tip,
        None => fetched.bring(run, git)?,
    };
    run.end_after(Step::Fetch, fetched.took);
    Ok(Start::Pull((now, tip)))
}

/// Asks the remote, wmill and Windmill at the same time.
fn ask_all(
    run: RunContext<'_>,
    git: &Git<'_>,
    last: &LastSync,
) -> Result<(Fetched, Account, Option<Program>), BackupError> {
    let run_env = git.run_env();
    // The slowest one starts first: a program that asks a server.
    let (fetched, (wmill, account)) = both(
        "fetch",
        || fetch(run, git, last),
        || both("version", || cli::program(run_env, last.wmill()), || run.account(run_env)),
    );
    Ok((fetched?, account?, wmill))
}

/// Asks the remote only for what is needed: if the tip is the known one, there may be nothing to fetch.
fn fetch(run: RunContext<'_>, git: &Git<'_>, last: &LastSync) -> Result<Fetched, BackupError> {
    run.begin(Step::Fetch);
    let begun = Instant::now();
    let state = run.patiently(Step::Fetch, git.run_env(), || tip::ask(run, git))?;
    let is_elsewhere = last.is_usable() && !last.is_at(state.tip.as_ref());
    let tree = if is_elsewhere { tip::folder_at(run, git, &state) } else { None };
    Ok(Fetched { state, tree, took: begun.elapsed() })
}

impl Fetched {
    /// Fetches the tip. Asks the remote again only if the first attempt fails.
    fn bring(&mut self, run: RunContext<'_>, git: &Git<'_>) -> Result<RemoteTip, BackupError> {
        let (begun, mut shown) = (Instant::now(), Some(&self.state));
        let tip = run.patiently(Step::Fetch, git.run_env(), || match shown.take() {
            Some(state) => tip::bring(run, git, state),
            None => tip::refresh(run, git),
        })?;
        self.took += begun.elapsed();
        Ok(tip)
    }
}

/// If a full sync would find nothing to do, returns the items that it would leave out, and adds the warnings that it
/// would give.
fn unchanged(last: &LastSync, now: &Now, warnings: &mut Warnings) -> Option<Vec<LeftOut>> {
    match last.unchanged(now) {
        Ok((of_pull, left_out)) => {
            log::info!("unchanged since the last sync, pull skipped");
            of_pull.iter().for_each(|warning| warnings.add(warning.clone()));
            Some(left_out.to_vec())
        }
        Err(why) => {
            log::debug!("wmill has to pull: {why}");
            None
        }
    }
}
