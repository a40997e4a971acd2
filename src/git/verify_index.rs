//! Verifies that git staged the files that are in the folder: the same paths, only regular files, each with its
//! content.
//!
//! It walks the folder and computes the object ids itself, so that no setting of git can interfere.

use std::fs;
use std::io;
use std::path::Path;

use crate::git::ls_tree::{Listing, join, walk};
use crate::git::object::{ObjectFormat, ObjectId};
use crate::git::tree_diff::printable;
use crate::util::files;

/// Checks that git `staged` exactly the files in `folder`, each with its content. An entry that has the same content in
/// `known` is not read again: git checked it out, and wmill did not change it. Returns what differs first.
///
/// # Errors
/// Fails if the folder cannot be read.
pub fn verify(folder: &Path, staged: &Listing, known: &Listing) -> io::Result<Option<String>> {
    for found in join(join(staged.entries()?, walk(folder)?), known.entries()?) {
        let (path, (pulled, before)) = found?;
        let why = match pulled {
            None => continue,
            Some((None, _)) => "it was pulled and not staged",
            Some((_, None)) => "it was staged and not pulled",
            Some((Some(entry), _)) if !entry.is_file() => "it was not staged as a regular file",
            Some((Some(entry), _)) if before.is_some_and(|before| before.object == entry.object) => continue,
            Some((Some(entry), Some(file))) if blob_of_file(&file, entry.object.format())? == entry.object => continue,
            Some(_) => "the content differs",
        };
        let path = printable(&path);
        return Ok(Some(format!("git did not stage what wmill pulled: `{path}`: {why}; nothing was committed")));
    }
    Ok(None)
}

/// Computes the id that git gives to the content of a file.
///
/// # Errors
/// Fails on an I/O error, with the path.
fn blob_of_file(path: &Path, format: ObjectFormat) -> io::Result<ObjectId> {
    let file = files::open_regular(fs::File::options().read(true), path)?;
    let length = file.metadata().map_err(|error| files::at(path, &error))?.len();
    ObjectId::of_blob(file, length, format).map_err(|error| files::at(path, &error))
}
