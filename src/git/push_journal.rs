//! Keeps a journal of pushes into a repository on this machine, to remove the locks of a receiving git that was killed.
//!
//! Each push writes its commit into a file of the repository, and the git that receives it holds the kernel's lock on
//! that file until it ends. A later push that gets this lock knows that no push is in progress there, in any container;
//! a git lock for such a commit is then stale.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::git::ObjectId;
use crate::model::BranchName;
use crate::util::{files, lock, wait_while};

/// The journal's file, beside git's own files in the repository. It has the line of a push that was not answered yet.
const JOURNAL_FILE: &str = "windmill-git-sync.pushes";
/// How much is read of the journal, and of a git lock.
const BYTES_MAX: u64 = 8192;
/// How long git's locks have to stay unchanged before they are removed. A lock that was not written yet does not show
/// its owner, and others may hold one while their hook runs.
const WATCH: Duration = Duration::from_secs(5);

/// Returns the commit and the ref of a line. There may be a word between them; an earlier version wrote a time there.
/// Others can write into the journal, so only the ref of a valid branch name is accepted.
fn parse(line: &str) -> Option<(ObjectId, &str)> {
    let ((commit, _), (_, full_ref)) = (line.split_once(' ')?, line.rsplit_once(' ')?);
    BranchName::parse(full_ref.strip_prefix("refs/heads/")?).ok()?;
    Some((ObjectId::parse(commit)?, full_ref))
}

/// Waits until none of our other pushes is in progress in the repository that git finds at `path`, removes what a
/// killed push left, and records this push. Passes a message to `report` for each removed lock, and for a failure to
/// check the locks. The lock on the journal belongs to this process, and to the program that it becomes, until the file
/// is closed.
///
/// If other programs keep the locks of a killed push, that push stays in the journal in place of this one.
///
/// # Errors
/// Fails on an I/O error, for example if the file system has no locks.
pub(super) fn begin(path: &str, push: &str, report: &mut dyn FnMut(String)) -> io::Result<File> {
    let repository = repository_at(path)?;
    let mut journal = open(&repository)?;
    fcntl_lock(&journal, FlockOperation::LockExclusive)?;
    fcntl_setfd(&journal, FdFlags::empty())?;
    let mut line = push.to_owned();
    if let Some((commit, full_ref)) = parse(&read(&mut journal)?) {
        let is_finished = finish_push(&repository, &commit, full_ref, report).unwrap_or_else(|error| {
            report(format!("cannot look at the locks in {}: {error}", repository.display()));
            false
        });
        if !is_finished {
            // It differs from the line of this push even if the commit is the same, so that `end` does not remove it.
            line = format!("{commit} kept {full_ref}");
        }
    }
    write(&mut journal, &line)?;
    Ok(journal)
}

/// Removes a push from the journal after its answer, because none of its locks is left. Does nothing if another push is
/// in progress: that one has already checked the locks of this one.
///
/// # Errors
/// Fails on an I/O error.
pub(super) fn end(path: &str, push: &str) -> io::Result<()> {
    /// The kernel's lock belongs to the whole process: a thread that closes the file would free another thread's lock.
    static ENDING: Mutex<()> = Mutex::new(());
    let _alone = lock(&ENDING);
    let mut journal = open(&repository_at(path)?)?;
    let is_free = fcntl_lock(&journal, FlockOperation::NonBlockingLockExclusive).is_ok();
    if is_free && read(&mut journal)? == push { journal.set_len(0) } else { Ok(()) }
}

/// Returns the folder that git uses as the repository at `path`.
fn repository_at(path: &str) -> io::Result<PathBuf> {
    let places = ["/.git", "", ".git/.git", ".git"].map(|end| PathBuf::from([path, end].concat()));
    let found = places.into_iter().find(|place| place.join("HEAD").is_file());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{path} is not a repository")))
}

fn open(repository: &Path) -> io::Result<File> {
    let path = repository.join(JOURNAL_FILE);
    files::open_regular(OpenOptions::new().read(true).write(true).create(true).truncate(false), &path)
}

/// Reads the first line of the journal. What follows is of an earlier version, or of a write that was cut off.
fn read(journal: &mut File) -> io::Result<String> {
    let mut text = Vec::new();
    journal.seek(SeekFrom::Start(0))?;
    journal.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

fn write(journal: &mut File, push: &str) -> io::Result<()> {
    let line = format!("{push}\n");
    journal.seek(SeekFrom::Start(0))?;
    journal.write_all(line.as_bytes())?;
    journal.set_len(line.len() as u64)?;
    journal.sync_all()
}

/// Reads the locks that a push holds until it has moved its ref. The first is the lock of the ref: git writes the
/// commit into it. The second exists if `HEAD` points at the ref: the lock of `HEAD`, which stays empty. Returns their
/// paths, times and contents.
fn locks(repository: &Path, full_ref: &str) -> io::Result<Vec<(PathBuf, SystemTime, Vec<u8>)>> {
    let head = files::read_file(&repository.join("HEAD"), BYTES_MAX)?;
    let is_head = head.strip_prefix(b"ref:").is_some_and(|name| name.trim_ascii() == full_ref.as_bytes());
    let mut found = Vec::new();
    for name in [Some(full_ref), is_head.then_some("HEAD")].into_iter().flatten() {
        let path = repository.join([name, ".lock"].concat());
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            about => found.push((path.clone(), about?.modified()?, files::read_file(&path, BYTES_MAX)?)),
        }
    }
    Ok(found)
}

/// Removes the locks of a push that is not in progress any more. Returns whether no lock is left that may belong to
/// that push.
fn finish_push(
    repository: &Path,
    commit: &ObjectId,
    full_ref: &str,
    report: &mut dyn FnMut(String),
) -> io::Result<bool> {
    let held = locks(repository, full_ref)?;
    let may_be_ours = |content: &[u8]| content.is_empty() || content.trim_ascii_end() == commit.as_str().as_bytes();
    if !held.iter().all(|(.., content)| may_be_ours(content)) {
        return Ok(false);
    }
    if !held.is_empty() {
        // The locks of a killed push do not change during this time.
        wait_while(WATCH, || locks(repository, full_ref).is_ok_and(|now| now == held));
    }
    if locks(repository, full_ref)? != held {
        return Ok(false);
    }
    // `HEAD` comes first: while the ref's lock is there, no other git can lock `HEAD`.
    for (path, ..) in held.iter().rev() {
        report(format!("removing `{}`, which a killed push left", path.display()));
        files::remove_file(path)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::RunDir;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[track_caller]
    fn check_parsed(text: &str, is_one: bool) {
        assert_eq!(parse(text).is_some(), is_one, "{text:?}");
    }

    #[test]
    fn only_a_well_formed_line_is_a_push() {
        check_parsed(&format!("{A} refs/heads/main"), true);
        check_parsed(&format!("{A} 12 refs/heads/main"), true);
        check_parsed(&format!("{A}{} refs/heads/a/b", "a".repeat(24)), true);
        for line in ["", "12 refs/heads/main", &format!("{A} refs/heads/main x"), &format!("{A}x refs/heads/main")] {
            check_parsed(line, false);
        }
        for name in ["main", "refs/../../x", "refs//x", "/refs/x", "refs/heads/", "refs/heads/../../x"] {
            check_parsed(&format!("{A} {name}"), false);
        }
    }

    #[test]
    fn the_repository_is_found_where_git_finds_it() -> io::Result<()> {
        let scratch = RunDir::for_test("pushes")?;
        let name = scratch.path().join("a b").to_string_lossy().into_owned();
        assert!(repository_at(&name).is_err());
        for end in [".git", ".git/.git", "", "/.git"] {
            let folder = PathBuf::from([&name, end].concat());
            files::create_folder(&folder)?;
            files::write_file(&folder.join("HEAD"), b"ref: refs/heads/main\n")?;
            assert_eq!(repository_at(&name)?, folder, "the later ones come first");
        }
        Ok(())
    }

    #[test]
    fn the_rest_of_a_longer_journal_is_ignored() -> io::Result<()> {
        let scratch = RunDir::for_test("pushes-journal")?;
        let mut journal = open(scratch.path())?;
        let push = format!("{A} refs/heads/main");
        // An earlier version, or a write that was cut off, leaves more lines.
        journal.write_all(format!("{push}\n{A} refs/heads/other\nx\n").as_bytes())?;
        assert_eq!(read(&mut journal)?, push);
        write(&mut journal, &push)?;
        assert_eq!(journal.metadata()?.len(), push.len() as u64 + 1);
        journal.set_len(0)?;
        assert_eq!(read(&mut journal)?, "");
        Ok(())
    }
}
