//! Finds what a git that was killed or lost its connection leaves in a checkout: locks, unfinished packs and unfinished
//! objects. git itself does not remove them soon, and they would fill the disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::util::files;

/// How many levels of folders are searched. `refs/heads/a/b` is the deepest folder that needs it.
const DEPTH_MAX: usize = 4;

/// The result of a search.
#[derive(Default)]
pub(super) struct Leftovers {
    /// The files and folders to remove.
    pub(super) files: Vec<PathBuf>,
    /// Why the checkout should be created again, if there is a reason.
    pub(super) damage: Option<String>,
}

/// Searches the folder of a repository.
///
/// # Errors
/// Fails on an I/O error.
pub(super) fn find(git_folder: &Path) -> io::Result<Leftovers> {
    let mut found = Leftovers::default();
    look(git_folder, "", DEPTH_MAX, &mut found)?;
    for (stem, pack) in packs(git_folder) {
        let has = |ending: &str| pack.iter().any(|file| file.extension() == Some(OsStr::new(ending)));
        if has("keep") {
            // A fetch keeps its pack with this file until it has moved the ref. The fetch was killed before it removed
            // the file.
            found.damage = Some(format!("a fetch was cut off after it had brought the pack {stem}"));
        } else if !(has("pack") && has("idx")) {
            found.files.extend(pack);
        }
    }
    Ok(found)
}

/// `below` is the folder's path in the repository.
fn look(folder: &Path, below: &str, depth: usize, found: &mut Leftovers) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // git itself reports a folder that cannot be read, or that is not a folder.
        Err(_) => return Ok(()),
        Ok(entries) => entries,
    };
    for entry in entries {
        let entry = entry?;
        let (path, name, kind) = (entry.path(), entry.file_name(), entry.file_type()?);
        let name = name.to_string_lossy();
        if is_unfinished(below, &name) {
            found.files.push(path);
        } else if kind.is_dir() && depth > 0 {
            let below = if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") };
            look(&path, &below, depth - 1, found)?;
        } else if !kind.is_dir() && !kind.is_file() {
            // git would wait for the other end of a FIFO, and a link leads elsewhere.
            found.damage = Some(format!("`{}` is not a regular file", path.display()));
        }
    }
    Ok(())
}

/// Returns whether git uses this name, in this folder of a repository, for something that it has not finished.
fn is_unfinished(folder: &str, name: &str) -> bool {
    match folder.strip_prefix("objects") {
        None => has_ending(name, "lock") || folder.is_empty() && name.starts_with("shallow_"),
        // The objects of a received push are in their own folder until git accepts them.
        Some("") => name.starts_with("tmp_") || name.starts_with("incoming-"),
        Some(_) => name.starts_with("tmp_") || name.starts_with(".tmp-") || has_ending(name, "lock"),
    }
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension() == Some(OsStr::new(ending))
}

/// The files of each pack, by its name.
pub(super) type Packs = BTreeMap<String, Vec<PathBuf>>;

pub(super) fn packs(git_folder: &Path) -> Packs {
    let mut packs = Packs::new();
    for entry in fs::read_dir(git_folder.join("objects/pack")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((stem, _)) = name.rsplit_once('.').filter(|(stem, _)| stem.starts_with("pack-")) {
            packs.entry(stem.to_owned()).or_default().push(entry.path());
        }
    }
    packs
}

/// Removes the packs that are not in `kept`.
///
/// # Errors
/// Fails on an I/O error.
pub(super) fn remove_packs(git_folder: &Path, kept: &Packs) -> io::Result<()> {
    for (_, mut pack) in packs(git_folder).into_iter().filter(|(stem, _)| !kept.contains_key(stem)) {
        // Remove the index first: without it, git does not see the pack.
        pack.sort_by_key(|file| file.extension() != Some(OsStr::new("idx")));
        pack.iter().try_for_each(|file| files::remove_file(file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_has_not_finished_is_known_by_its_name() {
        for (folder, name) in [
            ("", "index.lock"),
            ("", "shallow_Xy12"),
            ("refs/sync", "tip.lock"),
            ("objects", "tmp_objdir-incoming-x"),
            ("objects/pack", "tmp_pack_x1"),
            ("objects/pack", ".tmp-1-pack-x"),
            ("objects/17", "tmp_obj_x1"),
        ] {
            assert!(is_unfinished(folder, name), "{folder}/{name}");
        }
        for (folder, name) in [
            ("", "shallow"),
            ("", "HEAD"),
            ("objects", "pack"),
            ("objects/pack", "pack-1.pack"),
            ("objects/17", "0123456789"),
            ("refs/heads", "tmp_branch"),
        ] {
            assert!(!is_unfinished(folder, name), "{folder}/{name}");
        }
    }

    #[test]
    fn packs_that_are_not_whole_are_found_and_those_of_before_stay() {
        let run = files::RunDir::for_test("leftovers").unwrap();
        let pack = run.path().join("objects/pack");
        files::create_folder(&pack).unwrap();
        let put = |name: &&str| files::write_file(&pack.join(name), b"x").unwrap();
        ["pack-a.pack", "pack-a.idx", "pack-a.rev"].iter().for_each(put);
        assert!(find(run.path()).unwrap().files.is_empty());
        let before = packs(run.path());
        ["pack-b.pack", "pack-b.rev", "pack-c.idx", "tmp_pack_d"].iter().for_each(put);
        assert_eq!(find(run.path()).unwrap().files.len(), 4);
        remove_packs(run.path(), &before).unwrap();
        assert!(packs(run.path()).keys().eq(["pack-a"]));
        put(&"pack-a.keep");
        assert!(find(run.path()).unwrap().damage.is_some());
    }
}
