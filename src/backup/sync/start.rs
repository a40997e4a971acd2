//! How a sync begins: the remote and Windmill are asked at the same time, and with that, whether anything changed since
//! the last success.

use std::time::{Duration, Instant};

use crate::base::{self, Base};
use crate::both::both;
use crate::fault::Fault;
use crate::git::{Git, RemoteState};
use crate::object::ObjectId;
use crate::outcome::Warnings;
use crate::probe::{self, Reading};
use crate::proof::{Known, Seen};
use crate::shortcut::Shortcut;
use crate::task::{Event, Step, Task};
use crate::windmill::{Account, Windmill};
use crate::wmill;
use crate::workplace::Workplace;

/// What came of asking whether anything changed.
pub enum Opening<T> {
    /// Nothing did; the branch's tip.
    Unchanged(ObjectId),
    /// That is not known, so a full sync is needed, upon this.
    Full(T),
}

/// What the remote said so far.
struct Fetched {
    state: RemoteState,
    tree: Option<ObjectId>,
    base: Option<Base>,
    took: Duration,
}

/// What everybody said who was asked at the same time.
struct Answers {
    fetched: Fetched,
    /// The digest of the export, where it was worth reading and could be read.
    export: Option<String>,
    account: Account,
    /// The version of wmill.
    version: Option<String>,
}

/// Asks everybody.
///
/// # Errors
/// [`Fault`]: the remote, Windmill, the disk.
pub fn open(
    task: Task<'_>,
    git: &Git<'_>,
    shortcut: Shortcut,
    warnings: &mut Warnings,
) -> Result<Opening<(Known, Base)>, Fault> {
    // A dry run proves nothing, but what was proven may save it the pull.
    let is_worth_it = task.service.config.skip_unchanged && (shortcut.is_open() || !task.request.dry_run);
    task.begin(Step::Probe);
    let begun = Instant::now();
    let Answers { mut fetched, export, account, version } = ask_all(task, git, &shortcut, is_worth_it)?;
    task.end(Step::Probe, begun);
    task.tell_about(&account, warnings);
    task.tell_about_default(&account, warnings);
    let wmill = version.as_ref().zip(wmill::identity(&git.place().environment));
    let mut known = Known {
        wmill: wmill.map(|(version, file)| [version, " ", &file].concat()),
        seen: export.map(|export| Seen::new(shortcut.query(), &export, &account, begun)),
        account,
        version,
        shortcut,
        warnings: warnings.count(),
    };
    if let Some(tip) = unchanged_at(&known, &fetched, warnings) {
        end_of_fetch(task, fetched.took);
        if !task.request.dry_run {
            known.shortcut.follow(&tip);
        }
        return Ok(Opening::Unchanged(tip));
    }
    let base = match fetched.base.take() {
        Some(base) => base,
        None => {
            let begun = Instant::now();
            let base = bring(task, git, &fetched.state)?;
            fetched.took += begun.elapsed();
            base
        }
    };
    end_of_fetch(task, fetched.took);
    // The repository has a say in what is pulled, and what it says was not known.
    if is_worth_it && base.plan.query != known.shortcut.query() {
        let (begun, query) = (Instant::now(), &base.plan.query);
        let place = git.place();
        let reading = read(&task.windmill(place), query, &known.shortcut, place);
        let export = reading.and_then(|reading| probe::digest(reading, &probe::patience(&place.deadline)));
        known.seen = export.map(|export| Seen::new(query, &export, &known.account, begun));
    }
    Ok(Opening::Full((known, base)))
}

/// The remote and wmill in threads of their own; Windmill's export is read while Windmill is asked who we are.
fn ask_all(task: Task<'_>, git: &Git<'_>, shortcut: &Shortcut, is_worth_it: bool) -> Result<Answers, Fault> {
    let place = git.place();
    let (windmill, patience) = (task.windmill(place), probe::patience(&place.deadline));
    // First what takes longest: a program that asks a server.
    let fetch = || fetch(task, git, shortcut);
    let (fetched, (reading, version, account)) = both("fetch", fetch, || {
        let reading = if is_worth_it { read(&windmill, shortcut.query(), shortcut, place) } else { None };
        let version = || wmill::known_version(place, &task.root().join("wmill-version"));
        let (version, account) = both("version", version, || ask(task, place, &windmill));
        (reading, version, account)
    });
    let (fetched, account) = (fetched?, account?);
    Ok(Answers { fetched, export: reading.and_then(|reading| probe::digest(reading, &patience)), account, version })
}

fn ask(task: Task<'_>, place: &Workplace, windmill: &Windmill<'_>) -> Result<Account, Fault> {
    let is_default = task.request.workspace_is_default;
    task.patiently(Step::Probe, place, || {
        windmill.account(is_default).map_err(|error| task.windmill_error(Step::Probe, error))
    })
}

/// No more than has to be asked for: where the tip is the known one, there may be nothing to bring.
fn fetch(task: Task<'_>, git: &Git<'_>, shortcut: &Shortcut) -> Result<Fetched, Fault> {
    task.begin(Step::Fetch);
    let begun = Instant::now();
    let state = task.patiently(Step::Fetch, git.place(), || base::ask(task, git))?;
    let (mut tree, mut base) = (None, None);
    if !shortcut.is_open() {
        base = Some(bring(task, git, &state)?);
    } else if !shortcut.is_at(state.tip.as_ref()) {
        tree = base::folder_at(task, git, &state);
    }
    Ok(Fetched { state, tree, base, took: begun.elapsed() })
}

/// Asks the remote again only where the first try fails.
fn bring(task: Task<'_>, git: &Git<'_>, state: &RemoteState) -> Result<Base, Fault> {
    let mut shown = Some(state);
    task.patiently(Step::Fetch, git.place(), || match shown.take() {
        Some(state) => base::bring(task, git, state),
        None => base::refresh(task, git),
    })
}

fn end_of_fetch(task: Task<'_>, took: Duration) {
    (task.service.progress)(Event::Ended(Step::Fetch, took));
}

fn read(windmill: &Windmill<'_>, query: &str, shortcut: &Shortcut, place: &Workplace) -> Option<Reading> {
    let timeout = probe::patience(&place.deadline).remaining().ok()?;
    probe::export(windmill, query, shortcut.key()?, timeout).ok()
}

/// The tip, where a full sync would find nothing to do there; with the warnings that it would give.
fn unchanged_at(known: &Known, fetched: &Fetched, warnings: &mut Warnings) -> Option<ObjectId> {
    match known.shortcut.take(known.now(fetched.state.tip.as_ref(), fetched.tree.as_ref())) {
        Ok(told) => {
            log::info!("Windmill and the branch hold what they held, so wmill need not be started");
            told.iter().for_each(|warning| warnings.add(warning.clone()));
            fetched.state.tip.clone()
        }
        Err(why) => {
            log::debug!("this is a full sync: {why}");
            None
        }
    }
}
