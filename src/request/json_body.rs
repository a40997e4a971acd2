//! Reads the JSON body of a request into [`Fields`], and names everything that is wrong in it.

use miniserde::json::{Object, Value, from_str};

use crate::config::{self, Config};
use crate::model::names::{self, Identity, WorkspaceId};
use crate::model::urls::{RemoteScheme, RemoteUrl};
use crate::request::{Faults, Flags};
use crate::util::json::{self, Limits};
use crate::util::secret::Secret;

/// The largest body. A body has a few hundred bytes, and some more with a resource and its token. The listener reads no
/// more than this.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// How deep a body may be nested. A resource is flat. Deeper values would cost stack when they are parsed and dropped.
pub(super) const DEPTH_MAX: usize = 32;
/// How many values a body may have. There are 14 fields, and a resource has some more. Thousands, each named as
/// unknown, would make an answer of megabytes.
pub(super) const MEMBERS_MAX: usize = 256;

/// The name in [`Fields::given`] of a token within a resource's URL.
pub(super) const URL_TOKEN: &str = "the token in repository.url";

/// The fields that a request may have if the service has no `SYNC_API_TOKEN`. They only choose which of the configured
/// backups is made, and how.
const OPEN_FIELDS: [&str; 5] = ["workspace", "windmill_token", "dry_run", "force", "wait"];

/// What a request asks for. What its body does not say is as in the settings, but for the secrets: [`super::resolve`]
/// decides whether the configured one may serve.
#[derive(Clone)]
pub(super) struct Fields {
    pub(super) workspace: Option<WorkspaceId>,
    pub(super) windmill_token: Option<Secret>,
    pub(super) remote: Option<RemoteUrl>,
    pub(super) git_username: String,
    pub(super) git_token: Option<Secret>,
    /// A template, with the name of the setting or field that it came with.
    pub(super) branch: (&'static str, String),
    /// A template, with the name of the setting or field that it came with.
    pub(super) subdir: (&'static str, String),
    pub(super) user_name: String,
    pub(super) user_email: String,
    pub(super) flags: Flags,
    pub(super) no_wait: bool,
    /// The names of the text fields that were given, refused or not: a refused field must not count as absent.
    pub(super) given: Vec<String>,
    /// The given fields that need `SYNC_API_TOKEN`.
    pub(super) trusted_only: Vec<String>,
}

impl Fields {
    pub(super) fn of_config(config: &Config, flags: Flags) -> Self {
        Self {
            workspace: None,
            windmill_token: None,
            remote: None,
            git_username: config.git_username.clone(),
            git_token: None,
            branch: ("GIT_BRANCH", config.branch.clone()),
            subdir: ("GIT_SUBDIR", config.subdir.clone()),
            user_name: config.author.name().to_owned(),
            user_email: config.author.email().to_owned(),
            flags,
            no_wait: false,
            given: Vec::new(),
            trusted_only: Vec::new(),
        }
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }
}

/// Reads the fields of a body. If the body is not a JSON object, this is the only fault, and there are no fields.
pub(super) fn read(body: &[u8], config: &Config, faults: &mut Faults) -> Option<Fields> {
    let fields = Fields::of_config(config, Flags::default());
    let body = body.trim_ascii();
    if body.is_empty() {
        return Some(fields);
    }
    match parse(body) {
        Ok((Value::Object(object), text)) => return Some(Reader { faults, fields }.read(object, text)),
        Ok((other, _)) => faults.add(&["the body is ", kind(&other), ", not a JSON object"]),
        Err(fault) => faults.add(&["the body ", fault]),
    }
    None
}

/// Returns the value of a body, and its text.
fn parse(body: &[u8]) -> Result<(Value, &str), &'static str> {
    if body.len() > BODY_BYTES_MAX {
        return Err("has more than 64 KiB");
    }
    let text = std::str::from_utf8(body).map_err(|_| "is not UTF-8")?;
    let limits = Limits { depth: DEPTH_MAX, values: MEMBERS_MAX, containers: MEMBERS_MAX };
    if let Some(fault) = json::outline_fault(text, limits) {
        return Err(fault);
    }
    Ok((from_str(text).map_err(|_| "is not JSON")?, text))
}

/// Returns the names of all members in a JSON text, each with its depth, in their order. The parser loses the order, and
/// one of two members with the same name.
fn members(text: &str) -> Vec<(usize, String)> {
    let (mut names, mut depth, mut is_escaped) = (Vec::new(), 0_usize, false);
    let (mut string_begin, mut last_string) = (None, "");
    for (index, byte) in text.bytes().enumerate() {
        match (byte, string_begin) {
            _ if is_escaped => is_escaped = false,
            (b'\\', _) => is_escaped = true,
            (b'"', Some(begin)) => (last_string, string_begin) = (&text[begin..=index], None),
            (_, Some(_)) => {}
            (b'"', None) => string_begin = Some(index),
            (b'[' | b'{', None) => depth += 1,
            (b']' | b'}', None) => depth = depth.saturating_sub(1),
            (b':', None) => names.extend(from_str(last_string).ok().map(|name| (depth, name))),
            _ => {}
        }
    }
    names
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Refuses a `file:` URL: a caller must not write into a folder of this machine.
fn permitted(url: RemoteUrl) -> Result<RemoteUrl, String> {
    if url.scheme() == RemoteScheme::File { Err("a request cannot name a file: remote".to_owned()) } else { Ok(url) }
}

/// Continues after a fault, so that all faults are named.
struct Reader<'a> {
    faults: &'a mut Faults,
    fields: Fields,
}

impl Reader<'_> {
    /// Reads the members of the body and of its `repository` in their order.
    fn read(mut self, mut object: Object, text: &str) -> Fields {
        let mut repository = None;
        for (depth, name) in members(text) {
            let name = name.as_str();
            if depth == 1 {
                let value = self.once(name, object.remove(name));
                repository = value.and_then(|value| self.field(name, value));
            } else if depth == 2
                && let Some(repository) = &mut repository
            {
                let value = self.once(&["repository.", name].concat(), repository.remove(name));
                value.and_then(|value| self.repository_member(name, value));
            }
        }
        self.refuse_repeated();
        self.fields
    }

    /// Returns the value of a member, which is `None` when it was already read. Then the body has the member twice, which
    /// is a fault.
    fn once(&mut self, name: &str, value: Option<Value>) -> Option<Value> {
        if value.is_none() {
            self.faults.add_malformed(&["the field ", &names::quoted(name), " comes twice"]);
        }
        value
    }

    /// Reads one member of the body. `null` counts as not given, and leaves what `repository` gave. Returns the members
    /// of `repository`.
    fn field(&mut self, name: &str, value: Value) -> Option<Object> {
        if !matches!(value, Value::Null) && !OPEN_FIELDS.contains(&name) {
            self.fields.trusted_only.push(name.to_owned());
        }
        match name {
            "repository" => return self.repository(value),
            "workspace" => self.fields.workspace = Some(self.parsed(name, value, WorkspaceId::parse)?),
            "windmill_token" => self.fields.windmill_token = Some(self.token(name, value)?),
            "git_remote_url" => {
                let url = self.parsed(name, value, |text| permitted(RemoteUrl::parse(text)?))?;
                self.fields.remote = Some(url);
            }
            "git_token" => self.fields.git_token = Some(self.token(name, value)?),
            "git_branch" => self.fields.branch = ("git_branch", self.given(name, value)?),
            "git_subdir" => self.fields.subdir = ("git_subdir", self.given(name, value)?),
            "git_user_name" => self.fields.user_name = self.parsed(name, value, Identity::parse_name)?,
            "git_user_email" => self.fields.user_email = self.parsed(name, value, Identity::parse_email)?,
            "dry_run" => self.fields.flags.dry_run = self.flag(name, &value)?,
            "force" => self.fields.flags.force = self.flag(name, &value)?,
            "allow_mass_deletion" => self.fields.flags.allow_mass_deletion = self.flag(name, &value)?,
            "allow_lost_rights" => self.fields.flags.allow_lost_rights = self.flag(name, &value)?,
            "wait" => self.fields.no_wait = !self.flag(name, &value)?,
            _ => self.faults.add_malformed(&["the field ", &names::quoted(name), " is unknown"]),
        }
        None
    }

    fn flag(&mut self, name: &str, value: &Value) -> Option<bool> {
        match value {
            Value::Bool(value) => return Some(*value),
            Value::Null => {}
            other => self.faults.add_malformed(&["`", name, "` must be true or false, not ", kind(other)]),
        }
        None
    }

    /// Returns the text of a field, and notes that it is given. Only the folder may be empty.
    fn given(&mut self, name: &str, value: Value) -> Option<String> {
        if !matches!(value, Value::Null) {
            self.fields.given.push(name.to_owned());
        }
        let text = self.text(name, value)?;
        if text.is_empty() && name != "git_subdir" {
            return self.faults.refuse(&["`", name, "` is empty"]);
        }
        Some(text)
    }

    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        match value {
            Value::Null => {}
            // Windmill replaces these before a job runs. If one arrives here, it was sent by hand.
            Value::String(text) if text.starts_with("$var:") || text.starts_with("$res:") => {
                self.faults.add(&["`", name, "` is a reference to Windmill ($var: or $res:): send the value itself"]);
            }
            Value::String(text) => return Some(text),
            other => self.faults.add_malformed(&["`", name, "` must be a string, not ", kind(&other)]),
        }
        None
    }

    fn parsed<T>(&mut self, name: &str, value: Value, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.given(name, value)?;
        self.faults.named(name, parse(&text))
    }

    fn token(&mut self, name: &str, value: Value) -> Option<Secret> {
        let text = self.given(name, value)?;
        config::checked_token(&text).map_err(|why| self.faults.add(&["`", name, "` ", why])).ok()
    }

    /// Returns the members of Windmill's `git_repository` resource.
    fn repository(&mut self, value: Value) -> Option<Object> {
        match value {
            Value::Object(object) => return Some(object),
            Value::Null => {}
            other => {
                let kind = kind(&other);
                // A reference is refused as one.
                if !matches!(other, Value::String(_)) || self.text("repository", other).is_some() {
                    self.faults.add_malformed(&["`repository` must be an object, not ", kind]);
                }
            }
        }
        None
    }

    /// Reads one member of `repository`. Members without a meaning here are ignored, since Windmill adds some from time
    /// to time. Returns `None` after a fault.
    fn repository_member(&mut self, name: &str, value: Value) -> Option<()> {
        match (name, value) {
            // Windmill's form sends an empty text if nothing was given.
            ("url" | "branch" | "folder", Value::String(text)) if text.is_empty() => {}
            ("url", value) => self.repository_url("repository.url", value)?,
            ("branch", value) => self.fields.branch = ("repository.branch", self.given("repository.branch", value)?),
            ("folder", value) => self.fields.subdir = ("repository.folder", self.given("repository.folder", value)?),
            ("is_github_app", Value::Bool(true)) => self.faults.add(&[
                "`repository` is opened by Windmill's GitHub app, which works within Windmill only: send a URL and a \
                 token",
            ]),
            _ => {}
        }
        Some(())
    }

    fn repository_url(&mut self, name: &str, value: Value) -> Option<()> {
        let (url, user, token) = self.parsed(name, value, RemoteUrl::parse_with_credentials)?;
        self.fields.remote = Some(self.faults.named(name, permitted(url))?);
        if let Some(user) = user {
            self.fields.git_username = user;
        }
        if let Some(token) = token {
            // A token within a URL may be a reference too. Windmill does not replace it there.
            let token = self.given(URL_TOKEN, Value::String(token.expose().to_owned()))?;
            self.fields.git_token = Some(Secret::new(token));
        }
        Some(())
    }

    /// Refuses what is given twice, even with the same value: the choice between the two would be a guess.
    fn refuse_repeated(&mut self) {
        for (field, member) in [
            ("git_remote_url", "repository.url"),
            ("git_branch", "repository.branch"),
            ("git_subdir", "repository.folder"),
            ("git_token", URL_TOKEN),
        ] {
            if self.fields.is_given(field) && self.fields.is_given(member) {
                self.faults.add(&["`", field, "` and `", member, "` say the same thing twice: send one of them"]);
            }
        }
    }
}
