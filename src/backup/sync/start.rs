//! The start of a sync: asks the remote and Windmill, takes the snapshot, and finds out whether anything changed since
//! the last success.

use std::time::Instant;

use crate::backup::error::BackupError;
use crate::backup::paths;
use crate::backup::progress::Step;
use crate::backup::run_context::RunContext;
use crate::backup::sync::guards;
use crate::backup::sync::last_sync::{LastSync, Now};
use crate::backup::sync::tip::{self, RemoteTip};
use crate::git::object::ObjectId;
use crate::git::{Git, RemoteState};
use crate::model::run_result::{LeftOut, Warnings};
use crate::util::parallel::both;
use crate::windmill::cli;

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
    let (begun, run_env) = (Instant::now(), git.run_env());
    // The slowest one starts first: a program that asks a server.
    let (fetched, (version, account)) = both(
        "fetch",
        || fetch(run, git, last),
        || {
            let version = || cli::known_version(run_env, &paths::root(run.env.config).join("wmill-version"));
            both("version", version, || run.account(run_env))
        },
    );
    let ((state, tip), account) = (fetched?, account?);
    run.note_token_user(&account);
    guards::refuse_lost_rights(run, &account)?;
    run.warn_about_access(&account, warnings);
    run.warn_about_default_workspace(&account, warnings);
    // Only the settings can ask for the key.
    guards::refuse_the_key(run.env.config, &tip::plan_without_file(run.env.config))?;
    let query = tip.as_ref().map_or_else(|| last.query(), |tip| &tip.plan.query);
    // The fetch has set the current step meanwhile.
    run.begin(Step::Probe);
    let snapshot = run.snapshot(Step::Probe, run_env, query)?;
    run.warn_about_snapshot(&snapshot, warnings);
    run.end(Step::Probe, begun);
    let wmill = version.as_ref().zip(cli::identity(&run_env.environment));
    let wmill = wmill.map(|(version, file)| [&version.text, " ", &*file].concat());
    let now = Now { account, version, wmill, snapshot };
    let commit = tip.as_ref().map_or(&state.tip, |tip| &tip.commit).as_ref();
    match last.unchanged(&now, commit, tip.as_ref()) {
        Ok((commit, pull)) => {
            log::info!("unchanged since the last sync, pull skipped");
            pull.warnings.iter().for_each(|warning| warnings.add(warning.clone()));
            if !run.request.dry_run {
                last.follow(commit);
            }
            return Ok(Start::Unchanged { tip: commit.clone(), left_out: pull.left_out.clone() });
        }
        Err(why) => log::debug!("wmill has to pull: {why}"),
    }
    let bring = || run.patiently(Step::Fetch, run_env, || tip::bring(run, git, &state));
    let tip = tip.map_or_else(|| run.step(Step::Fetch, bring), Ok)?;
    Ok(Start::Pull((now, tip)))
}

/// Asks the remote for its tip, and fetches it, unless it is that of the last success: then there may be nothing to
/// pull.
fn fetch(run: RunContext<'_>, git: &Git<'_>, last: &LastSync) -> Result<(RemoteState, Option<RemoteTip>), BackupError> {
    run.step(Step::Fetch, || {
        run.patiently(Step::Fetch, git.run_env(), || {
            let state = tip::ask(run, git)?;
            let is_known = last.is_usable() && last.is_at(state.tip.as_ref());
            let tip = if is_known { None } else { Some(tip::bring(run, git, &state)?) };
            Ok((state, tip))
        })
    })
}
