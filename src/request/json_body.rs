//! Reads the JSON body of a request into [`Fields`], and names everything that is wrong in it.

use miniserde::json::{self, Value};

use crate::config;
use crate::model::names::{self, Identity, NameError, WorkspaceId};
use crate::model::urls::{RemoteScheme, RemoteUrl};
use crate::request::{Faults, Purpose};
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

/// What a request brings. The settings decide everything that is absent.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) workspace: Option<WorkspaceId>,
    pub(super) windmill_token: Option<Secret>,
    pub(super) remote: Option<RemoteUrl>,
    pub(super) git_username: Option<String>,
    pub(super) git_token: Option<Secret>,
    /// A template.
    pub(super) branch: Option<String>,
    /// A template.
    pub(super) subdir: Option<String>,
    pub(super) user_name: Option<String>,
    pub(super) user_email: Option<String>,
    pub(super) dry_run: bool,
    pub(super) force: bool,
    pub(super) allow_mass_deletion: bool,
    pub(super) allow_lost_rights: bool,
    pub(super) purpose: Purpose,
    pub(super) no_wait: bool,
    /// The names of the fields that were given, refused or not: a refused field must not count as absent.
    pub(super) given: Vec<String>,
    /// The given fields that need `SYNC_API_TOKEN`.
    pub(super) trusted_only: Vec<String>,
}

impl Fields {
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    /// Returns which of two names the value came with, or the settings' name if it came with neither.
    pub(super) fn source(&self, field: &'static str, member: &'static str, variable: &'static str) -> &'static str {
        [field, member].into_iter().find(|name| self.is_given(name)).unwrap_or(variable)
    }
}

/// Reads the fields of a body. If the body is not a JSON object, this is the only fault, and there are no fields.
pub(super) fn read(body: &[u8], faults: &mut Faults) -> Option<Fields> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Some(Fields::default());
    }
    match parse(body) {
        Ok((Value::Object(object), outline)) => Some(Reader(faults).fields(object, &outline)),
        Ok((other, _)) => {
            faults.add(&["the body is ", kind(&other), ", not a JSON object"]);
            None
        }
        Err(fault) => {
            faults.add(&["the body ", fault]);
            None
        }
    }
}

fn parse(body: &[u8]) -> Result<(Value, Outline), &'static str> {
    if body.len() > BODY_BYTES_MAX {
        return Err("has more than 64 KiB");
    }
    let text = std::str::from_utf8(body).map_err(|_| "is not UTF-8")?;
    let outline = Outline::of(text)?;
    let value = json::from_str(text).map_err(|_| "is not JSON")?;
    Ok((value, outline))
}

/// What the parser does not report: the names of the members in their order, including those that occur twice.
#[derive(Default)]
struct Outline {
    /// The members of the outermost object.
    body: Vec<String>,
    /// The members of its `repository`.
    repository: Vec<String>,
}

impl Outline {
    /// Reads brackets, commas, colons and strings. The parser decides whether the rest is JSON.
    fn of(text: &str) -> Result<Self, &'static str> {
        let mut outline = Self::default();
        let (mut depth, mut commas, mut is_escaped) = (0_usize, 0_usize, false);
        let (mut string_begin, mut last_string) = (None, "");
        for (index, byte) in text.bytes().enumerate() {
            match (byte, string_begin) {
                (_, Some(_)) if is_escaped => is_escaped = false,
                (b'\\', Some(_)) => is_escaped = true,
                (b'"', Some(begin)) => (last_string, string_begin) = (&text[begin..=index], None),
                (_, Some(_)) => {}
                (b'"', None) => string_begin = Some(index),
                (b'[' | b'{', None) => depth += 1,
                (b']' | b'}', None) => depth = depth.saturating_sub(1),
                (b',', None) => commas += 1,
                (b':', None) => outline.add(depth, last_string),
                _ => {}
            }
            if depth > DEPTH_MAX {
                return Err("is nested too deeply");
            }
            if commas >= MEMBERS_MAX {
                return Err("has more than 256 values");
            }
        }
        Ok(outline)
    }

    fn add(&mut self, depth: usize, name: &str) {
        let is_in_repository = depth == 2 && self.body.last().is_some_and(|name| name == "repository");
        let Ok(name) = json::from_str(name) else { return };
        match depth {
            1 => self.body.push(name),
            2 if is_in_repository => self.repository.push(name),
            _ => {}
        }
    }
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

/// Continues after a fault, so that all faults are named.
struct Reader<'a>(&'a mut Faults);

impl Reader<'_> {
    fn fields(&mut self, object: json::Object, outline: &Outline) -> Fields {
        let mut fields = Fields::default();
        let mut repository = None;
        for (name, value) in self.members(object, &outline.body, "") {
            let is_given = !matches!(value, Value::Null);
            let is_known = match name.as_str() {
                "repository" => {
                    repository = self.repository(value, &outline.repository);
                    true
                }
                "dry_run" => self.flag(&name, &value, &mut fields.dry_run),
                "force" => self.flag(&name, &value, &mut fields.force),
                "allow_lost_rights" => self.flag(&name, &value, &mut fields.allow_lost_rights),
                "allow_mass_deletion" => self.flag(&name, &value, &mut fields.allow_mass_deletion),
                "wait" => {
                    let mut wait = true;
                    self.flag(&name, &value, &mut wait);
                    fields.no_wait = !wait;
                    true
                }
                _ => self.text_field(&name, value, &mut fields),
            };
            if !is_known {
                self.0.add_malformed(&["the field ", &names::quoted(&name), " is unknown"]);
            } else if is_given && !OPEN_FIELDS.contains(&name.as_str()) {
                fields.trusted_only.push(name);
            }
        }
        if let Some(repository) = repository {
            self.merge(repository, &mut fields);
        }
        fields
    }

    /// Returns the members in the order of the text, each once. A member that occurs twice is a fault.
    fn members(&mut self, mut object: json::Object, names: &[String], prefix: &str) -> Vec<(String, Value)> {
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            match object.remove(name) {
                Some(value) => members.push((name.clone(), value)),
                None => self.0.add_malformed(&["the field ", &names::quoted(&[prefix, name].concat()), " comes twice"]),
            }
        }
        members
    }

    /// Sets the flag, unless the value is null or of a wrong type. Returns that the field is known.
    fn flag(&mut self, name: &str, value: &Value, flag: &mut bool) -> bool {
        match value {
            Value::Bool(value) => *flag = *value,
            Value::Null => {}
            other => self.0.add_malformed(&["`", name, "` must be true or false, not ", kind(other)]),
        }
        true
    }

    /// Sets a text field. Returns whether the field is known.
    fn text_field(&mut self, name: &str, value: Value, fields: &mut Fields) -> bool {
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
            return false;
        }
        if !matches!(value, Value::Null) {
            fields.given.push(name.to_owned());
        }
        match self.text(name, value) {
            None => {}
            Some(text) if text.is_empty() && name != "git_subdir" => self.0.add(&["`", name, "` is empty"]),
            Some(text) => self.set_text(name, text, fields),
        }
        true
    }

    fn set_text(&mut self, name: &str, text: String, fields: &mut Fields) {
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

    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        match value {
            Value::Null => None,
            // Windmill replaces these before a job runs. If one arrives here, it was sent by hand.
            Value::String(text) if text.starts_with("$var:") || text.starts_with("$res:") => {
                self.0.add(&["`", name, "` is a reference to Windmill ($var: or $res:): send the value itself"]);
                None
            }
            Value::String(text) => Some(text),
            other => {
                self.0.add_malformed(&["`", name, "` must be a string, not ", kind(&other)]);
                None
            }
        }
    }

    fn named<T>(&mut self, name: &str, parsed: Result<T, NameError>) -> Option<T> {
        self.0.named(name, parsed)
    }

    fn token(&mut self, name: &str, text: &str) -> Option<Secret> {
        config::checked_token(text).map_err(|why| self.0.add(&["`", name, "` ", why])).ok()
    }

    /// Refuses a `file:` URL: a caller must not write into a folder of this machine.
    fn permitted(&mut self, name: &str, url: RemoteUrl) -> Option<RemoteUrl> {
        if url.scheme() == RemoteScheme::File {
            self.0.add(&["`", name, "`: a request cannot name a file: remote"]);
            return None;
        }
        Some(url)
    }

    /// Reads Windmill's `git_repository` resource.
    fn repository(&mut self, value: Value, names: &[String]) -> Option<Fields> {
        let object = match value {
            Value::Object(object) => object,
            Value::Null => return None,
            Value::String(_) => {
                self.text("repository", value)?;
                self.0.add_malformed(&["`repository` must be an object, not a string"]);
                return None;
            }
            other => {
                self.0.add_malformed(&["`repository` must be an object, not ", kind(&other)]);
                return None;
            }
        };
        let mut fields = Fields::default();
        for (name, value) in self.members(object, names, "repository.") {
            self.repository_member(&name, value, &mut fields);
        }
        Some(fields)
    }

    /// Reads a member of the resource. Members without a meaning here are ignored, since Windmill adds some from time
    /// to time.
    fn repository_member(&mut self, name: &str, value: Value, fields: &mut Fields) {
        let full = ["repository.", name].concat();
        match (name, value) {
            // Windmill's form sends an empty text if nothing was given.
            (_, Value::Null) => return,
            ("url" | "branch" | "folder", Value::String(text)) if text.is_empty() => return,
            ("url", value) => self.repository_url(value, fields),
            ("branch", value) => fields.branch = self.text(&full, value),
            ("folder", value) => fields.subdir = self.text(&full, value),
            ("is_github_app", Value::Bool(true)) => self.0.add(&[
                "`repository` is opened by Windmill's GitHub app, which works within Windmill only: send a URL and a \
                 token",
            ]),
            _ => return,
        }
        fields.given.push(full);
    }

    fn repository_url(&mut self, value: Value, fields: &mut Fields) {
        const NAME: &str = "repository.url";
        let Some(text) = self.text(NAME, value) else { return };
        let Some((url, user, token)) = self.named(NAME, RemoteUrl::parse_with_credentials(&text)) else { return };
        fields.remote = self.permitted(NAME, url);
        fields.git_username = user;
        if let Some(token) = token {
            fields.given.push(URL_TOKEN.to_owned());
            // A token within a URL may be a reference too. Windmill does not replace it there.
            fields.git_token = self.text(URL_TOKEN, Value::String(token.expose().to_owned())).map(Secret::new);
        }
    }

    /// Merges the fields of the resource. Nothing may be given twice, not even with the same value: the choice between
    /// the two would be a guess.
    fn merge(&mut self, repository: Fields, fields: &mut Fields) {
        for (field, member) in [
            ("git_remote_url", "repository.url"),
            ("git_branch", "repository.branch"),
            ("git_subdir", "repository.folder"),
            ("git_token", URL_TOKEN),
        ] {
            if fields.is_given(field) && repository.is_given(member) {
                self.0.add(&["`", field, "` and `", member, "` say the same thing twice: send one of them"]);
            }
        }
        fields.remote = fields.remote.take().or(repository.remote);
        fields.branch = fields.branch.take().or(repository.branch);
        fields.subdir = fields.subdir.take().or(repository.subdir);
        fields.git_token = fields.git_token.take().or(repository.git_token);
        fields.git_username = repository.git_username;
        fields.given.extend(repository.given);
    }
}
