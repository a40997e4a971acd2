//! Names that settings and requests bring (workspace, branch, folder, author), parsed at the edge and
//! trusted afterwards; and which names a file in a repository cannot have.

use std::fmt;

use crate::util::redact;

/// Windmill's own workspace, in which a new instance is set up. It is backed up where it is named.
pub const ADMINS: &str = "admins";

/// What the id of a forked workspace begins with, and a branch from which wmill concludes that another one is meant.
pub const FORK: &str = "wm-fork";

/// Windmill's own limit for a workspace id.
const WORKSPACE_BYTES_MAX: usize = 50;
/// File systems hold names of 255 bytes, and git appends `.lock` to a ref's last part.
const BRANCH_BYTES_MAX: usize = 200;
/// A path prefix has to leave room for Windmill's own paths below it.
const SUBDIR_BYTES_MAX: usize = 200;
/// A line of a commit's header should stay readable.
const IDENTITY_BYTES_MAX: usize = 200;
/// What is shown of a refused value.
const QUOTED_CHARS_MAX: usize = 80;

/// Why a name was refused. Its text names the value, unless that could hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl NameError {
    pub(super) fn new(what: &str, value: &str, why: &str) -> Self {
        Self([what, " ", &quoted(value), " ", why].concat())
    }

    /// For URLs: shown only where nothing in it can be a credential.
    pub(super) fn of_url(what: &str, url: &str, why: &str) -> Self {
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

/// The longest name of a file that file systems take.
const NAME_BYTES_MAX: usize = 255;

/// Whether a file in a repository can have this as a part of its path: it leads nowhere else, and git and the disk can
/// hold it. Who needs more asks for more.
pub(crate) fn is_storable(part: &[u8]) -> bool {
    !matches!(part, b"" | b"." | b"..") && part.len() <= NAME_BYTES_MAX && !is_gits_own(part)
}

/// Whether git keeps this name for its own files, in any case since file systems may know no case.
pub(crate) fn is_gits_own(part: &[u8]) -> bool {
    part.eq_ignore_ascii_case(b".git")
}

/// A rule, and what to say of a name that breaks it.
pub(super) type Rule = (bool, &'static str);

/// What to say of the first rule that is broken.
pub(super) fn first_broken(rules: &[Rule]) -> Result<(), &'static str> {
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
pub(super) use text_of;

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
            (text.starts_with(FORK), "starts with wm-fork, from which wmill concludes that another workspace is meant"),
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

    /// The path of the folder, without slashes at its ends; empty for the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
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
                text.contains(|letter: char| redact::is_invisible(letter) || letter == '<' || letter == '>'),
                "has a control or invisible character, < or >",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::urls::RemoteUrl;

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
    fn a_refusal_shows_the_value_escaped_and_cut() {
        let error = BranchName::parse("a\u{1b}[31m\n").unwrap_err();
        assert!(error.to_string().starts_with("branch name \"a\\u{1b}[31m\\n\" has"), "{error}");
        let error = BranchName::parse(&"ü".repeat(150)).unwrap_err().to_string();
        assert!(error.contains('…') && error.chars().count() < 130, "{error}");
        assert_eq!(RemoteUrl::parse("https://h/").unwrap_err().to_string(), "remote URL \"https://h/\" has no path");
    }
}
