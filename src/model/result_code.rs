//! The result codes of the public interface, each with its HTTP status and exit code, in one table.

use crate::util::Expired;

/// How a run, a request or a command ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Code {
    /// The commit is on the remote.
    Pushed,
    /// Nothing had changed.
    Unchanged,
    /// The run only showed what it would change.
    DryRun,
    /// A restore put the backup into the workspace.
    Restored,
    /// Backup and workspace differ.
    Differs,
    /// Single items were left out; the others are backed up.
    Incomplete,
    /// A setting is missing or malformed.
    ConfigInvalid,
    /// A request is malformed, or asks for something that is not permitted.
    RequestInvalid,
    /// `SYNC_API_TOKEN` is missing or wrong.
    Unauthorized,
    /// The request is not permitted without `SYNC_API_TOKEN`, or it comes from a web page.
    Forbidden,
    /// More would have been deleted than the guard permits.
    MassDeletion,
    /// Secrets would have been committed as plain text.
    PlaintextSecrets,
    /// The last success had an admin's token, and this run does not.
    LostRights,
    /// Everyone can read the repository that a first backup would go to.
    PublicRepository,
    /// No backup was made for too long. No run ends with this code.
    Overdue,
    /// Windmill could not be reached, or did not answer as Windmill does.
    WindmillUnreachable,
    /// Windmill refused the token.
    WindmillUnauthorized,
    /// Windmill has no such workspace, or does not show it to this token.
    WorkspaceNotFound,
    /// `wmill` failed for another reason.
    PullFailed,
    /// The git remote could not be reached or trusted.
    GitUnreachable,
    /// The git remote refused the credentials.
    GitUnauthorized,
    /// The git remote refused the push.
    GitRejected,
    /// git failed for another reason.
    GitFailed,
    /// `SYNC_TIMEOUT` passed.
    Timeout,
    /// The service is ending.
    ShuttingDown,
    /// All slots are taken.
    TooManyRequests,
    /// An internal error, or an error of the machine.
    #[default]
    Internal,
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
    /// For each code, in the order of its declaration: name, HTTP status, exit code, and whether a failed sync can have
    /// it.
    const TABLE: &'static [(Self, &'static str, u16, u8, bool); Self::Internal as usize + 1] = &[
        (Self::Pushed, "pushed", 200, 0, false),
        (Self::Unchanged, "unchanged", 200, 0, false),
        (Self::DryRun, "dry_run", 200, 0, false),
        (Self::Restored, "restored", 200, 0, false),
        (Self::Differs, "differs", 200, 3, false),
        (Self::Incomplete, "incomplete", 422, 15, true),
        (Self::ConfigInvalid, "config_invalid", 400, 2, true),
        (Self::RequestInvalid, "request_invalid", 400, 2, false),
        // No command ends with this code; 1 is the exit code of an unexpected end.
        (Self::Unauthorized, "unauthorized", 401, 1, false),
        (Self::Forbidden, "forbidden", 403, 1, false),
        (Self::MassDeletion, "mass_deletion", 422, 12, true),
        (Self::PlaintextSecrets, "plaintext_secrets", 422, 12, true),
        (Self::LostRights, "lost_rights", 422, 12, true),
        (Self::PublicRepository, "public_repository", 422, 12, true),
        (Self::Overdue, "overdue", 503, 1, false),
        (Self::WindmillUnreachable, "windmill_unreachable", 502, 10, true),
        (Self::WindmillUnauthorized, "windmill_unauthorized", 502, 10, true),
        (Self::WorkspaceNotFound, "workspace_not_found", 502, 10, true),
        (Self::PullFailed, "pull_failed", 502, 10, true),
        (Self::GitUnreachable, "git_unreachable", 502, 11, true),
        (Self::GitUnauthorized, "git_unauthorized", 502, 11, true),
        (Self::GitRejected, "git_rejected", 502, 11, true),
        (Self::GitFailed, "git_failed", 502, 11, true),
        (Self::Timeout, "timeout", 504, 13, true),
        (Self::ShuttingDown, "shutting_down", 503, 14, true),
        (Self::TooManyRequests, "too_many_requests", 503, 14, false),
        (Self::Internal, "internal", 500, 1, true),
    ];

    /// Returns the codes that a failed sync can have.
    pub fn failures() -> impl Iterator<Item = Self> {
        Self::TABLE.iter().filter_map(|(code, .., is_of_sync)| is_of_sync.then_some(*code))
    }

    /// Returns the name in results, logs and metrics.
    pub fn as_str(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    /// Returns the HTTP status of an answer with this code.
    pub fn http_status(self) -> u16 {
        Self::TABLE[self as usize].2
    }

    /// Returns the exit code of a command that ends with this code.
    pub fn exit_code(self) -> u8 {
        Self::TABLE[self as usize].3
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_order_of_the_codes() {
        for (index, row) in Code::TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index, "{}", row.1);
        }
    }
}
