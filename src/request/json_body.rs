//! Reads the JSON body of a request into the [`Fields`] of its draft, and names everything that is wrong in it.

use miniserde::json::{Object, Value, from_str};

use crate::config::{self, Config};
use crate::model::{Identity, RemoteScheme, RemoteUrl, WorkspaceId, names};
use crate::request::{Draft, Flags};
use crate::util::{Limits, Secret, json};

/// The deepest nesting of a body. A resource is flat. Deeper values would use stack when they are parsed and dropped.
pub(super) const DEPTH_MAX: usize = 32;
/// The most values of a body. There are 14 fields, and a resource has some more. With thousands of unknown fields, the
/// error would have megabytes.
pub(super) const MEMBERS_MAX: usize = 256;

/// The beginning of the name of a member of `repository`.
const MEMBER: &str = "repository.";
/// The name in [`Fields::given`] of a token within a resource's URL.
pub(super) const URL_TOKEN: &str = "the token in repository.url";

/// The fields that a request may have if the service has no `SYNC_API_TOKEN`. They only choose which of the configured
/// backups is made, and how.
const OPEN_FIELDS: [&str; 5] = ["workspace", "windmill_token", "dry_run", "force", "wait"];

/// The fields that are true or false. They do not change what is backed up, or where.
const FLAGS: [&str; 5] = ["dry_run", "force", "allow_mass_deletion", "allow_lost_rights", "wait"];

/// The values that a request asks for. Values that its body lacks come from the settings, except secrets:
/// [`super::resolve`] decides whether the configured one may be used.
#[derive(Clone)]
pub(super) struct Fields {
    pub(super) workspace: Option<WorkspaceId>,
    pub(super) windmill_token: Option<Secret>,
    pub(super) remote: Option<RemoteUrl>,
    pub(super) git_username: String,
    pub(super) git_token: Option<Secret>,
    /// A template, with the name of its setting or field.
    pub(super) branch: (&'static str, String),
    /// A template, with the name of its setting or field.
    pub(super) subdir: (&'static str, String),
    pub(super) user_name: String,
    pub(super) user_email: String,
    pub(super) flags: Flags,
    pub(super) wait: bool,
    /// The names of the given fields, including refused ones, because a refused field must not count as absent.
    given: Vec<String>,
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
            wait: true,
            given: Vec::new(),
        }
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    /// Returns the given fields that need `SYNC_API_TOKEN`.
    pub(super) fn trusted_only(&self) -> Vec<&str> {
        let fields = self.given.iter().map(String::as_str).filter(|name| !name.contains(MEMBER));
        fields.filter(|name| !OPEN_FIELDS.contains(name)).collect()
    }

    /// Whether only flags are given.
    pub(super) fn are_flags(&self) -> bool {
        self.given.iter().all(|name| FLAGS.contains(&name.as_str()))
    }
}

/// Returns the members of a body, and its text.
fn parse(body: &[u8]) -> Result<(Object, &str), &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "is not UTF-8")?;
    let limits = Limits { depth: DEPTH_MAX, values: MEMBERS_MAX, containers: MEMBERS_MAX };
    if let Some(fault) = json::outline_fault(text, limits) {
        return Err(fault);
    }
    match from_str(text) {
        Ok(Value::Object(object)) => Ok((object, text)),
        Ok(_) => Err("is not a JSON object"),
        Err(_) => Err("is not JSON"),
    }
}

/// Returns the names of all members in a JSON text, each with its depth, in their order. The parser loses the order,
/// and one of two members with the same name.
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

/// Refuses a `file:` URL: a caller must not write into a folder of this machine.
fn permitted(url: RemoteUrl) -> Result<RemoteUrl, String> {
    if url.scheme() == RemoteScheme::File { Err("a request cannot name a file: remote".to_owned()) } else { Ok(url) }
}

/// Each method adds its faults to those of the draft and continues, so that all faults are named.
impl Draft<'_> {
    /// Reads the members of a body and of its `repository` in their order. Returns `None` if the body is not a JSON
    /// object, which then is the only fault.
    pub(super) fn read(&mut self, body: &[u8]) -> Option<()> {
        let body = body.trim_ascii();
        if body.is_empty() {
            return Some(());
        }
        let (mut object, text) = parse(body).map_err(|why| self.faults.add(&["the body ", why])).ok()?;
        let mut repository: Option<Object> = None;
        for (depth, name) in members(text) {
            let (name, value) = match (depth, &mut repository) {
                (1, _) => {
                    repository = None;
                    let value = object.remove(&name);
                    (name, value)
                }
                (2, Some(members)) => {
                    // Windmill's form sends an empty text for an empty field.
                    let is_empty = matches!(members.get(&name), Some(Value::String(text)) if text.is_empty());
                    let value = members.remove(&name).map(|value| if is_empty { Value::Null } else { value });
                    ([MEMBER, &name].concat(), value)
                }
                _ => continue,
            };
            // A member that was already read occurs twice.
            let Some(value) = value else {
                self.faults.add_malformed(&["the field ", &names::quoted(&name), " comes twice"]);
                continue;
            };
            if !matches!(value, Value::Null) {
                self.fields.given.push(name.clone());
            }
            match value {
                Value::Object(members) if name == "repository" => repository = Some(members),
                // A field of the body cannot replace a member of `repository`.
                _ if depth == 1 && name.starts_with(MEMBER) => self.unknown(&name),
                value => _ = self.field(&name, value),
            }
        }
        self.refuse_repeated();
        Some(())
    }

    /// Reads one field. `null` counts as not given, and keeps the value of `repository`. Returns `None` if there is no
    /// value.
    fn field(&mut self, name: &str, value: Value) -> Option<()> {
        match name {
            "workspace" => self.fields.workspace = Some(self.parsed(name, value, WorkspaceId::parse)?),
            "windmill_token" => self.fields.windmill_token = Some(self.token(name, value)?),
            "git_remote_url" => {
                let url = self.parsed(name, value, |text| permitted(RemoteUrl::parse(text)?))?;
                self.fields.remote = Some(url);
            }
            "git_token" => self.fields.git_token = Some(self.token(name, value)?),
            "git_branch" => self.fields.branch = ("git_branch", self.text(name, value)?),
            "git_subdir" => self.fields.subdir = ("git_subdir", self.text(name, value)?),
            "git_user_name" => self.fields.user_name = self.parsed(name, value, Identity::parse_name)?,
            "git_user_email" => self.fields.user_email = self.parsed(name, value, Identity::parse_email)?,
            "dry_run" => self.fields.flags.dry_run = self.flag(name, &value)?,
            "force" => self.fields.flags.force = self.flag(name, &value)?,
            "allow_mass_deletion" => self.fields.flags.allow_mass_deletion = self.flag(name, &value)?,
            "allow_lost_rights" => self.fields.flags.allow_lost_rights = self.flag(name, &value)?,
            "wait" => self.fields.wait = self.flag(name, &value)?,
            // Windmill's `git_repository` resource.
            "repository" if matches!(value, Value::Null) => {}
            "repository" => self
                .faults
                .add_malformed(&["`repository` must be an object: the resource itself, not a reference to it ($res:)"]),
            "repository.url" => self.repository_url(name, value)?,
            "repository.branch" => self.fields.branch = ("repository.branch", self.text(name, value)?),
            "repository.folder" => self.fields.subdir = ("repository.folder", self.text(name, value)?),
            "repository.is_github_app" if matches!(value, Value::Bool(true)) => self.faults.add(&[
                "`repository` is opened by Windmill's GitHub app, which works within Windmill only: send a URL and a \
                 token",
            ]),
            // Members without a meaning here are ignored, since Windmill adds some from time to time.
            _ if name.starts_with(MEMBER) => {}
            _ => self.unknown(name),
        }
        Some(())
    }

    fn unknown(&mut self, name: &str) {
        self.faults.add_malformed(&["the field ", &names::quoted(name), " is unknown"]);
    }

    fn flag(&mut self, name: &str, value: &Value) -> Option<bool> {
        match value {
            Value::Bool(value) => return Some(*value),
            Value::Null => {}
            _ => self.faults.add_malformed(&["`", name, "` must be true or false"]),
        }
        None
    }

    /// Returns the text of a field. Only the folder may be empty.
    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        match value {
            Value::Null => {}
            // Windmill replaces references before a job runs. One that arrives here was sent by hand.
            Value::String(text) if text.starts_with("$var:") || text.starts_with("$res:") => {
                self.faults.add(&["`", name, "` is a reference to Windmill ($var: or $res:): send the value itself"]);
            }
            Value::String(text) if text.is_empty() && name != "git_subdir" => {
                self.faults.add(&["`", name, "` is empty"]);
            }
            Value::String(text) => return Some(text),
            _ => self.faults.add_malformed(&["`", name, "` must be a string"]),
        }
        None
    }

    fn parsed<T>(&mut self, name: &str, value: Value, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name, value)?;
        self.faults.named(name, parse(&text))
    }

    fn token(&mut self, name: &str, value: Value) -> Option<Secret> {
        let text = self.text(name, value)?;
        let checked = if name == "windmill_token" { config::checked_windmill_token } else { config::checked_token };
        checked(&text).map_err(|why| self.faults.add(&["`", name, "` ", why])).ok()
    }

    fn repository_url(&mut self, name: &str, value: Value) -> Option<()> {
        let (url, user, token) = self.parsed(name, value, RemoteUrl::parse_with_credentials)?;
        self.fields.remote = Some(self.faults.named(name, permitted(url))?);
        if let Some(user) = user {
            self.fields.git_username = user;
        }
        if let Some(token) = token {
            self.fields.given.push(URL_TOKEN.to_owned());
            // The URL may be a reference too, which Windmill does not replace there.
            let token = self.text(URL_TOKEN, Value::String(token.expose().to_owned()))?;
            self.fields.git_token = Some(Secret::new(token));
        }
        Some(())
    }

    /// Refuses values that are given twice, even if they are equal, because the choice between them would be a guess.
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
