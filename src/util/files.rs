//! Files and folders that nobody but us may read, and the folder of a run that is empty when it starts and gone when
//! it ends. It does not know what is written there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Creates a folder, with all that lead to it, readable by us alone. A file in its place, or a link that leads
/// nowhere, gives way.
///
/// # Errors
/// What the system says, with the path.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let created = builder.create(path).or_else(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        fs::remove_file(path)?;
        builder.create(path)
    });
    created.map_err(|error| at(path, &error))
}

/// Removes a folder with all in it; one that is not there is as good. A folder of ours that we may not look into is
/// opened first.
///
/// # Errors
/// What the system says, with the path.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A file or a link where a folder belongs; what a link points at stays. Above it, it is as good as not there.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
            result => result.map_err(|error| at(path, &error)),
        },
        #[cfg(unix)]
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(path);
            fs::remove_dir_all(path).map_err(|error| at(path, &error))
        }
        result => result.map_err(|error| at(path, &error)),
    }
}

/// Gives us back the folders below `path`, itself included, as far as they are ours. Links are not followed.
#[cfg(unix)]
fn open_folders(path: &Path) {
    let mut pending = vec![path.to_owned()];
    while let Some(folder) = pending.pop() {
        open_folder(&folder);
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        pending.extend(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()));
    }
}

/// Lets us into a folder of ours that is closed to us. Whoever needs it says what came of it.
pub fn open_folder(path: &Path) {
    #[cfg(unix)]
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
        use std::os::unix::fs::PermissionsExt as _;
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
    #[cfg(not(unix))]
    let _ = path;
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
    // A folder is no file of ours; the file that is there stays until the new one is whole.
    for place in [path, &temporary] {
        if place.is_dir() {
            remove_folder(place)?;
        }
    }
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

#[cfg(test)]
impl Scratch {
    /// The folder of a unit test. It lies below the package, which is all that tests within WASI see of a disk.
    pub(crate) fn for_test(name: &str) -> io::Result<Self> {
        // Within WASI there are no processes, and none has an id.
        let process = if cfg!(unix) { std::process::id() } else { 0 };
        Self::new(std::env::current_dir()?.join(format!("target/tmp/{name}-{process}")))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.path) {
            log::warn!("cannot remove the folder of a run: {error}");
        }
    }
}
