//! The result codes of the public interface, each with its HTTP status and exit code, in one table.

use crate::util::Expired;

/// Declares the codes, each with its name, its HTTP status, its exit code, and whether a failed sync can have it. Codes
/// with which no command ends have the exit code 1, which is that of an unexpected end.
macro_rules! codes {
    ($($(#[$attribute:meta])+ $code:ident = $name:literal, $http:literal, $exit:literal, $is_of_sync:literal;)+) => {
        /// How a run, a request or a command ended.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$attribute])+ $code,)+
        }

        /// The codes in the order of their declaration.
        const TABLE: &[(Code, &str, u16, u8, bool)] = &[$((Code::$code, $name, $http, $exit, $is_of_sync),)+];
    };
}

codes! {
    /// The commit is on the remote.
    Pushed = "pushed", 200, 0, false;
    /// Nothing had changed.
    Unchanged = "unchanged", 200, 0, false;
    /// The run only showed what it would change.
    DryRun = "dry_run", 200, 0, false;
    /// A restore put the backup into the workspace.
    Restored = "restored", 200, 0, false;
    /// Backup and workspace differ.
    Differs = "differs", 200, 3, false;
    /// Single items were left out; the others are backed up.
    Incomplete = "incomplete", 422, 15, true;
    /// A setting is missing or malformed.
    ConfigInvalid = "config_invalid", 400, 2, true;
    /// A request is malformed, or asks for something that is not permitted.
    RequestInvalid = "request_invalid", 400, 2, false;
    /// `SYNC_API_TOKEN` is missing or wrong.
    Unauthorized = "unauthorized", 401, 1, false;
    /// The request is not permitted without `SYNC_API_TOKEN`, or it comes from a web page.
    Forbidden = "forbidden", 403, 1, false;
    /// More would have been deleted than the guard permits.
    MassDeletion = "mass_deletion", 422, 12, true;
    /// Secrets would have been committed as plain text.
    PlaintextSecrets = "plaintext_secrets", 422, 12, true;
    /// The last success had an admin's token, and this run does not.
    LostRights = "lost_rights", 422, 12, true;
    /// Everyone can read the repository that a first backup would go to.
    PublicRepository = "public_repository", 422, 12, true;
    /// No backup was made for too long. No run ends with this code.
    Overdue = "overdue", 503, 1, false;
    /// Windmill could not be reached, or did not answer as Windmill does.
    WindmillUnreachable = "windmill_unreachable", 502, 10, true;
    /// Windmill refused the token.
    WindmillUnauthorized = "windmill_unauthorized", 502, 10, true;
    /// Windmill has no such workspace, or does not show it to this token.
    WorkspaceNotFound = "workspace_not_found", 502, 10, true;
    /// `wmill` failed for another reason.
    PullFailed = "pull_failed", 502, 10, true;
    /// The git remote could not be reached or trusted.
    GitUnreachable = "git_unreachable", 502, 11, true;
    /// The git remote refused the credentials.
    GitUnauthorized = "git_unauthorized", 502, 11, true;
    /// The git remote refused the push.
    GitRejected = "git_rejected", 502, 11, true;
    /// git failed for another reason.
    GitFailed = "git_failed", 502, 11, true;
    /// `SYNC_TIMEOUT` passed.
    Timeout = "timeout", 504, 13, true;
    /// The service is ending.
    ShuttingDown = "shutting_down", 503, 14, true;
    /// All slots are taken.
    TooManyRequests = "too_many_requests", 503, 14, false;
    /// An internal error, or an error of the machine.
    #[default]
    Internal = "internal", 500, 1, true;
}

impl From<Expired> for Code {
    fn from(expired: Expired) -> Self {
        match expired {
            Expired::TimedOut => Self::Timeout,
            Expired::Cancelled => Self::ShuttingDown,
        }
    }
}

impl Code {
    /// Returns the codes that a failed sync can have.
    pub fn failures() -> impl Iterator<Item = Self> {
        TABLE.iter().filter_map(|(code, .., is_of_sync)| is_of_sync.then_some(*code))
    }

    /// Returns the name in results, logs and metrics.
    pub fn as_str(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Returns the HTTP status of an answer with this code.
    pub fn http_status(self) -> u16 {
        TABLE[self as usize].2
    }

    /// Returns the exit code of a command that ends with this code.
    pub fn exit_code(self) -> u8 {
        TABLE[self as usize].3
    }

    /// Returns the code of a failure with this name.
    pub fn failure_of_name(name: &str) -> Option<Self> {
        Self::failures().find(|code| code.as_str() == name)
    }

    /// Returns whether this is a success.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Pushed | Self::Unchanged | Self::DryRun | Self::Restored)
    }
}
