//! The addresses of Windmill and of a git remote, parsed at the edge and trusted afterwards.

use std::fmt;

use crate::model::names::{first_broken, refusal, text_of};
use crate::util::{Secret, percent};

/// The longest URL: longer than any that a git host gives out, and short enough for a program's argument.
const URL_BYTES_MAX: usize = 2_000;

/// The address of Windmill: an `http` or `https` URL, with its path prefix and without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(String);

text_of!(BaseUrl.0);

impl BaseUrl {
    /// Parses a URL and drops slashes at its end.
    ///
    /// # Errors
    ///
    /// Fails if it is not an `http` or `https` URL, or if it has user info, a query, a fragment or Windmill's `/api`.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::normalized(text).map(Self).map_err(|why| url_refusal("base URL", text, why))
    }

    fn normalized(text: &str) -> Result<String, &'static str> {
        check_url_characters(text)?;
        let split = split_scheme(text).filter(|(scheme, _)| scheme == "http" || scheme == "https");
        let (scheme, rest) = split.ok_or("does not start with http:// or https://")?;
        let url = Authority::split(rest)?;
        if url.user_info.is_some() {
            return Err("has a user or a token in it: put the token into WINDMILL_TOKEN");
        }
        let rest = rest.trim_end_matches('/');
        if rest.ends_with("/api") || rest.contains("/api/w/") {
            return Err("contains /api, which this program appends itself: leave out /api and what follows");
        }
        Ok([&scheme, "://", rest].concat())
    }

    /// Returns the URL of `path` below this one, without checking `path`. The empty path gives the base with a slash at
    /// its end.
    pub fn join(&self, path: &str) -> String {
        [&self.0, "/", path.trim_start_matches('/')].concat()
    }
}

/// The protocol of a remote.
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

/// The URL of a git remote, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    /// The URL in the form that git gets.
    text: String,
    scheme: RemoteScheme,
    host: String,
}

text_of!(RemoteUrl.text);

/// The user and the password that a URL had before its host, decoded.
type UserInfo = (Option<String>, Option<Secret>);

const NO_REMOTE: &str = "is not one of https://…, http://…, ssh://…, user@host:path and file:///…";

impl RemoteUrl {
    /// Parses the URL of a remote in one of the four forms that git's own transports know.
    ///
    /// # Errors
    ///
    /// Fails if it has another form (one like `ext::` would run a program), a credential, or a part that ssh or git
    /// would treat as an option.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = match Self::split(text) {
            Ok((_, Some(_))) => Err(
                "has a user or a token in it: put the user into GIT_USERNAME and the token into GIT_TOKEN, in a request \
                 into `git_token`",
            ),
            split => split.map(|(url, _)| url),
        };
        url.map_err(|why| url_refusal("remote URL", text, why))
    }

    /// Parses a URL of Windmill's `git_repository` resource, `https://user:token@host/…` or `https://token@host/…`.
    /// Returns the URL without credentials, the user and the token.
    ///
    /// # Errors
    ///
    /// Fails as [`RemoteUrl::parse`] does, but accepts user and token in an http(s) URL.
    pub fn parse_with_credentials(text: &str) -> Result<(Self, Option<String>, Option<Secret>), String> {
        let (url, user_info) = Self::split(text).map_err(|why| url_refusal("remote URL", text, why))?;
        let (user, token) = user_info.unwrap_or_default();
        Ok((url, user, token))
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
            // The host begins after the last `@` of the authority.
            (_, Some(info)) => (&rest[info.len() + 1..], Some(decode_user_info(info)?)),
            (_, None) => (rest, None),
        };
        let text = [&scheme, "://", rest].concat();
        Ok((Self { text, scheme: known, host: url.host.to_owned() }, user_info))
    }

    /// Parses `user@host:path`. The user is required: without it, `host:path` is too similar to `transport::address`.
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

    /// Returns its protocol.
    pub fn scheme(&self) -> RemoteScheme {
        self.scheme
    }

    /// Returns whether git uses HTTP for it, and therefore needs a token.
    pub fn is_http(&self) -> bool {
        matches!(self.scheme, RemoteScheme::Https | RemoteScheme::Http)
    }

    /// Returns the host without its port; the empty text for a file.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns scheme, host and port with a slash, for git's `http.<origin>.extraHeader`. Only http and https URLs have
    /// an origin.
    pub fn origin(&self) -> Option<String> {
        if !self.is_http() {
            return None;
        }
        let (scheme, rest) = self.text.split_once("://")?;
        let (authority, _) = rest.split_once('/')?;
        Some([scheme, "://", authority, "/"].concat())
    }
}

/// Returns an error that shows the URL only if no part of it can be a credential.
fn url_refusal(what: &str, url: &str, why: &str) -> String {
    if url.contains("://") && !url.contains(['@', '?', '#']) {
        refusal(what, url, why)
    } else {
        [what, " ", why].concat()
    }
}

fn decode_user_info(info: &str) -> Result<UserInfo, &'static str> {
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    let decoded = |text| percent::decode(text).ok_or("has a user or a token in it that is not percent-encoded");
    let (user, password) = (decoded(user)?, decoded(password)?);
    first_broken(&[
        (user.contains(char::is_control) || password.contains(char::is_control), "has a control character in it"),
        (user.contains(':'), "has a user with a colon in it"),
    ])?;
    let user = Some(user).filter(|user| !user.is_empty());
    // A token without a user is in the place of the user. In some URLs, GitHub's word for "no password" follows it.
    let is_token = password.is_empty() || password == "x-oauth-basic";
    Ok(if is_token { (None, user.map(Secret::new)) } else { (user, Some(Secret::new(password))) })
}

/// The part of a URL after `scheme://`.
struct Authority<'a> {
    user_info: Option<&'a str>,
    host: &'a str,
    /// The path with its first slash, or empty.
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
        (!is_name(host, b"._-"), "has a host that is not a name of letters, digits, dots, _ and -"),
    ])
}

fn check_ssh_user(user: &str) -> Result<(), &'static str> {
    first_broken(&[
        (user.contains(':'), "has a password in it: ssh remotes take a key, GIT_SSH_KEY"),
        (!is_name(user, b"._-+"), "has a user that is not a name of letters, digits, dots, _, - and +"),
    ])
}

/// Whether this is a name of letters, digits and these characters that no program treats as an option. A percent sign
/// is not permitted: git decodes it, and ssh would get the decoded text.
fn is_name(text: &str, others: &[u8]) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(is_permitted)
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

/// Returns the scheme and the text after `://`. The scheme is in lower case, because git knows its transports only in
/// this form.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    Some((scheme.to_ascii_lowercase(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that each of `accepted` is parsed, and that each of `refused` fails with its word in the message.
    #[track_caller]
    fn check<T>(parse: fn(&str) -> Result<T, String>, accepted: &[&str], refused: &[(&str, &str)]) {
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
                ("http://-h", "host"),
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
            ("/x", "not one of"),
            ("x", "not one of"),
            ("h:x", "not one of"),
            ("C:\\x", "backslash"),
            ("ext::sh -c x", "space"),
            ("ext::x", "not one of"),
            ("fd::17/foo", "not one of"),
            ("git://h/x", "not one of"),
            ("git+ssh://h/x", "not one of"),
            ("https::https://h/x", "not one of"),
            ("https://h", "no path"),
            ("https://h/", "no path"),
            ("https:///x", "no host"),
            ("https://-h/x", "host"),
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
            ("ssh://@h/x", "user"),
            ("ssh://-oProxyCommand=x/y", "host"),
            ("ssh://%2doProxyCommand/y", "host"),
            ("ssh://-l@h/x", "user"),
            ("ssh://%2dl@h/x", "user"),
            ("ssh://git@h:team/x", "port"),
            ("ssh://h/%2dx", "dash"),
            ("git@h:", "no path"),
            ("git@h:-x", "dash"),
            ("git@h::x", "not one of"),
            ("git@-h:x", "host"),
            ("-x@h:y", "user"),
            ("a/b@h:x", "user"),
            ("@h:x", "user"),
            ("file://h/x", "three slashes"),
            ("file:///", "no path"),
            ("file://", "no path"),
            ("file:x", "not one of"),
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
    fn credentials_are_split_from_the_url_of_a_resource() {
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
}
