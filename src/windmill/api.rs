//! What this service asks Windmill itself: what the server is, who the token is, and what lies in a workspace.
//!
//! It starts no program, and does not know git.

use std::time::{Duration, SystemTime};

use miniserde::json::{self, Value};

use crate::code::Code;
use crate::config::ADMINS;
use crate::deadline::{Deadline, Expired, Interrupt};
use crate::digest::{Algorithm, Digest};
use crate::names::{self, BaseUrl, WorkspaceId};
use crate::percent;
use crate::retry::Tries;
use crate::scrubber::Scrubber;
use crate::secret::Secret;
use crate::subprocess;
use crate::web::{self, Pending};

/// For one small question to Windmill.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// For the head of an export, which Windmill packs before it sends anything.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(60);
/// The largest answer is the shared UI, which Windmill keeps as one JSON document.
const ANSWER_BYTES_MAX: u64 = 32 << 20;
/// A page of a list has a tenth of a megabyte; a script is its whole source.
const NAMES_BYTES_MAX: u64 = 2 << 20;
/// What wmill asks beside the export, below `api/w/WORKSPACE/`.
const SIDE_QUESTIONS: [&str; 3] = [OWN_ITEMS, "resources/file_resource_type_to_file_ext_map", SHARED_UI];
const VERSION: &str = "api/version";
/// The export as a tar file, which servers of all versions make; a query has to follow.
pub const EXPORT: &str = "workspaces/tarball?archive_type=tar";
const OWN_ITEMS: &str = "workspaces/list_ws_specific";
const SHARED_UI: &str = "shared_ui/get";

/// Why Windmill or wmill failed.
#[derive(Debug)]
pub enum WindmillError {
    /// The server, the token, the workspace, or wmill.
    Failed {
        /// What to call it.
        code: Code,
        /// What was tried, on what, and why it failed.
        message: String,
        /// What may help.
        cure: Cure,
    },
    /// The time was over, or the service is ending.
    Expired(Expired),
    /// wmill cannot be started, or the disk refuses.
    Machine(String),
}

/// What may help against a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// Nothing that we can do: a wrong token, a workspace that is not there.
    None,
    /// An empty folder: the content of the one that was pulled into may be the cause.
    EmptyFolder,
    /// To wait, for as long as the server asks, and to try again.
    Time(Option<Duration>),
}

/// The trailer with the [`fingerprint`] of the key under which the secrets of a commit are encrypted.
pub const KEY_TRAILER: &str = "Windmill-Key-Fingerprint";

/// That trailer, as a line.
#[must_use]
pub fn key_trailer(key: &Secret) -> String {
    [KEY_TRAILER, ": ", &fingerprint(key), "\n"].concat()
}

/// By which a key is known without being told: `sha256:` and the digest.
#[must_use]
pub fn fingerprint(key: &Secret) -> String {
    let mut digest = Digest::new(Algorithm::Sha256);
    digest.update(key.expose().as_bytes());
    ["sha256:", &digest.finish()].concat()
}

/// What Windmill says of itself and of the token.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Name and address of the token's user, where it told both.
    pub user: Option<(String, String)>,
    /// The server's version, such as `CE v1.491.5`.
    pub server_version: Option<String>,
    /// Whether the token sees everything in the workspace.
    pub is_admin: bool,
    /// The workspaces that the token sees, where it was asked and may know.
    pub workspaces: Option<Vec<String>>,
    /// Names, below `ui/`, and contents of the shared UI; `None` where this server has no such thing or does not show it.
    pub shared_ui: Option<Vec<(String, String)>>,
    /// Kind and path of the items that only this workspace has; wmill writes them under another name than others.
    pub own_items: Vec<(String, String)>,
    /// What is refused to this token, and so missing from the backup.
    pub refused: Vec<&'static str>,
    /// A digest of what was answered to the questions beside the export.
    pub side: String,
}

/// A question that is being answered.
type Question = Pending<Result<Answer, ureq::Error>>;

/// The digest of what Windmill answers beside the export.
struct SideDigest(Digest);

impl SideDigest {
    fn new() -> Self {
        Self(Digest::new(Algorithm::Sha256))
    }

    fn take(&mut self, path: &str, answer: &Answer) {
        self.0.update(format!("{path} {} {}\n", answer.status, answer.body.len()).as_bytes());
        self.0.update(answer.body.as_bytes());
    }
}

/// Asks for the export, and beside it, in a thread that outlives a [`Windmill`].
#[derive(Clone)]
pub struct Asker {
    agent: ureq::Agent,
    /// For one answer.
    timeout: Duration,
    /// `…/api/w/WORKSPACE/`
    base: String,
    bearer: Option<String>,
}

impl Asker {
    /// Asks for `path`, below the workspace; the answer's body is not read yet.
    ///
    /// # Errors
    /// No answer, or one with another status than 200.
    pub fn open(&self, path: &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let url = [&self.base, path].concat();
        let bearer = self.bearer.as_deref().unwrap_or_default();
        let question = self.agent.get(url).header("Authorization", bearer);
        let answer = question.config().timeout_global(Some(self.timeout)).build().call()?;
        match answer.status().as_u16() {
            200 => Ok(answer),
            status => Err(ureq::Error::StatusCode(status)),
        }
    }

    /// Asks what wmill asks beside the export, while `meanwhile` is done; the digest of the answers, as in
    /// [`Account::side`], and what that gave.
    ///
    /// # Errors
    /// No answer, or that of `meanwhile`.
    pub fn side<T>(
        &self,
        unwanted: &Interrupt,
        meanwhile: impl FnOnce() -> Result<T, String>,
    ) -> Result<(String, T), String> {
        let ask = |path: &str| question(&self.agent, self.base.clone() + path, self.bearer.clone(), None, Part::Whole);
        let asked = SIDE_QUESTIONS.map(|path| (path, ask(path)));
        let done = meanwhile()?;
        let (mut digest, patience) = (SideDigest::new(), Deadline::after(self.timeout, unwanted));
        for (path, question) in asked {
            let answer = question.map_err(|error| error.to_string())?.wait(&patience);
            let answer = answer.map_err(|_| "there is no answer beside the export".to_owned())?;
            digest.take(path, &answer.map_err(|error| error.to_string())?);
        }
        Ok((digest.0.finish(), done))
    }
}

/// What the server tells anybody.
pub struct Greeting {
    /// Its version, such as `CE v1.491.5`; `None` where it does not tell.
    pub version: Option<String>,
    /// What its clock says, to the second.
    pub date: Option<SystemTime>,
}

/// One workspace of one Windmill, seen with one token.
pub struct Windmill<'a> {
    /// The server.
    pub base_url: &'a BaseUrl,
    /// The workspace.
    pub workspace: &'a WorkspaceId,
    /// The token; an empty one is not sent.
    pub token: &'a Secret,
    /// When the run ends.
    pub deadline: &'a Deadline,
    /// Keeps the certificates that it has read.
    agent: ureq::Agent,
}

/// The workspaces that a token sees and that are not archived.
///
/// # Errors
/// [`WindmillError`]; a token that is bound to one workspace may not ask.
pub fn list_workspaces(
    base_url: &BaseUrl,
    token: &Secret,
    deadline: &Deadline,
    environment: &[(String, String)],
) -> Result<Vec<WorkspaceId>, WindmillError> {
    const PATH: &str = "api/workspaces/list";
    // No question here is about a workspace.
    let workspace = WorkspaceId::parse(ADMINS).map_err(|error| WindmillError::Machine(error.to_string()))?;
    let windmill = Windmill::new(base_url, &workspace, token, deadline, environment);
    let mut tries = Tries::new(deadline);
    loop {
        let error = match windmill.ask(PATH, None) {
            Ok(answer) if answer.status == 200 => match parse(&answer.body) {
                Some(Value::Array(list)) => return Ok(list.iter().filter_map(living_workspace).collect()),
                _ => windmill.strange_answer(PATH, &answer),
            },
            Ok(answer) if matches!(answer.status, 401 | 403) => {
                let message = format!(
                    "Windmill at {base_url} does not list its workspaces for this token (status {}): it is wrong or \
                     expired, or bound to one workspace; WINDMILL_WORKSPACE=* needs one that is not",
                    answer.status
                );
                failed(Code::WindmillUnauthorized, message)
            }
            Ok(answer) => windmill.strange_answer(PATH, &answer),
            Err(error) => error,
        };
        match &error {
            WindmillError::Failed { cure: Cure::Time(asked), message, .. } => {
                if !tries.pause(*asked, message).map_err(WindmillError::Expired)? {
                    return Err(error);
                }
            }
            _ => return Err(error),
        }
    }
}

fn living_workspace(listed: &Value) -> Option<WorkspaceId> {
    let Value::Object(listed) = listed else { return None };
    match (listed.get("id"), listed.get("deleted")) {
        (_, Some(Value::Bool(true))) => None,
        (Some(Value::String(id)), _) => WorkspaceId::parse(id).ok(),
        _ => None,
    }
}

struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    date: Option<SystemTime>,
    /// Whether it is HTML, which Windmill answers no question with.
    is_page: bool,
    body: String,
}

/// How much of an answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// The whole, unless it is a long one.
    Names,
    /// Its body too, unless the status is 200.
    Head,
}

impl Answer {
    /// What helps against such a status: servers that are overloaded or being replaced come back.
    fn cure(&self) -> Cure {
        if web::is_passing(self.status) { Cure::Time(self.retry_after) } else { Cure::None }
    }
}

impl<'a> Windmill<'a> {
    /// `environment` may name proxies and certificates.
    #[must_use]
    pub fn new(
        base_url: &'a BaseUrl,
        workspace: &'a WorkspaceId,
        token: &'a Secret,
        deadline: &'a Deadline,
        environment: &[(String, String)],
    ) -> Self {
        let agent = web::client(base_url.as_str(), ANSWER_TIME_MAX, environment);
        Self { base_url, workspace, token, deadline, agent }
    }

    /// The same, until another time.
    #[must_use]
    pub fn until<'b>(&self, deadline: &'b Deadline) -> Windmill<'b>
    where
        'a: 'b,
    {
        Windmill { deadline, agent: self.agent.clone(), ..*self }
    }

    /// Asks what the server is.
    ///
    /// # Errors
    /// [`WindmillError`]: unreachable, or something else than Windmill.
    pub fn greet(&self) -> Result<Greeting, WindmillError> {
        self.greeting(self.begin(Part::Whole, VERSION, None)?)
    }

    fn greeting(&self, question: Question) -> Result<Greeting, WindmillError> {
        let answer = self.finish(VERSION, question)?;
        let is_html = answer.is_page || answer.body.contains('<');
        if answer.status >= 500 || answer.status == 200 && is_html {
            return Err(self.strange_answer(VERSION, &answer));
        }
        let is_version = answer.status == 200 && answer.body.len() < 100;
        let version = is_version.then(|| self.printable(answer.body.trim()));
        Ok(Greeting { version, date: answer.date })
    }

    /// Asks for the export with the query of a [`Plan`](crate::wmill_yaml::Plan), and takes no more of it than its head.
    ///
    /// # Errors
    /// [`WindmillError`]: unreachable, refused, no such workspace.
    pub fn may_export(&self, query: &str) -> Result<(), WindmillError> {
        let path = format!("api/w/{}/{EXPORT}", self.workspace);
        let answer = self.ask_for(Part::Head, &[&path, "&", query].concat(), None)?;
        match answer.status {
            200 if answer.is_page => Err(self.strange_answer(&path, &answer)),
            200 => Ok(()),
            _ if answer.body.contains("no rows returned") => Err(self.no_such_workspace()),
            _ => match self.strange_answer(&path, &answer) {
                WindmillError::Failed { message, cure, .. } => {
                    Err(WindmillError::Failed { code: Code::PullFailed, message, cure })
                }
                other => Err(other),
            },
        }
    }

    /// Asks who the token is in the workspace; also, with `list_workspaces`, which ones it sees.
    ///
    /// # Errors
    /// [`WindmillError`]: unreachable, unauthorized, no such workspace.
    pub fn account(&self, list_workspaces: bool) -> Result<Account, WindmillError> {
        // All at once, each over a connection of its own, so that they take as long as the slowest.
        let version = self.begin(Part::Whole, VERSION, None)?;
        let path = format!("api/w/{}/users/whoami", self.workspace);
        let who = self.begin(Part::Whole, &path, None)?;
        let mut side = Vec::new();
        for question in SIDE_QUESTIONS {
            let whole = format!("api/w/{}/{question}", self.workspace);
            side.push((question, self.begin(Part::Whole, &whole, None)?, whole));
        }
        let server_version = self.greeting(version)?.version;
        let who = self.finish(&path, who)?;
        match who.status {
            200 => {}
            401 | 403 => return Err(self.refused(&who)),
            404 => return Err(self.no_such_workspace()),
            _ => return Err(self.strange_answer(&path, &who)),
        }
        let Some(Value::Object(user)) = parse(&who.body) else { return Err(self.strange_answer(&path, &who)) };
        let is = |name: &str| matches!(user.get(name), Some(Value::Bool(true)));
        // A superadmin is let into workspaces that do not exist, and finds them empty.
        if is("is_super_admin") && self.is_known_to_be_missing()? {
            return Err(self.no_such_workspace());
        }
        let text = |name: &str| match user.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        Ok(Account {
            user: text("username").zip(text("email")),
            server_version,
            is_admin: is("is_admin"),
            workspaces: if list_workspaces { self.workspaces() } else { None },
            ..self.side_answers(side)?
        })
    }

    /// What is answered to what wmill asks beside the export. wmill takes a failure of these for a server without them,
    /// and exits with 0; and it writes the files of the shared UI wherever their names lead.
    fn side_answers(&self, asked: Vec<(&'static str, Question, String)>) -> Result<Account, WindmillError> {
        let mut account = Account::default();
        let mut digest = SideDigest::new();
        for (path, question, whole) in asked {
            let answer = self.finish(&whole, question)?;
            digest.take(path, &answer);
            match answer.status {
                200 if path == SHARED_UI => account.shared_ui = Some(self.shared_ui(&whole, &answer)?),
                200 if path == OWN_ITEMS => account.own_items = own_items(&answer.body),
                200 | 404 => {}
                400..=499 if answer.cure() == Cure::None => account.refused.push(path),
                _ => return Err(self.no_answer(Code::PullFailed, &whole, &answer)),
            }
        }
        account.side = digest.0.finish();
        Ok(account)
    }

    fn shared_ui(&self, path: &str, answer: &Answer) -> Result<Vec<(String, String)>, WindmillError> {
        let files = match parse(&answer.body) {
            Some(Value::Object(mut answer)) => answer.remove("files"),
            _ => return Err(self.strange_answer(path, answer)),
        };
        let Some(Value::Object(files)) = files else { return Ok(Vec::new()) };
        let mut known = Vec::new();
        for (name, content) in files {
            let Value::String(content) = content else { return Err(self.strange_answer(path, answer)) };
            if !is_safe_name(&name) {
                let message = format!("the shared UI of workspace `{}` has a file named {name:?}", self.workspace);
                return Err(failed(Code::PullFailed, message + ", which leads elsewhere; nothing was pulled"));
            }
            known.push((name, content));
        }
        Ok(known)
    }

    fn is_known_to_be_missing(&self) -> Result<bool, WindmillError> {
        let body = format!("{{\"id\":{}}}", json::to_string(self.workspace.as_str()));
        let answer = self.ask("api/workspaces/exists", Some(&body))?;
        Ok(answer.status == 200 && answer.body.trim() == "false")
    }

    /// A token bound to one workspace may not ask; then nothing is known.
    fn workspaces(&self) -> Option<Vec<String>> {
        let answer = self.ask("api/workspaces/users", None).ok().filter(|answer| answer.status == 200)?;
        let Value::Object(mut answer) = parse(&answer.body)? else { return None };
        let Some(Value::Array(list)) = answer.remove("workspaces") else { return None };
        let id = |workspace: &Value| match workspace {
            Value::Object(workspace) => match workspace.get("id") {
                Some(Value::String(id)) => WorkspaceId::parse(id).ok().map(|id| id.to_string()),
                _ => None,
            },
            _ => None,
        };
        Some(list.iter().filter_map(id).collect())
    }

    /// For questions that are waited for elsewhere; the export is, for `timeout` at most.
    #[must_use]
    pub fn asker(&self, timeout: Duration) -> Asker {
        let base = self.base_url.join(&format!("api/w/{}/", self.workspace));
        Asker { agent: self.agent.clone(), timeout, base, bearer: self.bearer() }
    }

    fn bearer(&self) -> Option<String> {
        let token = Some(self.token.expose()).filter(|token| !token.is_empty());
        token.map(|token| ["Bearer ", token].concat())
    }

    /// Asks for something of the workspace that a sync can do without: once, and with what does not come whole and in
    /// time, as with what is no JSON, there is no answer.
    #[must_use]
    pub fn ask_for_names(&self, path: &str) -> Option<Value> {
        let path = format!("api/w/{}/{path}", self.workspace);
        let (status, value) = match self.ask_for(Part::Names, &path, None) {
            // No name is a secret, whatever a server calls its users.
            Ok(answer) => (answer.status, parse(&Scrubber::new([self.token]).scrub(&answer.body))),
            Err(_) => (0, None),
        };
        let value = value.filter(|_| status == 200);
        if value.is_none() {
            log::debug!("Windmill does not tell `{path}` (status {status}), so commits do without");
        }
        value
    }

    fn ask(&self, path: &str, body: Option<&str>) -> Result<Answer, WindmillError> {
        self.ask_for(Part::Whole, path, body)
    }

    fn ask_for(&self, part: Part, path: &str, body: Option<&str>) -> Result<Answer, WindmillError> {
        self.finish(path, self.begin(part, path, body)?)
    }

    fn begin(&self, part: Part, path: &str, body: Option<&str>) -> Result<Question, WindmillError> {
        self.deadline.remaining().map_err(WindmillError::Expired)?;
        let question = question(&self.agent, self.base_url.join(path), self.bearer(), body, part);
        question.map_err(|error| WindmillError::Machine(format!("cannot start a thread: {error}")))
    }

    fn finish(&self, path: &str, question: Question) -> Result<Answer, WindmillError> {
        let answer = question.wait(self.deadline).map_err(WindmillError::Expired)?;
        answer.map_err(|error| self.unreachable(path, &error))
    }

    fn unreachable(&self, path: &str, error: &ureq::Error) -> WindmillError {
        // A time-out of the whole run says so, whatever it was waiting for.
        if let Err(expired) = self.deadline.remaining() {
            return WindmillError::Expired(expired);
        }
        // A query is as long as it is dull.
        let path = path.split('?').next().unwrap_or_default();
        let message = format!("cannot reach Windmill at {}: {error}", self.base_url.join(path));
        let cure = if web::is_passing_error(error) { Cure::Time(None) } else { Cure::None };
        WindmillError::Failed { code: Code::WindmillUnreachable, message, cure }
    }

    /// What the server said, fit for messages.
    fn printable(&self, said: &str) -> String {
        Scrubber::new([self.token]).scrub(&subprocess::clean_line(said.as_bytes()))
    }

    /// What is told of an answer whose content is nobody's business.
    fn no_answer(&self, code: Code, path: &str, answer: &Answer) -> WindmillError {
        let message = format!("{} answered with status {}", self.base_url.join(path), answer.status);
        WindmillError::Failed { code, message, cure: answer.cure() }
    }

    fn strange_answer(&self, path: &str, answer: &Answer) -> WindmillError {
        // Scrubbed before it is cut, so that no part of a token that was said back is left.
        let start: String = self.printable(&answer.body).chars().take(200).collect();
        let message = format!(
            "{} answered with status {} and not as Windmill does: {start}",
            self.base_url.join(path),
            answer.status
        );
        WindmillError::Failed { code: Code::WindmillUnreachable, message, cure: answer.cure() }
    }

    fn refused(&self, answer: &Answer) -> WindmillError {
        // A token that is good elsewhere means that it is the workspace that it does not see.
        if self.ask("api/users/whoami", None).is_ok_and(|who| who.status == 200) {
            return self.no_such_workspace();
        }
        let message = format!(
            "Windmill at {} refused the token for workspace `{}` with status {}: it is wrong, revoked, expired, or bound \
             to another workspace",
            self.base_url, self.workspace, answer.status
        );
        failed(Code::WindmillUnauthorized, message)
    }

    fn no_such_workspace(&self) -> WindmillError {
        let message =
            format!("Windmill at {} has no workspace `{}` that this token sees", self.base_url, self.workspace);
        failed(Code::WorkspaceNotFound, message)
    }

    /// The key under which the workspace's secrets are encrypted; nothing where this server or token does not tell.
    ///
    /// # Errors
    /// [`WindmillError`] where there is no answer, or one of a server that may come back. What it answered is not in it.
    pub fn key(&self) -> Result<Option<Secret>, WindmillError> {
        let path = format!("api/w/{}/workspaces/encryption_key", self.workspace);
        let answer = self.ask(&path, None)?;
        if answer.cure() != Cure::None {
            return Err(self.no_answer(Code::WindmillUnreachable, &path, &answer));
        }
        Ok(match parse(&answer.body) {
            Some(Value::Object(mut fields)) if answer.status == 200 => match fields.remove("key") {
                Some(Value::String(key)) if !key.is_empty() => Some(Secret::new(key)),
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether Windmill can decrypt a variable. Its value goes no further than here.
    ///
    /// # Errors
    /// [`WindmillError`] where there is no answer.
    pub fn can_read_variable(&self, path: &str) -> Result<bool, WindmillError> {
        let path = percent::encode(path, "/");
        let path = format!("api/w/{}/variables/get/{path}?decrypt_secret=true", self.workspace);
        let answer = self.ask(&path, None)?;
        let is_there = match parse(&answer.body) {
            Some(Value::Object(fields)) => matches!(fields.get("value"), Some(Value::String(_))),
            _ => false,
        };
        Ok(answer.status == 200 && is_there)
    }
}

fn own_items(body: &str) -> Vec<(String, String)> {
    let Some(Value::Array(list)) = parse(body) else { return Vec::new() };
    list.iter().filter_map(|item| two_texts(item, ["item_kind", "path"])).collect()
}

/// Two fields of an object, where both are there and are texts.
#[must_use]
pub fn two_texts(object: &Value, names: [&str; 2]) -> Option<(String, String)> {
    let Value::Object(fields) = object else { return None };
    match names.map(|name| fields.get(name)) {
        [Some(Value::String(one)), Some(Value::String(other))] => Some((one.clone(), other.clone())),
        _ => None,
    }
}

/// Asks in a thread of its own.
fn question(
    agent: &ureq::Agent,
    url: String,
    bearer: Option<String>,
    body: Option<&str>,
    part: Part,
) -> std::io::Result<Question> {
    let (agent, body) = (agent.clone(), body.map(str::to_owned));
    Pending::start(move |_| exchange(&agent, &url, bearer.as_deref(), body.as_deref(), part))
}

fn exchange(
    agent: &ureq::Agent,
    url: &str,
    bearer: Option<&str>,
    body: Option<&str>,
    part: Part,
) -> Result<Answer, ureq::Error> {
    let mut answer = match body {
        None => {
            let time_max = if part == Part::Head { EXPORT_TIME_MAX } else { ANSWER_TIME_MAX };
            let request = agent.get(url).config().timeout_global(Some(time_max)).build();
            if let Some(bearer) = bearer { request.header("Authorization", bearer) } else { request }.call()
        }
        Some(body) => {
            let request = agent.post(url).header("Content-Type", "application/json");
            if let Some(bearer) = bearer { request.header("Authorization", bearer) } else { request }.send(body)
        }
    }?;
    let status = answer.status().as_u16();
    let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::trim);
    // A date is possible too, and rare; the pause is then our own.
    let retry_after = header("retry-after").and_then(|value| value.parse().ok());
    let date = header("date").and_then(|value| httpdate::parse_http_date(value).ok());
    let is_page = header("content-type").is_some_and(|value| value.starts_with("text/html"));
    let bytes = match part {
        Part::Head if status == 200 => Vec::new(),
        _ => {
            let bytes_max = if part == Part::Names { NAMES_BYTES_MAX } else { ANSWER_BYTES_MAX };
            answer.body_mut().with_config().limit(bytes_max).read_to_vec()?
        }
    };
    let body = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs), date, is_page, body })
}

/// Whether a name stays within the folder that it is put into, and git can hold it. This one comes from a server, and
/// wmill makes a path of it by its own rules: so what some system takes for a separator is refused too, and what nobody
/// calls a file.
fn is_safe_name(name: &str) -> bool {
    name.split('/').all(|part| names::is_storable(part.as_bytes()))
        && !name.contains(|character: char| character == '\\' || character.is_control())
}

fn failed(code: Code, message: String) -> WindmillError {
    WindmillError::Failed { code, message, cure: Cure::None }
}

fn parse(body: &str) -> Option<Value> {
    json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_not_safe() {
        for name in ["a.ts", "lib/x.ts", "..a/b", "a.git/b", ".gitignore", "a b/é"] {
            assert!(is_safe_name(name), "{name}");
        }
        for name in ["", "/a", "a//b", "../a", "a/..", "./a", ".git/config", "a/.GIT", "a\\b", "a\0"] {
            assert!(!is_safe_name(name), "{name:?}");
        }
    }
}
