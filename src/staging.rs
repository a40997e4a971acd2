//! Whether what git staged is what lies in the folder: the same paths, all of them regular files, each with its content.
//! It reads the folder itself and computes the ids itself, so that no setting of git's can come in between.

use std::fs;
use std::io;
use std::path::Path;

use crate::comparison::{Sample, printable};
use crate::listing::{Listing, join, walk};
use crate::names;
use crate::object::{ObjectFormat, ObjectId};
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
pub fn verify(staged: &Listing, folder: &Path, known: &Listing) -> Result<(), StagingError> {
    let read = || Ok::<_, io::Error>(join(join(staged.entries()?, walk(folder)?), known.entries()?));
    for file in read().map_err(StagingError::Io)? {
        let (path, (pulled, before)) = file.map_err(StagingError::Io)?;
        let (entry, place) = match pulled {
            Some((Some(entry), Some(place))) => (entry, place),
            Some((None, _)) => return Err(not_what_was_pulled(&path, "it was pulled and not staged")),
            Some((_, None)) => return Err(not_what_was_pulled(&path, "it was staged and not pulled")),
            None => continue,
        };
        if !entry.is_file() {
            return Err(not_what_was_pulled(&path, "it was not staged as a regular file"));
        }
        if before.is_some_and(|before| before.object == entry.object) {
            continue;
        }
        if blob_of_file(&place, entry.object.format()).map_err(StagingError::Io)? != entry.object {
            return Err(not_what_was_pulled(&path, "the content differs"));
        }
    }
    Ok(())
}

/// Removes what git cannot hold, and says what that was. On a disk that is all that is named `.git` in any case: no file
/// has another name that is not storable.
///
/// An empty one would stop `git add` altogether, and one with commits would hide what lies beside it.
///
/// # Errors
/// What the disk says.
pub fn withdraw_unstorable(folder: &Path) -> io::Result<Sample> {
    let mut withdrawn = Sample::default();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).map_err(|error| scratch::at(&path, &error))? {
            let entry = entry?;
            if names::is_gits_own(entry.file_name().as_encoded_bytes()) {
                let path = entry.path();
                let name = path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_encoded_bytes().to_vec();
                if entry.file_type()?.is_dir() {
                    for below in walk(&path)? {
                        withdrawn.add(&[&name, &b"/"[..], &below?.0].concat());
                    }
                } else {
                    withdrawn.add(&name);
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
    let path = printable(path);
    StagingError::Differs(format!("git did not stage what wmill pulled: `{path}`: {why}; nothing was committed"))
}

fn blob_of_file(path: &Path, format: ObjectFormat) -> io::Result<ObjectId> {
    let read = || {
        let file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        ObjectId::of_blob(file, length, format)
    };
    read().map_err(|error| scratch::at(path, &error))
}
