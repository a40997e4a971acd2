//! The free space of the volume that a run writes to: watched, so that a run ends before the disk is full.

use std::io;
use std::path::{Path, PathBuf};

/// A run that leaves less than this free is ended: other programs write to the same disk, logs and databases among them.
pub const FREE_BYTES_MIN: u64 = 64 << 20;
/// On a smaller volume, of which the minimum would be a large part, a run may take half of what is free at its start.
const SMALL_VOLUME_BYTES: u64 = 4 * FREE_BYTES_MIN;

/// A volume, and how much a run leaves free there.
#[derive(Clone, Debug)]
pub struct Volume {
    path: PathBuf,
    bytes_reserved: u64,
}

impl Volume {
    /// The one that `path` lies on. Where the system tells nothing of it, nothing is reserved.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let bytes_reserved = match space(path) {
            Some((total, _)) if total >= SMALL_VOLUME_BYTES => FREE_BYTES_MIN,
            Some((_, free)) => FREE_BYTES_MIN.min(free / 2),
            None => 0,
        };
        Self { path: path.to_owned(), bytes_reserved }
    }

    /// Whether there is enough free space to write on.
    ///
    /// # Errors
    /// `StorageFull`, with what is free and what is to be.
    pub fn check(&self) -> io::Result<()> {
        match space(&self.path) {
            Some((_, free)) if free < self.bytes_reserved => {
                let why = format!(
                    "the volume of DATA_DIR is nearly full: {} KiB are free, and a run leaves {} KiB free",
                    free >> 10,
                    self.bytes_reserved >> 10
                );
                Err(io::Error::new(io::ErrorKind::StorageFull, why))
            }
            _ => Ok(()),
        }
    }
}

/// How large the volume is, and how much of it is free to us, in bytes.
#[cfg(unix)]
fn space(path: &Path) -> Option<(u64, u64)> {
    let about = rustix::fs::statvfs(path).ok()?;
    Some((about.f_blocks.saturating_mul(about.f_frsize), about.f_bavail.saturating_mul(about.f_frsize)))
}

#[cfg(not(unix))]
fn space(_: &Path) -> Option<(u64, u64)> {
    None
}
