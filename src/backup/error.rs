//! The error of a backup: the result code, the message, and whether another attempt may help.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::git::GitError;
use crate::model::result_code::Code;
use crate::util::deadline::Expired;
use crate::util::retry::{Failure, GaveUp, Retry};
use crate::windmill::api::WindmillError;

/// Why a step of a run failed.
#[derive(Debug)]
pub struct BackupError {
    /// The result code of the run.
    pub code: Code,
    /// What was tried, on what, and why it failed.
    pub message: String,
    /// Whether another attempt may help.
    pub retry: Retry,
}

impl BackupError {
    /// Creates an error that another attempt cannot fix.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry: Retry::Never }
    }

    /// Converts an error of git. `expired` returns the error of a run that was ended.
    pub fn of_git(error: GitError, expired: impl FnOnce(Expired) -> Self) -> Self {
        match error {
            GitError::Remote { code, message, is_passing } => {
                Self { code, message, retry: if is_passing { Retry::AfterPause(None) } else { Retry::Never } }
            }
            GitError::Checkout(message) => Self { code: Code::GitFailed, message, retry: Retry::NewCheckout },
            GitError::Expired(ended) => expired(ended),
            GitError::Machine(message) => Self::new(Code::GitFailed, message),
        }
    }

    /// Converts an error of Windmill or wmill. `expired` returns the error of a run that was ended.
    pub fn of_windmill(error: WindmillError, expired: impl FnOnce(Expired) -> Self) -> Self {
        match error {
            WindmillError::Failed { code, message, retry } => Self { code, message, retry },
            WindmillError::Expired(ended) => expired(ended),
        }
    }

    /// Converts the error after which a step is not tried again, and adds the number of attempts if there were several.
    /// `expired` returns the error of a run that was ended.
    pub fn of_attempts(gave_up: GaveUp<Self>, expired: impl FnOnce(Expired) -> Self) -> Self {
        match gave_up {
            GaveUp::Failed(error, 1) => error,
            GaveUp::Failed(error, attempts) => {
                Self { message: format!("{} (tried {attempts} times)", error.message), ..error }
            }
            GaveUp::Expired(ended) => expired(ended),
        }
    }
}

impl Failure for BackupError {
    fn retry(&self) -> Retry {
        self.retry
    }

    fn message(&self) -> &str {
        &self.message
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
