//! Serves one pull of `wmill` from a snapshot instead of from Windmill. It listens on a loopback address, and answers
//! only the program that sends the secret word of this run.
//!
//! `wmill` treats most failures as the answer of an older server, and then deletes files. So every answer is checked
//! before it is sent: an archive always has its length, and a question that the snapshot cannot answer makes the pull
//! fail.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use ureq::http::Method;

use super::snapshot::{self, Archive, SideAnswers};
use crate::http::loopback::{Answer, LoopbackServer, Request};
use crate::model::WorkspaceId;
use crate::util::lock;

/// The answer of a server that does not make archives of this type.
const NO_ZIP: &str = "Bad request: Invalid Archive Type zip";

/// The answers to all questions of one pull.
#[derive(Clone)]
pub struct Answers {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The export as a tar file.
    pub archive: Archive,
    /// The query with which the export was requested, without the type of the archive.
    pub query: String,
    /// The answers to the other questions.
    pub sides: SideAnswers,
}

/// The running server.
pub struct SnapshotServer {
    server: LoopbackServer,
    asked: Arc<Mutex<Questions>>,
}

/// The questions of wmill so far.
#[derive(Default)]
struct Questions {
    /// The answers that were sent completely.
    answered: BTreeSet<&'static str>,
    /// The first question that the snapshot cannot answer.
    unknown: Option<String>,
}

const OWN_ITEMS: &str = "the workspace's own items";
const FILE_TYPES: &str = "the map of file endings";
const TAR: &str = "the export as a tar file";
const SHARED_UI: &str = "the shared UI";
/// The questions of every pull. If one of them has no answer, wmill continues without it.
const NEEDED: [&str; 4] = [OWN_ITEMS, FILE_TYPES, TAR, SHARED_UI];

impl SnapshotServer {
    /// Starts the server.
    ///
    /// # Errors
    /// Fails if there is no socket, no thread, or no randomness for the word.
    pub fn start(answers: Answers) -> io::Result<Self> {
        let asked = Arc::<Mutex<Questions>>::default();
        let noted = Arc::clone(&asked);
        let server = LoopbackServer::start(None, move |request, send| {
            if let Some((what, answer)) = answers.to(&request)? {
                send(answer)?;
                lock(&noted).answered.insert(what);
                return Ok(());
            }
            let asked = format!("{} {}", request.method(), request.uri());
            log::debug!("wmill asks for what the snapshot has no answer to: {asked}");
            lock(&noted).unknown.get_or_insert(asked);
            send(Answer::text(404, "Not found"))
        })?;
        Ok(Self { server, asked })
    }

    /// Returns the server that wmill gets in place of Windmill.
    pub fn server(&self) -> &LoopbackServer {
        &self.server
    }

    /// Stops the server after a successful pull.
    ///
    /// # Errors
    /// Returns which question the snapshot cannot answer, or which answer wmill needs and did not get.
    pub fn finish(self) -> Result<(), String> {
        // An answer is counted shortly after wmill has received it.
        drop(self.server);
        let asked = lock(&self.asked);
        if let Some(question) = &asked.unknown {
            return Err(format!("wmill asked for what the snapshot has no answer to: {question}"));
        }
        match NEEDED.iter().find(|what| !asked.answered.contains(*what)) {
            Some(what) if !asked.answered.is_empty() => Err(format!("wmill did not get {what}")),
            _ => Ok(()),
        }
    }
}

impl Answers {
    /// Returns the answer to a request, and what it is; `None` if the snapshot has none.
    fn to(&self, request: &Request) -> io::Result<Option<(&'static str, Answer<'_>)>> {
        let Self { workspace, archive, query, sides } = self;
        if request.method() != Method::GET {
            return Ok(None);
        }
        let path = request.uri().path();
        let path = path.strip_prefix(&["/api/w/", workspace.as_str(), "/"].concat()).unwrap_or(path);
        Ok(Some(match (path, request.uri().query()) {
            ("users/whoami" | "/api/users/whoami", None) => ("the user", json("{}")),
            ("workspaces/list_ws_specific", None) => (OWN_ITEMS, side(&sides.own_items)),
            ("resources/file_resource_type_to_file_ext_map", None) => (FILE_TYPES, side(&sides.file_types)),
            ("shared_ui/get", None) => (SHARED_UI, side(&sides.shared_ui)),
            ("workspaces/tarball", Some(asked)) => match type_of_archive(asked, query) {
                Some("zip") => ("the export as a zip file", Answer::text(400, NO_ZIP)),
                Some("tar") => {
                    let file = File::open(&archive.path)?;
                    (TAR, Answer::new(200, "application/x-tar", archive.bytes, file))
                }
                _ => return Ok(None),
            },
            _ => return Ok(None),
        }))
    }
}

/// Returns the type of archive that is asked for, if the rest of the query is the one of the export. The order of the
/// parameters has no meaning.
fn type_of_archive<'a>(asked: &'a str, query: &'a str) -> Option<&'a str> {
    let (kind, asked) = asked.strip_prefix("archive_type=")?.split_once('&')?;
    let parameters = |query: &'a str| query.split('&').collect::<BTreeSet<_>>();
    (parameters(asked) == parameters(query)).then_some(kind)
}

fn side(answer: &snapshot::Answer) -> Answer<'_> {
    answer.as_ref().map_or_else(|| Answer::text(404, "Not found"), |text| json(text))
}

fn json(text: &str) -> Answer<'_> {
    Answer::new(200, "application/json", text.len() as u64, text.as_bytes())
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::util::RunDir;
    use crate::util::deadline::wait_while;

    const QUERY: &str = "plain_secret=false&default_ts=bun";

    fn start(test: &str) -> (RunDir, SnapshotServer) {
        let run = RunDir::for_test(test).expect("a folder");
        let path = run.write("export.tar", b"the archive").expect("a file");
        let answer = |body: &str| Some(Arc::new(body.to_owned()));
        let answers = Answers {
            workspace: WorkspaceId::parse("shop").expect("a name"),
            archive: Archive { path, bytes: 11 },
            query: QUERY.to_owned(),
            sides: SideAnswers { own_items: answer("[]"), file_types: answer("{\"a\":1}"), shared_ui: None },
        };
        (run, SnapshotServer::start(answers).expect("a server"))
    }

    fn send(server: &SnapshotServer, request: &str) -> String {
        let mut stream = TcpStream::connect(server.server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Returns the status and the body.
    fn ask(server: &SnapshotServer, target: &str, word: &str) -> (u16, String) {
        let answer = send(server, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {word}\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(head.contains(length.trim_end()), "{head}");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    #[test]
    fn each_question_has_the_snapshots_answer() {
        let (_run, server) = start("server-answers");
        let word = server.server.word().expose().to_owned();
        let check = |target: &str, status: u16, body: &str| {
            assert_eq!(ask(&server, target, &word), (status, body.to_owned()), "{target}");
        };
        check("/api/users/whoami", 200, "{}");
        check("/api/w/shop/users/whoami", 200, "{}");
        check("/api/w/shop/workspaces/list_ws_specific", 200, "[]");
        check("/api/w/shop/resources/file_resource_type_to_file_ext_map", 200, "{\"a\":1}");
        check("/api/w/shop/shared_ui/get", 404, "Not found");
        check(&format!("/api/w/shop/workspaces/tarball?archive_type=zip&{QUERY}"), 400, NO_ZIP);
        check(&format!("/api/w/shop/workspaces/tarball?archive_type=tar&{QUERY}"), 200, "the archive");
        check("/api/w/shop/workspaces/tarball?archive_type=zip&default_ts=bun&plain_secret=false", 400, NO_ZIP);
        assert_eq!(server.finish(), Ok(()));
    }

    #[test]
    fn an_unknown_question_fails_the_pull_and_is_named() {
        for target in [
            "/api/version",
            "/api/w/other/users/whoami",
            "/api/w/shop/scripts/list",
            "/api/w/shop/users/whoami?x=1",
            "/api/w/shop/workspaces/tarball",
            "/api/w/shop/workspaces/tarball?archive_type=tar",
            "/api/w/shop/workspaces/tarball?archive_type=tar&plain_secret=true&default_ts=bun",
            "/api/w/shop/workspaces/tarball?archive_type=rar&plain_secret=false&default_ts=bun",
        ] {
            let (_run, server) = start("server-unknown");
            assert_eq!(ask(&server, target, server.server.word().expose()).0, 404);
            let failure = server.finish().expect_err(target);
            assert!(failure.ends_with(&format!("GET {target}")), "{failure}");
        }
        let (_run, server) = start("server-unknown");
        let word = server.server.word().expose();
        send(&server, &format!("HEAD /api/users/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {word}\r\n\r\n"));
        assert!(server.finish().expect_err("HEAD").contains("HEAD /api/users/whoami"));
    }

    #[test]
    fn a_pull_without_all_its_questions_fails() {
        let (_run, server) = start("server-lacking");
        ask(&server, "/api/w/shop/workspaces/list_ws_specific", server.server.word().expose());
        assert_eq!(server.finish(), Err("wmill did not get the map of file endings".to_owned()));
    }

    #[test]
    fn requests_without_the_word_are_refused_and_do_not_count() {
        let (_run, server) = start("server-word");
        let word = server.server.word().expose().to_owned();
        for wrong in ["", "x", &word[1..], &[&word, "0"].concat()] {
            assert_eq!(ask(&server, "/api/w/shop/scripts/list", wrong).0, 401, "{wrong}");
        }
        assert!(send(&server, "GET /api/users/whoami HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 401 "));
        assert!(send(&server, "no HTTP\r\n\r\n").starts_with("HTTP/1.1 400 "));
        // A client keeps its place until shortly after its answer.
        wait_while(Duration::from_secs(20), || server.server.served() > 0);
        assert_eq!(server.server.served(), 0);
        // Silent clients do not delay others.
        let quiet: Vec<_> = (0..6).map(|_| TcpStream::connect(server.server.address()).expect("one")).collect();
        assert_eq!(ask(&server, "/api/users/whoami", &word).0, 200);
        drop(quiet);
        assert!(lock(&server.asked).unknown.is_none());
    }

    #[test]
    fn an_archive_that_became_shorter_ends_before_its_length() {
        let (run, server) = start("server-shorter");
        run.write("export.tar", b"half").expect("a file");
        let word = server.server.word().expose();
        let target = format!("/api/w/shop/workspaces/tarball?archive_type=tar&{QUERY}");
        let answer =
            send(&server, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {word}\r\n\r\n"));
        assert!(answer.contains("Content-Length: 11\r\n") && answer.ends_with("\r\n\r\nhalf"), "{answer}");
    }
}
