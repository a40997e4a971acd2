//! The checks before a sync, as `check` and a starting service run them: settings, data folder, tools, Windmill,
//! remote.
//!
//! They change nothing: they have their own lock and folder, do not wait for other runs, do not check files out, and
//! remove what they created.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use miniserde::{Serialize, json};

use crate::backup::sync::{guards, tip};
use crate::backup::{Env, PrivateRun, paths, run_context, workspaces};
use crate::config::{Config, Environment, Options, Required, SecretSource, Workspaces};
use crate::git::{self, Git, Pushed, ssh_key};
use crate::model::{
    ADMINS, BackupError, BranchName, Code, GitCredentials, LeftOut, RemoteScheme, RemoteUrl, WorkspaceId, names,
};
use crate::net::ca_bundle;
use crate::process::{RunEnv, run};
use crate::request;
use crate::util::{Deadline, Redactor, Sample, Secret, files, percent, volume};
use crate::windmill::{Account, ServerInfo, Snapshot, Windmill, cli, wmill_yaml};

/// Time limit for the whole check, or `SYNC_TIMEOUT` if that is shorter. Each single request has a shorter limit.
const TIME_MAX: Duration = Duration::from_secs(180);
/// How long the check waits after a service has started: the program that starts the service may request a sync, which
/// reports more than a check, and Windmill may be starting too.
const PAUSE_AT_START: Duration = Duration::from_secs(3);
/// The largest clock difference without a warning. Answers carry their date in whole seconds, and take up to half a
/// minute. The validity of certificates and tokens depends on the clock.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// Older versions sometimes drop the lock files of scripts.
const WMILL_VERSION_MIN: &[u32] = &[1, 725, 1];
/// Older versions do not read credentials from the environment.
const GIT_VERSION_MIN: &[u32] = &[2, 31];
/// With less space on the volume, not even a small workspace can be pulled.
const FREE_MB_MIN: u64 = 16;
/// Size limit for a `HEAD` file, which holds the name of a branch.
const HEAD_BYTES_MAX: u64 = 4096;
/// Size limit for the file of accepted host keys: enough for a thousand hosts.
const HOSTS_BYTES_MAX: u64 = 1 << 20;

/// One check and what it found, as in the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check: `settings`, `data_dir`, `wmill`, `git`, `ssh`, `windmill`, `clock`, `workspaces`,
    /// `token`, `export`, `resources`, `items`, `public`, `signing`, `remote`, `branch` or `push`.
    name: &'static str,
    /// The workspace that the check is about, if it is about a single one.
    workspace: Option<String>,
    /// `ok`, `warning` or `failed`.
    status: &'static str,
    /// The code with which a sync would end.
    code: Option<&'static str>,
    /// What was found. It never holds a secret.
    message: String,
    /// What to do about it, if there is anything to do.
    remedy: Option<&'static str>,
}

impl Finding {
    /// Creates a finding. With a `code`, it is a failure. With only a remedy, it is a warning.
    fn new(name: &'static str, code: Option<Code>, message: String, remedy: &'static str) -> Self {
        let remedy = Some(remedy).filter(|remedy| !remedy.is_empty());
        let status = match (code, remedy) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "warning",
            (None, None) => "ok",
        };
        Self { name, workspace: None, status, code: code.map(Code::as_str), message, remedy }
    }

    /// Returns the finding as one line for people.
    pub fn to_line(&self) -> String {
        let about = match &self.workspace {
            Some(workspace) => format!("{} {workspace}", self.name),
            None => self.name.to_owned(),
        };
        let remedy = self.remedy.map(|remedy| [" -> ", remedy].concat()).unwrap_or_default();
        let found = [&*self.message, &*remedy].concat().replace('\n', "; ");
        format!("{:<8} {about:<16} {found}", self.status)
    }
}

/// Returns all findings as one line of JSON.
pub fn to_json(findings: &[Finding]) -> String {
    format!("{{\"success\":{},\"checks\":{}}}", exit_code(findings) == 0, json::to_string(findings))
}

/// Returns 0 if nothing failed. Otherwise returns the first that applies: 2 for the settings and this machine, 10 for
/// Windmill, 11 for git.
pub fn exit_code(findings: &[Finding]) -> u8 {
    let area = |finding: &Finding| match Code::failure_of_name(finding.code?)?.exit_code() {
        windmill_or_git @ (10 | 11) => Some(windmill_or_git),
        _ => Some(Code::ConfigInvalid.exit_code()),
    };
    findings.iter().filter_map(area).min().unwrap_or(0)
}

/// Returns what the user can do about a failed check.
fn remedy_of(name: &str, code: Code) -> &'static str {
    match code {
        _ if name == "wmill" => "npm install --global windmill-cli, with Node.js 20 or newer; or use the image",
        _ if name == "git" || name == "ssh" => "install git 2.31 or newer and, for an ssh remote, OpenSSH's client",
        _ if name == "data_dir" => "make room in DATA_DIR, and let this user write to it",
        Code::ConfigInvalid => "set it as docs/settings.md says",
        Code::WindmillUnreachable => {
            "check that Windmill runs, and that WINDMILL_BASE_URL is its address as seen from here (within compose a \
             service's name, not localhost); for a private CA set CA_BUNDLE_FILE"
        }
        Code::WindmillUnauthorized => {
            "create a token as an admin of the workspace, on this Windmill, for WINDMILL_TOKEN"
        }
        Code::WorkspaceNotFound => "set WINDMILL_WORKSPACE to the id of the workspace, not to the name that is shown",
        Code::PlaintextSecrets => "take `key` out, or set ALLOW_PLAINTEXT_SECRETS=true if the repository may hold it",
        Code::LostRights => {
            "use the token of an admin of the workspace, or allow this one once: `windmill-git-sync sync \
             --allow-lost-rights`"
        }
        Code::PublicRepository => {
            "make the repository private, or set ALLOW_PUBLIC_REPOSITORY=true if everyone may read the backup"
        }
        Code::Incomplete => "rename or mend each in Windmill; all others are backed up, and the sync says `incomplete`",
        Code::PullFailed => "use the token of an admin of the workspace",
        Code::GitUnreachable => {
            "check the host in GIT_REMOTE_URL, GIT_SSH_KNOWN_HOSTS_FILE and, for a private CA, CA_BUNDLE_FILE"
        }
        Code::GitUnauthorized => {
            "create a token or key that may read and write this repository; GIT_USERNAME belongs to the token"
        }
        Code::GitRejected => "let this token or key write to the repository",
        Code::GitFailed => "check that the repository exists, and that the token or key may see it",
        _ => "",
    }
}

/// Reads the settings, or lists every fault in them. [`run()`] reports the settings that are missing.
///
/// # Errors
/// Returns a finding for each fault.
pub fn settings(options: &Options, environment: &Environment) -> Result<Config, Vec<Finding>> {
    Config::new(options, environment, Required::Serve).map_err(|error| {
        let all = Config::new(options, environment, Required::Sync).err().unwrap_or(error);
        let (code, remedy) = (Code::ConfigInvalid, remedy_of("settings", Code::ConfigInvalid));
        let fault = |fault: &String| Finding::new("settings", Some(code), fault.clone(), remedy);
        all.faults.iter().map(fault).collect()
    })
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Whole,
    /// Without the export, which is load for Windmill, and without what the service already reported about its
    /// settings.
    AtStart,
}

/// Checks what a sync of the configured workspaces needs.
pub fn run(env: &Env<'_>, mode: Mode) -> Vec<Finding> {
    let config = env.config;
    let deadline = Deadline::after(TIME_MAX.min(config.sync_timeout), env.cancel);
    let redactor = Redactor::new(&config.proxy_secrets());
    let mut check = Check { env, config, mode, deadline, redactor, findings: Vec::new() };
    let secrets = check.settings();
    if !run::CAN_START {
        for name in ["data_dir", "wmill", "git", "windmill", "remote"] {
            let message = "not tried: WebAssembly has no programs, no TLS, and only the folders given to it";
            check.warn(name, message, "run this on the machine that makes the backups");
        }
        return check.findings;
    }
    // It is dropped last, after the folder and the lock in it.
    let private = PrivateRun::new(config);
    let run_env = check.data_folder(&private);
    let has_git = run_env.as_ref().is_some_and(|run_env| check.tools(run_env));
    let scratch = run_env.as_ref().map(|run_env| run_env.run_dir.path().join("snapshot"));
    let workspaces = check.windmill(&secrets, scratch.as_deref());
    if let Some(run_env) = run_env.as_ref().filter(|_| has_git) {
        check.remote(run_env, &secrets, &workspaces);
    }
    check.findings
}

/// Checks a service that has just started, and logs what is not ok. Skips the check if a sync was requested meanwhile.
pub fn at_start(env: &Env<'_>, is_superseded: &dyn Fn() -> bool) {
    if Deadline::after(PAUSE_AT_START, env.cancel).wait_out().is_err() {
        return;
    }
    if is_superseded() {
        return log::debug!("the check is skipped, since a sync was requested, which reports more");
    }
    let findings = run(env, Mode::AtStart);
    if env.cancel.is_cancelled() {
        return;
    }
    for finding in &findings {
        let level = match finding.status {
            "ok" => log::Level::Debug,
            "warning" => log::Level::Warn,
            _ => log::Level::Error,
        };
        log::log!(level, "check: {}", finding.to_line());
    }
    if exit_code(&findings) == 0 {
        log::info!("check: nothing was found that prevents a sync");
    }
}

/// The secrets from the settings. A value that is not set or cannot be read is `None`; that was already reported.
struct Secrets {
    windmill: Option<Secret>,
    headers: Vec<(String, Secret)>,
    git: Option<GitCredentials>,
    signing: Option<Secret>,
}

struct Check<'a> {
    env: &'a Env<'a>,
    config: &'a Config,
    mode: Mode,
    deadline: Deadline,
    redactor: Redactor,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn add(&mut self, name: &'static str, code: Option<Code>, message: impl fmt::Display, remedy: &'static str) {
        // The last line of defence: the output of each tool was already redacted when it was read.
        let message = self.redactor.redact(&message.to_string());
        self.findings.push(Finding::new(name, code, message, remedy));
    }

    fn ok(&mut self, name: &'static str, message: impl fmt::Display) {
        self.add(name, None, message, "");
    }

    fn warn(&mut self, name: &'static str, message: impl fmt::Display, remedy: &'static str) {
        self.add(name, None, message, remedy);
    }

    fn fail(&mut self, name: &'static str, code: Code, message: impl fmt::Display) {
        self.add(name, Some(code), message, remedy_of(name, code));
    }

    /// Returns the value of a check that passed, or adds a finding for its error.
    fn passed<T>(&mut self, name: &'static str, result: Result<T, impl Into<BackupError>>) -> Option<T> {
        let error: BackupError = match result {
            Ok(passed) => return Some(passed),
            Err(error) => error.into(),
        };
        let (what, expired_code) = match name {
            "signing" => ("ssh-keygen", Code::ConfigInvalid),
            "data_dir" => ("the lock in DATA_DIR", Code::ConfigInvalid),
            "remote" | "push" => ("the remote", Code::GitUnreachable),
            _ => ("Windmill", Code::WindmillUnreachable),
        };
        let code = if error.message.is_empty() { expired_code } else { error.code };
        let cancelled = format!("{what} did not answer before the check was ended");
        let error = error.explained(format!("{what} did not answer in time"), cancelled);
        self.fail(name, code, error.message);
        None
    }

    fn settings(&mut self) -> Secrets {
        let config = self.config;
        let lacking = config.lacking();
        if self.mode == Mode::Whole {
            for lack in &lacking {
                self.fail("settings", Code::ConfigInvalid, lack);
            }
        }
        self.passed("settings", guards::refuse_the_key(config));
        let remote = config.remote.as_ref().filter(|_| !lacking.iter().any(|lack| lack.starts_with("GIT_")));
        let git =
            remote.and_then(|remote| self.passed("settings", request::configured_git_credentials(config, remote)));
        let headers = request::windmill_headers(config).map_err(|why| BackupError::new(Code::ConfigInvalid, why));
        let secrets = Secrets {
            headers: self.passed("settings", headers).unwrap_or_default(),
            windmill: self.secret(config.windmill_token.as_ref(), Some(Code::ConfigInvalid)),
            git,
            signing: self.secret(config.signing_key.as_ref(), Some(Code::ConfigInvalid)),
        };
        let mut known = config.proxy_secrets();
        known.extend(secrets.windmill.iter().chain(&secrets.signing).cloned());
        known.extend(secrets.headers.iter().map(|(_, value)| value.clone()));
        known.extend(secrets.git.iter().flat_map(GitCredentials::secrets));
        self.redactor = Redactor::new(&known);
        let Config { api_token, slack_webhook_url, discord_webhook_url, notify_url, heartbeat_url, .. } = config;
        for source in [api_token, slack_webhook_url, discord_webhook_url, notify_url, heartbeat_url] {
            self.secret(source.as_ref(), None);
        }
        if self.findings.is_empty() && lacking.is_empty() {
            let advice = config.no_alarm().map(|advice| ["; ", advice].concat()).unwrap_or_default();
            self.ok("settings", format_args!("all that a sync needs is set{advice}"));
        }
        secrets
    }

    fn secret(&mut self, source: Option<&SecretSource>, code: Option<Code>) -> Option<Secret> {
        let read = source?.read();
        read.map_err(|why| self.add("settings", code, why, "let this user read the file")).ok()
    }

    /// Checks the data folder by creating the folder of a run in it.
    fn data_folder(&mut self, private: &PrivateRun) -> Option<RunEnv> {
        let config = self.config;
        let bundle = ca_bundle::bundle(&config.tool_environment);
        self.passed("settings", bundle.map_err(|why| BackupError::new(Code::ConfigInvalid, why)))?;
        let run_env = private.open(config, self.deadline.clone(), self.redactor.clone());
        let run_env = run_env.map_err(|error| BackupError { code: Code::ConfigInvalid, ..error });
        let run_env = self.passed("data_dir", run_env)?;
        let free = volume::space(run_env.run_dir.path()).map(|(_, free)| free >> 20);
        let left = free.map_or_else(String::new, |free| format!(", and has {free} MB left"));
        let found = format!("{} can be written{left}", config.data_dir.display());
        match run_env.run_dir.volume.check() {
            Err(error) => self.fail("data_dir", Code::ConfigInvalid, error),
            Ok(_) if free.is_some_and(|free| free < FREE_MB_MIN) => self.fail("data_dir", Code::ConfigInvalid, found),
            Ok(_) => self.ok("data_dir", found),
        }
        Some(run_env)
    }

    /// Checks the programs. Returns whether git can be used, over ssh too if the remote needs it.
    fn tools(&mut self, run_env: &RunEnv) -> bool {
        match cli::version(run_env) {
            Ok(version) if is_older(&version, WMILL_VERSION_MIN) => {
                let message = format_args!("{version}, which sometimes drops lock files of scripts");
                self.warn("wmill", message, remedy_of("wmill", Code::PullFailed));
            }
            Ok(version) => self.ok("wmill", version),
            Err(why) => self.fail("wmill", Code::PullFailed, why),
        }
        let is_ssh = self.config.remote.as_ref().is_some_and(|remote| remote.scheme() == RemoteScheme::Ssh);
        let git = ("git", run_env.version("git", "--version", "git version "), GIT_VERSION_MIN);
        let ssh = is_ssh.then(|| ("ssh", run_env.version("ssh", "-V", "OpenSSH_"), &[][..]));
        let mut are_usable = true;
        for (name, found, least) in [git].into_iter().chain(ssh) {
            let why = match found {
                Ok(version) if is_older(&version, least) => version + ", which is too old",
                Ok(version) => {
                    self.ok(name, version);
                    continue;
                }
                Err(why) => why,
            };
            self.fail(name, Code::GitFailed, why);
            are_usable = false;
        }
        are_usable
    }

    /// Checks Windmill. Returns the workspaces to back up, as far as they are known.
    fn windmill(&mut self, secrets: &Secrets, scratch: Option<&Path>) -> Vec<WorkspaceId> {
        let (config, deadline, headers) = (self.config, self.deadline.clone(), &secrets.headers);
        let listed = match &config.workspaces {
            Workspaces::Listed(listed) => listed.clone(),
            Workspaces::All => Vec::new(),
        };
        let windmill = |workspace, token| {
            Windmill::new(&config.base_url, workspace, token, headers, &deadline, &config.tool_environment)
        };
        // The version is not asked for in a workspace, and needs no token.
        let (Ok(any), nothing) = (WorkspaceId::parse(ADMINS), Secret::new("")) else { return listed };
        let greeting = windmill(&any, secrets.windmill.as_ref().unwrap_or(&nothing)).greet();
        let Some(greeting) = self.passed("windmill", greeting) else { return listed };
        self.greeting(&greeting);
        let Some(token) = &secrets.windmill else { return listed };
        let workspaces = if config.workspaces == Workspaces::All { self.all_workspaces(token) } else { listed };
        for workspace in &workspaces {
            let before = self.findings.len();
            self.workspace(&windmill(workspace, token), scratch);
            self.findings[before..].iter_mut().for_each(|finding| finding.workspace = Some(workspace.to_string()));
        }
        workspaces
    }

    fn greeting(&mut self, greeting: &ServerInfo) {
        let base_url = &self.config.base_url;
        match &greeting.version {
            Some(version) => self.ok("windmill", format_args!("{version} at {base_url}")),
            None => {
                let message = format_args!("{base_url} answers, and does not tell its version");
                self.warn("windmill", message, "check that WINDMILL_BASE_URL is the address of Windmill");
            }
        }
        let Some(date) = greeting.date else { return };
        let (skew, word) = match date.duration_since(SystemTime::now()) {
            Ok(ahead) => (ahead, "behind"),
            Err(error) => (error.duration(), "ahead of"),
        };
        if skew > CLOCK_SKEW_MAX {
            let message = format_args!("our clock is {} s {word} Windmill's", skew.as_secs());
            self.warn("clock", message, "set the clock of the one that is wrong, or have it set by NTP");
        } else {
            self.ok("clock", "is in sync with Windmill's");
        }
    }

    fn all_workspaces(&mut self, token: &Secret) -> Vec<WorkspaceId> {
        let seen = workspaces::ask(self.config, token, self.env.cancel);
        let Some((listed, warnings)) = self.passed("workspaces", seen) else { return Vec::new() };
        let names: Vec<_> = listed.iter().map(WorkspaceId::as_str).collect();
        self.ok("workspaces", format_args!("* stands for {}", names.join(", ")));
        for warning in warnings {
            self.warn("workspaces", warning, "change GIT_BRANCH, or set GIT_SUBDIR={workspace} in its place");
        }
        listed
    }

    fn workspace(&mut self, windmill: &Windmill<'_>, scratch: Option<&Path>) {
        let Some(account) = self.passed("token", windmill.account(true)) else { return };
        self.account(windmill.workspace, &account);
        let Some(scratch) = scratch.filter(|_| self.mode == Mode::Whole) else { return };
        let plan = wmill_yaml::read(None, &tip::asked_kinds(self.config));
        let judged = |mut snapshot: Snapshot| Ok(snapshot.judge_by(&plan).map(|()| snapshot)?);
        let snapshot = windmill.snapshot(&plan.query, scratch).and_then(judged);
        let Some(snapshot) = self.passed("export", snapshot) else { return };
        self.ok("export", format_args!("is permitted, and has {} items", snapshot.items));
        let plain = snapshot.plain_secrets_of_resources().unwrap_or_default();
        if !plain.is_empty() {
            let sample: Sample = plain.into_iter().collect();
            let message = format_args!("resources have plain values in fields that are named like secrets: {sample}");
            self.warn("resources", message, "put each into a secret variable, and `$var:PATH` in its place");
        }
        let left_out = snapshot.left_out_list();
        if !left_out.is_empty() {
            let sample: Sample = left_out.iter().map(|LeftOut { item, reason }| format!("{item} ({reason})")).collect();
            self.warn("items", format_args!("a sync leaves these out: {sample}"), remedy_of("items", Code::Incomplete));
        }
    }

    fn account(&mut self, id: &WorkspaceId, account: &Account) {
        // A token for one workspace may not have the right to list the others.
        let sees =
            account.workspaces.as_ref().map(|seen| format!("; it sees: {}", seen.join(", "))).unwrap_or_default();
        if self.config.workspace_is_default {
            let message = format_args!("WINDMILL_WORKSPACE is not set, so `{id}` is backed up{sees}");
            self.warn("settings", message, "set WINDMILL_WORKSPACE");
        }
        let destination = request::configured_destination(self.config, id);
        if account.is_admin {
            self.ok("token", format_args!("is an admin's{sees}"));
        } else if (self.env.last_token_user)(id.as_str(), &destination).is_some_and(|last| last.admin) {
            let message =
                "is not an admin's, and that of the last backup was: what its user may not see would be deleted";
            self.fail("token", Code::LostRights, message);
        } else {
            let why = "what its user may not see is missing from the backup";
            self.warn("token", format_args!("is not an admin's, so {why}{sees}"), remedy_of("token", Code::PullFailed));
        }
    }

    /// Checks the remote, once for each branch.
    fn remote(&mut self, run_env: &RunEnv, secrets: &Secrets, workspaces: &[WorkspaceId]) {
        let config = self.config;
        let (Some(remote), Some(credentials)) = (&config.remote, &secrets.git) else { return };
        let signing_key =
            secrets.signing.as_ref().and_then(|key| self.passed("signing", ssh_key::prepare_signing(run_env, key)));
        if signing_key.is_some() {
            self.ok("signing", "ssh-keygen accepts the key");
        }
        // The templates were tried with each workspace before. The branches are all different, or all the same.
        let mut branches: Vec<_> = workspaces.iter().filter_map(|id| config.branch_for(id).ok()).collect();
        branches.dedup();
        let is_known = !branches.is_empty();
        if !is_known {
            // A request for the repository works with any branch name.
            branches.extend(WorkspaceId::parse(ADMINS).and_then(|any| config.branch_for(&any)).ok());
        }
        let accepted_hosts = &run_env.run_dir.path().join("known_hosts");
        // Host keys that were accepted before are valid here too. Keys that are accepted now are not saved.
        if let Ok(known) = files::read_file(&paths::root(config).join("known_hosts"), HOSTS_BYTES_MAX) {
            let _ = files::write_file(accepted_hosts, &known);
        }
        let folder = &run_env.run_dir.path().join("checkout");
        let site = git::RepositoryPaths { folder, accepted_hosts, signing_key: signing_key.as_deref() };
        for (index, branch) in branches.iter().enumerate() {
            let answer = Git::new(run_env, &site, remote, branch, credentials)
                .and_then(|git| git.remote_state().map(|state| (git, state)));
            let Some((git, state)) = self.passed("remote", answer) else { return };
            if index == 0 {
                self.ok("remote", format_args!("{remote} can be read"));
                self.public_repository(run_env, &state, remote);
            }
            if is_known {
                self.branch(&state, remote, branch);
            }
            if index == 0 {
                self.push(&git, &state, remote);
            }
        }
    }

    fn branch(&mut self, state: &git::RemoteState, remote: &RemoteUrl, branch: &BranchName) {
        match &state.tip {
            Some(tip) => self.ok("branch", format_args!("`{branch}` is there, at {tip:.10}")),
            None => self.ok("branch", format_args!("`{branch}` is not there yet; the first sync makes it")),
        }
        let is_one_branch = !self.config.branch.contains(names::WORKSPACE_MARK);
        let is_missing = state.tip.is_some() && !state.has_head || is_other_head(remote, branch, state);
        if is_one_branch && is_missing {
            self.warn("branch", run_context::missing_head(remote, branch), "change the default branch of the remote");
        }
    }

    /// Checks whether everyone can read the repository.
    fn public_repository(&mut self, run_env: &RunEnv, state: &git::RemoteState, remote: &RemoteUrl) {
        if self.config.allow_public_repository || !git::is_public(remote, run_env) {
            return;
        }
        match state.tip {
            None => self.fail("public", Code::PublicRepository, "everyone can read the repository"),
            Some(_) => {
                let message = "everyone can read the repository; a first sync is refused, later ones warn";
                self.warn("public", message, remedy_of("public", Code::PublicRepository));
            }
        }
    }

    /// Checks with a dry run whether the remote accepts a push.
    fn push(&mut self, git: &Git<'_>, state: &git::RemoteState, remote: &RemoteUrl) {
        let tried = git.create(state.format).and_then(|()| {
            let commit = git.commit(&git.empty_tree()?, None, &self.config.author, "A check, which is not pushed")?;
            git.push(&commit, true)
        });
        let Some(pushed) = self.passed("push", tried) else { return };
        // A rejection because of another tip is expected: the commit of the dry run has no parent.
        let why = if let Pushed::Refused(why) = pushed { Some(why) } else { closed_to_writing(remote) };
        match why {
            None => self.ok("push", "is permitted, as far as a dry run shows (branch protection shows only in a sync)"),
            Some(why) => self.fail("push", Code::GitRejected, why),
        }
    }
}

/// Returns whether a version is older than `least`. A version without numbers counts as new enough.
fn is_older(version: &str, least: &[u32]) -> bool {
    let numbers: Vec<u32> = version.split(['.', '-', ' ']).map_while(|part| part.parse().ok()).collect();
    !numbers.is_empty() && numbers.as_slice() < least
}

/// Returns a path in a repository on a volume.
fn path_in(remote: &RemoteUrl, name: &str) -> Option<PathBuf> {
    remote.as_str().strip_prefix("file://").and_then(percent::decode).map(|folder| Path::new(&folder).join(name))
}

/// Returns whether the HEAD of an empty repository on a volume names another branch than the one that will be pushed.
fn is_other_head(remote: &RemoteUrl, branch: &BranchName, state: &git::RemoteState) -> bool {
    let path = path_in(remote, "HEAD").filter(|_| state.format.is_none());
    let head = path.and_then(|path| files::read_file(&path, HEAD_BYTES_MAX).ok());
    head.is_some_and(|head| String::from_utf8_lossy(&head).trim() != format!("ref: {}", branch.full_ref()))
}

/// Returns why we cannot write objects into a repository on a volume. git notices that only when it has objects to
/// write.
#[cfg(unix)]
fn closed_to_writing(remote: &RemoteUrl) -> Option<String> {
    use rustix::fs::{Access, access};
    let objects = path_in(remote, "objects")?;
    let error = access(&objects, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(format!("{} cannot be written: {error}", objects.display()))
}

#[cfg(not(unix))]
fn closed_to_writing(_: &RemoteUrl) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for version in ["1.725.0", "1.9.2", "1.725", "0.9"] {
            assert!(is_older(version, WMILL_VERSION_MIN), "{version}");
        }
        for version in ["1.725.1", "1.819.0", "2.0", "1.1000.0-rc1", "unknown", ""] {
            assert!(!is_older(version, WMILL_VERSION_MIN), "{version}");
        }
        assert!(is_older("2.30.9", GIT_VERSION_MIN) && !is_older("2.47.3 (Apple Git-1)", GIT_VERSION_MIN));
    }

    #[test]
    fn the_exit_code_is_that_of_the_first_area_that_failed() {
        use Code::{ConfigInvalid, GitFailed, Internal, PlaintextSecrets, WorkspaceNotFound};
        let with = |codes: &[Code]| {
            let warning = Finding::new("x", None, String::new(), "mend it");
            let failed = codes.iter().map(|code| Finding::new("x", Some(*code), String::new(), ""));
            exit_code(&[warning].into_iter().chain(failed).collect::<Vec<_>>())
        };
        assert_eq!((with(&[]), with(&[GitFailed]), with(&[GitFailed, WorkspaceNotFound])), (0, 11, 10));
        assert_eq!((with(&[GitFailed, ConfigInvalid]), with(&[PlaintextSecrets]), with(&[Internal])), (2, 2, 2));
    }

    #[test]
    fn a_finding_is_one_line_for_people_and_one_object_for_programs() {
        let ok = Finding::new("git", None, "2.47.3".to_owned(), "");
        let code = Some(Code::WindmillUnauthorized);
        let failed = Finding::new("token", code, "is \"bad\"\nand more".to_owned(), "renew it");
        let failed = Finding { workspace: Some("shop".to_owned()), ..failed };
        assert_eq!(ok.to_line(), "ok       git              2.47.3");
        assert_eq!(failed.to_line(), "failed   token shop       is \"bad\"; and more -> renew it");
        let expected = "{\"success\":false,\"checks\":[{\"name\":\"git\",\"workspace\":null,\"status\":\"ok\",\
                        \"code\":null,\"message\":\"2.47.3\",\"remedy\":null},{\"name\":\"token\",\"workspace\":\"shop\",\
                        \"status\":\"failed\",\"code\":\"windmill_unauthorized\",\"message\":\"is \\\"bad\\\"\\nand more\",\
                        \"remedy\":\"renew it\"}]}";
        assert_eq!(to_json(&[ok, failed]), expected);
    }
}
