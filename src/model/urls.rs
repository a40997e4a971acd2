//! The names that settings and requests bring (workspace, branch, remote, folder, author), parsed once at the edge and
//! trusted after; and which names no file in a repository can have. It knows what git, ssh and Windmill would make of a
//! name; it does not know which setting or field a name came from, nor whether what it names exists.

use std::fmt;

use crate::percent;
use crate::secret::Secret;

/// Windmill's own limit for a workspace id.
const WORKSPACE_BYTES_MAX: usize = 50;
/// File systems hold names of 255 bytes, and git appends `.lock` to a ref's last part.
const BRANCH_BYTES_MAX: usize = 200;
/// A path prefix has to leave room for Windmill's own paths below it.
const SUBDIR_BYTES_MAX: usize = 200;
/// More than any forge gives out, little enough to be an argument.
const URL_BYTES_MAX: usize = 2_000;
/// A line of a commit's header should stay readable.
const IDENTITY_BYTES_MAX: usize = 200;
/// What is shown of a refused value.
const QUOTED_CHARS_MAX: usize = 80;

/// Why a name was refused. Its text names the value, unless that could hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl NameError {
    fn new(what: &str, value: &str, why: &str) -> Self {
        Self([what, " ", &quoted(value), " ", why].concat())
    }

    /// For URLs: shown only where nothing in it can be a credential.
    fn of_url(what: &str, url: &str, why: &str) -> Self {
        if url.contains("://") && !url.contains(['@', '?', '#']) {
            Self::new(what, url, why)
        } else {
            Self([what, " ", why].concat())
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for NameError {}

/// `text` in quotes, with what is not printable escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Whether a file in a repository can have this as a part of its path: it leads nowhere else, and git can hold it. This is
/// all that git asks for; who needs more asks for more.
pub(crate) fn is_storable(part: &[u8]) -> bool {
    !matches!(part, b"" | b"." | b"..") && !is_gits_own(part)
}

/// Whether git keeps this name for its own files, in any case since file systems may know no case.
pub(crate) fn is_gits_own(part: &[u8]) -> bool {
    part.eq_ignore_ascii_case(b".git")
}

/// A rule, and what to say of a name that breaks it.
type Rule = (bool, &'static str);

/// What to say of the first rule that is broken.
fn first_broken(rules: &[Rule]) -> Result<(), &'static str> {
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, why)) => Err(why),
        None => Ok(()),
    }
}

/// The text of a name that is nothing but its text.
macro_rules! text_of {
    ($name:ident) => {
        impl $name {
            /// The name's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

/// What stands for the workspace's id in a template.
pub const WORKSPACE_MARK: &str = "{workspace}";

/// Replaces each [`WORKSPACE_MARK`] in `template`.
#[must_use]
pub fn fill(template: &str, workspace: &WorkspaceId) -> String {
    template.replace(WORKSPACE_MARK, workspace.as_str())
}

/// The id of a Windmill workspace: letters, digits, `_` and `-`, so that it is safe in a path, a URL and a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceId(String);

text_of!(WorkspaceId);

impl WorkspaceId {
    /// Takes an id of 1 to 50 bytes.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, starts with a dash or has another character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        first_broken(&[
            (text.is_empty(), "is empty"),
            (text.len() > WORKSPACE_BYTES_MAX, "is longer than 50 bytes"),
            (text.starts_with('-'), "starts with a dash"),
            (
                !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
                "has another character than letters, digits, _ and -",
            ),
        ])
        .map_err(|why| NameError::new("workspace id", text, why))?;
        Ok(Self(text.to_owned()))
    }
}

/// The short name of a branch, such as `main`, by the rules of `git check-ref-format --branch` and a few of our own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BranchName(String);

text_of!(BranchName);

impl BranchName {
    /// Takes a short name of at most 200 bytes.
    ///
    /// # Errors
    ///
    /// When git would refuse it, when it is a full ref, and when `wmill` would take it as an order: from a branch that
    /// starts with `wm-fork` it concludes that another workspace is meant.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        first_broken(&[
            (text.is_empty(), "is empty"),
            (text.len() > BRANCH_BYTES_MAX, "is longer than 200 bytes"),
            (text.starts_with("refs/"), "is a full ref: give the short name, without refs/heads/"),
            (text == "@" || text == "HEAD", "is git's name for the current commit, not a branch"),
            (
                text.starts_with("wm-fork"),
                "starts with wm-fork, from which wmill concludes that another workspace is meant",
            ),
            (text.starts_with('-'), "starts with a dash"),
            (text.contains(".."), "has two dots in a row"),
            (text.contains("@{"), "has @{ in it"),
            (
                text.contains(|letter: char| letter.is_control() || " ~^:?*[\\".contains(letter)),
                "has a space, a control character or one of ~ ^ : ? * [ \\",
            ),
            (parts.clone().any(str::is_empty), "has a slash at an end, or two in a row"),
            (
                parts.any(|part| part.starts_with('.') || part.ends_with(".lock")),
                "has a part that starts with a dot or ends in .lock",
            ),
            (text.ends_with('.'), "ends in a dot"),
        ])
        .map_err(|why| NameError::new("branch name", text, why))?;
        Ok(Self(text.to_owned()))
    }

    /// Fills `{workspace}` in and takes the outcome.
    ///
    /// # Errors
    ///
    /// As [`BranchName::parse`], and when braces are left, since that is a mistyped `{workspace}`.
    pub fn from_template(template: &str, workspace: &WorkspaceId) -> Result<Self, NameError> {
        let text = fill(template, workspace);
        refuse_braces("branch name", &text)?;
        Self::parse(&text)
    }

    /// The full name, such as `refs/heads/main`.
    #[must_use]
    pub fn full_ref(&self) -> String {
        ["refs/heads/", &self.0].concat()
    }
}

/// A folder in the repository, or its root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subdir(String);

text_of!(Subdir);

impl Subdir {
    /// Takes a path relative to the repository's root; slashes at its ends are dropped. The empty text, `/` and `.` are
    /// the root.
    ///
    /// # Errors
    ///
    /// When it would lead out of the repository or into git's own files, when git or a file system could not hold it,
    /// and when it is longer than 200 bytes.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let path = text.trim_matches('/');
        if path.is_empty() || path == "." {
            return Ok(Self(String::new()));
        }
        let mut parts = path.split('/');
        // The parts are to be storable, each fault told by itself; and a name that a person chose is held to more than
        // those that are in a repository already.
        first_broken(&[
            (path.len() > SUBDIR_BYTES_MAX, "is longer than 200 bytes"),
            (path.starts_with('-'), "starts with a dash"),
            (parts.clone().any(str::is_empty), "has two slashes in a row"),
            (parts.clone().any(|part| part == "." || part == ".."), "has . or .. in it"),
            (
                // `git~1` is what `.git` is called too on file systems with short names; a git that is not told
                // otherwise, as ours is, refuses both.
                parts.any(|part| is_gits_own(part.as_bytes()) || part.eq_ignore_ascii_case("git~1")),
                "leads into git's own files",
            ),
            (
                // The latter have a meaning in git's path patterns and in its output.
                path.contains(|letter: char| letter.is_control() || "\\:*?[\"<>|".contains(letter)),
                "has a control character or one of \\ : * ? [ \" < > |",
            ),
        ])
        .map_err(|why| NameError::new("folder", text, why))?;
        Ok(Self(path.to_owned()))
    }

    /// Fills `{workspace}` in and takes the outcome.
    ///
    /// # Errors
    ///
    /// As [`Subdir::parse`], and when braces are left, since that is a mistyped `{workspace}`.
    pub fn from_template(template: &str, workspace: &WorkspaceId) -> Result<Self, NameError> {
        let text = fill(template, workspace);
        refuse_braces("folder", &text)?;
        Self::parse(&text)
    }

    /// Whether it is the repository's root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands before each path of this folder in the repository: nothing for the root, else `folder/`.
    #[must_use]
    pub fn prefix(&self) -> String {
        if self.is_root() { String::new() } else { [&self.0, "/"].concat() }
    }
}

fn refuse_braces(what: &str, text: &str) -> Result<(), NameError> {
    let why = "has braces in it: only {workspace} is replaced";
    if text.contains(['{', '}']) { Err(NameError::new(what, text, why)) } else { Ok(()) }
}

/// The name and address in a commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    name: String,
    email: String,
}

impl Identity {
    /// Takes a name and an address; spaces at their ends are dropped.
    ///
    /// # Errors
    ///
    /// When git would find nothing in one of them, when one would break a commit's header, or is longer than 200 bytes.
    pub fn parse(name: &str, email: &str) -> Result<Self, NameError> {
        Ok(Self::of_parts(Self::part("user name", name)?, Self::part("user email", email)?))
    }

    /// Of two that were each checked by [`Identity::part`].
    pub(crate) fn of_parts(name: String, email: String) -> Self {
        Self { name, email }
    }

    /// One of the two, so that each can be checked, and its fault told, by itself.
    pub(crate) fn part(what: &str, text: &str) -> Result<String, NameError> {
        let text = text.trim();
        first_broken(&[
            (text.is_empty(), "is empty"),
            (text.len() > IDENTITY_BYTES_MAX, "is longer than 200 bytes"),
            (
                text.contains(|letter: char| letter.is_control() || letter == '<' || letter == '>'),
                "has a control character, < or >",
            ),
            // git strips these from the ends, and refuses what has nothing else.
            (text.chars().all(|letter| " .,:;\"\\'".contains(letter)), "has nothing but punctuation"),
        ])
        .map_err(|why| NameError::new(what, text, why))?;
        Ok(text.to_owned())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address.
    #[must_use]
    pub fn email(&self) -> &str {
        &self.email
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} <{}>", self.name, self.email)
    }
}

/// Where Windmill is: an `http` or `https` URL, its path prefix included, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(String);

text_of!(BaseUrl);

impl BaseUrl {
    /// Takes a URL; slashes at its end are dropped.
    ///
    /// # Errors
    ///
    /// When it is no `http` or `https` URL, or has user info, a query or a fragment.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::normalized(text).map(Self).map_err(|why| NameError::of_url("base URL", text, why))
    }

    fn normalized(text: &str) -> Result<String, &'static str> {
        check_url_characters(text)?;
        let (scheme, rest) = split_scheme(text).ok_or("does not start with http:// or https://")?;
        if scheme != "http" && scheme != "https" {
            return Err("does not start with http:// or https://");
        }
        let url = Authority::split(rest)?;
        if url.user_info.is_some() {
            return Err("has a user or a token in it: put the token into WINDMILL_TOKEN");
        }
        Ok([&scheme, "://", rest.trim_end_matches('/')].concat())
    }

    /// The URL of `path` below this one; `path` is trusted. The empty path gives the base with a slash at its end.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        [&self.0, "/", path.trim_start_matches('/')].concat()
    }
}

/// By which protocol a remote is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteScheme {
    /// `https://`
    Https,
    /// `http://`
    Http,
    /// `ssh://`, or `user@host:path`
    Ssh,
    /// `file:///`, a bare repository on a volume
    File,
}

/// The URL of a git remote, without any credential in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    text: String,
    scheme: RemoteScheme,
    host: String,
}

/// What a URL had before its host, decoded.
struct UserInfo {
    user: Option<String>,
    password: Option<Secret>,
}

const REMOTE: &str = "remote URL";
const NO_REMOTE: &str = "is none of https://…, http://…, ssh://…, user@host:path and file:///…";

impl RemoteUrl {
    /// Takes the URL of a remote in one of the four forms that git's own transports know.
    ///
    /// # Errors
    ///
    /// When it has another form (`ext::` and its like would run a program), a credential in it, or a part that ssh or
    /// git would take as an option.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = |why| NameError::of_url(REMOTE, text, why);
        let (url, user_info) = Self::split(text).map_err(refuse)?;
        if user_info.is_some() {
            return Err(refuse(
                "has a user or a token in it: put the user into GIT_USERNAME and the token into GIT_TOKEN, in a request \
                 into `git_token`",
            ));
        }
        Ok(url)
    }

    /// Takes a URL as Windmill's `git_repository` resource has it, `https://user:token@host/…` or
    /// `https://token@host/…`, and gives the URL without them, the user and the token.
    ///
    /// # Errors
    ///
    /// As [`RemoteUrl::parse`], user and token of an http(s) URL excepted.
    pub fn parse_with_credentials(text: &str) -> Result<(Self, Option<String>, Option<Secret>), NameError> {
        let (url, user_info) = Self::split(text).map_err(|why| NameError::of_url(REMOTE, text, why))?;
        Ok(match user_info {
            Some(UserInfo { user, password }) => (url, user, password),
            None => (url, None, None),
        })
    }

    fn split(text: &str) -> Result<(Self, Option<UserInfo>), &'static str> {
        check_url_characters(text)?;
        let Some((scheme, rest)) = split_scheme(text) else {
            return Ok((Self::from_scp_form(text)?, None));
        };
        if scheme == "file" {
            check_remote_path(rest)?;
            let text = ["file://", rest].concat();
            return Ok((Self { text, scheme: RemoteScheme::File, host: String::new() }, None));
        }
        let known = match scheme.as_str() {
            "https" => RemoteScheme::Https,
            "http" => RemoteScheme::Http,
            "ssh" => RemoteScheme::Ssh,
            _ => return Err(NO_REMOTE),
        };
        let url = Authority::split(rest)?;
        check_remote_path(url.path)?;
        let (rest, user_info) = match (known, url.user_info) {
            (RemoteScheme::Ssh, Some(user)) => {
                check_ssh_user(user)?;
                (rest, None)
            }
            // What follows the user info begins after the last `@` of the authority.
            (_, Some(info)) => (&rest[info.len() + 1..], Some(UserInfo::decode(info)?)),
            (_, None) => (rest, None),
        };
        let text = [&scheme, "://", rest].concat();
        Ok((Self { text, scheme: known, host: url.host.to_owned() }, user_info))
    }

    /// `user@host:path`. The user is required: without it, `host:path` looks too much like `transport::address`.
    fn from_scp_form(text: &str) -> Result<Self, &'static str> {
        let (login, path) = text.split_once(':').ok_or(NO_REMOTE)?;
        let (user, host) = login.rsplit_once('@').ok_or(NO_REMOTE)?;
        check_ssh_user(user)?;
        check_host(host)?;
        first_broken(&[
            (path.is_empty() || path == "/", "has no path"),
            (path.starts_with('-') || path.starts_with("/-"), "has a path that starts with a dash"),
            (path.starts_with(':'), NO_REMOTE),
        ])?;
        Ok(Self { text: text.to_owned(), scheme: RemoteScheme::Ssh, host: host.to_owned() })
    }

    /// The URL, as git is given it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// By which protocol it is reached.
    #[must_use]
    pub fn scheme(&self) -> RemoteScheme {
        self.scheme
    }

    /// Whether git speaks HTTP with it, so that a token goes with it.
    #[must_use]
    pub fn is_http(&self) -> bool {
        matches!(self.scheme, RemoteScheme::Https | RemoteScheme::Http)
    }

    /// The host without its port; the empty text for a file.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Scheme, host and port with a slash, for git's `http.<origin>.extraHeader`; only http and https have one.
    #[must_use]
    pub fn origin(&self) -> Option<String> {
        if !self.is_http() {
            return None;
        }
        let (scheme, rest) = self.text.split_once("://")?;
        let (authority, _) = rest.split_once('/')?;
        Some([scheme, "://", authority, "/"].concat())
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl UserInfo {
    fn decode(info: &str) -> Result<Self, &'static str> {
        let (user, password) = info.split_once(':').unwrap_or((info, ""));
        let decoded = |text| percent::decode(text).ok_or("has a user or a token in it that is not percent-encoded");
        let (user, password) = (decoded(user)?, decoded(password)?);
        first_broken(&[
            (user.contains(char::is_control) || password.contains(char::is_control), "has a control character in it"),
            (user.contains(':'), "has a user with a colon in it"),
        ])?;
        // A token alone stands where a user would; some write it so with GitHub's word for "no password".
        Ok(if password.is_empty() || password == "x-oauth-basic" {
            Self { user: None, password: given(user).map(Secret::new) }
        } else {
            Self { user: given(user), password: Some(Secret::new(password)) }
        })
    }
}

fn given(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// The part of a URL after `scheme://`.
struct Authority<'a> {
    user_info: Option<&'a str>,
    host: &'a str,
    /// Empty, or from its slash on.
    path: &'a str,
}

impl<'a> Authority<'a> {
    fn split(rest: &'a str) -> Result<Self, &'static str> {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, place) = match authority.rsplit_once('@') {
            Some((user_info, place)) => (Some(user_info), place),
            None => (None, authority),
        };
        let (host, port) = match place.find(']') {
            Some(end) if place.starts_with('[') => place.split_at(end + 1),
            _ => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => {}
            _ => check_host(host)?,
        }
        if !port.is_empty() {
            check_port(&port[1..])?;
        }
        Ok(Self { user_info, host, path })
    }
}

fn check_port(port: &str) -> Result<(), &'static str> {
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if is_number => Ok(()),
        _ => Err("has a port that is not a number from 1 to 65535"),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    first_broken(&[
        (host.is_empty(), "has no host"),
        (host.starts_with('-'), "has a host that starts with a dash"),
        (
            !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
            "has a host with another character than letters, digits, dots, _ and -",
        ),
    ])
}

/// Percent signs are refused with the rest: git decodes them, and ssh would see what stands behind them.
fn check_ssh_user(user: &str) -> Result<(), &'static str> {
    first_broken(&[
        (user.contains(':'), "has a password in it: ssh remotes take a key, GIT_SSH_KEY"),
        (user.is_empty(), "has an empty user"),
        (user.starts_with('-'), "has a user that starts with a dash"),
        (
            !user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte)),
            "has a user with another character than letters, digits, dots, _, - and +",
        ),
    ])
}

fn check_remote_path(path: &str) -> Result<(), &'static str> {
    // git decodes the path of ssh and file URLs.
    let decoded = percent::decode(path).ok_or("has a percent sign in its path that encodes nothing")?;
    first_broken(&[
        (!path.is_empty() && !path.starts_with('/'), "has a host: a file URL has three slashes"),
        (decoded.trim_matches('/').is_empty(), "has no path"),
        (decoded.trim_start_matches('/').starts_with('-'), "has a path that starts with a dash"),
        (decoded.contains(char::is_control), "has a control character in its path"),
    ])
}

fn check_url_characters(text: &str) -> Result<(), &'static str> {
    first_broken(&[
        (text.is_empty(), "is empty"),
        (text.len() > URL_BYTES_MAX, "is longer than 2000 bytes"),
        (
            text.contains(|letter: char| letter.is_control() || letter.is_whitespace() || letter == '\\'),
            "has a space, a control character or a backslash",
        ),
        (text.contains(['?', '#']), "has a query or a fragment"),
    ])
}

/// The scheme in lower case, since git knows its transports by that alone, and what follows `://`.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    Some((scheme.to_ascii_lowercase(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of `accepted` passes, and each of `refused` does not, with its word in the message.
    #[track_caller]
    fn check<T>(parse: fn(&str) -> Result<T, NameError>, accepted: &[&str], refused: &[(&str, &str)]) {
        for text in accepted {
            if let Err(error) = parse(text) {
                panic!("{text:?} was refused: {error}");
            }
        }
        for (text, word) in refused {
            match parse(text) {
                Ok(_) => panic!("{text:?} was accepted"),
                Err(error) => assert!(error.to_string().contains(word), "{text:?}: {error}"),
            }
        }
    }

    #[test]
    fn a_part_of_a_path_is_storable_where_git_can_hold_it() {
        for part in ["a", "...", "..a", ".gitignore", "a.git", "git~1", "a\\b", "a\nb", " "] {
            assert!(is_storable(part.as_bytes()), "{part:?}");
        }
        assert!(is_storable(b"\xff"));
        for part in ["", ".", "..", ".git", ".GIT", ".gIt"] {
            assert!(!is_storable(part.as_bytes()), "{part:?}");
        }
    }

    fn workspace(id: &str) -> WorkspaceId {
        WorkspaceId::parse(id).unwrap()
    }

    #[test]
    fn a_workspace_id_is_safe_in_a_path() {
        let (longest, too_long) = ("a".repeat(50), "a".repeat(51));
        let refused = [
            ("", "empty"),
            (too_long.as_str(), "50"),
            ("-x", "dash"),
            ("a b", "letters"),
            ("a,b", "letters"),
            ("*", "letters"),
            ("..", "letters"),
            ("a/b", "letters"),
            ("ä", "letters"),
        ];
        check(WorkspaceId::parse, &["admins", "a", "_x", "A-b_9", &longest], &refused);
    }

    #[test]
    fn a_branch_name_is_one_that_git_takes() {
        let (longest, too_long) = ("b".repeat(200), "b".repeat(201));
        let accepted = ["main", "a/b", "x.y", "a@b", "@a", "a-", "heads/x", "wm-for", "a.locks", "ü", "{x}", &longest];
        let refused = [
            ("", "empty"),
            (too_long.as_str(), "200"),
            ("refs/heads/main", "short name"),
            ("HEAD", "current commit"),
            ("@", "current commit"),
            ("wm-fork-x", "wm-fork"),
            ("-a", "dash"),
            ("a..b", "dots"),
            ("a@{1", "@{"),
            ("a b", "space"),
            ("a\tb", "\\t"),
            ("a\u{7f}", "control"),
            ("a~1", "space"),
            ("a^", "space"),
            ("a:b", "space"),
            ("a?", "space"),
            ("a*", "space"),
            ("a[", "space"),
            ("a\\b", "space"),
            ("/a", "slash"),
            ("a/", "slash"),
            ("a//b", "slash"),
            (".a", "dot"),
            ("a/.b", "dot"),
            ("a.lock", ".lock"),
            ("a.lock/b", ".lock"),
            ("a.", "dot"),
        ];
        check(BranchName::parse, &accepted, &refused);
        assert_eq!(BranchName::parse("a/b").unwrap().full_ref(), "refs/heads/a/b");
    }

    #[test]
    fn a_folder_stays_in_the_repository_and_out_of_git() {
        let (longest, too_long) = ("d".repeat(200), "d".repeat(201));
        let accepted = ["", "/", ".", "backup", "/backup/", "a/b c/ü", ".github/x", "a/-b", "a.git", &longest];
        let refused = [
            (too_long.as_str(), "200"),
            ("..", ".."),
            ("a/../b", ".."),
            ("./a", "."),
            ("a//b", "slashes"),
            (".git", "git's own"),
            ("a/.GIT/hooks", "git's own"),
            ("GIT~1", "git's own"),
            ("-a", "dash"),
            ("/-a", "dash"),
            ("a\\b", "control"),
            ("a\nb", "control"),
            (":(top)", "control"),
            ("a*", "control"),
        ];
        check(Subdir::parse, &accepted, &refused);
        let backup = Subdir::parse("/backup/x/").unwrap();
        assert_eq!((backup.as_str(), backup.prefix().as_str(), backup.is_root()), ("backup/x", "backup/x/", false));
        let root = Subdir::parse("/").unwrap();
        assert_eq!((root.as_str(), root.prefix().as_str(), root.is_root()), ("", "", true));
    }

    #[test]
    fn a_template_knows_the_workspace_and_nothing_else() {
        let shop = workspace("shop");
        assert_eq!(fill("{workspace}: {x} {workspace}", &shop), "shop: {x} shop");
        assert_eq!(BranchName::from_template("w/{workspace}", &shop).unwrap().as_str(), "w/shop");
        assert_eq!(Subdir::from_template("/{workspace}", &shop).unwrap().as_str(), "shop");
        for mistyped in ["w/{workspce}", "{workspace", "a}"] {
            assert!(BranchName::from_template(mistyped, &shop).is_err(), "{mistyped}");
            assert!(Subdir::from_template(mistyped, &shop).is_err(), "{mistyped}");
        }
    }

    #[test]
    fn an_author_fits_a_commit_header() {
        check(
            |name| Identity::parse(name, "a@b"),
            &["Ann", " Ann O'B ", "ü"],
            &[("", "empty"), ("  ", "empty"), ("a<b", "<"), ("a>b", ">"), ("a\nb", "control"), (".,", "punctuation")],
        );
        check(|email| Identity::parse("Ann", email), &["a@b", "none"], &[("", "user email"), ("<a@b>", "<")]);
        assert_eq!(Identity::parse(" Ann ", "a@b").unwrap().to_string(), "Ann <a@b>");
    }

    #[test]
    fn a_base_url_is_http_and_keeps_its_prefix() {
        check(
            BaseUrl::parse,
            &["http://h", "https://h.example:8443/windmill/", "HTTP://[::1]:80"],
            &[
                ("", "empty"),
                ("h:8000", "http://"),
                ("ftp://h", "http://"),
                ("http://", "no host"),
                ("http:///x", "no host"),
                ("http://h:0", "port"),
                ("http://h:", "port"),
                ("http://h:+5", "port"),
                ("http://h:65536", "port"),
                ("http://[::1", "host"),
                ("http://[]", "host"),
                ("http://-h", "dash"),
                ("http://h x", "space"),
                ("http://h/?t=1", "query"),
                ("http://h/#t", "fragment"),
                ("http://token@h", "WINDMILL_TOKEN"),
            ],
        );
        let base = BaseUrl::parse("https://h:1/w//").unwrap();
        assert_eq!((base.as_str(), base.join("/api/version").as_str()), ("https://h:1/w", "https://h:1/w/api/version"));
        assert_eq!(base.join(""), "https://h:1/w/");
    }

    #[test]
    fn a_remote_has_one_of_four_forms_and_no_credential() {
        let accepted = [
            "https://h/x",
            "http://h:3000/a/b.git",
            "https://[::1]:3000/x",
            "ssh://git@h:22/x",
            "ssh://h/~x",
            "git@h:x.git",
            "a.b@h:/abs",
            "file:///x/y.git",
        ];
        let refused = [
            ("", "empty"),
            ("/x", "none of"),
            ("x", "none of"),
            ("h:x", "none of"),
            ("C:\\x", "backslash"),
            ("ext::sh -c x", "space"),
            ("ext::x", "none of"),
            ("fd::17/foo", "none of"),
            ("git://h/x", "none of"),
            ("git+ssh://h/x", "none of"),
            ("https::https://h/x", "none of"),
            ("https://h", "no path"),
            ("https://h/", "no path"),
            ("https:///x", "no host"),
            ("https://-h/x", "dash"),
            ("https://h/-x", "dash"),
            ("https://h/%zz", "percent"),
            ("https://h/%0ax", "control"),
            ("https://h/x?t=1", "query"),
            ("https://h/x#t", "fragment"),
            ("https://h/x y", "space"),
            ("https://u@h/x", "GIT_TOKEN"),
            ("https://@h/x", "GIT_TOKEN"),
            ("https://u:p@h/x", "GIT_TOKEN"),
            ("ssh://git:p@h/x", "password"),
            ("ssh://@h/x", "empty user"),
            ("ssh://-oProxyCommand=x/y", "dash"),
            ("ssh://%2doProxyCommand/y", "host"),
            ("ssh://-l@h/x", "dash"),
            ("ssh://%2dl@h/x", "user"),
            ("ssh://git@h:team/x", "port"),
            ("ssh://h/%2dx", "dash"),
            ("git@h:", "no path"),
            ("git@h:-x", "dash"),
            ("git@h::x", "none of"),
            ("git@-h:x", "dash"),
            ("-x@h:y", "dash"),
            ("a/b@h:x", "user"),
            ("@h:x", "empty user"),
            ("file://h/x", "three slashes"),
            ("file:///", "no path"),
            ("file://", "no path"),
            ("file:x", "none of"),
        ];
        check(RemoteUrl::parse, &accepted, &refused);
    }

    #[test]
    fn a_remote_knows_its_host_and_origin() {
        for (text, scheme, host, origin) in [
            ("HTTPS://h:3/x", RemoteScheme::Https, "h", Some("https://h:3/")),
            ("http://[::1]/x/y", RemoteScheme::Http, "[::1]", Some("http://[::1]/")),
            ("ssh://git@h:22/x", RemoteScheme::Ssh, "h", None),
            ("git@h:x", RemoteScheme::Ssh, "h", None),
            ("file:///x", RemoteScheme::File, "", None),
        ] {
            let url = RemoteUrl::parse(text).unwrap();
            assert_eq!((url.scheme(), url.host(), url.origin().as_deref()), (scheme, host, origin), "{text}");
        }
    }

    #[test]
    fn credentials_come_out_of_the_url_of_a_resource() {
        #[track_caller]
        fn check(text: &str, url: &str, user: Option<&str>, token: Option<&str>) {
            let (found, found_user, found_token) = RemoteUrl::parse_with_credentials(text).unwrap();
            assert_eq!((found.as_str(), found_user.as_deref()), (url, user));
            assert!(found_token.as_ref().map(Secret::expose) == token, "{text}");
        }
        check("https://h/x", "https://h/x", None, None);
        check("https://u:t%40%2F@h:3/x", "https://h:3/x", Some("u"), Some("t@/"));
        check("https://u:a@b:c@h/x", "https://h/x", Some("u"), Some("a@b:c"));
        check("https://tok@h/x", "https://h/x", None, Some("tok"));
        check("https://tok:@h/x", "https://h/x", None, Some("tok"));
        check("https://tok:x-oauth-basic@h/x", "https://h/x", None, Some("tok"));
        check("https://:tok@h/x", "https://h/x", None, Some("tok"));
        check("https://@h/x", "https://h/x", None, None);
        check("ssh://git@h/x", "ssh://git@h/x", None, None);
        check("git@h:x", "git@h:x", None, None);
    }

    #[test]
    fn credentials_that_cannot_be_sent_are_refused() {
        for text in
            ["https://u:%0a@h/x", "https://u:%ff@h/x", "https://u:%@h/x", "https://a%3Ab:t@h/x", "ssh://u:t@h/x"]
        {
            assert!(RemoteUrl::parse_with_credentials(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_never_shows_what_may_be_a_secret() {
        for text in [
            "https://u:hunter2@h/x",
            "https://hunter2@h/x",
            "https://u:hun/hunter2@h/x",
            "ssh://u:hunter2@h/x",
            "https://h/x?t=hunter2",
            "https://h/x#hunter2",
            "hunter2",
            "https:/u:hunter2@h/x",
            "https://u:hunter2 @h/x",
        ] {
            for message in [
                RemoteUrl::parse(text).unwrap_err().to_string(),
                BaseUrl::parse(text).unwrap_err().to_string(),
                RemoteUrl::parse_with_credentials(text).err().map(|error| error.to_string()).unwrap_or_default(),
            ] {
                assert!(!message.contains("hunter2"), "{text}: {message}");
            }
        }
    }

    #[test]
    fn a_refusal_shows_the_value_escaped_and_cut() {
        let error = BranchName::parse("a\u{1b}[31m\n").unwrap_err();
        assert!(error.to_string().starts_with("branch name \"a\\u{1b}[31m\\n\" has"), "{error}");
        let error = BranchName::parse(&"ü".repeat(150)).unwrap_err().to_string();
        assert!(error.contains('…') && error.chars().count() < 130, "{error}");
        assert_eq!(RemoteUrl::parse("https://h/").unwrap_err().to_string(), "remote URL \"https://h/\" has no path");
    }
}
