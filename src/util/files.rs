//! Files and folders that only our user may read, and the folder of a run: empty when the run starts, removed when it
//! ends.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::iter;
use std::path::{Path, PathBuf};

use crate::util::Volume;

/// Creates a folder and its parents, readable by our user only. A file in its place, or a link to nothing, is removed
/// first.
///
/// # Errors
/// Returns the system's error, with the path.
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

/// Removes a folder with its content. It is not an error if it does not exist. If access is denied, folders of our user
/// are made accessible first.
///
/// # Errors
/// Returns the system's error, with the path.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // `path`, or a parent of it, is a file or a link. If it is `path`, it is removed, but not the target of a link.
        // If it is a parent, there is nothing to remove.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
            result => result,
        },
        #[cfg(unix)]
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folder(path);
            // A folder is read after all of its siblings were made accessible.
            entries_below(path).for_each(|entry| open_folder(&entry.path()));
            fs::remove_dir_all(path)
        }
        result => result,
    };
    removed.map_err(|error| at(path, &error))
}

/// Makes a folder of our user accessible to us. A failure is ignored here and appears when the folder is used.
pub fn open_folder(path: &Path) {
    #[cfg(unix)]
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
        use std::os::unix::fs::PermissionsExt as _;
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Returns all entries below a folder, each folder before its content. Entries that cannot be read are skipped. Links
/// are not followed.
pub fn entries_below(folder: &Path) -> impl Iterator<Item = DirEntry> {
    let mut pending = vec![folder.to_owned()];
    let contents = iter::from_fn(move || {
        let content: Vec<_> = fs::read_dir(pending.pop()?).into_iter().flatten().flatten().collect();
        let folders = content.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        pending.extend(folders.map(DirEntry::path));
        Some(content)
    });
    contents.flatten()
}

/// Returns the total size of the files below a folder.
pub fn bytes_in(folder: &Path) -> u64 {
    let files = entries_below(folder).filter_map(|entry| entry.metadata().ok()).filter(|about| !about.is_dir());
    files.map(|about| about.len()).fold(0, u64::saturating_add)
}

/// Removes a file. It is not an error if it does not exist.
///
/// # Errors
/// Returns the system's error, with the path.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| at(path, &error)),
    }
}

/// Opens a file of this service for reading and writing, and creates it with mode 0600 if it is missing. If it is
/// overwritten, or is a folder, link, FIFO or device, it is removed first: a link, even a hard link, may lead to a file
/// of another user.
///
/// # Errors
/// Returns the system's error, with the path.
pub fn open_file(path: &Path, is_overwritten: bool) -> io::Result<File> {
    if is_overwritten {
        remove_folder(path)?;
    } else {
        make_way(path)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    open_regular(&mut options, path)
}

/// Removes everything at the path of a file except a regular file. A regular file with content and a second hard link
/// is removed too, because a write would change both.
///
/// # Errors
/// Returns the system's error, with the path.
pub fn make_way(path: &Path) -> io::Result<()> {
    let Ok(about) = fs::symlink_metadata(path) else { return Ok(()) };
    #[cfg(unix)]
    let has_other_names = std::os::unix::fs::MetadataExt::nlink(&about) > 1;
    #[cfg(not(unix))]
    let has_other_names = false;
    if about.is_file() && !(has_other_names && about.len() > 0) { Ok(()) } else { remove_folder(path) }
}

/// Opens a file without following a link, and without waiting for the other end of a FIFO.
///
/// # Errors
/// Returns the system's error, with the path; `InvalidData` if it is not a regular file.
pub fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits().cast_signed());
    }
    let open = || {
        let file = options.open(path)?;
        let is_regular = file.metadata()?.is_file();
        is_regular.then_some(file).ok_or(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"))
    };
    open().map_err(|error| at(path, &error))
}

/// Reads the first `bytes_max` bytes of a file of this service, which has to be a regular file and not a link.
///
/// # Errors
/// Returns the system's error, with the path.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(OpenOptions::new().read(true), path)?;
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content).map_err(|error| at(path, &error))?;
    Ok(content)
}

/// Reads a file that a setting names, which may be a link.
///
/// # Errors
/// Returns what is wrong with it: the system's error, it is not a regular file, or it has more than `bytes_max` bytes.
pub fn read_named_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let in_words = |error: io::Error| error.to_string();
    // This is checked before opening, because opening a named pipe waits for a writer.
    if !fs::metadata(path).map_err(in_words)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(in_words)?;
    file.take(bytes_max + 1).read_to_end(&mut content).map_err(in_words)?;
    if content.len() as u64 > bytes_max {
        Err(format!("it has more than {} KiB", bytes_max >> 10))
    } else {
        Ok(content)
    }
}

/// Removes the FIFOs, sockets and devices below a folder, which git ignores and does not remove.
///
/// # Errors
/// Returns the system's error, with the path.
#[cfg(unix)]
pub fn remove_special_files(folder: &Path) -> io::Result<()> {
    for entry in entries_below(folder) {
        if entry.file_type().is_ok_and(|kind| !kind.is_dir() && !kind.is_file() && !kind.is_symlink()) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file that only our user may read.
///
/// # Errors
/// Returns the system's error, with the path.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    open_file(path, true)?.write_all(content).map_err(|error| at(path, &error))
}

/// Replaces the file at `path` in one step: after a crash, either the old or the new file exists.
///
/// # Errors
/// Returns the system's error, with the path.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    // An existing file stays until the new one is complete; a folder is removed first.
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
        remove_folder(path)?;
    }
    let mut file = open_file(&temporary, true)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| at(&temporary, &error))?;
    fs::rename(&temporary, path).map_err(|error| at(path, &error))
}

/// Returns an error with the path at which it happened.
pub fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The folder of one run.
pub struct RunDir {
    path: PathBuf,
    /// Its volume, with the free space to leave, which was computed when the run began.
    pub volume: Volume,
}

impl RunDir {
    /// Creates an empty folder at `path`. Files that a killed run left there are removed first, including its secrets.
    ///
    /// # Errors
    /// Returns the system's error, with the path.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        remove_folder(&path)?;
        create_folder(&path)?;
        Ok(Self { volume: Volume::of(&path), path })
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into it, and returns the path of the file.
    ///
    /// # Errors
    /// Returns the system's error, with the path.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        write_file(&path, content)?;
        Ok(path)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_or_folder_is_replaced_and_the_target_of_a_link_is_unchanged() {
        let run = RunDir::for_test("files").unwrap();
        let (path, outside) = (run.path().join("own"), run.path().join("outside"));
        let check_outside = || assert_eq!(fs::read(&outside).unwrap(), b"outside");
        fs::write(&outside, "outside").unwrap();
        let places: [(&str, &dyn Fn()); 4] = [
            ("link", &|| symlink(&outside, &path).unwrap()),
            ("dangling link", &|| symlink(run.path().join("nothing"), &path).unwrap()),
            ("hard link", &|| fs::hard_link(&outside, &path).unwrap()),
            ("folder", &|| fs::create_dir_all(path.join("a")).unwrap()),
        ];
        for (name, put) in places {
            put();
            write_file(&path, b"ours").unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(read_file(&path, 100).unwrap(), b"ours", "{name}");
            check_outside();
            remove_file(&path).unwrap();
            put();
            replace_file(&path, b"ours").unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(read_file(&path, 100).unwrap(), b"ours", "{name}");
            check_outside();
            remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_fifo_is_refused_or_removed_without_waiting() {
        let run = RunDir::for_test("fifo").unwrap();
        let path = run.path().join("fifo");
        let make = || rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        make();
        assert_eq!(read_file(&path, 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(open_file(&path, false).unwrap().metadata().unwrap().is_file());
        remove_file(&path).unwrap();
        make();
        remove_special_files(run.path()).unwrap();
        assert!(!path.exists());
        symlink("elsewhere", &path).unwrap();
        assert!(read_file(&path, 1).is_err(), "a link is not followed");
    }
}

#[cfg(test)]
impl RunDir {
    /// Creates the folder of a unit test. It is below the package, the only part of the disk that tests within WASI
    /// see.
    pub(crate) fn for_test(name: &str) -> io::Result<Self> {
        // Within WASI there are no processes, and so no process ids.
        let process = if cfg!(unix) { std::process::id() } else { 0 };
        Self::new(std::env::current_dir()?.join(format!("target/tmp/{name}-{process}")))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.path) {
            log::warn!("cannot remove the folder of a run: {error}");
        }
    }
}
