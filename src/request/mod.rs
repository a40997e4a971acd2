//! A request's JSON, or nothing but the settings, to a [`SyncRequest`] in which nothing is left open.
//! It owns the rule which configured secret may serve which request. It does not know HTTP, and does not ask whether
//! anything that a request names exists.

use std::path::PathBuf;

use miniserde::de::{Deserialize, Map, Seq, Visitor};
use miniserde::make_place;

use crate::code::Code;
use crate::config::{self, Config, SecretSource, Workspaces};
use crate::digest;
use crate::http::request::BODY_BYTES_MAX;
use crate::names::{self, BaseUrl, BranchName, Identity, NameError, RemoteScheme, RemoteUrl, Subdir, WorkspaceId};
use crate::secret::Secret;

/// A resource is flat. Deeper values would cost stack when they are dropped.
const DEPTH_MAX: usize = 32;
/// There are 14 fields, and a resource has some more. Thousands, each told as unknown, would be an answer of megabytes.
const MEMBERS_MAX: usize = 256;

/// One sync, with every field resolved. Two equal ones can share one run.
#[derive(Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// The workspace to take out.
    pub workspace: WorkspaceId,
    /// Where Windmill is; no request changes it.
    pub base_url: BaseUrl,
    /// The token for Windmill.
    pub windmill_token: Secret,
    /// Where the backup goes.
    pub remote: RemoteUrl,
    /// What opens the remote.
    pub git: GitCredentials,
    /// The key that signs the commit. It serves the configured repository only.
    pub signing_key: Option<Secret>,
    /// The branch, filled.
    pub branch: BranchName,
    /// The folder, filled.
    pub subdir: Subdir,
    /// Author and committer.
    pub author: Identity,
    /// The subject line, filled.
    pub message: String,
    /// Show what would be committed, and commit nothing.
    pub dry_run: bool,
    /// No shortcut for an unchanged workspace.
    pub force: bool,
    /// The guard against mass deletion is off for this run.
    pub allow_mass_deletion: bool,
    /// Whether workspace, remote, branch, folder and both credentials are the configured ones.
    pub configured: bool,
    /// Whether nobody chose the workspace.
    pub workspace_is_default: bool,
    /// What is done with all that.
    pub purpose: Purpose,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To back the workspace up.
    #[default]
    Sync,
    /// To see whether the backup is the workspace.
    Verify,
    /// To put the backup into a workspace.
    Restore,
}

impl Purpose {
    /// What such a run is called.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Verify => "verification",
            Self::Restore => "restore",
        }
    }
}

/// What opens a remote.
#[derive(Clone, PartialEq, Eq)]
pub enum GitCredentials {
    /// Nothing: the remote is a folder.
    None,
    /// For http and https.
    Token {
        /// The user name that goes with the token.
        username: String,
        /// The token.
        token: Secret,
    },
    /// For ssh.
    Ssh {
        /// The private key, its lines as they are.
        key: Secret,
        /// The file with the keys of known hosts.
        known_hosts: Option<PathBuf>,
        /// Whether a host that is not known yet is accepted.
        accept_new: bool,
    },
}

/// What the options of `sync` say beside the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// `--dry-run`
    pub dry_run: bool,
    /// `--force`
    pub force: bool,
    /// `--allow-mass-deletion`
    pub allow_mass_deletion: bool,
    /// The command.
    pub purpose: Purpose,
}

/// Whether the answer to a request comes when its run is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Then.
    UntilDone,
    /// At once.
    No,
}

/// Why there is no [`SyncRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// [`Code::RequestInvalid`], or [`Code::ConfigInvalid`] where only the settings are at fault.
    pub code: Code,
    /// All that is wrong, in one line.
    pub message: String,
}

impl SyncRequest {
    /// A short name for what is backed up to where: the same for requests that differ in credentials and flags only.
    #[must_use]
    pub fn destination(&self) -> String {
        destination(&self.base_url, &self.remote, &self.branch, &self.subdir)
    }

    /// Under which name it is remembered how what this run is about stands.
    #[must_use]
    pub fn standing(&self) -> String {
        match self.purpose {
            Purpose::Verify => verified(&self.destination()),
            Purpose::Sync | Purpose::Restore => self.destination(),
        }
    }

    /// All secrets in it, in the forms in which they are sent, so that they can be scrubbed from what the tools print.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = vec![self.windmill_token.clone()];
        secrets.extend(self.signing_key.clone());
        secrets.extend(self.git.secrets());
        secrets
    }
}

impl GitCredentials {
    /// The secrets in it, in the forms in which they are sent.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::None => Vec::new(),
            Self::Token { username, token } => vec![basic_credentials(username, token), token.clone()],
            Self::Ssh { key, .. } => vec![key.clone()],
        }
    }
}

/// What was asked for, before it is known for which workspaces.
pub struct Draft<'a> {
    config: &'a Config,
    code: Code,
    fields: Fields,
    faults: Vec<String>,
}

/// For which workspaces something is asked.
pub enum Wanted {
    /// For this one, by its name, or because it is the only one.
    One(WorkspaceId),
    /// For the configured ones.
    Several(Vec<WorkspaceId>),
    /// For all that this token sees.
    All(Secret),
}

impl<'a> Draft<'a> {
    /// What the settings ask for.
    #[must_use]
    pub fn from_config(config: &'a Config, flags: Flags) -> Self {
        let fields = Fields {
            dry_run: flags.dry_run,
            force: flags.force,
            allow_mass_deletion: flags.allow_mass_deletion,
            purpose: flags.purpose,
            ..Fields::default()
        };
        Self { config, code: Code::ConfigInvalid, fields, faults: Vec::new() }
    }

    /// What a request's body asks for; what it does not say, the settings do.
    ///
    /// # Errors
    ///
    /// When the body is not even a JSON object. Faults in what is in it are told later, together with those that show
    /// only then.
    pub fn from_json(body: &[u8], config: &'a Config) -> Result<Self, RequestError> {
        let mut resolver = Resolver::new(config, Code::RequestInvalid);
        let Some(pairs) = resolver.pairs(body) else { return Err(resolver.error()) };
        let fields = resolver.fields(pairs);
        Ok(Self { config, code: resolver.code, fields, faults: resolver.faults })
    }

    /// Whether the answer comes when it is done.
    #[must_use]
    pub fn wait(&self) -> Wait {
        if self.fields.no_wait { Wait::No } else { Wait::UntilDone }
    }

    /// Whether it asks for nothing else than the settings do, so that what becomes of it is theirs. A dry run is not,
    /// nor a verification.
    #[must_use]
    pub fn is_of_the_settings(&self) -> bool {
        self.fields.given.is_empty() && !self.fields.dry_run && self.fields.purpose == Purpose::Sync
    }

    /// The token with which the workspaces are to be listed that the settings stand for, before one that was named is
    /// taken for one of them; nothing where the caller brings a token of its own, or the settings name them.
    #[must_use]
    pub fn listing_token(&self) -> Option<Secret> {
        if self.config.workspaces != Workspaces::All || self.fields.is_given("windmill_token") {
            return None;
        }
        self.resolver().windmill_token(&self.fields, &[])
    }

    /// For which workspaces. A token is read now.
    ///
    /// # Errors
    ///
    /// As [`Draft::request`], where it is wrong for whatever workspace.
    pub fn wanted(&self) -> Result<Wanted, RequestError> {
        let configured = &self.config.workspaces;
        match self.fields.workspace.as_ref().or(configured.single()) {
            Some(workspace) => return Ok(Wanted::One(workspace.clone())),
            None if self.fields.is_given("workspace") => return Err(self.resolver().error()),
            None => {}
        }
        let mut resolver = self.resolver();
        self.refuse_one_place_for_several(&mut resolver);
        match configured {
            Workspaces::Listed(listed) if resolver.faults.is_empty() => Ok(Wanted::Several(listed.clone())),
            Workspaces::All if resolver.faults.is_empty() => {
                let token = resolver.windmill_token(&self.fields, &[]);
                token.map(Wanted::All).ok_or_else(|| resolver.error())
            }
            _ => Err(resolver.error()),
        }
    }

    /// The settings were checked when they were read; a request may bring another branch or folder.
    fn refuse_one_place_for_several(&self, resolver: &mut Resolver<'_>) {
        let branch = self.fields.branch.as_ref().unwrap_or(&self.config.branch);
        let subdir = self.fields.subdir.as_ref().unwrap_or(&self.config.subdir);
        if ![branch, subdir].iter().any(|template| template.contains(names::WORKSPACE_MARK)) {
            resolver.fault(&[
                "the request is for several workspaces, and needs {workspace} in the branch or in the folder, or a \
                 `workspace`",
            ]);
        }
    }

    /// The sync of one workspace. Secrets are read now.
    ///
    /// # Errors
    ///
    /// When the body asks for what is not known or not permitted, when request and settings together lack something,
    /// or a secret's file cannot be read: all of it in one error.
    pub fn request(&self, workspace: &WorkspaceId) -> Result<SyncRequest, RequestError> {
        let mut resolver = self.resolver();
        let request = resolver.resolve(&self.fields, workspace);
        request.ok_or_else(|| resolver.error())
    }

    fn resolver(&self) -> Resolver<'a> {
        Resolver { faults: self.faults.clone(), ..Resolver::new(self.config, self.code) }
    }
}

/// The [`SyncRequest::destination`] of the settings for a workspace; empty where they lack or spoil a part of it.
#[must_use]
pub fn configured_destination(config: &Config, workspace: &WorkspaceId) -> String {
    match (&config.remote, config.branch_for(workspace), config.subdir_for(workspace)) {
        (Some(remote), Ok(branch), Ok(subdir)) => destination(&config.base_url, remote, &branch, &subdir),
        _ => String::new(),
    }
}

/// What opens the configured remote. Secrets are read now.
///
/// # Errors
///
/// As [`Draft::request`], for what concerns the remote.
pub fn configured_git_credentials(config: &Config, remote: &RemoteUrl) -> Result<GitCredentials, RequestError> {
    let mut resolver = Resolver::new(config, Code::ConfigInvalid);
    let credentials = resolver.git_credentials(&Fields::default(), remote);
    credentials.ok_or_else(|| resolver.error())
}

/// The standing of the verifications of a backup to `destination`.
#[must_use]
pub fn verified(destination: &str) -> String {
    ["verify:", destination].concat()
}

fn destination(base_url: &BaseUrl, remote: &RemoteUrl, branch: &BranchName, subdir: &Subdir) -> String {
    digest::short_name(&[base_url.as_str(), remote.as_str(), branch.as_str(), subdir.as_str()].join("\n"))
}

/// User name and token as Basic authentication sends them.
#[must_use]
pub fn basic_credentials(username: &str, token: &Secret) -> Secret {
    use base64::Engine as _;
    Secret::new(base64::engine::general_purpose::STANDARD.encode(format!("{username}:{}", token.expose())))
}

/// What a request brings; what is absent, the settings decide.
#[derive(Default)]
struct Fields {
    workspace: Option<WorkspaceId>,
    windmill_token: Option<Secret>,
    remote: Option<RemoteUrl>,
    git_username: Option<String>,
    git_token: Option<Secret>,
    /// A template.
    branch: Option<String>,
    /// A template.
    subdir: Option<String>,
    user_name: Option<String>,
    user_email: Option<String>,
    dry_run: bool,
    force: bool,
    allow_mass_deletion: bool,
    purpose: Purpose,
    no_wait: bool,
    /// The names of what was given, refused or not: nothing is concluded from the absence of what was refused.
    given: Vec<String>,
}

/// The name, among the given, of a token within a resource's URL.
const URL_TOKEN: &str = "the token in repository.url";

impl Fields {
    fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    /// Which of two names a value came by; the settings' name where it came by neither.
    fn source(&self, field: &'static str, member: &'static str, variable: &'static str) -> &'static str {
        [field, member].into_iter().find(|name| self.is_given(name)).unwrap_or(variable)
    }
}

/// A JSON value as far as a request has any use for it. No `Debug`: it may hold a secret.
enum Json {
    Null,
    Bool(bool),
    Text(String),
    Object(Vec<(String, Json)>),
    Other(&'static str),
}

impl Json {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Text(_) => "a string",
            Self::Object(_) => "an object",
            Self::Other(kind) => kind,
        }
    }
}

make_place!(Place);

/// Unlike miniserde's own values, these keep the order of an object's members, and those that come twice.
impl Deserialize for Json {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}

impl Visitor for Place<Json> {
    fn null(&mut self) -> miniserde::Result<()> {
        self.out = Some(Json::Null);
        Ok(())
    }

    fn boolean(&mut self, value: bool) -> miniserde::Result<()> {
        self.out = Some(Json::Bool(value));
        Ok(())
    }

    fn string(&mut self, value: &str) -> miniserde::Result<()> {
        self.out = Some(Json::Text(value.to_owned()));
        Ok(())
    }

    fn negative(&mut self, _: i64) -> miniserde::Result<()> {
        self.float(0.0)
    }

    fn nonnegative(&mut self, _: u64) -> miniserde::Result<()> {
        self.float(0.0)
    }

    fn float(&mut self, _: f64) -> miniserde::Result<()> {
        self.out = Some(Json::Other("a number"));
        Ok(())
    }

    fn seq(&mut self) -> miniserde::Result<Box<dyn Seq + '_>> {
        self.out = Some(Json::Other("an array"));
        <dyn Visitor>::ignore().seq()
    }

    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        Ok(Box::new(Members { out: &mut self.out, members: Vec::new(), name: String::new(), value: None }))
    }
}

struct Members<'a> {
    out: &'a mut Option<Json>,
    members: Vec<(String, Json)>,
    name: String,
    value: Option<Json>,
}

impl Members<'_> {
    fn keep(&mut self) {
        if let Some(value) = self.value.take() {
            self.members.push((std::mem::take(&mut self.name), value));
        }
    }
}

impl Map for Members<'_> {
    fn key(&mut self, name: &str) -> miniserde::Result<&mut dyn Visitor> {
        self.keep();
        name.clone_into(&mut self.name);
        Ok(Json::begin(&mut self.value))
    }

    fn finish(&mut self) -> miniserde::Result<()> {
        self.keep();
        *self.out = Some(Json::Object(std::mem::take(&mut self.members)));
        Ok(())
    }
}

/// What is wrong with the outline: brackets that open deeper than `DEPTH_MAX`, or more than `MEMBERS_MAX` values. What
/// stands in strings does not count.
fn outline_fault(text: &str) -> Option<&'static str> {
    let (mut depth, mut commas, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            b',' if !in_string => commas += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Some("is nested too deeply");
        }
        if commas >= MEMBERS_MAX {
            return Some("has more than 256 values");
        }
    }
    None
}

/// Goes on after a fault, so that all are told.
struct Resolver<'a> {
    config: &'a Config,
    code: Code,
    faults: Vec<String>,
    /// How many of them are about the settings alone.
    faults_of_config: usize,
}

impl<'a> Resolver<'a> {
    fn new(config: &'a Config, code: Code) -> Self {
        Self { config, code, faults: Vec::new(), faults_of_config: 0 }
    }

    fn error(&self) -> RequestError {
        let of_config = self.faults_of_config == self.faults.len();
        let code = if of_config { Code::ConfigInvalid } else { self.code };
        RequestError { code, message: self.faults.join("; ") }
    }

    fn fault(&mut self, parts: &[&str]) {
        self.faults.push(parts.concat());
    }

    /// The body's members. One that is not even an object has this one fault.
    fn pairs(&mut self, body: &[u8]) -> Option<Vec<(String, Json)>> {
        let body = body.trim_ascii();
        let fault = if body.is_empty() {
            return Some(Vec::new());
        } else if body.len() > BODY_BYTES_MAX {
            "has more than 64 KiB"
        } else {
            match std::str::from_utf8(body).map(|text| (outline_fault(text), text)) {
                Err(_) => "is not UTF-8",
                Ok((Some(fault), _)) => fault,
                Ok((None, text)) => match miniserde::json::from_str(text) {
                    Ok(Json::Object(pairs)) => return Some(pairs),
                    Ok(other) => {
                        self.fault(&["the body is ", other.kind(), ", not a JSON object"]);
                        return None;
                    }
                    Err(_) => "is not JSON",
                },
            }
        };
        self.fault(&["the body ", fault]);
        None
    }

    fn fields(&mut self, pairs: Vec<(String, Json)>) -> Fields {
        let mut fields = Fields::default();
        let mut seen = Vec::new();
        let mut repository = None;
        for (name, value) in pairs {
            if seen.contains(&name) {
                self.fault(&["the field ", &names::quoted(&name), " comes twice"]);
                continue;
            }
            match (name.as_str(), value) {
                ("repository", value) => repository = self.repository(value),
                ("dry_run", value) => fields.dry_run = self.boolean(&name, &value, false),
                ("force", value) => fields.force = self.boolean(&name, &value, false),
                ("allow_mass_deletion", value) => fields.allow_mass_deletion = self.boolean(&name, &value, false),
                ("wait", value) => fields.no_wait = !self.boolean(&name, &value, true),
                (_, value) => self.text_field(&name, value, &mut fields),
            }
            seen.push(name);
        }
        if let Some(repository) = repository {
            self.merge(repository, &mut fields);
        }
        fields
    }

    /// `default` stands where the value is null or of the wrong type.
    fn boolean(&mut self, name: &str, value: &Json, default: bool) -> bool {
        match value {
            Json::Bool(value) => *value,
            Json::Null => default,
            other => {
                self.fault(&["`", name, "` must be true or false, not ", other.kind()]);
                default
            }
        }
    }

    fn text_field(&mut self, name: &str, value: Json, fields: &mut Fields) {
        const KNOWN: &[&str] = &[
            "workspace",
            "windmill_token",
            "git_remote_url",
            "git_token",
            "git_branch",
            "git_subdir",
            "git_user_name",
            "git_user_email",
        ];
        if !KNOWN.contains(&name) {
            return self.fault(&["the field ", &names::quoted(name), " is unknown"]);
        }
        if !matches!(value, Json::Null) {
            fields.given.push(name.to_owned());
        }
        let Some(text) = self.text(name, value) else { return };
        if text.is_empty() && name != "git_subdir" {
            return self.fault(&["`", name, "` is empty"]);
        }
        match name {
            "workspace" => fields.workspace = self.named(name, WorkspaceId::parse(&text)),
            "windmill_token" => fields.windmill_token = self.token(name, &text),
            "git_remote_url" => {
                fields.remote = self.named(name, RemoteUrl::parse(&text)).and_then(|url| self.permitted(name, url));
            }
            "git_token" => fields.git_token = self.token(name, &text),
            "git_branch" => fields.branch = Some(text),
            "git_subdir" => fields.subdir = Some(text),
            "git_user_name" => fields.user_name = self.named(name, Identity::part("user name", &text)),
            _ => fields.user_email = self.named(name, Identity::part("user email", &text)),
        }
    }

    fn text(&mut self, name: &str, value: Json) -> Option<String> {
        match value {
            Json::Null => None,
            // Windmill replaces these before a job runs; one that comes here was sent by hand.
            Json::Text(text) if text.starts_with("$var:") || text.starts_with("$res:") => {
                self.fault(&["`", name, "` is a reference to Windmill ($var: or $res:): send the value itself"]);
                None
            }
            Json::Text(text) => Some(text),
            other => {
                self.fault(&["`", name, "` must be a string, not ", other.kind()]);
                None
            }
        }
    }

    fn named<T>(&mut self, name: &str, parsed: Result<T, NameError>) -> Option<T> {
        parsed.map_err(|error| self.fault(&["`", name, "`: ", &error.to_string()])).ok()
    }

    fn token(&mut self, name: &str, text: &str) -> Option<Secret> {
        config::checked_token(text).map_err(|why| self.fault(&["`", name, "` ", why])).ok()
    }

    /// Whoever can send a request should not be able to write into a folder of this machine.
    fn permitted(&mut self, name: &str, url: RemoteUrl) -> Option<RemoteUrl> {
        if url.scheme() == RemoteScheme::File {
            self.fault(&["`", name, "`: a request cannot name a file: remote"]);
            return None;
        }
        Some(url)
    }

    /// Windmill's `git_repository` resource. Members that mean nothing here are let be, since Windmill adds some from
    /// time to time.
    fn repository(&mut self, value: Json) -> Option<Fields> {
        let pairs = match value {
            Json::Object(pairs) => pairs,
            Json::Text(_) => {
                self.text("repository", value)?;
                self.fault(&["`repository` must be an object, not a string"]);
                return None;
            }
            Json::Null => return None,
            other => {
                self.fault(&["`repository` must be an object, not ", other.kind()]);
                return None;
            }
        };
        let mut fields = Fields::default();
        let mut seen = Vec::new();
        for (name, value) in pairs {
            let full = ["repository.", &name].concat();
            if seen.contains(&name) {
                self.fault(&["the field ", &names::quoted(&full), " comes twice"]);
                continue;
            }
            seen.push(name.clone());
            match (name.as_str(), value) {
                // An empty text is how Windmill's form says that nothing was given.
                (_, Json::Null) => continue,
                ("url" | "branch" | "folder", Json::Text(text)) if text.is_empty() => continue,
                ("url", value) => self.repository_url(value, &mut fields),
                ("branch", value) => fields.branch = self.text(&full, value),
                ("folder", value) => fields.subdir = self.text(&full, value),
                ("is_github_app", Json::Bool(true)) => self.fault(&[
                    "`repository` is opened by Windmill's GitHub app, which works within Windmill only: send a URL and \
                     a token",
                ]),
                _ => continue,
            }
            fields.given.push(full);
        }
        Some(fields)
    }

    fn repository_url(&mut self, value: Json, fields: &mut Fields) {
        const NAME: &str = "repository.url";
        let Some(text) = self.text(NAME, value) else { return };
        let Some((url, user, token)) = self.named(NAME, RemoteUrl::parse_with_credentials(&text)) else { return };
        fields.remote = self.permitted(NAME, url);
        fields.git_username = user;
        if let Some(token) = token {
            fields.given.push(URL_TOKEN.to_owned());
            // Within a URL a token may be a reference too, which Windmill does not replace there.
            fields.git_token = self.text(URL_TOKEN, Json::Text(token.expose().to_owned())).map(Secret::new);
        }
    }

    /// Nothing may be given twice, not even with the same value: which one counts would be a guess.
    fn merge(&mut self, repository: Fields, fields: &mut Fields) {
        for (field, member) in [
            ("git_remote_url", "repository.url"),
            ("git_branch", "repository.branch"),
            ("git_subdir", "repository.folder"),
            ("git_token", URL_TOKEN),
        ] {
            if fields.is_given(field) && repository.is_given(member) {
                self.fault(&["`", field, "` and `", member, "` say the same thing twice: send one of them"]);
            }
        }
        fields.remote = fields.remote.take().or(repository.remote);
        fields.branch = fields.branch.take().or(repository.branch);
        fields.subdir = fields.subdir.take().or(repository.subdir);
        fields.git_token = fields.git_token.take().or(repository.git_token);
        fields.git_username = repository.git_username;
        fields.given.extend(repository.given);
    }

    /// `None` where there is any fault.
    fn resolve(&mut self, fields: &Fields, workspace: &WorkspaceId) -> Option<SyncRequest> {
        let config = self.config;
        // Of a workspace that is none of ours, branch and folder are compared with those of the one that is.
        let ours = if config.workspaces.hold(workspace) { None } else { config.workspaces.single() };
        let ours = ours.unwrap_or(workspace);
        let branch_name = fields.source("git_branch", "repository.branch", "GIT_BRANCH");
        let branch_template = fields.branch.as_ref().unwrap_or(&config.branch);
        let branch = self.named(branch_name, BranchName::from_template(branch_template, workspace));
        let subdir_name = fields.source("git_subdir", "repository.folder", "GIT_SUBDIR");
        let subdir_template = fields.subdir.as_ref().unwrap_or(&config.subdir);
        let subdir = self.named(subdir_name, Subdir::from_template(subdir_template, workspace));
        let remote = self.remote(fields);
        let user_name = fields.user_name.as_deref().unwrap_or(config.author.name());
        let user_email = fields.user_email.as_deref().unwrap_or(config.author.email());
        let author = self.named("git_user_name", Identity::parse(user_name, user_email));

        let changed: Vec<&str> = [
            (!config.workspaces.hold(workspace), "workspace"),
            (remote.is_some() && remote != config.remote, "remote"),
            (branch.is_some() && branch != config.branch_for(ours).ok(), "branch"),
            (subdir.is_some() && subdir != config.subdir_for(ours).ok(), "folder"),
        ]
        .into_iter()
        .filter_map(|(differs, what)| differs.then_some(what))
        .collect();
        let windmill_token = self.windmill_token(fields, &changed);
        let git = remote.as_ref().and_then(|remote| self.git_credentials(fields, remote));
        let signing_key = config.signing_key.as_ref().filter(|_| remote.is_some() && remote == config.remote);
        let signing_key = signing_key.and_then(|source| self.configured("GIT_SIGNING_KEY", Some(source), ""));
        if !self.faults.is_empty() {
            return None;
        }
        Some(SyncRequest {
            workspace: workspace.clone(),
            base_url: config.base_url.clone(),
            windmill_token: windmill_token?,
            remote: remote?,
            git: git?,
            signing_key,
            branch: branch?,
            subdir: subdir?,
            author: author?,
            message: names::fill(&config.commit_message, workspace),
            dry_run: fields.dry_run,
            force: fields.force,
            allow_mass_deletion: fields.allow_mass_deletion,
            configured: changed.is_empty() && self.has_configured_credentials(fields),
            workspace_is_default: config.workspace_is_default && fields.workspace.is_none(),
            purpose: fields.purpose,
        })
    }

    fn remote(&mut self, fields: &Fields) -> Option<RemoteUrl> {
        if fields.is_given("git_remote_url") || fields.is_given("repository.url") {
            return fields.remote.clone();
        }
        if self.config.remote.is_none() {
            self.lacks("GIT_REMOTE_URL", "the request brings no `git_remote_url`");
        }
        self.config.remote.clone()
    }

    /// The configured token takes out only the configured workspace, to the configured place: whoever may send a
    /// request could otherwise have any workspace sent to a repository of their own.
    fn windmill_token(&mut self, fields: &Fields, changed: &[&str]) -> Option<Secret> {
        const FIELD: &str = "windmill_token";
        if fields.is_given(FIELD) {
            return fields.windmill_token.clone();
        }
        if !changed.is_empty() {
            self.fault(&[
                "the request changes the ",
                &changed.join(" and the "),
                ", and lacks a `windmill_token` of its own: the configured one serves only what it was configured for",
            ]);
            return None;
        }
        self.configured("WINDMILL_TOKEN", self.config.windmill_token.as_ref(), "the request brings no `windmill_token`")
    }

    /// The configured token or key opens only the configured repository, the whole URL: on the same host, others write.
    fn git_credentials(&mut self, fields: &Fields, remote: &RemoteUrl) -> Option<GitCredentials> {
        let config = self.config;
        let is_configured = config.remote.as_ref() == Some(remote);
        let brings_token = fields.is_given("git_token") || fields.is_given(URL_TOKEN);
        if brings_token && !remote.is_http() {
            self.fault(&["`git_token` goes with an http(s) remote, and ", remote.as_str(), " is none"]);
        }
        match remote.scheme() {
            RemoteScheme::File => Some(GitCredentials::None),
            RemoteScheme::Ssh if !is_configured => {
                self.fault(&[
                    "the ssh remote ",
                    remote.as_str(),
                    " is not the configured one, and no field of a request carries a key: send an https URL and a \
                     `git_token`",
                ]);
                None
            }
            RemoteScheme::Ssh => self.ssh_credentials(),
            RemoteScheme::Https | RemoteScheme::Http if brings_token => {
                let username = fields.git_username.as_ref().unwrap_or(&config.git_username).clone();
                fields.git_token.clone().map(|token| GitCredentials::Token { username, token })
            }
            RemoteScheme::Https | RemoteScheme::Http if !is_configured => {
                self.fault(&[
                    "the request changes the remote, and lacks a `git_token` of its own: the configured one serves only \
                     the configured repository",
                ]);
                None
            }
            RemoteScheme::Https | RemoteScheme::Http => {
                let token =
                    self.configured("GIT_TOKEN", config.git_token.as_ref(), "the request brings no `git_token`")?;
                Some(GitCredentials::Token { username: config.git_username.clone(), token })
            }
        }
    }

    fn ssh_credentials(&mut self) -> Option<GitCredentials> {
        let config = self.config;
        if config.ssh_known_hosts.is_none() && !config.ssh_accept_new {
            self.lacks("GIT_SSH_KNOWN_HOSTS_FILE", "GIT_SSH_ACCEPT_NEW is not true");
        }
        let key = self.configured("GIT_SSH_KEY", config.ssh_key.as_ref(), "no field of a request carries a key")?;
        Some(GitCredentials::Ssh {
            key,
            known_hosts: config.ssh_known_hosts.clone(),
            accept_new: config.ssh_accept_new,
        })
    }

    fn configured(&mut self, variable: &str, source: Option<&SecretSource>, instead: &str) -> Option<Secret> {
        let Some(source) = source else {
            self.lacks(variable, instead);
            return None;
        };
        match source.read() {
            Ok(secret) => Some(secret),
            Err(why) => {
                self.faults.push(why);
                self.faults_of_config += 1;
                None
            }
        }
    }

    /// A setting is missing, and for a request: what the request could have brought instead.
    fn lacks(&mut self, variable: &str, instead: &str) {
        if self.code == Code::ConfigInvalid {
            self.fault(&[variable, " is not set"]);
        } else {
            self.fault(&[variable, " is not set, and ", instead]);
        }
    }

    /// Whether the tokens that a request brings, if any, are the configured ones.
    fn has_configured_credentials(&self, fields: &Fields) -> bool {
        let is_same = |own: Option<&Secret>, source: Option<&SecretSource>| match (own, source) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(source)) => source.read().is_ok_and(|secret| secret.matches(own.expose().as_bytes())),
        };
        let config = self.config;
        is_same(fields.windmill_token.as_ref(), config.windmill_token.as_ref())
            && is_same(fields.git_token.as_ref(), config.git_token.as_ref())
            && fields.git_username.as_ref().is_none_or(|user| *user == config.git_username)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Need, Options};

    const HTTPS: &[(&str, &str)] = &[
        ("WINDMILL_TOKEN", "wm-conf"),
        ("WINDMILL_WORKSPACE", "shop"),
        ("GIT_REMOTE_URL", "https://h/x"),
        ("GIT_TOKEN", "git-conf"),
        ("GIT_BRANCH", "w/{workspace}"),
        ("GIT_SUBDIR", "backup"),
    ];
    const SSH: &[(&str, &str)] = &[
        ("WINDMILL_TOKEN", "wm-conf"),
        ("GIT_REMOTE_URL", "git@h:x"),
        ("GIT_SSH_KEY", "key"),
        ("GIT_SSH_KNOWN_HOSTS_FILE", "/known"),
    ];
    const FILE: &[(&str, &str)] = &[("WINDMILL_TOKEN", "wm-conf"), ("GIT_REMOTE_URL", "file:///x")];

    fn config(variables: &[(&str, &str)]) -> Config {
        let environment = Environment::new(variables.iter().map(|(name, value)| (name.into(), value.into())));
        Config::new(&Options::default(), &environment, Need::Serve).ok().unwrap()
    }

    fn read(body: &[u8], config: &Config) -> Result<(SyncRequest, Wait), RequestError> {
        let draft = Draft::from_json(body, config)?;
        let Wanted::One(workspace) = draft.wanted()? else { panic!("for several workspaces") };
        Ok((draft.request(&workspace)?, draft.wait()))
    }

    fn configured(config: &Config, flags: Flags) -> Result<SyncRequest, RequestError> {
        let draft = Draft::from_config(config, flags);
        draft.request(config.workspaces.single().expect("one workspace"))
    }

    #[track_caller]
    fn accepted(settings: &[(&str, &str)], body: &str) -> SyncRequest {
        match read(body.as_bytes(), &config(settings)) {
            Ok((request, _)) => request,
            Err(error) => panic!("{body} was refused: {}", error.message),
        }
    }

    fn refused(settings: &[(&str, &str)], body: &str) -> RequestError {
        match read(body.as_bytes(), &config(settings)) {
            Ok(_) => panic!("{body} was accepted"),
            Err(error) => error,
        }
    }

    /// The body is refused with as many faults as there are words, each with its word.
    #[track_caller]
    fn check(settings: &[(&str, &str)], body: &str, words: &[&str]) {
        let error = refused(settings, body);
        let faults: Vec<&str> = error.message.split("; ").collect();
        assert_eq!(faults.len(), words.len(), "{body}: {faults:?}");
        for (fault, word) in faults.iter().zip(words) {
            assert!(fault.contains(word), "{body}: {fault}");
        }
        assert_eq!((error.code, error.code.http_status()), (Code::RequestInvalid, 400), "{body}");
    }

    fn token_of(request: &SyncRequest) -> (&str, &str) {
        match &request.git {
            GitCredentials::Token { username, token } => (username, token.expose()),
            GitCredentials::None | GitCredentials::Ssh { .. } => panic!("no token"),
        }
    }

    #[test]
    fn an_empty_body_is_the_configured_sync() {
        let request = configured(&config(HTTPS), Flags::default()).ok().unwrap();
        for body in
            ["", " \r\n", "{}", r#"{"workspace":null,"repository":null,"dry_run":null}"#, r#"{"repository":{}}"#]
        {
            assert!(accepted(HTTPS, body) == request, "{body}");
        }
        assert_eq!((request.workspace.as_str(), request.branch.as_str()), ("shop", "w/shop"));
        assert_eq!((request.subdir.as_str(), request.remote.as_str()), ("backup", "https://h/x"));
        assert_eq!((request.windmill_token.expose(), token_of(&request)), ("wm-conf", ("x-access-token", "git-conf")));
        assert_eq!(request.message, "Automated Windmill workspace backup - shop");
        assert!(request.configured && !request.workspace_is_default);
        assert!(!request.dry_run && !request.force && !request.allow_mass_deletion);
        // The second as Basic authentication sends user and token.
        let as_sent = "eC1hY2Nlc3MtdG9rZW46Z2l0LWNvbmY=";
        assert!(request.secrets() == [Secret::new("wm-conf"), Secret::new(as_sent), Secret::new("git-conf")]);
    }

    #[test]
    fn flags_and_the_wait_are_taken_over() {
        let flags = Flags { dry_run: true, force: true, allow_mass_deletion: true, ..Flags::default() };
        let request = configured(&config(HTTPS), flags).ok().unwrap();
        assert!(accepted(HTTPS, r#"{"dry_run":true,"force":true,"allow_mass_deletion":true}"#) == request);
        for (body, wait) in [
            ("", Wait::UntilDone),
            (r#"{"wait":null}"#, Wait::UntilDone),
            (r#"{"wait":true}"#, Wait::UntilDone),
            (r#"{"wait":false}"#, Wait::No),
        ] {
            assert_eq!(read(body.as_bytes(), &config(HTTPS)).ok().unwrap().1, wait, "{body}");
        }
    }

    #[test]
    fn a_workspace_that_nobody_chose_is_marked() {
        assert!(accepted(FILE, "").workspace_is_default);
        assert!(!accepted(FILE, r#"{"workspace":"admins"}"#).workspace_is_default);
    }

    #[test]
    fn a_body_is_one_json_object_of_bounded_size_and_depth() {
        for (body, word) in [
            ("{", "is not JSON"),
            ("{} {}", "is not JSON"),
            ("{\"workspace\":\"shop\",}", "is not JSON"),
            ("{'workspace':'shop'}", "is not JSON"),
            ("\u{feff}{}", "is not JSON"),
            ("[]", "is an array, not"),
            ("[{\"a\":[1,{}]}]", "is an array, not"),
            ("null", "is null, not"),
            ("1.5", "is a number, not"),
            ("\"{}\"", "is a string, not"),
            ("true", "is a boolean, not"),
        ] {
            check(HTTPS, body, &[word]);
        }
        let error = read(b"{\"workspace\":\"\xff\"}", &config(HTTPS)).err().unwrap();
        assert_eq!(error.message, "the body is not UTF-8");
        let padded = |bytes: usize| format!("{{\"git_user_name\":{}\"Ann\"}}", " ".repeat(bytes - 23));
        assert_eq!(padded(100).len(), 100);
        accepted(HTTPS, &padded(BODY_BYTES_MAX));
        check(HTTPS, &padded(BODY_BYTES_MAX + 1), &["64 KiB"]);
    }

    #[test]
    fn deep_values_cost_no_stack() {
        for open in ["[", "{\"a\":", "{\"repository\":"] {
            check(HTTPS, &open.repeat(4_000), &["too deeply"]);
        }
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"repository":{{"more":{open}{close},"also":"[[{{\"["}}}}"#)
        };
        accepted(HTTPS, &nested(DEPTH_MAX - 2));
        check(HTTPS, &nested(DEPTH_MAX - 1), &["too deeply"]);
        accepted(HTTPS, &format!(r#"{{"git_user_name":"{}"}}"#, "[".repeat(DEPTH_MAX + 1)));
    }

    #[test]
    fn a_crowd_of_fields_is_refused_in_few_words() {
        let crowd = |count: usize| {
            let fields: Vec<String> = (0..count).map(|number| format!(r#""x{number}":0"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        let message = refused(HTTPS, &crowd(MEMBERS_MAX)).message;
        assert!(message.contains("\"x0\" is unknown") && message.contains("\"x255\" is unknown"), "{message}");
        assert_eq!(refused(HTTPS, &crowd(MEMBERS_MAX + 1)).message, "the body has more than 256 values");
        accepted(HTTPS, &format!(r#"{{"git_token":"a{}"}}"#, ",".repeat(MEMBERS_MAX)));
    }

    #[test]
    fn unknown_wrong_and_duplicate_fields_are_all_named() {
        check(HTTPS, r#"{"base_url":"http://evil"}"#, &["the field \"base_url\" is unknown"]);
        check(HTTPS, r#"{"Workspace":"shop"}"#, &["\"Workspace\" is unknown"]);
        check(HTTPS, r#"{"a\u001b\n":1}"#, &[r#""a\u{1b}\n" is unknown"#]);
        check(HTTPS, r#"{"workspace":"shop","workspace":"shop"}"#, &["\"workspace\" comes twice"]);
        check(HTTPS, r#"{"wait":true,"wait":null}"#, &["\"wait\" comes twice"]);
        check(HTTPS, r#"{"repository":{"url":"","url":""}}"#, &["\"repository.url\" comes twice"]);
        check(
            HTTPS,
            r#"{"x":1,"dry_run":"true","workspace":5,"git_token":["t"],"repository":"r","force":0}"#,
            &[
                "\"x\" is unknown",
                "`dry_run` must be true or false, not a string",
                "`workspace` must be a string, not a number",
                "`git_token` must be a string, not an array",
                "`repository` must be an object, not a string",
                "`force` must be true or false, not a number",
            ],
        );
        let long = refused(HTTPS, &format!(r#"{{"{}":1}}"#, "x".repeat(10_000)));
        assert!(long.message.len() < 120, "{}", long.message);
    }

    #[test]
    fn empty_texts_are_refused_but_for_the_folder() {
        for field in [
            "workspace",
            "windmill_token",
            "git_remote_url",
            "git_token",
            "git_branch",
            "git_user_name",
            "git_user_email",
        ] {
            check(HTTPS, &format!(r#"{{"{field}":""}}"#), &[&format!("`{field}` is empty")]);
        }
        assert!(accepted(HTTPS, r#"{"git_subdir":"","windmill_token":"t"}"#).subdir.is_root());
    }

    #[test]
    fn malformed_values_are_named_by_their_field() {
        check(HTTPS, r#"{"workspace":"a/b"}"#, &["`workspace`: workspace id \"a/b\""]);
        check(HTTPS, r#"{"git_branch":"wm-fork-1"}"#, &["`git_branch`: "]);
        check(HTTPS, r#"{"git_subdir":".."}"#, &["`git_subdir`: "]);
        check(
            HTTPS,
            r#"{"repository":{"branch":"-x","folder":".git"}}"#,
            &["`repository.branch`", "`repository.folder`"],
        );
        check(HTTPS, r#"{"git_user_name":"<","git_user_email":" "}"#, &["`git_user_name`: ", "`git_user_email`: "]);
        check(
            HTTPS,
            r#"{"git_token":"a\nb","windmill_token":" "}"#,
            &["`git_token` has a line", "`windmill_token` is"],
        );
    }

    #[test]
    fn author_and_templates_follow_the_request() {
        let body = r#"{"workspace":"other","git_user_name":"Ann","git_user_email":"a@b","windmill_token":"t"}"#;
        let request = accepted(HTTPS, body);
        assert_eq!((request.author.to_string().as_str(), request.branch.as_str()), ("Ann <a@b>", "w/other"));
        assert_eq!(request.message, "Automated Windmill workspace backup - other");
        let body = r#"{"git_branch":"b/{workspace}","git_subdir":"/{workspace}/","windmill_token":"t"}"#;
        let request = accepted(HTTPS, body);
        assert_eq!((request.branch.as_str(), request.subdir.as_str()), ("b/shop", "shop"));
        assert!(accepted(HTTPS, r#"{"git_user_name":"Ann"}"#).configured);
    }

    #[test]
    fn the_configured_windmill_token_serves_only_what_it_was_configured_for() {
        for (field, own, other, what) in [
            ("workspace", "shop", "admins", "the workspace and the branch,"),
            ("git_branch", "w/shop", "main", "the branch,"),
            ("git_subdir", "/backup/", "", "the folder,"),
            ("git_subdir", "backup", "backup/x", "the folder,"),
        ] {
            assert!(accepted(HTTPS, &format!(r#"{{"{field}":"{own}"}}"#)).configured, "{field}");
            check(HTTPS, &format!(r#"{{"{field}":"{other}"}}"#), &[what]);
            let request = accepted(HTTPS, &format!(r#"{{"{field}":"{other}","windmill_token":"own"}}"#));
            assert_eq!((request.configured, request.windmill_token.expose()), (false, "own"), "{field}");
            assert_eq!(token_of(&request).1, "git-conf");
        }
    }

    #[test]
    fn the_configured_git_token_serves_only_the_whole_configured_url() {
        assert!(accepted(HTTPS, r#"{"git_remote_url":"https://h/x"}"#).configured);
        for url in ["https://h/x.git", "https://h/X", "https://h/x/", "http://h/x", "https://h:443/x", "https://evil/x"]
        {
            let body = |rest: &str| format!(r#"{{"git_remote_url":"{url}"{rest}}}"#);
            check(HTTPS, &body(""), &["lacks a `windmill_token`", "lacks a `git_token`"]);
            check(HTTPS, &body(r#","windmill_token":"w""#), &["lacks a `git_token`"]);
            check(HTTPS, &body(r#","git_token":"g""#), &["lacks a `windmill_token`"]);
            let request = accepted(HTTPS, &body(r#","git_token":"g","windmill_token":"w""#));
            assert_eq!((request.configured, token_of(&request)), (false, ("x-access-token", "g")));
        }
    }

    #[test]
    fn a_run_with_other_tokens_is_not_a_configured_one() {
        assert!(accepted(HTTPS, r#"{"windmill_token":"wm-conf","git_token":"git-conf"}"#).configured);
        assert!(!accepted(HTTPS, r#"{"windmill_token":"wm-conf2"}"#).configured);
        assert!(!accepted(HTTPS, r#"{"git_token":"git-con"}"#).configured);
        assert!(!accepted(&HTTPS[1..], r#"{"windmill_token":"wm-conf"}"#).configured);
    }

    #[test]
    fn ssh_and_file_remotes_come_from_the_settings_only() {
        let request = accepted(SSH, r#"{"git_remote_url":"git@h:x"}"#);
        match &request.git {
            GitCredentials::Ssh { key, known_hosts, accept_new } => {
                assert_eq!((key.expose(), known_hosts.as_deref()), ("key\n", Some("/known".as_ref())));
                assert!(!accept_new && request.configured);
            }
            GitCredentials::None | GitCredentials::Token { .. } => panic!("no key"),
        }
        check(SSH, r#"{"git_remote_url":"git@h:y","windmill_token":"w"}"#, &["no field of a request carries a key"]);
        check(SSH, r#"{"git_token":"g"}"#, &["`git_token` goes with an http(s) remote"]);
        assert!(accepted(FILE, "").git == GitCredentials::None);
        check(FILE, r#"{"git_remote_url":"file:///x"}"#, &["cannot name a file: remote"]);
        check(FILE, r#"{"repository":{"url":"file:///y"}}"#, &["cannot name a file: remote"]);
        check(FILE, r#"{"git_remote_url":"/x"}"#, &["`git_remote_url`: remote URL is none of"]);
        check(FILE, r#"{"git_token":"g"}"#, &["`git_token` goes with an http(s) remote"]);
    }

    #[test]
    fn what_the_settings_lack_the_request_may_bring() {
        check(&[], "", &["GIT_REMOTE_URL is not set, and", "WINDMILL_TOKEN is not set, and the request brings no"]);
        check(&HTTPS[..3], "", &["GIT_TOKEN is not set, and the request brings no `git_token`"]);
        check(&SSH[..2], "", &["GIT_SSH_KNOWN_HOSTS_FILE is not set", "GIT_SSH_KEY is not set"]);
        let body = r#"{"git_remote_url":"https://h/x","git_token":"g","windmill_token":"w"}"#;
        assert!(!accepted(&[], body).configured);
        let error = configured(&config(&[]), Flags::default()).err().unwrap();
        assert_eq!(error.message, "GIT_REMOTE_URL is not set; WINDMILL_TOKEN is not set");
        assert_eq!(error.code, Code::ConfigInvalid);
    }

    #[test]
    fn an_unreadable_secret_is_a_fault_of_the_settings() {
        let mut settings = HTTPS.to_vec();
        settings[0] = ("WINDMILL_TOKEN_FILE", "/nonexistent/token");
        let error = refused(&settings, "");
        assert!(error.message.starts_with("WINDMILL_TOKEN_FILE: "), "{}", error.message);
        assert_eq!(error.code, Code::ConfigInvalid);
        assert_eq!(refused(&settings, r#"{"x":1}"#).code, Code::RequestInvalid);
        assert_eq!(accepted(&settings, r#"{"windmill_token":"w"}"#).windmill_token.expose(), "w");
    }

    #[test]
    fn a_resource_of_windmill_is_taken_as_it_is() {
        let body = r#"{"windmill_token":"w","repository":{"url":"https://ann:t%40k@g/y.git","branch":"dev","folder":"/a/",
            "gpg_key":{"private_key":"p"},"is_github_app":false}}"#;
        let request = accepted(HTTPS, body);
        assert_eq!((request.remote.as_str(), token_of(&request)), ("https://g/y.git", ("ann", "t@k")));
        assert_eq!((request.branch.as_str(), request.subdir.as_str()), ("dev", "a"));
        let body = r#"{"repository":{"url":"https://h/x","branch":"","folder":""}}"#;
        assert!(accepted(HTTPS, body).configured);
        let body = r#"{"repository":{"url":"https://tok@h/x"}}"#;
        assert_eq!(token_of(&accepted(HTTPS, body)), ("x-access-token", "tok"));
        let body = r#"{"repository":{"url":"https://git-conf@h/x"}}"#;
        assert!(accepted(HTTPS, body).configured);
        let body = r#"{"repository":{"url":"https://other:git-conf@h/x"}}"#;
        assert!(!accepted(HTTPS, body).configured);
        check(HTTPS, r#"{"repository":{"url":"https://g/y"}}"#, &["`windmill_token`", "`git_token`"]);
    }

    #[test]
    fn a_resource_that_only_windmill_can_resolve_is_refused() {
        check(HTTPS, r#"{"repository":{"is_github_app":true}}"#, &["GitHub app"]);
        check(HTTPS, r#"{"repository":"$res:u/ann/repo"}"#, &["`repository` is a reference to Windmill"]);
        check(HTTPS, r#"{"repository":{"url":"$var:u/ann/url"}}"#, &["`repository.url` is a reference"]);
        check(HTTPS, r#"{"repository":{"url":"https://u:$var:x@h/x"}}"#, &["token in repository.url` is a reference"]);
        check(HTTPS, r#"{"windmill_token":"$var:u/ann/t"}"#, &["`windmill_token` is a reference"]);
        accepted(HTTPS, r#"{"repository":{"more":"$var:u/ann/url"}}"#);
    }

    #[test]
    fn nothing_may_be_said_twice() {
        check(
            HTTPS,
            r#"{"git_remote_url":"https://h/x","git_branch":"w/shop","git_subdir":"backup","git_token":"g",
                "repository":{"url":"https://t@h/x","branch":"w/shop","folder":"backup"}}"#,
            &["`git_remote_url` and `repository.url`", "`git_branch` and", "`git_subdir` and", "`git_token` and"],
        );
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        for body in [
            r#"{"git_token":"hunter2\n2","x":1}"#,
            r#"{"windmill_token":"hunter2\u0000"}"#,
            r#"{"git_remote_url":"https://u:hunter2@h/x"}"#,
            r#"{"git_remote_url":"hunter2"}"#,
            r#"{"repository":{"url":"https://u:hunter2@h/"}}"#,
            r#"{"repository":{"url":"https://u:hunter2@g/x"}}"#,
            r#"{"git_token":"hunter2","repository":{"url":"https://hunter2@g/x"}}"#,
            r#"{"windmill_token":{"hunter2":1}}"#,
            r#"{"git_token":"hunter2","#,
        ] {
            let message = refused(HTTPS, body).message;
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    const SEVERAL: &[(&str, &str)] = &[
        ("WINDMILL_TOKEN", "wm-conf"),
        ("WINDMILL_WORKSPACE", "shop,lab"),
        ("GIT_REMOTE_URL", "https://h/x"),
        ("GIT_TOKEN", "git-conf"),
        ("GIT_SUBDIR", "{workspace}"),
    ];

    #[test]
    fn each_of_several_workspaces_is_configured() {
        let config = config(SEVERAL);
        let draft = Draft::from_json(b"{\"dry_run\":true}", &config).ok().unwrap();
        let Ok(Wanted::Several(listed)) = draft.wanted() else { panic!("two are listed") };
        let requests: Vec<_> = listed.iter().map(|workspace| draft.request(workspace).ok().unwrap()).collect();
        let places: Vec<_> = requests.iter().map(|one| (one.workspace.as_str(), one.subdir.as_str())).collect();
        assert_eq!(places, [("shop", "shop"), ("lab", "lab")]);
        assert!(requests.iter().all(|one| one.configured && one.dry_run));
        // One by its name too; another is none of ours.
        assert!(accepted(SEVERAL, r#"{"workspace":"lab"}"#).configured);
        check(SEVERAL, r#"{"workspace":"other"}"#, &["changes the workspace, and lacks"]);
        assert!(!accepted(SEVERAL, r#"{"workspace":"other","windmill_token":"own"}"#).configured);
    }

    #[test]
    fn several_workspaces_do_not_share_a_place() {
        let wanted = |body: &str| Draft::from_json(body.as_bytes(), &config(SEVERAL)).ok().unwrap().wanted().err();
        assert!(wanted(r#"{"git_branch":"other"}"#).is_none(), "the folders differ still");
        let error = wanted(r#"{"git_subdir":"all","windmill_token":"own"}"#).unwrap();
        assert!(error.message.contains("needs {workspace} in the branch or in the folder"), "{}", error.message);
        assert!(wanted(r#"{"git_subdir":"","git_branch":"{workspace}"}"#).is_none());
        let error = wanted(r#"{"workspace":"a/b","colour":1}"#).unwrap();
        assert!(error.message.contains("workspace id") && error.message.contains("colour"), "{}", error.message);
    }

    #[test]
    fn all_workspaces_are_asked_for_with_the_token_of_the_request() {
        let all: Vec<_> =
            SEVERAL.iter().map(|(name, value)| (*name, if *value == "shop,lab" { "*" } else { value })).collect();
        let config = config(&all);
        let token = |body: &str| match Draft::from_json(body.as_bytes(), &config).ok().unwrap().wanted() {
            Ok(Wanted::All(token)) => token.expose().to_owned(),
            _ => panic!("all are wanted"),
        };
        assert_eq!((token(""), token(r#"{"windmill_token":"own"}"#)), ("wm-conf".to_owned(), "own".to_owned()));
        check(&all, r#"{"workspace":"admins"}"#, &["changes the workspace, and lacks"]);
        assert!(accepted(&all, r#"{"workspace":"any"}"#).configured);
    }
}
