//! The client of Windmill's API: the server's version, the token's user, and the content of a workspace.

use std::io::{self, Read as _};
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use miniserde::Deserialize;
use miniserde::json::{Array, Object, Value};
use ureq::http::HeaderMap;

use crate::model::{BackupError, BaseUrl, Code, Result, TokenUser, WorkspaceId};
use crate::net::http_client::{self, Pending};
use crate::process::output;
use crate::util::{self, Deadline, Limits, Redactor, Retry, Secret, both, hash, percent, retry};
use crate::windmill::{SideAnswers, Snapshot, snapshot};

/// The time limit for the answer to one small question.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// The largest answer to most questions. An item includes its whole source.
const ANSWER_BYTES_MAX: u64 = 2 << 20;
/// The largest shared UI, which Windmill keeps as one JSON document. The parsed value takes the same amount of memory
/// in addition.
const SHARED_UI_BYTES_MAX: u64 = 8 << 20;
/// The most bytes that are read of an answer with a status other than 200.
const SHORT_BYTES_MAX: u64 = 16 << 10;
/// The limits for parsing an answer. A user or a workspace in a list has about ten values, of which at most one is a
/// list or an object. In hostile answers, objects with one member take the most memory: 700 bytes each.
pub(super) const ANSWER_LIMITS: Limits = Limits { depth: 32, values: 64 << 10, containers: 12 << 10 };
/// The most bytes of an answer that is not Windmill's in a message.
const ECHOED_BYTES_MAX: usize = 4 << 10;
/// The most characters of a redirect's target in a message.
const LOCATION_CHARS_MAX: usize = 200;
const VERSION: &str = "api/version";
/// The export as a tar file, which servers of all versions make. A query is appended.
const EXPORT: &str = "workspaces/tarball?archive_type=tar";

/// The trailer with the [`fingerprint`] of the key that encrypts the secrets of a commit.
pub const KEY_TRAILER: &str = "Windmill-Key-Fingerprint";

/// Returns that trailer as a line.
pub fn key_trailer(key: &Secret) -> String {
    [KEY_TRAILER, ": ", &fingerprint(key), "\n"].concat()
}

/// Returns a text that identifies a key and does not reveal it: `sha256:` and the digest.
pub fn fingerprint(key: &Secret) -> String {
    ["sha256:", &hash::hex(&hash::hash_of(&[key.expose().as_bytes()]))].concat()
}

/// What Windmill reports about itself and about the token.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Name and address of the token's user, if Windmill gave both.
    pub user: Option<(String, String)>,
    /// The server's version, such as `CE v1.491.5`.
    pub server_version: Option<String>,
    /// Whether the token sees everything in the workspace.
    pub is_admin: bool,
    /// The workspaces that the token sees, if they were asked for and the token may list them.
    pub workspaces: Option<Vec<String>>,
}

/// What the server reports without a token.
pub struct ServerInfo {
    /// The server's version, such as `CE v1.491.5`, or `None` if the server does not give it.
    pub version: Option<String>,
    /// The time of the server's clock, to the second.
    pub date: Option<SystemTime>,
}

/// One workspace of one Windmill, with one token.
pub struct Windmill<'a> {
    /// The server's address.
    pub base_url: &'a BaseUrl,
    /// The workspace.
    pub workspace: &'a WorkspaceId,
    /// The token. An empty one is not sent.
    pub token: &'a Secret,
    /// Additional headers for each question. Each value is a secret.
    pub headers: &'a [(String, Secret)],
    /// The deadline of the run.
    pub deadline: &'a Deadline,
    /// The HTTP client. It keeps the certificates that it has read.
    pub(super) agent: ureq::Agent,
}

fn living_workspace(listed: &Value) -> Option<WorkspaceId> {
    match listed {
        Value::Object(listed) if !is_true(listed, "deleted") => WorkspaceId::parse(text(listed, "id")?).ok(),
        _ => None,
    }
}

struct Answer {
    /// The path of the question.
    path: String,
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// Returns which attempt may help after this status. Servers that are overloaded or being replaced become available
    /// again.
    fn retry(&self) -> Retry {
        // The header may also be a date, which is rare. Our own pause is used then.
        let asked =
            || header(&self.headers, "retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
        if http_client::is_passing(self.status) { Retry::AfterPause(asked()) } else { Retry::Never }
    }

    /// Returns the JSON of an answer with status 200.
    fn json<T: Deserialize>(&self) -> Option<T> {
        if self.status == 200 { util::json::parse(&self.body, ANSWER_LIMITS) } else { None }
    }

    /// Returns a field of this JSON, if it is an object with such a text.
    fn text(&self, name: &str) -> Option<String> {
        text(&self.json::<Object>()?, name).map(str::to_owned)
    }
}

impl<'a> Windmill<'a> {
    /// Makes the client. `environment` may name proxies and certificates.
    pub fn new(
        base_url: &'a BaseUrl,
        workspace: &'a WorkspaceId,
        token: &'a Secret,
        headers: &'a [(String, Secret)],
        deadline: &'a Deadline,
        environment: &[(String, String)],
    ) -> Self {
        let agent = client(base_url, token, headers, ANSWER_TIME_MAX, environment);
        Self { base_url, workspace, token, headers, deadline, agent }
    }

    /// Asks for the server's version and time.
    ///
    /// # Errors
    /// [`BackupError`] if the server cannot be reached, or is not Windmill.
    pub fn greet(&self) -> Result<ServerInfo> {
        let answer = self.ask(VERSION)?;
        let is_html = is_page(&answer.headers) || answer.body.contains('<');
        if answer.status >= 500 || answer.status == 200 && is_html {
            return Err(self.strange_answer(&answer));
        }
        let is_version = answer.status == 200 && answer.body.len() < 100;
        let version = is_version.then(|| self.printable(answer.body.trim()));
        let date = header(&answer.headers, "date").and_then(|value| httpdate::parse_http_date(value).ok());
        Ok(ServerInfo { version, date })
    }

    /// Asks who the token's user in the workspace is. With `list_workspaces`, it also asks which workspaces the token
    /// sees.
    ///
    /// # Errors
    /// [`BackupError`] if the server cannot be reached, refuses the token, or has no such workspace.
    pub fn account(&self, list_workspaces: bool) -> Result<Account> {
        // Both are asked at once, each over its own connection, so that they take as long as the slower one.
        let (server, user) = both("greet", || self.greet(), || self.user());
        let (server_version, user) = (server?.version, user?);
        let field = |name: &str| text(&user, name).map(str::to_owned);
        let visible = || Some(self.workspaces().ok()?.iter().map(WorkspaceId::to_string).collect());
        Ok(Account {
            user: field("username").zip(field("email")),
            server_version,
            is_admin: is_true(&user, "is_admin"),
            workspaces: if list_workspaces { visible() } else { None },
        })
    }

    /// Asks only who the token's user in the workspace is. It asks again after a pause if the server may become
    /// available again.
    ///
    /// # Errors
    /// [`BackupError`] if the server cannot be reached, refuses the token, or has no such workspace.
    pub fn token_user(&self) -> Result<TokenUser> {
        let user = retry::patiently(self.deadline, || self.user())?;
        let name = text(&user, "username").map(|name| self.printable(name)).unwrap_or_default();
        Ok(TokenUser { name, admin: is_true(&user, "is_admin") })
    }

    fn user(&self) -> Result<Object> {
        let who = self.ask(&self.path("users/whoami"))?;
        let user: Object = match (who.status, who.json()) {
            (_, Some(user)) => user,
            (401 | 403, _) => return Err(self.refused(&who)),
            (404, _) => return Err(self.no_such_workspace()),
            _ => return Err(self.strange_answer(&who)),
        };
        // A superadmin has access even to workspaces that do not exist, and sees them empty.
        if is_true(&user, "is_super_admin") && self.is_known_to_be_missing()? {
            return Err(self.no_such_workspace());
        }
        Ok(user)
    }

    /// Downloads the export with the query of a [`Plan`](crate::windmill::wmill_yaml::Plan), and the related answers,
    /// into `folder`.
    ///
    /// # Errors
    /// [`BackupError`] if the server cannot be reached, refuses the token, or has no such workspace, or if the answer
    /// is not a complete export.
    pub fn snapshot(&self, query: &str, folder: &Path) -> Result<Snapshot> {
        let left = self.deadline.remaining()?;
        let path = self.path(EXPORT);
        let (agent, url) = (self.agent.clone(), self.base_url.join(&[&path, "&", query].concat()));
        let export = start(move || agent.get(&url).config().timeout_global(Some(left)).build().call())?;
        // The server needs much longer for the export.
        let sides = SideAnswers {
            own_items: self.side("workspaces/list_ws_specific", ANSWER_BYTES_MAX)?,
            file_types: self.side("resources/file_resource_type_to_file_ext_map", ANSWER_BYTES_MAX)?,
            shared_ui: self.side("shared_ui/get", SHARED_UI_BYTES_MAX)?,
        };
        let lost = |error| pull_failed(self.unreachable(&path, &error));
        let response = export.wait(self.deadline)?.map_err(lost)?;
        if response.status() != 200 || is_page(response.headers()) {
            let answer = read_answer(path.clone(), response, ANSWER_BYTES_MAX).map_err(lost)?;
            return Err(match self.not_redirected(answer)? {
                answer if answer.body.contains("no rows returned") => self.no_such_workspace(),
                answer => pull_failed(self.strange_answer(&answer)),
            });
        }
        let (folder, query) = (folder.to_owned(), query.to_owned());
        let taken = start(move || Snapshot::take(response.into_body().into_reader(), folder, &query, sides))?;
        taken.wait(self.deadline)?.map_err(|error| self.no_snapshot(error))
    }

    /// Asks a question that wmill asks in addition to the export. An answer with a status other than 200 and 404 is an
    /// error, because wmill would then delete files and exit with 0.
    fn side(&self, path: &str, bytes_max: u64) -> Result<snapshot::Answer> {
        let answer = self.ask_by(&self.path(path), bytes_max, None)?;
        match answer.status {
            // A server that does not know the question answers 404. wmill does not ask such a server.
            200 => Ok(Some(Arc::new(answer.body))),
            404 => Ok(None),
            _ => Err(self.answered(Code::PullFailed, &answer, "")),
        }
    }

    fn no_snapshot(&self, error: io::Error) -> BackupError {
        use io::ErrorKind::{
            FileTooLarge, InvalidInput, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        // If the time of the run is over, the export is cut off.
        if let Err(expired) = self.deadline.remaining() {
            return expired.into();
        }
        // Another export may be whole, but no smaller, and a malformed answer stays malformed.
        let retry = match error.kind() {
            PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull => return error.into(),
            FileTooLarge | InvalidInput => Retry::Never,
            _ => Retry::AfterPause(None),
        };
        let message =
            format!("cannot take workspace `{}` out of Windmill at {}: {error}", self.workspace, self.base_url);
        BackupError { code: Code::PullFailed, message, retry }
    }

    fn is_known_to_be_missing(&self) -> Result<bool> {
        let body = format!("{{\"id\":\"{}\"}}", self.workspace);
        let answer = self.ask_by("api/workspaces/exists", ANSWER_BYTES_MAX, Some(body))?;
        Ok(answer.status == 200 && answer.body.trim() == "false")
    }

    /// Returns the workspaces that the token sees and that are not archived.
    ///
    /// # Errors
    /// [`BackupError`]. A token that is bound to one workspace may not list workspaces.
    pub fn workspaces(&self) -> Result<Vec<WorkspaceId>> {
        let answer = self.ask("api/workspaces/list")?;
        match (answer.status, answer.json::<Array>()) {
            (_, Some(list)) => Ok(list.iter().filter_map(living_workspace).collect()),
            (401 | 403, _) => {
                let message = format!(
                    "Windmill at {} does not list its workspaces for this token (status {}): it is wrong or expired, or \
                     bound to one workspace; WINDMILL_WORKSPACE=* needs one that is not",
                    self.base_url, answer.status
                );
                Err(BackupError::new(Code::WindmillUnauthorized, message))
            }
            _ => Err(self.strange_answer(&answer)),
        }
    }

    /// Asks, once, for something in the workspace that a sync does not require. Returns `None` if the answer is not such
    /// JSON, or beyond the limits.
    ///
    /// # Errors
    /// Returns why there is no answer. [`BackupError::retry`] says whether that may pass.
    pub fn ask_for_names<T: Deserialize>(&self, path: &str, limits: Limits) -> Result<Option<T>> {
        let path = self.path(path);
        let unknown = |why: &str| log::debug!("Windmill does not tell `{path}` ({why}), so commits do without");
        let answer = self.final_answer(&path).inspect_err(|error| unknown(error.code.as_str()))?;
        let body = Some(&answer.body).filter(|_| answer.status == 200);
        let value = body.and_then(|body| util::json::parse(&self.redactor().redact(body), limits));
        if value.is_none() {
            unknown(&format!("status {}", answer.status));
        }
        Ok(value)
    }

    /// Returns the path of a question about the workspace.
    fn path(&self, path: &str) -> String {
        format!("api/w/{}/{path}", self.workspace)
    }

    fn ask(&self, path: &str) -> Result<Answer> {
        self.ask_by(path, ANSWER_BYTES_MAX, None)
    }

    /// Asks. Returns an error for a status that may pass, such as that of an overloaded server.
    fn final_answer(&self, path: &str) -> Result<Answer> {
        let answer = self.ask(path)?;
        let is_final = answer.retry() == Retry::Never;
        if is_final { Ok(answer) } else { Err(self.answered(Code::WindmillUnreachable, &answer, "")) }
    }

    /// Asks, with a POST if there is a body. The answer has at most `bytes_max` bytes.
    fn ask_by(&self, path: &str, bytes_max: u64, body: Option<String>) -> Result<Answer> {
        self.deadline.remaining()?;
        let (agent, url, asked) = (self.agent.clone(), self.base_url.join(path), path.to_owned());
        let answer = start(move || {
            let response = match body {
                None => agent.get(&url).call(),
                Some(body) => agent.post(&url).content_type("application/json").send(body),
            };
            read_answer(asked, response?, bytes_max)
        })?;
        self.not_redirected(answer.wait(self.deadline)?.map_err(|error| self.unreachable(path, &error))?)
    }

    /// Returns an error for a redirect. A redirect is not followed. The message names its target, because the setting
    /// should have this address.
    fn not_redirected(&self, answer: Answer) -> Result<Answer> {
        if !(300..400).contains(&answer.status) {
            return Ok(answer);
        }
        let asked = answer.path.split('?').next().unwrap_or_default();
        let target = header(&answer.headers, "location").unwrap_or("no place that it names");
        let base = target.split('?').next().and_then(|target| target.strip_suffix(asked)).unwrap_or(target);
        let base: String = self.printable(base.trim_end_matches('/')).chars().take(LOCATION_CHARS_MAX).collect();
        let more = format!(
            ", a redirect to {base}, which is not followed since the token would go along: set WINDMILL_BASE_URL to that if \
             it is your Windmill"
        );
        Err(self.answered(Code::WindmillUnreachable, &answer, &more))
    }

    fn unreachable(&self, path: &str, error: &ureq::Error) -> BackupError {
        // If the time of the run is over, the error is a timeout, no matter what the run was waiting for.
        if let Err(expired) = self.deadline.remaining() {
            return expired.into();
        }
        // A query is long and not useful in a message.
        let path = path.split('?').next().unwrap_or_default();
        if let ureq::Error::BodyExceedsLimit(bytes_max) = error {
            let message = format!(
                "{} answered with more than {bytes_max} bytes, so the answer is not Windmill's",
                self.base_url.join(path)
            );
            return BackupError::new(Code::PullFailed, message);
        }
        let message = format!("cannot reach Windmill at {}: {error}", self.base_url.join(path));
        let retry = if http_client::is_passing_error(error) { Retry::AfterPause(None) } else { Retry::Never };
        BackupError { code: Code::WindmillUnreachable, message, retry }
    }

    /// Makes a text of the server safe for messages.
    fn printable(&self, said: &str) -> String {
        self.redactor().redact(&output::clean_line(said.as_bytes()))
    }

    /// Returns a redactor for the token and the values of the headers, in case the server repeats them.
    fn redactor(&self) -> Redactor {
        Redactor::new(self.headers.iter().map(|(_, value)| value).chain([self.token]))
    }

    /// Describes an answer by its status, followed by `more`, which is empty if the content must stay hidden.
    fn answered(&self, code: Code, answer: &Answer, more: &str) -> BackupError {
        let path = answer.path.split('?').next().unwrap_or_default();
        let message = format!("{} answered with status {}{more}", self.base_url.join(path), answer.status);
        BackupError { code, message, retry: answer.retry() }
    }

    fn strange_answer(&self, answer: &Answer) -> BackupError {
        // Secrets are removed before the text is cut to its start, so that no part of a repeated token is left.
        let body = answer.body.get(..answer.body.floor_char_boundary(ECHOED_BYTES_MAX)).unwrap_or_default();
        let body = self.redactor().scrub_cut(&output::clean_line(body.as_bytes()));
        let start: String = body.chars().take(200).collect();
        self.answered(Code::WindmillUnreachable, answer, &[", and the answer is not Windmill's: ", &start].concat())
    }

    fn refused(&self, answer: &Answer) -> BackupError {
        // If the token is valid elsewhere, it does not see this workspace.
        if self.ask("api/users/whoami").is_ok_and(|who| who.status == 200) {
            return self.no_such_workspace();
        }
        let message = format!(
            "Windmill at {} refused the token for workspace `{}` with status {}: it is wrong, revoked, expired, or bound \
             to another workspace",
            self.base_url, self.workspace, answer.status
        );
        BackupError::new(Code::WindmillUnauthorized, message)
    }

    fn no_such_workspace(&self) -> BackupError {
        let message =
            format!("Windmill at {} has no workspace `{}` that this token sees", self.base_url, self.workspace);
        BackupError::new(Code::WorkspaceNotFound, message)
    }

    /// Returns the key that encrypts the workspace's secrets, or `None` if this server or token does not give it.
    ///
    /// # Errors
    /// [`BackupError`] if there is no answer, or if the server may become available again. The error does not contain
    /// the answer.
    pub fn key(&self) -> Result<Option<Secret>> {
        let answer = self.final_answer(&self.path("workspaces/encryption_key"))?;
        Ok(answer.text("key").filter(|key| !key.is_empty()).map(Secret::new))
    }

    /// Whether Windmill can decrypt a variable. The value is not returned.
    ///
    /// # Errors
    /// [`BackupError`] if there is no answer.
    pub fn can_read_variable(&self, path: &str) -> Result<bool> {
        let question = format!("variables/get/{}?decrypt_secret=true", percent::encode_path(path));
        Ok(self.ask(&self.path(&question))?.text("value").is_some())
    }
}

fn is_true(object: &Object, name: &str) -> bool {
    matches!(object.get(name), Some(Value::Bool(true)))
}

/// Returns a field of an object, if it exists and is a string.
pub fn text<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    match object.get(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// Returns two fields of an object, if both exist and are strings.
pub fn two_texts(object: &Value, [first, second]: [&str; 2]) -> Option<(String, String)> {
    let Value::Object(object) = object else { return None };
    Some((text(object, first)?.to_owned(), text(object, second)?.to_owned()))
}

type Response = ureq::http::Response<ureq::Body>;

/// Returns a client that sends the token and the headers with each request.
pub(super) fn client(
    base_url: &BaseUrl,
    token: &Secret,
    headers: &[(String, Secret)],
    time_max: Duration,
    environment: &[(String, String)],
) -> ureq::Agent {
    let bearer = Secret::new(["Bearer ", token.expose()].concat());
    let authorization = (!token.expose().is_empty()).then(|| ("authorization".to_owned(), bearer));
    let named = headers.iter().chain(&authorization);
    let parsed = named.filter_map(|(name, value)| Some((name.parse().ok()?, value.expose().parse().ok()?)));
    http_client::client(base_url.as_str(), time_max, parsed.collect(), environment)
}

/// Starts a question in a thread.
fn start<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Result<Pending<T>> {
    Pending::start(ask).map_err(|error| BackupError::of_system(&error))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Whether the answer is HTML. Answers of Windmill's API are never HTML.
fn is_page(headers: &HeaderMap) -> bool {
    header(headers, "content-type").is_some_and(|value| value.starts_with("text/html"))
}

fn read_answer(path: String, mut response: Response, bytes_max: u64) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    // For an answer with another status, the beginning is enough.
    let read_max = if status == 200 { bytes_max + 1 } else { SHORT_BYTES_MAX };
    response.body_mut().as_reader().take(read_max).read_to_end(&mut bytes)?;
    if status == 200 && bytes.len() as u64 > bytes_max {
        return Err(ureq::Error::BodyExceedsLimit(bytes_max));
    }
    // An answer that is not UTF-8 is not from Windmill. Its beginning is enough for a message.
    let body = String::from_utf8(bytes).unwrap_or_else(|error| {
        let bytes = error.as_bytes();
        String::from_utf8_lossy(&bytes[..bytes.len().min(ECHOED_BYTES_MAX)]).into_owned()
    });
    Ok(Answer { path, status, headers: mem::take(response.headers_mut()), body })
}

/// Turns the error into an error of the export, because Windmill answers everything else.
fn pull_failed(error: BackupError) -> BackupError {
    if error.is_end_of_run() { error } else { BackupError { code: Code::PullFailed, ..error } }
}
