//! How a sync begins: the remote and Windmill are asked at the same time, and whether anything changed since the last
//! success. And how it ends well: with a note of what that rests on.

use std::io;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::base::{self, Base};
use crate::code::Code;
use crate::composition::Composition;
use crate::deadline::Deadline;
use crate::fault::Fault;
use crate::git::{Git, RemoteState};
use crate::listing;
use crate::object::ObjectId;
use crate::outcome::Warnings;
use crate::probe::{self, Reading};
use crate::shortcut::{Now, Shortcut};
use crate::task::{Event, Step, Task};
use crate::windmill::{Account, Windmill};
use crate::wmill;
use crate::workplace::Workplace;

/// The part of the time left that may go to reading what Windmill holds. wmill reads the same and needs longer.
const READING_SHARE: u32 = 3;
/// How much longer than twice the first reading the second may take: the success is not told before that, and without it
/// the next sync is a full one.
const SECOND_READING_GRACE: Duration = Duration::from_secs(20);

/// How a full sync ended well.
pub struct Success<'a> {
    /// It is on the branch.
    pub commit: &'a ObjectId,
    /// What Windmill held after the pull.
    pub reading: Option<Reading>,
    /// The tree of our folder in it, from [`tree_as_composed`] where the commit is new.
    pub tree: Option<ObjectId>,
}

/// What came of asking.
pub enum Opening {
    /// Nothing changed; the branch's tip.
    Unchanged(ObjectId),
    /// A full sync is needed, upon this.
    Full(Box<(Known, Base)>),
}

/// What is known when a full sync begins.
pub struct Known {
    /// What Windmill says of itself and of the token.
    pub account: Account,
    /// The version of wmill.
    pub version: Option<String>,
    /// What is known of earlier syncs.
    pub shortcut: Shortcut,
    wmill: Option<String>,
    seen: Option<Seen>,
    /// How many warnings there were before those of a round.
    warnings: usize,
}

/// What Windmill held before the pull.
struct Seen {
    query: String,
    digest: String,
    took: Duration,
}

impl Seen {
    /// Of the digest of an export, with what was said beside it.
    fn new(query: &str, export: &str, account: &Account, begun: Instant) -> Self {
        Self { query: query.to_owned(), digest: probe::whole(export, &account.side), took: begun.elapsed() }
    }
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
    place: &Workplace,
    git: &Git<'_>,
    shortcut: Shortcut,
    warnings: &mut Warnings,
) -> Result<Opening, Fault> {
    // A dry run proves nothing, but what was proven may save it the pull.
    let is_worth_it = task.service.config.skip_unchanged && (shortcut.is_open() || !task.request.dry_run);
    task.begin(Step::Probe);
    let begun = Instant::now();
    let Answers { mut fetched, export, account, version } = ask_all(task, place, git, &shortcut, is_worth_it)?;
    task.end(Step::Probe, begun);
    tell_about(&account, task, warnings);
    let wmill = version.as_ref().zip(wmill::identity(&place.environment));
    let mut known = Known {
        wmill: wmill.map(|(version, file)| [version, " ", &file].concat()),
        seen: export.map(|export| Seen::new(shortcut.query(), &export, &account, begun)),
        account,
        version,
        shortcut,
        warnings: warnings.count(),
    };
    if let Some(tip) = known.unchanged_at(&fetched, warnings) {
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
            let base = bring(task, place, git, &fetched.state)?;
            fetched.took += begun.elapsed();
            base
        }
    };
    end_of_fetch(task, fetched.took);
    // The repository has a say in what is pulled, and what it says was not known.
    if is_worth_it && base.plan.query != known.shortcut.query() {
        let (begun, query) = (Instant::now(), &base.plan.query);
        let export = finish(read(&task.windmill(place), query, place), &patience(place));
        known.seen = export.map(|export| Seen::new(query, &export, &known.account, begun));
    }
    Ok(Opening::Full(Box::new((known, base))))
}

/// The remote and wmill in threads of their own; Windmill's export is read while Windmill is asked who we are.
fn ask_all(
    task: Task<'_>,
    place: &Workplace,
    git: &Git<'_>,
    shortcut: &Shortcut,
    is_worth_it: bool,
) -> Result<Answers, Fault> {
    let (windmill, patience) = (task.windmill(place), patience(place));
    let (fetched, reading, account, version) = std::thread::scope(|scope| {
        // First what takes longest: a program that asks a server.
        let thread = || std::thread::Builder::new().name("open".to_owned());
        let fetched = thread().spawn_scoped(scope, || fetch(task, place, git, shortcut));
        let reading = if is_worth_it { read(&windmill, shortcut.query(), place) } else { None };
        let version = || wmill::known_version(place, &task.root().join("wmill-version"));
        let version = thread().spawn_scoped(scope, version);
        let account = ask(task, place, &windmill);
        (fetched.map(ScopedJoinHandle::join), reading, account, version.map(ScopedJoinHandle::join))
    });
    let no_thread = |error: io::Error| Fault::new(Code::Internal, format!("cannot start a thread: {error}"));
    let crashed = |_| Fault::new(Code::Internal, "a thread of the sync ended early");
    let (fetched, account) = (fetched.map_err(no_thread)?.map_err(crashed)??, account?);
    let version = version.map_err(no_thread)?.map_err(crashed)?;
    Ok(Answers { fetched, export: finish(reading, &patience), account, version })
}

fn ask(task: Task<'_>, place: &Workplace, windmill: &Windmill<'_>) -> Result<Account, Fault> {
    let is_default = task.request.workspace_is_default;
    task.patiently(Step::Probe, place, || {
        windmill.account(is_default).map_err(|error| task.windmill_error(Step::Probe, error))
    })
}

/// No more than has to be asked for: where the tip is the known one, there may be nothing to bring.
fn fetch(task: Task<'_>, place: &Workplace, git: &Git<'_>, shortcut: &Shortcut) -> Result<Fetched, Fault> {
    task.begin(Step::Fetch);
    let begun = Instant::now();
    let state = task.patiently(Step::Fetch, place, || base::ask(task, git))?;
    let (mut tree, mut base) = (None, None);
    if !shortcut.is_open() {
        base = Some(bring(task, place, git, &state)?);
    } else if !shortcut.is_at(state.tip.as_ref()) {
        tree = base::folder_at(task, git, &state);
    }
    Ok(Fetched { state, tree, base, took: begun.elapsed() })
}

/// Asks the remote again only where the first try fails.
fn bring(task: Task<'_>, place: &Workplace, git: &Git<'_>, state: &RemoteState) -> Result<Base, Fault> {
    let mut shown = Some(state);
    task.patiently(Step::Fetch, place, || match shown.take() {
        Some(state) => base::bring(task, git, state),
        None => base::refresh(task, git),
    })
}

fn end_of_fetch(task: Task<'_>, took: Duration) {
    (task.service.progress)(Event::Ended(Step::Fetch, took));
}

fn patience(place: &Workplace) -> Deadline {
    let left = place.deadline.remaining().unwrap_or_default();
    Deadline::after(left / READING_SHARE, place.deadline.interrupt())
}

fn read(windmill: &Windmill<'_>, query: &str, place: &Workplace) -> Option<Reading> {
    let timeout = patience(place).remaining().ok()?;
    probe::export(windmill, query, timeout).ok()
}

/// Waits for a reading. That there is none is not a fault, but a reason for a full sync.
fn finish(reading: Option<Reading>, patience: &Deadline) -> Option<String> {
    match reading?.wait(patience) {
        Ok(Ok(digest)) => return Some(digest),
        Ok(Err(why)) => log::debug!("what Windmill holds cannot be seen: {why}"),
        Err(_) => log::debug!("what Windmill holds cannot be seen in time"),
    }
    None
}

fn tell_about(account: &Account, task: Task<'_>, warnings: &mut Warnings) {
    let workspace = &task.request.workspace;
    if !account.is_admin {
        warnings.add(format!(
            "the token's user is no admin of workspace `{workspace}`: what that user may not see is missing from the backup"
        ));
    }
    for question in &account.refused {
        warnings.add(format!("Windmill refuses `{question}` to this token: what it tells is missing from the backup"));
    }
    if task.request.workspace_is_default {
        let seen = match &account.workspaces {
            Some(seen) => format!("the token sees: {}", seen.join(", ")),
            None => "the token may not tell which workspaces it sees".to_owned(),
        };
        warnings.add(format!("WINDMILL_WORKSPACE is not set, so `{workspace}` was backed up; {seen}"));
    }
}

impl Known {
    /// The tip, where a full sync would find nothing to do there; with the warnings that it would give.
    fn unchanged_at(&self, fetched: &Fetched, warnings: &mut Warnings) -> Option<ObjectId> {
        let seen = self.seen.as_ref().map(|seen| seen.digest.as_str());
        match self.shortcut.take(self.now(seen, fetched.state.tip.as_ref(), fetched.tree.as_ref())) {
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

    fn now<'a>(&'a self, seen: Option<&'a str>, tip: Option<&'a ObjectId>, tree: Option<&'a ObjectId>) -> Now<'a> {
        Now { seen, windmill: self.account.server_version.as_deref(), wmill: self.wmill.as_deref(), tip, tree }
    }

    /// After a pull: begins to read once more what Windmill holds. Only where that is what it held before can it be what
    /// wmill read. `None` where it would be of no use.
    #[must_use]
    pub fn read_again(&self, task: Task<'_>, place: &Workplace, base: &Base) -> Option<Reading> {
        let seen = self.seen.as_ref().filter(|seen| !task.request.dry_run && seen.query == base.plan.query)?;
        let timeout = patience(place).remaining().ok()?;
        probe::all(&task.windmill(place), &seen.query, timeout).ok()
    }

    /// Notes a success. `warnings` are all that were given; of a sync that changed something, the next may not give them
    /// all again, and is a full one to find out.
    pub fn remember(&self, task: Task<'_>, base: &Base, success: Success<'_>, warnings: &Warnings) {
        let Success { commit, reading, tree } = success;
        let told = warnings.after(self.warnings);
        let will_be_told = base.tip.as_ref() == Some(commit) || told.iter().all(|it| base.plan.warnings.contains(it));
        let proof = reading.filter(|_| will_be_told).and_then(|reading| {
            let seen = self.seen.as_ref()?;
            let patience = Deadline::after(seen.took * 2 + SECOND_READING_GRACE, task.service.interrupt);
            let again = finish(Some(reading), &patience)?;
            if again != seen.digest {
                log::debug!("Windmill changed during the sync, so the next one is a full one");
                return None;
            }
            self.shortcut.proof(self.now(Some(&again), Some(commit), tree.as_ref()), &seen.query, told.to_vec())
        });
        let shared_ui = self.account.shared_ui.as_ref().is_some_and(|files| !files.is_empty());
        self.shortcut.remember(commit, shared_ui, proof);
    }
}

/// The tree of our folder in a new commit, where it holds just what it is to hold. A git that lied, or died unheard, is
/// found out by the next full sync, and no shortcut may lead past that.
#[must_use]
pub fn tree_as_composed(
    task: Task<'_>,
    git: &Git<'_>,
    commit: &ObjectId,
    composition: &Composition,
) -> Option<ObjectId> {
    let tree = base::folder_of(task, git, commit)?;
    let wanted = composition.pairs().ok()?.filter_map(|file| match file {
        Ok((path, (_, entry))) => entry.map(|entry| Ok((path, entry))),
        Err(error) => Some(Err(error)),
    });
    let there = git.list(&tree, "commit.listing").ok()?.entries().ok()?;
    let holds = listing::join(Box::new(wanted), there)
        .all(|file| matches!(file, Ok((_, (Some(wanted), Some(there)))) if wanted == there));
    if !holds {
        log::debug!("the commit does not hold what was pulled, so the next sync is a full one");
    }
    holds.then_some(tree)
}
