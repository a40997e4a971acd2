//! The `curl` lines of the documents get the answers that the documents show. Each shell block runs against its own
//! service, with a client of the tests, and in CI with `curl` itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use support::http::ask;
use support::windmill::SHOP;
use support::*;

const API_TOKEN: &str = "api-token-of-the-documents";
const DOCUMENTS: [&str; 4] = ["README.md", "docs/http.md", "docs/image.md", "docs/running.md"];

/// A `curl` line: its words, and the expected answer from the next line, if that begins with a status.
struct Line {
    shown: String,
    words: Vec<String>,
    status: u16,
    /// The parts of the answer between its `…`.
    pieces: Vec<String>,
}

/// Returns the `curl` lines of each shell block of a document, and whether the service needs a token for the block.
fn blocks(document: &str) -> Vec<(bool, Vec<Line>)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let of_block = |block: &str| (block.contains("$SYNC_API_TOKEN"), lines(block));
    blocks.map(of_block).filter(|(_, lines)| !lines.is_empty()).collect()
}

fn lines(block: &str) -> Vec<Line> {
    let mut found = Vec::new();
    let mut all = block.lines().peekable();
    while let Some(line) = all.next() {
        let Some(at) = line.find("curl ") else { continue };
        let expected = all.peek().and_then(|next| next.strip_prefix("# ")?.split_once(' '));
        let expected = expected.and_then(|(status, answer)| Some((status.parse().ok()?, answer)));
        let (status, answer) = expected.unwrap_or((200, ""));
        let pieces = answer.split('…').map(str::to_owned).collect();
        found.push(Line {
            shown: line.to_owned(),
            words: shell_words(&line[at + "curl ".len()..].replace("$SYNC_API_TOKEN", API_TOKEN)),
            status,
            pieces,
        });
    }
    found
}

/// Splits a shell line into words, as far as the documents need it: with both kinds of quotes.
pub(crate) fn shell_words(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut word, mut quote) = (String::new(), None);
    for letter in line.chars() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (_, Some(open)) if letter == open => quote = None,
            (' ', None) => found.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    found.push(word);
    assert!(quote.is_none(), "{line}");
    found.retain(|word| !word.is_empty());
    found
}

/// Sends the request that `curl` would send, with our own client.
#[track_caller]
fn ask_as_curl(service: &Service, line: &Line) -> (u16, String) {
    let (mut method, mut body, mut url) = ("GET", "", "");
    let mut headers = BTreeMap::new();
    let mut words = line.words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("`{word}` lacks a value in `{}`", line.shown));
        match word {
            "-X" | "--request" => method = value(),
            "--header" => headers.extend([value().split_once(": ").expect("a header")]),
            "--json" => {
                (method, body) = ("POST", value());
                headers.insert("Content-Type", "application/json");
            }
            _ if word.starts_with("http://") => url = word,
            _ => panic!("this test does not know `{word}` of `{}`", line.shown),
        }
    }
    let path = url.splitn(4, '/').nth(3).unwrap_or_else(|| panic!("no path in `{}`", line.shown));
    let headers: Vec<_> = headers.into_iter().collect();
    let answer = ask(service.address(), method, &format!("/{path}"), &headers, body.as_bytes()).unwrap();
    (answer.status, answer.text())
}

/// Runs `curl` with the words unchanged. All connections lead to the service.
#[track_caller]
fn ask_by_curl(service: &Service, line: &Line) -> (u16, String) {
    let mut command = std::process::Command::new(process::find_program("curl", &[]).expect("curl (Debian: curl)"));
    command.args(["--silent", "--show-error", "--noproxy", "*", "--write-out", "\n%{http_code}", "--connect-to"]);
    command.arg(format!("::{}", service.address())).args(&line.words);
    let said = process::run(command).must_succeed().stdout_text();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[track_caller]
fn check(line: &Line, (status, body): (u16, String)) {
    let mut rest = body.as_str();
    assert_eq!(status, line.status, "{}\n{body}", line.shown);
    for piece in &line.pieces {
        let at = rest.find(piece.as_str()).unwrap_or_else(|| panic!("{}\nno `{piece}` in {body}", line.shown));
        rest = &rest[at + piece.len()..];
    }
}

fn check_all(ask: impl Fn(&Service, &Line) -> (u16, String)) {
    let mut lines_checked = 0;
    for (has_token, lines) in DOCUMENTS.iter().flat_map(|document| blocks(document)) {
        let sandbox = Sandbox::new();
        let repository = sandbox.repository();
        // As in a container: the documents use the name of the service, which is refused if it listens only on
        // loopback.
        let run = sandbox.service().workspace(SHOP).remote(&repository).env("LISTEN_ADDR", "0.0.0.0:0");
        let service = if has_token { run.env("SYNC_API_TOKEN", API_TOKEN) } else { run }.serve();
        lines.iter().for_each(|line| check(line, ask(&service, line)));
        lines_checked += lines.len();
    }
    assert!(lines_checked >= 8, "{lines_checked}");
}

#[test]
fn the_curl_lines_of_the_documents_get_the_documented_answers() {
    check_all(ask_as_curl);
}

#[test]
#[ignore = "needs curl: just test-tools"]
fn curl_itself_gets_the_documented_answers() {
    check_all(ask_by_curl);
}
