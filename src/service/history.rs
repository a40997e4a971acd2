//! The last runs, and how each configured backup stands, kept over restarts in one file that all processes on a data
//! folder share. It does not know how a run goes on, nor who asks for it afterwards.
//!
//! What was recorded is in memory at once, and in the file once [`History::save`] could write it. A file that cannot be
//! written or read costs what earlier processes knew, never a sync.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use miniserde::{Deserialize, Serialize, json};

use crate::outcome::{Changed, SyncResult};
use crate::scratch;

/// Runs that are remembered, over all workspaces.
const RUNS_MAX: usize = 50;
/// Backups and their verifications whose standing is remembered; those of settings that were changed long ago go first.
const STANDINGS_MAX: usize = 128;
/// Durations in the picture of one backup.
const PICTURE_RUNS_MAX: usize = 40;
/// A failure that goes on is news again after this time.
const FAILURE_NEWS_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
/// Of a message, what is remembered. The longest that are made on purpose list some tens of paths.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The same of runs with other settings: whoever asked for one chose what its remote says.
const MESSAGE_BYTES_OF_OTHERS_MAX: usize = 500;
/// Of a run's warnings together.
const WARNINGS_BYTES_MAX: usize = 8 << 10;
/// What the largest history comes to is far less; a file beyond this is none of ours.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A file lock has no wait with a time-out, so it is tried this often.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// One run that has ended, as `/status` tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names the run.
    pub run_id: String,
    /// The workspace.
    pub workspace: String,
    /// Whether it ran with the configured settings. Other runs count for no backup's standing.
    pub configured: bool,
    /// Whether it was only to show what would be committed. Such a run counts for nothing.
    pub dry_run: bool,
    /// Whether it was a verification. It counts for no backup's last success.
    pub verify: bool,
    /// Whether it went well.
    pub success: bool,
    /// The result code.
    pub code: String,
    /// What was tried, on what, and how it went; cut where it is very long.
    pub message: String,
    /// The branch.
    pub branch: String,
    /// The commit that the branch held then, where that is known.
    pub commit: Option<String>,
    /// What the commit changed.
    pub changed: Changed,
    /// What a user should know although it is no failure; the last may say how many more there were.
    pub warnings: Vec<String>,
    /// When it was asked for, UTC.
    pub started: String,
    /// When it ended, UTC.
    pub ended: String,
    /// From the one to the other.
    pub duration_ms: u64,
}

impl Record {
    fn new(about: &About, result: &SyncResult) -> Self {
        let now = SystemTime::now();
        let started = now.checked_sub(Duration::from_millis(result.duration_ms)).unwrap_or(now);
        let message_bytes_max = if about.configured { MESSAGE_BYTES_MAX } else { MESSAGE_BYTES_OF_OTHERS_MAX };
        Self {
            run_id: result.run_id.clone(),
            workspace: result.workspace.clone(),
            configured: about.configured,
            dry_run: about.dry_run,
            verify: about.verify,
            success: result.code.is_success(),
            code: result.code.as_str().to_owned(),
            message: cut(&result.message, message_bytes_max),
            branch: result.branch.clone(),
            commit: result.commit.clone(),
            changed: result.changed,
            warnings: some_of(&result.warnings),
            started: text_of(started),
            ended: text_of(now),
            duration_ms: result.duration_ms,
        }
    }
}

/// How a backup stood before a run, and stands after it.
pub struct Turn {
    /// Nothing, where it was the first.
    pub before: Option<Standing>,
    /// With the run.
    pub after: Standing,
}

/// What a run was, beside its result.
#[derive(Clone, Debug)]
pub struct About {
    /// Whether it ran with the configured settings.
    pub configured: bool,
    /// Whether it was only to show.
    pub dry_run: bool,
    /// Whether it was a verification.
    pub verify: bool,
    /// Of the backup for whose standing it counts, see
    /// [`SyncRequest::destination`](crate::sync_request::SyncRequest::destination).
    pub destination: Option<String>,
}

/// How the backup of one workspace to one place stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The workspace.
    pub workspace: String,
    /// From where to where.
    pub destination: String,
    /// The last run.
    pub last_run: Record,
    /// The last run that went well.
    pub last_success: Option<Record>,
    /// The last run that failed.
    pub last_failure: Option<Record>,
    /// Failures since then.
    pub consecutive_failures: u64,
    /// When the first of these ended, UTC.
    pub failing_since: Option<String>,
    /// The last of these that was news: the first, one with another code, one a day after the last news.
    pub failure_news: Option<News>,
    /// The last runs, the oldest first.
    pub picture: Vec<Bar>,
}

/// A failure that was news.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct News {
    /// Of the run.
    pub run_id: String,
    /// When it ended, UTC.
    pub ended: String,
}

/// One run of a [`Standing`]'s picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Whether it went well.
    pub success: bool,
    /// How long it took.
    pub duration_ms: u64,
}

/// All that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The last runs, the newest first.
    pub runs: Vec<Record>,
    /// One for each backup that ran with the settings of its time.
    pub standings: Vec<Standing>,
}

impl Kept {
    /// The standing of one backup.
    #[must_use]
    pub fn standing(&self, workspace: &str, destination: &str) -> Option<&Standing> {
        self.standings.iter().find(|one| one.workspace == workspace && one.destination == destination)
    }

    fn add(&mut self, entry: &Entry) {
        self.runs.retain(|known| known.run_id != entry.record.run_id);
        self.runs.insert(0, entry.record.clone());
        self.runs.truncate(RUNS_MAX);
        let Some(destination) = &entry.destination else { return };
        let place = |one: &Standing| one.workspace == entry.record.workspace && one.destination == *destination;
        let known = self.standings.iter().position(place).map(|index| self.standings.remove(index));
        // The one that ran last is the first, so that those of former settings go first.
        self.standings.insert(0, stand(known, &entry.record, destination));
        self.standings.truncate(STANDINGS_MAX);
    }
}

/// The standing after one more run.
fn stand(known: Option<Standing>, run: &Record, destination: &str) -> Standing {
    let mut standing = known.unwrap_or_else(|| Standing {
        workspace: run.workspace.clone(),
        destination: destination.to_owned(),
        last_run: run.clone(),
        last_success: None,
        last_failure: None,
        consecutive_failures: 0,
        failing_since: None,
        failure_news: None,
        picture: Vec::new(),
    });
    standing.last_run = run.clone();
    if run.success {
        standing.last_success = Some(run.clone());
        standing.consecutive_failures = 0;
        standing.failing_since = None;
        standing.failure_news = None;
    } else {
        if is_news(&standing, run) {
            standing.failure_news = Some(News { run_id: run.run_id.clone(), ended: run.ended.clone() });
        }
        standing.last_failure = Some(run.clone());
        standing.consecutive_failures += 1;
        standing.failing_since.get_or_insert_with(|| run.ended.clone());
    }
    standing.picture.push(Bar { success: run.success, duration_ms: run.duration_ms });
    let excess = standing.picture.len().saturating_sub(PICTURE_RUNS_MAX);
    standing.picture.drain(..excess);
    standing
}

/// Whether a failure is one that was not told yet, or not for a day.
fn is_news(standing: &Standing, failure: &Record) -> bool {
    let (Some(told), Some(last)) = (&standing.failure_news, &standing.last_failure) else { return true };
    let since = time_of(&failure.ended).zip(time_of(&told.ended)).and_then(|(now, then)| now.duration_since(then).ok());
    last.code != failure.code || since.is_some_and(|time| time >= FAILURE_NEWS_INTERVAL)
}

/// One run that is to be remembered.
struct Entry {
    record: Record,
    /// Of the backup for whose standing it counts.
    destination: Option<String>,
}

/// What this process remembers of all runs on its data folder.
pub struct History {
    path: PathBuf,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    kept: Kept,
    /// In memory only, the oldest first.
    unsaved: Vec<Entry>,
    /// Of the file that `kept` was read from or written to.
    stamp: Option<Stamp>,
}

/// By what a file shows that it was replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// Of the file system; 0 where there is none.
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len(), inode })
    }
}

impl History {
    /// The history in this folder. Nothing is read or made before it is needed.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("history.json"), memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // What a panic leaves half done is a list that lacks a run.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a run that ended now, in memory; [`History::save`] writes it down. Where the run counts for a backup,
    /// this is how that stood before and stands after.
    pub fn record(&self, about: About, result: &SyncResult) -> Option<Turn> {
        let entry = Entry { record: Record::new(&about, result), destination: about.destination };
        let mut memory = self.memory();
        self.look(&mut memory);
        let standing = |kept: &Kept| kept.standing(&result.workspace, entry.destination.as_ref()?).cloned();
        let before = standing(&memory.kept);
        memory.kept.add(&entry);
        let turn = standing(&memory.kept).map(|after| Turn { before, after });
        memory.unsaved.push(entry);
        if memory.unsaved.len() > RUNS_MAX {
            memory.unsaved.remove(0);
        }
        turn
    }

    /// Reads what is remembered now, the runs of other processes included.
    pub fn read<T>(&self, read: impl FnOnce(&Kept) -> T) -> T {
        let mut memory = self.memory();
        self.look(&mut memory);
        read(&memory.kept)
    }

    /// Writes down what is in memory only. A failure is logged, and made up for by a later call. Waits for others that
    /// write, for `patience` at most, and for the disk; who reads and who records meanwhile does not.
    pub fn save(&self, patience: Duration) {
        if self.memory().unsaved.is_empty() {
            return;
        }
        if let Err(error) = self.write(patience) {
            log::warn!("cannot write the history of runs, will try again after the next one: {error}");
        }
    }

    fn write(&self, patience: Duration) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            scratch::create_folder(folder)?;
        }
        let _lock = self.lock(patience)?;
        let text = {
            let mut memory = self.memory();
            self.look(&mut memory);
            if memory.unsaved.is_empty() {
                return Ok(());
            }
            json::to_string(&memory.kept)
        };
        // What is in the file then is unsaved until somebody looks.
        scratch::replace_file(&self.path, text.as_bytes())
    }

    /// Keeps all others from writing, in this process and elsewhere, until it is dropped.
    fn lock(&self, patience: Duration) -> io::Result<fs::File> {
        let path = self.path.with_extension("lock");
        let file = scratch::open_file(&path, false)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) if begun.elapsed() < patience => {
                    std::thread::sleep(LOCK_RETRY_INTERVAL);
                }
                Err(error) => return Err(scratch::at(&path, &error.into())),
            }
        }
    }

    /// Where somebody wrote, what that has comes in below what is in our memory only.
    fn look(&self, memory: &mut Memory) {
        let stamp = Stamp::of(&self.path);
        if stamp.is_none() || stamp == memory.stamp {
            return;
        }
        memory.stamp = stamp;
        match self.load() {
            Ok(mut kept) => {
                // It may be our own writing: what is in it counts once, and is saved.
                memory.unsaved.retain(|entry| !kept.runs.iter().any(|run| run.run_id == entry.record.run_id));
                for entry in &memory.unsaved {
                    kept.add(entry);
                }
                memory.kept = kept;
            }
            Err(error) => log::warn!("the history of runs is not readable and will be written anew: {error}"),
        }
    }

    fn load(&self) -> io::Result<Kept> {
        let text = scratch::read_file(&self.path, FILE_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&text);
        json::from_str(&text).map_err(|_| scratch::at(&self.path, &io::Error::other("it is damaged")))
    }
}

/// As in `2026-11-22T18:00:00Z`.
#[must_use]
pub fn text_of(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The time that such a text tells.
#[must_use]
pub fn time_of(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max).rev().find(|index| text.is_char_boundary(*index)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// The first warnings, as many as there is room for.
fn some_of(warnings: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut bytes_left = WARNINGS_BYTES_MAX;
    for (index, warning) in warnings.iter().enumerate() {
        let warning = cut(warning, MESSAGE_BYTES_MAX);
        if warning.len() > bytes_left {
            kept.push(format!("and {} more, see the log", warnings.len() - index));
            break;
        }
        bytes_left -= warning.len();
        kept.push(warning);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, success: bool) -> Record {
        Record {
            run_id: id.to_owned(),
            workspace: "shop".to_owned(),
            configured: true,
            dry_run: false,
            verify: false,
            success,
            code: if success { "pushed" } else { "timeout" }.to_owned(),
            message: String::new(),
            branch: "main".to_owned(),
            commit: None,
            changed: Changed { added: 1, modified: 0, deleted: 0 },
            warnings: Vec::new(),
            started: "2026-11-22T18:00:00Z".to_owned(),
            ended: format!("2026-11-22T18:00:{id}Z"),
            duration_ms: 7,
        }
    }

    fn after(runs: &[(&str, bool)]) -> Standing {
        let stand = |known, (id, success): &(&str, bool)| Some(stand(known, &record(id, *success), "there"));
        runs.iter().fold(None, stand).expect("a run")
    }

    #[test]
    fn failures_are_counted_until_a_success() {
        let standing = after(&[("01", true), ("02", false), ("03", false)]);
        assert_eq!(
            (standing.consecutive_failures, standing.failing_since.as_deref()),
            (2, Some("2026-11-22T18:00:02Z"))
        );
        assert_eq!(standing.last_success.map(|run| run.run_id).as_deref(), Some("01"));
        let healed = after(&[("01", false), ("02", true)]);
        assert_eq!((healed.consecutive_failures, healed.failing_since), (0, None));
        assert_eq!(healed.last_failure.map(|run| run.run_id).as_deref(), Some("01"));
    }

    #[test]
    fn a_failure_is_news_when_it_begins_when_its_code_changes_and_once_a_day() {
        let failure =
            |code: &str, ended: &str| Record { code: code.to_owned(), ended: ended.to_owned(), ..record("01", false) };
        let mut standing = None;
        let mut news = |run: Record| {
            let after = stand(standing.take(), &run, "there");
            let is_news = after.failure_news.as_ref().is_some_and(|news| news.ended == run.ended);
            standing = Some(after);
            is_news
        };
        assert!(news(failure("timeout", "2026-11-22T18:00:00Z")));
        assert!(!news(failure("timeout", "2026-11-22T18:01:00Z")));
        assert!(news(failure("git_failed", "2026-11-22T18:02:00Z")));
        assert!(!news(failure("git_failed", "2026-11-23T18:01:59Z")));
        assert!(news(failure("git_failed", "2026-11-23T18:02:00Z")));
        assert!(!news(record("03", true)));
        assert!(news(failure("git_failed", "2026-11-23T18:03:00Z")), "it begins anew");
    }

    #[test]
    fn a_run_that_was_read_back_is_there_once() {
        let mut kept = Kept { runs: Vec::new(), standings: Vec::new() };
        let entry = Entry { record: record("01", true), destination: None };
        kept.add(&entry);
        kept.add(&entry);
        assert_eq!((kept.runs.len(), kept.standings.len()), (1, 0));
    }

    #[test]
    fn what_was_written_is_saved_when_it_is_seen_and_counts_once() {
        let scratch = scratch::Scratch::for_test("history").expect("a folder");
        let history = History::new(scratch.path());
        let failure = |id: &str| SyncResult {
            code: crate::code::Code::Timeout,
            message: String::new(),
            run_id: id.to_owned(),
            workspace: "shop".to_owned(),
            branch: "main".to_owned(),
            commit: None,
            changed: Changed { added: 0, modified: 0, deleted: 0 },
            warnings: Vec::new(),
            duration_ms: 7,
        };
        let record = |id| {
            let about =
                About { configured: true, dry_run: false, verify: false, destination: Some("there".to_owned()) };
            history.record(about, &failure(id)).expect("a turn").after.consecutive_failures
        };
        assert_eq!(record("01"), 1);
        // As `write` does, and then a run that looks.
        let text = history.read(json::to_string);
        scratch::replace_file(&history.path, text.as_bytes()).expect("written");
        assert_eq!(record("02"), 2);
        let unsaved: Vec<String> = history.memory().unsaved.iter().map(|entry| entry.record.run_id.clone()).collect();
        assert_eq!(unsaved, ["02"]);
        assert_eq!(history.read(|kept| kept.runs.len()), 2);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aéb", 2), "a…");
        let many = vec!["x".repeat(3 << 10); 5];
        let kept = some_of(&many);
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[2], "and 3 more, see the log");
        assert_eq!(some_of(&many[..2]), many[..2]);
    }
}
