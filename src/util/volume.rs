//! The free space of the volume that a run writes to. A run checks it, so that it ends before the disk is full.

use std::io;
use std::path::{Path, PathBuf};

/// The free space that a run has to leave. A run that leaves less is ended, because other programs, such as databases,
/// write to the same disk.
pub const FREE_BYTES_MIN: u64 = 64 << 20;
/// On a smaller volume, the minimum would be a large part, so a run may use half of the space that is free at its
/// start.
const SMALL_VOLUME_BYTES: u64 = 4 * FREE_BYTES_MIN;

/// A volume, and how much free space a run leaves on it.
#[derive(Clone, Debug)]
pub struct Volume {
    path: PathBuf,
    bytes_reserved: u64,
}

impl Volume {
    /// Returns the volume of `path`. If the system does not report its size, nothing is reserved.
    pub fn of(path: &Path) -> Self {
        let bytes_reserved = match space(path) {
            Some((total, _)) if total >= SMALL_VOLUME_BYTES => FREE_BYTES_MIN,
            Some((_, free)) => FREE_BYTES_MIN.min(free / 2),
            None => 0,
        };
        Self { path: path.to_owned(), bytes_reserved }
    }

    /// Checks that there is enough free space to continue writing. Returns how many bytes a run may still write; the
    /// largest number if the system does not report it.
    ///
    /// # Errors
    /// Returns `StorageFull` if there is not, with the space that is free and the space that has to be free.
    pub fn check(&self) -> io::Result<u64> {
        let free = space(&self.path).map_or(u64::MAX, |(_, free)| free);
        if let Some(left) = free.checked_sub(self.bytes_reserved) {
            return Ok(left);
        }
        let why = format!(
            "the volume of DATA_DIR is nearly full: {} KiB are free, and a run leaves {} KiB free",
            free >> 10,
            self.bytes_reserved >> 10
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }
}

/// Returns the size of the volume and the free space that our user may use, in bytes.
#[cfg(unix)]
pub fn space(path: &Path) -> Option<(u64, u64)> {
    let about = rustix::fs::statvfs(path).ok()?;
    Some((about.f_blocks.saturating_mul(about.f_frsize), about.f_bavail.saturating_mul(about.f_frsize)))
}

/// Returns `None`: the system does not report it.
#[cfg(not(unix))]
pub fn space(_: &Path) -> Option<(u64, u64)> {
    None
}
