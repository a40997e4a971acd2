//! The history: the last runs and the state of each backup, in one file that all processes on a data folder share.
//!
//! A run is in memory at once, and in the file after [`History::save`]. If the file cannot be read or written, the runs
//! of earlier processes are lost, but no sync fails.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use miniserde::{Deserialize, Serialize, json};

use crate::model::result_code::Code;
use crate::model::run_result::{Changed, LeftOut, SyncResult, TokenUser};
use crate::util::files;
use crate::util::time;

/// Stands for the list of all workspaces, in place of a workspace's name.
pub const ALL: &str = "*";

/// How many runs are kept, over all workspaces.
const RUNS_MAX: usize = 50;
/// How many of these may count for no backup (dry runs, and runs with other settings) if there is no room for all.
const OTHER_RUNS_MAX: usize = 25;
/// How many backups and verifications have a status. Those that did not run for the longest time are dropped first:
/// usually, they belong to former settings.
const STANDINGS_MAX: usize = 128;
/// How many runs the picture of one backup has.
const PICTURE_RUNS_MAX: usize = 40;
/// A continuing failure is reported again after this time: once a day, also if a daily run ends a bit earlier than the
/// day before.
const NEWS_INTERVAL: Duration = Duration::from_secs(23 * 3_600);
/// What is overdue is reported again after this time if no one got the notice.
const LOST_NEWS_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How much of a message is kept. The longest expected messages list some tens of paths.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The same for runs with other settings: the caller chose the remote, and the message may contain the remote's text.
const MESSAGE_BYTES_OF_OTHERS_MAX: usize = 500;
/// How much of all warnings of a run is kept.
const WARNINGS_BYTES_MAX: usize = 8 << 10;
/// How much of all left out items of a run is kept.
const LEFT_OUT_BYTES_MAX: usize = 8 << 10;
/// The largest size of the file. A longer history loses the details of old runs when it is written, so a larger file is
/// not a history.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// How often a file lock is tried. The kernel's lock has no wait with a time-out.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// One ended run, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The id of the run.
    pub run_id: String,
    /// The workspace.
    pub workspace: String,
    /// Whether it ran with the configured settings. Other runs count for no backup's status.
    pub configured: bool,
    /// Whether it only showed what it would commit. Such a run counts for no backup's status.
    pub dry_run: bool,
    /// Whether it was a verification. It does not count for the backup's last success.
    pub verify: bool,
    /// Whether it succeeded.
    pub success: bool,
    /// The result code.
    pub code: String,
    /// What was tried, on what, and how it ended. A very long text is cut.
    pub message: String,
    /// The branch.
    pub branch: String,
    /// The commit that the branch held then, if it is known.
    pub commit: Option<String>,
    /// What the commit changed.
    pub changed: Changed,
    /// What a user should know although it is no failure. The last entry may be the number of further ones.
    pub warnings: Vec<String>,
    /// The items that could not be backed up. The last entry may be the number of further ones. `None` in a run of an
    /// earlier version, and in a run of a history that was too long with them.
    pub left_out: Option<Vec<LeftOut>>,
    /// How many items Windmill listed, if it was asked.
    pub items: Option<usize>,
    /// When the run was requested, UTC.
    pub started: String,
    /// When it ended, UTC.
    pub ended: String,
    /// The time from `started` to `ended`.
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
            left_out: Some(some_items_of(&result.left_out)),
            items: result.items,
            started: time::to_text(started),
            ended: time::to_text(now),
            duration_ms: result.duration_ms,
        }
    }
}

/// The status of a backup before and after a run.
pub struct Transition {
    /// `None` if this was the first run.
    pub before: Option<BackupStatus>,
    /// The status that includes the run.
    pub after: BackupStatus,
    /// Since when the backup was overdue, if a notice said so and the run ended this.
    pub overdue_since: Option<String>,
}

/// What is known of a run apart from its result.
#[derive(Clone, Debug)]
pub struct About {
    /// Whether it ran with the configured settings.
    pub configured: bool,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// Whether it was a verification.
    pub verify: bool,
    /// The name of the status for which it counts; see
    /// [`SyncRequest::status_key`](crate::request::SyncRequest::status_key). `None` if it counts for no backup.
    pub destination: Option<String>,
    /// The user of its Windmill token, if known.
    pub token_user: Option<TokenUser>,
}

/// The status of the backup of one workspace to one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// The workspace.
    pub workspace: String,
    /// The name of its status; see [`SyncRequest::status_key`](crate::request::SyncRequest::status_key).
    pub destination: String,
    /// The last run.
    pub last_run: Record,
    /// The last run that succeeded.
    pub last_success: Option<Record>,
    /// The user of the token that made the last backup (see `last_backup`); `None` if not known.
    pub token_user: Option<TokenUser>,
    /// When the last run ended that backed up all or some of what Windmill held: a success, or a run that left items
    /// out.
    pub last_backup: Option<String>,
    /// The last run that failed.
    pub last_failure: Option<Record>,
    /// The number of failures since the last success.
    pub consecutive_failures: u64,
    /// When the first of these ended, UTC.
    pub failing_since: Option<String>,
    /// The last of these that was news: the first, one with another code or other left out items, or one a day after
    /// the last news.
    pub failure_news: Option<LastAlert>,
    /// The last runs, the oldest first.
    pub picture: Vec<Bar>,
    /// Whether Windmill listed all workspaces after the last run, and this one was not among them. An earlier version
    /// did not write this.
    pub unlisted: Option<bool>,
}

/// How a failure to list all workspaces ended.
#[derive(Clone, Debug, PartialEq)]
pub struct ListRecovery {
    /// The number of failures.
    pub failures: u64,
    /// When the first of them ended, UTC.
    pub since: String,
}

/// A failure that was news.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastAlert {
    /// The id of the failed run.
    pub run_id: String,
    /// When it ended, UTC.
    pub ended: String,
}

/// One run in the picture of a [`BackupStatus`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Whether it succeeded.
    pub success: bool,
    /// How long it took.
    pub duration_ms: u64,
}

/// The whole history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedHistory {
    /// The last runs, the newest first.
    pub runs: Vec<Record>,
    /// One entry for each backup that ran with the settings of its time.
    pub standings: Vec<BackupStatus>,
    /// The overdue backups that a notice was sent for.
    pub overdue: Option<Vec<Overdue>>,
}

/// A backup that was not made for longer than `EXPECT_SYNC_EVERY`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overdue {
    /// The workspace.
    pub workspace: String,
    /// A short name for what is backed up to where.
    pub destination: String,
    /// When it became overdue, UTC.
    pub since: String,
    /// When the last notice about this was sent, UTC.
    pub told: String,
    /// The id of that notice, until it is known to be lost. An earlier version did not write this.
    pub notice: Option<String>,
}

impl Overdue {
    fn is_of(&self, workspace: &str, destination: &str) -> bool {
        self.workspace == workspace && self.destination == destination
    }
}

impl SavedHistory {
    /// Returns the status of one backup.
    #[must_use]
    pub fn status(&self, workspace: &str, destination: &str) -> Option<&BackupStatus> {
        self.standings.iter().find(|one| one.workspace == workspace && one.destination == destination)
    }

    /// Remembers that a backup is overdue. Does nothing, and returns false, if a notice said so within a day or if a
    /// backup was made since. A backup in the future shows only that the clock was wrong.
    fn add_overdue(&mut self, alert: &Overdue, now: &str) -> bool {
        let (workspace, destination) = (&alert.workspace, &alert.destination);
        let is_since = |backup: &String| (alert.told.as_str()..=now).contains(&backup.as_str());
        let is_over =
            self.status(workspace, destination).is_some_and(|status| status.last_backup.as_ref().is_some_and(is_since));
        let overdue = self.overdue.get_or_insert_default();
        let known = overdue.iter().position(|one| one.is_of(workspace, destination));
        let is_news = known.is_none_or(|index| is_a_day_between(&overdue[index].told, &alert.told));
        if is_over || !is_news {
            return false;
        }
        known.map(|index| overdue.remove(index));
        overdue.insert(0, alert.clone());
        overdue.truncate(STANDINGS_MAX);
        true
    }

    /// Returns the text of the file, which is at most this long. To this end, drops the warnings and left out items of
    /// runs, then their messages: first of the list of runs, the oldest first, then of the status of the backups. The
    /// rest fits by far.
    fn shortened(&mut self, bytes_max: u64) -> String {
        let text = json::to_string(self);
        let mut excess = text.len().saturating_sub(usize::try_from(bytes_max).unwrap_or(usize::MAX));
        if excess == 0 {
            return text;
        }
        let drop_details = |run: &mut Record| {
            run.warnings.clear();
            run.left_out = None;
        };
        for shorten in [drop_details, |run: &mut Record| run.message.clear()] {
            for run in self.all_records() {
                if excess == 0 {
                    break;
                }
                let bytes = json::to_string(run).len();
                shorten(run);
                excess = excess.saturating_sub(bytes - json::to_string(run).len());
            }
        }
        json::to_string(self)
    }

    /// Returns all runs in the order in which they may lose details.
    fn all_records(&mut self) -> Vec<&mut Record> {
        let (mut records, mut last) = (Vec::new(), Vec::new());
        records.extend(self.runs.iter_mut().rev());
        for one in self.standings.iter_mut().rev() {
            records.extend(one.last_success.iter_mut().chain(&mut one.last_failure));
            last.push(&mut one.last_run);
        }
        records.extend(last);
        records
    }

    /// Forgets that a failure was news, because no one got its notice: the next failure is news then. What is overdue
    /// is news again after a pause. Returns whether that changed anything.
    fn lose_news(&mut self, id: &str, now: SystemTime) -> bool {
        let mut has_changed = false;
        for one in &mut self.standings {
            has_changed |= one.failure_news.take_if(|news| news.run_id == id).is_some();
        }
        for one in self.overdue.iter_mut().flatten() {
            if one.notice.take_if(|notice| notice == id).is_some() {
                let told = now.checked_sub(NEWS_INTERVAL - LOST_NEWS_INTERVAL).unwrap_or(now);
                one.told = time::to_text(told);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Ends the status of the list of all workspaces, because Windmill listed them, and notes the backups of workspaces
    /// that it did not list. Returns whether that changed anything.
    fn apply_list(&mut self, unlisted: &[BackupName]) -> bool {
        let standings = self.standings.len();
        self.standings.retain(|one| one.workspace != ALL);
        let mut has_changed = self.standings.len() < standings;
        if let Some(overdue) = &mut self.overdue {
            overdue.retain(|one| one.workspace != ALL);
        }
        for one in &mut self.standings {
            let is_meant = unlisted.iter().any(|name| name.is_of(&one.workspace, &one.destination));
            if is_meant && one.unlisted != Some(true) {
                one.unlisted = Some(true);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Keeps the newest runs. Runs that count for no backup do not push out the others.
    fn forget_runs(&mut self) {
        let counts = |run: &Record| run.configured && !run.dry_run;
        let others = self.runs.iter().filter(|run| !counts(run)).count();
        let oldest = self.runs.iter().rposition(|run| others <= OTHER_RUNS_MAX || !counts(run));
        if self.runs.len() > RUNS_MAX
            && let Some(oldest) = oldest
        {
            self.runs.remove(oldest);
        }
        self.runs.truncate(RUNS_MAX);
    }

    fn add(&mut self, entry: &Entry) {
        self.runs.retain(|known| known.run_id != entry.record.run_id);
        self.runs.insert(0, entry.record.clone());
        self.forget_runs();
        let Some(destination) = &entry.destination else { return };
        if takes_a_backup(&entry.record)
            && let Some(overdue) = &mut self.overdue
        {
            overdue.retain(|one| !one.is_of(&entry.record.workspace, destination));
        }
        let place = |one: &BackupStatus| one.workspace == entry.record.workspace && one.destination == *destination;
        let known = self.standings.iter().position(place).map(|index| self.standings.remove(index));
        // The backup that ran last is the first entry, so that backups of former settings are dropped first.
        self.standings.insert(0, stand(known, entry, destination));
        self.standings.truncate(STANDINGS_MAX);
    }
}

/// Returns the status after one more run.
fn stand(known: Option<BackupStatus>, entry: &Entry, destination: &str) -> BackupStatus {
    let run = &entry.record;
    let mut status = known.unwrap_or_else(|| BackupStatus {
        workspace: run.workspace.clone(),
        destination: destination.to_owned(),
        last_run: run.clone(),
        last_success: None,
        token_user: None,
        last_backup: None,
        last_failure: None,
        consecutive_failures: 0,
        failing_since: None,
        failure_news: None,
        picture: Vec::new(),
        unlisted: None,
    });
    status.last_run = run.clone();
    status.unlisted = entry.unlisted;
    if takes_a_backup(run) {
        status.token_user.clone_from(&entry.token_user);
        status.last_backup = Some(run.ended.clone());
    } else if status.last_backup.is_none() {
        // An earlier version did not write `last_backup`.
        status.last_backup = status.last_success.as_ref().map(|run| run.ended.clone());
    }
    if run.success {
        status.last_success = Some(run.clone());
        status.consecutive_failures = 0;
        status.failing_since = None;
        status.failure_news = None;
    } else {
        if is_news(&status, run) {
            status.failure_news = Some(LastAlert { run_id: run.run_id.clone(), ended: run.ended.clone() });
        }
        status.last_failure = Some(run.clone());
        status.consecutive_failures += 1;
        status.failing_since.get_or_insert_with(|| run.ended.clone());
    }
    status.picture.push(Bar { success: run.success, duration_ms: run.duration_ms });
    let excess = status.picture.len().saturating_sub(PICTURE_RUNS_MAX);
    status.picture.drain(..excess);
    status
}

/// Whether a failure was not reported yet, or not within a day.
fn is_news(status: &BackupStatus, failure: &Record) -> bool {
    let (Some(told), Some(last)) = (&status.failure_news, &status.last_failure) else { return true };
    // Without the last list, which a long history drops, it is not known whether this one is another.
    let is_other_list = last.left_out.is_some() && last.left_out != failure.left_out;
    last.code != failure.code || is_other_list || is_a_day_between(&told.ended, &failure.ended)
}

/// Whether a day has passed, or almost. A `then` in the future was taken from a wrong clock, and counts as long ago.
fn is_a_day_between(then: &str, now: &str) -> bool {
    let times = time::from_text(now).zip(time::from_text(then));
    times.is_some_and(|(now, then)| now.duration_since(then).map_or(true, |time| time >= NEWS_INTERVAL))
}

/// Whether a run brought what Windmill holds to the remote, as far as possible.
fn takes_a_backup(run: &Record) -> bool {
    run.success || run.code == Code::Incomplete.as_str()
}

/// One run to remember.
struct Entry {
    record: Record,
    /// The name of the status for which it counts.
    destination: Option<String>,
    token_user: Option<TokenUser>,
    /// Whether a list of all workspaces after the run lacked its workspace.
    unlisted: Option<bool>,
}

/// Names the status of one backup.
#[derive(Clone, Debug, PartialEq)]
struct BackupName {
    workspace: String,
    destination: String,
}

impl BackupName {
    fn is_of(&self, workspace: &str, destination: &str) -> bool {
        self.workspace == workspace && self.destination == destination
    }
}

/// What this process knows of all runs on its data folder.
pub struct History {
    path: PathBuf,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    kept: SavedHistory,
    /// Runs that are only in memory, the oldest first.
    unsaved: Vec<Entry>,
    /// Overdue backups that are only in memory.
    unsaved_overdue: Vec<Overdue>,
    /// The backups that the last list of all workspaces lacked, if only memory shows that.
    unsaved_list: Option<Vec<BackupName>>,
    /// The notices that no one got, if only memory shows that.
    unsaved_losses: Vec<String>,
    /// The stamp of the file that `kept` was read from or written to.
    stamp: Option<Stamp>,
}

impl Memory {
    fn is_saved(&self) -> bool {
        self.unsaved.is_empty()
            && self.unsaved_overdue.is_empty()
            && self.unsaved_list.is_none()
            && self.unsaved_losses.is_empty()
    }
}

/// Shows whether a file was replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// The inode number; 0 on a file system without one.
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
    /// Returns the history in this folder. Nothing is read or created before it is needed.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("history.json"), memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // After a panic, a list can lack a run, but it is valid.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a run that ended now, in memory; [`History::save`] writes it to the file. Returns how the status of
    /// the backup changed, if the run counts for one.
    pub fn record(&self, about: About, result: &SyncResult) -> Option<Transition> {
        let record = Record::new(&about, result);
        let entry = Entry { record, destination: about.destination, token_user: about.token_user, unlisted: None };
        let mut memory = self.memory();
        self.look(&mut memory);
        let status = |kept: &SavedHistory| kept.status(&result.workspace, entry.destination.as_ref()?).cloned();
        let before = status(&memory.kept);
        let since = |kept: &SavedHistory| {
            let (workspace, destination) = (&result.workspace, entry.destination.as_ref()?);
            let known = kept.overdue.iter().flatten().find(|one| one.is_of(workspace, destination))?;
            Some(known.since.clone())
        };
        let overdue_since = since(&memory.kept).filter(|_| takes_a_backup(&entry.record));
        memory.kept.add(&entry);
        let turn = status(&memory.kept).map(|after| Transition { before, after, overdue_since });
        memory.unsaved.push(entry);
        if memory.unsaved.len() > RUNS_MAX {
            memory.unsaved.remove(0);
        }
        turn
    }

    /// Returns the user of the token that made the last backup of a workspace to a destination, if known.
    #[must_use]
    pub fn token_user(&self, workspace: &str, destination: &str) -> Option<TokenUser> {
        self.read(|kept| kept.status(workspace, destination).and_then(|known| known.token_user.clone()))
    }

    /// Remembers that a backup is overdue. Returns whether that is news.
    pub fn note_overdue(&self, alert: Overdue) -> bool {
        let mut memory = self.memory();
        self.look(&mut memory);
        let is_news = memory.kept.add_overdue(&alert, &alert.told);
        if is_news {
            memory.unsaved_overdue.retain(|one| !one.is_of(&alert.workspace, &alert.destination));
            memory.unsaved_overdue.push(alert);
        }
        is_news
    }

    /// Remembers that no one got the notice with this id: that of a run, or of an overdue backup.
    pub fn lose_news(&self, id: &str) {
        let mut memory = self.memory();
        self.look(&mut memory);
        if memory.kept.lose_news(id, SystemTime::now()) {
            memory.unsaved_overdue.retain(|alert| alert.notice.as_deref() != Some(id));
            memory.unsaved_losses.push(id.to_owned());
            // Those that cannot be saved must not pile up.
            memory.unsaved_losses.truncate(STANDINGS_MAX);
        }
    }

    /// Remembers that Windmill listed all workspaces. `is_unlisted` tells the backups that count no longer. Returns what
    /// this ended, if listing them had failed before.
    pub fn note_list(&self, is_unlisted: impl Fn(&BackupStatus) -> bool) -> Option<ListRecovery> {
        let mut memory = self.memory();
        self.look(&mut memory);
        let kept = &mut memory.kept;
        let recovery = kept.status(ALL, "").filter(|status| !status.last_run.success).map(|status| ListRecovery {
            failures: status.consecutive_failures,
            since: status.failing_since.clone().unwrap_or_else(|| status.last_run.ended.clone()),
        });
        let name =
            |one: &BackupStatus| BackupName { workspace: one.workspace.clone(), destination: one.destination.clone() };
        let unlisted: Vec<_> = kept.standings.iter().filter(|one| is_unlisted(one)).map(name).collect();
        if kept.apply_list(&unlisted) {
            // The runs before the list may be added to a newer file after it.
            for entry in &mut memory.unsaved {
                let Some(destination) = &entry.destination else { continue };
                let is_it = |name: &BackupName| name.is_of(&entry.record.workspace, destination);
                entry.unlisted = unlisted.iter().any(is_it).then_some(true);
                entry.destination.take_if(|_| entry.record.workspace == ALL);
            }
            memory.unsaved_list = Some(unlisted);
        }
        recovery
    }

    /// Reads the current history, including the runs of other processes.
    pub fn read<T>(&self, read: impl FnOnce(&SavedHistory) -> T) -> T {
        let mut memory = self.memory();
        self.look(&mut memory);
        read(&memory.kept)
    }

    /// Writes what is only in memory to the file. Waits for other writers, at most `patience`, and for the disk; other
    /// calls that read or record do not wait meanwhile. A failure is logged, and a later call tries again.
    pub fn save(&self, patience: Duration) {
        if self.memory().is_saved() {
            return;
        }
        if let Err(error) = self.write(patience) {
            log::warn!("cannot write the history of runs, will try again after the next one: {error}");
        }
    }

    fn write(&self, patience: Duration) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            files::create_folder(folder)?;
        }
        let _lock = self.lock(patience)?;
        let text = {
            let mut memory = self.memory();
            self.look(&mut memory);
            if memory.is_saved() {
                return Ok(());
            }
            memory.kept.shortened(FILE_BYTES_MAX)
        };
        // The runs in the file stay in `unsaved` until the next `look`.
        files::replace_file(&self.path, text.as_bytes())
    }

    /// Blocks all other writers, in this process and in others, until the lock is dropped.
    fn lock(&self, patience: Duration) -> io::Result<fs::File> {
        let path = self.path.with_extension("lock");
        let file = files::open_file(&path, false)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) if begun.elapsed() < patience => {
                    std::thread::sleep(LOCK_RETRY_INTERVAL);
                }
                Err(error) => return Err(files::at(&path, &error.into())),
            }
        }
    }

    /// Reads the file if it was replaced, and adds what is only in memory to it.
    fn look(&self, memory: &mut Memory) {
        let stamp = Stamp::of(&self.path);
        if stamp.is_none() || stamp == memory.stamp {
            return;
        }
        memory.stamp = stamp;
        match self.load() {
            Ok(mut kept) => {
                // The file may be our own: its runs are saved now, and must not count twice.
                memory.unsaved.retain(|entry| !kept.runs.iter().any(|run| run.run_id == entry.record.run_id));
                memory.unsaved_list.take_if(|unlisted| !kept.apply_list(unlisted));
                let now = SystemTime::now();
                let mut losses = std::mem::take(&mut memory.unsaved_losses);
                losses.retain(|id| kept.lose_news(id, now));
                for entry in &memory.unsaved {
                    kept.add(entry);
                }
                memory.unsaved_overdue.retain(|alert| kept.add_overdue(alert, &time::to_text(now)));
                memory.kept = kept;
            }
            Err(error) => log::warn!("the history of runs cannot be read and will be replaced: {error}"),
        }
    }

    fn load(&self) -> io::Result<SavedHistory> {
        let text = files::read_file(&self.path, FILE_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&text);
        json::from_str(&text).map_err(|_| files::at(&self.path, &io::Error::other("it is damaged")))
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max).rev().find(|index| text.is_char_boundary(*index)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// Returns the first warnings, as many as fit.
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

/// Returns the first items, as many as fit.
fn some_items_of(left_out: &[LeftOut]) -> Vec<LeftOut> {
    let mut kept = Vec::new();
    let mut bytes_left = LEFT_OUT_BYTES_MAX;
    for (index, LeftOut { item, reason }) in left_out.iter().enumerate() {
        let one = LeftOut { item: cut(item, MESSAGE_BYTES_MAX), reason: cut(reason, MESSAGE_BYTES_MAX) };
        let bytes = one.item.len() + one.reason.len();
        if bytes > bytes_left {
            let (item, reason) = (format!("{} more", left_out.len() - index), "not listed".to_owned());
            kept.push(LeftOut { item, reason });
            break;
        }
        bytes_left -= bytes;
        kept.push(one);
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
            left_out: Some(Vec::new()),
            items: None,
            started: "2026-11-22T18:00:00Z".to_owned(),
            ended: format!("2026-11-22T18:00:{id}Z"),
            duration_ms: 7,
        }
    }

    fn entry(record: Record) -> Entry {
        Entry { record, destination: None, token_user: None, unlisted: None }
    }

    fn after(runs: &[(&str, bool)]) -> BackupStatus {
        let stand = |known, (id, success): &(&str, bool)| Some(stand(known, &entry(record(id, *success)), "there"));
        runs.iter().fold(None, stand).expect("a run")
    }

    #[test]
    fn failures_are_counted_until_a_success() {
        let status = after(&[("01", true), ("02", false), ("03", false)]);
        assert_eq!((status.consecutive_failures, status.failing_since.as_deref()), (2, Some("2026-11-22T18:00:02Z")));
        assert_eq!(status.last_success.map(|run| run.run_id).as_deref(), Some("01"));
        let healed = after(&[("01", false), ("02", true)]);
        assert_eq!((healed.consecutive_failures, healed.failing_since), (0, None));
        assert_eq!(healed.last_failure.map(|run| run.run_id).as_deref(), Some("01"));
    }

    #[test]
    fn a_failure_is_news_when_it_begins_when_its_code_changes_and_once_a_day() {
        let failure =
            |code: &str, ended: &str| Record { code: code.to_owned(), ended: ended.to_owned(), ..record("01", false) };
        let mut status = None;
        let mut news = |run: Record| {
            let after = stand(status.take(), &entry(run), "there");
            let run = &after.last_run;
            let is_news = after.failure_news.as_ref().is_some_and(|news| news.ended == run.ended);
            status = Some(after);
            is_news
        };
        assert!(news(failure("timeout", "2026-11-22T18:00:00Z")));
        assert!(!news(failure("timeout", "2026-11-22T18:01:00Z")));
        assert!(news(failure("git_failed", "2026-11-22T18:02:00Z")));
        assert!(!news(failure("git_failed", "2026-11-23T17:01:59Z")));
        assert!(news(failure("git_failed", "2026-11-23T17:02:00Z")));
        assert!(!news(record("03", true)));
        assert!(news(failure("git_failed", "2026-11-23T18:03:00Z")), "it begins again");
        let incomplete = |item: &str, ended| {
            let left_out = vec![LeftOut { item: item.to_owned(), reason: String::new() }];
            Record { left_out: Some(left_out), ..failure("incomplete", ended) }
        };
        assert!(news(incomplete("script f/a", "2026-11-23T18:04:00Z")));
        assert!(!news(incomplete("script f/a", "2026-11-23T18:05:00Z")));
        assert!(news(incomplete("script f/b", "2026-11-23T18:06:00Z")), "the list changed");
        let unknown = Record { left_out: None, ..incomplete("script f/b", "2026-11-23T18:07:00Z") };
        assert!(news(unknown), "another list");
        assert!(!news(incomplete("script f/b", "2026-11-23T18:08:00Z")), "the last list was dropped");
        assert!(news(incomplete("script f/b", "2026-11-20T18:00:00Z")), "the clock was set back");
    }

    #[test]
    fn a_daily_failure_is_news_each_day() {
        let mut status = None;
        // A daily sync at 03:00 with a random delay of up to half a minute.
        for (day, second) in [(1, 20), (2, 5), (3, 25), (4, 11), (5, 2), (6, 29)] {
            let ended = format!("2026-11-{day:02}T03:00:{second:02}Z");
            let failure = Record { ended: ended.clone(), ..record("01", false) };
            let after = stand(status.take(), &entry(failure), "there");
            assert_eq!(after.failure_news.as_ref().map(|news| &news.ended), Some(&ended));
            status = Some(after);
        }
    }

    /// Returns the result of a run, and what else is known of it.
    fn ended(id: &str, workspace: &str, code: Code) -> (About, SyncResult) {
        let result = SyncResult {
            code,
            message: String::new(),
            run_id: id.to_owned(),
            workspace: workspace.to_owned(),
            branch: "main".to_owned(),
            commit: None,
            changed: Changed { added: 0, modified: 0, deleted: 0 },
            warnings: Vec::new(),
            left_out: Vec::new(),
            items: None,
            duration_ms: 7,
        };
        let token_user = Some(TokenUser { name: "ann".to_owned(), admin: true });
        let destination = Some(if workspace == ALL { "" } else { "there" }.to_owned());
        (About { configured: true, dry_run: false, verify: false, destination, token_user }, result)
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "WASI has no file locks")]
    fn a_history_that_is_too_long_loses_details_and_is_read_again() {
        let scratch = files::RunDir::for_test("long-history").expect("a folder");
        let history = History::new(scratch.path());
        for number in 0..STANDINGS_MAX {
            for code in [Code::Unchanged, Code::Incomplete] {
                let (about, mut result) = ended(&format!("{number}{}", code.as_str()), &format!("ws{number}"), code);
                result.message = "\"".repeat(MESSAGE_BYTES_MAX);
                result.warnings = vec!["\u{7f}".repeat(900); 9];
                result.left_out = (0..100)
                    .map(|n| LeftOut { item: format!("script f/ops/{n}"), reason: "\"quoted\"".repeat(10) })
                    .collect();
                history.record(about, &result);
            }
        }
        let (news, backup) =
            history.read(|kept| (kept.standings[7].failure_news.clone(), kept.standings[7].last_backup.clone()));
        history.save(Duration::from_secs(5));
        let bytes = fs::metadata(&history.path).expect("there").len();
        assert!((FILE_BYTES_MAX / 2..=FILE_BYTES_MAX).contains(&bytes), "{bytes} bytes");
        let again = History::new(scratch.path());
        again.read(|kept| {
            assert_eq!((kept.runs.len(), kept.standings.len()), (RUNS_MAX, STANDINGS_MAX));
            assert_eq!((&kept.standings[7].failure_news, &kept.standings[7].last_backup), (&news, &backup));
            assert!(news.is_some() && backup.is_some());
            assert_eq!(kept.runs[0].warnings.len(), 0);
        });
        assert!(again.token_user("ws1", "there").is_some_and(|user| user.admin));
        // As much as possible stays.
        let mut kept = <SavedHistory as Default>::default();
        for id in ["01", "02", "03"] {
            kept.add(&entry(Record { warnings: vec!["w".repeat(1_000)], ..record(id, true) }));
        }
        let text = kept.shortened(2_500);
        assert_eq!(kept.runs.iter().map(|run| run.warnings.len()).collect::<Vec<_>>(), [1, 0, 0]);
        assert!(text.len() <= 2_500 && text == json::to_string(&kept), "{text}");
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "WASI has no file locks")]
    fn a_failure_whose_notice_was_lost_is_news_again_also_in_another_process() {
        let scratch = files::RunDir::for_test("lost-news").expect("a folder");
        let history = History::new(scratch.path());
        let fail = |history: &History, id: &str| {
            let (about, result) = ended(id, "shop", Code::Timeout);
            let after = history.record(about, &result).expect("a turn").after;
            after.failure_news.is_some_and(|news| news.run_id == id)
        };
        assert!(fail(&history, "01"));
        history.save(Duration::from_secs(5));
        assert!(!fail(&history, "02"));
        history.lose_news("02");
        assert!(!fail(&history, "03"), "run 02 was no news");
        history.lose_news("01");
        history.save(Duration::from_secs(5));
        let again = History::new(scratch.path());
        assert!(fail(&again, "04"));
        assert!(!fail(&again, "05"));
        history.read(|_| ());
        assert!(history.memory().is_saved());
    }

    #[test]
    fn an_overdue_backup_whose_notice_was_lost_is_news_again_after_a_pause() {
        let now = SystemTime::now();
        let at = |seconds: u64| time::to_text(now + Duration::from_secs(seconds));
        let alert = |seconds: u64| Overdue {
            workspace: "shop".to_owned(),
            destination: "there".to_owned(),
            since: at(0),
            told: at(seconds),
            notice: Some(format!("notice {seconds}")),
        };
        let mut kept = <SavedHistory as Default>::default();
        assert!(kept.add_overdue(&alert(0), &at(0)));
        assert!(kept.lose_news("notice 0", now));
        assert!(!kept.lose_news("notice 0", now), "it is lost once");
        assert!(!kept.add_overdue(&alert(500), &at(500)));
        assert!(kept.add_overdue(&alert(601), &at(601)));
        assert!(!kept.add_overdue(&alert(1300), &at(1300)));
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "WASI has no file locks")]
    fn a_list_of_all_workspaces_ends_its_failure_and_marks_those_that_it_lacks() {
        let scratch = files::RunDir::for_test("list").expect("a folder");
        let history = History::new(scratch.path());
        let record = |id: &str, workspace: &str, code: Code| {
            let (about, result) = ended(id, workspace, code);
            history.record(about, &result);
        };
        let look = |history: &History| {
            history.read(|kept| {
                let one = |workspace| kept.status(workspace, "there").and_then(|one| one.unlisted);
                (kept.status(ALL, "").is_some(), one("shop"), one("old"))
            })
        };
        let list = || history.note_list(|one| one.workspace == "old");
        record("01", "shop", Code::Unchanged);
        record("02", "old", Code::Unchanged);
        record("03", ALL, Code::Timeout);
        record("04", ALL, Code::Timeout);
        assert_eq!(list().map(|recovery| recovery.failures), Some(2));
        assert_eq!(list(), None);
        assert_eq!(look(&history), (false, None, Some(true)));
        // Another process replaces the file before this one saves.
        let other = History::new(scratch.path());
        other.record(ended("05", "lab", Code::Unchanged).0, &ended("05", "lab", Code::Unchanged).1);
        other.save(Duration::from_secs(5));
        assert_eq!(look(&history), (false, None, Some(true)));
        history.save(Duration::from_secs(5));
        assert_eq!(look(&History::new(scratch.path())), (false, None, Some(true)));
        record("06", "old", Code::Unchanged);
        record("07", ALL, Code::Timeout);
        assert_eq!(look(&history), (true, None, None));
        history.save(Duration::from_secs(5));
        assert_eq!(look(&history), (true, None, None));
        assert!(history.memory().is_saved());
    }

    #[test]
    fn a_list_of_left_out_items_is_news_when_it_changes_and_counts_as_a_backup() {
        let run = |item: &str, ended: &str| {
            let left_out = vec![LeftOut { item: item.to_owned(), reason: "r".to_owned() }];
            let ended = format!("2026-11-22T18:00:{ended}Z");
            let code = "incomplete".to_owned();
            entry(Record { code, left_out: Some(left_out), ended, ..record("01", false) })
        };
        let mut status = stand(None, &run("f/a", "01"), "there");
        for (item, ended, is_news) in [("f/a", "02", false), ("f/b", "03", true), ("f/b", "04", false)] {
            status = stand(Some(status), &run(item, ended), "there");
            let ended = format!("2026-11-22T18:00:{ended}Z");
            assert_eq!(status.failure_news.as_ref().is_some_and(|news| news.ended == ended), is_news, "{ended}");
            assert_eq!(status.last_backup.as_ref(), Some(&ended));
        }
        assert_eq!((status.consecutive_failures, status.last_success), (4, None));
    }

    #[test]
    fn what_is_overdue_is_news_once_a_day_until_a_backup_is_made() {
        let mut kept = <SavedHistory as Default>::default();
        let alert = |told: &str| Overdue {
            workspace: "shop".to_owned(),
            destination: "there".to_owned(),
            since: "2026-11-22T17:00:00Z".to_owned(),
            told: told.to_owned(),
            notice: None,
        };
        let add = |kept: &mut SavedHistory, told: &str, now: &str| kept.add_overdue(&alert(told), now);
        let at_once = |kept: &mut SavedHistory, told: &str| add(kept, told, told);
        assert!(at_once(&mut kept, "2026-11-22T17:30:00Z"));
        assert!(!at_once(&mut kept, "2026-11-23T16:29:59Z"));
        assert!(at_once(&mut kept, "2026-11-23T16:30:00Z"));
        let of = |success| Entry { destination: Some("there".to_owned()), ..entry(record("01", success)) };
        kept.add(&of(false));
        assert_eq!(kept.overdue.as_ref().map(Vec::len), Some(1));
        kept.add(&of(true));
        assert_eq!(kept.overdue.as_ref().map(Vec::len), Some(0));
        let (told, later) = ("2026-11-22T17:59:59Z", "2026-11-22T18:30:00Z");
        assert!(!add(&mut kept, told, later), "it was said before the backup");
        assert!(at_once(&mut kept, told), "the backup is in the future, since the clock was wrong");
    }

    #[test]
    fn a_run_that_was_read_back_is_there_once() {
        let mut kept = <SavedHistory as Default>::default();
        let entry = entry(record("01", true));
        kept.add(&entry);
        kept.add(&entry);
        assert_eq!((kept.runs.len(), kept.standings.len()), (1, 0));
    }

    #[test]
    fn what_was_written_is_saved_when_it_is_seen_and_counts_once() {
        let scratch = files::RunDir::for_test("history").expect("a folder");
        let history = History::new(scratch.path());
        let failure = |id: &str| SyncResult {
            code: Code::Timeout,
            message: String::new(),
            run_id: id.to_owned(),
            workspace: "shop".to_owned(),
            branch: "main".to_owned(),
            commit: None,
            changed: Changed { added: 0, modified: 0, deleted: 0 },
            warnings: Vec::new(),
            left_out: Vec::new(),
            items: None,
            duration_ms: 7,
        };
        let record = |id| {
            let about = About {
                configured: true,
                dry_run: false,
                verify: false,
                destination: Some("there".to_owned()),
                token_user: None,
            };
            history.record(about, &failure(id)).expect("a turn").after.consecutive_failures
        };
        assert_eq!(record("01"), 1);
        // This does what `write` does. The next run then looks at the file.
        let text = history.read(json::to_string);
        files::replace_file(&history.path, text.as_bytes()).expect("written");
        assert_eq!(record("02"), 2);
        let unsaved: Vec<String> = history.memory().unsaved.iter().map(|entry| entry.record.run_id.clone()).collect();
        assert_eq!(unsaved, ["02"]);
        assert_eq!(history.read(|kept| kept.runs.len()), 2);
    }

    #[test]
    fn runs_that_count_for_no_backup_do_not_push_out_the_others() {
        let mut kept = SavedHistory { runs: Vec::new(), standings: Vec::new(), overdue: None };
        let mut add = |id: usize, dry_run| {
            kept.add(&entry(Record { dry_run, ..record(&format!("{id}"), true) }));
            (kept.runs.len(), kept.runs.iter().filter(|run| !run.dry_run).count())
        };
        for id in 0..30 {
            add(id, false);
        }
        let last = (30..130).map(|id| add(id, true)).last();
        assert_eq!(last, Some((50, 25)), "half of them");
        let last = (130..230).map(|id| add(id, false)).last();
        assert_eq!(last, Some((50, 50)));
    }

    #[test]
    fn the_last_success_says_whose_token_it_had() {
        let user = |name: &str, admin| Some(TokenUser { name: name.to_owned(), admin });
        let after = |known, success, token_user| {
            stand(
                known,
                &Entry { record: record("01", success), destination: None, token_user, unlisted: None },
                "there",
            )
        };
        let status = after(None, true, user("ann", true));
        let status = after(Some(status), false, user("bob", false));
        assert_eq!(status.token_user, user("ann", true));
        let text = json::to_string(&status);
        assert_eq!(json::from_str::<BackupStatus>(&text).expect("read back").token_user, status.token_user);
        let old = text.replace(r#","token_user":{"name":"ann","admin":true}"#, "");
        assert_ne!(old, text);
        assert_eq!(json::from_str::<BackupStatus>(&old).expect("of a version before").token_user, None);
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
