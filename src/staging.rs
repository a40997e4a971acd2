//! Whether what git staged is what lies in the folder: the same paths, all of them regular files, each with its content.
//! It reads the folder itself and computes the ids itself, so that no setting of git's can come in between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::comparison::printable;
use crate::git::{ObjectFormat, ObjectId, Tree};
use crate::scratch;

/// Why staging is not trusted.
#[derive(Debug)]
pub enum StagingError {
    /// A path differs; the message names it.
    Differs(String),
    /// The folder cannot be read.
    Io(io::Error),
}

/// Checks `staged` against `folder`. What `known` has with the same content was not written by wmill, and is taken as
/// checked out by git.
///
/// # Errors
/// [`StagingError`].
pub fn verify(staged: &Tree, folder: &Path, known: &Tree) -> Result<(), StagingError> {
    let pulled = walk(folder).map_err(StagingError::Io)?;
    if let Some(path) = pulled.iter().find(|path| !staged.contains_key(*path)) {
        return Err(not_what_was_pulled(path, "it was pulled and not staged"));
    }
    if pulled.len() != staged.len() {
        let surplus = staged.keys().find(|path| !pulled.contains(path));
        return Err(not_what_was_pulled(surplus.map_or(b"", Vec::as_slice), "it was staged and not pulled"));
    }
    for (path, entry) in staged {
        if !entry.is_file() {
            return Err(not_what_was_pulled(path, "it was not staged as a regular file"));
        }
        if known.get(path).is_some_and(|before| before.object == entry.object) {
            continue;
        }
        let blob = blob_of_file(&folder.join(path_of(path)), entry.object.format()).map_err(StagingError::Io)?;
        if blob != entry.object {
            return Err(not_what_was_pulled(path, "the content differs"));
        }
    }
    Ok(())
}

/// Removes what git cannot hold, which is all that is named `.git` in any case, and says what that was.
///
/// An empty one would stop `git add` altogether, and one with commits would hide what lies beside it.
///
/// # Errors
/// What the disk says.
pub fn withdraw_unstorable(folder: &Path) -> io::Result<Vec<String>> {
    let mut withdrawn = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).map_err(|error| scratch::at(&path, &error))? {
            let entry = entry?;
            if entry.file_name().eq_ignore_ascii_case(".git") {
                let path = entry.path();
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                if entry.file_type()?.is_dir() {
                    let below = walk(&path)?;
                    withdrawn.extend(below.iter().map(|file| format!("{name}/{}", String::from_utf8_lossy(file))));
                } else {
                    withdrawn.push(name);
                }
                scratch::remove_folder(&path)?;
            } else if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(withdrawn)
}

fn not_what_was_pulled(path: &[u8], why: &str) -> StagingError {
    let path = printable(&String::from_utf8_lossy(path));
    StagingError::Differs(format!("git did not stage what wmill pulled: `{path}`: {why}; nothing was committed"))
}

/// The paths of all files below `folder`, relative to it.
fn walk(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut pending = vec![(folder.to_owned(), Vec::new())];
    while let Some((path, prefix)) = pending.pop() {
        for entry in fs::read_dir(&path).map_err(|error| scratch::at(&path, &error))? {
            let entry = entry?;
            let mut name = prefix.clone();
            name.extend_from_slice(entry.file_name().as_encoded_bytes());
            if entry.file_type()?.is_dir() {
                name.push(b'/');
                pending.push((entry.path(), name));
            } else {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// A path of git's as one of the system's.
fn path_of(path: &[u8]) -> PathBuf {
    #[cfg(unix)]
    {
        PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path))
    }
    #[cfg(not(unix))]
    {
        PathBuf::from(String::from_utf8_lossy(path).into_owned())
    }
}

fn blob_of_file(path: &Path, format: ObjectFormat) -> io::Result<ObjectId> {
    let read = || {
        let file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        ObjectId::of_blob(file, length, format)
    };
    read().map_err(|error| scratch::at(path, &error))
}
