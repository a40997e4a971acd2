//! The history: the last runs and the status of each backup, in one file that all processes on a data folder share.
//!
//! A run is in memory at once, and in the file after [`History::save`]. If the file cannot be read or written, the runs
//! of earlier processes are lost, but no sync fails.

use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use miniserde::{Deserialize, Serialize, json};

use crate::model::{Changed, Code, LeftOut, SyncResult, TokenUser, run_result};
use crate::util::{files, lock, shorten, time, wait_while};

/// Stands for the list of all workspaces, in place of a workspace's name.
pub const ALL: &str = "*";

/// The most runs that are kept, over all workspaces.
const RUNS_MAX: usize = 50;
/// The most runs of these that count for no backup (dry runs, and runs with other settings), if there is no room for
/// all. Anyone may request dry runs.
const OTHER_RUNS_MAX: usize = 25;
/// The most backups and verifications with a status. Those that did not run for the longest time are dropped first:
/// usually, they belong to former settings.
const STATUSES_MAX: usize = 128;
/// The most runs in the chart of one backup.
const PICTURE_RUNS_MAX: usize = 40;
/// A continuing failure is reported again after this time: once a day, also if a daily run ends a bit earlier than the
/// day before.
const ALERT_INTERVAL: Duration = Duration::from_secs(23 * 3_600);
/// An overdue backup is reported again after this time if its notice was lost.
const LOST_ALERT_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The most bytes of a message. The longest expected messages list some tens of paths.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// The most bytes of a message if the file would be too long.
const SHORT_MESSAGE_BYTES_MAX: usize = 500;
/// The most bytes of all warnings of a run, and of all its left out items.
const LIST_BYTES_MAX: usize = 8 << 10;
/// The most changes that wait to be saved. They accumulate only if the file cannot be written.
const UNSAVED_MAX: usize = 128;
/// The largest size of the file. A longer history loses the details of old runs when it is written, so a larger file is
/// not a history.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One ended run, as `/status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The id of the run.
    pub run_id: String,
    /// The workspace.
    pub workspace: String,
    /// Whether it ran with the configured settings. Other runs count for no backup's status.
    pub configured: bool,
    /// Whether it was a dry run. Such a run does not count for the status of a backup.
    pub dry_run: bool,
    /// Whether it was a verification. It does not count for the backup's last success.
    pub verify: bool,
    /// Whether it succeeded.
    pub success: bool,
    /// The result code.
    pub code: String,
    /// What was tried, on what, and how it ended. A very long text is shortened.
    pub message: String,
    /// The branch.
    pub branch: String,
    /// The commit that the branch held then, if it is known.
    pub commit: Option<String>,
    /// What the commit changed.
    pub changed: Changed,
    /// What a user should know although it is not a failure. The last entry may be the number of further ones.
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
    /// Returns the record of a run with the configured settings that ended now. Long texts are shortened.
    pub fn new(result: &SyncResult) -> Self {
        let now = SystemTime::now();
        let started = now.checked_sub(Duration::from_millis(result.duration_ms)).unwrap_or(now);
        Self {
            run_id: result.run_id.clone(),
            workspace: result.workspace.clone(),
            configured: true,
            dry_run: false,
            verify: false,
            success: result.code.is_success(),
            code: result.code.as_str().to_owned(),
            message: shorten(&result.message, MESSAGE_BYTES_MAX),
            branch: result.branch.clone(),
            commit: result.commit.clone(),
            changed: result.changed,
            warnings: run_result::first_warnings(
                result.warnings.iter().map(|warning| shorten(warning, MESSAGE_BYTES_MAX)).collect(),
                LIST_BYTES_MAX,
            ),
            left_out: Some(run_result::keep_first(
                result.left_out.clone(),
                LIST_BYTES_MAX,
                |left_out| left_out.item.len() + left_out.reason.len(),
                LeftOut::more,
            )),
            items: result.items,
            started: time::to_text(started),
            ended: time::to_text(now),
            duration_ms: result.duration_ms,
        }
    }

    /// Returns when it ended.
    pub fn ended_at(&self) -> Option<SystemTime> {
        time::from_text(&self.ended)
    }

    /// Whether the run backed up the workspace, with or without left out items.
    fn is_backup(&self) -> bool {
        self.success || self.code == Code::Incomplete.as_str()
    }
}

/// The status of the backup of one workspace to one place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// The workspace.
    pub workspace: String,
    /// The name of its status; see [`SyncRequest::status_key`](crate::request::SyncRequest::status_key).
    pub destination: String,
    /// The last run; `None` if there is only a notice that the backup is overdue.
    pub last_run: Option<Record>,
    /// The last run that succeeded.
    pub last_success: Option<Record>,
    /// The user of the token that made the last backup (see `last_backup`); `None` if not known.
    pub token_user: Option<TokenUser>,
    /// When the last run that made a backup ended: a success, or a run that left items out.
    pub last_backup: Option<String>,
    /// The last run that failed.
    pub last_failure: Option<Record>,
    /// The number of failures since the last success.
    pub consecutive_failures: u64,
    /// When the first of these failures ended, UTC.
    pub failing_since: Option<String>,
    /// The last failure that was reported: the first one, one with another code or other left out items, or one that
    /// ended a day after the last report.
    #[serde(rename = "failure_news")]
    pub last_alert: Option<LastAlert>,
    /// The last runs, the oldest first.
    pub picture: Vec<Bar>,
    /// The last notice that the backup is overdue. A run that makes a backup removes it.
    pub overdue: Option<OverdueAlert>,
}

/// A failure that was reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastAlert {
    /// The id of the failed run.
    pub run_id: String,
    /// When it ended, UTC.
    pub ended: String,
}

/// One run in the chart of a [`BackupStatus`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Whether it succeeded.
    pub success: bool,
    /// How long it took.
    pub duration_ms: u64,
}

/// A backup that was not made for longer than `EXPECT_SYNC_EVERY`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverdueAlert {
    /// When it became overdue, UTC.
    pub since: String,
    /// When the last notice about this was sent, UTC.
    #[serde(rename = "told")]
    pub sent: String,
}

/// The workspaces that Windmill listed for the configured token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceList {
    /// The source and the destination of the backups, as settings that do not depend on the workspace: services with
    /// other settings may use the same history.
    pub place: String,
    /// The workspaces that are backed up.
    pub workspaces: Vec<String>,
    /// When Windmill listed them, UTC.
    pub time: String,
}

/// The whole history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedHistory {
    /// The last runs, the newest first.
    pub runs: Vec<Record>,
    /// One entry for each backup that ran with the settings of its time.
    #[serde(rename = "standings")]
    pub statuses: Vec<BackupStatus>,
    /// What Windmill listed last, if the settings are for all workspaces. An earlier version did not write this.
    pub list: Option<WorkspaceList>,
}

/// A change of the history, which returns whether it changed anything.
type Change = Box<dyn Fn(&mut SavedHistory) -> bool + Send>;

impl SavedHistory {
    /// Returns the status of one backup. It is empty if there was no run.
    pub fn status(&self, workspace: &str, destination: &str) -> BackupStatus {
        self.statuses.iter().find(|status| status.is_of(workspace, destination)).cloned().unwrap_or_default()
    }

    /// Returns the status of one backup, to change it. It becomes the first entry, so that backups of former settings
    /// are dropped first.
    fn status_mut(&mut self, workspace: &str, destination: &str) -> &mut BackupStatus {
        let known = self.statuses.extract_if(.., |status| status.is_of(workspace, destination)).next();
        let (workspace, destination) = (workspace.to_owned(), destination.to_owned());
        self.statuses.insert(0, known.unwrap_or_else(|| BackupStatus { workspace, destination, ..Default::default() }));
        self.statuses.truncate(STATUSES_MAX);
        &mut self.statuses[0]
    }

    /// Returns the text of the file. If it is too long, all runs lose their warnings, their left out items and the rest
    /// of a long message. The rest is far below the limit.
    fn file_text(&mut self) -> String {
        let text = json::to_string(self);
        if text.len() as u64 <= FILE_BYTES_MAX {
            return text;
        }
        let of_statuses = self.statuses.iter_mut().flat_map(|status| {
            [&mut status.last_run, &mut status.last_success, &mut status.last_failure].into_iter().flatten()
        });
        for run in self.runs.iter_mut().chain(of_statuses) {
            run.warnings.clear();
            run.left_out = None;
            run.message = shorten(&run.message, SHORT_MESSAGE_BYTES_MAX);
        }
        json::to_string(self)
    }

    /// Adds a run, unless the history has it. Returns whether it was added.
    fn add(&mut self, run: &Record, destination: Option<&str>, token_user: Option<&TokenUser>) -> bool {
        if self.runs.iter().any(|known| known.run_id == run.run_id) {
            return false;
        }
        self.runs.insert(0, run.clone());
        // Runs that count for no backup do not displace the others.
        while self.runs.len() > RUNS_MAX {
            let is_other = |run: &Record| !run.configured || run.dry_run;
            let has_many = self.runs.iter().filter(|run| is_other(run)).count() > OTHER_RUNS_MAX;
            let oldest = self.runs.iter().rposition(|run| !has_many || is_other(run));
            self.runs.remove(oldest.unwrap_or_default());
        }
        if let Some(destination) = destination {
            self.status_mut(&run.workspace, destination).add(run, token_user);
        }
        true
    }
}

impl BackupStatus {
    fn is_of(&self, workspace: &str, destination: &str) -> bool {
        self.workspace == workspace && self.destination == destination
    }

    /// Adds a run.
    pub(super) fn add(&mut self, run: &Record, token_user: Option<&TokenUser>) {
        if run.is_backup() {
            self.token_user = token_user.cloned();
            self.last_backup = Some(run.ended.clone());
            self.overdue = None;
        }
        if run.success {
            self.last_success = Some(run.clone());
            self.consecutive_failures = 0;
            self.failing_since = None;
            self.last_alert = None;
        } else {
            if self.is_to_report(run) {
                self.last_alert = Some(LastAlert { run_id: run.run_id.clone(), ended: run.ended.clone() });
            }
            self.last_failure = Some(run.clone());
            self.consecutive_failures += 1;
            self.failing_since.get_or_insert_with(|| run.ended.clone());
        }
        self.last_run = Some(run.clone());
        self.picture.push(Bar { success: run.success, duration_ms: run.duration_ms });
        let excess = self.picture.len().saturating_sub(PICTURE_RUNS_MAX);
        self.picture.drain(..excess);
    }

    /// Whether a failure was not reported yet, or not within a day.
    fn is_to_report(&self, failure: &Record) -> bool {
        let (Some(reported), Some(last)) = (&self.last_alert, &self.last_failure) else { return true };
        // A long history drops the last list. Then it is not known whether this list is different.
        let is_other_list = last.left_out.is_some() && last.left_out != failure.left_out;
        last.code != failure.code || is_other_list || is_a_day_between(&reported.ended, &failure.ended)
    }
}

/// Whether a day, or almost a day, has passed. A `then` in the future is from a wrong clock, and counts as long ago.
fn is_a_day_between(then: &str, now: &str) -> bool {
    let times = time::from_text(now).zip(time::from_text(then));
    times.is_some_and(|(now, then)| now.duration_since(then).map_or(true, |time| time >= ALERT_INTERVAL))
}

/// The history as this process knows it.
pub struct History {
    path: PathBuf,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    saved: SavedHistory,
    /// The changes that are only in memory, in their order. If another process replaces the file, they are applied
    /// again.
    unsaved: Vec<Change>,
    /// The stamp of the file that `saved` was read from or written to.
    stamp: Option<Stamp>,
}

/// Identifies one version of a file: modification time, size and inode number. The inode number is 0 on WASI.
type Stamp = (SystemTime, u64, u64);

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some((metadata.modified().ok()?, metadata.len(), inode))
}

impl History {
    /// Returns the history in this folder. Files are read and created only when they are needed.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("history.json"), memory: Mutex::default() }
    }

    /// Returns the current history, including the runs of other processes: reads the file if it was replaced, and
    /// applies the unsaved changes again.
    fn current(&self) -> MutexGuard<'_, Memory> {
        let mut memory = lock(&self.memory);
        let stamp = stamp_of(&self.path);
        if stamp.is_none() || stamp == memory.stamp {
            return memory;
        }
        memory.stamp = stamp;
        let damaged = |_| files::at(&self.path, &io::Error::other("it is damaged"));
        let text = files::read_file(&self.path, FILE_BYTES_MAX);
        match text.and_then(|text| json::from_str(&String::from_utf8_lossy(&text)).map_err(damaged)) {
            Ok(mut saved) => {
                memory.unsaved.retain(|change| change(&mut saved));
                memory.saved = saved;
            }
            Err(error) => log::warn!("the history of runs cannot be read and will be replaced: {error}"),
        }
        memory
    }

    /// Records a run in memory; [`History::save`] writes it to the file. `destination` is the
    /// [`SyncRequest::status_key`](crate::request::SyncRequest::status_key) of the status that the run changes, or
    /// `None` if it changes none. Returns this status before and after the run.
    pub fn record(
        &self,
        record: Record,
        destination: Option<String>,
        token_user: Option<TokenUser>,
    ) -> Option<[BackupStatus; 2]> {
        let mut memory = self.current();
        let (workspace, key) = (record.workspace.clone(), destination.clone());
        let status = |saved: &SavedHistory| Some(saved.status(&workspace, key.as_ref()?));
        let before = status(&memory.saved);
        memory.change(move |saved| saved.add(&record, destination.as_deref(), token_user.as_ref()));
        Some([before?, status(&memory.saved)?])
    }

    /// Returns the user of the token that made the last backup of a workspace to a destination, if known.
    pub fn token_user(&self, workspace: &str, destination: &str) -> Option<TokenUser> {
        self.read(|saved| saved.status(workspace, destination).token_user)
    }

    /// Records a notice that a backup is overdue. Does nothing, and returns false, if there was one within a day.
    pub fn note_overdue(&self, workspace: &str, destination: String, alert: OverdueAlert) -> bool {
        let workspace = workspace.to_owned();
        self.current().change(move |saved| {
            let status = saved.status_mut(&workspace, &destination);
            let is_new = status.overdue.as_ref().is_none_or(|known| is_a_day_between(&known.sent, &alert.sent));
            if is_new {
                status.overdue = Some(alert.clone());
            }
            is_new
        })
    }

    /// Removes the record that this failure was reported, because its notice was lost. The next failure is then
    /// reported. An overdue backup is reported again after `LOST_ALERT_INTERVAL`.
    pub fn forget_alert(&self, result: &SyncResult) {
        let (run_id, workspace) = (result.run_id.clone(), result.workspace.clone());
        let is_overdue = result.code == Code::Overdue;
        let now = SystemTime::now();
        let sent = time::to_text(now.checked_sub(ALERT_INTERVAL - LOST_ALERT_INTERVAL).unwrap_or(now));
        self.current().change(move |saved| {
            for status in &mut saved.statuses {
                status.last_alert.take_if(|alert| alert.run_id == run_id);
                if let Some(alert) = status.overdue.as_mut().filter(|_| is_overdue && status.workspace == workspace) {
                    alert.sent.clone_from(&sent);
                }
            }
            true
        });
    }

    /// Records that Windmill listed all workspaces. If listing them had failed before, returns the status of that.
    pub fn note_list(&self, list: WorkspaceList) -> Option<BackupStatus> {
        let mut memory = self.current();
        let before = memory.saved.status(ALL, "");
        memory.change(move |saved| {
            saved.statuses.retain(|status| status.workspace != ALL);
            saved.list = Some(list.clone());
            true
        });
        Some(before).filter(|before| before.failing_since.is_some())
    }

    /// Reads the current history.
    pub fn read<T>(&self, read: impl FnOnce(&SavedHistory) -> T) -> T {
        read(&self.current().saved)
    }

    /// Writes the unsaved changes to the file. Waits for other writers, at most `patience`, and for the disk; other
    /// calls that read or record do not wait meanwhile. A failure is logged, and a later call tries again.
    pub fn save(&self, patience: Duration) {
        if !lock(&self.memory).unsaved.is_empty()
            && let Err(error) = self.write(patience)
        {
            log::warn!("cannot write the history of runs, will try again after the next one: {error}");
        }
    }

    fn write(&self, patience: Duration) -> io::Result<()> {
        let _lock = self.lock(patience)?;
        let mut memory = self.current();
        // If the file is read again before this ends, it has these changes already.
        let (text, saving) = (memory.saved.file_text(), mem::take(&mut memory.unsaved));
        drop(memory);
        let written = files::replace_file(&self.path, text.as_bytes());
        let mut memory = lock(&self.memory);
        match written {
            Ok(()) => memory.stamp = stamp_of(&self.path),
            Err(_) => drop(memory.unsaved.splice(..0, saving)),
        }
        written
    }

    /// Blocks all other writers, in this process and in others, until the lock is dropped.
    fn lock(&self, patience: Duration) -> io::Result<fs::File> {
        let path = self.path.with_extension("lock");
        self.path.parent().map_or(Ok(()), files::create_folder)?;
        let file = files::open_file(&path, false)?;
        let mut locked = Ok(());
        wait_while(patience, || {
            locked = file.try_lock();
            matches!(locked, Err(fs::TryLockError::WouldBlock))
        });
        locked.map_err(|error| files::at(&path, &error.into()))?;
        Ok(file)
    }
}

impl Memory {
    /// Applies a change. Returns whether it changed anything.
    fn change(&mut self, change: impl Fn(&mut SavedHistory) -> bool + Send + 'static) -> bool {
        let has_changed = change(&mut self.saved);
        if has_changed {
            self.unsaved.push(Box::new(change));
            let excess = self.unsaved.len().saturating_sub(UNSAVED_MAX);
            self.unsaved.drain(..excess);
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Record {
        pub(in crate::service) fn for_test(id: &str, success: bool) -> Self {
            Self {
                run_id: id.to_owned(),
                workspace: "shop".to_owned(),
                configured: true,
                success,
                code: if success { "pushed" } else { "timeout" }.to_owned(),
                left_out: Some(Vec::new()),
                ended: format!("2026-11-22T18:00:{id}Z"),
                ..Default::default()
            }
        }
    }

    fn record(id: &str, success: bool) -> Record {
        Record::for_test(id, success)
    }

    fn no_status() -> BackupStatus {
        Default::default()
    }

    fn after(runs: &[(&str, bool)]) -> BackupStatus {
        let mut status = no_status();
        runs.iter().for_each(|(id, success)| status.add(&record(id, *success), None));
        status
    }

    #[test]
    fn a_failure_whose_notice_was_lost_is_reported_again() {
        let history = History::new(Path::new("/none"));
        let is_reported = |id: &str| {
            let result =
                SyncResult::bare(Code::Timeout, String::new(), id.to_owned(), "shop".to_owned(), "main".to_owned());
            let recorded = history.record(Record::new(&result), Some("d".to_owned()), None);
            let [_, after] = recorded.expect("it counts for a backup");
            (after.last_alert.is_some_and(|alert| alert.run_id == id), result)
        };
        let (first, lost) = is_reported("1");
        assert!(first && !is_reported("2").0);
        history.forget_alert(&lost);
        assert!(is_reported("3").0 && !is_reported("4").0);
        history.forget_alert(&lost);
        assert!(!is_reported("5").0, "a later failure was reported");
        let alert = OverdueAlert { since: String::new(), sent: time::to_text(SystemTime::now()) };
        assert!(history.note_overdue("shop", "d".to_owned(), alert));
        let overdue = SyncResult { code: Code::Overdue, ..lost };
        history.forget_alert(&overdue);
        let alert = history.read(|saved| saved.status("shop", "d").overdue).expect("overdue");
        let soon = SystemTime::now() + LOST_ALERT_INTERVAL;
        assert!(!is_a_day_between(&alert.sent, &time::to_text(soon - Duration::from_secs(60))));
        assert!(is_a_day_between(&alert.sent, &time::to_text(soon + Duration::from_secs(2))));
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
    fn a_failure_is_reported_when_it_begins_when_its_code_changes_and_once_a_day() {
        let failure =
            |code: &str, ended: &str| Record { code: code.to_owned(), ended: ended.to_owned(), ..record("01", false) };
        let mut status = no_status();
        let mut is_reported = |run: Record| {
            status.add(&run, None);
            status.last_alert.as_ref().is_some_and(|alert| alert.ended == run.ended)
        };
        assert!(is_reported(failure("timeout", "2026-11-22T18:00:00Z")));
        assert!(!is_reported(failure("timeout", "2026-11-22T18:01:00Z")));
        assert!(is_reported(failure("git_failed", "2026-11-22T18:02:00Z")));
        assert!(!is_reported(failure("git_failed", "2026-11-23T17:01:59Z")));
        assert!(is_reported(failure("git_failed", "2026-11-23T17:02:00Z")));
        assert!(!is_reported(record("03", true)));
        assert!(is_reported(failure("git_failed", "2026-11-23T18:03:00Z")), "it begins again");
        let incomplete = |item: &str, ended| {
            let left_out = vec![LeftOut { item: item.to_owned(), reason: String::new() }];
            Record { left_out: Some(left_out), ..failure("incomplete", ended) }
        };
        assert!(is_reported(incomplete("script f/a", "2026-11-23T18:04:00Z")));
        assert!(!is_reported(incomplete("script f/a", "2026-11-23T18:05:00Z")));
        assert!(is_reported(incomplete("script f/b", "2026-11-23T18:06:00Z")), "the list changed");
        let unknown = Record { left_out: None, ..incomplete("script f/b", "2026-11-23T18:07:00Z") };
        assert!(is_reported(unknown), "another list");
        assert!(!is_reported(incomplete("script f/b", "2026-11-23T18:08:00Z")), "the last list was dropped");
        assert!(is_reported(incomplete("script f/b", "2026-11-20T18:00:00Z")), "the clock was set back");
    }

    #[test]
    fn a_daily_failure_is_reported_each_day() {
        let mut status = no_status();
        // A daily sync at 03:00 with a random delay of up to half a minute.
        for (day, second) in [(1, 20), (2, 5), (3, 25), (4, 11), (5, 2), (6, 29)] {
            let ended = format!("2026-11-{day:02}T03:00:{second:02}Z");
            let failure = Record { ended: ended.clone(), ..record("01", false) };
            status.add(&failure, None);
            assert_eq!(status.last_alert.as_ref().map(|alert| &alert.ended), Some(&ended));
        }
    }

    fn ended(id: &str, workspace: &str, code: Code) -> SyncResult {
        SyncResult::bare(code, String::new(), id.to_owned(), workspace.to_owned(), "main".to_owned())
    }

    /// Records a result of the configured backup, and returns its status.
    fn add(history: &History, result: &SyncResult) -> BackupStatus {
        let destination = if result.workspace == ALL { "" } else { "there" };
        let token_user = Some(TokenUser { name: "ann".to_owned(), admin: true });
        let [_, after] =
            history.record(Record::new(result), Some(destination.to_owned()), token_user).expect("it counts");
        after
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "WASI has no file locks")]
    fn a_history_that_is_too_long_loses_details_and_is_read_again() {
        let scratch = files::RunDir::for_test("long-history").expect("a folder");
        let history = History::new(scratch.path());
        for number in 0..STATUSES_MAX {
            for code in [Code::Unchanged, Code::Incomplete] {
                let mut result = ended(&format!("{number}{}", code.as_str()), &format!("ws{number}"), code);
                result.message = "\"".repeat(MESSAGE_BYTES_MAX);
                result.warnings = vec!["\u{7f}".repeat(900); 9];
                result.left_out = (0..100)
                    .map(|n| LeftOut { item: format!("script f/ops/{n}"), reason: "\"quoted\"".repeat(10) })
                    .collect();
                add(&history, &result);
            }
        }
        let (alert, backup) =
            history.read(|saved| (saved.statuses[7].last_alert.clone(), saved.statuses[7].last_backup.clone()));
        history.save(Duration::from_secs(5));
        let bytes = fs::metadata(&history.path).expect("there").len();
        assert!(bytes <= FILE_BYTES_MAX, "{bytes} bytes");
        let again = History::new(scratch.path());
        again.read(|saved| {
            assert_eq!((saved.runs.len(), saved.statuses.len()), (RUNS_MAX, STATUSES_MAX));
            assert_eq!((&saved.statuses[7].last_alert, &saved.statuses[7].last_backup), (&alert, &backup));
            assert!(alert.is_some() && backup.is_some());
            assert_eq!(saved.runs[0].warnings.len(), 0);
        });
        assert!(again.token_user("ws1", "there").is_some_and(|user| user.admin));
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "WASI has no file locks")]
    fn a_list_of_all_workspaces_is_kept_and_ends_its_failure() {
        let scratch = files::RunDir::for_test("list").expect("a folder");
        let history = History::new(scratch.path());
        let record = |id: &str, workspace: &str, code: Code| {
            add(&history, &ended(id, workspace, code));
        };
        let look = |history: &History| {
            let listed = |saved: &SavedHistory| saved.list.as_ref().map_or(0, |list| list.workspaces.len());
            history.read(|saved| (saved.status(ALL, "").last_run.is_some(), listed(saved)))
        };
        let list = |count: usize| {
            let workspaces = (0..count).map(|number| format!("ws{number}")).collect();
            history.note_list(WorkspaceList { place: "p".to_owned(), workspaces, time: String::new() })
        };
        record("01", ALL, Code::Timeout);
        record("02", ALL, Code::Timeout);
        assert_eq!(list(2).map(|before| before.consecutive_failures), Some(2));
        assert_eq!(list(2), None);
        assert_eq!(lock(&history.memory).unsaved.len(), 4);
        // Another process replaces the file before this one saves.
        let other = History::new(scratch.path());
        add(&other, &ended("05", "lab", Code::Unchanged));
        other.save(Duration::from_secs(5));
        assert_eq!(look(&history), (false, 2));
        history.save(Duration::from_secs(5));
        assert_eq!(look(&History::new(scratch.path())), (false, 2));
        // This failure comes after the list, and is saved together with it.
        list(1);
        record("06", ALL, Code::Timeout);
        history.save(Duration::from_secs(5));
        assert_eq!(look(&history), (true, 1));
        assert_eq!(look(&History::new(scratch.path())), (true, 1));
        assert!(lock(&history.memory).unsaved.is_empty());
    }

    #[test]
    fn a_list_of_left_out_items_is_reported_when_it_changes_and_counts_as_a_backup() {
        let run = |item: &str, ended: &str| {
            let left_out = vec![LeftOut { item: item.to_owned(), reason: "r".to_owned() }];
            let ended = format!("2026-11-22T18:00:{ended}Z");
            let code = "incomplete".to_owned();
            Record { code, left_out: Some(left_out), ended, ..record("01", false) }
        };
        let mut status = no_status();
        status.add(&run("f/a", "01"), None);
        for (item, ended, is_reported) in [("f/a", "02", false), ("f/b", "03", true), ("f/b", "04", false)] {
            status.add(&run(item, ended), None);
            let ended = format!("2026-11-22T18:00:{ended}Z");
            assert_eq!(status.last_alert.as_ref().is_some_and(|alert| alert.ended == ended), is_reported, "{ended}");
            assert_eq!(status.last_backup.as_ref(), Some(&ended));
        }
        assert_eq!((status.consecutive_failures, status.last_success), (4, None));
    }

    #[test]
    fn an_overdue_backup_is_reported_once_a_day_until_it_is_made() {
        let history = History::new(Path::new("/none"));
        let alert = |sent: &str| OverdueAlert { since: "2026-11-22T17:00:00Z".to_owned(), sent: sent.to_owned() };
        let note = |sent: &str| history.note_overdue("shop", "there".to_owned(), alert(sent));
        assert!(note("2026-11-22T17:30:00Z"));
        assert!(!note("2026-11-23T16:29:59Z"));
        assert!(note("2026-11-23T16:30:00Z"));
        let is_overdue = || history.read(|saved| saved.status("shop", "there").overdue.is_some());
        history.record(record("01", false), Some("there".to_owned()), None);
        assert!(is_overdue());
        history.record(record("02", true), Some("there".to_owned()), None);
        assert!(!is_overdue());
    }

    #[test]
    fn a_run_that_was_read_from_the_file_is_listed_once() {
        let mut saved = <SavedHistory as Default>::default();
        assert!(saved.add(&record("01", true), None, None));
        assert!(!saved.add(&record("01", true), None, None));
        assert_eq!((saved.runs.len(), saved.statuses.len()), (1, 0));
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "WASI has no file locks")]
    fn a_saved_run_counts_once_even_if_another_process_replaces_the_file() {
        let scratch = files::RunDir::for_test("history").expect("a folder");
        let (history, other) = (History::new(scratch.path()), History::new(scratch.path()));
        let fail = |history: &History, id: &str| add(history, &ended(id, "shop", Code::Timeout)).consecutive_failures;
        let unsaved = || lock(&history.memory).unsaved.len();
        let save = |history: &History| history.save(Duration::from_secs(5));
        assert_eq!((fail(&history, "01"), unsaved()), (1, 1));
        save(&history);
        assert_eq!((fail(&history, "02"), unsaved()), (2, 1));
        assert_eq!(fail(&other, "03"), 2, "run 02 is not in the file");
        save(&other);
        assert_eq!((fail(&history, "04"), unsaved()), (4, 2));
        save(&history);
        assert_eq!((fail(&other, "05"), history.read(|saved| saved.runs.len()), unsaved()), (5, 4, 0));
    }

    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "WASI has no file locks")]
    fn changes_that_cannot_be_saved_are_limited_and_saved_later() {
        let scratch = files::RunDir::for_test("unsaved-history").expect("a folder");
        let history = History::new(scratch.path());
        let held = history.lock(Duration::ZERO).expect("free");
        for id in 0..UNSAVED_MAX + 5 {
            add(&history, &ended(&id.to_string(), "shop", Code::Timeout));
        }
        history.save(Duration::ZERO);
        assert_eq!(lock(&history.memory).unsaved.len(), UNSAVED_MAX, "the file is locked");
        drop(held);
        history.save(Duration::ZERO);
        assert_eq!(lock(&history.memory).unsaved.len(), 0);
        let failures = |saved: &SavedHistory| saved.status("shop", "there").consecutive_failures;
        assert_eq!(History::new(scratch.path()).read(failures), UNSAVED_MAX as u64 + 5);
    }

    #[test]
    fn runs_that_count_for_no_backup_do_not_displace_the_others() {
        let mut saved = <SavedHistory as Default>::default();
        let mut add = |id: usize, dry_run| {
            saved.add(&Record { dry_run, ..record(&format!("{id}"), true) }, None, None);
            (saved.runs.len(), saved.runs.iter().filter(|run| !run.dry_run).count())
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
    fn the_last_success_names_the_user_of_its_token() {
        let user = |name: &str, admin| Some(TokenUser { name: name.to_owned(), admin });
        let mut status = no_status();
        status.add(&record("01", true), user("ann", true).as_ref());
        status.add(&record("02", false), user("bob", false).as_ref());
        assert_eq!(status.token_user, user("ann", true));
        let text = json::to_string(&status);
        assert_eq!(json::from_str::<BackupStatus>(&text).expect("read back").token_user, status.token_user);
        let old = text.replace(r#","token_user":{"name":"ann","admin":true}"#, "");
        assert_ne!(old, text);
        assert_eq!(json::from_str::<BackupStatus>(&old).expect("of a version before").token_user, None);
    }

    #[test]
    fn the_first_of_many_long_warnings_are_kept_and_the_others_counted() {
        let many = vec!["x".repeat(3 << 10); 5];
        let saved = |warnings: &[String]| {
            let result = ended("01", "shop", Code::Pushed);
            Record::new(&SyncResult { warnings: warnings.to_vec(), ..result }).warnings
        };
        assert_eq!(saved(&many).len(), 3);
        assert_eq!(saved(&many)[2], "and 3 more, see the log");
        assert_eq!(saved(&many[..2]), many[..2]);
    }
}
