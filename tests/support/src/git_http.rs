//! Git over smart HTTP: the real `git http-backend` behind a small server that requires Basic authentication, fails on
//! demand, and lets a test act between the fetch and the push of a client.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::git::{BareRepository, Remote};
use super::http::{Fault, Faults, LoggedRequest, Reply, Request, Response, Server};
use super::process;

/// The user for [`GIT_TOKEN`].
pub const GIT_USERNAME: &str = "backup-bot";

/// The valid token, easy to find where it must not be.
pub const GIT_TOKEN: &str = "git-token-PLANTED-2222-91be37";

/// The moment of a push at which a test acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushMoment {
    /// The client asks what the server has. The client sees what another writer pushes now.
    Asked,
    /// The client's pack has arrived and is not yet accepted. If another writer pushes now, the server refuses the
    /// pack.
    Received,
    /// The pack is accepted, and the answer is not yet sent.
    Taken,
}

/// How often a test acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Once,
    Always,
}

/// A server for one repository on its own port. It stops when dropped.
pub struct GitHttp {
    server: Server,
    name: String,
    shared: Arc<Shared>,
}

type Step = (PushMoment, Times, Box<dyn FnMut() + Send>);

struct Shared {
    repository: BareRepository,
    root: PathBuf,
    backend: PathBuf,
    faults: Faults,
    open: AtomicBool,
    token: Mutex<String>,
    requests: Mutex<Vec<LoggedRequest>>,
    steps: Mutex<Vec<Step>>,
    bytes_sent: AtomicU64,
}

impl GitHttp {
    /// Serves this repository to a client that sends the token.
    pub fn serve(repository: &BareRepository) -> Self {
        let root = repository.path().parent().unwrap().to_path_buf();
        let name = repository.path().file_name().unwrap();
        let shared = Arc::new(Shared {
            repository: repository.clone(),
            root,
            backend: backend(repository),
            faults: Faults::default(),
            open: AtomicBool::new(false),
            token: Mutex::new(GIT_TOKEN.to_owned()),
            requests: Mutex::default(),
            steps: Mutex::default(),
            bytes_sent: AtomicU64::new(0),
        });
        let of_server = Arc::clone(&shared);
        Self {
            server: Server::start(move |request| of_server.reply(&request)),
            name: name.to_string_lossy().into_owned(),
            shared,
        }
    }

    /// Returns `http://127.0.0.1:PORT`, without the repository's path.
    pub fn base(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Replaces the valid token, as after a rotation or a revocation.
    pub fn token(&self, token: &str) {
        token.clone_into(&mut self.shared.token.lock().unwrap());
    }

    /// Serves every client from now on, whatever credentials it sends: a public server, or one that collects
    /// credentials.
    pub fn open_to_all(&self) {
        self.shared.open.store(true, Ordering::Relaxed);
    }

    /// Makes each request fail whose path and query contain `needle`, until [`GitHttp::heal`]. A fetch asks for
    /// `git-upload-pack`, a push for `git-receive-pack`, first in the query, then in the path.
    pub fn fail(&self, needle: &str, fault: Fault) {
        self.shared.faults.plan(needle, fault, None);
    }

    /// Makes only the next such request fail.
    pub fn fail_once(&self, needle: &str, fault: Fault) {
        self.shared.faults.plan(needle, fault, Some(1));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.shared.faults.heal();
    }

    /// Runs `step` at this moment of a push.
    pub fn at(&self, moment: PushMoment, times: Times, step: impl FnMut() + Send + 'static) {
        self.shared.steps.lock().unwrap().push((moment, times, Box::new(step)));
    }

    /// Removes all steps.
    pub fn undisturbed(&self) {
        self.shared.steps.lock().unwrap().clear();
    }

    /// Returns all requests so far.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn forget_requests(&self) {
        self.shared.requests.lock().unwrap().clear();
    }

    /// Returns how many bytes of content the answers had since the last call.
    pub fn take_bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.swap(0, Ordering::Relaxed)
    }

    /// Waits until a fault makes a request hang whose client is still connected.
    #[track_caller]
    pub fn wait_until_hanging(&self) {
        self.server.wait_until_hanging();
    }
}

impl Remote for GitHttp {
    fn url(&self) -> String {
        format!("{}/{}", self.base(), self.name)
    }

    fn credentials(&self) -> Vec<(String, String)> {
        vec![("GIT_USERNAME".to_owned(), GIT_USERNAME.to_owned()), ("GIT_TOKEN".to_owned(), GIT_TOKEN.to_owned())]
    }
}

/// Returns the header value for a user and a token.
pub fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{token}")))
}

fn backend(repository: &BareRepository) -> PathBuf {
    let folder = repository.run(["--exec-path"]).stdout_text();
    let backend = Path::new(folder.trim()).join("git-http-backend");
    assert!(
        backend.is_file(),
        "these tests serve git over HTTP: install a git with `git http-backend` (no `{}`)",
        backend.display()
    );
    backend
}

impl Shared {
    fn reply(&self, request: &Request) -> Reply {
        let wanted = basic(GIT_USERNAME, &self.token.lock().unwrap());
        let authorized = request.header("authorization") == Some(wanted.as_str());
        self.requests.lock().unwrap().push(LoggedRequest::of(request, authorized));
        let fault = self.faults.take(&request.target);
        // These faults only spoil the way in which an answer is sent: they need an answer, and the push behind it
        // happens.
        let answered = matches!(fault, None | Some(Fault::CutHalfway | Fault::HangHalfway | Fault::Slow(..)));
        let response = match (answered, authorized || self.open.load(Ordering::Relaxed)) {
            (false, _) => Response::empty(500),
            (true, false) => Response::text(401, "Unauthorized").with_header("www-authenticate", "Basic realm=\"git\""),
            (true, true) => self.answer(request),
        };
        Reply { response, fault }
    }

    fn answer(&self, request: &Request) -> Response {
        let pushed = request.path().ends_with("/git-receive-pack");
        if request.query_text() == "service=git-receive-pack" {
            self.step(PushMoment::Asked);
        }
        if pushed {
            self.step(PushMoment::Received);
        }
        let response = self.run_backend(request);
        if pushed {
            self.step(PushMoment::Taken);
        }
        response
    }

    fn step(&self, moment: PushMoment) {
        // The due steps are taken out while they run, because a step may push here itself.
        let mut due: Vec<Step> = Vec::new();
        let mut steps = self.steps.lock().unwrap();
        for step in std::mem::take(&mut *steps) {
            if step.0 == moment {
                due.push(step);
            } else {
                steps.push(step);
            }
        }
        drop(steps);
        for mut step in due {
            step.2();
            if step.1 == Times::Always {
                self.steps.lock().unwrap().push(step);
            }
        }
    }

    fn run_backend(&self, request: &Request) -> Response {
        let mut command = self.repository.program(&self.backend);
        command
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", request.path())
            .env("QUERY_STRING", request.query_text())
            .env("REMOTE_USER", GIT_USERNAME)
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("CONTENT_LENGTH", request.body.len().to_string());
        for (header, variable) in [
            ("content-type", "CONTENT_TYPE"),
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("git-protocol", "GIT_PROTOCOL"),
        ] {
            if let Some(value) = request.header(header) {
                command.env(variable, value);
            }
        }
        let finished = process::run_with_input(command, request.body.clone());
        let response = cgi_response(&finished.stdout);
        let bytes = response.as_ref().map_or(0, |response| response.body.len());
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        response.unwrap_or_else(|| Response::text(500, &finished.to_string()))
    }
}

/// Converts the output of a CGI program to an answer.
fn cgi_response(printed: &[u8]) -> Option<Response> {
    let end = printed.windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut response = Response::empty(200);
    for line in String::from_utf8_lossy(&printed[..end]).split("\r\n") {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("status") {
            response.status = value.trim().get(..3)?.parse().ok()?;
        } else {
            response = response.with_header(name, value.trim());
        }
    }
    response.body = Arc::new(printed[end + 4..].to_vec());
    Some(response)
}
