//! Parses what git prints. `LC_ALL=C` keeps its messages in English.

use crate::git::{ObjectFormat, ObjectId};
use crate::model::Code;
use crate::net::http_client;

/// The remote's answer about the branch.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteState {
    /// The branch's tip; `None` if there is no such branch.
    pub tip: Option<ObjectId>,
    /// The object format; `None` if the answer has no object.
    pub format: Option<ObjectFormat>,
    /// Whether the branch that the remote's HEAD names exists. A clone checks out that branch.
    pub has_head: bool,
}

/// The result of a push.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The server accepted our ref.
    Accepted,
    /// Another writer was first: the tip is not the parent of our commit.
    Outrun(String),
    /// The server refuses the push for another reason than its parent.
    Refused(String),
}

pub(super) fn remote_state(listing: &[u8], full_ref: &str) -> RemoteState {
    let text = String::from_utf8_lossy(listing);
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let refs: Vec<_> = lines.filter_map(|(id, name)| Some((ObjectId::parse(id)?, name))).collect();
    // `git ls-remote` also lists names that only end with our ref, such as `x/refs/heads/main`.
    let find = |wanted: &str| refs.iter().find(|(_, name)| *name == wanted).map(|(id, _)| id.clone());
    let format = refs.first().map(|(id, _)| id.format());
    RemoteState { tip: find(full_ref), format, has_head: find("HEAD").is_some() }
}

/// Parses the line of `git push --porcelain` for our ref: `flag TAB from:to TAB summary (reason)`. The reason of a
/// refusal is followed by the server's lines in `tail`, such as the message of a hook.
pub(super) fn pushed(printed: &str, full_ref: &str, tail: &[String]) -> Option<Pushed> {
    printed.lines().find_map(|line| {
        let mut fields = line.splitn(3, '\t');
        let (flag, refs, summary) = (fields.next()?, fields.next()?, fields.next()?);
        if refs.split_once(':')?.1 != full_ref {
            return None;
        }
        let remote: Vec<_> = tail.iter().filter_map(|line| line.strip_prefix("remote:")).map(str::trim).collect();
        let why = if remote.is_empty() { summary.to_owned() } else { format!("{summary}: {}", remote.join("\n")) };
        Some(match flag {
            " " | "*" | "=" => Pushed::Accepted,
            "!" if is_race(summary) => Pushed::Outrun(why),
            _ => Pushed::Refused(why),
        })
    })
}

/// Returns the files for which a host refuses a push, from its message: GitHub's GH001 (a file is too large) and GH013
/// (a file contains a secret).
pub fn refused_paths(said: &str) -> Vec<String> {
    let too_large = |line: &'_ str| {
        // git's own text precedes the first line.
        let (named, _) = line.split_once("error: File ")?.1.split_once("; this exceeds")?;
        Some(named.rsplit_once(" is ")?.0.to_owned())
    };
    let with_secret = |line: &str| {
        let (path, number) = line.strip_prefix("path: ")?.rsplit_once(':')?;
        number.parse::<u32>().is_ok().then(|| path.to_owned())
    };
    let mut paths: Vec<_> =
        said.lines().map(str::trim).filter_map(|line| too_large(line).or_else(|| with_secret(line))).collect();
    paths.dedup();
    paths
}

/// Returns whether a refusal means that the tip moved: git saw that itself, or the server could not lock the ref with
/// the value that we read.
fn is_race(summary: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "(fetch first)",
        // No branch contains the first commit of our shallow history any more: the tip was moved by force.
        "(shallow update not allowed)",
        "(non-fast-forward)",
        "(stale info)",
        "cannot lock ref",
        "failed to lock",
        "failed to update ref",
        "reference already exists",
    ];
    summary.starts_with("[rejected]") || SIGNS.iter().any(|sign| summary.contains(sign))
}

/// What git prints if the remote answers with a redirect: the status begins with these digits.
pub(super) const REDIRECT: &str = "returned error: 30";

const HOST_KEY: Option<&str> = Some("the host's key is unknown or has changed");
const CREDENTIALS: Option<&str> = Some("the credentials were refused");
const NOT_FOLLOWED: Option<&str> =
    Some("the remote answers with a redirect, which is not followed since the token would go along");
const NO_REPOSITORY: Option<&str> = Some("there is no such repository, or it is hidden from this token");
const TOO_LARGE: Option<&str> = Some(
    "a proxy in front of the git host takes no body of this size (status 413): raise its limit, such as nginx's \
     client_max_body_size",
);

/// Texts in git's output, with the result code and the explanation for them. The first row with a matching text is
/// used.
const SIGNS: [(&str, Code, Option<&str>); 26] = [
    ("Host key verification failed", Code::GitUnreachable, HOST_KEY),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Code::GitUnreachable, HOST_KEY),
    ("No matching host key", Code::GitUnreachable, HOST_KEY),
    ("Load key ", Code::ConfigInvalid, Some("ssh cannot read GIT_SSH_KEY as a private key")),
    ("Authentication failed", Code::GitUnauthorized, CREDENTIALS),
    ("could not read Username", Code::GitUnauthorized, CREDENTIALS),
    ("could not read Password", Code::GitUnauthorized, CREDENTIALS),
    ("Permission denied (", Code::GitUnauthorized, CREDENTIALS),
    ("returned error: 401", Code::GitUnauthorized, CREDENTIALS),
    ("returned error: 403", Code::GitUnauthorized, CREDENTIALS),
    ("invalid credentials", Code::GitUnauthorized, CREDENTIALS),
    ("Too many authentication failures", Code::GitUnauthorized, CREDENTIALS),
    ("HTTP Basic: Access denied", Code::GitUnauthorized, CREDENTIALS),
    (REDIRECT, Code::GitFailed, NOT_FOLLOWED),
    ("HTTP 413", Code::GitRejected, TOO_LARGE),
    ("returned error: 413", Code::GitRejected, TOO_LARGE),
    ("returned error: 404", Code::GitFailed, NO_REPOSITORY),
    ("not found", Code::GitFailed, NO_REPOSITORY),
    ("does not appear to be a git repository", Code::GitFailed, NO_REPOSITORY),
    ("does not exist", Code::GitFailed, NO_REPOSITORY),
    ("RPC failed", Code::GitUnreachable, None),
    ("early EOF", Code::GitUnreachable, None),
    ("unexpected disconnect", Code::GitUnreachable, None),
    ("the remote end hung up", Code::GitUnreachable, None),
    ("Could not read from remote repository", Code::GitUnreachable, None),
    ("unable to access", Code::GitUnreachable, None),
];

/// Texts of our own git about the checkout or the disk: it cannot read an object that it has to send, or cannot write.
const OWN_SIGNS: [&str; 5] = [
    "error: Could not read ",
    "error: could not parse commit ",
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
];

/// Classifies what git printed on stderr: the result code, and the explanation if there is one. Returns `None` if our
/// checkout is taken as the cause (its objects, refs, list of shallow commits or disk): no known text matches, or our
/// own git failed at it. The server then hangs up too.
pub(super) fn classify(printed: &str) -> Option<(Code, Option<&'static str>)> {
    let mut own = printed.lines().filter(|line| !line.starts_with("remote:"));
    if own.any(|line| OWN_SIGNS.iter().any(|sign| line.contains(sign))) {
        return None;
    }
    SIGNS.iter().find(|(sign, ..)| printed.contains(sign)).map(|(_, code, why)| (*code, *why))
}

/// Returns whether a retry may reach the remote after this output. A bad certificate or a missing ssh does not change
/// by itself, and only some HTTP statuses are temporary.
pub(super) fn is_passing(printed: &str) -> bool {
    let status = ["returned error: ", "HTTP "].iter().find_map(|sign| {
        let digits = printed.split(sign).nth(1)?.get(..3)?;
        digits.parse().ok()
    });
    let permanent = ["certificate", "CAfile", "cannot start ssh", "No user exists for uid"];
    status.map_or(!permanent.iter().any(|sign| printed.contains(sign)), http_client::is_passing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn the_tip_is_that_of_our_branch() {
        let b = "b".repeat(40);
        let listing = format!("{A}\tHEAD\n{b}\trefs/heads/x/refs/heads/main\n");
        let state = remote_state(listing.as_bytes(), "refs/heads/main");
        assert_eq!(state, RemoteState { tip: None, format: Some(ObjectFormat::Sha1), has_head: true });
        assert!(!remote_state(format!("{A}\trefs/heads/main\n").as_bytes(), "refs/heads/main").has_head);
        let listing = format!("{listing}{b}\trefs/heads/main\n");
        assert_eq!(remote_state(listing.as_bytes(), "refs/heads/main").tip, ObjectId::parse(&b));
        assert_eq!(remote_state(b"", "refs/heads/main"), RemoteState { tip: None, format: None, has_head: false });
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "rows of a table")]
    fn check_push(line: &str, expected: Option<Pushed>) {
        let printed = format!("To http://host/repo.git\n{line}\nDone\n");
        assert_eq!(pushed(&printed, "refs/heads/main", &[]), expected);
    }

    #[test]
    fn only_an_ok_to_our_ref_is_a_success() {
        check_push(&format!("*\t{A}:refs/heads/main\t[new branch]"), Some(Pushed::Accepted));
        check_push(&format!(" \t{A}:refs/heads/main\tabc..def"), Some(Pushed::Accepted));
        check_push(&format!("=\t{A}:refs/heads/main\t[up to date]"), Some(Pushed::Accepted));
        check_push(&format!(" \t{A}:refs/heads/main2\tabc..def"), None);
        let outrun = |summary: &str| Some(Pushed::Outrun(summary.to_owned()));
        let refused = |summary: &str| Some(Pushed::Refused(summary.to_owned()));
        let line = |summary: &str| format!("!\t{A}:refs/heads/main\t{summary}");
        check_push(&line("[rejected] (fetch first)"), outrun("[rejected] (fetch first)"));
        let locked = "[remote rejected] (cannot lock ref 'refs/heads/main': is at a but expected b)";
        check_push(&line(locked), outrun(locked));
        let hook = "[remote rejected] (pre-receive hook declined)";
        check_push(&line(hook), refused(hook));
        check_push(&line("[remote failure]"), refused("[remote failure]"));
        check_push("", None);
    }

    #[test]
    fn the_refused_files_are_read_from_the_message_of_the_host() {
        let large = "[remote rejected] (pre-receive hook declined): error: File f/first.ts is 101.00 MB; this exceeds GitHub's \
                     file size limit of 100.00 MB\nerror: See https://gh.io/lfs for more information.\n\
                     error: File f/a is big.ts is 150.00 MB; this exceeds GitHub's file size limit of 100.00 MB\n\
                     warning: File f/b.ts is 60.00 MB; this is larger than GitHub's recommended maximum\n\
                     error: GH001: Large files detected.";
        assert_eq!(refused_paths(large), ["f/first.ts", "f/a is big.ts"]);
        let secret = "error: GH013: Repository rule violations found for refs/heads/main.\n- GITHUB PUSH PROTECTION\n\
                      locations:\n  - commit: 8728dae6\n    path: f/a.py:4\n  - commit: 8728dae6\n    path: f/a.py:9\n\
                      - commit: 8728dae6\n    path: f/x:y.resource.yaml:12\npath: none";
        assert_eq!(refused_paths(secret), ["f/a.py", "f/x:y.resource.yaml"]);
        assert!(refused_paths("error: GH006: Protected branch update failed for refs/heads/main.").is_empty());
    }

    #[track_caller]
    fn check_class(printed: &str, expected: Code) {
        assert_eq!(classify(printed).map_or(Code::GitFailed, |(code, _)| code), expected, "{printed}");
    }

    #[test]
    fn failures_of_git_are_classified_by_its_output() {
        check_class("fatal: unable to access 'http://h/': Could not resolve host: h", Code::GitUnreachable);
        check_class("fatal: unable to access 'http://h/': The requested URL returned error: 503", Code::GitUnreachable);
        check_class(
            "fatal: unable to access 'http://h/': The requested URL returned error: 403",
            Code::GitUnauthorized,
        );
        check_class("fatal: could not read Username for 'http://h': terminal prompts disabled", Code::GitUnauthorized);
        check_class(
            "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
            Code::GitUnauthorized,
        );
        check_class(
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            Code::GitUnreachable,
        );
        check_class(
            "Load key \"/x/ssh_key\": error in libcrypto\ngit@h: Permission denied (publickey).",
            Code::ConfigInvalid,
        );
        check_class("error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413", Code::GitRejected);
        check_class("fatal: repository 'http://h/r.git/' not found", Code::GitFailed);
        check_class("fatal: unable to access 'http://h/': The requested URL returned error: 301", Code::GitFailed);
        check_class("fatal: something new", Code::GitFailed);
        check_class("fatal: the remote end hung up unexpectedly", Code::GitUnreachable);
        let local_damage = "error: Could not read 0123\nerror: could not parse commit 0123\nfatal: the remote end hung up \
                       unexpectedly";
        check_class(local_damage, Code::GitFailed);
        assert!(classify(local_damage).is_none());
    }

    #[track_caller]
    fn check_passing(printed: &str, expected: bool) {
        let is_unexplained = classify(printed) == Some((Code::GitUnreachable, None));
        assert_eq!(is_unexplained && is_passing(printed), expected, "{printed}");
    }

    #[test]
    fn temporary_failures_are_distinguished_from_permanent_ones() {
        let url = "fatal: unable to access 'http://h/': ";
        for (why, expected) in [
            ("Could not resolve host: h", true),
            ("Failed to connect to h port 1: Connection refused", true),
            ("The requested URL returned error: 503", true),
            ("The requested URL returned error: 429", true),
            ("The requested URL returned error: 400", false),
            ("The requested URL returned error: 401", false),
            ("The requested URL returned error: 404", false),
            ("server certificate verification failed. CAfile: none CRLfile: none", false),
            ("SSL certificate problem: certificate has expired", false),
            ("gnutls_handshake() failed: The TLS connection was non-properly terminated.", true),
            ("OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to h:443", true),
        ] {
            check_passing(&format!("{url}{why}"), expected);
        }
        check_passing("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", true);
        check_passing("error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413", false);
        check_passing("fatal: the remote end hung up unexpectedly", true);
        check_passing("Host key verification failed.\nfatal: Could not read from remote repository.", false);
        check_passing("fatal: something new", false);
    }
}
