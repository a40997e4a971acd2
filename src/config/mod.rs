//! Options and environment to a [`Config`]; every fault is collected and all are told at once.
//! It is handed the environment and touches the world in one place only, [`SecretSource::read`]. It does not know what
//! a setting is good for, nor what `main` prints.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use crate::names::{self, BaseUrl, BranchName, Identity, NameError, RemoteScheme, RemoteUrl, Subdir, WorkspaceId};
use crate::proxy;
use crate::schedule::Schedule;
use crate::secret::Secret;

/// A key has some kilobytes; more than this is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Far beyond any use, and far below where adding to a clock would overflow.
const DURATION_SECONDS_MAX: u64 = 3_650 * 24 * 3_600;
/// A subject line.
const MESSAGE_BYTES_MAX: usize = 1_000;
const USERNAME_BYTES_MAX: usize = 200;
/// Each takes a checkout, and a place in `/status`.
pub const WORKSPACES_MAX: usize = 64;

/// One of our environment variables.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds where it is not set; `None` where nothing does.
    pub default: Option<&'static str>,
    /// Whether its value is a secret; then there is a variable with `_FILE` after this name too.
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

/// All our variables, in the order of the documentation, which is held against this table.
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
    plain("MAX_DELETIONS_PERCENT", "50"),
    plain("SKIP_UNCHANGED", "true"),
    plain("FULL_SYNC_EVERY", "24h"),
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

/// The one setting that goes along with the environment of the tools.
pub const CA_BUNDLE_FILE: &str = "CA_BUNDLE_FILE";

/// What of the environment goes on to `wmill` and `git`: the way out, whom to trust, where programs are, the clock.
const TOOL_VARIABLES: &[&str] = &[
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    CA_BUNDLE_FILE,
    "PATH",
    "TZ",
];

/// The part of the process's environment that is ours or goes on to the tools.
pub struct Environment {
    values: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Environment {
    /// Picks what is of use. A variable of ours that is not UTF-8 becomes a fault that [`Config::new`] tells.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self { values: BTreeMap::new(), faults: Vec::new() };
        for (name, value) in variables {
            environment.add(name, value);
        }
        environment
    }

    fn add(&mut self, name: OsString, value: OsString) {
        let Ok(name) = name.into_string() else { return };
        if !is_known(&name) {
            return;
        }
        match value.into_string() {
            Ok(value) => {
                self.values.insert(name, value);
            }
            Err(_) => self.faults.push(format!("{name} is not UTF-8")),
        }
    }

    /// The value of a variable; one that is empty counts as unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

fn is_known(name: &str) -> bool {
    TOOL_VARIABLES.contains(&name)
        || VARIABLES.iter().any(|variable| {
            variable.name == name || variable.secret && name.strip_suffix("_FILE") == Some(variable.name)
        })
}

/// What the command line gave; each beats the variable of the same meaning.
#[derive(Clone, Default)]
pub struct Options {
    /// `--workspace`
    pub workspace: Option<String>,
    /// `--base-url`
    pub base_url: Option<String>,
    /// `--remote`
    pub remote: Option<String>,
    /// `--branch`
    pub branch: Option<String>,
    /// `--subdir`
    pub subdir: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
}

impl Options {
    /// The option that goes with a variable, by its own name, and its value.
    fn instead_of(&self, variable: &str) -> Option<(&'static str, &str)> {
        let (name, value) = match variable {
            "WINDMILL_WORKSPACE" => ("--workspace", &self.workspace),
            "WINDMILL_BASE_URL" => ("--base-url", &self.base_url),
            "GIT_REMOTE_URL" => ("--remote", &self.remote),
            "GIT_BRANCH" => ("--branch", &self.branch),
            "GIT_SUBDIR" => ("--subdir", &self.subdir),
            "DATA_DIR" => ("--data-dir", &self.data_dir),
            "LISTEN_ADDR" => ("--listen", &self.listen),
            _ => return None,
        };
        value.as_deref().map(|value| (name, value))
    }
}

/// What a command needs of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// What a sync requires may lack: a request may bring it.
    Serve,
    /// What a sync requires must be there.
    Sync,
}

/// Where a secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// From the variable itself.
    Value {
        /// The variable's name.
        variable: &'static str,
        /// Its value, checked.
        secret: Secret,
    },
    /// From the file that the variable with `_FILE` after its name gives.
    File {
        /// The variable's name, without `_FILE`.
        variable: &'static str,
        /// The file, read anew each time.
        path: PathBuf,
    },
}

impl SecretSource {
    /// The secret as it is now. White space at the ends of a token is dropped; a key keeps its lines and ends with a
    /// line break.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no regular file, has more than 64 KiB, is empty or is not a secret's text. The
    /// message names the variable and the path.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Value { secret, .. } => Ok(secret.clone()),
            Self::File { variable, path } => read_secret(variable, path)
                .map_err(|why| format!("{variable}_FILE: cannot take the secret from {}: {why}", shown(path))),
        }
    }
}

/// The path, unless it looks as if somebody had put the secret itself there.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with(['/', '.']) { names::quoted(&text) } else { "the file that it names".to_owned() }
}

fn read_secret(variable: &str, path: &Path) -> Result<Secret, String> {
    let in_words = |error: std::io::Error| error.to_string();
    // Asked before it is opened: opening a named pipe waits until somebody writes to it.
    if !std::fs::metadata(path).map_err(in_words)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(in_words)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(in_words)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err("it has more than 64 KiB".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    checked_secret(variable, &text).map_err(|why| ["it ", why].concat())
}

fn checked_secret(variable: &str, text: &str) -> Result<Secret, &'static str> {
    match variable {
        "GIT_SSH_KEY" | "GIT_SIGNING_KEY" => checked_key(text),
        _ if variable.ends_with("_URL") => checked_address(text),
        _ => checked_token(text),
    }
}

/// An address whose path is the secret.
fn checked_address(text: &str) -> Result<Secret, &'static str> {
    let address = checked_token(text)?;
    let rest = ["https://", "http://"].iter().find_map(|scheme| address.expose().strip_prefix(scheme));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace) => Ok(address),
        _ => Err("is no http(s) address"),
    }
}

/// A token as it is sent: what goes into a header must be one line.
pub(crate) fn checked_token(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty");
    }
    if text.contains(char::is_control) {
        return Err("has a line break or another control character in it");
    }
    Ok(Secret::new(text))
}

/// `ssh` reads a key only where its last line ends, and not with the line ends of Windows.
fn checked_key(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim_end();
    if text.is_empty() {
        return Err("is empty");
    }
    Ok(Secret::new(text.replace("\r\n", "\n") + "\n"))
}

/// A word list's kinds: an enum, all of its values, and their words.
macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($kind:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $kind,)*
        }

        impl $name {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];
            const WORDS: &[&str] = &[$($word,)*];

            /// Its word in the setting.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// Reads a list, separated by commas; `none` is the empty one.
            ///
            /// # Errors
            ///
            /// When a word is unknown or comes twice, or `none` is not alone; what is permitted is named.
            pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
                let indices = parse_words(text, Self::WORDS)?;
                Ok(indices.into_iter().map(|index| Self::ALL[index]).collect())
            }
        }
    };
}

kinds! {
    /// Kinds that are in the backup only where they are asked for.
    IncludeKind {
        Schedules = "schedules",
        Triggers = "triggers",
        Users = "users",
        Groups = "groups",
        Settings = "settings",
        Key = "key",
    }
}

kinds! {
    /// Kinds that can be left out of the backup.
    SkipKind {
        Secrets = "secrets",
        Variables = "variables",
        Resources = "resources",
        ResourceTypes = "resource-types",
        Scripts = "scripts",
        Flows = "flows",
        Apps = "apps",
        Folders = "folders",
    }
}

kinds! {
    /// On what somebody wants to be told.
    Occasion {
        Failure = "failure",
        Recovery = "recovery",
        Change = "change",
        Always = "always",
    }
}

/// What holds where neither `WMILL_INCLUDE` nor the repository's `wmill.yaml` says otherwise.
pub const KINDS_INCLUDED_DEFAULT: &[IncludeKind] =
    &[IncludeKind::Schedules, IncludeKind::Triggers, IncludeKind::Groups];

fn parse_words(text: &str, permitted: &[&str]) -> Result<Vec<usize>, String> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let permitted_text = || permitted.join(", ");
    let mut indices = Vec::new();
    for word in text.split(',').map(str::trim) {
        match permitted.iter().position(|one| *one == word) {
            Some(index) if indices.contains(&index) => return Err(format!("{word} comes twice")),
            Some(index) => indices.push(index),
            None if word == "none" => return Err("none does not go with other words".to_owned()),
            None => {
                let word = names::quoted(word);
                return Err(format!("{word} is unknown; permitted are {}, or none alone", permitted_text()));
            }
        }
    }
    Ok(indices)
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The configured workspaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workspaces {
    /// These, each once, at least one.
    Listed(Vec<WorkspaceId>),
    /// All that the token sees, but [`ADMINS`]; which these are is asked anew for each run.
    All,
}

/// Windmill's own workspace, in which a new instance is set up. It is backed up where it is named.
pub const ADMINS: &str = "admins";

impl Workspaces {
    /// Whether a run of this workspace can be one of the configured ones.
    #[must_use]
    pub fn hold(&self, workspace: &WorkspaceId) -> bool {
        match self {
            Self::Listed(listed) => listed.contains(workspace),
            Self::All => workspace.as_str() != ADMINS,
        }
    }

    /// Whether a run without a workspace of its own is one run, and has one result.
    #[must_use]
    pub fn single(&self) -> Option<&WorkspaceId> {
        match self {
            Self::Listed(listed) if listed.len() == 1 => listed.first(),
            _ => None,
        }
    }

    /// As in the setting.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Listed(listed) => listed.iter().map(WorkspaceId::as_str).collect::<Vec<_>>().join(","),
            Self::All => "*".to_owned(),
        }
    }
}

/// All settings, each parsed. There is no `Debug`: templates and paths are harmless, the environment of the tools is
/// not.
#[derive(Clone)]
pub struct Config {
    /// `WINDMILL_BASE_URL`
    pub base_url: BaseUrl,
    /// `WINDMILL_TOKEN`
    pub windmill_token: Option<SecretSource>,
    /// `WINDMILL_WORKSPACE`
    pub workspaces: Workspaces,
    /// Whether nobody chose the workspace.
    pub workspace_is_default: bool,
    /// `GIT_REMOTE_URL`
    pub remote: Option<RemoteUrl>,
    /// `GIT_TOKEN`
    pub git_token: Option<SecretSource>,
    /// `GIT_USERNAME`
    pub git_username: String,
    /// `GIT_BRANCH`, a template; [`Config::branch_for`] fills it.
    pub branch: String,
    /// `GIT_SUBDIR`, a template; [`Config::subdir_for`] fills it.
    pub subdir: String,
    /// `GIT_USER_NAME` and `GIT_USER_EMAIL`
    pub author: Identity,
    /// `COMMIT_MESSAGE`, a template of one line.
    pub commit_message: String,
    /// `COMMIT_PER`
    pub commit_per: CommitPer,
    /// `COMMIT_AUTHORS`
    pub commit_authors: bool,
    /// `GIT_SSH_KEY`
    pub ssh_key: Option<SecretSource>,
    /// `GIT_SIGNING_KEY`
    pub signing_key: Option<SecretSource>,
    /// `GIT_SSH_KNOWN_HOSTS_FILE`, absolute, of characters that `ssh` takes as they are.
    pub ssh_known_hosts: Option<PathBuf>,
    /// `GIT_SSH_ACCEPT_NEW`
    pub ssh_accept_new: bool,
    /// `WMILL_INCLUDE`; `None` where it is not set, so that a repository's `wmill.yaml` may decide, and then
    /// [`KINDS_INCLUDED_DEFAULT`].
    pub kinds_included: Option<Vec<IncludeKind>>,
    /// `WMILL_SKIP`; `None` where it is not set, so that a repository's `wmill.yaml` may decide.
    pub kinds_skipped: Option<Vec<SkipKind>>,
    /// `ALLOW_PLAINTEXT_SECRETS`
    pub allow_plaintext_secrets: bool,
    /// `MAX_DELETIONS_PERCENT`, 0 to 100
    pub deletions_percent_max: u8,
    /// `SKIP_UNCHANGED`
    pub skip_unchanged: bool,
    /// `FULL_SYNC_EVERY`; zero makes every sync a full one.
    pub full_sync_every: Duration,
    /// `SYNC_TIMEOUT`, more than zero
    pub sync_timeout: Duration,
    /// `DATA_DIR`, absolute
    pub data_dir: PathBuf,
    /// `LISTEN_ADDR`, an address and a port
    pub listen: String,
    /// `SYNC_API_TOKEN`
    pub api_token: Option<SecretSource>,
    /// `SYNC_SCHEDULE`
    pub sync_schedule: Option<Schedule>,
    /// `VERIFY_SCHEDULE`
    pub verify_schedule: Option<Schedule>,
    /// `SLACK_WEBHOOK_URL`
    pub slack_webhook_url: Option<SecretSource>,
    /// `DISCORD_WEBHOOK_URL`
    pub discord_webhook_url: Option<SecretSource>,
    /// `NOTIFY_URL`
    pub notify_url: Option<SecretSource>,
    /// `NOTIFY_ON`
    pub notify_on: Vec<Occasion>,
    /// `HEARTBEAT_URL`
    pub heartbeat_url: Option<SecretSource>,
    /// `SHUTDOWN_GRACE`
    pub shutdown_grace: Duration,
    /// `LOG_LEVEL`
    pub log_level: LevelFilter,
    /// `LOG_FORMAT`
    pub log_format: LogFormat,
    /// Variables that go on to `wmill` and `git`, those for proxies as [`proxy::variables`] gives them, and
    /// `CA_BUNDLE_FILE`, which `trust` turns into what programs heed. A proxy's URL may hold a password, see [`Config::proxy_secrets`].
    pub tool_environment: Vec<(String, String)>,
}

/// All that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<String>,
}

/// A `PATH` without the elements that mean the working folder or lie below it.
fn absolute_folders(path: &str) -> String {
    path.split(':').filter(|folder| folder.starts_with('/')).collect::<Vec<_>>().join(":")
}

impl ConfigError {
    /// Each fault; it begins with the variable's or the option's name.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => formatter.write_str("1 setting is wrong: ")?,
            count => write!(formatter, "{count} settings are wrong: ")?,
        }
        formatter.write_str(&self.faults.join("; "))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    ///
    /// When one is malformed or, for [`Need::Sync`], missing: one error that names all of them.
    pub fn new(options: &Options, environment: &Environment, need: Need) -> Result<Self, ConfigError> {
        let mut reader = Reader { options, environment, faults: environment.faults.clone() };
        let config = reader.config();
        if need == Need::Sync {
            reader.refuse_lacking();
        }
        if reader.faults.is_empty() { Ok(config) } else { Err(ConfigError { faults: reader.faults }) }
    }

    /// What a sync with these settings alone lacks, in words that begin with the variable's name.
    #[must_use]
    pub fn lacking(&self) -> Vec<String> {
        lacking(self.remote.as_ref(), &|variable| match variable {
            "WINDMILL_TOKEN" => self.windmill_token.is_some(),
            "GIT_REMOTE_URL" => self.remote.is_some(),
            "GIT_TOKEN" => self.git_token.is_some(),
            "GIT_SSH_KEY" => self.ssh_key.is_some(),
            _ => self.ssh_known_hosts.is_some() || self.ssh_accept_new,
        })
    }

    /// The branch for a workspace.
    ///
    /// # Errors
    ///
    /// When the template, filled with this very id, is no branch name (too long, for one).
    pub fn branch_for(&self, workspace: &WorkspaceId) -> Result<BranchName, NameError> {
        BranchName::from_template(&self.branch, workspace)
    }

    /// The folder for a workspace.
    ///
    /// # Errors
    ///
    /// When the template, filled with this very id, is no folder (too long, for one).
    pub fn subdir_for(&self, workspace: &WorkspaceId) -> Result<Subdir, NameError> {
        Subdir::from_template(&self.subdir, workspace)
    }

    /// The passwords in proxies' URLs, so that they can be scrubbed from what the tools print.
    #[must_use]
    pub fn proxy_secrets(&self) -> Vec<Secret> {
        proxy::secrets(&self.tool_environment)
    }
}

/// What a sync would lack. `has` tells of a variable whether it is there; for `GIT_SSH_KNOWN_HOSTS_FILE`, whether
/// hosts can be trusted in one way or the other.
fn lacking(remote: Option<&RemoteUrl>, has: &dyn Fn(&str) -> bool) -> Vec<String> {
    let of_remote: &[(&str, &str)] = match remote.map(RemoteUrl::scheme) {
        Some(RemoteScheme::Https | RemoteScheme::Http) => {
            &[("GIT_TOKEN", " is not set, and an http(s) remote needs it")]
        }
        Some(RemoteScheme::Ssh) => &[
            ("GIT_SSH_KEY", " is not set, and an ssh remote needs it"),
            ("GIT_SSH_KNOWN_HOSTS_FILE", " is not set, and an ssh remote needs it, or else GIT_SSH_ACCEPT_NEW=true"),
        ],
        Some(RemoteScheme::File) | None => &[],
    };
    let always = [("WINDMILL_TOKEN", " is not set"), ("GIT_REMOTE_URL", " is not set")];
    let all = always.iter().chain(of_remote);
    all.filter(|(variable, _)| !has(variable)).map(|(variable, why)| [*variable, why].concat()).collect()
}

/// Reads setting by setting and goes on after a fault.
struct Reader<'a> {
    options: &'a Options,
    environment: &'a Environment,
    faults: Vec<String>,
}

impl Reader<'_> {
    /// Field by field, in the order in which faults are told.
    fn config(&mut self) -> Config {
        Config {
            base_url: self.take("WINDMILL_BASE_URL", |text| BaseUrl::parse(text).map_err(in_words)),
            windmill_token: self.secret("WINDMILL_TOKEN"),
            workspaces: self.take("WINDMILL_WORKSPACE", parse_workspaces),
            workspace_is_default: self.found("WINDMILL_WORKSPACE").is_none(),
            remote: self.take_optional("GIT_REMOTE_URL", |text| RemoteUrl::parse(text).map_err(in_words)),
            git_token: self.secret("GIT_TOKEN"),
            git_username: self.take("GIT_USERNAME", parse_username),
            branch: self.branch(),
            subdir: self.subdir(),
            author: self.author(),
            commit_message: self.take("COMMIT_MESSAGE", parse_message),
            commit_per: self.take("COMMIT_PER", parse_commit_per),
            commit_authors: self.take("COMMIT_AUTHORS", parse_boolean),
            ssh_key: self.secret("GIT_SSH_KEY"),
            signing_key: self.secret("GIT_SIGNING_KEY"),
            ssh_known_hosts: self.take_optional("GIT_SSH_KNOWN_HOSTS_FILE", parse_known_hosts),
            ssh_accept_new: self.take("GIT_SSH_ACCEPT_NEW", parse_boolean),
            kinds_included: self.take_optional("WMILL_INCLUDE", IncludeKind::parse_list),
            kinds_skipped: self.take_optional("WMILL_SKIP", SkipKind::parse_list),
            allow_plaintext_secrets: self.take("ALLOW_PLAINTEXT_SECRETS", parse_boolean),
            deletions_percent_max: self.take("MAX_DELETIONS_PERCENT", parse_percent),
            skip_unchanged: self.take("SKIP_UNCHANGED", parse_boolean),
            full_sync_every: self.take("FULL_SYNC_EVERY", parse_duration),
            sync_timeout: self.take("SYNC_TIMEOUT", parse_timeout),
            data_dir: self.take("DATA_DIR", parse_data_dir),
            listen: self.take("LISTEN_ADDR", parse_listen),
            api_token: self.secret("SYNC_API_TOKEN"),
            sync_schedule: self.take_optional("SYNC_SCHEDULE", Schedule::parse),
            verify_schedule: self.take_optional("VERIFY_SCHEDULE", Schedule::parse),
            slack_webhook_url: self.secret("SLACK_WEBHOOK_URL"),
            discord_webhook_url: self.secret("DISCORD_WEBHOOK_URL"),
            notify_url: self.secret("NOTIFY_URL"),
            notify_on: self.take("NOTIFY_ON", Occasion::parse_list),
            heartbeat_url: self.secret("HEARTBEAT_URL"),
            shutdown_grace: self.take("SHUTDOWN_GRACE", parse_duration),
            log_level: self.take("LOG_LEVEL", parse_log_level),
            log_format: self.take("LOG_FORMAT", parse_log_format),
            tool_environment: self.tool_environment(),
        }
    }

    /// The option's or the variable's name and value.
    fn found(&self, variable: &'static str) -> Option<(&'static str, &str)> {
        let from_environment = || Some((variable, self.environment.get(variable)?));
        self.options.instead_of(variable).or_else(from_environment)
    }

    /// The same, or the default.
    fn text(&self, variable: &'static str) -> (&'static str, &str) {
        self.found(variable).unwrap_or_else(|| (variable, default_of(variable)))
    }

    fn fault(&mut self, name: &str, why: &str) {
        self.faults.push([name, ": ", why].concat());
    }

    /// The default stands in for one that is at fault, so that the others are read too.
    fn take<T>(&mut self, variable: &'static str, parse: fn(&str) -> Result<T, String>) -> T {
        let (name, text) = self.text(variable);
        parse(text).unwrap_or_else(|why| {
            self.fault(name, &why);
            parse(default_of(variable)).unwrap_or_else(|why| default_is_at_fault(variable, &why))
        })
    }

    fn take_optional<T>(&mut self, variable: &'static str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let (name, text) = self.found(variable)?;
        parse(text).map_err(|why| self.fault(name, &why)).ok()
    }

    fn branch(&mut self) -> String {
        self.template("GIT_BRANCH", |template, workspace| BranchName::from_template(template, workspace).map(drop))
    }

    fn subdir(&mut self) -> String {
        let subdir =
            self.template("GIT_SUBDIR", |template, workspace| Subdir::from_template(template, workspace).map(drop));
        self.refuse_one_place_for_several();
        subdir
    }

    /// One template and different ids give different names, and an id has no slash: so no folder lies in another's.
    fn refuse_one_place_for_several(&mut self) {
        let is_several = self.workspaces().is_some_and(|workspaces| workspaces.single().is_none());
        let is_template = |variable| self.text(variable).1.contains(names::WORKSPACE_MARK);
        if is_several && !is_template("GIT_BRANCH") && !is_template("GIT_SUBDIR") {
            let (name, _) = self.text("WINDMILL_WORKSPACE");
            self.fault(
                name,
                "several workspaces need {workspace} in GIT_BRANCH or in GIT_SUBDIR, so that each has a place of its own",
            );
        }
    }

    /// The configured ones, where they are not at fault themselves.
    fn workspaces(&self) -> Option<Workspaces> {
        parse_workspaces(self.text("WINDMILL_WORKSPACE").1).ok()
    }

    /// A template is tried with the first workspace, or with any where none is known.
    fn template(&mut self, variable: &'static str, check: fn(&str, &WorkspaceId) -> Result<(), NameError>) -> String {
        let (name, template) = self.text(variable);
        let template = template.to_owned();
        let workspace = match self.workspaces() {
            Some(Workspaces::Listed(listed)) => listed.into_iter().next(),
            _ => WorkspaceId::parse(ADMINS).ok(),
        };
        if let Some(Err(error)) = workspace.map(|workspace| check(&template, &workspace)) {
            self.fault(name, &in_words(error));
        }
        template
    }

    fn author(&mut self) -> Identity {
        let name = self.take("GIT_USER_NAME", |text| Identity::part("user name", text).map_err(in_words));
        let email = self.take("GIT_USER_EMAIL", |text| Identity::part("user email", text).map_err(in_words));
        Identity::of_parts(name, email)
    }

    fn secret(&mut self, variable: &'static str) -> Option<SecretSource> {
        let file_variable = [variable, "_FILE"].concat();
        let value = self.environment.get(variable);
        let path = self.environment.get(&file_variable);
        let (name, why) = match (value, path) {
            (None, None) => return None,
            (Some(_), Some(_)) => (variable, "is set, and so is the variable with _FILE: set one of them"),
            (Some(value), None) => match checked_secret(variable, value) {
                Ok(secret) => return Some(SecretSource::Value { variable, secret }),
                Err(why) => (variable, why),
            },
            // Somebody may have put the secret itself there: it is not shown.
            (None, Some(path)) if path.contains(char::is_control) => {
                (file_variable.as_str(), "has a control character in it: give the path of a file")
            }
            (None, Some(path)) => return Some(SecretSource::File { variable, path: PathBuf::from(path) }),
        };
        let fault = [name, " ", why].concat();
        self.faults.push(fault);
        None
    }

    fn tool_environment(&mut self) -> Vec<(String, String)> {
        self.take_optional(CA_BUNDLE_FILE, parse_bundle);
        let proxies = proxy::variables(|name| self.environment.get(name).map(str::to_owned)).unwrap_or_else(|faults| {
            self.faults.extend(faults);
            Vec::new()
        });
        let found = |name: &&str| {
            let value = self.environment.get(name)?;
            // Programs run in a folder with a repository's content: nothing there may pass for `git`.
            let value = if *name == "PATH" { absolute_folders(value) } else { value.to_owned() };
            Some(((*name).to_owned(), value))
        };
        let others = TOOL_VARIABLES.iter().filter(|name| !name.to_ascii_lowercase().ends_with("_proxy"));
        others.filter_map(found).chain(proxies).collect()
    }

    /// A setting that is there and at fault is not missing too, hence the look at what was given, not at what was read.
    fn refuse_lacking(&mut self) {
        let accept_new = parse_boolean(self.text("GIT_SSH_ACCEPT_NEW").1) == Ok(true);
        let remote = self.found("GIT_REMOTE_URL").and_then(|(_, text)| RemoteUrl::parse(text).ok());
        let lacks = lacking(remote.as_ref(), &|variable| {
            self.environment.get(variable).is_some()
                || self.environment.get(&[variable, "_FILE"].concat()).is_some()
                || self.options.instead_of(variable).is_some()
                || variable == "GIT_SSH_KNOWN_HOSTS_FILE" && accept_new
                || self.environment.faults.iter().any(|fault| fault.starts_with(variable))
        });
        self.faults.extend(lacks);
    }
}

/// The empty text where nothing holds.
fn default_of(variable: &str) -> &'static str {
    VARIABLES.iter().find(|one| one.name == variable).and_then(|one| one.default).unwrap_or_default()
}

/// The unit tests read every default.
fn default_is_at_fault(variable: &str, why: &str) -> ! {
    panic!("the default of {variable} is refused: {why}")
}

fn in_words(error: impl fmt::Display) -> String {
    error.to_string()
}

fn refused<T>(text: &str, why: &str) -> Result<T, String> {
    Err([&names::quoted(text), " ", why].concat())
}

fn parse_workspaces(text: &str) -> Result<Workspaces, String> {
    if text.trim() == "*" {
        return Ok(Workspaces::All);
    }
    let mut listed = Vec::new();
    for id in text.split(',') {
        let id = WorkspaceId::parse(id.trim()).map_err(in_words)?;
        if listed.contains(&id) {
            return Err([id.as_str(), " comes twice"].concat());
        }
        listed.push(id);
    }
    if listed.len() > WORKSPACES_MAX {
        return Err(format!("has more than {WORKSPACES_MAX} workspaces"));
    }
    Ok(Workspaces::Listed(listed))
}

fn parse_username(text: &str) -> Result<String, String> {
    // Basic authentication ends the user name at the first colon.
    if text.contains(|letter: char| letter.is_control() || letter == ':') {
        return refused(text, "has a colon or a control character in it");
    }
    if text.len() > USERNAME_BYTES_MAX {
        return refused(text, "is longer than 200 bytes");
    }
    Ok(text.to_owned())
}

fn parse_message(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return refused(text, "is empty");
    }
    if text.contains(char::is_control) {
        return refused(text, "is not one line of printable text");
    }
    if text.len() > MESSAGE_BYTES_MAX {
        return refused(text, "is longer than 1000 bytes");
    }
    Ok(text.to_owned())
}

/// What gets a commit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPer {
    /// All that a sync finds.
    Sync,
    /// Each item that differs.
    Item,
}

fn parse_commit_per(text: &str) -> Result<CommitPer, String> {
    match text {
        "sync" => Ok(CommitPer::Sync),
        "item" => Ok(CommitPer::Item),
        _ => refused(text, "is neither sync nor item"),
    }
}

fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => refused(text, "is neither true nor false"),
    }
}

fn parse_percent(text: &str) -> Result<u8, String> {
    match parse_digits(text) {
        // It is at most 100 and fits.
        Some(percent @ 0..=100) => Ok(u8::try_from(percent).unwrap_or(100)),
        _ => refused(text, "is no number from 0 to 100"),
    }
}

/// Digits only: Rust itself would take a plus sign too.
fn parse_digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit_seconds) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3_600),
        _ => (text, 1),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return refused(text, "is no duration: give 90s, 30m, 24h, or a number of seconds");
    }
    match parse_digits(digits).and_then(|number| number.checked_mul(unit_seconds)) {
        Some(seconds @ 0..=DURATION_SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => refused(text, "is longer than 3650 days"),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => refused(text, "leaves no time at all"),
        timeout => Ok(timeout),
    }
}

fn parse_data_dir(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains(char::is_control) {
        return refused(text, "is not an absolute path");
    }
    if path.parent().is_none() {
        return refused(text, "is the root of the file system: give a folder of its own");
    }
    Ok(path)
}

/// Programs that find it in their environment run in other folders than we do.
fn parse_bundle(text: &str) -> Result<(), String> {
    if !Path::new(text).is_absolute() || text.contains(char::is_control) {
        return refused(text, "is not an absolute path");
    }
    Ok(())
}

/// `ssh` splits this option's value at spaces and replaces what follows a percent or dollar sign.
fn parse_known_hosts(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return refused(text, "is not an absolute path");
    }
    if text.contains(|letter: char| letter.is_control() || letter.is_whitespace() || "\"'\\%$*?".contains(letter)) {
        return refused(text, "has a character that ssh does not take as it is");
    }
    Ok(path)
}

fn parse_listen(text: &str) -> Result<String, String> {
    match text.parse::<SocketAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => refused(text, "is no address with a port, such as 0.0.0.0:8080"),
    }
}

fn parse_log_level(text: &str) -> Result<LevelFilter, String> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => refused(text, "is none of error, warn, info, debug and trace"),
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => refused(text, "is neither text nor json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &[(&str, &str)] =
        &[("WINDMILL_TOKEN", "wm-secret"), ("GIT_REMOTE_URL", "https://h/x"), ("GIT_TOKEN", "git-secret")];

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn read(variables: &[(&str, &str)], need: Need) -> Result<Config, ConfigError> {
        Config::new(&Options::default(), &environment(variables), need)
    }

    fn config(variables: &[(&str, &str)]) -> Config {
        match read(variables, Need::Serve) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        }
    }

    /// The faults are as many as expected, and begin so.
    #[track_caller]
    fn check(variables: &[(&str, &str)], need: Need, expected: &[&str]) {
        let faults = read(variables, need).err().map(|error| error.faults().to_vec()).unwrap_or_default();
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, start) in faults.iter().zip(expected) {
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    /// Each of `accepted` passes for a variable, and each of `refused` is one fault that names it.
    #[track_caller]
    fn check_values(variable: &str, accepted: &[&str], refused: &[&str]) {
        for value in accepted {
            check(&[(variable, value)], Need::Serve, &[]);
        }
        for value in refused {
            check(&[(variable, value)], Need::Serve, &[variable]);
        }
    }

    #[test]
    fn nothing_set_gives_the_defaults_of_the_contract() {
        let config = config(&[]);
        assert_eq!(config.base_url.as_str(), "http://windmill_server:8000");
        assert_eq!((config.workspaces.to_text().as_str(), config.workspace_is_default), ("admins", true));
        assert_eq!((config.git_username.as_str(), config.branch.as_str()), ("x-access-token", "main"));
        assert_eq!(config.author.to_string(), "Windmill Git Sync <windmill@example.com>");
        assert_eq!(config.commit_message, "Automated Windmill workspace backup - {workspace}");
        assert!(config.commit_authors && config.skip_unchanged);
        assert!(!config.allow_plaintext_secrets && !config.ssh_accept_new);
        assert_eq!(config.deletions_percent_max, 50);
        assert_eq!(config.full_sync_every, Duration::from_secs(86_400));
        assert_eq!(config.sync_timeout, Duration::from_secs(1_800));
        assert_eq!(config.shutdown_grace, Duration::from_secs(30));
        assert_eq!((config.data_dir.to_str(), config.listen.as_str()), (Some("/workspace"), "0.0.0.0:8080"));
        assert_eq!((config.log_level, config.log_format), (LevelFilter::Info, LogFormat::Text));
        assert!(config.kinds_included.is_none() && config.kinds_skipped.is_none());
        assert!(config.remote.is_none() && config.windmill_token.is_none() && config.api_token.is_none());
        assert!(config.tool_environment.is_empty());
        assert!(config.subdir_for(config.workspaces.single().unwrap()).unwrap().is_root());
    }

    #[test]
    fn the_table_agrees_with_the_default_kinds() {
        let text = VARIABLES.iter().find(|one| one.name == "WMILL_INCLUDE").unwrap().default.unwrap();
        assert_eq!(IncludeKind::parse_list(text).unwrap(), KINDS_INCLUDED_DEFAULT);
    }

    #[test]
    fn every_variable_is_in_the_table_once() {
        for (index, one) in VARIABLES.iter().enumerate() {
            assert!(VARIABLES[index + 1..].iter().all(|other| other.name != one.name), "{}", one.name);
        }
    }

    #[test]
    fn an_option_beats_the_environment_and_an_empty_variable_is_unset() {
        let options = Options {
            workspace: Some("shop".to_owned()),
            subdir: Some(String::new()),
            listen: Some("127.0.0.1:0".to_owned()),
            ..Options::default()
        };
        let variables = environment(&[("WINDMILL_WORKSPACE", "a/b"), ("GIT_SUBDIR", "backup"), ("GIT_BRANCH", "")]);
        let config = Config::new(&options, &variables, Need::Serve).ok().unwrap();
        assert_eq!((config.workspaces.to_text().as_str(), config.workspace_is_default), ("shop", false));
        assert_eq!((config.subdir.as_str(), config.branch.as_str()), ("", "main"));
        assert_eq!(config.listen, "127.0.0.1:0");
    }

    #[test]
    fn a_fault_names_the_option_it_came_by() {
        let options = Options { workspace: Some("a/b".to_owned()), branch: Some(String::new()), ..Options::default() };
        let error = Config::new(&options, &environment(&[("GIT_SUBDIR", "..")]), Need::Serve).err().unwrap();
        assert_eq!(
            error.to_string(),
            "3 settings are wrong: \
             --workspace: workspace id \"a/b\" has another character than letters, digits, _ and -; \
             --branch: branch name \"\" is empty; GIT_SUBDIR: folder \"..\" has . or .. in it"
        );
    }

    #[test]
    fn a_sync_needs_what_a_server_may_lack() {
        check(&[], Need::Serve, &[]);
        check(&[], Need::Sync, &["WINDMILL_TOKEN is not set", "GIT_REMOTE_URL is not set"]);
        check(COMPLETE, Need::Sync, &[]);
        check(&COMPLETE[..2], Need::Sync, &["GIT_TOKEN is not set"]);
        let file = [COMPLETE[0], ("GIT_REMOTE_URL", "file:///x")];
        check(&file, Need::Sync, &[]);
        let ssh = [COMPLETE[0], ("GIT_REMOTE_URL", "git@h:x")];
        check(&ssh, Need::Sync, &["GIT_SSH_KEY", "GIT_SSH_KNOWN_HOSTS_FILE"]);
        let key = ("GIT_SSH_KEY_FILE", "/k");
        check(&[ssh[0], ssh[1], key], Need::Sync, &["GIT_SSH_KNOWN_HOSTS_FILE"]);
        check(&[ssh[0], ssh[1], key, ("GIT_SSH_ACCEPT_NEW", "true")], Need::Sync, &[]);
        check(&[ssh[0], ssh[1], key, ("GIT_SSH_KNOWN_HOSTS_FILE", "/h")], Need::Sync, &[]);
        assert_eq!(config(&ssh).lacking().len(), 2);
        assert!(config(COMPLETE).lacking().is_empty());
    }

    #[test]
    fn missing_and_malformed_are_told_at_once_and_none_twice() {
        let variables = [("GIT_REMOTE_URL", "https://h"), ("SYNC_TIMEOUT", "0"), ("LOG_FORMAT", "xml")];
        let expected = ["GIT_REMOTE_URL: remote URL", "SYNC_TIMEOUT: ", "LOG_FORMAT: ", "WINDMILL_TOKEN is not set"];
        check(&variables, Need::Sync, &expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_of_ours_that_is_not_utf8_is_named_and_others_are_let_be() {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = || OsString::from_vec(vec![b'x', 0xff]);
        let names = ["WINDMILL_TOKEN", "GIT_TOKEN_FILE", "PATH", "HOME"];
        let variables = Environment::new(names.map(|name| (name.into(), bytes())));
        let error = Config::new(&Options::default(), &variables, Need::Sync).err().unwrap();
        assert_eq!(
            error.faults(),
            [
                "WINDMILL_TOKEN is not UTF-8",
                "GIT_TOKEN_FILE is not UTF-8",
                "PATH is not UTF-8",
                "GIT_REMOTE_URL is not set"
            ]
        );
    }

    #[test]
    fn durations_have_one_of_four_forms() {
        for (text, seconds) in [("90s", 90), ("30m", 1_800), ("24h", 86_400), ("7", 7), ("0", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "s", "-1", "+1", "1.5h", "5 m", " 5", "1d", "1H", "h1", "5ms", "99999999999999999999", "87601h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        check_values("SYNC_TIMEOUT", &["1"], &["0", "0h"]);
        check_values("FULL_SYNC_EVERY", &["0"], &["never"]);
        check_values("SHUTDOWN_GRACE", &["0"], &["-1s"]);
    }

    #[test]
    fn booleans_have_three_spellings() {
        for (text, value) in [("true", true), ("YES", true), ("1", true), ("False", false), ("no", false), ("0", false)]
        {
            assert_eq!(parse_boolean(text), Ok(value), "{text}");
        }
        for variable in ["SKIP_UNCHANGED", "ALLOW_PLAINTEXT_SECRETS", "GIT_SSH_ACCEPT_NEW", "COMMIT_AUTHORS"] {
            check_values(variable, &["yes"], &["on", "2", "tru"]);
        }
    }

    #[test]
    fn other_values_have_their_nearest_refused_neighbour() {
        check_values("WINDMILL_WORKSPACE", &["shop"], &["a,b", "*", "a b"]);
        check_values("WINDMILL_BASE_URL", &["http://h/w/"], &["h"]);
        check_values("GIT_USERNAME", &["oauth2"], &["a:b", "a\nb"]);
        check_values("GIT_BRANCH", &["w/{workspace}"], &["w/{work}", "wm-fork/{workspace}"]);
        check_values("GIT_SUBDIR", &["/{workspace}/"], &["{workspace}/..", "{}"]);
        check_values("GIT_USER_NAME", &["Ann"], &["<", " "]);
        check_values("GIT_USER_EMAIL", &["a@b"], &["<a@b>"]);
        check_values("COMMIT_MESSAGE", &["x {any}\n"], &["a\nb", " ", "a\u{7}"]);
        check_values("COMMIT_PER", &["sync", "item"], &["Item"]);
        check_values("MAX_DELETIONS_PERCENT", &["0", "100"], &["101", "-1", "+5", "50%", "5.0"]);
        check_values("DATA_DIR", &["/a/b"], &["a", "/", "./a"]);
        check_values("GIT_SSH_KNOWN_HOSTS_FILE", &["/a/known_hosts"], &["known_hosts", "/a b", "/a%h", "/${X}"]);
        check_values("CA_BUNDLE_FILE", &["/a b/ca.pem"], &["ca.pem", "./ca.pem", "/a\nb"]);
        check_values("VERIFY_SCHEDULE", &["0 4 * * 0"], &["@daily"]);
        check_values("LISTEN_ADDR", &["[::]:80", "127.0.0.1:0"], &[":80", "localhost:80", "0.0.0.0", "0.0.0.0:65536"]);
        check_values("LOG_LEVEL", &["trace", "WARN"], &["off", "verbose"]);
        check_values("LOG_FORMAT", &["json"], &["logfmt"]);
    }

    #[test]
    fn several_workspaces_need_a_place_each() {
        let with =
            |workspaces, name, template| read(&[("WINDMILL_WORKSPACE", workspaces), (name, template)], Need::Serve);
        for workspaces in ["a,b", " a , b ", "*"] {
            for (name, template) in [("GIT_BRANCH", "backup/{workspace}"), ("GIT_SUBDIR", "{workspace}")] {
                let config = with(workspaces, name, template).ok().unwrap();
                assert!(config.workspaces.single().is_none(), "{workspaces}");
            }
            let error = with(workspaces, "GIT_SUBDIR", "backup").err().unwrap().to_string();
            assert!(error.contains("WINDMILL_WORKSPACE: several workspaces need {workspace} in GIT_BRANCH"), "{error}");
        }
        assert_eq!(with("a", "GIT_SUBDIR", "backup").ok().unwrap().workspaces.to_text(), "a");
        for (workspaces, why) in
            [("a,a", "a comes twice"), ("a,,b", "workspace id \"\" is empty"), ("a,*", "workspace id \"*\" has")]
        {
            let error = with(workspaces, "GIT_SUBDIR", "{workspace}").err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn all_workspaces_are_all_but_windmills_own() {
        let id = |id| WorkspaceId::parse(id).unwrap();
        assert!(Workspaces::All.hold(&id("a")) && !Workspaces::All.hold(&id("admins")));
        let listed = Workspaces::Listed(vec![id("admins"), id("a")]);
        assert!(listed.hold(&id("admins")) && !listed.hold(&id("b")));
    }

    #[test]
    fn kinds_are_words_or_none() {
        use IncludeKind::{Groups, Key, Users};
        for (text, kinds) in [("none", &[][..]), (" none ", &[]), ("users, key", &[Users, Key]), ("groups", &[Groups])]
        {
            assert_eq!(IncludeKind::parse_list(text).as_deref(), Ok(kinds), "{text}");
        }
        for (text, word) in [
            ("users,users", "users comes twice"),
            ("users,none", "none does not go"),
            ("none,none", "none does not go"),
            ("user", "\"user\" is unknown; permitted are schedules, triggers, users, groups, settings, key, or none"),
            ("users,", "\"\" is unknown"),
            ("Users", "unknown"),
            ("scripts", "unknown"),
        ] {
            let error = IncludeKind::parse_list(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert_eq!(SkipKind::parse_list(&SkipKind::WORDS.join(",")).as_deref(), Ok(SkipKind::ALL));
        assert!(SkipKind::ALL.iter().map(|kind| kind.as_str()).eq(SkipKind::WORDS.iter().copied()));
        assert!(config(&[("WMILL_SKIP", "none")]).kinds_skipped.is_some_and(|kinds| kinds.is_empty()));
    }

    #[test]
    fn a_secret_has_one_source_and_is_never_shown() {
        check(&[("GIT_TOKEN", "hunter2"), ("GIT_TOKEN_FILE", "/t")], Need::Serve, &["GIT_TOKEN is set, and so is"]);
        check(&[("NOTIFY_URL", "hunter2"), ("NOTIFY_URL_FILE", "/t")], Need::Serve, &["NOTIFY_URL is set"]);
        check(&[("WINDMILL_TOKEN", " ")], Need::Sync, &["WINDMILL_TOKEN is empty", "GIT_REMOTE_URL"]);
        for (variable, value) in [
            ("GIT_TOKEN", "hunter2\nx"),
            ("GIT_TOKEN_FILE", "hunter2\nx"),
            ("GIT_REMOTE_URL", "https://u:hunter2@h/x"),
            ("WINDMILL_BASE_URL", "https://hunter2@h/x"),
        ] {
            let error = read(&[(variable, value)], Need::Serve).err().unwrap().to_string();
            assert!(error.contains(variable) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_is_trimmed_and_a_key_ends_with_a_line_break() {
        let config = config(&[("GIT_TOKEN", " tok\n"), ("GIT_SSH_KEY", "-----BEGIN\r\nx\r\n-----END")]);
        let exposed = |source: Option<SecretSource>| source.unwrap().read().unwrap().expose().to_owned();
        assert_eq!(exposed(config.git_token), "tok");
        assert_eq!(exposed(config.ssh_key), "-----BEGIN\nx\n-----END\n");
    }

    #[test]
    fn a_secret_file_is_read_anew_and_its_faults_name_variable_and_path() {
        let folder = crate::scratch::Scratch::for_test("secret").unwrap();
        let path = folder.path().join("token");
        let source = config(&[("GIT_TOKEN_FILE", path.to_str().unwrap())]).git_token.unwrap();
        let refusal = || source.read().err().unwrap_or_default();
        assert!(
            refusal().starts_with(&format!("GIT_TOKEN_FILE: cannot take the secret from {path:?}: ")),
            "{}",
            refusal()
        );
        for content in ["one\n", "two\r\n"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(source.read().unwrap().expose(), content.trim_end());
        }
        let (longest, too_long) = ("x".repeat(65_536), "x".repeat(65_537));
        std::fs::write(&path, longest).unwrap();
        assert!(source.read().is_ok());
        for (content, word) in [("", "is empty"), ("\n", "is empty"), ("a\nb", "line break"), (&too_long, "64 KiB")] {
            std::fs::write(&path, content).unwrap();
            assert!(refusal().contains(word), "{}", refusal());
        }
        std::fs::write(&path, b"\xff").unwrap();
        assert!(refusal().contains("UTF-8"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(refusal().contains("regular file"), "{}", refusal());
    }

    #[test]
    fn a_secret_given_as_a_path_is_not_shown() {
        let source = config(&[("GIT_TOKEN_FILE", "hunter2")]).git_token.unwrap();
        assert!(!source.read().unwrap_err().contains("hunter2"));
    }

    #[test]
    fn tools_get_the_way_out_and_nothing_else() {
        let config = config(&[
            ("https_proxy", "http://u:p4ss@proxy:3128/"),
            ("NO_PROXY", "h"),
            ("PATH", "/bin"),
            ("LD_PRELOAD", "x"),
            ("GIT_DIR", "y"),
        ]);
        let names: Vec<&str> = config.tool_environment.iter().map(|(name, _)| name.as_str()).collect();
        let proxies = ["https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "NODE_USE_ENV_PROXY"];
        assert_eq!(names, [&["PATH"][..], &proxies].concat());
        assert!(config.proxy_secrets().contains(&Secret::new("p4ss")));
        check(&[("ALL_PROXY", "socks5://p"), ("GIT_BRANCH", "")], Need::Serve, &["ALL_PROXY: is no address"]);
    }
}
