//! General tools that know nothing of Windmill, git or backups: secrets, hashes, files, deadlines, retries, logging.
//! Every folder may use it. It uses no other folder.

pub mod deadline;
pub mod files;
pub mod glob;
pub mod hash;
pub mod json;
pub mod lock;
pub mod logging;
pub mod parallel;
pub mod percent;
pub mod redact;
pub mod retry;
pub mod secret;
pub mod time;
pub mod volume;
pub mod yaml;

pub use deadline::{CancelToken, Deadline, Expired, wait_while};
pub use files::RunDir;
pub use hash::{Algorithm, Digest, HashedSet, hash_of};
pub use json::Limits;
pub use lock::lock;
pub use logging::LogFormat;
pub use parallel::both;
pub use redact::{Redactor, Sample, first_chars, printable, shorten, visible};
pub use retry::{Failure, Retry};
pub use secret::Secret;
pub use volume::Volume;
pub use yaml::Node;
