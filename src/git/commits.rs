//! Makes, finds and reads commits.

use std::io::{self, BufReader};
use std::time::{Duration, SystemTime};

use crate::git::fetch::TIP_REF;
use crate::git::tree::order;
use crate::git::{Change, Git, Mark, ObjectId};
use crate::model::{BackupError, Identity, Result};
use crate::util::files;

/// Size limit for the log: a million changed files at about 150 bytes each.
const LOG_BYTES_MAX: usize = 256 << 20;

/// One commit of a chain.
pub struct ItemCommit<'a> {
    /// Who made the change.
    pub author: &'a Identity,
    /// When the change was made; `None` means now.
    pub time: Option<SystemTime>,
    /// The whole message.
    pub message: String,
    /// The changed files.
    pub changes: &'a [Change],
}

/// The time and the message of a commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommitText {
    /// The committer time, if it is known.
    pub time: Option<SystemTime>,
    /// Subject, body and trailers.
    pub message: String,
}

impl CommitText {
    /// Returns the value of the last trailer with this name.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.message.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
    }
}

/// A commit of the branch's first-parent line, compared with its first parent.
#[derive(Debug, PartialEq, Eq)]
pub struct LoggedCommit {
    /// Its id.
    pub id: ObjectId,
    /// Its committer time; 1970 if it has none that can be read.
    pub time: SystemTime,
    /// Its author, as `Name <address>`.
    pub author: String,
    /// The changed files, by their path in the repository.
    pub files: Vec<(Mark, String)>,
}

impl Git<'_> {
    /// Makes a commit of `tree` with this parent.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn commit(
        &self,
        tree: &ObjectId,
        parent: Option<&ObjectId>,
        author: &Identity,
        message: &str,
    ) -> Result<ObjectId> {
        let commit = ItemCommit { author, time: None, message: message.to_owned(), changes: &[] };
        self.commit_item(tree, parent, author, &commit)
    }

    fn commit_item(
        &self,
        tree: &ObjectId,
        parent: Option<&ObjectId>,
        committer: &Identity,
        ItemCommit { author, time, message, .. }: &ItemCommit<'_>,
    ) -> Result<ObjectId> {
        let message = self.run_env.run_dir.write("message", message.as_bytes())?;
        let mut command = self
            .command()?
            .environment("GIT_AUTHOR_NAME", author.name())
            .environment("GIT_AUTHOR_EMAIL", author.email())
            .environment("GIT_COMMITTER_NAME", committer.name())
            .environment("GIT_COMMITTER_EMAIL", committer.email())
            .arguments(["commit-tree", "-F"])
            .arguments([message])
            .arguments(self.signing_key.as_ref().map(|key| format!("--gpg-sign={}", key.display())))
            .arguments(parent.map(|parent| format!("-p{parent}")))
            .arguments([tree.as_str()]);
        // git has no times before 1970.
        if let Some(since) = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            command = command.environment("GIT_AUTHOR_DATE", format!("@{} +0000", since.as_secs()));
        }
        self.object_id(command)
    }

    /// Returns the commit of the fetched history whose id begins with these hexadecimal digits, at least four.
    ///
    /// # Errors
    /// [`BackupError`]. It is not an error if there is no such commit or more than one.
    pub fn find_commit(&self, digits: &str) -> Result<Option<ObjectId>> {
        let Some(commit) = self.commit_named(digits)? else { return Ok(None) };
        let command = self.command()?.arguments(["merge-base", "--is-ancestor", commit.as_str(), TIP_REF]);
        Ok(self.run(command)?.is_success().then_some(commit))
    }

    /// Returns the time and the message of a commit. If there is a `line`, the commit is the newest one in the history
    /// of `commit` whose message has a line that begins with a match of this regular expression. Returns `None` if the
    /// history has no such commit.
    ///
    /// # Errors
    /// [`BackupError`], for example if the commit was not fetched.
    pub fn commit_text(&self, commit: &ObjectId, line: Option<&str>) -> Result<Option<CommitText>> {
        let command = self.command()?.arguments(["log", "-1", "--no-show-signature", "--format=%ct%n%B"]);
        let command = command.arguments(line.map(|line| format!("--grep=^{line}")));
        let printed = self.locally(command.arguments([commit.as_str(), "--"]))?;
        Ok(String::from_utf8_lossy(&printed)
            .split_once('\n')
            .map(|(seconds, message)| CommitText { time: time_of(seconds), message: message.to_owned() }))
    }

    /// Makes a chain of commits on top of `parent`, which change the folder at `path`. Returns the last commit, or
    /// `None` if its tree would differ from `tree`.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn commit_chain(
        &self,
        parent: Option<&ObjectId>,
        path: &str,
        committer: &Identity,
        commits: &[ItemCommit<'_>],
        tree: &ObjectId,
    ) -> Result<Option<ObjectId>> {
        let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
        // The changes are in the order of their paths: if a file becomes a folder, its deletion comes before the files
        // below it.
        let order_for = |change: &Change| {
            let entry = Some(&change.entry).filter(|_| change.mark != Mark::Deleted);
            order([folder.as_bytes(), &change.path].concat(), entry)
        };
        let groups = commits.iter().map(|commit| commit.changes.iter().map(order_for));
        let trees = self.make_trees(parent, groups)?;
        if trees.last() != Some(tree) {
            return Ok(None);
        }
        let mut last = parent.cloned();
        for (commit, tree) in commits.iter().zip(&trees) {
            last = Some(self.commit_item(tree, last.as_ref(), committer, commit)?);
        }
        Ok(last)
    }

    /// Returns the newest commit on the first-parent line of `tip` whose committer time is not later than `time`. The
    /// whole history has to be fetched already.
    ///
    /// # Errors
    /// [`BackupError`]. It is not an error if all commits are later.
    pub fn commit_at(&self, tip: &ObjectId, time: SystemTime) -> Result<Option<ObjectId>> {
        // git has no times before 1970.
        let Ok(since) = time.duration_since(SystemTime::UNIX_EPOCH) else { return Ok(None) };
        // Without a time zone, git does not read a number below 100,000,000 as seconds.
        let before = format!("--before=@{} +0000", since.as_secs());
        let command = self.command()?.arguments(["rev-list", "--first-parent", "-1", &before, tip.as_str()]);
        Ok(ObjectId::parse(&self.answer(command)?))
    }

    /// Returns the first commit on the first-parent line of `tip`.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn first_commit(&self, tip: &ObjectId) -> Result<ObjectId> {
        self.object_id(self.command()?.arguments(["rev-list", "--first-parent", "--max-parents=0", "-1", tip.as_str()]))
    }

    /// Returns whether the history was fetched to its beginning.
    pub fn is_complete(&self) -> bool {
        self.shallow_commits().is_ok_and(|commits| commits.is_empty())
    }

    /// Returns the commits whose parents were not fetched. git treats each as a first commit that adds all of its
    /// files.
    fn shallow_commits(&self) -> io::Result<Vec<String>> {
        match files::read_file(&self.git_folder.join("shallow"), LOG_BYTES_MAX as u64) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Passes the fetched commits that change something below `folder` (the root if it is empty) to `take`, newest
    /// first, on the first-parent line of the tip, until `take` returns `false`. Leaves out commits whose parent was
    /// not fetched.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn log(&self, folder: &str, take: &mut dyn FnMut(LoggedCommit) -> bool) -> Result<()> {
        let path = self.listing_place("history.log");
        let command = self
            .command()?
            // The contents of files are not here, and git must not fetch them on demand.
            .environment("GIT_NO_LAZY_FETCH", "1")
            .arguments(["log", "--first-parent", "--diff-merges=first-parent", "--root", "--no-renames"])
            .arguments(["--no-show-signature", "--name-status", "-z", "--format=tformat:%x01%H%x00%ct%x00%an <%ae>"])
            .arguments([TIP_REF, "--"])
            .arguments(Some(folder).filter(|folder| !folder.is_empty()));
        self.locally(command.write_to(files::open_file(&path, true)?, LOG_BYTES_MAX))?;
        let shallow = self.shallow_commits()?;
        let file = std::fs::File::open(&path)?;
        read_log(BufReader::new(file), &mut |commit| shallow.iter().any(|id| *id == commit.id.as_str()) || take(commit))
    }
}

/// Returns the time of a commit. git prints what it finds in the commit: nothing for a negative number, and a number of
/// any size.
fn time_of(seconds: &str) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.parse().ok()?))
}

/// Reads the output of `git log` until `take` returns `false`.
fn read_log(log: impl io::BufRead, take: &mut dyn FnMut(LoggedCommit) -> bool) -> Result<()> {
    let malformed = || BackupError::damage("malformed output of `git log`".to_owned());
    let mut words = log.split(0);
    let mut next =
        || Ok::<_, BackupError>(words.next().transpose()?.map(|word| String::from_utf8_lossy(&word).into_owned()));
    let mut commit: Option<LoggedCommit> = None;
    while let Some(word) = next()? {
        if let Some(id) = word.strip_prefix('\x01') {
            let id = ObjectId::parse(id).ok_or_else(malformed)?;
            let time = time_of(&next()?.ok_or_else(malformed)?).unwrap_or(SystemTime::UNIX_EPOCH);
            let author = next()?.ok_or_else(malformed)?;
            if let Some(done) = commit.replace(LoggedCommit { id, time, author, files: Vec::new() })
                && !take(done)
            {
                return Ok(());
            }
            continue;
        }
        let change = match word.trim_start_matches('\n') {
            "" => continue,
            "A" => Mark::Added,
            "D" => Mark::Deleted,
            _ => Mark::Modified,
        };
        let path = next()?.ok_or_else(malformed)?;
        commit.as_mut().ok_or_else(malformed)?.files.push((change, path));
    }
    commit.map(take);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    #[track_caller]
    fn read(log: &str, enough: usize) -> Result<Vec<LoggedCommit>> {
        let mut found = Vec::new();
        read_log(log.as_bytes(), &mut |commit| {
            found.push(commit);
            found.len() < enough
        })?;
        Ok(found)
    }

    #[test]
    fn each_commit_has_its_files() {
        let log = format!(
            "\x01{ONE}\x001795000000\x00A B <a@b>\x00\nD\x00f/a b.py\x00A\x00f/\u{e9}\x00\x01{TWO}\x001\x00C <c@d>\x00"
        );
        let found = read(&log, 9).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].author, "A B <a@b>");
        assert_eq!(found[0].time, SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000));
        let files = [(Mark::Deleted, "f/a b.py".to_owned()), (Mark::Added, "f/\u{e9}".to_owned())];
        assert_eq!(found[0].files, files);
        assert_eq!((found[1].id.as_str(), found[1].files.len()), (TWO, 0));
        assert_eq!(read(&log, 1).unwrap().len(), 1);
        assert_eq!(read("", 1).unwrap().len(), 0);
    }

    #[test]
    fn a_date_that_cannot_be_read_is_1970() {
        for date in ["", "x", "-1", "9223372036854775808", "99999999999999999999999"] {
            let found = read(&format!("\x01{ONE}\x00{date}\x00a\x00\nA\x00f/a\x00"), 9).unwrap();
            assert_eq!((found[0].time, found[0].files.len()), (SystemTime::UNIX_EPOCH, 1), "{date}");
        }
    }

    #[test]
    fn a_malformed_log_is_refused() {
        for log in ["A\x00f/a\x00", "\x01123\x001\x00a\x00", &format!("\x01{ONE}\x001\x00"), &format!("\x01{ONE}\x00")]
        {
            assert!(read(log, 9).is_err(), "{log:?}");
        }
    }
}
