//! The credentials for a git remote: a token, or an SSH key.

use std::path::PathBuf;

use crate::util::Secret;

/// The credentials for one remote.
#[derive(Clone, PartialEq, Eq)]
pub enum GitCredentials {
    /// No credentials, because the remote is a folder.
    None,
    /// A token, for http and https.
    Token {
        /// The user name that goes with the token.
        username: String,
        /// The token.
        token: Secret,
    },
    /// A key, for ssh.
    Ssh {
        /// The private key, with its lines unchanged.
        key: Secret,
        /// The file with the keys of known hosts.
        known_hosts: Option<PathBuf>,
        /// Whether a host that is not known yet is accepted.
        accept_new: bool,
    },
}

impl GitCredentials {
    /// Returns the secrets in it, in the forms in which they are sent.
    pub fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::None => Vec::new(),
            Self::Token { username, token } => vec![basic_credentials(username, token), token.clone()],
            Self::Ssh { key, .. } => vec![key.clone()],
        }
    }
}

/// Returns user name and token as Basic authentication sends them.
pub fn basic_credentials(username: &str, token: &Secret) -> Secret {
    use base64::Engine as _;
    Secret::new(base64::engine::general_purpose::STANDARD.encode(format!("{username}:{}", token.expose())))
}
