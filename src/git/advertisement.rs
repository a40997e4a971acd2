//! Sends git's first request to an http(s) remote with our own client, because git does not show the answer.

use std::io::Read as _;
use std::time::Duration;

use ureq::Body;
use ureq::http::{HeaderMap, Response};

use crate::git::Git;
use crate::model::{BackupError, Code, RemoteScheme, RemoteUrl, Result};
use crate::net::http_client;
use crate::process::RunEnv;

/// How long one request may take. A sync can do without the answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// The media type of git's answer, and how its body begins.
const MEDIA_TYPE: &str = "application/x-git-upload-pack-advertisement";
const BEGINNING: &[u8] = b"001e# service=git-upload-pack";

/// Returns the remote's answer, and whether it comes from a git server.
fn ask(remote: &RemoteUrl, authorization: Option<&str>, run_env: &RunEnv) -> Option<(Response<Body>, bool)> {
    let url = format!("{}/info/refs?service=git-upload-pack", remote.as_str().trim_end_matches('/'));
    let time_max = run_env.deadline.remaining().ok()?.min(ANSWER_TIME_MAX);
    let mut request = http_client::client(&url, time_max, HeaderMap::new(), &run_env.environment).get(&url);
    if let Some(value) = authorization {
        request = request.header("Authorization", value);
    }
    let mut answer = request.call().ok()?;
    let mut start = [0; BEGINNING.len()];
    let has_beginning = answer.body_mut().as_reader().read_exact(&mut start).is_ok() && start == BEGINNING;
    let is_git = answer.status() == 200 && header(&answer, "content-type").starts_with(MEDIA_TYPE) && has_beginning;
    Some((answer, is_git))
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> &'a str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns whether everyone can read an https repository. It counts as not public if there is no answer.
pub fn is_public(remote: &RemoteUrl, run_env: &RunEnv) -> bool {
    remote.scheme() == RemoteScheme::Https && ask(remote, None, run_env).is_some_and(|(_, is_git)| is_git)
}

impl Git<'_> {
    /// Returns an error if a web server answers everything with a page. git reads a page as the list of refs of an old
    /// server, finds no ref in it, and treats the repository as empty.
    pub(super) fn refuse_a_page(&self) -> Result<()> {
        let credentials = self.access.iter().find(|(name, _)| *name == "GIT_CONFIG_VALUE_0");
        let authorization = credentials.and_then(|(_, value)| value.strip_prefix("Authorization: "));
        let answer = self.remote.is_http().then(|| ask(self.remote, authorization, self.run_env)).flatten();
        let Some((page, false)) = answer.filter(|(answer, _)| answer.status() == 200) else { return Ok(()) };
        let message = format!(
            "cannot read {} (branch `{}`): the answer is not git's ({}): a sign-in page stands in front of it, or \
             GIT_REMOTE_URL is not the address of a repository on a git server",
            self.remote,
            self.branch,
            self.run_env.redactor.redact(header(&page, "content-type"))
        );
        Err(BackupError::new(Code::GitFailed, message))
    }

    /// Returns the target of the remote's redirect as the end of a message. The request has no credentials.
    pub(super) fn redirect_target(&self) -> Option<String> {
        let (answer, _) = ask(self.remote, None, self.run_env)?;
        let url = RemoteUrl::parse(header(&answer, "location").split("/info/refs").next()?).ok()?;
        Some(format!("; it has moved to {url}: set GIT_REMOTE_URL to that if you trust it"))
    }
}
