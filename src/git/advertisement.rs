//! Sends git's first request to an http(s) remote with our own client, because git does not show what the answer was.

use std::io::Read as _;
use std::time::Duration;

use crate::git::{Git, GitError};
use crate::model::result_code::Code;
use crate::model::urls::{RemoteScheme, RemoteUrl};
use crate::net::http_client;
use crate::util::deadline::Deadline;

/// How long one request may take. A sync can do without the answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// The media type of git's answer, and how its body begins.
const MEDIA_TYPE: &str = "application/x-git-upload-pack-advertisement";
const BEGINNING: &[u8] = b"001e# service=git-upload-pack";

/// What the remote answered.
struct Answer {
    status: u16,
    /// Whether it is the answer of a git server.
    is_git: bool,
    media_type: String,
    location: Option<String>,
}

fn url(remote: &RemoteUrl) -> String {
    format!("{}/info/refs?service=git-upload-pack", remote.as_str().trim_end_matches('/'))
}

fn ask(
    remote: &RemoteUrl,
    authorization: Option<&str>,
    deadline: &Deadline,
    environment: &[(String, String)],
) -> Option<Answer> {
    let (url, time_max) = (url(remote), deadline.remaining().ok()?.min(ANSWER_TIME_MAX));
    let request = http_client::client(&url, time_max, environment).get(&url);
    let request = if let Some(value) = authorization { request.header("Authorization", value) } else { request };
    let mut answer = request.call().ok()?;
    let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
    let (media_type, location) = (header("content-type").unwrap_or_default(), header("location"));
    let status = answer.status().as_u16();
    let mut start = [0; BEGINNING.len()];
    let has_beginning = answer.body_mut().as_reader().read_exact(&mut start).is_ok() && start == BEGINNING;
    Some(Answer {
        status,
        is_git: status == 200 && media_type.starts_with(MEDIA_TYPE) && has_beginning,
        media_type,
        location,
    })
}

/// Returns whether everyone can read an https repository. It counts as not public if there is no answer.
#[must_use]
pub fn is_public(remote: &RemoteUrl, deadline: &Deadline, environment: &[(String, String)]) -> bool {
    remote.scheme() == RemoteScheme::Https
        && ask(remote, None, deadline, environment).is_some_and(|answer| answer.is_git)
}

impl Git<'_> {
    /// Returns an error if a web server answers everything with a page. git takes a page for the list of refs of an old
    /// server, finds no ref in it, and so takes the repository for an empty one.
    pub(super) fn refuse_a_page(&self) -> Result<(), GitError> {
        if !self.remote.is_http() {
            return Ok(());
        }
        let header = self.access.iter().find(|(name, _)| name == "GIT_CONFIG_VALUE_0");
        let authorization = header.and_then(|(_, value)| value.strip_prefix("Authorization: "));
        match ask(self.remote, authorization, &self.run_env.deadline, &self.run_env.environment) {
            Some(Answer { status: 200, is_git: false, media_type, .. }) => Err(GitError::Remote {
                code: Code::GitFailed,
                message: format!(
                    "cannot read {} (branch `{}`): the answer is not git's ({}): a sign-in page stands in front of it, \
                     or GIT_REMOTE_URL is not the address of a repository on a git server",
                    self.remote,
                    self.branch,
                    self.run_env.redactor.redact(&media_type)
                ),
                is_passing: false,
            }),
            _ => Ok(()),
        }
    }

    /// Returns the target of the remote's redirect as the end of a message. The request has no credentials.
    pub(super) fn redirect_target(&self) -> String {
        let answer = ask(self.remote, None, &self.run_env.deadline, &self.run_env.environment);
        let location = answer.and_then(|answer| {
            let location = answer.location?;
            RemoteUrl::parse(location.split("/info/refs").next().unwrap_or_default()).ok()
        });
        location.map_or_else(String::new, |url| {
            format!("; it has moved to {url}: set GIT_REMOTE_URL to that if you trust it")
        })
    }
}
