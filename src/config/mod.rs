//! The settings: turns options and environment into a [`Config`], or into one error that lists all faults.
//!
//! Only [`SecretSource::read`] reads files.

mod headers;
mod parse;
pub mod schedule;
mod secret_source;
mod variables;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::config::parse::{
    KINDS_TO_INCLUDE, KINDS_TO_SKIP, OCCASIONS, one_of, parse_absolute, parse_boolean, parse_data_dir, parse_duration,
    parse_known_hosts, parse_listen, parse_log_format, parse_log_level, parse_message, parse_percent, parse_timeout,
    parse_username, parse_words, parse_workspaces,
};
use crate::config::secret_source::checked_secret;
use crate::model::{
    ADMINS, BaseUrl, BranchName, Identity, RemoteScheme, RemoteUrl, Subdir, WORKSPACE_MARK, WorkspaceId,
};
use crate::net::ca_bundle::CA_BUNDLE_FILE;
use crate::net::proxy;
use crate::util::{LogFormat, Secret};

pub use headers::parse_headers;
pub use parse::{WORKSPACES_MAX, Workspaces};
pub use schedule::Schedule;
pub use secret_source::SecretSource;
pub(crate) use secret_source::{checked_token, checked_windmill_token};
pub use variables::{Environment, Options, Required, Variable};

const MESSAGE_DEFAULT: &str = "Automated Windmill workspace backup - {workspace}";
/// The kinds that are included if `WMILL_INCLUDE` and the repository's `wmill.yaml` do not decide.
/// `windmill::wmill_yaml` has them in another form.
const KINDS_DEFAULT: &str = "schedules,triggers,groups";

/// The folder that systemd made for a unit with `StateDirectory=`. If it is set, it is the default of `DATA_DIR`. If it
/// lists several folders, separated by colons, the first one is used.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Environment variables that are passed to `wmill` and `git` besides those of [`proxy::variables`]: certificates, the
/// path of programs, the time zone.
const TOOL_VARIABLES: [&str; 6] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", CA_BUNDLE_FILE, "PATH", "TZ"];

/// Declares the settings in the order in which they are read, which is also the order of their faults: the field, its
/// type, and how the reader reads it.
macro_rules! settings {
    ($reader:ident: $($(#[$about:meta])+ $field:ident: $kind:ty = $read:expr;)+) => {
        /// All settings, parsed. It has no `Debug`, because the environment of the tools may hold a proxy's password.
        #[derive(Clone)]
        pub struct Config {
            $($(#[$about])+ pub $field: $kind,)+
        }

        impl Reader<'_> {
            fn config(&mut self) -> Config {
                let $reader = self;
                Config { $($field: $read,)+ }
            }
        }
    };
}

settings! {
    reader:
    /// `WINDMILL_BASE_URL`
    base_url: BaseUrl = reader.take("WINDMILL_BASE_URL", "http://windmill_server:8000", BaseUrl::parse);
    /// `WINDMILL_TOKEN`
    windmill_token: Option<SecretSource> = reader.secret("WINDMILL_TOKEN");
    /// Whether the workspace is the default one.
    workspace_is_default: bool = reader.option_or_variable("WINDMILL_WORKSPACE").is_none();
    /// `WINDMILL_WORKSPACE`
    workspaces: Workspaces = reader.take("WINDMILL_WORKSPACE", "admins", parse_workspaces);
    /// `GIT_REMOTE_URL`
    remote: Option<RemoteUrl> = reader.take_optional("GIT_REMOTE_URL", None, RemoteUrl::parse);
    /// `GIT_TOKEN`
    git_token: Option<SecretSource> = reader.secret("GIT_TOKEN");
    /// `GIT_USERNAME`
    git_username: String = reader.take("GIT_USERNAME", "x-access-token", parse_username);
    /// `GIT_BRANCH`, a template; [`Config::branch_for`] fills it.
    branch: String = reader.take("GIT_BRANCH", "main", |text| Ok(text.to_owned()));
    /// `GIT_SUBDIR`, a template; [`Config::subdir_for`] fills it.
    subdir: String = reader.take("GIT_SUBDIR", "", |text| Ok(text.to_owned()));
    /// `GIT_USER_NAME` and `GIT_USER_EMAIL`
    author: Identity = Identity::of_parts(
        reader.take("GIT_USER_NAME", "Windmill Git Sync", Identity::parse_name),
        reader.take("GIT_USER_EMAIL", "windmill@example.com", Identity::parse_email),
    );
    /// `COMMIT_MESSAGE`, a template of one line.
    commit_message: String = reader.take("COMMIT_MESSAGE", MESSAGE_DEFAULT, parse_message);
    /// Whether `COMMIT_PER` is `item`.
    commits_per_item: bool = reader.take("COMMIT_PER", "sync", |text| Ok(one_of(text, &["sync", "item"])? == "item"));
    /// `COMMIT_AUTHORS`
    commit_authors: bool = reader.take("COMMIT_AUTHORS", "true", parse_boolean);
    /// `GIT_SSH_KEY`
    ssh_key: Option<SecretSource> = reader.secret("GIT_SSH_KEY");
    /// `GIT_SSH_KNOWN_HOSTS_FILE`, absolute, without characters that `ssh` interprets.
    ssh_known_hosts: Option<PathBuf> = reader.take_optional("GIT_SSH_KNOWN_HOSTS_FILE", None, parse_known_hosts);
    /// `GIT_SSH_ACCEPT_NEW`
    ssh_accept_new: bool = reader.take("GIT_SSH_ACCEPT_NEW", "false", parse_boolean);
    /// `GIT_SIGNING_KEY`
    signing_key: Option<SecretSource> = reader.secret("GIT_SIGNING_KEY");
    /// Variables for `wmill`, `git` and our client: those for proxies as [`proxy::variables`] returns them, and
    /// `CA_BUNDLE_FILE`, which [`for_run`](crate::net::ca_bundle::for_run) adds to the certificates of git. A proxy's
    /// URL may hold a password, see [`Config::proxy_secrets`].
    tool_environment: Vec<(String, String)> = reader.tool_environment();
    /// `WMILL_INCLUDE`. If it is `None`, the repository's `wmill.yaml` decides, and without that the documented
    /// default.
    kinds_included: Option<Vec<&'static str>> =
        reader.take_optional("WMILL_INCLUDE", Some(KINDS_DEFAULT), |text| parse_words(text, &KINDS_TO_INCLUDE));
    /// `WMILL_SKIP`. If it is `None`, the repository's `wmill.yaml` decides.
    kinds_skipped: Option<Vec<&'static str>> =
        reader.take_optional("WMILL_SKIP", Some("none"), |text| parse_words(text, &KINDS_TO_SKIP));
    /// `ALLOW_PLAINTEXT_SECRETS`
    allow_plaintext_secrets: bool = reader.take("ALLOW_PLAINTEXT_SECRETS", "false", parse_boolean);
    /// `ALLOW_PUBLIC_REPOSITORY`
    allow_public_repository: bool = reader.take("ALLOW_PUBLIC_REPOSITORY", "false", parse_boolean);
    /// `MAX_DELETIONS_PERCENT`, 0 to 100
    deletions_percent_max: u8 = reader.take("MAX_DELETIONS_PERCENT", "50", parse_percent);
    /// `SKIP_UNCHANGED`
    skip_unchanged: bool = reader.take("SKIP_UNCHANGED", "true", parse_boolean);
    /// `FULL_SYNC_EVERY`; zero makes every sync a full one.
    full_sync_every: Duration = reader.take("FULL_SYNC_EVERY", "24h", parse_duration);
    /// `EXPECT_SYNC_EVERY`, at least a second
    expect_sync_every: Option<Duration> = reader.take_optional("EXPECT_SYNC_EVERY", None, parse_timeout);
    /// `WINDMILL_HEADERS`; [`parse_headers`] reads its text.
    windmill_headers: Option<SecretSource> = reader.secret("WINDMILL_HEADERS");
    /// `SYNC_TIMEOUT`, more than zero
    sync_timeout: Duration = reader.take("SYNC_TIMEOUT", "30m", parse_timeout);
    /// `DATA_DIR`, absolute
    data_dir: PathBuf = reader.take("DATA_DIR", "/workspace", parse_data_dir);
    /// `LISTEN_ADDR`
    listen: SocketAddr = reader.take("LISTEN_ADDR", "0.0.0.0:8080", parse_listen);
    /// `SYNC_API_TOKEN`
    api_token: Option<SecretSource> = reader.secret("SYNC_API_TOKEN");
    /// `SYNC_SCHEDULE`
    sync_schedule: Option<Schedule> = reader.take_optional("SYNC_SCHEDULE", None, Schedule::parse);
    /// `VERIFY_SCHEDULE`
    verify_schedule: Option<Schedule> = reader.take_optional("VERIFY_SCHEDULE", None, Schedule::parse);
    /// `SHUTDOWN_GRACE`
    shutdown_grace: Duration = reader.take("SHUTDOWN_GRACE", "30s", parse_duration);
    /// `SLACK_WEBHOOK_URL`
    slack_webhook_url: Option<SecretSource> = reader.secret("SLACK_WEBHOOK_URL");
    /// `DISCORD_WEBHOOK_URL`
    discord_webhook_url: Option<SecretSource> = reader.secret("DISCORD_WEBHOOK_URL");
    /// `NOTIFY_URL`
    notify_url: Option<SecretSource> = reader.secret("NOTIFY_URL");
    /// `NOTIFY_ON`
    notify_on: Vec<&'static str> = reader.take("NOTIFY_ON", "failure,recovery", |text| parse_words(text, &OCCASIONS));
    /// `HEARTBEAT_URL`
    heartbeat_url: Option<SecretSource> = reader.secret("HEARTBEAT_URL");
    /// `LOG_LEVEL`
    log_level: LevelFilter = reader.take("LOG_LEVEL", "info", parse_log_level);
    /// `LOG_FORMAT`
    log_format: LogFormat = reader.take("LOG_FORMAT", "text", parse_log_format);
}

/// All faults of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The faults; each begins with the name of the variable or option.
    pub faults: Vec<String>,
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

impl Config {
    /// Reads all settings.
    ///
    /// # Errors
    ///
    /// Fails if a setting is malformed, or if one that `need` requires is missing. The one error names all of them.
    pub fn new(options: &Options, environment: &Environment, need: Required) -> Result<Self, ConfigError> {
        let mut reader = Reader { options, environment, faults: options.faults.clone(), declared: Vec::new() };
        let config = reader.config();
        reader.check_places(&config);
        if need != Required::Serve {
            reader.refuse_lacking(&config, need);
        }
        if reader.faults.is_empty() { Ok(config) } else { Err(ConfigError { faults: reader.faults }) }
    }

    /// Returns what is missing for a sync with these settings alone. Each text begins with the variable's name.
    pub fn lacking(&self) -> Vec<&'static str> {
        let is_http = self.remote.as_ref().is_some_and(RemoteUrl::is_http);
        let is_ssh = self.remote.as_ref().is_some_and(|remote| remote.scheme() == RemoteScheme::Ssh);
        let trusts_no_host = self.ssh_known_hosts.is_none() && !self.ssh_accept_new;
        let all = [
            (self.windmill_token.is_none(), "WINDMILL_TOKEN is not set"),
            (self.remote.is_none(), "GIT_REMOTE_URL is not set"),
            (is_http && self.git_token.is_none(), "GIT_TOKEN is not set, and an http(s) remote needs it"),
            (is_ssh && self.ssh_key.is_none(), "GIT_SSH_KEY is not set, and an ssh remote needs it"),
            (
                is_ssh && trusts_no_host,
                "GIT_SSH_KNOWN_HOSTS_FILE is not set, and an ssh remote needs it, or else GIT_SSH_ACCEPT_NEW=true",
            ),
        ];
        all.into_iter().filter_map(|(is_lacking, fault)| is_lacking.then_some(fault)).collect()
    }

    /// Returns advice if no setting would raise an alarm when backups stop.
    pub fn no_alarm(&self) -> Option<&'static str> {
        (self.sync_schedule.is_none() && self.expect_sync_every.is_none()).then_some(
            "neither SYNC_SCHEDULE nor EXPECT_SYNC_EVERY is set, so nothing reports a backup that is no longer \
             started: set one of them",
        )
    }

    /// Returns the branch for a workspace.
    ///
    /// # Errors
    ///
    /// Fails if the template, filled with this id, is not a valid branch name (for example, if it is too long).
    pub fn branch_for(&self, workspace: &WorkspaceId) -> Result<BranchName, String> {
        BranchName::from_template(&self.branch, workspace)
    }

    /// Returns the folder for a workspace.
    ///
    /// # Errors
    ///
    /// Fails if the template, filled with this id, is not a valid folder (for example, if it is too long).
    pub fn subdir_for(&self, workspace: &WorkspaceId) -> Result<Subdir, String> {
        Subdir::from_template(&self.subdir, workspace)
    }

    /// Returns the passwords in the URLs of proxies, so that they can be removed from the output of the tools.
    pub fn proxy_secrets(&self) -> Vec<Secret> {
        proxy::secrets(&self.tool_environment)
    }
}

/// Returns all our variables in the order in which they are read and documented.
pub fn variables() -> Vec<Variable> {
    let (options, environment) = (Options::default(), Environment::default());
    let mut reader = Reader { options: &options, environment: &environment, faults: Vec::new(), declared: Vec::new() };
    reader.config();
    reader.declared
}

/// Reads all settings one by one, and continues after a fault.
struct Reader<'a> {
    options: &'a Options,
    environment: &'a Environment,
    faults: Vec<String>,
    /// The variables that were read. The documentation is compared with them.
    declared: Vec<Variable>,
}

impl<'a> Reader<'a> {
    /// Returns the value of a variable; an empty one counts as unset.
    fn variable(&mut self, name: &str) -> Option<&'a str> {
        self.environment.read(name).unwrap_or_else(|fault| {
            self.push(fault);
            None
        })
    }

    /// Returns the name of the option if it is given, or else of the variable.
    fn name_of(&self, variable: &'static str) -> &'static str {
        self.options.instead_of(variable).map_or(variable, |(name, _)| name)
    }

    /// Returns the name and value of the option, or of the variable if the option is not given.
    fn option_or_variable(&mut self, variable: &'static str) -> Option<(&'static str, &'a str)> {
        if let Some(option) = self.options.instead_of(variable) {
            return Some(option);
        }
        match self.variable(variable) {
            None if variable == "DATA_DIR" => {
                Some((STATE_DIRECTORY, self.variable(STATE_DIRECTORY)?.split(':').next()?))
            }
            value => Some((variable, value?)),
        }
    }

    fn fault(&mut self, name: &str, why: &str) {
        self.push(format!("{name}: {why}"));
    }

    /// Adds a fault once: some variables are read several times, and a template is wrong for several workspaces.
    fn push(&mut self, fault: String) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Parses a setting. If it is absent or malformed, returns the default, so that the other settings are read too.
    fn take<T>(&mut self, variable: &'static str, default: &'static str, parse: fn(&str) -> Result<T, String>) -> T {
        self.take_optional(variable, Some(default), parse).unwrap_or_else(|| {
            // The unit tests parse every default.
            parse(default).unwrap_or_else(|why| panic!("the default of {variable} is refused: {why}"))
        })
    }

    /// Parses a setting that may be absent. `default` is what its absence means, for the documentation.
    fn take_optional<T>(
        &mut self,
        variable: &'static str,
        default: Option<&'static str>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.declared.push(Variable { name: variable, default, secret: false });
        let (name, text) = self.option_or_variable(variable)?;
        parse(text).map_err(|why| self.fault(name, &why)).ok()
    }

    /// Checks the branch and the folder of each listed workspace, or of `admins` if no workspace is listed. Several
    /// workspaces need `{workspace}` in one of the two templates: then no workspace uses the branch and folder of
    /// another, and no folder lies within another, because an id has no slash.
    fn check_places(&mut self, config: &Config) {
        let listed = match &config.workspaces {
            Workspaces::Listed(listed) => listed.clone(),
            Workspaces::All => WorkspaceId::parse(ADMINS).into_iter().collect(),
        };
        for workspace in &listed {
            if let Err(why) = config.branch_for(workspace) {
                self.fault(self.name_of("GIT_BRANCH"), &why);
            }
            if let Err(why) = config.subdir_for(workspace) {
                self.fault(self.name_of("GIT_SUBDIR"), &why);
            }
        }
        let is_template = [&config.branch, &config.subdir].iter().any(|text| text.contains(WORKSPACE_MARK));
        if config.workspaces.single().is_none() && !is_template {
            self.fault(
                self.name_of("WINDMILL_WORKSPACE"),
                "several workspaces need {workspace} in GIT_BRANCH or in GIT_SUBDIR, so that each has a place of its \
                 own",
            );
        }
    }

    fn secret(&mut self, variable: &'static str) -> Option<SecretSource> {
        self.declared.push(Variable { name: variable, default: None, secret: true });
        let file_variable = [variable, "_FILE"].concat();
        let value = self.variable(variable);
        let path = self.variable(&file_variable);
        let source = match (value, path) {
            (None, None) => return None,
            (Some(_), Some(_)) => Err((variable, "is set, and so is the variable with _FILE: set one of them")),
            (Some(value), None) => {
                checked_secret(variable, value).map(SecretSource::Value).map_err(|why| (variable, why))
            }
            // The value may be the secret itself, so it is not shown.
            (None, Some(path)) if path.contains(char::is_control) => {
                Err((file_variable.as_str(), "has a control character in it: give the path of a file"))
            }
            (None, Some(path)) => Ok(SecretSource::File { variable, path: PathBuf::from(path) }),
        };
        source.map_err(|(name, why)| self.push([name, " ", why].concat())).ok()
    }

    fn tool_environment(&mut self) -> Vec<(String, String)> {
        self.take_optional(CA_BUNDLE_FILE, None, parse_absolute);
        let proxies = proxy::variables(|name| self.variable(name).map(str::to_owned)).unwrap_or_else(|faults| {
            self.faults.extend(faults);
            Vec::new()
        });
        let found = |name: &str| {
            let value = self.variable(name)?;
            if name != "PATH" {
                return Some((name.to_owned(), value.to_owned()));
            }
            // Programs run in a folder with a repository's content, so a file in it must not be found as `git`. A
            // relative path in `PATH` means that folder, or one below it.
            let folders: Vec<_> = value.split(':').filter(|folder| folder.starts_with('/')).collect();
            Some((name.to_owned(), folders.join(":")))
        };
        TOOL_VARIABLES.into_iter().filter_map(found).chain(proxies).collect()
    }

    /// Adds a fault for each missing setting. A malformed setting is not missing: it has a fault that begins with its
    /// name already.
    fn refuse_lacking(&mut self, config: &Config, need: Required) {
        for fault in config.lacking() {
            let variable = fault.split(' ').next().unwrap_or_default();
            let name = self.name_of(variable);
            let is_needed = need != Required::Git || variable != "WINDMILL_TOKEN";
            if is_needed && !self.faults.iter().any(|fault| fault.starts_with(name)) {
                self.faults.push(fault.to_owned());
            }
        }
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

    fn read(variables: &[(&str, &str)], need: Required) -> Result<Config, ConfigError> {
        Config::new(&Options::default(), &environment(variables), need)
    }

    fn config(variables: &[(&str, &str)]) -> Config {
        match read(variables, Required::Serve) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns the listed workspaces, and whether they are the default.
    fn listed(config: &Config) -> (Vec<&str>, bool) {
        let Workspaces::Listed(listed) = &config.workspaces else { panic!("all workspaces") };
        (listed.iter().map(WorkspaceId::as_str).collect(), config.workspace_is_default)
    }

    /// Checks the number of faults, and how each begins.
    #[track_caller]
    fn check(variables: &[(&str, &str)], need: Required, expected: &[&str]) {
        let faults = read(variables, need).err().map(|error| error.faults).unwrap_or_default();
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, start) in faults.iter().zip(expected) {
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    /// Checks that the variable can have each of `accepted`, and that each of `refused` gives one fault that names the
    /// variable.
    #[track_caller]
    fn check_values(variable: &str, accepted: &[&str], refused: &[&str]) {
        for value in accepted {
            check(&[(variable, value)], Required::Serve, &[]);
        }
        for value in refused {
            check(&[(variable, value)], Required::Serve, &[variable]);
        }
    }

    #[test]
    fn without_variables_the_settings_are_the_documented_defaults() {
        let config = config(&[]);
        assert_eq!(config.base_url.as_str(), "http://windmill_server:8000");
        assert_eq!(listed(&config), (vec!["admins"], true));
        assert_eq!((config.git_username.as_str(), config.branch.as_str()), ("x-access-token", "main"));
        assert_eq!(config.author.to_string(), "Windmill Git Sync <windmill@example.com>");
        assert_eq!(config.commit_message, "Automated Windmill workspace backup - {workspace}");
        assert!(config.commit_authors && config.skip_unchanged);
        assert!(!config.allow_plaintext_secrets && !config.ssh_accept_new);
        assert_eq!(config.deletions_percent_max, 50);
        assert_eq!(config.full_sync_every, Duration::from_secs(86_400));
        assert_eq!(config.sync_timeout, Duration::from_secs(1_800));
        assert_eq!(config.shutdown_grace, Duration::from_secs(30));
        assert_eq!(
            (config.data_dir.to_str(), config.listen.to_string()),
            (Some("/workspace"), "0.0.0.0:8080".to_owned())
        );
        assert_eq!((config.log_level, config.log_format), (LevelFilter::Info, LogFormat::Text));
        assert!(config.kinds_included.is_none() && config.kinds_skipped.is_none());
        assert!(config.remote.is_none() && config.windmill_token.is_none() && config.api_token.is_none());
        assert!(config.tool_environment.is_empty());
        assert!(config.subdir_for(config.workspaces.single().unwrap()).unwrap().is_root());
    }

    #[test]
    fn the_default_kinds_are_valid_words_of_the_setting() {
        let text = variables().iter().find(|variable| variable.name == "WMILL_INCLUDE").unwrap().default.unwrap();
        assert_eq!(parse_words(text, &KINDS_TO_INCLUDE).unwrap(), ["schedules", "triggers", "groups"]);
    }

    #[test]
    fn every_variable_is_declared_once() {
        let all = variables();
        for (index, variable) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| other.name != variable.name), "{}", variable.name);
        }
    }

    #[test]
    fn an_option_overrides_the_environment_and_an_empty_variable_is_unset() {
        let [workspace, subdir, listen] = ["shop", "", "127.0.0.1:0"].map(|value| Some(value.to_owned()));
        let options = Options::new([
            ("--workspace", "WINDMILL_WORKSPACE", &workspace),
            ("--subdir", "GIT_SUBDIR", &subdir),
            ("--listen", "LISTEN_ADDR", &listen),
            ("--branch", "GIT_BRANCH", &None),
        ]);
        let variables = environment(&[("WINDMILL_WORKSPACE", "a/b"), ("GIT_SUBDIR", "backup"), ("GIT_BRANCH", "")]);
        let config = Config::new(&options, &variables, Required::Serve).ok().unwrap();
        assert_eq!(listed(&config), (vec!["shop"], false));
        assert_eq!((config.subdir.as_str(), config.branch.as_str()), ("", "main"));
        assert_eq!(config.listen.to_string(), "127.0.0.1:0");
    }

    #[test]
    fn a_fault_of_an_option_names_the_option() {
        let options = Options::new([
            ("--workspace", "WINDMILL_WORKSPACE", &Some("a/b".to_owned())),
            ("--branch", "GIT_BRANCH", &Some(String::new())),
        ]);
        let error = Config::new(&options, &environment(&[("GIT_SUBDIR", "..")]), Required::Serve).err().unwrap();
        assert_eq!(
            error.to_string(),
            "3 settings are wrong: \
             --workspace: workspace id \"a/b\" has another character than letters, digits, _ and -; \
             --branch: branch name \"\" is empty; GIT_SUBDIR: folder \"..\" has . or .. in it"
        );
    }

    #[test]
    fn a_sync_requires_settings_that_a_server_does_not() {
        check(&[], Required::Serve, &[]);
        check(&[], Required::Sync, &["WINDMILL_TOKEN is not set", "GIT_REMOTE_URL is not set"]);
        check(COMPLETE, Required::Sync, &[]);
        check(&COMPLETE[..2], Required::Sync, &["GIT_TOKEN is not set"]);
        let file = [COMPLETE[0], ("GIT_REMOTE_URL", "file:///x")];
        check(&file, Required::Sync, &[]);
        let ssh = [COMPLETE[0], ("GIT_REMOTE_URL", "git@h:x")];
        check(&ssh, Required::Sync, &["GIT_SSH_KEY", "GIT_SSH_KNOWN_HOSTS_FILE"]);
        let key = ("GIT_SSH_KEY_FILE", "/k");
        check(&[ssh[0], ssh[1], key], Required::Sync, &["GIT_SSH_KNOWN_HOSTS_FILE"]);
        check(&[ssh[0], ssh[1], key, ("GIT_SSH_ACCEPT_NEW", "true")], Required::Sync, &[]);
        check(&[ssh[0], ssh[1], key, ("GIT_SSH_KNOWN_HOSTS_FILE", "/h")], Required::Sync, &[]);
        assert_eq!(config(&ssh).lacking().len(), 2);
        assert!(config(COMPLETE).lacking().is_empty());
    }

    #[test]
    fn missing_and_malformed_settings_are_reported_together_and_once() {
        let variables = [("GIT_REMOTE_URL", "https://h"), ("SYNC_TIMEOUT", "0"), ("LOG_FORMAT", "xml")];
        let expected = ["GIT_REMOTE_URL: remote URL", "SYNC_TIMEOUT: ", "LOG_FORMAT: ", "WINDMILL_TOKEN is not set"];
        check(&variables, Required::Sync, &expected);
    }

    #[cfg(unix)]
    #[test]
    fn a_setting_that_is_not_utf8_is_named_and_other_variables_are_ignored() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = || OsString::from_vec(vec![b'x', 0xff]);
        let names = ["WINDMILL_TOKEN", "GIT_TOKEN_FILE", "PATH", "HOME"];
        let variables = Environment::new(names.map(|name| (name.into(), bytes())));
        let error = Config::new(&Options::default(), &variables, Required::Sync).err().unwrap();
        assert_eq!(
            error.faults,
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
        check_values("EXPECT_SYNC_EVERY", &["1", "26h"], &["0", "0s", "daily"]);
        check_values("FULL_SYNC_EVERY", &["0"], &["never"]);
        check_values("SHUTDOWN_GRACE", &["0"], &["-1s"]);
    }

    #[test]
    fn booleans_have_three_spellings() {
        for (text, value) in [("true", true), ("YES", true), ("1", true), ("False", false), ("no", false), ("0", false)]
        {
            assert_eq!(parse_boolean(text), Ok(value), "{text}");
        }
        for variable in [
            "SKIP_UNCHANGED",
            "ALLOW_PLAINTEXT_SECRETS",
            "ALLOW_PUBLIC_REPOSITORY",
            "GIT_SSH_ACCEPT_NEW",
            "COMMIT_AUTHORS",
        ] {
            check_values(variable, &["yes"], &["on", "2", "tru"]);
        }
    }

    #[test]
    fn quotes_that_an_env_file_keeps_are_refused_and_not_shown() {
        for (variable, value) in [
            ("GIT_BRANCH", "\"main\""),
            ("COMMIT_MESSAGE", "'nightly {workspace}'"),
            ("GIT_USER_NAME", "\"Ann\""),
            ("GIT_REMOTE_URL", "\"https://h/x\""),
            ("WINDMILL_TOKEN", "\"hunter2\""),
            ("GIT_TOKEN_FILE", "'/hunter2'"),
            ("SYNC_TIMEOUT", "\"\""),
        ] {
            let error = read(&[(variable, value)], Required::Serve).err().unwrap().to_string();
            assert!(error.starts_with(&format!("1 setting is wrong: {variable} is in quotes")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        check_values("GIT_USER_NAME", &["Ann \"the admin\" Lee", "O'Neil", "'x"], &[]);
    }

    #[test]
    fn a_token_for_a_header_has_only_characters_of_a_header() {
        check_values("WINDMILL_TOKEN", &["aZ09_-.~+/="], &["t\u{f6}ken", "to ken", "to\u{200b}ken"]);
        check_values("GIT_TOKEN", &["t\u{f6}ken"], &[]);
        check_values(
            "WINDMILL_HEADERS",
            &["X-A: b", "A: b, C: d", "Cookie: a=1, b=2"],
            &["X-A", "Host: h", ": b", "A:"],
        );
    }

    #[test]
    fn the_state_directory_of_systemd_is_the_default_of_the_data_folder() {
        for (variables, expected) in [
            (&[("STATE_DIRECTORY", "/var/lib/w")][..], "/var/lib/w"),
            (&[("STATE_DIRECTORY", "/var/lib/w:/var/lib/other")], "/var/lib/w"),
            (&[("STATE_DIRECTORY", "/var/lib/w"), ("DATA_DIR", "")], "/var/lib/w"),
            (&[("STATE_DIRECTORY", "/var/lib/w"), ("DATA_DIR", "/data")], "/data"),
            (&[("STATE_DIRECTORY", "")], "/workspace"),
        ] {
            assert_eq!(config(variables).data_dir.to_str(), Some(expected), "{variables:?}");
        }
        check(&[("STATE_DIRECTORY", "w")], Required::Serve, &["STATE_DIRECTORY: "]);
    }

    #[test]
    fn each_valid_value_has_a_similar_invalid_one() {
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
    fn several_workspaces_need_different_places() {
        let with =
            |workspaces, name, template| read(&[("WINDMILL_WORKSPACE", workspaces), (name, template)], Required::Serve);
        for workspaces in ["a,b", " a , b ", "*"] {
            for (name, template) in [("GIT_BRANCH", "backup/{workspace}"), ("GIT_SUBDIR", "{workspace}")] {
                let config = with(workspaces, name, template).ok().unwrap();
                assert!(config.workspaces.single().is_none(), "{workspaces}");
            }
            let error = with(workspaces, "GIT_SUBDIR", "backup").err().unwrap().to_string();
            assert!(error.contains("WINDMILL_WORKSPACE: several workspaces need {workspace} in GIT_BRANCH"), "{error}");
        }
        assert_eq!(listed(&with("a", "GIT_SUBDIR", "backup").ok().unwrap()), (vec!["a"], false));
        // A template is checked with each workspace.
        let error = with("a,HEAD,wm-fork-b", "GIT_BRANCH", "{workspace}").err().unwrap().to_string();
        assert!(error.contains("GIT_BRANCH: branch name \"HEAD\"") && error.contains("\"wm-fork-b\""), "{error}");
        let error = with("a,b", "GIT_SUBDIR", "..").err().unwrap().to_string();
        assert_eq!(error.matches("GIT_SUBDIR: folder \"..\"").count(), 1, "{error}");
        for (workspaces, why) in
            [("a,a", "a comes twice"), ("a,,b", "workspace id \"\" is empty"), ("a,*", "workspace id \"*\" has")]
        {
            let error = with(workspaces, "GIT_SUBDIR", "{workspace}").err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn all_workspaces_are_all_except_admins() {
        let id = |id| WorkspaceId::parse(id).unwrap();
        assert!(Workspaces::All.hold(&id("a")) && !Workspaces::All.hold(&id("admins")));
        let listed = Workspaces::Listed(vec![id("admins"), id("a")]);
        assert!(listed.hold(&id("admins")) && !listed.hold(&id("b")));
    }

    #[test]
    fn kinds_are_a_list_of_words_or_the_word_none() {
        for (text, kinds) in
            [("none", &[][..]), (" none ", &[]), ("users, key", &["users", "key"]), ("groups", &["groups"])]
        {
            assert_eq!(parse_words(text, &KINDS_TO_INCLUDE).as_deref(), Ok(kinds), "{text}");
        }
        for (text, word) in [
            ("users,users", "users comes twice"),
            ("users,none", "\"none\" is not one of"),
            ("none,none", "\"none\" is not one of"),
            ("user", "\"user\" is not one of schedules, triggers, users, groups, settings, key, or none alone"),
            ("users,", "\"\" is not one of"),
            ("Users", "is not one of"),
            ("scripts", "is not one of"),
        ] {
            let error = parse_words(text, &KINDS_TO_INCLUDE).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let words = ["secrets", "variables", "resources", "resource-types", "scripts", "flows", "apps", "folders"];
        assert_eq!(parse_words(&words.join(","), &KINDS_TO_SKIP).unwrap(), words);
        assert!(config(&[("WMILL_SKIP", "none")]).kinds_skipped.is_some_and(|kinds| kinds.is_empty()));
    }

    #[test]
    fn a_secret_has_one_source_and_is_never_shown() {
        check(&[("GIT_TOKEN", "hunter2"), ("GIT_TOKEN_FILE", "/t")], Required::Serve, &["GIT_TOKEN is set, and so is"]);
        check(&[("NOTIFY_URL", "hunter2"), ("NOTIFY_URL_FILE", "/t")], Required::Serve, &["NOTIFY_URL is set"]);
        check(&[("WINDMILL_TOKEN", " ")], Required::Sync, &["WINDMILL_TOKEN is empty", "GIT_REMOTE_URL"]);
        for (variable, value) in [
            ("GIT_TOKEN", "hunter2\nx"),
            ("GIT_TOKEN_FILE", "hunter2\nx"),
            ("GIT_REMOTE_URL", "https://u:hunter2@h/x"),
            ("WINDMILL_BASE_URL", "https://hunter2@h/x"),
        ] {
            let error = read(&[(variable, value)], Required::Serve).err().unwrap().to_string();
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
    fn a_secret_file_is_read_for_each_use_and_its_faults_name_variable_and_path() {
        let folder = crate::util::files::RunDir::for_test("secret").unwrap();
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
    fn tools_get_only_path_and_proxies() {
        let config = config(&[
            ("https_proxy", "http://u:p4ss@proxy:3128/"),
            ("NO_PROXY", "h"),
            ("PATH", "/bin"),
            ("LD_PRELOAD", "x"),
            ("GIT_DIR", "y"),
        ]);
        let names: Vec<&str> = config.tool_environment.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["PATH", "https_proxy", "no_proxy"]);
        assert!(config.proxy_secrets().contains(&Secret::new("p4ss")));
        check(&[("ALL_PROXY", "socks5://p"), ("GIT_BRANCH", "")], Required::Serve, &["ALL_PROXY: is not the address"]);
    }
}
