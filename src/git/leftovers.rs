//! Finds what a git that was killed or lost its connection leaves in a checkout: locks, unfinished packs and unfinished
//! objects. git itself does not remove them soon, and they would fill the disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::util::files;

/// Returns the files and folders to remove from a repository. Entries that cannot be read are skipped: git itself
/// reports them.
///
/// # Errors
/// Why the checkout should be created again.
pub(super) fn find(git_folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in files::entries_below(git_folder) {
        let (path, kind) = (entry.path(), entry.file_type());
        let is_object = path.strip_prefix(git_folder).is_ok_and(|path| path.starts_with("objects"));
        if is_unfinished(is_object, &entry.file_name().to_string_lossy()) {
            found.push(path);
        } else if !kind.is_ok_and(|kind| kind.is_dir() || kind.is_file()) {
            // git would wait for the other end of a FIFO, and a link leads elsewhere.
            return Err(format!("`{}` is not a regular file", path.display()));
        }
    }
    let packs = pack_files(git_folder);
    for file in &packs {
        let has = |ending: &str| packs.contains(&file.with_extension(ending));
        // A fetch keeps its pack with a third file until it has moved the ref.
        let is_of_pack = file.extension().is_some() && !found.contains(file);
        if is_of_pack && (has("keep") || !has("pack") || !has("idx")) {
            return Err(format!("`{}` is of a fetch that was cut off", file.display()));
        }
    }
    Ok(found)
}

/// Returns whether git uses this name, below `objects` or elsewhere, for something that it has not finished.
fn is_unfinished(is_object: bool, name: &str) -> bool {
    // The objects of a received push are in a folder `incoming-…` until git accepts them.
    let starts: &[&str] = if is_object { &["tmp_", ".tmp-", "incoming-"] } else { &["shallow_", "fast_import_crash_"] };
    starts.iter().any(|start| name.starts_with(start)) || Path::new(name).extension().is_some_and(|end| end == "lock")
}

/// Returns the files of the packs.
pub(super) fn pack_files(git_folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(git_folder.join("objects/pack")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_files_of_git_are_recognized_by_name() {
        for (folder, name) in [
            ("", "index.lock"),
            ("", "shallow_Xy12"),
            ("", "fast_import_crash_12"),
            ("refs/sync", "tip.lock"),
            ("objects", "tmp_objdir-incoming-x"),
            ("objects/pack", "tmp_pack_x1"),
            ("objects/pack", ".tmp-1-pack-x"),
            ("objects/17", "tmp_obj_x1"),
        ] {
            assert!(is_unfinished(folder.starts_with("objects"), name), "{folder}/{name}");
        }
        for (folder, name) in [
            ("", "shallow"),
            ("", "HEAD"),
            ("objects", "pack"),
            ("objects/pack", "pack-1.pack"),
            ("objects/17", "0123456789"),
            ("refs/heads", "tmp_branch"),
        ] {
            assert!(!is_unfinished(folder.starts_with("objects"), name), "{folder}/{name}");
        }
    }

    #[test]
    fn incomplete_packs_are_damage() {
        let run = files::RunDir::for_test("leftovers").unwrap();
        let pack = run.path().join("objects/pack");
        files::create_folder(&pack).unwrap();
        let put = |name: &&str| files::write_file(&pack.join(name), b"x").unwrap();
        ["pack-a.pack", "pack-a.idx", "pack-a.rev", "multi-pack-index", "tmp_pack_d"].iter().for_each(put);
        assert_eq!(find(run.path()), Ok(vec![pack.join("tmp_pack_d")]));
        for name in ["pack-b.pack", "pack-c.idx", "pack-a.keep"] {
            put(&name);
            assert!(find(run.path()).is_err(), "{name}");
            files::remove_file(&pack.join(name)).unwrap();
        }
        assert!(find(run.path()).is_ok());
    }
}
