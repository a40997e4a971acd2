//! Files and folders that only our user may read, and the folder of a run: empty when the run starts, gone when it
//! ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::util::volume::Volume;

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

/// Makes a folder of ours accessible to us. A failure shows where the folder is used.
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

/// Opens a file of this service for reading and writing, created with mode 0600 where it is missing. A folder, a link, a
/// FIFO or a device in its place gives way; what a link points at stays.
///
/// # Errors
/// What the system says, with the path.
pub fn open_file(path: &Path, truncate: bool) -> io::Result<File> {
    make_way(path, truncate)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(truncate);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    open_regular(&mut options, path)
}

/// Removes what is at the place of a file and is not a regular file.
///
/// # Errors
/// What the system says, with the path.
pub fn make_way_for_file(path: &Path) -> io::Result<()> {
    make_way(path, false)
}

/// A hard link to a file with content gives way too, since what is written would be in that file. An empty one may be a
/// lock that somebody holds, in a data folder that was copied by links.
fn make_way(path: &Path, is_overwritten: bool) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => remove_folder(path),
        Ok(about) if about.is_file() && !(has_other_names(&about) && (is_overwritten || about.len() > 0)) => Ok(()),
        Ok(_) => remove_file(path),
        // What is wrong shows when it is opened.
        Err(_) => Ok(()),
    }
}

#[cfg(unix)]
fn has_other_names(about: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(about) > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &fs::Metadata) -> bool {
    false
}

/// Opens a file without following a link, and without waiting for the other end of a FIFO.
///
/// # Errors
/// What the system says, with the path; `InvalidData` for what is not a regular file.
pub fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits().cast_signed());
    }
    let file = options.open(path).map_err(|error| at(path, &error))?;
    if file.metadata().map_err(|error| at(path, &error))?.is_file() {
        return Ok(file);
    }
    Err(at(path, &io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file")))
}

/// Reads the first `bytes_max` bytes of a file of this service, which is a regular file and not a link.
///
/// # Errors
/// What the system says, with the path.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(OpenOptions::new().read(true), path)?;
    read(file, path, bytes_max)
}

/// The same of a file that a setting or an option names: it may be a link or a FIFO.
///
/// # Errors
/// What the system says, with the path.
pub fn read_named_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read(File::open(path).map_err(|error| at(path, &error))?, path, bytes_max)
}

fn read(file: File, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(bytes_max).read_to_end(&mut content).map_err(|error| at(path, &error))?;
    Ok(content)
}

/// Removes the FIFOs, sockets and devices below a folder, which git neither sees nor removes.
///
/// # Errors
/// What the system says, with the path.
#[cfg(unix)]
pub fn remove_special_files(folder: &Path) -> io::Result<()> {
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if !kind.is_file() && !kind.is_symlink() => remove_file(&entry.path())?,
                _ => {}
            }
        }
    }
    Ok(())
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
    // The file that is there stays until the new one is whole; a folder gives way.
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
        remove_folder(path)?;
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
pub struct RunDir {
    path: PathBuf,
    volume: Volume,
}

impl RunDir {
    /// An empty folder at `path`. What a killed run left there is removed first, its secrets included.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        remove_folder(&path)?;
        create_folder(&path)?;
        Ok(Self { volume: Volume::of(&path), path })
    }

    /// The volume that it lies on, as it was when the run began.
    #[must_use]
    pub fn volume(&self) -> &Volume {
        &self.volume
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

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_not_a_regular_file_gives_way_and_what_it_leads_to_stays() {
        let run = RunDir::for_test("files").unwrap();
        let (path, outside) = (run.path().join("own"), run.path().join("outside"));
        let stays = || assert_eq!(fs::read(&outside).unwrap(), b"outside");
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
            stays();
            remove_file(&path).unwrap();
            put();
            replace_file(&path, b"ours").unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(read_file(&path, 100).unwrap(), b"ours", "{name}");
            stays();
            remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_fifo_is_neither_waited_for_nor_read() {
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
    /// The folder of a unit test. It lies below the package, which is all that tests within WASI see of a disk.
    pub(crate) fn for_test(name: &str) -> io::Result<Self> {
        // Within WASI there are no processes, and none has an id.
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
