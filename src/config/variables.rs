//! The environment variables of the settings, the options that override them, and the variables that programs get.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::net::ca_bundle::CA_BUNDLE_FILE;
use crate::net::proxy;

/// One of our environment variables.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The value if it is not set; `None` if it has no default.
    pub default: Option<&'static str>,
    /// Whether its value is a secret. A secret can also come from a file, which the variable with the suffix `_FILE`
    /// names.
    pub secret: bool,
}

const fn plain(name: &'static str, default: &'static str) -> Variable {
    Variable { name, default: Some(default), secret: false }
}

const fn optional(name: &'static str) -> Variable {
    Variable { name, default: None, secret: false }
}

const fn secret(name: &'static str) -> Variable {
    Variable { name, default: None, secret: true }
}

/// All our variables, in the order of the documentation, which a test compares with this table.
pub const VARIABLES: &[Variable] = &[
    plain("WINDMILL_BASE_URL", "http://windmill_server:8000"),
    secret("WINDMILL_TOKEN"),
    plain("WINDMILL_WORKSPACE", "admins"),
    optional("GIT_REMOTE_URL"),
    secret("GIT_TOKEN"),
    plain("GIT_USERNAME", "x-access-token"),
    plain("GIT_BRANCH", "main"),
    plain("GIT_SUBDIR", ""),
    plain("GIT_USER_NAME", "Windmill Git Sync"),
    plain("GIT_USER_EMAIL", "windmill@example.com"),
    plain("COMMIT_MESSAGE", "Automated Windmill workspace backup - {workspace}"),
    plain("COMMIT_PER", "sync"),
    plain("COMMIT_AUTHORS", "true"),
    secret("GIT_SSH_KEY"),
    optional("GIT_SSH_KNOWN_HOSTS_FILE"),
    plain("GIT_SSH_ACCEPT_NEW", "false"),
    secret("GIT_SIGNING_KEY"),
    optional(CA_BUNDLE_FILE),
    plain("WMILL_INCLUDE", "schedules,triggers,groups"),
    plain("WMILL_SKIP", "none"),
    plain("ALLOW_PLAINTEXT_SECRETS", "false"),
    plain("ALLOW_PUBLIC_REPOSITORY", "false"),
    plain("MAX_DELETIONS_PERCENT", "50"),
    plain("SKIP_UNCHANGED", "true"),
    plain("FULL_SYNC_EVERY", "24h"),
    optional("EXPECT_SYNC_EVERY"),
    secret("WINDMILL_HEADERS"),
    plain("SYNC_TIMEOUT", "30m"),
    plain("DATA_DIR", "/workspace"),
    plain("LISTEN_ADDR", "0.0.0.0:8080"),
    secret("SYNC_API_TOKEN"),
    optional("SYNC_SCHEDULE"),
    optional("VERIFY_SCHEDULE"),
    plain("SHUTDOWN_GRACE", "30s"),
    secret("SLACK_WEBHOOK_URL"),
    secret("DISCORD_WEBHOOK_URL"),
    secret("NOTIFY_URL"),
    plain("NOTIFY_ON", "failure,recovery"),
    secret("HEARTBEAT_URL"),
    plain("LOG_LEVEL", "info"),
    plain("LOG_FORMAT", "text"),
];

/// The folder that systemd made for a unit with `StateDirectory=`. If it is set, it is the default of `DATA_DIR`. If it
/// lists several folders, separated by colons, the first one is used.
pub(super) const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Environment variables that are passed to `wmill` and `git` besides those of [`proxy::variables`]: certificates, the
/// path of programs, the time zone.
pub(super) const TOOL_VARIABLES: &[&str] =
    &["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO", CA_BUNDLE_FILE, "PATH", "TZ"];

/// The part of the process's environment that we use or pass to the tools.
pub struct Environment {
    pub(super) values: BTreeMap<String, String>,
    pub(super) faults: Vec<String>,
}

impl Environment {
    /// Takes the variables that we use. If one is not UTF-8 or is in quotes, [`Config::new`](super::Config::new)
    /// reports that.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self { values: BTreeMap::new(), faults: Vec::new() };
        for (name, value) in variables {
            let Some(name) = name.into_string().ok().filter(|name| is_known(name)) else { continue };
            let fault = match value.into_string() {
                Ok(value) if is_in_quotes(&value) => "in quotes, which this kind of env file keeps: leave them out",
                Ok(value) => {
                    environment.values.insert(name, value);
                    continue;
                }
                Err(_) => "not UTF-8",
            };
            environment.faults.push(format!("{name} is {fault}"));
        }
        environment
    }

    /// Returns the value of a variable; an empty one counts as unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Returns whether the value is in quotes. `docker run --env-file` and `kubectl create --from-env-file` do not remove
/// them.
fn is_in_quotes(value: &str) -> bool {
    value.len() >= 2 && ['"', '\''].iter().any(|quote| value.starts_with(*quote) && value.ends_with(*quote))
}

fn is_known(name: &str) -> bool {
    TOOL_VARIABLES.contains(&name)
        || proxy::is_variable(name)
        || name == STATE_DIRECTORY
        || VARIABLES.iter().any(|variable| {
            variable.name == name || variable.secret && name.strip_suffix("_FILE") == Some(variable.name)
        })
}

/// The options of the command line, each with the variable that it overrides.
const OPTIONS: [(&str, &str); 7] = [
    ("--workspace", "WINDMILL_WORKSPACE"),
    ("--base-url", "WINDMILL_BASE_URL"),
    ("--remote", "GIT_REMOTE_URL"),
    ("--branch", "GIT_BRANCH"),
    ("--subdir", "GIT_SUBDIR"),
    ("--data-dir", "DATA_DIR"),
    ("--listen", "LISTEN_ADDR"),
];

/// The options that were given on the command line, with their values.
#[derive(Clone, Default)]
pub struct Options(Vec<(&'static str, String)>);

impl Options {
    /// Keeps the options that were given, each with its name on the command line.
    #[must_use]
    pub fn new<const COUNT: usize>(all: [(&'static str, &Option<String>); COUNT]) -> Self {
        Self(all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect())
    }

    /// Returns the name and value of the option that overrides a variable, if it was given.
    pub(super) fn instead_of(&self, variable: &str) -> Option<(&'static str, &str)> {
        let (option, _) = OPTIONS.into_iter().find(|(_, beaten)| *beaten == variable)?;
        self.0.iter().find(|(name, _)| *name == option).map(|(name, value)| (*name, value.as_str()))
    }
}

/// Which settings have to be there for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Required {
    /// No setting; a request may bring what a sync requires.
    Serve,
    /// All settings that a sync requires.
    Sync,
    /// All settings that git requires, without the token for Windmill.
    Git,
}
