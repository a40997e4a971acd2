//! Files and folders that nobody but us may read, and the folder of a run that is empty when it starts and gone when
//! it ends. It does not know what is written there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Creates a folder, with all that lead to it, readable by us alone.
///
/// # Errors
/// What the system says, with the path.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| at(path, &error))
}

/// Removes a folder with all in it; one that is not there is as good.
///
/// # Errors
/// What the system says, with the path.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A file or a link where a folder belongs; what a link points at stays.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            fs::remove_file(path).map_err(|error| at(path, &error))
        }
        result => result.map_err(|error| at(path, &error)),
    }
}

/// Removes a file; one that is not there is as good.
///
/// # Errors
/// What the system says, with the path.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| at(path, &error)),
    }
}

/// Opens a file for reading and writing, created with mode 0600 where it is missing.
///
/// # Errors
/// What the system says, with the path.
pub fn open_file(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| at(path, &error))
}

/// Reads the first `bytes_max` bytes of a file.
///
/// # Errors
/// What the system says, with the path.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut content));
    read.map(|_| content).map_err(|error| at(path, &error))
}

/// Writes a file that only we may read.
///
/// # Errors
/// What the system says, with the path.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    open_file(path, true)?.write_all(content).map_err(|error| at(path, &error))
}

/// Puts `content` in place of the file at `path` in one step: after a crash there is the old file or the new one.
///
/// # Errors
/// What the system says, with the path.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = open_file(&temporary, true)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| at(&temporary, &error))?;
    fs::rename(&temporary, path).map_err(|error| at(path, &error))
}

/// An error with the path that it happened at.
#[must_use]
pub fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The folder of one run.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// An empty folder at `path`. What a killed run left there is removed first, its secrets included.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        remove_folder(&path)?;
        create_folder(&path)?;
        Ok(Self { path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it; the path of the file.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        write_file(&path, content)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.path) {
            log::warn!("cannot remove the folder of a run: {error}");
        }
    }
}
