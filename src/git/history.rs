//! Fetches the history of the branch without the contents of files, and reads it commit by commit.

use std::io::{self, BufReader};
use std::time::{Duration, SystemTime};

use crate::git::fetch::TIP_REF;
use crate::git::object::ObjectId;
use crate::git::tree_diff::Mark;
use crate::git::{Git, GitError};
use crate::util::files;

/// Size limit for the log: a million changed files at about 150 bytes each.
const LOG_BYTES_MAX: usize = 256 << 20;

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
    /// Returns the newest commit on the first-parent line of `tip` whose committer time is not later than `time`. The
    /// whole history has to be fetched already.
    ///
    /// # Errors
    /// [`GitError`]. It is not an error if all commits are later.
    pub fn commit_at(&self, tip: &ObjectId, time: SystemTime) -> Result<Option<ObjectId>, GitError> {
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
    /// [`GitError`].
    pub fn first_commit(&self, tip: &ObjectId) -> Result<ObjectId, GitError> {
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
    /// [`GitError`].
    pub fn log(&self, folder: &str, take: &mut dyn FnMut(LoggedCommit) -> bool) -> Result<(), GitError> {
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

/// Reads the output of `git log` until `take` returns `false`.
fn read_log(log: impl io::BufRead, take: &mut dyn FnMut(LoggedCommit) -> bool) -> Result<(), GitError> {
    let malformed = || GitError::Checkout("malformed output of `git log`".to_owned());
    let mut words = log.split(0);
    let mut next =
        || Ok::<_, GitError>(words.next().transpose()?.map(|word| String::from_utf8_lossy(&word).into_owned()));
    let mut commit: Option<LoggedCommit> = None;
    while let Some(word) = next()? {
        if let Some(id) = word.strip_prefix('\x01') {
            let id = ObjectId::parse(id).ok_or_else(malformed)?;
            // git prints what it finds in the commit: nothing for a negative number, and a number of any size.
            let seconds = next()?.ok_or_else(malformed)?.parse().unwrap_or(0);
            let time =
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH);
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
    fn read(log: &str, enough: usize) -> Result<Vec<LoggedCommit>, GitError> {
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
