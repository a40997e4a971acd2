//! Pushes into a repository on a volume whose answer never came. A git that was killed there leaves its locks, and no
//! later push gets past them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::deadline::{Deadline, Expired};
use crate::lock;
use crate::names::{RemoteScheme, RemoteUrl};
use crate::object::ObjectId;
use crate::percent;
use crate::scratch;

/// So long nothing may happen to a lock before it counts as left behind. A git that lives holds its own for
/// milliseconds, and one in another container cannot be seen.
const WATCH: Duration = Duration::from_secs(1);
/// Commits that are remembered. There is more than one only where syncs were killed in a row.
const REMEMBERED_MAX: usize = 16;
/// Of the note, and of a lock.
const BYTES_MAX: u64 = 4096;

/// What is known of our pushes into one repository.
pub(super) struct Pushes {
    /// A file with the commits whose push was not answered, each in a line.
    note: PathBuf,
    repository: PathBuf,
}

/// A lock, as it was seen.
#[derive(PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    length: u64,
    written: Option<SystemTime>,
}

impl Pushes {
    /// Of a checkout whose notes are in `folder`; `None` where the remote is another machine's, who cleans up itself.
    pub(super) fn of(remote: &RemoteUrl, folder: &Path) -> Option<Self> {
        if remote.scheme() != RemoteScheme::File {
            return None;
        }
        let path = percent::decode(remote.as_str().strip_prefix("file://")?)?;
        // The places where git looks for a repository of this name, in its order.
        let places = ["/.git", "", ".git"].map(|end| PathBuf::from([&path, end].concat()));
        let repository = places.into_iter().find(|place| place.join("HEAD").is_file())?;
        Some(Self { note: folder.join("unanswered"), repository })
    }

    /// Notes that this commit is about to be pushed, once the locks of earlier pushes are out of the way.
    ///
    /// # Errors
    /// [`Expired`].
    pub(super) fn begin(&self, full_ref: &str, commit: &ObjectId, deadline: &Deadline) -> Result<(), Expired> {
        let mut unanswered = self.unanswered();
        if !unanswered.is_empty() && self.remove_locks(full_ref, &unanswered, deadline)? {
            unanswered.clear();
        }
        unanswered.push(commit.clone());
        self.remember(&unanswered);
        Ok(())
    }

    /// Notes that the last push was answered. Where it was accepted, none of the locks is there that could stop one.
    pub(super) fn end(&self, is_accepted: bool) {
        let mut unanswered = if is_accepted { Vec::new() } else { self.unanswered() };
        unanswered.pop();
        self.remember(&unanswered);
    }

    fn remember(&self, unanswered: &[ObjectId]) {
        let newest = unanswered.len().saturating_sub(REMEMBERED_MAX);
        let lines: String = unanswered[newest..].iter().map(|commit| format!("{commit}\n")).collect();
        let written = if lines.is_empty() {
            scratch::remove_file(&self.note)
        } else {
            scratch::replace_file(&self.note, lines.as_bytes())
        };
        if let Err(error) = written {
            // It is missed only where a push is killed.
            log::warn!("cannot note which pushes were answered: {error}");
        }
    }

    fn unanswered(&self) -> Vec<ObjectId> {
        let note = scratch::read_file(&self.note, BYTES_MAX).unwrap_or_default();
        String::from_utf8_lossy(&note).lines().filter_map(ObjectId::parse).collect()
    }

    /// Removes the locks that were left behind. Whether there is none any more that may be ours.
    fn remove_locks(&self, full_ref: &str, ours: &[ObjectId], deadline: &Deadline) -> Result<bool, Expired> {
        let Some(locks) = self.locks(full_ref, ours) else { return Ok(false) };
        if locks.is_empty() {
            return Ok(true);
        }
        let watch = deadline.remaining()?.min(WATCH);
        Deadline::after(watch, deadline.interrupt()).wait_out()?;
        if self.locks(full_ref, ours).as_ref() != Some(&locks) || lock::git_at_work_in(&self.repository).is_some() {
            return Ok(false);
        }
        for Seen { path, .. } in locks {
            log::warn!("removing `{}`, which a killed push of ours left", path.display());
            if let Err(error) = scratch::remove_file(&path) {
                log::warn!("cannot remove it: {error}");
            }
        }
        Ok(true)
    }

    /// The locks that a push takes, as far as they are there; `None` where another writer holds one. git locks the
    /// branch, writes the commit into that lock, then locks `HEAD`, which points at the branch, and writes nothing there.
    fn locks(&self, full_ref: &str, ours: &[ObjectId]) -> Option<Vec<Seen>> {
        let mut locks = Vec::new();
        for name in [full_ref, "HEAD", "reftable/tables.list"] {
            let path = self.repository.join([name, ".lock"].concat());
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            let content = scratch::read_file(&path, BYTES_MAX).ok()?;
            let held_for = String::from_utf8_lossy(&content);
            let is_ours = name.starts_with("reftable")
                || content.is_empty()
                || ObjectId::parse(held_for.trim_end()).is_some_and(|commit| ours.contains(&commit));
            if !is_ours {
                return None;
            }
            locks.push(Seen { path, length: about.len(), written: about.modified().ok() });
        }
        Some(locks)
    }
}
