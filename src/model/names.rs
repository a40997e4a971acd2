//! Names from settings and requests (workspace, branch, folder, author), parsed at the edge and trusted afterwards; and
//! the names that a file in a repository cannot have.

use std::fmt;

use crate::util::redact;

/// Windmill's own workspace, in which a new instance is set up. It is backed up only if a setting or a request names
/// it.
pub const ADMINS: &str = "admins";

/// The prefix of the id of a forked workspace. If a branch has this prefix, `wmill` uses another workspace.
pub const FORK: &str = "wm-fork";

/// Windmill's own limit for a workspace id.
const WORKSPACE_BYTES_MAX: usize = 50;
/// The longest branch name. File systems accept names of 255 bytes, and git appends `.lock` to a ref's last part.
const BRANCH_BYTES_MAX: usize = 200;
/// The longest folder. It has to leave room for Windmill's own paths below it.
const SUBDIR_BYTES_MAX: usize = 200;
/// The longest name or address of an author. A line of a commit's header should stay readable.
const IDENTITY_BYTES_MAX: usize = 200;
/// The most characters of a refused value in an error.
const QUOTED_CHARS_MAX: usize = 80;

/// Returns `text` in quotes, with unprintable characters escaped, and cut if it is long.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", redact::first_chars(text, QUOTED_CHARS_MAX))
}

/// The longest file name that file systems accept.
const NAME_BYTES_MAX: usize = 255;

/// Returns whether a path in a repository can have this part: it does not lead out of its folder, and git and the disk
/// can store it. Some callers have more conditions.
pub(crate) fn is_storable(part: &[u8]) -> bool {
    !matches!(part, b"" | b"." | b"..") && part.len() <= NAME_BYTES_MAX && !is_gits_own(part)
}

/// Returns whether git reserves this name for its own files. The case is ignored, because some file systems ignore it.
fn is_gits_own(part: &[u8]) -> bool {
    part.eq_ignore_ascii_case(b".git")
}

/// Fails with the message of the first broken rule.
pub(super) fn first_broken(rules: &[(bool, &'static str)]) -> Result<(), &'static str> {
    match rules.iter().find(|(broken, _)| *broken) {
        Some((_, why)) => Err(why),
        None => Ok(()),
    }
}

/// Returns the text, or an error that quotes it and has the message of the first broken rule.
pub(crate) fn checked(what: &str, text: &str, rules: &[(bool, &'static str)]) -> Result<String, String> {
    first_broken(rules).map(|()| text.to_owned()).map_err(|why| refusal(what, text, why))
}

/// Returns an error that quotes the text.
pub(super) fn refusal(what: &str, text: &str, why: &str) -> String {
    [what, " ", &quoted(text), " ", why].concat()
}

/// Implements `as_str` and `Display` for a name or URL whose text is in this field.
macro_rules! text_of {
    ($name:ident.$field:tt) => {
        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.$field
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}
pub(super) use text_of;

/// The placeholder for the workspace's id in a template.
pub const WORKSPACE_MARK: &str = "{workspace}";

/// Replaces each [`WORKSPACE_MARK`] in `template`.
pub fn fill(template: &str, workspace: &WorkspaceId) -> String {
    template.replace(WORKSPACE_MARK, workspace.as_str())
}

/// Does the same, and refuses the remaining braces.
fn filled(what: &str, template: &str, workspace: &WorkspaceId) -> Result<String, String> {
    let text = fill(template, workspace);
    let why = "has braces in it: only {workspace} is replaced";
    if text.contains(['{', '}']) { Err(refusal(what, &text, why)) } else { Ok(text) }
}

/// The id of a Windmill workspace: letters, digits, `_` and `-`, so that it is safe in a path, a URL and a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceId(String);

text_of!(WorkspaceId.0);

impl WorkspaceId {
    /// Parses an id of 1 to 50 bytes.
    ///
    /// # Errors
    ///
    /// Fails if it is empty, is too long, starts with a dash or has another character.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules = [
            (text.is_empty(), "is empty"),
            (text.len() > WORKSPACE_BYTES_MAX, "is longer than 50 bytes"),
            (text.starts_with('-'), "starts with a dash"),
            (
                !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
                "has another character than letters, digits, _ and -",
            ),
        ];
        checked("workspace id", text, &rules).map(Self)
    }
}

/// The short name of a branch, such as `main`. It follows the rules of `git check-ref-format --branch` and a few more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BranchName(String);

text_of!(BranchName.0);

impl BranchName {
    /// Parses a short name of at most 200 bytes.
    ///
    /// # Errors
    ///
    /// Fails if git would refuse it, if it is a full ref, or if it starts with `wm-fork`: on such a branch, `wmill`
    /// uses another workspace.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let rules = [
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
        ];
        checked("branch name", text, &rules).map(Self)
    }

    /// Replaces `{workspace}` and parses the result.
    ///
    /// # Errors
    ///
    /// Fails as [`BranchName::parse`] does, and if braces remain, because they are a mistyped `{workspace}`.
    pub fn from_template(template: &str, workspace: &WorkspaceId) -> Result<Self, String> {
        Self::parse(&filled("branch name", template, workspace)?)
    }

    /// Returns the full name, such as `refs/heads/main`.
    pub fn full_ref(&self) -> String {
        ["refs/heads/", &self.0].concat()
    }
}

/// A folder in the repository: its path without slashes at its ends, empty for the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subdir(String);

text_of!(Subdir.0);

impl Subdir {
    /// Parses a path relative to the repository's root and drops slashes at its ends. The empty text, `/` and `.` are
    /// the root.
    ///
    /// # Errors
    ///
    /// Fails if it would lead out of the repository or into git's own files, if git or a file system could not store
    /// it, or if it is longer than 200 bytes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = text.trim_matches('/');
        if path.is_empty() || path == "." {
            return Ok(Self(String::new()));
        }
        let mut parts = path.split('/');
        // The parts have to be storable; each fault has its own message. A name that a person chose has to follow more
        // rules than the names that are already in a repository.
        let rules = [
            (path.len() > SUBDIR_BYTES_MAX, "is longer than 200 bytes"),
            (path.starts_with('-'), "starts with a dash"),
            (parts.clone().any(str::is_empty), "has two slashes in a row"),
            (parts.clone().any(|part| part == "." || part == ".."), "has . or .. in it"),
            (
                // On file systems with short names, `git~1` is another name of `.git`. git refuses both by default, and
                // our configuration allows `git~1`.
                parts.any(|part| is_gits_own(part.as_bytes()) || part.eq_ignore_ascii_case("git~1")),
                "leads into git's own files",
            ),
            (
                // These characters have a meaning in git's path patterns or output, or cannot be in a file name on
                // Windows.
                path.contains(|letter: char| letter.is_control() || "\\:*?[\"<>|".contains(letter)),
                "has a control character or one of \\ : * ? [ \" < > |",
            ),
        ];
        checked("folder", path, &rules).map(Self)
    }

    /// Replaces `{workspace}` and parses the result.
    ///
    /// # Errors
    ///
    /// Fails as [`Subdir::parse`] does, and if braces remain, because they are a mistyped `{workspace}`.
    pub fn from_template(template: &str, workspace: &WorkspaceId) -> Result<Self, String> {
        Self::parse(&filled("folder", template, workspace)?)
    }

    /// Returns whether it is the repository's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the prefix of each path of this folder in the repository: empty for the root, else `folder/`.
    pub fn prefix(&self) -> String {
        if self.is_root() { String::new() } else { [&self.0, "/"].concat() }
    }
}

/// The name and address in a commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    name: String,
    email: String,
}

impl Identity {
    /// Parses a name and an address, and trims both.
    ///
    /// # Errors
    ///
    /// Fails if git would treat one of them as empty, if one would break a commit's header, or if one is longer than
    /// 200 bytes.
    pub fn parse(name: &str, email: &str) -> Result<Self, String> {
        Ok(Self::of_parts(Self::parse_name(name)?, Self::parse_email(email)?))
    }

    pub(crate) fn parse_name(text: &str) -> Result<String, String> {
        Self::part("user name", text)
    }

    pub(crate) fn parse_email(text: &str) -> Result<String, String> {
        Self::part("user email", text)
    }

    /// Makes an identity of two parts that were parsed separately, so that each has its own error.
    pub(crate) fn of_parts(name: String, email: String) -> Self {
        Self { name, email }
    }

    fn part(what: &str, text: &str) -> Result<String, String> {
        let text = text.trim();
        let rules = [
            (text.is_empty(), "is empty"),
            (text.len() > IDENTITY_BYTES_MAX, "is longer than 200 bytes"),
            (
                text.contains(|letter: char| redact::is_invisible(letter) || letter == '<' || letter == '>'),
                "has a control or invisible character, < or >",
            ),
            // git strips these characters from the ends, and refuses a text that has no others.
            (text.chars().all(|letter| " .,:;\"\\'".contains(letter)), "has nothing but punctuation"),
        ];
        checked(what, text, &rules)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address.
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
    use crate::model::RemoteUrl;

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
    fn a_part_of_a_path_is_storable_if_git_accepts_it() {
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
    fn a_branch_name_is_valid_for_git() {
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
    fn the_workspace_is_the_only_placeholder_of_a_template() {
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
