//! Whether what git staged is what lies in the folder: the same paths, all of them regular files, each with its content.
//! It reads the folder itself and computes the ids itself, so that no setting of git's can come in between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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

/// The paths that a pull left in a folder, noted before git takes them.
pub struct Stock {
    folder: PathBuf,
    paths: Listing,
    /// What was removed since git cannot hold it.
    pub withdrawn: Sample,
}

impl Stock {
    /// Notes at `place` what lies in `folder`, and removes what git cannot hold. On a disk that is all that is named
    /// `.git` in any case: no file has another name that is not storable.
    ///
    /// An empty one would stop `git add` altogether, and one with commits would hide what lies beside it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn take(folder: &Path, place: PathBuf) -> io::Result<Self> {
        let mut withdrawn = Sample::default();
        let paths = Listing::write(place, |lines| {
            for file in walk(folder, names::is_gits_own)? {
                let (path, place) = file?;
                if place.file_name().is_some_and(|name| names::is_gits_own(name.as_encoded_bytes())) {
                    withdraw(&path, &place, &mut withdrawn)?;
                } else {
                    // Only the path is read again.
                    lines.nothing(&path, ObjectFormat::Sha1.digits())?;
                }
            }
            Ok(())
        })?;
        Ok(Self { folder: folder.to_owned(), paths, withdrawn })
    }

    /// Checks that what git `staged` are those paths, each with what lies there. What `known` has with the same content
    /// was not written by wmill, and is taken as checked out by git.
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
            // A name that is no UTF-8 is not one that wmill wrote.
            let place = std::str::from_utf8(&path).map(|path| self.folder.join(path));
            let place = place.map_err(|_| not_what_was_pulled(&path, "the name is not UTF-8"))?;
            match blob_of_file(&place, entry.object.format()) {
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

/// Removes a file or folder, and tells of each file that was in it.
fn withdraw(path: &[u8], place: &Path, withdrawn: &mut Sample) -> io::Result<()> {
    if fs::symlink_metadata(place)?.is_dir() {
        for below in walk(place, |_| false)? {
            withdrawn.add(&[path, b"/", &below?.0].concat());
        }
    } else {
        withdrawn.add(path);
    }
    scratch::remove_folder(place)
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
