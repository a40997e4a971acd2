//! Serves one pull of `wmill` from a snapshot instead of from Windmill. It listens on a loopback address, and answers
//! only the program that sends the secret word of this run.
//!
//! `wmill` treats most failures as the answer of an older server, and then deletes files. So every answer is checked
//! before it is sent: an archive always has its length, and a question that the snapshot cannot answer makes the pull
//! fail.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver};

use ureq::http::Method;

use super::snapshot::{self, Archive, SideAnswers};
use crate::http::loopback::{Answer, LoopbackServer, Request};
use crate::model::WorkspaceId;

/// The answer of a server that does not make archives of this type.
const NO_ZIP: &str = "Bad request: Invalid Archive Type zip";
/// The questions of every pull. If one of them has no answer, wmill continues without it.
const NEEDED: [&str; 4] = [
    "workspaces/list_ws_specific",
    "resources/file_resource_type_to_file_ext_map",
    "workspaces/tarball",
    "shared_ui/get",
];
/// The most questions of one pull. wmill asks six.
const QUESTIONS_MAX: usize = 1000;

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
    /// The questions of wmill so far. Those that the snapshot cannot answer are errors.
    asked: Receiver<Result<String, String>>,
}

impl SnapshotServer {
    /// Starts the server.
    ///
    /// # Errors
    /// Fails if there is no socket, no thread, or no randomness for the word.
    pub fn start(answers: Answers) -> io::Result<Self> {
        let (noted, asked) = mpsc::sync_channel(QUESTIONS_MAX);
        let prefix = format!("/api/w/{}/", answers.workspace);
        let server = LoopbackServer::start(None, move |request, send| {
            let path = request.uri().path();
            let path = path.strip_prefix(&prefix).unwrap_or(path);
            if let Some(answer) = answers.to(path, &request)? {
                let is_given = answer.status != 400;
                send(answer)?;
                return if is_given { noted.try_send(Ok(path.to_owned())).map_err(io::Error::other) } else { Ok(()) };
            }
            let question = format!("{} {}", request.method(), request.uri());
            noted.try_send(Err(question)).map_err(io::Error::other)?;
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
        let answered: Result<BTreeSet<_>, _> = self.asked.try_iter().collect();
        let answered =
            answered.map_err(|question| format!("wmill asked for what the snapshot has no answer to: {question}"))?;
        match NEEDED.iter().find(|question| !answered.contains(**question)) {
            Some(question) if !answered.is_empty() => Err(format!("wmill did not get the answer to {question}")),
            _ => Ok(()),
        }
    }
}

impl Answers {
    /// Returns the answer to a request of this path, without the prefix of the workspace; `None` if the snapshot has
    /// none.
    fn to(&self, path: &str, request: &Request) -> io::Result<Option<Answer<'_>>> {
        let Self { archive, query, sides, .. } = self;
        Ok(Some(match (request.method(), path, request.uri().query()) {
            (&Method::GET, "users/whoami" | "/api/users/whoami", None) => json("{}"),
            (&Method::GET, "workspaces/list_ws_specific", None) => side(&sides.own_items),
            (&Method::GET, "resources/file_resource_type_to_file_ext_map", None) => side(&sides.file_types),
            (&Method::GET, "shared_ui/get", None) => side(&sides.shared_ui),
            (&Method::GET, "workspaces/tarball", Some(asked)) => match type_of_archive(asked, query) {
                Some("zip") => Answer::text(400, NO_ZIP),
                Some("tar") => Answer::new(200, "application/x-tar", archive.bytes, File::open(&archive.path)?),
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::util::{RunDir, wait_while};

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
        assert_eq!(
            server.finish(),
            Err("wmill did not get the answer to resources/file_resource_type_to_file_ext_map".to_owned())
        );
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
        assert!(server.asked.try_iter().all(|question| question.is_ok()));
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
