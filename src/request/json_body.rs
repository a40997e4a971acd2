//! Reads the JSON body of a request into [`Fields`], and names everything that is wrong in it.

use miniserde::json::{self, Value};

use crate::config;
use crate::model::names::{self, Identity, WorkspaceId};
use crate::model::urls::{RemoteScheme, RemoteUrl};
use crate::request::{Faults, Flags};
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
#[derive(Clone, Default)]
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
    pub(super) flags: Flags,
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
        Ok((Value::Object(object), outline)) => Some(Reader::read(object, &outline, faults)),
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
struct Reader<'a> {
    faults: &'a mut Faults,
    fields: Fields,
}

impl<'a> Reader<'a> {
    fn read(object: json::Object, outline: &Outline, faults: &'a mut Faults) -> Fields {
        let mut reader = Self { faults, fields: Fields::default() };
        for (name, value) in reader.members(object, &outline.body, "") {
            reader.field(name, value, &outline.repository);
        }
        reader.refuse_repeated();
        reader.fields
    }

    /// Returns the members in the order of the text, each once. A member that occurs twice is a fault.
    fn members(&mut self, mut object: json::Object, names: &[String], prefix: &str) -> Vec<(String, Value)> {
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            match object.remove(name) {
                Some(value) => members.push((name.clone(), value)),
                None => {
                    let name = names::quoted(&[prefix, name].concat());
                    self.faults.add_malformed(&["the field ", &name, " comes twice"]);
                }
            }
        }
        members
    }

    /// Reads one member of the body. `null` counts as not given, and leaves what `repository` gave.
    fn field(&mut self, name: String, value: Value, repository: &[String]) {
        let is_given = !matches!(value, Value::Null);
        match name.as_str() {
            "repository" => self.repository(value, repository),
            "workspace" => self.fields.workspace = self.parsed(&name, value, WorkspaceId::parse),
            "windmill_token" => self.fields.windmill_token = self.token(&name, value),
            "git_remote_url" => {
                let url = self.parsed(&name, value, RemoteUrl::parse).and_then(|url| self.permitted(&name, url));
                self.fields.remote = url.or(self.fields.remote.take());
            }
            "git_token" => self.fields.git_token = self.token(&name, value).or(self.fields.git_token.take()),
            "git_branch" => self.fields.branch = self.given(&name, value).or(self.fields.branch.take()),
            "git_subdir" => self.fields.subdir = self.given(&name, value).or(self.fields.subdir.take()),
            "git_user_name" => {
                self.fields.user_name = self.parsed(&name, value, |text| Identity::part("user name", text));
            }
            "git_user_email" => {
                self.fields.user_email = self.parsed(&name, value, |text| Identity::part("user email", text));
            }
            "dry_run" => self.fields.flags.dry_run = self.flag(&name, &value) == Some(true),
            "force" => self.fields.flags.force = self.flag(&name, &value) == Some(true),
            "allow_mass_deletion" => self.fields.flags.allow_mass_deletion = self.flag(&name, &value) == Some(true),
            "allow_lost_rights" => self.fields.flags.allow_lost_rights = self.flag(&name, &value) == Some(true),
            "wait" => self.fields.no_wait = self.flag(&name, &value) == Some(false),
            _ => return self.faults.add_malformed(&["the field ", &names::quoted(&name), " is unknown"]),
        }
        if is_given && !OPEN_FIELDS.contains(&name.as_str()) {
            self.fields.trusted_only.push(name);
        }
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
            self.faults.add(&["`", name, "` is empty"]);
            return None;
        }
        Some(text)
    }

    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        match value {
            Value::Null => None,
            // Windmill replaces these before a job runs. If one arrives here, it was sent by hand.
            Value::String(text) if text.starts_with("$var:") || text.starts_with("$res:") => {
                self.faults.add(&["`", name, "` is a reference to Windmill ($var: or $res:): send the value itself"]);
                None
            }
            Value::String(text) => Some(text),
            other => {
                self.faults.add_malformed(&["`", name, "` must be a string, not ", kind(&other)]);
                None
            }
        }
    }

    fn parsed<T>(&mut self, name: &str, value: Value, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.given(name, value)?;
        self.faults.named(name, parse(&text))
    }

    fn token(&mut self, name: &str, value: Value) -> Option<Secret> {
        let text = self.given(name, value)?;
        config::checked_token(&text).map_err(|why| self.faults.add(&["`", name, "` ", why])).ok()
    }

    /// Refuses a `file:` URL: a caller must not write into a folder of this machine.
    fn permitted(&mut self, name: &str, url: RemoteUrl) -> Option<RemoteUrl> {
        if url.scheme() == RemoteScheme::File {
            self.faults.add(&["`", name, "`: a request cannot name a file: remote"]);
            return None;
        }
        Some(url)
    }

    /// Reads Windmill's `git_repository` resource. Members without a meaning here are ignored, since Windmill adds some
    /// from time to time.
    fn repository(&mut self, value: Value, names: &[String]) {
        let object = match value {
            Value::Object(object) => object,
            Value::Null => return,
            other => {
                let kind = kind(&other);
                // A reference is refused as one.
                if !matches!(other, Value::String(_)) || self.text("repository", other).is_some() {
                    self.faults.add_malformed(&["`repository` must be an object, not ", kind]);
                }
                return;
            }
        };
        for (name, value) in self.members(object, names, "repository.") {
            let full = ["repository.", &name].concat();
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                // Windmill's form sends an empty text if nothing was given.
                ("url" | "branch" | "folder", Value::String(text)) if text.is_empty() => {}
                ("url", value) => self.repository_url(&full, value),
                ("branch", value) => self.fields.branch = self.given(&full, value),
                ("folder", value) => self.fields.subdir = self.given(&full, value),
                ("is_github_app", Value::Bool(true)) => self.faults.add(&[
                    "`repository` is opened by Windmill's GitHub app, which works within Windmill only: send a URL and \
                     a token",
                ]),
                _ => {}
            }
        }
    }

    fn repository_url(&mut self, name: &str, value: Value) {
        let Some((url, user, token)) = self.parsed(name, value, RemoteUrl::parse_with_credentials) else { return };
        self.fields.remote = self.permitted(name, url);
        self.fields.git_username = user;
        if let Some(token) = token {
            // A token within a URL may be a reference too. Windmill does not replace it there.
            self.fields.git_token = self.given(URL_TOKEN, Value::String(token.expose().to_owned())).map(Secret::new);
        }
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
