//! Turns the settings and a request's JSON into a [`SyncRequest`] with every field resolved. It decides which
//! configured secret may serve which request, and what a request may choose. `backup`, `service`, `api` and `cli` use
//! it.

mod json_body;
mod resolve;

use crate::config::{Config, Workspaces};
use crate::model::{
    BackupError, BaseUrl, BranchName, Code, GitCredentials, Identity, RemoteUrl, Result, Subdir, WorkspaceId, names,
};
use crate::util::{Secret, hash};
use json_body::Fields;

pub use resolve::windmill_headers;

/// One sync, with every field resolved. Two equal requests can share one run.
#[derive(Clone, PartialEq, Eq)]
pub struct SyncRequest {
    /// The workspace to back up.
    pub workspace: WorkspaceId,
    /// The address of Windmill. No request changes it.
    pub base_url: BaseUrl,
    /// The token for Windmill.
    pub windmill_token: Secret,
    /// Additional headers for Windmill.
    pub windmill_headers: Vec<(String, Secret)>,
    /// The remote of the backup.
    pub remote: RemoteUrl,
    /// The credentials for the remote.
    pub git: GitCredentials,
    /// The key that signs the commit. It serves the configured repository only.
    pub signing_key: Option<Secret>,
    /// The branch, with its template filled in.
    pub branch: BranchName,
    /// The folder, with its template filled in.
    pub subdir: Subdir,
    /// Author and committer.
    pub author: Identity,
    /// The subject line of the commit, with its template filled in.
    pub message: String,
    /// How the run differs from a plain sync.
    pub flags: Flags,
    /// Whether this is a run of the configured backup: workspace, remote, branch and folder are the configured ones.
    /// This is also true if the request brings an accepted Windmill token of its own.
    pub configured: bool,
    /// Whether the workspace is the default one.
    pub workspace_is_default: bool,
    /// The warnings about listed workspaces that are not backed up.
    pub list_warnings: Vec<String>,
}

/// The purpose of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// The run backs up the workspace.
    #[default]
    Sync,
    /// The run checks whether the backup matches the workspace.
    Verify,
    /// The run puts the backup into a workspace.
    Restore,
}

impl Purpose {
    /// Returns the name of such a run.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Verify => "verification",
            Self::Restore => "restore",
        }
    }
}

/// What the options of a command, or the fields of a request, add to the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Whether to show what would be committed, and commit nothing.
    pub dry_run: bool,
    /// Whether to run a full sync even if the workspace is unchanged.
    pub force: bool,
    /// Whether the guard against mass deletion is off for this run.
    pub allow_mass_deletion: bool,
    /// Whether the guard against a token that lost its rights is off for this run.
    pub allow_lost_rights: bool,
    /// What the run is for.
    pub purpose: Purpose,
}

impl SyncRequest {
    /// Returns a short name for the source and the destination of the backup. Requests that differ only in credentials
    /// and flags have the same name.
    pub fn destination(&self) -> String {
        destination(&self.base_url, &self.remote, &self.branch, &self.subdir)
    }

    /// Returns a name for the resources that only one run may use at a time. For a run of a configured backup it is the
    /// workspace. For any other run it contains the destination too, so that such a run never makes a configured one
    /// wait. It names the lock, the scratch folder and the queue.
    pub fn backup_id(&self) -> String {
        if self.configured {
            return self.workspace.to_string();
        }
        // A configured run may be in progress at the same time, so this name must differ from its name for the same
        // destination.
        format!("{}@{}", self.workspace, hash::short_name(&["other\n", &self.destination()].concat()))
    }

    /// Returns the key for the status of the backup or the verification that this run is about.
    pub fn status_key(&self) -> String {
        match self.flags.purpose {
            Purpose::Verify => verified(&self.destination()),
            Purpose::Sync | Purpose::Restore => self.destination(),
        }
    }

    /// Returns all secrets of the request, in the forms in which they are sent, so that they can be removed from the
    /// output of tools.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = vec![self.windmill_token.clone()];
        secrets.extend(self.windmill_headers.iter().map(|(_, value)| value.clone()));
        secrets.extend(self.signing_key.clone());
        secrets.extend(self.git.secrets());
        secrets
    }
}

/// A request, before its workspaces are known.
#[derive(Clone)]
pub struct Draft<'a> {
    config: &'a Config,
    fields: Fields,
    faults: Faults,
}

/// The workspaces of a request.
pub enum Target {
    /// This workspace, because the request names it, or because it is the only one.
    One(WorkspaceId),
    /// The configured workspaces.
    Several(Vec<WorkspaceId>),
    /// All workspaces that this token sees.
    All(Secret),
}

impl<'a> Draft<'a> {
    /// Makes the draft of the configured sync.
    pub fn from_config(config: &'a Config, flags: Flags) -> Self {
        Self::new(config, flags, Code::ConfigInvalid)
    }

    /// Makes the draft of the configured sync. `code` is the code of an error, unless only the settings are wrong.
    fn new(config: &'a Config, flags: Flags, code: Code) -> Self {
        let faults = Faults { code, list: Vec::new(), of_config: 0, is_malformed: false };
        Self { config, fields: Fields::of_config(config, flags), faults }
    }

    /// Makes the draft of a request with this body. Values that the body lacks come from the settings. If the service
    /// has a token of its own, the sender must have sent it already.
    ///
    /// # Errors
    ///
    /// Fails if the body is not a JSON object, or chooses what only a trusted sender may choose. Faults in the fields
    /// are returned later, together with those that appear only then.
    pub fn from_json(body: &[u8], config: &'a Config) -> Result<Self> {
        let mut draft = Self::new(config, Flags::default(), Code::RequestInvalid);
        draft.read(body).ok_or_else(|| draft.faults.error())?;
        if config.api_token.is_none() && !draft.faults.is_malformed {
            refuse_choices(&draft.fields, config)?;
        }
        Ok(draft)
    }

    /// Whether the request brings a Windmill token of its own.
    pub fn brings_windmill_token(&self) -> bool {
        self.fields.is_given("windmill_token")
    }

    /// Whether the answer comes after the run, and not at once.
    pub fn waits(&self) -> bool {
        self.fields.wait
    }

    /// Whether the request asks for the configured sync, so that its result counts for it. A dry run, a verification
    /// and a restore do not.
    pub fn is_of_the_settings(&self) -> bool {
        self.fields.are_flags() && !self.fields.flags.dry_run && self.fields.flags.purpose == Purpose::Sync
    }

    /// Returns the token for listing all configured workspaces. The list is needed to decide whether a named workspace
    /// is one of them. Returns `None` if the caller brings a token of its own, or if the settings name the workspaces.
    pub fn listing_token(&self) -> Option<Secret> {
        if self.config.workspaces != Workspaces::All || self.brings_windmill_token() {
            return None;
        }
        self.clone().windmill_token(&[])
    }

    /// Returns the workspaces of the request. Reads the token.
    ///
    /// # Errors
    ///
    /// Fails as [`Draft::request`] does, if the fault does not depend on the workspace.
    pub fn wanted(&self) -> Result<Target> {
        let configured = &self.config.workspaces;
        if let Some(workspace) = self.fields.workspace.as_ref().or(configured.single()) {
            return Ok(Target::One(workspace.clone()));
        }
        let mut draft = self.clone();
        let templates = [&self.fields.branch.1, &self.fields.subdir.1];
        // The settings were checked when they were read, but a request may bring another branch or folder.
        if !self.fields.is_given("workspace") && !templates.iter().any(|text| text.contains(names::WORKSPACE_MARK)) {
            draft.faults.add(&[
                "the request is for several workspaces, and needs {workspace} in the branch or in the folder, or a \
                 `workspace`",
            ]);
        }
        let target = match configured {
            Workspaces::Listed(listed) => Some(Target::Several(listed.clone())),
            Workspaces::All => draft.windmill_token(&[]).map(Target::All),
        };
        draft.faults.or(target)
    }

    /// Resolves the sync of one workspace. Secrets are read now.
    ///
    /// # Errors
    ///
    /// Fails if the body asks for something unknown or forbidden, if request and settings together lack something, or
    /// if a secret's file cannot be read. One error lists all faults.
    pub fn request(&self, workspace: &WorkspaceId) -> Result<SyncRequest> {
        let mut draft = self.clone();
        let resolved = draft.resolve(workspace);
        draft.faults.or(resolved)
    }
}

/// Checks that a caller without `SYNC_API_TOKEN` asks only for the configured backup.
///
/// # Errors
/// [`Code::Forbidden`]. The message says what to set instead.
fn refuse_choices(fields: &Fields, config: &Config) -> Result<()> {
    let mut reasons = Vec::new();
    let trusted_only = fields.trusted_only();
    if !trusted_only.is_empty() {
        let overrides = trusted_only.iter().filter(|name| name.starts_with("allow_"));
        let options: Vec<_> = overrides.map(|name| ["--", &name.replace('_', "-")].concat()).collect();
        let once = format!(", or run `windmill-git-sync sync {}` once", options.join(" "));
        reasons.push(format!(
            "`{}` cannot be in a request to a service without SYNC_API_TOKEN: set SYNC_API_TOKEN and send it as \
             `Authorization: Bearer …`{}",
            trusted_only.join("`, `"),
            if options.is_empty() { "" } else { &once }
        ));
    }
    if let Some(workspace) = fields.workspace.as_ref().filter(|workspace| !config.workspaces.hold(workspace)) {
        let mut listed = match &config.workspaces {
            Workspaces::Listed(listed) => listed.iter().map(WorkspaceId::as_str).collect(),
            Workspaces::All => Vec::new(),
        };
        listed.push(workspace.as_str());
        let listed = listed.join(",");
        reasons.push(format!(
            "workspace `{workspace}` is not configured: set WINDMILL_WORKSPACE={listed} with {{workspace}} in GIT_BRANCH \
             or GIT_SUBDIR, or set SYNC_API_TOKEN and send it"
        ));
    }
    if reasons.is_empty() { Ok(()) } else { Err(BackupError::new(Code::Forbidden, reasons.join("; "))) }
}

/// Returns the [`SyncRequest::destination`] of the settings for a workspace. It is empty if a part is missing or
/// invalid.
pub fn configured_destination(config: &Config, workspace: &WorkspaceId) -> String {
    match (&config.remote, config.branch_for(workspace), config.subdir_for(workspace)) {
        (Some(remote), Ok(branch), Ok(subdir)) => destination(&config.base_url, remote, &branch, &subdir),
        _ => String::new(),
    }
}

/// Returns the credentials for the configured remote. Secrets are read now.
///
/// # Errors
///
/// Fails as [`Draft::request`] does, as far as it concerns the remote.
pub fn configured_git_credentials(config: &Config, remote: &RemoteUrl) -> Result<GitCredentials> {
    let mut draft = Draft::from_config(config, Flags::default());
    let credentials = draft.git_credentials(remote);
    draft.faults.or(credentials)
}

/// Returns the key for the status of the verifications of a backup to `destination`.
pub fn verified(destination: &str) -> String {
    ["verify:", destination].concat()
}

fn destination(base_url: &BaseUrl, remote: &RemoteUrl, branch: &BranchName, subdir: &Subdir) -> String {
    hash::short_name(&[base_url.as_str(), remote.as_str(), branch.as_str(), subdir.as_str()].join("\n"))
}

/// All faults of a request.
#[derive(Clone)]
struct Faults {
    code: Code,
    list: Vec<String>,
    /// The number of faults that are about the settings alone.
    of_config: usize,
    /// Whether a field is unknown, occurs twice, or has a wrong type, so that the request is not understood.
    is_malformed: bool,
}

impl Faults {
    fn add(&mut self, parts: &[&str]) {
        self.list.push(parts.concat());
    }

    /// Adds a fault because of which there is no value.
    fn refuse<T>(&mut self, parts: &[&str]) -> Option<T> {
        self.add(parts);
        None
    }

    fn add_malformed(&mut self, parts: &[&str]) {
        self.is_malformed = true;
        self.add(parts);
    }

    fn add_of_config(&mut self, why: String) {
        self.list.push(why);
        self.of_config += 1;
    }

    fn named<T>(&mut self, name: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|error| self.add(&["`", name, "`: ", &error.to_string()])).ok()
    }

    /// Returns the value if there are no faults. If there is no value, there has to be a fault.
    fn or<T>(&self, value: Option<T>) -> Result<T> {
        value.filter(|_| self.list.is_empty()).ok_or_else(|| self.error())
    }

    fn error(&self) -> BackupError {
        let code = if self.of_config == self.list.len() { Code::ConfigInvalid } else { self.code };
        BackupError::new(code, self.list.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::json_body::{DEPTH_MAX, MEMBERS_MAX};
    use super::*;
    use crate::config::{Environment, Options, Required};

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

    /// Returns the configuration of a service with a token that the sender has sent.
    fn config(variables: &[(&str, &str)]) -> Config {
        open_config(&[variables, &[("SYNC_API_TOKEN", "shown")]].concat())
    }

    fn open_config(variables: &[(&str, &str)]) -> Config {
        let environment = Environment::new(variables.iter().map(|(name, value)| (name.into(), value.into())));
        Config::new(&Options::default(), &environment, Required::Serve).ok().unwrap()
    }

    fn read(body: &[u8], config: &Config) -> Result<(SyncRequest, bool)> {
        let draft = Draft::from_json(body, config)?;
        let Target::One(workspace) = draft.wanted()? else { panic!("for several workspaces") };
        Ok((draft.request(&workspace)?, draft.waits()))
    }

    fn configured(config: &Config, flags: Flags) -> Result<SyncRequest> {
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

    fn refused(settings: &[(&str, &str)], body: &str) -> BackupError {
        match read(body.as_bytes(), &config(settings)) {
            Ok(_) => panic!("{body} was accepted"),
            Err(error) => error,
        }
    }

    /// Checks that the body is refused with as many faults as there are words, and that each fault contains its word.
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
        assert!(!request.flags.dry_run && !request.flags.force && !request.flags.allow_mass_deletion);
        // The second secret is user and token as Basic authentication sends them.
        let as_sent = "eC1hY2Nlc3MtdG9rZW46Z2l0LWNvbmY=";
        assert!(request.secrets() == [Secret::new("wm-conf"), Secret::new(as_sent), Secret::new("git-conf")]);
    }

    #[test]
    fn flags_and_wait_are_read_from_the_body() {
        let flags = Flags { dry_run: true, force: true, allow_mass_deletion: true, ..Flags::default() };
        let request = configured(&config(HTTPS), flags).ok().unwrap();
        assert!(accepted(HTTPS, r#"{"dry_run":true,"force":true,"allow_mass_deletion":true}"#) == request);
        for (body, waits) in
            [("", true), (r#"{"wait":null}"#, true), (r#"{"wait":true}"#, true), (r#"{"wait":false}"#, false)]
        {
            assert_eq!(read(body.as_bytes(), &config(HTTPS)).ok().unwrap().1, waits, "{body}");
        }
    }

    #[test]
    fn a_workspace_that_is_the_default_is_marked() {
        assert!(accepted(FILE, "").workspace_is_default);
        assert!(!accepted(FILE, r#"{"workspace":"admins"}"#).workspace_is_default);
    }

    #[test]
    fn a_body_is_one_json_object() {
        for (body, word) in [
            ("{", "is not JSON"),
            ("{} {}", "is not JSON"),
            ("{\"workspace\":\"shop\",}", "is not JSON"),
            ("{'workspace':'shop'}", "is not JSON"),
            ("\u{feff}{}", "is not JSON"),
            ("[]", "is not a JSON object"),
            ("[{\"a\":[1,{}]}]", "is not a JSON object"),
            ("null", "is not a JSON object"),
            ("1.5", "is not a JSON object"),
            ("\"{}\"", "is not a JSON object"),
            ("true", "is not a JSON object"),
        ] {
            check(HTTPS, body, &[word]);
        }
        let error = read(b"{\"workspace\":\"\xff\"}", &config(HTTPS)).err().unwrap();
        assert_eq!(error.message, "the body is not UTF-8");
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
    fn very_many_fields_are_refused_with_a_short_message() {
        let crowd = |count: usize| {
            let fields: Vec<String> = (0..count).map(|number| format!(r#""x{number}":0"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        let message = refused(HTTPS, &crowd(MEMBERS_MAX)).message;
        assert!(message.contains("\"x0\" is unknown") && message.contains("\"x255\" is unknown"), "{message}");
        assert_eq!(refused(HTTPS, &crowd(MEMBERS_MAX + 1)).message, "the body has too many values");
        accepted(HTTPS, &format!(r#"{{"git_token":"a{}"}}"#, ",".repeat(MEMBERS_MAX)));
    }

    #[test]
    fn unknown_wrong_and_duplicate_fields_are_all_named() {
        check(HTTPS, r#"{"base_url":"http://evil"}"#, &["the field \"base_url\" is unknown"]);
        check(HTTPS, r#"{"Workspace":"shop"}"#, &["\"Workspace\" is unknown"]);
        check(HTTPS, r#"{"repository.url":"https://h/x"}"#, &["\"repository.url\" is unknown"]);
        check(HTTPS, r#"{"repository.more":1,"the token in repository.url":1}"#, &["more\" is unknown", "is unknown"]);
        check(HTTPS, r#"{"a\u001b\n":1}"#, &[r#""a\u{1b}\n" is unknown"#]);
        check(HTTPS, r#"{"workspace":"shop","workspace":"shop"}"#, &["\"workspace\" comes twice"]);
        check(HTTPS, r#"{"wait":true,"wait":null}"#, &["\"wait\" comes twice"]);
        check(HTTPS, r#"{"repository":{"url":"","url":""}}"#, &["\"repository.url\" comes twice"]);
        check(
            HTTPS,
            r#"{"x":1,"dry_run":"true","workspace":5,"git_token":["t"],"repository":"r","force":0}"#,
            &[
                "\"x\" is unknown",
                "`dry_run` must be true or false",
                "`workspace` must be a string",
                "`git_token` must be a string",
                "`repository` must be an object",
                "`force` must be true or false",
            ],
        );
        let long = refused(HTTPS, &format!(r#"{{"{}":1}}"#, "x".repeat(10_000)));
        assert!(long.message.len() < 120, "{}", long.message);
    }

    #[test]
    fn empty_texts_are_refused_except_for_the_folder() {
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
    fn a_run_to_the_configured_place_is_configured_with_any_token() {
        for token in ["wm-conf", "own"] {
            let request = accepted(HTTPS, &format!(r#"{{"windmill_token":"{token}"}}"#));
            assert_eq!((request.configured, request.windmill_token.expose()), (true, token));
        }
        assert!(accepted(HTTPS, r#"{"git_token":"own"}"#).configured);
        assert!(accepted(&HTTPS[1..], r#"{"windmill_token":"own"}"#).configured);
        assert!(!accepted(HTTPS, r#"{"windmill_token":"wm-conf","git_branch":"other"}"#).configured);
    }

    #[test]
    fn without_sync_api_token_a_request_only_chooses_among_configured_backups() {
        let open = |body: &str| {
            Draft::from_json(body.as_bytes(), &open_config(HTTPS)).map(|_| ()).map_err(|error| {
                assert_eq!((error.code, error.code.http_status()), (Code::Forbidden, 403), "{body}");
                error.message
            })
        };
        for body in [
            "",
            r#"{"workspace":"shop","windmill_token":"own","dry_run":true,"force":true,"wait":false}"#,
            r#"{"git_branch":null,"repository":null,"allow_mass_deletion":null}"#,
        ] {
            assert_eq!(open(body), Ok(()), "{body}");
        }
        for field in [
            r#""git_remote_url":"https://h/x""#,
            r#""git_remote_url":"not even a URL""#,
            r#""git_token":"own""#,
            r#""git_branch":"w/shop""#,
            r#""git_subdir":"backup""#,
            r#""git_user_name":"Ann""#,
            r#""git_user_email":"a@b""#,
            r#""repository":{}"#,
            r#""allow_mass_deletion":true"#,
            r#""allow_mass_deletion":false"#,
        ] {
            let message = open(&format!(r#"{{"windmill_token":"own",{field}}}"#)).unwrap_err();
            let name = field.split('"').nth(1).unwrap();
            assert!(message.contains(&format!("`{name}`")) && message.contains("SYNC_API_TOKEN"), "{message}");
            assert_eq!(message.contains("sync --allow-mass-deletion"), name == "allow_mass_deletion", "{message}");
        }
        let message = open(r#"{"workspace":"lab","windmill_token":"own"}"#).unwrap_err();
        assert!(message.contains("WINDMILL_WORKSPACE=shop,lab with {workspace}"), "{message}");
        // Faults in names and types of fields are reported before the check of who may use the fields.
        for body in [
            r#"{"colour":1}"#,
            r#"{"git_branch":1}"#,
            r#"{"git_branch":"x","git_branch":"x"}"#,
            r#"{"repository.url":"https://own:token@g/y","windmill_token":"own"}"#,
        ] {
            let config = open_config(HTTPS);
            let draft = Draft::from_json(body.as_bytes(), &config).ok().unwrap();
            let error = draft.request(&WorkspaceId::parse("shop").unwrap()).err().unwrap();
            assert_eq!(error.code, Code::RequestInvalid, "{body}: {}", error.message);
        }
    }

    #[test]
    fn with_all_workspaces_each_but_admins_counts_as_configured() {
        let all = [&HTTPS[..1], &[("WINDMILL_WORKSPACE", "*")], &HTTPS[2..]].concat();
        let code = |workspace: &str| {
            let body = format!(r#"{{"workspace":"{workspace}","windmill_token":"own"}}"#);
            Draft::from_json(body.as_bytes(), &open_config(&all)).err().map(|error| error.code)
        };
        assert_eq!((code("lab"), code("admins")), (None, Some(Code::Forbidden)));
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
        check(SSH, r#"{"git_token":"g"}"#, &["`git_token` needs an http(s) remote"]);
        assert!(accepted(FILE, "").git == GitCredentials::None);
        check(FILE, r#"{"git_remote_url":"file:///x"}"#, &["cannot name a file: remote"]);
        check(FILE, r#"{"repository":{"url":"file:///y"}}"#, &["cannot name a file: remote"]);
        check(FILE, r#"{"git_remote_url":"/x"}"#, &["`git_remote_url`: remote URL is not one of"]);
        check(FILE, r#"{"git_token":"g"}"#, &["`git_token` needs an http(s) remote"]);
    }

    #[test]
    fn a_request_may_bring_what_the_settings_lack() {
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
    fn a_git_repository_resource_is_accepted_unchanged() {
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
        assert_eq!(token_of(&accepted(HTTPS, body)), ("other", "git-conf"));
        check(HTTPS, r#"{"repository":{"url":"https://g/y"}}"#, &["`windmill_token`", "`git_token`"]);
    }

    #[test]
    fn null_keeps_the_value_of_the_resource() {
        let nulls = r#""git_remote_url":null,"git_token":null,"git_branch":null,"git_subdir":null"#;
        let resource = r#""repository":{"url":"https://ann:tok@g/y.git","branch":"dev","folder":"a"}"#;
        for (first, second) in [(nulls, resource), (resource, nulls)] {
            let request = accepted(HTTPS, &format!(r#"{{"windmill_token":"w",{first},{second}}}"#));
            assert_eq!((request.remote.as_str(), token_of(&request)), ("https://g/y.git", ("ann", "tok")), "{first}");
            assert_eq!((request.branch.as_str(), request.subdir.as_str()), ("dev", "a"), "{first}");
        }
        for body in [
            r#"{"repository":{"url":"https://h/x","branch":"other"},"git_branch":null}"#,
            r#"{"git_branch":null,"repository":{"url":"https://h/x","branch":"other"}}"#,
        ] {
            check(HTTPS, body, &["`windmill_token`"]);
        }
    }

    #[test]
    fn a_resource_that_only_windmill_can_resolve_is_refused() {
        check(HTTPS, r#"{"repository":{"is_github_app":true}}"#, &["GitHub app"]);
        check(
            HTTPS,
            r#"{"repository":"$res:u/ann/repo"}"#,
            &["`repository` must be an object: the resource itself, not a reference"],
        );
        check(HTTPS, r#"{"repository":{"url":"$var:u/ann/url"}}"#, &["`repository.url` is a reference"]);
        check(HTTPS, r#"{"repository":{"url":"https://u:$var:x@h/x"}}"#, &["token in repository.url` is a reference"]);
        check(HTTPS, r#"{"windmill_token":"$var:u/ann/t"}"#, &["`windmill_token` is a reference"]);
        accepted(HTTPS, r#"{"repository":{"more":"$var:u/ann/url"}}"#);
    }

    #[test]
    fn a_value_given_by_field_and_resource_is_refused() {
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
        let Ok(Target::Several(listed)) = draft.wanted() else { panic!("two are listed") };
        let requests: Vec<_> = listed.iter().map(|workspace| draft.request(workspace).ok().unwrap()).collect();
        let places: Vec<_> =
            requests.iter().map(|request| (request.workspace.as_str(), request.subdir.as_str())).collect();
        assert_eq!(places, [("shop", "shop"), ("lab", "lab")]);
        assert!(requests.iter().all(|request| request.configured && request.flags.dry_run));
        // One of them can also be requested by name. Another workspace is not configured.
        assert!(accepted(SEVERAL, r#"{"workspace":"lab"}"#).configured);
        check(SEVERAL, r#"{"workspace":"other"}"#, &["changes the workspace, and lacks"]);
        assert!(!accepted(SEVERAL, r#"{"workspace":"other","windmill_token":"own"}"#).configured);
    }

    #[test]
    fn several_workspaces_have_different_places() {
        let wanted = |body: &str| Draft::from_json(body.as_bytes(), &config(SEVERAL)).ok().unwrap().wanted().err();
        assert!(wanted(r#"{"git_branch":"other"}"#).is_none(), "the folders differ still");
        let error = wanted(r#"{"git_subdir":"all","windmill_token":"own"}"#).unwrap();
        assert!(error.message.contains("needs {workspace} in the branch or in the folder"), "{}", error.message);
        assert!(wanted(r#"{"git_subdir":"","git_branch":"{workspace}"}"#).is_none());
        let error = wanted(r#"{"workspace":"a/b","colour":1}"#).unwrap();
        assert!(error.message.contains("workspace id") && error.message.contains("colour"), "{}", error.message);
    }

    #[test]
    fn all_workspaces_are_listed_with_the_token_of_the_request() {
        let all: Vec<_> =
            SEVERAL.iter().map(|(name, value)| (*name, if *value == "shop,lab" { "*" } else { value })).collect();
        let config = config(&all);
        let token = |body: &str| match Draft::from_json(body.as_bytes(), &config).ok().unwrap().wanted() {
            Ok(Target::All(token)) => token.expose().to_owned(),
            _ => panic!("all are wanted"),
        };
        assert_eq!((token(""), token(r#"{"windmill_token":"own"}"#)), ("wm-conf".to_owned(), "own".to_owned()));
        check(&all, r#"{"workspace":"admins"}"#, &["changes the workspace, and lacks"]);
        assert!(accepted(&all, r#"{"workspace":"any"}"#).configured);
    }
}
