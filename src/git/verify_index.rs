//! Verifies that git staged the files that are in the folder: the same paths, only regular files, each with its
//! content.
//!
//! It walks the folder and computes the object ids itself, so that no setting of git can interfere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::git::ls_tree::{Listing, join, walk};
use crate::git::object::{ObjectFormat, ObjectId};
use crate::git::tree_diff::{Sample, printable};
use crate::model::names;
use crate::util::files;

/// Why the staged files are not trusted.
#[derive(Debug)]
pub enum StagingError {
    /// A path differs; the message names it.
    Differs(String),
    /// The folder cannot be read.
    Io(io::Error),
}

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
                    lines.nothing(&path, ObjectFormat::Sha1.digits())?;
                }
            }
            Ok(())
        })?;
        Ok(Self { folder: folder.to_owned(), paths, removed })
    }

    /// Checks that git `staged` exactly these paths, each with the content in the folder. An entry that has the same
    /// content in `known` is not read again: git checked it out, and wmill did not change it.
    ///
    /// # Errors
    /// [`StagingError`].
    pub fn verify(&self, staged: &Listing, known: &Listing) -> Result<(), StagingError> {
        let read = || Ok::<_, io::Error>(join(join(staged.entries()?, self.paths.entries()?), known.entries()?));
        for file in read().map_err(StagingError::Io)? {
            let (path, (pulled, before)) = file.map_err(StagingError::Io)?;
            let entry = match pulled {
                Some((Some(entry), Some(_))) => entry,
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
            // wmill writes only names in UTF-8.
            let file = std::str::from_utf8(&path).map(|path| self.folder.join(path));
            let file = file.map_err(|_| not_what_was_pulled(&path, "the name is not UTF-8"))?;
            match blob_of_file(&file, entry.object.format()) {
                Ok(blob) if blob == entry.object => {}
                Ok(_) => return Err(not_what_was_pulled(&path, "the content differs")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(not_what_was_pulled(&path, "it is gone"));
                }
                Err(error) => return Err(StagingError::Io(error)),
            }
        }
        Ok(())
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

fn not_what_was_pulled(path: &[u8], why: &str) -> StagingError {
    let path = printable(path);
    StagingError::Differs(format!("git did not stage what wmill pulled: `{path}`: {why}; nothing was committed"))
}

/// Computes the id that git gives to the content of a file.
///
/// # Errors
/// Fails on an I/O error, with the path.
pub fn blob_of_file(path: &Path, format: ObjectFormat) -> io::Result<ObjectId> {
    let file = files::open_regular(fs::File::options().read(true), path)?;
    let length = file.metadata().map_err(|error| files::at(path, &error))?.len();
    ObjectId::of_blob(file, length, format).map_err(|error| files::at(path, &error))
}
