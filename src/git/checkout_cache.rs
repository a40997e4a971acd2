//! Manages the checkouts on the volume. The checkouts of configured backups stay as long as they are used. The number
//! of other checkouts is limited.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::process::Lock;
use crate::util::files;

/// The folder of a checkout's repository.
pub(super) const GIT: &str = "git";
/// The folder into which trees are checked out.
pub(super) const TREE: &str = "tree";
/// How many checkouts of requests with their own settings are kept. The least recently used are removed first.
const OTHERS_MAX: usize = 16;
/// The file that marks a checkout made by a request. Its modification time is the time of the last use.
const MARK: &str = "made-by-a-request";
/// After this time without a success, the checkout of a configured backup is removed, if another backup of its
/// workspace is made. A weekly backup to a second branch keeps its checkout, also if it fails once.
const UNUSED_MAX: Duration = Duration::from_secs(15 * 24 * 60 * 60);

/// Creates the folder of a checkout if it is missing, and marks it as kept (configured backup) or as limited in number
/// (other runs). Removes the oldest of the limited ones if their lock is free or is the caller's own; `lock` returns
/// the path of the lock for a folder's name. A checkout that a run is using stays. A checkout that cannot be removed is
/// logged.
///
/// # Errors
/// Fails if the folder or the mark cannot be written.
pub fn open(used: &Path, is_configured: bool, lock: &dyn Fn(&str) -> PathBuf) -> io::Result<()> {
    files::create_folder(used)?;
    if is_configured {
        return files::remove_file(&used.join(MARK));
    }
    files::replace_file(&used.join(MARK), b"")?;
    make_room(used, lock);
    Ok(())
}

/// Removes the checkouts of configured backups of the same workspace that were not used for a long time: after a change
/// of the branch or remote, the old checkout would stay for ever. The caller holds the lock of the workspace, which is
/// the lock of all of them. A checkout that cannot be removed is logged.
pub fn remove_unused(used: &Path, now: SystemTime) {
    let workspace = |folder: &Path| Some(folder.file_name()?.to_str()?.split_once('@')?.0.to_owned());
    let is_unused = |folder: &PathBuf| {
        let is_other = folder != used && workspace(folder).is_some() && workspace(folder) == workspace(used);
        // Each success replaces the file of the last success in the folder.
        let last = fs::metadata(folder).and_then(|about| about.modified());
        is_other
            && fs::symlink_metadata(folder.join(MARK)).is_err()
            && last.is_ok_and(|last| now.duration_since(last).is_ok_and(|unused| unused > UNUSED_MAX))
    };
    for folder in checkouts_beside(used).filter(is_unused) {
        remove(&folder);
    }
}

/// Removes the repository and the working folder of a checkout.
///
/// # Errors
/// Fails on an I/O error.
pub fn discard(folder: &Path) -> io::Result<()> {
    [GIT, TREE].iter().try_for_each(|part| files::remove_folder(&folder.join(part)))
}

fn make_room(used: &Path, lock: &dyn Fn(&str) -> PathBuf) {
    let lock_of = |folder: &Path| Some(lock(folder.file_name()?.to_str()?));
    // The caller holds the lock of `used`.
    let remove_if_free = |folder: &Path| {
        let path = lock_of(folder)?;
        let _held = if lock_of(used).as_ref() == Some(&path) { None } else { Some(Lock::acquire_if_free(&path)?) };
        remove(folder)
    };
    let marked = |folder: PathBuf| Some((fs::metadata(folder.join(MARK)).ok()?.modified().ok()?, folder));
    let mut others: Vec<_> = checkouts_beside(used).filter_map(marked).collect();
    let excess = others.len().saturating_sub(OTHERS_MAX);
    others.sort();
    let others = others.iter().filter(|(_, folder)| folder != used);
    others.filter_map(|(_, folder)| remove_if_free(folder)).take(excess).for_each(drop);
}

/// Removes a checkout. Returns `None` if that fails.
fn remove(folder: &Path) -> Option<()> {
    log::info!("removing the checkout `{}`, which is not used any more", folder.display());
    files::remove_folder(folder).inspect_err(|error| log::warn!("a checkout that is not used stays: {error}")).ok()
}

/// Returns the folders of all checkouts, with `used`.
fn checkouts_beside(used: &Path) -> impl Iterator<Item = PathBuf> {
    used.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten().map(|entry| entry.path())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn checkouts_that_a_workspace_did_not_use_for_long_are_removed() {
        let scratch = files::RunDir::for_test("checkouts-unused").unwrap();
        let checkout = |name: &str| scratch.path().join(name);
        let lock = |name: &str| checkout(name).with_extension("lock");
        for (name, is_configured) in
            [("shop@used", true), ("shop@old", true), ("shop@recent", true), ("shop@request", false), ("lab@old", true)]
        {
            open(&checkout(name), is_configured, &lock).unwrap();
        }
        // An older version made this checkout.
        fs::create_dir(checkout("shop@unknown")).unwrap();
        let later = SystemTime::now() + UNUSED_MAX + Duration::from_secs(60);
        let recent = fs::File::open(checkout("shop@recent")).unwrap();
        recent.set_modified(later - Duration::from_secs(120)).unwrap();
        let left = |now| {
            remove_unused(&checkout("shop@used"), now);
            let mut names: Vec<_> = fs::read_dir(scratch.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let all = ["lab@old", "shop@old", "shop@recent", "shop@request", "shop@unknown", "shop@used"];
        assert_eq!(left(SystemTime::now()), all);
        assert_eq!(left(SystemTime::UNIX_EPOCH), all, "a clock that is wrong removes nothing");
        assert_eq!(left(later), ["lab@old", "shop@recent", "shop@request", "shop@used"]);
    }

    #[test]
    fn the_least_recently_used_checkout_that_is_not_in_use_is_removed_first() {
        let scratch = files::RunDir::for_test("checkouts").unwrap();
        let all = scratch.path();
        let lock = |name: &str| all.join(name.split_once('@').unwrap().0).with_extension("lock");
        let checkout = |name: &str| all.join(name);
        open(&checkout("shop@configured"), true, &lock).unwrap();
        let use_at = |name: &str, seconds| {
            open(&checkout(name), false, &lock).unwrap();
            let mark = fs::File::options().write(true).open(checkout(name).join(MARK)).unwrap();
            mark.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        let names: Vec<String> = (0..18).map(|number| format!("{}@{number}", ["shop", "other"][number % 2])).collect();
        let exists = |number: usize| checkout(&names[number]).exists();
        for (number, seconds) in (0..16).zip(0..) {
            use_at(&names[number], seconds);
        }
        use_at(&names[0], 100);
        // A run uses the workspace of the oldest checkout, so the next one is removed. It belongs to the caller's
        // workspace.
        let busy = Lock::acquire_if_free(&lock("other@1")).unwrap();
        use_at(&names[16], 101);
        assert!(exists(1) && !exists(2), "of `other`, and of `shop`");
        drop(busy);
        use_at(&names[17], 102);
        assert!(!exists(1) && exists(3), "one had to go, and one went");
        use_at(&names[2], 103);
        assert!(!exists(3), "of the other workspace, whose lock is free by now");
        assert!(exists(0) && exists(16) && checkout("shop@configured").exists());
        // A checkout that a configured backup uses does not count any more.
        open(&checkout(&names[4]), true, &lock).unwrap();
        for number in 20..40 {
            use_at(&format!("shop@{number}"), 200);
        }
        assert!(exists(4) && !exists(0));
    }
}
