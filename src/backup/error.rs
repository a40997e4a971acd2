//! The error of a backup: the result code, the message, and whether another attempt may help.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::git::GitError;
use crate::model::Code;
use crate::process::lock::LockError;
use crate::request::RequestError;
use crate::util::{Expired, Failure, Retry};
use crate::windmill::api::WindmillError;

/// Why a step of a run failed.
#[derive(Debug)]
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

impl From<GitError> for BackupError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Remote { code, message, is_passing } => {
                Self { code, message, retry: if is_passing { Retry::AfterPause(None) } else { Retry::Never } }
            }
            GitError::Checkout(message) => Self { code: Code::GitFailed, message, retry: Retry::NewCheckout },
            GitError::Expired(ended) => ended.into(),
            GitError::Machine(message) => Self::new(Code::GitFailed, message),
        }
    }
}

impl From<WindmillError> for BackupError {
    fn from(WindmillError { code, message, retry }: WindmillError) -> Self {
        Self { code, message, retry }
    }
}

/// Converts an error of the data folder's disk.
impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) {
            let message = format!(
                "DATA_DIR cannot be written ({error}): give it to the user that the service runs as, e.g. \
                 `docker run --rm --volume windmill-workspace-data:/workspace debian:trixie-slim chown 65532:0 /workspace`"
            );
            return Self::new(Code::ConfigInvalid, message);
        }
        Self::new(Code::Internal, format!("DATA_DIR cannot be written or read: {error}"))
    }
}

impl From<LockError> for BackupError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Expired(ended) => ended.into(),
            LockError::Io(error) => error.into(),
        }
    }
}

impl From<RequestError> for BackupError {
    fn from(RequestError { code, message }: RequestError) -> Self {
        Self::new(code, message)
    }
}

impl Failure for BackupError {
    fn retry(&self) -> Retry {
        self.retry
    }

    fn message(&self) -> &str {
        &self.message
    }

    fn after(self, attempts: usize) -> Self {
        match self.message.as_str() {
            "" => self,
            message => Self { message: format!("{message} (tried {attempts} times)"), ..self },
        }
    }
}

/// Runs `work`, and turns a panic in it into an internal error. The text of the panic is in the log.
///
/// # Errors
/// The error of `work`, or an internal error if it panics.
pub fn catch_panic<T>(work: impl FnOnce() -> Result<T, BackupError>) -> Result<T, BackupError> {
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
