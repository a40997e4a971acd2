//! Verifies that git staged the files that are in the folder: the same paths, only regular files, each with its
//! content.
//!
//! It walks the folder and computes the object ids itself, so that no setting of git can interfere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::git::ls_tree::{Listing, join, walk};
use crate::git::object::{self, ObjectFormat, ObjectId};
use crate::git::tree_diff::{Sample, printable};
use crate::model::names;
use crate::util::files;

/// The paths that a pull left in a folder, recorded before git stages them.
pub struct PulledFiles {
    folder: PathBuf,
    paths: Listing,
    /// The files that were removed because git cannot store them.
    pub removed: Sample,
}

impl PulledFiles {
    /// Writes the paths of the files in `folder` to `file`, and removes what git cannot store. On a disk, that is only
    /// a file or folder named `.git` in upper or lower case: git can store every other name.
    ///
    /// An empty `.git` folder would make `git add` fail, and one with commits would hide the files beside it.
    ///
    /// # Errors
    /// Fails on an I/O error.
    pub fn take(folder: &Path, file: PathBuf) -> io::Result<Self> {
        let mut removed = Sample::default();
        let paths = Listing::write(file, |lines| {
            for file in walk(folder, names::is_gits_own)? {
                let (path, file) = file?;
                if file.file_name().is_some_and(|name| names::is_gits_own(name.as_encoded_bytes())) {
                    withdraw(&path, &file, &mut removed)?;
                } else {
                    // Only the path is read again.
                    lines.nothing(&path, object::digits(ObjectFormat::Sha1))?;
                }
            }
            Ok(())
        })?;
        Ok(Self { folder: folder.to_owned(), paths, removed })
    }

    /// Checks that git `staged` exactly these paths, each with the content in the folder. An entry that has the same
    /// content in `known` is not read again: git checked it out, and wmill did not change it. Returns what differs first.
    ///
    /// # Errors
    /// Fails if the folder cannot be read.
    pub fn verify(&self, staged: &Listing, known: &Listing) -> io::Result<Option<String>> {
        for file in join(join(staged.entries()?, self.paths.entries()?), known.entries()?) {
            let (path, (pulled, before)) = file?;
            let why = match pulled {
                None => continue,
                Some((None, _)) => "it was pulled and not staged",
                Some((_, None)) => "it was staged and not pulled",
                Some((Some(entry), _)) if !entry.is_file() => "it was not staged as a regular file",
                Some((Some(entry), _)) if before.is_some_and(|before| before.object == entry.object) => continue,
                Some((Some(entry), _)) => match self.blob(&path, entry.object.format())? {
                    Ok(blob) if blob == entry.object => continue,
                    Ok(_) => "the content differs",
                    Err(why) => why,
                },
            };
            let path = printable(&path);
            return Ok(Some(format!("git did not stage what wmill pulled: `{path}`: {why}; nothing was committed")));
        }
        Ok(None)
    }

    fn blob(&self, path: &[u8], format: ObjectFormat) -> io::Result<Result<ObjectId, &'static str>> {
        // wmill writes only names in UTF-8.
        let Ok(path) = std::str::from_utf8(path) else { return Ok(Err("the name is not UTF-8")) };
        match blob_of_file(&self.folder.join(path), format) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err("it is gone")),
            blob => blob.map(Ok),
        }
    }
}

/// Removes a file or folder, and adds each file that was in it to `removed`.
fn withdraw(path: &[u8], file: &Path, removed: &mut Sample) -> io::Result<()> {
    if fs::symlink_metadata(file)?.is_dir() {
        for below in walk(file, |_| false)? {
            removed.add(&[path, b"/", &below?.0].concat());
        }
    } else {
        removed.add(path);
    }
    files::remove_folder(file)
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
