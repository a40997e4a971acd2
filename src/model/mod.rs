//! The plain values of a backup: names, URLs, credentials, result codes and run results, with no input or output.
//! Every folder above `util` may use it; it uses `util` alone.

pub mod error;
pub mod git_credentials;
pub mod names;
pub mod result_code;
pub mod run_result;
pub mod urls;

pub use error::{BackupError, Result};
pub use git_credentials::GitCredentials;
pub use names::{ADMINS, BranchName, FORK, Identity, Subdir, WORKSPACE_MARK, WorkspaceId};
pub use result_code::Code;
pub use run_result::{Changed, Difference, LeftOut, SyncResult, TokenUser, Warnings};
pub use urls::{BaseUrl, RemoteScheme, RemoteUrl};
