//! The error of a step of a run: the result code, the message, and whether another attempt may help.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::model::Code;
use crate::util::{Expired, Failure, Retry};

/// The result of a step of a run.
pub type Result<T, E = BackupError> = std::result::Result<T, E>;

/// Why a step of a run failed.
#[derive(Debug, PartialEq, Eq)]
pub struct BackupError {
    /// The result code of the run.
    pub code: Code,
    /// What was tried, on what, and why it failed. It is empty if the run was ended, until [`Self::explained`] sets it.
    pub message: String,
    /// Whether another attempt may help.
    pub retry: Retry,
}

impl BackupError {
    /// Creates an error that another attempt cannot fix.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Never }
    }

    /// Creates the error of a checkout that cannot be used, or of a git that cannot work. A new checkout may help.
    pub fn damage(message: impl Into<String>) -> Self {
        Self { code: Code::GitFailed, message: message.into(), retry: Retry::NewCheckout }
    }

    /// Creates the error for a thread or a socket that the system does not give.
    pub fn of_system(error: &io::Error) -> Self {
        Self::new(Code::Internal, error.to_string())
    }

    /// Whether the time is over, or the service is shutting down.
    pub fn is_end_of_run(&self) -> bool {
        matches!(self.code, Code::Timeout | Code::ShuttingDown)
    }

    /// Adds the message to the error of a run that was ended: the one for a timeout, or the one for a process that is
    /// ending. Only the caller knows what the run was doing.
    pub fn explained(self, timed_out: String, cancelled: String) -> Self {
        let message = match self.code {
            _ if !self.message.is_empty() => return self,
            Code::ShuttingDown => cancelled,
            _ => timed_out,
        };
        Self { message, ..self }
    }
}

impl From<Expired> for BackupError {
    fn from(expired: Expired) -> Self {
        Self::new(expired.into(), "")
    }
}

/// Converts an error of the data folder's disk. A new checkout repairs what is damaged, has the wrong type or cannot be
/// accessed. It is also smaller, which helps on a full disk.
impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{
            AlreadyExists, DirectoryNotEmpty, InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied,
            QuotaExceeded, StorageFull,
        };
        let retry = match error.kind() {
            AlreadyExists | DirectoryNotEmpty | InvalidData | IsADirectory | NotADirectory | NotFound
            | PermissionDenied | QuotaExceeded | StorageFull => Retry::NewCheckout,
            _ => Retry::Never,
        };
        let (code, message) = match error.kind() {
            PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
                Code::ConfigInvalid,
                format!(
                    "DATA_DIR cannot be written ({error}): give it to the user that the service runs as, e.g. `docker run \
                     --rm --volume windmill-workspace-data:/workspace debian:trixie-slim chown 65532:0 /workspace`"
                ),
            ),
            // The export exceeds a limit.
            io::ErrorKind::FileTooLarge => (Code::PullFailed, error.to_string()),
            _ => (Code::Internal, format!("DATA_DIR cannot be written or read: {error}")),
        };
        Self { code, message, retry }
    }
}

impl Failure for BackupError {
    fn parts(&mut self) -> (&mut String, Retry) {
        (&mut self.message, self.retry)
    }
}

/// Runs `work`, and turns a panic in it into an internal error. The text of the panic is in the log.
///
/// # Errors
/// The error of `work`, or an internal error if it panics.
pub fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(BackupError::new(Code::Internal, "internal error; the log has more")))
}

// WebAssembly has no unwinding.
#[cfg(all(test, panic = "unwind"))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_error() {
        assert_eq!(catch_panic(|| Ok(1)).ok(), Some(1));
        let error = catch_panic::<()>(|| panic!("a secret")).expect_err("it panics");
        assert_eq!(error.code, Code::Internal);
        assert!(!error.message.contains("secret"), "{}", error.message);
    }
}
