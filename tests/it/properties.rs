//! Properties that must hold for any bytes that a client sends. `fuzz_corpus` checks them on the corpus and on each row
//! of the table of raw bytes, and the fuzz targets, which include this file, try to break them.
//!
//! The grammar is written a second time here, in another way than in the service, so that a mistake in one of them is
//! found.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use miniserde::json::{self, Value};
use windmill_git_sync::config::{Config, Environment, Options, Required};
use windmill_git_sync::http::request::{
    BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Head, TARGET_BYTES_MAX, parse_head,
};
use windmill_git_sync::http::response::Response;
use windmill_git_sync::model::BackupError;
use windmill_git_sync::model::git_credentials::GitCredentials;
use windmill_git_sync::request::{Draft, SyncRequest, Target};
use windmill_git_sync::util::secret::Secret;

// ---------------------------------------------------------------- heads

/// Asserts that the result does not depend on how the bytes are split on the way. An accepted head follows the strict
/// grammar, gives the same result when it is written again, and does not print its token.
pub fn head_is_read_in_one_way(bytes: &[u8]) {
    let whole = Verdict::of(bytes);
    for length in lengths_to_look_at(bytes.len()) {
        let early = Verdict::of(&bytes[..length]);
        assert!(
            matches!(early, Verdict::Incomplete) || early == whole,
            "{length} of {} bytes come to {early:?}, all to {whole:?}",
            bytes.len()
        );
    }
    match parse_head(bytes) {
        Ok(None) => assert!(bytes.len() <= HEAD_BYTES_MAX + 2, "more is waited for"),
        Ok(Some((head, bytes_used))) => {
            check_grammar(&bytes[..bytes_used], &head);
            check_rewriting(&head);
            check_silence(&head);
        }
        Err(refusal) => {
            assert!([400, 411, 413, 414, 415, 417, 431, 501, 505].contains(&refusal.status), "{refusal:?}");
        }
    }
}

/// Returns every length of a prefix of a short head. For a long one, returns the first, the last and some between.
fn lengths_to_look_at(bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes).filter(move |length| bytes <= 200 || *length <= 100 || length % 61 < 2 || bytes - length < 8)
}

/// The result of reading bytes, in a form that can be compared.
#[derive(Debug, PartialEq)]
enum Verdict {
    Incomplete,
    Refused(Response),
    Complete(usize, Vec<String>),
}

impl Verdict {
    fn of(bytes: &[u8]) -> Self {
        match parse_head(bytes) {
            Ok(None) => Self::Incomplete,
            Ok(Some((head, bytes_used))) => Self::Complete(bytes_used, fields_of(&head)),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

fn fields_of(head: &Head) -> Vec<String> {
    vec![
        head.method.as_str().to_owned(),
        head.path.clone(),
        format!("{:?}", head.query),
        head.body_bytes.to_string(),
        head.expects_continue.to_string(),
        format!("{:?}", head.content_type),
        format!("{:?}", head.authorization.as_ref().map(Secret::expose)),
    ]
}

const TOKEN: &str = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const TARGET: &str = "-._~!$&'()*+,;=:@/?%0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn is_of(text: &[u8], alphabet: &str) -> bool {
    !text.is_empty() && text.iter().all(|byte| alphabet.as_bytes().contains(byte))
}

/// Checks the strict grammar, line by line.
fn check_grammar(bytes: &[u8], head: &Head) {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    assert!(text.len() <= HEAD_BYTES_MAX, "{} bytes", text.len());
    let text = text.strip_suffix("\r\n\r\n").expect("an empty line at the end");
    let lines: Vec<&str> = text.split("\r\n").collect();
    for line in &lines {
        assert!(!line.is_empty(), "an empty line within");
        assert!(!line.chars().any(|one| one.is_ascii_control() && one != '\t'), "a control character: {line:?}");
    }
    let words: Vec<&str> = lines[0].split(' ').collect();
    let [method, target, version] = words[..] else { panic!("{} words", words.len()) };
    assert!(is_of(method.as_bytes(), TOKEN) && method == head.method.as_str(), "{method:?}");
    assert!(target.starts_with('/') && is_of(target.as_bytes(), TARGET) && target.len() <= TARGET_BYTES_MAX);
    let asked = head.query.as_ref().map_or_else(|| head.path.clone(), |query| format!("{}?{query}", head.path));
    assert_eq!(target, asked);
    for escape in target.split('%').skip(1) {
        assert!(escape.len() >= 2 && u8::from_str_radix(&escape[..2], 16).is_ok() && !escape.starts_with('+'));
    }
    assert!(
        version.len() == 8 && version.starts_with("HTTP/1.") && version.ends_with(|one: char| one.is_ascii_digit())
    );
    check_fields(&lines[1..], head, version == "HTTP/1.0");
}

fn check_fields(lines: &[&str], head: &Head, is_old: bool) {
    assert!(lines.len() <= HEADERS_MAX, "{} headers", lines.len());
    let mut fields: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a colon");
        assert!(is_of(name.as_bytes(), TOKEN), "{name:?}");
        fields.entry(name.to_ascii_lowercase()).or_default().push(value.trim_matches([' ', '\t']));
    }
    let single = |name: &str| {
        let values = fields.get(name).map_or(&[][..], Vec::as_slice);
        assert!(values.len() <= 1, "{name} {} times", values.len());
        values.first().copied()
    };
    assert!(is_old || single("host").is_some_and(|host| !host.is_empty()), "no Host");
    assert!(!single("host").is_some_and(|host| host.contains([' ', ',', '/', '@', '\t', '%'])));
    assert_eq!(single("transfer-encoding"), None, "a transfer coding was taken");
    let length = single("content-length");
    assert!(length.is_none_or(|length| is_of(length.as_bytes(), "0123456789")), "{length:?}");
    let digits = length.map_or("0", |length| length.trim_start_matches('0'));
    let announced = if digits.is_empty() { 0 } else { digits.parse().expect("a length that was taken") };
    assert_eq!((announced, announced <= BODY_BYTES_MAX), (head.body_bytes, true));
    assert!(announced == 0 || !matches!(head.method.as_str(), "GET" | "HEAD"), "{} with a body", head.method.as_str());
    let expects = !is_old && single("expect").is_some();
    assert_eq!(head.expects_continue, expects && announced > 0);
    assert!(!expects || single("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")));
    // These values were read byte by byte above. The service has them as UTF-8.
    let as_bytes = |text: &str| -> Vec<u8> { text.chars().map(|one| one as u8).collect() };
    assert_eq!(single("content-type").map(as_bytes), head.content_type.clone().map(String::into_bytes));
    let authorization = head.authorization.as_ref().map(|secret| secret.expose().as_bytes().to_vec());
    assert_eq!(single("authorization").map(as_bytes), authorization);
}

/// Asserts that the same head in its plainest form has the same meaning.
fn check_rewriting(head: &Head) {
    let query = head.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut text = format!("{} {}{query} HTTP/1.1\r\nHost: a\r\n", head.method.as_str(), head.path);
    let mut field = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\r\n"));
    if head.body_bytes > 0 {
        field("Content-Length", &head.body_bytes.to_string());
    }
    if head.expects_continue {
        field("Expect", "100-continue");
    }
    if let Some(content_type) = &head.content_type {
        field("Content-Type", content_type);
    }
    if let Some(authorization) = &head.authorization {
        field("Authorization", authorization.expose());
    }
    text.push_str("\r\n");
    match parse_head(text.as_bytes()) {
        Ok(Some((again, bytes_used))) => {
            assert_eq!((fields_of(&again), bytes_used), (fields_of(head), text.len()));
        }
        // The original had no `Host`, and had the maximum length of a head.
        Err(refusal) if refusal.status == 431 && text.len() > HEAD_BYTES_MAX => {}
        other => panic!("{text:?} comes to {other:?}"),
    }
}

/// Shorter secrets occur in any text by chance.
const SECRET_BYTES_MIN: usize = 6;

fn check_silence(head: &Head) {
    let Some(authorization) = head.authorization.as_ref().map(Secret::expose) else { return };
    let shown = format!("{head:?}");
    let without = format!("{} {} {:?} {:?}", head.method.as_str(), head.path, head.query, head.content_type);
    let field_names =
        "Head { method: Other( path query body_bytes expects_continue content_type authorization redacted";
    let is_elsewhere = without.contains(authorization) || field_names.contains(authorization);
    assert!(authorization.len() < SECRET_BYTES_MIN || is_elsewhere || !shown.contains(authorization), "{shown}");
}

// ---------------------------------------------------------------- bodies

const WINDMILL_TOKEN: &str = "configured-windmill-token";
const GIT_TOKEN: &str = "configured-git-token";
const SSH_KEY: &str = "configured-ssh-key";

/// One configuration of each kind: for https, for ssh, for a folder, with only an API token, and without an API token.
static CONFIGS: LazyLock<[Config; 5]> = LazyLock::new(|| {
    let api_token = [("SYNC_API_TOKEN", "shown-before")];
    let windmill = [("WINDMILL_TOKEN", WINDMILL_TOKEN), ("WINDMILL_WORKSPACE", "shop")];
    let https = [("GIT_REMOTE_URL", "https://h/x"), ("GIT_TOKEN", GIT_TOKEN), ("GIT_BRANCH", "w/{workspace}")];
    let ssh = [("GIT_REMOTE_URL", "git@h:x"), ("GIT_SSH_KEY", SSH_KEY), ("GIT_SSH_ACCEPT_NEW", "true")];
    let file = [("GIT_REMOTE_URL", "file:///x"), ("GIT_SUBDIR", "backup")];
    [
        config(&[&windmill[..], &https[..], &api_token].concat()),
        config(&[&windmill[..], &ssh[..], &api_token].concat()),
        config(&[&windmill[..], &file[..], &api_token].concat()),
        config(&api_token),
        config(&[&windmill[..], &https[..]].concat()),
    ]
});

fn config(variables: &[(&str, &str)]) -> Config {
    let environment = Environment::new(variables.iter().map(|(name, value)| (name.into(), value.into())));
    Config::new(&Options::default(), &environment, Required::Serve).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the only sync that a body requests.
fn read(body: &[u8], config: &Config) -> Result<(SyncRequest, bool), BackupError> {
    let draft = Draft::from_json(body, config)?;
    match draft.wanted()? {
        Target::One(workspace) => Ok((draft.request(&workspace)?, draft.waits())),
        Target::Several(_) | Target::All(_) => panic!("the settings have one workspace"),
    }
}

/// Asserts for all settings: a body gives the same result each time. An accepted body gives the same result when it is
/// written again, and uses a configured secret only for its configured purpose. A refusal shows no secret.
pub fn body_is_read_in_one_way(body: &[u8]) {
    for config in CONFIGS.iter() {
        match read(body, config) {
            Ok((request, waits)) => {
                let members = members_of(body);
                check_use_of_secrets(&request, &members, config);
                check_body_rewriting(&request, waits, config);
            }
            Err(error) => {
                let again = read(body, config).err();
                assert_eq!(again.as_ref(), Some(&error), "refused in two ways");
                check_refusal(body, &error.message, config);
            }
        }
    }
}

/// Returns the members of an accepted body, with another JSON reader.
fn members_of(body: &[u8]) -> BTreeMap<String, Value> {
    let text = str::from_utf8(body).expect("UTF-8").trim_ascii();
    if text.is_empty() {
        return BTreeMap::new();
    }
    match json::from_str(text) {
        Ok(Value::Object(members)) => members.into_iter().collect(),
        _ => panic!("accepted, and no JSON object: {text:?}"),
    }
}

fn text<'a>(members: &'a BTreeMap<String, Value>, name: &str) -> Option<&'a str> {
    match members.get(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn check_use_of_secrets(request: &SyncRequest, members: &BTreeMap<String, Value>, config: &Config) {
    assert_eq!(request.base_url, config.base_url, "a request changed where Windmill is");
    let own_workspace = config.workspaces.hold(&request.workspace);
    let own_remote = config.remote.as_ref() == Some(&request.remote);
    let own_place = config.branch_for(&request.workspace).ok().as_ref() == Some(&request.branch)
        && config.subdir_for(&request.workspace).ok().as_ref() == Some(&request.subdir);
    if text(members, "windmill_token").is_none() {
        assert_eq!(request.windmill_token.expose(), WINDMILL_TOKEN);
        assert!(own_workspace && own_remote && own_place, "the configured token, and not the configured backup");
    }
    let brings_url = matches!(members.get("repository"), Some(Value::Object(_)));
    match &request.git {
        GitCredentials::Token { token, .. } if token.expose() == GIT_TOKEN => {
            let is_brought = text(members, "git_token") == Some(GIT_TOKEN) || brings_url;
            assert!(own_remote || is_brought, "the configured git token, and another repository");
        }
        GitCredentials::Token { .. } => assert!(text(members, "git_token").is_some() || brings_url),
        GitCredentials::None | GitCredentials::Ssh { .. } => assert!(own_remote, "a way into this machine, or a key"),
    }
    assert_eq!(request.configured, own_workspace && own_remote && own_place);
    if config.api_token.is_none() {
        assert!(
            request.configured && !request.flags.allow_mass_deletion,
            "a request without the service's token chose"
        );
    }
}

/// Asserts that all fields in their plain form give the same request.
fn check_body_rewriting(request: &SyncRequest, waits: bool, config: &Config) {
    // Most fields need the service's token.
    if config.api_token.is_none() {
        return;
    }
    let mut members = Vec::new();
    let mut say =
        |name: &str, value: &str| members.push(format!("{}:{}", json::to_string(name), json::to_string(value)));
    if !request.workspace_is_default {
        say("workspace", request.workspace.as_str());
    }
    say("windmill_token", request.windmill_token.expose());
    say("git_branch", request.branch.as_str());
    say("git_subdir", request.subdir.as_str());
    say("git_user_name", request.author.name());
    say("git_user_email", request.author.email());
    match &request.git {
        GitCredentials::Token { username, token } if *username == config.git_username => {
            say("git_remote_url", request.remote.as_str());
            say("git_token", token.expose());
        }
        GitCredentials::Token { username, token } => {
            let (scheme, rest) = request.remote.as_str().split_once("://").expect("http or https");
            let url = format!("{scheme}://{}:{}@{rest}", percent_encoded(username), percent_encoded(token.expose()));
            members.push(format!("\"repository\":{{\"url\":{}}}", json::to_string(&url)));
        }
        // A body cannot ask for these: they are the configured ones.
        GitCredentials::None | GitCredentials::Ssh { .. } => {}
    }
    let flags = [
        ("dry_run", request.flags.dry_run),
        ("force", request.flags.force),
        ("allow_mass_deletion", request.flags.allow_mass_deletion),
        ("wait", waits),
    ];
    members.extend(flags.map(|(name, value)| format!("\"{name}\":{value}")));
    let rewritten = format!("{{{}}}", members.join(","));
    if rewritten.len() > BODY_BYTES_MAX {
        return;
    }
    match read(rewritten.as_bytes(), config) {
        Ok((again, waits_again)) => assert!(again == *request && waits_again == waits, "not the same: {rewritten}"),
        Err(error) => panic!("{rewritten} is refused: {}", error.message),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Asserts that a refusal is one line, is not too long, and has none of our secrets and none of the body's.
fn check_refusal(body: &[u8], message: &str, config: &Config) {
    assert!(!message.is_empty() && message.len() <= 64 * 1024, "{} bytes", message.len());
    assert!(!message.chars().any(char::is_control), "{message:?}");
    let sent = String::from_utf8_lossy(body);
    for secret in [WINDMILL_TOKEN, GIT_TOKEN, SSH_KEY] {
        assert!(sent.contains(secret) || !message.contains(secret), "{message}");
    }
    // The service reads no values from a body that is not UTF-8 or not JSON.
    let Some(Value::Object(members)) = str::from_utf8(body).ok().and_then(|sent| json::from_str(sent).ok()) else {
        return;
    };
    for name in ["windmill_token", "git_token"] {
        let Some(Value::String(secret)) = members.get(name) else { continue };
        // A secret that occurs elsewhere in the body may be shown for that reason.
        let letters = secret.chars().filter(|one| one.is_alphanumeric()).count();
        if letters < SECRET_BYTES_MIN || sent.matches(secret.as_str()).count() != 1 {
            continue;
        }
        // The message itself may contain the same words. Then it also contains them with another secret of the same
        // form.
        let other: String = secret.chars().map(|one| if one.is_alphanumeric() { 'Q' } else { one }).collect();
        let other_body = sent.replace(secret.as_str(), &other);
        let of_other = read(other_body.as_bytes(), config).err().map(|error| error.message);
        let is_our_word = of_other.is_some_and(|of_other| of_other.contains(secret.as_str()));
        assert!(is_our_word || !message.contains(secret.as_str()), "{name} is shown: {message}");
    }
}
