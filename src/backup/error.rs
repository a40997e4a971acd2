//! What becomes the error of a backup.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::git::GitError;
use crate::model::Code;
use crate::util::Retry;

pub use crate::model::BackupError;

impl From<GitError> for BackupError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Remote { code, message, is_passing } => {
                Self { code, message, retry: if is_passing { Retry::AfterPause(None) } else { Retry::Never } }
            }
            GitError::Checkout(message) => Self { code: Code::GitFailed, message, retry: Retry::NewCheckout },
            GitError::Expired(ended) => ended.into(),
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
